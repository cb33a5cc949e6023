"""SITReg: its published program's numbers, and the laws that its construction promises."""

import json
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.networks import recipe_weights, small_pair
from helpers.parity import Entries

from regkit._core.inversion import _ImplicitInverse, _mixing_weights, fixed_point
from regkit._core.sampler import read
from regkit.checkpoints import load_official
from regkit.fields import compose, identity, invert, jacobian_determinant, reads_inside, warp
from regkit.models import SITReg
from regkit.models.sitreg import control_bound, spline_matrix, upsample_controls, worst_pattern

FIXTURE = Entries("sitreg")
CONFIG = json.loads(str(FIXTURE["config"]))
PREFIXES = [name for name in CONFIG if name.endswith("_")]
FIELDS = 5e-4  # voxels
SHAPES = {2: (19, 26), 3: (9, 14, 11)}
TINY = {"channels": (4, 6, 6), "update_channels": (4, 8, 8)}


def images(dim, batch=1, seed=0, shape=None):
    return small_pair(shape or SHAPES[dim], *range(seed, seed + batch))


def tiny(dim, seed=0, gain=1.0, **options):
    """A small model with random weights; `gain` multiplies those of the update networks' last layer."""
    torch.manual_seed(seed)
    model = SITReg(dim, **TINY | options)
    for update in model.updates:
        update.head.weight.data *= gain
    return model


def official(prefix, **changes):
    """The fixture's network through the authors' names, and its images."""
    config = CONFIG[prefix]
    made = config["model"]
    updates = tuple(width for width in made["n_transformation_features_per_resolution"] if width)
    options = {"channels": tuple(made["n_features_per_resolution"]), "update_channels": updates}
    if made["predict_affine"]:
        options |= {"affine": "halfway", "affine_voxels": 8, "as_released": prefix.startswith("release")}
    if prefix.startswith("paper"):
        options |= {"limit": "gamma", "spline": "prefiltered", "normalization": "after"}
        options |= {"gamma": made["max_displacements"][0]}
    weights = recipe_weights(json.loads(str(FIXTURE[prefix + "parameters"])), config["gain"])
    model = load_official("sitreg", weights, dim=len(config["shape"]), **options | changes)
    return model, *small_pair(config["shape"], config["image_seed"])


def test_parameters_are_the_papers():
    assert str(FIXTURE["parameters"]) == str(FIXTURE["paper_parameters"])  # the one list, under two names


def difference_from(name, tensor):
    """Largest difference from a fixture's entry, which may hold every second voxel only."""
    wanted, received = FIXTURE[name], tensor[0].detach().numpy()
    if received.shape != wanted.shape:
        received = received[(slice(None), *[slice(None, None, 2)] * (received.ndim - 1))]
    assert received.shape == wanted.shape
    return np.abs(received - wanted).max()


def check_fields(prefix, found, least=frozenset()):
    """Those of the fields that the fixture has, `least` among them."""
    present = {name: tensor for name, tensor in found.items() if prefix + name in FIXTURE}
    assert least <= set(present)
    for name, tensor in present.items():
        assert difference_from(prefix + name, tensor) < FIELDS, name


# ---------------------------------------------------------------------------------------------- parity
@pytest.mark.parametrize("prefix", PREFIXES)
def test_maps_objective_and_gradients_agree_with_the_authors_program(prefix):
    model, moving, fixed = official(prefix)
    registration = model(moving, fixed)
    found = {"forward": registration.displacement, "inverse": registration.inverse}
    found |= {"warped_image1": warp(moving, registration.displacement)}
    found |= {f"forward_level{k}": level for k, level in enumerate(reversed(registration.levels))}
    found |= {"halfway_left": registration.halfway_moving[-1], "halfway_right": registration.halfway_fixed[-1]}
    dense = zip(("forward", "inverse"), registration.deformable, strict=True)
    found |= {f"{side}_level0_dense_only": field for side, field in dense}
    found |= {"warped_image2": warp(fixed, registration.inverse)}
    check_fields(prefix, found, {"forward", "inverse", "warped_image1"})
    terms = model.objective(registration, moving, fixed)
    check_objective(prefix, terms, 1e-3 if "2d" in prefix else 1e-4)  # 2D: their float32 moves samples by 1e-4 voxel
    sum(terms.values()).backward()
    check_gradient_norms(prefix + "gradient_norms", prefix, model)


def check_objective(prefix, terms, tolerance):
    pairs = {"lncc": "ncc", "diffusion": "grad"}
    for name, term in pairs.items():
        wanted = sum(float(FIXTURE[f"{prefix}loss_{term}_{side}"]) for side in ("forward", "inverse")) / 2
        assert float(terms[name].detach()) == pytest.approx(wanted, abs=tolerance)
    total = float(sum(terms.values()).detach())
    assert total == pytest.approx(float(FIXTURE[prefix + "loss_total"]), abs=tolerance)


def check_gradient_norms(name, prefix, model):
    """The norm of each tensor's gradient, in the authors' order, which the importer tells: it is sent numbers."""
    parameters = json.loads(str(FIXTURE[prefix + "parameters"]))
    numbered = {ours: torch.full(shape, float(i)) for i, (ours, shape) in enumerate(parameters)}
    order = load_official("sitreg", numbered, **model.configuration).state_dict()
    wanted = FIXTURE[name]
    seen = set()
    for ours, parameter in model.named_parameters():
        number = int(order[ours].flatten()[0])
        seen.add(number)
        assert float(parameter.grad.norm()) == pytest.approx(wanted[number], abs=5e-3 * wanted.max()), ours
    unused = set(range(len(wanted))) - seen  # the released program's first affine layer gets no gradient
    assert all(wanted[number] == 0 for number in unused)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_stage_agrees_with_the_authors_program(prefix):
    model, moving, fixed = official(prefix)
    with torch.no_grad():
        stages = list(model.stages(moving, fixed))
        features = model.features(moving)
    found = {"halfway_left_inverse": stages[-1].halfway_inverse[:1]}
    found |= {"halfway_right_inverse": stages[-1].halfway_inverse[1:]}
    for level, stage in enumerate(reversed(stages)):
        found |= {f"control_12_level{level}": stage.control[:1], f"control_21_level{level}": stage.control[1:]}
        found |= {f"atomic_12_level{level}": stage.step[:1]}
        found |= {f"atomic_inverse_12_level{level}": invert(stage.step[:1], method="anderson")}
        found |= {f"features_image1_first2_level{level}": features[level][:, :2]}
    check_fields(prefix, found)
    if stages[-1].affine is not None:  # theirs: homogeneous, lengths in half the longest side
        scale = np.array([1, 1, 1, max(moving.shape[2:]) / 2])
        for side, name in enumerate(("affine_forward", "affine_inverse")):
            wanted = FIXTURE[prefix + name][:3] * scale
            assert np.abs(stages[-1].affine[side].numpy() - wanted).max() < 1e-3
        homogeneous = [torch.cat([half, torch.tensor([[0.0, 0, 0, 1]])]) for half in stages[-1].affine]
        assert torch.allclose(homogeneous[0] @ homogeneous[1], torch.eye(4), atol=1e-4)


@pytest.mark.parametrize("prefix", ["paper_", "paper_2d_"])
def test_tight_solvers_agree_with_the_authors_program(prefix):
    model, moving, fixed = official(prefix, tolerance=1e-5)
    with warnings.catch_warnings():  # near 1e-5 voxel float32 may stop short of the tolerance
        warnings.simplefilter("ignore", RuntimeWarning)
        registration = model(moving, fixed)
    assert difference_from(prefix + "tight_forward", registration.displacement) < FIELDS
    terms = model.objective(registration, moving, fixed)
    check_objective(prefix + "tight_", terms, 1e-3 if "2d" in prefix else 1e-4)
    sum(terms.values()).backward()
    check_gradient_norms(prefix + "tight_gradient_norms", prefix, model)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_measured_properties_agree_with_the_authors_program(prefix):
    model, moving, fixed = official(prefix)
    with torch.no_grad():
        registration = model(moving, fixed)
        same = model(moving, moving).displacement.abs().max()
        swapped = model(fixed, moving)
    assert float(same) < 2 * float(FIXTURE[prefix + "identical_images_max_abs"])
    swap_error = (registration.displacement - swapped.inverse).abs().max()
    assert float(swap_error) <= float(FIXTURE[prefix + "swap_max_abs"]) + 1e-5  # ours has rounding
    if prefix + "inverse_consistency_rms_max" in FIXTURE:
        error = compose(registration.displacement, registration.inverse)
        wanted = FIXTURE[prefix + "inverse_consistency_rms_max"]
        found = [float(error.square().mean().sqrt()), float(error.abs().max())]
        assert found == pytest.approx(wanted.tolist(), rel=0.02)
    if prefix + "mask_image1_sum" in FIXTURE:
        inside = int(reads_inside(registration.displacement).sum())
        assert abs(inside - FIXTURE[prefix + "mask_image1_sum"]) <= 0.002 * moving.numel()  # ties at the border
    if prefix + "control_point_bounds" in FIXTURE:
        limits = [update.largest for update in model.updates]
        assert np.allclose(limits, FIXTURE[prefix + "control_point_bounds"], atol=1e-7)


def as_theirs():
    """Their acceleration: 1e-4 is added to the products of residuals whatever the tolerance; ours adds its square."""
    return mock.patch("regkit._core.inversion._mixing_weights", lambda gram, _: _mixing_weights(gram, 1e-2))


def evaluations(displacement, tolerance):
    """How often an inversion reads the field."""
    with mock.patch("regkit._core.inversion.read", wraps=read) as counted:
        invert(displacement, tolerance=tolerance, method="anderson")
    return counted.call_count


def backward_evaluations(displacement, inverse, gradient, threshold):
    """How often their backward pass, w <- Jᵀ w + g from 0 until |step| < threshold |w|, uses J; ours solves."""
    pairs = []
    with torch.enable_grad():
        position = inverse.detach().requires_grad_()
        value = -warp(displacement.detach(), position)

    def pull(cotangent):
        pairs.append((cotangent, torch.autograd.grad(value, position, cotangent, retain_graph=True)[0] + gradient))
        return pairs[-1][1]

    with as_theirs():
        fixed_point(pull, torch.zeros_like(gradient), 1e-30, 30, 4)
    steps = [float((y - x).norm() / (1e-5 + y.norm())) for x, y in pairs]
    return next(count for count, step in enumerate(steps, 1) if step < threshold and count > 1)


@pytest.mark.parametrize(
    ("prefix", "solver"), [*((prefix, "") for prefix in PREFIXES), ("paper_", "tight_"), ("paper_2d_", "tight_")]
)
def test_inversions_take_the_authors_iterations(prefix, solver):
    tolerance, threshold = {"": (1e-2, 1e-2), "tight_": (1e-5, 1e-6)}[solver]
    model, moving, fixed = official(prefix, tolerance=tolerance)
    counts = []

    def counting(ctx, gradient):
        for item in reversed(list(zip(*ctx.saved_tensors, gradient, strict=True))):  # theirs: i21 before i12
            counts.append(backward_evaluations(*(x[None] for x in item), threshold))
        return backward(ctx, gradient)

    backward = _ImplicitInverse.backward
    with as_theirs(), mock.patch.object(_ImplicitInverse, "backward", counting), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        steps = [stage.step for stage in model.stages(moving, fixed)]
        found = [[evaluations(side, tolerance) for side in step.split(1)] for step in steps]
        sum(model.objective(model(moving, fixed), moving, fixed).values()).backward()
    assert found == FIXTURE[prefix + solver + "iterations"].tolist()
    assert FIXTURE[prefix + "levels_coarse_to_fine"].tolist() == list(reversed(range(len(steps))))
    assert counts == FIXTURE[prefix + solver + "backward_iterations"].tolist()


@pytest.mark.parametrize(("name", "tolerance"), [("default", 1e-2), ("tight", 1e-5)])
def test_inversion_agrees_with_the_authors_layer(name, tolerance):
    displacement = torch.tensor(FIXTURE["inversion_input"])[None].requires_grad_()
    inverse = invert(displacement, tolerance=tolerance, method="anderson")
    (inverse * torch.tensor(FIXTURE["inversion_cotangent"])).sum().backward()
    assert difference_from(f"inversion_{name}_inverse", inverse) < FIELDS
    with as_theirs():
        forward = evaluations(displacement, tolerance)
    cotangent, threshold = torch.tensor(FIXTURE["inversion_cotangent"])[None], {"default": 1e-2, "tight": 1e-6}[name]
    backward = backward_evaluations(displacement, inverse, cotangent, threshold)
    assert [forward, backward] == FIXTURE[f"inversion_{name}_iterations"].tolist()
    largest = np.abs(FIXTURE[f"inversion_{name}_gradient"]).max()
    allowed = 2e-2 if name == "default" else 1e-3  # theirs solves the backward equation to 1 % by default; ours exactly
    assert difference_from(f"inversion_{name}_gradient", displacement.grad) < allowed * largest


# ---------------------------------------------------------------------------------------------- splines and bounds
@pytest.mark.parametrize("spline", ["plain", "prefiltered"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_splines_agree_with_the_authors_program(spline, factor):
    control = torch.tensor(FIXTURE["spline_input"])[None]
    shape = [factor * size for size in control.shape[2:]]
    field = upsample_controls(control, shape, factor, spline=spline) / factor
    assert difference_from(f"spline_{spline}_factor{factor}", field) < 2e-6


@pytest.mark.parametrize("spline", ["plain", "prefiltered"])
@pytest.mark.parametrize("size", [1, 2, 7, 12, 29])
def test_splines_reproduce_constants_and_control_values(spline, size):
    for factor in (1, 2, 3, 8):
        assert np.allclose(spline_matrix(size, factor, spline).sum(1), 1)
    assert np.allclose(spline_matrix(size, 1, "prefiltered"), np.eye(size))
    nodes = spline_matrix(21, 3, "prefiltered")[1::3]  # factor 3: control value i sits on sample 3 i + 1
    assert np.allclose(nodes, np.eye(7))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_bounds_are_the_published_ones(dim):
    bounds = [control_bound(int(factor), dim) for factor in FIXTURE["bounds_factors"]]
    assert np.allclose(bounds, FIXTURE[f"bounds_{dim}d"], rtol=1e-12)


def test_bounds_approach_choi_and_lee():
    assert control_bound(64, 2) == pytest.approx(0.4879642422739664, abs=1e-12)
    assert control_bound(32, 3) == pytest.approx(0.40253633025170044, abs=1e-12)


def smallest_cell_determinant(displacement):
    """min |J| over all corners of all sampling cells: one-sided differences towards each side of each axis."""
    dim, shape = displacement.shape[1], displacement.shape[2:]
    steps = [displacement.diff(dim=axis + 2) for axis in range(dim)]
    smallest = np.inf
    for corner in np.ndindex(*[2] * dim):  # the corner's own voxel is at `corner` of each cell
        cells = [slice(at, size - 1 + at) for at, size in zip(corner, shape, strict=True)]
        columns = [step[(..., *cells[:axis], slice(None), *cells[axis + 1 :])] for axis, step in enumerate(steps)]
        jacobian = torch.stack(columns, 2) + torch.eye(dim).view(1, dim, dim, *[1] * dim)
        smallest = min(smallest, float(torch.linalg.det(jacobian.flatten(3).movedim(3, 1)).min()))
    return smallest


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("share", [0.5, 0.99, 1.01])
def test_the_bound_is_tight(dim, factor, share):
    control = share * control_bound(factor, dim) * worst_pattern(factor, dim).float()
    step = upsample_controls(control, [size * factor for size in control.shape[2:]], factor)
    assert smallest_cell_determinant(step) == pytest.approx(1 - share, abs=1e-3)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_no_pattern_within_the_bound_folds_a_step(dim, factor):
    generator = torch.Generator().manual_seed(factor)
    signs = torch.randint(0, 2, (50, dim, *(5, 4, 6)[:dim]), generator=generator) * 2.0 - 1
    shape = [size * factor - (factor > 1) for size in signs.shape[2:]]  # cropped, the ends included
    step = upsample_controls(0.99 * control_bound(factor, dim) * signs, shape, factor)
    assert 0 < smallest_cell_determinant(step) < 0.6


# ---------------------------------------------------------------------------------------------- parameters
@pytest.mark.parametrize(
    ("count", "model"),
    [
        (1_234_615, lambda: SITReg.paper()),
        (1_234_615, lambda: SITReg(3)),
        (1_196_820, lambda: SITReg.paper(dataset="oasis_alternative")),
        (1_196_820, lambda: SITReg.released()),
        (1_847_745, lambda: SITReg.paper(dataset="lpba40", update="velocity")),
        (2_464_872, lambda: SITReg.paper(dataset="oasis_raw")),
        (928_050, lambda: SITReg(3, channels=(8, *[36] * 3), update_channels=(16, *[62] * 3))),
        (1_541_180, lambda: SITReg(3, channels=(8, *[36] * 5), update_channels=(16, *[62] * 5))),
        # their "affine" files of LPBA40 predict no affine; with the 64,428 numbers of one:
        (1_758_227 + 64_428, lambda: lpba40_affine(5)),
        (2_017_956 + 64_428, lambda: lpba40_affine(6)),
        (15_076_110, lambda: challenge()),
        (421_322, lambda: SITReg(2)),
    ],
)
def test_parameter_counts(count, model):
    assert sum(parameter.numel() for parameter in model().parameters()) == count


def lpba40_affine(levels):
    channels = (8, *[36] * 5, 48, 64, 88)
    counts = (2,) * levels + (1,) * (9 - levels)
    widths = (16, *[62] * (levels - 1))
    return SITReg(3, channels=channels, update_channels=widths, convolutions=counts, affine="halfway", limit="gamma")


def challenge():
    widths = {"channels": (12, 32, 64, 128, 128, 128), "update_channels": (12, 64, 128, 256, 256, 256)}
    return SITReg(3, **widths, groups=4, update_normalization="before")


# ---------------------------------------------------------------------------------------------- laws
AFFINE_VOXELS = {2: 5 * 7, 3: 3 * 4 * 3}  # of TINY's coarsest level on SHAPES


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("options", [{"update": "one_sided"}, {"meeting": "fixed"}])
def test_the_ablations_give_symmetry_up(dim, options):
    model = tiny(dim, seed=1, gain=3, **options)
    moving, fixed = images(dim)
    with torch.no_grad():
        there, back = model(moving, fixed), model(fixed, moving)
        error = compose(there.displacement, there.inverse)
    assert float((there.displacement - back.inverse).abs().max()) > 1e-3  # where symmetry holds to 1e-6
    assert float(error.square().mean()) < 1e-3  # still each other's inverse


@pytest.mark.parametrize("dim", [2, 3])
def test_displacement_and_inverse_undo_each_other(dim):
    model = SITReg(dim)
    torch.manual_seed(0)
    moving, fixed = images(dim, shape={2: (40, 51), 3: (24, 31, 20)}[dim])
    with torch.no_grad():
        registration = model(moving, fixed)
        error = compose(registration.displacement, registration.inverse)
    assert float(error.square().mean()) < 1e-3


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("solver", ["anderson", "plain", "newton"])
def test_equal_images_give_the_identity_as_far_as_inversions_are_solved(dim, solver):
    moving, _ = images(dim)
    worst = {}
    for tolerance in (1e-2, 1e-4):
        with torch.no_grad():
            registration = tiny(dim, gain=10, tolerance=tolerance, solver=solver)(moving, moving)
        worst[tolerance] = float(registration.displacement.abs().max())
    # each of the 3 levels acts twice, and one look-up of a nearly saturated step can double what an inversion left
    assert worst[1e-2] < 12e-2
    assert worst[1e-4] < 12e-4


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_weights_fold_a_step_and_the_reach_is_as_stated(dim, seed):
    model = tiny(dim, seed=seed, gain=1e4)  # saturated: control values are ± the limit
    moving, fixed = (image + torch.rand(image.shape) for image in images(dim, seed=seed))
    with torch.no_grad():
        stages = list(model.stages(moving, fixed))
    reach = 0.0
    for level, stage in zip(reversed(range(3)), stages, strict=True):
        limit = 0.99 * control_bound(2**level, dim)
        assert float(stage.control.abs().max()) == pytest.approx(limit, abs=1e-6)
        assert smallest_cell_determinant(stage.step) > 0.009
        reach += 4 * limit * 2**level
    assert 1 < float(stages[-1].displacement(0).abs().max()) < reach


@pytest.mark.parametrize("dim", [2, 3])
def test_the_whole_map_of_a_usual_network_does_not_fold(dim):
    moving, fixed = images(dim, batch=2)
    with torch.no_grad():
        registration = tiny(dim, seed=3, gain=3)(moving, fixed)
    assert float(registration.displacement.abs().max()) > 0.1
    assert float(jacobian_determinant(registration.displacement).min()) > 0


@pytest.mark.parametrize("dim", [2, 3])
def test_autocast_keeps_the_maps_in_float32(dim):
    model, (moving, fixed) = tiny(dim, gain=3, affine="halfway", affine_voxels=AFFINE_VOXELS[dim]), images(dim)
    with torch.no_grad():
        exact = model(moving, fixed)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(moving, fixed)
            terms = model.objective(rough, moving, fixed)
    assert rough.displacement.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in terms.values())
    # bfloat16 networks: 8 bits; positions and inversions must add nothing to that
    scale = exact.displacement.abs().max()
    assert float((rough.displacement - exact.displacement).abs().max()) < 0.1 * scale + 1e-2
    assert float(compose(rough.deformable[0], rough.deformable[1]).square().mean()) < 1e-3


@pytest.mark.parametrize("dim", [2, 3])
def test_the_affine_stage_is_exact_far_outside_the_grid(dim):
    """Without updates f12 = A ∘ A, an affine map everywhere, also where A leaves the image."""
    voxels = AFFINE_VOXELS[dim]
    model = tiny(dim, gain=0, affine="halfway", affine_voxels=voxels)
    for update in model.updates:
        update.head.bias.data.zero_()
    model.affine.layers.head.weight.data *= 4
    moving, fixed = images(dim)
    with torch.no_grad():
        field = model(moving, fixed).displacement
    assert float(field.abs().max()) > 1
    grid = identity(SHAPES[dim]).flatten(2)[0].T
    design = torch.cat([grid, torch.ones(len(grid), 1)], 1).double()
    target = field.flatten(2)[0].T.double()
    left = target - design @ torch.linalg.lstsq(design, target).solution
    assert float(left.abs().max()) < 1e-4


# ---------------------------------------------------------------------------------------------- switches
@pytest.mark.parametrize("dim", [2, 3])
def test_weight_and_window_act_on_their_terms(dim):
    moving, fixed = images(dim)
    registration = tiny(dim)(moving, fixed)
    usual, other = (tiny(dim, **o).objective(registration, moving, fixed) for o in ({}, {"weight": 2, "window": 5}))
    assert float(other["diffusion"].detach()) == pytest.approx(2 * float(usual["diffusion"].detach()))
    assert float(other["lncc"].detach()) != pytest.approx(float(usual["lncc"].detach()), abs=1e-3)


# ---------------------------------------------------------------------------------------------- published weights
@pytest.mark.parametrize(
    "option", [{"limit": "none"}, {"spline": "prefiltered"}, {"normalization": "after"}, {"as_released": False}]
)
def test_every_option_that_the_release_does_not_have_is_refused(option):
    with pytest.raises(ValueError, match="these weights were trained with"):
        official("release_affine_", **option)


def test_weights_are_refused_where_the_model_would_compute_something_else():
    parameters = json.loads(str(FIXTURE["paper_2d_parameters"]))
    weights = {name: torch.zeros(shape) for name, shape in parameters}
    with pytest.raises(ValueError, match="normalization"):
        load_official("sitreg", weights, dim=2)
    kernel = "_not_none_dense_extration_networks.1._upsampler._upsampling_kernels.0"
    with pytest.raises(ValueError, match="prefiltered"):
        load_official("sitreg", weights | {kernel: torch.zeros(8)}, dim=2, normalization="after")
    paper = SITReg.paper(2).configuration
    load_official("sitreg", weights | {kernel: torch.zeros(8)}, **paper)
    with pytest.raises(ValueError):
        load_official("sitreg", weights | {"another.weight": torch.zeros(1)}, **paper)
    weights.popitem()
    with pytest.raises(ValueError):
        load_official("sitreg", weights, **paper)
