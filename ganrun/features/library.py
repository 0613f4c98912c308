"""features=inception, and the other networks of torch-fidelity."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.data.cache import digest_of_state
from ganrun.data.dataset import Dataset
from ganrun.features.images import check_images, check_installed, rgb
from ganrun.protocols import Extracted, Features

log = logging.getLogger("ganrun")

NAMES = {"inception-v3-compat": "inception"}  # in keys
RESIZERS = {"inception-v3-compat": "bilinear, as TensorFlow 1"}
SIDES = {"inception-v3-compat": 299}


class TorchFidelity(Features):
    """A feature extractor of torch-fidelity, or one registered there (`register_feature_extractor`).

    inception-v3-compat is the network of the published protocol, converted from TensorFlow: FID from its layer 2048, IS
    from its logits without bias (Heusel et al. 2017, Salimans et al. 2016). It resizes images to 299 x 299 pixels, like
    TensorFlow 1; gray ones become RGB.
    weights: a file with its state_dict; None: the library fetches the published weights, once. They are loaded when the
    run is built, so that missing weights stop it at once. `check` raises ValueError if that fails.
    """

    def __init__(
        self,
        extractor: str = "inception-v3-compat",
        layer: str = "2048",
        logits: str | None = "logits_unbiased",
        dim: int = 2048,
        weights: str | None = None,
        batch_size: int = 32,
        cache: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1.")
        self.extractor, self.layers, self.dim = extractor, [layer, *([logits] if logits else [])], dim
        self.weights, self.batch_size, self.cache = weights, batch_size, cache
        self.device = torch.device(device)
        self.name = NAMES.get(extractor, extractor.replace("-", ""))
        self.frechet = "fid" if self.name == "inception" else "fd"
        self.has_logits = logits is not None
        self._net: nn.Module | None = None
        self._hash = ""

    def check(self, dataset: Dataset) -> None:
        check_images(self.name, dataset)
        check_installed(f"features={self.name}", "torch_fidelity", command="pip install torch-fidelity")
        self.prepare(dataset)

    def prepare(self, dataset: Dataset) -> None:
        if self._net is not None:
            return
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as KNOWN

        if self.extractor not in KNOWN:
            raise ValueError(f"features.extractor={self.extractor}: is not registered; known are {', '.join(KNOWN)}.")
        if self.weights is not None:
            self._check_file(Path(self.weights))
        random = torch.get_rng_state()  # its layers are initialized before their weights are loaded
        net = self._loaded()
        torch.set_rng_state(random)
        self._hash = digest_of_state(net.state_dict())
        self._net = net.to(self.device).eval().requires_grad_(False)

    def _check_file(self, path: Path) -> None:
        """Raise ValueError for a file that holds anything but tensors, since the library would run code in it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of what it then refuses
                found = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ValueError(f"features.weights={path}: no such file.") from None
        except Exception as error:  # torch raises any type for a file of another kind
            raise ValueError(f"features.weights={path}: cannot be read as a state_dict of tensors.") from error
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise ValueError(f"features.weights={path}: is not a state_dict, a dictionary of tensors.")

    def _loaded(self) -> nn.Module:
        from torch_fidelity.utils import create_feature_extractor

        try:
            net: nn.Module = create_feature_extractor(
                self.extractor, self.layers, cuda=False, verbose=False, feature_extractor_weights_path=self.weights
            )
        except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: another hash, or other shapes
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
            if self.weights is not None:
                raise ValueError(
                    f"features.weights={self.weights}: does not fit {self.extractor} ({reason})."
                ) from error
            raise ValueError(
                f"features={self.name}: its weights could not be fetched ({reason}); name a copy with "
                "features.weights=FILE, or use features=efficientnet_lite0 or classifier, which need no download."
            ) from error
        return net

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Extracted:
        net = self._net
        assert net is not None, "prepare() comes first"
        found = [net(rgb(part.to(self.device)).contiguous()) for part in images.split(self.batch_size)]
        columns = [torch.cat([x.float().cpu() for x in column]) for column in zip(*found, strict=True)]
        return Extracted(*columns)

    def protocol(self) -> dict[str, Any]:
        side = SIDES.get(self.extractor)
        return {
            "network": self.extractor, "layer": self.layers[0], "weights": self._hash,
            **({"size": [side, side]} if side else {}), "resizer": RESIZERS.get(self.extractor, "that of the network"),
        }  # fmt: skip
