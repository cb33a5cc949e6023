"""A paper's table from registrations: `measure` one pair, `follow` the pairs of a folder, `table` their row.

rules = protocol("sitreg/oasis")
measurements = [measure(rules, registration, pair, back=reverse) for ...]
print(table(rules, measurements))
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from regkit import metrics
from regkit._core.interrupts import Bar
from regkit.images import move_points, read_image
from regkit.images.folders import FolderPairs
from regkit.tools import compare
from regkit.tools.measures import MEASURES as MEASURES
from regkit.tools.measures import Column, Landmarks, Outcome, quantity
from regkit.types import Image, InputError, Pair, Registration, choose

Spread = Literal["pairs", "structures"]
_SIDES = (1000, 2000)

CORTEX = {  # Mindboggle's regions by their numbers on either side
    "Frontal": (3, 12, 14, 17, 18, 24, 28),
    "Parietal": (8, 22, 25, 29, 31),
    "Occipital": (5, 11, 13, 21),
    "Temporal": (6, 7, 9, 15, 16, 30, 34),
    "Cingulate": (2, 35),
}

REGIONS = {name: tuple(side + k for side in _SIDES for k in numbers) for name, numbers in CORTEX.items()}
IXI = (1, 2, 3, *range(5, 17), 18, *range(20, 24), *range(25, 33), 34, 36)
LPBA40 = (*range(21, 35), *range(41, 51), *range(61, 69), *range(81, 93), 101, 102, 121, 122, *range(161, 167))
CANDI = (2, 3, 4, 7, 8, *range(10, 19), 24, 28, 41, 42, 43, 46, 47, *range(49, 55), 60)


@dataclass(frozen=True)
class Protocol:
    """A table. published: the row of the paper's own method, by column, as printed.

    absent: what a structure counts that is in neither image. spread: whether the standard deviation is that of the
    pairs' means or of all structures in all pairs. reverse: moving and fixed change places.
    """

    source: str
    columns: tuple[Column, ...]
    absent: metrics.Absent = "skip"
    spread: Spread = "pairs"
    reverse: bool = False
    published: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


def _protocol(source: str, columns: Sequence[Column], numbers: Sequence[str], **rules: Any) -> Protocol:
    """A table with the numbers of the paper's own method, column by column."""
    published = dict(zip([column.name for column in columns], numbers, strict=True))
    return Protocol(source, tuple(columns), published=published, **rules)


def _sitreg(labels: tuple[int, ...], source: str, *numbers: str) -> Protocol:
    columns = (
        Column("Dice", "dice", labels),
        Column("HD95", "hd95", labels),
        Column("folds", "folds", definition="averaged"),
        Column("std |J|", "jacobian_std", definition="averaged"),
        Column("cycle", "cycle", norm="squared"),
        Column("inverse", "inverse", norm="squared"),
    )
    notes = "the paper does not say which of its program's three determinants it prints: the averaged one is taken"
    return _protocol(source, columns, numbers, notes=notes)


def _sacbnet(labels: tuple[int, ...], source: str, *numbers: str, spread: Spread = "pairs") -> Protocol:
    distances = [Column(name, name.lower(), labels) for name in ("Dice", "HD95", "ASSD")]
    columns, notes = (*distances, Column("|J|<0 %", "folds_percent")), "distances in mm, which is not stated"
    return _protocol(source, columns, numbers, absent="zero", spread=spread, notes=notes)


def _spnet(groups: Mapping[str, tuple[int, ...]], source: str, *numbers: str) -> Protocol:
    overlaps = [Column(name, "dice", labels) for name, labels in groups.items()]
    columns = (*overlaps, Column("Jab %", "folds_percent"), Column("ICE", "inverse"))
    return _protocol(source, columns, numbers, absent="zero", notes="the differences in Jab are not stated")


def _copdgene(source: str, *numbers: str) -> Protocol:
    columns = (
        Column("mTRE", "tre"),
        Column("25 %", "tre_lower"),
        Column("50 %", "tre_median"),
        Column("75 %", "tre_upper"),
        Column("DICE", "dice", (1,), scale=100),
        Column("% |J|", "folds_percent", definition="flips"),
    )
    return _protocol(source, columns, numbers)


_OASIS = tuple(range(1, 36))
_MINDBOGGLE = {**REGIONS, "average": tuple(label for labels in REGIONS.values() for label in labels)}
_KNEE = {"bone": (1, 3), "cartilage": (2, 4), "average": (1, 2, 3, 4)}
_OUTWARDS = _copdgene("GradICON, Tables 2 and 5", "3.621", "1.678", "2.790", "4.727", "97.58", "0.0044")
_INWARDS = _copdgene("GradICON, Tables 2 and 5, second row", "3.127", "1.497", "2.539", "4.102", "97.62", "0.0030")

PROTOCOLS: dict[str, Protocol] = {
    "sitreg/oasis": _sitreg(
        _OASIS, "SITReg, Table 1", "0.817(0.025)", "1.85(0.46)", "11(5.6)", "0.42(0.035)", "5.6e-3", "5.6e-3"
    ),
    "sitreg/oasis-raw": _sitreg(
        _OASIS, "SITReg, Table 1, raw data", "0.810(0.024)", "1.81(0.54)", "1.5(1.9)", "-", "-", "-"
    ),
    "sitreg/lpba40": _sitreg(
        (*LPBA40, 181, 182),
        *("SITReg, Table 2", "0.716(0.017)", "5.91(0.41)", "1.8(2.1)", "0.29(0.029)", "2.7e-3", "2.7e-3"),
    ),
    "sacbnet/ixi": _sacbnet(
        IXI, "SACB-Net, Table 1", ".769(.127)", "3.128(.631)", ".760(.125)", ".083(.045)", spread="structures"
    ),
    "sacbnet/lpba40": _sacbnet(LPBA40, "SACB-Net, Table 1", ".731(.012)", "5.862(.436)", "1.326(.114)", ".018(.006)"),
    "sacbnet/abdomen": _sacbnet(
        tuple(range(1, 14)), "SACB-Net, Table 2", ".588(.049)", "18.253(3.610)", "5.003(1.011)", "3.930(1.416)"
    ),
    "spnet/mindboggle": _spnet(
        _MINDBOGGLE,
        *("SPnet, Tables 1 and 3", ".614(.023)", ".553(.031)", ".485(.043)", ".614(.020)", ".689(.034)"),
        *(".587(.014)", ".002", ".046"),
    ),
    "spnet/candi": _spnet({"average": CANDI}, "SPnet, Tables 2 and 3", ".758(.021)", ".000", ".031"),
    "spnet/oai": _spnet(_KNEE, "SPnet, Tables 2 and 3", ".953(.010)", ".677(.049)", ".815(.027)", ".005", ".120"),
    "smgicnet/ixi": Protocol(
        "SM-GICNet, Table 1",
        (Column("DSC", "dice"), Column("|JD|<=0 %", "folds_percent", definition="forward")),
        published={"DSC": "0.797(0.137)", "|JD|<=0 %": "-"},
        notes="the paper's 36 regions are not listed: all that occur; its |JD| leaves the identity out, which is not "
        "done here",
    ),
    "gradicon/oai": Protocol(
        "GradICON, Table 1",
        (Column("DICE", "dice", (1, 2), scale=100, merged=True), Column("folds", "folds", definition="flips")),
        published={"DICE": "71.3 (80 x 192 x 192), 73.3 (160 x 384 x 384)", "folds": "2, 27"},
    ),
    "gradicon/copdgene": _OUTWARDS,
    "gradicon/copdgene-reverse": replace(_INWARDS, reverse=True),
    "gradicon/drive": Protocol(
        "GradICON, Fig. 4",
        (
            Column("magnitude", "magnitude"),
            Column("% |J|", "folds_percent", definition="flips"),
            Column("vessels", "dice", (1,)),
        ),
        notes="the paper plots and prints no numbers; Dice of the vessels stands for its deformation error",
    ),
}


def protocol(name: str) -> Protocol:
    """A table by its name, such as "sitreg/oasis".

    Raises:
        ValueError: there is no such table; lists them.
    """
    return choose("protocol", name, PROTOCOLS)


Measurement = Mapping[str, tuple[float, ...]]  # by column: one number for each structure, or one in all


# ---------------------------------------------------------------------------------------------- one pair
def measure(
    rules: Protocol,
    registration: Registration,
    pair: Pair,
    *,
    back: Registration | None = None,
    landmarks: Landmarks | None = None,
) -> Measurement:
    """All columns of a table for one pair; one that cannot be taken (no labels, no inverse, ...) holds nothing.

    back: the registration of fixed onto moving, for "cycle". landmarks: for the landmark errors.

    Raises:
        TypeError, ValueError: as the metrics.
    """
    exchanged = None if back is None else back.displacement
    seen = Outcome.of(registration, pair, exchanged=exchanged, landmarks=landmarks, absent=rules.absent)
    return {column.name: quantity(seen, column) for column in rules.columns}


def read_landmarks(folder: Path | str, name: str) -> Tensor:
    """The landmarks of a scan in a prepared folder, (1, N, dim), in voxels of its image as FolderPairs gives it.

    Raises:
        FileNotFoundError, ValueError: there are none, or the file is damaged.
    """
    path = Path(folder) / "landmarks" / f"{name}.csv"
    try:
        millimetres = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise InputError("landmarks are rows of x, y, z in mm", f"{path} ({error})", "make it again") from error
    to_voxels = np.linalg.inv(read_image(Path(folder) / "images" / f"{name}.nii.gz").affine)[:3]
    points = torch.from_numpy(millimetres.T).float()[None]  # (1, dim, N)
    return move_points(points, to_voxels).transpose(1, 2)


# ---------------------------------------------------------------------------------------------- all pairs
def named_protocols(folder: Path | str) -> list[str]:
    """The papers' tables that a prepared folder is for, by name.

    Raises:
        ValueError: its dataset.json is missing, damaged, or names none.
    """
    path = Path(folder) / "dataset.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["protocols"]
        return [name for name in names if protocol(name)]
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            "a paper's table is taken on a dataset that data_scripts prepared",
            f"{path} ({type(error).__name__}: {error})",
            f"prepare the dataset with its script, or name a protocol ({', '.join(PROTOCOLS)})",
        ) from error


def follow(
    rules: Protocol,
    method: Callable[[Image, Image], Registration],
    folder: Path | str,
    *,
    split: str = "test",
    limit: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> list[Measurement]:
    """Register the pairs of a prepared folder by method(moving, fixed), and measure each as the protocol says.

    A network is run without gradients. split, limit: as of `FolderPairs`.

    Raises:
        FileNotFoundError, ValueError: as `FolderPairs` and `measure`.
    """
    pairs = FolderPairs(folder, split, limit=limit)
    wanted = {column.measure for column in rules.columns}
    measurements = []
    for index in Bar(range(len(pairs)), desc=rules.source, disable=not progress):
        pair, names = pairs[index].to(device), pairs.names[index]
        if rules.reverse:
            pair = Pair(pair.fixed, pair.moving, pair.fixed_labels, pair.moving_labels, spacing=pair.spacing)
            names = names[::-1]
        landmarks = None
        if "tre" in wanted and (Path(folder) / "landmarks").is_dir():
            landmarks = (read_landmarks(folder, names[0]).to(device), read_landmarks(folder, names[1]).to(device))
        with torch.set_grad_enabled(not isinstance(method, nn.Module)):
            back = method(pair.fixed, pair.moving) if "cycle" in wanted else None
            found = method(pair.moving, pair.fixed)
        measurements.append(measure(rules, found, pair, back=back, landmarks=landmarks))
    return measurements


@dataclass(frozen=True)
class Cell:
    """A number of a table: mean and standard deviation, and how many pairs it is taken of."""

    mean: float
    std: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.mean:.4g}({self.std:.2g})" if self.pairs else "-"


def summarise(rules: Protocol, measurements: Sequence[Measurement]) -> dict[str, Cell]:
    """The row of a table: for each column the mean of the pairs' means, and the standard deviation as the paper's.

    Raises:
        ValueError: no measurements.
    """
    if not measurements:
        raise InputError("a table is made of pairs", "none", "measure one or more")
    row = {}
    for column in rules.columns:
        pairs = [values for measurement in measurements if (values := measurement[column.name])]
        means = [fmean(values) for values in pairs]
        numbers = means if rules.spread == "pairs" else [value for values in pairs for value in values]
        finite = bool(numbers) and all(map(math.isfinite, numbers))
        row[column.name] = Cell(
            fmean(means) if means else math.nan, pstdev(numbers) if finite else math.nan, len(pairs)
        )
    return row


def table(rules: Protocol, measurements: Mapping[str, Sequence[Measurement]]) -> str:
    """A table as Markdown: a row for each method by its name, and the paper's own below.

    Raises:
        ValueError: a method without measurements.
    """
    names = [column.name for column in rules.columns]
    lines = [
        [f"{method}, {len(found)} pairs", *map(str, summarise(rules, found).values())]
        for method, found in measurements.items()
    ]
    if rules.published:
        lines.append([rules.source, *(rules.published.get(name, "-") for name in names)])
    text = compare.table(["", *names], lines)
    return f"{text}\n{rules.notes}" if rules.notes else text.rstrip()
