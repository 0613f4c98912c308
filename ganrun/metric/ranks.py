"""How often one set of numbers exceeds another."""

import torch
from torch import Tensor


def share_above(a: Tensor, b: Tensor) -> Tensor:
    """The share of pairs of a (n,) and b (m,) with a > b, a scalar; a tie counts one half. .5: a and b are alike.

    It is the Mann-Whitney statistic U / (n m). The pairs are counted by sorting, in (n + m) log m steps, and exactly;
    the share is rounded to the precision of a.

    >>> share_above(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])).item()  # a tie, and two of four
    0.625
    """
    b = b.detach().sort().values
    a = a.detach().contiguous()
    less, not_greater = torch.searchsorted(b, a), torch.searchsorted(b, a, right=True)  # (n,)
    lead = (less + not_greater - len(b)).sum()  # the pairs with a > b minus those with a < b
    return (lead.to(a.dtype) / (len(a) * len(b)) + 1) / 2
