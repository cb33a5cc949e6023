"""Why one registers images: five reasons in one picture of synthetic brains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from regkit._core.files import PACKAGE
from regkit.data.brains import BrainPairs, true_displacement
from regkit.fields import affine_displacement, identity, rigid_displacement, warp, warp_labels
from regkit.figures import paint, pixels
from regkit.figures.pixels import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE, _SCALE, _COUNT = 96, 3, 8


def _spot(row: float, column: float, radius: float) -> Tensor:
    """A soft disc, (1, 1, H, W), from 0 to 1."""
    middle = torch.tensor([row, column]).view(1, 2, 1, 1)
    return torch.sigmoid(radius - (identity((_SIDE, _SIDE)) - middle).norm(dim=1, keepdim=True))


def _grey(image: Tensor, *outlines: Tensor) -> Picture:
    """An image, and the outlines of masks on it, each in a colour of its own."""
    picture = paint.render_image(image[0, 0], scale=_SCALE)
    for number, mask in enumerate(outlines, 1):
        picture = paint.render_contours(picture, number * (mask[0, 0] > 0.5).long())
    return picture


def _halves(left: Picture, right: Picture) -> Picture:
    return np.concatenate([left[:, : left.shape[1] // 2], right[:, right.shape[1] // 2 :]], 1)


def _histology(image: Tensor) -> Picture:
    """A slice as one that was cut, stained and laid on glass: turned, squeezed, torn, and pink."""
    squeeze = affine_displacement(torch.tensor([[[1.04, 0.16, 2.0], [-0.14, 1.18, 0.0]]]), (_SIDE, _SIDE))
    cut = warp(image, squeeze)[0, 0].numpy()
    torn = np.abs(np.arange(_SIDE)[:, None] - 62 - 0.5 * (np.arange(_SIDE) - 48)) < 1.5
    tissue = np.where(torn & (np.arange(_SIDE) > 50), 0, cut)[..., None]
    stain = np.array([250, 244, 248]) - tissue**2 * np.array([90, 190, 60])
    return pixels.enlarge(np.where(tissue > 0.08, stain, (250, 244, 248)).clip(0, 255), _SCALE).astype(np.uint8)


def reasons() -> dict[str, Picture]:
    """One picture for each reason, by its title: made from eight synthetic brains."""
    brains = BrainPairs(_COUNT, size=(_SIDE, _SIDE), aligned=False, seed=3)
    first, images = brains.subjects[0], [each.image for each in brains.subjects]
    home = [warp(each.image, true_displacement(each, first)) for each in brains.subjects]
    small, large = _spot(36, 62, 4), _spot(36, 62, 8)
    moved = rigid_displacement((_SIDE, _SIDE), degrees=-9, right=-6)
    head = warp(first.image, moved)
    planned, now = _spot(60, 36, 6), warp(_spot(60, 36, 6), moved)
    assert brains.subjects[1].labels is not None
    atlas = warp_labels(brains.subjects[1].labels, true_displacement(brains.subjects[1], first))
    return {
        "growth: a tumour,\nthen and now": _grey((first.image + 0.6 * large).clamp(0, 1), small, large),
        "an atlas: its names\non a new brain": paint.render_contours(_grey(first.image), atlas[0, 0], width=1),
        "radiotherapy: where\nthe beam goes, and should": _grey(head, planned, now),
        "a group: mean of 8,\nas they are | registered": _halves(
            _grey(torch.cat(images).mean(0, keepdim=True)), _grey(torch.cat(home).mean(0, keepdim=True))
        ),
        "histology: a stained slice\nbeside the scan": _halves(_histology(first.image), _grey(first.image)),
    }


def show_reasons() -> Figure:
    """The five pictures side by side."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 5, figsize=(12.5, 3.1), layout="compressed")
    plt.close(figure)  # the cell that ends in the figure shows it, once
    for panel, (title, picture) in zip(axes, reasons().items(), strict=True):
        panel.imshow(picture)
        panel.set(title=title, xticks=(), yticks=())
    return figure


def stored_training() -> dict[str, Tensor]:
    """What a training of 1200 steps, seed 0, made of tutorial 00's pair: displacements (1, 2, 64, 64) by the steps."""
    with np.load(PACKAGE / "course" / "results" / "first_light" / "training.npz") as kept:
        fields = torch.from_numpy(kept["displacements"] * kept["voxels"])
        return {str(step): field[None] for step, field in zip(kept["steps"], fields, strict=True)}
