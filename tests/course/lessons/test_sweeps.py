"""Sliders over stored fields, compositions and races: every control driven in process, numbers against their law."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit import fields
from regkit.course.lessons import sweeps, t05_diffeomorphisms
from regkit.figures import pixels
from regkit.figures.pixels import FOLD

SHAPE = (21, 17)


def example(batch=1):
    generator = torch.Generator().manual_seed(0)
    moving = torch.rand(batch, 1, *SHAPE, generator=generator)
    bump = torch.zeros(batch, 2, *SHAPE)
    bump[:, 0, 14, 11] = 1.0
    return moving, bump


def weight_slider():
    moving, bump = example()
    stored = {"1": 0 * bump, "0.1": bump, "0": 4 * bump}
    return sweeps.sweep(moving, moving, stored, words="λ", start="0.1", notes={"0": "Too loose."})


def inspector():
    _, bump = example()
    view = t05_diffeomorphisms.composition_inspector(bump, {"minus u": -bump, "itself": bump})
    shown = {name for name, each in view.controls.items() if each.layout.display != "none"}
    assert shown == {"inverse", "more"}  # it opens with one, and the way to the others
    view.set(more=True)
    return view


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (weight_slider, {"stop": "both", "mark": "picture"}),
        (
            inspector,
            dict.fromkeys(("inverse", "order", "stretch", "axis_0", "axis_1"), "both")
            | {"every": "picture", "crosshair": "picture", "extreme": "nothing", "more": "nothing"},
        ),
    ],
    ids=["sweep", "composition"],
)
def test_each_control_changes_what_it_should(make, changes):
    view = make()
    drive(view, changes)


def test_a_sweep_begins_where_it_is_told_and_says_what_it_shows():
    view = weight_slider()
    assert view.state["stop"] == "0.1" and view.caption.value.count("λ = 0.1:") == 1
    assert "0 folded voxels" in view.caption.value
    view.set(stop="0")
    determinant = fields.jacobian_determinant(4 * example()[1])
    count, least = int((determinant <= 0).sum()), float(determinant.min())
    assert count > 0
    for words in (f"{count} folded voxels", f"least |J| {least:.2f}", "Too loose."):
        assert words in view.caption.value
    view.set(stop="1")
    assert "Mean |warped - fixed| 0.0000" in view.caption.value


def test_a_sweep_paints_the_folds_in_their_colour_and_marks_the_least_jacobian():
    view = weight_slider()
    folded = {stop: (view.render({"stop": stop, "mark": False}) == FOLD).all(-1).sum() for stop in ("0.1", "0")}
    assert folded["0"] > folded["0.1"]
    moving, bump = example()
    unmarked = sweeps.sweep(moving, moving, {"0": bump}, words="λ", mark=False)
    assert unmarked.state["mark"] is False and view.state["mark"] is True
    assert (view.render({"stop": "0", "mark": True}) != view.render({"stop": "0", "mark": False})).any()


def test_a_sweep_shows_where_warped_and_fixed_differ():
    moving, bump = example()
    view = sweeps.sweep(moving, moving, {"0": 0 * bump, "1": 4 * bump}, words="λ", error=True, mark=False)
    assert "warped · |warped - fixed| · x + u(x)" in view.caption.value
    side = pixels.integer_scale(SHAPE, 256)
    second = slice(SHAPE[1] * side + 6, 2 * SHAPE[1] * side + 6)  # after the first panel and a gap
    nothing, some = (view.render({"stop": stop, "mark": False})[24 : 24 + SHAPE[0] * side, second] for stop in "01")
    brightest = np.unravel_index(some[..., 0].argmax(), some.shape[:2])
    assert nothing.max() == 0 and tuple(place // side for place in brightest) == (14, 11)


def test_a_composition_says_how_far_from_the_identity_it_is():
    _, bump = example()
    view = inspector()
    error = fields.compose(bump, -bump).norm(dim=1)
    assert f"at most {error.max():.3f} voxels" in view.caption.value
    view.set(order="ψ∘φ", inverse="itself")
    error = fields.compose(bump, bump).norm(dim=1)
    assert f"mean {error.mean():.3f}" in view.caption.value and "ψ∘φ with ψ by itself" in view.caption.value


def test_a_round_trip_is_told_without_images_and_millimetres():
    view = inspector()
    assert " mm" not in view.caption.value and "moving image" not in view.caption.value
    assert (
        "at (20.0, 22.0) mm"
        in t05_diffeomorphisms.composition_inspector(
            example()[1], {"itself": example()[1]}, spacing=(2.0, 2.75)
        ).caption.value
    )
    _, directions, _, trip = view.scene.panels(view.state)
    assert not np.array_equal(directions.legend(240), dataclasses.replace(directions, name="u").legend(240))
    made = {value: type(trip)("|J|", np.full((1, 1), value)).words((0, 0)) for value in (-0.5, 1.0, 1.5)}
    assert made == {
        -0.5: "|J| = -0.500, it folds",
        1.0: "|J| = 1.000, sizes are kept",
        1.5: "|J| = 1.500, a region there becomes 1.50 times as large",
    }


def test_the_order_of_a_composition_is_the_order_of_the_maps():
    shift, stretch = torch.zeros(1, 2, *SHAPE), torch.zeros(1, 2, *SHAPE)
    shift[:, 0], stretch[:, 0] = 2.0, 0.5 * torch.arange(SHAPE[0])[:, None]
    view = t05_diffeomorphisms.composition_inspector(shift, {"stretch": stretch})
    at = 4  # φ(x) = x + 2, ψ(x) = 1.5 x: φ(ψ(4)) = 8, ψ(φ(4)) = 9
    for order, end in (("φ∘ψ", 8), ("ψ∘φ", 9)):
        grid = view.scene.panels({**view.state, "order": order})[0]
        assert grid.displacement[0, at, 0] == pytest.approx(end - at)


def test_an_item_of_a_batch_is_shown():
    moving, bump = example(batch=2)
    bump[1] *= 3
    view = sweeps.sweep(moving, moving, {"a": bump}, words="t", item=1)
    alone = sweeps.sweep(moving[1:], moving[1:], {"a": bump[1:]}, words="t")
    assert view.image.value == alone.image.value and view.caption.value == alone.caption.value
    view = t05_diffeomorphisms.composition_inspector(bump, {"a": -bump}, item=1)
    alone = t05_diffeomorphisms.composition_inspector(bump[1:], {"a": -bump[1:]})
    assert view.image.value == alone.image.value and view.caption.value == alone.caption.value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m, u: sweeps.sweep(m, m, {}, words="λ"), "there must be one"),
        (lambda m, u: sweeps.sweep(m, m, {"1": u}, words="λ", start="2"), "received .'2'."),
        (lambda m, u: sweeps.sweep(m, m, {"1": u}, words="λ", notes={"3": ""}), "received .'3'."),
        (lambda m, u: sweeps.sweep(m, m, {"1": u[..., 1:]}, words="λ"), "same height and width"),
        (lambda m, u: t05_diffeomorphisms.composition_inspector(u, {}), "at least one displacement"),
        (lambda m, u: t05_diffeomorphisms.composition_inspector(u, {"a": u[..., 1:]}), "same height and width"),
        (lambda m, u: t05_diffeomorphisms.composition_inspector(u / 0, {"a": u}), "finite"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make(*example())
