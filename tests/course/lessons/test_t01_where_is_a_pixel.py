"""One point in four systems: the numbers are torch's and nibabel's, and the picture follows the point."""

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.views import drive

from regkit.course.lessons import t01_where_is_a_pixel
from regkit.figures import pixels

AFFINE = nibabel.affines.from_matvec([[-2, 0, 0], [0, 2, -0.4], [0, 0.3, 2.2]], [31, -20, 7])
VOLUME = np.random.default_rng(0).random((13, 9, 5))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 8)])
def test_normalised_positions_are_those_of_torch(shape, align_corners):
    image = torch.arange(float(np.prod(shape))).view(1, 1, *shape)
    place = tuple(size - 2 for size in shape)
    axes = range(len(shape) - 1, -1, -1)
    numbers = [
        t01_where_is_a_pixel.to_normalized(place[axis], shape[axis], align_corners=align_corners) for axis in axes
    ]
    grid = torch.tensor(numbers).view(1, *[1] * len(shape), len(shape))
    read = F.grid_sample(image, grid, align_corners=align_corners)
    assert torch.allclose(read.squeeze(), image[(0, 0, *place)], atol=1e-4)


def test_the_words_give_the_point_in_every_system():
    view = t01_where_is_a_pixel.place_viewer(VOLUME, AFFINE, number=3)
    view.set(row=4.5, column=2.25)
    words = view.scene.describe(view.state)
    assert "Index [5, 2, 3]" in words and "Voxel (4.5, 2.25, 3)" in words
    assert "corners (-0.4375, -0.2500), edges (-0.3889, -0.2308)" in words
    right, anterior, superior = AFFINE[:3, :3] @ (4.5, 2.25, 3) + AFFINE[:3, 3]
    assert f"R {right:+.2f}, A {anterior:+.2f}, S {superior:+.2f} mm" in words
    assert view.errors == []


def test_each_control_moves_the_point_to_both_ends():
    view = t01_where_is_a_pixel.place_viewer(VOLUME, AFFINE, number=0)
    drive(view, {"row": "both", "column": "both"})
    for control in view.controls.values():
        before = view.image.value
        for end in (control.min, control.max):
            control.value = end
            assert view.image.value != before
    assert view.errors == []


def test_the_close_up_shows_the_voxels_around_the_point_and_a_colour_of_its_own_outside():
    view = t01_where_is_a_pixel.place_viewer(VOLUME, AFFINE, number=2)
    scale = pixels.integer_scale((13, 9))
    left = 9 * scale + t01_where_is_a_pixel._GUTTER
    corner = view.render({"row": 0.0, "column": 0.0})[: 5 * t01_where_is_a_pixel._ZOOM, left:]
    centres = corner[8 :: t01_where_is_a_pixel._ZOOM, 8 :: t01_where_is_a_pixel._ZOOM].astype(
        int
    )  # near each voxel's corner: no line, no cross
    assert (centres[:2] == t01_where_is_a_pixel._OUTSIDE).all() and (
        centres[:, :3] == t01_where_is_a_pixel._OUTSIDE
    ).all()
    assert np.allclose(centres[2:, 3:], 255 * VOLUME[:3, :4, 2, None], atol=1)
    assert len(set(t01_where_is_a_pixel._OUTSIDE)) > 1  # no grey, so no intensity


def test_the_line_of_the_point_passes_behind_the_rulers_numbers():
    view = t01_where_is_a_pixel.place_viewer(VOLUME, AFFINE, number=2)
    left = 9 * pixels.integer_scale((13, 9)) + t01_where_is_a_pixel._GUTTER
    rulers = view.render({"row": 6.0, "column": 4.0})[5 * t01_where_is_a_pixel._ZOOM :, left:]
    yellow = (rulers == pixels.POINT).all(-1)  # at the middle column, where a number stands in each ruler
    for line in range(5):
        middle = slice(line * t01_where_is_a_pixel._RULER + 4, (line + 1) * t01_where_is_a_pixel._RULER - 6)
        assert not yellow[middle].any() and yellow[line * t01_where_is_a_pixel._RULER].any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: t01_where_is_a_pixel.place_viewer(VOLUME, AFFINE[:3], number=0), "4 x 4"),
        (lambda: t01_where_is_a_pixel.place_viewer(VOLUME * np.nan, AFFINE, number=0), "finite"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
