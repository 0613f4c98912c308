"""What keeps D in bounds: one class for each file under conf/penalty/."""

from ganrun.penalty.base import Penalty, lazy_rates
from ganrun.penalty.consistency import Consistency
from ganrun.penalty.gradient import R1, R2, Dragan, GradientPenalty, ZeroCentered
from ganrun.penalty.lecam import LeCam
from ganrun.penalty.weights import Orthogonal, WeightClip

__all__ = [
    "R1",
    "R2",
    "Consistency",
    "Dragan",
    "GradientPenalty",
    "LeCam",
    "Orthogonal",
    "Penalty",
    "WeightClip",
    "ZeroCentered",
    "lazy_rates",
]
