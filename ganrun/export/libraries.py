"""Which libraries of the extra `export` are installed. Imports none of them."""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec

EXTRA = ("onnx", "onnxscript", "onnxruntime", "safetensors")


def missing(libraries: Sequence[str]) -> str | None:
    """The first library that is not installed, or None."""
    for library in libraries:
        spec = find_spec(library)
        if spec is None or spec.origin is None:  # None: a folder of that name in the working directory
            return library
    return None


def versions() -> dict[str, str]:
    """Those of torch and of the installed libraries of the extra."""
    return {library: version(library) for library in ("torch", *EXTRA) if not missing([library])}
