"""Tutorial 04 by hand: steps of descent, the roughness, the map of affine and field, and |J|."""

import torch

from regkit import fields
from regkit.course.check.hands import STEP, by_hand

__all__ = ["affine_by_hand", "field_by_hand", "jacobian_by_hand", "roughness_by_hand", "total_by_hand"]

_AFFINE = torch.tensor([[[0.83, -0.117, 0.213], [0.093, 0.71, -0.291]]])  # reads within the image, between voxels


def _images():
    draw = torch.Generator().manual_seed(0)
    return torch.rand(1, 1, 7, 9, generator=draw), torch.rand(1, 1, 7, 9, generator=draw)


@by_hand(
    "Write the five lines: the warped image, the loss, and the three lines of a step.",
    praise="warp, compare, and one step against the gradient: this is what every registration repeats.",
    calls=lambda: [(*_images(), 3)],
    mistakes={
        "summed": (".mean()", ".sum()", "this loss grows with the image's size: take the mean over the voxels."),
        "signed": (" ** 2", "", "differences of both signs cancel: square them before you take the mean."),
        "fixed warped": (
            "fields.warp(moving",
            "fields.warp(fixed",
            "this warps the fixed image. The moving image is to be warped onto it.",
        ),
        **STEP,
    },
    otherwise="warp `moving` by the displacement of `matrix`; the loss is the mean of (warped - fixed) squared; then "
    "zero_grad, backward and step, in this order.",
)
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
total_by_hand = by_hand(
    "Write the two lines: where w leads, and the displacement of the whole map.",
    praise="a voxel goes along w first; the affine map takes it on from there.",
    calls=_field_and_affine,
    mistakes={
        "affine first": (
            "fields.move_affinely(places, affine, size)",
            "fields.move_affinely(grid, affine, size) + w",
            "here the affine map goes first, and w is added after it. The affine map moves x + w(x).",
        ),
        "a place": (" - grid", "", "this is the place φ(x). A displacement is φ(x) - x."),
        "no place": ("grid + w", "w", "w is an arrow. The place where it leads is x + w(x)."),
        "against w": ("grid + w", "grid - w", "this goes against w: add it to x."),
        "from there": ("- grid", "- places", "this is how far the affine map alone moves. u starts at x."),
    },
    otherwise="w leads to grid + w; move_affinely moves these places; a displacement is the new place minus x.",
)(total_displacement)


def roughness(w):
    """mean |∇w|², over voxels, components and axes: one number. w: (1, 2, H, W), voxels."""
    down = (w.diff(dim=2) ** 2).mean()
    right = (w.diff(dim=3) ** 2).mean()
    return (down + right) / 2


roughness_by_hand = by_hand(
    "Write the three lines: the mean squared difference of neighbours along each axis, and the mean of both.",
    praise="what is the same everywhere costs nothing, and each difference of neighbours costs its square.",
    calls=lambda: [(torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(2)),)],
    mistakes={
        "not squared": (" ** 2", "", "differences of both signs cancel: square them before you take the mean."),
        "summed": (".mean()", ".sum()", "a sum grows with the image's size: take the mean."),
        "components": ("dim=3", "dim=1", "dimension 1 of w holds its two components. Neighbours are in 2 and 3."),
        "not halved": (" / 2", "", "the mean over both axes is wanted: half of their sum."),
        "one axis": ("(down + right) / 2", "down", "this charges one axis only: take the mean of down and right."),
        "a root": ("(down + right) / 2", "((down + right) / 2).sqrt()", "the squares stay squares: take no root."),
    },
    otherwise="w.diff(dim=2) has the differences of neighbours along axis 0, w.diff(dim=3) those along axis 1.",
)(roughness)


@by_hand(
    "Write the two lines: the misfit of the pictures, and the loss.",
    praise="misfit plus λ times the roughness. Only w is penalised, so the rotation is free.",
    calls=lambda: [(*_images(), _AFFINE, 0.5, 3)],
    mistakes={
        "only w": (
            "fields.warp(moving, u)",
            "fields.warp(moving, w)",
            "this warps by w alone. u has the affine map, too.",
        ),
        "u penalised": (
            "roughness(w)",
            "roughness(u)",
            "this penalises the rotation, too. The roughness is that of w.",
        ),
        "rewarded": ("misfit + ", "misfit - ", "a rough field makes this loss smaller. The roughness is to be added."),
        "no weight": ("weight * ", "", "here the weight λ has no effect: it multiplies the roughness."),
        "no roughness": (" + weight * roughness(w)", "", "the roughness is missing: add weight times roughness(w)."),
        "summed": (".mean()", ".sum()", "a sum grows with the image: take the mean, or λ means another thing."),
    },
    otherwise="misfit: the mean of (warped - fixed) squared, warped by u. loss: misfit + weight * roughness(w).",
)
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


@by_hand(
    "Write the three lines: the slopes of u[0, 0], those of u[0, 1], and the determinant.",
    praise="the local change of area, at each voxel. Where it is zero or negative, the map folds.",
    calls=lambda: [(torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(3)),)],
    mistakes={
        "no identity": ("1 + ", "", "this is det(∂u). The map is x + u(x): add 1 to ∂u0/∂x0 and to ∂u1/∂x1."),
        "diagonal only": (" - d1u0 * d0u1", "", "the product of the diagonal alone is no determinant."),
        "added": (" - d1u0", " + d1u0", "the second product is subtracted, not added."),
        "axes swapped": (
            "d0u0, d1u0 =",
            "d1u0, d0u0 =",
            "torch.gradient gives the slope along axis 0 first, then the one along axis 1.",
        ),
        "identity everywhere": (
            "d1u0 * d0u1",
            "(1 + d1u0) * (1 + d0u1)",
            "the identity has its ones on the diagonal only.",
        ),
    },
    otherwise="|J| = (1 + ∂u0/∂x0)(1 + ∂u1/∂x1) - ∂u0/∂x1 · ∂u1/∂x0; torch.gradient(u[0, 0]) has both slopes of u0.",
)
def jacobian_by_hand(u):
    """|J| of the map x + u(x) at each voxel, (H, W). u: (1, 2, H, W), voxels."""
    d0u0, d1u0 = torch.gradient(u[0, 0])
    d0u1, d1u1 = torch.gradient(u[0, 1])
    return (1 + d0u0) * (1 + d1u1) - d1u0 * d0u1
