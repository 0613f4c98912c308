"""Augmentation as a run applies it: to all that D gets, from both players, and to nothing else."""

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


def test_both_players_augment_all_that_d_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public mistake: augmenting the real images alone, so that G learns to make augmented ones."""
    run = run_of("data=digits", "augment=ada", "augment.p=0.5", "augment.every=1", "train.batch_size=8")
    with_gradient: list[bool] = []
    transform = run.augment.transform
    monkeypatch.setattr(run.augment, "transform", lambda x: with_gradient.append(x.requires_grad) or transform(x))
    game = Game(run)
    game.d_update(0, noise=0)
    assert with_gradient == [False, False]
    before = run.augment.state_dict()["p"].clone()
    game.g_update(0, noise=0)
    assert with_gradient == [False, False, True]  # the fake of the G step alone carries a gradient
    assert torch.equal(run.augment.state_dict()["p"], before)
    assert before != 0.5  # D's logits moved it
    assert "augment" in run.state_dict()


@pytest.mark.parametrize("augment", ["ada", "diffaugment"])
def test_references_and_samples_are_never_augmented(augment: str) -> None:
    """Public mistake: the augmentation sits in the data set, so metrics and pictures are of augmented images."""

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
    """Of 300 images with a slope across, how steep they are across and down after augmentation, light for dark undone.

    A sample that was cut out in the middle is left out.
    """
    apply = augment.transform if isinstance(augment, Consistency) else augment
    images = [torch.linspace(-1, 1, 33), torch.ones(33), torch.zeros(33)]
    out = []
    for image in images:
        torch.manual_seed(0)  # the same draws for each
        out.append(apply(image.expand(300, channels, 33, 33))[:, 0, 15:18, 15:18])
    slope, gain = out[0], (out[1] - out[2])[:, 1, 1].sign()
    whole = (out[1] != out[2]).flatten(1).all(1)
    return ((slope[:, 1, 2] - slope[:, 1, 0]) * gain)[whole], ((slope[:, 2, 1] - slope[:, 0, 1]) * gain)[whole]


@pytest.fixture
def _near_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normal draws become uniform ones in [-1, 1]: none moves the edge, where images are reflected, into the middle."""
    monkeypatch.setattr(torch, "randn", lambda *size, **options: torch.rand(*size, **options) * 2 - 1)


@pytest.mark.parametrize(
    "augment",
    [ADA(p=1.0), DiffAugment(), Consistency()],
    ids=["ada", "diffaugment", "consistency"],
)
@pytest.mark.usefixtures("_near_the_middle")
def test_digits_are_neither_mirrored_nor_turned_unless_asked(augment: ADA | DiffAugment | Consistency) -> None:
    """No horizontal flip on digits. Public mistakes: every recipe of CIFAR-10 for MNIST too; a 6 turned is a 9."""
    across, down = slopes(augment)
    assert len(across) > 100
    assert (across > 0).all()
    assert down.abs().max() < 1e-5


@pytest.mark.usefixtures("_near_the_middle")
def test_images_are_mirrored_and_turned_where_that_is_asked_for() -> None:
    upright = ["translate", "scale", "stretch", "shift", "brightness", "contrast", "luma_flip"]
    across, down = slopes(ADA(p=1.0, transforms=upright, flip=True))
    assert abs(across.sign().mean()) < 0.2
    assert down.abs().max() < 1e-5
    for turn in TURNS:
        across, down = slopes(ADA(p=1.0, transforms=[turn]))
        assert abs(across.mean()) < 0.2 * across.abs().max()
        assert down.abs().max() > 0.01
    assert slopes(ADA(p=1.0), channels=3)[1].abs().max() > 0.01  # photographs are turned, as published


def test_a_gray_run_is_upright_by_default() -> None:
    """Public mistake: RandomHorizontalFlip among the transforms of every data set."""
    run = run_of("data=digits", "augment=ada", "penalty=[consistency,balanced_consistency]")
    assert run.augment.gray_transforms.isdisjoint({*TURNS, "flip"})
    assert not any(penalty.flip for penalty in run.penalties.values())
    batch, _ = run.batches[0]
    examples = run.dataset.spec.decode(run.dataset.train.x)
    assert (batch[:, None] == examples).flatten(2).all(2).any(1).all()  # each is an example as it stands in the file
