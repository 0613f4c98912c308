"""The pictures that metrics draw."""

import numpy as np

from ganrun.figures.grid import grid
from ganrun.run import Run
from ganrun.sampling import draw, labels_like


def galleries(run: Run, seed: int | None = None) -> dict[str, np.ndarray]:
    """By the name of each metric that has a picture to show: an image (H, W, 3) of uint8.

    Such a metric has a method `gallery(samples, dataset)`, which returns images (N, C, H, W) in the data's value range,
    in how many columns they stand and, if any, how many columns at the right are set apart. The samples are those that
    `loop.evaluate` takes the metrics of.
    """
    showing = {name: metric for name, metric in run.metrics.items() if hasattr(metric, "gallery")}
    if not showing:
        return {}
    num, seed = max(metric.num for metric in run.metrics.values()), run.seed if seed is None else seed
    y = None if run.condition is None else labels_like(run.dataset.train, num, seed)
    samples = draw(run.sampler, run.latent, num, run.device, seed, y)
    shown = {name: metric.gallery(samples, run.dataset) for name, metric in showing.items()}
    return {name: grid(run.dataset.spec.encode(images), *layout) for name, (images, *layout) in shown.items()}
