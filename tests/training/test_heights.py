"""The run of `make run` fits the data."""

from pathlib import Path

import pytest
from conftest import Command
from helpers import result_of


@pytest.mark.slow
def test_heights_experiment_fits_the_data(command: Command, tmp_path: Path) -> None:
    """One seed of benchmarks/heights.py, which reports the results of ten."""
    done = command("experiment=heights", "run_dir=r")
    assert done.returncode == 0, done.stderr
    metrics = result_of(tmp_path / "r")["metrics"]
    assert abs(metrics["mean_100k"] - 69) <= 0.1
    assert abs(metrics["std_100k"] - 3) <= 0.1
    assert metrics["ks_100k"] <= 0.02
