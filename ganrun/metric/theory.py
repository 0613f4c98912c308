"""The value function of Goodfellow et al. 2014, for the trained D and for the optimal one."""

from collections.abc import Mapping

from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec
from ganrun.metric.densities import LOG4, Cells, jensen_shannon_distance, optimal_value, value, wasserstein
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey

BINS = {1: 200, 2: 128}  # along each dimension


class Theory(Metric):
    """The value V(D, G) and its optimum, from D and `num` samples of G, for data of known density.

    With a logistic loss, in nats (Equation 1, Proposition 1, Theorem 1; see `ganrun.metric.densities`):
    - value: V(D, G) of the trained D, with the expectation over the data as an integral;
    - value_of_optimal_d: V(D*, G) = -log 4 + 2 JSD, the maximum of value, up to the error of this estimate;
    - value_true: -log 4, the value of both if G has the density of the data;
    - js_distance: sqrt(JSD), from 0 to .8326.
    The samples are those of G_ema, if there is one, although D is trained against G. The expectation over the data is a
    mean over training examples instead if D mixes samples, since its logits then depend on the batch.
    With any other loss, in one dimension: w1, the true Wasserstein-1 distance in the data's units, and critic_w1, the
    critic's estimate E_data[f] - E_g[f], which is at most K * w1 for a critic with Lipschitz constant K.
    `check` raises ValueError for data without a known density in one or two dimensions.
    """

    needs_d = True

    def __init__(self, num: int = 20000) -> None:
        if num < 2:
            raise ValueError(f"num={num}: must be at least 2.")
        self.num = num

    def check(self, dataset: Dataset) -> None:
        if dataset.distribution is None or dataset.spec.shape not in ((1,), (2,)):
            raise ValueError("metric=theory: needs one- or two-dimensional data of known density; use metric=none.")

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        n = count(self.num)
        if logistic:
            return {
                f"value_{n}": MetricKey(unit="nats", true="value_true"),
                f"value_of_optimal_d_{n}": MetricKey(unit="nats", true="value_of_optimal_d_true"),
                f"js_distance_{n}": MetricKey("lower"),
            }
        return {f"w1_{n}": MetricKey("lower", unit="data"), f"critic_w1_{n}": MetricKey()} if spec.numel == 1 else {}

    def __call__(self, samples: Tensor, dataset: Dataset, D: DFunction | None = None) -> dict[str, float]:
        truth = dataset.distribution
        assert truth is not None, "check() comes first"
        assert D is not None, "declared by needs_d"
        x, n = samples[: self.num], count(min(self.num, len(samples)))
        cells = Cells.around(truth, BINS[dataset.spec.shape[0]])
        mass = cells.mass(truth)
        if D.mixes_samples:
            real_logits, real_mass = D.logits(dataset.spec.decode(dataset.train[: self.num].x)), None
        else:
            real_logits, real_mass = D.logits(cells.centers().reshape(-1, cells.dim).float()), mass
        fake_logits = D.logits(x)
        if D.logistic:
            share = cells.share(x)
            return {
                f"value_{n}": value(real_logits, fake_logits, real_mass),
                f"value_of_optimal_d_{n}": optimal_value(mass, share),
                "value_true": -LOG4,
                "value_of_optimal_d_true": -LOG4,
                f"js_distance_{n}": jensen_shannon_distance(mass, share),
            }
        if cells.dim > 1:
            return {}
        of_data = real_logits.double().mean() if real_mass is None else (mass * real_logits.double()).sum() / mass.sum()
        estimate = of_data - fake_logits.double().mean()
        return {f"w1_{n}": wasserstein(x, truth), f"critic_w1_{n}": estimate.item()}
