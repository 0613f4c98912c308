"""LeCam regularization, against values computed by hand."""

import pytest
import torch
from helpers import Net

from ganrun.penalty.lecam import LeCam


def test_lecam_anchors_by_hand() -> None:
    """Common bugs: the anchors are exchanged, pass gradients, start at 0, or are lost on resume."""
    penalty = LeCam(weight=0.5, decay=0.9)
    real, fake = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([-1.0, 1.0], requires_grad=True)
    first = penalty.logits_term(real, fake)  # anchors 2 and 0
    assert first.item() == pytest.approx(0.5 * ((1 + 9) / 2 + (9 + 1) / 2))
    gradients = torch.autograd.grad(first, (real, fake))
    assert gradients[0].tolist() == pytest.approx([0.5, 1.5])  # 0.5 * 2 (D - a_F) / 2: the anchor is a constant
    assert gradients[1].tolist() == pytest.approx([-1.5, -0.5])
    second = penalty.logits_term(torch.tensor([-4.0, 6.0]), torch.tensor([5.0, 3.0]))  # anchors 1.9 and 0.4
    assert penalty.real_anchor.item() == pytest.approx(0.9 * 2 + 0.1 * 1)
    assert penalty.fake_anchor.item() == pytest.approx(0.9 * 0 + 0.1 * 4)
    assert second.item() == pytest.approx(0.5 * (5.6**2 / 2))  # no cost for real logits below a_F, or fakes above a_R
    assert not penalty.real_anchor.requires_grad


def test_lecam_without_clipping_equals_the_paper() -> None:
    penalty = LeCam(weight=1, clipped=False)
    term = penalty.logits_term(torch.tensor([-1.0, -3.0]), torch.tensor([4.0]))
    assert term.item() == pytest.approx((25 + 49) / 2 + (4 + 2) ** 2)


def test_lecam_resumes() -> None:
    penalty, resumed = LeCam(), LeCam()
    penalty.logits_term(torch.randn(4), torch.randn(4))
    state = penalty.state_dict()
    assert set(state) == {"real_anchor", "fake_anchor", "started"}
    resumed.load_state_dict(state)
    logits = torch.randn(4), torch.randn(4)
    assert torch.equal(penalty.logits_term(*logits), resumed.logits_term(*logits))
    assert all(torch.equal(a, b) for a, b in zip(penalty.buffers(), resumed.buffers(), strict=True))


def test_lecam_uses_only_logits_and_does_not_project() -> None:
    D, real = Net((3,)), torch.zeros(2, 3)
    before = [p.clone() for p in D.parameters()]
    penalty = LeCam()
    assert penalty.has_term
    assert not LeCam(weight=0).has_term
    assert penalty.term(D, real, real, None) is None
    penalty.project(D)
    assert all(torch.equal(a, b) for a, b in zip(before, D.parameters(), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert penalty.logits_term(torch.ones(2).bfloat16(), torch.ones(2).bfloat16()).dtype == torch.float32
