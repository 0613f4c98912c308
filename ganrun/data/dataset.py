"""A data set: three splits of tensors, and a `DataSpec` with the properties that networks and metrics need."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

VISIBLE = 2.5  # saved pictures of normalized images cover this many standard deviations on both sides of the mean


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that networks, figures and metrics need.

    shape: shape of a sample, (d,) for vectors or (C, H, W) for images.
    value_range: bounds of the values in D's input, (-1, 1) for images; None if the data are unbounded.
    mean, std: over all values of the training split, in the same units.
    classes: class names in the order of the labels; empty for data without labels. unit: for axes, such as "inches".
    gcn: L2 norm of every image after global contrast normalization, or 0 if the images are not normalized.
    """

    shape: tuple[int, ...]
    value_range: tuple[float, float] | None = None
    mean: float = 0.0
    std: float = 1.0
    classes: tuple[str, ...] = ()
    unit: str = ""
    gcn: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # weights_only=True cannot load NumPy scalars
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
        """Convert stored values to D's input: uint8 is scaled to `value_range` or normalized; floats are unchanged."""
        if x.dtype != torch.uint8:
            return x
        if self.gcn:
            return contrast_normalized(x.float(), self.gcn)
        low, high = self.value_range or (0.0, 255.0)
        return x.float().mul_((high - low) / 255).add_(low)

    def encode(self, x: Tensor) -> Tensor:
        """Convert images in `value_range` to uint8 for image files, with rounding: the inverse of `decode`.

        Normalized images are clipped to VISIBLE standard deviations; their original contrast is not restored.
        """
        bounds = (-VISIBLE * self.std, VISIBLE * self.std) if self.gcn else self.value_range
        low, high = bounds or (0.0, 255.0)
        return ((x.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)

    def scaled_to(self, value_range: Sequence[float]) -> "DataSpec":
        """The spec of the same images with pixels scaled to `value_range`. Other data keep their spec.

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
        """The spec of the same images after `contrast_normalized`: unbounded, with mean 0."""
        if not norm > 0 or not self.is_image:
            raise ValueError(
                f"data.gcn={norm:g}: must be greater than 0, and needs images; "
                "use data.gcn=55, or data.gcn=0 for no normalization."
            )
        return replace(self, value_range=None, mean=0.0, std=norm / math.sqrt(self.numel), gcn=float(norm))


def contrast_normalized(x: Tensor, norm: float) -> Tensor:
    """Global contrast normalization of images (B, C, H, W): subtract each image's mean, scale its L2 norm to `norm`.

    A constant image becomes 0. The authors' code of Goodfellow et al. 2014 uses norm 55 for CIFAR-10.

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
        """This split on `device`, or unchanged if it would take more than half of the free memory of the GPU."""
        if device.type == "cuda" and self.x.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        return Split(self.x.to(device), None if self.y is None else self.y.to(device))


@dataclass(frozen=True)
class Dataset:
    """Fixed, disjoint splits. `distribution` is the true distribution (log_prob and cdf), if it is known."""

    spec: DataSpec
    train: Split
    valid: Split
    test: Split
    distribution: Distribution | None = None

    def to(self, device: torch.device) -> "Dataset":
        return replace(self, train=self.train.to(device))


def image_spec(x: Tensor, classes: Sequence[str]) -> DataSpec:
    """The spec of uint8 images (N, C, H, W) that `decode` scales to [-1, 1]."""
    counts = torch.zeros(256, dtype=torch.float64)
    for part in x.split(4096):
        counts += torch.bincount(part.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    mean = (counts * values).sum() / counts.sum()
    std = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    return DataSpec(tuple(x.shape[1:]), (-1.0, 1.0), mean.item(), std.item(), tuple(classes))


def split_last(data: Split, sizes: Sequence[int]) -> list[Split]:
    """Cut parts of the given sizes off the end of `data`. Returns the remaining examples, then the parts in order."""
    for size, name in zip(sizes, ("num_valid", "num_test"), strict=False):
        if size < 0:
            raise ValueError(f"data.{name}={size}: must be at least 0.")
    if sum(sizes) >= len(data):
        raise ValueError(f"data.num_valid={sizes[0]}: leaves nothing to train on; there are {len(data)} examples.")
    parts, end = [], len(data)
    for size in reversed(sizes):
        parts.append(data[end - size : end])
        end -= size
    return [data[:end], *reversed(parts)]
