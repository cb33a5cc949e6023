"""Numbers that the papers print, each with its place: what a tutorial sets beside regkit's own.

Rows have the names of `studies` where regkit has trained the like. Data, sizes and trainings differ from regkit's
everywhere: compare differences between rows, never a row with ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from regkit.types import choose


class Table(NamedTuple):
    """One table of a paper, or what of it is used. rows: their values, in the order of `columns`; as printed."""

    paper: str
    place: str
    data: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]

    def value(self, row: str, column: str) -> float:
        """One number.

        Raises:
            ValueError: no such row or column.
        """
        values = choose("row", row, self.rows)
        return choose("column", column, dict(zip(self.columns, values, strict=True)))

    def __str__(self) -> str:
        return f"{self.paper}, {self.place} ({self.data})"

    def text(self, rows: Sequence[str] = ()) -> str:
        """The table in monospaced text, its place above it; these rows, or all."""
        names = rows or tuple(self.rows)
        width = max(map(len, names)) + 2
        lines = [str(self), " " * width + "".join(f"{column:>24s}" for column in self.columns)]
        for name in names:
            lines.append(f"{name:{width}s}" + "".join(f"{self.value(name, each):24g}" for each in self.columns))
        return "\n".join(lines)


PRINTED = {
    "gradicon": Table(
        *("Tian et al. 2023", "Table 2", "DirLab, expiration to inspiration"),
        ("mTRE (mm)", "folds (%)"),
        {"ICON": (8.917, 0.4552), "reference": (3.621, 0.0044)},
    ),
    "spnet": Table(
        *("Zhang et al. 2023", "Table 4", "Mindboggle101"),
        ("Dice", "exchange error (voxels)", "folds (%)"),
        {
            "reference": (0.587, 0.046, 0.002),
            "w/o SVF": (0.573, 0.142, 0.223),
            "w/o MIE": (0.577, 0.046, 0.003),
            "w/o FW": (0.562, 0.046, 0.003),
            "w/o SR": (0.571, 0.720, 0.001),
            "SS": (0.570, 0.787, 0.002),
            "SS+BE": (0.573, 0.425, 0.001),
            "2 levels": (0.549, 0.043, 0.003),
            "3 levels": (0.573, 0.045, 0.003),
        },
    ),
    "sitreg": Table(
        *("Honkamaa and Marttinen 2023", "Table 1", "OASIS"),
        ("Dice", "folded voxels", "cycle (voxels²)"),
        {
            "VoxelMorph": (0.803, 3400, 0.45),
            "SYMNet (original)": (0.788, 0.32, 0.30),
            "cLapIRN": (0.812, 38000, 1.2),
            "reference": (0.817, 11, 0.0056),
        },
    ),
    "sitreg_memory": Table(
        *("Honkamaa and Marttinen 2023", "Table A5", "one update, 256³ voxels"),
        ("between passes (GB)", "peak (GB)"),
        {"reference": (0.5625, 3.9375), "velocity": (2.8125, 4.125)},
    ),
    "sacbnet": Table(
        *("Cheng et al. 2025", "Table 3", "Dice"),
        ("IXI", "LPBA", "abdomen"),
        {
            "no block": (0.7643, 0.7141, 0.5374),
            "5 clusters, level 5": (0.7668, 0.7217, 0.5444),
            "5 clusters, levels 5, 4": (0.7679, 0.7241, 0.5498),
            "5 clusters, levels 5, 4, 3": (0.7671, 0.7266, 0.5685),
            "5 clusters": (0.7683, 0.7294, 0.5849),
            "reference": (0.7691, 0.7309, 0.5881),
            "9 clusters": (0.7685, 0.7304, 0.5875),
            "11 clusters": (0.7684, 0.7300, 0.5875),
        },
    ),
    "smgicnet": Table(
        *("Bai et al., submitted to MIDL 2025", "Table 1", "IXI, unaligned"),
        ("Dice", '"|JD| <= 0"'),
        {
            "ICNet": (0.289, 0.499),
            "ICNet, affine first": (0.714, 0.489),
            "LapIRN": (0.478, 0.503),
            "LapIRN, affine first": (0.803, 0.488),
            "reference": (0.797, 0.483),
        },
    ),
}
