"""What a registration is judged by: `COLUMNS` names the numbers, `MEASURES` takes them of an `Outcome`.

    seen = Outcome.of(registration, pair)
    quantities(seen, ("dice", "folds_percent"))           # {"dice": 0.8, ...}: means over the structures
    quantity(seen, Column("HD95", "hd95", labels=(1, 2)))  # as a paper's table defines it, one for each structure

Comparisons, the leaderboard, reports, records of trained variants and papers' tables all take their numbers here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regkit import losses, metrics, types
from regkit.fields import warp, warp_labels
from regkit.types import Displacement, Image, Labels, Pair, Registration


class Quantity(NamedTuple):
    """A number of a registration: what it is called, how it is written, whether more of it is better.

    measure: the one of `MEASURES` that takes it, where that has another name.
    """

    words: str
    form: str = "{:.3f}"
    higher: bool = False
    measure: str = ""


COLUMNS = {  # of comparisons and the leaderboard, in the order of their tables
    "dice": Quantity("Dice", higher=True),
    "tissue_dice": Quantity("tissue Dice", higher=True),  # see compare.tissue_classes
    "hd95": Quantity("HD95 (mm)", "{:.2f}"),
    "assd": Quantity("ASSD (mm)", "{:.2f}"),
    "lost": Quantity("structures lost", "{:.1f}"),  # only where there are any: the distances are without them
    "correlation": Quantity("correlation", higher=True),
    "folds_percent": Quantity("folds (%)", "{:.4f}"),
    "jacobian_std_log": Quantity("std log |J|"),
    "inverse_consistency": Quantity("inverse consistency (voxels)"),
    "cycle_consistency": Quantity("cycle consistency (voxels)"),
    "seconds": Quantity("seconds", "{:.2f}"),
    "memory": Quantity("peak memory (MB)", "{:.0f}"),
}

RECORDED = {  # of the records of trained variants, by their keys (see compare.evaluate)
    "mse": Quantity("mean squared difference", "{:.4g}", measure="mse"),
    "folds": Quantity("folds, %", "{:.4g}", measure="folds_percent"),
    "std_log_jacobian": Quantity("std log |J|", "{:.4g}", measure="jacobian_std_log"),
    "inverse_error": Quantity("inverse consistency error, voxels", "{:.4g}", measure="inverse_consistency"),
    "exchange_error": Quantity(
        "error of φ_AB∘φ_BA with φ_BA from the exchanged images, voxels", "{:.4g}", measure="cycle_consistency"
    ),
    "dice": Quantity("Dice", "{:.4g}", True, "dice"),
    "field_error": Quantity("error of the displacement, voxels", "{:.4g}", measure="field_error"),
}

Landmarks = tuple[Tensor, Tensor]  # moving, fixed: (1, N, dim) each, voxels of their own image


@dataclass(frozen=True)
class Column:
    """A number as a table defines it. name: as printed. measure: one of `MEASURES`. labels: whose mean; () is all.

    definition: of folds and |J|, see metrics.folds. norm: of a consistency. scale: 100 for percent. merged: the labels
    are one structure, warped linearly and cut at one half.
    """

    name: str
    measure: str
    labels: tuple[int, ...] = ()
    definition: metrics.Definition = "central"
    norm: metrics.Norm = "absolute"
    scale: float = 1.0
    merged: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a registration is judged by, on the grid of fixed; what is None is not there, and not measured.

    displacement, inverse: what was found; exchanged: what was found for the exchanged images; truth: what should be.
    warped, warped_labels: moving and its labels, warped. landmarks: of moving and fixed. absent: what a structure
    counts that is in neither map of labels, see metrics.dice.
    """

    displacement: Displacement
    inverse: Displacement | None = None
    exchanged: Displacement | None = None
    truth: Displacement | None = None
    warped: Image | None = None
    fixed: Image | None = None
    moving_labels: Labels | None = None
    warped_labels: Labels | None = None
    fixed_labels: Labels | None = None
    landmarks: Landmarks | None = None
    spacing: metrics.Spacing = 1.0
    absent: metrics.Absent = "skip"

    @classmethod
    def of(cls, registration: Registration, pair: Pair, **more: Any) -> Outcome:
        """Of a registration of a pair. more: exchanged, landmarks, absent.

        Raises:
            TypeError, ValueError: a displacement on another grid than fixed's.
        """
        displacement = registration.displacement
        types.check_same_grid(pair.fixed, displacement, ("fixed", "displacement"))
        if pair.moving_labels is not None and pair.fixed_labels is not None:
            more["warped_labels"] = warp_labels(pair.moving_labels, displacement)
            more |= {"moving_labels": pair.moving_labels, "fixed_labels": pair.fixed_labels}
        more |= {"truth": pair.displacement, "fixed": pair.fixed, "spacing": pair.spacing}
        return cls(displacement, registration.inverse, warped=warp(pair.moving, displacement), **more)

    @functools.cached_property
    def statistics(self) -> Callable[[metrics.Definition], metrics.JacobianStatistics]:
        """Those of |J|, by its definition."""
        return functools.cache(lambda by: metrics.jacobian_statistics(self.displacement, definition=by))

    @functools.cached_property
    def distances(self) -> Callable[[tuple[int, ...]], dict[int, metrics.SurfaceDistance]]:
        """Between the surfaces of some labels, () for all; only where there are labels."""

        def between(labels: tuple[int, ...]) -> dict[int, metrics.SurfaceDistance]:
            both = (self.warped_labels, self.fixed_labels)
            return metrics.surface_distances(*both, spacing=self.spacing, labels=labels or None)  # type: ignore[arg-type]

        return functools.cache(between)


def _overlap(seen: Outcome, column: Column) -> Iterable[float]:
    if seen.warped_labels is None or seen.fixed_labels is None or (seen.moving_labels is None and column.merged):
        return ()
    if column.merged and seen.moving_labels is not None:
        mask = warp(_among(seen.moving_labels, column.labels).float(), seen.displacement) > 0.5
        fixed = _among(seen.fixed_labels, column.labels)
        return metrics.dice(mask.long(), fixed.long(), labels=[1], absent="zero").values()
    labels = column.labels or None
    return metrics.dice(seen.warped_labels, seen.fixed_labels, labels=labels, absent=seen.absent).values()


def _among(labels: Labels, numbers: Sequence[int]) -> Tensor:
    return torch.isin(labels, torch.tensor(numbers, device=labels.device))


def _surface(seen: Outcome, column: Column) -> Iterable[float]:
    if seen.warped_labels is None or seen.fixed_labels is None:
        return ()
    return [getattr(each, column.measure) for each in seen.distances(column.labels).values()]


def _lost(seen: Outcome, column: Column) -> Iterable[float]:
    """How many structures are in one of the two only: infinitely far away."""
    if seen.warped_labels is None or seen.fixed_labels is None:
        return ()
    count = sum(math.isinf(each.hd95) for each in seen.distances(column.labels).values())
    return (float(count),) if count else ()


def _likeness(seen: Outcome, column: Column) -> Iterable[float]:
    if seen.warped is None or seen.fixed is None:
        return ()
    if column.measure == "difference":
        return ((seen.warped - seen.fixed).abs().mean().item(),)
    if column.measure == "mse":
        return (losses.mse(seen.warped, seen.fixed).item(),)
    return (1 - float(losses.ncc(seen.warped, seen.fixed)),)


def _folding(seen: Outcome, column: Column) -> Iterable[float]:
    return (metrics.folds(seen.displacement, definition=column.definition).count,)


def _volume(seen: Outcome, column: Column) -> Iterable[float]:
    name = column.measure if column.measure == "folds_percent" else column.measure.removeprefix("jacobian_")
    return (getattr(seen.statistics(column.definition), name),)


def _round_trip(seen: Outcome, column: Column) -> Iterable[float]:
    other = seen.exchanged if column.measure.startswith("cycle") else seen.inverse
    return () if other is None else (metrics.inverse_consistency(seen.displacement, other, norm=column.norm),)


def _landmark_error(seen: Outcome, column: Column) -> Iterable[float]:
    if seen.landmarks is None:
        return ()
    moving, fixed = seen.landmarks
    error = metrics.tre(seen.displacement, fixed, moving, spacing=seen.spacing)
    names = {"tre": "mean", "tre_lower": "lower_quartile", "tre_median": "median", "tre_upper": "upper_quartile"}
    return (getattr(error, names[column.measure]),)


def _magnitude(seen: Outcome, column: Column) -> Iterable[float]:
    space = types.spatial(seen.displacement)
    extent = seen.displacement.new_tensor(space).view(1, -1, *[1] * len(space)) - 1
    return ((seen.displacement / extent).norm(dim=1).mean().item(),)


def _field_error(seen: Outcome, column: Column) -> Iterable[float]:
    """Where the fixed image has labels."""
    if seen.truth is None or seen.fixed_labels is None:
        return ()
    error = (seen.displacement - seen.truth).norm(dim=1, keepdim=True)
    return (error[seen.fixed_labels > 0].mean().item(),)


MEASURES: dict[str, Callable[[Outcome, Column], Iterable[float]]] = {
    "dice": _overlap,
    "hd95": _surface,
    "assd": _surface,
    "lost": _lost,
    "correlation": _likeness,
    "mse": _likeness,
    "difference": _likeness,
    "folds": _folding,
    "folds_percent": _volume,
    "jacobian_std": _volume,
    "jacobian_std_log": _volume,
    "jacobian_minimum": _volume,
    "inverse": _round_trip,
    "inverse_consistency": _round_trip,
    "cycle": _round_trip,
    "cycle_consistency": _round_trip,
    "field_error": _field_error,
    "tre": _landmark_error,
    "tre_lower": _landmark_error,
    "tre_median": _landmark_error,
    "tre_upper": _landmark_error,
    "magnitude": _magnitude,
}


def quantity(seen: Outcome, column: Column) -> tuple[float, ...]:
    """A number of each structure, or one in all; none where it cannot be taken (no labels, no inverse, ...)."""
    return tuple(column.scale * value for value in types.choose("measure", column.measure, MEASURES)(seen, column))


def quantities(seen: Outcome, names: Iterable[str]) -> dict[str, float]:
    """Those of some `MEASURES` that can be taken; the mean over the structures for which it is finite."""
    every = {name: quantity(seen, Column(name, name)) for name in names}
    finite = {name: list(filter(math.isfinite, values)) for name, values in every.items() if values}
    return {name: fmean(values) if values else math.nan for name, values in finite.items()}
