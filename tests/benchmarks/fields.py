"""Warping, scaling and squaring, inversion and Jacobians beside the packages that offer them."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from harness import compare, peer
from torch import Tensor

import regkit.fields as regkit
from regkit.fields import difference, identity

sys.path.insert(0, str(Path(__file__).parent.parent))
from helpers.kept import kept_fields, textbook_squaring

Way = Callable[[], Tensor] | None


def smooth_field(shape: tuple[int, ...], steepest: float) -> Tensor:
    """A random displacement (1, dim, *shape) whose largest derivative is `steepest`."""
    generator = torch.Generator().manual_seed(1)
    control = torch.randn(1, len(shape), *[n // 6 for n in shape], generator=generator)
    field = F.interpolate(control, shape, mode="trilinear", align_corners=True)
    for _ in range(6):
        field = F.avg_pool3d(F.pad(field, [2] * 6, mode="replicate"), 5, stride=1)
    return field * (steepest / steepness(field))


def steepness(field: Tensor) -> float:
    """The largest |∂u_i/∂x_j|."""
    return max(float(difference(field, axis).abs().max()) for axis in range(field.shape[1]))


def backward(function: Callable[[Tensor], Tensor], variable: Tensor) -> Callable[[], Tensor]:
    """Forward and backward, with a fixed gradient of the result."""
    variable = variable.detach().requires_grad_()
    with torch.no_grad():
        gradient = torch.ones_like(function(variable))
    return lambda: torch.autograd.grad(function(variable), variable, gradient)[0]


def ready_grid(displacement: Tensor) -> Tensor:
    """The argument of grid_sample that goes with a displacement."""
    places = regkit.voxels_to_normalized(identity(displacement.shape[2:]) + displacement) - 1
    return regkit.reverse_components(places).movedim(1, -1).contiguous()


def bench_warp(shape: tuple[int, ...]) -> None:
    """Gradient to the field only, as in training."""
    image, u = torch.rand(1, 1, *shape), smooth_field(shape, 0.5)
    monai, voxelmorph, inversion = (
        peer("monai.networks.blocks"),
        peer("voxelmorph"),
        peer("deformation_inversion_layer"),
    )
    icon = peer("icon_registration.mermaidlite")
    grid = identity(shape)

    def by_monai(field: Tensor) -> Tensor:
        return monai.Warp(padding_mode="border")(image, field)

    def by_voxelmorph(field: Tensor) -> Tensor:
        return peer("voxelmorph.nn.functional").spatial_transform(image, field[0], padding_mode="border")

    def by_icon(field: Tensor) -> Tensor:
        scale = torch.tensor([n - 1.0 for n in shape]).view(1, 3, 1, 1, 1)
        spacing = [1 / (n - 1) for n in shape]
        return icon.compute_warped_image_multiNC(image, (grid + field) / scale, spacing, 1)

    def by_sitreg(field: Tensor) -> Tensor:
        return peer("deformation_inversion_layer.interpolator").LinearInterpolator()(image, grid + field)

    ways: dict[str, Way] = {
        "regkit": backward(lambda field: regkit.warp(image, field), u),
        "grid_sample, grid ready": backward(
            lambda ready: F.grid_sample(image, ready, padding_mode="border", align_corners=True), ready_grid(u)
        ),
        "MONAI Warp": backward(by_monai, u) if monai else None,
        "VoxelMorph 0.3": backward(by_voxelmorph, u) if voxelmorph else None,
        "ICON": backward(by_icon, u) if icon else None,
        "SITReg's interpolator": backward(by_sitreg, u) if inversion else None,
    }
    compare(
        f"warp, gradient to the field, {shape}",
        ways,
        goal="<= 1.4 x grid_sample (its ratio >= 0.71)",
        volume=u[0, 0].numel(),
    )


def bench_exponential(shape: tuple[int, ...]) -> None:
    v = smooth_field(shape, 0.3)
    monai, voxelmorph = peer("monai.networks.blocks"), peer("voxelmorph")

    def by_voxelmorph(field: Tensor) -> Tensor:
        return peer("voxelmorph.nn.functional").integrate_vec(field, 7)

    ways: dict[str, Way] = {
        "regkit": backward(regkit.exponential, v),
        "MONAI DVF2DDF": backward(monai.DVF2DDF(7), v) if monai else None,
        "VoxelMorph 0.3": backward(by_voxelmorph, v) if voxelmorph else None,
    }
    title = f"scaling and squaring, 7 steps, forward and backward, {shape}"
    compare(title, ways, goal="no slower than the best; <= 40 volumes", volume=v[0, 0].numel())


def bench_invert(shape: tuple[int, ...]) -> None:
    u = smooth_field(shape, 0.82)
    inversion = peer("deformation_inversion_layer")
    ways: dict[str, Way] = {
        "regkit newton (default)": lambda: regkit.invert(u),
        "regkit anderson": lambda: regkit.invert(u, method="anderson"),
        "regkit plain": lambda: regkit.invert(u, method="plain"),
        "deformation-inversion-layer": (lambda: inversion.fixed_point_invert_deformation(u)) if inversion else None,
    }
    title = f"inversion to 1e-2 voxel, {shape}, largest step {float(u.abs().max()):.1f}, du/dx {steepness(u):.2f}"
    compare(title, ways, goal="peer >= 2", volume=u[0, 0].numel())
    for name, way in ways.items():
        if way is not None:
            print(f"  {name}: {float(regkit.compose(u, way()).abs().max()):.4f} voxel left")


def forward_differences(displacement: Tensor) -> Tensor:
    """LapIRN's determinant in plain torch: forward differences of x + u, the last voxel of each axis left out."""
    places = (identity(displacement.shape[2:]) + displacement).movedim(1, -1)
    corner = places[:, :-1, :-1, :-1]
    a, b, c = places[:, 1:, :-1, :-1] - corner, places[:, :-1, 1:, :-1] - corner, places[:, :-1, :-1, 1:] - corner
    first = a[..., 0] * (b[..., 1] * c[..., 2] - b[..., 2] * c[..., 1])
    second = a[..., 1] * (b[..., 0] * c[..., 2] - b[..., 2] * c[..., 0])
    return first - second + a[..., 2] * (b[..., 0] * c[..., 1] - b[..., 1] * c[..., 0])


def bench_jacobian(shape: tuple[int, ...]) -> None:
    u = smooth_field(shape, 0.5)
    voxelmorph, icon = peer("voxelmorph.py.utils"), peer("icon_registration.losses")
    places, last = identity(shape) + u, u[0].movedim(0, -1).numpy()
    ways: dict[str, Way] = {
        "regkit": lambda: regkit.jacobian_determinant(u),
        "LapIRN forward differences": lambda: forward_differences(u),
        "ICON (counts the folds)": (lambda: icon.flips(places)) if icon else None,
        "VoxelMorph (numpy)": (lambda: voxelmorph.jacobian_determinant(last)) if voxelmorph else None,
    }
    volume, goal = u[0, 0].numel(), "the best peer >= 4"
    compare(f"Jacobian determinant, {shape}", ways, goal=goal, repeats=9, volume=volume)
    compare(f"Jacobian determinant, {shape}, each by itself", ways, goal=goal, repeats=9, volume=volume, apart=True)


def count_kept(shape: tuple[int, ...]) -> None:
    """Print how many fields wait for the backward pass."""
    u, v = (smooth_field(shape, 0.5).requires_grad_() for _ in range(2))
    update = kept_fields(lambda a, b: regkit.compose(a, regkit.invert(b)), u, v)
    print(f"\nFields kept between the passes, {shape} (goal: at most 3 for the update where the textbook keeps 15)")
    print(f"  update by inversion, compose(u, invert(v)): {update}")
    print(f"  regkit's squaring, 7 steps: {kept_fields(regkit.exponential, u)}")
    print(f"  textbook squaring, 7 steps: {kept_fields(textbook_squaring, u)}")


def run(quick: bool) -> None:
    """Print the tables of this section."""
    warnings.simplefilter("ignore")  # of the peers
    full, half = ((80, 96, 80), (40, 48, 40)) if quick else ((160, 192, 160), (80, 96, 80))
    bench_warp(full)
    bench_exponential(half)
    bench_invert(half)
    bench_jacobian(full)
    count_kept((40, 48, 40))
