"""What is refused, and that the message names the rule, what was received, and what to do."""

import numpy as np
import pytest
import torch

from regkit import Pair, fields, types

IMAGE = torch.rand(1, 1, 5, 7)
FIELD = torch.zeros(1, 2, 5, 7)
LABELS = torch.zeros(1, 1, 5, 7, dtype=torch.int64)
BROKEN = IMAGE.clone()
BROKEN[0, 0, 2, 3], BROKEN[0, 0, 4, 6] = float("nan"), float("inf")

REFUSED = {  # the call: the rule, what was received
    "not a tensor": (lambda: fields.warp([1.0], FIELD), "image must be a torch.Tensor, received list"),
    "no batch": (lambda: fields.warp(IMAGE[0], FIELD), r"2 or 3 spatial axes, received shape \(1, 5, 7\)"),
    "integers": (lambda: fields.warp(LABELS, FIELD), "floating point, received torch.int64"),
    "empty": (lambda: fields.warp(IMAGE[..., :0], FIELD), r"not be empty, received shape \(1, 1, 5, 0\)"),
    "empty batch": (lambda: fields.warp(IMAGE[:0], FIELD), r"not be empty, received shape \(0, 1, 5, 7\)"),
    "other grid": (lambda: fields.warp(IMAGE[..., :6], FIELD), r"one grid, received \(5, 6\) and \(5, 7\)"),
    "other dim": (lambda: fields.warp(IMAGE[None], FIELD), r"one grid, received \(1, 5, 7\) and \(5, 7\)"),
    "channels": (
        lambda: fields.warp(IMAGE, FIELD[:, :1]),
        r"one channel for each of its 2 spatial axes, received shape \(1, 1, 5, 7\)",
    ),
    "components last": (
        lambda: fields.exponential(FIELD.movedim(1, -1)),
        r"velocity must have one channel for each of its 2 spatial axes, received shape \(1, 5, 7, 2\)",
    ),
    "batches": (
        lambda: fields.warp(IMAGE.expand(2, -1, -1, -1), FIELD.expand(3, -1, -1, -1)),
        r"same batch size \(or 1\), received 2 and 3",
    ),
    "device": (lambda: fields.warp(IMAGE.to("meta"), FIELD), "one device, received meta and cpu"),
    "device of labels": (lambda: fields.warp_labels(LABELS.to("meta"), FIELD), "received meta and cpu"),
    "device of places": (lambda: fields.sample(IMAGE, FIELD.to("meta")), r"device, received .* on meta"),
    "dim of places": (lambda: fields.sample(IMAGE, torch.zeros(1, 3, 2, 2, 2)), r"\(1, 3, 2, 2, 2\)"),
    "values": (lambda: fields.warp(BROKEN, FIELD), "image must be finite, received 2 NaN or infinite of 35"),
    "field": (lambda: fields.warp(IMAGE, FIELD / 0), "displacement must be finite, received 70 NaN"),
    "inverse": (lambda: fields.invert(FIELD / 0), "displacement must be finite, received 70 NaN"),
    "first": (lambda: fields.compose(IMAGE, FIELD), r"first must have one channel.*\(1, 1, 5, 7\)"),
    "then": (lambda: fields.compose(FIELD, IMAGE), r"then must have one channel.*\(1, 1, 5, 7\)"),
    "mode": (
        lambda: fields.warp(IMAGE, FIELD, mode="spline"),
        "mode must be one of linear, nearest, cubic, received 'spline'",
    ),
    "steps": (lambda: fields.exponential(FIELD, steps=-1), "steps must be 0 or more, received -1"),
    "tolerance": (lambda: fields.invert(FIELD, tolerance=0), "tolerance must be positive.*received 0, 50"),
    "iterations": (lambda: fields.invert(FIELD, max_iterations=1), "at least 2.*received 0.01, 1"),
    "float labels": (lambda: fields.warp_labels(IMAGE, FIELD), "labels must be integers, received torch.float32"),
    "one-hot labels": (
        lambda: fields.warp_labels(LABELS.expand(-1, 4, -1, -1), FIELD),
        r"\(batch, 1, \*space\).*received shape \(1, 4, 5, 7\)",
    ),
    "empty labels": (lambda: fields.warp_labels(LABELS[..., :0], FIELD), "labels must not be empty"),
    "no labels": (lambda: fields.warp_labels(None, FIELD), "labels must be a torch.Tensor, received NoneType"),
    "points": (lambda: fields.warp_points(torch.zeros(1, 4, 3), FIELD), r"\(batch, N, 2\).*\(1, 4, 3\)"),
    "matrix": (lambda: fields.affine_displacement(torch.eye(3), (5, 7)), r"\(batch, dim, dim \+ 1\).*\(3, 3\)"),
    "size": (lambda: fields.resize(IMAGE, (5, 7, 9)), r"2 sizes.*received \(5, 7, 9\)"),
    "no size": (lambda: fields.resize_displacement(FIELD, (5, 0)), "each of shape must be at least 1"),
    "model's dim": (lambda: types.check_pair(IMAGE, IMAGE, 3), r"dim=3 takes images with 3.*\(1, 1, 5, 7\)"),
    "pair's channels": (
        lambda: types.check_pair(IMAGE, IMAGE.expand(-1, 2, -1, -1)),
        "moving and fixed must have the same channels, received 1 and 2",
    ),
    "pair's values": (lambda: Pair(IMAGE, BROKEN), "fixed must be finite, received 2 NaN or infinite of 35"),
    "pair's labels": (
        lambda: Pair(IMAGE, IMAGE, moving_labels=LABELS[..., :6]),
        r"moving and moving_labels must share one grid, received \(5, 7\) and \(5, 6\)",
    ),
    "pair's truth": (
        lambda: Pair(IMAGE, IMAGE, displacement=FIELD[..., :6]),
        r"fixed and displacement must share one grid, received \(5, 7\) and \(5, 6\)",
    ),
    "spacing": (lambda: Pair(IMAGE, IMAGE, spacing=(1.0, -2.0)), r"positive.*each of the 2.*\(1.0, -2.0\)"),
    "no spacing": (lambda: Pair(IMAGE, IMAGE, spacing=0.0), "positive.*received 0.0"),
    "labels by NaN": (lambda: fields.warp_labels(LABELS, FIELD * float("nan")), "displacement must be finite"),
    "spacing as an array": (
        lambda: Pair(IMAGE, IMAGE, spacing=np.array([1.0, -2.0])),
        r"positive.*each of the 2.*\[ 1. -2.\]",
    ),
    "spacings": (lambda: types.check_spacing((1.0, 1.0), 3), r"each of the 3 axes, received \(1.0, 1.0\)"),
}
TYPES = {"not a tensor", "integers", "float labels", "no labels"}  # of these the type is wrong


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_rule_value_and_remedy(case):
    call, message = REFUSED[case]
    with pytest.raises(TypeError if case in TYPES else ValueError, match=message) as caught:
        call()
    assert "; " in str(caught.value), "what to do comes after a semicolon"


def test_values_that_only_overflow_in_the_sum_are_finite():
    types.check_finite(torch.full((4,), 3e38), "image")


def test_finite_checks_do_not_look_at_the_gradient():
    types.check_finite(torch.zeros(3, requires_grad=True), "image")


@pytest.mark.parametrize(
    ("given", "wide"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_at_least_float32(given, wide):
    assert types.at_least_float32(torch.zeros(1, dtype=given)).dtype == wide


def test_pair_fills_in_the_spacing_and_moves_as_one():
    pair = Pair(IMAGE, IMAGE, LABELS, None, FIELD)
    assert pair.spacing == (1.0, 1.0)
    assert Pair(IMAGE, IMAGE, spacing=(2, 3)).spacing == (2.0, 3.0)
    moved = pair.to("cpu")
    assert moved.fixed_labels is None and torch.equal(moved.moving_labels, LABELS)
    with pytest.raises(AttributeError):
        pair.moving = IMAGE


def test_registration_defaults_to_one_direction():
    registration = types.Registration(FIELD)
    assert registration.inverse is None and registration.velocity is None and registration.levels == ()


def test_one_spacing_stands_for_all_axes():
    assert types.check_spacing(1.5, 3) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("kind", [tuple, list, np.array, torch.tensor])
def test_a_spacing_is_any_sequence_of_numbers(kind):
    assert Pair(IMAGE, IMAGE, spacing=kind([0.5, 2.0])).spacing == (0.5, 2.0)
    assert types.check_spacing(kind([0.5, 2.0]), 2) == (0.5, 2.0)
    assert types.check_spacing(np.float64(1.5), 2) == types.check_spacing(np.array(1.5), 2) == (1.5, 1.5)


def test_a_missing_package_is_told_with_its_extra():
    words = r'reading it needs no_such.*pip install "regkit-registration\[itk\]"'
    told = pytest.raises(types.MissingPackageError, match=words)
    with told, types.needing("notebooks", "what is around"), types.needing("itk", "reading it"):
        import no_such  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"regkit\.nothing"), types.needing("itk", "ours is no extra"):
        import regkit.nothing  # noqa: F401
