"""The figures of one part of a report, made of its lines, and the samples of several settings side by side."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ganrun.figures.sweep import (
    LONGEST,
    MOST,
    Axis,
    Band,
    Dots,
    Figure,
    curve_figure,
    curves_figure,
    dots_figure,
    heat_figure,
    parallel_figure,
)
from ganrun.reports.collect import Run
from ganrun.reports.settings import short
from ganrun.reports.summary import Line, Part

MOST_DOTS = 30  # settings in the figure of values
CLOCKS = ("step (updates of G)", "real images seen", "training time (s)")
OTHERS = {"accuracy/pairs": "D: pairs ranked correctly", "loss/d": "loss of D", "loss/g": "loss of G"}
STEPS = 4  # pictures of one setting
SIDE, SMALL = 480, 240  # the largest side of one, in pixels, and the width below which it is enlarged


@dataclass(frozen=True)
class Drawing:
    """A figure with its file name and its caption. on_page: whether the page has it; as_file: whether it is a PNG."""

    stem: str
    figure: Figure
    caption: str
    on_page: bool = True
    as_file: bool = True


class Png(NamedTuple):
    """The content of a PNG file. is_small: whether its pixels are larger on the page than on the screen."""

    data: bytes
    is_small: bool


@dataclass(frozen=True)
class Samples:
    """The pictures of several settings at the same steps: for each its name, and a picture or None for each step."""

    steps: Sequence[int]
    rows: Sequence[tuple[str, Sequence[Png | None]]]
    caption: str


def drawings(part: Part) -> Iterator[Drawing]:
    """All figures for which there are values."""
    lines = part.ranked
    if part.ranking is None or not lines:
        return
    ranking = part.ranking
    label = f"{ranking.title}, {ranking.direction}"
    rows = [
        Dots(label_of(line, lines), i, [*line.values.values()], line.mean.value, line.mean.interval)
        for i, line in enumerate(lines[:MOST_DOTS])
        if line.mean
    ]
    yield Drawing(
        "values", dots_figure(rows, label), "Each dot is a seed. Tick and line: the mean and its 95% interval."
    )
    yield from curve_drawings(part, lines[:MOST])
    if drawing := map_of(part, label):
        yield drawing


def curve_drawings(part: Part, lines: Sequence[Line]) -> Iterator[Drawing]:
    """Learning curves: of the metric against three quantities, and of losses against steps."""
    assert part.ranking is not None, "there are lines with a rank"
    tag = next((t for t in (f"metric/{part.ranking.key}", f"metric_raw/{part.ranking.key}") if has(lines, t)), None)
    of_metric = tag or "accuracy/pairs"
    y_label = part.ranking.key if tag else OTHERS[of_metric]
    panels = [(bands(lines, of_metric, clock), CLOCKS[clock]) for clock in range(3)]
    what = "Median over seeds, and the range from the lowest to the highest."
    what += f" The best {len(lines)} settings." if len(part.ranked) > len(lines) else ""
    if panels[0][0]:
        yield Drawing("curves", curves_figure(panels, y_label), what, on_page=False)
        for found, x_label in panels:
            yield Drawing("", curve_figure(found, x_label, y_label), what, as_file=False)
    for other, name in OTHERS.items():
        if other != of_metric and (found := bands(lines, other, 0)):
            yield Drawing("", curve_figure(found, CLOCKS[0], name), what, as_file=False)


def label_of(line: Line, lines: Sequence[Line]) -> str:
    """The name of a setting in a figure. If names are too long, its rank and the values."""
    if all(len(other.name) <= LONGEST for other in lines):
        return line.name
    return f"#{line.rank} {', '.join(filter(None, line.setting.shown.values()))}"


def has(lines: Sequence[Line], tag: str) -> bool:
    return any(band for band in bands(lines, tag, 0))


def bands(lines: Sequence[Line], tag: str, clock: int) -> list[Band]:
    """The curves of a tag over the seeds of each line. clock: 0 for steps, 1 for images, 2 for seconds."""
    found = [band_of(line, label_of(line, lines), i, tag, clock) for i, line in enumerate(lines)]
    return [band for band in found if band is not None]


def band_of(line: Line, name: str, number: int, tag: str, clock: int) -> Band | None:
    """None without two steps that at least half of the runs have logged."""
    runs = [(run, run.curves[tag]) for run in line.runs if tag in run.curves]
    by_step: dict[int, list[tuple[float, float]]] = {}
    for run, curve in runs:
        places = curve[0] if clock == 0 else run.at(curve[0])[clock - 1]
        kept = {int(step): pair for step, *pair in zip(curve[0], places, curve[1], strict=True)}  # the last of a step
        for step, (place, value) in kept.items():
            if np.isfinite(value):
                by_step.setdefault(step, []).append((place, value))
    steps = sorted(step for step, pairs in by_step.items() if 2 * len(pairs) >= len(runs))
    if len(steps) < 2:
        return None
    x = np.array([np.mean([place for place, _ in by_step[step]]) for step in steps])
    values = [np.array([value for _, value in by_step[step]]) for step in steps]
    middle, low, high = (np.array([f(v) for v in values]) for f in (np.median, np.min, np.max))
    return Band(name, number, x, middle, low, high)


def map_of(part: Part, label: str) -> Drawing | None:
    """A heat map if only two numbers vary, parallel coordinates if more varies; None if fewer numbers do."""
    lines = [line for line in part.ranked if line.mean]
    axes = [axis_of(short(key), [line.setting.values[key] for line in lines]) for key in part.keys]
    numbers = [axis for axis in axes if axis.labels is None and len(set(axis.places.tolist())) > 1]
    if len(numbers) < 2 or part.ranking is None:
        return None
    means = np.array([line.mean.value for line in lines if line.mean])
    x, y = numbers[:2]
    cells = len(set(x.places.tolist())) * len(set(y.places.tolist()))
    if len(axes) == 2 and cells <= 2 * len(lines):
        return Drawing("map", heat_figure(x, y, means, label), f"The mean of {label}.")
    caption = f"Each line is a setting; the brightest has the best mean of {label}."
    return Drawing("map", parallel_figure(axes, means, part.ranking.key, part.ranking.higher), caption)


def axis_of(name: str, values: Sequence[str]) -> Axis:
    """An axis of numbers if all values are numbers; else of texts."""
    try:
        return Axis(name, np.array([float(value) for value in values]))
    except ValueError:
        labels = list(dict.fromkeys(values))
        return Axis(name, np.array([labels.index(value) for value in values]), labels)


def samples_of(part: Part, most: int = MOST) -> Samples | None:
    """Pictures of the best settings at the same steps, from the same seed where there is one."""
    lines = [line for line in part.lines if any(run.pictures for run in line.runs)][:most]
    if not lines:
        return None
    seeds = [{run.seed for run in line.runs if run.pictures} for line in lines]
    common = sorted(set.intersection(*seeds))
    runs = [shown(line, common[0] if common else None) for line in lines]
    every = [set(run.pictures) for run in runs]
    steps = sorted(set.intersection(*every)) or sorted(set.union(*every))
    steps = sorted({steps[round(i * (len(steps) - 1) / (STEPS - 1))] for i in range(STEPS)})
    if 0 in steps and len(steps) > 2:
        steps = steps[1:]
    same = len({str(run.config.get("latent")) + str(run.config["arch"].get("z_dim")) for run in runs}) == 1
    which = f"Seed {common[0]} of each setting" if common else "The lowest seed of each setting"
    latents = ", and so the same latents." if common and same else "; their latents differ."
    rows = [(line.name, [png(run.pictures.get(step)) for step in steps]) for line, run in zip(lines, runs, strict=True)]
    return Samples(steps, rows, which + latents)


def shown(line: Line, seed: int | None) -> Run:
    return next(run for run in line.runs if run.pictures and seed in (run.seed, None))


def png(path: Path | None) -> Png | None:
    """The picture in a file, as a new PNG; None if there is none, or it is damaged, or a link."""
    if path is None or path.is_symlink() or not path.is_file():
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            small.save(buffer, "PNG", optimize=True)
            return Png(buffer.getvalue(), small.width < SMALL)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
