"""A description of the machine, for the results of benchmarks."""

import os
import platform
from datetime import date
from pathlib import Path

import torch


def describe() -> dict[str, str | int]:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [
            x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x
        ]
        cpu = names[0] if names else cpu
    return {"date": str(date.today()), "cpu": cpu, "cores": os.cpu_count() or 0, "torch": torch.__version__}
