"""Trained models in files: `save` and `load`; `load_official` for the authors' published weights.

The files are safetensors whose metadata name the model's class, its constructor's arguments, regkit's version and what
the model reached. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import reprlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import safetensors
import safetensors.torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from regkit import models
from regkit._core import __version__
from regkit._core.files import fill, write_atomically
from regkit._core.records import check_form, parsed
from regkit._core.records import digest as _digest
from regkit.models.layers import Network, changed_settings
from regkit.models.official import load_official, rename
from regkit.types import InputError, InputTypeError, MissingFileError, Registration

__all__ = ["describe", "load", "load_official", "rename", "restate", "save"]
FORMAT = 1
Model = TypeVar("Model", bound=nn.Module)


def save(model: nn.Module, path: Path | str, *, metrics: Mapping[str, float] | None = None, command: str = "") -> None:
    """Write a model's weights, class and constructor arguments, and what it reached; in one move, or not at all.

    command: what made the weights, in words that make them again.

    Raises:
        TypeError: the model's class is not `configured` (layers.py), or its arguments are more than JSON can hold.
        ValueError: it was changed after it was made (`model.similarity = "ncc"`), which `load` would lose.
        OSError: it cannot be written; an older file stays.
    """
    configuration = vars(model).get("configuration")
    if configuration is None:
        raise InputTypeError(
            "a model must remember its arguments",
            f"{type(model).__name__}, which does not",
            "put @configured above its class, and save the model itself, not what wraps it",
        )
    if functions := [name for name, value in configuration.items() if callable(value)]:
        raise InputTypeError(
            "a file keeps arguments that are numbers, names and lists of them",
            f"{type(model).__name__} with a function or module as {', '.join(functions)}",
            "write a @configured subclass that makes it by itself, and give that the weights",
        )
    if changed := changed_settings(model):
        raise InputError(
            "a file keeps a model's arguments and weights, and nothing that was changed after it was made",
            f"{type(model).__name__} with another {', '.join(changed)}",
            "make the model with it, or write a @configured subclass that has it, and give that the weights",
        )
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    texts = {
        "format": str(FORMAT),
        "regkit": __version__,
        "model": type(model).__name__,
        "arguments": json.dumps(configuration),
        "metrics": json.dumps(dict(metrics or {})),
        "command": command,
        "sha256": _digest(tensors),
    }
    write_atomically(path, _content(tensors, texts))


def restate(path: Path | str, metrics: Mapping[str, float]) -> None:
    """Write what a stored model reached into its file, which was kept before it was judged; all else stays.

    Raises:
        FileNotFoundError, ValueError, OSError: as `load` and `save`.
    """
    describe(path)
    texts = _metadata(Path(path)) | {"metrics": json.dumps(dict(metrics))}
    write_atomically(path, _content(safetensors.torch.load(Path(path).read_bytes()), texts))


def _content(tensors: Mapping[str, Tensor], texts: dict[str, str]) -> bytes:
    """The file; its metadata have a checksum, and are sorted: safetensors orders them otherwise each time."""
    texts.pop("metadata_sha256", None)
    content = safetensors.torch.save(dict(tensors), texts | {"metadata_sha256": _digest(texts)})
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


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
    constructor: Any = make or getattr(models, description["model"], None)
    if getattr(constructor, "__name__", "") != description["model"] or not (make or isinstance(constructor, type)):
        raise InputError(
            "a model is made by its own class",
            f"{path} of a {description['model']} for {getattr(make, '__name__', 'regkit.models')}",
            "give its class as `make`",
        )
    arguments = description["arguments"]
    try:
        with _at_most(4 * sum(map(Tensor.numel, tensors.values())) + 2**20):
            model = constructor(**arguments)
    except Exception as error:  # arguments can be wrong in any way
        raise InputError(
            "a model is made again with the arguments it was saved with",
            f"{path} with {reprlib.repr(arguments)} ({error})",
            f"use regkit {description['regkit']}, which wrote it",
        ) from error
    fill(model, tensors, str(path))
    return model.eval()


@contextlib.contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Refuse more weights than this before they are filled: a file may ask for a network of any size."""
    made, here = [0], threading.get_ident()

    def add(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        made[0] += parameter.numel() if threading.get_ident() == here else 0
        if made[0] > count:
            raise MemoryError(f"more weights than the file holds, at {type(module).__name__}.{name}")

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()


def describe(path: Path | str) -> dict[str, Any]:
    """What a file of `save` says of itself: format, regkit, model, arguments, metrics, command, sha256.

    No weights are read.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    metadata = _metadata(Path(path))
    if metadata.get("format", "").isdecimal() and int(metadata["format"]) > FORMAT:
        raise InputError(
            f"regkit {__version__} reads files up to format {FORMAT}",
            f"{path} of format {metadata['format']}, written by regkit {metadata.get('regkit')}",
            "update regkit",
        )
    remedy = "load what regkit.checkpoints.save wrote, or fetch it again"
    if missing := [name for name in (*_FORMS, "regkit", "model", "sha256") if name not in metadata]:
        raise InputError("a model's file must name its model", f"{path}, which lacks {missing}", remedy)
    if metadata.pop("metadata_sha256", None) not in (None, _digest(metadata)):
        raise InputError("metadata must have the checksum that their file states", path, remedy)
    origin = f"the metadata of {path}"
    found = {name: parsed(metadata[name], form, origin, remedy, name) for name, form in _FORMS.items()}
    spacing = found["metrics"].get("spacing", 1)
    check_form(spacing, float, origin, remedy, "spacing")
    if spacing <= 0:
        raise InputError("spacing must be positive", f"{spacing} in {origin}", remedy)
    try:
        found["arguments"] = {name: _tuples(value) for name, value in found["arguments"].items()}
    except RecursionError as error:
        raise InputError("arguments must not be nested so deep", origin, remedy) from error
    return {**found, **{name: metadata.get(name, "") for name in ("regkit", "model", "command", "sha256")}}


_FORMS = {"format": int, "arguments": {str: object}, "metrics": {str: object}}


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
