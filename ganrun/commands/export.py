"""`ganrun export run_dir=DIR format=onnx`: write a network of a run for other programs, with a model card."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ganrun.checks import check_arguments
from ganrun.config import Config
from ganrun.export.source import FormatName
from ganrun.records.run_dir import RunDir
from ganrun.training.load import LoadedRun

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class ExportOptions:
    """The settings of conf/export.yaml."""

    run_dir: str
    format: FormatName | Sequence[FormatName]
    net: Literal["G", "D"]
    checkpoint: int | Literal["last", "best"]
    ema: bool
    uint8: bool
    out: str | None


def main(config: Config, name: str = "") -> int:
    """Write the files, and print how much they differ from the network. Raises ValueError if that cannot work."""
    check_arguments("", ExportOptions, config)
    options = ExportOptions(**config)
    run_dir = RunDir(Path(options.run_dir))
    loaded = LoadedRun(run_dir, options.checkpoint, torch.device("cpu"))
    run_dir.check_links()
    weights = "D" if options.net == "D" else "G_ema" if options.ema and loaded.G_ema is not None else "G"
    log.info("network    %s of %s, step %s", weights, run_dir.path, f"{loaded.step:,}")
    loaded.export(options.format, options.out, options.net, options.ema, options.uint8)
    return 0
