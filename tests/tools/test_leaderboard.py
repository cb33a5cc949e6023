"""The leaderboard: what is stored is kept, what is missing is measured; the tables that are shown follow from it."""

import threading

import pytest
import torch
from helpers.tutorials import ROOT

import regkit
from regkit import data, models
from regkit.__main__ import main
from regkit.commands.leaderboard import MARKS, write
from regkit.data.benchmarks import BENCHMARKS, Benchmark
from regkit.models import VoxelMorph
from regkit.tools import leaderboard, methods
from regkit.tools.compare import Row

SMALL = {"encoder_channels": (4, 4), "decoder_channels": (4, 4, 4)}


def save_network(folder, seed):
    torch.manual_seed(seed)
    regkit.save(models.VoxelMorph(3, **SMALL), folder / "voxelmorph_3d.safetensors", metrics={"spacing": 2.0})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A leaderboard of one small network and two small pairs, without SyN."""
    pairs = [data.synthetic_pair(3, seed, size=(13, 15, 12)) for seed in (0, 1)]
    benchmarks = {name: Benchmark(f"two pairs, {name}", [], pairs) for name in leaderboard.NAMES}
    save_network(tmp_path, 0)
    monkeypatch.setattr(leaderboard, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(leaderboard, "FOLDER", tmp_path / "results" / "leaderboard")
    monkeypatch.setattr(leaderboard, "STEPS", 2)
    monkeypatch.setattr(methods, "WEIGHTS", tmp_path)
    monkeypatch.setattr(leaderboard.importlib.util, "find_spec", lambda name: None)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """The methods that are called to measure, one for each row."""
    made, measure = [], leaderboard.compare.measure

    def counted(method, pair, **options):
        made.append(method.name)
        return measure(method, pair, **options)

    monkeypatch.setattr(leaderboard.compare, "measure", counted)
    return made


ALL = ["none", "affine", "optimise", "voxelmorph", "voxelmorph + refinement"]


def test_what_is_stored_is_kept_until_its_weights_change(place, calls):
    rows = leaderboard.measure("brains_3d", progress=False)
    assert [(row.method, row.pair) for row in rows] == [(name, number) for name in ALL for number in (0, 1)]
    assert calls == [name for name in ALL for _ in range(2)] and leaderboard.stored("brains_3d_unaligned") == []
    assert leaderboard.measure("brains_3d", progress=False) == rows and len(calls) == 10
    save_network(place, 1)
    other = leaderboard.measure("brains_3d", progress=False)
    assert calls[10:] == ["voxelmorph"] * 2 + ["voxelmorph + refinement"] * 2
    assert other[:6] == rows[:6] and other[6:] != rows[6:] and len(other) == 10
    assert leaderboard.measure("brains_3d", ["none"], again=True, progress=False)[0].values["dice"] == pytest.approx(
        rows[0].values["dice"]
    )
    assert calls[14:] == ["none"] * 2


def test_rows_depend_on_the_steps_where_something_is_refined(place, calls, monkeypatch):
    before = {method: leaderboard.key("brains_3d", method) for method in ALL}
    monkeypatch.setattr(leaderboard, "STEPS", 3)
    changed = {method for method in ALL if leaderboard.key("brains_3d", method) != before[method]}
    assert changed == {"optimise", "voxelmorph + refinement"}


def test_it_can_be_interrupted(place, calls, monkeypatch):
    counted = leaderboard.compare.measure

    def impatient(method, pair, **options):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return counted(method, pair, **options)

    monkeypatch.setattr(leaderboard.compare, "measure", impatient)
    assert main(["leaderboard", "--benchmark", "brains_3d"]) == 130
    assert [row.method for row in leaderboard.stored("brains_3d")] == ["none", "none", "affine"]
    monkeypatch.setattr(leaderboard.compare, "measure", counted)
    assert len(leaderboard.measure("brains_3d", progress=False)) == 10 and len(calls) == 10


def test_rows_are_read_as_they_were_measured(place):
    rows = [Row("none", 0, {"dice": 0.123456, "folds_percent": 0.0}), Row("none", 1, {"dice": 0.5})]
    leaderboard._store("brains_3d", "a", rows[1])
    leaderboard._store("brains_3d", "a", rows[0])
    assert leaderboard.stored("brains_3d") == rows
    path = place / "results" / "leaderboard" / "brains_3d.csv"
    stored, head = path.read_text(), "method,pair,key,dice\n"
    rows = ("none,0,a,b", "none", "none,0", "none,0,a,nan", "none,0,a,17", "none,0,a,1\nnone,0,a,1", "magic,0,a,1")
    texts = [head + row + "\n" for row in (*rows, "none,0,a," + "1" * 200_000, "none,0,a,0.5,0.6")]
    for text in ("method,pair\nnone,0\n", *texts, stored.replace("0.123456", "0.223456")):
        path.write_text(text)
        with pytest.raises(ValueError, match="stored rows are a table"):
            leaderboard.stored("brains_3d")
    with pytest.raises(ValueError, match="the benchmark must be one of brains_3d"):
        leaderboard.stored("hollow")


def test_rows_of_two_processes_are_all_stored(place):
    def store(method):
        for number in range(10):
            leaderboard._store("brains_3d", "k", Row(method, number, {"dice": 0.5}))

    threads = [threading.Thread(target=store, args=(method,)) for method in ("none", "affine")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leaderboard.stored("brains_3d")) == 20


def rows_of(**scores):
    return [Row(name, i, {"dice": value}) for name, values in scores.items() for i, value in enumerate(values)]


def test_a_network_that_does_not_beat_the_baseline_is_named():
    base = [0.5 + 0.01 * number for number in range(8)]
    rows = rows_of(
        none=[0.1] * 8,
        voxelmorph=base,
        spnet=[value + 0.1 for value in base],
        sitreg=[value - 0.1 for value in base],
        gradicon=[value + 0.002 + 0.01 * (-1) ** number for number, value in enumerate(base)],
    )
    said = leaderboard.verdict(rows)
    assert "better: spnet (p = 0.023)" in said and "worse: sitreg (p = 0.023)" in said  # 3 * 2 / 2^8
    assert "not told apart: gradicon" in said and "none" not in said
    table = leaderboard.table(rows).splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == ["spnet", "gradicon", "voxelmorph", "sitreg", "none"]
    assert leaderboard.verdict(rows_of(none=[0.1], spnet=[0.2])) == "" and "p of" not in leaderboard.table(
        rows_of(none=[0.1])
    )


def test_the_command_writes_page_and_readme(place, monkeypatch, capsys):
    monkeypatch.setattr(leaderboard.compare, "measure", lambda method, pair, clock: {"dice": 0.5, "seconds": 1.0})
    clone = place / "clone"
    (clone / "tutorials").mkdir(parents=True)
    (clone / "README.md").write_text(f"above\n{MARKS[0]}old\n{MARKS[1]}below\n")
    monkeypatch.setattr("regkit.course.notebooks.folder", lambda: clone / "tutorials")
    assert main(["leaderboard", "--methods", "none", "affine"]) == 0
    assert "| affine | 0.500 ± 0.000 | 1.00 ± 0.00 |" in capsys.readouterr().out
    shown = (clone / "README.md").read_text()
    assert shown.startswith("above\n") and shown.endswith("below\n") and "| none | 0.500 | 0.500 | - | 1.00 |" in shown
    assert (clone / "tutorials" / "leaderboard.md").read_text() == leaderboard.page()
    (clone / "README.md").write_text("no marks")
    with pytest.raises(ValueError, match="must be marked once"):
        write(clone / "tutorials")


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("the method must be one of none, affine, optimise, voxelmorph", ("--methods", "syn")),
        ("go with --scans", ("--out", "x")),
        ("go with --scans", ("--refine", "10")),
        ("need a place", ("--scans", "a.nii", "b.nii")),
        ("takes 1 step or more", ("--scans", "a.nii", "b.nii", "--out", "x", "--refine", "0")),
        ("are of the stored rows", ("--scans", "a.nii", "b.nii", "--out", "x", "--again")),
        ("to none, received 2 --labels for 1", ("--scans", *"ab", "--labels", *"ab", "--labels", *"ab", "--out", "x")),
        ("a.nii", ("--scans", "a.nii", "b.nii", "--out", "x")),
    ],
)
def test_what_cannot_be_is_told(place, monkeypatch, capsys, words, arguments):
    monkeypatch.chdir(place)
    assert main(["leaderboard", *arguments]) == 1
    said = capsys.readouterr().err
    assert words in said and said.startswith("regkit: ") and said.count("\n") == 1 and not (place / "x").exists()


def test_every_network_is_a_rival(place):
    assert set(models.__all__) == set(methods.NETWORKS.values()) and set(methods.NETWORKS) < set(leaderboard.METHODS)
    assert leaderboard.rivals() == ALL
    made = leaderboard.make("voxelmorph + refinement")
    assert made.name == "voxelmorph + refinement" and isinstance(made.model, VoxelMorph)
    assert leaderboard.entry("voxelmorph + refinement", 3).refine == 3 and leaderboard.entry("affine").affine


def test_the_tables_that_are_shown_follow_from_the_rows():
    page, readme = (ROOT / "tutorials" / "leaderboard.md").read_text(), (ROOT / "README.md").read_text()
    assert page == leaderboard.page(), "run python -m regkit leaderboard"
    aligned, unaligned = map(leaderboard.stored, leaderboard.NAMES)
    assert f"{MARKS[0]}{leaderboard.short_table(aligned, unaligned)}{MARKS[1]}" in readme


@pytest.mark.parametrize("name", leaderboard.NAMES + leaderboard.SLICES)
def test_stored_rows_are_of_the_shipped_weights(name):
    rows = leaderboard._read(name)
    assert all(own == leaderboard.key(name, row.method) for own, row in rows)
    counts = {method: sum(row.method == method for _, row in rows) for method in {row.method for _, row in rows}}
    networks = set(methods.NETWORKS) | {f"{each} + refinement" for each in methods.NETWORKS}
    wanted = set(leaderboard.METHODS) - ({"syn"} if name in leaderboard.NAMES else {"syn", *networks})
    assert set(counts.values()) == {len(BENCHMARKS[name].held_out)} and set(counts) >= wanted
