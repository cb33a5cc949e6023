"""regkit: learn deep-learning image registration by touching it.

The map. Each room imports only from rooms above it, and is imported when it is asked for.

compute: the compact library
    types        Image, Labels, Displacement; Pair (what to register) and Registration (what was found)
    _core        the engine room, read last: grid, sampler, inversion, jacobian, windows, files
    fields       the one convention; sample, warp, compose, exponential, invert, |J|, sizes, units
    losses       similarities, smoothness, ICON, GradICON
    metrics      Dice, surface distances, landmark error; folds, statistics of |J|, consistency
    training     one loop for all: recipes, histories, resuming
    models       VoxelMorph, GradICON, SITReg, SACBNet, SPNet, SMGICNet: one paper, one file; official weights
    checkpoints  save, load, describe, load_official
    optimise     one pair without a network; refinement of what a network found
data
    data         shapes and deformations with known answers, vessels, brains, benchmarks
    images       scans in files: read, write, resample; headers: where; itk, transforms: maps; points; folders
look
    figures      static plots; pixels, paint, planes: what pictures are made of
use
    tools        methods, two scans in and maps out, files examined, reports, measures, comparisons, leaderboard, tables
look, live
    widgets      interactive pictures: View and its scenes
learn
    course       the notebooks, pages; check: their exercises; lessons: what single tutorials show; studies, claims
    commands     the command line

The flow: pair in, registration out, functions after.

    pair = regkit.data.synthetic_pair(dim=2, seed=0)
    model = regkit.models.VoxelMorph(dim=2)
    registration = model(pair.moving, pair.fixed)
    warped = regkit.warp(pair.moving, registration.displacement)
    terms = model.objective(registration, pair.moving, pair.fixed)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regkit._core import __version__, moved

if TYPE_CHECKING:
    from regkit import (
        checkpoints,
        course,
        data,
        fields,
        figures,
        images,
        losses,
        metrics,
        models,
        optimise,
        training,
        types,
        widgets,
    )
    from regkit.checkpoints import load, save
    from regkit.course import check
    from regkit.data import brains
    from regkit.fields import compose, exponential, invert, jacobian_determinant, warp
    from regkit.training import train
    from regkit.types import Pair, Registration

_PLACES: dict[str, tuple[str, ...]] = {
    "fields": ("compose", "exponential", "invert", "jacobian_determinant", "warp"),
    "checkpoints": ("load", "save"),
    "training": ("train",),
    "types": ("Pair", "Registration"),
}

moved.install()


def __getattr__(name: str) -> Any:
    """A room or a public name, imported now that it is asked for."""
    place = next((room for room, names in _PLACES.items() if name in names), None)
    if place:
        value = getattr(importlib.import_module(f"regkit.{place}"), name)
    elif name in __all__ or name in moved.NAMES:
        value = importlib.import_module(f"regkit.{name}")
    else:
        raise AttributeError(f"module 'regkit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Pair",
    "Registration",
    "__version__",
    "brains",
    "check",
    "checkpoints",
    "compose",
    "course",
    "data",
    "exponential",
    "fields",
    "figures",
    "images",
    "invert",
    "jacobian_determinant",
    "load",
    "losses",
    "metrics",
    "models",
    "optimise",
    "save",
    "train",
    "training",
    "types",
    "warp",
    "widgets",
]
