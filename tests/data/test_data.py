"""Data sets: fixed disjoint splits, their statistics, and a batch order that depends only on seed and position."""

import json
import logging
import math
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_of, write_cifar10, write_folder, write_mnist
from PIL import Image, ImageOps

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.digits import digits
from ganrun.data.folder import folder
from ganrun.data.published import cifar10, mnist
from ganrun.data.toy import gaussian
from ganrun.latent import Data, Uniform
from ganrun.training.batches import Batches

CPU = torch.device("cpu")


def rows(split: Split) -> list[bytes]:
    return [x.numpy().tobytes() for x in split.x]


def assert_disjoint(data: Dataset) -> None:
    train, valid, test = (set(rows(split)) for split in (data.train, data.valid, data.test))
    assert not train & valid
    assert not train & test
    assert not valid & test


def test_gaussian_has_the_requested_sizes_and_is_deterministic() -> None:
    data = gaussian(mean=69, std=3, num=20000, unit="inches")
    assert [len(s) for s in (data.train, data.valid, data.test)] == [20000, 2000, 2000]
    assert abs(data.train.x.mean().item() - 69) < 4 * 3 / 20000**0.5
    assert abs(data.train.x.std().item() - 3) < 4 * 3 / 40000**0.5
    assert torch.equal(data.train.x, gaussian(mean=69, std=3, num=20000).train.x)
    assert not torch.equal(data.train.x[:2000], data.valid.x)
    assert not torch.equal(data.test.x, data.valid.x)


def test_digits_are_shuffled_with_a_fixed_seed_and_cover_every_class() -> None:
    data = digits()
    assert [len(s) for s in (data.train, data.valid, data.test)] == [1297, 250, 250]
    for split in (data.train, data.valid, data.test):
        assert set(split.y.tolist()) == set(range(10))
    assert data.spec.shape == (1, 8, 8)
    assert data.spec.classes == tuple("0123456789")
    assert data.train.x.max() == 255
    assert torch.equal(data.train.x, digits().train.x)


def test_decode_and_encode_are_inverse_and_cover_the_value_range() -> None:
    spec = DataSpec((1, 16, 16), (-1.0, 1.0))
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    decoded = spec.decode(x)
    assert (decoded.min().item(), decoded.max().item()) == pytest.approx((-1, 1))
    assert torch.equal(spec.encode(decoded), x)


def test_mean_and_std_are_those_of_the_inputs_of_d() -> None:
    data = digits()
    x = data.spec.decode(data.train.x)
    assert data.spec.mean == pytest.approx(x.mean().item(), abs=1e-5)
    assert data.spec.std == pytest.approx(x.std(correction=0).item(), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 25])
def test_every_epoch_has_each_example_once_and_every_batch_is_full(batch_size: int) -> None:
    """Common bugs: a last partial batch that has more weight, or that is dropped."""
    split = Split(torch.arange(10.0)[:, None], torch.arange(10))
    batches = Batches(split, DataSpec((1,)), batch_size, seed=0, device=CPU)
    drawn = [batches[i] for i in range(20)]
    assert {len(x) for x, _ in drawn} == {batch_size}
    stream = torch.cat([x for x, _ in drawn]).flatten().tolist()
    for start in range(0, len(stream) - 9, 10):
        assert sorted(stream[start : start + 10]) == list(range(10))
    assert stream[:10] != stream[10:20]
    for x, y in drawn:
        assert torch.equal(x.flatten(), y.float())


def test_batch_order_is_a_function_of_seed_and_position() -> None:
    split = Split(torch.arange(100.0)[:, None])
    made = [Batches(split, DataSpec((1,)), 7, seed, CPU) for seed in (0, 0, 1)]
    ahead = [made[0][i][0] for i in range(40)]
    assert torch.equal(made[1][39][0], ahead[39])
    assert torch.equal(made[1][3][0], ahead[3])
    assert not torch.equal(made[2][3][0], ahead[3])


def test_latents_of_each_kind() -> None:
    z = Uniform(dim=3, low=-2.0, high=-1.0)(1000)
    assert z.shape == (1000, 3)
    assert -2 <= z.min() < -1.9
    assert -1.1 < z.max() <= -1
    z = Data(gaussian(mean=69, std=3, num=1000))(5000)
    assert z.shape == (5000, 1)
    assert abs(z.mean().item()) < 0.1
    assert abs(z.std().item() - 1) < 0.1
    assert Data(digits())(2).shape == (2, 64)
    for low, high in ((1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="must be less than"):
            Uniform(dim=1, low=low, high=high)


def test_mnist_and_cifar10_are_read_from_their_original_formats(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = mnist(str(tmp_path), download=False, verify=False, num_valid=10)
    assert [len(s) for s in (data.train, data.valid, data.test)] == [50, 10, 20]
    assert data.spec.shape == (1, 28, 28)
    assert data.spec.classes == tuple("0123456789")
    assert_disjoint(data)
    write_cifar10(tmp_path)
    data = cifar10(str(tmp_path), download=False, verify=False, num_valid=30)
    assert [len(s) for s in (data.train, data.valid, data.test)] == [70, 30, 20]
    assert data.spec.shape == (3, 32, 32)
    assert data.train.x.is_contiguous()
    assert data.spec.classes[data.train.y[6]] == "frog"


def test_cifar10_channels_are_red_green_blue(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    batch = pickle.loads(path.read_bytes())
    batch["data"][0] = np.repeat([255, 128, 0], 1024)
    path.write_bytes(pickle.dumps(batch))
    first = cifar10(str(tmp_path), verify=False, num_valid=0).train.x[0]
    assert [first[k].unique().tolist() for k in range(3)] == [[255], [128], [0]]


@pytest.mark.parametrize(("load", "write"), [(mnist, write_mnist), (cifar10, write_cifar10)])
def test_errors_in_files_are_explained(load, write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="Run once with"):
        load(str(tmp_path), download=False)
    write(tmp_path)
    with pytest.raises(ValueError, match="add data"):
        load(str(tmp_path))
    with pytest.raises(ValueError, match="leaves nothing"):
        load(str(tmp_path), verify=False, num_valid=1000)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="cannot be read"):
        load(str(tmp_path), verify=False)


def raw(root: Path, name: str) -> Path:
    return root / "MNIST" / "raw" / f"{name}-ubyte"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: shorten_labels(d, 55), "it has 60 images, but 55 labels"),
        (lambda d: write_sizes(raw(d, "train-images-idx3"), 60, 27, 28), "its images are 27 x 28, not 28 x 28"),
        (lambda d: write_bytes_at(raw(d, "t10k-labels-idx1"), 8, bytes([250])), r"its labels are not all in 0\.\.9"),
        (lambda d: write_bytes_at(raw(d, "train-images-idx3"), 0, bytes(4)), r"train-images-idx3-ubyte: it is damaged"),
        (lambda d: write_bytes_at(raw(d, "train-labels-idx1"), 2, b"\x0b"), r"train-labels-idx1-ubyte: \S+"),
        (lambda d: write_bytes_at(raw(d, "train-images-idx3"), 4, b"\xff"), r"train-images-idx3-ubyte: \S+"),
        (lambda d: raw(d, "t10k-images-idx3").write_bytes(b""), r"t10k-images-idx3-ubyte: \S+"),
    ],
)  # fmt: skip
def test_each_kind_of_damage_to_mnist_is_named(change: Callable, message: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=rf"^data.root=.*: MNIST there cannot be read \(.*{message}.*\); remove it"):
        mnist(str(tmp_path), download=False, verify=False, num_valid=10)


def shorten_labels(root: Path, num: int) -> None:
    path = raw(root, "train-labels-idx1")
    path.write_bytes(path.read_bytes()[:4] + num.to_bytes(4, "big") + bytes(num))


def write_sizes(path: Path, *sizes: int) -> None:
    head = b"".join(size.to_bytes(4, "big") for size in sizes)
    path.write_bytes(path.read_bytes()[:4] + head + bytes(math.prod(sizes)))


def write_bytes_at(path: Path, at: int, data: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])


@pytest.mark.parametrize("labels", [[0] * 19, [0] * 19 + [10], [0] * 19 + [-1]])
def test_wrong_labels_of_cifar10_are_named(labels: list[int], tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({**pickle.loads(path.read_bytes()), "labels": labels}))
    with pytest.raises(ValueError, match=r"CIFAR-10 there cannot be read \((it has 100 images|its labels are not)"):
        cifar10(str(tmp_path), download=False, verify=False, num_valid=10)


def test_real_mnist(shared_data: Path) -> None:
    data = mnist(str(shared_data), download=False)
    assert [len(s) for s in (data.train, data.valid, data.test)] == [50000, 10000, 10000]
    assert data.train.y[:5].tolist() == [5, 0, 4, 1, 9]


# ---- folders of images


def test_folder_with_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 40)
    data = folder(str(tmp_path / "d"), size=16, valid=0.2, test=0.2)
    sizes = [len(s) for s in (data.train, data.valid, data.test)]
    assert sum(sizes) == 40
    assert all(sizes)
    assert data.spec.shape == (3, 16, 16)
    assert data.spec.classes == ("cats", "dogs")
    assert sorted(torch.cat([s.y for s in (data.train, data.valid, data.test)]).tolist()) == [0] * 20 + [1] * 20
    assert_disjoint(data)


def test_checkpoint_can_contain_any_folder_names(tmp_path: Path) -> None:
    for name in (b"caf\xe9", "ça".encode()):  # the first is not UTF-8, which torch.load refuses
        write_folder(tmp_path / "new", 4)
        (tmp_path / "new" / "cats").rename(os.fsdecode(os.fsencode(tmp_path) + b"/d-" + name))
    (tmp_path / "d").mkdir()
    for path in tmp_path.glob("d-*"):
        path.rename(tmp_path / "d" / path.name[2:])
    spec = folder(str(tmp_path / "d"), size=8, valid=0, test=0).spec
    torch.save(asdict(spec), tmp_path / "spec.pt")
    stored = torch.load(tmp_path / "spec.pt", weights_only=True)
    assert DataSpec(**stored) == DataSpec(**stored | {"classes": list(spec.classes)}) == spec
    assert spec.classes == ("caf\ufffd", "ça")


def test_folder_labels_match_their_images(tmp_path: Path) -> None:
    for name, value in (("black", 0), ("white", 255)):
        (tmp_path / "d" / name).mkdir(parents=True)
        for k in range(8):
            Image.fromarray(np.full((9 + k, 12, 3), value, np.uint8)).save(tmp_path / "d" / name / f"{k}.png")
    data = folder(str(tmp_path / "d"), size=8, valid=0, test=0)
    assert ((data.train.x.float().mean((1, 2, 3)) > 128).long() == data.train.y).all()


def test_folder_settings_crop_and_gray(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = (255, 0, 0)
    Image.fromarray(image).save(tmp_path / "d" / "stripe.png")
    cropped = folder(str(tmp_path / "d"), size=10, valid=0, test=0)
    assert cropped.train.x[0].float().mean((1, 2)).tolist() == [255, 0, 0]
    assert cropped.train.y is None
    squeezed = folder(str(tmp_path / "d"), size=10, crop="none", channels=1, valid=0, test=0)
    assert squeezed.train.x.shape == (1, 1, 10, 10)
    assert squeezed.train.x[0, 0, 5, 0] == 0


def test_folder_is_decoded_once_and_keyed_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "d")
    cache = str(tmp_path / "c")
    first = folder(str(tmp_path / "d"), size=8, cache=cache)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    assert rows(folder(str(tmp_path / "d"), size=8, cache=cache).train) == rows(first.train)
    (tmp_path / "d").rename(tmp_path / "moved")
    assert rows(folder(str(tmp_path / "moved"), size=8, cache=cache).train) == rows(first.train)
    monkeypatch.undo()
    assert folder(str(tmp_path / "moved"), size=9, cache=cache).spec.shape == (3, 9, 9)
    path = tmp_path / "moved" / "dogs" / "0.png"
    stat = path.stat()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert rows(folder(str(tmp_path / "moved"), size=8, cache=cache).train) != rows(first.train)


def test_folder_stays_memory_mapped(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 30)
    data = folder(str(tmp_path / "d"), size=8)
    entry = next((tmp_path / "cache" / "ganrun").glob("folder-*"))
    stored = np.memmap(entry / "images.bin", np.uint8, "r+", shape=(30, 3, 8, 8))
    before = data.train.x[-1].clone()
    stored[-1] = 255 - stored[-1]  # visible through the memory map, since nothing was read before
    stored.flush()
    assert not torch.equal(data.train.x[-1], before) or before.float().mean() == 127.5


def test_copy_of_a_file_is_in_the_same_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 30)
    for path in list((tmp_path / "d").rglob("*.png")):
        path.with_name("copy-" + path.name).write_bytes(path.read_bytes())
    assert_disjoint(folder(str(tmp_path / "d"), size=8, valid=0.3, test=0.3))


def test_16_bit_and_transparent_images_are_decoded_as_displayed(tmp_path: Path) -> None:
    """Pillow's conversion would clip 16-bit gray to white, and show colors that transparency hides."""
    (tmp_path / "d").mkdir()
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / "d" / "deep.png")
    Image.fromarray(np.full((8, 8), 0.25, np.float32)).save(tmp_path / "d" / "float.tiff")
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[..., 0] = 255  # red, but transparent
    Image.fromarray(clear).save(tmp_path / "d" / "clear.png")
    data = folder(str(tmp_path / "d"), size=8, valid=0, test=0)
    assert sorted(int(x.float().mean()) for x in data.train.x) == [64, 128, 255]
    assert all(x.unique().numel() == 1 for x in data.train.x)


def test_unusual_files_in_a_folder_are_handled(tmp_path: Path) -> None:
    write_folder(tmp_path / "d")
    (tmp_path / "d" / "cats" / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(tmp_path / "d" / "cats" / "pipe.png")
    (tmp_path / "d" / "birds").symlink_to("cats")  # a link to the same folder
    (tmp_path / "d" / "cats" / "loop").symlink_to(tmp_path / "d")
    data = folder(str(tmp_path / "d"), size=8, valid=0, test=0)
    assert len(data.train) == 12


@pytest.mark.parametrize(
    "damage",
    ["index.json", "images.bin", "{", "[" * 100_000, "[1]", {"names": [1] * 12}, {"places": ["x"] * 12},
     {"sums": [[1]] * 12}, {"skipped": []}, {"skipped": {"a": 1}}, {"decoding": {}}],
)  # fmt: skip
def test_damaged_cache_is_rebuilt(damage: Any, tmp_path: Path) -> None:
    write_folder(tmp_path / "d")
    first = folder(str(tmp_path / "d"), size=8)
    entry = next((tmp_path / "cache" / "ganrun").glob("folder-*"))
    index = entry / "index.json"
    if isinstance(damage, dict):
        index.write_text(json.dumps(json.loads(index.read_text()) | damage))
    elif damage in ("index.json", "images.bin"):
        (entry / damage).unlink()
    else:
        index.write_text(damage)
    assert rows(folder(str(tmp_path / "d"), size=8).train) == rows(first.train)


def test_moments_of_a_folder_are_those_of_its_training_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 30)
    data = folder(str(tmp_path / "d"), size=8, valid=0.2, test=0.2)
    x = data.spec.decode(data.train.x)
    assert data.spec.mean == pytest.approx(x.mean().item(), abs=1e-5)
    assert data.spec.std == pytest.approx(x.std(correction=0).item(), abs=1e-5)


def test_unreadable_files_are_reported_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "d")
    (tmp_path / "d" / "cats" / "broken.png").write_bytes(b"no image")
    whole = (tmp_path / "d" / "cats" / "1.png").read_bytes()
    (tmp_path / "d" / "cats" / "cut.png").write_bytes(whole[: len(whole) // 2])
    logging.getLogger("ganrun").propagate = True
    data = folder(str(tmp_path / "d"), size=8, valid=0, test=0)
    assert len(data.train) == 12
    assert "broken.png: cannot be read" in caplog.text
    assert "cut.png: cannot be read" in caplog.text
    caplog.clear()
    folder(str(tmp_path / "d"), size=8, valid=0, test=0)  # from the cache
    assert "broken.png: cannot be read" in caplog.text


@pytest.mark.parametrize("turn", range(10))
def test_images_are_rotated_by_their_exif_orientation_despite_invalid_exif_data(turn: int, tmp_path: Path) -> None:
    """The EXIF data have a width of type ASCII, for which Pillow's exif_transpose fails."""
    source = Image.new("L", (16, 16))
    source.paste(255, (0, 0, 8, 4))
    for kind, other in (("odd", struct.pack("<HHI4s", 0x100, 2, 4, b"abc")), ("usual", b"")):
        entries = [struct.pack("<HHIHH", 0x112, 3, 1, turn, 0), other]
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1 + bool(other)) + b"".join(sorted(entries)) + bytes(4)
        (tmp_path / kind).mkdir()
        source.save(tmp_path / kind / "a.jpg", exif=exif, quality=95)
    if turn in range(2, 9):
        with Image.open(tmp_path / "odd/a.jpg") as image, pytest.raises(struct.error):
            ImageOps.exif_transpose(image)
    with Image.open(tmp_path / "usual/a.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    for kind in ("odd", "usual"):
        data = folder(str(tmp_path / kind), size=16, channels=1, valid=0, test=0)
        assert np.array_equal(data.train.x[0, 0].numpy(), expected)


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        ({}, {}, "no such folder"),
        ({"a.txt": b"x"}, {}, "holds no image"),
        ({"a.png": b"x"}, {}, "none of its 1 images can be read"),
        ({"a.png": b"x"}, {"size": 0}, "size must lie between 1 and 4096"),
        ({"a.png": b"x"}, {"channels": 2}, "channels must be 1 or 3"),
        ({"a.png": b"x"}, {"valid": 0.6, "test": 0.4}, "sum to less than 1"),
    ],
)
def test_errors_in_a_folder_are_explained(files: dict, settings: dict, message: str, tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        folder(str(tmp_path / "d"), **settings)
    assert not list(tmp_path.rglob("partial-*"))


@pytest.mark.parametrize(
    ("batch_size", "data", "message"),
    [
        (2_000_000_000, "heights", "must be at most 10000000"),
        (10_000_000, "digits", "is too large, as its real and generated examples take 5 GB, and this machine has 4 GB"),
    ],
)
def test_huge_batches_are_refused_before_training(
    batch_size: int, data: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganrun.training.validate.memory_of", lambda _: 4e9)
    with pytest.raises(ValueError, match=rf"^train.batch_size={batch_size}: {message}"):
        run_of(f"data={data}", f"train.batch_size={batch_size}")


def test_batch_of_many_epochs_has_each_example_equally_often() -> None:
    batches = Batches(Split(torch.arange(3.0)[:, None]), DataSpec((1,)), 3_000, seed=0, device=CPU)
    assert batches[0][0].unique(return_counts=True)[1].diff().abs().max() <= 1
    assert len(batches[1][0]) == 3_000


def test_data_on_the_device_is_one_tensor() -> None:
    run = run_of("data=digits", "train.batch_size=5")
    x, y = run.batches[0]
    assert x.shape == (5, 1, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert -1 <= x.min() < x.max() <= 1
    assert y.shape == (5,)
