"""The file that lets a training go on as if it had never stopped: training.py's own, as checkpoints.py is the models'.

Held: weights and buffers, the optimiser, the model's own generators, the history, and what the training was: recipe,
model, number of processes. The rest (pairs, random numbers, learning rate) follows from the step. Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from regkit.files import read_tensors, write_atomically
from regkit.runs import History, Recipe

FORMAT = "regkit training 1"


def write(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, recipe: Recipe, world: int, history: History
) -> None:
    """Write the file; a failure leaves the one that was there."""
    content = {
        "format": FORMAT,
        "training": _description(model, recipe, world),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generators": [generator.get_state() for generator in generators(model)],
        "history": history.to_json(),
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomically(path, stream.getvalue())


def restore(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, recipe: Recipe, world: int) -> History:
    """Put model, optimiser and generators where the file left them; returns the history.

    Raises:
        ValueError: the file is no training's, or another training's. The model is unchanged.
    """
    content = read_tensors(path)
    if content.get("format") != FORMAT:
        raise ValueError(
            f"a training goes on from a file of the format {FORMAT!r}, received {path} with {content.get('format')!r}; "
            f"name another checkpoint, or move this one away to start afresh."
        )
    history = History.from_json(content["history"])
    _check_same(path, content["training"], _description(model, recipe, world), len(history))
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    for generator, state in zip(generators(model), content["generators"], strict=True):
        generator.set_state(state)
    return history


def generators(model: nn.Module) -> Iterator[torch.Generator]:
    """The random generators that a model and its parts hold as attributes."""
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, torch.Generator))


def _description(model: nn.Module, recipe: Recipe, world: int) -> dict[str, str]:
    """What must be the same for a training to go on, as text by name."""
    described = {f"recipe.{name}": repr(value) for name, value in asdict(recipe).items()}
    described["model"] = type(model).__name__
    for name, value in vars(model).get("configuration", {}).items():
        described[f"model.{name}"] = json.dumps(value, default=repr)
    for name, value in model.state_dict().items():
        described[f"shape of {name}"] = str(tuple(value.shape))
    for name, parameter in model.named_parameters():
        described[f"training of {name}"] = str(parameter.requires_grad)
    return {**described, "processes": str(world)}


def _check_same(path: Path, before: dict[str, str], now: dict[str, str], done: int) -> None:
    """Raise unless the descriptions agree; a constant learning rate lets `steps` grow."""
    different = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if before["recipe.schedule"] == repr("constant") and int(now["recipe.steps"]) >= done:
        different -= {"recipe.steps"}
    if different:
        listed = [f"{name}: {before.get(name)} in the file, {now.get(name)} now" for name in sorted(different)]
        more = f"; and {len(listed) - 8} more" if len(listed) > 8 else ""
        raise ValueError(
            f"a training goes on only as it began, received {path} with {'; '.join(listed[:8])}{more}; name another "
            f"checkpoint, or move this one away to start afresh."
        )
