"""There and back again: an image on its way along a velocity, and whether each voxel comes home."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from regkit.fields import compose, exponential, resize_displacement, warp
from regkit.figures.paint import draw_lines, render_bar, render_grid, render_image, render_point, write
from regkit.figures.pixels import (
    ERRORS,
    FOLD,
    LINE,
    NIGHT,
    PAPER,
    POINT,
    FieldPlane,
    Picture,
    Plane,
    colour,
    darken,
    enlarge,
    field_plane,
    field_volume,
    integer_scale,
    intensity_limits,
    lengths,
    nice_limit,
    plane,
    stack,
)
from regkit.models import SPNet
from regkit.models.spnet import half_voxel_off
from regkit.types import Displacement, Image, InputError, Pair, spatial
from regkit.widgets.live import View
from regkit.widgets.panels import Directions, FieldVolume, Panel, Quantities, error_panel, make_panels, pick
from regkit.widgets.scene import Button, Choice, ClassScene, Control, Slider, State, Toggle
from regkit.widgets.slices import Slices, Staged

_PIXELS, _LINES = 256, 16  # a panel's longer side; lines of a grid along it

_WINDOW, _ZOOM = (12, 21), 21  # rows and columns of the close-up; pixels of a voxel in it

_STOPS = 6  # places along a voxel's way, each way

_DARK = 0.1  # of the range of intensities: background

_REMEMBERED = 12  # journeys

_BACK = {"asking again, (B, A)": "again", "the inverse it gave": "inverse"}

_SAMPLERS: dict[str, Callable[[Displacement, Displacement], Displacement]] = {
    "aligned": compose,
    "released": lambda first, then: then + half_voxel_off(first, then),
}


@dataclass(frozen=True, eq=False)
class Velocities:
    """What one network found: velocities (1, 2, H, W), voxels per unit time.

    there: its exponential warps A onto B. inverse: the way back that came with it. again: what the network says when it
    is asked for (B, A).
    """

    there: Displacement
    inverse: Displacement
    again: Displacement


@dataclass(frozen=True, eq=False)
class Journey:
    """Every voxel's way there and back: displacements at equal times along each, and E(x), the gap that is left."""

    there: list[FieldPlane]
    back: list[FieldPlane]
    error: FieldPlane

    def path(self, place: tuple[int, int]) -> tuple[FieldPlane, FieldPlane]:
        """The places (N, 2) that a voxel passes on its way there, and back from where it came."""
        start = np.array(place, np.float32)
        out = np.stack([start, *(start + field[:, place[0], place[1]] for field in self.there)])
        fields = torch.from_numpy(np.stack(self.back)), torch.from_numpy(self.there[-1])[None]
        home = [compose(field[None], fields[1])[0, :, place[0], place[1]].numpy() for field in fields[0]]
        return out, np.stack([out[-1], *(start + each for each in home)])


@dataclass(frozen=True, eq=False)
class ThereAndBack(ClassScene):
    """An image on its way to the other; a voxel followed there and back; how far from home every voxel ends.

    images: A and B. found: of each network by name. limit: the error, in voxels, at which its colours are full.
    """

    images: tuple[Plane, Plane]
    found: Mapping[str, Velocities]
    limit: float

    def controls(self) -> dict[str, Control]:
        """The network, the time, how it is integrated, the way back, and the voxel that is followed."""
        place = self.farthest({"time": 1.0, **self._first})
        rows, columns = (size - 1 for size in self.images[0].shape)
        return {
            "network": Choice("network", list(self.found)),
            "time": Slider("time t", 1.0, -1.0, 1.0, 0.05),
            "back": Choice("way back", list(_BACK)),
            "squarings": Slider("squarings", 7, 0, 8),
            "sampler": Choice("sampler", list(_SAMPLERS)),
            "row": Slider("row of the voxel", place[0], 0, rows),
            "column": Slider("column of the voxel", place[1], 0, columns),
            "farthest": Button("go to the farthest"),
        }

    @property
    def _first(self) -> dict[str, Any]:
        first = {"network": next(iter(self.found)), "back": next(iter(_BACK))}
        return {**first, "squarings": 7, "sampler": next(iter(_SAMPLERS))}

    def farthest(self, state: State) -> tuple[int, int]:
        """The voxel that ends farthest from home, of those that are not background."""
        low, high = intensity_limits(*self.images)
        size = lengths(self._journey(state).error) * (self._ends(state)[1] > low + _DARK * (high - low))
        row, column = np.unravel_index(int(size.argmax()), size.shape)
        return int(row), int(column)

    def press(self, button: str, state: State) -> dict[str, Any]:
        """To the voxel farthest from home."""
        return dict(zip(("row", "column"), self.farthest(state), strict=True))

    def render(self, state: State) -> Picture:
        """Five panels: on its way, where it should arrive, its grid; one voxel close up, and all errors."""
        journey, (source, target), names = self._journey(state), self._ends(state), self._names(state)
        place = state["row"], state["column"]
        u = journey.there[-1]
        flowing = plane(warp(torch.from_numpy(source)[None, None], torch.from_numpy(u)[None]))
        grid = render_grid(darken(self._paint(source), 0.6), u, every=max(1, max(source.shape) // _LINES))
        error = enlarge(colour(lengths(journey.error), ERRORS, (0, self.limit)), self._scale)
        above = [
            self._panel(f"{names[0]} on its way, t = {state['time']:.2f}", self._paint(flowing)),
            self._panel(f"{names[1]}: the goal", render_point(self._paint(target), place, target.shape)),
            self._panel(f"its grid, on {names[0]}", grid),
        ]
        legend = render_bar(ERRORS, (0, self.limit), width=error.shape[1], unit="voxels")
        below = [
            stack(self._panel("how far from home", render_point(error, place, target.shape)), legend),
            self._panel("the voxel under the cross, close up", self._close_up(journey, target, place)),
        ]
        return stack(stack(*above, axis=1), stack(*below, axis=1))

    def describe(self, state: State) -> str:
        """Who is on the way where, and how far from home all voxels and the chosen one end."""
        journey, names = self._journey(state), self._names(state)
        size = lengths(journey.error)
        row, column = place = state["row"], state["column"]
        goal = ", ".join(f"{index:.1f}" for index in journey.path(place)[0][-1])
        return (
            f"{state['network']}, t = {state['time']:.2f}: {names[0]} on its way to {names[1]}, and back by "
            f"{state['back']}; {state['squarings']} squarings, {state['sampler']} sampler. Voxel ({row}, {column}) of "
            f"{names[1]} goes (blue) to ({goal}) of {names[0]}, comes back (yellow), and ends {size[place]:.3f} voxels "
            f"from home (orange; the square). All voxels: mean {size.mean():.3f}, at most {size.max():.2f}."
        )

    def _names(self, state: State) -> str:
        """Which image is on its way, and which is the goal."""
        return "BA" if state["time"] < 0 else "AB"

    def _ends(self, state: State) -> tuple[Plane, Plane]:
        first, second = self.images
        return (second, first) if state["time"] < 0 else (first, second)

    def _journey(self, state: State) -> Journey:
        return self._made(*(state[name] for name in ("network", "time", "back", "squarings", "sampler")))

    @functools.cached_property
    def _made(self) -> Callable[..., Journey]:
        return functools.lru_cache(_REMEMBERED)(self._travel)

    def _travel(self, network: str, time: float, back: str, squarings: int, sampler: str) -> Journey:
        """Integrate both ways at once; the round trip itself is always composed correctly."""
        ways = self.found[network].there, getattr(self.found[network], _BACK[back])
        times = [abs(time) * stop / _STOPS for stop in range(1, _STOPS + 1)]
        velocities = torch.cat([part * way for way in (reversed(ways) if time < 0 else ways) for part in times])
        fields = exponential(velocities, steps=squarings, composition=_SAMPLERS[sampler])
        there, home = fields.chunk(2)
        return Journey([*there.numpy()], [*home.numpy()], compose(home[-1:], there[-1:])[0].numpy())

    @functools.cached_property
    def _scale(self) -> int:
        return integer_scale(self.images[0].shape, _PIXELS)

    def _paint(self, image: Plane) -> Picture:
        return render_image(image, limits=intensity_limits(*self.images), scale=self._scale)

    def _close_up(self, journey: Journey, target: Plane, place: tuple[int, int]) -> Picture:
        """The voxel's way over the goal: there in blue, back in yellow, what is left in orange; a square is home."""
        out, home = journey.path(place)
        shape = np.minimum(_WINDOW, target.shape)
        middle = np.rint((out[0] + out[-1]) / 2).astype(int) - shape // 2
        corner = np.clip(middle, 0, np.array(target.shape) - shape)
        (row, column), (height, width) = corner, shape
        crop = target[row : row + height, column : column + width]
        picture = darken(render_image(crop, limits=intensity_limits(*self.images), scale=_ZOOM), 0.5)
        square = out[0] + np.array([(-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1)]) / 4
        lines = (square, PAPER, 1.5), (out, LINE, 4.0), (home, POINT, 2.0), (np.stack([home[-1], out[0]]), FOLD, 4.0)
        for points, paint, thickness in lines:
            picture = draw_lines(picture, [(points - corner + 0.5) * _ZOOM], thickness, paint)
        return picture

    def _panel(self, title: str, picture: Picture) -> Picture:
        head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
        return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])


def there_and_back(networks: Mapping[str, nn.Module], pair: Pair, *, item: int = 0) -> View:
    """Let A flow towards B and back, as each of several networks says, and follow one voxel.

    networks: by name; each gives a velocity. pair: 2D; A is moving, B is fixed. item: which of a batch.

    Raises:
        ValueError, IndexError: no network, or one without a velocity; volumes; no such item.
    """
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    images = plane(moving, "moving"), plane(fixed, "fixed")
    found = {name: _velocities(name, network, moving, fixed) for name, network in networks.items()}
    if not found:
        raise InputError("there must be a network", "none", "give SPNet models by name")
    errors = [exponential(each.again) for each in found.values()], [exponential(each.there) for each in found.values()]
    worst = max(float(compose(*each).norm(dim=1).quantile(0.99)) for each in zip(*errors, strict=True))
    return View(ThereAndBack(images, found, nice_limit(worst)))


def _velocities(name: str, network: nn.Module, moving: Any, fixed: Any) -> Velocities:
    """Ask a network for both orders."""
    with torch.no_grad():
        there, again = network(moving, fixed), network(fixed, moving)
    if there.velocity is None:
        raise InputError("a network must give a velocity to be integrated", f"none from {name!r}", "leave it out")
    both = getattr(there, "velocities", ())
    inverse = both[-1][len(moving) :] if both else -there.velocity
    field_plane(there.velocity, f"the velocity of {name!r}")
    return Velocities(there.velocity, inverse, again.velocity)


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
        raise InputError(
            "a network must be asked both ways to have two answers",
            "one with one direction",
            "make it with symmetric=True and bidirectional=True",
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
        raise InputError("there must be a network", "none", "give SPNet models by name")
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
