"""features=classifier: how accurate it is, that it is trained once, and that it changes nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import state_of

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.digits import digits
from ganrun.data.published import mnist
from ganrun.data.seeds import generator
from ganrun.features import classifier, network
from ganrun.features.classifier import Classifier
from ganrun.features.network import Network, Recipe, trained

DIGITS = digits()
QUICK = Recipe(width=4, epochs=1, stride=2, flip=False)
CPU = torch.device("cpu")


def small(num: int = 200) -> Dataset:
    return replace(DIGITS, train=DIGITS.train[:num])


def prepared(data: Dataset, **settings: object) -> Classifier:
    features = Classifier(**{"width": 4, "epochs": 1, "data_name": "digits", **settings})  # type: ignore[arg-type]
    features.check(data)
    features.prepare(data)
    return features


@pytest.mark.slow
def test_accuracy_on_digits() -> None:
    features = prepared(DIGITS, width=32, epochs=40)
    protocol = features.protocol()
    assert protocol["accuracy"] > 0.95
    logits = features(DIGITS.test.x).logits
    assert logits is not None
    assert (logits.argmax(1) == DIGITS.test.y).double().mean() > 0.95


@pytest.mark.slow
def test_accuracy_on_mnist_with_the_default_settings(shared_data: Path) -> None:
    data = mnist(str(shared_data))
    features = Classifier(data_name="mnist")
    features.prepare(data)
    assert features.protocol()["accuracy"] >= 0.99
    assert features.protocol()["accuracy_split"] == "valid"


def test_training_is_deterministic_and_changes_no_state_of_torch() -> None:
    data = small()
    torch.manual_seed(5)
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    with torch.inference_mode():
        first = trained(((1, 8, 8), 10), data.train, QUICK, CPU)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    second = trained(((1, 8, 8), 10), data.train, QUICK, CPU)
    assert all(torch.equal(a, b) for a, b in zip(state_of(first).values(), state_of(second).values(), strict=True))


def test_network_is_trained_once_for_the_same_data_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: object) -> Network:
        calls.append(arguments)
        return trained(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(classifier, "trained", counted)
    data = small()
    first, second = prepared(data), prepared(small())
    assert len(calls) == 1
    assert first.protocol() == second.protocol()
    assert torch.equal(first(data.valid.x).features, second(data.valid.x).features)
    prepared(data, epochs=2)
    prepared(small(199))
    other = data.train.y.roll(1) if data.train.y is not None else None
    prepared(replace(data, train=Split(data.train.x, other)))
    assert len(calls) == 4


def test_features_do_not_depend_on_the_other_images() -> None:
    features = prepared(small())
    x = DIGITS.valid.x
    together = features(x)
    alone = torch.cat([features(x[i : i + 1]).features for i in range(5)])
    torch.testing.assert_close(together.features[:5], alone)
    assert together.features.shape == (250, features.dim)
    assert together.logits is not None
    assert together.logits.shape == (250, 10)


def test_training_images_are_used_as_they_are_encoded() -> None:
    """float32 images, and uint8 ones that are normalized, are trained on as samples are seen."""
    x = DIGITS.spec.decode(DIGITS.train.x[:100])
    floats = replace(DIGITS, train=Split(x, DIGITS.train.y[:100]))  # type: ignore[index]
    stored = replace(DIGITS, train=DIGITS.train[:100])
    one, two = prepared(floats), prepared(stored)
    assert one.protocol()["weights"] == two.protocol()["weights"]


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 28, 28), (28, 28)), ((3, 32, 32), (32, 32)), ((3, 64, 96), (43, 64)), ((3, 256, 256), (64, 64)),
     ((1, 3, 3), (3, 3))],
)  # fmt: skip
def test_network_takes_images_of_any_size_and_reduces_large_ones(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    for stride in (1, 2):
        net = Network(shape, 3, 4, stride).eval()  # type: ignore[arg-type]
        features, logits = net(torch.zeros(2, *shape, dtype=torch.uint8))
        assert (features.shape, logits.shape, net.size) == ((2, network.DIM), (2, 3), size)


def test_images_are_shifted_and_mirrored_as_chosen() -> None:
    x = torch.arange(28 * 28).remainder(251).to(torch.uint8).reshape(1, 1, 28, 28).expand(64, -1, -1, -1)
    split = Split(x, torch.zeros(64, dtype=torch.long))
    plain = [batch for k in range(12) for batch, _ in network._batches(split, replace(QUICK, batch_size=64), k, CPU)]
    flipped = [
        batch
        for k in range(12)
        for batch, _ in network._batches(split, replace(QUICK, batch_size=64, flip=True), k, CPU)
    ]
    inner = x[:, :, 2:-2, 2:-2]
    assert len({batch[0].numpy().tobytes() for batch in plain}) > 3
    assert all(
        any(torch.equal(batch[:, :, i : 24 + i, j : 24 + j], inner) for i in range(5) for j in range(5))
        for batch in plain
    )
    assert any(
        not any(torch.equal(batch[:, :, i : 24 + i, j : 24 + j], inner) for i in range(5) for j in range(5))
        for batch in flipped
    )


def test_defaults_fit_the_data() -> None:
    features = Classifier()
    assert features.recipe(DIGITS).epochs == 100  # 1,000 steps of 10 batches
    assert not features.recipe(DIGITS).flip
    assert Classifier(flip=True).recipe(DIGITS).flip
    x = torch.randint(256, (8, 3, 8, 8), generator=generator(0, "x"), dtype=torch.uint8)
    y = torch.arange(8) % 2
    animals = Dataset(
        DataSpec((3, 8, 8), (-1.0, 1.0), classes=("cat", "dog")), Split(x, y), Split(x[:0], y[:0]), Split(x[:0], y[:0])
    )
    assert features.recipe(animals).flip
    assert prepared(animals).protocol()["accuracy_split"] == "train"


def test_data_without_labels_or_images_are_refused() -> None:
    unlabeled = Dataset(DataSpec((1, 8, 8), (-1.0, 1.0)), *(Split(s.x) for s in DIGITS.splits().values()))
    with pytest.raises(ValueError, match="needs data with labels"):
        Classifier().check(unlabeled)
    vectors = Dataset(DataSpec((2,)), Split(torch.zeros(3, 2)), Split(torch.zeros(0, 2)), Split(torch.zeros(0, 2)))
    with pytest.raises(ValueError, match="needs images"):
        Classifier().check(vectors)
    for setting in ("width", "epochs"):
        with pytest.raises(ValueError, match=f"{setting}=0: must be at least 1"):
            Classifier(**{setting: 0})
