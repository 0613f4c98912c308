"""The adaptive probability of ADA."""

from pathlib import Path

import pytest
import torch
from helpers import images
from torch import Tensor

from ganrun.augment import ADA, DiffAugment


def test_p_changes_at_the_published_rate() -> None:
    ada = ADA(target=0.6, speed_kimg=500, every=4)
    for _ in range(8):
        ada.observe(torch.full((64,), 3.0))  # D is confident
    assert ada.p.item() == pytest.approx(2 * 64 * 4 / 500_000, rel=1e-5)
    for _ in range(4):
        ada.observe(torch.cat([torch.ones(40), -torch.ones(24)]))  # r = 16 / 64
    assert ada.p.item() == pytest.approx(64 * 4 / 500_000, rel=1e-5)


def test_p_changes_every_few_updates_by_their_mean() -> None:
    ada = ADA(target=0.5, speed_kimg=1, every=4, p=0.5)
    for logits, p in [(-1.0, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.5)]:  # r = .5: equals the target, so p is unchanged
        ada.observe(torch.full((10,), logits))
        assert ada.p.item() == p
    for p in (0.5, 0.5, 0.5, 0.54):
        ada.observe(torch.ones(10))
        assert ada.p.item() == pytest.approx(p)


def test_p_is_clipped() -> None:
    ada = ADA(speed_kimg=0.1, every=1)
    for _ in range(3):
        ada.observe(-torch.ones(64))
    assert ada.p.item() == 0
    for _ in range(3):
        ada.observe(torch.ones(64))
    assert ada.p.item() == 1
    assert ADA(p=1.0)(images(2)).isfinite().all()


def test_p_is_the_share_of_samples_transformed() -> None:
    torch.manual_seed(0)
    x = images(4000, 1, 2)
    for name, p in (("brightness", 0.3), ("rotate", 0.3)):  # applied if either of two rotations is
        changed = (ADA(p=p, transforms=[name])(x) != x).flatten(1).any(1)
        assert changed.float().mean().item() == pytest.approx(p, abs=0.03)


def test_saved_ada_resumes_exactly(tmp_path: Path) -> None:
    logits, whole, saved = [torch.randn(16) + 2 for _ in range(23)], ADA(speed_kimg=1), ADA(speed_kimg=1)
    for part in logits:
        whole.observe(part)
    for part in logits[:10]:  # saved between two changes of p
        saved.observe(part)
    torch.save(saved.state_dict(), tmp_path / "ada.pt")
    resumed = ADA(speed_kimg=1)
    resumed.load_state_dict(torch.load(tmp_path / "ada.pt", weights_only=True))
    for part in logits[10:]:
        resumed.observe(part)
    assert whole.p > 0
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), resumed.buffers(), strict=True))
    x = images(8)
    torch.manual_seed(0)
    first = whole(x)
    torch.manual_seed(0)
    assert torch.equal(first, resumed(x))


def test_observe_builds_no_graph_and_does_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*_: object) -> None:
        raise AssertionError("a value was read from the device")

    ada, logits = ADA(every=1), torch.ones(4, requires_grad=True)
    for method in ("item", "__bool__", "__float__", "__int__", "tolist"):
        monkeypatch.setattr(Tensor, method, waits)
    ada.observe(logits)
    ada(images(2))
    assert not ada.p.requires_grad
    DiffAugment().observe(logits)
