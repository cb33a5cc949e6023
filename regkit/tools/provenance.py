"""Where a result comes from, as metrics.json and its like keep it: versions, command, date, inputs by their hashes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from regkit._core import __version__
from regkit.types import MissingFileError


def provenance(command: str, inputs: Mapping[str, Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """What made a result. command: the line that was typed. inputs: files by what they are; options: all others.

    Paths stay as they were given. Two results with the same `inputs`, `options` and `regkit` are of one kind.
    """
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "regkit": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "options": {name: value if _is_plain(value) else str(value) for name, value in options.items()},
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
    }


def _is_plain(value: Any) -> bool:
    """Whether JSON gives the value back as it is."""
    return value is None or isinstance(value, (bool, int, float, str))


def fingerprint(path: Path) -> dict[str, Any]:
    """A file's name as given, its size in bytes and its SHA-256; of a pair of files that of the one given.

    Raises:
        FileNotFoundError, OSError: no such file; it cannot be read.
    """
    if not path.is_file():
        raise MissingFileError("a result is made of files", f"{path}, where there is no file", "check the path")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": str(path), "bytes": path.stat().st_size, "sha256": digest}
