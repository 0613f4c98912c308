"""The conclusion of a report in plain sentences: which setting is better, or that the seeds cannot tell."""

from collections.abc import Sequence

from ganrun.reports.confounds import joined
from ganrun.reports.ranking import Ranking
from ganrun.reports.statistics import Difference
from ganrun.reports.summary import Comparison, Line, Part, formatted

FEW = 2  # settings that are worse are named, more are counted
NAMED = 4  # at most, of the settings that cannot be told from the best


def conclusion(part: Part) -> str:
    """Which setting is the best, and of which others it can be told apart."""
    ranking, lines = part.ranking, part.ranked
    if ranking is None:
        return "There is nothing to rank by yet."
    if not lines:
        return f"No run has a value of {ranking.key} yet."
    best = lines[0]
    if len(lines) == 1:
        alone = f"{best.name}: {ranking.title} is {with_interval(best)}{over(best)}"
        return f"{alone}. There is no other setting with a value."
    if len(best.values) < 2 or all(len(line.values) < 2 for line in lines[1:]):
        return (
            f"One seed cannot tell: {best.name} has the best value of {ranking.key}, {formatted(best.best)}, but the "
            "spread between seeds is not known. Five seeds of each setting, as in 'seed=range(5)', are a start."
        )
    against = [comparison for comparison in part.comparisons if comparison.first is best]
    better = [c for c in against if c.difference and c.difference.is_significant]
    unclear = [c for c in against if c not in better]
    if not better:
        return cannot_tell(best, against[0], unclear, ranking)
    names = joined_names([c.second for c in better])
    if len(better) > FEW:
        others = len(lines) - 1
        names = f"all {others} others" if len(better) == others else f"{len(better)} of the {others} others"
    than = f" than {better[0].second.name}" if len(better) > 1 else ""
    found = f"{best.name} is better than {names}:{than and f' it is better{than}'} by {evidence(better[0], ranking)}."
    if unclear:
        equal = joined_names([c.second for c in unclear])
        found += f" {seeds(best, unclear[0].second)} cannot tell it from {equal}{how_many(unclear[0])}."
    return found


def cannot_tell(best: Line, closest: Comparison, unclear: Sequence[Comparison], ranking: Ranking) -> str:
    others = joined_names([c.second for c in unclear])
    which = f"whether {best.name} or {others}" if len(unclear) == 1 else f"which of {best.name}, {others}"
    found = f"{seeds(best, closest.second)} cannot tell {which} is better"
    if closest.difference is None:
        return f"{found}: too few have a value."
    if not closest.difference.value:
        return f"{found}: the means of {best.name} and {closest.second.name} are equal{how_many(closest)}."
    ahead = f"{best.name} is ahead of {closest.second.name} by {evidence(closest, ranking)}"
    return f"{found}: {ahead}{how_many(closest)}."


def joined_names(lines: Sequence[Line]) -> str:
    names = [line.name for line in lines]
    return joined(names if len(names) <= NAMED else [*names[: NAMED - 1], f"{len(names) - NAMED + 1} others"])


def seeds(first: Line, second: Line) -> str:
    numbers = sorted({len(first.values), len(second.values)})
    return f"{' and '.join(map(str, numbers))} seed{'' if numbers == [1] else 's'}"


def evidence(comparison: Comparison, ranking: Ranking) -> str:
    """By how much the first setting is better, with the interval and the p-value."""
    d = comparison.difference
    assert d is not None, "both settings have several values"
    sign = 1 if ranking.higher else -1
    low, high = sorted(sign * end for end in d.interval)
    return (
        f"{formatted(sign * d.value)} in {ranking.key} (95% interval {formatted(low)} to {formatted(high)}; "
        f"{p_text(d.corrected)}, {test_of(d)})"
    )


def test_of(d: Difference) -> str:
    return f"paired by {d.pairs} seeds" if d.pairs else "Welch's test"


def how_many(comparison: Comparison) -> str:
    """How many seeds would be needed, as the end of a sentence."""
    d = comparison.difference
    if d is None:
        return ""
    if d.needed is None:
        return "; even 10,000 would hardly show so small a difference" if d.value else ""
    enough = max(d.needed, len(comparison.first.values) + 1)
    return f"; about {enough:,} seeds of each would, if the true difference is as large as this one"


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def with_interval(line: Line) -> str:
    mean = line.mean
    assert mean is not None, "it is ranked"
    if mean.interval is None:
        return formatted(mean.value)
    return f"{formatted(mean.value)} [{formatted(mean.interval[0])}, {formatted(mean.interval[1])}]"


def over(line: Line) -> str:
    return f" over {len(line.values)} seeds" if len(line.values) > 1 else " in one seed"
