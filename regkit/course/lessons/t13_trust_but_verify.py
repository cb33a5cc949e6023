"""The scoreboard: methods as columns of dots, one dot a pair, and the case behind the dot that is chosen."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from regkit.course.claims import CLAIMS, Claim, Evidence, Finding
from regkit.figures.paint import draw_lines, write
from regkit.figures.pixels import INK, LINE, PAPER, POINT, Colour, Picture, blank, darken, enlarge, font, stack
from regkit.figures.planes import Cut, Place, highest
from regkit.tools.compare import COLUMNS, Row
from regkit.tools.methods import Method
from regkit.types import InputError, Pair
from regkit.widgets.live import View
from regkit.widgets.panels import Intensities, Panel, Quantities, Volume, make_panels
from regkit.widgets.scene import Button, Choice, ClassScene, Control, Slider, State, Toggle
from regkit.widgets.slices import Slices, Staged

BLUE: Colour = (0, 114, 178)

ORANGE: Colour = (213, 94, 0)

FAINT: Colour = (205, 208, 214)

_OVERSAMPLING = 3  # subpixels along each axis

_TICKS = 6  # at most, beside the lowest


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`, with a tick at every `step`."""

    low: float
    high: float
    step: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixel and number of each tick."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + position * self.step for position in range(count + 1)]
        return [(self.at(value), f"{0.0 if abs(value) < self.step / 2 else value:.6g}") for value in values]


def scale_for(values: Sequence[float], start: float, end: float) -> Scale:
    """The scale with the finest round ticks (1, 2 or 5 times a power of ten) that holds all values.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if not len(values) or not all(math.isfinite(value) for value in values):
        raise InputError("a scale is made for finite numbers", f"{list(values)}", "leave out what is missing")
    low, high = min(values), max(values)
    spread = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9)
    power = 10.0 ** math.floor(math.log10(spread / _TICKS))
    for step in (power * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= _TICKS:
            break
    return Scale(first * step, max(last, first + 1) * step, step, start, end)


def draw_dots(picture: Picture, centres: NDArray[np.float64], radius: float, paint: Colour) -> Picture:
    """Discs with smooth edges at centres (N, 2), given as (row, column) in pixels."""
    height, width = picture.shape[:2]
    mask = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    pen = ImageDraw.Draw(mask)
    for row, column in _OVERSAMPLING * centres:
        reach = _OVERSAMPLING * radius
        pen.ellipse((column - reach, row - reach, column + reach, row + reach), 255)
    sheet = Image.fromarray(picture)
    sheet.paste(paint, mask=mask.reduce(_OVERSAMPLING))
    return np.array(sheet)


@functools.lru_cache(256)
def fitting(words: str, width: float) -> str:
    """The words, cut where they are longer than this many pixels."""
    if font().getlength(words) <= width:
        return words
    while words and font().getlength(f"{words}…") > width:
        words = words[:-1]
    return f"{words.rstrip()}…"


ALL = "all"

HOLDS = {"those that hold": True, "those that do not": False}

_VERDICTS = {True: ("yes", BLUE), False: ("no", ORANGE), None: ("open", INK)}

_LIST, _PLOT, _NAMES = 480, 390, 170  # pixels: widths of the list, of the numbers, of the variants' names

_LINE, _ROW = 19, 24  # pixels: heights of a claim, of a variant


@dataclass(frozen=True, eq=False)
class ClaimsBoard(ClassScene):
    """The claims as a list, and the numbers of one of them; what came out is shown when it is asked for.

    claims: the ledger's rows, by their number from 1 on. findings: of each.
    """

    claims: Sequence[Claim]
    findings: Sequence[Finding]

    def controls(self) -> dict[str, Control]:
        """Which claims are listed, which one is open, and whether its numbers are seen."""
        return {
            "method": Choice("method", [ALL, *dict.fromkeys(claim.method for claim in self.claims)]),
            "claim": Slider("claim", 1, 1, len(self.claims)),
            "revealed": Toggle("show results", False),
            "verdict": Choice("list", [ALL, *HOLDS]),
        }

    def hidden(self, state: State) -> set[str]:
        """The choice by what came out, before that is shown."""
        return set() if state["revealed"] else {"verdict"}

    def listed(self, state: State) -> list[int]:
        """The numbers of the claims that are listed."""
        verdict = HOLDS.get(state["verdict"]) if state["revealed"] else None
        return [
            number
            for number, (claim, finding) in enumerate(zip(self.claims, self.findings, strict=True), start=1)
            if state["method"] in (ALL, claim.method) and verdict in (None, finding.holds)
        ]

    def chosen(self, state: State) -> int | None:
        """The claim of the slider's number, or the one listed that is nearest to it; None where none is."""
        return min(self.listed(state), key=lambda number: abs(number - state["claim"]), default=None)

    def render(self, state: State) -> Picture:
        """The list, and beside it the numbers."""
        number = self.chosen(state)
        shown = state["revealed"] and number is not None
        beside = self._numbers(number) if shown and number is not None else blank((_LINE, _PLOT), 1, PAPER)
        return stack(self._list(self.listed(state), number, state["revealed"]), beside, axis=1, gap=10)

    def describe(self, state: State) -> str:
        """The claim, where the paper makes it, and if asked for what came out."""
        number = self.chosen(state)
        if number is None:
            return "No claim of this method is among them."
        claim, finding = self.claims[number - 1], self.findings[number - 1]
        said = f"Claim {number}, {claim.method}: {claim.words} ({claim.source}: {claim.paper})."
        if not state["revealed"]:
            return f"{said} Does it hold here, on small networks and open data? Say so first."
        verdict = {True: "It holds", False: "It does not hold", None: "It is open"}[finding.holds]
        return f"{said} {verdict}: {finding.words}. {claim.remark} Made by: {claim.command}".replace("  ", " ")

    # ------------------------------------------------------------------------------------------ the picture

    def _list(self, listed: Sequence[int], chosen: int | None, revealed: bool) -> Picture:
        picture = blank(((len(listed) + 1) * _LINE + 6, _LIST), 1, PAPER)
        if chosen in listed:
            top = (listed.index(chosen) + 1) * _LINE
            picture[top : top + _LINE] = FAINT
        column = _LIST - 42
        texts = [(2.0, 0.0, "la", "claim"), (2.0, column + 0.0, "la", "holds?" if revealed else "")]
        verdicts: dict[bool | None, list[tuple[float, float, str, str]]] = {True: [], False: [], None: []}
        for position, number in enumerate(listed, start=1):
            claim, row = self.claims[number - 1], position * _LINE + 2.0
            texts += [(row, 22.0, "ra", str(number)), (row, 30.0, "la", claim.method)]
            texts += [(row, 106.0, "la", fitting(claim.words, column - 112))]
            holds = self.findings[number - 1].holds
            verdicts[holds].append((row, column + 0.0, "la", _VERDICTS[holds][0] if revealed else ""))
        picture = write(picture, texts)
        for holds, marks in verdicts.items():
            picture = write(picture, marks, _VERDICTS[holds][1])
        return picture

    @functools.cached_property
    def _numbers(self) -> Callable[[int], Picture]:
        return functools.cache(self._paint)

    def _paint(self, number: int) -> Picture:
        finding = self.findings[number - 1]
        if not finding.evidence:
            words = "A law: judged on a stored model, not on trainings."
            return write(blank((2 * _LINE, _PLOT), 1, PAPER), [(2.0, 0.0, "la", words)])
        return stack(*(render_evidence(each) for each in finding.evidence), gap=14)


def render_evidence(evidence: Evidence) -> Picture:
    """One row for each variant, one dot for each seed, (H, 390, 3) uint8; seeds are linked, a bar is the mean.

    Bounds that the claim sets are orange.
    """
    values = {name: column for name, column in evidence.values().items() if column}
    bounds = [bound for bound in (evidence.least, evidence.most) if 0 < bound < math.inf]
    scale = scale_for([value for column in values.values() for value in column] + bounds or [0.0], _NAMES, _PLOT - 24)
    picture = blank(((len(values) + 2) * _ROW, _PLOT), 1, PAPER)
    rows = {name: (position + 1.5) * _ROW for position, name in enumerate(values)}
    bottom = (len(values) + 1) * _ROW
    for column, _ in scale.ticks:
        picture[_ROW:bottom, round(column)] = FAINT
    edges = [np.array([(_ROW, scale.at(bound)), (bottom, scale.at(bound))], float) for bound in bounds]
    picture = draw_lines(picture, edges, 2, ORANGE)
    picture = _dotted(picture, values, rows, scale)
    texts = [(row, _NAMES - 10.0, "rm", fitting(name, _NAMES - 14)) for name, row in rows.items()]
    ticks = [(bottom + 4.0, column, "ma", words) for column, words in scale.ticks]
    return write(picture, [(4.0, 0.0, "la", evidence.title), *texts, *ticks])


def _dotted(picture: Picture, values: dict[str, list[float]], rows: dict[str, float], scale: Scale) -> Picture:
    """Lines between a seed's dots, the means, the dots."""
    places = {name: [np.array([rows[name], scale.at(value)]) for value in column] for name, column in values.items()}
    links = [np.stack(both) for one, other in pairwise(places.values()) for both in zip(one, other, strict=False)]
    picture = draw_lines(picture, links, 1, (150, 155, 165))
    means = [np.mean(column, 0) for column in places.values()]
    picture = draw_lines(picture, [np.add(mean, [(-8, 0), (8, 0)]) for mean in means], 3, INK)
    return draw_dots(picture, np.reshape([place for column in places.values() for place in column], (-1, 2)), 4, BLUE)


def claims_board(claims: Sequence[Claim] = CLAIMS) -> View:
    """Look through the claims ledger: choose a method or those that hold, open a claim, and see its numbers.

    Each dot is a training from one seed; lines link those of one seed. "show results" is off at first.

    Raises:
        ValueError: no claim.
    """
    if not claims:
        raise InputError("a ledger must have a claim", "none", "give claims.CLAIMS or some of them")
    return View(ClaimsBoard(claims, [claim.judge() for claim in claims]))


_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 880, 290, 64, 28, 38  # pixels: of the board, and of its margins

_LINE_COLUMNS = 15  # pixels: height of a line of a name

_SPREAD = 0.5  # of a column: how far its dots lie apart


def render_board(
    values: Mapping[str, Mapping[int, float]],
    pairs: Sequence[int],
    title: str,
    *,
    method: str | None = None,
    pair: int | None = None,
    links: bool = True,
) -> Picture:
    """Methods as columns of dots, (290, 880, 3) uint8: one dot for each pair, a bar at the mean, one scale for all.

    values: by method and pair; what is missing leaves a gap. links: lines between the dots of a pair in columns side by
    side. pair: its dots and lines are orange; the dot of `method` on it is large and has a ring. A name with a + takes
    two lines.
    """
    numbers = [value for column in values.values() for value in column.values()]
    scale = scale_for(numbers or [0.0, 1.0], _HEIGHT - _BOTTOM, _TOP)
    places = _places(values, pairs, scale)
    picture = _frame(list(values), title, scale)
    paths = {number: list(_paths(places, values, number)) for number in pairs} if links else {}
    picture = draw_lines(picture, [path for number in paths if number != pair for path in paths[number]], 1, FAINT)
    picture = draw_lines(picture, paths.get(pair, []) if pair is not None else [], 2, ORANGE)
    for chosen, paint, radius in ((False, BLUE, 4.0), (True, ORANGE, 5.0)):
        centres = [place for (_, number), place in places.items() if (number == pair) is chosen]
        picture = draw_dots(picture, np.reshape(centres, (-1, 2)), radius, paint)
    picture = draw_lines(picture, list(_means(values, scale)), 3, INK)
    if (method, pair) in places:
        for radius, paint in ((9.0, INK), (7.0, PAPER), (5.5, ORANGE)):
            picture = draw_dots(picture, places[method, pair][None], radius, paint)  # type: ignore[index]
    return picture


def _centre(position: int, count: int) -> float:
    """The middle of a column, pixels."""
    return _LEFT + (position + 0.5) * (_WIDTH - _LEFT) / count


def _places(
    values: Mapping[str, Mapping[int, float]], pairs: Sequence[int], scale: Scale
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Where the dot of each method and pair is, (row, column)."""
    width = _SPREAD * (_WIDTH - _LEFT) / max(len(values), 1)
    offsets = {number: width * ((i + 0.5) / len(pairs) - 0.5) for i, number in enumerate(pairs)}
    return {
        (name, number): np.array([scale.at(value), _centre(position, len(values)) + offsets[number]])
        for position, (name, column) in enumerate(values.items())
        for number, value in column.items()
    }


def _paths(
    places: Mapping[tuple[str, int], NDArray[np.float64]], names: Mapping[str, Any], number: int
) -> list[NDArray[np.float64]]:
    """The lines between a pair's dots in columns side by side."""
    columns = list(names)
    both = [((one, number), (other, number)) for one, other in pairwise(columns)]
    return [np.stack([places[one], places[other]]) for one, other in both if one in places and other in places]


def _means(values: Mapping[str, Mapping[int, float]], scale: Scale) -> list[NDArray[np.float64]]:
    """A bar at the mean of each column."""
    half = 0.5 * (_SPREAD + 0.15) * (_WIDTH - _LEFT) / max(len(values), 1)
    bars = []
    for position, column in enumerate(values.values()):
        if column:
            row, middle = scale.at(float(np.mean(list(column.values())))), _centre(position, len(values))
            bars.append(np.array([(row, middle - half), (row, middle + half)]))
    return bars


def _frame(names: Sequence[str], title: str, scale: Scale) -> Picture:
    """The empty board: title, ticks and their lines, the names of the columns."""
    picture = blank((_HEIGHT, _WIDTH), 1, PAPER)
    for row, _ in scale.ticks:
        picture[round(row), _LEFT:] = FAINT
    texts = [(row, _LEFT - 8.0, "rm", number) for row, number in scale.ticks]
    room, row = (_WIDTH - _LEFT) / max(len(names), 1) - 4, _HEIGHT - _BOTTOM + 8.0
    below = [
        (row + line * _LINE_COLUMNS, _centre(position, len(names)), "ma", fitting(words, room))
        for position, name in enumerate(names)
        for line, words in enumerate(name.replace(" + ", "\n+ ", 1).split("\n"))
    ]
    return write(picture, [(4.0, 0.0, "la", title), *texts, *below])


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
        return {words: name for name, (words, *_) in COLUMNS.items() if any(self.values(name).values())}

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
        raise InputError(
            "a scoreboard shows cases of methods that were measured",
            f"rows of {measured} and the methods {sorted(known)}",
            "give one of the methods that the rows name",
        )
    return View(Scoreboard(rows, pairs, known, upright))
