"""`ganrun table1`: the scores that it reads, their means, and its notes on comparability."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import config_of, small_state
from PIL import Image

from ganrun.figures.likelihood import Line, Panel, likelihood_figure
from ganrun.records import checkpoint
from ganrun.records.run_dir import RunDir
from ganrun.reports.table1 import panels

Here = Callable[..., tuple[int, str, str]]


def parzen(score: float, se: float = 2.0, n: str = "10k", **others: float) -> dict[str, float]:
    parts = {"se": se, "sigma": 0.2154, "valid": score - 1, "num_valid": 1000, "num_test": 10000}
    parts |= {"anchor": 243.56, "anchor_num": 10000 if n == "10k" else 1000, **others}
    return {f"parzen_{n}": score, **{f"parzen_{n}_{part}": value for part, value in parts.items()}}


def write_run(
    name: str,
    *overrides: str,
    metrics: dict[str, float] | None = None,
    rows: list[dict[str, Any]] | None = None,
    **result: Any,
) -> str:
    """Write a run directory of 1,000 steps, as training and `ganrun evaluate` do."""
    Path(name).mkdir(parents=True)
    run_dir = RunDir(Path(name))
    run_dir.write_config(config_of(*(overrides or ("data=mnist",))))
    run_dir.write_result({"status": "finished", "steps": 1000, "metrics": metrics or {}, **result})
    with run_dir:
        for row in rows if rows is not None else [{"step": 1000, **tagged(metrics)}] if metrics else []:
            run_dir.log_row(row)
    return name


def tagged(metrics: dict[str, float], group: str = "metric") -> dict[str, float]:
    return {f"{group}/{key}": value for key, value in metrics.items()}


def cells(out: str, first: str) -> list[list[str]]:
    """The cells of the lines of a text table that begin with that cell."""
    split = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()]
    return [line for line in split if line and line[0] == first]


def test_table_has_published_rows_and_runs(here: Here) -> None:
    write_run("a", metrics=parzen(226.04, 1.96))
    code, out, _ = here("table1", "runs=[a]")
    assert code == 0
    rows = [cells(out, model)[0][1:] for model in ("DBN", "Stacked CAE", "Deep GSN", "Adversarial nets", "ours")]
    assert rows[:2] == [["138 +- 2", "1909 +- 66"], ["121 +- 1.6", "2110 +- 50"]]
    assert rows[2:] == [["214 +- 1.1", "1890 +- 29"], ["225 +- 2", "2057 +- 26"], ["226.0 +- 2.0 (1 run)", "-"]]
    (run,) = [run for run in cells(out, "MNIST") if len(run) > 3]
    assert run == ["MNIST", "a", "0", "-", "1000", "226.0 +- 2.0", "0.2154", "10000", "10000", "225.0", "243.6"]
    assert "says little about quality" in out


def test_runs_with_several_seeds_have_one_mean_and_are_listed_individually(here: Here) -> None:
    for seed, score, error in ((0, 220.0, 2.0), (1, 231.0, 2.4), (2, 227.0, 2.2)):
        write_run(f"seed_{seed}", "data=mnist", f"seed={seed}", metrics=parzen(score, error))
    _, out, _ = here("table1", "runs=seed_*")
    assert cells(out, "ours")[0][1] == "226.0 +- 2.2 (3 runs)"
    assert [(run[2], run[5]) for run in cells(out, "MNIST") if len(run) > 3] == [
        ("0", "220.0 +- 2.0"), ("1", "231.0 +- 2.4"), ("2", "227.0 +- 2.2")
    ]  # fmt: skip
    assert "differ in" not in out


@pytest.mark.slow
def test_folds_have_their_own_sigma_and_the_standard_error_is_over_folds(here: Here) -> None:
    scores = [2000.0, 2050.0, 2100.0, 2010.0, 2040.0]
    for fold, score in enumerate(scores):
        found = parzen(score, 30.0, sigma=0.1 + fold / 100)
        write_run(f"fold_{fold}", "data=tfd", f"data.fold={fold}", metrics=found)
    _, out, _ = here("table1", "runs=fold_*")
    error = statistics.stdev(scores) / 5**0.5
    assert cells(out, "ours")[0][2] == f"2040.0 +- {error:.1f} (5 of 5 folds)"
    runs = [run for run in cells(out, "TFD") if len(run) > 3]
    assert [run[6] for run in runs] == ["0.1000", "0.1100", "0.1200", "0.1300", "0.1400"]


def test_two_runs_of_one_fold_count_as_one(here: Here) -> None:
    for name, fold, score in (("a", 0, 100.0), ("b", 0, 120.0), ("c", 1, 210.0)):
        write_run(name, "data=tfd", f"data.fold={fold}", metrics=parzen(score))
    _, out, _ = here("table1", "runs=[a,b,c]")
    assert cells(out, "ours")[0][2] == "160.0 +- 50.0 (2 of 5 folds)"
    assert cells(here("table1", "runs=[a]")[1], "ours")[0][2] == "100.0 (1 of 5 folds)"


def test_substitute_data_have_their_own_columns_and_are_named(here: Here) -> None:
    write_run("m", metrics=parzen(225))
    write_run("f", "data=fer2013", "data.fold=0", metrics=parzen(1500))
    write_run("o", "data=olivetti", metrics=parzen(1400, anchor_num=280))
    _, out, _ = here("table1", "runs=[o,f,m]")
    head = next(line for line in out.splitlines() if line.split()[:2] == ["MNIST", "TFD"])
    assert head.split() == ["MNIST", "TFD", "olivetti", "fer2013"]
    assert cells(out, "ours")[0][1:] == [
        "225.0 +- 2.0 (1 run)", "-", "1400.0 (1 of 5 folds)", "1500.0 (1 of 5 folds)"
    ]  # fmt: skip
    assert cells(out, "Deep GSN")[0][1:] == ["214 +- 1.1", "1890 +- 29", "-", "-"]
    assert cells(out, "olivetti")[0][-1] == "243.6 (n=280)"
    for name in ("fer2013", "olivetti"):
        assert f"{name}: is not TFD, but a substitute for it" in out
    assert "MNIST: is not TFD" not in out


def test_notes_state_what_cannot_be_compared(here: Here) -> None:
    write_run("c", "data=cifar10", "data.verify=false", "data.gcn=55", metrics=parzen(-2000, n="1k"))
    _, out, _ = here("table1", "runs=[c]")
    assert "cifar10: was read with data.verify=false, so this copy may be lossy" in out
    assert "cifar10: normalized images (data.gcn) are compared as they are" in out
    assert "cifar10: from 1000 samples; the published protocol uses 10000" in out
    write_run("m", metrics=parzen(1))
    assert not [line for line in here("table1", "runs=[m]")[1].splitlines() if line.startswith("MNIST: ")]


def test_runs_of_different_protocols_have_no_common_mean(here: Here) -> None:
    write_run("a", metrics=parzen(225))
    write_run("b", metrics=parzen(120, n="1k"))
    write_run("c", "data=mnist", "data.num_valid=5000", metrics=parzen(226))
    _, out, _ = here("table1", "runs=[a,b,c]")
    assert sorted(cells(out, "ours")[0][1:]) == [
        "-", "-", "120.0 +- 2.0 (1 run)", "225.0 +- 2.0 (1 run)", "226.0 +- 2.0 (1 run)"
    ]  # fmt: skip
    assert "MNIST (data.num_valid=5000, n=10000)" in out


def test_note_states_that_a_mean_is_over_different_settings(here: Here) -> None:
    write_run("a", "data=mnist", "train.ema=0.9", "seed=1", "train.log_every=5", metrics=parzen(225))
    write_run("b", "data=mnist", "metric=parzen", "data.value_range=[0,1]", metrics=parzen(227))
    _, out, _ = here("table1", "runs=[a,b]")
    assert cells(out, "ours")[0][1] == "226.0 +- 2.0 (2 runs)"
    assert "MNIST: the mean is over runs that differ in data.value_range, train.ema." in out


# Which score is used


def score_of(here: Here, *arguments: str) -> tuple[str, str]:
    code, out, err = here("table1", *arguments)
    assert code == 0, err
    run = next(run for run in cells(out, "MNIST") if len(run) > 3)
    return run[4], run[5]


@pytest.mark.slow
def test_last_row_with_a_test_score_is_used(here: Here) -> None:
    valid_alone = {key: value for key, value in tagged(parzen(999)).items() if key.endswith(("_valid", "_sigma"))}
    rows = [
        {"step": 400, **tagged(parzen(210))},
        {"step": 600, **tagged(parzen(220)), "evaluated": {"checkpoint": 600, "seed": 0, "ema": True}},
        {"step": 800, **valid_alone},
        {"step": 900, **tagged(parzen(888), "metric_seed_5")},
        {"step": 900, **tagged(parzen(777), "metric_raw")},
        {"step": 1000, "loss/d": 1.0},
    ]
    write_run("a", "data=mnist", "train.ema=0.9", rows=rows, best={"key": "parzen_10k_valid", "step": 400})
    assert score_of(here, "runs=[a]") == ("600", "220.0 +- 2.0")
    assert score_of(here, "runs=[a]", "checkpoint=best") == ("400", "210.0 +- 2.0")
    assert score_of(here, "runs=[a]", "checkpoint=400") == ("400", "210.0 +- 2.0")
    assert score_of(here, "runs=[a]", "ema=false") == ("900", "777.0 +- 2.0")


@pytest.mark.slow
def test_run_with_result_only_and_killed_run(here: Here) -> None:
    write_run("finished", metrics=parzen(225), rows=[])
    assert score_of(here, "runs=[finished]") == ("1000", "225.0 +- 2.0")
    write_run("killed", rows=[{"step": 300, **tagged(parzen(150))}])
    Path("killed/result.json").unlink()
    assert score_of(here, "runs=[killed]") == ("300", "150.0 +- 2.0")


def test_run_without_g_ema_has_one_score(here: Here) -> None:
    write_run("a", metrics=parzen(225))
    assert score_of(here, "runs=[a]", "ema=false") == ("1000", "225.0 +- 2.0")


def test_score_with_the_most_samples_is_used(here: Here) -> None:
    write_run("a", metrics=parzen(120, n="1k") | parzen(225) | parzen(100, n="500"))
    assert score_of(here, "runs=[a]") == ("1000", "225.0 +- 2.0")


def test_score_of_the_published_protocol_has_priority(here: Here) -> None:
    rows = [{"step": 1000, **tagged(parzen(score, n=n))} for score, n in ((225, "10k"), (-33, "100"), (260, "50k"))]
    write_run("a", rows=rows)
    assert score_of(here, "runs=[a]") == ("1000", "225.0 +- 2.0")
    write_run("b", rows=rows[1:])
    assert score_of(here, "runs=[b]") == ("1000", "260.0 +- 2.0")


def test_best_score_of_a_killed_run(here: Here) -> None:
    write_run("a", rows=[{"step": step, **tagged(parzen(200 + step))} for step in (3, 7)])
    Path("a/result.json").unlink()
    assert "has no recorded Parzen score of checkpoint=best" in here("table1", "runs=[a]", "checkpoint=best")[2]
    checkpoint.save_best(Path("a/checkpoints"), small_state(3))
    assert score_of(here, "runs=[a]", "checkpoint=best") == ("3", "203.0 +- 2.0")


def test_note_states_that_a_mean_is_over_different_steps(here: Here) -> None:
    for name, step in (("a", 2000), ("b", 9000)):
        write_run(name, rows=[{"step": step, **tagged(parzen(225))}])
    note = "MNIST: the mean is over scores of steps 2,000 to 9,000."
    assert note in here("table1", "runs=[a,b]")[1]
    assert note not in here("table1", "runs=[a]")[1]


def test_run_without_a_score_is_reported_with_the_command(here: Here) -> None:
    write_run("with", metrics=parzen(225))
    write_run("with out", metrics={"nearest_1k": 3.0})
    code, out, err = here("table1", "runs=[with,with out]")
    sentence = (
        "run_dir=with out: has no recorded Parzen score; compute it with `ganrun evaluate run_dir='with out' "
        "metric=parzen`."
    )
    assert (code, sentence in out + err) == (0, True)
    assert cells(out, "ours")[0][1] == "225.0 +- 2.0 (1 run)"
    code, out, err = here("table1", "runs=with out")
    assert (code, sentence in out + err) == (2, True)
    code, out, err = here("table1", "runs=with", "checkpoint=best")
    assert "with `ganrun evaluate run_dir=with metric=parzen checkpoint=best`." in out + err


@pytest.mark.slow
def test_runs_are_selected_by_paths_and_patterns_and_counted_once(here: Here) -> None:
    write_run("sweep/loss=wgan_seed=1", metrics=parzen(224))
    write_run("sweep/loss=wgan_seed=2", metrics=parzen(226))
    Path("sweep/notes").mkdir()
    write_run("a,b [x]/0", metrics=parzen(225))
    assert cells(here("table1", "runs=[a,b [x]/0]")[1], "ours") == []
    for runs in ("a,b [x]/0", "['a,b [x]/0']", "['a,b */*','a,b [x]/0']"):
        assert cells(here("table1", f"runs={runs}")[1], "ours")[0][1] == "225.0 +- 2.0 (1 run)"
    for runs in (
        "sweep/*", "sweep/loss=wgan_seed=[12]", "[sweep/loss=wgan_seed=[1-9]]", "[sweep/*,sweep/loss=wgan_seed=1]",
        "[sweep/loss=wgan_seed=1, sweep/loss=wgan_seed=2/]",
    ):  # fmt: skip
        assert cells(here("table1", f"runs={runs}")[1], "ours")[0][1] == "225.0 +- 2.0 (2 runs)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs=[nowhere]"], "runs=nowhere: no run there"),
        (["runs=[]"], "runs=[]: names no run"),
        (["runs=no*"], "runs=no*: no run there"),
        (["runs=[.]"], "run_dir=.: no run there (it has no config.yaml)"),
        ([], "runs: must be given"),
        (["runs=3"], "runs=3: no run there"),
        (["runs=[a]", "format=latex"], "format=latex: must be one of text, markdown"),
        (["runs=[a]", "figure=table1"], "figure=table1: must end in one of .png, .pdf, .svg"),
        (["runs=[a]", "checkpoint=first"], "checkpoint=first: must be "),
    ],
)
def test_invalid_arguments_are_refused(arguments: list[str], message: str, here: Here) -> None:
    code, out, err = here("table1", *arguments)
    assert (code, message in out + err) == (2, True), out + err


def test_markdown(here: Here) -> None:
    write_run("a", metrics=parzen(225))
    _, out, _ = here("table1", "runs=[a]", "format=markdown")
    tables = [line for line in out.splitlines() if line.startswith("|")]
    widths = [line.count("|") for line in tables]
    assert widths == [4] * 7 + [12] * 3
    assert set(tables[1]) == set(tables[8]) == set("| -")
    assert "| Deep GSN         | 214 +- 1.1" in out
    assert "\n- parzen: says little about quality" in out


# The figure


def test_figure_has_every_recorded_score(here: Here) -> None:
    rows = [
        {"step": 400, **tagged(parzen(210, 1.5)), **tagged(parzen(150), "metric_raw")},
        {"step": 1000, **tagged(parzen(230)), **tagged(parzen(160), "metric_raw"), "loss/d": 1.0},
    ]
    write_run("a", "data=mnist", "train.ema=0.9", rows=rows)
    write_run("b", "data=mnist", metrics={key: value for key, value in parzen(170).items() if "anchor" not in key})
    write_run("o", "data=olivetti", metrics={"parzen_10k": 1400.0})
    mnist, olivetti = panels([Path("a"), Path("b"), Path("o")])
    assert mnist.lines == [
        Line("a", True, {400: (210.0, 1.5), 1000: (230.0, 2.0)}),
        Line("a", False, {400: (150.0, 2.0), 1000: (160.0, 2.0)}),
        Line("b", False, {1000: (170.0, 2.0)}),
    ]
    assert (mnist.title, mnist.published, mnist.anchor) == ("MNIST", (225.0, 2.0), 243.56)
    assert olivetti == Panel("olivetti", [Line("o", False, {1000: (1400.0, 0.0)})], None, None)


def test_figure_distinguishes_runs_and_g_ema_and_has_the_published_score() -> None:
    lines = [Line(name, ema, {5: (1.0, 0.1), 10: (2.0, 0.1)}) for name in "ab" for ema in (True, False)]
    figure = likelihood_figure([Panel("MNIST", lines, (225.0, 2.0), 243.56), Panel("TFD", lines[:1], None, None)])
    first, second = figure.axes
    drawn = [bar.lines[0] for bar in first.containers]
    assert len({(line.get_marker(), line.get_color(), line.get_linestyle()) for line in drawn}) == 4
    assert len({line.get_marker() for line in drawn}) == 2
    assert sorted(text.get_text() for text in first.get_legend().get_texts()) == [
        "a", "a, G_ema", "b", "b, G_ema", "published, 225 +- 2", "training images, 243.6"
    ]  # fmt: skip
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["a, G_ema"]


def test_figure_is_written_to_the_requested_file(here: Here) -> None:
    write_run("a", metrics=parzen(225))
    code, out, _ = here("table1", "runs=[a]", "figure=new/curves.png")
    assert code == 0
    assert "figure     new/curves.png" in out
    with Image.open("new/curves.png") as image:
        assert np.ptp(np.asarray(image.convert("L"))) > 200
    assert not list(Path("a").glob("*.png"))


@pytest.mark.slow
def test_from_training_to_the_table(here: Here) -> None:
    run = ["data=digits", "arch=mlp", "train.steps=2", "train.sample_every=0", "train.diagnose=false", "run_dir=r"]
    assert here(*run)[0] == 0
    assert here("table1", "runs=[r]")[0] == 2
    assert here("evaluate", "run_dir=r", "metric=parzen", "metric.parzen.num=50")[0] == 0
    _, out, _ = here("table1", "runs=[r]")
    metrics = json.loads(Path("r/result.json").read_text())["metrics"]
    (row,) = cells(out, "digits")
    assert row[4:8] == [
        "2", f"{metrics['parzen_50']:.1f} +- {metrics['parzen_50_se']:.1f}", f"{metrics['parzen_50_sigma']:.4f}", "50"
    ]  # fmt: skip
    assert row[-1] == f"{metrics['parzen_50_anchor']:.1f}"
