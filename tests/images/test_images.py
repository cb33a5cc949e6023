"""Scans in and out: places in space are kept whatever the file's orientation, and bad files say so."""

import gzip
import itertools
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from regkit import images

SHAPE = (7, 6, 5)
CODES = [
    "".join(signs[axis] for axis in order)
    for order in itertools.permutations(range(3))
    for signs in itertools.product("LR", "PA", "IS")
]


def oblique(angles, spacing, origin):
    """An affine without shear: ITK reads no other."""
    return nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(*angles) * spacing, origin)


OBLIQUE = oblique((0.3, -0.2, 0.1), (0.9, 1.1, 2.4), (-12.0, 7.5, 30.0))


def smooth(shape, seed=0):
    """Values that a linear interpolation reads well."""
    waves = np.random.RandomState(seed).uniform(0.2, 0.5, (3, len(shape)))
    places = np.indices(shape)
    return sum(np.sin(np.tensordot(wave, places, 1)) for wave in waves).astype(np.float32)


def turned(codes, affine, shape):
    """The affine and the shape of a file whose axes lead to the codes, of the voxels that lie at `affine` in RAS."""
    into = np.eye(4)
    into[:3, :3] = 0
    for axis, code in enumerate(codes):
        canonical = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        into[canonical, axis] = 1 if code in "RAS" else -1
        into[canonical, 3] = 0 if code in "RAS" else shape[canonical] - 1
    return affine @ into, tuple(int(size) for size in np.abs(into[:3, :3]).T @ shape)


def save(path, values, affine=OBLIQUE, **header):
    image = nibabel.Nifti1Image(values, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def marked(shape, place):
    values = np.zeros(shape, np.float32)
    values[place] = 1
    return values


@pytest.mark.parametrize("codes", CODES)
def test_a_marked_place_stays_where_it_is_in_all_orientations(tmp_path, codes):
    affine, shape = turned(codes, OBLIQUE, SHAPE)
    values, place = smooth(shape), (1, 2, 3)
    values[place] = 100
    path = save(tmp_path / "scan.nii.gz", values, affine)
    scan = images.read_image(path)
    assert scan.original.codes == codes and scan.grid.codes == "RAS" and scan.grid.space == SHAPE
    found = np.unravel_index(int(scan.tensor.argmax()), scan.grid.space)
    assert np.allclose((scan.affine @ [*found, 1])[:3], (affine @ [*place, 1])[:3], atol=1e-4)
    images.write_image(tmp_path / "canonical.nii", scan)
    images.write_image(tmp_path / "back.nii.gz", images.to_original(scan))
    back = nibabel.load(tmp_path / "back.nii.gz")
    assert np.allclose(back.affine, affine, atol=1e-5)
    assert np.allclose(back.get_fdata(), values, atol=1e-4)
    again = images.read_image(tmp_path / "canonical.nii")
    assert torch.equal(again.tensor, scan.tensor) and np.allclose(again.affine, scan.affine, atol=1e-5)


@pytest.mark.parametrize("codes", CODES[::5])
def test_another_grid_is_read_as_simpleitk_reads_it(tmp_path, codes):
    affine, shape = turned(codes, OBLIQUE, (15, 13, 11))
    path = save(tmp_path / "scan.nii", smooth(shape), affine)
    to = images.Grid((12, 9, 13), oblique((0.1, -0.3, 0.4), (0.7, 0.6, 1.2), (-9.0, 10.0, 33.0)))
    ours = images.resample(images.read_image(path), to)
    images.write_image(tmp_path / "to.nii", ours)
    theirs = SimpleITK.Resample(SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(tmp_path / "to.nii")))
    theirs = SimpleITK.GetArrayFromImage(theirs).T
    read = (
        np.linalg.inv(affine) @ to.affine @ np.stack([*map(np.ravel, np.indices(to.shape)), np.ones(np.prod(to.shape))])
    )
    last = np.array(shape)[:, None] - 1
    inside = ((read[:3] >= 0) & (read[:3] <= last)).all(0).reshape(to.shape)
    assert inside.sum() > 200
    assert np.abs(ours.tensor[0, 0].numpy() - theirs)[inside].max() < 1e-4


def test_labels_stay_labels(tmp_path):
    labels = np.random.RandomState(0).choice([0, 3, 41, 2035], SHAPE).astype(np.int32)
    scan = images.read_labels(save(tmp_path / "labels.nii.gz", labels))
    assert scan.is_labels and scan.tensor.dtype == torch.int64
    shifted = images.resample(scan, scan.grid.cropped((1, 0, -2), (4, 6, 5)))
    expected = np.zeros((4, 6, 5), np.int64)
    expected[:, :, 2:] = labels[1:5, :, :3]
    assert np.array_equal(shifted.tensor[0, 0].numpy(), expected)
    finer = images.resample(scan, scan.grid.with_spacing(0.5))
    assert set(finer.tensor.unique().tolist()) == {0, 3, 41, 2035}
    images.write_labels(tmp_path / "out.nii", scan)
    out = nibabel.load(tmp_path / "out.nii")
    assert out.get_data_dtype() == np.int16 and np.array_equal(out.dataobj, labels)


def test_sixteen_bits_with_a_slope_and_one_volume_of_four(tmp_path):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    image = nibabel.Nifti1Image(values.astype(np.int16)[..., None], OBLIQUE)
    image.header.set_slope_inter(0.25, -3)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    stored = nibabel.load(tmp_path / "scaled.nii.gz").get_fdata()[..., 0]
    scan = images.read_image(tmp_path / "scaled.nii.gz")
    assert scan.original.shape == SHAPE
    assert np.allclose(scan.tensor[0, 0].numpy(), stored)
    several = save(tmp_path / "several.nii", np.stack([stored, 2 * stored], -1))
    assert torch.allclose(images.read_image(several, volume=1).tensor, 2 * scan.tensor)
    for volume in (None, 2, -1):
        with pytest.raises(ValueError, match=r"of 2 volumes and volume=.*choose one from 0 to 1"):
            images.read_image(several, volume=volume)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 1, 7), (1, 9, 7)])
@pytest.mark.parametrize("codes", ["RAS", "LIA", "PSR"])
def test_a_slice_is_a_scan_of_two_axes(tmp_path, shape, codes):
    affine = OBLIQUE if len(shape) == 2 else turned(codes, OBLIQUE, shape)[0]
    values = smooth(shape)
    scan = images.read_image(save(tmp_path / "slice.nii.gz", values, affine))
    assert scan.tensor.dim() == 4 and sorted(scan.grid.space) == [7, 9] and len(scan.spacing) == 2
    place = np.unravel_index(values.argmax(), values.shape)
    found = np.zeros(3)
    found[list(scan.grid.axes)] = np.unravel_index(int(scan.tensor.argmax()), scan.grid.space)
    expected = affine @ [*place, *[0] * (3 - len(place)), 1]
    assert np.allclose(scan.affine @ [*found, 1], expected, atol=1e-4)
    images.write_image(tmp_path / "back.nii", images.to_original(scan))
    back = nibabel.load(tmp_path / "back.nii")
    assert back.shape == shape and np.allclose(back.get_fdata(), values, atol=1e-5)
    finer = images.resample(scan, scan.grid.with_space((15, 12)))
    assert tuple(finer.tensor.shape) == (1, 1, 15, 12)


def test_other_spacings_keep_the_extent_and_the_mean():
    scan = scan_of(smooth((40, 31, 20)) + 3)
    for to in (scan.grid.with_spacing(2.5), scan.grid.with_spacing((0.7, 2.0, 3.1)), scan.grid.with_space((11, 40, 9))):
        edges = [g.affine @ [*np.array(g.shape) / 2 - 0.5, 1] for g in (scan.grid, to)]
        assert np.allclose(edges[0], edges[1])  # the centres
        extent = np.array([g.spacing for g in (scan.grid, to)]) * [scan.grid.space, to.space]
        assert np.abs(extent[0] - extent[1]).max() <= max(to.spacing) / 2 + 1e-9
        there = images.resample(scan, to)
        assert there.tensor.mean() == pytest.approx(scan.tensor.mean().item(), rel=0.05)
        assert there.original is scan.original
    assert to.space == (11, 40, 9)
    assert scan.grid.is_same(scan.grid.with_space(scan.grid.space)) and not scan.grid.is_same(to)


def scan_of(values, affine=OBLIQUE):
    grid = images.Grid(values.shape, affine)
    return images.Scan(torch.as_tensor(values).reshape(1, 1, *grid.space), grid, grid)


def test_larger_voxels_see_what_lies_between():
    values = np.zeros((33, 32, 16), np.float32)
    values[::2] = 1
    coarse = images.resample(scan_of(values), scan_of(values).grid.with_space((9, 8, 16))).tensor
    assert (coarse - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("space", [(9, 4, 5), (12, 9, 2), (8, 5, 6)])
def test_crop_and_pad_go_back(space):
    scan = scan_of(smooth(SHAPE) + 5)
    there = images.crop_or_pad(scan, space)
    back = images.crop_or_pad(there, SHAPE)
    assert there.grid.space == space and back.grid.is_same(scan.grid)
    kept = images.resample(there, scan.grid).tensor  # the same voxels by their places in space
    inside = kept != there.tensor.min()
    assert inside.sum() > 60 and torch.allclose(kept[inside], scan.tensor[inside])
    assert torch.allclose(back.tensor, kept)
    assert all(size % 4 == 0 for size in images.pad_to_multiple(scan, 4).grid.space)
    assert torch.allclose(images.to_original(images.pad_to_multiple(scan, 4)).tensor, scan.tensor)


def test_intensities_become_unit():
    values = np.linspace(-1000, 3000, np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    scan = scan_of(values)
    window = images.normalise(scan, window=(-160.0, 240.0)).tensor[0, 0].numpy()
    assert np.allclose(window, np.clip((values + 160) / 400, 0, 1), atol=1e-6)
    normal = images.normalise(scan, percentiles=(10, 90)).tensor
    assert (normal == 0).float().mean() == pytest.approx(0.1, abs=0.02)
    assert (normal == 1).float().mean() == pytest.approx(0.1, abs=0.02)
    for bad, words in ((scan_of(np.full(SHAPE, 7.0, np.float32)), "must vary"), (scan_of(values > 0), "labels")):
        with pytest.raises(ValueError, match=words):
            images.normalise(bad)
    with pytest.raises(ValueError, match="window"):
        images.normalise(scan, window=(5.0, 5.0))


def written(tmp_path, kind):
    path, values = tmp_path / "bad.nii.gz", smooth(SHAPE)
    if kind == "text":
        path.write_text("not an image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        save(tmp_path / "whole.nii.gz", values)
        path.write_bytes((tmp_path / "whole.nii.gz").read_bytes()[:-150])
    elif kind == "truncated, not packed":
        path = tmp_path / "bad.nii"
        path.write_bytes(save(tmp_path / "whole.nii", values).read_bytes()[:-50])
    elif kind == "corrupt":
        content = bytearray(save(tmp_path / "whole.nii.gz", values).read_bytes())
        content[300:340] = bytes(40)
        path.write_bytes(content)
    elif kind == "RGB":
        save(path, np.zeros(SHAPE, np.dtype([(name, np.uint8) for name in "RGB"])))
    elif kind == "five axes":
        save(path, np.zeros((*SHAPE, 1, 3), np.float32))
    elif kind == "row":
        save(path, np.zeros((9, 1, 1), np.float32))
    elif kind == "all NaN":
        save(path, np.full(SHAPE, np.nan, np.float32))
    else:
        size = {"0 mm": 0.0, "1000 mm": 1000.0}[kind]
        save(path, values, np.diag([1.0, size, 1.0, 1.0]) if size else OBLIQUE)
        if not size:
            content = bytearray(gzip.decompress(path.read_bytes()))
            content[252:256], content[80:92] = bytes(4), bytes(12)  # no codes, pixdim 0
            path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.mark.filterwarnings("ignore:.*does not say where")
@pytest.mark.parametrize(
    ("kind", "words"),
    {
        "text": "is read from .*none of these",
        "empty": "of 0 bytes",
        "truncated": "must be a whole NIfTI file",
        "truncated, not packed": "whose header claims",
        "corrupt": "must be a whole NIfTI file",
        "RGB": "colours",
        "five axes": "read_displacement",
        "row": "more than one voxel",
        "all NaN": "finite values",
        "0 mm": "voxels must have a size",
        "1000 mm": "voxels must be from 0.001 to 100 mm",
    }.items(),
)
def test_bad_files_are_named_for_what_they_are(tmp_path, kind, words):
    path = written(tmp_path, kind)
    with pytest.raises(ValueError, match=words) as caught:
        images.read_image(path)
    assert str(path) in str(caught.value)


def test_what_is_no_image_at_all(tmp_path):
    for path in (tmp_path / "none.nii", tmp_path):
        with pytest.raises(FileNotFoundError, match="check the path"):
            images.read_image(path)
    with pytest.raises(ValueError, match=r"whole numbers.*0\.\d"):
        images.read_labels(save(tmp_path / "image.nii", np.abs(smooth(SHAPE)) / 4 + 0.1))


def test_nan_is_outside_the_field_of_view_and_is_told(tmp_path):
    values = smooth(SHAPE)
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    with pytest.warns(UserWarning, match="3 NaN or infinite of 210"):
        scan = images.read_image(save(tmp_path / "nan.nii", values))
    assert torch.isfinite(scan.tensor).all() and (scan.tensor[0, 0, 0, 0, :3] == scan.tensor.min()).all()
    assert not scan.inside[0, 0, 0, 0, :3].any() and scan.inside.sum() == 207


def test_a_header_without_space_is_told(tmp_path):
    path = save(tmp_path / "plain.nii", smooth(SHAPE), None, pixdim=[1, 2, 3, 4, 1, 1, 1, 1])
    with pytest.warns(UserWarning, match="no qform, no sform"):
        scan = images.read_image(path)
    assert scan.spacing == (2, 3, 4) and scan.original.codes == "LAS"


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1.0)])
def test_lengths_become_millimetres(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(smooth(SHAPE), np.diag([*np.array([2.0, 3.0, 4.0]) / factor, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "scan.nii")
    assert images.read_image(tmp_path / "scan.nii").spacing == pytest.approx((2, 3, 4))


def test_a_full_disk_leaves_the_old_file(tmp_path):
    script = f"""
import resource, signal, sys
import numpy, torch
from regkit import images, scans
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
grid = scans.Grid((30, 30, 30), numpy.eye(4))
scan = scans.Scan(torch.rand(1, 1, 30, 30, 30), grid, grid)
images.write_image("{tmp_path}/scan.nii", scan.with_tensor(torch.zeros(1, 1, 30, 30, 30)))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    images.write_image("{tmp_path}/scan.nii", scan)
except OSError:
    sys.exit(3)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 3
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]
    assert images.read_image(tmp_path / "scan.nii").tensor.abs().max() == 0


def test_what_cannot_be_written_is_refused(tmp_path):
    scan = scan_of(smooth(SHAPE))
    with pytest.raises(ValueError, match=r"written as \.nii or \.nii\.gz"):
        images.write_image(tmp_path / "scan.mha", scan)
    with pytest.raises(ValueError, match="labels must be integers"):
        images.write_labels(tmp_path / "scan.nii", scan)
    with pytest.raises(ValueError, match="32 bits"):
        images.write_labels(tmp_path / "scan.nii", scan_of(np.full(SHAPE, 2**40)))
    with pytest.raises(FileNotFoundError):
        images.write_image(tmp_path / "missing" / "scan.nii", scan)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused():
    volume, flat = scan_of(smooth(SHAPE)), scan_of(smooth((7, 6, 1)))
    across = scan_of(smooth((7, 1, 5)))
    with pytest.raises(ValueError, match="both be volumes or both slices"):
        images.resample(flat, volume)
    with pytest.raises(ValueError, match="parallel planes"):
        images.resample(flat, across)
    with pytest.raises(ValueError, match="on the grid that a scan is resampled to"):
        images.resample(volume, volume, displacement=torch.zeros(1, 3, 4, 4, 4))
    with pytest.raises(ValueError, match=r"tensor must be \(1, 1"):
        volume.with_tensor(torch.zeros(1, 1, 3, 3, 3))
    with pytest.raises(ValueError, match="different directions"):
        images.Grid(SHAPE, [[1, 1, 0, 0], [0, 1e-4, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match="finite"):
        images.Grid(SHAPE, np.full((4, 4), np.nan))
