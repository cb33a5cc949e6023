"""Losses: what training makes small. Plain functions of tensors; each returns one number and can be differentiated.

Similarities compare warped and fixed images (B, C, *space); smoothness reads displacements, inverse consistency two
displacements or maps. Half precision is computed in float32, also under autocast.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from regkit import types
from regkit._core.grid import in_one_piece
from regkit._core.sampler import sample
from regkit._core.windows import BoxCorrelation, box_mean, gaussian_blur, gaussian_moments
from regkit.fields import average_pool, identity, scale_components
from regkit.types import Coordinates, Displacement, Image, InputError, Mask, at_least_float32, spatial

__all__ = [
    "AdaptiveTerms",
    "adaptive_ncc",
    "adaptive_ncc_terms",
    "bending",
    "dice",
    "diffusion",
    "evaluation_points",
    "gaussian_blur",
    "gradicon",
    "gradicon_of_maps",
    "icon",
    "icon_of_maps",
    "level_window",
    "lncc",
    "lncc_gaussian",
    "mindssc",
    "mindssc_descriptor",
    "mse",
    "mutual_information",
    "ncc",
]

Map = Callable[[Coordinates], Coordinates]
Orders = Literal["one", "both"]
Weighting = Literal["greedy", "parameter-free", "mean"]
_PIECE_VOXELS = 2**16  # what stays in a core's cache, of a field and its differences


# ---------------------------------------------------------------------------------------------- similarities
def _comparable(warped: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype, float32 at least. Raises unless they are images of one shape on one device."""
    types.check_same_grid(warped, fixed, ("warped", "fixed"))
    if warped.shape != fixed.shape:
        raise InputError(
            "warped and fixed must have one shape",
            f"{tuple(warped.shape)} and {tuple(fixed.shape)}",
            "repeat the single one with .expand(batch, channels, *space)",
        )
    dtype = torch.promote_types(torch.promote_types(warped.dtype, fixed.dtype), torch.float32)
    return warped.to(dtype), fixed.to(dtype)


def mse(warped: Image, fixed: Image, *, mask: Mask | None = None) -> Tensor:
    """Mean squared difference: mean (X - Y)²; with a mask w the mean over samples of Σ w (X - Y)² / Σ w.

    mask: (B or 1, 1, *space), weights from 0 to 1. Source: GradICON's SSD and, with a mask warped along with the
    moving image, its "only interpolated" form. Raises ValueError where a sample's mask is zero everywhere.
    """
    warped, fixed = _comparable(warped, fixed)
    squared = (warped - fixed).square()
    if mask is None:
        return squared.mean()
    types.check_same_grid(warped, mask, ("warped", "mask"))
    weights = mask.to(squared).expand_as(squared).flatten(1)
    total = weights.sum(1)
    types.check_kept(total, "give every sample a voxel that weighs more than 0")
    return ((weights * squared.flatten(1)).sum(1) / total).mean()


def _ncc_per_sample(warped: Image, fixed: Image) -> Tensor:
    """1 - NCC of every sample, its mean over the channels: (B,)."""
    scores = []
    for image in (warped, fixed):
        flat = image.flatten(2)
        flat = flat - flat[..., :1].detach()  # a constant leaves exactly nothing, however bright
        centred = flat - flat.mean(2, keepdim=True)
        scores.append(centred / centred.square().mean(2, keepdim=True).clamp_min(1e-12).sqrt())
    return 1 - (scores[0] * scores[1]).mean((1, 2))


def ncc(warped: Image, fixed: Image) -> Tensor:
    """Global normalised cross-correlation: 1 - mean(X̂ Ŷ), X̂ = (X - mean)/std for each sample and channel; in [0, 2].

    The variance is at least 1e-12, so a constant image gives 1. Source: GradICON.
    """
    return _ncc_per_sample(*_comparable(warped, fixed)).mean()


def lncc(warped: Image, fixed: Image, *, window: int = 9, epsilon: types.Positive = 1e-5) -> Tensor:
    """Local normalised cross-correlation, squared, over box windows: -mean cross²/(v_X v_Y + ε); in [-1, 0].

    cross = S(XY) - S(X)S(Y)/N, v_X = S(X²) - S(X)²/N: sums S over the window around each voxel, N = window^dim. Outside
    the image lie zeros, and N counts them. Any odd window; flat windows give 0, so two equal images reach -1 only where
    they have structure. Differentiable once. 3D: about 5 image volumes of memory (8 where both images need gradients).

    Raises:
        TypeError, ValueError: not two images of one shape, an even window, or one larger than the image.
    Source: VoxelMorph; window 9 in SACB-Net, 7 in SITReg, 9, 7, 5, 3 from fine to coarse in SPnet and SM-GICNet (whose
    program has epsilon 1e-8).
    """
    warped, fixed = _comparable(warped, fixed)
    if window < 3 or window % 2 == 0 or window > min(spatial(warped)):
        raise InputError(
            "window must be odd, at least 3 and no larger than the image",
            f"{window} for an image of {spatial(warped)}",
            "9 is usual, 3 to 7 on small grids",
        )
    wanted = [torch.is_grad_enabled() and image.requires_grad for image in (warped, fixed)]
    return -BoxCorrelation.apply(warped, fixed, window, epsilon, *wanted)


def level_window(image: Image, halvings: types.Whole) -> int:
    """The window of `lncc` at a pyramid's level: 9 at full size, 2 less for each halving, at least 3; inside the image.

    Raises:
        ValueError: the level has an axis of fewer than 3 voxels.
    Source: SPnet, section 3.4; SM-GICNet.
    """
    smallest = min(spatial(image))
    if smallest < 3:
        raise InputError(
            "each level must have 3 voxels along every axis to be compared",
            f"a level of {spatial(image)}",
            "make the model with fewer levels",
        )
    return min(max(3, 9 - 2 * halvings), smallest - 1 + smallest % 2)


def lncc_gaussian(
    warped: Image,
    fixed: Image,
    *,
    sigma: float = 5.0,
    squared: bool = False,
    normalise_border: bool = False,
    mask: Mask | None = None,
) -> Tensor:
    """Local normalised cross-correlation over Gaussian windows: 1 - mean cov/√((v_X + 1e-5)(v_Y + 1e-5)); in [0, 2].

    cov = G(XY) - G(X)G(Y), v_X = G(X²) - G(X)², centred before they are squared; G the blur of `sigma` voxels cut at
    2 sigma. Signed; `squared` squares the ratio. Outside the image lie zeros; `normalise_border` divides each G by G(1)
    instead of seeing an edge there. mask: (B or 1, 1, *space); the mean is then over the voxels where G(mask) > 0.999;
    a ValueError if none. Differentiable once.
    Source: GradICON's LNCC, squared LNCC and "only interpolated" LNCC.
    """
    warped, fixed = _comparable(warped, fixed)
    *variances, covariance = gaussian_moments(warped, fixed, sigma, normalise_border=normalise_border)
    ratio = covariance / ((variances[0].clamp_min(0) + 1e-5) * (variances[1].clamp_min(0) + 1e-5)).sqrt()
    ratio = ratio.square() if squared else ratio
    if mask is None:
        return 1 - ratio.mean()
    types.check_same_grid(warped, mask, ("warped", "mask"))
    inside = (gaussian_blur(mask.to(ratio), sigma) > 0.999).to(ratio).expand_as(ratio)
    types.check_kept(
        inside.sum(), "give a mask with a whole window of ones (about 2 sigma each way), or a smaller sigma"
    )
    return 1 - (ratio * inside).sum() / inside.sum()


@dataclass(frozen=True)
class AdaptiveTerms:
    """What the adaptive NCC adds up, from the finest scale to the coarsest; Q = levels.

    terms: s_i = 1 - NCC, (B, Q + 1). gammas: γ_1 … γ_Q, (B, Q). weights: of each term in the sum, (B, Q + 1); they add
    up to 1 and carry no gradient.
    """

    terms: Tensor
    gammas: Tensor
    weights: Tensor


def adaptive_ncc(
    warped: Image,
    fixed: Image,
    *,
    weighting: Weighting = "greedy",
    levels: int = 4,
    alpha: float = 0.1,
    beta: float = 1.3,
    offset: int = 0,
) -> Tensor:
    """Self-adaptive multi-scale NCC: coarse scales lead until they are solved. The mean over samples of g_Q.

    g_0 = s_0, g_i = γ_i s_i + (1 - γ_i) g_{i-1}; s_i = 1 - NCC at scale i, fine to coarse; γ carries no gradient.
    "parameter-free" (eq. 7): γ_i = clamp(s_i, 0, 1). "greedy" (eq. 8): γ_i = clamp(s_i/h_i, 0, 1), where scale i is
    left for finer ones at h_i = α/β^(Q - i + offset). "mean" (Fig. 4): γ_i = 1/(i + 1). offset=1: as released.
    Source: GradICON, section 5.2. `adaptive_ncc_terms` gives the parts.
    """
    parts = adaptive_ncc_terms(warped, fixed, weighting=weighting, levels=levels, alpha=alpha, beta=beta, offset=offset)
    return (parts.weights * parts.terms).sum(1).mean()


def adaptive_ncc_terms(
    warped: Image,
    fixed: Image,
    *,
    weighting: Weighting = "greedy",
    levels: int = 4,
    alpha: float = 0.1,
    beta: float = 1.3,
    offset: int = 0,
) -> AdaptiveTerms:
    """The terms of `adaptive_ncc` and how they are weighted: term i has γ_i Π_{j>i} (1 - γ_j), with γ_0 = 1."""
    terms = _multiscale_ncc(*_comparable(warped, fixed), levels)
    coarse = terms[:, 1:].detach()
    scale = torch.arange(1, levels + 1, device=terms.device)
    if weighting == "parameter-free":
        gammas = coarse.clamp(0, 1)
    elif weighting == "greedy":
        gammas = (coarse * beta ** (levels - scale + offset) / alpha).clamp(0, 1)
    else:
        gammas = (1 / (scale + 1.0)).to(terms).expand_as(coarse)
    one = gammas.new_ones(len(gammas), 1)
    left = torch.cat([one, (1 - gammas).flip(1)], 1).cumprod(1).flip(1)  # Π_{j>i} (1 - γ_j)
    return AdaptiveTerms(terms, gammas, torch.cat([one, gammas], 1) * left)


def _multiscale_ncc(warped: Image, fixed: Image, levels: int) -> Tensor:
    """1 - NCC of the images, of both blurred, and of both pooled by 2^(i - 1) and blurred: (B, levels + 1)."""
    if levels < 1 or min(spatial(warped)) < 2**levels:
        raise InputError(
            "levels must be at least 1 and leave 2 voxels on each axis",
            f"{levels} for an image of {spatial(warped)}",
            "use fewer levels or larger images",
        )
    terms = [_ncc_per_sample(warped, fixed)]
    for level in range(levels):
        if level:
            warped, fixed = average_pool(warped), average_pool(fixed)
        terms.append(_ncc_per_sample(*(gaussian_blur(image, 2.0, radius=2) for image in (warped, fixed))))
    return torch.stack(terms, 1)


class _ParzenJoint(torch.autograd.Function):
    """The joint histogram (bins, bins) of two images (N,) in bins: linear B-splines of fixed, cubic ones of warped.

    Nothing as large as bins x N is made: each of the eight entries that a voxel adds to is counted by itself, and the
    backward pass computes its weights again.
    """

    @staticmethod
    def forward(ctx: Any, warped: Tensor, fixed: Tensor, weights: Tensor, bins: int) -> Tensor:
        ctx.save_for_backward(warped, fixed, weights)
        ctx.bins = bins
        joint = warped.new_zeros(bins * bins, dtype=torch.float64)
        for row, share in _linear_spline(fixed):
            for column, part, _ in _cubic_spline(warped):
                joint.index_add_(0, row * bins + column, (share * part * weights).double())
        return joint.view(bins, bins)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        warped, fixed, weights = ctx.saved_tensors
        flat, result = gradient.flatten().to(warped.dtype), torch.zeros_like(warped)
        for row, share in _linear_spline(fixed):
            for column, _, slope in _cubic_spline(warped):
                result.addcmul_(flat[row * ctx.bins + column], share * slope)
        return result * weights, None, None, None


def _linear_spline(position: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The two bins next to a position, and their shares."""
    first = position.floor()
    for step in (0, 1):
        yield (first + step).long(), 1 - (position - first - step).abs()


def _cubic_spline(position: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The four bins next to a position, their shares by the cubic B-spline, and how these change."""
    first = position.floor() - 1
    for step in range(4):
        x = position - first - step
        far, sign = x.abs(), x.sign()
        inner, outer = far < 1, (2 - far).clamp(min=0)
        share = torch.where(inner, (4 - 6 * far**2 + 3 * far**3) / 6, outer**3 / 6)
        slope = torch.where(inner, sign * far * (1.5 * far - 2), -sign * outer**2 / 2)
        yield (first + step).long(), share, slope


def mutual_information(warped: Image, fixed: Image, *, bins: int = 32, mask: Mask | None = None) -> Tensor:
    """-I(warped, fixed) in nats, I = Σ p(a, b) log(p(a, b) / (p(a) p(b))), the mean over the batch.

    p is the joint histogram of the intensities, each image from its least to its largest value in `bins` bins; a voxel
    of fixed counts in two bins (linear B-spline), one of warped in four (cubic), so that the gradient is exact; it is
    taken for warped alone. mask: (B, 1, *space), weights of the voxels; what is outside does not count. An image that
    is constant tells nothing: 0. Source: Mattes et al., IEEE TMI 2003.

    Raises:
        TypeError, ValueError: images that cannot be compared; several channels; fewer than 8 bins; an empty mask.
    """
    warped, fixed = _comparable(warped, fixed)
    if warped.shape[1] != 1 or bins < 8:
        raise InputError(
            "mutual information is of images of one channel, in at least 8 bins",
            f"{warped.shape[1]} channels and bins={bins}",
            "compare one channel after the other, in 32 bins",
        )
    weights = torch.ones_like(warped)
    if mask is not None:
        types.check_same_grid(warped, mask, ("warped", "mask"))
        weights = mask.to(warped).expand_as(warped)
        types.check_kept(weights.flatten(1).sum(1), "give every sample a voxel that weighs more than 0")
    items = zip(warped.flatten(1), fixed.flatten(1), weights.flatten(1), strict=True)
    return -torch.stack([_information(*item, bins) for item in items]).mean()


def _information(warped: Tensor, fixed: Tensor, weights: Tensor, bins: int) -> Tensor:
    """I of one pair, (N,) each."""
    positions = [_bin_position(image, weights > 0, bins) for image in (warped, fixed)]
    joint = _ParzenJoint.apply(*positions, weights, bins)
    joint = joint / joint.sum()
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    present = joint > 0
    return (joint[present] * (joint[present] / independent[present]).log()).sum().to(warped.dtype)


def _bin_position(image: Tensor, inside: Tensor, bins: int) -> Tensor:
    """Intensities as places between bins, from 2 to bins - 3, so that each spline lies within the histogram."""
    low, high = image.detach()[inside].aminmax()
    scale = (bins - 5) / (high - low).clamp(min=1e-12)
    return ((image - low) * scale).clamp(0, bins - 5) + 2


def mindssc(warped: Image, fixed: Image, *, radius: types.Count = 2, dilation: types.Count = 2) -> Tensor:
    """Mean squared difference of self-similarities, for images of two modalities: mean (m(X) - m(Y))²; in [0, 1].

    m: `mindssc_descriptor`, which does not see brightness, contrast, or whether dark and bright are exchanged.
    Source: Heinrich et al., MICCAI 2013; GradICON's MIND-SSC has radius 2 and dilation 2.
    """
    first, second = (mindssc_descriptor(x, radius=radius, dilation=dilation) for x in _comparable(warped, fixed))
    return (first - second).square().mean()


def mindssc_descriptor(image: Image, *, radius: types.Count = 2, dilation: types.Count = 2) -> Tensor:
    """How alike the surroundings of each voxel are to one another: m_e = exp(-(D_e - min D)/V), in (0, 1].

    An edge e joins two neighbours of a voxel, `dilation` away along two axes: 4 edges in 2D, 12 in 3D. D_e is the mean
    squared difference of the patches around them, of 2 radius + 1 voxels a side; V is the edges' mean of D_e - min D,
    kept within 1/1000 and 1000 times its mean over the image. Outside, the outermost voxel continues.
    image: (B, C, *space). Returns (B, C * edges, *space), float32 or finer; differentiable, V's bounds excepted.

    Raises:
        TypeError, ValueError: not an image, a radius or dilation below 1.
    """
    image = at_least_float32(image)
    distances = []
    for axes in itertools.combinations(range(2, image.dim()), 2):
        for signs in itertools.product((-dilation, dilation), repeat=2):
            one, other = (_moved(image, axis, step) for axis, step in zip(axes, signs, strict=True))
            distances.append(box_mean((one - other).square(), radius))
    stacked = torch.stack(distances, 2)  # (B, C, edges, *space)
    excess = stacked - stacked.amin(2, keepdim=True)
    variance = excess.mean(2, keepdim=True)
    usual = variance.detach().flatten(2).mean(2).clamp_min(1e-12).view(*image.shape[:2], *[1] * (image.dim() - 1))
    return (-excess / variance.clamp(usual / 1000, usual * 1000)).exp().flatten(1, 2)


def _moved(image: Tensor, axis: int, step: int) -> Tensor:
    """image[x + step] along an axis; beyond its ends the outermost voxel continues."""
    size = image.shape[axis]
    return image.index_select(axis, torch.arange(step, size + step, device=image.device).clamp(0, size - 1))


def dice(warped: Image, fixed: Image) -> Tensor:
    """Soft Dice loss of masks: 1 - mean (2 Σ XY + ε)/(Σ X + Σ Y + ε), over samples and structures; ε = 1e-5; in [0, 1].

    warped, fixed: (B, structures, *space), from 0 to 1, such as one-hot labels warped linearly. A structure that is
    in neither costs nothing. Source: the loss of VoxelMorph's and SITReg's label-supervised training.
    """
    warped, fixed = _comparable(warped, fixed)
    overlap = (warped * fixed).flatten(2).sum(2)
    size = (warped + fixed).flatten(2).sum(2)
    return 1 - ((2 * overlap + 1e-5) / (size + 1e-5)).mean()


# ---------------------------------------------------------------------------------------------- smoothness
def _pieces(field: Tensor) -> Iterator[tuple[tuple[slice, slice], int]]:
    """Parts (items, planes) of a field (items, *space) that fit the cache, each with the axis to difference along."""
    items, length, *rest = field.shape
    plane, held = math.prod(rest), field.numel() if in_one_piece(field) else _PIECE_VOXELS
    count = max(1, held // (length * plane))
    planes = max(1, held // plane)
    for item in range(0, items, count):
        for start in range(0, length, planes):
            stop = min(start + planes, length)
            yield (slice(item, item + count), slice(start, stop + 1)), 1
            for axis in range(2, field.dim()):
                yield (slice(item, item + count), slice(start, stop)), axis


class _Diffusion(torch.autograd.Function):
    """(1/dim) Σ_k mean (D_k u)² and its gradient (2/dim) Σ_k D_kᵀ D_k u / n_k, a few planes at a time. Keeps only u."""

    @staticmethod
    def forward(ctx: Any, field: Tensor) -> Tensor:
        """field: (items, *space)."""
        ctx.save_for_backward(field)
        ctx.scales = [1 / max((field.dim() - 1) * (field.numel() - field.numel() // n), 1) for n in field.shape]
        sums = [field.new_zeros(())]
        for part, axis in _pieces(field):
            sums.append(field[part].diff(dim=axis).square_().sum() * ctx.scales[axis])
        return torch.stack(sums).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (field,) = ctx.saved_tensors
        gradient = field.new_zeros(field.shape)
        for part, axis in _pieces(field):
            steps = field[part].diff(dim=axis)
            size = steps.shape[axis]
            gradient[part].narrow(axis, 1, size).addcmul_(steps, grad, value=2 * ctx.scales[axis])
            gradient[part].narrow(axis, 0, size).addcmul_(steps, grad, value=-2 * ctx.scales[axis])
        return gradient


def diffusion(displacement: Displacement) -> Tensor:
    """How unevenly a field moves: (1/dim) Σ_k mean (u(x + e_k) - u(x))², voxels squared; 0 for a translation.

    displacement, or velocity: (B, dim, *space), voxels. The mean runs over batch, components and the N_k - 1 steps of
    axis k; an axis of one voxel adds 0. Differentiable once; memory: the gradient only.
    Source: VoxelMorph's "l2"; SACB-Net, SPnet, SITReg and SM-GICNet use the same.
    """
    field = at_least_float32(displacement)
    return _Diffusion.apply(field.flatten(0, 1))


def bending(displacement: Displacement) -> Tensor:
    """How a field bends: (1/dim²) Σ_kl mean (∂²u/∂x_k∂x_l)², per voxel squared; 0 for an affine map.

    ∂_kk u = u(x + e_k) - 2 u(x) + u(x - e_k); ∂_kl u = the forward difference of the forward difference. The mean runs
    over batch, components and the positions where the difference exists. displacement: (B, dim, *space), voxels, at
    least 3 on each axis. Source: Rueckert et al. 1999; the factor is that of GradICON's comparison.
    """
    field = at_least_float32(displacement)
    dim = field.shape[1]
    if min(spatial(field)) < 3:
        raise InputError("displacement must have 3 voxels on each axis to bend", f"{spatial(field)}", "enlarge it")
    slopes = [field.diff(dim=2 + k) for k in range(dim)]
    return _total([slope.diff(dim=2 + k).square().mean() for slope in slopes for k in range(dim)]) / dim**2


# ---------------------------------------------------------------------------------------------- inverse consistency
def evaluation_points(
    shape: Sequence[types.Count], *, noise: float = 1.0, stride: types.Count = 1, like: Tensor | None = None
) -> Coordinates:
    """Where GradICON's program looks at maps: every voxel (or every `stride`-th on each axis), moved at random.

    Normal noise of standard deviation `noise`/N_last of the image's extent: about `noise` voxels. One draw, batch 1:
    (1, dim, *shape / stride), voxels; device as `like`, float32 at least. The sparse loss has noise=2, stride=2.
    """
    grid = at_least_float32(identity(shape, like=like))
    every: tuple[slice, ...] = (slice(None), slice(None), *[slice(None, None, stride)] * len(shape))
    grid = grid[every]
    return grid + scale_components(torch.randn_like(grid), [noise * (size - 1) / shape[-1] for size in shape])


def _round_trip_error(phi_AB: Map, phi_BA: Map, points: Coordinates, shape: Sequence[int]) -> Tensor:
    """p - φ_AB(φ_BA(p)) in fractions of the image's extent."""
    return scale_components(points - phi_AB(phi_BA(points)), [1 / max(size - 1, 1) for size in shape])


def icon_of_maps(phi_AB: Map, phi_BA: Map, points: Coordinates, shape: Sequence[int]) -> Tensor:
    """Inverse consistency of two maps: mean (p - φ_AB(φ_BA(p)))² + mean (p - φ_BA(φ_AB(p)))².

    phi_AB, phi_BA: functions of coordinates in voxels. points: (B or 1, dim, *any), voxels; `any` has dim axes. shape:
    the image's, whose extent is the unit of the errors, so that a weight means the same at every resolution. The mean
    runs over batch, components and points.
    Source: ICON (Greer et al. 2021), as GradICON's program computes it; its weight there was 1024.
    """
    points = at_least_float32(points)
    orders = (phi_AB, phi_BA), (phi_BA, phi_AB)
    return _total([_round_trip_error(*maps, points, shape).square().mean() for maps in orders])


def gradicon_of_maps(
    phi_AB: Map, phi_BA: Map, points: Coordinates, shape: Sequence[int], *, delta: float = 1e-3, orders: Orders = "one"
) -> Tensor:
    """Gradient inverse consistency of two maps: Σ_k mean ((e(p + δ a_k) - e(p))/δ)², e(p) = p - φ_AB(φ_BA(p)).

    With the image's extent as the unit (a_k spans axis k) this is mean |∇[φ_AB∘φ_BA] - I|² (Frobenius) / dim.
    phi_AB, phi_BA, points, shape: as for `icon_of_maps`. delta: fraction of the extent. "one" order is what the weight
    0.2 was tuned with; "both" adds φ_BA∘φ_AB as in the paper: halve the weight to compare.
    Source: GradICON, equation 2, as the authors' program computes it.
    """
    points = at_least_float32(points)
    steps = torch.diag(points.new_tensor([delta * (size - 1) for size in shape]))
    starts = [points, *(points + step.view(1, -1, *[1] * len(shape)) for step in steps)]

    def penalty(first: Map, second: Map) -> Tensor:
        start, *ahead = _round_trip_error(first, second, torch.cat(starts, 2), shape).chunk(len(starts), 2)
        return _total([((error - start) / delta).square().mean() for error in ahead])

    return penalty(phi_AB, phi_BA) if orders == "one" else penalty(phi_AB, phi_BA) + penalty(phi_BA, phi_AB)


def _maps(displacement_AB: Displacement, displacement_BA: Displacement) -> tuple[Map, Map]:
    types.check_same_grid(displacement_AB, displacement_BA, ("displacement_AB", "displacement_BA"))
    types.check_values(displacement_AB=displacement_AB, displacement_BA=displacement_BA)
    first, second = at_least_float32(displacement_AB), at_least_float32(displacement_BA)
    return lambda points: points + sample(first, points), lambda points: points + sample(second, points)


def icon(displacement_AB: Displacement, displacement_BA: Displacement, *, points: Coordinates | None = None) -> Tensor:
    """`icon_of_maps` for displacements (B, dim, *space) in voxels; at the voxels, or at `points`."""
    maps, shape = _maps(displacement_AB, displacement_BA), spatial(displacement_AB)
    points = evaluation_points(shape, noise=0, like=displacement_AB) if points is None else points
    return icon_of_maps(*maps, points, shape)


def gradicon(
    displacement_AB: Displacement,
    displacement_BA: Displacement,
    *,
    points: Coordinates | None = None,
    delta: float = 1e-3,
    orders: Orders = "one",
) -> Tensor:
    """`gradicon_of_maps` for displacements (B, dim, *space) in voxels; at the voxels, or at `points`.

    At a voxel the step of `delta` stays in the cell ahead; delta=1/(N - 1) differences neighbouring voxels.
    """
    maps, shape = _maps(displacement_AB, displacement_BA), spatial(displacement_AB)
    points = evaluation_points(shape, noise=0, like=displacement_AB) if points is None else points
    return gradicon_of_maps(*maps, points, shape, delta=delta, orders=orders)


def _total(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


types.guard(globals())
