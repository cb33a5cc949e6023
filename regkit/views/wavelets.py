"""SM-GICNet level by level: what each network reads, what it says, where all of them together have come."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit import metrics
from regkit.fields import upsample, warp, warp_labels
from regkit.layers import crop
from regkit.models import SMGICNet
from regkit.types import Displacement, Labels, Pair, spatial
from regkit.views.controls import Choice, Control, Scene, Slider, State, Toggle
from regkit.views.drawing import (
    DIFFERENCES,
    ERRORS,
    GREYS,
    INK,
    NIGHT,
    PAPER,
    FieldPlane,
    Limits,
    Picture,
    Plane,
    blank,
    colour,
    darken,
    enlarge,
    field_plane,
    integer_scale,
    intensity_limits,
    lengths,
    nice_limit,
    plane,
    stack,
)
from regkit.views.pictures import render_bar, render_displacement, render_grid, render_image, render_wheel, write
from regkit.views.quantities import pick
from regkit.widgets import View

_PIXELS, _LINES = 256, 16  # a panel's longer side; lines of a grid along it
_NAMES = ("A", "B")
_GATES: Picture = DIFFERENCES[127:]  # from near-white (closed) to orange (open)
_OUTLINED = 0.2  # of the range of intensities: where a head begins
_WEIGHTS: Limits = (0.5, 1.0)
_SKIPS = {"1/4 size": 4, "1/2 size": 2, "full size": 1}  # voxels of the image a voxel of each skip connection


@dataclass(frozen=True)
class Rung:
    """One level of one call.

    halvings: how often the image was halved for it. moving: the moving band as the network gets it, warped by what is
    known; fixed. detail: the square root of the moving band's energy, as warped, or None where it is not read. weight:
    of both images. residual: velocity, voxels of the image, on the level's grid. total: the displacement so far, at
    full size. gates: coefficients by the size of their skip connection. dice: of the labels after this level, if there
    are any.
    """

    halvings: int
    moving: Plane
    fixed: Plane
    detail: Plane | None
    weight: Plane
    residual: FieldPlane
    total: FieldPlane
    gates: dict[str, Plane]
    dice: float | None


@dataclass(frozen=True, eq=False)
class LevelStack(Scene):
    """Six panels for a level: what is read above (bands, details or gates), what comes of it below.

    images: A and B. calls: the rungs, coarse to fine, of (A, B) and of (B, A).
    """

    images: tuple[Plane, Plane]
    calls: tuple[Sequence[Rung], Sequence[Rung]]

    def controls(self) -> dict[str, Control]:
        """Which level, which gate of the last one, and which image is moved."""
        return {
            "level": Slider("level", 1, 1, self._count),
            "gate": Choice("gate on the skip at", [*reversed(self.calls[0][-1].gates)]),
            "swapped": Toggle("swap A and B", False),
        }

    def hidden(self, state: State) -> set[str]:
        """There are gates at the last level only."""
        return set() if state["level"] == self._count else {"gate"}

    def render(self, state: State) -> Picture:
        """Two rows of panels, and their keys."""
        rung, (first, second) = self._rung(state), self._order(state)
        paint = functools.partial(render_image, limits=self._limits, scale=self._scale(rung))
        above = [
            _panel(f"{first}, warped by what is known", paint(rung.moving)),
            _panel(f"{second}", paint(rung.fixed)),
            self._third(rung, state),
        ]
        residual = render_displacement(rung.residual, limit=self._longest, scale=self._scale(rung))
        weight = enlarge(colour(rung.weight, ERRORS, _WEIGHTS), self._scale(rung))
        weight = self._empty(rung, "1 everywhere") if rung.weight.min() == 1 else weight
        below = [
            _panel("weight of both images", weight),
            _panel("what it adds: velocity r", residual),
            _panel(f"all so far, on {first}", self._grid(rung, state)),
        ]
        rows = stack(stack(*above, axis=1), stack(*below, axis=1))
        return stack(rows, self._keys(rows.shape[1], gates=state["level"] == self._count))

    def describe(self, state: State) -> str:
        """Sizes, what is read, how much is added, how far it has come."""
        rung, (first, second), level = self._rung(state), self._order(state), state["level"]
        down, right = rung.moving.shape
        added, moved = lengths(rung.residual), lengths(rung.total)
        reads = "the images themselves" if level == self._count else "the low bands"
        reads += " and their energies" if rung.detail is not None else ""
        overlap = "" if rung.dice is None else f" Dice {rung.dice:.3f} so far."
        gate = ""
        if level == self._count:
            values = rung.gates[state["gate"]]
            gate = f" Gate on the skip at {state['gate']}: {values.min():.2f} to {values.max():.2f}."
        return (
            f"Level {level} of {self._count}, {first} onto {second}: {down} x {right} voxels, from {reads}. It adds a "
            f"velocity of {added.mean():.1f} voxels of the image on average, {added.max():.1f} at most; all levels so "
            f"far move {moved.mean():.1f} on average, {moved.max():.1f} at most.{overlap} Weight of the images from "
            f"{rung.weight.min():.2f} to {rung.weight.max():.2f}.{gate}"
        )

    @property
    def _count(self) -> int:
        return len(self.calls[0])

    @functools.cached_property
    def _limits(self) -> Limits:
        return intensity_limits(*self.images)

    @functools.cached_property
    def _longest(self) -> float:
        """Of all residual velocities, voxels of the image."""
        return nice_limit(max(float(lengths(rung.residual).max()) for call in self.calls for rung in call))

    @functools.cached_property
    def _detail(self) -> float:
        """The largest of all details."""
        details = [rung.detail for call in self.calls for rung in call]
        return nice_limit(max((float(each.max()) for each in details if each is not None), default=0.0))

    def _scale(self, rung: Rung) -> int:
        """Pixels a voxel of a level, so that all levels are equally large."""
        return integer_scale(self.images[0].shape, _PIXELS) * 2**rung.halvings

    def _rung(self, state: State) -> Rung:
        return self.calls[state["swapped"]][state["level"] - 1]

    def _order(self, state: State) -> tuple[str, str]:
        first, second = _NAMES
        return (second, first) if state["swapped"] else (first, second)

    def _third(self, rung: Rung, state: State) -> Picture:
        """What was discarded, or the gate, or that there is neither."""
        first, _ = self._order(state)
        if state["level"] == self._count:
            low, high = self._limits
            gate = enlarge(colour(rung.gates[state["gate"]], _GATES, (0, 1)), self._scale(rung) * _SKIPS[state["gate"]])
            inside = rung.moving > low + _OUTLINED * (high - low)
            return _panel(f"gate at {state['gate']}; {first}'s outline", _outlined(gate, inside, self._scale(rung)))
        if rung.detail is not None:
            detail = colour(rung.detail, GREYS, (0, self._detail))
            return _panel(f"{first}'s discarded detail", enlarge(detail, self._scale(rung)))
        return _panel(f"{first}'s discarded detail", self._empty(rung, "not read at this level"))

    def _empty(self, rung: Rung, words: str) -> Picture:
        """A dark panel that says why there is nothing to see."""
        picture = blank(rung.moving.shape, self._scale(rung))
        return write(picture, [(picture.shape[0] / 2, picture.shape[1] / 2, "mm", words)], PAPER)

    def _grid(self, rung: Rung, state: State) -> Picture:
        image = self.images[state["swapped"]]
        picture = darken(render_image(image, limits=self._limits, scale=integer_scale(image.shape, _PIXELS)), 0.6)
        return render_grid(picture, rung.total, every=max(1, max(image.shape) // _LINES))

    def _keys(self, width: int, *, gates: bool) -> Picture:
        third = (width - 12) // 3
        wheel = render_wheel(self._longest, width=third, name="r")
        weights = render_bar(ERRORS, _WEIGHTS, width=third, unit="weight")
        last = (
            render_bar(_GATES, (0, 1), width=third, unit="gate")
            if gates
            else render_bar(GREYS, (0, self._detail), width=third, unit="root of energy")
        )
        return stack(weights, wheel, last, axis=1)


def _panel(title: str, picture: Picture) -> Picture:
    head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
    return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])


def _outlined(picture: Picture, inside: NDArray[np.bool_], scale: int) -> Picture:
    """The border of a region as a thin line over a picture of its size or larger, which is cut to it."""
    mask = inside.repeat(scale, 0).repeat(scale, 1)
    edge = np.zeros_like(mask)
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    return np.where(edge[..., None], INK, picture[: len(mask), : mask.shape[1]]).astype(np.uint8)


def level_stack(network: SMGICNet, pair: Pair, *, item: int = 0) -> View:
    """Go through the levels of an SM-GICNet: bands, discarded detail, weight, residual velocity, map; and its gates.

    network: as `regkit.variants.load` gives it. pair: 2D; A is its moving, B its fixed image; with labels, each level's
    Dice is told. item: which of a batch.

    Raises:
        ValueError, IndexError: volumes, no such item.
    """
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    images = plane(moving, "moving"), plane(fixed, "fixed")
    labels = [None if each is None else pick(each, item) for each in (pair.moving_labels, pair.fixed_labels)]
    calls = _climb(network, moving, fixed, *labels), _climb(network, fixed, moving, *reversed(labels))
    return View(LevelStack(images, calls))


@torch.no_grad()
def _climb(
    network: SMGICNet, moving: Tensor, fixed: Tensor, moving_labels: Labels | None, fixed_labels: Labels | None
) -> list[Rung]:
    """The rungs of network(moving, fixed)."""
    found = network(moving, fixed)
    rungs, known = [], None
    for level, band in enumerate(network.pyramid(torch.cat([moving, fixed]))):
        shape, total = spatial(band), found.displacements[level][:1]
        known = total.new_zeros(1, 2, *shape) if known is None else crop(upsample(known), shape)
        low, energy = warp(band[:1], known).tensor_split([network.in_channels], 1)
        halvings = len(found.residuals) - 1 - level
        whole = full_size(total, spatial(moving), halvings)
        rungs.append(
            Rung(
                halvings=halvings,
                moving=plane(low),
                fixed=plane(band[1:2, :1]),
                detail=plane(energy.clamp_min(0).sqrt()) if energy.shape[1] else None,
                weight=plane(found.weights[level][:1]),
                residual=field_plane(found.residuals[level][:1]) * 2**halvings,
                total=field_plane(whole),
                gates={} if halvings else _gates(found.gates),
                dice=_dice(moving_labels, fixed_labels, whole),
            )
        )
        known = total
    return rungs


def full_size(displacement: Displacement, shape: Sequence[int], halvings: int) -> Displacement:
    """A level's displacement on the image's grid, voxels of the image."""
    for _ in range(halvings):
        displacement = upsample(displacement)
    return crop(displacement, shape)


def _gates(gates: Sequence[Tensor]) -> dict[str, Plane]:
    """The first sample's coefficients, by the size of the skip connection, coarse to fine."""
    return {name: plane(gate[:1]) for name, gate in zip(_SKIPS, gates, strict=True)}


def _dice(moving: Labels | None, fixed: Labels | None, displacement: Displacement) -> float | None:
    if moving is None or fixed is None:
        return None
    return fmean(metrics.dice(warp_labels(moving, displacement), fixed).values())
