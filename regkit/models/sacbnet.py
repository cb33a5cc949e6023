"""SACB-Net: match two images' features coarse to fine, after convolutions whose kernel depends on the tissue.

Cheng, Zhang, Lu, Meng, Frangi, Duan: SACB-Net: Spatial-awareness Convolutions for Medical Image Registration, CVPR
2025. Where its text leaves a choice open, the default is what the released program does (github.com/x-xc/SACB_Net).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit import losses
from regkit.clusters import Clusters, adaptive_convolution, k_means, k_means_as_released, neighbours, offsets, pad
from regkit.fields import compose, upsample, warp
from regkit.layers import average_pool, check_inputs, configured, conv, crop, pad_to_multiple
from regkit.types import Dim, Displacement, Image, Registration, at_least_float32, spatial

LEVELS = (5, 4, 3, 2)  # those that match, coarse to fine; level i has 1 / 2^(i - 1) of the image's size
Cluster = Callable[[Tensor, int], Clusters]  # of points (F, L), into so many


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


# ---------------------------------------------------------------------------------------------- layers


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


def mean_over_both(features: Tensor) -> Tensor:
    """Both means side by side: (B, C + 3^dim, *space)."""
    return torch.cat([mean_over_space(features), mean_over_channels(features)], 1)


class SACB(nn.Module):
    """Spatial-awareness convolution block (fig. 3, eqs. 2-7): a kernel for each kind of tissue.

    p = Unit(F); clusters (S_n, centroids c_n) = k-means of p's local means, without gradient;
    W_n = sigmoid(MLP_w(c_n)) ⊙ W with one number for each tap; F + LeakyReLU(p ⊗ W_n + MLP_b(c_n)).
    The parameters do not depend on the number of clusters, and a map has at most as many as voxels.
    features: (B, channels, *space). Each item of the batch is clustered by itself; `clusters` are used if given.
    """

    def __init__(self, dim: Dim, channels: int, count: int, mean: str, cluster: Cluster) -> None:
        super().__init__()
        taps = 3**dim
        describe = {"space": mean_over_space, "channels": mean_over_channels, "both": mean_over_both}
        inputs = {"space": channels, "channels": taps, "both": channels + taps}[mean]
        self.count, self.describe, self.cluster = count, describe[mean], cluster
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
        points = self.describe(projected).flatten(2)  # (B, F, L)
        found = [self.cluster(item, min(self.count, item.shape[1])) for item in points]
        index = torch.stack([item.index for item in found]).view(len(found), *spatial(projected))
        return Clusters(index, torch.stack([item.centroids for item in found]))


class NoBlock(nn.Module):
    """Stands where a level has no SACB: the features go straight into the matching."""

    def forward(self, features: Tensor, clusters: None = None) -> Refined:
        return Refined(features)


# ---------------------------------------------------------------------------------------------- matching


def scores(moving: Tensor, fixed: Tensor, *, padding: str = "constant") -> Tensor:
    """s_k(x) = ⟨fixed(x), moving(x + offset_k)⟩, eq. 9 before the softmax: (B, C, *space) to (B, 3^dim, *space)."""
    return torch.stack([(fixed * neighbour).sum(1) for neighbour in neighbours(pad(moving, padding))], 1)


def soft_argmax(similarity: Tensor) -> Displacement:
    """Σ_k softmax(s)_k offset_k, eq. 10: (B, 3^dim, *space) to (B, dim, *space), each within (-1, 1) voxel."""
    grid = similarity.new_tensor(offsets(similarity.dim() - 2))  # (3^dim, dim)
    return torch.einsum("bk...,kd->bd...", similarity.softmax(1), grid)


# ---------------------------------------------------------------------------------------------- the network


@configured
class SACBNet(nn.Module):
    """SACB-Net (Cheng et al., CVPR 2025): encode both images; on each level warp, refine, match, compose.

    φ_i = up(φ_{i+1}) ∘ Δφ_i (eq. 11) on five levels, the finest of the image's size. On levels 5 to 2 nothing is
    regressed: a fixed voxel compares itself with the 3^dim moving voxels around it (`scores`, `soft_argmax`), so a
    level moves by less than one of its voxels. Level 1 regresses the rest. Loss: -NCC(moving ∘ φ, fixed) + λ mean|∇u|².

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
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: int = 1,
        width: int = 4,
        blocks: Literal["5432", "543", "54", "5", "none"] = "5432",
        clusters: Literal[1, 5, 7, 9, 11] | int | Mapping[int, int] = 7,
        mean: Literal["space", "channels", "both"] = "space",
        empty: Literal["origin", "farthest"] = "origin",
        seed: int = 0,
        last: Literal["none", "softsign"] = "none",
        alignment: Literal["corners", "cells"] = "corners",
        padding: Literal["zeros", "border"] = "zeros",
        matching_padding: Literal["zeros", "replicate"] = "zeros",
        as_released: bool = False,
        weight: float = 0.3,
    ):
        super().__init__()
        self.dim, self.weight, self.padding, self.alignment = dim, weight, padding, alignment
        self.scores = partial(scores, padding={"zeros": "constant", "replicate": "replicate"}[matching_padding])
        first, *channels = (width * factor for factor in (1, 2, 4, 8, 16, 16))
        self.encoder = nn.ModuleList([units(dim, in_channels, first, channels[0], channels[0])])
        self.encoder.extend(units(dim, a, b, b) for a, b in pairwise(channels))
        cluster = partial(k_means_as_released, seed=seed) if as_released else partial(k_means, seed=seed, empty=empty)
        counts = _each_level(clusters)
        self.blocks = nn.ModuleDict({str(level): NoBlock() for level in LEVELS})
        for level in LEVELS:
            if str(level) in blocks:
                self.blocks[str(level)] = SACB(dim, channels[level - 1], counts[level], mean, cluster)
        fine = channels[0]
        self.refine, head = units(dim, fine, fine, fine), conv(dim, fine, dim)
        self.regress = units(dim, 2 * fine, fine, fine)
        self.regress.extend([head, {"none": nn.Identity(), "softsign": nn.Softsign()}[last]])
        if not as_released:
            for value in head.parameters():
                nn.init.normal_(value, std=1e-5)

    def forward(
        self, moving: Image, fixed: Image, *, clusters: Mapping[int, Clusters] | None = None
    ) -> SACBRegistration:
        """Register. clusters: by level, to use instead of k-means; batch axis: the moving images, then the fixed."""
        check_inputs(self, moving, fixed)
        _check_size(spatial(moving))
        images = torch.cat(torch.broadcast_tensors(moving, fixed))
        pyramid = self._encode(pad_to_multiple(images, 16))
        displacement = at_least_float32(images.new_zeros(len(images) // 2, self.dim, *spatial(pyramid[-1])))
        levels, matches = [], []
        for level in LEVELS:
            features = self._pull(pyramid[level - 1], displacement)
            matches.append(self._match(level, features, (clusters or {}).get(level)))
            levels.append(compose(displacement, matches[-1].increment, padding=self.padding))
            displacement = upsample(levels[-1], alignment=self.alignment)
        moving_features, fixed_features = self.refine(self._pull(pyramid[0], displacement)).chunk(2)
        increment = self.regress(torch.cat([fixed_features, moving_features], 1))
        composed = compose(displacement, increment.to(displacement), padding=self.padding)
        displacement = crop(composed, spatial(moving))
        return SACBRegistration(displacement, levels=(*levels, displacement), matches=tuple(matches))

    def objective(self, registration: Registration, moving: Image, fixed: Image) -> dict[str, Tensor]:
        """The similarity and the weighted penalty, by name; their sum is the loss."""
        warped = warp(moving, registration.displacement, padding=self.padding)
        return {
            "lncc": losses.lncc(warped, fixed),
            "diffusion": self.weight * losses.diffusion(registration.displacement),
        }

    def _encode(self, images: Tensor) -> list[Tensor]:
        """The features of levels 1 to 5; moving and fixed images stacked along the batch, which is also faster."""
        pyramid = [self.encoder[0](images)]
        for stage in self.encoder[1:]:
            pyramid.append(stage(average_pool(pyramid[-1])))
        return pyramid

    def _pull(self, features: Tensor, displacement: Displacement) -> Tensor:
        """The stacked features, their moving half warped."""
        moving, fixed = features.chunk(2)
        return torch.cat([warp(moving, displacement, padding=self.padding), fixed])

    def _match(self, level: int, features: Tensor, clusters: Clusters | None) -> Match:
        refined = self.blocks[str(level)](features, clusters)
        with torch.autocast(features.device.type, enabled=False):
            moving, fixed = at_least_float32(refined.features).chunk(2)
            return Match(moving, fixed, soft_argmax(self.scores(moving, fixed)), refined.clusters)


def _each_level(clusters: int | Mapping[int, int]) -> dict[int, int]:
    """The number of clusters at each level; levels may also be named by strings, as JSON does."""
    counts = dict.fromkeys(LEVELS, clusters) if isinstance(clusters, int) else {int(k): n for k, n in clusters.items()}
    if set(counts) != set(LEVELS) or min(counts.values()) < 1:
        raise ValueError(
            f"clusters must be a positive number, or one for each of the levels 5, 4, 3, 2, received {clusters}; "
            f"write for example clusters={{5: 3, 4: 5, 3: 7, 2: 7}}."
        )
    return counts


def _check_size(shape: tuple[int, ...]) -> None:
    if max(shape) <= 16:
        raise ValueError(
            f"images must have more than 16 voxels along one axis, or level 5 is one voxel, received {shape}; pad them."
        )
