"""A report as text, Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ganrun.console import visible
from ganrun.reports.collect import Run
from ganrun.reports.conclusion import conclusion, p_text, test_of
from ganrun.reports.settings import short
from ganrun.reports.summary import Comparison, Line, Part, Report, formatted

MOST_LINES = 40  # of a printed table
MOST_COMMANDS = 8  # printed below it
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a cell that a spreadsheet runs as a formula


def text(report: Report, markdown: bool = False) -> str:
    """The printed report."""
    parts = [f"{report.counts}"]
    for part in report.parts:
        parts += [block for block in blocks(part, markdown) if block]
    if report.problems:
        parts.append("\n".join(["Not read:", *(f"  {problem}" for problem in report.problems)]))
    return visible("\n\n".join(parts))


def blocks(part: Part, markdown: bool) -> list[str]:
    """The paragraphs of one part: confounds first, then the table, and what it says."""
    code = "`" if markdown else ""
    about = [part.confounds.about_command, f"  {code}{part.confounds.command}{code}"] if part.confounds.command else []
    lines = part.lines[:MOST_LINES]
    more = len(part.lines) - len(lines)
    commands = [f"  {code}{line.command}{code}" for line in lines[:MOST_COMMANDS]]
    return [
        heading(part),
        "\n".join([*part.confounds.sentences(), *about]),
        "\n".join(drawn(rows_of(part, lines), markdown)) + (f"\n... and {more} more settings" if more else ""),
        conclusion(part),
        "\n".join(drawn(comparison_rows(part), markdown)) if len(part.comparisons) > 1 and part.has_differences else "",
        "\n".join(part.notes),
        "\n".join(["Commands:" if len(lines) > 1 else "Command:", *commands]),
    ]


def heading(part: Part) -> str:
    ranking = part.ranking
    if ranking is None:
        return f"data {part.data}"
    reason = f" ({ranking.reason})" if ranking.reason else ""
    return f"data {part.data}, ranked by {ranking.title}{reason}; {ranking.direction}"


def rows_of(part: Part, lines: Sequence[Line]) -> list[list[str]]:
    """The header and the cells of the table."""
    key = part.ranking.key if part.ranking else "value"
    head = ["", *map(short, part.keys), "n", f"{key} [95%]", "best", "worst", "diverged", "collapsed", "images", "time"]
    rows = [
        [
            str(line.rank or "-"), *(line.setting.shown[key] or "-" for key in part.keys), str(len(line.values)),
            interval_text(line), formatted(line.best), formatted(line.worst), *shares(line),
            short_number(line.median("nimg")), duration(line.median("seconds")),
        ]
        for line in lines
    ]  # fmt: skip
    return [head, *rows]


def shares(line: Line) -> tuple[str, str]:
    """How many runs diverged, and how many collapsed according to their diagnosis."""
    total = len(line.runs)
    return f"{line.diverged}/{total}", f"{line.collapsed}/{total}" if line.has_diagnosis else "-"


def interval_text(line: Line) -> str:
    if line.mean is None:
        return "-"
    ends = line.mean.interval
    return formatted(line.mean.value) + (f" [{formatted(ends[0])}, {formatted(ends[1])}]" if ends else "")


def comparison_rows(part: Part) -> list[list[str]]:
    head = ["better mean", "other", "difference [95%]", "effect", "p, corrected", "test", "seeds needed"]
    return [head, *(comparison_row(c) for c in part.comparisons if c.first is part.lines[0])]


def comparison_row(c: Comparison) -> list[str]:
    d = c.difference
    if d is None:
        return [c.first.name, c.second.name, *["-"] * 5]
    needed = "-" if d.needed is None else f"{d.needed:,}"
    difference = f"{formatted(d.value)} [{formatted(d.interval[0])}, {formatted(d.interval[1])}]"
    effect = "-" if d.effect is None else f"{d.effect:.2f}"
    return [
        c.first.name,
        c.second.name,
        difference,
        effect,
        p_text(d.corrected).removeprefix("p = "),
        test_of(d),
        needed,
    ]


def short_number(value: float) -> str:
    """
    >>> short_number(64000), short_number(1234567), short_number(900)
    ('64k', '1.23M', '900')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """
    >>> duration(3.25), duration(250), duration(9000)
    ('3.2 s', '4 min 10 s', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def drawn(rows: Sequence[Sequence[str]], markdown: bool) -> list[str]:
    """Rows with aligned columns. The first row is the header."""
    rows = [[cell.replace("|", "\\|") if markdown else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    if not markdown:
        return ["  ".join(row).rstrip() for row in cells]
    return [f"| {' | '.join(row)} |" for row in [cells[0], ["-" * width for width in widths], *cells[1:]]]


def settings_csv(report: Report) -> str:
    """A row for each setting, with the numbers in full."""
    keys = list(dict.fromkeys(key for part in report.parts for key in part.keys))
    head = ["data", "rank", *map(short, keys), "metric", "n", "mean", "low", "high", "std", "best", "worst"]
    head += ["runs", "diverged", "collapsed", "steps", "images", "seconds", "command"]
    rows = [
        [part.data, line.rank, *(line.setting.values.get(key, "") for key in keys), *numbers(part, line), line.command]
        for part in report.parts
        for line in part.lines
    ]
    return as_csv([head, *rows])


def numbers(part: Part, line: Line) -> list[Any]:
    mean = line.mean
    ends = (mean.interval or (None, None)) if mean else (None, None)
    return [
        part.ranking.title if part.ranking else "", len(line.values), mean and mean.value, *ends, mean and mean.std,
        line.best, line.worst, len(line.runs), line.diverged, line.collapsed if line.has_diagnosis else None,
        line.median("steps"), line.median("nimg"), line.median("seconds"),
    ]  # fmt: skip


def runs_csv(report: Report) -> str:
    """A row for each run, with all of its metrics."""
    keys = list(dict.fromkeys(key for part in report.parts for key in part.keys))
    metrics = list(dict.fromkeys(name for run in report.runs for name in run.metrics))
    head = ["run_dir", *map(short, keys), "seed", "state", "steps", "images", "seconds", "diagnosis"]
    head += [*metrics, "command"]
    rows = [
        [
            str(run.path), *(line.setting.values.get(key, "") for key in keys), run.seed, run.state, run.steps,
            run.nimg, run.seconds, run.diagnosis, *(run.metrics.get(name) for name in metrics), line.command_of(run),
        ]
        for part in report.parts
        for line in part.lines
        for run in line.runs
    ]  # fmt: skip
    return as_csv([head, *rows])


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([safe(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def safe(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: run directories may come from someone else."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def as_json(report: Report) -> str:
    """All numbers of the report. Its structure is described in docs/reports.md."""
    found = {
        "title": report.title,
        "problems": list(report.problems),
        "parts": [part_json(part) for part in report.parts],
    }
    return json.dumps(plain(found), indent=2, ensure_ascii=False) + "\n"


def part_json(part: Part) -> dict[str, Any]:
    names = {id(line): line.name for line in part.lines}
    return {
        "data": part.data,
        "ranking": asdict(part.ranking) if part.ranking else None,
        "keys": part.keys,
        "conclusion": conclusion(part),
        "notes": list(part.notes),
        "confounds": [asdict(change) for change in part.confounds.changes],
        "controlled": part.confounds.command or None,
        "settings": [line_json(line) for line in part.lines],
        "comparisons": [
            {
                "first": names[id(c.first)],
                "second": names[id(c.second)],
                **(asdict(c.difference) if c.difference else {}),
            }
            for c in part.comparisons
        ],
    }


def line_json(line: Line) -> dict[str, Any]:
    return {
        "name": line.name, "rank": line.rank, "values": line.setting.values, "n": len(line.values),
        "mean": asdict(line.mean) if line.mean else None, "best": line.best, "worst": line.worst,
        "diverged": line.diverged, "collapsed": line.collapsed if line.has_diagnosis else None,
        "steps": line.median("steps"), "nimg": line.median("nimg"), "seconds": line.median("seconds"),
        "command": line.command, "runs": [run_json(run, line) for run in line.runs],
    }  # fmt: skip


def run_json(run: Run, line: Line) -> dict[str, Any]:
    return {
        "run_dir": str(run.path), "seed": run.seed, "state": run.state, "value": line.values.get(run.seed),
        "steps": run.steps, "nimg": run.nimg, "seconds": run.seconds, "metrics": dict(run.metrics),
        "diagnosis": run.diagnosis or None, "findings": [finding.name for finding in run.findings],
        "error": run.error or None, "command": line.command_of(run),
    }  # fmt: skip


def plain(node: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
