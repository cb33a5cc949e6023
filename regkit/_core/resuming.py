"""What a training leaves: its history, and the checkpoint from which it goes on to the same bits."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regkit._core.files import read_tensors, write_atomically
from regkit._core.records import LATER, check_form, digest, parsed
from regkit.types import InputError

if TYPE_CHECKING:
    from regkit.training import Recipe

FORMAT = "regkit training 1"
_AFRESH = "name another checkpoint, or move this one away to start afresh"
_MOMENTS = {"step": Tensor, "exp_avg": Tensor, "exp_avg_sq": Tensor}
_CHECKPOINT = {"training": {str: str}, "model": {str: Tensor}, "optimiser": {"state": {int: _MOMENTS}}}
_CHECKPOINT |= {"generators": [Tensor], "history": str}

HISTORY = {"terms": {str: [float]}, "seconds": [float]}


@dataclass
class History:
    """What each step of a training saw.

    terms: the objective's weighted terms by name, one number for each step (the mean over all processes).
    seconds: how long each step took. `len(history)` is the number of steps done.
    """

    terms: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def loss(self) -> list[float]:
        """The sum of the terms at each step."""
        return [math.fsum(values) for values in zip(*self.terms.values(), strict=True)]

    def append(self, terms: Mapping[str, float], seconds: float) -> None:
        """Add a step.

        Raises:
            ValueError: its terms are not those of the steps before.
        """
        if self.seconds and terms.keys() != self.terms.keys():
            raise InputError(
                "every step must have the same terms",
                f"{sorted(terms)} after {sorted(self.terms)}",
                "let the objective return a zero where a term does not count",
            )
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value)
        self.seconds.append(seconds)

    def to_json(self) -> str:
        """The history as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history that `to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        content = parsed(text, HISTORY, "a history", "give what to_json wrote")
        history = cls(
            {name: [float(value) for value in values] for name, values in content["terms"].items()},
            [float(value) for value in content["seconds"]],
        )
        if {len(values) for values in history.terms.values()} - {len(history)}:
            raise InputError(
                f"a history has one number for each of its {len(history)} steps", f"{text[:80]!r}", "see to_json"
            )
        return history


# ---------------------------------------------------------------------------------------------- checkpoints
def write(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    world: int,
    history: History,
    data: Sequence[float] = (),
) -> None:
    """Write the file; a failure leaves the one that was there. data: see `_fingerprint`."""
    content = {
        "format": FORMAT,
        "training": _description(model, recipe, world),
        "data": list(data),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generators": [generator.get_state() for generator in generators(model)],
        "history": history.to_json(),
        "threads": torch.get_num_threads(),
    }
    stream = io.BytesIO()
    torch.save(content | {"sha256": digest(content)}, stream)
    write_atomically(path, stream.getvalue())


def restore(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    world: int,
    *,
    data: Callable[[], Sequence[float]] = tuple,
) -> History:
    """Put model, optimiser and generators where the file left them; returns the history.

    data: makes what the first step sees now. It is compared where the file has it; older files do not.

    Raises:
        FileNotFoundError, ValueError: no such file; it is no training's, altered, or another training's. The model is
            unchanged.
    """
    content = read_tensors(path)
    if content.get("format") != FORMAT:
        raise InputError(
            f"a training goes on from a file of the format {FORMAT!r}",
            f"{path} with {content.get('format')!r}",
            _AFRESH,
        )
    check_form(content, _CHECKPOINT, path, _AFRESH)
    history = History.from_json(content["history"])
    if content.pop("sha256", None) not in (None, digest(content)):
        raise InputError("a checkpoint must have the checksum that it states", f"{path}, which was altered", _AFRESH)
    _check_same(path, content["training"], _description(model, recipe, world), len(history))
    _check_state(path, content, model, optimiser, history)
    if before := content.get("data"):
        check_form(before, [float], path, _AFRESH)
        _check_same_data(path, before, data())
    if content.get("threads", torch.get_num_threads()) != torch.get_num_threads():
        warnings.warn(
            f"the training goes on with {torch.get_num_threads()} threads where {path} was written with "
            f"{content['threads']}: for the same bits set OMP_NUM_THREADS={content['threads']}.",
            stacklevel=2,
        )
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(optimiser.state_dict() | {"state": content["optimiser"]["state"]})
    for generator, state in zip(generators(model), content["generators"], strict=True):
        generator.set_state(state)
    return history


def _check_state(
    path: Path, content: Any, model: nn.Module, optimiser: torch.optim.Optimizer, history: History
) -> None:
    """Raise unless tensors have the shapes of the model, of the optimiser's moments and of generators' states."""
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    given = {name: value.shape for name, value in content["model"].items()}
    for number, moments in content["optimiser"]["state"].items():
        place, here = f"moments of weight {number}", 0 <= number < len(trained)
        wanted[place] = [torch.Size(), *[trained[number].shape] * 2] if here else None
        given[place] = [moments[name].shape for name in _MOMENTS]
    wanted["generators"] = [each.get_state().shape for each in generators(model)]
    given["generators"] = [state.shape for state in content["generators"]]
    different = [name for name in wanted | given if wanted.get(name) != given.get(name)]
    if len(history) and not content["optimiser"]["state"]:
        different.append("moments, which are missing")
    if different:
        raise InputError("a checkpoint must hold the state of its model", f"{path} with other {different[0]}", _AFRESH)


def generators(model: nn.Module) -> Iterator[torch.Generator]:
    """The random generators that a model and its parts hold as attributes."""
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, torch.Generator))


def _description(model: nn.Module, recipe: Recipe, world: int) -> dict[str, str]:
    """What must be the same for a training to go on, as text by name."""
    described = {f"recipe.{name}": repr(value) for name, value in asdict(recipe).items()}
    described["model"] = type(model).__name__
    for name, value in vars(model).get("configuration", {}).items():
        if (name, value) not in LATER.items():
            described[f"model.{name}"] = json.dumps(
                value, default=lambda each: getattr(each, "__qualname__", repr(each))
            )
    for name, value in model.state_dict().items():
        described[f"shape of {name}"] = str(tuple(value.shape))
    for name, parameter in model.named_parameters():
        described[f"training of {name}"] = str(parameter.requires_grad)
    return {**described, "processes": str(world)}


def _check_same(path: Path, before: dict[str, str], now: dict[str, str], done: int) -> None:
    """Raise unless the descriptions agree; a constant learning rate lets `steps` grow."""
    different = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if before.get("recipe.schedule") == repr("constant") and int(now["recipe.steps"]) >= done:
        different -= {"recipe.steps"}
    if different:
        listed = [f"{name}: {before.get(name)} in the file, {now.get(name)} now" for name in sorted(different)]
        more = f"; and {len(listed) - 8} more" if len(listed) > 8 else ""
        raise InputError(
            "a training goes on only as it began",
            f"{path} with {'; '.join(listed[:8])}{more}",
            _AFRESH,
        )


def _check_same_data(path: Path, before: Sequence[float], now: Sequence[float]) -> None:
    """Raise unless the first step sees the same images, up to what another machine rounds otherwise."""
    alike = [math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-4) for one, other in zip(before, now, strict=False)]
    if now and (len(before) != len(now) or not all(alike)):
        both = ["[" + ", ".join(f"{number:.4g}" for number in numbers) + "]" for numbers in (before, now)]
        raise InputError(
            "a training goes on only as it began",
            f"{path} with other data: in the first step {both[0]} in the file, {both[1]} now (shapes, means and "
            "standard deviations of moving and fixed, their difference)",
            "give the data it began with, name another checkpoint, or move this one away to start afresh",
        )
