"""The exercise of tutorial 10: the plain convolution that a block with one cluster is."""

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from regkit.course.check.exercise import Exercise, Hint, function_of, two_returned
from regkit.models.sacbnet import adaptive_convolution

__all__ = ["one_cluster", "plain_convolution"]

_OUT, _IN, _SHAPE = 5, 4, (9, 12)
_TAPS = 9


class OneCluster(NamedTuple):
    """A block's numbers where its map has one cluster.

    features: (1, 4, 9, 12). weight: (5, 4, 9), shared. attention: (9,). bias: (5,).
    """

    features: Tensor
    weight: Tensor
    attention: Tensor
    bias: Tensor


@functools.cache
def one_cluster(seed: int = 0) -> OneCluster:
    """Numbers to try a plain convolution on."""
    generator = torch.Generator().manual_seed(seed)
    features, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((1, _IN, *_SHAPE), (_OUT, _IN, _TAPS), (_OUT,))
    )
    return OneCluster(features, weight, torch.rand(_TAPS, generator=generator), bias)


def _adapted(numbers: OneCluster) -> Tensor:
    """What the block's convolution makes of them: every voxel is in cluster 0."""
    index = torch.zeros(1, *_SHAPE, dtype=torch.long)
    batched = numbers.attention[None, None], numbers.bias[None, None]
    return adaptive_convolution(numbers.features, numbers.weight, *batched, index)


def _right(weight: Tensor, attention: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return (attention * weight).reshape(_OUT, _IN, 3, 3), bias


def _try(answer: Any) -> Tensor:
    """What conv2d makes of a learner's kernel and bias."""
    function, numbers = function_of("weight, attention and bias", answer), one_cluster()
    given = function(numbers.weight.clone(), numbers.attention.clone(), numbers.bias.clone())
    given = two_returned("my_plain", given, "tensors, a kernel and a bias")
    for name, part, shape in zip(("kernel", "bias"), given, ((_OUT, _IN, 3, 3), (_OUT,)), strict=True):
        if tuple(getattr(part, "shape", ())) != shape:
            raise ValueError(f"the {name} must have the shape {shape}, received {tuple(getattr(part, 'shape', ()))}")
    return F.conv2d(numbers.features, given[0], given[1], padding=1)


def _alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4)


plain_convolution = Exercise(
    task="Write my_plain(weight, attention, bias): the kernel (out, in, 3, 3) and the bias (out,) for F.conv2d.",
    praise="one cluster, one kernel: the adaptive convolution is conv2d(p, a ⊙ W, b), whatever the map.",
    prepare=_try,
    reference=lambda: _right,
    alike=_alike,
    right=lambda made: _alike(made, _adapted(one_cluster())),
    mistakes={
        "no attention": Hint(
            "this is the shared W alone. One cluster is left, and its attention scales each tap."
        ).written(lambda weight, attention, bias: (weight.reshape(_OUT, _IN, 3, 3), bias)),
        "no bias": Hint("the kernel is right. The cluster also has a bias: return it.").written(
            lambda weight, attention, bias: (_right(weight, attention, bias)[0], torch.zeros_like(bias))
        ),
        "neither": Hint(
            "W alone, and no bias: the one cluster has an attention for the taps and a bias for the outputs."
        ).written(lambda weight, attention, bias: (weight.reshape(_OUT, _IN, 3, 3), torch.zeros_like(bias))),
        "sigmoid twice": Hint("these attentions are between 0 and 1 already: the sigmoid was taken.").written(
            lambda weight, attention, bias: _right(weight, attention.sigmoid(), bias)
        ),
        "softmax": Hint(
            "the attention is no softmax: its nine numbers need not add up to 1. Take them as they are."
        ).written(lambda weight, attention, bias: _right(weight, attention.softmax(0), bias)),
        "mean attention": Hint(
            "one number for all taps: only the strength would change. Each tap has a number of its own."
        ).written(lambda weight, attention, bias: _right(weight, attention.mean().expand(_TAPS), bias)),
        "transposed": Hint(
            "rows and columns of the kernel are exchanged: tap k lies at row k // 3, column k % 3."
        ).written(lambda weight, attention, bias: (_right(weight, attention, bias)[0].mT.contiguous(), bias)),
        "flipped": Hint(
            "the kernel is turned by 180 degrees. conv2d does not flip: it already is the sum of eq. 6."
        ).written(lambda weight, attention, bias: (_right(weight, attention, bias)[0].flip(2, 3), bias)),
        "added": Hint("the attention is added to W. It multiplies: 0 closes a tap, 1 leaves it as it is.").written(
            lambda weight, attention, bias: _right(weight + attention, torch.ones(_TAPS), bias)
        ),
        "divided by the taps": Hint(
            "nine times too small: a convolution sums over the taps, and takes no mean."
        ).written(lambda weight, attention, bias: _right(weight / _TAPS, attention, bias)),
        "something else": Hint(
            "another result than the block's. Write eq. 6 with one n: which number scales w[o, i, k]?"
        ).otherwise(lambda weight, attention, bias: (_right(weight, attention, bias)[0] * 1.5, bias)),
        "nine taps in a row": lambda: lambda weight, attention, bias: (attention * weight, bias),
        "the kernel only": lambda: lambda weight, attention, bias: _right(weight, attention, bias)[0],
    },
)
