"""SPnet's levels: what it answers for (A, B), what for (B, A), their mean, and how far apart they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from regkit.fields import resize_displacement
from regkit.models import SPNet
from regkit.types import Displacement, Image, Pair, spatial
from regkit.views.controls import Choice, Control, Slider, State, Toggle
from regkit.views.drawing import field_volume, lengths, nice_limit
from regkit.views.panels import Directions, FieldVolume, Panel, error_panel
from regkit.views.quantities import Quantities, make_panels, pick
from regkit.views.slices import Slices
from regkit.views.stages import Staged
from regkit.widgets import View

_BELOW = ("warped", "fixed", "difference", "grid")  # the panels below the answers


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says at one level, on the full grid, in its voxels, (1, dim, *space).

    there: v̂_AB. back: v̂_BA. used: the velocity from which A is warped onto B. displacement: of that velocity.
    shape: of the level's own grid.
    """

    there: Displacement
    back: Displacement
    used: Displacement
    displacement: Displacement
    shape: tuple[int, ...]

    @functools.cached_property
    def disagreement(self) -> FieldVolume:
        """v̂_AB + v̂_BA, which would be zero if both answers told of the same road."""
        return field_volume(self.there + self.back)


def ask(network: SPNet, moving: Image, fixed: Image) -> list[Answers]:
    """What a network says at each level, coarse to fine, before it averages.

    moving, fixed: (1, 1, *space).

    Raises:
        ValueError: the network answers for one direction only.
    """
    said: list[Displacement] = []
    hooks = [each.register_forward_hook(lambda _, __, told: said.append(told[0])) for each in network.estimators]
    try:
        with torch.no_grad():
            found = network(moving, fixed)
    finally:
        for hook in hooks:
            hook.remove()
    if len(said[0]) != 2:
        raise ValueError(
            "a network must be asked both ways to have two answers, received one with one direction; make it with "
            "symmetric=True and bidirectional=True."
        )
    full = functools.partial(resize_displacement, shape=spatial(fixed))
    return [
        Answers(full(both[:1]), full(both[1:]), full(used[:1]), full(displacement[:1]), spatial(both))
        for both, used, displacement in zip(said, found.velocities, found.displacements, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Witnesses(Staged):
    """One level of one network at a time: both answers, what is made of them, and A as warped so far.

    pair: of batch 1. calls: of each network by name, its levels for (A, B) and for (B, A). limits: in voxels, of the
    answers and of their disagreement, for each network. reach: of the velocities that are used, for all of them.
    """

    pair: Pair
    calls: Mapping[str, tuple[list[Answers], list[Answers]]]
    limits: Mapping[str, float]
    reach: float
    upright: bool = False

    def own_controls(self) -> dict[str, Control]:
        """Which network, which level, and which image comes first."""
        network = {"network": Choice("network", list(self.calls))} if len(self.calls) > 1 else {}
        return {
            **network,
            "level": Slider("level, coarse to fine", self._levels, 1, self._levels),
            "swapped": Toggle("swap A and B", False),
        }

    def stage(self, state: State) -> Slices:
        """The panels at this level."""
        return self._made(state.get("network", next(iter(self.calls))), state["level"], state["swapped"])

    def first(self) -> Slices:
        """The panels at the last level of the first network."""
        return self._made(next(iter(self.calls)), self._levels, False)

    def words(self, state: State) -> str:
        """The level, its size, and how far apart the two answers are."""
        name, level = state.get("network", next(iter(self.calls))), state["level"]
        answers, (first, second) = self.calls[name][state["swapped"]][level - 1], _order(state["swapped"])
        size = " x ".join(map(str, answers.shape))
        apart, mean = lengths(answers.disagreement), lengths(field_volume((answers.there - answers.back) / 2))
        return (
            f"{name}({first}, {second}), level {level} of {self._levels}, coarse to fine, on {size} voxels. The mean "
            f"of both answers is {mean.mean():.2f} voxels of the full grid long on average; they disagree by "
            f"{apart.mean():.2f} on average, {apart.max():.2f} at most."
        )

    @functools.cached_property
    def _levels(self) -> int:
        return min(len(there) for there, _ in self.calls.values())

    @functools.cached_property
    def _made(self) -> Callable[[str, int, bool], Slices]:
        return functools.cache(self._make)

    def _make(self, name: str, level: int, swapped: bool) -> Slices:
        answers, (first, second) = self.calls[name][swapped][level - 1], _order(swapped)
        images = self.pair.fixed, self.pair.moving
        pair = Pair(*images, spacing=self.pair.spacing) if swapped else self.pair
        limit = self.limits[name]
        above: list[Panel] = [
            Directions(f"answer to ({first}, {second})", field_volume(answers.there), limit, "v"),
            Directions(f"minus the answer to ({second}, {first})", field_volume(-answers.back), limit, "v"),
            error_panel("how far they disagree", answers.disagreement, 2 * limit),
            Directions("velocity that is used", field_volume(answers.used), self.reach, "v"),
        ]
        return Slices(
            [*above, *make_panels(Quantities(pair, answers.displacement), _BELOW)], pair.spacing, self.upright
        )


def _order(swapped: bool) -> tuple[str, str]:
    return ("B", "A") if swapped else ("A", "B")


def two_witnesses(networks: Mapping[str, SPNet], pair: Pair, *, item: int = 0, upright: bool = False) -> View:
    """Run through SPnet's levels: its answers for both orders of the images, before and after they are averaged.

    networks: by name, with equally many levels, each asked both ways. pair: A is moving, B is fixed. item: which of a
    batch. upright: as of `widgets.compare`. Each level is brought to the full grid, in its voxels. One range for the
    answers of a network, one for the velocities that are used by all.

    Raises:
        ValueError, IndexError: no network, or one that answers for one direction only; no such item.
    """
    if not networks:
        raise ValueError("there must be a network, received none; give SPNet models by name.")
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    calls = {name: (ask(each, moving, fixed), ask(each, fixed, moving)) for name, each in networks.items()}
    levels = {name: [answers for call in both for answers in call] for name, both in calls.items()}
    limits = {
        name: _limit([field for each in found for field in (each.there, each.back)]) for name, found in levels.items()
    }
    reach = _limit([each.used for found in levels.values() for each in found])
    return View(Witnesses(Pair(moving, fixed, spacing=pair.spacing), calls, limits, reach, upright))


def _limit(fields: Sequence[Displacement]) -> float:
    """A round number of voxels that 99 of 100 do not exceed."""
    return nice_limit(max(float(torch.quantile(field.norm(dim=1), 0.99)) for field in fields))
