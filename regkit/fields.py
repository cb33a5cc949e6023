"""Displacement fields: sample, warp, compose, integrate, invert, measure, resize.

The one convention of regkit, stated here and nowhere else:

* Tensors are (batch, channel, *space); space has two or three axes.
* A displacement u is (batch, dim, *space), in voxels of its own grid; channel i moves along spatial axis i.
* Voxel centres are at integers, so the image's corners are voxel centres (align_corners=True).
* Warping pulls: ``warp(image, u)[x] = image[x + u(x)]``. The map is φ(x) = x + u(x).
* ``compose(u, v)(x) = v(x) + u(x + v(x))``, so ``warp(warp(image, u), v) = warp(image, compose(u, v))``.

Only this file knows the sampler's normalised units and its reversed order of axes. What the papers' programs keep
in other units enters and leaves by the named converters at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from regkit.algebra import fixed_point, solve_transposed
from regkit.grids import (
    affine_displacement,
    difference,
    identity,
    jacobian_determinant,
    normalized_to_voxels,
    resize,
    resize_displacement,
    reverse_components,
    scale_components,
    unit_to_voxels,
    upsample,
    voxels_to_normalized,
    voxels_to_unit,
)
from regkit.types import (
    Coordinates,
    Displacement,
    Image,
    Labels,
    check_displacement,
    check_finite,
    check_image,
    check_labels,
    check_same_batch,
    check_same_grid,
    spatial,
)

__all__ = [
    "affine_displacement",
    "compose",
    "difference",
    "exponential",
    "identity",
    "invert",
    "jacobian_determinant",
    "normalized_to_voxels",
    "resize",
    "resize_displacement",
    "reverse_components",
    "sample",
    "scale_components",
    "unit_to_voxels",
    "upsample",
    "voxels_to_normalized",
    "voxels_to_unit",
    "warp",
    "warp_labels",
    "warp_points",
]

Interpolation = Literal["linear", "nearest", "cubic"]
Padding = Literal["border", "zeros"]
_MODES = {"linear": 0, "nearest": 1}
_PADDINGS = {"zeros": 0, "border": 1}


# ---------------------------------------------------------------------------------------------- sampling


def _sampler_grid(field: Tensor, shape: Sequence[int], *, relative: bool) -> Tensor:
    """Voxel positions as the sampler wants them: (B, *out, dim), axes reversed, the image's corners at -1 and 1."""
    dim = field.shape[1]
    grid = field.new_empty(field.shape[0], *field.shape[2:], dim)
    for axis, size in enumerate(shape):
        scale = 2 / max(size - 1, 1)
        component = grid[..., dim - 1 - axis]
        if relative:
            ramp = torch.arange(field.shape[2 + axis], dtype=field.dtype, device=field.device) * scale - 1
            view = [1] * (dim + 1)
            view[1 + axis] = -1
            torch.add(ramp.view(view), field[:, axis], alpha=scale, out=component)
        else:
            torch.mul(field[:, axis], scale, out=component).sub_(1)
    return grid


def _sampler_backward(grad: Tensor, image: Tensor, grid: Tensor, codes: tuple[int, int], mask: list[bool]) -> Any:
    backward = torch.ops.aten.grid_sampler_2d_backward if image.dim() == 4 else torch.ops.aten.grid_sampler_3d_backward
    return backward(grad.contiguous(), image, grid, *codes, True, mask)


def _sampler_to_field(gradient: Tensor, shape: Sequence[int]) -> Tensor:
    """A gradient in the sampler's units (B, *out, dim) as one in voxels (B, dim, *out)."""
    scales = gradient.new_tensor([2 / max(size - 1, 1) for size in reversed(shape)])
    return (gradient * scales).flip(-1).movedim(-1, 1)


class _Sample(torch.autograd.Function):
    """Linear or nearest sampling that keeps image and field only; the sampling grid is made again for the backward."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, field: Tensor, relative: bool, codes: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(image, field)
        ctx.relative, ctx.codes = relative, codes
        grid = _sampler_grid(field, spatial(image), relative=relative)
        return torch.grid_sampler(image, grid, *codes, True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, field = ctx.saved_tensors
        grid = _sampler_grid(field, spatial(image), relative=ctx.relative)
        mask = list(ctx.needs_input_grad[:2])
        to_image, to_grid = _sampler_backward(grad, image, grid, ctx.codes, mask)
        to_field = _sampler_to_field(to_grid, spatial(image)) if mask[1] else None
        return to_image if mask[0] else None, to_field, None, None


def _cubic(image: Tensor, positions: Tensor, padding: Padding) -> Tensor:
    """Keys' cubic convolution (1981, a = -1/2): exact for quadratics, 4^dim taps, one at a time."""
    base = positions.detach().floor()
    t = positions - base
    taps = [
        ((-t + 2) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((-3 * t + 4) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    ]
    flat = image.flatten(2)
    result = image.new_zeros(*image.shape[:2], *positions.shape[2:])
    for tap in itertools.product(range(4), repeat=positions.shape[1]):
        index, weight = torch.zeros_like(base[:, 0], dtype=torch.long), torch.ones_like(base[:, 0])
        for axis, (k, size) in enumerate(zip(tap, spatial(image), strict=True)):
            place = base[:, axis].long() + (k - 1)
            weight = weight * taps[k][:, axis]
            if padding == "zeros":
                weight = weight * ((place >= 0) & (place < size))
            index = index * size + place.clamp(0, size - 1)
        values = flat.gather(2, index.flatten(1)[:, None].expand(-1, flat.shape[1], -1))
        result = result + weight[:, None] * values.view_as(result)
    return result


def _sample(image: Tensor, field: Tensor, relative: bool, mode: Interpolation, padding: Padding) -> Tensor:
    if mode not in ("linear", "nearest", "cubic") or padding not in _PADDINGS:
        raise ValueError(
            f"mode must be linear, nearest or cubic and padding border or zeros, received {mode!r} and {padding!r}; "
            f"choose one of each."
        )
    if not image.is_cuda:  # on a GPU the check would wait; there the models check once, at their entry
        check_finite(image, "image")
        check_finite(field, "displacement" if relative else "coordinates")
    result_type = image.dtype
    working = torch.promote_types(torch.promote_types(image.dtype, field.dtype), torch.float32)
    batch = max(image.shape[0], field.shape[0])
    image = image.to(working).expand(batch, *image.shape[1:])
    field = field.to(working).expand(batch, *field.shape[1:])
    if mode == "cubic":
        positions = field + identity(spatial(field), like=field) if relative else field
        return _cubic(image, positions, padding).to(result_type)
    return _Sample.apply(image, field, relative, (_MODES[mode], _PADDINGS[padding])).to(result_type)


def sample(
    image: Image, coordinates: Coordinates, *, mode: Interpolation = "linear", padding: Padding = "border"
) -> Image:
    """Read an image at arbitrary positions: result[x] = image[coordinates(x)].

    image: (B, C, *space). coordinates: (B, dim, *out), voxels of the image's grid; `out` has dim axes of any size.
    Returns (B, C, *out) in the image's dtype; positions are never rounded below float32. Differentiable once in both
    (`nearest`: in the image only). "border" continues the outermost voxel, "zeros" reads 0 outside.

    Raises:
        TypeError, ValueError: wrong shapes, dtypes, devices or values.
    """
    check_image(image)
    check_displacement(coordinates, "coordinates")
    check_same_batch(image, coordinates, ("image", "coordinates"))
    if image.dim() != coordinates.dim() or image.device != coordinates.device:
        raise ValueError(
            f"image and coordinates must have the same dimension and device, received shapes {tuple(image.shape)} on "
            f"{image.device} and {tuple(coordinates.shape)} on {coordinates.device}; bring them together first."
        )
    return _sample(image, coordinates, False, mode, padding)


# ---------------------------------------------------------------------------------------------- warping


def warp(
    image: Image, displacement: Displacement, *, mode: Interpolation = "linear", padding: Padding = "border"
) -> Image:
    """Pull an image through a map: result[x] = image[x + u(x)].

    image: (B, C, *space). displacement: (B, dim, *space), voxels. Either batch may be 1. See `sample` for the options.

    Raises:
        TypeError, ValueError: different grids or devices, integer images (use `warp_labels`), NaN.
    """
    check_image(image)
    check_displacement(displacement)
    check_same_grid(image, displacement, ("image", "displacement"))
    return _sample(image, displacement, True, mode, padding)


def warp_labels(labels: Labels, displacement: Displacement) -> Labels:
    """Pull integer labels (B, 1, *space) by the nearest voxel; the dtype stays, and no new label can appear."""
    check_labels(labels)
    check_displacement(displacement)
    check_same_grid(labels, displacement, ("labels", "displacement"))
    values, numbers = torch.unique(labels, return_inverse=True)  # exact also where labels exceed float32's integers
    places = _sample(numbers.to(displacement.dtype), displacement.detach(), True, "nearest", "border")
    return values[places.round().long()]


def warp_points(points: Tensor, displacement: Displacement) -> Tensor:
    """Carry points forward: p ↦ p + u(p), from the fixed grid to the moving grid (opposite to the pull of `warp`).

    points: (B, N, dim), voxels of the fixed grid. Returns (B, N, dim), voxels of the moving grid.
    """
    check_displacement(displacement)
    dim = displacement.shape[1]
    if points.dim() != 3 or points.shape[2] != dim:
        raise ValueError(
            f"points must be (batch, N, {dim}) for a displacement in {dim} dimensions, received shape "
            f"{tuple(points.shape)}; put one point in each row."
        )
    places = points.movedim(-1, 1).unflatten(2, (-1, *(1,) * (dim - 1)))  # (B, dim, N, 1[, 1])
    return points + sample(displacement, places).flatten(2).movedim(1, -1)


def compose(first: Displacement, then: Displacement, *, padding: Padding = "border") -> Displacement:
    """One displacement for two warps in a row: compose(u, v)(x) = v(x) + u(x + v(x)).

    warp(warp(image, u), v) equals warp(image, compose(u, v)) up to interpolation. As maps: φ_u ∘ φ_v.
    Both (B, dim, *space), voxels of one grid.
    """
    check_displacement(first, "first")
    return then + warp(first, then, padding=padding)


def exponential(velocity: Displacement, *, steps: int = 7) -> Displacement:
    """Integrate a stationary velocity over unit time by scaling and squaring.

    u_0 = v / 2^steps; u_{k+1} = compose(u_k, u_k). exp(-v) is the inverse of exp(v) up to interpolation.
    velocity: (B, dim, *space), voxels per unit time. Source: Arsigny et al. 2006; VoxelMorph uses 7 steps.
    """
    check_displacement(velocity, "velocity")
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, received {steps}; 7 is usual.")
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


class _Invert(torch.autograd.Function):
    """z = -u(x + z). Keeps u and z; the implicit function theorem gives the gradient by one small solve per voxel."""

    @staticmethod
    def forward(ctx: Any, displacement: Tensor, tolerance: float, max_iterations: int, memory: int) -> Tensor:
        def pull(z: Tensor) -> Tensor:
            return -_Sample.apply(displacement, z, True, (0, 1))

        inverse = fixed_point(pull, -displacement, tolerance, max_iterations, memory)
        ctx.save_for_backward(displacement, inverse)
        return inverse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        displacement, inverse = ctx.saved_tensors
        shape, dim = spatial(displacement), displacement.shape[1]
        grid = _sampler_grid(inverse, shape, relative=True)
        rows = []  # rows[i][:, j] = ∂φ_i/∂x_j at x + z
        for i in range(dim):
            part = displacement[:, i : i + 1]
            _, slope = _sampler_backward(torch.ones_like(part), part, grid, (0, 1), [False, True])
            rows.append(_sampler_to_field(slope, shape))
            rows[i][:, i] += 1
        columns = [torch.stack([rows[i][:, j] for i in range(dim)], 1) for j in range(dim)]
        solution = solve_transposed(columns, grad)  # (I + Du(x + z))ᵀ w = g
        to_field, _ = _sampler_backward(-solution, displacement, grid, (0, 1), [True, False])
        return to_field, None, None, None


def invert(
    displacement: Displacement,
    *,
    tolerance: float = 1e-2,
    max_iterations: int = 50,
    method: Literal["anderson", "plain"] = "anderson",
) -> Displacement:
    """The inverse map's displacement: z with z(x) = -u(x + z(x)), so compose(u, z) = 0.

    displacement: (B, dim, *space), voxels, of a map without folds. tolerance: largest error |z + u(x + z)| that may
    remain, in voxels. max_iterations: evaluations of u at most; where they do not suffice a RuntimeWarning says what
    error is left (most often the field folds). Each item of the batch is solved for itself. The gradient is that of
    the exact solution, and only `displacement` and the result are kept for it.
    Source: deformation inversion layer (SITReg, section 3.4); Anderson acceleration: Walker and Ni 2011.
    """
    check_displacement(displacement)
    check_finite(displacement, "displacement")
    if tolerance <= 0 or max_iterations < 2:
        raise ValueError(
            f"tolerance must be positive and max_iterations at least 2, received {tolerance} and {max_iterations}; "
            f"1e-2 voxel and 50 are usual."
        )
    working = displacement.to(torch.promote_types(displacement.dtype, torch.float32))
    memory = {"anderson": 4, "plain": 1}[method]
    return _Invert.apply(working, tolerance, max_iterations, memory).to(displacement.dtype)
