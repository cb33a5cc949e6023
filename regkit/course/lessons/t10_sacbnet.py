"""SACB-Net's matching under a microscope: nine scores at a voxel, their softmax, and the arrow that is their mean."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit.fields import average_pool, compose, upsample, warp
from regkit.figures.paint import (
    draw_lines,
    render_difference,
    render_displacement,
    render_image,
    render_labels,
    render_point,
    render_wheel,
    write,
)
from regkit.figures.pixels import (
    DIFFERENCES,
    INK,
    LABELS,
    NIGHT,
    PAPER,
    POINT,
    Colour,
    Limits,
    Picture,
    Plane,
    blank,
    colour,
    darken,
    enlarge,
    integer_scale,
    intensity_limits,
    nice_limit,
    plane,
    stack,
)
from regkit.models.layers import pad_to_multiple
from regkit.models.sacbnet import LEVELS, SACB, Match, SACBNet, soft_argmax
from regkit.types import Displacement, Image, InputError, Pair, spatial
from regkit.widgets.live import View
from regkit.widgets.panels import pick
from regkit.widgets.scene import Choice, ClassScene, Control, Slider, State, Stops

SHARES: Picture = DIFFERENCES[127::-1]  # a share or a weight, from near-white at 0 to dark blue at 1

_LUMINANCE = np.array([0.299, 0.587, 0.114])

_DARK = 128  # luminance of a colour, below which numbers on it are written in white


def readable(paint: NDArray[np.uint8]) -> Colour:
    """White on dark, ink on bright colours."""
    return PAPER if paint @ _LUMINANCE < _DARK else INK


def titled(title: str, picture: Picture) -> Picture:
    """A picture under its title."""
    head = np.full((24, picture.shape[1], 3), NIGHT, np.uint8)
    return np.concatenate([write(head, [(12, 6, "lm", title)], PAPER), picture])


def render_cells(values: Plane, *, table: Picture, limits: Limits, side: int, words: str | None = ".2f") -> Picture:
    """Each value of a small plane as a cell of `side` pixels in the table's colour; `words`: its number's format."""
    small = colour(values, table, limits)
    picture = enlarge(small, side)
    picture[::side] = picture[:, ::side] = picture[side - 1 :: side] = picture[:, side - 1 :: side] = PAPER
    if words is None:
        return picture
    dark = small @ _LUMINANCE < _DARK
    for paint, chosen in ((PAPER, dark), (INK, ~dark)):
        rows, columns = np.nonzero(chosen)
        marks = [
            ((row + 1) * side - 8.0, (column + 0.5) * side, "md", f"{values[row, column]:{words}}")
            for row, column in zip(rows, columns, strict=True)
        ]
        picture = write(picture, marks, paint)
    return picture


def render_box(
    picture: Picture, corner: NDArray[Any], size: float, *, paint: Colour = POINT, width: float = 2
) -> Picture:
    """A square over a picture, from its upper left corner (row, column), in pixels."""
    path = corner + size * np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    return draw_lines(picture, [path], width, paint)


def render_arrow(picture: Picture, start: NDArray[np.float64], tip: NDArray[np.float64], *, width: float) -> Picture:
    """One arrow from a place to another, (row, column) in pixels; a dot where it is short."""
    shaft = tip - start
    length = float(np.hypot(*shaft))
    if length < 3:
        return draw_lines(picture, [start + np.array([(0.0, -width), (0.0, width)])], 2 * width, POINT)
    head = shaft / length * min(0.5 * length, 4 * width)
    side = 0.6 * head[::-1] * (1, -1)
    path = np.stack([start, tip, tip - head + side, tip, tip - head - side])
    return draw_lines(draw_lines(picture, [path], width + 1.3, INK), [path], width, POINT)


PIXELS = 256  # a panel's longer side

SHARPNESS = ("0", "0.1", "0.25", "0.5", "1", "2", "4", "10", "100")


@dataclass(frozen=True, eq=False)
class Stand:
    """One level of a registration: what was found before it, and what it compared.

    before: the field so far, on this level's grid, in its voxels. moving: the image, warped by it, at full size.
    match: refined features, clusters, increment. scores: (1, 3^dim, *space).
    """

    level: int
    before: Displacement
    moving: Image
    match: Match
    scores: Tensor

    @property
    def voxel(self) -> int:
        """How many of the image's voxels one of this level's is wide."""
        return 2 ** (self.level - 1)


@dataclass(frozen=True, eq=False)
class Stands:
    """All levels of one registration of one pair: images padded to a multiple of 16, as the network does."""

    moving: Image
    fixed: Image
    levels: dict[int, Stand]
    displacement: Displacement
    alignment: str


def stands(network: SACBNet, moving: Image, fixed: Image) -> Stands:
    """Register one pair (2D, batch 1), and keep what each of the levels 5, 4, 3, 2 saw."""
    moving, fixed = pad_to_multiple(moving, 16), pad_to_multiple(fixed, 16)
    with torch.no_grad():
        found = network(moving, fixed)
        before = torch.zeros_like(found.matches[0].increment)
        levels = {}
        for level, match, after in zip(LEVELS, found.matches, found.levels[:-1], strict=True):
            full = enlarged(before, level, network.alignment)
            warped = warp(moving, full, padding=network.padding)
            levels[level] = Stand(level, before, warped, match, network.scores(match.moving, match.fixed))
            before = upsample(after, alignment=network.alignment)
    return Stands(moving, fixed, levels, found.displacement, network.alignment)


def enlarged(displacement: Displacement, level: int, alignment: str) -> Displacement:
    """A level's field on the image's grid, in the image's voxels."""
    for _ in range(level - 1):
        displacement = upsample(displacement, alignment=alignment)  # type: ignore[arg-type]
    return displacement


# ---------------------------------------------------------------------------------------------- the scene


@dataclass(frozen=True, eq=False)
class Microscope(ClassScene):
    """A fixed voxel, its nine candidates in the moving image, their weights; and what the level makes of all voxels."""

    stands: Stands

    def controls(self) -> dict[str, Control]:
        """Which level, which voxel of the image, and how sharp the softmax is."""
        height, width = spatial(self.stands.fixed)
        return {
            "level": Stops("level", [str(level) for level in LEVELS], "3"),
            "axis_0": Slider("axis 0 (voxel)", height // 2, 0, height - 1),
            "axis_1": Slider("axis 1 (voxel)", width // 2, 0, width - 1),
            "sharpness": Stops("sharpness: scores times", SHARPNESS, "1"),
        }

    def render(self, state: State) -> Picture:
        """Above, the one voxel; below, all of this level's."""
        stand, place = self._stand(state), self._place(state)
        increment = self._increment(state)
        after = self._after(stand, increment)
        half = (self._limits[1] - self._limits[0]) / 2
        fixed = plane(self.stands.fixed)
        side = stand.voxel * self._scale
        corner = np.array(place) * side
        above = [
            titled("fixed: this voxel", render_box(self._image(fixed), corner, side)),
            titled("moving, warped so far: 9 places", self._candidates(state)),
            titled("softmax of their scores, and the mean", self._weights(state)),
        ]
        colours = render_displacement(increment[0], limit=1, scale=side)
        below = [
            titled("this level's increments u", colours),
            titled("moving, after this level", self._image(after)),
            titled("that minus fixed", render_difference(after, fixed, limit=half, scale=self._scale)),
        ]
        sheet = stack(stack(*above, axis=1), stack(*below, axis=1))
        return stack(sheet, render_wheel(1, width=sheet.shape[1], side=64))

    def describe(self, state: State) -> str:
        """The weights in words, the increment in voxels of the level and of the image, and what is left."""
        stand, (row, column) = self._stand(state), self._place(state)
        weights = self._softmax(state)
        best = np.unravel_index(np.argmax(weights), weights.shape)
        offset = tuple(int(index) - 1 for index in best)
        step = self._increment(state)[0, :, row, column].tolist()
        full = [stand.voxel * part for part in step]
        outside = int(self._outside(stand, (row, column)).sum())
        edge = (
            f" {outside} of the 9 places lie outside: their features are zeros, and they take part." if outside else ""
        )
        left = np.abs(self._after(stand, self._increment(state)) - plane(self.stands.fixed)).mean()
        return (
            f"Voxel ({state['axis_0']}, {state['axis_1']}) lies in voxel ({row}, {column}) of level {stand.level}, "
            f"which is {stand.voxel} voxels wide, the unit of u. Scores times {state['sharpness']}. The largest weight "
            f"is {weights.max():.2f}, at offset ({offset[0]:+d}, {offset[1]:+d}). The mean of the offsets is "
            f"({step[0]:+.2f}, {step[1]:+.2f}) voxels of this level, ({full[0]:+.1f}, {full[1]:+.1f}) of the image."
            f"{edge} Mean |moving - fixed| after this level: {left:.4f}."
        )

    @functools.cached_property
    def _limits(self) -> Limits:
        return intensity_limits(plane(self.stands.moving), plane(self.stands.fixed))

    @functools.cached_property
    def _scale(self) -> int:
        return integer_scale(spatial(self.stands.fixed), PIXELS)

    def _stand(self, state: State) -> Stand:
        return self.stands.levels[int(state["level"])]

    def _place(self, state: State) -> tuple[int, int]:
        """The level's voxel that holds the chosen voxel of the image."""
        voxel = self._stand(state).voxel
        return state["axis_0"] // voxel, state["axis_1"] // voxel

    def _image(self, values: Plane) -> Picture:
        return render_image(values, limits=self._limits, scale=self._scale)

    def _increment(self, state: State) -> Displacement:
        return soft_argmax(float(state["sharpness"]) * self._stand(state).scores)

    def _after(self, stand: Stand, increment: Displacement) -> Plane:
        """The moving image after this level, for all that comes before as it was."""
        whole = enlarged(compose(stand.before, increment), stand.level, self.stands.alignment)
        return plane(warp(self.stands.moving, whole))

    def _softmax(self, state: State) -> Plane:
        row, column = self._place(state)
        scores = float(state["sharpness"]) * self._stand(state).scores[0, :, row, column]
        return scores.softmax(0).view(3, 3).numpy()

    def _outside(self, stand: Stand, place: Sequence[int]) -> Plane:
        """Which of the nine places lie outside the level's grid."""
        rows, columns = (index + np.arange(-1, 2) for index in place)
        height, width = spatial(stand.scores)
        return ~(((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width)))

    def _candidates(self, state: State) -> Picture:
        """Boxes around the nine, and the arrow from the middle of the voxel."""
        stand, place = self._stand(state), np.array(self._place(state))
        side = stand.voxel * self._scale
        picture = render_box(self._image(plane(stand.moving)), (place - 1) * side, 3 * side, width=1)
        step = self._increment(state)[0, :, place[0], place[1]].numpy()
        middle = (place + 0.5) * side
        return render_arrow(render_box(picture, place * side, side), middle, middle + step * side, width=2)

    def _weights(self, state: State) -> Picture:
        side = spatial(self.stands.fixed)[1] * self._scale // 3
        picture = render_cells(self._softmax(state), table=SHARES, limits=(0, 1), side=side)
        row, column = self._place(state)
        rows, columns = np.nonzero(self._outside(self._stand(state), (row, column)))
        marks = [
            (float(r * side + 16), float((c + 0.5) * side), "mm", "outside") for r, c in zip(rows, columns, strict=True)
        ]
        middle = np.full(2, 1.5 * side)
        step = self._increment(state)[0, :, row, column].numpy()
        return write(render_arrow(picture, middle, middle + step * side, width=3), marks)


def matching_microscope(network: SACBNet, pair: Pair, *, item: int = 0) -> View:
    """Look at the matching of a 2D pair voxel by voxel, and make its softmax softer or sharper, level by level.

    network: a SACBNet in 2D. item: which of a batch. Images are padded to a multiple of 16, as the network does.

    Raises:
        ValueError, IndexError: volumes, no such item.
    """
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    plane(moving, "moving"), plane(fixed, "fixed")
    return View(Microscope(stands(network, moving, fixed)))


def reach(level: int) -> int:
    """How far levels 5 to `level` move a voxel at most, in voxels of the next finer grid: 2, 6, 14, 30."""
    return sum(2 ** (1 + each - level) for each in LEVELS if each >= level)


MOST = 11  # clusters

_SIDES = ("moving", "fixed")  # the batch axis of a match's clusters

_REMEMBERED = 24  # registrations, pictures

Key = tuple[int, int, int]  # level, number of clusters, seed


@dataclass(frozen=True, eq=False)
class Grouped:
    """The clusters of one image at one level, numbered from the darkest to the brightest.

    index: (H, W), 0 ... N - 1. sizes: voxels of each; those with 0 are empty, and last. attention: (N, 3, 3).
    """

    index: Plane
    sizes: list[int]
    attention: NDArray[np.float32]


def grouped(stand: Stand, block: SACB, side: str, image: Plane) -> Grouped:
    """A level's clusters of one side ("moving", "fixed"), sorted by what `image` shows there on average."""
    clusters = stand.match.clusters
    assert clusters is not None  # a level with a block has clusters
    item = _SIDES.index(side)
    index, centroids = clusters.index[item].numpy(), clusters.centroids[item]
    small = torch.from_numpy(image)[None, None]
    for _ in range(stand.level - 1):
        small = average_pool(small)
    sizes = np.bincount(index.ravel(), minlength=len(centroids))
    sums = np.bincount(index.ravel(), small.numpy().ravel(), minlength=len(centroids))
    order = np.argsort(np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf), kind="stable")
    with torch.no_grad():
        attention = block.attention(centroids.to(block.weight)).view(-1, 3, 3).numpy()
    return Grouped(np.argsort(order)[index], sizes[order].tolist(), attention[order])


@dataclass(frozen=True, eq=False)
class ClusterMap(ClassScene):
    """The clusters of the moving and the fixed image; where one of them is, and its kernel before and after.

    at: the levels of a registration with so many clusters from such a seed. given: the network's own number.
    blocks: by level.
    """

    at: Callable[[int, int], Stands]
    given: int
    blocks: dict[int, SACB]

    def controls(self) -> dict[str, Control]:
        """Which level, how many clusters, from which seed; which voxel of which image."""
        height, width = spatial(self._usual.fixed)
        levels = [str(level) for level in self.blocks]
        return {
            "level": Stops("level", levels, levels[-1]),
            "clusters": Slider("clusters N", self.given, 1, MOST),
            "seed": Slider("seed of k-means", 0, 0, 9),
            "side": Choice("cross hairs in", [*reversed(_SIDES)]),
            "axis_0": Slider("axis 0 (voxel)", height // 2, 0, height - 1),
            "axis_1": Slider("axis 1 (voxel)", width // 2, 0, width - 1),
        }

    def render(self, state: State) -> Picture:
        """Both maps and the chosen cluster; its kernel; all clusters."""
        key = self._key(state)
        maps = []
        for side in _SIDES:
            words = "moving, warped so far" if side == "moving" else side
            maps.append(titled(f"{words}: clusters", self._crossed(self._map(key, side), state, side)))
        alone, below = self._chosen(key, state["side"], self._number(state))
        return stack(stack(*maps, alone, axis=1), below)

    def describe(self, state: State) -> str:
        """The chosen cluster, its attention, the sizes, and how far the field is from the network's own."""
        chosen, number = self._grouped(self._key(state), state["side"]), self._number(state)
        attention, total = chosen.attention[number], sum(chosen.sizes)
        count = len(chosen.sizes)
        plain = " One kernel for the whole map: a plain convolution." if count == 1 else ""
        empty = chosen.sizes.count(0)
        lost = f" {empty} of the clusters are empty." if empty else ""
        apart = self.at(state["clusters"], state["seed"]).displacement - self._usual.displacement
        change = float(apart.square().sum(1).mean().sqrt())
        least, most = attention.min(), attention.max()
        return (
            f"Level {state['level']}, {count} cluster{'s' if count > 1 else ''}, seed {state['seed']}. The voxel lies "
            f"in cluster {number + 1} of the {state['side']} image, counted from dark to bright: "
            f"{chosen.sizes[number]} of {total} voxels of this level. Its attention: {least:.2f} to {most:.2f}.{plain}"
            f"{lost} The whole field differs from that with {self.given} clusters and seed 0 by {change:.3f} voxels "
            f"(root mean square)."
        )

    @functools.cached_property
    def _usual(self) -> Stands:
        return self.at(self.given, 0)

    @functools.cached_property
    def _limits(self) -> Limits:
        return intensity_limits(plane(self._usual.moving), plane(self._usual.fixed))

    @functools.cached_property
    def _scale(self) -> int:
        return integer_scale(spatial(self._usual.fixed), PIXELS)

    def _key(self, state: State) -> Key:
        return int(state["level"]), state["clusters"], state["seed"]

    def _stand(self, key: Key) -> Stand:
        level, clusters, seed = key
        return self.at(clusters, seed).levels[level]

    def _seen(self, stand: Stand, side: str) -> Plane:
        """The image at full size: the fixed one, or the moving one as it is warped at this level."""
        return plane(stand.moving if side == "moving" else self._usual.fixed)

    def _number(self, state: State) -> int:
        """The cluster under the cross hairs."""
        key = self._key(state)
        index, voxel = self._grouped(key, state["side"]).index, self._stand(key).voxel
        return int(index[state["axis_0"] // voxel, state["axis_1"] // voxel])

    @functools.cached_property
    def _grouped(self) -> Callable[[Key, str], Grouped]:
        @functools.lru_cache(_REMEMBERED)
        def sort(key: Key, side: str) -> Grouped:
            stand = self._stand(key)
            return grouped(stand, self.blocks[stand.level], side, self._seen(stand, side))

        return sort

    @functools.cached_property
    def _map(self) -> Callable[[Key, str], Picture]:
        """All clusters in their colours."""

        @functools.lru_cache(_REMEMBERED)
        def paint(key: Key, side: str) -> Picture:
            stand = self._stand(key)
            return self._coloured(self._seen(stand, side), self._grouped(key, side).index + 1, stand.voxel)

        return paint

    @functools.cached_property
    def _chosen(self) -> Callable[[Key, str, int], tuple[Picture, Picture]]:
        """One cluster alone; and its kernel above the list of all."""

        @functools.lru_cache(_REMEMBERED)
        def paint(key: Key, side: str, number: int) -> tuple[Picture, Picture]:
            stand, shown = self._stand(key), self._grouped(key, side)
            image = self._alone(self._seen(stand, side), shown.index == number, number, stand.voxel)
            kernels = self._kernels(self.blocks[stand.level], shown.attention[number])
            below = stack(kernels, _legend(shown, number, kernels.shape[1]))
            return titled(f"cluster {number + 1} of {side}, alone", image), below

        return paint

    def _coloured(self, image: Plane, labels: Plane, voxel: int) -> Picture:
        """Labels in exactly the colours of the list of all clusters, the image where there are none (0)."""
        picture = render_image(image, limits=self._limits, scale=self._scale)
        return render_labels(picture, labels.repeat(voxel, 0).repeat(voxel, 1), opacity=1)

    def _alone(self, image: Plane, members: NDArray[np.bool_], number: int, voxel: int) -> Picture:
        """Where one cluster is, in its colour; the rest darkened."""
        bright = self._coloured(image, np.where(members, number + 1, 0), voxel)
        inside = enlarge(members[..., None].astype(np.uint8), voxel * self._scale)
        return np.where(inside, bright, darken(bright, 0.7))

    def _crossed(self, picture: Picture, state: State, side: str) -> Picture:
        if side != state["side"]:
            return picture
        return render_point(picture, (state["axis_0"], state["axis_1"]), spatial(self._usual.fixed))

    def _kernels(self, block: SACB, attention: NDArray[np.float32]) -> Picture:
        """The attention, and the strongest channel of the shared kernel before and after."""
        weight = block.weight.detach()
        strengths = weight.square().sum(2)
        out, into = divmod(int(strengths.argmax()), weight.shape[1])
        kernel = weight[out, into].view(3, 3).numpy()
        limit = nice_limit(float(np.abs(kernel).max()))
        side = spatial(self._usual.fixed)[1] * self._scale // 3
        painted = functools.partial(render_cells, table=DIFFERENCES, limits=(-limit, limit), side=side, words="+.2f")
        return stack(
            titled(
                "its attention a, one for each tap", render_cells(attention, table=SHARES, limits=(0, 1), side=side)
            ),
            titled(f"shared W, channel {into} to {out}", painted(kernel)),
            titled("its kernel: a times W", painted(attention * kernel)),
            axis=1,
        )


def _legend(shown: Grouped, number: int, width: int) -> Picture:
    """Every cluster: its colour in the maps, its number, its size, its attention; the chosen one framed."""
    strip = []
    for position, (size, attention) in enumerate(zip(shown.sizes, shown.attention, strict=True)):
        paint = LABELS[position % len(LABELS)]
        head = blank((40, 60), 1, tuple(paint.tolist()))
        words = [(10, 30, "mm", f"{position + 1}"), (30, 30, "mm", "empty" if size == 0 else f"{size}")]
        cells = render_cells(attention, table=SHARES, limits=(0, 1), side=20, words=None)
        block = np.concatenate([write(head, words, readable(paint)), cells])
        framed = np.full((block.shape[0] + 6, 66, 3), INK if position == number else PAPER, np.uint8)
        framed[3:-3, 3:-3] = block
        strip.append(framed)
    body = stack(*strip, axis=1, gap=3)
    sheet = np.full((body.shape[0], max(width, body.shape[1]), 3), PAPER, np.uint8)
    sheet[:, : body.shape[1]] = body
    head = np.full((20, sheet.shape[1], 3), PAPER, np.uint8)
    return np.concatenate([write(head, [(10, 2, "lm", "all, dark to bright: number, voxels, attention")]), sheet])


def cluster_map(network: SACBNet, pair: Pair, *, item: int = 0) -> View:
    """Look at the clusters of a 2D pair at every level that has a block, and at the kernel of each.

    network: a SACBNet in 2D; its number of clusters and its seed are what the view begins with, as one number for all
    levels, and both can be changed: the weights do not depend on them. item: which of a batch. Images are padded to a
    multiple of 16, as the network does.

    Raises:
        ValueError, IndexError: no block, volumes, no such item.
    """
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    plane(moving, "moving"), plane(fixed, "fixed")
    blocks = {level: network.blocks[str(level)] for level in LEVELS}
    having = {level: block for level, block in blocks.items() if isinstance(block, SACB)}
    if not having:
        raise InputError("clusters are found by blocks", "a network without any", "give one with blocks='5432'")

    @functools.lru_cache(_REMEMBERED)
    def at(clusters: int, seed: int) -> Stands:
        return stands(regrouped(network, clusters, seed), moving, fixed)

    return View(ClusterMap(at, next(iter(having.values())).count, having))


def regrouped(network: SACBNet, clusters: int, seed: int = 0) -> SACBNet:
    """A copy of a network, with its weights, that finds so many clusters at each level, from this seed."""
    configuration: Any = network.configuration  # of `configured`, which no type tells
    copy = SACBNet(**{**configuration, "clusters": clusters, "seed": seed})
    copy.load_state_dict(network.state_dict())
    return copy.eval()
