"""`ganrun interpolate`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import train_in
from PIL import Image, ImageSequence

from ganrun.figures import animation

pytestmark = pytest.mark.slow

DIGITS = ["data=digits", "arch.generator.width=8", "arch.discriminator.width=8", "train.threads=1", "train.steps=2",
          "train.sample_every=0", "train.diagnose=false", "condition=concat"]  # fmt: skip
OWN = """
from torch import nn
from ganrun.arch.dcgan import Generator
class Switching(Generator):
    mixes_classes = False
"""
STEM = "interpolate_step_00000002_seeds_"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_in(folder, [*DIGITS, "run_dir=r"])
    return folder / "r"


@pytest.fixture
def samples(trained: Path, tmp_path: Path) -> Path:
    """The sample folder of a run on digits, copied for one test."""
    return shutil.copytree(trained, tmp_path / "r") / "samples"


def gray(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def test_grid_has_a_row_for_each_walk(samples: Path, here) -> None:
    code, out, _ = here("interpolate", "run_dir=r", "seeds=[5,0,2]", "steps=4")
    assert code == 0
    path = samples / f"{STEM}5_0_2.png"
    assert f"walks      {Path('r/samples') / path.name}" in out
    found = gray(path)
    assert found.shape == (2 * 10 + 2, 4 * 10 + 2)
    assert here("sample", "run_dir=r", "num=1", "seed=5", "labels=0")[0] == 0
    first = np.load(samples / "sample_step_00000002_seed_5_labels_0.npz")["samples"][0, ..., 0]
    assert np.abs(found[2:10, 2:10].astype(int) - first).max() <= 1


def test_animation_shows_each_end_once_and_enlarges_small_images(
    samples: Path, here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" > arguments\nfor last; do :; done\ncat > "$last"\n')
    program.chmod(0o755)
    monkeypatch.setattr(animation, "ffmpeg", lambda: str(program))
    monkeypatch.setattr("ganrun.commands.interpolate.ffmpeg", lambda: str(program))
    line = ["interpolate", "run_dir=r", "seeds=[0,1,0]", "labels=[3]", "steps=4", "format=[gif,mp4,png]", "out=walks"]
    assert here(*line, "fps=5")[0] == 0
    stem = f"{STEM}0_1_0_labels_3"
    assert {path.name for path in Path("walks").iterdir()} == {f"{stem}.{form}" for form in ("gif", "mp4", "png")}
    with Image.open(f"walks/{stem}.gif") as found:
        assert found.size == (256, 256)
        frames = [np.asarray(image.convert("L")) for image in ImageSequence.Iterator(found)]
    assert len(frames) == 2 * 4 - 1
    assert np.abs(frames[0].astype(int) - frames[-1]).max() <= 1  # it returns to the first seed
    assert "-s 256x256 -r 5" in Path("arguments").read_text()
    assert len(Path(f"walks/{stem}.mp4").read_bytes()) == (7 + 10) * 256 * 256 * 3
    assert np.array_equal(frames[0], np.kron(frames[0][::32, ::32], np.ones((32, 32), np.uint8)))


def test_class_changes_with_the_same_latents(samples: Path, here) -> None:
    assert here("interpolate", "run_dir=r", "seeds=[0]", "labels=[1,7]", "steps=3")[0] == 0
    walk = gray(samples / f"{STEM}0_labels_1_7.png")[2:10, 2:].astype(int)
    first, middle, last = (walk[:, 10 * k :][:, :8] for k in range(3))
    assert len({first.tobytes(), middle.tobytes(), last.tobytes()}) == 3


def test_generator_that_does_not_mix_classes_switches_and_says_so(here, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    assert here(*DIGITS, "arch.generator._target_=own.Switching", "run_dir=r")[0] == 0
    code, out, _ = here("interpolate", "run_dir=r", "seeds=[0]", "labels=[1,7]", "steps=4")
    assert code == 0
    assert "classes change halfway: this generator does not declare that it can mix them" in out
    walk = gray(tmp_path / "r" / "samples" / f"{STEM}0_labels_1_7.png")[2:10, 2:]
    a, b, c, d = (walk[:, 10 * k :][:, :8] for k in range(4))
    assert np.array_equal(a, b)
    assert np.array_equal(c, d)
    assert not np.array_equal(b, c)


CANNOT_WORK = [
    ("seeds=[0]", "seeds=[0]: name two or more"),
    ("seeds=0", "seeds=0: must be a list"),
    ("steps=1", "steps=1: must be at least 2"),
    ("labels=[12]", "labels: 12 is not one of the classes"),
    ("format=jpg", "format=jpg: must be"),
    ("format=[]", "format=[]: name at least one"),
    ("fps=99", "fps=99: must lie between 1 and 50"),
    ("truncation=-2", "truncation=-2: must be greater than 0"),
    ("checkpoint=9", "saved steps: 2"),
    ("run_dir=nowhere", "run_dir=nowhere: no run there"),
    ("stepz=3", "did you mean steps?"),
]


@pytest.mark.parametrize(("setting", "message"), CANNOT_WORK)
def test_invalid_setting_is_one_sentence(setting: str, message: str, samples: Path, here) -> None:
    line = ["run_dir=r", setting] if not setting.startswith("run_dir") else [setting]
    code, _, err = here("interpolate", *line)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_mp4_without_ffmpeg_and_data_that_are_no_images_are_one_sentence(
    samples: Path, here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = here("interpolate", "run_dir=r", "format=mp4")
    assert (code, err) == (2, "format=mp4: needs ffmpeg, which is not on the PATH; use format=gif.\n")
    assert here("train.steps=2", "train.sample_every=0", "run_dir=v")[0] == 0
    code, _, err = here("interpolate", "run_dir=v")
    assert code == 2
    assert err.startswith("run_dir=v: its samples have shape (1,) and are no images")
