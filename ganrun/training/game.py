"""The updates of both players: Goodfellow et al. 2014, Algorithm 1, with k = n_critic.

A player's gradients are computed only with respect to its own parameters, so an update neither changes the other player
nor gives it a gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.optim import Optimizer

from ganrun.network_protocols import HasConstraint
from ganrun.protocols import DOutput
from ganrun.training.eager import Grads, gradients, optimizer_step
from ganrun.training.ema import EMA
from ganrun.training.precision import autocast, scaled, scaled_step
from ganrun.training.run import Run
from ganrun.training.sampling import mixes_samples
from ganrun.training.updates import BothUpdates, DUpdate, GUpdate, U


class Game:
    """Performs the training steps of one run, with its networks, optimizers and data."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.d_params = [p for p in run.D.parameters() if p.requires_grad]
        self.g_params = [p for p in run.G.parameters() if p.requires_grad]
        self.step_d = make_step(run.d_optimizer, self.d_params, run.d_scaler)
        self.step_g = make_step(run.g_optimizer, self.g_params, run.g_scaler)
        self.independent = treats_samples_independently(run.D)
        self.d_constraints, self.g_constraints = constrained_layers(run.D), constrained_layers(run.G)
        self.d_statistics, self.g_statistics = layers_with_statistics(run.D), layers_with_statistics(run.G)
        self.spectral = [m for m in (*self.d_statistics, *self.g_statistics) if isinstance(m, _SpectralNorm)]
        self.penalties = {f"penalty/{name}": penalty for name, penalty in run.penalties.items() if penalty.has_term}
        self.lazy_terms: dict[str, Tensor] = {}  # the last values of lazy penalties, to log between their updates
        y = run.dataset.train.y if run.condition.uses_labels else None
        self.labels = None if y is None else y.to(run.device)  # (N,)
        options = run.options
        average = (options.ema, options.ema_rampup, options.ema_debias, self.half_life())
        self.ema = None if run.G_ema is None else EMA(run.G_ema, run.G, *average)
        self.penalty_factor = 1.0

    def step(self, step: int) -> tuple[DUpdate, GUpdate]:
        """Step number `step`, from 0: n_critic updates of D, then n_gen of G. Returns each player's last update."""
        options = self.run.options
        self.follow_schedules(step)
        noise, first = self.instance_noise(step), options.pretrain_d + step * options.n_critic
        if options.update == "simultaneous":
            d, g = self.simultaneous_update(first, noise)
        else:
            for k in range(options.n_critic):
                d = self.d_update(first + k, noise)
            for _ in range(options.n_gen):
                g = self.g_update(first, noise)
        if self.ema is not None:
            self.ema.update(step)
        return d, g

    def d_update(self, index: int, noise: float) -> DUpdate:
        """Update number `index` of D, on the real batch of that number and new fakes. G does not change by a bit."""
        run = self.run

        def part(real: Tensor, y: Tensor | None, z: Tensor) -> DUpdate:
            with self.precision():
                with torch.no_grad(), keep_statistics(self.g_statistics):
                    fake = self.perturb(run.G(z, y), noise)
                    real = self.perturb(real, noise)
                real_out, fake_out = self.outputs(real, fake, y, together=self.independent)
            loss, terms, total = self.d_loss(index, real, fake, y, real_out, fake_out)
            grads = gradients(scaled(total, run.d_scaler), self.d_params)
            return DUpdate(loss, real_out.logits, fake_out.logits, terms, grads, run.loss.logistic)

        update = self.of_parts(part, *self.real_batch(index), self.latents())
        return self.apply_d(index, update)

    def g_update(self, index: int, noise: float) -> GUpdate:
        """An update of G on new latents. D does not change by a bit.

        A loss that needs real examples gets batch number `index` and its labels; otherwise labels are random.
        """
        run = self.run
        together = self.independent and not run.loss.g_needs_features

        def part(real: Tensor | None, y: Tensor | None, z: Tensor) -> GUpdate:
            with self.precision(), keep_statistics(self.d_statistics):
                fake = self.perturb(run.G(z, y), noise)
                if real is None:
                    real_out, fake_out = None, run.d_outputs(fake, y)
                else:
                    real_out, fake_out = self.outputs(real, fake, y, together)
                loss, terms, total = self.g_loss(fake_out, real_out, y)
            return GUpdate(loss, terms, gradients(scaled(total, run.g_scaler), self.g_params))

        if run.loss.g_needs_real:
            real, y = self.real_batch(index)
            with self.precision():
                real = self.perturb(real, noise)
        else:
            real, y = None, self.random_labels()
        return self.apply_g(self.of_parts(part, real, y, self.latents()))

    def simultaneous_update(self, index: int, noise: float) -> tuple[DUpdate, GUpdate]:
        """Both gradients at the same parameters, from the same fakes and dropout masks; then both are applied.

        Real and fake images pass D separately, so that G's backward pass skips the real examples, which saves 8% of the
        arithmetic of a step on MNIST. Networks for vectors are so small that only the number of operations matters.
        """
        run = self.run
        together = self.independent and not run.dataset.spec.is_image

        def part(real: Tensor, y: Tensor | None, z: Tensor) -> BothUpdates:
            with self.precision():
                fake = self.perturb(run.G(z, y), noise)
                real_out, fake_out = self.outputs(real, fake, y, together)
                g_loss, g_terms, g_total = self.g_loss(fake_out, real_out, y)
            d_loss, d_terms, d_total = self.d_loss(index, real, fake.detach(), y, real_out, fake_out)
            d_grads = gradients(scaled(d_total, run.d_scaler), self.d_params, keep_graph=True)
            g_grads = gradients(scaled(g_total, run.g_scaler), self.g_params)
            d = DUpdate(d_loss, real_out.logits, fake_out.logits, d_terms, d_grads, run.loss.logistic)
            return BothUpdates(d, GUpdate(g_loss, g_terms, g_grads))

        real, y = self.real_batch(index)
        with self.precision():
            real = self.perturb(real, noise)
        both = self.of_parts(part, real, y, self.latents())
        return self.apply_d(index, both.d), self.apply_g(both.g)

    def of_parts(self, compute: Callable[..., U], *batch: Tensor | None) -> U:
        """`compute(*batch)`, or the mean of its results for equal parts of the batch (train.accumulate).

        Spectral norms make their power iteration for the first part, so that all parts have the same weights.
        """
        num = self.run.options.accumulate
        if num == 1:
            return compute(*batch)
        parts = list(zip(*([None] * num if x is None else x.chunk(num) for x in batch), strict=True))
        total = compute(*parts[0])
        with keep_statistics(self.spectral):
            for part in parts[1:]:
                total = total.plus(compute(*part))
        return total.mean(num)

    def outputs(self, real: Tensor, fake: Tensor, y: Tensor | None, together: bool) -> tuple[DOutput, DOutput]:
        """D's outputs on real and on fake examples, from one pass of both if `together`."""
        d_outputs = self.run.d_outputs
        if not together:
            return d_outputs(real, y), d_outputs(fake, y)
        return d_outputs(torch.cat([real, fake]), None if y is None else torch.cat([y, y])).halves()

    def d_loss(
        self, index: int, real: Tensor, fake: Tensor, y: Tensor | None, real_out: DOutput, fake_out: DOutput
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """D's loss, its terms, and the sum to minimize. A lazy penalty is added if its `every` divides `index`."""
        run = self.run
        loss = run.loss.d_loss(*self.with_label_noise(real_out.logits, fake_out.logits))
        terms, total = {}, loss
        term = run.condition.d_term(real_out, fake_out, y)
        if term is not None:
            terms["loss/d_class"] = term
            total = total + term
        for tag, penalty in self.penalties.items():
            if index % penalty.every:
                terms |= {tag: self.lazy_terms[tag]} if tag in self.lazy_terms else {}
                continue
            term = penalty.logits_term(real_out.logits, fake_out.logits)
            if term is None:
                with keep_statistics(self.d_statistics):  # they have already been updated with this batch
                    term = penalty.term(run.D, real, fake, y)
            if term is not None:
                term = term if self.run.penalty_schedule is None else self.penalty_factor * term
                terms[tag] = term
                total = total + penalty.every * term
        return loss, terms, total

    def g_loss(
        self, fake_out: DOutput, real_out: DOutput | None, y: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """G's loss, its terms, and the sum to minimize."""
        loss = self.run.loss.g_objective(fake_out, real_out)
        term = self.run.condition.g_term(fake_out, y)
        return (loss, {}, loss) if term is None else (loss, {"loss/g_class": term}, loss + term)

    def apply_d(self, index: int, update: DUpdate) -> DUpdate:
        """Change D. Returns the update with the gradients that were used."""
        self.run.augment.observe(update.real_logits)
        for tag, penalty in self.penalties.items():
            if penalty.every > 1 and index % penalty.every == 0 and tag in update.terms:
                self.lazy_terms[tag] = update.terms[tag].detach()
        grads = self.step_d(update.grads)
        for layer in self.d_constraints:
            layer.constrain()
        for penalty in self.run.penalties.values():
            penalty.project(self.run.D)
        return update._replace(grads=grads)

    def apply_g(self, update: GUpdate) -> GUpdate:
        grads = self.step_g(update.grads)
        for layer in self.g_constraints:
            layer.constrain()
        return update._replace(grads=grads)

    def follow_schedules(self, step: int) -> None:
        """Set both optimizers' learning rates, and whatever else has a schedule."""
        run, steps = self.run, self.run.options.steps
        scale(run.d_optimizer, "lr", run.d_schedule(step, steps))
        scale(run.g_optimizer, "lr", run.g_schedule(step, steps))
        for optimizer in (run.d_optimizer, run.g_optimizer):
            if run.momentum is not None:
                scale(optimizer, "momentum", run.momentum(step, steps))
            if run.beta2_schedule is not None:
                scale_beta2(optimizer, run.beta2_schedule(step, steps))
        if run.penalty_schedule is not None:
            self.penalty_factor = run.penalty_schedule(step, steps)
        if run.augment_schedule is not None:
            run.augment.scale(run.augment_schedule(step, steps))

    def half_life(self) -> Callable[[int], float] | None:
        """The factor of the half-life of G_ema after a step; None: 1."""
        schedule, steps = self.run.ema_schedule, self.run.options.steps
        return None if schedule is None else lambda step: schedule(step, steps)

    def precision(self) -> AbstractContextManager[object]:
        return autocast(self.run.options.precision, self.run.device)

    def latents(self) -> Tensor:
        return self.run.latent(self.run.options.batch_size, self.run.device)

    def real_batch(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Real batch number `index`, and in a conditional run its labels, which D's fakes have too."""
        real, y = self.run.batches[index]
        return real, None if self.labels is None else y

    def random_labels(self) -> Tensor | None:
        """In a conditional run, labels (B,) with the frequencies of the training data."""
        if self.labels is None:
            return None
        return self.labels[torch.randint(len(self.labels), (self.run.options.batch_size,), device=self.run.device)]

    def instance_noise(self, step: int) -> float:
        """The standard deviation of the instance noise at `step`, in the data's units: it decays linearly to 0."""
        options = self.run.options
        left = 1 - step / (options.instance_noise_until or options.steps)
        return options.instance_noise * self.run.dataset.spec.std * max(left, 0.0)

    def perturb(self, x: Tensor, noise: float) -> Tensor:
        """D's input for real or fake samples x: augmented, plus instance noise with standard deviation `noise`."""
        x = self.run.augment(x)
        return x + noise * torch.randn_like(x) if noise else x

    def with_label_noise(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """The real and fake logits for D's loss; label noise exchanges the logits of some pairs at random."""
        if not self.run.options.label_noise:
            return real_logits, fake_logits
        wrong = torch.rand_like(real_logits) < self.run.options.label_noise
        return torch.where(wrong, fake_logits, real_logits), torch.where(wrong, real_logits, fake_logits)


def make_step(optimizer: Optimizer, params: Sequence[Tensor], scaler: GradScaler | None) -> Callable[[Grads], Grads]:
    """A function that makes one optimizer step with given gradients, and returns them without the scale of `scaler`."""
    if scaler is not None:
        return scaled_step(optimizer, params, scaler)
    step = optimizer_step(optimizer, params)

    def unscaled_step(grads: Grads) -> Grads:
        step(grads)
        return grads

    return unscaled_step


def scale(optimizer: Optimizer, key: str, factor: float) -> None:
    """Set the learning rate or the momentum to `factor` times its initial value."""
    for group in optimizer.param_groups:
        group[key] = optimizer.defaults[key] * factor


def scale_beta2(optimizer: Optimizer, factor: float) -> None:
    """Set 1 - beta2 to `factor` times its initial value."""
    for group in optimizer.param_groups:
        beta1, beta2 = optimizer.defaults["betas"]
        group["betas"] = (beta1, 1 - factor * (1 - beta2))


def layers_with_statistics(net: nn.Module) -> list[nn.Module]:
    """The layers that a forward pass in training mode changes: batch norm and spectral norm."""
    return [layer for layer in net.modules() if isinstance(layer, _BatchNorm | _SpectralNorm)]


def constrained_layers(net: nn.Module) -> list[HasConstraint]:
    return [layer for layer in net.modules() if isinstance(layer, HasConstraint)]


def treats_samples_independently(net: nn.Module) -> bool:
    """Whether the output for a sample depends only on that sample, so that real and fake can share a pass."""
    return not (mixes_samples(net) or any(isinstance(layer, _BatchNorm) for layer in net.modules()))


@contextmanager
def keep_statistics(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Run `layers_with_statistics` in training mode without updating their statistics."""
    if not layers:  # saves time in the short steps of small networks
        yield
        return
    before = [layer.track_running_stats if isinstance(layer, _BatchNorm) else layer.training for layer in layers]
    _set_updating(layers, [False] * len(layers))
    try:
        yield
    finally:
        _set_updating(layers, before)


def _set_updating(layers: Sequence[nn.Module], values: Sequence[bool]) -> None:
    for layer, value in zip(layers, values, strict=True):
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = value
        else:
            layer.training = value
