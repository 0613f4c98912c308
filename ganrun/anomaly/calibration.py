"""From scores to p-values among held-out real data, and their combination."""

from collections.abc import Mapping

import numpy as np

TAIL = 0.1  # share of the held-out scores whose mean excess is the scale of the tail beyond the largest one


class Calibration:
    """The p-values of scores among those of held-out real data. A higher score is more anomalous.

    p(s) = (1 + number of held-out scores >= s) / (1 + their number), the p-value of conformal prediction (Vovk,
    Gammerman and Shafer 2005): of a new real example, it is uniform or larger, whatever the scores' distribution.

    >>> calibration = Calibration(np.array([1.0, 2.0, 3.0]))
    >>> calibration.p(np.array([0.0, 2.5, 9.0])).tolist()
    [1.0, 0.5, 0.25]
    """

    def __init__(self, held_out: np.ndarray) -> None:
        self.held_out = held_out.astype(np.float64)
        self.sorted = np.sort(self.held_out)
        top = self.sorted[int((1 - TAIL) * len(held_out)) :]
        self.scale = max(float((top - top[0]).mean()), 1e-12 * max(1.0, abs(float(top[-1]))))

    def p(self, scores: np.ndarray) -> np.ndarray:
        """(n,), in (0, 1]."""
        at_least = len(self.sorted) - np.searchsorted(self.sorted, scores, side="left")
        found: np.ndarray = (1 + at_least) / (1 + len(self.sorted))
        return found

    def surprise(self, scores: np.ndarray) -> np.ndarray:
        """-log p (n,), in nats, where p falls exponentially beyond the largest held-out score.

        All scores out there have the same p. The tail, an exponential one with the mean excess of the highest held-out
        scores (peaks over threshold; Pickands 1975), keeps their order.
        """
        found: np.ndarray = -np.log(self.p(scores)) + (scores - self.sorted[-1]).clip(0) / self.scale
        return found

    def surprise_of_held_out(self) -> np.ndarray:
        """The surprise of each held-out score among the others (m,), as that of a new score is among all of them."""
        num = len(self.held_out)
        at_least = num - np.searchsorted(self.sorted, self.held_out, side="left")  # with the score itself
        found: np.ndarray = -np.log(at_least / num)
        if num > 1:  # only the largest score can exceed all others
            largest = int(self.held_out.argmax())
            others = Calibration(np.delete(self.held_out, largest))
            found[largest] = others.surprise(self.held_out[[largest]])[0]
        return found


class Combination:
    """The mean of -log p over several scores: Fisher's statistic, divided by twice their number.

    Fisher 1932 assumes that p-values are independent, and gets a chi-squared distribution. These are not, so the
    combination is calibrated as a score of its own, on the same held-out data: `of_held_out`, where each example is
    compared with the others, as a new one is with all. Compared with all, they would look less anomalous than new ones.
    held_out: the scores of the same real examples (m,), by method.
    """

    def __init__(self, held_out: Mapping[str, np.ndarray]) -> None:
        self.parts = {name: Calibration(scores) for name, scores in held_out.items()}

    def __call__(self, scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n,)"""
        found: np.ndarray = np.mean([part.surprise(scores[name]) for name, part in self.parts.items()], axis=0)
        return found

    def of_held_out(self) -> np.ndarray:
        """The combination for each held-out example among the others, (m,)."""
        found: np.ndarray = np.mean([part.surprise_of_held_out() for part in self.parts.values()], axis=0)
        return found
