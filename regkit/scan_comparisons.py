"""Methods side by side on scans in files: from two files to a warped scan, as `register` does it.

Where labels are given, Dice is theirs; else it is that of the tissue classes, see tissues.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tqdm.auto import tqdm

from regkit import losses, metrics
from regkit.comparisons import Row
from regkit.images import read_image, read_labels
from regkit.measuring import measured, one_thread
from regkit.methods import Method
from regkit.scan_pairs import register_scans
from regkit.scans import Scan, resample
from regkit.tissues import tissue_classes

_SMALL = 16  # voxels along each axis of what a method is tried on first, at least


@dataclass(frozen=True)
class ScanFiles:
    """Two scans in files, brains without skull; labels: of moving and fixed, or None."""

    moving: Path
    fixed: Path
    labels: tuple[Path, Path] | None = None


@dataclass(frozen=True)
class Entry:
    """A method as `register_scans` takes it. refine: steps after it; affine: whether an affine map comes first."""

    name: str
    method: Method
    refine: int = 0
    affine: bool = False


@dataclass(frozen=True)
class _Truth:
    """What a registration of two scans is judged by: labels of both, and the column of their Dice."""

    column: str
    moving: Scan
    fixed: Scan


def compare_scans(entries: Sequence[Entry], pairs: Sequence[ScanFiles], *, progress: bool = True) -> list[Row]:
    """Every method on every pair of scans, on one thread.

    dice, or tissue_dice without labels: on fixed's own grid. folds_percent, jacobian_std_log: of the whole map there.
    correlation: of the warped scan and fixed. inverse_consistency: voxels of the registration's grid. seconds (of the
    processor), memory (MB): of reading the files, registration, refinement and warping together, after the same on a
    few voxels.

    Raises:
        FileNotFoundError, ValueError: as `read_image`, `read_labels`, `register_scans`; labels on another grid.
    """
    truths = [_truth(pair) for pair in pairs]
    rows = []
    with one_thread(), tqdm(total=len(entries) * len(pairs), disable=not progress, desc="scans") as bar:
        for entry in entries:
            for number, (pair, truth) in enumerate(zip(pairs, truths, strict=True)):
                bar.set_postfix_str(f"{entry.name}, pair {number}")
                if number == 0:
                    _try(entry, pair)
                rows.append(Row(entry.name, number, _measure(entry, pair, truth)))
                bar.update()
    return rows


def check_label_grids(labels: Sequence[Scan], scans: Sequence[Scan]) -> None:
    """Raise unless the labels of moving and fixed are on the grids of their scans."""
    for label, scan, name in zip(labels, scans, ("moving", "fixed"), strict=False):
        if label.grid.space != scan.grid.space:
            raise ValueError(
                f"labels must be on the grid of their scan, received {label.grid.space} for the {name} scan of "
                f"{scan.grid.space}; were the two files given in the order moving, fixed?"
            )


def _truth(pair: ScanFiles) -> _Truth:
    scans = [read_image(path) for path in (pair.moving, pair.fixed)]
    if pair.labels is None:
        return _Truth("tissue_dice", *(scan.with_tensor(tissue_classes(scan.tensor)) for scan in scans))
    labels = [read_labels(path) for path in pair.labels]
    check_label_grids(labels, scans)
    return _Truth("dice", *labels)


def _try(entry: Entry, pair: ScanFiles) -> None:
    """Register a small version of fixed with itself: what is done once in a program is done."""
    fixed = read_image(pair.fixed)
    small = resample(fixed, fixed.grid.with_space([min(n, max(_SMALL, n // 6)) for n in fixed.grid.space]))
    register_scans(small, small, entry.method, refine=min(entry.refine, 1), progress=False)


def _measure(entry: Entry, pair: ScanFiles, truth: _Truth) -> dict[str, float]:
    with measured() as usage:
        moving, fixed = read_image(pair.moving), read_image(pair.fixed)
        result = register_scans(moving, fixed, entry.method, affine=entry.affine, refine=entry.refine, progress=False)
        warped = result.warp(moving)
    statistics = metrics.jacobian_statistics(result.there.displacement)
    labels, own = result.warp(truth.moving), resample(truth.fixed, fixed.original)
    values = {
        truth.column: fmean(metrics.dice(labels.tensor, own.tensor).values()),
        "correlation": 1 - float(losses.ncc(warped.tensor, resample(fixed, fixed.original).tensor)),
        "folds_percent": statistics.folds_percent,
        "jacobian_std_log": statistics.std_log,
        "seconds": usage.processor_seconds,
        "memory": max(usage.memory, result.usage.memory),
    }
    if result.found.inverse is not None:
        values["inverse_consistency"] = metrics.inverse_consistency(result.found.displacement, result.found.inverse)
    return values
