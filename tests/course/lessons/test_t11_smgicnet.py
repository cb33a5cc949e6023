"""SM-GICNet's level stack, growing displacements: every control driven in process."""

import html
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.views import drive, pixels

from regkit import fields, metrics
from regkit.course import check
from regkit.course.lessons import t11_smgicnet
from regkit.data import synthetic_pair
from regkit.figures.pixels import INK, colour
from regkit.models import SMGICNet
from regkit.types import Pair

SHAPE = (37, 44)


def network(seed=0, gain=30.0, **options):
    torch.manual_seed(seed)
    model = SMGICNet(2, channels=4, **options)
    for each in model.networks:
        each.head[-2].weight.data *= gain
    return model.eval()


def pair(batch=1):
    pairs = [synthetic_pair(2, seed=seed, size=SHAPE) for seed in range(batch)]
    names = ("moving", "fixed", "moving_labels", "fixed_labels")
    return Pair(**{name: torch.cat([getattr(each, name) for each in pairs]) for name in names})


def stack(**options):
    return t11_smgicnet.level_stack(network(**options), pair())


def shift(voxels):
    return torch.full((1, 2, *SHAPE), float(voxels))


def grow(item=0, batch=2):
    networks = {"reference": network(), "one level": network(levels=1), "other": network(seed=2)}
    stops = {str(voxels): shift(voxels) for voxels in (0, 2, 5)}
    return t11_smgicnet.growing_displacement(networks, pair(batch), stops, words="shifted by (voxels)", item=item)


# ---------------------------------------------------------------------------------------------- the level stack
def test_what_the_controls_change():
    view = stack()
    drive(view, {"level": "both", "swapped": "both"})
    assert view.controls["gate"].layout.display == "none"
    view.set(level=4)
    drive(view, {"level": "both", "gate": "both", "swapped": "both"})
    view = grow()
    drive(view, {"stop": "both", "network": "both", "chart": "picture"})


def test_each_level_gate_and_order_of_the_images_is_another_picture():
    view = stack()
    states = [{"level": level, "swapped": swapped} for level in (1, 2, 3, 4) for swapped in (False, True)]
    states += [{"level": 4, "swapped": False, "gate": gate} for gate in ("1/2 size", "1/4 size")]
    seen = set()
    for state in states:
        view.set(**{"gate": "full size", **state})
        seen.add(view.image.value)
    assert view.errors == [] and len(seen) == len(states)


def climb(model, given):
    return t11_smgicnet.rungs(model, given.moving, given.fixed, given.moving_labels, given.fixed_labels)


@pytest.mark.parametrize("options", [{}, {"levels": 1}, {"levels": 2, "symmetric": False}, {"attention": False}])
def test_rungs_are_the_registrations_levels(options):
    model, given = network(**options), pair()
    for images in ((given.moving, given.fixed), (given.fixed, given.moving)):
        call = t11_smgicnet.rungs(model, *images, None, None)
        with torch.no_grad():
            found = model(*images)
        assert len(call) == len(found.levels)
        assert np.allclose(call[-1].total, found.displacement[0], atol=1e-6)
        for position, rung in enumerate(call):
            halvings = len(call) - 1 - position
            assert np.allclose(rung.residual, 2**halvings * found.residuals[position][0], atol=1e-6)
            assert np.array_equal(rung.weight, found.weights[position][0, 0])
        assert [len(rung.gates) for rung in call] == [0] * (len(call) - 1) + [3]
        assert np.array_equal(call[-1].gates["full size"], found.gates[-1][0, 0])


def test_what_the_first_level_reads_is_the_low_band_and_the_last_one_the_warped_image():
    given = pair()
    rungs = climb(network(), given)
    low = torch.nn.functional.avg_pool2d(given.moving[..., :32, :40], 8)
    assert np.allclose(rungs[0].moving[:4, :5], low[0, 0], atol=1e-6)
    known = t11_smgicnet.full_size(torch.from_numpy(rungs[2].total)[None], SHAPE, 0)  # already at full size
    assert np.allclose(rungs[3].moving, fields.warp(given.moving, known)[0, 0], atol=1e-5)
    assert [rung.detail is None for rung in rungs] == [True, False, False, True]


def test_the_caption_tells_sizes_gates_and_the_overlap():
    view, given = stack(), pair()
    assert "Level 1 of 4, A onto B: 5 x 6 voxels, from the low bands." in view.caption.value
    assert view.controls["gate"].layout.display == "none"
    view.set(level=4, swapped=True)
    assert "B onto A: 37 x 44 voxels" in view.caption.value and "Gate on the skip at full size" in view.caption.value
    assert view.controls["gate"].layout.display is None
    with torch.no_grad():
        found = network()(given.fixed, given.moving).displacement
    overlap = metrics.dice(fields.warp_labels(given.fixed_labels, found), given.moving_labels)
    assert f"Dice {np.mean(list(overlap.values())):.3f} so far" in view.caption.value
    unlabelled = t11_smgicnet.level_stack(network(), replace(given, moving_labels=None, fixed_labels=None))
    assert "Dice" not in unlabelled.caption.value


@pytest.mark.parametrize("gate", ["full size", "1/2 size", "1/4 size"])
def test_a_gate_has_the_colours_of_its_key_whatever_the_image(gate):
    view, given, scale = stack(), pair(), 256 // 44
    view.set(level=4, gate=gate, swapped=True)
    values = t11_smgicnet.rungs(network(), given.fixed, given.moving, None, None)[-1].gates[gate]
    painted = pixels(view)[24 : 24 + scale * SHAPE[0], -scale * SHAPE[1] :]
    expected = t11_smgicnet.gate_picture(values, scale * t11_smgicnet._SKIPS[gate])
    expected = expected[: painted.shape[0], : painted.shape[1]]
    same, outline = (painted == expected).all(-1), (painted == INK).all(-1)
    assert (same | outline).all() and 0.01 < outline.mean() < 0.3
    assert (expected[0, 0] == colour(values, t11_smgicnet._GATES, (0, 1))[0, 0]).all()


# ---------------------------------------------------------------------------------------------- growing
def test_the_dice_is_that_of_labels_resampled_once():
    view, given = grow(), pair(2)
    moving = fields.warp(given.moving, shift(5).expand(2, -1, -1, -1))
    with torch.no_grad():
        found = network()(moving, given.fixed).displacement
    both = fields.compose(shift(5).expand(2, -1, -1, -1), found)
    overlap = metrics.dice(fields.warp_labels(given.moving_labels, both), given.fixed_labels)
    assert view.scene.dice("reference")[2] == pytest.approx(np.mean(list(overlap.values())))
    before = metrics.dice(given.moving_labels, given.fixed_labels)
    assert view.scene.dice("before")[0] == pytest.approx(np.mean(list(before.values())))


def test_the_caption_tells_what_is_lost():
    view = grow(item=1)
    view.set(stop="5", network="other")
    lost = view.scene.dice("reference")[2] - view.scene.dice("other")[2]
    assert f"Other loses {lost:+.3f} against the reference here" in html.unescape(view.caption.value)
    assert view.controls["network"].options == ("one level", "other")


def test_the_chart_marks_the_stop_and_shows_the_chosen_network():
    view = grow()
    columns, orange = [], []
    for stop in ("0", "2", "5"):
        view.set(stop=stop)
        dark = (pixels(view)[-200:-60] < 90).all(-1).all(0)
        columns.append(np.flatnonzero(dark)[1:-1].mean())  # without those of the axes at both sides
    assert np.diff(columns) == pytest.approx(np.diff(columns).mean(), abs=2)  # whatever they say
    for name in ("one level", "other"):
        view.set(network=name)
        orange.append(np.argwhere((pixels(view)[-200:-60] == (213, 94, 0)).all(-1)).mean(0)[0])
    assert (orange[0] < orange[1]) == (np.mean(view.scene.dice("one level")) > np.mean(view.scene.dice("other")))


def test_what_is_lost_is_the_difference_from_the_reference():
    curves = t11_smgicnet.lost({"ours": [0.9, 0.8], "other": [0.7, 0.9], "before": [0.5, 0.1]}, "ours")
    assert curves.keys() == {"other"} and curves["other"] == pytest.approx([0.2, -0.1])


@pytest.mark.parametrize(
    ("networks", "stops", "labels"), [(1, {"0": shift(0)}, True), (2, {}, True), (2, {"0": shift(0)}, False)]
)
def test_bad_input_is_refused(networks, stops, labels):
    given = pair() if labels else replace(pair(), moving_labels=None)
    chosen = {str(seed): network(seed) for seed in range(networks)}
    with pytest.raises(ValueError, match="needs two networks"):
        t11_smgicnet.growing_displacement(chosen, given, stops, words="t")
    with pytest.raises(ValueError, match=r"same|grid|shape"):
        t11_smgicnet.growing_displacement({"a": network(), "b": network()}, pair(), {"0": shift(0)[..., 1:]}, words="t")


# ---------------------------------------------------------------------------------------------- the exercises
def test_the_way_back_undoes_the_way_there():
    back = check.way_back.reference()(check.three_levels())
    first, second, third = check.three_levels()
    there = fields.exponential(third + fields.upsample(second + fields.upsample(first)))
    assert there.norm(dim=1).max() > 4
    home = fields.compose(there, back).norm(dim=1)
    assert home.mean() < 0.1 and home.max() < 0.7
