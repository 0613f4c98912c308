"""A report as one HTML page that needs no other file and no network.

All texts are escaped, since a run directory may come from someone else, and the page's policy allows no script but its
own.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ganrun import __version__
from ganrun.console import visible
from ganrun.figures.sweep import MOST, as_svg, color_of, dashes_of
from ganrun.reports.collect import DIAGNOSIS, Finding, Run
from ganrun.reports.conclusion import conclusion, p_text, test_of
from ganrun.reports.drawing import Drawing, Samples, data_uri, samples_of
from ganrun.reports.settings import short
from ganrun.reports.summary import Comparison, Line, Part, Report, formatted
from ganrun.reports.table import duration, interval_text, short_number

FOLDER = Path(__file__).with_name("page")


@dataclass(frozen=True)
class Cell:
    """A cell of a table. value: to sort by, if it is not the text. kind: how it is shown."""

    text: str
    value: float | None = None
    kind: str = ""
    more: str = ""
    items: Sequence[Finding] = ()


@dataclass(frozen=True)
class Column:
    """shown: whether the column is visible at first. number: whether it is aligned to the right."""

    title: str
    number: bool = False
    shown: bool = True


@dataclass(frozen=True)
class Row:
    """series: the number of its curves in the figures, or None."""

    cells: Sequence[Cell]
    series: int | None = None


@dataclass(frozen=True)
class Table:
    columns: Sequence[Column]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    svg: str
    caption: str


@dataclass(frozen=True)
class View:
    """One part of the report, as the template needs it."""

    part: Part
    conclusion: str
    ranking: str
    settings: Table
    runs: Table
    comparisons: Table | None
    values: Picture | None
    map: Picture | None
    figures: Sequence[Picture]
    legend: Sequence[tuple[str, str, str]]
    samples: Samples | None


def page(report: Report, drawings: Sequence[Sequence[Drawing]]) -> str:
    """The page. drawings: the figures of each part."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=without_controls,
    )
    environment.filters |= {"short": short, "data_uri": data_uri}
    style, script = ((FOLDER / f"report.{kind}").read_text() for kind in ("css", "js"))
    views = [view_of(part, own, i) for i, (part, own) in enumerate(zip(report.parts, drawings, strict=True))]
    return environment.get_template("report.html").render(
        report=report,
        views=views,
        version=__version__,
        date=f"{datetime.now():%Y-%m-%d %H:%M}",
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def without_controls(value: Any) -> Any:
    """A text with escapes for characters that could reorder what is shown, and so make a command look like another."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def view_of(part: Part, drawings: Sequence[Drawing], number: int) -> View:
    pictures = [
        (drawing.stem, Picture(visible(as_svg(drawing.figure, f"part {number} figure {i}")), drawing.caption))
        for i, drawing in enumerate(drawings)
        if drawing.on_page
    ]
    by_stem = dict(pictures)
    ranking = part.ranking
    reason = f", {ranking.reason}" if ranking and ranking.reason else ""
    return View(
        part=part,
        conclusion=conclusion(part),
        ranking=f"{ranking.title}{reason}; {ranking.direction}" if ranking else "nothing yet",
        settings=settings_table(part),
        runs=runs_table(part),
        comparisons=comparisons_table(part.comparisons) if part.has_differences else None,
        values=by_stem.get("values"),
        map=by_stem.get("map"),
        figures=[picture for stem, picture in pictures if not stem],
        legend=[(line.name, color_of(i), dashes_of(i)) for i, line in enumerate(part.ranked[:MOST])],
        samples=samples_of(part),
    )


def settings_table(part: Part) -> Table:
    value = part.ranking.key if part.ranking else "value"
    columns = [
        Column("", number=True), *(Column(short(key)) for key in part.keys), Column("n", number=True),
        Column(f"{value} [95%]", number=True), Column("best", number=True), Column("worst", number=True),
        Column("diverged", number=True), Column("collapsed", number=True), Column("steps", number=True, shown=False),
        Column("images", number=True), Column("time", number=True), Column("command"),
    ]  # fmt: skip
    return Table(columns, [Row(setting_cells(part, line), i) for i, line in enumerate(part.lines)])


def setting_cells(part: Part, line: Line) -> list[Cell]:
    mean, number = line.mean, len(line.runs)
    text, _, ends = interval_text(line).partition(" ")
    collapsed = Cell(f"{line.collapsed}/{number}", line.collapsed / number) if line.has_diagnosis else Cell("-")
    return [
        numeric(line.rank), *(Cell(line.setting.shown[key] or "-") for key in part.keys), numeric(len(line.values)),
        Cell(text, mean.value if mean else None, "mean", ends), numeric(line.best), numeric(line.worst),
        Cell(f"{line.diverged}/{number}", line.diverged / number), collapsed, numeric(line.median("steps")),
        Cell(short_number(line.median("nimg")), line.median("nimg")),
        Cell(duration(line.median("seconds")), line.median("seconds")), Cell(line.command, kind="command"),
    ]  # fmt: skip


def numeric(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{value:,}" if isinstance(value, int) else formatted(value), value)


def runs_table(part: Part) -> Table:
    """A row for each run: its directory, what varies, its state, value and diagnosis, and its command."""
    ranked_by = part.ranking.key if part.ranking else ""
    names = dict.fromkeys(name for run in part.runs for name in run.metrics if name not in DIAGNOSIS)
    others = [name for name in names if name != ranked_by]
    columns = [
        *(Column(short(key)) for key in part.keys), Column("seed", number=True), Column("state"),
        Column(ranked_by or "value", number=True), Column("diagnosis"), Column("steps", number=True),
        Column("images", number=True), Column("time", number=True), Column("run directory", shown=False),
        *(Column(name, number=True, shown=False) for name in others), Column("command"),
    ]  # fmt: skip
    lines = [(line, run) for line in part.lines for run in (*line.runs, *line.setting.repeats)]
    return Table(columns, [Row(run_cells(part, line, run, others)) for line, run in lines])


def run_cells(part: Part, line: Line, run: Run, others: Sequence[str]) -> list[Cell]:
    counts = any(run is other for other in line.runs)
    value = line.values.get(run.seed) if counts else None
    so_far = part.ranking.value(run.metrics) if part.ranking and value is None else None
    shown = Cell(f"{formatted(so_far)} (step {run.step:,})", so_far) if so_far is not None else numeric(value)
    state = run.state if counts else f"{run.state}, repeated"
    diagnosis = Cell(run.diagnosis or "-", kind="findings", items=run.findings)
    return [
        *(Cell(line.setting.shown[key] or "-") for key in part.keys), numeric(run.seed),
        Cell(f"{state}: {run.error}" if run.error else state), shown, diagnosis, numeric(run.steps),
        Cell(short_number(run.nimg), run.nimg), Cell(duration(run.seconds), run.seconds), Cell(str(run.path)),
        *(numeric(run.metrics.get(name)) for name in others), Cell(line.command_of(run), kind="command"),
    ]  # fmt: skip


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    titles = ("first", "second", "difference [95%]", "effect", "p", "test", "seeds needed")
    columns = [Column(title, number=title not in ("first", "second", "test")) for title in titles]
    return Table(columns, [Row(comparison_cells(c)) for c in comparisons])


def comparison_cells(c: Comparison) -> list[Cell]:
    d = c.difference
    names: list[Any] = [Cell(c.first.name), Cell(c.second.name)]
    if d is None:
        return [*names, *[Cell("-")] * 3, Cell("too few seeds"), Cell("-")]
    ends = f"[{formatted(d.interval[0])}, {formatted(d.interval[1])}]"
    return [
        *names, Cell(formatted(d.value), d.value, "mean", ends),
        Cell("-") if d.effect is None else Cell(f"{d.effect:.2f}", d.effect),
        Cell(p_text(d.corrected).removeprefix("p = ").removeprefix("p "), d.corrected), Cell(test_of(d)),
        Cell("over 10,000") if d.needed is None else numeric(d.needed),
    ]  # fmt: skip
