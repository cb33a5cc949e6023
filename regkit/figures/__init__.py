"""Static plots with matplotlib, painted by paint.py, so that a quantity has the colours that it has in the widgets.

Each function returns a Figure that a notebook shows where a cell ends in it; nothing is shown behind the back. Axes
are numbered and count voxels; ranges are fixed, so that two figures compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from regkit.fields import jacobian_determinant, warp
from regkit.figures import paint, pixels
from regkit.figures.pixels import JACOBIAN_LIMITS, Limits, Picture
from regkit.training import History
from regkit.types import InputError, Pair, Registration, choose, needing

__all__ = ["show_history", "show_pair", "show_registration"]

if TYPE_CHECKING:  # matplotlib is needed by those who plot
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 3.0  # inches, without its colour bar


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    with needing("notebooks", "a figure"):
        import matplotlib.pyplot as plt

    size = (1.3 * columns * _PANEL, rows * _PANEL)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="compressed")
    plt.close(figure)  # the cell that ends in the figure shows it, once
    return figure, axes.ravel()


def _show(axes: Axes, picture: Picture, scale: int, title: str) -> None:
    """A picture of a plane in voxels: centres at integers, axis 0 down."""
    height, width = picture.shape[0] / scale, picture.shape[1] / scale
    axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="antialiased")
    axes.set(title=title, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")


def _bar(axes: Axes, table: Picture, limits: Limits, label: str) -> None:
    """A colour bar for the picture in these axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = ScalarMappable(Normalize(*limits), ListedColormap(table / 255))
    axes.figure.colorbar(colours, cax=axes.inset_axes((1.04, 0, 0.05, 1)), label=label)


def show_pair(pair: Pair, *, item: int = 0) -> Figure:
    """The moving and the fixed image, their labels' outlines where there are any, and the difference between them.

    pair: images (B, 1, H, W); `item` says which of a batch.

    Raises:
        ValueError, IndexError: volumes, NaN, no such item.
    """
    moving, fixed = pixels.plane(pair.moving, "moving", item), pixels.plane(pair.fixed, "fixed", item)
    limits, scale = pixels.intensity_limits(moving, fixed), pixels.integer_scale(moving.shape)
    figure, axes = _panels(1, 3)
    for panel, image, labels, title in (
        (axes[0], moving, pair.moving_labels, "moving"),
        (axes[1], fixed, pair.fixed_labels, "fixed"),
    ):
        picture = paint.render_image(image, limits=limits, scale=scale)
        if labels is not None:
            picture = paint.render_contours(picture, pixels.label_plane(labels, "labels", item))
        _show(panel, picture, scale, title)
    _bar(axes[1], pixels.GREYS, limits, "intensity")
    _difference(axes[2], moving, fixed, limits, "moving - fixed")
    return figure


def _difference(axes: Axes, first: np.ndarray, second: np.ndarray, limits: Limits, title: str) -> None:
    """A difference in half the range of the intensities, with its bar."""
    half, scale = (limits[1] - limits[0]) / 2, pixels.integer_scale(first.shape)
    error = float(np.abs(first - second).mean())
    _show(
        axes,
        paint.render_difference(first, second, limit=half, scale=scale),
        scale,
        f"{title}\nmean absolute {error:.3f}",
    )
    _bar(axes, pixels.DIFFERENCES, (-half, half), "difference of intensity")


def show_registration(pair: Pair, registration: Registration, *, item: int = 0, panels: Literal[4, 8] = 4) -> Figure:
    """A registration in four panels: warped, the difference that is left, the map's grid, |J| with its folds outlined.

    pair: images (B, 1, H, W). The grid is φ(x) = x + u(x) drawn on the moving image, where it leads. item: which of a
    batch. panels=8: smaller, and moving, fixed, the difference before and the displacement u, too.

    Raises:
        ValueError, IndexError: another number of panels; volumes, other grids, NaN, no such item.
    """
    choose("panels", str(panels), {"4": 4, "8": 8})
    moving, fixed = pixels.plane(pair.moving, "moving", item), pixels.plane(pair.fixed, "fixed", item)
    warped = pixels.plane(warp(pair.moving, registration.displacement.detach()), "warped", item)
    pixels.check_same_plane(warped, fixed, ("displacement", "fixed"))
    field = pixels.field_plane(registration.displacement, "displacement", item)
    determinant = pixels.plane(jacobian_determinant(registration.displacement), "determinant", item)
    limits, scale = pixels.intensity_limits(moving, fixed), pixels.integer_scale(moving.shape)
    figure, axes = _panels(2, panels // 2)
    places = iter(axes)
    if panels == 8:
        for image, title in ((moving, "moving"), (fixed, "fixed")):
            _show(next(places), paint.render_image(image, limits=limits, scale=scale), scale, title)
        _difference(next(places), moving, fixed, limits, "before: moving - fixed")
        _displacement(next(places), field, scale)
    shown = next(places)
    _show(shown, paint.render_image(warped, limits=limits, scale=scale), scale, "warped")
    _bar(shown, pixels.GREYS, limits, "intensity")
    _difference(next(places), warped, fixed, limits, "after: warped - fixed")
    below = pixels.darken(paint.render_image(moving, limits=limits, scale=scale), 0.6)
    grid = paint.render_grid(below, field, every=max(1, max(moving.shape) // 16))
    _show(next(places), grid, scale, "x + u(x), on moving")
    _jacobian(next(places), determinant, scale)
    return figure


def _displacement(axes: Axes, field: Any, scale: int) -> None:
    """A displacement in colours, with the wheel that explains them."""
    limit = pixels.displacement_limit(field)
    _show(axes, paint.render_displacement(field, limit=limit, scale=scale), scale, "displacement u")
    key = axes.inset_axes((1.08, 0.7, 0.3, 0.3))
    key.imshow(paint.render_wheel(limit, width=160, side=160), extent=(-limit, limit, limit, -limit))
    key.set(title="u (voxels)", xticks=(-limit, limit), yticks=())
    key.tick_params(labelsize=7)
    key.title.set_fontsize(8)


def _jacobian(axes: Axes, determinant: Any, scale: int) -> None:
    """|J| with its bar, and the folds counted."""
    from matplotlib.patches import Patch

    _show(axes, paint.render_jacobian(determinant, scale=scale), scale, "|J|")
    _bar(axes, pixels.JACOBIANS, JACOBIAN_LIMITS, "|J| (1: size kept)")
    folds = int((determinant <= 0).sum())
    patch = Patch(color=f"#{bytes(pixels.FOLD).hex()}", label=f"folds: {folds} voxels")
    axes.legend(handles=[patch], loc="lower left", fontsize=8)


def show_history(history: History) -> Figure:
    """A training: the loss, and the named terms that it is the sum of, over the steps, each on a scale of its own.

    Raises:
        ValueError: no step was taken yet.
    """
    if not history.terms:
        raise InputError("a history must hold at least one step to be shown", "none", "train first")
    curves = {"loss": history.loss, **history.terms}
    figure, panels = _panels(-(-len(curves) // 3), min(len(curves), 3))
    for position, (axes, (name, values)) in enumerate(zip(panels, curves.items(), strict=False)):
        axes.plot(range(1, len(values) + 1), values, color="#0072b2" if position else "black")
        axes.set(title=name, xlabel="step", ylabel="weighted term" if position else "sum of the weighted terms")
        axes.grid(alpha=0.3)
    for axes in panels[len(curves) :]:
        axes.remove()
    return figure
