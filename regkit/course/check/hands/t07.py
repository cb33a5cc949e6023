"""Tutorial 07 by hand: ICON and GradICON on a line, the price of a fold, a chain of maps, and equation 7."""

import math

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["blend_scales", "go_through_a_chain", "gradicon_on_a_line", "icon_on_a_line", "prices_of_a_fold"]


def _maps_of_a_line():
    places = torch.linspace(0.05, 0.95, 40, dtype=torch.float64)
    return [(lambda x: x + 0.1 * torch.sin(7 * x), lambda x: 0.9 * x + 0.04 * x**2, places)]


@by_hand(_maps_of_a_line)
def icon_on_a_line(there, back, x):
    """The mean squared distance from home. there, back: functions of places; x: places, (N,)."""
    home = there(back(x))
    return ((home - x) ** 2).mean()


@by_hand(_maps_of_a_line)
def gradicon_on_a_line(there, back, x, step=1e-6):
    """The mean squared difference of the round trip's slope from 1. there, back: functions of places; x: (N,)."""
    home = there(back(x))
    neighbour = there(back(x + step))
    slope = (neighbour - home) / step
    return ((slope - 1) ** 2).mean()


@by_hand(lambda: [(1,), (5,)])
def prices_of_a_fold(k):
    """a, the largest amplitude of a sin(2πkx) that does not fold, and its price under ICON and under GradICON."""
    a = 1 / (2 * math.pi * k)
    icon = a**2 / 2
    gradicon = (2 * math.pi * k * a) ** 2 / 2
    return a, icon, gradicon


def go(chain, place, size=32):
    """Where each place on B's grid is fetched from in A. chain: displacements, coarse to fine; place: (B, 2, H, W)."""
    for field in reversed(chain):
        ratio = (field.shape[2] - 1) / (size - 1)  # corners are shared by all grids
        arrow = fields.sample(field, place * ratio)
        place = place + arrow / ratio
    return place


def _chain():
    draw = torch.Generator().manual_seed(0)
    chain = [0.6 * torch.randn(1, 2, size, size, generator=draw) for size in (3, 5, 9)]
    return [(chain, fields.identity((9, 9)), 9)]


go_through_a_chain = by_hand(_chain)(go)


@by_hand(lambda: [(torch.tensor(s, requires_grad=True),) for s in ([0.7, 0.2, 0.5, 0.3], [0.9, 1.4, 0.6], [0.4, 0.25])])
def blend_scales(s):
    """g of the coarsest scale (equation 7). s: dissimilarities of the scales, from full size to the coarsest."""
    g = s[0]
    for dissimilarity in s[1:]:
        gamma = dissimilarity.detach().clamp(0, 1)
        g = gamma * dissimilarity + (1 - gamma) * g
    return g
