"""Files that are whole or absent, and tensors that are read without unpickling: what all checkpoints share.

torch is imported where tensors are read: the command line writes files, and starts without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

PACKAGE = Path(__file__).parent.parent  # regkit/
_ASCII = {ord(sign): plain for sign, plain in {"✓": "+", "✗": "x", "○": "o", "→": "->", "·": "-", "±": "+-"}.items()}
State = Mapping[str, Any]  # of torch.Tensors


def printable(text: str) -> str:
    """The text as the console can show it: signs that its encoding lacks as ASCII, or as "?"."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text


@contextlib.contextmanager
def locked(path: Path, *, seconds: float = 600) -> Iterator[None]:
    """Hold a file as a lock against other processes and threads; it goes with the block, or with the process.

    seconds: to wait for who holds it; -1 for any time.

    Raises:
        OSError: its folder cannot be written to; another holds it for longer (TimeoutError).
    """
    from filelock import FileLock

    with FileLock(path, timeout=seconds, poll_interval=0.01):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is held: who waits for it sees that, and makes a new one


def write_atomically(path: Path | str, content: bytes | Callable[[], bytes]) -> None:
    """Put a file in place in one move: whatever happens, the path holds the old content or all of the new.

    content: or what makes it, called while nobody else writes the file: what it reads there is not lost.

    Raises:
        OSError: the folder is missing, the disk full, ...; the old file is as it was.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")  # that of a process that was killed is written over
    with locked(path.with_name(f".{path.name}.lock")):
        try:
            made = content if isinstance(content, bytes) else content()
            with beside.open("wb") as file:
                file.write(made)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what a killed process left when it had written this file, which nobody will write again."""
    with locked(path.with_name(f".{path.name}.lock")):
        path.with_name(f".{path.name}.part").unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------- a run's folder

_PART, _SWAP, _LOCK, _NAMES = ".regkit-part-", ".regkit-swap", ".regkit.lock", ".names.json"


@contextlib.contextmanager
def whole_folder(path: Path | str, *, owned: Collection[str] = ()) -> Iterator[Path]:
    """A folder to write files in that become those of `path` when the block has ended, and are thrown away if it fails.

    owned: names of all files that such a run may write; those of an earlier run that this one did not write are
    removed, so that the folder holds one run. Other files stay.

    Where the system can (Linux), `path` changes places with the new folder in one step, other files of the user being
    linked into it: a kill at any moment leaves the old run or the new one, whole. Otherwise, as with folders of the
    user in it, the old run's files are removed, then the new ones moved in: a kill in between leaves files of one run,
    never of two, and the rest in `.regkit-swap`, which the next run in this folder moves in first. What killed
    runs left is removed then, too.

    Raises:
        InputError: a folder has the name of a file of the run; nothing is changed.
        OSError: the folder cannot be made or written to; at once, before the block begins.
    """
    from filelock import FileLock

    from regkit._core.interrupts import until_the_end

    path = Path(path).resolve()
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        with locked(path / _LOCK):
            _finish(path)
            _sweep(path)
            _check_files(path, owned)
            part = Path(tempfile.mkdtemp(prefix=_PART, dir=path))
            alive = FileLock(part / _LOCK)
            alive.acquire()
        try:
            yield part
            with until_the_end(), locked(path / _LOCK):
                _finish(path)
                _swap(part, path, owned)
        finally:
            alive.release()
            shutil.rmtree(part, ignore_errors=True)
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds something by now
                path.rmdir()


def _swap(part: Path, path: Path, owned: Collection[str]) -> None:
    """Make what is in `part` the run of `path`, in one step if that can be."""
    names = {*owned, *(entry.name for entry in part.iterdir())} - {_LOCK}
    _check_files(path, [name for name in names if not (part / name).is_dir()])
    others = [entry for entry in path.iterdir() if entry.name not in {*names, part.name, _LOCK}]
    if all(map(_plain, others)) and not Path.cwd().is_relative_to(path):
        shutil.copymode(path, part)
        with contextlib.suppress(OSError):  # no hard links, nothing to be written above, or a disk mounted at `path`
            for entry in others:
                os.link(entry, part / entry.name)
            part = part.rename(path.with_name(f".{path.name}{part.name}"))
        if part.parent == path.parent and _exchanged(part, path):
            for entry in part.iterdir():  # what other programs wrote in this moment
                stays = path / entry.name
                if entry.name not in {*names, _LOCK} and not (stays.exists() and stays.samefile(entry)):
                    os.replace(entry, stays)
            shutil.rmtree(part, ignore_errors=True)
            return
    (part / _NAMES).write_text(json.dumps(sorted(names)))
    part.rename(path / _SWAP)
    _finish(path)


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2  # RENAME_EXCHANGE, which Python has no function for
    except (AttributeError, OSError, TypeError):
        return False
    return rename(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0


def _finish(path: Path) -> None:
    """Move in what a run has ended: the old files go first, so that there are never those of two."""
    swap = path / _SWAP
    if (listed := swap / _NAMES).exists():
        for name in json.loads(listed.read_text()):
            _remove(path / name)
        listed.unlink()
    if swap.exists():
        for entry in sorted(swap.iterdir()):
            if entry.name != _LOCK:
                os.replace(entry, path / entry.name)
        shutil.rmtree(swap)


def _sweep(path: Path) -> None:
    """Remove what killed runs left in the folder and beside it: nobody holds its lock."""
    from filelock import FileLock

    for place, start in ((path, _PART), (path.parent, f".{path.name}{_PART}")):
        with contextlib.suppress(OSError):
            for entry in [entry for entry in place.iterdir() if entry.name.startswith(start)]:
                with contextlib.suppress(OSError), FileLock(entry / _LOCK, timeout=0):
                    shutil.rmtree(entry, ignore_errors=True)


def _check_files(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if (path / name).is_dir():
            from regkit.types import InputError

            raise InputError("what is written is a file", f"a folder named {path / name}", "move it away")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_tensors(path: Path | str) -> dict[str, Any]:
    """What torch.save wrote, on the CPU: a dict of tensors and plain values; a file that would run code is refused.

    Numbers and arrays of numpy are plain values, too.

    Raises:
        FileNotFoundError, ValueError: no such file; it is damaged, or holds more than tensors and plain values.
    """
    import torch

    from regkit.types import InputError

    stream = io.BytesIO(Path(path).read_bytes())
    try:
        with torch.serialization.safe_globals(_numpys()):
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        if more := re.search(r"GLOBAL (\S+)", str(error)):
            rule, remedy = "a checkpoint must hold tensors and plain values alone", "save its state_dict alone"
            raise InputError(rule, f"{path}, which also holds {more[1]}", remedy) from error
        raise InputError(
            "a checkpoint must be a whole file of tensors and plain values",
            f"{path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            "make or fetch it again",
        ) from error
    if not isinstance(content, dict):
        raise InputError("a checkpoint must be a dict", f"{type(content).__name__} in {path}", "save a state_dict")
    return content


def _numpys() -> list[Any]:
    """What a pickle of numpy's numbers and arrays names; `_core` was `core` before numpy 2."""
    import numpy as np

    kinds = [np.dtype, np.ndarray, *(type(np.dtype(letter)) for letter in "?bhilqBHILQefd")]
    scalar, array = (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
    parts = ((scalar, "scalar"), (array, "_reconstruct"))
    return kinds + [(part, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for part, name in parts]


def fill(model: nn.Module, state: State, origin: str) -> None:
    """Make `state` the model's weights and buffers, in the state's dtypes.

    Raises:
        ValueError: a name is missing or left over, or a shape differs; lists them. The model is unchanged.
    """
    from regkit.types import InputError

    own = model.state_dict()
    check_used_once(own.keys(), state.keys(), (f"{type(model).__name__}'s", f"{origin}'s"))
    shapes = {name: (tuple(own[name].shape), tuple(state[name].shape)) for name in own}
    different = [f"{name}: {wanted} and {given}" for name, (wanted, given) in shapes.items() if wanted != given]
    if different:
        raise InputError(
            "weights must have the shapes of the model",
            f"for {type(model).__name__} and {origin}: {_listed(different)}",
            "make the model with the arguments that the weights were made with",
        )
    model.load_state_dict(state, assign=True)


def check_used_once(wanted: Any, given: Any, names: tuple[str, str]) -> None:
    """Raise unless two collections hold the same keys; says what is left over on both sides."""
    missing, surplus = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or surplus:
        from regkit.types import InputError

        raise InputError(
            "every key must be used exactly once",
            f"left over {names[0]} {_listed(missing)} and {names[1]} {_listed(surplus)}",
            "check the constructor's arguments, or the table of names",
        )


def _listed(lines: list[str]) -> str:
    more = f" and {len(lines) - 12} more" if len(lines) > 12 else ""
    return f"[{', '.join(lines[:12])}]{more}"
