"""The Dirac-GAN of Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406: plain losses orbit, R1 converges.

The data are a point at 0, G(z) = theta, and D(x) = psi * x. Near the solution (theta, psi) = 0 each loss is
c * psi * theta, with c = f'(0) = 1/2 for the logistic f(t) = -log(1 + e^-t), and c = 1 for a linear loss. There the
gradient field's Jacobian is [[0, -c], [c, -gamma]], with the eigenvalues -gamma/2 +- sqrt(gamma^2/4 - c^2).
`test_game_by_hand.py` trains it with `Game`.
"""

import cmath
import math
from itertools import pairwise

import pytest
import torch
from helpers import Bilinear, Dirac

from ganrun.loss import Hinge, Minimax, NonSaturating, Relativistic, RelativisticAverage, Wasserstein
from ganrun.penalty.gradient import R1, R2
from ganrun.protocols import Loss, Penalty

SLOPES = [
    (Minimax(), 0.5),
    (NonSaturating(), 0.5),
    (Relativistic(), 0.5),
    (RelativisticAverage(), 1.0),  # the sum of two terms
    (Wasserstein(), 1.0),
    (Hinge(), 1.0),
]
each_loss = pytest.mark.parametrize(("loss", "slope"), SLOPES, ids=[type(loss).__name__ for loss, _ in SLOPES])


def train_dirac(loss: Loss, penalty: Penalty, lr: float, steps: int) -> list[float]:
    """Simultaneous gradient descent from (0.01, 0.01). Returns log(distance from 0) before each step."""
    D, G = Bilinear(0.01).double(), Dirac(0.01).double()
    real = z = torch.zeros(1, 1, dtype=torch.float64)
    path = []
    for _ in range(steps):
        path.append(math.log(math.hypot(G.theta.item(), D.psi.item())))
        fake = G(z)
        real_logits, fake_logits = D(real), D(fake)
        d_loss = loss.d_loss(real_logits, fake_logits)
        if (term := penalty.term(D, real, fake.detach(), None)) is not None:
            d_loss = d_loss + term
        (d_psi,) = torch.autograd.grad(d_loss, D.psi, retain_graph=True)
        (d_theta,) = torch.autograd.grad(loss.g_loss(fake_logits, real_logits), G.theta)
        with torch.no_grad():
            D.psi -= lr * d_psi
            G.theta -= lr * d_theta
    return path


@pytest.mark.slow
@each_loss
def test_dirac_gan_orbits_without_a_penalty(loss: Loss, slope: float) -> None:
    """The distance from the solution never shrinks. The finite step size increases it by (lr * slope)^2 / 2 per step.

    Common bug: a wrong sign or factor that turns the game into a minimization, which seems to converge.
    """
    path = train_dirac(loss, R1(gamma=0), lr=0.05, steps=600)
    assert all(later >= earlier for earlier, later in pairwise(path))
    assert (path[-1] - path[0]) / 599 == pytest.approx((0.05 * slope) ** 2 / 2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "slope", "kind", "gamma"),
    [
        *[(loss, slope, R1, 0.5) for loss, slope in SLOPES],
        (NonSaturating(), 0.5, R2, 0.5),
        (NonSaturating(), 0.5, R1, 4.0),
        (Wasserstein(), 1.0, R2, 4.0),
    ],
    ids=lambda x: x if isinstance(x, float) else x.__name__ if isinstance(x, type) else type(x).__name__,
)
def test_dirac_gan_converges_with_r1_at_the_theoretical_rate(
    loss: Loss, slope: float, kind: type[R1], gamma: float
) -> None:
    """For gamma .5 a spiral with rate gamma/2, for 4 the slow eigenvector. Common bug: gamma instead of gamma/2."""
    root = cmath.sqrt(gamma**2 / 4 - slope**2)
    slow = max((-gamma / 2 + root).real, (-gamma / 2 - root).real)
    lr = 0.02 if root.imag else 0.01
    half_turn = round(math.pi / root.imag / lr) if root.imag else 500  # the distance oscillates within a half turn
    start = half_turn if root.imag else 500  # after the decay of the fast eigenvector
    path = train_dirac(loss, kind(gamma), lr, steps=start + 3 * half_turn + 1)
    rate = (path[-1] - path[start]) / (3 * half_turn * lr)
    assert rate == pytest.approx(slow, rel=0.05)
