"""``python -m regkit lab``: open the course in JupyterLab."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regkit.commands import COMMANDS, refuse


def add_lab(commands: Any) -> None:
    """`lab`: open a working copy of the course in JupyterLab at the first tutorial."""
    parser = commands.add_parser("lab", help=COMMANDS["lab"])
    parser.add_argument("--folder", type=Path, default="regkit-course", help="working copy; what you changed stays")
    parser.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    parser.add_argument("--port", type=int, default=8888, help="on this machine (8888, or the next free one)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Until JupyterLab ends."""
    from regkit.course import notebooks

    if not 0 <= chosen.port < 2**16:
        refuse("--port must be from 0 to 65535", chosen.port, "leave it out for 8888, or the next free one")
    return notebooks.lab(chosen.folder, browser=not chosen.no_browser, port=chosen.port)
