"""SM-GICNet: a symmetric multi-level network whose round trips must have the identity for their Jacobian.

Bai, Zhang, Che, Li: Symmetric Multi-level Gradient-Inverse Consistency Network for Brain Image Registration with Large
Deformation. Submitted to MIDL 2025. Its networks: networks.py. What the authors' program does differently: released.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from regkit import types
from regkit._core.sampler import compose, exponential, warp
from regkit.fields import normalized_to_voxels, upsample, voxels_to_normalized
from regkit.losses import diffusion, gradicon, level_window, lncc, mse
from regkit.models.layers import Network, check_inputs, configured, crop, swap
from regkit.models.smgicnet import released
from regkit.models.smgicnet.networks import ask, haar, paper_networks
from regkit.types import Dim, Displacement, Image, InputError, Registration, at_least_float32, spatial

INVERSE_SIMILARITY = 0.1  # weight of warp(fixed, inverse) against moving
ENERGY_EPSILON = 1e-12  # of the local NCC: the program's is 1e-8, for energies 8 times as large (8^4 for the product)


@dataclass(frozen=True)
class SMGICRegistration(Registration):
    """A registration with what each level found, coarse to fine.

    Both directions are stacked along the batch: moving onto fixed first, then fixed onto moving; where symmetric=False
    the first only. displacements, inverses, velocities, residuals: (2B, dim, *level), voxels of the level's grid.
    weights: of both images as they enter a level, (2B, C, *level). gates: coefficients of the last level's skip
    connections, coarse to fine.
    """

    displacements: tuple[Displacement, ...] = ()
    inverses: tuple[Displacement, ...] = ()
    velocities: tuple[Displacement, ...] = ()
    residuals: tuple[Displacement, ...] = ()
    weights: tuple[Tensor, ...] = ()
    gates: tuple[Tensor, ...] = ()


@configured
class SMGICNet(Network[SMGICRegistration]):
    """Four networks from coarse to fine, run on (A, B) and on (B, A): v_i = r_i + up(v_{i-1}), φ_i = exp(v_i).

    A Haar pyramid gives the images at 1/8, 1/4, 1/2 and full size. Each network sees the moving band warped by what is
    known and the fixed one, and adds a velocity; levels 2 and 3 also see where the discarded bands have energy, the
    last sees the images and has attention gates on its skip connections. Nothing ties φ_AB to φ_BA but the objective:
    the gradient inverse consistency asks that ∇[φ_AB ∘ φ_BA] be the identity.

    A reconstruction: the paper has no formula for how levels are joined (here velocities add, as in LapIRN) nor for the
    gradient inverse consistency (here GradICON's), and its program does neither. Trained jointly here, level by level
    in the paper; the consistency terms act on the last level only, in the paper "at each level" (section 3.2).

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
        to interpolation. Training sees half as much: one direction of each pair.
    attention: False is "w/o attention": the gates are open, coefficients 1.
    gradient_inverse: False is "w/o gradient inverse consistency".
    smoothness: False leaves out its term; section 3.3 says that gradient inverse consistency replaces it, section 3.4
        has it.
    weighting: whether levels 3 and up see the images weighted by where they disagree (not in the paper).
    variant: "paper", or "released", the authors' program number for number, its objective included, for comparing
        (4 levels, both directions; the weights below do not apply).
    velocity_range: the largest residual velocity of a level, in half the image's size.
    similarity: a function or module of two images in place of the local NCC, of images and of energies ("paper" only).
    gradient_inverse_weight, smoothness_weight: the paper gives none. symmetric_weight, inverse_weight,
        multilevel_weight: λ_s, λ_i and λ_m of section 3.4.

    Raises:
        ValueError: odd channels; levels or symmetric that the released program does not have.
    """

    def __init__(
        self,
        dim: Dim = 2,
        *,
        in_channels: types.Count = 1,
        channels: types.Count = 32,
        levels: Literal[1, 2, 3, 4, 5] = 4,
        symmetric: bool = True,
        attention: bool = True,
        gradient_inverse: bool = True,
        smoothness: bool = True,
        weighting: bool = True,
        variant: Literal["paper", "released"] = "paper",
        velocity_range: types.Positive = 0.4,
        gradient_inverse_weight: types.Amount = 1.0,
        smoothness_weight: types.Amount = 0.1,
        symmetric_weight: types.Amount = 0.001,
        inverse_weight: types.Amount = 0.01,
        multilevel_weight: types.Amount = 0.0005,
        similarity: types.Similarity | None = None,
    ) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise InputError("channels must be an even number", channels, "the paper's program has 32")
        self.dim, self.in_channels, self.variant, self.velocity_range = dim, in_channels, variant, velocity_range
        self.symmetric, self.directions, self.similarity = symmetric, 2 if symmetric else 1, similarity
        if variant == "paper":
            self.networks = paper_networks(dim, in_channels, channels, levels, attention, weighting)
        else:
            released.check(levels, symmetric)
            self.networks = released.networks(dim, in_channels, channels, attention, weighting)
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
        images = torch.cat(torch.broadcast_tensors(moving, fixed))  # (2B, C, *space)
        batch, count = len(images) // 2, self.directions * len(images) // 2
        stages: list[Stage] = []
        for network, band in zip(self.networks, self.pyramid(images), strict=True):
            shape = spatial(band)
            displacement = velocity = images.new_zeros(count, self.dim, *shape)  # at first the identity
            if stages:
                displacement, velocity = self.carry(stages[-1], shape)
            stages.append(self.refine(network, band, displacement, velocity))
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
        gain = 1.0 if self.variant == "paper" else 2 ** (self.dim / 2)  # the low band is a mean; orthonormal
        bands: list[Tensor] = []
        low, energy = images, images[:, :0]
        for network in reversed(self.networks):
            if bands:
                low, energy = haar(low, gain)
            bands.append(torch.cat([low, energy], 1) if network.reads_energy else low)
        return bands[::-1]

    def carry(self, stage: Stage, shape: tuple[int, ...]) -> tuple[Displacement, Displacement]:
        """On the next level's grid: the displacement that warps its moving band, and the velocity so far."""
        if self.variant == "paper":
            displacement, velocity = upsample(stage.displacement), upsample(stage.velocity)
        else:
            displacement = velocity = released.enlarged(stage.displacement)
        return crop(displacement, shape), crop(velocity, shape)

    def refine(self, network: Any, band: Tensor, displacement: Displacement, previous: Displacement) -> Stage:
        """One level: warp by the displacement so far, ask for the rest of the velocity, add, integrate.

        band: both images' low band, and the energies behind it, (2B, C or 2C, *level), moving first. displacement,
        previous: up(u_{i-1}) and up(v_{i-1}), (2B or B, dim, *level), voxels.
        """
        moving, fixed = warp(band[: len(previous)], displacement), swap(band)[: len(previous)]
        channels, corners = self.in_channels, self.variant == "released"  # what the networks' unit spans
        images = torch.cat([moving[:, :channels], fixed[:, :channels]], 1)  # (2B, 2C, *level)
        energies = torch.cat([moving[:, channels:], fixed[:, channels:]], 1)  # as many, or no channels
        answer = ask(network, images, energies, voxels_to_normalized(previous, align_corners=corners).to(band))
        residual = self.velocity_range * at_least_float32(answer.residual)
        residual = normalized_to_voxels(residual, align_corners=corners)  # r_i
        if self.variant == "paper":  # v_i = r_i + up(v_{i-1}), φ_i = exp(v_i) and its inverse exp(-v_i)
            velocity = residual + previous
            displacement, inverse = exponential(torch.cat([velocity, -velocity])).chunk(2)
        else:
            velocity = residual + warp(previous, residual)
            displacement, inverse = released.integrate(velocity, self.velocity_range)
        return Stage(residual, velocity, displacement, inverse, answer.weight, answer.gates)

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
        bands = self.pyramid(torch.cat(torch.broadcast_tensors(moving, fixed)))
        if self.variant == "released":
            return released.losses(self, registration, bands)
        displacement, inverse = registration.displacements[-1], registration.inverses[-1]  # of φ_AB and φ_BA
        reverse = swap(displacement) if self.symmetric else inverse  # of φ_BA and φ_AB
        count = len(displacement)
        image, target = bands[-1][:count], swap(bands[-1])[:count]  # A and B
        returned = warp(target, inverse)  # B ∘ φ_AB⁻¹
        similarity = INVERSE_SIMILARITY * self._measure(returned, image, window=level_window(returned, 0))
        warped = [warp(band[:count], u) for band, u in zip(bands, registration.displacements, strict=True)]  # A_i ∘ φ_i
        terms = dict.fromkeys(self.weights, image.new_zeros(()))
        terms["similarity"] = self._add_levels(similarity, warped, [swap(band)[:count] for band in bands])
        if self.weights["smoothness"]:
            levels = enumerate(reversed(registration.displacements))
            terms["smoothness"] = torch.stack([diffusion(u) / 2**halvings for halvings, u in levels]).sum()
        if self.weights["gradient_inverse"]:
            terms["gradient_inverse"] = gradicon(displacement, reverse)
        if self.weights["symmetric"]:
            terms["symmetric"] = mse(returned, swap(warped[-1]))
        if self.weights["inverse"]:
            terms["inverse"] = compose(displacement, inverse).square().mean()
        if self.weights["multilevel"]:
            before = warp(image, crop(upsample(registration.displacements[-2]), spatial(image)))  # w_{k-1}
            terms["multilevel"] = mse(warped[-1], before) / 4
        return {name: self.directions * self.weights[name] * term for name, term in terms.items()}

    def _measure(self, moving: Tensor, fixed: Tensor, **options: Any) -> Tensor:
        """The local NCC with these options, or the similarity that the model was given."""
        return lncc(moving, fixed, **options) if self.similarity is None else self.similarity(moving, fixed)

    def _add_levels(self, total: Tensor, warped: list[Tensor], targets: list[Tensor]) -> Tensor:
        """total + Σ α_i LNCC(A_i ∘ φ_i, B_i), of low bands and energies, fine to coarse."""
        for halvings, (moving, fixed) in enumerate(zip(reversed(warped), reversed(targets), strict=True)):
            window, channels = level_window(fixed, halvings), self.in_channels
            total = total + self._measure(moving[:, :channels], fixed[:, :channels], window=window) / 2**halvings
            if fixed.shape[1] > channels:
                energies = moving[:, channels:], fixed[:, channels:]
                total = total + self._measure(*energies, window=window, epsilon=ENERGY_EPSILON) / 2**halvings
        return total


@dataclass(frozen=True)
class Stage:
    """What one level computes: see `SMGICRegistration`."""

    residual: Displacement
    velocity: Displacement
    displacement: Displacement
    inverse: Displacement
    weight: Tensor
    gates: tuple[Tensor, ...]
