"""The exercise of tutorial 14: a displacement in voxels as a transform of SimpleITK, in memory.

SimpleITK comes with the course; it is imported where it is needed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray

from regkit.course.check.exercise import Exercise, Hint, Mistake, Unanswered, returned
from regkit.data import smooth_displacement
from regkit.fields import invert

__all__ = ["exported", "oblique_case"]

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
    if not isinstance(returned("my_transform", given), SimpleITK.Transform):
        return _Tried(kind=type(given).__name__)
    inner = np.argwhere(np.ones([size - 2 for size in _SHAPE])) + 1.0
    places = [fixed.TransformContinuousIndexToPhysicalPoint(place.tolist()) for place in inner]
    moved = np.array([given.TransformPoint(place) for place in places])
    grid = [*_SHAPE, *_ORIGIN, *_SPACING, *_direction().ravel()]
    parameters = given.GetFixedParameters()
    same = len(parameters) == len(grid) and np.allclose(parameters, grid)
    return _Tried(arrows=moved - np.array(places), same_grid=bool(same))


def _alike(tried: _Tried, other: _Tried) -> bool:
    """Whether the arrows are the same, to a hundredth of a voxel."""
    apart = (tried.arrows - other.arrows) @ _direction() / _SPACING
    return float(np.linalg.norm(apart, axis=1).mean()) < _CLOSE


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


def _by_one_of(hint: str, *matrices: Callable[[Any], Array]) -> Mistake:
    """The mistake to multiply u by one of these matrices of fixed, or by one with the signs changed as from RAS."""

    def flipped(matrix: Callable[[Any], Array]) -> Answer:
        return _by(lambda fixed: _FLIPPED[:, None] * matrix(fixed))

    answers = [answer for matrix in matrices for answer in (_by(matrix), flipped(matrix))]
    return Hint(hint).written(*answers)


def _turning(fixed: Any) -> Array:
    """The direction, (3, 3)."""
    return np.reshape(fixed.GetDirection(), (3, 3))


def _sizes(fixed: Any) -> Array:
    """The spacing as a matrix, (3, 3)."""
    return np.diag(fixed.GetSpacing())


def _whole(fixed: Any) -> Array:
    return _turning(fixed) @ _sizes(fixed)


def _not_transposed(u: Array, fixed: Any) -> Any:
    import SimpleITK

    field = SimpleITK.GetImageFromArray(np.tensordot(u, _whole(fixed), (0, 1)), isVector=True)
    field.CopyInformation(fixed)
    return SimpleITK.DisplacementFieldTransform(field)


def _places(u: Array, fixed: Any) -> Any:
    places = np.tensordot(u + np.indices(_SHAPE), _whole(fixed), (0, 1)) + fixed.GetOrigin()
    return _transform(places, fixed)


def _exchanged(u: Array, fixed: Any) -> Any:
    inverse = invert(torch.from_numpy(u)[None].float())[0].double().numpy()
    return _by(_whole)(inverse, fixed)


@functools.cache
def _true() -> _Tried:
    return _try(_by(_whole))


def _right(tried: _Tried) -> bool:
    return _alike(tried, _true())


exported = Exercise(
    task="Write my_transform(u, fixed): u (3, i, j, k), in voxels of fixed, as a SimpleITK.DisplacementFieldTransform.",
    praise="direction times spacing times u: below 0.01 voxel, and no sign to change, for SimpleITK is LPS by itself.",
    prepare=_try,
    reference=lambda: _by(_whole),
    alike=_alike,
    right=_right,
    mistakes={
        "wrong pixel type": Hint(
            "the pixel type: SimpleITK wants vectors of 64-bit floats. Make the array float64, with isVector=True."
        ).to(lambda: _by(_whole, kind=np.float32), lambda tried: "64-bit float" in tried.said),
        "axes of the array": Hint(
            "the order of the axes: an array for SimpleITK is (k, j, i, component), with isVector=True, and u is "
            "(component, i, j, k)."
        ).to(lambda: _not_transposed, lambda tried: "does not match" in tried.said),
        "two components": Hint("SimpleITK refuses the field: is it one vector of three numbers in a voxel?").to(
            lambda: lambda u, fixed: _transform(np.moveaxis(u[:2], 0, -1), fixed), lambda tried: bool(tried.said)
        ),
        "no transform": Hint(
            "this is no transform: return SimpleITK.DisplacementFieldTransform(field), which can be applied."
        ).to(lambda: lambda u, fixed: np.tensordot(u, _whole(fixed), (0, 1)), lambda tried: bool(tried.kind)),
        "sign": Hint(
            "the sign: the first two components point the wrong way. nibabel's affine is RAS and needs the change to "
            "LPS; SimpleITK's direction is LPS already. Once, and only once."
        ).written(_by(lambda fixed: _FLIPPED[:, None] * _whole(fixed))),
        "voxels": _by_one_of(
            "the unit: these are voxels, along the axes of the array. ITK wants mm along the axes of the body.",
            lambda fixed: np.eye(3),
        ),
        "voxels, turned": _by_one_of(
            "the unit: turned, but still counted in voxels. Multiply each component by its spacing first.", _turning
        ),
        "direction ignored": _by_one_of(
            "the direction is ignored: this is in mm, but along the axes of the array. Turn it by GetDirection().",
            _sizes,
        ),
        "components reversed": Hint(
            "the order of the components: x comes first in a vector, even where the array's axes are k, j, i."
        ).written(_by(lambda fixed: _whole(fixed)[::-1])),
        "backwards": Hint(
            "-u: the arrows point backwards. A transform leads from fixed to moving, as u does; nothing is turned."
        ).written(_by(lambda fixed: -_whole(fixed))),
        "exchanged": Hint(
            "moving and fixed are exchanged: this is the inverse. Resample asks where to read, as u does."
        ).written(_exchanged),
        "transposed": _by_one_of(
            "the direction is transposed: its rows are x, y, z of the body, its columns the axes of the array. Look at "
            "the letters of einsum, or at matrix @ u against u @ matrix.",
            lambda fixed: _whole(fixed).T,
            lambda fixed: _turning(fixed).T @ _sizes(fixed),
            lambda fixed: _turning(fixed).T,
        ),
        "spacing last": _by_one_of(
            "the spacing comes too late: it belongs to the axes of the array, which are the columns of the direction. "
            "Multiply u by it first, and turn it then.",
            lambda fixed: _sizes(fixed) @ _turning(fixed),
        ),
        "places": Hint(
            "these are places. A displacement field holds how far, not where to: take the voxel's own place away."
        ).written(_places),
        "no geometry": Hint(
            "the field does not lie where fixed lies: origin, spacing, direction are missing. CopyInformation(fixed)."
        ).to(lambda: _by(_whole, geometry=False), lambda tried: not _right(tried) and not tried.same_grid),
        "another map": Hint(
            "another map than u. Compare one voxel by hand: fixed's point p must go to p + direction @ (spacing * u)."
        ).otherwise(_by(lambda fixed: 0.5 * _whole(fixed))),
        "not a function": lambda: 3,
    },
)
