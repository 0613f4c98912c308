"""The interfaces of ganrun's components, with their defaults.

Your own classes need not derive from these: when a run is built, `complete` adds the defaults that a class lacks. The
training code then calls every component through its interface, without testing what it can do.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.metric_key import MetricKey as MetricKey

Device = torch.device | str
Schedule = Callable[[int, int], float]  # (step, steps) -> factor of the learning rate or momentum
T = TypeVar("T")


class DOutput(NamedTuple):
    """D's output for a batch, in float32: logits (B,), and if needed class logits (B, K) and features.

    features: (B, ...), of the last hidden layer.
    """

    logits: Tensor
    classes: Tensor | None = None
    features: Tensor | None = None

    def halves(self) -> "tuple[DOutput, DOutput]":
        """The outputs for the first and the second half of the batch."""
        first, second = zip(*((None, None) if part is None else part.chunk(2) for part in self), strict=True)
        return DOutput(*first), DOutput(*second)


class Loss:
    """The losses of both players: means over a batch, in nats.

    logistic: whether sigmoid(logit) is the probability of being real.
    g_needs_real: whether G's loss depends on D's output on real examples; if not, `g_loss` may get None for it.
    g_needs_features: whether G's loss depends on D's features.
    saturates: whether G's gradient vanishes if D rejects its samples.
    needs_lipschitz_d: whether D's loss is unbounded below unless D's slope is bounded, for example by a penalty.
    """

    logistic: bool = False
    g_needs_real: bool = False
    g_needs_features: bool = False
    saturates: bool = False
    needs_lipschitz_d: bool = False

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """D's loss, a scalar. Both logits have shape (B,)."""
        raise NotImplementedError("it has no method d_loss")

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """G's loss, a scalar. Both logits have shape (B,)."""
        raise NotImplementedError("it has no method g_loss")

    def g_objective(self, fake: DOutput, real: DOutput | None) -> Tensor:
        """G's loss, a scalar, from all outputs of D. Override it if logits are not enough."""
        return self.g_loss(fake.logits, None if real is None else real.logits)


class FeatureLoss(Loss):
    """A loss in which G's objective depends on D's features of fake and real examples, both (B, ...)."""

    g_needs_real = True
    g_needs_features = True

    def g_feature_loss(self, fake_features: Tensor, real_features: Tensor) -> Tensor:
        """G's loss, a scalar."""
        raise NotImplementedError("it has no method g_feature_loss")

    def g_objective(self, fake: DOutput, real: DOutput | None) -> Tensor:
        assert fake.features is not None, "declared by g_needs_features"
        assert real is not None, "declared by g_needs_real"
        assert real.features is not None, "declared by g_needs_features"
        return self.g_feature_loss(fake.features, real.features.detach())


@runtime_checkable
class HasFeatureLoss(Protocol):
    """A loss in which G's objective depends on D's features."""

    def g_feature_loss(self, fake_features: Tensor, real_features: Tensor) -> Tensor: ...


class Penalty:
    """A term of D's loss, a projection of D's weights, or both. These defaults do nothing.

    every: the term is added at every `every`-th update of D, multiplied by `every`.
    has_term: whether the penalty has a term; if not, nothing is computed for it.
    bounds_gradient: whether the term bounds the gradient of D with respect to its input.
    needs_independent_samples: whether D must have no layers that mix samples of a batch (batch norm aside).
    """

    every: int = 1
    has_term: bool = True
    bounds_gradient: bool = False
    needs_independent_samples: bool = False

    def check(self, D: nn.Module) -> None:
        """Raise ValueError for a D that this penalty is not defined for."""

    def uses_batch_statistics(self, spec: DataSpec) -> bool:
        """Whether the term of a batch is not the mean of those of its parts, so that train.accumulate is refused."""
        return False

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor | None:
        """The scalar to add to D's loss, or None. real, fake: (B, *shape)."""
        return None

    def logits_term(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor | None:
        """Instead of `term`, if the scalar depends only on D's logits, (B,) in float32; or None."""
        return None

    def project(self, D: nn.Module) -> None:
        """Change D's weights in place. Called after each update of D."""


class Condition:
    """How a sample's class y (B,) enters the networks and their losses. `Unconditional` does not use it."""

    uses_labels: bool = True

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError for data that this condition cannot use."""

    def label_dims(self, spec: DataSpec) -> tuple[int, int]:
        """The number of label inputs of G and of D: their argument `label_dim`, or `num_classes`."""
        return 0, 0

    def complete_generator(self, G: nn.Module, spec: DataSpec) -> nn.Module:
        """Adapt a new network G to labels: G(z, y)."""
        return G

    def complete_discriminator(self, D: nn.Module, spec: DataSpec) -> nn.Module:
        """Adapt a new network D to labels: D(x, y)."""
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
    """A transformation of every input of D, real or fake. These defaults do nothing."""

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> (B, *shape), differentiable."""
        return x

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError for data that it cannot transform."""

    def observe(self, real_logits: Tensor) -> None:
        """Called at each update of D, with D's logits (B,) for the augmented real examples."""

    def scalars(self) -> Mapping[str, Tensor]:
        """The values to log, by TensorBoard tag."""
        return {}

    def scale(self, factor: float) -> None:
        """Set the strength to `factor` times its own value. Called before each step if it has a schedule."""
        raise ValueError("augment_schedule: this augmentation has no strength for a schedule; use augment=ada.")


class Latent:
    """The distribution of the latent z, drawn from torch's global random state. dim: the dimension of z.

    truncates: whether `truncated` is defined. way: how `between` interpolates, for labels.
    """

    dim: int
    truncates: bool = False
    way: str = "linear"

    def __call__(self, n: int, device: Device = "cpu") -> Tensor:
        """n latents (n, dim), on the device."""
        raise NotImplementedError("it has no method __call__")

    def truncated(self, z: Tensor, threshold: float) -> Tensor:
        """Latents z (n, dim) of this distribution as those of the truncated one, with all values within +-threshold."""
        raise ValueError("truncation: is defined for normal latents (latent=normal), which this run does not have.")

    def between(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        """Latents (n, dim) on the ways from `start` to `end` (n, dim), at these shares (n, 1) of them; here straight.

        Straight lines stay inside of a box, such as that of uniform latents.
        """
        return start + share * (end - start)


@dataclass(frozen=True)
class DFunction:
    """The D of a run, for metrics. logits: x (n, *shape) -> (n,), in eval mode, on the CPU.

    mixes_samples: whether the logit of a sample depends on the others in `x`, which D gets in batches as in training.
    """

    logits: Callable[[Tensor], Tensor]
    logistic: bool
    mixes_samples: bool = False


@dataclass(frozen=True)
class Networks:
    """The networks of a run, for metrics. Both are in eval mode, on the same device; a metric must not change them.

    G: the generator that samples are drawn from. conditional: whether they are G(z, y) and D(x, y). new_d: an untrained
    D of the same architecture, in eval mode, as a function of a seed.
    """

    G: nn.Module
    D: nn.Module
    latent: Latent
    conditional: bool
    new_d: Callable[[int], nn.Module]


class Gallery(NamedTuple):
    """Images (N, C, H, W) in the data's value range, for a grid, row by row. apart: separate columns at the right."""

    images: Tensor
    columns: int
    apart: int = 0


class Extracted(NamedTuple):
    """What a feature network computes of images: features (N, dim), and class logits (N, K) if it is a classifier."""

    features: Tensor
    logits: Tensor | None = None


class Features:
    """A network that maps images to feature vectors, for metrics, such as metric=fidelity.

    name: in the keys of metrics, as in fd_mnistcnn_10k. frechet: the name of the Frechet distance of these features.

    dim: the number of features. has_logits: whether it also computes class logits. classifies: whether these are of
    the data's own classes. cache: the folder for results that depend on it; None: the user's cache folder.
    """

    name: str = "own"
    frechet: str = "fd"
    dim: int = 0
    has_logits: bool = False
    classifies: bool = False
    cache: str | None = None

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError for data that it cannot map, or if its weights are missing."""

    def prepare(self, dataset: Dataset) -> None:
        """Load the network, or train it on the data set. Called before the first use; must not change randomness."""

    def __call__(self, images: Tensor) -> Extracted:
        """The features of images (N, C, H, W) uint8, on the CPU, in float32."""
        raise NotImplementedError("it has no method __call__")

    def protocol(self) -> dict[str, Any]:
        """What determines the features, for result.json: the network, the hash of its weights, and the resizer."""
        return {"network": type(self).__name__}


class Metric:
    """A measure of how good samples are.

    num: the number of samples it needs. needs_d: whether it gets the logits of the run's D. needs_networks: whether it
    gets the networks themselves. labels: whether it gets the classes
    y (n,) that were requested of the samples; None in a run without labels, which `required` excludes.
    caveat: a sentence that is printed below its values.
    """

    num: int
    needs_d: bool = False
    needs_networks: bool = False
    labels: Literal["unused", "optional", "required"] = "unused"
    caveat: str = ""

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError for data that it is not defined for."""

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        """The keys that it returns, known before it is computed. logistic: whether the run's loss is logistic.

        Other keys are recorded as well, but cannot choose a checkpoint.
        """
        return {}

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        """Its values for samples (num or more, *shape), on the CPU, in the data's value range.

        It has a parameter D if `needs_d`, a parameter networks (`Networks`) if `needs_networks`, and a parameter y
        unless `labels` is unused.
        """
        raise NotImplementedError("it has no method __call__")

    def gallery(self, samples: Tensor, dataset: Dataset) -> Gallery | None:
        """Images to draw of the same samples, or None."""
        return None

    def protocol(self) -> dict[str, dict[str, Any]]:
        """How the last values were computed, for result.json: plain values, by the end of their keys."""
        return {}


class Observer:
    """Follows a run while it trains, as a search does. It belongs to no config, and cannot change the run's results."""

    def evaluated(self, step: int, metrics: Mapping[str, float], findings: Callable[[], Collection[str]]) -> bool:
        """Called after each evaluation before the last one. Returns whether the run is to stop after this step.

        It then stops as on a signal: its checkpoint is saved, and it can be resumed. findings: computes the names of
        the findings of a diagnosis at this step, such as mode_collapse.
        """
        return False


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker learns of a run when it starts.

    path: the run directory, absolute. id: 16 hexadecimal digits, the same when the run is resumed. config: without
    `tracker`. settings: the same, flat, with dotted keys. typed: the settings that were typed.
    """

    path: Path
    id: str
    config: dict[str, Any]
    settings: dict[str, Any]
    typed: dict[str, bool | int | float | str]

    @property
    def sweep(self) -> str | None:
        """The name of the sweep that the run belongs to."""
        return self.path.parent.name if (self.path.parent / "multirun.yaml").exists() else None


class Tracker:
    """A place where a run's values are logged, beside TensorBoard. These defaults do nothing.

    A resumed run logs again what it logged after its checkpoint, and first all earlier scalars: a tracker skips what it
    has. An error that a method raises ends the tracker with a warning, not the run.
    """

    def start(self, run: TrackedRun) -> None:
        """Called once per process, before all others; the constructor must not open or send anything."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log values by tag. step: negative while D is pre-trained."""

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Log an image, uint8 (H, W, 3)."""

    def text(self, tag: str, text: str, step: int) -> None:
        """Log a text, such as the diagnosis."""

    def finish(self, result: Mapping[str, Any]) -> None:
        """Log the content of result.json, and close. Its status is finished, interrupted, diverged or failed."""


def complete(component: Any, interface: type[T]) -> T:
    """The same object as an instance of `interface`, with the interface's defaults for all that its class lacks.

    Raises TypeError for an object that cannot be completed, such as one without a `__dict__`.

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
    object.__setattr__(component, "__class__", completed)  # a frozen dataclass refuses an assignment
    return component  # type: ignore[no-any-return]
