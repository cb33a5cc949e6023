"""The command line: ``python -m regkit lab`` opens the course; ``python -m regkit --help`` lists what else there is."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys

from regkit.commands import COMMANDS, plainly


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
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
