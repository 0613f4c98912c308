"""`ganrun evaluate`: any metric of a run, at any checkpoint, added to the results of the run."""

import shutil
from pathlib import Path

import pytest
import yaml
from helpers import curves, kill_at, logged, recorded, result_of, same, train_in, write_folder

from ganrun.figures.curves import curve, repeated_keys
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir

NO_METRIC = ["train.sample_every=0", "train.log_every=3", "train.checkpoint_every=3", "metric=none", "seed=3",
             "data.num=2000", "train.frame_every=0", "train.diagnose=false", "schedule=constant",
             "train.ema=0.5"]  # fmt: skip
RUN = [*NO_METRIC, "metric=distribution", "metric.distribution.num=1000"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with checkpoints at steps 3 and 6, and an EMA of G."""
    folder = tmp_path_factory.mktemp("trained")
    train_in(folder, [*RUN, "train.steps=6", "run_dir=r"])
    return folder / "r"


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run for one test."""
    return shutil.copytree(trained, tmp_path / "r")


@pytest.mark.slow
def test_metrics_of_the_run_are_reproduced_without_duplicates(finished: Path, here) -> None:
    result, ks, events = result_of(finished), recorded(finished, "metric/ks_1k"), curves(finished)
    code, out, _ = here("evaluate", "run_dir=r")
    assert code == 0
    assert f"ks_1k                        {result['metrics']['ks_1k']:.4g}" in out
    assert (result_of(finished), recorded(finished, "metric/ks_1k"), curves(finished)) == (result, ks, events)
    assert ks[0][0] == 6


@pytest.mark.slow
def test_checkpoint_of_a_step_has_the_metrics_of_a_run_that_ended_there(finished: Path, here, tmp_path: Path) -> None:
    assert here(*RUN, "train.steps=3", "run_dir=short")[0] == 0
    assert here("evaluate", "run_dir=r", "checkpoint=3")[0] == 0
    short, (found,) = result_of(tmp_path / "short"), result_of(finished)["evaluations"]
    assert found == {"checkpoint": 3, "step": 3, "ema": True, "seed": 3, "metrics": short["metrics"]}
    rows = logged(finished)
    assert [(row["step"], "loss/d" in row) for row in rows] == [(3, True), (3, False), (6, True), (6, False)]
    assert rows[1]["evaluated"] == {"checkpoint": 3, "ema": True, "seed": 3}
    assert curves(finished)["metric/ks_1k"] == [
        (step, pytest.approx(value)) for step, value in recorded(finished, "metric/ks_1k")
    ]


def test_evaluation_of_a_killed_run_is_kept_after_resume(finished: Path, here) -> None:
    checkpoint.path_of(finished / "checkpoints", 6).unlink()
    (finished / "result.json").unlink()
    assert here("evaluate", "run_dir=r", "checkpoint=3", "ema=false")[0] == 0
    assert not (finished / "result.json").exists()
    assert here("resume", "run_dir=r")[0] == 0
    (found,) = result_of(finished)["evaluations"]
    assert (found["step"], found["ema"]) == (3, False)
    assert recorded(finished, "metric_raw/w1_1k") == [
        (3, found["metrics"]["w1_1k"]),
        (6, result_of(finished)["metrics_raw"]["w1_1k"]),
    ]


def test_new_metrics_are_added_to_the_final_metrics(finished: Path, here) -> None:
    before = result_of(finished)["metrics"]
    assert here("evaluate", "run_dir=r", "metric=[divergence,theory]", "metric.divergence.num=2000")[0] == 0
    after = result_of(finished)["metrics"]
    assert after.keys() - before.keys() >= {"jsd_128bins_2k", "value_20k"}
    assert before.items() <= after.items()
    assert recorded(finished, "metric/jsd_128bins_2k") == [(6, after["jsd_128bins_2k"])]


@pytest.mark.slow
def test_metrics_with_another_seed_or_of_g_are_stored_separately(finished: Path, here) -> None:
    own = result_of(finished)["metrics"]["w1_1k"]
    for setting in ("ema=false", "seed=5", "seed=5"):
        assert here("evaluate", "run_dir=r", setting)[0] == 0
    assert here("evaluate", "run_dir=r", "seed=5", "metric=divergence", "metric.divergence.num=50")[0] == 0
    (raw,), (other,) = (recorded(finished, f"metric_{name}/w1_1k") for name in ("raw", "seed_5"))
    assert len({own, raw[1], other[1]}) == 3
    result = result_of(finished)
    assert result["metrics"]["w1_1k"] == own
    assert [(e["ema"], e["seed"], e["metrics"]["w1_1k"]) for e in result["evaluations"]] == [
        (False, 3, raw[1]),
        (True, 5, other[1]),
    ]
    assert "jsd_128bins_50" in result["evaluations"][1]["metrics"]
    assert {"metric/w1_1k", "metric_raw/w1_1k", "metric_seed_5/w1_1k"} <= curves(finished).keys()
    assert recorded(finished, "metric/w1_1k") == [(6, own)]


@pytest.mark.slow
def test_metric_of_a_run_without_metrics(here, tmp_path: Path) -> None:
    assert here(*NO_METRIC, "train.steps=1", "run_dir=r")[0] == 0
    code, _, err = here("evaluate", "run_dir=r")
    assert (code, err) == (2, "run_dir=r: has no metric of its own; choose one, as in metric=distribution.\n")
    assert here("evaluate", "run_dir=r", "metric=distribution", "metric.distribution.num=100")[0] == 0
    assert result_of(tmp_path / "r")["metrics"].keys() >= {"ks_100", "mean_true"}


@pytest.mark.slow
def test_run_without_ema_has_one_generator(here, tmp_path: Path) -> None:
    assert here(*RUN, "train.steps=3", "train.ema=0", "run_dir=r")[0] == 0
    before = result_of(tmp_path / "r")
    assert here("evaluate", "run_dir=r", "ema=false")[0] == 0
    assert result_of(tmp_path / "r") == before


@pytest.mark.slow
def test_figures_and_diagnosis_still_work_after_an_evaluation(finished: Path, here) -> None:
    diagnosis = here("diagnose", "run_dir=r")[1]
    assert here("evaluate", "run_dir=r", "checkpoint=3")[0] == 0
    assert here("diagnose", "run_dir=r")[1] == diagnosis
    rows = list(RunDir(finished).rows())
    assert "metric/ks_1k" in repeated_keys(rows, RunDir(finished).metric_keys())
    assert list(curve(rows, "metric/ks_1k")[0]) == [3, 6]
    assert here("figures", "run_dir=r", "animation=false")[0] == 0
    assert (finished / "figures" / "metrics.png").exists()


@pytest.mark.slow
def test_killed_run_is_evaluated_and_then_resumes_bit_for_bit(here, tmp_path: Path) -> None:
    line = [*RUN, "train.steps=9", "train.metric_every=3", "train.log_every=1"]
    assert here(*line, "run_dir=whole")[0] == 0
    kill_at(8, [*line, "run_dir=killed"], tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert here("evaluate", "run_dir=killed")[0] == 0
    assert here("evaluate", "run_dir=killed", "seed=5")[0] == 0
    assert not (killed / "result.json").exists()
    assert here("resume", "run_dir=killed")[0] == 0
    states = [checkpoint.load_newest(path / "checkpoints") for path in (whole, killed)]
    assert all(same(states[0][key], states[1][key]) for key in states[0].keys() - {"config", "seconds"})
    key = "metric/ks_1k"
    assert recorded(killed, key) == recorded(whole, key)
    assert [step for step, _ in recorded(killed, key)] == [3, 6, 9]
    assert curves(killed)[key] == curves(whole)[key]
    assert [step for step, _ in curves(killed)["metric_seed_5/ks_1k"]] == [6]


@pytest.mark.slow
def test_events_of_a_resumed_run_stay_in_order(here, tmp_path: Path) -> None:
    line = [*RUN, "train.steps=9", "train.keep_checkpoints=3", "run_dir=r"]
    assert here(*line)[0] == 0
    run = tmp_path / "r"
    (run / "result.json").unlink()
    for step in (6, 9):
        checkpoint.path_of(run / "checkpoints", step).unlink()
    assert here(*line)[0] == 0
    assert len(list(run.glob("events.*"))) == 2
    for step in (6, 3, 6):
        assert here("evaluate", "run_dir=r", f"checkpoint={step}")[0] == 0
    assert [step for step, _ in curves(run)["metric/ks_1k"]] == [3, 6, 9]
    assert [step for step, _ in curves(run)["loss/d"]] == [3, 6, 9]


def test_active_run_is_evaluated_but_not_modified(finished: Path, here) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with RunDir(finished):
        code, out, err = here("evaluate", "run_dir=r", "metric=divergence", "metric.divergence.num=100")
    assert code == 0
    assert "jsd_128bins_100" in out
    assert err == "run_dir=r: another process is writing to it, so nothing was recorded.\n"
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_run_of_an_older_version_gets_defaults_for_new_settings(finished: Path, here) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    del config["train"]["label_noise"], config["train"]["pretrain_d"], config["data"]["verify"]
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    assert here("evaluate", "run_dir=r")[0] == 0
    (finished / "result.json").unlink()
    assert here("resume", "run_dir=r")[0] == 0
    (finished / "result.json").unlink()
    assert here(*RUN, "train.steps=6", "run_dir=r")[0] == 0


CANNOT_WORK = [
    (["metric=modis"], "metric=modis: no such option; did you mean modes?"),
    (["metric.modes.num=3"], "metric.modes.num=3: no metric is chosen; choose one, as in metric=modes"),
    (["metric=modes", "metric.modes.nun=3"], "no such setting; did you mean metric.modes.num?"),
    (["metric=modes", "metric.modes.num=0"], "metric.modes.num=0: must be at least 1."),
    (["metric=modes"], "metric=modes: needs data whose modes are known"),
    (["metric=none"], "metric=none: leaves nothing to compute; choose a metric, as in metric=distribution."),
    (["checkpoint=77"], "no such checkpoint; saved steps: 3, 6."),
    (["checkpoint=first"], "checkpoint=first: must be"),
    (["device=gpu9"], "device=gpu9: not available here"),
    (["seed=-1"], "seed=-1: must be at least 0."),
    (["checkpont=3"], "checkpont=3: no such setting; did you mean checkpoint?"),
]


@pytest.mark.slow
def test_invalid_settings_are_reported_and_nothing_is_recorded(finished: Path, here) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    for settings, message in CANNOT_WORK:
        code, _, err = here("evaluate", "run_dir=r", *settings)
        assert code == 2, settings
        assert message in err
        assert len(err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_checkpoint_with_another_config_is_refused(finished: Path, here) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    config["arch"]["generator"]["hidden"] = [3]
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    for verb in ("evaluate", "diagnose"):
        code, _, err = here(verb, "run_dir=r")
        assert (code, len(err.strip().splitlines())) == (2, 1)
        assert err.startswith(
            "the checkpoint of step 6 does not fit the config of its run: G: size mismatch for layers.0.weight"
        )


@pytest.mark.slow
def test_data_in_another_folder(here, tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 12)
    line = ["data=folder", "data.root=d", "data.size=8", "train.sample_every=0", "run_dir=r", "train.steps=2"]
    assert here(*line)[0] == 0
    (tmp_path / "d").rename(tmp_path / "moved")
    (tmp_path / "r" / "result.json").unlink()
    for verb, *more in (["evaluate", "metric=neighbors"], ["diagnose"], ["resume"]):
        assert "data.root=d: no such folder" in here(verb, "run_dir=r", *more)[2]
        assert here(verb, "run_dir=r", *more, "data.root=moved")[0] == 0
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["data"]["root"] == "moved"
    _, _, err = here("diagnose", "run_dir=r", "data=moved")
    assert err == "data=moved: is a group of settings, as in data.root=DIR.\n"


@pytest.mark.slow
def test_folder_without_a_run_or_checkpoint_is_refused(here, tmp_path: Path) -> None:
    assert "run_dir=nowhere: no run there" in here("evaluate", "run_dir=nowhere")[2]
    assert here(*RUN, "train.steps=1", "run_dir=r")[0] == 0
    checkpoint.path_of(tmp_path / "r" / "checkpoints", 1).unlink()
    code, _, err = here("evaluate", "run_dir=r")
    assert code == 2
    assert err == "run_dir=r: has no readable checkpoint yet.\n"
