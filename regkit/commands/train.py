"""``python -m regkit train METHOD DATA --out FILE``: train a network, and keep its weights with what it reached.

DATA is a folder in the layout of regkit/images/folders.py, the name of a benchmark, or "synthetic-brains", whose pairs
are new at every step. The training goes on from FILE's checkpoint where there is one: an interrupted one is just
started again. The weights are kept before they are judged, pair by pair; what each step saw lies beside them, in
NAME.history.csv for NAME.safetensors.
Under `torchrun --nproc-per-node N -m regkit train ...` N processes share the work, each with a GPU of its own where the
device is cuda.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from regkit.commands import BENCHMARKS, COMMANDS, NETWORKS, add_device, refuse, refuse_data

if TYPE_CHECKING:
    from torch import nn

    from regkit.training import History, Source
    from regkit.types import Pair

SYNTHETIC = "synthetic-brains"

RECIPE: dict[str, Any] = {  # what training.Recipe has by default
    "steps": 1000,
    "learning_rate": 1e-3,
    "batch": 1,
    "seed": 0,
    "schedule": "constant",
    "clip": None,
    "precision": "float32",
}

SCHEDULES, PRECISIONS = ("constant", "cosine", "polynomial"), ("float32", "bfloat16")
MOTIONS, CONTRASTS = ("small", "large"), ("t1", "shared", "random", "mixed")


def add_train(commands: Any) -> None:
    """`train`: train a network."""
    parser = commands.add_parser("train", help=COMMANDS["train"])
    add = parser.add_argument
    add("method", choices=NETWORKS, metavar="METHOD", help=", ".join(NETWORKS))
    add("data", help=f"a dataset's folder, {', '.join(BENCHMARKS)}, or {SYNTHETIC}")
    add("--out", type=Path, required=True, metavar="FILE", help="the weights, .safetensors")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="arguments of the network")
    add("--start", type=Path, metavar="FILE", help="go on from these weights (of regkit.save)")
    add("--steps", type=int, help=f"({RECIPE['steps']})")
    add("--learning-rate", type=float, help=f"({RECIPE['learning_rate']})")
    add("--batch", type=int, help=f"pairs in a step ({RECIPE['batch']})")
    add("--seed", type=int, help=f"({RECIPE['seed']})")
    add("--schedule", choices=SCHEDULES, help=f"({RECIPE['schedule']})")
    add("--clip", type=float, help="longest norm of the gradient (any)")
    add("--precision", choices=PRECISIONS, help="of convolutions")
    add_device(parser)
    parser.add_argument("--judge", type=int, default=8, metavar="N", help="held-out pairs to judge on (8), 0 for none")
    brains = parser.add_argument_group(SYNTHETIC)
    brains.add_argument("--size", type=int, nargs="+", help="voxels along each axis: two numbers or three")
    brains.add_argument("--motion", choices=MOTIONS, default="large", help="(large)")
    brains.add_argument("--contrast", choices=CONTRASTS, default="shared", help="(shared)")
    brains.add_argument(
        "--unaligned",
        nargs="?",
        type=float,
        const=1.0,
        default=0.0,
        metavar="SHARE",
        help="turned, scaled and shifted as well: all pairs, or this share of them",
    )
    parser.set_defaults(run=run, **RECIPE)


def run(chosen: argparse.Namespace) -> int:
    """Train, judge, keep; an interrupted training keeps its checkpoint."""
    import torch

    from regkit import checkpoints, training
    from regkit._core.files import write_atomically

    _check(chosen)
    if chosen.device == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun's: one GPU for each process
        chosen.device = f"cuda:{os.environ['LOCAL_RANK']}"
    source, held_out, spacing, dim = _data(chosen)
    recipe = training.Recipe(**{name: getattr(chosen, name) for name in RECIPE})
    torch.manual_seed(recipe.seed)
    model = _model(chosen, dim).to(chosen.device)
    checkpoint = chosen.out.with_suffix(".checkpoint.pt")
    history = training.train(model, source, recipe, checkpoint=checkpoint)
    if len(history) < recipe.steps:
        print(f"{len(history)} of {recipe.steps} steps are in {checkpoint}; the same command goes on from there")
        return 130
    if int(os.environ.get("RANK", 0)) > 0:
        return 0  # the first process judges and keeps
    metrics = {"spacing": spacing, "loss": history.loss[-1]}
    command = chosen.command_line.replace(str(chosen.out), chosen.out.name)
    checkpoints.save(model.eval().cpu(), chosen.out, metrics=metrics, command=command)
    write_atomically(chosen.out.with_suffix(".history.csv"), _table(history).encode())
    print(f"kept {chosen.out}", flush=True)
    if reached := _judged(model, held_out, chosen.judge):
        checkpoints.restate(chosen.out, reached | metrics)
        print("reached " + ", ".join(f"{name} {value:.4g}" for name, value in reached.items()))
    checkpoint.unlink(missing_ok=True)  # another training of the same may have been faster
    return 0


def _judged(model: nn.Module, pairs: Sequence[Pair], most: int) -> dict[str, float]:
    """What the model reaches: means over the first pairs, each judged by itself, so that memory for one is enough."""
    from regkit.tools.compare import evaluate

    reached: dict[str, list[float]] = {}
    for number in range(min(most, len(pairs))):
        for name, value in evaluate(model, [pairs[number]]).items():
            reached.setdefault(name, []).extend([value] if math.isfinite(value) else [])
    return {name: float(f"{fmean(values):.6g}") for name, values in reached.items() if values}


def _table(history: History) -> str:
    """The history as CSV: the terms of the objective, their sum, and the seconds of each step."""
    columns = {"step": range(len(history)), **history.terms, "loss": history.loss, "seconds": history.seconds}
    rows = zip(*columns.values(), strict=True)
    return "".join(",".join(map(str, row)) + "\n" for row in [tuple(columns), *rows])


def _check(chosen: argparse.Namespace) -> None:
    """Raise where numbers or the place of the weights cannot be, before anything is made."""
    if not chosen.out.parent.is_dir():
        refuse("--out must be in a folder that exists", chosen.out, "make it first")
    if chosen.steps < 1 or chosen.judge < 0:
        received = f"--steps {chosen.steps} and --judge {chosen.judge}"
        refuse("steps must be 1 or more and pairs to judge on 0 or more", received, "leave them out for the usual")
    if chosen.out.suffix != ".safetensors":
        refuse("--out must end in .safetensors", chosen.out, f"write {chosen.out}.safetensors")


def _model(chosen: argparse.Namespace, dim: Any) -> nn.Module:
    """The network as --set describes it, or that in the file of --start."""
    from regkit import models
    from regkit.tools.methods import NETWORKS, make_method
    from regkit.types import check_option

    arguments = dict(map(_argument, chosen.set))
    if chosen.start is None:
        make = getattr(models, NETWORKS[chosen.method])
        for name in arguments:
            check_option("an argument of --set", name, list(inspect.signature(make).parameters)[1:])
        return make(dim, **arguments)
    if arguments:
        refuse("--start brings the network's arguments", f"--set {' '.join(chosen.set)} as well", "leave one out")
    return make_method(chosen.method, dim, weights=chosen.start).model


def __getattr__(name: str) -> Any:
    """`checkpoints`, which was a name of this module in version 0.1.0."""
    if name != "checkpoints":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("regkit.checkpoints")


def _data(chosen: argparse.Namespace) -> tuple[Source, Sequence[Pair], float, Any]:
    """What to train on, what to judge on, the size of a voxel in mm, and the number of axes."""
    from regkit.data.benchmarks import BENCHMARKS
    from regkit.data.brains import BrainPairs, brain_source
    from regkit.images.folders import FolderPairs

    if chosen.data == SYNTHETIC:
        size = tuple(chosen.size or (64, 80, 64))
        brains: dict[str, Any] = {"dim": len(size), "size": size, "motion": chosen.motion, "contrast": chosen.contrast}
        aligned = 1 - chosen.unaligned
        source = brain_source(**brains, aligned=aligned, labels=False, batch=chosen.batch, device=chosen.device)
        held_out = BrainPairs(max(chosen.judge, 2), **brains, aligned=aligned > 0, split="test")
        return source, held_out, held_out[0].spacing[0], len(size)
    if Path(chosen.data).is_dir():
        pairs: Sequence[Pair] = FolderPairs(chosen.data, "train")
        judged = FolderPairs(chosen.data, "validation", limit=chosen.judge) if chosen.judge else []
        return pairs, judged, pairs[0].spacing[0], pairs[0].moving.dim() - 2
    if chosen.data not in BENCHMARKS:
        refuse_data(chosen.data, f"a folder, {SYNTHETIC} or a benchmark")
    benchmark = BENCHMARKS[chosen.data]
    held = benchmark.held_out
    return benchmark.train, held, held[0].spacing[0], held[0].moving.dim() - 2


def _argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE, where a value is read as JSON if it can be, a list as a tuple."""
    name, _, value = text.partition("=")
    if not value:
        refuse("--set takes NAME=VALUE", f"{text!r}", "write levels=3, or similarity=lncc")
    try:
        read = json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        read = value
    return name, tuple(read) if isinstance(read, list) else read
