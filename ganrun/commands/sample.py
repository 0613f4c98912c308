"""`ganrun sample run_dir=DIR num=64`: draw from the generator of a run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.build import build_generator, choose_device
from ganrun.checks import check_arguments, fits
from ganrun.data.dataset import DataSpec
from ganrun.figures.pictures import COLUMNS, GRID, ROWS, save_png
from ganrun.names import Config
from ganrun.records.run_dir import RunDir
from ganrun.sampling import draw

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class SampleOptions:
    """The settings of conf/sample.yaml."""

    run_dir: str
    num: int
    labels: Sequence[int | str] | int | str | None
    seed: int
    checkpoint: int | Literal["last", "best"]
    average: bool
    format: Literal["npz", "png"]
    out: str | None
    device: str


def main(config: Config, name: str = "") -> int:
    """Write the samples, and for images a grid of the first 64. Raises ValueError for what cannot be drawn."""
    check_arguments("", SampleOptions, config)
    options = SampleOptions(**config)
    if options.num < 1:
        raise ValueError(f"num={options.num}: must be at least 1.")
    run_dir = RunDir(Path(options.run_dir))
    run_config = run_dir.config()
    state = run_dir.load(options.checkpoint)
    spec, device = DataSpec(**state["spec"]), choose_device(options.device, "device")
    if options.format == "png" and not spec.is_image:
        raise ValueError(f"format=png: these samples are no images but have shape {spec.shape}; use format=npz.")
    G, latent = build_generator(run_config, spec, device)
    G.load_state_dict(state["averaged" if options.average and "averaged" in state else "G"])
    classes = choose_classes(options.labels, spec, conditional=bool(run_config.get("condition")))
    y = torch.tensor(classes)[torch.arange(options.num) % len(classes)] if classes else None
    samples = draw(G, latent, options.num, device, options.seed, y)
    out = Path(options.out) if options.out else run_dir.samples
    write(samples, y, spec, out, f"sample_step_{state['step']:08d}_seed_{options.seed}", options.format)
    return 0


def choose_classes(labels: Any, spec: DataSpec, conditional: bool) -> list[int]:
    """The numbers of the classes that samples are taken from in turn; none of a run that knows no classes."""
    if not conditional:
        if labels is not None:
            raise ValueError(
                "labels: this run was not given any; train one with condition=concat, acgan or projection."
            )
        return []
    if labels is None:
        return list(range(spec.num_classes))
    labels = list(labels) if isinstance(labels, list | tuple) else [labels]
    if not labels:
        raise ValueError("labels=[]: name at least one class, as in labels=[0].")
    for label in labels:
        if label not in spec.classes and not (fits(label, int) and 0 <= label < spec.num_classes):
            names = ", ".join(f"{i} ({name})" if str(i) != name else name for i, name in enumerate(spec.classes))
            raise ValueError(f"labels: {label} is no class of this run; they are {names}.")
    return [label if fits(label, int) else spec.classes.index(label) for label in labels]


def write(samples: Tensor, y: Tensor | None, spec: DataSpec, out: Path, stem: str, form: str) -> None:
    """`samples` of the .npz: uint8 (N, H, W, C) for images, float32 (N, d) in the data's units for vectors.

    Beside them are the `labels` (N,), where there are any; as png they are sub-folders, one a class.
    """
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {} if y is None else {"labels": y.numpy()}
    if not spec.is_image:
        np.savez(out / f"{stem}.npz", samples=samples.numpy(), **arrays)
        log.info("samples    %s", out / f"{stem}.npz")
        return

    from ganrun.figures.grid import grid

    images = spec.encode(samples)  # (N, C, H, W)
    save_png(grid(images[:GRID]) if y is None else rows(images, y), out / f"{stem}_grid.png")
    log.info("grid       %s", out / f"{stem}_grid.png")
    pixels = images.permute(0, 2, 3, 1).numpy()
    if form == "npz":
        np.savez_compressed(out / f"{stem}.npz", samples=pixels, **arrays)
        log.info("samples    %s", out / f"{stem}.npz")
    else:
        folder = out / stem
        for i, image in enumerate(pixels):
            parent = folder if y is None else folder / spec.classes[int(y[i])]
            save_png(image.squeeze(), parent / f"{i:06d}.png")
        log.info("samples    %s/*.png", folder if y is None else folder / "*")


def rows(images: Tensor, y: Tensor) -> np.ndarray:
    """A grid with a row for each class, of its first images; classes in the order in which they first appear."""
    from ganrun.figures.grid import grid

    classes = list(dict.fromkeys(y.tolist()))[:ROWS]
    columns = min(COLUMNS, *(int((y == k).sum()) for k in classes))
    return grid(torch.cat([images[y == k][:columns] for k in classes]), columns)
