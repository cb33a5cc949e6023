"""IXI: TransMorph's 576 aligned brains with an atlas (SACB-Net), or 314 brains without alignment (SM-GICNet)."""

import pickletools
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from data_scripts.common import datasets
from data_scripts.common.command import main
from data_scripts.common.conversion import centred, placed, relabelled
from data_scripts.common.datasets import SPLITS, Case, Dataset, Files, Prepared, Splits, Variant
from data_scripts.common.errors import DatasetError
from data_scripts.common.fetching import Source
from regkit.images import normalise, resample

FREESURFER = (  # a label's place in this list is its number in the paper
    *(0, 2, 3, 4, 5, 7, 8, *range(10, 19), 24, 26, 28, 30, 31, *range(41, 45), 46, 47, *range(49, 55), 58, 60),
    *(62, 63, 72, 77, 80, 85, *range(251, 256)),
)
FOLDERS = dict(zip(SPLITS, ("Train", "Val", "Test"), strict=True))
ATLAS = "atlas"

TRANSMORPH = Variant(
    protocols=("sacbnet/ixi",),
    files={split: f"{folder}/{{id}}.pkl" for split, folder in FOLDERS.items()},
    counts=(403, 58, 115),
    shape=(160, 192, 224),
    labels=datasets.unnamed(range(1, len(FREESURFER))),
    preprocessing=(
        "as delivered with TransMorph: skull-stripped, affinely aligned, 160 x 192 x 224, intensities from 0 to 1",
        "FreeSurfer's numbers replaced by their place in the list of 46 that TransMorph and SACB-Net use",
        "the files have no header: 1 mm, axes as stored",
        "every pair is the atlas (moving) and a subject (fixed)",
    ),
    sources=(
        Source(
            "IXI_data.zip",
            (
                "https://drive.usercontent.google.com/download?id=1-VQewCVNj5eTtc3eQGhTM2yXBQmgm8Ol&confirm=t",
                "https://drive.google.com/uc?export=download&id=1-VQewCVNj5eTtc3eQGhTM2yXBQmgm8Ol",
            ),
            size=1_440_000_000,
        ),
    ),
    extras=(f"{ATLAS}.pkl",),
)
UNALIGNED = Variant(
    protocols=("smgicnet/ixi",),
    files={"image": "{id}/mri/norm.mgz", "labels": "{id}/mri/aseg.mgz"},
    counts=(269, 15, 30),
    shape=(128, 128, 128),
    labels=datasets.unnamed(range(1, 256)),
    preprocessing=(
        "FreeSurfer's norm.mgz (skull-stripped, contrast corrected) and aseg.mgz, not aligned",
        "resampled to 2 mm, centre crop to 128 x 128 x 128 (the paper states no size; its programs use this one)",
        "intensities from minimum to maximum as 0 to 1",
        "314 scans drawn with seed 0, as is their split (the paper does not list them); pairs in both directions",
    ),
    options={"spacing": 2.0},
)

_LARGEST = 2**30  # bytes of a file with one scan: TransMorph's have 110 million at most
_MOST_STEPS = 1000  # of a pickle: two arrays take fewer than 100
_VALUE = re.compile(r"(SHORT_)?(BIN)?(INT|BYTES|UNICODE|STRING)[128]?|BYTEARRAY8|LONG[14]")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


class _Made:
    """What a pickle wants to have made: by which name, from which arguments, with which state. Nothing is made."""

    def __init__(self, name: str) -> None:
        self.name, self.arguments, self.state = name, (), ()  # type: tuple[str, Any, Any]


def _unpacked(data: bytes) -> Any:
    """The values in a pickle, and descriptions (`_Made`) of the rest: no name is looked up, nothing is called."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def marked() -> tuple[Any, ...]:
        place = len(stack) - 1 - stack[::-1].index(_MARK)
        values = tuple(stack[place + 1 :])
        del stack[place:]
        return values

    for step, (opcode, found, _) in enumerate(pickletools.genops(data)):
        name, argument = opcode.name, cast(Any, found)
        if step > _MOST_STEPS:
            raise ValueError(f"more than {_MOST_STEPS} steps")
        if name in ("PROTO", "FRAME", "STOP"):
            continue
        if _VALUE.fullmatch(name):
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(marked())
        elif name in ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1]) if name != "EMPTY_TUPLE" else 0
            stack[len(stack) - count :] = [tuple(stack[len(stack) - count :])]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(argument.replace(" ", "."))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [f"{stack[-2]}.{stack[-1]}"]
        elif name == "REDUCE":
            made = _Made(stack[-2])
            made.arguments = stack[-1]
            stack[-2:] = [made]
        elif name == "BUILD" and isinstance(stack[-2], _Made):
            state = stack.pop()
            stack[-1].state = state
        else:
            raise ValueError(f"it asks for {name}")
    return stack.pop()


def _array(made: Any) -> np.ndarray:
    """An array from what a pickle says of it: bytes, a type of plain numbers, sizes; no other way leads to one."""
    kind = made.name.rpartition(".")[2] if isinstance(made, _Made) else "another value"
    if kind == "_reconstruct":
        _, shape, dtype, is_fortran, content = made.state
        order = "F" if is_fortran else "C"
    elif kind == "_frombuffer":
        content, dtype, shape, order = made.arguments
    else:
        raise ValueError(f"it asks for {made.name if isinstance(made, _Made) else type(made).__name__}")
    if isinstance(content, _Made) and content.name == "_codecs.encode":  # how older pickles write bytes
        content = content.arguments[0].encode("latin-1")
    code, sign = str(dtype.arguments[0]), str(dtype.state[1])
    if dtype.name != "numpy.dtype" or not re.fullmatch("[iuf][1248]|b1", code) or sign not in "<>|=":
        raise ValueError(f"it asks for numbers of the type {sign}{code}"[:80])
    return np.frombuffer(content, sign + code).reshape(shape, order="F" if order == "F" else "C")


def read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of one of TransMorph's files, by a reader that knows bytes, types and sizes alone.

    Raises:
        DatasetError: it is damaged, or holds more than two arrays of plain numbers.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes")
        image, labels = (_array(each) for each in _unpacked(path.read_bytes()))
        return image.astype(np.float32), np.rint(labels).astype(np.int64)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise DatasetError(
            f"a scan must be a pickle of two arrays and nothing else, received {path} ({str(error)[:200]}); it was not "
            f"run: fetch it again."
        ) from error


def listed(files: Files, variant: Variant) -> list[Case]:
    """The atlas and the scans of the three folders; or the FreeSurfer subjects, of which 314 are drawn."""
    if "train" not in variant.files:
        return _drawn(files, variant)
    cases = [Case(ATLAS, {"scan": files.one(f"{ATLAS}.pkl")})]
    for pattern, count in zip(variant.files.values(), variant.counts, strict=True):
        found = files.by_id(pattern)
        datasets.check_number(sorted(found), count, files, variant)
        cases += [Case(name, {"scan": path}) for name, path in sorted(found.items())]
    return cases


def _drawn(files: Files, variant: Variant) -> list[Case]:
    names = sorted(files.by_id(variant.files["image"]))
    if len(names) > variant.total:
        names = random.Random(0).sample(names, variant.total)
        kept = Files(files.folders)
        kept.paths = [path for path in files.paths if path.parts[-3] in names]
        files = kept
    return datasets.find(files, variant)


def split(cases: Sequence[Case], files: Files, variant: Variant) -> Splits:
    """Atlas to subject; or scans of which every two are a pair."""
    if "train" not in variant.files:
        return datasets.shuffled(cases, files, variant)
    return {name: [(ATLAS, subject) for subject in sorted(files.by_id(variant.files[name]))] for name in SPLITS}


def convert(case: Case, variant: Variant) -> Prepared:
    """Renumber TransMorph's labels; or resample, crop and scale FreeSurfer's volumes."""
    if "scan" in case.files:
        values, numbers = read_pickle(case.files["scan"])
        image, labels = placed(values, np.eye(4)), placed(numbers, np.eye(4))
        datasets.check_one_size(case, image, labels)
        return Prepared(image, relabelled(labels, {old: new for new, old in enumerate(FREESURFER)}))
    image, labels = datasets.read_pair(case)
    grid = image.grid.with_spacing(variant.options["spacing"])
    image, labels = normalise(resample(image, grid), percentiles=(0, 100)), resample(labels, grid)
    return Prepared(centred(image, variant.shape), centred(labels, variant.shape))


DATASET = Dataset(
    name="ixi",
    title="IXI",
    licence="CC BY-SA 3.0",
    terms="https://brain-development.org/ixi-dataset/",
    citation="Chen et al. 2022 (TransMorph), doi:10.1016/j.media.2022.102615; IXI, EPSRC GR/S21533/02",
    steps=(
        "variant transmorph is fetched unattended where Google Drive allows it, else download IXI_data by hand; for "
        "variant unaligned fetch https://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI/IXI-T1.tar (MD5 "
        "34901a0593b41dd19c1a1f746eac2d58) and run FreeSurfer's recon-all on each scan, into one folder of subjects."
    ),
    variants={"transmorph": TRANSMORPH, "unaligned": UNALIGNED},
    find=listed,
    split=split,
    convert=convert,
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
