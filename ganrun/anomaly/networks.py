"""What D computes of an example: its logit and features, in eval mode, without changes to D."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from ganrun.network_protocols import HasFeatures, HasOutputs

Layers = Literal["last", "all"]

BATCH = 250  # examples in a forward pass, which bounds the memory
SAME = 1e-4  # relative difference of outputs up to which they are equal
SIDE = 4  # sides of pooled feature maps, at most
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class DView:
    """D's logits and features of examples x (n, *shape) in the data's value range, on the CPU.

    num_classes: of a conditional D(x, y), whose label is not known here; 0: of an unconditional one. The logit is then
    the largest one over the classes, and features are means over the classes.
    layers: `last`: D's own features, of its last hidden layer. `all`: the inputs of all convolutions and linear layers
    but the first, each max-pooled to at most 4x4, and concatenated, as in Radford et al. 2016, section 5.1.
    """

    def __init__(self, D: nn.Module, num_classes: int = 0, layers: Layers = "last") -> None:
        self.D, self.num_classes, self.layers = D, num_classes, layers

    def check(self, x: Tensor, features: bool) -> None:
        """Raise ValueError for a D without features, if they are needed, and for a D that compares the examples x."""
        device = device_of(self.D)
        if features and self.layers == "last" and not isinstance(self.D, HasFeatures):
            raise ValueError("this D has no method `features`; use layers=all, or methods=[logit,reconstruction].")
        with frozen(self.D), torch.no_grad():
            found = [self._logits] if not features else [self._logits, self._features]
            for compute in found:
                alone, together = compute(x[:1].to(device)), compute(x[:8].to(device))
                if (alone - together[:1]).abs().max() > SAME * (together.abs().mean() + together.std(0).mean()):
                    raise ValueError(
                        "D compares the examples of a batch, so one of them alone has no score; "
                        "use a run with arch.discriminator.minibatch=none."
                    )

    def logits(self, x: Tensor) -> Tensor:
        """(n,), in float32."""
        return self._in_batches(self._logits, x)

    def class_logits(self, x: Tensor) -> Tensor:
        """(n, K), in float32, of a D that classifies."""
        return self._in_batches(self._classes, x)

    def features(self, x: Tensor) -> Tensor:
        """(n, F), in float32."""
        return self._in_batches(self._features, x)

    def features_of(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(n, F), differentiable, of one batch of known classes y (n,). x is on the device of D, which is `frozen`."""
        return self._last(x, y) if self.layers == "last" else self._all(x, y)

    def _in_batches(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        device = device_of(self.D)
        with frozen(self.D), torch.no_grad():
            return torch.cat([compute(part.to(device)).float().cpu() for part in x.split(BATCH)])

    def _logits(self, x: Tensor) -> Tensor:
        return torch.stack([self.D(x, y) for y in self._labels(x)]).amax(0)

    def _classes(self, x: Tensor) -> Tensor:
        found = self.D.outputs(x, self._labels(x)[0]).classes if isinstance(self.D, HasOutputs) else None
        if found is None:
            raise ValueError("methods=[classes]: this D does not classify; use a run with condition=acgan.")
        return found

    def _features(self, x: Tensor) -> Tensor:
        return torch.stack([self.features_of(x, y) for y in self._labels(x)]).mean(0)

    def _labels(self, x: Tensor) -> list[Tensor | None]:
        """Every class in turn, as labels (n,) of a batch."""
        if not self.num_classes:
            return [None]
        return [torch.full((len(x),), k, device=x.device) for k in range(self.num_classes)]

    def _last(self, x: Tensor, y: Tensor | None) -> Tensor:
        assert isinstance(self.D, HasFeatures), "check() comes first"
        return self.D.features(x, y).flatten(1)

    def _all(self, x: Tensor, y: Tensor | None) -> Tensor:
        with entering(self.D) as found:
            self.D(x, y)
        return torch.cat([pooled(h) for h in found[1:]], 1)


@contextmanager
def entering(net: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the inputs of the convolutions and linear layers of `net` during the body; each tensor once."""
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not any(inputs[0] is h for h in found):
            found.append(inputs[0])

    with ExitStack() as stack:
        for layer in net.modules():
            if isinstance(layer, LAYERS):
                stack.callback(layer.register_forward_pre_hook(keep).remove)
        yield found


def pooled(h: Tensor) -> Tensor:
    """Features (n, F), or maps (n, C, H, W) that are max-pooled to at most 4x4, as (n, F)."""
    if h.dim() == 4 and max(h.shape[2:]) > SIDE:
        h = nn.functional.adaptive_max_pool2d(h, (min(SIDE, h.shape[2]), min(SIDE, h.shape[3])))
    return h.flatten(1)


@contextmanager
def frozen(*nets: nn.Module) -> Iterator[None]:
    """Eval mode for the body; the mode of every layer is restored afterwards."""
    modes = [(layer, layer.training) for net in nets for layer in net.modules()]
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def device_of(net: nn.Module) -> torch.device:
    return next(net.parameters()).device
