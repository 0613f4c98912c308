"""What is printed about choices of a recipe that others replace."""

import pytest
from conftest import Here

from ganrun.cli.recipes import recipe_choices, replaced

LINES = [
    ("loss=wgan penalty=r1", ["loss=wgan without its penalty=weight_clip (replaced by penalty=r1)"]),
    (
        "loss=wgan optimizer=adam penalty=none",
        [
            "loss=wgan without its optimizer=rmsprop (replaced by optimizer=adam), "
            "penalty=weight_clip (replaced by penalty=none)"
        ],
    ),
    ("loss=rpgan penalty=[r1]", ["loss=rpgan without its penalty=[r1,r2] (replaced by penalty=[r1])"]),
    ("loss=wgan penalty=[r1,weight_clip]", []),
    ("loss=wgan optimizer=rmsprop train.n_critic=1", []),
    ("loss=nonsaturating penalty=r1", []),
    (
        "experiment=ring_minimax optimizer=sgd",
        ["experiment=ring_minimax without its optimizer=adam_metz2017 (replaced by optimizer=sgd)"],
    ),
    (
        "experiment=ring_minimax loss=wgan",  # the experiment's optimizer takes precedence
        [
            "loss=wgan without its optimizer=rmsprop (replaced by optimizer=adam_metz2017)",
            "experiment=ring_minimax without its loss=minimax (replaced by loss=wgan)",
        ],
    ),
    ("experiment=ring_minimax", []),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line for line, _ in LINES])
def test_replaced_choices_of_a_recipe_are_named_in_a_line(line: str, expected: list[str], here: Here) -> None:
    """Common bug: penalty=r1 with loss=wgan silently removes the weight clipping."""
    short = ["train.steps=1", "train.sample_every=0", "train.diagnose=false", "metric=none", "data.num=100"]
    code, out, err = here(*line.split(), *short)
    assert code == 0, err
    assert [x.split(maxsplit=1)[1] for x in out.splitlines() if x.startswith("recipe ")] == expected


def test_choices_of_a_recipe_include_those_of_the_recipe_that_it_extends() -> None:
    own, grown = recipe_choices("experiment/goodfellow2014/tfd"), recipe_choices("experiment/goodfellow2014/tfd_grown")
    assert own["arch"] == "goodfellow2014_tfd"
    assert grown == own | {"arch": "goodfellow2014_tfd_grown"}


def test_options_without_choices_lose_nothing() -> None:
    for recipe in ("loss/minimax", "loss/no_such_loss", "experiment/None"):
        assert replaced(recipe, {"penalty": "r1", "optimizer": "sgd"}) == []


@pytest.mark.slow
def test_each_job_of_a_sweep_names_what_it_replaces(here: Here) -> None:
    short = ["train.steps=1", "train.sample_every=0", "train.diagnose=false", "metric=none", "data.num=100"]
    code, out, err = here("-m", "loss=wgan", "penalty=weight_clip,r1", *short, "run_dir=s")
    assert code == 0, err
    assert out.count("without its penalty=weight_clip (replaced by penalty=r1)") == 1
