"""The generator of table rows: what it makes, with which probabilities, and which gradients it gets."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ganrun.arch.table import Generator
from ganrun.data.dataset import DataSpec
from ganrun.data.table_form import Column, TableForm
from ganrun.training.randomness import seeded
from ganrun.training.sampling import generate

COLUMNS = (
    Column("k", "category", categories=("a", "b", "c")),
    Column("u", "number"),
    Column("v", "number", missing=True),
    Column("w", "number", scale="minmax"),
    Column("m", "category", True, categories=("x",)),
)
FORM = TableForm(COLUMNS, ("k", "u", "v", "w", "m"))  # u, v, w, then the blocks of k (3), v (2) and m (2)
SPEC = DataSpec((10,), form=FORM)
BLOCKS = [slice(3, 6), slice(6, 8), slice(8, 10)]
CPU = torch.device("cpu")


def net(outputs: list[float] | None = None, **settings: Any) -> Generator:
    """A generator, whose layers give `outputs` for every z."""
    torch.manual_seed(0)
    G = Generator(SPEC, 2, (8,), batch_norm=False, **settings)
    if outputs is not None:
        last = G.layers[-1]
        torch.nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor(outputs)
    return G


def is_one_hot(x: Tensor) -> bool:
    parts = [x[:, block] for block in BLOCKS]
    return all(((part == 0) | (part == 1)).all() and (part.sum(1) == 1).all() for part in parts)


@pytest.mark.parametrize("categories", ["straight_through", "gumbel"])
def test_blocks_are_exactly_one_hot_in_eval_mode(categories: Any) -> None:
    G = net(categories=categories).eval()
    x = G(torch.randn(500, 2))
    assert is_one_hot(x)
    assert FORM.as_written(x)[:, 3:].equal(x[:, 3:])


def test_blocks_are_one_hot_in_training_unless_they_are_soft() -> None:
    z = torch.randn(500, 2)
    assert is_one_hot(net()(z))
    soft = net(categories="gumbel")(z)
    assert not is_one_hot(soft)
    for block in BLOCKS:
        assert torch.allclose(soft[:, block].sum(1), torch.ones(500))


def test_categories_have_the_probabilities_of_the_softmax() -> None:
    """The Gumbel-max trick. The shares of 20,000 samples are within 4 standard errors."""
    logits = [1.0, -1.0, 0.0]
    G = net([0.0, 0.0, 0.0, *logits, 0.0, math.log(3), 0.0, 0.0]).eval()
    x = generate(G, torch.randn(20_000, 2))
    probabilities = torch.tensor([*torch.tensor(logits).softmax(0), 0.25, 0.75, 0.5, 0.5])
    errors = (probabilities * (1 - probabilities) / 20_000).sqrt()
    assert ((x[:, 3:].mean(0) - probabilities).abs() < 4 * errors).all()
    both = (x[:, 3] * x[:, 6]).mean()  # blocks have independent noise
    assert abs(both - probabilities[0] * 0.25) < 0.01


def test_gradient_of_a_one_hot_block_is_that_of_the_soft_one() -> None:
    """Jang et al. 2017, section 2.2; here for a block of two entries: s (1 - s) / temperature."""
    G = net([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0], temperature=0.7)
    z = torch.zeros(1, 2)
    with seeded(CPU, 0, "noise"):
        x = G(z)
    (found,) = torch.autograd.grad(x[0, 8], G.layers[-1].bias)
    with seeded(CPU, 0, "noise"):
        noise = -(-torch.rand(1, 7).log()).log()
    s = torch.sigmoid((0.5 + noise[0, 5] - noise[0, 6]) / 0.7)
    slope = (s * (1 - s) / 0.7).item()
    expected = [0.0] * 8 + [slope, -slope]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert slope > 0


def test_missing_number_has_the_value_zero_and_bounds_hold() -> None:
    G = net([5.0, 5.0, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).eval()
    x = generate(G, torch.randn(200, 2))
    missing = x[:, 7] == 1
    assert 0 < missing.sum() < 200
    assert (x[missing, 1] == 0).all()
    assert (x[~missing, 1] == 5).all()
    assert (x[:, 0] == 5).all()
    assert (x[:, 2] == 1).all()


def test_samples_are_the_same_at_each_call_and_in_parts_of_any_size() -> None:
    """A row's noise depends on its number alone; the last bits of numbers may depend on the size of the batch."""
    G, z = net().eval(), torch.randn(600, 2)
    x = generate(G, z)
    assert torch.equal(x, generate(G, z))
    assert torch.equal(x[:7, 3:], generate(G, z[:7])[:, 3:])
    with seeded(CPU, 0, "noise of G"), torch.no_grad():
        parts = torch.cat([G(part) for part in z.split(17)])
    assert torch.equal(x[:, 3:], parts[:, 3:])


def test_rows_of_numbers_alone_have_no_noise() -> None:
    form = TableForm((Column("a", "number"), Column("b", "number")), ("a", "b"))
    G = Generator(DataSpec((2,), form=form), 2, (4,), batch_norm=False)
    state = torch.get_rng_state()
    z = torch.ones(3, 2)
    assert torch.equal(G(z), G(z))
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_and_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="these data are none; use arch=mlp"):
        Generator(DataSpec((2,)), 2)
    with pytest.raises(ValueError, match="temperature=0: must be greater than 0"):
        net(temperature=0)
