"""Datasets on disk, in one folder layout: what data_scripts make, and what training and evaluation read.

    folder/images/ID.nii.gz      one scan for each ID, all on one grid
    folder/labels/ID.nii.gz      its labels, 0 background; for all scans of a split, or for none
    folder/splits.json           {"train": [...], "validation": [...], "test": [...]}; further splits may follow
    folder/dataset.json          name, source, licence, preprocessing, and checksums of all files (not read here)

A split lists IDs, of which every ordered pair of two different ones is a pair to register; or it lists the pairs
themselves, [["moving ID", "fixed ID"], ...].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from regkit.images import SAME, Scan, normalise, read_image, read_labels
from regkit.types import InputError, MissingFileError, Pair

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
        images = _ids(self.folder, "images")
        splits = read_splits(self.folder)
        if split not in splits:
            raise InputError(
                "a split is named in splits.json",
                f"{split!r} for {self.folder}, which has {sorted(splits)}",
                "choose one of them",
            )
        self.names = _pairs(splits[split])
        named = {name for pair in self.names for name in pair}
        if not named or named - images:
            raise InputError(
                "a split names images of its folder, two at least",
                f"{self.folder} whose {split!r} names {_listed(named - images)} without an image, of {len(named)} "
                "in all",
                "make the folder again",
            )
        labelled = _labelled(self.folder, images)
        self.has_labels = bool(named & labelled)
        if self.has_labels and named - labelled:
            raise InputError(
                "all scans of a split have labels or none",
                f"{self.folder} whose {split!r} lacks those of {_listed(named - labelled)}",
                "complete them, or take the folder of labels out",
            )
        if limit is not None and limit < len(self.names):
            if limit < 1:
                raise InputError("limit must be 1 or more pairs", limit, "give none for all")
            self.names = [self.names[i * len(self.names) // limit] for i in range(limit)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        moving, fixed = (self._scan("images", name) for name in self.names[index])
        labels = [self._scan("labels", name) for name in self.names[index]] if self.has_labels else []
        spaces = {scan.grid.space for scan in (moving, fixed, *labels)}
        if len(spaces) > 1:
            raise InputError(
                "the scans of a pair and their labels must share one grid",
                f"{sorted(spaces)} for {self.names[index]} in {self.folder}",
                "resample them when the folder is made",
            )
        for scan, other, what in zip(
            (moving, *labels), (fixed, moving, fixed), ("images", "labels and moving", "labels and fixed"), strict=False
        ):
            self._check_place(scan, other, f"the {what} of {self.names[index]}")
        moving_labels, fixed_labels = (scan.tensor for scan in labels) if labels else (None, None)
        return Pair(moving.tensor, fixed.tensor, moving_labels, fixed_labels, spacing=fixed.spacing)

    def _check_place(self, scan: Scan, other: Scan, what: str) -> None:
        """Raise unless two files' voxels lie at the same places; those of labels of one size in the same order, too."""
        ordered = scan.is_labels and scan.original.shape == other.original.shape
        start, end = (scan.original, other.original) if ordered else (scan.grid, other.grid)
        millimetres, degrees = start.apart(end)
        if millimetres > SAME * min(other.spacing):
            raise InputError(
                "the scans of a pair and their labels must share one grid",
                f"{what} in {self.folder}, up to {millimetres:.3g} mm and {degrees:.3g} degrees apart by their headers",
                "resample them when the folder is made, or mend the headers",
            )

    def _scan(self, kind: str, name: str) -> Scan:
        path = self.folder / kind / f"{name}{ENDING}"
        if kind == "labels":
            return read_labels(path)
        image = read_image(path)
        low, high = image.tensor.aminmax()
        return image if low >= 0 and low < high <= 1 else normalise(image)


def _ids(folder: Path, kind: str) -> set[str]:
    """The IDs of a folder's images or labels."""
    if not (folder / kind).is_dir():
        raise MissingFileError(
            f"a dataset is a folder with {kind}/ID{ENDING}",
            f"{folder} without {kind}",
            "make it with a script of data_scripts, or see regkit/images/folders.py for the layout",
        )
    names = {path.name for path in (folder / kind).iterdir()}
    if foreign := {name for name in names if not name.endswith(ENDING)}:
        raise InputError(
            f"a dataset's files end in {ENDING}", f"{_listed(foreign)} in {folder / kind}", "take them out"
        )
    return {name.removesuffix(ENDING) for name in names}


def _labelled(folder: Path, images: set[str]) -> set[str]:
    """The IDs that have labels; each has an image."""
    labelled = _ids(folder, "labels") if (folder / "labels").is_dir() else set()
    if labelled - images:
        raise InputError(
            "labels belong to an image",
            f"{folder} with labels but no image of {_listed(labelled - images)}",
            "add the images, or take these labels out",
        )
    return labelled


def read_splits(folder: Path | str) -> dict[str, Split]:
    """The splits of a dataset folder, by name.

    Raises:
        FileNotFoundError, ValueError: splits.json is missing, or is no such file.
    """
    path = Path(folder) / "splits.json"
    content = _read_json(path)
    for name, entries in content.items():
        if not isinstance(entries, list) or not (_is_ids(entries) or all(map(_is_pair, entries))):
            raise InputError(
                "a split lists IDs or pairs of IDs",
                f"{str(entries)[:80]} for {name!r} in {path}",
                "see regkit/images/folders.py",
            )
    return content


def _is_ids(entries: list[Any]) -> bool:
    return all(isinstance(entry, str) for entry in entries)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and _is_ids(entry)


def _pairs(split: Split) -> list[tuple[str, str]]:
    names = [entry for entry in split if isinstance(entry, str)]
    return list(permutations(names, 2)) if names else [(entry[0], entry[1]) for entry in split]


def _listed(names: set[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"[{', '.join(sorted(names)[:most])}]{more}"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"a dataset has a file {path.name}", f"{path.parent} without", "make it again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} must be JSON", f"what is none ({error})", "make the folder again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold an object", f"{type(content).__name__}", "make the folder again")
    return content
