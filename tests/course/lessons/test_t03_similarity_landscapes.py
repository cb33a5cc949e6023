"""Similarity landscapes: directions, capture ranges of known curves, and the view with its controls."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit import data, fields
from regkit.course.lessons import t03_similarity_landscapes
from regkit.course.lessons.t03_similarity_landscapes import landscape_viewer
from regkit.fields import warp

SHAPE = (33, 37)


def image(seed=0):
    return data.shapes(1, size=SHAPE, seed=seed).images


def test_a_shift_pulls_along_axis_1_and_a_turn_keeps_the_middle():
    displacement = fields.rigid_displacement(SHAPE, right=3.0)
    assert torch.allclose(displacement[:, 1], torch.tensor(3.0)) and displacement[:, 0].abs().max() < 1e-5
    turn = fields.rigid_displacement(SHAPE, degrees=90)
    assert torch.allclose(turn[0, :, 16, 18], torch.zeros(2), atol=1e-5)
    assert torch.allclose(turn[0, :, 20, 18], torch.tensor([-4.0, 4.0]), atol=1e-5)  # (4, 0) goes to (0, 4)


def test_a_sweep_finds_the_shift_that_undoes_another():
    fixed = image()
    moving = warp(fixed, fields.rigid_displacement(SHAPE, right=-4.0))
    places = [float(place) for place in range(-8, 9)]
    curves = t03_similarity_landscapes.sweep(moving, fixed, right=places)
    for name, values in curves.items():
        assert places[int(np.argmin(values))] == 4, name
        assert len(values) == len(places)
    assert len(t03_similarity_landscapes.sweep(moving, fixed, degrees=(0, 5), right=places)["MSE"]) == 2 * len(places)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 2, 1, 0, 1, 2, 3], (-3, 3)),  # a funnel
        ([1, 2, 1, 0, 1, 2, 1], (-2, 2)),  # a valley between two hills
        ([1, 1, 1, 0, 1, 1, 1], (-1, 1)),  # a needle in a plain
        ([0, 1, 2, 3, 4, 5, 6], (0, 0)),  # downhill leads elsewhere
        ([6, 5, 4, 3, 2, 1, 0], (0, 0)),
        ([4, 3, 2, 1, 0, 1, 2], (-3, 3)),  # the bottom is one step off, which is tolerated
    ],
)
def test_capture_ranges_of_known_curves(values, expected):
    assert t03_similarity_landscapes.capture_range([-3, -2, -1, 0, 1, 2, 3], values) == expected


def test_curves_have_their_capture_range_in_the_title():
    t03_similarity_landscapes.show_curves({"a": [1, 0, 1], "b": [0, 1, 2]}, [-1, 0, 1], "both")
    titles = [axes.get_title() for axes in plt.gcf().axes]
    plt.close("all")
    assert titles == ["a\n-1 to 1", "b\n-1 to 1"]


def test_the_view_marks_the_loss_here_and_says_the_capture_range():
    moving = image()
    view = landscape_viewer(moving, {"itself": moving, "inverse": 1 - moving})
    view.set(shift=0.0, angle=0.0)
    assert "MSE 0.000" in view.caption.value and "itself" in view.caption.value
    view.set(fixed="inverse")
    assert "no minimum at 0" in view.caption.value and view.errors == []
    held = t03_similarity_landscapes.sweep(moving, 1 - moving)["NCC"][0]
    assert f"NCC {held:.3f}" in view.caption.value


def test_each_control_changes_what_it_should_and_curves_are_computed_once(monkeypatch):
    monkeypatch.setattr(t03_similarity_landscapes, "STEPS", {"shift": 10.0, "angle": 20.0})
    computed, compute = [], t03_similarity_landscapes.sweep

    def counted(*images, **places):
        computed.append(max(map(len, places.values())))
        return compute(*images, **places)

    monkeypatch.setattr(t03_similarity_landscapes, "sweep", counted)
    moving = image()
    view = landscape_viewer(moving, {"itself": moving, "other": image(1)})
    changes = dict.fromkeys(("shift", "angle", "over", "fixed"), "both")
    drive(view, changes)
    whole = [count for count in computed if count > 1]
    drive(view, changes)
    assert [count for count in computed if count > 1] == whole


@pytest.mark.parametrize(
    ("fixed", "words"), [({}, "at least one"), ({"a": torch.zeros(1, 1, 5, 5)}, "grid"), ({"a": image() / 0}, "finite")]
)
def test_bad_input_is_refused(fixed, words):
    with pytest.raises(ValueError, match=words):
        landscape_viewer(image(), fixed)
