"""A data set: three splits of tensors, and a `DataSpec` with the properties that networks and metrics need."""

import math
import mmap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ganrun.data.table_form import TableForm

VISIBLE = 2.5  # saved pictures of normalized images cover this many standard deviations on both sides of the mean
SUMMARIZED, SUMMARIZED_VALUES = 1000, 1_000_000  # examples of a split, and values of these, that a summary reads
OUTSIDE = 0.05  # of the range of float images, by which values may lie outside of it
CHUNK = 1 << 16  # examples checked at a time, which bounds the memory


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that networks, figures and metrics need.

    shape: shape of a sample, (d,) for vectors, (C, H, W) for images, or another one, for arch=mlp.
    value_range: bounds of the values in D's input, (-1, 1) for images; None if the data are unbounded.
    mean, std: over all values of the training split, in the same units.
    classes: class names in the order of the labels; empty for data without labels. unit: for axes, such as "inches".
    gcn: L2 norm of every image after global contrast normalization, or 0 if the images are not normalized.
    form: of a table, how its columns became vectors; None for other data.
    Raises ValueError for an empty shape, a std of 0, and a form of vectors of another length.
    """

    shape: tuple[int, ...]
    value_range: tuple[float, float] | None = None
    mean: float = 0.0
    std: float = 1.0
    classes: tuple[str, ...] = ()
    unit: str = ""
    gcn: float = 0.0
    form: TableForm | None = None

    def __post_init__(self) -> None:
        form: Any = self.form
        if form is not None and not isinstance(form, TableForm):  # of a checkpoint
            object.__setattr__(self, "form", TableForm.of(form))
        for name in ("mean", "std"):  # weights_only=True cannot load NumPy scalars
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"data: spec.shape is {self.shape}; it must have sizes of at least 1, as in (C, H, W).")
        if self.std <= 0:  # NaN is reported with the row that causes it, by `check_finite`
            raise ValueError("data: all values of the training examples are the same; there is nothing to learn.")
        if self.form is not None and self.shape != (self.form.width,):
            raise ValueError(f"data: spec.shape is {self.shape}; it must be ({self.form.width},), as in spec.form.")

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    def plain(self) -> dict[str, Any]:
        """The fields as plain values, for checkpoints: `DataSpec(**spec.plain())` is equal. Only a table has a form."""
        return {name: value for name, value in asdict(self).items() if name != "form" or value is not None}

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
    """Examples x (N, *shape), uint8 or float32, in memory or memory-mapped, and labels y (N,) or None.

    Labels of another integer type are converted to int64. mapping: the memory map of a file that `x` is a view of.
    """

    x: Tensor
    y: Tensor | None = None
    mapping: mmap.mmap | None = None

    def __post_init__(self) -> None:
        if isinstance(self.y, Tensor) and not (self.y.is_floating_point() or self.y.is_complex()):
            object.__setattr__(self, "y", self.y.long())

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> "Split":
        return Split(self.x[index], None if self.y is None else self.y[index], self.mapping)

    def summary(self) -> str:
        """The number of examples, and the mean and standard deviation of some of them, which identify the content."""
        num = min(len(self), SUMMARIZED, max(1, SUMMARIZED_VALUES // max(1, math.prod(self.x.shape[1:]))))
        if not num:
            return "0 examples"
        places = torch.linspace(0, len(self) - 1, num, device=self.x.device).round().long()
        x = self.x[places].cpu().double()
        return f"{len(self)} examples with mean {x.mean():.6g} and std {x.std(correction=0):.6g}"

    def release(self) -> None:
        """Unmap the pages of a memory map that were read. They stay in the cache of the system, which can drop them."""
        if self.mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)

    def to(self, device: torch.device) -> "Split":
        """This split on `device`, or unchanged if it would take more than half of the free memory of the GPU."""
        if device.type == "cuda" and self.x.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        mapping = self.mapping if device.type == "cpu" else None
        return Split(self.x.to(device), None if self.y is None else self.y.to(device), mapping)


@dataclass(frozen=True)
class HeldOut:
    """The examples of classes that are held out of training (data.without). Labels y number `classes`."""

    classes: tuple[str, ...]
    valid: Split
    test: Split


@dataclass(frozen=True)
class Dataset:
    """Fixed, disjoint splits. `distribution` is the true distribution (log_prob and cdf), if it is known.

    Only `train` must have examples; if `spec` names classes, it must have labels, too. held_out: the examples of
    classes that are in no split, and not in `spec.classes`. Raises ValueError for a split that does not fit `spec`.
    """

    spec: DataSpec
    train: Split
    valid: Split
    test: Split
    distribution: Distribution | None = None
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.spec, DataSpec):
            raise ValueError(f"data: spec is a {type(self.spec).__name__}; it must be a DataSpec.")
        for name, split in self.splits().items():
            if not isinstance(split, Split):
                raise ValueError(f"data: {name} is a {type(split).__name__}; it must be a Split, as in Split(x, y).")
            _check_examples(f"data: {name}.x", split.x, self.spec)
            if split.y is not None:
                _check_labels(f"data: {name}.y", split.y, len(split), self.spec)
        if not len(self.train):
            raise ValueError("data: the training split is empty.")
        if self.spec.classes and self.train.y is None:
            raise ValueError("data: spec.classes names classes, but train has no labels; use Split(x, y).")

    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def to(self, device: torch.device) -> "Dataset":
        return replace(self, train=self.train.to(device))

    def with_first(self, num: int) -> "Dataset":
        """This data set with only the first `num` training examples, and their mean and std.

        >>> x = torch.tensor([[0.0], [2.0], [9.0]])
        >>> first = Dataset(DataSpec((1,)), Split(x), Split(x[:0]), Split(x[:0])).with_first(2)
        >>> len(first.train), first.spec.mean, first.spec.std
        (2, 1.0, 1.0)
        """
        if num == len(self.train):
            return self
        train = self.train[:num]
        return replace(self, train=train, spec=with_moments_of(train.x, self.spec))


def with_moments_of(x: Tensor, spec: DataSpec) -> DataSpec:
    """`spec` with the mean and std of the examples x (N, *shape)."""
    if x.dtype == torch.uint8:
        (low, high), bytes_ = spec.value_range or (0.0, 255.0), image_spec(x, ())
        mean, std = low + (bytes_.mean + 1) * (high - low) / 2, bytes_.std * (high - low) / 2
    else:
        std, mean = (value.item() for value in torch.std_mean(x.double(), correction=0))
    return replace(spec, mean=mean, std=std)


def _check_examples(name: str, x: object, spec: DataSpec) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is a {type(x).__name__}; it must be a tensor, as from torch.as_tensor.")
    if x.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"{name} has dtype {x.dtype}; it must be torch.uint8 or torch.float32, as from x.float().")
    if x.ndim == 0 or (len(x) and x.shape[1:] != spec.shape):
        allowed = ", ".join(map(str, ("N", *spec.shape)))
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be ({allowed}), as in spec.shape.")


def _check_labels(name: str, y: object, num: int, spec: DataSpec) -> None:
    """Raise ValueError unless y is a tensor (num,) of integers, which number the classes if `spec` names any."""
    if not isinstance(y, Tensor):
        raise ValueError(f"{name} is a {type(y).__name__}; it must be a tensor, as from torch.as_tensor.")
    if y.dtype != torch.int64:
        raise ValueError(f"{name} has dtype {y.dtype}; labels must be integers, as from y.long().")
    if y.shape != (num,):
        raise ValueError(f"{name} has shape {tuple(y.shape)}; it must be ({num},), one label for each example.")
    if spec.classes and len(wrong := ((y < 0) | (y >= spec.num_classes)).nonzero()):
        raise ValueError(
            f"{name} has the label {y[wrong[0]].item()} in row {wrong[0].item()}, but spec.classes names "
            f"{spec.num_classes} classes, with labels from 0 to {spec.num_classes - 1}; "
            "torch.unique(y, return_inverse=True)[1] numbers labels without gaps."
        )


def check_finite(dataset: Dataset) -> None:
    """Raise ValueError for an example that is not finite, naming the first one, and for such a mean or std."""
    if found := _first_wrong(dataset, Tensor.isfinite):
        raise ValueError(
            f"data: {found}; all values must be finite numbers. "
            "x[x.flatten(1).isfinite().all(1)] are the rows without such values."
        )
    for name in ("mean", "std"):
        if not math.isfinite(value := getattr(dataset.spec, name)):
            raise ValueError(f"data: spec.{name} is {value}; it must be finite: the {name} of all training values.")


def check_range(dataset: Dataset) -> None:
    """Raise ValueError for float images with a value outside of the range of D's input, to which they are not scaled.

    A little outside, as after resampling, is allowed.
    """
    if not dataset.spec.is_image or dataset.spec.value_range is None:
        return
    low, high = dataset.spec.value_range
    most = OUTSIDE * (high - low)
    if found := _first_wrong(dataset, lambda x: (x >= low - most) & (x <= high + most)):
        raise ValueError(
            f"data: {found}, outside of data.value_range=[{low:g},{high:g}]. Only uint8 images are scaled to this "
            "range; float32 images must have values in it."
        )


def _first_wrong(dataset: Dataset, is_right: Callable[[Tensor], Tensor]) -> str | None:
    """The first value of float examples that is not right, with its row, in words."""
    for name, split in dataset.splits().items():
        for start in range(0, len(split) if split.x.is_floating_point() else 0, CHUNK):
            part = split.x[start : start + CHUNK]
            right = is_right(part)
            if not right.all():
                row = int(right.flatten(1).all(1).logical_not().nonzero()[0])
                value = part[row][right[row].logical_not()][0].item()
                return f"{name}.x has the value {value:g} in row {start + row}"
    return None


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
