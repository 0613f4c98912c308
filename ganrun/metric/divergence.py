"""The Jensen-Shannon divergence from data of known density, in one or two dimensions."""

from collections.abc import Mapping

from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.metric.densities import Cells, jensen_shannon
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey


class Divergence(Metric):
    """The Jensen-Shannon divergence of `num` samples from the data, in nats: from 0 to log 2 = 0.693.

    The generator of Goodfellow et al. 2014 minimizes it, since V(D*, G) = -log 4 + 2 JSD (Theorem 1). It is computed
    for `bins` cells along each dimension, which cover 5 standard deviations around the mean, or around all modes;
    everything outside is one more cell. With the default settings a perfect generator has .0003 on the ring, .0012 on
    the grid and .0074 on the spiral, not 0: see `densities.jensen_shannon`.
    Kullback-Leibler divergences are not computed: empty cells make one of them infinite, and a single sample far from
    the data dominates the other. `check` raises ValueError for data without a known density.
    """

    def __init__(self, num: int = 100000, bins: int = 128) -> None:
        for name, value in (("num", num), ("bins", bins)):
            if value < 2:
                raise ValueError(f"{name}={value}: must be at least 2.")
        self.num, self.bins = num, bins

    def check(self, dataset: Dataset) -> None:
        if dataset.distribution is None or dataset.spec.shape not in ((1,), (2,)):
            raise ValueError("metric=divergence: needs one- or two-dimensional data of known density; use metric=none.")

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        return {self._key(spec.numel, self.num): MetricKey("lower", unit="nats")}

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        assert dataset.distribution is not None, "check() comes first"
        x = samples[: self.num]
        cells = Cells.around(dataset.distribution, self.bins)
        divergence = jensen_shannon(cells.mass(dataset.distribution), cells.share(x))
        return {self._key(cells.dim, len(x)): divergence}

    def _key(self, dim: int, num: int) -> str:
        return f"jsd_{'x'.join([str(self.bins)] * dim)}bins_{count(num)}"
