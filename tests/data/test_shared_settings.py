"""Settings that all data sets share (data.num, data.flip), rectangular images, and stacked MNIST."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Here
from helpers import assert_same_run, config_of, kill_at, run_of, same, write_folder, write_mnist
from PIL import Image, ImageOps

from ganrun.arch.dcgan import Discriminator, Generator
from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.decode import Decoding, decode
from ganrun.data.folder import folder
from ganrun.data.published import mnist, stacked_mnist
from ganrun.training.batches import Batches
from ganrun.training.build import load_data
from ganrun.training.run import data_changes

CPU = torch.device("cpu")
IMAGES = DataSpec((1, 1, 2), (-1.0, 1.0))


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("ganrun"), "propagate", True)
    return caplog


def numbered(num: int) -> Split:
    """Image i has the pixels 0, i + 1, which are exchanged if it is mirrored."""
    x = torch.zeros(num, 1, 1, 2, dtype=torch.uint8)
    x[:, 0, 0, 1] = torch.arange(1, num + 1)
    return Split(x, torch.arange(num))


# data.num


def test_num_keeps_the_first_training_examples_and_their_moments() -> None:
    whole, first = (load_data(config_of("data=digits", *line)) for line in ([], ["data.num=100"]))
    assert torch.equal(first.train.x, whole.train.x[:100])
    assert torch.equal(first.train.y, whole.train.y[:100])
    x = first.spec.decode(first.train.x)
    assert first.spec.mean == pytest.approx(x.mean().item(), abs=1e-5)
    assert first.spec.std == pytest.approx(x.std(correction=0).item(), abs=1e-5)
    for name in ("valid", "test"):
        assert torch.equal(first.splits()[name].x, whole.splits()[name].x)
    scaled = load_data(config_of("data=digits", "data.num=100", "data.value_range=[0,1]"))
    assert scaled.spec.mean == pytest.approx((first.spec.mean + 1) / 2)
    assert run_of("data=digits", "data.num=100").data_facts()["num_train"] == 100


def test_num_of_a_data_set_that_has_this_parameter_is_its_own(tmp_path: Path, monkeypatch) -> None:
    assert len(load_data(config_of("data=heights", "data.num=70")).train) == 70
    (tmp_path / "counted.py").write_text(
        "import torch\n"
        "from ganrun.data.dataset import Dataset, DataSpec, Split\n"
        "def points(num: int = 30):\n"
        "    x = torch.arange(2.0 * num)[:, None]\n"
        "    return Dataset(DataSpec((1,)), Split(x), Split(x[:0]), Split(x[:0]))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = config_of("data=heights")
    own = {key: config["data"][key] for key in ("root", "download", "verify", "value_range", "gcn", "flip")}
    for num, expected in ((None, 60), (5, 10)):
        config["data"] = {**own, "_target_": "counted.points", "num": num}
        assert len(load_data(config).train) == expected


@pytest.mark.slow
@pytest.mark.parametrize("num", ["0", "1298", "1.5", "true", "many"])
def test_num_out_of_range_is_refused(num: str, here) -> None:
    code, _, err = here("data=digits", f"data.num={num}")
    assert (code, err.count("\n")) == (2, 1)
    assert f"data.num={num}: must be 1 to 1297" in err


def test_moments_of_first_vectors_are_theirs() -> None:
    x = torch.tensor([[1.0], [3.0], [100.0]])
    first = Dataset(DataSpec((1,), mean=35.0, std=46.0), Split(x), Split(x[:0]), Split(x[:0])).with_first(2)
    assert (first.spec.mean, first.spec.std) == (2, 1)


# data.flip


def test_mirrored_images_are_a_function_of_seed_and_position() -> None:
    """Common bug: a random state that a resumed run does not have."""
    made = [Batches(numbered(10), IMAGES, 4, seed, CPU, flip=True) for seed in (0, 0, 1)]
    ahead = [made[0][i][0] for i in range(50)]
    assert torch.equal(made[1][49][0], ahead[49])
    assert torch.equal(made[1][3][0], ahead[3])
    assert any(not torch.equal(made[2][i][0].abs(), ahead[i].abs()) for i in range(5))


def test_half_of_the_images_are_mirrored_anew_in_each_epoch_and_the_order_stays() -> None:
    split = numbered(100)
    plain, mirrored = (Batches(split, IMAGES, 30, 0, CPU, flip=flip) for flip in (False, True))
    shares = []
    for i in range(40):
        (x, y), (a, b) = plain[i], mirrored[i]
        assert torch.equal(y, b)
        swapped = (a != x).flatten(1).any(1)
        assert torch.equal(torch.where(swapped[:, None, None, None], a.flip(3), a), x)
        shares.append(swapped.float())
    assert torch.cat(shares).mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 1200**0.5)
    firsts = torch.stack([mirrored._epoch(k).mirrored for k in range(2)])
    assert not torch.equal(firsts[0], firsts[1])


def test_reference_sets_are_not_mirrored() -> None:
    """Trap: metrics would compare with augmented data."""
    plain, mirrored = (run_of("data=digits", f"data.flip={flip}") for flip in ("false", "true"))
    assert mirrored.batches.flip
    for name in ("train", "valid", "test"):
        assert torch.equal(plain.dataset.splits()[name].x, mirrored.dataset.splits()[name].x)


@pytest.mark.slow
def test_flip_is_off_by_default_and_has_no_effect_on_vectors(messages) -> None:
    assert not run_of("data=digits").batches.flip
    assert not run_of("data=heights", "data.flip=true").batches.flip
    assert "data.flip has no effect: these data are not images." in messages.text
    with pytest.raises(ValueError, match="must be true or false"):
        run_of("data=digits", "data.flip=3")


# Rectangular images


def test_folder_decodes_to_height_and_width(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 1)
    (path,) = (tmp_path / "d").rglob("*.png")
    image = Image.open(path)
    for crop, expected in (
        ("center", ImageOps.fit(image, (12, 8), Image.Resampling.LANCZOS)),
        ("none", image.resize((12, 8), Image.Resampling.LANCZOS)),
    ):
        data = folder(str(tmp_path / "d"), size=(8, 12), crop=crop, valid=0, test=0)
        assert data.spec.shape == (3, 8, 12)
        assert np.array_equal(data.train.x[0].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_equal_sides_have_the_cache_of_a_square(tmp_path: Path) -> None:
    write_folder(tmp_path / "d")
    found = [folder(str(tmp_path / "d"), size=size, cache=str(tmp_path / "c")) for size in (8, [8, 8], [8, 12])]
    assert torch.equal(found[0].train.x, found[1].train.x)
    assert len(list((tmp_path / "c").glob("folder-*"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("[8,12,3]", "data.size=[8, 12, 3]: must be a whole number or 2 values"),
        ("[8,a]", "must be a whole number or 2 values"),
        ("[0,8]", "size must lie between 1 and 4096"),
        ("[8,21]", "8x21 only if the longer side is a multiple of 2"),
        ("[8,520]", "DCGAN makes images with sides of 8 to 256"),
    ],
)
def test_sizes_that_cannot_work_are_refused(size: str, message: str, here, tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 4)
    line = ["data=folder", "data.root=d", "data.valid=0", "data.test=0", "train.steps=1"]
    code, _, err = here(*line, f"data.size={size}")
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err


@pytest.mark.parametrize("sides", [(8, 8), (64, 96), (96, 64), (28, 56), (256, 256), (128, 256), (48, 144)])
def test_dcgan_makes_images_of_these_sides(sides: tuple[int, int]) -> None:
    spec = DataSpec((3, *sides), (-1.0, 1.0))
    x = Generator(spec, z_dim=2, width=1)(torch.randn(2, 2))
    assert x.shape == (2, 3, *sides)
    assert Discriminator(spec, width=1)(x).shape == (2,)


@pytest.mark.slow
def test_rectangular_images_train_and_are_drawn_with_every_augmentation(here, tmp_path: Path) -> None:
    write_folder(tmp_path / "d")
    line = ["data=folder", "data.root=d", "data.size=[16,24]", "data.test=0.3", "train.steps=2", "train.batch_size=4",
            "train.threads=1", "metric=neighbors", "metric.neighbors.num=64", "arch.generator.width=2",
            "arch.discriminator.width=2", "data.flip=true"]  # fmt: skip
    for i, choice in enumerate(["augment=ada", "augment=diffaugment", "penalty=consistency", "arch=mlp"]):
        own = [*line, choice, *(["augment.p=1"] if choice == "augment=ada" else [])]
        if choice == "arch=mlp":
            own = [setting for setting in own if "width" not in setting]
        code, _, err = here(*own, f"run_dir=r{i}")
        assert code == 0, err
    with Image.open(tmp_path / "r0" / "samples" / "step_00000002.png") as picture:
        assert picture.size == (8 * 26 + 2, 8 * 18 + 2)


# Stacked MNIST


@pytest.fixture
def digits(tmp_path: Path) -> str:
    write_mnist(tmp_path)
    return str(tmp_path)


def test_channels_are_digits_of_the_split_and_classes_name_them(digits: str) -> None:
    single = mnist(digits, verify=False, num_valid=10)
    data = stacked_mnist(digits, verify=False, num_valid=10, num=300)
    assert [len(split) for split in data.splits().values()] == [300, 10, 20]
    assert data.spec.shape == (3, 28, 28)
    for name, split in data.splits().items():
        source = single.splits()[name]
        label = {image.numpy().tobytes(): y for image, y in zip(source.x[:, 0], source.y.tolist(), strict=True)}
        for image, y in zip(split.x, split.y.tolist(), strict=True):
            found = [label[channel.numpy().tobytes()] for channel in image]
            assert data.spec.classes[y] == "".join(map(str, found))
    assert len(set(data.train.y.tolist())) > 200


def test_stacked_digits_are_a_function_of_the_seed_and_need_the_memory_of_one_channel(digits: str) -> None:
    made = [stacked_mnist(digits, verify=False, num_valid=10, num=200, seed=seed).train for seed in (0, 0, 1)]
    assert torch.equal(made[0].x, made[1].x)
    assert not torch.equal(made[0].y, made[2].y)
    assert made[0].x.untyped_storage().nbytes() == 202 * 28 * 28
    fewer = stacked_mnist(digits, verify=False, num_valid=10, num=50).train
    assert torch.equal(fewer.x, made[0].x[:50])


def test_triples_are_independent_of_the_place_in_the_sequence(digits: str) -> None:
    """Each image is three independent draws: all pairs of channels have the joint frequencies of independent digits."""
    y = stacked_mnist(digits, verify=False, num_valid=10, num=20000).train.y
    parts = torch.stack([y // 100, y // 10 % 10, y % 10])
    for a, b in ((0, 1), (1, 2), (0, 2)):
        counts = torch.bincount(10 * parts[a] + parts[b], minlength=100).float()
        assert ((counts - 200).square() / 200).sum() < 170  # chi-square with 99 degrees of freedom: P < 1e-5


def test_without_validation_digits_there_are_no_validation_images(digits: str) -> None:
    assert stacked_mnist(digits, verify=False, num_valid=0, num=20).valid.x.shape == (0, 3, 28, 28)
    with pytest.raises(ValueError, match="must be at least 1"):
        stacked_mnist(digits, verify=False, num=0)


@pytest.mark.slow
def test_flip_and_stacked_digits_resume_bit_for_bit(digits: str, here, tmp_path: Path) -> None:
    line = ["data=stacked_mnist", f"data.root={digits}", "data.verify=false", "data.num_valid=10", "data.num=30",
            "data.flip=true", "arch.generator.width=2", "arch.discriminator.width=2", "train.batch_size=8",
            "train.steps=12", "train.threads=1", "train.checkpoint_every=4", "train.log_every=1",
            "train.sample_every=0"]  # fmt: skip
    assert here(*line, "run_dir=whole")[0] == 0
    kill_at(6, [*line, "run_dir=killed"], tmp_path)
    code, out, err = here("resume", "run_dir=killed")
    assert code == 0, err
    assert "resuming at step 4 of 12" in out
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_classes_that_are_absent_are_named_up_to_a_number(digits: str, messages) -> None:
    load_data(config_of("data=stacked_mnist", f"data.root={digits}", "data.verify=false", "data.num_valid=10",
                        "data.num=30"))  # fmt: skip
    (record,) = (record for record in messages.records if "none of class" in record.getMessage())
    assert len(record.getMessage()) < 300
    assert record.getMessage().endswith("more.")


def test_config_without_the_new_settings_has_their_defaults() -> None:
    config = config_of("data=digits")
    data = load_data(config)
    for key in ("num", "flip"):
        del config["data"][key]
    assert same(data.train.x, load_data(config).train.x)


# Memory maps


def test_pages_of_a_memory_map_are_released_while_batches_stay_the_same(tmp_path: Path, monkeypatch) -> None:
    """Common bug: a slice, or the split on the training device, that has lost its memory map."""
    write_folder(tmp_path / "d")
    data = folder(str(tmp_path / "d"), size=8).to(CPU)
    assert data.train.mapping is not None
    plain = Split(data.train.x.clone(), data.train.y)
    released: list[int] = []
    monkeypatch.setattr("ganrun.training.batches.MOST_RESIDENT", 10 * (1 << 16))
    monkeypatch.setattr(Split, "release", lambda split, kept=Split.release: (released.append(1), kept(split)))
    mapped, copied = (Batches(split, data.spec, 4, 0, CPU) for split in (data.train, plain))
    for i in range(6):
        for a, b in zip(mapped[i], copied[i], strict=True):
            assert torch.equal(a, b)
    assert len(released) == 2  # each time after three batches of four images


@pytest.mark.slow
def test_other_labels_and_other_held_out_images_are_other_data(here: Here, tmp_path: Path) -> None:
    """Their number, mean and deviation can be those from before."""
    for k in range(40):
        Image.fromarray(np.full((9, 9), 5 * k, np.uint8)).save(ensured(tmp_path / f"d/{'ab'[k % 2]}/{k}.png"))
    line = ["data=folder", "data.root=d", "data.size=8", "data.valid=0.3", "condition=concat", "train.steps=2",
            "train.batch_size=4", "train.diagnose=false", "train.sample_every=0", "metric=none"]  # fmt: skip
    assert here(*line, "run_dir=r")[0] == 0
    assert here("resume", "run_dir=r", "train.steps=3")[0] == 0
    (tmp_path / "d/a/0.png").rename(tmp_path / "d/b/x0.png")
    code, _, err = here("resume", "run_dir=r", "train.steps=4")
    assert code == 2
    assert "r: its run was trained on other data: labels (" in err
    (tmp_path / "d/b/x0.png").rename(tmp_path / "d/a/0.png")
    assert here("resume", "run_dir=r", "train.steps=4")[0] == 0
    valid = {image.tobytes() for image in folder("d", size=8, valid=0.3, test=0).valid.x.numpy()}
    next(path for path in sorted(Path("d").glob("*/*.png")) if encoded(path) in valid).unlink()
    code, _, err = here("evaluate", "run_dir=r", "metric=neighbors", "metric.neighbors.num=64")
    assert code == 2
    assert f"valid ({len(valid)} examples with mean " in err


def test_runs_that_do_not_know_these_facts_go_on() -> None:
    run = run_of("data=digits", "data.num=100")
    facts = run.data_facts()
    assert {"labels", "valid", "test"} <= facts.keys()
    early = {key: value for key, value in facts.items() if key not in ("labels", "valid", "test")}
    assert data_changes(run, {"data": early}) == []
    assert data_changes(run, {"data": facts}) == []
    changed = {**facts, "test": "0 examples"}
    assert data_changes(run, {"data": changed}) == [f"test (0 examples there, {facts['test']} now)"]


def ensured(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def encoded(path: Path) -> bytes:
    found = decode(path, Decoding.of(8, "center", 3))
    assert isinstance(found, np.ndarray)
    return found.tobytes()
