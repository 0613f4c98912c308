"""Builds a run from its config."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ganrun.checks import as_typed, fits
from ganrun.config import Config
from ganrun.data.dataset import Dataset, DataSpec, Split, check_range
from ganrun.data.without import without
from ganrun.penalty.base import lazy_rates
from ganrun.protocols import (
    Augmentation,
    Condition,
    FeatureLoss,
    Features,
    HasFeatureLoss,
    Latent,
    Loss,
    Metric,
    Penalty,
    Schedule,
    Tracker,
    Unconditional,
)
from ganrun.training import validate
from ganrun.training.batches import Batches
from ganrun.training.d_outputs import make_d_outputs
from ganrun.training.instantiate import completed, make, make_component, make_several, needs
from ganrun.training.options import TrainOptions
from ganrun.training.precision import make_scaler, set_tf32
from ganrun.training.randomness import reseed, seeded
from ganrun.training.run import Run
from ganrun.training.runtime import choose_device, memory_format, prepare_process
from ganrun.training.sampling import evaluating
from ganrun.trusted import trusting

log = logging.getLogger("ganrun")

CLASSIFIER = {"_target_": "ganrun.features.classifier.Classifier"}
SHARED_DATA_KEYS = ("root", "download", "verify")  # data sets that do not need them need not name them


def build(config: Config, options: TrainOptions | None = None) -> Run:
    """All objects of one run. Raises ValueError, with a one-sentence message, for a setting that cannot work.

    options: those of config["train"], if the caller has them already.
    """
    options = options or TrainOptions.of(config["train"])
    config = with_norm(config)
    device, seed = choose_device(options.device), config["seed"]
    dataset = load_data(config)
    prepare_process(options.threads, dataset.spec)
    set_tf32(options.precision, device)
    image_format = memory_format(options.channels_last, dataset.spec)
    loss, metrics, latent = make_loss(config), make_metrics(config, dataset, device), make_latent(config, dataset)
    condition = make_condition(config, dataset.spec)
    validate.check_labels(metrics, condition)
    reseed(device, seed, "networks")
    G = make_generator(config, dataset.spec, latent, condition, device, dataset.train)
    D = make_discriminator(config, dataset.spec, condition, device)
    y = torch.tensor([0, dataset.spec.num_classes - 1], device=device) if condition.uses_labels else None
    validate.check_shapes(G, D, latent, dataset.spec, device, y)
    validate.check_batch_size(options.batch_size, options.accumulate, dataset.spec, device, G, D)
    validate.check_features(loss, D)
    penalties, d_outputs = make_penalties(config, D, device), make_d_outputs(D, dataset.spec, y, loss.g_needs_features)
    validate.check_accumulate(options, loss, penalties, dataset.spec, G, D)
    warn_of_no_effect(options, dataset.spec)
    with seeded(device, seed, "checks"), evaluating(G):
        real, fake = G(latent(2, device), y), G(latent(2, device), y)
        validate.check_terms(penalties, condition, D, d_outputs, real, fake, y)
    dataset = dataset.to(device)
    g_optimizer = make_optimizer(config, "g_optimizer", G)
    d_optimizer = make_optimizer(config, "d_optimizer", D, max([1, *(p.every for p in penalties.values())]))
    epoch = len(dataset.train) / (options.batch_size * options.n_critic)  # in steps
    augment = make_augmentation(config, dataset.spec, device)
    return Run(
        options=options,
        seed=seed,
        device=device,
        dataset=dataset,
        batches=Batches(
            dataset.train, dataset.spec, options.batch_size, seed, device, flips(config, dataset.spec), image_format
        ),
        latent=latent,
        loss=loss,
        condition=condition,
        penalties=penalties,
        augment=augment,
        metrics=metrics,
        G=G,
        D=D,
        G_ema=copy.deepcopy(G).requires_grad_(False) if options.ema else None,
        d_outputs=d_outputs,
        new_d=partial(make_discriminator, config, dataset.spec, condition, device),
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        g_schedule=make_schedule(config, "g_schedule", epoch),
        d_schedule=make_schedule(config, "d_schedule", epoch),
        momentum=make_momentum(config, epoch, g_optimizer, d_optimizer),
        g_scaler=make_scaler(options.precision, device),
        d_scaler=make_scaler(options.precision, device),
        **make_other_schedules(config, epoch, augment, penalties, options, g_optimizer, d_optimizer),
    )


def warn_of_no_effect(options: TrainOptions, spec: DataSpec) -> None:
    if options.channels_last is True and not spec.is_image:
        log.warning("train.channels_last has no effect: these data are not images.")
    if options.metric_raw == "always" and not options.ema:
        log.warning("train.metric_raw has no effect without train.ema: metrics are those of G itself.")


def load_data(config: Config) -> Dataset:
    node = dict(config["data"])
    value_range, gcn = node.pop("value_range", None), node.pop("gcn", 0)
    num = None if needs("data", node, "num") and node.get("num") is not None else node.pop("num", None)
    held_out = None if needs("data", node, "without") else node.pop("without", None)
    if not needs("data", node, "flip"):
        node.pop("flip", None)
    shared = {key: node.pop(key) for key in SHARED_DATA_KEYS if key in node}
    if shared.get("root") == "" and needs("data", node, "root"):
        raise ValueError("data.root=: is empty; name a folder, as in data.root=photos.")
    dataset = validate.check_dataset(f"data._target_={node.get('_target_')}", make("data", node, **shared))
    if held_out is not None:
        dataset = without(dataset, validate.check_without(held_out))
    if num is not None:
        dataset = dataset.with_first(validate.check_num(num, len(dataset.train)))
    own, dataset = dataset.spec.value_range, replace(dataset, spec=scaled(dataset.spec, value_range, gcn))
    check_range(dataset)
    if own not in (None, dataset.spec.value_range) and dataset.train.x.is_floating_point():
        message = "data.value_range and data.gcn do not change float32 images; data.value_range=[%g,%g] is their range."
        log.warning(message, *own)
    return dataset


def scaled(spec: DataSpec, value_range: Any, gcn: Any) -> DataSpec:
    """`spec` for pixels scaled to `value_range`, or contrast-normalized to norm `gcn`. Raises ValueError."""
    if value_range is not None and not fits(value_range, tuple[float, float]):
        raise ValueError(f"data.value_range={value_range}: must be two numbers, as in [0,1].")
    if not fits(gcn, float):
        raise ValueError(f"data.gcn={as_typed(gcn)}: must be a number, as in 55; 0 is off.")
    if not spec.is_image and value_range not in (None, [-1, 1]):
        log.warning("data.value_range has no effect: these data are not images.")
    spec = spec if value_range is None else spec.scaled_to(value_range)
    return spec.normalized(gcn) if gcn else spec


def flips(config: Config, spec: DataSpec) -> bool:
    """Whether batches of real images are mirrored at random (data.flip). Raises ValueError."""
    flip: object = config["data"].get("flip", False)
    if needs("data", config["data"], "flip"):  # a parameter of the data set itself
        return False
    if not isinstance(flip, bool):
        raise ValueError(f"data.flip={as_typed(flip)}: must be true or false.")
    if flip and not spec.is_image:
        log.warning("data.flip has no effect: these data are not images.")
    return flip and spec.is_image


def make_loss(config: Config) -> Loss:
    component = make("loss", config["loss"])
    loss = completed("loss", component, FeatureLoss if isinstance(component, HasFeatureLoss) else Loss)
    validate.check_loss(loss)
    return loss


def make_metrics(
    config: Config, dataset: Dataset | None = None, device: torch.device | str = "cpu"
) -> dict[str, Metric]:
    """The metrics, by name. dataset: to check that they are defined for it, and declare valid keys."""
    nodes: Config = config.get("metric") or {}
    metrics = make_several("metric", config, Metric, **make_features(config, device, nodes))
    if dataset is not None:
        for name, metric in metrics.items():
            metric.check(dataset)
            validate.check_metric_keys(name, metric, dataset.spec)
    return metrics


def make_features(config: Config, device: torch.device | str, metrics: Config) -> dict[str, Features]:
    """The networks that these metrics take: `features`, by default the `classifier` of the run's data."""
    nodes = [
        (f"metric.{name}", node) for name, node in metrics.items() if isinstance(node, dict) and "_target_" in node
    ]
    if not any(needs(key, node, fact) for key, node in nodes for fact in ("features", "classifier")):
        return {}
    data_name = str(config["data"].get("_target_", "")).rpartition(".")[2].replace("_", "")
    facts = {"data_name": data_name, "device": device}
    features = make_component("features", config.get("features") or CLASSIFIER, Features, **facts)
    if features.dim < 1:
        raise ValueError("features: declares no dim, the number of its features (ganrun.protocols.Features).")
    classifier = features if features.classifies else make_component("features", CLASSIFIER, Features, **facts)
    return {"features": features, "classifier": classifier}


def make_trackers(nodes: Config | None) -> dict[str, Tracker]:
    """The trackers of a config's section `tracker`, by name. Raises ValueError, as for one that is not installed."""
    with trusting(["ganrun.tracker"]):  # here only: no other section of a config may name them
        return make_several("tracker", {"tracker": nodes}, Tracker)


def make_latent(config: Config, dataset: Dataset | None = None) -> Latent:
    """dataset: for latents drawn from the data; None: it is loaded if it is needed."""
    node, facts = config["latent"], {"dim": z_dim_of(config)}
    if dataset is None and needs("latent", node, "dataset"):
        dataset = load_data(config)
    return make_component("latent", node, Latent, dataset=dataset, **facts)


def z_dim_of(config: Config) -> int:
    z_dim: object = config["arch"].get("z_dim", 100)
    if not isinstance(z_dim, int) or not fits(z_dim, int) or z_dim < 1:
        raise ValueError(f"arch.z_dim={as_typed(z_dim)}: must be a whole number of at least 1.")
    return z_dim


def make_condition(config: Config, spec: DataSpec) -> Condition:
    if not config.get("condition"):
        return Unconditional()
    condition = make_component("condition", config["condition"], Condition)
    condition.check(spec)
    return condition


def make_generator(
    config: Config,
    spec: DataSpec,
    latent: Latent,
    condition: Condition,
    device: torch.device,
    examples: Split | None = None,
) -> nn.Module:
    """examples: the training split; None if weights are loaded afterwards."""
    facts = {"spec": spec, "z_dim": latent.dim, "examples": examples}
    G = make_net("arch.generator", config, condition, condition.label_dims(spec)[0], **facts)
    return on_device(condition.complete_generator(G, spec), config, spec, device)


def make_discriminator(config: Config, spec: DataSpec, condition: Condition, device: torch.device) -> nn.Module:
    D = make_net("arch.discriminator", config, condition, condition.label_dims(spec)[1], spec=spec)
    return on_device(condition.complete_discriminator(D, spec), config, spec, device)


def make_net(key: str, config: Config, condition: Condition, label_dim: int, **facts: Any) -> nn.Module:
    node = config["arch"][key.rpartition(".")[2]]
    labels = {"label_dim": label_dim, "num_classes": label_dim} if condition.uses_labels else {}
    net = make(key, node, **facts, **labels)
    return validate.check_net(key, node["_target_"], net)


def on_device(net: nn.Module, config: Config, spec: DataSpec, device: torch.device) -> nn.Module:
    return net.to(device).to(memory_format=memory_format(config["train"]["channels_last"], spec))


def make_penalties(config: Config, D: nn.Module, device: torch.device) -> dict[str, Penalty]:
    penalties = make_several("penalty", config, Penalty)
    for penalty in penalties.values():
        penalty.check(D)
        if isinstance(penalty, nn.Module):
            penalty.to(device)
    return penalties


def with_norm(config: Config) -> Config:
    """The config with arch.discriminator.norm=auto replaced.

    It is none if a penalty takes gradients of D, or with spectral normalization, as in Miyato et al. 2018, else batch.
    """
    if not has_automatic_norm(config):
        return config
    D = config["arch"]["discriminator"]
    norm = "none" if reason_for_no_norm(config) else "batch"
    return {**config, "arch": {**config["arch"], "discriminator": {**D, "norm": norm}}}


def reason_for_no_norm(config: Config) -> str:
    if penalties := per_sample_penalties(config):
        return f"since penalty={','.join(penalties)} excludes batch norm"
    return "as usual with spectral_norm=true" if config["arch"]["discriminator"].get("spectral_norm") else ""


def has_automatic_norm(config: Config) -> bool:
    D = config["arch"].get("discriminator")
    return isinstance(D, dict) and D.get("norm") == "auto"


def per_sample_penalties(config: Config) -> list[str]:
    """The names of the penalties that are not defined for a D with batch normalization."""
    penalties = make_several("penalty", config, Penalty)
    return [name for name, p in penalties.items() if p.bounds_gradient or p.needs_independent_samples]


def make_augmentation(config: Config, spec: DataSpec, device: torch.device) -> Augmentation:
    if not config.get("augment"):
        return Augmentation()
    augment = make_component("augment", config["augment"], Augmentation)
    augment.check(spec)
    if isinstance(augment, nn.Module):
        augment.to(device)
    return augment


def make_optimizer(config: Config, key: str, net: nn.Module, every: int = 1) -> Optimizer:
    """The player's own optimizer if one is chosen, else one with the shared settings.

    every: the largest interval of a lazy penalty, for which learning rate and betas are rescaled (`lazy_rates`).
    """
    key, node = (key, config[key]) if config.get(key) else ("optimizer", config["optimizer"])
    if isinstance(node.get("betas"), list) and all(fits(beta, float) for beta in node["betas"]):
        node = node | {"betas": [float(beta) for beta in node["betas"]]}  # torch accepts no [0, 0.9]
    if every > 1:
        if "lr" not in node:
            raise ValueError(f"{key}.lr: must be given, since a lazy penalty changes it.")
        lr, betas = lazy_rates(node["lr"], node.get("betas"), every)
        node = node | {"lr": lr} | ({"betas": list(betas)} if betas else {})
    optimizer: Optimizer = make(key, node, params=[p for p in net.parameters() if p.requires_grad])
    return optimizer


def make_schedule(config: Config, key: str, steps_per_epoch: float) -> Schedule:
    """The player's own learning rate schedule if one is chosen, else the shared one."""
    schedule: Schedule = make("schedule", config.get(key) or config["schedule"], steps_per_epoch=steps_per_epoch)
    return schedule


def make_momentum(config: Config, steps_per_epoch: float, *optimizers: Optimizer) -> Schedule | None:
    """The momentum schedule of both optimizers; None: the momentum is constant."""
    if not config.get("momentum"):
        return None
    validate.check_momentum(optimizers)
    schedule: Schedule = make("momentum", config["momentum"], steps_per_epoch=steps_per_epoch)
    return schedule


def make_other_schedules(
    config: Config,
    steps_per_epoch: float,
    augment: Augmentation,
    penalties: Mapping[str, Penalty],
    options: TrainOptions,
    *optimizers: Optimizer,
) -> dict[str, Schedule]:
    """The schedules that are chosen of beta2, penalties, G_ema and augmentation, by their names in `Run`."""
    names = ("beta2_schedule", "penalty_schedule", "ema_schedule", "augment_schedule")
    chosen = {key: make(key, config[key], steps_per_epoch=steps_per_epoch) for key in names if config.get(key)}
    if "beta2_schedule" in chosen and not all("betas" in optimizer.defaults for optimizer in optimizers):
        raise ValueError("beta2_schedule: needs optimizers with betas, such as optimizer=adam.")
    if "penalty_schedule" in chosen and not penalties:
        raise ValueError("penalty_schedule: there is no penalty; choose one, as in penalty=r1.")
    if "ema_schedule" in chosen and not options.ema:
        raise ValueError("ema_schedule: has no effect without train.ema; add train.ema=0.999.")
    if "augment_schedule" in chosen:
        augment.scale(1.0)  # raises ValueError if it has no strength
    return chosen
