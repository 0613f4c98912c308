"""The checks of a data set of one's own, which come before training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import config_of

from ganrun.data.dataset import Dataset, DataSpec, Split, check_finite, check_range
from ganrun.training.build import load_data

SPEC = DataSpec((2,), classes=("a", "b"))
X, Y = torch.zeros(4, 2), torch.tensor([0, 1, 1, 0])
NONE, ONE = Split(X[:0]), Split(X[:1], Y[:1])


def built(x: object = X, y: object = Y, spec: object = SPEC, valid: object = NONE, test: object = ONE) -> Dataset:
    return Dataset(spec, Split(x, y), valid, test)  # type: ignore[arg-type]


def test_labels_of_any_integer_type_are_stored_as_int64() -> None:
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        assert built(y=Y.to(dtype)).train.y.dtype == torch.int64
    assert torch.equal(built(y=Y.to(torch.uint8)).train.y, Y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: built(y=torch.tensor([0, 2, 2, 0])), r"train.y has the label 2 in row 1, but .* names 2 classes"),
        (lambda: built(y=torch.tensor([0, 1, 0, -1])), r"train.y has the label -1 in row 3"),
        (lambda: built(y=Y.float()), r"train.y has dtype torch.float32; labels must be integers"),
        (lambda: built(y=Y[:3]), r"train.y has shape \(3,\); it must be \(4,\)"),
        (lambda: built(y=Y[:, None]), r"train.y has shape \(4, 1\); it must be \(4,\)"),
        (lambda: built(y=[0, 1, 1, 0]), r"train.y is a list; it must be a tensor"),
        (lambda: built(y=None), r"spec.classes names classes, but train has no labels"),
        (lambda: built(x=X.tolist()), r"train.x is a list; it must be a tensor"),
        (lambda: built(x=X.numpy()), r"train.x is a ndarray; it must be a tensor"),
        (lambda: built(x=X.double()), r"train.x has dtype torch.float64; it must be torch.uint8 or torch.float32"),
        (lambda: built(x=X[:, :1]), r"train.x has shape \(4, 1\); it must be \(N, 2\)"),
        (lambda: built(x=torch.tensor(0.0)), r"train.x has shape \(\); it must be \(N, 2\)"),
        (lambda: built(x=X[:0], y=Y[:0]), r"the training split is empty"),
        (lambda: built(valid=Split(X.double())), r"valid.x has dtype"),
        (lambda: built(test=Split(X, Y + 1)), r"test.y has the label 2 in row 1"),
        (lambda: built(test=X), r"test is a Tensor; it must be a Split"),
        (lambda: built(spec=(2,)), r"spec is a tuple; it must be a DataSpec"),
        (lambda: DataSpec(()), r"spec.shape is \(\); it must have sizes of at least 1"),
        (lambda: DataSpec((0,)), r"spec.shape is \(0,\)"),
        (lambda: DataSpec((2,), std=0), r"all values of the training examples are the same"),
    ],
)  # fmt: skip
def test_data_set_that_cannot_work_is_refused_as_it_is_built(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^data: {message}"):
        make()


def float_images(x: torch.Tensor, value_range: tuple[float, float]) -> Dataset:
    return Dataset(DataSpec((1, 2, 2), value_range), Split(x), Split(x[:0]), Split(x[:0]))


def test_first_float_image_outside_of_the_range_is_named() -> None:
    x = torch.rand(5, 1, 2, 2)
    check_range(float_images(x, (0, 1)))
    check_range(float_images(x * 1.04, (0, 1)))
    check_range(built(1e6 * X))
    x[3, 0, 1, 1] = 1.2
    message = r"^data: train.x has the value 1.2 in row 3, outside of data.value_range=\[0,1\]"
    with pytest.raises(ValueError, match=message):
        check_range(float_images(x, (0, 1)))


def test_float_images_with_another_range_are_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for value_range, warned in (((0.0, 1.0), True), ((-1.0, 1.0), False)):
        caplog.clear()
        dataset = float_images(torch.rand(5, 1, 2, 2), value_range)
        monkeypatch.setattr("ganrun.training.build.make", lambda *_, found=dataset, **__: found)
        assert load_data(config_of()).spec.value_range == (-1, 1)
        assert ("data.value_range=[0,1] is their range." in caplog.text) == warned


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_row_that_is_not_finite_is_named(value: float) -> None:
    x = torch.zeros(70_000, 2)
    check_finite(built(x, torch.zeros(70_000).long()))
    x[69_000, 1] = x[69_500, 0] = value
    with pytest.raises(ValueError, match=rf"train.x has the value {value} in row 69000; all values must be finite"):
        check_finite(built(x, torch.zeros(70_000).long()))
    with pytest.raises(ValueError, match=r"valid.x has the value nan in row 2"):
        check_finite(built(valid=Split(torch.tensor([[0.0, 1], [2, 3], [4, float("nan")]]))))


def test_moments_that_are_not_finite_are_refused() -> None:
    spec = DataSpec((2,), classes=("a", "b"), std=float("nan"))
    with pytest.raises(ValueError, match=r"spec.std is nan; it must be finite"):
        check_finite(built(spec=spec))


CODE = """
import torch
from ganrun.data.dataset import Dataset, DataSpec, Split

def points(bad: str) -> Dataset:
    x, y = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 3
    if bad == "hole":
        x[17, 1] = float("nan")
    if bad == "gap":
        y *= 2
    if bad == "absent":
        y[y == 1] = 0
    spec = DataSpec((2,), mean=x.mean().item(), std=x.std().item(), classes=("a", "b", "c"))
    return Dataset(spec, Split(x, y), Split(x[:10], y[:10]), Split(x[:10], y[:10]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("hole", "data: train.x has the value nan in row 17; all values must be finite numbers."),
        ("gap", "data: train.y has the label 4 in row 2, but spec.classes names 3 classes"),
    ],
)
def test_wrong_data_of_a_user_end_in_one_sentence_before_training(here, bad: str, message: str, tmp_path: Path) -> None:
    write_own_data(tmp_path)
    code, out, err = here("data=points", f"data.bad={bad}", "condition=concat", "run_dir=r")
    assert code == 2
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not out
    assert not (tmp_path / "r").exists()


def test_class_without_an_example_is_named(here, tmp_path: Path) -> None:
    write_own_data(tmp_path)
    job = ["data=points", "condition=concat", "train.steps=1", "train.diagnose=false", "metric=none"]
    code, _, err = here(*job, "train.sample_every=0", "data.bad=absent")
    assert code == 0
    assert err.startswith("data: the training examples have none of class b.\n")


def write_own_data(folder: Path) -> None:
    (folder / "conf" / "data").mkdir(parents=True)
    (folder / "conf" / "data" / "points.yaml").write_text("_target_: own_points.points\nbad: none\n")
    (folder / "own_points.py").write_text(CODE)
