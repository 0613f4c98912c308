"""One evaluation of a run: metrics, their pictures, and the diagnosis, from the same samples."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from ganrun.config import Config
from ganrun.diagnosis import measure
from ganrun.diagnosis.diagnosis import Diagnosis, diagnose
from ganrun.diagnosis.remedy import Setup
from ganrun.figures.grid import grid
from ganrun.protocols import DFunction, MetricKey, Networks
from ganrun.training.randomness import seeded
from ganrun.training.run import Run
from ganrun.training.sampling import check_memory, chunk_size, d_logits, draw, evaluating, labels_like, mixes_samples


class Evaluation:
    """An evaluation of a run's samples: a function of its weights and the seed. Samples are drawn when first needed.

    seed: of the latents; None: the seed of the run. ema: whether to sample from G_ema, if the run has one.
    """

    def __init__(self, run: Run, seed: int | None = None, ema: bool = True) -> None:
        self.run, self.seed = run, run.seed if seed is None else seed
        self.G = run.sampler if ema else run.G

    @cached_property
    def samples(self) -> tuple[Tensor, Tensor | None]:
        """As many samples as the metrics need, (n, *shape) on the CPU, and their labels (n,) or None."""
        return self._draw(max(metric.num for metric in self.run.metrics.values()))

    @cached_property
    def _diagnosed(self) -> tuple[Tensor, float | None]:
        """Samples for the diagnosis, of which large images are reduced, and the relative slope of G's loss there."""
        samples, y = self._diagnosed_samples()
        return measure.reduced(samples), self._slope(samples, y) if samples.isfinite().all() else None

    def _diagnosed_samples(self) -> tuple[Tensor, Tensor | None]:
        """The first of `samples` if there are enough for the diagnosis, else new ones."""
        num = measure.NUM
        if not self.run.metrics or len(self.samples[0]) < num:
            return self._draw(num)
        samples, y = self.samples
        return samples[:num], None if y is None else y[:num]

    def _draw(self, num: int) -> tuple[Tensor, Tensor | None]:
        run = self.run
        shape = run.dataset.spec.shape
        check_memory(num, shape)
        y = labels_like(run.dataset.train, num, self.seed) if run.condition.uses_labels else None
        return draw(self.G, run.latent, num, run.device, self.seed, y, chunk_size(shape)), y

    def metrics(self) -> dict[str, float]:
        """All metrics of the run, as plain floats, which a checkpoint can hold."""
        run = self.run
        D = DFunction(self._d_logits, run.loss.logistic, mixes_samples(run.D))
        found: dict[str, float] = {}
        for metric in run.metrics.values():
            samples, y = self.samples
            more: dict[str, Any] = {"D": D} if metric.needs_d else {}
            more |= {"networks": self._networks} if metric.needs_networks else {}
            more |= {} if metric.labels == "unused" else {"y": y}
            with self._guarded() if metric.needs_networks else nullcontext():
                found |= {key: float(value) for key, value in metric(samples, run.dataset, **more).items()}
        return found

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Networks in eval mode, without gradients, and a random state of its own, for a metric that gets them."""
        with evaluating(self.run.D), evaluating(self.G), seeded(self.run.device, self.seed, "metric"):
            yield

    @cached_property
    def _networks(self) -> Networks:
        run = self.run

        def new_d(seed: int) -> nn.Module:
            with seeded(run.device, seed, "untrained D"):
                return run.new_d().eval()

        return Networks(self.G, run.D, run.latent, run.condition.uses_labels, new_d)

    def galleries(self) -> dict[str, np.ndarray]:
        """The pictures of the metrics that have one, uint8 (H, W, 3), by the metric's name."""
        run, found = self.run, {}
        for name, metric in run.metrics.items():
            if gallery := metric.gallery(self.samples[0], run.dataset):
                found[name] = grid(run.dataset.spec.encode(gallery.images), gallery.columns, gallery.apart)
        return found

    def diagnosis(
        self, rows: Iterable[dict[str, Any]], config: Config, overrides: Sequence[str], diverged: bool = False
    ) -> Diagnosis:
        """rows: of metrics.jsonl. overrides: of the run's command line. diverged: whether the run has diverged."""
        run = self.run
        samples, slope = self._diagnosed
        measurements = measure.measure(
            samples, run.dataset, rows, self.seed, run.options.batch_size, run.options.label_noise, diverged, slope
        )
        return diagnose(measurements, setup_of(run, config), overrides)

    def _slope(self, samples: Tensor, y: Tensor | None) -> float | None:
        """The relative slope of G's loss at D's logits for `samples`, with D's logits for as many real examples."""
        run = self.run
        num = max(measure.NUM_SEARCHED, run.options.batch_size if mixes_samples(run.D) else 0)  # a whole batch
        real = run.dataset.train[: min(len(samples), num)]
        num = len(real)
        x = run.dataset.spec.decode(real.x.to(run.device))
        fake_logits = self._d_logits(samples[:num], None if y is None else y[:num])
        real_logits = self._d_logits(x, None if y is None else real.y)
        return measure.relative_slope(run.loss, fake_logits, real_logits)

    def _d_logits(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return d_logits(self.run.D, x, self.run.device, self.run.options.batch_size, y)


def protocols(run: Run) -> dict[str, dict[str, Any]]:
    """How the last values of the metrics were computed, for those that say so: {"fidelity_mnistcnn_10k": {...}}."""
    return {
        f"{name}_{end}": dict(facts) for name, metric in run.metrics.items() for end, facts in metric.protocol().items()
    }


def setup_of(run: Run, config: Config) -> Setup:
    return Setup(config, run.loss, list(run.penalties.values()), run.dataset.spec.is_image)


def metric_keys(run: Run) -> dict[str, MetricKey]:
    """The declared keys of all metrics of the run."""
    found: dict[str, MetricKey] = {}
    for metric in run.metrics.values():
        found |= metric.keys(run.dataset.spec, run.loss.logistic)
    return found
