"""The command line: ``python -m regkit lab`` opens the course; ``python -m regkit --help`` lists what else there is."""

from __future__ import annotations

import argparse
import shlex
import sys

from regkit.commands import evaluate, lab, leaderboard, ledger, notebooks, pages, plainly, register, study, train

COMMANDS = (
    register.add_register,
    train.add_train,
    evaluate.add_evaluate,
    leaderboard.add_leaderboard,
    lab.add_lab,
    notebooks.add_notebooks,
    pages.add_pages,
    study.add_study,
    ledger.add_ledger,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m regkit", description="Deep-learning image registration.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in COMMANDS:
        add(commands)
    words = sys.argv[1:] if arguments is None else arguments
    chosen = parser.parse_args(words)
    chosen.command_line = shlex.join(["python", "-m", "regkit", *words])
    return plainly(chosen.run)(chosen)


if __name__ == "__main__":
    sys.exit(main())
