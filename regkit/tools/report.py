"""What one registration of two scans is judged by: its numbers, its files, and a page of pictures.

The page shows the scans before and after, the map, its folds and the numbers. It is one HTML file with its pictures
inside; it needs no network, no script and no other file.
"""

from __future__ import annotations

import base64
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regkit import metrics
from regkit.fields import identity, sample
from regkit.figures import paint
from regkit.figures.pixels import DIFFERENCES, Picture, darken, integer_scale, png
from regkit.figures.planes import Cut, Place, cuts
from regkit.images import SIDES, Grid, Scan, move_points, resample, voxel_map, write_image, write_labels
from regkit.images.itk import Deformation, regrid, write_displacement
from regkit.images.transforms import write_affine, write_composite
from regkit.tools.measures import Outcome, quantities
from regkit.tools.register import ScanRegistration, correlation
from regkit.types import MissingPackageError

FILES: tuple[str, ...] = ("warped.nii.gz", "warped_labels.nii.gz", "jacobian.nii.gz", "displacement.nii.gz")
FILES += ("inverse_displacement.nii.gz", "affine.tfm", "composite.h5", "metrics.json", "report.html")
_LPS, _RAS = "mm to the left, to the back and up (LPS)", "mm to the right, to the front and up (RAS)"
MAPS = {
    "displacement.nii.gz": f"from fixed to moving, {_LPS}: p + d(p) is where moving is read; warps moving onto fixed",
    "inverse_displacement.nii.gz": f"from moving to fixed, {_LPS}: warps fixed onto moving",
    "affine.tfm": f"from fixed to moving, {_LPS}: the affine stage alone",
    "composite.h5": f"from fixed to moving, {_LPS}: affine.tfm after the rest of displacement.nii.gz",
    "affine_matrix_mm": f"from fixed to moving, {_RAS}: the affine stage, where regkit sees the files",
}
UNITS = {
    "correlation": "none, from -1 to 1",
    "dice": "none, from 0 to 1",
    "folds_percent": "% of fixed's voxels",
    "jacobian": "volume in moving for one in fixed; log is natural",
    "inverse_consistency_voxels": "voxels of the grid",
    "spacing_mm": "mm",
    "seconds": "s",
    "peak_memory_mb": "MB",
}
_LONGEST = 120  # voxels along the longest axis of what is drawn
_TARGET = 256  # pixels along the longer side of a picture
_DIFFERENCE = 0.5
_NAMES = ("Sagittal", "Coronal", "Axial")

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1400px; margin: 2rem auto;
  padding: 0 1rem }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem }}
.row {{ display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start }}
figure {{ margin: 0 0 .6rem; width: min-content }}
figcaption {{ font-size: .85rem; color: #444 }} img {{ display: block }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ padding: .15rem .9rem .15rem 0; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }} .tables {{ display: flex; flex-wrap: wrap;
  align-items: flex-start; gap: 3rem }} h2 small {{ font-weight: normal; color: #444 }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


# ---------------------------------------------------------------------------------------------- numbers and files
def numbers(result: ScanRegistration, labels: Sequence[Scan] = ()) -> dict[str, Any]:
    """What is measured of a registration of two scans, as metrics.json keeps it. labels: of moving and fixed, or none.

    correlation: on the grid of the registration, inside both fields of view, before all, after the affine stage and
    after all; it was made large (see similarity), so that it cannot tell whether anatomy lies on anatomy. Folds and
    |J|: of the whole map on fixed's own grid.
    """
    found, here = result.found, result.here
    likeness = {
        "before": correlation(resample(result.units[0], here), here),
        "affine": correlation(result.near, here),
        "after": correlation(result.near, here, found.displacement),
    }
    whole = quantities(Outcome(result.there.displacement), ("folds_percent", "jacobian_std_log", "jacobian_minimum"))
    consistency = quantities(Outcome(found.displacement, found.inverse), ["inverse_consistency"])
    measured = {
        "correlation": likeness,
        "similarity": result.likeness.words,
        **whole,
        "inverse_consistency_voxels": consistency["inverse_consistency"],
        "grid": list(result.here.grid.space),
        "spacing_mm": list(result.here.spacing),
        "seconds": result.usage.seconds,
        "peak_memory_mb": result.usage.memory,
        "affine_matrix_mm": result.through.tolist(),
    }
    return measured | ({"dice": _dice(result, *labels)} if labels else {})


def _dice(result: ScanRegistration, moving: Scan, fixed: Scan) -> dict[str, Any]:
    """Dice of each label on fixed's own grid, before, after the affine stage and after all."""
    truth = resample(fixed, result.fixed.original).tensor
    warped = {
        "before": resample(moving, result.fixed.original),
        "affine": result.warp(moving, affine_only=True),
        "after": result.warp(moving),
    }
    scores = {name: metrics.dice(scan.tensor, truth) for name, scan in warped.items()}
    means = {name: fmean(score.values()) for name, score in scores.items()}
    return {"mean": means} | {
        str(label): {name: scores[name].get(label) for name in scores} for label in scores["after"]
    }


def write(
    folder: Path,
    result: ScanRegistration,
    labels: Sequence[Scan],
    numbers: dict[str, Any],
    *,
    also: Mapping[str, Scan] | None = None,
    composite: bool = True,
) -> None:
    """All files of a registration; see `python -m regkit register`.

    numbers: those of `numbers`, and what was asked. also: other scans of moving's space, by the names of their files.
    composite: with composite.h5, which SimpleITK writes.
    """
    determinant, moving, fixed = result.jacobian(), result.moving.original, result.fixed.original
    write_image(folder / "warped.nii.gz", result.warp(result.moving))
    write_image(folder / "jacobian.nii.gz", determinant)
    write_displacement(folder / "displacement.nii.gz", result.there, moving)
    write_displacement(folder / "inverse_displacement.nii.gz", result.back, fixed)
    write_affine(folder / "affine.tfm", result.through, fixed, moving)
    if composite:
        try:
            write_composite(folder / "composite.h5", result.there, moving, result.through)
        except MissingPackageError as error:
            warnings.warn(f"composite.h5 is left out: SimpleITK writes it; {error.remedy}.", stacklevel=2)
    if labels:
        write_labels(folder / "warped_labels.nii.gz", result.warp(labels[0]))
    for name, scan in (also or {}).items():
        (write_labels if scan.is_labels else write_image)(folder / name, result.warp(scan))
    title = f"{numbers['moving']} onto {numbers['fixed']}"
    text = page(result, determinant, _listed(numbers), _dice_rows(numbers.get("dice", {})), title=title)
    (folder / "report.html").write_text(text, encoding="utf-8")
    files = sorted({"metrics.json", *(path.name for path in folder.iterdir() if path.name[0] != ".")})
    numbers = _finite(numbers) | {"units": UNITS, "maps": MAPS, "files": files}
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def read_numbers(folder: Path) -> dict[str, Any]:
    """metrics.json of a folder; nothing where there is none, or no whole one."""
    try:
        numbers = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return numbers if isinstance(numbers, dict) else {}


def owned(folder: Path) -> set[str]:
    """All that a run may write into a folder, and what the one before wrote."""
    return {*FILES, *(Path(name).name for name in read_numbers(folder).get("files", ()))}


def is_result_of(folder: Path, run: Mapping[str, Any]) -> bool:
    """Whether a folder holds, whole, what a run with this provenance would write."""
    found = read_numbers(folder)
    whole = bool(found) and all((folder / name).exists() for name in found.get("files", ["-"]))
    return whole and all(found.get("run", {}).get(name) == run[name] for name in ("regkit", "options", "inputs"))


def _finite(value: Any) -> Any:
    """The value with NaN as None, which JSON has."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _listed(numbers: dict[str, Any]) -> dict[str, str]:
    """The numbers as the page tells them."""
    correlation = numbers["correlation"]
    refined = f", {numbers['refine_steps']} steps of refinement" if numbers["refine_steps"] else ""
    return {
        "method": numbers["method"] + refined + (", after an affine stage" if numbers["affine"] else ""),
        "registered on": on_what(numbers),
        "compared by": numbers["similarity"],
        "correlation before, after the affine stage, after (of what was optimised: no proof of success)": ", ".join(
            f"{value:.3f}" for value in correlation.values()
        ),
        "folded voxels": _percent(numbers["folds_percent"]),
        "standard deviation of log |J|": f"{numbers['jacobian_std_log']:.3f}",
        "least |J|": f"{numbers['jacobian_minimum']:.3f}",
        "inverse consistency": f"{numbers['inverse_consistency_voxels']:.3f} voxels",
        "time of the method": f"{numbers['seconds']:.1f} s",
        "peak memory": f"{numbers['peak_memory_mb']:.0f} MB",
    }


def _percent(percent: float) -> str:
    """A share in which nothing and very little are two things."""
    return "below 0.0001 %" if 0 < percent < 1e-4 else f"{percent:.4f} %" if percent else "0 %"


def _dice_rows(dice: dict[str, Any]) -> list[tuple[str, ...]]:
    head = ("Dice of label", "before", "affine", "after")
    rows = [
        (label, *("-" if value is None else f"{value:.3f}" for value in each.values())) for label, each in dice.items()
    ]
    return [head, *rows] if rows else []


def on_what(numbers: Mapping[str, Any]) -> str:
    """The voxels that were worked on."""
    spacing = " x ".join(f"{step:.3g}" for step in numbers["spacing_mm"])
    return f"{' x '.join(map(str, numbers['grid']))} voxels of {spacing} mm"


def in_words(numbers: Mapping[str, Any]) -> str:
    """The most important of `numbers`, in a line."""
    correlation = numbers["correlation"]
    words = f"correlation {correlation['before']:.3f} -> {correlation['after']:.3f}"
    if "dice" in numbers:
        mean = numbers["dice"]["mean"]
        words = f"Dice {mean['before']:.3f} -> {mean['after']:.3f}, {words}"
    return f"{words}, folds {_percent(numbers['folds_percent'])}"


# ---------------------------------------------------------------------------------------------- the page
@dataclass(frozen=True, eq=False)
class _Drawn:
    """Everything that is drawn, on one grid of even voxels: (*space), and the field (dim, *space) in its voxels."""

    fixed: NDArray[Any]
    before: NDArray[Any]
    near: NDArray[Any]
    warped: NDArray[Any]
    field: NDArray[Any]
    determinant: NDArray[Any]


def page(
    result: ScanRegistration,
    determinant: Scan,
    numbers: Mapping[str, str],
    dice: Sequence[tuple[str, ...]] = (),
    *,
    title: str = "Registration",
) -> str:
    """The page as HTML.

    determinant: `result.jacobian()`. numbers: what is listed, by name. dice: the rows of a table, its head first.
    """
    drawn = _draw(result, determinant)
    centre = _centre(drawn.fixed)
    body = [f'<div class="tables">{_table([], list(numbers.items()))}{_table(dice[:1], dice[1:])}</div>']
    families = cuts(drawn.fixed.ndim, upright=True)
    for cut in families:
        body += [_heading(cut, result.here.grid), _row(_maps(drawn, cut, centre)), _row(_matches(drawn, cut, centre))]
    if (drawn.determinant <= 0).any():
        place = tuple(int(i) for i in np.unravel_index(np.argmin(drawn.determinant), drawn.determinant.shape))
        worst = _row(_maps(drawn, families[0], place))
        body += [_heading(families[0], result.here.grid, ", through the worst fold"), worst]
    body += ["<h2>Keys</h2>", _row(_keys())]
    return _PAGE.format(title=escape(title), body="\n".join(body))


def _draw(result: ScanRegistration, determinant: Scan) -> _Drawn:
    grid = _even(result.units[1].grid)
    moving, fixed = result.units
    local = regrid(Deformation(result.found.displacement, result.here.grid), grid)
    whole = regrid(result.there, grid)
    images = {
        "fixed": resample(fixed, grid),
        "before": resample(moving, grid),
        "near": resample(moving, grid, through=result.through),
        "warped": resample(moving, grid, displacement=whole.displacement),
    }
    values = {name: scan.tensor[0, 0].numpy() for name, scan in images.items()}
    return _Drawn(field=local.displacement[0].numpy(), determinant=_with_folds(determinant, grid), **values)


def _with_folds(determinant: Scan, grid: Grid) -> NDArray[Any]:
    """|J| on a grid by the nearest voxel; one in which the map folds anywhere shows it."""
    places = move_points(identity(grid.space), voxel_map(grid, determinant.grid))
    values = sample(determinant.tensor, places, mode="nearest")[0, 0].numpy().copy()
    folds = (determinant.tensor[0, 0] <= 0).nonzero()
    if len(folds):
        matrix = voxel_map(determinant.grid, grid)
        found = np.rint(folds.numpy() @ matrix[:, :-1].T + matrix[:, -1]).astype(int)
        index = tuple(np.clip(found, 0, np.array(grid.space) - 1).T)
        np.minimum.at(values, index, determinant.tensor[0, 0][folds.unbind(1)].numpy())
    return values


def _even(grid: Grid) -> Grid:
    """The same extent with voxels of one size, at most `_LONGEST` along an axis."""
    longest = max(size * step for size, step in zip(grid.space, grid.spacing, strict=True))
    return grid.with_spacing(max(longest / _LONGEST, min(grid.spacing)))


def _centre(image: NDArray[Any]) -> Place:
    """The voxel at the centre of mass."""
    total = max(float(image.sum()), 1e-12)
    axes: Any = np.indices(image.shape, sparse=True)
    return tuple(round(float((axis * image).sum() / total)) for axis in axes)


def _heading(cut: Cut, grid: Grid, more: str = "") -> str:
    first, second = grid.axes[cut.first], grid.axes[cut.second]
    (across,) = {0, 1, 2} - {first, second}
    (left, right), (_, top) = SIDES[first], SIDES[second]
    sides = f"{left} on the left, {right} on the right, {top} on top"
    return f"<h2>{_NAMES[across]} plane{more} <small>({sides})</small></h2>"


def _maps(drawn: _Drawn, cut: Cut, place: Place) -> Iterator[tuple[str, Picture]]:
    """The images and the map in one plane, with captions."""
    images = {"fixed": drawn.fixed, "moving, as the headers place it": drawn.before, "moving, warped": drawn.warped}
    scale = integer_scale(cut.plane(drawn.fixed, place).shape, _TARGET)
    for words, image in images.items():
        yield words, paint.render_image(cut.plane(image, place), scale=scale)
    field, determinant = cut.field(drawn.field, place), cut.plane(drawn.determinant, place)
    below = darken(paint.render_image(cut.plane(drawn.near, place), scale=scale), 0.6)
    every = max(2, max(determinant.shape) // 24)
    yield "the map: where each line of fixed reads moving", paint.render_grid(below, field, every=every)
    folds = int((determinant <= 0).sum())
    yield f"|J|, volume change; {folds} folded voxels here", paint.render_jacobian(determinant, scale=scale)


def _matches(drawn: _Drawn, cut: Cut, place: Place) -> Iterator[tuple[str, Picture]]:
    """How well the images match in one plane, before and after, with captions."""
    fixed, before, warped = (cut.plane(image, place) for image in (drawn.fixed, drawn.before, drawn.warped))
    scale = integer_scale(fixed.shape, _TARGET)
    yield "before: fixed and moving in turn", paint.render_checkerboard(fixed, before, scale=scale)
    yield "after: fixed and warped in turn", paint.render_checkerboard(fixed, warped, scale=scale)
    for words, image in (("before: moving - fixed", before), ("after: warped - fixed", warped)):
        error = float(np.abs(image - fixed).mean())
        picture = paint.render_difference(image, fixed, limit=_DIFFERENCE, scale=scale)
        yield f"{words}, mean absolute {error:.3f}", picture


def _keys() -> Iterator[tuple[str, Picture]]:
    yield "difference of intensity", paint.render_bar(DIFFERENCES, (-_DIFFERENCE, _DIFFERENCE), width=_TARGET)
    words = "|J|: how much of moving goes into one of fixed; above 1 it shrinks, below 1 it grows, folds at or below 0"
    yield words, paint.render_jacobian_bar(width=_TARGET)


# ---------------------------------------------------------------------------------------------- HTML
def _row(shown: Iterable[tuple[str, Picture]]) -> str:
    """Pictures side by side."""
    figures = "".join(
        f'<figure><img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(png(picture)).decode()}">'
        f"<figcaption>{escape(words)}</figcaption></figure>"
        for words, picture in shown
    )
    return f'<div class="row">{figures}</div>'


def _table(head: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [_cells("th", row) for row in head] + [_cells("td", row) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _cells(kind: str, row: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row) + "</tr>"


def framed(text: str, *, height: int = 640) -> str:
    """A page within a page, as a notebook shows it: HTML that scrolls by itself. height: pixels."""
    style = f"width: 100%; height: {height}px; border: 1px solid #ccc"
    return f'<div><iframe title="report" style="{style}" srcdoc="{escape(text)}"></iframe></div>'
