"""Ablation studies: a model's switches, and what each combination of them becomes when it is trained.

A result is found again by what it is made of: the model's class and all arguments, the recipe, and the words for the
data. Its file is named after what differs and a checksum of all, so no combination can be taken for another. Beside the
weights lies a record (.json): what the result was made of, the history, and what was measured.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from regkit import checkpoints, metrics
from regkit.fields import warp
from regkit.files import write_atomically
from regkit.losses import mse
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
        arguments = {key: value for key, value in sorted(bound.arguments.items())}
        return {"model": name, "arguments": arguments, "recipe": asdict(self.recipe), "data": self.data}

    def path(self, choice: Choice) -> Path:
        """The file of a combination's weights, which may not be there; its record is beside it (.json)."""
        description = self.description(choice)
        content = json.dumps(description, sort_keys=True, default=repr)
        usual = self.description({})["arguments"]
        different = [f"{key}-{value}" for key, value in description["arguments"].items() if value != usual[key]]
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
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            History.from_json(json.dumps(content["history"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"a result is a pair of files, weights and record, received {path} ({error}); train it again."
            ) from error
        return content

    def find(self, choice: Choice) -> Trained | None:
        """What is kept of a combination, or None.

        Raises:
            ValueError: a damaged file.
        """
        path = self.path(choice)
        if not path.exists():
            return None
        record = self.record(choice)
        if record is None:
            raise ValueError(f"a result is a pair of files, weights and record, received {path} alone; train it again.")
        history = History.from_json(json.dumps(record["history"]))
        return Trained(checkpoints.load(path, make=self.model), history, complete=True)

    def train(self, choice: Choice, *, callback: Callback | None = None, progress: bool = False) -> Trained:
        """Train a combination from the recipe's seed on, and keep it if it came to its last step.

        callback, progress: as of `training.train`; KeyboardInterrupt from the callback stops the training.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            model = self.model(**{**self.arguments, **choice})
        history = train(model, self.source, self.recipe, progress=progress, callback=callback)
        trained = Trained(model.eval(), history, complete=len(history) == self.recipe.steps)
        if trained.complete:
            self._keep(choice, trained)
        return trained

    def _keep(self, choice: Choice, trained: Trained) -> None:
        """Write both files, the weights last: where they are, the record is."""
        path = self.path(choice)
        path.parent.mkdir(parents=True, exist_ok=True)
        reached = evaluate(trained.model, self.held_out) if self.held_out else {}
        record = {
            **self.description(choice),
            "command": self.command,
            "metrics": reached,
            "history": _rounded(asdict(trained.history)),
        }
        write_atomically(path.with_suffix(".json"), json.dumps(record, default=repr).encode())
        reached |= dict(zip(["loss"], trained.history.loss[-1:], strict=False))
        checkpoints.save(trained.model, path, metrics=reached)


def _rounded(value: Any) -> Any:
    """Numbers to six significant digits, in whatever lists and dicts."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else float(f"{value:.6g}")


def evaluate(model: nn.Module, pairs: Sequence[Pair]) -> dict[str, float]:
    """Means over pairs of one size, by the names below; `model` is used as it is, so put it in evaluation mode.

    dice: mean over labels. mse: of the warped image. folds: percent of voxels. std_log_jacobian. inverse_error: how far
    φ_AB ∘ φ_BA is from the identity, in voxels, φ_BA being the inverse that the method gives, or else what it finds for
    the exchanged images; exchange_error: the same with what it finds for the exchanged images in any case.
    field_error: mean |u - true u| in voxels where the fixed image has labels, if the truth is known.
    """
    pair = stack(pairs)
    with torch.no_grad():
        found, back = model(pair.moving, pair.fixed), model(pair.fixed, pair.moving)
    inverse = back.displacement if found.inverse is None else found.inverse
    numbers = metrics.evaluate(Registration(found.displacement, inverse), pair)
    reached = {
        "mse": mse(warp(pair.moving, found.displacement), pair.fixed).item(),
        "folds": numbers["folds_percent"],
        "std_log_jacobian": numbers["jacobian_std_log"],
        "inverse_error": numbers["inverse_consistency"],
        "exchange_error": metrics.inverse_consistency(found.displacement, back.displacement),
    }
    if "dice" in numbers:
        reached["dice"] = numbers["dice"]
    if pair.fixed_labels is not None and pair.displacement is not None:
        error = (found.displacement - pair.displacement).norm(dim=1, keepdim=True)
        reached["field_error"] = error[pair.fixed_labels > 0].mean().item()
    return _rounded(reached)


def stack(pairs: Sequence[Pair]) -> Pair:
    """Pairs of one size as one Pair, along the batch; what one of them lacks, the result lacks.

    Raises:
        ValueError: no pairs, or pairs that do not fit each other.
    """
    if not len(pairs):
        raise ValueError("there must be at least one pair to stack, received none; check how they were made.")
    items = [pairs[i] for i in range(len(pairs))]
    names = ("moving", "fixed", "moving_labels", "fixed_labels", "displacement")
    parts = {name: [getattr(item, name) for item in items] for name in names}
    known = {name: torch.cat(values) for name, values in parts.items() if all(value is not None for value in values)}
    return Pair(**known, spacing=items[0].spacing)


def register(model: nn.Module, pair: Pair) -> Registration:
    """Without gradients; where the method gives no inverse, its answer to the exchanged images stands in."""
    with torch.no_grad():
        found = model(pair.moving, pair.fixed)
        inverse = model(pair.fixed, pair.moving).displacement if found.inverse is None else found.inverse
    return Registration(found.displacement, inverse, found.velocity)


def measure(pair: Pair, registration: Registration) -> dict[str, float]:
    """How good and how regular a registration is, by words with units."""
    found = metrics.evaluate(registration, pair)
    numbers = {"Dice": found["dice"]} if "dice" in found else {}
    numbers["mean |warped - fixed|"] = (warp(pair.moving, registration.displacement) - pair.fixed).abs().mean().item()
    numbers["folds (%)"] = found["folds_percent"]
    if registration.inverse is not None:
        numbers["inverse error (voxels)"] = found["inverse_consistency"]
    return numbers
