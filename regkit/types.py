"""The nouns of registration, and the rules that their shapes obey.

Every tensor is (batch, channel, *space) with two or three spatial axes. The checks below are the only place where
those rules are written as code; each error states the rule, then what was received, then what to do. An annotation is
a rule, too: `guard` holds every call of a module's public functions to what their signatures say.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import numbers
import os
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

__all__ = ["DISTRIBUTION", "Amount", "Coordinates", "Count", "Dim", "Displacement", "Image", "InputError"]
__all__ += ["InputIndexError", "InputTypeError", "Labels", "Mask", "Matrix", "MissingFileError", "MissingPackageError"]
__all__ += ["Pair", "Percent", "Points", "Positive", "Registration", "Seed", "Similarity", "TooLargeError", "Whole"]
__all__ += ["at_least_float32", "check_displacement", "check_finite", "check_image", "check_kept", "check_kind"]
__all__ += ["check_labels", "check_memory", "check_option", "check_pair", "check_same_batch", "check_same_grid"]
__all__ += ["check_spacing", "check_values", "choose", "guard", "is_memory", "memory", "needing", "spatial", "stack"]


class InputError(ValueError):
    """Something cannot be taken: the rule, what was received, and the remedy, which together are its sentence."""

    def __init__(self, rule: str, received: object, remedy: str) -> None:
        super().__init__(rule, received, remedy)
        self.rule, self.received, self.remedy = rule, received, remedy

    def __str__(self) -> str:
        return f"{self.rule}, received {self.received}; {self.remedy}."


class InputTypeError(InputError, TypeError):
    """An `InputError` of something of another type."""


class InputIndexError(InputError, IndexError):
    """An `InputError` of an item that is not there."""


class MissingFileError(InputError, FileNotFoundError):
    """An `InputError` of a file or folder that is not there."""


class MissingPackageError(InputError, ImportError):
    """An `InputError` of a package that is not installed."""


class TooLargeError(InputError, MemoryError):
    """An `InputError` of images that do not fit into the memory."""


DISTRIBUTION = "regkit-registration"  # what pip calls this library: to pip, `regkit` is somebody else's


@contextlib.contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Around the imports of an extra's packages: a missing one is told with the line that installs it.

    Raises:
        MissingPackageError: what needs them, the package, the extra.
    """
    try:
        yield
    except ImportError as error:
        package = error.name or str(error)
        if isinstance(error, MissingPackageError) or package.startswith("regkit"):
            raise
        remedy = f'run: pip install "{DISTRIBUTION}[{extra}]"'
        raise MissingPackageError(f"{what} needs {package}", "an environment without it", remedy) from error


Dim = Literal[2, 3]
_Entry = TypeVar("_Entry")


def spatial(tensor: Tensor) -> tuple[int, ...]:
    """The spatial part of a tensor's shape."""
    return tuple(tensor.shape[2:])


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is where that is finer: half precision would put positions off by voxels."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_image(image: Tensor, name: str = "image") -> None:
    """Raise unless `image` is a floating-point (B, C, *space) tensor with two or three non-empty spatial axes."""
    if not isinstance(image, Tensor):
        raise InputTypeError(f"{name} must be a torch.Tensor", f"{type(image).__name__}", "use torch.as_tensor")
    if image.dim() not in (4, 5):
        raise InputError(
            f"{name} must be (batch, channel, *space) with 2 or 3 spatial axes",
            f"shape {tuple(image.shape)}",
            f"add the batch and channel axes with {name}[None, None]",
        )
    if not image.is_floating_point():
        raise InputTypeError(f"{name} must be floating point", image.dtype, f"convert it with {name}.float()")
    if image.numel() == 0:
        raise InputError(f"{name} must not be empty", f"shape {tuple(image.shape)}", "check how it was cropped")


def check_displacement(displacement: Tensor, name: str = "displacement") -> None:
    """Raise unless `displacement` is a floating-point (B, dim, *space) tensor."""
    check_image(displacement, name)
    dim = displacement.dim() - 2
    if displacement.shape[1] != dim:
        raise InputError(
            f"{name} must have one channel for each of its {dim} spatial axes",
            f"shape {tuple(displacement.shape)}",
            "move the component axis to position 1",
        )


def check_labels(labels: Tensor, name: str = "labels") -> None:
    """Raise unless `labels` is an integer (B, 1, *space) tensor."""
    if not isinstance(labels, Tensor):
        raise InputTypeError(f"{name} must be a torch.Tensor", f"{type(labels).__name__}", "use torch.as_tensor")
    if labels.is_floating_point() or labels.is_complex():
        raise InputTypeError(f"{name} must be integers", labels.dtype, f"convert them with {name}.round().long()")
    if labels.dim() not in (4, 5) or labels.shape[1] != 1:
        raise InputError(
            f"{name} must be (batch, 1, *space) with 2 or 3 spatial axes",
            f"shape {tuple(labels.shape)}",
            "turn one-hot masks into numbers with argmax(1, keepdim=True)",
        )
    if labels.numel() == 0:
        raise InputError(f"{name} must not be empty", f"shape {tuple(labels.shape)}", "check how they were cropped")


def check_finite(tensor: Tensor, name: str) -> None:
    """Raise if `tensor` holds NaN or infinite values. Reads one number back, so it waits for a GPU."""
    if torch.compiler.is_compiling() or tensor.is_meta or torch.isfinite(tensor.detach().sum()):
        return  # the sum is NaN or inf if any value is
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:  # else the sum overflowed
        raise InputError(
            f"{name} must be finite",
            f"{bad} NaN or infinite of {tensor.numel()} values",
            "clean it with torch.nan_to_num or find where they arise",
        )


def check_values(**tensors: Tensor) -> None:
    """`check_finite` of each, by name, on the CPU; a GPU would have to wait for it, and is trusted."""
    for name, tensor in tensors.items():
        if tensor.device.type == "cpu":
            check_finite(tensor, name)


def check_same_grid(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Raise unless two (B, C, *space) tensors share spatial shape, device and a batch that broadcasts."""
    if first.device != second.device:
        raise InputError(
            f"{names[0]} and {names[1]} must be on one device",
            f"{first.device} and {second.device}",
            "move one with .to(device)",
        )
    if first.shape[2:] != second.shape[2:]:
        raise InputError(
            f"{names[0]} and {names[1]} must share one grid",
            f"{spatial(first)} and {spatial(second)}",
            "resize or pad one of them first",
        )
    check_same_batch(first, second, names)


def check_same_batch(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Raise unless the batch sizes are equal or one of them is 1."""
    sizes = {first.shape[0], second.shape[0]} - {1}
    if len(sizes) > 1:
        raise InputError(
            f"{names[0]} and {names[1]} must have the same batch size (or 1)",
            f"{first.shape[0]} and {second.shape[0]}",
            "repeat or index the batch axis",
        )


def check_pair(moving: Tensor, fixed: Tensor, dim: int | None = None) -> None:
    """Raise unless two images can be registered: same shape, device, finite, and of dimension `dim` if given."""
    check_image(moving, "moving")
    check_image(fixed, "fixed")
    if dim is not None and moving.dim() != dim + 2:
        raise InputError(
            f"a model made with dim={dim} takes images with {dim} spatial axes",
            f"moving of shape {tuple(moving.shape)}",
            f"make the model with dim={moving.dim() - 2}",
        )
    check_same_grid(moving, fixed, ("moving", "fixed"))
    if moving.shape[1] != fixed.shape[1]:
        raise InputError(
            "moving and fixed must have the same channels",
            f"{moving.shape[1]} and {fixed.shape[1]}",
            "select the channels to compare",
        )
    check_finite(moving, "moving")
    check_finite(fixed, "fixed")


def check_spacing(spacing: float | Sequence[float] | np.ndarray, dim: int) -> tuple[float, ...]:
    """`spacing`, a number or any sequence of them, as one positive number (mm) for each of `dim` axes."""
    check_kind(spacing, float | Sequence[float], "spacing")
    sizes: Any = spacing if np.ndim(spacing) else [spacing] * dim
    values = tuple(float(size) for size in sizes)
    if len(values) != dim or not all(0 < value < float("inf") for value in values):
        raise InputError(
            f"spacing must be a positive number of mm for each of the {dim} axes",
            spacing,
            "read it from the image's header",
        )
    return values


def is_memory(error: Exception) -> bool:
    """Whether it was the memory; torch has a class for that of a GPU, and none for the computer's own."""
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in str(error)


def memory() -> float:
    """The bytes that this process may have at most, as the system says; infinite where it says nothing."""
    try:
        import resource

        allowed = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ImportError, ValueError, OSError):
        return math.inf
    return min([there, *(limit for limit in allowed if limit != resource.RLIM_INFINITY)])


def check_memory(wanted: float, rule: str, received: object, remedy: str) -> None:
    """Raise before work that cannot fit: it wants more bytes than this process may have at all."""
    if wanted > memory():
        found = f"{received}, which take {wanted / 2**30:.3g} GB of {memory() / 2**30:.3g}"
        raise TooLargeError(rule, found, remedy)


def check_kept(total: Tensor, remedy: str) -> None:
    """Raise unless what a mask keeps adds up to more than 0, in each sum of `total`. Reads one number back."""
    if not torch.compiler.is_compiling() and not (total > 0).all():
        raise InputError("mask must keep at least one voxel", f"one that keeps {float(total.min()):g}", remedy)


def check_option(name: str, value: Any, options: Collection[Any]) -> None:
    """Raise unless `value` is one of the options."""
    if not isinstance(value, str | int | float) or value not in options:
        raise InputError(f"{name} must be one of {', '.join(map(str, options))}", f"{value!r}", "choose one of them")


def choose(name: str, key: str, table: Mapping[str, _Entry]) -> _Entry:
    """The entry of a table, or an error that lists its keys."""
    check_option(name, key, table)
    return table[key]


# ---------------------------------------------------------------------------------------------- annotations as rules
def _from(low: int, to: float = math.inf) -> Callable[[float, str], None]:
    def check(value: float, name: str) -> None:
        if not low <= value <= to or value == math.inf:
            rule = f"at least {low}" if low else "0 or more"
            rule = rule if to == math.inf else f"from {low} to {to}"
            raise InputError(f"{name} must be {rule}", value, "change it")

    return check


def _check_form(
    form: str, axes: Collection[int], axis: int, sizes: tuple[int, ...], *, floating: bool = False
) -> Callable[[Tensor, str], None]:
    """Of real tensors that are not empty, with so many axes, and one of `sizes` along an axis."""

    def check(tensor: Tensor, name: str) -> None:
        if tensor.dim() not in axes or tensor.shape[axis] not in sizes or not tensor.numel():
            raise InputError(f"{name} must be {form}", f"shape {tuple(tensor.shape)}", "check how it was made")
        if tensor.is_complex() or (floating and not tensor.is_floating_point()):
            raise InputTypeError(f"{name} must be floating point", tensor.dtype, f"convert it with {name}.float()")

    return check


def _positive(value: float, name: str) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name} must be a positive number", value, "change it")


Count = Annotated[int, _from(1)]
Whole = Annotated[int, _from(0)]
Seed = Annotated[int, _from(0, 2**64 - 1)]
Positive = Annotated[float, _positive]
Amount = Annotated[float, _from(0)]
Percent = Annotated[float, _from(0, 100)]
Image = Annotated[Tensor, check_image]  # (B, C, *space), floating point
Labels = Annotated[Tensor, check_labels]  # (B, 1, *space), integer; 0 is background
Displacement = Annotated[Tensor, check_displacement]  # (B, dim, *space), voxels; channel i moves along spatial axis i
_PLACES = "(batch, dim, *any) in voxels, two or three components and one place at least"
Coordinates = Annotated[Tensor, _check_form(_PLACES, range(3, 9), 1, (2, 3), floating=True)]  # absolute positions
Similarity = Callable[[Tensor, Tensor], Tensor]  # of two images: the smaller, the more alike; a function or a module
Points = Annotated[Tensor, _check_form("(batch, N, dim) with N > 0", (3,), 2, (2, 3))]  # voxels

# the columns of A, then t in voxels
Matrix = Annotated[Tensor, _check_form("(batch, dim, dim + 1)", (3,), 1, (2, 3), floating=True)]
Mask = Annotated[Tensor, _check_form("(batch or 1, 1, *space)", (4, 5), 1, (1,))]  # weights of voxels

_WORDS: dict[Any, str] = {
    **{bool: "True or False", int: "a whole number", float: "a number", str: "a text", Tensor: "a torch.Tensor"},
    **{tuple: "a sequence", Sequence: "a sequence", Mapping: "a table", Callable: "a function", type(None): "None"},
}


_LISTS = (list, tuple, np.ndarray, Tensor)  # whose parts are looked at: others may read a file for each


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation names."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return _fits(value, parts[0])
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return isinstance(value, str | int | float) and value in parts
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is float:
        scalar = isinstance(value, numbers.Real) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0)
        return scalar and not math.isnan(value)
    if kind in (tuple, Sequence):
        listed = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
        fixed = kind is tuple and parts and parts[-1] is not ...
        if not listed or getattr(value, "ndim", 1) != 1 or (fixed and len(value) != len(parts)):
            return False
        return not parts or not isinstance(value, _LISTS) or all(_fits(part, parts[0]) for part in value)
    if kind is np.ndarray:
        return isinstance(value, np.ndarray | list | tuple)
    loose = kind is Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False)
    return loose or isinstance(value, kind)


def _words(hint: Any) -> str:
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return " or ".join(map(_words, get_args(hint)))
    if kind is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    return _words(get_args(hint)[0]) if kind is Annotated else _WORDS.get(kind) or kind.__name__


def check_kind(value: Any, hint: Any, name: str) -> None:
    """Raise unless a value is what an annotation says: its kind, then what `Annotated` adds, of each part."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        check_option(name, value, parts)
    elif not _fits(value, hint):
        tensor = _words(hint).startswith(_WORDS[Tensor])
        received = type(value).__name__ if tensor or isinstance(value, Tensor) else reprlib.repr(value)
        raise InputTypeError(
            f"{name} must be {_words(hint)}", received, "use torch.as_tensor" if tensor else "change it"
        )
    elif kind is Annotated:
        for check in parts[1:]:
            check(value, name)
    elif kind in (Union, UnionType):
        check_kind(value, next(part for part in parts if _fits(value, part)), name)
    elif kind in (tuple, Sequence) and parts and isinstance(value, _LISTS):
        for part in value:
            check_kind(part, parts[0], f"each of {name}")


def guard(names: dict[str, Any]) -> None:
    """Hold a module's public functions and classes to their annotations: one mechanism at every public door."""
    for name, value in list(names.items()):
        own = getattr(value, "__module__", None) == names["__name__"] or name in names.get("__all__", ())
        if name.startswith("_") or not own:
            continue
        if inspect.isfunction(value):
            names[name] = _guarded(value)
        elif inspect.isclass(value) and (hasattr(value, "__post_init__") or not is_dataclass(value)):
            for method, function in list(vars(value).items()):
                if inspect.isfunction(function) and (method == "__init__" or not method.startswith("_")):
                    setattr(value, method, _guarded(function))


def _guarded(function: Any) -> Any:
    order = tuple(inspect.signature(function).parameters)
    hints = functools.cache(lambda: get_type_hints(function, include_extras=True))

    @functools.wraps(function)
    def guarded(*values: Any, **options: Any) -> Any:
        if not torch.compiler.is_compiling():
            for name, value in (*zip(order, values, strict=False), *options.items()):
                if name in hints():
                    check_kind(value, hints()[name], name)
        return function(*values, **options)

    return guarded


# ---------------------------------------------------------------------------------------------- the nouns
@dataclass(frozen=True)
class Pair:
    """Two images to register, with what is known about them.

    moving, fixed: (B, C, *space). moving_labels, fixed_labels: (B, 1, *space) integers, or None.
    displacement: the true displacement (B, dim, *space) in voxels where the pair was made with one, else None.
    spacing: size of a voxel along each spatial axis, in mm.

    Raises:
        TypeError, ValueError: images, labels, displacement and spacing do not fit each other.
    """

    moving: Image
    fixed: Image
    moving_labels: Labels | None = None
    fixed_labels: Labels | None = None
    displacement: Displacement | None = None
    spacing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_pair(self.moving, self.fixed)
        spacing = 1.0 if isinstance(self.spacing, tuple) and not self.spacing else self.spacing
        object.__setattr__(self, "spacing", check_spacing(spacing, self.moving.dim() - 2))
        for name in ("moving", "fixed"):
            labels = getattr(self, f"{name}_labels")
            if labels is not None:
                check_labels(labels, f"{name}_labels")
                check_same_grid(getattr(self, name), labels, (name, f"{name}_labels"))
        if self.displacement is not None:
            check_displacement(self.displacement)
            check_same_grid(self.fixed, self.displacement, ("fixed", "displacement"))

    def to(self, device: torch.device | str) -> Pair:
        """The same pair on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Pair(**{**vars(self), **moved})


@dataclass(frozen=True)
class Registration:
    """What a registration found.

    displacement: warps moving onto fixed, on the fixed grid; (B, dim, *space), voxels.
    inverse: warps fixed onto moving, on the moving grid; None where the method gives none.
    velocity: the stationary velocity whose exponential is the displacement; None where there is none.
    levels: the displacement after each level, coarse to fine, each in voxels of its own grid.
    """

    displacement: Displacement
    inverse: Displacement | None = None
    velocity: Displacement | None = None
    levels: tuple[Displacement, ...] = ()


def stack(pairs: Sequence[Pair]) -> Pair:
    """Pairs of one size as one Pair, along the batch; what one of them lacks, the result lacks.

    Raises:
        ValueError: no pairs, or pairs that do not fit each other.
    """
    if not len(pairs):
        raise InputError("there must be at least one pair to stack", "none", "check how they were made")
    items = [pairs[i] for i in range(len(pairs))]
    names = ("moving", "fixed", "moving_labels", "fixed_labels", "displacement")
    parts = {name: [getattr(item, name) for item in items] for name in names}
    known = {name: torch.cat(values) for name, values in parts.items() if all(value is not None for value in values)}
    return Pair(**known, spacing=items[0].spacing)
