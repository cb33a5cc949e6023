"""Several processes that train one model: who they are, how long they wait for each other, what they share."""

from __future__ import annotations

import atexit
import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from regkit.types import InputError


def limit() -> float:
    """Seconds that processes wait for each other: the environment variable REGKIT_TIMEOUT, 300 where it is not set.

    Raises:
        ValueError: REGKIT_TIMEOUT is no positive number.
    """
    text = os.environ.get("REGKIT_TIMEOUT", "300")
    if not text.isdecimal() or not int(text):
        raise InputError("REGKIT_TIMEOUT must be a number of seconds, 1 or more", f"{text!r}", "set or unset it")
    return int(text)


def join(device: torch.device) -> tuple[int, int]:
    """This process's rank and the number of processes; joins the group that torchrun describes, until the exit."""
    if not distributed.is_available():
        return 0, 1
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(seconds=limit()))
        atexit.register(distributed.destroy_process_group)
    if not distributed.is_initialized():
        return 0, 1
    with answering("a training begins"):
        distributed.barrier()  # what the first process wrote in a training before is there for all
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def answering(when: str) -> Iterator[None]:
    """A block in which processes wait for each other; one that does not answer within the limit is told in words."""
    start = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if not distributed.is_initialized() or time.monotonic() - start < limit():
            raise
        raise InputError(
            f"the processes of a training must answer each other within {limit():g} seconds",
            f"none from another process when {when}",
            "look for the one that stopped, and start the same training again (REGKIT_TIMEOUT=900 waits longer)",
        ) from error


@contextmanager
def one_statistic(model: nn.Module) -> Iterator[None]:
    """Batch normalisation, in training mode, over the batches of all processes as if they were one."""
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    layers = [module for module in model.modules() if several and isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.forward = functools.partial(_normalised, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class _Sum(torch.autograd.Function):
    """The sum over all processes, which is its own adjoint."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


def _normalised(layer: Any, features: Tensor) -> Tensor:
    """(x - E x) / √(Var x + ε) γ + β, the moments over all processes; the running ones as of one process."""
    if not layer.training:
        return type(layer).forward(layer, features)
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    axes = [axis for axis in range(wide.dim()) if axis != 1]
    count = _Sum.apply(wide.new_tensor(wide.numel() / wide.shape[1]))
    shape = (1, -1, *[1] * (wide.dim() - 2))
    mean = _Sum.apply(wide.sum(axes)) / count
    centred = wide - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(axes)) / count
    if layer.track_running_stats:
        with torch.no_grad():
            layer.num_batches_tracked += 1
            share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
            layer.running_mean.lerp_(mean.to(layer.running_mean), share)
            layer.running_var.lerp_((variance * count / (count - 1)).to(layer.running_var), share)
    result = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        result = result * layer.weight.view(shape) + layer.bias.view(shape)
    return result.to(features.dtype)
