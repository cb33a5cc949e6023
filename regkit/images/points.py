"""Landmarks in files: CSV (as ANTs has them), Slicer's .fcsv and .mrk.json; what else a file says is kept."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from regkit._core.files import write_atomically
from regkit.types import InputError, MissingFileError, guard

System = Literal["RAS", "LPS"]

_FLIP = {"RAS": np.array([1.0, 1.0, 1.0]), "LPS": np.array([-1.0, -1.0, 1.0])}
_SLICER_CODES = {"0": "RAS", "1": "LPS"}  # of old .fcsv files
_ENDINGS = (".csv", ".fcsv", ".json")


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Places, and the file that they came from.

    points: (n, 3), mm, RAS. system: that of the file's numbers. stated: whether the file says so itself. content: what
    else it says: rows of a table, or JSON.
    """

    points: np.ndarray
    system: System
    stated: bool
    content: Any


def read_landmarks(path: Path | str, *, system: System | None = None) -> Landmarks:
    """The landmarks of a file.

    A CSV has columns x, y and z (its first three where it has no names), in LPS as ANTs and ITK have them unless
    `system` says otherwise. Slicer's files say themselves which it is.

    Raises:
        FileNotFoundError, ValueError: no such file; another kind; no numbers; a system that the file contradicts.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError("landmarks are read from a file", path, "check the path")
    if path.suffix not in _ENDINGS:
        raise InputError(f"landmarks are in a file of {', '.join(_ENDINGS)}", path, "export them as one of these")
    text = path.read_text(encoding="utf-8-sig")
    try:
        content: Any = json.loads(text) if path.suffix == ".json" else list(csv.reader(io.StringIO(text)))
        places = _places(content)
        numbers = np.array([_numbers(holder, keys) for holder, keys in places], dtype=np.float64).reshape(-1, 3)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            "landmarks are rows with three numbers, or Slicer's markups",
            f"{path} ({type(error).__name__}: {error})",
            "name the columns x, y and z, or export them from Slicer again",
        ) from error
    stated = _stated(content)
    if stated and system and stated != system:
        raise InputError(f"{path} says that its numbers are {stated}", system, "leave the system out for this file")
    if not np.isfinite(numbers).all():
        raise InputError("landmarks must be finite", f"{path} with NaN", "repair or leave out these points")
    used: System = stated or system or "LPS"
    return Landmarks(numbers * _FLIP[used], used, stated is not None, content)


def write_landmarks(path: Path | str, landmarks: Landmarks, points: np.ndarray) -> None:
    """Write other places (n, 3), mm, RAS, in the file's own form and system, everything else as it was.

    Raises:
        ValueError: another kind of file than was read. OSError: it cannot be written; an older file stays.
    """
    path, is_json = Path(path), not isinstance(landmarks.content, list)
    if (path.suffix == ".json") != is_json or path.suffix not in _ENDINGS:
        raise InputError("landmarks are written as they were read", path, "give OUT the ending of the input")
    content = copy.deepcopy(landmarks.content)
    for (holder, keys), place in zip(_places(content), points * _FLIP[landmarks.system], strict=True):
        for key, value in zip(keys, place.tolist(), strict=True):
            holder[key] = value if is_json else f"{value:.6f}"
    if is_json:
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        return
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(content)
    write_atomically(path, buffer.getvalue().encode())


def _numbers(holder: Any, keys: tuple[int, ...]) -> list[float]:
    return [float(holder[key]) for key in keys]


def _places(content: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """Where each landmark's three numbers stand: a list, and three positions in it."""
    if isinstance(content, dict):
        return [(point["position"], (0, 1, 2)) for markup in content["markups"] for point in markup["controlPoints"]]
    head: list[str] = next((row for row in content if _is_head(row)), [])
    names = [name.strip().lower().removeprefix("# columns =").strip() for name in head]
    keys = tuple(names.index(axis) for axis in "xyz") if head else (0, 1, 2)
    return [(row, keys) for row in content if row and not row[0].startswith("#") and not _is_head(row)]


def _is_head(row: list[str]) -> bool:
    """Whether a row names the columns."""
    return {"x", "y", "z"} <= {name.strip().lower().removeprefix("# columns =").strip() for name in row}


def _stated(content: Any) -> System | None:
    """The system that a file states."""
    if isinstance(content, dict):
        systems = {markup.get("coordinateSystem", "LPS") for markup in content["markups"]}
        if systems - {"RAS", "LPS"} or len(systems) > 1:
            raise InputError("landmarks are in RAS or LPS", ", ".join(sorted(systems)), "export them in one of the two")
        return systems.pop() if systems else None
    for row in content:
        if row and row[0].startswith("# CoordinateSystem"):
            word = row[0].partition("=")[2].strip()
            return _SLICER_CODES.get(word, word)
    return None


guard(globals())
