"""The intake check: each prepared patient has its own symptom, a good file none; nothing makes it raise."""

import nibabel
import numpy as np
import pytest
import torch
from helpers.views import drive

from regkit import images
from regkit.course import patients
from regkit.course.lessons import t14_your_own_brain
from regkit.tools import examine

SHAPE = (31, 37, 29)
AILMENTS = {  # of each prepared patient: the rules that are not green, and how bad they are
    "good": {},
    "four volumes": {"one volume": "red"},
    "flipped": {"same way up": "red"},
    "spacing lost": dict.fromkeys(("field of view", "skull-stripped", "overlap", "same way up"), "amber"),
    "NaN": {"finite values": "amber"},
    "labels": {"an image": "red", "same way up": "amber"},
    "far away": {"overlap": "red"},
    "with its skull": {"skull-stripped": "amber"},
    "cut short": {"a whole file": "red"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return patients.write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def prepared(files, tmp_path_factory):
    return patients.write_patients(tmp_path_factory.mktemp("patients"), files.fixed, files.fixed_labels)


def bad(seen):
    return {finding.rule: finding.severity for finding in seen.findings if finding.severity != "green"}


def blob(shape=SHAPE):
    """A lopsided bright thing with nothing around it."""
    places = (np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2) / np.reshape(shape, (3, 1, 1, 1))
    inside = np.sqrt((places**2).sum(0)) < 0.36 + 0.25 * places[1] * (places[1] > 0)
    return (inside * (300 + 900 * np.random.default_rng(0).random(shape))).astype(np.int16)


def store(path, values=None, affine=None, **codes):
    """A file of a head: 5 mm, LPS, qform and sform."""
    affine = np.diag([-5.0, -4.5, 5.0, 1]) if affine is None else affine
    image = nibabel.Nifti1Image(blob() if values is None else values, affine)
    image.set_qform(affine, codes.get("qform", 1))
    image.set_sform(affine, codes.get("sform", 1))
    nibabel.save(image, path)
    return path


# ---------------------------------------------------------------------------------------------- the pair, the patients


def test_the_pair_is_whole_numbers_in_other_orientations_voxels_and_places(files):
    moving, fixed = images.read_image(files.moving), images.read_image(files.fixed)
    assert (moving.original.codes, fixed.original.codes) == ("LIA", "RAS")
    assert np.allclose(moving.spacing, 3) and np.allclose(fixed.spacing, 2.5)
    assert nibabel.load(files.moving).get_data_dtype() == np.int16 == nibabel.load(files.fixed).get_data_dtype()
    assert moving.tensor.max() > 4 * fixed.tensor.max()
    for scan, path in ((moving, files.moving_labels), (fixed, files.fixed_labels)):
        labels = images.read_labels(path)
        assert labels.grid.is_same(scan.grid) and len(torch.unique(labels.tensor)) == 19
        assert ((scan.tensor > 0) <= (labels.tensor > 0)).all()
        assert (labels.tensor > 0).flatten(2).any(2).all()
        for axis in (2, 3, 4):  # the brain is not cut off
            ends = labels.tensor.index_select(axis, torch.tensor([0, labels.tensor.shape[axis] - 1]))
            assert not ends.any()


def test_the_pair_is_the_same_each_time(files, tmp_path):
    again = patients.write_pair(tmp_path)
    assert again.moving.read_bytes() == files.moving.read_bytes()


def test_of_a_good_pair_all_is_green_but_the_distance(files):
    for path, other in ((files.moving, files.fixed), (files.fixed, files.moving)):
        seen = examine.examine(path, other)
        assert bad(seen) == {"overlap": "amber"} and seen.severity == "amber"
        assert [finding.rule for finding in seen.findings] == ["a whole file", *examine.RULES]


@pytest.mark.parametrize("name", AILMENTS)
def test_each_patient_has_its_own_symptom(prepared, files, name):
    seen = examine.examine(prepared[name], files.fixed)
    assert bad(seen) == AILMENTS[name]
    assert all(bool(finding.advice) == (finding.severity != "green") for finding in seen.findings)
    assert (seen.scan is None) == (name == "cut short")


def test_all_patients_are_there(prepared):
    assert set(prepared) == set(AILMENTS)


# ---------------------------------------------------------------------------------------------- rules, one by one


def test_a_head_that_is_well_is_green_without_another(tmp_path):
    seen = examine.examine(store(tmp_path / "scan.nii.gz"))
    assert bad(seen) == {} and seen.severity == "green"
    assert "LPS" in seen["axes"].found and seen["field of view"].found == "155 x 166 x 145 mm"


@pytest.mark.parametrize(
    ("size", "severity"), [(0.0, "red"), (1000.0, "red"), (0.01, "amber"), (9.0, "amber"), (2.0, "green")]
)
def test_voxel_sizes(tmp_path, size, severity):
    path = tmp_path / "scan.nii"
    store(path, affine=np.diag([2.0, 2, size or 2, 1]), sform=0)
    if not size:
        header = bytearray(path.read_bytes())
        header[76 + 4 * 3 : 76 + 4 * 4] = np.float32(0).tobytes()  # pixdim[3]
        path.write_bytes(header)
    found = examine.examine(path)["voxel size"]
    assert found.severity == severity


def test_thick_slices_are_noticed(tmp_path):
    found = examine.examine(store(tmp_path / "a.nii", affine=np.diag([1.0, 1, 4.5, 1])))["voxel size"]
    assert found.severity == "amber" and "thick" in found.advice


def test_headers_that_say_nothing_or_two_things(tmp_path):
    path = store(tmp_path / "a.nii", qform=0, sform=0)
    found = examine.examine(path)["place in space"]
    assert found.severity == "amber" and "neither" in found.found
    image = nibabel.load(store(tmp_path / "b.nii"))
    image.set_sform(np.diag([5.0, -4.5, 5.0, 1]), 1)
    nibabel.save(image, tmp_path / "c.nii")
    found = examine.examine(tmp_path / "c.nii")["place in space"]
    assert found.severity == "amber" and "300 mm apart" in found.found  # 2 x 5 mm x 30 voxels
    assert examine.examine(tmp_path / "b.nii")["place in space"].found == "qform and sform, which agree"


def test_sheared_axes_are_refused_as_itk_refuses_them(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 1] = 1.0
    assert examine.examine(store(tmp_path / "a.nii", affine=affine, qform=0))["axes"].severity == "red"


@pytest.mark.parametrize(
    "turned", [(slice(None), slice(None, None, -1)), (slice(None),) * 2 + (slice(None, None, -1),)]
)
def test_a_scan_that_was_turned_is_found_and_left_and_right_are_not(files, tmp_path, turned):
    values, grid = images.read_array(files.fixed, None, np.float32)
    path = store(tmp_path / "a.nii", values[turned].astype(np.int16), grid.affine)
    assert examine.examine(path, files.fixed)["same way up"].severity == "red"
    mirrored = store(tmp_path / "b.nii", values[::-1].astype(np.int16), grid.affine)
    assert examine.examine(mirrored, files.fixed)["same way up"].severity != "red"


def test_values(tmp_path):
    flat = examine.examine(store(tmp_path / "a.nii", np.full(SHAPE, 7, np.int16)))
    assert flat["intensities"].severity == "red" and "must vary" not in flat["intensities"].found
    hounsfield = np.where(blob() > 0, blob(), -1000).astype(np.int16)
    assert examine.examine(store(tmp_path / "b.nii", hounsfield))["intensities"].severity == "amber"
    nothing = examine.examine(store(tmp_path / "c.nii", np.full(SHAPE, np.nan, np.float32)))
    assert nothing["finite values"].severity == "red" and "skull-stripped" not in bad(nothing)


def test_an_other_scan_that_is_no_use_is_told(files, tmp_path):
    store(tmp_path / "flat.nii", np.full(SHAPE, 7, np.int16))
    store(tmp_path / "slice.nii", blob()[:, :, 14:15])
    for name, words in (("nowhere.nii", "cannot be read"), ("flat.nii", "constant"), ("slice.nii", "and a slice")):
        seen = examine.examine(files.fixed, tmp_path / name)
        assert bad(seen) == {"the other scan": "red"} and words in seen["the other scan"].found
    seen = examine.examine(tmp_path / "flat.nii", files.fixed)  # its own fault, told once
    assert [finding.rule for finding in seen.findings if finding.severity == "red"] == ["intensities"]


def test_the_fringe_of_a_brain_that_was_resampled_counts_as_empty(files, tmp_path):
    scan = images.read_image(files.fixed)
    turn = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.2, 0.1, -0.3))
    tilted = images.resample(scan, images.Grid(scan.grid.shape, turn @ scan.affine))
    images.write_image(tmp_path / "tilted.nii", tilted)
    counted = [examine.examine(path)["skull-stripped"].found for path in (files.fixed, tmp_path / "tilted.nii")]
    before, after = (float(words.split("; ")[1].split(" ml")[0]) for words in counted)
    assert before < after < 1.15 * before


# ---------------------------------------------------------------------------------------------- nothing makes it raise


def broken_files(folder):
    (folder / "text.nii").write_text("no scan")
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "directory.nii").mkdir()
    yield from (folder / "text.nii", folder / "empty.nii.gz", folder / "directory.nii", folder / "nowhere.nii")
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    yield store(folder / "colours.nii", colours)
    yield store(folder / "complex.nii", blob().astype(np.complex64))
    yield store(folder / "five.nii", np.zeros((5, 6, 7, 1, 3), np.float32))
    yield store(folder / "line.nii", np.zeros((5, 1, 1), np.int16))
    yield store(folder / "slice.nii", blob()[:, :, 14:15])
    yield store(folder / "plane.nii", blob()[:, :, 14])
    bad_affine = store(folder / "affine.nii")
    header = bytearray(bad_affine.read_bytes())
    header[280:296] = np.full(4, np.nan, np.float32).tobytes()  # srow_x
    bad_affine.write_bytes(header)
    yield bad_affine
    yield store(folder / "tiny.nii", np.arange(8, dtype=np.int16).reshape(2, 2, 2))


def test_it_never_raises_and_the_doctor_shows_all_of_them(tmp_path, files):
    paths = {path.name: path for path in broken_files(tmp_path)}
    for path in paths.values():
        for other in (None, files.fixed, tmp_path / "nowhere.nii", tmp_path / "slice.nii"):
            seen = examine.examine(path, other)
            assert seen.severity in ("amber", "red") and str(seen) and "<table" in seen._repr_html_()
            assert str(tmp_path) not in str(seen)
    view = t14_your_own_brain.doctor(paths, files.fixed)
    for name in paths:
        view.set(patient=name)
        assert name in view.caption.value
    assert view.errors == []


def test_what_is_shown_in_html_is_escaped(tmp_path):
    assert "&lt;b&gt;" in examine.examine(tmp_path / "<b>.nii")._repr_html_()


# ---------------------------------------------------------------------------------------------- the doctor


def test_what_the_controls_change(prepared, files):
    view = t14_your_own_brain.doctor({name: prepared[name] for name in ("good", "far away")}, files.fixed)
    planes = dict.fromkeys(["axis_0", "axis_1", "axis_2"], "picture")
    drive(view, {"patient": "both", "revealed": "both", **planes})
    assert all(control.description for control in view.controls.values())
    assert "image/png" in view._repr_mimebundle_() and "all is well" in view.caption.value
    view.set(patient="far away")
    assert "RED, overlap" in view.caption.value and "What to do" in view.caption.value


def test_without_a_picture_there_are_no_sliders(prepared):
    view = t14_your_own_brain.doctor({"cut short": prepared["cut short"]})
    assert list(view.controls) == ["revealed", "axis_0", "axis_1", "axis_2"]
    assert view.scene.hidden(view.state) == {"axis_0", "axis_1", "axis_2"}


def test_findings_can_be_hidden_and_the_files_names_do_not_tell(prepared, files):
    view = t14_your_own_brain.doctor({"one": prepared["flipped"]}, files.fixed)
    shown = view.scene.render(view.state)
    view.set(revealed=False)
    hidden = view.scene.render(view.state)
    assert hidden.shape == shown.shape and "RED" not in view.caption.value and "Look" in view.caption.value
    same = (hidden == shown).all((0, 2))
    assert same[: 2 * t14_your_own_brain._SIDE].all() and not same.all() and (hidden[:, ~same] == 255).all()
    assert not any(name.split()[0] in path.name for name, path in prepared.items())


def test_the_letters_are_where_the_body_is(tmp_path):
    """A mark at the right, front and top is drawn towards R, A and S, whatever the order of the file's axes."""
    for codes, signs in (("LIA", (-1, -1, 1)), ("RAS", (1, 1, 1))):
        order = [("LR", "PA", "IS").index(pair) for c in codes for pair in ("LR", "PA", "IS") if c in pair]
        affine = np.zeros((4, 4))
        affine[order, range(3)] = 5.0 * np.array(signs)
        affine[3, 3] = 1
        values = np.zeros((30, 30, 30), np.int16)
        mark = tuple(slice(22, 27) if sign > 0 else slice(3, 8) for sign in signs)
        values[mark] = 100
        scan = examine.examine(store(tmp_path / f"{codes}.nii", values, affine)).scan
        drawn = t14_your_own_brain.even_voxels(scan)
        assert np.argwhere(drawn > 0.5).mean(0) == pytest.approx([24, 24, 24], abs=1)
        picture = t14_your_own_brain.draw_planes(drawn, {f"axis_{axis}": 83 for axis in range(3)})
        sagittal = picture[: t14_your_own_brain._SIDE, : t14_your_own_brain._SIDE, 0]
        grey = (sagittal > 200) & (picture[: len(sagittal), : len(sagittal), 2] > 200)
        rows, columns = np.nonzero(grey[17:-17, 17:-17])
        assert rows.mean() < 70 and columns.mean() > 110  # up, and to the front


def test_a_doctor_needs_a_patient():
    with pytest.raises(ValueError, match="needs a file"):
        t14_your_own_brain.doctor({})


def test_scans_are_drawn_in_true_proportions(tmp_path):
    grid = images.Grid((20, 20, 10), np.diag([2.0, 2, 8, 1]))
    path = tmp_path / "thick.nii"
    images.write_image(path, images.Scan(torch.rand(1, 1, 20, 20, 10), grid, grid))
    assert t14_your_own_brain.even_voxels(examine.examine(path).scan).shape == (20, 20, 40)
