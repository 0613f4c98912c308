"""Frames of a run on one- or two-dimensional data: what figures of one moment need, recorded while it is trained.

A frame is a file of some tens of KB in `frames/` of the run directory. Recording one changes nothing of the training.
"""

import logging
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset
from ganrun.run import Run
from ganrun.sampling import evaluating, fixed_latents, generate
from ganrun.theory import Cells

log = logging.getLogger("ganrun")

FOLDER = "frames"
BINS = 400  # of the histogram over one dimension
POINTS = {1: 401, 2: 64}  # along each dimension, where D is asked
DRAWS = 201  # samples over one dimension that are kept with their latents,
RANKED = 5000  # chosen by rank from so many: sorting all takes as long as drawing them
PLANE, COUNTED = 2500, 10_000  # samples in the plane that are kept, and that are counted


@dataclass(frozen=True)
class Frame:
    """One moment: what G makes of the same latents as at every other, and what D says over a box.

    step: steps done, negative while D is trained alone. logistic: whether sigmoid(logit) is a probability.
    num: how many samples were drawn; mean, std (d,): theirs. low, high (d,): the box. z_dim: of the latents.
    logits: D's, (401,) or (64, 64), evenly spaced from low to high; the first index is the first coordinate.
    counts: of all samples in equal cells of the box, (400,) or (64, 64). Samples come from the average of G where
    there is one; D, though, plays against G itself, whose counts are `played`, else (0,).
    z (k,), samples (k, d): first coordinates of k latents and what G makes of these; over one dimension z is ascending,
    at evenly spaced ranks, so that between two neighbours there are always equally many samples.
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
    played: np.ndarray
    z: np.ndarray
    samples: np.ndarray

    @property
    def d_values(self) -> np.ndarray:
        """D where it was asked: a probability where `logistic`, else as it is."""
        return torch.from_numpy(self.logits).sigmoid().numpy() if self.logistic else self.logits

    def positions(self, axis: int = 0) -> np.ndarray:
        """Where D was asked, along one axis."""
        return np.linspace(self.low[axis], self.high[axis], self.logits.shape[axis])


def possible(run: Run) -> bool:
    """Whether the data of `run` have one or two dimensions, and no classes that the run looks at."""
    return run.dataset.spec.shape in ((1,), (2,)) and run.condition is None


def view(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The box (low, high) that is looked at, the same throughout a run.

    Five standard deviations about the mean, or about all modes; in the plane three, and a quarter more on every side.
    """
    spec, truth, flat = dataset.spec, dataset.distribution, dataset.spec.shape == (1,)
    if truth is not None:
        cells = Cells.around(truth, 1, sigmas=5.0 if flat else 3.0)
        low, high = cells.low, cells.high
    elif flat:
        low, high = (spec.mean - 5 * spec.std,), (spec.mean + 5 * spec.std,)
    else:
        x = dataset.train.x.float()
        low, high = tuple(x.amin(0).tolist()), tuple(x.amax(0).tolist())
    margin = [0.0 if flat else (b - a) / 4 for a, b in zip(low, high, strict=True)]
    return (
        tuple(a - m for a, m in zip(low, margin, strict=True)),
        tuple(b + m for b, m in zip(high, margin, strict=True)),
    )


def capture(run: Run, step: int, num: int = 0) -> Frame:
    """The frame of `run` now. num: samples that are drawn; 0: 20,000, fewer of nets that are larger as a rule."""
    low, high = view(run.dataset)
    dim = len(low)
    z_dim = fixed_latents(run.latent, 1, run.device, run.seed).shape[1]
    num = num or (COUNTED if dim == 2 else 20_000 if z_dim == 1 else 5000)
    z = fixed_latents(run.latent, num, run.device, run.seed)
    x = generate(run.sampler, z)  # (num, d)
    first = z[:, 0].float().cpu()
    counts, played = counted(x, low, high), torch.zeros(0, dtype=torch.int32)
    if run.averaged is not None:
        played = counted(generate(run.G, z), low, high)
    if dim == 1:
        order = first[:RANKED].argsort()
        kept = order[torch.linspace(0, len(order) - 1, DRAWS + 2)[1:-1].long()]
    else:
        kept = torch.arange(min(num, PLANE))
    lines = [torch.linspace(a, b, POINTS[dim]) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*lines).view(-1, dim)
    with evaluating(run.D):
        logits = run.D(grid.to(run.device)).float().cpu()
    return Frame(
        step=step,
        logistic=getattr(run.loss, "logistic", False),
        num=num,
        z_dim=z_dim,
        low=np.array(low),
        high=np.array(high),
        mean=_array(x.mean(0)),
        std=_array(x.std(0)),
        logits=_array(logits.view([POINTS[dim]] * dim)),
        counts=_array(counts),
        played=_array(played),
        z=_array(first[kept]),
        samples=_array(x[kept]),
    )


def counted(x: Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
    """How many of the samples x (n, d) lie in each cell of the box: (400,) or (64, 64)."""
    if len(low) == 1:
        return torch.histc(x, BINS, low[0], high[0]).int()
    num = POINTS[2]
    return (Cells(low, high, num).share(x) * len(x)).round().int().view(num, num)


def _array(x: Tensor) -> np.ndarray:
    return x.contiguous().numpy()


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
        np.savez(file, **{field.name: getattr(frame, field.name) for field in fields(Frame)})
    unfinished.replace(path)


def load(path: Path) -> Frame:
    """Raises ValueError where the file cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {field.name: stored[field.name] for field in fields(Frame)}
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
    """Forget the frames after `step`, where a run goes on. With step < 0 nothing is kept."""
    for path in (run_dir / FOLDER).glob("*.npz*"):
        kind, _, number = path.name.partition(".")[0].partition("_")
        if step < 0 or path.suffix == ".partial" or (kind == "step" and number.isdigit() and int(number) > step):
            path.unlink()
