"""What two or more of the methods share, in two and in three dimensions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regkit.types import Dim, Image, InputError, InputTypeError, at_least_float32, check_kind, check_pair, spatial

Class = TypeVar("Class", bound=type)
Found = TypeVar("Found")


class Network(nn.Module, Generic[Found]):
    """A method's base: what a type checker is to know of it. Found: the `Registration` that it gives."""

    if TYPE_CHECKING:

        def __call__(self, moving: Image, fixed: Image) -> Found: ...

        def objective(self, registration: Found, moving: Image, fixed: Image) -> dict[str, Tensor]: ...


def configured(cls: Class) -> Class:
    """Make a model remember the arguments that it is made with, defaults included: `model.configuration`.

    Put `@configured` above the class; `cls(**model.configuration)` makes a model of the same architecture. The values
    must be what JSON can hold (numbers, strings, None, and tuples of these). Signature and type hints stay as they are.

    Raises:
        TypeError: the constructor takes *args or **kwargs, which cannot be named.
        TypeError, ValueError: on making a model, an argument is not what its annotation says.
    """
    initialise = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(initialise)
    if any("VAR" in parameter.kind.name for parameter in signature.parameters.values()):
        raise InputTypeError(
            "a configured class names each of its arguments",
            f"{cls.__name__}{signature}",
            "write out what stands behind the stars",
        )

    @functools.wraps(initialise)
    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        configuration = dict(list(bound.arguments.items())[1:])
        for name, hint in get_type_hints(initialise, include_extras=True).items():
            if name in configuration:
                check_kind(configuration[name], hint, f"{cls.__name__}'s {name}")
        initialise(self, *args, **kwargs)
        self.configuration = configuration
        self._as_made = _settings(self)

    cls.__init__ = remember  # type: ignore[misc]
    return cls


def _settings(model: nn.Module) -> dict[str, str]:
    """What a model computes with besides its weights: plain attributes, functions of its own, its modules' classes."""
    settings = {"module": str([type(module).__name__ for module in model.modules()])}
    for name in vars(model).keys() - {*vars(nn.Module()), "configuration", "_as_made"}:
        value = vars(model)[name]
        if callable(value):
            settings[name] = getattr(value, "__qualname__", "")
        elif name[0] != "_" and isinstance(value, (bool, int, float, str, tuple, dict, type(None))):
            settings[name] = repr(value)
    return settings


def changed_settings(model: nn.Module) -> list[str]:
    """The names of what is no longer as a configured model's arguments made it; a new note is none, a function is."""
    made, now = vars(model).get("_as_made", {}), _settings(model)
    return sorted(n for n in made | now if now.get(n) != made.get(n) and (n in made or callable(vars(model).get(n))))


def check_inputs(model: Any, moving: Image, fixed: Image) -> None:
    """Raise unless a configured model can register two images: they have its dimension, channels and precision.

    Under autocast float32 and half precision go together; where a model has no weights of its own, any precision does.
    """
    check_pair(moving, fixed, model.dim)
    channels, given = model.configuration["in_channels"], moving.shape[1]
    if given != channels:
        raise InputError(
            f"a model made with in_channels={channels} takes images with as many channels",
            f"moving of shape {tuple(moving.shape)}",
            f"make the model with in_channels={given}",
        )
    received = torch.promote_types(moving.dtype, fixed.dtype)
    weights = next((parameter.dtype for parameter in model.parameters()), received)
    cast = torch.is_autocast_enabled(moving.device.type) and torch.float64 not in (received, weights)
    if received != weights and not cast:
        raise InputTypeError(
            f"images must have the precision of the model's weights, {weights}",
            received,
            f"convert them with image.to({weights}), or the model with model.to({received})",
        )


def _too_small_for_half(features: Tensor, kernel: int) -> bool:
    """Where torch 2.13 on the CPU gives bfloat16 gradients of the weights that mean nothing (up to 1e38)."""
    return features.device.type == "cpu" and min(spatial(features)) < kernel


class _WholeOnSmallGrids(nn.Module):
    """A convolution that leaves autocast's bfloat16 aside on the CPU where an axis is shorter than its kernel."""

    def forward(self, features: Tensor, *sizes: Any) -> Tensor:
        kernel: int = self.kernel_size[0]  # type: ignore[assignment, index]
        if not _too_small_for_half(features, kernel):
            return super().forward(features, *sizes)
        with torch.autocast("cpu", enabled=False):
            return super().forward(at_least_float32(features), *sizes)


class _Conv2d(_WholeOnSmallGrids, nn.Conv2d): ...


class _Conv3d(_WholeOnSmallGrids, nn.Conv3d): ...


class _ConvTranspose2d(_WholeOnSmallGrids, nn.ConvTranspose2d): ...


class _ConvTranspose3d(_WholeOnSmallGrids, nn.ConvTranspose3d): ...


def conv(dim: Dim, in_channels: int, out_channels: int, kernel: int = 3, **options: Any) -> nn.Module:
    """A convolution in `dim` dimensions that keeps the size: zero padding of kernel // 2 unless `padding` is given."""
    options.setdefault("padding", kernel // 2)
    return (_Conv2d if dim == 2 else _Conv3d)(in_channels, out_channels, kernel, **options)


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of `conv` with these weights: (B, C, *space) to (B, len(weight), *space)."""
    convolution, kernel = F.conv2d if features.dim() == 4 else F.conv3d, weight.shape[-1]
    if not _too_small_for_half(features, kernel):
        return convolution(features, weight, bias, padding=kernel // 2)
    with torch.autocast("cpu", enabled=False):
        features, weight = at_least_float32(features), at_least_float32(weight)
        return convolution(features, weight, bias, padding=kernel // 2)


def conv_transposed(dim: Dim, in_channels: int, out_channels: int, kernel: int = 2, **options: Any) -> nn.Module:
    """A transposed convolution in `dim` dimensions that doubles the size: stride 2 unless `stride` is given."""
    options.setdefault("stride", 2)
    return (_ConvTranspose2d if dim == 2 else _ConvTranspose3d)(in_channels, out_channels, kernel, **options)


def batch_norm(dim: Dim, channels: int, **options: Any) -> nn.Module:
    """Batch normalisation in `dim` dimensions."""
    return (nn.BatchNorm2d if dim == 2 else nn.BatchNorm3d)(channels, **options)


def pad_to_multiple(image: Tensor, multiple: int, *, mode: Literal["replicate", "constant"] = "replicate") -> Tensor:
    """The image with its border voxels ("constant": zeros) added at the far ends, to a size divisible by `multiple`."""
    missing = [-size % multiple for size in spatial(image)]
    widths = [width for size in reversed(missing) for width in (0, size)]
    return F.pad(image, widths, mode=mode) if any(missing) else image


def crop(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The first `shape` voxels along each spatial axis: undoes `pad_to_multiple`."""
    index: tuple[Any, ...] = (..., *(slice(0, size) for size in shape))
    return tensor[index]


def swap(pair: Tensor) -> Tensor:
    """(2B, …) with its halves exchanged."""
    return pair.roll(len(pair) // 2, 0)
