"""The ripple dial's prices are the losses', its thresholds those of calculus; round trips are compositions;
the scales of the adaptive NCC are the loss's own; each control changes what it should."""

import math

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit import fields, losses
from regkit.course.lessons import t07_gradicon
from regkit.course.lessons.t07_gradicon import round_trip_viewer
from regkit.data import smooth_displacement
from regkit.fields import compose, invert, jacobian_determinant, warp
from regkit.figures.pixels import FOLD
from regkit.losses import adaptive_ncc, adaptive_ncc_terms
from regkit.types import Pair, Registration


def drawn_on_a_grid(ripple, size):
    """The ripple as a displacement of an image of this size, voxels of it."""
    points = fields.identity((size, size)) * (t07_gradicon.EXTENT / (size - 1))
    return (ripple(points) - points) * ((size - 1) / t07_gradicon.EXTENT)


@pytest.mark.parametrize(
    "ripple",
    [t07_gradicon.Ripple(3.0, 2), t07_gradicon.Ripple(0.4, 7, shift=-3.0), t07_gradicon.Ripple(0.0, 1, scale=1.1)],
)
def test_the_prices_are_those_of_the_losses_of_fields(ripple):
    field = drawn_on_a_grid(ripple, 385)
    nothing = torch.zeros_like(field)
    inner = fields.identity((385, 385))[:, :, :-1, :-1]  # not the border, where a field continues flat
    expected = losses.icon(field, nothing, points=inner), losses.gradicon(field, nothing, points=inner, orders="both")
    assert ripple.penalties() == pytest.approx([float(value) for value in expected], rel=0.01)


@pytest.mark.parametrize("waves", [1, 5, 20])
def test_a_ripple_that_just_folds_costs_what_the_formula_says(waves):
    ripple = t07_gradicon.Ripple(t07_gradicon.EXTENT / (2 * math.pi * waves), waves)
    assert ripple.steepness == pytest.approx(1)
    icon, gradicon = ripple.penalties()
    dear, fair = t07_gradicon.price_of_a_fold(waves, 64.0)
    assert (64 * icon, 0.2 * gradicon) == pytest.approx((dear, fair), rel=0.01)
    assert t07_gradicon.price_of_a_fold(2 * waves, 64.0) == pytest.approx((dear / 4, fair))


def test_a_translation_is_free_for_gradicon_only():
    icon, gradicon = t07_gradicon.Ripple(0, 3, shift=9.6).penalties()
    assert icon == pytest.approx(0.1**2, rel=1e-3) and gradicon < 1e-6


def test_the_profile_is_the_map_along_axis_0_and_its_slope_the_determinant():
    ripple = t07_gradicon.Ripple(2.0, 4, shift=5.0, scale=0.9)
    field = drawn_on_a_grid(ripple, t07_gradicon.EXTENT + 1)
    places = np.arange(t07_gradicon.EXTENT + 1.0)
    carried, slope = ripple.profile(places)
    assert np.allclose(carried, places + field[0, 0, :, 7].numpy(), atol=1e-4)
    exact = np.gradient(carried)
    assert np.abs(exact - slope)[1:-1].max() < 0.02
    assert np.allclose(fields.jacobian_determinant(field)[0, 0, 2:-2, 9], (0.9 * exact)[2:-2], atol=0.1)


def test_each_control_of_the_dial_changes_what_it_should():
    view = t07_gradicon.ripple_dial()
    drive(view, dict.fromkeys(("amplitude", "waves", "shift", "scale", "weight"), "both"))


@pytest.mark.parametrize("waves", [1, 6, 20])
@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_the_button_turns_the_ripple_up_until_it_just_folds(waves, scale):
    view = t07_gradicon.ripple_dial()
    view.set(waves=waves, scale=scale, amplitude=0.0)
    view.controls["fold"].click()
    assert "It folds" in view.caption.value and (view.render({}) == FOLD).all(-1).any()
    view.set(amplitude=view.state["amplitude"] - 0.1)
    assert "No fold" in view.caption.value and not (view.render({}) == FOLD).all(-1).any()
    assert view.errors == []


def test_the_words_tell_the_prices():
    view = t07_gradicon.ripple_dial()
    view.set(amplitude=0.0, shift=9.5, weight="8")
    icon, _ = t07_gradicon.Ripple(0.0, 3, 9.5).penalties()
    assert f"ICON: 8 x {icon:.2e} = {8 * icon:.2g}" in view.caption.value
    assert "a shift of 9.5 voxels" in view.caption.value


# ---------------------------------------------------------------------------------------------- round trips
FLAT = (21, 17)


def round_trips(batch=1):
    generator = torch.Generator().manual_seed(0)
    moving = torch.rand(batch, 1, *FLAT, generator=generator)
    there = smooth_displacement(FLAT, amplitude=2, smoothness=3).repeat(batch, 1, 1, 1)
    there[-1] *= -1
    good = Registration(there, invert(there))
    bad = Registration(there, 4 * there)
    return Pair(moving, warp(moving, there)), {"good": good, "bad": bad}


VOXEL = {"axis_0": "both", "axis_1": "both", "extreme": "nothing"}


def test_each_control_of_a_round_trip_changes_what_it_should():
    view = round_trip_viewer(*round_trips())
    drive(view, {"network": "both", "crosshair": "picture"})
    view.set(crosshair=True)
    drive(view, {"network": "both", "crosshair": "picture"} | VOXEL)


def test_what_moves_the_cross_hairs_is_there_when_they_are():
    view = round_trip_viewer(*round_trips())
    moving = [view.controls[name] for name in ("axis_0", "axis_1", "go")]
    assert all(control.layout.display == "none" for control in moving)
    view.set(crosshair=True)
    assert all(control.layout.display is None for control in moving) and view.errors == []
    before = view.image.value
    view.set(axis_0=3)
    assert view.image.value != before


def test_the_words_are_those_of_the_composition():
    pair, found = round_trips()
    view = round_trip_viewer(pair, found, notes={"bad": "Never trained."})
    assert view.caption.value.count("good:") == 1 and "Never trained." not in view.caption.value
    view.set(network="bad")
    there, back = found["bad"].displacement, found["bad"].inverse
    error = compose(there, back).norm(dim=1)
    expected = (
        f"{error.mean():.2f} voxels long on average, {error.max():.2f} at most",
        f"ICON {losses.icon(there, back):.2e}",
        f"GradICON {losses.gradicon(there, back, orders='both'):.2e}",
        f"{int((jacobian_determinant(there) <= 0).sum())} folded voxels",
        "Never trained.",
    )
    assert all(words in view.caption.value for words in expected)


def test_the_grid_of_a_good_round_trip_is_straight_and_one_range_serves_all():
    pair, found = round_trips()
    scene = round_trip_viewer(pair, found).scene
    panels = {name: {panel.title: panel for panel in scene.panels({"network": name})} for name in found}
    assert np.abs(panels["good"]["grid of the round trip"].displacement).max() < 0.02
    assert np.abs(panels["bad"]["grid of the round trip"].displacement).max() > 2
    errors = {name: each["|E| of the round trip"] for name, each in panels.items()}
    assert errors["good"].limits == errors["bad"].limits and errors["bad"].limits[1] >= errors["bad"].values.max()
    limited = round_trip_viewer(pair, found, limit=3.0).scene.panels({"network": "bad"})
    assert [panel.limits for panel in limited if "|E|" in panel.title] == [(0.0, 3.0)]


def test_an_item_of_a_batch_is_shown():
    pair, found = round_trips(batch=2)
    view = round_trip_viewer(pair, found, item=1)
    second = {name: Registration(each.displacement[1:], each.inverse[1:]) for name, each in found.items()}
    alone = round_trip_viewer(Pair(pair.moving[1:], pair.fixed[1:]), second)
    assert view.image.value == alone.image.value and view.caption.value == alone.caption.value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda pair, found: round_trip_viewer(pair, {}), "there must be registrations"),
        (lambda pair, found: round_trip_viewer(pair, found, notes={"ugly": ""}), "'ugly'"),
        (
            lambda pair, found: round_trip_viewer(pair, {"a": Registration(found["good"].displacement)}),
            "no inverse",
        ),
        (
            lambda pair, found: round_trip_viewer(pair, {"a": Registration(*torch.zeros(2, 1, 2, 9, 9))}),
            "one grid",
        ),
    ],
)
def test_bad_round_trips_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make(*round_trips())


# ---------------------------------------------------------------------------------------------- scales
WIDE = (48, 96)


def line():
    """A thin vertical line in the middle."""
    return torch.exp(-((torch.arange(WIDE[1]) - 47.0) ** 2) / 2).expand(WIDE).contiguous()[None, None]


def blob():
    """A wide spot."""
    rows, columns = torch.meshgrid(torch.arange(WIDE[0]) - 23.0, torch.arange(WIDE[1]) - 40.0, indexing="ij")
    return torch.exp(-(rows**2 + columns**2) / 80)[None, None]


def scale_viewer():
    return t07_gradicon.scale_viewer({"line": line(), "blob": blob()})


def test_each_control_of_the_scales_changes_what_it_should():
    view = scale_viewer()
    drive(view, {"shift": "both", "image": "both", "weighting": "both"})


@pytest.mark.parametrize("weighting", ["greedy", "parameter-free", "mean"])
def test_the_words_are_the_loss_of_the_shifted_image(weighting):
    view = scale_viewer()
    view.set(shift=7.0, weighting=weighting)
    moved = torch.roll(line(), 7, 3)  # to the right, as the view moves it
    parts = adaptive_ncc_terms(moved, line(), weighting=weighting)
    told = view.caption.value
    for name, term, weight in zip(t07_gradicon.SCALES, parts.terms[0], parts.weights[0], strict=True):
        assert f"{name} {term:.2f} x {weight:.2f}" in told
    assert f"{float(adaptive_ncc(moved, line(), weighting=weighting)):.3f}" in told


def test_a_coarse_scale_sees_a_thin_line_from_further_away():
    terms, _ = t07_gradicon.shifted_terms(line(), "greedy")
    first_lost = [int(np.argmax(terms[:, scale] > 0.95)) * t07_gradicon.STEP for scale in range(5)]
    assert first_lost == sorted(first_lost) and first_lost[0] < 5 and first_lost[-1] > 15


def test_the_weights_go_from_coarse_to_fine_and_add_up():
    _, weights = t07_gradicon.shifted_terms(line(), "greedy")
    assert np.allclose(weights.sum(1), 1, atol=1e-6)
    assert weights[0].argmax() == 0 and weights[60].argmax() == 4  # aligned: the finest; 30 voxels off: the coarsest


def test_the_areas_are_as_tall_as_the_weights():
    chart = t07_gradicon._areas(np.tile([0.1, 0.2, 0.3, 0.4, 0.0], (81, 1)))
    picture, height = chart.at(0.0), chart.axes.bbox.height
    column = picture[:, int(chart.axes.transData.transform((33.0, 0.5))[0])].astype(int)
    for name, weight in zip(t07_gradicon.SCALES, (0.1, 0.2, 0.3, 0.4, 0.0), strict=True):
        painted = (np.abs(column - t07_gradicon._PAINTS[name]).max(-1) <= 1).sum()
        assert painted == pytest.approx(weight * height, abs=3)  # both edges are smooth


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({}, "at least one image"),
        ({"a": torch.zeros(2, 1, 32, 32)}, "(1, 1, H, W)"),
        ({"a": torch.zeros(1, 1, 32, 32, 32)}, "(1, 1, H, W)"),
        ({"a": torch.zeros(1, 1, 8, 8)}, "fewer levels"),
    ],
)
def test_bad_images_are_refused(images, words):
    with pytest.raises(ValueError) as refused:
        t07_gradicon.scale_viewer(images)
    assert words in str(refused.value)
