"""Metrics that classify samples, with planted classes: the first pixel of an image is its class."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import run_of
from planted import Planted
from torch import Tensor

from ganrun.data.dataset import Dataset, Split, image_spec
from ganrun.data.seeds import generator
from ganrun.data.toy import ring
from ganrun.metric.classes import ClassBalance, IntraFid, LabelAccuracy, class_shares
from ganrun.metric.scores import frechet_distance

NAMES = "abcd"


def images(y: Tensor, name: str = "x") -> Tensor:
    """Images (n, 1, 4, 4) of classes y (n,), as stored: noise around a level that depends on the class."""
    noise = torch.randint(60, (len(y), 1, 4, 4), generator=generator(0, name))
    x = (noise + 40 * y[:, None, None, None]).to(torch.uint8)
    x[:, 0, 0, 0] = y.to(torch.uint8)
    return x


def data(num: int = 400) -> Dataset:
    y = torch.arange(num) % 4
    return Dataset(
        image_spec(images(y), NAMES), Split(images(y), y), Split(images(y, "valid"), y), Split(images(y)[:0], y[:0])
    )


DATA = data()


def decoded(y: Tensor) -> Tensor:
    return DATA.spec.decode(images(y, "samples"))


# class_balance


def test_balanced_samples_have_divergence_zero_and_cover_all_classes() -> None:
    found = ClassBalance(Planted(), 80)(decoded(torch.arange(80) % 4), DATA)
    assert found == pytest.approx(
        {"class_kl_planted_80": 0, "class_kl_planted_80_floor": 0, "classes_covered_planted_80": 4}
    )


def test_one_of_four_classes_has_divergence_log_4() -> None:
    measure = ClassBalance(Planted(), 80)
    found = measure(decoded(torch.full((80,), 2)), DATA)
    assert found["class_kl_planted_80"] == pytest.approx(math.log(4))
    assert found["classes_covered_planted_80"] == 1
    assert measure.protocol()["planted_80"]["shares"] == {"a": 0, "b": 0, "c": 1, "d": 0}


def test_balance_is_that_of_the_training_images() -> None:
    y = torch.tensor([0] * 60 + [1] * 20)
    uneven = replace(DATA, train=Split(images(y), y))
    found = ClassBalance(Planted(), 80)(decoded(y), uneven)
    assert found["class_kl_planted_80"] == pytest.approx(0, abs=1e-6)
    assert class_shares(uneven).tolist() == pytest.approx([0.75, 0.25, 0, 0], abs=1e-9)
    assert math.isfinite(ClassBalance(Planted(), 80)(decoded(torch.full((80,), 3)), uneven)["class_kl_planted_80"])


# label_accuracy


def test_label_accuracy_is_the_share_of_requested_classes() -> None:
    made = torch.tensor([0, 1, 2, 3] * 10)
    wanted = made.clone()
    wanted[:10] = (wanted[:10] + 1) % 4
    found = LabelAccuracy(Planted(), 40)(decoded(made), DATA, y=wanted)
    assert found == {"label_accuracy_planted_40": 0.75, "label_accuracy_planted_40_real": 1}


# intra_fid


def test_intra_fid_is_the_mean_distance_within_classes() -> None:
    y, features = torch.arange(200) % 4, Planted()
    found = IntraFid(features, 200)(decoded(y), DATA, y=y)
    fake, real = features(images(y, "samples")).features, features(DATA.valid.x).features
    of_class = [frechet_distance(fake[y == k], real[DATA.valid.y == k]) for k in range(4)]
    assert found["intra_fd_planted_200"] == pytest.approx(sum(of_class) / 4)
    assert found["intra_fd_planted_200_worst"] == pytest.approx(max(of_class))
    assert found["intra_fd_planted_200_floor"] > 0


def test_intra_fid_notices_exchanged_classes_which_the_distance_of_all_does_not() -> None:
    y = torch.arange(200) % 4
    right = IntraFid(Planted(), 200)(decoded(y), DATA, y=y)
    wrong = IntraFid(Planted(), 200)(decoded(y), DATA, y=(y + 1) % 4)
    assert wrong["intra_fd_planted_200"] > 5 * right["intra_fd_planted_200"]


def test_classes_with_too_few_samples_are_left_out_and_named() -> None:
    y = torch.tensor([0] * 90 + [1] * 90 + [2] * 3)
    measure = IntraFid(Planted(dim=4), len(y))
    found = measure(decoded(y), DATA, y=y)
    assert measure.protocol()["planted_183"]["left_out"] == ["c", "d"]
    assert [*measure.protocol()["planted_183"]["classes"]] == ["a", "b"]
    assert math.isfinite(found["intra_fd_planted_183"])


def test_intra_fid_needs_enough_images_of_some_class() -> None:
    with pytest.raises(ValueError, match=r"needs more than 100 samples and valid images .* the largest class has 100"):
        IntraFid(Planted(dim=100), 4000).check(DATA)
    with pytest.raises(ValueError, match="needs more than 30 samples"):
        IntraFid(Planted(dim=30), 100).check(DATA)
    IntraFid(Planted(dim=30), 200).check(DATA)


# What is refused


@pytest.mark.parametrize("kind", [ClassBalance, LabelAccuracy, IntraFid])
def test_data_without_classes_and_no_samples_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="needs images with labels of at least two classes"):
        kind(Planted()).check(ring(8, 2, 0.1, 100))
    unlabeled = replace(DATA, spec=replace(DATA.spec, classes=()))
    with pytest.raises(ValueError, match="needs images with labels"):
        kind(Planted()).check(unlabeled)
    with pytest.raises(ValueError, match="num=0: must be at least 1"):
        kind(Planted(), num=0)


@pytest.mark.parametrize("name", ["label_accuracy", "intra_fid"])
def test_runs_without_labels_are_refused(name: str) -> None:
    line = ["data=digits", f"metric={name}", f"metric.{name}.num=2000"]
    more = ["metric.intra_fid.split=train"] if name == "intra_fid" else []
    with pytest.raises(ValueError, match=f"metric={name}: needs a"):
        run_of(*line, *more)
    if name == "label_accuracy":
        assert run_of(*line, "condition=concat").metrics[name].labels == "required"
