"""Weights & Biases, offline: its files are read with its own messages."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers import end_of

from ganrun.records.run_dir import RunDir
from ganrun.tracker.wandb import last_step, records

pytest.importorskip("wandb")
pytestmark = pytest.mark.slow

SHORT = ["tracker=wandb", "train.steps=6", "train.log_every=1", "train.sample_every=2", "train.checkpoint_every=2",
         "train.threads=1", "data.num=500", "schedule=constant", "run_dir=r"]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def files() -> list[Path]:
    return sorted(Path("r/wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def name_of(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def rows() -> list[dict[str, Any]]:
    """The rows of all files, in the order in which they were written."""
    histories = [record.history for path in files() for record in records(path) if record.HasField("history")]
    return [{name_of(item): json.loads(item.value_json) for item in history.item} for history in histories]


def last_values() -> dict[str, Any]:
    """The summary in the last file."""
    found = [record.summary for record in records(files()[-1]) if record.HasField("summary")]
    return {name_of(item): json.loads(item.value_json) for summary in found for item in summary.update}


def run_ids() -> list[str]:
    return [record.run.run_id for path in files() for record in records(path) if record.HasField("run")]


def test_offline_file_has_everything(here, tmp_path: Path) -> None:
    assert here(*SHORT, "train.pretrain_d=2")[0] == 0
    steps = [row["step"] for row in rows()]
    assert steps == sorted(set(steps))
    logged = [row for row in RunDir(Path("r")).rows() if "loss/d" in row]
    assert [(row["step"], row["loss/d"]) for row in rows() if "loss/d" in row] == [
        (row["step"], row["loss/d"]) for row in logged
    ]
    assert logged[0]["step"] == -1  # while D is pre-trained
    pictures = [row["figure/density/path"] for row in rows() if "figure/density/path" in row]
    assert len(pictures) == 5  # before pre-training, and at steps 0, 2, 4, 6
    assert all((files()[0].parent / "files" / path).is_file() for path in pictures)
    found = last_values()
    assert (found["result/status"], found["result/steps"]) == ("finished", 6)
    assert "diagnosis" in found
    (config,) = [record.run.config for record in records(files()[0]) if record.HasField("run")]
    values = {item.key: json.loads(item.value_json) for item in config.update}
    assert values["train"]["steps"] == 6
    assert values["typed"]["data.num"] == 500
    assert [path for path in Path("r").rglob("*") if path.is_symlink()] == []
    exits = [record.exit.exit_code for record in records(files()[0]) if record.HasField("exit")]
    assert exits == [0]


def killed_before_row_4() -> None:
    save = RunDir.log_row

    def log_row(self: RunDir, row: dict[str, Any]) -> None:
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, row)

    RunDir.log_row = log_row  # type: ignore[method-assign]


def test_killed_run_goes_on_under_the_same_id_and_logs_no_step_twice(here, tmp_path: Path) -> None:
    assert end_of(SHORT, tmp_path, killed_before_row_4).code == -signal.SIGKILL
    assert here("resume", "run_dir=r", "tracker=wandb")[0] == 0
    assert len(files()) == 2
    assert len(set(run_ids())) == 1
    assert [row["step"] for row in rows() if "loss/d" in row] == [1, 2, 3, 4, 5, 6]
    assert here("resume", "run_dir=r", "train.steps=8", "tracker=wandb")[0] == 0
    assert [row["step"] for row in rows() if "loss/d" in row] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(set(run_ids())) == 1
    assert last_values()["result/steps"] == 8


def test_incomplete_file_ends_at_its_last_whole_record(here, tmp_path: Path) -> None:
    assert here(*SHORT)[0] == 0
    (path,) = files()
    run_id = run_ids()[0]
    assert last_step(Path("r/wandb"), run_id) == 6
    data = path.read_bytes()
    whole = len(list(records(path)))
    for length in (len(data) - 1, len(data) // 2, 8, 7):
        path.write_bytes(data[:length])
        assert len(list(records(path))) < whole
    assert last_step(Path("r/wandb"), run_id) == -1


def test_server_that_is_down_ends_no_run(here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does a missing key: nothing asks for it."""
    code, _, err = here(*SHORT, "tracker.wandb.online=true")
    assert code == 0
    assert err.count("tracker=wandb: ValueError: there is no API key; run `wandb login` once, or set") == 1
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("ganrun.tracker.wandb.ONLINE_TIMEOUT", (1.0, 1.0))
    code, _, err = here(*SHORT, "run_dir=t", "tracker.wandb.online=true")
    assert code == 0
    assert err.count("tracker=wandb: ") == 1
    assert json.loads(Path("t/result.json").read_text())["status"] == "finished"
