"""What is read in a folder of images: which files and sub-folders, in which formats, and how the cache is written."""

import json
import logging
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import full_disk, result_of, write_folder
from PIL import Image, TiffImagePlugin

from ganrun.data import decode
from ganrun.data.dataset import Dataset
from ganrun.data.folder import folder
from ganrun.figures.album import save_still
from ganrun.figures.animation import save_gif
from ganrun.figures.grid import encoded_png, save_png
from ganrun.figures.mpl import Figure
from ganrun.files import lock
from ganrun.records.streams import save_folder

SHORT = ["data=folder", "data.size=8", "train.steps=2", "train.diagnose=false", "train.batch_size=4"]


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("ganrun"), "propagate", True)
    caplog.set_level(logging.INFO, logger="ganrun")
    return caplog


def images_in(path: Path, **settings: object) -> Dataset:
    return folder(str(path), **{"size": 8, "valid": 0, "test": 0, **settings})  # type: ignore[arg-type]


def put(path: Path, value: int = 100) -> None:
    """Write an image of one gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(path)


@pytest.mark.slow
def test_pictures_of_runs_do_not_become_training_data(here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "photos")
    for name in ("outputs/a", "b"):
        code, out, err = here(*SHORT, "data.root=.", "data.valid=0", "data.test=0", f"run_dir={name}")
        assert (code, err) == (0, "")
        assert "on 12 examples" in out
        assert list(Path(name, "samples").glob("*.png"))
    assert "not searched, as runs or thumbnails: outputs/a\n" in out


def test_pictures_that_ganrun_has_drawn_are_not_read_next_to_others(
    tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    image = np.full((9, 9, 3), 7, np.uint8)
    save_png(image, tmp_path / "own/grid.png")
    save_folder(tmp_path / "own/samples", [("cat/000000.png", encoded_png(image))])
    save_gif([image, image], tmp_path / "own/animation.gif", fps=2)
    save_still(Figure(figsize=(1, 1)), tmp_path / "own/losses.png")
    assert len(images_in(tmp_path).train) == 4
    put(tmp_path / "cats/a.png")
    put(tmp_path / "cats/b.png", 200)
    dataset = images_in(tmp_path)
    assert (len(dataset.train), dataset.spec.classes) == (2, ("cats",))
    names = "own/animation.gif, own/grid.png, own/losses.png, own/samples/cat/000000.png"
    assert f"not read, as pictures drawn by ganrun: {names}" in messages.text


def test_folders_of_killed_processes_are_removed_from_the_cache(tmp_path: Path) -> None:
    put(tmp_path / "d/a.png")
    put(tmp_path / "d/b.png", 200)
    for name in ("partial-killed", "partial-locked", "partial-new"):
        put(tmp_path / "cache" / name / "entry/images.png")
    for name in ("partial-killed", "partial-locked"):
        os.utime(tmp_path / "cache" / name, (0, 0))
    with (tmp_path / "cache/partial-locked/.lock").open("a") as file:
        os.utime(tmp_path / "cache/partial-locked", (0, 0))
        lock(file)
        images_in(tmp_path / "d", cache=str(tmp_path / "cache"))
    assert sorted(path.name for path in (tmp_path / "cache").glob("partial-*")) == ["partial-locked", "partial-new"]


@pytest.mark.slow
def test_run_inside_its_own_data_is_resumed(here, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    job = [*SHORT, "data.root=photos", "run_dir=photos/run", "train.checkpoint_every=1", "train.keep_checkpoints=3"]
    assert here(*job)[0] == 0
    for name in ("checkpoints/step_00000002.pt", "result.json"):
        (tmp_path / "photos/run" / name).unlink()
    code, _, err = here("resume", "run_dir=photos/run")
    assert (code, err) == (0, "")
    assert result_of(tmp_path / "photos/run")["steps"] == 2


def test_run_directory_is_no_folder_of_images(tmp_path: Path) -> None:
    put(tmp_path / "run/samples/a.png")
    put(tmp_path / "run/samples/b.png", 50)
    (tmp_path / "run/config.yaml").write_text("")
    assert len(images_in(tmp_path / "run").train) == 2  # a config.yaml alone may belong to anything
    (tmp_path / "run/metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="is a run directory"):
        images_in(tmp_path / "run")


def test_folders_of_other_programs_and_hidden_files_are_not_searched(tmp_path: Path, messages) -> None:
    write_folder(tmp_path)
    for name in (".ipynb_checkpoints", "__MACOSX", ".hidden", "@eaDir", "Thumbnails", "cats/thumbs", "dogs/.cache"):
        put(tmp_path / name / "x.png")
    for name in ("._0.png", ".1.png"):
        (tmp_path / "cats" / name).write_bytes(b"\0\5\x16\7")  # as macOS writes on other disks
    data = images_in(tmp_path)
    assert len(data.train) == 12
    assert data.spec.classes == ("cats", "dogs")
    assert "not searched, as runs or thumbnails: @eaDir, Thumbnails, __MACOSX, cats/thumbs" in messages.text
    assert not [record for record in messages.records if record.levelno >= logging.WARNING]


def test_image_outside_of_the_classes_is_named(tmp_path: Path, messages) -> None:
    write_folder(tmp_path)
    put(tmp_path / "stray.png")
    for _ in range(2):  # the second time from the cache
        messages.clear()
        assert images_in(tmp_path).spec.classes == ()
        assert "sub-folders are not used as classes, because not all images are in one: stray.png;" in messages.text
    messages.clear()
    images_in(tmp_path / "cats")
    assert not messages.records


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".avif", ".jp2", ".j2k", ".apng", ".pbm", ".pnm", ".webp"])
def test_every_common_image_format_is_read(suffix: str, tmp_path: Path) -> None:
    form = {".jfif": "JPEG", ".jpe": "JPEG", ".apng": "PNG"}.get(suffix)
    for color in ("white", "black"):
        Image.new("1" if suffix == ".pbm" else "RGB", (9, 9), color).save(tmp_path / f"{color}{suffix}", form)
    assert sorted(images_in(tmp_path).train.x.float().mean((1, 2, 3)).round().tolist()) == [0, 255]


def test_files_that_are_not_images_are_counted(tmp_path: Path, messages) -> None:
    write_folder(tmp_path)
    for name in ("a.heic", "cats/b.HEIC", "notes.txt", "README"):
        (tmp_path / name).write_bytes(b"x")
    assert len(images_in(tmp_path).train) == 12
    assert "files that are not read as images: no suffix (1), .heic (2), .txt (1)" in messages.text


@pytest.mark.parametrize(
    ("values", "gray"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-0.01, 0.5, 1.02]], np.float32), [0, 128, 255]),  # a little outside, as after resampling
        (np.array([[0.0, 64.0, 255.0]], np.float32), [0, 64, 255]),
        (np.array([[0, 64, 255]], np.int32), [0, 64, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 32768, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.uint16), [0, 0, 1]),  # 16 bits have a fixed range
    ],
)
def test_tiff_is_scaled_by_the_range_of_its_values(values: np.ndarray, gray: list[int], tmp_path: Path) -> None:
    Image.fromarray(np.repeat(np.repeat(values, 8, 0), 8, 1)).save(tmp_path / "a.tiff")
    x = images_in(tmp_path, size=24, crop="none", channels=1).train.x[0, 0]
    assert x[0, [0, 12, 23]].tolist() == gray


def test_range_of_an_upright_tiff_is_recognized(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = 3  # orientation
    for value in (100, 200):
        Image.fromarray(np.full((8, 8), value, np.int32)).save(tmp_path / f"{value}.tiff", tiffinfo=tags)
    assert images_in(tmp_path, channels=1).train.x.unique().tolist() == [100, 200]


@pytest.mark.parametrize("value", [-1.0, 1000.0, float("nan")])
def test_tiff_of_unknown_range_is_skipped_with_its_range(value: float, tmp_path: Path, messages) -> None:
    write_folder(tmp_path)
    Image.fromarray(np.full((8, 8), value, np.float32)).save(tmp_path / "cats" / "odd.tiff")
    assert len(images_in(tmp_path).train) == 12
    assert f"odd.tiff: has values from {value:g} to {value:g}, not in [0, 1] or [0, 255]; skipped." in messages.text


# ---- the cache


@pytest.mark.parametrize(
    ("most", "size", "file"), [(100, 8, "digests-"), (1500, 8, "images.bin"), (100, 1, "index.json")]
)
def test_full_disk_names_the_file_and_leaves_no_part_of_it(most: int, size: int, file: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "d")
    cache = tmp_path / "cache" / "ganrun"
    if file == "index.json":
        images_in(tmp_path / "d", size=9)  # writes the digests
    before = {*cache.glob("folder-*")}
    sentence = rf"^data.cache=.*: cannot write .*{file}.* \(File too large\); free some space, or name another folder"
    with full_disk(most), pytest.raises(ValueError, match=sentence):
        images_in(tmp_path / "d", size=size)
    assert {*cache.glob("folder-*")} == before
    assert not list(cache.glob("partial-*"))
    assert bool(list(cache.glob("digests-*"))) == (file != "digests-")
    assert len(images_in(tmp_path / "d", size=size).train) == 12


def test_cache_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "d")
    events: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(number: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        sync(number)

    def renamed(self: Path, target: Path) -> Path:
        events.append(f"{self.name} renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    images_in(tmp_path / "d")
    assert events[1:] == ["images.bin", "index.json", "entry renamed"]
    assert events[0].startswith("digests-")


@pytest.mark.parametrize("text", ["5", "[]", "{}", '{"a": 1}', "", "\0\0", "[" * 100_000, None])
def test_damaged_list_of_digests_is_made_again(text: str | None, tmp_path: Path) -> None:
    write_folder(tmp_path / "d")
    images_in(tmp_path / "d")
    note = next((tmp_path / "cache" / "ganrun").glob("digests-*"))
    whole = note.read_text()
    note.write_text(json.dumps(dict.fromkeys(json.loads(whole), 5)) if text is None else text)
    assert len(images_in(tmp_path / "d").train) == 12
    assert note.read_text() == whole


@pytest.mark.parametrize("error", [RuntimeError("Failed to decode image"), NotImplementedError("DDS"), MemoryError()])
def test_one_damaged_image_is_skipped_whatever_its_reader_raises(
    tmp_path: Path, messages: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def upright(image: Image.Image) -> Image.Image:
        if "bad" in str(image.filename):  # type: ignore[attr-defined]
            raise error
        return image

    monkeypatch.setattr(decode, "_upright", upright)
    for k, name in enumerate(("a", "b", "bad")):
        put(tmp_path / f"d/{name}.png", k)
    assert len(images_in(tmp_path / "d").train) == 2
    assert f"{tmp_path}/d/bad.png: cannot be read as an image; skipped." in messages.text


def test_folders_that_cannot_be_opened_are_named_and_left_out(
    tmp_path: Path, messages: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png", 50)
    put(tmp_path / "lost+found/c.png", 70)
    is_file, scandir = Path.is_file, os.scandir

    def closed(path: object) -> None:
        if "lost+found" in str(path):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", lambda path: closed(path) or is_file(path))
    monkeypatch.setattr(os, "scandir", lambda path: closed(path) or scandir(path))
    assert len(images_in(tmp_path).train) == 2
    assert f"{tmp_path}/lost+found: cannot be searched (Permission denied)." in messages.text


def test_a_damaged_cache_is_decoded_again(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    for k in range(3):
        put(tmp_path / f"d/{k}.png", 10 + k)
    read = lambda: images_in(tmp_path / "d", cache=str(tmp_path / "cache")).train.x.clone()  # noqa: E731
    first = read()
    (path,) = (tmp_path / "cache").glob("folder-*/images.bin")
    content = bytearray(path.read_bytes())
    content[300:310] = b"U" * 10
    path.write_bytes(content)
    assert torch.equal(read(), first)
    assert f"{path.parent}: is damaged; its images are decoded again." in messages.text
    messages.clear()
    assert torch.equal(read(), first)
    assert "damaged" not in messages.text


def test_decoding_changes_no_warnings_of_others(tmp_path: Path) -> None:
    for k in range(40):
        put(tmp_path / f"{k}.png", k)
    before = list(warnings.filters)
    images_in(tmp_path)
    assert list(warnings.filters) == before


def test_images_that_fit_on_no_disk_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png", 50)
    with pytest.raises(ValueError, match=r"data.size=5000 .*size must lie between 1 and 4096"):
        images_in(tmp_path, size=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 2 * 3 * 63 * 64))
    with pytest.raises(ValueError, match=r"2 images of 64x64 pixels take 0\.0 GB in the cache, and the disk of"):
        images_in(tmp_path, size=64)
