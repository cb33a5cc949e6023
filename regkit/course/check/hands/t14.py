"""Tutorial 14 by hand: intensities, a field for ITK and back, a landmark in mm, and what another program is asked."""

import numpy as np
from nibabel.affines import apply_affine

from regkit.course.check.hands import by_hand

__all__ = ["ask_in_lps", "from_lps_by_hand", "landmark_by_hand", "to_lps_by_hand", "windowed"]

LPS = np.diag([-1, -1, 1, 1])
_AFFINE = np.array([[-2.0, 0.2, 0.0, 90.0], [0.0, 1.5, 0.3, -40.0], [0.1, 0.0, 3.0, 12.0], [0.0, 0.0, 0.0, 1.0]])


def _random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@by_hand(lambda: [(300 + 100 * _random(0, 6, 7, 8),), (_random(1, 5, 6, 9) ** 2,)])
def windowed(values):
    """Intensities from 0 to 1: 0 at the least one, 1 at the 99.5th percentile and above. values: an array."""
    low, high = np.percentile(values, (0, 99.5))
    scaled = (values - low) / (high - low)
    return np.clip(scaled, 0, 1)


def to_lps(u, affine):
    """u (3, i, j, k), voxels, as vectors (i, j, k, 3): mm along the body, LPS."""
    ras = np.einsum("xa,aijk->ijkx", affine[:3, :3], u)
    return ras * [-1, -1, 1]


to_lps_by_hand = by_hand(lambda: [(_random(2, 3, 2, 3, 4), _AFFINE)])(to_lps)


def from_lps(vectors, affine):
    """The way back: vectors (i, j, k, 3), mm along the body, LPS, as u (3, i, j, k), voxels."""
    ras = vectors * [-1, -1, 1]
    return np.einsum("ax,ijkx->aijk", np.linalg.inv(affine[:3, :3]), ras)


from_lps_by_hand = by_hand(lambda: [(_random(3, 2, 3, 4, 3), _AFFINE)])(from_lps)


@by_hand(lambda: [(lambda voxel: voxel[::-1] / 4 + [1.0, -2.0, 0.5], _AFFINE, _random(4, 3))])
def landmark_by_hand(arrow_at, affine, point):
    """Where a landmark of the fixed scan lies in the moving one, mm, RAS. arrow_at(voxel): u there, (3,)."""
    voxel = apply_affine(np.linalg.inv(affine), point)
    end = voxel + arrow_at(voxel)
    return apply_affine(affine, end)


@by_hand(lambda: [(lambda points: 0.9 * points[:, ::-1] + 3, _AFFINE, _random(5, 4, 3))])
def ask_in_lps(program, affine, places):
    """Where a program reads for places (N, 3) in voxels, in voxels again. program: carries points (N, 3), mm, LPS."""
    points = apply_affine(LPS @ affine, places)
    moved = program(points)
    return apply_affine(np.linalg.inv(LPS @ affine), moved)
