"""Face data: all file formats of a data set give the same examples, and errors in files are explained."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from helpers import run_of, write_fer2013, write_idx, write_olivetti, write_tfd
from PIL import Image

from ganrun.data.dataset import Dataset, Split
from ganrun.data.faces import EXPRESSIONS, fer2013
from ganrun.data.olivetti import olivetti
from ganrun.data.tfd import tfd

HEADS = {"fer2013.csv": "emotion,pixels,Usage", "icml_face_data.csv": "emotion, Usage, pixels"}


def write_csv(path: Path, data: Dataset) -> None:
    """Write the splits of `data` as one of the two files of Kaggle, selected by its name."""
    lines = [HEADS[path.name]]
    for usage, split in (("Training", data.train), ("PublicTest", data.valid), ("PrivateTest", data.test)):
        for x, y in zip(split.x, split.y, strict=True):
            pixels = " ".join(map(str, x.flatten().tolist()))
            lines.append(f"{y},{usage},{pixels}" if path.name == "icml_face_data.csv" else f"{y},{pixels},{usage}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def splits(data: Dataset) -> list[Split]:
    return [data.train, data.valid, data.test]


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.spec == other.spec
    for a, b in zip(splits(one), splits(other), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_fer2013_keeps_the_order_of_its_files(tmp_path: Path) -> None:
    write_fer2013(tmp_path, train=14, held_out=7)
    data = fer2013(str(tmp_path), verify=False)
    stored = (tmp_path / "FER2013Idx" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert [tuple(s.x.shape) for s in splits(data)] == [(14, 1, 48, 48), (7, 1, 48, 48), (7, 1, 48, 48)]
    assert data.valid.x.numpy().tobytes() + data.test.x.numpy().tobytes() == stored
    assert data.train.y.tolist() == [*range(7), *range(7)]
    assert data.spec.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.mark.parametrize("folder", ["", "fer2013"])
@pytest.mark.parametrize("name", HEADS)
def test_all_formats_of_fer2013_give_the_same_data(name: str, folder: str, tmp_path: Path) -> None:
    write_fer2013(tmp_path / "idx")
    expected = fer2013(str(tmp_path / "idx"), verify=False)
    write_csv(tmp_path / "csv" / folder / name, expected)
    assert_same(fer2013(str(tmp_path / "csv"), verify=False), expected)


ROW = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not name emotion, pixels and Usage"),
        ("emotion,pixels\n", "does not name emotion, pixels and Usage"),
        ("emotion,pixels,Usage\n", "no Training rows"),
        (f"emotion,pixels,Usage\n0,{ROW},Training\n1,{ROW},PublicTest\n", "no PrivateTest rows"),
        (f"emotion,pixels,Usage\n0,{ROW},Training\n1,{ROW}", "line 3 is not a row"),
        (f"emotion,pixels,Usage\n0,{ROW},Trianing\n", "line 2 is not a row"),
        (f"emotion,pixels,Usage\n0,{ROW.replace('7', '256')},Training\n", "line 2 is not a row"),
        (f"emotion,pixels,Usage\n0,{ROW} 7,Training\n", "line 2 has 2305 pixels, not 2304"),
        (
            f"emotion,pixels,Usage\n7,{ROW},Training\n0,{ROW},PublicTest\n0,{ROW},PrivateTest\n",
            "labels are not all in 0..6",
        ),
    ],
)
def test_errors_in_a_csv_file_are_explained(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"^data.root=.*: FER2013 there cannot be read \(.*{message}.*\); remove it"):
        fer2013(str(tmp_path), verify=False)
    with pytest.raises(ValueError, match="md5 differs"):
        fer2013(str(tmp_path))


def test_errors_in_idx_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no FER2013 there.*kaggle.com.*put fer2013.csv"):
        fer2013(str(tmp_path))
    write_fer2013(tmp_path)
    raw = tmp_path / "FER2013Idx" / "raw"
    with pytest.raises(ValueError, match="md5 differs"):
        fer2013(str(tmp_path))
    (raw / "train-images-idx3-ubyte").replace(raw / "images")
    with pytest.raises(ValueError, match=r"incomplete \(.*train-images-idx3-ubyte is missing\)"):
        fer2013(str(tmp_path), verify=False)
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "images").read_bytes()[:5000])
    with pytest.raises(ValueError, match="cannot be read"):
        fer2013(str(tmp_path), verify=False)
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "t10k-images-idx3-ubyte").read_bytes())
    (raw / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x03abc")
    with pytest.raises(ValueError, match="14 images, but 3 labels"):
        fer2013(str(tmp_path), verify=False)


def test_idx_files_of_another_size_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "FER2013Idx" / "raw"
    raw.mkdir(parents=True)
    write_idx(raw, {"train": 7, "t10k": 14}, side=28, num_classes=7)
    with pytest.raises(ValueError, match="its images are 28 x 28, not 48 x 48"):
        fer2013(str(tmp_path), verify=False)


# ---- folds


def contents(split: Split) -> list[bytes]:
    return [x.numpy().tobytes() for x in split.x]


def assert_folds(load: Callable[[int], Dataset], sizes: list[int]) -> None:
    """Check five splits: each has every example once, and every example is in the test data of one."""
    tested: list[bytes] = []
    for fold in range(5):
        data = load(fold)
        found = [contents(split) for split in splits(data)]
        assert [len(split) for split in found] == sizes
        assert not set(found[0]) & set(found[1])
        assert not set(found[0]) & set(found[2])
        assert not set(found[1]) & set(found[2])
        tested += found[2]
        assert data.spec.mean == pytest.approx(data.spec.decode(data.train.x).mean().item(), abs=1e-5)
    assert sorted(tested) == sorted(found[0] + found[1] + found[2])
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match=f"data.fold={wrong}: must be 0, 1, 2, 3 or 4"):
            load(wrong)


def test_folds_of_fer2013(tmp_path: Path) -> None:
    write_fer2013(tmp_path, train=60, held_out=20)
    assert_folds(lambda fold: fer2013(str(tmp_path), verify=False, fold=fold), [70, 10, 20])


def test_folds_of_fer2013_depend_on_content_and_not_on_order(tmp_path: Path) -> None:
    write_fer2013(tmp_path, train=60, held_out=20)
    data = fer2013(str(tmp_path), verify=False)
    last = torch.arange(59, -1, -1)
    write_csv(tmp_path / "csv" / "fer2013.csv", Dataset(data.spec, data.train[last], data.test, data.valid))
    tested = [fer2013(str(root), verify=False, fold=0).test for root in (tmp_path, tmp_path / "csv")]
    assert set(contents(tested[0])) == set(contents(tested[1]))
    assert contents(tested[0]) != contents(data.train[:20])


def test_folds_of_fer2013_keep_labels_and_copies_together(tmp_path: Path) -> None:
    """With images whose first pixel is their label, each five times."""
    write_fer2013(tmp_path, train=60, held_out=20)
    for name in ("train", "t10k"):
        path = tmp_path / "FER2013Idx" / "raw" / f"{name}-images-idx3-ubyte"
        head, images = path.read_bytes()[:16], np.frombuffer(path.read_bytes()[16:], np.uint8).copy().reshape(-1, 2304)
        images[:] = (np.arange(len(images)) % 7)[:, None]  # like the labels
        images[:, 1] = np.arange(len(images)) % 4
        path.write_bytes(head + images.tobytes())
    data = fer2013(str(tmp_path), verify=False, fold=2)
    found = [set(contents(split)) for split in splits(data)]
    assert sum(map(len, found)) == len(set.union(*found)) == 28
    for split in splits(data):
        assert torch.equal(split.x[:, 0, 0, 0].long(), split.y)


# ---- Olivetti


def people(split: Split) -> list[int]:
    return (split.x[:, 0, 20, 20] // 6).tolist()


def write_people(root: Path) -> None:
    """Faces of constant gray, 6 times the number of the person plus 3, except for the smallest and largest value."""
    write_olivetti(root)
    faces = np.repeat(np.arange(40) * 6 + 3, 10).astype(np.uint8)[:, None].repeat(4096, 1)
    faces[0, :2] = 0, 242
    joblib.dump(faces, root / "olivetti" / "olivetti_py3.pkz")


@pytest.mark.slow
def test_folds_of_olivetti(tmp_path: Path) -> None:
    write_olivetti(tmp_path)
    for held_out in ("people", "images"):
        assert_folds(lambda fold, h=held_out: olivetti(str(tmp_path), False, False, h, fold), [280, 40, 80])


def test_images_of_held_out_people_are_not_in_the_training_data(tmp_path: Path) -> None:
    write_people(tmp_path)
    for fold in range(5):
        data = olivetti(str(tmp_path), download=False, verify=False, fold=fold)
        found = [set(people(split)) for split in splits(data)]
        assert [len(s) for s in found] == [28, 4, 8]
        assert set.union(*found) == set(range(40))
        assert data.train.y is None
        assert data.spec.classes == ()


def test_people_are_classes_if_images_are_held_out(tmp_path: Path) -> None:
    write_people(tmp_path)
    data = olivetti(str(tmp_path), download=False, verify=False, held_out="images", fold=3)
    assert data.spec.num_classes == 40
    for split, each in zip(splits(data), (7, 1, 2), strict=True):
        assert split.y.bincount().tolist() == [each] * 40
        assert split.y.tolist() == people(split)


def test_olivetti_is_read_upright_from_both_folders_of_scikit_learn(tmp_path: Path) -> None:
    write_olivetti(tmp_path)
    faces = np.zeros((400, 64, 64), np.uint8)
    faces[:, :16] = 242  # in MATLAB's order the first axis is horizontal
    for folder in ("a", "b/olivetti"):
        (tmp_path / folder).mkdir(parents=True)
        joblib.dump(faces.reshape(400, 4096), tmp_path / folder / "olivetti_py3.pkz")
    for root in ("a", "b"):
        x = olivetti(str(tmp_path / root), download=False, verify=False).train.x[:, 0]
        assert x.shape[1:] == (48, 48)
        assert (x[:, :, :10] == 242).all()
        assert (x[:, :, 14:] == 0).all()


def test_errors_in_olivetti_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data.root=.*: no Olivetti faces there .* Run once with data.download=true"):
        olivetti(str(tmp_path), download=False)
    assert not any(tmp_path.iterdir())
    write_olivetti(tmp_path)
    with pytest.raises(ValueError, match="the md5 of their pixels differs"):
        olivetti(str(tmp_path))
    path = tmp_path / "olivetti" / "olivetti_py3.pkz"
    whole = path.read_bytes()
    for damaged in (b"", b"no pickle", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^data.root=.*olivetti_py3.pkz cannot be read \(.+\); remove it"):
            olivetti(str(tmp_path), verify=False)
    joblib.dump(np.zeros((300, 4096), np.uint8), path)
    with pytest.raises(ValueError, match=r"cannot be read"):
        olivetti(str(tmp_path), verify=False)


def test_failed_download_of_olivetti_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets._olivetti_faces._fetch_remote", fail)
    with pytest.raises(ValueError, match=r"the download failed \(no route to host\)"):
        olivetti(str(tmp_path))


# ---- TFD


@pytest.mark.parametrize("fold", range(5))
def test_tfd_trains_on_unlabeled_images_or_on_those_of_the_fold(fold: int, tmp_path: Path) -> None:
    fields = write_tfd(tmp_path)
    stored = [image.tobytes() for image in fields["images"]]
    expected = {
        name: [image for image, part in zip(stored, fields["folds"][:, fold], strict=True) if part == number]
        for number, name in enumerate(("unlabeled", "train", "valid", "test"))
    }
    assert [len(images) for images in expected.values()] == [30, 35, 5, 10]
    free, labeled = tfd(str(tmp_path), fold), tfd(str(tmp_path), fold, train="labeled")
    assert contents(free.train) == expected["unlabeled"]
    assert contents(labeled.train) == expected["train"]
    for data in (free, labeled):
        assert contents(data.valid) == expected["valid"]
        assert contents(data.test) == expected["test"]
        assert data.train.x.is_contiguous()
    assert (free.spec.classes, free.train.y, free.valid.y) == ((), None, None)
    assert labeled.spec.classes == EXPRESSIONS
    assert labeled.test.y.tolist() == (fields["labs_ex"][fields["folds"][:, fold] == 3, 0] - 1).tolist()


def test_tfd_can_be_in_its_own_subfolder(tmp_path: Path) -> None:
    write_tfd(tmp_path / "TFD")
    assert len(tfd(str(tmp_path)).train) == 30


FOLDS_OF = np.zeros((80, 5), np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "has no field images"),
        ({"folds": None}, "has no field folds"),
        ({"labs_ex": None}, "has no field labs_ex"),
        ({"images": np.zeros((80, 96, 96), np.uint8)}, "holds images 80 x 96 x 96, not N x 48 x 48"),
        ({"images": np.zeros((80, 2304), np.uint8)}, "holds images 80 x 2304, not N x 48 x 48"),
        ({"images": np.zeros((80, 48, 48))}, "holds images of float64, not uint8; in MATLAB"),
        ({"folds": np.zeros((80, 4))}, "holds folds 80 x 4, not 80 x 5"),
        ({"folds": np.zeros((79, 5))}, "holds folds 79 x 5, not 80 x 5"),
        ({"folds": np.zeros((80, 5))}, "has no 1 in column 0 of folds"),
        ({"labs_ex": np.zeros((79, 1))}, "holds labs_ex 79 x 1, not 80 x 1"),
        ({"labs_ex": np.zeros((80, 1))}, "a labeled image whose labs_ex is not in 1..7"),
    ],
)
def test_errors_in_tfd_files_are_explained(changes: dict, message: str, tmp_path: Path) -> None:
    write_tfd(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"^data.root=.*: TFD_48x48.mat there .*{message}") as caught:
        tfd(str(tmp_path), train="labeled")
    assert str(caught.value).count("\n") == 0


def test_file_that_is_not_tfd_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no TFD there .* not public; .* data=fer2013, data=olivetti or data=faces"):
        tfd(str(tmp_path))
    with pytest.raises(ValueError, match=r"data.fold=5: must be 0, 1, 2, 3 or 4\."):
        tfd(str(tmp_path), fold=5)
    write_tfd(tmp_path)
    path = tmp_path / "TFD_48x48.mat"
    whole = path.read_bytes()
    for damaged in (b"", b"no MATLAB file" * 99, whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"TFD_48x48.mat there (cannot be read \(.+\)|has no field images); use"):
            tfd(str(tmp_path))
    hdf5 = b"\x89HDF\r\n\x1a\n" + bytes(500)
    for newer in (hdf5, b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + hdf5):
        path.write_bytes(newer)
        with pytest.raises(ValueError, match=r"is in MATLAB's version 7.3 \(HDF5\); save it with MATLAB's option -v7"):
            tfd(str(tmp_path))


# ---- other faces


def test_folder_of_faces_is_converted_to_the_format_of_tfd(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    wide = np.zeros((60, 100, 3), np.uint8)
    wide[:, 20:80] = 0, 255, 0  # the central square
    Image.fromarray(wide).save(tmp_path / "d" / "wide.png")
    x = run_of("data=faces", f"data.root={tmp_path / 'd'}", "data.valid=0", "data.test=0", "arch=mlp").dataset.train.x
    assert x.shape == (1, 1, 48, 48)
    assert ((x.float() - 150).abs() < 6).all()  # the luma of green, 0.587 * 255; the filter blurs the edge slightly


# ---- real data


def test_real_fer2013(shared_data: Path) -> None:
    data = fer2013(str(shared_data))
    assert [len(s) for s in splits(data)] == [28709, 3589, 3589]
    counts = [s.y.bincount().tolist() for s in splits(data)]
    assert dict(zip(EXPRESSIONS, counts[0], strict=True)) == {
        "angry": 3995, "disgust": 436, "fear": 4097, "happy": 7215, "sad": 4830, "surprise": 3171, "neutral": 4965,
    }  # fmt: skip
    assert counts[1:] == [[467, 56, 496, 895, 653, 415, 607], [491, 55, 528, 879, 594, 416, 626]]
    assert data.train.x[0, 0, 0, :5].tolist() == [70, 80, 82, 72, 58]
    assert data.train.x.double().mean().item() == pytest.approx(129.474, abs=1e-3)
    assert hashlib.md5(data.train.x.numpy().tobytes()).hexdigest() == "9113dfd7d2f920e1a887927d30ed610e"


def test_real_folds_of_fer2013(shared_data: Path) -> None:
    data = fer2013(str(shared_data), fold=1)
    assert [len(s) for s in splits(data)] == [25142, 3580, 7165]
    train, valid, test = (set(contents(s)) for s in splits(data))
    assert (len(train & test), len(train & valid), len(valid & test)) == (0, 0, 0)
    assert len(train | valid | test) == 34034


def test_real_olivetti(shared_data: Path) -> None:
    data = olivetti(str(shared_data), download=False)
    assert [len(s) for s in splits(data)] == [280, 40, 80]
    every = np.concatenate([s.x.numpy() for s in splits(data)])
    assert every.mean() == pytest.approx(132.384, abs=0.05)  # the mean of the originals, which the filter keeps
    assert data.test.x[0, 0, 24, 20:25].tolist() == pytest.approx([163, 165, 165, 174, 181], abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_real_csv_files_of_fer2013(name: str, shared_data: Path, tmp_path: Path) -> None:
    """CSV files written from the idx files have the published MD5 checksums and give the same data."""
    data = fer2013(str(shared_data))
    write_csv(tmp_path / "fer2013" / name, data)
    assert_same(fer2013(str(tmp_path)), data)
    (tmp_path / "fer2013" / name).unlink()  # 301 MB
