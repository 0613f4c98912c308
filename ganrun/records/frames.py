"""Frames of a run on one- or two-dimensional data: what a figure of one moment is drawn from.

A frame is a file of some tens of KB in `frames/` of the run directory.
"""

import logging
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

log = logging.getLogger("ganrun")

FOLDER = "frames"
OLD_NAMES = {"counts_g": "played"}  # in the files of earlier versions


@dataclass(frozen=True)
class Frame:
    """One moment: samples from the same latents as at every other moment, and D's logits over a box.

    step: steps done, negative while D is trained alone. logistic: whether sigmoid(logit) is a probability.
    num: how many samples were drawn; mean, std (d,): theirs. low, high (d,): the box. z_dim: of the latents.
    logits: D's, (401,) or (64, 64), evenly spaced from low to high; the first index is the first coordinate.
    counts: of all samples in equal cells of the box, (400,) or (64, 64). Samples come from G_ema where there is one;
    the counts of G itself, which D is trained against, are then `counts_g`, else (0,).
    z (k,), samples (k, d): first coordinates of k latents, and their samples. Over one dimension z is ascending, at
    evenly spaced ranks, so that there are equally many samples between any two neighbours.
    """

    step: int
    logistic: bool
    num: int
    z_dim: int
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    logits: np.ndarray
    counts: np.ndarray
    counts_g: np.ndarray
    z: np.ndarray
    samples: np.ndarray

    @property
    def d_values(self) -> np.ndarray:
        """D at `positions`: a probability where `logistic`, else the logit."""
        return torch.from_numpy(self.logits).sigmoid().numpy() if self.logistic else self.logits

    def positions(self, axis: int = 0) -> np.ndarray:
        """Where the logits were taken, along one axis."""
        return np.linspace(self.low[axis], self.high[axis], self.logits.shape[axis])


def path_of(run_dir: Path, step: int, pretrain_d: int) -> Path:
    """Names sort as the frames do: D's updates before the game count up from 0, then the steps do.

    >>> [path_of(Path("r"), step, pretrain_d=300).name for step in (-300, -100, 0, 200)]
    ['pretrain_00000000.npz', 'pretrain_00000200.npz', 'step_00000000.npz', 'step_00000200.npz']
    """
    name = f"step_{step:08d}" if step >= 0 else f"pretrain_{pretrain_d + step:08d}"
    return run_dir / FOLDER / f"{name}.npz"


def save(frame: Frame, run_dir: Path, pretrain_d: int = 0) -> None:
    """Write it, whole or not at all. pretrain_d: updates of D before the game."""
    path = path_of(run_dir, frame.step, pretrain_d)
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    with unfinished.open("wb") as file:
        np.savez(file, **vars(frame))
    unfinished.replace(path)


def load(path: Path) -> Frame:
    """Raises ValueError where the file cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names = {field.name: OLD_NAMES.get(field.name, "") for field in fields(Frame)}
            found = {name: stored[old if old in stored else name] for name, old in names.items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is no frame that can be read ({reason}).") from error
    scalars = {name: found[name].item() for name in ("step", "logistic", "num", "z_dim")}
    return Frame(**{**found, **scalars})


def load_all(run_dir: Path) -> list[Frame]:
    """The frames of a run, in order. Those that cannot be read are named, and left out."""
    frames = []
    for path in sorted((run_dir / FOLDER).glob("*.npz")):
        try:
            frames.append(load(path))
        except ValueError as error:
            log.warning("%s It is left out.", error)
    return sorted(frames, key=lambda frame: frame.step)


def rewind(run_dir: Path, step: int) -> None:
    """Remove the frames after `step`, where a run is resumed. With step < 0 nothing is kept."""
    for path in (run_dir / FOLDER).glob("*.npz*"):
        kind, _, number = path.name.partition(".")[0].partition("_")
        if step < 0 or path.suffix == ".partial" or (kind == "step" and number.isdigit() and int(number) > step):
            path.unlink()
