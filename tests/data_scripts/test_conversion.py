"""What the scripts write is what the papers describe: compared with nibabel and numpy, voxel by voxel."""

import json
import pickle
import struct
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from helpers import raw_datasets
from helpers.local_server import serving
from helpers.raw_datasets import MAKERS, save, served
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from data_scripts import abdomen, candi, copdgene, drive, ixi, lpba40, mindboggle, oai, oasis
from data_scripts.common import conversion
from data_scripts.common.command import main
from data_scripts.common.datasets import Case
from data_scripts.common.errors import DatasetError
from data_scripts.common.preparing import fetched
from regkit.images.folders import FolderPairs
from regkit.tools.tables import LPBA40, PROTOCOLS, measure, read_landmarks
from regkit.types import Registration

DATASETS = [module.DATASET for module in (abdomen, candi, copdgene, drive, ixi, lpba40, mindboggle, oai, oasis)]


@pytest.fixture
def prepared(tmp_path):
    """A function that prepares a small dataset and returns its folder and its raw files."""

    def prepare(name, *arguments):
        raw, site, folder = tmp_path / name / "raw", tmp_path / name / "site", tmp_path / name / "out"
        site.mkdir(parents=True)
        dataset = MAKERS[name](raw, site)
        with serving(site) as server:
            dataset = served(dataset, site, server.address)
            (variant,) = dataset.variants.values()
            given = [] if fetched(variant) else ["--from", str(site if any(site.iterdir()) else raw)]
            assert main(dataset, [str(folder), "--quiet", *given, *arguments]) == 0
        return folder, raw

    return prepare


def in_axes(path, codes):
    """A file's array and affine with its axes turned to `codes`."""
    image = nibabel.load(path)
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes))))
    return np.asarray(turned.dataobj), turned.affine


def raw_of(folder, pattern):
    (path,) = folder.rglob(pattern)
    image = nibabel.load(path)
    return np.asarray(image.dataobj), image.affine


def test_oasis_is_cropped_and_else_as_it_was(prepared):
    folder, raw = prepared("oasis")
    for name in ("OASIS_OAS1_0001_MR1", "OASIS_OAS1_0005_MR1"):
        for kind, file in (("images", "aligned_norm"), ("labels", "aligned_seg35")):
            found, affine = in_axes(folder / f"{kind}/{name}.nii.gz", "LIA")
            whole, whole_affine = raw_of(raw, f"{name}/{file}.nii.gz")
            assert np.allclose(found, whole[:, 3:-1, :-2], atol=1e-6)
            assert np.allclose(affine @ [0, 0, 0, 1], whole_affine @ [0, 3, 0, 1])
    splits = json.loads((folder / "splits.json").read_text())
    assert splits["train"] == ["OASIS_OAS1_0001_MR1", "OASIS_OAS1_0002_MR1"]  # by subjects.txt, not by name
    assert splits["validation"] == [["OASIS_OAS1_0004_MR1", "OASIS_OAS1_0003_MR1"]]


def test_abdomen_is_windowed_and_cropped(prepared):
    folder, raw = prepared("abdomen")
    found, affine = in_axes(folder / "images/AbdomenCTCT_0002.nii.gz", "LAS")
    whole, whole_affine = raw_of(raw, "imagesTr/AbdomenCTCT_0002_0000.nii.gz")
    assert np.allclose(found, (np.clip(whole, -1000, 1000)[:, :, 1:-1] + 1000) / 2000, atol=1e-6)
    assert np.allclose(affine @ [0, 0, 0, 1], whole_affine @ [0, 0, 1, 1])
    labels, _ = in_axes(folder / "labels/AbdomenCTCT_0002.nii.gz", "LAS")
    assert np.array_equal(labels, raw_of(raw, "labelsTr/AbdomenCTCT_0002_0000.nii.gz")[0][:, :, 1:-1])
    facts = json.loads((folder / "dataset.json").read_text())
    assert facts["labels"]["6"] == "liver" and "0007" not in "".join(facts["checksums"])


def test_mindboggle_is_scaled_and_cropped_and_keeps_its_cohorts_apart(prepared):
    folder, raw = prepared("mindboggle")
    found, _ = in_axes(folder / "images/NKI-RS-22-2.nii.gz", "LAS")
    whole, _ = raw_of(raw, "NKI-RS-22-2/t1weighted_brain.MNI152.nii.gz")
    assert np.allclose(found, whole[1:-1, 1:-1, :-1] / whole.max(), atol=1e-6)
    splits = json.loads((folder / "splits.json").read_text())
    assert splits == {
        "train": ["NKI-RS-22-1", "NKI-RS-22-2", "NKI-TRT-20-10"],
        "validation": [
            ["NKI-RS-22-1", "NKI-RS-22-2"],
            ["NKI-RS-22-1", "NKI-TRT-20-10"],
            ["NKI-RS-22-2", "NKI-TRT-20-10"],
        ],
        "test": ["OASIS-TRT-20-2", "OASIS-TRT-20-10"],
    }


def test_lpba40_goes_through_its_transforms_and_is_divided_by_white_matter(prepared):
    folder, raw = prepared("lpba40")
    found, affine = in_axes(folder / "images/S14.nii.gz", "LPS")
    assert np.allclose(affine @ [0, 0, 0, 1], [-2, -3, 0, 1])  # the first voxel that the crop leaves
    place = np.stack(np.meshgrid(*(np.arange(size) for size in found.shape), indexing="ij"), -1)
    place = place + np.array([2, 3, 0])
    truth = raw_datasets._brain(place)
    seen = found > 0
    inner = seen & np.pad(np.ones([size - 6 for size in seen.shape], bool), 3)
    ratio = found[inner] / truth[inner]
    assert inner.mean() > 0.2 and ratio.std() < 0.02 * ratio.mean()  # twice interpolated
    assert found[inner & (truth > 105)].mean() == pytest.approx(1, abs=0.1)
    labels, _ = in_axes(folder / "labels/S14.nii.gz", "LPS")
    packed = next(raw.rglob("S14.delineation.structure.label.hdr"))
    whole = conversion.read_analyze(packed, np.diag([-1.0, -1.0, 1.0, 1.0]), labels=True).tensor[0, 0].numpy()
    assert np.array_equal(labels, whole[2:-1, 3:-2, :-1])
    aligned, _ = prepared("lpba40-sacbnet")
    assert json.loads((folder / "splits.json").read_text())["test"] == [["S11", "S12"]]
    assert json.loads((aligned / "splits.json").read_text())["test"] == ["S11", "S12"]
    assert len(FolderPairs(aligned)) == 2  # both directions


def test_air_files_are_read_in_either_order_of_bytes(tmp_path, prepared):
    _, raw = prepared("lpba40")
    path = next(raw.rglob("*.air"))
    little = path.read_bytes()
    numbers = struct.unpack_from("<16d128s4I3d128s4I3d", little)
    for content in (little, struct.pack(">16d128s4I3d128s4I3d", *numbers)):
        path.write_bytes(content)
        air = lpba40.read_air(path)
        assert np.allclose(air.matrix, raw_datasets.AIR_MATRIX)
        assert air.sizes == raw_datasets.AIR_SIZES and air.cube == 0.9
    path.write_bytes(little[:300])
    with pytest.raises(DatasetError, match=r"must be an AIR file, received .* of 300 bytes"):
        lpba40.read_air(path)


def test_candi_is_stripped_and_keeps_28_structures(prepared):
    folder, _ = prepared("candi")
    labels, affine = in_axes(folder / "labels/HC_001.nii.gz", "RAS")
    image, _ = in_axes(folder / "images/HC_001.nii.gz", "RAS")
    assert set(np.unique(labels)) == {0, *candi.NAMES} and len(candi.NAMES) == 28
    assert np.allclose(np.diag(affine)[:3], 1.4) and image[labels > 0].mean() > 3 * image[0].mean()


def test_right_knees_are_mirrored_and_intensities_cut_at_percentiles(prepared):
    folder, raw = prepared("oai-full")
    for path in sorted((folder / "images").iterdir()):
        found, _ = in_axes(path, "AIR")
        whole, _ = raw_of(raw, path.name.replace(".nii.gz", "_image.nii.gz"))
        low, high = np.percentile(whole, [1, 99])
        expected = np.clip((whole - low) / (high - low), 0, 1)
        assert np.allclose(found, expected[:, :, ::-1] if "RIGHT" in path.name else expected, atol=1e-5)
    half, _ = prepared("oai")
    image = nibabel.load(next((half / "images").iterdir()))
    assert sorted(image.shape) == [5, 12, 12] and sorted(image.header.get_zooms()) == pytest.approx([0.72, 0.72, 1.4])
    splits = json.loads((half / "splits.json").read_text())
    assert len(splits["train"]) == 3 and len(splits["test"]) == 2 and len(splits["test"][0]) == 2


def test_knees_of_the_other_collection_have_four_labels(prepared):
    folder, _ = prepared("oai-spnet")
    numbers = [set(np.unique(nibabel.load(path).dataobj)) for path in (folder / "labels").iterdir()]
    assert len(numbers) == 5 and all(found - {0} == {1, 2, 3, 4} for found in numbers)
    images = [nibabel.load(path) for path in sorted((folder / "images").iterdir())]
    assert all(np.allclose(image.affine, images[0].affine) for image in images)  # one place for all
    arrays = np.stack([image.get_fdata().ravel() for image in images])
    assert np.corrcoef(arrays).min() > 0.7  # shifted and mirrored copies of one knee, laid on each other again


def test_landmarks_keep_their_distances(prepared):
    folder, raw = prepared("copdgene")
    pairs = FolderPairs(folder, "test")
    for index, name in ((0, "copd1"), (4, "copd5")):
        moving, fixed = (read_landmarks(folder, part) for part in pairs.names[index])
        nothing = Registration(torch.zeros(1, 3, *pairs[index].fixed.shape[2:]))
        rules = PROTOCOLS["gradicon/copdgene"]
        found = measure(rules, nothing, pairs[index], landmarks=(moving, fixed))
        points = [np.loadtxt(next(raw.rglob(f"{name}_300_{letter}BH_xyz_r1.txt"))) for letter in "ie"]
        _, across, along = copdgene.DIRLAB[name]
        distance = np.linalg.norm((points[0] - points[1]) * [across, across, along], axis=1)
        assert found["mTRE"] == pytest.approx((distance.mean(),), abs=1e-3)
        assert found["75 %"] == pytest.approx((np.percentile(distance, 75),), abs=1e-3)
        assert found["DICE"][0] > 99


def test_landmarks_are_counted_from_one_and_units_are_told_apart(prepared):
    _, raw = prepared("copdgene")
    small = MAKERS["copdgene"](raw / "again", raw / "nowhere").variants["paper"]
    scans = {}
    for name in ("copd1", "copd7"):  # of one spacing; one of them in Hounsfield units
        stored = next((raw / "dirlab").rglob(f"{name}_eBHCT.img"))
        points = next((raw / "dirlab").rglob(f"{name}_300_eBH_xyz_r1.txt"))
        if name == "copd7":
            stored.write_bytes((np.fromfile(stored, "<i2") - copdgene.OFFSET).tobytes())
        case = Case(f"{name}_exp", {"raw": stored, "points": points})
        scans[name] = copdgene.read_dirlab(case, small)
        first = np.loadtxt(points)[0].astype(int) - 1
        place = np.linalg.inv(scans[name].affine) @ [*copdgene.read_points(case, scans[name])[0], 1]
        assert np.allclose(place[:3], first)
    assert torch.equal(scans["copd1"].tensor, scans["copd7"].tensor) and scans["copd1"].tensor.min() == -1000
    save(raw / "mask.nii.gz", (scans["copd1"].tensor[0, 0].numpy() < -700).astype(np.int16), "RAS")
    mask = copdgene.read_mask(raw / "mask.nii.gz", scans["copd1"])
    assert torch.equal(mask.tensor != 0, scans["copd1"].tensor < -700)
    with pytest.raises(DatasetError, match="must have the size of its scan"):
        copdgene.read_mask(raw / "mask.nii.gz", conversion.centred(scans["copd1"], (9, 9, 9)))
    lungs = copdgene.find_lungs(scans["copd1"]).tensor
    inside = scans["copd1"].tensor[(scans["copd1"].tensor > -960) & (scans["copd1"].tensor < -700)]
    assert lungs.sum() == pytest.approx(len(inside), rel=0.2)


def test_retinas_are_inverted_averaged_and_deformed(prepared):
    folder, _ = prepared("drive")
    mask = raw_datasets.smooth((64, 61), 21) > 0.6
    blocks = mask[:64, :60].reshape(16, 4, 15, 4).mean((1, 3))
    moving, fixed = (
        np.squeeze(nibabel.load(folder / f"images/21_{role}.nii.gz").dataobj) for role in ("moving", "fixed")
    )
    assert np.allclose(moving, 1 - blocks, atol=1e-6)
    assert 0.02 < np.abs(moving - fixed).mean() < 0.3 and fixed.shape == (16, 15)
    splits = json.loads((folder / "splits.json").read_text())
    assert splits["train"] == [[f"{number}_moving", f"{number}_fixed"] for number in (21, 22, 23)]
    assert splits["train"] == splits["validation"] == splits["test"]


def test_ixi_is_renumbered_and_paired_with_the_atlas(prepared):
    folder, raw = prepared("ixi")
    image, labels = pickle.loads(next(raw.rglob("subject_10.pkl")).read_bytes())
    assert np.allclose(nibabel.load(folder / "images/subject_10.nii.gz").dataobj, image)
    found = np.asarray(nibabel.load(folder / "labels/subject_10.nii.gz").dataobj)
    assert np.array_equal(np.array(ixi.FREESURFER)[found], labels)
    splits = json.loads((folder / "splits.json").read_text())
    assert splits["train"] == [["atlas", "subject_0"], ["atlas", "subject_10"]] and len(splits["test"]) == 2
    unaligned, _ = prepared("ixi-unaligned")
    assert len(list((unaligned / "images").iterdir())) == 5  # of six


class Hostile:
    """Runs a program when it is unpickled."""

    def __reduce__(self):
        return (open, ("/tmp/should-never-be-written-by-a-pickle", "w"))


@pytest.mark.parametrize("content", [pickle.dumps(Hostile()), pickle.dumps((Hostile(), 1)), b"", b"junk", b"\x80\x04."])
def test_a_pickle_with_more_than_arrays_is_not_run(tmp_path, content):
    (tmp_path / "evil.pkl").write_bytes(content)
    with pytest.raises(DatasetError, match=r"pickle of two arrays and nothing else, received .*it was not run"):
        ixi.read_pickle(tmp_path / "evil.pkl")


def cases(count, prefix=""):
    return [Case(f"{prefix}{number:03d}", {}) for number in range(count)]


def test_splits_have_the_sizes_of_the_papers():
    names = {"train": 255, "validation": 190, "test": 9591}
    assert {k: len(v) for k, v in oasis.split(cases(414), None, oasis.ALIGNED).items()} == names
    brains = [Case(f"S{number:02d}", {}) for number in range(1, 41)]
    assert [len(v) for v in lpba40.split(brains, None, lpba40.SITREG).values()] == [25, 10, 45]
    assert [len(v) for v in lpba40.split(brains, None, lpba40.SACBNET).values()] == [25, 5, 10]
    for dataset, total, sizes in (
        (abdomen.DATASET, 30, [19, 3, 8]),
        (candi.DATASET, 103, [63, 10, 30]),
        (mindboggle.DATASET, 62, [42, 3, 20]),
        (replace(oai.DATASET, variants={"spnet": oai.SPNET}), 507, None),
    ):
        (variant,) = dataset.variants.values()
        split = dataset.split(cases(total), None, variant)
        assert variant.total == total
        if sizes:
            assert [len(entries) for entries in split.values()] == sizes
        names = [name for entries in split.values() for name in entries if isinstance(name, str)]
        assert len(set(names)) == len(names) == sum(variant.counts)  # no scan in two splits
    pairs = [Case(f"{number}_{phase}", {}) for number in range(999) for phase in ("exp", "insp")]
    assert [len(v) for v in copdgene.split(pairs, None, copdgene.PAPER).values()] == [899, 100, 10]


def test_facts_agree_with_the_protocols():
    for dataset in DATASETS:
        for variant in dataset.variants.values():
            for name in variant.protocols:
                used = {label for column in PROTOCOLS[name].columns for label in column.labels}
                assert used <= set(variant.labels), name
            known = [source.checksum for source in variant.sources if source.checksum]
            assert all(len(checksum) == len("sha256:") + 64 for checksum in known)
    assert len(LPBA40) == 54 and len(lpba40.SITREG.labels) == 56
    assert len(PROTOCOLS["sacbnet/ixi"].columns[0].labels) == 30 and len(ixi.FREESURFER) == 46
    taken = {name for dataset in DATASETS for v in dataset.variants.values() for name in v.protocols}
    assert taken == set(PROTOCOLS)
