"""The diagnosis of a run: each finding with and without its cause, its remedy, and the output of a run."""

import functools
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO, config_of, result_of, run_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganrun.diagnosis.diagnosis import Diagnosis, diagnose
from ganrun.diagnosis.remedy import Setup, command, remedy
from ganrun.training.build import build
from ganrun.training.evaluation import Evaluation

Here = Callable[..., tuple[int, str, str]]


@functools.cache
def setup_of(*line: str) -> Setup:
    run = run_of(*line)
    return Setup(config_of(*line), run.loss, tuple(run.penalties.values()), run.dataset.spec.is_image)


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
    ({"pairs": 0.99, "pairs_swing": 0.5, "pairs_wrong": 0.5, "slope": 0.0}, "healthy"),  # the samples are good
    ({"coverage": 0.5, "astray": 0.5, "two_sample": 0.9, "pairs": 0.9}, "healthy"),  # images: real enough
    (POOR, "not_converged"),
    ({**POOR, "pairs": 0.97}, "d_too_strong"),
    ({**POOR, "pairs": 0.97, "lead": 0.3}, "not_converged"),  # D is always right, but less and less clearly
    ({**POOR, "pairs": 0.97, "slope": 0.01}, "vanishing_gradients"),
    ({**POOR, "pairs": 0.97, "g_gradient": 0.001}, "vanishing_gradients"),
    ({**POOR, "pairs": 0.8, "slope": 0.01}, "not_converged"),  # D is not confident
    ({**POOR, "pairs": 0.55}, "d_blind"),
    ({**POOR, "pairs": 0.0}, "d_blind"),
    (
        {**POOR, "pairs": 0.55, "two_sample": 0.7},
        "not_converged",
    ),  # nor does the two-sample classifier
    ({**POOR, "pairs": 0.55, "pairs_swing": 0.3, "pairs_wrong": 0.3}, "oscillation"),
    ({**POOR, "pairs_swing": 0.3, "pairs_wrong": 0.3, "label_noise": 0.45}, "d_blind"),
    ({**POOR, "pairs_swing": 0.3, "pairs_wrong": 0.3, "label_noise": 0.1}, "oscillation"),
    ({**POOR, "pairs_swing": 0.3, "pairs_wrong": 0.3, "duplicates": 0.9}, "mode_collapse"),  # the samples come first
    ({**POOR, "duplicates": 0.9}, "mode_collapse"),
    ({**POOR, "lost": 0.88, "diversity": 0.1, "pairs": 0.55}, "mode_collapse"),  # far from the data, and D is blind
    ({**POOR, "lost": 0.88, "diversity": 0.1, "pairs": 1.0}, "d_too_strong"),  # G has not learned anything
    ({**POOR, "duplicates": 0.9, "duplicates_real": 0.9}, "not_converged"),  # the same as for real examples
    ({"lost": 0.125, "coverage": 0.85, "energy": 0.01}, "mode_collapse"),
    ({"lost": 0.125, "coverage": 0.3, "energy": 0.01}, "healthy"),  # rough samples of all kinds of examples
    ({"lost": 0.05, "energy": 0.01}, "healthy"),
    ({"diversity": 0.4, "energy": 0.1}, "mode_collapse"),
    ({"diversity": 0.4, "diversity_real": 0.5}, "healthy"),
    ({"copies": 0.5}, "memorization"),
    ({"copies": 0.5, "duplicates": 0.9}, "memorization"),
    ({"copies": 0.5, "copies_real": 0.4}, "healthy"),
    ({"copy_ratio": 0.3}, "memorization"),
    ({"copy_ratio": 0.3, "originals": 0.01, "lost": 0.9}, "mode_collapse"),  # copies of one example
    ({"away": 100.0, **POOR}, "divergence"),
    ({"largest": 1e5}, "divergence"),
    ({"diverged": 1.0}, "divergence"),
]


@pytest.mark.parametrize(("changes", "name"), CASES)
def test_each_finding_and_a_healthy_run(changes: dict[str, float], name: str) -> None:
    found = diagnose({**GOOD, **changes}, setup_of(), ["data=heights"])
    assert found.name == name
    text = found.text()
    for finding, advice in zip(found.findings, found.remedies, strict=True):
        assert all((finding.measurement, finding.threshold, finding.origin))
        assert advice.startswith("ganrun ")
        assert finding.measurement in text
        assert advice in text
    json.dumps(found.as_json(), allow_nan=False)


EARLY = {"steps": 20.0, "epochs": 0.03}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({**POOR}, "too_early"),
        ({**POOR, "pairs": 1.0, "lost": 0.9, "diversity": 0.1, "duplicates": 1.0, "slope": 0.0}, "too_early"),
        ({**POOR, "steps": 99.0, "epochs": 50.0}, "too_early"),
        ({**POOR, "steps": 999.0, "epochs": 0.9}, "too_early"),
        ({**POOR, "steps": 100.0, "epochs": 1.0}, "not_converged"),
        ({**POOR, "steps": 1000.0, "epochs": 0.1}, "not_converged"),
        ({"copy_ratio": 0.3}, "healthy"),  # blurred samples of the first steps
        ({"copies": 0.9}, "memorization"),
        ({"diverged": 1.0}, "divergence"),
        ({}, "healthy"),
    ],
)
def test_few_steps_show_only_divergence_copies_or_good_samples(changes: dict[str, float], name: str) -> None:
    found = diagnose({**GOOD, **EARLY, **changes}, setup_of("train.steps=20"))
    assert found.name == name
    if name == "too_early":
        assert len(found.findings) == 1
        assert found.remedies == ("ganrun train.steps=1000",)


def test_few_steps_without_measured_samples_are_not_called_healthy() -> None:
    assert diagnose({"finite": 1.0, "recorded": 1.0, **EARLY}, setup_of()).name == "too_early"


def test_causes_follow_what_happened_to_the_samples() -> None:
    ring = {"lost": 0.88, "diversity": 0.1, "pairs": 0.55, "pairs_swing": 0.3, "pairs_wrong": 0.3}
    found = diagnose({**GOOD, **POOR, **ring}, setup_of())
    assert [f.name for f in found.findings] == ["mode_collapse", "oscillation", "d_blind"]


def test_rules_use_only_available_measurements() -> None:
    assert diagnose({"finite": 0.0, "diverged": 1.0}, setup_of()).name == "divergence"
    assert diagnose({"recorded": 0.0, "finite": 1.0}, setup_of()).name == "healthy"


def test_remedy_is_the_command_of_the_run_with_changes() -> None:
    line = ["data=ring", "optimizer@g_optimizer=sgd", "g_optimizer.lr=1", "run_dir=r", "loss=minimax", "seed=3"]
    assert command(line, {"loss": "nonsaturating"}) == (
        "ganrun data=ring optimizer@g_optimizer=sgd g_optimizer.lr=1 seed=3 loss=nonsaturating"
    )
    assert command(line, {"g_optimizer.lr": 0.1}).endswith("loss=minimax seed=3 g_optimizer.lr=0.1")
    saved = ["--config-path=/a", "--config-name=config", "run_dir=r"]  # a saved config names its own run_dir
    assert command(saved, {"seed": 1}) == "ganrun --config-path=/a --config-name=config run_dir=null seed=1"


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
FINDINGS = sorted({name for _, name in CASES} - {"healthy"} | {"too_early"})


@pytest.mark.slow
@pytest.mark.parametrize("line", RUNS, ids=" ".join)
@pytest.mark.parametrize("finding", FINDINGS)
def test_every_remedy_composes_and_changes_the_config(line: list[str], finding: str) -> None:
    before = config_of(*line)
    typed = shlex.split(command(line, remedy(finding, setup_of(*line))))[1:]
    after = config_of(*typed)
    assert after != before
    build({**after, "train": {**after["train"], "threads": 1, "device": "cpu"}})


# The command


@pytest.mark.slow
def test_run_ends_with_its_diagnosis(here: Here, tmp_path: Path) -> None:
    line = ["train.steps=40", "train.log_every=4", "train.sample_every=0"]
    code, out, _ = here(*line, "run_dir=r")
    assert code == 0
    stored = result_of(tmp_path / "r")["diagnosis"]
    assert stored["name"] == "too_early"
    assert f"diagnosis  {stored['name']}: {stored['findings'][0]['measurement']}" in out
    assert f"try        {stored['findings'][0]['remedy']}" in out
    assert "run_dir" not in stored["findings"][0]["remedy"]
    assert {"energy", "lost", "pairs"} <= stored["measurements"].keys()
    events = EventAccumulator(str(tmp_path / "r")).Reload()
    assert stored["name"].encode() in events.Tensors("diagnosis/text_summary")[0].tensor_proto.string_val[0]

    (tmp_path / "r" / "result.json").unlink()
    code, out, _ = here("diagnose", "run_dir=r")
    assert code == 0
    for finding in stored["findings"]:
        for part in ("measurement", "threshold", "origin", "remedy"):
            assert finding[part] in out

    assert here(*line, "run_dir=s", "train.diagnose=false")[0] == 0
    assert result_of(tmp_path / "s")["diagnosis"] is None


def test_diverged_run_is_diagnosed(here: Here, tmp_path: Path) -> None:
    line = ["loss=lsgan", "optimizer=sgd", "optimizer.lr=1e6", "train.steps=300", "train.checkpoint_every=2"]
    assert here(*line, "train.log_every=2", "train.sample_every=0", "run_dir=r")[0] == 3
    result = result_of(tmp_path / "r")
    assert (result["status"], result["diagnosis"]["name"]) == ("diverged", "divergence")
    assert result["diagnosis"]["findings"][0]["remedy"].endswith("optimizer.lr=0.1")
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        (["optimizer.lr=1e38"], "optimizer.lr=0.001"),
        (["optimizer.lr=1e38", "train.diagnose=false"], "optimizer.lr=0.001"),
        (["optimizer=sgd", "optimizer.lr=1e30"], "optimizer.lr=0.1"),
        (["optimizer@d_optimizer=sgd", "d_optimizer.lr=1e38"], "optimizer.lr=0.0002 d_optimizer.lr=0.1"),
        (["loss=wgan", "penalty=none", "optimizer.lr=1e38", "train.diagnose=false"], "penalty=r1"),
    ],
)
def test_diverged_run_gives_one_hint_with_a_usual_rate(settings: list[str], hint: str, here: Here) -> None:
    """Common bugs: two hints that disagree, and a tenth of 1e38 as the next rate to try."""
    line = ["data.num=100", "train.log_every=1", "train.sample_every=0", "metric=none", *settings]
    code, out, err = here(*line)
    assert code == 3
    assert ".lr=" not in err
    hints = [line for line in out.splitlines() if line.startswith("try ")]
    assert len(hints) == 1
    assert hints[0].endswith(hint)


@pytest.mark.slow
def test_runs_with_labels_or_very_few_data_are_diagnosed(here: Here) -> None:
    few = ["data=digits", "data.num_valid=1793", "data.num_test=2", "train.batch_size=2"]  # two training examples
    for line in (few, ["data=digits", "condition=projection"], ["data=dirac"]):
        code, out, err = here(*line, "train.steps=2", "train.log_every=1", "train.sample_every=0")
        assert code == 0
        assert "diagnosis  " in out
        assert "diagnosis failed" not in err


def test_failed_diagnosis_does_not_fail_the_run(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr(Evaluation, "diagnosis", fail)
    code, _, err = here("train.steps=2", "train.sample_every=0")
    assert code == 0
    assert "the diagnosis failed: MemoryError: too much" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["digits, minimax, overtrained D", "digits, frozen D", "heights, huge rate", "dirac", "ring, 5 G steps",
     "digits, copies", "digits, 30 steps", "heights, lsgan"],
)  # fmt: skip
def test_selected_runs_of_the_diagnosis_benchmark(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of each kind of benchmarks/diagnosis.py, with seed 0."""
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    import diagnosis as collection

    monkeypatch.setattr(collection, "RUNS", tmp_path)
    line, right = next((line, right) for known, line, right in collection.collection() if known == name)
    found = collection.one(name, line, right, seed=0)
    assert found["as expected"], found


def test_summary_of_a_healthy_run() -> None:
    found = diagnose(GOOD, setup_of())
    assert found == Diagnosis("healthy", (), (), GOOD)
    assert found.summary() == [
        "diagnosis  healthy: energy distance to real examples 0.000, coverage 97% (of real examples 97%), lost 0%"
    ]
    losses_alone = {key: value for key, value in GOOD.items() if key in ("recorded", "diverged", "finite", "chance")}
    assert diagnose(losses_alone, setup_of()).summary() == [
        "diagnosis  healthy, based on its losses only: there are too few training examples to compare samples with"
    ]
