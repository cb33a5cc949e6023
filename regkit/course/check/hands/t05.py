"""Tutorial 05 by hand: Euler's steps, scaling and squaring, the inverse by a fixed point, and the round trip."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["exponential_by_hand", "follow_by_hand", "invert_by_hand", "round_trip_by_hand"]


def _field(seed, length):
    """A field without folds, (1, 2, 6, 9), voxels."""
    return length * torch.randn(1, 2, 6, 9, generator=torch.Generator().manual_seed(seed))


@by_hand(
    "Write the two lines: the wind at the particles, and where they are after a small step.",
    praise="the wind is read anew at each place, and each step takes 1/steps of the time.",
    calls=lambda: [(_field(0, 1.0), fields.identity((6, 9)), 3)],
    mistakes={
        "at the start": (
            "fields.sample(velocity, place)",
            "velocity",
            "this is the wind at the voxels, where the particles began. Read it where they are now.",
        ),
        "whole steps": (" / steps", "", "each of these steps takes a whole unit of time. All together take one."),
        "backwards": ("place + wind", "place - wind", "this goes against the wind."),
        "no place": ("place + wind", "wind", "this is the way of one step. Add it to the place."),
        "squared": (
            "/ steps",
            "/ steps**2",
            "these steps are too short: `steps` of them have to make one unit of time.",
        ),
    },
    otherwise="the wind is fields.sample(velocity, place); a step adds wind / steps to the place.",
)
def follow_by_hand(velocity, place, steps):
    """Where the wind carries particles in one unit of time. velocity, place: (1, 2, H, W), voxels."""
    for _ in range(steps):
        wind = fields.sample(velocity, place)
        place = place + wind / steps
    return place


@by_hand(
    "Write the two lines: the displacement of one small step, and the squaring.",
    praise="K compositions make 2^K small steps.",
    calls=lambda: [(_field(1, 1.0), 3)],
    mistakes={
        "not scaled": (" / 2**squarings", "", "2^K steps of the whole velocity go 2^K times too far: divide it first."),
        "scaled by K": ("2**squarings", "squarings", "K squarings make 2^K steps, not K: divide by 2^K."),
        "doubled": ("fields.compose(u, u)", "u + u", "displacements do not add: the second is wanted where u leads."),
        "with the velocity": (
            "fields.compose(u, u)",
            "fields.compose(u, velocity)",
            "u is composed with the velocity. A squaring composes u with itself.",
        ),
        "one step more": (
            "fields.compose(u, u)",
            "fields.compose(u, velocity / 2**squarings)",
            "this adds one small step each time. A squaring composes u with itself, and doubles the steps.",
        ),
        "undone": ("fields.compose(u, u)", "fields.compose(u, -u)", "there and back: compose u with itself."),
    },
    otherwise="the first displacement is velocity / 2**squarings; each squaring is fields.compose(u, u).",
)
def exponential_by_hand(velocity, squarings=7):
    """The displacement after one unit of time, (1, 2, H, W), voxels."""
    u = velocity / 2**squarings
    for _ in range(squarings):
        u = fields.compose(u, u)
    return u


@by_hand(
    "Write the two lines: a first guess of z, and a better one.",
    praise="guess, look where the guess leads, and take the arrow there, turned around.",
    calls=lambda: [(_field(2, 0.15), 40)],
    mistakes={
        "under the feet": (
            "-fields.warp(u, z)",
            "-u",
            "this is -u again: the arrow under your feet. u is to be read at x + z(x).",
        ),
        "no minus": ("-fields.warp(u, z)", "fields.warp(u, z)", "this follows the arrow. The way back is against it."),
        "read at x - z": ("warp(u, z)", "warp(u, -z)", "this reads u at x - z(x). Read it at x + z(x)."),
        "z read": ("warp(u, z)", "warp(z, u)", "this reads z where u leads. u is to be read where z leads."),
        "added": ("z = -fields", "z = z - fields", "the new z replaces the old one. It is not added to it."),
    },
    otherwise="begin with zeros, or with -u. The equation z(x) = -u(x + z(x)) gives the better guess from the old one; "
    "fields.warp(u, z) reads u at x + z(x).",
)
def invert_by_hand(u, iterations=50):
    """z with z(x) = -u(x + z(x)): the displacement of the inverse. u, z: (1, 2, H, W), voxels."""
    z = -u
    for _ in range(iterations):
        z = -fields.warp(u, z)
    return z


@by_hand(
    "Write the two lines: the displacement of ψ and then φ, and its length.",
    praise="zero at each voxel that comes home.",
    calls=lambda: [(_field(3, 1.0), _field(4, 1.0))],
    mistakes={
        "other order": ("compose(u, z)", "compose(z, u)", "here φ goes first, and ψ second. ψ has to go first."),
        "added": (
            "fields.compose(u, z)",
            "u + z",
            "u is read at x here. It is wanted where z has led: displacements do not add, they compose.",
        ),
        "one way": (
            "fields.compose(u, z)",
            "fields.warp(u, z)",
            "this is the way back alone: the way there, z, is missing.",
        ),
        "one number": (
            "norm(dim=1)",
            "norm()",
            "this is one number for the image. One length for each voxel is wanted.",
        ),
        "summed": (".norm(dim=1)", ".abs().sum(dim=1)", "the length of (3, 4) is 5, not 7."),
        "not measured": (".norm(dim=1)", "", "this is the arrow from home. Its length is wanted, one number a voxel."),
    },
    otherwise="fields.compose(u, z)(x) = z(x) + u(x + z(x)); dimension 1 has the two components of each arrow.",
)
def round_trip_by_hand(u, z):
    """|φ(ψ(x)) - x|, voxels, (1, H, W): ψ(x) = x + z(x) goes first, then φ(x) = x + u(x). u, z: (1, 2, H, W)."""
    error = fields.compose(u, z)
    return error.norm(dim=1)
