"""Event files of TensorBoard. No other module writes them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ganrun.config import flat
from ganrun.records.checkpoint import write_atomically
from ganrun.records.run_dir import MAY_DIFFER

EVENT_FILES = "events.out.tfevents.*"


class Dashboard:
    """The event file of one run, in its directory."""

    def __init__(self, folder: Path, max_queue: int = 1000) -> None:
        self.writer = SummaryWriter(str(folder), max_queue=max_queue)

    def config(self, config: Mapping[str, Any]) -> None:
        self.text("config", yaml.safe_dump(dict(config), sort_keys=False), 0)

    def text(self, tag: str, text: str, step: int) -> None:
        """Add a text in a fixed-width font."""
        self.writer.add_text(tag, "    " + text.replace("\n", "\n    "), step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add an image, uint8 (H, W, 3)."""
        self.writer.add_image(tag, image, step, dataformats="HWC")

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Add the run's row of the HParams page. SummaryWriter.add_hparams would add it as a second run."""
        settings = {key: value for key, value in flat(config).items() if key not in MAY_DIFFER}
        plain = {
            key.removesuffix("._target_"): value.rpartition(".")[2] if key.endswith("_target_") else value
            for key, value in settings.items()
        }
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in plain.items()}
        for proto in hparams(plain, {f"metric/{key}": value for key, value in metrics.items()}):
            self.writer._get_file_writer().add_summary(proto)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def rewind(folder: Path, step: int, drop_metrics: bool) -> None:
    """Remove the events after `step` from the event files, so that a resumed run does not log them twice.

    The HParams row, which a run writes at its end, is removed too, and so is an incomplete last record, which a killed
    run may leave. drop_metrics: whether to remove also the metrics, their pictures and the diagnosis of `step` itself.
    With step < 0 nothing is kept.
    """

    def keep(event: Event) -> bool:
        tags = [value.tag for value in event.summary.value]
        if any(tag.startswith("_hparams_") for tag in tags) or event.step > step:
            return False
        return not (drop_metrics and event.step == step and any(map(_is_from_evaluation, tags)))

    for path in _event_files(folder):
        kept = b"".join(frame for frame, event in _events(path) if keep(event))
        if kept:
            write_atomically(path, partial(Path.write_bytes, data=kept))
        else:
            path.unlink()


def _is_from_evaluation(tag: str) -> bool:
    """Whether the tag is that of a metric, of a metric's picture, or of the diagnosis."""
    return tag.startswith(("metric/", "metric_raw/", "diagnosis")) or (
        tag.startswith("samples/") and tag != "samples/fixed_z"
    )


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
        if kept != old:
            write_atomically(path, partial(Path.write_bytes, data=b"".join(frame for frame, _ in kept)))


def _event_files(folder: Path) -> list[Path]:
    """The event files, oldest first. Incomplete copies, which a killed process may leave, are removed."""
    for unfinished in folder.glob(f"{EVENT_FILES}.partial"):
        unfinished.unlink()
    return sorted(folder.glob(EVENT_FILES))


def _tags(event: Event) -> set[str]:
    return {value.tag for value in event.summary.value}


def _events(path: Path) -> Iterator[tuple[bytes, Event]]:
    return ((frame, Event.FromString(frame[12:-4])) for frame in _frames(path.read_bytes()))


def _frames(data: bytes) -> Iterator[bytes]:
    """The complete records of an event file: length (8 bytes), its checksum (4), an Event, its checksum (4)."""
    start = 0
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 8], "little") + 4
        if end > len(data):
            return
        yield data[start:end]
        start = end
