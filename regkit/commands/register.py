"""``python -m regkit register moving.nii.gz fixed.nii.gz``: two scans, or slices, from files to files.

Into the folder go:

    warped.nii.gz                 moving on fixed's grid; warped_labels.nii.gz with --labels
    displacement.nii.gz           on fixed's grid: warps moving onto fixed; affine stage included; for ITK and ANTs
    inverse_displacement.nii.gz   on moving's grid: warps fixed onto moving
    jacobian.nii.gz               |J| of the displacement: volume change; folds at or below 0
    report.html                   pictures to judge it by
    metrics.json                  all numbers

All of them, or none if anything fails.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from regkit import losses, metrics
from regkit._core.files import whole_folder
from regkit.commands import add_device, plainly
from regkit.fields import warp
from regkit.images import Scan, normalise, read_image, read_labels, resample, volumes, write_image, write_labels
from regkit.images.itk import check_grid, write_displacement
from regkit.tools.methods import METHODS, Method, load_method, make_method, measured, with_refinement
from regkit.tools.register import ScanRegistration, check_label_grids, register_scans
from regkit.tools.report import page
from regkit.types import InputError

_ABSENT = "-"


def add_register(commands: Any) -> None:
    """`register`: two scans, from files to files."""
    parser = commands.add_parser(
        "register",
        help="register two scans (NIfTI): warped image, displacement fields for ITK and ANTs, report, metrics",
        description="Register moving onto fixed. Volumes or slices, any orientation and spacing.",
    )
    parser.add_argument("moving", type=Path, help="the scan to be warped, .nii or .nii.gz")
    parser.add_argument("fixed", type=Path, help="the scan that it is laid on")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    add_method(parser)
    parser.add_argument("--labels", type=Path, nargs=2, metavar=("MOVING", "FIXED"), help="labels of the two scans")
    parser.add_argument("--affine", action="store_true", help="find an affine map first")
    parser.add_argument("--spacing", type=float, metavar="MM", help="of the voxels to work on (fixed's own)")
    parser.add_argument("--volume", type=int, metavar="N", help="which volume, from 0, of each file with several")
    parser.set_defaults(run=plainly(run))


def add_method(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose one method."""
    parser.add_argument("--method", choices=METHODS, help="optimise needs no weights and is the default without any")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of a network, as regkit.save writes them")
    parser.add_argument("--refine", type=int, default=0, metavar="N", help="then N steps on the field, for this pair")
    parser.add_argument("--refine-weights", type=int, default=0, metavar="N", help="first N steps on a copy's weights")
    add_device(parser, " for the network")


def chosen_method(chosen: argparse.Namespace, dim: int) -> Method:
    """The method that the arguments choose; its weights refined where they say so."""
    if chosen.method is None and chosen.weights is not None:
        method = load_method(chosen.weights, dim)
    else:
        method = make_method(chosen.method or "optimise", dim, weights=chosen.weights)
    if chosen.refine < 0 or chosen.refine_weights < 0:
        raise InputError(
            "steps must be 0 or more",
            f"--refine {chosen.refine} and --refine-weights {chosen.refine_weights}",
            "20 are usual",
        )
    return with_refinement(method, chosen.refine_weights, weights=True) if chosen.refine_weights else method


def run(chosen: argparse.Namespace) -> int:
    """Read, register, write."""
    with whole_folder(chosen.out) as folder, measured() as usage:
        moving, fixed = _read((chosen.moving, chosen.fixed), chosen.volume)
        labels = [read_labels(path) for path in chosen.labels or ()]
        check_label_grids(labels, (moving, fixed))
        check_grid(moving.original)
        check_grid(fixed.original)
        method = chosen_method(chosen, len(fixed.grid.space))
        result = register_scans(
            moving,
            fixed,
            method,
            affine=chosen.affine,
            refine=chosen.refine,
            spacing=chosen.spacing,
            device=chosen.device,
        )
        numbers = _numbers(result)
        if labels:
            numbers["dice"] = _dice(result, labels[0], labels[1])
        facts = {"method": method.name, "refine_steps": chosen.refine, "affine": chosen.affine}
        facts |= {"moving": chosen.moving.name, "fixed": chosen.fixed.name}
        _write(folder, result, labels, facts | numbers)
    print(f"{chosen.moving.name} -> {chosen.fixed.name}, {method.name}: {_in_words(numbers)}")
    print(f"{usage.seconds:.1f} s in all; results in {chosen.out}, look at {chosen.out / 'report.html'}")
    return 0


def _read(paths: Sequence[Path], volume: int | None) -> list[Scan]:
    """Moving and fixed; `volume` is that of each file with several, where there is one."""
    several = [volume is not None and volumes(path) > 1 for path in paths]
    chosen = [volume if many or not any(several) else None for many in several]
    return [read_image(path, volume=number) for path, number in zip(paths, chosen, strict=True)]


def _numbers(result: ScanRegistration) -> dict[str, Any]:
    """What is measured without labels."""
    found, here = result.found, result.here.tensor
    header = resample(normalise(result.moving), result.here).tensor
    statistics = metrics.jacobian_statistics(result.there.displacement)
    images = {"before": header, "affine": result.near.tensor, "after": warp(result.near.tensor, found.displacement)}
    inverse = found.inverse if found.inverse is not None else found.displacement
    return {
        "correlation": {name: 1 - float(losses.ncc(image, here)) for name, image in images.items()},
        "folds_percent": statistics.folds_percent,
        "jacobian_std_log": statistics.std_log,
        "jacobian_minimum": statistics.minimum,
        "inverse_consistency_voxels": metrics.inverse_consistency(found.displacement, inverse),
        "grid": list(result.here.grid.space),
        "spacing_mm": list(result.here.spacing),
        "seconds": result.usage.seconds,
        "peak_memory_mb": result.usage.memory,
        "affine_matrix_mm": result.through.tolist(),
    }


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


def _write(folder: Path, result: ScanRegistration, labels: list[Scan], numbers: dict[str, Any]) -> None:
    determinant = result.jacobian()
    write_image(folder / "warped.nii.gz", result.warp(result.moving))
    write_image(folder / "jacobian.nii.gz", determinant)
    write_displacement(folder / "displacement.nii.gz", result.there)
    write_displacement(folder / "inverse_displacement.nii.gz", result.back)
    if labels:
        write_labels(folder / "warped_labels.nii.gz", result.warp(labels[0]))
    (folder / "metrics.json").write_text(json.dumps(_finite(numbers), indent=1) + "\n", encoding="utf-8")
    title = f"{numbers['moving']} onto {numbers['fixed']}"
    text = page(result, determinant, _listed(numbers), _dice_rows(numbers.get("dice", {})), title=title)
    (folder / "report.html").write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    """The value with NaN as None, which JSON has."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _listed(numbers: dict[str, Any]) -> dict[str, str]:
    """The numbers as the page tells them."""
    correlation, size = numbers["correlation"], " x ".join(map(str, numbers["grid"]))
    spacing = " x ".join(f"{step:.3g}" for step in numbers["spacing_mm"])
    refined = f", {numbers['refine_steps']} steps of refinement" if numbers["refine_steps"] else ""
    return {
        "method": numbers["method"] + refined + (", after an affine stage" if numbers["affine"] else ""),
        "registered on": f"{size} voxels of {spacing} mm",
        "correlation before, after the affine stage, after": ", ".join(
            f"{value:.3f}" for value in correlation.values()
        ),
        "folded voxels": _share(numbers["folds_percent"]),
        "standard deviation of log |J|": f"{numbers['jacobian_std_log']:.3f}",
        "least |J|": f"{numbers['jacobian_minimum']:.3f}",
        "inverse consistency": f"{numbers['inverse_consistency_voxels']:.3f} voxels",
        "time of the method": f"{numbers['seconds']:.1f} s",
        "peak memory": f"{numbers['peak_memory_mb']:.0f} MB",
    }


def _share(percent: float) -> str:
    """A share in which nothing and very little are two things."""
    return "below 0.0001 %" if 0 < percent < 1e-4 else f"{percent:.4f} %" if percent else "0 %"


def _dice_rows(dice: dict[str, Any]) -> list[tuple[str, ...]]:
    head = ("Dice of label", "before", "affine", "after")
    rows = [
        (label, *(_ABSENT if value is None else f"{value:.3f}" for value in each.values()))
        for label, each in dice.items()
    ]
    return [head, *rows] if rows else []


def _in_words(numbers: dict[str, Any]) -> str:
    correlation = numbers["correlation"]
    words = f"correlation {correlation['before']:.3f} -> {correlation['after']:.3f}"
    if "dice" in numbers:
        mean = numbers["dice"]["mean"]
        words = f"Dice {mean['before']:.3f} -> {mean['after']:.3f}, {words}"
    return f"{words}, folds {_share(numbers['folds_percent'])}"
