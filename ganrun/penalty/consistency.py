"""Consistency regularization: D should output the same logit for a sample and its transform."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.data.dataset import DataSpec
from ganrun.penalty.base import WeightedPenalty, not_negative


class Consistency(WeightedPenalty):
    """CR: weight * E_real[(D(x) - D(T(x)))^2]. Zhang et al. 2020 (CR-GAN), arXiv:1910.12027.

    bCR adds fake_weight * E_fake[(D(x) - D(T(x)))^2]. Zhao et al. 2020, arXiv:2002.04724.
    T is random for each sample. It shifts images (B, C, H, W) by whole pixels, up to `translation` on each axis, with
    `fill` (in the data's units) at the border, and if `flip` is set mirrors half of them (not for digits). To vectors
    (B, n) it adds Gaussian noise: `noise` times each component's standard deviation in the batch, 0 for a batch of one.
    Differs in that D(x) is computed again, and in T for vectors, which the papers do not have.

    >>> D = lambda x, y: x.sum((1, 2, 3)) * 0 + 3  # always outputs 3
    >>> Consistency().term(D, torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8), None).item()
    0.0
    """

    def __init__(
        self,
        weight: float = 10.0,
        fake_weight: float = 0.0,
        translation: int = 4,
        flip: bool = False,
        noise: float = 0.1,
        fill: float = 0.0,
        every: int = 1,
    ) -> None:
        super().__init__(weight, every)
        self.fake_weight = not_negative("fake_weight", fake_weight)
        self.has_term = self.weight > 0 or self.fake_weight > 0
        self.translation = int(not_negative("translation", translation))
        self.noise = not_negative("noise", noise)
        self.flip, self.fill = flip, fill

    def uses_batch_statistics(self, spec: DataSpec) -> bool:
        return not spec.is_image

    def value(self, D: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        parts = [(self.weight, real), (self.fake_weight, fake)]
        terms = [weight * (D(x, y) - D(self.transform(x), y)).square().mean() for weight, x in parts if weight]
        return torch.stack(terms).sum()

    def transform(self, x: Tensor) -> Tensor:
        """T(x), drawn from the global random state: (B, *shape) -> (B, *shape)."""
        if x.dim() != 4:
            return x + self.noise * x.std(0, correction=0, keepdim=True) * torch.randn_like(x)
        if self.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(3), x)
        if self.translation:
            shifts = torch.randint(-self.translation, self.translation + 1, (len(x), 2), device=x.device)
            x = translate(x, shifts, self.translation, self.fill)
        return x


def translate(x: Tensor, shifts: Tensor, most: int, fill: float = 0.0) -> Tensor:
    """Shift each image of x (B, C, H, W) down and to the right by its own shifts (B, 2), from -most to most.

    >>> translate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[0, 1]]), most=1)
    tensor([[[[0., 1.],
              [0., 3.]]]])
    """
    height, width = x.shape[2:]
    padded = F.pad(x, (most,) * 4, value=fill).movedim(1, 3)  # (B, H + 2 most, W + 2 most, C)
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    rows = torch.arange(most, most + height, device=x.device) - shifts[:, :1]  # (B, H)
    columns = torch.arange(most, most + width, device=x.device) - shifts[:, 1:]  # (B, W)
    return padded[sample, rows[:, :, None], columns[:, None, :]].movedim(3, 1)
