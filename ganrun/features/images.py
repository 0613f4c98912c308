"""What all feature networks need: checks, and RGB images."""

from importlib.util import find_spec

from torch import Tensor

from ganrun.data.dataset import Dataset


def check_images(name: str, dataset: Dataset) -> None:
    """Raise ValueError for data that are not gray or RGB images."""
    if not dataset.spec.is_image:
        raise ValueError(f"features={name}: needs images, and these data are vectors.")
    if dataset.spec.shape[0] not in (1, 3):
        raise ValueError(f"features={name}: needs gray or RGB images, and these have {dataset.spec.shape[0]} channels.")


def check_installed(who: str, *libraries: str, command: str = "pip install 'ganrun[fidelity]'") -> None:
    """Raise ValueError, with the command that installs it, if a library is missing. Imports nothing."""
    for library in libraries:
        spec = find_spec(library)
        if spec is None or spec.origin is None:  # None: a folder of that name in the working directory
            raise ValueError(f"{who}: needs {library}, which is not installed; `{command}`.")


def rgb(x: Tensor) -> Tensor:
    """Images (N, 3, H, W): gray ones (N, 1, H, W) three times."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
