"""The exercises of tutorial 06: which shift of the data breaks a network, and how a broken answer is mended."""

from __future__ import annotations

import functools
from typing import Any

import torch

from regkit import data
from regkit.check.exercise import Exercise
from regkit.metrics import evaluate
from regkit.optimise import optimise_field
from regkit.types import Displacement, Pair, Registration

SHIFTS = ("quarter turn", "noise", "blur", "inverted")  # the last one breaks it; the tutorial measures that it does


def _word(answer: Any) -> str:
    answer = answer.strip().lower() if isinstance(answer, str) else answer
    if answer not in SHIFTS:
        raise ValueError(f"one of {', '.join(SHIFTS)} is wanted, received {answer!r}")
    return str(answer)


breaking_shift = Exercise(
    task=f"Name the shift that breaks the network: one of {', '.join(SHIFTS)}.",
    praise="bright shapes on black are all that the network has ever seen. Every other change leaves them so.",
    prepare=_word,
    rules=(
        (
            lambda answer: answer == "quarter turn",
            "the shapes of the training are turned by every angle, so turned shapes are nothing new to it.",
        ),
        (
            lambda answer: answer == "noise",
            "an ugly picture, but a convolution sums over many voxels, and much of the noise cancels.",
        ),
        (
            lambda answer: answer == "blur",
            "large shapes stay where they are under a little blur: bright remains bright, and dark remains dark.",
        ),
    ),
    reference=lambda: "inverted",
    mistakes={
        "turned": lambda: "quarter turn",
        "noisy": lambda: "noise",
        "blurred": lambda: "blur",
        "another word": lambda: "size",
    },
)


@functools.cache
def inverted_pairs() -> Pair:
    """Eight pairs of shapes that no training sees, black on white: what is to be mended."""
    pairs = data.ShapePairs(64, size=64, split="test")[list(range(8))]
    return Pair(1 - pairs.moving, 1 - pairs.fixed, pairs.moving_labels, pairs.fixed_labels)


@functools.cache
def _mended() -> Registration:
    pair = inverted_pairs()
    options: dict[str, Any] = {"output": "velocity", "weight": 0.002, "learning_rate": 0.3, "steps": 200}
    return optimise_field(pair.moving, pair.fixed, **options)


@functools.cache
def _loose() -> Displacement:
    pair = inverted_pairs()
    return optimise_field(pair.moving, pair.fixed, weight=0.0, learning_rate=0.3, steps=100).displacement


def _one_for_all() -> Displacement:
    return _mended().displacement[:1]


def _found(answer: Any) -> Displacement:
    given = answer.displacement if isinstance(answer, Registration) else answer
    if isinstance(given, list | tuple):
        given = [torch.as_tensor(part) for part in given]
        given = (torch.cat if given and given[0].dim() == 4 else torch.stack)(given)
    displacement = torch.as_tensor(given, dtype=torch.float32).detach()
    wanted = (*inverted_pairs().fixed.shape[:1], 2, *inverted_pairs().fixed.shape[2:])
    if tuple(displacement.shape) != wanted:
        raise ValueError(f"a Registration or displacement {wanted} is wanted, received {tuple(displacement.shape)}")
    return displacement


def _dice(displacement: Displacement) -> float:
    return evaluate(displacement, inverted_pairs())["dice"]


mended = Exercise(
    task="Give the registration of check.inverted_pairs(): mean Dice of 0.95 or more, folds below 0.5 %.",
    praise="eight pairs that the network could not register are registered, without training anything.",
    prepare=_found,
    rules=(
        (lambda found: not found.isfinite().all(), "the displacement is not finite: lower the learning rate."),
        (
            lambda found: bool(found.abs().max() < 0.5),
            "nothing moves: no voxel goes further than half a voxel. Was it optimised, and for enough steps?",
        ),
        (
            lambda found: _dice(found) < _dice(torch.zeros_like(found)),
            "it moves the wrong way. optimise_field takes (moving, fixed), in this order, and -u is no inverse.",
        ),
        (
            lambda found: evaluate(found, inverted_pairs())["folds_percent"] > 0.5,
            "the map folds. Optimise a velocity, keep some weight; and a wrong start may be worse than none.",
        ),
        (
            lambda found: _dice(found) < 0.95,
            "Dice is below 0.95: take more steps, or larger ones.",
        ),
    ),
    reference=_mended,
    mistakes={
        "nothing": lambda: torch.zeros_like(_mended().displacement),
        "not finite": lambda: _mended().displacement / 0,
        "backwards": lambda: Registration(-_mended().displacement),
        "half way": lambda: Registration(0.5 * _mended().displacement),
        "no smoothness": _loose,
        "one pair only": _one_for_all,
    },
)
