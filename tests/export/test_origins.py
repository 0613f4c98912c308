"""What model cards say of the data sets."""

import importlib

import pytest

import ganrun
from ganrun.config import CONF
from ganrun.export.origins import NOT_KNOWN, ORIGINS, SYNTHETIC, origin_of

SETS = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
OWN = {"faces", "folder", "table"}
DRAWN = {"dirac", "gaussian", "grid", "heights", "mixture1d", "ring", "spiral"}
PEOPLE = {"fer2013", "olivetti", "tfd"}


@pytest.mark.parametrize("name", SETS)
def test_origin_of_every_data_set_is_known(name: str) -> None:
    given = {"faces": ["data.root=d"], "folder": ["data.root=d"], "table": ["data.file=f.csv"]}
    origin = origin_of(ganrun.compose(f"data={name}", *given.get(name, [])))
    assert not origin.about.startswith("Read by")
    assert (origin.licence == NOT_KNOWN, origin.licence == SYNTHETIC) == (name in OWN, name in DRAWN)
    assert origin.people == (name in PEOPLE)


def test_targets_of_origins_exist() -> None:
    for target in ORIGINS:
        module, _, name = target.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
