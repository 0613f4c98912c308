"""`ganrun report DIR [DIR ...]`: what it prints and writes, for runs of any kind."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import config_of, waiting_at
from sweeps import COLLAPSE, KEYS, loaded, write_run, write_sweep

from ganrun.commands.report import folder_of
from ganrun.metric_key import MetricKey
from ganrun.records.run_dir import RunDir

Here = Callable[..., tuple[int, str, str]]

MINIMAX = [0.30, 0.32, 0.28, 0.31, 0.29]
HINGE = [0.10, 0.12, 0.09, 0.11, 0.10]


def cells(out: str, first: str) -> list[str]:
    """The cells of the line of a text table that begins with that cell."""
    split = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()]
    return next(line for line in split if line and line[0] == first)


@pytest.mark.slow
def test_table_ranks_settings_and_names_what_varies(here: Here) -> None:
    write_sweep("s", {"loss=minimax": MINIMAX, "loss=lsgan": HINGE}, "train.steps=300")
    code, out, err = here("report", "s")
    assert (code, err) == (0, "")
    assert "10 runs: 10 finished" in out
    assert "ranked by ks_100k (the first metric of quality that the runs share); lower is better" in out
    assert cells(out, "loss") == [
        "loss", "n", "ks_100k [95%]", "best", "worst", "diverged", "collapsed", "images", "time"
    ]  # fmt: skip
    # 0.104 +- 2.776 * 0.01140 / sqrt(5)
    assert cells(out, "1") == [
        "1",
        "lsgan",
        "5",
        "0.104 [0.08984, 0.1182]",
        "0.09",
        "0.12",
        "0/5",
        "0/5",
        "19.2k",
        "3.0 s",
    ]
    assert cells(out, "2")[:4] == ["2", "minimax", "5", "0.3 [0.2804, 0.3196]"]
    assert "loss=lsgan is better than loss=minimax: by 0.196 in ks_100k" in out
    assert "paired by 5 seeds" in out
    assert "  ganrun -m loss=lsgan train.steps=300 seed=0,1,2,3,4" in out
    assert "page       s/report/report.html" in out
    assert sorted(path.name for path in Path("s/report").iterdir()) == [
        "curves.png", "report.html", "report.json", "runs.csv", "settings.csv", "values.png"
    ]  # fmt: skip


@pytest.mark.slow
def test_search_shows_rounded_numbers_and_suggests_no_sweep_over_all_of_them(here: Here) -> None:
    """Every trial has numbers of its own."""
    for i, loss in enumerate(["wgan", "hinge"] * 3):
        typed = [f"loss={loss}", f"optimizer.lr={0.0012345678 * (i + 1)!r}", f"train.label_noise={i / 10}"]
        write_run(f"s/trial_{i:04d}/seed=0", *typed, metrics={"ks_100k": 0.1 + i})
    out = here("report", "s", "files=false")[1]
    assert cells(out, "1")[:5] == ["1", "wgan", "0.001235", "0.0", "1"]
    assert "optimizer.lr=0.0012345678" in out  # in its command
    assert "Not a controlled comparison: loss=wgan also has" in out
    assert "The controlled sweep" not in out
    assert "better mean" not in out  # with one seed there is no difference to show


@pytest.mark.slow
def test_equal_means_and_values_that_are_not_finite(here: Here) -> None:
    write_sweep("s", {"loss=minimax": [0.1, 0.1], "loss=lsgan": [0.1, 0.1], "loss=wgan": [float("nan"), float("inf")]})
    out = here("report", "s", "files=false")[1]
    assert "is better: the means of loss=lsgan and loss=minimax are equal." in out
    assert "2 finished runs have no value of ks_100k, or none that is finite." in out
    assert "-0" not in out


def test_settings_that_seeds_cannot_tell_apart(here: Here) -> None:
    write_sweep("s", {"loss=minimax": [0.10, 0.2, 0.3], "loss=lsgan": [0.29, 0.1, 0.32]})
    out = here("report", "s", "files=false")[1]
    assert (
        "3 seeds cannot tell whether loss=minimax or loss=lsgan is better: loss=minimax is ahead of loss=lsgan by"
        in out
    )
    assert "seeds of each would, if the true difference is as large as this one." in out
    assert not Path("s/report").exists()


@pytest.mark.slow
def test_settings_that_only_one_setting_has_are_not_in_the_controlled_sweep(here: Here) -> None:
    for seed in (0, 1):
        line = ["train.steps=9", "loss=nonsaturating", "optimizer.lr=0.001", "train.steps=300"]
        write_run(f"s/ns{seed}", *line, seed=seed, metrics={"ks_100k": 0.1})
        line = ["loss=rpgan", "penalty.r1.gamma=0.02", "penalty.r2.every=4", "optimizer.lr=0.0005", "train.steps=300"]
        write_run(f"s/rp{seed}", *line, seed=seed, metrics={"ks_100k": 0.2})
    out = here("report", "s", "files=false")[1]
    (sentence,) = [line for line in out.splitlines() if "loss=rpgan also has" in line]
    assert "penalty=[r1,r2] (instead of none)" in sentence
    assert "gamma" not in sentence
    assert "(instead of )" not in out
    lines = out.splitlines()
    command = lines[lines.index("The controlled sweep, with the penalty of each loss:") + 1]
    assert "gamma" not in command
    assert command.split().count("train.steps=300") == 1
    assert "train.steps=9" not in out
    words = [word for word in command.split()[3:] if not word.startswith("seed=")]
    for loss in ("nonsaturating", "rpgan"):
        config_of(f"loss={loss}", *words)


@pytest.mark.slow
def test_settings_are_named_by_the_loss_if_it_determines_the_others(here: Here) -> None:
    """Rates that were tuned for each loss differ along with it, and are named above the table."""
    for loss, lr in (("minimax", 0.1), ("lsgan", 0.2), ("hinge", 0.2)):
        for seed in (0, 1):
            line = [f"loss={loss}", f"optimizer.lr={lr}", "optimizer=sgd", "schedule=constant", "train.n_critic=1"]
            write_run(f"s/{loss}{seed}", *line, seed=seed, metrics={"ks_100k": lr * (1 + seed)})
    out = here("report", "s", "files=false")[1]
    assert cells(out, "1")[:3] == ["1", "minimax", "2"]
    assert "Not a controlled comparison: loss=minimax also has optimizer.lr=0.1 (instead of 0.2). These" in out
    assert "optimizer.lr=0.1" in next(line for line in out.splitlines() if line.startswith("  ganrun -m loss=minimax"))
    for seed in (0, 1):
        line = ["loss=lsgan", "optimizer=adam", "optimizer.lr=0.002"]
        write_run(f"t/lsgan{seed}", *line, seed=seed, metrics={"ks_100k": 0.1})
        line = ["loss=wgan_gp", "optimizer=sgd", "optimizer.lr=0.1", "arch.discriminator.spectral_norm=true"]
        write_run(f"t/gp{seed}", *line, seed=seed, metrics={"ks_100k": 0.2})
    out = here("report", "t", "files=false")[1]
    assert cells(out, "2")[:3] == ["2", "wgan_gp", "2"]
    assert "loss=wgan_gp also has" in out
    assert "optimizer=sgd (instead of adam)" in out
    assert "arch.discriminator.spectral_norm=true (instead of false)" in out
    line = ["optimizer=sgd", "schedule=constant", "train.n_critic=1"]
    write_run("s/more", "loss=hinge", "optimizer.lr=0.3", *line, metrics={"ks_100k": 0.1})
    assert cells(here("report", "s", "files=false")[1], "1")[:4] == ["1", "hinge", "0.3", "1"]


def test_one_seed_cannot_tell(here: Here) -> None:
    write_sweep("s", {"loss=minimax": [0.1], "loss=lsgan": [0.2]})
    out = here("report", "s", "files=false")[1]
    assert "One seed cannot tell: loss=minimax has the best value of ks_100k, 0.1" in out
    assert cells(out, "1")[:4] == ["1", "minimax", "1", "0.1"]
    out = here("report", "s/loss=lsgan_seed=0", "files=false")[1]
    assert "all runs: ks_100k is 0.2 in one seed. There is no other setting with a value." in out


def test_higher_is_better_and_distance_from_the_true_value(here: Here) -> None:
    for seed in (0, 1):
        write_run(
            f"s/a{seed}", "loss=minimax", seed=seed, metrics={"modes_2500": 8.0, "mean_100k": 68.0, "mean_true": 69.0}
        )
        write_run(
            f"s/b{seed}", "loss=lsgan", seed=seed, metrics={"modes_2500": 6.0, "mean_100k": 69.5, "mean_true": 69.0}
        )
    out = here("report", "s", "files=false")[1]
    assert cells(out, "1")[:4] == ["1", "minimax", "2", "8 [8, 8]"]
    out = here("report", "s", "by=mean_100k", "files=false")[1]
    assert "ranked by distance of mean_100k from mean_true; lower is better" in out
    assert cells(out, "1")[:4] == ["1", "lsgan", "2", "0.5 [0.5, 0.5]"]


def test_metric_of_keep_best_ranks_by_default(here: Here) -> None:
    for seed in (0, 1):
        write_run(f"s/{seed}", "train.keep_best=w1_100k", seed=seed, metrics={"ks_100k": 0.1, "w1_100k": 2.0})
    assert "ranked by w1_100k (the metric of train.keep_best)" in here("report", "s", "files=false")[1]


def test_best_checkpoint(here: Here) -> None:
    write_run(
        "s/a", "train.keep_best=ks_100k", metrics={"ks_100k": 0.1}, best={"key": "ks_100k", "value": 0.2, "step": 200}
    )
    assert cells(here("report", "s", "checkpoint=best", "files=false")[1], "1")[2] == "0.2"
    assert cells(here("report", "s", "files=false")[1], "1")[2] == "0.1"


def test_runs_without_metrics_are_ranked_by_their_diagnosis(here: Here) -> None:
    for seed in (0, 1):
        write_run(f"s/{seed}", seed=seed)
    out = here("report", "s", "files=false")[1]
    assert "ranked by diagnosis/energy (from the diagnosis, as there is no metric)" in out
    assert cells(out, "1")[2] == "0.015 [-0.04853, 0.07853]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "dirs: must be given, as in `ganrun report DIR`."),
        (["nowhere"], "nowhere: no such folder; name run directories, or folders that contain some"),
        (["s/file"], "s/file: is a file; name run directories"),
        (["s/empty"], "s/empty: no run there; a run has a config.yaml."),
        (["s", "by=ks_10k"], "by=ks_10k: the run has no such metric; did you mean ks_100k? They have ks_100k"),
        (["s", "by=speed"], "by=speed: this metric does not declare which values are better; add better=higher or"),
        (["s", "better=larger"], "better=larger: must be one of higher, lower"),
        (["s", "compare=1"], "compare=1: must be at least 2"),
        (["s", "bye=3"], "bye=3: no such setting; did you mean by?"),
        (["s", "report.by=fid"], "report.by=fid: the settings of `ganrun report` have no prefix; type by=fid.\n"),
        (["s", "format=latex"], "format=latex: must be one of text, markdown, csv, json"),
        (["dirs=[]"], "dirs=[]: names no folder"),
    ],
)
def test_invalid_arguments_are_refused(arguments: list[str], message: str, here: Here) -> None:
    write_run("s/a", metrics={"ks_100k": 0.1, "speed": 3.0})
    Path("s/file").touch()
    Path("s/empty").mkdir()
    code, out, err = here("report", *arguments)
    assert (code, message in err) == (2, True), out + err


def test_direction_can_be_given(here: Here) -> None:
    write_sweep("s", {"loss=minimax": [1.0, 1.1], "loss=lsgan": [2.0, 2.1]}, key="speed")
    out = here("report", "s", "by=speed", "better=higher", "files=false")[1]
    assert cells(out, "1")[1] == "lsgan"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["a b", "it's", "x=1,y=2", "[a]", "größe", "a${b}c", "back\\slash", "loss=wgan_seed=0", "by"]
)
def test_directories_are_typed_as_words(name: str, here: Here) -> None:
    write_run(Path("s") / name, metrics={"ks_100k": 0.1})
    write_run("other", seed=1, metrics={"ks_100k": 0.2})
    assert "1 run: 1 finished" in here("report", f"s/{name}", "files=false")[1]
    assert "2 runs: 2 finished" in here("report", "s", "other", "s", f"s/{name}", "files=false")[1]


def test_a_run_directory_named_like_a_setting(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run("s/loss=wgan", metrics={"ks_100k": 0.1})
    monkeypatch.chdir("s")
    assert "1 run: 1 finished" in here("report", "loss=wgan", "files=false")[1]
    assert "loss=hinge: no such setting" in here("report", "loss=hinge")[2]


@pytest.mark.slow
def test_completion_of_words(command: Callable[..., subprocess.CompletedProcess]) -> None:
    Path("outputs").mkdir()
    done = command("-sc", "query=bash", COMP_LINE="ganrun report out", COMP_POINT="17")
    assert done.stdout.split() == ["outputs/"]
    done = command("-sc", "query=bash", COMP_LINE="ganrun report outputs/ files=", COMP_POINT="30")
    assert "outputs" not in done.stdout


def test_output_folder() -> None:
    assert folder_of(["o/a", "o/b"], None) == Path("o/report")
    assert folder_of(["o/a"], None) == Path("o/a/report")
    assert folder_of(["o", "p"], None) == Path("report")
    assert folder_of(["o"], "my report") == Path("my report")
    assert folder_of(["/o/a", "p"], None) == Path("/o/a/report")


@pytest.mark.slow
def test_links_are_neither_followed_nor_written_through(here: Here) -> None:
    write_run("elsewhere/a", metrics={"ks_100k": 0.1}, picture=True)
    write_run("s/b", metrics={"ks_100k": 0.2}, picture=True)
    Path("s/link").symlink_to(Path("elsewhere").absolute())
    assert "1 run: 1 finished" in here("report", "s", "files=false")[1]
    Path("s/report").symlink_to(Path("elsewhere").absolute())
    code, _, err = here("report", "s")
    assert (code, "s/report: is a link" in err) == (2, True)
    secret = Path("elsewhere/a/samples/step_00000300.png")
    for picture in Path("s/b/samples").iterdir():
        picture.unlink()
        picture.symlink_to(secret.absolute())
    here("report", "s", "out=o")
    assert "data:image/png" not in Path("o/report.html").read_text().partition("<h3>Samples")[2]


@pytest.mark.slow
def test_running_diverged_and_killed_runs(here: Here) -> None:
    write_sweep("s", {"loss=lsgan": [0.1, 0.12]})
    write_run("s/diverged", "loss=minimax", seed=0, status="diverged", error="step 200: loss/d is nan.")
    write_run("s/fine", "loss=minimax", seed=1, metrics={"ks_100k": 0.05}, findings=[COLLAPSE])
    write_run("s/killed", "loss=lsgan", seed=2, metrics={"ks_100k": 0.0}, status=None)
    with RunDir(write_run("s/running", "loss=lsgan", seed=3, metrics={"ks_100k": 0.0}, status=None)):
        out = here("report", "s")[1]
    assert "6 runs: 3 finished, 1 diverged, 1 killed, 1 running" in out
    assert "Means are over finished runs, without 2 runs: 1 killed, 1 running." in out
    assert "Diverged runs have no value, so the means of loss=minimax are too good." in out
    assert cells(out, "1")[1:8] == ["minimax", "1", "0.05", "0.05", "0.05", "1/2", "1/2"]
    assert cells(out, "2")[1:4] == ["lsgan", "2", "0.11 [-0.01706, 0.2371]"]
    page = Path("s/report/report.html").read_text()
    assert "diverged: step 200: loss/d is nan." in page
    assert "0 (step 300)" in page


def test_setting_of_which_most_runs_diverged_comes_last(here: Here) -> None:
    write_sweep("s", {"loss=lsgan": [0.1, 0.12, 0.11]})
    for seed in (1, 2):
        write_run(f"s/diverged{seed}", "loss=minimax", seed=seed, status="diverged")
    write_run("s/fine", "loss=minimax", metrics={"ks_100k": 0.01})
    out = here("report", "s", "files=false")[1]
    assert cells(out, "2")[1:7] == ["minimax", "1", "0.01", "0.01", "0.01", "2/3"]


def test_before_any_run_has_finished_values_of_the_last_common_step_count(here: Here) -> None:
    for seed in (0, 1):
        write_run(f"s/a{seed}", "loss=minimax", seed=seed, metrics={"ks_100k": 0.1 + seed}, status=None)
        write_run(
            f"s/b{seed}", "loss=lsgan", seed=seed, metrics={"ks_100k": 0.2 + seed}, steps=600, status="interrupted"
        )
    out = here("report", "s", "files=false")[1]
    assert "No run has finished: values are those of step 200, the last one that all runs have logged." in out
    assert cells(out, "1")[1:6] == ["minimax", "2", "1.2 [-11.51, 13.91]", "0.2", "2.2"]


@pytest.mark.slow
def test_report_while_a_run_is_training(here: Here) -> None:
    line = [
        "data=heights",
        "train.steps=60",
        "train.log_every=10",
        "train.metric_every=20",
        "train.sample_every=20",
        "run_dir=s/r",
    ]
    with waiting_at(40, line, Path.cwd()):
        code, out, _ = here("report", "s")
    assert code == 0
    assert "1 run: 1 running" in out
    assert "values are those of step 20" in out or "values are those of step 40" in out


@pytest.mark.slow
def test_damaged_and_foreign_directories_are_named(here: Here) -> None:
    write_run("s/fine", metrics={"ks_100k": 0.1})
    write_run("s/no result", seed=1, metrics={"ks_100k": 0.1})
    Path("s/no result/result.json").write_text('{"status": "finished"')
    write_run("s/odd", seed=2, metrics={"ks_100k": 0.1}, diagnosis=[3], metrics_raw="x", best=None)
    write_run(
        "s/odder",
        seed=3,
        metrics={"ks_100k": 0.1},
        diagnosis={"name": 3, "findings": [None, {"name": []}], "measurements": 1},
    )
    write_run("s/broken", seed=4)
    Path("s/broken/config.yaml").write_text("loss: [")
    Path("s/foreign/.hydra").mkdir(parents=True)
    Path("s/foreign/.hydra/config.yaml").write_text("lr: 1")
    Path("s/other").mkdir()
    Path("s/other/config.yaml").write_text("lr: 1")
    write_run("s/other/nested", seed=5, metrics={"ks_100k": 0.1})
    (Path("s/fine/checkpoints") / "old").mkdir(parents=True)
    shutil.copy("s/fine/config.yaml", "s/fine/checkpoints/old")
    (Path("s/fine") / "samples").mkdir()
    Path("s/fine/samples/step_00000300.png").write_bytes(b"no picture")
    code, out, err = here("report", "s")
    assert code == 0
    assert "5 runs: 4 finished, 1 killed" in out
    assert "s/no result/result.json: is damaged" in err
    assert "  s/broken/config.yaml: is damaged, or not a config of ganrun" in out
    assert "  s/other/config.yaml: is damaged, or not a config of ganrun (it has no seed)." in out
    assert "s/other/config.yaml" in Path("s/report/report.html").read_text()


def test_two_runs_of_one_seed_count_once(here: Here) -> None:
    write_sweep("s", {"loss=lsgan": [0.1, 0.12]})
    write_run("s/again", "loss=lsgan", seed=1, metrics={"ks_100k": 0.9}, steps=150)
    out = here("report", "s", "files=false")[1]
    assert "1 more run repeat" in out
    assert cells(out, "1")[1:3] == ["2", "0.11 [-0.01706, 0.2371]"]


@pytest.mark.slow
def test_different_data_are_ranked_apart(here: Here) -> None:
    for seed in (0, 1):
        write_run(f"s/h{seed}", "data=heights", seed=seed, metrics={"ks_100k": 0.1 + seed})
        write_run(f"s/r{seed}", "data=ring", seed=seed, metrics={"modes_2500": 8.0 - seed})
    out = here("report", "s")[1]
    assert "data gaussian, ranked by ks_100k" in out
    assert "data ring, ranked by modes_2500" in out
    assert {"values_gaussian.png", "values_ring.png"} <= {path.name for path in Path("s/report").iterdir()}
    assert "data ring, ranked by modes_2500" in here("report", "s", "by=ks_100k", "files=false")[1]


@pytest.mark.slow
def test_formats(here: Here) -> None:
    write_sweep("s", {"loss=minimax": MINIMAX, "loss=lsgan": HINGE})
    out = here("report", "s", "format=markdown", "files=false")[1]
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table[:4]} == {11}
    out = here("report", "s", "format=csv", "files=false")[1]
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["rank"], row["loss"], row["n"]) for row in rows] == [("1", "lsgan", "5"), ("2", "minimax", "5")]
    assert float(rows[0]["mean"]) == pytest.approx(0.104)
    out = here("report", "s", "format=json")[1]
    Path("printed.json").write_text(out)
    found = loaded("printed.json")
    assert found == loaded("s/report/report.json")
    best = found["parts"][0]["settings"][0]
    assert (best["name"], best["n"], best["mean"]["value"]) == ("loss=lsgan", 5, pytest.approx(0.104))
    assert [run["value"] for run in best["runs"]] == HINGE
    comparison = found["parts"][0]["comparisons"][0]
    assert (comparison["pairs"], comparison["value"]) == (5, pytest.approx(-0.196))
    assert comparison["p"] == comparison["corrected"]
    runs = list(csv.DictReader(Path("s/report/runs.csv").read_text().splitlines()))
    assert [(run["loss"], run["seed"], run["ks_100k"]) for run in runs[:2]] == [
        ("lsgan", "0", "0.1"),
        ("lsgan", "1", "0.12"),
    ]


def test_values_that_are_not_numbers_do_not_count(here: Here) -> None:
    write_sweep("s", {"loss=lsgan": [0.1, 0.12, float("nan")]})
    out = here("report", "s", "format=json", "files=false")[1]
    assert "NaN" not in out
    assert '"n": 2' in out


@pytest.mark.slow
def test_strings_of_a_received_run_are_made_visible(here: Here) -> None:
    evil = "arch=<script>alert(1)</script>\x1b[2J\u202e"
    for seed, formula in ((0, "=cmd|x"), (1, "@x")):
        path = write_run(
            f"s/{seed}", seed=seed, metrics={"ks_100k": 0.1 + seed}, keys=KEYS | {"=1+1": MetricKey("lower")}
        )
        config = config_of() | {"seed": 0, "augment": {"_target_": formula}, "run_dir": str(path)}
        RunDir(path).write_config(config)
        RunDir(path).write_overrides([evil, f"augment={formula}", f"train.steps={seed}"])
    code, out, _ = here("report", "s")
    assert code == 0
    assert "\x1b" not in out
    page = Path("s/report/report.html").read_text()
    assert "<script>alert" not in page
    assert not {"\x1b", "\u202e"} & {*page}  # which could make a command look like another
    assert "&lt;script&gt;alert(1)" in page
    table = Path("s/report/settings.csv").read_text()
    assert "'@x" in table
    assert ",@x" not in table
    assert ",=cmd" not in table


@pytest.mark.slow
def test_torch_is_not_imported(command: Callable[..., subprocess.CompletedProcess]) -> None:
    """It would take more memory than all the rest, and seconds."""
    write_sweep("s", {"loss=minimax": [0.1, 0.2], "loss=lsgan": [0.2, 0.3]})
    code = "import sys; from ganrun.cli.main import main; sys.exit(main(['report', 's']) or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path("s/report/report.html").exists()


@pytest.mark.slow
def test_from_a_sweep_to_its_report_and_its_commands(
    here: Here, command: Callable[..., subprocess.CompletedProcess]
) -> None:
    """The command of a setting repeats its runs with the same values."""
    rest = ["train.steps=20", "train.metric_every=10", "train.sample_every=20", "train.diagnose=false"]
    rest += ["metric=distribution", "metric.distribution.num=1000"]
    assert here("-m", "loss=nonsaturating,wgan", "seed=0,1", *rest, "run_dir=s")[0] == 0
    out = here("report", "s")[1]
    assert "Not a controlled comparison: loss=wgan also has" in out
    found = loaded("s/report/report.json")["parts"][0]
    for setting in found["settings"]:
        words = setting["command"].split()[1:]
        assert here(*words, f"run_dir=again/{setting['name']}")[0] == 0
    again = here("report", "again", "format=json", "files=false")[1]
    Path("again.json").write_text(again)
    repeated = loaded("again.json")["parts"][0]
    assert [s["mean"] for s in repeated["settings"]] == [s["mean"] for s in found["settings"]]
    controlled = found["controlled"].split()[1:]
    assert here(*controlled, "run_dir=controlled")[0] == 0
    assert (
        "Not a controlled comparison: loss=wgan also has penalty=weight_clip (instead of none)."
        in here("report", "controlled")[1]
    )
    Path("s/loss=wgan_seed=0/command.json").unlink()
    page = here("report", "s/loss=wgan_seed=0", "format=json", "files=false")[1]
    Path("one.json").write_text(page)
    alone = loaded("one.json")["parts"][0]["settings"][0]
    assert command(*alone["command"].split()[1:]).returncode == 0  # in a process of its own: it changes Hydra's state
    (new,) = Path("outputs").iterdir()
    assert loaded(new / "result.json")["metrics"] == loaded("s/loss=wgan_seed=0/result.json")["metrics"]


@pytest.mark.slow
def test_values_of_different_protocols_are_named(here: Here) -> None:
    def fidelity(weights: str, num: int = 1000) -> dict[str, object]:
        return {"fidelity_mnistcnn_1k": {"num": num, "features": {"weights": weights}}}

    for seed, weights in enumerate(("a1", "a1", "b2")):
        write_run(f"s/{seed}", seed=seed, metrics={"ks_100k": 0.1}, protocols=fidelity(weights))
    said = "Values of fidelity_mnistcnn_1k cannot be compared: runs differ in features.weights of its protocol."
    assert said in here("report", "s", "files=false")[1]
    shutil.rmtree("s/2")
    assert "cannot be compared" not in here("report", "s", "files=false")[1]
    write_run("s/3", seed=3, metrics={"ks_100k": 0.1})  # without protocols
    write_run("s/4", seed=4, metrics={"ks_100k": 0.1}, protocols=fidelity("b2", num=500))
    assert "runs differ in num and features.weights of its protocol." in here("report", "s", "files=false")[1]
