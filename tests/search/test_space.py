"""The space of a search, in Hydra's syntax of sweeps."""

import functools
import re
from collections.abc import Sequence

import pytest
from helpers import config_of

import ganrun.cli.search
from ganrun.cli.compose import add_user_folders, compose, groups_and_options
from ganrun.cli.search import SearchLine
from ganrun.config import CONF
from ganrun.search.space import Choice, Interval, Problem

FIXED = ["train.steps=5", "train.batch_size=16"]


composed = functools.cache(compose)  # Hydra takes a fifth of a second


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ganrun.cli.search, "compose", composed)


def problem_of(*words: str) -> Problem:
    add_user_folders([])
    return SearchLine([*FIXED, *words], groups_and_options([CONF]), set()).problem(["search"])


INTERVALS = {
    "optimizer.lr=interval(1e-5,1e-2)": (1e-5, 1e-2, None, False),
    "optimizer.lr=tag(log,interval(1e-5,1e-2))": (1e-5, 1e-2, None, True),
    "optimizer.lr=tag(log, interval(start=1e-5, end=1e-2))": (1e-5, 1e-2, None, True),
    "train.n_critic=interval(1,5)": (1, 5, 1, False),  # the setting is a whole number
    "train.n_critic=tag(log,interval(1,64))": (1, 64, 1, True),
    "train.n_critic=int(interval(1,5))": (1, 5, 1, False),
    "data.mean=interval(60,70)": (60, 70, 1, False),
    "data.mean=interval(60.0,70)": (60.0, 70.0, None, False),  # not so if an end has a point
    "data.mean=range(60,70)": (60, 69, 1, False),  # without its end, as elsewhere in Hydra
    "train.batch_size=range(16,65,16)": (16, 64, 16, False),
    "train.batch_size=tag(log,range(16,65))": (16, 64, 1, True),
    "train.label_noise=range(0,0.3,0.1)": (0, 0.2, 0.1, False),
}


@pytest.mark.parametrize("word", INTERVALS)
def test_intervals_and_ranges(word: str) -> None:
    (found,) = problem_of(word).parameters
    assert isinstance(found, Interval)
    low, high, step, log = INTERVALS[word]
    assert (found.low, found.log) == (low, log)
    assert found.high == pytest.approx(high)
    assert found.step == step
    assert found.is_whole == (isinstance(step, int))


CHOICES = {
    "train.batch_size=choice(16,32)": {16: "16", 32: "32"},
    "train.batch_size=16,32": {16: "16", 32: "32"},
    "optimizer.lr=0.1,0.2": {0.1: "0.1", 0.2: "0.2"},
    "loss=wgan,hinge": {"wgan": "wgan", "hinge": "hinge"},
    "loss=glob(wgan*)": {"wgan": "wgan", "wgan_gp": "wgan_gp"},
    "optimizer@g_optimizer=sgd,adam": {"sgd": "sgd", "adam": "adam"},
    "+data.more=1,2": {1: "1", 2: "2"},
    "data.unit=cm,'two words'": {"cm": "cm", "'two words'": "'two words'"},
    "arch.generator.hidden=[16],[32,32]": {"[16]": "[16]", "[32,32]": "[32,32]"},
    "train.ema_debias=choice(true,false)": {"True": "True", "False": "False"},
    "penalty=none,[r1,lecam]": {"none": "none", "[r1,lecam]": "[r1,lecam]"},
}


@pytest.mark.slow
@pytest.mark.parametrize("word", CHOICES)
def test_choices_and_their_settings(word: str) -> None:
    problem = problem_of(word)
    (found,) = problem.parameters
    assert isinstance(found, Choice)
    assert found.words == CHOICES[word]
    for value in found.words:
        problem.compose([found.setting(value)])


def test_run_has_the_config_of_its_command_line() -> None:
    problem = problem_of("loss=wgan,hinge", "optimizer.lr=tag(log,interval(1e-5,1e-2))", "train.n_critic=interval(1,5)")
    settings = [p.setting(v) for p, v in zip(problem.parameters, ["hinge", 1e-5, 3], strict=True)]
    assert settings == ["loss=hinge", "optimizer.lr=1e-05", "train.n_critic=3"]
    expected = config_of(*FIXED, *settings, "seed=4")
    del expected["trust"]
    assert problem.compose([*settings, "seed=4"]) == expected
    assert problem.fixed == FIXED
    assert [list(job) for job in problem.first] == [
        [f"loss={loss}", "optimizer.lr=1e-05", "train.n_critic=1"] for loss in ("wgan", "hinge")
    ]


@pytest.mark.slow
def test_first_trials_have_every_option() -> None:
    problem = problem_of("loss=wgan,hinge,minimax", "optimizer=adam,sgd", "train.n_critic=interval(1,5)")
    assert [list(trial) for trial in problem.first] == [
        [f"loss={loss}", f"optimizer={optimizer}", "train.n_critic=1"]
        for loss, optimizer in (("wgan", "adam"), ("hinge", "sgd"), ("minimax", "adam"))
    ]


@pytest.mark.slow
def test_settings_of_a_searched_option_can_be_searched_and_fixed() -> None:
    """Neither the default architecture nor the default data have these settings."""
    problem = problem_of("data=ring,spiral", "data.std=0.05", "data.num=choice(100,200)")
    for data in ("ring", "spiral"):
        found = problem.compose([f"data={data}", "data.num=200"])["data"]
        assert (found["_target_"], found["num"], found["std"]) == (f"ganrun.data.toy.{data}", 200, 0.05)


WRONG = {
    "no setting varies": [],
    "seed=0,1: is no parameter of a trial; search.seeds=3 ": ["seed=0,1"],
    "run_dir=a,b: must be one directory": ["run_dir=a,b"],
    "search.trials=10,20: must have one value.": ["search.trials=10,20"],
    "train.n_criti=1.0: no such setting": ["train.n_criti=interval(1,3)"],
    "did you mean train.n_critic?": ["train.n_criti=interval(1,3)"],
    "must be a whole number; write 1": ["train.n_critic=interval(1.0,3.0)"],
    "train.n_critic=0: must be at least 1": ["train.n_critic=interval(0,3)"],
    "train.label_noise=0.7: must lie in [0, 0.5)": ["train.label_noise=interval(0.1,0.7)"],
    "loss=wgann: no such option; did you mean wgan?": ["loss=hinge,wgann"],
    "its low end must be smaller": ["optimizer.lr=interval(2,1)"],
    "a log scale needs a low end above 0": ["optimizer.lr=tag(log,interval(0,1))"],
    "unknown tag lgo; the only one is log": ["optimizer.lr=tag(lgo,interval(0,1))"],
    "a choice takes no tag": ["optimizer.lr=tag(log,choice(0.1,0.2))"],
    "needs at least two different values": ["optimizer.lr=0.1,0.1"],
    "both ends must be finite": ["optimizer.lr=interval(0,inf)"],
    "is empty": ["train.n_critic=range(3,3)"],
    "must count up": ["train.n_critic=range(5,1,-1)"],
    "a log scale allows no steps but 1": ["train.n_critic=tag(log,range(1,9,2))"],
    "search.trials": ["search.trials=0,1"],
    "This is the trial data=heights data.num_modes=3": ["data=heights,ring", "data.num_modes=choice(3,4)"],
}


@pytest.mark.slow
@pytest.mark.parametrize("message", WRONG)
def test_wrong_spaces_are_reported(message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as found:
        problem_of(*WRONG[message])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(("word", "text"), [
    ("optimizer.lr=tag(log,interval(1e-5,1e-2))", "1e-05 to 0.01, on a log scale"),
    ("train.n_critic=interval(1,5)", "whole numbers from 1 to 5"),
    ("train.batch_size=range(16,65,16)", "whole numbers from 16 to 64 in steps of 16"),
    ("loss=wgan,hinge", "wgan, hinge"),
])  # fmt: skip
def test_space_in_words(word: str, text: str) -> None:
    parameters: Sequence[object] = problem_of(word).parameters
    assert str(parameters[0]) == text
