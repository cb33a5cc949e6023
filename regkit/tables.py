"""A paper's table from registrations: `measure` one pair, `follow` the pairs of a folder, `table` their row.

rules = protocol("sitreg/oasis")
measurements = [measure(rules, registration, pair, back=reverse) for ...]
print(table(rules, measurements))
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from regkit import metrics
from regkit.algebra import move_points
from regkit.fields import warp, warp_labels
from regkit.folders import FolderPairs
from regkit.images import read_image
from regkit.metrics import Absent
from regkit.protocols import PROTOCOLS, Column, Protocol, protocol
from regkit.types import Image, Labels, Pair, Registration, choose

Measurement = Mapping[str, tuple[float, ...]]  # by column: one number for each structure, or one in all
Landmarks = tuple[Tensor, Tensor]  # moving, fixed: (1, N, dim) each, voxels of their own image

# ---------------------------------------------------------------------------------------------- one pair


@dataclass(frozen=True)
class _Seen:
    """What a column is measured on."""

    registration: Registration
    pair: Pair
    back: Registration | None
    landmarks: Landmarks | None
    absent: Absent


def _overlap(seen: _Seen, column: Column) -> tuple[float, ...]:
    moving, fixed = seen.pair.moving_labels, seen.pair.fixed_labels
    if moving is None or fixed is None:
        return ()
    if column.merged:
        mask = warp(_among(moving, column.labels).float(), seen.registration.displacement) > 0.5
        return tuple(metrics.dice(mask.long(), _among(fixed, column.labels).long(), labels=[1], absent="zero").values())
    warped = warp_labels(moving, seen.registration.displacement)
    return tuple(metrics.dice(warped, fixed, labels=column.labels or None, absent=seen.absent).values())


def _among(labels: Labels, numbers: Sequence[int]) -> Tensor:
    return torch.isin(labels, torch.tensor(numbers, device=labels.device))


def _surface(seen: _Seen, column: Column) -> tuple[float, ...]:
    if seen.pair.moving_labels is None or seen.pair.fixed_labels is None:
        return ()
    warped = warp_labels(seen.pair.moving_labels, seen.registration.displacement)
    found = metrics.surface_distances(
        warped, seen.pair.fixed_labels, spacing=seen.pair.spacing, labels=column.labels or None
    )
    return tuple(getattr(distance, column.measure) for distance in found.values())


def _folding(seen: _Seen, column: Column) -> tuple[float, ...]:
    found = metrics.folds(seen.registration.displacement, definition=column.definition)
    return (found.count if column.measure == "folds" else found.percent,)


def _spread_of_volume(seen: _Seen, column: Column) -> tuple[float, ...]:
    definition = column.definition
    return (metrics.jacobian_statistics(seen.registration.displacement, definition=definition).std,)


def _round_trip(seen: _Seen, column: Column) -> tuple[float, ...]:
    cycle = seen.back.displacement if seen.back else None
    other = cycle if column.measure == "cycle" else seen.registration.inverse
    if other is None:
        return ()
    return (metrics.inverse_consistency(seen.registration.displacement, other, norm=column.norm),)


def _landmark_error(seen: _Seen, column: Column) -> tuple[float, ...]:
    if seen.landmarks is None:
        return ()
    moving, fixed = seen.landmarks
    error = metrics.tre(seen.registration.displacement, fixed, moving, spacing=seen.pair.spacing)
    name = {"tre": "mean", "tre_lower": "lower_quartile", "tre_median": "median", "tre_upper": "upper_quartile"}
    return (getattr(error, name[column.measure]),)


def _magnitude(seen: _Seen, column: Column) -> tuple[float, ...]:
    displacement = seen.registration.displacement
    extent = displacement.new_tensor(displacement.shape[2:]).view(1, -1, *[1] * (displacement.dim() - 2)) - 1
    return ((displacement / extent).norm(dim=1).mean().item(),)


MEASURES: dict[str, Callable[[_Seen, Column], tuple[float, ...]]] = {
    "dice": _overlap,
    "hd95": _surface,
    "assd": _surface,
    "folds": _folding,
    "folds_percent": _folding,
    "jacobian_std": _spread_of_volume,
    "cycle": _round_trip,
    "inverse": _round_trip,
    "tre": _landmark_error,
    "tre_lower": _landmark_error,
    "tre_median": _landmark_error,
    "tre_upper": _landmark_error,
    "magnitude": _magnitude,
}


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
    seen = _Seen(registration, pair, back, landmarks, rules.absent)
    return {
        column.name: tuple(column.scale * value for value in choose("measure", column.measure, MEASURES)(seen, column))
        for column in rules.columns
    }


def read_landmarks(folder: Path | str, name: str) -> Tensor:
    """The landmarks of a scan in a prepared folder, (1, N, dim), in voxels of its image as FolderPairs gives it.

    Raises:
        FileNotFoundError, ValueError: there are none, or the file is damaged.
    """
    path = Path(folder) / "landmarks" / f"{name}.csv"
    try:
        millimetres = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise ValueError(f"landmarks are rows of x, y, z in mm, received {path} ({error}); make it again.") from error
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
        raise ValueError(
            f"a paper's table is taken on a dataset that data_scripts prepared, received {path} "
            f"({type(error).__name__}: {error}); prepare the dataset with its script, or name a protocol "
            f"({', '.join(PROTOCOLS)})."
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
    for index in tqdm(range(len(pairs)), desc=rules.source, disable=not progress):
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
        raise ValueError("a table is made of pairs, received none; measure one or more.")
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
    lines = ["| | " + " | ".join(name.replace("|", r"\|") for name in names) + " |", "|---|" + "---|" * len(names)]
    for method, found in measurements.items():
        cells = summarise(rules, found).values()
        lines.append(f"| {method}, {len(found)} pairs | " + " | ".join(map(str, cells)) + " |")
    if rules.published:
        lines.append(f"| {rules.source} | " + " | ".join(rules.published.get(name, "-") for name in names) + " |")
    return "\n".join(lines + ([f"\n{rules.notes}"] if rules.notes else []))
