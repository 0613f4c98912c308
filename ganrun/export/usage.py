"""The code in a model card that loads and runs the exported files. It needs ganrun only for safetensors."""

from collections.abc import Sequence

from ganrun.export.inputs import Input
from ganrun.export.source import FormatName, Player

NUM = 16  # samples


def usage(form: FormatName, file: str, player: Player, inputs: Sequence[Input], num_bytes: bool) -> str:
    """A program of a few lines."""
    lines = {"onnx": onnx, "torch_export": torch_export, "safetensors": safetensors}[form](file, player, inputs)
    if num_bytes and player == "generator":
        lines += ["", "from PIL import Image", "", picture(form)]
    return "\n".join(lines)


def onnx(file: str, player: Player, inputs: Sequence[Input]) -> list[str]:
    feed = ", ".join(f'"{given.name}": {given.name}' for given in inputs)
    return [
        "import numpy as np",
        "import onnxruntime",
        "",
        f"n, rng = {NUM}, np.random.default_rng(0)",
        *(assignment(given, given.numpy) for given in inputs),
        f'session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])',
        f"({result(player)},) = session.run(None, {{{feed}}})",
    ]


def torch_export(file: str, player: Player, inputs: Sequence[Input]) -> list[str]:
    net = network(player)
    return [
        "import torch",
        "",
        f"n = {NUM}",
        "torch.manual_seed(0)",
        *(assignment(given, given.torch) for given in inputs),
        f'{net} = torch.export.load("{file}").module()',
        "with torch.no_grad():",
        f"    {result(player)} = {net}({', '.join(given.name for given in inputs)})",
    ]


def safetensors(file: str, player: Player, inputs: Sequence[Input]) -> list[str]:
    """The network itself draws its noise, so that there is no input for it."""
    inputs, net = [given for given in inputs if given.name != "noise"], network(player)
    return [
        "import ganrun",
        "import torch",
        "",
        f"n = {NUM}",
        "torch.manual_seed(0)",
        *(assignment(given, given.torch) for given in inputs),
        f'{net} = ganrun.load_network("{file}")  # a torch.nn.Module in eval mode',
        "with torch.no_grad():",
        f"    {result(player)} = {net}({', '.join(given.name for given in inputs)})",
    ]


def assignment(given: Input, value: str) -> str:
    return f"{given.name} = {value}{'  # a stand-in: use your own' if given.stand_in else ''}"


def result(player: Player) -> str:
    return "x" if player == "generator" else "logits"


def network(player: Player) -> str:
    return "G" if player == "generator" else "D"


def picture(form: FormatName) -> str:
    array = "x[0]" if form == "onnx" else "x[0].numpy()"
    return f'Image.fromarray({array}.squeeze()).save("sample.png")'
