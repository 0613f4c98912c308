"""Any folder of images, decoded once into a memory-mapped cache."""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from tqdm import tqdm

from ganrun.checks import fits
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.decode import CANNOT_BE_READ, SUFFIXES, Decoding, decoded
from ganrun.files import MARK, cache_folder, lock

UNREADABLE = "0 unreadable"  # in place of a digest
CHECKED = 500  # images of a cache that are compared with what is known of them, at each start
OWN = "ganrun "  # before the digest of a picture that ganrun has drawn

log = logging.getLogger("ganrun")

THUMBNAILS = {"__macosx", "@eadir", "thumbnails", "thumbs"}  # folders of other programs, in lower case
SCRATCH = "partial-"  # the beginning of the names of temporary folders
OLD = 3600  # seconds after which a temporary folder that no process has locked was left by one that was killed
FORMAT = 3  # of the cache; increment it when the stored data change


def folder(
    root: str,
    size: int | tuple[int, int] = 64,
    crop: Literal["center", "none"] = "center",
    channels: int = 3,
    valid: float = 0.1,
    test: float = 0.1,
    cache: str | None = None,
) -> Dataset:
    """All images under `root`. If all of them are in sub-folders, the first-level sub-folders are the classes.

    size: the side of the square images, or their height and width.
    Run directories, hidden folders and files, and folders of thumbnails (`THUMBNAILS`) are not searched.
    A hash of its content assigns each image to the training, validation or test split. So an image keeps its split when
    others are added, and copies are in the same split. Files that cannot be read are skipped with a warning.
    Raises ValueError for a missing folder, a folder without a readable image, and settings out of range.
    """
    decoding = Decoding.of(size, crop, channels)
    if valid < 0 or test < 0 or valid + test >= 1:
        raise ValueError(f"data.valid={valid} data.test={test}: must be at least 0, and sum to less than 1.")
    base = Path(root)
    if not base.is_dir():
        raise ValueError(f"data.root={root}: no such folder; name a folder of images, as in data.root=photos.")
    if _is_run(base):
        raise ValueError(f"data.root={root}: is a run directory; name a folder of images, as in data.root=photos.")
    names = _image_names(base)
    if not names:
        raise ValueError(f"data.root={root}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    where = _cache_folder(cache)
    try:
        entry, index = _cached(base, names, decoding, where)
    except OSError as error:
        raise ValueError(
            f"data.cache={where}: cannot write {error.filename} ({error.strerror}); free some space, or name another "
            "folder, as in data.cache=DIR."
        ) from error
    return _dataset(entry, index, valid, test, base)


def _image_names(base: Path) -> list[str]:
    """Paths of all images relative to `base`, sorted, so that the order is the same on every machine.

    Links to folders are followed, but no folder is entered twice; real folders come before links. Logs which other
    files there are, and which folders are not searched.
    """
    names: list[str] = []
    entered: set[str] = set()
    skipped: list[str] = []

    def warn(error: OSError) -> None:
        log.warning("%s: cannot be searched (%s).", _listed([str(error.filename)]), error.strerror)

    for folder, subfolders, files in os.walk(base, followlinks=True, onerror=warn):
        if os.path.realpath(folder) in entered:
            subfolders.clear()
            continue
        entered.add(os.path.realpath(folder))
        closed = {name for name in subfolders if name.lower() in THUMBNAILS or _is_run(Path(folder, name))}
        skipped += [Path(folder, name).relative_to(base).as_posix() for name in closed]
        subfolders[:] = [name for name in subfolders if name not in closed and not name.startswith(".")]
        subfolders.sort(key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
        within = "" if Path(folder) == base else f"{Path(folder).relative_to(base).as_posix()}/"
        names += [f"{within}{file}" for file in files if not file.startswith(".")]
    if skipped:
        log.info("data.root=%s: not searched, as runs or thumbnails: %s", base, _listed(sorted(skipped)))
    others = Counter(_suffix(name) for name in names)
    if found := [f"{suffix or 'no suffix'} ({others[suffix]})" for suffix in sorted(others.keys() - SUFFIXES)]:
        log.info("data.root=%s: files that are not read as images: %s", base, _listed(found))
    return sorted(name for name in names if _suffix(name) in SUFFIXES)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # much faster than a Path


def _is_run(path: Path) -> bool:
    """Whether `path` is a run directory. The pictures of a run must not become its training data."""
    files = (".lock", "command.json", "metrics.jsonl", "result.json")
    try:
        return (path / "config.yaml").is_file() and any((path / name).exists() for name in files)
    except PermissionError:  # its content cannot be seen, nor be read as images
        return False


def _listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, as printable text, and how many more there are."""
    shown = ", ".join(os.fsencode(name).decode(errors="replace") for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _cache_folder(cache: str | None) -> Path:
    return Path(cache) if cache else cache_folder()


def _cached(base: Path, names: list[str], decoding: Decoding, cache: Path) -> tuple[Path, dict[str, Any]]:
    """The cache entry for this content and these settings, and its index. It is created if missing or incomplete.

    It gets its name when it is on the disk. Raises OSError, with the file's name, if it cannot be written.
    """
    digests = _without_own(base, _digests(base, names, cache))
    key = hashlib.sha256(json.dumps([FORMAT, asdict(decoding), digests]).encode()).hexdigest()[:32]
    entry = cache / f"folder-{key}"
    index = _read_index(entry)
    if index is None:
        shutil.rmtree(entry, ignore_errors=True)
        _check_space(base, len(digests), decoding, cache)
        with _scratch(cache) as scratch:
            _decode_all(base, digests, decoding, scratch / "entry")
            try:
                (scratch / "entry").rename(entry)
            except OSError:  # another process was faster
                if _read_index(entry) is None:
                    raise
        index = _read_index(entry)
        assert index is not None, "it has just been written"
    return entry, index


def _check_space(base: Path, num: int, decoding: Decoding, cache: Path) -> None:
    """Raise ValueError if the decoded images are larger than what is free on the disk of the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    needed, free = num * decoding.channels * math.prod(decoding.sides), shutil.disk_usage(cache).free
    if needed > free:
        raise ValueError(
            f"data.root={base}: {num:,} images of {decoding.sides[0]}x{decoding.sides[1]} pixels take "
            f"{needed / 1e9:,.1f} GB in the cache, and the disk of {cache} has {free / 1e9:,.1f} GB free; choose "
            "smaller ones, as in data.size=64, or another folder, as in data.cache=DIR."
        )


def _digests(base: Path, names: list[str], cache: Path) -> dict[str, str]:
    """The SHA-256 of every file's content, cached until the name, size or time of a file changes."""
    state = hashlib.sha256(
        json.dumps([str(base.resolve()), [_stat(os.path.join(base, name)) for name in names]]).encode()
    ).hexdigest()
    note = cache / f"digests-{state[:32]}.json"
    try:
        known = json.loads(note.read_text())
        if isinstance(known, dict) and [*known] == names and fits([*known.values()], list[str]):
            return known
    except (OSError, ValueError, RecursionError):
        pass
    with ThreadPoolExecutor() as pool:
        found = dict(zip(names, pool.map(lambda name: _digest(base / name), names), strict=True))
    cache.mkdir(parents=True, exist_ok=True)
    if UNREADABLE not in found.values():
        with _scratch(cache) as scratch:
            with _writing(scratch / note.name) as file:
                file.write(json.dumps(found).encode())
            (scratch / note.name).replace(note)
    return found


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A new folder in the cache, removed afterwards. Old ones that no process has locked are removed first."""
    for left in cache.glob(f"{SCRATCH}*"):
        with suppress(OSError):  # locked, or removed by another process
            if time.time() - left.stat().st_mtime > OLD:
                with (left / ".lock").open("a") as file:
                    lock(file)
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=cache, prefix=SCRATCH) as folder, Path(folder, ".lock").open("a") as file:
        lock(file)
        yield Path(folder)


def _without_own(base: Path, digests: dict[str, str]) -> dict[str, str]:
    """The digests without those of pictures that ganrun has drawn, unless there are no other images."""
    own = [name for name, digest in digests.items() if digest.startswith(OWN)]
    if 0 < len(own) < len(digests):
        log.info("data.root=%s: not read, as pictures drawn by ganrun: %s", base, _listed(own))
        return {name: digest for name, digest in digests.items() if not digest.startswith(OWN)}
    return {name: digest.removeprefix(OWN) for name, digest in digests.items()}


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """A new file, whose content is on the disk at the end. Errors of a full disk get the file's name, too."""
    try:
        with path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from error


def _stat(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)
    except OSError:  # a broken link
        return path, 0, 0
    return path, found.st_size, found.st_mtime_ns


def _digest(path: Path) -> str:
    if not path.is_file():  # opening a named pipe would block
        return UNREADABLE
    try:
        with path.open("rb") as file:
            own = OWN if MARK.encode() in file.read(1024) else ""
            file.seek(0)
            return own + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return UNREADABLE


def _decode_all(base: Path, digests: dict[str, str], decoding: Decoding, entry: Path) -> None:
    """Write images.bin (N, C, H, W) uint8 and index.json, sorted by digest, so that every split is a slice."""
    entry.mkdir()
    names = sorted(digests, key=lambda name: (digests[name], name))
    kept: list[str] = []
    skipped: dict[str, str] = {}  # with the reason
    sums: list[tuple[int, int]] = []  # of each image's values and their squares, for the mean and std
    with _writing(entry / "images.bin") as file:
        images = decoded([base / name for name in names], decoding)
        for name, (_, image) in zip(
            names, tqdm(images, total=len(names), desc="decoding", unit="image", disable=None), strict=True
        ):
            if isinstance(image, str) or digests[name] == UNREADABLE:
                skipped[name] = image if isinstance(image, str) else CANNOT_BE_READ
            else:
                kept.append(name)
                sums.append(_sums(image))
                file.write(image.tobytes())
    if not kept:
        name, reason = next(iter(skipped.items()))
        raise ValueError(
            f"data.root={base}: none of its {len(digests)} images can be read, as {_listed([name])}: {reason}."
        )
    places = [int(digests[name][:8], 16) / 2**32 for name in kept]
    index = {"decoding": asdict(decoding), "names": kept, "places": places, "sums": sums, "skipped": skipped}
    with _writing(entry / "index.json") as file:
        file.write(json.dumps(index).encode())


def _read_index(entry: Path) -> dict[str, Any] | None:
    """The content of index.json, or None if the entry is missing or incomplete."""
    try:
        index: dict[str, Any] = json.loads((entry / "index.json").read_text())
        size = (entry / "images.bin").stat().st_size
        num = len(index["names"])
        sound = (
            fits(index["names"], list[str])
            and fits(index["places"], list[float])
            and all(fits(sums, tuple[int, int]) for sums in index["sums"])
            and fits([*index["skipped"].values()], list[str])
        )
        complete = sound and num == len(index["places"]) == len(index["sums"])
        if complete and size == math.prod(_shape(index)) and _is_intact(entry, index):
            return index
        log.warning("%s: is damaged; its images are decoded again.", entry)
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_intact(entry: Path, index: dict[str, Any]) -> bool:
    """Whether images have the sums that they had when they were decoded: all of them, or CHECKED evenly spaced ones."""
    num = len(index["names"])
    images = np.memmap(entry / "images.bin", np.uint8, "r", shape=_shape(index))
    places = np.unique(np.linspace(0, num - 1, min(num, CHECKED)).astype(int)).tolist()
    return all(_sums(images[i]) == tuple(index["sums"][i]) for i in places)


def _sums(image: np.ndarray) -> tuple[int, int]:
    """The sums of the values of an image and of their squares."""
    return int(image.sum(dtype=np.int64)), int(np.square(image, dtype=np.int64).sum())


def _shape(index: dict[str, Any]) -> tuple[int, int, int, int]:
    decoding = Decoding.of(**index["decoding"])
    return len(index["names"]), decoding.channels, *decoding.sides


def _dataset(entry: Path, index: dict[str, Any], valid: float, test: float, base: Path) -> Dataset:
    for name, reason in index["skipped"].items():
        log.warning("%s: %s; skipped.", _listed([str(base / name)]), reason)
    # Mode "c" is copy on write: torch warns of read-only arrays.
    images = np.memmap(entry / "images.bin", np.uint8, "c", shape=_shape(index))
    y, classes = _labels(index["names"], base)
    data = Split(torch.from_numpy(images), y, images._mmap)  # type: ignore[attr-defined]
    a, b = np.searchsorted(index["places"], [valid, valid + test]).tolist()  # places are in ascending order
    if b == len(data):
        raise ValueError(f"data: all {b} images are in the validation and test splits; set data.valid=0 data.test=0.")
    mean, square = np.array(index["sums"], dtype=np.float64)[b:].sum(0) / data.x[b:].numel()
    std = math.sqrt(max(0.0, square - mean**2)) / 127.5
    spec = DataSpec(tuple(data.x.shape[1:]), (-1.0, 1.0), mean / 127.5 - 1, std, classes)
    return Dataset(spec, data[b:], data[:a], data[a:b])


def _labels(names: list[str], base: Path) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels and class names: the first-level sub-folders, if every image is in one; else None and no names.

    Warns of images outside of the sub-folders, if there are any.
    """
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    if stray := sorted(name for name in names if "/" not in name):
        if len(stray) < len(names):
            log.warning(
                "data.root=%s: its sub-folders are not used as classes, because not all images are in one: %s; move "
                "or remove these.", base, _listed(stray),
            )  # fmt: skip
        return None, ()
    found = sorted({str(folder) for folder in folders})
    label = {folder: i for i, folder in enumerate(found)}
    classes = tuple(os.fsencode(folder).decode(errors="replace") for folder in found)  # checkpoints need valid UTF-8
    return torch.tensor([label[str(folder)] for folder in folders]), classes
