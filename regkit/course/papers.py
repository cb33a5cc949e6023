"""Numbers that the papers print, each with its place: what a tutorial sets beside regkit's own.

Rows have the names of `studies` where regkit has trained the like. Data, sizes and trainings differ from regkit's
everywhere: compare differences between rows, never a row with ours. READINGS: three papers to go on with.
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

READINGS: Mapping[str, Mapping[str, str]] = {  # by the tutorial's number: what it is, and where
    "00": {
        "Hill et al. 2001, Medical image registration": "10.1088/0031-9155/46/3/201",
        "Sotiras et al. 2013, Deformable medical image registration: a survey": "10.1109/TMI.2013.2265603",
        "Haskins et al. 2020, Deep learning in medical image registration: a survey": "10.1007/s00138-020-01060-x",
    },
    "01": {
        "Li et al. 2016, From DICOM to NIfTI": "10.1016/j.jneumeth.2016.03.001",
        "Glen et al. 2020, Beware of left-right flips": "10.3389/fninf.2020.00018",
        "Jaderberg et al. 2015, Spatial transformer networks: the sampler": "arXiv:1506.02025",
    },
    "02": {
        "Lehmann et al. 1999, Interpolation methods in medical image processing": "10.1109/42.816070",
        "Thévenaz et al. 2000, Interpolation revisited": "10.1109/42.875199",
        "Vercauteren et al. 2009, Diffeomorphic demons: updates composed": "10.1016/j.neuroimage.2008.10.040",
    },
    "03": {
        "Viola and Wells 1997, Alignment by maximization of mutual information": "10.1023/A:1007958904918",
        "Maes et al. 1997, Multimodality registration by mutual information": "10.1109/42.563664",
        "Pluim et al. 2003, Mutual information: a survey": "10.1109/TMI.2003.815867",
    },
    "04": {
        "Thirion 1998, Demons": "10.1016/S1361-8415(98)80022-4",
        "Rueckert et al. 1999, Free-form deformations with B-splines": "10.1109/42.796284",
        "Klein et al. 2007, Optimisers compared": "10.1109/TIP.2007.909412",
    },
    "05": {
        "Beg et al. 2005, LDDMM": "10.1023/B:VISI.0000043755.93987.aa",
        "Arsigny et al. 2006, Scaling and squaring": "10.1007/11866565_113",
        "Ashburner 2007, DARTEL": "10.1016/j.neuroimage.2007.07.007",
    },
    "06": {
        "Balakrishnan et al. 2019, VoxelMorph": "10.1109/TMI.2019.2897538",
        "de Vos et al. 2019, Affine and deformable, without a true field": "10.1016/j.media.2018.11.010",
        "Hoffmann et al. 2022, SynthMorph: other contrasts": "10.1109/TMI.2021.3116879",
    },
    "07": {
        "Christensen and Johnson 2001, Consistent image registration": "10.1109/42.932742",
        "Greer et al. 2021, ICON": "arXiv:2105.04459",
        "Tian et al. 2024, uniGradICON: one network for many organs": "arXiv:2403.05780",
    },
    "08": {
        "Avants et al. 2008, Symmetric diffeomorphic registration (SyN)": "10.1016/j.media.2007.06.004",
        "Mok and Chung 2020, SYMNet": "arXiv:2003.09514",
        "Mok and Chung 2020, LapIRN: pyramids": "arXiv:2006.16148",
    },
    "09": {
        "Greer et al. 2023, Inverse consistency by construction": "arXiv:2305.00087",
        "Iglesias 2023, EasyReg: symmetric, for any contrast": "10.1038/s41598-023-33781-0",
        "Bai et al. 2019, Deep equilibrium models: a layer that solves an equation": "arXiv:1909.01377",
    },
    "10": {
        "Jia et al. 2016, Dynamic filter networks": "arXiv:1605.09673",
        "Yang et al. 2019, CondConv: kernels that depend on the input": "arXiv:1904.04971",
        "Chen et al. 2022, TransMorph": "10.1016/j.media.2022.102615",
    },
    "11": {
        "Mallat 1989, A theory for multiresolution signal decomposition": "10.1109/34.192463",
        "Oktay et al. 2018, Attention U-Net": "arXiv:1804.03999",
        "Mok and Chung 2020, LapIRN: the rival of the paper's table": "arXiv:2006.16148",
    },
    "12": {
        "Marcus et al. 2007, OASIS": "10.1162/jocn.2007.19.9.1498",
        "Çiçek et al. 2016, 3D U-Net": "arXiv:1606.06650",
        "Billot et al. 2023, SynthSeg: learning from synthetic scans": "10.1016/j.media.2023.102789",
    },
    "13": {
        "Klein et al. 2009, Evaluation of 14 methods": "10.1016/j.neuroimage.2008.12.037",
        "Rohlfing 2012, Tissue overlap: widely used but unreliable": "10.1109/TMI.2011.2163944",
        "Hering et al. 2023, Learn2Reg": "10.1109/TMI.2022.3213983",
    },
    "14": {
        "Jenkinson et al. 2002, FLIRT: robust affine registration": "10.1006/nimg.2002.1132",
        "Klein et al. 2010, elastix": "10.1109/TMI.2009.2035616",
        "Lowekamp et al. 2013, The design of SimpleITK": "10.3389/fninf.2013.00045",
    },
}


def further_reading(tutorial: str) -> str:
    """Markdown: the readings of a tutorial, with links; nothing where there are none."""
    places = {words: place.replace("arXiv:", "10.48550/arXiv.") for words, place in READINGS.get(tutorial, {}).items()}
    lines = [
        f"* [{words}](https://doi.org/{place.replace('(', '%28').replace(')', '%29')})"
        for words, place in places.items()
    ]
    return "\n".join(["## Further reading", "", *lines]) if lines else ""
