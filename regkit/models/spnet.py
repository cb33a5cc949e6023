"""SPnet: a symmetric pyramid network for inverse-consistent diffeomorphic registration.

Zhang, Ning, Zhou, Liao: Symmetric pyramid network for medical image inverse consistent diffeomorphic registration.
Computerized Medical Imaging and Graphics 104, 2023, 102184.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit._core import sampler
from regkit._core.grid import identity
from regkit.fields import average_pool, scale_components, upsample
from regkit.losses import diffusion, level_window, lncc
from regkit.models.layers import Network, check_inputs, configured, conv, conv_transposed, crop, pad_to_multiple, swap
from regkit.types import Amount, Count, Dim, Displacement, Image, Registration, Similarity, spatial

Geometry = Literal["aligned", "aligned nearest", "aligned zeros", "released"]
ENCODER_WIDTHS = (8, 16, 32, 32)  # of levels 0 (full resolution) to 3
ESTIMATOR_WIDTHS = (16, 16, 32, 32)
EXTRA = 8  # channels of the image encoding, and of the features that an estimator hands to the next level


@dataclass(frozen=True)
class SPNetRegistration(Registration):
    """A registration with both directions of every level, coarse to fine, stacked along the batch.

    displacements, velocities: per level (2B, dim, *space): moving onto fixed first, then fixed onto moving.
    """

    displacements: tuple[Displacement, ...] = ()
    velocities: tuple[Displacement, ...] = ()


@configured
class SPNet(Network[SPNetRegistration]):
    """A pyramid that is asked both ways: v = (v̂_AB - v̂_BA) / 2, φ_AB = exp(v), φ_BA = exp(-v), at every level.

    Both images pass one encoder. From the coarsest level on, the features of each image are warped by the displacement
    found so far, an estimator compares them with the other image's features, and its answers for (A, B) and (B, A) are
    averaged into one velocity. A level predicts the whole velocity again, not a correction.

    Loss: equation 10 as the authors' program has it, see `objective`.

    Model card
        Parameters: 426,732 in 3D, 137,672 in 2D (4 levels, 1 channel).
        Reach: the coarsest estimator works at 1/8 of the size and sees 95 voxels along each axis, 12 of its own.
        Guaranteed by construction, for any weights: exchanging the images exchanges the maps; two equal images give
        zero; any image size is registered (training needs 2^levels + 1 voxels along every axis: 17 with 4 levels).
        Not guaranteed: φ_BA undoes φ_AB only up to interpolation (about 0.01 voxel); folds are rare, not excluded.
        Intensities should be in [0, 1].

    The switches below are the rows of Table 4, and the encoders of Table 5.
    dim: 2 or 3. in_channels: of each image.
    levels: of the pyramid, n in the table; the coarsest has 1/2^(levels - 1) of the size.
    integrate: False is "w/o SVF": the estimators give displacements.
    image_encoding: False is "w/o MIE": no features straight from the shrunken images.
    feature_warping: False is "w/o FW": the estimators see unwarped features.
    symmetric: False is "w/o SR": one direction only, and only its similarity in the objective (half of each pair).
    bidirectional: False is "SS": one direction is estimated, the other is its negative velocity.
    average: False is "SS+BE": both directions are estimated, and each keeps its own answer.
    geometry: "aligned" samples voxel centres, continues the border, and makes the image pyramid from 2x means.
        "released" is the authors' program: a sampler off by up to half a voxel, zeros outside, every second voxel.
        The two between change one thing after the other ("nearest" pyramid, then "zeros" outside).
    weight: λ of the velocities' smoothness (the program's is 1).
    inverse_weight: of the inverse consistency that stands in where `integrate` is False (the paper gives none).
    similarity: a function or module of two images in place of the local NCC, at every level.
    encoder: "resnet" or "inception", Table 5, where image_encoding is False: a module of the papers that it cites takes
        the place of each level's two convolutions. It prints no widths; regkit keeps those of "plain".
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: Count = 1,
        levels: Literal[1, 2, 3, 4] = 4,
        integrate: bool = True,
        image_encoding: bool = True,
        feature_warping: bool = True,
        symmetric: bool = True,
        bidirectional: bool = True,
        average: bool = True,
        geometry: Geometry = "aligned",
        weight: Amount = 1.0,
        inverse_weight: Amount = 1.0,
        similarity: Similarity | None = None,
        encoder: Literal["plain", "resnet", "inception"] = "plain",
    ) -> None:
        super().__init__()
        self.dim, self.stride, self.geometry = dim, 2 ** (levels - 1), geometry
        self.integrate, self.feature_warping, self.average = integrate, feature_warping, average
        self.encoder = Encoder(dim, in_channels, levels, image_encoding, encoder)
        self.estimators = nn.ModuleList(Estimator(dim, self.encoder, level) for level in range(levels))
        self.estimated = 2 if bidirectional and symmetric else 1  # directions that the estimators are asked for
        self.compared = 2 if symmetric else 1  # directions whose similarity counts
        self.weight, self.inverse_weight, self.similarity = weight, inverse_weight, similarity

    def forward(self, moving: Image, fixed: Image) -> SPNetRegistration:
        """Register (B, C, *space) onto (B, C, *space), of any size."""
        check_inputs(self, moving, fixed)
        images = torch.cat(torch.broadcast_tensors(moving, fixed))  # (2B, C, *space)
        batch, count = len(images) // 2, self.estimated * len(images) // 2
        features = self.encoder(self.pyramid(images))  # fine to coarse, (2B, C_l, *ceil(space / 2^l))
        velocities: list[Displacement] = []  # coarse to fine, (2B, dim, *level), voxels of the level
        displacements: list[Displacement] = []
        context = features[-1][..., :0]  # what an estimator hands to the next level: nothing to the coarsest
        for level in reversed(range(len(self.estimators))):
            feature = crop(features[level], ceil_shape(spatial(images), level))
            source, target = feature[:count], swap(feature)[:count]  # of the image that is moved, and of the other
            inputs = [source, target]
            if displacements:
                upsampled = crop(upsample(displacements[-1]), spatial(feature))[:count]
                source = self.pull(source, upsampled) if self.feature_warping else source
                inputs = [source, target, crop(context, spatial(feature)), upsampled]
            estimate, context = self.estimators[level](torch.cat(inputs, 1))
            velocities.append(self.both_ways(estimate))
            displacements.append(self.exponential(velocities[-1]) if self.integrate else velocities[-1])
        return SPNetRegistration(
            displacement=displacements[-1][:batch],
            inverse=displacements[-1][batch:],
            velocity=velocities[-1][:batch] if self.integrate else None,
            levels=tuple(displacement[:batch] for displacement in displacements),
            displacements=tuple(displacements),
            velocities=tuple(velocities),
        )

    def pyramid(self, images: Image) -> list[Image]:
        """The images at every level, fine to coarse, padded at the far ends to a multiple of the stride."""
        levels = [pad_to_multiple(images, self.stride)]
        for level in range(1, len(self.estimators)):
            if self.geometry == "aligned":
                levels.append(average_pool(levels[-1]))
            else:  # every second voxel
                levels.append(F.interpolate(levels[0], scale_factor=1 / 2**level))
        return levels

    def both_ways(self, estimate: Tensor) -> Displacement:
        """v for moving onto fixed and for fixed onto moving, (2B, dim, *level), from what was estimated.

        v̂_AB and v̂_BA, averaged: v = (v̂_AB - v̂_BA) / 2 and -v; kept ("SS+BE"); or v̂_AB alone ("SS", "w/o SR"), v̂ and -v̂.
        """
        if self.estimated == 1:
            return torch.cat([estimate, -estimate])
        if not self.average:
            return estimate
        forward, backward = estimate.chunk(2)
        velocity = (forward - backward) / 2
        return torch.cat([velocity, -velocity])

    def exponential(self, velocity: Displacement) -> Displacement:
        """exp(v) by scaling and squaring, composed with the sampler of the geometry."""
        return sampler.exponential(velocity, composition=lambda first, then: then + self.pull(first, then))

    def pull(self, image: Image, displacement: Displacement) -> Image:
        """image(x + u(x)), with the sampler of the geometry."""
        if self.geometry == "released":
            return half_voxel_off(image, displacement)
        return sampler.warp(image, displacement, padding="zeros" if self.geometry == "aligned zeros" else "border")

    def objective(self, registration: SPNetRegistration, moving: Image, fixed: Image) -> dict[str, Tensor]:
        """Local NCC of both directions and smoothness of the velocities at every level, level l weighing 1/2^l.

        {"lncc", "diffusion"}; where the estimators give displacements also "inverse_consistency", the mean of
        |u_AB + u_BA(x + u_AB)|² in both orders.

        Raises:
            ValueError: an axis has fewer than 2^levels + 1 voxels, so that the coarsest level has fewer than 3.
        """
        images = self.pyramid(torch.cat(torch.broadcast_tensors(moving, fixed)))
        count = self.compared * len(images[0]) // 2
        similarity = smoothness = images[0].new_zeros(())
        for level, image in enumerate(images):
            displacement, velocity = registration.displacements[-1 - level], registration.velocities[-1 - level]
            image = crop(image, spatial(displacement))
            warped, target = self.pull(image, displacement)[:count], swap(image)[:count]
            if self.similarity is None:
                measured = lncc(warped, target, window=level_window(image, level))
            else:
                measured = self.similarity(warped, target)
            similarity = similarity + measured / 2**level
            smoothness = smoothness + diffusion(velocity) / 2**level
        name = "lncc" if self.similarity is None else "similarity"
        terms = {name: similarity, "diffusion": self.weight * smoothness}
        if not self.integrate:
            both = registration.displacements[-1]  # u_AB and u_BA
            round_trip = sampler.compose(swap(both), both).square().sum(1).mean()
            terms["inverse_consistency"] = self.inverse_weight * round_trip
        return terms


class Encoder(nn.Module):
    """Features of every level, fine to coarse; from level 1 on with eight channels straight from the shrunken image."""

    def __init__(self, dim: Dim, channels: int, levels: int, image_encoding: bool, kind: str = "plain") -> None:
        super().__init__()
        self.stages, self.images = nn.ModuleList(), nn.ModuleList()
        self.channels: list[int] = []  # of the features, fine to coarse
        received = channels
        for level, width in enumerate(ENCODER_WIDTHS[:levels]):
            self.stages.append(stage(dim, received, width, 2 if level else 1, kind))
            encoded = image_encoding and level > 0
            self.images.append(activated(conv(dim, channels, EXTRA)) if encoded else NoChannels())
            received = width + EXTRA * encoded
            self.channels.append(received)

    def forward(self, pyramid: list[Image]) -> list[Tensor]:
        levels, features = [], pyramid[0]
        for image, stage, image_stage in zip(pyramid, self.stages, self.images, strict=True):
            features = torch.cat([stage(features), image_stage(image)], 1)
            levels.append(features)
        return levels


def stage(dim: Dim, received: int, width: int, stride: int, kind: str) -> nn.Module:
    """One level of the encoder: C₁ of equation 5, or what Table 5 has in its place."""
    if kind == "inception":
        return InceptionStage(dim, received, width, stride)
    down = activated(conv(dim, received, width, stride=stride))
    plain = nn.Sequential(down, activated(conv(dim, width, width)))
    return ResidualStage(plain, conv(dim, received, width, 1, stride=stride)) if kind == "resnet" else plain


class ResidualStage(nn.Module):
    """C₁(x) + W x, W of one tap. Source: He et al. 2016, equation 2; without its batch normalisation, as all here."""

    def __init__(self, plain: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.plain, self.shortcut = plain, shortcut

    def forward(self, features: Tensor) -> Tensor:
        return self.plain(features) + self.shortcut(features)


class InceptionStage(nn.Module):
    """Convolutions of 1, 3 and 5 taps and a maximum over 3, each of a quarter of the width, joined.

    One tap before the 3 and the 5, and after the maximum. Source: Szegedy et al. 2015, Figure 2b.
    """

    def __init__(self, dim: Dim, received: int, width: int, stride: int) -> None:
        super().__init__()
        part, pool = width // 4, nn.MaxPool2d if dim == 2 else nn.MaxPool3d

        def last(channels: int, kernel: int) -> nn.Module:
            return activated(conv(dim, channels, part, kernel, stride=stride))

        def small() -> nn.Module:
            return activated(conv(dim, received, part, 1))

        pooled = nn.Sequential(pool(3, stride=1, padding=1), last(received, 1))
        branches = [nn.Sequential(small(), last(part, kernel)) for kernel in (3, 5)]
        self.branches = nn.ModuleList([last(received, 1), *branches, pooled])

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([branch(features) for branch in self.branches], 1)


class Estimator(nn.Module):
    """One level's answer: a velocity (or displacement), and features for the next finer level.

    Input: the source's features, warped (C), the target's (C), and below the coarsest level what the level before
    handed on (8) and its displacement (dim), upsampled.
    """

    def __init__(self, dim: Dim, encoder: Encoder, level: int) -> None:
        super().__init__()
        inputs = 2 * encoder.channels[level]
        if level + 1 < len(encoder.channels):
            inputs += EXTRA + dim
        width = ESTIMATOR_WIDTHS[level]
        self.first = activated(conv(dim, inputs, width))
        self.second = activated(conv(dim, width, width))
        self.head = conv(dim, width, dim)
        for name, parameter in self.head.named_parameters():
            nn.init.normal_(parameter, std=1e-5 if name == "weight" else 0.0)
        self.hand = conv_transposed(dim, width, EXTRA, 4, padding=1) if level else NoChannels()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.first(inputs)
        features = features + self.second(features)
        return self.head(features), self.hand(features)


class NoChannels(nn.Module):
    """Nothing: the input without its channels."""

    def forward(self, features: Tensor) -> Tensor:
        return features[:, :0]


def ceil_shape(shape: tuple[int, ...], level: int) -> tuple[int, ...]:
    """A shape after `level` halvings that keep the odd voxel."""
    return tuple(-(-size // 2**level) for size in shape)


def activated(layer: nn.Module) -> nn.Sequential:
    """A layer and SPnet's activation."""
    return nn.Sequential(layer, nn.LeakyReLU(0.1))


def half_voxel_off(image: Image, displacement: Displacement) -> Image:
    """The authors' sampler: reads at p S/(S - 1) - 1/2 instead of p, and zero outside."""
    positions = displacement + identity(spatial(displacement), like=displacement)
    factors = [size / max(size - 1, 1) for size in spatial(image)]
    return sampler.sample(image, scale_components(positions, factors) - 0.5, padding="zeros")
