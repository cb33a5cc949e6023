"""The networks that come with regkit: small files that say what made them, and do on new brains what they claim."""

from statistics import fmean

import pytest
import torch

from regkit import checkpoints, losses, metrics
from regkit.fields import warp, warp_labels
from regkit.tools import methods
from regkit.types import Pair

NAMES = sorted(methods.NETWORKS)
SYMMETRIC = {"sitreg", "spnet"}  # by construction
LARGEST, ALL = 6e6, 60e6  # bytes of one file, of all


@pytest.fixture(scope="module", params=[True, False], ids=["aligned", "unaligned"])
def pair(request) -> Pair:
    """Two subjects that no network has seen, on a grid that none was trained on."""
    from regkit.data.brains import BrainPairs

    return BrainPairs(2, dim=3, size=(62, 80, 58), motion="large", aligned=request.param, split="test", seed=5)[0]


def test_all_networks_come_with_weights_in_3d_and_their_files_are_small():
    assert sorted(methods.shipped(3)) == NAMES
    sizes = [path.stat().st_size for path in methods.WEIGHTS.iterdir()]
    assert max(sizes) < LARGEST and sum(sizes) < ALL


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_made_it_and_what_it_reached(name):
    described = checkpoints.describe(methods.WEIGHTS / f"{name}_3d.safetensors")
    last = described["command"].split(" && ")[-1]
    assert last.startswith(f"python -m regkit train {name} synthetic-brains --size 64 80 64")
    assert "--seed" in described["command"] and "/" not in described["command"]
    assert {"dice", "folds", "loss", "spacing"} <= described["metrics"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_registers_brains_it_has_never_seen(name, pair):
    found = methods.make_method(name, 3)(pair.moving, pair.fixed)
    before = fmean(metrics.dice(pair.moving_labels, pair.fixed_labels).values())
    after = fmean(metrics.dice(warp_labels(pair.moving_labels, found.displacement), pair.fixed_labels).values())
    assert after > before + 0.01
    assert losses.ncc(warp(pair.moving, found.displacement), pair.fixed) < losses.ncc(pair.moving, pair.fixed)
    assert metrics.folds(found.displacement).percent < 1


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
def test_exchanged_images_exchange_the_maps_after_training_too(name, pair):
    method = methods.make_method(name, 3)
    there, back = method(pair.moving, pair.fixed), method(pair.fixed, pair.moving)
    assert torch.allclose(there.inverse, back.displacement, atol=1e-4)
