"""The readers of the small files of a run directory: each checks that the content has the shape that it was written in.

A file may be damaged, or of another program. The functions raise ValueError with the reason, in a few words.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from ganrun.checks import check_arguments, fits
from ganrun.config import Config, defaults
from ganrun.files import read_file
from ganrun.metric_key import MetricKey

log = logging.getLogger("ganrun")

NEEDED = ("seed", "data", "arch", "latent", "loss", "optimizer", "schedule", "train")  # in every config
# All other keys of a config are sections. `trust` has no effect in a stored config.
SCALARS: dict[str, Any] = {"seed": int, "run_dir": str | None, "init_from": str | None, "trust": list[str]}
RESULT = {
    "status": Literal["finished", "interrupted", "diverged", "failed"],
    "steps": int,
    "nimg": int,
    "wall_time": float,
    "error": str | None,
    "stopped_early": bool,
}
OF_RESULT = ("status", "steps", "metrics")  # those that must be there
SECTIONS = ("config", "spec", "data", "G", "D", "g_optimizer", "d_optimizer")
STATE: dict[str, Any] = {"step": int, "nimg": int, "seconds": float, **dict.fromkeys(SECTIONS, dict)}
BEST: dict[str, Any] = {
    "key": str,
    "higher": bool,
    "patience": int,
    "value": float | None,
    "step": int | None,
    "evaluations_since": int,
    "last_step": int | None,
}
LARGEST = 2**63  # of whole numbers
T = TypeVar("T")


def read_json(path: Path, checked: Callable[[Any], T]) -> T | None:
    """The content of a JSON file; None if there is none, and with a warning if it is damaged."""
    try:
        return checked(json.loads(read_file(path)))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        log.warning("%s: is damaged (%s); it is ignored.", path, str(error).splitlines()[0].rstrip("."))
        return None


def result(found: Any) -> dict[str, Any]:
    """result.json."""
    for key in OF_RESULT:
        require(isinstance(found, dict) and key in found, f"it has no {key}")
    for key, kind in RESULT.items():
        require(key not in found or fits(found[key], kind), f"{key} has the wrong type")
    require(0 <= found["steps"] < LARGEST, "steps is out of range")
    require(is_section(found["metrics"]) and all(map(is_number, found["metrics"].values())), "metrics are not numbers")
    best = found.get("best")
    if best is not None:
        require(isinstance(best, dict) and isinstance(best.get("key"), str), "best is not a best value")
        require(all(best.get(key) is None or is_number(best[key]) for key in ("value", "step")), "best is not a number")
        require(fits(best.get("step"), int | None), "the step of best is not a whole number")
    return dict(found)


def overrides(found: Any) -> list[str]:
    """command.json."""
    require(fits(found, list[str]), "it is not a list of settings")
    return list(found)


def metric_keys(found: Any) -> dict[str, MetricKey]:
    """metric_keys.json."""
    require(is_section(found) and all(map(is_section, found.values())), "it has no properties of metrics")
    for name, key in found.items():
        check_arguments(name, MetricKey, key)
    return {name: MetricKey(**key) for name, key in found.items()}


def row(found: Any) -> dict[str, Any]:
    """A row of metrics.jsonl."""
    require(isinstance(found, dict) and is_whole(found.get("step")), "it has no step")
    require(all(is_number(value) for key, value in found.items() if "/" in key), "a value is not a number")
    if "evaluated" in found:
        how = found["evaluated"]
        require(is_section(how), "evaluated has the wrong type")
        require(fits(how.get("checkpoint"), int | str) and is_whole(how.get("seed")), "evaluated has no checkpoint")
        require(isinstance(how.get("ema", how.get("average")), bool), "evaluated has no ema")
    return dict(found)


def config(found: Any) -> Config:
    """config.yaml, also of earlier versions."""
    require(isinstance(found, dict), "it contains no settings")
    check_plain(found)
    for key in NEEDED:
        require(key in found, f"it has no {key}")
    for key, value in found.items():
        kind = SCALARS.get(key)
        require(fits(value, kind) if kind else value is None or isinstance(value, dict), f"{key} has the wrong type")
    require(0 <= found["seed"] < LARGEST, "seed is out of range")
    sections = {key: found[key] for key in NEEDED if key != "seed"}
    for key in ("generator", "discriminator"):
        sections[f"arch.{key}"] = found["arch"].get(key) if isinstance(found["arch"], dict) else None
    for key, section in sections.items():
        require(isinstance(section, dict), f"{key} is not a group of settings")
    require(isinstance(found["data"].get("_target_"), str), "data has no _target_")
    for key, default in defaults()["train"].items():
        kind = float if fits(default, float) else type(default)
        known = key not in found["train"] or default is None or fits(found["train"][key], kind)
        require(known, f"train.{key} has the wrong type")
    return dict(found)


def state(found: dict[str, Any]) -> dict[str, Any]:
    """The state in a checkpoint. Whether the states of its parts fit is checked when they are loaded."""
    from torch import Tensor  # not needed for the other files, as the next one

    from ganrun.data.dataset import DataSpec

    for key, kind in STATE.items():
        require(key in found, f"it has no {key}")
        require(isinstance(found[key], dict) if kind is dict else fits(found[key], kind), f"{key} has the wrong type")
    with reasons_of("config"):
        config(found["config"])
        require("steps" in found["config"]["train"], "it has no train.steps")
    with reasons_of("data"):
        check_plain(found["data"])
    with reasons_of("spec"):
        check_arguments("", DataSpec, found["spec"])
        DataSpec(**found["spec"])
    best = found.get("best")
    if best is not None:
        require(isinstance(best, dict) and BEST.keys() == best.keys(), "best is not a best value")
        for key, kind in BEST.items():
            require(fits(best[key], kind), f"{key} of best has the wrong type")
    terms = found.get("lazy_terms", {})
    are_numbers = is_section(terms) and all(isinstance(x, Tensor) and x.ndim == 0 for x in terms.values())
    require(are_numbers, "lazy_terms are not numbers")
    return found


def check_plain(node: Any, depth: int = 0) -> None:
    """Raise ValueError unless all keys are texts, and all values are of the kinds that JSON has."""
    require(depth < 50, "it is nested too deeply")
    if isinstance(node, dict):
        require(all(isinstance(key, str) for key in node), "a key is not a text")
        for value in node.values():
            check_plain(value, depth + 1)
    elif isinstance(node, list | tuple):
        for value in node:
            check_plain(value, depth + 1)
    else:
        require(node is None or isinstance(node, bool | str) or is_number(node), f"{type(node).__name__} is no setting")


def is_section(node: Any) -> bool:
    return isinstance(node, dict) and all(isinstance(key, str) for key in node)


def is_number(value: Any) -> bool:
    return isinstance(value, float) or is_whole(value)


def is_whole(value: Any) -> bool:
    return fits(value, int) and -LARGEST <= value < LARGEST


@contextmanager
def reasons_of(part: str) -> Iterator[None]:
    """Let the reasons of errors begin with the name of a part."""
    try:
        yield
    except (TypeError, ValueError) as error:  # TypeError: of a missing argument
        raise ValueError(f"{part}: {error}") from None


def require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)
