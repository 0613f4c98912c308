"""The rules of the diagnosis. Each takes the measurements and returns a finding, or None.

Samples count most: a run whose samples are as good as real examples is healthy, whatever its losses look like. Only if
the samples are bad, the logged curves are used to find the cause.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Numbers = Mapping[str, float]

CALIBRATED = "chosen on seeds 0 and 1 of benchmarks/diagnosis.py and checked on seed 2"

# Thresholds for samples. R: the value for real examples in place of samples. H: the worst value of 40 healthy runs.
ENERGY = 0.02  # R .00, H .007; .022 for a Gaussian that is shifted by .3 standard deviations
LOST, ASTRAY = 0.07, 0.5  # R .00, H .012
DIVERSITY = 0.5  # R 1.0, H .89
DUPLICATES = 0.3  # above R; H .03
COVERAGE = 0.3  # relative to R, which is .97; H .61
COPIES, NEARER, ORIGINALS = 0.3, 0.5, 0.1  # R and H: 0 to .06, 1.0 and .9, 1.0
AWAY = 30.0  # R 1.0, H 1.1
# Thresholds for logged curves and settings. They only explain bad samples, so values of healthy runs do not matter.
PERFECT = 0.95
SEPARABLE, BLIND, FLIPPED = 0.75, 0.2, 0.4
SWING, WRONG = 0.2, 0.1
FLAT, FADED = 0.05, 0.01
HUGE = 1e4


@dataclass(frozen=True)
class Finding:
    """One problem of a run. measurement and threshold are sentences; origin is the source of the threshold."""

    name: str
    measurement: str
    threshold: str
    origin: str


def bad(m: Numbers) -> bool:
    """Whether the samples are bad in any way. Without measurements of samples they count as good."""
    return not m.get("finite", 1) or lacking(m) or repeating(m) or unlike(m)


def lacking(m: Numbers) -> bool:
    """Whether real examples have no sample near them, or samples lie too close together."""
    if "lost" not in m:
        return False
    return m["lost"] - m["lost_real"] > LOST or m["diversity"] < DIVERSITY * m["diversity_real"]


def repeating(m: Numbers) -> bool:
    """Whether too many samples nearly repeat another one."""
    return "duplicates" in m and m["duplicates"] - m["duplicates_real"] > DUPLICATES


def astray(m: Numbers) -> bool:
    """Whether most samples are far from the data."""
    return m["astray"] - m["astray_real"] > ASTRAY


def unlike(m: Numbers) -> bool:
    """Whether the distribution of the samples differs from that of the data."""
    if "energy" not in m:
        return False
    return m["energy"] - m["energy_real"] > ENERGY or m["coverage"] < COVERAGE * m["coverage_real"]


def divergence(m: Numbers) -> Finding | None:
    if not m.get("finite", 1) or m.get("diverged"):
        measurement = "a loss, a weight or a sample is not finite"
    elif m.get("largest", 0) > HUGE:
        measurement = f"losses or logits reach {m['largest']:.3g} in the last quarter of the run"
    elif m.get("away", 0) > AWAY:
        measurement = f"samples are {m['away']:.3g} times as far from real examples as these are from each other"
    else:
        return None
    return Finding(
        "divergence",
        measurement,
        f"not finite, losses or logits beyond {HUGE:g}, or samples {AWAY:g} times as far",
        "training does not recover from such values",
    )


def memorization(m: Numbers) -> Finding | None:
    if "copies" not in m or m["originals"] <= ORIGINALS:
        return None
    if m["copies"] - m["copies_real"] <= COPIES and m["copy_ratio"] >= NEARER:
        return None
    return Finding(
        "memorization",
        f"samples are {m['copy_ratio']:.2f} times as far from the nearest training example as unseen real examples are "
        f"(medians), and {m['copies']:.0%} of them are copies, nearer than a tenth of that distance (of unseen "
        f"examples {m['copies_real']:.0%})",
        f"less than {NEARER} times as far, or {COPIES:.0%} more copies than among unseen real examples",
        f"three sets compared as in Meehan, Chaudhuri and Dasgupta 2020; the numbers {CALIBRATED}",
    )


def vanishing_gradients(m: Numbers) -> Finding | None:
    flat, faded = m.get("slope", 1) < FLAT, m.get("g_gradient", 1) < FADED
    if not bad(m) or m.get("pairs", 0) < PERFECT or not (flat or faded):
        return None
    how = (
        f"the slope of G's loss at its samples is {m['slope']:.2g} times the slope if all logits are 0"
        if flat
        else f"the norm of G's gradient fell to {m['g_gradient']:.2g} times its greatest value"
    )
    return Finding(
        "vanishing_gradients",
        f"D ranks {m['pairs']:.1%} of the pairs of a real and a generated example correctly, and {how}",
        f"{PERFECT:.0%} correct, and a slope below {FLAT} times that for logits of 0, or a gradient below {FADED} "
        "times its greatest value",
        f"a perfect D leaves G no gradient: Arjovsky and Bottou 2017; the numbers {CALIBRATED}",
    )


def oscillation(m: Numbers) -> Finding | None:
    swing = max(0.0, m.get("pairs_swing", 0) ** 2 - m.get("chance", 0) ** 2) ** 0.5
    if not bad(m) or swing < SWING or m.get("pairs_wrong", 0) < WRONG:
        return None
    return Finding(
        "oscillation",
        f"the share of pairs that D ranks correctly has a standard deviation of {swing:.2f} in the last quarter "
        f"(without the chance variation of a batch), and is below .4 in {m['pairs_wrong']:.0%} of it: G and D "
        "oscillate",
        f"a standard deviation of {SWING}, and {WRONG:.0%} below .4",
        f"rotation about the equilibrium: Mescheder, Geiger and Nowozin 2018; the numbers {CALIBRATED}",
    )


def flipped_labels(m: Numbers) -> Finding | None:
    if not bad(m) or m.get("label_noise", 0) < FLIPPED:
        return None
    return Finding(
        "d_blind",
        f"{m['label_noise']:.0%} of D's labels are flipped, which leaves {1 - 2 * m['label_noise']:.0%} of the "
        "difference between real and generated examples",
        f"{FLIPPED:.0%} flipped, which is train.label_noise={FLIPPED:g}",
        "a share p of flipped labels leaves 1 - 2p of the difference of the two densities",
    )


def mode_collapse(m: Numbers) -> Finding | None:
    """Mode collapse of samples that are similar to only a part of the data."""
    return _collapse(m) if lacking(m) and not astray(m) else None


def repetition(m: Numbers) -> Finding | None:
    """Mode collapse of samples that repeat each other and are far from the data."""
    return _collapse(m) if repeating(m) and (astray(m) or not lacking(m)) else None


def _collapse(m: Numbers) -> Finding:
    return Finding(
        "mode_collapse",
        f"{m['lost']:.0%} of the real examples have no sample near them; samples are {m['diversity']:.2f} times as far "
        f"apart as real examples; {m['duplicates']:.0%} of the samples nearly repeat another one (of real ones "
        f"{m['duplicates_real']:.0%})",
        f"{LOST:.0%} lost, or {DIVERSITY} times as far apart, if most samples are not far from the data; or "
        f"{DUPLICATES:.0%} more repeated than among real examples",
        f"cells as in Richardson and Weiss 2018, repeats as in Arora and Zhang 2017; the numbers {CALIBRATED}",
    )


def d_blind(m: Numbers) -> Finding | None:
    if not bad(m) or "pairs" not in m or m.get("two_sample", 0) < SEPARABLE:
        return None
    if m["pairs"] - 0.5 >= BLIND * (m["two_sample"] - 0.5) or flipped_labels(m):
        return None
    return Finding(
        "d_blind",
        f"D ranks {m['pairs']:.1%} of the pairs of a real and a generated example correctly; guessing gives 50%, and a "
        f"nearest-neighbor classifier {m['two_sample']:.1%}",
        f"less than {BLIND:.0%} of the classifier's gain over guessing, if it ranks {SEPARABLE:.0%} correctly",
        f"the classifier two-sample test of Lopez-Paz and Oquab 2017; the numbers {CALIBRATED}",
    )


def d_too_strong(m: Numbers) -> Finding | None:
    if not bad(m) or m.get("pairs", 0) < PERFECT or vanishing_gradients(m):
        return None
    return Finding(
        "d_too_strong",
        f"D ranks {m['pairs']:.1%} of the pairs of a real and a generated example correctly: G does not keep up",
        f"{PERFECT:.0%}; the equilibrium is 50%",
        CALIBRATED,
    )


def not_converged(m: Numbers) -> Finding | None:
    if not m.get("finite", 1) or not bad(m):
        return None
    return Finding(
        "not_converged",
        f"samples differ from real examples, and the logged curves do not show why: their energy distance is "
        f"{m['energy']:.3f} (0 to 1), and {m['coverage']:.0%} of the real examples have a sample among their nearest "
        f"neighbors (with real examples in place of samples {m['coverage_real']:.0%})",
        f"an energy distance of {ENERGY}, or a coverage below {COVERAGE} times that of real examples",
        f"energy distance of Rizzo and Szekely 2016, coverage of Naeem et al. 2020; the numbers {CALIBRATED}",
    )


Rule = Callable[[Numbers], Finding | None]

RULES: tuple[Rule, ...] = (  # causes come before effects, since the first finding gives the diagnosis its name
    divergence,
    memorization,
    vanishing_gradients,
    flipped_labels,
    oscillation,
    mode_collapse,
    d_blind,
    d_too_strong,
    repetition,
)
