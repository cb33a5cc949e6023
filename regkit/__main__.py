"""The command line: ``python -m regkit lab`` opens the course; ``notebooks`` and ``pages`` make its two editions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from regkit import course


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m regkit", description="Deep-learning image registration.")
    commands = parser.add_subparsers(dest="command", required=True)
    lab = commands.add_parser("lab", help="open the course in JupyterLab at the first tutorial")
    lab.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    lab.add_argument("--port", type=int, default=8888, help="port on this machine (8888, or the next free one)")
    commands.add_parser("notebooks", help="make the learners' and instructors' notebooks from tutorials/*.py")
    pages = commands.add_parser("pages", help="run the course and write it as HTML pages whose pictures still move")
    pages.add_argument("folder", type=Path, help="where the pages go")
    chosen = parser.parse_args(arguments)
    if chosen.command == "lab":
        return course.lab(browser=not chosen.no_browser, port=chosen.port)
    if chosen.command == "pages":
        print(f"open {course.publish(course.folder(), chosen.folder)[-1]}")
        return 0
    for path in course.build(course.folder()):
        print(f"made {path.name} in {path.parent.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
