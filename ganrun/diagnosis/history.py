"""Statistics of the logged curves of a run, mainly of their last quarter."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

LAST = 0.25  # share of the logged steps that counts as the end of a run
FEWEST = 8  # minimum number of logged steps in it, if the run has so many


def summarize(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Statistics of the rows of metrics.jsonl. Those that cannot be computed from the rows are missing.

    - recorded: the number of logged steps;
    - steps: the last logged step; shown: the number of real examples that D has seen by then;
    - pairs: the share of pairs in which D's logit is greater for the real example than for the sample, the median over
      the last quarter (.5: chance level, 1: perfect);
    - pairs_swing: its standard deviation over the last quarter;
    - pairs_wrong: the share of the last quarter in which it is below .4, so that D is worse than chance;
    - lead: the difference of D's mean logits for real examples and samples, the median over the last quarter divided by
      the greatest logged value;
    - right_real, right_fake: D's accuracy on real examples and on samples, the median over the last quarter;
    - g_gradient: the norm of G's gradient, the median over the last quarter divided by the greatest logged value;
    - largest: the largest absolute value of a logit or a loss in the last quarter.
    """
    game = [row for row in rows if row["step"] > 0 and "loss/d" in row]
    last = game[-max(FEWEST, math.ceil(LAST * len(game))) :]
    found: dict[str, float] = {"recorded": float(len(game))}
    if game and "nimg" in game[-1]:
        found |= {"steps": float(game[-1]["step"]), "shown": float(game[-1]["nimg"])}
    if pairs := values(last, "accuracy/pairs"):
        found["pairs"] = statistics.median(pairs)
        found["pairs_swing"] = statistics.pstdev(pairs)
        found["pairs_wrong"] = sum(p < 0.4 for p in pairs) / len(pairs)
    for key in ("real", "fake"):
        if right := values(last, f"accuracy/{key}"):
            found[f"right_{key}"] = statistics.median(right)
    if lead := leads(last):
        found["lead"] = statistics.median(lead) / max(*leads(game), 1e-9)
    if gradient := values(last, "grad_norm/g"):
        found["g_gradient"] = statistics.median(gradient) / (max(values(game, "grad_norm/g")) or 1.0)
    if last:
        found["largest"] = max(abs(row[key]) for row in last for key in row if key.startswith(("loss/", "logits/")))
    return found


def values(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    """The values of `key` in the rows that have it, without those that are not finite, in a damaged row."""
    return [row[key] for row in rows if math.isfinite(row.get(key, math.nan))]


def leads(rows: Sequence[dict[str, Any]]) -> list[float]:
    """The difference of D's mean logits for real examples and samples, in the rows that have both."""
    both = [(row.get("logits/real", math.nan), row.get("logits/fake", math.nan)) for row in rows]
    return [real - fake for real, fake in both if math.isfinite(real - fake)]
