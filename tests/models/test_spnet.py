"""SPnet: the authors' numbers, and what holds for any weights."""

import functools
import json
import re
from typing import get_args

import pytest
import torch
from helpers.networks import recipe_weights, small_pair, strong, to_type
from helpers.parity import Entries
from torch import Tensor

from regkit import fields, losses
from regkit.models.official import load_official
from regkit.models.spnet import Geometry, SPNet, SPNetRegistration

FIXTURE = Entries("spnet")
DERIVED = {  # what each entry of the fixture changes, as the specification's table says
    "aligned_border": {"geometry": "aligned nearest"},
    "aligned_zeros": {"geometry": "aligned zeros"},
    "forward_only": {"bidirectional": False},
    "no_average": {"average": False},
    "no_warp": {"feature_warping": False},
    "no_integration": {"integrate": False},
    "no_image_branch": {"image_encoding": False},
    "levels3": {"levels": 3},
    "levels2": {"levels": 2},
    "d2": {"dim": 2},
    "d2_aligned_border": {"dim": 2, "geometry": "aligned nearest"},
}
SHAPES = [(21, 34), (17, 22, 19)]


@functools.cache
def released() -> tuple[SPNet, SPNetRegistration]:
    state = recipe_weights(json.loads(str(FIXTURE["parameters"])), 2.0)
    model = load_official("spnet", state, dim=3, geometry="released")
    with torch.no_grad():
        return model, model(*small_pair((32, 48, 40)))


def difference(field: Tensor, name: str) -> float:
    field = field.detach()
    step = int(name[-1]) if name[-3:-1] == "_s" else 1
    strided = field[(..., *[slice(None, None, step)] * (field.dim() - 2))][0].squeeze(0)
    expected = torch.from_numpy(FIXTURE[name])
    assert strided.shape == expected.shape
    return float((strided - expected).abs().max())


def test_the_released_program_gives_the_same_fields():
    _, registration = released()
    for level in range(4):
        both, velocity = registration.displacements[3 - level], registration.velocities[3 - level]
        back = f"flow{level}_back" + ("_s2" if level < 2 else "")
        assert difference(both[:1], f"flow{level}") < 1e-4
        assert difference(both[1:], back) < 1e-4
        assert difference(velocity[:1], f"velocity{level}" + ("_s2" if level == 0 else "")) < 1e-4


def test_the_released_program_gives_the_same_features_and_warped_images():
    model, registration = released()
    images = model.pyramid(torch.cat(small_pair((32, 48, 40))))
    features = model.encoder(images)
    parts = {"feature0_moving_s4": features[0][:1], "feature0_fixed_s4": features[0][1:]}
    parts |= {"feature1_moving_s4": features[1][:1, :16], "image_feature1_moving_s4": features[1][:1, 16:]}
    parts |= {"feature3_moving": features[3][:1, :32], "feature3_fixed": features[3][1:, :32]}
    for name, part in parts.items():
        assert difference(part, name) < 1e-5, name
    for level, image in enumerate(images):
        suffix = "_s2" if level == 0 else ""
        warped = model.pull(image, registration.displacements[3 - level])
        assert difference(warped[:1], f"warped{level}{suffix}") < 1e-5
        assert difference(warped[1:], f"warped{level}_back" + ("_s2" if level < 2 else "")) < 1e-5
    still = torch.zeros_like(registration.displacement)
    assert difference(model.pull(images[0][:1], still), "identity_warp_s2") < 1e-5


def test_the_released_program_gives_the_same_estimates():
    model, _ = released()
    given = {}
    for level in (2, 3):
        estimator = model.estimators[level]
        estimator.register_forward_hook(lambda _, __, result, level=level: given.update({level: result}))
    with torch.no_grad():
        model(*small_pair((32, 48, 40)))
    for level, (estimate, _) in given.items():
        assert difference(estimate[:1], f"head{level}_forward") < 1e-4
        assert difference(estimate[1:], f"head{level}_backward") < 1e-4
    assert difference(given[3][1][:1], "upfeature3_forward_s2") < 1e-5


def test_the_released_program_gives_the_same_loss():
    model, registration = released()
    doubled = to_type(registration, torch.float64)
    terms = model.objective(doubled, *small_pair((32, 48, 40), dtype=torch.float64))
    expected = {
        "lncc": sum((FIXTURE[f"loss_sim{i}"] + FIXTURE[f"loss_sim_back{i}"]) / 2 / 2**i for i in range(4)),
        "diffusion": sum(FIXTURE[f"loss_grad{i}"] / 2**i for i in range(4)),
    }
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), abs=1e-5)
    assert float(sum(terms.values())) == pytest.approx(float(FIXTURE["loss_total"]), abs=1e-5)
    moving, fixed = small_pair((32, 48, 40))
    warped = model.pull(moving, registration.displacement)
    assert float(losses.mse(warped, fixed)) == pytest.approx(float(FIXTURE["loss_mse0"]), abs=1e-5)


def test_inverse_consistency_is_the_authors():
    model, registration = released()
    there, back = registration.displacement, registration.inverse
    found = {"ice_true_composition": fields.compose(back, there), "ice_official_warp": there + model.pull(back, there)}
    for name, error in found.items():
        assert float(error.abs().mean()) == pytest.approx(float(FIXTURE[name]), abs=1e-5)


def test_the_authors_weights_bring_their_geometry():
    state = recipe_weights(json.loads(str(FIXTURE["parameters"])), 2.0)
    assert load_official("spnet", state, dim=3).configuration == released()[0].configuration
    for geometry in get_args(Geometry):
        assert load_official("spnet", state, dim=3, geometry=geometry).geometry == geometry


@pytest.mark.parametrize("tag", DERIVED)
def test_every_ablation_gives_the_fields_of_its_reimplementation(tag):
    switches = {"dim": 3, "geometry": "released", **DERIVED[tag]}
    lists = json.loads(str(FIXTURE["derived_parameters"]))
    parameters = lists.get(tag) or lists.get(tag.removesuffix("_aligned_border"))
    parameters = parameters or json.loads(str(FIXTURE["parameters"]))
    gain = float(json.loads(str(FIXTURE["config"]))["derived_gain"])
    model = load_official("spnet", recipe_weights(parameters, gain), **switches)
    moving, fixed = small_pair((64, 48) if tag.startswith("d2") else (32, 48, 40))
    with torch.no_grad():
        registration = model(moving, fixed)
    entries = [match for name in FIXTURE.files if (match := re.fullmatch(rf"{tag}/(flow|velocity)(\d)(.*)", name))]
    assert entries
    for entry in entries:
        stacks = registration.displacements if entry[1] == "flow" else registration.velocities
        both = stacks[len(stacks) - 1 - int(entry[2])]
        assert difference(both[1:] if "back" in entry[3] else both[:1], entry[0]) < 1e-4, entry[0]
    for name in {f"{tag}/warped0", f"{tag}/warped0_s2"} & set(FIXTURE.files):
        assert difference(model.pull(moving, registration.displacement), name) < 1e-5
    error = fields.compose(registration.inverse, registration.displacement).abs().mean()
    assert float(error) == pytest.approx(float(FIXTURE[f"{tag}/ice_true_composition"]), abs=1e-5)


@pytest.mark.parametrize("integrate", [True, False])
def test_without_a_velocity_the_objective_asks_for_inverse_consistency(integrate):
    model, images = SPNet(2, integrate=integrate), small_pair(SHAPES[0])
    registration = model(*images)
    assert (registration.velocity is not None) == integrate and len(registration.levels) == 4
    assert ("inverse_consistency" in model.objective(registration, *images)) != integrate


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_identical_images_stay_where_they_are_and_give_no_gradient(shape):
    model = strong(SPNet(len(shape)))
    image, _ = small_pair(shape)
    registration = model(image, image)
    assert all(not field.any() for field in (*registration.levels, registration.inverse))
    sum(model.objective(registration, image, image).values()).backward()
    assert all(parameter.grad.abs().max() < 1e-6 for parameter in model.parameters())


@pytest.mark.parametrize("dim", [2, 3])
def test_a_fresh_network_hardly_moves(dim):
    shape = SHAPES[dim - 2]
    with torch.no_grad():
        assert SPNet(dim)(*small_pair(shape)).displacement.abs().max() < 1e-3


def test_head_biases_change_nothing_while_the_directions_are_averaged():
    model = strong(SPNet(2)).double()
    images = small_pair(SHAPES[0], dtype=torch.float64)
    with torch.no_grad():
        before = model(*images).displacement
        for estimator in model.estimators:
            estimator.head.bias += 1
        assert torch.allclose(model(*images).displacement, before, atol=1e-9)


def test_the_released_sampler_is_half_a_voxel_off_at_the_faces():
    model = SPNet(2, geometry="released")
    ones = torch.ones(1, 1, 9, 12)
    still = model.pull(ones, torch.zeros(1, 2, 9, 12))
    assert torch.allclose(still[..., 0, 4:8], torch.full((4,), 0.5)) and torch.allclose(still[..., 4, 4], torch.ones(1))
    ramp = fields.identity((9, 12))[:, :1]
    pulled = model.pull(ramp, torch.zeros(1, 2, 9, 12))
    assert torch.allclose(pulled[0, 0, 1:-1, 5], torch.arange(1, 8) * 9 / 8 - 0.5, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("encoder", ["resnet", "inception"])
def test_the_encoders_of_table_5_have_the_plain_ones_shapes_and_keep_the_symmetry(encoder, dim):
    torch.manual_seed(0)
    plain, other = (SPNet(dim, image_encoding=False, encoder=kind).eval() for kind in ("plain", encoder))
    moving, fixed = torch.rand(2, 1, 1, *(19, 24, 17)[:dim])
    shapes = [[level.shape for level in network.encoder(network.pyramid(moving))] for network in (plain, other)]
    assert shapes[0] == shapes[1]
    for estimator in other.estimators:
        torch.nn.init.normal_(estimator.head.weight, std=1.0)
    there, back = other(moving, fixed), other(fixed, moving)
    assert there.displacement.abs().max() > 0.01 and torch.allclose(there.velocity, -back.velocity, atol=1e-5)
    sum(other.objective(there, moving, fixed).values()).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in other.encoder.stages.parameters() if weight.dim() > 1)
