"""From the sources to the prepared folder, in steps that can be interrupted and go on.

Beside FOLDER lie FOLDER.downloads, which keeps archives and their checksums, and FOLDER.part, where archives are
extracted and scans converted. At the end the converted part is moved to FOLDER in one step, and FOLDER.part removed:
FOLDER is whole or absent.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

import regkit
from data_scripts.common import layout
from data_scripts.common.conversion import check_packed
from data_scripts.common.datasets import Case, Dataset, Files, Splits, Variant
from data_scripts.common.errors import DatasetError
from data_scripts.common.extraction import extract
from data_scripts.common.fetching import CHECKSUMS, Source, fetch, record_checksums, recorded_checksums
from regkit._core.files import locked

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Request:
    """What somebody wants. origin: a folder with the files, in place of a download. limit: scans of each split."""

    dataset: Dataset
    variant: str
    folder: Path
    origin: Path | None = None
    limit: int | None = None
    progress: bool = True

    @property
    def preparation(self) -> Variant:
        """The variant that is prepared."""
        return self.dataset.variants[self.variant]

    @property
    def downloads(self) -> Path:
        """Where archives are kept."""
        return self.folder.with_name(f"{self.folder.name}.downloads")

    @property
    def part(self) -> Path:
        """Where the work is done."""
        return self.folder.with_name(f"{self.folder.name}.part")

    @property
    def plan(self) -> dict[str, Any]:
        """What makes one prepared folder differ from another."""
        return {"dataset": self.dataset.name, "variant": self.variant, "limit": self.limit}


def prepare(request: Request) -> bool:
    """Make the folder; False where it was there already.

    Raises:
        DatasetError: anything that the user can mend; the folder is then as it was.
    """
    if not is_prepared(request):
        request.folder.parent.mkdir(parents=True, exist_ok=True)
    lock = request.folder.with_name(f".{request.folder.name}.lock")
    if lock.exists() and request.progress:
        print(f"another process may be preparing {request.folder}: waiting for its end", file=sys.stderr)
    with locked(lock, seconds=-1):
        if not is_prepared(request):
            _make(request)
            return True
        if (request.part / "plan.json").exists():  # of a run that was killed at its very end
            shutil.rmtree(request.part)
        return False


def _make(request: Request) -> None:
    """All steps; the folder appears with the last."""
    _begin(request)
    files = Files(_raw_folders(request))
    cases = request.dataset.find(files, request.preparation)
    splits = {
        split: layout.limited(entries, request.limit)
        for split, entries in request.dataset.split(cases, files, request.preparation).items()
    }
    made = request.part / "prepared"
    _convert(request, cases, splits, made)
    layout.write_tables(made, splits, _facts(request, splits))
    if request.folder.exists():
        request.folder.rmdir()  # empty: see is_prepared
    made.replace(request.folder)
    shutil.rmtree(request.part)


def is_prepared(request: Request) -> bool:
    """Whether the folder is there and whole.

    Raises:
        DatasetError: something else is there.
    """
    folder = request.folder
    if request.origin is not None and folder.is_relative_to(request.origin.absolute()):
        raise DatasetError(
            f"the prepared folder must not be inside the one that is read, received {folder} and --from "
            f"{request.origin}; choose a folder beside it."
        )
    if folder.is_file() or (request.origin is not None and not request.origin.is_dir()):
        raise DatasetError(
            f"the data must go to a folder and come from one, received {folder} and --from {request.origin}; check "
            f"both paths."
        )
    if not folder.exists() or not any(folder.iterdir()):
        return False
    facts = layout.read_facts(folder)
    if {key: facts.get(key) for key in request.plan} != request.plan:
        raise DatasetError(
            f"a folder must hold one preparation of one dataset, received {folder} with {facts['dataset']}, variant "
            f"{facts['variant']}, limit {facts.get('limit')}; choose another folder, or remove this one."
        )
    if missing := [name for name in facts["checksums"] if not (folder / name).is_file()]:
        raise DatasetError(
            f"a prepared folder must be whole, received {folder} without {missing[0]} ({len(missing)} files missing); "
            f"remove it and run it again."
        )
    return True


def _begin(request: Request) -> None:
    """Make the folder for the work; what an interrupted run with the same plan has left there is kept."""
    plan, text = request.part / "plan.json", json.dumps(request.plan | {"from": str(request.origin)})
    found = plan.read_bytes() if plan.exists() else b""
    if found.startswith(b"{") and found != text.encode():
        shutil.rmtree(request.part)
    elif request.part.exists() and not found.startswith(b"{") and any(request.part.iterdir()):
        raise DatasetError(
            f"the work needs the folder {request.part}, received one with other contents; move it away, or choose "
            f"another folder."
        )
    request.part.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(text.encode())


def fetched(variant: Variant) -> bool:
    """Whether a variant can be fetched unattended."""
    return any(source.addresses for source in variant.sources)


def _raw_folders(request: Request) -> list[Path]:
    """Where the dataset's own files are, after fetching and extracting what is needed."""
    variant, raw = request.preparation, request.part / "raw"
    if request.origin is not None:
        place, there = request.origin, Files([request.origin])
        extracted = any(there.by_id(pattern) for pattern in variant.files.values())
        given = {} if extracted else {path.name: path for path in there.paths}
        archives = [_given(source, given[source.name], request) for source in variant.sources if source.name in given]
    elif fetched(variant):
        archives = [fetch(source, request.downloads, progress=request.progress) for source in variant.sources]
        place = request.downloads
    else:
        raise DatasetError(
            f"{request.dataset.title} cannot be fetched unattended; {request.dataset.steps} Then give the folder with "
            f"--from."
        )
    wanted = [*(pattern.replace("{id}", "*") for pattern in variant.files.values()), *variant.extras]
    patterns = [f"*{pattern}" for pattern in (*wanted, *variant.nested)]
    for archive in archives:
        if archive.name.endswith(_ARCHIVES):
            _extract(archive, raw, patterns)
    return [place, raw]


def _given(source: Source, path: Path, request: Request) -> Path:
    """An archive from the user's folder, if its checksum is the one that is known."""
    found = f"sha256:{layout.sha256(path)}"
    known = source.checksum if source.checksum and source.checksum.startswith("sha256:") else None
    known = known or recorded_checksums(request.downloads).get(source.name)
    if known and known != found:
        raise DatasetError(
            f"{source.name} must have the checksum {known}, received {found} of {path}; fetch it again, or remove "
            f"{request.downloads / CHECKSUMS} if the source announces a new version."
        )
    request.downloads.mkdir(parents=True, exist_ok=True)
    record_checksums(request.downloads, {source.name: found})
    return path


def _extract(archive: Path, folder: Path, patterns: Sequence[str]) -> None:
    """Extract what is wanted, and the same from the archives inside, each into its own folder."""
    for path in extract(archive, folder, patterns):
        if path.name.endswith(_ARCHIVES):
            _extract(path, path.parent, patterns)


def _convert(request: Request, cases: Sequence[Case], splits: Splits, made: Path) -> None:
    """Write the scans that the splits name; those that an earlier run has written stay."""
    wanted = {name for entries in splits.values() for name in layout.members(entries)}
    chosen = [case for case in cases if case.id in wanted]
    for case in tqdm(chosen, desc="converting", disable=not request.progress):
        if layout.place(made, "images", case.id).exists():
            continue
        try:
            for path in case.files.values():
                if path.name.endswith((".gz", ".mgz")):
                    check_packed(path)
            prepared = request.dataset.convert(case, request.preparation)
        except (ValueError, FileNotFoundError) as error:
            raise DatasetError(f"{case.id}: {error}") from error
        layout.write_case(made, case.id, prepared, request.preparation)


def _facts(request: Request, splits: Splits) -> dict[str, Any]:
    """What dataset.json says."""
    dataset, variant = request.dataset, request.preparation
    return request.plan | {
        "name": f"{dataset.title}, {request.variant}",
        "source": dataset.terms,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "preprocessing": "; ".join(variant.preprocessing),
        "intensities": "as prepared",
        "protocols": list(variant.protocols),
        "labels": dict(variant.labels),
        "splits": {split: len(entries) for split, entries in splits.items()},
        "downloads": {
            source.name: {"address": next(iter(source.addresses), ""), "checksum": checksum}
            for source in variant.sources
            if (checksum := recorded_checksums(request.downloads).get(source.name))
        },
        "written_by": f"regkit {regkit.__version__}",
    }
