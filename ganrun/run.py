"""One run, built: every object that the loop plays with, and the state that a checkpoint has to hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ganrun.data.dataset import Batches, Dataset
from ganrun.options import TrainOptions

Schedule = Callable[[int, int], float]
Latent = Callable[..., Tensor]


@dataclass(frozen=True)
class Run:
    """What `build.build` makes of a config. Only the networks and the optimizers change while it is trained."""

    options: TrainOptions
    seed: int
    device: torch.device
    dataset: Dataset
    batches: Batches
    latent: Latent
    loss: Any
    condition: Any | None  # None: labels are not looked at
    penalties: dict[str, Any]
    augment: Any | None
    metrics: dict[str, Any]
    G: nn.Module
    D: nn.Module
    averaged: nn.Module | None  # the exponential moving average of G, where train.ema asks for it
    g_optimizer: Optimizer
    d_optimizer: Optimizer
    g_schedule: Schedule
    d_schedule: Schedule
    momentum: Schedule | None = None  # of both optimizers' momentum; None: it stays as it is

    @property
    def sampler(self) -> nn.Module:
        """The generator that samples are drawn from: the average where there is one."""
        return self.G if self.averaged is None else self.averaged

    def parts(self) -> dict[str, Any]:
        """Everything that has a state, under the name it has in a checkpoint."""
        parts: dict[str, Any] = {
            "G": self.G,
            "D": self.D,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
        }
        parts |= {f"penalty/{name}": p for name, p in self.penalties.items() if isinstance(p, nn.Module)}
        parts |= {"augment": self.augment} if isinstance(self.augment, nn.Module) else {}
        return parts if self.averaged is None else parts | {"averaged": self.averaged}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for a state that is not of these parts."""
        for name, part in self.parts().items():
            try:
                part.load_state_dict(state[name])
            except (KeyError, RuntimeError, ValueError) as error:
                lines = str(error).splitlines()  # torch names the first of the misfits in its second line
                reason = lines[:2][-1].strip().rstrip(".") if name in state and lines else "is missing"
                raise ValueError(f"the checkpoint does not fit the config of its run: {name}: {reason}.") from error

    def is_finite(self) -> bool:
        """Whether every weight of both networks is a finite number."""
        weights: Sequence[Tensor] = [*self.G.parameters(), *self.D.parameters()]
        return bool(torch.stack([w.detach().isfinite().all() for w in weights]).all())
