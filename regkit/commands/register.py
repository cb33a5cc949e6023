"""``python -m regkit register moving.nii.gz fixed.nii.gz``: two scans, or slices, from files to files.

Into the folder go:

    warped.nii.gz                 moving on fixed's grid; warped_labels.nii.gz with --labels
    displacement.nii.gz           on fixed's grid: warps moving onto fixed; affine stage included; for ITK and ANTs
    inverse_displacement.nii.gz   on moving's grid: warps fixed onto moving
    jacobian.nii.gz               |J| of the displacement: volume change; folds at or below 0
    report.html                   pictures to judge it by
    metrics.json                  all numbers

All of them, or none if anything fails; of an earlier run in that folder no file stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regkit.commands import COMMANDS, METHODS, add_device, refuse

if TYPE_CHECKING:
    from regkit.images import Scan
    from regkit.tools.methods import Method


_METHOD = "optimise, the default without weights, moves a field for this pair, from nothing, at three scales"


def add_register(commands: Any) -> None:
    """`register`: two scans, from files to files."""
    parser = commands.add_parser(
        "register",
        help=COMMANDS["register"],
        description="Register moving onto fixed. Volumes or slices, any orientation and spacing.",
    )
    parser.add_argument("moving", type=Path, help="the scan to be warped, .nii or .nii.gz")
    parser.add_argument("fixed", type=Path, help="the scan that it is laid on")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    add_method(parser)
    parser.add_argument("--labels", type=Path, nargs=2, metavar=("MOVING", "FIXED"), help="labels of the two scans")
    parser.add_argument("--affine", action="store_true", help="find an affine map first")
    parser.add_argument("--spacing", type=float, metavar="MM", help="of the voxels to work on")
    words = "without --spacing: voxels to make a field on, in a box around both contents (1000000); fewer are coarser"
    parser.add_argument("--budget", type=int, metavar="N", help=words)
    words = "what the two are compared by; auto (default) looks whether their contrasts are alike"
    parser.add_argument("--similarity", choices=("auto", "lncc", "ncc", "mse", "mi", "mind"), help=words)
    words = "the intensities of both scans that become 0 and 1, such as -160 240 of CT; found by default"
    parser.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help=words)
    for name in ("moving", "fixed"):
        words = f"on the {name} scan; where it is 0 nothing is compared (NaN and padding are found)"
        parser.add_argument(f"--{name}-mask", type=Path, metavar="FILE", help=words)
    parser.add_argument("--volume", type=int, metavar="N", help="which volume, from 0, of each file with several")
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("image", "labels"),
        help="what both scans are, where regkit takes them for another",
    )
    parser.set_defaults(run=run)


def add_method(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose one method."""
    parser.add_argument("--method", choices=METHODS, help=_METHOD)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of a network, as regkit.save writes them")
    parser.add_argument("--refine", type=int, default=0, metavar="N", help="then N steps on the field, for this pair")
    parser.add_argument("--refine-weights", type=int, default=0, metavar="N", help="first N steps on a copy's weights")
    add_device(parser, " for the network")


def chosen_method(chosen: argparse.Namespace, dim: int) -> Method:
    """The method that the arguments choose; its weights refined where they say so."""
    from regkit.tools.methods import load_method, make_method, with_refinement

    if chosen.method is None and chosen.weights is not None:
        method = load_method(chosen.weights, dim)
    else:
        method = make_method(chosen.method or "optimise", dim, weights=chosen.weights)
    if chosen.refine < 0 or chosen.refine_weights < 0:
        refuse(
            "steps must be 0 or more",
            f"--refine {chosen.refine} and --refine-weights {chosen.refine_weights}",
            "20 are usual",
        )
    return with_refinement(method, chosen.refine_weights, weights=True) if chosen.refine_weights else method


def run(chosen: argparse.Namespace) -> int:
    """Read, register, write."""
    from regkit._core.files import whole_folder
    from regkit.images import itk, read_labels
    from regkit.tools import register, report
    from regkit.tools.methods import measured

    with whole_folder(chosen.out, owned=report.FILES) as folder, measured() as usage:
        moving, fixed = _read((chosen.moving, chosen.fixed), chosen.volume)
        if chosen.moving_mask is not None:
            moving = register.with_mask(moving, read_labels(chosen.moving_mask), "the moving mask")
        if chosen.fixed_mask is not None:
            fixed = register.with_mask(fixed, read_labels(chosen.fixed_mask), "the fixed mask")
        labels = [read_labels(path) for path in chosen.labels or ()]
        register.check_label_grids(labels, (moving, fixed))
        itk.check_grid(moving.original)
        itk.check_grid(fixed.original)
        method = chosen_method(chosen, len(fixed.grid.space))
        options = {name: getattr(chosen, name) for name in ("affine", "refine", "spacing", "device", "kind")}
        more = {name: getattr(chosen, name) for name in ("budget", "similarity", "window")}
        options |= {name: value for name, value in more.items() if value is not None}
        result = register.register_scans(moving, fixed, method, **options)
        numbers = {"method": method.name, "refine_steps": chosen.refine, "affine": chosen.affine}
        numbers |= {"moving": chosen.moving.name, "fixed": chosen.fixed.name}
        numbers |= report.numbers(result, labels)
        report.write(folder, result, labels, numbers)
    print(f"{chosen.moving.name} -> {chosen.fixed.name}, {method.name}: {report.in_words(numbers)}")
    print(f"compared by {numbers['similarity']}; on {report.on_what(numbers)}")
    print(f"{usage.seconds:.1f} s in all; results in {chosen.out}, look at {chosen.out / 'report.html'}")
    return 0


def _read(paths: Sequence[Path], volume: int | None) -> list[Scan]:
    """Moving and fixed; `volume` is that of each file with several, where there is one."""
    from regkit.images import read_image, volumes

    several = [volume is not None and volumes(path) > 1 for path in paths]
    chosen = [volume if many or not any(several) else None for many in several]
    return [read_image(path, volume=number) for path, number in zip(paths, chosen, strict=True)]
