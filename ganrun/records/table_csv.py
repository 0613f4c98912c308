"""A CSV file of generated rows, with the columns of the table that a run was trained on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec
from ganrun.records.checkpoint import write_atomically


def save_csv(path: Path, spec: DataSpec, blocks: Iterable[tuple[Tensor, Sequence[int] | Tensor | None]]) -> None:
    """Write blocks of rows (n, width), with their classes (n,) or None, to one file, atomically and block by block.

    In a conditional run the column of the label has the names of the classes; in other runs it is missing.
    """
    form = spec.form
    assert form is not None, "checked before"

    def write(unfinished: Path) -> None:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            header = True
            for x, y in blocks:
                labels = None if y is None else [spec.classes[int(k)] for k in y]
                file.write(form.csv(torch.as_tensor(x), labels, header))
                header = False

    write_atomically(path, write)
