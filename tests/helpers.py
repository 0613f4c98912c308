"""Helpers shared by tests: runs built from a command line, processes stopped at a chosen moment, small data sets,
reading of recorded files, and networks with known outputs.
"""

import copy
import functools
import json
import math
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganrun.__main__ import main as program
from ganrun.cli.compose import compose, plain
from ganrun.cli.main import main
from ganrun.config import CONF, Config
from ganrun.data.dataset import Dataset, DataSpec
from ganrun.penalty.gradient import R1, R2, Dragan, GradientPenalty, ZeroCentered
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir
from ganrun.training.build import build
from ganrun.training.run import Run

REPO = Path(__file__).parents[1]
VARYING = ("time/", "memory/")  # tags of values that differ between equal runs


# Runs


def too_large(experiment: str) -> list[str]:
    """The settings that an experiment needs with few images: without metrics of more samples than tests have."""
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    own = ["~metric.fidelity"] if "override /metric: fidelity\n" in text else []
    return own or [need for other in re.findall(r"- /experiment/(\S+)", text) for need in too_large(other)]


def config_of(*overrides: str, verb: str = "train") -> dict[str, Any]:
    return copy.deepcopy(_composed(verb, overrides))


@functools.cache  # Hydra takes a fifth of a second
def _composed(verb: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return plain(compose(verb, overrides))


def run_of(*overrides: str) -> Run:
    return build(config_of("train.threads=1", "train.device=cpu", *overrides))


def train_in(folder: Path, *lines: list[str]) -> None:
    """Run command lines in this process, for fixtures of wider scope than a test, which cannot use `here`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ganrun"])
        patch.setattr(sys, "path", [*sys.path])
        patch.setenv("HYDRA_FULL_ERROR", "1")
        for line in lines:
            assert main(line) == 0


# `ganrun` in a separate process, which stops or waits at a chosen moment. It is forked from a process that has already
# imported what a run needs, because starting Python would take longer than the run.

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["ganrun.training.train", "ganrun.figures.density", "ganrun.metric.theory", "joblib", "scipy.io", "pytest"]
)
Prepare = Callable[[], None]  # called in the new process before `ganrun`


class Ended(NamedTuple):
    """code: the exit code, or minus the number of the signal that ended the process."""

    code: int
    out: str
    err: str


def end_of(arguments: Sequence[str], cwd: Path, prepare: Prepare) -> Ended:
    """Run `ganrun ARGUMENTS` in another process, after `prepare()`."""
    with tempfile.TemporaryDirectory() as folder:
        process = FORKED.Process(target=_ganrun, args=(list(arguments), cwd, prepare, Path(folder)))
        process.start()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, *((Path(folder) / name).read_text() for name in ("out", "err")))


def _ganrun(arguments: list[str], cwd: Path, prepare: Prepare, output: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(output / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent process ignores it
    os.chdir(cwd)
    prepare()
    sys.argv[1:] = arguments
    sys.exit(program())


def send_at(step: int, numbers: Sequence[signal.Signals], arguments: Sequence[str], cwd: Path) -> Ended:
    """Run `ganrun ARGUMENTS`, which sends itself these signals after logging that step."""
    return end_of(arguments, cwd, partial(at_step, step, partial(send, numbers)))


def kill_at(step: int, arguments: Sequence[str], cwd: Path) -> None:
    """Run `ganrun ARGUMENTS`, and kill it by SIGKILL after it has logged that step."""
    ended = send_at(step, [signal.SIGKILL], arguments, cwd)
    assert ended.code == -signal.SIGKILL, ended


def kill_before_renaming(name: str, arguments: Sequence[str], cwd: Path) -> None:
    """Run `ganrun ARGUMENTS`, and kill it by SIGKILL before it renames a temporary file to a name that starts so."""
    ended = end_of(arguments, cwd, partial(before_renaming, name, partial(send, [signal.SIGKILL])))
    assert ended.code == -signal.SIGKILL, ended


@contextmanager
def waiting_at(step: int, arguments: Sequence[str], cwd: Path) -> Iterator[None]:
    """Run `ganrun ARGUMENTS` up to that step, let it wait there during the body, and then kill it."""
    here, there = FORKED.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        prepare = partial(at_step, step, partial(wait, there))
        process = FORKED.Process(target=_ganrun, args=(list(arguments), cwd, prepare, Path(folder)))
        process.start()
        there.close()
        try:
            here.recv()  # raises EOFError if the process ends before that step
            yield
        finally:
            process.kill()
            process.join()


def send(numbers: Sequence[signal.Signals]) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def wait(pipe: Connection) -> None:
    pipe.send("waiting")
    pipe.recv()


def at_step(step: int, action: Callable[[], None]) -> None:
    """Call `action` after a row of that step has been logged."""
    log_row = RunDir.log_row

    def interrupted(self: RunDir, row: dict[str, object]) -> None:
        log_row(self, row)
        if row["step"] == step:
            action()

    RunDir.log_row = interrupted


def before_renaming(name: str, action: Callable[[], None]) -> None:
    """Call `action` before a temporary file is renamed to a name that starts with `name`."""
    replace = os.replace

    def interrupted(source: str, target: str) -> None:
        if Path(target).name.startswith(name):
            assert Path(source).stat().st_size > 0
            action()
        replace(source, target)

    os.replace = interrupted


# Recorded files


def limit_file_size(size: int) -> None:
    """Let every write past `size` bytes of a file fail, almost as on a full disk: the error has another text.

    Python then caches no modules that it imports, because these files would be truncated, too, and break later imports.
    """
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def full_disk(size: int = 300) -> Iterator[None]:
    """`limit_file_size` for the body."""
    limits, dont_write = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    limit_file_size(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = dont_write


def small_state(step: int, **changes: Any) -> dict[str, Any]:
    """The content of a checkpoint of a run without weights."""
    parts: dict[str, Any] = {name: {} for name in ("data", "G", "D", "g_optimizer", "d_optimizer")}
    spec = asdict(DataSpec((1,)))
    return {"step": step, "nimg": 0, "seconds": 0.0, "config": config_of(), "spec": spec, **parts, **changes}


def result_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


def logged(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without times and memory."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(VARYING)} for row in rows]


def recorded(run_dir: Path, key: str) -> list[tuple[int, float]]:
    return [(row["step"], row[key]) for row in logged(run_dir) if key in row]


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars in the event files as (step, value), in the order in which they were written."""
    found: dict[str, list[tuple[int, float]]] = {}
    files = [list(EventFileLoader(str(path)).Load()) for path in run_dir.glob("events.*")]
    for events in sorted(files, key=lambda events: events[0].wall_time):
        for event in events:
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars" and not value.tag.startswith(VARYING):
                    found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal bit for bit; NaN equals NaN."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a.nan_to_num(9), b.nan_to_num(9)) if isinstance(a, Tensor) else a == b


def state_of(net: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's parameters and buffers, by name."""
    return copy.deepcopy(net.state_dict())


def assert_same_run(a: Path, b: Path) -> None:
    states = [checkpoint.load_newest(path / "checkpoints") for path in (a, b)]
    assert states[0] is not None
    assert states[1] is not None
    for key in states[0].keys() - {"config", "seconds"}:
        assert same(states[0][key], states[1][key]), key
    assert (states[0]["config"]["train"]["ema"] > 0) == ("G_ema" in states[0])
    for picture in (a / "samples").glob("*.png"):  # drawn from G_ema
        assert picture.read_bytes() == (b / "samples" / picture.name).read_bytes()
    assert logged(a) == logged(b)
    assert curves(a) == curves(b)
    for curve in curves(b).values():
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps))


# Small data sets


def write_mnist(root: Path, train: int = 60, test: int = 20) -> None:
    """Write a small data set in the format of MNIST."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    write_idx(folder, {"train": train, "t10k": test}, side=28, num_classes=10)


def write_fer2013(root: Path, train: int = 14, held_out: int = 7) -> None:
    """Write a small data set like FER2013, in the format of MNIST."""
    folder = root / "FER2013Idx" / "raw"
    folder.mkdir(parents=True)
    write_idx(folder, {"train": train, "t10k": 2 * held_out}, side=48, num_classes=7)


def write_idx(folder: Path, splits: dict[str, int], side: int, num_classes: int) -> None:
    rng = np.random.default_rng(0)
    for name, n in splits.items():
        images = rng.integers(0, 256, (n, side, side), np.uint8)
        labels = (np.arange(n) % num_classes).astype(np.uint8)
        head = b"\0\0\x08\x03" + b"".join(k.to_bytes(4, "big") for k in (n, side, side))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + n.to_bytes(4, "big") + labels.tobytes())


def write_cifar10(root: Path, n: int = 20) -> None:
    """Write a small data set in the format of CIFAR-10."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        batch = {"data": rng.integers(0, 256, (n, 3072), np.uint8), "labels": [k % 10 for k in range(n)]}
        (folder / name).write_bytes(pickle.dumps(batch))


def write_olivetti(root: Path) -> None:
    """Write noise in the format of scikit-learn's file, with the pixels of each face in MATLAB's order."""
    (root / "olivetti").mkdir(parents=True)
    faces = np.random.default_rng(0).integers(0, 243, (400, 4096), np.uint8)
    faces[0, :2] = 0, 242  # scikit-learn scales by the smallest and largest value
    joblib.dump(faces, root / "olivetti" / "olivetti_py3.pkz", compress=1)


def write_tfd(root: Path, **changes: Any) -> dict[str, Any]:
    """Write a small data set like TFD: 30 unlabeled images, then 50 labeled ones, in five folds of 35, 5 and 10."""
    root.mkdir(parents=True, exist_ok=True)
    label = np.arange(50)
    parts = [np.select([label // 10 == fold, label // 5 == (2 * fold + 2) % 10], [3, 2], 1) for fold in range(5)]
    fields = {
        "images": np.random.default_rng(0).integers(0, 256, (80, 48, 48), np.uint8),
        "folds": np.concatenate([np.zeros((30, 5)), np.stack(parts, 1)]).astype(np.uint8),
        "labs_ex": np.concatenate([np.full(30, -1), label % 7 + 1])[:, None].astype(np.int16),
        "labs_id": np.concatenate([np.full(30, -1), label // 5])[:, None].astype(np.int16),
    } | changes
    fields = {name: value for name, value in fields.items() if value is not None}
    savemat(root / "TFD_48x48.mat", fields, do_compression=True)
    return fields


def write_folder(root: Path, n: int = 12) -> None:
    rng = np.random.default_rng(0)
    for k in range(n):
        path = root / ("cats" if k % 2 else "dogs") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path)


def write_table(root: Path, n: int = 200) -> Path:
    """Write table.csv: a whole number, prices, two columns of categories and a flag; 5% of the prices are missing.

    The price depends on the job. Its logarithm is normal.
    """
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    job = rng.choice(["clerk", "nurse", "pilot"], n, p=[0.5, 0.3, 0.2])
    price = np.exp(3 + (job == "pilot") + 0.4 * rng.normal(size=n)).round(2)
    cells = [price[i] if rng.random() < 0.95 else "" for i in range(n)]
    lines = [f"{rng.integers(18, 80)},{job[i]},{cells[i]},{['south', 'north'][i % 3 > 0]},{i % 2}" for i in range(n)]
    (root / "table.csv").write_text("\n".join(["age,job,price,city,owner", *lines, ""]))
    return root / "table.csv"


def without_test(data: Dataset) -> Dataset:
    """A copy in which any use of the test split fails."""
    found = copy.copy(data)
    object.__setattr__(found, "test", None)
    return found


# Functions that write a small copy of a data set that is read from files, by its `_target_`.
MINIATURES: dict[str, Callable[[Path], Any]] = {
    "ganrun.data.published.mnist": write_mnist,
    "ganrun.data.published.stacked_mnist": write_mnist,
    "ganrun.data.published.cifar10": write_cifar10,
    "ganrun.data.faces.fer2013": write_fer2013,
    "ganrun.data.olivetti.olivetti": write_olivetti,
    "ganrun.data.tfd.tfd": write_tfd,
    "ganrun.data.folder.folder": write_folder,
    "ganrun.data.table.table": write_table,
}
MANY, FEW = 1000, 200  # hidden layers of more than MANY units get FEW
NARROW = 8  # the most channels in `width` and `widths` of a convolutional network


def in_miniature(config: Config, root: Path) -> Config:
    """The config with small data, which need no download, and with narrow layers, since wide ones need GBs."""
    data = config["data"]
    if data["_target_"] in MINIATURES:
        folder = root / data["_target_"]
        if not folder.exists():
            MINIATURES[data["_target_"]](folder)
        data |= {"root": str(folder), "download": False, "verify": False}
        data |= {"file": str(folder / "table.csv")} if "file" in data else {}
        data |= {"num_valid": 10} if "num_valid" in data else {}
        data |= {"num": 100} if data.get("num") else {}
    for net in config["arch"].values():
        if isinstance(net, dict) and "width" in net:
            net["width"] = min(net["width"], NARROW)
            net |= {"widths": [min(width, NARROW) for width in net["widths"]]} if net.get("widths") else {}
        if isinstance(net, dict) and "hidden" in net:
            kept = net["hidden"][-1:] if "deconvolution" in net else []  # which determines its number of units
            narrow = [FEW if units > MANY else units for units in net["hidden"]]
            net["hidden"] = [*narrow[: len(narrow) - len(kept)], *kept]
    return config


# Networks with known outputs, and batches for them

SHAPES = [(3,), (2, 5, 4)]  # a vector, an image
GRADIENT_PENALTIES = [GradientPenalty, ZeroCentered, R1, R2, Dragan]


class Linear(nn.Module):
    """D(x) = w . x, for samples of any shape. Records its inputs."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.inputs.append(x.detach())
        return (x * self.w).flatten(1).sum(1)


class Quadratic(nn.Module):
    """D(x) = |x|^2 / 2. Its gradient is x, which shows the points at which a penalty takes gradients."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.square().flatten(1).sum(1) / 2


class Net(nn.Module):
    """A smooth D in float64 for vectors (B, 3) or images (B, 2, 5, 4)."""

    def __init__(self, shape: tuple[int, ...], *extra: nn.Module) -> None:
        super().__init__()
        first: nn.Module = nn.Linear(shape[0], 4) if len(shape) == 1 else nn.Conv2d(shape[0], 4, 3)
        numel = 4 if len(shape) == 1 else 4 * 3 * 2
        self.layers = nn.Sequential(first, *extra, nn.Tanh(), nn.Flatten(), nn.Linear(numel, 1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(x).squeeze(1)


class Mixer(nn.Module):
    """A substitute for layers such as minibatch discrimination."""

    mixes_samples = True

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0)


class Bilinear(nn.Module):
    """D(x) = psi * x for one-dimensional samples."""

    def __init__(self, psi: float) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.psi * x).squeeze(1)


class Dirac(nn.Module):
    """G(z) = theta."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.theta.expand(len(z), 1)


def batches(shape: tuple[int, ...], n: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, *shape, dtype=dtype), torch.randn(n, *shape, dtype=dtype) + 1


def vector_of_length(length: float, shape: tuple[int, ...]) -> Tensor:
    w = torch.linspace(-1, 2, math.prod(shape), dtype=torch.float64).view(shape)
    return w * (length / w.norm())


def images(batch: int, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, channels, size, size, dtype=dtype) * 2 - 1


# Memory


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors created inside it. peak: the most that existed at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self.release, storage.nbytes())
        return out

    def release(self, num: int) -> None:
        self.alive -= num
