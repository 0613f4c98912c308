"""Arrays of the user's, as images in the form of a run."""

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ganrun.data.dataset import OUTSIDE, DataSpec

log = logging.getLogger("ganrun")

ARRAYS = (".npy", ".npz")
ARRAY_NAMES = ("samples", "x", "images", "data")  # in an .npz file with several arrays, the first of these


@dataclass(frozen=True)
class ImageForm:
    """How images in arrays get the channels, size and range of a run.

    spec: of the run's data. crop: as in data=folder. value_range: of floating-point images; None: that of the run.
    """

    spec: DataSpec
    crop: Literal["center", "none"] = "center"
    value_range: tuple[float, float] | None = None

    def of(self, found: np.ndarray) -> Tensor:
        """Images (N, H, W, C), as of `ganrun sample`, (N, C, H, W), (N, H, W), or one without N, in the run's form.

        An array (3, H, W) is one image with colors, unless the run's images have one channel and the same sides.
        """
        channels = self.spec.shape[0]
        x = found if found.ndim != 2 else found[None]
        if x.ndim == 3:  # one with channels, or several without
            several = channels == 1 and x.shape[1:] == self.spec.shape[1:]
            x = x[None] if not several and (x.shape[-1] in (1, 3) or x.shape[0] in (1, 3)) else x[..., None]
        if x.ndim != 4 or (x.shape[-1] not in (1, 3, channels) and x.shape[1] not in (1, 3, channels)):
            raise ValueError(f"has shape {found.shape}; images have shape (N, H, W, C), (N, C, H, W) or (N, H, W).")
        if x.shape[-1] in (1, 3, channels) and x.shape[1:] != self.spec.shape:
            x = x.transpose(0, 3, 1, 2)
        if x.dtype.kind in "ui" and (x.min() < 0 or x.max() > 255):
            raise ValueError(f"has whole numbers from {x.min()} to {x.max()}; those of images lie in 0 to 255.")
        images = torch.from_numpy(np.ascontiguousarray(x))
        return self._fitted(images.float() / 255 if x.dtype.kind in "ui" else self._unit(images.float()))

    def _unit(self, x: Tensor) -> Tensor:
        """Floating-point images, scaled to [0, 1]. Raises ValueError for values outside of their range."""
        low, high = self.value_range or self.spec.value_range or (0.0, 1.0)
        most, known = OUTSIDE * (high - low), x[x.isfinite()]
        if len(known) and not (low - most <= known.min() and known.max() <= high + most):
            raise ValueError(
                f"has values from {known.min():g} to {known.max():g}, outside of [{low:g}, {high:g}]; "
                "give the range of floating-point images, as in value_range=[0,1]."
            )
        if low < 0 and len(known) and known.min() >= 0:
            log.warning("input: no pixel is negative, and black is %g; if it is 0 here, add value_range=[0,1].", low)
        return (x - low) / (high - low)

    def _fitted(self, x: Tensor) -> Tensor:
        """Images (N, C', H', W') in [0, 1], with the channels, size and range of the run."""
        channels, height, width = self.spec.shape
        if x.shape[1] != channels:
            weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]  # as Pillow's conversion to gray
            x = (x * weights).sum(1, keepdim=True) if x.shape[1] == 3 else x
            x = x.expand(-1, channels, -1, -1)
        if x.shape[2:] != (height, width):
            x = interpolate(self._cropped(x), (height, width), mode="bilinear", antialias=True)
        if self.spec.gcn:
            return self.spec.decode((x * 255).round().clamp(0, 255).to(torch.uint8))
        low, high = self.spec.value_range or (0.0, 255.0)
        return x * (high - low) + low

    def _cropped(self, x: Tensor) -> Tensor:
        """The largest centered part with the shape of the run's images, unless crop=none."""
        _, height, width = self.spec.shape
        scale = min(x.shape[2] / height, x.shape[3] / width)
        sides = [max(1, round(side * scale)) for side in (height, width)] if self.crop == "center" else x.shape[2:]
        top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], sides, strict=True))
        return x[:, :, top : top + sides[0], left : left + sides[1]]


def check_regular(path: Path) -> None:
    """Raise ValueError for what is no regular file, such as a FIFO, whose reader would wait."""
    if not path.is_file():
        raise ValueError("is no regular file.")


def array_in(path: Path) -> np.ndarray:
    """The array of an .npy file, or the first or best known one of an .npz file. Raises ValueError."""
    check_regular(path)
    try:
        with np.load(path, allow_pickle=False) if path.suffix.lower() == ".npz" else open(path, "rb") as opened:
            if not isinstance(opened, np.lib.npyio.NpzFile):
                found: np.ndarray = np.load(opened, allow_pickle=False)
                return found
            name = next((name for name in (*ARRAY_NAMES, *opened.files) if name in opened.files), None)
            if name is None:
                raise ValueError("it holds no array")
            return opened[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"cannot be read as {path.suffix} ({str(error).splitlines()[0] if str(error) else error!r})."
        ) from error
