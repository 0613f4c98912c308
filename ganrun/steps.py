"""The game: Goodfellow et al. 2014, Algorithm 1, with k = n_critic.

A player's gradients are taken with respect to its own parameters alone, so that the other is neither changed
nor given a gradient, and nothing is left over for its next update.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.optim import Optimizer

from ganrun.eager import bare_step
from ganrun.run import Run

Grads = tuple[Tensor | None, ...]
SINGULAR_VECTORS = ("._u", "._v")  # how torch names the buffers of a spectral norm


class DUpdate(NamedTuple):
    """What one update of D saw and did. Logits are (B,)."""

    loss: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    penalties: dict[str, Tensor]
    grads: Grads


class GUpdate(NamedTuple):
    """What one update of G did."""

    loss: Tensor
    grads: Grads


class Game:
    """Plays the steps of one run on its networks, optimizers and data."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.d_params = [p for p in run.D.parameters() if p.requires_grad]
        self.g_params = [p for p in run.G.parameters() if p.requires_grad]
        self.d_step, self.g_step = bare_step(run.d_optimizer), bare_step(run.g_optimizer)
        self.shared_pass = treats_samples_independently(run.D)
        self.g_counters, self.d_counters = counting_layers(run.G), counting_layers(run.D)
        self.g_needs_real = getattr(run.loss, "g_needs_real", False)
        self.matches_features = hasattr(run.loss, "g_feature_loss")
        self.average = Average(run.averaged, run.G, run.options.ema) if run.averaged is not None else None

    def step(self, step: int) -> tuple[DUpdate, GUpdate]:
        """Step number `step`, counted from 0. Returns the last update of each player."""
        run, options = self.run, self.run.options
        set_rate(run.d_optimizer, run.d_schedule(step, options.steps))
        set_rate(run.g_optimizer, run.g_schedule(step, options.steps))
        if options.update == "simultaneous":
            d, g = self.both_update(step)
        else:
            for k in range(options.n_critic):
                d = self.d_update(step * options.n_critic + k)
            for _ in range(options.n_gen):
                g = self.g_update(step * options.n_critic)
        if self.average is not None:
            self.average.update()
        return d, g

    def d_update(self, batch: int) -> DUpdate:
        """One update of D, on real batch number `batch` and fresh fakes. G stays as it is, to the byte."""
        run = self.run
        real, y = run.batches[batch]
        with self._precision():
            with torch.no_grad(), frozen(self.g_counters):
                fake = self._shown(run.G(self._latents()))
                real = self._shown(real)
            real_logits, fake_logits = self._judge(real, fake)
        loss, penalties, total = self._d_loss(batch, real, fake, y, real_logits, fake_logits)
        if run.augment is not None:
            run.augment.observe(real_logits)
        grads = torch.autograd.grad(total, self.d_params, allow_unused=True)
        self._move_d(grads)
        return DUpdate(loss, real_logits, fake_logits, penalties, grads)

    def g_update(self, batch: int) -> GUpdate:
        """One update of G, on fresh latents. D stays as it is, to the byte."""
        run = self.run
        with self._precision(), frozen(self.d_counters):
            fake = self._shown(run.G(self._latents()))
            if self.matches_features:
                loss = self._g_feature_loss(fake, self._shown(run.batches[batch][0]))
            elif self.g_needs_real:
                real_logits, fake_logits = self._judge(self._shown(run.batches[batch][0]), fake)
                loss = run.loss.g_loss(fake_logits, real_logits)
            else:
                loss = run.loss.g_loss(run.D(fake).float(), None)
        grads = torch.autograd.grad(loss, self.g_params, allow_unused=True)
        move(self.g_step, self.g_params, grads)
        return GUpdate(loss, grads)

    def both_update(self, batch: int) -> tuple[DUpdate, GUpdate]:
        """Both gradients at the same parameters, from the same fakes and dropout masks; then both are applied."""
        run = self.run
        real, y = run.batches[batch]
        with self._precision():
            real, fake = self._shown(real), self._shown(run.G(self._latents()))
            real_logits, fake_logits = self._judge(real, fake)
            g_loss = (
                self._g_feature_loss(fake, real) if self.matches_features else run.loss.g_loss(fake_logits, real_logits)
            )
        loss, penalties, total = self._d_loss(batch, real, fake.detach(), y, real_logits, fake_logits)
        if run.augment is not None:
            run.augment.observe(real_logits)
        d_grads = torch.autograd.grad(total, self.d_params, retain_graph=True, allow_unused=True)
        g_grads = torch.autograd.grad(g_loss, self.g_params, allow_unused=True)
        self._move_d(d_grads)
        move(self.g_step, self.g_params, g_grads)
        return DUpdate(loss, real_logits, fake_logits, penalties, d_grads), GUpdate(g_loss, g_grads)

    def _precision(self) -> AbstractContextManager:
        """A new context each time: weights cast to bf16 under no_grad must not be reused where gradients are."""
        if self.run.options.precision == "bf16":
            return torch.autocast(self.run.device.type, torch.bfloat16)
        return nullcontext()

    def _latents(self) -> Tensor:
        return self.run.latent(self.run.options.batch_size, self.run.device)

    def _shown(self, x: Tensor) -> Tensor:
        """What D is shown of samples, real or fake."""
        return x if self.run.augment is None else self.run.augment(x)

    def _judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits of both, float32: in one pass where D treats samples independently, else each by itself."""
        if self.shared_pass:
            real_logits, fake_logits = self.run.D(torch.cat([real, fake])).float().split(len(real))
            return real_logits, fake_logits
        return self.run.D(real).float(), self.run.D(fake).float()

    def _g_feature_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        D: Any = self.run.D
        with torch.no_grad():
            real_features = D.features(real).float()
        return self.run.loss.g_feature_loss(D.features(fake).float(), real_features)

    def _d_loss(
        self, batch: int, real: Tensor, fake: Tensor, y: Tensor | None, real_logits: Tensor, fake_logits: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss, the penalties' terms where update number `batch` is their turn, and what is to be descended."""
        loss = total = self.run.loss.d_loss(real_logits, fake_logits)
        terms: dict[str, Tensor] = {}
        for name, penalty in self.run.penalties.items():
            every = getattr(penalty, "every", 1)
            if batch % every:
                continue
            if hasattr(penalty, "logits_term"):
                term = penalty.logits_term(real_logits, fake_logits)
            else:
                with frozen(self.d_counters):  # D's statistics have seen this batch already
                    term = penalty.term(self.run.D, real, fake, y)
            if term is not None:
                terms[name] = term
                total = total + every * term
        return loss, terms, total

    def _move_d(self, grads: Grads) -> None:
        move(self.d_step, self.d_params, grads)
        for penalty in self.run.penalties.values():
            if hasattr(penalty, "project"):
                penalty.project(self.run.D)


def scalars(d: DUpdate, g: GUpdate) -> dict[str, float]:
    """The logged values of a step, by TensorBoard tag. This is where the device is waited for."""
    values = {
        "loss/d": d.loss,
        "loss/g": g.loss,
        **{f"penalty/{name}": term for name, term in d.penalties.items()},
        "logits/real": d.real_logits.mean(),
        "logits/fake": d.fake_logits.mean(),
        "grad_norm/d": norm(d.grads),
        "grad_norm/g": norm(g.grads),
    }
    numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def norm(grads: Grads) -> Tensor:
    """The L2 norm of all gradients together."""
    return torch.stack([grad.norm() for grad in grads if grad is not None]).norm()


@torch.no_grad()
def move(step: Callable[[], Any], params: Sequence[Tensor], grads: Grads) -> None:
    """One step of an optimizer with these gradients, which are not left behind."""
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    step()
    for param in params:
        param.grad = None


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate to `factor` times the one that the optimizer was made with."""
    for group in optimizer.param_groups:
        group["lr"] = optimizer.defaults["lr"] * factor


class Average:
    """averaged <- decay * averaged + (1 - decay) * net, float buffers included.

    Copied are whole-number buffers and the singular vectors of spectral norms, whose mean would be no unit vector.
    """

    def __init__(self, averaged: nn.Module, net: nn.Module, decay: float) -> None:
        self.decay = decay
        source = net.state_dict()
        found = {to.data_ptr(): (name, to, source[name]) for name, to in averaged.state_dict().items()}
        mixed = {name: to.is_floating_point() and not name.endswith(SINGULAR_VECTORS) for name, to, _ in found.values()}
        self.to = [to for name, to, _ in found.values() if mixed[name]]  # tied weights count once
        self.source = [now for name, _, now in found.values() if mixed[name]]
        self.counters = [(to, now) for name, to, now in found.values() if not mixed[name]]

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self.to, self.source, 1 - self.decay)
        for averaged, counter in self.counters:
            averaged.copy_(counter)


def counting_layers(net: nn.Module) -> list[nn.Module]:
    """The layers that change as they are used in training: batch norms' statistics, spectral norms' power iteration."""
    return [layer for layer in net.modules() if isinstance(layer, _BatchNorm | _SpectralNorm)]


def treats_samples_independently(net: nn.Module) -> bool:
    """Whether a sample's output is a function of that sample alone, so that real and fake may share a pass.

    A layer of one's own that looks across the batch says so with an attribute `mixes_samples = True`.
    """
    return not any(isinstance(x, _BatchNorm) or getattr(x, "mixes_samples", False) for x in net.modules())


@contextmanager
def frozen(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Use `counting_layers` as in training, but without changing them."""
    switches = [(x, "track_running_stats" if isinstance(x, _BatchNorm) else "training") for x in layers]
    before = [getattr(layer, switch) for layer, switch in switches]
    for layer, switch in switches:
        setattr(layer, switch, False)
    try:
        yield
    finally:
        for (layer, switch), value in zip(switches, before, strict=True):
            setattr(layer, switch, value)
