"""Which files are scans: one table of what is read, what is refused, and what to do then.

Damage is called damage only where it is: a file that ends before its header's voxels do, or whose checksum is wrong.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from regkit.types import InputError, MissingFileError, MissingPackageError, TooLargeError, check_memory, needing

READ = ".nii, .nii.gz, .nii.bz2, .hdr with .img, .mgz, .mgh, .mnc; .nrrd, .nhdr, .mha, .mhd with SimpleITK"
_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
_DAMAGE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)  # what nibabel raises for it
_PACKED: dict[str, Any] = {".gz": gzip.open, ".mgz": gzip.open, ".bz2": bz2.open}
_BEHIND = 2**22  # bytes that may lie behind the voxels, such as the tags of .mgz
_SMALL, _RATIO = 2**30, 250  # a packed file with more bytes than the one is packed by the other at most
_ROUNDED = 0.01  # of a quaternion's squared length above 1: it is taken as 1, as ITK does
_DICOM = ("DICOM", "convert the whole series to NIfTI, by dcm2niix")
_UNPACK = ("a packed file of a kind that is not read", "unpack it (unzstd, unxz, unzip, tar) and give the .nii in it")
_PICTURE = ("a picture without places in mm", "give the scan that it was made of, as NIfTI")
_ARRAY = ("an array without places in mm", "write it as NIfTI, with its affine: nibabel.Nifti1Image(values, affine)")
_SURFACE = ("a surface or its values", "give the volume that it was drawn on")
_LINES = ("streamlines", "give a volume")
_WEB = ("a web page", "fetch the file itself; a page came in its place")
_POINTER = ("a pointer in place of the file", "fetch its content: git lfs pull, datalad get or git annex get")

_BY_ENDING = {
    ".gii": _SURFACE,
    ".gii.gz": _SURFACE,
    **dict.fromkeys((".stl", ".ply", ".obj", ".vtk", ".vtp", ".pial", ".white", ".annot"), _SURFACE),
    **dict.fromkeys((".zst", ".xz", ".lzma", ".lz4", ".z", ".zip", ".7z", ".rar", ".tar", ".tar.gz", ".tgz"), _UNPACK),
    ".dcm": _DICOM,
    ".ima": _DICOM,
    ".trk": _LINES,
    ".tck": _LINES,
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff"), _PICTURE),
    **dict.fromkeys((".npy", ".npz", ".pt", ".pth", ".mat", ".csv"), _ARRAY),
}
_BY_CONTENT = {
    b"version https://git-lfs": _POINTER,
    b"/annex/objects": _POINTER,
    b"<!doctype": _WEB,
    b"<html": _WEB,
    b"\x89PNG": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"\x28\xb5\x2f\xfd": _UNPACK,
    b"\xfd7zXZ": _UNPACK,
    b"PK\x03\x04": _UNPACK,
}


_NAMES = {  # of files that may have another one's name, by their first bytes
    b"\x1f\x8b": (".nii.gz", "a packed file"),
    b"BZh": (".nii.bz2", "a packed file"),
    b"\x5c\x01\0\0": (".nii", "NIfTI that is not packed,"),
    b"\0\0\x01\x5c": (".nii", "NIfTI that is not packed,"),
}


def open_nifti(path: Path) -> Any:
    """A file's header, and its values for later, of any format in `READ`.

    Raises:
        FileNotFoundError, ValueError: no such file; it is of a format that is not read, or damaged.
    """
    if not path.is_file():
        folder = "; a folder of DICOM files: dcm2niix makes NIfTI of it" if path.is_dir() else ""
        raise MissingFileError(
            "an image is read from a file", f"{path}, where there is no file", f"check the path{folder}"
        )
    with path.open("rb") as file:
        start = file.read(132)
    _refuse_other_kinds(path, start)
    if path.name.lower().endswith(_ITK):
        return _by_simpleitk(path)
    try:
        image = _load(path)
        unpacked = _length(path, image)
    except InputError:
        raise
    except Exception as error:  # nibabel's readers of rare formats raise all kinds
        _refuse(path, start, error)
    if not isinstance(image, SpatialImage):
        what = "CIFTI, values on a surface" if "Cifti" in type(image).__name__ else type(image).__name__
        _say(path, what, _SURFACE[1])
    _check_length(path, image, unpacked)
    return image


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    """Raise for what is none of the formats, by its ending or its first bytes."""
    name = path.name.lower()
    pair = {".hdr": ".img", ".img": ".hdr", ".HDR": ".IMG", ".IMG": ".HDR"}.get(path.suffix)
    if pair and not path.with_suffix(pair).exists() and not Path(f"{path.with_suffix(pair)}.gz").exists():
        _say(path, f"one of two files, without its {pair}", f"put {path.with_suffix(pair).name} beside it")
    found = [what for ending, what in _BY_ENDING.items() if name.endswith(ending)]
    found += [what for begin, what in _BY_CONTENT.items() if start.lower().startswith(begin.lower())]
    found += [_DICOM] if start[128:] == b"DICM" else []
    for begin, (ending, what) in _NAMES.items():
        others = [other for other, _ in _NAMES.values() if other != ending and name.endswith(other)]
        if start.startswith(begin) and (others or not path.suffix):
            found += [(f"{what} by another name", f"rename it to {ending}")]
    if found:
        _say(path, *found[0])


def _say(path: Path, what: str, remedy: str, error: Exception | None = None) -> NoReturn:
    raise InputError(f"a scan is read from {READ}", f"{path}, {what}", remedy) from error


def _refuse(path: Path, start: bytes, error: Exception) -> NoReturn:
    """Raise for what nibabel cannot open: no scan, a header that cannot be, or damage."""
    words = first_line(error)
    with contextlib.suppress(OSError, EOFError), gzip.open(path) as file:
        if file.read(2) == b"\x1f\x8b":
            _say(path, "packed twice", "unpack it once (gunzip)")
    if path.suffix.lower() in (".par", ".rec"):
        _say(path, f"PAR/REC that cannot be read ({words})", "convert it to NIfTI, by dcm2niix", error)
    if "w2 should be positive" in words or "quatern" in words:
        remedy = "repair the header's quaternion (fslorient, nibabel's set_qform), or convert the original again"
        _say(path, "whose qform is no rotation: its quaternion is longer than 1", remedy, error)
    if isinstance(error, ImportError):
        raise MissingPackageError(
            "this kind of file needs a package more", f"{path} ({words})", f"pip install {error.name}"
        ) from error
    packed = start.startswith((b"\x1f\x8b", b"BZh"))
    unknown = isinstance(error, (ImageFileError, gzip.BadGzipFile)) and start and not packed
    if unknown or not isinstance(error, _DAMAGE):
        _say(path, f"which is none of these ({words})", "convert it to NIfTI", error)
    if isinstance(error, HeaderDataError):
        _say(path, f"whose header cannot be ({words})", "repair the header, or convert the original again", error)
    found = f"{path} of {path.stat().st_size} bytes ({words})"
    raise InputError(f"an image must be a whole NIfTI file ({READ})", found, "fetch it again, or convert it") from error


def _load(path: Path) -> Any:
    try:
        image: Any = nibabel.load(path)
        if isinstance(image.header, nibabel.Nifti1Header):
            image.header.get_qform_quaternion()
    except ValueError:  # maybe a quaternion longer than 1; the threshold would change others that are near a half turn
        with _rounded_quaternions():
            image = nibabel.load(path)
        if isinstance(image.header, nibabel.Nifti1Header):
            cast(Any, image.header).quaternion_threshold = _ROUNDED
    return image


@contextlib.contextmanager
def _rounded_quaternions() -> Iterator[None]:
    """Quaternions that were rounded to a length above 1 count as 1, as in nifti_clib, which ITK uses."""
    classes: tuple[Any, ...] = (nibabel.Nifti1Header, nibabel.Nifti2Header)
    before = [each.quaternion_threshold for each in classes]
    try:
        for each in classes:
            each.quaternion_threshold = _ROUNDED
        yield
    finally:
        for each, threshold in zip(classes, before, strict=True):
            each.quaternion_threshold = threshold


def _length(path: Path, image: Any) -> int | None:
    """Read a packed file to its end, where its checksum is (nibabel stops before): its length unpacked; else None.

    No further than its header's voxels and a bit, nor than what an image can be packed to: else it is refused.
    """
    if path.suffix.lower() not in _PACKED:
        return None
    most = max(_SMALL, _RATIO * path.stat().st_size)
    most, length = min(most, (_claimed(image) or most) + _BEHIND), 0
    with cast(BinaryIO, _PACKED[path.suffix.lower()](path)) as file:
        while piece := file.read(2**20):
            length += len(piece)
            if length > most:
                found = f"{path} of {path.stat().st_size} bytes, which holds more than {most} bytes unpacked"
                raise InputError("a packed image ends where its header's voxels do", found, "fetch it again")
    return length


def _claimed(image: Any) -> int | None:
    """The bytes to the end of the voxels that a header claims, where it does."""
    offset = getattr(getattr(image, "dataobj", None), "offset", None)
    return None if offset is None else offset + math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize


def _check_length(path: Path, image: Any, unpacked: int | None) -> None:
    """Raise where a file ends before the voxels that its header claims."""
    claimed = _claimed(image)
    holder = image.file_map.get("image")
    if claimed is None or holder is None or holder.filename is None:
        return
    values = Path(holder.filename)
    if values != path:
        unpacked = _length(values, image)
    there = values.stat().st_size if unpacked is None else unpacked
    if there < claimed:
        found = f"{path} of {there} bytes, whose header claims {claimed} ({' x '.join(map(str, image.shape))} voxels)"
        raise InputError("an image must hold all voxels of its header", found, "fetch it again, or convert it")


def read_values(path: Path, image: Any, dtype: type[np.floating]) -> np.ndarray:
    """All values of a file.

    Raises:
        ValueError: the file is damaged. MemoryError: it is larger than the memory.
    """
    found = f"{path} of {' x '.join(map(str, image.shape))} voxels"
    rule, remedy = "an image must fit into memory", "crop it or make its voxels larger first, or free memory"
    check_memory(math.prod(map(int, image.shape)) * np.dtype(dtype).itemsize, rule, found, remedy)
    try:
        return np.asarray(image.dataobj, dtype=dtype)
    except MemoryError as error:
        raise TooLargeError(rule, found, remedy) from error
    except _DAMAGE as error:
        found = f"{path}, whose values cannot be read ({first_line(error)})"
        raise InputError("a file must be whole", found, "fetch it again, or convert it") from error


def first_line(error: Exception) -> str:
    """The first line of an error, or its kind where it says nothing."""
    return str(error).splitlines()[0] if str(error) not in ("", "None") else type(error).__name__


def _by_simpleitk(path: Path) -> Any:
    """What SimpleITK reads, as nibabel would."""
    with needing("itk", f"the file {path}"):
        import SimpleITK
    try:
        _check_meta_image(path)
        image = SimpleITK.ReadImage(str(path))
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        words = " ".join(str(error).split()).rpartition("ERROR: ")[2]
        raise InputError("an image must be a whole file", f"{path} ({words[-120:]})", "fetch it again") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        found = f"{path} of {image.GetNumberOfComponentsPerPixel()} numbers in each (colours or vectors)"
        raise InputError("an image has one number in a voxel", found, "convert it to grey values")
    dim = min(image.GetDimension(), 3)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:dim, :dim]
    affine = np.eye(4)
    affine[:dim, :dim] = direction * image.GetSpacing()[:dim]
    affine[:dim, 3] = image.GetOrigin()[:dim]
    values = SimpleITK.GetArrayFromImage(image).T
    return nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, dtype=values.dtype)


def _check_meta_image(path: Path) -> None:
    """Unpack the values of a MetaImage, whose damage ITK only prints."""
    if path.suffix.lower() not in (".mha", ".mhd"):
        return
    tags: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        while b"ElementDataFile" not in tags and (line := file.readline(2**16)):
            name, _, value = line.partition(b"=")
            tags[name.strip()] = value.strip()
        values = tags.get(b"ElementDataFile", b"").decode(errors="replace")
        if tags.get(b"CompressedData", b"").lower() == b"true" and values:
            packed = file.read() if values.upper() == "LOCAL" else (path.parent / values).read_bytes()
            unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
            unpacking.decompress(packed)
            if not unpacking.eof:
                raise EOFError("its packed values end too early")
