"""The arrow: which way the content goes, pulled and pushed, and that every control is seen."""

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit.course.lessons import t02_warping_pulls
from regkit.fields import warp

SHAPE = (23, 31)


def blob(shape=SHAPE):
    rows, columns = np.indices(shape)
    return np.exp(-((rows - shape[0] // 2) ** 2 + (columns - shape[1] // 2) ** 2) / 8).astype(np.float32)


def shift(down, right, shape=SHAPE):
    return torch.tensor([down, right], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, *shape)


def test_pull_goes_against_the_arrow_and_push_with_it():
    view = t02_warping_pulls.arrow_viewer(blob())
    view.set(right=4.0, down=-3.0)
    field = t02_warping_pulls.arrow_field(4.0, -3.0, SHAPE)
    assert np.unravel_index(t02_warping_pulls.pull(blob(), field).argmax(), SHAPE) == (11 + 3, 15 - 4)
    assert "-4.0 right, +3.0 down" in view.caption.value
    view.set(push=True)
    assert np.unravel_index(np.nanargmax(t02_warping_pulls.push(blob(), field)), SHAPE) == (11 - 3, 15 + 4)
    assert "+4.0 right, -3.0 down" in view.caption.value and "never written" in view.caption.value


def test_a_whole_shift_is_pushed_to_where_its_opposite_pulls_it_with_holes_at_the_border_only():
    image = torch.from_numpy(np.random.default_rng(0).random((1, 1, *SHAPE), dtype=np.float32))
    pushed = t02_warping_pulls.push(image, shift(2, -5))
    pulled = warp(image, -shift(2, -5))[0, 0].numpy()
    assert np.array_equal(np.isnan(pushed), (np.indices(SHAPE)[0] < 2) | (np.indices(SHAPE)[1] >= SHAPE[1] - 5))
    assert np.allclose(pushed[~np.isnan(pushed)], pulled[~np.isnan(pushed)], atol=1e-5)


def test_push_counts_channels_along_their_axes_and_rounds_to_the_nearest_voxel():
    image = np.zeros(SHAPE, np.float32)
    image[4, 6] = 1
    assert np.argwhere(t02_warping_pulls.push(image, shift(1.6, -2.4)) == 1).tolist() == [[6, 4]]


def test_the_bump_fades_with_its_reach():
    right = t02_warping_pulls.arrow_field(5.0, 0.0, (21, 21), reach=4)[1]
    assert right[10, 10] == 5 and np.isclose(right[10, 14], 5 * np.exp(-0.5)) and right[0, 0] < 0.05


ARROW = {"right": "both", "down": "both", "mode": "both", "push": "both"}


@pytest.mark.parametrize(("mode", "changes"), [("everywhere", ARROW), ("around the middle", ARROW | {"reach": "both"})])
def test_each_control_changes_what_it_should(mode, changes):
    view = t02_warping_pulls.arrow_viewer(blob())
    view.set(mode=mode, right=3.0)
    drive(view, changes)


def test_volumes_and_nan_are_refused():
    with pytest.raises(ValueError, match="moving"):
        t02_warping_pulls.arrow_viewer(np.zeros((2, 3, 4, 5)))
    with pytest.raises(ValueError, match="finite"):
        t02_warping_pulls.arrow_viewer(blob() * np.nan)
