"""Meeting in the middle, and inverting by iteration: every control driven in process, numbers against their law."""

import numpy as np
import pytest
import torch
from helpers.views import drive, pixels

from regkit import fields
from regkit.course import check
from regkit.course.lessons import t09_sitreg
from regkit.data import synthetic_pair
from regkit.figures.pixels import LABELS, POINT, integer_scale
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


def test_what_the_controls_change():
    view, _ = meeting()
    view.set(level=1)
    drive(view, {"network": "both", "level": "both", "swapped": "both"})
    view = inversion()
    view.set(iteration=1)
    drive(view, {"map": "both", "solver": "both", "iteration": "both"})


def test_one_network_needs_no_choice_and_has_all_its_levels():
    view, _ = meeting(SITReg=network())
    assert set(view.controls) == {"level", "swapped"}
    assert (view.controls["level"].min, view.controls["level"].max, view.controls["level"].value) == (0, 3, 3)


def test_the_levels_are_the_registrations():
    model, pair = network(), synthetic_pair(2, seed=1, size=SHAPE)
    for first, second in ((pair.moving, pair.fixed), (pair.fixed, pair.moving)):
        with torch.no_grad():
            registration = model(first, second)
        levels = t09_sitreg.half_ways(model, first, second)
        for number, (halves, maps) in enumerate(levels[1:]):
            assert torch.equal(halves[0], registration.halfway_moving[number])
            assert torch.equal(halves[1], registration.halfway_fixed[number])
            assert torch.equal(maps[0], registration.levels[number])
        assert torch.equal(levels[-1][1][1], registration.inverse)


def test_before_the_first_level_nothing_has_moved():
    view, pair = meeting()
    view.set(level=0)
    difference = float((pair.moving - pair.fixed).abs().mean())
    assert f"Mean difference half way {difference:.4f}" in view.caption.value
    assert "differ by at most 0 voxels" in view.caption.value and "at most 0 voxels from home" in view.caption.value


def test_exchanging_the_images_mirrors_a_symmetric_network_only():
    view, pair = meeting()
    for name, model, equal in (("SITReg", network(), True), ("one-sided", network(update="one_sided"), False)):
        levels = t09_sitreg.half_ways(model, pair.moving, pair.fixed)[1:]
        exchanged = t09_sitreg.half_ways(model, pair.fixed, pair.moving)[1:]
        same = [(a[0][0] - b[0][1]).abs().max() < 1e-6 for a, b in zip(levels, exchanged, strict=True)]
        assert all(same) if equal else not any(same)
        view.set(network=name, swapped=False)
        assert ("differ by at most 0 voxels" in view.caption.value) == equal
        shown = pixels(view)
        view.set(swapped=True)
        side = SHAPE[1] * integer_scale(SHAPE, 256)
        image, mirrored = shown[24:-40, :side], pixels(view)[24:-40, -side:]  # "A half way" is on the other side now
        assert np.array_equal(image[:200], mirrored[:200]) == equal
    assert view.errors == []


def test_where_two_grids_coincide_one_lies_on_the_other():
    one, other = controls(0.99)[:1], controls(0.99, seed=1)[:1]
    together, apart = t09_sitreg._two_grids(one, one, 11), t09_sitreg._two_grids(one, other, 11)
    dark = [int((picture < 60).all(-1).sum()) for picture in (together, apart)]
    assert dark[0] > dark[1]  # lines apart cover more
    assert (together == POINT).all(-1).any() and (apart == POINT).all(-1).any()


def test_an_item_of_a_batch_meets():
    pair = synthetic_pair(2, seed=1, size=SHAPE)
    batch = Pair(pair.moving.repeat(2, 1, 1, 1), torch.cat([pair.moving, pair.fixed]))
    alone = t09_sitreg.meet({"SITReg": network()}, pair)
    chosen = t09_sitreg.meet({"SITReg": network()}, batch, item=1)
    assert np.array_equal(pixels(alone), pixels(chosen)) and alone.caption.value == chosen.caption.value


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


def test_the_charts_cursor_stands_at_the_iteration_and_the_chosen_solvers_line_is_wide():
    view = inversion(start="0.99")
    columns, ink = [], []
    for iteration in (0, 3, 6):
        view.set(iteration=iteration)
        chart = pixels(view)[-240:]
        columns.append(
            np.flatnonzero((chart[40:160] == chart[40:41]).all(-1).all(0) & (chart[100] < 80).all(-1)).mean()
        )
    assert np.allclose(np.diff(columns), (columns[2] - columns[0]) / 2, atol=1) and columns[0] < columns[1]
    for solver in t09_sitreg.SOLVERS:
        view.set(solver=solver)
        ink.append((pixels(view)[-240:] == LABELS[0]).all(-1).sum())
    assert ink[0] > 1.3 * ink[1]  # plain's


def test_a_map_that_folds_is_not_inverted():
    taken = t09_sitreg.invert_step_by_step(6 * controls(0.99)[:1], most=9)
    assert len(taken) == 10 and taken[-1].worst > 0.1


def test_the_caption_says_when_the_error_is_small_enough():
    view = inversion(start="0.99", item=1)
    run = t09_sitreg.invert_step_by_step(controls(0.99)[1:])
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
