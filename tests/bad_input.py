"""Bad input at every public door: is it refused in words that say the rule, what was received, and what to do?

    python tests/bad_input.py            # all calls and command lines; the share that is clear
    python tests/bad_input.py calls      # the calls alone (lines: the command lines alone)

Each call of `CALLS` is right. One argument after the other is exchanged for what its place cannot take: another kind,
another shape, NaN, nothing, numbers out of range. test_bad_input.py takes the same table, and draws from it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import regkit
from regkit import data, fields, images, losses, metrics, models, optimise, training, types
from regkit.data import brains, vessels
from regkit.images import itk, points
from regkit.tools import register
from regkit.types import InputError

torch.manual_seed(0)
IMAGE, OTHER = torch.rand(1, 1, 12, 14), torch.rand(1, 1, 12, 14)
FIELD, MATRIX = 0.3 * torch.rand(1, 2, 12, 14), torch.eye(2, 3)[None]
LABELS = (3 * IMAGE).long()
POINTS = torch.tensor([[[2.0, 3.0], [7.0, 9.0]]])
GRID = images.Grid((12, 14, 10), np.diag([1.0, 2.0, 1.5, 1.0]))
SCAN = images.Scan(torch.rand(1, 1, 12, 14, 10), GRID, GRID)
MARKED = SCAN.with_tensor((3 * SCAN.tensor).long())
WARP = itk.Deformation(torch.zeros(1, 3, 12, 14, 10), GRID)
PAIR, FOUND = types.Pair(IMAGE, OTHER, LABELS, LABELS), types.Registration(FIELD)
KEPT = tempfile.TemporaryDirectory()
PLACE = Path(KEPT.name)
SMALL = {"encoder_channels": (4,), "decoder_channels": (4, 4)}
NARROW: dict[str, dict[str, Any]] = {
    "VoxelMorph": {**SMALL, "output": "velocity", "similarity": "lncc", "weight": 0.1},
    "GradICON": {
        "encoder_channels": (4, 8),
        "decoder_channels": (4, 4),
        "levels": (0,),
        "orders": "one",
        "weight": 0.1,
    },
    "SITReg": {
        "channels": (4, 4),
        "update_channels": (4, 4),
        "convolutions": 1,
        "groups": 2,
        "gamma": 0.15,
        "tolerance": 0.01,
        "weight": 1.0,
        "window": 5,
    },
    "SACBNet": {"width": 1, "clusters": 3, "seed": 0, "blocks": "5", "weight": 0.3, "as_released": False},
    "SPNet": {"levels": 2, "symmetric": True, "geometry": "aligned", "weight": 1.0, "inverse_weight": 0.5},
    "SMGICNet": {"channels": 4, "levels": 1, "attention": False, "velocity_range": 0.4, "smoothness_weight": 0.1},
}


def trained(**options: Any) -> Any:
    return regkit.train(models.VoxelMorph(2, **SMALL), **options)


both = {"warped": IMAGE, "fixed": OTHER}
pair = {"moving": IMAGE, "fixed": OTHER}
marks = {"first": LABELS, "second": LABELS}
maps = {"displacement_AB": FIELD, "displacement_BA": -FIELD}
steps = {"steps": 1, "learning_rate": 0.1}
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sample": (fields.sample, {"image": IMAGE, "coordinates": FIELD, "mode": "linear", "padding": "border"}),
    "warp": (fields.warp, {"image": IMAGE, "displacement": FIELD, "mode": "nearest", "padding": "zeros"}),
    "warp_labels": (fields.warp_labels, {"labels": LABELS, "displacement": FIELD}),
    "warp_points": (fields.warp_points, {"points": POINTS, "displacement": FIELD}),
    "compose": (fields.compose, {"first": FIELD, "then": FIELD, "padding": "border"}),
    "exponential": (fields.exponential, {"velocity": FIELD, "steps": 3}),
    "invert": (fields.invert, {"displacement": FIELD, "tolerance": 0.01, "max_iterations": 9, "method": "newton"}),
    "difference": (fields.difference, {"field": FIELD, "axis": 1}),
    "jacobian_determinant": (fields.jacobian_determinant, {"displacement": FIELD}),
    "affine_displacement": (fields.affine_displacement, {"matrix": MATRIX, "shape": (12, 14)}),
    "move_affinely": (fields.move_affinely, {"coordinates": FIELD, "matrix": MATRIX, "shape": (12, 14)}),
    "rigid_displacement": (fields.rigid_displacement, {"shape": (12, 14), "degrees": 3.0, "right": 1.0}),
    "reads_inside": (fields.reads_inside, {"displacement": FIELD}),
    "identity": (fields.identity, {"shape": (12, 14)}),
    "resize": (fields.resize, {"image": IMAGE, "shape": (6, 7)}),
    "resize_displacement": (fields.resize_displacement, {"displacement": FIELD, "shape": (6, 7)}),
    "upsample": (fields.upsample, {"displacement": FIELD, "alignment": "cells"}),
    "scale_components": (fields.scale_components, {"displacement": FIELD, "factors": (1.0, 2.0)}),
    "voxels_to_normalized": (fields.voxels_to_normalized, {"displacement": FIELD, "align_corners": False}),
    "normalized_to_voxels": (fields.normalized_to_voxels, {"displacement": FIELD, "align_corners": False}),
    "voxels_to_unit": (fields.voxels_to_unit, {"displacement": FIELD}),
    "unit_to_voxels": (fields.unit_to_voxels, {"displacement": FIELD}),
    "reverse_components": (fields.reverse_components, {"displacement": FIELD}),
    "mse": (losses.mse, {**both, "mask": IMAGE}),
    "ncc": (losses.ncc, both),
    "lncc": (losses.lncc, {**both, "window": 5, "epsilon": 1e-5}),
    "lncc_gaussian": (losses.lncc_gaussian, {**both, "sigma": 2.0, "squared": False, "normalise_border": False}),
    "adaptive_ncc": (losses.adaptive_ncc, {**both, "weighting": "greedy", "levels": 2, "alpha": 0.1, "beta": 1.3}),
    "mutual_information": (losses.mutual_information, {**both, "bins": 16, "mask": torch.ones_like(IMAGE)}),
    "mindssc": (losses.mindssc, {**both, "radius": 1, "dilation": 1}),
    "mindssc_descriptor": (losses.mindssc_descriptor, {"image": IMAGE, "radius": 1, "dilation": 1}),
    "losses.dice": (losses.dice, both),
    "diffusion": (losses.diffusion, {"displacement": FIELD}),
    "bending": (losses.bending, {"displacement": FIELD}),
    "evaluation_points": (losses.evaluation_points, {"shape": (12, 14), "noise": 1.0, "stride": 1}),
    "icon": (losses.icon, maps),
    "gradicon": (losses.gradicon, {**maps, "delta": 1e-3, "orders": "one"}),
    "gaussian_blur": (losses.gaussian_blur, {"image": IMAGE, "sigma": 1.0}),
    "level_window": (losses.level_window, {"image": IMAGE, "halvings": 1}),
    "dice": (metrics.dice, {**marks, "labels": [1, 2], "absent": "skip"}),
    "surface_distances": (metrics.surface_distances, {**marks, "spacing": (1.0, 2.0), "labels": [1]}),
    "hd95": (metrics.hd95, {**marks, "spacing": 1.0}),
    "assd": (metrics.assd, {**marks, "spacing": 1.0}),
    "tre": (metrics.tre, {"displacement": FIELD, "fixed_points": POINTS, "moving_points": POINTS, "spacing": 1.0}),
    "folds": (metrics.folds, {"displacement": FIELD, "definition": "flips"}),
    "jacobian_statistics": (metrics.jacobian_statistics, {"displacement": FIELD, "definition": "central"}),
    "inverse_consistency": (
        metrics.inverse_consistency,
        {"displacement": FIELD, "inverse": FIELD, "norm": "distance", "region": "inside"},
    ),
    "cycle_consistency": (metrics.cycle_consistency, {"model": lambda *_: FOUND, "pair": PAIR, "norm": "squared"}),
    "evaluate": (metrics.evaluate, {"registration": FOUND, "pair": PAIR}),
    "Pair": (types.Pair, {**pair, "moving_labels": LABELS, "displacement": FIELD, "spacing": (1.0, 2.0)}),
    "Recipe": (
        training.Recipe,
        {"steps": 1, "learning_rate": 1e-3, "batch": 1, "seed": 0, "schedule": "cosine", "clip": 1.0},
    ),
    "train": (trained, {"source": [PAIR], "recipe": training.Recipe(steps=0), "every": 1, "progress": False}),
    "optimise_affine": (optimise.optimise_affine, {**pair, **steps}),
    "optimise_field": (
        optimise.optimise_field,
        {**pair, **steps, "output": "velocity", "start": FIELD, "affine": MATRIX, "weight": 0.1, "squarings": 2},
    ),
    "refine_field": (optimise.refine_field, {**pair, **steps, "halvings": (0,), "weight": 0.1, "progress": False}),
    "invert_affine": (optimise.invert_affine, {"affine": MATRIX}),
    "shapes": (data.shapes, {"count": 1, "dim": 2, "size": (12, 14), "hollow": False, "seed": 0}),
    "ShapePairs": (data.ShapePairs, {"count": 1, "dim": 2, "size": 12, "hollow": False, "split": "test", "seed": 0}),
    "synthetic_pair": (data.synthetic_pair, {"dim": 2, "seed": 0, "size": 16, "motion": 0.1}),
    "smooth_displacement": (
        data.smooth_displacement,
        {"shape": (12, 14), "amplitude": 1.0, "smoothness": 2.0, "seed": 0},
    ),
    "BrainPairs": (brains.BrainPairs, {"count": 1, "dim": 2, "motion": "small", "aligned": True, "seed": 0}),
    "brain_source": (brains.brain_source, {"dim": 2, "contrast": "t1", "aligned": 0.5, "batch": 1}),
    "VesselPairs": (vessels.VesselPairs, {"count": 1, "size": 32, "seed": 0}),
    "Grid": (images.Grid, {"shape": (12, 14, 10), "affine": np.eye(4)}),
    "with_spacing": (GRID.with_spacing, {"spacing": 2.0}),
    "with_space": (GRID.with_space, {"space": (6, 7, 5)}),
    "cropped": (GRID.cropped, {"start": (1, 1, 1), "space": (6, 7, 5)}),
    "Scan": (images.Scan, {"tensor": SCAN.tensor, "grid": GRID, "original": GRID}),
    "resample": (images.resample, {"scan": SCAN, "to": GRID, "displacement": WARP.displacement, "through": np.eye(4)}),
    "crop_or_pad": (images.crop_or_pad, {"scan": SCAN, "space": (6, 7, 5)}),
    "pad_to_multiple": (images.pad_to_multiple, {"scan": SCAN, "multiple": 4}),
    "normalise": (images.normalise, {"scan": SCAN, "percentiles": (0.0, 99.0)}),
    "normalise, window": (images.normalise, {"scan": SCAN, "window": (0.0, 1.0)}),
    "to_original": (images.to_original, {"scan": SCAN}),
    "write_image": (images.write_image, {"path": PLACE / "i.nii.gz", "scan": SCAN}),
    "write_labels": (images.write_labels, {"path": PLACE / "l.nii.gz", "scan": MARKED}),
    "read_image": (images.read_image, {"path": PLACE / "image.nii.gz", "volume": 0}),
    "read_labels": (images.read_labels, {"path": PLACE / "labels.nii.gz"}),
    "volumes": (images.volumes, {"path": PLACE / "image.nii.gz"}),
    "write_displacement": (itk.write_displacement, {"path": PLACE / "d.nii.gz", "deformation": WARP}),
    "read_displacement": (itk.read_displacement, {"path": PLACE / "displacement.nii.gz"}),
    "regrid": (itk.regrid, {"deformation": WARP, "to": GRID}),
    "read_landmarks": (points.read_landmarks, {"path": PLACE / "points.csv", "system": "RAS"}),
    "align": (register.align, {"moving": SCAN, "fixed": SCAN, **steps}),
}
for name, options in NARROW.items():
    CALLS[name] = (getattr(models, name), {"dim": 2, "in_channels": 1, **options})
    CALLS[f"{name}.forward"] = (
        getattr(models, name)(2, **options),
        {"moving": IMAGE, "fixed": OTHER} if name != "SACBNet" else {k: torch.rand(1, 1, 20, 18) for k in pair},
    )

# what one of two images, a mask or a loss may be: NaN in, NaN out; what is optional may be None
NAN_IN = ("losses", "metrics.checked")


def prepare() -> None:
    """The files that the calls read."""
    images.write_image(PLACE / "image.nii.gz", SCAN)
    images.write_labels(PLACE / "labels.nii.gz", MARKED)
    itk.write_displacement(PLACE / "displacement.nii.gz", WARP)
    (PLACE / "points.csv").write_text("x,y,z\n1,2,3\n4,5,6\n")
    for name, content in FILES.items():
        (PLACE / name).parent.mkdir(exist_ok=True)
        (PLACE / name).write_bytes(content)
    for name, value in (("constant", 1.0), ("far", 0.0)):
        affine = np.diag([1.0, 2.0, 1.5, 1.0]) if name == "constant" else np.array(FAR)
        values = torch.full_like(SCAN.tensor, value) if name == "constant" else SCAN.tensor
        grid = images.Grid(GRID.shape, affine)
        images.write_image(PLACE / f"{name}.nii.gz", images.Scan(values, grid, grid))
    regkit.save(models.VoxelMorph(3, **SMALL), PLACE / "net.safetensors", metrics={"spacing": -1.0})
    regkit.save(models.VoxelMorph(2, **SMALL), PLACE / "flat.safetensors", metrics={"spacing": 1.0})


def bad(value: Any) -> list[Any]:
    """What cannot stand in a value's place."""
    if isinstance(value, torch.Tensor):
        return [
            "a",
            [1.0],
            np.zeros(3),
            value[0, 0],
            value[:0],
            value.to(torch.complex64),
            value[..., None, None, None],
        ]
    if isinstance(value, bool):
        return ["a", [], 0.5]
    if isinstance(value, int):
        return ["a", [1, "b"], 2.5, -7, float("nan"), {}]
    if isinstance(value, float):
        return ["a", [1.0, "b"], float("nan"), {}, 1j]
    if isinstance(value, str):
        return ["nosuch", 5, [], None]
    if isinstance(value, Path):
        return [5, None, [], PLACE / "words.csv/such.nii.gz", PLACE]
    if isinstance(value, tuple | list):
        return [
            "ab",
            5 if len(value) > 1 else "b",
            {},
            ("a",) * len(value),
            (-3,) * len(value),
            (float("nan"),) * len(value),
        ]
    if isinstance(value, np.ndarray):
        return ["a", None, np.zeros(3), value * np.nan]
    return ["a", 5, [None]]


ACCEPTED = {  # what `bad` gives and the place takes
    "move_affinely(coordinates=Tensor(1, 2, 12, 14, 1, 1, 1))",
    "scale_components(factors=(-3, -3))",
    "surface_distances(spacing=5)",
    "Pair(spacing=5)",
    "shapes(size=5)",
    "cropped(start=(-3, -3, -3))",
    "resample(through=None)",
    "read_landmarks(system=None)",
}


def cases(*names: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The calls with one argument exchanged; all, or those of some names."""
    for name in names or CALLS:
        call, options = CALLS[name]
        for argument, value in options.items():
            for wrong in bad(value):
                words = type(wrong).__name__ + str(tuple(wrong.shape)) if hasattr(wrong, "shape") else repr(wrong)
                case = f"{name}({argument}={words[:60]})"
                if case not in ACCEPTED:
                    yield case, functools.partial(call, **{**options, argument: wrong})


def ending(call: Callable[[], Any]) -> str:
    """ "" where bad input is refused clearly; else how it ended."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            call()
    except InputError as error:
        return "" if all(map(str, (error.rule, error.received, error.remedy))) else "empty words"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:90]}"
    return "TAKEN"


def calls() -> list[str]:
    prepare()
    tried = list(cases())
    wrong = [f"{name} -> {end}" for name, call in tried if (end := ending(call))]
    print("\n".join(wrong))
    print(f"calls: {len(tried) - len(wrong)} clear of {len(tried)}")
    return wrong


# ---------------------------------------------------------------------------------------------- command lines

FAR = [[1.0, 0, 0, 900], [0, 2.0, 0, 900], [0, 0, 1.5, 900], [0, 0, 0, 1]]
FILES = {
    "empty.nii.gz": b"",
    "text.nii": b"no image",
    "half.nii.gz": b"\x1f\x8b\x08\x00junk",
    "bad.csv": b"x,y\n1,2\n",
    "words.csv": b"x,y,z\na,b,c\n",
    "bad.h5": b"no transform",
    "bad.txt": b"#Insight Transform File V1.0\n",
    "weights.safetensors": b"{}",
    "list/splits.json": b"[1]",
    "deep/splits.json": b"[" * 100_000,
    "number/splits.json": b'{"test": 5, "train": 5, "validation": 5}',
    "names/splits.json": b'{"test": [["a"]], "train": [[1, 2]], "validation": []}',
    "bytes/splits.json": b"\xff\xfe",
    "nothing/x": b"",
}
REGISTER = """
{no} {i} | {i} {no} | {empty} {i} | {text} {i} | {half} {i} | {csv} {i} | {here} {i} | {constant} {i} | {far}
{i} | {l} {i} | {i} {i} --spacing nan | {i} {i} --spacing 0 | {i} {i} --spacing -1 | {i} {i} --spacing 1e9 | {i}
{i} --spacing a | {i} {i} --refine -1 | {i} {i} --refine a | {i} {i} --volume 3 | {i} {i} --volume -1 | {i} {i}
--method magic | {i} {i} --weights {no} | {i} {i} --weights {i} | {i} {i} --weights {weights} | {i} {i}
--weights {net} | {i} {i} --weights {flat} | {i} {i} --as picture | {i} {i} --method none --weights {net} | {i}
{i} --method none --refine-weights 2 | {i} {i} --device meta | {i} {i} --device cuda:99 | {i} {i} --device
nosuch | {i} {i} --labels {i} {i} | {i} {i} --labels {l} {no} | {i} {i} --labels {l} | {i} {i} --spacing 0.002 |
{i} | {i} {i} --nosuch
"""
APPLY = """
{no} --to image {i} --like {i} | {h5} --to image {i} --like {i} | {txt} --to image {i} --like {i} | {d} --to
nothing {i} --like {i} | {d} --to image {i} | {d} --to image {no} --like {i} | {d} --to labels {i} --like {i} |
{d} --to points {no} | {d} --to points {csv} | {d} --to points {words} | {d} --to points {i} | {d} --to image
{i} --like {no} | {d} --to image {i} --like {i} --volume 4 | {d} --to points {points} --system XYZ | {i} --to
image {i} --like {i} | {d} --to image {i} --like {i} --outside a | {here}/nothing --to image {i} --like {i} |
{d} --to image | --to image {i} --like {i}
"""
SET = """
weight=abc | weight=-1 | weight=NaN | encoder_channels=abc | encoder_channels=16 | decoder_channels=[] |
encoder_channels=[4.5,4] decoder_channels=[4,4,4] | encoder_channels=[-4,4] decoder_channels=[4,4,4] |
encoder_channels=[0,4] decoder_channels=[4,4,4] | nosuch=1 | weight | weight= | =1 | output=nothing | output=5 |
in_channels=0 | in_channels=3 | in_channels=true | similarity=null | dim=7 | dim=abc | encoder_channels=[[4]] |
encoder_channels=[1e99] | decoder_channels=[4] | encoder_channels=[10000000,10000000] decoder_channels=[4,4,4] |
weight={deep}
"""
TRAIN = """
voxelmorph nosuch | nosuch hollow | voxelmorph hollow --steps 0 | voxelmorph hollow --steps a | voxelmorph
hollow --steps -1 | voxelmorph hollow --judge -1 | voxelmorph hollow --learning-rate 0 | voxelmorph hollow
--learning-rate nan | voxelmorph hollow --learning-rate inf | voxelmorph hollow --batch 0 | voxelmorph hollow
--clip 0 | voxelmorph hollow --clip nan | voxelmorph hollow --seed -1 | voxelmorph hollow --seed
18446744073709551616 | voxelmorph hollow --seed 1.5 | voxelmorph hollow --schedule odd | voxelmorph hollow
--precision int8 | voxelmorph hollow --device meta | voxelmorph hollow --device mps | voxelmorph hollow --start
{no} | voxelmorph hollow --start {weights} | voxelmorph hollow --start {net} | voxelmorph hollow --start {flat}
--set weight=1 | voxelmorph {here}/list | voxelmorph {here}/deep | voxelmorph {here}/number | voxelmorph
{here}/names | voxelmorph {here}/bytes | voxelmorph {here}/nothing | voxelmorph synthetic-brains --size 0 0 |
voxelmorph synthetic-brains --size 5 | voxelmorph synthetic-brains --size 4 4 4 4 | voxelmorph synthetic-brains
--size a b | voxelmorph synthetic-brains --motion none | voxelmorph synthetic-brains --unaligned 2 --size 32 32
| sitreg hollow --set groups=0 | gradicon hollow --set levels=[1,2] | spnet hollow --set levels=9
"""
EVALUATE = """
nosuch --method none | hollow | hollow --method magic | hollow --method none --limit 0 | hollow --method none
--limit -2 | hollow --method none --limit a | hollow --method none --reference magic | hollow --method none none
--protocol nosuch | hollow --weights {no} | hollow --weights {i} | hollow --weights {net} | hollow --method none
--device meta | {here}/list --method none | {here}/deep --method none | {here}/number --method none |
{here}/names --method none | {here}/bytes --method none | {here}/nothing --method none | hollow --method none
--out {i} | hollow --method none --limit 1 --refine -3 | hollow --method none --split nosuch --protocol
sacbnet/ixi
"""
OTHERS = """
study nosuch | study spnet --variant x | study spnet --seeds -1 | study spnet --seeds a | lab --port 99999999 |
lab --port -1 | lab --port a | ledger --out {here} | ledger --out {i}/x.md | ledger --nosuch | pages | pages
{i} | notebooks nosuch | leaderboard --methods magic | leaderboard --benchmark nosuch | leaderboard --scans {i}
{no} --out {out} | leaderboard --scans {i} {i} | leaderboard --out {out} | leaderboard --labels {l} {l} |
leaderboard --scans {i} {i} --out {out} --methods magic | leaderboard --scans {i} {i} --out {out} --refine 0 |
leaderboard --scans {i} --out {out} | nosuch | {none} | leaderboard --scans {i} {i} --labels {l} {l} --labels
{l} {l} --out {out} | --nosuch
"""
PLACES = """no no.nii.gz i image.nii.gz l labels.nii.gz d displacement.nii.gz empty empty.nii.gz text text.nii
half half.nii.gz csv bad.csv words words.csv h5 bad.h5 txt bad.txt weights weights.safetensors net net.safetensors
flat flat.safetensors constant constant.nii.gz far far.nii.gz points points.csv here . out out
"""


def command_lines() -> list[list[str]]:
    """All of them, with the files of `prepare` in their places."""
    places = {name: PLACE / file for name, file in zip(*[iter(PLACES.split())] * 2, strict=True)}
    ways = {
        "register {} --out {{out}}": REGISTER,
        "apply {} --out {{out}}.nii.gz": APPLY,
        "train voxelmorph hollow --steps 1 --judge 0 --out {{out}}.safetensors --set {}": SET,
        "train {} --out {{out}}.safetensors": TRAIN,
        "evaluate {}": EVALUATE,
        "{}": OTHERS,
    }
    lines = [way.format(words.strip()) for way, text in ways.items() for words in text.split("|")]
    return [[word.format(**places, deep="[" * 20_000, none="") for word in line.split()] for line in lines]


def said(words: list[str]) -> str:
    """ "" where a command line ends in one line that is clear (or in argparse's); else how it ended."""
    from regkit.__main__ import main

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = main(words)
    except SystemExit as error:
        return "" if error.code == 2 and "error: " in errors.getvalue() else f"exit {error.code}"
    except BaseException as error:
        return f"traceback, {type(error).__name__}: {str(error)[:90]}"
    told = [line for line in errors.getvalue().splitlines() if not line.startswith("regkit: note: ")]
    clear = status == 1 and told and told[-1].startswith("regkit: ") and "received" in told[-1] and "; " in told[-1]
    return "" if clear and "a fault of regkit" not in told[-1] else f"status {status}: {' | '.join(told)[-160:]}"


def lines() -> list[str]:
    prepare()
    tried = command_lines()
    wrong = [f"{' '.join(words)[:100]} -> {end}" for words in tried if (end := said(words))]
    print("\n".join(wrong))
    print(f"command lines: {len(tried) - len(wrong)} clear of {len(tried)}")
    return wrong


if __name__ == "__main__":
    parts = {"calls": calls, "lines": lines}
    sys.exit(bool([wrong for name in sys.argv[1:] or parts for wrong in parts[name]()]))
