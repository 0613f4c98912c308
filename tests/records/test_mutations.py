"""Damaged files of a run directory: every command works, or answers with one sentence."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_state
from mutations import READERS, Mutations, Reader, make_run

from ganrun.commands.figures import open_album
from ganrun.figures.album import opened
from ganrun.figures.grid import save_png
from ganrun.records import checkpoint, frames
from ganrun.records.run_dir import RunDir
from ganrun.training.load import load
from ganrun.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("mutated"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of NumPy and matplotlib, about values that are not finite
@pytest.mark.parametrize("name", READERS)
def test_randomly_changed_file_is_read_or_answered_with_one_sentence(name: str, run: Path, tmp_path: Path) -> None:
    mutations = Mutations(run, name, tmp_path)
    assert [fault for seed in range(8) for fault in mutations.faults(seed)] == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", dict.fromkeys(reader for readers in READERS.values() for reader in readers))
def test_every_reader_accepts_the_files_of_a_run(reader: Reader, run: Path, tmp_path: Path) -> None:
    reader(shutil.copytree(run, tmp_path / "r"))


RESULTS: list[Any] = [
    [1], "x", 5, None, {"a": 1}, {"status": "finished"}, {"status": "done", "steps": 4, "metrics": {}},
    {"status": "finished", "steps": "4", "metrics": {}}, {"status": "finished", "steps": 4, "metrics": [1]},
    {"status": "finished", "steps": 4, "metrics": {"ks": "x"}}, {"status": "finished", "steps": 10**30, "metrics": {}},
    {"status": "finished", "steps": 4, "metrics": {}, "best": 3},
]  # fmt: skip


@pytest.mark.parametrize("content", RESULTS)
def test_result_of_another_shape_is_reported_and_ignored(
    content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.result_file.write_text(json.dumps(content))
    assert run_dir.result() is None
    (message,) = caplog.messages
    assert message.startswith(f"{run_dir.result_file}: is damaged (")
    assert message.endswith("); it is ignored.")


@pytest.mark.slow
def test_run_with_a_damaged_result_is_completed(run: Path, tmp_path: Path) -> None:
    path = shutil.copytree(run, tmp_path / "r")
    before = load(path).metrics
    (path / "result.json").write_text("[1]")
    outcome = train(RunDir(path).config() | {"run_dir": str(path)})
    assert outcome.status == "finished"
    assert load(path).metrics == before


@pytest.mark.parametrize("content", [5, None, "x", {"a": 1}, [1], ["seed=1", None], [["seed=1"]]])
def test_command_of_another_shape_is_reported_and_ignored(
    content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.command_file.write_text(json.dumps(content))
    assert run_dir.overrides() == []
    assert "command.json: is damaged (it is not a list of settings); it is ignored." in caplog.text


@pytest.mark.parametrize("content", [5, [1], {"ks": 3}, {"ks": {"better": "faster"}}, {"ks": {"color": "red"}}])
def test_metric_keys_of_another_shape_are_reported_and_ignored(
    content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.metric_keys_file.write_text(json.dumps(content))
    assert run_dir.metric_keys() == {}
    assert "metric_keys.json: is damaged (" in caplog.text


ROWS: list[Any] = [
    {"step": True}, {"step": 10**30}, {"step": 1, "loss/d": "1"}, {"step": 1, "loss/d": None},
    {"step": 1, "loss/d": 10**400}, {"step": 1, "evaluated": 5}, {"step": 1, "evaluated": {}},
    {"step": 1, "evaluated": {"checkpoint": 1, "ema": 3, "seed": 0}},
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_row_of_another_shape_is_reported_and_skipped(
    row: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    lines = [json.dumps(found) for found in (row, {"step": 2, "loss/d": float("nan"), "nimg": 8})]
    run_dir.metrics_file.write_text("\n".join([*lines, "[" * 100_000, ""]))
    assert [found["step"] for found in run_dir.rows()] == [2]
    assert [message[-28:] for message in caplog.messages] == [
        "line 1 is damaged; it is skipped."[-28:],
        "line 3 is damaged; it is skipped."[-28:],
    ]


CONFIGS = {
    "- 1": "it contains no settings",
    "seed: x\ndata: {}": "it has no arch",
    "{FULL, seed: x}": "seed has the wrong type",
    "{FULL, seed: -1}": "seed is out of range",
    "{FULL, data: [1]}": "data has the wrong type",
    "{FULL, data: null}": "data is not a group of settings",
    "{FULL, arch: {generator: 3, discriminator: {}}}": "arch.generator is not a group of settings",
    "{FULL, data: {}}": "data has no _target_",
    "{FULL, schedule: null}": "schedule is not a group of settings",
    "{FULL, train: {ema: x}}": "train.ema has the wrong type",
    "{FULL, train: {steps: null}}": "train.steps has the wrong type",
    "{FULL, penalty: 3}": "penalty has the wrong type",
    "{FULL, loss: {a: 2001-01-01}}": "date is no setting",
    "{FULL, loss: {1: 2}}": "a key is not a text",
    "{FULL, loss: &a {a: *a}}": "it is nested too deeply",
    "{FULL, loss: {a: 2001-99-99}}": "month must be in 1..12",
    "[" * 5000: "flow level|recursion",  # of libyaml, or of PyYAML without it
}
FULL = (
    "data: {_target_: x}, latent: {}, optimizer: {}, schedule: {}, train: {}, seed: 0, loss: {}, "
    "arch: {generator: {}, discriminator: {}}"
)


@pytest.mark.parametrize(("text", "reason"), CONFIGS.items(), ids=range(len(CONFIGS)))
def test_config_of_another_shape_is_one_sentence(text: str, reason: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.config_file.write_text(text.replace("FULL", FULL))
    with pytest.raises(ValueError, match=reason) as found:
        run_dir.config()
    assert str(found.value).startswith(f"{run_dir.config_file}: is damaged, or not a config of ganrun (")
    assert "\n" not in str(found.value)


STATES: list[tuple[dict[str, Any], str]] = [
    ({"step": 2.5}, "step has the wrong type"),
    ({"seconds": None}, "seconds has the wrong type"),
    ({"G": [1]}, "G has the wrong type"),
    ({"data": {"mean": torch.zeros(2)}}, "data: Tensor is no setting"),
    ({"config": {}}, "config: it has no seed"),
    ({"spec": {"mean": 0.0}}, "spec: DataSpec.__init__() missing 1 required"),
    ({"spec": {"shape": (1,), "color": "red"}}, "spec: color=red: no such setting"),
    ({"spec": {"shape": ()}}, "spec: data: spec.shape is ()"),
    ({"best": {"key": "ks"}}, "best is not a best value"),
    ({"lazy_terms": {"penalty/r1": 3.0}}, "lazy_terms are not numbers"),
]


@pytest.mark.parametrize(("changes", "reason"), STATES)
def test_checkpoint_of_another_shape_is_one_sentence(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    checkpoint.save_best(tmp_path, small_state(3) | changes)
    with pytest.raises(ValueError, match=re.escape(reason)) as found:
        checkpoint.load(tmp_path / "best.pt")
    assert str(found.value).startswith(f"{tmp_path / 'best.pt'}: is damaged (")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("number", [None, 3, "2", torch.zeros(2)])
def test_checkpoint_of_another_format_is_one_sentence(number: Any, tmp_path: Path) -> None:
    torch.save({**small_state(3), "format": number}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"best.pt: is not a checkpoint of this version of ganrun\."):
        checkpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize("key", small_state(3))
def test_checkpoint_without_a_key_is_one_sentence(key: str, tmp_path: Path) -> None:
    state = small_state(3)
    del state[key]
    checkpoint.save_best(tmp_path, state)
    with pytest.raises(ValueError, match=rf"best.pt: is damaged \(it has no {key}\)\."):
        checkpoint.load(tmp_path / "best.pt")


PARTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda state: state.pop("G_ema"), "G_ema: is missing."),
    (lambda state: state["D"].update({"layers.0.weight": 3}), "D: While copying the parameter"),
    (lambda state: state["g_optimizer"].pop("state"), "g_optimizer: has no state."),
    (lambda state: state["g_optimizer"].update(param_groups=[]), "g_optimizer: param_groups has another length."),
    (lambda state: state["g_optimizer"]["param_groups"][0].update(betas=[1]), "param_groups has another betas."),
    (lambda state: state["d_optimizer"]["state"][1].pop("exp_avg"), "state of parameter 1 has another exp_avg."),
    (
        lambda state: state["d_optimizer"]["state"][1].update(exp_avg=torch.ones(2, 2)),
        "1 has another exp_avg",
    ),
    (lambda state: state["d_optimizer"]["state"].update({99: {}}), "state has another parameter 99."),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "reason"), PARTS)
def test_part_of_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_written(
    change: Callable[[dict[str, Any]], Any], reason: str, run: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(run, tmp_path / "r")
    file = path / "checkpoints" / "step_00000004.pt"
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=re.escape(reason)) as found:
        train(RunDir(path).config() | {"run_dir": str(path), "train": RunDir(path).config()["train"] | {"steps": 6}},
              changes=["train.steps"])  # fmt: skip
    assert str(found.value).startswith("the checkpoint of step 4 does not fit the config of its run: ")
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


FRAMES: list[tuple[dict[str, Any], str]] = [
    ({"low": np.zeros(3)}, "low has the wrong shape"),
    ({"samples": np.zeros((201, 2))}, "samples has the wrong shape"),
    ({"counts": np.array(5)}, "counts has the wrong shape"),
    ({"z": np.zeros((201, 1))}, "z has the wrong shape"),
    ({"logits": np.full(401, "x")}, "logits has the wrong type"),
    ({"step": 2.5}, "step has the wrong type"),
    ({"high": np.array([np.inf])}, "the box is not finite"),
    ({"high": np.array([-1.0])}, "the box is empty"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "reason"), FRAMES)
def test_frame_of_another_shape_is_one_sentence(
    changes: dict[str, Any], reason: str, run: Path, tmp_path: Path
) -> None:
    found = vars(frames.load(run / "frames" / "step_00000004.npz"))
    np.savez(tmp_path / "a.npz", **found | changes)
    with pytest.raises(ValueError, match=rf"a\.npz: is not a readable frame \({reason}\)\."):
        frames.load(tmp_path / "a.npz")


def test_frames_of_other_data_are_reported_and_not_drawn(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shutil.copytree(run, tmp_path / "r")
    flat = {name: np.zeros(2) for name in ("low", "mean", "std")} | {"high": np.ones(2), "samples": np.zeros((201, 2))}
    cells = {name: np.zeros((4, 4)) for name in ("logits", "counts", "counts_g")}
    np.savez(
        path / "frames" / "step_00000002.npz", **vars(frames.load(path / "frames/step_00000000.npz")) | flat | cells
    )
    assert not any(name.startswith(("density", "panels")) for name, _ in open_album(RunDir(path)).stills())
    assert "because the frames are not of these data." in caplog.text


def test_frame_of_another_version_of_zip_is_one_sentence(run: Path, tmp_path: Path) -> None:
    data = (run / "frames" / "step_00000004.npz").read_bytes()
    start = data.index(b"PK\x01\x02") + 6  # the version that the first entry needs
    (tmp_path / "a.npz").write_bytes(data[:start] + b"\xff" + data[start + 1 :])
    with pytest.raises(ValueError, match=r"a\.npz: is not a readable frame \(zip file version 25\.5\)\."):
        frames.load(tmp_path / "a.npz")


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDATx\x9cc"])  # for the second one, Pillow raises SyntaxError
def test_picture_with_an_inserted_byte_is_skipped(chunk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(np.zeros((8, 8, 3), np.uint8), path)
    path.write_bytes(path.read_bytes().replace(chunk, chunk + b":"))
    assert opened(path) is None


def test_more_samples_than_fit_onto_the_disk_or_into_memory_are_refused(run: Path, here, tmp_path: Path) -> None:
    for form in ("npz", "npy"):
        code, _, err = here("sample", f"run_dir={run}", "num=10000000000000", f"format={form}")
        assert code == 2
        assert err.startswith("num=10000000000000: these samples take 40,000 GB, but the disk of ")
        assert err.count("\n") == 1
    with pytest.raises(ValueError, match=r"num=10{11}: these samples take 400 GB, but the machine has "):
        load(run, device="cpu").sample(10**11)
