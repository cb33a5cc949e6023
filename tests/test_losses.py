"""Losses: plain loops, laws, parity with the published programs, and messages."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.parity import Entries
from helpers.recipe import image_pair
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from regkit import losses
from regkit._core import windows
from regkit.fields import affine_displacement, identity

SHAPES = [(11, 14), (9, 12, 10)]
GRADICON = Entries("gradicon")


def images(shape: tuple[int, ...], *, batch: int = 2, channels: int = 1, seed: int = 0, **options) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    options.setdefault("dtype", torch.float64)
    return [torch.rand(batch, channels, *shape, generator=generator, **options) for _ in range(2)]


def field(shape: tuple[int, ...], *, batch: int = 2, seed: int = 0, size: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(batch, len(shape), *shape, dtype=torch.float64, generator=generator)


# ---------------------------------------------------------------------------------------------- similarities
def plain_lncc(warped: Tensor, fixed: Tensor, window: int, epsilon: float) -> Tensor:
    """The docstring's formula with dense sums."""
    dim, channels = warped.dim() - 2, warped.shape[1]
    kernel = warped.new_ones(channels, 1, *[window] * dim)

    def total(image: Tensor) -> Tensor:
        return (F.conv2d if dim == 2 else F.conv3d)(image, kernel, padding=window // 2, groups=channels)

    count = window**dim
    cross = total(warped * fixed) - total(warped) * total(fixed) / count
    variances = [total(image**2) - total(image) ** 2 / count for image in (warped, fixed)]
    return -(cross**2 / (variances[0] * variances[1] + epsilon)).mean()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [3, 5, 7, 9])
@pytest.mark.parametrize("slab", [(1, 1), (700, 200), (2**18, 2**18)])  # little, some, everything at once
def test_lncc_is_the_plain_formula(shape, window, slab, monkeypatch):
    monkeypatch.setitem(windows._SLAB_VOXELS, "cpu", slab)
    pair = [image.requires_grad_() for image in images(shape, batch=3, channels=2)]
    value, expected = losses.lncc(*pair, window=window), plain_lncc(*pair, window, 1e-5)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    gradients, targets = (torch.autograd.grad(3 * score, pair) for score in (value, expected))
    torch.testing.assert_close(gradients, targets, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("level", [1.0, 1000.0])
@pytest.mark.parametrize("shape", [(40, 44), (22, 20, 24)])
def test_lncc_is_exact_in_a_bright_flat_region(shape, level):
    """Where sums of squares would cancel: structure of 1e-3 of the brightness, in float32, borders included.

    The value of the plain formula in float32 is wrong by some percent here. In the gradient the first powers of
    brightness still cancel: 1e3 times float32's 6e-8, in each of a few sums.
    """
    warped, fixed = (level * (1 + 1e-3 * (image - 0.5)).float() for image in images(shape, batch=1))
    epsilon = 1e-5 * level**4 * 1e-6
    warped.requires_grad_()
    value = losses.lncc(warped, fixed, epsilon=epsilon)
    precise = warped.detach().double().requires_grad_()
    expected = plain_lncc(precise, fixed.double(), 9, epsilon)
    torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=0)
    rough = plain_lncc(warped.detach(), fixed, 9, epsilon).double()
    assert abs(rough - expected) > 100 * abs(value - expected)
    (gradient,), (target,) = torch.autograd.grad(value, warped), torch.autograd.grad(expected, precise)
    assert (gradient - target).norm() < 1e-3 * target.norm()


def plain_lncc_gaussian(warped: Tensor, fixed: Tensor, normalise_border: bool = False) -> Tensor:
    """The formula as it is printed, G(X²) - G(X)²."""
    weight = losses.gaussian_blur(torch.ones_like(warped), 5.0) if normalise_border else 1.0
    means = [losses.gaussian_blur(image, 5.0) / weight for image in (warped, fixed)]
    both = [(warped, warped, 0, 0), (fixed, fixed, 1, 1), (warped, fixed, 0, 1)]
    covariances = [losses.gaussian_blur(a * b, 5.0) / weight - means[i] * means[j] for a, b, i, j in both]
    return 1 - (covariances[2] / ((covariances[0] + 1e-5) * (covariances[1] + 1e-5)).sqrt()).mean()


FORMULAS = {  # a measure, and its formula as it is printed
    "lncc": (losses.lncc, lambda *pair: plain_lncc(*pair, 9, 1e-5)),
    "lncc_gaussian": (losses.lncc_gaussian, plain_lncc_gaussian),
    "normalised": (
        lambda *pair: losses.lncc_gaussian(*pair, normalise_border=True),
        lambda *pair: plain_lncc_gaussian(*pair, True),
    ),
}


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 10)])
@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("name", FORMULAS)
def test_one_gradient_alone_is_that_of_the_formula(shape, own, name):
    pair = images(shape, channels=2)
    pair[own].requires_grad_()
    value, expected = (way(*pair) for way in FORMULAS[name])
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    (gradient,), (target,) = (torch.autograd.grad(score, pair[own]) for score in (value, expected))
    torch.testing.assert_close(gradient, target, rtol=1e-9, atol=1e-15)


OFFSET_TOLERANCES = {  # of the gradient: all bright; half dark, of what sees more there than the border of that half
    "lncc": (1e-3, 2e-2),  # the first powers of brightness cancel in its gradient
    "lncc_gaussian": (1e-3, 3e-3),
    "normalised": (1e-4, 3e-3),
    "mindssc": (1e-4, None),
    "adaptive_ncc": (1e-4, None),
    "ncc": (1e-5, None),
}


@pytest.mark.parametrize("offset", [2**8 - 1, 2**12 - 1, 2**16 - 1])
@pytest.mark.parametrize("shape", [(40, 44), (22, 20, 24)])
@pytest.mark.parametrize(
    ("similarity", "dark", "tolerance"),
    [(name, dark, row[dark]) for name, row in OFFSET_TOLERANCES.items() for dark in (False, True) if row[dark]],
)
def test_similarities_keep_their_digits_on_bright_images(offset, shape, similarity, dark, tolerance):
    """Structure of one unit on the brightness of 8, 12 and 16 bits in float32, against float64: value and gradient."""
    ways = FORMULAS | {"adaptive_ncc": (lambda *pair: losses.adaptive_ncc(*pair, levels=3),) * 2}
    measure, reference = ways.get(similarity, (getattr(losses, similarity, None),) * 2)
    first, second = images(shape, batch=1, dtype=torch.float32)
    warped, fixed = ((offset + 2 * image).float() for image in (first, (first + second) / 2))
    if dark:
        warped[..., : shape[-1] // 2] = fixed[..., : shape[-1] // 2] = 0
    precise = warped.double().requires_grad_()
    value, expected = measure(warped.requires_grad_(), fixed), reference(precise, fixed.double())
    assert value.item() == pytest.approx(expected.item(), abs=5e-5)
    (gradient,), (target,) = torch.autograd.grad(value, warped), torch.autograd.grad(expected, precise)
    assert (gradient - target).norm() < tolerance * target.norm()


def test_gaussian_windows_do_not_depend_on_the_parts_they_are_made_in(monkeypatch):
    pair = [image.requires_grad_() for image in images((9, 12, 10), channels=2)]
    whole = torch.autograd.grad(losses.lncc_gaussian(*pair, sigma=2), pair)
    monkeypatch.setattr(windows, "_LINES_VOXELS", 700)
    parts = torch.autograd.grad(losses.lncc_gaussian(*pair, sigma=2), pair)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-18)


def test_lncc_of_a_flat_region_is_nothing():
    flat = torch.full((1, 1, 24, 22, 20), 1234.567)
    score = losses.lncc(flat.requires_grad_(), flat.detach())  # windows over the border see an edge
    inside = plain_lncc(torch.zeros(1, 1, 24, 22, 20).double(), torch.zeros(1, 1, 24, 22, 20).double(), 9, 1e-5)
    edges = 1 - 16 * 14 * 12 / (24 * 22 * 20)
    assert inside == 0
    assert score.item() == pytest.approx(-edges, rel=1e-6)
    (gradient,) = torch.autograd.grad(score, flat)
    assert gradient[..., 8:-8, 8:-8, 8:-8].abs().max() == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("similarity", ["lncc", "ncc", "lncc_gaussian", "adaptive_ncc"])
def test_correlations_do_not_see_brightness_and_contrast(shape, similarity):
    """Exact where no border of zeros is inside a window; the local measures are therefore compared on padded images."""
    warped, fixed = (F.pad(image - 0.5, [9] * 2 * len(shape)) for image in images(shape))
    options = {"lncc": {"epsilon": 1e-14}, "lncc_gaussian": {"sigma": 2.0}, "adaptive_ncc": {"levels": 3}, "ncc": {}}
    options = options[similarity]
    measure = getattr(losses, similarity)
    changed = 50.0 * warped + (7.0 if similarity == "ncc" else 0.0)
    scale = 1.0 if similarity != "lncc_gaussian" else 100.0  # so that its fixed 1e-5 does not count
    value = measure(scale * warped, scale * fixed, **options)
    torch.testing.assert_close(measure(scale * changed, scale * fixed, **options), value, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("shape", [(40, 44), (22, 20, 24)])
def test_lncc_does_not_see_brightness_inside(shape):
    warped, fixed = images(shape, batch=1)
    inside = (..., *[slice(4, -4)] * len(shape))
    gradients = []
    for image in (warped, 3 * warped + 5):
        image.requires_grad_()
        (gradient,) = torch.autograd.grad(losses.lncc(image, fixed, epsilon=1e-12), image)
        gradients.append(gradient)
    deep = (..., *[slice(8, -8)] * len(shape))  # voxels that no window over the border reads
    torch.testing.assert_close(3 * gradients[1][deep], gradients[0][deep], rtol=1e-6, atol=1e-12)
    assert not torch.allclose(3 * gradients[1][inside], gradients[0][inside], rtol=1e-2)


@pytest.mark.parametrize("similarity", ["mse", "ncc", "lncc", "lncc_gaussian", "adaptive_ncc", "dice"])
@pytest.mark.parametrize("shape", SHAPES)
def test_similarities_are_symmetric_scalars_lowest_for_equal_images(similarity, shape):
    measure = getattr(losses, similarity)
    options = {"levels": 3} if similarity == "adaptive_ncc" else {}
    warped, fixed = images(shape)
    value = measure(warped, fixed, **options)
    assert value.dim() == 0
    torch.testing.assert_close(measure(fixed, warped, **options), value, rtol=1e-12, atol=0)
    sharp = (warped > 0.5).double()
    assert measure(sharp, sharp, **options) < measure(sharp, fixed, **options)


def test_similarities_by_hand():
    warped, fixed = images((3, 4), channels=2)
    difference = (warped - fixed).numpy()
    assert losses.mse(warped, fixed).item() == pytest.approx((difference**2).mean())
    mask = (torch.arange(12.0, dtype=torch.float64) / 12).view(1, 1, 3, 4)
    weighted = [(mask[0].numpy() * d**2).sum() / (2 * mask.sum().item()) for d in difference]
    assert losses.mse(warped, fixed, mask=mask).item() == pytest.approx(np.mean(weighted))
    correlations = [np.corrcoef(warped[i, j].flatten(), fixed[i, j].flatten())[0, 1] for i, j in np.ndindex(2, 2)]
    assert losses.ncc(warped, fixed).item() == pytest.approx(1 - np.mean(correlations))
    a, b = warped.flatten(2), fixed.flatten(2)
    expected = 1 - (2 * (a * b).sum(2) / (a.sum(2) + b.sum(2))).mean()
    assert losses.dice(warped, fixed).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("level", [0.3, 1000.1, 1e6 + 0.7, 1e12])
@pytest.mark.parametrize("shape", SHAPES)
def test_ncc_of_constant_images_is_one_however_bright(shape, level):
    flat = torch.full((2, 1, *shape), level, requires_grad=True)
    score = losses.ncc(flat, flat.detach())
    assert score.item() == 1
    assert torch.autograd.grad(score, flat)[0].isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_mask_is_refused(shape):
    warped, fixed = images(shape)
    mask = torch.ones_like(warped)
    mask[1] = 0
    with pytest.raises(ValueError, match=r"mask must keep at least one voxel, received one that keeps 0; give every"):
        losses.mse(warped, fixed, mask=mask)
    thin = torch.zeros_like(warped)
    thin[:, :, 2:4] = 1
    assert losses.mse(warped, fixed, mask=thin).isfinite()
    with pytest.raises(ValueError, match="received one that keeps 0; give a mask with a whole window of ones"):
        losses.lncc_gaussian(warped, fixed, sigma=2, mask=thin)


def test_ncc_and_dice_of_nothing():
    flat, other = torch.full((1, 1, 6, 5), 0.3, requires_grad=True), images((6, 5), batch=1)[0].float()
    score = losses.ncc(flat, other)
    assert score.item() == pytest.approx(1, abs=1e-4)
    assert torch.autograd.grad(score, flat)[0].isfinite().all()
    empty = torch.zeros(1, 3, 6, 5)
    assert losses.dice(empty, empty) == 0
    assert losses.dice(empty, empty + 1).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 8)])
def test_other_similarities_gradcheck(shape):
    pair = [image.requires_grad_() for image in images(shape, batch=1)]
    options = {"eps": 1e-6, "atol": 1e-6, "fast_mode": True}
    assert gradcheck(losses.ncc, pair, **options)
    assert gradcheck(losses.dice, pair, **options)
    assert gradcheck(lambda a, b: losses.lncc_gaussian(a, b, sigma=1.5, normalise_border=True), pair, **options)
    assert gradcheck(lambda a, b: losses.adaptive_ncc(a, b, levels=2, weighting="mean"), pair, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_a_convolution_with_zeros_outside(shape):
    image = images(shape, channels=2)[0]
    taps = torch.tensor([math.exp(-(step**2) / 8) for step in range(-4, 5)], dtype=torch.float64)
    kernel = torch.ones((), dtype=torch.float64)
    for _ in shape:
        kernel = kernel[..., None] * taps / taps.sum()
    kernel = kernel.expand(2, 1, *kernel.shape)
    expected = (F.conv2d if len(shape) == 2 else F.conv3d)(image, kernel, padding=4, groups=2)
    torch.testing.assert_close(losses.gaussian_blur(image, 2.0), expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda x: losses.gaussian_blur(x, 2.0), image.requires_grad_(), fast_mode=True)


def test_normalised_border_keeps_a_constant():
    flat = torch.full((1, 1, 12, 13), 5.0, dtype=torch.float64)
    other = images((12, 13), batch=1)[0]
    assert losses.lncc_gaussian(flat, other, sigma=2.0, normalise_border=True).item() == pytest.approx(1, abs=1e-9)
    assert losses.lncc_gaussian(flat, other, sigma=2.0).item() < 0.9


def test_the_descriptor_of_half_precision_is_computed_in_float32():
    half = images((11, 14), dtype=torch.float32)[0].half()
    found = losses.mindssc_descriptor(half)
    assert found.dtype == torch.float32 and torch.equal(found, losses.mindssc_descriptor(half.float()))


@pytest.mark.parametrize("shape", SHAPES)
def test_mindssc_by_loops(shape):
    """Every voxel and edge on its own, with patches cut out of an image continued by its border."""
    image = images(shape, batch=1)[0]
    radius, dilation, dim = 1, 2, len(shape)
    wide = np.pad(image[0, 0].numpy(), 2 * (radius + dilation), mode="edge")
    edges = [
        (one, other)
        for first, second in itertools.combinations(range(dim), 2)
        for signs in itertools.product((-1, 1), repeat=2)
        for one, other in [
            [sign * dilation * np.eye(dim, dtype=int)[axis] for axis, sign in zip((first, second), signs, strict=True)]
        ]
    ]
    assert len(edges) == {2: 4, 3: 12}[dim]
    offsets = [np.array(step) for step in itertools.product(range(-radius, radius + 1), repeat=dim)]

    def squared(voxel, one, other):
        voxel = np.clip(voxel, 0, np.array(shape) - 1)  # differences continue by their border, not the image
        middle = voxel + 2 * (radius + dilation)
        return (wide[tuple(middle + one)] - wide[tuple(middle + other)]) ** 2

    distances = np.array(
        [
            [np.mean([squared(np.array(voxel) + step, *edge) for step in offsets]) for voxel in np.ndindex(*shape)]
            for edge in edges
        ]
    )
    excess = distances - distances.min(0)
    variance = excess.mean(0)
    expected = np.exp(-excess / variance.clip(variance.mean() / 1000, variance.mean() * 1000))
    found = losses.mindssc_descriptor(image, radius=radius, dilation=dilation)
    np.testing.assert_allclose(found[0].flatten(1), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_mindssc_does_not_see_what_two_modalities_change(shape):
    """Brightness, contrast and their sign change nothing; a shift of the structures does."""
    image, other = images(shape)
    assert losses.mindssc(image, 3 - 50 * image).item() == pytest.approx(0, abs=1e-20)
    assert losses.mindssc(image, image.roll(1, -1)) > 0.01
    torch.testing.assert_close(losses.mindssc(5 - image, other), losses.mindssc(image, 2 * other))
    assert losses.mindssc(torch.ones_like(image), torch.zeros_like(image)) == 0
    parts = [losses.mindssc(a[None], b[None]) for a, b in zip(image, other, strict=True)]
    torch.testing.assert_close(losses.mindssc(image, other), torch.stack(parts).mean())


def test_mindssc_gradcheck():
    pair = [image.requires_grad_() for image in images((6, 7), batch=1)]
    assert gradcheck(lambda a, b: losses.mindssc(a, b, radius=1, dilation=1), pair)


# ---------------------------------------------------------------------------------------------- parity
def fixture_pair(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    first, second = image_pair((32, 40, 36), 11)
    second = second if kind == "AB" else np.float32(0.8) * first + np.float32(0.2) * second
    return tuple(torch.from_numpy(image)[None, None].to(dtype) for image in (first, second))


def inside_mask(image: Tensor) -> Tensor:
    mask = torch.zeros_like(image)
    mask[..., 1:-1, 1:-1, 1:-1] = 1
    return mask


SIMILARITIES = {
    "ssd": losses.mse,
    "ncc": losses.ncc,
    "lncc2": lambda a, b: losses.lncc_gaussian(a, b, sigma=2),
    "lncc5": lambda a, b: losses.lncc_gaussian(a, b, sigma=5),
    "sqlncc2": lambda a, b: losses.lncc_gaussian(a, b, sigma=2, squared=True),
    "blurssd2": lambda a, b: losses.mse(losses.gaussian_blur(a, 2), losses.gaussian_blur(b, 2)),
    "adaptive_g15": lambda a, b: losses.adaptive_ncc(a, b, beta=1.5, offset=1),
    "adaptive_g13": lambda a, b: losses.adaptive_ncc(a, b, offset=1),
    "ssdinterp": lambda a, b: losses.mse(a, b, mask=inside_mask(a)),
    "mindssc22": losses.mindssc,
    "lnccinterp2": lambda a, b: losses.lncc_gaussian(a, b, sigma=2, mask=inside_mask(a)),
}


@pytest.mark.parametrize("kind", ["AB", "AC"])
@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [(torch.float64, "f64", 1e-5), (torch.float32, "f32", 1e-4)])
def test_similarities_are_those_of_gradicons_program(kind, name, dtype, suffix, tolerance):
    value = SIMILARITIES[name](*fixture_pair(kind, dtype)).item()
    assert value == pytest.approx(float(GRADICON[f"sim_{kind}_{name}_{suffix}"]), rel=tolerance)


@pytest.mark.parametrize("kind", ["AB", "AC"])
@pytest.mark.parametrize(
    ("name", "options"), [("official13", {"offset": 1}), ("paper8", {}), ("paper7", {"weighting": "parameter-free"})]
)
def test_adaptive_terms_weights_and_values(kind, name, options):
    pair = fixture_pair(kind)
    parts = losses.adaptive_ncc_terms(*pair, **options)
    np.testing.assert_allclose(parts.terms[0], GRADICON[f"sim_{kind}_adaptive_terms_f64"], rtol=1e-5)
    np.testing.assert_allclose(parts.gammas[0], GRADICON[f"sim_{kind}_adaptive_gamma_{name}_f64"], rtol=1e-5)
    recursion = parts.terms[0, 0]
    for term, gamma in zip(parts.terms[0, 1:], parts.gammas[0], strict=True):
        recursion = gamma * term + (1 - gamma) * recursion
    value = losses.adaptive_ncc(*pair, **options)
    torch.testing.assert_close(value, recursion)
    assert parts.weights.sum().item() == pytest.approx(1)
    assert value.item() == pytest.approx(float(GRADICON[f"sim_{kind}_adaptive_{name}_f64"]), rel=1e-5)


@pytest.mark.parametrize("kind", ["AB", "AC"])
def test_adaptive_weights_carry_no_gradient(kind):
    warped, fixed = fixture_pair(kind)
    warped.requires_grad_()
    (gradient,) = torch.autograd.grad(losses.adaptive_ncc(warped, fixed, offset=1), warped)
    expected = float(GRADICON[f"sim_{kind}_adaptive_g13_grad_norm_f64"])
    assert gradient.norm().item() == pytest.approx(expected, rel=1e-5)


def test_adaptive_versions():
    pair = images((33, 36), batch=3)
    parts = losses.adaptive_ncc_terms(*pair, weighting="mean")
    torch.testing.assert_close(losses.adaptive_ncc(*pair, weighting="mean"), parts.terms.mean())
    opposite = losses.adaptive_ncc_terms(pair[0], -pair[0], weighting="parameter-free")
    assert opposite.terms.min() > 1
    assert (opposite.gammas == 1).all()
    assert torch.equal(opposite.weights, torch.tensor([0.0, 0, 0, 0, 1]).double().expand(3, 5))
    alone = torch.stack([losses.adaptive_ncc(a[None], b[None]) for a, b in zip(*pair, strict=True)]).mean()
    torch.testing.assert_close(losses.adaptive_ncc(*pair), alone)  # each sample has its own weights


# ---------------------------------------------------------------------------------------------- smoothness
def plain_diffusion(displacement: Tensor) -> Tensor:
    axes = range(2, displacement.dim())
    return torch.stack([displacement.diff(dim=axis).square().mean() for axis in axes]).mean()


@pytest.mark.parametrize("shape", [(7, 9), (2, 13), (5, 7, 6), (8, 3, 2)])
@pytest.mark.parametrize("slab", [1, 100, 2**16])
def test_diffusion_is_the_plain_formula(shape, slab, monkeypatch):
    monkeypatch.setattr("regkit.losses._PIECE_VOXELS", slab)
    displacement = field(shape).requires_grad_()
    value, expected = losses.diffusion(displacement), plain_diffusion(displacement)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(5 * value, displacement)
    (target,) = torch.autograd.grad(5 * expected, displacement)
    torch.testing.assert_close(gradient, target, rtol=1e-10, atol=1e-16)


class Launches(TorchDispatchMode):
    """Counts the operations that a device would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += 1
        return function(*arguments, **(options or {}))


def test_diffusion_is_few_launches_off_the_processor():
    """Pieces for a cache would be thousands; on a device without numbers only operations are counted."""
    displacement = torch.zeros(1, 3, 160, 192, 160, device="meta", requires_grad=True)
    with Launches() as launches:
        torch.autograd.grad(losses.diffusion(displacement), displacement)
    assert launches.count < 100


@pytest.mark.parametrize("shape", SHAPES)
def test_smoothness_of_affine_maps(shape):
    dim = len(shape)
    matrix = torch.eye(dim, dim + 1, dtype=torch.float64)[None].clone()
    matrix[0, :, dim] = 3.0
    assert losses.diffusion(affine_displacement(matrix, shape)).item() == pytest.approx(0, abs=1e-20)
    matrix[0, 0, 1] = 0.5  # a shear: one of dim components moves along one of dim axes
    shear = affine_displacement(matrix, shape)
    assert losses.diffusion(shear).item() == pytest.approx(0.25 / dim**2)
    assert losses.bending(shear).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("shape", SHAPES)
def test_bending_of_parabolas(shape):
    dim = len(shape)
    coordinates = identity(shape).double()
    displacement = torch.zeros(1, dim, *shape, dtype=torch.float64)
    displacement[:, 0] = coordinates[:, 1] ** 2  # ∂_11 = 2
    assert losses.bending(displacement).item() == pytest.approx(4 / dim / dim**2)
    displacement[:, 0] = 3 * coordinates[:, 0] * coordinates[:, 1]  # ∂_01 = ∂_10 = 3
    assert losses.bending(displacement).item() == pytest.approx(2 * 9 / dim / dim**2)
    assert gradcheck(losses.bending, field((3, 4), batch=1).requires_grad_())


def test_an_axis_of_one_voxel_is_smooth():
    displacement = field((6, 1, 5)).requires_grad_()
    value = losses.diffusion(displacement)
    expected = sum(displacement.diff(dim=axis).square().mean() for axis in (2, 4)) / 3
    torch.testing.assert_close(value, expected)
    assert torch.autograd.grad(value, displacement)[0].isfinite().all()


# ---------------------------------------------------------------------------------------------- inverse consistency
def same(points: Tensor) -> Tensor:
    return points


@pytest.mark.parametrize(
    ("waves", "gradicon", "icon"),
    [(1, 0.2510, 1.26e-2), (2, 0.2509, 3.15e-3), (4, 0.2512, 7.88e-4), (8, 0.2510, 1.97e-4), (16, 0.2515, 4.9e-5)],
)
def test_ripples_cost_gradicon_the_same_at_every_frequency(waves, gradicon, icon):
    """φ_AB adds a sin(2πk x) along one axis, at the threshold a = 1/(2πk) where it folds."""
    shape, size, amplitude = (256, 256), 255.0, 1 / (2 * math.pi * waves)
    points = identity(shape).double()

    def ripple(p: Tensor) -> Tensor:
        moved = p.clone()
        moved[:, 0] += size * amplitude * torch.sin(2 * math.pi * waves * p[:, 0] / size)
        return moved

    assert losses.gradicon_of_maps(ripple, same, points, shape).item() == pytest.approx(gradicon, rel=0.01)
    found = losses.icon_of_maps(ripple, same, points, shape).item()
    assert found == pytest.approx(icon, rel=0.01) and found == pytest.approx(amplitude**2 / 2, rel=0.01)


@pytest.mark.parametrize("shape", [(65, 50), (17, 21, 19)])
def test_translations_cost_icon_but_not_gradicon(shape):
    """Each axis moves by 0.1 of its extent, whatever its length: ICON 2 t², GradICON nothing, in float32."""
    steps = torch.tensor([0.1 * (size - 1) for size in shape]).view(1, -1, *[1] * len(shape))
    translation = steps.expand(1, len(shape), *shape)
    still = torch.zeros_like(translation)
    assert losses.icon(translation, still).item() == pytest.approx(0.02, rel=1e-4)
    assert losses.gradicon(translation, still).item() < 1e-8
    assert losses.icon(translation, -translation).item() < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_scaling_costs_gradicon_its_squared_excess(shape):
    points = losses.evaluation_points(shape).double()
    value = losses.gradicon_of_maps(lambda p: 1.1 * p, same, points, shape)
    assert value.item() == pytest.approx(0.01, rel=1e-6)
    both = losses.gradicon_of_maps(same, lambda p: 1.1 * p, points, shape, orders="both")
    assert both.item() == pytest.approx(0.02, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_fields_against_loops(shape):
    """Every voxel on its own, with the composition written out."""
    dim = len(shape)
    first, second = field(shape, batch=1, size=0.3), field(shape, batch=1, seed=1, size=0.3)
    extent = torch.tensor([size - 1.0 for size in shape], dtype=torch.float64)

    def interpolate(displacement: Tensor, place: Tensor) -> Tensor:
        place = torch.minimum(place.clamp_min(0), extent)
        base = torch.minimum(place.floor(), extent - 1)
        value = torch.zeros(dim, dtype=torch.float64)
        for corner in itertools.product((0, 1), repeat=dim):
            part = place - base
            weight = math.prod(float(part[k] if c else 1 - part[k]) for k, c in enumerate(corner))
            value += weight * displacement[(0, slice(None), *(int(b) + c for b, c in zip(base, corner, strict=True)))]
        return value

    def error(outer: Tensor, inner: Tensor, place: Tensor) -> Tensor:
        middle = place + interpolate(inner, place)
        return (place - middle - interpolate(outer, middle)) / extent

    voxels = [torch.tensor(voxel, dtype=torch.float64) for voxel in np.ndindex(*shape)][:: 7 if dim == 3 else 1]
    points = torch.stack(voxels, 1).view(1, dim, *[1] * (dim - 1), -1)
    there = torch.stack([error(first, second, voxel) for voxel in voxels])
    back = torch.stack([error(second, first, voxel) for voxel in voxels])
    expected = (there**2).mean() + (back**2).mean()
    torch.testing.assert_close(losses.icon(first, second, points=points), expected)
    ahead = [
        torch.stack([error(first, second, voxel + 1e-3 * extent * axis) for voxel in voxels])
        for axis in torch.eye(dim, dtype=torch.float64)
    ]
    expected = sum((((e - there) / 1e-3) ** 2).mean() for e in ahead)
    torch.testing.assert_close(losses.gradicon(first, second, points=points), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_orders(shape):
    pair = field(shape), field(shape, seed=1)
    torch.testing.assert_close(losses.icon(*pair), losses.icon(*reversed(pair)))
    one, reverse = losses.gradicon(*pair), losses.gradicon(*reversed(pair))
    assert abs(one - reverse) > 1e-3 * one
    torch.testing.assert_close(losses.gradicon(*pair, orders="both"), one + reverse)


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 4)])
def test_consistency_gradcheck(shape):
    """Between voxels, where linear interpolation has a derivative; delta so large that numerical differences work."""
    torch.manual_seed(0)
    pair = [field(shape, batch=2, seed=seed, size=0.2).requires_grad_() for seed in (0, 1)]
    points = losses.evaluation_points(shape, noise=0.3).double()
    assert gradcheck(lambda a, b: losses.icon(a, b, points=points), pair, fast_mode=True)
    assert gradcheck(lambda a, b: losses.gradicon(a, b, points=points, delta=0.03), pair, fast_mode=True)


def test_evaluation_points():
    torch.manual_seed(0)
    shape = (41, 60, 51)
    assert torch.equal(losses.evaluation_points(shape, noise=0), identity(shape))
    points = losses.evaluation_points(shape)
    spread = (points - identity(shape)).flatten(2).std(2)[0]
    torch.testing.assert_close(spread, torch.tensor([40 / 51, 59 / 51, 50 / 51]), rtol=0.02, atol=0)
    sparse = losses.evaluation_points(shape, noise=2, stride=2, like=torch.zeros(1, dtype=torch.float16))
    assert sparse.shape == (1, 3, 21, 30, 26)
    assert sparse.dtype == torch.float32
    moved = sparse - identity(shape)[..., ::2, ::2, ::2]
    torch.testing.assert_close(moved.flatten(2).std(2)[0], 2 * spread, rtol=0.04, atol=0)


# ---------------------------------------------------------------------------------------------- precision and messages
TWO_IMAGES = losses.mse, losses.ncc, losses.lncc, losses.lncc_gaussian, losses.adaptive_ncc, losses.mindssc, losses.dice


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    pair = [image.to(dtype).requires_grad_() for image in images((32, 36))]
    displacements = [field((12, 13), seed=seed).to(dtype).requires_grad_() for seed in (0, 1)]
    inputs = {loss.__name__: pair for loss in TWO_IMAGES} | dict.fromkeys(("icon", "gradicon"), displacements)
    inputs |= dict.fromkeys(("diffusion", "bending"), displacements[:1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = {name: getattr(losses, name)(*given) for name, given in inputs.items()}
    for name, given in inputs.items():
        expected = getattr(losses, name)(*(tensor.detach().float() for tensor in given))
        assert terms[name].dtype == torch.float32, name
        torch.testing.assert_close(terms[name], expected, rtol=1e-5, atol=1e-6)
    for tensor in (*pair, *displacements):
        (gradient,) = torch.autograd.grad(sum(terms.values()), tensor, retain_graph=True)
        assert gradient.dtype == dtype


def test_layouts_do_not_matter():
    warped, fixed = images((9, 12, 10), channels=3)
    expected = losses.lncc(warped, fixed, window=5)
    other = warped.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    value = losses.lncc(other, fixed.movedim(0, -1).contiguous().movedim(-1, 0), window=5)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(value, other)
    (target,) = torch.autograd.grad(plain_lncc(other, fixed, 5, 1e-5), other)
    torch.testing.assert_close(gradient, target, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("shape, windows", [((40, 64), [9, 7, 5, 3, 3]), ((6, 7, 40), [5, 5, 5, 3]), ((3, 4), [3, 3])])
def test_level_windows_shrink_and_fit(shape, windows):
    image = torch.rand(1, 1, *shape)
    assert [losses.level_window(image, halvings) for halvings in range(len(windows))] == windows
    with pytest.raises(ValueError, match=r"3 voxels along every axis .* received a level of \(2, 9\); make"):
        losses.level_window(torch.rand(1, 1, 2, 9), 0)


@pytest.mark.parametrize("measure", TWO_IMAGES)
def test_images_must_fit(measure):
    image = torch.rand(2, 1, 32, 32)
    with pytest.raises(ValueError, match=r"share one grid, received \(32, 32\) and \(32, 31\); resize"):
        measure(image, torch.rand(2, 1, 32, 31))
    with pytest.raises(ValueError, match=r"one shape, received \(2, 1, 32, 32\) and \(1, 1, 32, 32\); repeat"):
        measure(image, image[:1])
    with pytest.raises(ValueError, match="one shape"):
        measure(image, torch.rand(2, 3, 32, 32))
    with pytest.raises(TypeError, match=r"warped must be floating point, received torch.int64; convert"):
        measure(image.long(), image)


IMAGE, OTHER, FIELD = torch.rand(1, 1, 12, 12), torch.rand(1, 1, 9, 4, 9), torch.zeros(1, 2, 8, 8)
INTEGERS, THREE = FIELD.int(), FIELD[:, [0, 1, 1]]


@pytest.mark.parametrize(
    ("loss", "inputs", "options", "message"),
    [
        (losses.lncc, (IMAGE, IMAGE), {"epsilon": 0}, "epsilon must be a positive number, received 0"),
        (losses.lncc, (IMAGE, IMAGE), {"window": 4}, "window must be odd, .* received 4 for an image of"),
        (losses.lncc, (IMAGE, IMAGE), {"window": 1}, "window must be odd, .* received 1 for an image of"),
        (losses.lncc, (IMAGE[..., :8],) * 2, {"window": 9}, "window must be odd, .* received 9 for an image of"),
        (losses.lncc, (OTHER, OTHER), {"window": 5}, "window must be odd, .* received 5 for an image of"),
        (losses.lncc_gaussian, (IMAGE, IMAGE), {"sigma": -1}, "sigma must be positive .* received -1"),
        (losses.adaptive_ncc, (IMAGE, IMAGE), {}, "levels must be .* received 4 for an image of"),
        (losses.mindssc, (IMAGE, IMAGE), {"radius": 0}, "radius must be at least 1, received 0"),
        (losses.bending, (FIELD[:, :, :2],), {}, "3 voxels on each axis"),
        (losses.bending, (THREE,), {}, "one channel for each of its 2 spatial axes"),
        (losses.diffusion, (THREE,), {}, "one channel for each of its 2 spatial axes"),
        (losses.bending, (INTEGERS,), {}, "floating point"),
        (losses.diffusion, (INTEGERS,), {}, "floating point"),
        (losses.icon, (FIELD, FIELD[..., 1:]), {}, "displacement_AB and displacement_BA must share one grid"),
        (losses.gradicon, (FIELD, FIELD[..., 1:]), {}, "displacement_AB and displacement_BA must share one grid"),
        (losses.icon, (FIELD, FIELD[:, :1]), {}, "displacement_BA must have one channel"),
        (losses.gradicon, (FIELD, FIELD[:, :1]), {}, "displacement_BA must have one channel"),
    ],
)
def test_what_a_loss_cannot_measure_is_named(loss, inputs, options, message):
    with pytest.raises(TypeError if inputs[0] is INTEGERS else ValueError, match=message):
        loss(*inputs, **options)


# ---------------------------------------------------------------------------------------------- mutual information
def contrasts(shape, seed=0):
    """A smooth image, and another contrast of it: no function of one is linear in the other."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, *[max(3, size // 5) for size in shape], generator=generator, dtype=torch.float64)
    image = F.interpolate(coarse, shape, mode="bilinear" if len(shape) == 2 else "trilinear", align_corners=True)
    return image, (image * 6).sin() ** 2


@pytest.mark.parametrize("shape", [(23, 31), (13, 11, 17)])
def test_mutual_information_has_the_gradient_of_finite_differences(shape):
    warped, fixed = contrasts(shape)
    warped = warped + 0.05 * torch.rand(warped.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    warped.requires_grad_()
    direction = torch.randn(warped.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    direction[warped == warped.min()] = direction[warped == warped.max()] = 0  # the range is a constant
    (gradient,) = torch.autograd.grad(losses.mutual_information(warped, fixed), warped)
    with torch.no_grad():
        step = 1e-6
        ends = [losses.mutual_information(warped + sign * step * direction, fixed) for sign in (1, -1)]
    assert torch.isclose((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 52), (21, 18, 23)])
def test_mutual_information_knows_another_contrast_and_is_least_where_images_lie_on_each_other(shape):
    image, other = contrasts(shape)
    values = [float(losses.mutual_information(image.roll(step, -1), other)) for step in (0, 1, 2, 4)]
    assert values == sorted(values) and values[0] < values[1] - 0.05
    inverted = float(losses.mutual_information(image, 1 - image))
    assert inverted == pytest.approx(float(losses.mutual_information(image, image)), rel=1e-6)


def test_mutual_information_ranks_shifts_as_simpleitks_metric_does():
    sitk = pytest.importorskip("SimpleITK", reason="the course extra is not installed")
    image, other = (tensor.float() for tensor in contrasts((40, 52)))
    fixed = sitk.GetImageFromArray(other[0, 0].numpy())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.NONE)
    ours, theirs = [], []
    for step in (0, 1, 2, 3, 5, 8):
        moved = image.roll(step, -1)
        ours.append(float(losses.mutual_information(moved, other)))
        method.SetInitialTransform(sitk.TranslationTransform(2))
        theirs.append(method.MetricEvaluate(fixed, sitk.GetImageFromArray(moved[0, 0].numpy())))
    assert np.argsort(ours).tolist() == np.argsort(theirs).tolist()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def test_what_a_mask_leaves_out_does_not_count():
    image, other = contrasts((24, 30))
    mask = torch.zeros_like(image)
    mask[..., 4:20, 5:25] = 1
    spoilt = torch.where(mask > 0, image, torch.full_like(image, -2000.0))
    value, same = (losses.mutual_information(each, other, mask=mask) for each in (image, spoilt))
    part = (slice(None), slice(None), slice(4, 20), slice(5, 25))
    assert torch.isclose(same, value)
    assert torch.isclose(value, losses.mutual_information(image[part], other[part]))


def test_mutual_information_of_a_constant_image_is_nothing_and_bad_input_is_told():
    image, other = contrasts((20, 22))
    assert float(losses.mutual_information(torch.zeros_like(image), other)) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="mask must keep at least one voxel"):
        losses.mutual_information(image, other, mask=torch.zeros_like(image))
    with pytest.raises(ValueError, match="one channel"):
        losses.mutual_information(image.repeat(1, 2, 1, 1), other.repeat(1, 2, 1, 1))
