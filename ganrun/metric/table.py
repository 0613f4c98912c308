"""How close samples of a table are to real rows: columns, pairs of columns, and classifiers."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.metric.association import association_error, associations, marginal_distances
from ganrun.metric.keys import count
from ganrun.protocols import DFunction, Metric, MetricKey

FOLDS = 3  # of the cross-validation of a classifier that tells samples from real rows
FEWEST = 10  # rows on each side
MOST_CLASSIFIED = 2000  # rows on each side, for classifiers, which bounds their time
SCORES = {  # which values are better
    "ks_mean": "lower", "ks_worst": "lower", "tv_mean": "lower", "tv_worst": "lower", "association": "lower",
    "detect_lr": "lower", "detect_gb": "lower", "train_on_samples_lr": "higher", "train_on_samples_gb": "higher",
}  # fmt: skip


class Table(Metric):
    """Scores of `num` samples of a table against real rows. Keys end in the number of samples, as in ks_mean_1k.

    Samples are first decoded and encoded again, so that they are what `ganrun sample` writes: rounded numbers, and one
    category. Real rows are those of a split.
    - ks_mean, ks_worst: the Kolmogorov-Smirnov distance of a column of numbers, in [0, 1]: mean, and worst column;
    - tv_mean, tv_worst: the total variation distance of a column of categories, and of whether numbers are missing;
    - association: the mean absolute difference, over pairs of columns, of their correlation (two numbers), Cramer's V
      (two categories) or correlation ratio, all in the scale of the training form;
    - detect_lr, detect_gb: the AUROC of a classifier that tells samples from real rows, as many of each and at most
      2,000, by threefold cross-validation: .5 if it cannot, 1 if they are easily told apart. lr: logistic regression;
      gb: gradient boosting (Lopez-Paz and Oquab 2017, arXiv:1610.06545, with AUROC in place of accuracy);
    - train_on_samples_lr, _gb, for conditional runs: a classifier of the label is trained on the samples, and tested on
      real rows: the AUROC of each class against the others, on average (Esteban et al. 2017, arXiv:1706.02633, TSTR).
    Beside each is _floor (_real for train_on_samples): the same for as many training rows, drawn with a fixed seed, in
    place of the samples; with split=train, for validation rows. result.json has the distance of each column.
    `check` raises ValueError for data that are no table, and for a split with too few rows.
    """

    labels: Literal["unused", "optional", "required"] = "optional"

    def __init__(
        self, num: int = 1000, split: Literal["valid", "train", "test"] = "valid", num_real: int | None = 10000
    ) -> None:
        for name, value in (("num", num), ("num_real", num_real)):
            if value is not None and value < FEWEST:
                raise ValueError(f"{name}={value}: must be at least {FEWEST}.")
        self.num, self.split, self.num_real = num, split, num_real
        self._floors: tuple[Dataset, int, bool, dict[str, float]] | None = None
        self._protocol: dict[str, dict[str, Any]] = {}

    def check(self, dataset: Dataset) -> None:
        if dataset.spec.form is None:
            raise ValueError("metric=table: needs a table, as of data=table; use metric=none.")
        if (rows := len(dataset.splits()[self.split])) < FEWEST:
            raise ValueError(
                f"metric=table: has {rows} {self.split} rows to compare with, and needs at least {FEWEST}; choose "
                f"another split, as in metric.table.split=train, or hold out more rows with data.{self.split}."
            )

    def keys(self, spec: DataSpec, logistic: bool) -> Mapping[str, MetricKey]:
        from_test, found = self.split == "test", {}
        for score in self._scores(spec):
            name = f"{score}_{count(self.num)}"
            better: Any = SCORES[score]
            found[name] = MetricKey(better, from_test=from_test)
            found[f"{name}_{_reference(score)}"] = MetricKey(from_test=from_test, about=name)
        return found

    def _scores(self, spec: DataSpec) -> list[str]:
        form = spec.form
        assert form is not None, "checked before"
        has = {
            "ks": bool(form.numbers),
            "tv": bool(form.blocks),
            "association": len(form.columns) > 1,
            "train": spec.num_classes > 1,
        }
        return [score for score in SCORES if has.get(score.partition("_")[0], True)]

    def __call__(
        self, samples: Tensor, dataset: Dataset, D: DFunction | None = None, y: Tensor | None = None
    ) -> dict[str, float]:
        """samples (n, width); the first `num` count. y (n,): their classes in a conditional run."""
        form = dataset.spec.form
        assert form is not None, "checked before"
        samples, own = samples[: self.num], None if y is None else y[: self.num].cpu()
        finite, n = samples.isfinite().all(1), count(len(samples))
        if int(finite.sum()) < FEWEST:
            return {f"{score}_{n}": math.nan for score in self._scores(dataset.spec)}
        x, own = form.as_written(samples[finite]), None if own is None else own[finite]
        real = dataset.splits()[self.split][: self.num_real]
        found = compared(Split(x, own), real, dataset.spec)
        floors, columns = self._floors_of(dataset, real, len(x), own is not None), marginal_distances(x, real.x, form)
        self._protocol = {n: {"split": self.split, "num": len(x), "num_real": len(real), "folds": FOLDS,
                              "ks": columns[0], "tv": columns[1]}}  # fmt: skip
        values = {f"{score}_{n}": value for score, value in found.items()}
        return values | {f"{score}_{n}_{_reference(score)}": value for score, value in floors.items()}

    def _floors_of(self, dataset: Dataset, real: Split, num: int, labels: bool) -> dict[str, float]:
        """The scores of real rows of another split in place of `num` samples; empty if there are too few."""
        if self._floors is None or self._floors[0] is not dataset or self._floors[1:3] != (num, labels):
            split = dataset.splits()["valid" if self.split == "train" else "train"]
            chosen = split[torch.from_numpy(np.random.RandomState(0).permutation(len(split))[:num])]
            chosen = chosen if labels else Split(chosen.x)
            floors = compared(chosen, real, dataset.spec) if len(chosen) >= FEWEST else {}
            self._floors = dataset, num, labels, floors
        return self._floors[3]

    def protocol(self) -> dict[str, dict[str, Any]]:
        return self._protocol


def compared(rows: Split, real: Split, spec: DataSpec) -> dict[str, float]:
    """All scores of rows, with labels or without, against real ones."""
    form = spec.form
    assert form is not None, "checked before"
    ks, tv = marginal_distances(rows.x, real.x, form)
    found: dict[str, float] = {}
    for name, distances in (("ks", ks), ("tv", tv)):
        if distances:
            found[f"{name}_mean"] = float(np.mean([*distances.values()]))
            found[f"{name}_worst"] = max(distances.values())
    if len(form.columns) > 1:
        found["association"] = association_error(associations(rows.x, form), associations(real.x, form))
    for name, make in CLASSIFIERS.items():
        found[f"detect_{name}"] = detection(rows.x, real.x, make)
    if rows.y is not None and real.y is not None:
        for name, make in CLASSIFIERS.items():
            found[f"train_on_samples_{name}"] = transfer(rows, real, make)
    return found


def _reference(score: str) -> str:
    return "floor" if SCORES[score] == "lower" else "real"


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _boosting() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier  # on one core, unlike HistGradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=50, random_state=0)


CLASSIFIERS: dict[str, Callable[[], Any]] = {"lr": _logistic, "gb": _boosting}


def detection(samples: Tensor, real: Tensor, make: Callable[[], Any]) -> float:
    """The AUROC of a classifier that tells samples (n, d) from real rows (m, d), equally many of each."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    num = min(len(samples), len(real), MOST_CLASSIFIED)
    x = torch.cat([samples[:num], real[:num].cpu()]).double().numpy()
    is_real = np.repeat([0, 1], num)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a logistic regression that has not converged
        scores = cross_val_predict(make(), x, is_real, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(is_real, scores))


def transfer(train: Split, test: Split, make: Callable[[], Any]) -> float:
    """The AUROC of each class against the others, on average, of a classifier that is trained on other rows.

    A class that the training rows lack counts as .5, and so do all if they have one class only. Classes of all or none
    of the test rows do not count.
    """
    from sklearn.metrics import roc_auc_score

    train = train[:MOST_CLASSIFIED]
    assert train.y is not None, "given"
    assert test.y is not None, "given"
    y, true = train.y.cpu().numpy(), test.y.cpu().numpy()
    counted = [k for k in np.unique(true) if 0 < (true == k).sum() < len(true)]
    if len(np.unique(y)) < 2 or not counted:
        return 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make().fit(train.x.double().cpu().numpy(), y)
        scores = model.predict_proba(test.x.double().cpu().numpy())
    place = {k: i for i, k in enumerate(model.classes_)}
    found = [float(roc_auc_score(true == k, scores[:, place[k]])) if k in place else 0.5 for k in counted]
    return float(np.mean(found))
