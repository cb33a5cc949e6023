"""Small datasets in the layout of the real ones, for data_scripts: the same names, headers, axes and numbers.

Each maker writes a dataset's files below a folder and packs those that are downloaded (or given as archives) into
another, `site`; it returns the dataset with its sizes made small.
"""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from data_scripts import abdomen, candi, copdgene, drive, ixi, lpba40, mindboggle, oai, oasis
from data_scripts.common.datasets import Dataset

DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
AIR_MATRIX = np.array([[0.88, 0.05, 0, 1.5], [-0.05, 0.88, 0, 2.5], [0, 0, 0.9, -1.0], [0, 0, 0, 1]])
AIR_SIZES = (0.9, 1.5, 0.9)  # mm, of the native voxels


def smooth(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """A smooth image from 0 to 1."""
    noise = gaussian_filter(np.random.RandomState(seed).standard_normal(shape), 1.5)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def slabs(shape: Sequence[int], numbers: Sequence[int], seed: int = 0) -> np.ndarray:
    """A label map with every number, shifted by the seed, and an empty rim."""
    inside = [size - 2 for size in shape]
    count = int(np.prod(inside))
    run = np.array(numbers)[np.arange(count) * len(numbers) // count]
    return np.pad(np.roll(run, 3 * seed).reshape(inside), 1).astype(np.int16)


def affine(codes: str, spacing: Sequence[float]) -> np.ndarray:
    """Voxels to mm of an array whose axes lead to `codes`."""
    matrix = np.eye(4)
    matrix[:3, 3] = (-20.0, 30.0, 10.0)
    for axis, (code, size) in enumerate(zip(codes, spacing, strict=True)):
        matrix[:3, axis] = 0
        matrix[DIRECTIONS[code][0], axis] = DIRECTIONS[code][1] * size
    return matrix


def save(path: Path, values: np.ndarray, codes: str, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
    """Write a NIfTI or FreeSurfer file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = nibabel.MGHImage if path.suffix == ".mgz" else nibabel.Nifti1Image
    nibabel.save(kind(values.astype(np.int32) if path.suffix == ".mgz" else values, affine(codes, spacing)), path)


def save_analyze(header: Path, values: np.ndarray) -> None:
    """Write an Analyze pair whose image is packed."""
    header.parent.mkdir(parents=True, exist_ok=True)
    kind = np.int16 if values.dtype.kind in "iu" else np.float32
    nibabel.save(nibabel.AnalyzeImage(values[..., None].astype(kind), np.eye(4)), header)
    plain = header.with_suffix(".img")
    header.with_suffix(".img.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()


def pack(path: Path, folder: Path) -> None:
    """An archive of all that is below a folder; the ending says of which kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder).as_posix())
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as opened:
            for file in files:
                opened.add(file, f"./{file.relative_to(folder).as_posix()}")


def small(dataset: Dataset, variant: str, **facts: Any) -> Dataset:
    """A dataset with one variant, some facts of which are others."""
    old = dataset.variants[variant]
    facts["options"] = {**old.options, **facts.get("options", {})}
    return replace(dataset, variants={variant: replace(old, **facts)})


def served(dataset: Dataset, site: Path, address: str, *, checksums: bool = False) -> Dataset:
    """A dataset whose files are fetched from another address, if they are fetched."""

    def moved(source: Any) -> Any:
        content = (site / source.name).read_bytes() if (site / source.name).exists() else b""
        known = f"sha256:{hashlib.sha256(content).hexdigest()}" if checksums else None
        return replace(source, addresses=(f"{address}/{source.name}",) * bool(source.addresses), checksum=known)

    (name, variant), *_ = dataset.variants.items()
    return replace(dataset, variants={name: replace(variant, sources=tuple(map(moved, variant.sources)))})


def make_oasis(folder: Path, site: Path, variant: str = "aligned") -> Dataset:
    """Six brains; subjects.txt is not in the order of the names."""
    names = [f"OASIS_OAS1_{number:04d}_MR1" for number in (1, 2, 4, 3, 6, 5)]
    for seed, name in enumerate(names):
        for prefix, shape in (("aligned_", (14, 20, 18)), ("", (16, 16, 16))):
            save(folder / name / f"{prefix}norm.nii.gz", smooth(shape, seed), "LIA")
            save(folder / name / f"{prefix}seg35.nii.gz", slabs(shape, range(1, 36), seed), "LIA")
            save(folder / name / f"{prefix}orig.nii.gz", smooth(shape, seed), "LIA")
    (folder / "subjects.txt").write_text("\n".join(names) + "\n")
    pack(site / "neurite-oasis.v1.0.tar", folder)
    sizes = {"shape": (14, 16, 16), "options": {"margins": ((0, 0), (3, 1), (0, 2))}}
    return small(oasis.DATASET, variant, counts=(2, 2, 2), **(sizes if variant == "aligned" else {"shape": (16,) * 3}))


def make_ixi(folder: Path, site: Path) -> Dataset:
    """Five pickles and an atlas."""
    shape = (10, 12, 14)
    for seed, path in enumerate(
        ("Train/subject_0", "Train/subject_10", "Val/subject_2", "Test/subject_1", "Test/subject_3", "atlas")
    ):
        file = folder / f"IXI_data/{path}.pkl"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = (smooth(shape, seed), slabs(shape, ixi.FREESURFER[1:], seed).astype(np.float32))
        file.write_bytes(pickle.dumps(content, protocol=2 + seed % 4))
    pack(site / "IXI_data.zip", folder)
    return small(ixi.DATASET, "transmorph", counts=(2, 1, 2), shape=shape)


def make_unaligned_ixi(folder: Path, site: Path) -> Dataset:
    """Six FreeSurfer subjects, of which five are drawn."""
    for seed in range(6):
        mri = folder / f"IXI{seed + 2:03d}-Guys-08{seed}/mri"
        save(mri / "norm.mgz", 200 * smooth((24, 24, 24), seed), "LIA")
        save(mri / "aseg.mgz", slabs((24, 24, 24), (2, 3, 41, 42, 85, 251), seed), "LIA")
    return small(ixi.DATASET, "unaligned", counts=(2, 1, 2), shape=(10, 10, 10))


def _brain(place: np.ndarray) -> np.ndarray:
    """A brain's intensity at places (..., 3) of the delineation space."""
    return 100 + 40 * np.sin(place[..., 0] / 6) + 30 * np.cos(place[..., 1] / 7) + 20 * np.sin(place[..., 2] / 5)


def make_lpba40(folder: Path, site: Path, variant: str = "sitreg") -> Dataset:
    """Six brains in both spaces, with AIR files between, in zips of zips."""
    shape, native = (21, 25, 19), (26, 20, 28)
    grid = np.stack(np.meshgrid(*map(np.arange, native), indexing="ij"), -1) * np.array(AIR_SIZES) / min(AIR_SIZES)
    place = grid @ AIR_MATRIX[:3, :3].T + AIR_MATRIX[:3, 3]
    drawn = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    for seed, name in enumerate(("S01", "S02", "S14", "S16", "S11", "S12")):
        brain, scan = (folder / f"{space}/LPBA40/{space}_space/{name}" for space in ("delineation", "native"))
        labels = slabs(shape, tuple(lpba40.SITREG.labels), seed)
        save_analyze(brain / f"{name}.delineation.structure.label.hdr", labels)
        save_analyze(brain / f"{name}.delineation.skullstripped.hdr", _brain(drawn).astype(np.float32))
        save_analyze(scan / f"{name}.native.brain.bfc.hdr", _brain(place).astype(np.float32))
        tissue = 1 + 2 * (_brain(place) > 100) - (_brain(place) < 40)
        save_analyze(scan / f"tissue/{name}.native.tissue.hdr", tissue.astype(np.int16))
        content = struct.pack(
            "<16d128s4I3d128s4I3d",
            *(*AIR_MATRIX.T.ravel(), b"native", 16, *native, *AIR_SIZES, b"delineation", 16, *shape, 1.0, 1.0, 1.0),
        )
        (scan / "transforms").mkdir()
        (scan / f"transforms/{name}.delineation.to.native.air").write_bytes(content.ljust(720, b"\0"))
    for space, outer in (
        ("delineation", "LPBA40_Subjects_Delineation_Space_MRI_and_label_files"),
        ("native", "LPBA40_Subjects_Native_Space_MRI_data_and_masks"),
    ):
        pack(site / f"outer/{space}/LPBA40subjects.{space}_space.zip", folder / space)
        pack(site / f"{outer}.zip", site / f"outer/{space}")
    margins = ((2, 1), (3, 2), (0, 1))
    return small(lpba40.DATASET, variant, counts=(2, 2, 2), shape=(18, 20, 18), options={"margins": margins})


def make_mindboggle(folder: Path, site: Path) -> Dataset:
    """Five brains of three cohorts and one of another, each cohort in a tar in the zip."""
    shape = (14, 16, 13)
    numbers = [1002, 1003, 1035, 2002, 2005, 2031, 2035]
    cohorts = {"NKI-RS-22": ["1", "2"], "NKI-TRT-20": ["10"], "OASIS-TRT-20": ["2", "10"], "Extra-18": ["1"]}
    for cohort, ends in cohorts.items():
        for end in ends:
            scan = folder / f"{cohort}/{cohort}_volumes/{cohort}-{end}"
            save(scan / "t1weighted_brain.MNI152.nii.gz", 90 * smooth(shape, int(end)), "LAS")
            save(scan / "labels.DKT31.manual.MNI152.nii.gz", slabs(shape, numbers, int(end)), "LAS")
            save(scan / "t1weighted.nii.gz", smooth(shape), "LAS")
        pack(site / f"zip/Mindboggle101_release3/Mindboggle101_volumes/{cohort}_volumes.tar.gz", folder / cohort)
    pack(site / "Mindboggle101_release3.zip", site / "zip")
    return small(mindboggle.DATASET, "paper", counts=(3, 0, 2), shape=(12, 14, 12))


def make_candi(folder: Path, site: Path) -> Dataset:
    """Five children of four groups, in the archives that are downloaded by hand."""
    shape = (12, 14, 12)
    numbers = [*candi.NAMES, 5, 85]  # two that are not kept
    for seed, name in enumerate(("HC_001", "HC_002", "SS_084", "BPDwPsy_065", "BPDwoPsy_030")):
        group = name.split("_")[0]
        scan = folder / f"{group}/SchizBull_2008/{group}/{name}/MNI152_2mm_Linear"
        save(scan / f"{name}_linear_MRI.nii.gz", 100 + 400 * smooth(shape, seed), "LAS", (2.0, 2.0, 2.0))
        save(scan / f"{name}_linear_SEG.nii.gz", slabs(shape, numbers, seed), "LAS", (2.0, 2.0, 2.0))
    for group in ("HC", "SS", "BPDwPsy", "BPDwoPsy"):
        pack(site / f"SchizBull_2008_{group}_segimgreg_V1.2.tar.gz", folder / group)
    return small(candi.DATASET, "paper", counts=(2, 1, 2), shape=(16, 18, 16))


def make_oai(folder: Path, site: Path, variant: str = "half") -> Dataset:
    """Five knees and ICON's two lists."""
    ends = ("LEFT_01", "RIGHT_02", "LEFT_03", "LEFT_04", "RIGHT_05")
    names = [f"90000{seed}_2005_SAG_3D_DESS_{end}" for seed, end in enumerate(ends)]
    shape, spacing = (24, 24, 10), (0.36, 0.36, 0.7)
    for seed, name in enumerate(names):
        save(folder / f"Nifti/{name}_image.nii.gz", 500 * smooth(shape, seed), "AIR", spacing)
        save(folder / f"Nifti/{name}_label_all.nii.gz", slabs(shape, (1, 2), seed), "AIR", spacing)
    for split, pairs in {"train": [(0, 1), (1, 2)], "test": [(3, 4), (4, 0)]}.items():
        lines = [
            " ".join(f"/data/{names[number]}_{kind}.nii.gz" for kind in ("image", "label_all") for number in pair)
            for pair in pairs
        ]
        path = folder / f"splits/{split}/pair_path_list.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")
    return small(oai.DATASET, variant, shape=(5, 12, 12) if variant == "half" else (10, 24, 24), counts=(3, 0, 2))


def make_oaizib(folder: Path, site: Path) -> Dataset:
    """Six knees with bones and cartilage, in four zips, and the table of sides."""
    shape, spacing = (24, 24, 10), (0.36, 0.36, 0.7)
    for seed in range(1, 7):
        part = "Tr" if seed < 5 else "Ts"
        root = folder / part
        image = np.roll(300 * smooth(shape, 1), seed // 3, 0)[:, :, :: 1 if seed % 2 else -1]
        save(root / f"images/images{part}/oaizib_{seed:03d}_0000.nii.gz", image, "AIR", spacing)
        save(root / f"labels/labels{part}/oaizib_{seed:03d}.nii.gz", slabs(shape, range(1, 6), seed), "AIR", spacing)
    for part in ("Tr", "Ts"):
        for kind in ("images", "labels"):
            pack(site / f"{kind}{part}.zip", folder / part / kind)
    rows = [f"oaizib_{seed:03d}.nii.gz,{'right' if seed % 2 else 'left'}" for seed in range(1, 7)]
    (site / oai.SIDES).write_text("\n".join(rows) + "\n")
    return small(oai.DATASET, "spnet", counts=(2, 1, 2), scans=6, shape=(8, 10, 10), options={"steps": 20})


def chest(shape: Sequence[int]) -> np.ndarray:
    """Hounsfield units: two lungs in a body in air."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij", sparse=True)
    values = np.where(axes[0] ** 2 + axes[1] ** 2 < 0.85, 20.0, -1000.0)
    for side in (-0.42, 0.42):
        inside = ((axes[0] - side) / 0.3) ** 2 + (axes[1] / 0.5) ** 2 + (axes[2] / 0.7) ** 2 < 1
        values = np.where(inside, -850 + 60 * np.sin(7 * axes[2] + 5 * axes[1]), values)
    return values.astype(np.float32)


def make_copdgene(folder: Path, site: Path) -> Dataset:
    """DIR-Lab's ten pairs, the odd ones without Hounsfield units, and three pairs of COPDGene."""
    edge, slices = 32, 10
    for number, name in enumerate(copdgene.DIRLAB, start=1):
        for letter in "ie":
            file = folder / f"dirlab/{name}/{name}/{name}_{letter}BHCT.img"
            file.parent.mkdir(parents=True, exist_ok=True)
            values = chest((edge, edge, slices)).transpose(2, 1, 0) + (copdgene.OFFSET if number % 2 else 0)
            file.write_bytes(values.round().astype("<i2").tobytes())
            points = np.random.RandomState([number, ord(letter)]).randint(4, 9, (300, 3))  # counted from 1
            rows = "\n".join("\t".join(map(str, row)) for row in points)
            file.with_name(f"{name}_300_{letter}BH_xyz_r1.txt").write_text(rows + "\n")
    for seed, name in enumerate(("10005Q", "10010J", "10031R")):
        for phase in ("INSP", "EXP"):
            stem = folder / f"copdgene/{name}/{name}_{phase}_STD_UIA_COPD"
            values = chest((30, 28, 26)) + seed
            save(Path(f"{stem}_img.nii.gz"), values, "LPS", (0.7, 0.7, 1.0))
            save(Path(f"{stem}_label.nii.gz"), (values < -600).astype(np.int16) * 20, "LPS", (0.7, 0.7, 1.0))
    options = {"spacing": 0.8, "slice": edge, "slices": dict.fromkeys(copdgene.DIRLAB, slices)}
    return small(copdgene.DATASET, "paper", shape=(28, 28, 32), options=options)


def make_abdomen(folder: Path, site: Path) -> Dataset:
    """Six patients with labels and one without."""
    shape = (12, 10, 16)
    for seed in range(1, 8):
        part = "Tr" if seed < 7 else "Ts"
        root, name = folder / "AbdomenCTCT", f"AbdomenCTCT_{seed:04d}_0000.nii.gz"
        save(root / f"images{part}/{name}", 4000 * smooth(shape, seed) - 2000, "LAS", (2.0, 2.0, 2.0))
        if part == "Tr":
            save(root / f"labels{part}/{name}", slabs(shape, range(1, 14), seed), "LAS", (2.0, 2.0, 2.0))
    pack(site / "AbdomenCTCT.zip", folder)
    return small(abdomen.DATASET, "paper", counts=(3, 1, 2), shape=(12, 10, 14))


def make_drive(folder: Path, site: Path) -> Dataset:
    """Three retinas."""
    for number in (21, 22, 23):
        vessels = (smooth((64, 61), number) > 0.6).astype(np.uint8) * 255
        path = folder / f"DRIVE/training/1st_manual/{number}_manual1.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        Image.fromarray(vessels).save(content, "gif")
        path.write_bytes(content.getvalue())
    return small(drive.DATASET, "paper", counts=(3, 0, 3), shape=(16, 15))


MAKERS: dict[str, Callable[[Path, Path], Dataset]] = {
    "oasis": make_oasis,
    "oasis-raw": lambda folder, site: make_oasis(folder, site, "raw"),
    "ixi": make_ixi,
    "ixi-unaligned": make_unaligned_ixi,
    "lpba40": make_lpba40,
    "lpba40-sacbnet": lambda folder, site: make_lpba40(folder, site, "sacbnet"),
    "mindboggle": make_mindboggle,
    "candi": make_candi,
    "oai": make_oai,
    "oai-full": lambda folder, site: make_oai(folder, site, "full"),
    "oai-spnet": make_oaizib,
    "copdgene": make_copdgene,
    "abdomen": make_abdomen,
    "drive": make_drive,
}
