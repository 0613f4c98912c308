"""`ganrun sample run_dir=DIR num=64`: draw any number of samples from the generator of a run."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.checks import check_arguments
from ganrun.config import Config, slug
from ganrun.console import Counter
from ganrun.data.dataset import DataSpec
from ganrun.figures.grid import encoded_png, grid, save_png
from ganrun.records.run_dir import RunDir
from ganrun.records.streams import Stream, check_space, save_folder, save_npy, save_npz
from ganrun.records.table_csv import save_csv
from ganrun.training.load import LoadedRun
from ganrun.training.pictures import COLUMNS, NUM_IN_GRID, ROWS
from ganrun.training.runtime import choose_device
from ganrun.training.sampling import Sampler

if TYPE_CHECKING:
    from ganrun.commands.interpolate import InterpolateOptions

log = logging.getLogger("ganrun")

MOST_IN_GRID = 10_000  # with format=grid
LABELS = 1 << 16  # written at a time


@dataclass(frozen=True)
class SampleOptions:
    """The settings of conf/sample.yaml."""

    run_dir: str
    num: int
    labels: Sequence[int | str] | int | str | None
    seed: int
    truncation: float | None
    checkpoint: int | Literal["last", "best"]
    ema: bool
    format: Literal["npz", "npy", "csv", "png", "grid"] | None
    out: str | None
    device: str


def main(config: Config, name: str = "") -> int:
    """Write the samples, and for images a grid of the first 64. Raises ValueError if they cannot be drawn."""
    check_arguments("", SampleOptions, config)
    options = SampleOptions(**config)
    if options.num < 1:
        raise ValueError(f"num={options.num}: must be at least 1.")
    run_dir = RunDir(Path(options.run_dir))
    loaded = LoadedRun(run_dir, options.checkpoint, choose_device(options.device, "device"))
    form = options.format or ("csv" if loaded.spec.form else "npz")
    check_format(form, options.num, loaded.spec)
    sampler = loaded.sampler(options.labels, options.seed, options.ema, options.truncation)
    out = Path(options.out).expanduser() if options.out else run_dir.samples
    run_dir.check_links()
    out.mkdir(parents=True, exist_ok=True)
    stem = stem_of(f"sample_step_{loaded.step:08d}_seed_{options.seed}", options, loaded)
    with closing(Counter("samples", options.num)) as counter:
        Writer(sampler, options.num, loaded.spec, counter).write(out, stem, form)
    return 0


def stem_of(start: str, options: "SampleOptions | InterpolateOptions", loaded: LoadedRun) -> str:
    """The name of files without their ending: `start`, and each setting that differs from its default."""
    parts = [start]
    if options.labels is not None:
        labels = options.labels if isinstance(options.labels, list | tuple) else [options.labels]
        parts.append(f"labels_{'_'.join(map(str, labels))}")
    if options.truncation is not None:
        parts.append(f"truncation_{options.truncation:g}")
    if not options.ema and loaded.G_ema is not None:
        parts.append("raw")
    return slug("_".join(parts))


def check_format(form: str, num: int, spec: DataSpec) -> None:
    if form in ("png", "grid") and not spec.is_image:
        raise ValueError(
            f"format={form}: these samples have shape {spec.shape} and are not images; use format=npz or npy."
        )
    if form == "csv" and not spec.form:
        raise ValueError("format=csv: these samples are no rows of a table; use format=npz or npy.")
    if form == "grid" and num > MOST_IN_GRID:
        raise ValueError(
            f"num={num}: one picture has at most {MOST_IN_GRID:,} samples; use format=png for a folder of pictures, or "
            "format=npy."
        )


class Writer:
    """Writes the first `num` samples of `sampler` as they are drawn, and keeps no more of them than a grid shows."""

    def __init__(self, sampler: Sampler, num: int, spec: DataSpec, counter: Counter) -> None:
        self.sampler, self.num, self.spec, self.counter = sampler, num, spec, counter
        self.first = FirstImages(NUM_IN_GRID, COLUMNS, ROWS)

    def write(self, out: Path, stem: str, form: str) -> None:
        """Write them to `out`, and for images a grid.

        npz: `samples`, uint8 (N, H, W, C) for images and float32 (N, d) in the data's units for vectors, and `labels`
        (N,) for conditional runs. npy: the same, in one file each. png: a folder, for conditional runs with a folder
        for each class. grid: only the grid, of all samples. csv: rows with the columns of the table.
        """
        path, conditional = out / f"{stem}.{form}", self.sampler.classes is not None
        if form == "npz":
            arrays = {"samples": self.samples} | ({"labels": self.labels} if conditional else {})
            if not self.spec.is_image:
                check_space(out, self.num, self.samples.nbytes)
            save_npz(path, arrays, compressed=self.spec.is_image)
        elif form == "npy":
            check_space(out, self.num, self.samples.nbytes)
            save_npy(path, self.samples)
            if conditional:
                save_npy(out / f"{stem}_labels.npy", self.labels)
        elif form == "csv":
            save_csv(path, self.spec, self.blocks())
        elif form == "png":
            path = out / stem
            save_folder(path, self.pngs())
        else:
            self.first = FirstImages(self.num, self.num, self.num)
            for _ in self.blocks():
                pass
        if self.spec.is_image:
            save_png(self.first.grid(), out / f"{stem}_grid.png")
            log.info("grid       %s", out / f"{stem}_grid.png")
        if form != "grid":
            log.info("samples    %s", path / ("*/*.png" if conditional else "*.png") if form == "png" else path)

    @property
    def samples(self) -> Stream:
        shape = (*self.spec.shape[1:], self.spec.shape[0]) if self.spec.is_image else self.spec.shape
        return Stream((self.num, *shape), "uint8" if self.spec.is_image else "float32", (x for x, _ in self.blocks()))

    @property
    def labels(self) -> Stream:
        starts = range(0, self.num, LABELS)
        parts = (self.sampler.labels(start, min(start + LABELS, self.num)) for start in starts)
        return Stream((self.num,), "int64", (part.numpy() for part in parts if part is not None))

    def blocks(self) -> Iterator[tuple[np.ndarray, list[int] | None]]:
        """The samples (n, H, W, C) of uint8, or (n, d), and their classes."""
        for samples, y in self.sampler.blocks(self.num):
            x = samples
            if self.spec.is_image:
                images = self.spec.encode(samples)  # (n, C, H, W)
                self.first.add(images, y)
                x = images.permute(0, 2, 3, 1)
            yield x.numpy(), None if y is None else y.tolist()
            self.counter.add(len(x))

    def pngs(self) -> Iterator[tuple[str, bytes]]:
        """The files of a folder of images: their path, and their content."""
        number, width = 0, max(6, len(str(self.num - 1)))
        for images, y in self.blocks():
            parents = [""] * len(images) if y is None else [folder_name(self.spec.classes[k]) for k in y]
            for image, parent in zip(images, parents, strict=True):
                pixels = image[:, :, 0] if image.shape[2] == 1 else image
                yield f"{parent}/{number:0{width}d}.png", encoded_png(pixels)
                number += 1


class FirstImages:
    """The first images of a stream, for a grid: `num` in all, or with classes `columns` of each of `rows` classes."""

    def __init__(self, num: int, columns: int, rows: int) -> None:
        self.num, self.columns, self.rows = num, columns, rows
        self.images: dict[int, list[Tensor]] = {}  # (C, H, W) of uint8, by class

    def add(self, images: Tensor, y: Tensor | None) -> None:
        """Keep those of images (n, C, H, W) with classes y (n,) that the grid shows."""
        for image, k in zip(images, [-1] * len(images) if y is None else y.tolist(), strict=True):
            if k not in self.images and len(self.images) == self.rows:
                continue
            kept = self.images.setdefault(k, [])
            if len(kept) < (self.num if k == -1 else self.columns):
                kept.append(image.clone())

    def grid(self) -> np.ndarray:
        """A square, or a row for each class, in the order in which the classes first appeared."""
        if list(self.images) == [-1]:
            return grid(torch.stack(self.images[-1]))
        columns = min(map(len, self.images.values()))
        return grid(torch.stack([image for row in self.images.values() for image in row[:columns]]), columns)


def folder_name(name: str) -> str:
    """The name of a class as that of a folder, in which no other folder can be meant.

    >>> folder_name("cat"), folder_name("../cat")
    ('cat', '___cat-2beb7094')
    """
    return name if Path(name).name == name != ".." else slug(name.replace(".", "_"))
