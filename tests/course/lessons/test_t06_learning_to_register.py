"""The race of registrations: who stands where at a time, in picture and words."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.views import drive, pixels

from regkit import fields
from regkit.course.lessons import t06_learning_to_register
from regkit.figures.paint import render_image
from regkit.figures.pixels import intensity_limits
from regkit.types import Pair

SHAPE = (13, 11)


@pytest.mark.parametrize(("width", "apart"), [(24, True), (6, False)])
def test_shapes_are_pulled_apart_along_their_centres_unless_one_would_leave_the_image(width, apart):
    left, right = torch.zeros(2, 1, 1, 12, width, dtype=torch.long)
    left[..., 4:8, width // 2 - 3 : width // 2 + 1] = right[..., 4:8, width // 2 - 1 : width // 2 + 3] = 1
    pulled = t06_learning_to_register.pulled_apart(Pair(left.float(), right.float(), left, right))
    assert (pulled is not None) is apart
    if pulled is not None:
        assert torch.equal(pulled.moving_labels, left.roll(-1, 3)) and torch.equal(
            pulled.moving, left.roll(-1, 3).float()
        )
        assert torch.equal(pulled.fixed_labels, right.roll(1, 3)) and torch.equal(
            pulled.fixed, right.roll(1, 3).float()
        )


def example():
    generator = torch.Generator().manual_seed(0)
    moving = torch.rand(2, 1, *SHAPE, generator=generator)
    displacement = torch.zeros(2, 2, *SHAPE)
    displacement[:, 0] = 2.0
    return Pair(moving, fields.warp(moving, displacement)), displacement


def started():
    pair, displacement = example()
    tortoise = [(0.1 * step, displacement * step / 10) for step in range(1, 11)]
    return t06_learning_to_register.race(pair, {"hare": [(0.02, displacement / 2)], "tortoise": tortoise}, item=1)


def test_each_state_counts_from_its_time_and_before_the_first_a_runner_has_the_moving_image():
    seconds = [0.1 * step for step in range(1, 11)]
    places = [t06_learning_to_register.reached(seconds, time) for time in (0.0, 0.0999, 0.1, 0.25, 9.0)]
    assert places == [0, 0, 1, 2, 10]
    pair, displacement = example()
    view = started()
    height, width = (13 * 19 + 24, 11 * 19)  # 256 pixels hold 13 voxels of 19, under a head of 24
    limits = intensity_limits(pair.moving[1, 0].numpy(), pair.fixed[1, 0].numpy())
    first, last = view.controls["time"].options[0], view.controls["time"].options[-1]
    for time, image in ((first, pair.moving), (last, fields.warp(pair.moving, displacement))):
        shown = render_image(image[1, 0], limits=limits, scale=19)
        runner = view.render({"time": time})[24:height, 2 * (width + 6) : 2 * (width + 6) + width]
        assert np.array_equal(runner, shown)
    half = fields.warp(pair.moving, displacement / 2)[1, 0]
    hare = (half - pair.fixed[1, 0]).square().mean()
    assert f"hare {hare:.5f}; tortoise 0.00000" in view.scene.describe({"time": last})


def test_the_clock_runs_from_before_the_first_to_after_the_last_and_is_told():
    view = started()
    words = view.controls["time"].options
    times = [float(each.split()[0]) / (1000 if each.endswith("ms") else 1) for each in words]
    assert times == sorted(times) and times[0] < 0.02 and times[-1] > 1.0
    assert "tortoise 0.00000" in view.caption.value  # it opens at the end
    view.controls["time"].value = words[0]
    assert view.caption.value.count("not there yet") == 2
    assert words[0] in view.caption.value and view.errors == []


def test_every_tick_of_the_clock_draws_another_picture():
    view = started()
    drive(view, {"time": "both"})
    shown = []
    for words in view.controls["time"].options[::10]:
        view.controls["time"].value = words
        shown.append(pixels(view))
    assert all((a != b).any() for a, b in pairwise(shown)) and view.errors == []


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (lambda u: {}, "each must have a state"),
        (lambda u: {"a": []}, "each must have a state"),
        (lambda u: {"a": [(0.2, u), (0.1, u)]}, "positive and rise"),
        (lambda u: {"a": [(0.0, u)]}, "positive and rise"),
    ],
)
def test_bad_input_is_refused(runs, words):
    pair, displacement = example()
    with pytest.raises(ValueError, match=words):
        t06_learning_to_register.race(pair, runs(displacement))
