"""SPnet: a symmetric pyramid network for inverse-consistent diffeomorphic registration.

Zhang, Ning, Zhou, Liao: Symmetric pyramid network for medical image inverse consistent diffeomorphic registration.
Computerized Medical Imaging and Graphics 104, 2023, 102184.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from regkit.fields import average_pool, compose, exponential, identity, sample, scale_components, upsample, warp
from regkit.losses import diffusion, level_window, lncc
from regkit.models.layers import check_inputs, configured, conv, conv_transposed, crop, pad_to_multiple, swap
from regkit.types import Dim, Displacement, Image, Registration, spatial

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
class SPNet(nn.Module):
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

    The switches below are the rows of Table 4.
    dim: 2 or 3. in_channels: of each image.
    levels: of the pyramid, n in the table; the coarsest has 1/2^(levels - 1) of the size.
    integrate: False is "w/o SVF": the estimators give displacements.
    image_encoding: False is "w/o MIE": no features straight from the shrunken images.
    feature_warping: False is "w/o FW": the estimators see unwarped features.
    symmetric: False is "w/o SR": one direction only, and only its similarity in the objective.
    bidirectional: False is "SS": one direction is estimated, the other is its negative velocity.
    average: False is "SS+BE": both directions are estimated, and each keeps its own answer.
    geometry: "aligned" samples voxel centres, continues the border, and makes the image pyramid from 2x means.
        "released" is the authors' program: a sampler off by up to half a voxel, zeros outside, every second voxel.
        The two between change one thing after the other ("nearest" pyramid, then "zeros" outside).
    weight: λ of the velocities' smoothness (the program's is 1).
    inverse_weight: of the inverse consistency that stands in where `integrate` is False (the paper gives none).
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: int = 1,
        levels: Literal[1, 2, 3, 4] = 4,
        integrate: bool = True,
        image_encoding: bool = True,
        feature_warping: bool = True,
        symmetric: bool = True,
        bidirectional: bool = True,
        average: bool = True,
        geometry: Geometry = "aligned",
        weight: float = 1.0,
        inverse_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.stride = dim, 2 ** (levels - 1)
        self.encoder = Encoder(dim, in_channels, levels, image_encoding)
        self.estimators = nn.ModuleList(Estimator(dim, self.encoder, level) for level in range(levels))
        self.estimated = 2 if bidirectional and symmetric else 1  # directions that the estimators are asked for
        self.compared = 2 if symmetric else 1  # directions whose similarity counts
        self.both_ways = _opposite if self.estimated == 1 else _average if average else _keep
        self.pull, self.shrink = _GEOMETRIES[geometry]
        self.pull_features = self.pull if feature_warping else _keep
        self.integrate = partial(exponential, composition=partial(_compose, self.pull)) if integrate else _keep
        self.velocity_of = _keep if integrate else _nothing  # what a registration gives as its velocity
        self.penalties = {} if integrate else {"inverse_consistency": _round_trip}
        self.weight, self.inverse_weight = weight, inverse_weight

    def forward(self, moving: Image, fixed: Image) -> SPNetRegistration:
        """Register (B, C, *space) onto (B, C, *space), of any size."""
        check_inputs(self, moving, fixed)
        images = torch.cat(torch.broadcast_tensors(moving, fixed))
        batch, shape = len(images) // 2, spatial(images)
        encoded = self.encoder(self.pyramid(images))
        features = [crop(each, ceil_shape(shape, level)) for level, each in enumerate(encoded)]
        displacements, velocities = self.coarse_to_fine(features)
        return SPNetRegistration(
            displacement=displacements[-1][:batch],
            inverse=displacements[-1][batch:],
            velocity=self.velocity_of(velocities[-1][:batch]),
            levels=tuple(field[:batch] for field in displacements),
            displacements=displacements,
            velocities=velocities,
        )

    def pyramid(self, images: Image) -> list[Image]:
        """The images at every level, fine to coarse, padded at the far ends to a multiple of the stride."""
        images = pad_to_multiple(images, self.stride)
        return [images] + [self.shrink(images, 2**level) for level in range(1, self.stride.bit_length())]

    def coarse_to_fine(self, features: list[Tensor]) -> tuple[tuple[Displacement, ...], tuple[Displacement, ...]]:
        """Displacements and velocities of every level, coarse to fine, both directions stacked along the batch."""
        displacements: tuple[Displacement, ...] = ()
        velocities: tuple[Displacement, ...] = ()
        handed = features[-1][..., :0]  # nothing yet
        for estimator, feature in zip(reversed(self.estimators), reversed(features), strict=True):
            asked = self.estimated * len(feature) // 2
            own, other = feature[:asked], swap(feature)[:asked]
            known = []
            if displacements:
                upsampled = crop(upsample(displacements[-1]), spatial(feature))[:asked]
                own, known = self.pull_features(own, upsampled), [crop(handed, spatial(feature)), upsampled]
            estimate, handed = estimator(torch.cat([own, other, *known], 1))
            velocities += (self.both_ways(estimate),)  # (2B, dim, *space / 2^level)
            displacements += (self.integrate(velocities[-1]),)
        return displacements, velocities

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
            similarity = similarity + lncc(warped, target, window=level_window(image, level)) / 2**level
            smoothness = smoothness + diffusion(velocity) / 2**level
        terms = {"lncc": similarity, "diffusion": self.weight * smoothness}
        both = registration.displacements[-1]
        return terms | {name: self.inverse_weight * penalty(both) for name, penalty in self.penalties.items()}


class Encoder(nn.Module):
    """Features of every level, fine to coarse; from level 1 on with eight channels straight from the shrunken image."""

    def __init__(self, dim: Dim, channels: int, levels: int, image_encoding: bool) -> None:
        super().__init__()
        self.stages, self.images = nn.ModuleList(), nn.ModuleList()
        self.channels = [channels]
        for level, width in enumerate(ENCODER_WIDTHS[:levels]):
            down = activated(conv(dim, self.channels[-1], width, stride=2 if level else 1))
            self.stages.append(nn.Sequential(down, activated(conv(dim, width, width))))
            encoded = image_encoding and level > 0
            self.images.append(activated(conv(dim, channels, EXTRA)) if encoded else NoChannels())
            self.channels.append(width + EXTRA * encoded)
        del self.channels[0]

    def forward(self, pyramid: list[Image]) -> list[Tensor]:
        features = pyramid[:1]
        for image, stage, image_stage in zip(pyramid, self.stages, self.images, strict=True):
            features.append(torch.cat([stage(features[-1]), image_stage(image)], 1))
        return features[1:]


class Estimator(nn.Module):
    """One level's answer: a velocity (or displacement), and features for the next finer level.

    Input: own features warped (C), the other's (C), and below the coarsest level the handed features and displacement.
    """

    def __init__(self, dim: Dim, encoder: Encoder, level: int) -> None:
        super().__init__()
        known = EXTRA + dim if level + 1 < len(encoder.channels) else 0
        width = ESTIMATOR_WIDTHS[level]
        self.first = activated(conv(dim, 2 * encoder.channels[level] + known, width))
        self.second = activated(conv(dim, width, width))
        self.head = conv(dim, width, dim)
        for name, parameter in self.head.named_parameters():
            nn.init.normal_(parameter, std=1e-5 if name == "weight" else 0.0)
        self.hand = conv_transposed(dim, width, EXTRA, 4, padding=1) if level else NoChannels()

    def forward(self, known: Tensor) -> tuple[Tensor, Tensor]:
        features = self.first(known)
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


def _average(estimate: Tensor) -> Tensor:
    forward, backward = estimate.chunk(2)
    return _opposite((forward - backward) / 2)


def _opposite(velocity: Tensor) -> Tensor:
    return torch.cat([velocity, -velocity])


def _keep(field: Tensor, *_: Tensor) -> Tensor:
    return field


def _nothing(field: Tensor) -> None:
    return None


def _round_trip(both: Displacement) -> Tensor:
    """mean |u_AB + u_BA(x + u_AB)|², both orders alike."""
    return compose(swap(both), both).square().sum(1).mean()


def _compose(pull: Callable[[Tensor, Tensor], Tensor], first: Displacement, then: Displacement) -> Displacement:
    return then + pull(first, then)


def half_voxel_off(image: Image, displacement: Displacement) -> Image:
    """The authors' sampler: reads at p S/(S - 1) - 1/2 instead of p, and zero outside."""
    positions = displacement + identity(spatial(displacement), like=displacement)
    factors = [size / max(size - 1, 1) for size in spatial(image)]
    return sample(image, scale_components(positions, factors) - 0.5, padding="zeros")


def _means(image: Image, factor: int) -> Image:
    return image if factor == 1 else _means(average_pool(image), factor // 2)


def _every(image: Image, factor: int) -> Image:
    return nn.functional.interpolate(image, scale_factor=1 / factor)


_GEOMETRIES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Image, int], Image]]] = {
    "aligned": (warp, _means),
    "aligned nearest": (warp, _every),
    "aligned zeros": (partial(warp, padding="zeros"), _every),
    "released": (half_voxel_off, _every),
}
