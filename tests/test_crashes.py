"""A crash at any file operation loses nothing: a small part of benchmarks/crash_points.py."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from crashes import HEIGHTS, Campaign, resume, tree_of
from helpers import train_in

from ganrun.records import checkpoint

Crashes = Callable[..., Campaign]


@pytest.fixture(scope="module")
def heights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run r."""
    folder = tmp_path_factory.mktemp("heights")
    train_in(folder, HEIGHTS)
    return folder


@pytest.fixture
def crashes(tmp_path: Path) -> Crashes:
    def run(before: Path | None, line: Sequence[str]) -> Campaign:
        (tmp_path / "empty").mkdir()
        again = None if before else partial(resume, line=line)
        return Campaign(before or tmp_path / "empty", line, tmp_path, again)

    return run


def state_at(campaign: Campaign, moment: str, label: str, kind: str) -> str:
    return next(key for *crash, key in campaign.crashes if crash == [moment, label, kind])


@pytest.mark.slow
def test_run_loses_nothing_where_the_machine_stops_around_its_checkpoint(crashes: Crashes) -> None:
    """Rows, events, pictures and frames of earlier steps are on the disk before the checkpoint that relies on them."""
    campaign = crashes(None, HEIGHTS)
    rename = "rename r/checkpoints/step_00000002.pt 1"
    synced = next(label for at, label, *_ in campaign.crashes[_place(campaign, rename) :] if label.startswith("fsync"))
    lost, renamed, kept = (
        state_at(campaign, *at)
        for at in [("before", rename, "names lost"), ("after", rename, "data lost"), ("after", synced, "names lost")]
    )
    saved = [checkpoint.steps_in(campaign.states / key / "tree/r/checkpoints") for key in (lost, renamed, kept)]
    assert saved == [[], [2], [2]]
    for key in {lost, renamed, kept}:
        assert campaign.recover(key) == []
    last = state_at(campaign, "after", "rename r/result.json 1", "data lost")
    tree = campaign.states / last / "tree"
    (tree / "r" / "train.log").write_bytes((campaign.whole / "r" / "train.log").read_bytes())
    assert tree_of(tree) == tree_of(campaign.whole)  # all is on the disk before the run is called finished
    assert campaign.recover(campaign.different[1]) == []
    assert campaign.kill("after", "open r/result.json.partial 1") == []
    assert campaign.killed == 1


def _place(campaign: Campaign, label: str) -> int:
    return next(i for i, (_, found, *_) in enumerate(campaign.crashes) if found == label)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ["resume", "run_dir=r", "train.steps=5"],
        ["evaluate", "run_dir=r", "metric=parzen", "metric.parzen.num=100"],
        ["sample", "run_dir=r", "num=20"],
        ["figures", "run_dir=r", "animation=false"],
    ],
    ids=["extend", "evaluate", "sample", "figures"],
)
def test_command_that_is_repeated_after_a_crash_leaves_the_same_files(
    line: list[str], heights: Path, crashes: Crashes
) -> None:
    campaign = crashes(heights, line)
    rewound = [key for at, label, _, key in campaign.crashes if (at, label) == ("after", "rename r/metrics.jsonl 1")]
    for key in {*rewound[:1], *campaign.different[1 :: len(campaign.different) // 2]}:
        assert campaign.recover(key) == [], campaign.describe(key)


@pytest.mark.slow
def test_files_that_are_not_synced_are_found(heights: Path, crashes: Crashes, tmp_path: Path) -> None:
    """The simulation itself: of a figure that is not synced yet, a power failure leaves nothing."""
    campaign = crashes(heights, ["figures", "run_dir=r", "animation=false"])
    sync = next(label for _, label, *_ in campaign.crashes if label.startswith("fsync r/figures/losses.png"))
    killed, data_lost, names_lost = (
        tree_of(campaign.states / state_at(campaign, "before", sync, kind) / "tree")
        for kind in ("killed", "data lost", "names lost")
    )
    (name,) = (name for name in killed if name.startswith("r/figures/losses.png"))
    assert len(killed[name]) > 1000
    assert data_lost[name] == b""
    assert name not in names_lost
    shutil.rmtree(campaign.states)
