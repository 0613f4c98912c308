"""Weights & Biases, <https://docs.wandb.ai>. Without `online`, nothing is sent: the files are for `wandb sync`."""

import os
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ganrun.protocols import TrackedRun, Tracker
from ganrun.tracker.installed import check_installed

ONLINE_TIMEOUT = 30.0, 60.0  # seconds to wait for the server, at the start and at the end
WRITING_TIMEOUT = 10.0  # seconds
BLOCK, HEADER = 32768, 7  # bytes, of a .wandb file
FULL, LAST = 1, 4  # kinds of its chunks that end a record


class WandB(Tracker):
    """A run of Weights & Biases, in RUN_DIR/wandb.

    Its steps only increase, so a resumed run logs nothing up to the last step there. Each process writes files of its
    own, under the same id; they belong to one run on the server. Raises ValueError if wandb is not installed.
    """

    def __init__(self, project: str = "ganrun", entity: str | None = None, online: bool = False) -> None:
        self.project, self.entity, self.online = project, entity, online
        check_installed("wandb", extra="wandb")

    def start(self, run: TrackedRun) -> None:
        if not self.online:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which the library reads when it is imported
        if f"-{os.getpid()}-" not in os.environ.get("WANDB_SERVICE", ""):
            os.environ.pop("WANDB_SERVICE", None)  # of a parent process, which may end before this one
        import wandb

        if self.online and not wandb.login(prompt=False):
            raise ValueError("there is no API key; run `wandb login` once, or set WANDB_API_KEY")
        self.offset = int(run.config["train"]["pretrain_d"])  # its steps start at 0
        self.last = last_step(run.path / "wandb", run.id)
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.id,
            name=run.path.name,
            group=run.sweep,
            config={**run.config, "typed": run.typed},
            dir=str(run.path),
            mode="online" if self.online else "offline",
            resume="allow",
            reinit="create_new",
            settings=_settings(wandb),
        )
        for link in run.path.glob("wandb/*/logs/debug-core.log"):  # to a folder outside the run directory
            if link.is_symlink():
                link.unlink()
        self.last = max(self.last, self.run.starting_step - 1)  # of the server
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._log(dict(values), step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        import wandb

        self._log({tag: wandb.Image(image)}, step)

    def text(self, tag: str, text: str, step: int) -> None:
        self.run.summary[tag] = text

    def finish(self, result: Mapping[str, Any]) -> None:
        plain = {k: v for k, v in result.items() if isinstance(v, str | int | float | bool)}
        self.run.summary.update({f"result/{key}": value for key, value in plain.items()})
        self.run.summary.update({f"final/{key}": value for key, value in result["metrics"].items()})
        self.run.finish(exit_code=0 if result["status"] in ("finished", "interrupted") else 1)
        self._wait_for_file()

    def _wait_for_file(self) -> None:
        """Wait until the library's own process has written the end of the file, which a resumed run reads."""
        path = Path(self.run.settings.sync_file)
        until = time.monotonic() + WRITING_TIMEOUT
        while not any(record.HasField("exit") for record in records(path)) and time.monotonic() < until:
            time.sleep(0.01)

    def _log(self, values: dict[str, Any], step: int) -> None:
        if step + self.offset > self.last:
            self.run.log({**values, "step": step}, step=step + self.offset)


def _settings(wandb: Any) -> Any:
    """No output, no console capture, no facts about machine, code and packages, and nothing outside the folder."""
    return wandb.Settings(
        silent=True,
        console="off",
        symlink=False,
        use_dot_wandb=False,
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=1.0,
        init_timeout=ONLINE_TIMEOUT[0],
        finish_timeout=ONLINE_TIMEOUT[1],
    )


def last_step(folder: Path, run_id: str) -> int:
    """The last step of wandb's own count in the files of a run; -1 if there is none."""
    files = folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb")
    return max((_step(record) for file in files for record in records(file)), default=-1)


def _step(record: Any) -> int:
    steps = (item.value_json for item in record.history.item if "_step" in (item.key, *item.nested_key))
    return int(next(steps, -1))


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, wandb_internal_pb2.Record, up to its end or the first incomplete one.

    It has the format of LevelDB's logs, after a header of 7 bytes: chunks with a checksum (4 bytes), a length (2) and
    a kind (1), none of which crosses the border of a block of 32 KiB.
    """
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # whose classes mypy does not see
    data, place, parts = path.read_bytes(), HEADER, b""
    while len(data) - place >= HEADER:
        if (left := BLOCK - place % BLOCK) < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        content = data[place + HEADER : place + HEADER + length]
        if not FULL <= kind <= LAST or len(content) < length:
            return
        place, parts = place + HEADER + length, parts + content
        if kind in (FULL, LAST):
            yield messages.Record.FromString(parts)
            parts = b""
