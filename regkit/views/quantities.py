"""What can be seen of one registered pair, each computed once, when a panel first asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regkit.fields import compose, jacobian_determinant, warp, warp_labels
from regkit.types import Displacement, Pair
from regkit.views import panels
from regkit.views.drawing import (
    Limits,
    check_same_shape,
    displacement_limit,
    field_volume,
    intensity_limits,
    label_volume,
    volume,
)
from regkit.views.panels import FieldVolume, Panel, Volume


def determinant(displacement: FieldVolume) -> Volume:
    """|J| (*space) of a displacement (dim, *space)."""
    return jacobian_determinant(torch.from_numpy(displacement)[None])[0, 0].numpy()


def pick(tensor: Tensor, item: int) -> Tensor:
    """One item of a batch, on the CPU, still with its batch axis; a batch of one serves for all."""
    if len(tensor) > 1 and not 0 <= item < len(tensor):
        raise IndexError(f"item must be from 0 to {len(tensor) - 1}, received {item}; choose one of them.")
    tensor = tensor.detach().cpu()
    return tensor if len(tensor) == 1 else tensor[[item]]


@dataclass(frozen=True, eq=False)
class Quantities:
    """One item of a pair and what a displacement makes of it, as arrays (*space) and (dim, *space).

    inverse: of the displacement, for the inverse-consistency error; None where there is none. reach: the
    range of displacements, voxels, where several are compared; by default what this one needs.

    Raises:
        ValueError, IndexError: a displacement on another grid, NaN, no such item (when a quantity is asked for).
    """

    pair: Pair
    displacement: Displacement
    inverse: Displacement | None = None
    item: int = 0
    reach: float | None = None

    def __post_init__(self) -> None:
        check_same_shape(self.displacement.shape[2:], self.pair.fixed.shape[2:], ("displacement", "fixed"))

    @functools.cached_property
    def moving(self) -> Volume:
        return volume(self._pick(self.pair.moving), "moving")

    @functools.cached_property
    def fixed(self) -> Volume:
        return volume(self._pick(self.pair.fixed), "fixed")

    @functools.cached_property
    def warped(self) -> Volume:
        return volume(warp(self._pick(self.pair.moving), self._pick(self.displacement)), "warped")

    @functools.cached_property
    def field(self) -> FieldVolume:
        """The displacement, voxels."""
        return field_volume(self._pick(self.displacement))

    @functools.cached_property
    def determinant(self) -> Volume:
        """|J|."""
        return determinant(self.field)

    @functools.cached_property
    def error(self) -> FieldVolume:
        """What is left of a round trip: E(x) = u(x) + z(x + u(x)), voxels."""
        if self.inverse is None:
            raise ValueError(
                "the inverse-consistency error needs the way back, received a registration with inverse=None; "
                "register fixed onto moving, or leave this panel out."
            )
        return field_volume(compose(self._pick(self.inverse), self._pick(self.displacement)), "error")

    @functools.cached_property
    def limits(self) -> Limits:
        """One range for all images."""
        return intensity_limits(self.moving, self.fixed)

    @functools.cached_property
    def limit(self) -> float:
        """One range for all displacements, voxels."""
        return displacement_limit(self.field) if self.reach is None else self.reach

    def labels(self, name: str) -> Volume:
        """The fixed labels, or the moving ones warped."""
        moving, fixed = self.pair.moving_labels, self.pair.fixed_labels
        if moving is None or fixed is None:
            raise ValueError("panels of labels need a pair with labels, received none; leave them out.")
        if name == "fixed":
            return label_volume(self._pick(fixed), "fixed_labels")
        return label_volume(warp_labels(self._pick(moving), self._pick(self.displacement)), "warped labels")

    def _pick(self, tensor: Tensor) -> Tensor:
        return pick(tensor, self.item)


def _image(name: str) -> Callable[[Quantities], list[Panel]]:
    return lambda q: [panels.Intensities(name, getattr(q, name), q.limits)]


def _labels(name: str) -> Callable[[Quantities], list[Panel]]:
    return lambda q: [
        panels.LabelMap(f"{name} labels", q.labels(name), panels.Intensities(name, getattr(q, name), q.limits))
    ]


def _checkerboard(q: Quantities) -> list[Panel]:
    warped, fixed = (panels.Intensities(name, getattr(q, name), q.limits) for name in ("warped", "fixed"))
    return [panels.Checkerboard("checkerboard", warped, fixed)]


def _grid(q: Quantities) -> list[Panel]:
    below = panels.Intensities("moving", q.moving, q.limits)
    return [panels.GridLines("grid x + u(x), on moving", q.field, below, max(1, max(q.fixed.shape) // 16))]


PANELS: Mapping[str, Callable[[Quantities], list[Panel]]] = {
    "moving": _image("moving"),
    "fixed": _image("fixed"),
    "warped": _image("warped"),
    "before": lambda q: [panels.difference_panel("before: moving - fixed", q.moving, q.fixed, q.limits)],
    "difference": lambda q: [panels.difference_panel("after: warped - fixed", q.warped, q.fixed, q.limits)],
    "checkerboard": _checkerboard,
    "fixed labels": _labels("fixed"),
    "warped labels": _labels("warped"),
    "components": lambda q: [panels.component_panel(q.field, axis, q.limit) for axis in range(len(q.field))],
    "directions": lambda q: [panels.Directions("displacement u", q.field, q.limit)],
    "grid": _grid,
    "jacobian": lambda q: [panels.Determinant("|J|", q.determinant)],
    "folds": lambda q: [
        panels.FoldMask("folds, on fixed", q.determinant, panels.Intensities("fixed", q.fixed, q.limits))
    ],
    "error": lambda q: [panels.error_panel("inverse-consistency error", q.error, displacement_limit(q.error))],
}


def make_panels(quantities: Quantities, names: Sequence[str]) -> list[Panel]:
    """The panels of these names, in this order.

    Raises:
        ValueError: an unknown name, or a panel whose labels or inverse are not there.
    """
    unknown = [name for name in names if name not in PANELS]
    if unknown:
        raise ValueError(f"a panel must be one of {', '.join(PANELS)}, received {unknown}; choose some of them.")
    return [panel for name in names for panel in PANELS[name](quantities)]
