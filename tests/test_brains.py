"""Synthetic brains: laws of the anatomy, of the subjects and of the true displacement; seeds; no network."""

from __future__ import annotations

import socket
import sys
from statistics import mean

import pytest
import torch

from regkit import anatomy as anatomies
from regkit.anatomy import PAIRED, STRUCTURES, anatomy
from regkit.brains import BrainPairs
from regkit.fields import exponential, jacobian_determinant, warp, warp_labels
from regkit.metrics import dice
from regkit.types import Pair, spatial

pytest.importorskip("nilearn", reason="synthetic brains need the course extra")
SIZES = {2: (45, 38), 3: (31, 36, 28)}
DIMS = pytest.mark.parametrize("dim", [2, 3])


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("synthetic brains must not open a connection")

    monkeypatch.setattr(socket, "socket", refuse)


def overlap(first, second):
    return mean(dice(first, second).values())


def test_the_template_is_read_without_a_network():
    anatomies._atlas.cache_clear()
    assert anatomies._atlas().t1.shape == (197, 233, 189)


@DIMS
def test_shares_sum_to_one_and_labels_are_the_largest(dim):
    drawn = anatomy(SIZES[dim])
    assert spatial(drawn.image) == spatial(drawn.maps) == spatial(drawn.labels) == SIZES[dim]
    assert drawn.maps.shape[1] == len(STRUCTURES) and (drawn.maps.sum(1) - 1).abs().max() < 1e-5
    assert drawn.maps.min() >= 0 and drawn.image.min() >= 0 and 0.8 < drawn.image.max() <= 1
    assert torch.equal(drawn.labels, drawn.maps.argmax(1, keepdim=True))
    assert len(set(drawn.spacing)) == 1 and len(drawn.spacing) == dim


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


def test_pairs_follow_from_the_seed_and_more_pairs_are_further_subjects():
    few, again, many = (BrainPairs(n, size=SIZES[2], seed=5) for n in (3, 3, 5))
    for first, second in zip(few, again, strict=True):
        assert torch.equal(first.moving, second.moving) and torch.equal(first.displacement, second.displacement)
    for first, second in zip(few.subjects, many.subjects, strict=False):
        assert torch.equal(first.image, second.image) and torch.equal(first.forward, second.forward)
    assert not torch.equal(few[0].moving, BrainPairs(3, size=SIZES[2], seed=6)[0].moving)


def test_splits_share_no_subject_and_nobody_meets_itself():
    train, test = (BrainPairs(9, size=SIZES[2], split=split) for split in ("train", "test"))
    images = [subject.image for pairs in (train, test) for subject in pairs.subjects]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    assert sorted(m for m, _ in train.deal) == sorted(f for _, f in train.deal) == list(range(9))
    assert all(moving != fixed for moving, fixed in train.deal)


def test_a_slice_or_a_list_of_pairs_is_a_batch():
    pairs = BrainPairs(5, size=SIZES[2])
    batch, single = pairs[[3, 1]], pairs[3]
    assert isinstance(batch, Pair) and batch.moving.shape == (2, 1, *SIZES[2]) and len(pairs) == 5
    assert torch.equal(batch.displacement[:1], single.displacement) and torch.equal(batch.fixed[:1], single.fixed)
    assert torch.equal(pairs[1:4:2].moving_labels[1:], single.moving_labels)
    assert torch.equal(pairs[-1].moving, pairs[4].moving)
    with pytest.raises(IndexError):
        pairs[5]


@DIMS
def test_backward_undoes_forward(dim):
    first = BrainPairs(1, dim=dim, size=SIZES[dim]).subjects[0]
    undone = warp(warp(first.image, first.backward), first.forward)
    assert (undone - first.image).square().mean() < 0.1 * first.image.var()
    assert torch.allclose(exponential(torch.zeros_like(first.forward)), torch.zeros_like(first.forward))


def test_random_contrast_differs_between_subjects_and_t1_does_not():
    def means(contrast):
        values = []
        for subject in BrainPairs(3, size=SIZES[2], contrast=contrast).subjects:
            values.append([float(subject.image[subject.labels == k].mean()) for k in (1, 2, 3, 4)])
        return torch.tensor(values)

    tame, wild = means("t1"), means("random")
    assert tame.std(0).max() < 0.06 and wild.std(0).min() > 0.06
    assert (tame[:, 2:].mean(1) > tame[:, :2].mean(1) + 0.1).all()  # in T1, white matter is brighter than cortex
    assert (wild[:, ::2] - wild[:, 1::2]).abs().max() < 0.15  # left and right are one tissue


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BrainPairs(0), "count must be at least 1"),
        (lambda: BrainPairs(2, dim=3, size=(64, 56)), "each of 3 axes"),
        (lambda: BrainPairs(2, dim=4), "dim must be one of 2, 3"),
        (lambda: BrainPairs(2, size=(7, 56)), "at least 8 voxels"),
        (lambda: BrainPairs(2, split="validation"), "split must be one of train, test"),
        (lambda: BrainPairs(2, motion="huge"), "motion must be one of small, large"),
        (lambda: BrainPairs(2, contrast="t2"), "contrast must be one of t1"),
        (lambda: BrainPairs(2, seed=-1), "seed must be from 0"),
        (lambda: anatomy((64,)), "2 or 3 axes"),
        (lambda: anatomy((64, 56), level=90), "level must be from -60 to 70"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_nilearn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(ImportError, match=r"\[course\]"):
        anatomies._template()
