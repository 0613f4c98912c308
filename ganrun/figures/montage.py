"""Figures of image samples: grids with titles side by side, and rows with labels."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ganrun.figures.grid import grid
from ganrun.figures.mpl import Axes, Figure

WIDTH = 8.0  # of a figure, in inches
PADDING = 2  # pixels between images
TITLE, LABEL = 0.7, 1.2  # space above the images, and at the left for the labels, in inches


def grids_figure(grids: Sequence[tuple[str, np.ndarray]], title: str) -> Figure:
    """Grids, each (H, W, 3) of uint8, side by side, with a title each."""
    height, width = (max(image.shape[axis] for _, image in grids) for axis in (0, 1))
    figure = Figure(figsize=(WIDTH, WIDTH / len(grids) * height / width + TITLE), dpi=100, layout="constrained")
    for axes, (name, image) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids, strict=True):
        show(axes, image)
        axes.set_title(name, fontsize="medium")
    figure.suptitle(title)
    return figure


def rows_figure(rows: Tensor, labels: Sequence[str], title: str, below: str = "") -> Figure:
    """Images (R, N, C, H, W) of uint8 with a label at the left of each of the R rows. below: a line under them."""
    image = grid(rows.flatten(0, 1), rows.shape[1], padding=PADDING)
    height = (WIDTH - LABEL) * image.shape[0] / image.shape[1]
    figure = Figure(figsize=(WIDTH, height + TITLE), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    show(axes, image)
    side = rows.shape[3]
    places = PADDING + side / 2 + np.arange(len(rows)) * (side + PADDING)
    axes.set_yticks(places, labels)
    axes.tick_params(length=0)
    axes.set_xlabel(below, fontsize="small")
    axes.set_title(title)
    return figure


def show(axes: Axes, image: np.ndarray) -> None:
    """Draw the image without axes, and without mixing its pixels."""
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
