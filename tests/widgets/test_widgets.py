"""Widgets, driven in process: every control redraws, errors are shown and kept, a static page has a picture."""

import typing

import numpy as np
import pytest
import torch
from helpers.views import drive, pixels

from regkit import widgets
from regkit.fields import jacobian_determinant, warp
from regkit.figures import paint
from regkit.figures import pixels as drawing
from regkit.types import Pair, Registration
from regkit.widgets import live, scene, volumes

SHAPE = (21, 17)


def folding(shape=SHAPE):
    """A displacement with two separate folds, the deeper one second in reading order."""
    displacement = torch.zeros(1, 2, *shape)
    displacement[0, 0, 5, 4] = 2.5
    displacement[0, 0, 14, 11] = 4.0
    return displacement


def example(batch=1, shape=SHAPE):
    generator = torch.Generator().manual_seed(0)
    moving = torch.rand(batch, 1, *shape, generator=generator)
    displacement = folding(shape).expand(batch, -1, -1, -1) / 3
    fixed = warp(moving, displacement)
    return Pair(moving, fixed, (moving > 0.5).long(), (fixed > 0.5).long()), displacement


def views():
    pair, displacement = example()
    labels = pair.fixed_labels
    return {
        "compare": widgets.compare(pair.moving, pair.fixed, warped=pair.fixed.flip(-1), fixed_labels=labels),
        "field": widgets.field_viewer(displacement, pair.fixed, moving=pair.moving),
        "folds": widgets.jacobian_inspector(folding(), pair.fixed),
    }


COMPARED = {"mode": "both", "warped": "both"}
FIELD = {"mode": "both", "stretch": "both"}


@pytest.mark.parametrize(
    ("name", "mode", "changes"),
    [
        ("compare", "curtain", COMPARED | {"position": "picture"}),
        ("compare", "flicker", COMPARED | {"frame": "both"}),
        ("compare", "checkerboard", COMPARED | {"tiles": "picture"}),
        ("compare", "difference", COMPARED),
        ("compare", "overlay", COMPARED),
        ("compare", "outlines", COMPARED),
        ("field", "grid", FIELD | {"every": "picture"}),
        ("field", "arrows", FIELD | {"every": "picture"}),
        ("field", "colour", FIELD),
    ],
)
def test_each_mode_shows_the_controls_that_it_uses(name, mode, changes):
    view = views()[name]
    view.set(mode=mode)
    image = view.image
    drive(view, changes)
    assert view.image is image


def test_the_toggle_shows_moving_before_and_warped_after():
    pair, _ = example()
    view = widgets.compare(pair.moving, pair.fixed, warped=pair.fixed)
    view.set(position=1.0)
    scale = drawing.integer_scale(SHAPE)
    assert np.array_equal(pixels(view), paint.render_image(pair.fixed, scale=scale))
    assert view.caption.value.count("Warped") == 1
    view.set(warped=False)
    assert np.array_equal(pixels(view), paint.render_image(pair.moving, scale=scale))
    assert "Moving" in view.caption.value
    assert "warped" not in widgets.compare(pair.moving, pair.fixed).controls


def test_one_range_serves_before_and_after():
    pair, _ = example()
    view = widgets.compare(5 * pair.moving, pair.fixed, warped=pair.fixed)
    after = view.render({"position": 0.0, "warped": True})
    assert np.array_equal(after, view.render({"position": 0.0, "warped": False}))
    low, high = drawing.intensity_limits(5 * pair.moving.numpy(), pair.fixed.numpy())
    half = high / 2 - low / 2
    assert f"{half:g}" in view.scene.describe({**view.state, "mode": "difference"})


def test_a_stretch_of_zero_is_the_identity():
    view = widgets.field_viewer(folding())
    flat = widgets.field_viewer(torch.zeros(1, 2, *SHAPE))
    for mode in ("grid", "arrows"):
        state = {"mode": mode, "every": 3, "stretch": 0.0}
        assert np.array_equal(view.render(state), flat.render({**state, "stretch": 1.0}))


def test_the_grid_lies_on_moving_and_arrows_on_the_image():
    black, white = torch.zeros(1, 1, *SHAPE), torch.ones(1, 1, *SHAPE)
    view = widgets.field_viewer(torch.zeros(1, 2, *SHAPE), white, moving=black)
    bright = {mode: np.median(view.render({"mode": mode, "every": 4})) for mode in ("grid", "arrows")}
    assert bright["grid"] == 0 and bright["arrows"] > 100


def test_the_inspector_goes_from_fold_to_fold_deepest_first():
    view = views()["folds"]
    determinant = jacobian_determinant(folding())[0, 0]
    folds = volumes.folded_places(determinant.numpy())
    assert len(folds) == 2 and "in 2 regions" in view.caption.value
    values = []
    for _ in range(3):
        view.controls["next_fold"].click()
        place = view.controls["row"].value, view.controls["column"].value
        assert place in folds
        values.append(float(determinant[place]))
        assert f"{values[-1]:.3f}" in view.caption.value and "folds" in view.caption.value
    assert values[0] == determinant.min() and values[0] < values[1] <= 0 and values[2] == values[0]
    assert view.errors == []


def test_without_folds_there_is_no_next_fold():
    view = widgets.jacobian_inspector(torch.zeros(1, 2, *SHAPE))
    assert view.controls["next_fold"].disabled
    assert "sizes are kept" in view.caption.value and "0.00%" in view.caption.value


@pytest.mark.parametrize(("factor", "words"), [(1.5, "shrinks"), (0.5, "grows 2.0 times"), (-1.0, "turned over")])
def test_the_words_say_what_happens_to_the_content(factor, words):
    displacement = torch.zeros(1, 2, *SHAPE)
    displacement[:, 0] = (factor - 1) * torch.arange(SHAPE[0])[:, None]  # |J| = factor
    assert words in widgets.jacobian_inspector(displacement).caption.value


def test_an_error_in_a_callback_is_shown_and_kept_and_goes_away():
    view = views()["field"]
    shown = view.image.value
    view.controls["mode"].options = ["grid", "<unknown>"]
    view.controls["mode"].value = "<unknown>"
    assert len(view.errors) == 1 and "KeyError" in view.errors[0] and "Traceback" in view.errors[0]
    assert all(words in view.alert.value for words in ("KeyError", "&lt;unknown&gt;", 'role="alert"'))
    assert view.image.value == shown
    view.controls["mode"].value = "grid"
    assert view.alert.value == "" and len(view.errors) == 1


def test_an_error_behind_a_button_is_shown_and_kept(monkeypatch):
    view = views()["folds"]
    monkeypatch.setattr(volumes, "next_place", lambda *_: 1 / 0)
    view.controls["next_fold"].click()
    assert "ZeroDivisionError" in view.alert.value and len(view.errors) == 1


def test_several_controls_at_once_draw_once():
    view = views()["folds"]
    drawn = []
    view.image.observe(lambda change: drawn.append(change), names="value")
    view.set(row=1, column=2, histogram="log")
    assert len(drawn) == 1 and view.state == {"row": 1, "column": 2, "histogram": "log"}


def test_every_kind_of_control_becomes_a_widget():
    controls = [
        scene.Slider("whole", 1, 0, 3),
        scene.Slider("part", 0.5, 0.0, 1.0, 0.1),
        scene.Choice("choice", ["a", "b"]),
        scene.Stops("stops", ["a", "b"], "b"),
        scene.Toggle("toggle", True),
        scene.Player(600),
        scene.Button("button"),
    ]
    assert {type(control) for control in controls} == {*typing.get_args(scene.Control), scene.Stops}
    made = [live._widget(control) for control in controls]
    assert len({type(widget) for widget in made}) == len(made)
    start = scene.first_values({str(n): control for n, control in enumerate(controls)})
    assert start == {str(n): widget.value for n, widget in enumerate(made) if hasattr(widget, "value")}
    with pytest.raises(TypeError, match="a control must be one of"):
        live._widget("slider")


def test_explore_has_all_three_views_of_one_item():
    pair, displacement = example(batch=3)
    tabs = widgets.explore(pair, Registration(displacement), item=2)
    assert list(tabs.views) == ["before and after", "field", "folds"] and tabs.errors == []
    comparison, alone = tabs.views["before and after"], widgets.compare(pair.moving[2:], pair.fixed[2:])
    assert np.array_equal(comparison.render({"warped": False}), alone.render({}))
    assert np.array_equal(comparison.render({"position": 0.0}), comparison.render({"position": 1.0}))  # warped is fixed
    assert "image/png" in tabs._repr_mimebundle_()
    tabs.views["field"].errors.append("an error")
    assert tabs.errors == ["an error"]
    one = widgets.explore(pair, Registration(displacement[:1]), item=1)  # one displacement for the whole batch
    alone = widgets.field_viewer(displacement[:1], pair.fixed[1:2], moving=pair.moving[1:2])
    assert one.views["field"].image.value == alone.image.value
