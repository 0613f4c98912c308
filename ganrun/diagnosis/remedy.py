"""What to try against a finding: the run's own command, with something changed."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ganrun.config import Config
from ganrun.protocols import Loss, Penalty

Changes = dict[str, Any]

MORE_D: Changes = {"train.n_critic": 5, "train.update": "alternating"}


def command(overrides: Sequence[str], changes: Changes) -> str:
    """The command line of the run with other settings, and a new run directory.

    >>> command(["loss=minimax", "loss.real_label=0.9", "run_dir=r"], {"loss": "nonsaturating"})
    'ganrun loss=nonsaturating'
    """
    kept = [o for o in overrides if not any(is_about(o, key) for key in ("run_dir", *changes))]
    return shlex.join(["ganrun", *kept, *(f"{key}={value}" for key, value in changes.items())])


def is_about(override: str, key: str) -> bool:
    name = override.lstrip("+~").partition("=")[0]
    return name == key or name.startswith((f"{key}.", f"{key}@"))


@dataclass(frozen=True)
class Setup:
    """What a run was trained with, as far as a remedy depends on it."""

    config: Config
    loss: Loss
    penalties: Sequence[Penalty]
    is_image: bool

    @property
    def bounds_gradient(self) -> bool:
        """Whether a penalty bounds the gradient of D."""
        return any(penalty.bounds_gradient and penalty.has_term for penalty in self.penalties)


def remedy(finding: str, setup: Setup) -> Changes:
    """Settings to change against a finding."""
    config, train = setup.config, setup.config["train"]
    if rates := zero_rates(config):
        return rates
    if finding == "divergence":
        return smooth_d(config) if setup.loss.needs_lipschitz_d and not setup.penalties else slower(config)
    if finding == "memorization":
        augmentable = setup.is_image and not config.get("augment")
        return {"augment": "diffaugment"} if augmentable else {"train.steps": max(1, train["steps"] // 2)}
    if finding == "vanishing_gradients":
        return {"loss": "nonsaturating"} if setup.loss.saturates else weaker_d(setup)
    if finding == "oscillation":
        return slower(config) if setup.bounds_gradient else smooth_d(config)
    if finding == "d_blind":
        return stronger_d(config)
    if finding == "mode_collapse":
        return diverse(setup)
    return weaker_d(setup) if finding == "d_too_strong" else {"train.steps": 2 * train["steps"]}


def players(config: Config) -> dict[str, tuple[str, Config]]:
    """{"g": (the key of its optimizer, the optimizer)}, and so for d."""
    own = {player: f"{player}_optimizer" for player in ("g", "d")}
    return {p: (key, config[key]) if config.get(key) else ("optimizer", config["optimizer"]) for p, key in own.items()}


def zero_rates(config: Config) -> Changes:
    """A player whose rate is 0 gets the rate of the other one, or a usual one."""
    of = players(config)
    found = {}
    for player, other in (("g", "d"), ("d", "g")):
        key, node = of[player]
        if not node.get("lr", 1):
            found[f"{key}.lr"] = of[other][1].get("lr") or 0.0002
    return found


def slower(config: Config) -> Changes:
    return {f"{key}.lr": float(f"{node['lr'] / 10:.3g}") for key, node in players(config).values() if "lr" in node}


def smooth_d(config: Config) -> Changes:
    """R1, and no layer in D that forbids it."""
    batch_norm = {"arch.discriminator.norm": "none"} if config["arch"]["discriminator"].get("norm") == "batch" else {}
    return {"penalty": "r1", **batch_norm}


def weaker_d(setup: Setup) -> Changes:
    train = setup.config["train"]
    if train["pretrain_d"] or train["n_critic"] > 1:
        return {"train.n_critic": 1, "train.pretrain_d": 0}
    return {"train.instance_noise": 0.1} if setup.bounds_gradient else smooth_d(setup.config)


def stronger_d(config: Config) -> Changes:
    train, D = config["train"], config["arch"]["discriminator"]
    if train["label_noise"] or train["instance_noise"]:
        return {"train.label_noise": 0, "train.instance_noise": 0}
    of = players(config)
    (_, g), (key, d) = of["g"], of["d"]
    if d.get("lr", 0) < g.get("lr", 0):
        return {f"{key}.lr": g["lr"]}
    if isinstance(D.get("hidden"), list) and max(D["hidden"], default=0) < 64:
        return {"arch.discriminator.hidden": "[64,64]"}
    if config.get("penalty"):
        return {"penalty": "none"}
    return MORE_D


def diverse(setup: Setup) -> Changes:
    """No more updates of G than of D; else a D that looks across the batch, or a smoother one where it does already."""
    train, D = setup.config["train"], setup.config["arch"]["discriminator"]
    if train["n_gen"] > train["n_critic"]:
        return {"train.n_gen": 1}
    if setup.bounds_gradient:
        return MORE_D if train["n_critic"] < 5 else {"train.batch_size": 2 * train["batch_size"]}
    return {"arch.discriminator.minibatch": "stddev"} if D.get("minibatch") == "none" else smooth_d(setup.config)
