"""Which code a config may name in `_target_`, and the import of modules in the working directory (docs/security.md)."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module, invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from inspect import isclass, ismodule
from pathlib import Path
from types import FrameType

GROUPS = ("arch", "augment", "condition", "data", "features", "latent", "loss", "metric", "penalty", "schedule")
COMPONENTS = tuple(f"ganrun.{name}" for name in GROUPS)
IMPORTLIB = ("importlib", "_frozen_importlib", "_frozen_importlib_external")
TORCH = ("torch.nn", "torch.optim")  # their modules and optimizers

_trusted: set[str] = set()
_runs: set[Path] = set()  # whose configs were read by this process


class NotTrusted(ValueError):
    """The code may not be used. module: the module that would have to be trusted."""

    def __init__(self, module: str) -> None:
        super().__init__(
            "is neither a component of ganrun or torch, nor in a module of the working directory outside run "
            f"directories; if you trust that code, add trust=[{module}]"
        )
        self.module = module


def trust(*modules: str) -> None:
    """Allow configs to name anything in these modules, in this process: `ganrun.trust("my_package.losses")`."""
    _trusted.update(modules)


@contextmanager
def trusting(modules: Iterable[str]) -> Iterator[None]:
    before = set(_trusted)
    trust(*modules)
    try:
        yield
    finally:
        _trusted.intersection_update(before)


def add_run(path: Path) -> None:
    """Take no code from this run directory, nor from the folder of the working directory that it is in."""
    _runs.update((path.absolute(), path.resolve()))


def find(path: str) -> object:
    """The class or function at a dotted path. Modules are imported only if a config may name them.

    Raises NotTrusted, or the error of the import: ImportError, AttributeError, or any other.
    """
    parts = path.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ImportError(f"{path!r} is not a dotted path")
    invalidate_caches()
    _forget_moved(parts[0])
    is_trusted, module = _within(path, _trusted), ".".join(parts[:-1]) or path
    if not is_trusted and not _may_import(path):
        if not _own_files(path) and parts[0] not in sys.modules and find_spec(parts[0]) is None:
            raise ModuleNotFoundError(f"No module named '{parts[0]}'")
        raise NotTrusted(module)
    found: object = None
    for depth, found in enumerate(_chain(parts), 1):
        if ismodule(found):
            name = ".".join(parts[:depth])
            is_itself = found.__name__ == name and (is_trusted or _is_own_file(name))
            if not is_itself and not _within(found.__name__, _trusted):  # another one imports it, as in my_loss.os
                raise NotTrusted(found.__name__)
        elif not is_trusted and not _may_use(found):
            raise NotTrusted(getattr(found, "__module__", None) or module)
    return found


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _may_import(path: str) -> bool:
    """Whether a config may name `path`, an object or its module, without `trust`."""
    if _within(path, ("ganrun", "torch")):  # even where the working directory is a clone of ganrun
        return _within(path, (*COMPONENTS, *TORCH)) and "._" not in path
    if _within(path, ["__main__"]):  # the user's script or notebook, not a program started by `python -m`
        return getattr(sys.modules["__main__"], "__spec__", None) is None
    files = _own_files(path).values()
    return "__" not in path and bool(files) and not any(map(_in_run, files))


def _may_use(found: object) -> bool:
    """Whether the module that defines a class, a function or another object may be used."""
    module = getattr(found, "__module__", None) or ""
    if _within(module, TORCH) and not _within(module, _trusted):
        import torch

        return isclass(found) and issubclass(found, torch.nn.Module | torch.optim.Optimizer)
    return _within(module, _trusted) or (_may_import(module) and _is_own_file(module))


def _own_files(path: str) -> dict[str, Path]:
    """The files in the working directory that an import of the dotted path runs, by the name of the module.

    Python's own search finds them, since code can also be in other files than .py, such as __init__.pyc.
    """
    folders, name, files = [os.getcwd()], "", {}
    for part in path.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            break
        if spec.origin:
            files[name] = Path(spec.origin)
        folders = list(spec.submodule_search_locations or ())
    return files


def _is_own_file(name: str) -> bool:
    """Whether a module is not an installed one with the name of one in the working directory."""
    file, loaded = _own_files(name).get(name), getattr(sys.modules.get(name), "__file__", None)
    return _within(name, ("ganrun", "torch")) or file is None or (loaded is not None and file.samefile(loaded))


def _in_run(file: Path) -> bool:
    """Whether a file belongs to a run, which may come from someone else."""
    here, file = Path.cwd().resolve(), file.resolve()
    if any((folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir() for folder in file.parents):
        return True
    inside = {here / run.relative_to(here).parts[0] for run in _runs if here in run.parents}
    return any(file.is_relative_to(folder) for folder in _runs | inside)


def _chain(parts: Sequence[str]) -> Iterator[object]:
    """The objects at all beginnings of a dotted path, `a`, `a.b`, ..., with imports where needed."""
    found: object = import_module(parts[0])
    yield found
    for depth, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            if not ismodule(found):
                raise
            found = import_module(".".join(parts[:depth]))
        yield found


class WorkingDirectory:
    """Finds modules in the working directory for `find`, and for the modules there that it has imported.

    Those do not find modules in a run directory. Were the working directory in sys.path, the libraries would import
    their optional dependencies from it, such as ./dill.py.
    """

    folders: dict[str, str]  # of the top-level modules that were found

    def __init__(self) -> None:
        self.folders = {}

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        frame = _importer(sys._getframe(1))
        is_checked = frame is not None and frame.f_code is _chain.__code__  # by `find`
        if path is not None or not (is_checked or self.has_found(frame)):
            return None
        with suppress(FileNotFoundError):  # the working directory was removed
            here = os.getcwd()
            spec = PathFinder.find_spec(name, [here])
            if spec and (is_checked or not _in_run(Path(spec.origin or f"{here}/{name}/__init__.py"))):
                self.folders[name] = here
                return spec
        return None

    def has_found(self, frame: FrameType | None) -> bool:
        """Whether the code in a frame is of a module that was found here."""
        return frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in self.folders


def _importer(frame: FrameType | None) -> FrameType | None:
    """The code that imports a module: the first frame outside importlib."""
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in IMPORTLIB:
        frame = frame.f_back
    return frame


def _forget_moved(name: str) -> None:
    """Forget a module that was imported from another working directory."""
    if (folder := finder.folders.get(name)) and folder != os.getcwd():
        for module in [module for module in sys.modules if _within(module, [name])]:
            del sys.modules[module]


finder = WorkingDirectory()
sys.meta_path.append(finder)  # installed modules have precedence
