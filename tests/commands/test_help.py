"""All commands: help is quick, what it lists is what the library has, and what cannot be done is told in one line."""

import subprocess
import sys
from dataclasses import asdict
from typing import get_args

import pytest

from regkit import commands
from regkit.__main__ import main
from regkit.commands import leaderboard, train
from regkit.course import notebooks
from regkit.data import benchmarks, brains
from regkit.tools import leaderboard as board
from regkit.tools import methods
from regkit.training import Precision, Recipe, Schedule


def test_help_imports_neither_torch_nor_numpy():
    asked = [["--help"], *([name, "--help"] for name in commands.COMMANDS)]
    script = f"""
import contextlib, io, sys
from regkit.__main__ import main
for words in {asked}:
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main(words)
    assert "usage: python -m regkit" in shown.getvalue(), words
sys.exit(len({{"torch", "numpy"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_what_help_lists_is_what_the_library_has():
    assert list(commands.NETWORKS) == list(methods.NETWORKS) and commands.METHODS == methods.METHODS
    assert list(commands.BENCHMARKS) == list(benchmarks.BENCHMARKS)
    assert (leaderboard.NAMES, leaderboard.STEPS) == (board.NAMES, board.STEPS)
    assert leaderboard.METHODS == board.METHODS
    assert asdict(Recipe()) == train.RECIPE
    assert (get_args(Schedule), get_args(Precision)) == (train.SCHEDULES, train.PRECISIONS)
    assert (get_args(brains.Motion), get_args(brains.Contrast)) == (train.MOTIONS, train.CONTRASTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("register", "a.nii", "b.nii", "--out", "out"), "received a.nii, where there is no file"),
        (("train", "spnet", "nowhere", "--out", "x.safetensors"), "data must be a folder"),
        (("evaluate", "nowhere"), "data must be a folder or a benchmark"),
        (("leaderboard", "--methods", "nonsense"), "the method must be one of"),
        (("lab",), "tutorials"),
        (("notebooks",), "tutorials"),
        (("pages", "out"), "tutorials"),
        (("study", "nonsense"), "study must be one of gradicon"),
        (("study", "sitreg", "--variant", "nonsense"), "variant must be one of reference"),
        (("ledger", "--out", "nowhere/claims.md"), "No such file"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_told_in_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "tutorials" in words:  # a regkit that was installed without them
        monkeypatch.setattr(notebooks, "PACKAGE", tmp_path / "regkit")
    assert main(list(arguments)) == 1
    told = capsys.readouterr().err
    assert told.startswith("regkit: ") and words in told and told.count("\n") == 1, told
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_regkit_itself_keeps_its_traceback():
    def run(chosen):
        raise AssertionError("a line of two\nlines")

    with pytest.raises(AssertionError):
        commands.plainly(run)(None)
