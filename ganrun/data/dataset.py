"""A data set: three splits of tensors, and the facts that networks, metrics and figures are built from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

VISIBLE = 2.5  # standard deviations of normalized images that a picture covers on either side


@dataclass(frozen=True)
class DataSpec:
    """The facts of a data set that networks, figures and metrics are built from.

    shape: of one sample, (d,) for vectors or (C, H, W) for images.
    value_range: the bounds of every value that D sees, (-1, 1) for images; None where there are none.
    mean, std: of all values of the training split, in the same units.
    classes: their names, in the order of the labels; empty where there are no labels. unit: for axes, as in "inches".
    gcn: 0, or the L2 norm that global contrast normalization gives to every image, which then has mean 0.
    """

    shape: tuple[int, ...]
    value_range: tuple[float, float] | None = None
    mean: float = 0.0
    std: float = 1.0
    classes: tuple[str, ...] = ()
    unit: str = ""
    gcn: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # numpy's numbers would make a checkpoint that weights_only cannot read
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if not self.std > 0:
            raise ValueError("data: all values of the training examples are the same; there is nothing to learn.")

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    def decode(self, x: Tensor) -> Tensor:
        """Stored values to what D sees: uint8 to floats in `value_range` or normalized; floats stay as they are."""
        if x.dtype != torch.uint8:
            return x
        if self.gcn:
            return contrast_normalized(x.float(), self.gcn)
        low, high = self.value_range or (0.0, 255.0)
        return x.float().mul_((high - low) / 255).add_(low)

    def encode(self, x: Tensor) -> Tensor:
        """Images in `value_range` to uint8, rounded: the inverse of `decode`, for files.

        Of normalized images, what lies within VISIBLE standard deviations is kept; their first contrast is lost.
        """
        bounds = (-VISIBLE * self.std, VISIBLE * self.std) if self.gcn else self.value_range
        low, high = bounds or (0.0, 255.0)
        return ((x.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)

    def scaled_to(self, value_range: Sequence[float]) -> "DataSpec":
        """The facts of the same images where pixels are scaled to `value_range`; of other data, these facts.

        >>> DataSpec((1, 8, 8), (-1.0, 1.0), mean=0.0, std=0.5).scaled_to((0, 1)).std
        0.25
        """
        low, high = map(float, value_range)
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                f"data.value_range=[{low:g},{high:g}]: must be two numbers in ascending order, as in [0,1]."
            )
        if not self.is_image or self.value_range is None:
            return self
        scale = (high - low) / (self.value_range[1] - self.value_range[0])
        mean = low + scale * (self.mean - self.value_range[0])
        return replace(self, value_range=(low, high), mean=mean, std=scale * self.std)

    def normalized(self, norm: float) -> "DataSpec":
        """The facts of the same images after `contrast_normalized`: without bounds, of mean 0."""
        if not norm > 0 or not self.is_image:
            raise ValueError(
                f"data.gcn={norm:g}: is the norm of images, as in 55; 0 is off, and the choice for others."
            )
        return replace(self, value_range=None, mean=0.0, std=norm / math.sqrt(self.numel), gcn=float(norm))


def contrast_normalized(x: Tensor, norm: float) -> Tensor:
    """Global contrast normalization of images (B, C, H, W): each less its mean, divided by its L2 norm, times `norm`.

    An image of one value becomes 0. In the authors' code of Goodfellow et al. 2014 for CIFAR-10, norm is 55.

    >>> contrast_normalized(torch.tensor([[[[0.0, 2.0]]]]), 55).tolist()  # -1 and 1, of norm sqrt(2)
    [[[[-38.890872955322266, 38.890872955322266]]]]
    """
    centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
    length = centred.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    return centred * (norm / length.clamp_min(1e-8))


@dataclass(frozen=True)
class Split:
    """Examples x (N, *shape), uint8 or float32, in memory or memory-mapped, and labels y (N,) or None."""

    x: Tensor
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> "Split":
        return Split(self.x[index], None if self.y is None else self.y[index])

    def to(self, device: torch.device) -> "Split":
        """This split on `device`, or as it is where it would take more than half of the device's free memory."""
        if device.type == "cuda" and self.x.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        return Split(self.x.to(device), None if self.y is None else self.y.to(device))


@dataclass(frozen=True)
class Dataset:
    """Fixed, disjoint splits; `distribution` is the exact one where it is known (log_prob and cdf)."""

    spec: DataSpec
    train: Split
    valid: Split
    test: Split
    distribution: Distribution | None = None

    def to(self, device: torch.device) -> "Dataset":
        return replace(self, train=self.train.to(device))


def image_spec(x: Tensor, classes: Sequence[str]) -> DataSpec:
    """The facts of uint8 images (N, C, H, W), which D is to see in [-1, 1]."""
    counts = torch.zeros(256, dtype=torch.float64)
    for part in x.split(4096):
        counts += torch.bincount(part.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    mean = (counts * values).sum() / counts.sum()
    std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    return DataSpec(tuple(x.shape[1:]), (-1.0, 1.0), mean.item(), std.item(), tuple(classes))


def split_last(data: Split, sizes: Sequence[int]) -> list[Split]:
    """Cut `data` in order into what comes first and then parts of the given sizes at its end."""
    for size, name in zip(sizes, ("num_valid", "num_test"), strict=False):
        if size < 0:
            raise ValueError(f"data.{name}={size}: must be at least 0.")
    if sum(sizes) >= len(data):
        raise ValueError(f"data.num_valid={sizes[0]}: leaves nothing of {len(data)} examples to train on.")
    parts, end = [], len(data)
    for size in reversed(sizes):
        parts.append(data[end - size : end])
        end -= size
    return [data[:end], *reversed(parts)]
