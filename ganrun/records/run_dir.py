"""The run directory: what a run leaves, and all that other commands read."""

import bisect
import contextlib
import json
import logging
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import yaml

from ganrun.config import Config, flat
from ganrun.protocols import MetricKey
from ganrun.records import checkpoint
from ganrun.records.checkpoint import write_atomically
from ganrun.records.legacy import upgraded_config, upgraded_overrides, upgraded_row

log = logging.getLogger("ganrun")

NEEDED = ("seed", "data", "arch", "latent", "loss", "optimizer", "train")
LEFT_BY_A_KILL = {".lock", "config.yaml.partial"}  # of a run that had not yet begun
MAY_DIFFER = {
    "run_dir",
    "data.root",
    "data.download",
    "data.cache",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.diagnose",
}


class UnderWay(ValueError):
    """Another process holds the run."""


class RunDir:
    """Paths and small files of one run. `with` holds it, so that no second process writes to it."""

    def __init__(self, path: Path, made: Sequence[Path] = ()) -> None:
        """made: folders that were made for this run, the innermost first: they go where it records nothing."""
        self.path = path.expanduser()
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.log_file = self.path / "train.log"
        self.command_file = self.path / "command.json"
        self.config_file = self.path / "config.yaml"
        self.result_file = self.path / "result.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.metric_keys_file = self.path / "metric_keys.json"
        self._lock: IO[str] | None = None
        self._metrics: IO[str] | None = None
        self._made = list(made)

    @property
    def is_run(self) -> bool:
        return self.config_file.exists()

    def __enter__(self) -> "RunDir":
        """Raises ValueError for a path that is no folder, and UnderWay where another process holds the run."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"run_dir={self.path}: is a file; name a new directory.")
        self._made += [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock_file.open("w")
        try:
            lock(self._lock)
        except OSError:
            self._lock.close()
            raise UnderWay(f"run_dir={self.path}: another process is writing to it.") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Where nothing was recorded, no trace is left."""
        for file in (self._metrics, self._lock):
            if file is not None:
                file.close()
        if not self.is_run:
            self._lock_file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a folder that someone else has put something into
                for folder in self._made:
                    folder.rmdir()

    @property
    def _lock_file(self) -> Path:
        return self.path / ".lock"

    def config(self, data_root: str | None = None) -> Config:
        """The config that the run was started with. Settings that an older ganrun did not know have their defaults.

        data_root: where its data are now, if elsewhere. Raises ValueError where there is no config.
        """
        try:
            config = yaml.safe_load(self.config_file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"run_dir={self.path}: no run there (it has no config.yaml).") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.config_file}: is damaged ({str(error).splitlines()[0]}).") from error
        if not isinstance(config, dict):
            raise ValueError(f"{self.config_file}: is damaged (it holds no settings).")
        if missing := [key for key in NEEDED if key not in config]:
            raise ValueError(f"{self.config_file}: is not that of a run of ganrun (it has no {missing[0]}).")
        config = upgraded_config(config)
        return config if data_root is None else config | {"data": config["data"] | {"root": data_root}}

    def load(self, which: int | str) -> dict[str, Any]:
        """The state in the checkpoint "last", "best", or of a step. Raises ValueError where that is not to be had."""
        if which == "best":
            if not checkpoint.best_path(self.checkpoints).exists():
                raise ValueError(
                    f"run_dir={self.path}: has no checkpoints/best.pt; a run keeps one with train.keep_best, as in "
                    "train.keep_best=ks_100k train.metric_every=1000."
                )
            return checkpoint.load(checkpoint.best_path(self.checkpoints))
        if which != "last":
            return checkpoint.load(checkpoint.path_of(self.checkpoints, int(which)))
        state = checkpoint.load_newest(self.checkpoints)
        if state is None:
            raise ValueError(f"run_dir={self.path}: has no checkpoint yet that can be read.")
        return state

    def write_config(self, config: Config) -> None:
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_atomically(self.config_file, lambda partial: partial.write_text(text))

    def overrides(self) -> list[str]:
        """The settings that were typed to start the run; none where they are not known."""
        try:
            return upgraded_overrides(json.loads(self.command_file.read_text()))
        except (FileNotFoundError, ValueError):
            return []

    def write_overrides(self, overrides: Sequence[str]) -> None:
        text = json.dumps(list(overrides)) + "\n"
        write_atomically(self.command_file, lambda partial: partial.write_text(text))

    def result(self) -> dict[str, Any] | None:
        """What result.json says, or None while the run is under way, or was killed."""
        try:
            result: dict[str, Any] = json.loads(self.result_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return result

    def metric_keys(self) -> dict[str, MetricKey]:
        """What the run's metrics said of their keys; nothing of a run of an earlier version."""
        try:
            found: dict[str, Any] = json.loads(self.metric_keys_file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {name: MetricKey(**key) for name, key in found.items()}

    def describe_metrics(self, keys: Mapping[str, MetricKey]) -> None:
        """Record the properties of metrics' keys, beside those recorded before."""
        known = self.metric_keys()
        if not keys.items() <= known.items():
            text = json.dumps({name: asdict(key) for name, key in (known | dict(keys)).items()}, indent=2) + "\n"
            write_atomically(self.metric_keys_file, lambda partial: partial.write_text(text))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json: `result`, and what `ganrun evaluate` has recorded."""
        text = json.dumps(with_evaluations(result, self.metrics()), indent=2) + "\n"
        write_atomically(self.result_file, lambda partial: partial.write_text(text))

    def log_metrics(self, row: dict[str, Any]) -> None:
        if self._metrics is None:
            self._metrics = self.metrics_file.open("a")
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl, but for a last one that was cut off. Names each other one that is damaged."""
        lines = self.metrics_file.read_bytes().split(b"\n") if self.metrics_file.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield upgraded_row(row)
            elif number < len(lines):  # behind the last one stands nothing
                log.warning("%s: line %d is damaged, and is passed over.", self.metrics_file, number)

    def insert_metrics(self, row: dict[str, Any]) -> None:
        """Put `row` behind those of its step. A value that one of these has under the same key is taken out."""
        rows: list[dict[str, Any]] = []
        for old in self.metrics():
            if old["step"] == row["step"] and (same := {key for key in old if "/" in key and key in row}):
                old = {key: value for key, value in old.items() if key not in same}
                if not any("/" in key for key in old):
                    continue
            rows.append(old)
        rows.insert(bisect.bisect_right(rows, row["step"], key=lambda old: old["step"]), row)
        self._write_metrics(rows)

    def _write_metrics(self, rows: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.metrics_file, lambda partial: partial.write_text(text))

    def sync(self) -> None:
        """See that what is logged reaches the disk: called before a checkpoint that relies on it."""
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())

    def rewind(self, step: int, drop_metrics: bool) -> None:
        """Remove what was logged after `step`, where a run is resumed, and on demand the metrics taken at that step."""
        self.result_file.unlink(missing_ok=True)
        if self.metrics_file.exists():
            last = [row for row in self.metrics() if row["step"] <= step]
            if drop_metrics:
                last = [row for row in last if row["step"] < step or not any(key.startswith("metric/") for key in row)]
            self._write_metrics(last)


def with_evaluations(result: dict[str, Any], rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Among `metrics` where the run itself might have taken them, at its end; else in the list `evaluations`.

    That holds one for each step, seed, and use of G_ema. rows: those of metrics.jsonl.
    """
    metrics = dict(result["metrics"])
    apart: dict[tuple[int, bool, int], dict[str, Any]] = {}
    end = result["steps"] if result["status"] == "finished" else None
    for row in rows:
        if how := row.get("evaluated"):
            found = {key: value for key, value in row.items() if "/" in key}
            if row["step"] == end and all(key.startswith("metric/") for key in found):
                kept = metrics
            else:
                first = {"checkpoint": how["checkpoint"], "step": row["step"], **how, "metrics": {}}
                kept = apart.setdefault((row["step"], how["ema"], how["seed"]), first)["metrics"]
            kept |= {key.partition("/")[2]: value for key, value in found.items()}
    return {**result, "metrics": metrics, **({"evaluations": list(apart.values())} if apart else {})}


def new_run_dir(parent: Path, name: str) -> RunDir:
    """A directory that no other run has, however many start at the same moment."""
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


def check_takes(run_dir: RunDir, config: Config) -> None:
    """Raise ValueError where `config` may not be run in this directory: another run, or files of someone else."""
    path = run_dir.path
    if not run_dir.is_run:
        if any(entry.name not in LEFT_BY_A_KILL for entry in path.iterdir()):
            raise ValueError(f"run_dir={path}: holds files, but no run; name a new directory.")
        return
    before, now = flat(run_dir.config()), flat(config)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    changed = [key for key in changed if key not in MAY_DIFFER]
    if changed:
        named = [f"{key} ({before[key]} there, {now[key]} now)" for key in changed if key in before and key in now]
        named += [key for key in changed if key not in before or key not in now]
        raise ValueError(
            f"run_dir={path}: holds a run with another config, which differs in {', '.join(named)}. "
            f"Name a new run_dir, or continue that run with `ganrun resume run_dir={shlex.quote(str(path))}`."
        )


def lock(file: IO[str]) -> None:
    """Raise OSError where another process holds `file`. Where the system has no flock, do nothing."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
