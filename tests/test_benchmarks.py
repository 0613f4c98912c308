"""Benchmarks run, with less to measure, and report what failed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO, write_mnist


@pytest.mark.slow
def test_benchmark_of_gpus_measures_all_its_parts_on_a_cpu(tmp_path: Path) -> None:
    line = [sys.executable, str(REPO / "benchmarks" / "gpu.py"), "--device=cpu", "--nets", "dcgan"]
    line += [f"--out={tmp_path}/gpu.json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["machine"]["small"] is True
    cases = [f"dcgan {precision}" for precision in ("fp32", "bf16", "fp16")]
    assert {*cases} <= found["speed"].keys() == found["resume bit for bit"].keys()
    assert set(found["resume bit for bit"].values()) == {True}
    for speeds in found["speed"].values():
        assert min(speeds.values()) > 0
    assert found["digits"]["data"] == "data=digits"
    assert "parzen_500" in found["digits"]
    assert "| dcgan fp32 |" in done.stdout
    assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.slow
def test_benchmark_of_speed_takes_turns_with_a_bare_loop() -> None:
    code = "import speed; speed.TURNS = 1; speed.Turns.__init__.__defaults__ = (1,); print(speed.wgan_gp_cost())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'ganrun wgan_gp on an MLP / bare': " in done.stdout


def figures_of(code: str) -> Any:
    """What the last line of a benchmark's function prints, as JSON."""
    line = [sys.executable, "-c", f"import json; {code}"]
    done = subprocess.run(line, cwd=REPO / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_benchmark_of_steps_tells_where_the_time_goes() -> None:
    small = "import step; step.SIDE, step.BATCH, step.STEPS = 64, 4, {'dcgan': 1}; "
    found = figures_of(small + "print(json.dumps(step.measure('dcgan', 'fp32')))")
    assert found["10^9 operations of a step"] == pytest.approx(26.9 * 4 / 64, abs=0.1)
    shares = found["share of the time"]
    assert shares.keys() >= {"convolutions", "batch norm", "optimizer"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_benchmark_of_peers_measures_both_loops(tmp_path: Path) -> None:
    small = f"import os, peers; peers.STEPS = {{'dataloader': (1, 2)}}; os.chdir({str(tmp_path)!r}); "
    for who in ("peer", "bf16"):
        assert figures_of(f"{small}print(json.dumps(peers.measure('dataloader', {who!r})))") > 0


@pytest.mark.slow
def test_benchmark_of_samples_measures_the_command(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    line = [sys.executable, str(REPO / "benchmarks" / "samples.py"), "--nums", "3", "70", f"--out={tmp_path}/a.json"]
    trains = {**os.environ, "GANRUN_DATA": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*line, "data.verify=false", "data.num_valid=10"], capture_output=True, text=True, env=trains)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "a.json").read_text())["samples"]
    assert [row["num"] for row in rows] == [3, 70]
    assert all(row["cpu_seconds"] > 0 and row["peak_mib"] > 50 for row in rows)
