"""The sides of the feature maps of convolutional networks, from the smallest one to the image, by doubling."""

from typing import NamedTuple

from ganrun.data.dataset import DataSpec

SMALLEST, LARGEST = 8, 256  # sides of an image
STARTS = range(4, 8)  # the shorter side of the smallest feature maps


class Sides(NamedTuple):
    """An image of height start[0] * 2 ** doublings, and width start[1] * 2 ** doublings."""

    start: tuple[int, int]
    doublings: int

    @property
    def shorter(self) -> int:
        """The shorter side of the image."""
        return min(self.start) << self.doublings


def sides_of(spec: DataSpec, name: str) -> Sides:
    """The sides for images whose shorter side is 4, 5, 6 or 7 times a power of 2.

    The longer side must be a multiple of the same power of 2. name: of the architecture, for messages. Raises
    ValueError for other sizes, and for data that are not images of 1 or 3 channels with sides of 8 to 256 pixels.

    >>> sides_of(DataSpec((3, 32, 32), (-1, 1)), "DCGAN"), sides_of(DataSpec((1, 28, 28), (-1, 1)), "DCGAN").start
    (Sides(start=(4, 4), doublings=3), (7, 7))
    >>> sides_of(DataSpec((3, 64, 96), (-1, 1)), "DCGAN")
    Sides(start=(4, 6), doublings=4)
    """
    if not spec.is_image or spec.shape[0] not in (1, 3):
        raise ValueError(f"{name} makes images of 1 or 3 channels, not samples of shape {spec.shape}; use arch=mlp.")
    height, width = spec.shape[1:]
    shorter, doublings = min(height, width), 0
    while shorter > STARTS[-1] and shorter % 2 == 0:
        shorter, doublings = shorter // 2, doublings + 1
    step = 2**doublings
    if shorter not in STARTS or min(height, width) < SMALLEST or max(height, width) > LARGEST:
        raise ValueError(
            f"{name} makes images with sides of 8 to 256, of which the shorter is 4, 5, 6 or 7 times a power of 2, "
            f"not {height}x{width}; resize (data.size=32 for data=folder) or use arch=mlp."
        )
    if max(height, width) % step:
        raise ValueError(
            f"{name} makes images of {height}x{width} only if the longer side is a multiple of {step}, as the shorter "
            "is; resize or use arch=mlp."
        )
    return Sides((height // step, width // step), doublings)
