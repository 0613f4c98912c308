"""`ganrun table1 'runs=[DIR,DIR]'`: Table 1 of Goodfellow et al. 2014, published and from runs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganrun.checks import check_arguments
from ganrun.config import Config
from ganrun.figures.album import save_still
from ganrun.figures.likelihood import likelihood_figure
from ganrun.records.run_dir import RunDir
from ganrun.reports.run_list import find_runs
from ganrun.reports.table1 import Score, Selection, how_to_compute, panels, read, report

log = logging.getLogger("ganrun")

FIGURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Table1Options:
    """The settings of conf/table1.yaml."""

    runs: str | Sequence[str]
    checkpoint: int | Literal["last", "best"]
    ema: bool
    format: Literal["text", "markdown"]
    figure: str | None


def main(config: Config, name: str = "") -> int:
    """Print the table. Raises ValueError for a path that is not a run, and if no run has a score."""
    check_arguments("", Table1Options, config)
    options = Table1Options(**config)
    if options.figure is not None and Path(options.figure).suffix not in FIGURES:
        raise ValueError(f"figure={options.figure}: must end in one of {', '.join(FIGURES)}.")
    selection, paths = Selection(options.checkpoint, options.ema), find_runs(options.runs)
    scores: list[Score] = []
    missing: list[str] = []
    for path in paths:
        if score := read(RunDir(path), selection):
            scores.append(score)
        else:
            missing.append(how_to_compute(path, selection))
    if not scores:
        raise ValueError(missing[0])
    for line in missing:
        log.warning(line)
    for line in report(scores, options.format == "markdown"):
        log.info(line)
    if options.figure is not None:
        figure = Path(options.figure).expanduser()
        figure.parent.mkdir(parents=True, exist_ok=True)
        save_still(likelihood_figure(panels(paths)), figure)
        log.info("")
        log.info("figure     %s", figure)
    return 0
