"""``python -m regkit pages FOLDER``: the course as HTML pages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regkit.commands import COMMANDS


def add_pages(commands: Any) -> None:
    """`pages`: the static edition."""
    parser = commands.add_parser("pages", help=COMMANDS["pages"])
    parser.add_argument("folder", type=Path, help="where the pages go")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Run all tutorials, and write their pages."""
    from regkit.course import notebooks

    print(f"open {notebooks.publish(notebooks.folder(), chosen.folder)[-1]}")
    return 0
