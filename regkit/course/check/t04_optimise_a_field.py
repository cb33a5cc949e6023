"""The exercise of tutorial 04: a registration whose picture is right and whose map folds."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from scipy.ndimage import binary_dilation, label
from torch import Tensor

from regkit import data
from regkit.course.check.exercise import Exercise, Hint
from regkit.fields import difference, identity, jacobian_determinant
from regkit.types import Displacement, Pair

__all__ = ["beautiful_picture", "hidden_folds"]

_BUMPS = (  # centre (row, column), width and (down, right) height, voxels: in flat parts of the picture
    ((28.0, 26.0), 2.2, (4.2, 4.3)),
    ((51.0, 40.0), 2.2, (-4.1, 3.7)),
    ((10.0, 56.0), 1.9, (4.3, -1.8)),
)
_MOST = 1.2  # times as many voxels as fold may be marked: other differences than the central ones move the edge
_LEAST = 2 / 3  # of the folded voxels must be marked, for the same reason not all of them


@functools.cache
def beautiful_picture() -> tuple[Pair, Displacement]:
    """A pair, and a displacement (1, 2, 64, 64) that lays moving onto fixed and folds where no edge shows it."""
    pair = data.synthetic_pair(dim=2, seed=0, motion=0.1)
    assert pair.displacement is not None  # a synthetic pair knows its truth
    displacement = pair.displacement.clone()
    places = identity(tuple(displacement.shape[2:]))[0]
    for centre, width, height in _BUMPS:
        distance = (places - torch.tensor(centre)[:, None, None]).norm(dim=0)
        displacement += torch.tensor(height)[:, None, None] * torch.exp(-((distance / width) ** 2) / 2)
    return pair, displacement


def _determinant() -> Tensor:
    return jacobian_determinant(beautiful_picture()[1])[0, 0]


def _folds() -> Tensor:
    return _determinant() <= 0


def _not_positive(form: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Where a form of ∂u0/∂x0, ∂u0/∂x1, ∂u1/∂x0, ∂u1/∂x1 is not positive."""
    displacement = beautiful_picture()[1]
    a, b, c, d = (difference(displacement, axis)[0, component] for component in range(2) for axis in range(2))
    return form(a, b, c, d) <= 0


def _mask(answer: Any) -> Tensor:
    mask = torch.as_tensor(answer)
    mask = mask.reshape(mask.shape[-2:]) if mask.dim() >= 2 else mask
    if mask.shape != _folds().shape:
        raise ValueError(f"one value for each of 64 x 64 voxels is wanted, received the shape {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"True and False are wanted, received {mask.dtype}: compare the determinant with 0")
    return mask


def _hits_every_fold(mask: Tensor) -> bool:
    regions, count = label(_folds().numpy(), torch.ones(3, 3).numpy())
    return len(set(regions[mask.numpy()]) - {0}) == count


def _hits_folds_only(mask: Tensor) -> bool:
    near = torch.from_numpy(binary_dilation(_folds().numpy(), torch.ones(3, 3).numpy()))
    return not bool((mask & ~near).any())


hidden_folds = Exercise(
    task="Give a boolean (64, 64) tensor that is True where the map x + u(x) folds.",
    praise="three folds, and the picture shows none of them. Only the field can tell.",
    prepare=_mask,
    reference=_folds,
    alike=torch.equal,
    mistakes={
        "nothing": Hint("nothing is marked, but the map does fold: look for |J| <= 0.").to(
            lambda: torch.zeros(64, 64, dtype=torch.bool), lambda mask: not mask.any()
        ),
        "the identity forgotten": Hint(
            "this is the determinant of ∂u. The map is x + u(x): add 1 to ∂u0/∂x0 and to ∂u1/∂x1 first."
        ).to(lambda: _not_positive(lambda a, b, c, d: a * d - b * c)),
        "axes swapped": Hint(
            "the 1 stands at the wrong places: component i is moved along axis i, so 1 belongs to ∂u_i/∂x_i."
        ).to(lambda: _not_positive(lambda a, b, c, d: (1 + b) * (1 + c) - a * d)),
        "shrinking taken for folding": Hint(
            "this is |J| < 1, where the map only shrinks. It folds where |J| <= 0: space is turned inside out."
        ).to(lambda: _determinant() < 1),
        "transposed": Hint("transposed: rows (axis 0) come first, columns (axis 1) second.").to(
            lambda: _folds().T, lambda mask: _hits_folds_only(mask.T) and not _hits_folds_only(mask)
        ),
        "the diagonal only": Hint("the product of the diagonal is not the determinant: subtract ∂u0/∂x1 · ∂u1/∂x0.").to(
            lambda: _not_positive(lambda a, b, c, d: (1 + a) * (1 + d))
        ),
        "everything": Hint(
            "voxels are marked where the map does not fold. Compare det(I + ∂u) with 0, and with nothing else."
        ).to(lambda: torch.ones(64, 64, dtype=torch.bool), lambda mask: not _hits_folds_only(mask)),
        "a threshold above zero": Hint(
            "the right places, but too many voxels: where |J| is small and positive the map shrinks. It does not fold."
        ).to(lambda: _determinant() < 0.2, lambda mask: bool(mask.sum() > _MOST * _folds().sum())),
        "one fold only": Hint("a fold is missing: there are three of them, far from each other.").to(
            lambda: _folds() & (identity((64, 64))[0, 0] > 40), lambda mask: not _hits_every_fold(mask)
        ),
        "a threshold below zero": Hint(
            "the right places, but too few voxels: the map folds wherever |J| <= 0, however far |J| is below 0."
        ).to(lambda: _determinant() < -0.1, lambda mask: bool((mask & _folds()).sum() < _LEAST * _folds().sum())),
        "numbers": _determinant,
        "cut": lambda: _folds()[1:],
    },
)
