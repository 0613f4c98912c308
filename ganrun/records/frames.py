"""Frames of a run on one- or two-dimensional data: the data of a figure of one step.

Each frame is a file of some tens of KB in `frames/` of the run directory.
"""

import io
import logging
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ganrun.records.checkpoint import write_atomically
from ganrun.records.legacy import FRAMES
from ganrun.records.shapes import require

log = logging.getLogger("ganrun")

FOLDER = "frames"
UNREADABLE = (  # errors of np.load for damaged files; RuntimeError: an encrypted archive, or one of another version
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
KINDS = {"step": "iu", "logistic": "b", "num": "iu", "z_dim": "iu"}  # NumPy's, of those that are not any numbers


@dataclass(frozen=True)
class Frame:
    """Samples and D's logits at one step. All frames of a run have the same latents and the same box.

    step: completed steps, negative while D is pre-trained.
    logistic: whether sigmoid(logit) is a probability.
    num, z_dim: the number of samples drawn, and the dimension of their latents.
    low, high (d,): the corners of the box.
    mean, std (d,): of all samples. They come from G_ema if the run has one, else from G.
    logits: D's logits on a grid over the box, (401,) or (64, 64); the first index is that of the first coordinate.
    counts: the number of samples in each of the equal cells of the box, (400,) or (64, 64).
    counts_g: the same for samples of G itself, against which D is trained, if the run has G_ema; else of shape (0,).
    z (k,), samples (k, d): the first coordinates of k latents, and their samples. For one-dimensional data z is
    ascending, at evenly spaced ranks, so that equally many samples lie between any two neighbors.
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
        """D at `positions`: probabilities if `logistic`, else logits."""
        return torch.from_numpy(self.logits).sigmoid().numpy() if self.logistic else self.logits

    def positions(self, axis: int = 0) -> np.ndarray:
        """The coordinates of the grid of `logits` along one axis."""
        return np.linspace(self.low[axis], self.high[axis], self.logits.shape[axis])


def path_of(run_dir: Path, step: int, pretrain_d: int) -> Path:
    """The file of a frame. File names sort in the order of training: updates of D's pre-training, then steps.

    >>> [path_of(Path("r"), step, pretrain_d=300).name for step in (-300, -100, 0, 200)]
    ['pretrain_00000000.npz', 'pretrain_00000200.npz', 'step_00000000.npz', 'step_00000200.npz']
    """
    name = f"step_{step:08d}" if step >= 0 else f"pretrain_{pretrain_d + step:08d}"
    return run_dir / FOLDER / f"{name}.npz"


def save(frame: Frame, run_dir: Path, pretrain_d: int = 0) -> None:
    """Write the frame atomically. pretrain_d: the number of updates in D's pre-training."""
    path = path_of(run_dir, frame.step, pretrain_d)
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()  # np.savez itself makes some thirty small writes
    np.savez(buffer, **vars(frame))
    write_atomically(path, partial(Path.write_bytes, data=buffer.getbuffer()))


def load(path: Path) -> Frame:
    """Read a frame. Raises ValueError if the file is not readable."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names = {field.name: FRAMES.get(field.name, "") for field in fields(Frame)}
            found = {name: stored[old if old in stored else name] for name, old in names.items()}
        check(found)
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is not a readable frame ({reason}).") from error
    scalars = {name: found[name].item() for name in ("step", "logistic", "num", "z_dim")}
    return Frame(**{**found, **scalars})


def check(found: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless the arrays have the shapes and types of a `Frame`."""
    dim = found["low"].size
    require(dim in (1, 2), "low has the wrong shape")
    cells = found["counts"].shape
    shapes = {
        **dict.fromkeys(("step", "logistic", "num", "z_dim"), ()),
        **dict.fromkeys(("low", "high", "mean", "std"), (dim,)),
        "counts_g": cells if found["counts_g"].size else (0,),
        "samples": (len(found["z"]), dim) if found["z"].ndim else None,
    }
    for name, array in found.items():
        many = array.ndim == (1 if name == "z" else dim) and min(array.shape) > 1
        require(array.shape == shapes[name] if name in shapes else many, f"{name} has the wrong shape")
        require(array.dtype.kind in KINDS.get(name, "fiu"), f"{name} has the wrong type")
    require(bool(np.isfinite([found["low"], found["high"]]).all()), "the box is not finite")
    require(bool((found["low"] < found["high"]).all()), "the box is empty")


def load_all(run_dir: Path) -> list[Frame]:
    """The frames of a run, in order. Unreadable files are skipped with a warning."""
    frames = []
    for path in sorted((run_dir / FOLDER).glob("*.npz")):
        try:
            frames.append(load(path))
        except ValueError as error:
            log.warning("%s It is skipped.", error)
    return sorted(frames, key=lambda frame: frame.step)


def rewind(run_dir: Path, step: int) -> None:
    """Remove the frames after `step`, for a resumed run. With step < 0 nothing is kept."""
    for path in (run_dir / FOLDER).glob("*.npz*"):
        kind, _, number = path.name.partition(".")[0].partition("_")
        if step < 0 or path.suffix == ".partial" or (kind == "step" and number.isdigit() and int(number) > step):
            path.unlink()
