"""Pictures of images and fields: pure functions from arrays to uint8 pixels, without axes, windows or widgets.

A plane is (H, W), a field plane (2, H, W); `plane` and `field_plane` take them from a batch. Axis 0 runs down, axis 1
to the right. A picture is (H * scale, W * scale, 3) uint8: a voxel is a block of scale x scale pixels.
The same quantity has the same colours everywhere: images grey; differences blue below and orange above zero;
displacements by direction (hue) and length (depth of colour); |J| purple below and green above 1, folds `FOLD`; errors
from near-white at zero to red.
The colour maps are even in OKLab (Ottosson 2020); labels have the colours of Okabe and Ito (2008).
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont
from torch import Tensor

from regkit.types import InputError, InputIndexError, InputTypeError

Picture = NDArray[np.uint8]  # (H, W, 3)
Plane = NDArray[Any]  # (H, W)
FieldPlane = NDArray[np.float32]  # (2, H, W), voxels; component i along axis i
Limits = tuple[float, float]
Colour = tuple[int, int, int]
FOLD: Colour = (255, 90, 0)
LINE: Colour = (86, 190, 255)
POINT: Colour = (255, 225, 60)
PAPER: Colour = (255, 255, 255)
INK: Colour = (40, 40, 40)
NIGHT: Colour = (28, 28, 34)
JACOBIAN_LIMITS: Limits = (0.0, 2.0)
_OVERSAMPLING = 3  # subpixels of a line along each axis


# ---------------------------------------------------------------------------------------------- colours
def _oklch(lightness: Any, chroma: Any, hue: Any) -> Picture:
    """sRGB of lightness, chroma (0 to 1) and hue (radians), in which equal steps look equal. Source: Ottosson 2020."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    to_cones = [(0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480)]
    cones = np.stack([(lightness + p * a + q * b) ** 3 for p, q in to_cones], -1)
    to_linear = [
        (4.0767416621, -3.3077115913, 0.2309699292),
        (-1.2684380046, 2.6097574011, -0.3413193965),
        (-0.0041960863, -0.7034186147, 1.7076147010),
    ]
    linear = np.clip(cones @ np.array(to_linear).T, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * gamma).astype(np.uint8)


def _diverging(below: float, above: float) -> Picture:
    """255 colours from one hue (degrees) over near-white in the middle to another, equally dark at both ends."""
    t = np.linspace(-1, 1, 255)
    chroma = 0.17 * np.sin(np.pi * np.abs(t) ** 0.8 / 1.6)
    return _oklch(0.97 - 0.6 * np.abs(t) ** 1.1, chroma, np.deg2rad(np.where(t < 0, below, above)))


GREYS: Picture = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
DIFFERENCES: Picture = _diverging(255, 50)
JACOBIANS: Picture = _diverging(310, 150)
ERRORS: Picture = _diverging(0, 20)[127:]  # from near-white at zero to a dark red

_OKABE_ITO = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]

LABELS: Picture = np.array([np.array(_OKABE_ITO) * shade for shade in (1.0, 0.7, 0.45)]).reshape(-1, 3).astype(np.uint8)

_WHEEL: Picture = _oklch(
    0.96 - 0.31 * np.linspace(0, 1, 64)[:, None], 0.19 * np.linspace(0, 1, 64)[:, None], np.linspace(0, 2 * np.pi, 361)
)  # (length, direction, 3)


def colour(values: Plane, table: Picture, limits: Limits) -> Picture:
    """The table's colours for values from limits[0] (first) to limits[1] (last); values beyond take the end colours."""
    low, high = limits
    if not low < high:
        raise InputError("limits must rise", limits, "give (lowest, highest)")
    last = len(table) - 1
    return table[np.clip((values - low) * (last / (high - low)) + 0.5, 0, last).astype(np.uint8)]


# ---------------------------------------------------------------------------------------------- planes
def _take(array: Any, channels: int | None, name: str, item: int | None, axes: int = 2) -> NDArray[Any]:
    """One finite item (channels, *space) of an array or tensor (B, channels, *space); leading 1s may lack.

    channels: how many, or None for one along each of the `axes` of space.
    """
    channels = axes if channels is None else channels
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array
    array = np.asarray(array)
    shape = array.shape
    if array.ndim == axes and channels == 1:
        array = array[None]
    array = array[None] if array.ndim == axes + 1 else array
    if array.ndim != axes + 2 or array.shape[1] != channels or array.size == 0:
        form = f"{channels}, {'D, ' * (axes - 2)}H, W"
        raise InputError(
            f"{name} must be ({form}) or a batch (B, {form})",
            f"shape {shape}",
            "select one channel of an image, and of a volume one plane where a plane is asked for",
        )
    batch = len(array)
    if (item is None and batch > 1) or not 0 <= (item or 0) < batch:
        raise InputIndexError(
            f"a picture shows one item of {name}",
            f"a batch of {batch} and item={item}",
            f"give item from 0 to {batch - 1}",
        )
    array = array[item or 0]
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise InputError(
            f"{name} must be finite to be drawn",
            f"{bad} NaN or infinite of {array.size} values",
            "find where they arise",
        )
    return array


def plane(image: Any, name: str = "image", item: int | None = None) -> Plane:
    """One (H, W) plane of an image: from (H, W), (1, H, W) or (B, 1, H, W), array or tensor; `item` indexes the batch.

    Raises:
        ValueError, IndexError: other shapes, NaN, a batch without an item.
    """
    return _take(image, 1, name, item)[0]


def label_plane(labels: Any, name: str = "labels", item: int | None = None) -> Plane:
    """One (H, W) plane of integer labels; otherwise as `plane`."""
    return _whole(plane(labels, name, item), name)


def _whole(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    if values.dtype.kind not in "iub":
        raise InputTypeError(f"{name} must be integers", values.dtype, f"convert them with {name}.round().long()")
    return values.astype(np.int64)


def field_plane(displacement: Any, name: str = "displacement", item: int | None = None) -> FieldPlane:
    """One (2, H, W) plane of a displacement, voxels; otherwise as `plane`."""
    return _take(displacement, 2, name, item).astype(np.float32)


def volume(image: Any, name: str = "image", item: int | None = None) -> NDArray[Any]:
    """One item as (H, W) or (D, H, W): a volume from (B, 1, D, H, W), a plane from what `plane` takes.

    Raises:
        ValueError, IndexError: other shapes, NaN, a batch without an item.
    """
    return _take(image, 1, name, item, _axes(image))[0]


def label_volume(labels: Any, name: str = "labels", item: int | None = None) -> NDArray[np.int64]:
    """One item of integer labels; otherwise as `volume`."""
    return _whole(volume(labels, name, item), name)


def field_volume(displacement: Any, name: str = "displacement", item: int | None = None) -> NDArray[np.float32]:
    """One item of a displacement, voxels, as (2, H, W) or (3, D, H, W); otherwise as `volume`."""
    return _take(displacement, None, name, item, _axes(displacement)).astype(np.float32, copy=False)


def _axes(array: Any) -> int:
    """Axes of space: three of a batch of volumes, two of all else."""
    return 3 if np.ndim(array) == 5 else 2


def check_same_plane(first: NDArray[Any], second: NDArray[Any], names: tuple[str, str]) -> None:
    """Raise unless two planes (or field planes) have the same height and width."""
    check_same_shape(first.shape[-2:], second.shape[-2:], names)


def check_same_shape(first: Sequence[int], second: Sequence[int], names: tuple[str, str]) -> None:
    """Raise unless two shapes of space are the same."""
    if tuple(first) != tuple(second):
        raise InputError(
            f"{names[0]} and {names[1]} must have the same height and width (and depth)",
            f"{tuple(first)} and {tuple(second)}",
            "resize one of them",
        )


def intensity_limits(*images: Plane) -> Limits:
    """One range for images that are compared: (0, 1) where all lie in it, else from the lowest to the highest value."""
    low, high = min(float(image.min()) for image in images), max(float(image.max()) for image in images)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)


def nice_limit(value: float) -> float:
    """The smallest of 1, 2, 3, 4, 5, 6, 8 times a power of ten that is not below `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-6)))


def lengths(displacement: NDArray[Any]) -> NDArray[Any]:
    """|u| of a displacement (dim, *space), voxels."""
    return np.sqrt(np.einsum("i...,i...->...", displacement, displacement))


def displacement_limit(displacement: NDArray[Any]) -> float:
    """A round number of voxels that no displacement (dim, *space) exceeds: the range of `render_displacement`."""
    return nice_limit(float(lengths(displacement).max()))


# ---------------------------------------------------------------------------------------------- pixels
def integer_scale(shape: Sequence[int], target: int = 400) -> int:
    """How many pixels a voxel takes so that the longer side comes close to `target` pixels, never below one."""
    return max(1, target // max(shape[-2:]))


def enlarge(picture: Picture, scale: int) -> Picture:
    """Every pixel as a block of scale x scale equal pixels."""
    return picture.repeat(scale, 0).repeat(scale, 1)


def rim(values: Plane, scale: int) -> NDArray[np.bool_]:
    """Which pixels of an enlarged plane have another value to the left or above."""
    large = enlarge(values[..., None], scale)[..., 0]
    edge = np.zeros(large.shape, bool)
    edge[1:] |= large[1:] != large[:-1]
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    return edge


def blank(shape: Sequence[int], scale: int, paint: Colour = NIGHT) -> Picture:
    """An empty picture for a plane of this shape."""
    height, width = shape[-2:]
    row = np.full((width * scale, 3), paint, np.uint8)
    return np.broadcast_to(row, (height * scale, *row.shape)).copy()  # far faster than np.full with a colour


def darken(picture: Picture, brightness: float) -> Picture:
    """The picture darkened, so that lines on it stand out."""
    return (np.arange(256) * brightness).astype(np.uint8)[picture]


def stack(*pictures: Picture, axis: int = 0, gap: int = 6) -> Picture:
    """Pictures on white paper one below the other (axis 0) or side by side (axis 1), aligned at the upper left."""
    shapes = [list(picture.shape[:2]) for picture in pictures]
    shape = [max(sizes) for sizes in zip(*shapes, strict=True)]
    shape[axis] = sum(sizes[axis] for sizes in shapes) + gap * (len(pictures) - 1)
    sheet, corner = blank(shape, 1, PAPER), [0, 0]
    for picture, (height, width) in zip(pictures, shapes, strict=True):
        sheet[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = picture
        corner[axis] += (height, width)[axis] + gap
    return sheet


def png(picture: Picture) -> bytes:
    """The picture as a PNG file.

    Written here because Pillow tries five filters for every row, which takes twice the time and, on blocks of equal
    pixels and on noise, makes the file larger. Source: W3C, Portable Network Graphics (PNG) Specification.
    """
    height, width = picture.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a row starts with its filter: 0, none
    rows[:, 1:] = picture.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, red green blue, not interlaced
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows.data, 1), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@functools.cache
def font(size: int = 13) -> Any:
    """The typeface of numbers in pictures (it comes with Pillow)."""
    return ImageFont.load_default(size)
