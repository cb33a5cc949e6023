"""Images to register that need no download: triangles and circles, tetrahedra and balls, and their smooth deformations.

Everything is a function of its seed: numpy's RandomState draws the same numbers on every machine, and no global random
state is read or changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from regkit.fields import exponential, warp, warp_labels
from regkit.types import Count, Dim, Displacement, Image, InputError, Labels, Pair, guard

__all__ = ["Seed", "ShapePairs", "Shapes", "Split", "grid_shape", "random_state", "shapes", "smooth_displacement"]
__all__ += ["synthetic_pair"]

Seed = int | Sequence[int]
Split = Literal["train", "test"]
_EDGE = 40.0  # slope of tanh at a shape's border, per unit of the image's extent
_TINY = 1e-12


@dataclass(frozen=True)
class Shapes:
    """Drawn shapes.

    images: (N, 1, *space) in [0, 1]. Filled: 1 inside, 0 outside. Hollow: 1 on the outline, 0 elsewhere.
    labels: (N, 1, *space) integers, 1 inside the outline, filled or hollow.
    pointed: (N,) booleans, True for a triangle (3D: tetrahedron), False for a circle (3D: ball).
    """

    images: Image
    labels: Labels
    pointed: Tensor


def shapes(
    count: Count, *, dim: Dim = 2, size: int | Sequence[int] = 64, hollow: bool = False, seed: Seed = 0
) -> Shapes:
    """Draw triangles and circles (3D: tetrahedra and balls) at random places, sizes and orientations.

    With U uniform on [0, 1): centre 0.4 + 0.3 U on each axis, radius r = 0.2 + 0.2 U, an angle 2π U for each plane of
    axes, pointed if U > 0.5, in this order and one array each, on a grid that runs from 0 to 1 along every axis (so an
    oblong grid stretches the shapes). With p the offset from the centre, n_k the dim + 1 unit normals of the faces:
        distance: |p| - r (round), |p| - (r / dim) |p| / max_k n_k·p (pointed)
        filled: (1 + tanh(-40 distance)) / 2; hollow: 1 - tanh²(40 distance)

    Raises:
        ValueError: count, dim, size or seed is out of range.
    Source: the triangles and circles of Tian et al. 2023 (GradICON), whose filled images are 2 filled - 1 and whose
    2D draws these are for the same seed; tetrahedra and balls are the same formulas in 3D, an addition.
    """
    shape = grid_shape(size, dim)
    random = random_state(seed)
    centres = 0.4 + 0.3 * random.random_sample((dim, count))
    radii = 0.2 + 0.2 * random.random_sample(count)
    angles = 2 * np.pi * random.random_sample((dim * (dim - 1) // 2, count))
    pointed = random.random_sample(count) > 0.5
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij", sparse=True)
    images, labels = torch.empty(count, 1, *shape), torch.empty(count, 1, *shape, dtype=torch.long)
    for i in range(count):
        offset = [axis - centre for axis, centre in zip(axes, centres[:, i], strict=True)]
        distance = _distance(offset, radii[i], _normals(angles[:, i], dim) if pointed[i] else None)
        edge = np.tanh(-_EDGE * distance)
        images[i, 0] = torch.from_numpy(1 - edge**2 if hollow else (1 + edge) / 2)
        labels[i, 0] = torch.from_numpy(distance < 0)
    return Shapes(images, labels, torch.from_numpy(pointed))


def _distance(offset: list[np.ndarray], radius: float, normals: np.ndarray | None) -> np.ndarray:
    """How far outside its outline a point lies, measured along the ray from the centre; negative inside."""
    length = np.sqrt(sum(component**2 for component in offset))
    if normals is None:
        return length - radius
    dim = len(offset)
    reach = [sum(n * component for n, component in zip(normal, offset, strict=True)) for normal in normals]
    stretch = np.maximum(length, _TINY) / np.maximum(np.max(reach, axis=0), _TINY)  # in [1, dim]
    return length - radius / dim * stretch


def _normals(angles: np.ndarray, dim: int) -> np.ndarray:
    """The unit normals (dim + 1, dim) of a regular simplex, turned by one angle in each plane of two axes."""
    normals = np.array([[1.0], [-1.0]])
    for d in range(2, dim + 1):  # raise the simplex of one dimension less, and close it with a face below
        raised = np.pad(np.sqrt(1 - 1 / d**2) * normals, ((0, 0), (0, 1)), constant_values=1 / d)
        normals = np.vstack([raised, -np.eye(d)[-1]])
    planes = [(i, j) for j in range(dim) for i in range(j)]
    for (i, j), angle in zip(planes, angles, strict=True):
        turn = np.eye(dim)
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        normals = normals @ turn.T
    return normals


class ShapePairs(Sequence[Pair]):
    """Pairs of shapes, drawn once: `pairs[i]` is a Pair of batch 1, `pairs[2:6]` or `pairs[[3, 1]]` one of several.

    `count` shapes are drawn and dealt out twice, as moving and as fixed; kinds mix freely, and a shape can meet itself.
    Both splits follow from the seed; they share no draw, so "test" holds shapes that training never sees.

    Raises:
        ValueError: as `shapes`, or an unknown split.
    """

    def __init__(
        self,
        count: Count = 1024,
        *,
        dim: Dim = 2,
        size: int | Sequence[int] = 64,
        hollow: bool = False,
        split: Split = "train",
        seed: int = 0,
    ) -> None:
        stream = (seed, get_args(Split).index(split))
        self.shapes = shapes(count, dim=dim, size=size, hollow=hollow, seed=(*stream, 0))
        random = random_state((*stream, 1))
        self.moving, self.fixed = (torch.from_numpy(random.permutation(count)) for _ in range(2))

    def __len__(self) -> int:
        return len(self.moving)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Pair:  # type: ignore[override]
        moving, fixed = self.moving[index].reshape(-1), self.fixed[index].reshape(-1)
        images, labels = self.shapes.images, self.shapes.labels
        return Pair(images[moving], images[fixed], labels[moving], labels[fixed])


def smooth_displacement(
    shape: Sequence[int], *, amplitude: float, smoothness: float, seed: Seed = 0, diffeomorphic: bool = True
) -> Displacement:
    """A random smooth displacement (1, dim, *shape), voxels: white noise under a Gaussian, scaled to a given length.

    amplitude: length of the longest vector, voxels. smoothness: standard deviation of the Gaussian, voxels.
    diffeomorphic=True takes the smoothed noise as a velocity and returns its exponential, which does not fold and moves
    no voxel further than `amplitude`; False returns the smoothed noise, which folds where it is steep.

    Raises:
        ValueError: shape, amplitude, smoothness or seed is out of range.
    """
    shape = grid_shape(shape, len(shape))
    if not (0 <= amplitude < np.inf and 0 <= smoothness < np.inf):
        raise InputError(
            "amplitude and smoothness must be finite numbers of voxels, 0 or more",
            f"{amplitude} and {smoothness}",
            "a tenth of the image's size is usual for both",
        )
    random = random_state(seed)
    noise = [gaussian_filter(random.standard_normal(shape), smoothness, mode="nearest") for _ in shape]
    longest = np.sqrt(sum(component**2 for component in noise)).max()
    field = torch.from_numpy(np.stack(noise) * (amplitude / longest)).float()[None]
    return exponential(field) if diffeomorphic else field


def synthetic_pair(dim: Dim = 2, seed: int = 0, *, size: int | Sequence[int] = 64, motion: float = 0.1) -> Pair:
    """Three filled shapes, one above the other, and the same deformed smoothly: a Pair whose answer is known.

    moving, fixed: (1, 1, *space) in [0, 1]; labels 1 to 3, the largest shape lowest; spacing 1 mm.
    displacement: the truth: `warp(moving, displacement)` is fixed, and `warp_labels` gives the fixed labels.
    motion: length of the longest vector of the velocity, as a fraction of the shortest axis.

    Raises:
        ValueError: dim, size, motion or seed is out of range.
    """
    shape = grid_shape(size, dim)
    drawn = shapes(3, dim=dim, size=shape, seed=(seed, 0))
    moving, labels = torch.zeros(1, 1, *shape), torch.zeros(1, 1, *shape, dtype=torch.long)
    lowest_first = drawn.labels.flatten(1).sum(1).argsort(descending=True).tolist()
    for value, i in enumerate(lowest_first, start=1):
        moving = torch.lerp(moving, torch.tensor(value / 3), drawn.images[i : i + 1])
        labels = torch.where(drawn.labels[i : i + 1] > 0, value, labels)
    shortest = min(shape)
    displacement = smooth_displacement(shape, amplitude=motion * shortest, smoothness=shortest / 8, seed=(seed, 1))
    return Pair(moving, warp(moving, displacement), labels, warp_labels(labels, displacement), displacement)


def grid_shape(size: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """`size` as one positive number of voxels for each of two or three axes."""
    if dim not in get_args(Dim):
        raise InputError("dim must be 2 or 3", dim, "volumes have three axes, slices two")
    shape = (size,) * dim if isinstance(size, int) else tuple(size)
    if len(shape) != dim or min(shape) < 1:
        raise InputError(f"size must be a positive number of voxels for each of {dim} axes", size, f"give {dim}")
    return shape


def random_state(seed: Seed) -> np.random.RandomState:
    """A generator of its own for a seed, or for a seed and the numbers of a stream."""
    numbers = [seed] if isinstance(seed, int) else list(seed)
    if not all(0 <= number < 2**32 for number in numbers):
        raise InputError("seed must be from 0 to 2**32 - 1", seed, "choose another number")
    return np.random.RandomState(seed if isinstance(seed, int) else numbers)


guard(globals())
