"""`ganrun interpolate run_dir=DIR seeds=[0,1,2,3]`: walks between samples, as a grid or an animation."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from ganrun.checks import check_arguments
from ganrun.commands.sample import stem_of
from ganrun.config import Config
from ganrun.figures.animation import ffmpeg, save_gif, save_mp4
from ganrun.figures.grid import grid, save_png
from ganrun.records.run_dir import RunDir
from ganrun.training.load import LoadedRun
from ganrun.training.runtime import choose_device
from ganrun.training.walks import mixes_classes

log = logging.getLogger("ganrun")

Format = Literal["png", "gif", "mp4"]
SIDE = 256  # pixels of the shorter side of an animation, at least


@dataclass(frozen=True)
class InterpolateOptions:
    """The settings of conf/interpolate.yaml."""

    run_dir: str
    seeds: Sequence[int]
    steps: int
    labels: Sequence[int | str] | int | str | None
    truncation: float | None
    checkpoint: int | Literal["last", "best"]
    ema: bool
    format: Format | Sequence[Format]
    fps: int
    out: str | None
    device: str

    @property
    def formats(self) -> Sequence[str]:
        return [self.format] if isinstance(self.format, str) else self.format


def main(config: Config, name: str = "") -> int:
    """Write the walks in every format. Raises ValueError if they cannot be drawn."""
    check_arguments("", InterpolateOptions, config)
    options = InterpolateOptions(**config)
    check(options)
    run_dir = RunDir(Path(options.run_dir))
    loaded = LoadedRun(run_dir, options.checkpoint, choose_device(options.device, "device"))
    if not loaded.spec.is_image:
        raise ValueError(
            f"run_dir={run_dir.path}: its samples have shape {loaded.spec.shape} and are no images; in Python, "
            "ganrun.load(run_dir).interpolate() returns the walks."
        )
    walks = loaded.interpolate(options.seeds, options.steps, options.labels, options.ema, options.truncation)
    out = Path(options.out).expanduser() if options.out else run_dir.samples
    run_dir.check_links()
    out.mkdir(parents=True, exist_ok=True)
    if loaded.condition.uses_labels and not mixes_classes(loaded.G):
        log.info("classes change halfway: this generator does not declare that it can mix them (mixes_classes).")
    images = loaded.spec.encode(walks.flatten(0, 1)).unflatten(0, walks.shape[:2])
    start = f"interpolate_step_{loaded.step:08d}_seeds_{'_'.join(map(str, options.seeds))}"
    write(images, out / stem_of(start, options, loaded), options)
    return 0


def check(options: InterpolateOptions) -> None:
    if wrong := [seed for seed in options.seeds if seed < 0]:
        raise ValueError(f"seeds=[{wrong[0]}]: must be at least 0.")
    if not 1 <= options.fps <= 50:
        raise ValueError(f"fps={options.fps}: must lie between 1 and 50, the fastest rate of a GIF.")
    if "mp4" in options.formats and ffmpeg() is None:
        raise ValueError("format=mp4: needs ffmpeg, which is not on the PATH; use format=gif.")
    if not options.formats:
        raise ValueError("format=[]: name at least one of png, gif and mp4.")


def write(images: Tensor, path: Path, options: InterpolateOptions) -> None:
    """Write walks (walks, steps, C, H, W) of uint8 to path.png, path.gif and path.mp4, those that were chosen."""
    for form in dict.fromkeys(options.formats):
        target = path.with_name(f"{path.name}.{form}")
        if form == "png":
            save_png(grid(images.flatten(0, 1), images.shape[1]), target)
        elif form == "gif":
            save_gif(frames(images), target, options.fps)
        elif program := ffmpeg():
            save_mp4(frames(images), target, options.fps, program)
        log.info("walks      %s", target)


def frames(images: Tensor) -> list[np.ndarray]:
    """The images (H', W', 3) of an animation, with each end once. Small ones are enlarged by a whole factor."""
    walks = [images[0], *(walk[1:] for walk in images[1:])]
    factor = -(-SIDE // min(images.shape[3:]))
    found = []
    for image in (image for walk in walks for image in walk):
        large = image.expand(3, -1, -1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        found.append(large.permute(1, 2, 0).contiguous().numpy())
    return found
