"""The rules of the diagnosis. Each takes the measurements and returns a finding, or None.

Samples count most: a run whose samples are as good as real examples is healthy, whatever its losses look like. If they
are bad, the first findings say what happened to them, and the next ones what the logged curves show of the cause.
Before D has had enough examples, bad samples are what one expects, and nothing but divergence and copies is found.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Numbers = Mapping[str, float]

CALIBRATED = "chosen on seeds 0 to 9 of benchmarks/diagnosis.py and checked on ten others"

# Minimum of evidence: so many steps, and each training example shown to D once, or ENOUGH steps if these are fewer.
FEWEST, ENOUGH = 100, 1000
# Thresholds for samples. R: the value for real examples in place of samples. H: the worst value of 206 healthy runs.
ENERGY = 0.02  # R .00, H .0195; .022 for a Gaussian that is shifted by .3 standard deviations
LOST, ASTRAY = 0.07, 0.5  # R .00, H .098 (but see CONCENTRATED) and .58
CONCENTRATED = 0.3  # share of the lost among the uncovered: .6 to 1 if modes are lost, .16 if all samples are poor
DIVERSITY = 0.5  # R 1.0, H .91
DUPLICATES = 0.3  # above R; H .11
COVERAGE = 0.28  # relative to R, which is .97; H .29
COPIES, NEARER, ORIGINALS = 0.3, 0.5, 0.1  # R and H: 0 to .06, 1.0 and .9, 1.0
AWAY = 25.0  # R 1.0, H 1.1
# Thresholds for logged curves and settings. They only explain bad samples, so values of healthy runs do not matter.
PERFECT = 0.95
LEAD = 0.6  # .71 to .98 if G does not learn; up to .57 while a GAN of images learns
SEPARABLE, BLIND, FLIPPED = 0.75, 0.2, 0.4
SWING, WRONG = 0.15, 0.1
FLAT, FADED = 0.05, 0.01
HUGE = 1e4


@dataclass(frozen=True)
class Finding:
    """One problem of a run. measurement and threshold are sentences; origin is the source of the threshold."""

    name: str
    measurement: str
    threshold: str
    origin: str


def evidence(m: Numbers) -> bool:
    """Whether the run was long enough to be judged. Without logged steps it counts as long enough."""
    steps = m.get("steps", ENOUGH)
    return steps >= FEWEST and (steps >= ENOUGH or m.get("epochs", 1) >= 1)


def bad(m: Numbers) -> bool:
    """Whether the samples are bad in any way. Without measurements of samples they count as good."""
    return not m.get("finite", 1) or lacking(m) or repeating(m) or unlike(m)


def lacking(m: Numbers) -> bool:
    """Whether samples lie too close together, or real examples have no sample near them.

    The second counts only if most samples are near the data, and if these are a good part of all examples that are not
    covered, so that poor samples of all kinds of examples are not taken for good samples of a few kinds.
    """
    if "lost" not in m:
        return False
    lost = m["lost"] - m["lost_real"]
    missing = lost > LOST and lost > CONCENTRATED * (1 - m["coverage"]) and not astray(m)
    return missing or m["diversity"] < DIVERSITY * m["diversity_real"]


def repeating(m: Numbers) -> bool:
    """Whether too many samples nearly repeat another one. Copies of few training examples do so anyway."""
    return "duplicates" in m and m["duplicates"] - m["duplicates_real"] > DUPLICATES and not memorization(m)


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
    nearer = m["copy_ratio"] < NEARER and evidence(m)  # blurred samples of the first steps are near all examples
    if m["copies"] - m["copies_real"] <= COPIES and not nearer:
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
    """Samples are similar to only a part of the data, or to each other.

    Samples that are far from the data, and that D always recognizes, are those of a G that has not learned anything,
    unless they repeat each other.
    """
    untrained = "astray" in m and astray(m) and m.get("pairs", 0) >= PERFECT
    if not ((lacking(m) and not untrained) or repeating(m)):
        return None
    return Finding(
        "mode_collapse",
        f"{m['lost']:.0%} of the real examples have no sample near them; samples are {m['diversity']:.2f} times as far "
        f"apart as real examples; {m['duplicates']:.0%} of the samples nearly repeat another one (of real ones "
        f"{m['duplicates_real']:.0%})",
        f"{LOST:.0%} lost, and at least {CONCENTRATED:.0%} of those that are not covered, or {DIVERSITY} times as far "
        f"apart, unless D recognizes samples far from the data; or {DUPLICATES:.0%} more repeated than among real "
        "examples",
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
    if not bad(m) or m.get("pairs", 0) < PERFECT or m.get("lead", 1) < LEAD or vanishing_gradients(m):
        return None
    return Finding(
        "d_too_strong",
        f"D ranks {m['pairs']:.1%} of the pairs of a real and a generated example correctly, and the difference of its "
        f"mean logits for the two is still {m.get('lead', 1):.2f} times the greatest one: G does not keep up",
        f"{PERFECT:.0%} (the equilibrium is 50%), and {LEAD} times the greatest difference",
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


def too_early(m: Numbers) -> Finding:
    return Finding(
        "too_early",
        f"after {m['steps']:,.0f} steps, in which D was shown {m.get('epochs', 1):.2g} times as many real examples as "
        "there are, it is too early to say whether samples will improve",
        f"{FEWEST} steps, and each training example shown once or {ENOUGH:,} steps",
        "bad samples are normal before D has seen the data",
    )


Rule = Callable[[Numbers], Finding | None]

ALWAYS: tuple[Rule, ...] = (divergence, memorization)  # found in runs of any length
LATER: tuple[Rule, ...] = (  # what happened to the samples, and then why
    mode_collapse,
    vanishing_gradients,
    flipped_labels,
    oscillation,
    d_blind,
    d_too_strong,
)


def findings(m: Numbers) -> tuple[Finding, ...]:
    """All findings, the most important first."""
    long_enough = evidence(m)
    found = [finding for rule in (*ALWAYS, *(LATER if long_enough else ())) if (finding := rule(m)) is not None]
    if not found and (bad(m) or "energy" not in m) and not long_enough:
        return (too_early(m),)
    if not found and (last := not_converged(m)) is not None:
        return (last,)
    return tuple(found)
