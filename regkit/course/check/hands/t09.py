"""Tutorial 09 by hand: a limited step, a symmetric update, half-way maps, the update network, and three laws."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand
from regkit.models import sitreg
from regkit.types import Registration

__all__ = ["limited_step", "meet_by_hand", "three_laws", "update_by_hand", "update_network"]


def _maps(seed, count, length=0.4):
    """Displacements (1, 2, 9, 9) without folds."""
    return (length * torch.randn(count, 1, 2, 9, 9, generator=torch.Generator().manual_seed(seed))).unbind()


@by_hand(lambda: [(8 * control, 4, (36, 36)) for control in _maps(0, 1)])
def limited_step(raw, spacing, size):
    """A step that cannot fold, (B, 2, *size), voxels. raw: what a network says, (B, 2, h, w), of any size."""
    limit = 0.99 * sitreg.control_bound(spacing, 2)
    control = limit * torch.tanh(raw)
    return sitreg.upsample_controls(control, size, spacing)


def _a_step():
    a, b = _maps(1, 2)
    return [(lambda a, b: a - 0.3 * b**2, lambda u: -fields.warp(u, -0.9 * u), a, b)]


@by_hand(_a_step)
def update_by_hand(step, invert, a, b):
    """U(a, b) = u(a, b) ∘ u(b, a)⁻¹. step: the function u of two images; invert: gives a displacement's inverse."""
    there = step(a, b)
    back = step(b, a)
    return fields.compose(there, invert(back))


@by_hand(lambda: [_maps(2, 7)])
def meet_by_hand(L, R, R_inverse, v_ab, v_ba, i_ab, i_ba):
    """L, R and R⁻¹ after one more level. v_ab, v_ba: its steps; i_ab, i_ba: their inverses; (1, 2, H, W), voxels."""
    L = sitreg.composed(L, v_ab, i_ba)
    R = sitreg.composed(R, v_ba, i_ab)
    R_inverse = sitreg.composed(v_ab, i_ba, R_inverse)
    return L, R, R_inverse


@by_hand(lambda: [(Registration(*_maps(3, 2)), Registration(*_maps(4, 2)))])
def three_laws(there, back):
    """How far two answers are apart, how far a round trip ends from home (mean lengths, voxels), and the least |J|.

    there: the registration of (A, B); back: that of (B, A).
    """
    apart = there.displacement - back.inverse
    home = fields.compose(there.displacement, there.inverse)
    least = fields.jacobian_determinant(there.displacement).min()
    return apart.norm(dim=1).mean(), home.norm(dim=1).mean(), least


class _Update(torch.nn.Module):
    """Two layers that see difference and sum."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.first, self.second = (torch.nn.Parameter(torch.randn(2, 4, generator=draw)) for _ in range(2))
        self.largest = 0.4

    def block(self, features):
        return torch.einsum("oc,bchw->bohw", self.first, features)

    def head(self, features):
        return torch.einsum("oc,bohw->bohw", self.second, features)


@by_hand(lambda: [(_Update().requires_grad_(False), *_maps(6, 2))])
def update_network(update, z_a, z_b):
    """The control values of a level, (1, 2, h, w). z_a, z_b: features of both images, (1, C, h, w)."""
    both = torch.cat([z_a - z_b, z_a + z_b], 1)
    hidden = update.block(both)
    return update.largest * torch.tanh(update.head(hidden))
