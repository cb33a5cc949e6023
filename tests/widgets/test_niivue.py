"""The volume viewer: its layers without a browser, and its pictures in headless Chromium with software WebGL."""

import importlib.util
import io
import sys

import nbformat
import numpy as np
import pytest
import torch
from helpers import browser
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from regkit import types, widgets
from regkit.fields import jacobian_determinant, warp, warp_labels
from regkit.images import Grid, Scan
from regkit.types import Pair, Registration
from regkit.widgets import niivue

SPACE = (7, 6, 5)


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(0)
    moving, fixed = torch.rand(2, 2, 1, *SPACE, generator=generator)
    labels = torch.randint(0, 30, (2, 1, *SPACE), generator=generator)
    u = torch.randn(2, 3, *SPACE, generator=generator)
    return Pair(moving, fixed, labels, labels.flip(2), spacing=(1.0, 2.0, 3.0)), Registration(u)


def test_layers_are_what_was_registered_in_mm(example):
    pair, registration = example
    u = registration.displacement[1:]
    expected = {
        "fixed": pair.fixed[1],
        "warped": warp(pair.moving[1:], u)[0],
        "|J| - 1": jacobian_determinant(u)[0] - 1,
        "fixed labels": pair.fixed_labels[1],
        "warped labels": warp_labels(pair.moving_labels[1:], u)[0],
    }
    layers = niivue.volume_layers(pair, registration, item=1)
    for layer, (name, values) in zip(layers, expected.items(), strict=True):
        assert layer.name == name
        np.testing.assert_allclose(np.asanyarray(layer.image.dataobj), values[0].numpy(), rtol=0, atol=1e-6)
        assert np.array_equal(layer.image.affine, np.diag([1.0, 2.0, 3.0, 1.0]))
    assert [layer.colours for layer in layers] == [("gray",), ("copper",), ("green", "violet"), (), ()]


def test_scans_keep_their_affine_and_slices_are_refused(example):
    pair, registration = example
    affine = np.array([[-2.0, 0, 0, 9], [0, 1, 0.5, 8], [0, -0.5, 1, 7], [0, 0, 0, 1]])
    grid, other = Grid(SPACE, affine), Grid(SPACE, 2 * affine - affine[3, 3] * np.diag([0, 0, 0, 1]))
    scans = [Scan(image[:1], grid, grid) for image in (pair.moving, pair.fixed)]
    one = Registration(registration.displacement[:1])
    layers = niivue.volume_layers(scans, one)
    assert len(layers) == 3 and all(np.array_equal(layer.image.affine, affine) for layer in layers)
    with pytest.raises(ValueError, match="must be on one grid"):
        niivue.volume_layers([scans[0], Scan(scans[1].tensor, other, other)], one)
    flat = torch.rand(1, 1, 5, 4)
    with pytest.raises(ValueError, match="volumes have three axes"):
        niivue.volume_layers(Pair(flat, flat), Registration(torch.zeros(1, 2, 5, 4)))


def test_without_its_package_the_view_stays_as_it_is(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(types.MissingPackageError, match=r'pip install "regkit-registration\[viewer\]"'):
        widgets.volume_viewer(*example)
    monkeypatch.setattr(niivue, "find_spec", lambda name: None)
    view = widgets.slice_viewer(*example)
    assert widgets.with_volumes(view, *example) is view


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
@pytest.mark.skipif(importlib.util.find_spec("ipyniivue") is None, reason="the viewer extra is not installed")
def test_a_browser_draws_the_layers(tmp_path):
    source = """from regkit import data, widgets, types
pair = data.synthetic_pair(3, size=(24, 24, 24))
registration = types.Registration(pair.displacement)
view = widgets.slice_viewer(pair, registration)
widgets.with_volumes(view, pair, registration)"""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "lab").mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell(source)], metadata=kernel), tmp_path / "lab" / "mine.ipynb")
    lab, errors = browser.jupyterlab(tmp_path / "lab", tmp_path), []
    with (
        lab as address,
        browser.page(errors, height=2000) as page,
        browser.notebook(page, address.format("mine.ipynb")),
    ):
        canvas = page.locator(".jp-OutputArea canvas")
        canvas.wait_for()
        wait_for_colours(page, canvas, lambda red, green, blue: red.max() > 60)
        red, green, blue = colours(canvas)
        assert (green - red).max() < 30 and (blue - green).max() < 30  # grey, copper, red cross hairs
        page.locator(".widget-hslider:has-text('|J| - 1') .noUi-handle").focus()
        page.keyboard.press("End")
        wait_for_colours(page, canvas, lambda red, green, blue: min((green - red).max(), (blue - green).max()) > 60)
        assert browser.cell_errors(page) == [] and errors == []


def colours(canvas):
    """Red, green and blue of what the canvas shows."""
    return np.moveaxis(np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int), 2, 0)


def wait_for_colours(page, canvas, expected):
    for _ in range(int(browser.LIMIT)):
        if expected(*colours(canvas)):
            return
        page.wait_for_timeout(1000)
    raise AssertionError(f"the canvas must show other colours; it did not within {browser.LIMIT:.0f} s")
