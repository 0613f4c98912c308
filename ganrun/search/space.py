"""The space of a search: the settings that are searched, each with its values. Does not import Optuna."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ganrun.config import Config

Value = str | int | float  # as Optuna stores it


@dataclass(frozen=True)
class Choice:
    """A setting with one of several values. words: each as typed, by the value that Optuna stores.

    As in `Interval`, key is as typed, with its +, and typed is the whole setting.
    """

    key: str
    typed: str
    words: Mapping[Value, str]

    def setting(self, value: Value) -> str:
        """The setting with this value, for the command line."""
        return f"{self.key}={self.words[value]}"

    def ends(self) -> Sequence[Value]:
        """The values with which the setting is checked: all."""
        return list(self.words)

    def __str__(self) -> str:
        return ", ".join(self.words.values())


@dataclass(frozen=True)
class Interval:
    """A number from low to high. step: between its values; None: any number. log: whether it is drawn on a log scale.

    A step that is an int gives whole numbers.
    """

    key: str
    typed: str
    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.step, int)

    def setting(self, value: Value) -> str:
        """The setting with this value, for the command line."""
        return f"{self.key}={value!r}"

    def ends(self) -> Sequence[Value]:
        """The values with which the setting is checked."""
        return [self.low, self.high]

    def __str__(self) -> str:
        kind = "whole numbers from " if self.is_whole else ""
        step = f" in steps of {self.step:g}" if self.step not in (None, 1) or (self.step and not self.is_whole) else ""
        return f"{kind}{self.low:g} to {self.high:g}{step}{', on a log scale' if self.log else ''}"


Parameter = Choice | Interval


def name_of(parameter: Parameter) -> str:
    """The name of the setting, as in `optimizer.lr`."""
    return parameter.key.lstrip("+")


@dataclass(frozen=True)
class Problem:
    """A search as typed: its space, its fixed settings, and how to compose the config of a run.

    fixed: the settings of training that do not vary, as typed. compose: from settings in addition to `fixed` to the
    config of a run. line: the arguments of the command. first: the settings of possible trials, which together have
    every option of the groups in the space.
    """

    parameters: Sequence[Parameter]
    fixed: Sequence[str]
    compose: Callable[[Sequence[str]], Config]
    line: Sequence[str]
    first: Sequence[Sequence[str]]
