"""The time and memory of `ganrun sample` on a DCGAN of MNIST's size. Its weights do not matter: it is trained 2 steps.

Writes benchmarks/samples.json: for 1,000, 10,000 and 100,000 samples the wall time and the CPU time of the command, its
start included, and its peak memory. Needs MNIST under GANRUN_DATA or in data/. Takes a minute on two idle cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

OUT = Path(__file__).with_suffix(".json")
TRAIN = ["data=mnist", "train.steps=2", "train.sample_every=0", "train.diagnose=false", "run_dir=r"]


def measured(num: int, folder: str) -> dict[str, float]:
    """Run the command in `folder`, and measure it."""
    line = [sys.executable, "-m", "ganrun", "sample", "run_dir=r", f"num={num}", "format=npy", "device=cpu"]
    start = time.perf_counter()
    process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"num={num}: the command failed.")
    return {
        "num": num,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nums", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("settings", nargs="*", help="more settings of the training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(os.environ.get("GANRUN_DATA", "data")).absolute()
        subprocess.run(
            [sys.executable, "-m", "ganrun", *TRAIN, *options.settings, f"data.root={data}"], cwd=folder, check=True
        )
        rows = [measured(num, folder) for num in options.nums]
    load, threads = os.getloadavg()[0], os.environ.get("OMP_NUM_THREADS", "all")
    found = {"machine": describe(), "threads": threads, "load_of_the_machine": round(load, 1), "samples": rows}
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
