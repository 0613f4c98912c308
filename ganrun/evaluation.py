"""The metrics of a run, taken together on the same samples."""

import inspect
from typing import Any

from ganrun.best import Measured
from ganrun.run import Run
from ganrun.sampling import draw, judge, labels_like


def evaluate(run: Run, seed: int | None = None) -> dict[str, Any]:
    """All metrics of the run, on samples that are a function of the weights and the seed (None: that of the run)."""
    return {key: value for values in evaluate_each(run, seed).values() for key, value in values.items()}


def evaluate_each(run: Run, seed: int | None = None) -> Measured:
    """What each metric finds, by its name.

    A metric is given, beside samples and dataset, what its signature names: `judge`, D's logits of samples, and whether
    the loss is `logistic`.
    """
    if not run.metrics:
        return {}
    num = max(metric.num for metric in run.metrics.values())
    seed = run.seed if seed is None else seed
    y = None if run.condition is None else labels_like(run.dataset.train, num, seed)
    samples = draw(run.sampler, run.latent, num, run.device, seed, y)
    facts = {"judge": lambda x: judge(run.D, x, run.device), "logistic": getattr(run.loss, "logistic", False)}
    found: Measured = {}
    for name, metric in run.metrics.items():
        named = inspect.signature(metric).parameters
        found[name] = metric(samples, run.dataset, **{key: fact for key, fact in facts.items() if key in named})
    return found
