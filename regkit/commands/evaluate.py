"""``python -m regkit evaluate DATA``: methods side by side on the pairs of a dataset.

DATA is a folder in the layout of regkit/images/folders.py, or the name of a benchmark that regkit makes itself. Into
the folder --out go summary.md, summary.csv (mean, standard deviation and p of each number) and pairs.csv (every pair).

With --protocol the numbers are those of a paper's table instead, on a folder that data_scripts prepared: tables.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regkit.commands import BENCHMARKS, COMMANDS, METHODS, add_device, refuse, refuse_data

if TYPE_CHECKING:
    from regkit.tools.methods import Method
    from regkit.types import Pair

FILES = ("summary.md", "summary.csv", "pairs.csv", "tables.md")  # of --out


def add_evaluate(commands: Any) -> None:
    """`evaluate`: a table of methods on a dataset."""
    parser = commands.add_parser(
        "evaluate",
        help=COMMANDS["evaluate"],
        description="Compare methods on the pairs of a dataset folder or of a benchmark that regkit makes.",
    )
    parser.add_argument("data", help=f"a dataset's folder, or one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--split", default="test", help="of the folder's splits.json (test)")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="so many pairs: a folder's evenly spread, a benchmark's first (all)"
    )
    parser.add_argument("--method", nargs="+", default=[], choices=METHODS, metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--weights", nargs="+", type=Path, default=[], metavar="FILE", help="networks in files")
    parser.add_argument("--affine", action="store_true", help="each method after an affine map of its own for the pair")
    parser.add_argument("--refine", type=int, default=0, metavar="N", help="also each network with N refining steps")
    parser.add_argument("--reference", metavar="NAME", help="the method that others are tested against (the first)")
    parser.add_argument("--cycle", action="store_true", help="register the other way too: cycle consistency")
    add_device(parser)
    parser.add_argument("--protocol", metavar="NAME", help="a paper's table: paper for the folder's own, or a name")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the tables go; else they are only printed")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Compare, print, write."""
    from regkit._core.files import whole_folder
    from regkit.tools import compare
    from regkit.types import check_option

    pairs = find_pairs(chosen.data, chosen.split, chosen.limit)
    dim = pairs[0].moving.dim() - 2
    methods = _methods(chosen, dim)
    if chosen.protocol is not None:
        return _papers_tables(chosen, methods)
    reference = chosen.reference or methods[0].name
    check_option("--reference", reference, [method.name for method in methods])
    if chosen.out is None:
        rows = compare.compare(methods, pairs, cycle=chosen.cycle, device=chosen.device)
        print(compare.as_markdown(rows, reference))
        return 0
    with whole_folder(chosen.out, owned=FILES) as folder:
        rows = compare.compare(methods, pairs, cycle=chosen.cycle, device=chosen.device)
        (folder / "summary.md").write_text(compare.as_markdown(rows, reference), encoding="utf-8")
        (folder / "summary.csv").write_text(compare.summary_as_csv(rows, reference), encoding="utf-8")
        (folder / "pairs.csv").write_text(compare.as_csv(rows), encoding="utf-8")
    print(compare.as_markdown(rows, reference))
    print(f"{len(pairs)} pairs; tables in {chosen.out}")
    return 0


def _papers_tables(chosen: argparse.Namespace, methods: Sequence[Method]) -> int:
    """The tables of the papers, with a row for each method."""
    from regkit._core.files import whole_folder
    from regkit.tools import tables

    if chosen.reference or chosen.cycle:
        refuse("--reference and --cycle are not part of a paper's table", "them with --protocol", "leave them out")
    if len({method.name for method in methods}) < len(methods):
        refuse("a row needs a name", f"{[method.name for method in methods]}", "name each method once")
    names = tables.named_protocols(chosen.data) if chosen.protocol == "paper" else [chosen.protocol]
    texts = []
    for rules in map(tables.protocol, names):
        options = {"split": chosen.split, "limit": chosen.limit, "device": chosen.device}
        rows = {each.name: tables.follow(rules, each.to(chosen.device), chosen.data, **options) for each in methods}
        texts.append(f"{rules.source}\n\n{tables.table(rules, rows)}\n")
    print("\n".join(texts))
    if chosen.out is not None:
        with whole_folder(chosen.out, owned=FILES) as folder:
            (folder / "tables.md").write_text("\n".join(texts), encoding="utf-8")
    return 0


def find_pairs(data: str, split: str, limit: int | None) -> Sequence[Pair]:
    """The pairs of a folder, or the held-out ones of a benchmark.

    Raises:
        FileNotFoundError, ValueError: neither a folder nor a benchmark; as `FolderPairs`.
    """
    from regkit.data import benchmarks
    from regkit.images.folders import FolderPairs

    if Path(data).is_dir():
        return FolderPairs(data, split, limit=limit)
    if data not in benchmarks.BENCHMARKS:
        refuse_data(data, "a folder or a benchmark")
    if limit is not None and limit < 1:
        refuse("limit must be 1 or more pairs", limit, "give none for all")
    pairs = benchmarks.BENCHMARKS[data].held_out
    return pairs if limit is None else pairs[:limit]


def _methods(chosen: argparse.Namespace, dim: int) -> list[Method]:
    """The methods by name, the files, and each network refined where asked."""
    from regkit.tools.methods import load_method, make_method, with_affine, with_refinement

    named = [make_method(name, dim, progress=False) for name in chosen.method]
    filed = [replace(load_method(path, dim), name=path.stem) for path in chosen.weights]
    methods = named + filed
    if not methods:
        refuse("an evaluation needs a method", "none", "give --method NAME or --weights FILE")
    if chosen.refine < 0:
        refuse("steps must be 0 or more", f"--refine {chosen.refine}", "20 are usual")
    networks = [method for method in methods if method.model is not None] if chosen.refine else []
    methods += [with_refinement(method, chosen.refine, progress=False) for method in networks]
    if not chosen.affine:
        return methods
    return [method if method.name in ("none", "affine") else with_affine(method) for method in methods]
