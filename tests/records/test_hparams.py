"""TensorBoard's HParams page, as its own code makes it from the event files of several runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import train_in
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

TICKED = 5  # settings, and metrics, that the page shows at first
SHORT = ["train.steps=4", "train.log_every=2", "train.sample_every=0", "train.threads=1", "data.num=500",
         "metric=distribution", "metric.distribution.num=1000"]  # fmt: skip
SWEPT = ["loss=minimax,hinge", "seed=0,1", "train.ema_debias=false,true"]


class Page:
    """The page of all runs in a folder."""

    def __init__(self, folder: Path) -> None:
        runs = EventMultiplexer()
        runs.AddRunsFromDirectory(str(folder))
        runs.Reload()
        context = Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(folder))))
        request = api_pb2.ListSessionGroupsRequest(allowed_statuses=api_pb2.Status.values(), slice_size=99)
        parts = (RequestContext(), context, "")
        experiment = get_experiment.Handler(*parts, api_pb2.GetExperimentRequest()).run()
        groups = list_session_groups.Handler(*parts, request).run().session_groups
        self.infos = list(experiment.hparam_infos)
        self.varying = [info.name for info in self.infos if info.differs]
        self.metrics = [info.name.tag for info in experiment.metric_infos]
        self.rows = {group.name: {key: plain(value) for key, value in group.hparams.items()} for group in groups}
        self.status = {group.name: group.sessions[0].status for group in groups}
        self.values = {group.name: {value.name.tag: value.value for value in group.metric_values} for group in groups}


def plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("kind"))


def final(path: Path) -> dict[str, float]:
    """The final metrics by tag. They are rounded to float32, as all scalars in event files."""
    metrics = json.loads((path / "result.json").read_text())["metrics"]
    return {f"Final/{key}": pytest.approx(value, rel=1e-6) for key, value in metrics.items() if "_true" not in key}


def of_row(page: Page, name: str) -> dict[str, float]:
    return {tag: value for tag, value in page.values[name].items() if tag.startswith("Final/")}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    train_in(folder, ["-m", *SWEPT, *SHORT, "run_dir=s"])
    return folder / "s"


@pytest.mark.slow
def test_page_of_a_sweep_opens_on_what_varies(sweep: Path) -> None:
    page = Page(sweep)
    assert page.varying == [info.name for info in page.infos[:3]] == ["loss", "seed", "train.ema_debias"]
    rest = sorted(setting.partition("=")[0] for setting in SHORT)
    assert [info.name for info in page.infos[3:]] == rest  # typed, but the same in all runs
    assert sorted(map(plain, page.infos[0].domain_discrete.values)) == ["hinge", "minimax"]
    assert page.infos[2].type == api_pb2.DATA_TYPE_BOOL
    assert all(tag.startswith("Final/") for tag in page.metrics[:TICKED])


@pytest.mark.slow
def test_each_run_of_a_sweep_has_one_row_with_its_final_metrics(sweep: Path) -> None:
    page = Page(sweep)
    assert page.rows.keys() == {path.parent.name for path in sweep.glob("*/config.yaml")}
    assert len(page.rows) == 8
    row = page.rows["loss=hinge_seed=1_train.ema_debias=False"]
    assert (row["loss"], row["seed"], row["train.ema_debias"], row["train.steps"]) == ("hinge", 1, False, 4)
    assert isinstance(row["train.ema_debias"], bool)
    assert not any("[" in str(value) for value in row.values())
    for name in page.rows:
        assert page.status[name] == api_pb2.STATUS_SUCCESS
        assert of_row(page, name) == final(sweep / name) != {}


@pytest.mark.slow
def test_row_of_a_run_that_is_extended_and_evaluated(here, tmp_path: Path) -> None:
    assert here("loss=hinge", *SHORT, "run_dir=s/r")[0] == 0
    first = of_row(Page(tmp_path / "s"), "r")
    assert here("resume", "run_dir=s/r", "train.steps=6")[0] == 0
    page = Page(tmp_path / "s")
    assert page.rows["r"]["train.steps"] == 6
    assert of_row(page, "r") == final(tmp_path / "s" / "r") != first
    assert here("evaluate", "run_dir=s/r", "metric=distribution", "metric.distribution.num=2000")[0] == 0
    page = Page(tmp_path / "s")
    assert of_row(page, "r") == final(tmp_path / "s" / "r")
    assert {"Final/ks_1k", "Final/ks_2k"} <= page.values["r"].keys()
    assert here("evaluate", "run_dir=s/r", "seed=5")[0] == 0  # which is no final metric
    assert of_row(Page(tmp_path / "s"), "r") == of_row(page, "r")
    (tmp_path / "s" / "r" / "result.json").unlink()  # as if killed at the end
    assert here("resume", "run_dir=s/r")[0] == 0
    assert of_row(Page(tmp_path / "s"), "r") == of_row(page, "r")


@pytest.mark.slow
def test_runs_of_different_commands_share_a_page(here, tmp_path: Path) -> None:
    """Settings that only some runs have are in the list, and diverged runs have a row."""
    short = ["train.steps=2", "train.sample_every=0", "data.num=500"]
    assert here("loss=hinge", *short, "run_dir=s/a")[0] == 0
    assert here("penalty=[r1,lecam]", *short, "run_dir=s/b")[0] == 0
    assert here("optimizer=sgd", "optimizer.lr=1e30", *short, "run_dir=s/c")[0] == 3
    page = Page(tmp_path / "s")
    assert {"loss", "penalty", "optimizer.lr"} <= {info.name for info in page.infos}
    assert page.rows["a"]["loss"] == "hinge"
    assert page.rows["b"]["penalty"] == "[r1,lecam]"
    assert page.status == {
        "a": api_pb2.STATUS_SUCCESS, "b": api_pb2.STATUS_SUCCESS, "c": api_pb2.STATUS_FAILURE,
    }  # fmt: skip


@pytest.mark.slow
def test_new_runs_are_named_by_what_was_typed(here, tmp_path: Path) -> None:
    assert here("loss=hinge", "train.steps=1", "train.sample_every=0", "train.keep_checkpoints=1", "seed=3")[0] == 0
    (path,) = (tmp_path / "outputs").iterdir()
    assert path.name.partition("_heights_")[2] == "hinge_train.steps=1_train.sample_every=0_seed=3"
