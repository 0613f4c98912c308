"""The Dirac-GAN of Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406: plain losses orbit, R1 converges.

The data is a point at 0, G gives theta, and D(x) = psi * x. The logistic loss f(t) = -log(1 + e^-t) has f'(0) = 1/2.
At (theta, psi) = 0 the gradient field's Jacobian is [[0, -1/2], [1/2, -gamma]], with the eigenvalues
-gamma/2 +- sqrt(gamma^2/4 - 1/4).
"""

import cmath
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ganrun.loss import NonSaturating
from ganrun.penalty import R1


def play_dirac(gamma: float, lr: float, steps: int) -> list[float]:
    """Simultaneous gradient descent from (0.01, 0.01). Returns log(distance from 0) before each step."""
    D = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    theta = torch.full((1, 1), 0.01, dtype=torch.float64, requires_grad=True)
    nn.init.constant_(D.weight, 0.01)
    loss, penalty, real = NonSaturating(), R1(gamma), torch.zeros(1, 1, dtype=torch.float64)
    judge = lambda x, y: D(x).squeeze(1)  # noqa: E731
    path = []
    for _ in range(steps):
        path.append(math.log(math.hypot(theta.item(), D.weight.item())))
        fake_logits = judge(theta, None)
        d_loss = loss.d_loss(judge(real, None), fake_logits)
        if (term := penalty.term(judge, real, theta.detach(), None)) is not None:
            d_loss = d_loss + term
        (d_psi,) = torch.autograd.grad(d_loss, D.weight, retain_graph=True)
        (d_theta,) = torch.autograd.grad(loss.g_loss(fake_logits), theta)
        with torch.no_grad():
            D.weight -= lr * d_psi
            theta -= lr * d_theta
    return path


def test_dirac_gan_orbits_without_a_penalty() -> None:
    """The distance from the solution never shrinks; the step size makes it grow, by lr^2 f'(0)^2 / 2 a step."""
    path = play_dirac(gamma=0, lr=0.05, steps=600)
    assert all(later >= earlier for earlier, later in pairwise(path))
    assert (path[-1] - path[0]) / 599 == pytest.approx(0.05**2 / 8, rel=0.01)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_dirac_gan_converges_with_r1_at_the_rate_of_the_theory(gamma: float) -> None:
    """gamma .5 spirals in at gamma/2; 2 creeps in along the slow eigenvector. Public mistake: gamma for gamma/2."""
    root = cmath.sqrt(gamma**2 / 4 - 1 / 4)
    slow = max((-gamma / 2 + root).real, (-gamma / 2 - root).real)
    lr = 0.02
    half_turn = round(math.pi / root.imag / lr) if root.imag else 500  # the distance breathes within a half turn
    start = half_turn if root.imag else 500  # after the fast eigenvector has died out
    path = play_dirac(gamma, lr, steps=start + 3 * half_turn + 1)
    rate = (path[-1] - path[start]) / (3 * half_turn * lr)
    assert rate == pytest.approx(slow, rel=0.05)
