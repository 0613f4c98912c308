"""One evaluation of a run: metrics, galleries and the diagnosis use the same samples, which are drawn once."""

from collections.abc import Callable

import pytest
import torch
from helpers import config_of, run_of, same
from torch import Tensor, nn

from ganrun.data.dataset import Dataset, Split
from ganrun.diagnosis.measure import NUM, measure
from ganrun.protocols import DFunction, Gallery, Metric, Networks
from ganrun.training.evaluation import Evaluation
from ganrun.training.run import Run

MLP = ("data=digits", "arch=mlp", "arch.generator.hidden=[16]", "arch.discriminator.hidden=[16]")


class Recorder(Metric):
    """Records its arguments."""

    def __init__(self, num: int, needs_d: bool = False) -> None:
        self.num, self.needs_d = num, needs_d
        self.given: list[Tensor] = []
        self.D: list[DFunction | None] = []

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        self.given.append(samples)
        self.D.append(D)
        return {f"mean_{self.num}": samples[: self.num].mean().item()}

    def gallery(self, samples: Tensor, dataset: Dataset) -> Gallery:
        self.given.append(samples)
        return Gallery(samples[:4], columns=2)


def add_recorders(run: Run, *nums: int) -> list[Recorder]:
    assert isinstance(run.metrics, dict)
    run.metrics.clear()
    recorders = [Recorder(num) for num in nums]
    run.metrics.update({f"recorder_{num}": recorder for num, recorder in zip(nums, recorders, strict=True)})
    return recorders


def record_samples(net: nn.Module) -> list[Tensor]:
    """A list to which each batch of samples of `net` is appended from now on."""
    drawn: list[Tensor] = []
    net.register_forward_hook(lambda module, inputs, samples: drawn.append(samples))
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("condition=concat",), ("train.ema=0.5",)], ids=["G", "classes", "G_ema"])
def test_metrics_galleries_and_diagnosis_use_the_same_samples(settings: tuple[str, ...]) -> None:
    run = run_of(*MLP, *settings)
    recorders, drawn = add_recorders(run, 70, NUM + 100), record_samples(run.sampler)
    evaluation = Evaluation(run)
    evaluation.metrics()
    samples = torch.cat(drawn)
    assert len(samples) == NUM + 100
    num_calls = len(drawn)
    galleries, diagnosis = evaluation.galleries(), evaluation.diagnosis([], config_of(*MLP, *settings), ())
    evaluation.metrics()
    assert len(drawn) == num_calls
    assert galleries.keys() == run.metrics.keys()
    for recorder in recorders:
        assert len(recorder.given) == 3
        assert all(given is evaluation.samples[0] for given in recorder.given)
    assert torch.equal(evaluation.samples[0], samples)
    expected = measure(samples[:NUM], run.dataset, [], run.seed, run.options.batch_size)
    assert expected.items() <= diagnosis.measurements.items()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["metrics", "galleries", "diagnosis"])
def test_samples_do_not_depend_on_the_order_of_use(first: str) -> None:
    run = run_of(*MLP)
    add_recorders(run, NUM)
    drawn, evaluation = record_samples(run.G), Evaluation(run)
    parts: dict[str, Callable[[], object]] = {
        "metrics": evaluation.metrics,
        "galleries": evaluation.galleries,
        "diagnosis": lambda: evaluation.diagnosis([], config_of(*MLP), ()),
    }
    parts[first]()
    samples, num_calls = torch.cat(drawn), len(drawn)
    for part in parts.values():
        part()
    assert len(drawn) == num_calls
    assert torch.equal(samples, Evaluation(run).samples[0])


def test_diagnosis_draws_its_own_samples_once_if_the_metrics_need_fewer() -> None:
    run = run_of(*MLP)
    (recorder,) = add_recorders(run, 70)
    drawn, evaluation = record_samples(run.G), Evaluation(run)
    evaluation.metrics()
    for _ in range(2):
        evaluation.diagnosis([], config_of(*MLP), ())
    assert sum(map(len, drawn)) == 70 + NUM
    assert [len(given) for given in recorder.given] == [70]


def test_no_samples_are_drawn_without_metrics() -> None:
    run = run_of(*MLP)
    add_recorders(run)
    drawn, evaluation = record_samples(run.G), Evaluation(run)
    assert evaluation.metrics() == evaluation.galleries() == {}
    assert not drawn
    evaluation.diagnosis([], config_of(*MLP), ())
    assert sum(map(len, drawn)) == NUM


def test_samples_are_a_function_of_weights_and_seed() -> None:
    run = run_of(*MLP)
    add_recorders(run, 70)
    samples = Evaluation(run).samples[0]
    torch.rand(1)  # the global random state does not matter
    assert torch.equal(Evaluation(run).samples[0], samples)
    assert torch.equal(Evaluation(run, seed=run.seed).samples[0], samples)
    assert not torch.equal(Evaluation(run, seed=run.seed + 1).samples[0], samples)


def test_samples_are_from_g_ema_or_g_as_requested() -> None:
    run = run_of(*MLP, "train.ema=0.5")
    assert run.G_ema is not None
    add_recorders(run, 70)
    of_g, of_g_ema = record_samples(run.G), record_samples(run.G_ema)
    Evaluation(run).metrics()
    assert (len(of_g), len(of_g_ema)) == (0, 1)
    Evaluation(run, ema=False).metrics()
    assert (len(of_g), len(of_g_ema)) == (1, 1)


def test_labels_of_samples_have_the_frequencies_of_the_data() -> None:
    run = run_of(*MLP, "condition=concat")
    add_recorders(run, 2000)
    samples, y = Evaluation(run).samples
    assert y is not None
    assert len(samples) == len(y) == 2000
    train: Split = run.dataset.train
    assert train.y is not None
    shares = y.bincount(minlength=10) / 2000 - train.y.bincount(minlength=10) / len(train)
    assert shares.abs().max() < 4 * (0.1 * 0.9 / 2000) ** 0.5
    run = run_of(*MLP)
    add_recorders(run, 3)
    assert Evaluation(run).samples[1] is None


def test_only_metrics_that_request_it_get_d() -> None:
    run = run_of(*MLP, "loss=wgan")
    without, asking = Recorder(3), Recorder(4, needs_d=True)
    assert isinstance(run.metrics, dict)
    run.metrics.update({"without": without, "asking": asking})
    evaluation = Evaluation(run)
    evaluation.metrics()
    assert without.D == [None]
    (D,) = asking.D
    assert D is not None
    assert not D.logistic
    logits = D.logits(evaluation.samples[0])
    assert logits.shape == (4,)
    run.D.eval()
    with torch.no_grad():
        assert torch.equal(logits, run.D(evaluation.samples[0]))


def test_only_metrics_that_request_them_get_the_networks() -> None:
    class Looking(Recorder):
        needs_networks = True

        def __call__(
            self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, networks: Networks | None = None
        ) -> dict[str, float]:
            assert networks is not None
            assert not networks.D.training
            assert not networks.G.training
            torch.rand(7)
            self.networks = networks
            return {}

    run = run_of(*MLP, "train.ema=0.9", "condition=concat")
    assert isinstance(run.metrics, dict)
    looking = run.metrics["looking"] = Looking(2)
    state = torch.get_rng_state()
    Evaluation(run).metrics()
    networks = looking.networks
    assert torch.equal(torch.get_rng_state(), state)
    assert (networks.D, networks.G, networks.conditional) == (run.D, run.G_ema, True)
    assert run.D.training
    first, again, other = (networks.new_d(seed).state_dict() for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in run.D.state_dict().items()}
    assert torch.equal(torch.get_rng_state(), state)


def test_values_of_metrics_become_floats() -> None:
    class Other(Recorder):
        def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
            return {"a": torch.tensor(2), "b": True}  # type: ignore[dict-item]

    run = run_of(*MLP)
    assert isinstance(run.metrics, dict)
    run.metrics["other"] = Other(3)
    found = Evaluation(run).metrics()
    assert found == {"a": 2.0, "b": 1.0}
    assert {type(value) for value in found.values()} == {float}
