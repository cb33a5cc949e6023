"""``python -m regkit notebooks``: make both editions of each tutorial."""

from __future__ import annotations

import argparse
from typing import Any

from regkit.commands import COMMANDS


def add_notebooks(commands: Any) -> None:
    """`notebooks`: make both editions of each tutorial."""
    parser = commands.add_parser("notebooks", help=COMMANDS["notebooks"])
    parser.add_argument(
        "--repository", metavar="OWNER/NAME", help="a fork's address, kept in pyproject.toml from then on"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Make, and list what was made."""
    from regkit.course import notebooks

    if chosen.repository:
        notebooks.set_repository(chosen.repository)
    for path in notebooks.build(notebooks.folder()):
        own = f"{path.name.split('.')[0]}.ipynb"
        kept = "" if path.name == own else f"; {own} was worked in and stays as it is"
        print(f"made {path.name} in {path.parent.name}/{kept}")
    return 0
