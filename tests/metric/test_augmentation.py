"""metric=augmentation_gain and train_on_samples: the classifier's data, intervals, and samples that help or harm."""

import numpy as np
import pytest
import torch

from ganrun.data.dataset import Split
from ganrun.data.digits import digits
from ganrun.data.toy import ring
from ganrun.metric.augmentation import AugmentationGain, bootstrap_interval, labelled, mixed_batches
from ganrun.metric.train_on_samples import TrainOnSamples


def test_labelled_examples_are_n_of_each_class() -> None:
    split = Split(torch.arange(50.0)[:, None], torch.arange(50) % 5)
    chosen = labelled(split, 3, seed=0)
    assert chosen.y is not None
    assert chosen.y.bincount().tolist() == [3] * 5
    assert (chosen.x.flatten() % 5 == chosen.y).all()
    assert not torch.equal(chosen.x.sort(0).values, labelled(split, 3, seed=1).x.sort(0).values)
    assert len(labelled(split, 100, seed=0)) == 50


def test_smaller_choices_are_parts_of_larger_ones() -> None:
    split = Split(torch.arange(50.0)[:, None], torch.arange(50) % 5)
    few, many = (set(labelled(split, n, seed=0).x.flatten().tolist()) for n in (3, 7))
    assert few < many


def test_batches_have_the_same_share_of_each_part() -> None:
    real, made = (Split(torch.full((9, 1, 8, 8), k, dtype=torch.uint8), torch.full((9,), k)) for k in (1, 2))
    batches = list(mixed_batches([real, made], 3, 6, flip=False, seed=0, device=torch.device("cpu")))
    assert len(batches) == 3
    for x, y in batches:
        assert x[:, 0, 0, 0].tolist() == y.tolist() == [1, 1, 1, 2, 2, 2]
    alone = next(iter(mixed_batches([real], 1, 6, flip=False, seed=0, device=torch.device("cpu"))))
    assert alone[1].tolist() == [1] * 6


def test_flipping_mirrors_some_batches() -> None:
    x = torch.arange(8, dtype=torch.uint8).expand(4, 1, 8, 8)
    split = Split(x, torch.zeros(4, dtype=torch.long))
    made = mixed_batches([split], 20, 4, flip=True, seed=0, device=torch.device("cpu"))
    falling = [bool(x[0, 0, 0, 0] > x[0, 0, 0, -1]) for x, _ in made]
    assert 3 < sum(falling) < 17


def test_bootstrap_intervals_have_the_width_of_a_normal_one() -> None:
    difference = np.random.default_rng(0).choice([-1, 0, 1], p=[0.2, 0.5, 0.3], size=(1, 2000)).astype(float)
    low, high = bootstrap_interval(difference)
    half = 1.96 * difference.std() / 2000**0.5
    assert (low, high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.1 * half)


def test_bootstrap_intervals_count_the_difference_between_seeds() -> None:
    alike, apart = np.zeros((4, 1000)), np.repeat([[-1.0], [-1.0], [1.0], [1.0]], 1000, 1)
    assert bootstrap_interval(alike) == (0, 0)
    low, high = bootstrap_interval(apart)
    assert low < -0.4
    assert high > 0.4


@pytest.mark.slow
def test_real_images_as_samples_help_and_wrong_labels_harm() -> None:
    data = digits()
    metric = AugmentationGain(num=1000, num_labelled=[2], seeds=2, updates=80, width=8, batch_size=64)
    metric.check(data)
    samples, y = data.spec.decode(data.train.x), data.train.y
    assert y is not None
    good, bad = metric(samples, data, y=y), metric(samples, data, y=(y + 1) % 10)
    assert good["augmentation_gain_valid_2_1k_low"] > 0.05
    assert bad["augmentation_gain_valid_2_1k_high"] < -0.05
    assert good["accuracy_real_valid_2"] == bad["accuracy_real_valid_2"]
    gain = good["accuracy_augmented_valid_2_1k"] - good["accuracy_real_valid_2"]
    assert good["augmentation_gain_valid_2_1k"] == pytest.approx(gain)
    assert metric.protocol()["valid_1k"]["labels_of_the_gan"] == len(data.train)


def test_settings_and_data_that_cannot_be_used() -> None:
    with pytest.raises(ValueError, match=r"num_labelled=\[1000\]: the largest class has 1\d\d training examples"):
        AugmentationGain().check(digits())
    with pytest.raises(ValueError, match="needs images with labels"):
        AugmentationGain().check(ring(8, 2, 0.02, 100))
    with pytest.raises(ValueError, match="updates=0: must be at least 1"):
        AugmentationGain(updates=0)
    with pytest.raises(ValueError, match="batch_size=3: must be an even number"):
        AugmentationGain(batch_size=3)


@pytest.mark.slow
def test_classifier_learns_from_samples_as_from_real_images_and_not_from_wrong_or_equal_ones() -> None:
    data, name = digits(), "train_on_samples_valid_800"
    metric = TrainOnSamples(num=800, seeds=2, updates=80, width=8, batch_size=64)
    metric.check(data)
    samples, y = data.spec.decode(data.train.x), data.train.y
    assert y is not None
    good = metric(samples, data, y=y)
    assert good[f"{name}_real"] > 0.8
    assert good[name] == pytest.approx(good[f"{name}_real"], abs=0.08)
    assert 0 <= good[f"{name}_std"] < 0.1
    wrong = metric(samples, data, y=(y + 1) % 10)
    assert wrong[name] < 0.1
    assert wrong[f"{name}_real"] == good[f"{name}_real"]
    of_each = torch.stack([samples[y == k][0] for k in range(10)])
    collapsed = metric(of_each[y], data, y=y)
    assert collapsed[f"{name}_real"] == good[f"{name}_real"]
    assert collapsed[name] < good[name] - 0.1
    assert metric.protocol()["valid_800"]["num_real"] == 800


def test_training_on_samples_refuses_other_data_and_settings() -> None:
    with pytest.raises(ValueError, match="metric=train_on_samples: needs images with labels"):
        TrainOnSamples().check(ring(8, 2, 0.02, 100))
    with pytest.raises(ValueError, match="num=1: must be at least 2"):
        TrainOnSamples(num=1)
