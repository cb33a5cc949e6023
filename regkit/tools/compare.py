"""Methods compared on the same pairs, or on scans in files: what each reaches, tables, and whether it is chance.

`measure` takes the numbers of one method on one pair, `compare` those of several on all pairs, `compare_scans` those on
scans in files. Every number is taken pair by pair, so that two methods are compared on the same pair: Wilcoxon's
signed-rank test of each method against a reference.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy.stats import wilcoxon
from torch import Tensor, nn

from regkit import metrics, types
from regkit._core.interrupts import Bar
from regkit.images import Scan, read_image, read_labels, resample
from regkit.tools.measures import COLUMNS, MEASURES, RECORDED, Outcome, quantities
from regkit.tools.methods import Method, measured, one_thread
from regkit.tools.register import check_label_grids, register_scans
from regkit.types import Displacement, Image, InputError, Labels, Pair, Registration, check_option

_ABSENT = "-"
_MOST_ROUNDS = 300  # of Lloyd's algorithm
_SMALL = 16  # voxels along each axis of what a method is tried on first, at least

_SHOWN = {  # beside a trained variant, by words with units
    "Dice": "dice",
    "mean |warped - fixed|": "difference",
    "folds (%)": "folds_percent",
    "inverse error (voxels)": "inverse_consistency",
}


# ---------------------------------------------------------------------------------------------- one method, one pair
def _rounded(value: Any, digits: int = 6) -> Any:
    """Numbers to some significant digits, in whatever lists and dicts."""
    if isinstance(value, dict):
        return {key: _rounded(part, digits) for key, part in value.items()}
    return [_rounded(part, digits) for part in value] if isinstance(value, list) else float(f"{value:.{digits}g}")


def evaluate(model: nn.Module, pairs: Sequence[Pair]) -> dict[str, float]:
    """Means over pairs of one size, by the names below; `model` is used as it is, so put it in evaluation mode.

    dice: mean over labels. mse: of the warped image. folds: percent of voxels. std_log_jacobian. inverse_error: how far
    φ_AB ∘ φ_BA is from the identity, in voxels, φ_BA being the inverse that the method gives, or else what it finds for
    the exchanged images; exchange_error: the same with what it finds for the exchanged images in any case.
    field_error: mean |u - true u| in voxels where the fixed image has labels, if the truth is known.
    """
    pair = types.stack(pairs)
    return _rounded(_recorded(pair, *_fields(model, pair)))


def evaluate_each(model: nn.Module, pairs: Sequence[Pair]) -> dict[str, list[float]]:
    """The numbers of `evaluate` on each pair, to five digits; only those that are finite on every one.

    Their mean is `evaluate`'s number where no mean over structures or deviation over voxels comes in between.
    """
    fields = (field.split(1) for field in _fields(model, types.stack(pairs)))
    each = [_recorded(*parts) for parts in zip(pairs, *fields, strict=True)]
    rows = {name: [values.get(name, math.nan) for values in each] for name in RECORDED}
    return _rounded({name: row for name, row in rows.items() if all(map(math.isfinite, row))}, 5)


def _fields(model: nn.Module, pair: Pair) -> tuple[Displacement, Displacement, Displacement]:
    """What is found, its inverse, and what is found for the exchanged images."""
    with torch.no_grad():
        found, back = model(pair.moving, pair.fixed), model(pair.fixed, pair.moving)
    return found.displacement, back.displacement if found.inverse is None else found.inverse, back.displacement


def _recorded(pair: Pair, found: Displacement, inverse: Displacement, exchanged: Displacement) -> dict[str, float]:
    outcome = Outcome.of(Registration(found, inverse), pair, exchanged=exchanged)
    return _named({name: each.measure for name, each in RECORDED.items()}, outcome)


def _named(names: Mapping[str, str], seen: Outcome) -> dict[str, float]:
    """`quantities` by other names."""
    reached = quantities(seen, names.values())
    return {name: reached[measure] for name, measure in names.items() if measure in reached}


def register(model: nn.Module, pair: Pair) -> Registration:
    """Without gradients; where the method gives no inverse, its answer to the exchanged images stands in."""
    with torch.no_grad():
        found = model(pair.moving, pair.fixed)
        inverse = model(pair.fixed, pair.moving).displacement if found.inverse is None else found.inverse
    return Registration(found.displacement, inverse, found.velocity)


def measure_variant(pair: Pair, registration: Registration) -> dict[str, float]:
    """How good and how regular a registration is, by words with units."""
    return _named(_SHOWN, Outcome.of(registration, pair))


Clock = Literal["wall", "processor"]


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
    in both. lost: how many are in one of the two only, where there are any. cycle: register the other way as well.
    seconds, memory (MB): of the registration. clock: "processor" counts the seconds that the process's threads worked,
    which other programs do not change.

    Raises:
        ValueError: no such clock.
    """
    check_option("clock", clock, get_args(Clock))
    on_device = pair.to(device)
    with measured(device) as usage:
        found = method(on_device.moving, on_device.fixed)
    found = _at_home(found)
    back = _at_home(method(on_device.fixed, on_device.moving)).displacement if cycle else None
    seconds = usage.seconds if clock == "wall" else usage.processor_seconds
    reached = quantities(Outcome.of(found, pair, exchanged=back), COLUMNS.keys() & MEASURES.keys())
    return reached | {"seconds": seconds, "memory": usage.memory}


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
        raise InputError(
            "a comparison takes methods of different names and one pair at least",
            f"{names} and {len(pairs)} pairs",
            "name each method once",
        )
    rows = []
    with Bar(total=len(methods) * len(pairs), disable=not progress, desc="evaluate") as bar:
        for number in range(len(pairs)):
            pair = pairs[number]  # read once for all methods
            for method in methods:
                rows.append(Row(method.name, number, measure(method.to(device), pair, cycle=cycle, device=device)))
                bar.update()
    return rows


# ---------------------------------------------------------------------------------------------- differences and chance
def chance(rows: Sequence[Row], method: str, reference: str, column: str) -> float:
    """p of Wilcoxon's two-sided signed-rank test: that the pairs' differences are as likely up as down.

    1 where no pair differs; NaN where the column is missing. With n pairs p is never below 2 / 2^n.

    Raises:
        ValueError: the reference was not measured.
    """
    by_method = {name: {row.pair: _value(row, column) for row in rows if row.method == name} for name in _names(rows)}
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


def mean(rows: Sequence[Row], method: str, column: str) -> float:
    """Of a method's finite numbers; NaN where there is none."""
    values = _values(rows, method, column)
    return fmean(values) if values else math.nan


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


# ---------------------------------------------------------------------------------------------- tables
def as_csv(rows: Sequence[Row]) -> str:
    """One line for each method and pair."""
    used = used_columns(rows)
    values = [[_value(row, name) for name in used] for row in rows]
    lines = [
        [row.method, row.pair, *("" if value is None else value for value in line)]
        for row, line in zip(rows, values, strict=True)
    ]
    return csv_text([["method", "pair", *used], *lines])


def summary_as_csv(rows: Sequence[Row], reference: str | None = None) -> str:
    """One line for each method: mean, standard deviation and p of every number."""
    used, lines = used_columns(rows), []
    for name in _names(rows):
        line: list[object] = [name]
        for column in used:
            values = _values(rows, name, column)
            line += [fmean(values) if values else "", stdev(values) if len(values) > 1 else ""]
            line += [chance(rows, name, reference, column)] if reference else []
        lines.append(line)
    parts = ["", "_std", "_p"] if reference else ["", "_std"]
    return csv_text([["method", *(f"{column}{part}" for column in used for part in parts)], *lines])


def table(head: Sequence[str], lines: Iterable[Sequence[str]], *, rule: str = "---") -> str:
    """A table in Markdown. rule: what stands below each cell of the head."""
    rows = [head, *lines]
    texts = [
        "|" + "".join(f" {' '.join(cell.splitlines())}".rstrip().replace("|", "\\|") + " |" for cell in row)
        for row in rows
    ]
    return "\n".join([texts[0], "|" + f"{rule}|" * len(head), *texts[1:]]) + "\n"


def as_markdown(rows: Sequence[Row], reference: str | None = None) -> str:
    """A table: mean ± standard deviation, the best Dice (of labels or tissue, else correlation) bold; its p last."""
    used, names = used_columns(rows), _names(rows)
    main = next(column for column in ("dice", "tissue_dice", "correlation") if column in used)
    reached = {name: fmean(_values(rows, name, main) or [-math.inf]) for name in names}
    best, lines = max(names, key=lambda name: reached[name]), []
    for name in names:
        cells = [_cell(_values(rows, name, column), COLUMNS[column].form) for column in used]
        if name == best:
            cells[used.index(main)] = f"**{cells[used.index(main)]}**"
        if reference:
            p = chance(rows, name, reference, main)
            cells.append(_ABSENT if name == reference or math.isnan(p) else f"{p:.2g}")
        lines.append([name, *cells])
    last = [f"p of {COLUMNS[main].words} against {reference}"] if reference else []
    text = table(["method", *(COLUMNS[column].words for column in used), *last], lines, rule=" --- ")
    return f"{text}\n{_TISSUE_DICE}\n" if "tissue_dice" in used else text


def used_columns(rows: Sequence[Row]) -> list[str]:
    """Those of `COLUMNS` that hold a number somewhere."""
    return [column for column in COLUMNS if any(column in row.values for row in rows)]


def _value(row: Row, column: str) -> float | None:
    """A number of a row, if it was taken: where distances were and nothing is said to be lost, nothing is."""
    return row.values.get(column, 0.0 if column == "lost" and "hd95" in row.values else None)


def _values(rows: Sequence[Row], method: str, column: str) -> list[float]:
    found = (_value(row, column) for row in rows if row.method == method)
    return [value for value in found if value is not None and math.isfinite(value)]


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return _ABSENT
    spread = f" ± {form.format(stdev(values))}" if len(values) > 1 else ""
    return form.format(fmean(values)) + spread


def _plain(cell: object) -> object:
    """A cell; a text is one line, and no formula."""
    if not isinstance(cell, str):
        return cell
    words = " ".join(cell.splitlines())
    return f"'{words}" if re.match(r"[=+@\t-]", words) and not re.fullmatch(r"[-+.\de]+", words) else words


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """Lines of cells as CSV. A text that a spreadsheet would compute (=, +, -, @ first) begins with an apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_plain(cell) for cell in line] for line in lines)
    return text.getvalue()


# ---------------------------------------------------------------------------------------------- scans in files

_TISSUE_DICE = (
    "Tissue Dice is of classes that k-means makes of intensities: it rewards whoever fits intensities, and does not "
    "tell whether a structure lies on its own. Labels of structures do (--labels)."
)
TISSUES = ("fluid", "grey", "white")  # of T1 images, by mean intensity: classes 1, 2, 3


def tissue_classes(image: Image, count: int = len(TISSUES)) -> Labels:
    """The class of each voxel, 1 to `count` by mean intensity, (1, 1, *space); 0 outside the brain, where image = 0.

    image: (1, 1, *space), skull-stripped: all that is not 0 is brain.

    Raises:
        TypeError, ValueError: no image, several, NaN; a brain of fewer different intensities than classes.
    Source: Lloyd's algorithm (1982) in one dimension, from the quantiles (i + 1/2) / count.
    """
    types.check_image(image)
    types.check_finite(image, "image")
    if image.shape[:2] != (1, 1) or count < 1:
        raise InputError(
            "classes are those of one image of one channel, 1 or more",
            f"shape {tuple(image.shape)} and {count}",
            "take one item",
        )
    brain = image != 0
    thresholds = _thresholds(image[brain].double(), count)
    return torch.where(brain, torch.bucketize(image.double(), thresholds, right=True) + 1, 0)


def tissue_dice(warped: Labels, fixed: Labels) -> float:
    """The mean Dice of the classes of two scans on one grid, as of `tissue_classes`: of intensities, not of anatomy.

    Raises:
        TypeError, ValueError: as `metrics.dice`.
    """
    return fmean(metrics.dice(warped, fixed).values())


def _thresholds(values: Tensor, count: int) -> Tensor:
    """Between the classes of some values (N,): the middles of the centres on both sides, (count - 1,)."""
    values = values.sort().values
    if len(values) == 0 or (values[1:] != values[:-1]).sum() + 1 < count:
        raise InputError(
            f"a brain needs {count} different intensities to have {count} classes",
            f"{len(values)} voxels that are not 0",
            "give a skull-stripped image, not labels or a mask",
        )
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    centres = values[((torch.arange(count) + 0.5) / count * len(values)).long()]
    ends = torch.tensor([0, len(values)])
    for _ in range(_MOST_ROUNDS):
        thresholds = (centres[1:] + centres[:-1]) / 2
        borders = torch.cat([ends[:1], torch.searchsorted(values, thresholds), ends[1:]])
        sizes = borders.diff()
        means = torch.where(sizes > 0, sums[borders].diff() / sizes.clamp(min=1), centres)
        if torch.equal(means, centres):
            break
        centres = means
    return (centres[1:] + centres[:-1]) / 2


@dataclass(frozen=True)
class ScanFiles:
    """Two scans in files, brains without skull; labels: of moving and fixed, or None."""

    moving: Path
    fixed: Path
    labels: tuple[Path, Path] | None = None


@dataclass(frozen=True)
class Entry:
    """A method as `register_scans` takes it. refine: steps after it; affine: whether an affine map comes first."""

    name: str
    method: Method
    refine: int = 0
    affine: bool = False


@dataclass(frozen=True)
class _Truth:
    """What a registration of two scans is judged by: labels of both, and the column of their Dice."""

    column: str
    moving: Scan
    fixed: Scan


def compare_scans(entries: Sequence[Entry], pairs: Sequence[ScanFiles], *, progress: bool = True) -> list[Row]:
    """Every method on every pair of scans, on one thread.

    dice, or tissue_dice without labels: on fixed's own grid. folds_percent, jacobian_std_log: of the whole map there.
    correlation: of the warped scan and fixed. inverse_consistency: voxels of the registration's grid. seconds (of the
    processor), memory (MB): of reading the files, registration, refinement and warping together, after the same on a
    few voxels.

    Raises:
        FileNotFoundError, ValueError: as `read_image`, `read_labels`, `register_scans`; labels on another grid.
    """
    truths = [_truth(pair) for pair in pairs]
    rows = []
    with one_thread(), Bar(total=len(entries) * len(pairs), disable=not progress, desc="scans") as bar:
        for entry in entries:
            for number, (pair, truth) in enumerate(zip(pairs, truths, strict=True)):
                bar.set_postfix_str(f"{entry.name}, pair {number}")
                if number == 0:
                    _try(entry, pair)
                rows.append(Row(entry.name, number, _measure_scans(entry, pair, truth)))
                bar.update()
    return rows


def _truth(pair: ScanFiles) -> _Truth:
    both = [read_image(path) for path in (pair.moving, pair.fixed)]
    if pair.labels is None:
        return _Truth("tissue_dice", *(scan.with_tensor(tissue_classes(scan.tensor)) for scan in both))
    labels = [read_labels(path) for path in pair.labels]
    check_label_grids(labels, both)
    return _Truth("dice", *labels)


def _try(entry: Entry, pair: ScanFiles) -> None:
    """Register a small version of fixed with itself: what is done once in a program is done."""
    fixed = read_image(pair.fixed)
    small = resample(fixed, fixed.grid.with_space([min(n, max(_SMALL, n // 6)) for n in fixed.grid.space]))
    register_scans(small, small, entry.method, refine=min(entry.refine, 1), progress=False)


def _measure_scans(entry: Entry, pair: ScanFiles, truth: _Truth) -> dict[str, float]:
    with measured() as usage:
        moving, fixed = read_image(pair.moving), read_image(pair.fixed)
        result = register_scans(moving, fixed, entry.method, affine=entry.affine, refine=entry.refine, progress=False)
        warped = result.warp(moving)
    labels, own = result.warp(truth.moving).tensor, resample(truth.fixed, fixed.original).tensor
    whole = Outcome(
        result.there.displacement,
        warped=warped.tensor,
        fixed=resample(fixed, fixed.original).tensor,
        warped_labels=labels,
        fixed_labels=own,
    )
    values = quantities(whole, ("dice", "correlation", "folds_percent", "jacobian_std_log"))
    values[truth.column] = values.pop("dice")
    values |= {"seconds": usage.processor_seconds, "memory": max(usage.memory, result.usage.memory)}
    return values | quantities(Outcome(result.found.displacement, result.found.inverse), ["inverse_consistency"])
