"""VoxelMorph: one U-Net from two images to a displacement, the baseline that every method is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit import losses
from regkit._core.sampler import exponential
from regkit.fields import warp
from regkit.models.layers import Network, check_inputs, configured, conv, crop, pad_to_multiple
from regkit.types import Amount, Count, Dim, Image, InputError, Registration, Similarity, at_least_float32, spatial


@configured
class VoxelMorph(Network[Registration]):
    """VoxelMorph (Balakrishnan et al., IEEE TMI 2019; as a diffeomorphism: Dalca et al., Medical Image Analysis 2019).

    u = U(moving, fixed), or u = exp(v) with v = U(moving, fixed). Loss: sim(warp(moving, u), fixed) + λ mean|∇U|².

    Model card
        Parameters: 301,411 in 3D, 100,530 in 2D.
        Reach: the coarsest of four levels sees 1/16 of the size; motions beyond a few voxels of that grid, and large
        rotations, want an affine step before.
        Guaranteed: nearly the identity before training (the last layer starts at 1e-5); any image size; with "velocity"
        an inverse, exp(-v), and no folds where v is smooth on the scale of a voxel.
        Not guaranteed: with "displacement" neither an inverse nor the absence of folds; symmetry in the two images.

    dim: 2 or 3. in_channels: of each image.
    encoder_channels: one strided convolution each. decoder_channels: one for each of these, then at full resolution.
        The defaults are the published program's; the strided convolutions are those of the 2019 paper's Figure 3.
    output: "displacement" (2019, IEEE TMI) or "velocity" (2019, Medical Image Analysis; here at full resolution and
        without its sampling: the mean velocity).
    similarity: "mse" or "lncc" (both in the first paper), or a function or module of two images.
    weight: λ; None takes 0.02 for "mse" and 1 for others. The penalty acts on what the network gives.
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: Count = 1,
        encoder_channels: tuple[Count, ...] = (16, 32, 32, 32),
        decoder_channels: tuple[Count, ...] = (32, 32, 32, 32, 32, 16, 16),
        output: Literal["displacement", "velocity"] = "displacement",
        similarity: Literal["mse", "lncc"] | Similarity = "mse",
        weight: Amount | None = None,
    ):
        super().__init__()
        if len(decoder_channels) <= len(encoder_channels):
            raise InputError(
                "decoder_channels must have an entry for each encoder level and at least one more",
                f"{len(decoder_channels)} for {len(encoder_channels)} levels",
                "add one for the full resolution",
            )
        self.dim, self.output, self.similarity = dim, output, similarity
        self.weight = (0.02 if similarity == "mse" else 1.0) if weight is None else weight
        self.unet = UNet(dim, 2 * in_channels, encoder_channels, decoder_channels)
        self.head = conv(dim, decoder_channels[-1], dim)
        nn.init.normal_(self.head.get_parameter("weight"), std=1e-5)
        nn.init.zeros_(self.head.get_parameter("bias"))

    def forward(self, moving: Image, fixed: Image) -> Registration:
        """Register: `inverse` and `velocity` are given with output="velocity", else None."""
        check_inputs(self, moving, fixed)
        images = torch.cat(torch.broadcast_tensors(moving, fixed), 1)  # (B, 2C, *space)
        features = self.unet(pad_to_multiple(images, 2 ** len(self.unet.encoder)))
        field = at_least_float32(crop(self.head(features), spatial(moving)))  # (B, dim, *space), voxels
        if self.output == "displacement":
            return Registration(field, levels=(field,))
        displacement = exponential(field)
        return Registration(displacement, exponential(-field), velocity=field, levels=(displacement,))

    def objective(self, registration: Registration, moving: Image, fixed: Image) -> dict[str, Tensor]:
        """The similarity and the weighted diffusion penalty, by name; their sum is the loss."""
        field = registration.displacement if registration.velocity is None else registration.velocity
        warped = warp(moving, registration.displacement)
        name = self.similarity if isinstance(self.similarity, str) else "similarity"
        measure: Any = {"mse": losses.mse, "lncc": losses.lncc}.get(name, self.similarity)
        return {
            name: measure(warped, fixed.expand_as(warped)),
            "diffusion": self.weight * losses.diffusion(field),
        }


class UNet(nn.Module):
    """Features at full resolution from an image of any channels, each size divisible by 2^len(encoder_channels).

    Encoder: strided convolutions, each half the size of the one before. Decoder: a convolution, doubling, joining the
    encoder's features of that size (at full size: the image), once for each encoder level; then plain convolutions.
    """

    def __init__(self, dim: Dim, in_channels: int, encoder_channels: Sequence[int], decoder_channels: Sequence[int]):
        super().__init__()
        down = [in_channels, *encoder_channels]
        depth = len(encoder_channels)
        self.encoder = nn.ModuleList(conv(dim, a, b, stride=2) for a, b in pairwise(down))
        joined = [skip + up for skip, up in zip(reversed(down[:-1]), decoder_channels, strict=False)]
        received = [down[-1], *joined, *decoder_channels[depth:-1]]
        layers = [conv(dim, a, b) for a, b in zip(received, decoder_channels, strict=True)]
        self.decoder, self.tail = nn.ModuleList(layers[:depth]), nn.ModuleList(layers[depth:])

    def forward(self, image: Tensor) -> Tensor:
        skips, features = [], image
        for convolve in self.encoder:
            skips.append(features)
            features = F.leaky_relu(convolve(features), 0.2)
        for convolve in self.decoder:
            features = F.leaky_relu(convolve(features), 0.2)
            features = torch.cat([F.interpolate(features, scale_factor=2), skips.pop()], 1)
        for convolve in self.tail:
            features = F.leaky_relu(convolve(features), 0.2)
        return features
