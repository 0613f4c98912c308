"""`ganrun sample run_dir=DIR num=64`: draw samples from the generator of a run."""

import logging
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.checks import check_arguments
from ganrun.config import Config, slug
from ganrun.data.dataset import DataSpec
from ganrun.figures.grid import encoded_png, grid, save_png
from ganrun.records.checkpoint import errors_name, write_atomically
from ganrun.records.run_dir import RunDir
from ganrun.records.table_csv import save_csv
from ganrun.training.load import LoadedRun
from ganrun.training.pictures import COLUMNS, NUM_IN_GRID, ROWS
from ganrun.training.runtime import choose_device

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class SampleOptions:
    """The settings of conf/sample.yaml."""

    run_dir: str
    num: int
    labels: Sequence[int | str] | int | str | None
    seed: int
    checkpoint: int | Literal["last", "best"]
    ema: bool
    format: Literal["npz", "png", "csv"] | None
    out: str | None
    device: str


def main(config: Config, name: str = "") -> int:
    """Write the samples, and for images a grid of the first 64. Raises ValueError if they cannot be drawn."""
    check_arguments("", SampleOptions, config)
    options = SampleOptions(**config)
    run_dir = RunDir(Path(options.run_dir))
    loaded = LoadedRun(run_dir, options.checkpoint, choose_device(options.device, "device"))
    spec = loaded.spec
    form = options.format or ("csv" if spec.form else "npz")
    if form == "png" and not spec.is_image:
        raise ValueError(f"format=png: these samples have shape {spec.shape} and are not images; use format=npz.")
    if form == "csv" and not spec.form:
        raise ValueError("format=csv: these samples are no rows of a table; use format=npz.")
    samples = loaded.sample(options.num, options.labels, options.seed, options.ema)
    y = loaded.classes(options.num, options.labels)
    out = Path(options.out).expanduser() if options.out else run_dir.samples
    run_dir.check_links()
    write(samples, y, spec, out, f"sample_step_{loaded.step:08d}_seed_{options.seed}", form)
    return 0


def write(samples: Tensor, y: Tensor | None, spec: DataSpec, out: Path, stem: str, form: str) -> None:
    """Write the samples to `out`, and for images a grid.

    The .npz has `samples`, uint8 (N, H, W, C) for images and float32 (N, d) in the data's units for vectors, and
    `labels` (N,) for conditional runs. As png, each image is a file; conditional runs have a sub-folder for each class.
    As csv, rows have the columns of the table.
    """
    out.mkdir(parents=True, exist_ok=True)
    if form == "csv":
        save_csv(out / f"{stem}.csv", spec, [(samples, y)])
        log.info("samples    %s", out / f"{stem}.csv")
        return
    arrays: dict[str, Any] = {} if y is None else {"labels": y.numpy()}
    if not spec.is_image:
        save_npz(out / f"{stem}.npz", np.savez, samples=samples.numpy(), **arrays)
        log.info("samples    %s", out / f"{stem}.npz")
        return
    images = spec.encode(samples)  # (N, C, H, W)
    save_png(grid(images[:NUM_IN_GRID]) if y is None else class_rows(images, y), out / f"{stem}_grid.png")
    log.info("grid       %s", out / f"{stem}_grid.png")
    pixels = images.permute(0, 2, 3, 1).numpy()
    if form == "npz":
        save_npz(out / f"{stem}.npz", np.savez_compressed, samples=pixels, **arrays)
        log.info("samples    %s", out / f"{stem}.npz")
    else:
        folder = out / stem
        parents = [""] * len(pixels) if y is None else [folder_name(spec.classes[int(k)]) for k in y]
        save_folder(folder, {f"{parent}/{i:06d}.png": pixels[i] for i, parent in enumerate(parents)})
        log.info("samples    %s/*.png", folder if y is None else folder / "*")


def folder_name(name: str) -> str:
    """The name of a class as that of a folder, in which no other folder can be meant.

    >>> folder_name("cat"), folder_name("../cat")
    ('cat', '___cat-2beb7094')
    """
    return name if Path(name).name == name != ".." else slug(name.replace(".", "_"))


def save_npz(path: Path, save: Callable[..., None], **arrays: np.ndarray) -> None:
    """Write the arrays atomically with `save`, which is np.savez or np.savez_compressed."""

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as file:
            save(file, **arrays)

    write_atomically(path, write)


def save_folder(folder: Path, images: Mapping[str, np.ndarray]) -> None:
    """Write images (H, W, C) by their path in `folder`. They replace a folder of that name once all are written."""
    for left in folder.parent.glob(f"{folder.name}.*.unfinished"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.unfinished")
    try:
        with errors_name(folder):
            unfinished.mkdir()
            for name, image in images.items():
                path = unfinished / name.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded_png(image.squeeze()))
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def class_rows(images: Tensor, y: Tensor) -> np.ndarray:
    """A grid with a row of the first images of each class, in the order in which the classes first appear."""
    classes = list(dict.fromkeys(y.tolist()))[:ROWS]
    columns = min(COLUMNS, *(int((y == k).sum()) for k in classes))
    return grid(torch.cat([images[y == k][:columns] for k in classes]), columns)
