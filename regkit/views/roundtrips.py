"""From A to B and back, as each of several networks goes: its image, its map, and what is left of φ_AB∘φ_BA."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from regkit.fields import compose
from regkit.losses import gradicon, icon
from regkit.types import Displacement, Pair, Registration, check_same_grid
from regkit.views.controls import Choice, Control, State, Toggle
from regkit.views.drawing import displacement_limit, field_volume
from regkit.views.panels import GridLines, Panel, error_panel
from regkit.views.quantities import Quantities, make_panels, pick
from regkit.views.slices import Slices
from regkit.views.stages import Staged
from regkit.widgets import View

_ABOVE, _BELOW = ("fixed", "warped", "grid"), ("jacobian",)  # around the two panels of the round trip


@dataclass(frozen=True, eq=False)
class RoundTrips(Staged):
    """One network at a time: fixed, warped, the map on moving; the round trip as a grid and as an error; |J|.

    pair: of batch 1. maps: of each network by name, φ_AB and φ_BA, (1, dim, *space), voxels. notes: a sentence for some
    of them. limit: the error, in voxels, at which its colours are full.
    """

    pair: Pair
    maps: Mapping[str, tuple[Displacement, Displacement]]
    notes: Mapping[str, str]
    limit: float

    def own_controls(self) -> dict[str, Control]:
        """Whose answer is shown."""
        return {"network": Choice("network", list(self.maps))}

    def controls(self) -> dict[str, Control]:
        """Whose answer, and the slice viewer's controls; cross hairs only where they are asked for."""
        return {**super().controls(), "crosshair": Toggle("cross hairs", False)}

    def hidden(self, state: State) -> set[str]:
        """Without cross hairs, what moves them."""
        return set() if state["crosshair"] else set(self.first().controls()) - {"crosshair"}

    def stage(self, state: State) -> Slices:
        """The panels of this network."""
        return self._made(state["network"])

    def first(self) -> Slices:
        """The panels of the first one."""
        return self._made(next(iter(self.maps)))

    def words(self, state: State) -> str:
        """What is left of image and round trip, what both penalties are, and the folds."""
        name = state["network"]
        return f"{name}: {self._numbers(name)} {self.notes.get(name, '')}".strip()

    @functools.cached_property
    def _made(self) -> Callable[[str], Slices]:
        return functools.cache(self._make)

    @functools.cached_property
    def _numbers(self) -> Callable[[str], str]:
        return functools.cache(self._in_words)

    def _make(self, name: str) -> Slices:
        there, back = self.maps[name]
        seen = Quantities(self.pair, there)
        left = field_volume(compose(there, back), "round trip")
        every = max(1, max(seen.fixed.shape) // 16)
        trip: list[Panel] = [
            GridLines("grid of the round trip", left, None, every),
            error_panel("|E| of the round trip", left, self.limit),
        ]
        return Slices([*make_panels(seen, _ABOVE), *trip, *make_panels(seen, _BELOW)], self.pair.spacing)

    def _in_words(self, name: str) -> str:
        there, back = self.maps[name]
        seen = Quantities(self.pair, there)
        misfit = float(((seen.warped - seen.fixed) ** 2).mean())
        error = compose(there, back).norm(dim=1)
        penalties = float(icon(there, back)), float(gradicon(there, back, orders="both"))
        return (
            f"mean (warped - fixed)² {misfit:.4f}; {int((seen.determinant <= 0).sum())} folded voxels; E(x) = "
            f"φ_AB(φ_BA(x)) - x is {error.mean():.2f} voxels long on average, {error.max():.2f} at most; ICON "
            f"{penalties[0]:.2e}, GradICON {penalties[1]:.2e} (without weights)."
        )


def round_trip_viewer(
    pair: Pair,
    registrations: Mapping[str, Registration],
    *,
    notes: Mapping[str, str] | None = None,
    item: int = 0,
    limit: float | None = None,
) -> View:
    """Choose a network; see its image, its map, and where the way from A to B and back ends.

    pair: A is moving, B fixed. registrations: by name, each with its inverse (φ_BA). notes: a sentence for some names.
    item: which of a batch. limit: the error, in voxels, at which its colours are full; by default what none exceeds.

    Raises:
        ValueError, IndexError: no registration, one without an inverse or on another grid, an unknown name, NaN.
    """
    unknown = set(notes or {}) - set(registrations)
    lacking = [name for name, found in registrations.items() if found.inverse is None]
    if not registrations or unknown or lacking:
        raise ValueError(
            f"there must be registrations, each with its inverse, and notes only for them; received "
            f"{list(registrations)}, of which {lacking} have no inverse, and notes for {sorted(unknown)}."
        )
    maps = {}
    for name, found in registrations.items():
        assert found.inverse is not None
        check_same_grid(pair.fixed, found.displacement, ("fixed", f"the displacement of {name!r}"))
        check_same_grid(found.displacement, found.inverse, ("displacement", f"the inverse of {name!r}"))
        maps[name] = pick(found.displacement, item), pick(found.inverse, item)
    longest = max(displacement_limit(field_volume(compose(*both), "round trip")) for both in maps.values())
    shown = Pair(pick(pair.moving, item), pick(pair.fixed, item), spacing=pair.spacing)
    return View(RoundTrips(shown, maps, dict(notes or {}), longest if limit is None else limit))
