"""The time-lapse follows a training and can be wound back."""

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit.course.lessons.timelapse import TimeLapse
from regkit.data import ShapePairs
from regkit.fields import warp
from regkit.figures.paint import render_image
from regkit.figures.pixels import plane
from regkit.models import VoxelMorph
from regkit.training import Recipe, train

PAIRS = ShapePairs(8, size=(21, 34))


@pytest.fixture
def followed():
    torch.manual_seed(0)
    model = VoxelMorph(2, encoder_channels=(4, 4), decoder_channels=(4, 4, 4))
    view = TimeLapse(model, PAIRS[0], every=2)
    train(model, PAIRS, Recipe(steps=5, learning_rate=1e-2), progress=False, callback=view)
    return model, view


def test_it_takes_a_frame_at_the_start_and_after_every_second_step(followed):
    _, view = followed
    assert list(view.frames) == [0, 2, 4]
    assert view.state == {"frame": 2} and view.errors == []
    assert "after 4 steps" in view.caption.value and "mse" in view.caption.value


def test_winding_back_shows_the_untrained_network(followed):
    model, view = followed
    latest, pair = view.image.value, PAIRS[0]
    drive(view, {"frame": "both"})
    view.set(frame=0)
    assert view.image.value != latest and "after 0 steps" in view.caption.value
    picture = view.render({"frame": 0})[24:]  # below the titles
    scale = picture.shape[0] // pair.moving.shape[2]
    untouched = render_image(plane(pair.moving), limits=(0, 1), scale=scale)
    assert np.abs(picture[:, : untouched.shape[1]].astype(int) - untouched).max() <= 2  # a fresh network hardly moves
    assert not torch.equal(warp(pair.moving, model(pair.moving, pair.fixed).displacement), pair.moving)


def test_looking_leaves_the_model_in_its_mode(followed):
    model, view = followed
    model.train()
    view(5, type("History", (), {"terms": {"mse": [1.0]}})())
    assert model.training and list(view.frames)[-1] == 6


def test_frames_are_at_least_one_step_apart():
    with pytest.raises(ValueError, match="at least 1 step, received 0"):
        TimeLapse(VoxelMorph(2), PAIRS[0], every=0)
