"""The ripple dial: its prices are the losses', its thresholds those of calculus, every control draws anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit import fields, losses
from regkit.course.lessons import t07_gradicon
from regkit.figures.pixels import FOLD


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


def test_every_control_draws_anew_and_has_words():
    view = t07_gradicon.ripple_dial()
    drive(view)
    assert all(control.description for control in view.controls.values())
    assert "image/png" in view._repr_mimebundle_()


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
