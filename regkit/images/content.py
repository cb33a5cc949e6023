"""What a scan's voxels are: in its field of view or not, background or not, and between which values its contrast lies.

One notion for all of regkit, on values (1, 1, *space) in the file's units:

    inside = field_of_view(values)            # not NaN, not padding
    dark = background(values, inside)         # found at the edge, wherever it lies among the values
    low, high = window(values, inside, dark)  # which `normalise` makes 0 and 1
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regkit.types import InputError

FOREGROUND = 0.1  # of the range of intensities: what is that far from the background
_AIR = -1024.0  # Hounsfield units: nothing in the body is darker
_BRIGHTEST = 32767.0  # of 16 bits
_SHARE = 1e-3  # of the voxels: fewer are dead or hot
_EDGE = 0.3  # of the outermost voxels: one value that so many have is the background
_EVEN = 0.1  # of the range: outermost voxels that differ less are background, with noise
_APART = 0.3  # of the other values' range: padding is no closer to them
_FAR = 3.0  # of the other values' range: a background so far away takes no part of the contrast
_SPARSE = 10.0  # of the other values' range: so bright, and in one piece, is what the image is of


def field_of_view(values: Tensor) -> Tensor:
    """Where something was seen: finite, and no padding. bool, as values.

    Padding is one value at the edge of the image, apart from all others: darker than the air of CT (-2000, -3024,
    -32768), the last number of 16 bits, or below 0 where the others have a background of their own.
    """
    inside = values.isfinite()
    finite = _seen(values, inside)
    if finite.numel() and finite.min() >= 0 and finite.max() < _BRIGHTEST:  # no value can be padding
        return inside
    for sign in (1, -1):
        seen = sign * values[inside]
        for _ in range(3):  # dead voxels may lie beyond
            if not len(seen):
                break
            value, rest = float(seen.min()), seen[seen != seen.min()]
            if len(seen) - len(rest) >= _SHARE * len(seen) and len(rest):
                near, far = _percentiles(rest, 1, 99)
                known = value < _AIR if sign > 0 else value <= -_BRIGHTEST
                own = sign * value < 0 and float((rest <= near + (far - near) / 20).float().mean()) > 0.1
                apart = near - value > _APART * (far - near)
                if not (known or own) or not apart or not (sign * outermost(values, inside) == value).any():
                    break
                inside = inside & (sign * values > (value + near) / 2)
            seen = rest
    return inside


def background(values: Tensor, inside: Tensor) -> float:
    """The value that most of the outermost voxels have, or nearly have; the lowest where they differ.

    Raises:
        ValueError: nothing is inside.
    """
    if not inside.any():
        raise InputError("a scan must have a field of view", "one with nothing in it", "check it, and its mask")
    edge = outermost(values, inside)
    most, counts = torch.unique(edge, return_counts=True)
    if float(counts.max()) >= _EDGE * len(edge):
        return float(most[counts.argmax()])
    low, high = _percentiles(_seen(values, inside), 100 * _SHARE, 99.5)
    first, middle, last = _percentiles(edge, 25, 50, 75)
    return middle if last - first <= _EVEN * (high - low) else float(values[inside].min())


def window(
    values: Tensor, inside: Tensor, dark: float, percentiles: tuple[float, float] = (0.0, 99.5)
) -> tuple[float, float]:
    """The two values that contrast lies between: `percentiles` of the field of view; dark: the background.

    A few dead voxels count as little as a few hot ones. Where the two are one, as of a sparse image, the upper is that
    of what is brighter, else the lower that of what is darker; where few voxels in one piece are far brighter than all
    others, the upper is theirs. A background much darker than all else is cut.
    """
    seen = _seen(values, inside)
    low, high, least = _percentiles(seen, *percentiles, 100 * _SHARE)
    low = least if least - low > (high - least) / 4 else low
    if low == high:
        brighter, darker = seen[seen > low], seen[seen < low]
        if len(brighter):
            high = _percentiles(brighter, percentiles[1])[0]
        elif len(darker):
            low = _percentiles(darker, percentiles[0])[0]
    far = inside & (values > low + _SPARSE * (high - low))
    if low < high and far.any() and (far := far & _in_one_piece(far)).any():
        high = _percentiles(values[far], percentiles[1])[0]
    if low == dark and len(rest := seen[(seen - dark).abs() > FOREGROUND * (high - low)]):
        near, last = _percentiles(rest, 100 * _SHARE, 100 - 100 * _SHARE)
        low = near - (last - near) / 4 if near - dark > _FAR * (last - near) > 0 else low
    return low, high


def bounding_box(content: Tensor) -> np.ndarray | None:
    """The first voxel of some content (1, 1, *space), bool, and that after the last: (2, dim); None without any.

    Single voxels, far from all others, count only where there is nothing else.
    """
    kept = _in_one_piece(content)
    kept = kept if kept.any() else content
    axes = range(2, content.dim())
    planes = [kept.any(tuple(other for other in (0, 1, *axes) if other != axis)).nonzero() for axis in axes]
    return np.array([[int(each[0]) for each in planes], [int(each[-1]) + 1 for each in planes]]) if kept.any() else None


def _in_one_piece(content: Tensor) -> Tensor:
    """Voxels that have two others among their neighbours: a vessel has, a dead voxel has not."""
    return content & (_around(content, 0) > 2)


def grown(mask: Tensor, border: int = 0) -> Tensor:
    """A mask (1, 1, *space), bool, and its neighbours; border: 1 where what is beyond counts as in it."""
    return _around(mask, border) > 0


def _around(mask: Tensor, border: int) -> Tensor:
    """How many of a voxel and its neighbours are in a mask, uint8; border: 1 where what is beyond is."""
    count = F.pad(mask.byte(), [1] * 2 * (mask.dim() - 2), value=border)
    for axis, size in enumerate(mask.shape[2:], 2):
        count = count.narrow(axis, 0, size) + count.narrow(axis, 1, size) + count.narrow(axis, 2, size)
    return count


def outermost(values: Tensor, inside: Tensor | None = None) -> Tensor:
    """The values at the edge of the field of view: at the image's border, or beside what is not seen."""
    if inside is None or inside.all():
        return torch.cat([values.select(axis, end).flatten() for axis in range(2, values.dim()) for end in (0, -1)])
    return values[inside & grown(~inside, border=1)]


def _seen(values: Tensor, inside: Tensor) -> Tensor:
    """The values in the field of view, (n,)."""
    return values.flatten() if inside.all() else values[inside]


def _percentiles(values: Tensor, *percents: float) -> list[float]:
    return np.percentile(values.cpu().numpy(), percents).tolist()
