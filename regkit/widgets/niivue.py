"""Volumes: three planes and a rendering of a registration by NiiVue, where the extra `viewer` is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import ipywidgets
import nibabel
import numpy as np

from regkit.figures.pixels import LABELS, Limits
from regkit.images import Scan
from regkit.types import InputError, Pair, Registration, needing
from regkit.widgets import static
from regkit.widgets.live import View
from regkit.widgets.panels import Quantities

_NOISE = 0.08  # of the range: what is darker hides no brain in the rendering


@dataclass(frozen=True, eq=False)
class Layer:
    """One volume of the viewer. limits: where its colours begin and end. colours: NiiVue's name for them, and for those
    below 0, if they differ; none of labels. opacity: at the start."""

    name: str
    image: nibabel.Nifti1Image
    limits: Limits
    colours: tuple[str, ...] = ()
    opacity: float = 0.0


def volume_layers(pair: Pair | Sequence[Scan], registration: Registration, *, item: int = 0) -> list[Layer]:
    """What `volume_viewer` shows: fixed, warped, |J| - 1; of a pair with labels also fixed labels and warped labels.

    pair, item: as of `volume_viewer`. The affines lead to mm: a scan's own to RAS, a pair's are its spacing.

    Raises:
        ValueError, IndexError: slices, scans on two grids, a displacement on another grid, no such item.
    """
    if isinstance(pair, Pair):
        shown, affine = pair, np.diag([*pair.spacing, 1.0])
    else:
        moving, fixed = pair
        shown, affine = Pair(moving.tensor, fixed.tensor, spacing=fixed.spacing), fixed.affine
        if not moving.grid.is_same(fixed.grid):
            raise InputError("two scans must be on one grid", "two grids", "resample the moving one to the fixed one")
    if shown.fixed.dim() != 5:
        raise InputError("volumes have three axes", f"{tuple(shown.fixed.shape)}", "take `explore` for slices")
    quantities = Quantities(shown, registration.displacement, item=item)
    low, high = quantities.limits
    visible = (low + _NOISE * (high - low), high)
    layers = [
        Layer("fixed", nibabel.Nifti1Image(quantities.fixed, affine), visible, ("gray",), 1.0),
        Layer("warped", nibabel.Nifti1Image(quantities.warped, affine), visible, ("copper",), 0.5),
        Layer("|J| - 1", nibabel.Nifti1Image(quantities.determinant - 1, affine), (0.0, 1.0), ("green", "violet")),
    ]
    if shown.moving_labels is not None and shown.fixed_labels is not None:
        for name in ("fixed", "warped"):
            labels = quantities.labels(name).astype(np.int32)
            layers.append(Layer(f"{name} labels", nibabel.Nifti1Image(labels, affine), (0.0, float(labels.max()))))
    return layers


def volume_viewer(pair: Pair | Sequence[Scan], registration: Registration, *, item: int = 0) -> ipywidgets.VBox:
    """Look at a registration as volumes: fixed, warped, |J| and labels are layers, each with a slider for its opacity.

    pair: a Pair of volumes, or two scans (moving, fixed) on one grid; the displacement is on it. item: which of a
    batch. Three planes and a rendering, which the mouse turns; a click moves the cross hairs. |J| is green where it is
    above 1, violet below. Source: NiiVue (ipyniivue); it draws in the browser (WebGL), and needs no network.

    Raises:
        ImportError: the extra `viewer` is not installed. ValueError, IndexError: as `volume_layers`.
    """
    with needing("viewer", "the volume viewer"):
        from ipyniivue import NiiVue, ShowRender, Volume
    volumes, sliders = [], []
    for layer in volume_layers(pair, registration, item=item):
        low, high = layer.limits
        colours = dict(zip(("colormap", "colormap_negative"), layer.colours, strict=False))
        limits = {"cal_min": low, "cal_max": high, "cal_min_neg": -high, "cal_max_neg": -low}
        content = {"name": f"{layer.name}.nii", "data": layer.image.to_bytes(), "colorbar_visible": False}
        volume = Volume(**content, **colours, **limits, opacity=layer.opacity)
        if not colours:
            red, green, blue = LABELS[np.arange(-1, int(high)) % len(LABELS)].T.tolist()
            volume.set_colormap_label({"R": red, "G": green, "B": blue, "A": [0] + [255] * int(high)})
        slider = ipywidgets.FloatSlider(layer.opacity, min=0, max=1, step=0.05, description=layer.name)
        slider.style.description_width = "initial"
        ipywidgets.link((slider, "value"), (volume, "opacity"))
        volumes.append(volume)
        sliders.append(slider)
    viewer = NiiVue(height=480, crosshair_width=0.3, multiplanar_show_render=ShowRender.ALWAYS)
    viewer.load_volumes(volumes)
    return ipywidgets.VBox([ipywidgets.Box(sliders, layout={"flex_flow": "row wrap"}), viewer])


def with_volumes(view: View, pair: Pair | Sequence[Scan], registration: Registration) -> View | ipywidgets.VBox:
    """A view, and below it a `volume_viewer` where that is installed; on a page without a kernel the view alone."""
    if static.wanted() or find_spec("ipyniivue") is None:
        return view
    return ipywidgets.VBox([view.widget, volume_viewer(pair, registration)])
