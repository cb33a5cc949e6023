"""The affine stage: a known map between two scans is found again, from any distance and orientation."""

import warnings
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from regkit import data, images, losses, metrics
from regkit.data.brains import BrainPairs
from regkit.images import itk
from regkit.images.content import bounding_box
from regkit.tools import register
from regkit.tools.methods import make_method

TURN = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.15, -0.1, 0.2) * [1.08, 0.95, 1.0], [3.0, -2.0, 1.0])


def drawn(shape, spacing, origin=(0.0, 0.0, 0.0)):
    """Shapes with a margin, placed in space."""
    pair = data.synthetic_pair(len(shape), 2, size=[size - 8 for size in shape])
    image = torch.nn.functional.pad(pair.moving, [4, 4] * len(shape))
    grid = images.Grid((*shape, 1)[:3], nibabel.affines.from_matvec(np.diag([*spacing, 1.0][:3]), origin))
    return images.Scan(image, grid, grid)


def error(found, truth, grid, axes=(0, 1, 2)):
    """Mean distance in mm over the middle of a grid."""
    places = np.stack(np.meshgrid(*(np.linspace(size / 4, 3 * size / 4, 5) for size in grid.shape), indexing="ij"))
    points = grid.affine @ np.vstack([places.reshape(3, -1), np.ones(125)])
    return np.linalg.norm((found @ points - truth @ points)[list(axes)], axis=0).mean()


@pytest.mark.parametrize("offset", [(4.0, -3.0, 2.0), (300.0, -200.0, 150.0)])
def test_a_known_map_is_found_from_any_distance(offset):
    fixed = drawn((36, 33, 40), (1.5, 1.5, 1.2), (-20.0, 30.0, 5.0))
    middle = nibabel.affines.from_matvec(np.eye(3), (fixed.affine @ [18, 16, 20, 1])[:3])
    truth = nibabel.affines.from_matvec(np.eye(3), offset) @ middle @ TURN @ np.linalg.inv(middle)
    turned = np.array([[0, -1.3, 0, 0], [0, 0, 1.1, 0], [1.4, 0, 0, 0], [0, 0, 0, 1.0]])  # other axes, other spacing
    grid = images.Grid((50, 55, 60), turned)
    shift = (truth @ middle)[:3, 3] - (turned @ [25, 27, 30, 1])[:3]
    grid = images.Grid(grid.shape, nibabel.affines.from_matvec(np.eye(3), shift) @ turned)
    moving = images.resample(fixed, grid, through=np.linalg.inv(truth))
    found = register.align(moving, fixed, steps=60)
    assert error(np.eye(4), truth, fixed.grid) > 3
    assert error(found, truth, fixed.grid) < 0.4


def test_slices_are_aligned_in_their_plane():
    fixed = drawn((44, 37), (1.5, 1.2), (10.0, -4.0, 7.0))
    truth = np.eye(4)
    truth[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    truth[:2, 3] = [13.0, -6.0]
    moving = images.resample(fixed, images.Grid((60, 60, 1), np.diag([1.5, 1.5, 1, 1])), through=np.linalg.inv(truth))
    found = register.align(moving, fixed, steps=60)
    assert error(np.eye(4), truth, fixed.grid, (0, 1)) > 5
    assert error(found, truth, fixed.grid, (0, 1)) < 0.4


def test_scans_apart_are_told():
    fixed = drawn((21, 18, 17), (1.0, 1.0, 1.0))
    apart = images.Scan(fixed.tensor, fixed.grid.cropped((500, 0, 0), (21, 18, 17)), fixed.grid)
    register.check_overlap(fixed, fixed)
    with pytest.raises(ValueError, match="centres are 500 mm apart"):
        register.check_overlap(apart, fixed)
    shift = np.eye(4)
    shift[0, 3] = 500
    register.check_overlap(apart, fixed, shift)


def test_a_map_that_lost_its_way_is_refused():
    fixed = drawn((21, 18, 17), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="within a factor of 4"):
        register.align(fixed, fixed, similarity=lambda warped, fixed: warped.mean() - fixed.mean(), steps=300)


def labelled(affine, shape=(12, 10, 8)):
    values = torch.zeros(1, 1, *shape, dtype=torch.int64)
    values[..., 3:9, 3:7, 2:6] = 1
    grid = images.Grid(shape, affine)
    return images.Scan(values, grid, grid)


OFF = {"a header lost": np.eye(4), "20 mm off": np.diag([2.0, 2, 2, 1]) + np.outer([20, 0, 0, 0], [0, 0, 0, 1])}


@pytest.mark.parametrize("affine", OFF.values(), ids=OFF)
def test_labels_of_the_scans_size_that_lie_elsewhere_are_refused(affine):
    scan = labelled(np.diag([2.0, 2, 2, 1]))
    with pytest.raises(ValueError, match=r"up to \d+.* mm and 0 degrees apart"):
        register.check_label_grids([labelled(affine), scan], [scan, scan])


def test_labels_at_their_own_places_are_read_there_and_told():
    scan = labelled(np.diag([2.0, 2, 2, 1]))
    turned = images.Grid(scan.grid.shape, np.diag([-2.0, 2, 2, 1]) + np.outer([22, 0, 0, 0], [0, 0, 0, 1]))
    mirrored = images.Scan(scan.tensor.flip(2), scan.grid, turned)
    finer = images.resample(scan, scan.grid.with_spacing(1.0))
    finer = images.Scan(finer.tensor, finer.grid, finer.grid)
    with warnings.catch_warnings(action="error"):
        register.check_label_grids([scan, scan], [scan, scan])
    for label, degrees in ((mirrored, 180), (finer, 0)):
        with pytest.warns(UserWarning, match=rf"the moving labels .* mm and {degrees} degrees apart"):
            register.check_label_grids([label, scan], [scan, scan])


def test_thin_structures_side_by_side_overlap():
    grid = images.Grid((40, 40, 12), np.diag([2.0, 2, 2, 1]))
    image = torch.zeros(1, 1, *grid.shape)
    scans = []
    for start in (18, 20, 34):
        vessel = image.clone()
        vessel[:, :, start : start + 2, 20] = 900  # 0.1 % of the voxels
        scans.append(images.normalise(images.Scan(vessel, grid, grid)))
    assert all(scan.tensor.max() == 1 and scan.tensor.min() == 0 for scan in scans)
    register.check_overlap(scans[0], scans[1])
    with pytest.raises(ValueError, match="must overlap"):
        register.check_overlap(scans[0], scans[2])


def test_images_of_few_grey_levels_are_no_labels():
    pair = data.synthetic_pair(3, 2, size=(30, 28, 26))
    grid = images.Grid(tuple(pair.fixed.shape[2:]), np.eye(4))
    counts = torch.poisson(8 * pair.fixed, generator=torch.Generator().manual_seed(0))
    smooth = torch.linspace(0, 1, 30).reshape(1, 1, 30, 1, 1).expand_as(pair.fixed)
    for image in (counts, (40 * smooth).round(), 16 * (16 * smooth).round()):
        assert not register.looks_like_labels(images.Scan(image, grid, grid))
    for labels in (pair.fixed_labels, pair.fixed_labels > 0, pair.fixed_labels * 17 % 60):
        assert register.looks_like_labels(images.Scan(labels.float(), grid, grid))


# ---------------------------------------------------------------------------------------------- laws of a pair

MILLIMETRES = 0.3  # how far the maps of one pair in two files may be apart


def anatomy(shape, spacing, moved=0.0, shift=0.0):
    """A head of structures, and its labels, on a grid about `shift` voxels; moved: how far its parts moved, mm."""
    dim = len(shape)
    affine = nibabel.affines.from_matvec(np.diag([*[spacing] * dim, 1.0][:3]), np.zeros(3))
    affine[:dim, 3] = spacing * (shift - (np.array(shape) - 1) / 2)
    grid = images.Grid((*shape, 1)[:3], affine)
    ramps = (spacing * (np.arange(size) + shift - (size - 1) / 2) for size in shape)
    places = np.stack(np.meshgrid(*ramps, indexing="ij"), -1)
    places = places - moved * (np.array([1.0, -0.7, 0.5][:dim]) + 0.8 * np.sin(places[..., ::-1] / 9))
    far = np.sqrt((places**2 / np.array([18.0, 22.0, 17.0][:dim]) ** 2).sum(-1))
    image = 0.45 / (1 + np.exp(np.clip(12 * (far - 1), -50, 50)))
    labels = np.zeros(shape, np.int64)
    for number, (at, size, grey) in enumerate(((8, 5, 0.4), (-8, 6, -0.3), (0, 5, 0.3), (-3, 4, 0.5)), 1):
        centre = np.array([at, (12, 6, -12, -4)[number - 1], (4, -5, 3, 6)[number - 1]][:dim])
        apart = ((places - centre) ** 2).sum(-1)
        image = image * (1 + 2 * grey * np.exp(-apart / size**2 / 2))
        labels[apart < size**2] = number
    tensors = (torch.from_numpy(each)[None, None] for each in (image.astype(np.float32), labels))
    return [images.Scan(tensor, grid, grid) for tensor in tensors]


def changed(scan, kind):
    """The same scan in another file."""
    grid = scan.grid
    if kind == "padded":
        wide = images.crop_or_pad(scan, [size + 20 for size in grid.space])
        return replace(wide, original=wide.grid)
    if kind == "cropped":
        box = bounding_box(images.foreground(images.normalise(scan)))
        box = np.clip(box + np.array([[-2], [2]]), 0, grid.space)
        grid = grid.cropped(box[0], box[1] - box[0])
        return images.Scan(scan.tensor[(..., *map(slice, *box))], grid, grid)
    if kind == "turned":
        affine = grid.affine @ np.diag([-1.0, 1, 1, 1]) + np.outer(
            grid.affine[:, 0] * (grid.shape[0] - 1), [0, 0, 0, 1]
        )
        turned = images.Grid(grid.shape, affine)
        return images.Scan(scan.tensor.flip(2), turned, turned)
    if kind == "rescaled":
        return scan.with_tensor(3000 * scan.tensor - 700)
    first, second, *_ = (torch.linspace(-1, 1, size) for size in grid.space)
    corner = torch.hypot(first[:, None], second).reshape(*grid.space[:2], *[1] * (len(grid.space) - 2)) > 1.15
    if kind == "not a number":
        return replace(scan, inside=(~corner).expand_as(scan.tensor).contiguous())
    return scan.with_tensor(torch.where(corner, float(kind), 1000 * scan.tensor))


def found_for(moving, fixed, **options):
    method = make_method("optimise", len(fixed.grid.space), steps=12, progress=False)
    return register.register_scans(moving, fixed, method, affine=True, progress=False, **options)


PAIRS = {"2D": ((52, 61), 1.0), "3D": ((23, 27, 22), 2.2)}


@pytest.fixture(scope="module", params=PAIRS, ids=PAIRS)
def laid(request):
    shape, spacing = PAIRS[request.param]
    moving, fixed = anatomy(shape, spacing, 3.0)[0], anatomy(shape, spacing)[0]
    return moving, fixed, found_for(moving, fixed)


@pytest.mark.parametrize(
    "kind", ["padded", "cropped", "turned", "half a voxel off", "rescaled", "not a number", -2000, -32768]
)
def test_the_same_pair_in_other_files_has_the_same_map(laid, kind):
    moving, fixed, clean = laid
    shape, spacing = fixed.grid.space, fixed.spacing[0]
    if kind == "half a voxel off":
        other = found_for(*(anatomy(shape, spacing, way, 0.5)[0] for way in (3.0, 0.0)))
    else:
        other = found_for(changed(moving, kind), changed(fixed, kind))
    again = itk.regrid(other.there, fixed.grid).displacement
    head = images.foreground(images.normalise(fixed))[0, 0]
    apart = (again - clean.there.displacement)[0, :, head].norm(dim=0) * spacing
    assert clean.there.displacement[0, :, head].norm(dim=0).quantile(0.5) * spacing > 2
    coarse = spacing / 3 if kind == "half a voxel off" else 0  # of 2.2 mm voxels other samples are another image
    assert apart.quantile(0.95) < max(MILLIMETRES, coarse)


def test_outside_a_mask_nothing_is_compared(laid):
    moving, fixed, clean = laid
    spoilt = moving.tensor.clone()
    mask = torch.ones_like(spoilt, dtype=torch.int64)
    hole = (..., *(slice(size // 2 - 2, size // 2 + 4) for size in moving.grid.space))
    spoilt[hole], mask[hole] = 2.0, 0
    errors = []
    for seen in (moving.with_tensor(spoilt), register.with_mask(moving.with_tensor(spoilt), moving.with_tensor(mask))):
        apart = found_for(seen, fixed).there.displacement - clean.there.displacement
        errors.append(float(apart.norm(dim=1).mean()) * fixed.spacing[0])
    assert errors[1] < 0.45 * errors[0]
    with pytest.raises(ValueError, match="the mask with nothing"):
        register.with_mask(moving, moving.with_tensor(0 * mask))


def structures(found, moving_labels, fixed_labels):
    return np.mean(list(metrics.dice(found.warp(moving_labels).tensor, fixed_labels.tensor).values()))


def test_another_contrast_is_seen_and_served():
    subjects = BrainPairs(4, dim=2, size=(96, 84), aligned=False).subjects[2:]
    grid = images.Grid((96, 84, 1), np.diag([2.25, 2.25, 1, 1]))
    moving, fixed, *labels = (
        images.Scan(each, grid, grid) for each in [one.image for one in subjects] + [one.labels for one in subjects]
    )
    with warnings.catch_warnings(action="error"):
        same = found_for(moving, fixed)
    inverted = moving.with_tensor(torch.where(moving.tensor > 0.05, 1 - moving.tensor, 0.0))
    with pytest.warns(UserWarning, match="contrasts differ: lncc \\+ 2 mi: two contrasts"):
        other = found_for(inverted, fixed)
    reached = [structures(each, *labels) for each in (same, other)]
    assert reached[0] > 0.8 and reached[1] > 0.9 * reached[0]
    assert same.likeness.alike and "one contrast" in same.likeness.words
    asked = register.choose_likeness(inverted, fixed, "mi")
    assert asked.affine is losses.mutual_information and asked.words == "mi, as asked for"


def test_resolution_is_spent_on_the_content():
    moving, fixed = (changed(anatomy((40, 44, 40), 1.4, moved)[0], "padded") for moved in (2.0, 0.0))
    grids = [found_for(moving, fixed, budget=budget).here.grid for budget in (10**6, 8000, 4000)]
    extents = [np.array(grid.space) * grid.spacing for grid in grids]
    assert grids[0].spacing == pytest.approx(fixed.spacing) and np.prod(grids[0].space) < 0.4 * fixed.tensor.numel()
    for grid, budget in zip(grids[1:], (8000, 4000), strict=True):
        assert 0.85 * budget < np.prod(grid.space) <= budget
    assert np.allclose(extents[0], extents[2], atol=2.5)
    asked = found_for(moving, fixed, spacing=3.0, budget=10).here.grid
    assert asked.spacing == pytest.approx((3.0, 3.0, 3.0))
    with pytest.raises(ValueError, match="budget must be 1 voxel or more"):
        found_for(moving, fixed, budget=0)
