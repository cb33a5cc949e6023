"""The command line: ``python -m regkit lab`` opens the course; ``python -m regkit --help`` lists what else there is."""

from __future__ import annotations

import argparse
import importlib
import io
import shlex
import sys

from regkit.commands import COMMANDS, plainly


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. What the console's encoding has no sign for is printed as "?"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="python -m regkit", description="Deep-learning image registration.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    words = sys.argv[1:] if arguments is None else arguments
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        if name == asked:  # of the others nothing is imported
            getattr(importlib.import_module(f"regkit.commands.{name}"), f"add_{name}")(commands)
        else:
            commands.add_parser(name, help=text)
    chosen = parser.parse_args(words)
    chosen.command_line = shlex.join(["python", "-m", "regkit", *words])
    return plainly(chosen.run)(chosen)


if __name__ == "__main__":
    sys.exit(main())
