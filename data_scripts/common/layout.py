"""The prepared folder, its two tables, and the check of all that is in it.

    images/ID.nii.gz  labels/ID.nii.gz  masks/ID.nii.gz  landmarks/ID.csv    (the last two where a dataset has them)
    splits.json       {"train": [...], "validation": [...], "test": [...]}: IDs, or pairs [moving, fixed]
    dataset.json      source, licence, preprocessing, labels, and the SHA-256 of every file and of itself

The rows of landmarks are x, y, z in mm to the right, to the front and up; equal rows of a pair are one place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_scripts.common.datasets import SPLITS, Entries, Prepared, Splits, Variant
from data_scripts.common.errors import DatasetError
from regkit._core.files import write_atomically
from regkit._core.records import intact, sealed
from regkit.images import read_image, read_labels, write_image, write_labels

DATASET, SPLIT = "dataset.json", "splits.json"
ENDINGS = {"images": ".nii.gz", "labels": ".nii.gz", "masks": ".nii.gz", "landmarks": ".csv"}


def place(folder: Path, kind: str, name: str) -> Path:
    """Where a file of a scan is."""
    return folder / kind / f"{name}{ENDINGS[kind]}"


def write_case(folder: Path, name: str, prepared: Prepared, variant: Variant) -> None:
    """Write a scan, its image last: where that is, the scan is whole.

    Raises:
        DatasetError: an unexpected size, or labels that the dataset does not have.
    """
    _check(name, prepared, variant)
    if prepared.landmarks is not None:
        rows = "\n".join(",".join(f"{number:.4f}" for number in row) for row in prepared.landmarks)
        _write(place(folder, "landmarks", name), f"x,y,z\n{rows}\n")
    for kind, scan in (("labels", prepared.labels), ("masks", prepared.mask)):
        if scan is not None:
            path = place(folder, kind, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labels(path, scan)
    path = place(folder, "images", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, prepared.image)


def _check(name: str, prepared: Prepared, variant: Variant) -> None:
    space = prepared.image.grid.space
    if variant.shape and sorted(space) != sorted(variant.shape):  # the papers' axes are in the order of their files
        raise DatasetError(
            f"a prepared scan must be {variant.shape} voxels in some order of axes, received {space} of {name}; is it "
            f"the right file, and this the right variant?"
        )
    for scan in filter(None, (prepared.labels, prepared.mask)):
        if scan.grid.space != space:
            raise DatasetError(
                f"a label map must have the size of its image, received {scan.grid.space} for an image of {space} of "
                f"{name}; fetch or extract both files again."
            )
    if prepared.labels is not None:
        strange = sorted(set(prepared.labels.tensor.unique().tolist()) - {0, *variant.labels})
        if strange:
            raise DatasetError(
                f"a label map must hold numbers of the dataset only, received {strange[:8]} in {name}; is it the right "
                f"file, and this the right variant?"
            )


def write_tables(folder: Path, splits: Splits, facts: dict[str, Any]) -> None:
    """Write splits.json, then dataset.json with the checksums of all files: where that is, the folder is whole."""
    for left in folder.rglob(".*"):  # of a run that was killed while it wrote
        left.unlink()
    _write(folder / SPLIT, json.dumps({split: splits[split] for split in SPLITS}, indent=1))
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in contents(folder)}
    write_atomically(folder / DATASET, sealed(facts | {"checksums": files}, indent=1, ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


def contents(folder: Path) -> list[Path]:
    """All files of a prepared folder but dataset.json."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / DATASET]


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def members(entries: Entries) -> list[str]:
    """The scans of a split, each once."""
    return list(dict.fromkeys(name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)))


def read_facts(folder: Path) -> dict[str, Any]:
    """What dataset.json says.

    Raises:
        DatasetError: there is none, or it is damaged.
    """
    path = folder / DATASET
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"a prepared folder must hold {DATASET}, received {folder} ({error}); prepare the dataset into another "
            f"folder, or remove this one."
        ) from error
    checksums = facts.get("checksums") if isinstance(facts, dict) else None
    if not isinstance(checksums, dict) or not {"dataset", "variant"} <= facts.keys():
        raise DatasetError(f"{path} must be written by a script of data_scripts, received another file; remove it.")
    return facts


def problems(folder: Path) -> list[str]:
    """All that is wrong with a prepared folder: files that are missing, surplus, changed or do not fit."""
    facts = read_facts(folder)
    recorded = facts["checksums"]
    found = [] if intact(facts) else [f"{DATASET} has changed (its SHA-256 is another)"]
    present = {path.relative_to(folder).as_posix(): path for path in contents(folder)}
    found += [f"{name} is missing" for name in recorded if name not in present]
    found += [f"{name} does not belong there" for name in present if name not in recorded]
    changed = [name for name in recorded if name in present and sha256(present[name]) != recorded[name]]
    found += [f"{name} has changed (its SHA-256 is another)" for name in changed]
    if SPLIT in present:
        found += _split_problems(present[SPLIT], recorded)
    whole = {name for name in recorded if name in present and name not in changed}
    return found + [problem for name in sorted(whole) for problem in _scan_problems(folder, name, whole, facts)]


def _split_problems(path: Path, recorded: Iterable[str]) -> list[str]:
    try:
        splits = json.loads(path.read_text())
        used = {split: members(splits[split]) for split in SPLITS}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return [f"{SPLIT} cannot be read ({error})"]
    wanted = {f"images/{name}.nii.gz" for names in used.values() for name in names}
    return [f"{name} is in {SPLIT} but not in {DATASET}" for name in sorted(wanted - set(recorded))]


def _scan_problems(folder: Path, name: str, whole: Collection[str], facts: dict[str, Any]) -> list[str]:
    """What is wrong with one file of a scan, beside its checksum."""
    kind, _, file = name.partition("/")
    try:
        if kind == "landmarks":
            points = np.loadtxt(folder / name, delimiter=",", skiprows=1, ndmin=2)
            return [] if points.shape[1] == 3 and np.isfinite(points).all() else [f"{name} is no table of x, y, z"]
        if kind not in ("labels", "masks") or f"images/{file}" not in whole:
            return []
        labels, image = read_labels(folder / name), read_image(folder / "images" / file)
        known = {0, 1, *map(int, dict(facts.get("labels", {})))}
    except (ValueError, TypeError) as error:
        return [f"{name}: {error}"]
    strange = sorted(set(labels.tensor.unique().tolist()) - known)
    found = [] if labels.grid.space == image.grid.space else [f"{name} has another size than its image"]
    return found + ([f"{name} holds the numbers {strange[:8]}"] if strange else [])


def limited(entries: Entries, limit: int | None) -> list[Any]:
    """The first `limit` scans of a split, or the pairs among them; at least one pair."""
    if limit is None:
        return list(entries)
    pairs: Sequence[Any] = [entry for entry in entries if not isinstance(entry, str)]
    kept = set(members(entries)[: max(limit, 2 if pairs else 1)])
    return [entry for entry in entries if (entry in kept if isinstance(entry, str) else set(entry) <= kept)]
