"""Files of all kinds: read right, or refused in a sentence that says what they are."""

import gzip
import struct
import warnings

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from nibabel.cifti2 import cifti2_axes

from regkit import images
from regkit.__main__ import main
from regkit.images import headers

SHAPE = (7, 6, 5)
AFFINE = nibabel.affines.from_matvec(np.diag([-2.0, 2.5, 3.0]), (10, -20, 5))
VALUES = np.random.default_rng(0).integers(-500, 500, SHAPE).astype(np.int16)


def nifti(path, kind=nibabel.Nifti1Image, *, sform=True, values=VALUES):
    image = kind(values, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE if sform else None, int(sform))
    nibabel.save(image, path)
    return path


def by_simpleitk(path):
    image = SimpleITK.ReadImage(str(nifti(path.with_name("source.nii"))))
    SimpleITK.WriteImage(image, str(path))
    return path


def upper(pair, path):
    for ending in (".img", ".hdr"):
        pair.with_suffix(ending).rename(path.with_suffix(ending.upper()))
    return path


READ = {
    "plain.nii": nifti,
    "packed.nii.gz": nifti,
    "packed.nii.bz2": nifti,
    "two.nii": lambda path: nifti(path, nibabel.Nifti2Image),
    "pair.img": lambda path: nifti(path, nibabel.Nifti1Pair),
    "pair.hdr": lambda path: nifti(path, nibabel.Nifti1Pair, sform=False),
    **dict.fromkeys(("pair.img.gz", "pair.hdr.gz"), lambda path: nifti(path, nibabel.Nifti1Pair, sform=False)),
    "PAIR.IMG": lambda path: upper(nifti(path.with_name("pair.img"), nibabel.Nifti1Pair), path),
    "volume.mgz": lambda path: (nibabel.save(nibabel.MGHImage(VALUES, AFFINE), path), path)[1],
    **dict.fromkeys(("itk.nrrd", "itk.mha", "itk.mhd", "itk.nhdr"), by_simpleitk),
}


@pytest.mark.parametrize("name", READ)
def test_one_scan_is_the_same_in_every_format(tmp_path, name):
    path = READ[name](tmp_path / name)
    scan, truth = images.read_image(path), images.read_image(nifti(tmp_path / "truth.nii"))
    assert np.allclose(scan.affine, truth.affine, atol=1e-5) and (scan.tensor == truth.tensor).all()
    assert scan.original.codes == "LAS" and images.read_labels(path).is_labels


@pytest.mark.parametrize("half", [0.70711, 0.7075])
def test_a_rounded_quaternion_is_a_half_turn(tmp_path, half):
    path = nifti(tmp_path / "turned.nii", sform=False)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<fff", raw, 256, half, half, 0.0)
    path.write_bytes(raw)
    theirs = SimpleITK.ReadImage(str(path)).GetDirection()
    ours = images.read_image(path).original.affine[:3, :3] / (2, 2.5, 3)
    assert np.allclose(np.diag([-1, -1, 1]) @ ours, np.reshape(theirs, (3, 3)), atol=1e-5)


def test_a_turn_that_is_nearly_half_stays_as_it_is(tmp_path):
    turn = nibabel.eulerangles.euler2mat(np.pi - 0.1, 0, 0)
    image = nibabel.Nifti1Image(VALUES, np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(nibabel.affines.from_matvec(turn * 2), 1)
    nibabel.save(image, tmp_path / "turned.nii")
    assert np.allclose(images.read_image(tmp_path / "turned.nii").original.affine[:3, :3], turn * 2, atol=1e-5)


def test_what_itk_may_place_elsewhere_is_told(tmp_path):
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    image.set_qform(AFFINE + np.outer([4, 0, 0, 0], [0, 0, 0, 1]), 1)
    nibabel.save(image, tmp_path / "two_places.nii")
    nibabel.save(nibabel.AnalyzeImage(VALUES, None), tmp_path / "analyze.img")
    for name, words in (("two_places.nii", "up to 4 apart.*ITK"), ("analyze.img", "Analyze.*how it lies.*ITK")):
        with pytest.warns(UserWarning, match=words):
            scan = images.read_image(tmp_path / name)
        assert scan.original.itk is not None


@pytest.mark.parametrize("kind", ["two places", "neither", "analyze", "upright", "nearly right angles", "scaled"])
def test_a_header_is_mended(tmp_path, kind):
    values, affine = (VALUES[:, :, 0], AFFINE[:, [1, 2, 0, 3]]) if kind == "upright" else (VALUES, AFFINE.copy())
    affine[0, 1] += 1e-3 if kind == "nearly right angles" else 0
    place = None if kind in ("analyze", "neither") else affine
    image = (nibabel.AnalyzeImage if kind == "analyze" else nibabel.Nifti1Pair)(values, place)
    if kind == "two places":
        image.set_qform(affine + np.outer([4, 0, 0, 0], [0, 0, 0, 1]), 1)
    if kind == "scaled":
        image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "a.img")
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        before = images.read_image(tmp_path / "a.img")
    assert (kind == "scaled") != any("--fix-header" in str(note.message) for note in notes)
    assert main(["examine", str(tmp_path / "a.img"), "--fix-header", str(tmp_path / "new.nii.gz")]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = images.read_image(tmp_path / "new.nii.gz")
    assert torch.equal(before.tensor, after.tensor) and after.original.itk is None
    assert np.allclose(after.affine, before.affine, atol=1e-2)  # of right angles: within a thousandth of each axis
    theirs = SimpleITK.ReadImage(str(tmp_path / "new.nii.gz"))
    directions = np.diag([-1, -1, 1]) @ np.reshape(theirs.GetDirection(), (3, 3)) * theirs.GetSpacing()
    assert np.allclose(directions, after.original.affine[:3, :3], atol=1e-4)
    assert np.allclose(np.array(theirs.GetOrigin()) * [-1, -1, 1], after.original.affine[:3, 3], atol=1e-4)
    assert nibabel.load(tmp_path / "new.nii.gz").get_data_dtype() == (np.float32 if kind == "scaled" else np.int16)


def test_a_header_far_from_right_angles_is_not_mended(tmp_path):
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE + 0.2 * np.eye(4, k=1)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="right angles"):
        headers.fix_header(tmp_path / "a.nii", tmp_path / "b.nii")
    with pytest.raises(ValueError, match="form is chosen that the file has"):
        headers.fix_header(tmp_path / "a.nii", tmp_path / "b.nii", form="qform")


def gifti(path):
    points = nibabel.gifti.GiftiDataArray(np.zeros((5, 3), np.float32), intent="NIFTI_INTENT_POINTSET")
    nibabel.save(nibabel.GiftiImage(darrays=[points]), path)


def cifti(path):
    model = cifti2_axes.BrainModelAxis.from_mask(np.ones((4, 4, 4), bool), affine=np.eye(4), name="thalamus_left")
    nibabel.save(nibabel.Cifti2Image(np.ones((1, 64), np.float32), (cifti2_axes.ScalarAxis(["a"]), model)), path)


def gigantic(path):
    raw = bytearray(nifti(path.with_name("small.nii")).read_bytes())
    struct.pack_into("<8h", raw, 40, 3, 32000, 32000, 32000, 1, 1, 1, 1)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def quaternion(path):
    raw = bytearray(nifti(path, sform=False).read_bytes())
    struct.pack_into("<fff", raw, 256, 0.9, 0.9, 0.0)
    path.write_bytes(raw)


def lonely(path):
    nifti(path, nibabel.Nifti1Pair)
    path.with_suffix(".hdr" if path.suffix == ".img" else ".img").unlink()


def damaged(path, where):
    """A packed MetaImage that lacks some bytes."""
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti(path.with_name("a.nii")))), str(path), True)
    content = bytearray(path.read_bytes())
    del content[where]
    path.write_bytes(content)


REFUSED = {
    "s.surf.gii": (gifti, "a surface"),
    "s.dscalar.nii": (cifti, "CIFTI"),
    "s.nii.zst": (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100)), "unpack it"),
    "s.par": (lambda path: path.write_bytes(b"junk" * 100), "PAR/REC"),
    "big.nii": (gigantic, "claims 65536000000352"),
    "big.nii.gz": (gigantic, "claims 65536000000352"),
    "long.nii": (quaternion, "quaternion is longer than 1"),
    "alone.img": (lonely, "without its .hdr"),
    "alone.hdr": (lonely, "without its .img"),
    "plain.nii.gz": (lambda path: path.write_bytes(nifti(path.with_name("a.nii")).read_bytes()), "rename it to .nii"),
    "packed.nii": (
        lambda path: path.write_bytes(nifti(path.with_name("a.nii.gz")).read_bytes()),
        "rename it to .nii.gz",
    ),
    "page.nii.gz": (lambda path: path.write_bytes(b"<!DOCTYPE html><html>not found"), "a web page"),
    "lfs.nii.gz": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "slice.dcm": (lambda path: path.write_bytes(bytes(128) + b"DICM" + bytes(50)), "dcm2niix"),
    "noending": (lambda path: path.write_bytes(bytes(128) + b"DICM" + bytes(50)), "dcm2niix"),
    "picture.png": (lambda path: path.write_bytes(b"\x89PNG" + bytes(50)), "a picture"),
    "array.npy": (lambda path: np.save(path, VALUES), "an array"),
    "broken.nrrd": (lambda path: path.write_bytes(b"NRRD0004\njunk"), "whole file"),
    "cut.nii.bz2": (lambda path: path.write_bytes(nifti(path).read_bytes()[:-40]), "whole NIfTI file"),
    "cut.mgz": (lambda path: path.write_bytes(READ["volume.mgz"](path).read_bytes()[:-40]), "whole NIfTI file"),
    "cut.mha": (lambda path: damaged(path, slice(-1, None)), "packed values end too early"),
    "cut_damaged.mha": (lambda path: damaged(path, slice(-99, -90)), "while decompressing"),
    "twice.nii.gz": (lambda path: path.write_bytes(gzip.compress(nifti(path).read_bytes())), "packed twice"),
    "packed": (lambda path: nifti(path.with_name("a.nii.gz")).rename(path), "rename it to .nii.gz"),
    "bzip.nii.gz": (lambda path: nifti(path.with_name("a.nii.bz2")).rename(path), "rename it to .nii.bz2"),
    "text.nii": (lambda path: path.write_text("no image"), "none of these"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named_for_what_it_is(tmp_path, name):
    make, words = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=words) as caught:
        images.read_image(tmp_path / name)
    assert name in str(caught.value) and ("fetch it again" in str(caught.value)) == name.startswith(
        ("cut", "big", "broken")
    )
