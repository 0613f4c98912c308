"""Does a file compute what the network does?"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ganrun.export.formats import FORMATS, Exported, Run
from ganrun.export.function import Function
from ganrun.export.inputs import examples
from ganrun.export.libraries import missing
from ganrun.export.source import FormatName

BATCHES = (1, 3, 5)  # the sizes of the batches
TOLERANCE = 1e-5  # of the largest output if that is above 1
ROUNDING = 10  # times the rounding error of the network itself, which is large where activations are


@dataclass(frozen=True)
class Comparison:
    """runner: the library that ran the file. difference: the largest one, None if that library is not installed.

    largest: the largest output. rounding: the largest error of the network itself, computed only for large differences.
    """

    runner: str
    largest: float
    difference: float | None = None
    rounding: float | None = None

    @property
    def sentence(self) -> str:
        if self.difference is None:
            return f"not compared, since {self.runner} is not installed; `pip install 'ganrun[export]'`"
        error = "" if self.rounding is None else f"; the network's own rounding error is {self.rounding:.2g}"
        return (
            f"in {self.runner}: differs from the network by at most {self.difference:.2g} in batches of 1, 3 and 5, "
            f"for outputs of up to {self.largest:.3g}{error}"
        )


def compare(exported: Exported, name: FormatName, path: Path) -> Comparison:
    """Compare the file with the network. Raises ValueError if their outputs differ, or are not finite."""
    reference = reference_of(exported, name)
    batches = [examples(reference.inputs, num, seed=num) for num in BATCHES]
    expected = [output_of(reference, batch) for batch in batches]
    largest = max(x.abs().max().item() for x in expected)
    if not torch.tensor(largest).isfinite():
        raise ValueError(
            f"run_dir={exported.source.run_dir.path}: the output of this {exported.source.player} is not finite; "
            "choose another checkpoint."
        )
    runner = (FORMATS[name].runs or ("torch",))[0]
    if missing(FORMATS[name].runs):
        return Comparison(runner, largest)
    run = FORMATS[name].load(exported, path)
    difference = farthest([output_of(run, batch) for batch in batches], expected)
    allowed = 1.0 if exported.uint8 and exported.source.player == "generator" else TOLERANCE * max(1.0, largest)
    if difference <= allowed:
        return Comparison(runner, largest, difference)
    rounding = rounding_error(reference, batches, expected)
    if not difference <= ROUNDING * rounding:
        raise ValueError(
            f"format={name}: the output of the file differs by {difference:.2g} from that of the network, and at most "
            f"{max(allowed, ROUNDING * rounding):.2g} is allowed; nothing was written."
        )
    return Comparison(runner, largest, difference, rounding)


def reference_of(exported: Exported, name: FormatName) -> Function:
    """The network as it is, unless its random numbers are an input of the file."""
    has_noise_input = bool(exported.function.noise.size) and name != "safetensors"
    return exported.function if has_noise_input else Function(exported.source, exported.uint8, simplify=False)


@torch.no_grad()
def output_of(run: Run, inputs: Sequence[Tensor]) -> Tensor:
    """The output in float64. Random numbers that the function itself draws are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return run(*inputs).double()


def farthest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))


def rounding_error(reference: Function, batches: Sequence[Sequence[Tensor]], expected: Sequence[Tensor]) -> float:
    """The largest difference between the network in float32 and in float64; 0 for a network that cannot use float64."""
    wide = copy.deepcopy(reference).double()
    inputs = [[x.double() if x.is_floating_point() else x for x in batch] for batch in batches]
    try:
        return farthest([output_of(wide, batch) for batch in inputs], expected)
    except RuntimeError:  # of a user's own layer
        return 0.0
