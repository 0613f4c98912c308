"""Remedies for findings: the run's command with changed settings."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ganrun.config import Config
from ganrun.diagnosis.rules import ENOUGH
from ganrun.protocols import Loss, Penalty

Changes = dict[str, Any]

MORE_D: Changes = {"train.n_critic": 5, "train.update": "alternating"}

MOST, MOST_SGD = 0.001, 0.1  # largest usual learning rates, of adaptive optimizers and of SGD


def command(overrides: Sequence[str], changes: Changes) -> str:
    """The command line of the run with changed settings and a new run directory.

    >>> command(["loss=minimax", "loss.real_label=0.9", "run_dir=r"], {"loss": "nonsaturating"})
    'ganrun loss=nonsaturating'
    """
    kept = [o for o in overrides if not any(overrides_key(o, key) for key in ("run_dir", *changes))]
    is_saved = any(o.startswith("--config-name=") for o in overrides)  # a saved config has the directory of its run
    new = [*(["run_dir=null"] if is_saved else []), *(f"{key}={value}" for key, value in changes.items())]
    return shlex.join(["ganrun", *kept, *new]).replace("\n", "\\n")


def overrides_key(override: str, key: str) -> bool:
    """Whether the override sets `key`, or a setting below it."""
    name = override.lstrip("+~").partition("=")[0]
    return name == key or name.startswith((f"{key}.", f"{key}@"))


@dataclass(frozen=True)
class Setup:
    """The parts of a run's setup on which remedies depend."""

    config: Config
    loss: Loss
    penalties: Sequence[Penalty]
    is_image: bool

    @property
    def bounds_gradient(self) -> bool:
        """Whether a penalty bounds the gradient of D."""
        return any(penalty.bounds_gradient and penalty.has_term for penalty in self.penalties)


def remedy(finding: str, setup: Setup) -> Changes:
    """The settings to change for a finding."""
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
    if finding == "d_too_strong":
        return weaker_d(setup)
    return {"train.steps": max(2 * train["steps"], ENOUGH if finding == "too_early" else 0)}


def players(config: Config) -> dict[str, tuple[str, Config]]:
    """For each player ("g", "d"): the key of its optimizer, and the optimizer's config."""
    own = {player: f"{player}_optimizer" for player in ("g", "d")}
    return {p: (key, config[key]) if config.get(key) else ("optimizer", config["optimizer"]) for p, key in own.items()}


def zero_rates(config: Config) -> Changes:
    """If a player's learning rate is 0: the rate of the other player, or a common one if that is 0 too."""
    of = players(config)
    found = {}
    for player, other in (("g", "d"), ("d", "g")):
        key, node = of[player]
        if not node.get("lr", 1):
            found[f"{key}.lr"] = of[other][1].get("lr") or 0.0002
    return found


def slower(config: Config) -> Changes:
    """A tenth of the learning rates, and no more than the largest that is usual for the optimizer."""
    found = {}
    for key, node in players(config).values():
        if "lr" in node:
            most = MOST_SGD if node.get("_target_") == "torch.optim.SGD" else MOST
            found[f"{key}.lr"] = float(f"{min(node['lr'] / 10, most):.3g}")
    return found


def smooth_d(config: Config) -> Changes:
    """R1, and no batch normalization in D, with which R1 cannot be used."""
    batch_norm = {"arch.discriminator.norm": "none"} if config["arch"]["discriminator"].get("norm") == "batch" else {}
    return {"penalty": "r1", **batch_norm}


def weaker_d(setup: Setup) -> Changes:
    """Fewer updates of D; else a penalty, or instance noise if D has one already."""
    train = setup.config["train"]
    if train["pretrain_d"] or train["n_critic"] > 1:
        return {"train.n_critic": 1, "train.pretrain_d": 0}
    return {"train.instance_noise": 0.1} if setup.bounds_gradient else smooth_d(setup.config)


def stronger_d(config: Config) -> Changes:
    """No noise in D's inputs and labels; else a greater learning rate, a larger D, no penalty, or more updates of D."""
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
    """Settings for more diverse samples.

    One update of G per step if it has more updates than D. Else, if a penalty bounds D's gradient, more updates of D or
    a larger batch; if not, minibatch statistics in D, or a penalty if D cannot have them or has them already.
    """
    train, D = setup.config["train"], setup.config["arch"]["discriminator"]
    if train["n_gen"] > train["n_critic"]:
        return {"train.n_gen": 1}
    if setup.bounds_gradient:
        return MORE_D if train["n_critic"] < 5 else {"train.batch_size": 2 * train["batch_size"]}
    return {"arch.discriminator.minibatch": "stddev"} if D.get("minibatch") == "none" else smooth_d(setup.config)
