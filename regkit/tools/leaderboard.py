"""The leaderboard: what the shipped networks and their rivals reach on held-out whole brains, measured and stored.

A row is one method on one pair (`compare.Row`). Rows lie in results/leaderboard/BENCHMARK.csv, each with a key of
the pairs and the weights that it was measured with; `measure` takes again only what is missing or has another key, and
stores after every row, so that it can be stopped. `python -m regkit leaderboard` measures and writes the tables.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from regkit._core.files import PACKAGE, sweep, write_atomically
from regkit._core.interrupts import Bar
from regkit.data.benchmarks import BENCHMARKS
from regkit.tools import compare, methods
from regkit.tools.compare import COLUMNS, Entry, Row
from regkit.tools.methods import NETWORKS, Method, make_method, one_thread, with_refinement
from regkit.types import InputError, Pair, check_option

FOLDER = PACKAGE / "course" / "results" / "leaderboard"
NAMES = ("brains_3d", "brains_3d_unaligned")  # of the benchmarks
SLICES = ("brains", "brains_unaligned")  # of methods without weights: what the studies' networks are compared with
REFERENCE = "voxelmorph"
STEPS = 20  # of refinement, at each scale
_REFINED = " + refinement"
_OTHERS = ("none", "affine", "syn", "optimise")
METHODS = (*_OTHERS, *NETWORKS, *(name + _REFINED for name in NETWORKS))  # in the order of the rows
_KEY, _CHECKSUM = "key", "checksum"
_HIGHEST = {"dice": 1, "tissue_dice": 1, "correlation": 1, "folds_percent": 100}
_CERTAIN = 0.05  # p below which a difference is not taken for chance


def rivals() -> list[str]:
    """Those of `METHODS` that can be measured here: networks with weights, SyN where it is installed."""
    there = {*_OTHERS, *methods.shipped(3)} - (set() if importlib.util.find_spec("ants") else {"syn"})
    return [name for name in METHODS if name.removesuffix(_REFINED) in there]


def entry(name: str, steps: int = STEPS) -> Entry:
    """One of `rivals` for scans in files: refinement on fixed's own grid, the affine map from coarse to fine.

    steps: of refinement and optimisation.

    Raises:
        ValueError, FileNotFoundError: no such method; its weights are not shipped.
    """
    check_option("the method", name, METHODS)
    if name == "affine":
        return Entry(name, make_method("none", 3), affine=True)
    method = make_method(name.removesuffix(_REFINED), 3, steps=steps, progress=False)
    return Entry(name, method, steps if name.endswith(_REFINED) else 0)


def make(name: str) -> Method:
    """One of `rivals` for pairs of tensors; errors as `entry`."""
    method = make_method("affine", 3) if name == "affine" else entry(name, STEPS).method
    return replace(with_refinement(method, STEPS, progress=False), name=name) if name.endswith(_REFINED) else method


def stored(name: str) -> list[Row]:
    """The rows of a benchmark: in the order of `METHODS`, pair by pair; none where nothing was measured yet.

    Raises:
        ValueError: no such benchmark; a damaged file.
    """
    return [row for _, row in _read(name)]


def key(name: str, method: str) -> str:
    """What the row of a method depends on: the benchmark's pairs, the network's weights, the steps of refinement."""
    base = method.removesuffix(_REFINED)
    weights = methods.shipped_file(base, 3).read_bytes() if base in NETWORKS else b""
    steps = STEPS if base != method or method == "optimise" else 0
    return hashlib.sha256(f"{BENCHMARKS[name].words} {steps} ".encode() + weights).hexdigest()[:12]


def measure(name: str, chosen: Sequence[str] = (), *, again: bool = False, progress: bool = True) -> list[Row]:
    """Measure what is missing on a benchmark's held-out pairs, on one thread, and store it row by row; then all rows.

    chosen: of `rivals`; all by default. again: measure also what is there. A network is called once before, so that
    no row holds the start of the program.

    Raises:
        ValueError: no such benchmark, or a method that cannot be measured here; a damaged file of rows.
    """
    rows = {(row.method, row.pair): (own, row) for own, row in _read(name)}
    possible = [each for each in rivals() if name in NAMES or each in _OTHERS]
    for each in chosen:
        check_option("the method", each, possible)
    keys = {method: key(name, method) for method in chosen or possible}
    pairs = BENCHMARKS[name].held_out
    missing = [
        (method, number)
        for method in keys
        for number in range(len(pairs))
        if again or (method, number) not in rows or rows[method, number][0] != keys[method]
    ]
    with one_thread(), Bar(missing, disable=not progress, desc=name) as bar:
        for method, number in bar:
            bar.set_postfix_str(f"{method}, pair {number}")
            reached = compare.measure(_ready(method, pairs[0]), pairs[number], clock="processor")
            values = {column: value for column, value in reached.items() if math.isfinite(value)}
            _store(name, keys[method], Row(method, number, values))
    FOLDER.mkdir(parents=True, exist_ok=True)
    sweep(_path(name))
    return stored(name)


@functools.lru_cache(1)
def _ready(name: str, pair: Pair) -> Method:
    """A method whose network was called once."""
    method = make(name)
    if method.model is not None:
        with torch.no_grad():
            method.model(pair.moving, pair.fixed)
    return method


# ---------------------------------------------------------------------------------------------- rows in files
def _path(name: str) -> Path:
    check_option("the benchmark", name, NAMES + SLICES)
    return FOLDER / f"{name}.csv"


def _read(name: str) -> list[tuple[str, Row]]:
    """The rows and their keys."""
    path = _path(name)
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(line[_KEY], _row(line)) for line in csv.DictReader(file)]
        if len({(row.method, row.pair) for _, row in rows}) < len(rows):
            raise ValueError("a pair of a method twice")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"stored rows are a table with the columns method, pair, {_KEY} and finite numbers, each pair once",
            f"{path} ({error!r})",
            "remove it and measure again",
        ) from error
    return rows


def _row(line: Mapping[str, str]) -> Row:
    """A row of the file; errors where its numbers cannot be, or its checksum is another (older rows have none)."""
    values = {name: float(line[name]) for name in COLUMNS if line.get(name)}
    row = Row(line["method"], int(line["pair"]), values)
    check_option("the method", row.method, METHODS)
    for column, value in values.items():
        if not -(column == "correlation") <= value <= _HIGHEST.get(column, sys.float_info.max):
            raise ValueError(f"{column} of {value}")
    if row.pair < 0 or not values or None in (*line, *line.values()):
        raise ValueError("a row that is not whole")
    if line.get(_CHECKSUM) and line[_CHECKSUM] != _checksum(line[_KEY], row):
        raise ValueError(f"{row.method}, pair {row.pair}, whose numbers were altered")
    return row


def _numbers(row: Row) -> dict[str, str]:
    """Those that could be taken, as they are written."""
    return {name: f"{row.values[name]:.6g}" for name in COLUMNS if math.isfinite(row.values.get(name, math.nan))}


def _checksum(own: str, row: Row) -> str:
    return hashlib.sha256(f"{row.method} {row.pair} {own} {_numbers(row)}".encode()).hexdigest()[:12]


def _store(name: str, own: str, row: Row) -> None:
    """Put a row into the file as it is now: another process may measure other methods."""

    def added() -> bytes:
        others = [(key, each) for key, each in _read(name) if (each.method, each.pair) != (row.method, row.pair)]
        return _text([*others, (own, row)])

    FOLDER.mkdir(parents=True, exist_ok=True)
    write_atomically(_path(name), added)


def _text(rows: Sequence[tuple[str, Row]]) -> bytes:
    """The rows in order."""
    ordered = sorted(rows, key=lambda each: (METHODS.index(each[1].method), each[1].pair))
    used = compare.used_columns([row for _, row in rows])
    lines: list[list[object]] = [["method", "pair", _KEY, *used, _CHECKSUM]]
    for own, row in ordered:
        numbers = _numbers(row)
        lines.append([row.method, row.pair, own, *(numbers.get(name, "") for name in used), _checksum(own, row)])
    return compare.csv_text(lines).encode()


# ---------------------------------------------------------------------------------------------- tables
def table(rows: Sequence[Row]) -> str:
    """All numbers of each method as markdown, best Dice first; p against `REFERENCE` where that was measured."""
    names = {row.method for row in rows}
    places = {name: place for place, name in enumerate(_ranking(rows))}
    ordered = sorted(rows, key=lambda row: (places[row.method], row.pair))
    return compare.as_markdown(ordered, REFERENCE if REFERENCE in names else None)


def verdict(rows: Sequence[Row]) -> str:
    """Which networks beat the reference in Dice, in words: every network that does not is named.

    Source: Wilcoxon's signed-rank test over the pairs; p < 0.05 after Holm's correction for the number of networks.
    """
    names = {row.method for row in rows}
    networks = [name for name in NETWORKS if name in names and name != REFERENCE]
    if REFERENCE not in names or not networks:
        return ""
    groups: dict[str, list[str]] = {"better": [], "not told apart": [], "worse": []}
    chances = compare.holm([compare.chance(rows, name, REFERENCE, "dice") for name in networks])
    for name, p in zip(networks, chances, strict=True):
        higher = compare.mean(rows, name, "dice") > compare.mean(rows, REFERENCE, "dice")
        group = "not told apart" if not p < _CERTAIN else "better" if higher else "worse"
        groups[group].append(f"{name} (p = {p:.2g})")
    listed = "; ".join(f"{group}: {', '.join(members) or 'none'}" for group, members in groups.items())
    return f"Dice of the networks alone against {REFERENCE}, p after Holm's correction: {listed}."


def short_table(aligned: Sequence[Row], unaligned: Sequence[Row]) -> str:
    """Dice on both benchmarks, folds and seconds over both, as markdown; best Dice on aligned brains first."""
    both = [*aligned, *unaligned]
    taken = [(aligned, "dice"), (unaligned, "dice"), (both, "folds_percent"), (both, "seconds")]
    lines = []
    for name in dict.fromkeys(_ranking(aligned) + _ranking(unaligned)):
        means = [(compare.mean(rows, name, column), COLUMNS[column].form) for rows, column in taken]
        lines.append([name, *("-" if math.isnan(mean) else form.format(mean) for mean, form in means)])
    return compare.table(["method", "Dice, aligned", "Dice, unaligned", "folds (%)", "seconds"], lines)


def _ranking(rows: Sequence[Row]) -> list[str]:
    """The methods by their mean Dice, best first."""
    names = dict.fromkeys(row.method for row in rows)
    return sorted(names, key=lambda name: -compare.mean(rows, name, "dice"))


def page() -> str:
    """The page of the stored rows, both tables and what their numbers are, as markdown."""
    parts = [_HEAD]
    for name, words in _WORDS.items():
        rows = stored(name)
        parts.append(
            f"## {words}: `{name}`\n\nMeasured again by `python -m regkit leaderboard --benchmark {name} --again`."
        )
        parts += [table(rows).rstrip(), verdict(rows)] if rows else ["Nothing was measured yet."]
    return "\n\n".join(part for part in parts if part) + "\n"


_WORDS = {"brains_3d": "Aligned brains", "brains_3d_unaligned": "Brains as they lie"}

_HEAD = f"""# Leaderboard

Made by `python -m regkit leaderboard`, which measures what is missing of the stored rows and writes this page.

Ten held-out pairs of whole synthetic brains (64 x 80 x 64 voxels of 2.94 mm) in each table: mean ± standard deviation
over the pairs. Each network was trained once, on other synthetic brains, half of the pairs aligned, so that the
differences are those of these trainings: their files name their commands. Refinement: {STEPS} steps at each scale on
what the network found, for that pair (`--refine {STEPS}`). `optimise`: the same from nothing.
`syn`: ANTs' SyN with its defaults, its affine stage included; left out where antspyx is missing. `affine`: an affine
map found for the pair. `none`: the pair as it is.

Dice, HD95 and ASSD: means over 18 structures. Folds: voxels with |J| at or below 0. Inverse consistency: of the map and
its inverse, where the method gives one. Seconds: of the registration alone, on one thread, as the processor counts
them, without a network's first call; other machines are faster or slower, all methods alike. Memory: the peak of the
whole process. p: Wilcoxon's signed-rank test on the pairs' Dice against {REFERENCE}, of ten pairs never below 0.002; in
the table of each comparison by itself."""
