"""Pictures: known numbers give known pixels. And the static plots on the same drawing code."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from regkit import figures
from regkit.fields import jacobian_determinant
from regkit.figures import paint, pixels
from regkit.training import History
from regkit.types import Pair, Registration

SHAPES = [(13, 9), (8, 15)]


def ramp(shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def shift(shape, down=0.0, right=0.0):
    return np.stack([np.full(shape, down, np.float32), np.full(shape, right, np.float32)])


def luminance(colour):
    linear = (np.asarray(colour) / 255.0) ** 2.2
    return linear @ (0.2126, 0.7152, 0.0722)


# ---------------------------------------------------------------------------------------------- voxels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1, 3])
def test_every_voxel_is_a_block_of_equal_pixels(shape, scale):
    image = ramp(shape)
    field = np.stack([ramp(shape, 1), ramp(shape, 2)])
    for render in (
        lambda s: paint.render_image(image, scale=s),
        lambda s: paint.render_difference(image, image[::-1], scale=s),
        lambda s: paint.render_displacement(field, limit=1, scale=s),
        lambda s: paint.render_jacobian(image, scale=s),
    ):
        picture = render(scale)
        assert picture.dtype == np.uint8 and picture.shape == (shape[0] * scale, shape[1] * scale, 3)
        assert np.array_equal(picture[scale // 2 :: scale, scale // 2 :: scale], render(1))
        assert np.array_equal(picture, pixels.enlarge(render(1), scale))


def test_intensities_are_grey_between_their_limits():
    picture = paint.render_image(np.array([[-9.0, -1, 1, 3, 99]]), limits=(-1, 3))
    assert picture[0].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3, [255] * 3]


def test_a_difference_is_blue_below_pale_at_and_orange_above_zero():
    ((below, at, above, beyond),) = paint.render_difference(np.array([[0, 0.3, 0.5, 9]]), np.array([[0.5, 0.3, 0, 0]]))
    assert below[2] > below[0] + 60 and above[0] > above[2] + 60
    assert at.min() > 235 and np.ptp(at.astype(int)) < 5
    assert np.array_equal(above, beyond)


@pytest.mark.parametrize("table", [pixels.DIFFERENCES, pixels.JACOBIANS])
def test_diverging_colours_darken_steadily_to_both_sides(table):
    light = luminance(table)
    middle = len(table) // 2
    assert light.argmax() == pytest.approx(middle, abs=2)
    assert (np.diff(light[:middle]) > 0).all() and (np.diff(light[middle + 1 :]) < 0).all()
    assert light[middle] > 8 * max(light[0], light[-1])


def test_displacements_have_a_colour_for_each_direction_and_none_at_zero():
    still = paint.render_displacement(shift((3, 4)), limit=2)
    assert np.ptp(still[0, 0].astype(int)) < 5 and still.min() > 230
    ways = [(2, 0), (-2, 0), (0, 2), (0, -2)]
    colours = [paint.render_displacement(shift((1, 1), *u), limit=2)[0, 0].astype(int) for u in ways]
    apart = [np.abs(a - b).max() for i, a in enumerate(colours) for b in colours[:i]]
    assert min(apart) > 60
    down, up, right, left = colours
    assert down.argmin() == 2 and up.argmax() == 2  # yellow, blue
    assert right.argmax() == 0 and right.argmin() == 1 and left.argmin() == 0  # pink, green
    half = paint.render_displacement(shift((1, 1), 1, 0), limit=2)[0, 0].astype(int)
    assert luminance(colours[0]) < luminance(half) < luminance(still[0, 0])
    assert np.array_equal(paint.render_displacement(shift((1, 1), 7, 0), limit=2)[0, 0], colours[0])


def test_the_wheel_is_the_key_of_the_displacement_colours():
    wheel = paint.render_wheel(4, width=81, side=81)
    for down, right in [(3, 0), (-3, 0), (0, 3), (0, -3), (2, 2)]:
        expected = paint.render_displacement(shift((1, 1), down, right), limit=4)[0, 0]
        assert np.array_equal(wheel[40 + 10 * down, 40 + 10 * right], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_folds_are_marked_exactly_where_the_determinant_is_not_positive(shape):
    determinant = ramp(shape) * 2 - 0.5
    determinant[0, 0], determinant[1, 1] = 0, 1e-6
    marked = (paint.render_jacobian(determinant) == pixels.FOLD).all(-1)
    assert np.array_equal(marked, determinant <= 0) and marked[0, 0] and not marked[1, 1]
    over = paint.render_folds(paint.render_image(ramp(shape), scale=3), determinant)
    assert np.array_equal((over == pixels.FOLD).all(-1)[1::3, 1::3], determinant <= 0)
    assert not (pixels.JACOBIANS == pixels.FOLD).all(-1).any()


def test_a_reflection_is_all_fold_and_the_identity_all_pale():
    size = 9
    mirror = torch.zeros(1, 2, 7, size)
    mirror[:, 1] = size - 1 - 2 * torch.arange(size)
    assert (paint.render_jacobian(jacobian_determinant(mirror)) == pixels.FOLD).all()
    assert paint.render_jacobian(jacobian_determinant(torch.zeros(1, 2, 7, size))).min() > 235


def test_a_fold_stands_out_from_every_colour_of_the_map():
    distance = np.abs(pixels.JACOBIANS.astype(int) - pixels.FOLD).sum(-1)
    assert distance.min() > 200
    assert luminance(pixels.FOLD) > 3 * luminance(pixels.JACOBIANS[0])  # beside |J| just above 0


# ---------------------------------------------------------------------------------------------- two images
@pytest.mark.parametrize("shape", SHAPES)
def test_a_curtain_at_its_ends_shows_one_image_and_between_both(shape):
    first, second = ramp(shape), ramp(shape, 1)
    one, other = paint.render_image(first, scale=4), paint.render_image(second, scale=4)
    assert np.array_equal(paint.render_curtain(first, second, position=0, scale=4), other)
    assert np.array_equal(paint.render_curtain(first, second, position=1, scale=4), one)
    between = paint.render_curtain(first, second, position=0.5, scale=4)
    edge = round(0.5 * one.shape[1])
    assert np.array_equal(between[:, : edge - 1], one[:, : edge - 1])
    assert np.array_equal(between[:, edge + 1 :], other[:, edge + 1 :])


def test_flicker_alternates():
    first, second = ramp((5, 7)), ramp((5, 7), 1)
    for frame, image in enumerate((first, second, first)):
        assert np.array_equal(paint.render_flicker(first, second, frame=frame), paint.render_image(image))


def test_a_checkerboard_takes_each_field_from_one_image():
    board = paint.render_checkerboard(np.zeros((6, 12)), np.ones((6, 12)), tiles=4)[..., 0]
    expected = np.kron(np.array([[0, 255, 0, 255], [255, 0, 255, 0]]), np.ones((3, 3)))
    assert np.array_equal(board, expected)


def test_an_overlay_is_grey_where_images_agree_and_coloured_where_they_do_not():
    overlay = paint.render_overlay(np.array([[0.5, 1, 0]]), np.array([[0.5, 0, 1]]))[0].astype(int)
    assert np.ptp(overlay[0]) == 0
    assert overlay[1].tolist() == [255, 127, 0] and overlay[2].tolist() == [0, 127, 255]


# ---------------------------------------------------------------------------------------------- lines
def drawn(picture):
    return (picture != pixels.NIGHT).any(-1)


def test_the_grid_of_the_identity_is_regular():
    scale, every = 6, 4
    picture = paint.render_grid(pixels.blank((17, 13), scale), shift((17, 13)), every=every)
    rows, columns = np.flatnonzero(drawn(picture)[:, 12]), np.flatnonzero(drawn(picture)[12])
    for places, size in ((rows, 17), (columns, 13)):
        lines = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        centres = [line.mean() for line in lines]
        assert len(centres) == len(range((size - 1) % every // 2, size, every))
        assert np.allclose(np.diff(centres), every * scale)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("step", [3, -3])
def test_one_displaced_voxel_bends_its_line_its_way(axis, step):
    scale, size, centre = 5, 15, 7
    field = shift((size, size))
    field[axis, centre, centre] = step
    straight = paint.render_grid(pixels.blank((size, size), scale), shift((size, size)), every=14)
    assert not drawn(straight)[25:50, 25:50].any()
    bent = drawn(paint.render_grid(pixels.blank((size, size), scale), field, every=7))
    flat = drawn(paint.render_grid(pixels.blank((size, size), scale), shift((size, size)), every=7))
    along = np.argwhere(bent & ~flat)
    reached = along[np.abs(along - centre * scale)[:, axis].argmax()]
    assert np.abs(reached[axis] - (centre + step + 0.5) * scale) <= 2
    assert np.abs(reached[1 - axis] - (centre + 0.5) * scale) <= 2
    none = paint.render_grid(pixels.blank((size, size), scale), field, every=7, stretch=0)
    assert np.array_equal(drawn(none), flat)


@pytest.mark.parametrize(("down", "right"), [(4, 0), (-4, 0), (0, 4), (0, -4)])
def test_an_arrow_goes_from_the_voxel_to_where_it_is_read(down, right):
    scale, centre = 6, 7
    field = shift((15, 15), down, right)
    places = np.argwhere(drawn(paint.render_arrows(pixels.blank((15, 15), scale), field, every=15)))
    along = (places - (centre + 0.5) * scale) @ (down, right) / 4
    assert along.min() > -2 and abs(along.max() - 4 * scale) <= 2
    across = np.abs((places - (centre + 0.5) * scale) @ (right, down)) / 4
    assert across[along > 2 * scale].max() > across[along < 2 * scale].max()  # the head is at the tip


def test_lines_have_smooth_edges():
    field = shift((15, 15))
    field[0] = np.linspace(0, 3, 15)
    picture = paint.render_grid(pixels.blank((15, 15), 6), field)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5


def test_labels_leave_the_background_and_have_safe_distinct_colours():
    labels = np.arange(24).reshape(4, 6)
    base = paint.render_image(np.zeros((4, 6)), scale=2)
    assert np.array_equal(paint.render_labels(base, np.zeros((4, 6), int)), base)
    full = paint.render_labels(base, labels, opacity=1)[::2, ::2].reshape(-1, 3)
    assert (full[0] == 0).all() and len(np.unique(full[1:22], axis=0)) == 21
    assert np.array_equal(full[1], full[22])


def test_contours_follow_the_border_inside_the_label():
    labels = np.zeros((9, 11), int)
    labels[3:7, 2:8] = 2
    base = paint.render_image(np.zeros((9, 11)), scale=4)
    changed = (paint.render_contours(base, labels, width=1) != base).any(-1)
    expected = np.zeros((36, 44), bool)
    expected[12:28, 8:32] = True
    expected[13:27, 9:31] = False
    assert np.array_equal(changed, expected)


def test_cross_hairs_leave_their_voxel_visible():
    base = paint.render_image(np.zeros((9, 11)), scale=5)
    marked = paint.render_point(base, (4, 0), (9, 11))
    assert np.array_equal(marked[20:25, 0:5], base[20:25, 0:5])
    assert (marked[22, 20:] == pixels.POINT).all() and (marked[:10, 2] == pixels.POINT).all()
    assert not (base == pixels.POINT).all(-1).any()  # the given picture stays as it was


# ---------------------------------------------------------------------------------------------- legends
def test_the_histogram_counts_folds_apart():
    values = np.array([[-0.5, 0.0, 1e-7, 1.0], [1.0, 1.0, 2.5, 99.0]])
    picture = paint.render_histogram(values, width=800, height=120)
    fold = (picture[:120] == pixels.FOLD).all(-1)
    # 0 lies in the bar that ends at 0, 10 pixels wide
    assert fold.any(0)[190:200].all() and not fold.any(0)[200:].any()
    bars = ~(picture[:120] == pixels.NIGHT).all(-1)
    assert bars[60:].sum(0)[395] > bars[60:].sum(0)[205] > 0  # three voxels of 1 above one of 1e-7
    assert bars[60:].sum(0)[795] > 0  # beyond the axis: the last bar
    log = paint.render_histogram(values, width=800, height=120, logarithmic=True)
    assert (log != picture).any()


def test_bars_run_from_the_first_to_the_last_colour():
    bar = paint.render_bar(pixels.DIFFERENCES, (-1, 1), width=255)
    assert np.array_equal(bar[6, 1:-1], pixels.DIFFERENCES[1:-1])
    assert (paint.render_jacobian_bar(width=300)[6, 20] == pixels.FOLD).all()


@pytest.mark.parametrize(("value", "limit"), [(0, 1), (0.011, 0.02), (1, 1), (1.01, 2), (7.2, 8), (9.3, 10), (14, 20)])
def test_limits_are_round_and_enough(value, limit):
    assert pixels.nice_limit(value) == pytest.approx(limit)


# ---------------------------------------------------------------------------------------------- input
def test_tensors_and_arrays_of_any_leading_axes_are_one_plane():
    image = torch.rand(3, 1, 5, 7, requires_grad=True)
    expected = image[1, 0].detach().numpy()
    for given in (image[1, 0], image[1], image[1:2], image[1:2].detach().numpy()):
        assert np.array_equal(pixels.plane(given), expected)
    assert np.array_equal(pixels.plane(image, "image", 1), expected)
    assert pixels.plane(image.bfloat16(), "image", 1).shape == (5, 7)
    assert pixels.field_plane(torch.rand(3, 2, 5, 7), item=2).shape == (2, 5, 7)


@pytest.mark.parametrize(
    ("draw", "error", "words"),
    [
        (lambda: pixels.plane(torch.rand(3, 1, 5, 7)), IndexError, "item from 0 to 2"),
        (lambda: pixels.plane(torch.rand(3, 1, 5, 7), "image", 3), IndexError, "item from 0 to 2"),
        (lambda: pixels.plane(torch.rand(1, 1, 5, 7, 6)), ValueError, "of a volume one plane"),
        (lambda: pixels.plane(torch.rand(1, 2, 5, 7)), ValueError, "select one channel"),
        (lambda: pixels.field_plane(torch.rand(1, 3, 5, 7)), ValueError, "displacement"),
        (lambda: pixels.plane(np.array([[1.0, np.nan]])), ValueError, "1 NaN or infinite of 2"),
        (lambda: pixels.label_plane(np.ones((2, 2))), TypeError, "integers"),
        (lambda: paint.render_difference(ramp((4, 5)), ramp((5, 4))), ValueError, "same height and width"),
        (lambda: paint.render_grid(pixels.blank((4, 5), 3), shift((4, 6))), ValueError, "whole scale"),
        (lambda: paint.render_image(ramp((4, 5)), limits=(1, 1)), ValueError, "must rise"),
    ],
)
def test_bad_input_is_refused_with_the_rule(draw, error, words):
    with pytest.raises(error, match=words):
        draw()


# ---------------------------------------------------------------------------------------------- static plots
def example(shape=(21, 17), batch=2):
    generator = torch.Generator().manual_seed(0)
    moving, fixed = torch.rand(2, batch, 1, *shape, generator=generator)
    return Pair(moving, fixed, (moving > 0.5).long(), (fixed > 0.5).long()), torch.rand(batch, 2, *shape)


def test_figures_number_their_axes_and_fix_their_ranges():
    pair, displacement = example()
    registered = partial(figures.show_registration, pair, Registration(displacement), item=1)
    for figure, panels in ((figures.show_pair(pair, item=1), 3), (registered(), 4), (registered(panels=8), 8)):
        shown = [axes for axes in figure.axes if axes.get_title() and axes.get_xlabel()]
        assert len(shown) == panels
        for axes in shown:
            assert axes.get_xlabel() == "axis 1 (voxels)" and axes.get_ylabel() == "axis 0 (voxels)"
            assert axes.get_xlim() == (-0.5, 16.5) and axes.get_ylim() == (20.5, -0.5)
        assert figure.canvas.get_width_height()[0] > 0
        figure.canvas.draw()


def test_the_same_pair_before_and_after_has_one_range():
    pair, displacement = example()
    figure = figures.show_registration(pair, Registration(displacement.zero_()), item=0, panels=8)
    before, after = (axes.images[0].get_array() for axes in figure.axes if "- fixed" in axes.get_title())
    assert np.array_equal(before, after)


def test_the_folds_are_counted():
    pair, displacement = example((9, 9), 1)
    displacement.zero_()[:, 1] = 8 - 2 * torch.arange(9.0)
    figure = figures.show_registration(pair, Registration(displacement))
    legends = [axes.get_legend().get_texts()[0].get_text() for axes in figure.axes if axes.get_legend()]
    assert legends == ["folds: 81 voxels"]


def test_a_history_shows_its_loss_and_every_term():
    history = History()
    for step in range(4):
        history.append({"ncc": -step / 4, "diffusion": 0.1 * step}, 0.1)
    panels = figures.show_history(history).axes
    assert [axes.get_title() for axes in panels] == ["loss", "ncc", "diffusion"]
    for axes, values in zip(panels, (history.loss, *history.terms.values()), strict=True):
        assert axes.lines[0].get_ydata().tolist() == pytest.approx(values)
    long = History()
    long.append(dict.fromkeys("abcd", 1.0), 0.1)
    assert len(figures.show_history(long).axes) == 5
    with pytest.raises(ValueError, match="at least one step"):
        figures.show_history(History())


def test_the_library_needs_neither_matplotlib_nor_ipywidgets():
    code = "import sys; sys.modules['matplotlib'] = sys.modules['ipywidgets'] = None; import regkit, regkit.figures."
    subprocess.run([sys.executable, "-c", f"{code}paint, regkit.figures.planes"], check=True)
