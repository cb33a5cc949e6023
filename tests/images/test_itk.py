"""Displacement fields in files: ITK moves points and images by them as regkit does, on any grid."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from regkit import data, fields, images
from regkit.__main__ import main
from regkit.images import itk, transforms

SHAPE = (21, 18, 15)
CODES = ["".join(code) for order in itertools.permutations(("LR", "PA", "IS")) for code in itertools.product(*order)]
ANGLES = {"straight": (0, 0, 0), "oblique": (0.3, -0.2, 0.25)}
SPACINGS = {"even": (1.2, 1.2, 1.2), "uneven": (0.8, 1.1, 2.7)}


def grid_of(codes, angles, spacing, shape=SHAPE):
    turn = nibabel.eulerangles.euler2mat(*ANGLES[angles])
    order = nibabel.orientations.axcodes2ornt(codes)
    into = np.zeros((3, 3))
    for axis, (canonical, sign) in enumerate(order):
        into[int(canonical), axis] = sign
    sizes = np.array(SPACINGS[spacing])
    affine = nibabel.affines.from_matvec(turn @ into * sizes, (-31.0, 12.0, 44.0))
    return images.Grid(shape, affine)


def smooth_scan(grid):
    places = np.indices(grid.shape).astype(np.float32)
    values = np.sin(0.25 * places[0]) + np.cos(0.2 * places[1] + 0.3) + np.sin(0.3 * places[2] + 0.1 * places[0])
    return images.Scan(torch.from_numpy(values)[None, None].float() + 3, grid, grid)


def transform(path, dim=3):
    pixel = SimpleITK.sitkVectorFloat64
    field = SimpleITK.ReadImage(str(path), pixel)
    assert field.GetDimension() == dim and field.GetNumberOfComponentsPerPixel() == dim
    return SimpleITK.DisplacementFieldTransform(field)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR"])
@pytest.mark.parametrize(("angles", "spacing"), [*itertools.product(ANGLES, SPACINGS)])
def test_itk_warps_and_moves_points_as_regkit_does(tmp_path, codes, angles, spacing):
    grid = grid_of(codes, angles, spacing)
    scan = smooth_scan(grid)
    field = data.smooth_displacement(SHAPE, amplitude=3.0, smoothness=4.0, seed=3)
    itk.write_displacement(tmp_path / "field.nii.gz", itk.Deformation(field, grid))
    images.write_image(tmp_path / "scan.nii", scan)
    read = SimpleITK.ReadImage(str(tmp_path / "scan.nii"))
    moved = transform(tmp_path / "field.nii.gz")
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.Resample(read, read, moved, SimpleITK.sitkLinear, -100.0)).T
    ours = fields.warp(scan.tensor, field)[0, 0].numpy()
    inside = theirs > -50
    assert inside.mean() > 0.7
    assert np.abs(theirs - ours)[inside].max() < 1e-3 and np.ptp(ours) > 2
    for place in [(3, 4, 5), (10, 9, 2), (17, 12, 11)]:
        start = grid.affine @ [*place, 1]
        end = grid.affine @ [*(np.array(place) + field[0, :, *place].numpy()), 1]
        found = moved.TransformPoint((start[:3] * [-1, -1, 1]).tolist())
        assert np.allclose(np.array(found) * [-1, -1, 1], end[:3], atol=1e-3)
        assert np.linalg.norm(end - start) > 0.1


@pytest.mark.parametrize("codes", CODES)
def test_what_is_written_is_read_again_in_canonical_order(tmp_path, codes):
    grid = grid_of(codes, "oblique", "uneven")
    field = data.smooth_displacement(SHAPE, amplitude=3.0, smoothness=4.0, seed=1)
    itk.write_displacement(tmp_path / "field.nii", itk.Deformation(field, grid))
    again = itk.read_displacement(tmp_path / "field.nii")
    assert again.grid.codes == "RAS"
    back = itk.regrid(again, grid)
    assert torch.allclose(back.displacement, field, atol=1e-3)


def test_what_itk_writes_is_read(tmp_path):
    grid = grid_of("LPS", "oblique", "uneven")
    field = data.smooth_displacement(SHAPE, amplitude=3.0, smoothness=4.0, seed=2)
    itk.write_displacement(tmp_path / "ours.nii.gz", itk.Deformation(field, grid))
    read = SimpleITK.ReadImage(str(tmp_path / "ours.nii.gz"), SimpleITK.sitkVectorFloat64)
    SimpleITK.WriteImage(read, str(tmp_path / "theirs.nii.gz"))
    theirs = itk.read_displacement(tmp_path / "theirs.nii.gz")
    assert torch.allclose(itk.regrid(theirs, grid).displacement, field, atol=1e-3)


@pytest.mark.parametrize("codes", ["RAS", "LIA"])
def test_ants_warps_as_regkit_does(tmp_path, codes):
    ants = pytest.importorskip("ants")
    grid = grid_of(codes, "oblique", "uneven")
    scan = smooth_scan(grid)
    field = data.smooth_displacement(SHAPE, amplitude=3.0, smoothness=4.0, seed=3)
    itk.write_displacement(tmp_path / "field.nii.gz", itk.Deformation(field, grid))
    images.write_image(tmp_path / "scan.nii", scan)
    read = ants.image_read(str(tmp_path / "scan.nii"))
    theirs = ants.apply_transforms(read, read, [str(tmp_path / "field.nii.gz")], defaultvalue=-100).numpy()
    inside = theirs > -50
    assert inside.mean() > 0.7
    assert np.abs(theirs - fields.warp(scan.tensor, field)[0, 0].numpy())[inside].max() < 1e-3


@pytest.mark.parametrize("shape", [(19, 14), (19, 14, 1)])  # ITK sees a slice with a third axis in three dimensions
def test_planes_go_to_itk_too(tmp_path, shape):
    grid = images.Grid(shape, np.diag([1.5, 0.8, 1.0, 1]))
    field = data.smooth_displacement((19, 14), amplitude=2.0, smoothness=3.0, seed=2)
    itk.write_displacement(tmp_path / "field.nii", itk.Deformation(field, grid))
    assert torch.allclose(itk.read_displacement(tmp_path / "field.nii").displacement, field, atol=1e-3)
    moved = transform(tmp_path / "field.nii", len(shape))
    end = np.array([7, 9]) + field[0, :, 7, 9].numpy()
    found = np.array(moved.TransformPoint((-7 * 1.5, -9 * 0.8, 0.0)[: len(shape)]))
    assert np.allclose(found[:2] / [-1.5, -0.8], end, atol=1e-3)


def test_a_tilted_slice_keeps_its_vectors(tmp_path):
    grid = grid_of("RAS", "oblique", "uneven", (19, 14, 1))
    field = data.smooth_displacement((19, 14), amplitude=2.0, smoothness=3.0, seed=2)
    itk.write_displacement(tmp_path / "field.nii", itk.Deformation(field, grid))
    assert torch.allclose(itk.read_displacement(tmp_path / "field.nii").displacement, field, atol=1e-3)


def test_there_and_back_with_an_affine_map_between():
    fixed, moving = grid_of("RAS", "straight", "even"), grid_of("LPS", "oblique", "uneven", (17, 20, 13))
    through = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.1, 0.2, -0.1) * 1.05, [5.0, -60, 20])
    middle = [np.array([*(np.array(grid.shape) - 1) / 2, 1]) for grid in (fixed, moving)]
    moving.affine[:, 3] += through @ fixed.affine @ middle[0] - moving.affine @ middle[1]
    field = data.smooth_displacement(SHAPE, amplitude=2.0, smoothness=5.0, seed=4)
    there = itk.regrid(itk.Deformation(field, fixed), fixed, after=through)
    back = itk.regrid(itk.Deformation(fields.invert(field), fixed), moving, before=np.linalg.inv(through))
    for voxel in [(10, 9, 7), (12, 7, 9), (8, 11, 6)]:
        start = fixed.affine @ [*voxel, 1]
        end = fixed.affine @ [*(np.array(voxel) + there.displacement[0, :, *voxel].numpy()), 1]
        expected = through @ fixed.affine @ [*(np.array(voxel) + field[0, :, *voxel].numpy()), 1]
        assert np.allclose(end, expected, atol=1e-3)
        place = torch.from_numpy(np.linalg.inv(moving.affine) @ end)[:3].float().view(1, 3, 1, 1, 1)
        home = (place + fields.sample(back.displacement, place)).flatten().double().numpy()
        assert np.abs(moving.affine @ [*home, 1] - start).max() < 0.1


def test_bad_fields_are_refused(tmp_path):
    grid = grid_of("RAS", "straight", "even")
    with pytest.raises(ValueError, match="one displacement on its grid"):
        itk.Deformation(torch.zeros(1, 3, 4, 4, 4), grid)
    sheared = images.Grid(SHAPE, grid.affine @ (np.eye(4) + 0.2 * np.eye(4, k=1) * [[1], [0], [0], [0]]))
    with pytest.raises(ValueError, match="right angles"):
        itk.write_displacement(tmp_path / "a.nii", itk.Deformation(torch.zeros(1, 3, *SHAPE), sheared))
    images.write_image(tmp_path / "image.nii", smooth_scan(grid))
    with pytest.raises(ValueError, match="read images with read_image"):
        itk.read_displacement(tmp_path / "image.nii")
    itk.write_displacement(tmp_path / "nan.nii", itk.Deformation(torch.full((1, 3, *SHAPE), np.nan), grid))
    with pytest.raises(ValueError, match="must be finite"):
        itk.read_displacement(tmp_path / "nan.nii")
    whole = (tmp_path / "nan.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:-9000])
    with pytest.raises(ValueError, match="whose header claims"):
        itk.read_displacement(tmp_path / "cut.nii")


# ---------------------------------------------------------------------------------------------- headers that say little

TURN = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.25)
SHEAR = np.eye(3) + np.array([[0, 0.2, 0], [0, 0, 0], [0, 0, 0]])
HEADERS = ["plain", "qform", "sform", "neither", "two places", "two scanner places", "sheared sform", "analyze", "mat"]
SHAPES = {
    "volume": ((21, 18, 15), "LPS", np.eye(3)),
    "plane": ((21, 18), "LPS", np.eye(3)),
    "tilted plane": ((21, 18), "LPS", TURN),
    "axial": ((21, 18, 1), "RAS", np.eye(3)),
    "tilted": ((21, 18, 1), "LPS", TURN),
    "sagittal": ((18, 15, 1), "PSR", np.eye(3)),
    "coronal": ((21, 15, 1), "LSP", np.eye(3)),
    "first axis": ((1, 18, 15), "RAS", TURN),
    "second axis": ((21, 1, 15), "LPI", np.eye(3)),
}


def store(path, header, shape, *, moved=0.0):
    """A smooth image whose header is of a kind; moved: mm between what two images show."""
    size, codes, turn = SHAPES[shape]
    grid = images.Grid(size, grid_of(codes, "straight", "uneven").affine)
    linear = turn @ grid.affine[:3, :3]
    middle = [*(np.array(size) - 1) / 2, 0][:3]
    affine = nibabel.affines.from_matvec(linear, np.array([4.0 + moved, -7, 9]) - linear @ middle)
    index = np.stack(np.meshgrid(*map(np.arange, (*size, 1)[:3]), indexing="ij"), -1) - middle
    waves = np.cos(np.abs(np.linalg.norm(grid.affine[:3, :3], axis=0)) * index * 0.3 + 0.4 + 0.05 * moved)
    values = (4 + waves.sum(-1)).reshape(size).astype(np.float32)
    other = nibabel.affines.from_matvec(TURN @ linear, affine[:3, 3] + [30, 20, -10])
    if header in ("analyze", "mat"):
        kind = nibabel.AnalyzeImage if header == "analyze" else nibabel.Spm2AnalyzeImage
        image = kind(values, None if header == "analyze" else affine)
        image.header.set_zooms(np.linalg.norm(linear, axis=0)[: len(size)])
        image.to_filename(path.with_suffix(".img"))
        return path.with_suffix(".img")
    forms = {
        "qform": ((affine, 1), (None, 0)),
        "sform": ((None, 0), (affine, 2)),
        "neither": ((affine, 0), (None, 0)),
        "two places": ((other, 1), (affine, 4)),
        "two scanner places": ((other, 1), (affine, 1)),
        "sheared sform": ((affine, 1), (nibabel.affines.from_matvec(linear @ SHEAR, affine[:3, 3]), 1)),
    }
    qform, sform = forms.get(header, ((affine, 1), (affine, 1)))
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(*sform)
    image.set_qform(*qform)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


FILES = [(shape, header, header) for shape in SHAPES for header in HEADERS]
FILES += [("volume", *pair) for pair in itertools.permutations(HEADERS[3:], 2)]


@pytest.mark.filterwarnings("ignore")  # of each header
@pytest.mark.parametrize(("shape", "moving", "fixed"), FILES)
def test_itk_gives_regkits_warped_image_from_the_same_files(tmp_path, shape, moving, fixed):
    paths = store(tmp_path / "moving.nii", moving, shape, moved=1.5), store(tmp_path / "fixed.nii", fixed, shape)
    there, here = map(images.read_image, paths)
    middle = here.original.affine @ [*(np.array([*here.original.shape, 1][:3]) - 1) / 2, 1]
    near = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.04))
    near[:3, 3] = (middle - near @ middle)[:3]
    through = there.original.affine @ np.linalg.inv(here.original.affine) @ near  # the two files lie anywhere
    local = data.smooth_displacement(here.original.space, amplitude=1.5, smoothness=3.0, seed=3)
    whole = itk.regrid(itk.Deformation(local, here.original), here.original, after=through)
    ours = images.resample(there, whole.grid, displacement=whole.displacement).tensor[0, 0]
    places = fields.identity(whole.grid.space) + whole.displacement
    places = images.move_points(places, images.voxel_map(whole.grid, there.grid)).movedim(1, -1)[0]
    covered = ((places >= 0) & (places <= torch.tensor(ours.shape) - 1)).all(-1)  # beyond, ITK does not fade
    itk.write_displacement(tmp_path / "field.nii.gz", whole, there.original)
    transforms.write_composite(tmp_path / "both.h5", whole, there.original, through)
    images.write_image(tmp_path / "warped.nii.gz", images.Scan(ours[None, None], whole.grid, whole.grid))
    for path in ("field.nii.gz", "both.h5"):
        to = ["--to", "image", str(paths[0]), "--like", str(paths[1]), "--out", str(tmp_path / "applied.nii.gz")]
        assert main(["apply", str(tmp_path / path), *to]) == 0
        applied = np.asarray(nibabel.load(tmp_path / "applied.nii.gz").dataobj)
        assert np.abs(applied - ours.numpy().reshape(applied.shape))[covered.reshape(applied.shape)].max() < 5e-3
    paths = *paths, tmp_path / "warped.nii.gz"
    read, *likes = (SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32) for path in paths)
    field = transform(tmp_path / "field.nii.gz", read.GetDimension())
    for like, move in itertools.product(likes, (field, SimpleITK.ReadTransform(str(tmp_path / "both.h5")))):
        theirs = SimpleITK.GetArrayFromImage(SimpleITK.Resample(read, like, move, SimpleITK.sitkLinear, -100.0)).T
        inside = covered.numpy().reshape(theirs.shape)
        assert inside.mean() > 0.5 and np.ptp(theirs[inside]) > 1
        assert np.abs(theirs - ours.numpy().reshape(theirs.shape))[inside].max() < 5e-3
