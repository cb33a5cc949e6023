"""Synthetic brains: laws of the anatomy, of the subjects and of the true displacement; seeds; no network."""

import hashlib
import socket
from statistics import mean

import pytest
import torch
import torch.nn.functional as F

from regkit.data import anatomy as atlas
from regkit.data.anatomy import PAIRED, STRUCTURES, anatomy
from regkit.data.brains import BrainPairs, brain_source, subject, true_displacement
from regkit.fields import compose, jacobian_determinant, warp, warp_labels
from regkit.metrics import dice
from regkit.models import VoxelMorph
from regkit.training import Recipe, train
from regkit.types import spatial

SIZES = {2: (45, 38), 3: (31, 36, 28)}
DIMS = pytest.mark.parametrize("dim", [2, 3])


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("synthetic brains must not open a connection")

    monkeypatch.setattr(socket, "socket", refuse)


def overlap(first, second):
    return mean(dice(first, second).values())


def test_the_template_is_the_one_that_every_stored_result_was_made_with():
    maps = atlas._template()[:3]
    digest = hashlib.sha256(b"".join((255 * each).round().astype("uint8").tobytes() for each in maps)).hexdigest()
    assert digest.startswith("79197a4e816fe769")  # that of nilearn's files
    assert all(each.dtype == "float32" and (each == each[::-1]).all() and each.max() == 1 for each in maps)


@DIMS
def test_shares_sum_to_one_and_labels_are_the_largest(dim):
    drawn = anatomy(SIZES[dim])
    assert spatial(drawn.image) == spatial(drawn.maps) == spatial(drawn.labels) == SIZES[dim]
    assert drawn.maps.shape[1] == len(STRUCTURES) and (drawn.maps.sum(1) - 1).abs().max() < 1e-5
    assert drawn.maps.min() >= 0 and drawn.image.min() >= 0 and 0.8 < drawn.image.max() <= 1
    assert torch.equal(drawn.labels, drawn.maps.argmax(1, keepdim=True))
    assert len(set(drawn.spacing)) == 1 and len(drawn.spacing) == dim


@pytest.mark.parametrize("size", [(97, 83), (150, 130), (33, 41)])
def test_averages_weigh_every_millimetre_alike(size):
    drawn = anatomy(size)
    deep = F.max_pool2d((drawn.labels == 0).float(), 9, 1, 4) == 0  # four voxels from outside, at least
    assert deep.any() and drawn.maps[:, :1][deep].abs().max() < 1e-5


@pytest.mark.parametrize(("size", "axis", "least"), [((44, 38), 1, 13), ((30, 36, 28), 0, 18)])
def test_left_mirrors_right(size, axis, least):
    labels = anatomy(size).labels
    paired = (labels >= 1) & (labels <= 2 * PAIRED)
    mirrored = torch.where(paired, (labels - 1 ^ 1) + 1, labels).flip(axis + 2)
    assert torch.equal(labels, mirrored) and len(labels.unique()) - 1 >= least
    left = labels[paired] % 2 == 1
    x = paired.nonzero()[:, axis + 2]
    assert (x[left] < size[axis] / 2).all() and (x[~left] >= size[axis] / 2).all()  # x runs to the right


def test_volumes_are_those_of_a_brain():
    drawn = anatomy((60, 70, 56))
    millilitres = drawn.maps.sum((0, 2, 3, 4)) * drawn.spacing[0] ** 3 / 1000
    bounds = {  # of one side, where there are two
        "cortex": (300, 600),
        "white matter": (150, 350),
        "lateral ventricle": (4, 15),
        "thalamus": (4, 12),
        "caudate": (2, 7),
        "lentiform nucleus": (3, 9),
        "hippocampus": (2, 9),
        "cerebellum": (50, 120),
        "brain stem": (15, 50),
    }
    for name, (low, high) in bounds.items():
        for label, structure in enumerate(STRUCTURES):
            if structure.endswith(name):
                assert low < millilitres[label] < high, f"{structure}: {millilitres[label]:.1f} ml"


@DIMS
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("motion", ["small", "large"])
def test_the_truth_warps_moving_onto_fixed(dim, motion, aligned):
    pairs = BrainPairs(4 if dim == 3 else 12, dim=dim, size=SIZES[dim], motion=motion, aligned=aligned, seed=3)
    before, after, errors, start = [], [], [], []
    for pair in pairs:
        assert spatial(pair.fixed) == SIZES[dim] and pair.spacing == anatomy(SIZES[dim]).spacing
        assert pair.fixed.min() >= 0 and pair.fixed.max() <= 1 and len(pair.fixed_labels.unique()) > 8
        assert (jacobian_determinant(pair.displacement) > 0).all()
        before.append(overlap(pair.moving_labels, pair.fixed_labels))
        after.append(overlap(warp_labels(pair.moving_labels, pair.displacement), pair.fixed_labels))
        start.append((pair.moving - pair.fixed).square().mean())
        errors.append((warp(pair.moving, pair.displacement) - pair.fixed).square().mean())
    assert mean(before) < 0.68 and mean(after) > 0.75 and mean(after) > mean(before) + 0.15
    assert sum(errors) < 0.2 * sum(start)


def test_more_pairs_are_further_subjects():
    few, many = (BrainPairs(n, size=SIZES[2], seed=5).subjects for n in (3, 5))
    for first, second in zip(few, many, strict=False):
        assert torch.equal(first.image, second.image) and torch.equal(first.displacement, second.displacement)


def test_splits_share_no_subject_and_nobody_meets_itself():
    train, test = (BrainPairs(9, size=SIZES[2], split=split) for split in ("train", "test"))
    images = [subject.image for pairs in (train, test) for subject in pairs.subjects]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    assert sorted(m for m, _ in train.deal) == sorted(f for _, f in train.deal) == list(range(9))
    assert all(moving != fixed for moving, fixed in train.deal)


@DIMS
def test_the_truth_and_the_truth_of_the_reverse_pair_are_inverse(dim):
    first, second = BrainPairs(2, dim=dim, size=SIZES[dim], aligned=False).subjects
    there, back = true_displacement(first, second), true_displacement(second, first)
    inside = (second.labels > 0).expand_as(there)
    assert compose(there, back)[(first.labels > 0).expand_as(there)].abs().mean() < 0.1
    assert compose(back, there)[inside].abs().mean() < 0.1 < 1 < there[inside].abs().mean()


def test_without_misalignment_brains_are_in_place_and_with_it_they_are_not():
    def centre(subject):
        return (subject.labels[0, 0] > 0).nonzero().float().mean(0)

    aligned, moved = (BrainPairs(12, size=SIZES[2], aligned=state).subjects for state in (True, False))
    rest = centre(BrainPairs(1, size=SIZES[2]).template)
    near, far = (torch.stack([(centre(s) - rest).norm() for s in subjects]).mean() for subjects in (aligned, moved))
    assert near < 0.75 * far
    for still, turned in zip(aligned, moved, strict=True):
        assert torch.equal(still.velocity, turned.velocity)  # the same shapes, apart from the affine map


def tissues(subject):
    return torch.stack([subject.image[subject.labels == k].mean() for k in (1, 2, 3, 4)])  # cortex, white; left, right


@DIMS
def test_random_contrast_differs_between_subjects_and_the_others_do_not(dim):
    tame, shared, wild = (
        torch.stack([tissues(one) for one in BrainPairs(4, dim=dim, size=SIZES[dim], contrast=contrast).subjects])
        for contrast in ("t1", "shared", "random")
    )
    assert tame.std(0).max() < 0.06 and shared.std(0).max() < 0.1 and wild.std(0).min() > 0.1
    assert (tame[:, 2:].mean(1) > tame[:, :2].mean(1) + 0.1).all()  # in T1, white matter is brighter than cortex
    assert (wild[:, ::2] - wild[:, 1::2]).abs().max() < 0.15  # left and right are one tissue


@DIMS
def test_a_source_makes_pairs_from_the_generator_alone(dim):
    source = brain_source(dim=dim, size=SIZES[dim], motion="large", aligned=False, contrast="random", batch=2)
    first, same, other = (source(step, torch.Generator().manual_seed(seed)) for step, seed in ((0, 1), (7, 1), (7, 2)))
    assert first.moving.shape == first.fixed_labels.shape == (2, 1, *SIZES[dim])
    assert torch.equal(first.moving, same.moving) and torch.equal(first.fixed_labels, same.fixed_labels)
    assert not torch.equal(first.moving, other.moving)
    assert not torch.equal(first.moving[0], first.moving[1]) and not torch.equal(first.moving, first.fixed)
    assert first.spacing == anatomy(SIZES[dim]).spacing and first.displacement is None


@DIMS
@pytest.mark.parametrize("aligned", [True, False])
def test_a_subject_is_made_on_its_template_s_device(dim, aligned, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # on "meta" there are no values to check
    template, generator = anatomy(SIZES[dim]).to("meta"), torch.Generator().manual_seed(0)
    subjects = [
        subject(template, generator, aligned=aligned, intensities=i) for i in (None, torch.ones(len(STRUCTURES)))
    ]
    made = [value for one in subjects for value in vars(one).values()]
    assert {value.device.type for value in [*made, true_displacement(*subjects)]} == {"meta"}


def test_a_shared_contrast_is_new_for_each_pair_and_one_for_its_two_images():
    pair = brain_source(dim=2, size=SIZES[2], batch=8)(0, torch.Generator().manual_seed(3))
    white = [image[labels == 3].mean() for image, labels in zip(pair.moving, pair.moving_labels, strict=True)]
    again = [image[labels == 3].mean() for image, labels in zip(pair.fixed, pair.fixed_labels, strict=True)]
    moving, fixed = torch.stack(white), torch.stack(again)
    assert moving.std() > 0.1 and torch.corrcoef(torch.stack([moving, fixed]))[0, 1] > 0.85  # the bias fields differ


def test_a_network_learns_from_a_source():
    model = VoxelMorph(dim=2)
    history = train(model, brain_source(dim=2, size=(32, 32)), Recipe(steps=3), progress=False)
    assert len(history) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BrainPairs(2, dim=3, size=(64, 56)), "each of 3 axes"),
        (lambda: BrainPairs(2, size=(7, 56)), "at least 8 voxels"),
        (lambda: brain_source(dim=2, size=(64,)), "each of 2 axes"),
        (lambda: brain_source(dim=2, aligned=1.5), r"share from 0 to 1, received 1\.5"),
        (lambda: anatomy((64,)), "2 or 3 axes"),
        (lambda: anatomy((64, 56), level=90), "level must be from -60 to 70"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_source_without_labels_makes_the_same_images():
    for contrast in ("t1", "shared", "random", "mixed"):
        sources = [brain_source(size=(17, 22, 18), contrast=contrast, labels=labels) for labels in (True, False)]
        usual, without = (source(0, torch.Generator().manual_seed(1)) for source in sources)
        assert usual.moving_labels is not None and without.moving_labels is None and without.fixed_labels is None
        assert torch.allclose(usual.moving, without.moving, atol=1e-5)
        assert torch.allclose(usual.fixed, without.fixed, atol=1e-5)


def test_a_share_of_the_pairs_is_aligned():
    def centre(image):
        return F.adaptive_avg_pool2d(image, 4).flatten()

    def distances(**aligned):
        source = brain_source(dim=2, size=(32, 28), contrast="t1", labels=False, **aligned)
        pairs = [source(0, torch.Generator().manual_seed(seed)) for seed in range(40)]
        return [float((centre(pair.moving) - centre(pair.fixed)).abs().max()) for pair in pairs]

    most = max(distances())
    assert 5 <= sum(distance > most for distance in distances(aligned=0.5)) <= 30


def test_mixed_contrast_is_the_template_s_or_drawn_by_chance():
    source = brain_source(dim=2, size=(32, 28), contrast="mixed")
    kinds = set()
    for seed in range(12):
        pair = source(0, torch.Generator().manual_seed(seed))
        white = (pair.fixed_labels == 3) | (pair.fixed_labels == 4)
        kinds.add(float(pair.fixed[white].mean()) / float(pair.fixed.max()) > 0.8)
    assert kinds == {True, False}
