"""A conditional GAN on MNIST: do its digits have the requested classes? Writes benchmarks/conditional_mnist.json.

`ganrun` trains a CGAN with the command below; the time includes start-up. A classifier is trained on the real training
digits. Its accuracy is measured on the real test digits (required: at least 99%), and on 10,000 samples, 1,000 per
class, as the share that it assigns to the requested class (required: at least 97%). GANRUN_DATA must be set.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from machine import describe
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.data.published import mnist

OUT = Path(__file__).with_suffix(".json")
RUN_DIR = Path("outputs/conditional_mnist")
COMMAND = ["data=mnist", "condition=concat", "train.steps=8000", "train.ema=0.999", "train.precision=bf16"]


def train() -> float:
    """The training time in seconds. A finished run is reused, with the time that its training loop has recorded."""
    if (RUN_DIR / "result.json").exists():
        return json.loads((RUN_DIR / "result.json").read_text())["wall_time"]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ganrun", *COMMAND, f"run_dir={RUN_DIR}"], check=True)
    return time.perf_counter() - start


def sample() -> tuple[Tensor, Tensor]:
    """10,000 digits (N, 1, 28, 28) in [0, 1], and the requested classes (N,)."""
    import numpy as np

    options = ["num=10000", f"out={RUN_DIR}/asked"]
    subprocess.run([sys.executable, "-m", "ganrun", "sample", f"run_dir={RUN_DIR}", *options], check=True)
    with np.load(next((RUN_DIR / "asked").glob("*.npz"))) as found:
        x = torch.from_numpy(found["samples"]).permute(0, 3, 1, 2)
        return x.float() / 255, torch.from_numpy(found["labels"])


def classifier(x: Tensor, y: Tensor, epochs: int = 8) -> nn.Module:
    """Two convolutional and two linear layers; Adam 1e-3 with linear decay; random shifts of up to two pixels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.4), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    steps = epochs * (len(x) // 100)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(epochs):
        for index in torch.randperm(len(x))[: len(x) // 100 * 100].split(100):
            shift = torch.randint(-2, 3, (2,)).tolist()
            loss = F.cross_entropy(net(x[index].roll(shift, (2, 3))), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def recognized(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the network classifies each x as y, (N,)."""
    return torch.cat([net(part).argmax(1) for part in x.split(1000)]) == y


def main() -> None:
    import os

    seconds = train()
    data = mnist(os.environ.get("GANRUN_DATA", "data"))
    assert data.train.y is not None
    assert data.test.y is not None
    net = classifier(data.train.x.float() / 255, data.train.y)
    real = recognized(net, data.test.x.float() / 255, data.test.y)
    x, asked = sample()
    right = recognized(net, x, asked)
    summary = {
        "seconds to train": round(seconds, 1),
        "classifier on 10,000 real test digits": real.float().mean().item(),
        "10,000 samples recognized as asked": round(right.float().mean().item(), 4),
        "by class": [round(right[asked == k].float().mean().item(), 4) for k in range(10)],
    }
    print(json.dumps(summary, indent=2))
    command = f"ganrun {' '.join(COMMAND)}"
    OUT.write_text(json.dumps({"machine": describe(), "command": command, "summary": summary}, indent=2) + "\n")
    grid = next((RUN_DIR / "asked").glob("*_grid.png"))
    image = Image.open(grid)
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(
        "docs/images/conditional_mnist.png"
    )


if __name__ == "__main__":
    main()
