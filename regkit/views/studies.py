"""Ablation studies: a model's switches, and what each combination of them becomes when it is trained.

A result is found again by what it is made of: the model's class and all arguments, the recipe, and the words for the
data. Its file is named after a checksum of these, so no combination can be taken for another.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from regkit import checkpoints, metrics
from regkit.fields import warp, warp_labels
from regkit.files import write_atomically
from regkit.training import Callback, History, Recipe, Source, train
from regkit.types import Pair, Registration

Choice = Mapping[str, Any]  # the values of switches by name


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
    whenever the pairs do. arguments: of the model, the same for all combinations.
    """

    model: Callable[..., nn.Module]
    source: Source
    data: str
    recipe: Recipe
    folder: Path
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def description(self, choice: Choice) -> dict[str, Any]:
        """All that a result follows from; arguments that are left out have their defaults.

        Raises:
            TypeError: a switch that the model does not have.
        """
        bound = inspect.signature(self.model).bind(**{**self.arguments, **choice})
        bound.apply_defaults()
        name = getattr(self.model, "__name__", repr(self.model))
        arguments = {key: value for key, value in sorted(bound.arguments.items())}
        return {"model": name, "arguments": arguments, "recipe": asdict(self.recipe), "data": self.data}

    def path(self, choice: Choice) -> Path:
        """The file of a combination's weights, which may not be there; its history is beside it (.json)."""
        content = json.dumps(self.description(choice), sort_keys=True, default=repr)
        name = f"{self.description(choice)['model'].lower()}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        return self.folder / f"{name}.safetensors"

    def find(self, choice: Choice) -> Trained | None:
        """What is kept of a combination, or None.

        Raises:
            ValueError: a damaged file.
        """
        path = self.path(choice)
        if not path.exists():
            return None
        beside = path.with_suffix(".json")
        try:
            history = History.from_json(json.dumps(json.loads(beside.read_text())["history"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"a result is a pair of files, weights and history, received {beside} ({error}); train it again."
            ) from error
        return Trained(checkpoints.load(path, make=self.model), history, complete=True)

    def train(self, choice: Choice, *, callback: Callback | None = None) -> Trained:
        """Train a combination from the recipe's seed on, and keep it if it came to its last step.

        callback: as of `training.train`; KeyboardInterrupt from it stops the training.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            model = self.model(**{**self.arguments, **choice})
        history = train(model, self.source, self.recipe, progress=False, callback=callback)
        trained = Trained(model.eval(), history, complete=len(history) == self.recipe.steps)
        if trained.complete:
            self._keep(choice, trained)
        return trained

    def _keep(self, choice: Choice, trained: Trained) -> None:
        """Write both files, the weights last: where they are, the history is."""
        path = self.path(choice)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**self.description(choice), "history": json.loads(trained.history.to_json())}
        write_atomically(path.with_suffix(".json"), json.dumps(content, default=repr).encode())
        reached = dict(zip(["loss"], trained.history.loss[-1:], strict=False))
        checkpoints.save(trained.model, path, metrics=reached)


def register(model: nn.Module, pair: Pair) -> Registration:
    """Without gradients; where the method gives no inverse, its answer to the exchanged images stands in."""
    with torch.no_grad():
        found = model(pair.moving, pair.fixed)
        inverse = model(pair.fixed, pair.moving).displacement if found.inverse is None else found.inverse
    return Registration(found.displacement, inverse, found.velocity)


def measure(pair: Pair, registration: Registration) -> dict[str, float]:
    """How good and how regular a registration is, by words with units."""
    displacement = registration.displacement
    numbers = {}
    if pair.moving_labels is not None and pair.fixed_labels is not None:
        overlaps = metrics.dice(warp_labels(pair.moving_labels, displacement), pair.fixed_labels)
        numbers["Dice"] = sum(overlaps.values()) / max(len(overlaps), 1)
    numbers["mean |warped - fixed|"] = (warp(pair.moving, displacement) - pair.fixed).abs().mean().item()
    numbers["folds (%)"] = metrics.folds(displacement).percent
    if registration.inverse is not None:
        numbers["inverse error (voxels)"] = metrics.inverse_consistency(displacement, registration.inverse)
    return numbers
