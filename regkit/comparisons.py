"""Methods compared on the same pairs: what each reaches on each pair, the table, and whether a difference is chance.

Every number is taken pair by pair, so that two methods are compared on the same pair: Wilcoxon's signed-rank test of
each method against a reference.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, get_args

import numpy as np
from scipy.stats import wilcoxon
from tqdm.auto import tqdm

from regkit import losses, metrics
from regkit.fields import warp, warp_labels
from regkit.measuring import measured
from regkit.methods import Method
from regkit.types import Pair, Registration, check_option

COLUMNS = {  # what is measured, and how it is written
    "dice": ("Dice", "{:.3f}"),
    "tissue_dice": ("tissue Dice", "{:.3f}"),  # see tissues.py
    "hd95": ("HD95 (mm)", "{:.2f}"),
    "assd": ("ASSD (mm)", "{:.2f}"),
    "correlation": ("correlation", "{:.3f}"),
    "folds_percent": ("folds (%)", "{:.4f}"),
    "jacobian_std_log": ("std log |J|", "{:.3f}"),
    "inverse_consistency": ("inverse consistency (voxels)", "{:.3f}"),
    "cycle_consistency": ("cycle consistency (voxels)", "{:.3f}"),
    "seconds": ("seconds", "{:.2f}"),
    "memory": ("peak memory (MB)", "{:.0f}"),
}
Clock = Literal["wall", "processor"]
_ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """One method on one pair: numbers by the keys of `COLUMNS`, those that can be taken."""

    method: str
    pair: int
    values: Mapping[str, float]


def measure(
    method: Method, pair: Pair, *, cycle: bool = False, device: str = "cpu", clock: Clock = "wall"
) -> dict[str, float]:
    """What a method reaches on one pair.

    dice, hd95, assd: means over the structures, with labels only; the distances are those of structures that are there
    in both. cycle: register the other way as well. seconds, memory (MB): of the registration. clock: "processor" counts
    the seconds that the process's threads worked, which other programs do not change.

    Raises:
        ValueError: no such clock.
    """
    check_option("clock", clock, get_args(Clock))
    on_device = pair.to(device)
    with measured(device) as usage:
        found = method(on_device.moving, on_device.fixed)
    found = _at_home(found)
    values = metrics.evaluate(found, pair)
    values.pop("dice_before", None)
    values["correlation"] = 1 - float(losses.ncc(warp(pair.moving, found.displacement), pair.fixed))
    if pair.moving_labels is not None and pair.fixed_labels is not None:
        warped = warp_labels(pair.moving_labels, found.displacement)
        distances = metrics.surface_distances(warped, pair.fixed_labels, spacing=pair.spacing).values()
        there = [each for each in distances if math.isfinite(each.hd95)]
        values["hd95"] = fmean(each.hd95 for each in there) if there else math.nan
        values["assd"] = fmean(each.assd for each in there) if there else math.nan
    if cycle:
        back = _at_home(method(on_device.fixed, on_device.moving))
        values["cycle_consistency"] = metrics.inverse_consistency(found.displacement, back.displacement)
    seconds = usage.seconds if clock == "wall" else usage.processor_seconds
    return values | {"seconds": seconds, "memory": usage.memory}


def _at_home(found: Registration) -> Registration:
    inverse = None if found.inverse is None else found.inverse.detach().cpu()
    return Registration(found.displacement.detach().cpu(), inverse)


def compare(
    methods: Sequence[Method], pairs: Sequence[Pair], *, cycle: bool = False, device: str = "cpu", progress: bool = True
) -> list[Row]:
    """Every method on every pair; options as of `measure`.

    Raises:
        ValueError: two methods of one name, or no pair.
    """
    names = [method.name for method in methods]
    if len(set(names)) < len(names) or not names or not len(pairs):
        raise ValueError(
            f"a comparison takes methods of different names and one pair at least, received {names} and {len(pairs)} "
            f"pairs; name each method once."
        )
    rows = []
    with tqdm(total=len(methods) * len(pairs), disable=not progress, desc="evaluate") as bar:
        for number in range(len(pairs)):
            pair = pairs[number]  # read once for all methods
            for method in methods:
                rows.append(Row(method.name, number, measure(method.to(device), pair, cycle=cycle, device=device)))
                bar.update()
    return rows


def chance(rows: Sequence[Row], method: str, reference: str, column: str) -> float:
    """p of Wilcoxon's two-sided signed-rank test: that the pairs' differences are as likely up as down.

    1 where no pair differs; NaN where the column is missing. With n pairs p is never below 2 / 2^n.

    Raises:
        ValueError: the reference was not measured.
    """
    by_method = {
        name: {row.pair: row.values.get(column) for row in rows if row.method == name} for name in _names(rows)
    }
    check_option("the reference", reference, by_method)
    both = [(by_method[method].get(pair), value) for pair, value in by_method[reference].items()]
    differences = [one - other for one, other in both if one is not None and other is not None]
    if not differences:
        return math.nan
    return float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def holm(chances: Sequence[float]) -> list[float]:
    """Each p made as large as the number of comparisons asks: the smallest times n, the next times n - 1, and so on.

    Never smaller than one before it, never above 1. Compare the result with 0.05 as if it were the only one.
    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted, least = [math.nan] * len(chances), 0.0
    for before, place in enumerate(sorted(range(len(chances)), key=lambda place: chances[place])):
        least = max(least, min(1.0, (len(chances) - before) * chances[place]))
        adjusted[place] = least
    return adjusted


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each method and pair."""
    used = _used(rows)
    lines = [[row.method, row.pair, *(row.values.get(name, "") for name in used)] for row in rows]
    return _csv([["method", "pair", *used], *lines])


def summary_as_csv(rows: Sequence[Row], reference: str | None = None) -> str:
    """One line for each method: mean, standard deviation and p of every number."""
    used, lines = _used(rows), []
    for name in _names(rows):
        line: list[object] = [name]
        for column in used:
            values = _values(rows, name, column)
            line += [fmean(values) if values else "", stdev(values) if len(values) > 1 else ""]
            line += [chance(rows, name, reference, column)] if reference else []
        lines.append(line)
    parts = ["", "_std", "_p"] if reference else ["", "_std"]
    return _csv([["method", *(f"{column}{part}" for column in used for part in parts)], *lines])


def as_markdown(rows: Sequence[Row], reference: str | None = None) -> str:
    """A table: mean ± standard deviation, the best Dice (of labels or tissue, else correlation) bold; its p last."""
    used, names = _used(rows), _names(rows)
    main = next(column for column in ("dice", "tissue_dice", "correlation") if column in used)
    means = {name: fmean(_values(rows, name, main) or [-math.inf]) for name in names}
    best, head = max(means, key=lambda name: means[name]), ["method", *(COLUMNS[column][0] for column in used)]
    lines = []
    for name in names:
        cells = [_cell(_values(rows, name, column), COLUMNS[column][1]) for column in used]
        if name == best:
            cells[used.index(main)] = f"**{cells[used.index(main)]}**"
        if reference:
            p = chance(rows, name, reference, main)
            cells.append(_ABSENT if name == reference or math.isnan(p) else f"{p:.2g}")
        lines.append([name, *cells])
    if reference:
        head.append(f"p of {COLUMNS[main][0]} against {reference}")
    table = [head, ["---"] * len(head), *lines]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n"


def _used(rows: Sequence[Row]) -> list[str]:
    """The columns that hold a number somewhere."""
    return [column for column in COLUMNS if any(column in row.values for row in rows)]


def _values(rows: Sequence[Row], method: str, column: str) -> list[float]:
    found = (row.values.get(column, math.nan) for row in rows if row.method == method)
    return [value for value in found if math.isfinite(value)]


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return _ABSENT
    spread = f" ± {form.format(stdev(values))}" if len(values) > 1 else ""
    return form.format(fmean(values)) + spread


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
