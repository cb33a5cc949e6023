"""Toy data: parity with the published generator, known answers, seeds."""

import random

import numpy as np
import pytest
import torch
from helpers.parity import Entries

from regkit.data import ShapePairs, _distance, _normals, shapes, smooth_displacement, synthetic_pair
from regkit.data.brains import BrainPairs
from regkit.data.vessels import VesselPairs
from regkit.fields import compose, difference, invert, jacobian_determinant, warp, warp_labels
from regkit.types import Pair

PARITY = Entries("gradicon")
DIMS = pytest.mark.parametrize("dim", [2, 3])


def test_filled_shapes_are_the_published_ones():
    drawn = shapes(6, size=40, seed=0)
    assert np.abs(2 * drawn.images.numpy() - 1 - PARITY["triangles_solid"]).max() < 1e-6


def test_hollow_shapes_are_the_published_ones():
    drawn = shapes(6, size=40, hollow=True, seed=0)
    assert np.abs(drawn.images.numpy() - PARITY["triangles_hollow"]).max() < 1e-6
    assert drawn.pointed.tolist() == (PARITY["triangles_draws"][4] > 0.5).tolist()


@DIMS
def test_labels_are_the_inside_of_filled_and_hollow_shapes(dim):
    size = (23, 31, 18)[:dim]
    filled, hollow = (shapes(5, dim=dim, size=size, hollow=h, seed=3) for h in (False, True))
    assert filled.images.shape == filled.labels.shape == (5, 1, *size)
    assert torch.equal(filled.labels.bool(), filled.images > 0.5) and torch.equal(filled.labels, hollow.labels)
    in_terms_of_filled = 4 * filled.images * (1 - filled.images)  # 1 - tanh²
    assert torch.allclose(hollow.images, in_terms_of_filled, atol=1e-6)
    for drawn in (filled, hollow):
        assert drawn.images.min() >= 0 and drawn.images.max() <= 1 and drawn.images.max() > 0.9


@DIMS
def test_volumes_are_those_of_balls_and_regular_simplices(dim):
    size, count = {2: 128, 3: 48}[dim], 24
    drawn = shapes(count, dim=dim, size=size, seed=1)
    draws = np.random.RandomState(1).random_sample((dim + 1, count))  # the centres, then the radius
    radii, centres = 0.2 + 0.2 * draws[dim], 0.4 + 0.3 * draws[:dim]
    inside = np.all((centres - radii > 0) & (centres + radii < 1), axis=0)  # not cut by the image's border
    pointed = drawn.pointed.numpy()
    assert (inside & pointed).any() and (inside & ~pointed).any()
    unit = {2: (np.pi, 3 * np.sqrt(3) / 4), 3: (4 / 3 * np.pi, 8 * np.sqrt(3) / 27)}[dim]
    volume = drawn.labels.flatten(1).sum(1).numpy() / (size - 1) ** dim
    expected = np.where(pointed, unit[1], unit[0]) * radii**dim
    assert np.abs(volume / expected - 1)[inside].max() < {2: 0.02, 3: 0.06}[dim]  # voxels at the surface are in or out


@DIMS
def test_faces_are_those_of_a_regular_simplex(dim):
    normals = _normals(np.random.RandomState(0).uniform(0, 6, dim * (dim - 1) // 2), dim)
    expected = (1 + 1 / dim) * np.eye(dim + 1) - 1 / dim  # unit vectors, -1/dim between any two
    assert np.abs(normals @ normals.T - expected).max() < 1e-12


def test_the_centre_of_a_shape_is_inside_also_on_a_grid_point():
    for dim in (2, 3):
        centre = [np.zeros((1,) * dim)] * dim
        for normals in (None, _normals(np.zeros(dim * (dim - 1) // 2), dim)):
            assert _distance(centre, 0.3, normals).item() == pytest.approx(-0.3 if normals is None else -0.3 / dim)


SETS = {
    "shapes, 2D": lambda seed: ShapePairs(6, size=(11, 14), seed=seed),
    "shapes, 3D": lambda seed: ShapePairs(6, dim=3, size=(11, 14, 9), seed=seed),
    "brains": lambda seed: BrainPairs(6, size=(45, 38), seed=seed),
    "vessels": lambda seed: VesselPairs(6, size=24, trees=3, seed=seed),
}


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: shapes(3, dim=3, size=9, seed=seed).images,
        *(lambda seed, make=make: make(seed)[2].fixed for make in SETS.values()),
        lambda seed: smooth_displacement((9, 12), amplitude=1, smoothness=2, seed=seed),
        lambda seed: synthetic_pair(3, seed, size=(9, 12, 10)).fixed,
    ],
)
def test_data_follow_from_their_seed_and_leave_the_global_state_alone(make):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first = make(4)
    np.random.random_sample(3)
    torch.rand(3)
    assert torch.equal(first, make(4)) and not torch.equal(first, make(5))
    np.random.set_state(("MT19937", before[1], *np.random.get_state()[2:]))
    torch.set_rng_state(before[2])
    state = np.random.get_state()[2]
    make(4)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[2])
    assert np.array_equal(np.random.get_state()[1], before[1]) and np.random.get_state()[2] == state


@pytest.mark.parametrize("name", SETS)
def test_pairs_are_indexed_sliced_and_iterated_alike(name):
    pairs, every = SETS[name](2), range(6)
    assert len(pairs) == 6 and isinstance(pairs[1:6:2], Pair)
    for part in (key for key, value in vars(pairs[0]).items() if isinstance(value, torch.Tensor)):
        each = [getattr(pair, part) for pair in pairs]
        for index, numbers in ((slice(1, 6, 2), every[1:6:2]), ([5, 3], [5, 3]), (slice(None), every), (-1, [5])):
            expected = torch.cat([each[number] for number in numbers])
            assert torch.equal(getattr(pairs[index], part), expected), (part, index)
    if "shapes" in name:
        assert torch.equal(pairs[4].moving_labels.bool(), pairs[4].moving > 0.5)
        assert torch.equal(pairs[4].fixed_labels.bool(), pairs[4].fixed > 0.5)
    with pytest.raises(IndexError):
        pairs[6]


def test_every_shape_is_moving_once_and_fixed_once():
    pairs = ShapePairs(20, size=16, seed=1)
    for dealt in (pairs[:].moving, pairs[:].fixed):
        assert torch.equal(dealt.flatten(1).sum(1).sort().values, pairs.shapes.images.flatten(1).sum(1).sort().values)
    assert not torch.equal(pairs[:].moving, pairs[:].fixed)


def test_held_out_pairs_share_no_shape_with_the_training_pairs():
    train, test = (ShapePairs(30, size=24, split=split, seed=7).shapes.images.flatten(1) for split in ("train", "test"))
    assert torch.cdist(train, test).min() > 0.1  # the closest shapes still differ


@DIMS
def test_diffeomorphic_displacements_do_not_fold_and_keep_to_the_amplitude(dim):
    shape = (27, 21, 19)[:dim]
    for seed in range(5):
        displacement = smooth_displacement(shape, amplitude=3, smoothness=3, seed=seed)
        assert displacement.shape == (1, dim, *shape)
        assert jacobian_determinant(displacement).min() > 0
        assert 1 < displacement.norm(dim=1).max() <= 3 + 1e-4
        there_and_back = compose(displacement, invert(displacement, tolerance=1e-3))
        assert there_and_back.abs().max() < 2e-3


@DIMS
def test_plain_displacements_have_the_amplitude_and_fold_when_steep(dim):
    shape = (27, 21, 19)[:dim]
    steep = smooth_displacement(shape, amplitude=6, smoothness=2, seed=0, diffeomorphic=False)
    assert steep.norm(dim=1).max().item() == pytest.approx(6, rel=1e-5)
    assert jacobian_determinant(steep).min() < 0
    smoother = smooth_displacement(shape, amplitude=6, smoothness=5, seed=0, diffeomorphic=False)
    slopes = [max(difference(field, axis).abs().max().item() for axis in range(dim)) for field in (steep, smoother)]
    assert slopes[1] < 0.6 * slopes[0]


@DIMS
@pytest.mark.parametrize("size", [7, (33, 24, 18)])
def test_synthetic_pairs_carry_their_answer(dim, size):
    size = size if isinstance(size, int) else size[:dim]
    for seed in range(3):
        pair = synthetic_pair(dim, seed, size=size)
        assert torch.equal(warp(pair.moving, pair.displacement), pair.fixed)
        assert torch.equal(warp_labels(pair.moving_labels, pair.displacement), pair.fixed_labels)
        assert jacobian_determinant(pair.displacement).min() > 0
        assert pair.spacing == (1.0,) * dim and pair.moving.shape[2:] == ((size,) * dim if size == 7 else size)
        assert pair.moving.min() >= 0 and pair.moving.max() <= 1
        assert set(pair.moving_labels.unique().tolist()) <= {0, 1, 2, 3}


def test_synthetic_pairs_move_as_far_as_asked():
    still, near, far = (synthetic_pair(size=40, motion=motion) for motion in (0, 0.05, 0.2))
    assert not still.displacement.any()
    assert torch.allclose(still.moving, still.fixed, atol=1e-5)  # the sampler's round-off
    assert 1 < near.displacement.norm(dim=1).max() <= 2 < far.displacement.norm(dim=1).max() <= 8
    assert set(near.moving_labels.unique().tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapes(2, dim=3, size=(8, 8)), "each of 3 axes"),
        (lambda: shapes(2, size=0), "positive number of voxels"),
        (lambda: smooth_displacement((8, 8), amplitude=1, smoothness=-1), "amplitude (and smoothness )?must be"),
        (lambda: smooth_displacement((8,), amplitude=1, smoothness=1), "dim must be (2 or 3|one of 2, 3)"),
        (lambda: synthetic_pair(size=(8, 8, 8)), "each of 2 axes"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
