"""Pictures of runs on images: what is drawn, when, and that training does not change by a bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same_run, run_of, state_of, train_in
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganrun.records.dashboard import EVENT_FILES
from ganrun.training.pictures import Pictures, real_examples
from ganrun.training.run import Run

DIGITS = ["data=digits", "arch.generator.width=8", "arch.discriminator.width=8", "train.threads=1", "train.steps=4",
          "train.batch_size=16", "train.log_every=1", "train.device=cpu", "train.diagnose=false"]  # fmt: skip
KINDS = {
    "plain": [],
    "ema": ["train.ema=0.5"],
    "classes": ["train.ema=0.5", "condition=concat", "latent=uniform"],
}
STEPS = [0, 2, 4]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    lines = [[*DIGITS, *line, "train.sample_every=2", f"run_dir={name}"] for name, line in KINDS.items()]
    train_in(folder, *lines, [*DIGITS, *KINDS["classes"], "train.sample_every=0", "run_dir=without"])
    return folder


def images(run_dir: Path) -> dict[str, list[int]]:
    """The steps of the images in TensorBoard's events, by tag."""
    events = EventAccumulator(str(run_dir), size_guidance={"images": 0}).Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.slow
def test_pictures_of_a_run_are_in_tensorboard_and_in_its_folder(runs: Path) -> None:
    expected = {"samples/real": [0], "samples/fixed_z": STEPS, "samples/interpolation": [4], "samples/truncation": [4]}
    assert images(runs / "plain") == expected
    assert images(runs / "ema") == expected | {"samples/fixed_z_raw": STEPS}
    without_truncation = {tag: steps for tag, steps in expected.items() if tag != "samples/truncation"}
    assert images(runs / "classes") == without_truncation | {"samples/fixed_z_raw": STEPS}  # its latents are uniform
    assert images(runs / "without") == {}
    assert not (runs / "without" / "samples").exists() or not list((runs / "without" / "samples").iterdir())
    steps = {f"{name}_{step:08d}.png" for step in STEPS for name in ("step", "raw_step")}
    names = {path.name for path in (runs / "ema" / "samples").iterdir()}
    assert names == steps | {"real.png", "interpolation.png", "truncation.png"}


@pytest.mark.slow
def test_pictures_do_not_change_training(runs: Path) -> None:
    """Common bug: pictures draw from the random state of training, or update statistics of batch norm."""
    assert_same_run(runs / "without", runs / "classes")


@pytest.mark.slow
def test_pictures_show_what_they_say(runs: Path) -> None:
    samples = runs / "ema" / "samples"
    for step, same in ((0, True), (4, False)):  # G_ema is a copy of G at first
        pair = [pixels(samples / f"{name}_{step:08d}.png") for name in ("step", "raw_step")]
        assert np.array_equal(*pair) == same
    rows = pixels(samples / "truncation.png")[2:, 2:, 0]
    assert rows.shape == (5 * 10, 10 * 10)
    free, *_, bounded = (rows[10 * k :][:8] for k in range(5))
    different = [
        np.stack([row[:, 10 * k :][:, :8] for k in range(10)]).astype(float).std(0).mean() for row in (free, bounded)
    ]
    assert different[1] < 0.5 * different[0]  # and not less, because pixels are rounded
    walks = pixels(samples / "interpolation.png")[2:, 2:, 0]
    assert walks.shape == (8 * 10, 10 * 10)
    ends = [(walks[10 * k :][:8, 90:98], walks[10 * k + 10 :][:8, :8]) for k in range(7)]
    for end, start in ends:
        assert np.abs(end.astype(int) - start).max() <= 1
    assert pixels(runs / "classes" / "samples" / "real.png").shape == (102, 102, 3)


@pytest.mark.slow
def test_run_that_was_killed_before_its_end_has_each_final_picture_once(runs: Path, here) -> None:
    run = runs / "ema"
    before = images(run)
    (run / "result.json").unlink()
    assert here("resume", f"run_dir={run}")[0] == 0
    assert images(run) == before


@pytest.mark.slow
def test_extended_run_has_the_final_pictures_of_its_new_end(here, tmp_path: Path) -> None:
    line = [*DIGITS, "train.sample_every=2", "run_dir=r"]
    assert here(*line)[0] == 0
    old = pixels(tmp_path / "r/samples/interpolation.png")
    assert here("resume", "run_dir=r", "train.steps=6")[0] == 0
    assert images(tmp_path / "r")["samples/interpolation"] == [6]
    assert not np.array_equal(old, pixels(tmp_path / "r/samples/interpolation.png"))
    assert len(list((tmp_path / "r").glob(EVENT_FILES))) >= 1


@pytest.mark.slow
def test_vectors_have_no_pictures_of_images(here, tmp_path: Path) -> None:
    short = ["train.steps=2", "train.ema=0.5", "train.sample_every=1", "train.diagnose=false", "metric=none"]
    assert here("data=heights", *short, "run_dir=r")[0] == 0
    assert set(images(tmp_path / "r")) == {"figure/density"}


def conditional(*more: str) -> Run:
    return run_of("data=digits", "condition=concat", "arch.generator.width=8", *more)


def test_drawing_restores_the_networks_and_the_random_state() -> None:
    run = conditional("train.ema=0.5")
    pictures = Pictures(run)
    before, state = [state_of(run.G), state_of(run.G_ema)], torch.get_rng_state()
    first = {name: image.copy() for name, image in pictures.draw_final()}
    real, raw = pictures.draw_real(), pictures.draw_raw()
    torch.rand(3)
    for name, image in pictures.draw_final():
        assert np.array_equal(image, first[name])
    assert np.array_equal(pictures.draw_real(), real)
    assert np.array_equal(pictures.draw_raw(), raw)
    torch.set_rng_state(state)
    list(pictures.draw_final())
    assert torch.equal(torch.get_rng_state(), state)
    assert run.G.training
    for net, was in zip((run.G, run.G_ema), before, strict=True):
        assert all(torch.equal(value, was[name]) for name, value in net.state_dict().items())


def test_real_examples_have_a_row_for_each_class() -> None:
    run = conditional("data.num=60")
    spec, train = run.dataset.spec, run.dataset.train
    found = spec.encode(real_examples(run.dataset, 10, seed=0)).unflatten(0, (10, 10))
    for k, row in enumerate(found):
        own = train.x[train.y == k]
        assert all(any(torch.equal(image, x) for x in own) for image in row)
        assert len(row.flatten(1).unique(dim=0)) == min(10, len(own.flatten(1).unique(dim=0)))
    first = real_examples(run.dataset, None, seed=0)
    assert len(first) == 60  # fewer than fit into a grid
    assert torch.equal(first, real_examples(run.dataset, None, seed=0))
    assert not torch.equal(first, real_examples(run.dataset, None, seed=1))


def test_class_without_examples_is_left_blank() -> None:
    run = conditional("data.num=3")
    found = real_examples(run.dataset, 10, seed=0)
    assert found.shape == (100, 1, 8, 8)
    missing = next(k for k in range(10) if k not in run.dataset.train.y)
    assert found[10 * missing : 10 * missing + 10].eq(0).all()
