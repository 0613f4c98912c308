"""Trackers beside TensorBoard: what they get, and that none of them changes or ends a run."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import logged, same

from ganrun import compose, train
from ganrun.protocols import Tracker
from ganrun.records import checkpoint
from ganrun.records.board import Board
from ganrun.records.run_dir import RunDir
from ganrun.tracker.installed import check_installed

SHORT = ["train.steps=4", "train.log_every=1", "train.sample_every=2", "train.checkpoint_every=2", "train.threads=1",
         "data.num=500", "metric=distribution", "metric.distribution.num=1000", "run_dir=r"]  # fmt: skip

MODULE = """
import json

class Lines:
    def __init__(self, file="lines.txt", fails_in=None):
        self.file, self.fails_in = file, fails_in

    def start(self, run):
        self.put("start", run.id, run.settings["train.steps"], run.typed)

    def scalars(self, values, step):
        self.put("scalars", step, values)

    def image(self, tag, image, step):
        self.put("image", tag, step, list(image.shape))

    def text(self, tag, text, step):
        self.put("text", tag, text)

    def finish(self, result):
        self.put("finish", result)

    def put(self, method, *values):
        if method == self.fails_in:
            raise OSError(28, "No space left on device")
        with open(self.file, "a") as file:
            file.write(json.dumps([method, *values]) + "\\n")
"""


@pytest.fixture
def own(tmp_path: Path) -> None:
    """A tracker of the user: conf/tracker/lines.yaml, my_trackers.py."""
    (tmp_path / "my_trackers.py").write_text(MODULE)
    folder = tmp_path / "conf" / "tracker"
    folder.mkdir(parents=True)
    node = {"_target_": "my_trackers.Lines", "file": "lines.txt", "fails_in": None}
    (folder / "lines.yaml").write_text("# Lines in a file.\n" + yaml.safe_dump({"lines": node}))


def lines(method: str) -> list[Any]:
    found = [json.loads(line) for line in Path("lines.txt").read_text().splitlines()]
    return [line[1:] for line in found if line[0] == method]


@pytest.mark.slow
def test_tracker_gets_all_that_tensorboard_gets(here, own) -> None:
    assert here(*SHORT, "tracker=lines")[0] == 0
    ((run_id, steps, typed),) = lines("start")
    assert (steps, typed["data.num"], typed["metric"]) == (4, 500, "distribution")
    assert json.loads(Path("r/tracker.json").read_text()) == {"id": run_id, "trackers": ["lines"]}
    rows = [{k: v for k, v in row.items() if "/" in k} for row in RunDir(Path("r")).rows()]
    assert [values for _, values in lines("scalars")] == rows
    assert [(tag, step) for tag, step, _ in lines("image")] == [("figure/density", step) for step in (0, 2, 4)]
    assert lines("text")[0][0] == "diagnosis"
    assert lines("finish") == [[json.loads(Path("r/result.json").read_text())]]
    assert "tracker" not in yaml.safe_load(Path("r/config.yaml").read_text())


@pytest.mark.slow
def test_tracker_changes_nothing_of_the_run(here, own) -> None:
    assert here(*SHORT)[0] == 0
    assert here(*SHORT, "tracker=lines", "run_dir=t")[0] == 0
    a, b = (checkpoint.load(checkpoint.path_of(Path(name) / "checkpoints", 4)) for name in ("r", "t"))
    b["config"]["run_dir"] = "r"
    assert all(same(a[key], b[key]) for key in a.keys() - {"seconds"})
    assert logged(Path("r")) == logged(Path("t"))
    assert {path.name for path in Path("t").iterdir()} - {path.name for path in Path("r").iterdir()} >= {"tracker.json"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["start", "scalars", "image", "text", "finish"])
def test_tracker_that_fails_is_one_warning(here, own, method: str) -> None:
    code, _, err = here(*SHORT, "tracker=lines", f"tracker.lines.fails_in={method}")
    assert code == 0
    assert err.count("tracker=lines: OSError: [Errno 28] No space left on device.") == 1
    assert json.loads(Path("r/result.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_tracker_is_added_and_removed_when_a_run_is_resumed(here, own) -> None:
    assert here(*SHORT, "schedule=constant", "train.steps=2")[0] == 0
    assert here("resume", "run_dir=r", "train.steps=4", "tracker=lines")[0] == 0
    steps = [step for step, values in lines("scalars") if "loss/d" in values]
    assert steps == [1, 2, 3, 4]  # those before it was added, too
    (first,) = lines("start")
    code, out, _ = here("resume", "run_dir=r", "train.steps=6")
    assert code == 0
    assert "this run was also logged to lines; tracker=lines goes on there" in out
    assert here(*SHORT, "schedule=constant", "train.steps=6")[0] == 0  # the same run, without its tracker
    assert here("resume", "run_dir=r", "train.steps=8", "tracker=lines")[0] == 0
    assert [start[0] for start in lines("start")] == [first[0], first[0]]


@pytest.mark.slow
def test_received_run_chooses_no_tracker(here, own) -> None:
    """Neither its config, nor its command, nor tracker.json do; a config file must not either."""
    assert here(*SHORT, "train.steps=2")[0] == 0
    path = Path("r/config.yaml")
    config = yaml.safe_load(path.read_text())
    config["tracker"] = {"lines": {"_target_": "my_trackers.Lines"}}
    path.write_text(yaml.safe_dump(config))
    Path("r/command.json").write_text('["tracker=lines"]')
    Path("r/tracker.json").write_text('{"id": "0123456789abcdef", "trackers": ["lines"]}')
    assert here("resume", "run_dir=r", "train.steps=4")[0] == 0
    assert not Path("lines.txt").exists()
    config["run_dir"] = "new"
    path.write_text(yaml.safe_dump(config))
    code, _, err = here("--config-path", "r", "--config-name", "config")
    assert code == 2
    assert "tracker=[lines]: must be typed on the command line" in err
    Path("conf/experiment").mkdir()
    Path("conf/experiment/lab.yaml").write_text(
        "# @package _global_\n# Other settings.\ntracker: {lines: {file: elsewhere.txt}}\n"
    )
    code, _, err = here(*SHORT, "experiment=lab", "tracker=lines", "run_dir=new")
    assert code == 2
    assert "must be typed on the command line, with all its settings" in err
    assert not Path("lines.txt").exists()


def test_only_the_section_of_trackers_may_name_them(here) -> None:
    code, _, err = here(*SHORT, "penalty=r1", "penalty.r1._target_=ganrun.tracker.mlflow.MLflow")
    assert code == 2
    assert "penalty.r1._target_=ganrun.tracker.mlflow.MLflow: " in err


def test_damaged_file_of_trackers_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "tracker.json").write_text('{"id": "../../x", "trackers": []}')
    with RunDir(tmp_path) as run_dir:
        board = Board(run_dir, {"own": Tracker()})
        board.open({"seed": 0, "train": {}}, is_new=True)
        board.close()
    assert "is damaged (it has no id)" in caplog.text
    assert json.loads((tmp_path / "tracker.json").read_text())["trackers"] == ["own"]


def test_missing_library_is_one_sentence(here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganrun.tracker.installed.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^needs wandb, which is not installed; `pip install 'ganrun\[wandb\]'`\.$"):
        check_installed("wandb", extra="wandb")
    code, _, err = here(*SHORT, "tracker=wandb")
    assert code == 2
    assert "tracker.wandb: needs wandb, which is not installed; `pip install 'ganrun[wandb]'`." in err
    assert not Path("r").exists()


@pytest.mark.slow
def test_tracker_in_python(own, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    train(compose(*SHORT, "tracker=lines"))
    assert lines("finish")[0][0]["status"] == "finished"
