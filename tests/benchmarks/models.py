"""Every network: forward, and with loss and backward, in 2D and in 3D; beside the authors' programs where given.

REGKIT_AUTHORS names a folder with a file <method>.py for each authors' program that is at hand (gradicon, sitreg, ...).
It defines `build(dim, shape)`, which returns a function of (moving, fixed) that runs the program's forward pass.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import compare
from torch import Tensor, nn

from regkit import models
from regkit.data import synthetic_pair

NAMES = ("VoxelMorph", "GradICON", "SITReg", "SACBNet", "SPNet", "SMGICNet")


def authors(name: str, dim: int, shape: tuple[int, ...]) -> Callable[[Tensor, Tensor], Any] | None:
    """The authors' forward pass, or None where no program is given."""
    path = Path(os.environ.get("REGKIT_AUTHORS", "")) / f"{name.lower()}.py"
    if "REGKIT_AUTHORS" not in os.environ or not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"authors_{name.lower()}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(dim, shape)


def forward(model: nn.Module, moving: Tensor, fixed: Tensor) -> Any:
    with torch.no_grad():
        return model(moving, fixed)


def step(model: nn.Module, moving: Tensor, fixed: Tensor) -> None:
    model.zero_grad()
    sum(model.objective(model(moving, fixed), moving, fixed).values()).backward()


def run(quick: bool) -> None:
    """Print a table for each size."""
    for shape in ((128, 112), (40, 48, 40) if quick else (64, 80, 64)):
        pair = synthetic_pair(len(shape), size=shape)
        for name in NAMES:
            torch.manual_seed(0)
            model = getattr(models, name)(len(shape))
            count = sum(parameter.numel() for parameter in model.parameters())
            images = (pair.moving, pair.fixed)
            program = authors(name, len(shape), shape)
            ways = {
                "regkit, forward": partial(forward, model, *images),
                "regkit, forward, loss and backward": partial(step, model, *images),
                "authors' program, forward": None if program is None else partial(program, *images),
            }
            compare(f"{name}, {shape}, {count:,} parameters", ways, goal="a report", volume=pair.moving.numel())
