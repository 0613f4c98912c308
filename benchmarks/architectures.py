"""Steps per second of CPU time of the image architectures on one core, with and without their shortcuts.

Writes benchmarks/architectures.json. The shortcuts: resampling inside of convolutions and shortcuts at the smaller side
(ganrun/arch/resnet.py), resampling of R3GAN by channels (r3gan.LowPass), and channels last in memory. Without them the
networks have the layers that their papers name, one after the other, and the same parameters and outputs. All variants
take turns in one process; a value is the median over the turns. `python benchmarks/architectures.py`,
ten minutes on an idle core.
"""

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from machine import describe
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import ganrun
from ganrun.arch import r3gan, resnet
from ganrun.training.game import Game

OUT = Path(__file__).with_suffix(".json")
BATCH, TURNS = 16, 5
LINES = {
    "dcgan, width 32": ["arch=dcgan", "arch.generator.width=32", "arch.discriminator.width=32"],
    "sngan, width 16": ["arch=sngan", "loss=hinge", "arch.generator.width=16", "arch.discriminator.width=16"],
    "wgan_gp, width 16": ["arch=wgan_gp", "loss=wgan_gp", "arch.generator.width=16", "arch.discriminator.width=16"],
    "biggan, width 16": [
        "arch=biggan", "loss=hinge", "train.n_critic=4", "condition=own",
        "arch.generator.width=16", "arch.discriminator.width=16",
    ],
    "r3gan, width 32": ["arch=r3gan", "loss=rpgan", "arch.generator.width=32", "arch.discriminator.width=32"],
}  # fmt: skip


def up(layer: resnet.UpConv2d, x: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)


def down(layer: resnet.DownConv2d, x: Tensor) -> Tensor:
    return F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2)


def up_block(block: resnet.UpBlock, x: Tensor, *condition: Tensor) -> Tensor:
    h = block.conv1(F.relu(block.norm1(x, *condition)))
    return block.conv2(F.relu(block.norm2(h, *condition))) + block.shortcut(F.interpolate(x, scale_factor=2))


def down_block(block: resnet.DownBlock, x: Tensor) -> Tensor:
    h = block.conv2(F.relu(block.norm2(block.conv1(x if block.first else F.relu(block.norm1(x))))))
    if block.first:
        return h + block.shortcut(F.avg_pool2d(x, 2))
    return h + (F.avg_pool2d(block.shortcut(x), 2) if block.down else block.shortcut(x))


def low_pass(layer: r3gan.LowPass, x: Tensor) -> Tensor:
    """Every channel of every sample as an image of one channel, as in the authors' reference implementation."""
    found = layer.convolve(x.reshape(-1, 1, *x.shape[2:]), layer.kernel[:1].to(x.dtype), stride=2, padding=1)
    return found.view(*x.shape[:2], *found.shape[2:])


PLAIN = {
    resnet.UpConv2d: up, resnet.DownConv2d: down, resnet.UpBlock: up_block, resnet.DownBlock: down_block,
    r3gan.LowPass: low_pass,
}  # fmt: skip


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for kind, forward in PLAIN.items():
            stack.enter_context(patch.object(kind, "forward", forward))
        yield


def game_of(folder: str, line: list[str], precision: str) -> Game:
    shared = [f"data.root={folder}", f"data.cache={folder}/cache", "data.size=32", "data.valid=0", "data.test=0"]
    fixed = [
        "metric=none",
        f"train.batch_size={BATCH}",
        "train.threads=1",
        "train.device=cpu",
        f"train.precision={precision}",
    ]
    return Game(ganrun.build(ganrun.compose("data=folder", *shared, *fixed, *line)))


def contiguous(game: Game) -> Game:
    for net in (game.run.G, game.run.D):
        net.to(memory_format=torch.contiguous_format)
    return game


def steps_per_second(folder: str, line: list[str], precision: str) -> dict[str, Any]:
    """The medians over the turns; the first turn only warms up."""
    games = {
        "ours": (game_of(folder, line, precision), contextlib.nullcontext),
        "layer by layer": (game_of(folder, line, precision), layer_by_layer),
        "and contiguous": (contiguous(game_of(folder, line, precision)), layer_by_layer),
    }
    seconds: dict[str, list[float]] = {name: [] for name in games}
    for turn in range(TURNS + 1):
        for name, (game, context) in games.items():
            with context():
                start = time.process_time()
                game.step(turn)
                seconds[name].append(time.process_time() - start)
    found = {name: round(1 / statistics.median(times[1:]), 3) for name, times in seconds.items()}
    pairs = zip(seconds["layer by layer"][1:], seconds["ours"][1:], strict=True)
    return found | {"times as fast": round(statistics.median(a / b for a, b in pairs), 2)}


def write_images(folder: str) -> None:
    for k in range(64):
        path = Path(folder) / str(k % 10) / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (32, 32, 3), np.uint8)).save(path)


if __name__ == "__main__":
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        write_images(temporary)
        for label, settings in LINES.items():
            for kind in ("fp32", "bf16"):
                results[f"{label}, {kind}"] = steps_per_second(temporary, settings, kind)
                print(label, kind, results[f"{label}, {kind}"], flush=True)
    note = f"batch size {BATCH}, 32x32 pixels, in seconds of CPU time on one core of a machine that other work shared"
    OUT.write_text(json.dumps({"machine": describe(), "note": note, "steps_per_second": results}, indent=1) + "\n")
