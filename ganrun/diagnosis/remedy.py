"""What to try against a finding: the run's own command, with something changed."""

import shlex
from collections.abc import Sequence
from typing import Any

from ganrun.names import Config

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


def remedy(finding: str, config: Config, is_image: bool) -> Changes:
    """Settings to change against a finding, chosen by what the run was played with."""
    train, loss = config["train"], config["loss"]["_target_"].rpartition(".")[2]
    if rates := zero_rates(config):
        return rates
    if finding == "divergence":
        unbounded = loss == "Wasserstein" and not config.get("penalty")
        return smooth_d(config) if unbounded else slower(config)
    if finding == "memorization":
        return {"augment": "diffaugment"} if is_image and not config.get("augment") else {"train.steps": halved(train)}
    if finding == "vanishing_gradients":
        return {"loss": "nonsaturating"} if loss == "Minimax" else weaker_d(config)
    if finding == "oscillation":
        return slower(config) if has_gradient_penalty(config) else smooth_d(config)
    if finding == "d_blind":
        return stronger_d(config)
    if finding == "mode_collapse":
        return diverse(config)
    return weaker_d(config) if finding == "d_too_strong" else {"train.steps": 2 * train["steps"]}


def players(config: Config) -> dict[str, tuple[str, Config]]:
    """{"g": (the key of its optimizer, the optimizer)}, and so for d."""
    own = {player: f"{player}_optimizer" for player in ("g", "d")}
    return {p: (key, config[key]) if config.get(key) else ("optimizer", config["optimizer"]) for p, key in own.items()}


def zero_rates(config: Config) -> Changes:
    """A player that cannot move is given the rate of the other, or a usual one."""
    of = players(config)
    found = {}
    for player, other in (("g", "d"), ("d", "g")):
        key, node = of[player]
        if not node.get("lr", 1):
            found[f"{key}.lr"] = of[other][1].get("lr") or 0.0002
    return found


def slower(config: Config) -> Changes:
    return {f"{key}.lr": float(f"{node['lr'] / 10:.3g}") for key, node in players(config).values() if "lr" in node}


def halved(train: Config) -> int:
    return max(1, train["steps"] // 2)


def has_gradient_penalty(config: Config) -> bool:
    kinds = {"r1", "gradient_penalty", "gradient_penalty_one_sided", "zero_centered", "dragan"}
    return bool(kinds & set(config.get("penalty") or {}))


def smooth_d(config: Config) -> Changes:
    """R1, and no layer in D that forbids it."""
    batch_norm = {"arch.discriminator.norm": "none"} if config["arch"]["discriminator"].get("norm") == "batch" else {}
    return {"penalty": "r1", **batch_norm}


def weaker_d(config: Config) -> Changes:
    train = config["train"]
    if train["pretrain_d"] or train["n_critic"] > 1:
        return {"train.n_critic": 1, "train.pretrain_d": 0}
    if has_gradient_penalty(config):
        return {"train.instance_noise": 0.1}
    return smooth_d(config)


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


def diverse(config: Config) -> Changes:
    """G moves no more often than D; else D sees whole batches, or is smoothed where it does already."""
    if config["train"]["n_gen"] > config["train"]["n_critic"]:
        return {"train.n_gen": 1}
    if has_gradient_penalty(config):
        more = config["train"]["n_critic"] < 5
        return MORE_D if more else {"train.batch_size": 2 * config["train"]["batch_size"]}
    batches = config["arch"]["discriminator"].get("minibatch") == "none"
    return {"arch.discriminator.minibatch": "stddev"} if batches else smooth_d(config)
