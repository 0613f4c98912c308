"""Whether the library of a tracker is installed."""

from importlib.util import find_spec


def check_installed(*libraries: str, extra: str) -> None:
    """Raise ValueError, with the command that installs the extra, if a library is missing. Imports nothing."""
    for library in libraries:
        spec = find_spec(library)
        if spec is None or spec.origin is None:  # None: a folder of that name in the working directory
            raise ValueError(f"needs {library}, which is not installed; `pip install 'ganrun[{extra}]'`.")
