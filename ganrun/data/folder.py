"""Any folder of images, decoded once into a memory-mapped cache."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from ganrun.data.dataset import Dataset, Split, image_spec

log = logging.getLogger("ganrun")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
FORMAT = 1  # of the cache: raise it when what is stored changes


@dataclass(frozen=True)
class Decoding:
    """How a file becomes an array (channels, size, size)."""

    size: int
    crop: Literal["center", "none"]
    channels: int


def folder(
    root: str,
    size: int = 64,
    crop: Literal["center", "none"] = "center",
    channels: int = 3,
    valid: float = 0.1,
    test: float = 0.1,
    cache: str | None = None,
) -> Dataset:
    """All images under `root`; where they lie in sub-folders, the first level of these are the classes.

    Each image goes to the training, validation or test split by a hash of its content, so a split does not
    change when others are added, and no file and its copy are divided. Files that cannot be read are named
    and skipped. Raises ValueError for a missing folder, for one without a readable image, and for settings
    out of range.
    """
    if size < 1 or channels not in (1, 3):
        raise ValueError(f"data.size={size} data.channels={channels}: size is at least 1, channels are 1 or 3.")
    if valid < 0 or test < 0 or valid + test >= 1:
        raise ValueError(f"data.valid={valid} data.test={test}: shares of at least 0 that sum to less than 1.")
    base = Path(root)
    if not base.is_dir():
        raise ValueError(f"data.root={root}: no such folder; name a folder of images, as in data.root=photos.")
    names = _image_names(base)
    if not names:
        raise ValueError(f"data.root={root}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    entry = _cached(base, names, Decoding(size, crop, channels), _cache_folder(cache))
    return _dataset(entry, valid, test)


def _image_names(base: Path) -> list[str]:
    """Paths of all images relative to `base`, sorted, so that the order is the same on every machine."""
    paths = (Path(d, f) for d, _, files in os.walk(base) for f in files)
    return sorted(p.relative_to(base).as_posix() for p in paths if p.suffix.lower() in SUFFIXES)


def _cache_folder(cache: str | None) -> Path:
    if cache:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ganrun")


def _cached(base: Path, names: list[str], decoding: Decoding, cache: Path) -> Path:
    """The cache entry of this content under these settings, made if it is not there."""
    digests = _digests(base, names, cache)
    key = hashlib.sha256(json.dumps([FORMAT, asdict(decoding), digests]).encode()).hexdigest()[:32]
    entry = cache / f"folder-{key}"
    if not (entry / "index.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as partial:
            _decode_all(base, digests, decoding, Path(partial, "entry"))
            try:
                Path(partial, "entry").rename(entry)
            except OSError:  # another process was faster
                if not (entry / "index.json").exists():
                    raise
    return entry


def _digests(base: Path, names: list[str], cache: Path) -> dict[str, str]:
    """The SHA-256 of every file's content; taken from a note in the cache while names, sizes and times stay."""
    stats = [(name, s.st_size, s.st_mtime_ns) for name in names for s in [(base / name).stat()]]
    state = hashlib.sha256(json.dumps([str(base.resolve()), stats]).encode()).hexdigest()[:32]
    note = cache / f"digests-{state}.json"
    try:
        return dict(json.loads(note.read_text()))
    except (OSError, ValueError):
        pass
    with ThreadPoolExecutor() as pool:
        found = dict(zip(names, pool.map(lambda name: _digest(base / name), names), strict=True))
    cache.mkdir(parents=True, exist_ok=True)
    partial = note.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(found))
    partial.replace(note)
    return found


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _decode_all(base: Path, digests: dict[str, str], decoding: Decoding, entry: Path) -> None:
    """Write images.bin (N, C, H, W) uint8 and index.json, in the order of the digests: so every split is a slice."""
    entry.mkdir()
    names = sorted(digests, key=lambda name: (digests[name], name))
    kept: list[str] = []
    with (entry / "images.bin").open("wb") as file:
        for name, image in tqdm(
            _decoded(base, names, decoding), total=len(names), desc="decoding", unit="image", disable=None
        ):
            if image is None:
                log.warning("%s: cannot be read as an image; skipped.", base / name)
            else:
                kept.append(name)
                file.write(image.tobytes())
    if not kept:
        raise ValueError(f"data.root={base}: none of its {len(digests)} images can be read.")
    index = {"decoding": asdict(decoding), "names": kept, "digests": [digests[n] for n in kept]}
    (entry / "index.json").write_text(json.dumps(index))


def _decoded(base: Path, names: list[str], decoding: Decoding) -> Iterator[tuple[str, np.ndarray | None]]:
    """Decode in threads, a block at a time, so that memory stays bounded."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(names), 512):
            block = names[start : start + 512]
            yield from zip(block, pool.map(lambda name: _decode(base / name, decoding), block), strict=True)


def _decode(path: Path, decoding: Decoding) -> np.ndarray | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as source:
            image = ImageOps.exif_transpose(source).convert("RGB" if decoding.channels == 3 else "L")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ):  # all that Pillow's readers raise
        return None
    side = (decoding.size, decoding.size)
    if decoding.crop == "center":
        image = ImageOps.fit(image, side, Image.Resampling.LANCZOS)
    else:
        image = image.resize(side, Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(*side, decoding.channels).transpose(2, 0, 1)


def _dataset(entry: Path, valid: float, test: float) -> Dataset:
    index = json.loads((entry / "index.json").read_text())
    decoding, names = Decoding(**index["decoding"]), index["names"]
    shape = (len(names), decoding.channels, decoding.size, decoding.size)
    try:
        images = np.memmap(entry / "images.bin", np.uint8, "c", shape=shape)  # copy on write: torch wants it writable
    except (OSError, ValueError) as error:
        raise ValueError(f"data.cache: {entry} is damaged ({error}); remove that folder.") from error
    y, num_classes = _labels(names)
    data = Split(torch.from_numpy(images), y)
    places = np.array([int(digest[:8], 16) / 2**32 for digest in index["digests"]])  # ascending, in [0, 1)
    a, b = np.searchsorted(places, [valid, valid + test]).tolist()
    if b == len(names):
        raise ValueError(f"data: all {b} images fell to validation and test; set data.valid=0 data.test=0.")
    return Dataset(image_spec(data.x[b:], num_classes), data[b:], data[:a], data[a:b])


def _labels(names: list[str]) -> tuple[torch.Tensor | None, int]:
    """The index of each image's first-level sub-folder among them, where every image lies in one."""
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    if None in folders:
        return None, 0
    classes = sorted(set(folders), key=str)
    return torch.tensor([classes.index(folder) for folder in folders]), len(classes)
