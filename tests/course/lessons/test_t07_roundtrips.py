"""Round trips of several networks: panels and words are of the composition, every control draws anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit import losses
from regkit.course.lessons.t07_gradicon import round_trip_viewer
from regkit.data import smooth_displacement
from regkit.fields import compose, invert, jacobian_determinant, warp
from regkit.types import Pair, Registration

SHAPE = (21, 17)


def example(batch=1):
    generator = torch.Generator().manual_seed(0)
    moving = torch.rand(batch, 1, *SHAPE, generator=generator)
    there = smooth_displacement(SHAPE, amplitude=2, smoothness=3).repeat(batch, 1, 1, 1)
    there[-1] *= -1
    good = Registration(there, invert(there))
    bad = Registration(there, 4 * there)
    return Pair(moving, warp(moving, there)), {"good": good, "bad": bad}


def test_every_control_draws_anew_and_has_words():
    pair, found = example()
    view = round_trip_viewer(pair, found)
    drive(view)
    assert all(control.description for control in view.controls.values())
    assert "image/png" in view._repr_mimebundle_()


def test_what_moves_the_cross_hairs_is_there_when_they_are():
    view = round_trip_viewer(*example())
    moving = [view.controls[name] for name in ("axis_0", "axis_1", "go")]
    assert all(control.layout.display == "none" for control in moving)
    view.set(crosshair=True)
    assert all(control.layout.display is None for control in moving) and view.errors == []
    before = view.image.value
    view.set(axis_0=3)
    assert view.image.value != before


def test_the_words_are_those_of_the_composition():
    pair, found = example()
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
    pair, found = example()
    scene = round_trip_viewer(pair, found).scene
    panels = {name: {panel.title: panel for panel in scene._made(name).panels} for name in found}
    assert np.abs(panels["good"]["grid of the round trip"].displacement).max() < 0.02
    assert np.abs(panels["bad"]["grid of the round trip"].displacement).max() > 2
    errors = {name: each["|E| of the round trip"] for name, each in panels.items()}
    assert errors["good"].limits == errors["bad"].limits and errors["bad"].limits[1] >= errors["bad"].values.max()
    assert round_trip_viewer(pair, found, limit=3.0).scene.limit == 3.0


def test_an_item_of_a_batch_is_shown():
    pair, found = example(batch=2)
    scene = round_trip_viewer(pair, found, item=1).scene
    assert torch.equal(scene.maps["good"][0], found["good"].displacement[1:])
    assert torch.equal(scene.pair.moving, pair.moving[1:])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda pair, found: round_trip_viewer(pair, {}), "there must be registrations"),
        (lambda pair, found: round_trip_viewer(pair, found, notes={"ugly": ""}), "'ugly'"),
        (lambda pair, found: round_trip_viewer(pair, {"a": Registration(found["good"].displacement)}), "no inverse"),
        (lambda pair, found: round_trip_viewer(pair, {"a": Registration(*torch.zeros(2, 1, 2, 9, 9))}), "one grid"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make(*example())
