"""The exercises of tutorial 12: four files of one head, each with a fault in its affine, to be named and repaired."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regkit.course.check.exercise import Exercise, Unanswered
from regkit.data.brains import BrainPairs
from regkit.images import Affine, Grid, Scan, resample, write_image

FAULTS = ("flipped", "swapped", "spacing", "origin")

_DEALT = {"first": "origin", "second": "flipped", "third": "spacing", "fourth": "swapped"}

_FILE = {fault: name for name, fault in _DEALT.items()}

SIZE = (58, 58, 36)

SPACING = (3.5, 3.5, 5.0)  # mm

ORIGIN = (28.5, 34.5, 16.5)  # the voxel at 0 mm

_CAPSULE, _RADIUS = (82.0, -20.0, 5.0), 9.0  # mm: at the right temple

_RIGHT = np.diag([*SPACING, 1.0])

_RIGHT[:3, 3] = -np.multiply(SPACING, ORIGIN)

_CORNERS = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in SIZE))]).T

# ---------------------------------------------------------------------------------------------- the files


@cache
def trusted_scan() -> Scan:
    """A synthetic head with a capsule of oil at its right temple; its affine is right."""
    brain = BrainPairs(1, dim=3, size=(54, 62, 54), split="test", seed=12)
    spacing, shape = brain.template.spacing[0], brain.template.image.shape[2:]
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = np.array([0.0, -17.0, 4.0]) - spacing * (np.array(shape) - 1) / 2  # as anatomy.py centres it
    found, grid = Grid(shape, affine), Grid(SIZE, _RIGHT)
    head = resample(Scan(brain.subjects[0].image, found, found), grid)
    places = np.moveaxis(np.indices(SIZE), 0, -1) @ _RIGHT[:3, :3] + _RIGHT[:3, 3]
    capsule = torch.from_numpy(np.linalg.norm(places - _CAPSULE, axis=-1) < _RADIUS)
    return Scan(torch.where(capsule, 1.0, head.tensor), grid, grid)


def faulty_files(folder: Path | str) -> dict[str, Path]:
    """Write four files of the trusted scan, each with another fault, into a folder; their paths by name."""
    values, paths = trusted_scan().tensor, {}
    for name, fault in _DEALT.items():
        grid = Grid(SIZE, _stored(name))
        stored = values.transpose(2, 3) if fault == "swapped" else values
        paths[name] = Path(folder) / f"{name}.nii.gz"
        write_image(paths[name], Scan(stored.contiguous(), grid, grid))
    return paths


def _stored(name: str) -> Affine:
    """The affine in a file."""
    origin = _RIGHT[:3, 3]
    affines = {
        "flipped": np.diag([-1.0, 1, 1, 1]) @ _RIGHT,
        "swapped": _RIGHT,
        "spacing": _with_origin(np.eye(4), origin),
        "origin": _with_origin(_RIGHT, np.zeros(3)),
    }
    return affines[_DEALT[name]].copy()


def _with_origin(affine: Affine, origin: Any) -> Affine:
    moved = affine.copy()
    moved[:3, 3] = origin
    return moved


def _true(name: str) -> Affine:
    """The affine that a file should have."""
    return _RIGHT[:, [1, 0, 2, 3]] if _DEALT[name] == "swapped" else _RIGHT


def _near(one: Affine, other: Affine) -> bool:
    """Whether two affines put every voxel at the same place, up to 2 mm."""
    return bool(np.abs((one - other) @ _CORNERS)[:3].max() < 2)


# ---------------------------------------------------------------------------------------------- naming


def _by_file(answer: Any, what: str) -> dict[str, Any]:
    """One entry for each file, none blank."""
    if not isinstance(answer, Mapping) or set(answer) != set(_DEALT):
        raise ValueError(f"a dictionary with {what} for {', '.join(_DEALT)} is wanted, received {answer!r}")
    blank = [name for name, part in answer.items() if part is None or part is ...]
    if blank:
        raise Unanswered(f"{', '.join(blank)} still blank." if len(blank) < len(_DEALT) else "")
    return dict(answer)


def _words(answer: Any) -> dict[str, str]:
    given = _by_file(answer, "a word")
    words = {name: word.strip().lower() if isinstance(word, str) else word for name, word in given.items()}
    unknown = [word for word in words.values() if word not in FAULTS]
    if unknown:
        raise ValueError(f"each must be one of {', '.join(FAULTS)}, received {unknown[0]!r}")
    return words


def _misnamed(fault: str, words: dict[str, str]) -> bool:
    return words[_FILE[fault]] != fault


_LOOK = {
    "flipped": "the head stands where it should and has its size. Where is the capsule, and where in the trusted scan?",
    "swapped": "in the plane across axis 2, where does the front of the brain point? No shift does that.",
    "spacing": "compare the length of this head with the trusted one; which entries of an affine set that?",
    "origin": "this head has the right size, stands upright, and has its capsule at the right. What is left?",
}

faults = Exercise(
    task=f"Name the fault of each file ({', '.join(_DEALT)}): one of {', '.join(FAULTS)}, each once.",
    praise="size, place and direction show at a glance; left and right show only because somebody taped a capsule on.",
    prepare=_words,
    rules=(
        (lambda words: len(set(words.values())) < len(FAULTS), "each fault occurs once: you gave one of them twice."),
        *((partial(_misnamed, fault), f"{_FILE[fault]}: {_LOOK[fault]}") for fault in reversed(FAULTS)),
    ),
    reference=lambda: dict(_DEALT),
    mistakes={
        "the same twice": lambda: {**_DEALT, "first": "flipped"},
        "shifted or small": lambda: {**_DEALT, "first": "spacing", "third": "origin"},
        "small or lying": lambda: {**_DEALT, "third": "swapped", "fourth": "spacing"},
        "lying or mirrored": lambda: {**_DEALT, "second": "swapped", "fourth": "flipped"},
        "another word": lambda: {**_DEALT, "first": "noise"},
        "one file only": lambda: {"first": "origin"},
    },
)

# ---------------------------------------------------------------------------------------------- repairing


def _affines(answer: Any) -> dict[str, Affine]:
    affines = {name: np.asarray(each, dtype=float) for name, each in _by_file(answer, "an affine").items()}
    for name, each in affines.items():
        if each.shape != (4, 4) or not np.isfinite(each).all():
            raise ValueError(f"the affine of {name} must be 4 x 4 and finite, received the shape {each.shape}")
    return affines


def _negated(name: str, *entries: tuple[Any, ...]) -> Affine:
    """The file's affine with the sign of some entries or rows changed."""
    affine = _stored(name)
    for entry in entries:
        affine[entry] *= -1
    return affine


_WRONG: dict[str, dict[str, tuple[Callable[[str], Affine], str]]] = {  # fault: mistake: (the affine, its hint)
    "flipped": {
        "one sign only": (
            lambda name: _negated(name, (0, 0)),
            "the direction is right, but the head now stands 20 cm beside the scanner: R = -(3.5 i - 99.75) was stored "
            "for R = 3.5 i - 99.75, so which entries of the first row have the wrong sign?",
        ),
        "as from LPS": (
            lambda name: _negated(name, (0,), (1,)),
            "you changed two rows: that turns the head by half a turn, and it is as much a mirror image as before.",
        ),
        "front and back": (lambda name: _negated(name, (1,)), "you changed the row of A, front and back. Left is R."),
    },
    "swapped": {
        "rows for columns": (
            lambda name: _stored(name)[[1, 0, 2, 3]],
            "you swapped the rows, which are R, A and S: that moves the origin too. The axes of the array are columns.",
        ),
        "rows and columns": (
            lambda name: _stored(name)[[1, 0, 2, 3]][:, [1, 0, 2, 3]],
            "you swapped columns and rows. The rows are R, A and S, and were right: only columns change places.",
        ),
        "other axes": (
            lambda name: _stored(name)[:, [2, 1, 0, 3]],
            "you swapped the axes 0 and 2, but up is up in the picture already. Which two are exchanged?",
        ),
        "turned": (
            lambda name: _stored(name)[:, [1, 0, 2, 3]] @ np.diag([1.0, -1, 1, 1]),
            "you exchanged the axes and turned one around: now the head is a mirror image. A swap changes no sign.",
        ),
    },
    "spacing": {
        "the origin as well": (
            lambda name: np.diag([*SPACING, 1.0]) @ _stored(name),
            "the size is right, but you also multiplied the origin, which was in mm already: scale the columns (from "
            "the right), not the rows.",
        ),
        "the same along each axis": (
            lambda name: _stored(name) @ np.diag([3.5, 3.5, 3.5, 1]),
            "the head is too flat: along axis 2 a voxel is not 3.5 mm. The card has three numbers.",
        ),
        "no origin": (
            lambda name: _with_origin(_RIGHT, np.zeros(3)),
            "the size is right, but now the origin is lost, which the file had: keep its last column.",
        ),
        "the wrong way": (
            lambda name: _stored(name) @ np.diag([1 / 3.5, 1 / 3.5, 1 / 5, 1]),
            "the head became smaller still: an affine goes from voxels to mm, so it multiplies by mm per voxel.",
        ),
    },
    "origin": {
        "the sign": (
            lambda name: _with_origin(_stored(name), np.multiply(SPACING, ORIGIN)),
            "the other way: the voxel of the card must come out at 0 mm, A p + b = 0. So what is b?",
        ),
        "voxels for mm": (
            lambda name: _with_origin(_stored(name), -np.array(ORIGIN)),
            "the sign is right, the unit is not: b is in mm, the card's place in voxels.",
        ),
        "the middle": (
            lambda name: _with_origin(_stored(name), -np.multiply(SPACING, np.subtract(SIZE, 1)) / 2),
            "you put 0 mm into the middle of the array. The card says which voxel it is.",
        ),
    },
}


def _comes_near(name: str, make: Callable[[str], Affine], affines: dict[str, Affine]) -> bool:
    return _near(affines[name], make(name))


def _is_wrong(name: str, affines: dict[str, Affine]) -> bool:
    return not _near(affines[name], _true(name))


def _no_affine(affines: dict[str, Affine]) -> bool:
    return any(not np.allclose(each[3], (0, 0, 0, 1)) for each in affines.values())


def _rules() -> Iterator[tuple[Callable[[dict[str, Affine]], bool], str]]:
    yield _no_affine, "the last row of an affine is 0, 0, 0, 1; it adds b, and must stay."
    for name, fault in _DEALT.items():
        yield partial(_comes_near, name, _stored), f"{name}: this is the file's own affine."
        for make, hint in _WRONG[fault].values():
            yield partial(_comes_near, name, make), f"{name}: {hint}"
        rest = "not yet. Show it with this affine: what is still wrong, size, place, direction or side?"
        yield partial(_is_wrong, name), f"{name}: {rest}"


def _repairs() -> dict[str, Affine]:
    return {name: _true(name).copy() for name in _DEALT}


def _with(name: str, make: Callable[[str], Affine]) -> dict[str, Affine]:
    return {**_repairs(), name: make(name)}


def _known() -> Iterator[tuple[str, Callable[[], Any]]]:
    for fault, known in _WRONG.items():
        for mistake, (make, _) in known.items():
            yield f"{fault}: {mistake}", partial(_with, _FILE[fault], make)


repaired = Exercise(
    task=f"Give an affine, 4 x 4, for each file: {', '.join(_DEALT)}.",
    praise="four heads in one place, and the voxels were never touched: only sixteen numbers say where they are.",
    prepare=_affines,
    rules=tuple(_rules()),
    reference=_repairs,
    mistakes={
        **dict(_known()),
        "nothing done": lambda: {**_repairs(), "first": _stored("first")},
        "something else": lambda: {**_repairs(), "third": np.diag([2.0, 2, 2, 1])},
        "no last row": lambda: {**_repairs(), "second": np.ones((4, 4))},
        "three rows": lambda: {**_repairs(), "second": np.eye(3)},
        "one file only": lambda: {"first": _RIGHT},
    },
)
