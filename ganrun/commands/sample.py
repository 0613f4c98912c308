"""`ganrun sample run_dir=DIR num=64`: draw from the generator of a run."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ganrun.build import build_generator, choose_device
from ganrun.checks import check_arguments
from ganrun.data.dataset import DataSpec
from ganrun.figures.pictures import GRID, save_png
from ganrun.names import Config
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir
from ganrun.sampling import draw

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class SampleOptions:
    """The settings of conf/sample.yaml."""

    run_dir: str
    num: int
    seed: int
    checkpoint: int | Literal["last"]
    average: bool
    format: Literal["npz", "png"]
    out: str | None
    device: str


def main(config: Config, name: str = "") -> int:
    """Write the samples, and for images a grid of the first 64. Raises ValueError for what cannot be drawn."""
    check_arguments("", SampleOptions, config)
    options = SampleOptions(**config)
    if options.num < 1:
        raise ValueError(f"num={options.num}: must be at least 1.")
    run_dir = RunDir(Path(options.run_dir))
    run_config = run_dir.config()
    state = load(run_dir, options.checkpoint)
    spec, device = DataSpec(**state["spec"]), choose_device(options.device, "device")
    if options.format == "png" and not spec.is_image:
        raise ValueError(f"format=png: these samples are no images but have shape {spec.shape}; use format=npz.")
    G, latent = build_generator(run_config, spec, device)
    G.load_state_dict(state["averaged" if options.average and "averaged" in state else "G"])
    samples = draw(G, latent, options.num, device, options.seed)
    out = Path(options.out) if options.out else run_dir.samples
    write(samples, spec, out, f"sample_step_{state['step']:08d}_seed_{options.seed}", options.format)
    return 0


def load(run_dir: RunDir, which: int | str) -> dict[str, Any]:
    if which != "last":
        return checkpoint.load(checkpoint.path_of(run_dir.checkpoints, int(which)))
    state = checkpoint.load_newest(run_dir.checkpoints)
    if state is None:
        raise ValueError(f"run_dir={run_dir.path}: has no checkpoint yet that can be read.")
    return state


def write(samples: Tensor, spec: DataSpec, out: Path, stem: str, form: str) -> None:
    """`samples` of the .npz: uint8 (N, H, W, C) for images, float32 (N, d) in the data's units for vectors."""
    out.mkdir(parents=True, exist_ok=True)
    if not spec.is_image:
        np.savez(out / f"{stem}.npz", samples=samples.numpy())
        log.info("samples    %s", out / f"{stem}.npz")
        return

    from ganrun.figures.grid import grid

    images = spec.encode(samples)  # (N, C, H, W)
    save_png(grid(images[:GRID]), out / f"{stem}_grid.png")
    log.info("grid       %s", out / f"{stem}_grid.png")
    pixels = images.permute(0, 2, 3, 1).numpy()
    if form == "npz":
        np.savez_compressed(out / f"{stem}.npz", samples=pixels)
        log.info("samples    %s", out / f"{stem}.npz")
    else:
        folder = out / stem
        for i, image in enumerate(pixels):
            save_png(image.squeeze(), folder / f"{i:06d}.png")
        log.info("samples    %s/*.png", folder)
