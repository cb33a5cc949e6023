"""The course's machinery: one percent script per tutorial, the notebooks made from it, its modes, and the way in.

A tutorial is edited as `tutorials/NN_topic.py`. Its cells carry tags: `exercise` (what the learner fills in),
`solution` and `instructor`. `build` derives the learner's notebook (`tutorials/NN_topic.ipynb`: no solutions, no
instructor's notes) and the instructor's (`tutorials/instructor/NN_topic.ipynb`: no blank exercises). Both begin with
the same two cells, made here, so that each notebook opens in Colab by itself.
"""

import contextlib
import hashlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from regkit._core import __version__
from regkit._core.files import PACKAGE, printable
from regkit.training import mode
from regkit.types import MissingFileError

__all__ = ["BADGE", "BOOTSTRAP", "HIDDEN", "REPOSITORY", "TAG", "Edition", "begin", "build", "edition", "editions"]

__all__ += ["folder", "lab", "publish", "sources"]  # what regkit.course has

Edition = Literal["learner", "instructor"]
HIDDEN: dict[Edition, set[str]] = {"learner": {"solution", "instructor"}, "instructor": {"exercise"}}
REPOSITORY = "regkit/regkit"
TAG = f"v{__version__}"

BADGE = """[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{repository}/blob/{tag}/tutorials/{name}.ipynb)"""
BOOTSTRAP = """# Where regkit is missing (Colab), install it as it was when this notebook was made.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("regkit") is None:
    source = "regkit[course] @ git+https://github.com/{repository}@{tag}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)"""


def folder() -> Path:
    """The folder of the tutorials: ./tutorials, else the one beside an editable installation of regkit."""
    for parent in (Path.cwd(), PACKAGE.resolve().parent):
        if (parent / "tutorials" / "00_first_light.py").is_file():
            return parent / "tutorials"
    raise MissingFileError(
        "the tutorials must lie in ./tutorials or beside the regkit package",
        f"the folder {Path.cwd()}",
        "change to a clone of the repository, where the course is",
    )


def sources(tutorials: Path) -> list[Path]:
    """The percent scripts of a folder, in the course's order."""
    return sorted(tutorials.glob("[0-9][0-9]_*.py"))


def edition(source: Path, which: Edition) -> str:
    """One edition of a tutorial as notebook JSON: without outputs, with ids that depend on the cells' text alone."""
    import jupytext

    notebook = jupytext.read(source)
    shown = [cell for cell in notebook.cells if not HIDDEN[which] & set(cell.metadata.get("tags", []))]
    cells = [*_opening(source.stem), *(_cell(cell.cell_type, cell.source, cell.metadata) for cell in shown)]
    content = {
        "cells": list(_with_ids(cells)),
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def build(tutorials: Path) -> list[Path]:
    """Write both editions of every tutorial; returns the files whose bytes changed.

    A notebook that somebody worked in stays as it is; the new one is written beside it, as NN_topic.new.ipynb.
    """
    changed = []
    for source in sources(tutorials):
        for which, place in editions(source).items():
            text = edition(source, which)
            target = next(path for path in _places(place) if not path.exists() or is_untouched(path))
            if not target.exists() or target.read_text(encoding="utf-8") != text:
                target.parent.mkdir(exist_ok=True)
                target.write_text(text, encoding="utf-8")
                changed.append(target)
    return changed


def is_untouched(path: Path) -> bool:
    """Whether a notebook is as `build` made it, now or earlier: nothing run, and each cell with the id of its text."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        own = [cell["id"] for cell in cells]
        bare = [{"source": "".join(cell["source"]).splitlines(keepends=True)} for cell in cells]
    except (ValueError, KeyError, TypeError):
        return False
    run = any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    return not run and own == [cell["id"] for cell in _with_ids(bare)]


def _places(path: Path) -> Iterator[Path]:
    """Where a notebook goes: its own place, else the first free one beside it."""
    yield path
    yield from (path.with_suffix(f".new{number or ''}.ipynb") for number in itertools.count())


def editions(source: Path) -> dict[Edition, Path]:
    """Where a tutorial's notebooks lie."""
    return {
        "learner": source.with_suffix(".ipynb"),
        "instructor": source.parent / "instructor" / f"{source.stem}.ipynb",
    }


def _opening(name: str) -> list[dict[str, Any]]:
    badge = BADGE.format(repository=REPOSITORY, tag=TAG, name=name)
    return [_cell("markdown", badge, {}), _cell("code", BOOTSTRAP.format(repository=REPOSITORY, tag=TAG), {})]


def _cell(kind: str, text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    tags = list(metadata.get("tags", []))
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {"tags": tags} if tags else {}}
    cell |= {"execution_count": None, "outputs": []} if kind == "code" else {}
    return cell | {"source": text.splitlines(keepends=True)}


def _with_ids(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256("".join(cell["source"]).encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        yield {"id": f"{digest}-{seen[digest]}", **cell}


# ---------------------------------------------------------------------------------------------- opened, and published
def begin(*, seconds: Mapping[str, int], seed: int = 0) -> None:
    """A tutorial's first line: seed everything, and say versions, device, mode and how long the cells will take.

    Computes on one thread from here on: small networks are fastest so, above all where others compute too.

    seconds: what the whole notebook takes on two CPU cores, measured, for each mode ("fast", "full").
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    versions = f"regkit {__version__} · torch {torch.__version__} · Python {platform.python_version()}"
    print(printable(f"{versions} · {device}"))
    print(f"REGKIT_MODE={mode()}: all cells together take about {seconds[mode()]} s of computing on two cores.")


def lab(*, browser: bool = True, port: int = 8888) -> int:
    """Open the course in JupyterLab at the first tutorial; returns JupyterLab's exit status."""
    tutorials = folder()
    first = editions(sources(tutorials)[0])["learner"]
    address = f"/lab/tree/{first.name}"
    command = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url={address}", f"--port={port}"]
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # in a container
    with tempfile.TemporaryDirectory() as settings, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends a lab
        return subprocess.call(command, cwd=tutorials, env={**os.environ, **_without_pop_ups(Path(settings))})
    return 0


def _without_pop_ups(folder: Path) -> dict[str, str]:
    """Settings for JupyterLab in an empty folder, and the variable that names it: no news, no search for updates."""
    page = folder / "labconfig" / "page_config.json"
    page.parent.mkdir()
    page.write_text(json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}))
    paths = [str(folder), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    return {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}


def publish(tutorials: Path, target: Path) -> list[Path]:
    """Run every learner's notebook and write it as an HTML page whose pictures move without a kernel; and an index.

    Returns the pages, the index last.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails; the pages written before stay.
    """
    import nbformat
    from nbclient import NotebookClient

    from regkit.course.pages import to_html

    target.mkdir(parents=True, exist_ok=True)
    pages = []
    for source in tqdm(sources(tutorials), unit="page"):
        notebook = nbformat.read(editions(source)["learner"], as_version=4)
        client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tutorials)}})
        client.execute(env={**os.environ, "REGKIT_STATIC": "1"})
        pages.append(target / f"{source.stem}.html")
        pages[-1].write_text(to_html(notebook), encoding="utf-8")
    links = "".join(f'<li><a href="{page.name}">{page.stem.replace("_", " ")}</a></li>' for page in pages)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>regkit</title><h1>regkit</h1>'
    pages.append(target / "index.html")
    pages[-1].write_text(f"{head}<ol>{links}</ol></html>", encoding="utf-8")
    return pages
