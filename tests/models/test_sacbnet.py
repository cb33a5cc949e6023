"""SACB-Net: the authors' numbers, the readable forms that the fast ones must equal, and what holds by construction."""

import functools
import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.networks import recipe_weights, small_pair
from helpers.parity import Entries
from torch import Tensor

from regkit import checkpoints, losses
from regkit.fields import jacobian_determinant, upsample, warp
from regkit.models import sacbnet
from regkit.models.sacbnet import LEVELS, SACB, Clusters, SACBNet, SACBRegistration

FIXTURE = Entries("sacbnet")
SHAPES = {2: (37, 50), 3: (19, 15, 33)}
SETTINGS = {  # of the fixture's ablations
    "channel": {"mean": "channels", "clusters": 5},
    "mix": {"mean": "both", "clusters": 5},
    "n3": {"clusters": 3},
    "softsign": {"clusters": 3, "last": "softsign"},
}
BLOCKS = {"spatial": "space", "channel": "channels", "mix": "both"}


# ---------------------------------------------------------------------------------------------- helpers
def stored(name: str) -> Tensor:
    value = torch.from_numpy(FIXTURE[name])
    return value.long() if value.dtype == torch.uint8 else value


def official(parameters: str, gain: float = 0.5) -> dict[str, Tensor]:
    """The authors' state dict with the recipe's weights."""
    return recipe_weights(json.loads(str(FIXTURE[parameters])), gain)


def stored_clusters(prefix: str) -> dict[int, Clusters]:
    """The fixture's clusters of each level: the moving image's, then the fixed one's."""

    def both(level: int, part: str) -> Tensor:
        return torch.stack([stored(f"{prefix}_km_{image}{level}_{part}") for image in ("moving", "fixed")])

    return {level: Clusters(both(level, "index"), both(level, "centroid")) for level in LEVELS}


def every(step: int) -> tuple[slice, ...]:
    return (slice(None), *(slice(None, None, step),) * 3)


@functools.cache
def main_run(dtype: torch.dtype) -> tuple[SACBNet, SACBRegistration]:
    model = checkpoints.load_official("sacbnet", official("parameters"), dim=3).to(dtype)
    moving, fixed = small_pair((48, 64, 80))
    with torch.no_grad():
        return model, model(moving.to(dtype), fixed.to(dtype), clusters=stored_clusters("net"))


def block_weights(kind: str) -> dict[str, Tensor]:
    """The weights of the fixture's block under the names of `SACB`."""
    names = {"w": "weight", "get_kernel": "attention", "get_bias": "bias", "proj_in": "project"}
    loaded = official(f"blk_{kind}_parameters", 1.0)
    return {".".join([names[name.split(".")[0]], *name.split(".")[1:]]): value for name, value in loaded.items()}


def block_input() -> tuple[Tensor, Tensor]:
    draws = [np.random.RandomState(seed).standard_normal((16, 6, 7, 9)).astype(np.float32) for seed in (7, 8)]
    features, gradient = (torch.from_numpy(draw)[None] for draw in draws)
    return features, gradient


def random_convolution(dim: int, count: int, *, batch: int = 2, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Features, weight, attention, bias and index for an adaptive convolution from 3 to 4 channels."""
    generator = torch.Generator().manual_seed(dim * 100 + count)
    normal = functools.partial(torch.randn, generator=generator, dtype=dtype)
    space = (5, 6, 7)[:dim]
    floats = [normal(batch, 3, *space), normal(4, 3, 3**dim), normal(batch, count, 3**dim).sigmoid()]
    floats += [normal(batch, count, 4)]
    index = torch.randint(0, count, (batch, *space), generator=generator)
    return [*(value.requires_grad_() for value in floats), index]


def n_convolutions(features: Tensor, weight: Tensor, attention: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """The readable form: Σ_n [index = n] conv(p, a_n ⊙ w, b_n)."""
    convolve = {2: F.conv2d, 3: F.conv3d}[features.dim() - 2]
    kernel = (*weight.shape[:2], *(3,) * (features.dim() - 2))
    return torch.cat(
        [
            sum(
                (index[[item]] == n)[:, None]
                * convolve(features[[item]], (attention[item, n] * weight).view(kernel), bias[item, n], padding=1)
                for n in range(attention.shape[1])
            )
            for item in range(len(features))
        ]
    )


def unfolded_match(moving: Tensor, fixed: Tensor) -> Tensor:
    """The readable form of matching: all neighbourhoods at once, then eqs. 9 and 10."""
    dim = moving.dim() - 2
    patches = sacbnet.pad(moving)
    for axis in range(2, 2 + dim):
        patches = patches.unfold(axis, 3, 1)
    weights = torch.einsum("bc...,bc...k->b...k", fixed, patches.flatten(2 + dim)).softmax(-1)
    return torch.einsum("b...k,kd->bd...", weights, weights.new_tensor(sacbnet.offsets(dim)))


def movement(points: Tensor, start: Tensor) -> list[Clusters]:
    """Lloyd's steps until the centroids rest to 1e-10, as the authors' program counts them."""
    steps: list[Clusters] = []
    for found in sacbnet.lloyd(points, start):
        steps.append(found)
        if (found.centroids - start).square().sum() <= 1e-10:
            return steps
        start = found.centroids
    raise AssertionError


# ---------------------------------------------------------------------------------------------- the authors' numbers
def test_parameters_of_each_part():
    model = SACBNet(3)
    parts = [model.encoder, *(model.blocks[str(level)] for level in (2, 3, 4, 5)), model.refine, model.regress]
    counts = [sum(value.numel() for value in part.parameters()) for part in parts]
    assert counts == [441_984, 42_299, 87_899, 262_043, 262_043, 3_472, 5_851]


def assert_authors(field: Tensor, name: str, step: int = 1) -> None:
    error = field[0][every(step)] - stored(name)
    assert error.abs().max() < 2e-3 and error.square().mean().sqrt() < 5e-5


def test_network_matches_the_authors():
    _, registration = main_run(torch.float32)
    assert_authors(registration.displacement, "net_phi_s2", 2)
    moving, _ = small_pair((48, 64, 80))
    warped = warp(moving, registration.displacement, padding="zeros")
    assert (warped[0][every(2)] - stored("net_warped_s2")).abs().max() < 2e-4


def test_network_matches_the_authors_in_double_precision():
    _, registration = main_run(torch.float64)
    assert registration.displacement.dtype == torch.float64
    assert (registration.displacement[0][every(4)] - stored("net64_phi_s4")).abs().max() < 1e-6


def test_levels_match_the_authors():
    """Increments and composed displacements, each upsampled to the next level, as the fixture keeps them."""
    _, registration = main_run(torch.float32)
    finest = {5: 1, 4: 1, 3: 2, 2: 4}
    for level, composed, match in zip(LEVELS, registration.levels, registration.matches, strict=False):
        assert_authors(match.increment, f"net_delta{level}" + "_s2" * (level == 2), 2 if level == 2 else 1)
        step = finest[level]
        name = f"net_phi{level}_up" + f"_s{step}" * (step > 1)
        assert_authors(upsample(composed, alignment="corners"), name, step)


def test_first_level_matches_the_authors():
    """The increment before the last composition."""
    model, _ = main_run(torch.float32)
    seen = []
    handle = model.regress.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(*small_pair((48, 64, 80)), clusters=stored_clusters("net"))
    handle.remove()
    torch.testing.assert_close(seen[0][0][every(4)], stored("net_delta1_s4"), atol=1e-3, rtol=0)


def test_features_match_the_authors():
    model, registration = main_run(torch.float32)
    moving, fixed = small_pair((48, 64, 80))
    with torch.no_grad():
        pyramid = model.encode(torch.cat([moving, fixed]))
    steps = {1: 8, 2: 4, 3: 4, 4: 2, 5: 1}
    for level, item in itertools.product(steps, (0, 1)):
        suffix = f"_s{steps[level]}" if steps[level] > 1 else ""
        image = ("moving", "fixed")[item]
        found = pyramid[level - 1][item][every(steps[level])]
        torch.testing.assert_close(found, stored(f"net_enc_{image}{level}{suffix}"), atol=2e-5, rtol=1e-4)
        if level > 1:
            refined = getattr(registration.matches[5 - level], image)[0][every(steps[level])]
            # features of the warped image carry the displacement's float32 error: 1e-4 of values up to 10
            torch.testing.assert_close(refined, stored(f"net_sacb_{image}{level}{suffix}"), atol=1e-3, rtol=1e-4)


def test_kernels_match_the_authors():
    model, _ = main_run(torch.float32)
    for level, image in itertools.product(LEVELS, ("moving", "fixed")):
        block, name = model.blocks[str(level)], f"net_km_{image}{level}"
        centroids = stored(f"{name}_centroid")
        torch.testing.assert_close(block.attention(centroids), stored(f"{name}_attention"), atol=1e-5, rtol=0)
        torch.testing.assert_close(block.bias(centroids), stored(f"{name}_bias"), atol=1e-5, rtol=1e-5)


def test_clustering_as_released_finds_the_authors_clusters():
    """With k-means inside: the same draws and, but for voxels between two clusters, the same clusters."""
    reference, expected = main_run(torch.float32)
    model = SACBNet(3, as_released=True)
    model.load_state_dict(reference.state_dict())
    with torch.no_grad():
        registration = model(*small_pair((48, 64, 80)))
    for clusters, match in zip(stored_clusters("net").values(), registration.matches, strict=True):
        # rounding may decide a voxel between two clusters: at most 1 in 1000
        assert (match.clusters.index != clusters.index).float().mean() <= 1e-3
        torch.testing.assert_close(match.clusters.centroids, clusters.centroids, atol=1e-3, rtol=0)
    assert (registration.displacement - expected.displacement).square().mean().sqrt() < 1e-3


CALLS = [f"net_km_{image}{level}" for image, level in itertools.product(("moving", "fixed"), LEVELS)]


@pytest.mark.parametrize("name", [*CALLS, *(f"blk_{kind}_km" for kind in BLOCKS)])
def test_draws_are_the_authors(name, monkeypatch):
    def at_rest(points, centroids, empty):
        yield Clusters(points, centroids)

    monkeypatch.setattr("regkit.models.sacbnet.lloyd", at_rest)
    rows, count = stored(f"{name}_init").numpy(), stored(f"{name}_index").numel()
    drawn = sacbnet.k_means_as_released(torch.arange(count, dtype=torch.float64)[None], len(rows)).centroids[:, 0]
    assert np.array_equal(drawn, rows)


@pytest.mark.parametrize("name", SETTINGS)
def test_ablations_match_the_authors(name):
    weights = f"abl_{name}_parameters" if name in ("channel", "mix") else "parameters"
    model = checkpoints.load_official("sacbnet", official(weights), dim=3, **SETTINGS[name])
    moving, fixed = small_pair((48, 48, 64), 1)
    with torch.no_grad():
        source = "abl_n3" if name == "softsign" else f"abl_{name}"
        registration = model(moving, fixed, clusters=stored_clusters(source))
        terms = model.objective(registration, moving, fixed)
    assert_authors(registration.displacement, f"abl_{name}_phi_s4", 4)
    check_objective(model, terms, f"abl_{name}_")


def check_objective(model: SACBNet, terms: dict[str, Tensor], prefix: str) -> None:
    assert terms["lncc"].item() == pytest.approx(float(FIXTURE[f"{prefix}loss_ncc"]), abs=1e-4)
    expected = model.weight * float(FIXTURE[f"{prefix}loss_grad_l2"])
    assert terms["diffusion"].item() == pytest.approx(expected, rel=1e-4)


def test_objective_matches_the_authors():
    model, registration = main_run(torch.float64)
    moving, fixed = (image.double() for image in small_pair((48, 64, 80)))
    terms = model.objective(registration, moving, fixed)
    assert list(terms) == ["lncc", "diffusion"]
    # the authors' numbers are those of their float32 displacement: 6e-4 voxels away at most
    assert terms["lncc"].item() == pytest.approx(float(FIXTURE["loss_ncc"]), abs=1e-6)
    assert terms["diffusion"].item() == pytest.approx(0.3 * float(FIXTURE["loss_grad_l2"]), rel=1e-6)
    single = main_run(torch.float32)[1]
    found = model.objective(single, moving.float(), fixed.float())["lncc"]
    assert found.item() == pytest.approx(float(FIXTURE["loss_ncc_float32"]), abs=1e-5)
    still = SACBRegistration(torch.zeros_like(registration.displacement))
    identity = model.objective(still, moving, fixed)
    assert identity["lncc"].item() == pytest.approx(float(FIXTURE["loss_ncc_identity"]), abs=1e-6)
    assert identity["diffusion"] == 0


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_matches_the_authors(kind):
    block = SACB(3, 16, 5, BLOCKS[kind], as_released=True)
    block.load_state_dict(block_weights(kind))
    features, gradient = block_input()
    features.requires_grad_()
    refined = block(features)
    refined.features.backward(gradient)
    clusters = refined.clusters
    means = block.describe(block.project(features))[0].flatten(1).T
    torch.testing.assert_close(means, stored(f"blk_{kind}_mean"), atol=1e-5, rtol=0)
    assert torch.equal(clusters.index[0], stored(f"blk_{kind}_km_index"))
    torch.testing.assert_close(clusters.centroids[0], stored(f"blk_{kind}_km_centroid"), atol=1e-5, rtol=0)
    torch.testing.assert_close(block.attention(clusters.centroids)[0], stored(f"blk_{kind}_attention"))
    torch.testing.assert_close(block.bias(clusters.centroids)[0], stored(f"blk_{kind}_bias"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(refined.features[0], stored(f"blk_{kind}_output"), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.grad[0], stored(f"blk_{kind}_grad_input"), atol=1e-5, rtol=1e-5)
    names = {"get_kernel": "attention", "get_bias": "bias", "proj_in": "project", "w": "weight"}
    checked = 0
    for key in FIXTURE.files:
        head, _, name = key.partition("_grad_")
        if head != f"blk_{kind}" or name == "input":
            continue
        first, *rest = name.split(".")
        found = block.get_parameter(".".join([names[first], *rest])).grad
        scale = stored(key).abs().max()  # gradients sum over 378 voxels: relative to the largest
        torch.testing.assert_close(found, stored(key), atol=max(1e-5 * scale.item(), 1e-4), rtol=0)
        checked += 1
    assert checked == (6 if kind == "spatial" else 0)


def test_matching_matches_the_authors():
    state = np.random.RandomState(9)
    draws = [0.5 * state.standard_normal((1, 16, 5, 6, 7)).astype(np.float32) for _ in range(2)]
    moving, fixed = (torch.from_numpy(draw).requires_grad_() for draw in draws)
    found = sacbnet.soft_argmax(sacbnet.scores(moving, fixed))
    gradient = np.random.RandomState(10).standard_normal((1, 3, 5, 6, 7)).astype(np.float32)
    found.backward(torch.from_numpy(gradient))
    torch.testing.assert_close(found[0], stored("sim_flow"), atol=1e-5, rtol=0)
    torch.testing.assert_close(moving.grad[0], stored("sim_grad_moving"), atol=1e-5, rtol=0)
    torch.testing.assert_close(fixed.grad[0], stored("sim_grad_fixed"), atol=1e-5, rtol=0)


def test_statistics_match_the_authors():
    _, registration = main_run(torch.float32)
    displacement = registration.displacement
    assert displacement.square().mean().sqrt().item() == pytest.approx(float(FIXTURE["stat_phi_rms"]), rel=1e-5)
    assert displacement.abs().max().item() == pytest.approx(float(FIXTURE["stat_phi_absmax"]), abs=2e-3)
    for axis, name in enumerate("dhw"):
        mean = displacement[:, axis].mean().item()
        assert mean == pytest.approx(float(FIXTURE[f"stat_phi_mean_{name}"]), abs=1e-5)
    error = displacement - main_run(torch.float64)[1].displacement  # no more rounding than theirs
    assert error.abs().max() < 2 * float(FIXTURE["stat_float32_error_max"])
    assert error.square().mean().sqrt() < 2 * float(FIXTURE["stat_float32_error_rms"])
    jacobian = jacobian_determinant(displacement)
    assert jacobian.mean().item() == pytest.approx(float(FIXTURE["stat_jac_mean"]), abs=1e-4)
    assert jacobian.std().item() == pytest.approx(float(FIXTURE["stat_jac_std"]), abs=1e-4)
    assert (jacobian < 0).float().mean().item() == pytest.approx(float(FIXTURE["stat_folding_fraction"]), abs=5e-5)
    moving, fixed = small_pair((48, 64, 80))
    warped = warp(moving, displacement, padding="zeros")
    assert losses.mse(warped, fixed).item() == pytest.approx(float(FIXTURE["loss_mse"]), rel=1e-4)
    steps = [displacement.diff(dim=axis).abs().mean().item() for axis in (2, 3, 4)]
    assert sum(steps) / 3 == pytest.approx(float(FIXTURE["loss_grad_l1"]), rel=1e-4)


# ---------------------------------------------------------------------------------------------- the authors' weights
def test_official_weights_are_used_once_and_buffers_skipped():
    state = official("parameters")
    buffers = {f"transformer.{i}.grid": torch.zeros(1, 3, 2, 2, 2) for i in range(4)}
    model = checkpoints.load_official("sacbnet", {"state_dict": {**state, **buffers}}, dim=3)
    assert model.configuration["as_released"]  # its clusters are at rest, as the program's are
    assert not checkpoints.load_official("sacbnet", state, dim=3, as_released=False).configuration["as_released"]
    loaded = list(model.state_dict().values())
    places = [[i for i, value in enumerate(loaded) if torch.equal(value, given)] for given in state.values()]
    assert sorted(places) == [[i] for i in range(len(loaded))]  # each of theirs at one place, and all places taken


def test_official_weights_of_the_first_release_are_refused():
    state = official("parameters")
    state["sacb_proj2.proj_in.conv.weight"] = torch.zeros(16, 16, 1, 1, 1)
    with pytest.raises(ValueError, match="proj_in"):
        checkpoints.load_official("sacbnet", state, dim=3)


# ---------------------------------------------------------------------------------------------- k-means
def test_k_means_matches_the_authors():
    points = stored("km_points").T
    found = sacbnet.k_means_as_released(points, 5, seed=3)
    assert torch.equal(found.index, stored("km_index"))
    torch.testing.assert_close(found.centroids, stored("km_centroid"), atol=1e-5, rtol=0)
    start = points[:, stored("km_init").long()].T
    assert len(movement(points, start)) == int(FIXTURE["km_iterations"])


@pytest.mark.parametrize("name", ["empty", "revive"])
def test_empty_clusters_match_the_authors(name):
    steps = movement(stored(f"km_{name}_points").T, stored(f"km_{name}_start"))
    assert torch.equal(steps[-1].index, stored(f"km_{name}_index"))
    torch.testing.assert_close(steps[-1].centroids, stored(f"km_{name}_centroid"), atol=1e-6, rtol=0)
    assert len(steps) == int(FIXTURE[f"km_{name}_iterations"])


def test_empty_clusters_can_start_again_at_the_farthest_point():
    points, start = stored("km_empty_points").T, stored("km_empty_start")
    first = next(sacbnet.lloyd(points, start, empty="farthest"))
    sizes = torch.bincount(first.index, minlength=3)
    assert (sizes == 0).any()
    distances = (points - start[first.index].T).square().sum(0)
    assert torch.equal(first.centroids[sizes == 0][0], points[:, distances.argmax()])


def test_k_means_never_costs_more():
    points = torch.randn(4, 500, generator=torch.Generator().manual_seed(0))
    previous = float("inf")
    centroids = points[:, :6].T
    for found in itertools.islice(sacbnet.lloyd(points, centroids), 15):
        cost = (points - centroids[found.index].T).square().sum().item()
        assert cost <= previous * (1 + 1e-6)
        previous, centroids = cost, found.centroids


def test_k_means_is_reproducible_and_private():
    points = torch.randn(3, 400, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (sacbnet.k_means(points, 4, seed=seed) for seed in (2, 2, 3))
    sacbnet.k_means_as_released(points, 4)
    assert torch.equal(states[0], torch.get_rng_state()) and np.array_equal(states[1], np.random.get_state()[1])
    assert torch.equal(first.index, again.index) and torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.index, other.index)


def test_k_means_stops_at_its_limit():
    points = torch.randn(3, 3000, generator=torch.Generator().manual_seed(1))
    rows = np.random.default_rng(0).choice(3000, 9, replace=False)
    steps = list(itertools.islice(sacbnet.lloyd(points, points[:, rows].T), 7))
    limited = sacbnet.k_means(points, 9, tolerance=0.0, max_iterations=7)
    assert torch.equal(limited.centroids, steps[-1].centroids)


def test_k_means_states_its_rules():
    points = torch.randn(2, 5)
    with pytest.raises(ValueError, match="no more clusters than points, received 6"):
        sacbnet.k_means(points, 6)
    with pytest.raises(ValueError, match="flatten the space"):
        sacbnet.k_means(points[None], 2)
    points[0, 3] = float("nan")
    for clustering in (sacbnet.k_means, sacbnet.k_means_as_released):
        with pytest.raises(ValueError, match="must be finite"):
            clustering(points, 2)


# ---------------------------------------------------------------------------------------------- the convolution
@pytest.mark.parametrize("dim, count", list(itertools.product((2, 3), (1, 4))))
@pytest.mark.parametrize("values", [2**20, 1])
def test_one_pass_equals_n_convolutions(dim, count, values, monkeypatch):
    """In value and in every gradient; also in slabs of a single plane."""
    monkeypatch.setattr("regkit.models.sacbnet._SLAB_VALUES", {"cpu": values})
    arguments = random_convolution(dim, count)
    found, expected = sacbnet.adaptive_convolution(*arguments), n_convolutions(*arguments)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    gradient = torch.randn_like(found)
    ours, reference = (torch.autograd.grad(value, arguments[:4], gradient) for value in (found, expected))
    torch.testing.assert_close(ours, reference, atol=1e-11, rtol=0)


@pytest.mark.parametrize("dim", [2, 3])
def test_one_pass_equals_n_convolutions_in_single_precision(dim):
    values = random_convolution(dim, 7, dtype=torch.float32)
    torch.testing.assert_close(sacbnet.adaptive_convolution(*values), n_convolutions(*values), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dim", [2, 3])
def test_renumbered_clusters_change_nothing(dim):
    block = SACB(dim, 6, 4)
    features = torch.randn(2, 6, *SHAPES[dim])
    refined = block(features)
    order = torch.tensor([2, 0, 3, 1])
    renumbered = Clusters(order.argsort()[refined.clusters.index], refined.clusters.centroids[:, order])
    torch.testing.assert_close(block(features, renumbered).features, refined.features)


@pytest.mark.parametrize("dim, mean", list(itertools.product((2, 3), BLOCKS.values())))
def test_no_gradient_flows_through_the_clusters(dim, mean):
    block = SACB(dim, 6, 4, mean)
    features = torch.randn(1, 6, *SHAPES[dim], requires_grad=True)
    refined = block(features)
    assert not refined.clusters.centroids.requires_grad
    inside = torch.autograd.grad(refined.features.square().sum(), features)
    constant = torch.autograd.grad(block(features, refined.clusters).features.square().sum(), features)
    torch.testing.assert_close(inside, constant)


def test_means_equal_those_of_unfolded_neighbourhoods():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    patches = sacbnet.pad(features).unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)  # (B, C, *space, taps)
    torch.testing.assert_close(sacbnet.mean_over_space(features), patches.mean(-1))
    torch.testing.assert_close(sacbnet.mean_over_channels(features), patches.mean(1).movedim(-1, 1))
    both = SACB(2, 3, 7, "both").describe(features)
    torch.testing.assert_close(both, torch.cat([patches.mean(-1), patches.mean(1).movedim(-1, 1)], 1))


# ---------------------------------------------------------------------------------------------- matching
@pytest.mark.parametrize("dim", [2, 3])
def test_matching_by_shifts_equals_unfolding(dim):
    generator = torch.Generator().manual_seed(dim)
    moving, fixed = torch.randn(2, 2, 5, *(6, 7, 5)[:dim], generator=generator, dtype=torch.float64)
    moving.requires_grad_()
    found, expected = sacbnet.soft_argmax(sacbnet.scores(moving, fixed)), unfolded_match(moving, fixed)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(found)
    ours, reference = (torch.autograd.grad(value, moving, gradient) for value in (found, expected))
    torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("shift", [(1, -1), (0, 1), (1, 0, -1), (-1, 1, 1)])
def test_matching_finds_a_shift_of_distinct_features(shift):
    dim = len(shift)
    fixed = F.normalize(torch.randn(1, 32, *(8, 9, 7)[:dim], generator=torch.Generator().manual_seed(0)), dim=1) * 10
    moving = fixed.roll(shift, tuple(range(2, 2 + dim)))  # moving(x + shift) = fixed(x)
    inner = (slice(None), slice(None), *(slice(2, -2),) * dim)
    found = sacbnet.soft_argmax(sacbnet.scores(moving, fixed))[inner]
    expected = torch.tensor(shift, dtype=found.dtype).view(1, dim, *(1,) * dim).expand_as(found)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dim, strength", list(itertools.product((2, 3), (0.0, 1.0, 4.0))))
def test_flat_features_are_pulled_inward_at_the_faces(dim, strength):
    """Zeros outside take part in the softmax; with the border repeated nothing moves."""
    features = torch.full((1, 4, *(5, 6, 7)[:dim]), (strength / 4) ** 0.5, dtype=torch.float64)
    found = sacbnet.soft_argmax(sacbnet.scores(features, features))
    centre = tuple(size // 2 for size in features.shape[2:])
    assert found[(0, slice(None), *centre)].abs().max() < 1e-12
    side, e = 3 ** (dim - 1), np.exp(-strength)
    pull = side * (1 - e) / (2 * side + side * e)
    for axis in range(dim):
        first, last = list(centre), list(centre)
        first[axis], last[axis] = 0, -1
        assert found[(0, axis, *first)].item() == pytest.approx(pull)
        assert found[(0, axis, *last)].item() == pytest.approx(-pull)
    assert sacbnet.soft_argmax(sacbnet.scores(features, features, padding="replicate")).abs().max() < 1e-12


# ---------------------------------------------------------------------------------------------- the network
def test_switch_of_empty_clusters_reaches_the_clustering():
    block = SACBNet(2, width=2, empty="farthest").blocks["5"]
    assert block.empty == "farthest"


@pytest.mark.parametrize("dim", [2, 3])
def test_displacements_stay_within_reach(dim):
    """Each level adds less than one of its voxels: 1, 3, 7, 15 voxels of the levels 5 to 2; 30 of the image."""
    model = SACBNet(dim, width=2, last="softsign")
    for value in model.parameters():
        torch.nn.init.normal_(value, generator=torch.Generator().manual_seed(value.numel()))
    moving, fixed = small_pair(SHAPES[dim])
    with torch.no_grad():
        registration = model(moving, fixed)
    largest = [level.abs().max().item() for level in registration.levels]
    assert all(size <= bound + 1e-5 for size, bound in zip(largest, (1, 3, 7, 15, 31), strict=True))  # rounding
    assert largest[-1] > 3  # sharp matches do reach far
    assert all(match.increment.abs().max() <= 1 + 1e-5 for match in registration.matches)


@pytest.mark.parametrize("dim", [2, 3])
def test_same_seed_same_result_in_both_modes(dim):
    model = SACBNet(dim, width=2)
    pair = small_pair(SHAPES[dim])
    with torch.no_grad():
        assert torch.equal(model.train()(*pair).displacement, model.eval()(*pair).displacement)


def test_a_level_without_block_matches_the_raw_features():
    model = SACBNet(2, width=2, blocks="5").eval()
    moving, fixed = small_pair((32, 48))
    registration = model(moving, fixed)
    pyramid = model.encode(torch.cat([moving, fixed]))
    assert torch.equal(registration.matches[1].fixed, pyramid[3][1:])
    assert [match.clusters is not None for match in registration.matches] == [True, False, False, False]
