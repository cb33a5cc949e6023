"""GradICON: a coarse-to-fine chain of plain U-Nets, made regular by asking that A to B and B to A undo each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit import losses, types
from regkit._core.sampler import sample
from regkit.fields import average_pool, identity, linear_upsample, scale_components, unit_to_voxels, warp
from regkit.models.layers import Network, batch_norm, check_inputs, configured, conv, conv_transposed, crop
from regkit.types import Coordinates, Dim, Displacement, Image, InputError, Registration, at_least_float32, spatial

_POINTS: dict[str, dict[str, Any]] = {"noisy": {}, "voxels": {"noise": 0.0}, "sparse": {"noise": 2.0, "stride": 2}}
_WEIGHTS = {"none": 0.0, "icon": 1024.0, "gradicon": 0.2}


@dataclass(frozen=True)
class GradICONRegistration(Registration):
    """A Registration with the networks' own outputs, which define both maps at every point: see `apply_map`.

    fields: of φ_AB (behind `displacement`); inverse_fields: of φ_BA (behind `inverse`). One for each network, coarse to
    fine, (B, dim, *space) in voxels of the network's grid.
    """

    fields: tuple[Displacement, ...] = ()
    inverse_fields: tuple[Displacement, ...] = ()


@configured
class GradICON(Network[GradICONRegistration]):
    """Approximate diffeomorphisms from gradient inverse consistency (Tian et al., CVPR 2023).

    φ_AB = φ_coarsest ∘ … ∘ φ_finest (equation 6), each factor p + u(p) with u from a U-Net that sees the moving image
    pulled by the coarser factors; the same networks, their inputs swapped, give φ_BA. Loss: sim(A ∘ φ_AB, B) +
    sim(B ∘ φ_BA, A) + λ reg(φ_AB, φ_BA), at full resolution only, with one λ for every resolution.

    Model card
        Parameters: 4,756,902 for each network in 2D, 17,670,229 in 3D; by default three of them: 53,010,687 in 3D.
        Reach: the coarsest network works on 1/4 of the size, where its U-Net halves five times more; the paper's lungs
        and knees need no affine step before. Take more levels for larger images.
        Guaranteed: the identity before training; any image size (an axis of length 1 included); in evaluation a pair's
        result does not depend on its batch.
        Not guaranteed: an exact inverse, the absence of folds (few, as the penalty prices them), φ = id for two equal
        images. `inverse` is φ_BA as predicted, not the numerical inverse of `displacement`.
        Intensities should be in [0, 1]. Batches of one make noisy batch statistics.

    dim: 2 or 3. in_channels: of each image.
    levels: one network for each entry, coarse to fine: how often its images are halved. (0,), (1, 0), (3, 2, 1, 0) are
        P = 1, 2, 4 of Figures 3 and 4; (2, 1, 0) is the lung network; (2, 1, 0, 0) the released two-stage networks.
    encoder_channels, decoder_channels: the U-Nets' widths, the finest level first.
    regularizer: "gradicon" equation 2, "icon" section 4 (Figure 3; Table 2: 8.9 mm against 3.6 mm), "none".
    orders: "both" compositions in the gradient penalty, as printed; "one", φ_AB ∘ φ_BA only, as the released program.
        "one" is half as large on average: its weight 0.2 is 0.1 with "both". ICON always has both.
    points: where the penalty is evaluated. "noisy": every voxel plus a Gaussian step of one voxel (released); "voxels":
        without the step; "sparse": every second voxel along each axis with twice the step (released later, faster).
    similarity: "mse" (Table 1, Figure 3), "ncc", "mean_ncc" and "adaptive_ncc" (Figure 4; Table 2), "lncc" (released
        later, with weight 1.5); or a function or module of two images.
    weight: λ; None takes the toy study's 0.2 for "gradicon", 1024 for "icon" (A.1.1). Table 2 takes 0.1.
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: types.Count = 1,
        levels: tuple[types.Whole, ...] = (2, 1, 0),
        encoder_channels: tuple[types.Count, ...] = (16, 32, 64, 256, 512),
        decoder_channels: tuple[types.Count, ...] = (16, 32, 64, 128, 256),
        regularizer: Literal["none", "icon", "gradicon"] = "gradicon",
        orders: Literal["both", "one"] = "both",
        points: Literal["noisy", "voxels", "sparse"] = "noisy",
        similarity: Literal["mse", "ncc", "lncc", "mean_ncc", "adaptive_ncc"] | types.Similarity = "mse",
        weight: types.Amount | None = None,
    ):
        super().__init__()
        _check_levels(levels)
        self.dim, self.levels, self.points, self.similarity = dim, levels, points, similarity
        self.regularizer, self.orders = regularizer, orders
        self.networks = nn.ModuleList(TallUNet(dim, in_channels, encoder_channels, decoder_channels) for _ in levels)
        self.weight = _WEIGHTS[regularizer] if weight is None else weight

    def forward(self, moving: Image, fixed: Image) -> GradICONRegistration:
        """Register, in both directions; the result keeps the fields that the objective needs."""
        check_inputs(self, moving, fixed)
        moving, fixed = torch.broadcast_tensors(moving, fixed)
        moving_pyramid, fixed_pyramid = self._pyramid(moving), self._pyramid(fixed)
        fields, levels = self._register(moving_pyramid, fixed_pyramid)
        inverse_fields, inverses = self._register(fixed_pyramid, moving_pyramid)
        return GradICONRegistration(
            displacement=levels[-1],
            inverse=inverses[-1],
            levels=tuple(levels),
            fields=tuple(fields),
            inverse_fields=tuple(inverse_fields),
        )

    def _pyramid(self, image: Image) -> list[Image]:
        """The image for each network, coarse to fine."""
        halved = [image]
        for _ in range(max(self.levels)):
            halved.append(average_pool(halved[-1], ceil_mode=True))
        return [halved[level] for level in self.levels]

    def _register(self, moving: list[Image], fixed: list[Image]) -> tuple[list[Displacement], list[Displacement]]:
        """One direction: each network's field, and the displacement after each; both in voxels of that level's grid."""
        fields: list[Displacement] = []
        displacements: list[Displacement] = []
        for network, moving_image, fixed_image in zip(self.networks, moving, fixed, strict=True):
            shape = spatial(moving_image)
            if fields:  # pull the moving image by the coarser factors
                positions = apply_map(fields, identity(shape, like=fields[0]), shape)
                moving_image = sample(moving_image, positions)
            field = network(moving_image, fixed_image)  # (B, dim, *level)
            grid = identity(shape, like=field)
            displacements.append(apply_map(fields, grid + field, shape) - grid)  # φ_coarsest ∘ … ∘ (p + field(p))
            fields.append(field)
        return fields, displacements

    def objective(
        self, registration: GradICONRegistration, moving: Image, fixed: Image, *, points: Coordinates | None = None
    ) -> dict[str, Tensor]:
        """The similarity of both directions and the weighted penalty, by name; their sum is the loss.

        points: where the penalty is evaluated, (1, dim, *any), voxels; None draws them as the model was asked to.
        """
        assert registration.inverse is not None
        moving, fixed = torch.broadcast_tensors(moving, fixed)
        shape = spatial(moving)
        points = self.draw_points(shape, like=registration.displacement) if points is None else points
        warped_moving, warped_fixed = warp(moving, registration.displacement), warp(fixed, registration.inverse)
        terms: dict[str, Tensor] = {}
        name = self.similarity if isinstance(self.similarity, str) else "similarity"
        terms[name] = self._measure(warped_moving, fixed) + self._measure(warped_fixed, moving)
        phi_AB = partial(apply_map, registration.fields, shape=shape)
        phi_BA = partial(apply_map, registration.inverse_fields, shape=shape)
        if self.regularizer == "icon":
            terms["icon"] = self.weight * losses.icon_of_maps(phi_AB, phi_BA, points, shape)
        elif self.regularizer == "gradicon":
            penalty = losses.gradicon_of_maps(phi_AB, phi_BA, points, shape, orders=self.orders)
            terms["gradicon"] = self.weight * penalty
        return terms

    def draw_points(self, shape: Sequence[int], *, like: Tensor | None = None) -> Coordinates:
        """Where the penalty is evaluated, one draw: (1, dim, *any), voxels."""
        return losses.evaluation_points(shape, like=like, **_POINTS[self.points])

    def _measure(self, warped: Image, target: Image) -> Tensor:
        """The similarity of two images."""
        if not isinstance(self.similarity, str):
            return self.similarity(warped, target)
        if self.similarity == "mse":
            return losses.mse(warped, target)
        if self.similarity == "ncc":
            return losses.ncc(warped, target)
        if self.similarity == "lncc":
            return losses.lncc_gaussian(warped, target)
        if self.similarity == "mean_ncc":
            return losses.adaptive_ncc(warped, target, weighting="mean")
        return losses.adaptive_ncc(warped, target)


def _check_levels(levels: Sequence[int]) -> None:
    if not levels or levels[-1] != 0 or any(coarse < fine for coarse, fine in pairwise(levels)):
        raise InputError(
            "levels must be numbers of halvings that never rise and end at 0", f"{tuple(levels)}", "(2, 1, 0) is usual"
        )


def apply_map(fields: Sequence[Displacement], points: Coordinates, shape: Sequence[int]) -> Coordinates:
    """φ(p): for u from the finest field to the coarsest, p <- p + u(p). The composition of equation 6.

    points: (B or 1, dim, *any), voxels of a grid of this shape; the result too. The fields have grids of their own, in
    voxels of these; all grids share their corners. Outside a field keeps its border value.
    """
    for field in reversed(fields):
        finer = [max(n - 1, 1) / max(m - 1, 1) for n, m in zip(shape, spatial(field), strict=True)]
        positions = scale_components(points, [1 / factor for factor in finer])  # voxels of the field's grid
        points = points + scale_components(sample(field, positions), finer)
    return points


class TallUNet(nn.Module):
    """U(moving, fixed): a U-Net that starts at zero; (B, C, *space) twice to (B, dim, *space), voxels, of any size.

    Encoder: x_{i+1} = conv(LR(x_i)) + pooled x_i on the last channels. Decoder: y_i = norm(conv_T(LR(y_{i+1})) + the
    first channels of y_{i+1}, upsampled), cropped to x_i's size and joined to x_i. LR: leaky ReLU, slope 0.01. The last
    layer gives tenths of the image's extent.
    Source: `tallUNet2` of the authors' program, which the paper does not describe.

    Raises:
        ValueError: the shortcuts do not fit into the channels.
    """

    def __init__(self, dim: Dim, in_channels: int, encoder_channels: Sequence[int], decoder_channels: Sequence[int]):
        super().__init__()
        down = [2 * in_channels, *encoder_channels]
        received = _received_channels(down, decoder_channels)
        self.encoder = nn.ModuleList(conv(dim, a, b, stride=2) for a, b in pairwise(down))
        self.decoder = nn.ModuleList(
            conv_transposed(dim, a, b, 4, padding=1) for a, b in zip(received, decoder_channels, strict=True)
        )
        self.norms = nn.ModuleList(batch_norm(dim, channels) for channels in decoder_channels)
        self.head = conv(dim, decoder_channels[0] + down[0], dim)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, moving: Image, fixed: Image) -> Tensor:
        features = torch.cat([moving, fixed], 1)
        skips = []
        for convolve in self.encoder:
            skips.append(features)
            pooled = average_pool(features, ceil_mode=True)
            features = convolve(F.leaky_relu(features))  # half the size, rounded up
            features[:, -pooled.shape[1] :] += pooled
        for convolve, norm, skip in reversed(list(zip(self.decoder, self.norms, skips, strict=True))):
            grown = convolve(F.leaky_relu(features))  # twice the size
            grown = norm(grown + linear_upsample(features[:, : grown.shape[1]]))
            features = torch.cat([crop(grown, spatial(skip)), skip], 1)
        return unit_to_voxels(at_least_float32(self.head(features)) / 10)


def _received_channels(down: Sequence[int], up: Sequence[int]) -> list[int]:
    """What each decoder level receives: the encoder's features there, joined to those of the level below it."""
    received = [deep + below for deep, below in zip(down[1:], [*up[1:], 0], strict=False)]
    rises = all(a <= b for a, b in pairwise(down))
    if len(up) != len(down) - 1 or not rises or any(b > a for a, b in zip(received, up, strict=True)):
        raise InputError(
            "encoder_channels must not fall (from 2 * in_channels on), decoder_channels must be as many, and none "
            "more than its level receives",
            f"{tuple(down)} with {tuple(up)}",
            "divide the default widths by one number",
        )
    return received
