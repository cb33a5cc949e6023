"""Trained models in files: `save` and `load`; `load_official` for the authors' published weights.

The files are safetensors whose metadata name the model's class, its constructor's arguments, regkit's version and what
the model reached. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import safetensors
import safetensors.torch
import torch
from torch import nn

from regkit import models
from regkit._core import __version__
from regkit._core.files import State, fill, write_atomically
from regkit.models.layers import Network
from regkit.models.official import load_official, rename
from regkit.types import InputError, InputTypeError, MissingFileError, Registration

__all__ = ["describe", "load", "load_official", "rename", "save"]

FORMAT = 1
Model = TypeVar("Model", bound=nn.Module)


def save(model: nn.Module, path: Path | str, *, metrics: Mapping[str, float] | None = None, command: str = "") -> None:
    """Write a model's weights, class and constructor arguments, and what it reached; in one move, or not at all.

    command: what made the weights, in words that make them again.

    Raises:
        TypeError: the model's class is not `configured` (layers.py), or its arguments are more than JSON can hold.
        OSError: it cannot be written; an older file stays.
    """
    configuration = vars(model).get("configuration")
    if configuration is None:
        raise InputTypeError(
            "a model must remember its arguments",
            f"{type(model).__name__}, which does not",
            "put @configured above its class, and save the model itself, not what wraps it",
        )
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    description = {
        "format": str(FORMAT),
        "regkit": __version__,
        "model": type(model).__name__,
        "arguments": json.dumps(configuration),
        "metrics": json.dumps(dict(metrics or {})),
        "command": command,
        "sha256": _digest(tensors),
    }
    write_atomically(path, safetensors.torch.save(tensors, description))


@overload
def load(path: Path | str) -> Network[Registration]: ...


@overload
def load(path: Path | str, *, make: Callable[..., Model]) -> Model: ...


def load(path: Path | str, *, make: Callable[..., Any] | None = None) -> Any:
    """The model that `save` wrote, on the CPU and in evaluation mode (to train it further: `model.train()`).

    make: the model's class where it is none of `regkit.models`. Lists among its arguments come back as tuples.

    Raises:
        FileNotFoundError, ValueError: no such file; it is damaged, foreign, of a newer regkit or of another model.
    """
    description = describe(path)
    tensors = safetensors.torch.load(Path(path).read_bytes())
    if _digest(tensors) != description["sha256"]:
        raise InputError("weights must have the checksum that their file states", path, "fetch it again")
    constructor = make or getattr(models, description["model"], None)
    if constructor is None or constructor.__name__ != description["model"]:
        raise InputError(
            "a model is made by its own class",
            f"{path} of a {description['model']} for "
            f"{'regkit.models' if constructor is None else constructor.__name__}",
            "give its class as `make`",
        )
    try:
        model = constructor(**description["arguments"])
    except TypeError as error:
        raise InputError(
            "a model is made again with the arguments it was saved with",
            f"{path} with {description['arguments']} ({error})",
            f"use regkit {description['regkit']}, which wrote it",
        ) from error
    fill(model, tensors, str(path))
    return model.eval()


def describe(path: Path | str) -> dict[str, Any]:
    """What a file of `save` says of itself: format, regkit, model, arguments, metrics, command, sha256.

    No weights are read.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    metadata = _metadata(Path(path))
    if metadata.get("format", "").isdigit() and int(metadata["format"]) > FORMAT:
        raise InputError(
            f"regkit {__version__} reads files up to format {FORMAT}",
            f"{path} of format {metadata['format']}, written by regkit {metadata.get('regkit')}",
            "update regkit",
        )
    try:
        parsed = {name: json.loads(metadata[name]) for name in ("format", "arguments", "metrics")}
        texts = {name: metadata[name] for name in ("regkit", "model", "sha256")}
    except (KeyError, ValueError) as error:
        raise InputError(
            "a model's file must name its model",
            f"{path}, which holds only {sorted(metadata)}",
            "load what regkit.checkpoints.save wrote",
        ) from error
    texts["command"] = metadata.get("command", "")
    return {**parsed, **texts, "arguments": {name: _tuples(value) for name, value in parsed["arguments"].items()}}


def _metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise MissingFileError("a model is loaded from a file", f"{path}, which is none", "check the path")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise InputError(
            "a model's file must be whole safetensors",
            f"{path} ({error})",
            "fetch or make it again, or use load_official for the authors' weights",
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _digest(tensors: State) -> str:
    """One checksum of all names, types, shapes and values."""
    checksum = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        checksum.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        checksum.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()
