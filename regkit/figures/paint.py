"""What there is to see in a registration, each as a pure function to pixels: `render_*(...) -> (H, W, 3) uint8`.

Planes, fields, scales and colours are those of pixels.py. The first group paints every voxel, `scale` pixels wide; the
second puts two images side by side in one plane; the third lays lines over a picture, whose scale it reads from the
shapes; the last makes legends. Nothing is modified in place. Ranges are fixed by the caller, so that frames compare.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw
from scipy import ndimage

from regkit.figures import pixels
from regkit.figures.pixels import FOLD, INK, LINE, NIGHT, PAPER, POINT, Colour, Limits, Picture
from regkit.types import InputError

_HISTOGRAM_LIMITS: Limits = (-1.0, 3.0)


# ---------------------------------------------------------------------------------------------- one colour a voxel
def render_image(image: Any, *, limits: Limits = (0, 1), scale: int = 1) -> Picture:
    """Intensities in grey: limits[0] black, limits[1] white."""
    return pixels.enlarge(pixels.colour(pixels.plane(image), pixels.GREYS, limits), scale)


def render_difference(first: Any, second: Any, *, limit: float = 0.5, scale: int = 1) -> Picture:
    """first - second: blue below zero, near-white at zero, orange above; the full colour at ±limit."""
    first, second = pixels.plane(first, "first"), pixels.plane(second, "second")
    pixels.check_same_plane(first, second, ("first", "second"))
    return pixels.enlarge(pixels.colour(first.astype(np.float32) - second, pixels.DIFFERENCES, (-limit, limit)), scale)


def render_displacement(displacement: Any, *, limit: float, scale: int = 1) -> Picture:
    """Where φ(x) = x + u(x) lies from x: the direction as hue, the length as depth of colour, full at `limit` voxels.

    The key is `render_wheel`: there, the colour at a place is that of the displacement from the wheel's centre to it.
    """
    down, right = pixels.field_plane(displacement)
    rings, rays = len(pixels._WHEEL) - 1, pixels._WHEEL.shape[1] - 1
    ring = np.minimum(np.hypot(down, right) / limit, 1) * rings
    ray = (np.arctan2(down, right) / (2 * np.pi)) % 1 * rays
    return pixels.enlarge(pixels._WHEEL[(ring + 0.5).astype(int), (ray + 0.5).astype(int)], scale)


def render_jacobian(determinant: Any, *, limits: Limits = pixels.JACOBIAN_LIMITS, scale: int = 1) -> Picture:
    """|J| around 1: purple where φ shrinks, near-white at 1, green where it grows; `FOLD` exactly where |J| <= 0.

    Where a voxel has three pixels or more, folds have a dark outline, too: orange and green are alike to some eyes.
    """
    values = pixels.plane(determinant, "determinant")
    picture = pixels.colour(values, pixels.JACOBIANS, limits)
    return render_folds(pixels.enlarge(picture, scale), values)


# ---------------------------------------------------------------------------------------------- two images in one
def _both(first: Any, second: Any, limits: Limits, scale: int) -> tuple[Picture, Picture]:
    first, second = pixels.plane(first, "first"), pixels.plane(second, "second")
    pixels.check_same_plane(first, second, ("first", "second"))
    return render_image(first, limits=limits, scale=scale), render_image(second, limits=limits, scale=scale)


def render_checkerboard(first: Any, second: Any, *, tiles: int = 6, limits: Limits = (0, 1), scale: int = 1) -> Picture:
    """The two images in turn on `tiles` fields along the longer side; the first has the upper left corner."""
    one, other = _both(first, second, limits, scale)
    side = max(one.shape[:2]) / tiles
    row, column = ((np.arange(size) / side).astype(int) for size in one.shape[:2])
    return np.where(((row[:, None] + column) % 2 == 0)[..., None], one, other)


def render_curtain(
    first: Any, second: Any, *, position: float = 0.5, limits: Limits = (0, 1), scale: int = 1
) -> Picture:
    """The first image left of the curtain, the second right: only the second at position 0, only the first at 1."""
    one, other = _both(first, second, limits, scale)
    edge = round(position * one.shape[1])
    picture = np.concatenate([one[:, :edge], other[:, edge:]], 1)
    if 0 < edge < one.shape[1]:
        picture[:, edge - 1 : edge + 1] = POINT
    return picture


def render_flicker(first: Any, second: Any, *, frame: int, limits: Limits = (0, 1), scale: int = 1) -> Picture:
    """The first image in even frames, the second in odd ones: what jumps is not aligned."""
    return _both(first, second, limits, scale)[frame % 2]


def render_overlay(first: Any, second: Any, *, limits: Limits = (0, 1), scale: int = 1) -> Picture:
    """Both images in one: the first in orange, the second in blue, grey where they agree."""
    one, other = _both(first, second, limits, scale)
    warm, cold = one[..., :1].astype(np.uint16), other[..., :1].astype(np.uint16)
    return np.concatenate([warm, (warm + cold) // 2, cold], -1).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- over a picture
def _scale(picture: Picture, values: NDArray[Any]) -> int:
    """Pixels a voxel of a picture of this plane."""
    height, width = values.shape[-2:]
    scale = picture.shape[0] // height
    if scale < 1 or picture.shape[:2] != (height * scale, width * scale):
        raise InputError(
            "the picture must show the same plane at a whole scale",
            f"{picture.shape[:2]} pixels for {(height, width)} voxels",
            "render it from the same grid, or start from pixels.blank",
        )
    return scale


def draw_lines(picture: Picture, paths: Iterable[NDArray[Any]], width: float, paint: Colour) -> Picture:
    """Lines with smooth edges through points (N, 2) given as (row, column) in pixels."""
    height, breadth = picture.shape[:2]
    mask = PillowImage.new("L", (breadth * pixels._OVERSAMPLING, height * pixels._OVERSAMPLING))
    pen = ImageDraw.Draw(mask)
    for path in paths:
        pen.line((path[:, ::-1] * pixels._OVERSAMPLING).ravel().tolist(), 255, round(width * pixels._OVERSAMPLING))
    sheet = PillowImage.fromarray(picture)
    sheet.paste(paint, mask=mask.reduce(pixels._OVERSAMPLING))
    return np.array(sheet)


def render_labels(picture: Picture, labels: Any, *, opacity: float = 0.5) -> Picture:
    """Labels as transparent colours over a picture; background (0) stays as it is. Colours repeat after 21 labels."""
    values = pixels.label_plane(labels)
    scale = _scale(picture, values)
    weight = pixels.enlarge(np.where(values > 0, opacity, 0)[..., None], scale)
    paint = pixels.enlarge(pixels.LABELS[(values - 1) % len(pixels.LABELS)], scale)
    return (picture + weight * (paint.astype(float) - picture) + 0.5).astype(np.uint8)


def render_contours(picture: Picture, labels: Any, *, width: int = 3) -> Picture:
    """The outlines of labels over a picture, each inside its label and in its colour, `width` pixels wide."""
    values = pixels.label_plane(labels)
    values = pixels.enlarge(values[..., None], _scale(picture, values))[..., 0]
    padded = np.pad(values, width, mode="edge")
    edge = np.zeros(values.shape, bool)
    for step in range(2 * width + 1):
        edge |= padded[step : step + len(values), width:-width] != values
        edge |= padded[width:-width, step : step + values.shape[1]] != values
    return np.where((edge & (values > 0))[..., None], pixels.LABELS[(values - 1) % len(pixels.LABELS)], picture)


def render_grid(
    picture: Picture, displacement: Any, *, every: int = 4, stretch: float = 1, width: float = 1.3, paint: Colour = LINE
) -> Picture:
    """Every `every`-th row and column of voxels x as lines through x + stretch u(x).

    Drawn forward, the map φ(x) = x + u(x) applied to a regular grid: the lines lie in the moving image, on what the
    warp reads for that row or column of the fixed grid. (A warped picture of a grid, pulled, bends the other way.)
    """
    field = pixels.field_plane(displacement)
    scale = _scale(picture, field)
    places = np.moveaxis(np.indices(field.shape[1:]) + stretch * field, 0, -1)  # (H, W, 2)
    places = (places + 0.5) * scale
    rows, columns = ((size - 1) % every // 2 for size in field.shape[1:])
    lines = [*places[rows::every], *np.swapaxes(places, 0, 1)[columns::every]]
    return draw_lines(picture, lines, width, paint)


def render_arrows(
    picture: Picture, displacement: Any, *, every: int = 6, stretch: float = 1, width: float = 1.6
) -> Picture:
    """An arrow from every `every`-th voxel x of the fixed grid to x + stretch u(x), where the warp reads moving.

    The image's content goes the opposite way, from the tip to the tail. Below half a pixel a dot is drawn.
    """
    field = pixels.field_plane(displacement)
    scale = _scale(picture, field)
    chosen = (slice(None), *(slice((size - 1) % every // 2, None, every) for size in field.shape[1:]))
    start = (np.indices(field.shape[1:])[chosen].reshape(2, -1).T + 0.5) * scale
    shaft = stretch * scale * field[chosen].reshape(2, -1).T
    length = np.hypot(*shaft.T)[:, None]
    shaft = np.where(length < 0.5, (0, 1), shaft)
    tip, head = start + shaft, shaft / np.maximum(length, 1) * np.minimum(0.4 * length, 5 * width)
    side = 0.6 * head[:, ::-1] * (1, -1)
    paths = np.stack([start, tip, tip - head + side, tip, tip - head - side], 1)
    return draw_lines(picture, paths, width, LINE)


def render_folds(picture: Picture, determinant: Any) -> Picture:
    """`FOLD` over a picture exactly where |J| <= 0, outlined as in `render_jacobian`."""
    values = pixels.plane(determinant, "determinant")
    scale = _scale(picture, values)
    folds = pixels.enlarge((values <= 0)[..., None].astype(np.uint8), scale) > 0
    picture = np.where(folds, np.array(FOLD, np.uint8), picture)
    if scale >= 3 and folds.any():
        folds = folds[..., 0]
        picture[folds & ~ndimage.binary_erosion(folds, border_value=1)] = INK
    return picture


def render_point(picture: Picture, place: Sequence[int], shape: Sequence[int]) -> Picture:
    """Cross hairs around the voxel `place` (row, column) of a plane of this shape; the voxel itself stays visible."""
    scale = picture.shape[0] // shape[-2]
    row, column = (index * scale + scale // 2 for index in place)
    gap, picture = scale // 2 + 4, picture.copy()
    for paint, half in ((INK, 2), (POINT, 1)):
        across, down = slice(max(row - half, 0), row + half), slice(max(column - half, 0), column + half)
        picture[across, : max(column - gap, 0)] = picture[across, column + gap :] = paint
        picture[: max(row - gap, 0), down] = picture[row + gap :, down] = paint
    return picture


# ---------------------------------------------------------------------------------------------- legends
def write(picture: Picture, texts: Iterable[tuple[float, float, str, str]], paint: Colour = INK) -> Picture:
    """The picture with texts (row, column, anchor, text); anchors are Pillow's: l m r, then a m d."""
    sheet = PillowImage.fromarray(picture)
    pen = ImageDraw.Draw(sheet)
    for row, column, anchor, text in texts:
        pen.text((column, row), text, paint, pixels.font(), anchor)
    return np.array(sheet)


def titled(title: str, picture: Picture, paint: Colour = PAPER) -> Picture:
    """A picture under its title, which is written in a colour on a dark head of 24 pixels."""
    return np.concatenate([_head(title, picture.shape[1], paint), picture])


@functools.lru_cache(128)
def _head(title: str, width: int, paint: Colour) -> Picture:
    return write(np.full((24, width, 3), NIGHT, np.uint8), [(12, 6, "lm", title)], paint)


def titled_rows(*rows: Mapping[str, Picture]) -> Picture:
    """Rows of panels, each under its title."""
    return pixels.stack(*(pixels.stack(*(titled(*panel) for panel in row.items()), axis=1) for row in rows))


def grey(title: str, image: Any, limits: Limits, *, side: int = 256, paint: Colour = PAPER) -> Picture:
    """An image in grey under its title, its longer side about `side` pixels."""
    values = pixels.plane(image)
    return titled(title, render_image(values, limits=limits, scale=pixels.integer_scale(values.shape, side)), paint)


def render_bar(table: Picture, limits: Limits, *, width: int, unit: str = "") -> Picture:
    """A colour bar: the table from limits[0] to limits[1], with numbers at both ends and in the middle."""
    low, high = limits
    picture = np.full((32, width, 3), PAPER, np.uint8)
    picture[:12] = table[np.linspace(0, len(table) - 1, width).round().astype(int)]
    picture[[0, 11], :] = picture[:12, [0, -1]] = INK
    middle = f"{(low + high) / 2:g}{' ' + unit if unit else ''}"
    return write(
        picture, [(15, 0, "la", f"{low:g}"), (15, width / 2, "ma", middle), (15, width - 1, "ra", f"{high:g}")]
    )


@functools.lru_cache(8)
def render_jacobian_bar(*, limits: Limits = pixels.JACOBIAN_LIMITS, width: int) -> Picture:
    """The colours of `render_jacobian`: the folds' at the left, then the bar."""
    swatch = np.full((32, 60, 3), PAPER, np.uint8)
    swatch[:12, :48] = FOLD
    swatch[[0, 11], :48] = swatch[:12, [0, 47]] = INK
    bar = render_bar(pixels.JACOBIANS, limits, width=width - 60, unit="= same size")
    return np.concatenate([write(swatch, [(15, 0, "la", "folds")]), bar], 1)


@functools.cache
def _disc(limit: float, side: int) -> Picture:
    places = (np.indices((side, side)) - (side - 1) / 2) * (2 * limit / (side - 1))
    picture = render_displacement(places, limit=limit)
    picture[np.hypot(*places) > limit] = PAPER
    return picture


def render_wheel(limit: float, *, width: int, side: int = 80, name: str = "u") -> Picture:
    """The key of `render_displacement`: a disc of radius `limit`, coloured by the displacement from its centre."""
    picture = np.full((side, width, 3), PAPER, np.uint8)
    picture[:, :side] = _disc(limit, side)
    lines = [f"centre: {name} = 0", f"rim: {limit:g} voxels or more", f"hue: from x to x + {name}(x)"]
    return write(picture, [(side / 2 + 18 * i, side + 10, "lm", line) for i, line in enumerate(lines, -1)])


def render_histogram(
    determinant: Any, *, width: int, height: int = 120, logarithmic: bool = False, mark: float | None = None
) -> Picture:
    """How often each |J| occurs, from -1 (or less) to 3 (or more) in steps of 0.05, in the colours of the map.

    A bar holds the values above its lower and up to its upper end, so folds share none. `mark` draws a line at a value.
    """
    (low, high), bins = _HISTOGRAM_LIMITS, 80
    values = np.clip(pixels.plane(determinant, "determinant").ravel().astype(float), low, high)
    counts = np.histogram(-values, bins, (-high, -low))[0][::-1]
    tall = np.log10(1 + counts) if logarithmic else counts
    tall = np.ceil(tall / tall.max() * (height - 24)).astype(int)  # a single voxel still shows
    middles = np.linspace(low, high, 2 * bins + 1)[1::2]
    column = np.arange(width) * bins // width
    bars = np.arange(height)[:, None, None] >= (height - tall[column])[:, None]  # (height, width, 1)
    body = np.where(bars, render_jacobian(middles[column][None]), np.array(NIGHT, np.uint8))
    if mark is not None:
        at = int(np.clip((mark - low) / (high - low) * width, 1, width - 1))
        body[:, at - 1 : at + 1] = POINT
    title = f"highest bar: {counts.max()} voxels{' (log scale)' if logarithmic else ''}"
    body = write(body, [(3, width - 6, "ra", title)], PAPER)
    axis = np.full((20, width, 3), PAPER, np.uint8)
    ticks = [(3, (tick - low) / (high - low) * width, "ma", f"{tick:g}") for tick in (0, 1, 2)]
    return np.concatenate([body, write(axis, [*ticks, (3, 0, "la", "|J| <= -1"), (3, width - 1, "ra", ">= 3")])])
