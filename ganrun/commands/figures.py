"""`ganrun figures run_dir=DIR`: draw figures of a run from the files in its directory."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch

from ganrun.checks import check_arguments
from ganrun.config import Config
from ganrun.data.dataset import Dataset
from ganrun.figures.album import Album, save_still
from ganrun.figures.animation import ffmpeg, save_gif, save_mp4
from ganrun.figures.mpl import Figure
from ganrun.protocols import Loss, MetricKey
from ganrun.records import frames
from ganrun.records.frames import Frame
from ganrun.records.run_dir import RunDir
from ganrun.training.build import load_data, make_loss, make_metrics
from ganrun.training.load import LoadedRun
from ganrun.training.runtime import choose_device
from ganrun.training.sample_figures import SampleFigures
from ganrun.trusted import add_run

log = logging.getLogger("ganrun")


@dataclass(frozen=True)
class FigureOptions:
    """The settings of conf/figures.yaml."""

    run_dir: str
    out: str | None
    checkpoint: int | Literal["last", "best"]
    format: Literal["png", "pdf", "svg"]
    animation: bool
    fps: int


def main(config: Config, name: str = "") -> int:
    """Write all figures for which the run has records. Raises ValueError if it has none."""
    check_arguments("", FigureOptions, config)
    options = FigureOptions(**config)
    if not 1 <= options.fps <= 50:
        raise ValueError(f"fps={options.fps}: must lie between 1 and 50, the fastest rate of a GIF.")
    run_dir = RunDir(Path(options.run_dir))
    album = open_album(run_dir)
    if not (album.frames or album.rows or album.pictures):
        raise ValueError(f"run_dir={run_dir.path}: has no records to draw yet.")
    out = Path(options.out).expanduser() if options.out else run_dir.path / "figures"
    run_dir.check_links()
    out.mkdir(parents=True, exist_ok=True)
    log_missing(album)
    for stem, figure in chain(album.stills(), sample_figures(run_dir, album, options.checkpoint)):
        path = out / f"{stem}.{options.format}"
        save_still(figure, path)
        log.info("figure     %s", path)
    if options.animation:
        animate(album, out, options.fps)
    return 0


def sample_figures(run_dir: RunDir, album: Album, checkpoint: int | str) -> Iterator[tuple[str, Figure]]:
    """The figures of the trained generator, if the run's data are images. Warns if they cannot be drawn."""
    if album.frames:  # of data of one or two dimensions
        return
    try:
        loaded = LoadedRun(run_dir, checkpoint, choose_device("auto", "device"))
        if loaded.spec.is_image:
            yield from SampleFigures(loaded).figures()
    except ValueError as error:
        log.warning("figures of samples are skipped: %s", error)


def open_album(run_dir: RunDir) -> Album:
    """The records of a run. Its data are loaded only if there are frames, since such data are small."""
    add_run(run_dir.path)
    config = run_dir.config()
    recorded = frames.load_all(run_dir.path)
    dataset, loss = data_of(config, recorded), loss_of(config)
    return Album(
        frames=recorded,
        dataset=dataset,
        rows=list(run_dir.rows()),
        pictures=sorted(run_dir.samples.glob("step_*.png")),
        steps=config["train"]["steps"],
        pretrain_d=config["train"].get("pretrain_d", 0),
        chance_losses=chance_losses(loss),
        keys=run_dir.metric_keys() or keys_of(config, dataset, loss),
    )


def data_of(config: Config, recorded: list[Frame]) -> Dataset | None:
    """The data of the run; None if there are no frames, or if the data are not available."""
    if not recorded:
        return None
    try:
        dataset = load_data(config)
    except ValueError as error:
        log.warning("densities and panels are skipped, because the data are not available: %s", error)
        return None
    if any(frame.low.shape != dataset.spec.shape for frame in recorded):
        log.warning("densities and panels are skipped, because the frames are not of these data.")
        return None
    return dataset


def loss_of(config: Config) -> Loss | None:
    """The loss of the run; None if it is a class of the user's that is no longer available."""
    try:
        return make_loss(config)
    except ValueError:
        return None


def chance_losses(loss: Loss | None) -> tuple[float, float] | None:
    """The losses (D's, G's) if D is at chance level, so that all logits are 0; None if the loss is not logistic."""
    if loss is None or not loss.logistic or loss.g_needs_features:
        return None
    zeros = torch.zeros(2)
    return float(loss.d_loss(zeros, zeros)), float(loss.g_loss(zeros, zeros))


def keys_of(config: Config, dataset: Dataset | None, loss: Loss | None) -> Mapping[str, MetricKey]:
    """The properties of the metrics' keys, from the config, for runs of earlier versions that did not record them."""
    if dataset is None:
        return {}
    try:
        metrics = make_metrics(config)
    except ValueError:  # a metric of the user's that is no longer available
        return {}
    logistic = loss is not None and loss.logistic
    return {k: key for metric in metrics.values() for k, key in metric.keys(dataset.spec, logistic).items()}


def log_missing(album: Album) -> None:
    """Log a message for each figure that cannot be drawn."""
    if not album.frames:
        log.info("densities and panels are skipped: frames/ is empty; only 1D and 2D data have frames.")
    if not album.has("loss/d"):
        log.info("losses are skipped: metrics.jsonl has no loss/d yet; train.log_every sets how often it is logged.")
    if not (album.has("accuracy/real") and album.has("accuracy/fake")):
        log.info("accuracy is skipped: metrics.jsonl has no accuracy/real and accuracy/fake.")
    if not album.metric_keys:
        log.info("metrics are skipped: a curve needs two steps or more, and metrics.jsonl has no metric at so many.")


def animate(album: Album, out: Path, fps: int) -> None:
    """Write animation.gif, and animation.mp4 if ffmpeg is available."""
    images = album.images()
    if len(images) < 2:
        log.info("animation is skipped: the run has fewer than two frames or pictures of samples.")
        return
    save_gif(images, out / "animation.gif", fps)
    log.info("animation  %s", out / "animation.gif")
    program = ffmpeg()
    if program is None:
        log.info("animation.mp4 is skipped: ffmpeg is not on the PATH.")
        return
    try:
        save_mp4(images, out / "animation.mp4", fps, program)
        log.info("animation  %s", out / "animation.mp4")
    except OSError as error:
        log.warning("%s", error)
