"""Cached results: computed once, by content, by one process, and again if a file is damaged."""

import os
import threading
from pathlib import Path

import pytest
import torch

from ganrun.data.cache import cached, digest, digest_of, digest_of_state
from ganrun.data.dataset import DataSpec, Split
from ganrun.files import lock

SPEC = DataSpec((1, 2, 2), (-1.0, 1.0))
X = torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2)


class Compute:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, object]:
        self.calls += 1
        return {"x": torch.tensor([1.0, 2.0]), "accuracy": 0.5}


def test_result_is_computed_once(tmp_path: Path) -> None:
    compute = Compute()
    first, second = cached("a", compute, str(tmp_path)), cached("a", compute, str(tmp_path))
    assert compute.calls == 1
    assert torch.equal(first["x"], second["x"])
    assert second["accuracy"] == 0.5
    cached("b", compute, str(tmp_path))
    assert compute.calls == 2
    assert not list(tmp_path.glob(".*.partial"))


def test_default_folder_is_the_cache_folder_of_the_user(tmp_path: Path) -> None:
    cached("a", Compute())
    assert (tmp_path / "cache" / "ganrun" / "a.pt").exists()  # the fixture sets XDG_CACHE_HOME


@pytest.mark.parametrize("keep", [0, 10, 40, -1])
def test_damaged_file_is_computed_again(keep: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compute = Compute()
    cached("a", compute, str(tmp_path))
    path = tmp_path / "a.pt"
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    assert cached("a", compute, str(tmp_path))["accuracy"] == 0.5
    assert compute.calls == 2
    assert f"{path}: is damaged; it is computed again." in caplog.text
    assert path.read_bytes()[:32] == content[:32]


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    compute = Compute()
    cached("a", compute, str(tmp_path))
    content = (tmp_path / "a.pt").read_bytes()
    for place in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "a.pt").write_bytes(damaged)
        before = compute.calls
        cached("a", compute, str(tmp_path))
        assert compute.calls == before + 1


def test_other_processes_wait_for_the_one_that_computes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The lock is held here, and the result written before it is released, as by another process."""
    caplog.set_level("INFO")
    compute, found = Compute(), []
    with open(tmp_path / ".a.pt.lock", "a") as file:
        lock(file)
        other = threading.Thread(target=lambda: found.append(cached("a", compute, str(tmp_path))))
        other.start()
        cached("b", Compute(), str(tmp_path))
        os.replace(tmp_path / "b.pt", tmp_path / "a.pt")
    other.join()
    assert compute.calls == 0
    assert found[0]["accuracy"] == 0.5


def test_result_is_not_kept_where_it_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert cached("a", Compute(), str(tmp_path / "file" / "folder"))["accuracy"] == 0.5
    assert "cannot be written" in caplog.text
    (tmp_path / "a.pt").mkdir()
    assert cached("a", Compute(), str(tmp_path))["accuracy"] == 0.5


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.pt.123.partial").write_text("")
    cached("a", Compute(), str(tmp_path))
    assert not list(tmp_path.glob(".*.partial"))


def test_an_error_is_not_kept(tmp_path: Path) -> None:
    def fail() -> dict[str, object]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cached("a", fail, str(tmp_path))
    assert cached("a", Compute(), str(tmp_path))["accuracy"] == 0.5


def test_digest_depends_on_all_that_an_image_is() -> None:
    base = Split(X, torch.tensor([0, 1, 0]))
    others = [
        digest(Split(X.flip(0), base.y), SPEC), digest(Split(X), SPEC), digest(base[:2], SPEC),
        digest(Split(X, torch.tensor([0, 1, 1])), SPEC), digest(base, DataSpec((1, 2, 2), (0.0, 1.0))),
        digest(base, DataSpec((1, 2, 2), None, gcn=55)), digest(Split(X.float(), base.y), SPEC),
    ]  # fmt: skip
    assert digest(base, SPEC) == digest(Split(X.clone(), base.y), SPEC)
    assert len({digest(base, SPEC), *others}) == 8
    assert digest(Split(X.expand(3, 1, 2, 2)[:, :, ::1]), SPEC) == digest(Split(X), SPEC)


def test_digest_of_weights_depends_on_names_and_values() -> None:
    a = {"w": torch.tensor([1.0]), "n": torch.tensor(3)}
    assert digest_of_state(a) == digest_of_state({name: value.clone() for name, value in a.items()})
    assert digest_of_state(a) != digest_of_state(a | {"w": torch.tensor([1.5])})
    assert digest_of("a", 1) != digest_of("a", 2)
