"""Tutorial 05 by hand: Euler's steps, scaling and squaring, the inverse by a fixed point, and the round trip."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["exponential_by_hand", "follow_by_hand", "invert_by_hand", "round_trip_by_hand"]


def _field(seed, length):
    """A field without folds, (1, 2, 6, 9), voxels."""
    return length * torch.randn(1, 2, 6, 9, generator=torch.Generator().manual_seed(seed))


@by_hand(lambda: [(_field(0, 1.0), fields.identity((6, 9)), 3)])
def follow_by_hand(velocity, place, steps):
    """Where the wind carries particles in one unit of time. velocity, place: (1, 2, H, W), voxels."""
    for _ in range(steps):
        wind = fields.sample(velocity, place)
        place = place + wind / steps
    return place


@by_hand(lambda: [(_field(1, 1.0), 3)])
def exponential_by_hand(velocity, squarings=7):
    """The displacement after one unit of time, (1, 2, H, W), voxels."""
    u = velocity / 2**squarings
    for _ in range(squarings):
        u = fields.compose(u, u)
    return u


@by_hand(lambda: [(_field(2, 0.15), 40)])
def invert_by_hand(u, iterations=50):
    """z with z(x) = -u(x + z(x)): the displacement of the inverse. u, z: (1, 2, H, W), voxels."""
    z = -u
    for _ in range(iterations):
        z = -fields.warp(u, z)
    return z


@by_hand(lambda: [(_field(3, 1.0), _field(4, 1.0))])
def round_trip_by_hand(u, z):
    """|φ(ψ(x)) - x|, voxels, (1, H, W): ψ(x) = x + z(x) goes first, then φ(x) = x + u(x). u, z: (1, 2, H, W)."""
    error = fields.compose(u, z)
    return error.norm(dim=1)
