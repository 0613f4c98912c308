"""The inputs of an exported network: what they mean, examples of them, and the code that makes some."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ganrun.data.dataset import DataSpec
from ganrun.export.source import Source
from ganrun.latent import Data, Normal, Uniform


@dataclass(frozen=True)
class Input:
    """An input of shape (B, *shape). about: what it is. draw: n of them, from torch's global random state.

    numpy, torch: expressions of `n` (and of NumPy's generator `rng`) that make n of them. stand_in: whether these are
    no values of the kind that the network was trained on, which only the user can supply.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    about: str
    draw: Callable[[int], Tensor]
    numpy: str
    torch: str
    stand_in: bool = False


def inputs_of(source: Source, uint8: bool, noise: int) -> list[Input]:
    """The inputs in their order. uint8: whether D takes bytes. noise: the number of random values of a sample."""
    first = latent_input(source) if source.player == "generator" else data_input(source.spec, uint8)
    found = [first, *([label_input(source)] if source.num_classes else [])]
    return [*found, *([noise_input(noise)] if noise else [])]


def examples(inputs: Sequence[Input], num: int, seed: int = 0) -> tuple[Tensor, ...]:
    """`num` examples of each input, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return tuple(given.draw(num).contiguous() for given in inputs)


def latent_input(source: Source) -> Input:
    latent, dim = source.latent, source.latent.dim
    about, in_numpy, in_torch = "independent values, N(0, 1)", normal_numpy((dim,)), f"torch.randn(n, {dim})"
    if isinstance(latent, Uniform):
        low, high = latent.low, latent.high
        about = f"independent values, uniform in [{low:g}, {high:g})"
        in_numpy = f"rng.uniform({low:g}, {high:g}, (n, {dim})).astype(np.float32)"
        in_torch = f"torch.empty(n, {dim}).uniform_({low:g}, {high:g})"
    elif isinstance(latent, Data):
        mean, std = source.spec.mean, source.spec.std
        about = f"training examples, flattened and standardized: (x - {mean:g}) / {std:g}"
    elif not isinstance(latent, Normal):
        about = f"latents as {type(latent).__module__}.{type(latent).__name__} draws them"
    is_known = type(latent) in (Normal, Uniform)
    return Input("z", (dim,), "float32", about, lambda n: latent(n).float(), in_numpy, in_torch, not is_known)


def data_input(spec: DataSpec, uint8: bool) -> Input:
    """D's input, an image (H, W, C) of bytes if `uint8`, else a sample in the data's value range."""
    shape = shape_of(spec, uint8)
    sizes = ", ".join(map(str, shape))
    about, in_numpy, in_torch = f"{'images' if spec.is_image else 'samples'}, {scale_of(spec)}", "", ""
    if uint8:
        about = "images: height, width, channel; 0 is black and 255 white"
        in_numpy = f"rng.integers(0, 256, (n, {sizes}), dtype=np.uint8)"
        in_torch = f"torch.randint(256, (n, {sizes}), dtype=torch.uint8)"
    elif spec.value_range:
        low, high = spec.value_range
        in_numpy = f"rng.uniform({low:g}, {high:g}, (n, {sizes})).astype(np.float32)"
        in_torch = f"torch.empty(n, {sizes}).uniform_({low:g}, {high:g})"
    else:
        in_numpy = f"{spec.mean:g} + {spec.std:g} * {normal_numpy(shape)}"
        in_torch = f"{spec.mean:g} + {spec.std:g} * torch.randn(n, {sizes})"
    return Input("x", shape, "uint8" if uint8 else "float32", about, drawn_by(spec, uint8), in_numpy, in_torch, True)


def drawn_by(spec: DataSpec, uint8: bool) -> Callable[[int], Tensor]:
    """Random inputs of D, over the range of the data."""
    shape = shape_of(spec, uint8)
    if uint8:
        return lambda n: torch.randint(256, (n, *shape), dtype=torch.uint8)
    if spec.value_range:
        low, high = spec.value_range
        return lambda n: torch.empty(n, *shape).uniform_(low, high)
    return lambda n: spec.mean + spec.std * torch.randn(n, *shape)


def label_input(source: Source) -> Input:
    num = source.num_classes
    names = ", ".join(f"{i} {name}" if name != str(i) else name for i, name in enumerate(source.spec.classes[:20]))
    about = f"the class, from 0 to {num - 1}: {names}{', ...' if num > 20 else ''}"
    return Input("y", (), "int64", about, lambda n: torch.arange(n) % num, f"np.arange(n) % {num}",
                 f"torch.arange(n) % {num}")  # fmt: skip


def noise_input(size: int) -> Input:
    about = "independent values, uniform in [0, 1): the random numbers of its layers, such as dropout that stays on"
    in_numpy, in_torch = f"rng.random((n, {size}), dtype=np.float32)", f"torch.rand(n, {size})"
    return Input("noise", (size,), "float32", about, lambda n: torch.rand(n, size), in_numpy, in_torch)


def normal_numpy(shape: Sequence[int]) -> str:
    return f"rng.standard_normal((n, {', '.join(map(str, shape))}), dtype=np.float32)"


def shape_of(spec: DataSpec, uint8: bool) -> tuple[int, ...]:
    """The shape of a sample: (H, W, C) for bytes, else that of the data."""
    return (*spec.shape[1:], spec.shape[0]) if uint8 else spec.shape


def scale_of(spec: DataSpec) -> str:
    """The values of the data, in words."""
    if spec.gcn:
        return f"each with its mean subtracted and scaled to an L2 norm of {spec.gcn:g} (global contrast normalization)"
    if spec.value_range:
        low, high = spec.value_range
        return f"values in [{low:g}, {high:g}]" + (f": {low:g} is black, {high:g} white" if spec.is_image else "")
    return f"in the data's units{f' ({spec.unit})' if spec.unit else ''}, with mean {spec.mean:g} and std {spec.std:g}"
