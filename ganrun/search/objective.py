"""What a search optimizes: metrics of the runs, each with its direction."""

from collections.abc import Mapping, Sequence

from ganrun.config import Config
from ganrun.protocols import MetricKey
from ganrun.search.options import Direction, SearchOptions
from ganrun.training.best import BETTER
from ganrun.training.build import build
from ganrun.training.evaluation import metric_keys


def declared_keys(configs: Sequence[Config]) -> dict[str, MetricKey]:
    """The metric keys that all these runs have. They are built, which also finds components that do not fit."""
    known = [metric_keys(build(config)) for config in configs]
    return {name: key for name, key in known[0].items() if all(name in others for others in known[1:])}


def objectives(options: SearchOptions, keep_best: str | None, known: Mapping[str, MetricKey]) -> list[str]:
    """The keys of the metrics to optimize. Raises ValueError for one that the runs do not have, or must not choose by.

    keep_best: the metric of train.keep_best. known: the keys of all runs.
    """
    chosen = options.metric if options.metric is not None else keep_best
    if chosen is None:
        raise ValueError(f"search.metric: must be given, as in search.metric=KEY; {choices(known)}.")
    keys = [chosen] if isinstance(chosen, str) else list(chosen)
    for key in keys:
        if key not in known:
            raise ValueError(f"search.metric={key}: is declared by no metric of these runs; {choices(known)}.")
        if known[key].from_test:
            raise ValueError(
                f"search.metric={key}: is computed from test data, which must not choose settings; {choices(known)}."
            )
    return keys


def directions(options: SearchOptions, keys: Sequence[str], known: Mapping[str, MetricKey]) -> list[Direction]:
    """The direction of each metric. Raises ValueError if one is neither given nor declared."""
    given = [options.direction] if isinstance(options.direction, str) else options.direction
    if given is None:
        return [declared_direction(key, known[key]) for key in keys]
    if len(given) != len(keys):
        typed = ",".join(given)
        raise ValueError(
            f"search.direction=[{typed}]: must have one direction for each metric, of which there are {len(keys)}."
        )
    return list(given)


def declared_direction(key: str, properties: MetricKey) -> Direction:
    if properties.better is None:
        raise ValueError(
            f"search.metric={key}: it does not declare whether higher or lower values are better; "
            "add search.direction=minimize or search.direction=maximize."
        )
    return "maximize" if properties.better == "higher" else "minimize"


def choices(known: Mapping[str, MetricKey]) -> str:
    names = [name for name, key in known.items() if key.better in BETTER and not key.from_test]
    if names:
        return f"choose one of {', '.join(names)}"
    return "choose a metric, as in metric=distribution" if not known else "none of their metrics can choose settings"
