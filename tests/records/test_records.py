"""Run directories, checkpoints and the dashboard."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from helpers import curves, full_disk, recorded, small_state, train_in, write_folder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from ganrun.data.dataset import DataSpec
from ganrun.protocols import MetricKey
from ganrun.records import checkpoint, dashboard
from ganrun.records.dashboard import Dashboard
from ganrun.records.run_dir import RunDir, new_run_dir

IMAGES = ["data=digits", "train.threads=1", "train.steps=8", "train.log_every=2", "train.sample_every=4",
          "train.checkpoint_every=2"]  # fmt: skip


def test_new_run_directories_are_unique(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: new_run_dir(tmp_path, "x").path, range(200)))
    assert len(set(made)) == 200


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train_in(folder, [*IMAGES, "run_dir=r", "train.keep_every=4"])
    return folder / "r"


@pytest.mark.slow
def test_files_of_a_finished_run(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["status"] == "finished"
    assert (result["steps"], result["nimg"], result["seed"], result["error"]) == (8, 8 * 64, 0, None)
    assert {"torch", "python", "ganrun"} <= result["versions"].keys()
    assert result["wall_time"] > 0
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["train"]["steps"] == 8
    assert config["arch"]["generator"]["_target_"] == "ganrun.arch.dcgan.Generator"
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert {"loss/d", "loss/g", "logits/real", "logits/fake", "grad_norm/d", "grad_norm/g"} <= rows[0].keys()
    pictures = ["interpolation.png", "real.png", *(f"step_{k:08d}.png" for k in (0, 4, 8)), "truncation.png"]
    assert sorted(p.name for p in (finished / "samples").iterdir()) == pictures
    assert checkpoint.steps_in(finished / "checkpoints") == [4, 6, 8]  # the two newest, and multiples of four
    assert "step 8/8" in (finished / "train.log").read_text()


def test_dashboard_has_all_values(finished: Path) -> None:
    events = EventAccumulator(str(finished), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"loss/d", "loss/g", "logits/real", "grad_norm/d", "time/steps_per_sec"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("loss/d")] == [2, 4, 6, 8]
    assert [event.step for event in events.Images("samples/fixed_z")] == [0, 4, 8]
    assert "config/text_summary" in tags["tensors"]
    rows = [tag for tag in events.summary_metadata if tag.startswith("_hparams_")]
    assert "_hparams_/session_start_info" in rows
    start = HParamsPluginData.FromString(
        events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info
    assert start.hparams["data"].string_value == "digits"
    assert start.hparams["train.steps"].number_value == 8
    assert start.hparams.keys() == {override.partition("=")[0] for override in [*IMAGES, "train.keep_every=4"]}
    assert len(list(finished.glob("events.*"))) == 1


@pytest.mark.slow
def test_run_killed_before_its_result_records_nothing_twice(here, tmp_path: Path) -> None:
    line = ["train.steps=4", "train.log_every=2", "train.sample_every=0", "run_dir=r"]
    assert here(*line)[0] == 0
    (tmp_path / "r" / "result.json").unlink()  # as if killed at the end
    assert here(*line)[0] == 0
    assert [step for step, _ in recorded(tmp_path / "r", "loss/d")] == [2, 4]
    assert [step for step, _ in recorded(tmp_path / "r", "metric/ks_100k")] == [4]
    events = [e for path in sorted((tmp_path / "r").glob("events.*")) for e in EventFileLoader(str(path)).Load()]
    tags = [value.tag for event in events for value in event.summary.value]
    assert tags.count("metric/ks_100k") == 1
    assert tags.count("_hparams_/session_start_info") == 1


@pytest.mark.slow
def test_changed_data_with_the_same_config_are_refused(here, tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 12)
    line = ["data=folder", "data.root=d", "data.size=8", "train.sample_every=0", "run_dir=r", "train.steps=2"]
    assert here(*line)[0] == 0
    (tmp_path / "r" / "result.json").unlink()
    for path in (tmp_path / "d" / "cats").iterdir():
        path.unlink()
    code, _, err = here(*line)
    assert code == 2
    assert "trained on other data" in err


def test_damaged_checkpoint_does_not_replace_a_good_one(tmp_path: Path) -> None:
    for step in (15, 20):
        checkpoint.path_of(tmp_path, step).write_bytes(b"damaged")
    for step in (5, 10):
        checkpoint.save(tmp_path, small_state(step), keep=2, keep_every=0)
        assert checkpoint.load_newest(tmp_path) == small_state(step)
    assert checkpoint.steps_in(tmp_path) == [5, 10]


def test_checkpoints_contain_only_plain_types(finished: Path) -> None:
    path = checkpoint.path_of(finished / "checkpoints", 8)
    assert path.name == "step_00000008.pt"
    state = torch.load(path, weights_only=True)
    assert (state["step"], state["nimg"]) == (8, 512)
    assert state["spec"]["shape"] == (1, 8, 8)
    assert DataSpec(**state["spec"]).classes == tuple("0123456789")


@pytest.mark.parametrize("missing", [1, 100, 1000, 20_000, 40_500])
def test_checkpoint_is_written_atomically_and_a_full_disk_is_named(tmp_path: Path, missing: int) -> None:
    """missing: the bytes of the checkpoint that do not fit on the disk."""
    folder, state = tmp_path / "checkpoints", {"step": 2, "G": {"weight": torch.zeros(10_000)}}
    checkpoint.save(tmp_path, state, keep=1, keep_every=0)
    checkpoint.save(folder, {"step": 1}, keep=1, keep_every=0)
    size = checkpoint.path_of(tmp_path, 2).stat().st_size
    with full_disk(size - missing), pytest.raises(OSError, match="File too large") as caught:
        checkpoint.save(folder, state, keep=1, keep_every=0)
    assert caught.value.filename == str(checkpoint.path_of(folder, 2))
    assert [p.name for p in folder.iterdir()] == ["step_00000001.pt"]


def test_file_of_another_program_is_not_a_checkpoint(tmp_path: Path) -> None:
    for state in ({"step": 3}, [3], {"format": 3, "step": 3}):
        torch.save(state, path := checkpoint.path_of(tmp_path, 3))
        with pytest.raises(ValueError, match=r"step_00000003\.pt: is not a checkpoint of this version of ganrun"):
            checkpoint.load(path)
        assert checkpoint.load_newest(tmp_path) is None


def test_without_a_readable_checkpoint_none_is_loaded(tmp_path: Path) -> None:
    checkpoint.path_of(tmp_path, 3).write_bytes(b"")
    assert checkpoint.load_newest(tmp_path) is None
    assert checkpoint.load_newest(tmp_path / "none") is None


def test_temporary_event_file_of_a_killed_run_is_not_read(tmp_path: Path) -> None:
    """Events are rewritten when a run is resumed or evaluated. A kill at that time leaves a temporary file."""
    for step, value in ((1, 5.0), (2, 6.0)):
        board = Dashboard(tmp_path)
        board.scalars({"loss/d": value}, step)
        board.close()
        for path in tmp_path.glob("events.*"):
            path.with_name(path.name + ".partial").write_bytes(path.read_bytes()[:-1])
        if step == 1:
            dashboard.rewind(tmp_path, 1)
        else:
            dashboard.insert(tmp_path, 1, lambda board: board.scalars({"metric/a": 7.0}, 1))
        assert not list(tmp_path.glob("*.partial"))
    assert curves(tmp_path) == {"loss/d": [(1, 5.0), (2, 6.0)], "metric/a": [(1, 7.0)]}


def test_declared_metric_keys_are_saved_loaded_and_extended(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.metric_keys() == {}  # as in a run of an earlier version
    first = {"a_10k": MetricKey("lower", "nats", true="a_true"), "a_10k_se": MetricKey(about="a_10k", from_test=True)}
    run_dir.describe_metrics(first)
    run_dir.describe_metrics({"b": MetricKey("higher"), "a_10k": MetricKey("lower")})
    assert run_dir.metric_keys() == first | {"b": MetricKey("higher"), "a_10k": MetricKey("lower")}
    (tmp_path / "metric_keys.json").write_text("{")
    assert run_dir.metric_keys() == {}


def test_metrics_are_inserted_at_their_step_and_replace_those_of_the_same_name(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    with run_dir:
        for row in ({"step": 2, "loss/d": 1}, {"step": 4, "loss/d": 2}, {"step": 4, "metric/a": 3, "metric/b": 4}):
            run_dir.log_row(row)
        run_dir.insert_metrics({"step": 2, "metric/a": 5})
        run_dir.insert_metrics({"step": 4, "metric/a": 6})
        run_dir.insert_metrics({"step": 3, "metric/a": 7, "metric/b": 8})
        run_dir.insert_metrics({"step": 3, "metric/a": 9, "metric/b": 10})
    assert list(run_dir.rows()) == [
        {"step": 2, "loss/d": 1},
        {"step": 2, "metric/a": 5},
        {"step": 3, "metric/a": 9, "metric/b": 10},
        {"step": 4, "loss/d": 2},
        {"step": 4, "metric/b": 4},
        {"step": 4, "metric/a": 6},
    ]


def test_damaged_row_is_reported_and_the_others_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir = RunDir(tmp_path)
    row, later = b'{"step": 2, "loss/d": 1}\n', b'{"step": 6, "loss/d": 3}\n'
    for damage in (b"garbage", b"\xff", b"[4]", b'{"loss/d": 2}', b""):
        run_dir.metrics_file.write_bytes(row + damage + b"\n" + later + b'{"step": 8, "lo')
        run_dir.insert_metrics({"step": 4, "metric/a": 5})
        assert f"{run_dir.metrics_file}: line 2 is damaged" in caplog.text
        assert len(caplog.records) == 1  # the last row was truncated, as by a kill
        caplog.clear()
        assert [found["step"] for found in run_dir.rows()] == [2, 4, 6]


def test_killed_run_has_no_result_and_damaged_config_is_reported(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.result() is None
    for text, message in (("a: [", "is damaged"), ("seed: 3", "not a config of ganrun \\(it has no data\\)")):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            run_dir.config()


def test_old_checkpoints_of_a_run_that_was_killed_before_it_removed_them(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        checkpoint.save(tmp_path, {"step": step}, keep=9, keep_every=0)
    checkpoint.remove_old(tmp_path, 8, keep=2, keep_every=4)
    assert checkpoint.steps_in(tmp_path) == [4, 6, 8, 10]
    checkpoint.remove_old(tmp_path, 10, keep=1, keep_every=0)
    assert checkpoint.steps_in(tmp_path) == [10]
