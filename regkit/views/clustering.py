"""SACB-Net's clusters: a map over both images for every level, and the kernel that each cluster is convolved with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regkit.layers import average_pool
from regkit.models.sacbnet import LEVELS, SACB, SACBNet
from regkit.types import Pair, spatial
from regkit.views.cells import SHARES, readable, render_cells, titled
from regkit.views.controls import Choice, Control, Scene, Slider, State, Stops
from regkit.views.drawing import (
    DIFFERENCES,
    INK,
    LABELS,
    PAPER,
    Limits,
    Picture,
    Plane,
    blank,
    darken,
    enlarge,
    integer_scale,
    intensity_limits,
    nice_limit,
    plane,
    stack,
)
from regkit.views.matching import PIXELS, Stand, Stands, stands
from regkit.views.pictures import render_image, render_labels, render_point, write
from regkit.views.quantities import pick
from regkit.widgets import View

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
class ClusterMap(Scene):
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
        raise ValueError("clusters are found by blocks, received a network without any; give one with blocks='5432'.")

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
