"""Instance optimisation: better than what it started from, with an inverse, and the model stays as it was."""

import copy

import pytest
import torch

from regkit import data, fields, losses, metrics, models, optimise
from regkit.types import Registration

SHAPES = [(39, 44), (21, 18, 23)]


def pair_of(shape):
    return data.synthetic_pair(len(shape), 2, size=shape, motion=0.2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_field_is_refined_and_inverted(shape):
    pair = pair_of(shape)
    half = 0.5 * pair.displacement
    start = Registration(half)
    kept = half.clone()
    found = optimise.refine_field(
        pair.moving, pair.fixed, start, similarity=losses.mse, weight=0.03, steps=20, halvings=(1, 0), progress=False
    )
    assert torch.equal(half, kept)
    before, after = (losses.mse(fields.warp(pair.moving, u), pair.fixed) for u in (half, found.displacement))
    assert after < 0.5 * before
    assert metrics.evaluate(found, pair)["dice"] > metrics.evaluate(start, pair)["dice"]
    assert metrics.inverse_consistency(found.displacement, found.inverse) < 0.2
    assert not found.displacement.requires_grad


def test_without_a_start_it_is_registration_by_optimisation(capsys):
    pair = pair_of(SHAPES[0])
    found = optimise.refine_field(
        pair.moving, pair.fixed, similarity=losses.mse, weight=0.03, steps=30, halvings=(1, 0)
    )
    score = metrics.evaluate(found, pair)
    assert score["dice"] > score["dice_before"] + 0.05
    assert "refine: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_refined_on_a_copy(shape):
    pair = pair_of(shape)
    model = models.VoxelMorph(len(shape), encoder_channels=(8, 8), decoder_channels=(8, 8, 8)).eval()
    state = copy.deepcopy(model.state_dict())
    found = optimise.refine_weights(model, pair.moving, pair.fixed, steps=25, learning_rate=3e-3, progress=False)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items()) and not model.training
    with torch.no_grad():
        before = model(pair.moving, pair.fixed)
    losses_of = [sum(model.objective(each, pair.moving, pair.fixed).values()).item() for each in (before, found)]
    assert losses_of[1] < 0.9 * losses_of[0]
    assert not found.displacement.requires_grad


@pytest.mark.parametrize("slices", [2, 5])
def test_thin_volumes_are_registered_too(slices):
    flat = pair_of((29, 32))
    moving, fixed = (
        image[..., None].expand(-1, -1, -1, -1, slices).contiguous() for image in (flat.moving, flat.fixed)
    )
    found = optimise.refine_field(moving, fixed, progress=False)
    assert losses.ncc(fields.warp(moving, found.displacement), fixed) < 0.7 * losses.ncc(moving, fixed)


def test_other_grids_are_refused():
    pair = pair_of(SHAPES[0])
    with pytest.raises(ValueError, match="fixed and displacement must share one grid"):
        optimise.refine_field(pair.moving, pair.fixed, Registration(torch.zeros(1, 2, 5, 5)))
