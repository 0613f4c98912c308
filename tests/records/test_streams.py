"""Files of arrays that are written part by part."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ganrun.records.streams import Stream, check_space, save_folder, save_npy, save_npz

X = np.arange(7 * 3 * 2, dtype=np.float32).reshape(7, 3, 2)


def parts(array: np.ndarray, alive: list[int] | None = None) -> Iterator[np.ndarray]:
    """Rows of the array, two at a time; not contiguous, as images are after a permutation."""
    for start in range(0, len(array), 2):
        yield np.asfortranarray(array[start : start + 2])
        if alive is not None:
            alive.append(start)


@pytest.mark.parametrize("array", [X, X.astype(np.uint8), np.arange(5)], ids=["float32", "uint8", "int64"])
def test_streamed_files_are_read_by_numpy(array: np.ndarray, tmp_path: Path) -> None:
    def stream() -> Stream:
        return Stream(array.shape, array.dtype.name, parts(array))

    save_npy(tmp_path / "a.npy", stream())
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert (read.dtype, read.tolist()) == (array.dtype, array.tolist())
    for compressed in (False, True):
        save_npz(
            tmp_path / "a.npz", {"x": stream(), "y": Stream((2,), "int64", [np.array([4]), np.array([5])])}, compressed
        )
        with np.load(tmp_path / "a.npz") as found:
            assert np.array_equal(found["x"], array)
            assert found["y"].tolist() == [4, 5]
    assert stream().nbytes == array.nbytes


def test_a_part_is_written_before_the_next_one_is_made(tmp_path: Path) -> None:
    """Common bug: np.savez of a list that holds all parts."""
    sizes: list[int] = []

    def growing() -> Iterator[np.ndarray]:
        for _ in range(4):
            (unfinished,) = tmp_path.iterdir()
            sizes.append(unfinished.stat().st_size)
            yield np.zeros((1 << 16,), np.uint8)

    save_npy(tmp_path / "a.npy", Stream((4 << 16,), "uint8", growing()))
    assert np.diff(sizes).min() > 1 << 15


def test_file_is_left_as_it_was_if_the_samples_fail(tmp_path: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield X[:2]
        raise KeyboardInterrupt

    before = Stream(X.shape, "float32", [X])
    for name, save in (
        ("a.npy", lambda path, x: save_npy(path, x)),
        ("a.npz", lambda path, x: save_npz(path, {"x": x}, True)),
    ):
        save(tmp_path / name, before)
        content = (tmp_path / name).read_bytes()
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / name, Stream(X.shape, "float32", failing()))
        assert (tmp_path / name).read_bytes() == content
    with pytest.raises(KeyboardInterrupt):
        save_folder(tmp_path / "f", ((str(i), x.tobytes()) for i, x in enumerate(failing())))
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "a.npz"}


def test_space_on_the_disk_is_checked(tmp_path: Path) -> None:
    check_space(tmp_path, 3, 1000)
    with pytest.raises(
        ValueError, match=r"num=3: these samples take 10,000,000 GB, but the disk of .* [GM]B free; draw fewer"
    ):
        check_space(tmp_path, 3, 10**16)
