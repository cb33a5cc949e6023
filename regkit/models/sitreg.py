"""SITReg: two images meet in the middle; symmetric by algebra, free of folds by composing small safe steps.

Read `SITReg.forward` and `SITReg.stages`; then the half-way algebra, the splines with their bound, and the networks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from regkit import fields, losses, types
from regkit._core.grid import identity
from regkit._core.inversion import invert
from regkit._core.sampler import compose, exponential, sample, warp
from regkit.models.layers import Network, check_inputs, configured, conv, convolve, pad_to_multiple, swap
from regkit.types import Dim, Displacement, Image, InputError, Registration, at_least_float32, choose, spatial

Spline = Literal["plain", "prefiltered"]
_SAFETY = 0.99  # of the bound on control values
_PAPER: dict[str, Any] = {"limit": "gamma", "spline": "prefiltered", "normalization": "after"}
_FOUR_LEVELS: dict[str, Any] = {"channels": (8, 40, 40, 40), "update_channels": (16, 72, 72, 72)}

_DATASETS: dict[str, dict[str, Any]] = {
    "oasis": {},
    "oasis_alternative": {"gamma": 0.3, **_FOUR_LEVELS},
    "oasis_raw": {"channels": (8, *[36] * 5, 48, 64, 88), "update_channels": (16, *[62] * 5), "affine": "halfway"},
    "lpba40": {"channels": (8, *[36] * 6), "update_channels": (16, *[62] * 6)},
}


@dataclass(frozen=True)
class SITRegistration(Registration):
    """A Registration with the half-way maps: warp(moving, halfway_moving[k]) and warp(fixed, halfway_fixed[k]) meet.

    These are L and R after each level, coarse to fine, (B, dim, *space), voxels, without affine.
    deformable: displacement and inverse without the affine stage, which is what the objective keeps smooth.
    """

    halfway_moving: tuple[Displacement, ...] = ()
    halfway_fixed: tuple[Displacement, ...] = ()
    deformable: tuple[Displacement, ...] = ()


@configured
class SITReg(Network[SITRegistration]):
    """Symmetric, inverse consistent, topology preserving registration (Honkamaa and Marttinen).

    L = R = identity, then at each level, coarse to fine, both images' features are compared in the middle and
    U = v₁₂ ∘ v₂₁⁻¹ moves them towards each other: L ← L ∘ U, R ← R ∘ U⁻¹. f₁₂ = L ∘ R⁻¹, f₂₁ = R ∘ L⁻¹ (equations 4-8).
    Loss: ½ (lncc(moving ∘ f₁₂, fixed) + lncc(fixed ∘ f₂₁, moving)) + ½ λ (diffusion(f₁₂) + diffusion(f₂₁)).

    Model card
        Parameters: 1,234,615 in 3D (the paper's 1.2 M), 421,322 in 2D; `paper(dataset="oasis_raw")` 2,464,872.
        Reach: at most 4 limit_k 2^k voxels along an axis from level k, in all 49 voxels in 3D and 59 in 2D by default.
        Guaranteed by construction: exchanging the images exchanges the maps bit for bit (at least to 1e-6 voxel); each
        step v has |J| >= 0.01 for any weights; two equal images give the identity up to `tolerance` for each inversion.
        Not guaranteed: the whole map is stored on the grid after each composition, so a few folds are possible (Table
        1: 11 of 4.4 million voxels), and displacement and inverse undo each other up to interpolation. With
        limit="gamma" and spline="prefiltered" (the paper's program) a step may fold in 3D; with limit="none" anywhere.
        Any size; no batch statistics, no dropout. Intensities should be in [0, 1].

    dim: 2 or 3. in_channels: of each image. channels: features of each level, the finest first.
    update_channels: of the update networks, the finest first; as many as levels K that deform (Tables A1, A2). Coarser
        levels of `channels` serve the affine stage only.
    convolutions: of each feature level; one number stands for all. groups: of each GroupNorm.
    limit: of control values: "bound" 0.99 of the largest safe value, "gamma" the same `gamma` at each level (Tables A1
        and A2: 0.15 and 0.3), "none". spline: "plain" B-spline, or "prefiltered", which passes through the control
        values (the paper's program).
    normalization: "before" the ReLU or "after" it (the paper's program). update_normalization: in the update networks.
    update: "inversion" as above; "velocity" exp(w₁₂ - w₂₁) (Table A5, memory); "one_sided" v₁₂, which is not symmetric.
    meeting: "halfway", or at the "fixed" image: R stays the identity, which is not symmetric.
    affine: "halfway" predicts A, and f₁₂ = A ∘ L ∘ R⁻¹ ∘ A (Table A2). affine_voxels: of the coarsest level, in all.
    as_released: leave out the affine network's first layer, whose result the released program discards.
    solver, tolerance: of the inversions; largest error in voxels. weight: λ (Table A1: 1, 1.5, 2). window: of lncc.
    similarity: a function or module of two images in place of lncc; both are 0 where a map reads outside.

    Raises:
        ValueError: numbers of levels that do not fit each other.
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: types.Count = 1,
        channels: tuple[types.Count, ...] = (8, 36, 36, 36, 36),
        update_channels: tuple[types.Count, ...] = (16, 62, 62, 62, 62),
        convolutions: types.Count | tuple[types.Count, ...] = 2,
        groups: types.Count = 2,
        limit: Literal["bound", "gamma", "none"] = "bound",
        gamma: types.Positive = 0.15,
        spline: Literal["plain", "prefiltered"] = "plain",
        normalization: Literal["before", "after"] = "before",
        update_normalization: Literal["none", "before", "after"] = "none",
        update: Literal["inversion", "velocity", "one_sided"] = "inversion",
        meeting: Literal["halfway", "fixed"] = "halfway",
        affine: Literal["none", "halfway"] = "none",
        affine_voxels: types.Count = 1,
        as_released: bool = False,
        solver: Literal["anderson", "plain", "newton"] = "anderson",
        tolerance: types.Positive = 1e-2,
        weight: types.Amount = 1.0,
        window: types.Count = 7,
        similarity: types.Similarity | None = None,
    ):
        super().__init__()
        counts = (convolutions,) * len(channels) if isinstance(convolutions, int) else convolutions
        _check_levels(channels, update_channels, counts, affine)
        self.dim, self.spline, self.weight, self.window, self.similarity = dim, spline, weight, window, similarity
        self.update, self.meeting, self.solver, self.tolerance = update, meeting, solver, tolerance
        self.features = Features(dim, (in_channels, *channels), counts, groups, normalization)
        self.updates = nn.ModuleList()
        for level, (before, width) in enumerate(zip(channels, update_channels, strict=False)):
            largest = None  # of the control values
            if limit == "bound":
                largest = _SAFETY * control_bound(2**level, dim)
            elif limit == "gamma":
                largest = gamma
            self.updates.append(Update(dim, before, width, groups, update_normalization, largest))
        self.affine = None
        if affine == "halfway":
            self.affine = HalfwayAffine(dim, channels[-1] * affine_voxels, as_released)

    @classmethod
    def paper(cls, dim: Dim = 3, *, dataset: str = "oasis", **changes: Any) -> SITReg:
        """The paper's program for oasis, oasis_alternative, oasis_raw or lpba40; `changes` go to the constructor."""
        return cls(dim, **_PAPER | choose("dataset", dataset, _DATASETS) | changes)

    @classmethod
    def released(cls, dim: Dim = 3, **changes: Any) -> SITReg:
        """The later release's configuration for OASIS: four levels, the safe limit, the norm before the ReLU."""
        return cls(dim, **_FOUR_LEVELS | {"as_released": True} | changes)

    def forward(self, moving: Image, fixed: Image) -> SITRegistration:
        """Register, in both directions."""
        levels, halfway_moving, halfway_fixed = [], [], []
        for stage in self.stages(moving, fixed):
            levels.append(stage.displacement(0))
            left, right = stage.halfway.chunk(2)  # L and R, each (B, dim, *space)
            halfway_moving.append(left)
            halfway_fixed.append(right)
        return SITRegistration(
            displacement=levels[-1],
            inverse=stage.displacement(1),
            levels=tuple(levels),
            halfway_moving=tuple(halfway_moving),
            halfway_fixed=tuple(halfway_fixed),
            deformable=(composed(*stage.maps(0)), composed(*stage.maps(1))),
        )

    def stages(self, moving: Image, fixed: Image) -> Iterator[Stage]:
        """The levels one by one, coarse to fine, by equations 4 to 7; both images are stacked along the batch."""
        check_inputs(self, moving, fixed)
        images = torch.cat(torch.broadcast_tensors(moving, fixed))  # (2B, C, *space)
        shape = spatial(images)
        features = self.features(images)  # of level k: (2B, C_k, *ceil(space / 2^k))
        affine = None if self.affine is None else self.affine(features[-1], shape)  # A and A⁻¹
        halfway = halfway_inverse = None  # L and R, and their inverses: at first the identity
        for level in reversed(range(len(self.updates))):
            met = look_up(features[level], 2**level, halfway, affine, shape)  # h₁ ∘ A ∘ L and h₂ ∘ A⁻¹ ∘ R (4)
            control = self.updates[level](met)  # c₁₂ and c₂₁: (2B, dim, *level), voxels of the level
            step = upsample_controls(control, shape, 2**level, spline=self.spline)  # v₁₂ and v₂₁: (2B, dim, *space)
            update = self.factors(step)  # U₁₂ and U₂₁ = U₁₂⁻¹ (5)
            halfway = composed(halfway, *self.shares(update))  # L ← L ∘ U₁₂ (6) and R ← R ∘ U₂₁ (7)
            inverse_update = [swap(part) for part in update]  # U₁₂⁻¹ = U₂₁ and U₂₁⁻¹ = U₁₂
            halfway_inverse = composed(*self.shares(inverse_update), halfway_inverse)  # L⁻¹ ← U₁₂⁻¹ ∘ L⁻¹, R⁻¹ alike
            yield Stage(control, step, halfway, halfway_inverse, affine)

    def factors(self, step: Displacement) -> list[Displacement]:
        """The maps that make U₁₂ and U₂₁ when composed, each (2B, dim, *space); with halves exchanged, the inverses."""
        if self.update == "inversion":
            return two_sided(step, self._inverse)
        if self.update == "velocity":  # U₁₂ = exp(w₁₂ - w₂₁), U₂₁ = exp(w₂₁ - w₁₂)
            return [exponential(step - swap(step))]
        forward = step.chunk(2)[0]  # "one_sided": U₁₂ = v₁₂, U₂₁ = v₁₂⁻¹
        return [torch.cat([forward, self._inverse(forward)])]

    def shares(self, update: list[Displacement]) -> list[Displacement]:
        """What each image moves of an update: meeting at the "fixed" image, that one moves by the identity."""
        if self.meeting == "halfway":
            return update
        halves = [part.chunk(2) for part in update]
        return [torch.cat([moving, torch.zeros_like(fixed)]) for moving, fixed in halves]

    def _inverse(self, displacement: Displacement) -> Displacement:
        return invert(displacement, tolerance=self.tolerance, method=self.solver)

    def objective(self, registration: SITRegistration, moving: Image, fixed: Image) -> dict[str, Tensor]:
        """½ lncc and ½ λ diffusion, both of both directions, by name; their sum is the loss."""
        assert registration.inverse is not None
        similarity = self._measure(moving, fixed, registration.displacement)
        similarity = similarity + self._measure(fixed, moving, registration.inverse)
        deformable, deformable_inverse = registration.deformable
        roughness = losses.diffusion(deformable) + losses.diffusion(deformable_inverse)
        name = "lncc" if self.similarity is None else "similarity"
        return {name: similarity / 2, "diffusion": self.weight * roughness / 2}

    def _measure(self, image: Image, other: Image, displacement: Displacement) -> Tensor:
        """The similarity of both images, set to zero where the map reads outside."""
        inside = fields.reads_inside(displacement).to(displacement.dtype)
        warped, other = fields.warp(image, displacement) * inside, other * inside
        if self.similarity is None:
            return losses.lncc(warped, other, window=self.window)
        return self.similarity(warped, other)


def _check_levels(channels: Sequence[int], updates: Sequence[int], counts: Sequence[int], affine: str) -> None:
    fits = len(channels) >= len(updates) if affine == "halfway" else len(channels) == len(updates)
    if not updates or not fits or len(counts) != len(channels):
        raise InputError(
            "each level has its channels, convolutions and update network (coarser levels without one need an "
            "affine stage)",
            f"{len(channels)}, {len(counts)} and {len(updates)} with affine={affine!r}",
            "give as many",
        )


# ---------------------------------------------------------------------------------------------- the half-way algebra
@dataclass(frozen=True)
class Stage:
    """What one level computes, for moving and fixed stacked along the batch.

    control: c₁₂ and c₂₁, (2B, dim, *level), voxels of the level. step: v₁₂ and v₂₁. halfway: L and R. halfway_inverse:
    L⁻¹ and R⁻¹; these are (2B, dim, *space), voxels. affine: A and A⁻¹, (2B, dim, dim + 1), about the centre, or None.
    """

    control: Tensor
    step: Displacement
    halfway: Displacement
    halfway_inverse: Displacement
    affine: Tensor | None

    def maps(self, side: int) -> tuple[Displacement, Displacement]:
        """L and R⁻¹ for side 0, R and L⁻¹ for side 1."""
        return self.halfway.chunk(2)[side], self.halfway_inverse.chunk(2)[1 - side]

    def displacement(self, side: int) -> Displacement:
        """f₁₂ = A ∘ L ∘ R⁻¹ ∘ A for side 0, f₂₁ = A⁻¹ ∘ R ∘ L⁻¹ ∘ A⁻¹ for side 1 (equation 8; A: Table A2)."""
        if self.affine is None:
            return composed(*self.maps(side))
        affine, shape = self.affine.chunk(2)[side], spatial(self.halfway)
        grid = identity(shape, like=self.halfway)
        inner = composed(*self.maps(side), fields.affine_displacement(affine, shape))
        return fields.move_affinely(grid + inner, affine, shape) - grid


def composed(*maps: Displacement | None) -> Displacement:
    """φ_1 ∘ … ∘ φ_n: from a grid point look up the last map first; only the result is a new field on the grid.

    None is the identity.
    """
    *outer, result = (displacement for displacement in maps if displacement is not None)
    for displacement in reversed(outer):
        result = compose(displacement, result)
    return result


def two_sided(step: Displacement, inverse: Callable[[Displacement], Displacement]) -> list[Displacement]:
    """U₁₂ = v₁₂ ∘ v₂₁⁻¹ and U₂₁ = v₂₁ ∘ v₁₂⁻¹ as factors: each is the other's inverse, whatever v is (equation 5)."""
    return [step, swap(inverse(step))]


def look_up(
    features: Tensor, factor: int, halfway: Displacement | None, affine: Tensor | None, shape: Sequence[int]
) -> Tensor:
    """h ∘ A ∘ L on the grid of h (equation 4); None is the identity.

    features: h, (2B, C, *level), whose voxel i sits at factor * i + (factor - 1)/2 of the full grid. halfway: L,
    (2B, dim, *shape), voxels. affine: A, (2B, dim, dim + 1), voxels about the centre. Returns (2B, C, *level).
    """
    grid = factor * identity(spatial(features), like=at_least_float32(features[:1, :1])) + (factor - 1) / 2
    positions = grid if halfway is None else grid + sample(halfway, grid)
    if affine is not None:
        positions = fields.move_affinely(positions, affine, shape)
    return warp(features, (positions - grid) / factor)


# ---------------------------------------------------------------------------------------------- splines and their bound
_PATCH = 6  # control values along each axis of a patch that holds one whole cell with all its neighbours


def basis(distance: np.ndarray) -> np.ndarray:
    """The cubic B-spline at a signed distance in control spacings: 2/3 - a² + a³/2 for a < 1, (2 - a)³/6 for a < 2."""
    a = np.abs(distance)
    return np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.maximum(2 - a, 0) ** 3 / 6)


@lru_cache(maxsize=512)
def spline_matrix(size: int, factor: int, spline: Spline = "plain") -> np.ndarray:
    """The `size` samples of an axis as combinations of its ceil(size / factor) control values; float64.

    v(j) = Σ_i c(i) B((j + 1/2)/factor - 1/2 - i), the end values replicated beyond the ends.
    "prefiltered": the control values are first those of the spline that passes through c (mirrored ends).
    """
    count = -(-size // factor)
    places = (np.arange(size)[:, None] + 0.5) / factor - 0.5
    weights = basis(places - np.arange(-2, count + 2))  # (size, 2 + count + 2)
    matrix = weights[:, 2:-2].copy()
    matrix[:, 0] += weights[:, :2].sum(1)
    matrix[:, -1] += weights[:, -2:].sum(1)
    return matrix if spline == "plain" else matrix @ np.linalg.inv(spline_matrix(count, 1))


def upsample_controls(control: Tensor, shape: Sequence[int], factor: int, *, spline: Spline = "plain") -> Displacement:
    """Control values as a displacement of the full grid: one small matrix product per axis, then times `factor`.

    control: (B, dim, *ceil(shape / factor)), voxels of their own level. Returns (B, dim, *shape), voxels.
    Level voxel i sits at factor * i + (factor - 1)/2. Computed in float32 or better also under autocast.
    """
    types.check_option("spline", spline, get_args(Spline))
    with torch.autocast(control.device.type, enabled=False):
        field = at_least_float32(control)
        for size in shape:  # contracts the first spatial axis and appends the new one: dim times restores the order
            matrix = torch.as_tensor(spline_matrix(size, factor, spline), dtype=field.dtype, device=field.device)
            field = torch.tensordot(field, matrix, ([2], [1]))
        return factor * field


def control_bound(factor: int, dim: Dim) -> float:
    """The largest |control value|, in voxels of the level, below which x + u(x) cannot fold; plain spline only.

    bound = 1 / max Σ_i |Σ_d ∂_d B_i| over the corners of all sampling cells, ∂_d the difference between neighbouring
    samples (between samples the map is multilinear). Below it |∂u| < 1 in the maximum norm, so that the map is
    injective and its inversion by iteration contracts. It is tight: see `worst_pattern`.
    Source: Choi and Lee, 2000, for factor -> infinity (0.4033 in 3D, 0.4887 in 2D); the later release of SITReg.
    """
    return 1 / float(np.abs(_steepest(factor, dim)).sum())


def worst_pattern(factor: int, dim: Dim) -> Tensor:
    """Control values ±1 that fold soonest: times k * bound they give min |J| = 1 - k. (1, dim, 6, ...)."""
    pattern = torch.as_tensor(-np.sign(_steepest(factor, dim))).reshape(1, 1, *[_PATCH] * dim)
    return pattern.repeat(1, dim, *[1] * dim)


@lru_cache(maxsize=64)
def _steepest(factor: int, dim: Dim) -> np.ndarray:
    """Σ_d ∂_d B_i for the control values i of a patch, flattened, at the corner where Σ_i |.| is largest."""
    matrix = spline_matrix(_PATCH * factor, factor)
    cells = np.arange(factor) + 2 * factor + factor // 2  # one period of sampling cells, in the middle of the patch
    slopes = np.repeat(factor * (matrix[cells + 1] - matrix[cells]), 2, 0)  # (2 factor, 6), for both ends of a cell
    values = np.stack([matrix[cells], matrix[cells + 1]], 1).reshape(slopes.shape)
    best = np.zeros(_PATCH**dim)
    for first in range(2 * factor):  # the axes may be exchanged: the other corners need not come before the first
        value, slope = values[first, None], slopes[first, None]
        for _ in range(dim - 1):
            slope = _outer(slope, values[first:]) + _outer(value, slopes[first:])
            value = _outer(value, values[first:])
        sums = np.abs(slope).sum(1)
        if sums.max() > np.abs(best).sum():
            best = slope[sums.argmax()]
    return best


def _outer(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """All products of rows, each the outer product of two rows, flattened: (a, m) and (b, n) to (a b, m n)."""
    return np.einsum("am,bn->abmn", one, other).reshape(len(one) * len(other), -1)


# ---------------------------------------------------------------------------------------------- networks
def block(dim: Dim, channels: Sequence[int], groups: int, normalization: str) -> nn.Sequential:
    """A 3-convolution and ReLU for each step in `channels`; GroupNorm "before" or "after" each ReLU, or "none"."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (before, after) in enumerate(pairwise(channels)):
        layers[f"conv{i}"] = conv(dim, before, after)
        if normalization == "before":
            layers[f"norm{i}"] = nn.GroupNorm(groups, after)
        layers[f"relu{i}"] = nn.ReLU()
        if normalization == "after":
            layers[f"norm{i}"] = nn.GroupNorm(groups, after)
    return nn.Sequential(layers)


class Features(nn.Module):
    """h_0 … h_n of an image, fine to coarse: (B, C, *space) to (B, C_k, *ceil(space / 2^k))."""

    def __init__(self, dim: Dim, channels: Sequence[int], counts: Sequence[int], groups: int, normalization: str):
        super().__init__()
        self.project = conv(dim, channels[0], channels[1], 1)
        self.block = block(dim, [channels[1]] * (counts[0] + 1), groups, normalization)
        self.down = nn.ModuleList()
        for (before, after), count in zip(pairwise(channels[1:]), counts[1:], strict=True):
            self.down.append(Down(dim, before, after, count, groups, normalization))

    def forward(self, image: Image) -> list[Tensor]:
        skip = self.project(image)
        levels = [self.block(skip)]
        for down in self.down:
            features, skip = down(levels[-1], skip)
            levels.append(features)
        return levels


class Down(nn.Module):
    """One level coarser: (h, skip) to (block(s), s), s = project(pool(skip)) + reduce(h); odd axes end in a zero."""

    def __init__(self, dim: Dim, before: int, after: int, count: int, groups: int, normalization: str):
        super().__init__()
        self.reduce = conv(dim, before, after, 2, stride=2, padding=0)
        self.project = conv(dim, before, after, 1)
        self.block = block(dim, [after] * (count + 1), groups, normalization)

    def forward(self, features: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        features = pad_to_multiple(features, 2, mode="constant")
        skip = pad_to_multiple(skip, 2, mode="constant")
        skip = self.project(fields.average_pool(skip)) + self.reduce(features)
        return self.block(skip), skip


class Update(nn.Module):
    """c = limit tanh(u(cat(z_a - z_b, z_a + z_b))), (a, b) and (b, a) at once: (2B, C, *level) to (2B, dim, *level).

    The first convolution is linear, so its answers to difference and sum are computed once and added or subtracted.
    largest: the limit, in voxels of the level; None is no limit, c = u(…).
    """

    def __init__(self, dim: Dim, before: int, width: int, groups: int, normalization: str, largest: float | None):
        super().__init__()
        self.block = block(dim, [2 * before, width, width], groups, normalization)
        self.head = conv(dim, width, dim, 1)
        self.largest = largest

    def forward(self, features: Tensor) -> Tensor:
        first, second = features.chunk(2)
        entry, *layers = self.block.children()
        weight_of_difference, weight_of_sum = entry.get_parameter("weight").chunk(2, 1)
        odd = convolve(first - second, weight_of_difference)
        even = convolve(first + second, weight_of_sum, entry.get_parameter("bias"))
        hidden = torch.cat([even + odd, even - odd])  # for (a, b), then for (b, a)
        for layer in layers:
            hidden = layer(hidden)
        control = self.head(hidden)
        return control if self.largest is None else self.largest * torch.tanh(control)


class HalfwayAffine(nn.Module):
    """A = P(a, b) P(b, a)⁻¹ from the coarsest features: half of the affine motion, and A⁻¹ with a and b exchanged.

    P(a, b)(w) = M (w + t), M = expm(S) expm(W), S symmetric, W skew, from MLP(cat(a - b, a + b)); lengths in half the
    image's longest side. Returns (2B, dim, dim + 1), voxels about the image's centre, for moving and fixed.
    """

    def __init__(self, dim: Dim, inputs: int, as_released: bool):
        super().__init__()
        self.dim, self.inputs = dim, inputs
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(as_released, 2):  # the released program discards what its first layer computes
            layers |= {f"linear{i}": nn.Linear(2 * inputs, 2 * inputs), f"relu{i}": nn.ReLU()}
        layers["head"] = nn.Linear(2 * inputs, dim * (dim + 1))
        self.layers = nn.Sequential(layers)

    def forward(self, features: Tensor, shape: Sequence[int]) -> Tensor:
        if features[0].numel() != self.inputs:
            raise InputError(
                f"the affine stage reads {self.inputs} numbers of the coarsest level",
                f"{features[0].numel()} for images of {tuple(shape)}",
                f"make the model with affine_voxels={features[0, 0].numel()}",
            )
        first, second = features.flatten(1).chunk(2)  # a and b: (B, inputs)
        forward = torch.cat([first - second, first + second], 1)
        backward = torch.cat([second - first, first + second], 1)
        with torch.autocast(features.device.type, enabled=False):
            numbers = self.layers(torch.cat([forward, backward]).to(next(self.parameters()).dtype))
            affine = self._affine(numbers.double(), max(shape) / 2)  # double, so that P P⁻¹ is exactly 1
            return affine.to(numbers.dtype)

    def _affine(self, numbers: Tensor, unit: float) -> Tensor:
        """M₁₂ M₂₁⁻¹ and M₁₂ (t₁₂ - t₂₁): (2B, dim (dim + 1)) to (2B, dim, dim + 1), lengths times `unit`."""
        dim = self.dim
        diagonal, upper, skew, translation = numbers.split([dim, dim * (dim - 1) // 2, dim * (dim - 1) // 2, dim], 1)
        rows, columns = torch.triu_indices(dim, dim, 1)
        stretch = torch.diag_embed(diagonal)  # S
        turn = torch.zeros_like(stretch)  # W
        stretch[:, rows, columns] = stretch[:, columns, rows] = upper
        turn[:, rows, columns], turn[:, columns, rows] = skew, -skew
        linear = torch.linalg.matrix_exp(stretch) @ torch.linalg.matrix_exp(turn)  # M
        inverse = torch.linalg.matrix_exp(-turn) @ torch.linalg.matrix_exp(-stretch)
        shift = linear @ (translation - swap(translation))[:, :, None]
        return torch.cat([linear @ swap(inverse), shift * unit], 2)
