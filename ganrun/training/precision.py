"""The precision of the arithmetic: autocast, TF32, and the scaling of gradients that float16 needs."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from ganrun.training.eager import Grads

log = logging.getLogger("ganrun")

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 2.0**-10  # of a scaler that finds an overflow in nearly every step


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A new context each time: weights cast under no_grad must not be reused in passes with gradients."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()


def set_tf32(precision: str, device: torch.device) -> None:
    """Let CUDA round the inputs of float32 products to TF32, or not, which is not torch's default for convolutions."""
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        log.warning("train.precision=tf32 has no effect: this device (%s) computes in fp32.", device.type)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def make_scaler(precision: str, device: torch.device) -> GradScaler | None:
    """A dynamic scale of a player's loss, without which small gradients are 0 in float16. None if it is not needed.

    Micikevicius et al. 2018, arXiv:1710.03740, section 3.2.
    """
    return GradScaler(device.type) if precision == "fp16" else None


def scaled(loss: Tensor, scaler: GradScaler | None) -> Tensor:
    if scaler is None:
        return loss
    product: Tensor = scaler.scale(loss)
    return product


def scaled_step(optimizer: Optimizer, params: Sequence[Tensor], scaler: GradScaler) -> Callable[[Grads], Grads]:
    """A function that makes one optimizer step with the gradients of a scaled loss, and returns them without the scale.

    If one of them is not finite, the step is skipped and the scale is halved.
    """

    def step(grads: Grads) -> Grads:
        for param, grad in zip(params, grads, strict=True):
            param.grad = None if grad is None else grad.clone()  # two may share memory, and are changed in place
        scaler.unscale_(optimizer)
        found = tuple(param.grad for param in params)
        scaler.step(optimizer)
        scaler.update()
        for param in params:
            param.grad = None
        return found

    return step
