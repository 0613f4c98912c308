"""Penalties on the gradient of D with respect to its input."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganrun.data.dataset import DataSpec
from ganrun.network_protocols import MixesSamples
from ganrun.penalty.base import WeightedPenalty, not_negative

TINY = 1e-12  # added under the square root of a norm, which has an infinite derivative at 0


def input_gradients(D: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """The gradient of each sample's logit with respect to the sample, (B, numel), differentiable again.

    One backward pass is enough, because a logit does not depend on other samples (`InputGradientPenalty.check`).
    """
    x = x.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(
        D(x, y).sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )  # (B, *shape)
    return gradients.flatten(1)


def interpolates(real: Tensor, fake: Tensor) -> Tensor:
    """eps * real + (1 - eps) * fake, with eps ~ U[0, 1) for each sample."""
    return torch.lerp(fake, real, per_sample_uniform(real))


def per_sample_uniform(x: Tensor) -> Tensor:
    """U[0, 1) of shape (B, 1, ..., 1)."""
    return torch.rand(len(x), *(1 for _ in x.shape[1:]), dtype=x.dtype, device=x.device)


class InputGradientPenalty(WeightedPenalty):
    """A penalty on the gradient of D with respect to its input.

    `check` raises ValueError for a D with batch normalization and, if `needs_independent_samples` is set, with a layer
    that declares `mixes_samples = True`: the gradient of a single sample's logit is then not defined.
    """

    name: ClassVar[str]
    bounds_gradient = True

    def check(self, D: nn.Module) -> None:
        undefined = "which mixes the samples of a batch, so a per-sample gradient norm is not defined"
        for layer in D.modules():
            if isinstance(layer, _BatchNorm):
                raise ValueError(
                    f"penalty={self.name}: D has batch normalization, {undefined}; "
                    "use arch.discriminator.norm=none (or layer), or penalty=none."
                )
            if self.needs_independent_samples and isinstance(layer, MixesSamples) and layer.mixes_samples:
                raise ValueError(
                    f"penalty={self.name}: D has a layer {type(layer).__name__}, {undefined}; "
                    "use a discriminator without it, or penalty=none."
                )


class GradientPenalty(InputGradientPenalty):
    """WGAN-GP: weight * E[(||grad D(x)||_2 - target)^2]. Gulrajani et al. 2017, arXiv:1704.00028, Eq. 3, Algorithm 1.

    x = eps * real + (1 - eps) * fake, eps ~ U[0, 1) for each sample. The norm is over all dimensions but the batch.
    one_sided: max(0, ||grad|| - target)^2, without a penalty on small gradients (Section 4 of the paper).
    Differs in 1e-12 under the square root, so that a zero gradient has finite derivatives.
    real and fake have the same labels y. Raises ValueError in `check` if D mixes samples.

    >>> D = lambda x, y: x @ torch.tensor([3.0, 4.0])  # a gradient of norm 5 everywhere
    >>> GradientPenalty(weight=10).term(D, torch.zeros(2, 2), torch.ones(2, 2), None).item()
    160.0
    """

    name: ClassVar[str] = "gradient_penalty"
    needs_independent_samples = True

    def __init__(self, weight: float = 10.0, target: float = 1.0, one_sided: bool = False, every: int = 1) -> None:
        super().__init__(weight, every)
        self.target, self.one_sided = not_negative("target", target), one_sided

    def points(self, real: Tensor, fake: Tensor) -> Tensor:
        """Where the gradient is taken, (B, *shape)."""
        return interpolates(real, fake)

    def value(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        gradients = input_gradients(D, self.points(real, fake), y)  # (B, numel)
        excess = (gradients.square().sum(1) + TINY).sqrt() - self.target  # (B,)
        if self.one_sided:
            excess = excess.relu()
        return self.weight * excess.square().mean()


class Dragan(GradientPenalty):
    """DRAGAN: weight * E[(||grad D(x)||_2 - target)^2] around the data. Kodali et al. 2017, arXiv:1705.07215.

    x = real + alpha * spread * std(real) * U, with U ~ U[0, 1) for each element, alpha ~ U[0, 1) for each sample, and
    std over the whole batch. This is the authors' released code (spread .5); the paper's text has N(0, c I) for the
    noise, and others center it (compare_gan: U - .5). The fake samples are not used.
    Raises ValueError in `check` if D mixes samples.

    >>> D = lambda x, y: x @ torch.tensor([3.0, 4.0])
    >>> Dragan(weight=1).term(D, torch.eye(2), torch.zeros(2, 2), None).item()
    16.0
    """

    name: ClassVar[str] = "dragan"

    def __init__(
        self,
        weight: float = 10.0,
        target: float = 1.0,
        spread: float = 0.5,
        one_sided: bool = False,
        every: int = 1,
    ) -> None:
        super().__init__(weight, target, one_sided, every)
        self.spread = not_negative("spread", spread)

    def uses_batch_statistics(self, spec: DataSpec) -> bool:
        return True

    def points(self, real: Tensor, fake: Tensor) -> Tensor:
        noise = self.spread * real.std(correction=0) * torch.rand_like(real)
        return real + per_sample_uniform(real) * noise


class ZeroCentered(InputGradientPenalty):
    """0-GP: weight * E[||grad D(x)||^2] on interpolates. Thanh-Tung, Tran and Venkatesh 2019, arXiv:1902.03984.

    x = eps * real + (1 - eps) * fake, eps ~ U[0, 1) for each sample. The norm is squared, so there is no square root.
    Differs from the paper, whose D ends in a sigmoid, in taking the gradient of the logit, as R1 does.
    Raises ValueError in `check` if D mixes samples.

    >>> D = lambda x, y: x @ torch.tensor([3.0, 4.0])
    >>> ZeroCentered(weight=10).term(D, torch.zeros(2, 2), torch.ones(2, 2), None).item()
    250.0
    """

    name: ClassVar[str] = "zero_centered"
    needs_independent_samples = True

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def value(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        return self.weight * mean_square(D, interpolates(real, fake), y)


class R1(InputGradientPenalty):
    """R1: gamma / 2 * E_real[||grad D(x)||^2]. Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406, Eq. 9.

    `weight` is gamma / 2. The gradient is that of the sum of a batch's logits. Raises ValueError in `check` for batch
    norm in D, with which this sum hardly depends on x, so that the penalty vanishes. Other layers that mix samples are
    allowed: StyleGAN2 uses R1 with minibatch standard deviation, and the gradient of the same sum.

    >>> D = lambda x, y: x @ torch.tensor([3.0, 4.0])
    >>> R1(gamma=10).term(D, torch.zeros(2, 2), torch.ones(2, 2), None).item()
    125.0
    """

    name: ClassVar[str] = "r1"

    def __init__(self, gamma: float = 10.0, every: int = 1) -> None:
        super().__init__(not_negative("gamma", gamma) / 2, every)
        self.gamma = gamma

    def value(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        return self.weight * mean_square(D, real, y)


class R2(R1):
    """R2: gamma / 2 * E_fake[||grad D(x)||^2]. Mescheder et al. 2018, arXiv:1801.04406. Otherwise as `R1`."""

    name: ClassVar[str] = "r2"

    def value(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        return self.weight * mean_square(D, fake, y)


def mean_square(D: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """E[||grad D(x)||^2]."""
    return input_gradients(D, x, y).square().sum(1).mean()
