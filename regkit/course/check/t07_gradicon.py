"""The exercises of tutorial 07: which round trip ICON finds worse, and both penalties from two plain fields."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regkit import data
from regkit.course.check.exercise import Exercise, Hint, Mistake, function_of, one_of
from regkit.fields import compose, identity, jacobian_determinant
from regkit.types import Displacement

__all__ = ["dearer_trip", "gradicon_by_hand", "icon_by_hand", "there_and_back"]

_SIZE = 40  # voxels along both axes
_CLOSE, _ALIKE = 0.08, 0.03  # how near a right value is, and one that a known mistake gives; relative
TRIPS = ("shift", "ripple", "neither")
Penalty = Callable[[Displacement, Displacement], Tensor]

dearer_trip = Exercise(
    task=f"Say which round trip a mean squared distance finds worse: one of {', '.join(TRIPS)}.",
    praise="the harmless shift costs many times more than the ripple that folds: distance is blind to order.",
    prepare=one_of(TRIPS),
    reference=lambda: "shift",
    mistakes={
        "what ought to be": Hint(
            "it is the ripple that folds, so it ought to. But nothing in it ends further than two voxels from home."
        ).to(lambda: "ripple"),
        "undecided": Hint("compare the distances: six voxels everywhere, against two voxels at most.").to(
            lambda: "neither"
        ),
        "another word": lambda: "both",
    },
)


# ---------------------------------------------------------------------------------------------- two plain fields
@functools.cache
def there_and_back() -> tuple[Displacement, Displacement]:
    """Two displacements (2, 2, 40, 40) in voxels, of φ_AB and of φ_BA, that undo each other only roughly."""
    there = torch.cat([data.smooth_displacement((_SIZE,) * 2, amplitude=12, smoothness=6, seed=i) for i in (0, 1)])
    place = identity((_SIZE,) * 2) / (_SIZE - 1)
    window = (torch.pi * place).sin().clamp_min(0).prod(1, keepdim=True)  # nothing moves at the border
    waves = torch.tensor([3.0, 2.0]).view(1, 2, 1, 1)
    return window * there, window * (0.7 * (2 * torch.pi * waves * place).sin() - there)


def _both(trip: Callable[[Displacement, Displacement], Tensor], one: Callable[[Tensor], Tensor]) -> Penalty:
    """A penalty on what is left of both round trips, added."""
    return lambda first, second: one(trip(first, second)) + one(trip(second, first))


def _distance(left: Displacement) -> Tensor:
    return (left / (_SIZE - 1)).square().mean()


def _along(left: Displacement, axis: int) -> Tensor:
    return left.diff(dim=axis + 2).square().mean()


def _slopes(left: Displacement) -> Tensor:
    return _along(left, 0) + _along(left, 1)


_icon, _gradicon = _both(compose, _distance), _both(compose, _slopes)

_ICON_MISTAKES: Mapping[str, Mistake] = {
    "added": Hint(
        "first + second is not the round trip: the second displacement must be read where the first leads. Compose."
    ).written(_both(torch.add, _distance)),
    "in voxels": Hint(
        f"the errors are in voxels. Divide them by {_SIZE - 1}, the image's extent, before you square them."
    ).written(_both(compose, lambda left: left.square().mean())),
    "extent once": Hint(
        "divide the errors by the extent before you square them; it is squared along with them."
    ).written(_both(compose, lambda left: left.square().mean() / (_SIZE - 1))),
    "one order": Hint("half of it: φ_AB∘φ_BA and φ_BA∘φ_AB are both measured, and added.").written(
        lambda first, second: _distance(compose(first, second))
    ),
    "summed": Hint("a sum over voxels grows with the image. Take the mean over batch, components and voxels.").written(
        _both(compose, lambda left: (left / (_SIZE - 1)).square().sum())
    ),
    "lengths squared": Hint(
        "twice the value: the mean runs over the two components as well. Here .mean() of the whole tensor is meant."
    ).written(_both(compose, lambda left: (left / (_SIZE - 1)).square().sum(1).mean())),
    "absolute": Hint("these are distances, not their squares.").written(
        _both(compose, lambda left: (left / (_SIZE - 1)).abs().mean())
    ),
    "places": Hint(
        "this compares places with 0. Subtract the identity: what is left of x is φ_AB(φ_BA(x)) - x."
    ).written(_both(compose, lambda left: _distance(left + identity((_SIZE,) * 2)))),
}

_GRADICON_MISTAKES: Mapping[str, Mistake] = {
    "ICON": Hint("this is ICON. GradICON squares the differences of neighbouring errors, not the errors.").written(
        _icon
    ),
    "added": Hint(
        "first + second is not the round trip: the second displacement must be read where the first leads. Compose."
    ).written(_both(torch.add, _slopes)),
    "smoothness": Hint(
        "this makes each field smooth, as tutorial 04 did. GradICON leaves the fields free, and looks at their round "
        "trip."
    ).written(lambda first, second: _slopes(first) + _slopes(second)),
    "determinant": Hint(
        "this is (|J| - 1)²: shears and turns would be free. Equation 2 compares every entry of J with those of I."
    ).written(_both(compose, lambda left: (jacobian_determinant(left) - 1).square().mean())),
    "identity kept": Hint(
        "this is |J|² of the round trip. Subtract I: take the differences of φ_AB(φ_BA(x)) - x."
    ).written(_both(compose, lambda left: _slopes(left + identity((_SIZE,) * 2)))),
    "one axis": Hint("there are two axes to take differences along; this is axis 0 alone.").written(
        _both(compose, lambda left: _along(left, 0))
    ),
    "the other axis": Hint("there are two axes to take differences along; this is axis 1 alone.").written(
        _both(compose, lambda left: _along(left, 1))
    ),
    "one order": Hint("half of it: φ_AB∘φ_BA and φ_BA∘φ_AB are both measured, and added; so are both axes.").written(
        lambda first, second: _slopes(compose(first, second))
    ),
    "components summed": Hint(
        "twice the value: this is the Frobenius norm as printed. The program, and regkit, take the mean over the "
        "components."
    ).written(lambda first, second: 2 * _gradicon(first, second)),
    "in fractions": Hint(
        "errors in fractions of the image, but steps of one voxel: a slope needs one unit for both. Leave both in "
        "voxels."
    ).written(lambda first, second: _gradicon(first, second) / (_SIZE - 1) ** 2),
    "summed": Hint("a sum over voxels grows with the image. Take the mean over batch, components and voxels.").written(
        _both(compose, lambda left: _slopes(left) * left.numel())
    ),
}


# ---------------------------------------------------------------------------------------------- their judge
@dataclass(frozen=True)
class _Tried:
    """What a penalty said of the exercise's fields, and whether a network could learn from it."""

    value: float
    exchanged: float  # the value with φ_AB and φ_BA exchanged
    trains: bool


def _try(answer: Any) -> _Tried:
    penalty = function_of("two displacements", answer)
    first, second = (field.clone().requires_grad_() for field in there_and_back())
    value = penalty(first, second)
    if isinstance(value, (tuple, list)):
        raise ValueError(f"one number is wanted, received {len(value)}: add them")
    if torch.as_tensor(value).numel() != 1:
        raise ValueError(f"one number is wanted, received {tuple(value.shape)}: take the mean")
    exchanged = float(torch.as_tensor(penalty(second, first)).detach())
    trains = isinstance(value, Tensor) and value.requires_grad
    if trains:
        value.sum().backward()
        trains = all(field.grad is not None and bool(field.grad.any()) for field in (first, second))
    return _Tried(float(torch.as_tensor(value).detach()), exchanged, trains)


def _alike(tried: _Tried, other: _Tried, tolerance: float = _ALIKE) -> bool:
    return abs(tried.value - other.value) <= tolerance * abs(other.value)


def _exercise(task: str, praise: str, right: Penalty, mistakes: Mapping[str, Mistake], hint: str) -> Exercise:
    """A penalty to write: a right value and a gradient are wanted, each known mistake has its hint."""
    one_way = mistakes["one order"].make()
    return Exercise(
        task=task,
        praise=praise,
        prepare=_try,
        reference=lambda: right,
        alike=_alike,
        right=lambda tried: _alike(tried, _try(right), _CLOSE),
        mistakes={
            **mistakes,
            "nothing": Hint(hint).otherwise(lambda first, second: torch.zeros(())),
            "no gradient": Hint(
                "the value is right, but no gradient reaches both fields: no .item(), no .detach(), no numpy."
            ).to(lambda: lambda first, second: right(first, second).detach(), lambda tried: not tried.trains),
            "one order twice": Hint(
                "exchange first and second, and your number changes: one order is counted twice, the other never."
            ).to(
                lambda: lambda first, second: 2 * one_way(first, second),
                lambda tried: abs(tried.exchanged / tried.value - 1) > _ALIKE,
            ),
            "every voxel": lambda: lambda first, second: compose(first, second).square(),
        },
    )


icon_by_hand = _exercise(
    "Write my_icon(first, second): the mean squared error of both round trips, added, in fractions of the image.",
    "the same number as regkit's `losses.icon`: how far from home the round trips end.",
    _icon,
    _ICON_MISTAKES,
    "another number. For each order: compose, divide by the extent, square, take the mean; add both.",
)
gradicon_by_hand = _exercise(
    "Write my_gradicon(first, second): the mean squared differences between neighbours' errors, axes and orders added.",
    "a slope is voxels per voxel, so no size of an image occurs in it: one weight serves every resolution.",
    _gradicon,
    _GRADICON_MISTAKES,
    "another number. For each order: compose; along each axis take differences of neighbours, square, take the mean; "
    "add all.",
)
