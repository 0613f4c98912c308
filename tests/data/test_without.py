"""data.without: classes held out of training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import run_of, write_fer2013

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.digits import digits
from ganrun.data.without import without
from ganrun.training.load import load


def counted(y: torch.Tensor | None) -> list[int]:
    assert y is not None
    return y.bincount().tolist()


def small() -> Dataset:
    """Each example is 10 times its class, plus 1 in the validation split and 2 in the test split."""
    y = torch.tensor([0, 1, 2, 1, 0, 2])
    parts = [Split((10.0 * y + extra)[:, None], y) for extra in (0, 1, 2)]
    return Dataset(DataSpec((1,), mean=10, std=8.2, classes=("a", "b", "c")), *parts)


@pytest.mark.parametrize("names", [["b"], [1], "b", 1, ["b", 1]])
def test_examples_keep_their_class_under_its_new_number(names: list[str | int]) -> None:
    data = without(small(), names)
    assert data.spec.classes == ("a", "c")
    for extra, split in enumerate(data.splits().values()):
        assert split.x.flatten().tolist() == [extra, 20 + extra, extra, 20 + extra]
        assert split.y is not None
        assert split.y.tolist() == [0, 1, 0, 1]


def test_mean_and_std_are_those_of_the_training_examples_left() -> None:
    data = without(small(), ["c"])
    assert (data.spec.mean, data.spec.std) == (5.0, 5.0)
    images = without(digits(), [3])
    x = images.spec.decode(images.train.x).double()
    assert images.spec.mean == pytest.approx(x.mean().item())
    assert images.spec.std == pytest.approx(x.std(correction=0).item())


def test_validation_and_test_examples_are_kept_as_held_out() -> None:
    data = without(small(), ["c"])
    assert data.held_out is not None
    assert data.held_out.classes == ("c",)
    assert data.held_out.valid.x.flatten().tolist() == [21, 21]
    assert data.held_out.test.x.flatten().tolist() == [22, 22]
    assert counted(data.held_out.valid.y) == [2]


def test_no_example_is_lost_or_used_twice() -> None:
    every, data = digits(), without(digits(), [3, 5])
    assert data.held_out is not None
    for name in ("valid", "test"):
        kept, held_out = data.splits()[name], getattr(data.held_out, name)
        assert len(kept) + len(held_out) == len(every.splits()[name])
        assert counted(held_out.y) == [counted(every.splits()[name].y)[k] for k in (3, 5)]
        assert counted(kept.y) == [n for k, n in enumerate(counted(every.splits()[name].y)) if k not in (3, 5)]


def test_an_empty_list_changes_nothing() -> None:
    assert without(digits(), []).held_out is None
    assert len(without(digits(), []).train) == len(digits().train)


BARE = Dataset(DataSpec((1,)), *[Split(torch.zeros(2, 1))] * 3)
HALF = Dataset(
    DataSpec((1,), classes=("a", "b")),
    *[Split(torch.zeros(2, 1), torch.tensor([0, 1])), Split(torch.zeros(2, 1)), Split(torch.zeros(0, 1))],
)


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        (digits, ["ten"], r"data.without=\[ten\]: ten is not one of the classes, which are 0, 1, 2, 3"),
        (digits, [10], r"data.without=\[10\]: 10 is not one of the classes"),
        (digits, [True], r"data.without=\[True\]: True is not one of the classes"),
        (digits, [*range(10)], "leaves nothing to train on"),
        (lambda: BARE, [0], "these data have no labels"),
        (lambda: HALF, ["a"], "the valid examples have no labels"),
    ],
)
def test_wrong_classes(data: Callable[[], Dataset], names: list[str | int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        without(data(), names)


@pytest.mark.slow
@pytest.mark.parametrize("value", ["{a: 1}", "[1.5]", "[[1]]", "1.5", "true"])
def test_a_value_of_another_type(value: str) -> None:
    with pytest.raises(ValueError, match=r"data.without=.*: must be a list of classes, by name or number"):
        run_of("data=digits", f"data.without={value}")


def test_names_with_data_num_and_other_settings(tmp_path: Path) -> None:
    write_fer2013(tmp_path)
    settings = ["data=fer2013", f"data.root={tmp_path}", "data.verify=false", "data.without=[happy,0]", "data.num=6"]
    data = run_of(*settings, "data.value_range=[0,1]", "arch=mlp").dataset
    assert data.spec.classes == ("disgust", "fear", "sad", "surprise", "neutral")
    assert data.spec.value_range == (0, 1)
    assert len(data.train) == 6
    assert data.held_out is not None
    assert data.held_out.classes == ("angry", "happy")


def test_conditional_networks_have_the_classes_that_are_left() -> None:
    run = run_of("data=digits", "data.without=[3,5]", "condition=concat", "arch.generator.width=8")
    assert run.G.label_dim == run.dataset.spec.num_classes == 8


@pytest.mark.slow
def test_a_conditional_run_is_trained_resumed_and_sampled(here: Callable, tmp_path: Path) -> None:
    line = ["data=digits", "data.without=[3]", "condition=projection", "run_dir=r", "train.batch_size=16"]
    nets = ["arch.generator.width=8", "arch.discriminator.width=8", "train.diagnose=false"]
    assert here(*line, *nets, "train.steps=2")[0] == 0
    assert here("resume", "run_dir=r", "train.steps=3")[0] == 0
    run = load(tmp_path / "r", device="cpu")
    assert run.classes(4, ["0", 2, "4", 9]) == pytest.approx(torch.tensor([0, 2, 3, 8]))
    assert here("sample", "run_dir=r", "labels=[3]")[::2] == (
        2,
        "labels: 3 is not one of the classes, which are 0, 1, 2, 4, 5, 6, 7, 8, 9.\n",
    )
