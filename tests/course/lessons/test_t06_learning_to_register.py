"""The race of registrations: who stands where at a time, in picture and words."""

from itertools import pairwise

import ipywidgets
import numpy as np
import pytest
import torch
from helpers.views import pixels

from regkit import fields
from regkit.course.lessons import t06_learning_to_register
from regkit.types import Pair

SHAPE = (13, 11)


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


def test_before_the_start_all_have_the_moving_image_and_each_state_counts_from_its_time():
    pair, displacement = example()
    run = started().scene.runs["tortoise"]
    assert [run.at(time) for time in (0.0, 0.0999, 0.1, 0.25, 9.0)] == [0, 0, 1, 2, 10]
    assert np.array_equal(run.warped[0], pair.moving[1, 0].numpy())
    half = fields.warp(pair.moving, displacement / 2)[1, 0]
    assert np.allclose(run.warped[5], half)
    assert run.misfit[5] == pytest.approx((half - pair.fixed[1, 0]).square().mean().item(), rel=1e-5)
    assert run.misfit[10] == 0


def test_the_clock_runs_from_before_the_first_to_after_the_last_and_is_told():
    view = started()
    times = list(view.scene.clock.values())
    assert times == sorted(times) and times[0] < 0.02 and times[-1] > 1.0
    assert "tortoise 0.00000" in view.caption.value  # it opens at the end
    view.controls["time"].value = next(iter(view.scene.clock))
    assert view.caption.value.count("not there yet") == 2
    assert next(iter(view.scene.clock)) in view.caption.value and view.errors == []


def test_every_tick_of_the_clock_draws_another_picture():
    view = started()
    assert isinstance(view.controls["time"], ipywidgets.SelectionSlider) and view.controls["time"].description
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
