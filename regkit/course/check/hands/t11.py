"""Tutorial 11 by hand: a Haar level, velocities that add, a gate, the slope of a round trip, two terms of the loss."""

import torch
import torch.nn.functional as F

from regkit import fields, losses
from regkit.course.check.hands import by_hand

__all__ = ["add_by_hand", "gate_by_hand", "gradient_inverse_by_hand", "haar_by_hand", "loss_terms_by_hand"]


def _random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@by_hand(lambda: [(_random(0, 1, 1, 6, 8),)])
def haar_by_hand(image):
    """The low band, and the energy of the details; (B, 1, H/2, W/2) each. image: (B, 1, H, W)."""
    a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]  # of each block of 2 x 2: the upper two
    c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]  # and the lower two
    low = (a + b + c + d) / 4
    down = (a + b - c - d) / 4
    right = (a - b + c - d) / 4
    both = (a - b - c + d) / 4
    return low, down**2 + right**2 + both**2


@by_hand(lambda: [([_random(n, 1, 2, 2 * 2**n, 3 * 2**n) for n in range(3)],)])
def add_by_hand(residuals):
    """The velocity of the finest level. residuals: (B, 2, H, W), coarse to fine, each in voxels of its own grid."""
    velocity = residuals[0]
    for residual in residuals[1:]:
        wider = F.interpolate(velocity, scale_factor=2, mode="bilinear", align_corners=False)
        velocity = residual + 2 * wider
    return velocity


def _gate():
    draw = torch.Generator().manual_seed(1)
    of_skip, of_features = (torch.randn(3, 3, 1, 1, generator=draw) for _ in range(2))
    reduce = torch.randn(1, 3, 1, 1, generator=draw)
    layers = [lambda image, weight=weight: F.conv2d(image, weight) for weight in (of_skip, of_features, reduce)]
    return [(*layers, _random(2, 1, 3, 4, 6), _random(3, 1, 3, 4, 6))]


@by_hand(_gate)
def gate_by_hand(of_skip, of_features, reduce, skip, features):
    """The skip's features times the gate's coefficients. skip, features: (B, C, H, W), of one size here."""
    both = of_skip(skip) + of_features(features)
    gate = torch.sigmoid(reduce(F.relu(both)))
    return gate * skip


@by_hand(lambda: [(*(0.4 * _random(n, 1, 2, 7, 9) for n in (4, 5)), 0.01)])
def gradient_inverse_by_hand(u_ab, u_ba, delta=1e-3):
    """Mean |∇[φ_AB ∘ φ_BA] - I|² over voxels, components and axes, times the axes; (1, 2, H, W), voxels."""
    extent = torch.tensor(u_ab.shape[2:]) - 1
    grid = fields.identity(u_ab.shape[2:])

    def left(place):  # of the way from A to B and back, in units of the extent
        middle = place + fields.sample(u_ba, place)
        home = middle + fields.sample(u_ab, middle)
        return (home - place) / extent.view(1, 2, 1, 1)

    steps = delta * torch.diag(extent)
    slopes = [(left(grid + step.view(1, 2, 1, 1)) - left(grid)) / delta for step in steps]
    return sum(slope.square().mean() for slope in slopes)


def _maps_and_images():
    images = torch.rand(2, 1, 1, 7, 9, generator=torch.Generator().manual_seed(6))
    return [(*images, *(_random(n, 1, 2, 7, 9) for n in (7, 8, 9)))]


@by_hand(_maps_and_images)
def loss_terms_by_hand(a, b, u_ab, inverse_ab, u_ba):
    """L_Sy (as in the program) and L_In of one direction, without their λ. a, b: images; the rest: displacements."""
    symmetric = losses.mse(fields.warp(b, inverse_ab), fields.warp(b, u_ba))
    inverse = (fields.compose(u_ab, inverse_ab) ** 2).mean()
    return symmetric, inverse
