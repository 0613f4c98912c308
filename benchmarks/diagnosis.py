"""The diagnosis of runs that fail by design, and of healthy ones. Writes benchmarks/diagnosis.json.

Each line of FAILING and HEALTHY is a command line of `ganrun`. The rules and their thresholds were chosen with the runs
of CALIBRATION; the runs of UNSEEN were looked at once, after that. The lines on MNIST are trained with the first
MNIST_SEEDS seeds of both, if GANRUN_DATA is a folder with MNIST. The correct names follow from the way in which a run
is made to fail; if several are correct, all are listed. A run is diagnosed correctly if its first finding has one of
these names, and its cause in CAUSES, if it has one there, is among its findings. `truth` measures whether a run fails
or succeeds as intended.

    python benchmarks/diagnosis.py            # reuses finished runs in outputs/diagnosis
    python benchmarks/diagnosis.py ring       # only runs whose name contains "ring"; writes no file
"""

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from machine import describe
from torch import Tensor, nn

from ganrun.cli.compose import compose, plain
from ganrun.data.dataset import DataSpec
from ganrun.data.digits import digits
from ganrun.data.published import mnist
from ganrun.data.toy import ring
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir, check_compatible
from ganrun.training.build import build, with_norm
from ganrun.training.evaluation import Evaluation
from ganrun.training.run import Run
from ganrun.training.sampling import draw, labels_like
from ganrun.training.train import train
from ganrun.trusted import trust

trust("diagnosis")  # this file
OUT = Path(__file__).with_suffix(".json")
RUNS = Path("outputs/diagnosis")
CALIBRATION, UNSEEN, MNIST_SEEDS = range(10), range(30, 40), 3

# Abbreviations of settings. If a line has a setting twice, the last one counts.
D_SMALL, D_PLANE, D_DIGITS = (f"arch.discriminator.hidden=[{n},{n}]" for n in (32, 128, 256))
G_SMALL, G_PLANE, G_DIGITS = (f"arch.generator.hidden=[{n},{n}]" for n in (32, 128, 256))
HEIGHTS = "data=heights train.steps=2000 train.log_every=50"
TWO = f"data=mixture1d train.steps=3000 arch=mlp arch.z_dim=4 {G_SMALL} {D_SMALL} train.log_every=50"
PLANE = f"arch.z_dim=8 {G_PLANE} {D_PLANE} train.batch_size=128 train.log_every=50"
RING = f"data=ring data.std=0.1 train.steps=3000 {PLANE}"
NARROW = f"{RING} data.std=0.02 arch.generator.init=torch"  # D separates the samples of the first G from the data
GRID = f"data=grid data.std=0.2 train.steps=4000 {PLANE}"
MLP = f"data=digits arch=mlp {G_DIGITS} {D_DIGITS} arch.z_dim=32 train.log_every=25"
DIGITS = f"{MLP} train.steps=1500 +arch.generator.batch_norm=true +arch.discriminator.dropout=0.3"
SMOOTH = "optimizer=adam_small schedule=linear train.ema=0.99"
GOOD = "optimizer.lr=0.001 schedule=linear train.ema=0.99"
G_SGD = "optimizer@g_optimizer=sgd"
FROZEN_G, FROZEN_D = f"{G_SGD} g_optimizer.lr=0", "optimizer@d_optimizer=sgd d_optimizer.lr=0"
SLOW_G = f"{G_SGD} g_optimizer.lr=0.00001"
MNIST = f"data=mnist arch=mlp {G_DIGITS} {D_DIGITS} arch.z_dim=64 train.log_every=25"
DCGAN = "data=mnist arch.generator.width=16 arch.discriminator.width=16 train.log_every=25"
COPY = "~arch.generator.hidden ~arch.generator.spectral_norm arch.generator._target_="

FAILING: dict[str, tuple[str, set[str]]] = {
    # D is perfect before G's first step, and G's loss saturates.
    "ring, minimax, overtrained D": (
        f"{NARROW} train.steps=500 loss=minimax train.pretrain_d=1000 train.n_critic=5 optimizer=adam_small {G_SGD}",
        {"vanishing_gradients"},
    ),
    "digits, minimax, overtrained D": (
        f"{MLP} train.steps=300 loss=minimax train.pretrain_d=500 train.n_critic=5 optimizer.lr=0.001 {G_SGD}",
        {"vanishing_gradients"},
    ),
    # G does not learn, or hardly.
    "digits, frozen G": (f"{MLP} train.steps=400 {FROZEN_G}", {"d_too_strong"}),
    "ring, slow G": (f"{NARROW} train.steps=500 train.n_critic=5 optimizer=adam_small {SLOW_G}", {"d_too_strong"}),
    "digits, hinge, slow G": (f"{MLP} train.steps=300 loss=hinge optimizer.lr=0.001 {SLOW_G}", {"d_too_strong"}),
    "digits, lsgan, slow G": (f"{MLP} train.steps=300 loss=lsgan optimizer.lr=0.001 {SLOW_G}", {"d_too_strong"}),
    # D does not learn, or cannot tell real from fake.
    "heights, frozen D": (f"{HEIGHTS} train.steps=1000 {FROZEN_D}", {"d_blind", "mode_collapse"}),
    "digits, frozen D": (f"{MLP} train.steps=500 {FROZEN_D}", {"d_blind", "mode_collapse"}),
    "ring, D of one unit": (
        f"{RING} train.steps=1500 {SMOOTH} arch.discriminator.hidden=[1]",
        {"d_blind", "oscillation"},
    ),
    "digits, labels exchanged": (
        f"{MLP} train.steps=500 train.label_noise=0.49 train.batch_size=16",
        {"d_blind", "mode_collapse"},
    ),
    # The learning rate is huge, or the critic is unbounded.
    "heights, huge rate": (f"{HEIGHTS} train.steps=500 loss=lsgan optimizer=sgd optimizer.lr=10", {"divergence"}),
    "ring, wgan unbounded": (
        f"{RING} train.steps=1000 loss=wgan penalty=none optimizer=adam_small optimizer.lr=0.02",
        {"divergence"},
    ),
    "digits, huge rate": (f"{MLP} train.steps=300 optimizer.lr=1", {"divergence"}),
    # The rotation around the equilibrium is not damped; with momentum it grows.
    "dirac": (
        "data=dirac optimizer=sgd optimizer.lr=0.1 train.steps=1000 arch.discriminator.hidden=[] "
        "~arch.generator.hidden ~arch.generator.activation ~arch.generator.spectral_norm "
        "arch.generator._target_=diagnosis.Point",
        {"oscillation"},
    ),
    "heights, momentum": (
        f"{HEIGHTS} train.steps=1500 optimizer=momentum optimizer.momentum=0.95 optimizer.lr=0.1 schedule=constant "
        "train.update=simultaneous train.ema=0",
        {"oscillation", "divergence"},
    ),
    "heights, wgan_gp, one D step": (
        f"{HEIGHTS} train.steps=2000 loss=wgan_gp optimizer=adam_small train.n_critic=1 train.ema=0",
        {"oscillation", "mode_collapse"},
    ),
    # G has more updates than D: the "Helvetica scenario" of Goodfellow et al. 2014, section 6. G's samples collapse to
    # one point until D rejects them, and then to the next, so the game also oscillates. Of images, it is also correct
    # to say that D cannot follow.
    "ring, 5 G steps": (f"{RING} train.steps=1000 train.n_gen=5 optimizer.lr=0.001", {"mode_collapse", "oscillation"}),
    "grid, 5 G steps": (f"{GRID} train.steps=1500 train.n_gen=5 optimizer.lr=0.001", {"mode_collapse", "oscillation"}),
    "digits, 5 G steps": (
        f"{MLP} train.steps=400 train.n_gen=5 optimizer.lr=0.0005",
        {"mode_collapse", "oscillation", "d_blind"},
    ),
    "ring, lsgan, 5 G steps": (
        f"{RING} train.steps=1000 loss=lsgan train.n_gen=5 optimizer.lr=0.001",
        {"mode_collapse", "oscillation"},
    ),
    "grid, hinge, 5 G steps": (
        f"{GRID} train.steps=1500 loss=hinge train.n_critic=1 train.n_gen=5 optimizer.lr=0.001",
        {"mode_collapse", "oscillation"},
    ),
    # G returns training data.
    "digits, copies": (
        f"{MLP} train.steps=200 {COPY}diagnosis.digits_copier {G_SGD} g_optimizer.lr=0.001",
        {"memorization"},
    ),
    "few of the ring, copies": (
        f"{RING} data.num=500 train.steps=200 ~arch.generator.activation ~arch.generator.init "
        f"{COPY}diagnosis.ring_copier {G_SGD} g_optimizer.lr=0.001",
        {"memorization"},
    ),
    "digits, 17 images": (
        f"{DIGITS} {GOOD} train.steps=2000 data.num_valid=880 data.num_test=900 train.batch_size=17",
        {"memorization"},
    ),
    # After Metz et al. 2017, in full.
    "ring_minimax": ("experiment=ring_minimax train.metric_every=0", {"mode_collapse"}),
    # Training ends before G has learned the data.
    "digits, 120 steps": (f"{DIGITS} train.steps=120 train.log_every=10 {GOOD}", {"not_converged"}),
    "digits, low rate": (f"{DIGITS} train.steps=300 {GOOD} optimizer.lr=0.0002", {"not_converged"}),
    # Training has hardly begun.
    "heights, 20 steps": (f"{HEIGHTS} train.steps=20 train.log_every=1", {"too_early"}),
    "ring, 50 steps": (f"{RING} train.steps=50 train.log_every=2 {SMOOTH}", {"too_early"}),
    "digits, 3 steps": (f"{DIGITS} train.steps=3 train.log_every=1 {GOOD}", {"too_early"}),
    "digits, 30 steps": (f"{DIGITS} train.steps=30 train.log_every=2 {GOOD}", {"too_early"}),
}

HEALTHY: dict[str, str] = {
    "heights": HEIGHTS,
    "heights, minimax": f"{HEIGHTS} loss=minimax",
    "heights, half-weighted": f"{HEIGHTS} loss=half_weighted",
    "heights, lsgan": f"{HEIGHTS} loss=lsgan {SMOOTH}",
    "heights, hinge": f"{HEIGHTS} loss=hinge {SMOOTH} train.n_critic=1",
    "heights, rpgan": f"{HEIGHTS} loss=rpgan {SMOOTH} penalty=none",
    "heights, ragan": f"{HEIGHTS} loss=ragan {SMOOTH}",
    "two": f"{TWO} {SMOOTH}",
    "two, lsgan": f"{TWO} loss=lsgan {SMOOTH}",
    "ring": f"{RING} {SMOOTH}",
    "ring, r1": f"{RING} {SMOOTH} penalty=r1 penalty.r1.gamma=0.1",
    "ring, hinge": f"{RING} loss=hinge {SMOOTH} train.n_critic=1",
    "ring, rpgan": f"{RING} loss=rpgan {SMOOTH} penalty.r1.gamma=0.1 penalty.r2.gamma=0.1",
    "spiral, r1": f"data=spiral data.std=0.2 train.steps=3000 {PLANE} {SMOOTH} penalty=r1 penalty.r1.gamma=0.1",
    "grid, r1": f"{GRID} {SMOOTH} penalty=r1 penalty.r1.gamma=0.1",
    "digits": f"{DIGITS} {GOOD}",
    "digits, minimax": f"{DIGITS} loss=minimax {GOOD}",
    "digits, lsgan": f"{DIGITS} loss=lsgan {GOOD}",
    "digits, hinge": f"{DIGITS} loss=hinge train.n_critic=1 {GOOD}",
    "digits, of a class": f"{DIGITS} condition=concat {GOOD}",
}

# On MNIST, if GANRUN_DATA is a folder with it: 50,000 images of 784 pixels.
MNIST_FAILING: dict[str, tuple[str, set[str]]] = {
    "mnist, minimax, overtrained D": (
        f"{MNIST} train.steps=300 loss=minimax train.pretrain_d=500 train.n_critic=5 optimizer.lr=0.001 {G_SGD}",
        {"vanishing_gradients"},
    ),
    "mnist, frozen G": (f"{MNIST} train.steps=800 {FROZEN_G}", {"d_too_strong"}),
    "mnist, dcgan, frozen G": (f"{DCGAN} train.steps=800 {FROZEN_G}", {"d_too_strong"}),
    "mnist, frozen D": (f"{MNIST} train.steps=800 {FROZEN_D}", {"d_blind", "mode_collapse"}),
    "mnist, huge rate": (f"{MNIST} train.steps=300 optimizer.lr=1", {"divergence"}),
    "mnist, 5 G steps": (
        f"{MNIST} train.steps=800 train.n_gen=5 optimizer.lr=0.0005",
        {"mode_collapse", "oscillation", "d_blind"},
    ),
    "mnist, copies": (
        f"{MNIST} train.steps=200 {COPY}diagnosis.mnist_copier {G_SGD} g_optimizer.lr=0.001",
        {"memorization"},
    ),
    "mnist, 30 steps": (f"{MNIST} train.steps=30 train.log_every=2 {GOOD}", {"too_early"}),
    "mnist, 200 steps": (f"{MNIST} train.steps=200 train.log_every=10 {GOOD}", {"too_early"}),
    "mnist, dcgan, 200 steps": (f"{DCGAN} train.steps=200 train.log_every=10", {"too_early"}),
    "mnist, dcgan, 20 steps": (f"{DCGAN} train.steps=20 train.log_every=1", {"too_early"}),
}

MNIST_HEALTHY: dict[str, str] = {
    "mnist": f"{MNIST} train.steps=6000 +arch.generator.batch_norm=true +arch.discriminator.dropout=0.3 {GOOD}",
    "mnist, dcgan": f"{DCGAN} train.steps=2000",
}

# Causes that must be found, also if the first finding says what happened to the samples.
CAUSES = {
    "heights, frozen D": "d_blind",
    "digits, frozen D": "d_blind",
    "digits, labels exchanged": "d_blind",
    "heights, wgan_gp, one D step": "oscillation",
    "mnist, frozen D": "d_blind",
}


class Point(nn.Module):
    """G(z) = theta: the generator of the Dirac-GAN (Mescheder, Geiger and Nowozin 2018, Definition 2.1)."""

    def __init__(self, spec: DataSpec, z_dim: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(spec.shape))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.theta.expand(len(z), -1)


class Copier(nn.Module):
    """G(z) is a training example, selected by the first number of z, plus a shift, the only parameter."""

    def __init__(self, x: Tensor, value_range: tuple[float, float] | None) -> None:
        super().__init__()
        self.x: Tensor
        self.register_buffer("x", x)
        self.shift = nn.Parameter(torch.zeros(x.shape[1:]))
        self.value_range = value_range

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        index = (torch.special.ndtr(z[:, 0]) * len(self.x)).long().clamp(max=len(self.x) - 1)
        x = self.x[index] + self.shift
        return x.clamp(*self.value_range) if self.value_range else x


def digits_copier(spec: DataSpec, z_dim: int) -> Copier:
    return Copier(spec.decode(digits().train.x), spec.value_range)


def mnist_copier(spec: DataSpec, z_dim: int) -> Copier:
    return Copier(spec.decode(mnist(os.environ["GANRUN_DATA"], download=False).train.x), spec.value_range)


def ring_copier(spec: DataSpec, z_dim: int) -> Copier:
    return Copier(ring(8, 2, 0.1, 500).train.x, None)


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    jobs = [
        (name, line, right, seed)
        for seeds in (CALIBRATION, UNSEEN)
        for name, line, right in collection()
        for seed in (seeds[:MNIST_SEEDS] if name.startswith("mnist") else seeds)
        if wanted in name
    ]
    rows = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for r in pool.map(one, *zip(*jobs, strict=True)):
            rows.append(r)
            mark = "  " if r["as expected"] else "X "
            print(f"{mark}{r['name']}, seed {r['seed']}: {r['findings'] or 'healthy'}  {r['truth']}", flush=True)
    summary = {"calibration": summarize(rows, CALIBRATION), "unseen": summarize(rows, UNSEEN)}
    print(json.dumps(summary, indent=2))
    if not wanted:
        head = json.dumps({"machine": describe(), "summary": summary}, indent=2).removesuffix("\n}")
        lines = ",\n".join(json.dumps(r) for r in rows)  # a line for each run
        OUT.write_text(f'{head},\n"runs": [\n{lines}\n]}}\n')


def collection() -> list[tuple[str, str, set[str]]]:
    there = bool(os.environ.get("GANRUN_DATA"))
    failing = FAILING | (MNIST_FAILING if there else {})
    healthy = HEALTHY | (MNIST_HEALTHY if there else {})
    found = [(name, line, right) for name, (line, right) in failing.items()]
    return found + [(name, line, {"healthy"}) for name, line in healthy.items()]


def one(name: str, line: str, right: set[str], seed: int) -> dict[str, Any]:
    """Train the run unless it is finished, and diagnose it from its directory."""
    folder = RUNS / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    config = config_of(line, seed, folder)
    start = time.perf_counter()
    run_dir = RunDir(folder)
    if (run_dir.result() or {}).get("status") in ("finished", "diverged"):
        check_compatible(run_dir, with_norm(config))
    else:
        train(config)
    run, result = build(config), run_dir.result() or {}
    if state := checkpoint.load_newest(run_dir.checkpoints):
        run.load_state_dict(state)
    diverged = result["status"] == "diverged"
    found = Evaluation(run).diagnosis(run_dir.rows(), config, line.split(), diverged).as_json()
    names = [finding["name"] for finding in found["findings"]]
    return {
        "name": name,
        "seed": seed,
        "right": sorted(right),
        "diagnosed as": found["name"],
        "as expected": found["name"] in right and CAUSES.get(name, found["name"]) in [found["name"], *names],
        "findings": names,
        "truth": truth(run, result),
        "seconds": round(result["wall_time"], 1),
        "seconds of diagnosis": round(time.perf_counter() - start, 1),
    }


def config_of(line: str, seed: int, folder: Path) -> dict[str, Any]:
    settings = ["train.threads=1", "train.device=cpu", "train.sample_every=0", "train.checkpoint_every=0"]
    settings += ["train.diagnose=false", f"seed={seed}", f"run_dir={folder}"]
    chosen: dict[str, str] = {word.partition("=")[0]: word for word in line.split()}  # the last value of a key counts
    return plain(compose("train", [*chosen.values(), *settings]))


@torch.no_grad()
def truth(run: Run, result: dict[str, Any]) -> dict[str, float]:
    """The metrics, and for digits a classification of samples by their five nearest training digits."""
    known = ("ks", "modes", "high", "reverse", "w1")
    found = {k: round(v, 3) for k, v in result["metrics"].items() if k.split("_")[0] in known and "true" not in k}
    if run.dataset.spec.is_image and result["status"] == "finished":
        y = labels_like(run.dataset.train, 500, run.seed) if run.condition.uses_labels else None
        x = draw(run.sampler, run.latent, 500, run.device, run.seed, y).flatten(1)
        real = run.dataset.spec.decode(run.dataset.train.x).flatten(1)
        votes = run.dataset.train.y[torch.cdist(x, real).topk(5, largest=False).indices]  # (500, 5)
        found["classes over 3%"] = float((votes.flatten().bincount(minlength=10) > 0.03 * 2500).sum())
        found["named alike by all five"] = round((votes == votes[:, :1]).all(1).double().mean().item(), 3)
    return found


def summarize(rows: list[dict[str, Any]], seeds: range) -> dict[str, Any]:
    rows = [r for r in rows if r["seed"] in seeds]
    failing, healthy = ([r for r in rows if (r["right"] == ["healthy"]) == kind] for kind in (False, True))
    table: dict[str, dict[str, int]] = {}
    for r in rows:
        line = table.setdefault(" or ".join(r["right"]), {})
        line[r["diagnosed as"]] = line.get(r["diagnosed as"], 0) + 1
    return {
        "seeds": [seeds[0], seeds[-1]],
        "failing runs": len(failing),
        "diagnosed correctly": sum(r["as expected"] for r in failing),
        "healthy runs": len(healthy),
        "diagnosed as healthy": sum(r["as expected"] for r in healthy),
        "seconds of training": round(sum(r["seconds"] for r in rows)),
        "diagnosed as, by what is correct": table,
        "wrong": [f"{r['name']}, seed {r['seed']}: {r['diagnosed as']}" for r in rows if not r["as expected"]],
    }


if __name__ == "__main__":
    main()
