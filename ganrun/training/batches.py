"""The order of the training examples."""

from typing import NamedTuple

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec, Split
from ganrun.data.seeds import generator

READ_AROUND = 1 << 16  # bytes that Linux maps around one that is read
MOST_RESIDENT = 1 << 24  # bytes of a memory map


class Epoch(NamedTuple):
    """The order of the examples (N,), and at each place in it whether the image is mirrored (N,), or None."""

    order: Tensor
    mirrored: Tensor | None

    def part(self, start: int, num: int) -> "Epoch":
        stop = start + num
        return Epoch(self.order[start:stop], None if self.mirrored is None else self.mirrored[start:stop])


class Batches:
    """An endless sequence of batches from shuffled epochs. Batch i is a function of (seed, i) only.

    A batch may extend over the end of an epoch: every batch is full, and every epoch uses each example exactly once.
    flip: mirror each image (B, C, H, W) left to right with probability 1/2, drawn anew in each epoch.
    """

    def __init__(
        self,
        split: Split,
        spec: DataSpec,
        batch_size: int,
        seed: int,
        device: torch.device,
        flip: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        if len(split) == 0:
            raise ValueError("data: the training split is empty.")
        self.split, self.spec, self.batch_size, self.seed, self.device = split, spec, batch_size, seed, device
        self.flip = flip
        self._resident = 0  # bytes of the memory map
        self._orders: dict[int, Epoch] = {}
        self._format = memory_format

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor | None]:
        """x (B, *shape) in the value range, and y (B,) or None, on the device."""
        y, (index, mirrored) = self.split.y, self._at(i * self.batch_size)
        x = self.split.x.index_select(0, index).to(self.device)
        if self.split.mapping is not None:
            self._release(x)
        if mirrored is not None:
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        x = self.spec.decode(x).contiguous(memory_format=self._format)
        return x, None if y is None else y[index].to(self.device)

    def _release(self, x: Tensor) -> None:
        """Unmap the pages of a memory map that were read, once there may be many."""
        self._resident += len(x) * max(READ_AROUND, x[0].nbytes)
        if self._resident > MOST_RESIDENT:
            self.split.release()
            self._resident = 0

    def _at(self, start: int) -> Epoch:
        """The part of the sequence of all epochs that a batch takes."""
        epoch, offset = divmod(start, len(self.split))
        parts = [self._epoch(epoch).part(offset, self.batch_size)]
        missing = self.batch_size - len(parts[0].order)
        while missing:
            epoch += 1
            parts.append(self._epoch(epoch).part(0, missing))
            missing -= len(parts[-1].order)
        if not parts[1:]:
            return parts[0]
        mirrored = [part.mirrored for part in parts if part.mirrored is not None]
        return Epoch(torch.cat([part.order for part in parts]), torch.cat(mirrored) if mirrored else None)

    def _epoch(self, epoch: int) -> Epoch:
        if epoch not in self._orders:
            num, mirrored = len(self.split), None
            order = torch.randperm(num, generator=generator(self.seed, "epoch", epoch)).to(self.split.x.device)
            if self.flip:
                mirrored = (torch.rand(num, generator=generator(self.seed, "flip", epoch)) < 0.5).to(self.device)
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1} | {epoch: Epoch(order, mirrored)}
        return self._orders[epoch]
