"""What a network, or one of its layers, may define beyond `forward`. None of it has to be inherited."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ganrun.protocols import DOutput


@runtime_checkable
class HasFeatures(Protocol):
    """A D that returns its features."""

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class HasHead(HasFeatures, Protocol):
    """A D whose logits are output(features(x, y)), of shape (B, 1, ...)."""

    output: nn.Module


@runtime_checkable
class HasOutputs(Protocol):
    """A D that computes all of `DOutput` in one forward pass."""

    def outputs(self, x: Tensor, y: Tensor | None = None) -> DOutput: ...


@runtime_checkable
class HasOutputRange(Protocol):
    """A G that declares the range of its samples' values; None if they are unbounded."""

    output_range: tuple[float, float] | None


@runtime_checkable
class TakesLabels(Protocol):
    """A network that takes one-hot labels."""

    label_dim: int


@runtime_checkable
class UsesClasses(Protocol):
    """A network that uses labels in its own way."""

    num_classes: int


@runtime_checkable
class MixesClasses(Protocol):
    """A generator that declares whether y may also be weights of the classes, (B, K) of floats with sum 1.

    It then uses the weighted mean of what it has learned for each class, as `ganrun interpolate` does between classes.
    """

    mixes_classes: bool


@runtime_checkable
class AdaptsWeights(Protocol):
    """A network that can be initialized from the weights of a network with other shapes."""

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The other network's state_dict, converted for this network. Raises ValueError if that is impossible."""
        ...


@runtime_checkable
class MixesSamples(Protocol):
    """A layer of D that declares whether it mixes samples of a batch; if so, real and fake pass D separately."""

    mixes_samples: bool


@runtime_checkable
class StaysUnconditional(Protocol):
    """A batch normalization that declares whether it keeps one gain and bias for all classes in a conditional G."""

    unconditional: bool


@runtime_checkable
class DrawsNoise(Protocol):
    """A layer that draws random numbers in eval mode, too. In an exported network they are an input."""

    def with_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """Its output for x (B, ...), computed with `noise`, which has the shape of x and is uniform in [0, 1)."""
        ...


@runtime_checkable
class HasConstraint(Protocol):
    """A layer with bounds on its weights, which `constrain` restores after each update of its network."""

    def constrain(self) -> None: ...
