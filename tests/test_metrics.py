"""Metrics: laws, and parity with MONAI, SciPy, SimpleITK and the papers' programs."""

import math
import time
from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers.parity import Entries
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from regkit import metrics
from regkit.fields import exponential, identity, unit_to_voxels, warp_labels
from regkit.types import Pair, Registration

SHAPES = {2: (23, 31), 3: (17, 22, 15)}
SPACINGS = {2: (0.7, 1.9), 3: (1.2, 0.6, 2.5)}
GRADICON = Entries("gradicon")
dims = pytest.mark.parametrize("dim", [2, 3])


def smooth(dim: int, size: float, seed: int = 0, batch: int = 1) -> Tensor:
    """A smooth random displacement whose largest component is `size` voxels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, dim, *[4] * dim, generator=generator)
    mode = "bilinear" if dim == 2 else "trilinear"
    field = torch.nn.functional.interpolate(coarse, SHAPES[dim], mode=mode, align_corners=True)
    return field / field.abs().max() * size


def structures(dim: int, seed: int = 0) -> Tensor:
    """Background and five structures, some of which touch the border."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.1, 0.9, (5, dim)) * SHAPES[dim]
    points = identity(SHAPES[dim])[0].flatten(1).T.numpy()
    distances = np.linalg.norm(points[:, None] - centres, axis=2)
    labels = np.where(distances.min(1) < 6, 1 + distances.argmin(1), 0)
    return torch.from_numpy(labels).view(1, 1, *SHAPES[dim])


def label_pair(dim: int) -> tuple[Tensor, Tensor]:
    labels = structures(dim)
    return warp_labels(labels, smooth(dim, 2.5)), labels


def one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels[:, 0], 6).movedim(-1, 1).float()


# ---------------------------------------------------------------------------------------------- dice
@dims
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_wide_unsigned_labels_are_measured_as_any_others(dim: int, dtype: torch.dtype) -> None:
    first, second = label_pair(dim)
    unsigned = first.to(dtype), second.to(dtype)
    assert metrics.dice(*unsigned) == metrics.dice(first, second)
    assert metrics.hd95(*unsigned, spacing=SPACINGS[dim]) == metrics.hd95(first, second, spacing=SPACINGS[dim])


@dims
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_dice_is_that_of_monai(dim: int, dtype: torch.dtype) -> None:
    first, second = label_pair(dim)
    expected = compute_dice(one_hot(first), one_hot(second), include_background=False)[0]
    found = metrics.dice(first.to(dtype), second.to(dtype))
    assert list(found) == [1, 2, 3, 4, 5]
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert min(found.values()) < 0.95


def test_labels_of_few_bits() -> None:
    """The difference of two int8 numbers need not fit into int8, and booleans are not subtracted at all."""
    first, second = label_pair(2)
    names = torch.tensor([0, -128, -100, 3, 100, 127], dtype=torch.int8)
    expected = metrics.dice(first, second)
    found = metrics.dice(names[first], names[second])
    assert found == {int(names[label]): value for label, value in expected.items()}
    assert metrics.dice(first == 2, second == 2) == {1: expected[2]}


@dims
def test_dice_is_that_of_simpleitk(dim: int) -> None:
    first, second = label_pair(dim)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(x[0, 0].numpy().astype(np.uint8)) for x in (first, second)))
    expected = {label: overlap.GetDiceCoefficient(label) for label in range(1, 6)}
    assert metrics.dice(first, second) == pytest.approx(expected, abs=1e-9)


@dims
def test_dice_does_not_depend_on_the_label_numbers(dim: int) -> None:
    """Neither negative numbers nor gaps, nor numbers too far apart for a dense histogram."""
    first, second = label_pair(dim)
    expected = list(metrics.dice(first, second).values())
    far = [0, 1, 2**40, 2**50, 2**60, 2**62]
    for numbers in ([0, -7, 3, 9, 40, 200], [0, -100, 200, 300, 400, 600], [0, 1003, 2002, 2003, 2035, 70000], far):
        names = torch.tensor(numbers)
        found = metrics.dice(names[first], names[second], labels=numbers[1:])
        assert found == pytest.approx(dict(zip(numbers[1:], expected, strict=True)))


@pytest.mark.parametrize("shape", [(300, 400), (40, 50, 60)])
@pytest.mark.parametrize("gap", [1, 1009])
def test_dice_of_fifty_thousand_labels_takes_memory_for_the_voxels_alone(shape: tuple[int, ...], gap: int) -> None:
    """Their joint histogram would hold 20 GB."""
    generator = torch.Generator().manual_seed(0)
    first = gap * torch.randint(0, 50_000, (1, 1, *shape), generator=generator)
    second = torch.where(torch.rand(first.shape, generator=generator) < 0.7, first, first.flip(2))
    counts = [Counter(x.flatten().tolist()) for x in (first, second, first[first == second])]
    expected = {k: 2 * counts[2][k] / (counts[0][k] + counts[1][k]) for k in counts[0] | counts[1] if k}
    start = time.process_time()
    assert metrics.dice(first, second) == expected
    assert time.process_time() - start < 10


def test_dice_of_more_voxels_than_are_counted_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 4, (2, 1, 1, 301, 603), generator=generator)
    expected = {k: 2 * ((first == k) & (second == k)).sum().item() / ((first == k).sum() + (second == k).sum()).item()
                for k in (1, 2, 3)}  # fmt: skip
    assert metrics.dice(first, second) == pytest.approx(expected, rel=1e-12)


@dims
def test_dice_is_one_for_equal_symmetric_and_zero_for_disjoint(dim: int) -> None:
    first, second = label_pair(dim)
    assert set(metrics.dice(first, first).values()) == {1.0}
    assert metrics.dice(first, second) == metrics.dice(second, first)
    assert metrics.dice((first == 1).long(), 2 * (first == 2).long()) == {1: 0.0, 2: 0.0}


@dims
def test_absent_structures(dim: int) -> None:
    first, second = label_pair(dim)
    plain = metrics.dice(first, second)
    assert metrics.dice(first, second, labels=[2, 9]) == {2: plain[2]}
    assert metrics.dice(first, second, labels=[2, 9], absent="zero") == {2: plain[2], 9: 0.0}
    assert metrics.dice(first, second * (second != 2), labels=[2]) == {2: 0.0}
    assert 0 < metrics.dice(first, second, labels=[0])[0] < 1
    distances = metrics.surface_distances(first, second * (second != 2), spacing=1.0, labels=[1, 2, 9])
    assert list(distances) == [1, 2] and distances[2] == metrics.SurfaceDistance(math.inf, math.inf)


@dims
def test_a_batch_is_the_mean_over_the_pairs_that_have_the_structure(dim: int) -> None:
    first, second = label_pair(dim)
    third = structures(dim, seed=3) * (structures(dim, seed=3) != 4)
    alone = [metrics.dice(first, second), metrics.dice(third, second * (second != 4))]
    firsts, seconds = torch.cat([first, third]), torch.cat([second, second * (second != 4)])
    together = metrics.dice(firsts, seconds)
    assert together[1] == pytest.approx((alone[0][1] + alone[1][1]) / 2)
    assert together[4] == alone[0][4] and 4 not in alone[1]
    assert metrics.dice(firsts, seconds, absent="zero")[4] == pytest.approx(alone[0][4] / 2)
    spacing = SPACINGS[dim]
    apart = [metrics.assd(a[None], b[None], spacing=spacing)[1] for a, b in zip(firsts, seconds, strict=True)]
    assert metrics.assd(firsts, seconds, spacing=spacing)[1] == pytest.approx(sum(apart) / 2)


# ---------------------------------------------------------------------------------------------- surfaces
@dims
@pytest.mark.parametrize("seed", [0, 1])
def test_surface_distances_are_those_of_monai(dim: int, seed: int) -> None:
    second = structures(dim, seed)
    first, spacing = warp_labels(second, smooth(dim, 3.0, seed)), SPACINGS[dim]
    hot = one_hot(first), one_hot(second)
    expected_hd = compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)[0]
    expected_mean = compute_average_surface_distance(*hot, symmetric=True, spacing=spacing)[0]
    found = metrics.surface_distances(first, second, spacing=spacing)
    assert [x.hd95 for x in found.values()] == pytest.approx(expected_hd.tolist(), abs=1e-4)
    assert [x.assd for x in found.values()] == pytest.approx(expected_mean.tolist(), abs=1e-4)
    assert min(x.hd95 for x in found.values()) > 0.5
    assert metrics.hd95(first, second, spacing=spacing) == {k: x.hd95 for k, x in found.items()}
    assert metrics.assd(first, second, spacing=spacing) == {k: x.assd for k, x in found.items()}


@dims
@pytest.mark.parametrize("flat", [1, 9], ids=["usual", "thick slices"])
@pytest.mark.parametrize("size", [2.5, 9.0], ids=["near", "far"])
def test_surface_distances_are_those_of_distance_transforms(dim: int, flat: float, size: float) -> None:
    """Distances read from SciPy's exact Euclidean transform of the complement of an eroded mask's rim."""
    second, spacing = structures(dim), (flat * SPACINGS[dim][0], *SPACINGS[dim][1:])
    first = warp_labels(second, smooth(dim, size))
    for label, found in metrics.surface_distances(first, second, spacing=spacing, labels=range(6)).items():
        masks = [(x == label)[0, 0].numpy() for x in (first, second)]
        rims = [mask & ~binary_erosion(mask) for mask in masks]
        # each rim's voxels, to the other rim
        there, back = (distance_transform_edt(~rims[1 - i], sampling=spacing)[rims[i]] for i in (0, 1))
        assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
        assert found.assd == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-9)


@dims
def test_a_translated_plate_is_as_far_away_as_it_was_moved(dim: int) -> None:
    spacing = SPACINGS[dim]
    for axis in range(dim):
        plates = torch.zeros(2, 1, 1, *SHAPES[dim], dtype=torch.long)
        plates[0].select(2 + axis, 3).fill_(1)
        plates[1].select(2 + axis, 8).fill_(1)
        distance = pytest.approx(5 * spacing[axis])
        assert metrics.surface_distances(*plates, spacing=spacing) == {1: metrics.SurfaceDistance(distance, distance)}


@dims
def test_surface_distances_are_zero_for_equal_symmetric_and_scale_with_spacing(dim: int) -> None:
    (first, second), spacing = label_pair(dim), SPACINGS[dim]
    assert set(metrics.surface_distances(first, first, spacing=spacing).values()) == {metrics.SurfaceDistance(0, 0)}
    found = metrics.surface_distances(first, second, spacing=spacing)
    swapped = metrics.assd(second, first, spacing=spacing)
    assert swapped == pytest.approx({k: x.assd for k, x in found.items()})
    doubled = metrics.hd95(first, second, spacing=tuple(2 * s for s in spacing))
    assert doubled == pytest.approx({k: 2 * x.hd95 for k, x in found.items()})


# ---------------------------------------------------------------------------------------------- landmarks
@dims
def test_landmark_error_of_the_true_field_is_zero(dim: int) -> None:
    """An affine field is read exactly between voxels, so the truth is known for any point."""
    generator = torch.Generator().manual_seed(0)
    matrix, shift = 0.1 * torch.randn(dim, dim, generator=generator), torch.randn(dim, generator=generator)
    grid = identity(SHAPES[dim])
    field = torch.einsum("ij,bj...->bi...", matrix, grid) + shift.view(1, -1, *[1] * dim)
    points = torch.rand(1, 40, dim, generator=generator) * (torch.tensor(SHAPES[dim]) - 1)
    moved = points + points @ matrix.T + shift
    spacing = SPACINGS[dim]
    assert metrics.tre(field, points, moved, spacing=spacing).mean == pytest.approx(0, abs=1e-5)
    distances = ((moved - points) * torch.tensor(spacing)).norm(dim=-1).numpy()
    before = metrics.tre(torch.zeros_like(field), points, moved, spacing=spacing)
    quartiles = np.percentile(distances, [25, 50, 75])
    assert before.mean == pytest.approx(distances.mean(), rel=1e-5)
    assert [before.lower_quartile, before.median, before.upper_quartile] == pytest.approx(quartiles, rel=1e-5)


def test_landmark_error_is_in_millimetres_along_each_axis() -> None:
    field, points = torch.zeros(1, 3, 5, 6, 7), torch.tensor([[[1, 2, 3]]])
    for axis, size in enumerate((0.5, 2.0, 3.0)):
        moved = points.clone()
        moved[..., axis] += 2
        assert metrics.tre(field, points, moved, spacing=(0.5, 2.0, 3.0)).mean == pytest.approx(2 * size)


# ---------------------------------------------------------------------------------------------- folds
DEFINITIONS = ("central", "forward", "averaged", "flips")


@dims
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_folds_of_known_maps(dim: int, definition: str) -> None:
    still = torch.zeros(1, dim, *SHAPES[dim])
    assert metrics.folds(still, definition=definition) == metrics.Folds(0, 0)
    places = math.prod(SHAPES[dim] if definition == "central" else [n - 1 for n in SHAPES[dim]])
    for axis in range(dim):
        mirrored = still.clone()
        mirrored[:, axis] = -2 * identity(SHAPES[dim])[0, axis]
        assert metrics.folds(mirrored, definition=definition) == metrics.Folds(places, 100)
        half = torch.cat([mirrored, still])
        assert metrics.folds(half, definition=definition) == metrics.Folds(places / 2, 50)
        flat = mirrored / 2  # |J| = 0 everywhere: a fold for all but GradICON
        assert metrics.folds(flat, definition=definition).percent == (0 if definition == "flips" else 100)


def map_of(displacement: Tensor) -> np.ndarray:
    return (displacement[0] + identity(displacement.shape[2:])[0]).double().numpy()


@dims
def test_folds_are_those_of_numpy(dim: int) -> None:
    """Each definition written out with determinants of full matrices."""
    displacement = smooth(dim, 9.0, seed=1).double()
    φ = map_of(displacement)
    central = np.stack([np.stack(np.gradient(component), -1) for component in φ], -2)
    assert metrics.folds(displacement).count == (np.linalg.det(central) <= 0).sum() > 0
    corner = (slice(None), *[slice(-1)] * dim)
    far = (slice(None), *[slice(1, None)] * dim)
    forward = np.stack([np.diff(φ, axis=1 + a, append=np.nan)[corner] for a in range(dim)], -1)
    backward = np.stack([np.diff(φ, axis=1 + a, prepend=np.nan)[far] for a in range(dim)], -1)
    det = {k: np.linalg.det(np.moveaxis(m, 0, -2)) for k, m in (("forward", forward), ("backward", backward))}
    assert metrics.folds(displacement, definition="forward").count == (det["forward"] <= 0).sum() > 0
    expected = (det["forward" if dim == 2 else "backward"] < 0).sum()
    assert metrics.folds(displacement, definition="flips").count == expected > 0
    kernel = np.full([2] * (dim - 1), 0.5 ** (dim - 1))
    means = []
    for a in range(dim):
        others = [1 + b for b in range(dim) if b != a]
        windows = np.lib.stride_tricks.sliding_window_view(np.diff(φ, axis=1 + a), kernel.shape, axis=others)
        means.append((windows * kernel).sum(tuple(range(-kernel.ndim, 0))))
    averaged = np.linalg.det(np.moveaxis(np.stack(means, -1), 0, -2))
    assert metrics.folds(displacement, definition="averaged").count == (averaged <= 0).sum() > 0


@pytest.mark.parametrize("section", ["n3", "n2", "n2one"])
def test_flips_are_those_of_gradicon(section: str) -> None:
    displacement = unit_to_voxels(torch.from_numpy(GRADICON[f"{section}_disp_AB"]))
    found = metrics.folds(displacement, definition="flips")
    assert found.count == GRADICON[f"{section}_flips_AB"]
    assert found.percent == pytest.approx(GRADICON[f"{section}_flips_percent_AB"], rel=1e-6)
    if section != "n3":
        back = unit_to_voxels(torch.from_numpy(GRADICON[f"{section}_disp_BA"]))
        assert metrics.folds(back, definition="flips").count == GRADICON[f"{section}_flips_BA_f32"]


@dims
def test_jacobian_statistics(dim: int) -> None:
    displacement = smooth(dim, 9.0, seed=1).double()
    determinants = np.linalg.det(np.stack([np.stack(np.gradient(c), -1) for c in map_of(displacement)], -2))
    found = metrics.jacobian_statistics(displacement)
    assert found.std == pytest.approx(determinants.std(), rel=1e-9)
    assert found.std_log == pytest.approx(np.log(determinants.clip(1e-9, 1e9)).std(), rel=1e-9)
    assert found.minimum == pytest.approx(determinants.min(), rel=1e-9)
    assert found.folds_percent == metrics.folds(displacement).percent > 0
    still = metrics.jacobian_statistics(torch.zeros_like(displacement))
    assert still == metrics.JacobianStatistics(std=0, std_log=0, minimum=1, folds_percent=0)
    scaled = 0.5 * identity(SHAPES[dim])  # φ = 1.5 x
    assert metrics.jacobian_statistics(scaled).minimum == pytest.approx(1.5**dim, rel=1e-5)
    for definition in DEFINITIONS[1:]:
        other = metrics.jacobian_statistics(displacement, definition=definition)
        assert other.folds_percent == metrics.folds(displacement, definition=definition).percent
        assert other.std == pytest.approx(found.std, rel=0.2) and other.std != found.std


# ---------------------------------------------------------------------------------------------- consistency
@dims
def test_inverse_consistency_of_known_maps(dim: int) -> None:
    u = smooth(dim, 2.0)
    nothing = torch.zeros_like(u)
    there, back = exponential(0.5 * u), exponential(-0.5 * u)
    assert metrics.inverse_consistency(nothing, nothing) == 0
    assert metrics.inverse_consistency(u, nothing) == pytest.approx(u.abs().mean().item(), rel=1e-5)
    inside = metrics.inverse_consistency(there, back, region="inside")
    assert inside < 0.02 < metrics.inverse_consistency(there, nothing)
    shift = torch.ones_like(u) * 3
    assert metrics.inverse_consistency(shift, -shift) == 0


@dims
def test_norms_of_a_constant_error(dim: int) -> None:
    error = torch.arange(1.0, dim + 1).view(1, -1, *[1] * dim).expand(1, dim, *SHAPES[dim])
    size, nothing = np.arange(1.0, dim + 1), torch.zeros(1, dim, *SHAPES[dim])
    expected = {
        "absolute": size.mean(),
        "squared": (size**2).mean(),
        "distance": np.sqrt((size**2).sum()),
        "unit_squared": ((size / (np.array(SHAPES[dim]) - 1)) ** 2).mean(),
    }
    for norm, value in expected.items():
        assert metrics.inverse_consistency(nothing, error, norm=norm) == pytest.approx(value, rel=1e-6)


@dims
def test_region_inside_leaves_out_what_leaves_the_image(dim: int) -> None:
    """Along the first axis all is moved by 4 voxels; the way back is wrong only where it is read beyond the border."""
    there, back = torch.zeros(2, 1, dim, *SHAPES[dim])
    there[:, 0], back[:, 0] = 4, -4
    back[:, 0, -1] = 100  # read by the last voxel inside, and by the four outside
    length, rest = SHAPES[dim][0], math.prod(SHAPES[dim][1:])
    everywhere = metrics.inverse_consistency(there, back, norm="distance")
    inside = metrics.inverse_consistency(there, back, norm="distance", region="inside")
    assert everywhere == pytest.approx(5 * 104 * rest / (length * rest), rel=1e-5)
    assert inside == pytest.approx(104 * rest / ((length - 4) * rest), rel=1e-5)
    mirrored = (-there.flip(2), -back.flip(2))  # the same at the other end of the axis
    assert metrics.inverse_consistency(*mirrored, norm="distance", region="inside") == pytest.approx(inside, rel=1e-5)


def test_unit_squared_is_the_loss_of_icon() -> None:
    """ICON's penalty is the sum over both orders. Of one step, so that composing fields is what the program does."""
    ab, ba = (unit_to_voxels(torch.from_numpy(GRADICON[f"n2one_disp_{order}"])) for order in ("AB", "BA"))
    expected = GRADICON["n2one_icon_grid_f64"]
    both = sum(metrics.inverse_consistency(*order, norm="unit_squared") for order in ((ab, ba), (ba, ab)))
    assert both == pytest.approx(expected, rel=1e-5)  # the stored fields are float32


@dims
def test_cycle_consistency_runs_the_model_in_both_orders(dim: int) -> None:
    moving, fixed = torch.rand(2, 1, 1, *SHAPES[dim], generator=torch.Generator().manual_seed(0))
    there, back = smooth(dim, 1.0, seed=1), smooth(dim, 1.0, seed=2)

    def model(first: Tensor, second: Tensor) -> Registration:
        forth = torch.equal(first, moving) and torch.equal(second, fixed)
        assert forth or (torch.equal(first, fixed) and torch.equal(second, moving))
        return Registration(there if forth else back)

    found = metrics.cycle_consistency(model, Pair(moving, fixed), norm="squared")
    assert found == metrics.inverse_consistency(there, back, norm="squared")
    assert found != metrics.inverse_consistency(back, there, norm="squared")


# ---------------------------------------------------------------------------------------------- summary
@dims
def test_evaluate_reports_what_can_be_measured(dim: int) -> None:
    fixed_labels = structures(dim)
    true = exponential(smooth(dim, 4.0))
    moving_labels = warp_labels(fixed_labels, exponential(-smooth(dim, 4.0)))
    image = fixed_labels.float()
    pair = Pair(moving_labels.float(), image, moving_labels, fixed_labels, spacing=SPACINGS[dim])
    found = metrics.evaluate(Registration(true, inverse=-true), pair)
    assert set(found) == {"dice_before", "dice", "folds_percent", "jacobian_std_log", "inverse_consistency"}
    assert found["dice"] > found["dice_before"] + 0.05
    assert found["dice_before"] == pytest.approx(np.mean(list(metrics.dice(moving_labels, fixed_labels).values())))
    assert found["folds_percent"] == metrics.folds(true).percent
    assert found["jacobian_std_log"] == metrics.jacobian_statistics(true).std_log
    assert found["inverse_consistency"] == metrics.inverse_consistency(true, -true)
    bare = metrics.evaluate(true, Pair(image, image))
    assert bare == {key: found[key] for key in ("folds_percent", "jacobian_std_log")}
    still = metrics.evaluate(torch.zeros_like(true), pair)
    assert still["dice"] == still["dice_before"] and still["folds_percent"] == 0


# ---------------------------------------------------------------------------------------------- bad input
LABELS = torch.ones(1, 1, 5, 6, dtype=torch.long)
FIELD = torch.zeros(1, 2, 5, 6)
POINTS = torch.ones(1, 3, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.dice(LABELS.float(), LABELS), TypeError, r"first must be integers.*\.long\(\)"),
        (lambda: metrics.dice(LABELS, LABELS[..., 1:]), ValueError, r"one grid, received \(5, 6\) and \(5, 5\)"),
        (lambda: metrics.dice(LABELS, LABELS[:, :, :0]), ValueError, "second must not be empty"),
        (lambda: metrics.dice(0 * LABELS, 0 * LABELS), ValueError, "no label but background 0; check"),
        (lambda: metrics.dice(LABELS, LABELS, labels=[7]), ValueError, r"none of \[7\]; check"),
        (lambda: metrics.dice(LABELS, LABELS, labels=[]), ValueError, r"none of \[\]; check"),
        (lambda: metrics.hd95(LABELS, LABELS, spacing=0.0), ValueError, "spacing must be a positive number of mm"),
        (lambda: metrics.hd95(LABELS, LABELS, spacing=(1.0, -1.0)), ValueError, "spacing must be a positive"),
        (lambda: metrics.hd95(LABELS, LABELS, spacing=(1.0,) * 3), ValueError, "each of the 2 axes"),
        (lambda: metrics.assd(LABELS.float(), LABELS, spacing=1.0), TypeError, "first must be integers"),
        (lambda: metrics.assd(0 * LABELS, 0 * LABELS, spacing=1.0), ValueError, "no label but background 0"),
        (lambda: metrics.folds(FIELD.log()), ValueError, "displacement must be finite"),
        (lambda: metrics.folds(FIELD[:, :1]), ValueError, "one channel for each of its 2 spatial axes"),
        (lambda: metrics.folds(FIELD[:, :, :1], definition="flips"), ValueError, "two voxels along each axis"),
        (lambda: metrics.jacobian_statistics(FIELD[0]), ValueError, "add the batch and channel axes"),
        (lambda: metrics.inverse_consistency(FIELD, FIELD[..., 1:]), ValueError, "displacement and inverse must share"),
        (lambda: metrics.inverse_consistency(FIELD, FIELD / 0), ValueError, "inverse must be finite"),
        (lambda: metrics.tre(FIELD, POINTS, POINTS[:, 1:], spacing=1.0), ValueError, "list the same landmarks in both"),
        (lambda: metrics.tre(FIELD, POINTS[:, :0], POINTS[:, :0], spacing=1.0), ValueError, "with N > 0"),
        (lambda: metrics.tre(FIELD, POINTS, POINTS / 0, spacing=1.0), ValueError, "moving_points must be finite"),
        (lambda: metrics.tre(FIELD, POINTS / 0, POINTS, spacing=1.0), ValueError, "fixed_points must be finite"),
        (lambda: metrics.tre(FIELD, POINTS[..., :1], POINTS[..., :1], spacing=1.0), ValueError, r"\(batch, N, dim\)"),
        (lambda: metrics.tre(FIELD, POINTS, POINTS, spacing=-1.0), ValueError, "spacing must be a positive"),
        (lambda: metrics.evaluate(FIELD, Pair(*torch.ones(2, 1, 1, 5, 7))), ValueError, "fixed and displacement must"),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
