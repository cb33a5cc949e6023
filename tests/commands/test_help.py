"""All commands: help is quick, what it lists is what the library has, and what cannot be done is told in one line."""

import logging
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace
from typing import get_args

import nibabel
import numpy as np
import pytest
import torch

from regkit import __version__, commands
from regkit.__main__ import main, parse
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


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / "scan.nii")
    reading, writing = os.pipe()
    os.close(reading)  # as `regkit ... | head` after the last line that head wants
    command = [sys.executable, "-m", "regkit", "examine", str(tmp_path / "scan.nii")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 141 and b"Traceback" not in done.stderr and b"roken" not in done.stderr


def test_what_the_library_logs_is_printed_by_commands_alone(capsys, monkeypatch):
    def study(chosen):
        logging.getLogger("regkit.course.studies").info("0.5 reached")
        return 0

    monkeypatch.setattr("regkit.commands.study.run", study)
    study(None)
    assert main(["study", "--quiet"]) == 0 and capsys.readouterr().out == ""
    assert main(["study"]) == 0 and capsys.readouterr().out == "0.5 reached\n"


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_example_of_each_commands_help_is_taken(name):
    assert parse([name, *shlex.split(commands.EXAMPLES[name])]).command == name


def test_help_names_defaults_and_the_example_and_version_is_told(capsys):
    for words in (["register", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "for this pair (0)" in told and "(auto)" in told and commands.EXAMPLES["register"] in told
    assert told.endswith(f"regkit {__version__}")


def test_quiet_prints_neither_tables_nor_progress(capsys):
    words = ["evaluate", "hollow", "--limit", "1", "--method", "none"]
    for more in (["--quiet"], []):
        assert main([*words, *more]) == 0
        said = capsys.readouterr()
        assert [bool(said.out), bool(said.err)] == [not more, not more]


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert parse(["register", "a", "b", "--out", "c"]).device == device


def test_what_help_lists_is_what_the_library_has():
    assert list(commands.NETWORKS) == list(methods.NETWORKS) and commands.METHODS == methods.METHODS
    assert list(commands.BENCHMARKS) == list(benchmarks.BENCHMARKS)
    names = (leaderboard.NAMES, leaderboard.SLICES, leaderboard.STEPS)
    assert names == (board.NAMES, board.SLICES, board.STEPS)
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
        (("ledger", "--out", "nowhere/claims.md"), "--out must be in a folder that exists"),
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


@pytest.mark.parametrize("dev", [False, True])
def test_an_error_of_regkit_itself_is_one_line_and_has_its_traceback_in_development(dev, monkeypatch, capsys):
    def run(chosen):
        raise AssertionError("a line of two\nlines")

    monkeypatch.setattr(commands, "sys", SimpleNamespace(**vars(sys) | {"flags": SimpleNamespace(dev_mode=dev)}))
    if dev:
        with pytest.raises(AssertionError):
            commands.plainly(run)(None)
    else:
        assert commands.plainly(run)(None) == 1
        told = capsys.readouterr().err
        assert "AssertionError (a line of two lines); this is a fault of regkit" in told and told.count("\n") == 1
