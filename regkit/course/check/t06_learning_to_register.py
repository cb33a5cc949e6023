"""The exercises of tutorial 06: which shift of the data breaks a network, and how a broken answer is mended."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regkit import data
from regkit.course.check.exercise import Exercise, Hint, Unanswered, is_blank, one_of, tidy
from regkit.metrics import evaluate
from regkit.optimise import optimise_field
from regkit.types import Displacement, Pair, Registration

__all__ = ["breaking_shift", "inverted_pairs", "mended"]

SHIFTS = ("quarter turn", "noise", "blur", "fainter")  # the last one breaks it; the tutorial measures that it does
STARTS = ("nothing", "network")  # of the optimiser

breaking_shift = Exercise(
    task=f"Name the shift that breaks the network: one of {', '.join(SHIFTS)}.",
    praise="the picture looks the same, but the network has never seen so small values. Every other change keeps them.",
    prepare=one_of(SHIFTS),
    reference=lambda: "fainter",
    mistakes={
        "turned": Hint(
            "the shapes of the training are turned by every angle, so turned shapes are nothing new to it."
        ).to(lambda: "quarter turn"),
        "noisy": Hint("an ugly picture, but a convolution sums over many voxels, and much of the noise cancels.").to(
            lambda: "noise"
        ),
        "blurred": Hint(
            "large shapes stay where they are under a little blur: bright remains bright, and dark remains dark."
        ).to(lambda: "blur"),
        "another word": lambda: "size",
    },
)


Mending = tuple[Registration, Registration, str]


@dataclass(frozen=True)
class Found:
    """Two displacements of the pairs, from nothing and from the network, and which start is said to be better."""

    displacements: tuple[Displacement, Displacement]
    better: str

    def scores(self, name: str) -> list[float]:
        """Of both, in this order."""
        return [evaluate(each, inverted_pairs())[name] for each in self.displacements]


@functools.cache
def inverted_pairs() -> Pair:
    """Eight pairs of shapes that no training sees, black on white: what is to be mended."""
    pairs = data.ShapePairs(64, size=64, split="test")[list(range(8))]
    return Pair(1 - pairs.moving, 1 - pairs.fixed, pairs.moving_labels, pairs.fixed_labels)


def _optimised(**options: Any) -> Registration:
    """The pairs, registered as the tutorial does it."""
    pair = inverted_pairs()
    usual: dict[str, Any] = {"output": "velocity", "weight": 0.002, "learning_rate": 0.3, "steps": 200}
    return optimise_field(pair.moving, pair.fixed, **(usual | options))


@functools.cache
def _from_nothing() -> Registration:
    return _optimised()


@functools.cache
def _from_a_wrong_start() -> Registration:
    """In place of the network's answer for these pairs: the same, but for folds in two corners."""
    displacement = _from_nothing().displacement.clone()
    displacement[..., 2:4, 2:4] += 3
    displacement[..., -4:-2, -4:-2] += 3
    return Registration(displacement)


@functools.cache
def _loose() -> Registration:
    return _optimised(output="displacement", weight=0.0, steps=100)


@functools.cache
def _stiff() -> Registration:
    return _optimised(weight=0.05, steps=100)


def _scaled(factor: float) -> Mending:
    return Registration(factor * _from_nothing().displacement), _from_a_wrong_start(), "nothing"


def _found(answer: Any) -> Displacement:
    given = answer.displacement if isinstance(answer, Registration) else answer
    displacement = torch.as_tensor(given, dtype=torch.float32).detach()
    wanted = (*inverted_pairs().fixed.shape[:1], 2, *inverted_pairs().fixed.shape[2:])
    if tuple(displacement.shape) != wanted:
        raise ValueError(f"a Registration or displacement {wanted} is wanted, received {tuple(displacement.shape)}")
    return displacement


def _three_parts(answer: Any) -> Found:
    if isinstance(answer, Registration | torch.Tensor):
        raise ValueError("this is one registration: two are wanted, and a word")
    if isinstance(answer, str | dict) or len(answer) != 3:
        raise ValueError("three parts are wanted: two registrations and a word")
    if any(is_blank(part) for part in answer):
        raise Unanswered("Part of it is still blank.")
    nothing, network, better = answer
    word = tidy(better)
    if word not in STARTS:
        raise ValueError(f"the third part must be {' or '.join(STARTS)}, received {better!r}")
    return Found((_found(nothing), _found(network)), str(word))


mended = Exercise(
    task="Give (from_nothing, from_network, word): check.inverted_pairs() registered from both starts, and the better "
    'start, "nothing" or "network".',
    praise="eight pairs that the network registered badly now fit, and you measured what a start is worth.",
    prepare=_three_parts,
    reference=lambda: (_from_nothing(), _from_a_wrong_start(), "nothing"),
    mistakes={
        "not finite": Hint("a displacement is not finite: lower the learning rate.").to(
            lambda: _scaled(float("nan")), lambda found: not all(each.isfinite().all() for each in found.displacements)
        ),
        "nothing moves": Hint(
            "nothing moves: no voxel goes further than half a voxel. Was it optimised, and for enough steps?"
        ).to(lambda: _scaled(0.0), lambda found: any(bool(each.abs().max() < 0.5) for each in found.displacements)),
        "backwards": Hint(
            "it moves the wrong way. optimise_field takes (moving, fixed), in this order, and -u is no inverse."
        ).to(lambda: _scaled(-1.0), lambda found: min(found.scores("dice")) < min(found.scores("dice_before"))),
        "one start for both": Hint(
            "both registrations are the same: the second one starts at start=before_fix.velocity."
        ).to(lambda: (_from_nothing(), _from_nothing(), "nothing"), lambda found: torch.equal(*found.displacements)),
        "no smoothness": Hint("both maps fold. Optimise a velocity, and keep the network's weight, 0.002.").to(
            lambda: (_loose(), Registration(_loose().displacement + 1e-4), "nothing"),
            lambda found: min(found.scores("folds_percent")) > 0.5,
        ),
        "half way": Hint("Dice is below 0.95: take more steps, or larger ones.").to(
            lambda: _scaled(0.5), lambda found: min(found.scores("dice")) < 0.95
        ),
        "a large weight": Hint(
            "neither map folds, so nothing tells them apart: a large weight hides the start. Take the network's 0.002."
        ).to(
            lambda: (_stiff(), Registration(0.999 * _stiff().displacement), "nothing"),
            lambda found: max(found.scores("folds_percent")) == 0,
        ),
        "the wrong start": Hint(
            "count the folds of both: Dice is the same, and the start that you named leaves more of them."
        ).to(
            lambda: (_from_nothing(), _from_a_wrong_start(), "network"),
            lambda found: STARTS.index(found.better) != int(np.argmin(found.scores("folds_percent"))),
        ),
        "one registration": _from_nothing,
        "two parts": lambda: (_from_nothing(), _from_a_wrong_start()),
        "another word": lambda: (_from_nothing(), _from_a_wrong_start(), "both"),
        "one pair only": lambda: (_from_nothing().displacement[:1], _from_a_wrong_start(), "nothing"),
    },
)
