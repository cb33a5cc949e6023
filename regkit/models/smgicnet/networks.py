"""The networks of SM-GICNet, one for each level, and the wavelet bands that they read.

Every network answers for m, the moving band warped by what is known, f, the fixed band, and the known velocity. All
3-convolutions are without bias, and nothing is normalised.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit.fields import average_pool, resize
from regkit.models.layers import conv, conv_transposed, crop, pad_to_multiple
from regkit.types import Dim, Image, spatial

BRANCHED, DEEP, DEPTH = 2, 3, 3  # levels from which energies are read, and by two convolutions; strides at most


class Answer(NamedTuple):
    """What a network says of one level.

    residual: (B, dim, *level), in (-1, 1). weight: of both images, (B, C, *level). gates: the coefficients of the skip
    connections, coarse to fine, (B, 1, *level / 4), (B, 1, *level / 2) and (B, 1, *level); () where there are none.
    """

    residual: Tensor
    weight: Tensor
    gates: tuple[Tensor, ...]


def ask(network: Any, images: Tensor, energies: Tensor, known: Tensor) -> Answer:
    """A network's answer at any size: the inputs' borders are repeated up to its strides, the answer is cropped."""
    shape, channels = spatial(images), [part.shape[1] for part in (images, energies, known)]
    padded = pad_to_multiple(torch.cat([images, energies, known], 1), network.stride)
    answer = network(*padded.split(channels, 1))
    gates = []
    for gate in answer.gates:
        factor = padded.shape[2] // gate.shape[2]
        gates.append(crop(gate, [-(-size // factor) for size in shape]))
    return Answer(crop(answer.residual, shape), crop(answer.weight, shape), tuple(gates))


def haar(image: Image, gain: float = 1.0) -> tuple[Image, Image]:
    """One step of the Haar wavelet: the low band and the energy Σ d² of the detail bands, each (B, C, *ceil(space/2)).

    Along each axis a = (x₀ + x₁)/2, d = (x₀ - x₁)/2: the low band is the mean of each block of two voxels per axis,
    and by Parseval Σ d² is the variance in the block. gain=2^(dim/2) gives the orthonormal wavelet, a and d over √2.
    Odd axes end in their last voxel twice. Source: section 3.1.
    """
    image = pad_to_multiple(image, 2)
    low = average_pool(image)
    mean = F.interpolate(low, spatial(image), mode="nearest")
    return gain * low, gain**2 * average_pool((image - mean).square())


def disagreement(images: Tensor) -> Tensor:
    """w = 1/2 + 1/2 minmax(||m| - |f||), from 1/2 where a sample's images agree to 1 where they differ most.

    images: m and f, (B, 2C, *level); returns (B, C, *level). Differences below 1e-3 are not stretched to the full
    range. Source: the authors' program (local importance weighting, AMNet); not in the paper.
    """
    moving, fixed = images.abs().chunk(2, 1)
    return stretched((moving - fixed).abs())


def stretched(difference: Tensor) -> Tensor:
    """1/2 + 1/2 minmax(difference) over each sample."""
    low, high = difference.flatten(1).aminmax(dim=1)
    shape = [-1, *[1] * (difference.dim() - 1)]
    return 0.5 + 0.5 * (difference - low.view(shape)) / (high - low).clamp_min(1e-3).view(shape)


def equal(images: Tensor) -> Tensor:
    """1 everywhere, as (B, C, *level)."""
    return images.new_ones(()).expand_as(images.chunk(2, 1)[0])


# ---------------------------------------------------------------------------------------------- blocks
def down(dim: Dim, width: int) -> nn.Module:
    """Half the size."""
    return conv(dim, width, width, stride=2, bias=False)


def up(dim: Dim, width: int) -> nn.Module:
    """Twice the size."""
    return conv_transposed(dim, width, width, bias=False)


def head(dim: Dim, width: int) -> nn.Sequential:
    """Two maps of features, (B, 2 width, *level), to a residual in (-1, 1)."""
    layers = conv(dim, 2 * width, width, bias=False), nn.LeakyReLU(0.2), conv(dim, width, dim, bias=False)
    return nn.Sequential(*layers, nn.Softsign())


class Block(nn.Module):
    """σ(x + conv(σ(conv(σ(x))))), of the coarse levels."""

    def __init__(self, dim: Dim, width: int):
        super().__init__()
        self.conv1, self.conv2 = (conv(dim, width, width, bias=False) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv1(F.leaky_relu(features, 0.2))
        return F.leaky_relu(features + self.conv2(F.leaky_relu(inner, 0.2)), 0.2)


class FineBlock(Block):
    """x + σ(conv(σ(conv(x)))), of the last level."""

    def forward(self, features: Tensor) -> Tensor:
        return features + F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(features))))


# ---------------------------------------------------------------------------------------------- the coarse levels
class ImageEntry(nn.Module):
    """Level 1: the low bands alone."""

    def __init__(self, dim: Dim, in_channels: int, width: int):
        super().__init__()
        self.images = conv(dim, 2 * in_channels, width, bias=False)

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Tensor:
        return self.images(images)


class BandEntry(nn.Module):
    """Level 2: half of the features from low bands and velocity, half from the energies."""

    def __init__(self, dim: Dim, in_channels: int, width: int):
        super().__init__()
        self.images = conv(dim, 2 * in_channels + dim, width // 2, bias=False)
        self.energies = conv(dim, 2 * in_channels, width // 2, bias=False)

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Tensor:
        return torch.cat([self.images(torch.cat([images, known], 1)), self.energies(energies)], 1)


class DeepEntry(nn.Module):
    """Level 3 and further coarse ones: two convolutions for each half, and both see the velocity."""

    def __init__(self, dim: Dim, in_channels: int, width: int):
        super().__init__()
        self.images, self.energies = (conv(dim, 2 * in_channels + dim, width, bias=False) for _ in range(2))
        self.mix_images, self.mix_energies = (conv(dim, width, width // 2, bias=False) for _ in range(2))

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Tensor:
        low = self.mix_images(self.images(torch.cat([images, known], 1)))
        return torch.cat([low, self.mix_energies(self.energies(torch.cat([energies, known], 1)))], 1)


class CoarseNetwork(nn.Module):
    """Level 1, 2, 3, … below the last: as many strides as its number (at most 3), and one skip connection."""

    def __init__(self, dim: Dim, in_channels: int, width: int, level: int, weighting: bool):
        super().__init__()
        depth = min(level, DEPTH)
        self.stride, self.reads_energy = 2**depth, level >= BRANCHED
        self.weighting = weighting and level >= DEEP
        entry = ImageEntry if level < BRANCHED else BandEntry if level < DEEP else DeepEntry
        self.entry: nn.Module = entry(dim, in_channels, width)
        self.first = Block(dim, width)
        descent = [layer for _ in range(depth) for layer in (down(dim, width), Block(dim, width))]
        ascent = [layer for _ in range(depth - 1) for layer in (up(dim, width), Block(dim, width))]
        self.trunk = nn.Sequential(*descent, Block(dim, width), *ascent, up(dim, width))
        self.skip = conv(dim, width, width, bias=False)
        self.head = head(dim, width)

    def weigh(self, images: Tensor) -> Tensor:
        """Where the images count how much: (B, 2C, *level) to (B, C, *level)."""
        return disagreement(images) if self.weighting else equal(images)

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Answer:
        weight = self.weigh(images)
        features = self.first(self.entry(images * torch.cat([weight, weight], 1), energies, known))
        return Answer(self.head(torch.cat([self.skip(features), self.trunk(features)], 1)), weight, ())


# ---------------------------------------------------------------------------------------------- the last level
class Gate(nn.Module):
    """a = sigmoid(P relu(W_g g + W_x x)), one coefficient for each voxel of the skip connection g. Source: appendix A.

    g: (B, width, *level); x, the decoder's features: half that size. All convolutions have one tap, so g may be shrunk
    before W_g.
    """

    def __init__(self, dim: Dim, width: int, coefficients: int = 1):
        super().__init__()
        self.of_skip, self.of_features = (conv(dim, width, width, 1) for _ in range(2))
        self.reduce = conv(dim, width, coefficients, 1)

    def coarse(self, skip: Tensor, features: Tensor) -> Tensor:
        """The coefficients at the size of the decoder's features."""
        both = self.of_skip(resize(skip, spatial(features))) + self.of_features(features)
        return torch.sigmoid(self.reduce(F.relu(both)))

    def forward(self, skip: Tensor, features: Tensor) -> Tensor:
        return resize(self.coarse(skip, features), spatial(skip))


class OpenGate(nn.Module):
    """Coefficients 1: a plain skip connection."""

    def forward(self, skip: Tensor, features: Tensor) -> Tensor:
        return skip.new_ones(()).expand_as(skip[:, :1])


class FineNetwork(nn.Module):
    """The last level, on the images themselves: an encoder and a decoder of three strides with gates on the skips."""

    stride, reads_energy = 2**DEPTH, False

    def __init__(self, dim: Dim, in_channels: int, width: int, attention: bool, weighting: bool):
        super().__init__()
        self.weighting = weighting
        first = conv(dim, 2 * in_channels + dim, width, bias=False)
        self.entry = nn.Sequential(first, nn.LeakyReLU(0.2), conv(dim, width, width, bias=False))
        self.encoder = nn.ModuleList([FineBlock(dim, width)])
        self.encoder.extend(nn.Sequential(down(dim, width), FineBlock(dim, width)) for _ in range(DEPTH))
        self.gates = nn.ModuleList(Gate(dim, width) if attention else OpenGate() for _ in range(DEPTH))
        self.ups = nn.ModuleList(up(dim, width) for _ in range(DEPTH))
        self.decoder = nn.ModuleList(FineBlock(dim, width) for _ in range(DEPTH - 1))
        self.head = head(dim, width)

    def encode(self, images: Tensor, known: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The images' weight, and the features e_0 … e_3, fine to coarse."""
        weight = disagreement(images) if self.weighting else equal(images)
        features = self.entry(torch.cat([images * torch.cat([weight, weight], 1), known], 1))
        levels = []
        for stage in self.encoder:
            features = stage(features)
            levels.append(features)
        return weight, levels

    def forward(self, images: Tensor, energies: Tensor, known: Tensor) -> Answer:
        weight, (first, *skips, features) = self.encode(images, known)
        gates = []
        for block, skip, gate, grow in zip(self.decoder, reversed(skips), self.gates, self.ups, strict=False):
            gates.append(gate(skip, features))
            features = block(grow(features) + gates[-1] * skip)
        gates.append(self.gates[-1](first, features))
        residual = self.head(torch.cat([self.ups[-1](features), gates[-1] * first], 1))
        return Answer(residual, weight, tuple(gates))


def paper_networks(
    dim: Dim, in_channels: int, width: int, levels: int, attention: bool, weighting: bool
) -> nn.ModuleList:
    """Coarse to fine."""
    coarse = [CoarseNetwork(dim, in_channels, width, level, weighting) for level in range(1, levels)]
    return nn.ModuleList([*coarse, FineNetwork(dim, in_channels, width, attention, weighting)])
