"""Laws of displacement fields, in two and three dimensions, on odd grids that are not square."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.kept import kept_fields, textbook_squaring
from scipy.linalg import expm
from torch import Tensor

from regkit import fields
from regkit._core.grid import determinant, solve
from regkit._core.inversion import fixed_point
from regkit._core.sampler import read

SHAPES = [(31, 23), (17, 23, 19)]
METHODS = ["anderson", "plain", "newton"]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
each_method = pytest.mark.parametrize("method", METHODS)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrices(dim: int, seed: int, strength: float) -> Tensor:
    """One affine matrix (1, dim, dim + 1), float64, near the identity, with a translation below a voxel."""
    change = torch.rand(1, dim, dim + 1, generator=generator(seed), dtype=torch.float64) * 2 - 1
    return torch.eye(dim, dim + 1, dtype=torch.float64) + strength * change


def smooth(shape: tuple[int, ...], seed: int, strength: float = 0.06) -> Tensor:
    """A displacement of a voxel or two: an affine part, and waves so long that linear interpolation errs by < 1e-5."""
    dim = len(shape)
    affine = fields.affine_displacement(matrices(dim, seed, strength), shape)
    phase = fields.identity(shape, like=affine).sum(1, keepdim=True) * (2 * math.pi / 400)
    shift = torch.rand(1, dim, *[1] * dim, generator=generator(seed + 100), dtype=torch.float64) * 6
    return affine + 0.3 * torch.sin(phase + shift)


def rough(shape: tuple[int, ...], seed: int, largest: float, batch: int = 1, spacing: int = 8) -> Tensor:
    """A spline-like step: independent values about every `spacing` voxels, interpolated smoothly; float64."""
    dim = len(shape)
    control = torch.rand(batch, dim, *[max(n // spacing, 2) + 2 for n in shape], generator=generator(seed)).double()
    field = (control * 2 - 1) * largest
    for axis in range(dim):
        lines = field.movedim(axis + 2, -1)
        flat = lines.reshape(1, -1, 1, lines.shape[-1])
        finer = F.interpolate(flat, (1, shape[axis]), mode="bicubic", align_corners=True)
        field = finer.reshape(*lines.shape[:-1], shape[axis]).movedim(-1, axis + 2)
    return field.contiguous()


def inside(tensor: Tensor, margin: int = 5) -> Tensor:
    """What is at least `margin` voxels away from every border."""
    return tensor[(..., *[slice(margin, -margin)] * (tensor.dim() - 2))]


def assert_small(tensor: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(tensor, torch.zeros_like(tensor), atol=tolerance, rtol=0)


def linear_image(shape: tuple[int, ...], slopes: tuple[float, ...]) -> Tensor:
    """An image that is linear in the coordinates: interpolated without error."""
    grid = fields.identity(shape).double()
    return sum(slope * grid[:, axis : axis + 1] for axis, slope in enumerate(slopes, start=0))


# ---------------------------------------------------------------------------------------------- group laws
@each_shape
@each_method
def test_zero_is_its_own_inverse(shape, method):
    zero = torch.zeros(1, len(shape), *shape)
    assert not fields.invert(zero, method=method).any() and not fields.exponential(zero).any()


@each_shape
def test_composition_is_warping_twice(shape):
    u, v = smooth(shape, 1), smooth(shape, 2)
    image = linear_image(shape, (1.0, -2.0, 0.5)[: len(shape)]).square() / 1000
    twice = fields.warp(fields.warp(image, u), v)
    # a product of two linear functions has a constant second derivative of 2 * 4 / 1000: it errs by 1e-3 / warp
    assert_small(inside(twice - fields.warp(image, fields.compose(u, v))), 6e-3)
    plane = linear_image(shape, (1.0, -2.0, 0.5)[: len(shape)])
    once = fields.warp(plane, fields.compose(u, v))
    assert_small(inside(fields.warp(fields.warp(plane, u), v) - once), 1e-4)
    assert inside(once - fields.warp(plane, fields.compose(v, u))).abs().max() > 1e-3  # the order matters


@each_shape
def test_composition_is_associative(shape):
    u, v, w = (smooth(shape, seed) for seed in (3, 4, 5))
    left = fields.compose(fields.compose(u, v), w)
    assert_small(inside(left - fields.compose(u, fields.compose(v, w)), 6), 1e-4)


@each_shape
def test_composition_follows_affine_maps(shape):
    first, then = (matrices(len(shape), seed, 0.05) for seed in (6, 7))
    square = [torch.cat([matrix, torch.eye(len(shape) + 1).double()[None, -1:]], 1) for matrix in (first, then)]
    product = (square[0] @ square[1])[:, :-1]
    composed = fields.compose(*(fields.affine_displacement(matrix, shape) for matrix in (first, then)))
    assert_small(inside(composed - fields.affine_displacement(product, shape)), 1e-10)


@each_shape
@each_method
def test_inverse_on_both_sides(shape, method):
    u = smooth(shape, 8)
    inverse = fields.invert(u, tolerance=1e-9, method=method)
    assert_small(fields.compose(u, inverse), 1e-8)  # everywhere: this is the equation that is solved
    assert_small(inside(fields.compose(inverse, u)), 1e-4)
    assert_small(inside(fields.invert(inverse, tolerance=1e-9, method=method) - u), 1e-4)


@each_method
def test_where_the_map_folds_the_inverse_stays_near(method):
    """No solver throws a voxel farther than the field itself reaches."""
    u = rough((25, 31), 65, 6.0, spacing=4)
    assert (fields.jacobian_determinant(u) < 0).any()
    with pytest.warns(RuntimeWarning, match="the inverse was not reached"):
        inverse = fields.invert(u, method=method)
    assert inverse.isfinite().all() and inverse.abs().max() < 4 * u.abs().max()


@each_shape
@each_method
def test_inverse_of_an_affine_map(shape, method):
    matrix = matrices(len(shape), 9, 0.08)
    square = torch.cat([matrix, torch.eye(len(shape) + 1).double()[None, -1:]], 1)
    expected = fields.affine_displacement(torch.linalg.inv(square)[:, :-1], shape)
    found = fields.invert(fields.affine_displacement(matrix, shape), tolerance=1e-9, method=method)
    assert_small(inside(found - expected), 1e-7)


@each_shape
def test_exponential_of_minus_v_is_the_inverse(shape):
    v = smooth(shape, 10)
    forward, backward = fields.exponential(v, steps=10), fields.exponential(-v, steps=10)
    # exp(v/n) is taken as x + v/n: the two sides differ by about |v|² |Dv| / 2^10
    assert_small(inside(fields.compose(forward, backward)), 1e-3)
    finer = fields.compose(fields.exponential(v, steps=16), fields.exponential(-v, steps=16))
    assert_small(inside(finer), 1e-4)


@each_shape
def test_exponential_of_a_linear_velocity(shape):
    dim = len(shape)
    generator_matrix = 0.8 * (matrices(dim, 11, 0.1) - torch.eye(dim, dim + 1).double())
    velocity = fields.affine_displacement(generator_matrix + torch.eye(dim, dim + 1).double(), shape)
    square = np.zeros((dim + 1, dim + 1))
    square[:dim] = generator_matrix[0].numpy()
    expected = fields.affine_displacement(torch.from_numpy(expm(square)[None, :dim]), shape)
    assert_small(inside(fields.exponential(velocity, steps=14) - expected, 6), 1e-4)
    # halving the step halves the error: the scheme is of first order
    errors = [inside(fields.exponential(velocity, steps=steps) - expected, 6).abs().max() for steps in (5, 6)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)


def test_exponential_without_steps_is_the_velocity_and_takes_another_composition():
    v = smooth(SHAPES[0], 12)
    assert_small(fields.exponential(v, steps=0) - v, 0)
    assert_small(fields.exponential(v, steps=3, composition=torch.add) - v, 1e-12)


# ---------------------------------------------------------------------------------------------- axis, sign, direction
@pytest.mark.parametrize(("shape", "axis"), [(s, a) for s in [(5, 7), (5, 7, 9)] for a in range(len(s))])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_warp_pulls_along_its_axis(shape, axis, mode):
    place = [2] * len(shape)
    image, u = torch.zeros(1, 1, *shape), torch.zeros(1, len(shape), *shape)
    image[(0, 0, *place)] = 1
    u[:, axis] = 1
    place[axis] -= 1  # result[x] = image[x + 1]
    expected = torch.zeros_like(image)
    expected[(0, 0, *place)] = 1
    assert_small(fields.warp(image, u, mode=mode) - expected, 1e-5)
    assert torch.equal(fields.warp_labels((image * 9).int(), u), (expected * 9).int())


@each_shape
def test_warp_of_a_linear_image_is_exact(shape):
    slopes = (0.7, -1.1, 0.3)[: len(shape)]
    u = smooth(shape, 13)
    expected = linear_image(shape, slopes) + sum(s * u[:, i : i + 1] for i, s in enumerate(slopes))
    for mode in ("linear", "cubic"):
        assert_small(inside(fields.warp(linear_image(shape, slopes), u, mode=mode) - expected), 1e-10)


@each_shape
def test_warp_points_agrees_with_warp(shape):
    """A point carried forward reads in the moving image what the warped image shows at the point."""
    u = smooth(shape, 14)
    moving = linear_image(shape, (1.0, 2.0, -1.0)[: len(shape)])
    points = torch.rand(1, 11, len(shape), generator=generator(15), dtype=torch.float64)
    points = 6 + points * (torch.tensor(shape) - 13)

    def value(image: Tensor, places: Tensor) -> Tensor:
        return fields.sample(image, places.movedim(-1, 1).unflatten(2, (-1, *[1] * (len(shape) - 1)))).flatten()

    assert_small(value(fields.warp(moving, u), points) - value(moving, fields.warp_points(points, u)), 1e-4)
    back = fields.warp_points(fields.warp_points(points, u), fields.invert(u, tolerance=1e-9))
    assert_small(back - points, 1e-4)


@each_shape
def test_affine_quarter_turn_is_exact(shape):
    """Rotating by 90 degrees about the centre of a grid with two equal sides permutes its voxels."""
    side = (shape[0], shape[0], *shape[2:])
    quarter = torch.eye(len(side), len(side) + 1)[None].double()
    quarter[0, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    image = torch.rand(1, 1, *side, generator=generator(16), dtype=torch.float64)
    u = fields.affine_displacement(quarter, side)
    # φ(x) - c = (-(x_1 - c), x_0 - c): result[i, j] = image[n - 1 - j, i], so the image turns clockwise in print
    assert_small(fields.warp(image, u) - torch.rot90(image, -1, (2, 3)), 1e-10)
    assert_small(fields.compose(fields.compose(u, u), fields.compose(u, u)), 1e-10)
    places = fields.identity(side, like=u)
    assert_small(fields.move_affinely(places, quarter, side) - places - u, 1e-12)


# ---------------------------------------------------------------------------------------------- Jacobians
@each_shape
def test_jacobian_of_a_linear_map_is_exact(shape):
    matrix = matrices(len(shape), 17, 0.3)
    determinants = fields.jacobian_determinant(fields.affine_displacement(matrix, shape))
    torch.testing.assert_close(determinants, torch.linalg.det(matrix[:, :, :-1]).expand(determinants.shape))


@each_shape
def test_jacobian_of_a_composition_is_the_product(shape):
    u, v = smooth(shape, 18), smooth(shape, 19)
    product = fields.warp(fields.jacobian_determinant(u), v) * fields.jacobian_determinant(v)
    assert_small(inside(fields.jacobian_determinant(fields.compose(u, v)) - product), 1e-4)


@pytest.mark.parametrize("shape", [(1, 5), (2, 3), (70, 40, 45)])
def test_jacobian_is_numpys_gradient_also_across_slabs(shape):
    """The last shape has more voxels than one slab."""
    u = torch.randn(2, len(shape), *shape, generator=generator(20), dtype=torch.float64) / 4
    matrix = np.zeros((2, *shape, len(shape), len(shape)))
    for i, j in itertools.product(range(len(shape)), repeat=2):
        if shape[j] > 1:
            matrix[..., i, j] = np.gradient(u[:, i].numpy(), axis=1 + j)
        matrix[..., i, j] += i == j
    expected = torch.from_numpy(np.linalg.det(matrix))[:, None]
    torch.testing.assert_close(fields.jacobian_determinant(u), expected)


@pytest.mark.parametrize("dim", [2, 3])
def test_algebra_agrees_with_torch(dim):
    matrix = torch.randn(5, dim, dim, 7, generator=generator(21), dtype=torch.float64)
    right = torch.randn(5, dim, 7, generator=generator(22), dtype=torch.float64)
    dense = matrix.movedim(-1, 1)  # (5, 7, dim, dim)
    torch.testing.assert_close(determinant(matrix.unbind(2))[:, 0], torch.linalg.det(dense))
    expected = torch.linalg.solve(dense, right.movedim(-1, 1)[..., None])[..., 0].movedim(-1, 1)
    torch.testing.assert_close(solve(matrix.unbind(2), right), expected)
    assert torch.isfinite(solve(torch.zeros_like(matrix).unbind(2), right)).all()


# ---------------------------------------------------------------------------------------------- labels, modes, borders
@each_shape
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool])
def test_labels_keep_type_and_invent_nothing(shape, dtype):
    numbers = torch.tensor([0, 1, 77, 200])
    if dtype == torch.int64:
        numbers = torch.tensor([0, 2**53 + 1, -(2**62) - 1, 2**31 + 7])  # not even float64 holds these
    labels = numbers[torch.randint(0, 4, (2, 1, *shape), generator=generator(23))].to(dtype)
    u = 2 * smooth(shape, 24).float()
    warped = fields.warp_labels(labels, u)
    assert warped.dtype == dtype and warped.shape == labels.shape
    assert set(warped.unique().tolist()) <= set(labels.unique().tolist())
    numbered = fields.warp((labels == labels.max()).double(), u.double(), mode="nearest")
    agreement = ((warped == labels.max()) == (numbered > 0.5)).double().mean()
    assert agreement > 0.9999  # all but voxels half-way between two, where rounding decides


def test_labels_by_a_half_precision_displacement():
    labels = torch.arange(300 * 3).view(1, 1, 300, 3)
    u = torch.zeros(1, 2, 300, 3, dtype=torch.bfloat16)
    assert torch.equal(fields.warp_labels(labels, u), labels)  # bfloat16 itself counts to 256


@each_shape
def test_cubic_reproduces_quadratics(shape):
    u = smooth(shape, 25)
    slopes = (0.2, -0.1, 0.3)[: len(shape)]
    grid = fields.identity(shape, like=u)

    def quadratic(places: Tensor) -> Tensor:
        return sum(s * places[:, i : i + 1] for i, s in enumerate(slopes)) ** 2 + places[:, :1]

    warped = fields.warp(quadratic(grid), u, mode="cubic")
    assert_small(inside(warped - quadratic(grid + u)), 1e-9)
    assert inside(fields.warp(quadratic(grid), u) - quadratic(grid + u)).abs().max() > 1e-3


@each_shape
def test_nearest_is_rounding(shape):
    image = torch.rand(1, 2, *shape, generator=generator(26))
    u = torch.randint(-3, 4, (1, len(shape), *shape), generator=generator(27)) + 0.3
    rounded = fields.warp(image, u.round())
    assert_small(fields.warp(image, u, mode="nearest") - rounded, 1e-4)


@each_shape
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_outside_is_the_border_or_zero(shape, mode):
    image = 1 + torch.rand(1, 1, *shape, generator=generator(28), dtype=torch.float64)
    far = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
    far[:, -1] = 1000
    last = image[..., -1:].expand_as(image)
    assert_small(fields.warp(image, far, mode=mode, padding="border") - last, 1e-10)
    assert_small(fields.warp(image, far, mode=mode, padding="zeros"), 0)


@each_shape
def test_sample_reads_anywhere(shape):
    image = linear_image(shape, (1.0, 10.0, -3.0)[: len(shape)])
    out = (2, 5, 3)[: len(shape)]
    places = 2 + torch.rand(3, len(shape), *out, generator=generator(29), dtype=torch.float64) * 8
    slopes = torch.tensor((1.0, 10.0, -3.0)[: len(shape)], dtype=torch.float64).view(1, -1, *[1] * len(shape))
    read_there = fields.sample(image, places)
    assert read_there.shape == (3, 1, *out)
    assert_small(read_there - (slopes * places).sum(1, keepdim=True), 1e-9)


@each_shape
def test_a_batch_of_one_broadcasts(shape):
    images = torch.rand(3, 2, *shape, generator=generator(30), dtype=torch.float64)
    u = torch.cat([smooth(shape, seed) for seed in (31, 32, 33)])
    apart = torch.cat([fields.warp(images[:1], u[i : i + 1]) for i in range(3)])
    assert torch.equal(fields.warp(images[:1], u), apart)
    assert torch.equal(fields.warp(images, u[:1])[2:], fields.warp(images[2:], u[:1]))
    assert fields.compose(u[:1], u).shape == fields.compose(u, u[:1]).shape == u.shape
    labels = (images[:, :1] * 9).long()
    assert torch.equal(fields.warp_labels(labels, u[:1])[1:2], fields.warp_labels(labels[1:2], u[:1]))
    assert fields.warp_labels(labels[:1], u).shape == labels.shape


# ---------------------------------------------------------------------------------------------- sizes and units
@each_shape
def test_resizing_is_exact_on_linear_things(shape):
    finer = tuple(2 * n + 1 for n in shape)
    image = linear_image(shape, (1.0, -1.0, 2.0)[: len(shape)])
    resized = fields.resize(image, finer)
    corner = (..., *[slice(None, None, n - 1) for n in shape])
    assert_small(resized[(..., *[slice(None, None, n - 1) for n in finer])] - image[corner], 1e-12)
    assert_small(fields.resize(resized, shape) - image, 1e-12)
    matrix = matrices(len(shape), 34, 0.1)
    matrix[..., -1] = 0
    scales = torch.tensor([(new - 1) / (old - 1) for new, old in zip(finer, shape, strict=True)], dtype=torch.float64)
    matrix_finer = torch.cat([scales[:, None] * matrix[..., :-1] / scales, matrix[..., -1:]], 2)
    resized = fields.resize_displacement(fields.affine_displacement(matrix, shape), finer)
    assert_small(resized - fields.affine_displacement(matrix_finer, finer), 1e-10)


@each_shape
def test_upsampling_by_cells_keeps_the_world(shape):
    """Coarse voxel k covers fine voxels 2k and 2k + 1: its centre is at 2k + 1/2, and so must be what it maps to."""
    finer = tuple(2 * n for n in shape)
    matrix = matrices(len(shape), 35, 0.1)  # about the centre, which both grids share
    matrix_finer = matrix.clone()
    matrix_finer[..., -1] *= 2
    up = fields.upsample(fields.affine_displacement(matrix, shape))
    assert_small(inside(up - fields.affine_displacement(matrix_finer, finer), 1), 1e-10)


@each_shape
def test_upsampling_by_corners_doubles_the_values(shape):
    u = smooth(shape, 36)
    up = fields.upsample(u, alignment="corners")
    assert up.shape[2:] == tuple(2 * n for n in shape)
    assert_small(up - 2 * fields.resize(u, up.shape[2:]), 1e-12)  # which keeps the corners


@each_shape
def test_units_round_trip_and_have_the_right_size(shape):
    u = smooth(shape, 37)
    there = fields.voxels_to_normalized(u, align_corners=False)
    assert_small(fields.normalized_to_voxels(there, align_corners=False) - u, 1e-12)
    extent = torch.ones_like(u) * (torch.tensor(shape) - 1.0).view(1, -1, *[1] * len(shape))  # corner to corner
    assert_small(fields.voxels_to_normalized(extent) - 2, 1e-12)
    assert_small(fields.voxels_to_unit(extent) - 1, 1e-12)
    assert_small(fields.voxels_to_normalized(extent + 1, align_corners=False) - 2, 1e-12)
    assert torch.equal(fields.reverse_components(u)[:, 0], u[:, -1])


@each_shape
def test_warp_agrees_with_the_sampler_in_its_own_units(shape):
    """The one place where torch's convention is written a second time, to hold ours against it."""
    image = torch.rand(2, 3, *shape, generator=generator(38), dtype=torch.float64)
    u = torch.cat([smooth(shape, 39), rough(shape, 40, 3.0)])
    places = fields.voxels_to_normalized(fields.identity(shape, like=u) + u) - 1
    grid = fields.reverse_components(places).movedim(1, -1)
    for padding in ("border", "zeros"):
        expected = F.grid_sample(image, grid, padding_mode=padding, align_corners=True)
        assert_small(fields.warp(image, u, padding=padding) - expected, 1e-10)


# ---------------------------------------------------------------------------------------------- gradients
def tiny(shape: tuple[int, ...], seed: int, channels: int | None = None) -> Tensor:
    values = torch.rand(2, channels or len(shape), *shape, generator=generator(seed), dtype=torch.float64) - 0.5
    return values.requires_grad_()


def assert_gradient(function, *inputs: Tensor, tolerance: float = 1e-3) -> None:
    """Backward against finite differences: of every number in 2D, along random directions in 3D."""
    fast = inputs[0].dim() == 5
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=tolerance, rtol=tolerance, fast_mode=fast)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4)], ids=["2D", "3D"])
@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_gradients_of_reading(shape, padding, mode):
    image, u = tiny(shape, 41, 1), tiny(shape, 42)
    assert_gradient(lambda i, d: fields.warp(i, d, mode=mode, padding=padding), image, u)
    places = (1 + tiny((2, 1, 2)[: len(shape)], 43).detach()).requires_grad_()
    assert_gradient(lambda i, p: fields.sample(i, p, mode=mode, padding=padding), image, places)
    assert_gradient(lambda d: fields.warp(image.detach(), d, mode=mode, padding=padding), u)
    assert_gradient(lambda i: fields.warp(i[:1], u.detach(), mode=mode, padding=padding), image)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 3)], ids=["2D", "3D"])
def test_gradients_of_the_group(shape):
    assert_gradient(fields.compose, tiny(shape, 44), tiny(shape, 45))
    assert_gradient(lambda v: fields.exponential(v, steps=3), tiny(shape, 46))
    assert_gradient(fields.jacobian_determinant, tiny(shape, 47))
    for method in METHODS:
        u = (0.6 * tiny(shape, 48).detach()).requires_grad_()
        assert_gradient(lambda v, m=method: fields.invert(v, tolerance=1e-11, max_iterations=500, method=m), u)


@each_shape
def test_gradient_of_a_sum_reads_the_same_in_slabs(shape, monkeypatch):
    """An expanded gradient (of a sum) and slabs of one plane give what a whole volume gives."""
    image = torch.rand(2, 2, *shape, generator=generator(49), dtype=torch.float64)
    u = torch.cat([smooth(shape, 50), smooth(shape, 51)]).requires_grad_()

    def everything() -> list[Tensor]:
        whole = fields.warp(image, u)
        gradients = [torch.autograd.grad(value.sum(), u)[0] for value in (whole, fields.invert(u, tolerance=1e-9))]
        newton = fields.invert(u, method="newton")
        return [whole, *gradients, newton, fields.jacobian_determinant(u)]

    expected = everything()
    monkeypatch.setattr("regkit._core.grid._SLAB_VOXELS", 1)
    torch.testing.assert_close(everything(), expected, atol=1e-12, rtol=0)


# ---------------------------------------------------------------------------------------------- the inverse's solvers
@each_shape
@each_method
def test_small_smooth_steps_invert_in_seven_evaluations(shape, method):
    """Steps as SITReg makes them: control values up to 0.15 of their spacing of 8 voxels."""
    u = rough(shape, 52, 0.15 * 8).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inverse = fields.invert(u, max_iterations=7, method=method)
        tight = fields.invert(u, tolerance=1e-4, method=method)
    assert_small(fields.compose(u, inverse), 1.1e-2)  # the last step is below 1e-2, which is not quite the error
    assert_small(fields.compose(u, tight), 1.1e-4)


@each_shape
def test_newton_inverts_where_the_plain_iteration_cannot(shape):
    """φ(x) = 2.6 x about the centre stretches: u itself is no contraction, so that z <- -u(x + z) diverges."""
    dim = len(shape)
    matrix = torch.cat([2.6 * torch.eye(dim), torch.zeros(dim, 1)], 1)[None].double()
    u = fields.affine_displacement(matrix, shape)
    assert_small(fields.compose(u, fields.invert(u, method="newton")), 1e-2)
    with pytest.warns(RuntimeWarning, match=r"the inverse was not reached: .* is left after 50 iterations"):
        fields.invert(u, method="plain")


@each_method
def test_items_of_a_batch_do_not_touch_each_other(method):
    easy, hard = 0.1 * rough((21, 27), 53, 1.0), rough((21, 27), 54, 1.8)
    folded = 30 * rough((21, 27), 55, 1.0, spacing=3)
    alone = [fields.invert(u, method=method) for u in (easy, hard)]
    with pytest.warns(RuntimeWarning, match="the inverse was not reached"):
        together = fields.invert(torch.cat([easy, folded, hard]), max_iterations=30, method=method)
    for item, expected in zip((0, 2), alone, strict=True):
        torch.testing.assert_close(together[item : item + 1], expected, atol=1e-12, rtol=0)


def test_anderson_takes_fewer_steps_than_the_plain_iteration():
    """On a linear contraction of dimension 3, a memory of 4 finds the fixed point in 5 evaluations."""
    matrix = torch.tensor([[0.9, 0.2, 0.0], [-0.3, 0.8, 0.1], [0.0, -0.2, 0.7]], dtype=torch.float64)
    start = torch.zeros(1, 3, dtype=torch.float64)
    goal = torch.linalg.solve(torch.eye(3).double() - matrix, torch.ones(3).double())
    few, many = (fixed_point(lambda x: x @ matrix.T + 1, start, 1e-5, 6, memory) for memory in (4, 1))
    assert_small(few.value - goal, 1e-3)
    assert few.left < 1e-5 < 0.1 < many.left


def test_the_last_evaluation_counts():
    """Halving from 1: the steps are 1/2, 1/4, 1/8; three evaluations reach 0.2, two do not."""
    start = torch.ones(1, 1)
    assert fixed_point(lambda x: x / 2, start, 0.2, 3, 1).left == 0.125
    assert fixed_point(lambda x: x / 2, start, 0.2, 2, 1).left == 0.25
    assert fixed_point(lambda x: x / 2, start, 0.2, 50, 1).value == 0.125


# ---------------------------------------------------------------------------------------------- what the gradient keeps
@each_shape
def test_what_is_kept_for_the_gradient(shape):
    u, v = (smooth(shape, seed).float().requires_grad_() for seed in (56, 57))
    assert kept_fields(textbook_squaring, u) == 15
    assert kept_fields(fields.exponential, u) == 8  # u_0 … u_6 and the result
    for method in METHODS:
        assert kept_fields(lambda a, b, m=method: fields.compose(a, fields.invert(b, method=m)), u, v) == 2
    assert kept_fields(lambda a: fields.warp(a[:, :1].detach(), a), u) <= 1  # its own result: smaller than a field


# ---------------------------------------------------------------------------------------------- checks
@pytest.mark.parametrize(("operation", "most"), [("warp", 2), ("compose", 2), ("exponential", 1), ("invert", 1)])
def test_values_are_checked_once_at_the_door(operation, most, monkeypatch):
    """Squarings and solvers trust their own results."""
    checked = []
    monkeypatch.setattr("regkit.types.check_finite", lambda tensor, name: checked.append(name))
    u = smooth(SHAPES[0], 64)
    getattr(fields, operation)(*[u] * {"warp": 2, "compose": 2}.get(operation, 1))
    assert len(checked) == most


# ---------------------------------------------------------------------------------------------- precision
@each_shape
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_keep_precise_positions(shape, dtype):
    image = torch.rand(1, 1, *shape, generator=generator(58))
    u = smooth(shape, 59).float()
    warped = fields.warp(image.to(dtype), u)
    assert warped.dtype == dtype
    torch.testing.assert_close(warped, fields.warp(image.to(dtype).float(), u).to(dtype))
    half = u.to(dtype)
    for function in (fields.exponential, fields.invert, fields.upsample, fields.jacobian_determinant):
        assert function(half).dtype == torch.float32
        torch.testing.assert_close(function(half), function(half.float()))
    assert fields.compose(half, half).dtype == torch.float32
    assert fields.identity((300,), like=half)[0, 0, 257] == 257


@each_shape
def test_autocast_changes_no_position(shape):
    u, matrix = smooth(shape, 60).float().requires_grad_(), matrices(len(shape), 61, 0.1).float()
    functions = {
        "exponential": lambda: fields.exponential(u),
        "invert": lambda: fields.invert(u),
        "newton": lambda: fields.invert(u, method="newton"),
        "compose": lambda: fields.compose(u, u),
        "affine": lambda: fields.affine_displacement(matrix, shape),
        "gradient": lambda: torch.autograd.grad(fields.invert(fields.exponential(u)).square().sum(), u)[0],
        "resize": lambda: fields.resize_displacement(u, [n + 4 for n in shape]),
    }
    for name, function in functions.items():
        with torch.autocast("cpu", torch.bfloat16):
            inside_autocast = function()
        assert inside_autocast.dtype == torch.float32, name
        assert torch.equal(inside_autocast, function()), name


@each_shape
def test_float64_is_kept(shape):
    u = smooth(shape, 62)
    for result in (fields.exponential(u), fields.invert(u), fields.compose(u, u.float()), fields.compose(u.float(), u)):
        assert result.dtype == torch.float64
    assert fields.warp(u.float(), u).dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 6), (6, 1, 5)])
def test_axes_of_one_voxel_work(shape):
    u = 0.2 * torch.rand(1, len(shape), *shape, generator=generator(63))
    for method in METHODS:
        assert_small(fields.compose(u, fields.invert(u, method=method, tolerance=1e-4)), 2e-4)
    assert torch.isfinite(fields.exponential(u)).all()
    assert torch.isfinite(fields.resize_displacement(u, [n + 1 for n in shape])).all()
    assert read(u, u, relative=True).shape == u.shape


@pytest.mark.parametrize("voxels", [1, 12, 2**17])
@pytest.mark.parametrize("shape", [(2, 5), (1, 7), (6, 1), (3, 2, 9), (6, 4, 5), (1, 1, 3), (5, 1, 2)])
def test_differences_are_the_same_where_a_gradient_is_asked_for(shape, voxels, monkeypatch):
    """Also in slabs of one plane or a few, and from a field that lies otherwise in memory."""
    u = torch.randn(2, len(shape), *shape, dtype=torch.float64)
    expected = fields.jacobian_determinant(u.clone().requires_grad_()).detach()
    monkeypatch.setattr("regkit._core.grid._SLAB_VOXELS", voxels)
    before = u.clone()
    for field in (u, u.movedim(-1, 2).contiguous().movedim(2, -1), u.clone().requires_grad_()):
        assert torch.equal(fields.jacobian_determinant(field).detach(), expected)
    assert torch.equal(u, before)
