"""Similarity landscapes: a loss as a function of how the moving image is shifted and turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import cos, radians, sin

import torch
from torch import Tensor

from regkit.fields import affine_displacement, warp
from regkit.losses import adaptive_ncc, lncc, mse, ncc
from regkit.types import Displacement, Image, spatial

Similarity = Callable[[Image, Image], Tensor]
SIMILARITIES: Mapping[str, Similarity] = {"MSE": mse, "NCC": ncc, "LNCC": lncc, "adaptive NCC": adaptive_ncc}


def rigid_displacement(shape: Sequence[int], *, degrees: float = 0.0, right: float = 0.0) -> Displacement:
    """A turn about the middle of a 2D image, and a shift along axis 1: (1, 2, *shape), voxels.

    φ(x) = R (x - c) + c + (0, right). Pulled, so the content turns and shifts the other way.
    """
    c, s = cos(radians(degrees)), sin(radians(degrees))
    return affine_displacement(torch.tensor([[[c, -s, 0.0], [s, c, float(right)]]]), shape)


def sweep(
    moving: Image,
    fixed: Image,
    *,
    degrees: Sequence[float] = (0.0,),
    right: Sequence[float] = (0.0,),
    similarities: Mapping[str, Similarity] = SIMILARITIES,
) -> dict[str, list[float]]:
    """Each loss of moving, turned and shifted, against fixed: a list over `degrees`, and for each over `right`."""
    curves: dict[str, list[float]] = {name: [] for name in similarities}
    with torch.no_grad():
        for angle in degrees:
            for shift in right:
                moved = warp(moving, rigid_displacement(spatial(moving), degrees=angle, right=shift))
                for name, loss in similarities.items():
                    curves[name].append(float(loss(moved, fixed)))
    return curves


def capture_range(
    places: Sequence[float], values: Sequence[float], *, truth: float = 0.0, tolerance: float = 1.0
) -> tuple[float, float]:
    """From where walking downhill ends at the truth: (lowest, highest place); (truth, truth) if it is no minimum there.

    places: rising. values: the loss at each. The minimum may lie up to `tolerance` from the truth.
    """
    bottom = min(range(len(places)), key=lambda i: abs(places[i] - truth))
    while True:
        around = range(max(bottom - 1, 0), min(bottom + 2, len(places)))
        lowest = min(around, key=lambda i: values[i])
        if values[lowest] >= values[bottom]:
            break
        bottom = lowest
    if abs(places[bottom] - truth) > tolerance:
        return truth, truth
    low = high = bottom
    while low > 0 and values[low - 1] > values[low]:
        low -= 1
    while high < len(places) - 1 and values[high + 1] > values[high]:
        high += 1
    return places[low], places[high]
