"""A user-defined class without a base class of ganrun gets the defaults of its interface when a run is built."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Here
from helpers import logged, result_of, same
from torch import Tensor, nn

from ganrun.protocols import Augmentation, DOutput, FeatureLoss, Loss, Metric, Penalty, complete
from ganrun.records.checkpoint import load_newest
from ganrun.training.load import load

MODULE = """
import torch
from torch import nn

class Loss:
    def d_loss(self, real_logits, fake_logits):
        return 1000 + real_logits.square().mean() + (fake_logits - 1).square().mean()
    def g_loss(self, fake_logits, real_logits=None):
        return 2000 + fake_logits.square().mean()

class FeatureLoss:
    def d_loss(self, real_logits, fake_logits):
        return 1000 + real_logits.square().mean() + (fake_logits - 1).square().mean()
    def g_feature_loss(self, fake_features, real_features):
        return 3000 + (fake_features.mean(0) - real_features.mean(0)).square().sum()

class Term:
    def term(self, D, real, fake, y):
        return 4000 + D(real, y).square().mean()

class Projection:
    def __init__(self, bound):
        self.bound = bound
    @torch.no_grad()
    def project(self, D):
        for weight in D.parameters():
            weight.clamp_(-self.bound, self.bound)

class Condition:
    def label_dims(self, spec):
        return spec.num_classes, 0

class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("num_calls", torch.zeros(()))
    def forward(self, x):
        self.num_calls += 1
        return x + 0.1 * torch.randn_like(x)

class Constant:
    def __call__(self, x):
        return 0 * x + 5

class Latent:
    def __init__(self, dim):
        self.dim = dim
    def __call__(self, n, device="cpu"):
        return torch.ones(n, self.dim, device=device)

class Metric:
    num = 70
    def check(self, dataset):
        if dataset.spec.is_image:
            raise ValueError("metric=bare: is for vectors; use metric=none.")
    def __call__(self, samples, dataset):
        return {"num_samples": len(samples)}

class BadKeys(Metric):
    def keys(self, spec, logistic):
        return {"num_samples": "higher"}

class WithSlots:
    __slots__ = ("num",)
    def d_loss(self, real_logits, fake_logits):
        return (fake_logits - real_logits).mean()
    def g_loss(self, fake_logits, real_logits=None):
        return -fake_logits.mean()

def function():
    return lambda x: 2 * x
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path) -> Iterator[None]:
    """Write the module to the working directory, as a user would."""
    (tmp_path / "bare.py").write_text(MODULE)
    yield
    sys.modules.pop("bare", None)


def add_option(group: str, name: str, settings: str = "") -> None:
    """Write conf/GROUP/bare.yaml, whose target is the class of that name."""
    text = f"_target_: bare.{name}\n{settings}"
    if group in ("penalty", "metric"):  # groups of several options, by name
        text = "bare:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    path = Path("conf") / group / "bare.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def train_with(here: Here, group: str, *overrides: str) -> list[dict[str, Any]]:
    """Train with the option `bare` of that group, load and build the run again, and return the logged rows."""
    line = ["metric=none", f"{group}=bare", *overrides, "train.steps=2", "train.log_every=1"]
    code, _, err = here(*line, "train.sample_every=0", "train.threads=1", "run_dir=r")
    assert (code, err) == (0, "")
    assert result_of(Path("r"))["diagnosis"] is not None
    run = load("r", device="cpu").build()
    assert same(run.state_dict()["G"], load_newest(Path("r/checkpoints"))["G"])
    return [row for row in logged(Path("r")) if "loss/d" in row]


@pytest.mark.slow
def test_bare_loss_trains(here: Here) -> None:
    add_option("loss", "Loss")
    rows = train_with(here, "loss")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert 1000 < row["loss/d"] < 1010
        assert 2000 < row["loss/g"] < 2010
        assert "accuracy/real" not in row  # only for logistic losses


def test_bare_feature_loss_trains(here: Here) -> None:
    add_option("loss", "FeatureLoss")
    for row in train_with(here, "loss"):
        assert 1000 < row["loss/d"] < 1010
        assert 3000 <= row["loss/g"] < 3100


@pytest.mark.slow
def test_bare_penalty_with_a_term_trains(here: Here) -> None:
    add_option("penalty", "Term")
    assert all(4000 < row["penalty/bare"] < 4010 for row in train_with(here, "penalty"))


@pytest.mark.slow
def test_bare_penalty_with_a_projection_trains(here: Here) -> None:
    add_option("penalty", "Projection", "bound: 0.02\n")
    assert all("penalty/bare" not in row for row in train_with(here, "penalty"))
    weights = load_newest(Path("r/checkpoints"))["D"]
    assert max(weight.abs().max() for name, weight in weights.items() if "layers" in name) == pytest.approx(0.02)


def test_bare_condition_trains(here: Here) -> None:
    add_option("condition", "Condition")
    train_with(here, "condition", "data=digits", "arch=mlp")
    loaded = load("r", device="cpu")
    assert loaded.classes(5).tolist() == [0, 1, 2, 3, 4]
    assert loaded.sample(5).shape == (5, 1, 8, 8)
    G = load_newest(Path("r/checkpoints"))["G"]
    assert G["layers.0.weight"].shape[1] == 100 + 10  # latents, and ten classes


@pytest.mark.slow
def test_bare_augmentation_trains(here: Here) -> None:
    add_option("augment", "Constant")
    for row in train_with(here, "augment"):  # D cannot tell real from fake behind it
        assert row["logits/real"] == row["logits/fake"]


@pytest.mark.slow
def test_bare_augmentation_module_trains_and_is_saved(here: Here) -> None:
    add_option("augment", "Counter")
    train_with(here, "augment")
    state = load_newest(Path("r/checkpoints"))["augment"]
    assert state["num_calls"] == 2 * 3  # two steps: real and fake of D's update, fake of G's


@pytest.mark.slow
def test_bare_latent_trains(here: Here) -> None:
    add_option("latent", "Latent")
    train_with(here, "latent", "arch.z_dim=3")
    assert load_newest(Path("r/checkpoints"))["G"]["layers.0.weight"].shape[1] == 3
    x = load("r", device="cpu").sample(5)
    assert (x == x[0]).all()


@pytest.mark.slow
def test_bare_metric_is_computed(here: Here) -> None:
    add_option("metric", "Metric")
    train_with(here, "metric")
    assert result_of(Path("r"))["metrics"] == {"num_samples": 70}
    code, out, _ = here("evaluate", "run_dir=r")
    assert code == 0
    assert "num_samples" in out
    code, _, err = here("data=digits", "metric=bare")
    assert (code, err) == (2, "metric=bare: is for vectors; use metric=none.\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("augment", "function", "augment: the defaults of its interface cannot be added to a function; "
         "use a plain class, or derive from ganrun.protocols.Augmentation."),
        ("loss", "WithSlots", "loss: the defaults of its interface cannot be added to a WithSlots; "
         "use a plain class, or derive from ganrun.protocols.Loss."),
        ("metric", "BadKeys", "metric.bare: its method keys must return a ganrun.protocols.MetricKey for each key."),
        ("loss", "Term", "loss: its d_loss(real_logits, fake_logits) does not work (it has no method d_loss)."),
    ],
)  # fmt: skip
def test_invalid_components_are_refused_with_one_sentence(group: str, name: str, message: str, here: Here) -> None:
    add_option(group, name)
    code, out, err = here(f"{group}=bare", "run_dir=r")
    assert (code, out, err) == (2, "", f"{message}\n")
    assert not Path("r").exists()


# ---- complete


class Bare:
    """A loss of pairs, which declares `g_needs_real`."""

    g_needs_real = True

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (fake_logits - real_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        return (real_logits - fake_logits).mean()


@dataclass(frozen=True)
class ImmutableMetric:
    num: int = 3

    def __call__(self, samples: Tensor, dataset: object) -> dict[str, float]:
        return {"num": len(samples)}


def test_own_attributes_of_a_class_are_kept() -> None:
    bare = Bare()
    loss = complete(bare, Loss)
    assert loss is bare
    assert isinstance(loss, Bare)
    assert isinstance(loss, Loss)
    assert (loss.g_needs_real, loss.logistic, type(loss).__name__) == (True, False, "Bare")
    assert loss.g_objective(DOutput(torch.zeros(2)), DOutput(torch.ones(2))).item() == 1
    assert not isinstance(Bare(), Loss)  # other instances of the class are unchanged


@pytest.mark.parametrize("make", [Loss, FeatureLoss, Penalty, Augmentation])
def test_instance_of_the_interface_is_unchanged(make: Callable[[], Any]) -> None:
    component = make()
    assert complete(component, make) is component
    assert type(component) is make


def test_immutable_object_is_completed() -> None:
    metric = complete(ImmutableMetric(), Metric)
    assert (metric.num, metric.needs_d, metric.gallery(torch.zeros(2, 1), None)) == (3, False, None)
    assert metric(torch.zeros(2, 1), None) == {"num": 2}


def test_module_keeps_its_parameters() -> None:
    net = nn.Linear(2, 2)
    before = net.state_dict()
    augment = complete(net, Augmentation)
    x = torch.ones(3, 2)
    assert augment.state_dict().keys() == before.keys()
    assert torch.equal(augment(x), nn.functional.linear(x, net.weight, net.bias))
    assert augment.scalars() == {}


def test_real_features_are_detached_in_every_feature_loss() -> None:
    class Gap:
        def g_feature_loss(self, fake_features: Tensor, real_features: Tensor) -> Tensor:
            return (fake_features - real_features).square().sum()

    fake, real = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    logits = torch.zeros(4)
    complete(Gap(), FeatureLoss).g_objective(DOutput(logits, features=fake), DOutput(logits, features=real)).backward()
    assert fake.grad is not None
    assert real.grad is None
