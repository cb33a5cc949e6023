"""Volumes in planes: where a voxel is found, linked panels, levels and times; every control driven in process."""

import base64
import io
import itertools

import ipywidgets
import numpy as np
import pytest
import torch
from helpers.views import drive
from helpers.views import pixels as pixels_of
from PIL import Image

from regkit import widgets
from regkit.course.lessons import t05_diffeomorphisms
from regkit.fields import compose, exponential, invert, jacobian_determinant, resize_displacement, warp, warp_labels
from regkit.figures import paint, pixels, planes
from regkit.types import Pair, Registration
from regkit.widgets import panels

SHAPES = [(13, 9), (9, 7, 12)]


def example(shape, batch=1):
    """A pair with labels, and a displacement with one fold and its (rough) inverse."""
    generator = torch.Generator().manual_seed(0)
    moving = torch.rand(batch, 1, *shape, generator=generator)
    displacement = torch.rand(batch, len(shape), *shape, generator=generator) - 0.5
    displacement[(slice(None), 0, *(2,) * len(shape))] = 3.0
    fixed = warp(moving, displacement)
    pair = Pair(moving, fixed, (moving > 0.5).long(), (fixed > 0.5).long(), spacing=(1.0, 2.0, 0.5)[: len(shape)])
    return pair, Registration(displacement, -displacement, levels=levels(displacement))


def levels(displacement):
    shape = displacement.shape[2:]
    return tuple(resize_displacement(displacement, [-(-n // factor) for n in shape]) for factor in (4, 2, 1))


def views(shape):
    pair, registration = example(shape)
    u = registration.displacement
    composition = t05_diffeomorphisms.composition_inspector(u, {"minus u": -u, "u": u})
    composition.set(more=True)
    return {
        "slices": widgets.slice_viewer(pair, registration, panels=list(panels.PANELS)),
        "upright": widgets.slice_viewer(pair, registration, upright=True),
        "levels": widgets.level_scrubber(pair, registration),
        "times": widgets.time_scrubber(pair, u),
        "composition": composition,
        "compare": widgets.compare(pair.moving, pair.fixed, warped=pair.fixed, fixed_labels=pair.fixed_labels),
        "field": widgets.field_viewer(u, pair.fixed, moving=pair.moving),
        "folds": widgets.jacobian_inspector(u, pair.fixed),
    }


def voxel(view):
    return tuple(view.state[f"axis_{axis}"] for axis in range(3))


# ---------------------------------------------------------------------------------------------- planes
@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_voxel_is_found_in_each_plane_through_it(shape, upright):
    values = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape)
    families = planes.cuts(len(shape), upright=upright)
    assert len(families) == (1 if len(shape) == 2 else 3) == len({cut.across for cut in families})
    for cut, place in itertools.product(families, itertools.islice(np.ndindex(shape), 0, None, 7)):
        plane = cut.plane(values, place)
        assert plane[cut.position(place, shape)] == values[place]
        assert np.array_equal(cut.plane(values, cut.start(place)), plane)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_components_in_a_plane_point_from_voxel_to_voxel(shape, upright):
    for cut in planes.cuts(len(shape), upright=upright):
        for step in itertools.product((-1, 0, 2), repeat=len(shape)):
            field = np.broadcast_to(np.reshape(step, (-1, *[1] * len(shape))), (len(shape), *shape))
            place = (3,) * len(shape)
            goal = tuple(p + s for p, s in zip(place, step, strict=True))
            start, end = cut.position(place, shape), cut.position(goal, shape)
            assert np.array_equal(cut.field(field, place)[(slice(None), *start)], np.subtract(end, start))


def test_the_axes_of_a_plane_run_as_its_words_say():
    (flat,), first = planes.cuts(2), planes.cuts(3)[0]
    assert flat.directions == "axis 0 down, 1 right" and flat.axes == "axes 0, 1"
    assert first.words == "across axis 0" and first.directions == "axis 1 down, 2 right"
    upright = planes.cuts(3, upright=True)[0]
    assert upright.directions == "axis 2 up, 1 right" and upright.axes == "axes 2, 1"
    ramp = np.broadcast_to(np.arange(5), (3, 4, 5))
    assert (np.diff(upright.plane(ramp, (0, 0, 0)), axis=0) == -1).all()  # axis 2 grows upwards


# ---------------------------------------------------------------------------------------------- every control
VOXEL = {"axis_0": "both", "axis_1": "both", "crosshair": "picture"}
GRID = {"every": "picture", "stretch": "both"}
CHANGES = {
    "slices": VOXEL | {"extreme": "nothing"},
    "upright": VOXEL | {"extreme": "nothing"},
    "levels": VOXEL | {"extreme": "nothing", "step": "both"},
    "times": VOXEL | {"extreme": "nothing", "step": "both"},
    "composition": VOXEL | {"inverse": "both", "order": "both", **GRID, "extreme": "nothing", "more": "nothing"},
    "compare": {"mode": "both", "position": "picture", "warped": "both"},
    "field": {"mode": "both", **GRID},
    "folds": {"histogram": "picture"},
}
PLANAR = {"compare": {}, "field": {}, "folds": {"row": "both", "column": "both"}}  # in 2D
SPATIAL = {  # in 3D
    "compare": {"plane": "both", "axis_0": "both"},
    "field": {"plane": "both", "axis_0": "both"},
    "folds": {"plane": "both", "axis_0": "both", "axis_1": "both", "axis_2": "both"},
}
LINKED = {"planes": "picture", "axis_2": "both"}  # in 3D, of linked panels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(CHANGES))
def test_each_control_changes_what_it_should(shape, name):
    view = views(shape)[name]
    drive(view, CHANGES[name] | (PLANAR.get(name, {}) if len(shape) == 2 else SPATIAL.get(name, LINKED)))
    for control in view.controls.values():
        if isinstance(control, ipywidgets.Button):
            control.click()
    assert view.errors == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(views(SHAPES[0])))
def test_a_view_is_what_render_gives_and_a_static_page_shows_it(shape, name):
    view = views(shape)[name]
    picture = view.render({})
    assert picture.dtype == np.uint8 and np.array_equal(pixels_of(view), picture)
    bundle, shown = view._repr_mimebundle_(include=None, exclude=None), view.image.value
    assert np.array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))), picture)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.widget.model_id
    assert bundle["text/plain"] == view.scene.describe(view.state)
    for mode in view.controls["mode"].options if "mode" in view.controls else []:
        view.render({"mode": mode})
    assert view.image.value == shown  # rendering changes nothing


def test_png_holds_the_pixels():
    for shape in [(1, 1), (5, 301), (64, 3)]:
        picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        opened = Image.open(io.BytesIO(pixels.png(picture)))
        assert opened.mode == "RGB" and np.array_equal(np.array(opened), picture)


# ---------------------------------------------------------------------------------------------- the slice viewer
@pytest.mark.parametrize("shape", SHAPES)
def test_the_words_tell_every_value_at_the_voxel(shape):
    pair, registration = example(shape)
    view = widgets.slice_viewer(pair, registration, panels=list(panels.PANELS))
    place = tuple(range(3, 3 + len(shape)))
    view.set(**{f"axis_{axis}": index for axis, index in enumerate(place)})
    u = registration.displacement
    at = (0, slice(None), *place)
    told = [
        f"Voxel ({', '.join(map(str, place))})",
        f"at ({', '.join(f'{i * s:.1f}' for i, s in zip(place, pair.spacing, strict=True))}) mm",
        f"moving {pair.moving[at][0]:.3g};",
        f"warped {warp(pair.moving, u)[at][0]:.3g};",
        f"checkerboard of warped {warp(pair.moving, u)[at][0]:.3g} and fixed {pair.fixed[at][0]:.3g};",
        f"fixed labels {pair.fixed_labels[at][0]};",
        f"warped labels {warp_labels(pair.moving_labels, u)[at][0]};",
        f"u along axis 1 {u[at][1]:.3g} voxels",
        f"length {u[at].norm():.2f}",
        f"|J| = {jacobian_determinant(u)[at][0]:.3f}",
        f"inverse-consistency error {compose(-u, u)[at].norm():.3g} voxels",
    ]
    for words in told:
        assert words in view.caption.value, words


def test_the_panels_of_a_plane_are_the_pictures_of_that_plane():
    pair, registration = example(SHAPES[1])
    view = widgets.slice_viewer(pair, registration, panels=["jacobian", "folds"])
    determinant = jacobian_determinant(registration.displacement)[0, 0].numpy()
    view.set(planes="across axis 1", crosshair=False, axis_1=2)
    picture = view.render({})
    assert (determinant[:, 2] <= 0).any()
    shown = paint.render_jacobian(determinant[:, 2], scale=33)
    height, width = shown.shape[:2]
    assert np.array_equal(picture[38 : 38 + height, :width], shown)
    fixed = pair.fixed[0, 0].numpy()[:, 2]
    limits = pixels.intensity_limits(pair.moving.numpy(), pair.fixed.numpy())
    below = paint.render_folds(paint.render_image(fixed, limits=limits, scale=33), determinant[:, 2])
    assert np.array_equal(picture[38 : 38 + height, -width:], below)


def test_a_checkerboard_shows_both_images_of_the_plane():
    pair, registration = example(SHAPES[1])
    view = widgets.slice_viewer(pair, registration, panels=["checkerboard"])
    view.set(planes="across axis 0", crosshair=False, axis_0=3)
    warped = warp(pair.moving, registration.displacement)[0, 0, 3].numpy()
    limits = pixels.intensity_limits(pair.moving.numpy(), pair.fixed.numpy())
    wanted = paint.render_checkerboard(warped, pair.fixed[0, 0, 3].numpy(), limits=limits, scale=33)
    assert np.array_equal(view.render({})[38:, : wanted.shape[1]], wanted)


def test_all_planes_of_two_volumes_side_by_side_fill_the_width():
    image = torch.zeros(1, 1, 64, 80, 64)
    view = widgets.slice_viewer(Pair(image, image), Registration(torch.zeros(1, 3, 64, 80, 64)), upright=True)
    assert 780 < view.render({}).shape[1] < 920


def test_the_button_goes_to_the_extreme_of_the_chosen_panel():
    pair, registration = example(SHAPES[1])
    view = widgets.slice_viewer(pair, registration, panels=["fixed", "directions", "jacobian"])
    assert view.controls["extreme"].options == ("displacement u", "|J|")
    determinant = jacobian_determinant(registration.displacement)[0, 0].numpy()
    view.set(extreme="|J|")
    view.controls["go"].click()
    assert determinant[voxel(view)] == determinant.min()
    view.set(extreme="displacement u")
    view.controls["go"].click()
    assert voxel(view) == (2, 2, 2) and view.errors == []


def test_one_slider_moves_the_voxel_in_every_panel_and_paints_only_one_plane_anew(monkeypatch):
    pair, registration = example(SHAPES[1])
    view = widgets.slice_viewer(pair, registration, panels=["jacobian"])
    painted = []
    render = paint.render_jacobian
    monkeypatch.setattr(paint, "render_jacobian", lambda *a, **k: painted.append(1) or render(*a, **k))
    view.controls["axis_2"].value += 1
    assert len(painted) == 1
    view.controls["axis_2"].value -= 1
    assert len(painted) == 1


def test_colours_have_one_range_in_all_planes():
    pair, registration = example(SHAPES[1])
    view = widgets.slice_viewer(pair, registration, panels=["components"])
    limit = pixels.displacement_limit(registration.displacement[0].numpy())
    assert {panel.limits for panel in view.scene.panels(view.state)} == {(-limit, limit)}
    assert limit >= registration.displacement.norm(dim=1).max() > limit / 2


# ---------------------------------------------------------------------------------------------- scenes of one plane
def test_a_volume_has_the_pictures_of_its_planes():
    pair, registration = example(SHAPES[1])
    u, fixed = registration.displacement, pair.fixed
    comparison = widgets.compare(pair.moving, fixed)
    flat = widgets.compare(pair.moving[..., 4, :], fixed[..., 4, :])
    state = {"plane": "across axis 1", "axis_1": 4, "mode": "checkerboard"}
    assert np.array_equal(comparison.render(state), flat.render({"mode": "checkerboard"}))
    viewer = widgets.field_viewer(u, fixed)
    flat = widgets.field_viewer(u[:, :2, ..., 5], fixed[..., 5])
    state = {"plane": "across axis 2", "axis_2": 5, "mode": "arrows", "every": 2}
    shown, wanted = viewer.render(state), flat.render({"mode": "arrows", "every": 2})
    assert shown.shape == wanted.shape and ((shown == pixels.LINE).all(-1) == (wanted == pixels.LINE).all(-1)).all()


def test_only_the_slider_across_the_plane_is_shown():
    view = views(SHAPES[1])["compare"]
    for axis in range(3):
        view.set(plane=f"across axis {axis}")
        shown = [other for other in range(3) if view.controls[f"axis_{other}"].layout.display is None]
        assert shown == [axis]


def test_the_inspector_goes_from_fold_to_fold_of_the_volume():
    pair, registration = example(SHAPES[1])
    view = widgets.jacobian_inspector(registration.displacement, pair.fixed)
    determinant = jacobian_determinant(registration.displacement)[0, 0].numpy()
    view.controls["next_fold"].click()
    assert determinant[voxel(view)] == determinant.min()
    assert f"{determinant.min():.3f}" in view.caption.value and "along axis 2" in view.caption.value
    assert f"{(determinant <= 0).mean():.2%}" in view.caption.value


def test_explore_takes_volumes():
    pair, registration = example(SHAPES[1], batch=2)
    tabs = widgets.explore(pair, registration, item=1)
    alone = widgets.field_viewer(registration.displacement, pair.fixed, moving=pair.moving, item=1)
    assert tabs.errors == [] and tabs.views["field"].image.value == alone.image.value


# ---------------------------------------------------------------------------------------------- levels and times
@pytest.mark.parametrize("shape", SHAPES)
def test_levels_run_from_the_identity_to_the_displacement(shape):
    pair, registration = example(shape)
    view = widgets.level_scrubber(pair, registration, panels=["warped", "directions"])
    last = view.scene.panels(view.state)
    assert np.allclose(last[1].displacement, registration.displacement[0], atol=1e-5)
    assert "After 3 of 3 levels, coarse to fine, the last on " + " x ".join(map(str, shape)) in view.caption.value
    view.set(step=0)
    first = view.scene.panels(view.state)
    assert np.allclose(first[0].values, pair.moving[0, 0], atol=1e-6) and "identity" in view.caption.value
    assert first[1].limit == last[1].limit
    view.set(step=1)
    resized = resize_displacement(registration.levels[0], shape)[0]
    assert np.allclose(view.scene.panels(view.state)[1].displacement, resized)


@pytest.mark.parametrize("shape", SHAPES)
def test_time_runs_along_the_exponential(shape):
    pair, registration = example(shape, batch=2)
    velocity = registration.displacement
    view = widgets.time_scrubber(pair, velocity, panels=["directions"], item=1)
    for time in (0.0, 0.35, 1.0):
        view.set(step=time)
        wanted = exponential(time * velocity)[1]
        assert np.allclose(view.scene.panels(view.state)[0].displacement, wanted, atol=1e-6)
        assert f"Time {time:.2f}" in view.caption.value


def test_a_slider_that_is_slow_to_follow_waits_until_it_is_let_go():
    small, large = (torch.zeros(1, 3, n, n, n) for n in (8, 64))
    for velocity, live in ((small, True), (large, False)):
        image = torch.zeros(1, 1, *velocity.shape[2:])
        view = widgets.time_scrubber(Pair(image, image), velocity, panels=["warped"])
        assert view.controls["step"].continuous_update is live


@pytest.mark.parametrize("shape", SHAPES)
def test_a_composition_in_planes_tells_its_numbers(shape):
    velocity = example(shape)[1].displacement
    u, z = exponential(velocity / 4), exponential(-velocity / 4)
    inverses = {"exp(-v)": z, "invert": invert(u)}
    view = t05_diffeomorphisms.composition_inspector(u, inverses, spacing=(2.0,) * len(shape))
    error = compose(u, z).norm(dim=1)
    assert f"mean {error.mean():.3f}" in view.caption.value and f"at most {error.max():.3f}" in view.caption.value
    grid, *_, folds = view.scene.panels(view.state)
    assert np.allclose(folds.determinant, jacobian_determinant(compose(u, z))[0, 0], atol=1e-5)
    view.set(stretch=0.0)
    assert view.scene.panels(view.state)[0].stretch == 0 and grid.stretch == 1


# ---------------------------------------------------------------------------------------------- odd and bad input
@pytest.mark.parametrize("shape", [(1, 7), (5, 31), (401, 3), (1, 5, 31), (40, 2, 3)])
def test_odd_shapes_are_drawn(shape):
    image, u = torch.zeros(1, 1, *shape), torch.zeros(1, len(shape), *shape)
    pair, registration = Pair(image, image, image.long(), image.long()), Registration(u, u, levels=(u,))
    made = [
        widgets.slice_viewer(pair, registration, panels=list(panels.PANELS)),
        widgets.level_scrubber(pair, registration),
        t05_diffeomorphisms.composition_inspector(u, {"u": u}),
        *widgets.explore(pair, registration).views.values(),
    ]
    for view in made:
        for control in view.controls.values():
            for value in getattr(control, "options", None) or []:
                control.value = value
        assert view.errors == []


def seen(pair, registration, **options):
    return widgets.slice_viewer(pair, registration, **options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda p, r: seen(p, r, panels=["wrapped"]), ValueError, "a panel must be one of moving, fixed"),
        (lambda p, r: seen(p, r, panels=[]), ValueError, "at least one panel"),
        (lambda p, r: seen(p, Registration(r.displacement), panels=["error"]), ValueError, "inverse=None"),
        (lambda p, r: seen(Pair(p.moving, p.fixed), r, panels=["fixed labels"]), ValueError, "need a pair with labels"),
        (lambda p, r: seen(p, Registration(r.displacement[..., 1:])), ValueError, "displacement and fixed"),
        (lambda p, r: seen(p, Registration(r.displacement / 0)), ValueError, "finite"),
        (lambda p, r: seen(p, r, item=5), IndexError, "from 0 to 1, received 5"),
        (lambda p, r: widgets.level_scrubber(p, Registration(r.displacement)), ValueError, "levels=()"),
        (lambda p, r: widgets.time_scrubber(p, r.displacement[..., 1:]), ValueError, "displacement and fixed"),
        (lambda p, r: widgets.compare(p.moving, p.fixed[..., 1:]), ValueError, "moving and fixed must have the same"),
        (lambda p, r: widgets.compare(p.moving, p.fixed, item=3), IndexError, "item from 0 to 1"),
        (lambda p, r: widgets.compare(p.moving * torch.nan, p.fixed, item=0), ValueError, "moving must be finite"),
        (lambda p, r: widgets.compare(p.moving, p.fixed, warped=p.fixed[..., 1:]), ValueError, "warped and fixed"),
        (lambda p, r: widgets.compare(p.moving, p.fixed, fixed_labels=p.fixed, item=0), TypeError, "must be integers"),
        (lambda p, r: widgets.field_viewer(r.displacement, p.fixed[..., 1:]), ValueError, "image and displacement"),
        (lambda p, r: widgets.jacobian_inspector(r.displacement[:, :1]), ValueError, "displacement must be"),
        (lambda p, r: widgets.jacobian_inspector(r.displacement / 0, item=0), ValueError, "finite"),
    ],
)
def test_bad_input_is_refused_before_anything_is_shown(shape, make, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
        make(*example(shape, batch=2))
