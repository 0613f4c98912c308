"""The picture of a table: what it draws."""

import numpy as np
import pytest
import torch
from helpers import run_of

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.data.table import breast_cancer
from ganrun.data.table_form import Column, TableForm
from ganrun.figures.table import MOST_COLUMNS, edges_of, table_figure
from ganrun.training.pictures import Pictures


@pytest.fixture(scope="module")
def data() -> Dataset:
    return breast_cancer(label=None)


def test_first_columns_and_two_matrices_are_drawn(data: Dataset) -> None:
    form = data.spec.form
    assert form is not None
    figure = table_figure(form, data.train.x, data.train.x[:50] + 0.1, "step 3")
    names = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    assert names[:MOST_COLUMNS] == [name if len(name) <= 22 else f"{name[:21]}…" for name in form.names[:MOST_COLUMNS]]
    assert names[MOST_COLUMNS] == "associations, real"
    assert figure.get_suptitle() == "step 3 (and 19 more columns)"
    real, made = (axes.images[0].get_array() for axes in figure.subfigs[1].axes[:2])
    assert real.shape == made.shape == (31, 31)
    assert real[0, 2] > 0.9  # radius and perimeter


def test_numbers_are_drawn_in_their_units_and_categories_by_name() -> None:
    number = Column("n", "number", decimals=0, center=100, spread=10)
    form = TableForm((number, Column("c$", "category", True, ("x", "y"))), ("n", "c$"))
    x = torch.tensor([[-1.0, 1, 0, 0], [0.0, 1, 0, 0], [1.0, 0, 1, 0], [0.0, 0, 0, 1]])
    figure = table_figure(form, x, x, "t")
    numbers, categories, *_ = figure.subfigs[0].axes
    assert numbers.get_xlim() == (89.5, 110.5)
    assert [text.get_text() for text in categories.get_xticklabels()] == ["x", "missing", "y"]
    assert categories.get_title() == r"c\$"
    assert [bar.get_height() for bar in categories.patches[:3]] == [0.5, 0.25, 0.25]


def test_many_categories_are_drawn_together() -> None:
    form = TableForm((Column("c", "category", categories=tuple("abcdefghijk")),), ("c",))
    x = torch.eye(11)[torch.arange(40) % 11]
    axes = table_figure(form, x, x, "t").subfigs[0].axes[0]
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert (len(labels), labels[-1]) == (8, "4 others")


def test_bins_of_whole_numbers_have_equally_many() -> None:
    edges = edges_of(np.arange(100.0), whole=True)
    assert (np.diff(edges) == 4).all()
    assert (edges % 1 == 0.5).all()
    assert edges[0] < 0
    assert edges[-1] > 99


def test_samples_of_a_single_value_are_drawn(data: Dataset) -> None:
    form = data.spec.form
    assert form is not None
    assert table_figure(form, data.train.x, torch.zeros(5, 32), "t") is not None


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["none", "concat"])
def test_pictures_of_a_run_are_drawn_from_the_same_latents(condition: str) -> None:
    run = run_of("data=breast_cancer", f"condition={condition}", "arch.generator.hidden=[8]")
    pictures = Pictures(run)
    assert pictures.possible
    first = pictures.draw("step 0")
    assert first.dtype == np.uint8
    assert first.std() > 10
    assert np.array_equal(first, pictures.draw("step 0"))
    assert (pictures.y is None) == (condition == "none")


def test_table_of_one_number_has_a_table_picture_and_no_frames(tmp_path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "t.csv").write_text("a\n" + "".join(f"{i}\n" for i in range(100)))
    run = run_of("data=table", f"data.file={tmp_path}/t.csv")
    assert run.dataset.spec.shape == (1,)
    assert Pictures(run).tag == "figure/table"
    assert isinstance(run.dataset.spec, DataSpec)
    assert Pictures(run).draw("t").ndim == 3
