"""The settings of the training loop (`train:`), with checks. Their defaults are in conf/train.yaml."""

from dataclasses import dataclass
from typing import Any, Literal

from ganrun.checks import check_arguments

MINIMUM = {
    "steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "n_critic": 1,
    "n_gen": 1,
    "pretrain_d": 0,
    "instance_noise_until": 0,
    "threads": 0,
    "log_every": 0,
    "sample_every": 0,
    "metric_every": 0,
    "patience": 0,
    "frame_every": 0,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
    "keep_every": 0,
}
MAXIMUM = {"batch_size": 10_000_000, "threads": 1024}


@dataclass(frozen=True)
class TrainOptions:
    """The settings of the training loop. Intervals (`*_every`) are in steps; 0: never. Raises ValueError."""

    steps: int
    batch_size: int
    n_critic: int
    n_gen: int
    update: Literal["alternating", "simultaneous"]
    pretrain_d: int
    label_noise: float
    instance_noise: float
    instance_noise_until: int
    ema: float
    ema_rampup: float
    ema_debias: bool
    device: str
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    channels_last: bool | None
    accumulate: int
    threads: int
    log_every: int
    sample_every: int
    metric_every: int
    metric_raw: Literal["always", "end", "never"]
    keep_best: str | None
    patience: int
    frame_every: int
    checkpoint_every: int
    keep_checkpoints: int
    keep_every: int
    diagnose: bool

    def __post_init__(self) -> None:
        for name, least in MINIMUM.items():
            if vars(self)[name] < least:
                raise ValueError(f"train.{name}={vars(self)[name]}: must be at least {least}.")
        for name, most in MAXIMUM.items():
            if vars(self)[name] > most:
                raise ValueError(f"train.{name}={vars(self)[name]}: must be at most {most}.")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.accumulate={self.accumulate}: must divide train.batch_size={self.batch_size} into equal parts."
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"train.ema={self.ema}: must lie in [0, 1), as in train.ema=0.999; 0 is off.")
        if not 0 <= self.ema_rampup <= 1:
            raise ValueError(f"train.ema_rampup={self.ema_rampup}: must lie in [0, 1], as in 0.05; 0 is off.")
        if self.ema_rampup and not self.ema:
            raise ValueError(
                f"train.ema_rampup={self.ema_rampup}: has no effect without train.ema; add train.ema=0.999."
            )
        if not 0 <= self.label_noise < 0.5:
            raise ValueError(f"train.label_noise={self.label_noise}: must lie in [0, 0.5), as in 0.05; 0 is off.")
        if not self.instance_noise >= 0:
            raise ValueError(f"train.instance_noise={self.instance_noise}: must be at least 0, as in 0.1; 0 is off.")
        if self.instance_noise_until and not self.instance_noise:
            raise ValueError(
                f"train.instance_noise_until={self.instance_noise_until}: has no effect without instance noise; "
                "add train.instance_noise=0.1."
            )
        if self.keep_best is not None and not self.metric_every:
            raise ValueError(
                f"train.keep_best={self.keep_best}: metrics are computed only at the end; "
                "set how often they are computed, as in train.metric_every=1000."
            )
        if self.patience and self.keep_best is None:
            raise ValueError(
                f"train.patience={self.patience}: has no effect without train.keep_best; "
                "add a metric's key, as in train.keep_best=ks_100k."
            )
        if self.update == "simultaneous" and (self.n_critic, self.n_gen) != (1, 1):
            raise ValueError(
                "train.update=simultaneous: makes one update of each player per step; "
                "add train.n_critic=1 train.n_gen=1, or choose train.update=alternating."
            )

    @classmethod
    def of(cls, given: dict[str, Any]) -> "TrainOptions":
        """The options from a composed config. Raises ValueError for an unknown name, a wrong type or a wrong range."""
        check_arguments("train", cls, given)
        if missing := set(cls.__dataclass_fields__) - set(given):
            raise ValueError(f"train.{min(missing)}: has no value; the defaults are in conf/train.yaml.")
        return cls(**given)
