"""`ganrun export`: its files, its model card, whose code runs, and its messages; and `ganrun.load_network`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import full_disk, train_in

import ganrun
from ganrun.export import libraries

for library in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(library)
weights = pytest.importorskip("safetensors.torch")

RUN = ["data=digits", "condition=concat", "arch.generator.width=4", "arch.discriminator.width=4", "train.threads=1",
       "train.steps=6", "train.ema=0.5", "train.checkpoint_every=3", "train.sample_every=0", "metric=class_balance",
       "metric.class_balance.num=100", "features=classifier", "features.width=2", "features.epochs=1",
       "run_dir=r"]  # fmt: skip
CARD = "README.md"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        train_in(folder, RUN, ["data=heights", "train.steps=2", "train.sample_every=0", "run_dir=heights"])
    return folder


@pytest.fixture(autouse=True)
def _runs(trained: Path, tmp_path: Path) -> None:
    for name in ("r", "heights"):
        shutil.copytree(trained / name, tmp_path / name)


def blocks(card: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", card.read_text(), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


@pytest.mark.slow
def test_export_writes_and_compares_the_files_and_their_card(here, tmp_path: Path) -> None:
    code, out, err = here("export", "run_dir=r", "format=[onnx,safetensors]")
    assert (code, err) == (0, "")
    folder = "r/export/generator_onnx_safetensors"
    assert out.startswith("network    G_ema of r, step 6\n")
    assert f"file       {folder}/generator.onnx (0." in out
    found = re.findall(r"compared   in (\w+): differs from the network by at most (\S+) in batches of 1, 3 and 5", out)
    assert [runner for runner, _ in found] == ["onnxruntime", "safetensors"]
    assert all(float(difference) <= 1e-5 for _, difference in found)
    assert out.endswith(f"card       {folder}/{CARD}\n")
    names = {path.name for path in (tmp_path / folder).iterdir()}
    assert names == {"generator.onnx", "generator.safetensors", CARD}


@pytest.mark.slow
def test_code_of_the_cards_runs_without_ganrun(here, tmp_path: Path) -> None:
    """In a new process, in the folder of the files, where ganrun cannot be imported."""
    text = "import os, sys\nsys.modules['ganrun'] = None\n"
    for name, settings, check in (
        ("g", ["net=G"], "x.shape == (16, 1, 8, 8) and x.std() > 0"),
        ("d", ["net=D"], "logits.shape == (16,)"),
        ("bytes", ["uint8=true"], "x.shape == (16, 8, 8, 1) and str(x.dtype).endswith('uint8')"),
    ):
        assert here("export", "run_dir=r", "format=[onnx,torch_export]", f"out={name}", *settings)[0] == 0
        programs = blocks(tmp_path / name / CARD, "python")
        assert len(programs) == 2
        for program in programs:
            assert "ganrun" not in program
            text += f"os.chdir({str(tmp_path / name)!r})\n{program}\nassert {check}\n"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bytes" / "sample.png").exists()


@pytest.mark.slow
def test_code_of_the_card_rebuilds_the_network_from_safetensors(here, tmp_path: Path, monkeypatch) -> None:
    run = ganrun.load("r", device="cpu")
    assert here("export", "run_dir=r", "format=safetensors", "out=e")[0] == 0
    monkeypatch.chdir(tmp_path / "e")
    names: dict[str, torch.Tensor] = {}
    (program,) = blocks(tmp_path / "e" / CARD, "python")
    exec(program, names)
    assert run.G_ema is not None
    torch.testing.assert_close(names["x"], run.G_ema(names["z"], names["y"]), rtol=0, atol=1e-5)
    assert weights.load_file("generator.safetensors").keys() == run.G_ema.state_dict().keys()


def test_card_tells_how_the_network_was_trained(here, tmp_path: Path) -> None:
    assert here("export", "run_dir=r", "format=safetensors", "out=e")[0] == 0
    card = (tmp_path / "e" / CARD).read_text()
    line, config, protocol = *blocks(tmp_path / "e" / CARD, "")[:1], *blocks(tmp_path / "e" / CARD, "yaml")
    assert line == f"ganrun {' '.join(RUN[:-1])}\n"
    assert "width: 4" in config
    assert "class_balance_digitscnn_100:" in protocol
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    for name, value in result["metrics"].items():
        assert f"| `{name}` | {value:.5g} |" in card
    for expected in (
        "# Generator of a GAN for digits",
        "`ganrun.arch.dcgan.Generator`",
        "the weights after 6 steps, averaged over the training (exponential moving average, 0.5)",
        "| `z` | float32 | (B, 100) | independent values, N(0, 1) |",
        "| `y` | int64 | (B) | the class, from 0 to 9:",
        "| output `x` | float32 | (B, 1, 8, 8) | samples, values in [-1, 1]: -1 is black, 1 white |",
        "`((x + 1) * 127.5).round().clip(0, 255)`",
        "Licence: Stated on the page of these data in the UCI Machine Learning Repository",
        "- The run finished at step 6",
        f"torch {result['versions']['torch']}",
        "Do not take its output for observations",
    ):
        assert expected in card, expected
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_card_has_only_metrics_of_the_same_weights(here, tmp_path: Path) -> None:
    assert here("export", "run_dir=r", "format=safetensors", "out=a", "checkpoint=3")[0] == 0
    found = (tmp_path / "a" / CARD).read_text().partition("## Metrics")[2]
    assert "None were computed of this checkpoint" in found
    assert "class_kl" not in found
    assert here("export", "run_dir=r", "format=safetensors", "out=b", "ema=false")[0] == 0
    card = (tmp_path / "b" / CARD).read_text()
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["metrics_raw"]
    assert all(f"| `{name}` | {value:.5g} |" in card for name, value in result["metrics_raw"].items())
    assert "export run_dir=DIR net=G checkpoint=6 ema=false" in card
    assert here("export", "run_dir=r", "format=safetensors", "net=D", "out=d")[0] == 0
    assert "It is no detector of fakes" in (tmp_path / "d" / CARD).read_text()


@pytest.mark.slow
def test_card_of_vectors_and_of_a_run_without_result(here, tmp_path: Path) -> None:
    (tmp_path / "heights" / "result.json").unlink()
    (tmp_path / "heights" / "command.json").unlink()
    assert here("export", "run_dir=heights", "format=safetensors", "out=e")[0] == 0
    card = (tmp_path / "e" / CARD).read_text()
    assert "in the data's units (inches), with mean 69" in card
    assert "- The run had not ended when this was written." in card
    assert "ganrun --config-path . --config-name config" in card
    (config,) = blocks(tmp_path / "e" / CARD, "yaml")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "config.yaml").write_text(config)
    code, _, err = here("--config-path", "again", "--config-name", "config", "run_dir=s")  # as the card says
    assert code == 0, err
    first, second = (ganrun.load(name, device="cpu").sample(5) for name in ("heights", "s"))
    assert torch.equal(first, second)


def test_python_face_writes_the_same_file(here, tmp_path: Path) -> None:
    folder = ganrun.load("r").export("safetensors", out="p", net="D")
    assert folder == Path("p")
    assert here("export", "run_dir=r", "format=safetensors", "net=D", "out=c")[0] == 0
    name = "discriminator.safetensors"
    assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    assert torch.allclose(ganrun.load_network(folder / name)(x, y), ganrun.load("r", device="cpu").D(x, y), atol=1e-5)
    with pytest.raises(ValueError, match="net=E: must be G or D"):
        ganrun.load("r").export(net="E")  # type: ignore[arg-type]


WRONG = [
    ("run_dir=nowhere", "run_dir=nowhere: no run there"),
    ("checkpoint=77", "saved steps: 3, 6"),
    ("checkpoint=best", "has no checkpoints/best.pt"),
    ("format=tflite", "format=tflite: must be one of safetensors, onnx, torch_export or a list"),
    ("format=[]", "format=[]: choose at least one of safetensors, onnx, torch_export."),
    ("format=[onnx,onxx]", "format=['onnx', 'onxx']: must be one of"),
    ("net=E", "net=E: must be one of G, D."),
    ("run_dir=heights uint8=true", "uint8=true: these data have shape (1,) and are not images"),
    ("format=safetensors uint8=true", "uint8=true: format=safetensors stores weights only"),
    ("out=file", "out=file: is a file; choose a folder."),
    ("out=mine", "out=mine: has a README.md that is not of an export; choose another folder."),
    ("out=earlier", "out=earlier: has generator.onnx of an earlier export, which its README.md describes"),
    ("out=file/x", "file/x: Not a directory."),
]


def with_defaults(line: str) -> list[str]:
    """The settings, and those of a line that works."""
    return [*(d for d in ("run_dir=r", "format=safetensors") if d.partition("=")[0] not in line), *line.split()]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "message"), WRONG)
def test_setting_that_cannot_work_is_one_sentence(line: str, message: str, here, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, text in (("mine", "# My project\n"), ("earlier", "<!-- ganrun export: generator.onnx -->\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / CARD).write_text(text)
    (tmp_path / "earlier" / "generator.onnx").write_text("")
    code, _, err = here("export", *with_defaults(line))
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not (tmp_path / "r" / "export").exists()


@pytest.mark.parametrize(("form", "missing"), [("onnx", "onnxscript"), ("safetensors", "safetensors")])
def test_missing_library_is_one_sentence(form: str, missing: str, here, monkeypatch) -> None:
    found = libraries.find_spec
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == missing else found(name))
    code, _, err = here("export", "run_dir=r", f"format={form}")
    expected = f"format={form}: needs {missing}, which is not installed; `pip install 'ganrun[export]'`.\n"
    assert (code, err) == (2, expected)


@pytest.mark.slow
def test_file_is_written_but_not_compared_without_its_runtime(here, monkeypatch, tmp_path: Path) -> None:
    found = libraries.find_spec
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    code, out, _ = here("export", "run_dir=r", "out=e")
    assert code == 0
    assert "compared   not compared, since onnxruntime is not installed" in out
    assert "not compared, since onnxruntime" in (tmp_path / "e" / CARD).read_text()
    assert (tmp_path / "e" / "generator.onnx").stat().st_size > 1000


@pytest.mark.slow
def test_full_disk_leaves_the_earlier_export_as_it_was(here, tmp_path: Path) -> None:
    line = ["export", "run_dir=r", "out=e"]
    for form, name in (("safetensors", "generator.safetensors"), ("onnx", "generator.onnx"),
                       ("torch_export", "generator.pt2")):  # fmt: skip
        with full_disk(3000):
            code, _, err = here(*line, f"format={form}")
        assert (code, err) == (2, f"e/{name}: File too large.\n")
        assert not (tmp_path / "e").exists()
    assert here(*line, "format=safetensors")[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    with full_disk(3000):
        assert here(*line, "format=safetensors", "checkpoint=3")[0] == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()} == before


@pytest.mark.slow
def test_export_that_was_killed_is_repeated(here, tmp_path: Path, monkeypatch) -> None:
    """Killed between the files: there is no card then, since it would describe another file."""
    line = ["export", "run_dir=r", "format=safetensors", "out=e"]
    assert here(*line)[0] == 0
    expected = {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    replace = Path.replace

    def kill(self: Path, target: Path) -> Path:
        if self.name == CARD:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        patch.setattr("ganrun.export.export.shutil.rmtree", lambda *_, **__: None)  # as after SIGKILL
        assert here(*line, "checkpoint=3")[0] == 130
    assert not (tmp_path / "e" / CARD).exists()
    assert list((tmp_path / "e").glob("*.unfinished"))
    assert here(*line)[0] == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()} == expected


def change(path: Path, **changes: object) -> None:
    """Write the file with other metadata."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["ganrun"])
    weights.save_file(weights.load_file(path), path, {"ganrun": json.dumps(about | changes)})


def test_damaged_network_file_is_one_sentence(here, tmp_path: Path) -> None:
    assert here("export", "run_dir=r", "format=safetensors", "out=e")[0] == 0
    path = tmp_path / "e" / "generator.safetensors"
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"nothing\.safetensors: no such file"):
        ganrun.load_network("nothing.safetensors")
    for content in (b"", whole[:-1], whole[:100], b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            ganrun.load_network(path)
    weights.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="it is not of `ganrun export`"):
        ganrun.load_network(path)
    node = {"_target_": "os.system"}
    for changes, message in (
        ({"player": "critic"}, "its metadata name neither player"),
        ({"config": {}}, "its config has no arch"),
        ({"spec": {"size": 3}}, "do not fit its config"),
        ({"z_dim": 7}, "do not fit its config"),
        ({"config": {"arch": {"generator": node}, "train": {"channels_last": None}}}, "neither a component of ganrun"),
    ):
        path.write_bytes(whole)
        change(path, **changes)
        with pytest.raises(ValueError, match=message):
            ganrun.load_network(path)


def test_code_beside_a_network_file_is_not_used(here, tmp_path: Path) -> None:
    assert here("export", "run_dir=r", "format=safetensors", "out=received")[0] == 0
    path = tmp_path / "received" / "generator.safetensors"
    (tmp_path / "received" / "evil.py").write_text("raise SystemExit('ran')\n")
    config = {"arch": {"generator": {"_target_": "received.evil.G"}}, "train": {"channels_last": None}}
    change(path, config=config)
    with pytest.raises(ValueError, match=r"received\.evil"):
        ganrun.load_network(path)
