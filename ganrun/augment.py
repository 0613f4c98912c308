"""Augmentation of D's inputs, real and fake, in the updates of both players, for training on few images.

An augmentation maps images x (B, C, H, W), with C 1 or 3 and values in [-1, 1], to images of the same shape and memory
format. It is differentiable and does not clip. Each sample is transformed independently, with random numbers from
torch's global state on x's device.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrun.data.dataset import DataSpec
from ganrun.protocols import Augmentation

Draw = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> one matrix for each, (B, n, n)


class _ImageAugmentation(nn.Module, Augmentation):
    """The base class of both augmentations. `transform` runs in float32 or float64."""

    name: str

    def transform(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        # In bfloat16 neighboring pixels would have the same coordinate.
        with torch.autocast(x.device.type, enabled=False):
            out = self.transform(x if x.dtype == torch.float64 else x.float()).to(x.dtype)
        return out.contiguous(memory_format=torch.channels_last) if channels_last else out

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError for data that are not images of 1 or 3 channels in [-1, 1]."""
        if not spec.is_image or spec.shape[0] not in (1, 3):
            raise ValueError(
                f"augment={self.name}: transforms images of 1 or 3 channels, not samples of shape {spec.shape}; "
                "use augment=none."
            )
        if spec.value_range != (-1.0, 1.0):
            raise ValueError(
                f"augment={self.name}: its colors are made for values in [-1, 1], not in {spec.value_range}; "
                "use augment=none."
            )


class DiffAugment(_ImageAugmentation):
    """DiffAugment. Zhao et al. 2020, arXiv:2006.10738, section 3.2, with the strengths of the released code.

    color: x + U(-.5, .5), then saturation about the mean of a pixel's channels by U(0, 2) (not with one channel),
        then contrast about the mean of the image by U(.5, 1.5).
    translation: by whole pixels, uniform in -size/8..size/8 on each axis; new pixels are 0, which is middle gray.
    cutout: a square of half the size, centred anywhere in the image, becomes 0; it may reach over the edge.

    policy: any of these three, applied in this order; an empty policy changes nothing.

    >>> DiffAugment(policy=[])(torch.ones(1, 1, 2, 2)).sum().item()
    4.0
    """

    name = "diffaugment"

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        _check_names("policy", policy, POLICIES)
        self.policy = tuple(name for name in POLICIES if name in policy)

    def transform(self, x: Tensor) -> Tensor:
        for name in self.policy:
            x = POLICIES[name](x)
        return x


def color(x: Tensor) -> Tensor:
    x = x + _uniform(x, -0.5, 0.5)[:, None, None, None]
    if x.shape[1] > 1:
        gray = x.mean(1, keepdim=True)
        x = torch.lerp(gray, x, _uniform(x, 0.0, 2.0)[:, None, None, None])
    mean = x.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, x, _uniform(x, 0.5, 1.5)[:, None, None, None])


def translation(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    dx, dy = (_whole(x, -round_up(size / 8), round_up(size / 8)) for size in (width, height))
    return warp(x, _affine(x, tx=-dx, ty=-dy), mode="nearest", fill="zeros")


def cutout(x: Tensor) -> Tensor:
    holes = []
    for size in x.shape[2:]:
        side = round_up(size / 2)
        first = _whole(x, 0, size - side % 2)[:, None] - side // 2  # (B, 1)
        i = torch.arange(size, device=x.device)
        holes.append((i >= first) & (i < first + side))  # (B, size)
    return x.masked_fill((holes[0][:, :, None] & holes[1][:, None])[:, None], 0.0)


POLICIES: dict[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


class ADA(_ImageAugmentation):
    """Adaptive discriminator augmentation. Karras et al. 2020, arXiv:2006.06676 ("bgc").

    Each transformation is applied to each sample with probability p. Every `every` updates of D
        p <- clip(p + sign(r - target) * n / (1000 * speed_kimg), 0, 1),  r = mean of sign(D(real)),
    over the n real images of these updates: r is 0 for a D at chance level and 1 for one that has memorized the images.

    Differs from the paper: sampling is bilinear, without the wavelet low-pass filter; images are reflected at the
    border for shifts of any size; x-flip, and rotations of gray images, are off by default. As p approaches 1, D cannot
    tell randomly rotated images from the data, and G starts to generate rotated images.

    target: target of r; None: p does not adapt. p: initial value.
    speed_kimg: thousands of real images in which p may rise from 0 to 1.
    transforms: a subset of TRANSFORMS. None: all, but with one channel without TURNS, which turn a 6 into a 9.
    flip: add x-flip; not for digits or letters.
    hue and saturation need 3 channels, and are left out with one. p and its counters are buffers, so they are in the
    state_dict.

    >>> ada = ADA(target=0.6, speed_kimg=1, every=1)
    >>> ada.observe(torch.ones(100))
    >>> round(ada.p.item(), 4)
    0.1
    """

    name = "ada"

    def __init__(
        self,
        target: float | None = 0.6,
        speed_kimg: float = 500,
        every: int = 4,
        flip: bool = False,
        transforms: Sequence[str] | None = None,
        p: float = 0.0,
    ) -> None:
        super().__init__()
        if target is not None and not -1 < target < 1:
            raise ValueError(f"augment.target={target}: must lie between -1 and 1; the paper's is 0.6.")
        if speed_kimg <= 0:
            raise ValueError(f"augment.speed_kimg={speed_kimg}: must be greater than 0; the paper's is 500.")
        if every < 1:
            raise ValueError(f"augment.every={every}: must be at least 1; the paper's is 4.")
        if not 0 <= p <= 1:
            raise ValueError(f"augment.p={p}: must lie in [0, 1]; the paper starts from 0.")
        chosen = TRANSFORMS if transforms is None else transforms
        _check_names("transforms", chosen, TRANSFORMS)
        self.target, self.speed_kimg, self.every, self.own_p = target, speed_kimg, every, p
        self.transforms = {*chosen, "flip"} if flip else {*chosen}
        self.gray_transforms = self.transforms.difference(TURNS if transforms is None else ())
        self.p: Tensor
        self.signs: Tensor
        self.num_signs: Tensor
        self.updates: Tensor
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("signs", torch.tensor(0.0))  # sum of sign(D(real)) since p was last updated
        self.register_buffer("num_signs", torch.tensor(0.0))  # number of real images in `signs`
        self.register_buffer("updates", torch.tensor(0.0))  # of D, since p was last updated

    def scale(self, factor: float) -> None:
        if self.target is not None:
            raise ValueError("augment_schedule: has no effect on a probability that adapts; add augment.target=null.")
        self.p.fill_(factor * self.own_p)

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        if self.target is None:
            return
        self.signs += real_logits.sign().sum()
        self.num_signs += real_logits.numel()
        self.updates += 1
        due = self.updates >= self.every  # stays on the device, so the CPU does not wait
        move = (self.signs / self.num_signs - self.target).sign() * self.num_signs / (1000 * self.speed_kimg)
        self.p.copy_(torch.where(due, (self.p + move).clamp(0, 1), self.p))
        for counter in (self.signs, self.num_signs, self.updates):
            counter.masked_fill_(due, 0)

    def scalars(self) -> Mapping[str, Tensor]:
        return {"augment/p": self.p}

    def transform(self, x: Tensor) -> Tensor:
        inverse, on = self._draw(x, BLITS, 3)
        if on is not None:
            x = warp(x, inverse, mode="nearest")  # exact for whole pixels, and for the identity
        inverse, on = self._draw(x, GEOMETRY, 3)
        if on is not None:
            x = torch.where(on[:, None, None, None], warp(x, inverse), x)
        matrix, on = self._draw(x, COLORS if x.shape[1] > 1 else GRAYS, x.shape[1] + 1)
        if on is not None:
            x = torch.where(on[:, None, None, None], recolor(x, matrix), x)
        return x

    def _draw(self, x: Tensor, steps: Sequence[tuple[str, Draw]], size: int) -> tuple[Tensor, Tensor | None]:
        """The product of random matrices, the first one rightmost, and which samples it changes (None: no sample)."""
        transforms = self.transforms if x.shape[1] > 1 else self.gray_transforms
        nothing = torch.eye(size, device=x.device, dtype=x.dtype)
        product, touched = nothing.expand(len(x), size, size), None
        for name, draw in steps:
            if name in transforms:
                # p is the probability of at least one of the two rotations.
                p = 1 - (1 - self.p).sqrt() if name == "rotate" else self.p
                on = torch.rand(len(x), device=x.device) < p
                product = torch.where(on[:, None, None], draw(x), nothing) @ product
                touched = on if touched is None else touched | on
        return product, touched


def warp(x: Tensor, inverse: Tensor, mode: str = "bilinear", fill: str = "reflection") -> Tensor:
    """Resample x (B, C, H, W): pixel q is from `inverse` (B, 3, 3) times (q, 1), in pixels (x, y) from the center."""
    height, width = x.shape[2:]
    right, down = (torch.arange(n, device=x.device, dtype=x.dtype) - (n - 1) / 2 for n in (width, height))
    a, b, c = inverse[:, :2, :, None, None].unbind(2)  # each (B, 2, 1, 1)
    across, along = (a * right + b * down[:, None] + c).unbind(1)  # (B, H, W)
    grid = torch.stack([across * (2 / max(width - 1, 1)), along * (2 / max(height - 1, 1))], -1)
    return F.grid_sample(x, grid, mode, fill, align_corners=True)


def recolor(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply `matrix` (B, C + 1, C + 1) with each pixel of x (B, C, H, W), as the vector (channels, 1)."""
    channels = x.shape[1]
    out = matrix[:, :channels, channels, None, None]  # (B, C, 1, 1)
    for k in range(channels):
        out = out + matrix[:, :channels, k, None, None] * x[:, k : k + 1]
    return out


# Geometry: inverse matrices, which map output positions to input positions.


def flip(x: Tensor) -> Tensor:
    return _affine(x, a=1 - 2 * _whole(x, 0, 1))


def rotate90(x: Tensor) -> Tensor:
    quarters = _whole(x, 0, 3)
    odd = quarters % 2
    cos, sin = (1 - quarters) * (1 - odd), (2 - quarters) * odd  # (1, 0), (0, 1), (-1, 0), (0, -1)
    return _affine(x, a=cos, b=-sin, c=sin, d=cos)


def translate(x: Tensor) -> Tensor:
    """By whole pixels, at most an eighth of the size."""
    height, width = x.shape[2:]
    return _affine(x, tx=(_uniform(x, -0.125, 0.125) * width).round(), ty=(_uniform(x, -0.125, 0.125) * height).round())


def scale(x: Tensor) -> Tensor:
    size = _lognormal(x, 0.2)
    return _affine(x, a=1 / size, d=1 / size)


def rotate(x: Tensor) -> Tensor:
    angle = _uniform(x, -math.pi, math.pi)
    return _affine(x, a=angle.cos(), b=-angle.sin(), c=angle.sin(), d=angle.cos())


def stretch(x: Tensor) -> Tensor:
    """The width times s, the height divided by s."""
    size = _lognormal(x, 0.2)
    return _affine(x, a=1 / size, d=size)


def shift(x: Tensor) -> Tensor:
    """By N(0, 1/8) of the size, not only whole pixels."""
    height, width = x.shape[2:]
    return _affine(x, tx=_normal(x) * width / 8, ty=_normal(x) * height / 8)


# Colors: matrices on (channels, 1).


def brightness(x: Tensor) -> Tensor:
    return _color(x, shift=0.2 * _normal(x))


def contrast(x: Tensor) -> Tensor:
    return _color(x, along=(gain := _lognormal(x, 0.5)), across=gain)


def luma_flip(x: Tensor) -> Tensor:
    """Swap dark and light; with one channel, the negative."""
    return _color(x, along=1 - 2 * _whole(x, 0, 1))


def hue(x: Tensor) -> Tensor:
    """A rotation about the gray axis."""
    angle = _uniform(x, -math.pi, math.pi)
    return _color(x, across=angle.cos(), around=angle.sin())


def saturation(x: Tensor) -> Tensor:
    return _color(x, across=_lognormal(x, 1.0))


# `_draw` puts the first one rightmost. In a product of inverses, that is the last transformation.
BLITS: list[tuple[str, Draw]] = [("translate", translate), ("rotate90", rotate90), ("flip", flip)]
GEOMETRY: list[tuple[str, Draw]] = [
    ("shift", shift), ("rotate", rotate), ("stretch", stretch), ("rotate", rotate), ("scale", scale),
]  # fmt: skip
GRAYS: list[tuple[str, Draw]] = [("brightness", brightness), ("contrast", contrast), ("luma_flip", luma_flip)]
COLORS: list[tuple[str, Draw]] = [*GRAYS, ("hue", hue), ("saturation", saturation)]
TRANSFORMS = tuple(dict.fromkeys(name for name, _ in (*BLITS, *GEOMETRY, *COLORS) if name != "flip"))
TURNS = ("rotate90", "rotate")


def _affine(
    x: Tensor,
    a: Tensor | float = 1.0,
    b: Tensor | float = 0.0,
    c: Tensor | float = 0.0,
    d: Tensor | float = 1.0,
    tx: Tensor | float = 0.0,
    ty: Tensor | float = 0.0,
) -> Tensor:
    """(B, 3, 3): [[a, b, tx], [c, d, ty], [0, 0, 1]]."""
    matrix = torch.zeros(len(x), 3, 3, device=x.device, dtype=x.dtype)
    for k, value in enumerate((a, b, tx, c, d, ty)):
        matrix[:, k // 3, k % 3] = value
    matrix[:, 2, 2] = 1
    return matrix


def _color(
    x: Tensor,
    along: Tensor | float = 1.0,
    across: Tensor | float = 1.0,
    around: Tensor | float = 0.0,
    shift: Tensor | float = 0.0,
) -> Tensor:
    """(B, C + 1, C + 1): gains along the gray axis v and across it, a rotation around it, and a shift of all channels.

    along * v v^T + across * (I - v v^T) + around * [v]_x with v = (1, ..., 1) / sqrt(C); one channel: `along`.
    """
    channels = x.shape[1]
    gray = torch.full((channels, channels), 1 / channels, device=x.device, dtype=x.dtype)  # v v^T
    eye = torch.eye(channels, device=x.device, dtype=x.dtype)
    turn = torch.zeros_like(eye)
    if channels == 3:
        turn = (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)  # v x (.)
    matrix = torch.zeros(len(x), channels + 1, channels + 1, device=x.device, dtype=x.dtype)
    for gain, part in ((along, gray), (across, eye - gray), (around, turn)):
        matrix[:, :channels, :channels] += (gain[:, None, None] if isinstance(gain, Tensor) else gain) * part
    matrix[:, :channels, channels] = shift[:, None] if isinstance(shift, Tensor) else shift
    matrix[:, channels, channels] = 1
    return matrix


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    """One number for each sample of x, (B,)."""
    return torch.empty(len(x), device=x.device, dtype=x.dtype).uniform_(low, high)


def _normal(x: Tensor) -> Tensor:
    return torch.randn(len(x), device=x.device, dtype=x.dtype)


def _lognormal(x: Tensor, octaves: float) -> Tensor:
    return torch.exp2(octaves * _normal(x))


def _whole(x: Tensor, low: int, high: int) -> Tensor:
    """Random integers in low..high, both included, (B,)."""
    return torch.randint(low, high + 1, (len(x),), device=x.device)


def round_up(value: float) -> int:
    """Round to the nearest integer, and .5 upward, as in the released code.

    >>> round_up(2.5), round_up(3.5)
    (3, 4)
    """
    return math.floor(value + 0.5)


def _check_names(key: str, names: Sequence[str], allowed: Collection[str]) -> None:
    if isinstance(names, str) or not set(names) <= set(allowed):
        given = names if isinstance(names, str) else f"[{','.join(map(str, names))}]"
        raise ValueError(f"augment.{key}={given}: must be a list of any of {', '.join(allowed)}.")
