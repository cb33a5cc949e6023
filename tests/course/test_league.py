"""The league: one table of the learner's that grows in any order, whatever has become of its file."""

import json

import pytest
import torch

from regkit.course import league

STILL = dict.fromkeys(league.pairs(), torch.zeros(1, 2, 64, 64))
TRUTH = {name: pair.displacement for name, pair in league.pairs().items()}


def test_the_pairs_have_structures_to_judge_and_a_truth_that_registers_them():
    for pair in league.pairs().values():
        before, after = league.judge(pair, STILL["brains"]), league.judge(pair, pair.displacement)
        assert before[0] < 0.6 and before[1] > 3 and after[0] > 0.8 and after[1:] == [0, 0]
        moving, fixed = league.landmarks(pair)
        assert moving.shape == fixed.shape and len(fixed) >= 3
        off = (fixed + pair.displacement[0][:, *fixed.round().long().T].T - moving).norm(dim=1)
        assert off.median() < 1.5 < (fixed - moving).norm(dim=1).median()  # the truth carries middles near to middles


def test_it_grows_in_any_order_and_marks_the_latest(tmp_path):
    league.enter("05", "the truth", TRUTH, folder=tmp_path)
    table = league.enter("01", "nothing at all", STILL, folder=tmp_path)
    again = league.enter("05", "the truth", TRUTH, folder=tmp_path)
    assert [key[0] for key in sorted(table.rows)] == ["", "01", "05"] and again.rows == table.rows
    assert table.rows["01", "nothing at all", "fast"] == table.rows["", "doing nothing", ""]
    assert table.rows["05", "the truth", "fast"][1::3] == [0, 0] and not table.note
    lines = str(again).splitlines()
    assert len(lines) == 4 and lines[3].startswith("▶") and "fast" in lines[3] and "brains: Dice" in lines[0]
    shown = again._repr_html_()
    assert shown.count("<tr") == 4 and shown.count("bold") == 1 and shown.index("bold") > shown.index("nothing at all")


@pytest.mark.parametrize(
    "damage", ["", "{", "{}", "[1]", '[["05", "x", "fast", [1]]]', '[["05", "x", "fast", 1]]', "[[]]", "\x00"]
)
def test_a_damaged_file_is_set_aside_and_told(damage, tmp_path):
    (tmp_path / league.FILE).write_text(damage)
    table = league.enter("01", "nothing at all", STILL, folder=tmp_path)
    if damage == "{}":  # no rows, but no harm either
        assert not table.note
        return
    assert "begins anew" in table.note and table.note in str(table) and table.note[:20] in table._repr_html_()
    assert (tmp_path / f"{league.FILE}.damaged").read_text() == damage and len(table.rows) == 2
    assert len(json.loads((tmp_path / league.FILE).read_text())) == 2


def test_where_nothing_can_be_stored_the_row_is_shown(tmp_path):
    (tmp_path / "a file").write_text("")
    table = league.enter("01", "nothing at all", STILL, folder=tmp_path / "a file")
    assert "could not be stored" in table.note and len(table.rows) == 2
