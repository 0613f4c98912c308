"""`ganrun report DIR [DIR ...]`: rank the settings of many runs, with statistics over their seeds."""

import logging
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganrun.checks import check_arguments
from ganrun.config import Config
from ganrun.console import visible
from ganrun.records.checkpoint import write_atomically
from ganrun.reports.collect import Selection, collect
from ganrun.reports.summary import Choices, Report, make_report
from ganrun.reports.table import as_json, runs_csv, settings_csv, text

log = logging.getLogger("ganrun")

NAME = "report"  # of the folder, and of the page


@dataclass(frozen=True)
class ReportOptions:
    """The settings of conf/report.yaml."""

    dirs: str | Sequence[str]
    by: str | None
    better: Literal["higher", "lower"] | None
    checkpoint: Literal["last", "best"]
    ema: bool
    compare: int
    format: Literal["text", "markdown", "csv", "json"]
    files: bool
    out: str | None


def main(config: Config, name: str = "") -> int:
    """Print the table, and write the files. Raises ValueError if there is no run, or no such metric."""
    check_arguments("", ReportOptions, config)
    options = ReportOptions(**config)
    if options.compare < 2:
        raise ValueError(f"compare={options.compare}: must be at least 2, the best setting and another one.")
    dirs = [options.dirs] if isinstance(options.dirs, str) else list(options.dirs)
    if not dirs:
        raise ValueError("dirs=[]: names no folder, as in `ganrun report outputs/losses`.")
    runs, problems = collect(dirs, Selection(options.checkpoint, options.ema))
    title = f"Report on {', '.join(dirs[:3])}{f' and {len(dirs) - 3} more' if len(dirs) > 3 else ''}"
    report = make_report(runs, problems, Choices(options.by, options.better, options.compare), title)
    print_report(report, options.format)
    if options.files:
        write_files(report, folder_of(dirs, options.out), to_stdout=options.format in ("text", "markdown"))
    return 0


def print_report(report: Report, form: str) -> None:
    if form in ("csv", "json"):
        print(visible(settings_csv(report) if form == "csv" else as_json(report)), end="")
    else:
        for line in text(report, markdown=form == "markdown").split("\n"):
            log.info(line)


def folder_of(dirs: Sequence[str], out: str | None) -> Path:
    """The folder of the files: `out`, or report/ in the folder that contains all of `dirs`."""
    if out:
        return Path(out).expanduser()
    paths = [Path(name).expanduser().absolute() for name in dirs]
    common = Path(os.path.commonpath(paths)) if len(paths) > 1 else paths[0]
    if common == Path(common.anchor):
        common = paths[0]
    folder = common / NAME
    if folder.is_symlink():
        raise ValueError(f"{folder}: is a link; name the folder of the files, as in out=DIR.")
    return Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder


def write_files(report: Report, folder: Path, to_stdout: bool) -> None:
    """Write the tables, the pictures and the page. matplotlib and jinja2 are imported only here."""
    from ganrun.figures.sweep import save
    from ganrun.reports.drawing import drawings
    from ganrun.reports.page import page

    folder.mkdir(parents=True, exist_ok=True)
    texts = {"settings.csv": settings_csv(report), "runs.csv": runs_csv(report), "report.json": as_json(report)}
    drawn = [list(drawings(part)) for part in report.parts]
    texts[f"{NAME}.html"] = page(report, drawn)
    for file, content in texts.items():
        write_atomically(folder / file, lambda partial, content=content: partial.write_text(content, errors="replace"))  # type: ignore[misc]
    pictures = []
    for part, figures in zip(report.parts, drawn, strict=True):
        for drawing in (drawing for drawing in figures if drawing.as_file):
            stem = f"{drawing.stem}_{part.data}" if len(report.parts) > 1 else drawing.stem
            save(drawing.figure, folder / f"{stem}.png")
            pictures.append(f"{stem}.png")
    if to_stdout:
        log.info("")
        log.info("page       %s", shlex.quote(str(folder / f"{NAME}.html")))
        others = [file for file in (*texts, *pictures) if file != f"{NAME}.html"]
        log.info("files      %s in %s", ", ".join(others), folder)
