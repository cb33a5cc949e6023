"""``python -m regkit notebooks``: make both editions of each tutorial."""

from __future__ import annotations

import argparse
from typing import Any

from regkit.commands import COMMANDS


def add_notebooks(commands: Any) -> None:
    """`notebooks`: make both editions of each tutorial."""
    commands.add_parser("notebooks", help=COMMANDS["notebooks"]).set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Make, and list what was made."""
    from regkit.course import notebooks

    for path in notebooks.build(notebooks.folder()):
        own = f"{path.name.split('.')[0]}.ipynb"
        kept = "" if path.name == own else f"; {own} was worked in and stays as it is"
        print(f"made {path.name} in {path.parent.name}/{kept}")
    return 0
