"""``python -m regkit ledger``: what the papers claim, judged on the stored results; a table, and a plot of effects."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regkit.commands import COMMANDS, refuse


def add_ledger(commands: Any) -> None:
    """`ledger`: the claims of the papers, judged on the stored results."""
    parser = commands.add_parser("ledger", help=COMMANDS["ledger"])
    parser.add_argument("--out", type=Path, help="the file; tutorials/claims.md where it is left out")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Judge, and write the table, the page of effects beside it, and its plot."""
    from regkit._core.files import write_atomically
    from regkit.course import claims, evidence, ledger, notebooks

    out = chosen.out or notebooks.folder() / "claims.md"
    if not out.parent.is_dir():
        refuse("--out must be in a folder that exists", out, "make it first")
    findings = evidence.judge(claims.CLAIMS)
    print(ledger.counted(findings))
    plot = out.parent / "gallery" / "forest.svg"
    plot.parent.mkdir(exist_ok=True)
    pages = {out: ledger.table(findings), out.with_name("forest.md"): ledger.forest(findings)}
    for path, content in {**pages, plot: ledger.draw(findings)}.items():
        write_atomically(path, content if isinstance(content, bytes) else content.encode())
        print(f"wrote {path}")
    return 0
