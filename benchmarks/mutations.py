"""Change the files of a run directory at random, and let all commands that read them answer.

python benchmarks/mutations.py [NUM] [FILE ...]: NUM changes of each file (5,000). An answer that is neither a result
nor one sentence is a fault, and is printed. The last lines are the counts.
"""

import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mutations import READERS, faults, make_run


def main(num: int, names: list[str]) -> int:
    logging.getLogger("ganrun").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder))
        logging.getLogger("ganrun").setLevel(logging.CRITICAL)
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        for name in names:
            found, began = 0, time.perf_counter()
            for seed in range(num):
                for fault in faults(run, name, seed, scratch):
                    found += 1
                    print(fault, flush=True)
            total += found
            answers, seconds = num * len(READERS[name]), time.perf_counter() - began
            print(f"{name}: {num:,} changes, {answers:,} answers, {found} faults, {seconds:.0f} s", flush=True)
    return min(total, 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000, sys.argv[2:] or list(READERS)))
