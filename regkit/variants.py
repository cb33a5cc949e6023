"""The variants of the five methods that the course compares: recipes and switches as data, results on the disk.

A study trains one method on one benchmark; its variants are the rows of the paper's ablations, "reference" the method
as it is. `python -m regkit study NAME` trains what is missing, from three seeds each; `results` reads what was
measured. The weights of the first seed are kept, the records of all.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from regkit.benchmarks import BENCHMARKS
from regkit.models import GradICON, SACBNet, SITReg, SMGICNet, SPNet, VoxelMorph
from regkit.studies import Choice, Study, Trained
from regkit.training import Recipe
from regkit.types import choose

FOLDER = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
_NARROW: dict[str, Any] = {"encoder_channels": (8, 16, 32, 32), "decoder_channels": (8, 16, 16, 32)}
_VESSEL: dict[str, Any] = _NARROW | {"similarity": "adaptive_ncc", "weight": 0.02}
_SLIM: dict[str, Any] = {"channels": (8, 16, 16, 16, 16), "update_channels": (16, 32, 32, 32, 32)}
_DEEP: dict[str, Any] = _SLIM | {"channels": (8, 16, 16, 16, 16, 16, 16), "affine": "halfway"}


def _study(model: Any, benchmark: str, recipe: Recipe, name: str, **arguments: Any) -> Study:
    pairs = BENCHMARKS[benchmark]
    return Study(model, pairs.train, pairs.words, recipe, FOLDER / name, arguments, pairs.held_out)


_SHAPES = Recipe(steps=400, learning_rate=2e-3, batch=16)
_VESSELS = Recipe(steps=400, learning_rate=2e-3, batch=8)
_BRAINS = Recipe(steps=500, learning_rate=1e-3, batch=4)
_FASTER = Recipe(steps=500, learning_rate=2e-3, batch=4)
_WAVELETS = Recipe(steps=900, learning_rate=2e-3, batch=2)

STUDIES: dict[str, Study] = {
    "gradicon": _study(GradICON, "hollow", _SHAPES, "gradicon", **_NARROW),
    "gradicon_finer": _study(GradICON, "hollow_64", _SHAPES, "gradicon_finer", **_NARROW),
    "gradicon_vessels": _study(GradICON, "vessels", _VESSELS, "gradicon_vessels", **_VESSEL),
    "spnet": _study(SPNet, "brains", _BRAINS, "spnet"),
    "sitreg": _study(SITReg, "brains", _BRAINS, "sitreg", **_SLIM),
    "sitreg_unaligned": _study(SITReg, "brains_unaligned", _BRAINS, "sitreg_unaligned", **_DEEP),
    "sacbnet": _study(SACBNet, "brains", _FASTER, "sacbnet", width=2),
    "smgicnet": _study(SMGICNet, "brains_unaligned", _WAVELETS, "smgicnet", channels=16),
    "voxelmorph": _study(VoxelMorph, "brains", _FASTER, "voxelmorph", similarity="lncc"),
    "voxelmorph_unaligned": _study(VoxelMorph, "brains_unaligned", _FASTER, "voxelmorph_unaligned", similarity="lncc"),
}

VARIANTS: dict[str, dict[str, Choice]] = {
    "gradicon": {
        "reference": {},
        "ICON": {"regularizer": "icon"},
        "one step": {"levels": (0,)},
        "ICON, one step": {"regularizer": "icon", "levels": (0,)},
        "weak ICON": {"regularizer": "icon", "weight": 64.0},
        "no regularizer": {"regularizer": "none"},
    },
    "gradicon_finer": {"reference": {}},
    "gradicon_vessels": {
        "reference": {},
        "two networks": {"levels": (1, 0)},
        "one network": {"levels": (0,)},
        "mean NCC": {"similarity": "mean_ncc"},
        "NCC": {"similarity": "ncc"},
    },
    "spnet": {
        "reference": {},
        "w/o SVF": {"integrate": False},
        "w/o SVF, weight 0.01": {"integrate": False, "inverse_weight": 0.01},
        "w/o MIE": {"image_encoding": False},
        "w/o FW": {"feature_warping": False},
        "w/o SR": {"symmetric": False},
        "SS": {"bidirectional": False},
        "SS+BE": {"average": False},
        "2 levels": {"levels": 2},
        "3 levels": {"levels": 3},
    },
    "sitreg": {
        "reference": {},
        "velocity": {"update": "velocity"},
        "one-sided": {"update": "one_sided"},
        "towards fixed": {"meeting": "fixed"},
        "no limit": {"limit": "none"},
    },
    "sitreg_unaligned": {"reference": {}, "no affine": {"affine": "none", "channels": _SLIM["channels"]}},
    "sacbnet": {
        "reference": {},
        "no block": {"blocks": "none"},
        "block on level 5": {"blocks": "5"},
        "blocks on levels 5, 4": {"blocks": "54"},
        "1 cluster": {"clusters": 1},
        "5 clusters": {"clusters": 5},
        "11 clusters": {"clusters": 11},
        "means over channels": {"mean": "channels"},
        "both means": {"mean": "both"},
    },
    "smgicnet": {
        "reference": {},
        "one level": {"levels": 1},
        "two levels": {"levels": 2},
        "not symmetric": {"symmetric": False},
        "no attention": {"attention": False},
        "no gradient inverse consistency": {"gradient_inverse": False},
        "no smoothness": {"smoothness": False},
        "neither": {"gradient_inverse": False, "smoothness": False},
    },
    "voxelmorph": {"reference": {}},
    "voxelmorph_unaligned": {"reference": {}},
}


class Spread(NamedTuple):
    """A number over several seeds."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.deviation:.1g} ({self.seeds})" if self.seeds > 1 else f"{self.mean:.3g} (1)"


def choice(study: str, variant: str) -> Choice:
    """The switches of a variant.

    Raises:
        ValueError: there is no such study or variant; lists those that there are.
    """
    return choose("variant", variant, choose("study", study, VARIANTS))


def run(study: str, variant: str, seed: int, *, progress: bool = True) -> dict[str, Any]:
    """The record of a variant trained from a seed, which is trained now if there is none; see `Study.record`."""
    chosen = choice(study, variant)
    command = f"python -m regkit study {study} --variant {shlex.quote(variant)} --seeds {seed}"
    seeded = replace(STUDIES[study].seeded(seed), command=command)
    record = seeded.record(chosen)
    if record is None:
        trained = seeded.train(chosen, progress=progress)
        record = seeded.record(chosen)
        if record is None:
            raise KeyboardInterrupt(f"stopped after {len(trained.history)} steps, nothing is kept")
        if seed != SEEDS[0]:
            seeded.path(chosen).unlink()
    return record


def train(study: str | None = None, variant: str | None = None, seeds: Sequence[int] | None = None) -> None:
    """Train what is missing of a study (all, if none is named) and a variant (all), and print what each reached.

    Raises:
        ValueError: there is no such study or variant; lists those that there are.
    """
    for name in [study] if study else VARIANTS:
        chosen = [variant] if variant else choose("study", name, VARIANTS)
        for seed, each in itertools.product(seeds or SEEDS, chosen):
            reached = run(name, each, seed)["metrics"]
            numbers = ", ".join(f"{measure} {value:.4g}" for measure, value in reached.items())
            print(f"{name} / {each} / seed {seed}: {numbers}", flush=True)


def records(study: str, variant: str = "reference") -> list[dict[str, Any]]:
    """The records of a variant, one for each seed that was trained."""
    chosen = choice(study, variant)
    found = (STUDIES[study].seeded(seed).record(chosen) for seed in SEEDS)
    return [record for record in found if record is not None]


def load(study: str, variant: str = "reference") -> Trained:
    """A variant as it was trained from the first seed.

    Raises:
        FileNotFoundError: it is not trained yet; says with what command.
    """
    found = STUDIES[study].find(choice(study, variant))
    if found is None:
        raise FileNotFoundError(
            f'a variant must be trained before it is loaded, received {variant!r} of {study}; run "python -m regkit '
            f'study {study} --variant {variant!r}".'
        )
    return found


def results(study: str, variant: str = "reference") -> dict[str, Spread]:
    """What a variant reached on held-out pairs over its seeds, by the names of `studies.evaluate`."""
    reached = [record["metrics"] for record in records(study, variant)]
    columns = {name: [metrics[name] for metrics in reached] for name in (reached[0] if reached else ())}
    return {
        name: Spread(mean(values), stdev(values) if len(values) > 1 else 0.0, len(values))
        for name, values in columns.items()
    }
