"""Tutorial 06 by hand: the loss, the loop of a training, and Dice."""

import torch
import torch.nn.functional as F

from regkit import fields, losses
from regkit.course.check.hands import STEP, by_hand
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
registration_loss_by_hand = by_hand(
    "Write the three lines: the warped images, the misfit, and the loss.",
    praise="the loss of tutorials 04 and 05. No true field occurs in it.",
    calls=_found_and_images,
    mistakes={
        "by the velocity": (
            "found.displacement",
            "found.velocity",
            "images are warped by the displacement. The velocity is the wind that makes it.",
        ),
        "displacement penalised": (
            "diffusion(found.velocity)",
            "diffusion(found.displacement)",
            "this penalises the displacement. In this formula v is the velocity.",
        ),
        "signed": (" ** 2", "", "differences of both signs cancel: square them before you take the mean."),
        "summed": (".mean()", ".sum()", "a sum grows with the images and the batch: take the mean."),
        "rewarded": ("misfit + ", "misfit - ", "a rough velocity makes this loss smaller. Add the roughness."),
        "no roughness": (
            " + weight * losses.diffusion(found.velocity)",
            "",
            "the roughness is missing: nothing keeps the field smooth.",
        ),
    },
    otherwise="warp `moving` by found.displacement; the misfit is the mean of (warped - fixed) squared; add weight "
    "times losses.diffusion(found.velocity).",
)(registration_loss)


@by_hand(
    "Write the six lines: the optimiser; in each step the network's answer, the loss, and the three lines of a step.",
    praise="the loop of tutorial 04; what the optimiser changes are the network's weights.",
    calls=lambda: [(*_network_and_images(), 8, 0.1)],
    mistakes={
        "the usual rate": (", lr=learning_rate", "", "this is Adam's usual rate, 0.001. Give it lr=learning_rate."),
        "images swapped": (
            "network(moving, fixed)",
            "network(fixed, moving)",
            "the network is asked for the other way. It takes moving first, then fixed.",
        ),
        "loss swapped": (
            "registration_loss(found, moving, fixed)",
            "registration_loss(found, fixed, moving)",
            "here the fixed images are warped: the loss takes moving first, then fixed.",
        ),
        **STEP,
    },
    otherwise="Adam takes network.parameters(); in each step ask network(moving, fixed), take registration_loss, then "
    "zero_grad, backward and step, in this order.",
)
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


@by_hand(
    "Write the three lines: the common voxels, the voxels of both masks, and Dice; one number for each pair.",
    praise="Dice is 1 where both masks are the same, and 0 where they have no voxel in common.",
    calls=_masks,
    mistakes={
        "not doubled": (
            "2 * common",
            "common",
            "two equal masks would get 0.5: the common voxels count in both masks, so twice.",
        ),
        "union": (
            "a.sum((1, 2, 3)) + b.sum((1, 2, 3))",
            "(a | b).sum((1, 2, 3))",
            "the union counts the common voxels once. Dice divides by the sum of both sizes.",
        ),
        "one for all": (
            "sum((1, 2, 3))",
            "sum()",
            "this is one number for the whole batch. One for each pair is wanted.",
        ),
        "all that agree": (
            "(a & b)",
            "(a == b)",
            "this counts the background, too, where both are False. Only voxels in both masks are common.",
        ),
        "in one only": ("(a & b)", "(a | b)", "these voxels lie in one mask or the other. Count those in both."),
    },
    otherwise="(a & b) is True where both are; sum((1, 2, 3)) counts for each pair; Dice is 2 · common / (|a| + |b|).",
)
def dice_by_hand(a, b):
    """2 |A ∩ B| / (|A| + |B|) of each pair, (B,). a, b: masks (B, 1, H, W), True inside."""
    common = (a & b).sum((1, 2, 3))
    both = a.sum((1, 2, 3)) + b.sum((1, 2, 3))
    return 2 * common / both
