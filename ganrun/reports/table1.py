"""Table 1 of Goodfellow et al. 2014: the published rows, and the scores of runs."""

import contextlib
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganrun.config import Config, flat
from ganrun.figures.likelihood import Line, Panel
from ganrun.metric.parzen import Parzen, part_of
from ganrun.records.run_dir import RunDir
from ganrun.records.state import MAY_DIFFER

COLUMNS = {"mnist": "MNIST", "tfd": "TFD"}  # of the published table, by the name of the data set here
PUBLISHED = {  # mean log-likelihood and its standard error: over test examples for MNIST, over five folds for TFD
    "DBN": {"mnist": "138 +- 2", "tfd": "1909 +- 66"},
    "Stacked CAE": {"mnist": "121 +- 1.6", "tfd": "2110 +- 50"},
    "Deep GSN": {"mnist": "214 +- 1.1", "tfd": "1890 +- 29"},
    "Adversarial nets": {"mnist": "225 +- 2", "tfd": "2057 +- 26"},
}
NUM = 10000  # samples of the published protocol
FOLDS = 5
STAND_INS = ("fer2013", "olivetti", "folder")  # folder: data=faces
# Settings in which runs of one kind may differ; value_range, because scores are computed in [0, 1].
SAME_KIND = ("_target_", "root", "download", "verify", "cache", "fold", "value_range")
SAME_GAME = ("seed", "data.fold", "train.device", "train.threads", "init_from", *MAY_DIFFER)
HEAD = ("data", "run", "seed", "fold", "step", "log-likelihood", "sigma", "n", "n_test", "valid", "anchor")


@dataclass(frozen=True)
class Selection:
    """Which score of a run to use: at which checkpoint, and whether of G_ema, if the run has one."""

    checkpoint: int | str
    ema: bool


@dataclass(frozen=True)
class Score:
    """A recorded score of a run. `values`: by the part of the key after parzen_NUM, as in {"": 225.0, "se": 2.0}."""

    path: Path
    config: Config
    step: int
    num: int
    values: dict[str, float]

    @property
    def data(self) -> str:
        target: str = self.config["data"]["_target_"]
        return target.rpartition(".")[2]

    @property
    def fold(self) -> int | None:
        fold: int | None = self.config["data"].get("fold")
        return fold

    @property
    def kind(self) -> tuple[str, ...]:
        """The properties that scores must share to be averaged: the data, their settings, and the number of samples."""
        settings = [f"data.{k}={v}" for k, v in self.config["data"].items() if k not in SAME_KIND]
        whole = ["data.fold=null"] if "fold" in self.config["data"] and self.fold is None else []
        return (self.data, *whole, *sorted(settings), f"n={self.num}")


def read(run_dir: RunDir, selection: Selection) -> Score | None:
    """The selected test score, or None.

    Of several scores, the one with the published number of samples, else the one with the most samples.
    """
    found = read_all(run_dir, selection.ema)
    step: int | str | None = found[-1].step if found else None
    if selection.checkpoint != "last":
        step = best_step(run_dir) if selection.checkpoint == "best" else selection.checkpoint
    found = [score for score in found if score.step == step]
    return max(reversed(found), key=lambda score: (score.num == NUM, score.num), default=None)


def best_step(run_dir: RunDir) -> int | None:
    """The step of the best checkpoint, or None. It is read from the checkpoint if there is no result yet."""
    step: int | None = None
    if result := run_dir.result():
        step = (result.get("best") or {}).get("step")
    else:
        with contextlib.suppress(ValueError):
            step = run_dir.load("best")["step"]
    return step


def read_all(run_dir: RunDir, ema: bool) -> list[Score]:
    """All recorded test scores, in the order of the steps. ema: those of G_ema, if the run has one."""
    config, result = run_dir.config(), run_dir.result() or {}
    raw = not ema and keeps_ema(config)
    rows = [] if raw else [{"step": result.get("steps", 0), **tagged(result.get("metrics") or {})}]
    rows += run_dir.rows()
    found = []
    for row in rows:
        for num, values in parzen_of(row, "metric_raw/" if raw else "metric/").items():
            found.append(Score(run_dir.path, config, row["step"], num, values))
    return sorted(found, key=lambda score: score.step)


def keeps_ema(config: Config) -> bool:
    return bool(config["train"].get("ema", 0) > 0)


def panels(paths: Iterable[Path]) -> list[Panel]:
    """One panel for each kind of score, with the scores of all runs during training, of G_ema and of G."""
    found: dict[tuple[str, ...], list[tuple[Line, list[Score]]]] = {}
    for path in paths:
        run_dir = RunDir(path)
        for ema in (True, False) if (kept := keeps_ema(run_dir.config())) else (True,):
            by_kind: dict[tuple[str, ...], list[Score]] = {}
            for score in read_all(run_dir, ema):
                by_kind.setdefault(score.kind, []).append(score)
            for kind, scores in by_kind.items():
                curve = {s.step: (s.values[""], s.values.get("se", 0.0)) for s in scores}
                found.setdefault(kind, []).append((Line(str(path), ema and kept, curve), scores))
    names = named(found)
    return [
        Panel(
            title=names[kind],
            lines=[line for line, _ in members],
            published=published_of(kind[0]),
            anchor=next((s.values["anchor"] for _, scores in members for s in scores if "anchor" in s.values), None),
        )
        for kind, members in found.items()
    ]


def published_of(data: str) -> tuple[float, float] | None:
    """The published score of adversarial nets, as (mean, error).

    >>> published_of("mnist")
    (225.0, 2.0)
    """
    cell = PUBLISHED["Adversarial nets"].get(data)
    if cell is None:
        return None
    mean, _, error = cell.split()
    return float(mean), float(error)


def tagged(metrics: dict[str, float]) -> dict[str, float]:
    return {f"metric/{key}": value for key, value in metrics.items()}


def parzen_of(row: dict[str, Any], group: str) -> dict[int, dict[str, float]]:
    """The Parzen values of a row by the number of samples, if they include a test score.

    >>> parzen_of({"step": 9, "metric/parzen_10k": 225.0, "metric/parzen_10k_se": 2.0}, "metric/")
    {10000: {'': 225.0, 'se': 2.0}}
    """
    found: dict[int, dict[str, float]] = {}
    for key, value in row.items():
        part = part_of(key.removeprefix(group)) if key.startswith(group) else None
        if part is not None:
            num = key.removeprefix(group).split("_")[1].replace("k", "000")
            found.setdefault(int(num), {})[part] = value
    return {num: parts for num, parts in found.items() if "" in parts}


def how_to_compute(path: Path, selection: Selection) -> str:
    which = f" checkpoint={selection.checkpoint}" if selection.checkpoint != "last" else ""
    raw = "" if selection.ema else " ema=false"
    return (
        f"run_dir={path}: has no recorded Parzen score{' of' + which if which else ''}; "
        f"compute it with `ganrun evaluate run_dir={shlex.quote(str(path))} metric=parzen{which}{raw}`."
    )


def report(scores: Sequence[Score], markdown: bool) -> list[str]:
    """The lines of the report: the table, a second table with the runs, and notes."""
    kinds = {score.kind: [s for s in scores if s.kind == score.kind] for score in scores}
    names = named(kinds)
    order = sorted(kinds, key=lambda kind: [*COLUMNS, kind[0]].index(kind[0]))
    lines = ["Table 1 of Goodfellow et al. 2014: Parzen-window log-likelihoods, in nats", ""]
    lines += drawn(summary({names[kind]: (kind[0], kinds[kind]) for kind in order}), markdown)
    lines += ["", "The runs:", ""]
    lines += drawn([HEAD, *(row(s, names[kind]) for kind in order for s in kinds[kind])], markdown)
    below = [*notes({names[kind]: kinds[kind] for kind in order}), Parzen.caveat]
    return [*lines, "", *(f"- {note}" if markdown else note for note in below)]


def named(kinds: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A name for each kind: that of the data, with the settings that distinguish kinds of the same data."""
    names = {}
    for kind in kinds:
        others = [other for other in kinds if other[0] == kind[0]]
        own = [setting for setting in kind[1:] if not all(setting in other for other in others)]
        name = COLUMNS.get(kind[0], kind[0])
        names[kind] = f"{name} ({', '.join(own)})" if own else name
    return names


def summary(ours: dict[str, tuple[str, list[Score]]]) -> list[Sequence[str]]:
    """The published rows and ours, with a column for each published data set and each of ours."""
    columns = {name: data for data, name in COLUMNS.items()} | {name: data for name, (data, _) in ours.items()}
    published = [
        (model, *(cells.get(data, "-") if name in COLUMNS.values() else "-" for name, data in columns.items()))
        for model, cells in PUBLISHED.items()
    ]
    own = ("ours", *(mean_and_error(ours[name][1]) if name in ours else "-" for name in columns))
    return [("", *columns), *published, own]


def mean_and_error(scores: Sequence[Score]) -> str:
    """The mean over folds (of means over runs) with its standard error; without folds, means over runs of both."""
    values = [score.values[""] for score in scores]
    if all(score.fold is None for score in scores):
        errors = [score.values["se"] for score in scores if "se" in score.values]
        error = f" +- {statistics.fmean(errors):.1f}" if errors else ""
        return f"{statistics.fmean(values):.1f}{error} ({counted(len(scores), 'run')})"
    by_fold = {s.fold: [v for v, other in zip(values, scores, strict=True) if other.fold == s.fold] for s in scores}
    means = [statistics.fmean(found) for found in by_fold.values()]
    error = f" +- {statistics.stdev(means) / len(means) ** 0.5:.1f}" if len(means) > 1 else ""
    return f"{statistics.fmean(means):.1f}{error} ({len(means)} of {FOLDS} folds)"


def counted(num: int, noun: str) -> str:
    return f"{num} {noun}{'' if num == 1 else 's'}"


def row(score: Score, name: str) -> tuple[str, ...]:
    known = score.values

    def formatted(part: str, digits: int) -> str:
        return f"{known[part]:.{digits}f}" if part in known else "-"

    error = f" +- {formatted('se', 1)}" if "se" in known else ""
    fewer = f" (n={formatted('anchor_num', 0)})" if known.get("anchor_num", score.num) != score.num else ""
    return (
        name, str(score.path), str(score.config["seed"]), "-" if score.fold is None else str(score.fold),
        str(score.step), formatted("", 1) + error, formatted("sigma", 4), str(score.num), formatted("num_test", 0),
        formatted("valid", 1), formatted("anchor", 1) + fewer,
    )  # fmt: skip


def notes(groups: dict[str, list[Score]]) -> list[str]:
    """Notes on how the numbers can be compared."""
    lines = [
        "+-: the standard error over test examples (for several runs, its mean); for data with folds, over the folds.",
        "anchor: the score of the same number of training images in place of the samples.",
    ]
    for name, scores in groups.items():
        if scores[0].data in STAND_INS:
            lines.append(
                f"{name}: is not TFD, but a substitute for it; its numbers cannot be compared with those of TFD."
            )
        if any(s.config["data"].get("verify") is False for s in scores):
            lines.append(f"{name}: was read with data.verify=false, so this copy may be lossy; not comparable.")
        if scores[0].config["data"].get("gcn"):
            lines.append(f"{name}: normalized images (data.gcn) are compared as they are, not in [0, 1].")
        if different := differences([s.config for s in scores]):
            lines.append(f"{name}: the mean is over runs that differ in {', '.join(different)}.")
        if len(steps := sorted({s.step for s in scores})) > 1:
            lines.append(f"{name}: the mean is over scores of steps {steps[0]:,} to {steps[-1]:,}.")
        if scores[0].num != NUM:
            lines.append(f"{name}: from {scores[0].num} samples; the published protocol uses {NUM}.")
    return lines


def differences(configs: Sequence[Config]) -> list[str]:
    """The settings in which runs differ, except seeds, folds, and those without effect on training."""
    settings = [
        flat({key: node for key, node in config.items() if key not in ("metric", "features")}) for config in configs
    ]
    keys = sorted({key for found in settings for key in found if key not in SAME_GAME and not key.endswith("_every")})
    return [key for key in keys if any(found.get(key) != settings[0].get(key) for found in settings)]


def drawn(rows: Sequence[Sequence[str]], markdown: bool) -> list[str]:
    """Format rows with aligned columns. The first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in rows]
    if not markdown:
        return ["  ".join(line).rstrip() for line in cells]
    rule = ["-" * width for width in widths]
    return [f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]]]
