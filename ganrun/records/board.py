"""All that a run logs: to TensorBoard, and to the trackers that were chosen."""

import json
import logging
import re
import secrets
import warnings
from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any

import numpy as np

from ganrun.checks import fits
from ganrun.config import Config, flat
from ganrun.protocols import TrackedRun, Tracker
from ganrun.records.checkpoint import write_atomically
from ganrun.records.dashboard import Dashboard
from ganrun.records.hparams import leading, settings_of
from ganrun.records.run_dir import RunDir, with_evaluations
from ganrun.records.shapes import read_json, require

log = logging.getLogger("ganrun")

LONGEST = 200  # characters of a tracker's error


class Board:
    """Logs every value to TensorBoard and to all trackers.

    An error of TensorBoard's events, which are records of the run, ends the run. No error of a tracker does: there is
    one warning, and nothing more is logged to it by this process.
    """

    def __init__(self, run_dir: RunDir, trackers: Mapping[str, Tracker]) -> None:
        self.run_dir, self.trackers = run_dir, dict(trackers)
        self.dashboard: Dashboard | None = None

    def open(self, config: Config, is_new: bool) -> None:
        """Begin to log, after the records of a resumed run were rewound.

        Trackers get all rows of metrics.jsonl, and log those that they lack: from before they were chosen, or from
        when their server was down.
        """
        self.settings = settings_of(config, self.run_dir.overrides() if self.run_dir.command_file.exists() else None)
        self.dashboard = Dashboard(self.run_dir.path)
        if is_new:
            self.dashboard.config(config)
        self._start_trackers(config)

    def _start_trackers(self, config: Config) -> None:
        known = known_trackers(self.run_dir)
        for name in sorted(known.trackers - self.trackers.keys()):
            log.info("tracker    this run was also logged to %s; tracker=%s goes on there", name, name)
        if not self.trackers:
            return
        known.trackers.update(self.trackers)
        known.write(self.run_dir)
        run = TrackedRun(self.run_dir.path.resolve(), known.id, config, flat(config), dict(self.settings))
        self._to_trackers(lambda tracker: tracker.start(run))
        for row in self.run_dir.rows() if self.trackers else ():
            self._scalars_to_trackers({tag: value for tag, value in row.items() if "/" in tag}, row["step"])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._opened.scalars(values, step)
        self._scalars_to_trackers(values, step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Log an image, uint8 (H, W, 3)."""
        self._opened.image(tag, image, step)
        self._to_trackers(lambda tracker: tracker.image(tag, image, step))

    def text(self, tag: str, text: str, step: int) -> None:
        self._opened.text(tag, text, step)
        self._to_trackers(lambda tracker: tracker.text(tag, text, step))

    def hparams(self, metrics: Mapping[str, float], ending: str, step: int) -> None:
        """Log the row of TensorBoard's HParams page. ending: finished, diverged or interrupted."""
        if ending == "finished":  # with the metrics that `ganrun evaluate` has computed at this step
            result = {"status": ending, "steps": step, "metrics": dict(metrics)}
            metrics = with_evaluations(result, self.run_dir.rows())["metrics"]
        self._opened.hparams(self.settings, leading(metrics, self.run_dir.metric_keys()), ending, step)

    def flush(self) -> None:
        self._opened.flush()

    def close(self) -> None:
        """Close TensorBoard's events. The trackers still wait for the result."""
        if self.dashboard:
            self.dashboard.close()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Log the result, the content of result.json, to the trackers, and end them."""
        self._to_trackers(lambda tracker: tracker.finish(result))

    @property
    def _opened(self) -> Dashboard:
        assert self.dashboard is not None
        return self.dashboard

    def _scalars_to_trackers(self, values: Mapping[str, float], step: int) -> None:
        self._to_trackers(lambda tracker: tracker.scalars(values, step))

    def _to_trackers(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the library, about its own dependencies
                    action(tracker)
            except Exception as error:
                reason = shorten(next(iter(str(error).strip().splitlines()), ""), LONGEST, placeholder=" ...").rstrip(
                    "."
                )
                text = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
                log.warning("tracker=%s: %s. The run goes on; no more of it is logged there.", name, text)
                log.debug("traceback", exc_info=True)
                del self.trackers[name]


class KnownTrackers:
    """tracker.json: the id under which trackers know the run, and the trackers that it was logged to.

    The id is not made from the config: a run with the same config in another directory is another run.
    """

    def __init__(self, found: Any = None) -> None:
        """found: the content of the file. Raises ValueError if it has another shape."""
        found = {"id": secrets.token_hex(8), "trackers": []} if found is None else found
        require(isinstance(found, dict) and fits(found.get("trackers"), list[str]), "it has no list of trackers")
        require(re.fullmatch("[0-9a-f]{16}", str(found.get("id"))) is not None, "it has no id")
        self.id: str = found["id"]
        self.trackers: set[str] = set(found["trackers"])

    def write(self, run_dir: RunDir) -> None:
        text = json.dumps({"id": self.id, "trackers": sorted(self.trackers)}) + "\n"
        if not run_dir.tracker_file.exists() or run_dir.tracker_file.read_text() != text:
            write_atomically(run_dir.tracker_file, lambda partial: partial.write_text(text))


def known_trackers(run_dir: RunDir) -> KnownTrackers:
    return read_json(run_dir.tracker_file, KnownTrackers) or KnownTrackers()
