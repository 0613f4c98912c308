"""How near 60 trials of each sampler come to the known optimum of a function, for seeds 0 to 9.

The function is that of tests/search/test_search.py, (x - 0.3)^2 + (log10(y) + 2)^2 for x in [-1, 1] and y in [1e-4, 1].
The distance is that of the best trial in x and log10(y), a space of 2 by 4. No run is trained.
"""

import json
import math
import statistics
from pathlib import Path

import optuna
from machine import describe

from ganrun.search.space import Interval
from ganrun.search.study import make_sampler, suggest

OUT = Path(__file__).with_suffix(".json")
TRIALS = 60
X, Y = Interval("x", "", -1.0, 1.0), Interval("y", "", 1e-4, 1.0, log=True)


def distance(sampler: str, seed: int) -> float:
    study = optuna.create_study(sampler=make_sampler(sampler, seed))
    for _ in range(TRIALS):
        trial = study.ask()
        x, y = float(suggest(trial, X)), float(suggest(trial, Y))
        study.tell(trial, (x - 0.3) ** 2 + (math.log10(y) + 2) ** 2)
    return math.sqrt(study.best_value)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {}
    for sampler in ("tpe", "random", "cmaes"):
        found = [round(distance(sampler, seed), 4) for seed in range(10)]
        samplers[sampler] = {"median": round(statistics.median(found), 4), "largest": max(found), "seeds": found}
        print(sampler, samplers[sampler], flush=True)
    result = {"machine": describe(), "optuna": optuna.__version__, "trials": TRIALS, "distance": samplers}
    OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
