"""The commands of ``python -m regkit``, one module each: `add_NAME` adds its arguments, `run` does what it says.

Help is quick because nothing heavy is imported before `run`. What arguments may be is therefore listed here once more;
a test holds the lists equal to those of the library.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
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

EXAMPLES = {
    "register": "moving.nii.gz fixed.nii.gz --affine --out results/",
    "examine": "scan.nii.gz --fix-header plain.nii.gz",
    "apply": "results/ --to labels moving_labels.nii.gz --like fixed.nii.gz --out warped_labels.nii.gz",
    "train": "sitreg synthetic-brains --steps 1000 --out sitreg.safetensors",
    "evaluate": "brains --method none affine optimise --limit 5",
    "leaderboard": "--scans moving.nii.gz fixed.nii.gz --out tables/",
    "lab": "--folder my-course",
    "notebooks": "--repository OWNER/NAME",
    "pages": "pages/",
    "study": "spnet --variant reference --seeds 0",
    "ledger": "--out claims.md",
}

NETWORKS = ("gradicon", "sacbnet", "sitreg", "smgicnet", "spnet", "voxelmorph")
METHODS = (*NETWORKS, "optimise", "syn", "affine", "none")
BENCHMARKS = ("hollow", "hollow_64", "vessels", "brains", "brains_unaligned", "brains_3d", "brains_3d_unaligned")


def plainly(run: Run) -> Run:
    """A command that tells what went wrong in one line instead of a traceback, and warnings likewise.

    Every error ends it with status 1, Ctrl-C with 130; arguments that argparse does not know end it with 2. What no
    command foresees, a fault of regkit, is a traceback as well under `python -X dev`.
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
            except BrokenPipeError:
                raise
            except Exception as error:
                said = sentence(error)
                if said is None and sys.flags.dev_mode:
                    raise
                fault = f"a command must end well, received {type(error).__name__} ({_line(error)}); this is a fault"
                print(f"regkit: {said or f'{fault} of regkit: report it'}", file=sys.stderr)
                return 1

    return told


def sentence(error: Exception) -> str | None:
    """An error in one line: the rule, what was received, and what to do; None for one that nobody foresaw."""
    from regkit.types import InputError, is_memory

    if isinstance(error, InputError) or not (isinstance(error, OSError) or is_memory(error)):
        known = isinstance(error, ValueError | FloatingPointError | ImportError)
        return _line(error) if known else None
    if is_memory(error):
        remedy = "take smaller images or a smaller network, or free memory"
        return str(InputError("what a command computes must fit into memory", f"«{_line(error)}»", remedy))
    assert isinstance(error, OSError)
    received = f"«{error.strerror or _line(error)}»" + (f" at {error.filename}" if error.filename else "")
    for numbers, rule, remedy in _SYSTEM:
        if error.errno in numbers:
            return str(InputError(rule, received, remedy))
    return str(InputError("files must be readable and folders writable", received, "check the path and the disk"))


def _line(error: Exception) -> str:
    return " ".join(str(error).splitlines())


_SYSTEM = (  # what errors of the operating system mean
    (
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "the disk must have room for what is written",
        "free some space and run it again; what was there is as it was",
    ),
    (
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "files must be readable and folders writable",
        "choose another place, or change its permissions",
    ),
    (
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
        "a folder must be given where a folder goes, a file where a file goes",
        "check the path",
    ),
)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No progress, and nothing on the standard output."""
    before = os.environ.get("TQDM_DISABLE", "")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        os.environ["TQDM_DISABLE"] = before


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """What the library logs, from INFO on, on the standard output."""
    logger, handler = logging.getLogger("regkit"), logging.StreamHandler(sys.stdout)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class Help(argparse.HelpFormatter):
    """Help that names each default, unless its text does."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        named = isinstance(default, bool) or not isinstance(default, (int, float, str)) or f"({default}" in text
        return text if named or default == argparse.SUPPRESS else f"{text} (%(default)s)"


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
    words = f"cpu, cuda, cuda:1, ...{what}; auto: a GPU where torch finds one"
    parser.add_argument("--device", type=_device, default="auto", help=words)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(
            f"a device is auto, cpu, cuda or cuda:N, received {name!r}; name one."
        ) from error
    macs = device.type == "mps" and torch.backends.mps.is_available()
    if device.type not in ("cpu", "cuda") and not macs:
        raise argparse.ArgumentTypeError(
            f"a device is auto, cpu, cuda or cuda:N, received {name!r}; leave --device out."
        )
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise argparse.ArgumentTypeError(
            f"a device must be there, received {name!r} where torch finds {count} GPUs; leave --device out for the "
            f"processor."
        )
    return name
