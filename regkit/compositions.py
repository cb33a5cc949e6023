"""Is this map the inverse of that one? The two in a row, as a grid, as an error and in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from regkit.controls import Choice, Control, Scene, Slider, State
from regkit.drawing import (
    FieldPlane,
    Picture,
    blank,
    check_same_plane,
    displacement_limit,
    field_plane,
    integer_scale,
    stack,
)
from regkit.fields import compose, jacobian_determinant
from regkit.pictures import render_displacement, render_grid, render_wheel
from regkit.types import Displacement
from regkit.widgets import View

_ORDERS = ("φ∘ψ", "ψ∘φ")


@dataclass(frozen=True, eq=False)
class Composition(Scene):
    """What is left of φ∘ψ or ψ∘φ, for each ψ that may be the inverse of φ: its grid, and each voxel's error."""

    displacement: FieldPlane
    inverses: Mapping[str, FieldPlane]
    residuals: Mapping[tuple[str, str], FieldPlane]  # by order and name
    limit: float

    def controls(self) -> dict[str, Control]:
        """Which candidate, in which order, and how dense the grid is."""
        longer = max(self.displacement.shape[1:])
        return {
            "inverse": Choice("ψ", list(self.inverses)),
            "order": Choice("order", _ORDERS),
            "every": Slider("one line every (voxels)", max(1, longer // 20), 1, max(2, longer // 6)),
        }

    def render(self, state: State) -> Picture:
        """The grid of the composition, its residual displacement, and the key of the colours."""
        residual = self.residuals[state["order"], state["inverse"]]
        scale = integer_scale(residual.shape)
        grid = render_grid(blank(residual.shape, scale), residual, every=state["every"])
        error = render_displacement(residual, limit=self.limit, scale=scale)
        panels = stack(grid, error, axis=1)
        return stack(panels, render_wheel(self.limit, width=max(panels.shape[1], 340)))

    def describe(self, state: State) -> str:
        """How far voxels come out from where they began, and whether the composition folds."""
        residual = self.residuals[state["order"], state["inverse"]]
        length = np.hypot(*residual)
        determinant = jacobian_determinant(torch.from_numpy(residual)[None])
        return (
            f"{state['order']} with ψ by {state['inverse']}: its grid, and E(x) = {state['order']}(x) - x. An inverse "
            f"leaves the grid straight and E = 0. |E|: mean {length.mean():.3f}, 95 % below "
            f"{np.quantile(length, 0.95):.3f}, at most {length.max():.3f} voxels; "
            f"{int((determinant <= 0).sum())} folded voxels."
        )


def composition_inspector(
    displacement: Displacement, inverses: Mapping[str, Displacement], *, item: int = 0, limit: float | None = None
) -> View:
    """Look at φ∘ψ and ψ∘φ for each ψ that claims to undo φ, such as the two directions of a network.

    displacement: of φ, (B, 2, H, W), voxels. inverses: of each ψ by name, likewise. item: which of a batch. limit: the
    error, in voxels, at which the colours are full; by default what none of them exceeds.

    Raises:
        ValueError, IndexError: no ψ, shapes that differ, NaN, volumes.
    """
    if not inverses:
        raise ValueError("inverses must hold at least one displacement by name, received none; give it one to inspect.")
    field = field_plane(displacement, "displacement", item)
    candidates, residuals = {}, {}
    for name, inverse in inverses.items():
        candidates[name] = field_plane(inverse, f"inverses[{name!r}]", item)
        check_same_plane(field, candidates[name], ("displacement", f"inverses[{name!r}]"))
        phi, psi = (torch.from_numpy(plane)[None] for plane in (field, candidates[name]))
        for order, (first, then) in zip(_ORDERS, ((phi, psi), (psi, phi)), strict=True):
            residuals[order, name] = field_plane(compose(first, then))
    full = max(displacement_limit(residual) for residual in residuals.values()) if limit is None else limit
    return View(Composition(field, candidates, residuals, full))
