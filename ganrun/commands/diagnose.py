"""`ganrun diagnose run_dir=DIR`: problems of a run, and remedies."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganrun.checks import check_arguments
from ganrun.config import Config
from ganrun.records.run_dir import RunDir
from ganrun.training.evaluation import Evaluation
from ganrun.training.load import LoadedRun
from ganrun.training.runtime import choose_device

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class DiagnoseOptions:
    """The settings of conf/diagnose.yaml."""

    run_dir: str
    data: Config
    checkpoint: int | Literal["last", "best"]
    device: str


def main(config: Config, name: str = "") -> int:
    """Print all findings in full. Raises ValueError if there is no run, or no such checkpoint."""
    check_arguments("", DiagnoseOptions, config)
    options = DiagnoseOptions(**config)
    run_dir = RunDir(Path(options.run_dir))
    loaded = LoadedRun(run_dir, options.checkpoint, choose_device(options.device, "device"), options.data.get("root"))
    last = options.checkpoint == "last"
    diverged = last and (loaded.result or {}).get("status") == "diverged"
    rows = [row for row in loaded.history() if last or row["step"] <= loaded.step]
    # The run is built with its metrics, so that the samples are the same as in its own diagnosis.
    evaluation = Evaluation(loaded.build())
    diagnosis = evaluation.diagnosis(rows, loaded.config, run_dir.overrides(), diverged)
    log.info("run        %s, step %s", run_dir.path, f"{loaded.step:,}")
    for line in diagnosis.text().split("\n"):
        log.info(line)
    return 0
