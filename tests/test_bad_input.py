"""Bad input is refused in words at every public door; what is right keeps the laws: bounded, drawn by hypothesis."""

from __future__ import annotations

from functools import partial

import bad_input
import numpy as np
import pytest
import torch
from bad_input import CALLS, KEPT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import regkit
from regkit import fields, losses, metrics, types
from regkit.tools.compare import csv_text, table

few = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
seeds, sizes = st.integers(0, 2**31), st.lists(st.integers(3, 9), min_size=2, max_size=3)


@pytest.fixture(scope="module", autouse=True)
def files():
    bad_input.prepare()


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_refused_in_words(name):
    tried = {case: bad_input.ending(call) for case, call in bad_input.cases(name)}
    assert len(tried) > 2 and {case: end for case, end in tried.items() if end} == {}


@pytest.mark.parametrize(
    "line", bad_input.command_lines()[::5], ids=lambda words: " ".join(words).replace(KEPT.name, "")
)
def test_a_command_ends_in_one_line(line):
    assert bad_input.said(line) == ""


def drawn(seed: int, shape: list[int], channels: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(1, channels, *shape, generator=generator, dtype=torch.float64)


@few
@given(seed=seeds, shape=sizes, scale=st.floats(0, 5))
def test_laws_of_fields(seed, shape, scale):
    dim, image = len(shape), drawn(seed, shape, 1)
    u, v = (drawn(seed + k, shape, dim, scale) - scale / 2 for k in (1, 2))
    nothing = torch.zeros_like(u)
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-12)
    warped = fields.warp(image, u)
    assert warped.min() >= image.min() - 1e-9 and warped.max() <= image.max() + 1e-9
    close(fields.warp(image, nothing), image)
    close(fields.compose(u, nothing), u)
    close(fields.compose(nothing, v), v)
    close(fields.exponential(nothing), nothing)
    for there, back in (("normalized_to_voxels", "voxels_to_normalized"), ("unit_to_voxels", "voxels_to_unit")):
        close(getattr(fields, there)(getattr(fields, back)(u)), u)
    close(fields.reverse_components(fields.reverse_components(u)), u)
    labels = (4 * image).long()
    assert set(fields.warp_labels(labels, u).unique().tolist()) <= set(labels.unique().tolist())
    matrix = torch.eye(dim, dim + 1, dtype=torch.float64)[None]
    close(fields.affine_displacement(matrix, shape), nothing)


@few
@given(seed=seeds, shape=sizes, factor=st.floats(0.1, 9), shift=st.floats(-3, 3))
def test_laws_of_losses(seed, shape, factor, shift):
    one, other = drawn(seed, shape, 1), drawn(seed + 1, shape, 1)
    for loss, low, high in (
        (losses.mse, 0, 1),
        (losses.ncc, 0, 2),
        (lambda x, y: losses.lncc(x, y, window=3), -1, 0),
        (lambda x, y: losses.lncc_gaussian(x, y, sigma=1.0), 0, 2),
        (losses.mindssc, 0, 1),
        (losses.dice, 0, 1),
    ):
        value = float(loss(one, other))
        assert low - 1e-6 <= value <= high + 1e-6 and value == pytest.approx(float(loss(other, one)), abs=1e-9)
    assert float(losses.mse(one, one)) == 0 and float(losses.ncc(one, factor * one + shift)) < 1e-6
    u = drawn(seed, shape, len(shape))
    assert float(losses.diffusion(u + shift)) == pytest.approx(float(losses.diffusion(u)), abs=1e-9)
    assert float(losses.diffusion(factor * u)) == pytest.approx(factor**2 * float(losses.diffusion(u)), rel=1e-6)
    assert float(losses.icon(0 * u, 0 * u)) < 1e-20


@few
@given(seed=seeds, shape=sizes, spacing=st.floats(0.1, 9))
def test_laws_of_metrics(seed, shape, spacing):
    one, other = ((3 * drawn(seed + k, shape, 1)).long() for k in (0, 1))
    one[0, 0].view(-1)[:2] = other[0, 0].view(-1)[:2] = torch.tensor([1, 2])
    assert set(metrics.dice(one, one).values()) == {1.0} and metrics.dice(one, other) == metrics.dice(other, one)
    assert all(0 <= value <= 1 for value in metrics.dice(one, other).values())
    mm, apart = (metrics.hd95(one, other, spacing=size) for size in (1.0, spacing))
    assert all(apart[key] == pytest.approx(spacing * value) for key, value in mm.items())
    nothing = torch.zeros(1, len(shape), *shape)
    assert metrics.folds(nothing).count == 0 and metrics.jacobian_statistics(nothing).minimum == 1
    assert metrics.inverse_consistency(nothing, nothing) == 0


@few
@given(seed=seeds, values=st.lists(st.floats(0.2, 5), min_size=3, max_size=3), more=st.integers(0, 5))
def test_laws_of_images(seed, values, more):
    grid = regkit.images.Grid((7, 8, 9), np.diag([*values, 1.0]))
    scan = regkit.images.Scan(drawn(seed, [7, 8, 9], 1).float(), grid, grid)
    assert regkit.images.resample(scan, grid) is not None and grid.spacing == pytest.approx(values)
    larger = regkit.images.crop_or_pad(scan, [size + more for size in grid.space])
    assert torch.equal(regkit.images.crop_or_pad(larger, grid.space).tensor, scan.tensor)
    torch.testing.assert_close(regkit.images.to_original(larger).tensor, scan.tensor)  # through a grid in mm
    unit = regkit.images.normalise(scan).tensor
    assert unit.min() == 0 and unit.max() == 1


@few
@given(seed=seeds, name=st.sampled_from(sorted(bad_input.NARROW)), size=st.integers(17, 24))
def test_laws_of_models(seed, name, size):
    torch.manual_seed(seed)
    model = CALLS[name][0](**CALLS[name][1]).eval()
    moving, fixed = (drawn(seed + k, [size, 18], 1).float() for k in (0, 1))
    with torch.no_grad():
        found = model(moving, fixed)
        assert torch.equal(found.displacement, model(moving, fixed).displacement)
        terms = model.objective(found, moving, fixed)
    assert found.displacement.shape == (1, 2, size, 18) and found.displacement.isfinite().all()
    assert all(term.isfinite() for term in terms.values())


@few
@given(text=st.text(max_size=30))
def test_a_name_in_a_table_is_no_formula_and_one_line(text):
    written = csv_text([["=" + text, text]])
    assert written.lstrip('"').startswith("'=") and len(written.splitlines()) == 1
    assert len(table(["a"], [[text]]).splitlines()) == 3


def test_bounds_of_annotations():
    for value, hint in ((True, int), (float("nan"), float), (-1, types.Whole), (0, types.Count), (2**64, types.Seed)):
        with pytest.raises(types.InputError, match="received"):
            types.check_kind(value, hint, "value")
    types.check_kind([np.int64(3), 2], tuple[types.Count, ...], "value")
