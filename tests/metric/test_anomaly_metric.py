"""metric=anomaly_auroc: scores whose ranking is known, on held-out classes."""

from typing import Any

import pytest
import torch
from planted import networks_for
from torch import Tensor, nn

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.digits import digits
from ganrun.data.without import without
from ganrun.metric.anomaly import AnomalyAuroc


class Told(nn.Module):
    """A D that knows the answer: its logit and feature are minus and plus the first value of x."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale * x[:, :1]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return -self.scale[0] * x[:, 0]


def planted(gap: float, num: int = 200) -> Dataset:
    """N(0, 1) in class "usual", N(gap, 1) in class "odd", of which there are half as many."""
    random = torch.Generator().manual_seed(0)

    def split() -> Split:
        y = (torch.arange(num) % 3 == 0).long()
        return Split(torch.randn(num, 2, generator=random) + gap * y[:, None], y)

    spec = DataSpec((2,), classes=("usual", "odd"))
    return without(Dataset(spec, split(), split(), split()), ["odd"])


def computed(data: Dataset, **settings: Any) -> dict[str, float]:
    metric = AnomalyAuroc(**{"methods": ["logit", "mahalanobis"], "layers": "last", "num_real": 1000, **settings})
    metric.check(data)
    return metric(torch.zeros(1, 2), data, networks=networks_for(data.spec, Told()))


def test_separate_classes_are_ranked_perfectly() -> None:
    found = computed(planted(gap=20))
    for name in ("logit", "mahalanobis", "combined"):
        assert found[f"anomaly_auroc_{name}_valid_1k"] == pytest.approx(1)
    assert found["anomaly_ap_combined_valid_1k"] == pytest.approx(1)


def test_equal_classes_are_ranked_by_chance() -> None:
    found = computed(planted(gap=0, num=3000))
    for name in ("logit", "mahalanobis", "combined"):
        assert found[f"anomaly_auroc_{name}_valid_1k"] == pytest.approx(0.5, abs=0.05)
        share = found["anomaly_share_valid_1k"]
        assert found[f"anomaly_ap_{name}_valid_1k"] == pytest.approx(share, abs=0.06)
    assert share == 0.5  # 1,000 of each


def test_gaussians_of_known_distance() -> None:
    """AUROC of x for N(0, 1) and N(gap, 1) is Phi(gap / sqrt(2))."""
    found = computed(planted(gap=1, num=6000), methods=["logit"])
    assert found["anomaly_auroc_logit_valid_1k"] == pytest.approx(0.760, abs=0.025)


def test_the_split_chooses_the_examples() -> None:
    data = planted(gap=20)
    assert data.held_out is not None
    data.held_out.test.x.neg_()
    assert computed(data)["anomaly_auroc_logit_valid_1k"] == pytest.approx(1)
    found = computed(data, split="test")
    assert found["anomaly_auroc_logit_test_1k"] == pytest.approx(0)
    assert found["anomaly_auroc_mahalanobis_test_1k"] == pytest.approx(1)


def test_real_examples_that_calibrate_are_not_ranked() -> None:
    data = without(digits(), [3])
    for split in ("valid", "test"):
        metric = AnomalyAuroc(split=split)
        calibrating, real, held_out = metric.groups(data)
        assert not (calibrating[:, None] == real[None]).flatten(2).all(2).any()
        expected = data.valid if split == "valid" else data.test
        assert len(real) == (len(expected) // 2 + len(expected) % 2 if split == "valid" else len(expected))
        assert data.held_out is not None
        assert len(held_out) == len(data.held_out.valid if split == "valid" else data.held_out.test)


def test_the_protocol_says_what_was_ranked() -> None:
    metric = AnomalyAuroc(["logit"], num_real=20)
    data = planted(gap=1)
    metric(torch.zeros(1, 2), data, networks=networks_for(data.spec, Told()))
    facts = metric.protocol()["valid_20"]
    assert facts["held_out"] == ["odd"]
    assert (facts["num_real"], facts["num_calibrating"], facts["num_held_out"]) == (20, 20, 20)


def test_data_without_held_out_classes() -> None:
    with pytest.raises(
        ValueError, match=r"metric=anomaly_auroc: needs classes that are held out of training; add data"
    ):
        AnomalyAuroc().check(digits())
    with pytest.raises(ValueError, match=r"has 0 valid examples .* use another split"):
        AnomalyAuroc().check(without(digits(num_valid=0), [3]))
    with pytest.raises(ValueError, match="num_real=3: must be at least 4"):
        AnomalyAuroc(num_real=3)
