"""`ganrun search`: it finds known optima, survives kills, and its trials are ordinary runs."""

import fcntl
import os
import re
import signal
import struct
import termios
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, Here
from helpers import assert_same_run, end_of, result_of, send_at
from searches import LINE, RUN, Search, distance, searching, trials_in, write_metric

from ganrun.records.run_dir import RunDir
from ganrun.search.space import Parameter, Value

pytest.importorskip("optuna")

NEAR = 0.1  # in a space of 2 by 4; benchmarks/search.json has the distances for ten seeds, also of random trials
KILLED = {12: "training", 17: "drawing"}  # trials in which the process is killed, once TPE proposes them, and where


@pytest.fixture
def search(here: Here, tmp_path: Path) -> Search:
    return searching(here, tmp_path)


def kill_in(number: int, where: str) -> None:
    """Kill this process in that trial: after its only step is logged, or after the first of its parameters is drawn."""
    from ganrun.search import study  # imports Optuna

    log_row, suggest = RunDir.log_row, study.suggest

    def log_and_die(self: RunDir, row: dict[str, object]) -> None:
        log_row(self, row)
        if where == "training" and f"trial_{number:04d}" in str(self.path):
            os.kill(os.getpid(), signal.SIGKILL)

    def suggest_and_die(trial: Any, parameter: Parameter) -> Value:
        if where == "drawing" and trial.number == number and parameter.key == "metric.known.y":
            os.kill(os.getpid(), signal.SIGKILL)
        return suggest(trial, parameter)

    RunDir.log_row, study.suggest = log_and_die, suggest_and_die  # type: ignore[method-assign]


@pytest.mark.slow
def test_search_that_is_killed_twice_finds_the_optimum(search: Search, tmp_path: Path) -> None:
    """Its trials are those of a search that is not killed, also the one that was killed between two parameters."""
    for number, where in KILLED.items():
        ended = end_of([*LINE, "seed=1", "search.trials=60"], tmp_path, partial(kill_in, number, where))
        assert ended.code == -signal.SIGKILL, ended
        states = [trial.state.name for trial in trials_in(tmp_path / "s")]
        assert states == ["COMPLETE"] * number + ["RUNNING"]
        assert len(trials_in(tmp_path / "s")[-1].params) == (2 if where == "training" else 1)
    code, out, err = search("search.trials=60", "seed=1")
    assert (code, err) == (0, "")
    assert "search     60 trials: 60 finished" in out
    trials = trials_in(tmp_path / "s")
    assert [trial.number for trial in trials] == [*range(60)]
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    best = min(trials, key=lambda trial: trial.value)
    assert distance(best.params) < NEAR
    assert len({path.parent.name for path in (tmp_path / "s").glob("trial_*/seed=1")}) == 60
    for trial in trials:
        result = result_of(tmp_path / "s" / f"trial_{trial.number:04d}" / "seed=1")
        assert result["metrics"]["error"] == pytest.approx(trial.value) == pytest.approx(distance(trial.params) ** 2)
    search("search.trials=19", "seed=1", "run_dir=undisturbed")
    undisturbed = trials_in(tmp_path / "undisturbed")
    assert [(t.params, t.value) for t in undisturbed] == [(t.params, t.value) for t in trials[:19]]


@pytest.mark.slow
def test_answer_has_a_command_that_reproduces_the_best_trial(search: Search, here: Here, tmp_path: Path) -> None:
    code, out, err = search("search.trials=3", "loss=choice(wgan,hinge)", "seed=5")
    assert (code, err) == (0, "")
    assert "loss: wgan, hinge" in out
    best = min(trials_in(tmp_path / "s"), key=lambda trial: trial.value)
    assert re.search(rf"best       error {best.value:.4g}  .*\(trial {best.number}\)", out)
    assert "optuna-dashboard sqlite:///s/study.db" in out
    command = re.search(r"^command    ganrun (.*)$", out, re.MULTILINE)
    assert command is not None
    assert "search." not in command[1]
    words = command[1].split()
    assert {f"loss={best.params['loss']}", "seed=5"} <= {*words}
    assert here(*words, "run_dir=again")[0] == 0
    assert_same_run(tmp_path / "again", tmp_path / "s" / f"trial_{best.number:04d}" / "seed=5")


@pytest.mark.slow
def test_value_is_the_mean_over_seeds_and_more_trials_can_be_added(search: Search, tmp_path: Path) -> None:
    line = ["metric.known.noise=1", "search.seeds=3", "seed=4"]
    assert search("search.trials=1", *line)[0] == 0
    folder = tmp_path / "s" / "trial_0000"
    assert sorted(path.name for path in folder.glob("seed=*")) == ["seed=4", "seed=5", "seed=6"]
    values = [result_of(folder / f"seed={seed}")["metrics"]["error"] for seed in (4, 5, 6)]
    assert len({*values}) == 3
    first = trials_in(tmp_path / "s")
    assert first[0].value == pytest.approx(sum(values) / 3)
    _, out, _ = search("search.trials=2", *line)
    assert "trial 0 " not in out
    assert "trial 1    error" in out
    assert trials_in(tmp_path / "s")[0] == first[0]


@pytest.mark.slow
def test_pruned_run_is_resumed_to_the_result_of_a_run_that_was_not(search: Search, here: Here, tmp_path: Path) -> None:
    """The first trial that is worse than the median of those before. Evaluations at step 2 of 4."""
    steps = ["train.steps=4", "train.metric_every=2", "train.ema=0.5"]
    code, out, err = search("search.trials=9", "search.sampler=random", "search.prune=[metric]", *steps)
    assert (code, err) == (0, "")
    pruned = [trial for trial in trials_in(tmp_path / "s") if trial.state.name == "PRUNED"]
    assert len(pruned) > 1
    assert f"{len(pruned)} pruned" in out
    for trial in pruned:
        before = sorted(t.value for t in trials_in(tmp_path / "s")[: trial.number] if t.state.name == "COMPLETE")
        assert trial.value > before[(len(before) - 1) // 2]
        assert trial.intermediate_values == {2: trial.value}
    path = f"s/trial_{pruned[0].number:04d}/seed=0"
    assert result_of(tmp_path / path)["status"] == "interrupted"
    assert [p.name for p in (tmp_path / path / "checkpoints").iterdir()] == ["step_00000002.pt"]
    assert here("resume", f"run_dir={path}")[0] == 0
    params = [f"{key}={value!r}" for key, value in pruned[0].params.items()]
    assert here(*RUN, *params, *steps, "run_dir=plain")[0] == 0
    assert_same_run(tmp_path / "plain", tmp_path / path)


@pytest.mark.slow
def test_interrupted_trial_is_saved_and_resumed(search: Search, tmp_path: Path) -> None:
    line = [*LINE, "search.trials=2", "train.steps=3"]
    ended = send_at(2, [signal.SIGTERM], line, tmp_path)
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "search     interrupted" in ended.out
    path = tmp_path / "s" / "trial_0000" / "seed=0"
    assert result_of(path)["status"] == "interrupted"
    (before,) = trials_in(tmp_path / "s")
    assert before.state.name == "RUNNING"
    code, _, err = search("search.trials=2", "train.steps=3")
    assert (code, err) == (0, "")
    after = trials_in(tmp_path / "s")
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 2
    assert after[0].params == before.params
    assert "resuming at step 2 of 3" in (path / "train.log").read_text()


@pytest.mark.slow
def test_diverged_and_invalid_trials_count_as_the_worst(search: Search, tmp_path: Path) -> None:
    """The others are run. The learning rate makes weights infinite; an MLP cannot have a negative number of units."""
    rates, units = "optimizer.lr=0.001,1e38", "arch.generator.hidden=[4],[-4]"
    line = ["search.trials=8", "search.sampler=random", "seed=1", "optimizer=sgd", "train.steps=3"]
    code, out, err = search(*line, rates, units)
    assert (code, err) == (0, "")
    trials = trials_in(tmp_path / "s")
    for trial in trials:
        kind = "invalid" if trial.params["arch.generator.hidden"] == "[-4]" else "finished"
        kind = "diverged" if kind == "finished" and trial.params["optimizer.lr"] == 1e38 else kind
        assert trial.user_attrs["ending"] == kind
        assert trial.state.name == ("COMPLETE" if kind == "finished" else "PRUNED")
    assert {trial.user_attrs["ending"] for trial in trials} == {"finished", "diverged", "invalid"}
    assert re.search(r"trial \d    diverged: step \d: .* is (nan|inf|-inf)  ", out)
    assert "invalid: arch.generator" in out


@pytest.mark.slow
def test_failed_trial_is_tried_again_by_the_same_command(search: Search, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    code, out, _ = search("search.trials=2")
    assert code == 1
    assert "2 trials: 2 failed" in out
    assert "trial 1 failed: ValueError: the disk is full" in out
    (tmp_path / "broken").unlink()
    code, out, err = search("search.trials=3")
    assert (code, err) == (0, "")
    assert "2 failed trials are tried again" in out
    assert "3 trials: 3 finished" in out
    trials = trials_in(tmp_path / "s")
    assert [trial.state.name for trial in trials] == ["FAIL"] * 2 + ["COMPLETE"] * 3
    assert [trial.params for trial in trials[:2]] == [trial.params for trial in trials[2:4]]
    assert sorted(p.name for p in (tmp_path / "s").glob("trial_*")) == ["trial_0000", "trial_0001", "trial_0004"]


@pytest.mark.slow
def test_damaged_run_is_a_failure_and_not_a_bad_trial(search: Search, tmp_path: Path) -> None:
    assert send_at(1, [signal.SIGTERM], [*LINE, "search.trials=1", "train.steps=3"], tmp_path).code == 143
    config = tmp_path / "s" / "trial_0000" / "seed=0" / "config.yaml"
    content = config.read_text()
    config.write_text("[")
    code, out, _ = search("search.trials=1", "train.steps=3")
    assert code == 1
    assert re.search("trial 0    failed: .*config.yaml: is damaged", out)
    config.write_text(content)
    code, out, err = search("search.trials=1", "train.steps=3")
    assert (code, err) == (0, "")
    assert "1 trial: 1 finished" in out


@pytest.mark.slow
def test_trial_that_cannot_be_built_does_not_end_the_search(search: Search, tmp_path: Path) -> None:
    """As without the memory for its networks. The networks of the first trial are built before."""
    (tmp_path / "huge.py").write_text(
        "import ganrun.loss\n"
        "class Loss(ganrun.loss.NonSaturating):\n"
        "    def __init__(self, real_label=1.0, size=1):\n"
        "        super().__init__(real_label)\n"
        "        if size > 1:\n"
        "            raise MemoryError\n"
    )
    code, out, _ = search("loss._target_=huge.Loss", "+loss.size=1,9", "search.trials=6")
    assert code == 1
    assert re.search(r"trial \d    failed: MemoryError: ", out)
    assert re.search("6 trials: . (finished|failed), . (finished|failed)", out)


@pytest.mark.slow
def test_progress_is_one_line_on_a_terminal(tmp_path: Path) -> None:
    write_metric(tmp_path)
    ended = end_of([*LINE, "search.trials=2"], tmp_path, partial(write_terminal_to, tmp_path / "terminal"))
    assert ended.code == 0, ended
    text = (tmp_path / "terminal").read_text()
    assert "search: 0 of 2 done, 1 running" in text
    assert re.search(r"search: 1 of 2 done, 1 running, best error [\d.e-]+, ETA 0:0", text)
    assert re.search(r"search: 2 of 2 done, best error [\d.e-]+ *\r?\n", text)


def write_terminal_to(path: Path) -> None:
    """Let standard error of this process be a terminal, whose text a thread writes into a file."""
    terminal, program = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    os.dup2(program, 2)

    def copy() -> None:
        with open(path, "wb", buffering=0) as file:
            while True:
                file.write(os.read(terminal, 1000))

    threading.Thread(target=copy, daemon=True).start()


@pytest.mark.slow
def test_several_objectives_end_in_their_pareto_front(search: Search, tmp_path: Path) -> None:
    goals = ["search.metric=[gain,other]", "search.trials=12"]
    code, out, err = search(*goals)
    assert (code, err) == (0, "")
    assert "objective  maximize gain and minimize other" in out
    values = {trial.number: trial.values for trial in trials_in(tmp_path / "s")}
    front = {
        number
        for number, (gain, other) in values.items()
        if not any(g >= gain and o <= other and (g, o) != (gain, other) for g, o in values.values())
    }
    assert {int(number) for number in re.findall(r"\(trial (\d+)\)$", out, re.MULTILINE)} == front
    assert out.count("ganrun metric=known") == len(front)
    assert "(for gain)" in out
    assert "(for other)" in out


@pytest.mark.slow
def test_other_samplers(search: Search, tmp_path: Path) -> None:
    pytest.importorskip("cmaes")
    assert search("search.trials=25", "search.sampler=cmaes", "search.metric=gain")[0] == 0
    assert search("search.trials=3", "search.sampler=random", "run_dir=r")[0] == 0
    assert search("search.trials=3", "search.sampler=random", "run_dir=again")[0] == 0
    assert search("search.trials=3", "search.sampler=random", "run_dir=other", "seed=1")[0] == 0
    drawn = {name: [trial.params for trial in trials_in(tmp_path / name)] for name in ("r", "again", "other")}
    assert drawn["r"] == drawn["again"] != drawn["other"]
    assert min(distance(trial.params) for trial in trials_in(tmp_path / "s")) < 5 * NEAR


@pytest.mark.slow
def test_diagnosis_of_an_evaluation_prunes(search: Search, tmp_path: Path) -> None:
    """Losses beyond 1e4 are divergence, before anything is infinite."""
    line = ["train.steps=6", "train.metric_every=2", "optimizer=sgd", "optimizer.lr=1e3,1e-3", "loss=lsgan"]
    code, _, err = search("search.trials=4", "search.prune=divergence", "search.sampler=random", *line)
    assert (code, err) == (0, "")
    for trial in trials_in(tmp_path / "s"):
        assert (trial.user_attrs["ending"] == "finished") == (trial.params["optimizer.lr"] == 1e-3)
        if trial.params["optimizer.lr"] == 1e3:
            assert trial.user_attrs["reason"].startswith("divergence at step ")
            assert result_of(tmp_path / "s" / f"trial_{trial.number:04d}" / "seed=0")["status"] == "interrupted"


@pytest.mark.slow
def test_processes_share_the_trials(command: Command, tmp_path: Path) -> None:
    """The first one to train is killed, and started again."""
    write_metric(tmp_path)
    (tmp_path / "deadly").touch()
    done = command(*LINE, "search.trials=7", "search.jobs=2")
    assert not (tmp_path / "deadly").exists()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("objective  minimize error") == 1
    assert "7 trials: 7 finished" in done.stdout
    assert sorted(map(int, re.findall(r"^trial (\d+) ", done.stdout, re.MULTILINE))) == [*range(7)]
    assert [trial.state.name for trial in trials_in(tmp_path / "s")] == ["COMPLETE"] * 7


@pytest.mark.slow
def test_trial_that_kills_its_process_three_times_has_failed(search: Search, tmp_path: Path) -> None:
    """Else it would end every process of the search. The same command tries it again."""
    for _ in range(3):
        ended = end_of([*LINE, "search.trials=2"], tmp_path, partial(kill_in, 0, "training"))
        assert ended.code == -signal.SIGKILL
    code, out, _ = search("search.trials=2")
    assert code == 1
    assert "trial 0    failed: its process was killed 3 times without any progress" in out
    assert "2 trials: 1 finished, 1 failed" in out or "2 trials: 1 failed, 1 finished" in out
    code, out, err = search("search.trials=2")
    assert (code, err) == (0, "")
    assert [trial.state.name for trial in trials_in(tmp_path / "s")] == ["FAIL", "COMPLETE", "COMPLETE"]
