"""``python -m regkit leaderboard``: all methods on held-out whole brains, or on two scans of your own.

Without --scans it measures what is missing of the stored rows, can be stopped and goes on where it was, and writes
tutorials/leaderboard.md and the table between the marks in README.md. With --scans and --out nothing is stored: the
tables of those scans go into the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regkit.commands import COMMANDS, NETWORKS, refuse

MARKS = ("<!-- leaderboard: written by python -m regkit leaderboard -->\n", "<!-- end of the leaderboard -->\n")
NAMES = ("brains_3d", "brains_3d_unaligned")
SLICES = ("brains", "brains_unaligned")
METHODS = ("none", "affine", "syn", "optimise", *NETWORKS, *(f"{name} + refinement" for name in NETWORKS))
STEPS = 20


def add_leaderboard(commands: Any) -> None:
    """`leaderboard`: the shipped networks and their rivals, side by side."""
    parser = commands.add_parser(
        "leaderboard",
        help=COMMANDS["leaderboard"],
        description="Measure what is missing of the leaderboard and write it; or compare all methods on two scans.",
    )
    words = f"one of {' and '.join(NAMES)} (both), or slices, for the ledger: methods without weights"
    parser.add_argument("--benchmark", choices=NAMES + SLICES, help=words)
    parser.add_argument("--methods", nargs="+", default=[], metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--again", action="store_true", help="measure also what is stored")
    scans = parser.add_argument_group("two scans of your own instead")
    add = scans.add_argument
    add("--scans", nargs=2, action="append", type=Path, metavar=("MOVING", "FIXED"), help="NIfTI, brains only; or more")
    words = "of each --scans, in order; without them Dice is of tissue classes made of intensities"
    add("--labels", nargs=2, action="append", type=Path, metavar=("MOVING", "FIXED"), help=words)
    add("--refine", type=int, metavar="N", help=f"steps of refinement ({STEPS})")
    add("--affine", action="store_true", help="find an affine map before each method, for scans that are not aligned")
    add("--out", type=Path, metavar="FOLDER", help="where the tables of --scans go")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Measure, print, write."""
    from regkit.course import notebooks
    from regkit.tools import leaderboard

    if chosen.scans:
        return _scans(chosen)
    if chosen.labels or chosen.out or chosen.affine or chosen.refine is not None:
        refuse("--labels, --refine, --affine and --out go with --scans", "them without", "give --scans")
    for name in [chosen.benchmark] if chosen.benchmark else leaderboard.NAMES:
        rows = leaderboard.measure(name, chosen.methods, again=chosen.again)
        print(f"{name}\n\n{leaderboard.table(rows)}\n{leaderboard.verdict(rows)}\n")
    for path in write(notebooks.folder()):
        print(f"wrote {path}")
    return 0


def write(tutorials: Path) -> list[Path]:
    """Write the page, and the table in README.md between its marks; returns both files."""
    from regkit._core.files import write_atomically
    from regkit.tools import leaderboard

    page, readme = tutorials / "leaderboard.md", tutorials.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    for mark in MARKS:
        if text.count(mark) != 1:
            refuse(f"the table's place must be marked once by {mark!r}", f"{readme} without", "put it in")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    table = leaderboard.short_table(*map(leaderboard.stored, leaderboard.NAMES))
    write_atomically(page, leaderboard.page().encode())
    write_atomically(readme, f"{before}{MARKS[0]}{table}{MARKS[1]}{after}".encode())
    return [page, readme]


def _scans(chosen: argparse.Namespace) -> int:
    """All methods on pairs of scans from files."""
    from regkit._core.files import whole_folder
    from regkit.tools import compare, leaderboard
    from regkit.types import check_option

    if chosen.out is None:
        refuse("the tables of scans need a place", "no --out", "give --out FOLDER")
    if chosen.benchmark or chosen.again:
        refuse("--benchmark and --again are of the stored rows", "them with --scans", "leave them out")
    steps = leaderboard.STEPS if chosen.refine is None else chosen.refine
    if steps < 1:
        refuse("refinement takes 1 step or more", f"--refine {steps}", "20 are usual")
    names = chosen.methods or leaderboard.rivals()
    for name in names:
        check_option("the method", name, leaderboard.rivals())
    both = zip(chosen.scans, _labels(chosen), strict=True)
    pairs = [compare.ScanFiles(moving, fixed, labels) for (moving, fixed), labels in both]
    with whole_folder(chosen.out) as folder:
        entries = [leaderboard.entry(name, steps) for name in names]
        if chosen.affine:
            entries = [replace(entry, affine=entry.name != "none") for entry in entries]
        rows = compare.compare_scans(entries, pairs)
        (folder / "scans.md").write_text(compare.as_markdown(rows), encoding="utf-8")
        (folder / "scans.csv").write_text(compare.as_csv(rows), encoding="utf-8")
    print(compare.as_markdown(rows))
    print(f"{len(pairs)} pairs; tables in {chosen.out}")
    return 0


def _labels(chosen: argparse.Namespace) -> Sequence[tuple[Path, Path] | None]:
    """The labels of each pair of scans."""
    if chosen.labels is None:
        return [None] * len(chosen.scans)
    if len(chosen.labels) != len(chosen.scans):
        refuse(
            "labels belong to all pairs of scans or to none",
            f"{len(chosen.labels)} --labels for {len(chosen.scans)} --scans",
            "give one --labels MOVING FIXED for each",
        )
    return [(moving, fixed) for moving, fixed in chosen.labels]
