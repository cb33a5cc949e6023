"""Archives that stay in their folder: tar (plain, gz, bz2, xz) and zip, recognised by content.

An archive is refused as a whole, before anything is written, if one member has an absolute path or one that leaves
the folder, is a link, a device or anything else that is neither file nor folder, or if its members are too large.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from data_scripts.common.errors import DatasetError

LARGEST = 2**39  # bytes: 512 GiB, more than any of the datasets
DENSEST = 250  # bytes out for each byte in; gzip and zip of empty images reach about 1,000, of scans below 20
_FREE = 100 * 2**20  # bytes that are allowed whatever the ratio


@dataclass(frozen=True)
class Member:
    """A file in an archive: where it goes, how large it says it is, and how to read it."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def extract(
    archive: Path, folder: Path, wanted: Sequence[str] = ("*",), *, largest: int = LARGEST, densest: float = DENSEST
) -> list[Path]:
    """Write the members whose path matches one of the patterns `wanted` into `folder`; returns their paths.

    Members that are there with the right size are not written again. A file is written beside its place and moved.

    Raises:
        DatasetError: not an archive, a damaged or a hostile one, or the disk has less room than it needs.
    """
    written = []
    most = min(largest, max(_FREE, int(densest * archive.stat().st_size)))
    with _members(archive) as members:
        chosen = [member for member in _checked(members, archive, most) if _matches(member.path, wanted)]
        _check_room(folder, sum(member.size for member in chosen))
        for member in chosen:
            path = folder / member.path
            if not (path.is_file() and path.stat().st_size == member.size):
                _write(member, path, folder, archive)
            written.append(path)
    return written


@contextmanager
def _members(archive: Path) -> Iterator[Iterable[Member]]:
    """The files of an archive, one after the other; errors of the readers are explained."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield (_zip_member(opened, info) for info in opened.infolist() if not info.is_dir())
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened_tar:
                yield (_tar_member(opened_tar, info, archive) for info in opened_tar if not info.isdir())
        else:
            raise DatasetError(
                f"an archive must be tar or zip, received {archive}, which begins with {_beginning(archive)!r}; remove "
                f"it and fetch it again."
            )
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DatasetError(
            f"an archive must be whole, received {archive} ({type(error).__name__}: {error}); remove it and fetch it "
            f"again."
        ) from error


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _hostile(Path(archive.filename or "zip"), info.filename, "is a link or a device")
    return Member(PurePosixPath(info.filename), info.file_size, lambda: archive.open(info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> Member:
    if not info.isreg():
        raise _hostile(path, info.name, "is a link or a device")

    def opened() -> IO[bytes]:
        file = archive.extractfile(info)
        assert file is not None  # a regular file
        return file

    return Member(PurePosixPath(info.name), info.size, opened)


def _hostile(archive: Path, member: str, what: str) -> DatasetError:
    return DatasetError(
        f"an archive must hold plain files below its own folder, received {archive.name} whose member «{member}» "
        f"{what}; nothing was extracted: do not use this archive, and tell whoever gave it to you."
    )


def _checked(members: Iterable[Member], archive: Path, most: int) -> Iterator[Member]:
    """The members, until one leads out of the folder or all together are too large: a bomb is not read to its end."""
    total = 0
    for member in members:
        _check_path(member.path, archive)
        total += member.size
        if total > most:
            raise DatasetError(
                f"an archive must unpack to at most {most:,} bytes, received {archive.name} of "
                f"{archive.stat().st_size:,} bytes that says it holds {total:,} or more; nothing was extracted: do not "
                f"use this archive, and tell whoever gave it to you."
            )
        yield member


def _check_path(path: PurePosixPath, archive: Path) -> None:
    windows = PureWindowsPath(str(path))
    if path.is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in str(path):
        raise _hostile(archive, str(path), "leads out of the folder")


def _matches(path: PurePosixPath, patterns: Sequence[str]) -> bool:
    return any(fnmatch(str(path), pattern) for pattern in patterns)


def _check_room(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(
            f"the disk must have room for the extracted files, received {free:,} bytes free in {folder} where "
            f"{needed:,} are needed; free some space and run the same command again: it goes on where it stopped."
        )


def _write(member: Member, path: Path, folder: Path, archive: Path) -> None:
    """Put one member in place in one move; no more bytes than it has announced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise _hostile(archive, str(member.path), "would be written through a link")
    beside = path.with_name(f".{path.name}.part")
    try:
        with member.open() as source, beside.open("wb") as target:
            _copy(source, target, member.size + 1)
        if beside.stat().st_size != member.size:
            raise _hostile(archive, str(member.path), f"is not of the {member.size:,} bytes that it announces")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _copy(source: IO[bytes], target: IO[Any], most: int) -> None:
    while most > 0 and (piece := source.read(min(most, 2**20))):
        target.write(piece)
        most -= len(piece)
