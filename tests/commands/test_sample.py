"""`ganrun sample`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import train_in
from PIL import Image

from ganrun import console
from ganrun.metric.distribution import Distribution

DIGITS = ["data=digits", "train.threads=1", "train.steps=6", "train.ema=0.5", "train.checkpoint_every=3",
          "train.sample_every=0"]  # fmt: skip
NARROW = ["arch.generator.width=8", "arch.discriminator.width=8"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_in(folder, [*DIGITS, "run_dir=r"])
    return folder / "r"


@pytest.fixture
def digits_run(trained: Path, tmp_path: Path) -> Path:
    """The sample folder of a run on digits, copied for one test."""
    return shutil.copytree(trained, tmp_path / "r") / "samples"


@pytest.mark.slow
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


@pytest.mark.slow
def test_samples_depend_only_on_seed_checkpoint_and_ema(digits_run: Path, here, tmp_path: Path) -> None:
    def draw(name: str, *settings: str) -> np.ndarray:
        assert here("sample", "run_dir=r", "num=8", f"out={name}", *settings)[0] == 0
        return np.load(next((tmp_path / name).glob("*.npz")))["samples"]

    first = draw("a")
    assert np.array_equal(first, draw("b"))
    for i, setting in enumerate(["seed=1", "checkpoint=3", "ema=false"]):
        assert not np.array_equal(first, draw(f"other{i}", setting))


@pytest.mark.slow
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
    ("format=gif", "must be one of npz, npy, csv, png, grid or null"),
]


@pytest.mark.slow
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


# ---- streams


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


@pytest.mark.slow
def test_all_formats_have_the_same_samples_and_labels(here, tmp_path: Path) -> None:
    assert here(*DIGITS, *NARROW, "condition=concat", "run_dir=r")[0] == 0
    for form in ("npz", "npy", "png", "grid"):
        code, out, _ = here("sample", "run_dir=r", "num=70", "labels=[3,8,1]", f"format={form}", f"out={form}")
        assert code == 0
        assert out.count("\n") == 1 + (form != "grid")
    stem = "sample_step_00000006_seed_0_labels_3_8_1"
    found = arrays_of(tmp_path / "npz" / f"{stem}.npz")
    assert found["samples"].shape == (70, 8, 8, 1)
    assert found["labels"].tolist() == ([3, 8, 1] * 24)[:70]
    assert np.array_equal(np.load(tmp_path / "npy" / f"{stem}.npy"), found["samples"])
    assert np.array_equal(np.load(tmp_path / "npy" / f"{stem}_labels.npy"), found["labels"])
    files = sorted((tmp_path / "png" / stem).glob("*/*.png"), key=lambda path: path.name)
    assert [path.parent.name for path in files] == [str(k) for k in found["labels"]]
    for path, sample in zip(files, found["samples"], strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), sample[..., 0])
    assert [path.name for path in (tmp_path / "grid").iterdir()] == [f"{stem}_grid.png"]
    with Image.open(tmp_path / "grid" / f"{stem}_grid.png") as image:
        assert image.size == (23 * 10 + 2, 3 * 10 + 2)  # 23 of each class, and one row for each
        pixels = np.asarray(image)[..., 0]
    for row, column, k in ((0, 0, 0), (1, 0, 1), (2, 22, 68)):
        corner = pixels[2 + 10 * row :, 2 + 10 * column :][:8, :8]
        assert np.array_equal(corner, found["samples"][k, ..., 0])


def test_first_samples_of_a_file_are_the_same_for_any_number(digits_run: Path, here, tmp_path: Path) -> None:
    for num in (5, 64, 150):
        assert here("sample", "run_dir=r", f"num={num}", "format=npy", f"out={num}")[0] == 0
    few, block, many = (np.load(next((tmp_path / str(num)).glob("*.npy"))) for num in (5, 64, 150))
    assert np.array_equal(few, many[:5])
    assert np.array_equal(block, many[:64])
    grids = [next((tmp_path / str(num)).glob("*_grid.png")).read_bytes() for num in (64, 150)]
    assert grids[0] == grids[1]


@pytest.mark.slow
def test_truncated_samples_have_their_own_file(digits_run: Path, here) -> None:
    assert here("sample", "run_dir=r", "num=8")[0] == 0
    assert here("sample", "run_dir=r", "num=8", "truncation=0.5")[0] == 0
    free, bounded = (
        arrays_of(digits_run / f"sample_step_00000006_seed_0{end}.npz")["samples"] for end in ("", "_truncation_0.5")
    )
    assert not np.array_equal(free, bounded)
    for setting, message in (("truncation=0", "must be greater than 0"), ("truncation=x", "must be a number or null")):
        code, _, err = here("sample", "run_dir=r", setting)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert here("sample", "run_dir=r", "num=10", "format=grid", "out=all")[0] == 0
    with Image.open(next(Path("all").iterdir())) as image:
        assert image.size == (4 * 10 + 2, 3 * 10 + 2)
    code, _, err = here("sample", "run_dir=r", "num=10001", "format=grid")
    assert code == 2
    assert "one picture has at most 10,000 samples" in err


def test_progress_is_printed_in_lines_without_a_terminal(
    digits_run: Path, here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0)
    code, out, err = here("sample", "run_dir=r", "num=150")
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if " done" in line]
    assert [line.partition(",")[0] for line in lines] == [f"samples: {n} of 150 done" for n in (64, 128, 150)]
    assert ", ETA 0:00:0" in lines[0]
    assert "ETA" not in lines[2]


MEMORY = """
import resource, sys
from ganrun.cli.main import main
code = main(["sample", "run_dir=r", "device=cpu", f"out={sys.argv[1]}", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("form", "more"), [("npz", 20_000), ("png", 5_000)])
def test_more_samples_take_no_more_memory(form: str, more: int, digits_run: Path, tmp_path: Path) -> None:
    """20,000 samples of 8x8 are 5 MB of float32, and 1,000 are .3 MB; the peak memory may differ by 2 MiB."""

    def peak(num: int) -> int:
        line = [sys.executable, "-c", MEMORY, f"num={num}", f"format={form}"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path, env=env)
        found, code = done.stdout.split()[-2:]
        assert code == "0"
        return int(found)

    assert peak(more) < peak(1_000) + 2


def test_samples_of_other_settings_have_other_names(here, tmp_path: Path) -> None:
    """So that none of them replaces the others."""
    assert here(*DIGITS, *NARROW, "condition=concat", "train.ema=0.9", "run_dir=r")[0] == 0
    for line in ([], ["labels=[3]"], ["labels=[5]"], ["ema=false"], ["ema=false", "labels=5"]):
        assert here("sample", "run_dir=r", "num=2", "out=s", *line)[0] == 0
    ends = ("", "_labels_3", "_labels_5", "_labels_5_raw", "_raw")
    found = sorted(path.stem for path in (tmp_path / "s").glob("*.npz"))
    assert found == [f"sample_step_00000006_seed_0{end}" for end in ends]
