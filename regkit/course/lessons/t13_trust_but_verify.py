"""The scoreboard, methods as columns of dots with the case behind each; and the claims board, with their evidence."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit.course.claims import CLAIMS
from regkit.course.evidence import VERDICTS, Claim, Finding, judge
from regkit.course.judgement import Comparison
from regkit.figures import paint, pixels
from regkit.figures.pixels import Colour, Picture, blank, stack
from regkit.figures.planes import Cut, Place, highest
from regkit.tools.compare import COLUMNS, Row
from regkit.tools.methods import Method
from regkit.types import InputError, Pair
from regkit.widgets import Button, Choice, Control, Scene, Slider, State, Toggle, View, chart
from regkit.widgets.panels import Intensities, Panel, Quantities, Volume, make_panels
from regkit.widgets.slices import linked

BLUE: Colour = (0, 114, 178)
ORANGE: Colour = (213, 94, 0)
FAINT: Colour = (205, 208, 214)


@functools.lru_cache(256)
def fitting(words: str, width: float) -> str:
    """The words, cut where they are longer than this many pixels."""
    if pixels.font().getlength(words) <= width:
        return words
    while words and pixels.font().getlength(f"{words}…") > width:
        words = words[:-1]
    return f"{words.rstrip()}…"


# ---------------------------------------------------------------------------------------------- the claims
ALL = "all"
PURPLE: Colour = (204, 121, 167)
_COLOURS = dict(zip(VERDICTS, (BLUE, ORANGE, PURPLE, pixels.INK), strict=True))
_LIST, _PLOT = 520, 390  # pixels: widths of the list and of the numbers
_LINE, _EFFECT = 19, 92  # pixels: heights of a claim, of an effect


@dataclass(frozen=True, eq=False, kw_only=True)
class ClaimsBoard(Scene):
    """The scene of the claims: the ledger's rows, by their number from 1 on, and what came out of each."""

    claims: Sequence[Claim]
    findings: Sequence[Finding]


def claims_board(claims: Sequence[Claim] = CLAIMS) -> View:
    """Look through the claims ledger: choose a method or a verdict, open a claim, and see its effects.

    Each dot is a training from one seed (of 3D rows, which are of one training, a pair), the bar the 95 % interval of
    the mean; what does not matter is grey. "show results" is off at first.

    Raises:
        ValueError: no claim.
    """
    if not claims:
        raise InputError("a ledger must have a claim", "none", "give claims.CLAIMS or some of them")
    findings = judge(claims)

    @functools.cache
    def evidence(number: int) -> Picture:
        return _evidence(findings[number - 1])

    @functools.cache
    def table(numbers: tuple[int, ...], revealed: bool) -> Picture:
        return _list({n: (claims[n - 1], findings[n - 1] if revealed else None) for n in numbers})

    def chosen(state: State) -> tuple[tuple[int, ...], int | None]:
        numbers = tuple(listed(claims, findings, state))
        return numbers, min(numbers, key=lambda number: abs(number - state["claim"]), default=None)

    def render(state: State) -> Picture:
        numbers, number = chosen(state)
        if number is None:
            return table(numbers, state["revealed"])
        picture, top = table(numbers, state["revealed"]).copy(), (numbers.index(number) + 1) * _LINE
        picture[top : top + _LINE] = picture[top : top + _LINE] * (np.array(FAINT) / 255)
        beside = evidence(number) if state["revealed"] else blank((_LINE, _PLOT), 1, pixels.PAPER)
        return stack(picture, beside, axis=1, gap=10)

    def describe(state: State) -> str:
        _, number = chosen(state)
        if number is None:
            return "No claim of this method is among them."
        claim, finding = claims[number - 1], findings[number - 1]
        said = f"Claim {number}, {claim.method}: {claim.words} ({claim.source}: {claim.paper})."
        if not state["revealed"]:
            return f"{said} Does it hold here, on small networks and open data? Say so first."
        told = f"{said} Here: {finding.verdict}. {finding.words}. {claim.remark} Made by: {claim.command}"
        return told.replace("  ", " ").replace("..", ".")

    def hidden(state: State) -> set[str]:
        return set() if state["revealed"] else {"verdict"}

    controls: dict[str, Control] = {
        "method": Choice("method", [ALL, *dict.fromkeys(claim.method for claim in claims)]),
        "claim": Slider("claim", 1, 1, len(claims)),
        "revealed": Toggle("show results", False),
        "verdict": Choice("list", [ALL, *VERDICTS]),
    }
    return View(ClaimsBoard(controls, render, describe, hidden, claims=claims, findings=findings))


def listed(claims: Sequence[Claim], findings: Sequence[Finding], state: State) -> list[int]:
    """The numbers of the claims by the chosen method, and of those with the chosen verdict once it is shown."""
    verdict = state["verdict"] if state["revealed"] else ALL
    return [
        number
        for number, (claim, finding) in enumerate(zip(claims, findings, strict=True), start=1)
        if state["method"] in (ALL, claim.method) and verdict in (ALL, finding.verdict)
    ]


def _list(rows: Mapping[int, tuple[Claim, Finding | None]]) -> Picture:
    """The claims by number, each with its verdict where there is a finding to show."""
    picture = blank(((len(rows) + 1) * _LINE + 6, _LIST), 1, pixels.PAPER)
    column = _LIST - 112.0
    revealed = any(finding for _, finding in rows.values())
    texts = [(2.0, 0.0, "la", "claim"), (2.0, column, "la", "holds?" if revealed else "")]
    verdicts: dict[str, list[tuple[float, float, str, str]]] = {verdict: [] for verdict in VERDICTS}
    for position, (number, (claim, finding)) in enumerate(rows.items(), start=1):
        row = position * _LINE + 2.0
        texts += [(row, 22.0, "ra", str(number)), (row, 30.0, "la", claim.method)]
        texts += [(row, 106.0, "la", fitting(claim.words, column - 112))]
        if finding:
            verdicts[finding.verdict].append((row, column, "la", finding.verdict))
    picture = paint.write(picture, texts)
    for verdict, marks in verdicts.items():
        picture = paint.write(picture, marks, _COLOURS[verdict])
    return picture


def _evidence(finding: Finding) -> Picture:
    """All effects behind a finding, or that there are none."""
    if not finding.comparisons:
        words = "No effect: a law, a count, or not judged."
        return paint.write(blank((2 * _LINE, _PLOT), 1, pixels.PAPER), [(2.0, 0.0, "la", words)])
    return stack(*(render_effect(each, finding.verdict) for each in finding.comparisons), gap=6)


def render_effect(effect: Comparison, verdict: str) -> Picture:
    """Dots for the seeds (or pairs), a bar for the interval in the verdict's colour, its middle the mean; 390 x 92."""
    plot = chart.Chart(width=_PLOT, height=_EFFECT, legend=None)
    title = {"x": 0.01, "horizontalalignment": "left", "fontsize": 8}
    plot.axes.figure.suptitle(fitting(effect.words, _PLOT), **title)
    plot.axes.axvspan(-effect.smallest, effect.smallest, color=chart.paint(FAINT), alpha=0.5)
    plot.axes.axvline(0, color=chart.paint(pixels.INK), linewidth=1)
    plot.axes.set(yticks=[], ylim=(-1, 1))
    plot.axes.plot(effect.dots, [0.4] * len(effect.dots), "o", color="#969ba5", markersize=5)
    if effect.dots:
        shown = effect.estimate.interval if math.isfinite(effect.estimate.error) else [effect.estimate.mean] * 2
        plot.axes.plot(shown, [-0.4, -0.4], color=chart.paint(_COLOURS[verdict]), linewidth=3)
        plot.axes.plot(effect.estimate.mean, -0.4, "o", color=chart.paint(_COLOURS[verdict]), markersize=7)
    return plot.frame()


# ---------------------------------------------------------------------------------------------- the board
_SPREAD = 0.5  # of a column: how far its dots lie apart


class Board:
    """Methods as columns of dots: one dot for each pair, a bar at the mean, one scale for all; 880 x 290 pixels.

    values: by method and pair; what is missing leaves a gap. links: lines between the dots of a pair in columns side by
    side. A name with a + takes two lines.
    """

    def __init__(
        self, values: Mapping[str, Mapping[int, float]], pairs: Sequence[int], title: str, *, links: bool = True
    ) -> None:
        self.names, columns = list(values), np.arange(len(values))
        self.chart = chart.Chart(width=880, height=290, legend=None, title=title)
        self.dots: dict[int | None, tuple[NDArray[Any], NDArray[Any]]] = {}  # of each pair: places and numbers
        for position, pair in enumerate(pairs):
            places = columns + _SPREAD * ((position + 0.5) / len(pairs) - 0.5)
            self.dots[pair] = places, np.array([column.get(pair, math.nan) for column in values.values()])
        axes, room = self.chart.axes, 720 / max(len(values), 1)
        lines = [name.replace(" + ", "\n+ ", 1).split("\n") for name in values]
        axes.set_xticks(columns, ["\n".join(fitting(line, room) for line in each) for each in lines])
        axes.set_xlim(-0.5, max(len(values), 1) - 0.5)
        axes.grid(visible=False, axis="x")
        for dots in self.dots.values():
            axes.plot(*dots, "o", color=chart.paint(BLUE), markersize=6)
            if links:
                axes.plot(*dots, color=chart.paint(FAINT), linewidth=1, zorder=1)
        means = np.array([np.mean(list(column.values())) if column else math.nan for column in values.values()])
        half = 0.5 * (_SPREAD + 0.15)
        axes.hlines(means, columns - half, columns + half, color=chart.paint(pixels.INK), linewidth=3, zorder=3)
        self.pair = self.chart.line(ORANGE, width=2 if links else 0, marker="o", markersize=7)
        self.ring = self.chart.dot(ORANGE, size=13, edge=pixels.INK)
        self.ring.set(markeredgewidth=2, in_layout=False)

    def at(self, method: str | None, pair: int | None) -> Picture:
        """The board with a pair's dots and lines in orange, and a ring around the dot of one method on it."""
        places, numbers = self.dots.get(pair, (np.empty(0), np.empty(0)))
        chosen = [self.names.index(method)] if method in self.names and len(places) else []
        self.pair.set_data(places, numbers)
        self.ring.set_data(places[chosen], numbers[chosen])
        return self.chart.frame()


def render_board(
    values: Mapping[str, Mapping[int, float]],
    pairs: Sequence[int],
    title: str,
    *,
    method: str | None = None,
    pair: int | None = None,
    links: bool = True,
) -> Picture:
    """A `Board` as one picture, (290, 880, 3) uint8."""
    return Board(values, pairs, title, links=links).at(method, pair)


# ---------------------------------------------------------------------------------------------- the scoreboard
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
        picture = pixels.darken(self.image.paint(cut, place, scale), 0.5)
        yellow, blue = (pixels.rim(cut.plane(labels, place), scale) for labels in (self.fixed, self.warped))
        for where, colour in ((yellow, pixels.POINT), (blue, pixels.LINE), (yellow & blue, pixels.PAPER)):
            picture[where] = colour
        return picture

    def words(self, place: Place) -> str:
        return f"label: {self.warped[place]} warped, {self.fixed[place]} fixed"


def scoreboard(rows: Sequence[Row], pairs: Sequence[Pair], methods: Sequence[Method], *, upright: bool = False) -> View:
    """Look behind a table: every method on every pair as a dot, and the case of any dot.

    rows: as of `compare.compare`. pairs: those that were measured; a row's pair is its index. methods: those whose
    cases can be shown, by the names in the rows, the first at the start; the chosen one registers the chosen pair then
    and there, and some cases are remembered. upright: as of `widgets.compare`.

    Raises:
        ValueError: no rows, or none of a method that is given.
    """
    measured = {row.method for row in rows}
    known = {method.name: method for method in methods if method.name in measured}
    if not known:
        raise InputError(
            "a scoreboard shows cases of methods that were measured",
            f"rows of {sorted(measured)} and the methods {sorted(method.name for method in methods)}",
            "give one of the methods that the rows name",
        )
    numbers = sorted({row.pair for row in rows})
    columns = {COLUMNS[name].words: name for name in COLUMNS if any(values_of(rows, name).values())}
    labelled = pairs[numbers[0]].moving_labels is not None and pairs[numbers[0]].fixed_labels is not None

    @functools.lru_cache(_CASES)
    def case(method: str, number: int) -> Quantities:
        pair = pairs[number]
        return Quantities(pair, known[method](pair.moving, pair.fixed).displacement)

    @functools.lru_cache(2 * _CASES)
    def panels(method: str, number: int, third: str) -> list[Panel]:
        return _case_panels(case(method, number), outlines=third == OUTLINES)

    @functools.cache
    def board(metric: str, links: bool) -> Board:
        better = "more is better" if COLUMNS[columns[metric]].higher else "less is better"
        title = f"{metric}, {better}; a dot is a pair, in the same order in each column; a bar is the mean"
        return Board(values_of(rows, columns[metric]), numbers, title, links=links)

    @functools.lru_cache(_BOARDS)
    def painted(metric: str, links: bool, method: str, pair: int) -> Picture:
        return board(metric, links).at(method, pair)

    def press(button: str, state: State) -> dict[str, Any]:
        shown = case(state["method"], state["pair"])
        inside = shown.labels("fixed") > 0 if labelled else np.ones_like(shown.determinant, dtype=bool)
        worst = highest(np.where(inside, -shown.determinant, -np.inf))  # the least |J|, within the labels
        return {f"axis_{axis}": at for axis, at in enumerate(worst)} | {"crosshair": True}

    def render(state: State) -> Picture:
        above = painted(state["metric"], state["links"], state["method"], state["pair"])
        return stack(above, planes.render(state), gap=12)

    planes = linked(
        lambda state: panels(state["method"], state["pair"], state["third"]),
        {
            "method": Choice("method", list(known)),
            "metric": Choice("measure", list(columns)),
            "pair": Slider("pair", numbers[0], numbers[0], numbers[-1], live=False),
            "links": Toggle("link the pairs", True),
            "third": Choice("third picture", [OUTLINES, DIFFERENCE] if labelled else [DIFFERENCE]),
        },
        lambda state: _case_in_words(rows, columns[state["metric"]], state),
        spacing=pairs[numbers[0]].spacing,
        upright=upright,
    )
    controls = {name: each for name, each in planes.controls.items() if name not in ("extreme", "go")}
    controls |= {"crosshair": Toggle("cross hairs", False), "go": Button("go to the least |J|")}
    return View(replace(planes, controls=controls, render=render, press=press))


def values_of(rows: Sequence[Row], column: str) -> dict[str, dict[int, float]]:
    """The finite numbers of a column, by method and pair."""
    values: dict[str, dict[int, float]] = {row.method: {} for row in rows}
    for row in rows:
        value = row.values.get(column, math.nan)
        if math.isfinite(value):
            values[row.method][row.pair] = value
    return values


def _case_panels(case: Quantities, *, outlines: bool) -> list[Panel]:
    """Fixed, warped, their difference or the outlines of the labels, and |J|."""
    panels = make_panels(case, ("fixed", "warped", "difference", "jacobian"))
    if outlines:
        image = Intensities("warped", case.warped, case.limits)
        title = "labels: fixed yellow, warped blue, both white"
        panels[2] = Outlines(title, image, case.labels("fixed"), case.labels("warped"))
    return panels


def _case_in_words(rows: Sequence[Row], column: str, state: State) -> str:
    """What the method reached on the pair, and which place it takes there among the others by one column."""
    method, pair, metric = state["method"], state["pair"], state["metric"]
    row = next((row for row in rows if (row.method, row.pair) == (method, pair)), None)
    if row is None:
        return f"{method} was not measured on pair {pair}; its case is shown."
    finite = {name: value for name in COLUMNS if math.isfinite(value := row.values.get(name, math.nan))}
    reached = ", ".join(f"{COLUMNS[name].words} {COLUMNS[name].form.format(value)}" for name, value in finite.items())
    here = {name: values[pair] for name, values in values_of(rows, column).items() if pair in values}
    if method not in here:
        return f"{method} on pair {pair}: {reached}. No {metric} was taken of it."
    sign = -1 if COLUMNS[column].higher else 1
    place = 1 + sum(sign * value < sign * here[method] for value in here.values())
    return f"{method} on pair {pair}: {reached}. By {metric} {place} of {len(here)} on this pair (1 is best)."
