"""SM-GICNet: a symmetric multi-level network whose round trips must have the identity for their Jacobian.

Bai, Zhang, Che, Li: Symmetric Multi-level Gradient-Inverse Consistency Network for Brain Image Registration with Large
Deformation. Submitted to MIDL 2025. Its networks: smgicnet_networks.py. The authors' program, and what it does
differently: smgicnet_released.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regkit.fields import compose, normalized_to_voxels, upsample, voxels_to_normalized, warp
from regkit.losses import diffusion, gradicon, level_window, lncc, mse
from regkit.models.layers import check_inputs, configured, crop, pad_to_multiple, swap
from regkit.models.smgicnet import released
from regkit.models.smgicnet.networks import AddedVelocities, SMGICRegistration, haar, paper_networks
from regkit.types import Dim, Displacement, Image, InputError, at_least_float32, spatial

INVERSE_SIMILARITY = 0.1  # weight of warp(fixed, inverse) against moving

ENERGY_EPSILON = 1e-12  # of the local NCC: the program's is 1e-8, for energies 8 times as large (8^4 for the product)


@configured
class SMGICNet(nn.Module):
    """Four networks from coarse to fine, run on (A, B) and on (B, A): v_i = r_i + up(v_{i-1}), φ_i = exp(v_i).

    A Haar pyramid gives the images at 1/8, 1/4, 1/2 and full size. Each network sees the moving band warped by what is
    known and the fixed one, and adds a velocity; levels 2 and 3 also see where the discarded bands have energy, the
    last sees the images and has attention gates on its skip connections. Nothing ties φ_AB to φ_BA but the objective:
    the gradient inverse consistency asks that ∇[φ_AB ∘ φ_BA] be the identity.

    Loss: section 3.4, see `objective`.

    Model card
        Parameters: 1,877,715 in 3D, 640,323 in 2D (4 levels, 32 channels); 6,435 of them are the gates'.
        Reach: the coarsest network sees 29 of its voxels along each axis, 230 of the image's; what a level adds to the
        velocity is below a fifth of the image's size.
        Guaranteed by construction, for any weights: exchanging the images exchanges the maps; displacement and inverse
        are exponentials of v and -v, inverse to each other up to interpolation; any image size is
        registered (training needs 2^levels + 1 voxels along every axis: 17 with 4 levels).
        Not guaranteed: φ_BA is the inverse of φ_AB only as far as training made it so; folds are rare, not excluded.
        Intensities should be in [0, 1].

    The switches below are the bars of Figure 3b, unless another source is named; the paper prints no numbers for them.
    dim: 2 or 3. in_channels: of each image. channels: of all features, an even number.
    levels: 1 is "w/o multi-level": the last network alone, on the images.
    symmetric: False is "w/o symmetry": (A, B) only, at half the cost, with the same weights. The objective then takes
        φ_BA = φ_AB⁻¹, so that its symmetric term is zero by construction and gradient inverse consistency is zero up
        to interpolation.
    attention: False is "w/o attention": the gates are open, coefficients 1.
    gradient_inverse: False is "w/o gradient inverse consistency".
    smoothness: False leaves out its term; section 3.3 says that gradient inverse consistency replaces it, section 3.4
        has it.
    weighting: whether levels 3 and up see the images weighted by where they disagree (not in the paper).
    variant: "paper", or "released", the authors' program number for number, its objective included, for comparing
        (4 levels, both directions; the weights below do not apply).
    velocity_range: the largest residual velocity of a level, in half the image's size.
    gradient_inverse_weight, smoothness_weight: the paper gives none. symmetric_weight, inverse_weight,
        multilevel_weight: λ_s, λ_i and λ_m of section 3.4.

    Raises:
        ValueError: odd channels; levels or symmetric that the released program does not have.
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: int = 1,
        channels: int = 32,
        levels: Literal[1, 2, 3, 4, 5] = 4,
        symmetric: bool = True,
        attention: bool = True,
        gradient_inverse: bool = True,
        smoothness: bool = True,
        weighting: bool = True,
        variant: Literal["paper", "released"] = "paper",
        velocity_range: float = 0.4,
        gradient_inverse_weight: float = 1.0,
        smoothness_weight: float = 0.1,
        symmetric_weight: float = 0.001,
        inverse_weight: float = 0.01,
        multilevel_weight: float = 0.0005,
    ) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise InputError("channels must be an even number", channels, "the paper's program has 32")
        self.dim, self.in_channels, self.velocity_range = dim, in_channels, velocity_range
        self.directions = 2 if symmetric else 1
        self.flow: AddedVelocities | released.ComposedDisplacements
        if variant == "paper":
            self.networks = paper_networks(dim, in_channels, channels, levels, attention, weighting)
            self.flow, self.losses = AddedVelocities(), paper_losses
        else:
            released.check(levels, symmetric)
            self.networks = released.networks(dim, in_channels, channels, levels, attention, weighting)
            self.flow, self.losses = released.ComposedDisplacements(velocity_range), released.losses
        self.reverse = swapped if symmetric else inverted
        self.weights = {
            "similarity": 1.0,
            "smoothness": smoothness * smoothness_weight,
            "gradient_inverse": gradient_inverse * gradient_inverse_weight,
            "symmetric": symmetric * symmetric_weight,
            "inverse": inverse_weight,
            "multilevel": (levels > 1) * multilevel_weight,
        }

    def forward(self, moving: Image, fixed: Image) -> SMGICRegistration:
        """Register (B, C, *space) onto (B, C, *space), of any size."""
        check_inputs(self, moving, fixed)
        images = torch.cat(torch.broadcast_tensors(moving, fixed))
        batch, stages = len(images) // 2, self.coarse_to_fine(images)
        return SMGICRegistration(
            displacement=stages[-1].displacement[:batch],
            inverse=stages[-1].inverse[:batch],
            velocity=stages[-1].velocity[:batch],
            levels=tuple(stage.displacement[:batch] for stage in stages),
            displacements=tuple(stage.displacement for stage in stages),
            inverses=tuple(stage.inverse for stage in stages),
            velocities=tuple(stage.velocity for stage in stages),
            residuals=tuple(stage.residual for stage in stages),
            weights=tuple(stage.weight for stage in stages),
            gates=stages[-1].gates,
        )

    def pyramid(self, images: Image) -> list[Tensor]:
        """The low bands at every level, coarse to fine, and behind their channels the energies where they are read."""
        bands = [(images, images[:, :0])]
        for _ in self.networks[1:]:
            bands.append(haar(bands[-1][0], self.flow.gain(self.dim)))
        pairs = zip(reversed(bands), self.networks, strict=True)
        return [torch.cat([low, energy] if network.reads_energy else [low], 1) for (low, energy), network in pairs]

    def coarse_to_fine(self, images: Image) -> list[Stage]:
        """What every level finds, the images stacked along the batch, moving first."""
        stages: list[Stage] = []
        asked = self.directions * len(images) // 2
        for network, band in zip(self.networks, self.pyramid(images), strict=True):
            shape = spatial(band)
            still = images.new_zeros(asked, self.dim, *shape)
            carried = self.flow.carry(stages[-1].displacement, stages[-1].velocity) if stages else (still, still)
            stages.append(self.refine(network, band, *(crop(field, shape) for field in carried)))
        return stages

    def refine(self, network: Any, band: Tensor, displacement: Displacement, known: Displacement) -> Stage:
        """One level: warp by what is known, ask for the rest of the velocity, integrate."""
        asked, shape = len(known), spatial(band)
        moving, fixed = warp(band[:asked], displacement), swap(band)[:asked]
        parts = zip(moving.tensor_split([self.in_channels], 1), fixed.tensor_split([self.in_channels], 1), strict=True)
        pairs = [torch.cat(part, 1) for part in parts]  # images, (2B, 2C, *level), and energies, if any
        inputs = [*pairs, voxels_to_normalized(known, align_corners=self.flow.corners).to(band)]
        padded = pad_to_multiple(torch.cat(inputs, 1), network.stride)
        answer = network(*padded.split([part.shape[1] for part in inputs], 1))
        residual = self.velocity_range * at_least_float32(crop(answer.residual, shape))
        residual = normalized_to_voxels(residual, align_corners=self.flow.corners)
        velocity = self.flow.add(residual, known)
        displacement, inverse = self.flow.integrate(velocity)
        factors = [padded.shape[2] // gate.shape[2] for gate in answer.gates]
        shapes = [[-(-size // factor) for size in shape] for factor in factors]
        gates = tuple(crop(gate, part) for gate, part in zip(answer.gates, shapes, strict=True))
        return Stage(residual, velocity, displacement, inverse, crop(answer.weight, shape), gates)

    def objective(self, registration: SMGICRegistration, moving: Image, fixed: Image) -> dict[str, Tensor]:
        """Section 3.4, each term weighted and summed over the directions; a term that is switched off is 0.

        Level i of k weighs α_i = 2^(i-k). u in voxels, φ its map, A moving, B fixed, the other direction alike.
        "similarity": Σ α_i LNCC(A_i ∘ φ_AB, B_i), of low bands and energies, + 0.1 LNCC(B ∘ φ_AB⁻¹, A).
        "smoothness": Σ α_i mean |∇u_i|². "gradient_inverse": mean |∇[φ_AB ∘ φ_BA] - I|², by `losses.gradicon`.
        "symmetric": MSE(B ∘ φ_AB⁻¹, B ∘ φ_BA), as the authors' program has it; equation 2 prints images of different
        shapes. "inverse": MSE(φ_AB ∘ φ_AB⁻¹, identity), equation 3. "multilevel": MSE(w_k, (w_k + w_{k-1})/2),
        equation 4, w_k = A ∘ φ_k, on the last level's grid.

        Raises:
            ValueError: an axis has fewer than 2^levels + 1 voxels, so that the coarsest level has fewer than 3.
        """
        images = torch.cat(torch.broadcast_tensors(moving, fixed))
        return self.losses(self, registration, self.pyramid(images))


@dataclass(frozen=True)
class Stage:
    """What one level finds: see `SMGICRegistration`."""

    residual: Displacement
    velocity: Displacement
    displacement: Displacement
    inverse: Displacement
    weight: Tensor
    gates: tuple[Tensor, ...]


def swapped(registration: SMGICRegistration) -> Displacement:
    """φ_BA beside φ_AB, and φ_AB beside φ_BA: what the networks found."""
    return swap(registration.displacements[-1])


def inverted(registration: SMGICRegistration) -> Displacement:
    """φ_AB⁻¹ beside φ_AB."""
    return registration.inverses[-1]


# ---------------------------------------------------------------------------------------------- the objective


@dataclass(frozen=True)
class Terms:
    """The terms of section 3.4 before their weights; means over the directions.

    bands: both images at each level, coarse to fine, moving first, (2B, C, *level): `in_channels` of the low band, then
    the energies, if any. reverse: φ_BA beside φ_AB, (2B, dim, *space), voxels.
    """

    registration: SMGICRegistration
    bands: list[Tensor]
    in_channels: int
    reverse: Displacement

    def sides(self, band: Tensor) -> tuple[Tensor, Tensor]:
        """What is warped, and what it shall become."""
        asked = len(self.registration.displacements[-1])
        return band[:asked], swap(band)[:asked]

    @cached_property
    def warped(self) -> list[Tensor]:
        """A_i ∘ φ_i, coarse to fine."""
        pairs = zip(self.bands, self.registration.displacements, strict=True)
        return [warp(self.sides(band)[0], displacement) for band, displacement in pairs]

    @cached_property
    def returned(self) -> Tensor:
        """B ∘ φ_AB⁻¹."""
        return warp(self.sides(self.bands[-1])[1], self.registration.inverses[-1])

    def similarity(self) -> Tensor:
        """Σ α_i LNCC(A_i ∘ φ_i, B_i) + 0.1 LNCC(B ∘ φ_AB⁻¹, A)."""
        total = INVERSE_SIMILARITY * lncc(
            self.returned, self.sides(self.bands[-1])[0], window=level_window(self.returned, 0)
        )
        for halvings, (warped, band) in enumerate(zip(self.warped[::-1], self.bands[::-1], strict=True)):
            images = warped.split(self.in_channels, 1), self.sides(band)[1].split(self.in_channels, 1)
            for moving, fixed, epsilon in zip(*images, (1e-5, ENERGY_EPSILON), strict=False):
                total = total + lncc(moving, fixed, window=level_window(fixed, halvings), epsilon=epsilon) / 2**halvings
        return total

    def smoothness(self) -> Tensor:
        """Σ α_i mean |∇u_i|²."""
        levels = enumerate(reversed(self.registration.displacements))
        return torch.stack([diffusion(displacement) / 2**halvings for halvings, displacement in levels]).sum()

    def gradient_inverse(self) -> Tensor:
        """mean |∇[φ_AB ∘ φ_BA] - I|² / dim (section 3.3)."""
        return gradicon(self.registration.displacements[-1], self.reverse)

    def symmetric(self) -> Tensor:
        """MSE(B ∘ φ_AB⁻¹, B ∘ φ_BA)."""
        return mse(self.returned, swap(self.warped[-1]))

    def inverse(self) -> Tensor:
        """MSE(φ_AB ∘ φ_AB⁻¹, identity), voxels² (equation 3)."""
        return compose(self.registration.displacements[-1], self.registration.inverses[-1]).square().mean()

    def multilevel(self) -> Tensor:
        """MSE(w_k, (w_k + w_{k-1})/2) = MSE(w_k, w_{k-1}) / 4 (equation 4)."""
        moving = self.sides(self.bands[-1])[0]
        before = warp(moving, crop(upsample(self.registration.displacements[-2]), spatial(moving)))
        return mse(self.warped[-1], before) / 4


def paper_losses(model: SMGICNet, registration: SMGICRegistration, bands: list[Tensor]) -> dict[str, Tensor]:
    """The weighted terms, summed over the directions; those of weight 0 are not computed."""
    terms, off = Terms(registration, bands, model.in_channels, model.reverse(registration)), bands[-1].new_zeros(())
    weights = {name: model.directions * weight for name, weight in model.weights.items()}
    return {name: weight * getattr(terms, name)() if weight else off for name, weight in weights.items()}
