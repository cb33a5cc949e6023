"""The intake check: what is well with a scan's file and what is not, as a list of findings, before anything is run.

    seen = examine("moving.nii.gz", "fixed.nii.gz")     # never raises; seen.severity is green, amber or red
    [finding.advice for finding in seen.findings]       # what to do

What regkit refuses is red, in the words of its own errors; what it takes, but what may surprise, is amber. The rules
are those of symptoms.py.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regkit.images import open_nifti, read_image
from regkit.scans import Grid, Scan, normalise
from regkit.symptoms import NEED_OTHER, NEED_SCAN, RULES, SHADES, Case, Finding, Severity, told


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
        return "\n".join([self.name, *map(str, self.findings)])

    def _repr_html_(self) -> str:
        cells = "".join(_row(finding) for finding in self.findings)
        return f'<table style="text-align: left"><caption><b>{html.escape(self.name)}</b></caption>{cells}</table>'


def _row(finding: Finding) -> str:
    shade, sign = SHADES[finding.severity]
    words = [html.escape(text) for text in (finding.rule, finding.found, finding.advice)]
    cells = "".join(f'<td style="text-align: left">{text}</td>' for text in words)
    return f'<tr><td title="{finding.severity}" style="color: {shade}"><b>{sign}</b></td>{cells}</tr>'


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
