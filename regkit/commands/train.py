"""``python -m regkit train METHOD DATA --out FILE``: train a network, and keep its weights with what it reached.

DATA is a folder in the layout of regkit/images/folders.py, the name of a benchmark, or "synthetic-brains", whose pairs
are new at every step. The training goes on from FILE's checkpoint where there is one: an interrupted one is just
started again.
Under `torchrun --nproc-per-node N -m regkit train ...` N processes share the work, each with a GPU of its own where the
device is cuda.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regkit.commands import BENCHMARKS, COMMANDS, NETWORKS, add_device, refuse, refuse_data

if TYPE_CHECKING:
    from torch import nn

    from regkit.training import Source
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
    parser.add_argument("--judge", type=int, default=8, metavar="N", help="held-out pairs to judge on (8)")
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
    from regkit.tools.compare import evaluate

    _check(chosen)
    if chosen.device == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun's: one GPU for each process
        chosen.device = f"cuda:{os.environ['LOCAL_RANK']}"
    source, held_out, dim = _data(chosen)
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
    reached = evaluate(model.eval().cpu(), held_out) if len(held_out) else {}
    spacing = {"spacing": held_out[0].spacing[0]} if len(held_out) else {}
    metrics = {**reached, **spacing, "loss": history.loss[-1]}
    command = chosen.command_line.replace(str(chosen.out), chosen.out.name)
    checkpoints.save(model, chosen.out, metrics=metrics, command=command)
    checkpoint.unlink()
    print(f"kept {chosen.out}: " + ", ".join(f"{name} {value:.4g}" for name, value in reached.items()))
    return 0


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


def _data(chosen: argparse.Namespace) -> tuple[Source, Sequence[Pair], Any]:
    """What to train on, what to judge on, and the number of axes."""
    from regkit.data.benchmarks import BENCHMARKS
    from regkit.data.brains import BrainPairs, brain_source
    from regkit.images.folders import FolderPairs

    if chosen.data == SYNTHETIC:
        size = tuple(chosen.size or (64, 80, 64))
        brains: dict[str, Any] = {"dim": len(size), "size": size, "motion": chosen.motion, "contrast": chosen.contrast}
        aligned = 1 - chosen.unaligned
        source = brain_source(**brains, aligned=aligned, labels=False, batch=chosen.batch, device=chosen.device)
        held_out = BrainPairs(max(chosen.judge, 2), **brains, aligned=aligned > 0, split="test")
        return source, held_out, len(size)
    if Path(chosen.data).is_dir():
        pairs: Sequence[Pair] = FolderPairs(chosen.data, "train")
        return pairs, FolderPairs(chosen.data, "validation", limit=chosen.judge), pairs[0].moving.dim() - 2
    if chosen.data not in BENCHMARKS:
        refuse_data(chosen.data, f"a folder, {SYNTHETIC} or a benchmark")
    benchmark = BENCHMARKS[chosen.data]
    return benchmark.train, benchmark.held_out[: chosen.judge], benchmark.held_out[0].moving.dim() - 2


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
