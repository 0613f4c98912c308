"""Examples as the uint8 images that samples become when they are saved."""

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec

ROWS = 4096  # examples converted at a time, which bounds the memory


def pixels(x: Tensor, spec: DataSpec) -> Tensor:
    """Stored images x (N, C, H, W) as uint8, with the same treatment as samples get by `DataSpec.encode`.

    >>> pixels(torch.tensor([[[[-1.0, 1.0]]]]), DataSpec((1, 1, 2), (-1.0, 1.0))).flatten().tolist()
    [0, 255]
    """
    if x.dtype == torch.uint8 and not spec.gcn:
        return x
    return torch.cat([spec.encode(spec.decode(part)) for part in x.split(ROWS)]) if len(x) else x.to(torch.uint8)
