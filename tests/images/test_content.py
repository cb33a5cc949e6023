"""Field of view, background and window: what is not there, dead, hot or constant leaves the contrast as it was."""

import numpy as np
import pytest
import torch

from regkit import images
from regkit.images import content

SHAPES = [(40, 36), (22, 26, 20)]


def head(shape, low=0.0, high=1000.0):
    """An ellipsoid with structure, on a constant background; and where it is."""
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    inside = (places**2).sum(0) < 0.6
    texture = 0.5 + 0.25 * np.sin(7 * places[0]) + 0.2 * np.cos(5 * places[1] + 1)
    return np.where(inside, low + (high - low) * texture, low).astype(np.float32), inside


def scan_of(values):
    grid = images.Grid((*values.shape, 1)[:3], np.eye(4))
    return images.Scan(torch.from_numpy(values.astype(np.float32))[None, None], grid, grid)


def corners(shape):
    """What a round field of view leaves out."""
    first, second = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[:2]), indexing="ij")
    return np.broadcast_to((np.hypot(first, second) > 1.1).reshape(*shape[:2], *[1] * (len(shape) - 2)), shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("low", "fill"), [(-1000, -2000), (-1000, -3024), (0, -32768), (0, 32767), (0, np.nan)])
def test_padding_is_not_seen_and_takes_no_contrast(shape, low, fill):
    values, _ = head(shape, low, low + 1200)
    clean, outside = images.normalise(scan_of(values)), corners(shape)
    scan = scan_of(np.where(outside, fill, values))
    found = images.normalise(scan)
    assert np.array_equal(found.inside[0, 0].numpy(), ~outside) and clean.inside is None
    assert (found.tensor - clean.tensor).abs().max() < 0.03  # percentiles of fewer voxels
    assert (images.foreground(found) != images.foreground(clean)).float().mean() < 0.01


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("value", [-32768, -2000, 32767, 1e6])
def test_a_dead_or_hot_voxel_changes_nothing_else(shape, value):
    values, _ = head(shape)
    spoilt = values.copy()
    spoilt[(0,) * len(shape)] = value
    clean, found = (images.normalise(scan_of(each)).tensor for each in (values, spoilt))
    assert (found - clean).abs().flatten()[1:].max() < 0.01  # of 1440 voxels one moves a percentile
    box = content.bounding_box(images.foreground(images.normalise(scan_of(spoilt))))
    assert np.array_equal(box, content.bounding_box(images.foreground(images.normalise(scan_of(values)))))


BACKGROUNDS = {
    "darkest": (lambda values, inside: values, 0),
    "constant, and not the darkest": (lambda values, inside: np.where(inside, values - 300, 0), 0),
    "the brightest": (lambda values, inside: 1200 - values, 1200),
    "below 0": (lambda values, inside: np.where(inside, values, -5), -5),
    "noisy": (lambda values, inside: values + np.random.RandomState(0).rand(*values.shape) * 20, 10),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_background_is_found_wherever_it_lies(shape, name):
    make, level = BACKGROUNDS[name]
    values, inside = head(shape)
    scan = scan_of(make(values, inside))
    found = images.normalise(scan)
    dark = content.background(scan.tensor, torch.ones_like(scan.tensor, dtype=torch.bool))
    assert dark == pytest.approx(level, abs=3 if name == "noisy" else 0) and found.inside is None
    share = images.foreground(found)[0, 0].numpy()[inside].mean()
    assert share > 0.75 and not images.foreground(found)[0, 0].numpy()[~inside].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_bright_and_in_one_piece_is_what_a_sparse_image_is_of(shape):
    values = np.random.RandomState(0).rand(*shape) * 10
    vessel = (slice(8, 14), *[10] * (len(shape) - 1))
    values[vessel] = np.linspace(600, 900, 6)  # of more than a thousand voxels
    assert images.normalise(scan_of(values)).tensor[(0, 0, *vessel)].min() > 0.6
    values[vessel] = 5
    values[(3,) * len(shape)] = 900  # one hot voxel
    assert images.normalise(scan_of(values)).tensor.median() > 0.4


def test_a_dark_background_far_away_is_cut():
    values, inside = head((22, 26, 20), 20, 80)
    found = images.normalise(scan_of(np.where(inside, values, -1000)))  # a brain of CT, without its skull
    seen = found.tensor[0, 0].numpy()[inside]
    assert seen.max() - seen.min() > 0.6 and found.tensor[0, 0].numpy()[~inside].max() == 0


def test_a_scan_that_ends_in_its_content_says_nothing_of_what_is_beyond():
    values, _ = head((22, 26, 20))
    slab = images.normalise(scan_of(values[:, :, 6:14]))
    wider = slab.grid.cropped((-4, -4, -4), (30, 34, 16))
    inside = images.resample(slab, wider).inside[0, 0]
    assert inside[4:-4, 4:-4, 4:-4].all() and not inside[15, 17, :4].any()  # above and below the head
    assert inside[0].all() and inside[:, 0].all()  # air beside it
    assert images.resample(images.normalise(scan_of(values)), wider).inside is None
