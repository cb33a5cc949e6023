"""The scales of the adaptive NCC: curves are the loss's own, areas add up, every control draws anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit.course.lessons import t07_gradicon
from regkit.losses import adaptive_ncc, adaptive_ncc_terms

SHAPE = (48, 96)


def line():
    """A thin vertical line in the middle."""
    return torch.exp(-((torch.arange(SHAPE[1]) - 47.0) ** 2) / 2).expand(SHAPE).contiguous()[None, None]


def blob():
    """A wide spot."""
    rows, columns = torch.meshgrid(torch.arange(SHAPE[0]) - 23.0, torch.arange(SHAPE[1]) - 40.0, indexing="ij")
    return torch.exp(-(rows**2 + columns**2) / 80)[None, None]


def viewer():
    return t07_gradicon.scale_viewer({"line": line(), "blob": blob()})


def test_every_control_draws_anew_and_has_words():
    view = viewer()
    drive(view)
    assert all(control.description for control in view.controls.values())
    assert "image/png" in view._repr_mimebundle_()


@pytest.mark.parametrize("weighting", ["greedy", "parameter-free", "mean"])
def test_the_words_are_the_loss_of_the_shifted_image(weighting):
    view = viewer()
    view.set(shift=7.0, weighting=weighting)
    moved = torch.roll(line(), 7, 3)  # to the right, as the view moves it
    parts = adaptive_ncc_terms(moved, line(), weighting=weighting)
    told = view.caption.value
    for name, term, weight in zip(t07_gradicon.SCALES, parts.terms[0], parts.weights[0], strict=True):
        assert f"{name} {term:.2f} x {weight:.2f}" in told
    assert f"{float(adaptive_ncc(moved, line(), weighting=weighting)):.3f}" in told


def test_a_coarse_scale_sees_a_thin_line_from_further_away():
    terms, _ = viewer().scene._curve("line", "greedy")
    first_lost = [int(np.argmax(terms[:, scale] > 0.95)) * t07_gradicon.STEP for scale in range(5)]
    assert first_lost == sorted(first_lost) and first_lost[0] < 5 and first_lost[-1] > 15


def test_the_weights_go_from_coarse_to_fine_and_add_up():
    _, weights = viewer().scene._curve("line", "greedy")
    assert np.allclose(weights.sum(1), 1, atol=1e-6)
    assert weights[0].argmax() == 0 and weights[60].argmax() == 4  # aligned: the finest; 30 voxels off: the coarsest


def test_the_areas_are_as_tall_as_the_weights():
    weights = np.tile([0.1, 0.2, 0.3, 0.4, 0.0], (81, 1))
    picture = t07_gradicon._areas(weights, 0.0)
    column = picture[:, 300]
    height = t07_gradicon._WEIGHTS[0] - t07_gradicon._MARGINS[0] - t07_gradicon._MARGINS[1]
    for scale, weight in enumerate((0.1, 0.2, 0.3, 0.4)):
        painted = (column == t07_gradicon._paint(scale)).all(-1).sum()
        assert painted == pytest.approx(weight * height, abs=1)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({}, "at least one image"),
        ({"a": torch.zeros(2, 1, 32, 32)}, "(1, 1, H, W)"),
        ({"a": torch.zeros(1, 1, 32, 32, 32)}, "(1, 1, H, W)"),
        ({"a": torch.zeros(1, 1, 8, 8)}, "fewer levels"),
    ],
)
def test_bad_input_is_refused(images, words):
    with pytest.raises(ValueError) as refused:
        t07_gradicon.scale_viewer(images)
    assert words in str(refused.value)
