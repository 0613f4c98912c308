"""An import goes downward only, and each library is known in one place."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ganrun"
FILES = sorted(ROOT.rglob("*.py"))

# From the ground up: what stands in a line may import what stands in it or in a line before.
FLOORS = [
    ["ganrun", "names", "checks", "randomness", "eager", "progress"],
    ["options", "data", "arch", "condition", "loss", "penalty", "augment", "schedule", "latent", "metric", "theory"],
    ["run"],
    ["sampling", "frames", "steps", "records", "best", "evaluation"],
    ["figures", "diagnosis"],
    ["build", "loop"],
    ["commands"],
    ["cli"],
    ["__main__"],
]
ONLY_IN = {
    "hydra": {"cli", "build"},
    "omegaconf": {"cli"},
    "matplotlib": {"figures"},
    "tensorboard": {"records/dashboard.py"},
    "torchvision": {"data"},
    "sklearn": {"data"},
    "scipy": {"data"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    """ganrun.data.toy.gaussian -> data"""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and any(parts[1] in floor for floor in FLOORS) else "ganrun"


def floor_of(name: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if name in floor)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_downward(path: Path) -> None:
    relative = path.relative_to(ROOT)
    own = (
        "ganrun"
        if relative.name == "__init__.py" and len(relative.parts) == 1
        else relative.parts[0].removesuffix(".py")
    )
    for module in imports(path):
        if module.split(".")[0] == "ganrun":
            assert floor_of(room(module)) <= floor_of(own), f"{relative} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_each_library_is_known_in_one_place(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    for module in imports(path):
        places = ONLY_IN.get(module.split(".")[0])
        allowed = places is None or any(
            relative == p or relative.split("/")[0].removesuffix(".py") == p for p in places
        )
        assert allowed, f"{relative} imports {module}"


def test_everything_imported_is_declared() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    declared = {d.split(">")[0].split("=")[0].split("<")[0] for d in project["dependencies"]}
    names = {"hydra": "hydra-core", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
    used = {module.split(".")[0] for path in FILES for module in imports(path)}
    import sys

    outside = {names.get(name, name) for name in used - set(sys.stdlib_module_names) - {"ganrun"}}
    assert outside == declared
