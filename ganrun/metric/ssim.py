"""Diversity within classes: the multi-scale structural similarity of pairs of samples."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.data.pixels import pixels
from ganrun.metric.classes import predicted
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Features, Metric, MetricKey

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, from the finest
WINDOW, SIGMA = 11, 1.5  # of the Gaussian window, in pixels
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]


class MsSsim(Metric):
    """How alike samples of a class are: the mean MS-SSIM of `num` random pairs of samples of the same class.

    Wang, Simoncelli and Bovik 2003; as a measure of diversity, Odena, Olah and Shlens 2017, arXiv:1610.09585. 1: equal.
    - ms_ssim_1k: the mean over pairs, and ms_ssim_1k_true, the same for real images: samples of too little variety have
      a higher one.
    Classes are those that were requested of a conditional run, or else those that features=classifier finds; data
    without labels count as one class. Images smaller than 176 pixels have fewer than five scales, as many as the window
    of 11 pixels fits into, with the weights of these scaled to sum to 1; the authors enlarge images to 128 pixels.
    `check` raises ValueError for data that are not images of at least 11 x 11 pixels.
    """

    labels: Literal["unused", "optional", "required"] = "optional"

    def __init__(self, classifier: Features, num: int = 1000) -> None:
        if num < 2:
            raise ValueError(f"num={num}: must be at least 2.")
        self.classifier, self.pairs = classifier, num
        self.num = 2 * num
        self._true: tuple[Dataset, float] | None = None

    def check(self, dataset: Dataset) -> None:
        if not dataset.spec.is_image or min(dataset.spec.shape[1:]) < WINDOW:
            raise ValueError(f"metric=ms_ssim: needs images of at least {WINDOW} x {WINDOW} pixels; use metric=none.")
        if self._has_classes(dataset.spec):
            self.classifier.check(dataset)

    @staticmethod
    def _has_classes(spec: DataSpec) -> bool:
        return spec.num_classes > 1

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        name = f"ms_ssim_{count(self.pairs)}"
        return {name: MetricKey(true=f"{name}_true")}

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, y: Tensor | None = None
    ) -> dict[str, float]:
        """samples (n, C, H, W), in the data's value range, of the requested classes y (n,) in a conditional run."""
        images = dataset.spec.encode(samples[: self.num])
        if self._true is None or self._true[0] is not dataset:
            split = (dataset.valid if len(dataset.valid) else dataset.train)[: self.num]
            self._true = dataset, self._of(pixels(split.x.cpu(), dataset.spec), split.y, dataset)
        name = f"ms_ssim_{count(self.pairs)}"
        found = self._of(images, None if y is None else y[: self.num], dataset)
        return {name: found, f"{name}_true": self._true[1]}

    def _of(self, images: Tensor, y: Tensor | None, dataset: Dataset) -> float:
        if not self._has_classes(dataset.spec):
            y = torch.zeros(len(images), dtype=torch.long)
        elif y is None:
            self.classifier.prepare(dataset)
            y = predicted(self.classifier, images)
        first, second = random_pairs(y.cpu(), self.pairs)
        parts = zip(first.split(100), second.split(100), strict=True)
        return torch.cat([ms_ssim(images[a].double() / 255, images[b].double() / 255) for a, b in parts]).mean().item()

    def protocol(self) -> dict[str, dict[str, Any]]:
        if self._true is None:
            return {}
        sides = self._true[0].spec.shape[1:]
        return {count(self.pairs): {"pairs": self.pairs, "scales": num_scales(min(sides)), "window": WINDOW}}


def random_pairs(y: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """`num` pairs of different examples of the same class, with a fixed seed: two tensors of indices (num,).

    The first of a pair is any example whose class has another one.
    """
    random = np.random.RandomState(0)
    of_class = {k: np.flatnonzero(y.numpy() == k) for k in y.unique().tolist()}
    able = np.concatenate([index for index in of_class.values() if len(index) > 1] or [np.zeros(0, int)])
    if not len(able):
        return torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    first = random.choice(able, num)
    second = []
    for i in first:
        same = of_class[int(y[i])]
        j = random.randint(len(same) - 1)
        second.append(same[j] if same[j] != i else same[-1])
    return torch.from_numpy(first), torch.tensor(np.array(second))


def num_scales(side: int) -> int:
    """How many times an image can be halved, from `side` pixels on, with the window inside it."""
    return 1 + len([k for k in range(1, len(WEIGHTS)) if side // 2**k >= WINDOW])


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """The multi-scale structural similarity (B,) of images (B, C, H, W) in [0, 1], over all channels.

    prod_j cs_j^w_j l^w: contrast and structure at each scale, luminance at the coarsest. Negative values count as 0.

    >>> a, b = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    >>> round(ms_ssim(a.double(), b.double()).item(), 6)  # one scale: (2 * 0.12 + C1) / (0.04 + 0.36 + C1)
    0.6001
    """
    scales = num_scales(min(x.shape[2:]))
    weights = torch.tensor(WEIGHTS[:scales], dtype=x.dtype)
    weights = weights / weights.sum()
    found = torch.ones(len(x), dtype=x.dtype)
    for scale in range(scales):
        luminance, structure = _ssim_parts(x, y)
        value = (luminance * structure if scale == scales - 1 else structure).mean((1, 2, 3))
        found = found * value.clamp(min=0) ** weights[scale]
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return found


def _ssim_parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of luminance, and of contrast and structure, (B, C, H - 10, W - 10) each."""
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x, var_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    cov = _windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * cov + C2) / (var_x + var_y + C2)


def _windowed(x: Tensor) -> Tensor:
    """Averages over a Gaussian window, without padding."""
    at = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-(at**2) / (2 * SIGMA**2))
    window = (window / window.sum()).expand(x.shape[1], 1, -1)
    down = F.conv2d(x, window[..., None], groups=x.shape[1])
    return F.conv2d(down, window[:, :, None], groups=x.shape[1])
