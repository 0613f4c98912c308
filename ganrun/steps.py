"""The game: Goodfellow et al. 2014, Algorithm 1, with k = n_critic.

A player's gradients are taken with respect to its own parameters alone, so that the other is neither changed
nor given a gradient, and nothing is left over for its next update.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.optim import Optimizer

from ganrun.eager import Grads, gradients, mover
from ganrun.run import Run

SINGULAR_VECTORS = ("._u", "._v")  # how torch names the buffers of a spectral norm


class Verdict(NamedTuple):
    """What D says of a batch, in float32: logits (B,), and class logits (B, K) where it names classes too."""

    logits: Tensor
    classes: Tensor | None = None


class DUpdate(NamedTuple):
    """What one update of D saw and did. Logits are (B,); `terms`, by tag, are what was added to the loss.

    logistic: whether a logit's sign is D's verdict.
    """

    loss: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    terms: dict[str, Tensor]
    grads: Grads
    logistic: bool = False

    def values(self) -> dict[str, Tensor]:
        """What is logged, by TensorBoard tag."""
        logits = {"logits/real": self.real_logits.mean(), "logits/fake": self.fake_logits.mean()}
        return {"loss/d": self.loss, **self.terms, **logits, **self.accuracy(), "grad_norm/d": norm(self.grads)}

    def accuracy(self) -> dict[str, Tensor]:
        """The share of pairs whose real logit is the greater, ties half: .5 of a blind D, whatever the loss.

        Where logits have a sign to go by, also the share of each kind that D tells right.
        """
        real, fake = self.real_logits, self.fake_logits
        found = {"accuracy/pairs": (torch.sign(real[:, None] - fake).mean() + 1) / 2}
        if self.logistic:
            found |= {"accuracy/real": (real > 0).float().mean(), "accuracy/fake": (fake < 0).float().mean()}
        return found


class GUpdate(NamedTuple):
    """What one update of G did."""

    loss: Tensor
    terms: dict[str, Tensor]
    grads: Grads

    def values(self) -> dict[str, Tensor]:
        """What is logged, by TensorBoard tag."""
        return {"loss/g": self.loss, **self.terms, "grad_norm/g": norm(self.grads)}


class Game:
    """Plays the steps of one run on its networks, optimizers and data."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.d_params = [p for p in run.D.parameters() if p.requires_grad]
        self.g_params = [p for p in run.G.parameters() if p.requires_grad]
        self.move_d, self.move_g = mover(run.d_optimizer, self.d_params), mover(run.g_optimizer, self.g_params)
        self.shared_pass = treats_samples_independently(run.D)
        self.g_counters, self.d_counters = counting_layers(run.G), counting_layers(run.D)
        self.g_constrained, self.d_constrained = constrained_layers(run.G), constrained_layers(run.D)
        self.g_needs_real = getattr(run.loss, "g_needs_real", False)
        self.matches_features = hasattr(run.loss, "g_feature_loss")
        self.logistic = getattr(run.loss, "logistic", False)
        self.penalties = {name: p for name, p in run.penalties.items() if not getattr(p, "is_off", bool)()}
        self.classifies = getattr(run.condition, "classifies", False)
        y = run.dataset.train.y if run.condition is not None else None
        self.labels = None if y is None else y.to(run.device)  # (N,)
        self.noise = self._noise(0)
        self.average = (
            Average(run.averaged, run.G, run.options.ema, run.options.ema_rampup) if run.averaged is not None else None
        )

    def step(self, step: int) -> tuple[DUpdate, GUpdate]:
        """Step number `step`, counted from 0. Returns the last update of each player."""
        run, options = self.run, self.run.options
        set_factor(run.d_optimizer, "lr", run.d_schedule(step, options.steps))
        set_factor(run.g_optimizer, "lr", run.g_schedule(step, options.steps))
        if run.momentum is not None:
            for optimizer in (run.d_optimizer, run.g_optimizer):
                set_factor(optimizer, "momentum", run.momentum(step, options.steps))
        self.noise = self._noise(step)
        batch = options.pretrain_d + step * options.n_critic
        if options.update == "simultaneous":
            d, g = self.both_update(batch)
        else:
            for k in range(options.n_critic):
                d = self.d_update(batch + k)
            for _ in range(options.n_gen):
                g = self.g_update(batch)
        if self.average is not None:
            self.average.update(step)
        return d, g

    def d_update(self, batch: int) -> DUpdate:
        """One update of D, on real batch number `batch` and fresh fakes. G stays as it is, to the byte."""
        run = self.run
        real, y = self._batch(batch)
        with self._precision():
            with torch.no_grad(), frozen(self.g_counters):
                fake = self._shown(run.G(self._latents(), y))
                real = self._shown(real)
            of_real, of_fake = self._judge(real, fake, y)
        loss, terms, total = self._d_loss(batch, real, fake, y, of_real, of_fake)
        if run.augment is not None:
            run.augment.observe(of_real.logits)
        grads = gradients(total, self.d_params)
        self._move_d(grads)
        return DUpdate(loss, of_real.logits, of_fake.logits, terms, grads, self.logistic)

    def g_update(self, batch: int) -> GUpdate:
        """One update of G, on fresh latents and labels; real batch number `batch` is looked at if the loss asks for it.

        D stays as it is, to the byte.
        """
        with self._precision(), frozen(self.d_counters):
            if self.g_needs_real or self.matches_features:
                real, y = self._batch(batch)
                real = self._shown(real)
            else:
                real, y = None, self._labels()
            fake = self._shown(self.run.G(self._latents(), y))
            loss, terms, total = self._g_loss(real, fake, y)
        grads = gradients(total, self.g_params)
        self._move_g(grads)
        return GUpdate(loss, terms, grads)

    def both_update(self, batch: int) -> tuple[DUpdate, GUpdate]:
        """Both gradients at the same parameters, from the same fakes and dropout masks; then both are applied."""
        run = self.run
        real, y = self._batch(batch)
        with self._precision():
            real, fake = self._shown(real), self._shown(run.G(self._latents(), y))
            of_real, of_fake = self._judge(real, fake, y, apart=self.run.dataset.spec.is_image)
            g_loss, g_terms, g_total = self._g_loss(real, fake, y, (of_real, of_fake))
        d_loss, d_terms, d_total = self._d_loss(batch, real, fake.detach(), y, of_real, of_fake)
        if run.augment is not None:
            run.augment.observe(of_real.logits)
        d_grads = gradients(d_total, self.d_params, keep_graph=True)
        g_grads = gradients(g_total, self.g_params)
        self._move_d(d_grads)
        self._move_g(g_grads)
        d = DUpdate(d_loss, of_real.logits, of_fake.logits, d_terms, d_grads, self.logistic)
        return d, GUpdate(g_loss, g_terms, g_grads)

    def _precision(self) -> AbstractContextManager:
        """A new context each time: weights cast to bf16 under no_grad must not be reused where gradients are."""
        if self.run.options.precision == "bf16":
            return torch.autocast(self.run.device.type, torch.bfloat16)
        return nullcontext()

    def _latents(self) -> Tensor:
        return self.run.latent(self.run.options.batch_size, self.run.device)

    def _batch(self, batch: int) -> tuple[Tensor, Tensor | None]:
        """Real batch number `batch`, and where the run is conditional its labels, which the fakes are to share."""
        real, y = self.run.batches[batch]
        return real, None if self.labels is None else y

    def _labels(self) -> Tensor | None:
        """Labels (B,) as frequent as in the training data, where the run is conditional."""
        if self.labels is None:
            return None
        return self.labels[torch.randint(len(self.labels), (self.run.options.batch_size,), device=self.run.device)]

    def _noise(self, step: int) -> float:
        """The deviation of the instance noise at `step`, in the data's units: a line that falls to 0."""
        options = self.run.options
        left = 1 - step / (options.instance_noise_until or options.steps)
        return options.instance_noise * self.run.dataset.spec.std * max(left, 0.0)

    def _shown(self, x: Tensor) -> Tensor:
        """What D is shown of samples, real or fake."""
        x = x if self.run.augment is None else self.run.augment(x)
        return x + self.noise * torch.randn_like(x) if self.noise else x

    def _ask(self, x: Tensor, y: Tensor | None) -> Verdict:
        D: Any = self.run.D
        if self.classifies:
            logits, classes = D.judge(x)
            return Verdict(logits.float(), classes.float())
        return Verdict(D(x, y).float())

    def _judge(self, real: Tensor, fake: Tensor, y: Tensor | None, apart: bool = False) -> tuple[Verdict, Verdict]:
        """D's verdicts on both: in one pass where D treats samples independently, else, or if asked, each by itself.

        Apart, G's gradient does not have to pass D for real examples too: 8% of the arithmetic of a step on MNIST. Nets
        for vectors are so small that the number of operations counts, and not their size.
        """
        if apart or not self.shared_pass:
            return self._ask(real, y), self._ask(fake, y)
        logits, classes = self._ask(torch.cat([real, fake]), None if y is None else torch.cat([y, y]))
        of_real, of_fake = logits.split(len(real))
        if classes is None:
            return Verdict(of_real), Verdict(of_fake)
        real_classes, fake_classes = classes.split(len(real))
        return Verdict(of_real, real_classes), Verdict(of_fake, fake_classes)

    def _g_loss(
        self, real: Any, fake: Tensor, y: Any, verdicts: tuple[Any, Any] = (None, None)
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss, what is added to it, and what is to be descended. `verdicts`, where D has been asked already."""
        D: Any = self.run.D
        loss, condition = self.run.loss, self.run.condition
        of_real, of_fake = verdicts
        if of_fake is None and self.g_needs_real:
            of_real, of_fake = self._judge(real, fake, y)
        elif of_fake is None and (self.classifies or not self.matches_features):
            of_fake = self._ask(fake, y)
        if self.matches_features:
            with torch.no_grad():
                real_features = D.features(real, y).float()
            value = loss.g_feature_loss(D.features(fake, y).float(), real_features)
        else:
            value = loss.g_loss(of_fake.logits, of_real.logits if of_real else None)
        if condition is None or not self.classifies:
            return value, {}, value
        term = condition.g_term(of_fake.classes, y)
        return value, {"loss/g_class": term}, value + term

    def _d_loss(
        self, batch: int, real: Tensor, fake: Tensor, y: Tensor | None, of_real: Verdict, of_fake: Verdict
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss, what is added to it (penalties where update `batch` is their turn), and what is to be descended."""
        real_logits, fake_logits = of_real.logits, of_fake.logits
        loss = total = self.run.loss.d_loss(*self._labelled(real_logits, fake_logits))
        terms: dict[str, Tensor] = {}
        condition = self.run.condition
        if condition is not None and self.classifies:
            terms["loss/d_class"] = condition.d_term(of_real.classes, of_fake.classes, y)
            total = total + terms["loss/d_class"]
        for name, penalty in self.penalties.items():
            every = getattr(penalty, "every", 1)
            if batch % every:
                continue
            if hasattr(penalty, "logits_term"):
                term = penalty.logits_term(real_logits, fake_logits)
            else:
                with frozen(self.d_counters):  # D's statistics have seen this batch already
                    term = penalty.term(self.run.D, real, fake, y)
            if term is not None:
                terms[f"penalty/{name}"] = term
                total = total + every * term
        return loss, terms, total

    def _labelled(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """What D is taught to call real and fake: label noise exchanges a pair with that probability."""
        if not self.run.options.label_noise:
            return real_logits, fake_logits
        wrong = torch.rand_like(real_logits) < self.run.options.label_noise
        return torch.where(wrong, fake_logits, real_logits), torch.where(wrong, real_logits, fake_logits)

    def _move_g(self, grads: Grads) -> None:
        self.move_g(grads)
        for layer in self.g_constrained:
            layer.constrain()

    def _move_d(self, grads: Grads) -> None:
        self.move_d(grads)
        for layer in self.d_constrained:
            layer.constrain()
        for penalty in self.run.penalties.values():
            if hasattr(penalty, "project"):
                penalty.project(self.run.D)


def scalars(*updates: DUpdate | GUpdate) -> dict[str, float]:
    """The logged values of a step's updates, by TensorBoard tag. This is where the device is waited for."""
    values = {tag: value for update in updates for tag, value in update.values().items()}
    numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def norm(grads: Grads) -> Tensor:
    """The L2 norm of all gradients together."""
    return torch.stack([grad.norm() for grad in grads if grad is not None]).norm()


def set_factor(optimizer: Optimizer, key: str, factor: float) -> None:
    """Set the learning rate, or the momentum, to `factor` times the one that the optimizer was made with."""
    for group in optimizer.param_groups:
        group[key] = optimizer.defaults[key] * factor


class Average:
    """averaged <- decay * averaged + (1 - decay) * net, float buffers included.

    The decay is `ema`, and with a `rampup` at first less, so that the half-life is at most that share of the steps
    that were played: what is still bad is soon forgotten. Karras et al. 2020 (StyleGAN2-ADA), in the authors' code.
    Copied are whole-number buffers and the singular vectors of spectral norms, whose mean would be no unit vector.
    """

    def __init__(self, averaged: nn.Module, net: nn.Module, ema: float, rampup: float = 0.0) -> None:
        self.ema, self.rampup = ema, rampup
        source = net.state_dict()
        found = {to.data_ptr(): (name, to, source[name]) for name, to in averaged.state_dict().items()}
        mixed = {name: to.is_floating_point() and not name.endswith(SINGULAR_VECTORS) for name, to, _ in found.values()}
        self.to = [to for name, to, _ in found.values() if mixed[name]]  # tied weights count once
        self.source = [now for name, _, now in found.values() if mixed[name]]
        self.counters = [(to, now) for name, to, now in found.values() if not mixed[name]]

    def decay(self, step: int) -> float:
        """After step number `step`, counted from 0."""
        return min(self.ema, 0.5 ** (1 / (self.rampup * (step + 1)))) if self.rampup else self.ema

    @torch.no_grad()
    def update(self, step: int = 0) -> None:
        torch._foreach_lerp_(self.to, self.source, 1 - self.decay(step))
        for averaged, counter in self.counters:
            averaged.copy_(counter)


def counting_layers(net: nn.Module) -> list[nn.Module]:
    """The layers that change as they are used in training: batch norms' statistics, spectral norms' power iteration."""
    return [layer for layer in net.modules() if isinstance(layer, _BatchNorm | _SpectralNorm)]


def constrained_layers(net: nn.Module) -> list[Any]:
    """The layers with a method `constrain`, which brings their weights back into bounds after each update."""
    return [layer for layer in net.modules() if hasattr(layer, "constrain")]


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
