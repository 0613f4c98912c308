"""The fit and wall time of the heights GAN with seeds 0-9. Writes benchmarks/heights.json.

Each seed runs in its own process, `ganrun experiment=heights seed=S`; the time includes start-up. The fit is that of
100,000 samples to N(69, 3). The project requires medians of |mean - 69| <= 0.05, |std - 3| <= 0.05, KS <= 0.01, a mass
beyond two standard deviations within 10% of the true one, and 15 s.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

OUT = Path(__file__).with_suffix(".json")


def one(seed: int, folder: str) -> dict[str, float]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ganrun", "experiment=heights", f"seed={seed}", f"run_dir={folder}/{seed}"],
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - start
    metrics = json.loads(Path(folder, str(seed), "result.json").read_text())["metrics"]
    return {"seed": seed, "exit_code": done.returncode, "seconds": round(seconds, 2), **metrics}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for seed in range(10):
            rows.append(one(seed, folder))
            print(rows[-1], flush=True)
    tail = [round(row["tail_mass_2sigma_100k"] / row["tail_mass_2sigma_true"], 4) for row in rows]
    summary = {
        "median |mean - 69|": statistics.median(abs(row["mean_100k"] - 69) for row in rows),
        "median |std - 3|": statistics.median(abs(row["std_100k"] - 3) for row in rows),
        "median KS": statistics.median(row["ks_100k"] for row in rows),
        "largest KS": max(row["ks_100k"] for row in rows),
        "median tail mass beyond 2 sigma / truth": statistics.median(tail),
        "least and largest tail mass / truth": [min(tail), max(tail)],
        "median seconds": statistics.median(row["seconds"] for row in rows),
        "diverged": sum(row["exit_code"] != 0 for row in rows),
    }
    print(json.dumps(summary, indent=2))
    OUT.write_text(json.dumps({"machine": describe(), "summary": summary, "seeds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
