"""Wrong settings of a search are reported before anything is written."""

import importlib.util
from pathlib import Path

import pytest
from conftest import Here
from searches import RUN, Search, X, Y, searching

pytest.importorskip("optuna")


@pytest.fixture
def search(here: Here, tmp_path: Path) -> Search:
    return searching(here, tmp_path)


WRONG = {
    "search.metric=erro: is declared by no metric of these runs; choose one of error, other, gain.": [
        "search.metric=erro"
    ],
    "search.metric: must be given, as in search.metric=KEY; choose one of error,": ["search.metric=null"],
    "search.metric=test: is computed from test data": ["search.metric=test"],
    "search.metric=count: it does not declare whether": ["search.metric=count"],
    "search.metric=[]: must be one key, or a list": ["search.metric=[]"],
    "search.direction=[minimize,maximize]: must have one direction for each": ["search.direction=[minimize,maximize]"],
    "search.direction=lower: must be": ["search.direction=lower"],
    "search.trials=0: must be at least 1.": ["search.trials=0"],
    "search.jobs=2000: must be at most": ["search.jobs=2000"],
    "search.trails=3: no such setting; did you mean search.trials?": ["search.trails=3"],
    "search.sampler=grid: must be one of tpe, random, cmaes.": ["search.sampler=grid"],
    "search.prune=[metric]: runs are pruned when": ["search.prune=metric"],
    "train.metric_every=10": ["search.prune=metric", "train.steps=100"],
    "search.prune=[metric]: metric prunes by one objective": [
        "search.prune=metric", "search.metric=[error,gain]", "train.steps=4", "train.metric_every=1",
    ],
    "search.sampler=cmaes: has one objective": ["search.metric=[error,gain]", "search.sampler=cmaes"],
    "ganrun search: is one search": ["-m"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings(message: str, search: Search, tmp_path: Path) -> None:
    code, _, err = search(*WRONG[message])
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_missing_library_is_named(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    code, _, err = search()
    assert (code, err) == (2, "ganrun search: needs Optuna, which is not installed; `pip install 'ganrun[search]'`.\n")


@pytest.mark.slow
def test_cmaes_needs_numbers(search: Search, here: Here) -> None:
    code, _, err = here("search", X, *RUN, "search.metric=error", "loss=wgan,hinge", "search.sampler=cmaes")
    assert code == 2
    assert "search.sampler=cmaes: needs at least two settings with an interval" in err


@pytest.mark.slow
def test_directory_with_anything_else_is_refused(search: Search, here: Here, tmp_path: Path) -> None:
    assert search("search.trials=1")[0] == 0
    for word, key in (("train.steps=2", "train.steps (1 there, 2 now)"), ("search.seeds=2", "search.seeds (1 there")):
        code, _, err = search("search.trials=1", word)
        assert (code, err.count("\n")) == (2, 1)
        assert f"run_dir=s: contains another search, which differs in {key}" in err
    code, _, err = here("search", "metric.known.x=interval(-1.0,2.0)", Y, *RUN, "search.metric=error", "run_dir=s")
    assert "metric.known.x (interval(-1.0,1.0) there, interval(-1.0,2.0) now)" in err
    (tmp_path / "s" / "search.json").write_text("{")
    code, _, err = search("search.trials=1")
    assert (code, err.count("\n")) == (2, 1)
    assert "search.json: is damaged" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    assert "run_dir=other: contains notes.txt, but no search" in search("run_dir=other")[2]
    assert "run_dir=a?b: must have no question mark" in search("run_dir=a?b")[2]


@pytest.mark.slow
def test_damaged_study_is_reported(search: Search, tmp_path: Path) -> None:
    assert search("search.trials=1")[0] == 0
    (tmp_path / "s" / "study.db").write_bytes(b"no database" * 1000)
    code, _, err = search("search.trials=2")
    assert (code, err.count("\n")) == (2, 1)
    assert "study.db: cannot be read" in err
