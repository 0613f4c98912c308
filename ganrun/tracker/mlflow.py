"""MLflow, <https://mlflow.org>. Without `uri`, nothing is sent: the store is a SQLite file."""

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ganrun.protocols import TrackedRun, Tracker
from ganrun.tracker.installed import check_installed

TAG = "ganrun.id"  # of MLflow's runs
STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}
LONGEST = 6000  # characters of a parameter
MOST = 100  # parameters in a request
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}  # unless they are set


class MLflow(Tracker):
    """A run of MLflow: in mlflow.db beside the run directory, with files in mlartifacts/, or in the store `uri`.

    It is found again by its tag ganrun.id. A value is logged if its step is later than the last one with its name.
    Pictures and texts are files, which replace those of the same name. Raises ValueError if mlflow is not installed.
    """

    def __init__(self, experiment: str = "ganrun", uri: str | None = None) -> None:
        self.experiment, self.uri = experiment, uri
        local = uri is None or uri.startswith("sqlite:")
        check_installed("mlflow", *(("sqlalchemy", "alembic") if local else ()), extra="mlflow")

    def start(self, run: TrackedRun) -> None:
        os.environ.update({key: value for key, value in PATIENCE.items() if key not in os.environ})
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # else they report every table of a new store
        self.client = MlflowClient(self.uri or f"sqlite:///{run.path.parent / 'mlflow.db'}")
        experiment = self._experiment(run)
        found = self.client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'")
        if found:
            self.run_id = found[0].info.run_id
            self.client.update_run(self.run_id, status="RUNNING", name=run.path.name)
        else:
            tags = {TAG: run.id} | ({"sweep": run.sweep} if run.sweep else {})
            self.run_id = self.client.create_run(experiment, tags=tags, run_name=run.path.name).info.run_id
        values = found[0].data.metrics if found else {}
        self.last = {key: max(m.step for m in self.client.get_metric_history(self.run_id, key)) for key in values}
        self._log_config(run, known=found[0].data.params if found else {})

    def _experiment(self, run: TrackedRun) -> str:
        """The id of the experiment, which is created if there is none."""
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None and self.uri is None:
            files = (run.path.parent / "mlartifacts").as_uri()
            return str(self.client.create_experiment(self.experiment, artifact_location=files))
        return str(found.experiment_id if found else self.client.create_experiment(self.experiment))

    def _log_config(self, run: TrackedRun, known: Mapping[str, str]) -> None:
        """Log the settings as parameters. MLflow's parameters never change: changes are tags, and in config.yaml."""
        from mlflow.entities import Param, RunTag

        settings = {_name(key): str(value)[:LONGEST] for key, value in (run.settings | run.typed).items()}
        new = [Param(key, value) for key, value in settings.items() if key not in known]
        for first in range(0, len(new), MOST):
            self.client.log_batch(self.run_id, params=new[first : first + MOST])
        changed = [RunTag(key, value) for key, value in settings.items() if known.get(key, value) != value]
        self.client.log_batch(self.run_id, tags=changed)
        self.client.log_dict(self.run_id, run.config, "config.yaml")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        named = {_name(tag): value for tag, value in values.items()}
        new = {name: value for name, value in named.items() if step > self.last.get(name, step - 1)}
        self.client.log_batch(self.run_id, [Metric(name, value, now, step) for name, value in new.items()])
        self.last |= dict.fromkeys(new, step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self.client.log_image(self.run_id, image, artifact_file=f"{_name(tag)}/step_{step:08d}.png")

    def text(self, tag: str, text: str, step: int) -> None:
        self.client.log_text(self.run_id, text, f"{_name(tag)}.txt")

    def finish(self, result: Mapping[str, Any]) -> None:
        self.scalars({f"final/{key}": value for key, value in result["metrics"].items()}, result["steps"])
        self.client.log_dict(self.run_id, dict(result), "result.json")
        self.client.set_tag(self.run_id, "status", result["status"])
        self.client.set_terminated(self.run_id, STATUS.get(result["status"], "FAILED"))


def _name(tag: str) -> str:
    """The tag as a name that MLflow allows.

    >>> _name("metric/fid@10k")
    'metric/fid_10k'
    """
    return re.sub(r"[^\w\-. :/]", "_", tag)
