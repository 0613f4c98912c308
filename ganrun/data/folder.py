"""Any folder of images, decoded once into a memory-mapped cache."""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from ganrun.data.dataset import Dataset, DataSpec, Split

if TYPE_CHECKING:
    import PIL.Image

UNREADABLE = "0 unreadable"  # in place of a digest

log = logging.getLogger("ganrun")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
FORMAT = 2  # of the cache; increment it when the stored data change


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
    """All images under `root`. If all of them are in sub-folders, the first-level sub-folders are the classes.

    A hash of its content assigns each image to the training, validation or test split. So an image keeps its split when
    others are added, and copies are in the same split. Files that cannot be read are skipped with a warning.
    Raises ValueError for a missing folder, a folder without a readable image, and settings out of range.
    """
    if size < 1 or channels not in (1, 3):
        raise ValueError(f"data.size={size} data.channels={channels}: size must be at least 1, and channels 1 or 3.")
    if valid < 0 or test < 0 or valid + test >= 1:
        raise ValueError(f"data.valid={valid} data.test={test}: must be at least 0, and sum to less than 1.")
    base = Path(root)
    if not base.is_dir():
        raise ValueError(f"data.root={root}: no such folder; name a folder of images, as in data.root=photos.")
    names = _image_names(base)
    if not names:
        raise ValueError(f"data.root={root}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    entry = _cached(base, names, Decoding(size, crop, channels), _cache_folder(cache))
    return _dataset(entry, valid, test, base)


def _image_names(base: Path) -> list[str]:
    """Paths of all images relative to `base`, sorted, so that the order is the same on every machine.

    Links to folders are followed, but no folder is entered twice; real folders come before links.
    """
    names: list[str] = []
    entered: set[str] = set()
    for folder, subfolders, files in os.walk(base, followlinks=True):
        if os.path.realpath(folder) in entered:
            subfolders.clear()
            continue
        entered.add(os.path.realpath(folder))
        subfolders.sort(key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
        names += [Path(folder, file).relative_to(base).as_posix() for file in files]
    return sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)


def _cache_folder(cache: str | None) -> Path:
    if cache:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ganrun")


def _cached(base: Path, names: list[str], decoding: Decoding, cache: Path) -> Path:
    """The cache entry for this content and these settings. It is created if it is missing or incomplete."""
    digests = _digests(base, names, cache)
    key = hashlib.sha256(json.dumps([FORMAT, asdict(decoding), digests]).encode()).hexdigest()[:32]
    entry = cache / f"folder-{key}"
    if _read_index(entry) is None:
        shutil.rmtree(entry, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as partial:
            _decode_all(base, digests, decoding, Path(partial, "entry"))
            try:
                Path(partial, "entry").rename(entry)
            except OSError:  # another process was faster
                if _read_index(entry) is None:
                    raise
    return entry


def _digests(base: Path, names: list[str], cache: Path) -> dict[str, str]:
    """The SHA-256 of every file's content, cached until the name, size or time of a file changes."""
    state = hashlib.sha256(json.dumps([str(base.resolve()), [_stat(base / n) for n in names]]).encode()).hexdigest()
    note = cache / f"digests-{state[:32]}.json"
    try:
        return dict(json.loads(note.read_text()))
    except (OSError, ValueError):
        pass
    with ThreadPoolExecutor() as pool:
        found = dict(zip(names, pool.map(lambda name: _digest(base / name), names), strict=True))
    cache.mkdir(parents=True, exist_ok=True)
    if UNREADABLE not in found.values():
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found))
        partial.replace(note)
    return found


def _stat(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:  # a broken link
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns


def _digest(path: Path) -> str:
    if not path.is_file():  # opening a named pipe would block
        return UNREADABLE
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return UNREADABLE


def _decode_all(base: Path, digests: dict[str, str], decoding: Decoding, entry: Path) -> None:
    """Write images.bin (N, C, H, W) uint8 and index.json, sorted by digest, so that every split is a slice."""
    entry.mkdir()
    names = sorted(digests, key=lambda name: (digests[name], name))
    kept: list[str] = []
    skipped: list[str] = []
    sums: list[tuple[int, int]] = []  # of each image's values and their squares, for the mean and std
    with (entry / "images.bin").open("wb") as file:
        for name, image in tqdm(
            _decoded(base, names, decoding), total=len(names), desc="decoding", unit="image", disable=None
        ):
            if image is None or digests[name] == UNREADABLE:
                skipped.append(name)
            else:
                kept.append(name)
                sums.append((int(image.sum(dtype=np.int64)), int(np.square(image, dtype=np.int64).sum())))
                file.write(image.tobytes())
    if not kept:
        raise ValueError(f"data.root={base}: none of its {len(digests)} images can be read.")
    places = [int(digests[name][:8], 16) / 2**32 for name in kept]
    index = {"decoding": asdict(decoding), "names": kept, "places": places, "sums": sums, "skipped": skipped}
    (entry / "index.json").write_text(json.dumps(index))


def _read_index(entry: Path) -> dict[str, Any] | None:
    """The content of index.json, or None if the entry is missing or incomplete."""
    try:
        index = json.loads((entry / "index.json").read_text())
        size = (entry / "images.bin").stat().st_size
        return index if size == math.prod(_shape(index)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _shape(index: dict[str, Any]) -> tuple[int, int, int, int]:
    decoding = Decoding(**index["decoding"])
    return len(index["names"]), decoding.channels, decoding.size, decoding.size


def _decoded(base: Path, names: list[str], decoding: Decoding) -> Iterator[tuple[str, np.ndarray | None]]:
    """Decode in threads, a block at a time, so that memory stays bounded."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(names), 512):
            block = names[start : start + 512]
            yield from zip(block, pool.map(lambda name: _decode(base / name, decoding), block), strict=True)


def _decode(path: Path, decoding: Decoding) -> np.ndarray | None:
    from PIL import Image, ImageOps

    if not path.is_file():
        return None
    try:
        with warnings.catch_warnings(), Image.open(path) as source:
            if source.format == "EPS":  # under any file name; Pillow would run Ghostscript, another program
                return None
            warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it can still read
            image = _flat(_upright(source)).convert("RGB" if decoding.channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # all types that Pillow's readers raise
        return None
    side = (decoding.size, decoding.size)
    if decoding.crop == "center":
        image = ImageOps.fit(image, side, Image.Resampling.LANCZOS)
    else:
        image = image.resize(side, Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(*side, decoding.channels).transpose(2, 0, 1)


def _upright(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Apply the EXIF orientation. Pillow's exif_transpose also rewrites the EXIF data, and fails on odd ones."""
    from PIL import ExifTags, Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = image.getexif().get(ExifTags.Base.Orientation)
    return image.transpose(turns[turn]) if turn in turns else image


def _flat(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Convert to 8 bits without transparency: scale 16-bit gray, take floats as [0, 1], use a white background."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        scale = 255 if image.mode == "F" else 255 / 65535
        return Image.fromarray((np.asarray(image).astype(np.float64) * scale).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _dataset(entry: Path, valid: float, test: float, base: Path) -> Dataset:
    index = _read_index(entry)
    assert index is not None, "_cached() has just checked it"
    for name in index["skipped"]:
        log.warning("%s: cannot be read as an image; skipped.", os.fsencode(base / name).decode(errors="replace"))
    # Mode "c" is copy on write: torch warns of read-only arrays.
    images = np.memmap(entry / "images.bin", np.uint8, "c", shape=_shape(index))
    y, classes = _labels(index["names"])
    data = Split(torch.from_numpy(images), y)
    a, b = np.searchsorted(index["places"], [valid, valid + test]).tolist()  # places are in ascending order
    if b == len(data):
        raise ValueError(f"data: all {b} images are in the validation and test splits; set data.valid=0 data.test=0.")
    mean, square = np.array(index["sums"], dtype=np.float64)[b:].sum(0) / data.x[b:].numel()
    std = math.sqrt(max(0.0, square - mean**2)) / 127.5
    spec = DataSpec(tuple(data.x.shape[1:]), (-1.0, 1.0), mean / 127.5 - 1, std, classes)
    return Dataset(spec, data[b:], data[:a], data[a:b])


def _labels(names: list[str]) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels and class names: the first-level sub-folders, if every image is in one; else None and no names."""
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    if None in folders:
        return None, ()
    found = sorted({str(folder) for folder in folders})
    label = {folder: i for i, folder in enumerate(found)}
    classes = tuple(os.fsencode(folder).decode(errors="replace") for folder in found)  # checkpoints need valid UTF-8
    return torch.tensor([label[str(folder)] for folder in folders]), classes
