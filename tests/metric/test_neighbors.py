"""The nearest training examples: against a brute-force search, and in the picture."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PeakBytes, run_of, without_test
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torchvision.utils import make_grid

from ganrun.data.dataset import Dataset, Split, image_spec
from ganrun.data.digits import digits
from ganrun.data.seeds import generator
from ganrun.data.toy import ring
from ganrun.figures.grid import grid
from ganrun.metric import vectors
from ganrun.metric.neighbors import Neighbors
from ganrun.metric.vectors import nearest, unit
from ganrun.records.dashboard import Dashboard, rewind
from ganrun.training.evaluation import Evaluation

IMAGES = digits()
SMALL = {"num": 40, "rows": 4, "columns": 3}


def noise(*shape: int, name: str = "noise") -> Tensor:
    return torch.randn(*shape, generator=generator(0, name))


def brute_force(x: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
    squared = torch.stack([(examples.double() - one.double()).square().sum(1) for one in x])
    return squared.min(1).values.sqrt(), squared.min(1).indices


def decoded(split: Split) -> Tensor:
    return IMAGES.spec.decode(split.x)


# The search


@pytest.mark.parametrize(("dim", "offset"), [(2, 0), (50, 0), (50, 30)])
def test_nearest_equals_a_brute_force_search(dim: int, offset: float) -> None:
    x, examples = noise(60, dim) + offset, noise(500, dim, name="examples") + offset
    distance, index = nearest(x, examples.split(70))
    expected, where = brute_force(x, examples)
    assert torch.equal(index, where)
    torch.testing.assert_close(distance.double(), expected, rtol=1e-4, atol=1e-4)


def test_chunk_sizes_do_not_affect_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x, examples = noise(60, 20), noise(500, 20, name="examples")
    before = nearest(x, [examples])
    monkeypatch.setattr(vectors, "CHUNK", 100)
    for size in (1, 33, 500):
        distance, index = nearest(x, examples.split(size))
        torch.testing.assert_close(distance, before[0])
        assert torch.equal(index, before[1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    """The distances of all pairs would need 400 MB."""
    x, parts = noise(10_000, 10), noise(10_000, 10, name="examples").split(1000)
    with PeakBytes() as memory:
        nearest(x, parts)
    assert memory.peak < 3 * 4 * vectors.CHUNK


def test_first_of_equal_neighbors_is_used_and_own_indices_are_excluded() -> None:
    examples = torch.tensor([[0.0], [3.0], [0.0], [10.0]])
    assert nearest(torch.tensor([[0.0], [8.0]]), examples.split(1))[1].tolist() == [0, 3]
    distance, index = nearest(examples, examples.split(2), own=torch.arange(4))
    assert index.tolist() == [2, 0, 0, 1]
    assert distance.tolist() == [0, 3, 0, 7]


# The numbers


def test_copies_are_found() -> None:
    found = Neighbors(**SMALL)(decoded(IMAGES.train[100:140]), IMAGES)
    assert found["nearest_40"] == pytest.approx(0, abs=1e-2)
    assert found["nearest_40_ratio"] < 0.01
    assert (found["copies_40"], found["copies_40_real"]) == (1, 0)


def test_validation_examples_as_samples_have_ratio_one() -> None:
    found = Neighbors(**SMALL)(decoded(IMAGES.valid[:40]), IMAGES)
    expected = brute_force(IMAGES.valid.x[:40].flatten(1) / 255, IMAGES.train.x.flatten(1) / 255)[0].sort().values[19]
    assert found["nearest_40_ratio"] == 1
    assert found["nearest_40"] == found["nearest_40_real"] == pytest.approx(expected.item(), rel=1e-4)
    assert found["nearest_40_num_real"] == 40
    noisy = Neighbors(**SMALL)(torch.rand(40, 1, 8, 8, generator=generator(0, "u")) * 2 - 1, IMAGES)
    assert noisy["nearest_40_ratio"] > 1.5
    assert noisy["copies_40"] == 0


def test_without_validation_data_training_examples_are_compared_with_the_others() -> None:
    data = replace(IMAGES, valid=IMAGES.valid[:0])
    found = Neighbors(**SMALL)(decoded(IMAGES.train[:40]), data)
    x = IMAGES.train.x.flatten(1) / 255
    others = [brute_force(x[i : i + 1], torch.cat([x[:i], x[i + 1 :]]))[0] for i in range(40)]
    assert found["nearest_40_real"] == pytest.approx(torch.cat(others).sort().values[19].item(), rel=1e-4)
    assert found["copies_40"] == 1


def test_test_data_are_not_used() -> None:
    data = without_test(IMAGES)
    assert Neighbors(**SMALL)(noise(40, 1, 8, 8), data)


# The picture


def test_separate_column_has_the_nearest_examples_of_its_left_neighbors() -> None:
    samples = torch.rand(50, 1, 8, 8, generator=generator(0, "samples")) * 2 - 1
    images, columns, apart = Neighbors(**SMALL).gallery(samples, IMAGES)
    assert (images.shape, columns, apart) == ((16, 1, 8, 8), 4, 1)
    rows = images.view(4, 4, 1, 8, 8)
    assert torch.equal(rows[:, :3].flatten(0, 1), samples[:12])
    _, where = brute_force(unit(rows[:, 2], IMAGES.spec), IMAGES.train.x.flatten(1) / 255)
    assert torch.equal(rows[:, 3], decoded(IMAGES.train[where]))


def test_whole_memory_mapped_training_split_is_searched(tmp_path: Path) -> None:
    """The nearest example is the last of 3,000."""
    x = np.random.default_rng(0).integers(0, 256, (3000, 3, 4, 4), np.uint8)
    x.tofile(tmp_path / "x.bin")
    mapped = torch.from_numpy(np.memmap(tmp_path / "x.bin", np.uint8, "c", shape=x.shape))
    data = Dataset(image_spec(mapped, ()), Split(mapped), Split(mapped[:0]), Split(mapped[:0]))
    sample = data.spec.decode(mapped[-1:]) * 0.99
    images, *_ = Neighbors(num=1, rows=1, columns=1).gallery(sample, data)
    assert torch.equal(images[1], data.spec.decode(mapped[-1]))


@pytest.mark.parametrize(("num", "channels", "columns"), [(6, 1, 3), (5, 3, None), (2, 1, 8), (7, 3, 4)])
def test_grid_equals_that_of_torchvision(num: int, channels: int, columns: int | None) -> None:
    images = torch.randint(0, 255, (num, channels, 5, 4), generator=generator(0, "grid"), dtype=torch.uint8)
    expected = make_grid(images, nrow=columns or 3, padding=2, pad_value=255)
    assert np.array_equal(grid(images, columns), expected.permute(1, 2, 0).numpy())


def test_separate_column_is_after_a_gap() -> None:
    images = torch.randint(0, 255, (6, 1, 5, 5), generator=generator(0, "grid"), dtype=torch.uint8)
    plain, parted = grid(images, 3), grid(images, 3, apart=1, gap=4)
    assert parted.shape == (plain.shape[0], plain.shape[1] + 4, 3)
    assert np.array_equal(np.delete(parted, range(14, 18), axis=1), plain)
    assert (parted[:, 14:18] == 255).all()
    assert np.array_equal(parted[2:7, 20:25, 0], images[2, 0].numpy())


@pytest.mark.slow
def test_run_draws_the_nearest_examples_at_every_evaluation(here: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = here(
        "data=digits", "arch=mlp", "metric=neighbors", "metric.neighbors.num=64", "train.steps=2",
        "train.metric_every=1", "train.diagnose=false", "run_dir=r",
    )  # fmt: skip
    assert code == 0
    assert "nearest_64 " in out + err
    for step in (1, 2):
        with Image.open(f"r/samples/neighbors_step_{step:08d}.png") as image:
            assert image.size == (9 * 10 + 2 + 8, 8 * 10 + 2)
    events = EventAccumulator("r", size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("samples/neighbors")] == [1, 2]


@pytest.mark.slow
def test_evaluate_draws_the_nearest_examples_of_a_finished_run(here: Callable[..., tuple[int, str, str]]) -> None:
    run = ["data=digits", "arch=mlp", "train.steps=2", "train.ema=0.5", "train.diagnose=false", "run_dir=r"]
    assert here(*run)[0] == 0
    picture = Path("r/samples/neighbors_step_00000002.png")
    for _ in range(2):  # the second evaluation replaces the first
        code, out, err = here("evaluate", "run_dir=r", "metric=neighbors", "metric.neighbors.num=64")
        assert (code, f"picture    {picture}" in out + err) == (0, True)
    assert here("evaluate", "run_dir=r", "metric=neighbors", "metric.neighbors.num=64", "ema=false")[0] == 0
    assert picture.read_bytes() != Path("r/samples/neighbors_raw_step_00000002.png").read_bytes()
    events = EventAccumulator("r", size_guidance={"images": 0}).Reload()
    for name in ("neighbors", "neighbors_raw"):
        assert [event.step for event in events.Images(f"samples/{name}")] == [2]


def test_rewind_removes_pictures_of_the_last_step_with_its_metrics(tmp_path: Path) -> None:
    """For example if a run was killed at its end, and computes them again."""
    board = Dashboard(tmp_path)
    for tag in ("samples/fixed_z", "samples/neighbors"):
        board.image(tag, np.zeros((4, 4, 3), np.uint8), 2)
    board.close()
    rewind(tmp_path, 2, "samples/neighbors".__eq__)
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == ["samples/fixed_z"]


def test_pictures_of_classes() -> None:
    run = run_of("data=digits", "condition=concat", "metric=neighbors", "metric.neighbors.num=64")
    assert Evaluation(run).galleries()["neighbors"].shape == (8 * 10 + 2, 9 * 10 + 2 + 8, 3)
    assert Evaluation(run_of("data=digits")).galleries() == {}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("metric.neighbors.rows=0", r"metric\.neighbors\.rows=0: must be at least 1"),
        ("metric.neighbors.columns=0", r"metric\.neighbors\.columns=0: must be at least 1"),
        ("metric.neighbors.num=63", r"metric\.neighbors\.num=63: must be at least rows x columns = 64"),
    ],
)
def test_invalid_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of("data=digits", "metric=neighbors", setting)


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="metric=neighbors: shows images, and these data are vectors"):
        Neighbors().check(ring(8, 2, 0.02, 10))
