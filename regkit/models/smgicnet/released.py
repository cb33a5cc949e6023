"""SM-GICNet as its authors' program computes it, number for number: for comparing, and for reading what it does.

What differs from the paper, and so from `SMGICNet(variant="paper")`:

* Level 1 uses its first block at both sizes and its skip convolution twice; level 3 mixes low bands and energies with
  one convolution, and weights the images by their signed difference; the last level upsamples three times by one
  transposed convolution, and its gates scale the coarse decoder's features, one coefficient for each channel.
* A level's velocity is its residual plus the last *displacement*, which is so integrated again; each squaring
  multiplies the displacement by the velocity's range, so that the result is no exponential.
* The inverse is -v(x + v(x)), read half a voxel off, and wrong in the first planes of the first axis.
* In place of the inverse consistencies stands a term that pulls the last corner's displacement towards 1.
* The smoothness and folding terms measure displacements in the wrong unit, and differently for either direction.

The program ran with one pair at a time; here each item of a batch is treated as that pair. Channels are in the order of
the axes: `official.load_official` reverses what the authors' weights have the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit._core.grid import identity
from regkit._core.sampler import exponential, sample, warp
from regkit.fields import linear_upsample, normalized_to_voxels, scale_components, voxels_to_normalized
from regkit.losses import diffusion, lncc, mse
from regkit.models.layers import conv, crop, swap
from regkit.models.smgicnet.networks import (
    BRANCHED,
    DEEP,
    Answer,
    CoarseNetwork,
    DeepEntry,
    FineNetwork,
    Gate,
    equal,
    stretched,
    up,
)
from regkit.types import Dim, Displacement, InputError, spatial

if TYPE_CHECKING:
    from regkit.models.smgicnet import SMGICNet, SMGICRegistration

LEVELS = 4
WINDOWS = (3, 5, 7, 9)  # of the local NCC, by stage
INVERSE_WINDOWS = (3, 3, 7, 7)  # where it compares what the inverse warps
EPSILON = 1e-8  # of the local NCC
LENGTHS = (((0,), (1,), (2,), (3,)), ((), (0, 1), (2,), (3,)))  # of which levels multiply u, by direction and level


def check(levels: int, symmetric: bool) -> None:
    """Raise unless the program has this form."""
    if levels != LEVELS or not symmetric:
        raise InputError(
            f"variant='released' has {LEVELS} levels and both directions",
            f"levels={levels} and symmetric={symmetric}",
            "leave them as they are, or choose variant='paper'",
        )


# ---------------------------------------------------------------------------------------------- networks
class FirstNetwork(CoarseNetwork):
    """Level 1: its first block serves at both sizes, its skip convolution twice."""

    def __init__(self, dim: Dim, in_channels: int, width: int):
        super().__init__(dim, in_channels, width, level=1, weighting=False)
        del self.trunk[1]

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Answer:
        features = self.first(self.entry(images, energies, known))
        deep = self.trunk[1:](self.first(self.trunk[0](features)))
        skip = self.skip(self.skip(features))
        return Answer(self.head(torch.cat([skip, deep], 1)), equal(images), ())


class SharedEntry(DeepEntry):
    """Level 3: one convolution mixes low bands and energies."""

    def __init__(self, dim: Dim, in_channels: int, width: int):
        super().__init__(dim, in_channels, width)
        del self.mix_images, self.mix_energies
        self.mix = conv(dim, width, width // 2, bias=False)

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Tensor:
        low = self.images(torch.cat([images, known], 1))
        return torch.cat([self.mix(low), self.mix(self.energies(torch.cat([energies, known], 1)))], 1)


class ThirdNetwork(CoarseNetwork):
    """Level 3, weighted by the signed difference: least where the fixed image is brighter."""

    def __init__(self, dim: Dim, in_channels: int, width: int, weighting: bool):
        super().__init__(dim, in_channels, width, DEEP, weighting)
        self.entry = SharedEntry(dim, in_channels, width)

    def weigh(self, images: Tensor) -> Tensor:
        """w = 1/2 + 1/2 minmax(|m| - |f|)."""
        moving, fixed = images.abs().chunk(2, 1)
        return stretched(moving - fixed) if self.weighting else equal(images)


class FeatureGate(Gate):
    """The decoder's features times one coefficient for each voxel and channel."""

    def forward(self, skip: Tensor, features: Tensor) -> Tensor:
        return features * self.coarse(skip, features)


class NoGate(nn.Module):
    """The decoder's features."""

    def forward(self, skip: Tensor, features: Tensor) -> Tensor:
        return features


class LastNetwork(FineNetwork):
    """The last level: skip connections reach the decoder through the gates' coefficients only, but for the first."""

    def __init__(self, dim: Dim, in_channels: int, width: int, attention: bool, weighting: bool):
        super().__init__(dim, in_channels, width, attention, weighting)
        self.gates = nn.ModuleList(FeatureGate(dim, width, width) if attention else NoGate() for _ in self.gates)
        del self.ups
        self.up = up(dim, width)

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Answer:
        weight, (first, *skips, features) = self.encode(images, known)
        for block, skip, gate in zip(self.decoder, reversed(skips), self.gates, strict=False):
            features = block(self.up(gate(skip, features)))
        features = self.up(self.gates[-1](first, features))
        return Answer(self.head(torch.cat([features, first], 1)), weight, ())


def networks(dim: Dim, in_channels: int, width: int, attention: bool, weighting: bool) -> nn.ModuleList:
    """Coarse to fine."""
    return nn.ModuleList(
        [
            FirstNetwork(dim, in_channels, width),
            CoarseNetwork(dim, in_channels, width, BRANCHED, weighting),
            ThirdNetwork(dim, in_channels, width, weighting),
            LastNetwork(dim, in_channels, width, attention, weighting),
        ]
    )


# ---------------------------------------------------------------------------------------------- the flow
def integrate(velocity: Displacement, factor: float) -> tuple[Displacement, Displacement]:
    """Seven squarings u(x) + u(x + factor u(x)), a composition for factor 1 only, and what passes for the inverse."""
    squared = exponential(velocity, composition=lambda first, then: then + warp(first, factor * then))
    return squared, false_inverse(velocity)


def enlarged(displacement: Displacement) -> Displacement:
    """On the next level's grid, as if its cells and its corners could both be kept: the values stay as normalised."""
    return normalized_to_voxels(linear_upsample(voxels_to_normalized(displacement)))


def false_inverse(velocity: Displacement) -> Displacement:
    """-v(x + v(x)), read between voxel edges; of the first axis' planes 0, 1, (2) the positions are changed before."""
    shape = spatial(velocity)
    positions = voxels_to_normalized(velocity + identity(shape, like=velocity)) - 1
    for plane, size in zip(range(len(shape)), (len(shape), *reversed(shape)), strict=False):
        positions[:, :, plane] = (positions[:, :, plane] - (size - 1) / 2) * 2 / size
    edges = scale_components(positions + 1, [size / 2 for size in shape]) - 0.5
    return -sample(velocity, edges)


# ---------------------------------------------------------------------------------------------- the objective
def losses(
    model: SMGICNet, registration: SMGICRegistration, bands: list[Tensor], *, stage: int = LEVELS
) -> dict[str, Tensor]:
    """The terms of one of the four training stages, weighted, both directions; stage k trains on levels 1 … k.

    Level i weighs 2^(i-k), and so do its smoothness Σ_d mean (D_d u)² / dim and its folding, with u as by `misscaled`.
    "symmetric": MSE(B ∘ inverse_AB, B ∘ φ_BA). "multilevel": MSE(w_k, (w_k + w_{k-1})/2), w_k = A ∘ φ_k.
    """
    displacements, inverse = registration.displacements[:stage], registration.inverses[stage - 1]
    parts = [band.split(model.in_channels, 1) for band in bands[:stage]]  # low bands and energies
    band, shares = parts[-1][0], [2.0 ** (level + 1 - stage) for level in range(stage)]
    warped, returned = warp(band, displacements[-1]), warp(swap(band), inverse)
    before = warp(band, crop(enlarged(displacements[-2]), spatial(band))) if stage > 1 else warped
    forward, backward = (misscaled(displacements, direction) for direction in (0, 1))
    similarity = 0.1 * lncc(returned, band, window=INVERSE_WINDOWS[stage - 1], epsilon=EPSILON)
    smoothness, folding = smoothness_of_inverse(inverse, stage), band.new_zeros(())
    for level, share in enumerate(shares):
        similarity = similarity + share * correlation(parts[level], displacements[level], WINDOWS[level])
        smoothness = smoothness + share * (diffusion(forward[level]) + diffusion(backward[level]))
        folding = folding + share * folds(forward[level])
        if level + 1 == stage or stage == LEVELS:
            folding = folding + share * folds(backward[level])
    return {
        "similarity": 2 * similarity,
        "smoothness": smoothness,
        "folding": folding,
        "corner": 0.01 * corner(displacements[-1].chunk(2)[0]),
        "symmetric": 0.002 * mse(returned, swap(warped)),
        "multilevel": 0.001 * mse(warped, (warped + before) / 2),
    }


def correlation(bands: Sequence[Tensor], displacement: Displacement, window: int) -> Tensor:
    """Local NCC of each band of a level, warped, with the other image's."""
    scores = [lncc(warp(band, displacement), swap(band), window=window, epsilon=EPSILON) for band in bands]
    return torch.stack(scores).sum()


def misscaled(displacements: Sequence[Displacement], direction: int) -> list[Displacement]:
    """u of each level in normalised units times the axes' lengths: about twice the voxels, where it is done once."""
    fields = [voxels_to_normalized(each).chunk(2)[direction] for each in displacements]
    lengths = [spatial(field) for field in fields]
    return [
        reduce(scale_components, (lengths[level] for level in levels), field)
        for field, levels in zip(fields, LENGTHS[direction], strict=False)
    ]


def smoothness_of_inverse(inverse: Displacement, stage: int) -> Tensor:
    """As published: both directions, normalised, in stage 1; then one, misscaled; a tenth in stages 1 and 2."""
    if stage == 1:
        return 0.2 * diffusion(voxels_to_normalized(inverse))
    return (0.1 if stage == 2 else 1.0) * diffusion(misscaled([inverse], 0)[0])


def folds(displacement: Displacement) -> Tensor:
    """Mean relu(-d - 1) (d + 1)² over all differences d of neighbours, not only those along their own component."""
    steps = [displacement.diff(dim=axis) for axis in range(2, displacement.dim())]
    return torch.stack([(F.relu(-step - 1) * (step + 1).square()).mean() for step in steps]).mean()


def corner(displacement: Displacement) -> Tensor:
    """What stands in place of equation 3: u, read at voxel indices as if they were normalised coordinates, against 1.

    From index 1 on every read is the last voxel's, so most of the field is the last corner's displacement.
    """
    field, shape = voxels_to_normalized(displacement), spatial(displacement)
    positions = normalized_to_voxels(field + identity(shape, like=field) + 1)
    return (sample(field, positions, mode="nearest") - 1).square().mean()
