"""Tutorial 06 by hand: the loss, the loop of a training, and Dice."""

import torch
import torch.nn.functional as F

from regkit import fields, losses
from regkit.course.check.hands import by_hand
from regkit.types import Registration

__all__ = ["dice_by_hand", "registration_loss_by_hand", "train_by_hand"]


class _Network(torch.nn.Module):
    """One convolution that makes a velocity from two images."""

    def __init__(self, draw):
        super().__init__()
        self.weight = torch.nn.Parameter(0.5 * torch.randn(2, 2, 3, 3, generator=draw))

    def forward(self, moving, fixed):
        velocity = F.conv2d(torch.cat([moving, fixed], 1), self.weight, padding=1)
        return Registration(fields.exponential(velocity, steps=2), velocity=velocity)


def _network_and_images():
    draw = torch.Generator().manual_seed(0)
    network = _Network(draw)
    return network, torch.rand(2, 1, 7, 9, generator=draw), torch.rand(2, 1, 7, 9, generator=draw)


def _found_and_images():
    network, moving, fixed = _network_and_images()
    with torch.no_grad():
        return [(network(moving, fixed), moving, fixed, 0.3)]


def registration_loss(found, moving, fixed, weight=0.002):
    """Misfit + λ · roughness, one number. found: a Registration; images: (B, 1, H, W)."""
    warped = fields.warp(moving, found.displacement)
    misfit = ((warped - fixed) ** 2).mean()
    return misfit + weight * losses.diffusion(found.velocity)


# a function that another solution calls keeps a name of its own
registration_loss_by_hand = by_hand(_found_and_images)(registration_loss)


@by_hand(lambda: [(*_network_and_images(), 8, 0.1)], loop=True)
def train_by_hand(network, moving, fixed, steps, learning_rate):
    """Train a network by `steps` steps of Adam on one batch, (B, 1, H, W); gives the loss in each."""
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    history = []
    for _ in range(steps):
        found = network(moving, fixed)
        loss = registration_loss(found, moving, fixed)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    return history


def _masks():
    draw = torch.Generator().manual_seed(1)
    return [(torch.rand(3, 1, 5, 8, generator=draw) > 0.6, torch.rand(3, 1, 5, 8, generator=draw) > 0.4)]


@by_hand(_masks)
def dice_by_hand(a, b):
    """2 |A ∩ B| / (|A| + |B|) of each pair, (B,). a, b: masks (B, 1, H, W), True inside."""
    common = (a & b).sum((1, 2, 3))
    both = a.sum((1, 2, 3)) + b.sum((1, 2, 3))
    return 2 * common / both
