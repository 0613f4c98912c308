"""Checks before training. They raise ValueError for components that do not work together."""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ganrun.checks import as_typed, fits
from ganrun.data.dataset import Dataset, DataSpec, check_finite
from ganrun.network_protocols import HasFeatures, HasOutputRange, MixesSamples
from ganrun.protocols import Condition, DOutput, Latent, Loss, Metric, MetricKey, Penalty
from ganrun.training.options import TrainOptions
from ganrun.training.runtime import memory_of
from ganrun.training.sampling import evaluating

log = logging.getLogger("ganrun")

MAX_LISTED = 20  # classes in one message


def check_dataset(key: str, dataset: object) -> Dataset:
    """`dataset`, if it is one with finite values. Warns of classes without a training example."""
    if not isinstance(dataset, Dataset):
        raise ValueError(f"{key}: does not return a ganrun.data.dataset.Dataset.")
    check_finite(dataset)
    if dataset.train.y is not None and dataset.spec.classes:
        present = set(dataset.train.y.unique().tolist())
        if absent := [name for label, name in enumerate(dataset.spec.classes) if label not in present]:
            more = f" and {len(absent) - MAX_LISTED} more" if len(absent) > MAX_LISTED else ""
            log.warning("data: the training examples have none of class %s%s.", ", ".join(absent[:MAX_LISTED]), more)
    return dataset


def check_num(num: object, most: int) -> int:
    """data.num, if it is a number of training examples that there are."""
    if not isinstance(num, int) or not fits(num, int) or not 1 <= num <= most:
        raise ValueError(f"data.num={as_typed(num)}: must be 1 to {most}, the number of training examples, or null.")
    return num


def check_without(names: object) -> list[int | str]:
    """data.without, as a list of names and numbers of classes."""
    if fits(names, list[int | str]) and isinstance(names, list):
        return names
    if isinstance(names, int | str) and fits(names, int | str):
        return [names]
    raise ValueError(
        f"data.without={as_typed(names)}: must be a list of classes, by name or number, as in [3], or null."
    )


def check_loss(loss: Loss) -> None:
    """Call both players' losses with two logits each, and check the results."""
    logits, features = torch.zeros(2, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    other = DOutput(torch.ones(2, requires_grad=True), features=torch.ones(2, 3, requires_grad=True))
    output = DOutput(logits, features=features)
    if loss.g_needs_features:
        g_name = "g_feature_loss(fake_features, real_features)"
    else:
        g_name = "g_loss(fake_logits, real_logits)"
    _check_scalar("loss", "d_loss(real_logits, fake_logits)", lambda: loss.d_loss(output.logits, other.logits))
    _check_scalar("loss", g_name, lambda: loss.g_objective(output, other))


def _check_scalar(key: str, name: str, compute: Callable[[], object], optional: bool = False) -> None:
    """optional: whether None is allowed."""
    try:
        value = compute()
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{key}: its {name} does not work ({reason}).") from error
    if optional and value is None:
        return
    if not (isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad):
        end = "the outputs of D, or None" if optional else "the logits"
        raise ValueError(f"{key}: its {name.partition('(')[0]} must return a scalar tensor that depends on {end}.")


def check_terms(
    penalties: Mapping[str, Penalty],
    condition: Condition,
    D: nn.Module,
    d_outputs: Callable[[Tensor, Tensor | None], DOutput],
    real: Tensor,
    fake: Tensor,
    y: Tensor | None,
) -> None:
    """Compute the terms added to the losses for two real and two fake samples, and check them, without changing D."""
    with evaluating(D), torch.enable_grad():
        real_out, fake_out = d_outputs(real, y), d_outputs(fake, y)
        for name, penalty in penalties.items():
            check_penalty(f"penalty.{name}", penalty, D, (real, fake), (real_out.logits, fake_out.logits), y)
        _check_scalar("condition", "d_term(real, fake, y)", lambda: condition.d_term(real_out, fake_out, y), True)
        _check_scalar("condition", "g_term(fake, y)", lambda: condition.g_term(fake_out, y), True)


def check_penalty(
    key: str,
    penalty: Penalty,
    D: nn.Module,
    samples: tuple[Tensor, Tensor],
    logits: tuple[Tensor, Tensor],
    y: Tensor | None,
) -> None:
    every: object = penalty.every
    if not isinstance(every, int) or not fits(every, int) or every < 1:
        raise ValueError(f"{key}.every={as_typed(every)}: must be a whole number of at least 1.")
    if not penalty.has_term:
        return
    kind = type(penalty)
    of_logits = kind.logits_term is not Penalty.logits_term
    if not of_logits and kind.term is Penalty.term and kind.project is Penalty.project:
        raise ValueError(f"{key}: has none of the methods term, logits_term and project (ganrun.protocols.Penalty).")
    if isinstance(penalty, nn.Module):
        penalty = copy.deepcopy(penalty)  # its state must not change
    if of_logits:
        _check_scalar(key, "logits_term(real_logits, fake_logits)", lambda: penalty.logits_term(*logits), True)
    else:
        _check_scalar(key, "term(D, real, fake, y)", lambda: penalty.term(D, *samples, y), True)


def check_metric_keys(name: str, metric: Metric, spec: DataSpec) -> None:
    keys: object = metric.keys(spec, True)
    if not isinstance(keys, Mapping) or not all(isinstance(key, MetricKey) for key in keys.values()):
        raise ValueError(f"metric.{name}: its method keys must return a ganrun.protocols.MetricKey for each key.")


def check_labels(metrics: Mapping[str, Metric], condition: Condition) -> None:
    for name, metric in metrics.items():
        if metric.labels == "required" and not condition.uses_labels:
            raise ValueError(f"metric={name}: needs a conditional run, as with condition=projection; use metric=none.")


def check_features(loss: Loss, D: nn.Module) -> None:
    if loss.g_needs_features and not isinstance(D, HasFeatures):
        raise ValueError("loss: needs features, but this arch's discriminator has no method `features`.")


def check_net(key: str, target: str, net: object) -> nn.Module:
    if not isinstance(net, nn.Module):
        raise ValueError(f"{key}._target_={target}: does not return a torch.nn.Module.")
    return net


def check_shapes(
    G: nn.Module, D: nn.Module, latent: Latent, spec: DataSpec, device: torch.device, y: Tensor | None
) -> None:
    """Compare the outputs of both networks for two samples with the data, in eval mode so that nothing changes.

    y: their labels (2,) in a conditional run.
    """
    for name, net in (("generator", G), ("discriminator", D)):
        if not any(p.requires_grad for p in net.parameters()):
            raise ValueError(f"arch.{name}: has no trainable parameter.")
    with evaluating(G), evaluating(D):
        fake = _call("generator", G, latent(2, device), y)
        if fake.shape != (2, *spec.shape):
            raise ValueError(
                f"arch.generator: makes samples of shape {tuple(fake.shape[1:])}, but the data have {spec.shape}; "
                "choose an arch that fits, such as arch=mlp, which fits any shape."
            )
        _check_range(G, fake, spec)
        logits = _call("discriminator", D, fake, y)
        if logits.shape != (2,):
            raise ValueError(f"arch.discriminator: returns shape {tuple(logits.shape)} for 2 samples; it must be (2,).")


def _check_range(G: nn.Module, fake: Tensor, spec: DataSpec) -> None:
    if spec.value_range is None:
        return
    declared = G.output_range if isinstance(G, HasOutputRange) else None
    if declared and tuple(declared) != tuple(spec.value_range):
        raise ValueError(f"arch.generator: makes values in {tuple(declared)}, but the data lie in {spec.value_range}.")
    if not (spec.value_range[0] <= fake.min() and fake.max() <= spec.value_range[1]):
        raise ValueError(
            f"arch.generator: makes values from {fake.min():.3g} to {fake.max():.3g}, but the data lie in "
            f"{spec.value_range}; end it with a bounded function such as tanh."
        )


def _call(player: str, net: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    try:
        found: object = net(x, y)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"arch.{player}: cannot take input of shape {tuple(x.shape)} ({error}).") from error
    if not isinstance(found, Tensor):
        what = "samples" if player == "generator" else "logits"
        raise ValueError(f"arch.{player}: returns a {type(found).__name__}; it must return {what} as one tensor.")
    return found


def check_accumulate(
    options: TrainOptions, loss: Loss, penalties: Mapping[str, Penalty], spec: DataSpec, G: nn.Module, D: nn.Module
) -> None:
    """Raise ValueError if the mean over parts of a batch is not the loss of the batch. Warns of batch normalization."""
    num = options.accumulate
    if num == 1:
        return
    inexact = [f"penalty={name}" for name, penalty in penalties.items() if penalty.uses_batch_statistics(spec)]
    inexact += [] if is_mean(loss) else [f"this loss ({type(loss).__name__})"]
    for player, net in (("generator", G), ("discriminator", D)):
        mixing = [type(layer).__name__ for layer in net.modules() if isinstance(layer, MixesSamples)
                  and layer.mixes_samples]  # fmt: skip
        inexact += [f"the layer {name} of the {player}" for name in mixing[-1:]]
    if inexact:
        raise ValueError(
            f"train.accumulate={num}: {inexact[0]} depends on a batch as a whole, so parts of it have another loss; "
            "use train.accumulate=1, or an option that is a mean over the examples."
        )
    with_norm = [name for name, net in (("G", G), ("D", D)) if any(isinstance(m, _BatchNorm) for m in net.modules())]
    if with_norm:
        log.warning(
            "train.accumulate=%d: batch normalization in %s uses the statistics of each part of %d examples, so the "
            "gradients are not those of a batch of %d.",
            num, " and ".join(with_norm), options.batch_size // num, options.batch_size,
        )  # fmt: skip


def is_mean(loss: Loss) -> bool:
    """Whether both players' losses of a batch are the means of those of its halves."""
    source = torch.Generator().manual_seed(0)
    real, fake = (
        DOutput(torch.randn(8, generator=source), features=torch.randn(8, 3, generator=source)) for _ in range(2)
    )
    halves = list(zip(real.halves(), fake.halves(), strict=True))
    d_losses = [loss.d_loss(r.logits, f.logits) for r, f in [(real, fake), *halves]]
    g_losses = [loss.g_objective(f, r) for r, f in [(real, fake), *halves]]
    return all(
        torch.allclose(whole, (first + second) / 2, rtol=1e-4, atol=1e-6)
        for whole, first, second in (d_losses, g_losses)
    )


def check_batch_size(batch_size: int, parts: int, spec: DataSpec, device: torch.device, *nets: nn.Module) -> None:
    needed, memory = 2 * 4 * spec.numel * batch_size / 1e9, memory_of(device) / 1e9
    if needed > memory:
        raise ValueError(
            f"train.batch_size={batch_size}: is too large, as its real and generated examples take {needed:,.0f} GB, "
            f"and this machine has {memory:,.0f} GB; most GANs use 64 to 2048."
        )
    if batch_size == parts and any(isinstance(layer, nn.BatchNorm1d) for net in nets for layer in net.modules()):
        raise ValueError(
            f"train.batch_size={batch_size}: is too small for this arch's batch normalization"
            f"{f' in {parts} parts' if parts > 1 else ''}; use {2 * parts} or more."
        )


def check_momentum(optimizers: Iterable[Optimizer]) -> None:
    for optimizer in optimizers:
        if not optimizer.defaults.get("momentum"):
            raise ValueError(
                f"momentum: this optimizer ({type(optimizer).__name__}) has no momentum for a schedule to change; "
                "use optimizer=momentum, or schedule@momentum=null."
            )
