"""A trained run, loaded from its directory. All verbs except train use it."""

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ganrun.anomaly.scores import METHODS, AnomalyScores
from ganrun.config import Config
from ganrun.data.dataset import DataSpec
from ganrun.data.without import class_index
from ganrun.export.export import export
from ganrun.export.source import FormatName, Source
from ganrun.protocols import Condition, Latent
from ganrun.records.run_dir import RunDir
from ganrun.training.build import build, make_condition, make_discriminator, make_generator, make_latent
from ganrun.training.network_file import load_network
from ganrun.training.parts import load_part
from ganrun.training.run import Run, check_same_data
from ganrun.training.runtime import choose_device
from ganrun.training.sampling import Sampler, check_memory
from ganrun.training.scoring import fit_scores
from ganrun.training.walks import interpolated
from ganrun.trusted import add_run

Labels = Sequence[int | str] | int | str | None


class LoadedRun:
    """A run at one of its checkpoints. Its data are not loaded unless `build` needs them, or latents drawn from them.

    config: the run's config. state, step: of the checkpoint. spec: the properties of the data.
    """

    def __init__(
        self,
        run_dir: RunDir,
        checkpoint: int | str = "last",
        device: torch.device | None = None,
        data_root: str | None = None,
    ) -> None:
        self.run_dir, self.device = run_dir, device or torch.device("cpu")
        add_run(run_dir.path)
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
        """The exponential moving average of G, or None if the run has none (train.ema). In eval mode."""
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

    def sample(
        self, num: int, labels: Labels = None, seed: int = 0, ema: bool = True, truncation: float | None = None
    ) -> Tensor:
        """`num` samples (num, *spec.shape) on the CPU, in the data's value range. Sample k does not depend on `num`.

        labels: classes of a conditional run, by number or name; None: all, in turn. seed: of the latents.
        ema: whether to sample from G_ema, if the run has one. truncation: the largest absolute value of normal latents,
        as in 0.7; None: unbounded. Raises ValueError for num < 1, unknown labels, and a truncation of other latents.
        """
        if num < 1:
            raise ValueError(f"num={num}: must be at least 1.")
        check_memory(num, self.spec.shape)
        return torch.cat([x for x, _ in self.sampler(labels, seed, ema, truncation).blocks(num)])

    def sampler(
        self, labels: Labels = None, seed: int = 0, ema: bool = True, truncation: float | None = None
    ) -> Sampler:
        """What draws the samples of `sample`, block by block, for more of them than fit into memory."""
        G = self.G_ema if ema and self.G_ema is not None else self.G
        chosen = class_indices(labels, self.spec, self.condition.uses_labels)
        classes = torch.tensor(chosen) if chosen else None
        return Sampler(G, self.latent, self.spec.shape, self.device, seed, classes, truncation)

    def interpolate(
        self,
        seeds: Sequence[int] = (0, 1, 2, 3),
        steps: int = 8,
        labels: Labels = None,
        ema: bool = True,
        truncation: float | None = None,
    ) -> Tensor:
        """Walks from the first sample of each seed to that of the next: (walks, steps, *spec.shape) on the CPU.

        Normal latents are interpolated on a sphere, others on a line. In a conditional run the walks also lead from
        each class in `labels` to the next; None: all, in turn. The shorter of the two lists is repeated. Classes
        are mixed if G can do that (`protocols.MixesClasses`), and otherwise change halfway.
        ema, truncation: as in `sample`. Raises ValueError for steps < 2, and for fewer than two seeds and labels.
        """
        if steps < 2:
            raise ValueError(f"steps={steps}: must be at least 2, the two ends.")
        sampler = self.sampler(labels, 0, ema, truncation)
        num = max(len(seeds), 0 if labels is None or sampler.classes is None else len(sampler.classes))
        if num < 2 or not seeds:
            raise ValueError(f"seeds={list(seeds)}: name two or more, as in seeds=[0,1], or two labels and one seed.")
        check_memory((num - 1) * steps, self.spec.shape)
        z = sampler.first_latents([seeds[i % len(seeds)] for i in range(num)])
        return interpolated(sampler.G, self.latent, self.spec, z, sampler.labels(0, num), steps)

    def classes(self, num: int, labels: Labels = None) -> Tensor | None:
        """The classes (num,) that `sample` draws; None if the run does not use labels."""
        chosen = class_indices(labels, self.spec, self.condition.uses_labels)
        return torch.tensor(chosen)[torch.arange(num) % len(chosen)] if chosen else None

    def export(
        self,
        format: FormatName | Sequence[FormatName] = "onnx",
        out: str | Path | None = None,
        net: Literal["G", "D"] = "G",
        ema: bool = True,
        uint8: bool = False,
    ) -> Path:
        """Write a network for other programs, with a model card, as `ganrun export` does. Returns their folder.

        format: safetensors, onnx or torch_export, or several. out: the folder; None: one in the run directory. net: G
        or D. ema: whether G is G_ema, if the run has one. uint8: whether images are bytes (B, H, W, C).
        Raises ValueError if that cannot work, and OSError if a file cannot be written.
        """
        formats: Sequence[FormatName] = [format] if isinstance(format, str) else format
        return export(self._source(net, ema), formats, None if out is None else Path(out).expanduser(), uint8)

    def _source(self, net: str, ema: bool) -> Source:
        if net not in ("G", "D"):
            raise ValueError(f"net={net}: must be G or D.")
        averaged = net == "G" and ema and self.G_ema is not None
        return Source(
            player="generator" if net == "G" else "discriminator",
            net=self.D if net == "D" else self.G_ema if averaged and self.G_ema is not None else self.G,
            ema=averaged,
            step=self.step,
            config=self.config,
            spec=self.spec,
            latent=self.latent,
            condition=self.condition,
            run_dir=self.run_dir,
            rebuild=load_network,
        )

    def score(self, x: Tensor) -> dict[str, np.ndarray]:
        """Anomaly scores (n,) of x (n, *spec.shape), in the data's value range, by method; higher is more anomalous.

        They are those of `ganrun score` with its default settings. The first call loads the data and fits them.
        """
        return self.scorer().score(x)

    def scorer(
        self, methods: Sequence[str] = METHODS, split: Literal["valid", "test"] = "valid", ema: bool = True
    ) -> AnomalyScores:
        """Anomaly scores that are fitted to this run, with `score(x)`, `quantiles(scores)` and their settings."""
        return self._scorer(tuple(methods), split, ema)

    @cache  # noqa: B019  # as long as the run, which is large itself
    def _scorer(self, methods: tuple[str, ...], split: Literal["valid", "test"], ema: bool) -> AnomalyScores:
        return fit_scores(AnomalyScores(methods), self.build(metric={}), split, ema=ema)

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None while the run is running, or if it was killed."""
        return self.run_dir.result()

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics at the end of the run, or the last value of each if it has not finished."""
        if (result := self.result) and result["metrics"]:
            return dict(result["metrics"])
        rows = [row for row in self.run_dir.rows() if "evaluated" not in row]
        return {k.removeprefix("metric/"): v for row in rows for k, v in row.items() if k.startswith("metric/")}

    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: each has its step, and values by TensorBoard tag."""
        return list(self.run_dir.rows())

    def build(self, **changes: Any) -> Run:
        """The complete run at this checkpoint, with its data. changes: replacements of top-level keys of the config.

        Raises ValueError if the data differ from those that the checkpoint was trained on.
        """
        config = {**self.config, **changes}
        run = build({**config, "train": {**config["train"], "device": str(self.device)}})
        check_same_data(run, self.run_dir.path, self.state)
        run.load_state_dict(self.state)
        return run


def load(run_dir: str | Path, checkpoint: int | str = "last", device: str = "auto") -> LoadedRun:
    """The run in `run_dir` at a checkpoint: "last", "best" (train.keep_best), or the step of a saved checkpoint.

    Raises ValueError if there is no run, or no such checkpoint.
    """
    return LoadedRun(RunDir(Path(run_dir)), checkpoint, choose_device(device, "device"))


def class_indices(labels: Labels, spec: DataSpec, conditional: bool) -> list[int]:
    """The numbers of the classes to sample in turn; an empty list for a run without labels. Raises ValueError."""
    if not conditional:
        if labels is not None:
            raise ValueError("labels: this run uses none; train one with condition=concat, acgan or projection.")
        return []
    if labels is None:
        return list(range(spec.num_classes))
    labels = list(labels) if isinstance(labels, list | tuple) else [labels]  # type: ignore[list-item]
    if not labels:
        raise ValueError("labels=[]: name at least one class, as in labels=[0].")
    return [class_index("labels", label, spec.classes) for label in labels]
