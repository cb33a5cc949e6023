"""Vessel trees to register, in two dimensions, with deformations that are known: thin lines, in place of retinas.

A tree grows from a disc near the border of a round field of view. Lengths in `grow_tree` are in radii of that field.
Everything is a function of its seed, as in regkit.data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from regkit import types
from regkit.data import Seed, Split, grid_shape, random_state
from regkit.fields import compose, exponential, identity, sample, warp, warp_labels
from regkit.types import Count, Displacement, Image, InputError, Labels, Pair, guard

_FIELD = 0.48  # radius of the field of view, as a fraction of the shortest axis
_TRUNKS, _WIDEST, _NARROWEST = 4, 0.05, 0.016  # vessels that leave the disc; radii at the root and where growth ends
_STEP, _BEND = 0.05, 0.12  # of a centre line: length, and standard deviation of the turn (radians)
_LENGTH = 8.0  # mean length of a branch, in its own radii
_THINNEST = 0.7  # voxels: what is thinner is drawn this wide, so that no line falls between two voxels
_COARSE, _FINE, _FINER = 3, 6, 0.48  # control points of two deformations along an axis; the second's share of motion


@dataclass(frozen=True)
class Branch:
    """A piece of a vessel between two branchings.

    centre: (N, 2) its centre line, in radii of the field of view, whose centre is (0, 0). radius: in the same unit.
    parent: the index of the branch that it leaves; -1 for a trunk.
    """

    centre: np.ndarray
    radius: float
    parent: int


def grow_tree(seed: Seed = 0) -> tuple[Branch, ...]:
    """The branches of a random tree, parents before their children.

    Four trunks leave the disc. Each vessel wanders, then parts in two that share its flow: r_0³ = r_1³ + r_2³, with
    r_1³ from 0.2 to 0.8 of r_0³, at the angles of least work, each times a factor from 0.7 to 1.5:
        cos θ_1 = (r_0⁴ + r_1⁴ - r_2⁴) / (2 r_0² r_1²), and θ_2 likewise on the other side
    Growth ends where a vessel is too thin or leaves the field of view.

    Raises:
        ValueError: seed is out of range.
    Source: Murray 1926, the law of radii and of angles.
    """
    random = random_state(seed)
    side = random.uniform(0, 2 * np.pi)
    disc = random.uniform(0.4, 0.7) * np.array([np.cos(side), np.sin(side)])
    inward = side + np.pi + random.uniform(-0.3, 0.3)
    fan = inward + np.array([-1.7, -0.6, 0.6, 1.7]) + random.uniform(-0.3, 0.3, _TRUNKS)
    tips = [(disc, angle, _WIDEST * random.uniform(0.7, 1), -1) for angle in fan]
    tree: list[Branch] = []
    while tips:
        start, angle, radius, parent = tips.pop(0)
        centre, angle = _wander(start, angle, radius, random)
        tree.append(Branch(centre, radius, parent))
        share = random.uniform(0.2, 0.8)
        for child, turn in zip(*_part(radius, share, random), strict=True):
            if child > _NARROWEST and np.linalg.norm(centre[-1]) < 1:
                tips.append((centre[-1], angle + turn, child, len(tree) - 1))
    return tuple(tree)


def _wander(start: np.ndarray, angle: float, radius: float, random: np.random.RandomState) -> tuple[np.ndarray, float]:
    """A centre line (N, 2) from `start`, whose direction drifts, and the direction at its end."""
    steps = max(2, round(_LENGTH * radius * random.uniform(0.6, 1.6) / _STEP))
    angles = angle + np.cumsum(random.normal(0, _BEND, steps))
    line = start + _STEP * np.cumsum(np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0)
    return np.vstack([start, line]), angles[-1]


def _part(radius: float, share: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Radii and turns (radians, left and right) of the two vessels that a vessel parts into."""
    children = radius * np.cbrt([share, 1 - share])
    fourth = children**4
    cosine = (radius**4 + fourth - fourth[::-1]) / (2 * radius**2 * children**2)
    turns = np.arccos(np.clip(cosine, -1, 1)) * random.uniform(0.7, 1.5, 2)
    return children, turns * random.permutation([-1, 1])


def draw_tree(tree: Sequence[Branch], size: int | Sequence[int] = 64) -> tuple[Image, Labels]:
    """An image (1, 1, *space) in [0, 1] of a tree in its round field of view, and its vessels (1, 1, *space) as 1.

    With d the distance to a centre line and r the vessel's radius, both in voxels, r at least 0.7: 2^(-(d/r)²), one on
    the centre line and one half at the wall; the largest of all branches; 0 outside the field. The labels are d < r.

    Raises:
        ValueError: size is out of range.
    """
    shape = grid_shape(size, 2)
    radius = _FIELD * min(shape)
    centre = (np.array(shape) - 1) / 2
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 2) - centre
    nearest = np.full(len(voxels), np.inf)  # (d/r)² of the nearest vessel, measured in its own radii
    for branch in tree:
        line = branch.centre * radius
        distance = _squared_distance(voxels, line[:-1], line[1:])
        nearest = np.minimum(nearest, distance / max(branch.radius * radius, _THINNEST) ** 2)
    edge = np.clip(radius - np.linalg.norm(voxels, axis=1) + 0.5, 0, 1)  # an anti-aliased disc
    image, labels = edge * np.exp2(-nearest), (nearest < 1) & (edge >= 0.5)
    return torch.from_numpy(image).float().view(1, 1, *shape), torch.from_numpy(labels).long().view(1, 1, *shape)


def _squared_distance(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Squared distance (N,) of points (N, 2) from the nearest of the straight pieces that run from starts to ends."""
    along = ends - starts
    offset = points[:, None] - starts  # (N, pieces, 2)
    place = np.clip((offset * along).sum(-1) / (along**2).sum(-1), 0, 1)
    return ((offset - place[..., None] * along) ** 2).sum(-1).min(1)


def field_of_view(size: int | Sequence[int]) -> Tensor:
    """The round field of view of `draw_tree`, (1, 1, *space) booleans.

    Raises:
        ValueError: size is out of range.
    """
    shape = grid_shape(size, 2)
    centre = (torch.tensor(shape).float() - 1).view(1, 2, 1, 1) / 2
    return (identity(shape) - centre).norm(dim=1, keepdim=True) <= _FIELD * min(shape)


def random_deformation(size: int | Sequence[int], *, motion: float, count: int = 1, seed: Seed = 0) -> Displacement:
    """Smooth diffeomorphisms (count, 2, *space), voxels: a coarse deformation, then a finer one of half its length.

    Each is the exponential of a velocity that interpolates Gaussian numbers at 3 x 3, then 6 x 6 control points by
    cubic splines. motion: standard deviation of the first, as a fraction of the shortest axis; the second's is 0.48 of
    it.

    Raises:
        ValueError: size, motion, count or seed is out of range.
    Source: the random elastic deformations of GradICON's study of retinal vessels (Tian et al. 2023), whose standard
    deviations are 25 and 12 of 565 pixels (motion 0.044). There the spline is the displacement, here the velocity: it
    cannot fold.
    """
    shape = grid_shape(size, 2)
    if not 0 <= motion < np.inf or count < 1:
        raise InputError(
            "motion must be a finite fraction of the image, 0 or more, and count at least 1",
            f"{motion} and {count}",
            "0.044 is the published motion",
        )
    random = random_state(seed)
    coarse, fine = (
        exponential(_splines(random.standard_normal((count, 2, points, points)) * length * min(shape), shape))
        for points, length in ((_COARSE, motion), (_FINE, _FINER * motion))
    )
    return compose(coarse, fine)


def _splines(values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Cubic splines (..., *shape) through values (..., n, n) at control points from corner to corner."""
    points = np.linspace(0, 1, values.shape[-1])
    rows, columns = (CubicSpline(points, np.eye(len(points)), bc_type="natural")(np.linspace(0, 1, n)) for n in shape)
    return torch.from_numpy(rows @ values @ columns.T).float()


class VesselPairs(Sequence[Pair]):
    """Trees and their deformations: `pairs[i]` is a Pair of batch 1, `pairs[2:6]` or `pairs[[3, 1]]` one of several.

    moving: pair i shows tree i % trees. displacement: the truth, another one for each pair: `warp(moving,
    displacement)` is fixed, `warp_labels` gives the fixed labels, and no truth folds. motion: as `random_deformation`.
    Both splits follow from the seed; they share no draw, so "test" holds trees that training never sees.

    Raises:
        ValueError: count, trees, size, motion or seed is out of range, or an unknown split.
    """

    def __init__(
        self,
        count: Count = 500,
        *,
        size: int | Sequence[int] = 64,
        motion: float = 0.044,
        trees: Count = 30,
        split: Split = "train",
        seed: int = 0,
    ) -> None:
        stream = (seed, get_args(Split).index(split))
        self.displacement = random_deformation(size, motion=motion, count=count, seed=(*stream, 0))
        drawn = [draw_tree(grow_tree((*stream, 1, tree)), size) for tree in range(min(trees, count))]
        self.images, self.labels = (torch.cat(list(parts)) for parts in zip(*drawn, strict=True))

    def __len__(self) -> int:
        return len(self.displacement)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Pair:  # type: ignore[override]
        pairs = torch.arange(len(self))[index].reshape(-1)
        moving, labels = (drawn[pairs % len(drawn)] for drawn in (self.images, self.labels))
        truth = self.displacement[pairs]
        return Pair(moving, warp(moving, truth), labels, warp_labels(labels, truth), truth)


def deformation_error(displacement: Displacement, pair: Pair) -> Tensor:
    """Mean length (B,), voxels, of displacement - truth where both images show something: in both fields of view.

    A place counts that lies in the fixed image's field, and which the truth carries into the moving image's.

    Raises:
        ValueError: the pair has no true displacement, or another grid.
    Source: the deformation error of Tian et al. 2023, Fig. 4, where it is in fractions of the image.
    """
    if pair.displacement is None:
        raise InputError("pair must carry its true displacement", "None", "take one of VesselPairs")
    types.check_same_grid(displacement, pair.displacement, ("displacement", "the pair's displacement"))
    shape = displacement.shape[2:]
    seen = field_of_view(shape).to(displacement.device)
    landed = sample(seen.float(), identity(shape, like=pair.displacement) + pair.displacement, padding="zeros")
    counted = seen & (landed > 0.5)
    length = (displacement - pair.displacement).norm(dim=1, keepdim=True)
    return (length * counted).flatten(1).sum(1) / counted.flatten(1).sum(1)


guard(globals())
