"""Datasets on disk, in one folder layout: what data_scripts make, and what training and evaluation read.

    folder/images/ID.nii.gz      one scan for each ID, all on one grid (shape; intensities as dataset.json says)
    folder/labels/ID.nii.gz      its labels, 0 background; the folder may lack, else it has every ID
    folder/splits.json           {"train": ["ID", ...], "validation": [...], "test": [...]}; further splits may follow
    folder/dataset.json          {"name": ..., "source": ..., "licence": ..., "preprocessing": ...,
                                  "checksums": {"images/ID.nii.gz": "sha256 in hex", ...}}

A split lists IDs, of which every ordered pair of two different ones is a pair to register; or it lists the pairs
themselves, [["moving ID", "fixed ID"], ...]. `write_dataset` writes the two JSON files, with the checksums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from regkit.files import write_atomically
from regkit.images import read_image, read_labels
from regkit.scans import Scan, normalise
from regkit.types import Pair

ENDING = ".nii.gz"
Split = Sequence[str] | Sequence[Sequence[str]]


class FolderPairs(Sequence[Pair]):
    """The pairs of one split of a dataset folder: `pairs[i]` is a Pair of batch 1, read when it is asked for.

    names: (moving ID, fixed ID) of each pair. Images within [0, 1] stay as they are, others are scaled to it by their
    99.5th percentile; labels are given where the folder has them; spacing is the fixed scan's.
    folder, split: as the module says. limit: so many pairs, evenly spread over the split; all by default.

    Raises:
        FileNotFoundError, ValueError: the folder, a file or the split is missing, left over or of another form; on
            asking for a pair: a file is damaged, or two do not share one grid.
    """

    def __init__(self, folder: Path | str, split: str = "test", *, limit: int | None = None) -> None:
        self.folder = Path(folder)
        ids = _ids(self.folder)
        self.has_labels = (self.folder / "labels").is_dir()
        splits = read_splits(self.folder)
        if split not in splits:
            raise ValueError(
                f"a split is named in splits.json, received {split!r} for {self.folder}, which has {sorted(splits)}; "
                f"choose one of them."
            )
        self.names = _pairs(splits[split])
        _check_named(self.folder, split, {name for pair in self.names for name in pair}, ids)
        if limit is not None and limit < len(self.names):
            if limit < 1:
                raise ValueError(f"limit must be 1 or more pairs, received {limit}; give none for all.")
            self.names = [self.names[i * len(self.names) // limit] for i in range(limit)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        moving, fixed = (self._scan("images", name) for name in self.names[index])
        labels = [self._scan("labels", name) for name in self.names[index]] if self.has_labels else []
        spaces = {scan.grid.space for scan in (moving, fixed, *labels)}
        if len(spaces) > 1:
            raise ValueError(
                f"the scans of a pair and their labels must share one grid, received {sorted(spaces)} for "
                f"{self.names[index]} in {self.folder}; resample them when the folder is made."
            )
        moving_labels, fixed_labels = (scan.tensor for scan in labels) if labels else (None, None)
        return Pair(moving.tensor, fixed.tensor, moving_labels, fixed_labels, spacing=fixed.spacing)

    def _scan(self, kind: str, name: str) -> Scan:
        path = self.folder / kind / f"{name}{ENDING}"
        if kind == "labels":
            return read_labels(path)
        image = read_image(path)
        low, high = image.tensor.aminmax()
        return image if low >= 0 and low < high <= 1 else normalise(image)


def _ids(folder: Path) -> set[str]:
    """The IDs of a folder's images, which are those of its labels."""
    if not (folder / "images").is_dir():
        raise FileNotFoundError(
            f"a dataset is a folder with images/ID{ENDING}, received {folder} without images; make it with a script of "
            f"data_scripts, or see regkit/folders.py for the layout."
        )
    found = {kind: {path.name for path in (folder / kind).glob("*")} for kind in ("images", "labels")}
    foreign = sorted(name for names in found.values() for name in names if not name.endswith(ENDING))
    if foreign:
        raise ValueError(f"a dataset's files end in {ENDING}, received {_listed(foreign)} in {folder}; take them out.")
    ids = {kind: {name.removesuffix(ENDING) for name in names} for kind, names in found.items()}
    if (folder / "labels").is_dir() and ids["images"] != ids["labels"]:
        raise ValueError(
            f"every image of a dataset has its labels, received {folder} where labels lack for "
            f"{_listed(sorted(ids['images'] - ids['labels']))} and images for "
            f"{_listed(sorted(ids['labels'] - ids['images']))}; complete it, or take the folder of labels out."
        )
    return ids["images"]


def read_splits(folder: Path | str) -> dict[str, Split]:
    """The splits of a dataset folder, by name.

    Raises:
        FileNotFoundError, ValueError: splits.json is missing, or is no such file.
    """
    path = Path(folder) / "splits.json"
    content = _read_json(path)
    for name, entries in content.items():
        if not isinstance(entries, list) or not (_is_ids(entries) or all(map(_is_pair, entries))):
            raise ValueError(
                f"a split lists IDs or pairs of IDs, received {str(entries)[:80]} for {name!r} in {path}; see "
                f"regkit/folders.py."
            )
    return content


def _is_ids(entries: list[Any]) -> bool:
    return all(isinstance(entry, str) for entry in entries)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and _is_ids(entry)


def _pairs(split: Split) -> list[tuple[str, str]]:
    names = [entry for entry in split if isinstance(entry, str)]
    return list(permutations(names, 2)) if names else [(entry[0], entry[1]) for entry in split]


def _check_named(folder: Path, split: str, named: set[str], ids: set[str]) -> None:
    missing = sorted(named - ids)
    if missing or not named:
        raise ValueError(
            f"a split names images of its folder, two at least, received {folder} whose {split!r} names "
            f"{_listed(missing) + ', which have no image' if missing else 'no pair'}; make the folder again."
        )


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"[{', '.join(names[:most])}]{more}"


# ---------------------------------------------------------------------------------------------- descriptions


def write_dataset(
    folder: Path | str, splits: Mapping[str, Split], *, name: str, source: str, licence: str, preprocessing: str
) -> None:
    """Write splits.json and dataset.json of a folder whose images (and labels) are there, with their checksums.

    Raises:
        FileNotFoundError, ValueError: the folder does not have the layout, or a split names what is not there.
    """
    folder = Path(folder)
    ids = _ids(folder)
    for split, entries in splits.items():
        _check_named(folder, split, {each for pair in _pairs(entries) for each in pair}, ids)
    files = sorted(path for kind in ("images", "labels") for path in (folder / kind).glob(f"*{ENDING}"))
    checksums = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    facts = {"name": name, "source": source, "licence": licence, "preprocessing": preprocessing, "checksums": checksums}
    for file, content in (("splits.json", dict(splits)), ("dataset.json", facts)):
        write_atomically(folder / file, (json.dumps(content, indent=1) + "\n").encode())


def describe_dataset(folder: Path | str, *, check: bool = False) -> dict[str, Any]:
    """What dataset.json says. check: compare every file with its checksum.

    Raises:
        FileNotFoundError, ValueError: dataset.json is missing or no such file; a file is missing or another one.
    """
    folder = Path(folder)
    facts = _read_json(folder / "dataset.json")
    lacking = {"name", "source", "licence", "preprocessing", "checksums"} - facts.keys()
    if lacking:
        raise ValueError(f"dataset.json says what a dataset is, received {folder} without {sorted(lacking)}.")
    for file, checksum in facts["checksums"].items() if check else ():
        if not (folder / file).is_file() or _digest(folder / file) != checksum:
            raise ValueError(
                f"a dataset's files have the checksums of dataset.json, received {folder / file}, which is missing or "
                f"another one; make the folder again."
            )
    return facts


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"a dataset has a file {path.name}, received {path.parent} without; make it again.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, received what is none ({error}); make the folder again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, received {type(content).__name__}; make the folder again.")
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
