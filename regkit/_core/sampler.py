"""Images read through maps: sample, warp, compose, exponential. The only file that knows torch's sampler.

That is its normalised units and its reversed order of axes; positions come in voxels, (B, dim, *out). What a user gives
is checked in fields.py, which states the convention; everything here trusts its caller, so that the steps of a model, a
solver or a training do not check their own results over and over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from regkit._core.grid import identity, ramps, slabs
from regkit.types import Coordinates, Displacement, Image, at_least_float32, spatial

Interpolation = Literal["linear", "nearest", "cubic"]
Padding = Literal["border", "zeros"]
_MODES = {"linear": 0, "nearest": 1}
_PADDINGS = {"zeros": 0, "border": 1}
_BORDER = (_MODES["linear"], _PADDINGS["border"])


# ---------------------------------------------------------------------------------------------- trusting their callers
def sample(
    image: Image, coordinates: Coordinates, *, mode: Interpolation = "linear", padding: Padding = "border"
) -> Image:
    """image[coordinates(x)]: `fields.sample` of what is known to fit."""
    return _interpolate(image, coordinates, False, mode, padding)


def warp(
    image: Image, displacement: Displacement, *, mode: Interpolation = "linear", padding: Padding = "border"
) -> Image:
    """image[x + u(x)]: `fields.warp` of what is known to fit."""
    return _interpolate(image, displacement, True, mode, padding)


def compose(first: Displacement, then: Displacement, *, padding: Padding = "border") -> Displacement:
    """v(x) + u(x + v(x)): `fields.compose` of what is known to fit."""
    then = at_least_float32(then)
    return then + warp(at_least_float32(first), then, padding=padding)


def exponential(
    velocity: Displacement,
    *,
    steps: int = 7,
    composition: Callable[[Displacement, Displacement], Displacement] = compose,
) -> Displacement:
    """u_0 = v / 2^steps; u_{k+1} = compose(u_k, u_k): `fields.exponential` of what is known to fit."""
    displacement = at_least_float32(velocity) / 2**steps
    for _ in range(steps):
        displacement = composition(displacement, displacement)
    return displacement


def _interpolate(image: Image, field: Tensor, relative: bool, mode: Interpolation, padding: Padding) -> Image:
    """image[field(x)], or image[x + field(x)] if relative, in the image's dtype; computed in float32 or finer."""
    working = torch.promote_types(torch.promote_types(image.dtype, field.dtype), torch.float32)
    batch = max(image.shape[0], field.shape[0])
    source, field = (part.to(working).expand(batch, *part.shape[1:]) for part in (image, field))
    if mode == "cubic":
        positions = field + identity(spatial(field), like=field) if relative else field
        return _cubic(source, positions, padding).to(image.dtype)
    return _Read.apply(source, field, relative, (_MODES[mode], _PADDINGS[padding])).to(image.dtype)


def _cubic(image: Tensor, positions: Tensor, padding: Padding) -> Tensor:
    """Keys' cubic convolution (1981, a = -1/2), exact for quadratics: a sum over the 4^dim voxels around."""
    base = positions.detach().floor()
    t = positions - base
    taps = [  # the weights of the voxels at -1, 0, 1 and 2 from the base
        ((-t + 2) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((-3 * t + 4) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    ]
    result = image.new_zeros(())
    for steps in itertools.product(range(4), repeat=positions.shape[1]):
        voxel = torch.stack([base[:, axis] + (step - 1) for axis, step in enumerate(steps)], 1)
        weight = math.prod(taps[step][:, axis, None] for axis, step in enumerate(steps))
        result = result + weight * _Read.apply(image, voxel, False, (_MODES["nearest"], _PADDINGS[padding]))
    return result


# ---------------------------------------------------------------------------------------------- torch's sampler
class _Read(torch.autograd.Function):
    """`read` that keeps image and field only: the sampler's grid is made again for the gradient."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, field: Tensor, relative: bool, codes: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(image, field)
        ctx.relative, ctx.codes = relative, codes
        return read(image, field, relative, codes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, field = ctx.saved_tensors
        to_image, to_field = None, torch.empty_like(field) if ctx.needs_input_grad[1] else None
        mask = list(ctx.needs_input_grad[:2])
        for part in [slice(None)] if mask[0] else slabs(field):  # the image's gradient is gathered in one go
            grid = _grid(field, spatial(image), ctx.relative, part)
            to_image, slope = _backward(gradient[:, :, part], image, grid, ctx.codes, mask)
            if to_field is not None:
                _write_voxel_slope(slope, spatial(image), to_field[:, :, part])
        return to_image if mask[0] else None, to_field, None, None


def _grid(field: Tensor, shape: Sequence[int], relative: bool, part: slice = slice(None)) -> Tensor:
    """Positions as the sampler wants them: (B, *out, dim), axes reversed, corners of the image's `shape` at -1 and 1.

    relative: the field counts from its own voxels. part: only these planes of its first axis. In memory each component
    lies by itself: quick to write, as quick to read.
    """
    starts = ramps(spatial(field), like=field)
    starts[0], field = starts[0][part], field[:, :, part]
    components = []
    for start, offset, size in zip(starts, field.unbind(1), shape, strict=True):
        scale = 2 / max(size - 1, 1)
        components.append(torch.add(start * (scale * relative) - 1, offset, alpha=scale))
    return torch.stack(components[::-1]).movedim(0, -1)


def _write_voxel_slope(slope: Tensor, shape: Sequence[int], out: Tensor) -> None:
    """Write a derivative by the sampler's positions (B, *out, dim) as one by voxels, into `out` (B, dim, *out)."""
    for axis, size in enumerate(shape):
        out[:, axis].copy_(slope[..., len(shape) - 1 - axis]).mul_(2 / max(size - 1, 1))


def _backward(gradient: Tensor, image: Tensor, grid: Tensor, codes: tuple[int, int], mask: list[bool]) -> Any:
    if image.dim() == 4:
        return torch.ops.aten.grid_sampler_2d_backward(gradient, image, grid, *codes, True, mask)
    if mask[0] and not image.is_cuda:  # a voxel's channels side by side: a processor spreads them a fifth faster
        image = image.contiguous(memory_format=torch.channels_last_3d)
    return torch.ops.aten.grid_sampler_3d_backward(gradient, image, grid, *codes, True, mask)


def read(image: Tensor, field: Tensor, relative: bool, codes: tuple[int, int] = _BORDER) -> Tensor:
    """image[field(x)] or image[x + field(x)], a few planes at a time."""
    result = image.new_empty(field.shape[0], image.shape[1], *field.shape[2:])
    for part in slabs(field):
        grid = _grid(field, spatial(image), relative, part)
        result[:, :, part] = torch.grid_sampler(image, grid, *codes, True)
    return result


def map_jacobian(displacement: Tensor, positions: Tensor) -> Tensor:
    """∂φ_i/∂x_j at any positions, of the displacement as it is interpolated: (B, dim, *out) to (B, dim, dim, *out)."""
    dim, shape = displacement.shape[1], spatial(displacement)
    grid = _grid(positions, shape, relative=False)
    jacobian = positions.new_empty(len(positions), dim, *positions.shape[1:])
    ones = torch.ones_like(positions[:, :1])
    for i, component in enumerate(displacement.split(1, 1)):
        _, slope = _backward(ones, component, grid, _BORDER, [False, True])
        _write_voxel_slope(slope, shape, jacobian[:, i])
        jacobian[:, i, i] += 1
    return jacobian


def spread(values: Tensor, image: Tensor, field: Tensor) -> Tensor:
    """The adjoint of `read(image, field, relative=True)` in the image: values go to the voxels they were read from."""
    grid = _grid(field, spatial(image), relative=True)
    return _backward(values, image, grid, _BORDER, [True, False])[0]
