"""Tutorial 04 by hand: steps of descent, the roughness, the map of affine and field, and |J|."""

import torch

from regkit import fields
from regkit.course.check.hands import by_hand

__all__ = ["affine_by_hand", "field_by_hand", "jacobian_by_hand", "roughness_by_hand", "total_by_hand"]

_AFFINE = torch.tensor([[[0.83, -0.117, 0.213], [0.093, 0.71, -0.291]]])  # reads within the image, between voxels


def _images():
    draw = torch.Generator().manual_seed(0)
    return torch.rand(1, 1, 7, 9, generator=draw), torch.rand(1, 1, 7, 9, generator=draw)


@by_hand(lambda: [(*_images(), 3)], loop=True)
def affine_by_hand(moving, fixed, steps=150):
    """The affine map (1, 2, 3) that `steps` steps of Adam find, and the loss in each. Images: (1, 1, H, W)."""
    size = tuple(moving.shape[2:])
    change = torch.zeros(1, 2, 3, requires_grad=True)  # voxels
    # a change of A by 2/(N-1) moves the border, (N-1)/2 from the centre, by one voxel
    unit = torch.tensor([2 / (length - 1) for length in size] + [1.0])
    optimiser = torch.optim.Adam([change], lr=0.3)
    history = []
    for _ in range(steps):
        matrix = torch.eye(2, 3) + change * unit
        warped = fields.warp(moving, fields.affine_displacement(matrix, size))
        loss = ((warped - fixed) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    return (torch.eye(2, 3) + change * unit).detach(), history


def total_displacement(w, affine):
    """u(x) = φ_affine(x + w(x)) - x. w and u: (1, 2, H, W), voxels; affine: (1, 2, 3)."""
    size = tuple(w.shape[2:])
    grid = fields.identity(size)  # x, the place of each voxel: (1, 2, H, W)
    places = grid + w
    return fields.move_affinely(places, affine, size) - grid


def _field_and_affine():
    return [(torch.randn(1, 2, 7, 9, generator=torch.Generator().manual_seed(1)), _AFFINE)]


# functions that another solution calls keep a name of their own
total_by_hand = by_hand(_field_and_affine)(total_displacement)


def roughness(w):
    """mean |∇w|², over voxels, components and axes: one number. w: (1, 2, H, W), voxels."""
    down = (w.diff(dim=2) ** 2).mean()
    right = (w.diff(dim=3) ** 2).mean()
    return (down + right) / 2


roughness_by_hand = by_hand(lambda: [(torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(2)),)])(roughness)


@by_hand(lambda: [(*_images(), _AFFINE, 0.5, 3)])
def field_by_hand(moving, fixed, affine, weight, steps):
    """u after `steps` steps of Adam, (1, 2, H, W), voxels. Images: (1, 1, H, W); affine: (1, 2, 3)."""
    w = torch.zeros(1, 2, *moving.shape[2:], requires_grad=True)
    optimiser = torch.optim.Adam([w], lr=0.1)
    for _ in range(steps):
        u = total_displacement(w, affine)
        misfit = ((fields.warp(moving, u) - fixed) ** 2).mean()
        loss = misfit + weight * roughness(w)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return total_displacement(w, affine).detach()


@by_hand(lambda: [(torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(3)),)])
def jacobian_by_hand(u):
    """|J| of the map x + u(x) at each voxel, (H, W). u: (1, 2, H, W), voxels."""
    d0u0, d1u0 = torch.gradient(u[0, 0])
    d0u1, d1u1 = torch.gradient(u[0, 1])
    return (1 + d0u0) * (1 + d1u1) - d1u0 * d0u1
