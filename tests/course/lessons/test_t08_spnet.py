"""SPnet's two answers, the way there and back: laws, numbers, controls."""

import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit import fields
from regkit.course import studies
from regkit.course.check.t08_spnet import _BOUGHT, WORDS
from regkit.course.lessons import t08_spnet
from regkit.data import smooth_displacement, synthetic_pair
from regkit.models import SITReg, SPNet, VoxelMorph
from regkit.types import Pair

SHAPE = (27, 22)


def network(dim=2, *, gain=1.0, **options):
    """Random weights that move: heads far stronger than at the start of a training."""
    torch.manual_seed(0)
    model = SPNet(dim, **options).eval()
    for estimator in model.estimators:
        torch.nn.init.normal_(estimator.head.weight, std=gain)
    return model


def pair_of(shape=SHAPE):
    return synthetic_pair(len(shape), seed=1, size=shape)


def two_views():
    networks = {"averaged": network(), "each its own": network(average=False)}
    return t08_spnet.two_witnesses(networks, pair_of()), t08_spnet.there_and_back(networks, pair_of())


def test_what_the_controls_change():
    witnesses, traveller = two_views()
    witnesses.set(level=1)
    changes = dict.fromkeys(["network", "level", "swapped", "axis_0", "axis_1"], "both")
    drive(witnesses, {**changes, "crosshair": "picture", "extreme": "nothing"})
    traveller.set(time=0.5, squarings=1)  # from 7 to 8 less changes than a pixel shows on every processor
    changes = dict.fromkeys(["network", "time", "sampler", "squarings", "row", "column"], "both")
    drive(traveller, {**changes, "back": "words"})  # averaged: both ways back are the same
    for view in (witnesses, traveller):
        assert "image/png" in view._repr_mimebundle_() and 'aria-live="polite"' in view.caption.value


# ---------------------------------------------------------------------------------------------- the two answers
@pytest.mark.parametrize("shape", [SHAPE, (13, 18, 9)])
def test_the_velocity_is_half_the_difference_of_the_answers(shape):
    model, pair = network(len(shape)), pair_of(shape)
    levels = t08_spnet.ask(model, pair.moving, pair.fixed)
    with torch.no_grad():
        found = model(pair.moving, pair.fixed)
    assert len(levels) == 4 and [each.shape for each in levels][-1] == shape
    for each in levels:
        assert torch.allclose((each.there - each.back) / 2, each.used, atol=1e-5)
        assert np.allclose(each.disagreement, (each.there + each.back)[0])
    assert torch.equal(levels[-1].displacement, found.displacement)
    assert all(hook is None or not hook for hook in (each._forward_hooks for each in model.estimators))


def test_exchanging_the_images_exchanges_the_answers():
    model, pair = network(), pair_of()
    there, back = t08_spnet.ask(model, pair.moving, pair.fixed), t08_spnet.ask(model, pair.fixed, pair.moving)
    for one, other in zip(there, back, strict=True):
        assert torch.allclose(one.there, other.back, atol=1e-5) and torch.allclose(one.used, -other.used, atol=1e-5)
    kept = t08_spnet.ask(network(average=False), pair.moving, pair.fixed)
    assert all(torch.equal(each.used, each.there) for each in kept)


def test_the_words_tell_how_far_the_answers_are_apart():
    view = two_views()[0]
    pair = pair_of()
    level = t08_spnet.ask(network(), pair.moving, pair.fixed)[-1]
    apart = (level.there + level.back).norm(dim=1)
    assert f"disagree by {apart.mean():.2f} on average, {apart.max():.2f} at most" in view.caption.value
    view.set(swapped=True, level=1)
    assert "averaged(B, A), level 1 of 4" in view.caption.value and "on 4 x 3 voxels" in view.caption.value


def test_one_network_needs_no_choice_and_an_item_is_shown():
    pair = pair_of()
    batch = Pair(pair.moving.repeat(2, 1, 1, 1), torch.cat([pair.moving, pair.fixed]))
    view = t08_spnet.two_witnesses({"one": network()}, batch, item=1)
    shown = {panel.title: panel for panel in view.scene.panels(view.state)}
    assert "network" not in view.controls and np.array_equal(shown["fixed"].values, pair.fixed[0, 0])
    same = t08_spnet.two_witnesses({"one": network()}, batch, item=0)  # an image and itself
    shown = {panel.title: panel for panel in same.scene.panels(same.state)}
    assert np.abs(shown["velocity that is used"].displacement).max() == 0


def test_the_button_goes_to_the_extreme_in_either_order_of_the_images():
    view = two_views()[0]
    extreme = "minus the answer to (B, A)"  # of the panel in this place, whatever the order
    for swapped in (False, True):
        view.set(swapped=swapped, extreme=extreme)
        view.controls["go"].click()
        size = np.linalg.norm(view.scene.panels(view.state)[1].displacement, axis=0)
        assert view.errors == [] and size[view.state["axis_0"], view.state["axis_1"]] == size.max()


# ---------------------------------------------------------------------------------------------- there and back
AGAIN, INVERSE = t08_spnet._WAYS


def journey(model, pair, time=1.0, back=AGAIN, squarings=7, sampler="aligned"):
    answer = t08_spnet.velocities(model, pair.moving, pair.fixed)
    return t08_spnet.round_trip(answer, time, back, squarings, sampler)


def test_the_error_is_that_of_the_composition_and_the_path_ends_there():
    model, pair = network(average=False), pair_of()
    view = t08_spnet.there_and_back({"one": model}, pair)
    with torch.no_grad():
        there, back = model(pair.moving, pair.fixed).displacement, model(pair.fixed, pair.moving).displacement
    error = fields.compose(back, there)[0]
    trip = journey(model, pair)
    assert np.allclose(trip.error, error, atol=1e-4)
    place = view.state["row"], view.state["column"]
    out, home = trip.path(place)
    assert np.array_equal(out[0], place) and np.array_equal(out[-1], home[0])
    assert np.allclose(home[-1] - place, error[:, place[0], place[1]], atol=1e-4)
    size = error.norm(dim=0)
    assert f"mean {size.mean():.3f}, at most {size.max():.2f}" in view.caption.value


def test_a_voxel_passes_the_places_of_the_exponential():
    model, pair = network(), pair_of()
    trip = journey(model, pair, 0.6)
    with torch.no_grad():
        velocity = model(pair.moving, pair.fixed).velocity
    for stop, shown in enumerate(trip.there, 1):
        assert np.allclose(shown, fields.exponential(0.6 * stop / len(trip.there) * velocity)[0], atol=1e-5)


def test_backwards_in_time_the_images_change_places():
    forwards, backwards = (journey(network(), pair_of(), time) for time in (1.0, -1.0))
    assert np.allclose(forwards.there[-1], backwards.back[-1], atol=1e-4)
    view = t08_spnet.there_and_back({"one": network()}, pair_of())
    view.set(time=-0.5)
    assert "B on its way to A" in view.caption.value
    view.set(time=0.0)
    assert "mean 0.000, at most 0.00" in view.caption.value


def test_who_is_asked_once_has_an_inverse_but_not_when_asked_again():
    gaps = [
        np.abs(journey(network(bidirectional=False), pair_of(), back=back).error).mean() for back in (AGAIN, INVERSE)
    ]
    assert gaps[1] < gaps[0] / 10
    assert np.allclose(*(journey(network(), pair_of(), back=back).error for back in (AGAIN, INVERSE)), atol=1e-4)


def test_squarings_and_the_released_sampler_open_the_gap():
    velocity = smooth_displacement(SHAPE, amplitude=2, smoothness=3)
    answer = t08_spnet.Velocities(velocity, -velocity, -velocity)
    gaps = {
        setting: np.abs(t08_spnet.round_trip(answer, 1.0, AGAIN, *setting).error).mean()
        for setting in ((7, "aligned"), (0, "aligned"), (7, "released"))
    }
    assert gaps[7, "aligned"] < gaps[7, "released"] and gaps[7, "aligned"] < gaps[0, "aligned"] / 3


def test_the_button_goes_to_the_voxel_farthest_from_home():
    view = two_views()[1]
    view.set(network="each its own", row=0, column=0)
    view.controls["farthest"].click()
    size = np.linalg.norm(journey(network(average=False), pair_of()).error, axis=0)
    bright = pair_of().fixed[0, 0].numpy() > 0.1
    assert size[view.state["row"], view.state["column"]] == size[bright].max() and view.errors == []


@pytest.mark.parametrize("make", [t08_spnet.two_witnesses, t08_spnet.there_and_back])
def test_there_must_be_a_network(make):
    with pytest.raises(ValueError, match="there must be a network"):
        make({}, pair_of())


def test_networks_without_two_answers_or_a_velocity_are_refused():
    with pytest.raises(ValueError, match="bidirectional=True"):
        t08_spnet.two_witnesses({"one": network(bidirectional=False)}, pair_of())
    for model in (network(integrate=False), SITReg(2, affine="none"), VoxelMorph(2, output="displacement")):
        with pytest.raises(ValueError, match="must give a velocity"):
            t08_spnet.there_and_back({"one": model}, pair_of((32, 48)))
    pair = pair_of((32, 48))
    answer = t08_spnet.velocities(VoxelMorph(2, output="velocity"), pair.moving, pair.fixed)
    assert torch.equal(answer.inverse, -answer.there)


# ---------------------------------------------------------------------------------------------- the exercise
def test_what_a_switch_buys_is_what_the_stored_results_say():
    steps = {"MIE": ("w/o MIE", "reference"), "FW": ("w/o FW", "reference"), "BE": ("SS", "SS+BE")}
    steps["BA"] = ("SS+BE", "reference")
    for switch, names in steps.items():
        without, whole = (studies.results("spnet", name) for name in names)
        consistent = without["exchange_error"].mean > 3 * whole["exchange_error"].mean
        accurate = whole["dice"].mean > without["dice"].mean + 0.02
        assert (
            _BOUGHT[switch]
            == {(1, 0): WORDS[0], (0, 1): WORDS[1], (1, 1): WORDS[2], (0, 0): WORDS[3]}[consistent, accurate]
        )
