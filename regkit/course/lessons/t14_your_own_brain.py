"""The intake doctor: a scan's three planes with the letters of the body, and beside them what its file is found to be.

The findings are those of tools/examine.py; a file that cannot be read has no planes, and its findings say why.
"""

import functools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regkit.figures import paint
from regkit.figures.pixels import NIGHT, PAPER, POINT, Colour, Picture, blank, integer_scale, stack
from regkit.figures.planes import Cut, cuts
from regkit.images import SIDES, Scan, resample
from regkit.tools.examine import SHADES, Finding, Intake, Severity, examine
from regkit.types import InputError
from regkit.widgets import Choice, Control, Scene, Slider, State, Toggle, View

_LONGEST = 90  # voxels along the longest axis of what is drawn
_SIDE, _MARGIN = 214, 17  # pixels: of a plane's square, and of its letters
_WIDE, _LETTERS, _LINE = 470, 68, 16  # of the list: pixels, letters in a line, pixels of a line
_BELOW = 3  # pixels: for what hangs below a line
_GREY: Colour = (95, 95, 95)
_AXES = ("to the right", "to the front", "up")
_NAMES = ("sagittal", "coronal", "axial")


def doctor(files: Mapping[str, Path | str], other: Path | str | None = None) -> View:
    """Examine files and look at them: traffic lights, what to do, three planes with the letters of the body.

    files: by the names that are to be shown. other: the scan that each is to be registered with, if there is one. Bad
    files are what it is for: it never raises for one. Each image is shown over its own range, from its lowest value to
    that which 99.5 % do not exceed, in voxels of one size.

    Raises:
        ValueError: no file.
    """
    if not files:
        raise InputError("an intake needs a file", "none", "give paths by name, such as {'moving': path}")
    intakes = {name: examine(path, other) for name, path in files.items()}
    images = {name: even_voxels(intake.scan) for name, intake in intakes.items()}
    lists = {name: _lights(intake) for name, intake in intakes.items()}

    def patient(state: State) -> str:
        return state.get("patient", next(iter(intakes)))

    def hidden(state: State) -> set[str]:
        image = images[patient(state)]
        return set() if image is not None and image.ndim == 3 else {f"axis_{axis}" for axis in range(3)}

    def render(state: State) -> Picture:
        image, findings = images[patient(state)], lists[patient(state)]
        picture = _no_picture() if image is None else draw_planes(image, state)
        return stack(picture, findings if state["revealed"] else np.full_like(findings, 255), axis=1, gap=16)

    def describe(state: State) -> str:
        intake = intakes[patient(state)]
        if not state["revealed"]:
            return f"{patient(state)}: what is wrong, if anything? Look, then show the findings."
        bad = [finding for finding in intake.findings if finding.severity != "green"]
        if not bad:
            return f"{intake.name}: all is well ({len(intake.findings)} rules)."
        words = (f"{each.severity.upper()}, {each.rule}: {each.found}. What to do: {each.advice}." for each in bad)
        return f"{intake.name}: {' '.join(words)}"

    controls: dict[str, Control] = {"patient": Choice("patient", list(intakes))} if len(intakes) > 1 else {}
    controls["revealed"] = Toggle("show findings", True)
    controls |= {f"axis_{axis}": Slider(f"{words} (%)", 50, 0, 100) for axis, words in enumerate(_AXES)}
    return View(Scene(controls, render, describe, hidden))


# ---------------------------------------------------------------------------------------------- planes
def even_voxels(scan: Scan | None) -> NDArray[np.float32] | None:
    """Intensities from 0 to 1 on voxels of one size, few enough to be drawn quickly."""
    if scan is None:
        return None
    scan = scan.with_tensor(scan.tensor.float())
    longest = max(count * size for count, size in zip(scan.grid.space, scan.spacing, strict=True))
    values = resample(scan, scan.grid.with_spacing(max(longest / _LONGEST, min(scan.spacing)))).tensor[0, 0].numpy()
    low, high = np.percentile(values, (0, 99.5))
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def _no_picture() -> Picture:
    sheet = blank((2 * _SIDE, 2 * _SIDE), 1, NIGHT)
    return paint.write(sheet, [(_SIDE, _SIDE, "mm", "there is no picture of this file")], PAPER)


def draw_planes(values: NDArray[np.float32], state: State) -> Picture:
    """Sagittal and coronal above, axial below, each with its letters; of a slice the one that there is."""
    exact = [state[f"axis_{axis}"] / 100 * (size - 1) for axis, size in enumerate(values.shape)]
    scale = integer_scale(sorted(values.shape), _SIDE - 2 * _MARGIN)
    squares = [_square(values, cut, exact, scale) for cut in cuts(values.ndim, upright=True)]
    rows = [stack(*squares[start : start + 2], axis=1) for start in range(0, len(squares), 2)]
    return stack(*rows)


def _square(values: NDArray[np.float32], cut: Cut, exact: Sequence[float], scale: int) -> Picture:
    """A plane on a dark square, its name, and the letters at its four ends; yellow lines where the others cut it."""
    picture = paint.render_image(cut.plane(values, tuple(map(round, exact))), scale=scale)
    height, width = picture.shape[:2]
    if cut.across:
        row, column = height - (exact[cut.second] + 0.5) * scale, (exact[cut.first] + 0.5) * scale
        lines = [np.array([(row, 0), (row, width)]), np.array([(0, column), (height, column)])]
        picture = paint.draw_lines(picture, lines, 0.7, POINT)
    sheet, top, left = blank((_SIDE, _SIDE), 1, NIGHT), (_SIDE - height) // 2, (_SIDE - width) // 2
    sheet[top : top + height, left : left + width] = picture
    middle = _SIDE / 2
    (first, last), (low, high) = SIDES[cut.first], SIDES[cut.second]
    letters = [
        (middle, 5, "lm", first),
        (middle, _SIDE - 5, "rm", last),
        (2, middle, "ma", high),
        (_SIDE - 4, middle, "md", low),
    ]
    name = _NAMES[cut.across[0]] if cut.across else "the slice"
    return paint.write(sheet, [*letters, (4, 6, "la", name)], PAPER)


# ---------------------------------------------------------------------------------------------- traffic lights
def _lights(intake: Intake) -> Picture:
    """The list of findings, each with its light."""
    rows = [_light(finding) for finding in intake.findings]
    head = paint.write(blank((26, _WIDE), 1, PAPER), [(4, 0, "la", intake.name)])
    return stack(head, *rows, gap=1)


def _light(finding: Finding) -> Picture:
    """One finding: its light, its rule, and what was found."""
    lines = textwrap.wrap(finding.found, _LETTERS) or [""]
    row = blank((_LINE * (1 + len(lines)) + _BELOW, _WIDE), 1, PAPER)
    row[:, :22] = _lamp(finding.severity, len(row))
    row = paint.write(row, [(1, 30, "la", finding.rule)])
    return paint.write(row, [(1 + _LINE * number, 30, "la", line) for number, line in enumerate(lines, 1)], _GREY)


@functools.cache
def _lamp(severity: Severity, height: int) -> Picture:
    """A disc in the light's colour with its sign: a tick, an exclamation mark, a cross."""
    shade = SHADES[severity][0]
    sheet = blank((height, 22), 1, PAPER)
    rows, columns = np.indices(sheet.shape[:2])
    sheet[np.hypot(rows - 10, columns - 10) < 9.5] = tuple(bytes.fromhex(shade[1:]))
    signs = {
        "green": [np.array([(10, 5), (14, 9), (6, 15)])],
        "amber": [np.array([(4, 10), (11, 10)]), np.array([(14, 10), (16, 10)])],
        "red": [np.array([(6, 6), (14, 14)]), np.array([(14, 6), (6, 14)])],
    }
    return paint.draw_lines(sheet, signs[severity], 2, PAPER)
