"""The sub-commands of ``python -m regkit`` that work on scans: each module has `add_NAME`, which registers one.

`add_NAME(commands)` adds the parser of its arguments and says with `set_defaults(run=...)` what is run: a function of
the arguments that returns the exit status.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

Run = Callable[[argparse.Namespace], int]


def plainly(run: Run) -> Run:
    """A command that tells what went wrong in one line instead of a traceback, and warnings likewise.

    Bad input (ValueError), files (OSError), numbers that are not finite (FloatingPointError), too little memory
    (MemoryError) and what is not installed (ImportError) end it with status 1, Ctrl-C with 130.
    """

    @functools.wraps(run)
    def told(chosen: argparse.Namespace) -> int:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            try:
                return run(chosen)
            except (ValueError, OSError, FloatingPointError, MemoryError, ImportError) as error:
                print(f"regkit: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print("regkit: interrupted", file=sys.stderr)
                return 130

    return told


def _one_line(message: Warning | str, *details: Any, **options: Any) -> None:
    print(f"regkit: note: {message}", file=sys.stderr)
