"""Figures of reports: what their axes say."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from ganrun.figures.sweep import INK, MOST_TICKS, PAPER, Axis, as_svg, parallel_figure, ticks

LABELS = [f"[{2**i},{2**i}]" for i in range(40)]


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (Axis("n", np.array([1.0, 5, 3, 1])), ["1", "3", "5"]),
        (Axis("lr", np.array([1e-4, 1e-3, 1e-2])), ["0.0001", "0.001", "0.01"]),
        (Axis("close", np.array([1.0, 1.01, 2])), ["1", "1.25", "1.5", "1.75", "2"]),
        (Axis("drawn", np.geomspace(1e-5, 1e-1, 30)), ["1e-05", "0.0001", "0.001", "0.01", "0.1"]),
        (Axis("one", np.array([3.0, 3.0])), ["3"]),
        (Axis("text", np.array([0, 1, 1]), ["wgan", "hinge"]), ["wgan", "hinge"]),
        (Axis("texts", np.arange(40), LABELS), LABELS[::3]),
    ],
)
def test_ticks_are_values_or_evenly_spaced(axis: Axis, texts: Sequence[str]) -> None:
    found = ticks(axis)
    assert [text for _, text in found] == texts
    assert all(b - a >= 1 / MOST_TICKS for (a, _), (b, _) in itertools.pairwise(found))


def test_labels_of_parallel_axes_are_apart_and_have_the_color_of_the_page() -> None:
    rng = np.random.default_rng(0)
    names = ("arch.generator.hidden", "optimizer.lr", "a_long_name.of_another_setting", "n")
    axes = [Axis("hidden", np.arange(30) % 3, LABELS[17:20]), *(Axis(name, rng.uniform(size=30)) for name in names)]
    figure = parallel_figure(axes, rng.uniform(size=30), "ks_100k", higher=False)
    figure.canvas.draw()
    (plot,) = figure.axes
    boxes = [text.get_window_extent() for text in (*plot.texts, *plot.get_xticklabels())]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    svg = as_svg(figure, "a")
    assert svg.count("fill: var(--back)") == len(plot.texts)
    assert PAPER not in svg
    assert INK not in svg
