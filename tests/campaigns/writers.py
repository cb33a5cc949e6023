"""Two at once: rows that two processes store, trainings in threads. `python -m campaigns.writers` in tests/."""

import os
import tempfile
import threading
from pathlib import Path

import torch

from regkit import data, models, training
from regkit.tools import leaderboard
from regkit.tools.compare import Row


def rows():
    """How many of 80 rows of two processes are lost."""
    with tempfile.TemporaryDirectory() as folder:
        leaderboard.FOLDER = Path(folder)
        children = []
        for method in ("none", "affine"):
            if not (child := os.fork()):
                for number in range(40):
                    leaderboard._store("brains_3d", "k", Row(method, number, {"dice": 0.5}))
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        return 80 - len(leaderboard.stored("brains_3d"))


def trainings():
    """How many of 8 trainings, two at a time, are other than alone."""
    pairs = data.ShapePairs(4, size=(16, 16))

    def train(model):
        training.train(model, pairs, training.Recipe(steps=10), progress=False)

    def model():
        torch.manual_seed(0)
        return models.GradICON(2, encoder_channels=(4, 4), decoder_channels=(4, 4))  # its objective draws points

    alone, others = model(), 0
    train(alone)
    for _ in range(4):
        both = [model(), model()]
        threads = [threading.Thread(target=train, args=(one,)) for one in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wanted = alone.state_dict()
        others += sum(
            any(not torch.equal(wanted[name], value) for name, value in one.state_dict().items()) for one in both
        )
    return others


if __name__ == "__main__":
    print(f"rows: {rows()} of 80 lost; trainings: {trainings()} of 8 other than alone")
