"""Pictures of image samples."""

import math

import numpy as np
import torch
from torch import Tensor


def grid(images: Tensor, columns: int | None = None, padding: int = 2) -> np.ndarray:
    """uint8 images (N, C, H, W) side by side, in a square or in so many columns: an image (H', W', 3) of uint8."""
    from torchvision.utils import make_grid

    rows = make_grid(images, nrow=columns or math.ceil(math.sqrt(len(images))), padding=padding, pad_value=255)
    return rows.permute(1, 2, 0).to(torch.uint8).numpy()
