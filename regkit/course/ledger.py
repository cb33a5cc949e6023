"""The ledger as it is shown: a table of all claims, and a page with every effect and its interval."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from regkit.course.evidence import NO, UNTOLD, VERDICTS, YES, Finding, number
from regkit.course.judgement import SMALLEST
from regkit.tools import compare

_MATTERS = "; ".join(f"{name} {each.value:.2g} ({each.why})" for name, each in SMALLEST.items())
_PREFACE = f"""Small networks, small images, open data: `regkit.data.benchmarks` has the pairs, `regkit.course.studies`
the recipes. Numbers are of held-out pairs. They are not the papers' numbers, and cannot be: their data are other, their
networks larger, their trainings longer. What is compared is the direction of each effect.

**The rule** (`regkit.course.judgement`). A row is an effect: the difference of two variants, trained from the same
seeds, on the same held-out pairs. Its mean over seeds and pairs has a 95 % interval in which both are samples (seeds ×
pairs in brackets; 3D rows are of one training each, and true of those weights only). *Yes*: the mean is as large as
matters, and above 0. *No*: it is below what matters. *Not told apart*: neither can be said. What is not trained yet
cannot be judged. A claim that nothing is
lost is turned round; a claim of several parts is as uncertain as its weakest. All is corrected for the number of rows
(Holm). Laws and counts are exact. What matters: {_MATTERS}.
"""


def counted(findings: Sequence[Finding]) -> str:
    """How many claims have which verdict."""
    counts = (f"{sum(each.verdict == verdict for each in findings)} {verdict}" for verdict in VERDICTS)
    return f"{len(findings)} claims: {', '.join(counts)}."


def table(findings: Sequence[Finding]) -> str:
    """The ledger as markdown; the first line below the title counts."""
    head = ["", "Method", "The claim", "The paper", "Here: mean [95 %] (seeds × pairs)", "Holds?", "Command"]
    rows = []
    for place, finding in enumerate(findings, start=1):
        claim = finding.claim
        assert claim is not None
        verdict = f"**{finding.verdict}**{f'. {claim.remark}' if claim.remark else ''}"
        paper = f"{claim.source}: {claim.paper}"
        rows.append([str(place), claim.method, claim.words, paper, finding.words, verdict, f"`{claim.command}`"])
    return f"""# What the papers claim, and what comes out here

{counted(findings)} Made by `python -m regkit ledger`. [All intervals as a plot](forest.md).

{_PREFACE}
{compare.table(head, rows)}"""


def forest(findings: Sequence[Finding]) -> str:
    """The second page: every effect with its interval, as a picture and in words."""
    parts = [
        f"* {place}. {finding.verdict}. {each.words}: {number(each)}"
        for place, finding in enumerate(findings, start=1)
        for each in finding.comparisons
    ]
    alt = f"Effects of the ledger's rows with 95 % intervals, in units of what matters: {counted(findings)}"
    return "\n".join(["# Every effect and its interval", "", f"![{alt}](gallery/forest.svg)", "", *parts, ""])


def draw(findings: Sequence[Finding]) -> bytes:
    """The forest plot as SVG, the same bytes each time: intervals in units of what matters, 0 and ±1 marked."""
    rows = [(place, finding, each) for place, finding in enumerate(findings, 1) for each in finding.comparisons]
    figure = Figure(figsize=(11, 1 + 0.17 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(VERDICTS, ("#0072b2", "#d55e00", "#cc79a7", "#000000"), strict=True))
    for row, (_, finding, each) in enumerate(rows):
        low, high = (max(-1e3, min(1e3, bound / each.smallest)) for bound in each.estimate.interval)
        mean, colour = each.estimate.mean / each.smallest, colours[finding.verdict]
        axes.plot([low, high], [row, row], color=colour, linewidth=1.5)
        axes.plot(mean, row, "D" if each.no_less else "o", color=colour, markersize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvspan(-1, 1, color="#eeeeee", zorder=0)
    axes.set_xscale("symlog", linthresh=2)
    axes.set(
        xlabel="effect / smallest effect that matters (dots: an effect is claimed; diamonds: that nothing is lost)"
    )
    axes.set_yticks(range(len(rows)), [f"{place}. {each.words}" for place, _, each in rows], fontsize=6)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for verdict in (YES, NO, UNTOLD):
        axes.plot([], [], color=colours[verdict], label=verdict)
    axes.legend(loc="upper left", fontsize=7)
    with matplotlib.rc_context({"svg.hashsalt": "regkit", "svg.fonttype": "none"}):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
