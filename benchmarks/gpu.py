"""What ganrun does on a GPU, in about ten minutes. Writes benchmarks/gpu.json, and prints a table.

- resume: a run that is continued from a checkpoint ends with the same bits as one that was not, in each precision;
- speed: steps per second of DCGAN, SNGAN and R3GAN on 32x32 RGB in fp32, tf32, bf16 and fp16, in turns with a bare loop
  of the same networks, optimizers, losses and data, and the peak memory of ganrun's training;
- digits: a short training on MNIST, if it is in $GANRUN_DATA or in data/, else on scikit-learn's digits, and its score.

Needs no network, and no data but these: speed is measured on random bytes. Architectures that this version of ganrun
does not have are skipped. Without a GPU, everything is smaller (--small), which tests the script.
"""

import argparse
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import describe
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

import ganrun
from ganrun.config import CONF
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.protocols import Observer
from ganrun.records import checkpoint
from ganrun.records.board import Board
from ganrun.records.run_dir import RunDir
from ganrun.training.build import build
from ganrun.training.loop import Status, train_loop
from ganrun.training.runtime import choose_device, peak_memory

ganrun.trust("gpu")  # this file
OUT = Path(__file__).with_suffix(".json")
SPEC = DataSpec((3, 32, 32), (-1.0, 1.0), std=0.5)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
GAMMA = 0.05  # of R1 and R2 in R3GAN

Logits = Tensor
D_LOSSES: dict[str, Callable[[Logits, Logits], Tensor]] = {
    "nonsaturating": lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
    "hinge": lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
    "rpgan": lambda real, fake: softplus(fake - real).mean(),
}
G_LOSSES: dict[str, Callable[[Logits, Logits], Tensor]] = {
    "nonsaturating": lambda real, fake: softplus(-fake).mean(),
    "hinge": lambda real, fake: -fake.mean(),
    "rpgan": lambda real, fake: softplus(real - fake).mean(),
}
WIDTHS = ["arch.generator.width=256", "arch.discriminator.width=256"]  # of R3GAN, whose own width is 768
NETS = {  # the loss of each, its settings, and those of a small one
    "dcgan": ("nonsaturating", [], ["arch.generator.width=8", "arch.discriminator.width=8"]),
    "sngan": ("hinge", [], ["arch.generator.width=4", "arch.discriminator.width=4"]),
    "r3gan": (
        "rpgan",
        [f"penalty.r1.gamma={GAMMA}", f"penalty.r2.gamma={GAMMA}", *WIDTHS],
        ["arch.generator.width=16", "arch.discriminator.width=16"],
    ),
}  # fmt: skip


def noise(num: int) -> Dataset:
    """Random images of the size of CIFAR-10, for `data._target_=gpu.noise`."""
    x = torch.randint(0, 256, (num, *SPEC.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Dataset(SPEC, Split(x), Split(x[:0]), Split(x[:0]))


class Size:
    """How much is measured. batch: examples in a batch. turn: steps of each loop in a turn, after one to warm up."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self.batch, self.turn, self.turns = (8, 2, 2) if small else (256, 50, 4)
        self.resumed, self.digits = (4, 10) if small else (40, 4000)  # steps
        self.images = 500 if small else 20000

    def config(self, net: str, precision: str, device: torch.device, *line: str) -> dict[str, Any]:
        loss, own, narrow = NETS[net]
        config = ganrun.compose(
            "data=cifar10", f"arch={net}", f"loss={loss}", f"train.precision={precision}", f"train.device={device}",
            f"train.batch_size={self.batch}", "train.log_every=10", "train.sample_every=0", "train.diagnose=false",
            *own, *([*narrow, "train.threads=1"] if self.small else []), *line,
        )  # fmt: skip
        shared = {key: config["data"][key] for key in ("root", "download", "verify", "value_range", "gcn", "flip")}
        return config | {"data": {**shared, "_target_": "gpu.noise", "num": self.images}}


def known_nets() -> list[str]:
    return [net for net in NETS if (CONF / "arch" / f"{net}.yaml").exists()]


def precisions_of(device: torch.device) -> list[str]:
    return ["fp32", "tf32", "bf16", "fp16"] if device.type == "cuda" else ["fp32", "bf16", "fp16"]


# Resume


def resumes(size: Size, net: str, precision: str, device: torch.device) -> bool:
    """Whether a run resumed in the middle ends with the bits of the whole run: all states, and all logged losses."""
    steps = size.resumed
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = size.config(
            net, precision, device, f"train.steps={steps}", f"train.checkpoint_every={steps // 2}", "train.log_every=1"
        )
        ganrun.train(config | {"run_dir": str(root / "whole")})
        shutil.copytree(root / "whole", root / "resumed")
        checkpoint.path_of(root / "resumed" / "checkpoints", steps).unlink()
        (root / "resumed" / "result.json").unlink()
        ganrun.train(config | {"run_dir": str(root / "resumed")})
        states = [checkpoint.load_newest(root / name / "checkpoints") or {} for name in ("whole", "resumed")]
        losses = [[row.get("loss/d") for row in RunDir(root / name).rows()] for name in ("whole", "resumed")]
    kept = states[0].keys() - {"config", "seconds"}
    return losses[0] == losses[1] and all(equal(states[0][key], states[1][key]) for key in kept)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


# Speed


def bare_loop(config: dict[str, Any], net: str, precision: str, device: torch.device) -> Iterator[None]:
    """An expert's loop with the same networks and optimizers. Each `next` is one step."""
    run, batch = build(config), config["train"]["batch_size"]
    G, D, loss = run.G, run.D, NETS[net][0]
    images = run.dataset.train.x
    d_scaler, g_scaler = (torch.amp.GradScaler(device.type, enabled=precision == "fp16") for _ in range(2))

    def autocast() -> Any:
        return torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else nullcontext()

    def sample() -> Tensor:
        return G(torch.randn(batch, config["arch"]["z_dim"], device=device))

    def batch_of_images() -> Tensor:
        x = images[torch.randint(len(images), (batch,), device=device)].float().div_(127.5).sub_(1)
        return x.contiguous(memory_format=torch.channels_last)

    def update(player: nn.Module, total: Tensor, optimizer: torch.optim.Optimizer, scaler: Any) -> None:
        optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()

    while True:
        for _ in range(config["train"]["n_critic"]):
            real = batch_of_images()
            with torch.no_grad(), autocast():
                fake = sample()
            with autocast():
                real_logits, fake_logits = D(real).float(), D(fake).float()
            total = D_LOSSES[loss](real_logits, fake_logits)
            if loss == "rpgan":
                total = total + GAMMA / 2 * (slope(D, real) + slope(D, fake.float()))
            update(D, total, run.d_optimizer, d_scaler)
        D.requires_grad_(False)
        with autocast():
            fake_logits = D(sample()).float()
            real_logits = D(batch_of_images()).float() if loss == "rpgan" else fake_logits
            total = G_LOSSES[loss](real_logits, fake_logits)
        update(G, total, run.g_optimizer, g_scaler)
        D.requires_grad_(True)
        yield


def slope(D: nn.Module, x: Tensor) -> Tensor:
    """E[||grad D(x)||^2], in float32."""
    x = x.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return gradients.flatten(1).square().sum(1).mean()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Turns:
    """The `stop` callback of ganrun's loop, called after each step. It runs the bare loop every `size.turn` calls."""

    def __init__(self, size: Size, bare: Callable[[], Iterator[None]], device: torch.device) -> None:
        self.size, self.device, self.bare, self.loop = size, device, bare, iter(())
        self.calls, self.peak = 0, 0.0
        self.ganrun: list[float] = []
        self.other: list[float] = []
        self.start = time.perf_counter()

    def __call__(self) -> bool:
        self.calls += 1
        if self.calls % self.size.turn:
            return False
        wait(self.device)
        self.ganrun.append(self.size.turn / (time.perf_counter() - self.start))
        if self.calls == self.size.turn:  # before the networks of the bare loop exist
            self.peak = peak_memory(self.device) or math.nan
            self.loop = self.bare()
        start = time.perf_counter()
        for _ in itertools.islice(self.loop, self.size.turn):
            pass
        wait(self.device)
        self.other.append(self.size.turn / (time.perf_counter() - start))
        self.start = time.perf_counter()
        return len(self.ganrun) > self.size.turns


def speed(size: Size, net: str, precision: str, device: torch.device) -> dict[str, float]:
    """Medians over all turns but the first, which is the warm-up."""
    config = size.config(net, precision, device, "train.steps=1000000")
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    turns = Turns(size, lambda: bare_loop(config, net, precision, device), device)
    with tempfile.TemporaryDirectory() as folder, RunDir(Path(folder)) as run_dir:
        run = build(config)
        train_loop(run, run_dir, config, None, Status(), turns, Board(run_dir, {}), Observer())
    ours, bare = turns.ganrun[1:], turns.other[1:]
    images = config["train"]["batch_size"] * config["train"]["n_critic"]
    return {
        "ganrun, steps/s": round(statistics.median(ours), 2),
        "bare loop, steps/s": round(statistics.median(bare), 2),
        "ganrun / bare": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3),
        "real images/s": round(statistics.median(ours) * images),
        "peak memory, GiB": round(turns.peak, 2),
    }


# Digits


def digits(size: Size, device: torch.device) -> dict[str, Any]:
    """A short training with its score: the metrics of the run, and the seconds of its training."""
    root = Path(os.environ.get("GANRUN_DATA") or "data")
    found = (root / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()
    data = ["data=mnist", f"data.root={root.absolute()}", "data.download=false"] if found else ["data=digits"]
    narrow = [*NETS["dcgan"][2], "metric.parzen.num=500", "train.threads=1"] if size.small else []
    with tempfile.TemporaryDirectory() as folder:
        ganrun.train(
            ganrun.compose(
                *data, f"train.device={device}", "train.ema=0.999", f"train.steps={size.digits}", "metric=parzen",
                "metric.parzen.split=test", "train.precision=bf16", f"run_dir={folder}/r", *narrow,
            )
        )  # fmt: skip
        result = json.loads((Path(folder) / "r" / "result.json").read_text())
    scores = {key: round(value, 4) for key, value in result["metrics"].items()}
    return {"data": data[0], "steps": size.digits, "seconds": result["wall_time"], **scores}


def attempt(name: str, part: Callable[[], Any]) -> Any:
    """The result of a part, or the error that ended it, which does not end the others."""
    try:
        found = part()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"}
    print(f"{name:28} {json.dumps(found)}", flush=True)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """The speeds as a table in Markdown."""
    keys = ("ganrun, steps/s", "bare loop, steps/s", "ganrun / bare", "peak memory, GiB")
    lines = ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for name, values in found.items():
        lines.append("| " + " | ".join([name, *(str(values.get(key, "failed")) for key in keys)]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps or cpu")
    parser.add_argument("--small", action="store_true", help="measure less, as without a GPU")
    parser.add_argument("--nets", nargs="+", choices=known_nets(), default=known_nets(), help="networks to measure")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write")
    options = parser.parse_args()
    device = choose_device(options.device, "--device")
    size, precisions, nets = Size(options.small or device.type == "cpu"), precisions_of(device), options.nets
    cases = [(net, precision) for net in nets for precision in precisions]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    machine = {
        **describe(),
        "device": name,
        "python": sys.version.split()[0],
        "cuda": torch.version.cuda,
        "small": size.small,
    }
    start = time.perf_counter()
    resume: dict[str, Any] = {}
    speeds: dict[str, Any] = {}
    found = {
        "machine": machine,
        "batch_size": size.batch,
        "resume bit for bit": resume,
        "speed": speeds,
        "digits": None,
    }

    def save() -> None:  # after each part, so that nothing is lost if the time on a GPU ends
        found["seconds"] = round(time.perf_counter() - start)
        options.out.write_text(json.dumps(found, indent=2) + "\n")

    save()
    for net, precision in cases:
        key = f"{net} {precision}"
        resume[key] = attempt(f"resume {key}", partial(resumes, size, net, precision, device))
        save()
    for net, precision in cases:
        key = f"{net} {precision}"
        speeds[key] = attempt(f"speed {key}", partial(speed, size, net, precision, device))
        save()
    score = found["digits"] = attempt("digits", partial(digits, size, device))
    save()
    print(f"\n{table(speeds)}\n\nresume bit for bit: {sum(r is True for r in resume.values())} of {len(resume)}")
    failed = [part for part in (*resume.values(), *speeds.values(), score) if part is False or "error" in str(part)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
