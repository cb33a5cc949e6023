"""Vessel trees: Murray's law, drawings against a brute-force distance, deformations that are known and do not fold."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from regkit.data import vessels
from regkit.data.vessels import VesselPairs, deformation_error, draw_tree, grow_tree, random_deformation
from regkit.fields import compose, invert, jacobian_determinant, warp, warp_labels
from regkit.types import Pair

SHAPE = (41, 53)


def children_of(tree):
    families = {}
    for branch in tree:
        families.setdefault(branch.parent, []).append(branch)
    return families


@pytest.mark.parametrize("seed", range(3))
def test_vessels_share_their_flow_by_murrays_law(seed):
    tree = grow_tree(seed)
    families = children_of(tree)
    whole = 0
    for parent, children in families.items():
        if parent < 0:
            assert len(children) == 4
            continue
        cubes = [child.radius**3 for child in children]
        assert all(0.19 < cube / tree[parent].radius ** 3 < 0.81 for cube in cubes)
        if len(children) == 2:
            assert sum(cubes) == pytest.approx(tree[parent].radius ** 3)
            whole += 1
    assert whole > 10 and len(tree) > 30


@pytest.mark.parametrize("seed", range(3))
def test_a_branch_starts_where_its_parent_ends(seed):
    tree = grow_tree(seed)
    for index, branch in enumerate(tree):
        if branch.parent < 0:
            assert np.allclose(branch.centre[0], tree[0].centre[0])  # the disc
        else:
            assert branch.parent < index and np.allclose(branch.centre[0], tree[branch.parent].centre[-1])
        lengths = np.linalg.norm(np.diff(branch.centre, axis=0), axis=1)
        assert np.allclose(lengths, 0.05) and branch.centre.shape[1] == 2


def test_two_vessels_leave_on_two_sides_at_murrays_angles():
    random = np.random.RandomState(0)
    for share in (0.2, 0.5, 0.7):
        radii, turns = zip(*(vessels._part(0.4, share, random) for _ in range(40)), strict=True)
        assert np.allclose((radii[0] / 0.4) ** 3, [share, 1 - share]) and (np.prod(turns, axis=1) < 0).all()
        ratios = np.abs(turns) / np.abs(turns).mean(0)
        assert 0.6 < ratios.min() < 0.85 and 1.15 < ratios.max() < 1.5  # each angle times 0.7 to 1.5, of mean 1.1
        if share == 0.5:  # cos θ = 2^(-1/3): 37.5 degrees
            assert np.degrees(np.abs(turns).mean()) / 1.1 == pytest.approx(37.5, rel=0.05)
    wide, narrow = np.abs(np.mean([np.abs(vessels._part(1, 0.8, random)[1]) for _ in range(100)], axis=0))
    assert wide < 0.6 * narrow  # the thicker vessel turns less


@pytest.mark.parametrize("shape", [SHAPE, (64, 37)])
def test_a_line_is_drawn_at_its_place_with_its_width(shape):
    radius = 0.48 * min(shape)
    line = np.array([[-0.5, 0.0], [0.5, 0.0]])  # along axis 0, through the centre
    image, labels = draw_tree([vessels.Branch(line, 0.1, -1)], shape)
    assert image.shape == labels.shape == (1, 1, *shape) and labels.dtype == torch.long
    row = (shape[0] - 1) // 2
    offset = np.abs(np.arange(shape[1]) - (shape[1] - 1) / 2)
    assert np.allclose(image[0, 0, row].numpy(), 2.0 ** -((offset / (0.1 * radius)) ** 2), atol=1e-6)
    assert torch.equal(labels.bool(), image > 0.5)
    rows = np.flatnonzero(labels[0, 0].any(1).numpy()) - (shape[0] - 1) / 2
    assert np.abs(rows).max() == pytest.approx(0.6 * radius, abs=1)  # half the line, and its round cap


def test_thin_vessels_stay_visible_on_a_coarse_grid():
    line = np.array([[-0.6, -0.33], [0.6, 0.41]])
    image, _ = draw_tree([vessels.Branch(line, 0.001, -1)], 33)
    crossed = image[0, 0, 10:22].max(1).values
    assert crossed.min() > 0.5


def test_distances_are_those_of_a_finely_painted_line():
    tree, size = grow_tree(2), 61
    image, _ = draw_tree(tree, size)
    upsampled, radius, expected = 8, 0.48 * size, np.zeros((61, 61))
    for branch in tree:
        canvas = np.ones((size * upsampled,) * 2)
        for start, end in zip(branch.centre[:-1], branch.centre[1:], strict=True):
            places = (np.linspace(start, end, 30) * radius + (size - 1) / 2) * upsampled
            inside = np.round(places[(places >= 0).all(1) & (places < size * upsampled - 1).all(1)]).astype(int)
            canvas[tuple(inside.T)] = 0
        if canvas.min() == 1:
            continue
        distance = distance_transform_edt(canvas)[::upsampled, ::upsampled] / upsampled
        expected = np.maximum(expected, 2.0 ** -((distance / max(branch.radius * radius, 0.7)) ** 2))
    inner = vessels.field_of_view(size - 6)[0, 0].numpy()
    error = np.abs(image[0, 0].numpy() - expected)[3:-3, 3:-3][inner]
    assert error.max() < 0.13 and error.mean() < 0.02  # a painted point is up to 0.09 voxels off


def test_nothing_is_drawn_outside_the_round_field_of_view():
    image, labels = draw_tree(grow_tree(0), SHAPE)
    seen = vessels.field_of_view(SHAPE)
    assert seen.sum().item() == pytest.approx(np.pi * (0.48 * 41) ** 2, rel=0.01)
    assert torch.equal(seen, seen.flip(2)) and torch.equal(seen, seen.flip(3))
    assert not labels[~seen].any() and image[~seen].max() <= 0.5
    assert image.min() >= 0 and image.max() <= 1 and 0.05 < labels[seen].float().mean() < 0.4


@pytest.mark.parametrize("motion", [0.044, 0.1])
def test_deformations_are_invertible_and_as_long_as_asked(motion):
    fields = random_deformation(SHAPE, motion=motion, count=40, seed=3)
    assert fields.shape == (40, 2, *SHAPE) and jacobian_determinant(fields).min() > 0
    there_and_back = compose(fields[:5], invert(fields[:5], tolerance=1e-3, max_iterations=400))
    assert there_and_back.abs().max() < 2e-3
    spread = fields[:, :, 10:31, 13:40].square().mean().sqrt().item() / 41
    assert 0.6 * motion < spread < 1.3 * motion  # between control points a spline is shorter than at them


def test_no_motion_is_none():
    assert not random_deformation(SHAPE, motion=0).any()


@pytest.mark.parametrize("size", [32, SHAPE])
def test_pairs_carry_their_answer(size):
    pairs = VesselPairs(8, size=size, trees=3, seed=1)
    for index in (0, 5, -1):
        pair = pairs[index]
        assert torch.equal(pair.fixed, warp(pair.moving, pair.displacement))
        assert torch.equal(pair.fixed_labels, warp_labels(pair.moving_labels, pair.displacement))
        assert pair.fixed_labels.sum() > 0 and not torch.equal(pair.moving, pair.fixed)
    assert torch.equal(pairs[1].moving, pairs[4].moving) and not torch.equal(pairs[1].fixed, pairs[4].fixed)


def test_no_test_tree_or_deformation_is_seen_in_training():
    train, test = (VesselPairs(12, size=32, trees=6, split=split, seed=4) for split in ("train", "test"))
    assert torch.cdist(train.images.flatten(1), test.images.flatten(1)).min() > 3
    assert torch.cdist(train.displacement.flatten(1), test.displacement.flatten(1)).min() > 3
    assert torch.cdist(train.images.flatten(1), train.images.flatten(1)).fill_diagonal_(9).min() > 3


def test_the_deformation_error_is_zero_for_the_truth_and_a_length_in_voxels():
    pair = VesselPairs(4, size=SHAPE, seed=2)[:]
    assert not deformation_error(pair.displacement, pair).any()
    off = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert torch.allclose(deformation_error(pair.displacement + off, pair), torch.tensor(5.0))
    outside = ~vessels.field_of_view(SHAPE)
    assert not deformation_error(pair.displacement + 9 * outside, pair).any()  # nothing is asked where nothing is seen


def test_the_deformation_error_leaves_out_what_the_moving_image_does_not_show():
    images = VesselPairs(1, size=SHAPE, motion=0, seed=2)[:]
    shift = torch.zeros(1, 2, *SHAPE)
    shift[:, 1] = 12  # the right part of the fixed field looks at places right of the moving one
    pair = Pair(images.moving, warp(images.moving, shift), displacement=shift)
    wrong = shift.clone()
    wrong[..., 40:] += 5
    assert not deformation_error(wrong, pair).any()
    wrong[..., 20:] += 5
    assert deformation_error(wrong, pair).item() > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VesselPairs(4, trees=0), "trees must be at least 1"),
        (lambda: VesselPairs(4, motion=-1), "motion must be a finite fraction"),
        (lambda: VesselPairs(4, split="validation"), "split must be one of"),
        (lambda: draw_tree(grow_tree(0), (8, 8, 8)), "each of 2 axes"),
        (lambda: grow_tree(-1), "seed must be from 0"),
        (lambda: deformation_error(torch.zeros(1, 2, 9, 9), Pair(*torch.zeros(2, 1, 1, 9, 9))), "true displacement"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
