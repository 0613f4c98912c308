"""The time that each shortcut of ganrun/training/eager.py saves on the heights. Writes benchmarks/eager.json.

For a step: the default job with all shortcuts, and with one of them replaced by torch's public call, alternately in one
process. For the start: processes of `ganrun train.steps=1`, with and without the shortcut that avoids the import of
torch's compiler. A shortcut should be removed if it does not save enough to justify the use of a private function.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from machine import describe
from speed import steps_of

import ganrun
from ganrun.training import eager

OUT = Path(__file__).with_suffix(".json")
TURN, TURNS = 500, 15  # steps of each loop per turn, and number of turns
STARTS = 7
# The name in eager.py, and its replacement.
REPLACED: dict[str, tuple[str, Any]] = {
    "gradients by torch's engine / by torch.autograd.grad": ("ENGINE", None),
    "a fused Adam step by its kernel / by the optimizer": ("is_plain_fused_adam", lambda optimizer, params: False),
    "a step of RMSprop without torch's wrappers / with them": ("unwrapped_step", lambda optimizer: optimizer.step),
}
SLOW_START = """
import sys
from unittest.mock import patch
from ganrun.cli.load import load
from ganrun.cli.main import main
load("train")
from ganrun.training import eager, runtime
with patch.object(runtime, "skip_compiler_import", lambda: None):
    sys.exit(main(sys.argv[1:]))
"""


def seconds(loop: Iterator[None]) -> float:
    start = time.perf_counter()
    for _ in itertools.islice(loop, TURN):
        pass
    return time.perf_counter() - start


def ratio_of_steps(name: str, replacement: Any, *line: str) -> float:
    """The time of a step with the shortcut divided by that without it: the median over all turns but the first."""
    config = ganrun.compose("metric=none", "train.sample_every=0", *line)
    with_it, without = steps_of(config), steps_of(config)
    ratios = []
    for _ in range(TURNS + 1):
        ours = seconds(with_it)
        with patch.object(eager, name, replacement):
            ratios.append(ours / seconds(without))
    return round(statistics.median(ratios[1:]), 3)


def start_up(code: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        line = ["train.steps=1", "train.sample_every=0", "metric=none", "train.diagnose=false", f"run_dir={folder}/r"]
        start = time.perf_counter()
        subprocess.run([sys.executable, *code, *line], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


def hooks_cost() -> float:
    """The time in microseconds of the check for hooks, which each update makes once."""
    optimizer = ganrun.build(ganrun.compose("metric=none")).g_optimizer
    start = time.perf_counter()
    for _ in range(100_000):
        eager.has_step_hooks(optimizer)
    return round((time.perf_counter() - start) * 10, 2)


def main() -> None:
    figures: dict[str, float] = {}
    for text, (name, replacement) in REPLACED.items():
        line = ["loss=wgan", "train.n_critic=1"] if "RMSprop" in text else []
        figures[text] = ratio_of_steps(name, replacement, *line)
        print(text, figures[text], flush=True)
    starts = [(start_up(["-m", "ganrun"]), start_up(["-c", SLOW_START])) for _ in range(STARTS)]
    figures["start and one step, s"] = round(statistics.median(ours for ours, _ in starts), 2)
    figures["the same with torch's compiler imported, s"] = round(statistics.median(slow for _, slow in starts), 2)
    figures["asking for hooks, us"] = hooks_cost()
    print(json.dumps(figures, indent=2))
    OUT.write_text(json.dumps({"machine": describe(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
