"""The course's machinery: one percent script per tutorial, the notebooks made from it, its modes, and the way in.

A tutorial is edited as `tutorials/NN_topic.py`. Its cells carry tags: `exercise` (what the learner fills in),
`solution` and `instructor`. `build` derives the learner's notebook (`tutorials/NN_topic.ipynb`: no solutions, no
instructor's notes) and the instructor's (`tutorials/instructor/NN_topic.ipynb`: no blank exercises). After the title
both have two cells made here: links to what is before, after and beside it, and, folded, what installs regkit in Colab;
at the end a third, further readings.
`lab` opens a working copy of the
learner's notebooks: those of a clone, or those that an installed regkit has (regkit/course/tutorials, put there by
setup.py). A function under `@check.<name>` has blanks for the learner, and the solution of
`regkit.course.check.hands` for the instructor.
"""

import contextlib
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from regkit import training
from regkit._core import __version__
from regkit._core.files import PACKAGE, printable, write_atomically
from regkit.course.papers import further_reading
from regkit.training import Mode
from regkit.types import DISTRIBUTION, InputError, MissingFileError, needing

__all__ = [
    "BADGE",
    "BOOTSTRAP",
    "HIDDEN",
    "TAG",
    "Edition",
    "begin",
    "build",
    "edition",
    "editions",
    "folder",
    "kept",
    "lab",
]
__all__ += ["publish", "repository", "set_repository", "sources", "working_copy"]  # what regkit.course has

Edition = Literal["learner", "instructor"]
HIDDEN: dict[Edition, set[str]] = {"learner": {"solution", "instructor"}, "instructor": {"exercise"}}
TAG = f"v{__version__}"

PAPERS = {  # the papers of a tutorial's method, by its number
    "06": {
        "Balakrishnan et al. 2019": "https://doi.org/10.1109/TMI.2019.2897538",
        "Dalca et al. 2019": "https://doi.org/10.1016/j.media.2019.07.006",
    },
    "07": {"Tian et al. 2023": "https://doi.org/10.1109/CVPR52729.2023.01734"},
    "08": {"Zhang et al. 2023": "https://doi.org/10.1016/j.compmedimag.2023.102184"},
    "09": {"Honkamaa and Marttinen 2024": "https://doi.org/10.59275/j.melba.2024-276b"},
    "10": {"Cheng et al. 2025": "https://doi.org/10.48550/arXiv.2503.19592"},
}
BADGE = "[Open in Colab](https://colab.research.google.com/github/{repository}/blob/{tag}/tutorials/{name}.ipynb)"
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # in JupyterLab, in Colab
BOOTSTRAP = """# @title Where regkit is missing (Colab), this installs it as it was when this notebook was made
import importlib.util
import subprocess
import sys
from pathlib import Path

found = importlib.util.find_spec("regkit")
if found and not any((Path(place) / "course").is_dir() for place in found.submodule_search_locations or ()):
    raise ImportError("this regkit is another library: run `pip uninstall regkit`, then restart the kernel")
if not found:
    source = "{distribution}[notebooks,itk] @ git+https://github.com/{repository}@{tag}"
    if subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source]).returncode:
        raise ImportError("regkit cannot be installed from its address: upload its wheel and `pip install` it here, "
                          "or install regkit from a clone, as its README says")"""


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


def repository() -> str:
    """OWNER/NAME of the repository, from the URLs in the clone's pyproject.toml."""
    urls = tomllib.loads((folder().parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    return "/".join(urls["Repository"].rstrip("/").split("/")[-2:])


def set_repository(name: str) -> None:
    """Write OWNER/NAME into the URLs in the clone's pyproject.toml; `build` takes it from there.

    Raises:
        ValueError: it is not OWNER/NAME. OSError: the file cannot be written.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError("a repository is OWNER/NAME", repr(name), "name it as its address on GitHub does")
    project = folder().parent / "pyproject.toml"
    text = project.read_text(encoding="utf-8").replace(f"github.com/{repository()}", f"github.com/{name}")
    write_atomically(project, text.encode())


def sources(tutorials: Path) -> list[Path]:
    """The percent scripts of a folder, in the course's order."""
    return sorted(tutorials.glob("[0-9][0-9]_*.py"))


def edition(source: Path, which: Edition) -> str:
    """One edition of a tutorial as notebook JSON: without outputs, with ids that depend on the cells' text alone."""
    with needing("dev", "making notebooks"):
        import jupytext

    notebook = jupytext.read(source)
    shown = [cell for cell in notebook.cells if not HIDDEN[which] & set(cell.metadata.get("tags", []))]
    texts = [_solved(cell.source) if which == "instructor" else cell.source for cell in shown]
    cells = [_cell(cell.cell_type, text, cell.metadata) for cell, text in zip(shown, texts, strict=True)]
    readings = further_reading(source.name[:2])
    ending = [_cell("markdown", readings, {})] if readings else []
    content = {
        "cells": list(_with_ids([*cells[:1], *_opening(source, which), *cells[1:], *ending])),
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
            changed += _deliver(edition(source, which).encode(), place)
    return changed


def _deliver(content: bytes, place: Path, earlier: str | None = None) -> list[Path]:
    """Put a file in its place, or beside it where that one was worked in; returns where, if its bytes changed.

    earlier: the checksum of what was delivered there before; a file that still has it was not worked in either.
    """
    for path in _places(place):
        current = path.read_bytes() if path.exists() else None
        if current == content:
            break
        if current is None or hashlib.sha256(current).hexdigest() == earlier or is_untouched(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            return [path]
    return []


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
    yield from (path.with_suffix(f".new{number or ''}{path.suffix}") for number in itertools.count())


def editions(source: Path) -> dict[Edition, Path]:
    """Where a tutorial's notebooks lie."""
    return {
        "learner": source.with_suffix(".ipynb"),
        "instructor": source.parent / "instructor" / f"{source.stem}.ipynb",
    }


def title(source: Path) -> str:
    """What a tutorial's first heading says; its file's name where there is none."""
    found = re.search(r"^# # (.+)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else source.stem


def _opening(source: Path, which: Edition) -> list[dict[str, Any]]:
    """The cells after the title: a line of links, and what installs regkit."""
    order, inside = sources(source.parent), which == "instructor"
    place = order.index(source)
    links = [f"← [{title(one)}]({one.stem}.ipynb)" for one in order[:place][-1:]]
    links += [f"[{title(one)}]({one.stem}.ipynb) →" for one in order[place + 1 : place + 2]]
    up = "../" if inside else ""
    links += [f"[glossary]({up}README.md#Glossary)", f"[map of the field]({up}map.md)"]
    links += [f"paper: [{words}]({address})" for words, address in PAPERS.get(source.name[:2], {}).items()]
    name = f"instructor/{source.stem}" if inside else source.stem
    words = {"repository": repository(), "tag": TAG, "name": name, "distribution": DISTRIBUTION}
    links += [BADGE.format(**words)]
    return [_cell("markdown", " | ".join(links), {}), _cell("code", BOOTSTRAP.format(**words), FOLDED)]


def _solved(text: str) -> str:
    """A cell's text; the solution in place of a function that the learner writes."""
    from regkit.course import check

    name = re.match(r"@check\.(\w+)\n", text)
    return f"{name[0]}{getattr(check, name[1]).solution}" if name else text


def _cell(kind: str, text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: metadata[key] for key in ("tags", *FOLDED) if metadata.get(key)}
    cell: dict[str, Any] = {"cell_type": kind, "metadata": kept}
    cell |= {"execution_count": None, "outputs": []} if kind == "code" else {}
    return cell | {"source": text.splitlines(keepends=True)}


def _with_ids(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256("".join(cell["source"]).encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        yield {"id": f"{digest}-{seen[digest]}", **cell}


# ---------------------------------------------------------------------------------------------- opened, and published
def begin(*, seconds: Mapping[str, int], seed: int = 0, minutes: int | None = None, mode: Mode | None = None) -> None:
    """A tutorial's first line: seed everything, and say versions, device, mode and how long the cells will take.

    Computes on one thread from here on: small networks are fastest so, above all where others compute too.

    seconds: what the whole notebook takes on two CPU cores, measured, for each mode ("fast", "full"). minutes: about
    what a reader takes. mode: the mode from here on; None leaves REGKIT_MODE as it is.

    Raises:
        ValueError: the mode, or REGKIT_MODE, is neither "fast" nor "full".
    """
    now = training.mode(mode)
    os.environ["REGKIT_MODE"] = now
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    versions = f"regkit {__version__} · torch {torch.__version__} · Python {platform.python_version()}"
    print(printable(f"{versions} · {device}"))
    print(f"REGKIT_MODE={now}: all cells together take about {seconds[now]} s of computing on two cores.")
    if minutes:
        print(f"You will take about {minutes} minutes.")
    other = "full" if now == "fast" else "fast"
    print(f'For {other} mode ({seconds[other]} s), write begin(mode="{other}", ...) above and run this cell again.')


def kept(name: str, *, again: bool) -> Path | None:
    """Where a training keeps its state beside the notebook, for `training.train(checkpoint=...)`, in this mode.

    again: from the start; what an earlier run kept is removed. Else the training goes on from it, and one that had come
    to its end gives its network and history at once. None where nothing can be written, which is said.
    """
    path = Path(f"my_{name}_{training.mode()}.ckpt")
    if not os.access(Path(), os.W_OK):
        print("Nothing can be written beside this notebook: after a restart the training begins anew.")
        return None
    if again:
        path.unlink(missing_ok=True)
    else:
        print(f"going on from {path}" if path.exists() else f"there is no {path} yet: the training begins anew")
    return path


def working_copy(target: Path) -> list[Path]:
    """Bring the learner's notebooks, the glossary and its pictures into a folder, where they may be worked in.

    What is there and was worked in stays; where regkit has a newer one, it comes beside it, as NAME.new.ipynb. What was
    delivered is noted in .regkit-course.json. Returns the files that came, none where all is as it was.

    Raises:
        FileNotFoundError: regkit was installed without its course. OSError: the folder cannot be written.
    """
    inside = PACKAGE / "course" / "tutorials"
    course = inside if inside.is_dir() else folder()
    files = [path for kind in ("*.ipynb", "*.md", "glossary/*.png") for path in sorted(course.glob(kind))]
    note = target / ".regkit-course.json"
    before = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    delivered, came = {}, []
    for path in files:
        name, content = path.relative_to(course).as_posix(), path.read_bytes()
        delivered[name] = hashlib.sha256(content).hexdigest()
        if delivered[name] != before.get(name) or not (target / name).exists():
            came += _deliver(content, target / name, before.get(name))
    write_atomically(note, json.dumps(delivered, indent=1).encode())
    return came


def lab(target: Path | str = "regkit-course", *, browser: bool = True, port: int = 8888) -> int:
    """Open a working copy of the course in JupyterLab at the first tutorial; returns JupyterLab's exit status."""
    with needing("lab", "opening the course"):
        import jupyterlab  # noqa: F401
    target = Path(target)
    beside = [path.name for path in working_copy(target) if ".new" in path.suffixes[0]]
    print(f"the course is in {target}" + (f"; newer beside what you changed: {', '.join(beside)}" if beside else ""))
    address = f"/lab/tree/{min(target.glob('[0-9][0-9]_*.ipynb')).name}"
    command = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url={address}", f"--port={port}"]
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # in a container
    with tempfile.TemporaryDirectory() as settings, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends a lab
        return subprocess.call(command, cwd=target, env={**os.environ, **_without_pop_ups(Path(settings))})
    return 0


def _without_pop_ups(folder: Path) -> dict[str, str]:
    """Settings for JupyterLab in an empty folder, and the variable that names it: no news; the glossary as it reads."""
    own = folder / "labconfig"
    own.mkdir()
    news, viewers = "@jupyterlab/apputils-extension:announcements", {"markdown": "Markdown Preview"}
    (own / "page_config.json").write_text(json.dumps({"disabledExtensions": {news: True}}))
    settings = {"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": viewers}}
    (own / "default_setting_overrides.json").write_text(json.dumps(settings))
    paths = [str(folder), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    return {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}


def publish(tutorials: Path, target: Path) -> list[Path]:
    """Run every learner's notebook and write it as an HTML page whose pictures move without a kernel.

    Beside them come the glossary, the course's other texts (`*.md`), the library's reference (api/), and an index.
    Returns the pages, the index last.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails; the pages written before stay.
    """
    with needing("dev", "making pages"):
        import nbformat
        from nbclient import NotebookClient

        from regkit.course import pages

    target.mkdir(parents=True, exist_ok=True)
    for pictures in ("gallery", "glossary"):
        if (tutorials / pictures).is_dir():
            ignored = shutil.ignore_patterns("*.py")
            shutil.copytree(tutorials / pictures, target / pictures, ignore=ignored, dirs_exist_ok=True)
    written, notebooks = [], {}
    for source in tqdm(sources(tutorials), unit="page"):
        notebook = nbformat.read(editions(source)["learner"], as_version=4)
        notebook.cells = [cell for cell in notebook.cells if not cell.metadata.keys() & FOLDED.keys()]
        client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tutorials)}})
        client.execute(env={**os.environ, "REGKIT_STATIC": "1"})
        notebooks[source.stem] = notebook
        written.append(target / f"{source.stem}.html")
        written[-1].write_text(pages.to_html(notebook, title(source)), encoding="utf-8")
    for name, text in pages.texts(tutorials, notebooks).items():
        written.append(target / f"{name}.html")
        written[-1].write_text(pages.text_to_html(text), encoding="utf-8")
    pages.reference(target / "api")
    return written
