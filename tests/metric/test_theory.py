"""The metric `theory`: values computed by hand, and its curves over a run."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import run_of
from torch import Tensor

from ganrun.data.toy import gaussian, ring
from ganrun.metric.theory import Theory
from ganrun.protocols import DFunction
from ganrun.records.run_dir import RunDir
from ganrun.training.evaluation import Evaluation

Here = Callable[..., tuple[int, str, str]]

HEIGHTS = gaussian(69, 3, num=100)
TRUE = 69 + 3 * torch.randn(20000, 1, generator=torch.Generator().manual_seed(0))


def chance_level(x: Tensor) -> Tensor:
    return torch.zeros(len(x))


def logistic(logits: Callable[[Tensor], Tensor]) -> DFunction:
    return DFunction(logits, logistic=True)


def test_d_at_chance_level_and_a_perfect_g_are_the_equilibrium() -> None:
    found = Theory()(TRUE, HEIGHTS, logistic(chance_level))
    assert found["value_20k"] == pytest.approx(-math.log(4), abs=1e-5)
    assert found["value_true"] == found["value_of_optimal_d_true"] == -math.log(4)
    assert found["value_of_optimal_d_20k"] == pytest.approx(-math.log(4), abs=0.01)
    assert 0 < found["js_distance_20k"] < 0.06


def test_optimal_d_reaches_the_optimal_value() -> None:
    """G is N(72, 3): the logit of D* is log p - log q, linear in x. Its value is optimal, and other Ds have less."""
    samples = TRUE + 3

    def best(x: Tensor) -> Tensor:
        return ((x - 72) ** 2 - (x - 69) ** 2).flatten() / 18

    at_best = Theory()(samples, HEIGHTS, logistic(best))
    assert at_best["value_20k"] == pytest.approx(at_best["value_of_optimal_d_20k"], abs=0.01)
    for other in (chance_level, lambda x: best(x) + 0.5, lambda x: 2 * best(x), lambda x: -best(x)):
        assert Theory()(samples, HEIGHTS, logistic(other))["value_20k"] < at_best["value_20k"] - 0.01


def test_estimate_of_a_critic_and_true_distance() -> None:
    """f(x) = -2 x, and G is N(72, 3): W1 is 3, and the estimate of the critic, with Lipschitz constant 2, is 6."""
    found = Theory()(TRUE + 3, HEIGHTS, DFunction(lambda x: -2 * x.flatten(), logistic=False))
    assert found["w1_20k"] == pytest.approx(3, abs=0.05)
    assert found["critic_w1_20k"] == pytest.approx(6, abs=0.1)


def test_values_in_two_dimensions() -> None:
    """G is at the center of the ring, where there are no data: the distance has its largest possible value."""
    data = ring(8, 2.0, 0.02, num=100)
    found = Theory()(
        0.02 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)), data, logistic(chance_level)
    )
    assert found["js_distance_2k"] == pytest.approx(math.sqrt(math.log(2)), abs=1e-3)
    assert Theory()(torch.zeros(10, 2), data, DFunction(chance_level, logistic=False)) == {}


def test_data_without_a_known_density_are_refused() -> None:
    with pytest.raises(ValueError, match="metric=theory: needs one- or two-dimensional data of known density"):
        run_of("data=digits", "metric=theory")


def test_evaluation_passes_the_d_of_the_run() -> None:
    run = run_of("metric=theory", "metric.theory.num=1000")
    with torch.no_grad():
        for p in run.D.parameters():
            p.zero_()
    assert Evaluation(run).metrics()["value_1k"] == pytest.approx(-math.log(4), abs=1e-5)


@pytest.mark.slow
def test_metrics_during_training_do_not_change_weights_and_are_recorded_once(here: Here) -> None:
    line = ["train.steps=6", "train.batch_size=16", "train.sample_every=0", "metric=[distribution,theory]",
            "metric.distribution.num=1000", "metric.theory.num=1000"]  # fmt: skip
    every = ["train.metric_every=2", "train.checkpoint_every=4", "train.keep_checkpoints=9"]
    assert here(*line, *every, "run_dir=r")[0] == 0
    assert here(*line, "run_dir=s")[0] == 0
    checkpoints = [torch.load(f"{r}/checkpoints/step_00000006.pt", weights_only=True) for r in "rs"]
    assert all(torch.equal(a, b) for a, b in zip(*[c["G"].values() for c in checkpoints], strict=True))
    Path("r/checkpoints/step_00000006.pt").unlink()
    Path("r/result.json").unlink()
    assert here("resume", "run_dir=r")[0] == 0
    for folder, steps in (("r", [2, 4, 6]), ("s", [6])):
        rows = [row for row in RunDir(Path(folder)).rows() if any(key.startswith("metric/") for key in row)]
        assert [row["step"] for row in rows] == steps
        assert {"metric/ks_1k", "metric/value_1k"} <= rows[0].keys()
