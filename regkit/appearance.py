"""How a synthetic subject looks: intensities of its structures, and the faults of a scanner.

Everything is drawn from a generator, on the CPU or where it is, and brought to the image's device: the same numbers on
every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from regkit.anatomy import PAIRED, STRUCTURES
from regkit.types import Image, spatial
from regkit.windows import gaussian_blur

Contrast = Literal["t1", "shared", "random", "mixed"]


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
