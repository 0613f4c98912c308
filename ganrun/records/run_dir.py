"""The run directory: the files that a run writes, and that other commands read."""

import bisect
import contextlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import yaml

from ganrun.config import Config, flat, load_yaml, resumable
from ganrun.files import link_out_of, lock, opened_to_append, read_file, remove_left, special_file
from ganrun.metric_key import MetricKey
from ganrun.records import checkpoint, shapes
from ganrun.records.checkpoint import errors_name, write_atomically
from ganrun.records.legacy import upgraded_config, upgraded_overrides, upgraded_row
from ganrun.records.shapes import read_json
from ganrun.records.state import may_differ

log = logging.getLogger("ganrun")

LEFTOVERS = {".lock", "command.json"}  # of a run that was killed before it started
WANDB_LOG = "wandb/*/logs/debug-core.log"  # a link that wandb makes and ganrun removes, unless it was killed meanwhile
OUTPUTS = {".log", ".out", ".err"}  # suffixes of files with the output of a program, as schedulers name them


class RunIsLocked(ValueError):
    """Another process is writing to the run."""


class RunDir:
    """Paths and small files of one run. As a context manager it locks the run against other processes."""

    def __init__(self, path: Path, made: Sequence[Path] = ()) -> None:
        """made: folders created for this run, the innermost first. They are removed if nothing is recorded."""
        self.path = path.expanduser()
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.log_file = self.path / "train.log"
        self.command_file = self.path / "command.json"
        self.config_file = self.path / "config.yaml"
        self.result_file = self.path / "result.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.metric_keys_file = self.path / "metric_keys.json"
        self.tracker_file = self.path / "tracker.json"
        self._lock: IO[str] | None = None
        self._metrics: IO[str] | None = None
        self._made = list(made)
        self._synced: dict[Path, tuple[int, int]] = {}  # the time and the size of each file when it was last synced

    @property
    def is_run(self) -> bool:
        return self.config_file.exists()

    def __enter__(self) -> "RunDir":
        """Lock the run, and remove temporary files of a killed process.

        Raises ValueError if the path is a file or not UTF-8, or a link leads out of the run directory, and RunIsLocked
        if another process has locked it.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            raise ValueError(f"run_dir={self.path}: is not UTF-8, as TensorBoard needs; choose another name.") from None
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"run_dir={self.path}: is a file; choose a new directory.")
        self._made += [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self.check_links()
        self._lock = opened_to_append(self._lock_file)
        try:
            lock(self._lock)
        except BlockingIOError:
            self._lock.close()
            raise RunIsLocked(f"run_dir={self.path}: another process is writing to it.") from None
        self._remove_unfinished()
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the run. If nothing was recorded, remove the lock file and the created folders."""
        for file in (self._metrics, self._lock):
            if file is not None:
                file.close()
        if not self.is_run:
            self._lock_file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a folder that now contains files of another program
                for folder in self._made:
                    folder.rmdir()

    def check_links(self) -> None:
        """Raise ValueError if a link leads out of the run directory: what is written there must be in it.

        So it does for a file on which a reader or a writer would wait, such as a FIFO.
        """
        if link := link_out_of(self.path, but=WANDB_LOG):
            raise ValueError(
                f"{link}: is a link to {link.resolve()}, outside the run directory; replace it by what it links to."
            )
        if special := special_file(self.path):
            raise ValueError(f"{special}: is no regular file; remove it from the run directory.")

    def _remove_unfinished(self) -> None:
        """Remove the temporary files of `write_atomically` that a killed process has left."""
        everywhere = [*self.path.glob("*.partial"), *self.path.glob("*/*.partial")]
        first = [*self.path.glob("config.yaml*.partial"), *self.path.glob("command.json*.partial")]
        remove_left(everywhere if self.is_run else first)

    @property
    def _lock_file(self) -> Path:
        return self.path / ".lock"

    def config(self, data_root: str | None = None) -> Config:
        """The config of the run. Settings that did not exist when the run was started have their defaults.

        data_root: the current folder of the data, if they were moved. Raises ValueError if the config is missing or
        damaged.
        """
        try:
            config = shapes.config(load_yaml(read_file(self.config_file)))
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"run_dir={self.path}: no run there (it has no config.yaml).") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(f"{self.config_file}: is damaged, or not a config of ganrun ({reason}).") from error
        config = upgraded_config(config)
        config.pop("tracker", None)  # never stored: what comes from someone else chooses no place to send values to
        return config if data_root is None else config | {"data": config["data"] | {"root": data_root}}

    def load(self, which: int | str) -> dict[str, Any]:
        """The state in the checkpoint "last", "best", or of a step. Raises ValueError if it is not available."""
        if which == "best":
            if not checkpoint.best_path(self.checkpoints).exists():
                raise ValueError(
                    f"run_dir={self.path}: has no checkpoints/best.pt; a run writes one with train.keep_best, as in "
                    "train.keep_best=ks_100k train.metric_every=1000."
                )
            return checkpoint.load(checkpoint.best_path(self.checkpoints))
        if which != "last":
            return checkpoint.load(checkpoint.path_of(self.checkpoints, int(which)))
        state = checkpoint.load_newest(self.checkpoints)
        if state is None:
            raise ValueError(f"run_dir={self.path}: has no readable checkpoint yet.")
        return state

    def write_config(self, config: Config) -> None:
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_atomically(self.config_file, lambda partial: partial.write_text(text))

    def overrides(self) -> list[str]:
        """The settings typed to start the run; an empty list if they are unknown."""
        return upgraded_overrides(read_json(self.command_file, shapes.overrides) or [])

    def write_overrides(self, overrides: Sequence[str]) -> None:
        text = json.dumps(list(overrides)) + "\n"
        write_atomically(self.command_file, lambda partial: partial.write_text(text))

    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None while the run is running, or if it was killed."""
        return read_json(self.result_file, shapes.result)

    def metric_keys(self) -> dict[str, MetricKey]:
        """The recorded properties of the metrics' keys; empty for a run of an earlier version, which has none."""
        return read_json(self.metric_keys_file, shapes.metric_keys) or {}

    def describe_metrics(self, keys: Mapping[str, MetricKey]) -> None:
        """Record the properties of metrics' keys, in addition to those already recorded."""
        known = self.metric_keys()
        if not keys.items() <= known.items():
            text = json.dumps({name: asdict(key) for name, key in (known | dict(keys)).items()}, indent=2) + "\n"
            write_atomically(self.metric_keys_file, lambda partial: partial.write_text(text))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json: `result` and the evaluations recorded by `ganrun evaluate`."""
        text = json.dumps(with_evaluations(result, self.rows()), indent=2) + "\n"
        write_atomically(self.result_file, lambda partial: partial.write_text(text))

    def log_row(self, row: dict[str, Any]) -> None:
        if self._metrics is None:
            self._metrics = opened_to_append(self.metrics_file)
        try:
            with errors_name(self.metrics_file):
                self._metrics.write(json.dumps(row) + "\n")
                self._metrics.flush()
        except OSError:
            with contextlib.suppress(OSError):  # since it tries again to write the row
                self._metrics.close()
            raise

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl. Damaged rows are skipped with a warning; an incomplete last one without."""
        lines = read_file(self.metrics_file).split(b"\n") if self.metrics_file.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                yield upgraded_row(shapes.row(json.loads(line)))
            except (ValueError, RecursionError):
                if number < len(lines):  # a killed run may leave an incomplete last line
                    log.warning("%s: line %d is damaged; it is skipped.", self.metrics_file, number)

    def insert_metrics(self, row: dict[str, Any]) -> None:
        """Insert `row` after the rows of the same step, and remove their values with the same keys."""
        rows: list[dict[str, Any]] = []
        for old in self.rows():
            if old["step"] == row["step"]:
                old = _without(old, {key for key in row if "/" in key}.__contains__)
            rows += [old] if old else []
        rows.insert(bisect.bisect_right(rows, row["step"], key=lambda old: old["step"]), row)
        self._write_metrics(rows)

    def _write_metrics(self, rows: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.metrics_file, lambda partial: partial.write_text(text))

    def sync(self) -> None:
        """Flush all records to the disk: rows, events, pictures and frames.

        Called before a checkpoint or result.json is written, because a run that is resumed there does not repeat them.
        """
        patterns = (self.metrics_file.name, "events.*", f"{self.samples.name}/*.png", "frames/*.npz")
        found = {path: path.stat() for pattern in patterns for path in self.path.glob(pattern)}
        files = {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}
        folders = {self.path, *(path.parent for path in files), *(folder.parent for folder in self._made)}
        folders |= {self.checkpoints} if self.checkpoints.is_dir() else set()  # whose old files were removed
        with ThreadPoolExecutor() as pool:  # the disk needs one turn for several files, which saves most of the time
            list(pool.map(checkpoint.sync, [path for path in files if self._synced.get(path) != files[path]]))
            list(pool.map(checkpoint.sync, folders))
        self._synced = files

    def rewind(self, step: int, again: Callable[[str], bool] = lambda tag: False) -> None:
        """Remove result.json and the rows after `step`, for a resumed run.

        again: whether values with a tag at `step` are removed, too, because they will be logged again.
        """
        self.result_file.unlink(missing_ok=True)
        if self.metrics_file.exists():
            kept = (_without(row, again) if row["step"] == step else row for row in self.rows() if row["step"] <= step)
            self._write_metrics([row for row in kept if row])


def _without(row: dict[str, Any], dropped: Callable[[str], bool]) -> dict[str, Any]:
    """The row without these values; empty if it had no others."""
    kept = {key: value for key, value in row.items() if not dropped(key)}
    return kept if len(kept) == len(row) or any("/" in key for key in kept) else {}


def with_evaluations(result: dict[str, Any], rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """`result` with the evaluations that `ganrun evaluate` recorded in `rows`, the rows of metrics.jsonl.

    Evaluations equivalent to the run's own, at its last step, are merged into `metrics`. The others are in the list
    `evaluations`, with one entry for each step, seed, and use of G_ema.
    """
    metrics = dict(result["metrics"])
    evaluations: dict[tuple[int, bool, int], dict[str, Any]] = {}
    end = result["steps"] if result["status"] == "finished" else None
    for row in rows:
        if how := row.get("evaluated"):
            found = {key: value for key, value in row.items() if "/" in key}
            if row["step"] == end and all(key.startswith("metric/") for key in found):
                kept = metrics
            else:
                first = {"checkpoint": how["checkpoint"], "step": row["step"], **how, "metrics": {}}
                kept = evaluations.setdefault((row["step"], how["ema"], how["seed"]), first)["metrics"]
            kept |= {key.partition("/")[2]: value for key, value in found.items()}
    return {**result, "metrics": metrics, **({"evaluations": list(evaluations.values())} if evaluations else {})}


def new_run_dir(parent: Path, name: str) -> RunDir:
    """Create a directory with a unique name, even if several runs start at the same moment."""
    made = [] if parent.exists() else [parent]
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        path = parent / f"{stamp}_{name}"
        try:
            path.mkdir()
        except FileExistsError:
            time.sleep(1e-6)
            continue
        return RunDir(path, made=[path, *made])


def check_compatible(run_dir: RunDir, config: Config, changes: Collection[str] = ()) -> None:
    """Raise ValueError if the directory contains a run with another config, or files that are not of a run.

    changes: settings that may differ, in addition to those that always may.
    """
    path = run_dir.path
    if not run_dir.is_run:
        if not all(entry.name in LEFTOVERS or _is_output(entry) for entry in path.iterdir()):
            raise ValueError(f"run_dir={path}: contains files, but no run; choose a new directory.")
        return
    before, now = flat(run_dir.config()), flat(config)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    changed = [key for key in changed if not may_differ(key) and key not in changes]
    if changed:
        named = [f"{key} ({before[key]} there, {now[key]} now)" for key in changed if key in before and key in now]
        named += [key for key in changed if key not in before or key not in now]
        again = [f"run_dir={shlex.quote(str(path))}", *(f"{key}={now[key]}" for key in changed if key in resumable())]
        raise ValueError(
            f"run_dir={path}: contains a run with another config, which differs in {', '.join(named)}. "
            f"Choose a new run_dir, or continue that run with `ganrun resume {' '.join(again)}`."
        )


def _is_output(path: Path) -> bool:
    """Whether the file has the output of this process, or of an earlier attempt: `ganrun run_dir=DIR > DIR/log.txt`."""
    if not path.is_file():
        return False
    streams = []
    for number in (1, 2):
        with contextlib.suppress(OSError):
            streams.append(os.fstat(number))
    return path.suffix in OUTPUTS or any(os.path.samestat(path.stat(), stream) for stream in streams)
