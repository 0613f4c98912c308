"""Where the time of a training step goes. Writes benchmarks/step.json.

    python benchmarks/step.py          # dcgan, sngan and r3gan on 32x32 RGB, batch size 64, fp32 and bf16, one core
    python benchmarks/step.py dcgan

For each network and precision: the time of a step of ganrun's loop, the floating-point operations of its convolutions
and matrix products, and the share that these reach of the rate of this core: that of a product of two matrices of
2048 x 2048 in the same precision. Then the share of the time by kind of work. Inside a convolution, oneDNN converts
tensors to the layouts that it computes with ("layouts"); its own log tells how long that takes. "Python and others" is
the rest: the interpreter, the dispatch of operations, and whatever is in no other row; the profiler slows operations,
so that the others are upper bounds. The data are random bytes.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu import NETS
from machine import describe
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

import ganrun
from ganrun.training.build import build
from ganrun.training.game import Game
from ganrun.training.randomness import reseed

ganrun.trust("gpu")  # the data set of random bytes
OUT = Path(__file__).with_suffix(".json")
BATCH, SIDE = 64, 2048
STEPS = {"dcgan": 10, "sngan": 3, "r3gan": 2}
WIDTHS = {"r3gan": ["arch.generator.width=128", "arch.discriminator.width=128"]}  # its own 768 is for GPUs
KINDS = {  # the operations of torch by kind of work; the first that fits counts
    "convolutions": r"conv",
    "matrix products": r"mm|matmul|addmm|bmm",
    "batch norm": r"batch_norm",
    "optimizer": r"_fused_adam|_foreach|lerp",
    "upsampling, padding": r"upsample|pool|pad",
    "copies, layouts outside of convolutions": r"copy|contiguous|clone|cat|index|to_copy",
    "memory allocation": r"empty|zero|resize|fill|detach|alias|view|as_strided",
    "activations and other arithmetic": r".",
}


def game_of(net: str, precision: str) -> Game:
    loss = NETS[net][0]
    config = ganrun.compose(
        "data=cifar10", f"arch={net}", f"loss={loss}", f"train.precision={precision}", f"train.batch_size={BATCH}",
        "train.n_critic=1", "train.device=cpu", "train.threads=1", *WIDTHS.get(net, []),
    )  # fmt: skip
    shared = {key: config["data"][key] for key in ("root", "download", "verify", "value_range", "gcn", "flip")}
    return Game(build(config | {"data": {**shared, "_target_": "gpu.noise", "num": 2000}}))


def steps_of(game: Game) -> Iterator[None]:
    step = 0
    while True:
        reseed(game.run.device, game.run.seed, "step", step)
        game.step(step)
        step += 1
        yield


def seconds_of(work: Callable[[], Any], times: int) -> float:
    """The median time of a call, after one to warm up."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def rate_of_products(precision: str) -> float:
    """Floating-point operations per second of a matrix product, which no network exceeds."""
    a, b = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16 if precision == "bf16" else None) for _ in range(2))
    return 2 * SIDE**3 / seconds_of(lambda: a @ b, 7)


class Unnamed(ModuleTracker):
    """Counts for no single layer: their hooks do not go together with gradients of gradients."""

    def __enter__(self) -> "Unnamed":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def operations_of(loop: Iterator[None]) -> int:
    """Floating-point operations of the convolutions and matrix products of a step, with their derivatives."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Unnamed()
    with counter:
        next(loop)
    return int(counter.get_total_flops())


def kinds_of(loop: Iterator[None], steps: int) -> dict[str, float]:
    """Seconds per step by kind of work, without the interpreter."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            next(loop)
    seconds: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        if "::" in event.key or "convolution" in event.key:
            kind = next(kind for kind, names in KINDS.items() if re.search(names, event.key))
            seconds[kind] += event.self_cpu_time_total / 1e6 / steps
    return dict(seconds)


def layouts(net: str, precision: str) -> float:
    """Seconds per step that oneDNN spends on layouts, from its log, in a process of its own."""
    code = f"import step; loop = step.steps_of(step.game_of({net!r}, {precision!r})); "
    code += "next(loop); print('begin'); next(loop)"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "ONEDNN_VERBOSE": "1", "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.split(",") for line in done.stdout.partition("begin\n")[2].splitlines()]
    return sum(float(line[-1]) for line in lines if "exec" in line and "reorder" in line) / 1e3


def measure(net: str, precision: str) -> dict[str, Any]:
    loop = steps_of(game_of(net, precision))
    step = seconds_of(lambda: next(loop), STEPS[net])
    operations, rate = operations_of(loop), rate_of_products(precision)
    seconds = kinds_of(loop, STEPS[net])
    inside = min(layouts(net, precision), seconds["convolutions"])
    seconds["convolutions"] -= inside
    seconds["layouts inside of convolutions"] = inside
    seconds["Python and others"] = max(step - sum(seconds.values()), 0.0)
    total = sum(seconds.values())
    return {
        "steps/s": round(1 / step, 3),
        "10^9 operations of a step": round(operations / 1e9, 1),
        "10^9 operations/s of a matrix product": round(rate / 1e9, 1),
        "share of that rate": round(operations / step / rate, 3),
        "share of the time": {
            kind: round(found / total, 3) for kind, found in sorted(seconds.items(), key=lambda x: -x[1])
        },
    }


def main() -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    found: dict[str, Any] = {}
    for net in sys.argv[1:] or list(STEPS):
        for precision in ("fp32", "bf16"):
            found[f"{net} {precision}"] = measure(net, precision)
            print(net, precision, json.dumps(found[f"{net} {precision}"], indent=1), flush=True)
    OUT.write_text(json.dumps({"machine": describe(), "batch_size": BATCH, "figures": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
