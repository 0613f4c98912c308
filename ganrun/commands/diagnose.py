"""`ganrun diagnose run_dir=DIR`: what went wrong in a run, if anything."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganrun.build import build, choose_device
from ganrun.checks import check_arguments
from ganrun.diagnosis.examine import measure
from ganrun.diagnosis.verdict import diagnose
from ganrun.loop import check_same_data
from ganrun.names import Config
from ganrun.records.run_dir import RunDir

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class DiagnoseOptions:
    """The settings of conf/diagnose.yaml."""

    run_dir: str
    data: Config
    checkpoint: int | Literal["last", "best"]
    device: str


def main(config: Config, name: str = "") -> int:
    """Print every finding in full. Raises ValueError where there is no run, or no checkpoint of it."""
    check_arguments("", DiagnoseOptions, config)
    options = DiagnoseOptions(**config)
    run_dir = RunDir(Path(options.run_dir))
    stored = run_dir.config(options.data.get("root"))
    state = run_dir.load(options.checkpoint)
    choose_device(options.device, "device")
    run = build({**stored, "train": {**stored["train"], "device": options.device}})
    check_same_data(run, run_dir, state)
    run.load_state_dict(state)
    result = run_dir.result() or {}
    last = options.checkpoint == "last"
    rows = [row for row in run_dir.metrics() if last or row["step"] <= state["step"]]
    measurements = measure(run, rows, diverged=last and result.get("status") == "diverged")
    found = diagnose(measurements, stored, run_dir.overrides(), run.dataset.spec.is_image)
    log.info("run        %s, step %s", run_dir.path, f"{state['step']:,}")
    log.info(found.text())
    return 0
