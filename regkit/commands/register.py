"""``python -m regkit register moving.nii.gz fixed.nii.gz``: two scans, or slices, from files to files.

Into the folder go:

    warped.nii.gz                 moving on fixed's grid; warped_labels.nii.gz with --labels
    displacement.nii.gz           on fixed's grid: warps moving onto fixed; affine stage included; for ITK and ANTs
    inverse_displacement.nii.gz   on moving's grid: warps fixed onto moving
    affine.tfm                    the affine stage alone, as ITK's transform from fixed to moving; else the identity
    composite.h5                  affine.tfm and the rest of the displacement in one for ITK and Slicer (SimpleITK
                                  writes it, 24 bytes a voxel)
    warped_NAME.nii.gz            each --also file, through the same map
    jacobian.nii.gz               |J| of the displacement: volume change; folds at or below 0
    report.html                   pictures to judge it by
    metrics.json                  numbers, their units, the maps' directions; command, versions, date, hashes of inputs

All of them, or none if anything fails; of an earlier run in that folder no file stays.

With --pairs each line of a CSV is a pair (moving, fixed; if wanted name, moving_labels, fixed_labels; paths from the
CSV's folder) and has a folder in FOLDER; pairs.csv there tells what came of each. A pair that fails does not end the
others, but makes the status 1. Run again, pairs stay whose files, options and regkit are what they were.
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


_LARGE = 100e6  # bytes: a file whose size is told
_METHOD = "optimise, the default without weights, moves a field for this pair, from nothing, at three scales"


def add_register(commands: Any) -> None:
    """`register`: two scans, from files to files."""
    parser = commands.add_parser(
        "register",
        help=COMMANDS["register"],
        description="Register moving onto fixed. Volumes or slices, any orientation and spacing.",
    )
    parser.add_argument("moving", type=Path, nargs="?", help="the scan to be warped, .nii or .nii.gz")
    parser.add_argument("fixed", type=Path, nargs="?", help="the scan that it is laid on")
    words = "many pairs: a CSV with columns moving, fixed (name, moving_labels, fixed_labels); goes on where it ended"
    parser.add_argument("--pairs", type=Path, metavar="CSV", help=words)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    add_method(parser)
    parser.add_argument("--labels", type=Path, nargs=2, metavar=("MOVING", "FIXED"), help="labels of the two scans")
    words = "another scan of moving's space, warped by the same map; whether it holds labels is looked at, or said"
    parser.add_argument("--also", type=_also, action="append", default=[], metavar="[image=|labels=]FILE", help=words)
    parser.add_argument("--no-composite", action="store_true", help="without composite.h5, the largest of the files")
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


def _also(text: str) -> tuple[str, Path]:
    """What a file is, if it is said, and the file."""
    kind, sign, path = text.partition("=")
    return (kind, Path(path)) if sign and kind in ("image", "labels") else ("", Path(text))


def run(chosen: argparse.Namespace) -> int:
    """One pair, or those of a CSV."""
    if chosen.pairs is not None:
        return _run_pairs(chosen)
    if chosen.fixed is None:
        refuse("two scans are registered", "fewer", "give MOVING and FIXED, or --pairs CSV")
    from regkit.tools import report

    numbers = _register(chosen)
    print(f"{numbers['moving']} -> {numbers['fixed']}, {numbers['method']}: {report.in_words(numbers)}")
    print(f"compared by {numbers['similarity']}; on {report.on_what(numbers)}")
    composite = chosen.out / "composite.h5"
    if composite.exists() and composite.stat().st_size > _LARGE:
        print(f"{composite} has {composite.stat().st_size / 1e6:.0f} MB; --no-composite leaves it out")
    print(f"{numbers['seconds_in_all']:.1f} s in all; results in {chosen.out}, look at {chosen.out / 'report.html'}")
    return 0


def _run_pairs(chosen: argparse.Namespace) -> int:
    from regkit.tools import cohort, report

    if chosen.moving or chosen.labels or chosen.also or chosen.moving_mask or chosen.fixed_mask:
        refuse("--pairs names the scans and labels of each pair", "files of one pair beside it", "leave them out")
    rows = cohort.read_pairs(chosen.pairs)
    chosen.out.mkdir(parents=True, exist_ok=True)

    def register(row: cohort.Row) -> tuple[str, dict[str, Any]]:
        one = {"moving": row.moving, "fixed": row.fixed, "labels": row.labels, "out": chosen.out / row.name}
        asked = argparse.Namespace(**vars(chosen) | one)
        if report.is_result_of(asked.out, _provenance(asked)):
            return "kept", report.read_numbers(asked.out)
        return "done", _register(asked)

    failed = cohort.register_pairs(rows, chosen.out, register)
    print(f"{len(rows) - failed} of {len(rows)} pairs in {chosen.out}; what came of each: {chosen.out / cohort.TABLE}")
    return 1 if failed else 0


def _register(chosen: argparse.Namespace) -> dict[str, Any]:
    """Read, register, write: the numbers of metrics.json."""
    from regkit._core.files import whole_folder
    from regkit.images import itk, read_labels
    from regkit.tools import register, report
    from regkit.tools.methods import measured

    with whole_folder(chosen.out, owned=report.owned(chosen.out)) as folder, measured() as usage:
        moving, fixed = _read((chosen.moving, chosen.fixed), chosen.volume)
        if chosen.moving_mask is not None:
            moving = register.with_mask(moving, read_labels(chosen.moving_mask), "the moving mask")
        if chosen.fixed_mask is not None:
            fixed = register.with_mask(fixed, read_labels(chosen.fixed_mask), "the fixed mask")
        labels = [read_labels(path) for path in chosen.labels or ()]
        register.check_label_grids(labels, (moving, fixed))
        itk.check_grid(moving.original)
        itk.check_grid(fixed.original)
        also = _read_also(chosen, moving)
        method = chosen_method(chosen, len(fixed.grid.space))
        options = {name: getattr(chosen, name) for name in ("affine", "refine", "spacing", "device", "kind")}
        more = {name: getattr(chosen, name) for name in ("budget", "similarity", "window")}
        options |= {name: value for name, value in more.items() if value is not None}
        result = register.register_scans(moving, fixed, method, **options)
        numbers = {"method": method.name, "refine_steps": chosen.refine, "affine": chosen.affine}
        numbers |= {"moving": chosen.moving.name, "fixed": chosen.fixed.name, "run": _provenance(chosen)}
        numbers |= report.numbers(result, labels)
        report.write(folder, result, labels, numbers, also=also, composite=not chosen.no_composite)
    return numbers | {"seconds_in_all": usage.seconds}


def _provenance(chosen: argparse.Namespace) -> dict[str, Any]:
    from regkit.tools.provenance import provenance

    given = vars(chosen)
    files = {name: value for name, value in given.items() if isinstance(value, Path) and name not in ("out", "pairs")}
    files |= {f"{name}_labels": path for name, path in zip(("moving", "fixed"), chosen.labels or (), strict=False)}
    files |= {f"also {number}": path for number, (_, path) in enumerate(chosen.also)}
    left = {*files, "out", "pairs", "labels", "also", "run", "command", "command_line"}
    options = {name: value for name, value in given.items() if name not in left}
    options |= {"also": " ".join(kind or "auto" for kind, _ in chosen.also)}
    return provenance(given.get("command_line", ""), files, options)


def _read_also(chosen: argparse.Namespace, moving: Scan) -> dict[str, Scan]:
    """The --also files by the names of what becomes of them."""
    from regkit.images import read_image, read_labels, volumes
    from regkit.tools import register, report
    from regkit.tools.cohort import stem

    scans: dict[str, Scan] = {}
    for kind, path in chosen.also:
        name = f"warped_{stem(path)}.nii.gz"
        if name in (*scans, *report.FILES):
            refuse("each --also file needs a name of its own", f"{path}, which would be {name}", "rename it")
        volume = chosen.volume if volumes(path) > 1 else None
        scan = read_labels(path, volume=volume) if kind == "labels" else read_image(path, volume=volume)
        if not kind and register.looks_like_labels(scan):
            scan = read_labels(path, volume=volume)
        register.check_labels(scan, moving, f"{path.name} (--also)")
        print(f"{path.name}: {'labels, by the nearest voxel' if scan.is_labels else 'an image, linearly'}: {name}")
        scans[name] = scan
    return scans


def _read(paths: Sequence[Path], volume: int | None) -> list[Scan]:
    """Moving and fixed; `volume` is that of each file with several, where there is one."""
    from regkit.images import read_image, volumes

    several = [volume is not None and volumes(path) > 1 for path in paths]
    chosen = [volume if many or not any(several) else None for many in several]
    return [read_image(path, volume=number) for path, number in zip(paths, chosen, strict=True)]
