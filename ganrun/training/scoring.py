"""Anomaly scores from the networks and the data of a run."""

from typing import Literal

import torch
from torch import Tensor

from ganrun.anomaly.scores import AnomalyScores
from ganrun.data.dataset import DataSpec, Split
from ganrun.data.seeds import generator
from ganrun.training.run import Run


def fit_scores(
    scores: AnomalyScores,
    run: Run,
    split: Literal["valid", "test"] = "valid",
    num_valid: int = 1000,
    ema: bool = True,
) -> AnomalyScores:
    """`scores`, fitted to the run: compared with its training data, and calibrated on at most `num_valid` of a split.

    ema: whether to reconstruct by G_ema, if there is one. Raises ValueError as `AnomalyScores.fit` does, and for a
    split with fewer than two examples.
    """
    held_out = run.dataset.splits()[split]
    if len(held_out) < 2:
        raise ValueError(
            f"split={split}: has {len(held_out)} examples, and quantiles need two or more; choose another split, or "
            "train with more validation data."
        )
    spec, seed = run.dataset.spec, scores.seed
    train, y = some(run.dataset.train, scores.num_train, spec, seed)
    valid, _ = some(held_out, num_valid, spec, seed)
    known = (spec.num_classes, y) if run.condition.uses_labels else (0, None)
    return scores.fit(run.D, run.sampler if ema else run.G, run.latent, train, valid, *known)


def some(split: Split, most: int, spec: DataSpec, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most `most` examples of a split (0: all), a random choice, in D's form, and their labels, on the CPU."""
    chosen = torch.randperm(len(split), generator=generator(seed, "scoring"))[: most or len(split)]
    found = split[chosen.to(split.x.device)]
    return spec.decode(found.x.cpu()), None if found.y is None else found.y.cpu()
