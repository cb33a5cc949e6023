"""Where the tutorials lie."""

from pathlib import Path

from regkit.course import notebooks

ROOT = Path(__file__).parent.parent.parent
SOURCES = notebooks.sources(ROOT / "tutorials")
