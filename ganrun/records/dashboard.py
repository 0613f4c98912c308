"""TensorBoard: the only module that writes to it."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ganrun.names import flat
from ganrun.records.checkpoint import write_atomically
from ganrun.records.run_dir import MAY_DIFFER


class Dashboard:
    """The event file of one run, in its directory."""

    def __init__(self, folder: Path, max_queue: int = 1000) -> None:
        self.writer = SummaryWriter(str(folder), max_queue=max_queue)

    def config(self, config: Mapping[str, Any]) -> None:
        self.text("config", yaml.safe_dump(dict(config), sort_keys=False), 0)

    def text(self, tag: str, text: str, step: int) -> None:
        """Text as it stands, in a fixed width."""
        self.writer.add_text(tag, "    " + text.replace("\n", "\n    "), step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """An image (H, W, 3) of uint8."""
        self.writer.add_image(tag, image, step, dataformats="HWC")

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """One row of the HParams page. Written through this run's own writer: add_hparams would start a second run."""
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
    """Drop the events after `step` from the event files, so that a resumed curve neither doubles nor jumps back.

    A record at the end that was cut off by a kill goes too, as does the HParams row, which a run writes as its last
    deed, and on demand the metrics and the diagnosis of that step. With step < 0 nothing is kept.
    """
    from tensorboard.compat.proto.event_pb2 import Event

    def keep(event: Event) -> bool:
        tags = [value.tag for value in event.summary.value]
        if any(tag.startswith("_hparams_") for tag in tags) or event.step > step:
            return False
        at_end = any(tag.startswith(("metric/", "diagnosis")) for tag in tags)
        return not (drop_metrics and event.step == step and at_end)

    for path in folder.glob("events.out.tfevents.*"):
        kept = b"".join(frame for frame in _frames(path.read_bytes()) if keep(Event.FromString(frame[12:-4])))
        if kept:
            write_atomically(path, partial(Path.write_bytes, data=kept))
        else:
            path.unlink()


def _frames(data: bytes) -> Iterator[bytes]:
    """The whole records of an event file: length (8 bytes), its checksum (4), an Event, its checksum (4)."""
    start = 0
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 8], "little") + 4
        if end > len(data):
            return
        yield data[start:end]
        start = end
