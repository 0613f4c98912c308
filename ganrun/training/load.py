"""A run that was trained, read from its directory: what every verb but train starts from."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.checks import fits
from ganrun.config import Config
from ganrun.data.dataset import DataSpec
from ganrun.protocols import Condition, Latent
from ganrun.records.run_dir import RunDir
from ganrun.training.build import build, make_condition, make_discriminator, make_generator, make_latent
from ganrun.training.run import Run, check_same_data, load_part
from ganrun.training.runtime import choose_device
from ganrun.training.sampling import draw

Labels = Sequence[int | str] | int | str | None


class LoadedRun:
    """A run as it was at a checkpoint. Its data are not loaded, unless it is built again.

    config: what it was started with. state: of the checkpoint. step: of the checkpoint. spec: the facts of its data.
    """

    def __init__(
        self,
        run_dir: RunDir,
        checkpoint: int | str = "last",
        device: torch.device | None = None,
        data_root: str | None = None,
    ) -> None:
        self.run_dir, self.device = run_dir, device or torch.device("cpu")
        self.config: Config = run_dir.config(data_root)
        self.state: dict[str, Any] = run_dir.load(checkpoint)
        self.step: int = self.state["step"]
        self.spec = DataSpec(**self.state["spec"])

    def __repr__(self) -> str:
        return f"LoadedRun({str(self.run_dir.path)!r}, step={self.step})"

    @cached_property
    def latent(self) -> Latent:
        return make_latent(self.config)

    @cached_property
    def condition(self) -> Condition:
        return make_condition(self.config, self.spec)

    @cached_property
    def G(self) -> nn.Module:
        """The generator: G(z, y=None) gives samples (B, *spec.shape) in the data's value range. In eval mode."""
        return self._generator("G")

    @cached_property
    def G_ema(self) -> nn.Module | None:
        """The exponential moving average of G, where the run kept one (train.ema)."""
        return self._generator("G_ema") if "G_ema" in self.state else None

    @cached_property
    def D(self) -> nn.Module:
        """The discriminator: D(x, y=None) gives logits (B,). In eval mode."""
        D = make_discriminator(self.config, self.spec, self.condition, self.device)
        return self._with_weights(D, "D")

    def _generator(self, name: str) -> nn.Module:
        G = make_generator(self.config, self.spec, self.latent, self.condition, self.device)
        return self._with_weights(G, name)

    def _with_weights(self, net: nn.Module, name: str) -> nn.Module:
        load_part(name, net, self.state)
        return net.eval().requires_grad_(False)

    def sample(self, num: int, labels: Labels = None, seed: int = 0, ema: bool = True) -> Tensor:
        """`num` samples (num, *spec.shape) on the CPU, in the data's value range.

        labels: of a conditional run, which classes, by number or name; None: all, in turn. seed: of the latents.
        ema: from G_ema, where the run kept one. Raises ValueError for labels that the run does not know.
        """
        if num < 1:
            raise ValueError(f"num={num}: must be at least 1.")
        G = self.G_ema if ema and self.G_ema is not None else self.G
        return draw(G, self.latent, num, self.device, seed, self.classes(num, labels))

    def classes(self, num: int, labels: Labels = None) -> Tensor | None:
        """The classes (num,) that `sample` draws; None of a run without labels."""
        chosen = class_indices(labels, self.spec, self.condition.uses_labels)
        return torch.tensor(chosen)[torch.arange(num) % len(chosen)] if chosen else None

    @property
    def result(self) -> dict[str, Any] | None:
        """What result.json says; None while the run is under way, or was killed."""
        return self.run_dir.result()

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics at the end of the run; before that, the last value of each."""
        if (result := self.result) and result["metrics"]:
            return dict(result["metrics"])
        rows = [row for row in self.run_dir.metrics() if "evaluated" not in row]
        return {k.removeprefix("metric/"): v for row in rows for k, v in row.items() if k.startswith("metric/")}

    def history(self) -> list[dict[str, Any]]:
        """What was logged: the rows of metrics.jsonl, each with its step, and values by their TensorBoard tags."""
        return list(self.run_dir.metrics())

    def build(self, **changes: Any) -> Run:
        """The complete run at this checkpoint, with its data. changes: of the config, by its top-level keys.

        Raises ValueError where the data are others than at the time of the checkpoint.
        """
        config = {**self.config, **changes}
        run = build({**config, "train": {**config["train"], "device": str(self.device)}})
        check_same_data(run, self.run_dir.path, self.state)
        run.load_state_dict(self.state)
        return run


def load(run_dir: str | Path, checkpoint: int | str = "last", device: str = "auto") -> LoadedRun:
    """The run in that directory, at a checkpoint: "last", "best" (train.keep_best), or the step of one that was kept.

    Raises ValueError where there is no run, or no such checkpoint.
    """
    return LoadedRun(RunDir(Path(run_dir)), checkpoint, choose_device(device, "device"))


def class_indices(labels: Labels, spec: DataSpec, conditional: bool) -> list[int]:
    """The numbers of the classes that samples are taken from in turn; none of a run without labels."""
    if not conditional:
        if labels is not None:
            raise ValueError("labels: this run has none; train one with condition=concat, acgan or projection.")
        return []
    if labels is None:
        return list(range(spec.num_classes))
    labels = list(labels) if isinstance(labels, list | tuple) else [labels]  # type: ignore[list-item]
    if not labels:
        raise ValueError("labels=[]: name at least one class, as in labels=[0].")
    for label in labels:
        if label not in spec.classes and not (fits(label, int) and 0 <= int(label) < spec.num_classes):
            names = ", ".join(f"{i} ({name})" if str(i) != name else name for i, name in enumerate(spec.classes))
            raise ValueError(f"labels: {label} is no class of this run; they are {names}.")
    return [int(label) if fits(label, int) else spec.classes.index(str(label)) for label in labels]
