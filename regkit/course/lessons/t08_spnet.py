"""SPnet's two answers at every level, before and after they are averaged; and a round trip, voxel by voxel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from regkit.fields import compose, exponential, resize_displacement, warp
from regkit.figures import paint, pixels
from regkit.figures.paint import titled
from regkit.figures.pixels import FieldPlane, Limits, Picture, Plane, field_plane, field_volume, lengths, plane, stack
from regkit.models import SPNet
from regkit.models.spnet import half_voxel_off
from regkit.types import Displacement, Image, InputError, Pair, spatial
from regkit.widgets import Button, Choice, Control, Scene, Slider, State, Toggle, View
from regkit.widgets.panels import Directions, FieldVolume, Panel, Quantities, error_panel, make_panels, pick
from regkit.widgets.slices import linked

# ---------------------------------------------------------------------------------------------- there and back
_WINDOW, _ZOOM = (12, 21), 21  # rows and columns of the close-up; pixels of a voxel in it
_STOPS = 6  # places along a voxel's way, each way
_DARK = 0.1  # of the range of intensities: background
_REMEMBERED = 12  # round trips
_WAYS = {"asking again, (B, A)": "again", "the inverse it gave": "inverse"}
_SAMPLERS: dict[str, Callable[[Displacement, Displacement], Displacement]] = {
    "aligned": compose,
    "released": lambda first, then: then + half_voxel_off(first, then),
}
_START: dict[str, Any] = {"time": 1.0, "back": next(iter(_WAYS)), "squarings": 7, "sampler": "aligned"}


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
class RoundTrip:
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


def there_and_back(networks: Mapping[str, nn.Module], pair: Pair, *, item: int = 0) -> View:
    """Let A flow towards B and back, as each of several networks says, and follow one voxel.

    Five panels: A on its way, where it should arrive, its grid; how far from home each voxel ends, and one close up.
    networks: by name; each gives a velocity. pair: 2D; A is moving, B is fixed. item: which of a batch.

    Raises:
        ValueError, IndexError: no network, or one without a velocity; volumes; no such item.
    """
    A, B = pick(pair.moving, item), pick(pair.fixed, item)
    images = {"A": plane(A, "moving"), "B": plane(B, "fixed")}
    answers = {name: velocities(network, A, B, name) for name, network in networks.items()}
    if not answers:
        raise InputError("there must be a network", "none", "give SPNet models by name")
    shape, limits = A.shape[2:], pixels.intensity_limits(*images.values())
    limit = _limit([compose(exponential(each.again), exponential(each.there)) for each in answers.values()])
    scale = pixels.integer_scale(shape, 256)
    grey = functools.partial(paint.render_image, limits=limits, scale=scale)
    remembered = functools.lru_cache(_REMEMBERED)(lambda network, *settings: round_trip(answers[network], *settings))

    def trip(state: State) -> tuple[RoundTrip, tuple[str, str]]:
        settings = (state[name] for name in ("network", "time", "back", "squarings", "sampler"))
        return remembered(*settings), ("B", "A") if state["time"] < 0 else ("A", "B")

    def press(button: str, state: State) -> dict[str, Any]:
        now, (_, second) = trip(state)
        return _farthest(now.error, images[second] > limits[0] + _DARK * (limits[1] - limits[0]))

    def render(state: State) -> Picture:
        (now, (first, second)), place = trip(state), (state["row"], state["column"])
        source, target, u = images[first], images[second], now.there[-1]
        flowing = plane(warp(torch.from_numpy(source)[None, None], torch.from_numpy(u)[None]))
        error = pixels.enlarge(pixels.colour(lengths(now.error), pixels.ERRORS, (0, limit)), scale)
        key = paint.render_bar(pixels.ERRORS, (0, limit), width=error.shape[1], unit="voxels")
        grid = paint.render_grid(pixels.darken(grey(source), 0.6), u, every=max(1, max(shape) // 16))
        above = {
            f"{first} on its way, t = {state['time']:.2f}": grey(flowing),
            f"{second}: the goal": paint.render_point(grey(target), place, shape),
            f"its grid, on {first}": grid,
        }
        errors = stack(titled("how far from home", paint.render_point(error, place, shape)), key)
        near = titled("the voxel under the cross, close up", _close_up(*now.path(place), target, limits))
        return stack(paint.titled_rows(above), stack(errors, near, axis=1))

    def describe(state: State) -> str:
        (now, (first, second)), place = trip(state), (state["row"], state["column"])
        size, goal = lengths(now.error), ", ".join(f"{index:.1f}" for index in now.path(place)[0][-1])
        return (
            f"{state['network']}, t = {state['time']:.2f}: {first} on its way to {second}, and back by "
            f"{state['back']}; {state['squarings']} squarings, {state['sampler']} sampler. Voxel {place} of {second} "
            f"goes (blue) to ({goal}) of {first}, comes back (yellow), and ends {size[place]:.3f} voxels from home "
            f"(orange; the square). All voxels: mean {size.mean():.3f}, at most {size.max():.2f}."
        )

    start = press("farthest", {"network": next(iter(answers)), **_START})
    return View(Scene(_trip_controls(list(answers), start, shape), render, describe, press=press))


def _trip_controls(networks: Sequence[str], start: Mapping[str, int], shape: Sequence[int]) -> dict[str, Control]:
    """The network, the time, how it is integrated, the way back, and the voxel that is followed, `start` at first."""
    return {
        "network": Choice("network", networks),
        "time": Slider("time t", _START["time"], -1.0, 1.0, 0.05),
        "back": Choice("way back", list(_WAYS)),
        "squarings": Slider("squarings", _START["squarings"], 0, 8),
        "sampler": Choice("sampler", list(_SAMPLERS)),
        "row": Slider("row of the voxel", start["row"], 0, shape[0] - 1),
        "column": Slider("column of the voxel", start["column"], 0, shape[1] - 1),
        "farthest": Button("go to the farthest"),
    }


def velocities(network: nn.Module, A: Image, B: Image, name: str = "the network") -> Velocities:
    """What a network says of both orders of two images (1, 1, H, W).

    Raises:
        ValueError: it gives no velocity.
    """
    with torch.no_grad():
        there, again = network(A, B), network(B, A)
    if there.velocity is None:
        raise InputError("a network must give a velocity to be integrated", f"none from {name!r}", "leave it out")
    both = getattr(there, "velocities", ())
    inverse = both[-1][len(A) :] if both else -there.velocity
    field_plane(there.velocity, f"the velocity of {name!r}")
    return Velocities(there.velocity, inverse, again.velocity)


def round_trip(answer: Velocities, time: float, back: str, squarings: int, sampler: str) -> RoundTrip:
    """Integrate both ways at once, from B where time < 0; the round trip itself is always composed correctly.

    back: the way back, of `_WAYS`. squarings: of each exponential. sampler: of `_SAMPLERS`, for these.
    """
    ways = answer.there, getattr(answer, _WAYS[back])
    times = [abs(time) * stop / _STOPS for stop in range(1, _STOPS + 1)]
    steps = torch.cat([part * way for way in (reversed(ways) if time < 0 else ways) for part in times])
    there, home = exponential(steps, steps=squarings, composition=_SAMPLERS[sampler]).chunk(2)
    return RoundTrip([*there.numpy()], [*home.numpy()], compose(home[-1:], there[-1:])[0].numpy())


def _limit(fields: Iterable[Displacement]) -> float:
    """A round number of voxels that 99 of 100 displacements of each field do not exceed."""
    return pixels.nice_limit(max(float(torch.quantile(field.norm(dim=1), 0.99)) for field in fields))


def _farthest(error: FieldPlane, inside: NDArray[np.bool_]) -> dict[str, int]:
    """The voxel with the largest error, of those inside."""
    size = lengths(error) * inside
    row, column = np.unravel_index(int(size.argmax()), size.shape)
    return {"row": int(row), "column": int(column)}


def _close_up(out: FieldPlane, home: FieldPlane, target: Plane, limits: Limits) -> Picture:
    """A voxel's way over the goal: there in blue, back in yellow, what is left in orange; a square is home."""
    shape = np.minimum(_WINDOW, target.shape)
    middle = np.rint((out[0] + out[-1]) / 2).astype(int) - shape // 2
    corner = np.clip(middle, 0, np.array(target.shape) - shape)
    (row, column), (height, width) = corner, shape
    crop = target[row : row + height, column : column + width]
    picture = pixels.darken(paint.render_image(crop, limits=limits, scale=_ZOOM), 0.5)
    square = out[0] + np.array([(-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1)]) / 4
    gap = np.stack([home[-1], out[0]])
    for points, ink, thickness in (
        (square, pixels.PAPER, 1.5),
        (out, pixels.LINE, 4.0),
        (home, pixels.POINT, 2.0),
        (gap, pixels.FOLD, 4.0),
    ):
        picture = paint.draw_lines(picture, [(points - corner + 0.5) * _ZOOM], thickness, ink)
    return picture


# ---------------------------------------------------------------------------------------------- the two answers
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
    hooks = [each.register_forward_hook(lambda _, __, answer: said.append(answer[0])) for each in network.estimators]
    try:
        with torch.no_grad():
            registration = network(moving, fixed)
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
        for both, used, displacement in zip(said, registration.velocities, registration.displacements, strict=True)
    ]


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
    A, B = pick(pair.moving, item), pick(pair.fixed, item)
    pairs = {("A", "B"): Pair(A, B, spacing=pair.spacing), ("B", "A"): Pair(B, A, spacing=pair.spacing)}
    answers = {
        name: {order: ask(network, both.moving, both.fixed) for order, both in pairs.items()}
        for name, network in networks.items()
    }
    every = {name: [each for levels in both.values() for each in levels] for name, both in answers.items()}
    limits = {name: _limit([v for each in levels for v in (each.there, each.back)]) for name, levels in every.items()}
    reach = _limit([each.used for levels in every.values() for each in levels])
    count = min(len(levels) for both in answers.values() for levels in both.values())

    def level(state: State) -> tuple[str, tuple[str, str], int]:
        order = ("B", "A") if state["swapped"] else ("A", "B")
        return state.get("network", next(iter(networks))), order, state["level"]

    @functools.cache
    def panels(name: str, order: tuple[str, str], level: int) -> list[Panel]:
        answer = answers[name][order][level - 1]
        below = make_panels(Quantities(pairs[order], answer.displacement), ("warped", "fixed", "difference", "grid"))
        return [*_answer_panels(answer, order, limits[name], reach), *below]

    def describe(state: State) -> str:
        name, (first, second), number = level(state)
        answer = answers[name][first, second][number - 1]
        size = " x ".join(map(str, answer.shape))
        apart, mean = lengths(answer.disagreement), lengths(field_volume((answer.there - answer.back) / 2))
        return (
            f"{name}({first}, {second}), level {number} of {count}, coarse to fine, on {size} voxels. The mean "
            f"of both answers is {mean.mean():.2f} voxels of the full grid long on average; they disagree by "
            f"{apart.mean():.2f} on average, {apart.max():.2f} at most."
        )

    controls: dict[str, Control] = {"network": Choice("network", list(networks))} if len(networks) > 1 else {}
    controls |= {"level": Slider("level, coarse to fine", count, 1, count), "swapped": Toggle("swap A and B", False)}
    shown = linked(lambda state: panels(*level(state)), controls, describe, spacing=pair.spacing, upright=upright)
    return View(shown)


def _answer_panels(answer: Answers, order: tuple[str, str], limit: float, reach: float) -> list[Panel]:
    """Both answers as velocities from first to second, how far they are apart, and what is made of them."""
    first, second = order
    return [
        Directions(f"answer to ({first}, {second})", field_volume(answer.there), limit, "v"),
        Directions(f"minus the answer to ({second}, {first})", field_volume(-answer.back), limit, "v"),
        error_panel("how far they disagree", answer.disagreement, 2 * limit),
        Directions("velocity that is used", field_volume(answer.used), reach, "v"),
    ]
