"""SACB-Net: the one-pass convolution and matching by shifts beside their plain forms, and the whole network."""

import functools
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F
from harness import compare
from torch import Tensor

from regkit.models.sacbnet import SACBNet, adaptive_convolution, offsets, pad, scores, soft_argmax

CHANNELS = 16


def patches(features: Tensor) -> Tensor:
    """All neighbourhoods of a 3D map at once: (B, C, taps, L)."""
    unfolded = pad(features).unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
    return unfolded.flatten(5).movedim(-1, 2).flatten(3)


def unfolded_convolution(features: Tensor, weight: Tensor, attention: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """As the released program has it: unfold once, apply every kernel everywhere, keep what each cluster needs."""
    items = []
    for item, columns in enumerate(patches(features).flatten(1, 2)):  # (C * taps, L)
        kernels = (attention[item][:, None, None] * weight).flatten(2)  # (N, out, C * taps)
        masks = (index[item].flatten() == torch.arange(len(kernels))[:, None])[:, None]
        values = (kernels @ columns + bias[item][..., None]) * masks
        items.append(values.sum(0).view(-1, *features.shape[2:]))
    return torch.stack(items)


def n_convolutions(features: Tensor, weight: Tensor, attention: Tensor, bias: Tensor, index: Tensor) -> Tensor:
    """The readable form, for a batch of one: Σ_n [index = n] conv(p, a_n ⊙ w, b_n)."""
    shape = (*weight.shape[:2], 3, 3, 3)
    result = torch.zeros(())
    for n, scale in enumerate(attention[0]):
        kernel = (scale * weight).view(shape)
        result = result + (index == n)[:, None] * F.conv3d(features, kernel, bias[0, n], padding=1)
    return result


def unfolded_scores(moving: Tensor, fixed: Tensor, padding: str = "constant") -> Tensor:
    values = (fixed.flatten(2)[:, :, None] * patches(moving)).sum(1)
    return values.view(len(moving), -1, *moving.shape[2:])


def unfolded_match(moving: Tensor, fixed: Tensor) -> Tensor:
    columns = patches(moving).permute(0, 3, 1, 2)  # (B, L, C, taps)
    weights = torch.matmul(fixed.flatten(2).transpose(1, 2)[:, :, None], columns).softmax(-1)
    return torch.matmul(weights, weights.new_tensor(offsets(3))).squeeze(2).transpose(1, 2).view_as(moving[:, :3])


def with_gradient(call: Callable[..., Tensor], floats: list[Tensor], *rest: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(call(*floats, *rest).sum(), floats)


def without_gradient(call: Callable[..., Tensor], floats: list[Tensor], *rest: Tensor) -> Callable[[], object]:
    return lambda: torch.no_grad()(call)(*floats, *rest)


def compare_convolutions(shape: tuple[int, ...]) -> None:
    forms = {
        "regkit": adaptive_convolution,
        "N convolutions (readable)": n_convolutions,
        "unfolded, N kernels (authors)": unfolded_convolution,
    }
    for count in (5, 7, 11):
        floats = [torch.randn(1, CHANNELS, *shape), torch.randn(CHANNELS, CHANNELS, 27) / 20]
        floats += [torch.rand(1, count, 27), torch.randn(1, count, CHANNELS)]
        floats = [value.requires_grad_() for value in floats]
        index = torch.randint(0, count, (1, *shape))
        for mode, way in (("forward", without_gradient), ("training", with_gradient)):
            goal = "3x faster than N convolutions" if mode == "forward" else "4x less memory than N convolutions"
            ways = {name: way(form, floats, index) for name, form in forms.items()}
            compare(f"SACB convolution {shape}, {count} clusters, {mode}", ways, goal=goal, volume=index.numel())


def compare_matching(shape: tuple[int, ...]) -> None:
    floats = [torch.randn(1, CHANNELS, *shape).requires_grad_() for _ in range(2)]
    forms = {"regkit": lambda moving, fixed: soft_argmax(scores(moving, fixed)), "unfolded (authors)": unfolded_match}
    for mode, way in (("forward", without_gradient), ("training", with_gradient)):
        ways = {name: way(form, floats) for name, form in forms.items()}
        compare(f"matching {shape}, {mode}", ways, goal="4x faster", volume=floats[0][0, 0].numel())


def compare_networks(shape: tuple[int, ...]) -> None:
    """The network against itself in the released forms: each image alone, everything unfolded, k-means to rest."""
    encode = SACBNet.encode

    def one_by_one(self: SACBNet, images: Tensor) -> list[Tensor]:
        pyramids = zip(*(encode(self, image[None]) for image in images), strict=True)
        return [torch.cat(level) for level in pyramids]

    images = [torch.rand(1, 1, *shape) for _ in range(2)]
    model, released = SACBNet(3).eval(), SACBNet(3, as_released=True).eval()
    released.scores = unfolded_scores
    released.load_state_dict(model.state_dict())

    @mock.patch("regkit.models.sacbnet.adaptive_convolution", unfolded_convolution)
    @mock.patch.object(SACBNet, "encode", one_by_one)
    def as_released() -> None:
        released(*images)

    ways = {"regkit": functools.partial(model, *images), "released forms": as_released}
    volume = images[0].numel()
    compare(f"SACB-Net {shape}, forward with a graph", ways, goal="2x faster", repeats=3, volume=volume)
    with torch.no_grad():
        compare(f"SACB-Net {shape}, forward", ways, goal="2x faster", repeats=3, volume=volume)


def run(quick: bool) -> None:
    """All comparisons; `quick` on an eighth of the voxels."""
    compare_convolutions((20, 24, 28) if quick else (40, 48, 56))
    compare_matching((20, 24, 28) if quick else (40, 48, 56))
    compare_networks((48, 48, 48) if quick else (64, 80, 64))
