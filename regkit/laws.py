"""Laws that hold by construction, judged on stored models: rows of the claims ledger that no training decides."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from regkit.fields import compose, invert
from regkit.ledger import Finding
from regkit.losses import gradicon, icon
from regkit.metrics import folds
from regkit.models import SITReg
from regkit.studies import stack
from regkit.symmetry import two_sided
from regkit.types import Pair
from regkit.variants import STUDIES, load

_PAIRS = 4
SQUARING = 15  # fields that the standard scaling and squaring keeps with seven steps: two each, and the result


def _some(study: str) -> tuple[Any, Pair]:
    """The stored reference of a study and some of its held-out pairs."""
    return load(study).model, stack(STUDIES[study].held_out[:_PAIRS])


def symmetry(study: str) -> Finding:
    """What a model finds for the exchanged images is what it gave as inverse."""
    model, pair = _some(study)
    with torch.no_grad():
        there, back = model(pair.moving, pair.fixed), model(pair.fixed, pair.moving)
    difference = max(
        float((one - other).abs().max())
        for one, other in ((there.displacement, back.inverse), (there.inverse, back.displacement))
    )
    bound = "exactly 0" if difference == 0 else "below 1e-6" if difference < 1e-6 else f"{difference:.1g}"
    return Finding(f"largest difference over {_PAIRS} held-out pairs: {bound} voxels", difference < 1e-6)


def evaluations(study: str, most: int = 7) -> Finding:
    """How often a step's displacement is looked up until its inverse is within the model's tolerance."""
    model, pair = _some(study)
    with torch.no_grad():
        steps = [stage.step for stage in model.stages(pair.moving, pair.fixed)]
    counts = [_evaluations(step[i : i + 1]) for step in steps for i in range(len(step))]
    within = sum(count <= most for count in counts) / len(counts)
    words = f"{100 * within:.0f} % of {len(counts)} inversions take at most {most}, the longest {max(counts)}"
    return Finding(words, max(counts) <= most)


def _evaluations(step: Tensor) -> int:
    for count in range(2, 50):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                invert(step, max_iterations=count)
            except RuntimeWarning:
                continue
        return count
    return 50


def memory() -> Finding:
    """Fields that an inversion-based update keeps for the backward pass, against the standard squaring."""
    step = (0.2 * torch.randn(2, 2, 17, 19, generator=torch.Generator().manual_seed(0))).requires_grad_()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        update = compose(*two_sided(step, invert))
    storages = {tensor.untyped_storage().data_ptr() for tensor in (*saved, update) if tensor.numel() >= step.numel()}
    kept = len(storages - {step.untyped_storage().data_ptr()})
    words = f"{kept} fields are kept for the backward pass, where seven standard squarings keep {SQUARING}"
    return Finding(words, 5 * kept <= SQUARING)


def translation() -> Finding:
    """What a shift of 3 voxels between two maps that are inverse otherwise costs."""
    shift = torch.zeros(1, 2, 33, 40)
    shift[:, 0] = 3.0
    costs = float(gradicon(shift, torch.zeros_like(shift))), float(icon(shift, torch.zeros_like(shift)))
    return Finding(f"GradICON {costs[0]:.1g}, ICON {costs[1]:.2g}", costs[0] < 1e-6 < costs[1])


def control_limit() -> Finding:
    """No step of SITReg folds, whatever the weights: here the safe limit under weights a hundred times too large."""
    model = SITReg(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
        pair = stack(STUDIES["sitreg"].held_out[:1])
        steps = [stage.step for stage in model.stages(pair.moving, pair.fixed)]
    count = sum(folds(step).count for step in steps)
    return Finding(f"{count:.0f} folded voxels in all steps", count == 0)
