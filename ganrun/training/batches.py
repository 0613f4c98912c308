"""The order of the training examples."""

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec, Split
from ganrun.data.seeds import generator


class Batches:
    """An endless sequence of batches from shuffled epochs. Batch i is a function of (seed, i) only.

    A batch may extend over the end of an epoch: every batch is full, and every epoch uses each example exactly once.
    """

    def __init__(self, split: Split, spec: DataSpec, batch_size: int, seed: int, device: torch.device) -> None:
        if len(split) == 0:
            raise ValueError("data: the training split is empty.")
        self.split, self.spec, self.batch_size, self.seed, self.device = split, spec, batch_size, seed, device
        self._orders: dict[int, Tensor] = {}
        self._format = torch.channels_last if spec.is_image else torch.contiguous_format

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor | None]:
        """x (B, *shape) in the value range, and y (B,) or None, on the device."""
        x, y = self.split.x, self.split.y
        index = self._indices(i * self.batch_size)
        x = self.spec.decode(x.index_select(0, index).to(self.device)).contiguous(memory_format=self._format)
        return x, None if y is None else y[index].to(self.device)

    def _indices(self, start: int) -> Tensor:
        epoch, offset = divmod(start, len(self.split))
        index = self._order(epoch)[offset : offset + self.batch_size]
        parts, missing = [index], self.batch_size - len(index)
        while missing:
            epoch += 1
            parts.append(self._order(epoch)[:missing])
            missing -= len(parts[-1])
        return torch.cat(parts) if parts[1:] else index

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            shuffle = generator(self.seed, "epoch", epoch)
            order = torch.randperm(len(self.split), generator=shuffle).to(self.split.x.device)
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1} | {epoch: order}
        return self._orders[epoch]
