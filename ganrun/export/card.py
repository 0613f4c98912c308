"""The model card: what the files are, how to load them, how they were trained, how good they are, and their limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ganrun import __version__
from ganrun.config import Config
from ganrun.export.comparison import Comparison
from ganrun.export.function import Function
from ganrun.export.inputs import scale_of, shape_of
from ganrun.export.libraries import versions
from ganrun.export.origins import Origin, origin_of
from ganrun.export.source import FormatName, Source
from ganrun.export.usage import usage
from ganrun.reports.commands import repeated

MARK = "<!-- ganrun export: {} -->"  # the last line of a card, with its files
NO_FOLDERS = {"root": "data", "cache": None}  # the defaults of settings of the data that name a folder
ENDED = {"finished": "finished", "interrupted": "was interrupted", "diverged": "diverged", "failed": "failed"}
NEEDED = {
    "onnx": "`pip install onnxruntime numpy`",
    "torch_export": "`pip install torch numpy`; no other code",
    "safetensors": "`pip install 'ganrun[export]'`: the file holds weights, and its metadata the config to rebuild the "
    "network, whose class is in ganrun or in a module of your own",
}


@dataclass(frozen=True)
class Written:
    """A file that was written. size: in bytes."""

    name: FormatName
    file: str
    size: int
    comparison: Comparison

    @property
    def megabytes(self) -> str:
        return f"{self.size / 1e6:,.2f} MB"


def card(source: Source, function: Function, files: Sequence[Written]) -> str:
    """The card in Markdown."""
    origin = origin_of(source.config)
    parts = [
        *about(source, origin),
        *interface(source, function),
        *loading(source, function, files),
        *training(source),
        "## Data",
        f"{origin.about} Examples have shape {source.spec.shape}, {scale_of(source.spec)}.",
        f"Licence: {origin.licence}",
        *metrics(source),
        *limits(source, origin),
        "## Files",
        *agreement(files),
        MARK.format(", ".join(file.file for file in files)),
    ]
    return "\n\n".join(parts) + "\n"


def about(source: Source, origin: Origin) -> Iterator[str]:
    node = source.config["arch"][source.player]
    num = sum(p.numel() for p in source.net.parameters())
    yield f"# {source.player.capitalize()} of a GAN for {source.config['data']['_target_'].rpartition('.')[2]}"
    weights = f"the weights after {source.step:,} steps"
    if source.ema:
        weights += f", averaged over the training (exponential moving average, {source.config['train']['ema']:g})"
    yield (
        f"The {source.player} of a generative adversarial network that was trained with ganrun: `{node['_target_']}`, "
        f"with {num:,} parameters, {weights}. {origin.about}"
    )


def interface(source: Source, function: Function) -> Iterator[str]:
    yield "## Inputs and output"
    rows = [f"| `{given.name}` | {given.dtype} | {sizes(given.shape)} | {given.about} |" for given in function.inputs]
    spec, uint8 = source.spec, function.uint8
    if source.player == "generator":
        values = "images: height, width, channel; 0 is black and 255 white" if uint8 else f"samples, {scale_of(spec)}"
        kind = "uint8" if uint8 else "float32"
        rows.append(f"| output `x` | {kind} | {sizes(shape_of(spec, uint8))} | {values} |")
    else:
        rows.append("| output `logits` | float32 | (B) | larger for what D takes for real; no probabilities |")
    yield "\n".join(["| | type | shape | |", "|---|---|---|---|", *rows])
    yield "B is the number of examples: any, from 1. " + mixing(source)


def mixing(source: Source) -> str:
    layers = source.net.modules()
    mixes = any(vars(type(layer)).get("mixes_samples") is True for layer in layers)
    return "A logit also depends on the other examples of the batch." if mixes else "They do not affect each other."


def sizes(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, ('B', *shape)))})"


def loading(source: Source, function: Function, files: Sequence[Written]) -> Iterator[str]:
    yield "## How to load it"
    for file in files:
        yield f"`{file.file}` needs {NEEDED[file.name]}."
        yield f"```python\n{usage(file.name, file.file, source.player, function.inputs, function.uint8)}\n```"
    if source.player == "generator" and source.spec.is_image and not function.uint8:
        yield decoding(source)


def decoding(source: Source) -> str:
    """How the output of G becomes an image file."""
    spec = source.spec
    if spec.gcn or spec.value_range is None:
        return "The images are normalized; an export with `uint8=true` has them as bytes, with a typical contrast."
    low, high = spec.value_range
    scaled = f"((x - {low:g}) * {255 / (high - low):g})".replace("- -", "+ ").replace("(x - 0)", "x")
    return f"As bytes, an image is `{scaled}.round().clip(0, 255)`; `uint8=true` exports so."


def training(source: Source) -> Iterator[str]:
    result = source.run_dir.result() or {}
    yield "## Training"
    typed = source.run_dir.overrides() or None
    yield "The command that reproduces the run:"
    yield f"```\n{repeated(typed, [source.config['seed']], source.run_dir.path)}\n```" if typed else saved_command()
    weights = ["ema=false"] if source.player == "generator" and not source.ema and source.config["train"]["ema"] else []
    words = [f"net={'G' if source.player == 'generator' else 'D'}", f"checkpoint={source.step}", *weights]
    yield f"Then `ganrun export run_dir=DIR {' '.join(words)}`. The random seed was {source.config['seed']}."
    yield "\n".join(facts(result))
    yield "The complete config, without the folders of the machine:"
    yield f"```yaml\n{yaml.safe_dump(portable(source.config), sort_keys=False, allow_unicode=True)}```"


def saved_command() -> str:
    return "```\nganrun --config-path . --config-name config   # config.yaml: the config below\n```"


def facts(result: Mapping[str, Any]) -> Iterator[str]:
    """How the run went, as a list. result: result.json, of which most is not checked."""
    if not result:
        yield "- The run had not ended when this was written."
        return
    seconds, num, device = (result.get(key) for key in ("wall_time", "nimg", "device"))
    yield f"- The run {ENDED[result['status']]} at step {result['steps']:,}" + (
        f", after {seconds:,.0f} seconds, in which it was shown {num:,} real examples; device: {device}."
        if isinstance(seconds, int | float) and isinstance(num, int)
        else "."
    )
    if isinstance(diagnosis := result.get("diagnosis"), dict):
        found = diagnosis.get("findings")
        found = found if isinstance(found, list) and found else [diagnosis]
        yield f"- Diagnosis: {'; '.join(': '.join(text_of(each)) for each in found)}."
    if isinstance(used := result.get("versions"), dict):
        yield f"- Trained with {', '.join(f'{name} {number}' for name, number in used.items())}."
    if commit := result.get("git_commit"):
        yield f"- Git commit of the folder in which it was started: {commit}."


def text_of(finding: Any) -> list[str]:
    """The name of a finding, and what was measured."""
    return [str(finding[key]) for key in ("name", "measurement") if isinstance(finding, dict) and key in finding]


def portable(config: Config) -> Config:
    """The config without the folders of this machine."""
    data = config["data"] | {key: value for key, value in NO_FOLDERS.items() if key in config["data"]}
    return config | {"run_dir": None, "data": data}


def metrics(source: Source) -> Iterator[str]:
    yield "## Metrics"
    group = (
        "metric_raw" if source.player == "generator" and not source.ema and source.config["train"]["ema"] else "metric"
    )
    found = measured(source, group)
    if not found:
        yield f"None were computed of this checkpoint. `ganrun evaluate run_dir=DIR checkpoint={source.step}` does so."
        return
    if source.player == "discriminator":
        yield "Of the samples of the generator of the same step:"
    keys = source.run_dir.metric_keys()
    rows = []
    for name, value in found.items():
        key = keys.get(name)
        better = f"{key.better} is better" if key and key.better else ""
        rows.append(f"| `{name}` | {value:.5g} | {key.unit if key else ''} | {better} |")
    yield "\n".join(["| key | value | unit | |", "|---|---|---|---|", *rows])
    yield "The end of a key is its protocol: `10k` are 10,000 samples. A `floor` is the value of real examples."
    if protocols := (source.run_dir.result() or {}).get("protocols"):
        yield f"```yaml\n{yaml.safe_dump(protocols, sort_keys=False, allow_unicode=True)}```"


def measured(source: Source, group: str) -> dict[str, float]:
    """The metrics of this checkpoint and these weights, as far as they were recorded."""
    rows = [row for row in source.run_dir.rows() if row["step"] == source.step]
    found = {k.partition("/")[2]: v for row in rows for k, v in row.items() if k.startswith(f"{group}/")}
    result = source.run_dir.result() or {}
    if result.get("steps") == source.step and result.get("status") == "finished":
        found |= result.get("metrics" if group == "metric" else "metrics_raw") or {}
    return found


def limits(source: Source, origin: Origin) -> Iterator[str]:
    yield "## What it must not be used for"
    lines = [
        "- Do not take its output for observations: samples are made up, and must be labeled as such where they are "
        "shown or published.",
        "- Do not use it where a decision about a person depends on it.",
        "- Do not pass it on if the licence of the data forbids to pass these on: a GAN can repeat training examples.",
    ]
    if source.player == "discriminator":
        lines[0] = (
            "- It is no detector of fakes, and its logits are no probabilities: D was trained against one generator, "
            "and says little about other images or data."
        )
    if origin.people:
        lines.append(
            "- It was trained on faces of people who were not asked for this use. Do not use it to imitate, identify "
            "or judge anyone, and do not take a label, such as an expression, for what a person feels."
        )
    lines.append("- Samples have the gaps and the bias of the training data, and of the classes and modes that G lost.")
    yield "\n".join(lines)


def agreement(files: Sequence[Written]) -> Iterator[str]:
    rows = [f"| `{file.file}` | {file.megabytes} | {file.comparison.sentence} |" for file in files]
    yield "\n".join(["| file | size | compared with the network |", "|---|---|---|", *rows])
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    yield f"Written by ganrun {__version__}, with {used}. A .pt2 file needs this version of torch, or a later one."
