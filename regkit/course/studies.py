"""Ablation studies: a model's switches, what each combination of them becomes when it is trained, and what is stored.

A `Study` trains one method on one benchmark. `STUDIES` are the course's, `VARIANTS` the rows of the papers' ablations,
"reference" the method as it is. `python -m regkit study NAME` trains what is missing, from eight seeds each and on one
thread, which is part of the same bits; the weights of the first seed are kept, the records of all. `load`, `results`
and `values` read them.

A result is found again by what it is made of: the model's class and all arguments, the recipe, and the words for the
data. Its file is named after what differs and a checksum of all, so no combination can be taken for another. Beside the
weights lies a record (.json): what the result was made of, the history, and what was measured, as means and by held-out
pair. The history is whole for the first seed, of the others means over some steps.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import logging
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from regkit import checkpoints, training, types
from regkit._core.files import sweep, write_atomically
from regkit._core.records import LATER, check_form, sealed, unsealed
from regkit._core.resuming import HISTORY
from regkit.data.benchmarks import BENCHMARKS
from regkit.models import GradICON, SACBNet, SITReg, SMGICNet, SPNet, VoxelMorph
from regkit.tools import compare
from regkit.tools.compare import _rounded, evaluate, evaluate_each
from regkit.tools.methods import one_thread
from regkit.training import Callback, History, Recipe, Source
from regkit.types import MissingFileError, Pair, choose

Choice = Mapping[str, Any]  # the values of switches by name
measure, register, stack = compare.measure_variant, compare.register, types.stack  # by these names in version 0.1.0


def switches(model: Callable[..., nn.Module]) -> dict[str, tuple[Any, ...]]:
    """A model's switches with their values, the default first: keyword-only arguments typed bool or Literal."""
    hints = get_type_hints(model.__init__)
    found = {}
    for name, parameter in inspect.signature(model).parameters.items():
        options = _options(hints.get(name))
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and options:
            found[name] = (parameter.default, *(value for value in options if value != parameter.default))
    return found


def _options(hint: Any) -> tuple[Any, ...]:
    """The values that a type names, also as one part of a union; none for a number or a text."""
    if hint is bool:
        return (True, False)
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(value for part in get_args(hint) if get_origin(part) is Literal for value in get_args(part))


@dataclass(frozen=True)
class Trained:
    """A model, in evaluation mode, and how it was trained; `complete` unless it was stopped before its last step."""

    model: nn.Module
    history: History
    complete: bool


@dataclass(frozen=True)
class Study:
    """How the combinations of a model's switches are trained, and where their results are kept.

    model: its class. source: pairs to train on, as of `training.train`; data: what they are, in words that change
    whenever the pairs do. arguments: of the model, the same for all combinations. held_out: pairs to judge on.
    command: what makes a result, for its record.
    """

    model: Callable[..., nn.Module]
    source: Source
    data: str
    recipe: Recipe
    folder: Path
    arguments: Mapping[str, Any] = field(default_factory=dict)
    held_out: Sequence[Pair] = ()
    command: str = ""

    def seeded(self, seed: int) -> Study:
        """The same study from another seed on: of the first weights, the pairs' order, and what a step draws."""
        return replace(self, recipe=replace(self.recipe, seed=seed))

    def description(self, choice: Choice) -> dict[str, Any]:
        """All that a result follows from; arguments that are left out have their defaults.

        Raises:
            TypeError: a switch that the model does not have.
        """
        bound = inspect.signature(self.model).bind(**{**self.arguments, **choice})
        bound.apply_defaults()
        name = getattr(self.model, "__name__", repr(self.model))
        arguments = {k: v for k, v in sorted(bound.arguments.items()) if (k, v) not in LATER.items()}
        return {"model": name, "arguments": arguments, "recipe": asdict(self.recipe), "data": self.data}

    def path(self, choice: Choice) -> Path:
        """The file of a combination's weights, which may not be there; its record is beside it (.json)."""
        description = self.description(choice)
        content = json.dumps(description, sort_keys=True, default=repr)
        usual = self.description({})["arguments"]
        different = [f"{key}-{value}" for key, value in description["arguments"].items() if value != usual.get(key)]
        words = re.sub(r"[^\w.]+", "-", "-".join(different)).strip("-") or "reference"
        checksum = hashlib.sha256(content.encode()).hexdigest()[:12]
        return self.folder / f"{description['model'].lower()}-{words}-seed{self.recipe.seed}-{checksum}.safetensors"

    def record(self, choice: Choice) -> dict[str, Any] | None:
        """What is kept beside a combination's weights, or None; the weights themselves may be gone.

        Raises:
            ValueError: a damaged file.
        """
        path = self.path(choice).with_suffix(".json")
        if not path.exists():
            return None
        remedy = f"remove {path.name} and train it again"
        record = unsealed(path, {"metrics": {str: float}, "history": HISTORY}, remedy)
        check_form(record.get("pairs", {}), {str: [float]}, path, remedy)
        History.from_json(json.dumps(record["history"]))
        return record

    def find(self, choice: Choice) -> Trained | None:
        """What is kept of a combination, or None.

        Raises:
            ValueError: a damaged file.
        """
        path, record = self.path(choice), self.record(choice)
        if record is None or not path.exists():
            return None
        history = History.from_json(json.dumps(record["history"]))
        return Trained(checkpoints.load(path, make=self.model), history, complete=True)

    def train(self, choice: Choice, *, callback: Callback | None = None, progress: bool = False) -> Trained:
        """Train a combination from the recipe's seed on, on one thread, and keep it if it came to its last step.

        callback, progress: as of `training.train`; KeyboardInterrupt from the callback stops the training.
        """
        with one_thread():
            with training.random_state(self.recipe.seed):
                model = self.model(**{**self.arguments, **choice})
            history = training.train(model, self.source, self.recipe, progress=progress, callback=callback)
            trained = Trained(model.eval(), history, complete=len(history) == self.recipe.steps)
            if trained.complete:
                self.keep(choice, trained)
        return trained

    def keep(self, choice: Choice, trained: Trained) -> None:
        """Write both files, the record last: where it is, the weights were. They are kept before they are judged."""
        path = self.path(choice)
        path.parent.mkdir(parents=True, exist_ok=True)
        loss = dict(zip(["loss"], trained.history.loss[-1:], strict=False))
        checkpoints.save(trained.model, path, metrics=loss)
        reached, pairs = (
            judge(trained.model, self.held_out) if self.held_out else {} for judge in (evaluate, evaluate_each)
        )
        reached = {name: value for name, value in reached.items() if math.isfinite(value)}
        checkpoints.restate(path, reached | loss)
        history = _rounded(asdict(trained.history))
        record = {
            **self.description(choice),
            "command": self.command,
            "threads": torch.get_num_threads(),
            "metrics": reached,
            "pairs": pairs,
            "history": history if self.recipe.seed == SEEDS[0] else _rounded(_thinned(**history)),
        }
        write_atomically(path.with_suffix(".json"), sealed(record))


def _thinned(terms: dict[str, list[float]], seconds: list[float]) -> dict[str, Any]:
    """`_BLOCK` steps of a history as one: the means of its terms, the sum of its seconds."""
    starts = range(0, len(seconds), _BLOCK)
    means = {name: [mean(row[i : i + _BLOCK]) for i in starts] for name, row in terms.items()}
    return {"terms": means, "seconds": [sum(seconds[i : i + _BLOCK]) for i in starts]}


# ---------------------------------------------------------------------------------------------- the course's studies

FOLDER = Path(__file__).parent / "results"
SEEDS = (0, 1, 2, 3, 4, 5, 6, 7)
_BLOCK = 20
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
    "gradicon_finer": {"reference": {}, "weak ICON": {"regularizer": "icon", "weight": 64.0}},
    "gradicon_vessels": {
        "reference": {},
        "four networks": {"levels": (3, 2, 1, 0)},
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
        "λ 2": {"weight": 2.0},
        "γ 0.15": {"limit": "gamma"},
        "γ 0.3": {"limit": "gamma", "gamma": 0.3},
        "4 levels": {"channels": (8, 16, 16, 16), "update_channels": (16, 32, 32, 32)},
    },
    "sitreg_unaligned": {"reference": {}, "no affine": {"affine": "none", "channels": _SLIM["channels"]}},
    "sacbnet": {
        "reference": {},
        "no block": {"blocks": "none"},
        "block on level 5": {"blocks": "5"},
        "blocks on levels 5, 4": {"blocks": "54"},
        "blocks on levels 5, 4, 3": {"blocks": "543"},
        "1 cluster": {"clusters": 1},
        "5 clusters": {"clusters": 5},
        "9 clusters": {"clusters": 9},
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


# ---------------------------------------------------------------------------------------------- trained, and stored


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
    if record is None or "pairs" not in record or (seed == SEEDS[0] and not seeded.path(chosen).exists()):
        trained = seeded.train(chosen, progress=progress)
        record = seeded.record(chosen)
        if record is None:
            raise KeyboardInterrupt(f"stopped after {len(trained.history)} steps, nothing is kept")
    weights = seeded.path(chosen)
    if seed != SEEDS[0]:
        weights.unlink(missing_ok=True)
    for path in (weights, weights.with_suffix(".json")):
        sweep(path)
    return record


def train(study: str | None = None, variant: str | None = None, seeds: Sequence[int] | None = None) -> None:
    """Train what is missing of a study (all, if none is named) and a variant (all), and log what each reached.

    Raises:
        ValueError: there is no such study or variant; lists those that there are.
    """
    for name in [study] if study else VARIANTS:
        chosen = [variant] if variant else choose("study", name, VARIANTS)
        for seed, each in itertools.product(seeds or SEEDS, chosen):
            reached = run(name, each, seed)["metrics"]
            numbers = ", ".join(f"{measure} {value:.4g}" for measure, value in reached.items())
            logging.getLogger(__name__).info(f"{name} / {each} / seed {seed}: {numbers}")


def records(study: str, variant: str = "reference") -> list[dict[str, Any]]:
    """The records of a variant, one for each seed that was trained."""
    chosen = choice(study, variant)
    found = (STUDIES[study].seeded(seed).record(chosen) for seed in SEEDS)
    return [record for record in found if record is not None]


def values(study: str, variant: str, measure: str) -> NDArray[np.float64]:
    """What each seed that was trained (rows) reached on each held-out pair (columns): (seeds, pairs).

    measure: of `tools.measures.RECORDED`. (0, 0) where nothing is trained; a seed without the measure is left out.
    """
    rows = [record.get("pairs", {}).get(measure) for record in records(study, variant)]
    kept = [row for row in rows if row]
    return np.array(kept, dtype=float).reshape(len(kept), -1 if kept else 0)


def load(study: str, variant: str = "reference") -> Trained:
    """A variant as it was trained from the first seed.

    Raises:
        FileNotFoundError: it is not trained yet; says with what command.
    """
    found = STUDIES[study].find(choice(study, variant))
    if found is None:
        raise MissingFileError(
            "a variant must be trained before it is loaded",
            f"{variant!r} of {study}",
            f'run "python -m regkit study {study} --variant {variant!r}"',
        )
    return found


class Spread(NamedTuple):
    """A number over several seeds."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.deviation:.1g} ({self.seeds})" if self.seeds > 1 else f"{self.mean:.3g} (1)"


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of what each seed reached."""
    return Spread(mean(values), stdev(values) if len(values) > 1 else 0.0, len(values))


def results(study: str, variant: str = "reference") -> dict[str, Spread]:
    """What a variant reached on held-out pairs over its seeds, by the names of `compare.evaluate`."""
    reached = [record["metrics"] for record in records(study, variant)]
    return {
        name: spread([metrics[name] for metrics in reached if name in metrics])
        for name in (reached[0] if reached else ())
    }
