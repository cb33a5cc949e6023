"""Optimising one pair: known maps are found again, options do what they say, and what was found gets better."""

import copy
import math

import pytest
import torch

from regkit import data, fields, losses, metrics, models, optimise
from regkit.types import Pair, Registration

SHAPES = [(31, 26), (13, 17, 15)]
REFINED = [(39, 44), (21, 18, 23)]
QUICK = {"similarity": losses.mse, "weight": 0.03, "halvings": (1, 0)}


def affine_pair(shape):
    """Shapes, and the same turned by 15 degrees in the first plane, grown by a tenth and moved."""
    dim = len(shape)
    pair = data.synthetic_pair(dim, 1, size=shape)
    matrix = torch.eye(dim, dim + 1)[None] * 1.1
    turn = 1.1 * torch.tensor([[math.cos(0.26), -math.sin(0.26)], [math.sin(0.26), math.cos(0.26)]])
    matrix[0, :2, :2], matrix[0, :, -1] = turn, torch.tensor([2.0, -1.0, 0.5])[:dim]
    return Pair(pair.moving, fields.warp(pair.moving, fields.affine_displacement(matrix, shape))), matrix


def synthetic(shape):
    return data.synthetic_pair(len(shape), 2, size=shape, motion=0.15)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_affine_map_is_found_again(shape):
    pair, matrix = affine_pair(shape)
    found = optimise.optimise_affine(pair.moving, pair.fixed)
    truth = fields.affine_displacement(matrix, shape)
    assert truth.norm(dim=1).mean() > 1.5
    assert (fields.affine_displacement(found, shape) - truth).norm(dim=1).mean() < 0.2


def test_optimising_needs_no_gradient_of_its_caller():
    pair = synthetic(SHAPES[0])
    usual = optimise.optimise_field(pair.moving, pair.fixed, steps=3).displacement
    with torch.no_grad():
        assert torch.equal(optimise.optimise_field(pair.moving, pair.fixed, steps=3).displacement, usual)
        assert not optimise.optimise_affine(pair.moving, pair.fixed, steps=3).requires_grad
    assert usual.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_start_in_half_precision_is_refined_in_float32(dtype):
    pair = synthetic(SHAPES[0])
    start = pair.displacement.to(dtype)
    found, usual = (optimise.optimise_field(pair.moving, pair.fixed, start=u, steps=3) for u in (start, start.float()))
    assert torch.equal(found.displacement, usual.displacement) and usual.displacement.dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_is_inverted_as_a_map(shape):
    _, matrix = affine_pair(shape)
    points = torch.rand(1, len(shape), 9, generator=torch.Generator().manual_seed(3)) * 9
    there = fields.move_affinely(points.unflatten(2, (9, *[1] * (len(shape) - 1))), matrix, shape)
    again = fields.move_affinely(there, optimise.invert_affine(matrix), shape)
    torch.testing.assert_close(again.flatten(2), points, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("output", ["displacement", "velocity"])
def test_a_field_lays_moving_onto_fixed(shape, output):
    pair = synthetic(shape)
    found = optimise.optimise_field(pair.moving, pair.fixed, output=output, steps=100)
    before = losses.mse(pair.moving, pair.fixed)
    assert losses.mse(fields.warp(pair.moving, found.displacement), pair.fixed) < 0.1 * before
    assert not found.displacement.requires_grad and not found.levels
    if output == "displacement":
        assert found.inverse is None and found.velocity is None
    else:
        assert torch.equal(found.displacement, fields.exponential(found.velocity))
        assert torch.equal(found.inverse, fields.exponential(-found.velocity))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_affine_map_is_applied_before_the_field(shape):
    pair, matrix = affine_pair(shape)
    generator = torch.Generator().manual_seed(0)
    field = losses.gaussian_blur(torch.randn(1, len(shape), *shape, generator=generator), 2.0)
    start = field / field.abs().max()
    found = optimise.optimise_field(pair.moving, pair.fixed, output="velocity", affine=matrix, start=start, steps=0)
    outer = fields.affine_displacement(matrix, shape)
    away = (slice(None), slice(None), *[slice(4, -4)] * len(shape))  # compose reads outside near the border
    expected = fields.compose(outer, fields.exponential(start))
    assert torch.allclose(found.displacement[away], expected[away], atol=1e-4)
    round_trip = fields.compose(found.displacement, found.inverse)
    assert round_trip[away].abs().max() < 0.15
    assert found.displacement.abs().max() > 2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_larger_weight_gives_a_smoother_field_and_a_worse_fit(shape):
    pair = synthetic(shape)
    rough, smooth = (
        optimise.optimise_field(pair.moving, pair.fixed, weight=w, steps=60).displacement for w in (0.0, 1.0)
    )
    assert losses.diffusion(smooth) < 0.5 * losses.diffusion(rough)
    misfit = [losses.mse(fields.warp(pair.moving, field), pair.fixed) for field in (rough, smooth)]
    assert misfit[0] < misfit[1]


def test_the_callback_sees_what_stands_before_each_step():
    pair, seen = synthetic(SHAPES[0]), []
    start = 0.1 * torch.ones(1, 2, *SHAPES[0])
    kept, options = start.clone(), {"start": start, "callback": lambda step, now: seen.append((step, now))}
    found = optimise.optimise_field(pair.moving, pair.fixed, steps=3, **options)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert torch.equal(start, kept) and torch.equal(seen[0][1].displacement, kept)
    again = optimise.optimise_field(pair.moving, pair.fixed, start=start, steps=2)
    assert torch.equal(again.displacement, seen[2][1].displacement)
    assert not torch.equal(found.displacement, seen[2][1].displacement)


def test_the_items_of_a_batch_are_pairs_of_their_own():
    pairs = [data.synthetic_pair(2, seed, size=(17, 20)) for seed in (0, 1)]
    moving, fixed = (torch.cat([getattr(pair, name) for pair in pairs]) for name in ("moving", "fixed"))
    together = optimise.optimise_field(moving, fixed, steps=40).displacement
    alone = torch.cat([optimise.optimise_field(pair.moving, pair.fixed, steps=40).displacement for pair in pairs])
    assert alone.abs().max() > 0.5
    assert (together - alone).abs().mean() < 0.02  # Adam's epsilon sees gradients half as large


def test_another_similarity_is_minimised():
    pair = synthetic(SHAPES[0])
    found = optimise.optimise_field(1 - 0.5 * pair.moving, 1 - pair.fixed, similarity=losses.ncc, steps=100)
    score = losses.ncc(fields.warp(pair.moving, found.displacement), pair.fixed)
    assert score < 0.2 * losses.ncc(pair.moving, pair.fixed)
    labelled = synthetic((48, 40))
    field = optimise.optimise_field(labelled.moving, labelled.fixed, steps=100).displacement
    score = metrics.evaluate(field, labelled)
    assert score["dice"] > max(0.9, score["dice_before"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": -1.0}, "weight must be 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"start": torch.zeros(1, 2, 5, 5)}, "moving and start must share one grid"),
        ({"affine": torch.zeros(1, 3, 4)}, "matrix must be"),
    ],
)
def test_bad_options_are_refused(options, words):
    pair = synthetic(SHAPES[0])
    with pytest.raises(ValueError, match=words):
        optimise.optimise_field(pair.moving, pair.fixed, **{"steps": 1, **options})


# ---------------------------------------------------------------------------------------------- refinement
def moved(shape):
    return data.synthetic_pair(len(shape), 2, size=shape, motion=0.2)


@pytest.mark.parametrize("shape", REFINED)
def test_a_field_is_refined_and_inverted(shape):
    pair = moved(shape)
    half = 0.5 * pair.displacement
    start, kept = Registration(half), half.clone()
    found = optimise.refine_field(pair.moving, pair.fixed, start, steps=20, progress=False, **QUICK)
    assert torch.equal(half, kept)
    before, after = (losses.mse(fields.warp(pair.moving, u), pair.fixed) for u in (half, found.displacement))
    assert after < 0.5 * before
    assert metrics.evaluate(found, pair)["dice"] > metrics.evaluate(start, pair)["dice"]
    assert metrics.inverse_consistency(found.displacement, found.inverse) < 0.2
    assert not found.displacement.requires_grad


def test_without_a_start_it_is_registration_by_optimisation(capsys):
    pair = moved(REFINED[0])
    found = optimise.refine_field(pair.moving, pair.fixed, steps=30, **QUICK)
    score = metrics.evaluate(found, pair)
    assert score["dice"] > score["dice_before"] + 0.05
    assert "optimise: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("shape", REFINED)
def test_weights_are_refined_on_a_copy(shape):
    pair = moved(shape)
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
    flat = moved((29, 32))
    moving, fixed = (each[..., None].expand(-1, -1, -1, -1, slices).contiguous() for each in (flat.moving, flat.fixed))
    found = optimise.refine_field(moving, fixed, progress=False)
    assert losses.ncc(fields.warp(moving, found.displacement), fixed) < 0.7 * losses.ncc(moving, fixed)


def test_other_grids_are_refused():
    pair = moved(REFINED[0])
    with pytest.raises(ValueError, match="fixed and displacement must share one grid"):
        optimise.refine_field(pair.moving, pair.fixed, Registration(torch.zeros(1, 2, 5, 5)))
