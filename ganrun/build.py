"""A config, as plain dictionaries, becomes objects. The only module that knows `_target_`."""

import copy
import inspect
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import Tensor, nn
from torch.optim import Optimizer

from ganrun.checks import check_arguments, fits, shown
from ganrun.data.dataset import Batches, Dataset, DataSpec, Split
from ganrun.eager import spare_compiler
from ganrun.names import Config
from ganrun.options import TrainOptions
from ganrun.penalty import lazy_rates
from ganrun.randomness import reseed
from ganrun.run import Latent, Run, Schedule

log = logging.getLogger("ganrun")

SIGNATURES = {
    "d_loss": "real_logits, fake_logits",
    "g_loss": "fake_logits, real_logits",
    "g_feature_loss": "fake_features, real_features",
}
HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
SHARED_DATA_KEYS = ("root", "download", "verify")  # data sets that need none of them do not have to name them


def build(config: Config) -> Run:
    """Everything that one run needs. Raises ValueError, in one sentence, for a setting that cannot work."""
    options = TrainOptions.of(config["train"])
    device = choose_device(options.device)
    seed = config["seed"]
    dataset = load_data(config)
    set_threads(options.threads, dataset.spec)
    make_deterministic()
    spare_compiler()
    loss, metrics = make("loss", config["loss"]), make_all("metric", config.get("metric"))
    check_loss(loss)
    for metric in metrics.values():
        metric.check(dataset)
    latent = make("latent", config["latent"], dataset=dataset, dim=z_dim_of(config))
    condition = make_condition(config.get("condition"), dataset)
    reseed(device, seed, "networks")
    G = make_generator(config, dataset.spec, latent, condition, device, dataset.train)
    D = make_discriminator(config, dataset.spec, condition, device)
    check_fit(G, D, latent, dataset.spec, device, conditional=condition is not None)
    check_batch_size(options.batch_size, G, D)
    if hasattr(loss, "g_feature_loss") and not hasattr(D, "features"):
        raise ValueError("loss: matches features, but this arch's discriminator has no method `features`.")
    penalties = make_penalties(config.get("penalty"), D, device)
    dataset = dataset.to(device)
    epoch = len(dataset.train) / (options.batch_size * options.n_critic)  # in steps
    g_optimizer = make_optimizer(config, "g_optimizer", G)
    d_optimizer = make_optimizer(config, "d_optimizer", D, every=rarest(penalties))
    return Run(
        options=options,
        seed=seed,
        device=device,
        dataset=dataset,
        batches=Batches(dataset.train, dataset.spec, options.batch_size, seed, device),
        latent=latent,
        loss=loss,
        condition=condition,
        penalties=penalties,
        augment=make_augment(config.get("augment"), dataset.spec, device),
        metrics=metrics,
        G=G,
        D=D,
        averaged=copy.deepcopy(G).requires_grad_(False) if options.ema else None,
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        g_schedule=make("schedule", config.get("g_schedule") or config["schedule"], steps_per_epoch=epoch),
        d_schedule=make("schedule", config.get("d_schedule") or config["schedule"], steps_per_epoch=epoch),
        momentum=make_momentum(config.get("momentum"), epoch, g_optimizer, d_optimizer),
    )


def build_generator(config: Config, spec: DataSpec, device: torch.device) -> tuple[nn.Module, Latent]:
    """The generator of a finished run, untrained, and its latent source; the data is loaded only if that needs it."""
    needs_data = "dataset" in inspect.signature(get_object(config["latent"]["_target_"])).parameters
    facts = {"dataset": load_data(config)} if needs_data else {}
    latent = make("latent", config["latent"], dim=z_dim_of(config), **facts)
    condition = make("condition", config["condition"]) if config.get("condition") else None
    return make_generator(config, spec, latent, condition, device), latent


def load_data(config: Config) -> Dataset:
    node = dict(config["data"])
    value_range, gcn = node.pop("value_range", None), node.pop("gcn", 0)
    shared = {key: node.pop(key) for key in SHARED_DATA_KEYS if key in node}
    dataset = make("data", node, **shared)
    if not isinstance(dataset, Dataset):
        raise ValueError(f"data._target_={node['_target_']}: gives no ganrun.data.dataset.Dataset.")
    if dataset.train.x.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"data: holds {dataset.train.x.dtype}; examples are torch.uint8 or torch.float32.")
    return replace(dataset, spec=seen(dataset.spec, value_range, gcn))


def seen(spec: DataSpec, value_range: Any, gcn: Any) -> DataSpec:
    """The facts of the data as D is to see them: pixels scaled to `value_range`, or normalized to norm `gcn`."""
    if value_range is not None and not fits(value_range, tuple[float, float]):
        raise ValueError(f"data.value_range={value_range}: must be two numbers, as in [0,1].")
    if not fits(gcn, float):
        raise ValueError(f"data.gcn={shown(gcn)}: must be a number, as in 55; 0 is off.")
    if not spec.is_image and value_range not in (None, [-1, 1]):
        log.warning("data.value_range has no effect: these data are no images.")
    spec = spec if value_range is None else spec.seen_in(value_range)
    return spec.normalized(gcn) if gcn else spec


def z_dim_of(config: Config) -> int:
    z_dim = config["arch"].get("z_dim", 100)
    if not fits(z_dim, int) or z_dim < 1:
        raise ValueError(f"arch.z_dim={z_dim}: must be a whole number of at least 1.")
    return z_dim


def make_condition(node: Config | None, dataset: Dataset) -> Any | None:
    """None where the node is empty: labels are then not looked at."""
    if not node:
        return None
    condition = make("condition", node)
    condition.check(dataset.spec)
    return condition


def make_generator(
    config: Config,
    spec: DataSpec,
    latent: Any,
    condition: Any | None,
    device: torch.device,
    examples: Split | None = None,
) -> nn.Module:
    """examples: to train on; None where weights are loaded afterwards."""
    facts = {"spec": spec, "z_dim": latent.dim, "examples": examples}
    facts |= {"label_dim": condition.label_dims(spec)[0]} if condition else {}
    node = {key: value for key, value in config["arch"]["generator"].items() if key != "grow_from"}
    G = make_net("arch.generator", node, **facts)
    return placed(condition.complete_generator(G, spec) if condition else G, spec, device)


def make_discriminator(config: Config, spec: DataSpec, condition: Any | None, device: torch.device) -> nn.Module:
    labels = {"label_dim": condition.label_dims(spec)[1]} if condition else {}
    D = make_net("arch.discriminator", config["arch"]["discriminator"], spec=spec, **labels)
    return placed(condition.complete_discriminator(D, spec) if condition else D, spec, device)


def make_net(key: str, node: Config, **facts: Any) -> nn.Module:
    net = make(key, node, **facts)
    if not isinstance(net, nn.Module):
        raise ValueError(f"{key}._target_={node['_target_']}: gives no torch.nn.Module.")
    return net


def placed(net: nn.Module, spec: DataSpec, device: torch.device) -> nn.Module:
    return net.to(device).to(memory_format=torch.channels_last if spec.is_image else torch.contiguous_format)


def make_penalties(nodes: Config | None, D: nn.Module, device: torch.device) -> dict[str, Any]:
    penalties = make_all("penalty", nodes)
    for penalty in penalties.values():
        if hasattr(penalty, "check"):
            penalty.check(D)
        if isinstance(penalty, nn.Module):
            penalty.to(device)
    return penalties


def rarest(penalties: dict[str, Any]) -> int:
    """Updates of D between applications of the laziest penalty."""
    return max((getattr(penalty, "every", 1) for penalty in penalties.values()), default=1)


def make_augment(node: Config | None, spec: DataSpec, device: torch.device) -> Any | None:
    """None where the node is empty: off costs nothing."""
    if not node:
        return None
    augment = make("augment", node)
    augment.check(spec)
    return augment.to(device)


def make_optimizer(config: Config, key: str, net: nn.Module, every: int = 1) -> Optimizer:
    """The player's own optimizer where one is chosen, else the shared one; its rates rescaled for lazy penalties."""
    key, node = (key, config[key]) if config.get(key) else ("optimizer", config["optimizer"])
    if every > 1:
        lr, betas = lazy_rates(node["lr"], node.get("betas"), every)
        node = node | {"lr": lr} | ({"betas": list(betas)} if betas else {})
    return make(key, node, params=[p for p in net.parameters() if p.requires_grad])


def make_momentum(node: Config | None, steps_per_epoch: float, *optimizers: Optimizer) -> Schedule | None:
    """The schedule of both optimizers' momentum; None where the node is empty: it stays as it is."""
    if not node:
        return None
    for optimizer in optimizers:
        if not optimizer.defaults.get("momentum"):
            raise ValueError(
                f"momentum: this optimizer ({type(optimizer).__name__}) has none that could follow a schedule; "
                "use optimizer=momentum, or schedule@momentum=null."
            )
    return make("momentum", node, steps_per_epoch=steps_per_epoch)


def make_all(key: str, nodes: Config | None) -> dict[str, Any]:
    return {name: make(f"{key}.{name}", node) for name, node in (nodes or {}).items()}


def make(key: str, node: Config, **facts: Any) -> Any:
    """The object that `node` describes. It is given those of the `facts` that its signature names.

    Raises ValueError, worded with `key`, where the target cannot be found, or its arguments do not fit.
    """
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise ValueError(f"{key}: has no _target_, which names the class or function to use.")
    target = find(key, node["_target_"])
    given = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
    check_arguments(key, target, given)
    parameters = inspect.signature(target).parameters
    facts = {name: value for name, value in facts.items() if name in parameters and name not in given}
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in given
        and p.name not in facts
    ]
    if missing:
        raise ValueError(f"{key}.{missing[0]}: {node['_target_']} needs it; add +{key}.{missing[0]}=VALUE.")
    try:
        partial: Callable[..., Any] = instantiate(node, _partial_=True, _convert_="all")
        return partial(**facts)
    except (ValueError, TypeError, RuntimeError, IndexError, InstantiationException) as error:
        raise ValueError(about(key, given, str(error).strip().splitlines()[0])) from error


def about(key: str, given: Config, message: str) -> str:
    """The message of a part, with the key under which the user set what it is about.

    >>> about("schedule", {"every": 0}, "every=0: must be at least 1.")
    'schedule.every=0: must be at least 1.'
    """
    if message.startswith(f"{key.partition('.')[0]}.") or message.startswith(f"{key}:"):
        return message
    return f"{key}.{message}" if message.partition("=")[0] in given else f"{key}: {message}"


def find(key: str, target: str) -> Callable[..., Any]:
    try:
        found = get_object(target)
    except (ImportError, AttributeError, InstantiationException, ValueError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(
            f"{key}._target_={target}: cannot be imported ({reason}). "
            "Modules are looked for among the installed ones and in the folder where ganrun is started."
        ) from error
    if not callable(found):
        raise ValueError(f"{key}._target_={target}: is not a class or a function.")
    return found


def choose_device(name: str, key: str = "train.device") -> torch.device:
    """The device of that name; auto is CUDA, then MPS, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"{key}={name}: not available here; use auto, or cpu.") from error
    if device.type not in ("cuda", "mps", "cpu"):
        raise ValueError(f"{key}={name}: must be auto, cuda, mps or cpu.")
    return device


def set_threads(threads: int, spec: DataSpec) -> None:
    """As many as asked for; 0: one for vectors, whose operations are too small to share, all for images."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or (every if spec.is_image else 1))


def make_deterministic() -> None:
    """Ask CUDA for the same bits every time; the CPU gives them anyway."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


@torch.no_grad()
def check_fit(
    G: nn.Module, D: nn.Module, latent: Latent, spec: DataSpec, device: torch.device, conditional: bool = False
) -> None:
    """Play two samples through both networks, in eval mode so that nothing changes, and compare with the data."""
    for name, net in (("generator", G), ("discriminator", D)):
        if not any(p.requires_grad for p in net.parameters()):
            raise ValueError(f"arch.{name}: has no parameter to train.")
        net.eval()
    y = torch.tensor([0, spec.num_classes - 1], device=device) if conditional else None
    try:
        fake = _call("generator", G, latent(2, device), y)
        if not isinstance(fake, Tensor):
            raise ValueError(f"arch.generator: gives a {type(fake).__name__}; samples as one tensor are needed.")
        if fake.shape != (2, *spec.shape):
            raise ValueError(
                f"arch.generator: makes samples of shape {tuple(fake.shape[1:])}, but the data has {spec.shape}; "
                "choose an arch that fits, as arch=mlp does for any shape."
            )
        made = getattr(G, "output_range", None)
        if made and spec.value_range and tuple(made) != tuple(spec.value_range):
            raise ValueError(f"arch.generator: makes values in {tuple(made)}, but the data lies in {spec.value_range}.")
        if spec.value_range and not (spec.value_range[0] <= fake.min() and fake.max() <= spec.value_range[1]):
            raise ValueError(
                f"arch.generator: makes values from {fake.min():.3g} to {fake.max():.3g}, but the data lies in "
                f"{spec.value_range}; end it in a bounded function such as tanh."
            )
        logits = _call("discriminator", D, fake, y)
        if not isinstance(logits, Tensor):
            raise ValueError(f"arch.discriminator: gives a {type(logits).__name__}; logits as one tensor are needed.")
        if logits.shape != (2,):
            raise ValueError(
                f"arch.discriminator: gives {tuple(logits.shape)} for 2 samples; logits of shape (2,) are needed."
            )
    finally:
        G.train()
        D.train()


def check_loss(loss: Any) -> None:
    """Ask for both players' losses of two logits each, and look at what comes back."""
    g_loss = "g_feature_loss" if hasattr(loss, "g_feature_loss") else "g_loss"
    for name in ("d_loss", g_loss):
        shape = (2, 3) if name == "g_feature_loss" else (2,)
        arguments = torch.zeros(shape, requires_grad=True), torch.ones(shape, requires_grad=True)
        try:
            value = getattr(loss, name)(*arguments)
        except (AttributeError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"loss: its {name}({SIGNATURES[name]}) does not work ({error}).") from error
        if not (isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad):
            raise ValueError(f"loss: its {name} has to return a scalar tensor that depends on the logits.")


def check_batch_size(batch_size: int, *nets: nn.Module) -> None:
    if batch_size == 1 and any(isinstance(layer, nn.BatchNorm1d) for net in nets for layer in net.modules()):
        raise ValueError("train.batch_size=1: has no variance for this arch's batch normalization; use 2 or more.")


def _call(name: str, net: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    try:
        return net(x, y)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"arch.{name}: cannot take input of shape {tuple(x.shape)} ({error}).") from error
