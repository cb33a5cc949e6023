"""Is this map the inverse of that one? The two in a row, as a grid, as an error and in numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regkit.fields import compose, difference
from regkit.figures.pixels import check_same_shape, displacement_limit, field_volume, lengths
from regkit.figures.planes import Place
from regkit.types import Displacement, InputError
from regkit.widgets import Choice, Control, Slider, State, Toggle, View
from regkit.widgets.panels import Determinant, Directions, GridLines, Panel, determinant, error_panel
from regkit.widgets.slices import linked

_ORDERS = ("φ∘ψ", "ψ∘φ")
_REMEMBERED = 6  # settings of the controls
_KEPT = 0.005  # |J| is 1 but for this


@dataclass(frozen=True, eq=False)
class RoundTrip(Determinant):
    """|J| of a map that should be the identity: no image is warped by it."""

    def words(self, place: Place) -> str:
        value = float(self.determinant[place])
        said = "it folds" if value <= 0 else f"a region there becomes {value:.2f} times as large"
        return f"{self.title} = {value:.3f}, {'sizes are kept' if abs(value - 1) < _KEPT else said}"


def composition_inspector(
    displacement: Displacement,
    inverses: Mapping[str, Displacement],
    *,
    item: int = 0,
    limit: float | None = None,
    spacing: Sequence[float] = (),
    upright: bool = False,
) -> View:
    """Look at φ∘ψ and ψ∘φ for each ψ that claims to undo φ, such as the two directions of a network.

    displacement: of φ, (B, dim, *space), voxels. inverses: of each ψ by name, likewise. item: which of a batch. limit:
    the error, in voxels, at which the colours are full; by default what none of them exceeds. spacing: mm; by
    default places are told in voxels only. upright: as of `widgets.compare`.

    Raises:
        ValueError, IndexError: no ψ, shapes that differ, NaN.
    """
    if not inverses:
        raise InputError("inverses must hold at least one displacement by name", "none", "give it one to inspect")
    field = field_volume(displacement, "displacement", item)
    residuals = {}  # E(x) by order and name, (dim, *space), voxels
    for name, inverse in inverses.items():
        candidate = field_volume(inverse, f"inverses[{name!r}]", item)
        check_same_shape(field.shape[1:], candidate.shape[1:], ("displacement", f"inverses[{name!r}]"))
        phi, psi = (torch.from_numpy(each)[None] for each in (field, candidate))
        for order, (first, then) in zip(_ORDERS, ((phi, psi), (psi, phi)), strict=True):
            residuals[order, name] = field_volume(compose(first, then))
    full = max(displacement_limit(residual) for residual in residuals.values()) if limit is None else limit
    determinants = {key: determinant(residual) for key, residual in residuals.items()}
    numbers = {key: _in_words(residual, determinants[key]) for key, residual in residuals.items()}
    longer = max(field.shape[1:])
    controls: dict[str, Control] = {
        "inverse": Choice("ψ", list(inverses)),
        "more": Toggle("more controls", False),
        "order": Choice("order", _ORDERS),
        "every": Slider("one line every (voxels)", max(1, longer // 16), 1, max(2, longer // 6)),
        "stretch": Slider("scale of E in the grid", 1.0, 0.0, 20.0, 0.5),
    }

    @functools.lru_cache(_REMEMBERED)
    def made(order: str, name: str, every: int, stretch: float) -> list[Panel]:
        residual = residuals[order, name]
        return [
            GridLines("grid x + E(x)", residual, None, every, stretch),
            Directions("E", residual, full, "E"),
            error_panel("|E|", residual, full),
            RoundTrip("|J| of the round trip", determinants[order, name]),
        ]

    def panels(state: State) -> list[Panel]:
        return made(state["order"], state["inverse"], state["every"], state["stretch"])

    def words(state: State) -> str:
        """How far voxels come out from where they began, and whether the composition folds."""
        order, name = state["order"], state["inverse"]
        shown = f" The grid shows E {state['stretch']:g} times as long." if state["stretch"] != 1 else ""
        return (
            f"{order} with ψ by {name}: its grid, and E(x) = {order}(x) - x. An inverse leaves the grid straight and "
            f"E = 0. {numbers[order, name]}{shown}"
        )

    scene = linked(panels, controls, words, spacing=spacing, upright=upright)
    others = set(scene.controls) - {"inverse", "more"}
    return View(replace(scene, hidden=lambda state: set() if state["more"] else others))


def _in_words(residual: NDArray[Any], folds: NDArray[Any]) -> str:
    """Lengths and gradient of what should be zero, and the folds."""
    size, tensor = lengths(residual), torch.from_numpy(residual)[None]
    gradient = sum(float(difference(tensor, axis).square().sum()) for axis in range(len(residual))) / size.size
    return (
        f"|E|: mean {size.mean():.3f}, 95 % below {np.quantile(size, 0.95):.3f}, at most {size.max():.3f} voxels. "
        f"Slopes of E, squared and summed (GradICON's penalty): mean {gradient:.2e}. "
        f"{int((folds <= 0).sum())} folded voxels."
    )
