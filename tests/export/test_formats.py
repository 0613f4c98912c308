"""Every network is exported in every format, and its own runtime computes the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import config_of, in_miniature
from torch import Tensor, nn

from ganrun import load_network
from ganrun.arch.layers import MinibatchStdDev
from ganrun.arch.mlp import AlwaysDropout
from ganrun.cli.compose import groups_and_options
from ganrun.config import CONF
from ganrun.data.dataset import DataSpec
from ganrun.export import formats
from ganrun.export.export import export
from ganrun.export.function import Function, PairwiseStdDev
from ganrun.export.source import Player, Source
from ganrun.records.run_dir import RunDir
from ganrun.training.build import build
from ganrun.training.run import Run

onnxruntime = pytest.importorskip("onnxruntime")
for library in ("onnx", "onnxscript", "safetensors"):
    pytest.importorskip(library)

PLAYERS: list[Player] = ["generator", "discriminator"]
SIZES = (1, 2, 7)  # of the batches; the traced one has 12
CIFAR = ["data=cifar10", "data.value_range=[-1,1]"]
DATA = {  # images with labels by default
    "heights": ["data=heights"],
    "mlp_small": ["data=heights"],
    "mlp_modes": ["data=mixture1d"],
    "mlp_plane": ["data=ring"],
    "mlp_metz2017": ["data=ring"],
    "table": ["data=breast_cancer"],
    "goodfellow2014_cifar_conv": [*CIFAR, "data.gcn=55"],
    "goodfellow2014_cifar_fc": [*CIFAR, "data.gcn=55"],
}
CONDITIONS = {"biggan": "own", "r3gan": "own", "dcgan": "projection", "sngan": "acgan"}  # concat by default
MORE = [
    "data=digits arch=dcgan condition=acgan condition.generator=batch_norm arch.discriminator.minibatch=stddev",
    "data=digits arch=dcgan arch.generator.spectral_norm=true arch.discriminator.minibatch=discrimination",
    "data=digits arch=dcgan condition=concat arch.discriminator.norm=layer arch.discriminator.spectral_norm=true",
    "data=digits arch=biggan arch.generator.attention=[8] arch.discriminator.attention=[4] condition=own "
    "arch.generator.hierarchical=true arch.generator.shared_dim=4 arch.z_dim=8",
    "data=ring arch.discriminator.minibatch=discrimination arch.generator.spectral_norm=true latent=uniform",
    "data=olivetti arch=wgan_gp",
]


def run_of(line: list[str], tmp_path: Path) -> Run:
    config = config_of("train.threads=1", "train.device=cpu", *line)
    return build(in_miniature(config, tmp_path))


@torch.no_grad()
def trained(net: nn.Module) -> nn.Module:
    """The network with other weights and statistics, since initial ones leave out parts of it, such as attention."""
    for p in net.parameters():
        p.add_(0.03 * torch.randn_like(p))
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return net.eval()


def source_of(run: Run, player: Player, line: list[str], tmp_path: Path) -> Source:
    config = in_miniature(config_of(*line), tmp_path)
    net = trained(run.G if player == "generator" else run.D).requires_grad_(False)
    if player == "discriminator" and config["arch"]["discriminator"].get("norm") == "auto":
        config["arch"]["discriminator"]["norm"] = "batch"
    return Source(player, net, False, 7, config, run.dataset.spec, run.latent, run.condition, RunDir(tmp_path / "r"),
                  load_network)  # fmt: skip


def inputs_for(run: Run, player: Player, num: int) -> tuple[Tensor, ...]:
    spec = run.dataset.spec
    first = run.latent(num) if player == "generator" else run.dataset.spec.decode(run.dataset.train.x[:num])
    return (first, torch.randint(spec.num_classes, (num,))) if run.condition.uses_labels else (first,)


def runtimes(folder: Path, player: Player) -> dict[str, Callable[..., Tensor]]:
    """The files' functions, each run by its own library and by none of ganrun's code but that of safetensors."""
    session = onnxruntime.InferenceSession(folder / f"{player}.onnx", providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run_onnx(*inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})[0])

    return {
        "onnx": run_onnx,
        "torch_export": torch.export.load(folder / f"{player}.pt2").module(),
        "safetensors": load_network(folder / f"{player}.safetensors"),
    }


def check(line: list[str], tmp_path: Path) -> None:
    """All formats of both players agree with the run's own networks to 1e-5, for every batch size."""
    run = run_of(line, tmp_path)
    for player in PLAYERS:
        source = source_of(run, player, line, tmp_path)
        folder = export(source, ["onnx", "torch_export", "safetensors"], tmp_path / player)
        functions = runtimes(folder, player)
        for num in SIZES:
            inputs = inputs_for(run, player, num)
            expected = source.net(*inputs)
            assert expected.shape[0] == num
            assert num < max(SIZES) or expected.std() > 1e-3  # its inputs matter
            for name, function in functions.items():
                found = function(*inputs)
                assert found.shape == expected.shape, name
                atol = 1e-5 * max(1, expected.abs().max().item())
                torch.testing.assert_close(found, expected, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


ARCHES = groups_and_options([CONF])["arch"]


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in ARCHES if arch != "heights"])
def test_every_arch_agrees_in_every_format(arch: str, tmp_path: Path) -> None:
    data = DATA.get(arch, ["data=digits"])
    if "mnist" in arch or "tfd" in arch:
        data = [*data, "data.value_range=[0,1]"]
    has_labels = arch not in DATA or "data=cifar10" in data
    condition = [f"condition={CONDITIONS.get(arch, 'concat')}"] if has_labels else []
    check([*data, f"arch={arch}", *condition], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("line", MORE)
def test_every_kind_of_layer_agrees_in_every_format(line: str, tmp_path: Path) -> None:
    check(line.split(), tmp_path)


@pytest.mark.slow
def test_random_numbers_of_layers_become_an_input(tmp_path: Path) -> None:
    """arch=heights has dropout that stays on. With what its G has dropped as the noise, a file gives its samples."""
    line = ["data=heights", "arch=heights"]
    run = run_of(line, tmp_path)
    source = source_of(run, "generator", line, tmp_path)
    folder = export(source, ["onnx", "torch_export", "safetensors"], tmp_path / "e")
    kept: list[Tensor] = []
    for layer in source.net.modules():
        if isinstance(layer, AlwaysDropout):
            layer.register_forward_hook(lambda _, x, out: kept.append((out != 0).float()))
    found = runtimes(folder, "generator")
    for num in SIZES:
        kept.clear()
        torch.manual_seed(num)
        z = run.latent(num)
        after = torch.get_rng_state()
        expected = source.net(z)
        assert 0 < torch.cat(kept, 1).mean() <= 1
        for name in ("onnx", "torch_export"):
            torch.testing.assert_close(found[name](z, torch.cat(kept, 1)), expected, rtol=0, atol=1e-5 * 100)
        torch.set_rng_state(after)
        torch.testing.assert_close(found["safetensors"](z), expected, rtol=0, atol=1e-5 * 100)
    assert len(kept) == 5
    card = (folder / "README.md").read_text()
    assert "| `noise` | float32 | (B, 50) |" in card


@pytest.mark.slow
def test_categories_of_a_table_are_drawn_from_an_input(tmp_path: Path) -> None:
    line = ["data=table"]
    run = run_of(line, tmp_path)
    source = source_of(run, "generator", line, tmp_path)
    found = runtimes(export(source, ["onnx", "torch_export", "safetensors"], tmp_path / "e"), "generator")
    form = run.dataset.spec.form
    assert form is not None
    assert {column.kind for column, _ in form.blocks} == {"category", "number"}  # of which some are missing
    for num in SIZES:
        z = run.latent(num)
        torch.manual_seed(num)
        noise = torch.rand(num, sum(column.entries for column, _ in form.blocks))
        for name in found:
            torch.manual_seed(num)
            inputs = (z,) if name == "safetensors" else (z, noise)
            expected = source.net(z)
            torch.manual_seed(num)
            torch.testing.assert_close(found[name](*inputs), expected, rtol=0, atol=1e-4)
            assert expected.shape == (num, form.width)


def test_noise_of_dropout_has_its_distribution() -> None:
    layer, x = AlwaysDropout(0.25), torch.ones(10_000, 4)
    out = layer.with_noise(x, torch.rand_like(x))
    assert out.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert layer(x).unique().tolist() == out.unique().tolist()


@pytest.mark.parametrize("num", [1, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_pairwise_std_dev_is_minibatch_std_dev(num: int, shape: tuple[int, ...]) -> None:
    x = torch.randn(num, *shape)
    for group in (4, 1, None):
        torch.testing.assert_close(PairwiseStdDev(group)(x), MinibatchStdDev(group)(x))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["data=digits condition=concat", "data=cifar10 data.gcn=55 arch=mlp"])
def test_images_as_bytes_are_those_that_ganrun_writes_and_reads(data: str, tmp_path: Path) -> None:
    line = data.split()
    run = run_of(line, tmp_path)
    spec = run.dataset.spec
    for player in PLAYERS:
        source = source_of(run, player, line, tmp_path)
        folder = export(source, ["onnx", "torch_export"], tmp_path / player, uint8=True)
        labels = (torch.tensor([1, 2, 3]),) if run.condition.uses_labels else ()
        session = onnxruntime.InferenceSession(folder / f"{player}.onnx")
        program = torch.export.load(folder / f"{player}.pt2").module()
        pixels = run.dataset.train.x[:3].permute(0, 2, 3, 1).contiguous()
        first = run.latent(3) if player == "generator" else pixels
        feed = {given.name: x.numpy() for given, x in zip(session.get_inputs(), (first, *labels), strict=True)}
        for found in (torch.from_numpy(session.run(None, feed)[0]), program(first, *labels)):
            if player == "generator":
                expected = spec.encode(source.net(first, *labels)).permute(0, 2, 3, 1)
                assert found.dtype == torch.uint8
                assert (found.int() - expected.int()).abs().max() <= 1
                assert found.float().std() > 1
            else:
                expected = source.net(spec.decode(run.dataset.train.x[:3]), *labels)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


class Counts(nn.Module):
    """A network of a user's own, which uses len(x), as torch.export does not follow by default."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(len(x), 64)).squeeze(1)


class Random(Counts):
    """A network that draws random numbers in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


class Branches(Counts):
    """A network whose output depends on values in a way that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if x.mean() > 0 else 2)


def own(net: nn.Module, tmp_path: Path) -> Source:
    run = run_of(["data=digits"], tmp_path)
    run_source = source_of(run, "discriminator", ["data=digits"], tmp_path)
    return Source(**{**vars(run_source), "net": net.eval()})


@pytest.mark.slow
def test_network_that_uses_len_is_traced_for_every_batch_size(tmp_path: Path) -> None:
    source = own(Counts(), tmp_path)
    export(source, ["torch_export", "onnx"], tmp_path / "e")
    program = torch.export.load(tmp_path / "e" / "discriminator.pt2").module()
    for num in SIZES:
        x = torch.randn(num, 1, 8, 8)
        torch.testing.assert_close(program(x), source.net(x))


@pytest.mark.slow
def test_network_with_random_numbers_of_its_own_is_no_onnx_file(tmp_path: Path) -> None:
    source = own(Random(), tmp_path)
    with pytest.raises(ValueError, match="format=onnx: this discriminator draws random numbers"):
        export(source, ["onnx"], tmp_path / "e")
    assert not (tmp_path / "e").exists()
    export(source, ["torch_export"], tmp_path / "e")
    program, x = torch.export.load(tmp_path / "e" / "discriminator.pt2").module(), torch.randn(3, 1, 8, 8)
    torch.manual_seed(5)
    expected = source.net(x)
    torch.manual_seed(5)
    torch.testing.assert_close(program(x), expected)


@pytest.mark.slow
def test_network_that_cannot_be_traced_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be traced for every batch size .* format=safetensors"):
        export(own(Branches(), tmp_path), ["torch_export"], tmp_path / "e")
    assert not (tmp_path / "e").exists()


@pytest.mark.slow
def test_large_onnx_files_have_their_weights_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LARGEST_ONNX", 1000)
    run = run_of(["data=digits"], tmp_path)
    source = source_of(run, "generator", ["data=digits"], tmp_path)
    export(source, ["onnx"], tmp_path / "e")
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"generator.onnx", "generator.onnx.data", "README.md"}
    session = onnxruntime.InferenceSession(tmp_path / "e" / "generator.onnx")
    z = run.latent(2)
    np.testing.assert_allclose(session.run(None, {"z": z.numpy()})[0], source.net(z).detach(), atol=1e-5)


@pytest.mark.slow
def test_file_with_another_output_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(["data=ring"], tmp_path)
    source = source_of(run, "generator", ["data=ring"], tmp_path)
    wrong: dict[str, Any] = {"load": lambda self, exported, path: lambda z: source.net(z) + 1e-3}
    monkeypatch.setattr(formats.TorchExport, "load", wrong["load"])
    with pytest.raises(ValueError, match=r"differs by 0\.001 from that of the network"):
        export(source, ["torch_export"], tmp_path / "e")
    assert not (tmp_path / "e").exists()
    with torch.no_grad():
        next(source.net.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="output of this generator is not finite; choose another checkpoint"):
        export(source, ["torch_export"], tmp_path / "e")


def test_export_does_not_change_the_network(tmp_path: Path) -> None:
    line = ["data=digits", "arch.generator.spectral_norm=true"]
    run = run_of(line, tmp_path)
    source = source_of(run, "generator", line, tmp_path)
    before, z, random_state = [*source.net.state_dict()], torch.zeros(2, 100), torch.get_rng_state()
    expected = source.net(z)
    torch.testing.assert_close(Function(source, uint8=False)(z), expected)
    assert [*source.net.state_dict()] == before
    assert torch.equal(source.net(z), expected)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert isinstance(source.spec, DataSpec)
