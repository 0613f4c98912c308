"""Pictures of image samples."""

import math

import numpy as np
import torch
from torch import Tensor

WHITE = 255


def grid(images: Tensor, columns: int | None = None, apart: int = 0, padding: int = 2, gap: int = 8) -> np.ndarray:
    """uint8 images (N, C, H, W) side by side, in a square or in so many columns: an image (H', W', 3) of uint8.

    The last `apart` columns stand `gap` pixels apart from the others.
    """
    from torchvision.utils import make_grid

    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = make_grid(images, nrow=columns, padding=padding, pad_value=WHITE)  # (3, H', W')
    if apart:
        left, right = rows.tensor_split([(columns - apart) * (images.shape[3] + padding)], dim=2)
        rows = torch.cat([left, rows.new_full((*rows.shape[:2], gap), WHITE), right], dim=2)
    return rows.permute(1, 2, 0).to(torch.uint8).numpy()
