"""The command line: ``python -m regkit lab`` opens the course; ``python -m regkit --help`` lists what else there is."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from regkit._core.files import write_atomically
from regkit.commands.apply import add_apply
from regkit.commands.evaluate import add_evaluate
from regkit.commands.leaderboard import add_leaderboard
from regkit.commands.register import add_register
from regkit.commands.train import add_train


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m regkit", description="Deep-learning image registration.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in COMMANDS:
        add(commands)
    words = sys.argv[1:] if arguments is None else arguments
    chosen = parser.parse_args(words)
    chosen.command_line = shlex.join(["python", "-m", "regkit", *words])
    run: Callable[[argparse.Namespace], int] = chosen.run
    return run(chosen)


def add_lab(commands: argparse._SubParsersAction) -> None:
    """`lab`: open the course in JupyterLab at the first tutorial."""
    lab = commands.add_parser("lab", help="open the course in JupyterLab at the first tutorial")
    lab.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    lab.add_argument("--port", type=int, default=8888, help="port on this machine (8888, or the next free one)")

    def run(chosen: argparse.Namespace) -> int:
        from regkit.course import notebooks as course

        return course.lab(browser=not chosen.no_browser, port=chosen.port)

    lab.set_defaults(run=run)


def add_notebooks(commands: argparse._SubParsersAction) -> None:
    """`notebooks`: make both editions of each tutorial."""
    notebooks = commands.add_parser(
        "notebooks", help="make the learners' and instructors' notebooks from tutorials/*.py"
    )

    def run(chosen: argparse.Namespace) -> int:
        from regkit.course import notebooks as notebooks_module

        for path in notebooks_module.build(notebooks_module.folder()):
            print(f"made {path.name} in {path.parent.name}/")
        return 0

    notebooks.set_defaults(run=run)


def add_pages(commands: argparse._SubParsersAction) -> None:
    """`pages`: the static edition."""
    pages = commands.add_parser("pages", help="run the course and write it as HTML pages whose pictures still move")
    pages.add_argument("folder", type=Path, help="where the pages go")

    def run(chosen: argparse.Namespace) -> int:
        from regkit.course import notebooks as notebooks_module

        print(f"open {notebooks_module.publish(notebooks_module.folder(), chosen.folder)[-1]}")
        return 0

    pages.set_defaults(run=run)


def add_study(commands: argparse._SubParsersAction) -> None:
    """`study`: train the variants of a method that are not trained yet."""
    study = commands.add_parser("study", help="train the variants of a method that are not trained yet, and list them")
    study.add_argument("name", nargs="?", help="of the study; all of them where it is left out")
    study.add_argument("--variant", help="one of the study's variants; all of them where it is left out")
    study.add_argument("--seeds", type=int, nargs="+", help="0, 1 and 2 where they are left out")

    def run(chosen: argparse.Namespace) -> int:
        from regkit.course import studies

        studies.train(chosen.name, chosen.variant, chosen.seeds)
        return 0

    study.set_defaults(run=run)


def add_ledger(commands: argparse._SubParsersAction) -> None:
    """`ledger`: the claims of the papers, judged on the stored results."""
    ledger = commands.add_parser("ledger", help="write what the papers claim, and what the stored results say of it")
    ledger.add_argument("--out", type=Path, help="the file; tutorials/claims.md where it is left out")

    def run(chosen: argparse.Namespace) -> int:
        from regkit.course import claims
        from regkit.course import notebooks as notebooks_module

        out = chosen.out or notebooks_module.folder() / "claims.md"
        write_atomically(out, claims.table(claims.CLAIMS).encode())
        print(f"wrote {out}")
        return 0

    ledger.set_defaults(run=run)


COMMANDS = (
    add_register,
    add_apply,
    add_train,
    add_evaluate,
    add_leaderboard,
    add_lab,
    add_notebooks,
    add_pages,
    add_study,
    add_ledger,
)

if __name__ == "__main__":
    sys.exit(main())
