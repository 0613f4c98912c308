"""ganrun on a processor without arithmetic for bf16, where torch's own products in bf16 take ten times as long.

    python benchmarks/bf16.py experiment=goodfellow2014/mnist train.precision=bf16

Takes what `ganrun` takes. A product of bf16 matrices is made as hardware for bf16 makes it: the factors are exact in
float32, in which they are multiplied and summed, and the result is rounded to bf16. All else is torch's own bf16. It
prints first how far such a product lies from torch's own, in units of the rounding: sums in another order may round to
a neighbour.
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
    """Products of bf16 matrices by way of float32."""

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if operation not in PRODUCTS or kwargs or any(factor.dtype != torch.bfloat16 for factor in args):
            return operation(*args, **(kwargs or {}))
        return operation(*(factor.float() for factor in args)).bfloat16()


def distance(size: int = 256) -> tuple[float, float]:
    """The share of entries that differ from those of torch's own product, and by how many units at most."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(size, size, generator=generator).bfloat16() for _ in range(3))
    own = torch.addmm(c, a, b)
    with FastProducts():
        ours = torch.addmm(c, a, b)
    units = (ours.float() - own.float()).abs() / ulp(own)
    return (units > 0).float().mean().item(), units.max().item()


def ulp(x: Tensor) -> Tensor:
    """The distance of bf16 numbers, of 8 bits, to their next."""
    return torch.exp2(torch.floor(torch.log2(x.float().abs())) - 7)


if __name__ == "__main__":
    share, most = distance()
    print(f"products   {share:.2%} of the entries round otherwise than torch's own, by {most:g} units at most")
    with FastProducts():
        sys.exit(main())
