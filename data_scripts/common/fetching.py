"""Downloads that resume, are verified, and are remembered.

pooch decides whether a file must be fetched and compares its checksum; `Resuming` is the downloader that pooch calls.
What has arrived stays in NAME.part beside the file, so an interrupted download goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm.auto import tqdm

from data_scripts.common.errors import DatasetError
from regkit._core.files import write_atomically

CHECKSUMS = "checksums.json"
ATTEMPTS = 5  # how often a connection may break
PAUSE = 1.0  # seconds before the second attempt, doubled each time
_CHUNK = 2**14  # bytes; what has arrived of one is lost when the connection breaks
_TIMEOUT = (20, 60)  # seconds to connect, and between two pieces


@dataclass(frozen=True)
class Source:
    """A file to download.

    name: of the file on this disk. addresses: the first one that answers is used. checksum: as published, "sha256:..."
    or "md5:..."; None where nobody has published one: then the SHA-256 of the first download is recorded and held.
    size: about how many bytes. published_by: where the checksum comes from.
    """

    name: str
    addresses: tuple[str, ...]
    checksum: str | None = None
    size: int = 0
    published_by: str = ""


class Resuming:
    """A downloader for pooch: asks for what is missing, retries, and shows a progress bar."""

    def __init__(self, part: Path, *, progress: bool = True) -> None:
        self.part, self.progress = part, progress
        self.tag = part.with_suffix(".tag")  # of the version that the part belongs to

    def __call__(self, url: str, output_file: str, caller: Any, check_only: bool = False) -> None:
        """Bring the whole file to `output_file`.

        Raises:
            DatasetError: the address gives a web page; the connection broke too often.
            requests.RequestException: the server refuses.
        """
        for attempt in range(ATTEMPTS):
            try:
                self._go_on(url)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                if attempt + 1 == ATTEMPTS:
                    raise DatasetError(
                        f"a download must arrive whole, received {self._arrived()} bytes of {url} and then «{error}»; "
                        f"run the same command again: it goes on where it stopped."
                    ) from error
                time.sleep(PAUSE * 2**attempt)
        self.part.replace(output_file)
        self.tag.unlink(missing_ok=True)

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _go_on(self, url: str) -> None:
        """One connection: all that is missing, or an error."""
        arrived, tag = self._arrived(), self.tag.read_text() if self.tag.exists() else ""
        wanted = {"Accept-Encoding": "identity"}
        if arrived:
            wanted |= {"Range": f"bytes={arrived}-"} | ({"If-Range": tag} if tag else {})
        with requests.get(url, headers=wanted, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                if answer.headers.get("Content-Range", "").endswith(f"/{arrived}"):
                    return  # everything had arrived before
                self.part.unlink()
                return self._go_on(url)
            answer.raise_for_status()
            _refuse_page(answer, url)
            self._write(answer, arrived if _continues(answer, arrived) else 0)

    def _write(self, answer: requests.Response, start: int) -> None:
        """Put what comes behind the first `start` bytes."""
        self.tag.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        total = start + int(answer.headers.get("Content-Length", 0)) or None
        bar = tqdm(
            initial=start, total=total, unit="B", unit_scale=True, desc=self.part.stem, disable=not self.progress
        )
        with self.part.open("ab" if start else "wb") as file, bar:
            for piece in answer.iter_content(_CHUNK):
                file.write(piece)
                bar.update(len(piece))


def _continues(answer: requests.Response, arrived: int) -> bool:
    """Whether an answer is the rest of the file, and not the whole."""
    if answer.status_code != requests.codes.partial_content:
        return False
    if not answer.headers.get("Content-Range", "").startswith(f"bytes {arrived}-"):
        raise requests.ConnectionError(f"the server sent {answer.headers.get('Content-Range')} for byte {arrived}")
    return True


def _refuse_page(answer: requests.Response, url: str) -> None:
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise DatasetError(
            f"an address must give the file itself, received a web page from {url} (terms to accept, or a quota); open "
            f"it in a browser, put the file into a folder and give that with --from."
        )


def fetch(source: Source, folder: Path, *, progress: bool = True) -> Path:
    """The file of a source in `folder`: as it is where it is whole, else downloaded, resumed and verified.

    Raises:
        DatasetError: no address gives the file, or its checksum is not the published or recorded one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recorded = recorded_checksums(folder)
    known = source.checksum or recorded.get(source.name)
    path, part = folder / source.name, folder / f"{source.name}.part"
    pooch.get_logger().setLevel("WARNING")
    failures = []
    for address in source.addresses:
        try:
            pooch.retrieve(address, known, source.name, folder, downloader=Resuming(part, progress=progress))
            break
        except (DatasetError, requests.RequestException) as error:
            failures.append(f"{address}: {error}")
        except ValueError as error:
            raise DatasetError(
                f"a download must have the checksum that was {'published' if source.checksum else 'recorded'}, "
                f"received another for {source.name} from {address} ({error}); it was deleted. If the source announces "
                f"a new version, remove {folder / CHECKSUMS} and run it again."
            ) from error
    else:
        raise DatasetError("; ".join(failures) or f"a source must have an address, received none for {source.name}")
    if source.name not in recorded:
        record_checksums(folder, {source.name: f"sha256:{pooch.file_hash(str(path))}"})
    return path


def recorded_checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file at its first fetch, by name."""
    path = folder / CHECKSUMS
    try:
        content = json.loads(path.read_text()) if path.exists() else {}
        return {str(name): str(checksum) for name, checksum in content.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"{CHECKSUMS} must be a table of checksums, received {path} ({error}); remove it to record them anew."
        ) from error


def record_checksums(folder: Path, checksums: Mapping[str, str]) -> None:
    """Remember checksums beside those that are known."""
    content = json.dumps(recorded_checksums(folder) | dict(checksums), indent=2, sort_keys=True)
    write_atomically(folder / CHECKSUMS, content.encode())
