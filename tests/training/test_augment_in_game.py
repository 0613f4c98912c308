"""Augmentation in a run: of all inputs of D, in the updates of both players, and of nothing else."""

from dataclasses import replace

import pytest
import torch
from helpers import run_of
from torch import Tensor

from ganrun.augment import ADA, TURNS, DiffAugment
from ganrun.data.dataset import Dataset
from ganrun.penalty.consistency import Consistency
from ganrun.protocols import Augmentation, DFunction, Metric
from ganrun.training.evaluation import Evaluation
from ganrun.training.game import Game
from ganrun.training.pictures import Pictures


@pytest.mark.slow
def test_all_inputs_of_d_are_augmented_in_both_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Common bug: augmenting only the real images, so that G learns to generate augmented ones."""
    run = run_of("data=digits", "augment=ada", "augment.p=0.5", "augment.every=1", "train.batch_size=8")
    with_gradient: list[bool] = []
    transform = run.augment.transform
    monkeypatch.setattr(run.augment, "transform", lambda x: with_gradient.append(x.requires_grad) or transform(x))
    game = Game(run)
    game.d_update(0, noise=0)
    assert with_gradient == [False, False]
    before = run.augment.state_dict()["p"].clone()
    game.g_update(0, noise=0)
    assert with_gradient == [False, False, True]  # only the fake samples of G's update have a gradient
    assert torch.equal(run.augment.state_dict()["p"], before)
    assert before != 0.5  # D's logits have changed it
    assert "augment" in run.state_dict()


@pytest.mark.parametrize("augment", ["ada", "diffaugment"])
def test_data_and_samples_of_metrics_are_not_augmented(augment: str) -> None:
    """Common bug: the augmentation is part of the data set, so metrics and pictures use augmented images."""

    class Recorder(Metric):
        num = 40

        def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
            self.samples, self.dataset = samples, dataset
            return {"one": 1.0}

    plain = run_of("data=digits", "train.batch_size=8", "train.ema=0.5")
    run = run_of("data=digits", "train.batch_size=8", "train.ema=0.5", f"augment={augment}")
    if augment == "ada":
        run.augment.p.fill_(1.0)
    assert not torch.equal(run.augment(run.batches[0][0]), run.batches[0][0])  # the augmentation is on
    Game(run).step(0)
    for k in range(2):
        assert torch.equal(run.batches[k][0], plain.batches[k][0])
    for split in ("train", "valid", "test"):
        assert torch.equal(getattr(run.dataset, split).x, getattr(plain.dataset, split).x)
    assert run.dataset.spec == plain.dataset.spec
    metric, bare_metric = Recorder(), Recorder()
    run = replace(run, metrics={"recorder": metric})
    bare = replace(run, augment=Augmentation(), metrics={"recorder": bare_metric})
    assert Evaluation(run).metrics() == Evaluation(bare).metrics() == {"one": 1.0}
    assert torch.equal(metric.samples, bare_metric.samples)
    assert torch.equal(metric.dataset.test.x, plain.dataset.test.x)
    assert (Pictures(run).draw("step 1") == Pictures(bare).draw("step 1")).all()


def slopes(augment: ADA | DiffAugment | Consistency, channels: int = 1) -> tuple[Tensor, Tensor]:
    """The horizontal and vertical slopes of 300 augmented images of a horizontal ramp, with luma flips undone.

    Images that are cut out in the center are excluded.
    """
    apply = augment.transform if isinstance(augment, Consistency) else augment
    images = [torch.linspace(-1, 1, 33), torch.ones(33), torch.zeros(33)]
    out = []
    for image in images:
        torch.manual_seed(0)  # the same random numbers for each
        out.append(apply(image.expand(300, channels, 33, 33))[:, 0, 15:18, 15:18])
    slope, gain = out[0], (out[1] - out[2])[:, 1, 1].sign()
    whole = (out[1] != out[2]).flatten(1).all(1)
    return ((slope[:, 1, 2] - slope[:, 1, 0]) * gain)[whole], ((slope[:, 2, 1] - slope[:, 0, 1]) * gain)[whole]


@pytest.fixture
def _near_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace normal by uniform draws in [-1, 1], so that no reflected edge is moved to the center."""
    monkeypatch.setattr(torch, "randn", lambda *size, **options: torch.rand(*size, **options) * 2 - 1)


@pytest.mark.parametrize(
    "augment",
    [ADA(p=1.0), DiffAugment(), Consistency()],
    ids=["ada", "diffaugment", "consistency"],
)
@pytest.mark.usefixtures("_near_the_middle")
def test_digits_are_not_mirrored_or_rotated_by_default(augment: ADA | DiffAugment | Consistency) -> None:
    """Common bug: the augmentations for CIFAR-10 on MNIST, although a rotated 6 is a 9."""
    across, down = slopes(augment)
    assert len(across) > 100
    assert (across > 0).all()
    assert down.abs().max() < 1e-5


@pytest.mark.usefixtures("_near_the_middle")
def test_images_are_mirrored_and_rotated_on_request() -> None:
    upright = ["translate", "scale", "stretch", "shift", "brightness", "contrast", "luma_flip"]
    across, down = slopes(ADA(p=1.0, transforms=upright, flip=True))
    assert abs(across.sign().mean()) < 0.2
    assert down.abs().max() < 1e-5
    for turn in TURNS:
        across, down = slopes(ADA(p=1.0, transforms=[turn]))
        assert abs(across.mean()) < 0.2 * across.abs().max()
        assert down.abs().max() > 0.01
    assert slopes(ADA(p=1.0), channels=3)[1].abs().max() > 0.01  # color images are rotated, as published


def test_gray_images_of_a_run_are_upright_by_default() -> None:
    """Common bug: RandomHorizontalFlip for every data set."""
    run = run_of("data=digits", "augment=ada", "penalty=[consistency,balanced_consistency]")
    assert run.augment.gray_transforms.isdisjoint({*TURNS, "flip"})
    assert not any(penalty.flip for penalty in run.penalties.values())
    batch, _ = run.batches[0]
    examples = run.dataset.spec.decode(run.dataset.train.x)
    assert (batch[:, None] == examples).flatten(2).all(2).any(1).all()  # each is an unchanged training example
