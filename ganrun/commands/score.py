"""`ganrun score run_dir=DIR input=PATH`: anomaly scores of the user's own data."""

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ganrun.anomaly.networks import Layers
from ganrun.anomaly.reconstruction import Search
from ganrun.anomaly.scores import COMBINED, AnomalyScores
from ganrun.checks import check_arguments
from ganrun.config import Config, slug
from ganrun.console import visible
from ganrun.data.inputs import Inputs, Reader
from ganrun.figures.album import save_still
from ganrun.figures.anomalies import Ranking, anomalies_figure
from ganrun.files import MARK
from ganrun.records.checkpoint import write_atomically
from ganrun.records.run_dir import RunDir
from ganrun.training.load import LoadedRun
from ganrun.training.runtime import choose_device
from ganrun.training.scoring import fit_scores

log = logging.getLogger("ganrun")

COLUMNS, SKIPPED = ("rank", "name"), ("name", "reason")  # of both .csv files; that of the scores has more
LISTED = 5  # skipped inputs, and the most anomalous ones, that are printed


@dataclass(frozen=True)
class ScoreOptions:
    """The settings of conf/score.yaml."""

    run_dir: str
    input: str
    data: Config
    checkpoint: int | Literal["last", "best"]
    ema: bool
    methods: Sequence[str] | str
    by: str | None
    split: Literal["valid", "test"]
    num_valid: int
    num_train: int
    layers: Layers
    neighbors: int
    columns: Sequence[str | int] | str | int | None
    crop: Literal["center", "none"] | None
    value_range: tuple[float, float] | None
    top: int
    out: str | None
    seed: int
    device: str
    search: Config

    def scores(self) -> AnomalyScores:
        """The scores, not yet fitted. Raises ValueError for settings that are out of range."""
        check_arguments("search", Search, self.search)
        try:
            search = Search(**self.search)
        except ValueError as error:
            raise ValueError(f"search.{error}") from None
        for name, least in (("num_valid", 2), ("top", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}.")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            low, high = self.value_range
            raise ValueError(f"value_range=[{low:g},{high:g}]: must be two numbers in ascending order, as in [0,1].")
        made = AnomalyScores(_listed(self.methods), self.num_train, self.layers, self.neighbors, search, self.seed)
        known = [*made.methods, *([COMBINED] if len(made.methods) > 1 else [])]
        if self.by not in (None, *known):
            raise ValueError(f"by={self.by}: must be one of {', '.join(known)}, or null.")
        return made


def main(config: Config, name: str = "") -> int:
    """Write the scores and a picture. Raises ValueError for a run, an input or a method that cannot be used."""
    check_arguments("", ScoreOptions, config)
    options = ScoreOptions(**config)
    scores = options.scores()
    run_dir = RunDir(Path(options.run_dir))
    loaded = LoadedRun(run_dir, options.checkpoint, choose_device(options.device, "device"), options.data.get("root"))
    path = output_path(options, loaded)
    figure, skipped = path.with_suffix(".png"), path.with_name(f"{path.stem}_skipped.csv")
    for file in (path, figure, skipped):
        check_replaceable(file, options)
    inputs = read(options, loaded)
    run = loaded.build(metric={})
    try:
        fit_scores(scores, run, options.split, options.num_valid, options.ema)
    except ValueError as error:
        raise ValueError(
            str(error) if "=" in str(error).partition(":")[0] else f"run_dir={run_dir.path}: {error}"
        ) from error
    found = scores.score(inputs.x)
    ranking = ranked(inputs, scores, found, options.by or list(found)[-1])
    run_dir.check_links()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_text(path, table(ranking, scores, found))
    skipped.unlink(missing_ok=True)
    if inputs.skipped:
        save_text(skipped, csv_text([SKIPPED, *inputs.skipped.items()]))
    save_still(
        anomalies_figure(ranking, loaded.spec, options.top, f"{run_dir.path.name}, step {loaded.step:,}"), figure
    )
    report(inputs, ranking, options)
    log.info("scores     %s", path)
    if inputs.skipped:
        log.info("skipped    %s", skipped)
    log.info("picture    %s", figure)
    return 0


def check_replaceable(file: Path, options: ScoreOptions) -> None:
    """Raise ValueError for a file that is part of the input, or that `ganrun score` has not written."""
    given = Path(options.input).expanduser().resolve()
    if file.resolve() == given or given in file.resolve().parents:
        raise ValueError(f"{file}: would be in the input; choose another path, as in out=scores.csv.")
    if file.exists() and not (file.is_file() and is_own(file)):
        raise ValueError(f"{file}: was not written by ganrun score; choose another path, as in out=scores.csv.")


def is_own(file: Path) -> bool:
    """Whether `ganrun score` has written the .csv or .png file."""
    with file.open("rb") as opened:
        start = opened.read(4096)
    marks = [",".join(names).encode() for names in (COLUMNS, SKIPPED)]
    return MARK.encode() in start if file.suffix == ".png" else start.startswith((*marks,))


def read(options: ScoreOptions, loaded: LoadedRun) -> Inputs:
    path = Path(options.input).expanduser()
    columns = None if options.columns is None else _listed(options.columns)
    crop = options.crop or ("none" if loaded.config["data"].get("crop") == "none" else "center")
    try:
        return Reader(loaded.spec, loaded.spec.form, columns, crop, options.value_range).read(path)
    except ValueError as error:
        raise ValueError(f"input={options.input}: {error}") from error


def ranked(inputs: Inputs, scores: AnomalyScores, found: Mapping[str, np.ndarray], by: str) -> Ranking:
    order = np.argsort(-np.nan_to_num(found[by], nan=np.inf), kind="stable")
    return Ranking(
        by, inputs.x, inputs.names, found[by], scores.quantiles({by: found[by]})[by], scores.held_out[by], order
    )


def table(ranking: Ranking, scores: AnomalyScores, found: Mapping[str, np.ndarray]) -> str:
    """The lines of the .csv file, from most to least anomalous: rank, name, and each score with its quantile."""
    quantiles = scores.quantiles(found)
    rows = [[*COLUMNS, *(column for method in found for column in (method, f"{method}_quantile"))]]
    for rank, i in enumerate(ranking.order.tolist(), 1):
        values = [f"{value:.6g}" for method in found for value in (found[method][i], quantiles[method][i])]
        rows.append([str(rank), ranking.names[i], *values])
    return csv_text(rows)


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def save_text(path: Path, text: str) -> None:
    write_atomically(path, lambda unfinished: unfinished.write_text(text, "utf-8", "backslashreplace"))


def output_path(options: ScoreOptions, loaded: LoadedRun) -> Path:
    if options.out is not None:
        path = Path(options.out).expanduser()
        if path.suffix != ".csv":
            raise ValueError(f"out={options.out}: must end in .csv.")
        return path
    stem = slug(Path(options.input).expanduser().resolve().stem or "input")
    return loaded.run_dir.path / "scores" / f"{stem}_step_{loaded.step:08d}.csv"


def report(inputs: Inputs, ranking: Ranking, options: ScoreOptions) -> None:
    for name, reason in list(inputs.skipped.items())[:LISTED]:
        log.warning("%s: %s; skipped.", visible(name), visible(reason))
    if (more := len(inputs.skipped) - LISTED) > 0:
        log.warning("%s more are skipped.", f"{more:,}")
    num = len(ranking.names)
    log.info("scored     %s, skipped %s; quantiles among %s %s examples", f"{num:,}", f"{len(inputs.skipped):,}",
             f"{len(ranking.held_out):,}", options.split)  # fmt: skip
    above = float((ranking.quantiles >= 0.99).mean())
    log.info("           %s are at or above the .99 quantile of %s", f"{above:.1%}", ranking.by)
    for i in ranking.order[:LISTED].tolist():
        log.info("           %-28s %s %.4g, quantile %.4f", visible(ranking.names[i]), ranking.by, ranking.scores[i],
                 ranking.quantiles[i])  # fmt: skip


def _listed(names: Sequence[str | int] | str | int) -> list[str]:
    return [str(name) for name in ([names] if isinstance(names, str | int) else names)]
