"""The scoreboard and the claims board: dots where the numbers are, cases that are the method's, lists that are true."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.views import drive, pixels
from scipy import stats

from regkit import metrics
from regkit.course import check, evidence
from regkit.course.check.t13_trust_but_verify import TUNED_ON, protocol, rig_pairs
from regkit.course.evidence import Claim, effect
from regkit.course.lessons import t13_trust_but_verify as lesson
from regkit.data import synthetic_pair
from regkit.fields import warp_labels
from regkit.figures.pixels import rim
from regkit.tools import compare
from regkit.tools.compare import Row
from regkit.tools.methods import Method
from regkit.types import Pair, Registration

SHAPES = [(21, 26), (13, 17, 11)]


def case(shape):
    """Pairs, two methods of which one knows the truth of the first pair, and what both reach."""
    pairs = [synthetic_pair(len(shape), seed, size=shape) for seed in range(3)]
    asked = []

    def half(moving, fixed):
        asked.append(fixed)
        return Registration(0.5 * next(pair.displacement for pair in pairs if pair.fixed is fixed))

    methods = [Method("none", lambda moving, fixed: Registration(torch.zeros_like(pairs[0].displacement)))]
    methods.append(Method("half", half))
    rows = compare.compare(methods, pairs, progress=False)
    asked.clear()
    return rows, pairs, methods, asked


# ---------------------------------------------------------------------------------------------- the board
def board(values, **options):
    return lesson.render_board(values, [0, 1, 2], "title", **options)


def orange(picture):
    return (picture == lesson.ORANGE).all(-1)


def test_a_dot_moves_with_its_number_and_the_chosen_pair_is_orange():
    values = {"one": {0: 0.5, 1: 0.6, 2: 0.9}, "other": {0: 0.52, 1: 0.64, 2: 0.9}}
    plain, chosen = board(values, links=False), board(values, links=False, method="other", pair=1)
    assert plain.shape == (290, 880, 3) and plain.dtype == np.uint8
    assert not orange(plain).any() and orange(chosen)[:, :440].any() and orange(chosen)[:, 500:].any()
    higher = board({**values, "one": {**values["one"], 1: 0.8}}, links=False, method="other", pair=1)
    before, after = (np.nonzero(orange(each)[:, :440])[0].mean() for each in (chosen, higher))
    assert after < before - 50


def test_a_board_is_drawn_once_and_its_pair_and_ring_move():
    values = {"one": {0: 0.5, 1: 0.6, 2: 0.7}, "other": {0: 0.52, 2: 0.9}}
    drawn = lesson.Board(values, [0, 1, 2], "title")
    pictures = {(method, pair): drawn.at(method, pair) for method in (None, "one", "other") for pair in (None, 0, 1)}
    for (method, pair), picture in pictures.items():
        assert np.array_equal(picture, board(values, method=method, pair=pair))
    assert orange(pictures["one", 0]).sum() > orange(pictures[None, 0]).sum() > 0  # the ring's dot is larger
    assert np.array_equal(pictures["other", 1], pictures[None, 1])  # not measured: no ring


def test_a_name_with_a_plus_has_two_lines():
    def names(*methods):
        axes = lesson.Board({method: {0: 0.5} for method in methods}, [0], "").chart.axes
        return [text.get_text() for text in axes.get_xticklabels()]

    assert names("spnet + refinement", "none") == ["spnet\n+ refinement", "none"]
    assert all(name.endswith("…") for name in names(*(f"a very long name {index}" for index in range(16))))


def test_links_are_drawn_between_neighbours_that_have_the_pair():
    values = {"one": {0: 0.5, 1: 0.6}, "other": {0: 0.7, 1: 0.55}}
    linked, loose = board(values), board(values, links=False)
    middle = slice(430, 500)
    assert (linked[:, middle] != loose[:, middle]).any()
    lonely = {"one": {0: 0.5, 2: 0.6}, "other": {1: 0.7}}
    assert np.array_equal(board(lonely), board(lonely, links=False))
    assert board({"one": {}}).shape == (290, 880, 3) == board({}).shape


@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_controls_change(shape):
    rows, pairs, methods, _ = case(shape)
    view = lesson.scoreboard(rows, pairs, methods, upright=True)
    view.set(crosshair=True)
    axes = [f"axis_{axis}" for axis in range(len(shape))]
    pictures = ["links", "crosshair"] + ["planes"] * (len(shape) == 3)
    both = ["method", "metric", "pair", "third", *axes]
    drive(view, {**dict.fromkeys(both, "both"), **dict.fromkeys(pictures, "picture")})
    assert view.controls["pair"].continuous_update is False and "image/png" in view._repr_mimebundle_()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_case_is_what_the_method_finds_and_is_asked_for_once(shape):
    rows, pairs, methods, asked = case(shape)
    view = lesson.scoreboard(rows, pairs, methods)
    view.set(method="half", pair=2)
    for metric in view.controls["metric"].options:
        view.set(metric=metric)
    assert len(asked) == 1 and asked[0] is pairs[2].fixed
    panel = view.scene.panels(view.state)[2]
    warped = warp_labels(pairs[2].moving_labels, 0.5 * pairs[2].displacement)
    assert np.array_equal(panel.warped, warped[0, 0]) and np.array_equal(panel.fixed, pairs[2].fixed_labels[0, 0])
    reached = np.mean(list(metrics.dice(warped, pairs[2].fixed_labels).values()))
    assert f"half on pair 2: Dice {reached:.3f}" in view.caption.value and view.errors == []


def test_the_words_tell_the_place_among_the_methods():
    rows, pairs, methods, _ = case(SHAPES[0])
    view = lesson.scoreboard(rows, pairs, methods)
    view.set(method="half", metric="Dice")
    assert "By Dice 1 of 2 on this pair" in view.caption.value
    view.set(metric="HD95 (mm)")
    assert "By HD95 (mm) 1 of 2" in view.caption.value
    view.set(metric="std log |J|")
    assert "By std log |J| 2 of 2" in view.caption.value
    missing = [row for row in rows if (row.method, row.pair) != ("half", 0)]
    missing.append(Row("half", 1, {"dice": math.nan}))
    view = lesson.scoreboard(missing, pairs, methods)
    view.set(method="half", pair=0)
    assert "half was not measured on pair 0" in view.caption.value
    view.set(pair=1)
    assert "half on pair 1: " in view.caption.value and view.errors == []
    few = [Row("half", 0, {"dice": 0.5}), Row("none", 1, {"dice": math.nan, "folds_percent": 1.0})]
    alone = lesson.scoreboard(few, pairs, methods)
    alone.set(method="none", pair=1, metric="Dice")
    assert "none on pair 1: folds (%) 1.0000. No Dice was taken of it." in alone.caption.value


def test_only_finite_numbers_are_shown():
    rows = [Row("a", 0, {"dice": 0.5}), Row("a", 1, {"dice": math.nan}), Row("b", 0, {})]
    assert lesson.values_of(rows, "dice") == {"a": {0: 0.5}, "b": {}}


def test_the_button_goes_to_the_least_determinant_within_the_labels():
    rows, pairs, methods, _ = case(SHAPES[1])
    view = lesson.scoreboard(rows, pairs, methods)
    view.set(method="half")
    view.controls["go"].click()
    place = tuple(view.state[f"axis_{axis}"] for axis in range(3))
    jacobian = view.scene.panels(view.state)[3].determinant
    inside = pairs[0].fixed_labels[0, 0].numpy() > 0
    assert inside[place] and jacobian[place] == jacobian[inside].min() and view.state["crosshair"]


def test_pairs_without_labels_show_the_difference():
    rows, pairs, methods, _ = case(SHAPES[0])
    bare = [Pair(pair.moving, pair.fixed) for pair in pairs]
    methods = [methods[0]]
    view = lesson.scoreboard(rows, bare, methods)
    assert view.controls["third"].options == (lesson.DIFFERENCE,)
    view.controls["go"].click()
    assert view.errors == []


def test_outlines_are_where_labels_change():
    labels = np.zeros((6, 7), int)
    labels[2:4, 3:5] = 1
    edge = rim(labels, 4)
    assert edge.shape == (24, 28) and edge.sum() == 4 * 8 - 1 and edge[8, 12:20].all() and edge[16, 12:20].all()


def test_a_scoreboard_needs_a_method_that_was_measured():
    rows, pairs, methods, _ = case(SHAPES[0])
    for bad in ([], [replace(methods[0], name="another")]):
        with pytest.raises(ValueError, match="methods that were measured"):
            lesson.scoreboard(rows, pairs, bad)


# ---------------------------------------------------------------------------------------------- the exercises
def test_the_reference_protocol_answers_each_case_as_it_is_meant():
    cases, judge = check.protocol_cases(), protocol()
    said = {name: judge(list(each.rows), TUNED_ON, each.tries) for name, each in cases.items()}
    assert said == {name: each.better for name, each in cases.items()} and len(set(said.values())) == 2


def test_a_protocol_that_fails_is_told_where():
    def of_the_tuned_ones(rows, tuned_on, tries):
        return max(row.values["dice"] for row in rows if row.pair in tuned_on) > 0

    message = check.fair_protocol(of_the_tuned_ones).message
    assert "with 12 pairs, 0 of them in tuned_on, my_protocol raises ValueError" in message


@pytest.mark.parametrize("test", ["one-sided", "signs"])
def test_a_protocol_may_use_another_paired_test(test):
    def p_of(rows):
        ours, theirs = ({r.pair: r.values["dice"] for r in rows if r.method == m} for m in ("candidate", "reference"))
        gains = [ours[pair] - theirs[pair] for pair in sorted(ours)]
        if test == "one-sided":
            return stats.wilcoxon(gains, alternative="greater").pvalue
        return stats.binomtest(sum(gain > 0 for gain in gains), len(gains)).pvalue

    assert check.fair_protocol(protocol(test=p_of)).colour == "green"


def test_the_rig_raises_dice_to_one_and_tears_the_map():
    for pair in rig_pairs():
        field = check.rigged(pair.moving_labels, pair.fixed_labels)
        assert set(metrics.dice(warp_labels(pair.moving_labels, field), pair.fixed_labels).values()) == {1.0}
        assert metrics.folds(field).percent > 90 and metrics.folds(pair.displacement).percent < 0.1
    absent = torch.full_like(pair.fixed_labels, 99)
    assert check.rigged(pair.moving_labels, absent).abs().max() == 0


# ---------------------------------------------------------------------------------------------- claims
def made_up(monkeypatch):
    """An effect that two seeds show, one that they do not tell, a law and a claim that is not judged."""
    rows = {"spnet: reference": 0.8, "spnet: w/o FW": 0.7, "spnet: SS": 0.795}
    noise = np.random.default_rng(0).normal(0, 0.002, (8, 9))
    found = {side: dict(enumerate(value + noise * place)) for place, (side, value) in enumerate(rows.items())}
    found["spnet: SS"][7] = found["spnet: SS"][7] - 0.1  # one training failed
    monkeypatch.setattr(evidence, "reached", lambda side, measure: found[side])
    claims = [
        Claim("up", "A", "up", "Table 1", "1 to 2", (effect("dice | spnet: reference > spnet: w/o FW"),)),
        Claim("none", "A", "none", "Table 1", "1", (effect("dice | spnet: reference >= spnet: SS"),), "As expected."),
        Claim("law", "B", "a law of a very long name, too long for the list of all the claims", "in words", "none",
              lambda: ("nothing", False)),
        Claim("open", "B", "of lungs", "in words", "none", "There are no lungs."),
        Claim("down", "B", "down", "Table 1", "2 to 1", (effect("dice | spnet: reference > spnet: SS"),)),
    ]  # fmt: skip
    return lesson.claims_board(claims)


def test_what_the_controls_of_the_claims_change(monkeypatch):
    view = made_up(monkeypatch)
    drive(view, {"method": "both", "claim": "both", "revealed": "both"})  # the verdict is hidden
    view.set(revealed=True)
    drive(view, dict.fromkeys(["method", "claim", "revealed", "verdict"], "both"))


def test_nothing_is_told_before_it_is_asked_for(monkeypatch):
    view = made_up(monkeypatch)
    assert "Here:" not in view.caption.value and view.controls["verdict"].layout.display == "none"
    before = pixels(view)
    view.set(revealed=True)
    assert "Here: yes. Dice" in view.caption.value and (pixels(view)[: len(before), 530:] < 255).any()
    assert (before[:, 530:] == 255).all()
    for number, said in ((3, "Here: no. nothing"), (4, "cannot be judged. There are no lungs"), (5, "not told apart")):
        view.set(claim=number)
        assert said in view.caption.value


def test_the_list_is_cut_by_method_and_by_what_holds(monkeypatch):
    view = made_up(monkeypatch)
    scene, state = view.scene, view.state

    def listed(**changes):
        return lesson.listed(scene.claims, scene.findings, {**state, **changes})

    assert listed() == [1, 2, 3, 4, 5] and listed(method="B") == [3, 4, 5]
    assert listed(revealed=True, verdict="no") == [3]
    assert listed(verdict="no") == [1, 2, 3, 4, 5]  # that would tell
    view.set(method="B")
    assert "Claim 3, B" in view.caption.value  # the one listed that is nearest
    view.set(method="B", revealed=True, verdict="yes")
    assert "No claim of this method" in view.caption.value and view.errors == []


def test_an_effect_shows_its_seeds_and_its_interval_in_the_verdicts_own_colour(monkeypatch):
    findings = made_up(monkeypatch).scene.findings
    up, untold = (finding.comparisons[0] for finding in (findings[0], findings[4]))
    assert len(up.dots) == 8 and up.estimate.mean == pytest.approx(np.mean(up.dots)) == pytest.approx(0.1, abs=0.01)
    pictures = lesson.render_effect(up, "yes"), lesson.render_effect(untold, "not told apart")
    for picture, colour, other in zip(
        pictures, (lesson.BLUE, lesson.PURPLE), (lesson.PURPLE, lesson.BLUE), strict=True
    ):
        assert (picture == colour).all(-1).any() and not (picture == other).all(-1).any()
        assert picture.shape[:2] == (92, 390)


def test_a_ledger_must_have_a_claim():
    with pytest.raises(ValueError, match="must have a claim"):
        lesson.claims_board([])
