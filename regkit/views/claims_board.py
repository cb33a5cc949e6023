"""The claims ledger to look through: which claims hold, and each seed's numbers behind the one that is chosen."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from regkit.claims import CLAIMS
from regkit.ledger import Claim, Evidence, Finding
from regkit.views.controls import Choice, Control, Scene, Slider, State, Toggle
from regkit.views.dots import BLUE, FAINT, ORANGE, Scale, draw_dots, fitting, scale_for
from regkit.views.drawing import INK, PAPER, Picture, blank, stack
from regkit.views.pictures import draw_lines, write
from regkit.widgets import View

ALL = "all"
HOLDS = {"those that hold": True, "those that do not": False}
_VERDICTS = {True: ("yes", BLUE), False: ("no", ORANGE), None: ("open", INK)}
_LIST, _PLOT, _NAMES = 480, 390, 170  # pixels: widths of the list, of the numbers, of the variants' names
_LINE, _ROW = 19, 24  # pixels: heights of a claim, of a variant


@dataclass(frozen=True, eq=False)
class ClaimsBoard(Scene):
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
        raise ValueError("a ledger must have a claim, received none; give claims.CLAIMS or some of them.")
    return View(ClaimsBoard(claims, [claim.judge() for claim in claims]))
