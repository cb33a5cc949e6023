"""``python -m regkit examine FILE``: what is well with a scan's file and what is not, before anything is run.

With --fix-header a copy is written that all programs see at one place: qform and sform that differ, neither, Analyze,
slices of two axes that are not straight axial. The voxels stay as they are. Where the header says two things, regkit
takes the sform unless --form says otherwise; where it says nothing, the copy has regkit's guess: look at it first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from regkit.commands import COMMANDS


def add_examine(commands: Any) -> None:
    """`examine`: a file before it is registered."""
    words = "Look at a scan's file: a tick is well, ! may surprise, a cross is refused, and makes the status 1."
    parser = commands.add_parser("examine", help=COMMANDS["examine"], description=words)
    parser.add_argument("file", type=Path, help="the scan")
    parser.add_argument("other", type=Path, nargs="?", help="the one that it is to be registered with")
    parser.add_argument("--fix-header", type=Path, metavar="NEW", help="write a copy with one place in its header")
    parser.add_argument("--form", choices=("sform", "qform"), default="sform", help="which one it keeps (sform)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Look and tell, or mend."""
    if chosen.fix_header is not None:
        from regkit.images.headers import fix_header

        fix_header(chosen.file, chosen.fix_header, form=chosen.form)
        print(f"{chosen.fix_header}: {chosen.file} with one place in its header")
        return 0
    from regkit.tools.examine import examine

    seen = examine(chosen.file, chosen.other)
    print(seen)
    return 1 if seen.severity == "red" else 0
