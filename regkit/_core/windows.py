"""Sums over moving windows: Gaussian blur, box mean, and the fast path behind the local correlation of losses.py.

There, images are laid out flat with a border of zeros, so that the neighbour along any axis is one offset away, and a
few planes at a time, so that they stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regkit._core.grid import in_one_piece
from regkit.types import Image, InputError, check_image

_SLAB_VOXELS = {"cpu": (2**18, 2**17)}  # at a time along the first axis, and within planes: what the caches hold
_GPU_SLAB_VOXELS = (2**20, 2**20)  # what fills a GPU without holding many volumes
_LINES_VOXELS = 2**16  # of each field that Gaussian windows merge at a time
Fields = tuple[Tensor, ...]
Merge = Callable[[Fields, Fields, int, int], Fields]


# ---------------------------------------------------------------------------------------------- Gaussian windows
class _Blur(torch.autograd.Function):
    """One symmetric kernel along every spatial axis, zeros outside: its own adjoint, so nothing is kept."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weights: tuple[float, ...]) -> Tensor:
        ctx.weights, half = weights, len(weights) // 2
        for axis in range(2, image.dim()):
            result, length = image * weights[half], image.shape[axis]
            for step in range(1, min(half, length - 1) + 1):
                near, far = (start.narrow(axis, 0, length - step) for start in (result, image))
                near.add_(image.narrow(axis, step, length - step), alpha=weights[half + step])
                result.narrow(axis, step, length - step).add_(far, alpha=weights[half + step])
            image = result
        return image

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Blur.apply(grad, ctx.weights), None


def gaussian_blur(image: Image, sigma: float, *, radius: int | None = None) -> Image:
    """Blur with a normalised Gaussian along each axis, zeros outside the image.

    image: (B, C, *space). sigma: voxels. The kernel has 2 radius + 1 taps; by default it is cut at 2 sigma.
    """
    check_image(image)
    return _Blur.apply(image, _taps(sigma, round(2 * sigma) if radius is None else radius))


def _taps(sigma: float, radius: int) -> tuple[float, ...]:
    if sigma <= 0 or radius < 1:
        raise InputError("sigma must be positive and radius at least 1", f"{sigma} and {radius}", "try 2 and 4")
    taps = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(-radius, radius + 1)]
    return tuple(tap / sum(taps) for tap in taps)


def gaussian_moments(first: Image, second: Image, sigma: float, *, normalise_border: bool = False) -> Tensor:
    """G((X - G X)²), G((Y - G Y)²), G((X - G X)(Y - G Y)) around each voxel, G as `gaussian_blur`: (3, B, C, *space).

    Outside lie zeros, or nothing with `normalise_border`. No large numbers cancel, however bright a flat region is.
    """
    images = torch.stack([first, second])
    level = images.detach().flatten(3).mean(3).view(*images.shape[:3], *[1] * (images.dim() - 3))
    means, moments = images - level, images.new_zeros(()).expand(3, *images.shape[1:])
    taps, outside = _taps(sigma, round(2 * sigma)), None if normalise_border else -level
    wanted = [row for row, image in enumerate((first, second)) if image.requires_grad]
    for axis in range(3, images.dim()):
        means, moments = _GaussianMerge.apply(means, moments, outside, taps, axis, wanted)
    return moments


class _GaussianMerge(torch.autograd.Function):
    """Means μ (2, B, C, *space) and central moments V (3, ...) of lines, merged along an axis by weights w.

    With d_k = μ_k - μ_0 and δ = Σ w_k d_k: μ = μ_0 + δ, V = Σ w_k (V_k + d_k d_kᵀ) - δ δᵀ. Differences of neighbours
    are taken before they are squared, and those of ±k are one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        moments: Tensor,
        outside: Tensor | None,
        taps: tuple[float, ...],
        axis: int,
        wanted: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """wanted: of which of the two images the gradient is."""
        ctx.taps, ctx.axis, ctx.wanted, half = taps, axis, wanted, len(taps) // 2
        ctx.share = _share_inside(taps, means, axis)
        merged, spread = torch.zeros_like(means), moments * taps[half]
        for part in _lines(means, axis):
            mean, moment, shift, total = (field[part] for field in (means, moments, merged, spread))
            for step, (near, far) in _pairs(half, mean.shape[axis], axis):
                weight, difference = taps[half + step], mean[far] - mean[near]
                products = _products(difference).mul_(weight)
                shift[near].add_(difference, alpha=weight)
                shift[far].sub_(difference, alpha=weight)
                for place, other in ((near, far), (far, near)):
                    total[place].add_(products)
                    if axis > 3:  # single voxels have no moments
                        total[place].add_(moment[other], alpha=weight)
            if outside is None:
                shift.div_(ctx.share)
                total.div_(ctx.share)
            else:
                shift.add_((outside - mean) * (1 - ctx.share))
                total.add_(_products(outside - mean).mul_(1 - ctx.share))
            total.sub_(_products(shift))
            shift.add_(mean)
        ctx.share = ctx.share if outside is None else None
        ctx.save_for_backward(means, merged)
        return merged, spread

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_means: Tensor, of_moments: Tensor) -> Any:
        """A voxel's own value less the mean of each window that it is in: large numbers do not cancel here, either."""
        means, merged = ctx.saved_tensors
        taps, axis, half = ctx.taps, ctx.axis, len(ctx.taps) // 2
        if ctx.share is not None:
            of_means, of_moments = of_means / ctx.share, of_moments / ctx.share
        results = of_means * taps[half], of_moments * taps[half]
        for part in _lines(means, axis):
            mean, own, of_mean, of_moment = (field[part] for field in (merged, means, of_means, of_moments))
            result, spread = (field[part] for field in results)
            _add_pulled(result, of_moment, own - mean, taps[half], ctx.wanted)
            for step, both in _pairs(half, mean.shape[axis], axis):
                weight = taps[half + step]
                for target, source in (both, both[::-1]):
                    _add_pulled(result[target], of_moment[source], own[target] - mean[source], weight, ctx.wanted)
                    for row in ctx.wanted:
                        result[target][row].add_(of_mean[source][row], alpha=weight)
                    for row in (*ctx.wanted, 2) if ctx.needs_input_grad[1] else ():
                        spread[target][row].add_(of_moment[source][row], alpha=weight)
        return *results, None, None, None, None


def _share_inside(taps: Sequence[float], like: Tensor, axis: int) -> Tensor:
    """The sum of the weights that fall on the image, along an axis."""
    size, half = like.shape[axis], len(taps) // 2
    sums = [math.fsum(taps[max(half - place, 0) : half + size - place]) for place in range(size)]
    return like.new_tensor(sums).view(-1, *[1] * (like.dim() - 1 - axis))


def _lines(fields: Tensor, axis: int) -> Iterator[tuple[slice, ...]]:
    """Parts of fields (2 or 3, B, C, *space), whole along an axis, that fit the cache."""
    other = 4 if axis == 3 else 3
    size = fields.shape[other]
    few = max(1, _LINES_VOXELS * size // fields[0].numel()) if not in_one_piece(fields) else size
    for start in range(0, size, few):
        yield (*[slice(None)] * other, slice(start, start + few))


def _pairs(half: int, size: int, axis: int) -> Iterator[tuple[int, tuple[tuple[slice, ...], tuple[slice, ...]]]]:
    """Each step along an axis, and where the voxels lie that are so far apart: the nearer, the farther."""
    before = [slice(None)] * axis
    for step in range(1, min(half, size - 1) + 1):
        yield step, ((*before, slice(None, size - step)), (*before, slice(step, None)))


def _products(pair: Tensor) -> Tensor:
    """x², y², x y of fields (2, ...): (3, ...)."""
    result = pair.new_empty(3, *pair.shape[1:])
    torch.mul(pair, pair, out=result[:2])
    torch.mul(pair[0], pair[1], out=result[2])
    return result


def _add_pulled(result: Tensor, of_moments: Tensor, difference: Tensor, weight: float, wanted: Sequence[int]) -> None:
    """Add weight (2 g_xx dx + g_xy dy, 2 g_yy dy + g_xy dx), the gradient of `_products`; only what is wanted."""
    for row in wanted:
        result[row].addcmul_(of_moments[row], difference[row], value=2 * weight)
        result[row].addcmul_(of_moments[2], difference[1 - row], value=weight)


# ---------------------------------------------------------------------------------------------- box windows
def box_mean(image: Image, radius: int) -> Image:
    """The mean over 2 radius + 1 voxels along every axis; beyond the ends the outermost voxel continues."""
    dim = image.dim() - 2
    image = F.pad(image, [radius] * 2 * dim, mode="replicate")
    for axis in range(2, 2 + dim):
        image = image.unfold(axis, 2 * radius + 1, 1).mean(-1)
    return image


def _slide(fields: Fields, width: int, stride: int, merge: Merge) -> Fields:
    """Merge the `width` entries from each entry on, `stride` apart, by doubling: 9 = 8 + 1 is four merges, not eight.

    fields: tensors (*rows, entries); the results have (width - 1) stride entries less, width is odd.
    merge(a, b, n, m): what n entries and the m entries after them give together.
    """
    result, merged, block = fields, 1, 1
    while 2 * block <= width:
        fields = merge(*_neighbours(fields, fields, block * stride), block, block)
        block *= 2
        if width & block:
            result = merge(*_neighbours(result, fields, merged * stride), merged, block)
            merged += block
    return result


def _neighbours(first: Fields, second: Fields, step: int) -> tuple[Fields, Fields]:
    """`second` from `step` entries on, and as much of `first`."""
    after = tuple(field[..., step:] for field in second)
    return tuple(field[..., : after[0].shape[-1]] for field in first), after


def _merge_sums(first: Fields, second: Fields, count: int, other: int) -> Fields:
    return (first[0] + second[0],)


def _merge_moments(first: Fields, second: Fields, count: int, other: int, *, weight: int) -> Fields:
    """Means μ and central sums V of two sets together: V = V_1 + V_2 + (μ_2 - μ_1)² n_1 n_2 / (n_1 + n_2).

    Fields: the means of two images (2, entries), V of each (2, entries), V of their product (entries,). weight: voxels
    in each entry. No large numbers cancel, however bright a flat region is. Source: Chan, Golub and LeVeque, 1979.
    """
    (mean, square, cross), (other_mean, other_square, other_cross) = first, second
    step, share = other_mean - mean, count * other * weight / (count + other)
    return (
        torch.add(mean, step, alpha=other / (count + other)),
        (square + other_square).addcmul_(step, step, value=share),
        (cross + other_cross).addcmul_(step[0], step[1], value=share),
    )


@dataclass(frozen=True)
class _Planes:
    """How planes along the first axis lie flat: each (items, *rest), with `window // 2` zeros around `rest`."""

    window: int
    items: int
    rest: tuple[int, ...]

    @property
    def border(self) -> int:
        return self.window // 2

    @cached_property
    def padded(self) -> tuple[int, ...]:
        return (self.items, *(size + 2 * self.border for size in self.rest))

    @cached_property
    def strides(self) -> list[int]:
        """Offsets to the next plane, item, and voxel along each further axis."""
        return [math.prod(self.padded[axis:]) for axis in range(len(self.padded) + 1)]

    @cached_property
    def inside(self) -> tuple[slice, ...]:
        """Where the images lie within the padded planes, from the axis of items on."""
        return (slice(None), *(slice(self.border, self.border + size) for size in self.rest))

    def windows(self, row: Tensor, planes: int) -> Tensor:
        """Those of a row's entries that are whole windows: (planes, items, *rest)."""
        return row.as_strided((planes, self.items, *self.rest), self.strides)


def _moments_along(
    images: Sequence[Tensor], levels: Sequence[Tensor], start: int, stop: int, layout: _Planes
) -> Fields:
    """`_merge_moments` over the first axis only, around the planes start..stop: of padded planes laid flat."""
    low, high = start - layout.border, stop + layout.border
    there = slice(max(low, 0), min(high, len(images[0])))
    padded = images[0].new_empty(2, high - low, *layout.padded)
    for row, image, level in zip(padded, images, levels, strict=True):
        row.copy_(-level)  # zeros outside
        row[there.start - low : there.stop - low][(slice(None), *layout.inside)] = image[there] - level
    means = padded.flatten(1)
    nothing = means.new_zeros(means.shape[1])
    fields = (means, nothing.expand_as(means), nothing)
    return _slide(fields, layout.window, layout.strides[0], partial(_merge_moments, weight=1))


def _moments_within(fields: Fields, layout: _Planes) -> tuple[Tensor, ...]:
    """The other axes: μ_X, μ_Y, V_X, V_Y, V_XY of whole windows (planes, items, *rest), from planes that lie flat."""
    planes = fields[0].shape[-1] // layout.strides[0]
    for axis, stride in enumerate(layout.strides[2:], 1):
        fields = _slide(fields, layout.window, stride, partial(_merge_moments, weight=layout.window**axis))
    return tuple(layout.windows(row, planes) for field in fields for row in field.view(-1, field.shape[-1]))


def _spread(rows: Sequence[Tensor], layout: _Planes) -> list[Tensor]:
    """S over all axes but the first, of rows (planes, items, *rest)."""
    padded = rows[0].new_zeros(len(rows), len(rows[0]), *layout.padded)
    for target, row in zip(padded, rows, strict=True):
        target[(slice(None), *layout.inside)] = row
    flat = padded.flatten(1)
    for stride in layout.strides[2:]:
        (flat,) = _slide((flat,), layout.window, stride, _merge_sums)
    return [layout.windows(row, len(rows[0])) for row in flat]


def _factors(moments: Sequence[Tensor], ratio: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """r, and for each image whose gradient is wanted q and t (see `_correlate`)."""
    rows = [ratio]
    for own, other in ((0, 1), (1, 0)):
        if wanted[own]:
            rows.append(ratio * ratio * moments[2 + other])
            rows.append(torch.addcmul(ratio * moments[other], rows[-1], moments[own], value=-1))
    return rows


def _joined(parts: Sequence[Sequence[Tensor]]) -> Tensor:
    """Parts, each of the same rows (planes, items, *rest), one after the other: (rows, all planes, items, *rest)."""
    first = parts[0][0]
    joined = first.new_empty(len(parts[0]), sum(len(part[0]) for part in parts), *first.shape[1:])
    for row, target in enumerate(joined):
        torch.cat([part[row] for part in parts], out=target)
    return joined


def _write_gradients(
    gradients: Sequence[Tensor | None],
    images: Sequence[Tensor],
    levels: Sequence[Tensor],
    spread: Tensor,
    first: int,
    window: int,
) -> int:
    """½ ∂Σcc/∂image for all planes, from `first` on, whose windows along the first axis are whole; returns the next."""
    planes = spread.shape[1] - window + 1
    (flat,) = _slide((spread.flatten(1),), window, spread.stride(1), _merge_sums)
    ratio, *rest = flat.view(len(flat), planes, *spread.shape[2:])
    for own, gradient in enumerate(gradients):
        if gradient is not None:
            (q, t, *rest), there = rest, slice(first, first + planes)
            this, other = (images[image][there] - levels[image] for image in (own, 1 - own))
            gradient[there] = other.mul_(ratio).addcmul_(this, q, value=-1).sub_(t)
    return first + planes


def _score(fields: Fields, layout: _Planes, epsilon: float, wanted: Sequence[bool]) -> tuple[Tensor, list[Tensor]]:
    """Σ cc over planes whose `_moments_along` are given, and the `_spread` factors of its gradients, if any."""
    moments = _moments_within(fields, layout)
    ratio = moments[4] / (moments[2] * moments[3]).add_(epsilon)
    return (ratio * moments[4]).sum(), _spread(_factors(moments, ratio, wanted), layout) if any(wanted) else []


def _correlate(
    images: Sequence[Tensor], gradients: Sequence[Tensor | None], window: int, epsilon: float, slab: tuple[int, int]
) -> Tensor:
    """Σ cc over all voxels of the images (length, items, *rest); writes ½ ∂Σcc/∂image into `gradients`.

    r = cross/(v_X v_Y + ε), cc = r cross; q = r² v_X, t = r μ_X - q μ_Y; ½ ∂Σcc/∂Y = X S(r) - Y S(q) - S(t). X and Y
    less their means over the item: what is bright all over keeps its digits.
    """
    (length, items, *rest), wanted = images[0].shape, [gradient is not None for gradient in gradients]
    layout = _Planes(window, items, tuple(rest))
    levels = [image.movedim(1, 0).flatten(1).mean(1).view(-1, *[1] * len(rest)) for image in images]
    planes, chunk = (max(size // layout.strides[0], 1) for size in slab)
    outside = [images[0].new_zeros(layout.border, items, *rest)] * (1 + 2 * sum(wanted))
    before, done, totals = outside, 0, []
    for start in range(0, length, max(planes, window)):
        stop, parts = min(start + max(planes, window), length), [before]
        fields = _moments_along(images, levels, start, stop, layout)
        for few in zip(*(field.split(chunk * layout.strides[0], -1) for field in fields), strict=True):
            total, part = _score(few, layout, epsilon, wanted)
            totals.append(total)
            parts.append(part)
        if any(wanted):
            spread = _joined(parts if stop < length else [*parts, outside])
            done = _write_gradients(gradients, images, levels, spread, done, window)
            before = list(spread[:, 1 - window :])
    return torch.stack(totals).sum()


class BoxCorrelation(torch.autograd.Function):
    """Mean squared correlation over box windows; the gradient is made in the forward pass, and only it is kept."""

    @staticmethod
    def forward(ctx: Any, warped: Tensor, fixed: Tensor, window: int, epsilon: float, *wanted: bool) -> Tensor:
        images = [image.flatten(0, 1) for image in (warped, fixed)]
        gradients = [i.new_empty(i.shape) if want else None for i, want in zip(images, wanted, strict=True)]
        slab = _SLAB_VOXELS.get(warped.device.type, _GPU_SLAB_VOXELS)
        count = max(1, slab[0] // (window * math.prod(warped.shape[3:])))  # side by side
        total = warped.new_zeros(())
        for first in range(0, len(images[0]), count):
            group = [image[first : first + count].movedim(0, 1) for image in images]
            targets = [None if g is None else g[first : first + count].movedim(0, 1) for g in gradients]
            total += _correlate(group, targets, window, epsilon, slab)
        ctx.save_for_backward(*(g if g is None else g.view_as(warped) for g in gradients))
        ctx.scale = 2 / warped.numel()
        return total / warped.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*(g if g is None else g * (ctx.scale * grad) for g in ctx.saved_tensors), None, None, None, None)
