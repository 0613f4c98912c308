"""The quantities in the theory of Goodfellow et al. 2014, for data of known density in one or two dimensions.

p is p_data, q is p_g. Both are given as the masses (probabilities) of equal cells, so no density has to be estimated at
a point. Everything is computed in float64 on the CPU, in nats. References:
Goodfellow et al. 2014, "Generative Adversarial Nets": Equation 1, Proposition 1, Theorem 1.
Endres and Schindelin 2003, "A New Metric for Probability Distributions", IEEE Trans. Information Theory 49(7).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from ganrun.data.mixture import Mixture

LOG4 = math.log(4)
QUADRATURE = 20000  # equally spaced nodes of one-dimensional integrals


@dataclass(frozen=True)
class Cells:
    """A box [low, high), divided into `num` equal cells along each of its d = 1 or 2 dimensions: num**d in row order.

    >>> cells = Cells((0.0,), (4.0,), num=4)
    >>> cells.share(torch.tensor([0.5, 0.7, 3.0, 9.0])).tolist()
    [0.5, 0.0, 0.0, 0.25]
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    num: int

    @classmethod
    def around(cls, distribution: Distribution, num: int, sigmas: float = 5.0) -> "Cells":
        """The box that covers `sigmas` standard deviations around the mean, or around all modes of a mixture."""
        if isinstance(distribution, Mixture):
            centers, std = distribution.modes, distribution.mode_std[:, None]  # (K, d), (K, 1)
        else:
            centers, std = (x.double().reshape(1, -1) for x in (distribution.mean, distribution.stddev))  # (1, d)
        low, high = (centers - sigmas * std).amin(0), (centers + sigmas * std).amax(0)
        return cls(tuple(low.tolist()), tuple(high.tolist()), num)

    @property
    def dim(self) -> int:
        return len(self.low)

    @property
    def sides(self) -> Tensor:
        return (torch.tensor(self.high).double() - torch.tensor(self.low).double()) / self.num  # (d,)

    @property
    def volume(self) -> float:
        return self.sides.prod().item()

    def edges(self, axis: int = 0) -> Tensor:
        return torch.linspace(self.low[axis], self.high[axis], self.num + 1, dtype=torch.float64)

    def centers(self) -> Tensor:
        """The centers of the cells, in the shape that distributions take: (num,) or (num**2, 2)."""
        return torch.cartesian_prod(*[(e[1:] + e[:-1]) / 2 for e in map(self.edges, range(self.dim))])

    def mass(self, distribution: Distribution) -> Tensor:
        """The probability of each cell, (num**d,): exact in one dimension, from the cdf, and for mixtures.

        For other two-dimensional distributions, Gauss-Legendre quadrature of `log_prob` with 2 x 2 points per cell. Its
        error is 0.1% if a cell is no wider than the distribution's narrowest part.
        """
        if self.dim == 1:
            return distribution.cdf(self.edges()).double().diff()
        if isinstance(distribution, Mixture):
            return self._mass_of_mixture(distribution)
        offset = self.sides / (2 * math.sqrt(3))
        points = [self.centers() + offset * torch.tensor(s) for s in itertools.product((-1, 1), repeat=self.dim)]
        return torch.stack([distribution.log_prob(x).double().exp() for x in points]).mean(0) * self.volume

    def _mass_of_mixture(self, mixture: Mixture) -> Tensor:
        """Each Gaussian is isotropic, so its mass in a cell is a product over the axes."""
        x, y = (
            torch.special.ndtr((self.edges(axis) - mixture.modes[:, axis, None]) / mixture.mode_std[:, None]).diff()
            for axis in range(2)
        )  # (K, num) each
        mass: Tensor = (mixture.weights[:, None] * x).T @ y
        return mass.flatten()

    def share(self, x: Tensor) -> Tensor:
        """The share of the samples x, (n, d) or (n,), in each cell, (num**d,): an estimate of p_g's mass.

        Divided by `volume` it is the histogram estimate of p_g. It is unbiased for the mean of p_g over the cell, which
        differs from p_g at the center by (side^2 / 24) p_g''; its standard error is sqrt(mass / n). Unlike a kernel
        density estimate, it does not widen p_g or smear narrow modes with a global bandwidth.
        """
        points = x.double().reshape(-1, self.dim)
        low, high = torch.tensor(self.low).double(), torch.tensor(self.high).double()
        inside = points[((points >= low) & (points < high)).all(1)]
        position = ((inside - low) / self.sides).long().clamp(max=self.num - 1)  # (m, d)
        steps = torch.tensor([self.num**k for k in reversed(range(self.dim))])
        return torch.bincount((position * steps).sum(1), minlength=self.num**self.dim).double() / len(points)


def optimal_discriminator(p: Tensor, q: Tensor) -> Tensor:
    """D*(x) = p_data(x) / (p_data(x) + p_g(x)), Proposition 1; from densities or masses of any shape.

    1/2, chance level, where both are 0.

    >>> optimal_discriminator(torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])).tolist()
    [0.75, 0.5, 0.5]
    """
    both = p.double() + q.double()
    return torch.where(both > 0, p.double() / both, 0.5)


def value(
    real_logits: Tensor, fake_logits: Tensor, real_mass: Tensor | None = None, fake_mass: Tensor | None = None
) -> float:
    """V(D, G) = E_data[log D(x)] + E_g[log(1 - D(x))], Equation 1, from D's logits, where D = sigmoid(logit).

    real_logits (n,), fake_logits (m,): at samples, or at cells with the masses real_mass (n,) or fake_mass (m,). Cells
    without mass are ignored. The value is finite for all finite logits.

    >>> value(torch.zeros(3), torch.zeros(5)) == -LOG4
    True
    """
    return (
        _mean(logsigmoid(real_logits.double()), real_mass) + _mean(logsigmoid(-fake_logits.double()), fake_mass)
    ).item()


def _mean(values: Tensor, mass: Tensor | None) -> Tensor:
    if mass is None:
        return values.mean()
    return torch.where(mass > 0, mass.double() * values, 0.0).sum()


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """JSD = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2, in nats: from 0 to log 2.

    p, q: probabilities of the same cells, of any shape. If they sum to less than 1, the rest counts as one more cell.
    The result is a lower bound of the JSD of the densities, and finer cells raise it. For `share` of n samples it is
    biased upwards: if p = q, by (K - 1) / 8n for K cells with several samples each.

    >>> half = torch.tensor([0.5, 0.5, 0.0, 0.0])
    >>> jensen_shannon(half, half), jensen_shannon(half, half.flip(0)) == LOG4 / 2
    (0.0, True)
    """
    p, q = (torch.cat([x.double().flatten(), (1 - x.double().sum()).clamp(min=0)[None]]) for x in (p, q))
    both = p + q
    terms = [torch.where(x > 0, torch.xlogy(x, 2 * x / both), 0.0).sum() for x in (p, q)]
    return max(0.0, (terms[0] + terms[1]).item() / 2)


def jensen_shannon_distance(p: Tensor, q: Tensor) -> float:
    """sqrt(JSD), which is a metric (Endres and Schindelin 2003): from 0 to sqrt(log 2) = 0.8326."""
    return math.sqrt(jensen_shannon(p, q))


def optimal_value(p: Tensor, q: Tensor) -> float:
    """V(D*, G) = -log 4 + 2 JSD(p_data, p_g), from the proof of Theorem 1: from -log 4 = -1.3863 to 0."""
    return -LOG4 + 2 * jensen_shannon(p, q)


def wasserstein(x: Tensor, distribution: Distribution) -> float:
    """W1 between samples x (n,) and a one-dimensional distribution: the integral of |F_n - F|, in the units of x.

    F_n is exact; F is integrated by the trapezoidal rule. The nodes are the samples and 20,000 points over 10 standard
    deviations. For n samples of the distribution itself the result is not 0 but of the order of std / sqrt(n).

    >>> round(wasserstein(torch.tensor([0.0]), torch.distributions.Normal(0.0, 1.0)), 6)  # E|x| = sqrt(2 / pi)
    0.797885
    """
    x = x.double().flatten().sort().values
    nodes = torch.cat([x, Cells.around(distribution, QUADRATURE, sigmas=10.0).edges()]).sort().values
    below = torch.searchsorted(x, nodes[:-1], right=True) / len(x)  # F_n between a node and the next one
    F = distribution.cdf(nodes).double()
    gap = ((below.double() - F[:-1]).abs() + (below.double() - F[1:]).abs()) / 2
    return (gap * nodes.diff()).sum().item()


def wasserstein_between(p: Distribution, q: Distribution) -> float:
    """W1 between two one-dimensional distributions: the integral of |F_p - F_q|, by the trapezoidal rule."""
    nodes = torch.cat([Cells.around(d, QUADRATURE, sigmas=10.0).edges() for d in (p, q)]).sort().values
    gap = p.cdf(nodes).double() - q.cdf(nodes).double()
    return torch.trapezoid(gap.abs(), nodes).item()


def skewness(distribution: Distribution) -> float:
    """E[((x - mean) / std)^3] of a one-dimensional distribution, by integration over 10 standard deviations."""
    cells = Cells.around(distribution, QUADRATURE, sigmas=10.0)
    z = (cells.centers() - distribution.mean) / distribution.stddev
    return round((cells.mass(distribution) * z**3).sum().item(), 9) + 0.0  # no -0


def tail_mass(distribution: Distribution, sigmas: float) -> float:
    """P(|x - mean| > sigmas * std) of a one-dimensional distribution.

    >>> round(tail_mass(torch.distributions.Normal(69.0, 3.0), 2), 4)
    0.0455
    """
    reach = sigmas * distribution.stddev.double()
    below, above = distribution.cdf(distribution.mean - reach), distribution.cdf(distribution.mean + reach)
    return (below + 1 - above).item()
