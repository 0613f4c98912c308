"""Shares of ordered pairs, against the comparison of all pairs."""

import pytest
import torch
from helpers import PeakBytes
from torch import Tensor

from ganrun.metric.ranks import share_above
from ganrun.training.updates import DUpdate


def by_all_pairs(a: Tensor, b: Tensor) -> Tensor:
    return (torch.sign(a[:, None] - b).mean() + 1) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (64, 64), (200, 200), (37, 501), (2048, 2048)])
def test_pairs_counted_by_sorting_give_the_same_bits_as_all_pairs(n: int, m: int, dtype: torch.dtype) -> None:
    a, b = torch.randn(n, dtype=dtype), torch.randn(m, dtype=dtype)
    for x, y in ((a, b), (a.round(), b.round()), (a, 1e-40 * b), (torch.zeros(n), torch.zeros(m))):
        assert torch.equal(share_above(x, y), by_all_pairs(x, y))


def test_ties_count_one_half_and_order_does_not_matter() -> None:
    a = torch.tensor([2.0, 0.0, 1.0, 1.0])
    assert share_above(a, torch.tensor([1.0])).item() == (1 + 0 + 0.5 + 0.5) / 4
    assert share_above(a, a.flip(0)).item() == 0.5


def test_logits_that_need_gradients_or_are_not_contiguous_are_counted() -> None:
    a = torch.arange(6.0).requires_grad_()
    assert share_above(a[::2], a[1::2]).item() == pytest.approx(1 / 3)
    assert not share_above(a, a).requires_grad


def test_a_large_batch_needs_no_matrix_of_pairs() -> None:
    logits = torch.randn(2, 20_000)
    update = DUpdate(logits.mean(), logits[0], logits[1], {}, [logits], logistic=True)
    with PeakBytes() as memory:
        accuracy = update.accuracy()
    assert memory.peak < 100 * logits[0].nbytes
    assert accuracy["accuracy/pairs"].item() == pytest.approx(0.5, abs=0.01)
