"""The affine stage: a known map between two scans is found again, from any distance and orientation."""

import warnings

import nibabel
import numpy as np
import pytest
import torch

from regkit import data, images
from regkit.tools import register

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
