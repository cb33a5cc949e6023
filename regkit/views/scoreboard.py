"""The scoreboard: methods as columns of dots, one dot a pair, and the case behind the dot that is chosen."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit.comparisons import COLUMNS, Row
from regkit.methods import Method
from regkit.types import Pair
from regkit.views.columns import render_board
from regkit.views.controls import Button, Choice, Control, Slider, State, Toggle
from regkit.views.drawing import LINE, PAPER, POINT, Picture, darken, enlarge, stack
from regkit.views.panels import Intensities, Panel, Volume
from regkit.views.quantities import Quantities, make_panels
from regkit.views.slices import Slices
from regkit.views.stages import Staged
from regkit.views.volumes import Cut, Place, highest
from regkit.widgets import View

HIGHER = ("dice", "correlation")  # is better; of all other numbers less is
OUTLINES, DIFFERENCE = "outlines of the labels", "difference"
_CASES, _BOARDS = 16, 64  # that are remembered; a case of 64 x 80 x 64 voxels takes some MB


@dataclass(frozen=True, eq=False)
class Outlines(Panel):
    """Where labels end, over an image: the fixed ones yellow, the warped ones blue, white where both do."""

    image: Intensities
    fixed: Volume
    warped: Volume

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    def paint(self, cut: Cut, place: Place, scale: int) -> Picture:
        picture = darken(self.image.paint(cut, place, scale), 0.5)
        yellow, blue = (_rim(cut.plane(labels, place), scale) for labels in (self.fixed, self.warped))
        for where, paint in ((yellow, POINT), (blue, LINE), (yellow & blue, PAPER)):
            picture[where] = paint
        return picture

    def words(self, place: Place) -> str:
        return f"label: {self.warped[place]} warped, {self.fixed[place]} fixed"


def _rim(labels: Volume, scale: int) -> NDArray[np.bool_]:
    """The pixels of an enlarged plane that have another label to the left or above."""
    large = enlarge(labels[..., None], scale)[..., 0]
    rim = np.zeros(large.shape, bool)
    rim[1:] |= large[1:] != large[:-1]
    rim[:, 1:] |= large[:, 1:] != large[:, :-1]
    return rim


@dataclass(frozen=True, eq=False)
class Scoreboard(Staged):
    """All methods on all pairs in one number, and below it one method on one pair.

    rows: what each method reached on each pair. pairs: by the rows' numbers. methods: those whose cases can be shown;
    each is asked when its case is. upright: as of `volumes.cuts`.
    """

    rows: Sequence[Row]
    pairs: Sequence[Pair]
    methods: Mapping[str, Method]
    upright: bool = False

    # ------------------------------------------------------------------------------------------ the numbers

    @functools.cached_property
    def names(self) -> list[str]:
        """The methods, in the rows' order."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @functools.cached_property
    def numbers(self) -> list[int]:
        """The pairs that were measured, in order."""
        return sorted({row.pair for row in self.rows})

    @functools.cached_property
    def metrics(self) -> dict[str, str]:
        """The columns of `COLUMNS` that hold a number, by what they are called."""
        return {words: name for name, (words, _) in COLUMNS.items() if any(self.values(name).values())}

    def values(self, column: str) -> dict[str, dict[int, float]]:
        """The finite numbers of a column, by method and pair."""
        found: dict[str, dict[int, float]] = {name: {} for name in self.names}
        for row in self.rows:
            value = row.values.get(column, math.nan)
            if math.isfinite(value):
                found[row.method][row.pair] = value
        return found

    # ------------------------------------------------------------------------------------------ the scene

    def own_controls(self) -> dict[str, Control]:
        """The method, the pair, what is measured, and the third panel."""
        shown = [name for name in self.methods if name in self.names]
        return {
            "method": Choice("method", shown),
            "metric": Choice("measure", list(self.metrics)),
            "pair": Slider("pair", self.numbers[0], self.numbers[0], self.numbers[-1], live=False),
            "links": Toggle("link the pairs", True),
            "third": Choice("third picture", [OUTLINES, DIFFERENCE] if self._labelled else [DIFFERENCE]),
        }

    def controls(self) -> dict[str, Control]:
        """Its own, the slice viewer's, and the way to where the map shrinks most."""
        planes = {name: each for name, each in self.first().controls().items() if name not in ("extreme", "go")}
        planes["crosshair"] = Toggle("cross hairs", False)
        return {**self.own_controls(), **planes, "go": Button("go to the least |J|")}

    def stage(self, state: State) -> Slices:
        """The panels of the chosen case."""
        return self._made(state["method"], state["pair"], state["third"])

    def first(self) -> Slices:
        controls = self.own_controls()
        first = {name: each.options[0] for name, each in controls.items() if isinstance(each, Choice)}
        return self.stage({**first, "pair": self.numbers[0]})

    def press(self, button: str, state: State) -> dict[str, Any]:
        """To the voxel of the least |J|, within the labels if there are any."""
        case = self._case(state["method"], state["pair"])
        inside = case.labels("fixed") > 0 if self._labelled else np.ones_like(case.determinant, dtype=bool)
        worst = highest(np.where(inside, -case.determinant, -np.inf))
        return {f"axis_{axis}": at for axis, at in enumerate(worst)} | {"crosshair": True}

    def render(self, state: State) -> Picture:
        """The board, and below it the case."""
        board = self._board(state["metric"], state["method"], state["pair"], state["links"])
        return stack(board, super().render(state), gap=12)

    def words(self, state: State) -> str:
        """What the method reached on the pair, and how it did there among the others."""
        method, pair = state["method"], state["pair"]
        row = next((row for row in self.rows if (row.method, row.pair) == (method, pair)), None)
        if row is None:
            return f"{method} was not measured on pair {pair}; its case is shown."
        told = ", ".join(
            f"{COLUMNS[name][0]} {COLUMNS[name][1].format(row.values[name])}"
            for name in COLUMNS
            if math.isfinite(row.values.get(name, math.nan))
        )
        return f"{method} on pair {pair}: {told}. {self._standing(state)}"

    def _standing(self, state: State) -> str:
        """Which place the method takes on the pair, by the number that is shown."""
        column, pair = self.metrics[state["metric"]], state["pair"]
        here = {name: values[pair] for name, values in self.values(column).items() if pair in values}
        if state["method"] not in here:
            return f"No {state['metric']} was taken of it."
        sign = -1 if column in HIGHER else 1
        place = 1 + sum(sign * value < sign * here[state["method"]] for value in here.values())
        return f"By {state['metric']} {place} of {len(here)} on this pair (1 is best)."

    @functools.cached_property
    def _labelled(self) -> bool:
        pair = self.pairs[self.numbers[0]]
        return pair.moving_labels is not None and pair.fixed_labels is not None

    @functools.cached_property
    def _made(self) -> Callable[[str, int, str], Slices]:
        return functools.lru_cache(2 * _CASES)(self._make)

    @functools.cached_property
    def _case(self) -> Callable[[str, int], Quantities]:
        def ask(method: str, number: int) -> Quantities:
            pair = self.pairs[number]
            return Quantities(pair, self.methods[method](pair.moving, pair.fixed).displacement)

        return functools.lru_cache(_CASES)(ask)

    def _make(self, method: str, number: int, third: str) -> Slices:
        case = self._case(method, number)
        before, after, difference, jacobian = make_panels(case, ("fixed", "warped", "difference", "jacobian"))
        if third == OUTLINES:
            image = Intensities("warped", case.warped, case.limits)
            title = "labels: fixed yellow, warped blue, both white"
            difference = Outlines(title, image, case.labels("fixed"), case.labels("warped"))
        return Slices([before, after, difference, jacobian], case.pair.spacing, self.upright)

    @functools.cached_property
    def _board(self) -> Callable[[str, str, int, bool], Picture]:
        def paint(metric: str, method: str, pair: int, links: bool) -> Picture:
            column = self.metrics[metric]
            better = "more is better" if column in HIGHER else "less is better"
            title = f"{metric}, {better}; a dot is a pair, in the same order in each column; a bar is the mean"
            return render_board(self.values(column), self.numbers, title, method=method, pair=pair, links=links)

        return functools.lru_cache(_BOARDS)(paint)


def scoreboard(rows: Sequence[Row], pairs: Sequence[Pair], methods: Sequence[Method], *, upright: bool = False) -> View:
    """Look behind a table: every method on every pair as a dot, and the case of any dot.

    rows: as of `comparisons.compare`. pairs: those that were measured; a row's pair is its index. methods: those whose
    cases can be shown, by the names in the rows, the first at the start; the chosen one registers the chosen pair then
    and there, and some cases are remembered. upright: as of `widgets.compare`.

    Raises:
        ValueError: no rows, or none of a method that is given.
    """
    known = {method.name: method for method in methods}
    if not any(row.method in known for row in rows):
        measured = sorted({row.method for row in rows})
        raise ValueError(
            f"a scoreboard shows cases of methods that were measured, received rows of {measured} and the methods "
            f"{sorted(known)}; give one of the methods that the rows name."
        )
    return View(Scoreboard(rows, pairs, known, upright))
