"""One run: all objects that training uses, and their state for checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from ganrun.data.cache import digest_of, digest_of_state
from ganrun.data.dataset import Dataset
from ganrun.protocols import Augmentation, Condition, DOutput, Latent, Loss, Metric, Penalty, Schedule
from ganrun.training.batches import Batches
from ganrun.training.options import TrainOptions
from ganrun.training.parts import load_part

LATER = ("labels", "valid", "test")  # facts about the data that checkpoints of early versions do not have


@dataclass(frozen=True)
class Run:
    """All objects of a run, built from its config (`build.build`).

    d_outputs: all outputs of D that the loss and the condition need, (x, y) -> DOutput, in one forward pass.
    new_d: a new, untrained D of the same architecture, from torch's global random state.
    """

    options: TrainOptions
    seed: int
    device: torch.device
    dataset: Dataset
    batches: Batches
    latent: Latent
    loss: Loss
    condition: Condition
    penalties: Mapping[str, Penalty]
    augment: Augmentation
    metrics: Mapping[str, Metric]
    G: nn.Module
    D: nn.Module
    G_ema: nn.Module | None  # exponential moving average of G (train.ema)
    d_outputs: Callable[[Tensor, Tensor | None], DOutput]
    new_d: Callable[[], nn.Module]
    g_optimizer: Optimizer
    d_optimizer: Optimizer
    g_schedule: Schedule
    d_schedule: Schedule
    momentum: Schedule | None = None  # of both optimizers; None: it is constant
    g_scaler: GradScaler | None = None  # of G's loss (train.precision=fp16)
    d_scaler: GradScaler | None = None
    beta2_schedule: Schedule | None = None  # of 1 - beta2 of both optimizers
    penalty_schedule: Schedule | None = None  # of the weights of all penalties
    ema_schedule: Schedule | None = None  # of the half-life of G_ema
    augment_schedule: Schedule | None = None  # of the augmentation's probability

    @property
    def sampler(self) -> nn.Module:
        """The generator to sample from: G_ema if there is one, else G."""
        return self.G if self.G_ema is None else self.G_ema

    def stateful(self) -> dict[str, Any]:
        """All objects with a state, by their name in a checkpoint."""
        found: dict[str, Any] = {
            "G": self.G,
            "D": self.D,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
        }
        scalers = {"g_scaler": self.g_scaler, "d_scaler": self.d_scaler}
        found |= {name: scaler for name, scaler in scalers.items() if scaler is not None}
        found |= {f"penalty/{name}": p for name, p in self.penalties.items() if isinstance(p, nn.Module)}
        found |= {"augment": self.augment} if isinstance(self.augment, nn.Module) else {}
        return found if self.G_ema is None else found | {"G_ema": self.G_ema}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.stateful().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of every object. Raises ValueError for a state that does not fit."""
        for name, part in self.stateful().items():
            load_part(name, part, state)

    def is_finite(self) -> bool:
        """Whether all weights of both networks are finite."""
        weights: Sequence[Tensor] = [*self.G.parameters(), *self.D.parameters()]
        return bool(torch.stack([w.detach().isfinite().all() for w in weights]).all())

    def data_facts(self) -> dict[str, Any]:
        """Shape, range, moments and number of the training data, a hash of all labels, and moments of held-out data.

        Of the form of a table there is only a hash, since it is long.
        """
        facts = self.dataset.spec.plain()
        facts |= {"form": digest_of(facts["form"])} if "form" in facts else {}
        splits = self.dataset.splits()
        labels = {name: split.y for name, split in splits.items() if split.y is not None}
        facts |= {"num_train": len(self.dataset.train), "labels": digest_of_state(labels)[:8]}
        return facts | {name: split.summary() for name, split in splits.items() if name != "train"}

    def num_images(self, step: int) -> int:
        """The number of real examples that D has had at `step`, to compare runs with different n_critic.

        step: negative while D is pre-trained.
        """
        updates = step if step < 0 else step * self.options.n_critic
        return (self.options.pretrain_d + updates) * self.options.batch_size


def data_changes(run: Run, state: Mapping[str, Any]) -> list[str]:
    """The differences between the data of `run` and those that a checkpoint was trained on, in words."""
    before, now = state["data"], run.data_facts()
    known = [key for key in now if key in before or key not in LATER]
    return [f"{key} ({before.get(key)} there, {now[key]} now)" for key in known if before.get(key) != now[key]]


def check_same_data(run: Run, run_dir: Path, state: Mapping[str, Any]) -> None:
    """Raise ValueError if the data's content differs from that of the checkpoint's data; their folder may differ."""
    if changes := data_changes(run, state):
        raise ValueError(
            f"run_dir={run_dir}: its run was trained on other data: {', '.join(changes)}. Choose a new run_dir."
        )
