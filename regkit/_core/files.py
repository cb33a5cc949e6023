"""Files that are whole or absent, and tensors that are read without unpickling: what all checkpoints share.

torch is imported where tensors are read: the command line writes files, and starts without it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
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


def write_atomically(path: Path | str, content: bytes) -> None:
    """Put a file in place in one move: whatever happens, the path holds the old content or all of the new.

    Raises:
        OSError: the folder is missing, the disk full, ...; the old file is as it was.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path | str, *, owned: Collection[str] = ()) -> Iterator[Path]:
    """A folder to write files in that are moved to `path` when the block has ended, and thrown away if it fails.

    owned: names of all files that such a run may write; those of an earlier run that this one did not write are
    removed, so that the folder holds one run. Other files stay.

    Raises:
        OSError: the folder cannot be made or written to; at once, before the block begins.
    """
    path = Path(path)
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".part", dir=path) as beside:
            yield Path(beside)
            made_now = sorted(Path(beside).iterdir())
            for file in made_now:
                os.replace(file, path / file.name)
            for name in set(owned) - {file.name for file in made_now}:
                (path / name).unlink(missing_ok=True)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # it holds something by now
                path.rmdir()
        raise


def read_tensors(path: Path | str) -> dict[str, Any]:
    """What torch.save wrote, on the CPU: a dict of tensors and plain values; a file that would run code is refused.

    Numbers and arrays of numpy are plain values, too.

    Raises:
        FileNotFoundError, ValueError: no such file; it is damaged, or holds more than tensors and plain values.
    """

    from regkit.types import InputError

    stream = io.BytesIO(Path(path).read_bytes())
    try:
        content = _load(stream)
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


def _load(stream: io.BytesIO) -> Any:
    import torch

    with contextlib.suppress(Exception):  # with numpy's numbers it says the rest
        return torch.load(stream, map_location="cpu", weights_only=True)
    stream.seek(0)
    with torch.serialization.safe_globals(_numpys()):
        return torch.load(stream, map_location="cpu", weights_only=True)


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
        raise ValueError(
            f"every key must be used exactly once, left over are {names[0]} {_listed(missing)} and {names[1]} "
            f"{_listed(surplus)}; check the constructor's arguments, or the table of names."
        )


def _listed(lines: list[str]) -> str:
    more = f" and {len(lines) - 12} more" if len(lines) > 12 else ""
    return f"[{', '.join(lines[:12])}]{more}"
