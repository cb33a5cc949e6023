"""The one error that a user can mend."""

from __future__ import annotations

import errno


class DatasetError(ValueError):
    """Something about the data, the disk or the network: says the rule, what was received, and what to do."""


def explained(error: Exception) -> Exception:
    """What an error means for somebody who prepares a dataset: itself, where it says so."""
    if isinstance(error, ValueError):
        return error
    if isinstance(error, MemoryError):
        return DatasetError("a scan must fit into memory, received a larger one; free memory and run it again.")
    if not isinstance(error, OSError):
        found = f"{type(error).__name__} ({' '.join(str(error).split())[:200]})"
        return DatasetError(
            f"a script must end well, received {found}; this is a fault of data_scripts: report it with what python "
            f"-X dev -m data_scripts.NAME prints."
        )
    place = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DatasetError(
            f"the disk must have room for the dataset, received «{error.strerror}»{place}; free some space and run the "
            f"same command again: it goes on where it stopped."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DatasetError(
            f"the folder must be writable, received «{error.strerror}»{place}; choose another folder or change its "
            f"permissions."
        )
    return DatasetError(f"files must be readable and writable, received «{error}»; mend this and run it again.")
