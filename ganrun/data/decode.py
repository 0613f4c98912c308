"""How a file becomes an image of the size that a run needs."""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import PIL.Image

BLOCK = 256  # images decoded at a time
LARGEST = 4096  # pixels of a side
CANNOT_BE_READ = "cannot be read as an image"
SUFFIXES = {
    ".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip


class UnknownRange(ValueError):
    """The values of an image do not show which of them is white."""


@dataclass(frozen=True)
class Decoding:
    """How a file becomes an array (channels, height, width). size: the side of a square, or height and width."""

    size: int | tuple[int, int]
    crop: Literal["center", "none"]
    channels: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @classmethod
    def of(cls, size: int | Sequence[int], crop: Literal["center", "none"], channels: int) -> "Decoding":
        """The same for [64, 64] as for 64, so that both have the same cache. Raises ValueError."""
        height, width = (size, size) if isinstance(size, int) else size
        if not 1 <= min(height, width) <= max(height, width) <= LARGEST or channels not in (1, 3):
            raise ValueError(
                f"data.size={size} data.channels={channels}: size must lie between 1 and {LARGEST}, and channels must "
                "be 1 or 3."
            )
        return cls(height if height == width else (height, width), crop, channels)


def decoded(paths: Sequence[Path], decoding: Decoding) -> Iterator[tuple[Path, np.ndarray | str]]:
    """Each path with its `decode`, by several threads, a block at a time, so that memory stays bounded."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            with warnings.catch_warnings(action="ignore"):  # by Pillow, of oddities in files that it can still read
                found = list(pool.map(lambda path: decode(path, decoding), block))
            yield from zip(block, found, strict=True)


def decode(path: Path, decoding: Decoding) -> np.ndarray | str:
    """The image (C, H, W) uint8, or the reason why there is none."""
    from PIL import Image, ImageOps

    if not path.is_file():
        return CANNOT_BE_READ
    height, width = decoding.sides
    try:
        with Image.open(path) as source:
            if source.format == "EPS":  # under any file name; Pillow would run Ghostscript, another program
                return CANNOT_BE_READ
            image = _flat(_upright(source), source.format).convert("RGB" if decoding.channels == 3 else "L")
        if decoding.crop == "center":
            image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        else:
            image = image.resize((width, height), Image.Resampling.LANCZOS)
    except UnknownRange as error:
        return str(error)
    except Exception:  # of many types, by Pillow's readers of damaged files
        return CANNOT_BE_READ
    return np.asarray(image).reshape(height, width, decoding.channels).transpose(2, 0, 1)


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


def _flat(image: "PIL.Image.Image", form: str | None) -> "PIL.Image.Image":
    """Convert to 8 bits without transparency: scale 16-bit gray and floats, use a white background."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        white = _white(values, (1, 255)) if image.mode == "F" else 65535
        if image.mode == "I" and form == "TIFF":  # 32 bits; other formats store 16 bits in this mode
            white = _white(values, (255, 65535))
        return Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _white(values: np.ndarray, choices: Sequence[int]) -> int:
    """The value of white in a format without a fixed range: the first choice that no value exceeds by over 10%."""
    low, high = values.min(), values.max()
    white = next((white for white in choices if high <= 1.1 * white), None)
    if white is None or low < -0.1 * white:
        allowed = " or ".join(f"[0, {white}]" for white in choices)
        raise UnknownRange(f"has values from {low:g} to {high:g}, not in {allowed}")
    return white
