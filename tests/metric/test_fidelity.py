"""metric=fidelity: its keys, both sides, what it caches and refuses, and that it does not disturb training."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Here
from helpers import REPO, config_of, result_of, run_of, train_in, without_test
from planted import Planted
from torch import Tensor

from ganrun.data.dataset import image_spec
from ganrun.data.digits import digits
from ganrun.data.seeds import generator
from ganrun.data.toy import ring
from ganrun.features.classifier import Classifier
from ganrun.metric import scores as formulas
from ganrun.metric.fidelity import Fidelity
from ganrun.protocols import MetricKey

DIGITS = digits()
ALL = ("fd", "kid", "is", "prdc")
QUICK: dict[str, Any] = {"num": 200, "kid_subsets": 5, "kid_size": 50, "num_nearest": 100}
FEATURES = ["features=classifier", "features.width=4", "features.epochs=1"]
METRIC = ["metric=fidelity", "metric.fidelity.num=150", "metric.fidelity.kid_subsets=3"]


def metric(features: Planted | None = None, **settings: Any) -> Fidelity:
    return Fidelity(features or Planted(), **{**QUICK, **settings})


def samples(num: int = 200, noise: float = 0.3) -> Tensor:
    x = DIGITS.spec.decode(DIGITS.train.x[-num:])
    return (x + noise * torch.randn(x.shape, generator=generator(0, "noise"))).clamp(-1, 1)


# Keys


def test_keys_carry_the_network_and_the_number_of_samples() -> None:
    found = metric(scores=ALL)(samples(), DIGITS)
    assert [key for key in found if key.count("_") == 2] == [
        "fd_planted_200", "kid_planted_200", "is_planted_200", "precision_planted_100", "recall_planted_100",
        "density_planted_100", "coverage_planted_100",
    ]  # fmt: skip
    assert found.keys() - {key for key in found if key.count("_") == 2} == {
        "fd_planted_200_floor", "kid_planted_200_std", "kid_planted_200_floor", "is_planted_200_std",
        "is_planted_200_real", "precision_planted_100_real", "recall_planted_100_real", "density_planted_100_real",
        "coverage_planted_100_real",
    }  # fmt: skip


def test_frechet_distance_is_called_fid_only_for_inception() -> None:
    features = Planted()
    features.name, features.frechet = "inception", "fid"
    assert "fid_inception_200" in metric(features).keys(DIGITS.spec, True)


def test_directions_are_declared_and_test_data_cannot_choose() -> None:
    keys = metric(scores=ALL).keys(DIGITS.spec, True)
    assert {name: key.better for name, key in keys.items() if key.better} == {
        "fd_planted_200": "lower", "kid_planted_200": "lower", "is_planted_200": "higher",
        "precision_planted_100": "higher", "recall_planted_100": "higher", "density_planted_100": "higher",
        "coverage_planted_100": "higher",
    }  # fmt: skip
    assert not any(key.from_test for key in keys.values())
    of_test = metric(scores=ALL, split="test").keys(DIGITS.spec, True)
    assert {name for name, key in of_test.items() if not key.from_test and key.better} == {"is_planted_200"}


def test_floor_with_fewer_images_says_how_many() -> None:
    data = replace(DIGITS, valid=DIGITS.valid[:120])
    found = metric(split="train")(samples(), data)
    assert found["fd_planted_200_floor_num"] == 120
    assert "fd_planted_200_floor" in found


def test_no_floor_without_held_out_images() -> None:
    data = replace(DIGITS, valid=DIGITS.valid[:0])
    assert not [key for key in metric(split="train")(samples(), data) if "floor" in key]
    assert not [key for key in metric(floor=False)(samples(), DIGITS) if "floor" in key]


# Both sides


def expected(fake: Tensor, real: Tensor) -> float:
    features = Planted()
    return formulas.frechet_distance(features(fake).features, features(real).features)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_real_images_are_those_of_the_split(split: str) -> None:
    real = DIGITS.splits()[split].x[:230]
    found = metric(split=split, num_real=230)(samples(), DIGITS)
    fake = DIGITS.spec.encode(samples())
    assert found["fd_planted_200"] == pytest.approx(expected(fake, real), rel=1e-6)


def test_test_data_are_used_only_with_split_test() -> None:
    data = without_test(DIGITS)
    assert metric(scores=ALL)(samples(), data) == metric(scores=ALL)(samples(), DIGITS)
    assert metric(scores=ALL, split="train")(samples(), data) == metric(scores=ALL, split="train")(samples(), DIGITS)


def test_only_the_first_num_samples_count() -> None:
    assert metric(num=150)(samples()[:150], DIGITS) == metric(num=150)(samples(), DIGITS)


def test_scores_are_a_function_of_the_samples() -> None:
    before = torch.get_rng_state()
    assert metric(scores=ALL)(samples(), DIGITS) == metric(scores=ALL)(samples(), DIGITS)
    assert torch.equal(before, torch.get_rng_state())


def test_normalized_images_are_encoded_on_both_sides() -> None:
    """Samples of normalized data have no original contrast, so real images are compared without theirs, too."""
    data = replace(DIGITS, spec=DIGITS.spec.normalized(10))
    x = data.spec.decode(DIGITS.valid.x)
    assert metric(num=250)(x, data)["fd_planted_250"] == pytest.approx(0, abs=1e-6)


def test_samples_that_are_the_real_images_have_distance_zero() -> None:
    x = DIGITS.spec.decode(DIGITS.valid.x)
    found = metric(num=250, scores=ALL)(x, DIGITS)
    assert abs(found["fd_planted_250"]) < 1e-3
    assert found["precision_planted_100"] == found["recall_planted_100"] == 1


# The protocol, and the cache


def test_protocol_has_both_numbers_split_sizes_and_network() -> None:
    measure = metric(scores=ALL)
    measure(samples(), DIGITS)
    assert measure.protocol() == {
        "planted_200": {
            "split": "valid", "num": 200, "num_real": 250, "size": [1, 8, 8],
            "features": {"network": "planted", "dim": 4}, "kid_subsets": 5, "kid_size": 50, "num_nearest": [100, 100],
            "reference_split": "train", "num_reference": 200,
        }
    }  # fmt: skip
    assert json.loads(json.dumps(measure.protocol())) == measure.protocol()


def test_real_images_are_mapped_once_for_all_runs() -> None:
    features = Planted()
    measure = metric(features)
    first = measure(samples(), DIGITS)
    assert sorted(features.mapped) == [200, 200, 250]  # samples, those of the floor, and the validation images
    measure(samples(), DIGITS)
    assert features.mapped[3:] == [200]
    other = Planted()
    assert metric(other)(samples(), DIGITS) == first
    assert other.mapped == [200]
    another = Planted(dim=5)
    metric(another)(samples(), DIGITS)
    assert sorted(another.mapped) == [200, 200, 250]


def test_other_real_images_are_mapped_again() -> None:
    features = Planted()
    measure = metric(features)
    a = measure(samples(), DIGITS)
    b = measure(samples(), replace(DIGITS, valid=DIGITS.valid[:200]))
    assert a["fd_planted_200"] != b["fd_planted_200"]
    assert a["fd_planted_200_floor"] != b["fd_planted_200_floor"]


# What is refused


def test_too_few_images_and_other_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"metric\.fidelity\.num=4: must be at least 5, one more than the 4 features"):
        metric(num=4).check(DIGITS)
    few = replace(DIGITS, valid=DIGITS.valid[:4])
    with pytest.raises(ValueError, match=r"has 4 valid images to compare with, and needs at least 5, .*split=train"):
        metric().check(few)
    metric(scores=["kid"]).check(few)
    with pytest.raises(ValueError, match=r"has 4 valid images .* at least 6, for nearest neighbors"):
        metric(scores=["prdc"]).check(few)
    with pytest.raises(ValueError, match="compares images, and these data are vectors"):
        metric().check(ring(8, 2, 0.1, 100))
    no_logits = Planted()
    no_logits.has_logits = False
    with pytest.raises(ValueError, match="needs class logits"):
        metric(no_logits, scores=["is"]).check(DIGITS)


@pytest.mark.parametrize(
    ("setting", "value"), [("num", 1), ("num_real", 1), ("kid_subsets", 0), ("kid_size", 1), ("num_nearest", 5)]
)
def test_numbers_out_of_range_are_refused(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{setting}={value}: must be at least"):
        metric(**{setting: value})


@pytest.mark.parametrize("chosen", [(), ("fd", "fd")])
def test_scores_must_be_named_once(chosen: Sequence[str]) -> None:
    with pytest.raises(ValueError, match="must name one score or several, each once"):
        metric(scores=chosen)


def test_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganrun.metric.fidelity.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs torch_fidelity, which is not installed; `pip install torch-fidelity`"):
        metric().check(DIGITS)


# Which fault lowers which score: see also docs/fidelity.md


def test_each_fault_is_noticed_by_a_score() -> None:
    x = image_spec(DIGITS.train.x, ()).decode(DIGITS.train.x[:200])
    measure = metric(Planted(dim=8), scores=ALL, num_nearest=200)
    good = measure(x, DIGITS)
    collapsed = measure(x[:1].expand(200, -1, -1, -1) + 0 * x, DIGITS)
    noisy = measure((x + torch.randn(x.shape, generator=generator(0, "noise"))).clamp(-1, 1), DIGITS)
    for bad in (collapsed, noisy):
        assert bad["fd_planted_200"] > 3 * good["fd_planted_200"]
        assert bad["kid_planted_200"] > good["kid_planted_200"] + 0.1
    assert collapsed["recall_planted_200"] < 0.2 < 0.5 < good["recall_planted_200"]
    assert noisy["precision_planted_200"] < good["precision_planted_200"]


def test_table_of_faults_is_the_measured_one_and_each_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    benchmark = importlib.import_module("fidelity")
    found = json.loads((REPO / "benchmarks" / "fidelity.json").read_text())["values"]
    assert benchmark.table(found) in (REPO / "docs" / "fidelity.md").read_text()
    good = found.pop("none (real images)")
    noticed_by = {
        "collapsed to one image": "coverage", "collapsed to 100 images": "recall", "only ones": "coverage",
        "a class missing": "recall", "blurred": "precision", "noisy": "precision", "pure noise": "density",
        "wrong labels": "label_accuracy",
    }  # fmt: skip
    for fault, column in noticed_by.items():
        key = benchmark.COLUMNS[column]
        assert found[fault][key] < 0.95 * good[key], fault
        if fault != "wrong labels":
            assert found[fault]["fd_mnistcnn_5k"] > 10 * good["fd_mnistcnn_5k"], fault
    copies = found.pop("copies of training images")
    assert copies["copies_1k"] == 1
    assert {values["copies_1k"] for values in found.values()} == {0}


# In runs


def test_default_network_is_the_classifier_of_the_data() -> None:
    run = run_of("data=digits", "metric=fidelity", "metric.fidelity.num=150")
    measure = run.metrics["fidelity"]
    assert isinstance(measure, Fidelity)
    assert isinstance(measure.features, Classifier)
    assert measure.keys(run.dataset.spec, True)["fd_digitscnn_150"] == MetricKey("lower")
    assert config_of("data=digits", "metric=fidelity").get("features") is None


OWN = """
from ganrun.protocols import Extracted


class Rows:
    name, dim = "rows", 8

    def __call__(self, images):
        return Extracted(images.float().mean((1, 3)) / 255)


class NoDim:
    def __call__(self, images):
        return Extracted(images.flatten(1).float())
"""


@pytest.mark.slow
def test_own_network_without_a_base_class(here: Here, tmp_path: Path) -> None:
    (tmp_path / "my_features.py").write_text(OWN)
    (tmp_path / "conf" / "features").mkdir(parents=True)
    for name, kind in (("rows", "Rows"), ("no_dim", "NoDim")):
        (tmp_path / "conf" / "features" / f"{name}.yaml").write_text(f"# Mine.\n_target_: my_features.{kind}\n")
    line = ["data=digits", "train.steps=1", "train.threads=1", "train.diagnose=false", *METRIC, "run_dir=r"]
    code, _, err = here(*line, "features=no_dim")
    assert (code, err) == (2, "features: declares no dim, the number of its features (ganrun.protocols.Features).\n")
    code, _, err = here(*line, "features=rows")
    assert code == 0, err
    assert {"fd_rows_150", "fd_rows_150_floor", "kid_rows_150"} <= result_of(tmp_path / "r")["metrics"].keys()
    assert here(*line, "features=rows", "metric.fidelity.scores=[is]", "run_dir=other")[0] == 2


@pytest.mark.slow
def test_evaluation_does_not_change_the_training_by_a_bit(tmp_path: Path) -> None:
    """The classifier is trained within the second run, at step 4."""
    base = [
        "data=digits",
        "train.steps=8",
        "train.threads=2",
        "train.batch_size=8",
        "train.diagnose=false",
        "train.ema=0.9",
    ]
    train_in(
        tmp_path,
        [*base, "run_dir=without"],
        [*base, *METRIC, *FEATURES, "train.metric_every=4", "train.keep_best=fd_digitscnn_150", "run_dir=with"],
    )
    one, two = (
        torch.load(tmp_path / name / "checkpoints/step_00000008.pt", weights_only=True) for name in ("without", "with")
    )
    for part in ("G", "D", "G_ema"):
        assert all(torch.equal(one[part][key], two[part][key]) for key in one[part])
    assert result_of(tmp_path / "with")["best"]["key"] == "fd_digitscnn_150"
    protocol = result_of(tmp_path / "with")["protocols"]["fidelity_digitscnn_150"]
    assert (protocol["split"], protocol["num"], protocol["num_real"]) == ("valid", 150, 250)
    assert protocol["features"]["accuracy_split"] == "valid"


@pytest.mark.slow
def test_run_is_evaluated_with_other_features_and_scores(here: Here, tmp_path: Path) -> None:
    train_in(
        tmp_path,
        ["data=digits", "train.steps=2", "train.threads=1", "train.diagnose=false", *METRIC, *FEATURES, "run_dir=r"],
    )
    first = result_of(tmp_path / "r")
    code, out, err = here("evaluate", "run_dir=r", *METRIC, "metric.fidelity.scores=[is]", "features=classifier",
                          "features.width=4", "features.epochs=2")  # fmt: skip
    assert code == 0, err
    second = result_of(tmp_path / "r")
    assert second["metrics"].items() >= first["metrics"].items()
    assert "is_digitscnn_150" in second["metrics"]
    assert "is_digitscnn_150" in out + err
    code, _, err = here("evaluate", "run_dir=r", "metric=label_accuracy")
    assert (code, err.count("\n")) == (2, 1)
    assert "metric=label_accuracy: needs a conditional run" in err


def test_keep_best_refuses_a_key_of_test_data(here: Here) -> None:
    line = ["data=digits", *METRIC, "train.metric_every=1", "train.keep_best=fd_digitscnn_150", "train.steps=2"]
    code, _, err = here(*line, "metric.fidelity.split=test")
    assert code == 2
    assert "is computed from test data, which must not choose a checkpoint" in err
