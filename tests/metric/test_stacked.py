"""The modes of stacked MNIST, with planted digits: the first pixel of each channel is its digit."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import write_mnist
from planted import Planted, stacked
from torch import Tensor

from ganrun.data.dataset import Split
from ganrun.data.digits import digits
from ganrun.data.published import mnist
from ganrun.data.seeds import generator
from ganrun.features.classifier import Classifier
from ganrun.metric.stacked import StackedModes, digits_of

DATA = stacked()


def samples(modes: Tensor) -> Tensor:
    """Images of these modes (n,), in the data's range."""
    of_channel = torch.stack([modes // 100, modes // 10 % 10, modes % 10], dim=1)
    x = torch.randint(256, (len(modes), 3, 12, 12), generator=generator(0, "samples"), dtype=torch.uint8)
    x[:, :, 0, 0] = of_channel.to(torch.uint8)
    return DATA.spec.decode(x)


@pytest.mark.parametrize("covered", [1, 99, 1000])
def test_modes_and_divergence_of_evenly_covered_modes(covered: int) -> None:
    chosen = torch.randperm(1000, generator=generator(0, "chosen"))[:covered]
    x = samples(chosen.repeat(2000 // covered))
    found = StackedModes(Planted(), len(x))(x, DATA)
    end = "2k" if len(x) == 2000 else str(len(x))
    assert found[f"stacked_modes_{end}"] == covered
    assert found[f"stacked_kl_{end}"] == pytest.approx(math.log(1000 / covered), abs=1e-9)


def test_order_of_the_channels_counts() -> None:
    found = StackedModes(Planted(), 3)(samples(torch.tensor([120, 210, 12])), DATA)
    assert found["stacked_modes_3"] == 3


def test_real_images_stand_beside() -> None:
    measure = StackedModes(Planted(), 150)
    found = measure(samples(torch.zeros(150).long()), DATA)
    real = DATA.valid.y[:150].unique()  # type: ignore[index]
    assert found["stacked_modes_150_real"] == len(real)
    assert measure.protocol()["150"]["num_real"] == 150
    many = StackedModes(Planted(), 250)
    many(samples(torch.zeros(250).long()), replace(DATA, valid=DATA.valid[:20]))
    assert many.protocol()["250"]["num_real"] == 200  # of the training split, which has no more


def test_digits_are_those_of_the_first_channel() -> None:
    found = digits_of(DATA)
    assert found.spec.shape == (1, 12, 12)
    assert found.spec.classes == tuple("0123456789")
    assert torch.equal(found.train.x, DATA.train.x[:, :1])
    assert torch.equal(found.train.x[:, 0, 0, 0].long(), found.train.y)
    assert len(found.valid) == 200


def test_classifier_learns_the_digits_and_other_metrics_keep_theirs() -> None:
    shared = Classifier(width=4, epochs=1, data_name="stacked")
    measure = StackedModes(shared, 50)
    measure(samples(torch.arange(50)), DATA)
    assert measure.protocol()["50"]["features"]["network"] == "digits"
    assert shared.name == "stackedcnn"
    assert shared.protocol() == {}


def test_other_data_take_the_digits_of_mnist_in_a_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    unlabeled = replace(DATA, spec=replace(DATA.spec, classes=()), train=Split(DATA.train.x), valid=Split(DATA.valid.x))
    with pytest.raises(ValueError, match=r"cannot learn digits from these data.*metric\.stacked_modes\.mnist=data"):
        StackedModes(Planted()).check(unlabeled)
    with pytest.raises(ValueError, match="no MNIST there"):
        StackedModes(Planted(), mnist=str(tmp_path / "none")).check(unlabeled)
    measure = StackedModes(Classifier(width=4, epochs=1), 20, mnist=str(tmp_path))
    with pytest.raises(ValueError, match="not the published file"):
        measure.check(unlabeled)


@pytest.mark.slow
def test_classifier_finds_the_digits_of_stacked_mnist(shared_data: Path) -> None:
    data = mnist(str(shared_data))
    index = torch.randint(len(data.train), (20000, 3), generator=generator(0, "index"))
    x, y = data.train.x[index, 0], data.train.y[index] @ torch.tensor([100, 10, 1])  # type: ignore[index]
    spec = replace(DATA.spec, shape=(3, 28, 28))
    made = replace(
        DATA, spec=spec, train=Split(x[:15000], y[:15000]), valid=Split(x[15000:], y[15000:]), test=Split(x[:0], y[:0])
    )
    measure = StackedModes(Classifier(epochs=1), 5000)
    found = measure(spec.decode(made.valid.x), made)
    true = made.valid.y.bincount(minlength=1000)  # type: ignore[union-attr]
    assert found["stacked_modes_5k"] == pytest.approx(int((true > 0).sum()), abs=8)
    assert found["stacked_kl_5k"] == found["stacked_kl_5k_floor"]


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="needs images of three digits in three channels"):
        StackedModes(Planted()).check(digits())
    with pytest.raises(ValueError, match="num=0: must be at least 1"):
        StackedModes(Planted(), 0)
