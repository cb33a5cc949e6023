"""``python -m regkit apply MAP... --to image IN --like FIXED --out OUT``: carry something through maps that are there.

Maps are what `register`, ITK and ANTs write. An image goes through the first map first, is read once, and lies on the
grid of FIXED then. A landmark goes the other way: as in ITK and ANTs, a map takes places of the fixed scan to places of
the moving one; with --inverse, landmarks of the moving scan come to the fixed one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regkit.commands import COMMANDS, refuse

if TYPE_CHECKING:
    from regkit.images import Scan


def add_apply(commands: Any) -> None:
    """`apply`: images, labels and landmarks through maps that are there."""
    parser = commands.add_parser(
        "apply",
        help=COMMANDS["apply"],
        description="An image goes through the first MAP first (the order of antsApplyTransforms -t). Landmarks are "
        "taken from fixed's space to moving's, as ITK takes points; with --inverse from moving's to fixed's.",
    )
    parser.add_argument("maps", type=Path, nargs="+", metavar="MAP", help="a displacement field, a transform, a folder")
    parser.add_argument("--to", nargs=2, required=True, metavar=("KIND", "IN"), help="image, labels or points; a file")
    parser.add_argument("--like", type=Path, metavar="FIXED", help="the scan whose grid an image or labels come to")
    parser.add_argument("--out", type=Path, required=True, help="the file to be written")
    parser.add_argument("--inverse", action="store_true", help="the inverse of all maps together")
    parser.add_argument(
        "--smooth", action="store_true", help="labels: the largest share of the voxels around, not the nearest voxel"
    )
    parser.add_argument("--outside", type=float, metavar="VALUE", help="where IN has no voxels (its lowest value; 0)")
    parser.add_argument("--system", choices=("RAS", "LPS"), help="of a CSV's numbers (LPS, as ITK and ANTs have them)")
    parser.add_argument("--volume", type=int, metavar="N", help="which volume of IN, from 0, if it has several")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Read, carry, write."""
    from regkit.images import read_image, to_original, write_image, write_labels
    from regkit.images.points import read_landmarks, write_landmarks
    from regkit.images.transforms import Chain, between, carry_scan, read_map

    kind, source = chosen.to[0], Path(chosen.to[1])
    if kind not in ("image", "labels", "points"):
        refuse("KIND is image, labels or points", kind, "say what IN is: --to labels FILE")
    maps = [read_map(path, inverse=chosen.inverse) for path in chosen.maps]
    chain = Chain(maps[::-1] if chosen.inverse else maps)
    if kind == "points":
        landmarks = read_landmarks(source, system=chosen.system)
        write_landmarks(chosen.out, landmarks, chain(landmarks.points))
        way = "from moving's space to fixed's" if chosen.inverse else "from fixed's space to moving's"
        assumed = "" if landmarks.stated or chosen.system else " (assumed; --system says otherwise)"
        print(f"{len(landmarks.points)} points, {landmarks.system}{assumed}, {way}: {chosen.out}")
        return 0
    if chosen.like is None:
        refuse("an image comes to the grid of a scan", f"--to {kind} without --like", "give --like FIXED")
    grid = read_image(chosen.like, volume=_first(chosen.like)).original
    scan = _read(kind, source, chosen.volume)
    carried = carry_scan(scan, grid, between(chain, scan, grid), smooth_labels=chosen.smooth, outside=chosen.outside)
    (write_labels if scan.is_labels else write_image)(chosen.out, to_original(carried))
    print(f"{source.name} through {', '.join(path.name for path in chosen.maps)}: {chosen.out}")
    return 0


def _read(kind: str, path: Path, volume: int | None) -> Scan:
    from regkit.images import read_image, read_labels

    return read_labels(path, volume=volume) if kind == "labels" else read_image(path, volume=volume)


def _first(path: Path) -> int | None:
    """0 for a file of several volumes, whose grid is one."""
    from regkit.images import volumes

    return 0 if volumes(path) > 1 else None
