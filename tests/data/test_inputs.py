"""Files of the user's in the form of a run: images, arrays and tables, and why some are skipped."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganrun.data.dataset import DataSpec
from ganrun.data.input_table import Columns
from ganrun.data.inputs import Inputs, Reader

GRAY = DataSpec((1, 8, 8), (-1.0, 1.0))
COLOR = DataSpec((3, 4, 6), (0.0, 1.0))
PLANE = DataSpec((2,))
LINE = DataSpec((1,))


def read(path: Path, spec: DataSpec, **settings: object) -> Inputs:
    return Reader(spec, **settings).read(path)


def wrong(path: Path, spec: DataSpec, **settings: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, its message is compared
        read(path, spec, **settings)
    return str(caught.value)


# Images


def picture(path: Path, size: tuple[int, int] = (8, 8), mode: str = "L", color: object = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


def test_a_single_image_gets_size_channels_and_range(tmp_path: Path) -> None:
    path = picture(tmp_path / "red.png", (30, 20), "RGB", (255, 0, 0))
    found = read(path, GRAY)
    assert (found.names, found.skipped, found.x.shape) == (("red.png",), {}, (1, 1, 8, 8))
    assert found.x.unique().tolist() == pytest.approx([2 * 76 / 255 - 1])  # Pillow's gray of red
    assert read(path, COLOR).x[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_crop_and_resize(tmp_path: Path) -> None:
    image = np.zeros((8, 16), np.uint8)
    image[:, 4:12] = 255  # the central square
    Image.fromarray(image).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", GRAY).x.min() > 0.9
    assert read(tmp_path / "a.png", GRAY, crop="none").x.min() < -0.9


def test_a_folder_of_all_sorts(tmp_path: Path) -> None:
    picture(tmp_path / "b.png")
    picture(tmp_path / "in" / "a.jpg", color=0)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not one")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "table.csv").write_text("1,2\n")
    (tmp_path / ".hidden.png").write_text("not read")
    np.save(tmp_path / "c.npy", np.zeros((2, 8, 8), np.uint8))
    np.save(tmp_path / "d.npy", np.zeros(5))
    found = read(tmp_path, GRAY)
    assert found.names == ("b.png", "in/a.jpg", "c.npy[0]", "c.npy[1]")
    assert found.x.flatten(1).mean(1).tolist() == [1, -1, -1, -1]
    kind = "does not fit data of shape (1, 8, 8); use an image, .npy or .npz"
    assert found.skipped == {
        "broken.png": "cannot be read as an image",
        "notes.txt": f".txt {kind}",
        "table.csv": f".csv {kind}",
        "d.npy": "has shape (5,); images have shape (N, H, W, C), (N, C, H, W) or (N, H, W)",
    }


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 3, 4, 6)])
def test_arrays_of_color_images_in_both_orders(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(tmp_path / "x.npz", other=np.zeros(3), samples=x)
    expected = x / 255 if shape[1] == 3 else (x / 255).transpose(0, 3, 1, 2)
    assert read(tmp_path / "x.npz", COLOR).x.numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "num"), [((8, 8), 1), ((5, 8, 8), 5), ((8, 8, 1), 1), ((1, 8, 8), 1), ((3, 8, 8), 3)]
)
def test_arrays_without_channels_or_number(tmp_path: Path, shape: tuple[int, ...], num: int) -> None:
    np.save(tmp_path / "x.npy", np.full(shape, 255, np.uint8))
    found = read(tmp_path / "x.npy", GRAY)
    assert found.x.shape == (num, 1, 8, 8)
    assert found.x.unique().tolist() == pytest.approx([1.0])


def test_three_images_without_channels_are_told_from_one_with_colors(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.stack([np.full((8, 8), k, np.uint8) for k in (0, 255, 0)]))
    assert read(tmp_path / "x.npy", GRAY).x[:, 0, 0, 0].tolist() == [-1, 1, -1]
    np.save(tmp_path / "x.npy", np.zeros((3, 9, 9), np.uint8))
    assert len(read(tmp_path / "x.npy", GRAY).x) == 1


@pytest.mark.parametrize("dtype", ["longdouble", ">f4", ">f8", "float16", ">i4"])
def test_arrays_of_any_precision_and_byte_order(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "x.npy", np.array([[0.0, 1.0], [1.0, 0.0]]).astype(dtype))
    assert read(tmp_path / "x.npy", PLANE).x.tolist() == [[0, 1], [1, 0]]
    np.save(tmp_path / "y.npy", np.ones((2, 8, 8)).astype(dtype))
    assert read(tmp_path / "y.npy", GRAY, value_range=(0, 1)).x.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.png"])
def test_a_pipe_is_skipped_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    spec = GRAY if name.endswith("png") else PLANE
    np.save(tmp_path / "y.npy", np.zeros((2, *spec.shape), np.uint8))
    found = read(tmp_path, spec)
    assert (len(found.x), list(found.skipped)) == (2, [name])


def test_numbers_that_float32_cannot_hold_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n1e300,2\n1,-1e39\n")
    found = read(tmp_path / "x.csv", PLANE)
    assert found.x.tolist() == [[1, 2]]
    assert found.skipped == {"row 2": "column a: '1e300' is too large", "row 3": "column b: '-1e39' is too large"}


def test_arrays_of_another_size_are_cropped_and_resized(tmp_path: Path) -> None:
    x = np.zeros((1, 16, 32), np.uint8)
    x[:, :, 8:24] = 255
    np.save(tmp_path / "x.npy", x)
    assert read(tmp_path / "x.npy", GRAY).x.min() > 0.9
    assert read(tmp_path / "x.npy", GRAY, crop="none").x[0, 0, 0].tolist()[::7] == pytest.approx([-1, -1])


def test_floats_have_the_range_of_the_run_or_the_given_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    np.save(tmp_path / "x.npy", x)
    assert read(tmp_path / "x.npy", GRAY).x.numpy() == pytest.approx(x[None], abs=1e-6)
    assert not caplog.text
    np.save(tmp_path / "unit.npy", (x + 1) / 2)
    assert read(tmp_path / "unit.npy", GRAY, value_range=(0, 1)).x.numpy() == pytest.approx(x[None], abs=1e-6)
    read(tmp_path / "unit.npy", GRAY)
    assert "no pixel is negative, and black is -1; if it is 0 here, add value_range=[0,1]" in caplog.text
    np.save(tmp_path / "bytes.npy", 127.5 * (x + 1))
    assert wrong(tmp_path / "bytes.npy", GRAY).startswith(
        "has values from 0 to 255, outside of [-1, 1]; give the range"
    )


def test_contrast_normalized_runs(tmp_path: Path) -> None:
    x = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    np.save(tmp_path / "x.npy", x)
    spec = GRAY.normalized(55)
    assert torch.allclose(read(tmp_path / "x.npy", spec).x, spec.decode(torch.from_numpy(x)[None]), atol=1e-4)


# Vectors


def test_arrays_of_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2], [np.nan, 0], [3, 4]]))
    found = read(tmp_path / "x.npy", PLANE)
    assert found.x.tolist() == [[1, 2], [3, 4]]
    assert found.names == ("x.npy[0]", "x.npy[2]")
    assert found.skipped == {"x.npy[1]": "has a value that is not finite"}
    np.save(tmp_path / "y.npy", np.arange(3.0))
    assert read(tmp_path / "y.npy", LINE).x.tolist() == [[0], [1], [2]]
    assert wrong(tmp_path / "y.npy", PLANE) == "has shape (3,); it must be ('n', 2), with the run's (2,)."


def test_rows_of_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("height\n70.5\nabc\n\n1e400\n-3\n\n")
    found = read(path, LINE)
    assert found.x.tolist() == [[70.5], [-3]]
    assert found.names == ("row 1", "row 5")
    assert found.skipped == {
        "row 2": "column height: 'abc' is not a finite number",
        "row 3": "column height: the value is missing",
        "row 4": "column height: '1e400' is not a finite number",
    }


def test_a_csv_file_without_header_and_with_a_short_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\ufeff1, 2\n3\n5,6\n")
    found = read(path, PLANE)
    assert found.x.tolist() == [[1, 2], [5, 6]]
    assert found.skipped == {"row 2": "column 1: the value is missing"}


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,b,a\nx,1,2\ny,3,4\n")
    assert read(tmp_path / "x.csv", PLANE, columns=["a", "b"]).x.tolist() == [[2, 1], [4, 3]]
    assert wrong(tmp_path / "x.csv", PLANE, columns=["c"]) == "has no column c; its columns are id, b, a."
    assert wrong(tmp_path / "x.csv", PLANE) == (
        "has 3 columns (id, b, a), and the run's data 2; choose them with columns=[NAME,...]."
    )


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    columns = {"a": [1.0, None, 3.0], "b": [1, 2, 3]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet", PLANE)
    assert found.x.tolist() == [[1, 1], [3, 3]]
    assert found.skipped == {"row 2": "column a: the value is missing"}
    (tmp_path / "y.parquet").write_bytes(b"PAR1 not one PAR1")
    assert wrong(tmp_path / "y.parquet", PLANE).startswith("cannot be read as Parquet (")


class Doubled:
    """A form of one column of numbers and one of two categories."""

    names, texts = ("n", "answer"), ("answer",)

    def encode(self, frame: Columns) -> tuple[Tensor, dict[int, str]]:
        index = {"no": 0.0, "yes": 1.0}
        known = [i for i, answer in enumerate(frame["answer"]) if answer in index]
        rows = [[2 * float(frame["n"][i]), index[frame["answer"][i]]] for i in known]
        return torch.tensor(rows), {i: "unknown answer" for i in range(len(frame["n"])) if i not in known}


def test_a_form_encodes_the_columns_of_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "x.csv").write_text("n,answer,more\n1,yes,\n2,maybe,\n3,no,7\n")
    found = read(tmp_path / "x.csv", PLANE, form=Doubled())
    assert found.x.tolist() == [[2, 1], [6, 0]]
    assert (found.names, found.skipped) == (("row 1", "row 3"), {"row 2": "unknown answer"})


def test_tables_in_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("1\n2\n")
    assert read(tmp_path, LINE).names == ("a.csv row 1", "a.csv row 2", "b.csv row 1", "b.csv row 2")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"not an array", "cannot be read as .npy ("),
        ("x.npz", b"PK not a zip", "cannot be read as .npz ("),
        ("x.csv", b"", "is an empty table."),
        ("x.csv", b"\xff\xfe\xff", "cannot be read as .csv ("),
        ("x.csv", b"a,a\n1,2\n", "has two columns of the same name."),
        ("x.csv", b"a,b\n", "none of its examples can be used, as it: is empty."),
        ("x.png", b"", ".png does not fit data of shape (2,); use .csv, .parquet, .npy or .npz."),
        ("x", b"", "a file without suffix does not fit"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert wrong(tmp_path / name, PLANE).startswith(message)


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "cannot be read as .npy" in wrong(tmp_path / "x.npy", PLANE)
    np.save(tmp_path / "y.npy", np.array(["a"]))
    assert wrong(tmp_path / "y.npy", PLANE).startswith("is an array of type <U1")


def test_missing_and_empty_paths(tmp_path: Path) -> None:
    assert wrong(tmp_path / "none", GRAY) == "no such file or folder."
    (tmp_path / "empty").mkdir()
    assert wrong(tmp_path / "empty", GRAY) == "is an empty folder."
    (tmp_path / "bad.png").write_bytes(b"x")
    assert wrong(tmp_path / "bad.png", GRAY) == (
        "none of its examples can be used, as bad.png: cannot be read as an image."
    )
