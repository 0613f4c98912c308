"""Reading of pickles that can hold arrays only, since a data folder, and data.root of a run, may come from others."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, Any
from unittest.mock import patch

ARRAYS = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("joblib.numpy_pickle", "NumpyArrayWrapper")}
ARRAYS |= {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
ARRAYS |= {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}


def find_class(self: object, module: str, name: str) -> Any:
    if (module, name) not in ARRAYS:
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, not only arrays")
    return getattr(import_module(module), name)


class Arrays(pickle.Unpickler):
    find_class = find_class


@contextmanager
def arrays_only() -> Iterator[None]:
    """Let the readers of libraries, torchvision's `pickle.load` and joblib's subclass, make nothing but arrays."""

    def load(file: IO[bytes], **options: Any) -> Any:
        return Arrays(file, **options).load()

    with patch("pickle.load", load), patch("pickle._Unpickler.find_class", find_class):
        yield
