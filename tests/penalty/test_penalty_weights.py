"""Penalties on D's weights: orthogonality, against values computed by hand, and clipping."""

import pytest
import torch
from helpers import run_of
from torch import Tensor, nn

from ganrun.penalty.weights import Orthogonal, WeightClip
from ganrun.training.game import Game

X = torch.zeros(1, 2)


def test_orthogonal_rows_of_any_length_have_zero_penalty() -> None:
    D = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 4, 2), nn.ConvTranspose2d(4, 3, 2))
    with torch.no_grad():
        nn.init.orthogonal_(D[0].weight)
        nn.init.orthogonal_(D[1].weight).mul_(3)
        rows = torch.linalg.qr(torch.randn(16, 3)).Q.T  # (out, in * kernel)
        D[2].weight.copy_(rows.view(3, 4, 2, 2).transpose(0, 1))
    assert Orthogonal(weight=1).term(D, X, X, None).item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        D[0].weight[0] = D[0].weight[1]
    assert Orthogonal(weight=1).term(D, X, X, None).item() == pytest.approx(2, rel=1e-5)


def test_orthogonal_by_hand() -> None:
    """Rows are output units. Common bugs: columns, or subtracting the identity, which also fixes the norms."""
    D = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Embedding(4, 3), nn.LayerNorm(3))
    W = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])  # the dot product of the rows is 1
    with torch.no_grad():
        D[0].weight.copy_(W)
    term = Orthogonal(weight=0.25).term(D, X, X, None)
    assert term.item() == pytest.approx(0.25 * (1 + 1))
    gradients = torch.autograd.grad(term, list(D.parameters()), allow_unused=True)
    gram = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert torch.allclose(gradients[0], 0.25 * 4 * gram @ W)
    assert all(g is None for g in gradients[1:])


def test_orthogonal_with_groups_and_spectral_norm() -> None:
    """Common bug: reading a weight with spectral norm runs an additional power iteration."""
    x = torch.randn(1, 4, 1)
    for grouped in (nn.ConvTranspose1d(4, 6, 1, groups=2), nn.Conv1d(4, 6, 1, groups=2)):
        W = torch.autograd.functional.jacobian(lambda v, f=grouped: f(v)[0, :, 0], x)[:, 0, :, 0]  # (6, 4)
        gram = W @ W.T
        expected = (gram - gram.diag().diag()).square().sum().item()
        assert Orthogonal(weight=1).term(grouped, X, X, None).item() == pytest.approx(expected)
    plain = nn.Linear(3, 2)
    expected = Orthogonal(weight=1).term(plain, X, X, None).item()
    normed = nn.utils.parametrizations.spectral_norm(plain)
    before = {name: value.clone() for name, value in normed.state_dict().items()}
    assert Orthogonal(weight=1).term(normed, X, X, None).item() == pytest.approx(expected)
    assert all(torch.equal(before[name], value) for name, value in normed.state_dict().items())


def test_clipping_excludes_norm_layers() -> None:
    """Common bug: clipping the scales of batch norm to 0.01, which switches the layers off."""
    D = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    with torch.no_grad():
        for weight in D.parameters():
            weight.copy_(torch.linspace(-1, 1, weight.numel()).view_as(weight))
    before = [p.clone() for layer in D[1:4] for p in layer.parameters()]
    penalty = WeightClip(bound=0.01)
    assert not penalty.has_term
    penalty.project(D)
    for layer in (D[0], D[4]):
        for weight in layer.parameters():
            assert weight.abs().max() <= 0.01
    assert D[0].weight.max().item() == pytest.approx(0.01)
    assert all(torch.equal(a, b) for a, b in zip(before, [p for x in D[1:4] for p in x.parameters()], strict=True))


def test_clipping_follows_every_critic_step() -> None:
    """Common bug: clipping once per update of G, before or after all k critic updates."""
    run = run_of("loss=wgan", "train.n_critic=3", "optimizer.lr=0.1")
    largest: list[Tensor] = []
    run.D.register_forward_pre_hook(lambda D, _: largest.append(max(p.abs().max() for p in D.parameters())))
    game = Game(run)
    game.step(0)
    game.step(1)
    assert all(value <= 0.01 for value in largest[1:])
    assert len(largest) == 2 * (3 + 1)
