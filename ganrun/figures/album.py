"""All figures of one run: the stills, and the images of its animation."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ganrun.data.dataset import Dataset
from ganrun.figures.curves import Rows, accuracy_figure, curve, loss_figure, metric_figure, repeated_keys
from ganrun.figures.density import critic_limits, density_figure, to_array, top_for
from ganrun.figures.mpl import Figure
from ganrun.figures.panels import MOST_SHARED, density_panels, plane_panels
from ganrun.figures.plane import critic_levels, plane_figure
from ganrun.files import MARK
from ganrun.protocols import MetricKey
from ganrun.records.checkpoint import write_atomically
from ganrun.records.frames import Frame

DURING = (0.05, 0.25)  # of the run: where the middle panels are taken, since most changes happen early
MOST = 300  # the largest number of images in an animation
HIGHEST = 6.0  # highest end of the density axis of a single frame, in multiples of the highest true density
RESOLUTION = 160  # of stills, in dots per inch


@dataclass(frozen=True)
class Album:
    """The contents of a run directory that can be drawn.

    frames: in order; dataset: their data, which may be None without frames. rows: the rows of metrics.jsonl.
    pictures: the sample grids, in order. steps, pretrain_d: from the config. chance_losses: the losses of D and G with
    a D at chance level, if the loss is logistic. keys: the declared keys of the metrics.
    """

    frames: Sequence[Frame]
    dataset: Dataset | None
    rows: Rows
    pictures: Sequence[Path]
    steps: int
    pretrain_d: int
    chance_losses: tuple[float, float] | None
    keys: Mapping[str, MetricKey] = field(default_factory=dict)

    def stills(self) -> Iterator[tuple[str, Figure]]:
        """All figures that can be drawn, with their file names."""
        for name, frame in self.moments().items():
            yield f"density_{name}", self.moment_figure(frame)
        if self.frames and self.dataset:
            chosen = self.panels()
            draw = density_panels if len(chosen[0].low) == 1 else plane_panels
            yield "panels", draw(self.dataset, chosen, [f"step {frame.step:,}" for frame in chosen])
        if self.has("loss/d") and self.has("loss/g"):
            yield "losses", loss_figure(self.rows, self.chance_losses, nats=self.chance_losses is not None)
        if self.has("accuracy/real") and self.has("accuracy/fake"):
            yield "accuracy", accuracy_figure(self.rows)
        if self.metric_keys:
            unit = self.dataset.spec.unit if self.dataset else ""
            yield "metrics", metric_figure(self.rows, self.metric_keys, self.keys, unit)

    def images(self) -> list[np.ndarray]:
        """The images of the animation, (H, W, 3) of uint8: drawn from the frames, or else the sample grids."""
        if self.frames and self.dataset:
            return self._drawn(self.dataset, thinned(self.frames))
        return same_size([image for path in thinned(self.pictures) if (image := opened(path)) is not None])

    @property
    def metric_keys(self) -> list[str]:
        """The metrics that were computed more than once."""
        return repeated_keys(self.rows, self.keys)

    def has(self, key: str) -> bool:
        return len(curve(self.rows, key)[0]) > 0

    def moments(self) -> dict[str, Frame]:
        """The frames at the start, after training D alone, in the middle and at the end, if they exist."""
        if not self.frames or not self.dataset:
            return {}
        first, last = self.frames[0], self.frames[-1]
        found = {"start": first}
        if first.step < 0 <= last.step:
            found["pretrained"] = next(frame for frame in self.frames if frame.step >= 0)
        inside = [frame for frame in self.frames if 0 < frame.step < last.step]
        found |= {"middle": nearest(inside, last.step / 2)} if inside else {}
        return found | ({"end": last} if last.step > 0 else {})

    def panels(self) -> list[Frame]:
        """Four frames of the training of both players, or fewer if there are fewer."""
        game = [frame for frame in self.frames if frame.step >= 0] or list(self.frames)
        chosen = [game[0], game[-1]]
        for share in DURING:
            if left := [frame for frame in game if frame.step not in {c.step for c in chosen}]:
                chosen.append(nearest(left, share * game[-1].step))
        return sorted({frame.step: frame for frame in chosen}.values(), key=lambda frame: frame.step)

    def moment_figure(self, frame: Frame) -> Figure:
        assert self.dataset is not None
        if len(frame.low) == 2:
            return plane_figure(self.dataset, frame, self.title(frame))
        return density_figure(self.dataset, frame, self.title(frame), top_for(self.dataset, [frame], HIGHEST))

    def title(self, frame: Frame) -> str:
        if frame.step < 0:
            return f"D alone: {self.pretrain_d + frame.step:,} of {self.pretrain_d:,} updates"
        after = f", after {self.pretrain_d:,} updates of D alone" if self.pretrain_d and not frame.step else ""
        return f"step {frame.step:,} of {self.steps:,}{after}"

    def _drawn(self, dataset: Dataset, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Draw all frames with the same axes."""
        first, logistic = frames[0], frames[0].logistic
        if len(first.low) == 2:
            levels = None if logistic else critic_levels(frames)
            return [to_array(plane_figure(dataset, frame, self.title(frame), levels)) for frame in frames]
        limits, top = None if logistic else critic_limits(frames), top_for(dataset, frames, MOST_SHARED)
        return [
            to_array(density_panels(dataset, [frame], [self.title(frame)], limits, top, size=(8, 6)))
            for frame in frames
        ]


def nearest(frames: Sequence[Frame], step: float) -> Frame:
    return min(frames, key=lambda frame: abs(frame.step - step))


def thinned(items: Sequence[Any]) -> list[Any]:
    """At most MOST evenly spaced items, including the first and the last."""
    if len(items) <= MOST:
        return list(items)
    return [items[round(i * (len(items) - 1) / (MOST - 1))] for i in range(MOST)]


def opened(path: Path) -> np.ndarray | None:
    """The image (H, W, 3), or None if the file is damaged."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # all types that Pillow's reader raises
        return None


def same_size(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The images that have the size of the last one."""
    return [image for image in images if image.shape == images[-1].shape]


def save_still(figure: Figure, path: Path) -> None:
    """Write a figure atomically. The file name determines the format."""
    buffer = io.BytesIO()
    metadata = {"Comment": MARK} if path.suffix == ".png" else None
    figure.savefig(buffer, dpi=RESOLUTION, format=path.suffix[1:], metadata=metadata)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(buffer.getbuffer()))
