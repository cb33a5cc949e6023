"""The command line: from files to files, in any orientation; what is wrong is told in one line, and nothing is left."""

import hashlib
import html
import json
import re
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

import regkit
from regkit import data, fields, images, metrics, models
from regkit.__main__ import main
from regkit.commands import plainly
from regkit.images import itk
from regkit.tools import methods, register, report
from regkit.tools.methods import make_method
from regkit.types import Registration

FILES = {*report.FILES} - {"warped_labels.nii.gz"}


def command(*arguments):
    return main([str(argument) for argument in arguments])


def on_grid(tensor, grid):
    return images.Scan(tensor, grid, grid)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two scans with labels: fixed RAS and straight, moving LIP, oblique, with other voxels and far away."""
    folder = tmp_path_factory.mktemp("scans")
    pair = data.synthetic_pair(3, 2, size=(26, 23, 21), motion=0.5)
    padded = [torch.nn.functional.pad(each, [5] * 6) for each in (pair.moving, pair.fixed)]
    labels = [torch.nn.functional.pad(each, [5] * 6) for each in (pair.moving_labels, pair.fixed_labels)]
    fixed = images.Grid((36, 33, 31), nibabel.affines.from_matvec(np.diag([1.5, 1.5, 1.7]), (-20, 10, 5)))
    turn = nibabel.eulerangles.euler2mat(0.1, -0.15, 0.1)
    axes = turn @ np.array([[-1.3, 0, 0], [0, 0, 1.6], [0, -1.2, 0]])
    moving = images.Grid((55, 60, 50), nibabel.affines.from_matvec(axes, (0, 0, 0)))
    middle = [grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1] for grid in (fixed, moving)]
    through = np.eye(4)
    through[:3, 3] = 180.0, -90.0, 60.0
    moving.affine[:, 3] += through @ middle[0] - middle[1]
    for name, grid, number in (("fixed", fixed, 1), ("moving", moving, 0)):
        back = None if number else np.linalg.inv(through)
        image = images.resample(on_grid(500 * padded[number], fixed), grid, through=back)
        images.write_image(folder / f"{name}.nii.gz", on_grid(image.tensor, grid))
        label = images.resample(on_grid(labels[number], fixed), grid, through=back)
        images.write_labels(folder / f"{name}_labels.nii.gz", on_grid(label.tensor, grid))
    return folder


@pytest.fixture(scope="module")
def result(folder):
    """What `register` made of them."""
    out = folder / "out"
    scan_files = (folder / "moving.nii.gz", folder / "fixed.nii.gz")
    labels = ("--labels", folder / "moving_labels.nii.gz", folder / "fixed_labels.nii.gz")
    assert command("register", *scan_files, "--out", out, "--affine", *labels, "--method", "optimise") == 0
    return out


def test_two_scans_are_registered_from_anywhere(result, folder):
    assert {path.name for path in result.iterdir()} == FILES | {"warped_labels.nii.gz"}
    numbers = json.loads((result / "metrics.json").read_text())
    dice = numbers["dice"]["mean"]
    assert dice["before"] < 0.05 and dice["affine"] > 0.4 and dice["after"] > max(0.75, dice["affine"] + 0.03)
    assert set(numbers["dice"]) == {"mean", "1", "2", "3"}
    assert numbers["correlation"]["after"] > 0.95 and numbers["folds_percent"] < 0.5
    assert numbers["seconds"] > 0 and numbers["peak_memory_mb"] > 50
    for name in ("warped", "jacobian", "warped_labels"):
        assert np.allclose(nibabel.load(result / f"{name}.nii.gz").affine, nibabel.load(folder / "fixed.nii.gz").affine)
    truth, warped = map(images.read_labels, (folder / "fixed_labels.nii.gz", result / "warped_labels.nii.gz"))
    assert np.mean(list(metrics.dice(warped.tensor, truth.tensor).values())) == pytest.approx(dice["after"], abs=1e-3)


def test_itk_applies_the_fields_that_are_written(result, folder):
    scan_files = {name: SimpleITK.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("moving", "fixed")}
    for field, warped, onto in (("displacement", "moving", "fixed"), ("inverse_displacement", "fixed", "moving")):
        read = SimpleITK.ReadImage(str(result / f"{field}.nii.gz"), SimpleITK.sitkVectorFloat64)
        moved = SimpleITK.DisplacementFieldTransform(read)
        theirs = SimpleITK.Resample(scan_files[warped], scan_files[onto], moved, SimpleITK.sitkLinear, 0.0)
        theirs, truth = SimpleITK.GetArrayFromImage(theirs), SimpleITK.GetArrayFromImage(scan_files[onto])
        assert np.corrcoef(theirs.ravel(), truth.ravel())[0, 1] > 0.95
        if onto == "fixed":
            ours = nibabel.load(result / "warped.nii.gz").get_fdata().T
            assert np.abs(theirs - ours).mean() < 0.01 * ours.std()


def test_itks_transforms_are_the_displacement(result, folder):
    field = SimpleITK.ReadImage(str(result / "displacement.nii.gz"), SimpleITK.sitkVectorFloat64)
    composite, affine = (SimpleITK.ReadTransform(str(result / name)) for name in ("composite.h5", "affine.tfm"))
    voxels = (9.3, 8.0, 7.5), (20.0, 17.7, 15.0), (1.0, 2.0, 3.0)
    places = [*map(field.TransformContinuousIndexToPhysicalPoint, voxels)]
    moved = SimpleITK.DisplacementFieldTransform(field)  # and the field is empty
    ends, again, near = (np.array([*map(each.TransformPoint, places)]) for each in (moved, composite, affine))
    assert np.abs(ends - again).max() < 1e-3 and 0.1 < np.abs(ends - near).max() < 20
    beyond = composite.TransformPoint((900.0, 0, 0))  # where there is no field, the affine map goes on
    assert np.allclose(beyond, affine.TransformPoint((900.0, 0, 0)))
    through = np.array(json.loads((result / "metrics.json").read_text())["affine_matrix_mm"])
    assert np.allclose(through[:3, :3] * np.outer([-1, -1, 1], [-1, -1, 1]), np.reshape(affine.GetMatrix(), (3, 3)))
    points = "x,y,z\n" + "\n".join(",".join(map(str, place)) for place in places)
    (folder / "points.csv").write_text(points)
    for name in ("displacement.nii.gz", "composite.h5"):
        to = ("--to", "points", folder / "points.csv", "--out", folder / "moved.csv")
        assert command("apply", result / name, *to) == 0
        assert np.abs(np.loadtxt(folder / "moved.csv", delimiter=",", skiprows=1) - ends).max() < 1e-3


def test_other_scans_go_through_the_same_map(tmp_path, folder, capsys):
    moving, out = folder / "moving.nii.gz", tmp_path / "out"
    names = ("register", moving, folder / "fixed.nii.gz", "--affine", "--method", "none", "--out", out)
    twin, labels = tmp_path / "twin.nii.gz", folder / "moving_labels.nii.gz"
    twin.write_bytes(moving.read_bytes())
    both = (folder / "moving_labels.nii.gz", folder / "fixed_labels.nii.gz")
    assert command(*names, "--also", twin, "--also", labels, "--labels", *both) == 0
    assert np.array_equal(*(nibabel.load(out / f"{name}.nii.gz").dataobj for name in ("warped_twin", "warped")))
    warped = [nibabel.load(out / f"{name}.nii.gz").dataobj for name in ("warped_moving_labels", "warped_labels")]
    assert np.array_equal(*warped) and warped[0].dtype == np.uint8
    assert command(*names, "--also", f"image={labels}", "--no-composite") == 0
    assert {path.name for path in out.iterdir()} == FILES - {"composite.h5"} | {"warped_moving_labels.nii.gz"}
    assert nibabel.load(out / "warped_moving_labels.nii.gz").get_data_dtype() == np.float32
    elsewhere = tmp_path / "elsewhere.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(moving).dataobj), np.eye(4)), elsewhere)
    wrongs = {elsewhere: "must be on the grid of their scan", out / "labels.nii.gz": "a name of its own"}
    for wrong, words in wrongs.items():
        assert command(*names, "--also", wrong) == 1
        assert words in capsys.readouterr().err
    assert (out / "metrics.json").exists()


def test_numbers_say_where_they_come_from(result, folder):
    numbers = json.loads((result / "metrics.json").read_text())
    run, moving = numbers["run"], folder / "moving.nii.gz"
    digest = hashlib.sha256(moving.read_bytes()).hexdigest()
    assert run["inputs"]["moving"] == {"file": str(moving), "bytes": moving.stat().st_size, "sha256": digest}
    assert set(run["inputs"]) == {"moving", "fixed", "moving_labels", "fixed_labels"}
    assert run["options"]["affine"] is True and run["command"].startswith("python -m regkit register")
    assert run["regkit"] == regkit.__version__ and run["torch"] == torch.__version__ and run["threads"] >= 1
    assert numbers["files"] == sorted(path.name for path in result.iterdir())
    assert set(numbers["maps"]) - {"affine_matrix_mm"} < set(numbers["files"]) and numbers["units"]["seconds"] == "s"


def test_without_simpleitk_the_composite_alone_is_missing(tmp_path, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    fixed = folder / "fixed.nii.gz"
    assert command("register", fixed, fixed, "--method", "none", "--out", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - {"composite.h5"}
    told = capsys.readouterr().err
    assert "composite.h5 is left out" in told and 'pip install "regkit-registration[itk]".' in told


def test_the_page_shows_all_planes_and_needs_nothing_else(result):
    text = (result / "report.html").read_text()
    assert text.count("data:image/png;base64,") >= 3 * 9 + 2
    assert all(word in text for word in ("Sagittal", "Coronal", "Axial", "Dice of label", "folded voxels"))
    assert not re.search(r"(src|href)=.?https?:|<script", text)


def test_a_page_lies_in_a_frame_whole(result):
    text = (result / "report.html").read_text()
    (inside,) = re.findall(r'srcdoc="([^"]*)"', report.framed(text, height=300))
    assert html.unescape(inside) == text


def store_slice(path, shape, seed, file_shape=None):
    pair = data.synthetic_pair(2, seed, size=shape, motion=0.2)
    grid = images.Grid(file_shape or shape, np.diag([1.5, 0.8, 1, 1]))
    images.write_image(path.with_name(f"fixed_{path.name}"), on_grid(pair.fixed, grid))
    images.write_image(path, on_grid(pair.moving, grid))
    return pair


@pytest.mark.parametrize("file_shape", [None, (39, 44, 1)])
def test_slices_are_registered_with_a_network_of_any_weights(tmp_path, file_shape):
    pair = store_slice(tmp_path / "scan.nii", (39, 44), 2, file_shape)
    torch.manual_seed(0)
    model = models.VoxelMorph(2, encoder_channels=(8, 8), decoder_channels=(8, 8, 8), output="velocity")
    regkit.train(model, [pair], regkit.training.Recipe(steps=60, learning_rate=3e-3), progress=False)
    regkit.save(model, tmp_path / "weights.safetensors", metrics={"dice": 0.5})
    scan_files = (tmp_path / "scan.nii", tmp_path / "fixed_scan.nii")
    weights = ("--weights", tmp_path / "weights.safetensors")
    assert command("register", *scan_files, "--out", tmp_path / "out", *weights, "--refine", 5) == 0
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["method"] == "voxelmorph" and numbers["refine_steps"] == 5
    assert numbers["correlation"]["after"] > numbers["correlation"]["before"]
    found = itk.read_displacement(tmp_path / "out" / "displacement.nii.gz").displacement
    with torch.no_grad():
        alone = model.eval()(pair.moving, pair.fixed).displacement
    assert (found - alone).abs().mean() < 0.7 and found.abs().max() > 1  # refined, not replaced
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Axial plane" in text and "L on the left, R on the right, A on top" in text
    assert command("register", *scan_files, "--out", tmp_path / "two", *weights, "--refine-weights", 3) == 0


def test_a_network_sees_the_voxels_it_was_trained_on(folder):
    moving, fixed = (images.read_image(folder / f"{name}.nii.gz") for name in ("moving", "fixed"))
    seen = []

    def run(one, other):
        seen.append(tuple(other.shape[2:]))
        return Registration(torch.full((1, 3, *other.shape[2:]), 0.5))

    method = with_run(run)
    object.__setattr__(method, "spacing", 3.0)
    found = register.register_scans(moving, fixed, method, affine=True)
    extent = np.array(found.here.grid.space) * found.here.spacing  # of the box around both contents
    assert np.allclose(np.array(seen) * 3.0, extent, atol=1.6)
    assert (extent < np.multiply((36, 33, 31), fixed.spacing)).all()
    assert found.here.spacing == pytest.approx(fixed.spacing)
    millimetres = found.found.displacement[0].flatten(1).mean(1) * torch.tensor(fixed.spacing)
    assert torch.allclose(millimetres, torch.tensor([1.5, 1.5, 1.5]), atol=0.05)
    assert torch.allclose(found.found.inverse, -found.found.displacement, atol=0.02)


@pytest.mark.filterwarnings("ignore:the inverse was not reached")  # SACB-Net folds before it is trained
@pytest.mark.parametrize("name", models.__all__)
def test_every_network_takes_sizes_that_do_not_divide(tmp_path, folder, name):
    torch.manual_seed(0)
    regkit.save(getattr(models, name)(3), tmp_path / "weights.safetensors")
    scan_files = (folder / "moving.nii.gz", folder / "fixed.nii.gz")
    arguments = ("--affine", "--weights", tmp_path / "weights.safetensors", "--out", tmp_path / "out")
    assert command("register", *scan_files, *arguments) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["method"] == name.lower()
    assert nibabel.load(tmp_path / "out" / "warped.nii.gz").shape == (36, 33, 31)


def test_too_large_for_the_memory_says_what_fits(folder):
    fixed = images.read_image(folder / "fixed.nii.gz")

    def run(one, other):
        if other.numel() > 3_000:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return Registration(torch.zeros(1, 3, *other.shape[2:]))

    method = with_run(run)
    with pytest.raises(MemoryError, match=r"\(\d+, \d+, \d+\) fits \(tried\): give --spacing \d\.\d") as caught:
        register.register_scans(fixed, fixed, method)
    spacing = float(re.search(r"--spacing (\d\.\d+)", str(caught.value))[1])
    register.register_scans(fixed, fixed, method, spacing=spacing)
    object.__setattr__(method, "run", lambda one, other: (_ for _ in ()).throw(RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        register.register_scans(fixed, fixed, method)


def refused(capsys, words, *arguments):
    """A command that fails in one line, and leaves nothing behind."""
    assert command(*arguments) == 1
    said = capsys.readouterr().err
    assert re.search(words, said) and said.startswith("regkit: ") and "Traceback" not in said, said


def test_bad_scans_are_told_in_one_line(tmp_path, folder, capsys, monkeypatch):
    monkeypatch.setattr(methods, "WEIGHTS", tmp_path)
    moving, fixed, labels = (folder / f"{name}.nii.gz" for name in ("moving", "fixed", "moving_labels"))
    out, none, twice = ("--out", tmp_path / "out"), ("--method", "none"), ("--labels", labels, labels)
    grid = images.Grid((12, 11, 10), np.diag([2.0, 2.0, 2.0, 1]))
    values = np.random.RandomState(0).rand(12, 11, 10).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) + 0.3 * np.eye(4, k=1)), tmp_path / "sheared.nii")
    images.write_image(tmp_path / "constant.nii", on_grid(torch.full((1, 1, 12, 11, 10), 7.0), grid))
    images.write_image(tmp_path / "slice.nii", on_grid(torch.rand(1, 1, 12, 11), images.Grid((12, 11), np.eye(4))))
    (tmp_path / "text.nii").write_text("no image")
    cases = {
        "must overlap.*apart.*--affine": (moving, fixed, *none),
        "received moving that holds labels": (labels, fixed, "--affine"),
        "received fixed that holds labels": (moving, labels, "--affine"),
        "must vary": (fixed, tmp_path / "constant.nii", *none),
        "both be volumes or both slices": (tmp_path / "slice.nii", fixed, *none),
        "a scan is read from": (fixed, tmp_path / "text.nii", *none),
        "check the path": (fixed, tmp_path / "missing.nii", *none),
        "ships none for sitreg in 3D.*--weights.*optimise": (fixed, fixed, "--method", "sitreg"),
        "labels must be on the grid.*in the order moving, fixed": (moving, fixed, *none, "--affine", *twice),
        "of 1 volume and volume=3": (moving, fixed, *none, "--volume", 3),
        "the fixed scan: an image must vary": (fixed, tmp_path / "constant.nii", *none, "--affine"),
        "at right angles": (fixed, tmp_path / "sheared.nii", *none),
        "0 or more": (fixed, fixed, *none, "--refine", -1),
        "only a network's weights": (fixed, fixed, *none, "--refine-weights", 2),
        "voxels must be from": (fixed, fixed, *none, "--spacing", 0),
    }
    for words, arguments in cases.items():
        refused(capsys, words, "register", *arguments, *out)
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Registers a small pair with some options; the numbers, and those without."""
    work = tmp_path_factory.mktemp("compared")
    grid, pair = images.Grid((18, 17, 16), np.diag([2.0, 2, 2, 1])), data.synthetic_pair(3, 0, size=(18, 17, 16))
    mask = torch.ones(1, 1, *grid.space, dtype=torch.int64)
    mask[..., 8:] = 0
    for name, image in (("moving", pair.moving), ("fixed", pair.fixed)):
        images.write_image(work / f"{name}.nii", on_grid(image, grid))
    images.write_labels(work / "mask.nii", on_grid(mask, grid))

    def numbers(*options):
        options = (work / "mask.nii" if option == "mask" else option for option in options)
        scans = work / "moving.nii", work / "fixed.nii"
        options = ("--out", work / "out", "--no-composite", "--method", "none", "--refine", 1, *options)
        assert command("register", *scans, *options) == 0
        return report.read_numbers(work / "out")

    return numbers, numbers()


@pytest.mark.parametrize("options", [("--moving-mask", "mask"), ("--fixed-mask", "mask"), ("--window", 0.1, 0.6)])
def test_what_is_not_to_be_seen_is_not_compared(compared, options):
    numbers, plain = compared
    assert abs(numbers(*options)["correlation"]["before"] - plain["correlation"]["before"]) > 1e-3


def test_likeness_and_voxels_are_chosen(compared):
    numbers, plain = compared
    chosen = numbers("--similarity", "mi", "--budget", 800)
    assert chosen["similarity"] == "mi, as asked for" != plain["similarity"]
    assert 500 < np.prod(chosen["grid"]) <= 800 < np.prod(plain["grid"])


def test_a_volume_is_chosen_where_there_are_several(tmp_path, folder):
    image = nibabel.load(folder / "fixed.nii.gz")
    values = np.stack([0 * image.get_fdata(), image.get_fdata()], -1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, image.affine), tmp_path / "two.nii.gz")
    files = (tmp_path / "two.nii.gz", folder / "fixed.nii.gz")
    assert command("register", *files, "--method", "none", "--volume", 1, "--out", tmp_path / "out") == 0
    warped = nibabel.load(tmp_path / "out" / "warped.nii.gz")
    assert np.allclose(warped.get_fdata(), image.get_fdata(), atol=1e-3)


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path, folder, capsys, monkeypatch):
    arguments = ("register", folder / "fixed.nii.gz", folder / "fixed.nii.gz", "--method", "none", "--out")
    (tmp_path / "file").write_text("")
    refused(capsys, "exists|directory", *arguments, tmp_path / "file" / "out")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("regkit.tools.report.write_displacement", full)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text("{}")
    for out in ("new", "old"):
        refused(capsys, "No space left", *arguments, tmp_path / out)
    assert not (tmp_path / "new").exists() and [path.name for path in (tmp_path / "old").iterdir()] == ["metrics.json"]


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def test_an_interruption_leaves_nothing(tmp_path, folder, capsys, monkeypatch):
    monkeypatch.setattr("regkit.tools.register.register_scans", interrupted)
    fixed = folder / "fixed.nii.gz"
    assert command("register", fixed, fixed, "--method", "none", "--out", tmp_path / "out") == 130
    assert not (tmp_path / "out").exists() and "interrupted" in capsys.readouterr().err


def test_notes_are_one_line_too(tmp_path, folder, capsys):
    fixed, out = folder / "fixed.nii.gz", tmp_path / "out"
    values = images.read_image(fixed).tensor[0, 0].numpy().copy()
    values[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, nibabel.load(fixed).affine), tmp_path / "nan.nii")
    assert command("register", tmp_path / "nan.nii", fixed, "--method", "none", "--out", out) == 0
    said = capsys.readouterr().err
    assert "regkit: note: " in said and "1 NaN" in said and said.count("\n") == 1
    moved = itk.read_displacement(tmp_path / "out" / "displacement.nii.gz").displacement
    assert moved.abs().max() < 1e-4


@pytest.fixture
def dataset(tmp_path):
    grid = images.Grid((14, 13, 12), np.diag([2.0, 1.0, 1.5, 1]))
    for number in range(4):
        drawn = data.synthetic_pair(3, number, size=(14, 13, 12))
        for kind, tensor in (("images", drawn.fixed), ("labels", drawn.fixed_labels)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            write = images.write_image if kind == "images" else images.write_labels
            write(tmp_path / "data" / kind / f"s{number}.nii.gz", on_grid(tensor, grid))
    splits = {"test": [["s0", "s1"], ["s2", "s3"], ["s1", "s3"]], "train": ["s0", "s1"]}
    (tmp_path / "data" / "splits.json").write_text(json.dumps(splits))
    return tmp_path / "data"


def test_methods_are_compared_on_a_folder(tmp_path, dataset, capsys):
    model = models.VoxelMorph(3, encoder_channels=(4, 4), decoder_channels=(4, 4, 4))
    regkit.save(model, tmp_path / "small.safetensors")
    arguments = ("--method", "none", "affine", "--weights", tmp_path / "small.safetensors", "--refine", 3, "--cycle")
    assert command("evaluate", dataset, *arguments, "--out", tmp_path / "tables") == 0
    table = (tmp_path / "tables" / "summary.md").read_text()
    assert table in capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in table.splitlines()]
    assert rows == ["method", "---", "none", "affine", "small", "small + 3 steps"]
    for column in ("Dice", "HD95 (mm)", "ASSD (mm)", "folds (%)", r"std log \|J\|", "cycle", "seconds", "memory"):
        assert column in table.splitlines()[0]
    lines = (tmp_path / "tables" / "pairs.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 3 and lines[0].startswith("method,pair,dice,hd95,assd")
    assert (tmp_path / "tables" / "summary.csv").read_text().splitlines()[1].startswith("none,")


def test_methods_may_come_after_an_affine_map(dataset, capsys):
    assert command("evaluate", dataset, "--limit", 1, "--method", "none", "optimise", "--affine") == 0
    assert "| affine + optimise |" in capsys.readouterr().out


def test_a_benchmark_needs_no_folder(capsys):
    assert command("evaluate", "hollow", "--limit", 2, "--method", "none", "affine", "--reference", "affine") == 0
    assert "p of Dice against affine" in capsys.readouterr().out


def test_bad_evaluations_are_told(dataset, capsys, tmp_path):
    for words, source, options in (
        ("a folder or a benchmark", tmp_path / "nowhere", "--method none"),
        ("needs a method", dataset, ""),
        ("--reference must be one of none", dataset, "--method none --reference x"),
        ("splits.json", dataset, f"--split x --method none --out {tmp_path / 't'}"),
        ("name each method once", dataset, "--method none none"),
        ("name each method once", dataset, "--method none none --protocol paper"),
        ("with --protocol", dataset, "--method none --protocol paper --cycle"),
        ("1 or more pairs, received 0", "hollow", "--limit 0 --method none"),
        ("1 or more pairs, received -3", "hollow", "--limit -3 --method none"),
    ):
        refused(capsys, words, "evaluate", source, *options.split())
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("words", [("evaluate", "few"), ("register", "a.nii", "b.nii"), ("train", "spnet", "few")])
@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_at_once(words, device, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        command(*words, "--out", tmp_path / "out", "--device", device)
    assert caught.value.code == 2 and f"received '{device}'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_of_a_gpu_is_told(capsys):
    def run(chosen):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert plainly(run)(None) == 1
    assert "must fit into memory, received «CUDA out of memory»; " in capsys.readouterr().err


def with_run(run):
    method = make_method("none", 3)
    object.__setattr__(method, "run", run)
    return method


def test_a_shift_stays_a_shift_and_folds_are_shown():
    grid = images.Grid((20, 18, 16), np.diag([1.0, 1, 1, 1]))
    image = on_grid(data.synthetic_pair(3, 1, size=(20, 18, 16)).moving, grid)

    def shifted(one, other, fold=False):
        shift = torch.zeros(1, 3, *other.shape[2:])
        shift[:, 0] = 2
        if fold:
            shift[:, 0, other.shape[2] // 2] = 5.5
        return Registration(shift, -shift)

    found, shift = register.register_scans(image, image, with_run(shifted)), torch.zeros(1, 3, 20, 18, 16)
    shift[:, 0] = 2
    assert torch.allclose(found.warp(image).tensor[:, :, :-2], fields.warp(image.tensor, shift)[:, :, :-2], atol=1e-5)
    assert found.jacobian().tensor.sub(1).abs().max() < 1e-4
    assert "worst fold" not in report.page(found, found.jacobian(), {})
    folded = register.register_scans(image, image, with_run(lambda one, other: shifted(one, other, fold=True)))
    text = report.page(folded, folded.jacobian(), {"a < b": "c & d"})
    assert "through the worst fold" in text and re.search(r"[1-9]\d\d folded voxels here", text) and "a &lt; b" in text


def test_an_output_folder_holds_one_run(tmp_path):
    store_slice(tmp_path / "scan.nii", (24, 22), 2)
    moving, fixed, labels = tmp_path / "scan.nii", tmp_path / "fixed_scan.nii", tmp_path / "labels.nii"
    scan = images.read_image(fixed)
    images.write_labels(labels, scan.with_tensor((scan.tensor > 0.5).long()))
    arguments = ("register", moving, fixed, "--method", "none", "--out", tmp_path / "out")
    assert command(*arguments, "--labels", labels, labels) == 0
    (tmp_path / "out" / "notes.txt").write_text("of the user")
    assert (tmp_path / "out" / "warped_labels.nii.gz").exists() and command(*arguments) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"notes.txt"}
