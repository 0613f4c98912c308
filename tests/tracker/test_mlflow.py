"""MLflow with its local store, which is read by its own client."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ganrun.records.run_dir import RunDir

pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of MLflow, about its dependencies

SHORT = ["tracker=mlflow", "train.steps=4", "train.log_every=1", "train.sample_every=2", "train.checkpoint_every=2",
         "train.threads=1", "data.num=500", "schedule=constant", "metric=distribution",
         "metric.distribution.num=1000"]  # fmt: skip


class Store:
    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        experiment = self.client.get_experiment_by_name("ganrun")
        self.runs = {run.info.run_name: run for run in self.client.search_runs([experiment.experiment_id])}

    def steps(self, name: str, key: str) -> list[int]:
        return [metric.step for metric in self.client.get_metric_history(self.runs[name].info.run_id, key)]

    def files(self, name: str, folder: str | None = None) -> set[str]:
        return {file.path for file in self.client.list_artifacts(self.runs[name].info.run_id, folder)}

    def text(self, name: str, file: str) -> str:
        from mlflow.artifacts import download_artifacts

        uri = f"{self.runs[name].info.artifact_uri}/{file}"
        return Path(download_artifacts(uri)).read_text()


def test_store_has_everything_and_nothing_twice(here, tmp_path: Path) -> None:
    code, out, err = here(*SHORT, "run_dir=s/r")
    assert (code, err) == (0, "")
    assert "mlflow" not in out.replace("tracker=mlflow", "")  # it reports no table of the new store
    uri = f"sqlite:///{tmp_path}/s/mlflow.db"
    store = Store(uri)
    (run,) = store.runs.values()
    rows: list[dict[str, Any]] = list(RunDir(Path("s/r")).rows())
    assert store.steps("r", "loss/d") == [1, 2, 3, 4]
    last = {key: value for row in rows for key, value in row.items() if "/" in key}
    result = json.loads(Path("s/r/result.json").read_text())
    last |= {f"final/{key}": value for key, value in result["metrics"].items()}
    assert run.data.metrics == last
    assert run.info.status == "FINISHED"
    assert (run.data.params["train.steps"], run.data.params["metric"]) == ("4", "distribution")
    assert store.files("r", "figure/density") == {f"figure/density/step_{k:08d}.png" for k in (0, 2, 4)}
    assert store.files("r") >= {"config.yaml", "result.json", "diagnosis.txt"}
    assert json.loads(store.text("r", "result.json")) == result
    assert yaml.safe_load(store.text("r", "config.yaml")) == yaml.safe_load(Path("s/r/config.yaml").read_text())
    assert run.data.tags["ganrun.id"] == json.loads(Path("s/r/tracker.json").read_text())["id"]

    (tmp_path / "s" / "r" / "result.json").unlink()  # as if killed at the end, before it
    (tmp_path / "s" / "r" / "checkpoints" / "step_00000004.pt").unlink()
    assert here("resume", "run_dir=s/r", "train.steps=6", "tracker=mlflow")[0] == 0
    store = Store(uri)
    (resumed,) = store.runs.values()
    assert resumed.info.run_id == run.info.run_id
    assert store.steps("r", "loss/d") == [1, 2, 3, 4, 5, 6]
    assert store.steps("r", "metric/ks_1k") == [4, 6]
    assert resumed.data.tags["train.steps"] == "6"  # a parameter cannot change
    assert yaml.safe_load(store.text("r", "config.yaml"))["train"]["steps"] == 6


def test_server_that_is_down_ends_no_run(here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, _, err = here(*SHORT, "run_dir=r", "tracker.mlflow.uri=http://127.0.0.1:9")
    assert code == 0
    assert err.count("tracker=mlflow: ") == 1
    assert json.loads(Path("r/result.json").read_text())["status"] == "finished"


def test_store_that_cannot_be_written_ends_no_run(here) -> None:
    Path("mlflow.db").write_text("no database")
    code, _, err = here(*SHORT, "run_dir=r")
    assert code == 0
    assert err.count("tracker=mlflow: ") == 1
