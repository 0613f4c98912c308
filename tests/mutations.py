"""Random changes of the files of a run directory, and the code that reads them.

Each reader must either work or raise an error that the command line shows as one sentence. All is a function of the
seed. benchmarks/mutations.py makes many changes of each file, and tests/records/test_mutations.py a few.
"""

import copy
import hashlib
import io
import itertools
import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from helpers import config_of, train_in

from ganrun.cli.errors import USERS_ERRORS, sentence
from ganrun.commands import diagnose, evaluate, figures, sample, table1
from ganrun.commands.train import print_metrics
from ganrun.figures.album import opened, save_still
from ganrun.figures.grid import save_png
from ganrun.records import checkpoint, dashboard, frames
from ganrun.records.run_dir import RunDir, check_compatible
from ganrun.training.build import build
from ganrun.training.load import load
from ganrun.training.train import train

RUN = ["train.steps=4", "train.log_every=1", "train.sample_every=0", "train.metric_every=2", "train.diagnose=false",
       "train.threads=1", "train.batch_size=8", "data.num=300", "metric.distribution.num=100", "metric.theory.num=100",
       "train.keep_best=ks_100", "run_dir=r"]  # fmt: skip
ODD = [None, True, -1, 0, 5, 2.5, 2**40, 2**70, float("inf"), float("nan"), "", "x", "..", "1", "\0", [], [1], ["x"],
       [[]], {}, {"a": 1}, {"a": {"_target_": "x"}}, {"_target_": 3}]  # fmt: skip
TOKENS = [b"null", b"[", b"{", b"}", b"]", b'"', b":", b"\n", b"- ", b"\xff", b"\0", b"&a ", b"*a", b"!!set ", b"e999",
          b"9" * 30, b"2001-99-99", b"2001-01-01", b"<<: ", b"? ", b"\t"]  # fmt: skip
Reader = Callable[[Path], Any]  # of a run directory


def make_run(folder: Path) -> Path:
    """A short run, with a recorded evaluation of its first checkpoint, and two pictures."""
    train_in(folder, RUN, ["evaluate", "run_dir=r", "ema=false", "metric=parzen", "metric.parzen.num=50"])
    for step in (0, 4):
        save_png(np.full((8, 8, 3), step, np.uint8), folder / "r" / "samples" / f"step_{step:08d}.png")
    return folder / "r"


def verb(name: str, line: str, **settings: Any) -> dict[str, Any]:
    config = {**config_of(line, verb=name), **settings}
    config.pop("trust", None)  # as the command line does
    return config


def evaluated(path: Path) -> None:
    evaluate.main(verb("evaluate", "run_dir=r", run_dir=str(path), metric=None))


def diagnosed(path: Path) -> None:
    diagnose.main(verb("diagnose", "run_dir=r", run_dir=str(path)))


def sampled(path: Path) -> None:
    sample.main(verb("sample", "run_dir=r", run_dir=str(path), num=2))


def tabulated(path: Path) -> None:
    table1.main(verb("table1", "runs=r", runs=str(path), ema=False))


def drawing(number: int, with_frames: bool = False) -> Reader:
    """Draws one of the figures; all of them take a second."""

    def drawn(path: Path) -> None:
        if not with_frames:
            shutil.rmtree(path / "frames")
        for stem, figure in itertools.islice(figures.open_album(RunDir(path)).stills(), number, number + 1):
            save_still(figure, path / f"{stem}.png")

    drawn.__name__ = f"drawn_{number}"
    return drawn


def animated(path: Path) -> None:
    replace(figures.open_album(RunDir(path)), frames=[]).images()


def built(path: Path) -> None:
    build(RunDir(path).config())


def compared(path: Path) -> None:
    check_compatible(RunDir(path), config_of(*RUN))


def trained(path: Path, steps: int = 4) -> None:
    config = config_of(*RUN, f"train.steps={steps}") | {"run_dir": str(path)}
    outcome = train(config, overrides=RUN, changes=["train.steps"])
    if outcome.error and outcome.status == "failed":
        raise outcome.error


def extended(path: Path) -> None:
    trained(path, steps=6)


def printed(path: Path) -> None:
    run = load(path)
    print_metrics(run.metrics, run.run_dir.metric_keys())


def rewound(path: Path) -> None:
    dashboard.rewind(path, 2, again="metric/ks_1k".__eq__)


def inserted(path: Path) -> None:
    dashboard.insert(path, 2, lambda board: board.scalars({"a": 1.0}, 2))


CONTENT: dict[str, Reader] = {  # the only code that reads these files
    "config.yaml": lambda path: RunDir(path).config(),
    "command.json": lambda path: RunDir(path).overrides(),
    "result.json": lambda path: RunDir(path).result(),
    "metrics.jsonl": lambda path: list(RunDir(path).rows()),
    "metric_keys.json": lambda path: RunDir(path).metric_keys(),
    "events.out.tfevents.*": lambda path: [file.read_bytes() for file in path.glob("events.*")],
    "checkpoints/step_00000004.pt": lambda path: checkpoint.load(path / "checkpoints" / "step_00000004.pt"),
    "frames/step_00000000.npz": lambda path: vars(frames.load(path / "frames" / "step_00000000.npz")),
    "samples/step_00000000.png": lambda path: opened(path / "samples" / "step_00000000.png"),
}
CURVES = [drawing(0), drawing(1), drawing(2)]
READERS: dict[str, list[Reader]] = {  # what then uses their content
    "config.yaml": [sampled, built, compared, tabulated, CURVES[0]],
    "command.json": [diagnosed],
    "result.json": [trained, evaluated, tabulated, printed],
    "metrics.jsonl": [trained, evaluated, diagnosed, tabulated, *CURVES, printed],
    "metric_keys.json": [evaluated, printed, *CURVES],
    "events.out.tfevents.*": [rewound, inserted],
    "checkpoints/step_00000004.pt": [sampled, evaluated, diagnosed, extended],
    "frames/step_00000000.npz": [drawing(0, with_frames=True), drawing(2, with_frames=True)],
    "samples/step_00000000.png": [animated],
}


@dataclass
class Mutations:
    """Changes of one file of a run. Each is read by one reader; not again if this one knows the content already.

    read: the number of times that a reader was called. known: digests of the contents that each reader has had.
    """

    run: Path
    name: str
    scratch: Path
    read: int = 0
    known: set[tuple[str, bytes]] = field(default_factory=set)

    def faults(self, seed: int) -> list[str]:
        """Change the file of a copy of the run, and return what its reader answers that is not one sentence."""
        rng = random.Random(f"{self.name} {seed}")
        reader = rng.choice(READERS[self.name])
        path = shutil.copytree(self.run, self.scratch / "r")
        try:
            (file,) = path.glob(self.name)
            file.write_bytes(mutated(file, rng))
            if found := self.answer(reader, path):
                return [f"{self.name}, seed {seed}, {reader.__name__}: {found}"]
        finally:
            shutil.rmtree(path)
        return []

    def answer(self, reader: Reader, path: Path) -> str | None:
        content: Any = None
        try:
            content = CONTENT[self.name](path)
        except Exception as error:
            content = repr(error)
            if found := fault_in(error):
                return f"reading: {found}"
        key = reader.__name__, hashlib.sha256(pickle.dumps(content)).digest()
        if key in self.known:
            return None
        self.known.add(key)
        self.read += 1
        try:
            reader(path)
        except (Exception, SystemExit) as error:
            return fault_in(error)
        return None


def fault_in(error: BaseException) -> str | None:
    """What is wrong with an error; None if the command line shows it as one sentence."""
    if not isinstance(error, USERS_ERRORS):
        return f"{type(error).__name__}: {error}"
    text = sentence(error, "sample", [])
    return f"answers {text!r}" if not text or "\n" in text else None


def mutated(file: Path, rng: random.Random) -> bytes:
    """The content of the file with changed bytes, or with a changed value in the right format."""
    data = file.read_bytes()
    if file.suffix not in (".json", ".jsonl", ".yaml", ".pt", ".npz") or rng.random() < 0.3:
        return changed_bytes(data, rng)
    if file.suffix == ".pt":
        buffer = io.BytesIO()
        torch.save(changed_tree(torch.load(file, weights_only=True), rng), buffer)
        return buffer.getvalue()
    if file.suffix == ".npz":
        buffer = io.BytesIO()
        tree = changed_tree(dict(np.load(file)), rng)
        np.savez(buffer, **{key: np.asarray(value) for key, value in tree.items()} if isinstance(tree, dict) else {})
        return buffer.getvalue()
    if file.suffix == ".yaml":
        tree = changed_tree(yaml.safe_load(data), rng)
        return yaml.safe_dump(tree, sort_keys=False).encode()
    if file.suffix == ".jsonl":
        lines = data.decode().splitlines()
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(changed_tree(json.loads(lines[place]), rng))
        return "\n".join(lines).encode() + b"\n"
    return json.dumps(changed_tree(json.loads(data), rng)).encode()


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to three bits, spans or tokens changed."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([0, 1, 4, 30, len(data)]))
        token = rng.choice([*TOKENS, rng.randbytes(4), data[start:end] * 2])
        kind = rng.randrange(4)
        if kind == 0 and start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
        elif kind == 1:
            data = data[:start] + data[end:]
        else:
            data = data[:start] + token + data[end:]
    return data


def changed_tree(tree: Any, rng: random.Random) -> Any:
    """One or two values replaced, removed, or given another name."""
    tree = {"top": copy.deepcopy(tree)}
    for _ in range(rng.randint(1, 2)):
        places = list(places_in(tree))
        if rng.random() < 0.5 and isinstance(tree["top"], dict) and tree["top"]:  # equally often in each section
            places = list(places_in(tree["top"], [rng.choice([*tree["top"]])]))
        parent, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0 and parent is not tree:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict) and parent is not tree:
            parent[rng.choice(["x", "", "_target_", "ks/x", "metric/a", "evaluated"])] = parent.pop(key)
        elif kind == 2:
            other, name = rng.choice(places)
            parent[key] = copy.deepcopy(other[name])
        elif kind > 3 and isinstance(parent[key], np.ndarray | torch.Tensor):
            parent[key] = changed_array(parent[key], rng)
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD))
    return tree["top"]


def changed_array(array: Any, rng: random.Random) -> Any:
    """An array or tensor of another shape, type or content."""
    flat = array.reshape(-1)
    if isinstance(array, torch.Tensor):
        others = [array.double(), array.long(), array.bool(), array.to(torch.complex64), array.half()]
    else:
        others = [array.astype(kind) for kind in ("f8", "i8", "?", "c8", "S3", "M8[s]")]
    others += [array[None], flat, flat[:0], flat[:1]]
    if isinstance(array, torch.Tensor) or array.dtype.kind in "fiubc":
        others += [array * float("nan"), array * 1e300, array * -1]
    return rng.choice(others)


def places_in(node: Any, keys: Any = None) -> Any:
    """All places of values below the node, or below these keys of it, as (dictionary or list, key)."""
    for key in keys or list(node if isinstance(node, dict) else range(len(node))):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places_in(node[key])
