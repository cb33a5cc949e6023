"""The claims ledger: what the five papers claim, in our words, and what it is judged on here.

The claims are rows of claims.toml: each is judged on effects (differences between variants of `studies`, or methods of
the leaderboard), on a law or a count of `LAWS` that is taken of a model now, or says why it cannot be judged on data
that a laptop can make. What does not hold stays in. `python -m regkit ledger` judges all together and writes the table.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regkit.course.evidence import Law, read
from regkit.course.studies import STUDIES, load
from regkit.fields import compose, exponential, invert
from regkit.losses import gradicon, icon
from regkit.metrics import folds
from regkit.models import SACBNet, SITReg, SPNet, VoxelMorph
from regkit.models.sitreg import spline_matrix, two_sided, upsample_controls
from regkit.types import Displacement, Pair, stack

# ---------------------------------------------------------------------------------------------- laws and counts
_PAIRS = 4


def _some(study: str) -> tuple[Any, Pair]:
    """The stored reference of a study and some of its held-out pairs."""
    return load(study).model, stack(STUDIES[study].held_out[:_PAIRS])


def symmetry(study: str) -> tuple[str, bool]:
    """What a model finds for the exchanged images is what it gave as inverse."""
    model, pair = _some(study)
    with torch.no_grad():
        there, back = model(pair.moving, pair.fixed), model(pair.fixed, pair.moving)
    both = (there.displacement, back.inverse), (there.inverse, back.displacement)
    difference = max(float((one - other).abs().max()) for one, other in both)
    bound = "exactly 0" if difference == 0 else "below 1e-6" if difference < 1e-6 else f"{difference:.1g}"
    return f"largest difference over {_PAIRS} held-out pairs: {bound} voxels", difference < 1e-6


def evaluations(study: str, most: int = 7) -> tuple[str, bool]:
    """How often a step's displacement is looked up until its inverse is within the model's tolerance."""
    model, pair = _some(study)
    with torch.no_grad():
        steps = [stage.step for stage in model.stages(pair.moving, pair.fixed)]
    counts = [_evaluations(step[i : i + 1]) for step in steps for i in range(len(step))]
    within = sum(count <= most for count in counts) / len(counts)
    words = f"{100 * within:.0f} % of {len(counts)} inversions take at most {most}, the longest {max(counts)}"
    return words, max(counts) <= most


def _evaluations(step: Tensor) -> int:
    for count in range(2, 50):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                invert(step, max_iterations=count, method="anderson")
            except RuntimeWarning:
                continue
        return count
    return 50


def _kept(compute: Callable[[], Tensor], *inputs: Tensor, least: int = 0) -> int:
    """The bytes that a computation keeps for its backward pass, with its result; without inputs and what is smaller."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        saved.append(compute())
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in saved}
    given = {each.untyped_storage().data_ptr() for each in inputs}
    return sum(size for place, size in storages.items() if size >= least and place not in given)


def _squared(velocity: Displacement) -> Displacement:
    """The standard scaling and squaring, as autograd keeps it: the sampling grid and the result of each of seven."""
    size = torch.tensor(velocity.shape[2:]).view(1, -1, 1, 1) - 1
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in velocity.shape[2:]), indexing="ij"))[None]
    u = velocity / 2**7
    for _ in range(7):
        places = (2 * (grid + u) / size - 1).movedim(1, -1).flip(-1)
        u = u + nn.functional.grid_sample(u, places, padding_mode="border", align_corners=True)
    return u


def update_memory() -> tuple[str, bool]:
    """Fields that an inversion-based update keeps for the backward pass, against two ways to square a velocity."""
    step = (0.2 * torch.randn(2, 2, 17, 19, generator=torch.Generator().manual_seed(0))).requires_grad_()
    field = step.untyped_storage().nbytes()
    ways = (lambda: compose(*two_sided(step, invert)), lambda: _squared(step), lambda: exponential(step))
    inverted, squared, ours = (_kept(way, step, least=field) // field for way in ways)
    words = f"{inverted} fields an update; a squared velocity keeps {squared}, regkit's, which recomputes, {ours}"
    return words, squared >= 5 * inverted


@lru_cache(None)
def _training_memory(model: type[nn.Module], **arguments: Any) -> int:
    """Bytes that the forward pass of one training step keeps, on 32³ voxels."""
    pair = torch.rand(2, 1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    network: Any = model(3, **arguments)

    def loss() -> Tensor:
        terms = network.objective(network(*pair), *pair)
        return sum(terms.values())  # type: ignore[no-any-return]

    return _kept(loss)


def memory_ratio(
    one: tuple[type, dict[str, Any]], other: tuple[type, dict[str, Any]], least: float, most: float
) -> Law:
    """What training `one` keeps against `other`, in 3D; as claimed between two bounds."""

    def law() -> tuple[str, bool]:
        sizes = [_training_memory(model, **arguments) for model, arguments in (one, other)]
        ratio = sizes[0] / sizes[1]
        return (
            f"{sizes[0] / 1e6:.0f} MB against {sizes[1] / 1e6:.0f} MB on 32³ voxels: {ratio:.2f}",
            least <= ratio <= most,
        )

    return law


def parameters(model: Any, millions: float) -> tuple[str, bool]:
    """How many weights a network has in 3D, as the paper rounds it; 2^20 may be a million."""
    count = sum(each.numel() for each in model(3).parameters())
    digits = len(f"{millions}".split(".")[1])
    return f"{count:,}", millions in (round(count / 1e6, digits), round(count / 2**20, digits))


def translation() -> tuple[str, bool]:
    """What a shift of 3 voxels between two maps that are inverse otherwise costs."""
    shift = torch.zeros(1, 2, 33, 40)
    shift[:, 0] = 3.0
    costs = float(gradicon(shift, torch.zeros_like(shift))), float(icon(shift, torch.zeros_like(shift)))
    return f"GradICON {costs[0]:.1g}, ICON {costs[1]:.2g}", costs[0] < 1e-6 < costs[1]


def bound() -> tuple[str, bool]:
    """Folds in the steps of SITReg as it is here, 0.99 of a proven bound, under weights a hundred times too large."""
    model = SITReg(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
        pair = stack(STUDIES["sitreg"].held_out[:1])
        count = sum(folds(stage.step).count for stage in model.stages(pair.moving, pair.fixed))
    return f"with the later release's bound {count:.0f} folded voxels in all steps", count == 0


def gamma_limit(gamma: float = 0.15, size: int = 8, factor: int = 2) -> tuple[str, bool]:
    """Folds of the steepest control values within the paper's limit, on its prefiltered spline, in 2D and 3D."""
    matrix = spline_matrix(size * factor, factor, "prefiltered")
    place = size * factor // 2
    slope, value = factor * (matrix[place + 1] - matrix[place]), matrix[place]
    counts = []
    for dim in (2, 3):
        parts = [[slope if axis == along else value for axis in range(dim)] for along in range(dim)]
        steepest = sum(lattice(part) for part in parts)
        control = torch.as_tensor(-gamma * np.sign(steepest)).expand(1, dim, *[size] * dim)
        step = upsample_controls(control, [size * factor] * dim, factor, spline="prefiltered")
        counts.append(folds(step, definition="forward").count)
    return f"the steepest step has {counts[0]:.0f} folded voxels in 2D, {counts[1]:.0f} in 3D", not any(counts)


def lattice(vectors: list[np.ndarray]) -> np.ndarray:
    """The outer product of one vector an axis."""
    return np.asarray(np.einsum(*(part for axis, each in enumerate(vectors) for part in (each, [axis]))))


# ---------------------------------------------------------------------------------------------- the rows
LAWS: dict[str, Law] = {
    "translation": translation,
    "symmetry of SITReg": partial(symmetry, "sitreg"),
    "symmetry of SPnet": partial(symmetry, "spnet"),
    "iterations": partial(evaluations, "sitreg"),
    "update memory": update_memory,
    "gamma limit": gamma_limit,
    "bound": bound,
    "memory of SPnet": memory_ratio((SPNet, {}), (VoxelMorph, {"similarity": "lncc"}), 1.8, 2.2),
    "memory of blocks": memory_ratio((SACBNet, {}), (SACBNet, {"blocks": "none"}), 1.1, math.inf),
    "memory of clusters": memory_ratio((SACBNet, {"clusters": 8}), (SACBNet, {"clusters": 5}), 0.9, 1.1),
    "weights of SITReg": partial(parameters, SITReg, 1.2),
    "weights of SPnet": partial(parameters, SPNet, 0.41),
    "weights of SACB-Net": partial(parameters, SACBNet, 1.11),
}
CLAIMS = read(Path(__file__).with_suffix(".toml"), LAWS)
