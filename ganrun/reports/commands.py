"""Commands that reproduce the runs of a report."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ganrun.reports.settings import Setting

FEW = 10  # seeds that are listed; more are written as a range


def command_of(setting: Setting) -> str:
    """The command that repeats all runs of a setting, in new directories."""
    return repeated(setting.typed, [run.seed for run in setting.runs], setting.runs[0].path)


def repeated(typed: Sequence[str] | None, seeds: Sequence[int], path: Path) -> str:
    """The command of runs with these seeds. path: of one of them, whose config is used if its command is not known."""
    saved = typed is None
    words = (
        ["--config-path", str(path.absolute()), "--config-name", "config"]
        if saved
        else kept(typed or (), {"seed", "run_dir"})
    )
    words += ["run_dir=null"] if saved and len(seeds) == 1 else []
    was_typed = saved or any(key_of(override) == "seed" for override in typed or ())
    if len(seeds) == 1:
        return shlex.join(["ganrun", *words, *([f"seed={seeds[0]}"] if was_typed else [])])
    return shlex.join(["ganrun", "-m", *words, f"seed={listed(seeds)}"])


def sweep(typed: Sequence[str], swept: Mapping[str, Sequence[str]], fixed: Sequence[str], seeds: Sequence[int]) -> str:
    """A sweep over all combinations of `swept`, with the other settings of a run and the fixed ones."""
    others = kept(typed, {"seed", "run_dir", *swept, *map(key_of, fixed)})
    axes = [f"{key}={','.join(dict.fromkeys(values))}" for key, values in swept.items()]
    multirun = ["-m"] if len(seeds) > 1 or any("," in axis for axis in axes) else []
    return shlex.join(["ganrun", *multirun, *axes, *others, *fixed, f"seed={listed(seeds)}"])


def listed(seeds: Sequence[int]) -> str:
    """Seeds as typed for a sweep.

    >>> listed([0, 1, 2]), listed([*range(20)])
    ('0,1,2', 'range(0,20)')
    """
    seeds = sorted(set(seeds))
    if len(seeds) > FEW and seeds[-1] - seeds[0] + 1 == len(seeds):
        return f"range({seeds[0]},{seeds[-1] + 1})"
    return ",".join(map(str, seeds))


def kept(typed: Sequence[str], without: Iterable[str]) -> list[str]:
    """The typed settings but for these keys, and those below them. Of a key that was typed twice, the last counts.

    >>> kept(["loss=wgan", "train.steps=5", "data=ring", "train.steps=9", "seed=1"], ["seed"])
    ['loss=wgan', 'data=ring', 'train.steps=9']
    """
    last = {key_of(override): number for number, override in enumerate(typed)}
    return [
        override
        for number, override in enumerate(typed)
        if last[key := key_of(override)] == number
        and not any(key == name or key.startswith((f"{name}.", f"{name}@")) for name in without)
    ]


def key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
