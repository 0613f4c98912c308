"""Runs on tables, as typed: training, resuming, sampling to CSV, evaluating, and the errors."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same_run, kill_at, result_of, train_in, write_table

from ganrun.training.load import load

pytest.importorskip("pandas")

SMALL = ["arch.generator.hidden=[16]", "arch.discriminator.hidden=[16]", "arch.z_dim=4", "train.batch_size=16",
         "train.threads=1", "train.device=cpu", "metric.table.num=50"]  # fmt: skip
TABLE = ["data=table", "data.file=table.csv", *SMALL, "train.steps=6", "train.ema=0.5", "train.checkpoint_every=3",
         "train.log_every=1", "train.sample_every=6"]  # fmt: skip
TRAIN_ROWS = ["metric=table", "metric.table.num=50", "metric.table.split=train"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, and two runs on it: `r`, and `c`, which is conditional on the job."""
    folder = tmp_path_factory.mktemp("trained")
    write_table(folder)
    conditional = ["data.label=job", "condition=concat", "data.numbers=quantile", "train.sample_every=0", "run_dir=c"]
    train_in(folder, [*TABLE, "run_dir=r"], [*TABLE, *conditional])
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_samples_are_a_csv_file_with_the_columns_of_the_table(runs: Path, here) -> None:
    code, out, _ = here("sample", "run_dir=r", "num=300", "seed=3")
    path = runs / "r" / "samples" / "sample_step_00000006_seed_3.csv"
    assert (code, str(path.relative_to(runs)) in out) == (0, True)
    found = rows_in(path)
    assert (len(found), list(found[0])) == (300, ["age", "job", "price", "city", "owner"])
    assert {row["job"] for row in found} == {"clerk", "nurse", "pilot"}
    assert {row["owner"] for row in found} == {"0", "1"}
    assert all(row["age"] == str(int(row["age"])) for row in found)
    prices = [float(row["price"]) for row in found if row["price"]]
    assert 0 < len(prices) < 300
    assert all(round(price, 2) == price for price in prices)


def test_samples_depend_only_on_the_seed_and_have_the_same_first_rows(runs: Path, here) -> None:
    def draw(name: str, *settings: str) -> str:
        assert here("sample", "run_dir=r", f"out={name}", *settings)[0] == 0
        return next((runs / name).glob("*.csv")).read_text()

    first = draw("a", "num=20")
    assert first == draw("b", "num=20")
    assert first != draw("d", "num=20", "seed=1")


def test_vectors_are_written_on_request_and_pictures_refused(runs: Path, here) -> None:
    assert here("sample", "run_dir=r", "num=7", "format=npz", "out=o")[0] == 0
    samples = np.load(next((runs / "o").glob("*.npz")))["samples"]
    assert samples.shape == (7, 11)  # 2 numbers, 3 jobs, 2 entries for a missing price, 2 cities and 2 owners
    code, _, err = here("sample", "run_dir=r", "format=png")
    assert (code, "are not images" in err, err.count("\n")) == (2, True, 1)


def test_run_on_other_data_writes_no_csv(here) -> None:
    few = ["data.num=50", "metric=none", "train.diagnose=false", "train.threads=1", "train.device=cpu"]
    assert here(*few, "train.steps=1", "train.sample_every=0", "run_dir=h")[0] == 0
    code, _, err = here("sample", "run_dir=h", "format=csv")
    assert (code, "are no rows of a table" in err, err.count("\n")) == (2, True, 1)


def test_conditional_run_fills_the_column_of_the_label(runs: Path, here) -> None:
    assert here("sample", "run_dir=c", "num=6", "out=o")[0] == 0
    assert [row["job"] for row in rows_in(next((runs / "o").glob("*.csv")))] == 2 * ["clerk", "nurse", "pilot"]
    assert here("sample", "run_dir=c", "num=5", "labels=[pilot]", "out=p")[0] == 0
    found = rows_in(next((runs / "p").glob("*.csv")))
    assert list(found[0]) == ["age", "job", "price", "city", "owner"]
    assert {row["job"] for row in found} == {"pilot"}
    ages = [int(row["age"]) for row in found]
    assert min(ages) >= 18  # normal scores stay in the range of the training rows
    assert max(ages) <= 79
    assert "train_on_samples_lr_50" in result_of(runs / "c")["metrics"]


def test_run_records_its_metrics_picture_and_diagnosis(runs: Path) -> None:
    result = result_of(runs / "r")
    assert {"ks_mean_50", "tv_worst_50_floor", "association_50", "detect_gb_50"} <= result["metrics"].keys()
    assert set(result["protocols"]["table_50"]["ks"]) == {"age", "price"}
    assert result["diagnosis"] is not None
    assert (runs / "r" / "samples" / "step_00000006.png").exists()


@pytest.mark.slow
def test_other_verbs_accept_a_run_on_a_table(runs: Path, here) -> None:
    assert here("evaluate", "run_dir=r", *TRAIN_ROWS, "seed=1")[0] == 0
    assert here("diagnose", "run_dir=r")[0] in (0, 3)
    assert here("figures", "run_dir=r", "animation=false")[0] == 0
    assert here("report", "r", "c")[0] == 0
    x = load(runs / "r").sample(3)
    assert torch.equal(x, load(runs / "r").sample(3))


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5])
def test_killed_run_resumes_bit_for_bit(step: int, runs: Path, here) -> None:
    kill_at(step, [*TABLE, "run_dir=k"], runs)
    assert here("resume", "run_dir=k")[0] == 0
    assert_same_run(runs / "r", runs / "k")
    assert result_of(runs / "k")["metrics"] == result_of(runs / "r")["metrics"]


def test_run_is_not_resumed_on_a_changed_table(runs: Path, here) -> None:
    path = runs / "table.csv"
    path.write_text(path.read_text().replace("pilot", "surgeon"))
    code, _, err = here("resume", "run_dir=r", "train.steps=9")
    assert code == 2
    assert "its run was trained on other data: form (" in err
    assert len(err) < 500


def test_damaged_form_in_a_checkpoint_is_reported(runs: Path, here) -> None:
    path = runs / "r" / "checkpoints" / "step_00000006.pt"
    state = torch.load(path, weights_only=True)
    state["spec"]["form"]["columns"][0]["spread"] = -1.0
    torch.save(state, path)
    code, _, err = here("sample", "run_dir=r", "checkpoint=6")
    assert (code, err.count("\n")) == (2, 1)
    assert "step_00000006.pt: is damaged (spec: column age has spread -1.0" in err


ERRORS = [
    (["data.file=nothing.csv"], "data.file=nothing.csv: no such file."),
    (["data.columns=[age,jobs]"], "data.columns=[jobs]: data.file=table.csv has no such column; did you mean job?"),
    (["data.label=job", "data.columns=[job]"], "has no column besides the label job"),
    (["data.numbers=log"], "data.numbers=log: must be one of standard, quantile, minmax."),
    (["data.max_categories=2"], "column job has 3 categories, more than data.max_categories=2"),
    (["data.valid=0.9", "data.test=0.2"], "data.valid=0.9 data.test=0.2: must be at least 0, and sum to less than 1."),
    (["condition=concat"], "condition: these data have no labels"),
    (["arch.generator.temperature=0"], "arch.generator.temperature=0: must be greater than 0"),
    (["arch.generator.categories=soft"], "arch.generator.categories=soft: must be one of straight_through, gumbel."),
    (["augment=diffaugment"], "augment=diffaugment: transforms images"),
    (["metric=fidelity"], "metric=fidelity: compares images"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "message"), ERRORS)
def test_error_is_one_sentence(settings: list[str], message: str, runs: Path, here) -> None:
    line = [*TABLE, "run_dir=e"] if "metric=" not in settings[0] else [t for t in TABLE if "metric" not in t]
    code, _, err = here(*[t for t in line if t.split("=")[0] != settings[0].split("=")[0]], *settings)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
