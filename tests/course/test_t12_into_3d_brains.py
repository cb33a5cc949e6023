"""Tutorial 12's faulty files: only their affines are wrong, and the reference repairs them."""

import numpy as np
import pytest
import torch
from nibabel import aff2axcodes, load

from regkit.course import check
from regkit.course.check.t12_into_3d_brains import _DEALT, _stored, _true
from regkit.images import Grid, Scan, read_image, resample


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return check.faulty_files(tmp_path_factory.mktemp("files"))


def with_affine(path, affine):
    """The file's voxels with another affine, on the trusted scan's grid."""
    values = torch.from_numpy(load(path).get_fdata(dtype=np.float32))[None, None]
    grid = Grid(values.shape[2:], affine)
    return resample(Scan(values, grid, grid), check.trusted_scan()).tensor


@pytest.mark.parametrize("name", _DEALT)
def test_a_file_has_a_fault_in_its_affine_alone(files, name):
    trusted = check.trusted_scan()
    stored = load(files[name])
    assert np.allclose(stored.affine, _stored(name))
    assert np.array_equal(np.sort(stored.get_fdata(), None), np.sort(trusted.tensor.numpy().astype(float), None))
    assert torch.allclose(with_affine(files[name], _true(name)), trusted.tensor, atol=1e-5)
    wrong = resample(read_image(files[name]), trusted).tensor
    assert (wrong - trusted.tensor).abs().max() > 0.5


@pytest.mark.parametrize("name", _DEALT)
def test_any_affine_within_two_millimetres_is_right(name):
    near, far = check.repaired.reference(), check.repaired.reference()
    near[name][:3, 3] += (1.0, -1.5, 0.5)
    far[name][:3, 3] += (0.0, 4.0, 0.0)
    assert check.repaired(near).colour == "green" and check.repaired(far).colour == "red"


def test_the_capsule_is_to_the_right_and_has_no_twin():
    trusted = check.trusted_scan()
    assert "".join(aff2axcodes(trusted.affine)) == "RAS"
    bright = np.argwhere(trusted.tensor[0, 0].numpy() == 1) @ np.diag(trusted.spacing) + trusted.affine[:3, 3]
    beside = bright[np.abs(bright[:, 0]) > 75]
    assert len(beside) > 20 and (beside[:, 0] > 0).all()
