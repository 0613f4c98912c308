"""Streams of samples: sample k is the same, bit for bit, whatever the number of samples."""

import math
from pathlib import Path

import pytest
import torch
from helpers import PeakBytes, run_of, train_in
from torch import Tensor, nn

from ganrun.arch.mlp import Generator
from ganrun.data.dataset import DataSpec
from ganrun.latent import Normal
from ganrun.protocols import Latent
from ganrun.training.load import LoadedRun, load
from ganrun.training.run import Run
from ganrun.training.sampling import Sampler, block_size
from ganrun.training.walks import class_walk, interpolated, mixes_classes, walk

CPU = torch.device("cpu")
SHORT = ["train.steps=2", "train.batch_size=8", "train.ema=0.5", "train.sample_every=0", "train.log_every=0",
         "train.diagnose=false", "metric=none", "train.threads=1", "train.device=cpu"]  # fmt: skip
SMALL = ["arch.generator.width=8", "arch.discriminator.width=8"]
DATA = {
    "vectors": ["data=ring", "data.num=300"],
    "images": ["data=digits", *SMALL],
    "images of classes": ["data=digits", *SMALL, "condition=concat"],
    "a fully connected network": ["data=digits", "arch=mlp"],
    "noise inside of G": ["data=digits", "arch=mlp", "+arch.generator.dropout=0.5",
                          "+arch.generator.test_time_dropout=true"],
    "latents that are data": ["data=heights", "latent=data"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train_in(folder, *([*line, *SHORT, f"run_dir={name.replace(' ', '_')}"] for name, line in DATA.items()))
    return folder


def opened(runs: Path, name: str) -> LoadedRun:
    return load(runs / name.replace(" ", "_"), device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_sample_is_the_same_for_any_number_of_samples(name: str, runs: Path) -> None:
    """Common bugs: all latents from one stream of random numbers, and a last batch of another size."""
    run = opened(runs, name)
    size = block_size(run.spec.shape)
    all_of_them = run.sample(3 * size)
    for num in (1, 2, size - 1, size, size + 1, 2 * size + 5):
        assert torch.equal(run.sample(num), all_of_them[:num]), num
    first, second, third = all_of_them.split(size)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert not torch.equal(run.sample(5, seed=1), all_of_them[:5])
    assert not torch.equal(run.sample(5, ema=False), all_of_them[:5])


@pytest.mark.slow
def test_sample_does_not_depend_on_the_labels_of_others(runs: Path) -> None:
    run = opened(runs, "images of classes")
    threes = run.sample(70, labels=3)
    assert torch.equal(run.sample(70)[3::10], threes[3::10])
    assert [y.tolist() for _, y in run.sampler([1, 4]).blocks(5)] == [[1, 4, 1, 4, 1]]
    blocks = list(run.sampler().blocks(130))
    assert [len(x) for x, _ in blocks] == [64, 64, 2]
    assert torch.cat([y for _, y in blocks]).tolist() == [k % 10 for k in range(130)]


def test_sample_of_vectors_with_classes_is_the_same_for_any_number_of_samples() -> None:
    G = Generator(DataSpec((3,), classes=("a", "b")), z_dim=4, label_dim=2)
    sampler = Sampler(G, Normal(4), (3,), CPU, seed=0, classes=torch.tensor([1, 0, 0]))
    (first, y), (second, _) = sampler.blocks(5000)
    assert len(first) == 4096
    assert y[:4].tolist() == [1, 0, 0, 1]
    assert torch.equal(torch.cat([x for x, _ in sampler.blocks(4100)]), torch.cat([first, second])[:4100])
    assert torch.equal(next(iter(sampler.blocks(7)))[0], first[:7])


def test_g_gets_only_whole_blocks_of_latents_that_are_drawn_on_the_cpu() -> None:
    run = run_of(*DATA["images"])
    seen: list[Tensor] = []
    run.G.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0].clone()))
    state = torch.get_rng_state()
    run.G.train()
    sampler = Sampler(run.G, run.latent, run.dataset.spec.shape, CPU, seed=0)
    assert sum(len(x) for x, _ in sampler.blocks(130)) == 130
    assert [len(z) for z in seen] == [64, 64, 64]
    assert run.G.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sampler.first_latents([0, 5, 0])[::2], seen[0][[0, 0]])


def test_large_images_come_in_small_blocks() -> None:
    assert [block_size((3, side, side)) for side in (8, 64, 128, 256, 2048)] == [64, 64, 16, 4, 1]
    assert block_size((2,)) == block_size((7, 5)) == 4096


@pytest.mark.slow
def test_blocks_take_the_same_memory_for_any_number_of_samples() -> None:
    run = run_of(*DATA["images"])
    sampler = Sampler(run.G, run.latent, run.dataset.spec.shape, CPU, seed=0, classes=torch.arange(3))

    def peak(num: int) -> int:
        with PeakBytes() as bytes_:
            for _ in sampler.blocks(num):
                pass
        return bytes_.peak

    peak(64)
    assert peak(64 * 12) <= peak(64 * 3)


@pytest.mark.slow
def test_truncated_samples_are_those_of_bounded_latents(runs: Path) -> None:
    run = opened(runs, "images")
    seen: list[Tensor] = []
    hook = run.G_ema.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    free, bounded = run.sample(70), run.sample(70, truncation=0.7)
    hook.remove()
    assert 0.69 < torch.cat(seen[2:]).abs().max() <= 0.7
    assert torch.equal(torch.cat(seen[:2]) > 0, torch.cat(seen[2:]) > 0)
    assert (bounded - free).abs().max() > 0
    assert torch.equal(run.sample(3, truncation=0.7), bounded[:3])
    for threshold, message in [
        (0, "truncation=0: must be greater than 0"),
        (math.inf, "truncation=inf: must be greater than 0"),
        (math.nan, "truncation=nan: must be greater than 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            run.sample(3, truncation=threshold)
    with pytest.raises(ValueError, match="truncation: is defined for normal latents"):
        opened(runs, "latents that are data").sample(3, truncation=0.5)


@pytest.mark.slow
def test_walks_lead_from_the_first_sample_of_a_seed_to_that_of_the_next(runs: Path) -> None:
    for name in ("images", "images of classes", "vectors"):
        run = opened(runs, name)
        walks = run.interpolate([4, 1, 0], steps=5)
        assert walks.shape == (2, 5, *run.spec.shape)
        labels = [[0], [1], [2]] if run.condition.uses_labels else [None] * 3
        ends = [run.sample(1, label, seed)[0] for seed, label in zip([4, 1, 0], labels, strict=True)]
        found = [walks[0, 0], walks[0, -1], walks[1, -1]]
        for sample, end in zip(found, ends, strict=True):
            torch.testing.assert_close(sample, end, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(walks[0, -1], walks[1, 0], rtol=1e-4, atol=1e-5)
        assert len(walks.flatten(0, 1).flatten(1).unique(dim=0)) >= 9
    still = opened(runs, "images of classes").interpolate([7], steps=3, labels=[2, 2, 5])
    assert still.shape == (2, 3, 1, 8, 8)
    torch.testing.assert_close(still[0, 0], still[0, 2])
    assert not torch.allclose(still[1, 0], still[1, 2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1}, "steps=1: must be at least 2"),
        ({"seeds": [3]}, r"seeds=\[3\]: name two or more"),
        ({"seeds": []}, r"seeds=\[\]: name two or more"),
        ({"labels": [1, 2]}, "labels: this run uses none"),
        ({"truncation": -1}, "truncation=-1: must be greater than 0"),
    ],
)
@pytest.mark.slow
def test_walk_that_cannot_be_drawn_is_one_sentence(settings: dict[str, object], message: str, runs: Path) -> None:
    with pytest.raises(ValueError, match=message):
        opened(runs, "images").interpolate(**settings)


def test_points_of_a_walk_are_evenly_spaced_and_include_both_ends() -> None:
    class Line(Latent):
        dim = 1

    z = torch.tensor([[0.0], [4.0], [2.0]])
    assert walk(Line(), z, 5).flatten().tolist() == [0, 1, 2, 3, 4, 4, 3.5, 3, 2.5, 2]


def test_classes_change_evenly_or_halfway() -> None:
    y = torch.tensor([2, 0])
    assert class_walk(y, 4, 3, mixed=False).tolist() == [2, 2, 0, 0]
    mixed = class_walk(y, 3, 3, mixed=True)
    assert mixed.tolist() == [[0, 0, 1], [0.5, 0, 0.5], [1, 0, 0]]


OWN = "condition=own"
MIXING = {
    "mlp": ["data=digits", "arch=mlp", "condition=concat"],
    "dcgan": ["data=digits", *SMALL, "condition=concat"],
    "dcgan with batch norm of classes": ["data=digits", *SMALL, "condition=projection"],
    "sngan": ["data=digits", "arch=sngan", *SMALL, "condition=concat"],
    "wgan_gp": ["data=digits", "arch=wgan_gp", *SMALL, "condition=concat"],
    "goodfellow2014": ["data=digits", "arch=goodfellow2014_mnist", "data.value_range=[0,1]", "condition=concat"],
    "biggan": ["data=digits", "arch=biggan", *SMALL, OWN],
    "biggan with a shared embedding": ["data=digits", "arch=biggan", *SMALL, OWN, "arch.generator.shared_dim=6"],
    "r3gan": ["data=digits", "arch=r3gan", *SMALL, OWN],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", MIXING.values(), ids=MIXING.keys())
def test_weights_of_classes_generalize_labels(line: list[str]) -> None:
    """A weight of 1 gives what the label gives, weights in between something else; in both modes of the network."""
    run = run_of(*line, "train.batch_size=8")
    different_classes(run)
    assert mixes_classes(run.G)
    G, num = run.G.eval(), run.dataset.spec.num_classes
    z, y = run.latent(4, CPU), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        expected, found = G(z, y), G(z, nn.functional.one_hot(y, num).float())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        mean = G(z[:1], torch.full((1, num), 1 / num))
    assert not any(torch.allclose(mean, G(z[:1], torch.tensor([k])), atol=1e-4) for k in range(num))


def different_classes(run: Run) -> None:
    """Let every class have other embeddings: those of batch norms are all the same at the start."""
    for layer in run.G.modules():
        if isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, 1.0, 0.5)


def test_generator_that_does_not_declare_it_gets_labels() -> None:
    seen: list[Tensor] = []

    class Own(nn.Module):
        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            seen.append(y)
            return z

    class Mixing(Own):
        mixes_classes = True

    run = run_of(*MIXING["mlp"])
    z = run.latent(2, CPU)
    for G in (Own(), Mixing()):
        found = interpolated(G, run.latent, run.dataset.spec, z, torch.tensor([5, 7]), 4)
        assert found.shape == (1, 4, z.shape[1])  # of this G, the latents
    assert seen[0].tolist() == [5, 5, 7, 7]
    torch.testing.assert_close(seen[1][:, [5, 7]], torch.tensor([[1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1]]))
