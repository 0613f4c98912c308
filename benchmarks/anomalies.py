"""Anomaly scores against planted outliers, held-out digits and a public table. Writes benchmarks/anomalies.json.

    python benchmarks/anomalies.py heights [--seeds 3]
    python benchmarks/anomalies.py mnist [--digits 0 1 2] [--seeds 3] [--steps 1500] [--recipe acgan]
    python benchmarks/anomalies.py table [--seeds 10]

heights: 500 planted outliers of 4 to 8 standard deviations among 5,000 new heights: AUROC of each method, and that of
the true density, which is optimal (Neyman and Pearson). mnist: each digit is held out in turn (data.without), AUROC on
the test split, beside pixels and an untrained D in place of the features. table: scikit-learn's breast cancer data, of
which benign rows are learned and malignant ones are outliers: average precision, beside scikit-learn's IsolationForest
and LocalOutlierFactor on the same rows.

Each training is a run directory in outputs/anomalies/, and what was measured of it is a JSON file there. A campaign
that was stopped goes on, and what is finished is not computed again. GANRUN_DATA must be set for mnist.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor

import ganrun
from ganrun.anomaly.distance import Mahalanobis, Neighbors
from ganrun.anomaly.networks import DView
from ganrun.anomaly.scores import COMBINED, METHODS, AnomalyScores
from ganrun.condition import AuxiliaryClassifier
from ganrun.metric.anomaly import AnomalyAuroc, chosen
from ganrun.training.run import Run
from ganrun.training.scoring import fit_scores

OUT = Path(__file__).with_suffix(".json")
RUNS = Path("outputs/anomalies")
QUIET = ["train.sample_every=0", "train.log_every=500", "train.diagnose=false", "metric=none"]
BEST_TWO = ("neighbors", "classes")
NUM_OUTLIERS, NUM_HEIGHTS, NEAREST, FARTHEST = 500, 5000, 4, 8

# Each recipe of `mnist` is a small DCGAN: 32 channels, batches of 64.
DCGAN = ["data=mnist", "arch.generator.width=32", "arch.discriminator.width=32", "train.threads=1", *QUIET]
RECIPES = {
    "dcgan": [],
    "r1": ["penalty=r1", "penalty.r1.gamma=1"],
    "hinge": ["loss=hinge", "arch.discriminator.spectral_norm=true", "train.n_critic=1"],
    "acgan": ["condition=acgan"],
    "acgan_r1": ["condition=acgan", "penalty=r1", "penalty.r1.gamma=1"],
}
TABLE = ["penalty=r1", "penalty.r1.gamma=1", "train.steps=2000", *QUIET]


def trained(name: str, settings: Sequence[str]) -> Run:
    """The run of that name, trained by `ganrun` unless it is finished, with its data."""
    run_dir = RUNS / name
    result = run_dir / "result.json"
    if not result.exists() or json.loads(result.read_text())["status"] != "finished":
        subprocess.run([sys.executable, "-m", "ganrun", *settings, f"run_dir={run_dir}"], check=True)
    return ganrun.load(run_dir, device="cpu").build(metric={})


def kept(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` returns, from a file if it was computed before."""
    path = RUNS / f"{name}.json"
    if not path.exists():
        found = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".partial").write_text(json.dumps(found, indent=2))
        path.with_suffix(".partial").replace(path)
    found = json.loads(path.read_text())
    print(f"{name}: {found}", flush=True)
    return found


def measured(found: dict[str, np.ndarray], is_outlier: np.ndarray) -> dict[str, float]:
    """AUROC, and average precision after `ap_`, of each score."""
    values = {name: round(float(roc_auc_score(is_outlier, scores)), 4) for name, scores in found.items()}
    return values | {f"ap_{name}": round(float(average_precision_score(is_outlier, s)), 4) for name, s in found.items()}


def heights(seeds: int) -> dict[str, Any]:
    settings = ["experiment=heights", *QUIET, "train.frame_every=0"]

    def measure(seed: int) -> dict[str, Any]:
        run = trained(f"heights/{seed}", [*settings, f"seed={seed}"])
        scores = fit_scores(AnomalyScores(), run)
        random = torch.Generator().manual_seed(1000 + seed)
        spec, truth = run.dataset.spec, run.dataset.distribution
        assert truth is not None
        real = spec.mean + spec.std * torch.randn(NUM_HEIGHTS, 1, generator=random)
        distance = NEAREST + (FARTHEST - NEAREST) * torch.rand(NUM_OUTLIERS, 1, generator=random)
        side = torch.randint(2, (NUM_OUTLIERS, 1), generator=random) * 2 - 1
        x = torch.cat([real, spec.mean + spec.std * side * distance])
        found = scores.score(x) | {"true density": -truth.log_prob(x.double()).flatten().numpy()}
        return measured(found, np.repeat([0, 1], [NUM_HEIGHTS, NUM_OUTLIERS]))

    rows = [kept(f"heights/{seed}", lambda s=seed: measure(s)) for seed in range(seeds)]
    return {"command": f"ganrun {' '.join(settings)} seed=S", "seeds": rows, "mean": means(rows)}


def mnist(digits: Sequence[int], seeds: int, steps: int, recipe: str) -> dict[str, Any]:
    settings = [*DCGAN, *RECIPES[recipe], f"train.steps={steps}"]

    def trained_on(digit: int, seed: int) -> Run:
        return trained(name_of(digit, seed), [*settings, f"data.without=[{digit}]", f"seed={seed}"])

    def name_of(digit: int, seed: int) -> str:
        return f"mnist_{recipe}_{steps}/{digit}_{seed}"

    def measure(digit: int, seed: int) -> dict[str, Any]:
        run = trained_on(digit, seed)
        seconds = json.loads((RUNS / name_of(digit, seed) / "result.json").read_text())["wall_time"]
        return {"digit": digit, "seed": seed, "seconds": round(seconds)} | of_held_out(run, seed)

    rows = []
    for seed, digit in itertools.product(range(seeds), digits):
        row = kept(name_of(digit, seed), lambda d=digit, s=seed: measure(d, s))
        if "classes" in row:
            row |= kept(f"{name_of(digit, seed)}_two", lambda d=digit, s=seed: of_best_two(trained_on(d, s)))
        rows.append(row)
    by_digit = {str(d): means([row for row in rows if row["digit"] == d]) for d in digits}
    return {
        "command": f"ganrun {' '.join(settings)} data.without=[DIGIT] seed=S", "runs": rows, "by digit": by_digit,
        "mean": means(list(by_digit.values())), "std over seeds": stds(rows, seeds),
    }  # fmt: skip


def of_held_out(run: Run, seed: int) -> dict[str, float]:
    """All methods, and the distances in pixels and in features of an untrained D, on the test split."""
    scores, train, y, x, is_outlier = fitted(run, (*METHODS, "classes") if classifies(run.D) else METHODS)
    found = scores.score(x)
    torch.manual_seed(seed)
    num_classes = 0 if y is None else run.dataset.spec.num_classes
    views = {"pixels": lambda x: x.flatten(1), "untrained D": DView(run.new_d(), num_classes, "all").features}
    for name, view in views.items():
        inputs, tested = view(train).numpy(), view(x).numpy()
        for method, distance in {"neighbors": Neighbors(unit=True), "mahalanobis": Mahalanobis()}.items():
            distance.fit(inputs, None if y is None else y.numpy())
            found[f"{method}, {name}"] = distance.score(tested)
    return measured(found, is_outlier)


def of_best_two(run: Run) -> dict[str, float]:
    """The combination of the two methods that are best on average, alone."""
    scores, *_, x, is_outlier = fitted(run, BEST_TWO)
    return measured({f"combined, {' and '.join(BEST_TWO)}": scores.score(x)[COMBINED]}, is_outlier)


def fitted(run: Run, methods: Sequence[str]) -> tuple[AnomalyScores, Tensor, Tensor | None, Tensor, np.ndarray]:
    """Scores fitted to the run, the training examples and their labels, and test examples and which are outliers."""
    metric = AnomalyAuroc(methods, split="test", steps=30, restarts=1)
    calibrating, real, held_out = metric.groups(run.dataset)
    spec = run.dataset.spec
    train, y = chosen(run.dataset.train, metric.scores.num_train, spec, "anomaly train")
    num_classes, y = (spec.num_classes, y) if run.condition.uses_labels else (0, None)
    metric.scores.fit(run.D, run.sampler, run.latent, train, calibrating, num_classes, y)
    return metric.scores, train, y, torch.cat([real, held_out]), np.repeat([0, 1], [len(real), len(held_out)])


def classifies(D: torch.nn.Module) -> bool:
    return isinstance(D, AuxiliaryClassifier)


def table(seeds: int) -> dict[str, Any]:
    settings = ["data=breast_cancer", "data.without=[malignant]", *TABLE]

    def measure(seed: int) -> dict[str, Any]:
        run = trained(f"table/{seed}", [*settings, f"data.split_seed={seed}", f"seed={seed}"])
        held_out, data = run.dataset.held_out, run.dataset
        assert held_out is not None
        scores = fit_scores(AnomalyScores(), run)
        outliers = torch.cat([held_out.valid.x, held_out.test.x])
        x = torch.cat([data.test.x, outliers])
        found = scores.score(x) | of_scikit_learn(data.train.x.numpy(), x.numpy(), seed)
        return measured(found, np.repeat([0, 1], [len(data.test), len(outliers)]))

    rows = [kept(f"table/{seed}", lambda s=seed: measure(s)) for seed in range(seeds)]
    return {
        "command": f"ganrun {' '.join(settings)} data.split_seed=S seed=S", "seeds": rows, "mean": means(rows),
        "standard error": {name: round(value / math.sqrt(seeds), 4) for name, value in spread(rows).items()},
    }  # fmt: skip


def of_scikit_learn(train: np.ndarray, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Detectors with scikit-learn's defaults, fitted to the same training rows."""
    forest = IsolationForest(random_state=seed).fit(train)
    factor = LocalOutlierFactor(novelty=True).fit(train)
    return {"IsolationForest": -forest.score_samples(x), "LocalOutlierFactor": -factor.score_samples(x)}


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = [name for name in rows[0] if name not in ("digit", "seed", "seconds")]
    return {name: round(statistics.mean(row[name] for row in rows), 4) for name in names}


def spread(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = [name for name in rows[0] if name not in ("digit", "seed", "seconds")]
    return {name: statistics.stdev(row[name] for row in rows) if len(rows) > 1 else 0.0 for name in names}


def stds(rows: Sequence[dict[str, Any]], seeds: int) -> dict[str, float]:
    """The standard deviation over seeds of the mean over digits."""
    found = spread([means([row for row in rows if row["seed"] == seed]) for seed in range(seeds)])
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["heights", "mnist", "table"])
    parser.add_argument("--digits", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--recipe", choices=RECIPES, default="acgan")
    given = parser.parse_args()
    if given.part == "mnist" and not os.environ.get("GANRUN_DATA"):
        parser.error("GANRUN_DATA must name a folder with MNIST")
    if given.part == "mnist":
        found = mnist(given.digits, given.seeds or 3, given.steps, given.recipe)
    else:
        found = heights(given.seeds or 3) if given.part == "heights" else table(given.seeds or 10)
    name = given.part if given.part != "mnist" else f"mnist, {given.recipe}, {given.steps} steps"
    print(json.dumps(found.get("by digit", {}) | {"mean": found["mean"]}, indent=2))
    before = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps({**before, "machine": describe(), name: found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
