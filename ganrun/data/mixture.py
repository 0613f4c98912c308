"""Mixtures of Gaussians with an exact density, in any dimension."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

CHUNK = 1 << 22  # number of distances between points and modes computed at a time, which bounds the memory


class Mixture(Distribution):
    """p(x) = sum_k weights_k N(x; modes_k, mode_std_k^2 I), computed in float64.

    modes (K, d): the means of the K Gaussians. mode_std (K,): their standard deviations, the same in every direction.
    weights (K,): relative, divided by their sum; None: all equal. Samples and arguments have shape (..., d), or (...)
    if d is 1, as in torch's Normal. `cdf` raises NotImplementedError if d is greater than 1.

    >>> two = Mixture(torch.tensor([[-1.0], [1.0]]), torch.tensor([2.0, 2.0]))
    >>> two.mean.item(), two.variance.item(), two.cdf(torch.tensor(0.0)).item()
    (0.0, 5.0, 0.5)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, modes: Tensor, mode_std: Tensor, weights: Tensor | None = None) -> None:
        self.modes, self.mode_std = modes.double(), mode_std.double()
        weights = torch.ones_like(self.mode_std) if weights is None else weights.double()
        self.weights = weights / weights.sum()
        self.dim = modes.shape[1]
        event_shape = torch.Size([] if self.dim == 1 else [self.dim])
        super().__init__(event_shape=event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (self.weights @ self.modes).reshape(self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Of each coordinate: E[x^2] - E[x]^2."""
        offsets = self.modes - self.weights @ self.modes  # (K, d)
        return (self.weights @ (offsets**2 + self.mode_std[:, None] ** 2)).reshape(self.event_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        points = x.double().reshape(-1, self.dim)  # (n, d)
        parts = points.split(max(1, CHUNK // len(self.modes)))
        return torch.cat([self._log_prob(part) for part in parts]).reshape(x.shape[: x.ndim - len(self.event_shape)])

    def _log_prob(self, points: Tensor) -> Tensor:
        z = self.distances(points) / self.mode_std  # (n, K)
        log_scale = self.dim * torch.log(self.mode_std * math.sqrt(2 * math.pi))
        return torch.logsumexp(self.weights.log() - log_scale - z**2 / 2, dim=1)

    def distances(self, points: Tensor) -> Tensor:
        """From points (n, d) to the modes, (n, K)."""
        return torch.cdist(points.double(), self.modes, compute_mode="donot_use_mm_for_euclid_dist")

    def cdf(self, x: Tensor) -> Tensor:
        if self.dim != 1:
            raise NotImplementedError(f"cdf: needs a one-dimensional mixture; this one has {self.dim} dimensions.")
        of_modes: Tensor = torch.special.ndtr((x.double()[..., None] - self.modes[:, 0]) / self.mode_std)
        return of_modes @ self.weights

    def draw(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """`num` samples (num, d) from `generator`, or from torch's global random state."""
        k = torch.multinomial(self.weights, num, replacement=True, generator=generator)
        noise = torch.randn(num, self.dim, dtype=torch.float64, generator=generator)
        return self.modes[k] + self.mode_std[k, None] * noise

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.draw(math.prod(sample_shape)).reshape((*sample_shape, *self.event_shape))
