"""Every network: forward, and with loss and backward, in 2D and in 3D; beside the authors' programs where given.

REGKIT_AUTHORS names a folder with a file <method>.py for each authors' program that is at hand (gradicon, sitreg, ...).
It defines `build(dim, shape)`, which returns a function of (moving, fixed) that runs the program's forward pass.
"""

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
PUBLISHED_CONVOLUTIONS = 0.219  # CPU seconds
PUBLISHED: dict[str, tuple[Callable[[], nn.Module], float]] = {  # the authors' forward pass, CPU seconds
    "SITReg, paper": (lambda: models.SITReg.paper(dim=3), 2.4),
    "SITReg, released": (lambda: models.SITReg.released(dim=3), 2.7),
    "SACB-Net": (lambda: models.SACBNet(3), 2.2),
    "SPnet": (lambda: models.SPNet(3), 5.7),
    "SM-GICNet, both directions": (lambda: models.SMGICNet(3), 3.45),
}


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


def forward(model: nn.Module, *images: Tensor) -> Any:
    with torch.no_grad():
        return model(*images)


def step(model: nn.Module, moving: Tensor, fixed: Tensor) -> None:
    model.zero_grad()
    sum(model.objective(model(moving, fixed), moving, fixed).values()).backward()


def beside_published_times() -> None:
    """Forward passes at 64 x 80 x 64 beside CPU seconds that were measured with the authors' programs elsewhere.

    The unit is a stretch of convolutions timed along with SITReg's program: its update network of level 1, run twice.
    """
    images = torch.rand(2, 1, 1, 64, 80, 64).unbind()
    convolutions = (nn.Conv3d(72, 62, 3, padding=1), nn.Conv3d(62, 62, 3, padding=1), nn.Conv3d(62, 3, 1))
    layers = nn.Sequential(*convolutions)
    features = torch.randn(1, 72, 32, 40, 32)
    ways = {
        "convolutions": lambda: [forward(layers, features) for _ in range(2)],
        **{name: partial(forward, make(), *images) for name, (make, _) in PUBLISHED.items()},
    }
    costs = compare("Forward passes beside published times", ways, goal="a report", volume=images[0].numel())
    yardstick = costs["convolutions"].seconds / PUBLISHED_CONVOLUTIONS
    for name, (_, seconds) in PUBLISHED.items():
        ratio = seconds * yardstick / costs[name].seconds
        print(f"  {name}: {ratio:.2f} x faster than {seconds} s, with convolutions {yardstick:.2f} x slower here")


def run(quick: bool) -> None:
    """Print a table for each size."""
    beside_published_times()
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
