"""Do samples help a classifier, and do D's features help a linear one? Writes benchmarks/augmentation.json.

    python benchmarks/augmentation.py [--data mnist fer2013] [--runs all few unconditional] [--steps 3000] [--seeds 5]

Three runs on each data set, which the tables of metric=augmentation_gain and metric=linear_probe share:
- all: a conditional DCGAN that is trained with the labels of all training examples;
- few: the same with the first `FEW` training examples and labels only, all that its classifier has, too;
- unconditional: a DCGAN without labels, for the linear probe alone.
The classifier of augmentation_gain has 10, 100 or 1,000 real examples of each class, and 10,000 samples. Accuracy is
measured on the test split. Intervals are at the 95 % level.

Trainings are run directories in outputs/augmentation/, whose result.json has the metrics: a campaign that was stopped
goes on, and what is finished is not computed again. GANRUN_DATA must be set.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import describe

OUT = Path(__file__).with_suffix(".json")
RUNS = Path("outputs/augmentation")
FEW = {"mnist": 1000, "fer2013": 700}
DCGAN = [
    "arch.generator.width=32", "arch.discriminator.width=32", "optimizer.lr=0.001", "schedule=linear",
    "train.precision=bf16", "train.ema=0.999", "train.sample_every=1000", "train.checkpoint_every=500",
    "train.diagnose=false",
]  # fmt: skip
CONDITIONAL = ["condition=concat"]
PROBE = ["metric.linear_probe.split=test", "metric.linear_probe.num_test=5000"]


def settings_of(data: str, run: str, steps: int, seeds: int) -> list[str]:
    """The settings of a run, with those of its metrics."""
    found = [f"data={data}", *DCGAN, f"train.steps={steps}"]
    probe = [*PROBE, f"metric.linear_probe.seeds={seeds}"]
    if run == "unconditional":
        return [*found, "metric=linear_probe", *probe]
    gain = ["metric.augmentation_gain.split=test", f"metric.augmentation_gain.seeds={seeds}"]
    if run == "few":
        labelled = [f"data.num={FEW[data]}", "metric.augmentation_gain.num_labelled=[10,100]", "augment=diffaugment"]
        return [*found, *CONDITIONAL, *labelled, "metric=augmentation_gain", *gain]
    return [*found, *CONDITIONAL, "metric=[augmentation_gain,linear_probe]", *gain, *probe]


def result_of(data: str, run: str, settings: Sequence[str]) -> dict[str, Any]:
    """result.json of a run, which is trained or resumed unless it is finished."""
    run_dir = RUNS / f"{data}_{run}"
    path = run_dir / "result.json"
    if not path.exists() or json.loads(path.read_text())["status"] != "finished":
        subprocess.run([sys.executable, "-m", "ganrun", *settings, f"run_dir={run_dir}"], check=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def table(metrics: dict[str, float]) -> list[str]:
    """The gains with their intervals, and the accuracies of the probe, as lines."""
    lines = []
    for key, value in metrics.items():
        if key.startswith("augmentation_gain") and not key.endswith(("_low", "_high")):
            n, real = key.split("_")[3], metrics[f"accuracy_real_{'_'.join(key.split('_')[2:4])}"]
            low, high = (metrics[f"{key}_{end}"] for end in ("low", "high"))
            lines.append(f"  n={n:5} real {real:.4f}  with samples {value:+.4f} [{low:+.4f}, {high:+.4f}]")
        elif key.startswith("probe") and not key.endswith("_std"):
            lines.append(f"  {key:32} {value:.4f} +- {metrics[f'{key}_std']:.4f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(FEW), default=list(FEW))
    parser.add_argument(
        "--runs", nargs="+", choices=["all", "few", "unconditional"], default=["all", "few", "unconditional"]
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    if not os.environ.get("GANRUN_DATA"):
        parser.error("GANRUN_DATA must name a folder with the data")
    for data in given.data:
        for run in given.runs:
            settings = settings_of(data, run, given.steps, given.seeds)
            result = result_of(data, run, settings)
            print(f"{data}, {run}, {result['wall_time']:.0f} s", *table(result["metrics"]), sep="\n", flush=True)
            found = {
                "command": f"ganrun {' '.join(settings)}", "seconds": round(result["wall_time"]),
                "metrics": {key: round(value, 4) for key, value in result["metrics"].items()},
                "protocols": result.get("protocols"),
            }  # fmt: skip
            before = json.loads(OUT.read_text()) if OUT.exists() else {}
            OUT.write_text(json.dumps({**before, "machine": describe(), f"{data}, {run}": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
