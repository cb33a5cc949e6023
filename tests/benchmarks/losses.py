"""Local NCC and the diffusion penalty, forward and backward, beside the programs that registration papers use."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import VOLUME, compare, peer
from torch import Tensor

from regkit import losses

_WINDOW = 9
_VOLUME, _QUICK_VOLUME, _PLANES = (160, 192, 160), (64, 80, 64), (256, 256)


def run(quick: bool) -> None:
    """Print the tables."""
    space = _QUICK_VOLUME if quick else _VOLUME
    repeats = 2 if quick else 5
    voxels = torch.Size(space).numel() if quick else VOLUME
    lncc_goal = ">= 6 x the best peer, <= 10 volumes"
    _compare_lncc(f"local NCC, window 9, gradient to warped, {space}", (1, 1, *space), lncc_goal, repeats, voxels)
    plane_goal = ">= 5 x the best peer"
    plane_voxels = 16 * torch.Size(_PLANES).numel()
    _compare_lncc(f"local NCC, window 9, 16 x {_PLANES}", (16, 1, *_PLANES), plane_goal, repeats, plane_voxels)
    _compare_diffusion(space, repeats, voxels)


def _compare_lncc(title: str, shape: Sequence[int], goal: str, repeats: int, voxels: int) -> None:
    fixed = _smooth_image(shape)
    warped = (0.7 * fixed + 0.3 * _smooth_image(shape)).requires_grad_()
    dim = len(shape) - 2
    monai = peer("monai.losses")
    ways: dict[str, Callable[..., Any] | None] = {
        "regkit": lambda a, b: losses.lncc(a, b, window=_WINDOW),
        "VoxelMorph 0.3 (a line per axis)": lambda a, b: _correlation(a, b, _separable_sum),
        "SITReg (pooling per axis)": lambda a, b: _correlation(a, b, _pooled_sum),
        "MONAI": monai.LocalNormalizedCrossCorrelationLoss(spatial_dims=dim, kernel_size=_WINDOW) if monai else None,
    }
    if voxels < VOLUME:  # a minute a turn at full size
        ways["VoxelMorph 0.2 (dense sums)"] = lambda a, b: _correlation(a, b, _dense_sum)
    compare(title, _with_gradient(ways, warped, fixed), goal=goal, repeats=repeats, volume=voxels)
    both = {name: ways[name] for name in ("regkit", "SITReg (pooling per axis)")}
    compare(
        f"{title}; gradient to both",
        _with_gradient(both, warped, fixed.clone().requires_grad_()),
        goal=goal,
        repeats=repeats,
        volume=voxels,
    )


def _compare_diffusion(space: Sequence[int], repeats: int, voxels: int) -> None:
    displacement = torch.randn(1, len(space), *space).requires_grad_()
    monai = peer("monai.losses")
    ways: dict[str, Callable[..., Any] | None] = {
        "regkit": losses.diffusion,
        "VoxelMorph": _absolute_then_squared_steps,
        "SITReg": _squared_steps,
        "MONAI": monai.DiffusionLoss() if monai else None,
    }
    compare(
        f"diffusion penalty, {tuple(space)}",
        _with_gradient(ways, displacement),
        goal=">= 6 x the best peer, <= 5 volumes",
        repeats=repeats,
        volume=voxels,
    )


def _with_gradient(ways: dict[str, Callable[..., Any] | None], *inputs: Tensor) -> dict[str, Callable[[], Any] | None]:
    """The ways with their inputs, forward and backward."""
    sources = [value for value in inputs if value.requires_grad]
    return {name: way and (lambda way=way: torch.autograd.grad(way(*inputs), sources)) for name, way in ways.items()}


def _smooth_image(shape: Sequence[int]) -> Tensor:
    noise = torch.rand(shape)
    pool = F.avg_pool2d if len(shape) == 4 else F.avg_pool3d
    return pool(noise, 3, 1, 1)


# ---------------------------------------------------------------------------------------------- the peers' forms
def _correlation(warped: Tensor, fixed: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """The plain formula, its five window sums made by `total`."""
    count = _WINDOW ** (warped.dim() - 2)
    maps = (warped, fixed, warped * warped, fixed * fixed, warped * fixed)
    a, b, aa, bb, ab = (total(image) for image in maps)
    cross = ab - a * b / count
    return -(cross * cross / ((aa - a * a / count) * (bb - b * b / count) + 1e-5)).mean()


def _convolve(image: Tensor, kernel: Sequence[int]) -> Tensor:
    function = F.conv2d if image.dim() == 4 else F.conv3d
    return function(image, image.new_ones(1, 1, *kernel), padding=[size // 2 for size in kernel])


def _along(image: Tensor) -> list[list[int]]:
    """The window as one line along each axis."""
    dim = image.dim() - 2
    return [[_WINDOW if axis == own else 1 for axis in range(dim)] for own in range(dim)]


def _dense_sum(image: Tensor) -> Tensor:
    return _convolve(image, [_WINDOW] * (image.dim() - 2))


def _separable_sum(image: Tensor) -> Tensor:
    for kernel in _along(image):
        image = _convolve(image, kernel)
    return image


def _pooled_sum(image: Tensor) -> Tensor:
    pool = F.avg_pool2d if image.dim() == 4 else F.avg_pool3d
    for kernel in _along(image):
        image = pool(image, kernel, 1, [size // 2 for size in kernel]) * _WINDOW
    return image


def _absolute_then_squared_steps(displacement: Tensor) -> Tensor:
    axes = range(2, displacement.dim())
    terms = []
    for axis in axes:
        steps = torch.abs(displacement.diff(dim=axis))
        terms.append((steps * steps).mean())
    return sum(terms[1:], terms[0]) / len(terms)


def _squared_steps(displacement: Tensor) -> Tensor:
    axes = range(2, displacement.dim())
    return torch.stack([displacement.diff(dim=axis).square().mean() for axis in axes]).mean()
