"""Figures of the trained generator of images, for `ganrun figures`: they are drawn from the run's checkpoint."""

import logging
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset
from ganrun.figures.grid import grid
from ganrun.figures.montage import grids_figure, rows_figure
from ganrun.figures.mpl import Figure
from ganrun.training.build import load_data
from ganrun.training.load import LoadedRun
from ganrun.training.pictures import COLUMNS, NUM_IN_GRID, ROWS, real_examples
from ganrun.training.walks import STEPS, THRESHOLDS, WALKS, mixes_classes

log = logging.getLogger("ganrun")


class SampleFigures:
    """Samples of a run on images, to compare: with real images, of G_ema and G, of walks, and of truncated latents."""

    def __init__(self, loaded: LoadedRun) -> None:
        self.loaded, self.spec = loaded, loaded.spec
        self.name = "G" if loaded.G_ema is None else "G_ema"
        self.rows = min(self.spec.num_classes, ROWS) if loaded.condition.uses_labels else None

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """All figures that can be drawn, with their file names. Logs why the others are not."""
        if dataset := self._dataset():
            seed = self.loaded.config["seed"]
            real = self.spec.encode(real_examples(dataset, self.rows, seed))
            pair = [("real", self._grid(real)), (f"samples of {self.name}", self._grid(self._samples()))]
            yield "real", grids_figure(pair, f"real images and samples, step {self.loaded.step:,}")
        if self.loaded.G_ema is None:
            log.info("ema is skipped: the run has no G_ema (train.ema).")
        else:
            pair = [(name, self._grid(self._samples(ema=name == "G_ema"))) for name in ("G_ema", "G")]
            yield "ema", grids_figure(pair, f"the same latents, step {self.loaded.step:,}")
        yield "interpolation", self._interpolation()
        if self.loaded.latent.truncates:
            yield "truncation", self._truncation()
        else:
            log.info("truncation is skipped: it is defined for normal latents, which this run does not have.")

    def _samples(self, ema: bool = True) -> Tensor:
        """Samples (n, C, H, W) of uint8: the first ones of seed 0, in a conditional run with a row for each class."""
        if self.rows is None:
            return self.spec.encode(self.loaded.sample(NUM_IN_GRID, ema=ema))
        drawn = self.loaded.sample(COLUMNS * self.rows, list(range(self.rows)), ema=ema)
        return self.spec.encode(drawn.unflatten(0, (COLUMNS, self.rows)).transpose(0, 1).flatten(0, 1))

    def _grid(self, images: Tensor) -> np.ndarray:
        return grid(images, None if self.rows is None else COLUMNS)

    def _interpolation(self) -> Figure:
        loaded = self.loaded
        walks = loaded.interpolate(range(WALKS + 1), STEPS)
        labels = [f"seed {k} to {k + 1}" for k in range(WALKS)]
        below = f"{loaded.latent.way} interpolation of latents"
        if self.rows is not None:
            classes = [self.spec.classes[k % self.spec.num_classes] for k in range(WALKS + 1)]
            labels = [f"{a} to {b}" for a, b in pairwise(classes)]
            below += ", and of classes" if mixes_classes(loaded.G) else "; classes change halfway"
        title = f"interpolations between samples of {self.name}, step {loaded.step:,}"
        return rows_figure(self._encoded(walks), labels, title, below)

    def _truncation(self) -> Figure:
        rows = torch.stack([self.loaded.sample(STEPS, truncation=threshold) for threshold in THRESHOLDS])
        labels = ["not truncated" if threshold is None else f"|z| < {threshold:g}" for threshold in THRESHOLDS]
        title = f"truncated latents, samples of {self.name}, step {self.loaded.step:,}"
        return rows_figure(self._encoded(rows), labels, title, "each column: the same latent, truncated")

    def _encoded(self, x: Tensor) -> Tensor:
        images: Tensor = self.spec.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return images

    def _dataset(self) -> Dataset | None:
        """The data of the run; None if they are not available."""
        try:
            dataset = load_data(self.loaded.config)
        except ValueError as error:
            log.warning("real is skipped, because the data are not available: %s", error)
            return None
        if dataset.spec.shape != self.spec.shape:
            log.warning("real is skipped, because the data have another shape now.")
            return None
        return dataset
