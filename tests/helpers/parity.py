"""The authors' numbers, and a record of which of them the tests have read."""

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

READERS = ("data", "gradicon", "losses", "metrics", "sacbnet", "sitreg", "smgicnet", "spnet")  # tests that read them
_FOLDER = Path(__file__).parent.parent / "parity"


class Entries:
    """One fixture by entry name, like the file that numpy opens; remembers what a running test reads."""

    read: ClassVar[dict[str, set[str]]] = {path.stem: set() for path in _FOLDER.glob("*.npz")}

    def __init__(self, name: str) -> None:
        self.name = name
        self.stored = np.load(_FOLDER / f"{name}.npz")
        self.files: list[str] = self.stored.files

    def __contains__(self, entry: str) -> bool:
        return entry in self.stored

    def __getitem__(self, entry: str) -> np.ndarray:
        if os.environ.get("PYTEST_CURRENT_TEST", "").endswith("(call)"):  # not while tests are collected
            self.read[self.name].add(entry)
        return self.stored[entry]
