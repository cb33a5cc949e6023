"""Pairs of synthetic brains: one labelled anatomy, deformed and pictured as many subjects, every answer known.

Subject s is T(φ_s(x)) with T the template of anatomy.py and φ_s = exp(v_s) ∘ A_s: a smooth velocity v_s at several
scales, and an affine misalignment A_s, which is left out where the images are to be aligned. For a pair, the truth is
φ = φ_m⁻¹ ∘ φ_f = A_m⁻¹ ∘ exp(-v_m) ∘ exp(v_f) ∘ A_f: it warps the moving subject onto the fixed one. Everything is a
function of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from regkit.anatomy import PAIRED, Anatomy, anatomy
from regkit.data import Split
from regkit.fields import affine_displacement, compose, exponential, identity, move_affinely, warp
from regkit.types import Dim, Displacement, Image, Labels, Pair, check_option, spatial

Motion = Literal["small", "large"]
Contrast = Literal["t1", "random"]
_SCALES = {  # standard deviation of the Gaussian and root mean square length of the velocity, both in mm
    "small": ((8.0, 1.5), (16.0, 3.5), (32.0, 4.0)),
    "large": ((8.0, 2.0), (16.0, 5.0), (32.0, 8.0)),
}
_TURN, _SHIFT, _SHRINK = math.radians(20), 8.0, (0.92, 1.2)  # largest rotation, shift in mm; how much smaller
_SIZES: dict[int, tuple[int, ...]] = {2: (64, 56), 3: (64, 80, 64)}


@dataclass(frozen=True)
class Subject:
    """One brain: its picture, and how it came from the template.

    image: (1, 1, *space) in [0, 1]. labels: (1, 1, *space), named by regkit.anatomy.STRUCTURES.
    forward, backward: exp(v) and exp(-v), (1, dim, *space), voxels. affine, unaffine: A and A⁻¹, (1, dim, dim + 1).
    """

    image: Image
    labels: Labels
    forward: Displacement
    backward: Displacement
    affine: Tensor
    unaffine: Tensor


def subject(
    template: Anatomy,
    generator: Generator,
    *,
    motion: Motion = "small",
    aligned: bool = True,
    contrast: Contrast = "t1",
) -> Subject:
    """Deform a template and picture it, from the generator's next numbers.

    Raises:
        ValueError: an unknown motion or contrast.
    """
    check_option("motion", motion, get_args(Motion))
    check_option("contrast", contrast, get_args(Contrast))
    shape, spacing = spatial(template.labels), template.spacing[0]
    velocity = _velocity(shape, spacing, motion, generator)
    forward, backward = exponential(velocity), exponential(-velocity)
    affine, unaffine = _affine(len(shape), spacing, generator)
    if aligned:
        affine = unaffine = torch.eye(len(shape), len(shape) + 1)[None]
    displacement = _after_affine(forward, affine)
    shares = warp(template.maps, displacement)
    image = _picture(warp(template.image, displacement), shares, contrast, generator)
    return Subject(image, shares.argmax(1, keepdim=True), forward, backward, affine, unaffine)


def true_displacement(moving: Subject, fixed: Subject) -> Displacement:
    """What warps the moving subject onto the fixed one, (1, dim, *space), voxels: φ_m⁻¹ ∘ φ_f."""
    displacement = compose(moving.backward, _after_affine(fixed.forward, fixed.affine))
    grid = identity(spatial(fixed.labels))
    return move_affinely(grid + displacement, moving.unaffine, spatial(fixed.labels)) - grid


def _after_affine(displacement: Displacement, matrix: Tensor) -> Displacement:
    """The map of a displacement after an affine one, x ↦ φ(A x)."""
    return compose(displacement, affine_displacement(matrix, spatial(displacement)))


class BrainPairs(Sequence[Pair]):
    """Pairs of synthetic brains, drawn once: `pairs[i]` is a Pair of batch 1, `pairs[2:6]` or `pairs[[3, 1]]` a batch.

    `count` subjects are drawn and dealt out twice, as moving and as fixed; of two or more, none meets itself. Both
    splits follow from the seed; they share no draw, so "test" holds subjects that training never sees. Each subject
    follows from its own number: more pairs are the same subjects and further ones.

    size: voxels; by default (64, 56) in 2D, the axial slice at z = 8 mm, and (64, 80, 64) in 3D. Every size shows the
    whole brain. motion: how far the shapes differ. aligned=False turns, shifts and scales each subject as well.
    contrast: "t1" pictures all alike; "random" draws an intensity for each structure of each subject.

    Raises:
        ImportError: nilearn is not installed.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        count: int = 256,
        *,
        dim: Dim = 2,
        size: Sequence[int] | None = None,
        motion: Motion = "small",
        aligned: bool = True,
        contrast: Contrast = "t1",
        split: Split = "train",
        seed: int = 0,
    ) -> None:
        check_option("split", split, get_args(Split))
        check_option("dim", dim, get_args(Dim))
        shape = tuple(size or _SIZES[dim])
        if count < 1 or len(shape) != dim:
            raise ValueError(
                f"count must be at least 1 and size a number of voxels for each of {dim} axes, received {count} and "
                f"{size}; leave size out for {_SIZES[dim]}."
            )
        self.template = anatomy(shape)
        self.subjects = [
            subject(self.template, _generator(seed, split, i), motion=motion, aligned=aligned, contrast=contrast)
            for i in range(count)
        ]
        order = torch.randperm(count, generator=_generator(seed, split, 2**20)).tolist()
        self.deal = list(zip(order, [*order[1:], order[0]], strict=True))  # who is moving, who is fixed

    def __len__(self) -> int:
        return len(self.deal)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Pair:  # type: ignore[override]
        chosen = [index] if isinstance(index, int) else range(len(self))[index] if isinstance(index, slice) else index
        subjects = [tuple(self.subjects[number] for number in self.deal[i]) for i in chosen]
        moving, fixed, moving_labels, fixed_labels, displacement = (
            torch.cat(parts)
            for parts in zip(
                *((m.image, f.image, m.labels, f.labels, true_displacement(m, f)) for m, f in subjects), strict=True
            )
        )
        return Pair(moving, fixed, moving_labels, fixed_labels, displacement, self.template.spacing)


# ---------------------------------------------------------------------------------------------- draws


def _generator(seed: int, split: Split, number: int) -> Generator:
    """A stream of its own for each seed, split and subject."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, received {seed}; choose another number.")
    stream = get_args(Split).index(split) << 21 | number
    return Generator().manual_seed((seed << 22 | stream) % 2**63)


def _uniform(low: float, high: float, shape: Sequence[int], generator: Generator) -> Tensor:
    """Numbers of equal chance between two bounds."""
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _smooth_noise(shape: Sequence[int], scale: float, channels: int, generator: Generator) -> Tensor:
    """Gaussian noise (1, channels, *shape) that is smooth over `scale` voxels, of root mean square length 1.

    White noise on a coarse grid, `scale` voxels apart, spread by a Gaussian of the standard deviation `scale`.
    """
    scale = max(scale, 0.5)
    counts = [math.ceil(n / scale) + 7 for n in shape]
    noise = torch.randn(channels, *counts, generator=generator)
    for n, count in zip(shape, counts, strict=True):
        distance = torch.arange(n)[:, None] / scale - (torch.arange(count) - 3)
        weights = torch.exp(-(distance**2) / 2)
        noise = torch.tensordot(noise, weights / weights.norm(dim=1, keepdim=True), ([1], [1]))  # the axes rotate
    return noise[None] / math.sqrt(channels)


def _velocity(shape: Sequence[int], spacing: float, motion: Motion, generator: Generator) -> Displacement:
    """Smooth noise at several scales, (1, dim, *shape), voxels per unit time; without its mean, which is a shift."""
    velocity = torch.zeros(1, len(shape), *shape)
    for scale, length in _SCALES[motion]:
        velocity += length / spacing * _smooth_noise(shape, scale / spacing, len(shape), generator)
    return velocity - velocity.mean(tuple(range(2, velocity.dim())), keepdim=True)


def _affine(dim: int, spacing: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """A random rotation, scale and shift about the image's centre, (1, dim, dim + 1), voxels; and its inverse."""
    matrix = torch.eye(dim + 1, dtype=torch.float64)
    for i in range(dim):
        for j in range(i):
            angle = float(_uniform(-_TURN, _TURN, (1,), generator))
            turn = torch.eye(dim + 1, dtype=torch.float64)
            turn[i, i] = turn[j, j] = math.cos(angle)
            turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
    matrix[:dim, :dim] *= _uniform(*_SHRINK, (dim,), generator)
    matrix[:dim, dim] = _uniform(-_SHIFT, _SHIFT, (dim,), generator) / spacing
    return tuple(m[None, :dim].float() for m in (matrix, torch.linalg.inv(matrix)))  # type: ignore[return-value]


def _picture(image: Image, shares: Tensor, contrast: Contrast, generator: Generator) -> Image:
    """How a scanner shows a subject: an intensity for each structure, then bias field, texture and noise, in [0, 1].

    "t1": the template's own picture, each structure brighter or darker by up to 0.02. "random": an intensity between
    0.1 and 1 for each structure, left and right alike, and 0 outside.
    """
    structures, shape = shares.shape[1], spatial(image)
    tame = contrast == "t1"
    shift = _uniform(*((-0.02, 0.02) if tame else (0.1, 1.0)), (structures - PAIRED,), generator)
    shift = torch.cat([torch.zeros(1), shift[1 : 1 + PAIRED].repeat_interleave(2), shift[1 + PAIRED :]])
    picture = (image if tame else 0) + torch.tensordot(shift, shares, ([0], [1]))[:, None]
    strength = 1.0 if tame else 3.0
    bias = torch.exp(0.03 * strength * _smooth_noise(shape, max(shape) / 3, 1, generator))
    texture = 1 + 0.02 * strength * _smooth_noise(shape, 1.0, 1, generator)
    noise = 0.01 * strength * torch.randn(image.shape, generator=generator)
    return (picture * bias * texture + noise).clamp(0, 1)
