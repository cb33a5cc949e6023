"""The exercises of tutorial 03: a change of intensities under which MSE lies, and a slope computed in two ways."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regkit.course.check.exercise import Exercise, Hint, filled_in, function_of
from regkit.course.check.t02_warping_pulls import brain_slice
from regkit.course.lessons.t03_similarity_landscapes import sweep
from regkit.fields import identity, rigid_displacement, warp
from regkit.losses import gaussian_blur, mse, ncc
from regkit.types import Image, spatial

__all__ = ["changed_disc", "disc", "mse_lies", "shifted", "slopes"]

SHIFTS = [float(shift) for shift in range(-30, 31)]
SLOPE_AT = 3.3  # voxels, between two voxel centres


def disc() -> Image:
    """A soft, striped disc near the left border: (1, 1, 64, 64), from 0 to about 0.9. A new one at each call."""
    return _disc().clone()


@functools.cache
def _disc() -> Image:
    grid = identity((64, 64))
    middle = torch.tensor([32.0, 16.0]).view(1, 2, 1, 1)
    filled = ((grid - middle).norm(dim=1, keepdim=True) < 8).float()
    return gaussian_blur(filled * (0.6 + 0.4 * (grid[:, 1:] / 5).sin()), 1.5)


@dataclass(frozen=True)
class _Change:
    """What a change of intensities does: is it one, and where do MSE and NCC find their best shift?"""

    image: Tensor
    pointwise: bool
    mse: float
    ncc: float


def _image(answer: Any) -> Image:
    """What a learner's function gave, as an image like the disc; axes of one voxel may be missing."""
    image = torch.as_tensor(answer, dtype=torch.float32).detach()
    if image.squeeze().shape != disc().squeeze().shape:
        raise ValueError(f"an image of the same shape is wanted, received {tuple(image.shape)}")
    return image.reshape(disc().shape)


def changed_disc(answer: Any) -> Image | None:
    """The disc as a learner's function changes it; None where `answer` is no such function."""
    try:
        image = _change(answer).image
    except Exception:
        return None
    return image if bool(image.isfinite().all()) else None


def _change(answer: Any) -> _Change:
    function = function_of("an image", answer)
    image = _image(function(disc()))
    order = torch.randperm(disc().numel(), generator=torch.Generator().manual_seed(0))
    shuffled = _image(function(disc().flatten()[order].view_as(disc())))
    pointwise = torch.allclose(shuffled.flatten(), image.flatten()[order], atol=1e-4)
    if not bool(image.isfinite().all()):
        return _Change(image, pointwise, 0.0, 0.0)
    curves = sweep(image, disc(), right=SHIFTS, similarities={"mse": mse, "ncc": ncc})
    best = {name: SHIFTS[min(range(len(SHIFTS)), key=values.__getitem__)] for name, values in curves.items()}
    return _Change(image, pointwise, best["mse"], best["ncc"])


mse_lies = Exercise(
    task="Write a function from image to image that changes only intensities: MSE is to be lowest at a wrong shift, "
    "and NCC at 0.",
    praise="another gain or offset of a scanner is enough: then the MSE is lower without the disc in view.",
    prepare=_change,
    reference=lambda: lambda image: 3 * image,
    right=lambda change: abs(change.ncc) <= 1 < abs(change.mse),
    mistakes={
        "not a number": Hint("the changed image must be finite everywhere.").to(
            lambda: lambda image: image * torch.nan, lambda change: not bool(change.image.isfinite().all())
        ),
        "moved": Hint(
            "a new value depends here on where the voxel is, on its neighbours or on chance. It may depend only on the "
            "voxel's old value: nothing moves."
        ).to(lambda: lambda image: image.roll(10, -1), lambda change: not change.pointwise),
        "one value": Hint(
            "nothing is left to align: all voxels have one value. Keep the picture, change its brightness or contrast."
        ).to(lambda: lambda image: 0 * image + 0.5, lambda change: bool(change.image.std() < 1e-6)),
        "unchanged": Hint("the image is as it was, so MSE is 0 at the right place, and lowest there.").to(
            lambda: lambda image: image, lambda change: bool(torch.equal(change.image, disc()))
        ),
        "inverted": Hint(
            "this misleads NCC as well: an inverted picture gives the highest NCC. Keep bright brighter than dark."
        ).to(lambda: lambda image: 1 - image, lambda change: abs(change.ncc) > 1),
        "too weak": Hint(
            "MSE still finds the right shift. To have no disc at all must be cheaper: a gain well above 2, or a "
            "large positive offset."
        ).to(lambda: lambda image: 0.5 * image, "otherwise"),
        "another shape": lambda: lambda image: image[..., 1:],
        "an image": lambda: disc(),
    },
)


def shifted(image: Image, right: Tensor) -> Image:
    """The image warped by the arrow (0, right) at each voxel; `right` is a tensor with one number."""
    arrow = torch.stack([torch.zeros_like(right), right]).view(1, 2, 1, 1)
    return warp(image, arrow.expand(1, 2, *spatial(image)))


@functools.cache
def _slope(loss: Callable[[Tensor, Tensor], Tensor] = ncc, at: float = SLOPE_AT) -> float:
    right = torch.tensor(at, requires_grad=True)
    loss(shifted(brain_slice(), right), brain_slice()).backward()
    assert right.grad is not None  # it was just computed
    return float(right.grad)


@functools.cache
def _difference(step: float) -> float:
    """A central difference quotient of NCC."""
    shifts = [SLOPE_AT - step, SLOPE_AT + step]
    low, high = (ncc(warp(brain_slice(), rigid_displacement((96, 96), right=x)), brain_slice()) for x in shifts)
    return float((high - low) / (2 * step))


def _number(answer: Any) -> float:
    """One number, from a float or an array or tensor with one value."""
    return float(torch.as_tensor(answer, dtype=torch.float64).detach().reshape(()))


def _two_numbers(answer: Any) -> tuple[float, float]:
    automatic, finite = filled_in(("automatic", "finite"), answer)
    return _number(automatic), _number(finite)


def _near(value: float, target: float) -> bool:
    return abs(value - target) < 0.03 * abs(target)


slopes = Exercise(
    task="Give two numbers (automatic, finite): the slope of NCC over the shift at 3.3 voxels, by backward() and by a "
    "central difference.",
    praise="both agree: the loss, the warp and your understanding of both are differentiated correctly.",
    prepare=_two_numbers,
    reference=lambda: (_slope(), _difference(0.1)),
    alike=lambda two, others: _near(two[0], others[0]) and _near(two[1], others[1]),
    right=lambda two: _near(two[0], _slope()) and _near(two[1], _slope()),
    mistakes={
        "not a number": Hint("both numbers must be finite.").to(
            lambda: (float("inf"), _slope()), lambda two: not all(abs(number) < float("inf") for number in two)
        ),
        "a cut chain": Hint(
            "the automatic slope is 0: the chain is cut. No .item(), .detach() or torch.tensor(shift) on the way."
        ).to(lambda: (0.0, _slope()), lambda two: two[0] == 0),
        "too small a step": Hint(
            "the finite difference is 0: the step is so small that float32 does not see it. Try 0.1."
        ).to(lambda: (_slope(), 0.0), lambda two: _near(two[0], _slope()) and two[1] == 0),
        "the other sign": Hint(
            "right size, wrong sign: the slope over `right` is wanted, and the content moves the other way."
        ).to(lambda: (-_slope(), -_slope()), lambda two: _near(two[0], -_slope())),
        "MSE": Hint("this is the slope of MSE. Use losses.ncc.").to(
            lambda: (_slope(mse), _slope(mse)), lambda two: _near(two[0], _slope(mse))
        ),
        "not halved": Hint("the difference is twice too large: from t - h to t + h it is 2 h, not h.").to(
            lambda: (_slope(), 2 * _slope())
        ),
        "over a kink": Hint(
            "the step is so wide that it passes a voxel's centre, where linear interpolation has a kink. Try 0.1."
        ).to(lambda: (_slope(), _difference(0.5))),
        "another difference": Hint(
            "the automatic slope is right. The finite one: (f(3.3 + h) - f(3.3 - h)) / (2 h), with h about 0.1."
        ).to(lambda: (_slope(), 10 * _slope()), lambda two: _near(two[0], _slope()) and not _near(two[1], _slope())),
        "another place": Hint(
            "not the slope of NCC at 3.3: right = torch.tensor(3.3, requires_grad=True), the loss, backward(), .grad."
        ).to(lambda: (_slope(ncc, 8.6), _slope(ncc, 8.6)), "otherwise"),
        "one number": lambda: (_slope(),),
    },
)
