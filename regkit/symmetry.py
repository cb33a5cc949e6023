"""The algebra of meeting in the middle: updates that exchanging two images inverts, and affine maps of the same kind.

Both directions are kept stacked along the batch, (2B, …): first what belongs to moving, then what belongs to fixed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from regkit.fields import affine_displacement, compose, exponential, identity, sample
from regkit.grids import move_affinely
from regkit.types import Coordinates, Dim, Displacement, spatial

Inverse = Callable[[Displacement], Displacement]


def swap(pair: Tensor) -> Tensor:
    """(2B, …) with its halves exchanged."""
    return pair.roll(len(pair) // 2, 0)


def composed(*maps: Displacement) -> Displacement:
    """φ_1 ∘ … ∘ φ_n: from a grid point look up the last map first; only the result is a new field on the grid."""
    result = maps[-1]
    for displacement in reversed(maps[:-1]):
        result = compose(displacement, result)
    return result


def moved(grid: Coordinates, *, maps: Sequence[Displacement], affine: Tensor | None, shape: Sequence[int]) -> Tensor:
    """A ∘ L at any positions: the maps one after another, the last first, then the affine map."""
    for displacement in reversed(maps):
        grid = grid + sample(displacement, grid)
    return grid if affine is None else move_affinely(grid, affine, shape)


def around(maps: Sequence[Displacement], affine: Tensor) -> Displacement:
    """A ∘ φ_1 ∘ … ∘ φ_n ∘ A as a displacement; affine: (B, dim, dim + 1), voxels about the centre."""
    shape = spatial(maps[0])
    grid = identity(shape, like=maps[0])
    return move_affinely(grid + composed(*maps, affine_displacement(affine, shape)), affine, shape) - grid


# ---------------------------------------------------------------------------------------------- updates


def two_sided(step: Displacement, inverse: Inverse) -> tuple[Displacement, ...]:
    """U₁₂ = v₁₂ ∘ v₂₁⁻¹ and U₂₁ = v₂₁ ∘ v₁₂⁻¹ as factors: each is the other's inverse, whatever v is."""
    return step, swap(inverse(step))


def one_sided(step: Displacement, inverse: Inverse) -> tuple[Displacement, ...]:
    """U₁₂ = v₁₂ and U₂₁ = v₁₂⁻¹: invertible, but exchanging the images no longer exchanges the maps."""
    forward = step.chunk(2)[0]
    return (torch.cat([forward, inverse(forward)]),)


def velocity(step: Displacement, inverse: Inverse) -> tuple[Displacement, ...]:
    """U₁₂ = exp(w₁₂ - w₂₁) and U₂₁ = exp(w₂₁ - w₁₂), seven squarings."""
    return (exponential(step - swap(step)),)


def both(factors: tuple[Displacement, ...]) -> tuple[Displacement, ...]:
    """The factors as they are: both images move."""
    return factors


def moving_only(factors: tuple[Displacement, ...]) -> tuple[Displacement, ...]:
    """The factors with the identity for the fixed image."""
    return tuple(torch.cat([part.chunk(2)[0], torch.zeros_like(part.chunk(2)[1])]) for part in factors)


UPDATES = {"inversion": two_sided, "one_sided": one_sided, "velocity": velocity}
MEETINGS = {"halfway": both, "fixed": moving_only}


# ---------------------------------------------------------------------------------------------- the affine stage


class NoAffine(nn.Module):
    """In place of `HalfwayAffine` where there is no affine stage."""

    def forward(self, features: Tensor, shape: Sequence[int]) -> None:
        return None


class HalfwayAffine(nn.Module):
    """A = P(a, b) P(b, a)⁻¹ from the coarsest features: half of the affine motion, and A⁻¹ with a and b exchanged.

    P(a, b)(w) = M (w + t), M = expm(S) expm(W), S symmetric, W skew, from MLP(cat(a - b, a + b)); lengths in half the
    image's longest side. Returns (2B, dim, dim + 1), voxels about the image's centre, for moving and fixed.
    """

    def __init__(self, dim: Dim, inputs: int, as_released: bool):
        super().__init__()
        self.dim = dim
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(as_released, 2):  # the released program discards what its first layer computes
            layers |= {f"linear{i}": nn.Linear(2 * inputs, 2 * inputs), f"relu{i}": nn.ReLU()}
        layers["head"] = nn.Linear(2 * inputs, dim * (dim + 1))
        self.layers = nn.Sequential(layers)
        self.inputs = inputs

    def forward(self, features: Tensor, shape: Sequence[int]) -> Tensor:
        if features[0].numel() != self.inputs:
            raise ValueError(
                f"the affine stage reads {self.inputs} numbers of the coarsest level, received {features[0].numel()} "
                f"for images of {tuple(shape)}; make the model with affine_voxels={features[0, 0].numel()}."
            )
        first, second = features.flatten(1).chunk(2)
        compared = torch.cat(
            [torch.cat([first - second, first + second], 1), torch.cat([second - first, first + second], 1)]
        )
        with torch.autocast(features.device.type, enabled=False):
            numbers = self.layers(compared.to(next(self.parameters()).dtype))
            return self._affine(numbers.double(), max(shape) / 2).to(numbers.dtype)  # so that P P⁻¹ is exactly 1

    def _affine(self, numbers: Tensor, unit: float) -> Tensor:
        """M₁₂ M₂₁⁻¹ and M₁₂ (t₁₂ - t₂₁): (2B, dim (dim + 1)) to (2B, dim, dim + 1), lengths times `unit`."""
        dim = self.dim
        diagonal, upper, skew, translation = numbers.split([dim, dim * (dim - 1) // 2, dim * (dim - 1) // 2, dim], 1)
        rows, columns = torch.triu_indices(dim, dim, 1)
        stretch = torch.diag_embed(diagonal)
        turn = torch.zeros_like(stretch)
        stretch[:, rows, columns] = stretch[:, columns, rows] = upper
        turn[:, rows, columns], turn[:, columns, rows] = skew, -skew
        linear = torch.linalg.matrix_exp(stretch) @ torch.linalg.matrix_exp(turn)
        inverse = torch.linalg.matrix_exp(-turn) @ torch.linalg.matrix_exp(-stretch)
        moved = linear @ (translation - swap(translation))[:, :, None]
        return torch.cat([linear @ swap(inverse), moved * unit], 2)
