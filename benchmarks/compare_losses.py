"""Tune the learning rates of the experiments compare_losses/NAME, on a seed that is not reported, and write them there.

For each job of an experiment, `ganrun search` tries TRIALS rates with seed 100. The best one, rounded to two digits,
replaces that of the job in conf/experiment/compare_losses/NAME.yaml. The searches stay in outputs/tuning/NAME; the same
command continues them. Run: `python benchmarks/compare_losses.py heights heights_controlled ring ...`, or for some
losses alone `python benchmarks/compare_losses.py mnist --losses wgan_gp rpgan`.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import yaml
from machine import describe

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf/experiment/compare_losses"
OUT = Path(__file__).with_suffix(".json")
LINE = re.compile(r"^  - \[.*optimizer\.lr=([0-9.e+-]+)")
TRIALS = {"heights": 12, "ring": 5, "mnist": 4}
METRIC = {"heights": "ks_100k", "ring": "jsd_128x128bins_100k", "mnist": "fd_mnistcnn_10k"}
RATES = {"heights": (1e-4, 0.1), "ring": (1e-4, 0.1), "mnist": (5e-5, 5e-3)}  # SGD: 30 times as large
QUIET = ["train.metric_every=0", "train.sample_every=0", "train.frame_every=0", "train.checkpoint_every=0"]
SGD = 30


def search(name: str, job: list[str], folder: Path) -> dict[str, float]:
    """The best rate of one job, with the value of its metric."""
    data = name.partition("_")[0]
    low, high = (rate * (SGD if "optimizer=momentum" in job else 1) for rate in RATES[data])
    settings = [line for line in job if not line.startswith(("optimizer.lr=", "train.metric_every="))]
    command = ["search", f"experiment=compare_losses/{name}", *settings, *QUIET, "train.diagnose=false"]
    command += [f"optimizer.lr=tag(log,interval({low:g},{high:g}))", "seed=100", f"run_dir={folder}"]
    command += [f"search.metric={METRIC[data]}", f"search.trials={TRIALS[data]}", "search.jobs=2"]
    subprocess.run([sys.executable, "-m", "ganrun", *command], check=True, cwd=ROOT)
    values = {}
    for run in folder.glob("trial_*/seed=100"):
        result = json.loads((run / "result.json").read_text())
        if result["status"] == "finished":
            rate = yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"]
            values[rate] = result["metrics"][METRIC[data]]
    best = min(values, key=lambda rate: values[rate])
    return {"lr": float(f"{best:.2g}"), "value": values[best], "finished": len(values)}


def tune(name: str, losses: list[str] | None) -> None:
    """Tune the jobs of an experiment with these losses, or all, and write each rate into its file after its search."""
    path = CONF / f"{name}.yaml"
    jobs = yaml.safe_load(path.read_text())["jobs"]
    for number, job in enumerate(jobs):
        if losses is not None and job[0].removeprefix("loss=") not in losses:
            continue
        own = [line for line in job if not line.startswith("optimizer.lr=")]
        found = search(name, job, ROOT / "outputs/tuning" / name / str(number))
        lines = path.read_text().splitlines()
        index = [i for i, line in enumerate(lines) if LINE.match(line)][number]
        lines[index] = re.sub(r"optimizer\.lr=[0-9.e+-]+", f"optimizer.lr={found['lr']:g}", lines[index])
        path.write_text("\n".join(lines) + "\n")
        result = json.loads(OUT.read_text()) if OUT.exists() else {}
        result["machine"] = describe()
        result.setdefault(name, {})[" ".join(own)] = found
        OUT.write_text(json.dumps(result, indent=2) + "\n")
        print(name, own, found, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", help="of experiments, as in mnist_controlled")
    parser.add_argument("--losses", nargs="+", help="only these")
    options = parser.parse_args()
    for experiment in options.names:
        tune(experiment, options.losses)
