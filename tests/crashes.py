"""Every state of the disk in which a crash can leave a command of ganrun, and what the next command makes of it.

A command runs in another process, in which each file operation in the folder passes through `Operations`: opening for
writing, write, fsync, rename, unlink, mkdir. Around each of them the states are recorded in which the disk may be if
the process or the machine stops there:

- killed: all operations so far are complete;
- torn: the same, with the first half of the present write;
- data lost: names are as in "killed", but each file has the content of its last fsync (empty if there was none);
- names lost: in addition, a folder has the entries of its last fsync.

`recover` continues from each state, and `differences` compares the records with those of a whole run, bit for bit.
"""

import builtins
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import stat
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from helpers import VARYING, end_of, logged, same
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from ganrun.records import checkpoint

UNCOMPARED = {"train.log", ".lock"}
HEIGHTS = ["train.steps=4", "penalty=r1", "penalty.r1.every=3", "train.checkpoint_every=2", "train.log_every=1",
           "train.sample_every=2", "train.metric_every=2", "train.keep_best=ks_1k", "metric=distribution",
           "metric.distribution.num=1000", "data.num=500", "train.threads=1", "run_dir=r"]  # fmt: skip
DCGAN = ["data=digits", "train.steps=3", "train.batch_size=8", "arch.generator.width=4", "arch.discriminator.width=4",
         "arch.discriminator.norm=none", "penalty=[r1,lecam]", "train.ema=0.9", "train.checkpoint_every=1",
         "train.log_every=1", "train.sample_every=2", "train.metric_every=2", "metric=parzen", "metric.parzen.num=50",
         "train.keep_best=parzen_50_valid", "train.threads=1", "run_dir=r"]  # fmt: skip
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.(partial|unfinished)\b")  # the end of a temporary name
WRITING = os.O_WRONLY | os.O_RDWR
Tree = dict[str, bytes | None]  # by the path in the folder; None: a folder


class Node:
    """A file: what of it a power failure leaves."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable


class Disk:
    """What is on the disk, next to what the operating system shows."""

    def __init__(self, root: Path) -> None:
        self.root, self.lock = root, threading.RLock()
        self.names: dict[str, Node | None] = {
            name: data if data is None else Node(data) for name, data in tree_of(root).items()
        }
        self.durable = dict(self.names)

    def name(self, path: Any) -> str | None:
        """The path in the folder; None if it is elsewhere."""
        if isinstance(path, int):
            return self.of_file(path)
        path = os.path.abspath(os.fsdecode(path))
        return os.path.relpath(path, self.root) if path.startswith(f"{self.root}{os.sep}") else None

    def of_file(self, number: int) -> str | None:
        found = os.fstat(number)
        if os.path.samestat(found, os.stat(self.root)):
            return "."
        with self.lock:  # other threads rename files
            return next((name for name in self.names if os.path.samestat(found, os.stat(self.root / name))), None)

    def opened(self, name: str, truncate: bool) -> None:
        node = self.names.setdefault(name, Node())
        if truncate and node is not None:
            node.durable = b""

    def renamed(self, old: str, new: str) -> None:
        inside = [name for name in self.names if name == old or name.startswith(f"{old}{os.sep}")]
        self.names |= {new + name.removeprefix(old): self.names.pop(name) for name in inside}

    def synced(self, name: str) -> None:
        if (node := self.names.get(name)) is not None:
            node.durable = (self.root / name).read_bytes()
            return
        inside = {key for key in self.names.keys() | self.durable.keys() if os.path.dirname(key) == name.lstrip(".")}
        self.durable = {key: node for key, node in self.durable.items() if key not in inside}
        self.durable |= {key: self.names[key] for key in inside & self.names.keys()}

    def states(self) -> dict[str, Tree]:
        reached: dict[str, Node | None] = {}
        for name in sorted(self.durable):
            if not (parent := os.path.dirname(name)) or parent in reached:
                reached[name] = self.durable[name]
        return {
            "killed": tree_of(self.root),
            "data lost": {name: None if node is None else node.durable for name, node in self.names.items()},
            "names lost": {name: None if node is None else node.durable for name, node in reached.items()},
        }


def tree_of(root: Path) -> Tree:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def digest(tree: Tree) -> str:
    """Of the names and contents that matter. Names of event files have the number of the process."""
    plain = {re.sub(r"(tfevents\.\d+).*?(\.\d+)?((\.\w+)?\.partial)?$", r"\1\3", name): tree[name] for name in tree}
    plain = {TEMPORARY.sub(r".\1", name): data for name, data in plain.items()}
    found = hashlib.sha256()
    for name, data in sorted(plain.items()):
        if os.path.basename(name) not in UNCOMPARED:
            found.update(f"{name} {'folder' if data is None else len(data)} ".encode())
            found.update(data or b"")
    return found.hexdigest()


class Operations:
    """Calls `around` at each file operation in a folder, in the process in which it is installed."""

    def __init__(self, root: Path, now: float) -> None:
        """now: the time in the process, the same in all, so that equal states are found."""
        self.root, self.now = root, now
        self.counts: Counter[str] = Counter()

    def __call__(self) -> None:
        self.disk = Disk(self.root)
        clock = itertools.count(1)
        time.time = lambda: self.now
        time.perf_counter = lambda: next(clock) / 64
        self.begin()
        self.real_open, self.real = io.open, {name: getattr(os, name) for name in ("open", "write", "fsync")}
        operations = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                done = super().write
                data = memoryview(data).cast("B")
                return operations.writing(self.fileno(), data, lambda part: done(part))

        self.File = File
        builtins.open = io.open = self.open
        os.open, os.write, os.fsync = self.os_open, self.os_write, self.fsync
        for name in ("replace", "rename"):
            setattr(os, name, self.moving(getattr(os, name)))
        for name, kind in (("unlink", "unlink"), ("remove", "unlink"), ("rmdir", "rmdir"), ("mkdir", "mkdir")):
            setattr(os, name, self.changing(kind, getattr(os, name)))

    def begin(self) -> None:
        pass

    def around(self, moment: str, label: str) -> None:
        """moment: before, torn or after."""

    def operation(self, kind: str, name: str, action: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        with self.disk.lock:
            plain = re.sub(r"events\.out\.[^/]*?(\.partial)?$", r"events\1", name)
            plain = TEMPORARY.sub(r".\1", plain)
            self.counts[f"{kind} {plain}"] += 1
            label = f"{kind} {plain} {self.counts[f'{kind} {plain}']}"
            self.around("before", label)
            if half:
                half()
                self.around("torn", label)
            result = action()
            self.around("after", label)
            return result

    def open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        name = self.disk.name(file) if {*"wax+"} & {*mode} else None
        if name is None:
            return self.real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)

        def action() -> Any:
            raw = self.File(file, mode.replace("t", "").replace("b", ""), closefd, opener)
            self.disk.opened(name, "w" in mode)
            return raw

        raw = action() if isinstance(file, int) else self.operation("open", name, action)
        buffer: Any = raw if buffering == 0 else (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode
        return text

    def os_open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        name = self.disk.name(path) if flags & (WRITING | os.O_CREAT) and not named else None
        if name is None:
            return self.real["open"](path, flags, *rest, **named)

        def action() -> int:
            number: int = self.real["open"](path, flags, *rest)
            self.disk.opened(name, bool(flags & os.O_TRUNC))
            return number

        return self.operation("open", name, action)

    def os_write(self, number: int, data: Any) -> int:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return self.real["write"](number, data)
        return self.writing(number, memoryview(data).cast("B"), lambda part: self.real["write"](number, part))

    def writing(self, number: int, data: memoryview, write: Callable[[memoryview], int]) -> int:
        if (name := self.disk.of_file(number)) is None:
            return write(data)
        first = len(data) // 2
        self.operation("write", name, lambda: write(data[first:]), (lambda: write(data[:first])) if first else None)
        return len(data)

    def fsync(self, file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        name = self.disk.of_file(number)

        def action() -> None:
            self.real["fsync"](number)
            if name:
                self.disk.synced(name)

        action() if name is None else self.operation("fsync", name, action)

    def moving(self, real: Callable[[Any, Any], None]) -> Callable[..., None]:
        def move(source: Any, target: Any, **named: Any) -> None:
            old, new = self.disk.name(source), self.disk.name(target)

            def action() -> None:
                real(source, target, **named)
                self.disk.renamed(str(old), str(new))

            real(source, target, **named) if old is None or new is None else self.operation("rename", new, action)

        return move

    def changing(self, kind: str, real: Callable[..., None]) -> Callable[..., None]:
        def change(path: Any, *rest: Any, **named: Any) -> None:
            name = None if named.get("dir_fd") is not None else self.disk.name(path)

            def action() -> None:
                real(path, *rest, **named)
                if kind == "mkdir":
                    self.disk.names[str(name)] = None
                else:
                    del self.disk.names[str(name)]

            if (
                name is None
                or (kind != "mkdir" and not os.path.lexists(path))
                or (kind == "mkdir" and os.path.exists(path))
            ):
                real(path, *rest, **named)
            else:
                self.operation(kind, name, action)

        return change


class Trace(Operations):
    """Saves each different state in `out`, as the folder of its digest, and the labels of all operations."""

    def __init__(self, root: Path, now: float, out: Path) -> None:
        super().__init__(root, now)
        self.out = out

    def begin(self) -> None:
        self.known: set[str] = set()
        self.last: dict[str, str] = {}
        self.out.mkdir()

    def around(self, moment: str, label: str) -> None:
        if moment != "before" or not self.last:  # before an operation the disk is as after the last one
            self.last = {kind: self.keep(tree) for kind, tree in self.disk.states().items()}
        for kind, key in self.last.items():
            if moment != "torn" or kind == "killed":  # the half that was not synced is lost
                self.append(f"{json.dumps([moment, label, kind, key])}\n")

    def keep(self, tree: Tree) -> str:
        key = digest(tree)
        if key not in self.known:
            self.known.add(key)
            self.write(self.out / key / "tree", tree)
        return key

    def write(self, folder: Path, tree: Tree) -> None:
        folder.mkdir(parents=True)
        for name, data in sorted(tree.items()):
            if data is None:
                (folder / name).mkdir(parents=True, exist_ok=True)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with self.real_open(folder / name, "wb") as file:
                    file.write(data)

    def append(self, text: str) -> None:
        with self.real_open(self.out / "trace", "a") as file:
            file.write(text)


class Kill(Operations):
    """Kills the process at a moment of one operation."""

    def __init__(self, root: Path, now: float, moment: str, label: str) -> None:
        super().__init__(root, now)
        self.at = (moment, label)

    def around(self, moment: str, label: str) -> None:
        if (moment, label) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Campaign:
    """A command, and the states in which a crash leaves it.

    before: the folder in which it starts. line: the command. again: the command that continues, given the folder; None:
    the same one.
    """

    before: Path
    line: Sequence[str]
    scratch: Path
    again: Callable[[Path], Sequence[str]] | None = None
    crashes: list[tuple[str, str, str, str]] = field(default_factory=list)  # moment, label, kind, digest
    others: list[tuple[str, str, str, str]] = field(default_factory=list)  # of killed processes, in new states
    killed: int = 0
    lost: dict[str, list[str]] = field(default_factory=dict)  # the differences, by the digest of the state

    def __post_init__(self) -> None:
        """Run the command, whole and traced."""
        self.now = time.time()
        self.whole, self.states = self.scratch / "whole", self.scratch / "states"
        shutil.copytree(self.before, self.whole)
        ended = end_of(self.line, self.whole, Trace(self.whole, self.now, self.states))
        assert ended.code == 0, ended
        self.crashes = [tuple(json.loads(line)) for line in (self.states / "trace").read_text().splitlines()]
        self.torn = self.incomplete()

    @property
    def different(self) -> list[str]:
        return list(dict.fromkeys(key for *_, key in self.crashes))

    def incomplete(self) -> list[str]:
        """The states of a killed process with a picture or samples that are neither absent, as before, nor complete."""
        found = []
        for key in {key: None for _, _, kind, key in self.crashes if kind == "killed"}:
            tree = self.states / key / "tree"
            for path in (path for path in tree.rglob("*") if path.suffix in (".png", ".gif", ".npz")):
                if TEMPORARY.search(str(path)):
                    continue
                others = [root / path.relative_to(tree) for root in (self.before, self.whole)]
                if path.read_bytes() not in [other.read_bytes() for other in others if other.exists()]:
                    found.append(key)
                    break
        return found

    @property
    def operations(self) -> dict[str, int]:
        labels = [label for moment, label, kind, _ in self.crashes if (moment, kind) == ("after", "killed")]
        return dict(Counter(label.partition(" ")[0] for label in labels))

    def recover(self, key: str) -> list[str]:
        """Continue from a state, and return the differences from the whole run."""
        folder = self.states / key / "tree"
        ended = end_of(self.again(folder) if self.again else self.line, folder, nothing)
        found = differences(self.whole, folder) if ended.code == 0 else [f"exit code {ended.code}: {ended.err.strip()}"]
        if found:
            self.lost[key] = found
        else:
            shutil.rmtree(self.states / key)
        return found

    def kill(self, moment: str, label: str) -> list[str]:
        """Kill the command there; a state that was not in the trace, because threads took turns, is recovered, too."""
        folder = self.scratch / "killed"
        shutil.copytree(self.before, folder)
        ended = end_of(self.line, folder, Kill(folder, self.now, moment, label))
        assert ended.code in (-signal.SIGKILL, 0), ended
        self.killed += ended.code != 0
        key = digest(tree_of(folder))
        if key in self.different or any(key == known for *_, known in self.others):
            shutil.rmtree(folder)
            return []
        (self.states / key).mkdir(exist_ok=True)
        shutil.move(folder, self.states / key / "tree")
        self.others.append((moment, label, "killed", key))
        return self.recover(key)

    def describe(self, key: str) -> list[str]:
        crashes = [*self.crashes, *self.others]
        return [f"{kind}, {moment} {label}" for moment, label, kind, found in crashes if found == key]

    def counts(self) -> dict[str, Any]:
        return {
            "operations": self.operations,
            "crash points": dict(Counter("torn" if moment == "torn" else kind for moment, _, kind, _ in self.crashes)),
            "different states": len({*self.different, *(key for *_, key in self.others)}),
            "processes killed": self.killed,
            "states with an incomplete picture or sample": len(self.torn),
            "lost": len(self.lost),
        }


def nothing() -> None:
    pass


def resume(folder: Path, line: Sequence[str]) -> Sequence[str]:
    """The command that a user types after a crash: resume, or the same one if the run had not started."""
    return ["resume", "run_dir=r"] if (folder / "r" / "config.yaml").exists() else line


def differences(whole: Path, folder: Path) -> list[str]:
    """What differs between the files of two folders with a run r, but for times."""
    found = [sorted(name for name in _names(root)) for root in (whole, folder)]
    if found[0] != found[1]:
        return [f"files: {sorted(set(found[0]) ^ set(found[1]))}"]
    return [name for name in found[0] if not _same_file(whole / name, folder / name)] + [
        "events" for a, b in [(events(whole / "r"), events(folder / "r"))] if a != b
    ]


def _names(root: Path) -> Iterator[str]:
    for path in root.rglob("*"):
        if path.name not in UNCOMPARED and not (path.name.startswith("events.") and path.suffix != ".partial"):
            yield str(path.relative_to(root))


def _same_file(a: Path, b: Path) -> bool:
    try:
        return _same_content(a, b)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):  # b cannot be read
        return False


def _same_content(a: Path, b: Path) -> bool:
    if a.is_dir():
        return b.is_dir()
    if a.suffix == ".pt":
        states = [checkpoint.load(path) for path in (a, b)]
        return all(same(states[0][key], states[1][key]) for key in states[0].keys() - {"seconds"})
    if a.name == "metrics.jsonl":
        return logged(a.parent) == logged(b.parent)
    if a.name == "result.json":
        results = [json.loads(path.read_text()) | {"wall_time": 0} for path in (a, b)]
        return bool(results[0] == results[1])
    if a.suffix == ".npz":  # a zip archive with times
        with np.load(a) as x, np.load(b) as y:
            return x.files == y.files and all(x[key].tobytes() == y[key].tobytes() for key in x.files)
    return a.read_bytes() == b.read_bytes()


def events(run_dir: Path) -> dict[str, list[tuple[int, bytes]]]:
    """All events by tag, in their order, without times and without the heads of files."""
    files = [
        [Event.FromString(data) for data in RawEventFileLoader(str(path)).Load()]
        for path in sorted(run_dir.glob("events.*"))
    ]
    found: dict[str, list[tuple[int, bytes]]] = {}
    for event in itertools.chain.from_iterable(sorted(files, key=lambda file: file[0].wall_time)):
        for value in event.summary.value:
            if not value.tag.startswith(VARYING):
                found.setdefault(value.tag, []).append((event.step, value.SerializeToString()))
    return found
