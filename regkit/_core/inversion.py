"""The inverse of a map, as a layer: found by iteration, differentiated by the implicit function theorem."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from regkit._core.grid import identity, slabs, solve
from regkit._core.sampler import map_jacobian, read, spread
from regkit.types import Coordinates, Displacement, at_least_float32, choose, spatial

Solver = Literal["anderson", "plain", "newton"]


class Solution(NamedTuple):
    """What a solver found: the value, and the largest error that is left in each item of the batch, (B,)."""

    value: Tensor
    left: Tensor


def invert(
    displacement: Displacement, *, tolerance: float = 1e-2, max_iterations: int = 50, method: Solver = "newton"
) -> Displacement:
    """z with z(x) = -u(x + z(x)): `fields.invert` of what is known to be a finite displacement."""
    solver = choose("method", method, {"anderson": _anderson, "plain": _plain, "newton": _newton})
    displacement = at_least_float32(displacement)
    with torch.no_grad():
        inverse, errors = solver(displacement, tolerance, max_iterations)
        unsolved = (errors >= tolerance).nonzero()[:, 0]  # Newton's steps may jump to and fro in a steep place
        if method == "newton" and len(unsolved):
            other, other_errors = _anderson(displacement[unsolved], tolerance, max_iterations)
            better = other_errors < errors[unsolved]
            inverse[unsolved[better]], errors[unsolved[better]] = other[better], other_errors[better]
    left = float(errors.max())
    if not left < tolerance:
        warnings.warn(
            f"the inverse was not reached: {left:.3g} voxel is left after {max_iterations} iterations where "
            f"{tolerance:g} was asked; most often the map folds (see jacobian_determinant), or raise max_iterations.",
            RuntimeWarning,
            stacklevel=3,  # the line that called fields.invert
        )
    return _ImplicitInverse.apply(displacement, inverse)


class _ImplicitInverse(torch.autograd.Function):
    """The inverse z as a function of u: with φ_u(x + z) = x, dz = -(I + Du(x + z))⁻¹ du(x + z). Keeps u and z."""

    @staticmethod
    def forward(ctx: Any, displacement: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(displacement, inverse)
        return inverse.view_as(inverse)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        displacement, inverse = ctx.saved_tensors
        target = identity(spatial(displacement), like=displacement)
        solution = torch.empty_like(displacement)
        for part in slabs(displacement):
            rows = map_jacobian(displacement, target[:, :, part] + inverse[:, :, part]).unbind(1)
            solution[:, :, part] = solve(rows, -gradient[:, :, part])  # (I + Du(x + z))ᵀ w = -g
        return spread(solution, displacement, inverse), None


# ---------------------------------------------------------------------------------------------- fixed points
def _anderson(displacement: Tensor, tolerance: float, max_iterations: int, memory: int = 4) -> Solution:
    """z <- -u(x + z), accelerated over the whole field."""

    def pull(inverse: Tensor) -> Tensor:
        return read(displacement, inverse, relative=True).neg_()

    return fixed_point(pull, -displacement, tolerance, max_iterations, memory)


def _plain(displacement: Tensor, tolerance: float, max_iterations: int) -> Solution:
    """z <- -u(x + z) as it stands."""
    return _anderson(displacement, tolerance, max_iterations, memory=1)


def fixed_point(
    function: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, max_iterations: int, memory: int
) -> Solution:
    """y = F(x) with max|y - x| < tolerance, by Anderson acceleration of x <- F(x); each batch item for itself.

    The next x is the combination Σ α_j y_j of the latest `memory` values whose residuals r_j = y_j - x_j nearly cancel:
    min |Σ α_j r_j|² + tolerance² |α|² with Σ α_j = 1. Two evaluations come before the first test, `max_iterations` are
    the most; memory=1 is the plain iteration. An item keeps its value from when it is done.
    Source: Walker and Ni, 2011; the numbers are those of SITReg's deformation inversion layer.
    """
    batch, shape = start.shape[0], (-1, *[1] * (start.dim() - 1))
    values: list[Tensor] = []
    residuals: list[Tensor] = []
    gram = start.new_zeros(batch, memory, memory, dtype=torch.float64)  # r_i · r_j
    done = torch.zeros(batch, dtype=torch.bool, device=start.device)
    point, solution = start, Solution(start, start.new_zeros(batch))
    for count in range(max_iterations):
        value = function(point)
        residual = value - point
        left = residual.flatten(1).abs().amax(1)
        solution = Solution(
            torch.where(done.view(shape), solution.value, value), torch.where(done, solution.left, left)
        )
        done = (solution.left < tolerance) & (count > 0)
        if done.all():
            break
        slot = count % memory  # the oldest makes room
        values[slot : slot + 1], residuals[slot : slot + 1] = [value], [residual]
        products = torch.stack([(residual * other).flatten(1).sum(1) for other in residuals], 1).double()
        gram[:, slot, : len(values)] = gram[:, : len(values), slot] = products
        weights = _mixing_weights(gram[:, : len(values), : len(values)], tolerance).to(value.dtype)
        point = weights[:, 0].view(shape) * values[0]
        for j in range(1, len(values)):
            point.addcmul_(weights[:, j].view(shape), values[j])
    return solution


def _mixing_weights(gram: Tensor, tolerance: float) -> Tensor:
    """α that minimises αᵀ G α + tolerance² |α|² with Σ α_j = 1: proportional to (G + tolerance² I)⁻¹ 1; (B, count)."""
    regular = gram + tolerance**2 * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve_ex(regular, torch.ones_like(gram[:, :, :1]))[0][:, :, 0]
    return weights / weights.sum(1, keepdim=True)


# ---------------------------------------------------------------------------------------------- Newton, by voxel

_EASY_STEPS, _EASY_ERROR = 3, 0.25  # first steps in which errors below this, in voxels, are left to the plain step


def _newton(displacement: Tensor, tolerance: float, max_iterations: int) -> Solution:
    """y(x) with φ(y) = x, each voxel by itself, a slab at a time; z = y - x."""
    inverse, left = torch.empty_like(displacement), displacement.new_zeros(len(displacement))
    grid = identity(spatial(displacement), like=displacement)
    for item, part in itertools.product(range(len(displacement)), slabs(displacement[:1])):
        field, voxels = displacement[item : item + 1], grid[:, :, part]
        goal = voxels.reshape(1, len(voxels[0]), -1, *[1] * (voxels.dim() - 3))  # (1, dim, N, 1[, 1])
        start = goal - field[:, :, part].reshape_as(goal)
        points, errors = _newton_points(field, goal, start, tolerance, max_iterations)
        inverse[item : item + 1, :, part] = (points - goal).view_as(voxels)
        left[item] = torch.maximum(left[item], errors.amax())
    return Solution(inverse, left)


def _newton_points(
    displacement: Tensor, goal: Coordinates, start: Coordinates, tolerance: float, max_iterations: int
) -> Solution:
    """y <- y - (I + Du(y))⁻¹ e with e = y + u(y) - x, for the points where |e| is not yet small; at first y - e may do.

    Where the map folds a step may lead far away: points that never come close end where |e| was least.
    displacement: (1, dim, *space). goal x, start y: (1, dim, N, 1[, 1]), voxels.
    """
    solution, position, nearest = start.clone(), start, start
    places = torch.arange(start.shape[2], device=start.device)
    least = start.new_full(places.shape, torch.inf)
    for count in itertools.count(1):
        error = position + read(displacement, position, relative=False) - goal
        size = error.abs().flatten(2).amax((0, 1))  # (N,)
        nearest = torch.where((size < least).view(-1, *[1] * (goal.dim() - 3)), position, nearest)
        least = torch.fmin(size, least)  # NaN is no place either
        wrong = (~(size < tolerance)).nonzero()[:, 0]
        if len(wrong) == 0 or count == max_iterations:
            break
        places = places[wrong]
        position, nearest, error, goal = (part[:, :, wrong] for part in (position, nearest, error, goal))
        least = least[wrong]
        hard = (size[wrong] > (_EASY_ERROR if count <= _EASY_STEPS else 0)).nonzero()[:, 0]
        jacobian = map_jacobian(displacement, position[:, :, hard])
        error[:, :, hard] = solve(jacobian.unbind(2), error[:, :, hard])
        position = position - error
        solution[:, :, places] = position
    solution[:, :, places] = nearest
    return Solution(solution, least)
