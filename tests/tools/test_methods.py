"""Methods by name: networks with weights, optimisation, SyN where antspyx is, nothing; what is missing is said."""

import importlib

import pytest
import torch

import regkit
from regkit import data, fields, losses, metrics, models
from regkit.tools import methods


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "voxelmorph_2d.safetensors"
    model = models.VoxelMorph(2, encoder_channels=(4, 4), decoder_channels=(4, 4, 4))
    regkit.save(model, path, metrics={"spacing": 2.5})
    return path


def test_all_networks_have_a_name():
    assert {"gradicon", "sitreg", "sacbnet", "spnet", "smgicnet", "voxelmorph"} == set(methods.NETWORKS)
    assert all(getattr(models, name) for name in methods.NETWORKS.values())


def test_weights_are_found_by_name_or_by_file(weights, monkeypatch):
    monkeypatch.setattr(methods, "WEIGHTS", weights.parent)
    pair = data.synthetic_pair(2, 0, size=(21, 18))
    by_name, by_file = methods.make_method("voxelmorph", 2), methods.load_method(weights, 2)
    assert by_name.spacing == by_file.spacing == 2.5
    found = [method(pair.moving, pair.fixed).displacement for method in (by_name, by_file.to("cpu"))]
    assert torch.equal(*found) and not found[0].requires_grad
    with pytest.raises(FileNotFoundError, match=r"ships none for voxelmorph in 3D \(no weights/voxelmorph_3d"):
        methods.make_method("voxelmorph", 3)


def test_methods_without_a_network_say_what_they_found():
    pair = data.synthetic_pair(2, 1, size=(31, 26), motion=0.2)
    nothing = methods.make_method("none", 2)(pair.moving, pair.fixed)
    assert nothing.displacement.abs().max() == 0 and nothing.inverse.abs().max() == 0
    affine = methods.make_method("affine", 2)(pair.moving, pair.fixed)
    assert fields.compose(affine.inverse, affine.displacement)[:, :, 5:-5, 5:-5].abs().max() < 0.05
    optimised = methods.make_method("optimise", 2, steps=15, progress=False)
    before, one, other = (
        losses.mse(fields.warp(pair.moving, u), pair.fixed)
        for u in (nothing.displacement, affine.displacement, optimised(pair.moving, pair.fixed).displacement)
    )
    assert one < before and other < 0.5 * before


def test_an_affine_map_of_a_large_image_is_found_on_a_small_one(monkeypatch):
    pair = data.synthetic_pair(2, 1, size=(61, 47), motion=0.2)
    matrix = torch.tensor([[[1.1, -0.15, 3.0], [0.1, 0.95, -2.0]]])
    moving, affine = (
        fields.warp(pair.fixed, fields.affine_displacement(matrix, (61, 47))),
        methods.make_method("affine", 2),
    )
    monkeypatch.setattr(methods, "_LONGEST", 32)
    found = affine(moving, pair.fixed)
    before, after = (losses.mse(image, pair.fixed) for image in (moving, fields.warp(moving, found.displacement)))
    assert after < 0.05 * before
    assert fields.compose(found.inverse, found.displacement)[:, :, 7:-7, 7:-7].abs().max() < 0.1


def test_an_affine_map_comes_before_the_method():
    pair = data.synthetic_pair(2, 1, size=(31, 26), motion=0.2)
    matrix = torch.tensor([[[1.1, -0.2, 2.0], [0.2, 1.0, -1.0]]])
    moving = fields.warp(pair.moving, fields.affine_displacement(matrix, (31, 26)))
    alone, both = (methods.make_method("optimise", 2, progress=False) for _ in range(2))
    both = methods.with_affine(both)
    assert both.name == "affine + optimise"
    found = both(moving, pair.fixed)
    one, other = (
        losses.ncc(fields.warp(moving, each.displacement), pair.fixed) for each in (alone(moving, pair.fixed), found)
    )
    assert other < one
    assert fields.compose(found.inverse, found.displacement)[:, :, 7:-7, 7:-7].abs().mean() < 0.1


def test_refinement_follows_the_method(weights):
    pair = data.synthetic_pair(2, 1, size=(31, 26), motion=0.2)
    method = methods.load_method(weights, 2)
    refined = methods.with_refinement(method, 5, progress=False)
    assert refined.name == "voxelmorph + 5 steps" and refined.model is method.model
    before, after, own = (
        losses.lncc(fields.warp(pair.moving, each(pair.moving, pair.fixed).displacement), pair.fixed)
        for each in (method, refined, methods.with_refinement(method, 5, weights=True, progress=False))
    )
    assert after < before and own != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demons", 2), "the method must be one of"),
        (("optimise", 2, "file"), "only networks have weights"),
        (("sitreg", 2, "own"), "of VoxelMorph for sitreg; name --method voxelmorph"),
        (("voxelmorph", 3, "own"), "made for 2D and images of 3D"),
    ],
)
def test_what_does_not_belong_together_is_refused(weights, arguments, words):
    name, dim, *file = arguments
    with pytest.raises(ValueError, match=words):
        methods.make_method(name, dim, weights=weights if file == ["own"] else (file or [None])[0])
    with pytest.raises(ValueError, match="only a network's weights"):
        methods.with_refinement(methods.make_method("none", 2), 5, weights=True)


# ---------------------------------------------------------------------------------------------- SyN


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
    with pytest.raises(ImportError, match=r"SyN needs ants.*pip install \"regkit-registration\[ants\]"):
        methods.make_method("syn", 2)(image, image)
    with pytest.raises(ValueError, match="one pair of one channel"):
        methods.register_with_syn(image.expand(2, -1, -1, -1), image.expand(2, -1, -1, -1))
