"""Runs ganrun on a processor without bf16 arithmetic, where torch's own bf16 products take ten times as long.

    python benchmarks/bf16.py experiment=goodfellow2014/mnist train.precision=bf16

Takes the same arguments as `ganrun`. Products of bf16 matrices are computed as bf16 hardware does: the factors are
converted to float32, which is exact, multiplied and summed in float32, and the result is rounded to bf16. All other
operations are torch's own. It first prints the difference between such a product and torch's own, in units in the last
place: a different order of summation can change the rounding.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ganrun.cli.main import main

PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


class FastProducts(TorchDispatchMode):
    """Computes products of bf16 matrices in float32."""

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if operation not in PRODUCTS or kwargs or any(factor.dtype != torch.bfloat16 for factor in args):
            return operation(*args, **(kwargs or {}))
        return operation(*(factor.float() for factor in args)).bfloat16()


def distance(size: int = 256) -> tuple[float, float]:
    """The share of entries that differ from torch's own product, and the largest difference in ulps (`ulp`)."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(size, size, generator=generator).bfloat16() for _ in range(3))
    own = torch.addmm(c, a, b)
    with FastProducts():
        ours = torch.addmm(c, a, b)
    units = (ours.float() - own.float()).abs() / ulp(own)
    return (units > 0).float().mean().item(), units.max().item()


def ulp(x: Tensor) -> Tensor:
    """The unit in the last place of bf16 numbers, which have 8 significant bits."""
    return torch.exp2(torch.floor(torch.log2(x.float().abs())) - 7)


if __name__ == "__main__":
    share, most = distance()
    print(f"products   {share:.2%} of the entries differ from torch's own, by at most {most:g} units in the last place")
    with FastProducts():
        sys.exit(main())
