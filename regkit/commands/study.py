"""``python -m regkit study``: train the variants of a method that are not trained yet."""

from __future__ import annotations

import argparse
from typing import Any

from regkit.commands import COMMANDS


def add_study(commands: Any) -> None:
    """`study`: train the variants of a method that are not trained yet."""
    parser = commands.add_parser("study", help=COMMANDS["study"])
    parser.add_argument("name", nargs="?", help="of the study; all of them where it is left out")
    parser.add_argument("--variant", help="one of the study's variants; all of them where it is left out")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 to 7 where they are left out")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Train what is missing, and print what each variant reached."""
    from regkit.course import studies

    studies.train(chosen.name, chosen.variant, chosen.seeds)
    return 0
