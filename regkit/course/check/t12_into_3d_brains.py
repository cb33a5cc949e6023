"""The exercises of tutorial 12: four files of one head, each with a fault in its affine, to be named and repaired."""

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regkit.course.check.exercise import Exercise, Hint, Mistake, Words, entries
from regkit.data.brains import BrainPairs
from regkit.images import Affine, Grid, Scan, resample, write_image

__all__ = ["faults", "faulty_files", "repaired", "trusted_scan"]

FAULTS = ("flipped", "swapped", "spacing", "origin")
_DEALT = {"first": "origin", "second": "flipped", "third": "spacing", "fourth": "swapped"}
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
_words = Words(_DEALT, FAULTS, "a word for ")


def _misnamed(name: str, **mistake: str) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
    """To give a file another fault than its own, as it is done with these words: for `Hint.to`."""
    return lambda: {**_DEALT, **mistake}, lambda words: words[name] != _DEALT[name]


faults = Exercise(
    task=f"Name the fault of each file ({', '.join(_DEALT)}): one of {', '.join(FAULTS)}, each once.",
    praise="size, place and direction show at a glance; left and right show only because somebody taped a capsule on.",
    prepare=_words.prepare,
    reference=_words.reference,
    mistakes={
        "the same twice": Hint("each fault occurs once: you gave one of them twice.").to(
            lambda: {**_DEALT, "first": "flipped"}, lambda words: len(set(words.values())) < len(FAULTS)
        ),
        "shifted or small": Hint(
            "first: this head has the right size, stands upright, and has its capsule at the right. What is left?"
        ).to(*_misnamed("first", first="spacing", third="origin")),
        "small or lying": Hint(
            "third: compare the length of this head with the trusted one; which entries of an affine set that?"
        ).to(*_misnamed("third", third="swapped", fourth="spacing")),
        "lying or mirrored": Hint(
            "fourth: in the plane across axis 2, where does the front of the brain point? No shift does that."
        ).to(*_misnamed("fourth", second="swapped", fourth="flipped")),
        "another word": lambda: {**_DEALT, "first": "noise"},
        "one file only": lambda: {"first": "origin"},
    },
)


# ---------------------------------------------------------------------------------------------- repairing
def _affines(answer: Any) -> dict[str, Affine]:
    affines = {name: np.asarray(each, dtype=float) for name, each in entries(_DEALT, answer, "an affine for ").items()}
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


def _repairs() -> dict[str, Affine]:
    return {name: _true(name).copy() for name in _DEALT}


def _of_file(name: str, make: Callable[[str], Affine], hint: str) -> Mistake:
    """The mistake to give a file this affine."""
    return Hint(f"{name}: {hint}").to(
        lambda: {**_repairs(), name: make(name)}, lambda affines: _near(affines[name], make(name))
    )


def _known() -> Iterator[tuple[str, Mistake]]:
    for name, fault in _DEALT.items():
        yield f"{fault}: nothing done", _of_file(name, _stored, "this is the file's own affine.")
        for mistake, (make, hint) in _WRONG[fault].items():
            yield f"{fault}: {mistake}", _of_file(name, make, hint)
        yield f"{fault}: something else", _something_else(name)


def _something_else(name: str) -> Mistake:
    return Hint(f"{name}: not yet. Show it with this affine: what is still wrong, size, place, direction or side?").to(
        lambda: {**_repairs(), name: np.diag([2.0, 2, 2, 1])}, lambda affines: not _near(affines[name], _true(name))
    )


repaired = Exercise(
    task=f"Give an affine, 4 x 4, for each file: {', '.join(_DEALT)}.",
    praise="four heads in one place, and the voxels were never touched: only sixteen numbers say where they are.",
    prepare=_affines,
    reference=_repairs,
    mistakes={
        "no last row": Hint("the last row of an affine is 0, 0, 0, 1; it adds b, and must stay.").to(
            lambda: {**_repairs(), "second": np.ones((4, 4))},
            lambda affines: any(not np.allclose(each[3], (0, 0, 0, 1)) for each in affines.values()),
        ),
        **dict(_known()),
        "three rows": lambda: {**_repairs(), "second": np.eye(3)},
        "one file only": lambda: {"first": _RIGHT},
    },
)
