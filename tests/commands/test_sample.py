"""`ganrun sample`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import train_in
from PIL import Image

from ganrun.metric.distribution import Distribution

DIGITS = ["data=digits", "train.threads=1", "train.steps=6", "train.ema=0.5", "train.checkpoint_every=3",
          "train.sample_every=0"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_in(folder, [*DIGITS, "run_dir=r"])
    return folder / "r"


@pytest.fixture
def digits_run(trained: Path, tmp_path: Path) -> Path:
    """The sample folder of a run on digits, copied for one test."""
    return shutil.copytree(trained, tmp_path / "r") / "samples"


def test_images_are_saved_as_npz_with_a_grid(digits_run: Path, here) -> None:
    assert here("sample", "run_dir=r", "num=10")[0] == 0
    samples = np.load(digits_run / "sample_step_00000006_seed_0.npz")["samples"]
    assert (samples.shape, samples.dtype) == ((10, 8, 8, 1), np.uint8)
    assert samples.std() > 1
    with Image.open(digits_run / "sample_step_00000006_seed_0_grid.png") as grid:
        assert grid.size == (4 * 10 + 2, 3 * 10 + 2)


def test_png_files_contain_the_same_images(digits_run: Path, here, tmp_path: Path) -> None:
    for form in ("npz", "png"):
        assert here("sample", "run_dir=r", "num=5", f"format={form}", "out=elsewhere")[0] == 0
    samples = np.load(tmp_path / "elsewhere" / "sample_step_00000006_seed_0.npz")["samples"]
    files = sorted((tmp_path / "elsewhere" / "sample_step_00000006_seed_0").iterdir())
    for path, sample in zip(files, samples, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), sample[..., 0])


def test_samples_depend_only_on_seed_checkpoint_and_ema(digits_run: Path, here, tmp_path: Path) -> None:
    def draw(name: str, *settings: str) -> np.ndarray:
        assert here("sample", "run_dir=r", "num=8", f"out={name}", *settings)[0] == 0
        return np.load(next((tmp_path / name).glob("*.npz")))["samples"]

    first = draw("a")
    assert np.array_equal(first, draw("b"))
    for i, setting in enumerate(["seed=1", "checkpoint=3", "ema=false"]):
        assert not np.array_equal(first, draw(f"other{i}", setting))


def test_vectors_have_the_units_of_the_data(here, tmp_path: Path) -> None:
    assert here("train.steps=4", "train.sample_every=0", "run_dir=r")[0] == 0
    assert here("sample", "run_dir=r", "num=500")[0] == 0
    samples = np.load(tmp_path / "r" / "samples" / "sample_step_00000004_seed_0.npz")["samples"]
    assert (samples.shape, samples.dtype) == ((500, 1), np.float32)
    assert 60 < samples.mean() < 80
    code, _, err = here("sample", "run_dir=r", "format=png")
    assert code == 2
    assert "use format=npz" in err


CANNOT_WORK = [
    ("num=0", "num=0: must be at least 1"),
    ("num=x", "num=x: must be a whole number"),
    ("checkpoint=77", "saved steps: 3, 6"),
    ("format=gif", "must be one of npz, png"),
]


@pytest.mark.parametrize(("setting", "message"), CANNOT_WORK)
def test_invalid_setting_is_reported(setting: str, message: str, digits_run: Path, here) -> None:
    code, _, err = here("sample", "run_dir=r", setting)
    assert code == 2
    assert message in err


def test_kolmogorov_smirnov_of_shifted_normals() -> None:
    """sup |F(x - d) - F(x)| = 2 Phi(d / 2) - 1, at x = d / 2."""
    from ganrun.data.toy import gaussian

    data = gaussian(mean=0, std=1, num=10)
    quantiles = torch.special.ndtri((torch.arange(20000, dtype=torch.float64) + 0.5) / 20000)[:, None]
    exact = Distribution(num=20000)(quantiles, data)
    assert exact["ks_20k"] == pytest.approx(0.5 / 20000, abs=1e-6)
    shifted = Distribution(num=20000)(quantiles + 0.5, data)
    assert shifted["ks_20k"] == pytest.approx(2 * torch.special.ndtr(torch.tensor(0.25)).item() - 1, abs=1e-4)
    assert shifted["mean_20k"] == pytest.approx(0.5, abs=1e-6)
