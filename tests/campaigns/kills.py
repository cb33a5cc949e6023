"""Kills survived, of moments in which files change: `python -m campaigns.kills [train study ...]` in tests/; minutes.

Each command runs once to its end; then again and again, killed at a call that touches a file in its folder. The same
command must then end well, leave what the run without a kill left, to the bit, and nothing else: a kill survived.
"""

import contextlib
import functools
import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from helpers.kills import killed
from helpers.raw_datasets import MAKERS, served

from data_scripts.common.command import main as prepare
from regkit import data, images, models, training
from regkit.__main__ import main
from regkit.course import studies
from regkit.tools import leaderboard
from regkit.tools.compare import Row

NARROW = {"encoder_channels": (4, 4), "decoder_channels": (4, 4, 4)}
PAIRS = data.ShapePairs(4, size=(16, 16))


def train(folder):
    torch.manual_seed(0)
    model = models.VoxelMorph(2, **NARROW)
    recipe = training.Recipe(steps=4)
    training.train(model, PAIRS, recipe, checkpoint=folder / "run.pt", every=1, progress=False)
    torch.save(model.state_dict(), folder / "end.pt")


def train_command(folder):
    few = ["train", "voxelmorph", "synthetic-brains", "--size", "33", "30", "--judge", "1", "--steps", "2"]
    assert main([*few, "--out", str(folder / "w.safetensors"), "--set", "encoder_channels=[4,4]"]) == 0


def study(folder):
    tiny = studies.Study(models.VoxelMorph, PAIRS, "four", training.Recipe(steps=2), folder, NARROW, [PAIRS[0]])
    studies.STUDIES["tiny"], studies.VARIANTS["tiny"] = tiny, {"reference": {}}
    assert main(["study", "tiny", "--seeds", "0", "1"]) == 0
    studies.load("tiny")


def register(folder):
    grid = images.Grid((16, 15, 14), np.diag([2.0, 2, 2, 1]))
    pair, scans = data.synthetic_pair(3, 0, size=(16, 15, 14)), [folder.parent / name for name in ("m.nii", "f.nii")]
    for path, image in zip(scans, (pair.moving, pair.fixed), strict=True):
        images.write_image(path, images.Scan(image, grid, grid))
    assert main(["register", *map(str, scans), "--out", str(folder / "out"), "--method", "none"]) == 0


def board(folder):
    leaderboard.FOLDER = folder
    for number in range(4):
        leaderboard._store("brains_3d", "k", Row("none", number, {"dice": 0.5}))
    leaderboard.table(leaderboard.stored("brains_3d"))


@functools.cache
def raw():
    site = Path(tempfile.mkdtemp()) / "site"
    site.mkdir()
    return served(MAKERS["oasis"](site.parent / "raw", site), site, "http://127.0.0.1:9"), site


def conversion(folder):
    dataset, site = raw()
    assert prepare(dataset, [str(folder / "made"), "--from", str(site), "--quiet"]) == 0
    assert prepare(dataset, [str(folder / "made"), "--check"]) == 0


COMMANDS = {train: 3, train_command: 3, study: 3, register: 2, board: 1, conversion: 12}  # every so many moments


def left(folder):
    """All files of a run by name; those with times in them without their content."""
    timed = (".json", ".csv", ".html", ".h5", "run.pt")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): None if path.name.endswith(timed) else path.read_bytes() for path in paths}


def campaign(command, every):
    """How many kills one command survived, and how many were tried."""
    with tempfile.TemporaryDirectory() as work:
        folder, survived = Path(work) / "run/f", 0

        def run():
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                command(folder)

        folder.mkdir(parents=True)
        run()  # here, so that the children find everything imported
        whole = left(folder)
        for tried in itertools.count():
            shutil.rmtree(folder.parent)
            folder.mkdir(parents=True)
            if not killed(run, 1 + tried * every, folder):
                return survived, tried
            survived += not killed(run, 0, folder) and left(folder) == whole


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = [command for command in COMMANDS if command.__name__ in sys.argv[1:] or not sys.argv[1:]]
    for command in chosen:
        survived, tried = campaign(command, COMMANDS[command])
        print(f"{command.__name__}: {survived} of {tried} kills survived", flush=True)
