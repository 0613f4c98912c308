"""Outputs are written whole or not at all, and an error names the file."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import full_disk, run_of, train_in
from matplotlib.figure import Figure

from ganrun.figures.album import save_still
from ganrun.figures.animation import save_gif
from ganrun.figures.grid import encoded_png, save_png
from ganrun.records import frames
from ganrun.records.checkpoint import write_atomically
from ganrun.records.dashboard import Dashboard
from ganrun.records.run_dir import RunDir
from ganrun.records.streams import Stream, save_folder, save_npy, save_npz
from ganrun.training.capture import capture

NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
PNG = encoded_png(NOISE)


def stream() -> Stream:
    """NOISE, in parts of 7 rows."""
    return Stream(NOISE.shape, "uint8", np.split(NOISE, range(7, 40, 7)))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.npz": lambda path: save_npz(path, {"samples": stream(), "again": stream()}, compressed=False),
    "b.npz": lambda path: save_npz(path, {"samples": stream()}, compressed=True),
    "a.npy": lambda path: save_npy(path, stream()),
    "a.png": partial(save_png, NOISE),
    "folder": lambda path: save_folder(path, iter([("0/1.png", PNG), ("2.png", PNG)])),
    "b.png": partial(save_still, Figure()),
    "a.pdf": partial(save_still, Figure()),
    "a.gif": lambda path: save_gif([NOISE, NOISE], path, 5),
}


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_output_is_whole_or_missing_and_the_error_names_it(name: str, tmp_path: Path) -> None:
    path, write = tmp_path / name, WRITERS[name]
    with full_disk(), pytest.raises(OSError, match="too large") as found:
        write(path)
    assert found.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
    write(path)
    before = content(tmp_path)
    with full_disk(), pytest.raises(OSError, match="too large"):
        write(path)
    assert content(tmp_path) == before
    write(path)  # again, as with the same command
    assert content(tmp_path).keys() == before.keys()


def test_frame_is_whole_or_missing_and_the_error_names_it(tmp_path: Path) -> None:
    frame = capture(run_of("train.ema=0"), 2)
    with full_disk(), pytest.raises(OSError, match="too large") as found:
        frames.save(frame, tmp_path)
    assert found.value.filename == str(frames.path_of(tmp_path, 2, 0))
    assert list((tmp_path / "frames").iterdir()) == []


def test_error_of_logging_names_the_file_and_closing_it_is_none(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run_dir, full_disk(), pytest.raises(OSError, match="too large") as found:
        run_dir.log_row({"step": 1, "loss/d": [1] * 1000})
    assert found.value.filename == str(run_dir.metrics_file)
    board = Dashboard(tmp_path)
    with full_disk(), pytest.raises(OSError, match="too large") as found:
        board.text("a", "b" * 1000, 1)
    assert found.value.filename == str(board.path)
    board.close()


def test_new_samples_replace_the_folder_of_the_old_ones(tmp_path: Path) -> None:
    save_folder(tmp_path / "s", ((f"{i}.png", PNG) for i in range(3)))
    (tmp_path / "s.0.unfinished").mkdir()  # of a process that was killed
    (tmp_path / "s.0.unfinished" / "7.png").write_bytes(b"")
    save_folder(tmp_path / "s", [("0.png", PNG)])
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "0.png"]


def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    """Two commands with the same output: both end well, and the last one counts."""

    def first() -> Iterator[tuple[str, bytes]]:
        yield "0.png", PNG
        save_folder(tmp_path / "s", [("1.png", PNG), ("2.png", PNG)])
        write_atomically(tmp_path / "a.npy", write)
        yield "3.png", PNG

    def write(path: Path) -> None:
        path.write_bytes(b"inner")

    def outer(path: Path) -> None:
        save_folder(tmp_path / "s", first())
        path.write_bytes(b"outer")

    (tmp_path / "a.npy.0.partial").write_bytes(b"")  # of a process that was killed
    write_atomically(tmp_path / "a.npy", outer)
    assert (tmp_path / "a.npy").read_bytes() == b"outer"
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["0.png", "3.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "s"]


@pytest.mark.slow
def test_full_disk_is_one_sentence_of_the_command_and_of_the_run(here, tmp_path: Path) -> None:
    short = ["train.steps=20", "train.log_every=1", "metric=none", "train.diagnose=false", "train.sample_every=0"]
    train_in(tmp_path, [*short, "run_dir=r"])
    with full_disk(3000):
        code, _, err = here("sample", "run_dir=r", "num=5000", "out=s")
        assert (code, err) == (2, "s/sample_step_00000020_seed_0.npz: File too large.\n")
        code, _, err = here("figures", "run_dir=r")
        assert (code, err) == (2, "r/figures/density_start.png: File too large.\n")
        code, _, err = here(*short, "train.frame_every=0", "data=gaussian", "run_dir=full")
        assert code == 1
        assert "Traceback" not in err
        assert "full/events.out" in err or "full/frames" in err
        assert not any("--- Logging error" in line for line in err.splitlines())
    assert list((tmp_path / "s").iterdir()) == []
