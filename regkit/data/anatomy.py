"""A labelled brain on any grid, from the MNI152 template and its tissue maps, which come with regkit (icbm152.png).

Positions are MNI millimetres (x to the right, y to the front, z up; the origin at the anterior commissure). The
template is symmetric, and so are the rules. They cut the tissue maps into structures that look like a brain's and can
be recognised; they are no atlas for measuring patients.

Source: ICBM 2009a nonlinear symmetric (Fonov et al. 2011), skull-stripped; icbm152.txt has its notice and licence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from scipy import ndimage
from torch import Tensor

from regkit.types import Image, InputError, Labels

_DEEP = ("thalamus", "caudate", "lentiform nucleus", "hippocampus")
_PAIRED = ("cortex", "white matter", "lateral ventricle", *_DEEP, "cerebellum")
_SINGLE = ("brain stem", "fluid")
PAIRED = len(_PAIRED)  # structures that are left and right
STRUCTURES = ("outside", *(f"{side} {name}" for name in _PAIRED for side in ("left", "right")), *_SINGLE)

"""The name of each label: 0 outside, then left and right in turns, then what lies in the middle."""

_CENTRE = (0.0, -17.0, 4.0)  # MNI mm: of the field of view
_EXTENT = (188.0, 216.0, 176.0)  # mm: the brain's 146 x 182 x 156 and a margin to move in

_GREY = {  # ellipsoids in (|x|, y, z): centre and half axes, MNI mm, and the least probability of grey matter
    "thalamus": [((10.5, -18.0, 8.0), (11.0, 15.0, 10.0), 0.15)],
    "caudate": [((13.0, 13.0, 9.0), (7.5, 14.0, 15.0), 0.4), ((16.0, -4.0, 20.0), (6.0, 15.0, 8.0), 0.4)],
    "lentiform nucleus": [((23.0, 7.0, 2.0), (9.0, 13.0, 13.0), 0.3), ((27.0, -5.0, 4.0), (8.0, 14.0, 14.0), 0.3)],
    "hippocampus": [((25.0, -14.0, -20.0), (9.0, 14.0, 9.0), 0.4), ((26.0, -30.0, -7.0), (8.0, 11.0, 8.0), 0.4)],
}


@dataclass(frozen=True)
class Anatomy:
    """A labelled brain on a grid.

    image: (1, 1, *space), the template's T1 contrast, in [0, 1].
    maps: (1, 1 + structures, *space), the share of each structure in each voxel; the shares sum to 1.
    labels: (1, 1, *space), the structure with the largest share; STRUCTURES names them.
    spacing: mm, the same along every axis.
    """

    image: Image
    maps: Tensor
    labels: Labels
    spacing: tuple[float, ...]

    def to(self, device: torch.device | str) -> Anatomy:
        """The same anatomy on another device."""
        return Anatomy(self.image.to(device), self.maps.to(device), self.labels.to(device), self.spacing)


@lru_cache(maxsize=4)
def anatomy(size: tuple[int, ...] = (64, 80, 64), *, level: float = 8.0) -> Anatomy:
    """The template brain, with a margin, on a grid of any size: a volume, or the axial slice at z = level mm.

    Three axes run to the right, to the front and up. A slice's two run as it is drawn: down to the back, and to the
    right (the brain's left is on the left). The spacing is the finest at which all of the brain and its margin fit; a
    voxel's value is the average of the millimetres around it (a triangle's weights, one spacing to either side).

    Raises:
        ValueError: not two or three sizes of at least 8 voxels, or a level outside the brain.
    """
    axes = {2: (1, 0), 3: (0, 1, 2)}.get(len(size))
    if axes is None or min(size) < 8:
        raise InputError("size must be 2 or 3 axes of at least 8 voxels", size, "(64, 56) is a usual slice")
    if not -60 <= level <= 70:
        raise InputError("level must be from -60 to 70 mm", level, "8 shows ventricles and deep nuclei")
    spacing = max(_EXTENT[axis] / n for axis, n in zip(axes, size, strict=True))
    places = [np.array([level])] * 3
    for axis, n in zip(axes, size, strict=True):
        places[axis] = _CENTRE[axis] + spacing * (np.arange(n) - (n - 1) / 2)
    if len(size) == 2:
        places[1] = places[1][::-1]  # the front is drawn on top
    atlas = _atlas()
    weights = [
        _weights(at, n, first, spacing) for at, n, first in zip(places, atlas.t1.shape, atlas.first, strict=True)
    ]
    image, maps = _resample(atlas, weights)
    if len(size) == 2:
        image, maps = image[..., 0].mT.contiguous(), maps[..., 0].mT.contiguous()
    return Anatomy(image, maps, maps.argmax(1, keepdim=True), (spacing,) * len(size))


@dataclass(frozen=True)
class _Atlas:
    """The template at 1 mm: T1, an index into ("outside", *_PAIRED, *_SINGLE), and the first voxel's place in mm."""

    t1: np.ndarray
    index: np.ndarray
    first: tuple[float, ...]


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
    """Name every millimetre of the template by tissue and place.

    Brain: T1 above 0.05. Tissue: the likeliest of grey, white and fluid (what is neither). Later rules win:
    1. Grey is cortex, white is white matter.
    2. Deep nuclei and hippocampi: grey within their ellipsoids.
    3. Lateral ventricles: in each half the largest piece of fluid within an ellipsoid, off the third ventricle. Cortex
       within 4 mm around them is the template's blurred rim, and becomes white matter.
    4. Cerebellum: what is solid below the tentorium, a roof that falls from z = 0 to the sides, to the back and front.
    5. Brain stem: the largest solid piece in front of the fourth ventricle, below a plane through the upper midbrain;
       widest at the pons.
    """
    t1, grey, white, first = _template()
    x, y, z = (np.arange(n, dtype=np.float32).reshape(np.roll((n, 1, 1), i)) + first[i] for i, n in enumerate(t1.shape))
    x = np.abs(x)
    names = ("outside", *_PAIRED, *_SINGLE)
    number = names.index

    def within(centre: Sequence[float], half_axes: Sequence[float]) -> np.ndarray:
        return sum(((at - c) / r) ** 2 for at, c, r in zip((x, y, z), centre, half_axes, strict=True)) < 1

    brain = t1 > 0.05
    fluid = brain & (1 - grey - white > np.maximum(grey, white))
    index = np.where(brain, np.where(grey > white, number("cortex"), number("white matter")), 0).astype(np.uint8)
    index[fluid] = number("fluid")
    solid = brain & ~fluid
    for name, ellipsoids in _GREY.items():
        for centre, half_axes, least in ellipsoids:
            index[solid & (grey > least) & within(centre, half_axes)] = number(name)
    candidates = fluid & within((17, -12, 8), (23, 52, 30)) & ((x > 5) | (z > 13))
    ventricles = np.concatenate([_largest(half) for half in np.array_split(candidates, [len(t1) // 2])])
    index[ndimage.binary_dilation(ventricles, iterations=4) & (index == number("cortex"))] = number("white matter")
    index[ventricles] = number("lateral ventricle")
    index[solid & (y < -32) & (z < -0.45 * x - 0.5 * np.abs(y + 53))] = number("cerebellum")
    back, top, side = -37 + 0.35 * np.minimum(z + 32, 0), -8 - 0.35 * (y + 12), 19 - 0.35 * np.abs(z + 32)
    index[_largest(solid & (y > back) & (y < -10) & (z < top) & (x < side))] = number("brain stem")
    return _Atlas(t1, index, first)


def _largest(candidates: np.ndarray) -> np.ndarray:
    """The largest connected piece."""
    pieces, _ = ndimage.label(candidates)
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def _template() -> tuple[Any, ...]:
    """T1, grey and white matter at 1 mm, each from 0 to 1, and the position of the first voxel in mm."""
    half = np.asarray(Picture.open(Path(__file__).parent / "icbm152.png")).reshape(99, 233, 189, 3)
    whole = np.concatenate([half, half[-2::-1]]).astype(np.float32) / 255
    return (*(np.ascontiguousarray(whole[..., channel]) for channel in range(3)), (-98.0, -134.0, -72.0))


def _weights(places: np.ndarray, count: int, first: float, spacing: float) -> Tensor:
    """Rows that average the millimetres around each place: (places, count); less than 1 in sum beyond the template."""
    reach = max(spacing, 1.0)
    more = math.ceil(np.abs(places).max() + reach)  # the millimetres go on beyond the template
    positions = first + np.arange(-more, count + more)
    weights = np.maximum(1 - np.abs(places[:, None] - positions) / reach, 0)
    weights /= weights.sum(1, keepdims=True)
    return torch.from_numpy(weights[:, more : more + count]).float()


def _resample(atlas: _Atlas, weights: Sequence[Tensor]) -> tuple[Image, Tensor]:
    """T1 and the share of each structure on another grid: one matrix for each axis; left and right share the middle."""
    along_x, along_y, along_z = weights

    def planes(volume: np.ndarray) -> Tensor:
        return along_y @ (torch.from_numpy(volume) @ along_z.T)

    middle = torch.arange(len(atlas.t1)) - len(atlas.t1) // 2
    halves = [(1 + side * middle.sign()) / 2 * along_x for side in (-1, 1)]
    shares = []
    for number in range(1, 1 + PAIRED + len(_SINGLE)):
        part = planes((atlas.index == number).astype(np.float32))
        shares += [torch.tensordot(half, part, 1) for half in (halves if number <= PAIRED else [along_x])]
    outside = (1 - torch.stack(shares).sum(0)).clamp(0, 1)
    image = torch.tensordot(along_x, planes(atlas.t1), 1)
    return image[None, None], torch.stack([outside, *shares])[None]
