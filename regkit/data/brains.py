"""Pairs of synthetic brains: one labelled anatomy, deformed and pictured as many subjects, every answer known.

Subject s is T(φ_s(x)) with T the template of anatomy and φ_s = exp(v_s) ∘ A_s: a smooth velocity v_s at several
scales, and an affine misalignment A_s, which is left out where the images are to be aligned. For a pair, the truth is
φ = φ_m⁻¹ ∘ φ_f = A_m⁻¹ ∘ exp(-v_m) ∘ exp(v_f) ∘ A_f: it warps the moving subject onto the fixed one. Everything is a
function of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from regkit._core.windows import gaussian_blur
from regkit.data import Split
from regkit.data.anatomy import PAIRED, STRUCTURES, Anatomy, anatomy
from regkit.fields import affine_displacement, compose, exponential, identity, move_affinely, warp
from regkit.types import Count, Dim, Displacement, Image, InputError, Labels, Pair, guard, spatial

__all__ = ["BrainPairs", "Contrast", "Motion", "Subject", "brain_source", "random_intensities", "subject"]
__all__ += ["true_displacement"]

Contrast = Literal["t1", "shared", "random", "mixed"]
Motion = Literal["small", "large"]

_SCALES = {  # standard deviation of the Gaussian and root mean square length of the velocity, both in mm
    "small": ((8.0, 1.5), (16.0, 3.5), (32.0, 4.0)),
    "large": ((8.0, 2.0), (16.0, 5.0), (32.0, 8.0)),
}

_TURN, _SHIFT, _SHRINK = math.radians(20), 8.0, (0.92, 1.2)  # largest rotation, shift in mm; how much smaller
_SHARED, _DEAL = 2**20 + 1, 2**20  # streams beyond those of the subjects
_SIZES: dict[int, tuple[int, ...]] = {2: (64, 56), 3: (64, 80, 64)}


# ---------------------------------------------------------------------------------------------- draws
def uniform(low: float, high: float, shape: Sequence[int], generator: Generator) -> Tensor:
    """Numbers of equal chance between two bounds."""
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device).cpu()


def happens(chance: float, generator: Generator) -> bool:
    """Yes with this chance; what is certain takes no number from the generator."""
    return bool(chance) if chance in (0, 1) else float(uniform(0, 1, (1,), generator)) < chance


def normal(shape: Sequence[int], like: Tensor, generator: Generator) -> Tensor:
    """White noise, drawn where the generator is and brought to `like`'s device: the same numbers on every device."""
    return torch.randn(*shape, generator=generator, device=generator.device).to(like.device)


def smooth_noise(like: Image, scale: float, channels: int, generator: Generator) -> Tensor:
    """Gaussian noise (1, channels, *space) that is smooth over `scale` voxels, of root mean square length 1.

    White noise on a coarse grid, `scale` voxels apart, spread by a Gaussian of the standard deviation `scale`.
    """
    scale = max(scale, 0.5)
    counts = [math.ceil(n / scale) + 7 for n in spatial(like)]
    noise = normal((channels, *counts), like, generator)
    for n, count in zip(spatial(like), counts, strict=True):
        distance = torch.arange(n)[:, None] / scale - (torch.arange(count) - 3)
        weights = torch.exp(-(distance**2) / 2)
        weights = (weights / weights.norm(dim=1, keepdim=True)).to(like.device)
        noise = torch.tensordot(noise, weights, ([1], [1]))  # the axes rotate
    return noise[None] / math.sqrt(channels)


# ---------------------------------------------------------------------------------------------- pictures
def random_intensities(generator: Generator) -> Tensor:
    """An intensity for each of STRUCTURES, (structures,): up to 0.9 for the brightest; left as right; 0 outside."""
    values = uniform(0.1, 1, (len(STRUCTURES) - PAIRED,), generator)
    return _for_structures(0.9 * values / values[1:].max())


def intensities_for(contrast: Contrast, generator: Generator) -> Callable[[Generator], Tensor | None]:
    """How the intensities of a subject are drawn from its generator; those that are shared come from `generator`."""
    share = {"shared": 1.0, "mixed": 0.5}.get(contrast, 0.0)
    shared = random_intensities(generator) if happens(share, generator) else None
    return random_intensities if contrast == "random" else lambda _: shared


def weighted(weights: Tensor, shares: Tensor) -> Image:
    """Σ_k w_k share_k, (1, 1, *space)."""
    return torch.tensordot(weights.to(shares.device), shares, ([0], [1]))[:, None]


def _for_structures(values: Tensor) -> Tensor:
    """Values of outside (which becomes 0), the paired and the single structures, given to every label."""
    return torch.cat([torch.zeros(1), values[1 : 1 + PAIRED].repeat_interleave(2), values[1 + PAIRED :]])


def t1_picture(image: Image, pictured: Callable[[Tensor], Image], generator: Generator) -> Image:
    """The template's own picture, each structure brighter or darker by up to 0.02, and a good scanner's faults."""
    change = _for_structures(uniform(-0.02, 0.02, (len(STRUCTURES) - PAIRED,), generator))
    image = image + pictured(change)
    return _faults(image, generator, bias=0.03, texture=0.02, noise=0.01)


def randomised_picture(image: Image, generator: Generator) -> Image:
    """Blur by a Gaussian of up to one voxel, and faults up to those of a bad scanner (as SynthMorph randomises)."""
    blur, bias, texture, noise = uniform(0, 1, (4,), generator).tolist()
    image = gaussian_blur(image, max(blur, 0.1), radius=3)
    return _faults(image, generator, bias=0.15 * bias, texture=0.1 * texture, noise=0.05 * noise)


def _faults(image: Image, generator: Generator, *, bias: float, texture: float, noise: float) -> Image:
    """A smooth bias field and a fine texture, which multiply, and noise, which is added; clamped to [0, 1]."""
    field = torch.exp(bias * smooth_noise(image, max(spatial(image)) / 3, 1, generator))
    grain = 1 + texture * smooth_noise(image, 1.0, 1, generator)
    return (image * field * grain + noise * normal(image.shape, image, generator)).clamp(0, 1)


# ---------------------------------------------------------------------------------------------- subjects and pairs
@dataclass(frozen=True)
class Subject:
    """One brain: its picture, and how it came from the template.

    image: (1, 1, *space) in [0, 1]. labels: (1, 1, *space), named by anatomy.STRUCTURES; None if not made.
    displacement: of φ_s, which pulls the template to the subject; velocity: v_s; both (1, dim, *space), voxels.
    unaffine: A_s⁻¹ as regkit.fields.affine_displacement takes it, (1, dim, dim + 1).
    """

    image: Image
    labels: Labels | None
    displacement: Displacement
    velocity: Displacement
    unaffine: Tensor


def subject(
    template: Anatomy,
    generator: Generator,
    *,
    motion: Motion = "small",
    aligned: bool = True,
    intensities: Tensor | None = None,
    labels: bool = True,
) -> Subject:
    """Deform a template and picture it, from the generator's next numbers, on the template's device.

    intensities: (structures,), as `random_intensities` draws them; None keeps the template's T1 contrast. labels=False
    makes none, in half the time; the image is the same up to rounding.

    Raises:
        ValueError: an unknown motion.
    """
    shape, spacing, like = spatial(template.labels), template.spacing[0], template.image
    velocity = torch.zeros(1, len(shape), *shape, device=like.device)
    for scale, length in _SCALES[motion]:
        velocity += length / spacing * smooth_noise(like, scale / spacing, len(shape), generator)
    velocity -= velocity.mean(tuple(range(2, velocity.dim())), keepdim=True)  # a shift is for the affine map
    affine, unaffine = (matrix.to(like.device) for matrix in _affine(len(shape), spacing, generator))
    if aligned:
        affine = unaffine = torch.eye(len(shape), len(shape) + 1, device=like.device)[None]
    displacement = compose(exponential(velocity), affine_displacement(affine, shape))
    shares = warp(template.maps, displacement) if labels else None

    def pictured(weights: Tensor) -> Image:
        """Σ_k w_k share_k: of the warped shares where they are there; else the sum is warped, one image for all."""
        if shares is not None:
            return weighted(weights, shares)
        return warp(weighted(weights, template.maps), displacement)

    if intensities is None:
        image = t1_picture(warp(template.image, displacement), pictured, generator)
    else:
        image = randomised_picture(pictured(intensities), generator)
    return Subject(image, None if shares is None else shares.argmax(1, keepdim=True), displacement, velocity, unaffine)


def true_displacement(moving: Subject, fixed: Subject) -> Displacement:
    """What warps the moving subject onto the fixed one, (1, dim, *space), voxels: φ_m⁻¹ ∘ φ_f."""
    shape = spatial(fixed.image)
    grid = identity(shape, like=fixed.image)
    undeformed = compose(exponential(-moving.velocity), fixed.displacement)
    return move_affinely(grid + undeformed, moving.unaffine, shape) - grid


class BrainPairs(Sequence[Pair]):
    """Pairs of synthetic brains, drawn once: `pairs[i]` is a Pair of batch 1, `pairs[2:6]` or `pairs[[3, 1]]` a batch.

    `count` subjects are drawn and dealt out twice, as moving and as fixed; of two or more, none meets itself. Both
    splits follow from the seed; they share no draw, so "test" holds subjects that training never sees. Each subject
    follows from its own number: more pairs are the same subjects and further ones.

    size: voxels; by default (64, 56) in 2D, the axial slice at z = 8 mm, and (64, 80, 64) in 3D. Every size shows the
    whole brain. motion: how far the shapes differ. aligned=False turns, shifts and scales each subject as well.
    contrast: "t1" is the template's, for all alike; "shared" draws one intensity for each structure, for all subjects;
    "random" draws them anew for each subject; "mixed" tosses a coin between "t1" and "shared".

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        count: Count = 256,
        *,
        dim: Dim = 2,
        size: Sequence[int] | None = None,
        motion: Motion = "small",
        aligned: bool = True,
        contrast: Contrast = "t1",
        split: Split = "train",
        seed: int = 0,
    ) -> None:
        shape = _shape(dim, size)
        self.template = anatomy(shape)
        draw = intensities_for(contrast, _generator(seed, split, _SHARED))
        self.subjects = []
        for number in range(count):
            generator = _generator(seed, split, number)
            intensities = draw(generator)
            self.subjects.append(
                subject(self.template, generator, motion=motion, aligned=aligned, intensities=intensities)
            )
        order = torch.randperm(count, generator=_generator(seed, split, _DEAL)).tolist()
        self.deal = list(zip(order, [*order[1:], order[0]], strict=True))  # who is moving, who is fixed

    def __len__(self) -> int:
        return len(self.deal)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Pair:  # type: ignore[override]
        chosen = [index] if isinstance(index, int) else range(len(self))[index] if isinstance(index, slice) else index
        moving, fixed = ([self.subjects[self.deal[i][side]] for i in chosen] for side in (0, 1))
        truth = torch.cat([true_displacement(*both) for both in zip(moving, fixed, strict=True)])
        return _pair(moving, fixed, truth, self.template.spacing)


def brain_source(
    *,
    dim: Dim = 3,
    size: Sequence[int] | None = None,
    motion: Motion = "small",
    aligned: float = True,
    contrast: Contrast = "shared",
    labels: bool = True,
    batch: Count = 1,
    device: torch.device | str = "cpu",
) -> Callable[[int, Generator], Pair]:
    """New pairs at every step of a training: `regkit.train(model, brain_source(dim=2), recipe)` never sees one twice.

    The function source(step, generator) that is returned makes a Pair of `batch` from the generator alone, on the
    device, without the true displacement, and with labels unless labels=False, which takes half the time. Arguments as
    of `BrainPairs`; "shared" draws the intensities once for the two images of each pair. aligned: also a number between
    0 and 1, the share of the pairs that are.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= aligned <= 1:
        raise InputError("aligned must be True, False or a share from 0 to 1", aligned, "0.5 is every other")
    template = anatomy(_shape(dim, size)).to(device)

    def source(step: int, generator: Generator) -> Pair:
        sides: tuple[list[Subject], list[Subject]] = [], []
        for _ in range(batch):
            draw = intensities_for(contrast, generator)
            options: dict[str, Any] = {"motion": motion, "aligned": happens(aligned, generator), "labels": labels}
            for side in sides:
                side.append(subject(template, generator, intensities=draw(generator), **options))
        return _pair(*sides, None, template.spacing)

    return source


def _pair(
    moving: Sequence[Subject], fixed: Sequence[Subject], truth: Displacement | None, spacing: tuple[float, ...]
) -> Pair:
    """Subjects side by side as one batch."""
    images = [torch.cat([one.image for one in side]) for side in (moving, fixed)]
    made = [[one.labels for one in side if one.labels is not None] for side in (moving, fixed)]
    labels = [torch.cat(side) if side else None for side in made]
    return Pair(images[0], images[1], labels[0], labels[1], truth, spacing)


def _shape(dim: Dim, size: Sequence[int] | None) -> tuple[int, ...]:
    """The size that is asked for, or the usual one."""
    shape = tuple(size or _SIZES[dim])
    if len(shape) != dim:
        raise InputError(
            f"size must be a number of voxels for each of {dim} axes", size, f"leave it out for {_SIZES[dim]}"
        )
    return shape


# ---------------------------------------------------------------------------------------------- chance
def _generator(seed: int, split: Split, number: int) -> Generator:
    """A stream of its own for each seed, split and subject."""
    if not 0 <= seed < 2**32:
        raise InputError("seed must be from 0 to 2**32 - 1", seed, "choose another number")
    stream = get_args(Split).index(split) << 21 | number
    return Generator().manual_seed((seed << 22 | stream) % 2**63)


def _affine(dim: int, spacing: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """A random rotation, scale and shift about the image's centre, (1, dim, dim + 1), voxels; and its inverse."""
    matrix = torch.eye(dim + 1, dtype=torch.float64)
    for i in range(dim):
        for j in range(i):
            angle = float(uniform(-_TURN, _TURN, (1,), generator))
            turn = torch.eye(dim + 1, dtype=torch.float64)
            turn[i, i] = turn[j, j] = math.cos(angle)
            turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
    matrix[:dim, :dim] *= uniform(*_SHRINK, (dim,), generator)
    matrix[:dim, dim] = uniform(-_SHIFT, _SHIFT, (dim,), generator) / spacing
    return tuple(m[None, :dim].float() for m in (matrix, torch.linalg.inv(matrix)))  # type: ignore[return-value]


guard(globals())
