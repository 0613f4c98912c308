"""A generator of table rows: numbers, and one-hot blocks of categories. D is that of arch=mlp."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganrun.arch.layers import apply_spectral_norm, with_labels
from ganrun.arch.mlp import Init, _layers
from ganrun.data.dataset import DataSpec
from ganrun.data.table_form import PRESENT, TableForm

Sampling = Literal["straight_through", "gumbel"]
TINY = torch.finfo(torch.float32).tiny


class Generator(nn.Module):
    """z (B, z_dim) -> rows (B, spec.form.width), as `ganrun.data.table_form` encodes them.

    Numbers are a linear output, or with data.numbers=minmax a tanh. A block of categories is a sample of a softmax:
    with Gumbel noise g = -log(-log u), the largest entry of logits + g has the probabilities of the softmax, and
    s = softmax((logits + g) / temperature) approximates its one-hot vector. Jang, Gu and Poole 2017, arXiv:1611.01144,
    Equations 1 and 2; the same as the Concrete distribution of Maddison, Mnih and Teh 2017, arXiv:1611.00712.

    categories: what D gets while G trains. In eval mode, blocks are one-hot with both.
    - straight_through: the one-hot vector, with the gradient of s (Jang et al., section 2.2). Real and fake blocks then
      look alike;
    - gumbel: s itself, whose entries lie between 0 and 1, as in CTGAN (Xu et al. 2019, arXiv:1907.00503, with
      temperature .2). D can tell such a row from a real one without looking at which categories it has.

    A number that can be missing has an output for whether it is; if so, its value is 0, as in real rows.
    Other arguments are those of arch=mlp. All noise of a forward pass is drawn by one call, row by row, so that on the
    CPU a row's noise does not depend on the batch. Raises ValueError for data without a form.
    """

    mixes_classes = True
    output_range = None

    def __init__(
        self,
        spec: DataSpec,
        z_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        batch_norm: bool = True,
        dropout: float = 0.0,
        init: Init = "torch",
        spectral_norm: bool = False,
        categories: Sampling = "straight_through",
        temperature: float = 0.5,
        label_dim: int = 0,
    ) -> None:
        super().__init__()
        if spec.form is None:
            raise ValueError("arch.generator: makes rows of a table, and these data are none; use arch=mlp.")
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: must be greater than 0.")
        self.bounded: Tensor
        self.entries: Tensor
        self.places: Tensor
        self.present: Tensor
        self.label_dim, self.categories, self.temperature = label_dim, categories, temperature
        self.num_values = len(spec.form.numbers)
        self.layers = _layers([z_dim + label_dim, *hidden, spec.form.width], activation, batch_norm, dropout, init)
        self.gumbel = GumbelNoise()
        self.has_blocks = bool(spec.form.blocks)
        self.has_bounds = any(c.scale == "minmax" for c in spec.form.numbers)
        self.can_miss = any(c.missing for c in spec.form.numbers)
        for name, index in indices(spec.form).items():
            self.register_buffer(name, index, persistent=False)
        if spectral_norm:
            apply_spectral_norm(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h: Tensor = self.layers(with_labels(z, y, self.label_dim))
        values, logits = h.tensor_split([self.num_values], 1)
        if self.has_bounds:
            values = torch.where(self.bounded, values.tanh(), values)
        if not self.has_blocks:
            return values
        blocks = self.sampled(logits)
        if self.can_miss:
            ones = blocks.new_ones(blocks.shape[0], 1)
            values = values * torch.cat([blocks, ones], 1)[:, self.present]  # 0 or 1 in eval mode
        return torch.cat([values, blocks], 1)

    def sampled(self, logits: Tensor) -> Tensor:
        """One sample of each block: logits (B, K) of all entries -> (B, K)."""
        noisy = self.gumbel(logits.float())
        outside = noisy.new_full((noisy.shape[0], 1), -torch.inf)
        padded = torch.cat([noisy, outside], 1)[:, self.entries]  # (B, blocks, largest block)
        if self.training:
            soft = (padded / self.temperature).softmax(2)
            if self.categories == "gumbel":
                return soft.flatten(1)[:, self.places]
            hard = one_hot_of_largest(padded) + (soft - soft.detach())  # exactly 0 and 1
            return hard.flatten(1)[:, self.places]
        return one_hot_of_largest(padded).flatten(1)[:, self.places]


class GumbelNoise(nn.Module):
    """Logits (B, K) plus noise -log(-log u), for u uniform in [0, 1), in training and in eval mode."""

    def forward(self, logits: Tensor) -> Tensor:
        return self.with_noise(logits, torch.rand(logits.shape, device=logits.device, dtype=torch.float32))

    def with_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """The same, with the given u, (B, K)."""
        return x - (-noise.clamp(min=TINY).log()).log()


def one_hot_of_largest(x: Tensor) -> Tensor:
    """1 at the largest entry of the last dimension, else 0.

    >>> one_hot_of_largest(torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([[0., 1., 0.]])
    """
    return torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)


def indices(form: TableForm) -> dict[str, Tensor]:
    """Where G's outputs are.

    bounded (values,): whether a number has bounds. entries (blocks, largest): the entries of each block, among all K
    entries; K where a block is smaller than the largest. places (K,): the inverse, in the flattened `entries`.
    present (values,): the entry that says that a number is present; K if it always is.
    """
    sizes = [column.entries for column, _ in form.blocks]
    total, largest = sum(sizes), max(sizes, default=0)
    starts = torch.tensor([0, *sizes]).cumsum(0)[:-1].tolist()
    entries = torch.full((len(sizes), largest), total)
    for row, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        entries[row, :size] = torch.arange(start, start + size)
    of_number = {
        column.name: start + PRESENT
        for (column, _), start in zip(form.blocks, starts, strict=True)
        if column.kind == "number"
    }
    return {
        "bounded": torch.tensor([column.scale == "minmax" for column in form.numbers], dtype=torch.bool),
        "entries": entries,
        "places": (entries.flatten() < total).nonzero()[:, 0],
        "present": torch.tensor([of_number.get(column.name, total) for column in form.numbers], dtype=torch.long),
    }
