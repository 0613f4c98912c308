"""Reconstruction through G: the latent search of AnoGAN."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganrun.anomaly.networks import BATCH, DView, device_of, frozen
from ganrun.data.seeds import seed_for
from ganrun.network_protocols import DrawsNoise
from ganrun.protocols import Latent

MEASURED = 200  # training examples whose losses set the units


@dataclass(frozen=True)
class Search:
    """steps: of Adam on z. restarts: starting points of each example. pool: samples to choose them from.

    lr: of Adam, in units of the latent's standard deviation. feature_weight: AnoGAN's lambda, the share of the feature
    loss.
    """

    steps: int = 50
    restarts: int = 2
    pool: int = 2000
    lr: float = 0.05
    feature_weight: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("restarts", 1), ("pool", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}.")
        if self.lr <= 0:
            raise ValueError(f"lr={self.lr}: must be greater than 0.")
        if not 0 <= self.feature_weight <= 1:
            raise ValueError(f"feature_weight={self.feature_weight}: must lie in [0, 1].")


class Reconstruction:
    """How well G can reconstruct an example. Schlegl et al. 2017, arXiv:1703.05921, Equations 3 to 5 and 7.

    score(x) = min over z of (1 - lambda) R(x, G(z)) + lambda F(x, G(z)), with the residual loss R = mean |x - G(z)|,
    and F the same of D's features (feature matching). z is found by Adam, from several starting points.
    Differs from the paper in that:
    - R and F are divided by their means over training examples at their starting points, so that lambda has a meaning
      for every data set and D;
    - searches start at the samples nearest to x, by R, out of `pool` ones, not at random;
    - z stays within the bounds that the latents of the pool have, since a G may reach any value far outside of them;
    - in a conditional run, a starting point keeps its class;
    - a starting point also keeps the random numbers that layers of G draw (`DrawsNoise`), as for categories of tables,
      so that the score of an example does not depend on the others.
    """

    def __init__(self, search: Search | None = None) -> None:
        self.search = search or Search()

    def fit(self, G: nn.Module, latent: Latent, view: DView, train: Tensor, num_classes: int, seed: int) -> None:
        """train (n, *shape): training examples. num_classes: of a conditional run; 0: of an unconditional one."""
        self.G, self.view, self.device, self.seed = G, view, device_of(G), seed
        num = self.search.pool
        with self._own_random_state():
            self.z = latent(num, self.device)  # (pool, dim)
        self.y = torch.arange(num, device=self.device) % num_classes if num_classes else None
        self.low, self.high, self.std = self.z.amin(0), self.z.amax(0), self.z.std(0, correction=0).clamp_min(1e-6)
        self.noise: dict[nn.Module, Tensor] = {}  # (pool, ...) uniform in [0, 1), of each layer of G that draws any
        with frozen(G), torch.no_grad(), self._own_random_state():
            starts = torch.arange(num, device=self.device).split(BATCH)
            self.pool = torch.cat([self._made(self.z[part], part).flatten(1) for part in starts])  # (pool, d)
        self.units = torch.ones(2, device=self.device)
        with frozen(G, view.D), torch.no_grad(), self._own_random_state():
            some = train[:MEASURED].to(self.device)
            start = self._starts(some)[:, 0]
            self.units = self._losses(some, self._features(some, start), self.z[start], start).mean(1).clamp_min(1e-12)

    def score(self, x: Tensor) -> Tensor:
        """x (n, *shape) -> (n,), on the CPU."""
        rows = max(1, BATCH // self.search.restarts)
        with frozen(self.G, self.view.D), self._own_random_state():
            return torch.cat([self._score(part.to(self.device)) for part in x.split(rows)]).cpu()

    @contextmanager
    def _own_random_state(self) -> Iterator[None]:
        """For latents, and for the noise of G."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_for(self.seed, "latent search"))
            yield

    def _score(self, x: Tensor) -> Tensor:
        chosen = self._starts(x)  # (n, restarts)
        starts, repeated = chosen.flatten(), x.repeat_interleave(chosen.shape[1], 0)
        with torch.no_grad():
            target = self._features(repeated, starts)
        z, best = self.z[starts].clone(), torch.full((len(starts),), torch.inf, device=self.device)
        moment, square = torch.zeros_like(z), torch.zeros_like(z)
        for step in range(1, self.search.steps + 2):
            with torch.enable_grad():
                z.requires_grad_()
                loss = self._weighted(self._losses(repeated, target, z, starts))  # (n * restarts,)
                (slope,) = torch.autograd.grad(loss.sum(), z)
            best = torch.minimum(best, loss.detach())
            moment, square = 0.9 * moment + 0.1 * slope, 0.999 * square + 0.001 * slope.square()
            adam = (moment / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            z = (z.detach() - self.search.lr * self.std * adam).clamp(self.low, self.high)
        least: Tensor = best.unflatten(0, (len(x), -1)).amin(1)
        return least

    def _starts(self, x: Tensor) -> Tensor:
        """The numbers of the samples in the pool that are nearest to each x, (n, restarts)."""
        distance = torch.cdist(x.flatten(1), self.pool, p=1)
        return distance.topk(min(self.search.restarts, len(self.pool)), largest=False).indices

    def _losses(self, x: Tensor, target: Tensor, z: Tensor, starts: Tensor) -> Tensor:
        """Both losses of each x (n, *shape) with features `target` (n, F), in their units: (2, n)."""
        made = self._made(z, starts)
        residual = (x - made).abs().flatten(1).mean(1)
        if not self.search.feature_weight:
            return torch.stack([residual, torch.zeros_like(residual)]) / self.units[:, None]
        feature = (target - self._features(made, starts)).abs().mean(1)
        return torch.stack([residual, feature]) / self.units[:, None]

    def _made(self, z: Tensor, starts: Tensor) -> Tensor:
        """G's samples (n, *shape) for latents z (n, dim), with the classes and the noise of their starting points."""

        def fixed(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            assert isinstance(layer, DrawsNoise)
            if layer not in self.noise:
                self.noise[layer] = torch.rand(len(self.z), *given[0].shape[1:], device=self.device)
            return layer.with_noise(given[0], self.noise[layer][starts])

        hooks = [layer.register_forward_hook(fixed) for layer in self.G.modules() if isinstance(layer, DrawsNoise)]
        try:
            found: Tensor = self.G(z, self._classes(starts))
            return found
        finally:
            for hook in hooks:
                hook.remove()

    def _weighted(self, losses: Tensor) -> Tensor:
        return (1 - self.search.feature_weight) * losses[0] + self.search.feature_weight * losses[1]

    def _features(self, x: Tensor, starts: Tensor) -> Tensor:
        if not self.search.feature_weight:
            return x.new_zeros(len(x), 1)
        return self.view.features_of(x, self._classes(starts))

    def _classes(self, starts: Tensor) -> Tensor | None:
        return None if self.y is None else self.y[starts]
