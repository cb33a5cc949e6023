"""The intake check: what is well with a scan's file and what is not, as a list of findings, before anything is run.

    seen = examine("moving.nii.gz", "fixed.nii.gz")     # never raises; seen.severity is green, amber or red
    [finding.advice for finding in seen.findings]       # what to do

What regkit refuses is red, in the words of its own errors; what it takes, but what may surprise, is amber.
"""

from __future__ import annotations

import html
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import torch
from nibabel.affines import from_matvec, obliquity
from nibabel.orientations import aff2axcodes

from regkit._core.files import printable
from regkit.images import Affine, Grid, Scan, normalise, open_nifti, read_array, read_image, resample
from regkit.images.content import FOREGROUND
from regkit.images.headers import forms_apart, header_affine, is_lost
from regkit.images.itk import check_grid
from regkit.tools.register import centre_of_mass, check_overlap, looks_like_labels
from regkit.types import InputError

Severity = Literal["green", "amber", "red"]

SHADES: dict[Severity, tuple[str, str]] = {
    "green": ("#0b6b3a", "✓"),
    "amber": ("#8a5a00", "!"),
    "red": ("#a3123a", "✗"),
}

_VOXELS = (0.3, 5.0)  # mm, of a head's scan
_HEAD = (90.0, 350.0)  # mm, along each axis of a field of view that holds a brain
_THICK = 3.0  # times as long as wide: a thick slice
_BRAIN = (300.0, 2500.0)  # ml, of a newborn and more than any
_BARE = 0.2  # the least share of empty voxels around a brain without its skull
_EMPTY = 0.01  # of the range of intensities: darker is empty; a resampled brain has a fringe
_AGREEING = 0.01  # mm between the places of a voxel
_FAR = 30.0  # mm between two brains' centres
_HOUNSFIELD = -500.0  # no unit of MR goes so low
_COARSE = 24  # voxels along an axis
_CLEARLY, _HARDLY = 0.12, 0.05  # how much higher one correlation is than another


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. severity; rule: its name; found: what there is; advice: what to do, if anything."""

    severity: Severity
    rule: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f" → {self.advice}" if self.advice else ""
        return printable(f"{SHADES[self.severity][1]} {self.rule}: {self.found}{advice}")


@dataclass(frozen=True, eq=False)
class Case:
    """A file's header and values; scan: as regkit reads it, or None; shown: what can be drawn; other: the other one."""

    path: Path
    image: Any
    values: np.ndarray
    scan: Scan | None
    shown: Scan | None
    other: Scan | None


def told(rule: str, error: Exception, path: Path) -> Finding:
    """An error as a finding: regkit's say what was received and what to do."""
    if isinstance(error, InputError):
        found, advice = str(error.received), error.remedy
    else:
        found, advice = str(error) or type(error).__name__, "make or fetch it again"
    return Finding("red", rule, found.replace(str(path), path.name), advice.replace(str(path), path.name))


def _finding(bad: bool, found: str, advice: str, severity: Severity = "amber") -> Finding:
    """Green, or where it is bad of a severity and with an advice."""
    return Finding(severity, "", found, advice) if bad else Finding("green", "", found)


# ---------------------------------------------------------------------------------------------- the file
def _one_volume(case: Case) -> Finding:
    """Raises for colours and several volumes; a slice is amber."""
    shape = tuple(size for size in case.values.shape if size > 1)
    if len(case.values.shape) > 3 or case.values.dtype.fields is not None or case.values.dtype.kind == "c":
        read_array(case.path, None, np.float32)
    advice = "networks for volumes cannot take a slice: use those for two axes, or give the volume it came from"
    return _finding(len(shape) < 3, f"{' x '.join(map(str, shape))} voxels", advice)


def _voxel_size(case: Case) -> Finding:
    """Raises for sizes that cannot be."""
    spacing = Grid(case.values.shape[:3], header_affine(case.image, case.path)).spacing
    low, high = _VOXELS
    found = f"{_listed(spacing)} mm"
    if not all(low <= size <= high for size in spacing):
        return _finding(True, found, f"a head is scanned with {low:g} to {high:g} mm; compare with the scanner's log")
    advice = "thick slices: between them the map is guessed; register thick onto thin, and trust it less along them"
    return _finding(max(spacing) > _THICK * min(spacing), found, advice)


def _axes(case: Case) -> Finding:
    """Raises for sheared axes."""
    grid = Grid(case.values.shape[:3], header_affine(case.image, case.path))
    check_grid(grid)
    tilt = float(np.degrees(obliquity(grid.affine)).max())
    tilted = f", tilted by {tilt:.0f} degrees" if tilt > 1 else ""
    return Finding("green", "", f"{grid.codes}{tilted}; read as RAS, written back as they were")


def _place(case: Case) -> Finding:
    """Which of the header's two affine maps there are, and whether they agree."""
    header = case.image.header
    if is_lost(case.image):
        advice = "left, right, front and up are a guess: convert the original again, to NIfTI"
        return _finding(True, "Analyze: the header does not say how the voxels lie, or where", advice)
    if not isinstance(header, nibabel.Nifti1Header):
        return Finding("green", "", "the format has one place for it")
    names = [name for name in ("qform", "sform") if int(header[f"{name}_code"])]
    if not names:
        advice = "the letters in the picture are a guess: compare them with what you see, or convert the DICOM again"
        return _finding(True, "neither qform nor sform: the header does not say where the voxels are", advice)
    apart = forms_apart(case.image)
    agree = "which agree" if apart < _AGREEING else f"up to {apart:.3g} mm apart"
    found = " and ".join(names) + (f", {agree}" if len(names) > 1 else "")
    advice = "regkit takes the sform, other programs may take the qform: keep the right one in both (--fix-header)"
    return _finding(apart > min(header.get_zooms()[:3]) / 2, found, advice)


def _field_of_view(case: Case) -> Finding:
    assert case.scan is not None
    extent = [count * size for count, size in zip(case.scan.grid.space, case.scan.spacing, strict=True)]
    low, high = _HEAD
    advice = (
        f"a head takes {low:g} to {high:g} mm: is the spacing lost (all 1 mm), in other units, or the scan cropped? "
        f"compare with the original"
    )
    return _finding(not all(low <= size <= high for size in extent), f"{_listed(extent)} mm", advice)


# ---------------------------------------------------------------------------------------------- the values
def _finite(case: Case) -> Finding:
    bad = int(case.values.size - np.isfinite(case.values).sum()) if case.values.dtype.kind == "f" else 0
    if bad == case.values.size:
        read_image(case.path)
    advice = "nothing is compared there; find what made them (a division by an empty mask?)"
    return _finding(bad > 0, f"{bad} of {case.values.size} voxels are NaN or infinite" if bad else "all", advice)


def _an_image(case: Case) -> Finding:
    assert case.scan is not None
    count = len(torch.unique(case.scan.tensor))
    advice = "these are labels: give the scan that they were drawn on, and the labels with --labels"
    found = f"{count} different values" + (", all whole" if looks_like_labels(case.scan) else "")
    return _finding(looks_like_labels(case.scan), found, advice, "red")


def _intensities(case: Case) -> Finding:
    """Raises for a constant image."""
    assert case.scan is not None
    normalise(case.scan)
    values = case.scan.tensor.numpy()
    low, high, most = float(values.min()), float(values.max()), float(np.percentile(values, 99.5))
    found = f"{low:g} to {high:g}; {low:g} to {most:.4g} become 0 to 1, brighter is cut"
    advice = "CT, in Hounsfield units? cut a window first, normalise(scan, window=(0, 80)); the networks know MR"
    return _finding(low < _HOUNSFIELD, found, advice)


def _skull_stripped(case: Case) -> Finding:
    assert case.scan is not None
    values = case.scan.tensor
    dark, bright = np.percentile(values.numpy(), (0, 99.5)).tolist()
    share = float((values <= dark + _EMPTY * (bright - dark)).float().mean())
    content = (1 - share) * values.numel() * float(np.prod(case.scan.spacing)) / 1000
    found = f"{100 * share:.0f} % of the voxels are empty; {content:.0f} ml are not"
    low, high = _BRAIN
    if content < low:
        return _finding(True, found, f"less than the {low:g} ml of a newborn: is all of the brain there, at its size?")
    advice = (
        "is the skull still there? networks were trained on brains without: strip it from both scans (SynthStrip, "
        "HD-BET), or use --method optimise, which has not learnt anything"
    )
    return _finding(share < _BARE or content > high, found, advice)


# ---------------------------------------------------------------------------------------------- the two together
def _overlap(case: Case) -> Finding:
    """Raises where there is none."""
    scan, other = (normalise(each) for each in _both(case))
    check_overlap(scan, other)
    apart = float(np.linalg.norm(centre_of_mass(scan) - centre_of_mass(other)))
    advice = "begin with an affine stage, --affine; it looks for the centres"
    return _finding(apart > _FAR, f"centres {apart:.0f} mm apart by the headers", advice)


def _same_way_up(case: Case) -> Finding:
    """Whether the scan looks more like the other when its axes are exchanged or turned round; left is like right."""
    scan, other = (_coarse(normalise(each)) for each in _both(case))
    alike = {words: _likeness(scan, other, turn) for words, turn in _turns().items()}
    best, own = max(alike, key=lambda words: alike[words]), alike.pop("RAS")
    second = max(alike.values())
    if own < second - _CLEARLY:
        advice = (
            "the voxels were turned, and the header was not: convert the original again; do not set the header by "
            "eye, left and right are not to be seen"
        )
        found = f"more like the other if its axes led to {best}: r = {second:.2f}, not {own:.2f}"
        return _finding(True, found, advice, "red")
    found = f"r = {own:.2f}, turned at most {second:.2f}; left and right look alike in any picture"
    return _finding(
        own < second + _HARDLY, found, "too close to tell: look whether the nose is at A and the crown at S"
    )


def _both(case: Case) -> tuple[Scan, Scan]:
    assert case.scan is not None and case.other is not None
    return case.scan, case.other


def _coarse(scan: Scan) -> Scan:
    """Some thousand voxels of it."""
    extent = max(count * size for count, size in zip(scan.grid.space, scan.spacing, strict=True))
    return resample(scan, scan.grid.with_spacing(max(extent / _COARSE, max(scan.spacing))))


def _turns() -> dict[str, np.ndarray]:
    """All ways to exchange axes and turn them round, left and right aside, by the letters of where they then lead."""
    turns = {}
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs
            codes = "".join(aff2axcodes(from_matvec(matrix)))
            if "L" not in codes:
                turns[codes] = matrix
    return turns


def _likeness(scan: Scan, other: Scan, turn: np.ndarray) -> float:
    """The correlation of two scans where either is not empty, centre on centre, the first one turned."""
    through: Affine = np.eye(4)
    through[:3, :3] = turn
    through[:3, 3] = centre_of_mass(scan) - turn @ centre_of_mass(other)
    turned = resample(scan, other, through=through).tensor
    inside = (turned > FOREGROUND) | (other.tensor > FOREGROUND)
    return float(torch.corrcoef(torch.stack([turned[inside], other.tensor[inside]]))[0, 1])


def _listed(numbers: Any) -> str:
    return " x ".join(f"{number:.3g}" for number in numbers)


RULES: dict[str, Callable[[Case], Finding]] = {
    "one volume": _one_volume,
    "voxel size": _voxel_size,
    "axes": _axes,
    "place in space": _place,
    "field of view": _field_of_view,
    "finite values": _finite,
    "an image": _an_image,
    "intensities": _intensities,
    "skull-stripped": _skull_stripped,
    "overlap": _overlap,
    "same way up": _same_way_up,
}

NEED_OTHER = ("overlap", "same way up")
NEED_SCAN = ("field of view", "an image", "intensities", "skull-stripped", *NEED_OTHER)


@dataclass(frozen=True, eq=False)
class Intake:
    """What was found of one file, in the order in which to mend it; shows itself as a table in a notebook.

    name: of the file. scan: what can be drawn of it, as far as it could be read; None where nothing could.
    """

    name: str
    findings: tuple[Finding, ...]
    scan: Scan | None

    @property
    def severity(self) -> Severity:
        """The worst of all."""
        return max((finding.severity for finding in self.findings), key=list(SHADES).index)

    def __getitem__(self, rule: str) -> Finding:
        return next(finding for finding in self.findings if finding.rule == rule)

    def __str__(self) -> str:
        return printable("\n".join([self.name, *map(str, self.findings)]))

    def _repr_html_(self) -> str:
        cells = "".join(_row(finding) for finding in self.findings)
        return f'<table style="text-align: left"><caption><b>{html.escape(self.name)}</b></caption>{cells}</table>'


def _row(finding: Finding) -> str:
    shade, sign = SHADES[finding.severity]
    words = [html.escape(text) for text in (finding.rule, finding.found, finding.advice)]
    cells = "".join(f'<td style="text-align: left">{text}</td>' for text in words)
    return (
        f'<tr><td title="{finding.severity}" style="color: #ffffff; background: {shade}"><b>{sign}</b></td>{cells}</tr>'
    )


def examine(path: Path | str, other: Path | str | None = None) -> Intake:
    """Look at a file, and with `other`, the scan to be registered with it, at whether the two go together.

    Rules, in order: a whole file, one volume, voxel size, axes, place in space, field of view, finite values, an image,
    intensities, skull-stripped; with an other also overlap and same way up, or what is wrong with that one. Of a file
    that cannot be opened the first alone. It never raises.
    """
    path = Path(path)
    try:
        image = open_nifti(path)
        values = np.asarray(image.dataobj)
    except Exception as error:
        return Intake(path.name, (told("a whole file", error, path),), None)
    case = Case(path, image, values, *_scans(path, image, values), None if other is None else _readable(Path(other)))
    between = () if other is None else _between(case, Path(other).name)
    return Intake(path.name, (*_findings(case), *between), case.shown)


def _between(case: Case, name: str) -> tuple[Finding, ...]:
    """Why the two cannot be compared, where that is the other's fault."""
    if case.other is None:
        found = f"{name} cannot be read"
    elif case.scan is not None and len(case.other.grid.space) != len(case.scan.grid.space):
        found = f"{name} and this one are a volume and a slice"
    elif not _varies(case.other):
        found = f"{name} is constant"
    else:
        return ()
    return (Finding("red", "the other scan", found, "examine that one first; the two were not compared"),)


def _varies(scan: Scan) -> bool:
    """Whether there is anything to be compared."""
    try:
        normalise(scan)
    except ValueError:
        return False
    return True


def _comparable(case: Case) -> bool:
    """Whether there are two volumes, neither of them constant."""
    return all(scan is not None and len(scan.grid.space) == 3 and _varies(scan) for scan in (case.scan, case.other))


def _scans(path: Path, image: Any, values: np.ndarray) -> tuple[Scan | None, Scan | None]:
    """The scan, its first volume where it has several; else its voxels as they are, in the order of the file."""
    scan = _readable(path)
    if scan is not None:
        return scan, scan
    shape = (*values.shape, 1, 1, 1)[:3]
    numbers = values.dtype.fields is None and values.dtype.kind in "iuf" and values.size
    if not numbers or sum(size > 1 for size in shape) < 2:
        return None, None
    grid = Grid(shape, np.eye(4))
    first = np.nan_to_num(values.reshape(*shape, -1)[..., 0].astype(np.float32), posinf=0, neginf=0)
    return None, Scan(torch.from_numpy(first.copy()).reshape(1, 1, *grid.space), grid, grid)


def _readable(path: Path) -> Scan | None:
    """The scan in a file, NaN as 0, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for volume in (None, 0):
            try:
                return read_image(path, volume=volume)
            except Exception:
                continue
    return None


def _findings(case: Case) -> Iterator[Finding]:
    yield Finding("green", "a whole file", f"{case.path.stat().st_size / 2**20:.2g} MB, {case.values.dtype}")
    comparable = _comparable(case)
    for name, rule in RULES.items():
        if name in NEED_SCAN and (case.scan is None or len(case.scan.grid.space) < 3):
            continue
        if name in NEED_OTHER and not comparable:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield replace(rule(case), rule=name)
        except Exception as error:
            yield told(name, error, case.path)
