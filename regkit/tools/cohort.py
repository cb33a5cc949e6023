"""Many pairs of scans from a CSV: what each row means, and a table of what came of each pair.

A CSV (commas, semicolons or tabs; UTF-8) has the columns moving and fixed, and if wanted name, moving_labels and
fixed_labels. Paths that are not absolute begin at the CSV's folder.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regkit._core.files import write_atomically
from regkit.types import InputError, MissingFileError

TABLE = "pairs.csv"  # in the folder of all results
_NEEDED, _MORE = ("moving", "fixed"), ("name", "moving_labels", "fixed_labels")
_RESULTS = ("correlation before", "correlation after", "dice before", "dice after", "folds_percent", "seconds")


@dataclass(frozen=True)
class Row:
    """One pair. name: of its folder. labels: of moving and fixed, or none."""

    name: str
    moving: Path
    fixed: Path
    labels: tuple[Path, ...]


def read_pairs(path: Path) -> list[Row]:
    """The pairs of a CSV.

    Raises:
        FileNotFoundError, ValueError: no such file; no text; columns or cells that are missing or too many; a name that
        is no folder's or stands twice.
    """
    if not path.is_file():
        raise MissingFileError("pairs are listed in a CSV", f"{path}, where there is no file", "check the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.splitlines()[0] if text.strip() else ""
        lines = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count), strict=True)
        cells = [{key: value.strip() if value else "" for key, value in _whole(line, path)} for line in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("pairs are listed in a CSV of UTF-8", f"{path} ({error})", "save it as CSV UTF-8") from error
    names = [name.strip() for name in lines.fieldnames or ()]
    if set(_NEEDED) - set(names) or len(set(names)) < len(names):
        columns = f"the columns {', '.join(_NEEDED)}, and if wanted {', '.join(_MORE)}"
        remedy = "name them in its first line"
        raise InputError(f"a CSV of pairs has {columns}, once each", f"{path} with {names}", remedy)
    rows = [_row(line, path, number) for number, line in enumerate(cells, start=1)]
    twice = [name for name, count in Counter(row.name.casefold() for row in rows).items() if count > 1]
    if twice or not rows:
        found = f"{path} with {f'{twice[0]!r} twice' if twice else 'no pair'}"
        raise InputError("a CSV lists pairs of different names", found, "give each pair a line, and a column name")
    return rows


def _whole(line: dict[Any, Any], path: Path) -> list[tuple[str, str]]:
    """A line's cells by the columns' names."""
    if None in line or None in line.values():
        rule = "each line of a CSV has as many cells as its first"
        raise InputError(rule, f"{path} with {[*line.values()]}", "mend it; cells with commas are quoted")
    return [(key.strip(), value) for key, value in line.items()]


def _row(cells: Mapping[str, str], path: Path, number: int) -> Row:
    """A line's pair; its name where none is given: moving_to_fixed."""
    moving, fixed, *labels = (cells.get(name, "") for name in (*_NEEDED, *_MORE[1:]))
    name = cells.get("name") or f"{stem(Path(moving))}_to_{stem(Path(fixed))}"
    if not moving or not fixed or any(labels) != all(labels):
        rule = "a pair is moving and fixed, with labels of both or of none"
        raise InputError(rule, f"pair {number} of {path}: {dict(cells)}", "fill its cells")
    if not re.fullmatch(r"\w[\w .()+=,-]*(?<![ .])", name) or len(name) > 200 or name.casefold() == TABLE:
        rule = "the name of a pair begins with a letter or a digit, and is a folder's name"
        raise InputError(rule, f"{name!r}, pair {number} of {path}", "name it in a column name")
    moving_file, fixed_file, *label_files = (path.parent / cell for cell in (moving, fixed, *labels) if cell)
    return Row(name, moving_file, fixed_file, tuple(label_files))


def stem(path: Path) -> str:
    """A file's name without its endings: a.nii.gz is a."""
    return Path(path.name.removesuffix(".gz").removesuffix(".bz2")).stem


def register_pairs(rows: Sequence[Row], out: Path, register: Callable[[Row], tuple[str, Mapping[str, Any]]]) -> int:
    """Register each pair; what cannot be is told in the table `out`/pairs.csv, and the others go on: how many failed.

    register: of a row, the state of its results ("done", or "kept" of an earlier run) and their numbers.
    """
    lines: list[list[Any]] = [["name", "moving", "fixed", "state", *_RESULTS, "reason"]]
    for row in rows:
        state, reason = "failed", ""
        numbers: Mapping[str, Any] = {}
        try:
            state, numbers = register(row)
        except Exception as error:  # whatever is wrong with one pair
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            reason = kind + " ".join(str(error).splitlines())
        lines.append([row.name, row.moving, row.fixed, state, *_results(numbers), reason])
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(lines)
        write_atomically(out / TABLE, buffer.getvalue().encode())
        logging.getLogger(__name__).info(f"{row.name}: {state}{f': {reason}' if reason else ''}")
    return sum(line[3] == "failed" for line in lines)


def _results(numbers: Mapping[str, Any]) -> list[Any]:
    """The cells of `_RESULTS` from metrics.json; empty where something was not measured."""
    correlation, dice = numbers.get("correlation", {}), numbers.get("dice", {}).get("mean", {})
    cells = [*map(correlation.get, ("before", "after")), *map(dice.get, ("before", "after"))]
    return [*cells, *map(numbers.get, ("folds_percent", "seconds"))]
