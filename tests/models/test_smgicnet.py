"""SM-GICNet: the authors' numbers, and what holds for any weights."""

import dataclasses
import functools
import json
import re
from unittest import mock

import numpy as np
import pytest
import pywt
import torch
from helpers import networks
from helpers.networks import small_pair, to_type
from helpers.parity import Entries
from helpers.recipe import fill
from torch import Tensor

from regkit import fields, losses, metrics
from regkit.metrics import _determinant
from regkit.models.layers import crop, swap
from regkit.models.official import load_official
from regkit.models.smgicnet import ENERGY_EPSILON, SMGICNet, SMGICRegistration
from regkit.models.smgicnet import released as program
from regkit.models.smgicnet.networks import disagreement, haar

FIXTURE = Entries("smgicnet")
CONFIG, PARAMETERS, USED = (json.loads(str(FIXTURE[name])) for name in ("config", "parameters", "used"))
ARRAYS = [name for name in FIXTURE.files if FIXTURE[name].dtype.kind == "f"]
SMALL = {"channels": 4}
SHAPES = [(37, 50), (33, 38, 35)]


def strong(model: SMGICNet, scale: float = 0.1) -> SMGICNet:
    """The model with random weights that move voxels, in evaluation mode."""
    networks.strong(model, 1.2)
    for network in model.networks:
        network.head[2].weight.data *= scale
    return model


# ---------------------------------------------------------------------------------------------- parity
def authors_weights(run: str) -> dict[str, Tensor]:
    state = {name: torch.from_numpy(value) for name, value in fill(PARAMETERS, 1.6).items()}
    for name, scale in zip(CONFIG["head_names"], CONFIG[run].get("head_scale", CONFIG["t"]["head_scale"]), strict=True):
        state[name] = state[name] * np.float32(scale)
    return state


@dataclasses.dataclass
class Run:
    """One run of the released program: its results and what its last network hands on inside."""

    model: SMGICNet
    registration: SMGICRegistration
    inside: dict[str, Tensor]


RUNS = {"t": {}, "p": {}, "n": {"attention": False}, "g": {"velocity_range": 7}}


@functools.cache
def released(run: str) -> Run:
    """The fixture's runs: "t" as released, "p" squaring without the factor, "n" without gates, "g" with range 7."""
    state = authors_weights(run if run == "g" else "t")
    model = load_official("smgicnet", state, dim=3, variant="released", **RUNS[run])
    inside: dict[str, Tensor] = {}
    last = model.networks[3]
    modules = {"enc0": last.encoder[0], "enc3": last.encoder[3]} | {f"gate{i + 1}": last.gates[i] for i in range(3)}
    for name, module in modules.items():
        module.register_forward_hook(lambda _, __, result, name=name: inside.update({name: result}))
    factor = 1.0 if run == "p" else model.velocity_range
    integrate = program.integrate
    with torch.no_grad(), mock.patch.object(program, "integrate", lambda velocity, _: integrate(velocity, factor)):
        return Run(model, model(*small_pair((32, 48, 64))), inside)


def as_authors(displacement: Tensor) -> Tensor:
    """Normalised units, channels W, H, D."""
    return fields.reverse_components(fields.voxels_to_normalized(displacement))


def as_ours(field: np.ndarray) -> Tensor:
    return fields.normalized_to_voxels(fields.reverse_components(torch.from_numpy(field)))


def entering(run: Run, level: int) -> Tensor:
    """The two images that a level sees: warped by the enlarged displacement, and weighted."""
    band = run.model.pyramid(torch.cat(small_pair((32, 48, 64))))[level - 1][:, :1]
    known = program.enlarged(run.registration.displacements[level - 2])
    return torch.cat([fields.warp(band, known)[:1], band[1:]], 1) * run.registration.weights[level - 1][:1]


def band_of(name: str) -> Tensor:
    """An entry `in_`: "moving_lll3", "fixed_em2", "moving"."""
    image = small_pair((32, 48, 64))[name.startswith("fixed")]
    energy = image
    for _ in range(int(name[-1]) if name[-1].isdigit() else 0):
        image, energy = haar(image, 2**1.5)
    return energy if "em" in name else image


def warped_by(run: Run, name: str) -> Tensor:
    """An entry `warped_`: x1, x2_lll, x2_hhh (the energy), …, source1, source1_in (the fixed image by the inverse)."""
    bands = run.model.pyramid(torch.cat(small_pair((32, 48, 64))))
    if name == "source1_in":
        return fields.warp(bands[3][1:], run.registration.inverse)
    level = 3 if name == "source1" else int(name[1]) - 1
    warped = fields.warp(bands[level][:1], run.registration.levels[level])
    return warped[:, 1:] if name.endswith("hhh") else warped[:, :1]


def computed(name: str) -> Tensor:
    """Ours for an array of the fixture, before its suffix takes a part."""
    run, rest = name.split("_", 1)
    if run == "in":
        return band_of(rest)
    if run == "ref":
        velocity = as_ours(FIXTURE["t_ab_v3"])
        return as_authors(fields.exponential(-velocity if "neg" in rest else velocity))
    side, what = rest.split("_", 1)
    ran = released(run)
    kinds = {"u": "displacements", "v": "velocities", "r": "residuals", "inv": "inverses"}
    if field := re.fullmatch(r"(u|v|r|inv)(\d)", what):
        levels = getattr(ran.registration, kinds[field[1]])
        return as_authors(levels[int(field[2]) - 1])[int(side == "ba")][None]
    if what.startswith("warped_"):
        return warped_by(ran, what.removeprefix("warped_"))
    if images := re.fullmatch(r"in(\d)_images", what):
        return entering(ran, int(images[1]))
    return ran.inside[what][:1]


PARTS = {
    "_s2": lambda field: field[..., ::2, ::2, ::2],
    "_s4": lambda field: field[..., ::4, ::4, ::4],
    "_c8": lambda field: field[:, ::4],
    "_d16": lambda field: field[..., 16, :, :],
    "_h24": lambda field: field[..., 24, :],
    "_w32": lambda field: field[..., 32],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_released_program_gives_the_same_numbers(name):
    parts, bare = [], name
    while (suffix := f"_{bare.rsplit('_', 1)[-1]}") in PARTS:
        bare, parts = bare.removesuffix(suffix), [PARTS[suffix], *parts]
    ours = functools.reduce(lambda field, part: part(field), parts, computed(bare))
    if name == "t_ab_r3":
        ours = PARTS["_s2"](ours)
    ours = {"t_ab_inv3": ours[:, :, :6], "t_ab_enc0_s4": ours[:, :4]}.get(name, ours)
    theirs = torch.from_numpy(FIXTURE[name])
    ours = ours.reshape(theirs.shape) if name.startswith("in_") and theirs.dim() == 2 else ours
    assert ours.shape == theirs.shape
    fields_of = re.search(r"_(u|v|r|inv)\d|_exp_", name)
    tolerance = 1e-5 if fields_of else 2e-4 if re.search("_enc|_gate", name) else 1e-5 * float(theirs.abs().max())
    assert float((ours - theirs).abs().max()) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_the_released_program_gives_the_same_losses(stage, dtype):
    run = released("t")
    registration = to_type(run.registration, dtype)
    bands = run.model.pyramid(torch.cat(small_pair((32, 48, 64), dtype=dtype)))
    terms = program.losses(run.model, registration, bands, stage=stage)
    theirs = json.loads(str(FIXTURE["losses"]))[f"t_ab_level{stage}_f{8 * dtype.itemsize}"]
    expected = {
        "similarity": theirs["loss_ncc" if stage == 2 else "loss_multiNCC"],
        "smoothness": theirs["loss_regulation"],
        "folding": theirs["loss_fold"],
        "corner": 0.01 * theirs["loss_filed"],
        "symmetric": 0.001 * (theirs["loss_inv"] + theirs["loss_inv_re"]),
        "multilevel": 0.0005 * (theirs.get("loss_mean", 0) + theirs.get("loss_mean_re", 0)),
    }
    found = {name: float(value) for name, value in terms.items()}
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9 if dtype == torch.float64 else 1e-7)
    assert sum(found.values()) == pytest.approx(theirs["loss"], rel=1e-5)


def test_the_objective_of_the_released_variant_is_the_last_stage():
    run = released("t")
    terms = run.model.objective(run.registration, *small_pair((32, 48, 64)))
    theirs = json.loads(str(FIXTURE["losses"]))["t_ab_level4_f64"]
    assert float(sum(terms.values())) == pytest.approx(theirs["loss"], rel=1e-5)


def test_the_reference_numbers_of_both_exponentials():
    forward, backward = (fields.exponential(as_ours(FIXTURE[f"t_{side}_v3"])).double() for side in ("ab", "ba"))
    inverse = fields.exponential(-as_ours(FIXTURE["t_ab_v3"])).double()
    run = released("t").registration
    released_forward, false = run.displacements[2][:1].double(), run.inverses[2][:1].double()

    def lengths(name, error):
        length = error.norm(dim=1)
        inner = length[(..., *[slice(3, -3)] * 3)]
        return {f"{name}_mean": length.mean(), f"{name}_max": length.max(), f"{name}_interior3_mean": inner.mean()}

    volumes = metrics.jacobian_statistics(forward, definition="forward")
    determinant = _determinant(forward, "forward")
    without = forward - fields.identity(forward.shape[2:])  # their program's |∂u|, where |I + ∂u| is meant
    ours = {
        "mean_length_u_ab": forward.norm(dim=1).mean(),
        "mean_length_u_ba": backward.norm(dim=1).mean(),
        **lengths("inverse_error_exp", fields.compose(forward, inverse)),
        **lengths("inverse_error_released", fields.compose(released_forward, false)),
        "smoothness_ab": losses.diffusion(forward),
        "smoothness_ba": losses.diffusion(backward),
        "determinant_min": volumes.minimum,
        "determinant_max": determinant.max(),
        "determinant_mean": determinant.mean(),
        "sd_log_determinant": volumes.std_log,
        "fraction_nonpositive": volumes.folds_percent / 100,
        "fraction_nonpositive_identity_missing": metrics.folds(without, definition="forward").percent / 100,
    }
    maps = {"ab": forward, "ba": backward, "inverse": inverse}
    for order in ("ab_inverse", "ab_ba", "ba_ab"):
        round_trip = fields.compose(*(maps[name] for name in order.split("_")))
        ours[f"identity_mse_{order}"] = round_trip.square().mean()
        ours[f"gradient_inverse_{order}"] = 3 * losses.diffusion(round_trip)
    theirs = json.loads(str(FIXTURE["reference"]))
    found = {name: float(value) for name, value in ours.items()}
    assert found == pytest.approx({name: theirs[name] for name in ours}, rel=1e-4)
    precise = as_authors(fields.exponential(as_ours(FIXTURE["t_ab_v3"]).double()))[..., ::2, ::2, ::2]
    halves = [(size - 1) / 2 for size in reversed(forward.shape[2:])]  # voxels in a normalised unit
    gap = fields.scale_components(torch.from_numpy(FIXTURE["ref_exp_v3_s2"]) - precise, halves)
    rounding = "max_abs_difference_exp_float32_official_vs_float64"  # of all voxels; here of every second
    assert float(gap.abs().max()) == pytest.approx(theirs[rounding], rel=0.5)
    assert theirs.keys() == ours.keys() | {rounding, "units"}


def test_every_key_of_the_authors_weights_is_used_once():
    state = authors_weights("t")
    arguments = {"dim": 3, "variant": "released"}
    full, live = load_official("smgicnet", state, **arguments), {name: state[name] for name in USED}
    only = load_official("smgicnet", live, **arguments)
    assert all(torch.equal(a, b) for a, b in zip(full.parameters(), only.parameters(), strict=True))
    assert len(full.state_dict()) == len(USED)
    taken = torch.cat([value.sort().values for value in (p.detach().flatten() for p in full.parameters())])
    assert torch.isclose(taken.double().sum(), sum(live[name].double().sum() for name in USED), atol=1e-6)
    with pytest.raises(ValueError, match=r"up\.weight"):
        load_official("smgicnet", {name: value for name, value in live.items() if name != "up.weight"}, **arguments)
    with pytest.raises(ValueError, match="stranger"):
        load_official("smgicnet", live | {"stranger.weight": torch.zeros(1)}, **arguments)
    with pytest.raises(ValueError, match="'variant': 'released'"):
        load_official("smgicnet", state, dim=3)


@pytest.mark.parametrize(
    ("dim", "counts"), [(3, (288_992, 436_720, 616_416, 535_587)), (2, (97_408, 147_872, 208_704, 186_339))]
)
def test_parameter_counts_by_level(dim, counts):
    networks = SMGICNet(dim).networks
    assert tuple(sum(parameter.numel() for parameter in network.parameters()) for network in networks) == counts


# ---------------------------------------------------------------------------------------------- wavelet and weights
@pytest.mark.parametrize("shape", [(12, 18), (8, 10, 14)], ids=str)
def test_the_wavelet_is_the_haar_of_pywavelets(shape):
    image = torch.rand(2, 1, *shape, dtype=torch.float64)
    low, energy = haar(image, gain=2 ** (len(shape) / 2))
    for item in range(2):
        bands = pywt.dwtn(image[item, 0].numpy(), "haar")
        assert np.allclose(low[item, 0], bands.pop("a" * len(shape)), atol=1e-12)
        assert np.allclose(energy[item, 0], sum(band**2 for band in bands.values()), atol=1e-12)
    assert torch.allclose(image.square().sum(), low.square().sum() + energy.sum())
    mean, _ = haar(image)
    assert torch.allclose(mean, low / 2 ** (len(shape) / 2))


@pytest.mark.parametrize("shape", [(7, 10), (5, 6, 9)], ids=str)
def test_a_constant_has_no_energy_and_odd_axes_repeat_their_last_voxel(shape):
    low, energy = haar(torch.full((1, 1, *shape), 3.0))
    assert torch.equal(low, torch.full_like(low, 3.0)) and not energy.any()
    assert low.shape[2:] == tuple(-(-size // 2) for size in shape)
    image = torch.rand(1, 1, *shape)
    if shape[-1] % 2:
        assert torch.allclose(haar(image)[0][..., -1], haar(image[..., -1:])[0][..., 0])


def test_weights_are_each_samples_own_and_do_not_stretch_noise():
    images = torch.rand(3, 2, 9, 11)
    weight = disagreement(images)
    assert torch.allclose(weight, torch.cat([disagreement(item[None]) for item in images]))
    lowest, highest = weight.flatten(1).aminmax(dim=1)
    assert torch.allclose(lowest, torch.tensor(0.5)) and torch.allclose(highest, torch.tensor(1.0))
    same = images[:, :1].repeat(1, 2, 1, 1)
    assert (disagreement(same + 1e-6 * torch.randn_like(same)) - 0.5).max() < 0.01


# ---------------------------------------------------------------------------------------------- laws
@pytest.mark.parametrize(
    ("switches", "off"),
    [
        ({}, set()),
        ({"levels": 1}, {"multilevel"}),
        ({"symmetric": False}, {"symmetric"}),
        ({"gradient_inverse": False}, {"gradient_inverse"}),
        ({"smoothness": False}, {"smoothness"}),
    ],
    ids=str,
)
def test_a_switch_takes_its_term_away(switches, off):
    model = strong(SMGICNet(2, **SMALL, **switches))
    moving, fixed = small_pair(SHAPES[0])
    terms = model.objective(model(moving, fixed), moving, fixed)
    assert {name for name, weight in model.weights.items() if weight == 0} == off
    assert {name for name, value in terms.items() if value == 0} == off
    assert list(terms) == ["similarity", "smoothness", "gradient_inverse", "symmetric", "inverse", "multilevel"]


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_swapping_the_images_swaps_the_results_and_the_papers_objective_does_not_see_it(shape, variant):
    model = strong(SMGICNet(len(shape), **SMALL, variant=variant))
    pair = small_pair(shape)
    with torch.no_grad():
        one, other = model(*pair), model(*reversed(pair))
        terms = [model.objective(one, *pair), model.objective(other, *reversed(pair))]
    assert one.displacement.abs().max() > 0.5
    for name in ("displacements", "inverses", "velocities", "residuals", "weights"):
        for here, there in zip(getattr(one, name), getattr(other, name), strict=True):
            assert torch.allclose(here, swap(there), atol=1e-5)
    if variant == "paper":
        torch.testing.assert_close(*terms, rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_direction_is_the_first_of_both_with_the_same_weights(shape):
    both = strong(SMGICNet(len(shape), **SMALL))
    alone = SMGICNet(len(shape), **SMALL, symmetric=False)
    alone.load_state_dict(both.state_dict())
    images = small_pair(shape)
    with torch.no_grad():
        first, second = both(*images), alone(*images)
    assert torch.allclose(first.displacement, second.displacement, atol=1e-5)
    assert torch.allclose(first.inverse, second.inverse, atol=1e-5)
    assert len(second.displacements[-1]) == 1 and len(first.displacements[-1]) == 2


@pytest.mark.parametrize("switches", [{}, {"levels": 1}, {"symmetric": False}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_velocities_add_and_both_fields_are_exponentials(shape, switches):
    with torch.no_grad():
        found = strong(SMGICNet(len(shape), **SMALL, **switches))(*small_pair(shape))
    halvings = [len(found.levels) - 1 - level for level in range(len(found.levels))]
    sizes = [tuple(-(-size // 2**count) for size in shape) for count in halvings]
    assert [tuple(level.shape[2:]) for level in found.levels] == sizes
    known = torch.zeros_like(found.velocities[0])
    for velocity, residual, displacement in zip(found.velocities, found.residuals, found.displacements, strict=True):
        assert torch.allclose(velocity, residual + crop(known, velocity.shape[2:]), atol=1e-5)
        assert torch.equal(displacement, fields.exponential(velocity))
        assert all(residual[:, axis].abs().max() < 0.2 * size for axis, size in enumerate(residual.shape[2:]))
        known = fields.upsample(velocity)


def smooth_velocity(shape, largest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    velocity = losses.gaussian_blur(torch.randn(1, len(shape), *shape, generator=generator), 6, radius=18)
    return velocity * largest / velocity.abs().max()


@pytest.mark.parametrize("shape", [(48, 64), (32, 48, 64)], ids=str)
def test_the_exponential_of_the_negative_is_the_inverse_and_the_programs_is_not(shape):
    velocity = smooth_velocity(shape, 4)
    displacement = fields.exponential(velocity)
    inside = (..., *[slice(6, -6)] * len(shape))

    def error(inverse):
        return fields.compose(displacement, inverse)[inside].norm(dim=1)

    true, false = error(fields.exponential(-velocity)), error(program.false_inverse(velocity))
    assert true.mean() < 0.03 and true.max() < 0.15
    assert false.mean() > 0.4 and false.mean() > 2 * error(-velocity).mean()
    assert fields.jacobian_determinant(displacement).min() > 0
    assert (fields.exponential(velocity, steps=10) - displacement).abs().max() < 0.02


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_level_repeats_the_border_up_to_its_strides_and_crops_the_answer(shape):
    dim = len(shape)
    model = strong(SMGICNet(dim, **SMALL, levels=2))
    moving, fixed = small_pair(shape)
    with torch.no_grad():
        found = model(moving, fixed)
        low = haar(torch.cat([moving, fixed]))[0]
        widths = [width for size in reversed(low.shape[2:]) for width in (0, size % 2)]
        padded = torch.nn.functional.pad(torch.cat([low, swap(low)], 1), widths, mode="replicate")
        answer = model.networks[0](padded, padded[:, :0], torch.zeros(2, dim, *padded.shape[2:]))
    residual = crop(answer.residual, low.shape[2:])
    half = torch.tensor(low.shape[2:]).view(1, dim, *[1] * dim) / 2
    assert torch.allclose(found.velocities[0], 0.4 * residual * half, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_coarse_networks_are_the_papers(dim):
    networks = strong(SMGICNet(dim, **SMALL)).networks
    size = [16, 24, 8][:dim]
    images, known = torch.rand(2, 2, *size), torch.rand(2, dim, *size)
    energies = torch.rand(2, 2, *size)

    first = networks[0]
    down, block, middle, grow = first.trunk
    features = first.first(first.entry.images(images))
    expected = first.head(torch.cat([first.skip(features), grow(middle(block(down(features))))], 1))
    assert torch.equal(first(images, energies, known).residual, expected)

    third = networks[2]
    weight = disagreement(images)
    moving, still = images.chunk(2, 1)
    low = third.entry.mix_images(third.entry.images(torch.cat([weight * moving, weight * still, known], 1)))
    detail = third.entry.mix_energies(third.entry.energies(torch.cat([energies, known], 1)))
    features = third.first(torch.cat([low, detail], 1))
    expected = third.head(torch.cat([third.skip(features), third.trunk(features)], 1))
    assert torch.allclose(third(images, energies, known).residual, expected, atol=1e-6)
    kinds = "down block down block down block block up block up block up"
    named = {"Conv": "down", "Block": "block", "ConvTranspose": "up"}
    assert " ".join(named[type(layer).__name__.strip("_23d")] for layer in third.trunk) == kinds


@pytest.mark.parametrize("dim", [2, 3])
def test_the_last_network_is_the_papers(dim):
    last = strong(SMGICNet(dim, **SMALL)).networks[-1]
    size = [16, 24, 8][:dim]
    images, known = torch.rand(2, 2, *size), torch.rand(2, dim, *size)

    def gated(gate, skip, features):
        inner = fields.resize(gate.of_skip(skip), features.shape[2:]) + gate.of_features(features)
        return skip * fields.resize(torch.sigmoid(gate.reduce(inner.relu())), skip.shape[2:])

    def block(layer, features):
        def activate(value):
            return torch.where(value > 0, value, 0.01 * value)

        return features + activate(layer.conv2(activate(layer.conv1(features))))

    weight = disagreement(images).repeat(1, 2, *[1] * dim)
    entered = torch.nn.functional.leaky_relu(last.entry[0](torch.cat([weight * images, known], 1)), 0.2)
    levels = [block(last.encoder[0], last.entry[2](entered))]
    for down, layer in last.encoder[1:]:
        levels.append(block(layer, down(levels[-1])))
    features = levels[3]
    features = block(last.decoder[0], last.ups[0](features) + gated(last.gates[0], levels[2], features))
    features = block(last.decoder[1], last.ups[1](features) + gated(last.gates[1], levels[1], features))
    expected = last.head(torch.cat([last.ups[2](features), gated(last.gates[2], levels[0], features)], 1))
    assert torch.allclose(last(images, images[:, :0], known).residual, expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_level_sees_the_band_warped_by_the_displacement_and_the_velocity_so_far(shape):
    model = strong(SMGICNet(len(shape), **SMALL))
    moving, fixed = small_pair(shape)
    seen = []
    for network in model.networks:
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with torch.no_grad():
        found = model(moving, fixed)
    bands = model.pyramid(torch.cat([moving, fixed]))
    assert not seen[0][2].any()
    for level in (1, 2, 3):
        size = bands[level].shape[2:]
        known = found.displacements[level - 1], found.velocities[level - 1]
        displacement, velocity = (crop(fields.upsample(each), size) for each in known)
        warped = fields.warp(bands[level], displacement)
        images, energies, entered = (crop(part, size) for part in seen[level])
        assert torch.allclose(images, torch.cat([warped[:, :1], swap(bands[level])[:, :1]], 1), atol=1e-6)
        assert torch.allclose(energies, torch.cat([warped[:, 1:], swap(bands[level])[:, 1:]], 1), atol=1e-6)
        assert torch.allclose(entered, fields.voxels_to_normalized(velocity, align_corners=False), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_still_networks_leave_images_where_they_are_and_nothing_is_nan(shape):
    model = strong(SMGICNet(len(shape), **SMALL), scale=0)
    image, _ = small_pair(shape)
    for images in ((image, image), (0 * image, 0 * image)):
        registration = model(*images)
        assert all(not field.any() for field in registration.displacements)
        assert (registration.weights[-1] - 0.5).abs().max() < 1e-3
        assert all(torch.isfinite(value) for value in model.objective(registration, *images).values())
    moved = strong(SMGICNet(len(shape), **SMALL))(0 * image, 0 * image)
    assert all(torch.isfinite(field).all() for field in moved.displacements)


# ---------------------------------------------------------------------------------------------- gates
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gates_give_one_coefficient_for_each_voxel_of_a_skip(shape):
    with torch.no_grad():
        gates = strong(SMGICNet(len(shape), **SMALL))(*small_pair(shape)).gates
    assert [gate.shape for gate in gates] == [(2, 1, *(-(-size // factor) for size in shape)) for factor in (4, 2, 1)]
    assert all(0 < gate.min() < gate.max() < 1 for gate in gates)


@pytest.mark.parametrize("dim", [2, 3])
def test_without_attention_the_coefficients_are_one(dim):
    gated, plain = SMGICNet(dim, **SMALL), strong(SMGICNet(dim, **SMALL, attention=False))
    gated.load_state_dict(gated.state_dict() | plain.state_dict())
    images = small_pair(SHAPES[dim - 2])
    with torch.no_grad():
        for gate in gated.networks[-1].gates:
            gate.reduce.weight.zero_()
            gate.reduce.bias.fill_(50.0)
        one, other = gated(*images), plain(*images)
    assert torch.allclose(one.displacement, other.displacement, atol=1e-6)
    assert all(torch.equal(gate, torch.ones_like(gate)) for gate in other.gates)


# ---------------------------------------------------------------------------------------------- the objective


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_term_is_the_papers_formula(shape):
    dim = len(shape)
    model = strong(SMGICNet(dim, **SMALL)).double()
    moving, fixed = small_pair(shape, dtype=torch.float64)
    with torch.no_grad():
        found = model(moving, fixed)
        terms = model.objective(found, moving, fixed)
    forward, backward = found.displacements[-1].chunk(2)
    sides = [(moving, fixed, 0, forward, backward), (fixed, moving, 1, backward, forward)]
    expected = dict.fromkeys(("smoothness", "gradient_inverse", "symmetric", "inverse", "multilevel"), 0.0)
    for own, other, side, there, back in sides:
        inverse = found.inverses[-1].chunk(2)[side]
        previous = crop(fields.upsample(found.displacements[-2].chunk(2)[side]), shape)
        now, before = fields.warp(own, there), fields.warp(own, previous)
        smooth = [losses.diffusion(level.chunk(2)[side]) for level in found.displacements]
        expected["smoothness"] += 0.1 * sum(value / 2 ** (3 - level) for level, value in enumerate(smooth))
        expected["gradient_inverse"] += losses.gradicon(there, back)
        expected["symmetric"] += 0.001 * losses.mse(fields.warp(other, inverse), fields.warp(other, back))
        expected["inverse"] += 0.01 * losses.mse(fields.compose(there, inverse), torch.zeros_like(there))
        expected["multilevel"] += 0.0005 * losses.mse(now, (now + before) / 2)
    similarity = 0.0
    for a, b, inverse in ((moving, fixed, found.inverses[-1][:1]), (fixed, moving, found.inverses[-1][1:])):
        similarity += 0.1 * losses.lncc(fields.warp(b, inverse), a, window=9)
    bands = model.pyramid(torch.cat([moving, fixed]))
    for level, (band, field) in enumerate(zip(bands, found.displacements, strict=True)):
        width = min(3 + 2 * level, *(size - 1 + size % 2 for size in field.shape[2:]))
        for part, epsilon in zip(band.split(1, 1), (1e-5, 1e-12), strict=False):
            score = losses.lncc(fields.warp(part, field), swap(part), window=width, epsilon=epsilon)
            similarity += 2 * score / 2 ** (3 - level)
    expected["similarity"] = similarity
    torch.testing.assert_close(terms, expected, rtol=1e-6, atol=0)
    assert [band.shape[1] for band in bands] == [1, 2, 2, 1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_inverse_consistency_needs_a_second_direction_to_mean_anything(shape):
    values = []
    for symmetric in (True, False):
        model = strong(SMGICNet(len(shape), **SMALL, symmetric=symmetric), scale=0.01)
        images = small_pair(shape)
        with torch.no_grad():
            values.append(float(model.objective(model(*images), *images)["gradient_inverse"]))
    assert 0 < values[1] < values[0] / 4


def test_energies_count_in_the_similarity():
    image, _ = small_pair((32, 40, 48))
    energy = haar(image)[1]
    assert losses.lncc(energy, energy, window=7, epsilon=ENERGY_EPSILON) < -0.5
    assert losses.lncc(energy, energy, window=7) > -0.2  # 1e-5 as for images would silence them
