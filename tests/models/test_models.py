"""What all networks share: one flow, typed switches, files that rebuild them, and a loss that falls."""

import inspect
import math
from typing import get_type_hints

import pytest
import torch
from helpers.networks import small_pair, strong

import regkit
from regkit import losses, metrics, models
from regkit.course.studies import switches
from regkit.data import ShapePairs, synthetic_pair
from regkit.fields import exponential
from regkit.training import Recipe, train
from regkit.types import Registration

SMALL = {  # the same networks, narrow, so that 200 steps take seconds
    "VoxelMorph": {"encoder_channels": (8, 16), "decoder_channels": (16, 8, 8), "output": "velocity"},
    "GradICON": {"encoder_channels": (8, 16), "decoder_channels": (8, 8), "levels": (1, 0)},
    "SITReg": {"channels": (4, 8, 8), "update_channels": (8, 8, 8), "window": 5},
    "SACBNet": {"width": 1, "clusters": 3},
    "SPNet": {"levels": 3},
    "SMGICNet": {"channels": 8, "levels": 2},
}
FALLS = 0.2  # of its size at the start: an error falls to 0.8, a correlation of -0.5 to -0.6
NAMES = sorted(models.__all__)
GRADICON_LEVELS = [(0,), (1, 0), (2, 1, 0), (3, 2, 1, 0), (2, 1, 0, 0)]


def objective(model: torch.nn.Module, pair: regkit.Pair) -> float:
    with torch.no_grad():
        return float(sum(model.objective(model(pair.moving, pair.fixed), pair.moving, pair.fixed).values()))


def test_all_methods_are_there():
    counts = {"GradICON": 9, "SACBNet": 16, "SITReg": 13, "SMGICNet": 10, "SPNet": 14, "VoxelMorph": 2}
    assert set(NAMES) == set(SMALL) == set(counts)
    for name, count in counts.items():  # of the values that its switches have beside the reference's
        assert sum(len(values) - 1 for values in switches(getattr(models, name)).values()) == count, name


class Farness(torch.nn.Module):
    """A similarity of one's own, as a module."""

    def forward(self, one, other):
        return (one - other).abs().mean()


@pytest.mark.parametrize("name", NAMES)
def test_a_similarity_of_ones_own_is_what_training_minimises_and_no_file_loses_it(name, tmp_path):
    pair, found = synthetic_pair(2, size=(33, 38)), {}
    same = {"weight": 1.0} if name == "VoxelMorph" else {}  # by default it follows from the similarity
    for kind, own in (("none", {}), ("function", {"similarity": losses.ncc}), ("module", {"similarity": Farness()})):
        torch.manual_seed(0)
        model = getattr(models, name)(2, **SMALL[name], **same, **own).eval()
        registration = model(pair.moving, pair.fixed)
        found[kind] = model.objective(registration, pair.moving, pair.fixed)
        if own:
            sum(found[kind].values()).backward()
            assert sum(weight.grad.abs().sum() for weight in model.parameters() if weight.grad is not None) > 0
            with pytest.raises(TypeError, match="function or module as similarity"):
                regkit.save(model, tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir()) and set(found["function"]) == set(found["module"]) >= {"similarity"}
    assert len({round(next(iter(terms.values())).item(), 6) for terms in found.values()}) == 3
    others = set(found["none"]) & set(found["module"]) - {"similarity"}
    assert all(torch.equal(found["none"][term], found["module"][term]) for term in others if term != "gradicon")
    with pytest.raises((TypeError, ValueError), match="similarity"):
        getattr(models, name)(2, similarity="overlap")


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_readmes_flow(name, dim):
    torch.manual_seed(0)
    pair = synthetic_pair(dim, size=(33, 38) if dim == 2 else (33, 34, 38))
    model = getattr(models, name)(dim=dim)
    registration = model(pair.moving, pair.fixed)
    assert isinstance(registration, Registration)
    warped = regkit.warp(pair.moving, registration.displacement)
    terms = model.objective(registration, pair.moving, pair.fixed)
    assert warped.shape == pair.fixed.shape and all(isinstance(term, str) for term in terms)
    assert all(value.shape == () and value.isfinite() for value in terms.values())
    assert torch.equal(registration.levels[-1], registration.displacement)
    sizes = [level.shape[2] for level in registration.levels]
    assert sizes == sorted(sizes)  # coarse to fine


@pytest.mark.parametrize("name", NAMES)
def test_every_switch_is_a_typed_keyword(name):
    constructor = getattr(models, name).__init__
    hints = get_type_hints(constructor)
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    assert parameters[0].name == "dim" and parameters[0].default == 2
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[1:])
    assert {parameter.name for parameter in parameters} == set(hints) - {"return"}
    assert set(getattr(models, name)().configuration) == set(hints) - {"return"}


@pytest.mark.parametrize(
    ("name", "dim", "switches", "count"),
    [
        ("VoxelMorph", 2, {}, 100_530),
        ("VoxelMorph", 3, {}, 301_411),
        *(("GradICON", 2, {"levels": levels}, len(levels) * 4_756_902) for levels in GRADICON_LEVELS),
        *(("GradICON", 3, {"levels": levels}, len(levels) * 17_670_229) for levels in GRADICON_LEVELS),
        ("SPNet", 3, {}, 426_732),
        ("SPNet", 3, {"image_encoding": False}, 377_676),
        ("SPNet", 3, {"levels": 3}, 238_913),
        ("SPNet", 3, {"levels": 2}, 69_670),
        ("SPNet", 2, {}, 137_672),
        ("SPNet", 2, {"image_encoding": False}, 121_304),
        ("SACBNet", 3, {}, 1_105_591),
        ("SACBNet", 2, {}, 454_638),
        ("SACBNet", 3, {"clusters": 1}, 1_105_591),
        ("SACBNet", 3, {"clusters": 11}, 1_105_591),
        ("SACBNet", 3, {"mean": "channels"}, 1_092_535),
        ("SACBNet", 3, {"mean": "both"}, 1_126_327),
        ("SACBNet", 3, {"blocks": "none"}, 451_307),
        ("SACBNet", 3, {"width": 8}, 4_037_055),
        ("SMGICNet", 3, {}, 1_877_715),
        ("SMGICNet", 2, {}, 640_323),
        ("SMGICNet", 3, {"attention": False}, 1_871_280),
        ("SMGICNet", 2, {"attention": False}, 633_888),
        ("SMGICNet", 3, {"levels": 1}, 535_587),
        ("SMGICNet", 2, {"levels": 1}, 186_339),
        ("SMGICNet", 3, {"variant": "released"}, 1_795_280),
    ],
)
def test_parameter_counts(name, dim, switches, count):
    with torch.device("meta" if name == "GradICON" else "cpu"):
        model = getattr(models, name)(dim, **switches)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def needed(name: str, chosen: dict, shape: tuple[int, ...]) -> dict:
    """The narrow network's arguments with these, and what they need beside them."""
    if name == "SITReg" and ("as_released" in chosen or chosen.get("affine") == "halfway"):
        voxels = math.prod(-(-size // 4) for size in shape)
        chosen = chosen | {"affine": "halfway", "affine_voxels": voxels}
    return SMALL[name] | ({"levels": 4} if "variant" in chosen else {}) | chosen


SWITCHES = [  # the reference, each other value of each switch, and what no type lists
    *((name, {}) for name in NAMES),
    *(
        (name, {switch: value})
        for name in NAMES
        for switch, values in switches(getattr(models, name)).items()
        for value in values[1:]
    ),
    *((name, {"in_channels": 2}) for name in NAMES),
    ("SITReg", {"convolutions": (1, 2, 1)}),
    ("SACBNet", {"clusters": {5: 2, 4: 3, 3: 5, 2: 9}}),
    ("SMGICNet", {"variant": "released", "attention": False}),
]
SUBTLE = {"empty", "as_released", "solver", "in_channels"}  # what they change is not seen in every pair


@pytest.mark.parametrize("shape", [(37, 50), (19, 17, 33)], ids=["2D", "3D"])
@pytest.mark.parametrize(("name", "chosen"), SWITCHES, ids=str)
def test_every_switch_registers_and_trains_every_parameter(name, chosen, shape):
    def build(arguments):
        return strong(getattr(models, name)(len(shape), **arguments), 1.0).double()

    shape = tuple(max(size, 33) for size in shape) if chosen.get("levels") == 5 else shape  # 2^5 + 1
    arguments = needed(name, chosen, shape)
    model = build(arguments)
    images = small_pair(shape, channels=arguments.get("in_channels", 1), dtype=torch.float64)
    torch.manual_seed(0)  # of the points that GradICON draws
    registration = model(*images)
    terms = model.objective(registration, *images)
    fields = (registration.displacement, registration.inverse, registration.velocity)
    assert all(field is None or field.shape == (1, len(shape), *shape) for field in fields)
    assert torch.equal(registration.levels[-1], registration.displacement)
    if registration.velocity is not None and not {"average", "geometry", "variant"} & chosen.keys():
        assert torch.equal(registration.displacement, exponential(registration.velocity))
        assert torch.equal(registration.inverse, exponential(-registration.velocity))
    assert all(term.shape == () and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    dead = {key for key, value in model.named_parameters() if value.grad is None or value.grad.abs().max() < 1e-9}
    configuration = model.configuration
    if name == "SACBNet":  # the normalisation takes a bias out again
        dead = {key for key in dead if not key.endswith("conv.bias")}
    elif name == "SPNet" and all(configuration[key] for key in ("symmetric", "bidirectional", "average")):
        dead ^= {f"estimators.{level}.head.bias" for level in range(configuration["levels"])}  # the average cancels it
    assert dead == set()
    remade = getattr(models, name)(**configuration).double().eval()
    remade.load_state_dict(model.state_dict())
    assert torch.equal(remade(*images).displacement, registration.displacement)
    if arguments != SMALL[name] and not SUBTLE & chosen.keys():
        torch.manual_seed(0)
        reference = build(SMALL[name])
        found = reference(*images)
        same = torch.equal(found.displacement, registration.displacement)
        assert not same or reference.objective(found, *images) != terms


EXCHANGED = [  # what is symmetric by construction, and how closely
    ("GradICON", {}, 0),
    *(("SITReg", {switch: value}, 1e-6) for switch, value in (("update", "velocity"), ("affine", "halfway"))),
    *(("SITReg", switches, 1e-6) for switches in ({}, {"limit": "gamma", "spline": "prefiltered"})),
    *(("SPNet", {"geometry": geometry}, 1e-6) for geometry in ("aligned", "released")),
]


@pytest.mark.parametrize("shape", [(37, 50), (33, 21), (19, 15, 33)], ids=str)
@pytest.mark.parametrize(("name", "chosen", "tolerance"), EXCHANGED, ids=str)
def test_exchanging_the_images_exchanges_the_maps(name, chosen, tolerance, shape):
    model = strong(getattr(models, name)(len(shape), **needed(name, chosen, shape)), 2.0 if name == "SPNet" else 1.0)
    pair = small_pair(shape, 0, 1)
    terms = []
    with torch.no_grad():
        there, back = model(*pair), model(*reversed(pair))
        for registration, images in ((there, pair), (back, reversed(pair))):
            torch.manual_seed(0)  # of the points that GradICON draws
            terms.append(model.objective(registration, *images))
    assert there.displacement.abs().max() > 0.3
    same = [(there.displacement, back.inverse), (there.inverse, back.displacement)]
    if name == "SITReg":
        same += zip(there.halfway_moving, back.halfway_fixed, strict=True)
    elif name == "SPNet":
        same += [(there.velocity, -back.velocity)]
    for one, other in same:
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
    torch.testing.assert_close(*terms)


SIZES = [(17, 3), (1, 40), (64, 31), (5, 1), (1, 17), (3, 6), (7, 1, 4), (2, 3, 5), (1, 20, 33), (18, 5, 7)]
ANY_SIZE = [(name, shape) for name in NAMES for shape in SIZES if name != "SACBNet" or max(shape) > 16]  # told below


@pytest.mark.parametrize(("name", "shape"), ANY_SIZE, ids=str)
def test_any_size_is_registered(name, shape):
    model = getattr(models, name)(len(shape), **SMALL[name]).double()
    registration = model(*torch.rand(2, 1, 1, *shape, dtype=torch.float64))
    assert registration.displacement.shape == (1, len(shape), *shape)
    assert registration.displacement.dtype == torch.float64 and registration.displacement.isfinite().all()


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(
    ("name", "switches"), [*((name, {}) for name in NAMES), ("SMGICNet", {"variant": "released", "levels": 4})]
)
def test_the_items_of_a_batch_do_not_meet(name, switches, dim):
    model = strong(getattr(models, name)(dim, **SMALL[name] | switches), 1.0).double()
    shape = {2: (50, 67), 3: (35, 33, 20)}[dim]  # smaller maps have equal means in pairs, which rounding decides
    moving, fixed = small_pair(shape, 0, 1, 2, dtype=torch.float64)
    with torch.no_grad():
        together = model(moving, fixed)
        alone = [model(moving[[item]], fixed[[item]]) for item in range(3)]
        one = model(moving[:1], fixed)  # one moving image for all
        first = model(moving[:1], fixed[1:2])
    assert together.displacement.abs().max() > 0.02
    for field in ("displacement", "inverse", "velocity"):
        if getattr(together, field) is not None:
            apart = torch.cat([getattr(registration, field) for registration in alone])
            torch.testing.assert_close(getattr(together, field), apart, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.displacement[[1]], first.displacement, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_bad_images_are_named(name):
    model, image = getattr(models, name)(2, **SMALL[name]), torch.rand(1, 1, 12, 15)
    with pytest.raises(ValueError, match=r"dim=2 takes images with 2 spatial axes.*dim=3"):
        model(image[..., None], image[..., None])
    with pytest.raises(ValueError, match=r"share one grid.*\(12, 15\) and \(12, 14\)"):
        model(image, image[..., :14])
    with pytest.raises(ValueError, match="moving must be finite, received 180 NaN"):
        model(image * torch.nan, image)
    with pytest.raises(ValueError, match="fixed must be finite, received 1 NaN"):
        model(image, image.index_put((*torch.zeros(4, 1, dtype=torch.long),), torch.tensor(torch.nan)))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("VoxelMorph", {"encoder_channels": (4, 4), "decoder_channels": (4, 4)}, "at least one more"),
        ("GradICON", {"levels": (2, 1)}, "end at 0"),
        ("GradICON", {"levels": (0, 1, 0)}, "never rise"),
        ("GradICON", {"encoder_channels": (8, 4), "decoder_channels": (4, 4)}, "must not fall"),
        ("GradICON", {"encoder_channels": (4, 8), "decoder_channels": (4, 8, 8)}, "must be as many"),
        ("GradICON", {"encoder_channels": (4, 8), "decoder_channels": (4, 16)}, "more than its level receives"),
        ("SITReg", {"channels": (4, 4, 4), "update_channels": (4, 4)}, "give as many"),
        ("SITReg", {"channels": (4, 6), "update_channels": (4, 6), "affine": "halfway"}, "affine_voxels=35"),
        ("SACBNet", {"clusters": {5: 3}}, "one for each of the levels"),
        ("SACBNet", {"clusters": 0}, "clusters must be at least 1"),
        ("SACBNet", {}, "more than 16 voxels"),
        ("SMGICNet", {"channels": 5}, "even number"),
        ("SMGICNet", {"variant": "released", "levels": 3}, "4 levels and both directions"),
        ("SMGICNet", {"variant": "released", "symmetric": False}, "4 levels and both directions"),
    ],
)
def test_what_a_network_cannot_be_or_register_is_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(models, name)(2, **arguments)(*torch.rand(2, 1, 1, 13, 9))


@pytest.mark.parametrize(
    ("name", "chosen"), [*((name, {}) for name in NAMES), ("SACBNet", {"clusters": {5: 2, 4: 3, 3: 5, 2: 9}})], ids=str
)
def test_a_file_rebuilds_the_model(name, chosen, tmp_path):
    torch.manual_seed(0)
    model = getattr(models, name)(2, **SMALL[name] | chosen).eval()
    regkit.save(model, tmp_path / "model.safetensors", metrics={"dice": 0.5})
    again = regkit.load(tmp_path / "model.safetensors")

    pair = synthetic_pair(2, size=(33, 38))
    with torch.no_grad():
        assert torch.equal(again(pair.moving, pair.fixed).displacement, model(pair.moving, pair.fixed).displacement)


def single_pairs(pairs: regkit.Pair) -> list[regkit.Pair]:
    images = zip(pairs.moving.split(1), pairs.fixed.split(1), strict=True)
    return [regkit.Pair(moving, fixed) for moving, fixed in images]


@pytest.mark.parametrize(
    ("dim", "pairs", "recipe"),
    [
        (2, ShapePairs(16, size=32)[:], Recipe(steps=200, batch=2, learning_rate=3e-3)),
        (3, ShapePairs(4, dim=3, size=24)[1], Recipe(steps=40, learning_rate=3e-3)),
    ],
    ids=["2D", "3D"],
)
@pytest.mark.parametrize(
    ("name", "switches"), [*((name, {}) for name in NAMES), ("VoxelMorph", {"output": "displacement"})]
)
def test_a_short_training_lowers_the_loss_and_lays_shapes_on_each_other(name, switches, dim, pairs, recipe):
    torch.manual_seed(0)
    model = getattr(models, name)(dim, **SMALL[name] | switches)
    before = objective(model, pairs)
    train(model, single_pairs(pairs), recipe, progress=False)
    assert objective(model, pairs) < before - FALLS * abs(before)
    with torch.no_grad():
        displacement = model(pairs.moving, pairs.fixed).displacement
    difference = losses.mse(regkit.warp(pairs.moving, displacement), pairs.fixed)
    most = {2: 0.8 if name == "VoxelMorph" else 0.4, 3: 0.25}[dim]
    assert difference < most * losses.mse(pairs.moving, pairs.fixed)
    assert metrics.folds(displacement).percent < (20 if "output" in switches else 1)  # nothing keeps that from folding


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("network", [models.SPNet, models.SMGICNet], ids=lambda network: network.__name__)
def test_the_least_image_that_can_be_trained_on(network, levels):
    assert "2^levels + 1 voxels" in network.__doc__ and "2^levels + 1 voxels" in network.objective.__doc__
    model, least = network(2, levels=levels), 2**levels + 1
    moving, fixed = small_pair((least, 31))
    assert all(term.isfinite() for term in model.objective(model(moving, fixed), moving, fixed).values())
    moving, fixed = moving[:, :, 1:], fixed[:, :, 1:]
    found = model(moving, fixed)  # is registered nevertheless
    with pytest.raises(ValueError, match=r"3 voxels along every axis.*fewer levels"):
        model.objective(found, moving, fixed)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_on_the_cpu_gives_the_gradient_also_on_grids_smaller_than_a_kernel(name, dim):
    arguments = SMALL[name] | ({"channels": (4, 8, 8, 8, 8), "update_channels": (8,) * 5} if name == "SITReg" else {})
    arguments |= {"encoder_channels": (8,) * 5, "decoder_channels": (8,) * 5} if name == "GradICON" else {}
    pair = synthetic_pair(dim, size=(33, 21) if dim == 2 else (33, 21, 18))
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = getattr(models, name)(dim, **arguments)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            registration = model(pair.moving, pair.fixed)
            terms = model.objective(registration, pair.moving, pair.fixed)
        assert {tensor.dtype for tensor in (registration.displacement, *terms.values())} == {torch.float32}
        torch.manual_seed(1)
        sum(model.objective(registration, pair.moving, pair.fixed).values()).backward()
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]))
    exact, rounded = gradients
    assert 0.5 < float(rounded.norm() / exact.norm()) < 2
    assert float(torch.cosine_similarity(exact, rounded, dim=0)) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_images_have_the_channels_and_the_precision_of_the_model(name):
    model, image = getattr(models, name)(**SMALL[name]), torch.rand(1, 1, 33, 38)
    two = image.expand(-1, 2, -1, -1)
    with pytest.raises(ValueError, match=r"in_channels=1 takes .*received .*\(1, 2, 33, 38\); .* in_channels=2"):
        model(two, two)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), pytest.raises(TypeError) as caught:
            model(image.double(), image.double())
        assert "weights, torch.float32, received torch.float64; convert them with image.to(" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_computes_together_is_not_refused(name):
    model, image = getattr(models, name)(in_channels=2, **SMALL[name]).eval(), torch.rand(2, 2, 33, 38)
    with torch.no_grad():
        assert model(image[:1], image.half()).displacement.dtype == torch.float32  # a batch and a precision that widen
        with torch.autocast("cpu", torch.bfloat16):
            assert model(image, image.bfloat16()).displacement.isfinite().all()
        assert model.double()(image, image.double()).displacement.dtype == torch.float64


@pytest.mark.parametrize("name", ["VoxelMorph", "SITReg", "SACBNet", "SMGICNet"])
def test_models_in_half_precision_take_images_in_half_precision(name):
    model, image = getattr(models, name)(**SMALL[name]).eval().bfloat16(), torch.rand(1, 1, 33, 38).bfloat16()
    with torch.no_grad():
        assert model(image, image.flip(2)).displacement.isfinite().all()
