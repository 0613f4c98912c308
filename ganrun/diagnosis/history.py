"""What the logged curves of a run say: their last quarter, and how it differs from the beginning."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

LAST = 0.25  # the share of the logged steps that stands for the end of a run
FEWEST = 8  # logged steps in it, where there are so many at all


def summarize(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Numbers from the rows of metrics.jsonl; those that the rows do not allow for are missing.

    - pairs: how often D gives a real example a greater logit than a sample, the median of the last quarter (.5: chance
      level, 1: perfect);
    - pairs_swing: the standard deviation of that over the last quarter;
    - pairs_wrong: the share of the last quarter in which it is below .4: D is worse than chance;
    - g_gradient: the norm of G's gradient, median of the last quarter over its greatest logged value;
    - largest: the largest logit or loss of the last quarter.
    """
    game = [row for row in rows if row["step"] > 0 and "loss/d" in row]
    last = game[-max(FEWEST, math.ceil(LAST * len(game))) :]
    found: dict[str, float] = {"recorded": float(len(game))}
    if pairs := values(last, "accuracy/pairs"):
        found["pairs"] = statistics.median(pairs)
        found["pairs_swing"] = statistics.pstdev(pairs)
        found["pairs_wrong"] = sum(p < 0.4 for p in pairs) / len(pairs)
    for key in ("real", "fake"):
        if right := values(last, f"accuracy/{key}"):
            found[f"right_{key}"] = statistics.median(right)
    if gradient := values(game, "grad_norm/g"):
        found["g_gradient"] = statistics.median(values(last, "grad_norm/g")) / (max(gradient) or 1.0)
    if last:
        found["largest"] = max(abs(row[key]) for row in last for key in row if key.startswith(("loss/", "logits/")))
    return found


def values(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [row[key] for row in rows if key in row]
