"""Classes that are held out of training (data.without), to test whether they are found to be anomalous."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ganrun.data.dataset import Dataset, HeldOut, Split, with_moments_of

Names = Sequence[int | str] | int | str


def without(dataset: Dataset, names: Names) -> Dataset:
    """The data set without these classes, by name or number. `held_out` has their validation and test examples.

    The other classes are numbered anew, in the same order, so that a conditional run has no class without examples.
    The mean and std are those of the training examples that are left. Examples of the data set that is returned are
    copies, in memory. Raises ValueError for data without labels, an unknown class, and if no class is left.
    """
    asked: list[int | str] = [names] if isinstance(names, int | str) else list(names)
    typed = f"data.without=[{','.join(map(str, asked))}]"
    classes = dataset.spec.classes
    if not asked:
        return dataset
    if not classes:
        raise ValueError(f"{typed}: these data have no labels, so there is no class to hold out; use data with labels.")
    if unlabelled := [name for name, split in dataset.splits().items() if split.y is None and len(split)]:
        raise ValueError(f"{typed}: the {unlabelled[0]} examples have no labels; use data in which all splits do.")
    found = sorted({class_index(typed, name, classes) for name in asked})
    kept = [k for k in range(len(classes)) if k not in found]
    train, *others = (_of(kept, split) for split in dataset.splits().values())
    if not len(train):
        raise ValueError(f"{typed}: leaves nothing to train on; leave at least one class with training examples.")
    valid, test = others
    held_out = HeldOut(tuple(classes[k] for k in found), *(_of(found, x) for x in (dataset.valid, dataset.test)))
    spec = replace(dataset.spec, classes=tuple(classes[k] for k in kept))
    return replace(dataset, spec=with_moments_of(train.x, spec), train=train, valid=valid, test=test, held_out=held_out)


def class_index(key: str, name: int | str, classes: Sequence[str]) -> int:
    """The number of a class that is given by its name or, if no class has a number as its name, by its number.

    So 4 is the digit 4, too, if the digit 3 is held out. Raises ValueError, with `key` in the message.

    >>> class_index("labels", 4, ["0", "2", "4"]), class_index("labels", 1, ["cat", "dog"])
    (2, 1)
    """
    if str(name) in classes:
        return list(classes).index(str(name))
    named = any(known.isdecimal() and str(int(known)) == known for known in classes)
    if not named and isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(classes):
        return name
    names = ", ".join(known if named else f"{i} ({known})" for i, known in enumerate(classes))
    raise ValueError(f"{key}: {name} is not one of the classes, which are {names}.")


def _of(chosen: Sequence[int], split: Split) -> Split:
    """The examples of the classes `chosen`, with labels that number these."""
    if split.y is None:  # it is empty
        return split
    number = torch.full((max([*chosen, *split.y.unique().tolist()]) + 1,), -1)
    number[torch.tensor(chosen, dtype=torch.long)] = torch.arange(len(chosen))
    y = number[split.y.cpu()]
    return Split(split.x[y >= 0], y[y >= 0])
