"""The game of D(x) = psi * x and G(z) = theta with data at 0, trained by `Game` and solved by hand.

With loss=wgan it is bilinear: D minimizes psi * theta and G minimizes -psi * theta. With the learning rate h,
    D's update  psi   <- psi - h * theta    is the matrix [[1, -h], [0, 1]] on (psi, theta),
    G's update  theta <- theta + h * psi    is [[1, 0], [h, 1]],
    a simultaneous update                   is [[1, -h], [h, 1]], a rotation times sqrt(1 + h^2).
"""

import cmath
import math
from dataclasses import replace

import pytest
import torch
from helpers import Bilinear, Dirac, run_of
from torch import Tensor

from ganrun.training.d_outputs import make_d_outputs
from ganrun.training.game import Game
from ganrun.training.run import Run

START = (3.0, 1.0)  # psi, theta
H = 0.1
D_STEP = torch.tensor([[1.0, -H], [0.0, 1.0]], dtype=torch.float64)
G_STEP = torch.tensor([[1.0, 0.0], [H, 1.0]], dtype=torch.float64)
BOTH_STEP = torch.tensor([[1.0, -H], [H, 1.0]], dtype=torch.float64)
POWER = torch.linalg.matrix_power


class Zeros:
    """Real batches that contain only the data point, 0."""

    def __getitem__(self, i: int) -> tuple[Tensor, None]:
        return torch.zeros(4, 1), None


def two_numbers(*settings: str, psi: float, theta: float, rate: float) -> Run:
    """A run of `Bilinear` and `Dirac` with plain gradient descent."""
    run = run_of("data=gaussian", "train.batch_size=4", "train.ema=0", *settings)
    D, G = Bilinear(psi), Dirac(theta)
    optimizers = {f"{k}_optimizer": torch.optim.SGD(net.parameters(), lr=rate) for k, net in (("d", D), ("g", G))}
    constant = {f"{k}_schedule": lambda step, steps: 1.0 for k in "dg"}
    d_outputs = make_d_outputs(D, run.dataset.spec, None, features=False)
    return replace(run, G=G, D=D, d_outputs=d_outputs, batches=Zeros(), **optimizers, **constant)


def path_of(run: Run, steps: int) -> Tensor:
    """(psi, theta) before the first step and after each one, (steps + 1, 2), float64."""
    game, path = Game(run), []
    for step in range(steps + 1):
        path.append((run.D.psi.item(), run.G.theta.item()))
        game.step(step)
    return torch.tensor(path, dtype=torch.float64)


def bilinear(*settings: str, steps: int) -> Tensor:
    return path_of(two_numbers("loss=wgan", "penalty=none", *settings, psi=START[0], theta=START[1], rate=H), steps)


@pytest.mark.parametrize(("update", "theta"), [("alternating", 1.29), ("simultaneous", 1.3)])
def test_one_step_of_each_update(update: str, theta: float) -> None:
    """D minimizes psi * theta: psi' = 3 - 0.1 * 1 = 2.9. G minimizes -psi * theta: theta' = theta + 0.1 psi.

    Alternating updates use the new psi: theta' = 1 + 0.1 * 2.9 = 1.29; simultaneous ones the old: 1 + 0.1 * 3 = 1.3.
    Common bug: the two are confused.
    """
    path = bilinear(f"train.update={update}", "train.n_critic=1", steps=1)
    assert path[1].tolist() == pytest.approx([2.9, theta], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "step_matrix"),
    [
        (["train.update=simultaneous", "train.n_critic=1"], BOTH_STEP),
        (["train.n_critic=1"], G_STEP @ D_STEP),
        (["train.n_critic=5"], G_STEP @ POWER(D_STEP, 5)),
        (["train.n_critic=3", "train.n_gen=2"], POWER(G_STEP, 2) @ POWER(D_STEP, 3)),
    ],
    ids=["simultaneous", "alternating", "five D steps", "three D steps and two G steps"],
)
def test_steps_equal_powers_of_the_matrix(settings: list[str], step_matrix: Tensor) -> None:
    """Common bugs: G before D; gradients left from the other player's update; k updates of D that are only one."""
    path = bilinear(*settings, steps=300)
    start = torch.tensor(START, dtype=torch.float64)
    expected = torch.stack([POWER(step_matrix, n) @ start for n in range(301)])
    torch.testing.assert_close(path, expected, rtol=0, atol=2e-5 * expected.abs().max().item())  # errors accumulate


def test_simultaneous_updates_spiral_outward_at_the_theoretical_rate() -> None:
    """Each step multiplies the distance from the solution by sqrt(1 + h^2). Common bug: to call this an orbit."""
    radius = bilinear("train.update=simultaneous", "train.n_critic=1", steps=300).norm(dim=1)
    torch.testing.assert_close(
        radius[1:] / radius[:-1], torch.full((300,), math.sqrt(1 + H**2)).double(), atol=1e-6, rtol=0
    )
    assert radius[-1].item() == pytest.approx(math.sqrt(10) * (1 + H**2) ** 150, rel=1e-4)  # 4.4 times the distance


def test_alternating_updates_stay_on_an_ellipse() -> None:
    """G_STEP @ D_STEP preserves psi^2 - h psi theta + theta^2. Common bug: simultaneous updates with this name."""
    psi, theta = bilinear("train.n_critic=1", steps=1000).T
    kept = psi**2 - H * psi * theta + theta**2
    torch.testing.assert_close(kept, torch.full_like(kept, 9 - 0.3 + 1), rtol=1e-4, atol=0)
    radius = (psi**2 + theta**2).sqrt()
    assert radius.max() < 3.25  # the semi-axes of the ellipse are sqrt(9.7 / (1 -+ h / 2))
    assert radius.min() > 3.0
    half_turns = int((psi[1:].sign() != psi[:-1].sign()).sum())
    assert half_turns in (31, 32)  # 1000 steps rotate by acos(1 - h^2 / 2) each, 31.8 pi in all


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["r1", "r2"])
@pytest.mark.parametrize("every", [1, 4])
def test_game_on_the_dirac_gan_converges_with_r1(penalty: str, every: int) -> None:
    """Near 0 the logistic game spirals in with rate gamma / 2, also if lazy (Mescheder et al. 2018; see test_dirac.py).

    Common bugs: gamma instead of gamma / 2; a lazy penalty that is not multiplied by k.
    """
    gamma, rate = 0.5, 0.02
    half_turn = round(math.pi / cmath.sqrt(gamma**2 / 4 - 1 / 4).imag / rate)
    settings = ["loss=nonsaturating", "train.update=simultaneous", f"penalty={penalty}"]
    settings += [f"penalty.{penalty}.gamma={gamma}", f"penalty.{penalty}.every={every}"]
    radius = path_of(two_numbers(*settings, psi=0.01, theta=0.01, rate=rate), 3 * half_turn).norm(dim=1)
    decay = (radius[-1] / radius[0]).log().item() / (3 * half_turn * rate)
    assert decay == pytest.approx(-gamma / 2, rel=0.05)


def test_game_on_the_dirac_gan_orbits_without_a_penalty() -> None:
    """Alternating updates of the logistic game stay near the initial circle, and do not converge."""
    run = two_numbers("loss=nonsaturating", "penalty=none", psi=0.01, theta=0.01, rate=0.05)
    radius = path_of(run, 1000).norm(dim=1) / 0.01 / math.sqrt(2)
    assert 0.97 < radius.min() < radius.max() < 1.03
