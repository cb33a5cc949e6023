"""SACB-Net's matching voxel by voxel, as nine scores, their softmax and its mean; its clusters and their kernels."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regkit.fields import average_pool, compose, upsample, warp
from regkit.figures import paint, pixels
from regkit.figures.paint import draw_lines
from regkit.figures.pixels import Colour, Limits, Picture, Plane, plane, stack
from regkit.models.layers import pad_to_multiple
from regkit.models.sacbnet import LEVELS, SACB, Match, SACBNet, soft_argmax
from regkit.types import Displacement, Image, InputError, Pair, spatial
from regkit.widgets import Choice, Control, Scene, Slider, State, Stops, View
from regkit.widgets.panels import pick

PIXELS = 256  # a panel's longer side
SHARPNESS = ("0", "0.1", "0.25", "0.5", "1", "2", "4", "10", "100")
SHARES: Picture = pixels.DIFFERENCES[127::-1]  # a share or a weight, from near-white at 0 to dark blue at 1
MOST = 11  # clusters
_REMEMBERED = 24  # registrations, pictures
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_DARK = 128  # luminance of a colour, below which numbers on it are written in white


# ---------------------------------------------------------------------------------------------- levels
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
        registration = network(moving, fixed)
        before = torch.zeros_like(registration.matches[0].increment)
        levels = {}
        for level, match, after in zip(LEVELS, registration.matches, registration.levels[:-1], strict=True):
            full = enlarged(before, level, network.alignment)
            warped = warp(moving, full, padding=network.padding)
            levels[level] = Stand(level, before, warped, match, network.scores(match.moving, match.fixed))
            before = upsample(after, alignment=network.alignment)
    return Stands(moving, fixed, levels, registration.displacement, network.alignment)


def enlarged(displacement: Displacement, level: int, alignment: str) -> Displacement:
    """A level's field on the image's grid, in the image's voxels."""
    for _ in range(level - 1):
        displacement = upsample(displacement, alignment=alignment)  # type: ignore[arg-type]
    return displacement


def reach(level: int) -> int:
    """How far levels 5 to `level` move a voxel at most, in voxels of the next finer grid: 2, 6, 14, 30."""
    return sum(2 ** (1 + each - level) for each in LEVELS if each >= level)


# ---------------------------------------------------------------------------------------------- the microscope
@dataclass(frozen=True, eq=False)
class Focus:
    """One voxel of a level under the microscope.

    place: its row and column. weights: of the nine places around it, (3, 3). outside: which of these lie outside the
    grid. increment: of all voxels, (1, 2, H, W), in voxels of the level. after: the moving image after this level, for
    all that comes before as it was, at full size.
    """

    stand: Stand
    place: tuple[int, int]
    weights: Plane
    outside: NDArray[np.bool_]
    increment: Displacement
    after: Plane

    @property
    def step(self) -> NDArray[np.float32]:
        """The voxel's increment."""
        return self.increment[0, :, self.place[0], self.place[1]].numpy()


def focus(stands: Stands, level: int, voxel: tuple[int, int], sharpness: float) -> Focus:
    """Look at the voxel of a level that holds this one of the image; scores are multiplied by the sharpness."""
    stand = stands.levels[level]
    row, column = (index // stand.voxel for index in voxel)
    scores = sharpness * stand.scores
    weights = scores[0, :, row, column].softmax(0).view(3, 3).numpy()
    rows, columns = (index + np.arange(-1, 2) for index in (row, column))
    height, width = spatial(scores)
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    increment = soft_argmax(scores)
    whole = enlarged(compose(stand.before, increment), level, stands.alignment)
    return Focus(stand, (row, column), weights, ~inside, increment, plane(warp(stands.moving, whole)))


def matching_microscope(network: SACBNet, pair: Pair, *, item: int = 0) -> View:
    """Look at the matching of a 2D pair voxel by voxel, and make its softmax softer or sharper, level by level.

    Above, one fixed voxel, its nine candidates in the moving image, their weights; below, what the level makes of all.
    network: a SACBNet in 2D. item: which of a batch. Images are padded to a multiple of 16, as the network does.

    Raises:
        ValueError, IndexError: volumes, no such item.
    """
    moving, fixed = pick(pair.moving, item), pick(pair.fixed, item)
    plane(moving, "moving"), plane(fixed, "fixed")
    shown = stands(network, moving, fixed)
    target, limits = plane(shown.fixed), pixels.intensity_limits(plane(shown.moving), plane(shown.fixed))
    height, width = target.shape
    scale, half = pixels.integer_scale(target.shape, PIXELS), (limits[1] - limits[0]) / 2
    grey = functools.partial(paint.render_image, limits=limits, scale=scale)

    @functools.lru_cache(2)  # for the picture and its words
    def look(level: str, row: int, column: int, sharpness: str) -> Focus:
        return focus(shown, int(level), (row, column), float(sharpness))

    def chosen(state: State) -> Focus:
        return look(state["level"], state["axis_0"], state["axis_1"], state["sharpness"])

    def render(state: State) -> Picture:
        now = chosen(state)
        side = now.stand.voxel * scale
        above = {
            "fixed: this voxel": render_box(grey(target), np.array(now.place) * side, side),
            "moving, warped so far: 9 places": _candidates(grey(plane(now.stand.moving)), now, side),
            "softmax of their scores, and the mean": _weights(now, width * scale // 3),
        }
        below = {
            "this level's increments u": paint.render_displacement(now.increment[0], limit=1, scale=side),
            "moving, after this level": grey(now.after),
            "that minus fixed": paint.render_difference(now.after, target, limit=half, scale=scale),
        }
        rows = paint.titled_rows(above, below)
        return stack(rows, paint.render_wheel(1, width=rows.shape[1], side=64))

    def describe(state: State) -> str:
        now = chosen(state)
        voxel, step, outside = now.stand.voxel, now.step.tolist(), int(now.outside.sum())
        best = tuple(int(index) - 1 for index in np.unravel_index(np.argmax(now.weights), now.weights.shape))
        edge = f" {outside} of the 9 places lie outside: their features are zeros, and they take part."
        return (
            f"Voxel ({state['axis_0']}, {state['axis_1']}) lies in voxel {now.place} of level {now.stand.level}, "
            f"which is {voxel} voxels wide, the unit of u. Scores times {state['sharpness']}. The largest weight is "
            f"{now.weights.max():.2f}, at offset ({best[0]:+d}, {best[1]:+d}). The mean of the offsets is "
            f"({step[0]:+.2f}, {step[1]:+.2f}) voxels of this level, ({voxel * step[0]:+.1f}, {voxel * step[1]:+.1f}) "
            f"of the image.{edge if outside else ''} Mean |moving - fixed| after this level: "
            f"{np.abs(now.after - target).mean():.4f}."
        )

    controls: dict[str, Control] = {
        "level": Stops("level", [str(level) for level in LEVELS], "3"),
        "axis_0": Slider("axis 0 (voxel)", height // 2, 0, height - 1),
        "axis_1": Slider("axis 1 (voxel)", width // 2, 0, width - 1),
        "sharpness": Stops("sharpness: scores times", SHARPNESS, "1"),
    }
    return View(Scene(controls, render, describe))


def _candidates(picture: Picture, now: Focus, side: int) -> Picture:
    """Boxes around the nine, and the arrow from the middle of the voxel."""
    place = np.array(now.place)
    picture = render_box(picture, (place - 1) * side, 3 * side, width=1)
    middle = (place + 0.5) * side
    return render_arrow(render_box(picture, place * side, side), middle, middle + now.step * side, width=2)


def _weights(now: Focus, side: int) -> Picture:
    """The nine weights as cells, and the arrow to their mean; places outside the grid are marked."""
    picture = render_cells(now.weights, table=SHARES, limits=(0, 1), side=side)
    middle = np.full(2, 1.5 * side)
    marks = [(float(r * side + 16), float((c + 0.5) * side), "mm", "outside") for r, c in np.argwhere(now.outside)]
    return paint.write(render_arrow(picture, middle, middle + now.step * side, width=3), marks)


# ---------------------------------------------------------------------------------------------- clusters
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
    item = ("moving", "fixed").index(side)  # the batch axis of a match's clusters
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


def regrouped(network: SACBNet, clusters: int, seed: int = 0) -> SACBNet:
    """A copy of a network, with its weights, that finds so many clusters at each level, from this seed."""
    configuration: Any = network.configuration  # of `configured`, which no type tells
    copy = SACBNet(**{**configuration, "clusters": clusters, "seed": seed})
    copy.load_state_dict(network.state_dict())
    return copy.eval()


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
    blocks = {level: block for level in LEVELS if isinstance(block := network.blocks[str(level)], SACB)}
    if not blocks:
        raise InputError("clusters are found by blocks", "a network without any", "give one with blocks='5432'")

    @functools.lru_cache(_REMEMBERED)
    def register(clusters: int, seed: int) -> Stands:
        return stands(regrouped(network, clusters, seed), moving, fixed)

    usual = next(iter(blocks.values())).count
    original = register(usual, 0)
    target, limits = plane(original.fixed), pixels.intensity_limits(plane(original.moving), plane(original.fixed))
    (height, width), scale = target.shape, pixels.integer_scale(target.shape, PIXELS)
    grey = functools.partial(paint.render_image, limits=limits, scale=scale)

    @functools.lru_cache(_REMEMBERED)
    def clusters(level: int, count: int, seed: int, side: str) -> tuple[Picture, Grouped]:
        stand = register(count, seed).levels[level]
        image = plane(stand.moving) if side == "moving" else target
        return grey(image), grouped(stand, blocks[level], side, image)

    @functools.lru_cache(_REMEMBERED)
    def whole(*key: Any) -> Picture:
        picture, shown = clusters(*key)
        return paint.render_labels(picture, shown.index + 1, opacity=1)

    @functools.lru_cache(_REMEMBERED)
    def single(number: int, level: int, *key: Any) -> tuple[Picture, Picture]:
        picture, shown = clusters(level, *key)
        kernels = _kernels(blocks[level], shown.attention[number], side=width * scale // 3)
        return _alone(picture, shown.index == number, number), stack(kernels, _legend(shown, number, kernels.shape[1]))

    def chosen(state: State) -> tuple[tuple[int, int, int], Grouped, int]:
        key = int(state["level"]), state["clusters"], state["seed"]
        _, shown = clusters(*key, state["side"])
        voxel = height // len(shown.index)
        return key, shown, int(shown.index[state["axis_0"] // voxel, state["axis_1"] // voxel])

    def render(state: State) -> Picture:
        (key, _, number), side = chosen(state), state["side"]
        maps = {each: whole(*key, each) for each in ("moving", "fixed")}
        maps[side] = paint.render_point(maps[side], (state["axis_0"], state["axis_1"]), (height, width))
        alone, below = single(number, *key, side)
        panels = {
            "moving, warped so far: clusters": maps["moving"],
            "fixed: clusters": maps["fixed"],
            f"cluster {number + 1} of {side}, alone": alone,
        }
        return stack(paint.titled_rows(panels), below)

    def describe(state: State) -> str:
        (_, count, seed), shown, number = chosen(state)
        change = register(count, seed).displacement - original.displacement
        return (
            f"Level {state['level']}, {_in_words(shown, number, state)} The whole field differs from that with {usual} "
            f"clusters and seed 0 by {float(change.square().sum(1).mean().sqrt()):.3f} voxels (root mean square)."
        )

    levels = [str(level) for level in blocks]
    controls: dict[str, Control] = {
        "level": Stops("level", levels, levels[-1]),
        "clusters": Slider("clusters N", usual, 1, MOST),
        "seed": Slider("seed of k-means", 0, 0, 9),
        "side": Choice("cross hairs in", ["fixed", "moving"]),
        "axis_0": Slider("axis 0 (voxel)", height // 2, 0, height - 1),
        "axis_1": Slider("axis 1 (voxel)", width // 2, 0, width - 1),
    }
    return View(Scene(controls, render, describe))


def _in_words(shown: Grouped, number: int, state: State) -> str:
    """How many clusters there are; the chosen one, its size and its attention; the empty ones."""
    count, empty, attention = len(shown.sizes), shown.sizes.count(0), shown.attention[number]
    plain = " One kernel for the whole map: a plain convolution." if count == 1 else ""
    lost = f" {empty} of the clusters are empty." if empty else ""
    return (
        f"{count} cluster{'s' if count > 1 else ''}, seed {state['seed']}. The voxel lies in cluster {number + 1} of "
        f"the {state['side']} image, counted from dark to bright: {shown.sizes[number]} of {sum(shown.sizes)} "
        f"voxels of this level. Its attention: {attention.min():.2f} to {attention.max():.2f}.{plain}{lost}"
    )


def _alone(picture: Picture, members: NDArray[np.bool_], number: int) -> Picture:
    """Where one cluster is, in its colour; the rest darkened."""
    bright = paint.render_labels(picture, np.where(members, number + 1, 0), opacity=1)
    inside = pixels.enlarge(members[..., None].astype(np.uint8), len(picture) // len(members))
    return np.where(inside, bright, pixels.darken(bright, 0.7))


def _kernels(block: SACB, attention: NDArray[np.float32], side: int) -> Picture:
    """The attention, and the strongest channel of the shared kernel before and after; cells of `side` pixels."""
    weight = block.weight.detach()
    out, into = divmod(int(weight.square().sum(2).argmax()), weight.shape[1])
    kernel = weight[out, into].view(3, 3).numpy()
    limit = pixels.nice_limit(float(np.abs(kernel).max()))
    table: dict[str, Any] = {"table": pixels.DIFFERENCES, "limits": (-limit, limit), "words": "+.2f"}
    panels = {
        "its attention a, one for each tap": render_cells(attention, table=SHARES, limits=(0, 1), side=side),
        f"shared W, channel {into} to {out}": render_cells(kernel, side=side, **table),
        "its kernel: a times W": render_cells(attention * kernel, side=side, **table),
    }
    return paint.titled_rows(panels)


def _legend(shown: Grouped, number: int, width: int) -> Picture:
    """Every cluster: its colour in the maps, its number, its size, its attention; the chosen one framed."""
    strip = []
    for position, (size, attention) in enumerate(zip(shown.sizes, shown.attention, strict=True)):
        colour = pixels.LABELS[position % len(pixels.LABELS)]
        words = [(10, 30, "mm", f"{position + 1}"), (30, 30, "mm", "empty" if size == 0 else f"{size}")]
        head = paint.write(pixels.blank((40, 60), 1, tuple(colour.tolist())), words, readable(colour))
        cells = render_cells(attention, table=SHARES, limits=(0, 1), side=20, words=None)
        framed = pixels.blank((106, 66), 1, pixels.INK if position == number else pixels.PAPER)
        framed[3:-3, 3:-3] = np.concatenate([head, cells])
        strip.append(framed)
    body = stack(*strip, axis=1, gap=3)
    head = pixels.blank((20, max(width, body.shape[1])), 1, pixels.PAPER)
    return stack(paint.write(head, [(10, 2, "lm", "all, dark to bright: number, voxels, attention")]), body, gap=0)


# ---------------------------------------------------------------------------------------------- cells and arrows
def readable(colour: NDArray[np.uint8]) -> Colour:
    """White on dark, ink on bright colours."""
    return pixels.PAPER if colour @ _LUMINANCE < _DARK else pixels.INK


def render_cells(values: Plane, *, table: Picture, limits: Limits, side: int, words: str | None = ".2f") -> Picture:
    """Each value of a small plane as a cell of `side` pixels in the table's colour; `words`: its number's format."""
    small = pixels.colour(values, table, limits)
    picture = pixels.enlarge(small, side)
    picture[::side] = picture[:, ::side] = picture[side - 1 :: side] = picture[:, side - 1 :: side] = pixels.PAPER
    if words is None:
        return picture
    dark = small @ _LUMINANCE < _DARK
    for ink, chosen in ((pixels.PAPER, dark), (pixels.INK, ~dark)):
        marks = [
            ((row + 1) * side - 8.0, (column + 0.5) * side, "md", f"{values[row, column]:{words}}")
            for row, column in np.argwhere(chosen)
        ]
        picture = paint.write(picture, marks, ink)
    return picture


def render_box(
    picture: Picture, corner: NDArray[Any], size: float, *, paint: Colour = pixels.POINT, width: float = 2
) -> Picture:
    """A square over a picture, from its upper left corner (row, column), in pixels."""
    path = corner + size * np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    return draw_lines(picture, [path], width, paint)


def render_arrow(picture: Picture, start: NDArray[np.float64], tip: NDArray[np.float64], *, width: float) -> Picture:
    """One arrow from a place to another, (row, column) in pixels; a dot where it is short."""
    shaft = tip - start
    length = float(np.hypot(*shaft))
    if length < 3:
        return draw_lines(picture, [start + np.array([(0.0, -width), (0.0, width)])], 2 * width, pixels.POINT)
    head = shaft / length * min(0.5 * length, 4 * width)
    side = 0.6 * head[::-1] * (1, -1)
    path = np.stack([start, tip, tip - head + side, tip, tip - head - side])
    return draw_lines(draw_lines(picture, [path], width + 1.3, pixels.INK), [path], width, pixels.POINT)
