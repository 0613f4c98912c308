"""The diagnosis: measurements against cases that are known, and each finding there and not there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import config_of, run_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from ganrun.diagnosis.diagnosis import Diagnosis, diagnose
from ganrun.diagnosis.history import course
from ganrun.diagnosis.measure import slope_of
from ganrun.diagnosis.remedy import command, remedy
from ganrun.diagnosis.samples import compare, copying
from ganrun.training.build import build
from ganrun.training.game import DUpdate, scalars

pytestmark = pytest.mark.slow  # as a whole it takes too long for `make test-fast`

N = 400


def gaussian(seed: int, n: int = N, d: int = 2) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def two_modes(seed: int, share: float = 0.5, d: int = 2) -> Tensor:
    x = 0.1 * gaussian(seed, d=d)
    x[: round(share * N), 0] += 10
    return x


# Samples


@pytest.mark.parametrize("d", [1, 2, 64])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_real_examples_look_real_in_any_unit_and_dimension(d: int, scale: float) -> None:
    m = compare(scale * (5 + gaussian(0, d=d)), scale * (5 + gaussian(1, d=d)), scale * (5 + gaussian(2, d=d)), 1.0)
    assert m["energy"] < 0.01
    assert m["diversity"] == pytest.approx(1, abs=0.1)
    assert m["two_sample"] == pytest.approx(0.5, abs=0.06)
    assert m["coverage"] == pytest.approx(1 - 2**-5, abs=0.04)
    assert m["away"] == pytest.approx(1, abs=0.05)
    assert m["lost"] == pytest.approx(0, abs=0.03)
    assert m["astray"] == pytest.approx(m["astray_real"], abs=0.08)
    assert m["duplicates"] == pytest.approx(m["duplicates_real"], abs=0.06)


def test_a_lost_mode_is_its_share_of_the_data() -> None:
    m = compare(two_modes(0, 0.0), two_modes(1), two_modes(2), 1.0)
    assert m["lost"] == pytest.approx(0.5, abs=0.01)
    assert m["astray"] == 0
    assert m["diversity"] < 0.1
    assert compare(two_modes(0, 0.5), two_modes(1), two_modes(2), 1.0)["lost"] == 0


def test_one_point_is_many_duplicates_and_a_few_points_are_counted() -> None:
    real, other = gaussian(1), gaussian(2)
    assert compare(torch.zeros(N, 2), real, other, 1.0)["duplicates"] == 1
    few = gaussian(0, 20)[torch.randint(0, 20, (N,), generator=torch.Generator().manual_seed(3))]
    assert compare(few, real, other, 1.0)["support"] == pytest.approx(20, rel=0.2)


def test_noise_is_astray_and_told_from_data_but_loses_nothing() -> None:
    real, other = gaussian(1, d=64), gaussian(2, d=64)
    m = compare(gaussian(0, d=64) + 1.5 * gaussian(3, d=64), real, other, 1.0)
    assert m["astray"] > 0.9
    assert m["two_sample"] > 0.9
    assert m["lost"] < 0.05


def test_a_point_mass_is_measured_in_the_spread() -> None:
    real = torch.zeros(N, 1)
    assert compare(real, real, real, 1.0)["energy"] == 0
    m = compare(real + 0.3, real, real, 1.0)
    assert (m["energy"], m["away"]) == pytest.approx((0.3, 0.3))


def test_copies_are_told_from_new_examples() -> None:
    train, unseen = gaussian(0, d=8), gaussian(1, d=8)
    copies = train[torch.randint(0, N, (N,), generator=torch.Generator().manual_seed(3))] + 1e-4
    for held_out in (unseen, None):
        m = copying(copies, train, held_out)
        assert (m["copies"], m["copies_real"]) == (1, 0)
        assert m["copy_ratio"] < 0.01
        assert m["originals"] == pytest.approx(1, abs=0.1)
        m = copying(gaussian(2, d=8), train, held_out)
        assert m["copies"] == 0
        assert m["copy_ratio"] == pytest.approx(1, abs=0.1)
    assert copying(train[:1].expand(N, -1), train, unseen)["originals"] < 0.01


# The record


def row(step: int, **changes: float) -> dict[str, Any]:
    usual = {"loss/d": 1.4, "loss/g": 0.7, "logits/real": 0.1, "logits/fake": -0.1}
    return {"step": step, **usual, "accuracy/pairs": 0.55, "grad_norm/g": 1.0} | changes


def test_the_last_quarter_speaks_for_the_end() -> None:
    rows = [row(-1, **{"accuracy/pairs": 9.0}), *(row(k) for k in range(1, 301))]
    rows += [row(k, **{"accuracy/pairs": k % 2, "grad_norm/g": 0.01, "logits/real": 1e6}) for k in range(301, 401)]
    m = course([*rows, {"step": 400, "metric/fid_10k": 3.0}])
    assert (m["pairs"], m["pairs_swing"], m["pairs_wrong"]) == (0.5, 0.5, 0.5)
    assert (m["g_gradient"], m["largest"], m["recorded"]) == (0.01, 1e6, 400)
    assert course([]) == {"recorded": 0.0}


def test_accuracy_is_logged_by_pairs_and_by_sign_where_it_means_something() -> None:
    real, fake = torch.tensor([3.0, -1.0]), torch.tensor([-2.0, 3.0])
    found = scalars(DUpdate(torch.tensor(0.0), real, fake, {}, (torch.ones(1),), logistic=True))
    assert found["accuracy/pairs"] == (1 + 0.5 + 1 + 0) / 4  # 3 > -2, 3 = 3, -1 > -2, -1 < 3
    assert (found["accuracy/real"], found["accuracy/fake"]) == (0.5, 0.5)
    assert "accuracy/real" not in scalars(DUpdate(torch.tensor(0.0), real, fake, {}, (torch.ones(1),)))


def test_the_slope_of_a_loss_that_saturates() -> None:
    """Before a D that is sure of its fakes, logit -20: 2e-9 * 2 for minimax, and twice as steep for the other."""
    for loss, expected in (("minimax", 4.1e-9), ("nonsaturating", 2.0), ("wgan", 1.0), ("rpgan", 1.0)):
        run = run_of(f"loss={loss}", "penalty=none", "train.n_critic=1")
        with torch.no_grad():
            for p in run.D.parameters():
                p.zero_()
            run.D.output.bias.fill_(-20)
        assert slope_of(run, torch.full((50, 1), 69.0), None) == pytest.approx(expected, rel=0.01)
    assert slope_of(run_of("loss=feature_matching"), torch.full((50, 1), 69.0), None) is None


# Findings

REAL = {
    "energy": 0.0,
    "diversity": 1.0,
    "duplicates": 0.05,
    "lost": 0.0,
    "astray": 0.0,
    "coverage": 0.97,
    "two_sample": 0.5,
}
GOOD = {"finite": 1.0, **REAL, **{f"{key}_real": value for key, value in REAL.items()}}
GOOD |= {"copy_ratio": 1.0, "copies": 0.0, "copies_real": 0.0, "originals": 1.0, "away": 1.0}
GOOD |= {"pairs": 0.55, "pairs_swing": 0.03, "pairs_wrong": 0.0, "slope": 1.0, "g_gradient": 0.3, "largest": 2.0}
POOR = {"energy": 0.4, "coverage": 0.1, "astray": 0.9, "two_sample": 1.0, "pairs": 0.8}
CASES: list[tuple[dict[str, float], str]] = [
    ({}, "healthy"),
    ({"pairs": 0.99, "pairs_swing": 0.5, "pairs_wrong": 0.5, "slope": 0.0}, "healthy"),  # for the samples are good
    ({"coverage": 0.5, "astray": 0.5, "two_sample": 0.9, "pairs": 0.9}, "healthy"),  # of images, real enough
    (POOR, "not_converged"),
    ({**POOR, "pairs": 0.97}, "d_too_strong"),
    ({**POOR, "pairs": 0.97, "slope": 0.01}, "vanishing_gradients"),
    ({**POOR, "pairs": 0.97, "g_gradient": 0.001}, "vanishing_gradients"),
    ({**POOR, "pairs": 0.8, "slope": 0.01}, "not_converged"),  # D is not sure of it
    ({**POOR, "pairs": 0.55}, "d_blind"),
    ({**POOR, "pairs": 0.0}, "d_blind"),
    ({**POOR, "pairs": 0.55, "two_sample": 0.7}, "not_converged"),  # nobody sees much
    ({**POOR, "pairs": 0.55, "pairs_swing": 0.3, "pairs_wrong": 0.3}, "oscillation"),
    ({**POOR, "pairs_swing": 0.3, "pairs_wrong": 0.3, "label_noise": 0.45}, "d_blind"),
    ({**POOR, "pairs_swing": 0.3, "pairs_wrong": 0.3, "label_noise": 0.1}, "oscillation"),
    ({**POOR, "duplicates": 0.9}, "mode_collapse"),
    ({**POOR, "duplicates": 0.9, "duplicates_real": 0.9}, "not_converged"),  # so do the data
    ({"lost": 0.125, "energy": 0.01}, "mode_collapse"),
    ({"lost": 0.05, "energy": 0.01}, "healthy"),
    ({"diversity": 0.4, "energy": 0.1}, "mode_collapse"),
    ({"diversity": 0.4, "diversity_real": 0.5}, "healthy"),
    ({"copies": 0.5}, "memorization"),
    ({"copies": 0.5, "copies_real": 0.4}, "healthy"),
    ({"copy_ratio": 0.3}, "memorization"),
    ({"copy_ratio": 0.3, "originals": 0.01, "lost": 0.9}, "mode_collapse"),  # always the same copy
    ({"away": 100.0, **POOR}, "divergence"),
    ({"largest": 1e5}, "divergence"),
    ({"diverged": 1.0}, "divergence"),
]


@pytest.mark.parametrize(("changes", "verdict"), CASES)
def test_each_finding_and_none(changes: dict[str, float], verdict: str) -> None:
    found = diagnose({**GOOD, **changes}, config_of(), ["data=heights"])
    assert found.verdict == verdict
    text = found.text()
    for finding, advice in zip(found.findings, found.remedies, strict=True):
        assert all((finding.measurement, finding.threshold, finding.origin))
        assert advice.startswith("ganrun ")
        assert finding.measurement in text
        assert advice in text
    json.dumps(found.as_json(), allow_nan=False)


def test_only_what_is_known_is_judged() -> None:
    assert diagnose({"finite": 0.0, "diverged": 1.0}, config_of()).verdict == "divergence"
    assert diagnose({"recorded": 0.0, "finite": 1.0}, config_of()).verdict == "healthy"


def test_a_remedy_is_the_runs_own_command_with_something_changed() -> None:
    line = ["data=ring", "optimizer@g_optimizer=sgd", "g_optimizer.lr=1", "run_dir=r", "loss=minimax", "seed=3"]
    assert command(line, {"loss": "nonsaturating"}) == (
        "ganrun data=ring optimizer@g_optimizer=sgd g_optimizer.lr=1 seed=3 loss=nonsaturating"
    )
    assert command(line, {"g_optimizer.lr": 0.1}).endswith("loss=minimax seed=3 g_optimizer.lr=0.1")


RUNS = [
    [],
    ["loss=minimax", "train.pretrain_d=5"],
    ["loss=wgan", "penalty=none"],
    ["loss=wgan_gp"],
    ["data=digits"],
    ["data=digits", "arch=mlp", "train.n_gen=5", "train.label_noise=0.45"],
    ["loss=rpgan", "optimizer@d_optimizer=sgd", "d_optimizer.lr=0"],
    ["optimizer@d_optimizer=sgd", "d_optimizer.lr=0.00001"],
    ["data=digits", "augment=ada", "penalty=lecam", "train.update=simultaneous"],
]
ILLNESSES = sorted({verdict for _, verdict in CASES} - {"healthy"})


@pytest.mark.parametrize("line", RUNS, ids=" ".join)
@pytest.mark.parametrize("illness", ILLNESSES)
def test_every_remedy_can_be_run_and_changes_something(line: list[str], illness: str) -> None:
    import shlex

    before = config_of(*line)
    typed = shlex.split(command(line, remedy(illness, before, "data=digits" in line)))[1:]
    after = config_of(*typed)
    assert after != before
    build({**after, "train": {**after["train"], "threads": 1, "device": "cpu"}})


# The command


def test_a_run_ends_with_its_diagnosis(here, tmp_path: Path) -> None:
    line = ["train.steps=40", "train.log_every=4", "train.sample_every=0"]
    code, out, _ = here(*line, "run_dir=r")
    assert code == 0
    stored = json.loads((tmp_path / "r" / "result.json").read_text())["diagnosis"]
    assert stored["verdict"] in ("mode_collapse", "not_converged", "d_blind")
    assert f"diagnosis  {stored['verdict']}: {stored['findings'][0]['measurement']}" in out
    assert f"try        {stored['findings'][0]['remedy']}" in out
    assert "run_dir" not in stored["findings"][0]["remedy"]
    assert {"energy", "lost", "pairs"} <= stored["measurements"].keys()
    events = EventAccumulator(str(tmp_path / "r")).Reload()
    assert stored["verdict"].encode() in events.Tensors("diagnosis/text_summary")[0].tensor_proto.string_val[0]

    (tmp_path / "r" / "result.json").unlink()
    code, out, _ = here("diagnose", "run_dir=r")
    assert code == 0
    for finding in stored["findings"]:
        for part in ("measurement", "threshold", "origin", "remedy"):
            assert finding[part] in out

    assert here(*line, "run_dir=s", "train.diagnose=false")[0] == 0
    assert json.loads((tmp_path / "s" / "result.json").read_text())["diagnosis"] is None


def test_a_diverged_run_is_diagnosed_too(here, tmp_path: Path) -> None:
    line = ["loss=lsgan", "optimizer=sgd", "optimizer.lr=1e6", "train.steps=300", "train.checkpoint_every=2"]
    assert here(*line, "train.log_every=2", "train.sample_every=0", "run_dir=r")[0] == 3
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["status"], result["diagnosis"]["verdict"]) == ("diverged", "divergence")
    assert "optimizer.lr=100000.0" in result["diagnosis"]["findings"][0]["remedy"]
    json.dumps(result, allow_nan=False)


def test_a_run_of_labels_and_of_hardly_any_data(here) -> None:
    few = ["data=digits", "data.num_valid=1793", "data.num_test=2", "train.batch_size=2"]  # two are left to train on
    for line in (few, ["data=digits", "condition=projection"], ["data=dirac"]):
        code, out, err = here(*line, "train.steps=2", "train.log_every=1", "train.sample_every=0")
        assert code == 0
        assert "diagnosis  " in out
        assert "no diagnosis" not in err


def test_a_diagnosis_that_fails_fails_no_run(here, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr("ganrun.commands.train.measure", fail)
    code, _, err = here("train.steps=2", "train.sample_every=0")
    assert code == 0
    assert "there is no diagnosis: MemoryError: too much" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["digits, minimax, overtrained D", "digits, frozen D", "heights, huge rate", "dirac", "ring, 5 G steps",
     "digits, copies", "digits, 30 steps", "heights, lsgan"],
)  # fmt: skip
def test_a_part_of_the_collection(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/diagnosis.py, one run of each kind, with seed 0."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import diagnosis as collection

    monkeypatch.setattr(collection, "RUNS", tmp_path)
    line, right = next((line, right) for known, line, right in collection.collection() if known == name)
    found = collection.one(name, line, right, seed=0)
    assert found["verdict"] in right, found


def test_a_healthy_diagnosis_reads_well() -> None:
    found = diagnose(GOOD, config_of())
    assert found == Diagnosis("healthy", (), (), GOOD)
    assert found.lines() == [
        "diagnosis  healthy: energy distance to real examples 0.000, coverage 97% (of real examples 97%), lost 0%"
    ]
    losses_alone = {key: value for key, value in GOOD.items() if key in ("recorded", "diverged", "finite", "chance")}
    assert diagnose(losses_alone, config_of()).lines() == [
        "diagnosis  healthy, as far as its losses tell: samples were not compared with so few training examples"
    ]
