"""The stored variants: each file follows from a command, a seed and a log, and still gives the numbers it claims."""

import json
import subprocess
from dataclasses import replace

import pytest
import torch

from regkit.__main__ import main
from regkit.checkpoints import describe
from regkit.course import studies
from regkit.course.studies import FOLDER, SEEDS, STUDIES, VARIANTS, Study
from regkit.data import ShapePairs
from regkit.data.benchmarks import BENCHMARKS, Deferred
from regkit.models import VoxelMorph
from regkit.tools.compare import evaluate
from regkit.training import Recipe
from regkit.types import Pair, stack

ALL = [(study, variant) for study, variants in VARIANTS.items() for variant in variants]
FILES = sorted(FOLDER.rglob("*.json"))


def test_every_study_has_a_reference_and_variants_that_differ():
    assert VARIANTS.keys() == STUDIES.keys()
    for name, study in STUDIES.items():
        assert VARIANTS[name]["reference"] == {}
        assert len({study.path(choice) for choice in VARIANTS[name].values()}) == len(VARIANTS[name])


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_can_be_made_and_registers(name):
    pair = Pair(*torch.rand(2, 1, 1, 33, 40))
    for choice in VARIANTS[name].values():
        model = STUDIES[name].model(**{**STUDIES[name].arguments, **choice}).eval()
        assert model(pair.moving, pair.fixed).displacement.shape == (1, 2, 33, 40)


@pytest.mark.skipif(not (FOLDER.parents[2] / ".git").exists(), reason="only a clone knows which files are regkit's")
def test_every_stored_file_belongs_to_a_variant():
    paths = {
        STUDIES[study].seeded(seed).path(VARIANTS[study][variant]).with_suffix("")
        for study, variant in ALL
        for seed in SEEDS
    }
    listed = subprocess.run(["git", "ls-files", str(FOLDER)], cwd=FOLDER, capture_output=True, text=True, check=True)
    named = [path for path in listed.stdout.splitlines() if not path.startswith(("leaderboard/", "first_light/"))]
    kept = {(FOLDER / path).with_suffix("") for path in named}  # not what a learner trained
    assert kept and kept <= paths


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_record_names_its_command_seed_and_log(path):
    record = json.loads(path.read_text())
    seed, steps = record["recipe"]["seed"], record["recipe"]["steps"]
    assert record["command"].startswith(f"python -m regkit study {path.parent.name} --variant ")
    assert record["command"].endswith(f" --seeds {seed}") and f"-seed{seed}-" in path.stem
    shown = steps if seed == SEEDS[0] else steps / 20
    assert len(record["history"]["seconds"]) == shown == len(next(iter(record["history"]["terms"].values())))
    assert record["threads"] == 1 and record["pairs"].keys() <= record["metrics"].keys()
    for measure in record["pairs"].keys() & {"mse", "folds", "inverse_error"}:
        mean = sum(record["pairs"][measure]) / len(STUDIES[path.parent.name].held_out)
        assert mean == pytest.approx(record["metrics"][measure], rel=1e-3, abs=1e-6)
    assert {"mse", "dice", "folds", "inverse_error"} <= record["metrics"].keys()
    weights = path.with_suffix(".safetensors")
    assert weights.exists() == (seed == SEEDS[0])
    if weights.exists():
        assert weights.stat().st_size < 1e6
        assert describe(weights)["metrics"].items() >= record["metrics"].items()


@pytest.mark.parametrize("name", STUDIES)
def test_a_stored_model_still_reaches_its_numbers(name):
    if not (record := STUDIES[name].record({})):
        pytest.skip(f"{name} is not trained yet")
    reached = evaluate(studies.load(name).model, STUDIES[name].held_out)
    assert reached == pytest.approx(record["metrics"], rel=0.02, abs=1e-3)  # other processors round otherwise


def test_a_variant_is_trained_once_and_its_numbers_are_spread_over_the_seeds(tmp_path, monkeypatch, capsys):
    pairs = ShapePairs(4, size=(16, 17))
    narrow = {"encoder_channels": (4, 4), "decoder_channels": (4, 4, 4)}
    tiny = Study(VoxelMorph, pairs, "four shapes", Recipe(steps=2), tmp_path, narrow, [pairs[0], pairs[1]])
    monkeypatch.setitem(STUDIES, "tiny", tiny)
    monkeypatch.setitem(VARIANTS, "tiny", {"reference": {}, "velocity": {"output": "velocity"}})
    with pytest.raises(FileNotFoundError, match="python -m regkit study tiny"):
        studies.load("tiny")
    assert studies.results("tiny") == {} and studies.records("tiny") == []
    assert main(["study", "tiny", "--variant", "velocity", "--seeds", "0", "1"]) == 0
    assert capsys.readouterr().out.count("tiny / velocity / seed") == 2
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(times) == 3  # two records, the first seed's weights
    weights = next(tmp_path.glob("*.safetensors"))
    before = weights.read_bytes()
    weights.unlink()  # as if a process of version 0.1.0 had been killed before it wrote them
    studies.train("tiny", "velocity", [0, 1])
    assert weights.read_bytes() == before
    for path in tmp_path.glob("*seed0*.json"):
        path.unlink()  # as if killed before the record
    with pytest.raises(FileNotFoundError, match="python -m regkit study tiny"):
        studies.load("tiny", "velocity")
    studies.train("tiny", "velocity", [0, 1])
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    studies.train("tiny", "velocity", [0, 1])
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    dice = studies.results("tiny", "velocity")["dice"]
    found = [record["metrics"]["dice"] for record in studies.records("tiny", "velocity")]
    each = studies.values("tiny", "velocity", "dice")
    assert each.shape == (2, 2) and each.mean(1) == pytest.approx(found, abs=1e-4)
    assert studies.values("tiny", "reference", "dice").shape == (0, 0)
    assert len(found) == dice.seeds == 2 and dice.mean == pytest.approx(sum(found) / 2)
    assert dice.deviation == pytest.approx(abs(found[0] - found[1]) / 2**0.5) and str(dice).endswith("(2)")
    assert studies.load("tiny", "velocity").model.configuration["output"] == "velocity"


@pytest.mark.parametrize("names", [("nothing", None), ("spnet", "nothing")])
def test_unknown_names_list_the_known_ones(names):
    with pytest.raises(ValueError, match="must be one of"):
        studies.train(*names)


def test_an_interrupted_training_keeps_nothing(tmp_path, monkeypatch):
    def interrupt(step, history):
        raise KeyboardInterrupt

    tiny = Study(VoxelMorph, ShapePairs(4, size=(16, 16)), "four shapes", Recipe(steps=2), tmp_path)
    assert not tiny.train({}, callback=interrupt).complete and tiny.record({}) is None
    monkeypatch.setattr(Study, "train", lambda self, choice, progress: Stopped)
    monkeypatch.setitem(STUDIES, "tiny", tiny)
    monkeypatch.setitem(VARIANTS, "tiny", {"reference": {}})
    with pytest.raises(KeyboardInterrupt, match="1 steps"):
        studies.run("tiny", "reference", 0)


class Stopped:
    history = (0,)


def test_a_benchmark_is_made_when_it_is_asked_for_and_only_once():
    calls = []
    pairs = Deferred(lambda: calls.append(1) or ShapePairs(3, size=(9, 11)))
    assert calls == [] and len(pairs) == 3 and torch.equal(pairs[1].moving, ShapePairs(3, size=(9, 11))[1].moving)
    assert [pair.moving.shape for pair in pairs] == [(1, 1, 9, 11)] * 3 and calls == [1]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_held_out_pairs_of_a_benchmark_fit_each_other(name):
    pair = stack(BENCHMARKS[name].held_out)
    assert len(pair.moving) == len(BENCHMARKS[name].held_out) and pair.moving_labels is not None
    assert not torch.equal(pair.moving, pair.fixed) and f"size={tuple(pair.moving.shape[2:])}" in BENCHMARKS[name].words


def test_numbers_of_a_known_answer():
    class Truth(torch.nn.Module):
        def forward(self, moving, fixed):
            forwards = torch.equal(moving, pair.moving)
            return replace(registration, displacement=u if forwards else -u)

    pair = stack(BENCHMARKS["vessels"].held_out)
    u = pair.displacement
    registration = STUDIES["voxelmorph"].model()(pair.moving, pair.fixed)
    reached = evaluate(Truth(), [pair])
    assert reached["mse"] < 1e-12 and reached["dice"] == 1 and reached["folds"] == 0 and reached["field_error"] == 0
    assert 0 < reached["inverse_error"] == reached["exchange_error"] < u.abs().max()


def test_there_must_be_pairs_to_judge_on():
    with pytest.raises(ValueError, match="at least one pair"):
        stack([])
