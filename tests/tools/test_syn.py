"""SyN, where antspyx is installed: its displacements mean in regkit what they mean in ANTs."""

import importlib

import pytest
import torch

from regkit import data, fields, losses, metrics
from regkit.tools import methods
from regkit.tools.methods import make_method


@pytest.mark.parametrize("shape", [(47, 38), (29, 33, 26)])
def test_syn_warps_moving_onto_fixed_and_back(shape):
    pytest.importorskip("ants")
    pair = data.synthetic_pair(len(shape), 2, size=shape, motion=0.6)
    found = methods.register_with_syn(pair.moving, pair.fixed)
    before = losses.ncc(pair.moving, pair.fixed)
    assert losses.ncc(fields.warp(pair.moving, found.displacement), pair.fixed) < 0.6 * before
    assert losses.ncc(fields.warp(pair.fixed, found.inverse), pair.moving) < 0.6 * before
    assert metrics.inverse_consistency(found.displacement, found.inverse, region="inside") < 0.2
    assert found.displacement.abs().max() > 1


def test_what_syn_needs_is_said(monkeypatch):
    image = torch.rand(1, 1, 12, 12)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match="pip install antspyx"):
        make_method("syn", 2)(image, image)
    with pytest.raises(ValueError, match="one pair of one channel"):
        methods.register_with_syn(image.expand(2, -1, -1, -1), image.expand(2, -1, -1, -1))
