"""Every number that the authors' programs left is compared: runs after the tests that read them, by its name."""

from __future__ import annotations

import pytest
from helpers.parity import READERS, Entries

NOT_COMPARED = {  # no results, but how they were made: settings, and in SM-GICNet's the names and shapes of the weights
    "gradicon": {"config"},
    "sacbnet": {"config"},
    "sitreg": {"config"},
    "smgicnet": {"config", "parameters", "used"},
    "spnet": set(),
}


@pytest.mark.parametrize("name", NOT_COMPARED)
def test_every_entry_is_compared(name: str, request: pytest.FixtureRequest) -> None:
    config = request.config
    chosen = config.option.keyword or config.option.markexpr or any("::" in argument for argument in config.args)
    collected = {item.path.stem for item in request.session.items}
    if chosen or not {f"test_{reader}" for reader in READERS} <= collected:
        pytest.skip(f"needs whole files: test_{{{','.join(READERS)}}}.py and this one")
    left = set(Entries(name).files) - Entries.read[name]
    assert left == NOT_COMPARED[name]
