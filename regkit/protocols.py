"""The papers' tables as data: which structures, which metrics, what the spread runs over.

Labels are those of the folders that data_scripts prepare. What a paper does not state is said in `notes`. tables.py
measures a pair by a protocol, and sums pairs up to a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from regkit.metrics import Absent
from regkit.regularity import Definition, Norm
from regkit.types import choose

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
class Column:
    """One number of a table. name: as printed. measure: see tables.MEASURES. labels: whose mean it is; () is all.

    definition: of folds and |J|, see metrics.folds. norm: of a consistency. scale: 100 for percent. merged: the labels
    are one structure, warped linearly and cut at one half.
    """

    name: str
    measure: str
    labels: tuple[int, ...] = ()
    definition: Definition = "central"
    norm: Norm = "absolute"
    scale: float = 1.0
    merged: bool = False


@dataclass(frozen=True)
class Protocol:
    """A table. published: the row of the paper's own method, by column, as printed.

    absent: what a structure counts that is in neither image. spread: whether the standard deviation is that of the
    pairs' means or of all structures in all pairs. reverse: moving and fixed change places.
    """

    source: str
    columns: tuple[Column, ...]
    absent: Absent = "skip"
    spread: Spread = "pairs"
    reverse: bool = False
    published: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


def _sitreg(labels: tuple[int, ...], source: str, *numbers: str) -> Protocol:
    columns = (
        Column("Dice", "dice", labels),
        Column("HD95", "hd95", labels),
        Column("folds", "folds", definition="averaged"),
        Column("std |J|", "jacobian_std", definition="averaged"),
        Column("cycle", "cycle", norm="squared"),
        Column("inverse", "inverse", norm="squared"),
    )
    published = dict(zip([column.name for column in columns], numbers, strict=True))
    notes = "the paper does not say which of its program's three determinants it prints: the averaged one is taken"
    return Protocol(source, columns, published=published, notes=notes)


def _sacbnet(labels: tuple[int, ...], source: str, *numbers: str, spread: Spread = "pairs") -> Protocol:
    columns = (
        Column("Dice", "dice", labels),
        Column("HD95", "hd95", labels),
        Column("ASSD", "assd", labels),
        Column("|J|<0 %", "folds_percent"),
    )
    published = dict(zip([column.name for column in columns], numbers, strict=True))
    return Protocol(source, columns, "zero", spread, published=published, notes="distances in mm, which is not stated")


def _spnet(groups: Mapping[str, tuple[int, ...]], source: str, *numbers: str) -> Protocol:
    columns = (
        *(Column(name, "dice", labels) for name, labels in groups.items()),
        Column("Jab %", "folds_percent"),
        Column("ICE", "inverse"),
    )
    published = dict(zip([column.name for column in columns], numbers, strict=True))
    return Protocol(source, columns, "zero", published=published, notes="the differences in Jab are not stated")


def _copdgene(source: str, *numbers: str) -> Protocol:
    columns = (
        Column("mTRE", "tre"),
        Column("25 %", "tre_lower"),
        Column("50 %", "tre_median"),
        Column("75 %", "tre_upper"),
        Column("DICE", "dice", (1,), scale=100),
        Column("% |J|", "folds_percent", definition="flips"),
    )
    return Protocol(source, columns, published=dict(zip([column.name for column in columns], numbers, strict=True)))


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
        (
            Column("DICE", "dice", (1, 2), scale=100, merged=True),
            Column("folds", "folds", definition="flips"),
        ),
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
