"""Which metric notices which fault: planted faults of a generator, made from MNIST, under all metrics of fidelity.

    GANRUN_DATA=DIR python benchmarks/fidelity.py

Writes benchmarks/fidelity.json, and prints the table of docs/fidelity.md. The samples of a good generator are 5,000
training images, which are left out where copies of training images are looked for; most others are made from them. It
takes about ten minutes of one core, after the classifier is trained.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from machine import describe
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ganrun.data.dataset import Dataset
from ganrun.data.published import mnist
from ganrun.data.seeds import generator
from ganrun.features.classifier import Classifier
from ganrun.features.efficientnet import EfficientNetLite0
from ganrun.metric.classes import ClassBalance, IntraFid, LabelAccuracy
from ganrun.metric.fidelity import Fidelity
from ganrun.metric.neighbors import Neighbors
from ganrun.metric.parzen import Parzen
from ganrun.metric.ssim import MsSsim
from ganrun.metric.train_on_samples import TrainOnSamples
from ganrun.protocols import Metric

OUT = Path(__file__).with_suffix(".json")
NUM = 5000
Samples = tuple[Tensor, Tensor]


def random(*shape: int, name: str) -> Tensor:
    return torch.randn(*shape, generator=generator(0, name))


def faults(data: Dataset) -> dict[str, Samples]:
    """Samples (NUM, 1, 28, 28) in the data's range, and the labels that were asked for, by the name of the fault."""
    assert data.train.y is not None
    x, y = data.spec.decode(data.train.x[-NUM:]), data.train.y[-NUM:]
    few = torch.arange(NUM) % 100
    one = x[y == 1].repeat(20, 1, 1, 1)[:NUM]
    return {
        "none (real images)": (x, y),
        "collapsed to one image": (x[:1].expand(NUM, -1, -1, -1), y),
        "collapsed to 100 images": (x[few], y[few]),
        "only ones": (one, torch.ones(NUM, dtype=torch.long)),
        "a class missing": (x[y != 4].repeat(2, 1, 1, 1)[:NUM], y[y != 4].repeat(2)[:NUM]),
        "copies of training images": (data.spec.decode(data.train.x[:NUM]), data.train.y[:NUM]),
        "blurred": (gaussian_blur(x, 5, 1.0), y),
        "noisy": ((x + 0.3 * random(*x.shape, name="noise")).clamp(-1, 1), y),
        "wrong labels": (x, (y + 1) % 10),
        "pure noise": (random(*x.shape, name="noise").clamp(-1, 1), y),
    }


def metrics() -> list[Metric]:
    classifier = Classifier(data_name="mnist")
    return [
        Fidelity(classifier, num=NUM, scores=("fd", "kid", "is", "prdc")),
        Fidelity(EfficientNetLite0(), num=NUM),
        ClassBalance(classifier, NUM),
        LabelAccuracy(classifier, NUM),
        IntraFid(classifier, NUM),
        TrainOnSamples(NUM),
        MsSsim(classifier),
        Neighbors(),
        Parzen(num=NUM, split="valid", anchor=False),
    ]


def measured(data: Dataset) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {name: {} for name in faults(data)}
    for metric in metrics():
        call: Callable[..., dict[str, float]] = metric  # type: ignore[assignment]
        compared = replace(data, train=data.train[:-NUM]) if isinstance(metric, Neighbors) else data
        for name, (x, y) in faults(data).items():
            labels = {} if metric.labels == "unused" else {"y": y}
            found[name] |= call(x, compared, **labels)
            print(f"{type(metric).__name__:14} {name}", file=sys.stderr)
    return found


COLUMNS = {
    "fd": "fd_mnistcnn_5k", "kid": "kid_mnistcnn_5k", "is": "is_mnistcnn_5k", "precision": "precision_mnistcnn_5k",
    "recall": "recall_mnistcnn_5k", "density": "density_mnistcnn_5k", "coverage": "coverage_mnistcnn_5k",
    "fd (efflite0)": "fd_efflite0_5k", "kid (efflite0)": "kid_efflite0_5k", "class_kl": "class_kl_mnistcnn_5k",
    "label_accuracy": "label_accuracy_mnistcnn_5k", "intra_fd": "intra_fd_mnistcnn_5k",
    "train_on_samples": "train_on_samples_valid_5k", "ms_ssim": "ms_ssim_1k", "copies": "copies_1k",
    "parzen (valid)": "parzen_5k_valid",
}  # fmt: skip


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown, a row for each metric and a column for each fault."""
    lines = [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for title, key in COLUMNS.items():
        lines.append(f"| {title} | {' | '.join(f'{values[key]:.3g}' for values in found.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = measured(mnist(os.environ["GANRUN_DATA"]))
    OUT.write_text(json.dumps({**describe(), "num": NUM, "values": found}, indent=1) + "\n")
    print(table(found))
