"""Event files of TensorBoard. No other module writes them."""

import contextlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import summary

from ganrun.config import flat
from ganrun.records.checkpoint import errors_name, write_atomically
from ganrun.records.event_file import content_of, record, sound_records
from ganrun.records.state import MAY_DIFFER

log = logging.getLogger("ganrun")

EVENT_FILES = "events.out.tfevents.*"


NUMBERS = itertools.count()  # of the event files of this process


class Dashboard:
    """The event file of one run, in its directory. An OSError, as of a full disk, names the file."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(NUMBERS)}"
        self.path = folder / name
        self.file = self.path.open("xb")
        self._write([Event(wall_time=time.time(), file_version="brain.Event:2")])

    def config(self, config: Mapping[str, Any]) -> None:
        self.text("config", yaml.safe_dump(dict(config), sort_keys=False), 0)

    def text(self, tag: str, text: str, step: int) -> None:
        """Add a text in a fixed-width font."""
        self._add([summary.text(tag, _utf8("    " + text.replace("\n", "\n    ")))], step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._add([summary.scalar(tag, value) for tag, value in values.items()], step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add an image, uint8 (H, W, 3)."""
        self._add([summary.image(tag, image, dataformats="HWC")], step)

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Add the run's row of the HParams page. SummaryWriter.add_hparams would add it as a second run."""
        settings = {key: value for key, value in flat(config).items() if key not in MAY_DIFFER}
        plain = {
            key.removesuffix("._target_"): value.rpartition(".")[2] if key.endswith("_target_") else value
            for key, value in settings.items()
        }
        plain = {k: v if isinstance(v, bool | int | float) else _utf8(str(v)) for k, v in plain.items()}
        self._add(summary.hparams(plain, {f"metric/{key}": value for key, value in metrics.items()}), 0)

    def _add(self, summaries: Iterable[Any], step: int) -> None:
        self._write([Event(wall_time=time.time(), step=step, summary=found) for found in summaries])

    def _write(self, events: Iterable[Event]) -> None:
        try:
            with errors_name(self.path):
                self.file.write(b"".join(record(event.SerializeToString()) for event in events))
                self.file.flush()
        except OSError:
            self.close()
            raise

    def flush(self) -> None:
        """Flush the events to the disk. Called before a checkpoint is written, since it relies on them."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a write that failed, and is tried again
            self.file.close()


def rewind(folder: Path, step: int, again: Callable[[str], bool] = lambda tag: False) -> None:
    """Remove the events after `step` from the event files, so that a resumed run does not log them twice.

    The HParams row, which a run writes at its end, is removed too, and so are damaged records, with a warning, and an
    incomplete last one, which a killed run may leave. again: whether events with a tag at `step` are removed, too,
    because they will be logged again. With step < 0 nothing is kept.
    """

    def keep(event: Event) -> bool:
        tags = [value.tag for value in event.summary.value]
        if any(tag.startswith("_hparams_") for tag in tags) or event.step > step:
            return False
        return event.step < step or not any(map(again, tags))

    for path in _event_files(folder):
        kept = b"".join(frame for frame, event in _events(path) if keep(event))
        if kept:
            write_atomically(path, partial(Path.write_bytes, data=kept))
        else:
            path.unlink()


def _utf8(text: str) -> str:
    """The text without the undecodable bytes that a path can have."""
    return text.encode(errors="replace").decode()


def insert(folder: Path, step: int, write: Callable[[Dashboard], None]) -> None:
    """Let `write` add events of `step`. They replace events with the same tags at this step.

    They are inserted before the events of later steps. If steps decrease in a file, TensorBoard assumes that the run
    was restarted, and discards the events of later steps.
    """
    with TemporaryDirectory() as scratch:
        board = Dashboard(Path(scratch))
        write(board)
        board.close()
        new = [(frame, event) for path in Path(scratch).iterdir() for frame, event in _events(path) if _tags(event)]
    tags = {tag for _, event in new for tag in _tags(event)}
    if not _event_files(folder):
        Dashboard(folder).close()
    files = {path: list(_events(path)) for path in _event_files(folder)}
    place = next((p for p, old in files.items() if any(event.step > step for _, event in old)), list(files)[-1])
    for path, old in files.items():
        kept = [(frame, event) for frame, event in old if event.step != step or not _tags(event) & tags]
        if path == place:
            later = next((i for i, (_, event) in enumerate(kept) if event.step > step), len(kept))
            kept[later:later] = new
        if (data := b"".join(frame for frame, _ in kept)) != path.read_bytes():
            write_atomically(path, partial(Path.write_bytes, data=data))


def _event_files(folder: Path) -> list[Path]:
    """The event files, oldest first. Incomplete copies, which a killed process may leave, are removed."""
    for unfinished in folder.glob(f"{EVENT_FILES}.partial"):
        unfinished.unlink()
    return sorted(folder.glob(EVENT_FILES))


def _tags(event: Event) -> set[str]:
    return {value.tag for value in event.summary.value}


def _events(path: Path) -> list[tuple[bytes, Event]]:
    """The sound records of a file with their events. Warns if there are others."""
    records, damaged = sound_records(path.read_bytes())
    found = []
    for frame in records:
        try:
            found.append((frame, Event.FromString(content_of(frame))))
        except Exception:  # protobuf's DecodeError: the record of another program
            damaged += len(frame)
    if damaged:
        log.warning("%s: %s bytes are damaged; the events in them are dropped.", path, f"{damaged:,}")
    return found
