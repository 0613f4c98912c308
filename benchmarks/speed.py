"""The overhead of the training loop, the gain of bf16, start-up time and memory. Writes benchmarks/speed.json.

Compares ganrun's loop, with logging, pictures and checkpoints, with a hand-written loop with the same networks,
optimizer and data, alternately in one process: dcgan on images of the size of CIFAR-10, and wgan_gp with an MLP on the
size of MNIST, batch size 64. The data are random bytes, since only time is measured. Also measures the cost of disabled
options, on the heights, whose steps are the shortest.
"""

import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from machine import describe
from torch.nn.functional import softplus

import ganrun
from ganrun.arch import dcgan, mlp
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.protocols import Observer
from ganrun.records.board import Board
from ganrun.records.run_dir import RunDir
from ganrun.training.build import build
from ganrun.training.game import Game
from ganrun.training.loop import Status, train_loop
from ganrun.training.randomness import reseed

ganrun.trust("speed")  # this file
OUT = Path(__file__).with_suffix(".json")
SPEC = DataSpec((3, 32, 32), (-1.0, 1.0), std=0.5)
DIGITS = DataSpec((1, 28, 28), (-1.0, 1.0), std=0.6)
BATCH, TURN, TURNS = 64, 50, 5  # steps of each loop per turn, and number of turns


def noise(spec: DataSpec = SPEC, num: int = 20000) -> Dataset:
    """Random images, by default of the size of CIFAR-10, for `data._target_=speed.noise`."""
    x = torch.randint(0, 256, (num, *spec.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Dataset(spec, Split(x), Split(x[:0]), Split(x[:0]))


def noise_digits() -> Dataset:
    return noise(DIGITS)


def bare_loop(bf16: bool, channels_last: bool) -> Iterator[None]:
    """An expert's loop for a DCGAN. Each `next` is one step."""
    memory = torch.channels_last if channels_last else torch.contiguous_format
    G = dcgan.Generator(SPEC, z_dim=100).to(memory_format=memory)
    D = dcgan.Discriminator(SPEC).to(memory_format=memory)
    g_optimizer, d_optimizer = (torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999), fused=True) for n in (G, D))
    images = noise().train.x

    def precision() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    while True:
        real = images[torch.randint(0, len(images), (BATCH,))].float().div_(127.5).sub_(1)
        real = real.contiguous(memory_format=memory)
        with torch.no_grad(), precision():
            fake = G(torch.randn(BATCH, 100))
        with precision():
            d_loss = softplus(-D(real).float()).mean() + softplus(D(fake).float()).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        D.requires_grad_(False)
        with precision():
            g_loss = softplus(-D(G(torch.randn(BATCH, 100))).float()).mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        D.requires_grad_(True)
        yield


def bare_wgan_gp() -> Iterator[None]:
    """An expert's loop for WGAN-GP with the same MLP: five updates of the critic, then one of G."""
    G, D = mlp.Generator(DIGITS, z_dim=100), mlp.Discriminator(DIGITS)
    g_optimizer, d_optimizer = (torch.optim.Adam(n.parameters(), 1e-4, (0.0, 0.9), fused=True) for n in (G, D))
    images = noise_digits().train.x
    while True:
        for _ in range(5):
            real = images[torch.randint(0, len(images), (BATCH,))].float().div_(127.5).sub_(1)
            with torch.no_grad():
                fake = G(torch.randn(BATCH, 100))
            real_logits, fake_logits = D(torch.cat([real, fake])).chunk(2)
            mixed = torch.lerp(fake, real, torch.rand(BATCH, 1, 1, 1)).requires_grad_()
            (slope,) = torch.autograd.grad(D(mixed).sum(), mixed, create_graph=True)
            penalty = (slope.flatten(1).square().sum(1).add(1e-12).sqrt() - 1).square().mean()
            d_optimizer.zero_grad()
            (fake_logits.mean() - real_logits.mean() + 10 * penalty).backward()
            d_optimizer.step()
        D.requires_grad_(False)
        g_loss = -D(G(torch.randn(BATCH, 100))).mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        D.requires_grad_(True)
        yield


class Turns:
    """The `stop` callback of ganrun's loop, called after each step. It runs the other loops every `steps` calls."""

    def __init__(self, others: dict[str, Iterator[None]], steps: int = TURN) -> None:
        self.others, self.calls, self.steps = others, 0, steps
        self.rates: dict[str, list[float]] = {name: [] for name in ("ganrun", *others)}
        self.start = time.perf_counter()

    def __call__(self) -> bool:
        self.calls += 1
        if self.calls % self.steps:
            return False
        self.rates["ganrun"].append(self.steps / (time.perf_counter() - self.start))
        for name, loop in self.others.items():
            start = time.perf_counter()
            for _ in itertools.islice(loop, self.steps):
                pass
            self.rates[name].append(self.steps / (time.perf_counter() - start))
        print({name: round(r[-1], 2) for name, r in self.rates.items()}, flush=True)
        self.start = time.perf_counter()
        return self.calls == self.steps * (TURNS + 1)


def config_of(*line: str) -> dict[str, Any]:
    """Logs every 10 steps, pictures and checkpoints as by default, and more steps than will be run."""
    return ganrun.compose(*line, "train.steps=1000000", "train.log_every=10")


def rates_of(config: dict[str, Any], turns: Turns) -> dict[str, list[float]]:
    """Steps per second of each loop in each turn but the first, which is the warm-up."""
    with tempfile.TemporaryDirectory() as folder, RunDir(Path(folder)) as run_dir:
        train_loop(build(config), run_dir, config, None, Status(), turns, Board(run_dir, {}), Observer())
    return {name: found[1:] for name, found in turns.rates.items()}


def wgan_gp_cost() -> dict[str, float]:
    config = config_of("data=mnist", "arch=mlp", "loss=wgan_gp", "train.threads=1") | {
        "data": {"_target_": "speed.noise_digits"}
    }
    rates = rates_of(config, Turns({"bare": bare_wgan_gp()}))
    return {
        "ganrun wgan_gp on an MLP (one thread), steps/s": round(statistics.median(rates["ganrun"]), 2),
        "ganrun wgan_gp on an MLP / bare": ratio(rates["ganrun"], rates["bare"]),
    }


def steps_of(config: dict[str, Any]) -> Iterator[None]:
    """The training steps of a run, without logging."""
    run = build(config)
    game = Game(run)
    for step in itertools.count():
        reseed(run.device, run.seed, "step", step)
        game.step(step)
        yield


def cost_of_what_is_off() -> dict[str, float]:
    """The heights without penalties, compared with the same with six penalties of weight 0."""
    plain = ["loss=nonsaturating", "metric=none", "train.sample_every=0"]
    off = ["penalty=[r1,r2,gradient_penalty,lecam,consistency,orthogonal]", "penalty.r1.gamma=0", "penalty.r2.gamma=0"]
    off += [f"penalty.{name}.weight=0" for name in ("gradient_penalty", "lecam", "consistency", "orthogonal")]
    loops = {name: steps_of(config_of(*line)) for name, line in (("plain", plain), ("off", [*plain, *off]))}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(4 * TURNS + 1):
        for name, loop in loops.items():
            start = time.perf_counter()
            for _ in itertools.islice(loop, 10 * TURN):
                pass
            rates[name].append(10 * TURN / (time.perf_counter() - start))
    return {"heights with six penalties at weight 0 / without": ratio(rates["off"][1:], rates["plain"][1:])}


def loop_cost(precision: str) -> dict[str, float]:
    bare = f"bare {precision} channels_last"
    others = {bare: bare_loop(precision == "bf16", True), "bare fp32 NCHW": bare_loop(False, False)}
    config = config_of("data=cifar10", f"train.precision={precision}") | {"data": {"_target_": "speed.noise"}}
    rates = rates_of(config, Turns(others))
    return {f"{name} ({precision} turns), steps/s": round(statistics.median(r), 2) for name, r in rates.items()} | {
        f"ganrun {precision} / {bare}": ratio(rates["ganrun"], rates[bare]),
        f"ganrun {precision} / bare fp32 NCHW": ratio(rates["ganrun"], rates["bare fp32 NCHW"]),
    }


def ratio(a: list[float], b: list[float]) -> float:
    """The median of the ratios of each turn, which is robust to drifts of the machine's speed."""
    return round(statistics.median(x / y for x, y in zip(a, b, strict=True)), 3)


def start_up() -> float:
    """The time in seconds of a process that makes one step of the default job, and ends; the median of five."""
    found = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            line = ["train.steps=1", "train.log_every=1", "train.sample_every=0", "metric=none", f"run_dir={folder}/r"]
            subprocess.run([sys.executable, "-m", "ganrun", *line], stdout=subprocess.DEVNULL, check=True)
            found.append(time.perf_counter() - start)
    return round(statistics.median(found), 2)


def peak_memory() -> float | None:
    """The peak memory in GiB of a run on CIFAR-10, including data loading; None if the data are missing."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "ganrun", "data=cifar10", "data.verify=false", "data.download=false",
             "train.steps=20", "train.sample_every=10", f"run_dir={folder}/r"], stdout=subprocess.DEVNULL,
        )  # fmt: skip
    if done.returncode:
        return None
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2)


def main() -> None:
    figures = {
        "start to first step of heights, s": start_up(),
        "peak memory of a CIFAR-10 run, GiB": peak_memory(),
        **cost_of_what_is_off(),
        **wgan_gp_cost(),
        **loop_cost("fp32"),
        **loop_cost("bf16"),
    }
    print(json.dumps(figures, indent=2))
    OUT.write_text(json.dumps({"machine": describe(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
