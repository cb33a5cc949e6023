"""Studies of one's own: switches from a model's signature, results kept and found again by what they follow from."""

import json
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from regkit import metrics, models
from regkit.course.studies import Study, switches
from regkit.data import synthetic_pair
from regkit.fields import warp, warp_labels
from regkit.models.layers import configured, conv
from regkit.tools import compare
from regkit.training import Recipe
from regkit.types import Pair, Registration

STEPS = 3


@configured
class Tiny(nn.Module):
    """One convolution."""

    def __init__(
        self, dim: Literal[2, 3] = 2, *, bias: bool = True, kernel: Literal[1, 3] | int = 3, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = weight
        self.conv = conv(dim, 2, dim, kernel, bias=bias)

    def forward(self, moving, fixed):
        return Registration(self.conv(torch.cat([moving, fixed], 1)))

    def objective(self, registration, moving, fixed):
        return {"mse": ((warp(moving, registration.displacement) - fixed) ** 2).mean()}


def study(folder, dim=2, **options):
    pair = example(dim)
    return Study(Tiny, [pair], "one pair", Recipe(**{"steps": STEPS, **options}), folder, {"dim": dim})


def example(dim):
    return synthetic_pair(dim, seed=1, size=(17, 12, 9)[:dim])


# ---------------------------------------------------------------------------------------------- switches
def test_switches_come_from_the_signature_with_the_default_first():
    assert switches(Tiny) == {"bias": (True, False), "kernel": (3, 1)}


@pytest.mark.parametrize("name", models.__all__)
def test_the_defaults_of_a_model_come_first(name):
    model = getattr(models, name)
    found = switches(model)
    defaults = model().configuration
    assert found and all(values[0] == defaults[switch] for switch, values in found.items())
    assert all(len(set(values)) == len(values) > 1 for values in found.values())


def test_spnet_offers_the_rows_of_its_table():
    paper = {"integrate", "image_encoding", "feature_warping", "symmetric", "bidirectional", "average"}
    assert {name for name, values in switches(models.SPNet).items() if values == (True, False)} == paper


# ---------------------------------------------------------------------------------------------- results on the disk
def test_a_result_is_found_again_to_the_bit(tmp_path):
    kept = study(tmp_path).train({"bias": False})
    found = study(tmp_path).find({"bias": False})
    assert kept.complete and found.complete and len(found.history) == STEPS
    assert found.history.loss == pytest.approx(kept.history.loss, rel=1e-5)  # six digits are kept
    for name, value in kept.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    assert torch.equal(study(tmp_path / "again").train({"bias": False}).model.conv.weight, found.model.conv.weight)


def test_a_result_is_found_by_all_that_it_follows_from(tmp_path):
    one = study(tmp_path)
    assert one.path({}) == one.path({"bias": True, "kernel": 3})  # the defaults
    others = [
        one.path({"bias": False}),
        study(tmp_path, steps=4).path({}),
        study(tmp_path, seed=1).path({}),
        Study(Tiny, one.source, "another pair", one.recipe, tmp_path, one.arguments).path({}),
        Study(Tiny, one.source, one.data, one.recipe, tmp_path, {"dim": 2, "weight": 2.0}).path({}),
    ]
    assert len({one.path({}), *others}) == 6
    one.train({})
    assert [other for other in others if other.exists()] == [] and study(tmp_path).find({}) is not None
    content = json.loads(one.path({}).with_suffix(".json").read_text())
    assert content["arguments"] == {"bias": True, "dim": 2, "kernel": 3, "weight": 1.0} and content["model"] == "Tiny"
    with pytest.raises(TypeError, match="warp_speed"):
        one.path({"warp_speed": True})


def test_a_damaged_result_is_refused_and_mended_by_training_again(tmp_path):
    one = study(tmp_path)
    one.train({})
    one.path({}).with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="train it again"):
        one.find({})
    one.train({})
    one.path({}).write_bytes(one.path({}).read_bytes()[:-7])
    with pytest.raises(ValueError, match="safetensors"):
        one.find({})


def test_training_leaves_the_random_state_as_it_was(tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    study(tmp_path).train({})
    assert torch.equal(torch.get_rng_state(), state)


def test_the_numbers_are_those_of_metrics():
    pair = example(2)
    u = pair.displacement
    numbers = compare.measure_variant(pair, Registration(u, -u))
    overlap = metrics.dice(warp_labels(pair.moving_labels, u), pair.fixed_labels)
    assert numbers["Dice"] == pytest.approx(np.mean(list(overlap.values()))) and numbers["Dice"] == 1
    assert numbers["mean |warped - fixed|"] < 1e-6
    assert numbers["folds (%)"] == metrics.folds(u).percent
    assert numbers["inverse error (voxels)"] == metrics.inverse_consistency(u, -u)
    assert set(compare.measure_variant(Pair(pair.moving, pair.fixed), Registration(u))) == {
        "mean |warped - fixed|",
        "folds (%)",
    }
