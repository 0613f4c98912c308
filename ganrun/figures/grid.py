"""Grids of images, and PNG files."""

import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ganrun.files import MARK
from ganrun.records.checkpoint import write_atomically

WHITE = 255


def grid(images: Tensor, columns: int | None = None, apart: int = 0, padding: int = 2, gap: int = 8) -> np.ndarray:
    """Arrange uint8 images (N, C, H, W) in a square, or in `columns` columns: an image (H', W', 3) of uint8.

    The last `apart` columns are `gap` pixels apart from the others. C is 1 or 3. Similar to torchvision's make_grid,
    whose import takes as long as all other imports of a job together.
    """
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    empty = -len(images) % columns
    cells = pad(images, (padding, 0, padding, 0, 0, 0, 0, empty), value=WHITE)
    rows = cells.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)  # (C, H', W')
    rows = pad(rows, (0, padding, 0, padding), value=WHITE)
    if apart:
        left, right = rows.tensor_split([(columns - apart) * (images.shape[3] + padding)], dim=2)
        rows = torch.cat([pad(left, (0, gap), value=WHITE), right], dim=2)
    return rows.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def save_png(image: np.ndarray, path: Path) -> None:
    """Write an image, (H, W, 3) or (H, W) of uint8, atomically."""
    data = encoded_png(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(data))


def encoded_png(image: np.ndarray) -> bytes:
    """The content of a PNG file. image: (H, W, 3) or (H, W) of uint8."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    buffer, comment = io.BytesIO(), PngInfo()
    comment.add_text("Comment", MARK)
    Image.fromarray(image).save(buffer, "png", pnginfo=comment)
    return buffer.getvalue()
