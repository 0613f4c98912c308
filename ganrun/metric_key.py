"""The properties of a metric's key. Imports nothing heavy, for reports."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricKey:
    """The properties of one key of a metric, known before it is computed.

    better: which values are better, if they measure how good samples are. unit: of the value; "data": the data's unit.
    from_test: whether test data are used. about: the key that this one belongs to and is printed next to, as a standard
    error belongs to a mean. true: the key of the same quantity for the data themselves.
    """

    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    from_test: bool = False
    about: str = ""
    true: str = ""
