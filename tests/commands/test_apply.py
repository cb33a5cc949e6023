"""`apply`: what SimpleITK makes of the same files, for all orientations, chains, inverses, slices and landmarks."""

import csv
import itertools
import json

import nibabel
import numpy as np
import pytest

from regkit.__main__ import main
from regkit.images.transforms import AffineMap, Chain, read_map

sitk = pytest.importorskip("SimpleITK", reason="the course extra is not installed")

CODES = ["".join(pair) for pair in itertools.product(*itertools.repeat("+-", 3))]
ORIENTATIONS = [(order, signs) for order in itertools.permutations(range(3)) for signs in CODES]
SHAPE = {3: (13, 11, 9), 2: (17, 14)}


def affine_of(order, signs, shape, spacing=(1.5, 1.0, 2.0), tilt=0.0):
    matrix = np.zeros((3, 3))
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[target, axis] = spacing[axis] * (1 if sign == "+" else -1)
    turn = nibabel.eulerangles.euler2mat(tilt, tilt / 2, -tilt)
    affine = np.eye(4)
    affine[:3, :3] = turn @ matrix
    affine[:3, 3] = -affine[:3, :3] @ (np.array([*shape, 1][:3]) - 1) / 2 + [1.0, -2.0, 3.0]
    return affine


def save(path, values, affine):
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def scan_file(path, order=(0, 1, 2), signs="+++", shape=SHAPE[3], seed=0, tilt=0.0):
    values = np.random.RandomState(seed).rand(*shape).astype(np.float32)
    return save(path, values, affine_of(order, signs, shape, tilt=tilt))


def field_file(path, like, seed=0, size=2.0, components=3):
    """A smooth displacement on a scan's grid, as ITK reads it."""
    image = sitk.ReadImage(str(like))
    sizes = image.GetSize()
    axes = np.meshgrid(*[np.linspace(0, np.pi, n) for n in sizes], indexing="ij")
    window = np.prod([np.sin(axis) for axis in axes], 0)
    draw = np.random.RandomState(seed)
    vectors = np.stack([size * draw.uniform(-1, 1) * window for _ in range(components)], -1)
    turned = vectors.transpose(*reversed(range(len(sizes))), len(sizes))
    field = sitk.GetImageFromArray(np.ascontiguousarray(turned), True)
    field.CopyInformation(image)
    sitk.WriteImage(sitk.Cast(field, sitk.sitkVectorFloat64), str(path))
    return path


def affine_file(path, dim=3):
    transform = sitk.AffineTransform(dim)
    linear = np.eye(dim) + np.random.RandomState(3).uniform(-0.1, 0.1, (dim, dim))
    transform.SetMatrix(linear.ravel().tolist())
    transform.SetTranslation([0.7, -1.1, 0.4][:dim])
    sitk.WriteTransform(transform, str(path))
    return path


def transform_of(path):
    if path.suffix == ".gz":
        return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    return sitk.ReadTransform(str(path))


def resampled(moving, fixed, paths, interpolator=None, default=0.0):
    image, reference = sitk.ReadImage(str(moving)), sitk.ReadImage(str(fixed))
    chain = sitk.CompositeTransform([transform_of(path) for path in paths])
    chosen = sitk.sitkLinear if interpolator is None else interpolator
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, chain, chosen, default)).T


def applied(out, *words):
    assert main(["apply", *map(str, words), "--out", str(out)]) == 0
    return np.asarray(nibabel.load(out).dataobj) if out.name.endswith(".nii.gz") else out.read_text()


@pytest.mark.parametrize("order, signs", ORIENTATIONS)
def test_an_image_of_any_orientation_is_what_simpleitk_makes_of_it(tmp_path, order, signs):
    moving = scan_file(tmp_path / "moving.nii.gz", order, signs, tilt=0.1)
    fixed = scan_file(tmp_path / "fixed.nii.gz", order[::-1], signs[::-1], shape=(10, 12, 11), seed=1)
    field = field_file(tmp_path / "field.nii.gz", fixed)
    found = applied(tmp_path / "out.nii.gz", field, "--to", "image", moving, "--like", fixed, "--outside", 0)
    assert np.abs(found - resampled(moving, fixed, [field])).max() < 1e-3


def test_a_chain_of_three_is_interpolated_once_in_the_order_of_itk(tmp_path):
    moving, middle, fixed = (
        scan_file(tmp_path / f"{name}.nii.gz", seed=seed, tilt=0.2 * seed) for seed, name in enumerate("mnf")
    )
    maps = [field_file(tmp_path / "a.nii.gz", middle, 1), affine_file(tmp_path / "b.mat")]
    maps.append(field_file(tmp_path / "c.nii.gz", fixed, 2))
    found = applied(tmp_path / "out.nii.gz", *maps, "--to", "image", moving, "--like", fixed, "--outside", 0)
    assert np.abs(found - resampled(moving, fixed, maps)).max() < 1e-3
    other = resampled(moving, fixed, maps[::-1])
    assert np.abs(found - other).max() > 0.05  # the order matters here


def test_a_chain_of_three_is_what_ants_makes_of_it(tmp_path):
    ants = pytest.importorskip("ants", reason="antspyx is not installed")
    moving, fixed = (scan_file(tmp_path / f"{name}.nii.gz", seed=seed, tilt=0.2) for seed, name in enumerate("mf"))
    maps = [field_file(tmp_path / "a.nii.gz", fixed, 1), affine_file(tmp_path / "b.mat")]
    maps.append(field_file(tmp_path / "c.nii.gz", fixed, 2))
    found = applied(tmp_path / "out.nii.gz", *maps, "--to", "image", moving, "--like", fixed, "--outside", 0)
    images = [ants.image_read(str(path)) for path in (fixed, moving)]
    theirs = ants.apply_transforms(*images, transformlist=[*map(str, maps)], interpolator="linear").numpy()
    assert np.abs(found - theirs).max() < 1e-3


@pytest.mark.parametrize("ending", ["mat", "txt", "tfm", "h5"])
def test_itks_files_of_transforms_are_read(tmp_path, ending):
    path = affine_file(tmp_path / f"affine.{ending}")
    points = np.random.RandomState(0).uniform(-20, 20, (9, 3))
    expected = [sitk.ReadTransform(str(path)).TransformPoint(tuple(point)) for point in (points * [-1, -1, 1]).tolist()]
    assert np.allclose(read_map(path)(points), np.array(expected) * [-1, -1, 1], atol=1e-6)


def test_a_composite_file_is_the_chain_of_its_parts(tmp_path):
    fixed = scan_file(tmp_path / "fixed.nii.gz")
    parts = [affine_file(tmp_path / "a.mat"), field_file(tmp_path / "b.nii.gz", fixed)]
    sitk.WriteTransform(sitk.CompositeTransform([transform_of(path) for path in parts]), str(tmp_path / "both.h5"))
    points = np.random.RandomState(0).uniform(-8, 8, (50, 3))
    chain = Chain([read_map(path) for path in parts])
    assert np.allclose(read_map(tmp_path / "both.h5")(points), chain(points), atol=1e-4)


def test_labels_come_by_the_nearest_voxel_or_by_the_largest_share(tmp_path):
    fixed = scan_file(tmp_path / "fixed.nii.gz", shape=(20, 18, 16))
    labels = (np.indices(SHAPE[3]).sum(0) // 6).astype(np.uint8)
    path = save(tmp_path / "labels.nii.gz", labels, affine_of((0, 1, 2), "+++", SHAPE[3]))
    field = field_file(tmp_path / "field.nii.gz", fixed)
    command = [field, "--to", "labels", path, "--like", fixed]
    nearest = applied(tmp_path / "a.nii.gz", *command)
    assert (nearest == resampled(path, fixed, [field], sitk.sitkNearestNeighbor)).mean() > 0.999  # ties between voxels
    smooth = applied(tmp_path / "b.nii.gz", *command, "--smooth")
    shares = []
    for n in range(int(labels.max()) + 1):
        one = save(tmp_path / "one.nii.gz", (labels == n).astype(np.float32), nibabel.load(path).affine)
        shares.append(resampled(one, fixed, [field]))
    covered = np.sum(shares, 0) > 0
    assert (smooth == np.argmax(shares, 0))[covered].mean() > 0.999 and (smooth != nearest).any()


def test_a_slice_goes_through_a_field_of_two_components(tmp_path):
    drawn = [np.random.RandomState(k).rand(*shape).astype(np.float32) for k, shape in enumerate((SHAPE[2], (15, 19)))]
    moving = save(tmp_path / "m.nii.gz", drawn[0], np.diag([-1.5, 2, 1, 1]))
    fixed = save(tmp_path / "f.nii.gz", drawn[1], np.diag([-1.4, 1.9, 1, 1]))
    field = field_file(tmp_path / "field.nii.gz", fixed, components=2)
    found = applied(tmp_path / "out.nii.gz", field, "--to", "image", moving, "--like", fixed, "--outside", 0)
    assert np.abs(found.squeeze() - resampled(moving, fixed, [field])).max() < 1e-3


def test_there_and_back_is_home_for_points_and_the_inverse_of_a_chain_is_that_of_its_parts(tmp_path):
    fixed = scan_file(tmp_path / "fixed.nii.gz", tilt=0.1)
    paths = [affine_file(tmp_path / "a.txt"), field_file(tmp_path / "b.nii.gz", fixed, 4)]
    centre = affine_of((0, 1, 2), "+++", SHAPE[3], tilt=0.1) @ [*(np.array(SHAPE[3]) - 1) / 2, 1]
    points = centre[:3] + np.random.RandomState(0).uniform(-3, 3, (40, 3))
    chain = Chain([read_map(path) for path in paths])
    assert np.abs(chain.inverse()(chain(points)) - points).max() < 1e-3
    assert isinstance(read_map(paths[0]).inverse(), AffineMap)
    command = ["--to", "image", fixed, "--like", fixed]
    image = applied(tmp_path / "there.nii.gz", *paths, "--inverse", *command)
    inverted = Chain([read_map(path, inverse=True) for path in paths[::-1]])
    assert np.allclose(inverted(points), chain.inverse()(points)) and image.shape == SHAPE[3]


@pytest.mark.parametrize("kind", ["csv", "fcsv", "mrk.json"])
@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_landmarks_move_as_itk_moves_points_and_keep_what_else_their_file_says(tmp_path, kind, system, capsys):
    fixed = scan_file(tmp_path / "fixed.nii.gz")
    field = field_file(tmp_path / "field.nii.gz", fixed)
    points = np.random.RandomState(0).uniform(-4, 4, (6, 3))
    path, flip = tmp_path / f"points.{kind}", np.array([-1, -1, 1]) if system == "RAS" else np.ones(3)
    if kind == "csv":
        path.write_text("label,x,y,z\n" + "".join(f"p{i},{x},{y},{z}\n" for i, (x, y, z) in enumerate(points)))
    elif kind == "fcsv":
        rows = "".join(f"{i},{x},{y},{z},0,0,0,1,1,1,0,name\n" for i, (x, y, z) in enumerate(points))
        head = f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {system}\n# columns = id,x,y,z\n"
        path.write_text(head + rows)
    else:
        places = [{"label": f"p{i}", "position": point} for i, point in enumerate(points.tolist())]
        path.write_text(json.dumps({"markups": [{"coordinateSystem": system, "controlPoints": places}]}))
    options = ["--system", system] if kind == "csv" else []
    text = applied(tmp_path / f"out.{kind}", field, "--to", "points", path, *options)
    if kind == "mrk.json":
        found = [point["position"] for point in json.loads(text)["markups"][0]["controlPoints"]]
        assert json.loads(text)["markups"][0]["controlPoints"][3]["label"] == "p3"
    else:
        rows = [row for row in csv.reader(text.splitlines()) if not row[0].startswith("#") and row[1] != "x"]
        found = [[float(word) for word in row[1:4]] for row in rows]
    transform = transform_of(field)
    expected = np.array([transform.TransformPoint(tuple(point)) for point in (points * flip).tolist()]) * flip
    assert np.abs(np.array(found) - expected).max() < 1e-3
    assert system in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, told",
    [
        ("none.nii.gz --to points p.csv", "check the path"),
        ("field.nii.gz --to picture fixed.nii.gz", "KIND is image, labels or points"),
        ("field.nii.gz --to image fixed.nii.gz", "give --like FIXED"),
        ("fixed.nii.gz --to image fixed.nii.gz --like fixed.nii.gz", "displacement field has the shape"),
        ("broken.mat --to image fixed.nii.gz --like fixed.nii.gz", "a transform that ITK reads"),
        ("field.nii.gz --to points words.csv", "rows with three numbers"),
        ("field.nii.gz --to points fixed.nii.gz", "landmarks are in a file of"),
    ],
)
def test_what_cannot_be_applied_is_told_in_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    field_file(tmp_path / "field.nii.gz", scan_file(tmp_path / "fixed.nii.gz"))
    (tmp_path / "broken.mat").write_text("no transform")
    (tmp_path / "words.csv").write_text("x,y,z\none,two,three\n")
    assert main(["apply", *words.split(), "--out", "out.nii.gz"]) != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and told in said[0] and not (tmp_path / "out.nii.gz").exists()
