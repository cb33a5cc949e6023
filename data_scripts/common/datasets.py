"""What a script says of its dataset, and how the files of a dataset are found and dealt out to splits."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from data_scripts.common.conversion import centred
from data_scripts.common.errors import DatasetError
from data_scripts.common.fetching import Source
from regkit.images import Scan, read_image, read_labels

Pair = tuple[str, str]  # moving, fixed
Entries = Sequence[str] | Sequence[Pair]  # of one split: scans, every two of which are a pair, or the pairs themselves
Splits = Mapping[str, Entries]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Case:
    """The files of one scan, by role: "image", "labels", ..."""

    id: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Prepared:
    """A scan as it goes into the folder. landmarks: (N, 3), mm to the right, to the front and up."""

    image: Scan
    labels: Scan | None = None
    mask: Scan | None = None
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class Variant:
    """One preparation of a dataset: that of a paper.

    protocols: the tables of regkit.tools.tables that are taken on it. files: for each role where the file of a scan is,
    with {id} for the scan's name, below any folder. counts: scans (or pairs, where these are given) in each split.
    shape: of every prepared image; () where it differs. labels: the numbers that its label maps
    may hold, 0 aside, and their names, "" where they have none.
    preprocessing: in words, one step each, as dataset.json and the table tell it. sources: what is downloaded; none
    where an account is needed. extras: further files that are taken out of the archives. nested: archives in archives.
    options: numbers that the conversion needs. scans: in the whole dataset, where the split takes only some of them.
    """

    protocols: tuple[str, ...]
    files: Mapping[str, str]
    counts: tuple[int, int, int]
    shape: tuple[int, ...]
    labels: Mapping[int, str]
    preprocessing: tuple[str, ...]
    sources: tuple[Source, ...] = ()
    extras: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    scans: int = 0

    @property
    def total(self) -> int:
        """How many scans the dataset must have."""
        return self.scans or sum(self.counts)


@dataclass(frozen=True)
class Dataset:
    """A public dataset. The first variant is the default.

    terms: where its terms of use are. steps: what to do by hand where it cannot be fetched. find: the scans among the
    files, in the order that the split is made in. split: scans to splits. convert: one scan to what is written.
    """

    name: str
    title: str
    licence: str
    terms: str
    citation: str
    steps: str
    variants: Mapping[str, Variant]
    find: Callable[[Files, Variant], list[Case]]
    split: Callable[[Sequence[Case], Files, Variant], Splits]
    convert: Callable[[Case, Variant], Prepared]


def centred_pair(image: Scan, labels: Scan, shape: Sequence[int]) -> Prepared:
    """An image and its labels, cropped or padded about the centre."""
    return Prepared(centred(image, shape), centred(labels, shape))


class Files:
    """All files below some folders, found by patterns."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [folder for folder in folders if folder.is_dir()]
        self.paths = [path for folder in self.folders for path in sorted(folder.rglob("*")) if path.is_file()]

    def by_id(self, pattern: str) -> dict[str, Path]:
        """The files whose path ends in the pattern, by what stands for {id}.

        Raises:
            DatasetError: two files have one name.
        """
        found: dict[str, Path] = {}
        expression = _expression(pattern)
        for path in self.paths:
            if match := expression.search("/" + path.as_posix().lstrip("/")):
                name = match["id"]
                if name in found:
                    raise DatasetError(
                        f"each scan must have one file, received two for {name}: {found[name]} and {path}; remove the "
                        f"one that does not belong there."
                    )
                found[name] = path
        return found

    def one(self, name: str) -> Path:
        """The only file of this name.

        Raises:
            DatasetError: there is none, or more than one.
        """
        found = [path for path in self.paths if path.name == name]
        if len(found) != 1:
            raise DatasetError(
                f"the folder must hold one file {name}, received {len(found)} below "
                f"{', '.join(map(str, self.folders))}; see how the dataset is obtained in data_scripts/README.md."
            )
        return found[0]


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern such as "{id}/{id}_image.nii.gz" as an expression: {id} is one name, * anything within a name."""
    parts = [re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("{id}")]
    return re.compile("/" + parts[0] + r"(?P<id>[^/]+?)" + "(?P=id)".join(parts[1:]) + "$")


def find(files: Files, variant: Variant) -> list[Case]:
    """The scans that have a file in every role, by name.

    Raises:
        DatasetError: no scans, a scan lacks a file, or there are more or fewer scans than the dataset has.
    """
    found = {role: files.by_id(pattern) for role, pattern in variant.files.items()}
    names = sorted(set().union(*found.values()), key=_natural)
    check_number(names, variant.total, files, variant)
    for role, paths in found.items():
        if missing := [name for name in names if name not in paths]:
            raise DatasetError(
                f"each scan must have the file {variant.files[role]}, received none for {_listed(missing)}; fetch or "
                f"extract these again."
            )
    return [Case(name, {role: paths[name] for role, paths in found.items()}) for name in names]


def check_number(names: Sequence[str], wanted: int, files: Files, variant: Variant) -> None:
    """Raise unless there are as many scans as the split was made of: with others it would be another split."""
    places = ", ".join(map(str, files.folders))
    if not names:
        raise DatasetError(
            f"the folder must hold files such as {' and '.join(variant.files.values())}, received none among the "
            f"{len(files.paths)} files below {places}; is it the folder of another dataset, or one level too deep?"
        )
    if len(names) != wanted:
        raise DatasetError(
            f"the folder must hold all {wanted} scans, since the split counts them, received {len(names)} below "
            f"{places} (from {names[0]} to {names[-1]}); {'add what is missing' if len(names) < wanted else 'remove'} "
            f"{'' if len(names) < wanted else 'what does not belong to the dataset '}and run it again."
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which subject_2 comes before subject_10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def in_order(cases: Sequence[Case], files: Files, variant: Variant) -> dict[str, list[str]]:
    """The first scans to train, the next to validation, the last to test."""
    train, validation, _ = variant.counts
    names = [case.id for case in cases]
    ends = (0, train, train + validation, sum(variant.counts))
    return {split: names[start:end] for split, start, end in zip(SPLITS, ends[:-1], ends[1:], strict=True)}


def shuffled(cases: Sequence[Case], files: Files, variant: Variant) -> dict[str, list[str]]:
    """As `in_order`, after a shuffle with seed 0: for papers that draw their split and do not list it."""
    drawn = list(cases)
    random.Random(0).shuffle(drawn)
    return in_order(drawn, files, variant)


def unnamed(numbers: Iterable[int]) -> dict[int, str]:
    """Labels that have no names."""
    return dict.fromkeys(numbers, "")


def unordered(names: Sequence[str]) -> list[Pair]:
    """Every two scans, in one direction."""
    return list(combinations(names, 2))


def standing_in(train: Sequence[str]) -> list[Pair]:
    """Three pairs of the last training scans, for papers that have no validation: `train` judges itself on some."""
    return unordered(train[-3:])


def read_pair(case: Case) -> tuple[Scan, Scan]:
    """The image and the labels of a scan.

    Raises:
        DatasetError: they are of different sizes.
    """
    image, labels = read_image(case.files["image"]), read_labels(case.files["labels"])
    check_one_size(case, image, labels)
    return image, labels


def check_one_size(case: Case, image: Scan, labels: Scan) -> None:
    """Raise unless the label map of a scan has the size of its image."""
    if image.grid.space != labels.grid.space:
        raise DatasetError(
            f"a label map must have the size of its image, received {labels.grid.space} for an image of "
            f"{image.grid.space} of {case.id}; fetch or extract both files again."
        )
