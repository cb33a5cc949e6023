"""The commands of ``python -m regkit``, one module each: `add_NAME` adds its arguments, `run` does what it says.

Help is quick because nothing heavy is imported before `run`. What arguments may be is therefore listed here once more;
a test holds the lists equal to those of the library.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

Run = Callable[[argparse.Namespace], int]
COMMANDS = {
    "register": "register two scans (NIfTI): warped image, displacement fields for ITK and ANTs, report, metrics",
    "examine": "look at a scan's file before it is registered; write a copy with a plain header",
    "apply": "carry an image, labels or landmarks through maps of register, ITK or ANTs, interpolated once",
    "train": "train a network; go on where a training was interrupted",
    "evaluate": "compare methods on a dataset: Dice, distances, folds, consistency, time, memory; paired statistics",
    "leaderboard": "the shipped networks and their rivals on held-out whole brains, or on two scans of your own",
    "lab": "open the course in JupyterLab at the first tutorial",
    "notebooks": "make the learners' and instructors' notebooks from tutorials/*.py",
    "pages": "run the course and write it as HTML pages whose pictures still move",
    "study": "train the variants of a method that are not trained yet, and list them",
    "ledger": "write what the papers claim, and what the stored results say of it",
}

NETWORKS = ("gradicon", "sacbnet", "sitreg", "smgicnet", "spnet", "voxelmorph")
METHODS = (*NETWORKS, "optimise", "syn", "affine", "none")
BENCHMARKS = ("hollow", "hollow_64", "vessels", "brains", "brains_unaligned", "brains_3d", "brains_3d_unaligned")
_TOLD = (ValueError, OSError, FloatingPointError, MemoryError, ImportError)


def plainly(run: Run) -> Run:
    """A command that tells what went wrong in one line instead of a traceback, and warnings likewise.

    Bad input (ValueError), files (OSError), numbers that are not finite (FloatingPointError), too little memory
    (MemoryError, on a GPU torch's own) and what is not installed (ImportError) end it with status 1, Ctrl-C with 130;
    arguments that argparse does not know end it with 2.
    """

    @functools.wraps(run)
    def told(chosen: argparse.Namespace) -> int:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            try:
                return run(chosen)
            except KeyboardInterrupt:
                print("regkit: interrupted", file=sys.stderr)
                return 130
            except Exception as error:
                import torch

                if not isinstance(error, (*_TOLD, torch.cuda.OutOfMemoryError)):
                    raise
                words = " ".join(str(error).splitlines()) or f"{type(error).__name__}, too little memory?"
                print(f"regkit: {words}", file=sys.stderr)
                return 1

    return told


def refuse(rule: str, received: object, remedy: str) -> NoReturn:
    """Raise an `InputError` of what a command was asked."""
    from regkit.types import InputError

    raise InputError(rule, received, remedy)


def refuse_data(name: str, kinds: str) -> NoReturn:
    """Raise a `MissingFileError` of data that is neither of some kinds, benchmarks last."""
    from regkit.types import MissingFileError

    remedy = "check the path, or make the folder with a script of data_scripts"
    raise MissingFileError(f"data must be {kinds} ({', '.join(BENCHMARKS)})", f"{name!r}", remedy)


def _one_line(message: Warning | str, *details: Any, **options: Any) -> None:
    print(f"regkit: note: {message}", file=sys.stderr)


def add_device(parser: argparse.ArgumentParser, what: str = "") -> None:
    """The argument --device; one that is not here is refused before anything is read."""
    parser.add_argument("--device", type=_device, default="cpu", help=f"cpu, cuda, cuda:1, ...{what}")


def _device(name: str) -> str:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"a device is cpu, cuda or cuda:N, received {name!r}; name one.") from error
    macs = device.type == "mps" and torch.backends.mps.is_available()
    if device.type not in ("cpu", "cuda") and not macs:
        raise argparse.ArgumentTypeError(f"a device is cpu, cuda or cuda:N, received {name!r}; leave --device out.")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise argparse.ArgumentTypeError(
            f"a device must be there, received {name!r} where torch finds {count} GPUs; leave --device out for the "
            f"processor."
        )
    return name
