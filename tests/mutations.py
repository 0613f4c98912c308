"""Random changes of the files of a run directory, and the commands that read them.

Each command must either work or raise an error that the command line shows as one sentence. All is a function of the
seed. benchmarks/mutations.py makes many changes of each file, and tests/records/test_mutations.py a few.
"""

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from helpers import config_of, train_in

from ganrun.cli.errors import USERS_ERRORS, sentence
from ganrun.commands import diagnose, evaluate, sample, table1
from ganrun.commands.figures import open_album
from ganrun.commands.train import print_metrics
from ganrun.records import dashboard
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


def make_run(folder: Path) -> Path:
    """A short run, with a recorded evaluation of its first checkpoint."""
    train_in(folder, RUN, ["evaluate", "run_dir=r", "ema=false", "metric=parzen", "metric.parzen.num=50"])
    return folder / "r"


def verb(name: str, **settings: Any) -> dict[str, Any]:
    return {**config_of("run_dir=r", verb=name), **settings}


def evaluated(path: Path) -> None:
    evaluate.main(verb("evaluate", run_dir=str(path), metric=None))


def diagnosed(path: Path) -> None:
    diagnose.main(verb("diagnose", run_dir=str(path)))


def sampled(path: Path) -> None:
    sample.main(verb("sample", run_dir=str(path), num=2))


def tabulated(path: Path) -> None:
    table1.main(verb("table1", runs=str(path)))


def drawn(path: Path) -> None:
    list(open_album(RunDir(path)).stills())


def built(path: Path) -> None:
    build(RunDir(path).config())


def compared(path: Path) -> None:
    check_compatible(RunDir(path), config_of(*RUN))


def trained(path: Path) -> None:
    train(config_of(*RUN) | {"run_dir": str(path)}, overrides=RUN)


def printed(path: Path) -> None:
    run = load(path)
    print_metrics(run.metrics, run.run_dir.metric_keys())


def rewound(path: Path) -> None:
    dashboard.rewind(path, 2, again="metric/ks_1k".__eq__)


def inserted(path: Path) -> None:
    dashboard.insert(path, 2, lambda board: board.scalars({"a": 1.0}, 2))


READERS: dict[str, list[Callable[[Path], None]]] = {
    "config.yaml": [sampled, built, compared, tabulated, drawn],
    "command.json": [diagnosed],
    "result.json": [trained, evaluated, tabulated, printed],
    "metrics.jsonl": [trained, evaluated, diagnosed, tabulated, drawn, printed],
    "metric_keys.json": [evaluated, printed, drawn],
    "events.out.tfevents.*": [rewound, inserted],
    "checkpoints/step_00000004.pt": [sampled],
    "frames/step_00000000.npz": [drawn],
}


def faults(run: Path, name: str, seed: int, scratch: Path) -> list[str]:
    """Change the file of a copy of the run, and return what its readers answer that is not one sentence."""
    rng = random.Random(f"{name} {seed}")
    found = []
    for reader in READERS[name]:
        path = shutil.copytree(run, scratch / "r")
        (file,) = path.glob(name)
        rng.seed(f"{name} {seed}")
        file.write_bytes(mutated(file, rng))
        try:
            reader(path)
        except USERS_ERRORS as error:
            text = sentence(error, "sample", [])
            if not text or "\n" in text:
                found.append(f"{name}, seed {seed}, {reader.__name__}: answers {text!r}")
        except Exception as error:
            found.append(f"{name}, seed {seed}, {reader.__name__}: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(path)
    return found


def mutated(file: Path, rng: random.Random) -> bytes:
    data = file.read_bytes()
    if file.suffix not in (".json", ".jsonl", ".yaml") or rng.random() < 0.3:
        return changed_bytes(data, rng)
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
        parent, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0 and parent is not tree:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict) and parent is not tree:
            parent[rng.choice(["x", "", "_target_", "ks/x", "metric/a", "evaluated"])] = parent.pop(key)
        elif kind == 2:
            other, name = rng.choice(places)
            parent[key] = copy.deepcopy(other[name])
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD))
    return tree["top"]


def places_in(node: Any) -> Any:
    """All places of values below the node, as (dictionary or list, key)."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from places_in(value)
