"""What is exported: a network of a run at one of its checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from ganrun.config import Config
from ganrun.data.dataset import DataSpec
from ganrun.protocols import Condition, Latent
from ganrun.records.run_dir import RunDir

Player = Literal["generator", "discriminator"]
FormatName = Literal["safetensors", "onnx", "torch_export"]


@dataclass(frozen=True)
class Source:
    """player, net: the network, in eval mode. ema: whether its weights are those of G_ema.

    rebuild: creates the network from a file in the format safetensors. The other fields are those of
    `ganrun.training.load.LoadedRun`.
    """

    player: Player
    net: nn.Module
    ema: bool
    step: int
    config: Config
    spec: DataSpec
    latent: Latent
    condition: Condition
    run_dir: RunDir
    rebuild: Callable[[Path], nn.Module]

    @property
    def weights(self) -> str:
        """The name of the weights: G, G_ema or D."""
        return "D" if self.player == "discriminator" else "G_ema" if self.ema else "G"

    @property
    def num_classes(self) -> int:
        """The number of classes of which the network takes one as an input; 0 if it takes none."""
        return self.spec.num_classes if self.condition.uses_labels else 0
