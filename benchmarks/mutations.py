"""Change the files of a run directory at random, and let the commands read them. Writes benchmarks/mutations.json.

`python benchmarks/mutations.py [NUM] [FILE ...]` makes NUM changes of each file (5,000), or only of these, and keeps
the results of the others. An answer that is neither a result nor one sentence is a fault, and is printed.
TMPDIR=/dev/shm saves time.
"""

import json
import logging
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from machine import describe

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mutations import READERS, Mutations, make_run

OUT = Path(__file__).with_suffix(".json")
LONGEST = 60  # seconds of CPU time of one change, or it hangs


def campaign(mutations: Mutations, num: int) -> dict[str, Any]:
    found, began = 0, time.process_time()
    for seed in range(num):
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        for fault in mutations.faults(seed):
            found += 1
            print(fault, flush=True)
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = round(time.process_time() - began)  # of the CPU
    return {"changes": num, "read": mutations.read, "faults": found, "seconds": seconds}


def hangs(*_: object) -> None:
    raise RuntimeError(f"takes more than {LONGEST} s")


def main(num: int, names: list[str]) -> int:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, hangs)
    results = json.loads(OUT.read_text())["files"] if OUT.exists() and len(names) < len(READERS) else {}
    with tempfile.TemporaryDirectory() as folder:
        run, scratch = make_run(Path(folder)), Path(folder) / "scratch"
        logging.getLogger("ganrun").setLevel(logging.CRITICAL)
        scratch.mkdir()
        for name in names:
            results[name] = campaign(Mutations(run, name, scratch), num)
            print(name, json.dumps(results[name]), flush=True)
            OUT.write_text(json.dumps({"machine": describe(), "files": results}, indent=2) + "\n")
    return int(any(result["faults"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000, sys.argv[2:] or list(READERS)))
