"""The digits that come with scikit-learn."""

import torch

from ganrun.data.dataset import Dataset, Split, image_spec, split_last
from ganrun.data.seeds import generator


def digits(num_valid: int = 250, num_test: int = 250) -> Dataset:
    """1,797 handwritten digits, 8x8 gray with 17 levels, ten classes. Alpaydin and Kaynak 1998.

    The file is sorted by writer, so the splits are cut from one fixed shuffle.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]  # (N, 1, 8, 8)
    order = torch.randperm(len(x), generator=generator(0, "digits"))
    train, valid, test = split_last(
        Split(x[order], torch.from_numpy(bunch.target).long()[order]), [num_valid, num_test]
    )
    return Dataset(image_spec(train.x, "0123456789"), train, valid, test)
