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

import torch

Run = Callable[[argparse.Namespace], int]

_TOLD = (ValueError, OSError, FloatingPointError, MemoryError, torch.cuda.OutOfMemoryError, ImportError)


def plainly(run: Run) -> Run:
    """A command that tells what went wrong in one line instead of a traceback, and warnings likewise.

    Bad input (ValueError), files (OSError), numbers that are not finite (FloatingPointError), too little memory
    (MemoryError, on a GPU torch's own) and what is not installed (ImportError) end it with status 1, Ctrl-C with 130.
    """

    @functools.wraps(run)
    def told(chosen: argparse.Namespace) -> int:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            try:
                return run(chosen)
            except _TOLD as error:
                print(f"regkit: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print("regkit: interrupted", file=sys.stderr)
                return 130

    return told


def add_device(parser: argparse.ArgumentParser, what: str = "") -> None:
    """The argument --device; one that is not here is refused before anything is read."""
    parser.add_argument("--device", type=_device, default="cpu", help=f"cpu, cuda, cuda:1, ...{what}")


def _device(name: str) -> str:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"a device is cpu, cuda or cuda:N, received {name!r}; name one.") from error
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise argparse.ArgumentTypeError(
            f"a device must be there, received {name!r} where torch finds {count} GPUs; leave --device out for the "
            f"processor."
        )
    return name


def _one_line(message: Warning | str, *details: Any, **options: Any) -> None:
    print(f"regkit: note: {message}", file=sys.stderr)
