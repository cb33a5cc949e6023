"""The command line: ``regkit lab`` opens the course; ``regkit --help`` lists what else there is.

``python -m regkit`` is the same as ``regkit``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import shlex
import sys

from regkit._core import __version__
from regkit.commands import COMMANDS, EXAMPLES, Help, logged, plainly, silence


def parse(words: list[str]) -> argparse.Namespace:
    """What the words ask for; `run` does it. Of the commands only the one that is asked for is imported."""
    parser = argparse.ArgumentParser(prog="python -m regkit", description="Deep-learning image registration.")
    parser.add_argument("--version", action="version", version=f"regkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        if name == asked:
            getattr(importlib.import_module(f"regkit.commands.{name}"), f"add_{name}")(commands)
            command = commands.choices[name]
            command.formatter_class = Help
            command.epilog = f"example: {parser.prog} {name} {EXAMPLES[name]}"
            command.add_argument("--quiet", action="store_true", help="print warnings and errors only")
        else:
            commands.add_parser(name, help=text)
    return parser.parse_args(words)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. What the console's encoding has no sign for is printed as "?"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            return run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough: regkit ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as the shell has it


def run(words: list[str]) -> int:
    """One command; what the library logs is printed."""
    chosen = parse(words)
    chosen.command_line = shlex.join(["python", "-m", "regkit", *words])
    with silence() if chosen.quiet else contextlib.nullcontext(), logged():
        return plainly(chosen.run)(chosen)


if __name__ == "__main__":
    sys.exit(main())
