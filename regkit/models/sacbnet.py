"""SACB-Net: match two images' features coarse to fine, after convolutions whose kernel depends on the tissue.

Cheng, Zhang, Lu, Meng, Frangi, Duan: SACB-Net: Spatial-awareness Convolutions for Medical Image Registration, CVPR
2025. Where its text leaves a choice open, the default is what the released program does (github.com/x-xc/SACB_Net).
Read `SACBNet.forward`; then the block, the matching, the convolution with a kernel for each cluster, and k-means.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit import fields, losses, types
from regkit._core.sampler import compose, warp
from regkit.fields import average_pool, upsample
from regkit.models.layers import Network, check_inputs, configured, conv, crop, pad_to_multiple
from regkit.types import Dim, Displacement, Image, InputError, Registration, at_least_float32, spatial

LEVELS = (5, 4, 3, 2)  # those that match, coarse to fine; level i has 1 / 2^(i - 1) of the image's size
Empty = Literal["origin", "farthest"]
_AS_RELEASED: tuple[float, int, Empty] = (1e-10, 10**10, "origin")  # tolerance, limit, empty clusters of the program
_SLAB_VALUES = {"cpu": 2**20, "cuda": 2**26}  # neighbourhoods held at once: what fits a cache, what fills a GPU


@dataclass(frozen=True)
class Refined:
    """What a block made of its features; `clusters` is None where it does not cluster."""

    features: Tensor
    clusters: Clusters | None = None


@dataclass(frozen=True)
class Match:
    """One matching level: the refined features that were compared, their clusters, and the increment found."""

    moving: Tensor
    fixed: Tensor
    increment: Displacement
    clusters: Clusters | None  # batch axis: the moving images, then the fixed


@dataclass(frozen=True)
class SACBRegistration(Registration):
    """A registration with what happened at the levels 5, 4, 3, 2."""

    matches: tuple[Match, ...] = ()


@configured
class SACBNet(Network[SACBRegistration]):
    """SACB-Net (Cheng et al., CVPR 2025): encode both images; on each level warp, refine, match, compose.

    φ_i = up(φ_{i+1}) ∘ Δφ_i (eq. 11) on five levels, the finest of the image's size. On levels 5 to 2 nothing is
    regressed: a fixed voxel compares itself with the 3^dim moving voxels around it (`scores`, `soft_argmax`), so a
    level moves by less than one of its voxels. Level 1 regresses the rest. Loss: -NCC(moving ∘ φ, fixed) + λ mean|∇u|².

    Where the program, and with it this model, departs from equations 2 to 7: a convolution, normalised, goes before the
    patches and the clustering, and the shortcut of equation 7 passes it by (2, 3, 6, 7); a centroid is the mean of its
    members' local means, not of the members, and without gradient (4); F_w gives one number in (0, 1) for each tap, for
    all channels, not a kernel (5); the centroid of an empty cluster is the origin (not mentioned).

    Model card
        Parameters: 454,638 in 2D, 1,105,591 in 3D, for any number of clusters.
        Reach: 16 + 8 + 4 + 2 = 30 voxels, and what level 1 adds (less than 1 with last="softsign").
        Guaranteed: that reach; the same result for the same seed; no influence between the items of a batch; any image
        size above 16 along one axis or more (padded to a multiple of 16 by repeating the border: `displacement` is
        cropped again, the coarser `levels` and the `matches` cover the padded grid).
        Not guaranteed: the absence of folds (3.9 % in the paper's abdomen), an inverse (None), symmetry in the two
        images, φ = id for two equal images. Another seed moves the result by some hundredths of a voxel. At the faces
        the matching pulls inward by up to half a voxel of its level; matching_padding="replicate" does not.
        Intensities should be in [0, 1].

    dim: 2 or 3. in_channels: of each image. width: of the first layer; levels 1 to 5 have 2, 4, 8, 16, 16 times it.
    blocks: the levels with a SACB, Table 3: rows 5 to 8 "5432", row 4 "543", row 3 "54", row 2 "5", row 1 "none". A
        level without one loses its convolutions too; clusters=1 keeps those and takes away the adaptivity only.
    clusters: N, Table 3: 5 (row 5), 7 (row 6, the best), 9, 11; 1 is the control that the paper lacks: one kernel,
        adapted to the whole map. Any other number, or one for each level: {5: 3, 4: 5, 3: 7, 2: 7}.
    mean: what is clustered, Table 4: means over "space", over "channels", or "both" (there: Mix).
    empty: where the centroid of an empty cluster goes: the "origin" (released) or the "farthest" point.
    seed: of the clustering. The released program draws anew at every call.
    last: "none" (released) or "softsign" on level 1's increment.
    alignment: of a level's voxels with the next one's: "corners" (released) or "cells", which is what pooling means.
    padding: what warps and compositions read outside: "zeros" (released) or the "border".
    matching_padding: what the matching reads outside: "zeros" (released) or "replicate".
    as_released: cluster until the centroids rest (1e-10, no limit; else 1e-4, 50 iterations), from the program's own
        draw, and start the last layer as PyTorch does, with noise, not near zero.
    weight: λ. The program sets 0.3 (abdomen) and names 3 (IXI) and 1 (LPBA) in a remark; the paper prints none.
    similarity: a function or module of two images in place of lncc.
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: types.Count = 1,
        width: types.Count = 4,
        blocks: Literal["5432", "543", "54", "5", "none"] = "5432",
        clusters: Literal[1, 5, 7, 9, 11] | types.Count | Mapping[int, int] = 7,
        mean: Literal["space", "channels", "both"] = "space",
        empty: Literal["origin", "farthest"] = "origin",
        seed: types.Whole = 0,
        last: Literal["none", "softsign"] = "none",
        alignment: Literal["corners", "cells"] = "corners",
        padding: Literal["zeros", "border"] = "zeros",
        matching_padding: Literal["zeros", "replicate"] = "zeros",
        as_released: bool = False,
        weight: types.Amount = 0.3,
        similarity: types.Similarity | None = None,
    ):
        super().__init__()
        self.dim, self.weight, self.last, self.similarity = dim, weight, last, similarity
        self.alignment, self.padding, self.matching_padding = alignment, padding, matching_padding
        first, *channels = (width * factor for factor in (1, 2, 4, 8, 16, 16))
        self.encoder = nn.ModuleList([units(dim, in_channels, first, channels[0], channels[0])])
        self.encoder.extend(units(dim, a, b, b) for a, b in pairwise(channels))
        counts = _each_level(clusters)
        self.blocks = nn.ModuleDict()
        for level in LEVELS:
            block: nn.Module = NoBlock()
            if str(level) in blocks:
                sizes = channels[level - 1], counts[level]
                block = SACB(dim, *sizes, mean, seed=seed, empty=empty, as_released=as_released)
            self.blocks[str(level)] = block
        fine = channels[0]
        self.refine, head = units(dim, fine, fine, fine), conv(dim, fine, dim)
        self.regress = units(dim, 2 * fine, fine, fine).append(head)
        if not as_released:
            for value in head.parameters():
                nn.init.normal_(value, std=1e-5)

    def forward(
        self, moving: Image, fixed: Image, *, clusters: Mapping[int, Clusters] | None = None
    ) -> SACBRegistration:
        """Register. clusters: by level, to use instead of k-means; batch axis: the moving images, then the fixed."""
        check_inputs(self, moving, fixed)
        _check_size(spatial(moving))
        images = torch.cat(torch.broadcast_tensors(moving, fixed))  # (2B, C, *space)
        pyramid = self.encode(pad_to_multiple(images, 16))
        displacement = at_least_float32(images.new_zeros(len(images) // 2, self.dim, *spatial(pyramid[-1])))
        levels, matches = [], []
        for level in LEVELS:
            features = self.pull(pyramid[level - 1], displacement)  # (2B, C, *level)
            match = self.match(level, features, (clusters or {}).get(level))
            displacement = compose(displacement, match.increment, padding=self.padding)  # φ_i = up(φ_{i+1}) ∘ Δφ_i
            levels.append(displacement)
            matches.append(match)
            displacement = upsample(displacement, alignment=self.alignment)
        moving_features, fixed_features = self.refine(self.pull(pyramid[0], displacement)).chunk(2)
        increment = self.regress(torch.cat([fixed_features, moving_features], 1))  # (B, dim, *padded), voxels
        if self.last == "softsign":
            increment = F.softsign(increment)
        displacement = compose(displacement, increment.to(displacement), padding=self.padding)
        displacement = crop(displacement, spatial(moving))
        return SACBRegistration(displacement, levels=(*levels, displacement), matches=tuple(matches))

    def encode(self, images: Tensor) -> list[Tensor]:
        """The features of levels 1 to 5; moving and fixed images stacked along the batch, which is also faster."""
        pyramid = [self.encoder[0](images)]
        for stage in self.encoder[1:]:
            pyramid.append(stage(average_pool(pyramid[-1])))
        return pyramid

    def pull(self, features: Tensor, displacement: Displacement) -> Tensor:
        """The stacked features, their moving half warped."""
        moving, fixed = features.chunk(2)
        return torch.cat([warp(moving, displacement, padding=self.padding), fixed])

    def match(self, level: int, features: Tensor, clusters: Clusters | None) -> Match:
        """Refine the stacked features by the level's block, if it has one, and look up where the moving ones are."""
        refined = self.blocks[str(level)](features, clusters)
        with torch.autocast(features.device.type, enabled=False):
            moving, fixed = at_least_float32(refined.features).chunk(2)
            return Match(moving, fixed, soft_argmax(self.scores(moving, fixed)), refined.clusters)

    def scores(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """`scores`, with what the network reads outside."""
        return scores(moving, fixed, padding="constant" if self.matching_padding == "zeros" else "replicate")

    def objective(self, registration: Registration, moving: Image, fixed: Image) -> dict[str, Tensor]:
        """The similarity and the weighted penalty, by name; their sum is the loss."""
        warped = fields.warp(moving, registration.displacement, padding=self.padding)
        name, measure = ("lncc", losses.lncc) if self.similarity is None else ("similarity", self.similarity)
        return {
            name: measure(warped, fixed),
            "diffusion": self.weight * losses.diffusion(registration.displacement),
        }


def _each_level(clusters: int | Mapping[int, int]) -> dict[int, int]:
    """The number of clusters at each level; levels may also be named by strings, as JSON does."""
    counts = dict.fromkeys(LEVELS, clusters) if isinstance(clusters, int) else {int(k): n for k, n in clusters.items()}
    if set(counts) != set(LEVELS) or min(counts.values()) < 1:
        raise InputError(
            "clusters must be a positive number, or one for each of the levels 5, 4, 3, 2",
            clusters,
            "write for example clusters={5: 3, 4: 5, 3: 7, 2: 7}",
        )
    return counts


def _check_size(shape: tuple[int, ...]) -> None:
    if max(shape) <= 16:
        raise InputError(
            "images must have more than 16 voxels along one axis, or level 5 is one voxel", shape, "pad them"
        )


# ---------------------------------------------------------------------------------------------- the block
class SACB(nn.Module):
    """Spatial-awareness convolution block (fig. 3, eqs. 2-7): a kernel for each kind of tissue.

    p = Unit(F); clusters (S_n, centroids c_n) = k-means of p's local means, without gradient;
    W_n = sigmoid(MLP_w(c_n)) ⊙ W with one number for each tap; F + LeakyReLU(p ⊗ W_n + MLP_b(c_n)).
    The parameters do not depend on the number of clusters, and a map has at most as many as voxels.
    features: (B, channels, *space). Each item of the batch is clustered by itself; `clusters` are used if given.
    """

    def __init__(
        self,
        dim: Dim,
        channels: int,
        count: int,
        mean: str = "space",
        *,
        seed: int = 0,
        empty: Empty = "origin",
        as_released: bool = False,
    ) -> None:
        super().__init__()
        self.count, self.mean, self.seed, self.empty, self.as_released = count, mean, seed, empty, as_released
        taps = 3**dim
        inputs = {"space": channels, "channels": taps, "both": channels + taps}[mean]  # numbers of a centroid
        self.project = Unit(dim, channels, channels)
        self.weight = nn.Parameter(torch.empty(channels, channels, taps))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.attention = nn.Sequential(*perceptron(inputs, 128, taps), nn.Sigmoid())  # (…, N, F) to (…, N, 3^dim)
        self.bias = nn.Sequential(*perceptron(inputs, 64, channels))

    def forward(self, features: Tensor, clusters: Clusters | None = None) -> Refined:
        projected = self.project(features)
        clusters = clusters or self.find_clusters(projected.detach())
        centroids = clusters.centroids.to(self.weight)
        attention, bias = self.attention(centroids), self.bias(centroids)
        adapted = adaptive_convolution(projected, self.weight, attention, bias, clusters.index)
        return Refined(features + F.leaky_relu(adapted, 0.1), clusters)

    def find_clusters(self, projected: Tensor) -> Clusters:
        """Clusters of the local means: index (B, *space), centroids (B, N, F)."""
        items = []
        for points in self.describe(projected).flatten(2):  # (F, L), for each item of the batch
            count = min(self.count, points.shape[1])
            if self.as_released:
                items.append(_k_means(points, count, np.random.RandomState(self.seed), *_AS_RELEASED))
            else:
                items.append(_k_means(points, count, np.random.default_rng(self.seed), empty=self.empty))
        index = torch.stack([item.index for item in items]).view(len(items), *spatial(projected))
        return Clusters(index, torch.stack([item.centroids for item in items]))

    def describe(self, features: Tensor) -> Tensor:
        """What is clustered, Table 4: (B, C, *space) to (B, F, *space)."""
        if self.mean == "space":
            return mean_over_space(features)
        if self.mean == "channels":
            return mean_over_channels(features)
        return torch.cat([mean_over_space(features), mean_over_channels(features)], 1)


class NoBlock(nn.Module):
    """Stands where a level has no SACB: the features go straight into the matching."""

    def forward(self, features: Tensor, clusters: None = None) -> Refined:
        return Refined(features)


class Unit(nn.Module):
    """Convolution, instance normalisation, LeakyReLU(0.1): (B, in, *space) to (B, out, *space).

    The normalisation takes any constant out again, so the convolution's bias has no effect and no gradient.
    """

    def __init__(self, dim: Dim, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv(dim, in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return F.leaky_relu(F.instance_norm(self.conv(features)), 0.1)


def units(dim: Dim, *channels: int) -> nn.Sequential:
    """One `Unit` from each number of channels to the next."""
    return nn.Sequential(*(Unit(dim, a, b) for a, b in pairwise(channels)))


def perceptron(inputs: int, hidden: int, outputs: int) -> list[nn.Module]:
    """The layers of an MLP with two hidden layers."""
    return [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]


def mean_over_space(features: Tensor) -> Tensor:
    """Each channel's mean over the 3^dim neighbourhood, zeros outside (eq. 3): (B, C, *space)."""
    total, dim = pad(features), features.dim() - 2
    for axis in range(2, 2 + dim):
        size = total.shape[axis] - 2
        total = total.narrow(axis, 0, size) + total.narrow(axis, 1, size) + total.narrow(axis, 2, size)
    return total / 3**dim


def mean_over_channels(features: Tensor) -> Tensor:
    """Each neighbour's mean over the channels: (B, 3^dim, *space)."""
    return torch.cat(list(neighbours(pad(features.mean(1, keepdim=True)))), 1)


# ---------------------------------------------------------------------------------------------- matching
def scores(moving: Tensor, fixed: Tensor, *, padding: str = "constant") -> Tensor:
    """s_k(x) = ⟨fixed(x), moving(x + offset_k)⟩, eq. 9 before the softmax: (B, C, *space) to (B, 3^dim, *space)."""
    return torch.stack([(fixed * neighbour).sum(1) for neighbour in neighbours(pad(moving, padding))], 1)


def soft_argmax(similarity: Tensor) -> Displacement:
    """Σ_k softmax(s)_k offset_k, eq. 10: (B, 3^dim, *space) to (B, dim, *space), each within (-1, 1) voxel."""
    grid = similarity.new_tensor(offsets(similarity.dim() - 2))  # (3^dim, dim)
    return torch.einsum("bk...,kd->bd...", similarity.softmax(1), grid)


# ---------------------------------------------------------------------------------------------- the convolution
def adaptive_convolution(features: Tensor, weight: Tensor, attention: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """Convolve every voxel with the kernel of its cluster n(x) (eqs. 5, 6):

    y_o(x) = Σ_k a_{n(x), k} Σ_i w_{o, i, k} p_i(x + offset_k) + b_{n(x), o}

    It equals Σ_n [index = n] conv(p, a_n ⊙ w, b_n, padding=1), at the cost of one convolution for any N.
    features: (B, in, *space), zeros outside. weight: (out, in, 3^dim). attention: (B, N, 3^dim). bias: (B, N, out).
    index: (B, *space), in 0 ... N - 1. Returns (B, out, *space). Differentiable once in all but the index.
    """
    with torch.autocast(features.device.type, enabled=False):
        tensors = [tensor.to(weight.dtype) for tensor in (features, weight, attention, bias)]
        return _AdaptiveConvolution.apply(*tensors, index)


class _AdaptiveConvolution(torch.autograd.Function):
    """Scales the neighbourhoods, not the kernels, in slabs of planes; the backward pass makes each slab again."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, attention: Tensor, bias: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, attention, bias, index)
        matrix = weight.transpose(1, 2).flatten(1)  # (out, taps * in)
        result = features.new_empty(len(features), len(weight), *spatial(features))
        padded = pad(features)
        for item, planes, columns in _slabs(padded):
            number = index[item, planes].flatten()
            columns *= attention[item].T[:, None, number]
            value = matrix @ columns.flatten(0, 1) + bias[item].T[:, number]
            result[item, :, planes] = value.view_as(result[item, :, planes])
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, attention, bias, index = ctx.saved_tensors
        matrix = weight.transpose(1, 2).flatten(1)
        padded = pad(features)
        to_padded, to_matrix = torch.zeros_like(padded), torch.zeros_like(matrix)
        to_attention, to_bias = torch.zeros_like(attention), torch.zeros_like(bias)
        clusters = torch.arange(attention.shape[1], device=index.device)[:, None]
        for item, planes, columns in _slabs(padded):
            number = index[item, planes].flatten()
            members = (number == clusters).to(grad.dtype)  # (N, n)
            slab = grad[item, :, planes].flatten(1)  # (out, n)
            to_columns = (matrix.T @ slab).view_as(columns)
            to_bias[item] += members @ slab.T
            to_attention[item] += members @ (to_columns * columns).sum(1).T
            scale = attention[item].T[:, None, number]
            to_matrix += slab @ (columns * scale).flatten(0, 1).T
            to_columns *= scale
            target = to_padded[item : item + 1, :, planes.start : planes.stop + 2]
            for view, value in zip(neighbours(target), to_columns, strict=True):
                view += value.view_as(view)
        inner = list(neighbours(to_padded))[len(columns) // 2]  # the tap without offset
        to_weight = to_matrix.view(len(weight), -1, weight.shape[1]).transpose(1, 2)
        return inner, to_weight, to_attention, to_bias, None


def _slabs(padded: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """(item, planes, columns (taps, C, n)): the neighbourhoods of a few planes at a time, along the first axis."""
    batch, channels, length, *rest = padded.shape
    length, taps = length - 2, 3 ** (padded.dim() - 2)
    values = taps * channels * math.prod(size - 2 for size in rest)
    planes = max(1, _SLAB_VALUES.get(padded.device.type, 2**20) // values)
    for item, start in itertools.product(range(batch), range(0, length, planes)):
        stop = min(start + planes, length)
        views = neighbours(padded[item : item + 1, :, start : stop + 2])
        yield item, slice(start, stop), torch.cat(list(views)).flatten(2)


def pad(features: Tensor, mode: str = "constant") -> Tensor:
    """One more voxel on every side: zeros ("constant") or the border again ("replicate")."""
    return F.pad(features, [1, 1] * (features.dim() - 2), mode=mode)


def offsets(dim: int) -> list[tuple[int, ...]]:
    """The 3^dim neighbours of a voxel in row-major order, each in {-1, 0, 1}^dim: the taps of a kernel."""
    return list(itertools.product((-1, 0, 1), repeat=dim))


def neighbours(padded: Tensor) -> Iterator[Tensor]:
    """Views p(v + offset), one for each of `offsets`: (B, C, *space + 2) to 3^dim times (B, C, *space)."""
    inner = [size - 2 for size in spatial(padded)]
    for offset in offsets(len(inner)):
        places = [slice(1 + step, 1 + step + size) for step, size in zip(offset, inner, strict=True)]
        yield padded[(slice(None), slice(None), *places)]


# ---------------------------------------------------------------------------------------------- k-means
@dataclass(frozen=True)
class Clusters:
    """Which cluster each point belongs to, and where the clusters are.

    index: (..., *space), integers in 0 ... N - 1, by the centroids before the last update.
    centroids: (..., N, F), after the last update; never with a gradient.
    """

    index: Tensor
    centroids: Tensor


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The number of the nearest centroid: argmin |m - s|² = argmax (m·s - |s|²/2); the first of equals.

    points: (F, L). centroids: (N, F). Returns (L,).
    """
    half_norms = centroids.square().sum(1, keepdim=True) / 2
    return (centroids @ points - half_norms).max(0).indices


def lloyd(points: Tensor, centroids: Tensor, *, empty: Empty = "origin") -> Iterator[Clusters]:
    """Lloyd's iteration, one result after another, for ever: assign to the nearest centroid, then take the means.

    The cost Σ |m - s_index|² never rises, unless a cluster runs empty. Its centroid then goes to the "origin", as in
    SACB-Net's program, from where it may capture points later; or to the point "farthest" from its own centroid.
    points: (F, L). centroids: (N, F), where to start.
    """
    types.check_option("empty", empty, get_args(Empty))
    numbers = torch.arange(len(centroids), device=points.device)[:, None]
    while True:
        index = nearest(points, centroids)
        members = (index == numbers).to(points.dtype)  # (N, L)
        sizes = members.sum(1, keepdim=True)
        means = members @ points.T / sizes.clamp(min=1)
        if empty == "farthest" and not sizes.all():
            distances = (points - centroids[index].T).square().sum(0)
            gaps = torch.nonzero(sizes[:, 0] == 0)[:, 0]
            means[gaps] = points[:, distances.topk(len(gaps)).indices].T
        centroids = means
        yield Clusters(index, centroids)


def k_means(
    points: Tensor,
    count: int,
    *,
    seed: int = 0,
    tolerance: float = 1e-4,
    max_iterations: int = 50,
    empty: Empty = "origin",
) -> Clusters:
    """Lloyd's k-means from `count` distinct points drawn by a private generator: same seed, same clusters.

    points: (F, L), finite. Stops when the summed squared movement of all centroids is at most `tolerance`, or after
    `max_iterations`. No gradient. Returns index (L,) and centroids (count, F).

    Raises:
        ValueError: points that are not finite, or fewer than `count`.
    """
    _check_points(points, count)
    return _k_means(points, count, np.random.default_rng(seed), tolerance, max_iterations, empty)


def k_means_as_released(points: Tensor, count: int, *, seed: int = 0) -> Clusters:
    """k-means as SACB-Net's program calls it: NumPy's older generator, tolerance 1e-10, in effect no iteration limit.

    Source: github.com/x-xc/SACB_Net, with its switch `fix_rng` on (it is off there: every call draws anew).
    """
    _check_points(points, count)
    return _k_means(points, count, np.random.RandomState(seed), *_AS_RELEASED)


def _check_points(points: Tensor, count: int) -> None:
    """Raise unless `points` is a finite (F, L) tensor that can be put into `count` clusters."""
    if points.dim() != 2:
        raise InputError(
            "points must be (features, points)",
            f"shape {tuple(points.shape)}",
            "flatten the space and cluster each item of a batch by itself",
        )
    if not 1 <= count <= points.shape[1]:
        raise InputError(
            "there must be at least 1 cluster and no more clusters than points",
            f"{count} clusters and {points.shape[1]} points",
            "ask for fewer clusters",
        )
    types.check_finite(points, "points")


@torch.no_grad()
def _k_means(
    points: Tensor,
    count: int,
    generator: np.random.Generator | np.random.RandomState,
    tolerance: float = 1e-4,
    max_iterations: int = 50,
    empty: Empty = "origin",
) -> Clusters:
    rows = generator.choice(points.shape[1], count, replace=False)
    points = at_least_float32(points)
    centroids = points[:, torch.from_numpy(rows).to(points.device)].T
    with torch.autocast(points.device.type, enabled=False):  # half precision would tie distances
        for iteration, clusters in enumerate(lloyd(points, centroids, empty=empty), start=1):
            movement = (clusters.centroids - centroids).square().sum()
            if iteration >= max_iterations or not movement > tolerance:  # also where a network's points are NaN
                return clusters
            centroids = clusters.centroids
    raise AssertionError("lloyd never ends by itself")
