"""What is stored and read again: the form that it must have, and its checksum."""

from __future__ import annotations

import hashlib
import json
import reprlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regkit.types import InputError

_KINDS = {dict: "a dict", list: "a list", str: "a text", int: "a whole number", float: "a finite number"}
LATER = {
    "similarity": None,
    "encoder": "plain",
}  # arguments that came after stored results, whose descriptions lack them


def check_form(content: Any, form: Any, origin: object, remedy: str, place: str = "") -> None:
    """Raise unless plain values have a form.

    form: a type (`float`: any finite number); [form] for a list; {name: form} for a dict with these entries among
    others, {str: form} for one with any texts as names. origin, remedy: for the error.
    """
    kind = type(form) if isinstance(form, dict | list) else form
    if kind in (int, float):
        kinds: Any = int if kind is int else int | float
        kept = type(content) is not bool and isinstance(content, kinds) and abs(content) <= sys.float_info.max
    else:
        kept = isinstance(content, kind)
    if not kept:
        words = _KINDS.get(kind, f"a {kind.__name__}")
        raise InputError(f"{place or 'the whole'} must be {words}", f"{reprlib.repr(content)} in {origin}", remedy)
    if isinstance(form, list):
        for number, part in enumerate(content):
            check_form(part, form[0], origin, remedy, f"{place}[{number}]")
    within = f"{place}." if place else ""
    for name, each in form.items() if isinstance(form, dict) else ():
        if isinstance(name, type):
            for key, value in content.items():
                check_form(key, name, origin, remedy, f"{within}{key}, a name,")
                check_form(value, each, origin, remedy, f"{within}{key}")
        elif name not in content:
            raise InputError(f"{within}{name} must be there", f"only {reprlib.repr(list(content))} in {origin}", remedy)
        else:
            check_form(content[name], each, origin, remedy, f"{within}{name}")


def parsed(text: str | bytes, form: Any, origin: object, remedy: str, place: str = "") -> Any:
    """What JSON says, if it has a form (see `check_form`).

    Raises:
        InputError: it is damaged, too deep, or of another form.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("JSON must be whole, and not deep", f"{origin} ({error})", remedy) from error
    check_form(content, form, origin, remedy, place)
    return content


def sealed(content: Mapping[str, Any], **style: Any) -> bytes:
    """A JSON object with a checksum of its entries, which `unsealed` looks at. style: of json.dumps."""
    plain = json.loads(json.dumps(content, default=repr))
    return json.dumps(plain | {"sha256": _json_digest(plain)}, **style).encode()


def unsealed(path: Path, form: Any, remedy: str) -> dict[str, Any]:
    """The object that `sealed` wrote, or an older one without a checksum.

    Raises:
        OSError, InputError: it cannot be read; it is damaged, altered, or of another form (see `check_form`).
    """
    content: dict[str, Any] = parsed(path.read_bytes(), form, path, remedy)
    if not intact(content):
        raise InputError("a record must have the checksum that it states", f"{path}, which was altered", remedy)
    return {name: value for name, value in content.items() if name != "sha256"}


def intact(content: Mapping[str, Any]) -> bool:
    """Whether an object that `sealed` wrote has the checksum that it states; older ones state none."""
    return content.get("sha256") in (None, _json_digest(content))


def _json_digest(content: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def digest(content: Mapping[str, Any]) -> str:
    """One checksum of all names, types, shapes and values of tensors, and of plain values, in whatever dicts and lists.

    It stands in stored weights: what it is of tensors by name never changes.
    """
    checksum = hashlib.sha256()
    for name, value in sorted(_leaves("", content), key=lambda leaf: leaf[0]):
        if isinstance(value, Tensor):
            checksum.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            checksum.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        else:
            checksum.update(f"{name} {value!r} ".encode())
    return checksum.hexdigest()


def _leaves(name: str, content: Any) -> Iterator[tuple[str, Any]]:
    """All that is in dicts and lists, by names with slashes."""
    if isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _leaves(f"{name}/{key}" if name else str(key), value)
    else:
        yield name, content
