"""The exercise of tutorial 14: a displacement in voxels as a transform of SimpleITK, in memory.

SimpleITK comes with the course; it is imported where it is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray

from regkit.course.check.exercise import Exercise, Unanswered
from regkit.data import smooth_displacement
from regkit.fields import invert

_SHAPE, _SPACING, _ORIGIN = (11, 9, 8), (2.0, 1.5, 3.0), (-20.0, 35.0, 12.0)  # voxels, mm, mm (LPS)

_FLIPPED = np.array([-1.0, -1.0, 1.0])  # LPS of RAS

_CLOSE = 0.01  # voxels, on average

Array = NDArray[np.float64]

Answer = Callable[[Array, Any], Any]


def _direction() -> Array:
    """Of an oblique scan whose axes are in another order: (3, 3), LPS."""
    turn: Array = euler2mat(0.2, -0.3, 0.25)
    return turn @ np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])


@functools.cache
def _field() -> Array:
    """u (3, i, j, k), voxels."""
    return smooth_displacement(_SHAPE, amplitude=1.2, smoothness=3.0, seed=5)[0].double().numpy()


def oblique_case() -> tuple[Array, Any]:
    """A displacement u (3, i, j, k) in voxels, and the small oblique SimpleITK image that it belongs to (fixed)."""
    import SimpleITK

    fixed = SimpleITK.Image(_SHAPE, SimpleITK.sitkFloat32)
    fixed.SetSpacing(_SPACING)
    fixed.SetOrigin(_ORIGIN)
    fixed.SetDirection(_direction().ravel().tolist())
    return _field().copy(), fixed


class _Tried(NamedTuple):
    """What came out: what SimpleITK said, the kind of the answer, the arrows in mm (LPS, inner voxels), the grid."""

    said: str = ""
    kind: str = ""
    arrows: Array = np.zeros((0, 3))
    same_grid: bool = True


def _inner() -> Array:
    """The indices of the inner voxels, (N, 3)."""
    return (np.argwhere(np.ones([size - 2 for size in _SHAPE])) + 1).astype(np.float64)


def _try(answer: Answer) -> _Tried:
    import SimpleITK

    u, fixed = oblique_case()
    try:
        given = answer(u, fixed)
    except NotImplementedError as missing:
        raise Unanswered("my_transform is not written yet.") from missing
    except RuntimeError as error:
        if "SimpleITK" not in str(error):  # torch's, and those of others
            raise
        return _Tried(said=str(error))
    if given is None or given is ...:
        raise Unanswered("my_transform returns nothing yet.")
    if not isinstance(given, SimpleITK.Transform):
        return _Tried(kind=type(given).__name__)
    places = [fixed.TransformContinuousIndexToPhysicalPoint(place.tolist()) for place in _inner()]
    moved = np.array([given.TransformPoint(place) for place in places])
    grid = [*_SHAPE, *_ORIGIN, *_SPACING, *_direction().ravel()]
    parameters = given.GetFixedParameters()
    same = len(parameters) == len(grid) and np.allclose(parameters, grid)
    return _Tried(arrows=moved - np.array(places), same_grid=bool(same))


def _arrows(u: Array, matrix: Array) -> Array:
    """matrix @ u at the inner voxels, (N, 3)."""
    return u[(slice(None), *_inner().astype(int).T)].T @ matrix.T


def _is(*makes: Callable[[Array, Array, Array], Array]) -> Callable[[_Tried], bool]:
    """Whether the arrows are those that one make(u, direction, spacing matrix) gives, to a hundredth of a voxel."""

    def near(tried: _Tried) -> bool:
        direction, size = _direction(), np.diag(_SPACING)
        apart = [(tried.arrows - make(_field(), direction, size)) @ direction / _SPACING for make in makes]
        return any(float(np.linalg.norm(each, axis=1).mean()) < _CLOSE for each in apart)

    return near


def _is_by(*matrices: Callable[[Array, Array], Array], flipped: bool = False) -> Callable[[_Tried], bool]:
    """Whether the arrows are u by one matrix(direction, spacing matrix); flipped: or that with two signs changed."""

    def make(matrix: Callable[[Array, Array], Array], signs: Array) -> Callable[[Array, Array, Array], Array]:
        return lambda u, direction, size: _arrows(u, matrix(direction, size)) * signs

    signs = (np.ones(3), _FLIPPED) if flipped else (np.ones(3),)
    return _is(*(make(matrix, each) for matrix in matrices for each in signs))


_right = _is_by(lambda direction, size: direction @ size)


def _inverse() -> Array:
    import torch

    return invert(torch.from_numpy(_field())[None].float())[0].double().numpy()


# ---------------------------------------------------------------------------------------------- reference, mistakes


def _transform(vectors: Array, fixed: Any, *, kind: type = np.float64, geometry: bool = True) -> Any:
    """Vectors (i, j, k, 3) as a transform."""
    import SimpleITK

    field = SimpleITK.GetImageFromArray(vectors.transpose(2, 1, 0, 3).astype(kind), isVector=True)
    if geometry:
        field.CopyInformation(fixed)
    return SimpleITK.DisplacementFieldTransform(field)


def _by(matrix: Callable[[Any], Array], **options: Any) -> Answer:
    """An answer that multiplies u by a matrix of fixed."""
    return lambda u, fixed: _transform(np.tensordot(u, matrix(fixed), (0, 1)), fixed, **options)


def _whole(fixed: Any) -> Array:
    return np.reshape(fixed.GetDirection(), (3, 3)) * fixed.GetSpacing()


def _not_transposed(u: Array, fixed: Any) -> Any:
    import SimpleITK

    field = SimpleITK.GetImageFromArray(np.tensordot(u, _whole(fixed), (0, 1)), isVector=True)
    field.CopyInformation(fixed)
    return SimpleITK.DisplacementFieldTransform(field)


def _places(u: Array, fixed: Any) -> Any:
    places = np.tensordot(u + np.indices(_SHAPE), _whole(fixed), (0, 1)) + fixed.GetOrigin()
    return _transform(places, fixed)


exported = Exercise(
    task="Write my_transform(u, fixed): u (3, i, j, k), in voxels of fixed, as a SimpleITK.DisplacementFieldTransform.",
    praise="direction times spacing times u: below 0.01 voxel, and no sign to change, for SimpleITK is LPS by itself.",
    prepare=_try,
    rules=(
        (
            lambda tried: "64-bit float" in tried.said,
            "the pixel type: SimpleITK wants vectors of 64-bit floats. Make the array float64, with isVector=True.",
        ),
        (
            lambda tried: "does not match" in tried.said,
            "the order of the axes: an array for SimpleITK is (k, j, i, component), with isVector=True, and u is "
            "(component, i, j, k).",
        ),
        (lambda tried: bool(tried.said), "SimpleITK refuses the field: is it one vector of three numbers in a voxel?"),
        (
            lambda tried: bool(tried.kind),
            "this is no transform: return SimpleITK.DisplacementFieldTransform(field), which can be applied.",
        ),
        (
            _is(lambda u, direction, size: _arrows(u, direction @ size) * _FLIPPED),
            "the sign: the first two components point the wrong way. nibabel's affine is RAS and needs the change to "
            "LPS; SimpleITK's direction is LPS already. Once, and only once.",
        ),
        (
            _is_by(lambda direction, size: np.eye(3), flipped=True),
            "the unit: these are voxels, along the axes of the array. ITK wants mm along the axes of the body.",
        ),
        (
            _is_by(lambda direction, size: direction, flipped=True),
            "the unit: turned, but still counted in voxels. Multiply each component by its spacing first.",
        ),
        (
            _is_by(lambda direction, size: size, flipped=True),
            "the direction is ignored: this is in mm, but along the axes of the array. Turn it by GetDirection().",
        ),
        (
            _is(lambda u, direction, size: _arrows(u, direction @ size)[:, ::-1]),
            "the order of the components: x comes first in a vector, even where the array's axes are k, j, i.",
        ),
        (
            _is(lambda u, direction, size: -_arrows(u, direction @ size)),
            "-u: the arrows point backwards. A transform leads from fixed to moving, as u does; nothing is turned.",
        ),
        (
            _is(lambda u, direction, size: _arrows(_inverse(), direction @ size)),
            "moving and fixed are exchanged: this is the inverse. Resample asks where to read, as u does.",
        ),
        (
            _is_by(
                lambda direction, size: size @ direction.T,
                lambda direction, size: direction.T @ size,
                lambda direction, size: direction.T,
                flipped=True,
            ),
            "the direction is transposed: its rows are x, y, z of the body, its columns the axes of the array. Look at "
            "the letters of einsum, or at matrix @ u against u @ matrix.",
        ),
        (
            _is_by(lambda direction, size: size @ direction, flipped=True),
            "the spacing comes too late: it belongs to the axes of the array, which are the columns of the direction. "
            "Multiply u by it first, and turn it then.",
        ),
        (
            _is(lambda u, direction, size: (_inner() @ size @ direction.T + _ORIGIN) + _arrows(u, direction @ size)),
            "these are places. A displacement field holds how far, not where to: take the voxel's own place away.",
        ),
        (
            lambda tried: not _right(tried) and not tried.same_grid,
            "the field does not lie where fixed lies: origin, spacing, direction are missing. CopyInformation(fixed).",
        ),
        (
            lambda tried: not _right(tried),
            "another map than u. Compare one voxel by hand: fixed's point p must go to p + direction @ (spacing * u).",
        ),
    ),
    reference=lambda: _by(_whole),
    mistakes={
        "wrong pixel type": lambda: _by(_whole, kind=np.float32),
        "axes of the array": lambda: _not_transposed,
        "two components": lambda: lambda u, fixed: _transform(np.moveaxis(u[:2], 0, -1), fixed),
        "no transform": lambda: lambda u, fixed: np.tensordot(u, _whole(fixed), (0, 1)),
        "sign": lambda: _by(lambda fixed: _FLIPPED[:, None] * _whole(fixed)),
        "voxels": lambda: _by(lambda fixed: np.eye(3)),
        "voxels, turned": lambda: _by(lambda fixed: np.reshape(fixed.GetDirection(), (3, 3))),
        "direction ignored": lambda: _by(lambda fixed: np.diag(fixed.GetSpacing())),
        "transposed": lambda: _by(lambda fixed: _whole(fixed).T),
        "spacing last": lambda: _by(
            lambda fixed: np.reshape(fixed.GetDirection(), (3, 3)) * np.reshape(fixed.GetSpacing(), (3, 1))
        ),
        "places": lambda: _places,
        "components reversed": lambda: _by(lambda fixed: _whole(fixed)[::-1]),
        "backwards": lambda: _by(lambda fixed: -_whole(fixed)),
        "exchanged": lambda: lambda u, fixed: _transform(np.tensordot(_inverse(), _whole(fixed), (0, 1)), fixed),
        "no geometry": lambda: _by(_whole, geometry=False),
        "another map": lambda: _by(lambda fixed: 0.5 * _whole(fixed)),
        "not a function": lambda: 3,
    },
)
