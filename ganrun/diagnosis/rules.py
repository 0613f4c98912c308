"""The rules of the diagnosis. Each takes the measurements and returns a finding, or None.

The samples come first: a run whose samples are as good as real examples is healthy, whatever its losses look like. Only
where they are not, the logged curves are searched for the cause.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Numbers = Mapping[str, float]

CALIBRATED = "chosen on seeds 0 and 1 of benchmarks/diagnosis.py, and checked on seed 2"

# Of samples. R: the value of real examples in place of samples. H: the worst value among 40 healthy runs.
ENERGY = 0.02  # R .00, H .007; a Gaussian that is off by .3 standard deviations has .022
LOST, ASTRAY = 0.07, 0.5  # R .00, H .012
DIVERSITY = 0.5  # R 1.0, H .89
DUPLICATES = 0.3  # more than R, H .03
COVERAGE = 0.3  # of that of R, which is .97, H .61
COPIES, NEARER, ORIGINALS = 0.3, 0.5, 0.1  # R and H: 0 to .06, 1.0 and .9, 1.0
AWAY = 30.0  # R 1.0, H 1.1
# Of the logged curves and the settings. They only explain bad samples, so the values of healthy runs do not matter.
PERFECT = 0.95
SEPARABLE, BLIND, EXCHANGED = 0.75, 0.2, 0.4
SWING, WRONG = 0.2, 0.1
FLAT, FADED = 0.05, 0.01
HUGE = 1e4


@dataclass(frozen=True)
class Finding:
    """One fault of a run. measurement and threshold are sentences; origin is the source of the threshold."""

    name: str
    measurement: str
    threshold: str
    origin: str


def bad(m: Numbers) -> bool:
    """Whether the samples are bad in any way. Without measurements they count as good."""
    return not m.get("finite", 1) or lacking(m) or repeating(m) or unlike(m)


def lacking(m: Numbers) -> bool:
    """Whether real examples have no sample near them, or samples lie too close together."""
    if "lost" not in m:
        return False
    return m["lost"] - m["lost_real"] > LOST or m["diversity"] < DIVERSITY * m["diversity_real"]


def repeating(m: Numbers) -> bool:
    return "duplicates" in m and m["duplicates"] - m["duplicates_real"] > DUPLICATES


def astray(m: Numbers) -> bool:
    """Whether most samples are far from the data."""
    return m["astray"] - m["astray_real"] > ASTRAY


def unlike(m: Numbers) -> bool:
    if "energy" not in m:
        return False
    return m["energy"] - m["energy_real"] > ENERGY or m["coverage"] < COVERAGE * m["coverage_real"]


def divergence(m: Numbers) -> Finding | None:
    if not m.get("finite", 1) or m.get("diverged"):
        measurement = "a loss, a weight or a sample is no finite number any more"
    elif m.get("largest", 0) > HUGE:
        measurement = f"losses or logits reach {m['largest']:.3g} in the last quarter of the run"
    elif m.get("away", 0) > AWAY:
        measurement = f"samples are {m['away']:.3g} times as far from real examples as those are from each other"
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
        f"samples lie {m['copy_ratio']:.2f} times as far from the nearest training example as unseen real examples do "
        f"(medians), and {m['copies']:.0%} of them are copies, nearer than a tenth of that (of unseen examples "
        f"{m['copies_real']:.0%})",
        f"less than {NEARER} times as far, or {COPIES:.0%} more copies than among unseen real examples",
        f"the three sets compared as in Meehan, Chaudhuri and Dasgupta 2020; the number {CALIBRATED}",
    )


def vanishing_gradients(m: Numbers) -> Finding | None:
    flat, faded = m.get("slope", 1) < FLAT, m.get("g_gradient", 1) < FADED
    if not bad(m) or m.get("pairs", 0) < PERFECT or not (flat or faded):
        return None
    how = (
        f"the slope of G's loss at its samples is {m['slope']:.2g} of what it is where all logits are 0"
        if flat
        else f"the norm of G's gradient fell to {m['g_gradient']:.2g} of what it was"
    )
    return Finding(
        "vanishing_gradients",
        f"D ranks {m['pairs']:.1%} of the pairs of a real and a generated example right, and {how}",
        f"{PERFECT:.0%} right, and a slope below {FLAT} or a gradient below {FADED} of its greatest",
        f"a perfect D leaves G no gradient: Arjovsky and Bottou 2017; the numbers {CALIBRATED}",
    )


def oscillation(m: Numbers) -> Finding | None:
    swing = max(0.0, m.get("pairs_swing", 0) ** 2 - m.get("chance", 0) ** 2) ** 0.5
    if not bad(m) or swing < SWING or m.get("pairs_wrong", 0) < WRONG:
        return None
    return Finding(
        "oscillation",
        f"the share of pairs that D ranks right has a standard deviation of {swing:.2f} in the last quarter (without "
        f"what is chance in a batch), and is below .4 in {m['pairs_wrong']:.0%} of it: G and D chase each other",
        f"a standard deviation of {SWING}, and {WRONG:.0%} below .4",
        f"rotation about the equilibrium: Mescheder, Geiger and Nowozin 2018; the numbers {CALIBRATED}",
    )


def exchanged_labels(m: Numbers) -> Finding | None:
    if not bad(m) or m.get("label_noise", 0) < EXCHANGED:
        return None
    return Finding(
        "d_blind",
        f"{m['label_noise']:.0%} of the labels are exchanged, which leaves D {1 - 2 * m['label_noise']:.0%} of the "
        "difference between real and generated examples",
        f"{EXCHANGED:.0%} exchanged, or train.label_noise={EXCHANGED:g}",
        "a share p of exchanged labels leaves 1 - 2p of the difference of the two densities",
    )


def mode_collapse(m: Numbers) -> Finding | None:
    """Samples like the data, but not like all of them."""
    return _collapse(m) if lacking(m) and not astray(m) else None


def repetition(m: Numbers) -> Finding | None:
    """Samples unlike the data, and always the same ones."""
    return _collapse(m) if repeating(m) and (astray(m) or not lacking(m)) else None


def _collapse(m: Numbers) -> Finding:
    return Finding(
        "mode_collapse",
        f"{m['lost']:.0%} of the real examples have no sample near them; samples are {m['diversity']:.2f} times as far "
        f"apart as real examples; {m['duplicates']:.0%} of the samples nearly repeat another one (of real ones "
        f"{m['duplicates_real']:.0%})",
        f"{LOST:.0%} lost, or {DIVERSITY} times as far apart, of samples that are not mostly far from the data; or "
        f"{DUPLICATES:.0%} more repeated than among real examples",
        f"cells as in Richardson and Weiss 2018, repeats as in Arora and Zhang 2017; the numbers {CALIBRATED}",
    )


def d_blind(m: Numbers) -> Finding | None:
    if not bad(m) or "pairs" not in m or m.get("two_sample", 0) < SEPARABLE:
        return None
    if m["pairs"] - 0.5 >= BLIND * (m["two_sample"] - 0.5) or exchanged_labels(m):
        return None
    return Finding(
        "d_blind",
        f"D ranks {m['pairs']:.1%} of the pairs of a real and a generated example right, where guessing gives 50% and "
        f"a nearest-neighbour classifier {m['two_sample']:.1%}",
        f"less than {BLIND:.0%} of what the classifier gains over guessing, where that ranks {SEPARABLE:.0%} right",
        f"the classifier two-sample test of Lopez-Paz and Oquab 2017; the numbers {CALIBRATED}",
    )


def d_too_strong(m: Numbers) -> Finding | None:
    if not bad(m) or m.get("pairs", 0) < PERFECT or vanishing_gradients(m):
        return None
    return Finding(
        "d_too_strong",
        f"D ranks {m['pairs']:.1%} of the pairs of a real and a generated example right: G does not keep up",
        f"{PERFECT:.0%}, where 50% is the equilibrium",
        CALIBRATED,
    )


def not_converged(m: Numbers) -> Finding | None:
    if not m.get("finite", 1) or not bad(m):
        return None
    return Finding(
        "not_converged",
        f"samples differ from real examples, and the logged curves do not say why: their energy distance is "
        f"{m['energy']:.3f} (0 to 1), and {m['coverage']:.0%} of the real examples have a sample among their nearest, "
        f"where of real ones it is {m['coverage_real']:.0%}",
        f"an energy distance of {ENERGY}, or coverage below {COVERAGE} of what real examples have",
        f"energy distance of Rizzo and Szekely 2016, coverage of Naeem et al. 2020; the numbers {CALIBRATED}",
    )


Rule = Callable[[Numbers], Finding | None]

RULES: tuple[Rule, ...] = (  # the first finding gives the diagnosis its name: causes come before their effects
    divergence,
    memorization,
    vanishing_gradients,
    exchanged_labels,
    oscillation,
    mode_collapse,
    d_blind,
    d_too_strong,
    repetition,
)
