"""Damaged files of a run directory: every command works, or answers with one sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mutations import READERS, Mutations, Reader, make_run

from ganrun.records.run_dir import RunDir
from ganrun.training.load import load
from ganrun.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("mutated"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of NumPy and matplotlib, about values that are not finite
@pytest.mark.parametrize("name", READERS)
def test_randomly_changed_file_is_read_or_answered_with_one_sentence(name: str, run: Path, tmp_path: Path) -> None:
    mutations = Mutations(run, name, tmp_path)
    assert [fault for seed in range(8) for fault in mutations.faults(seed)] == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", {reader for readers in READERS.values() for reader in readers})
def test_every_reader_accepts_the_files_of_a_run(reader: Reader, run: Path, tmp_path: Path) -> None:
    reader(shutil.copytree(run, tmp_path / "r"))


RESULTS: list[Any] = [
    [1], "x", 5, None, {"a": 1}, {"status": "finished"}, {"status": "done", "steps": 4, "metrics": {}},
    {"status": "finished", "steps": "4", "metrics": {}}, {"status": "finished", "steps": 4, "metrics": [1]},
    {"status": "finished", "steps": 4, "metrics": {"ks": "x"}}, {"status": "finished", "steps": 10**30, "metrics": {}},
    {"status": "finished", "steps": 4, "metrics": {}, "best": 3},
]  # fmt: skip


@pytest.mark.parametrize("content", RESULTS)
def test_result_of_another_shape_is_reported_and_ignored(
    content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.result_file.write_text(json.dumps(content))
    assert run_dir.result() is None
    (message,) = caplog.messages
    assert message.startswith(f"{run_dir.result_file}: is damaged (")
    assert message.endswith("); it is ignored.")


@pytest.mark.slow
def test_run_with_a_damaged_result_is_completed(run: Path, tmp_path: Path) -> None:
    path = shutil.copytree(run, tmp_path / "r")
    before = load(path).metrics
    (path / "result.json").write_text("[1]")
    outcome = train(RunDir(path).config() | {"run_dir": str(path)})
    assert outcome.status == "finished"
    assert load(path).metrics == before


@pytest.mark.parametrize("content", [5, None, "x", {"a": 1}, [1], ["seed=1", None], [["seed=1"]]])
def test_command_of_another_shape_is_reported_and_ignored(
    content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.command_file.write_text(json.dumps(content))
    assert run_dir.overrides() == []
    assert "command.json: is damaged (it is not a list of settings); it is ignored." in caplog.text


@pytest.mark.parametrize("content", [5, [1], {"ks": 3}, {"ks": {"better": "faster"}}, {"ks": {"color": "red"}}])
def test_metric_keys_of_another_shape_are_reported_and_ignored(
    content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.metric_keys_file.write_text(json.dumps(content))
    assert run_dir.metric_keys() == {}
    assert "metric_keys.json: is damaged (" in caplog.text


ROWS: list[Any] = [
    {"step": True}, {"step": 10**30}, {"step": 1, "loss/d": "1"}, {"step": 1, "loss/d": None},
    {"step": 1, "loss/d": 10**400}, {"step": 1, "evaluated": 5}, {"step": 1, "evaluated": {}},
    {"step": 1, "evaluated": {"checkpoint": 1, "ema": 3, "seed": 0}},
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_row_of_another_shape_is_reported_and_skipped(
    row: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    lines = [json.dumps(found) for found in (row, {"step": 2, "loss/d": float("nan"), "nimg": 8})]
    run_dir.metrics_file.write_text("\n".join([*lines, "[" * 100_000, ""]))
    assert [found["step"] for found in run_dir.rows()] == [2]
    assert [message[-28:] for message in caplog.messages] == [
        "line 1 is damaged; it is skipped."[-28:],
        "line 3 is damaged; it is skipped."[-28:],
    ]


CONFIGS = {
    "- 1": "it contains no settings",
    "seed: x\ndata: {}": "it has no arch",
    "{FULL, seed: x}": "seed has the wrong type",
    "{FULL, seed: -1}": "seed is out of range",
    "{FULL, data: [1]}": "data has the wrong type",
    "{FULL, data: null}": "data is not a group of settings",
    "{FULL, arch: {generator: 3, discriminator: {}}}": "arch.generator is not a group of settings",
    "{FULL, data: {}}": "data has no _target_",
    "{FULL, schedule: null}": "schedule is not a group of settings",
    "{FULL, train: {ema: x}}": "train.ema has the wrong type",
    "{FULL, train: {steps: null}}": "train.steps has the wrong type",
    "{FULL, penalty: 3}": "penalty has the wrong type",
    "{FULL, loss: {a: 2001-01-01}}": "date is no setting",
    "{FULL, loss: {1: 2}}": "a key is not a text",
    "{FULL, loss: &a {a: *a}}": "it is nested too deeply",
    "{FULL, loss: {a: 2001-99-99}}": "month must be in 1..12",
    "[" * 5000: "recursion",
}
FULL = (
    "data: {_target_: x}, latent: {}, optimizer: {}, schedule: {}, train: {}, seed: 0, loss: {}, "
    "arch: {generator: {}, discriminator: {}}"
)


@pytest.mark.parametrize(("text", "reason"), CONFIGS.items(), ids=range(len(CONFIGS)))
def test_config_of_another_shape_is_one_sentence(text: str, reason: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.config_file.write_text(text.replace("FULL", FULL))
    with pytest.raises(ValueError, match=reason) as found:
        run_dir.config()
    assert str(found.value).startswith(f"{run_dir.config_file}: is damaged, or not a config of ganrun (")
    assert "\n" not in str(found.value)


def test_more_samples_than_fit_into_memory_are_refused(run: Path, here, tmp_path: Path) -> None:
    code, _, err = here("sample", f"run_dir={run}", "num=100000000000")
    assert code == 2
    assert err.startswith("num=100000000000: these samples take 400 GB, but the machine has ")
    assert err.count("\n") == 1
