"""Meeting in the middle, and inverting by iteration: every control driven in process, numbers against their law."""

import numpy as np
import pytest
import torch
from helpers.views import drive, pixels

from regkit import fields
from regkit.course import check
from regkit.course.lessons import t09_sitreg
from regkit.data import synthetic_pair
from regkit.figures.pixels import POINT, integer_scale
from regkit.models import SITReg
from regkit.models.sitreg import control_bound, upsample_controls
from regkit.types import Pair

SHAPE = (23, 18)
TINY = {"channels": (4, 6, 6), "update_channels": (4, 8, 8)}


def network(seed=0, gain=20.0, **options):
    torch.manual_seed(seed)
    model = SITReg(2, **TINY | options)
    for update in model.updates:
        update.head.weight.data *= gain
    return model.eval()


def meeting(**networks):
    pair = synthetic_pair(2, seed=1, size=SHAPE)
    return t09_sitreg.meet(networks or {"SITReg": network(), "one-sided": network(update="one_sided")}, pair), pair


def controls(share, seed=0):
    generator = torch.Generator().manual_seed(seed)
    control = torch.rand(2, 2, 6, 5, generator=generator) * 2 - 1
    return upsample_controls(share * control_bound(4, 2) * control, SHAPE, 4)


def inversion(**options):
    return t09_sitreg.inversion_viewer({"0.5": controls(0.5), "0.99": controls(0.99)}, words="k", **options)


@pytest.mark.parametrize("make", [lambda: meeting()[0], inversion], ids=["meeting", "inversion"])
def test_every_control_draws_anew_and_says_what_it_is(make):
    view = make()
    view.set(**{name: 1 for name in view.controls if name in ("level", "iteration")})
    drive(view)
    assert all(control.description for control in view.controls.values())
    assert "image/png" in view._repr_mimebundle_()


def test_one_network_needs_no_choice_and_has_all_its_levels():
    view, _ = meeting(SITReg=network())
    assert set(view.controls) == {"level", "swapped"}
    assert (view.controls["level"].min, view.controls["level"].max, view.controls["level"].value) == (0, 3, 3)


def test_the_stands_are_the_registrations_levels():
    view, pair = meeting(SITReg=network())
    with torch.no_grad():
        there, back = network()(pair.moving, pair.fixed), network()(pair.fixed, pair.moving)
    for stands, found in zip(view.scene.calls["SITReg"], (there, back), strict=True):
        for level, stand in enumerate(stands[1:]):
            assert np.array_equal(stand.halves[0], found.halfway_moving[level][0])
            assert np.array_equal(stand.halves[1], found.halfway_fixed[level][0])
            assert np.array_equal(stand.maps[0], found.levels[level][0])
        assert np.array_equal(stands[-1].maps[1], found.inverse[0])


def test_before_the_first_level_nothing_has_moved():
    view, pair = meeting()
    view.set(level=0)
    difference = float((pair.moving - pair.fixed).abs().mean())
    assert f"Mean difference half way {difference:.4f}" in view.caption.value
    assert "differ by at most 0 voxels" in view.caption.value and "at most 0 voxels from home" in view.caption.value


def test_exchanging_the_images_mirrors_a_symmetric_network_only():
    view, _ = meeting()
    for name, equal in (("SITReg", True), ("one-sided", False)):
        own, other = view.scene.calls[name]
        same = [np.abs(a.halves[0] - b.halves[1]).max() < 1e-6 for a, b in zip(own[1:], other[1:], strict=True)]
        assert all(same) if equal else not any(same)
        view.set(network=name, swapped=False)
        assert ("differ by at most 0 voxels" in view.caption.value) == equal
        shown = pixels(view)
        view.set(swapped=True)
        side = SHAPE[1] * integer_scale(SHAPE, 256)
        own, mirrored = shown[24:-40, :side], pixels(view)[24:-40, -side:]  # "A half way" is on the other side now
        assert np.array_equal(own[:200], mirrored[:200]) == equal
    assert view.errors == []


def test_where_two_grids_coincide_one_lies_on_the_other():
    view, _ = meeting()
    scene = view.scene
    own, other = controls(0.99)[0].numpy(), controls(0.99, seed=1)[0].numpy()
    together, apart = scene._two_grids(own, own), scene._two_grids(own, other)
    dark = [int((picture < 60).all(-1).sum()) for picture in (together, apart)]
    assert dark[0] > dark[1]  # lines apart cover more
    assert (together == POINT).all(-1).any() and (apart == POINT).all(-1).any()


def test_an_item_of_a_batch_meets():
    pair = synthetic_pair(2, seed=1, size=SHAPE)
    batch = Pair(pair.moving.repeat(2, 1, 1, 1), torch.cat([pair.moving, pair.fixed]))
    scene = t09_sitreg.meet({"SITReg": network()}, batch, item=1).scene
    assert np.array_equal(scene.images[1], pair.fixed[0, 0])


# ---------------------------------------------------------------------------------------------- iterations


@pytest.mark.parametrize("solver", t09_sitreg.SOLVERS)
def test_iterations_end_where_invert_does_and_errors_are_those_of_the_composition(solver):
    displacement = controls(0.99)[:1]
    taken = t09_sitreg.invert_step_by_step(displacement, solver=solver)
    assert np.array_equal(taken[0].inverse, -displacement[0])
    for each in taken:
        error = fields.compose(displacement, torch.from_numpy(each.inverse)[None])
        assert np.allclose(each.error, error[0], atol=1e-5)
        assert each.worst == pytest.approx(np.abs(each.error).max())
    assert taken[-1].worst < 1e-4 <= taken[-2].worst
    found = fields.invert(displacement, tolerance=1e-4, method=solver.lower())
    assert np.allclose(taken[-1].inverse, found[0], atol=2e-4)


def test_a_map_that_folds_is_not_inverted():
    taken = t09_sitreg.invert_step_by_step(6 * controls(0.99)[:1], most=9)
    assert len(taken) == 10 and taken[-1].worst > 0.1


def test_the_caption_says_when_the_error_is_small_enough():
    view = inversion(start="0.99", item=1)
    run = view.scene.runs["0.99", "plain"]
    first = next(n for n, each in enumerate(run) if each.worst < 1e-2)
    assert f"are reached at n = {first}" in view.caption.value and f"{run[0].worst:.2g} voxels" in view.caption.value
    view.set(iteration=view.controls["iteration"].max)
    assert "(its last)" in view.caption.value
    folded = t09_sitreg.inversion_viewer({"6": 6 * controls(0.99)}, words="k", item=0)
    assert "are never reached" in folded.caption.value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda u: t09_sitreg.meet({}, synthetic_pair(2, size=SHAPE)), "there must be a network"),
        (lambda u: t09_sitreg.inversion_viewer({}, words="k"), "start must name"),
        (lambda u: t09_sitreg.inversion_viewer({"1": u}, words="k", start="2"), "received '2'"),
        (lambda u: t09_sitreg.inversion_viewer({"1": u[:1] / 0}, words="k"), "finite"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make(controls(0.5))


# ---------------------------------------------------------------------------------------------- the exercises


def test_laws_may_be_filled_in_one_by_one_and_an_empty_function_is_blank():
    half = check.failing_laws({"one-sided": "symmetry", "B stays": ..., "minus": None})
    assert half.colour == "amber" and half.message == f"B stays, minus still blank. {check.failing_laws.task}"
    blank = check.failing_laws(dict.fromkeys(["one-sided", "B stays", "minus"], ...))
    assert blank.colour == "amber" and blank.message == check.failing_laws.task
    assert check.one_law_less(lambda v_ab, v_ba: None).colour == "amber"


@pytest.mark.parametrize(
    "update",
    [
        lambda ab, ba: (fields.compose(ab, ba), fields.invert(fields.compose(ab, ba))),
        lambda ab, ba: [fields.invert(fields.compose(ba, ab)), fields.compose(ba, ab)],
        lambda ab, ba: (fields.exponential(ab + ba), fields.exponential(-ab - ba)),
    ],
)
def test_any_update_that_gives_symmetry_up_alone_is_right(update):
    assert check.one_law_less(update).colour == "green"
