"""``python -m regkit train``: weights that say what they are, interrupted and gone on with, on data of three kinds."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import regkit
from regkit import training
from regkit.__main__ import main
from regkit.checkpoints import describe
from regkit.data import ShapePairs
from regkit.data.benchmarks import BENCHMARKS, Benchmark
from regkit.images import Grid, Scan, write_image, write_labels
from regkit.tools import compare

NARROW = ["--set", "encoder_channels=[4,4]", "decoder_channels=4,4,4", "similarity=lncc", "weight=0.5"]
BRAINS = ["voxelmorph", "synthetic-brains", "--size", "33", "30", "--judge", "2", "--batch", "2", "--unaligned"]


def test_weights_name_what_they_are_and_reach(tmp_path, capsys):
    out = tmp_path / "brains.safetensors"
    assert main(["train", *BRAINS, "--steps", "3", "--out", str(out), *NARROW]) == 0
    described = describe(out)
    arguments = {"encoder_channels": (4, 4), "decoder_channels": (4, 4, 4), "similarity": "lncc"}
    assert described["arguments"].items() >= arguments.items()
    assert {"dice", "folds", "loss", "spacing", "field_error"} <= described["metrics"].keys()
    assert described["command"].startswith("python -m regkit train voxelmorph synthetic-brains --size 33 30")
    assert "--out brains.safetensors" in described["command"]
    assert "kept" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brains.history.csv", out.name]
    lines = (tmp_path / "brains.history.csv").read_text().splitlines()
    assert lines[0] == "step,lncc,diffusion,loss,seconds" and [line[0] for line in lines[1:]] == ["0", "1", "2"]
    assert regkit.load(out)(torch.rand(1, 1, 33, 30), torch.rand(1, 1, 33, 30)).displacement.shape == (1, 2, 33, 30)


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert main(["train", *BRAINS, "--steps", "4", "--out", str(whole), *NARROW]) == 0
    take = training._Run.take
    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "take", lambda self, step: take(self, step) if step < 2 else stop())
        assert main(["train", *BRAINS, "--steps", "4", "--out", str(parts), *NARROW]) == 130
    assert "2 of 4 steps" in capsys.readouterr().out and not parts.exists()
    assert main(["train", *BRAINS, "--steps", "4", "--out", str(parts), *NARROW]) == 0
    states = [regkit.load(path).state_dict() for path in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_training_starts_from_weights_of_another_size(tmp_path, capsys):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert main(["train", *BRAINS, "--steps", "2", "--out", str(first), *NARROW]) == 0
    finer = [*BRAINS[:2], "--size", "40", "35", *BRAINS[5:], "--learning-rate", "1e-9", "--steps", "1"]
    assert main(["train", *finer, "--start", str(first), "--out", str(second)]) == 0
    states = [regkit.load(path).state_dict() for path in (first, second)]
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-8) for name in states[0])
    assert describe(first)["arguments"] == describe(second)["arguments"]
    assert main(["train", *finer, "--start", str(first), "--out", str(second), *NARROW]) == 1
    assert "--start brings the network's arguments" in capsys.readouterr().err
    assert main(["train", "spnet", *finer[1:], "--start", str(first), "--out", str(second)]) == 1
    assert "weights belong to their network" in capsys.readouterr().err


def test_two_processes_train_under_torchrun_and_the_first_keeps_the_weights(tmp_path):
    out = tmp_path / "brains.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "regkit"]
    command += ["train", *BRAINS, "--steps", "2", "--out", str(out), *NARROW]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept") == 1 and len(list(tmp_path.iterdir())) == 2
    assert describe(out)["metrics"].keys() >= {"dice", "loss"}


def stop():
    raise KeyboardInterrupt


def test_a_benchmark_and_a_folder_train_too(tmp_path, monkeypatch):
    pairs = ShapePairs(4, size=(17, 18))
    monkeypatch.setitem(BENCHMARKS, "few", Benchmark("four shapes", pairs, [pairs[0], pairs[1]]))
    folder, few = tmp_path / "data", str(tmp_path / "few.safetensors")
    assert main(["train", "voxelmorph", "few", "--steps", "1", "--out", few, *NARROW]) == 0
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(4):
        drawn = ShapePairs(1, dim=3, size=(17, 18, 16), seed=i)[0]
        grid = Grid((17, 18, 16), np.eye(4))
        write_image(folder / "images" / f"s{i}.nii.gz", Scan(drawn.moving, grid, grid))
        write_labels(folder / "labels" / f"s{i}.nii.gz", Scan(drawn.moving_labels, grid, grid))
    (folder / "splits.json").write_text(json.dumps({"train": ["s0", "s1"], "validation": ["s2", "s3"], "test": []}))
    out = tmp_path / "folder.safetensors"
    assert main(["train", "voxelmorph", str(folder), "--steps", "1", "--out", str(out), *NARROW]) == 0
    assert describe(out)["arguments"]["dim"] == 3 and "dice" in describe(out)["metrics"]
    (folder / "splits.json").write_text(json.dumps({"train": ["s0", "s1"], "validation": [], "test": []}))
    assert main(["train", "voxelmorph", str(folder), "--steps", "1", "--judge", "0", "--out", str(out), *NARROW]) == 0
    assert describe(out)["metrics"].keys() == {"spacing", "loss"}


def test_weights_are_kept_before_they_are_judged_one_pair_at_a_time(tmp_path, monkeypatch, capsys):
    out, judged, take = tmp_path / "w.safetensors", [], compare.evaluate

    def evaluate(model, pairs):
        assert out.exists() and len(pairs) == 1
        judged.append(take(model, pairs)["dice"])
        if len(judged) == 4:
            raise MemoryError("no room")
        return {"dice": judged[-1]}

    monkeypatch.setattr(compare, "evaluate", evaluate)
    command = ["train", *BRAINS, "--steps", "1", "--out", str(out), *NARROW]
    assert main(command) == 0
    assert describe(out)["metrics"]["dice"] == pytest.approx(sum(judged) / 2, rel=1e-5) and len(judged) == 2
    out.unlink()
    assert main(command) == 1 and "no room" in capsys.readouterr().err
    assert regkit.load(out) and describe(out)["metrics"].keys() == {"spacing", "loss"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["voxelmorph", "nowhere", "--out", "x.safetensors"], "a folder, synthetic-brains or a benchmark"),
        (["voxelmorph", "few", "--out", "none/x.safetensors"], "in a folder that exists"),
        (["voxelmorph", "few", "--out", "x_v1.2"], "must end in .safetensors"),
        ([*BRAINS, "--out", "x.safetensors", "--set", "levels"], "NAME=VALUE"),
        ([*BRAINS, "--out", "x.safetensors", "--set", "warp_speed=9"], "must be one of in_channels"),
        ([*BRAINS, "--out", "x.safetensors", "--steps", "-1"], "steps must be"),
        ([*BRAINS, "--out", "x.safetensors", "--steps", "0"], "--steps 0"),
        ([*BRAINS, "--out", "x.safetensors", "--judge", "-1"], "--judge -1"),
        (["voxelmorph", "synthetic-brains", "--size", "33", "--out", "x.safetensors"], "dim must be one of"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told and list(tmp_path.iterdir()) == []
