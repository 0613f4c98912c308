"""What keeps D in bounds.

A penalty has `term(D, real, fake, y)` and `logits_term(real_logits, fake_logits)`, scalars to add to D's loss or None;
`project(D)`, called after each update of D; `check(D)`, which raises ValueError where it is not defined; and `every`:
the game asks for the terms at every `every`-th update of D only, and multiplies them by `every`.

real, fake: (B, *shape), vectors or images, without gradients. Terms are computed in float32, outside autocast.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

TINY = 1e-12  # under a square root: its gradient at 0 is then 0 and not NaN
NORM_LAYERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Penalty:
    """What all have in common: a penalty that asks for nothing."""

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every={every}: must be at least 1.")
        self.every = every

    def check(self, D: nn.Module) -> None:
        """Raise ValueError where this penalty is not defined for D."""

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor | None:
        return None

    def logits_term(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor | None:
        return None

    def project(self, D: nn.Module) -> None:
        pass


class WeightClip(Penalty):
    """Weight clipping: w <- clip(w, -bound, bound) after every critic update. Arjovsky et al. 2017, Algorithm 1.

    The scales and shifts of norm layers are left alone: clipped to 0.01 they would switch their layers off.

    >>> D = nn.Linear(1, 1)
    >>> _ = nn.init.constant_(D.weight, 3.0)
    >>> WeightClip(bound=0.25).project(D)
    >>> D.weight.item()
    0.25
    """

    def __init__(self, bound: float = 0.01) -> None:
        super().__init__()
        if bound <= 0:
            raise ValueError(f"bound={bound}: must be greater than 0, as in 0.01.")
        self.bound = bound

    @torch.no_grad()
    def project(self, D: nn.Module) -> None:
        for layer in D.modules():
            if not isinstance(layer, NORM_LAYERS):
                for weight in layer.parameters(recurse=False):
                    weight.clamp_(-self.bound, self.bound)


class InputGradient(Penalty):
    """A penalty on the gradient of D in its input, sample by sample."""

    def __init__(self, weight: float, every: int = 1) -> None:
        super().__init__(every)
        if weight < 0:
            raise ValueError(f"weight={weight}: must be at least 0.")
        self.weight = weight

    def check(self, D: nn.Module) -> None:
        """A layer that looks across the batch makes D(x_i) depend on x_j: a gradient per sample is not defined."""
        for layer in D.modules():
            if isinstance(layer, _BatchNorm) or getattr(layer, "mixes_samples", False):
                raise ValueError(
                    f"D holds {type(layer).__name__}, which ties the samples of a batch together, so that the gradient "
                    "at one sample is not defined; use arch.discriminator.norm=none, or another penalty."
                )

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        with torch.autocast(real.device.type, enabled=False):
            x = self.where(real.float(), fake.float()).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(D(x, y).sum(), x, create_graph=True)
            return self.weight * self.measure(gradient.flatten(1).square().sum(1)).mean()  # (B,) -> scalar

    def where(self, real: Tensor, fake: Tensor) -> Tensor:
        """The points at which the gradient is taken."""
        raise NotImplementedError

    def measure(self, squared_norm: Tensor) -> Tensor:
        """What is to be small, of squared gradient norms (B,)."""
        return squared_norm


class GradientPenalty(InputGradient):
    """weight * E (||grad D(x^)|| - target)^2 at x^ = real + eps (fake - real), eps ~ U(0, 1) for each sample.

    WGAN-GP. Gulrajani et al. 2017, arXiv:1704.00028, equation 3. With `one_sided` only norms above the target cost.

    >>> GradientPenalty(weight=10).term(lambda x, y: 3 * x[:, 0], torch.zeros(2, 1), torch.ones(2, 1), None).item()
    40.0
    """

    def __init__(self, weight: float = 10.0, target: float = 1.0, one_sided: bool = False, every: int = 1) -> None:
        super().__init__(weight, every)
        self.target, self.one_sided = target, one_sided

    def where(self, real: Tensor, fake: Tensor) -> Tensor:
        return interpolate(real, fake)

    def measure(self, squared_norm: Tensor) -> Tensor:
        excess = (squared_norm + TINY).sqrt() - self.target
        return (excess.relu() if self.one_sided else excess).square()


class ZeroCentered(InputGradient):
    """weight * E ||grad D(x^)||^2 at the interpolates of WGAN-GP. Thanh-Tung et al. 2019, arXiv:1902.03984."""

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def where(self, real: Tensor, fake: Tensor) -> Tensor:
        return interpolate(real, fake)


class R1(InputGradient):
    """gamma / 2 * E ||grad D(x)||^2 at real samples. Mescheder et al. 2018, arXiv:1801.04406, equation 9."""

    def __init__(self, gamma: float = 10.0, every: int = 1) -> None:
        if gamma < 0:
            raise ValueError(f"gamma={gamma}: must be at least 0.")
        super().__init__(gamma / 2, every)

    def where(self, real: Tensor, fake: Tensor) -> Tensor:
        return real


class R2(R1):
    """gamma / 2 * E ||grad D(x)||^2 at fake samples. Mescheder et al. 2018, arXiv:1801.04406, equation 10."""

    def where(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake


class Dragan(GradientPenalty):
    """The penalty of WGAN-GP, but around the data. Kodali et al. 2017, arXiv:1705.07215, section 2.3.

    The points are x + alpha * noise, with noise ~ 0.5 * std(x) * U(0, 1) in every dimension and alpha ~ U(0, 1) for
    each sample, as in the authors' code; the paper writes Gaussian noise.
    """

    def where(self, real: Tensor, fake: Tensor) -> Tensor:
        return interpolate(real, real + 0.5 * real.std(correction=0) * torch.rand_like(real))


class Consistency(Penalty):
    """weight * E (D(x) - D(T(x)))^2 on real samples, and on fakes with `fake_weight`.

    CR-GAN, Zhang et al. 2020, arXiv:1910.12027; with fake_weight > 0 the balanced form (bCR) of Zhao et al. 2020,
    arXiv:2002.04724. T shifts images by up to `shift` pixels in either direction, zeros moving in, and mirrors them
    where `flip` (not for digits); of vectors it adds noise of `noise` times their deviation, which is ours.
    """

    def __init__(
        self, weight: float = 10.0, fake_weight: float = 0.0, shift: int = 4, flip: bool = False, noise: float = 0.05,
        every: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(every)
        if min(weight, fake_weight, shift, noise) < 0:
            raise ValueError(f"weight={weight}: no setting of consistency may be negative.")
        self.weight, self.fake_weight, self.shift, self.flip, self.noise = weight, fake_weight, shift, flip, noise

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        with torch.autocast(real.device.type, enabled=False):
            total = self.weight * self.change(D, real.float(), y)
            return total + self.fake_weight * self.change(D, fake.float(), y) if self.fake_weight else total

    def change(self, D: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
        return (D(x, y) - D(self.transform(x), y)).square().mean()

    def transform(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            return x + self.noise * x.std(correction=0) * torch.randn_like(x)
        if self.flip:
            x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
        return translate(x, torch.randint(-self.shift, self.shift + 1, (len(x), 2), device=x.device))


class LeCam(nn.Module, Penalty):
    """weight * (E (D(x) - a_F)^2 + E (D(G(z)) - a_R)^2), with a_R, a_F running means of D's logits of real and fake.

    Tseng et al. 2021, arXiv:2104.03310, equation 4. The means are buffers, so that a checkpoint holds them; the first
    batch sets them.

    >>> penalty = LeCam(weight=1.0, decay=0.5)
    >>> penalty.logits_term(torch.tensor([2.0]), torch.tensor([-1.0])).item()  # (2 + 1)^2 + (-1 - 2)^2
    18.0
    """

    def __init__(self, weight: float = 0.3, decay: float = 0.99, every: int = 1) -> None:
        nn.Module.__init__(self)
        Penalty.__init__(self, every)
        if weight < 0 or not 0 <= decay < 1:
            raise ValueError(f"weight={weight}: must be at least 0, and decay={decay} must lie in [0, 1).")
        self.weight, self.decay = weight, decay
        self.anchors: Tensor
        self.register_buffer("anchors", torch.full((2,), float("nan")))  # of real, of fake; NaN: not yet set

    def logits_term(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        now = torch.stack([real_logits.detach().mean(), fake_logits.detach().mean()])
        mean = torch.where(self.anchors.isnan(), now, self.decay * self.anchors + (1 - self.decay) * now)
        self.anchors.copy_(mean)
        real, fake = mean.unbind()
        return self.weight * ((real_logits - fake).square().mean() + (fake_logits - real).square().mean())


class Orthogonal(Penalty):
    """weight * sum over D's weights of || W W^T * (1 - I) ||_F^2. Brock et al. 2019, arXiv:1809.11096, equation 3.

    The rows of W are the output units or channels, its columns all that goes into one. The diagonal is left free.
    """

    def __init__(self, weight: float = 1e-4, every: int = 1) -> None:
        super().__init__(every)
        if weight < 0:
            raise ValueError(f"weight={weight}: must be at least 0.")
        self.weight = weight

    def term(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        layers = [layer for layer in D.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        with torch.autocast(real.device.type, enabled=False):
            grams = [w @ w.T for layer in layers for w in (layer.weight.flatten(1),)]  # (out, out)
            return self.weight * torch.stack([(g - g.diag().diag()).square().sum() for g in grams]).sum()


def interpolate(a: Tensor, b: Tensor) -> Tensor:
    """Points on the lines from a to b (B, ...), at a random place of its own for each sample."""
    place = torch.rand(len(a), *[1] * (a.ndim - 1), device=a.device)
    return a + place * (b - a)


def translate(x: Tensor, offset: Tensor) -> Tensor:
    """Images (B, C, H, W) moved by whole pixels (B, 2), down and right; zeros move in.

    >>> translate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[1, 0]])).tolist()
    [[[[0.0, 0.0], [1.0, 2.0]]]]
    """
    margin = int(offset.abs().max())
    padded = nn.functional.pad(x, [margin] * 4)
    rows = torch.arange(x.shape[2], device=x.device) + margin - offset[:, :1]  # (B, H)
    columns = torch.arange(x.shape[3], device=x.device) + margin - offset[:, 1:]  # (B, W)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def lazy_factor(penalties: Iterable[Penalty]) -> float:
    """c = k / (k + 1) for the largest k = `every` above 1, else 1: D's optimizer is to have lr * c and betas ** c.

    Lazy regularization. Karras et al. 2020, arXiv:1912.04958, appendix B: k updates then move D as far as k + 1 would.

    >>> lazy_factor([R1(every=16), R2()])
    0.9411764705882353
    """
    most = max((penalty.every for penalty in penalties), default=1)
    return most / (most + 1) if most > 1 else 1.0
