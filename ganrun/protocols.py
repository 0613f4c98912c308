"""The interfaces of ganrun's components, with their defaults.

A class of your own need not derive from these: where a run is built, `complete` adds the defaults that it lacks. The
training code then calls every component through its interface, without a test of what it can do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from ganrun.data.dataset import Dataset, DataSpec

Device = torch.device | str
Schedule = Callable[[int, int], float]  # (step, steps) -> the factor of a learning rate or a momentum
T = TypeVar("T")


class DOutput(NamedTuple):
    """What D gives for a batch, in float32: logits (B,), and where they are needed class logits (B, K) and features.

    features: (B, ...), of the last hidden layer.
    """

    logits: Tensor
    classes: Tensor | None = None
    features: Tensor | None = None

    def halves(self) -> "tuple[DOutput, DOutput]":
        """The outputs on the first half of the batch, and on the second."""
        first, second = zip(*((None, None) if part is None else part.chunk(2) for part in self), strict=True)
        return DOutput(*first), DOutput(*second)


class Loss:
    """What the players minimize: means over a batch, in nats.

    logistic: whether sigmoid(logit) is the probability of being real.
    g_needs_real: whether G's loss reads D's output on real examples; else `g_loss` may get None for it.
    g_needs_features: whether G's loss reads D's features.
    saturates: whether G's gradient vanishes where D rejects its samples.
    needs_lipschitz_d: whether D's loss has no minimum unless D's slope is bounded, as by a penalty.
    """

    logistic: bool = False
    g_needs_real: bool = False
    g_needs_features: bool = False
    saturates: bool = False
    needs_lipschitz_d: bool = False

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """A scalar of logits (B,), for D to minimize."""
        raise NotImplementedError("it has no method d_loss")

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """A scalar of logits (B,), for G to minimize."""
        raise NotImplementedError("it has no method g_loss")

    def g_objective(self, fake: DOutput, real: DOutput | None) -> Tensor:
        """What G minimizes, of all that D gives. Override it where logits are not enough."""
        return self.g_loss(fake.logits, None if real is None else real.logits)


class FeatureLoss(Loss):
    """A loss in which G plays on D's features. They are (B, ...), of fake and of real examples."""

    g_needs_real = True
    g_needs_features = True

    def g_feature_loss(self, fake_features: Tensor, real_features: Tensor) -> Tensor:
        """A scalar for G to minimize."""
        raise NotImplementedError("it has no method g_feature_loss")

    def g_objective(self, fake: DOutput, real: DOutput | None) -> Tensor:
        assert fake.features is not None, "declared by g_needs_features"
        assert real is not None, "declared by g_needs_real"
        assert real.features is not None, "declared by g_needs_features"
        return self.g_feature_loss(fake.features, real.features.detach())


class Penalty:
    """A term of D's loss, a projection of D's weights, or both. These defaults do nothing.

    every: the term is added at every `every`-th update of D, multiplied by `every`.
    has_term: whether there is a term at all; where not, nothing is computed for it.
    bounds_gradient: whether the term bounds the gradient of D with respect to its input.
    needs_independent_samples: whether D must not have layers that look across the batch, beside batch normalization.
    """

    every: int = 1
    has_term: bool = True
    bounds_gradient: bool = False
    needs_independent_samples: bool = False

    def check(self, D: nn.Module) -> None:
        """Raise ValueError for a D that this penalty is not defined for."""

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor | None:
        """The scalar to add to D's loss, or None. real, fake: (B, *shape)."""
        return None

    def logits_term(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor | None:
        """The scalar to add to D's loss, where it depends on D's logits (B,) alone, or None."""
        return None

    def project(self, D: nn.Module) -> None:
        """Change D's weights in place. Called after each update of D."""


class Condition:
    """How a sample's class y (B,) enters the networks and their losses. `Unconditional` is the one that uses none."""

    uses_labels: bool = True

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError for data that this condition cannot use."""

    def label_dims(self, spec: DataSpec) -> tuple[int, int]:
        """The numbers of inputs for labels that G and D are built with: their argument `label_dim`."""
        return 0, 0

    def complete_generator(self, G: nn.Module, spec: DataSpec) -> nn.Module:
        """G, a fresh network, with what it needs for labels: G(z, y)."""
        return G

    def complete_discriminator(self, D: nn.Module, spec: DataSpec) -> nn.Module:
        """D, a fresh network, with what it needs for labels: D(x, y)."""
        return D

    def d_term(self, real: DOutput, fake: DOutput, y: Tensor | None) -> Tensor | None:
        """The scalar to add to D's loss, or None."""
        return None

    def g_term(self, fake: DOutput, y: Tensor | None) -> Tensor | None:
        """The scalar to add to G's loss, or None."""
        return None


class Unconditional(Condition):
    """Labels are not used."""

    uses_labels = False


class Augmentation:
    """What is done to every batch before it enters D, real or fake. These defaults do nothing."""

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> (B, *shape), differentiable."""
        return x

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError for data that it cannot transform."""

    def observe(self, real_logits: Tensor) -> None:
        """D's logits of the augmented real examples, (B,): called after each update of D."""

    def scalars(self) -> Mapping[str, Tensor]:
        """What is logged, by TensorBoard tag."""
        return {}


class Latent:
    """A source of z, drawn from torch's global random state. dim: the length of z."""

    dim: int

    def __call__(self, n: int, device: Device = "cpu") -> Tensor:
        """z (n, dim) on the device."""
        raise NotImplementedError("it has no method __call__")


@dataclass(frozen=True)
class MetricKey:
    """What is known of one key of a metric before it is computed.

    better: which values are better, where they say how good samples are. unit: of the value; "data" is the data's own.
    from_test: whether test data are used. about: the key that this one belongs to, as a standard error belongs to a
    mean; it is printed beside that. true: the key of the same quantity of the data themselves.
    """

    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    from_test: bool = False
    about: str = ""
    true: str = ""


@dataclass(frozen=True)
class DFunction:
    """The D of a run, for metrics. logits: x (n, *shape) -> (n,), in eval mode and on the CPU."""

    logits: Callable[[Tensor], Tensor]
    logistic: bool


class Gallery(NamedTuple):
    """A picture of images (N, C, H, W) in the data's value range, row by row. apart: columns set apart at the right."""

    images: Tensor
    columns: int
    apart: int = 0


class Metric:
    """Numbers that say how good samples are.

    num: how many samples are drawn for it. needs_d: whether it is given the run's D.
    caveat: a sentence that is printed below its numbers.
    """

    num: int
    needs_d: bool = False
    caveat: str = ""

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError for data that it is not defined for."""

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        """The keys that it returns, known before it is computed. logistic: of the run's loss.

        Keys that are not among these are recorded as well, but no checkpoint is chosen by them.
        """
        return {}

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """Of samples (num or more, *shape), on the CPU, in the data's value range."""
        raise NotImplementedError("it has no method __call__")

    def gallery(self, samples: Tensor, dataset: Dataset) -> Gallery | None:
        """A picture of the same samples, or None."""
        return None


@runtime_checkable
class HasFeatures(Protocol):
    """A D that gives its features."""

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class HasHead(HasFeatures, Protocol):
    """A D whose logits are output(features(x, y)), of shape (B, 1, ...)."""

    output: nn.Module


@runtime_checkable
class HasOutputs(Protocol):
    """A D that gives all of `DOutput` from one pass."""

    def outputs(self, x: Tensor, y: Tensor | None = None) -> DOutput: ...


@runtime_checkable
class HasOutputRange(Protocol):
    """A G that declares the bounds of its samples' values; None where they have none."""

    output_range: tuple[float, float] | None


@runtime_checkable
class TakesLabels(Protocol):
    """A network with inputs for one-hot labels."""

    label_dim: int


@runtime_checkable
class AdaptsWeights(Protocol):
    """A network that can start from the weights of a network of another shape."""

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state_dict of this network made from that of the other. Raises ValueError where it cannot be."""
        ...


@runtime_checkable
class MixesSamples(Protocol):
    """A layer of D that declares whether it looks across the batch: real and fake then pass D separately."""

    mixes_samples: bool


@runtime_checkable
class HasConstraint(Protocol):
    """A layer that brings its weights back into bounds. Called after each update of its network."""

    def constrain(self) -> None: ...


@runtime_checkable
class HasFeatureLoss(Protocol):
    """A loss in which G plays on D's features."""

    def g_feature_loss(self, fake_features: Tensor, real_features: Tensor) -> Tensor: ...


def complete(component: Any, interface: type[T]) -> T:
    """The same object, as an instance of `interface`: what its own class does not define has the interface's default.

    Raises TypeError for an object that cannot be completed, as one without attributes of its own.

    >>> class Bare:
    ...     def d_loss(self, real_logits, fake_logits):
    ...         return fake_logits.mean() - real_logits.mean()
    >>> loss = complete(Bare(), Loss)
    >>> loss.logistic, loss.d_loss(torch.ones(1), torch.ones(1)).item()
    (False, 0.0)
    """
    if isinstance(component, interface):
        return component
    own = type(component)
    completed = type(own.__name__, (own, interface), {"__module__": own.__module__})
    object.__setattr__(component, "__class__", completed)  # for a frozen dataclass too, which refuses an assignment
    return component  # type: ignore[no-any-return]
