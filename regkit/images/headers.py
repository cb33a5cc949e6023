"""Where a file's header puts its voxels: as regkit reads it, and as ITK does.

regkit takes the sform before the qform, and nibabel's guess where there is neither. ITK takes the sform where its code
is 1 (scanner) or there is no qform, and else the qform; without either, as of Analyze, the axes lead to the left, to
the back and up from a corner at 0. Where the two differ, a note says so, and how to mend it.
"""

from __future__ import annotations

import gzip
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from regkit._core.files import write_atomically
from regkit.images.formats import open_nifti
from regkit.types import InputError, MissingFileError

_UNITS = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}  # mm
_APART = 0.1  # voxels: qform and sform that differ by less are one, as programs round them
_RIGHT_ANGLES = 1e-4  # of the cosines between two axes; where it is more, ITK takes a sform for none
_MENDED = 1e-3  # of the axes' directions
_ENDINGS = (".nii", ".nii.gz")
FIX = "python -m regkit examine FILE --fix-header NEW.nii.gz"
_OTHERS = (
    f"ITK and ANTs see it elsewhere than regkit does; what register writes fits this file in both. Other programs may "
    f"take either: {FIX} writes a copy with one place."
)


def header_affine(image: Any, path: Path) -> np.ndarray:
    """Voxel to mm (RAS) of a file, (4, 4); a note says so where the header leaves it open."""
    if found := _doubtful(image):
        warnings.warn(f"{path} {found}", stacklevel=5)
    header = image.header
    if isinstance(header, nibabel.Nifti1Header) and not int(header["sform_code"]):
        stored = _stored_sizes(image)
        if not (stored > 0).all():  # nibabel reads 0 as 1
            raise InputError(
                "voxels must have a size along each axis",
                f"{path} with {stored.tolist()} in its header and no sform",
                "repair the image's header",
            )
    return _in_mm(image, image.affine)


def _doubtful(image: Any) -> str:
    """What is open in a file's header, and what regkit takes; nothing where all is plain."""
    if is_lost(image):
        return f"(Analyze) does not say how it lies or where: nibabel's guess is taken. {_OTHERS}"
    if not isinstance(image.header, nibabel.Nifti1Header):
        return (
            f"(Analyze) has its place in a .mat of SPM, which ITK does not read. {_OTHERS}"
            if _is_analyze(image)
            else ""
        )
    qform, sform = (int(image.header[f"{name}_code"]) for name in ("qform", "sform"))
    if not qform and not sform:
        return (
            f"does not say where its voxels are (no qform, no sform): its first axis is taken as leading to the left, "
            f"the others to the front and up, about the centre. {_OTHERS}"
        )
    if (apart := forms_apart(image)) > _APART * min(image.header.get_zooms()[:3]):
        return (
            f"says two things of where its voxels are: qform and sform are up to {apart:.3g} apart, in the header's "
            f"unit. The sform is taken. {_OTHERS}"
        )
    if not qform and not _at_right_angles(image.affine):
        return f"has no qform, and axes that are not quite at right angles: ITK does not read it. {FIX} mends it."
    if len(image.shape) == 2 and not lies_flat(image.affine):
        return f"has two axes and is not straight axial: ITK loses its place or does not read it. {FIX} adds the third."
    return ""


def _in_mm(image: Any, affine: Any) -> np.ndarray:
    """An affine in the header's unit in mm."""
    unit = _UNITS.get(image.header.get_xyzt_units()[0], 1.0) if isinstance(image.header, nibabel.Nifti1Header) else 1.0
    return np.diag([unit, unit, unit, 1.0]) @ affine


def itk_affine(image: Any) -> np.ndarray:
    """Voxel to mm (RAS) as ITK reads a file, (4, 4)."""
    if not _is_analyze(image):
        return np.asarray(image.affine)
    qform = sform = None
    if isinstance(image.header, nibabel.Nifti1Header):
        (qform, _), (sform, code) = image.get_qform(coded=True), image.get_sform(coded=True)
        if sform is not None and qform is not None and (code != 1 or not _at_right_angles(sform)):
            sform = None
    if sform is None and qform is None:
        sizes = [*image.header.get_zooms()[:3], 1.0][:3]
        qform = np.diag([-sizes[0], -sizes[1], sizes[2], 1.0])
    return _in_mm(image, qform if sform is None else sform)


def _at_right_angles(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < _RIGHT_ANGLES)


def lies_flat(affine: np.ndarray) -> bool:
    """Whether the first two axes lie in the axial plane."""
    return bool(np.allclose(affine[2, :2], 0, atol=1e-6))


def _is_analyze(image: Any) -> bool:
    """Whether a file is Analyze, or NIfTI, which began as that."""
    return isinstance(image, nibabel.AnalyzeImage)


def is_lost(image: Any) -> bool:
    """Whether a file is Analyze, which does not say how its axes lie, without the .mat of SPM, which does."""
    if not _is_analyze(image) or isinstance(image.header, nibabel.Nifti1Header):
        return False
    mat = image.file_map.get("mat")
    return mat is None or mat.filename is None or not Path(mat.filename).exists()


def forms_apart(image: Any) -> float:
    """How far the places of a corner are apart by qform and by sform, in the header's unit; 0 where one is missing."""
    if not int(image.header["qform_code"]) or not int(image.header["sform_code"]):
        return 0.0
    corners = np.array([*product(*[(0, size - 1) for size in (*image.shape, 1, 1)[:3]], (1,))])
    qform, sform = image.get_qform(), image.get_sform()
    return float(np.linalg.norm(corners @ (qform - sform)[:3].T, axis=1).max())


def _stored_sizes(image: Any) -> np.ndarray:
    """The header's own sizes of voxels, which nibabel mends; of a pair of files the header is a file of its own."""
    holder = image.file_map.get("header") or image.file_map["image"]
    with nibabel.openers.ImageOpener(str(holder.filename)) as file:
        return type(image.header).from_fileobj(file, check=False)["pixdim"][1 : 1 + min(image.ndim, 3)]


def fix_header(path: Path | str, new: Path | str, *, form: str = "sform") -> None:
    """Write a copy of a scan that all programs see at one place; its numbers stay as they are.

    form: qform or sform, where there are two. Axes within a thousandth of right angles are put there; a slice of two
    axes that is not straight axial gets a third.

    Raises:
        FileNotFoundError, ValueError: as `read_image`; no such form; axes far from right angles. OSError: it cannot be
        written.
    """
    image = open_nifti(Path(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is what is mended
        affine = header_affine(image, Path(path))
    nifti = isinstance(image.header, nibabel.Nifti1Header)
    if form == "qform":
        if not nifti or not int(image.header["qform_code"]):
            raise InputError("a form is chosen that the file has", f"{path} without a qform", "leave the form out")
        affine = _in_mm(image, image.get_qform())
    affine = _straightened(affine, path)
    values = np.asanyarray(image.dataobj)
    if values.dtype != image.get_data_dtype():  # scaled
        values = values.astype(np.float32)
    if values.ndim == 2 and not lies_flat(affine):
        values = values[..., None]
    header = image.header.copy() if nifti else nibabel.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_xyzt_units("mm", header.get_xyzt_units()[1])
    copy = nibabel.Nifti1Image(values, affine, header)
    copy.set_sform(affine, "scanner")
    copy.set_qform(affine, "scanner")
    store(new, copy)


def _straightened(affine: np.ndarray, path: Path | str) -> np.ndarray:
    """The closest affine with axes at right angles."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / sizes)
    straight = affine.copy()
    straight[:3, :3] = left @ right * sizes
    if np.abs((straight - affine)[:3, :3] / sizes).max() > _MENDED:
        rule, remedy = "a header is mended whose axes are at right angles, nearly", "resample the scan to such a grid"
        raise InputError(rule, f"{path} with the affine {affine.tolist()}", remedy)
    return straight


def store(path: Path | str, image: nibabel.Nifti1Image) -> None:
    """Write .nii or .nii.gz in one move.

    Raises:
        ValueError: another ending. OSError: it cannot be written; an older file stays.
    """
    path = Path(path)
    if not path.name.endswith(_ENDINGS):
        raise InputError(f"images are written as {' or '.join(_ENDINGS)}", path, "change the ending")
    if not path.parent.is_dir():
        raise MissingFileError("an image is written into a folder that exists", path, "make the folder first")
    content = image.to_bytes()
    write_atomically(path, gzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)
