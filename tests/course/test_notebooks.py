"""The notebooks are what their scripts make; the command line and the README's lines do what they say."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tutorials import ROOT, SOURCES

from regkit import __main__ as command_line
from regkit import __version__, training
from regkit.course import notebooks
from regkit.images import Grid, Scan, write_image
from regkit.types import DISTRIBUTION

SCRIPT = """# %% [markdown]
# # A title
# %%
shared = 1
# %% tags=["exercise"]
answer = ...
# %% tags=["solution"]
answer = shared + 1
# %% [markdown] tags=["instructor"]
# They will answer 1.
# %%
shared = 1
"""


@pytest.fixture
def tutorials(tmp_path, monkeypatch):
    folder = tmp_path / "tutorials"
    folder.mkdir()
    (folder / "00_first_light.py").write_text(SCRIPT)
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/OWNER/NAME"\n')
    monkeypatch.chdir(tmp_path)
    return folder


def texts(path):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def test_each_edition_shows_what_is_meant_for_its_reader(tutorials):
    notebooks.build(tutorials)
    learner, instructor = (
        texts(tutorials / "00_first_light.ipynb"),
        texts(tutorials / "instructor/00_first_light.ipynb"),
    )
    assert "answer = ..." in learner and "answer = shared + 1" not in learner and "They will answer 1." not in learner
    assert (
        "answer = ..." not in instructor and "answer = shared + 1" in instructor and "They will answer 1." in instructor
    )
    for cells, name in ((learner, "00_first_light"), (instructor, "instructor/00_first_light")):
        assert cells[0] == "# A title" and f"OWNER/NAME/blob/{notebooks.TAG}/tutorials/{name}.ipynb" in cells[1]
        assert f"{DISTRIBUTION}[notebooks,itk] @ git+https://github.com/OWNER/NAME@{notebooks.TAG}" in cells[2]
    first = json.loads((tutorials / "00_first_light.ipynb").read_text())["cells"][2]
    assert first["metadata"] == {"jupyter": {"source_hidden": True}, "cellView": "form"}


def test_a_notebooks_links_lead_on_and_back_and_to_the_papers_that_the_readme_cites(tutorials):
    for name in ("06_b", "07_c"):
        (tutorials / f"{name}.py").write_text(SCRIPT.replace("A title", name))
    notebooks.build(tutorials)
    first, second, last = (texts(path)[1].split(" | ") for path in sorted(tutorials.glob("*.ipynb")))
    assert first[0] == "[06_b](06_b.ipynb) →" and last[0] == "← [06_b](06_b.ipynb)"
    assert second[:3] == ["← [A title](00_first_light.ipynb)", "[07_c](07_c.ipynb) →", "[glossary](README.md#Glossary)"]
    assert [part.split(":")[0] for part in second].count("paper") == 2
    assert texts(tutorials / "instructor/07_c.ipynb")[1].split(" | ")[1] == "[glossary](../README.md#Glossary)"
    readme = (ROOT / "README.md").read_text()
    addresses = {one for papers in notebooks.PAPERS.values() for one in papers.values()}
    assert addresses == set(re.findall(r"^\[\w+\]: (https://doi\.org/\S+)$", readme, re.MULTILINE))


def test_building_twice_changes_nothing_and_an_edit_keeps_the_other_cells_ids(tutorials):
    def ids():
        cells = json.loads((tutorials / "00_first_light.ipynb").read_text())["cells"]
        assert len({cell["id"] for cell in cells}) == len(cells)  # also where two cells say the same
        return [cell["id"] for cell in cells]

    assert len(notebooks.build(tutorials)) == 2 and notebooks.build(tutorials) == []
    before = ids()
    (tutorials / "00_first_light.py").write_text(SCRIPT.replace("# # A title", "# # Another title"))
    assert len(notebooks.build(tutorials)) == 2
    assert [a == b for a, b in zip(before, ids(), strict=True)] == [index != 0 for index in range(len(before))]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_committed_notebooks_are_what_their_script_makes(source):
    for which, path in notebooks.editions(source).items():
        assert path.read_text(encoding="utf-8") == notebooks.edition(source, which), "run: python -m regkit notebooks"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_tutorial_has_every_part_that_the_course_promises(source):
    text = source.read_text(encoding="utf-8")
    for part in ("Goals", "Before you start", "Time", "Predict", "Break it", "Exercise", "Take away", "Next"):
        assert part in text, f"{source.name} lacks the part {part!r}"
    assert "check." in text and "assert " in text and "begin(" in text


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_cell_of_code_is_longer_than_a_screen(source):
    for cell in re.split(r"^# %%", source.read_text(encoding="utf-8"), flags=re.MULTILINE)[2:]:
        words, *lines = cell.splitlines()
        code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        assert "[markdown]" in words or len(code) <= 25, f"{source.name}: {len(code)} lines from {code[0]!r} on"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_claim_that_fails_says_what_was_claimed_and_the_number_that_it_met(source):
    claims = [node for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, ast.Assert)]
    for claim in claims:
        place = f"{source.name}, line {claim.lineno}: {ast.unparse(claim.test)}"
        assert isinstance(claim.msg, ast.JoinedStr), f"{place}: an f-string is wanted that tells a learner what to do"
        numbers = [part for part in claim.msg.values if isinstance(part, ast.FormattedValue)]
        words = " ".join(part.value for part in claim.msg.values if isinstance(part, ast.Constant)).split()
        assert numbers and len(words) >= 5 and "here" in words, f"{place}: a sentence and what is met *here* are wanted"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_courses_table_and_the_head_state_each_tutorials_times(source):
    text = source.read_text(encoding="utf-8")
    times = re.search(r"begin\(seconds={\"fast\": (\d+), \"full\": (\d+)}, minutes=(\d+)\)", text)
    fast, full, minutes = times.groups()
    (head,) = re.findall(r"^# \*\*Time\.\*\* (.*)$", text, re.MULTILINE)
    assert re.findall(r"(\d+) (?:minutes|s)\b", head) == [minutes, fast, *([full] if full != fast else [])]
    table = (ROOT / "tutorials" / "README.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {source.stem[:2]} | [")]
    assert f"({source.stem}.ipynb)" in row and f"| {minutes} | {fast} / {full} |" in row


def test_the_glossarys_pictures_are_there():
    folder = ROOT / "tutorials"
    pictures = re.findall(r"!\[.+?\]\((glossary/.+?)\)", (folder / "README.md").read_text())
    assert len(pictures) >= 12 and all((folder / picture).is_file() for picture in pictures)


def test_the_command_line_makes_the_notebooks_and_a_forks_stay_a_forks(tutorials, capsys):
    assert command_line.main(["notebooks"]) == 0
    assert capsys.readouterr().out.count("made 00_first_light.ipynb") == 2
    assert command_line.main(["notebooks", "--repository", "fork/of-it"]) == command_line.main(["notebooks"]) == 0
    assert capsys.readouterr().out.count("made") == 2 and notebooks.repository() == "fork/of-it"
    assert "github/fork/of-it/blob" in texts(tutorials / "00_first_light.ipynb")[1]
    assert command_line.main(["notebooks", "--repository", "https://fork"]) == 1
    assert "OWNER/NAME" in capsys.readouterr().err


def test_lab_opens_the_first_tutorial(tutorials, monkeypatch):
    calls = []

    def call(command, cwd, env):
        settings = [
            Path(path) / "labconfig" / "page_config.json" for path in env["JUPYTER_CONFIG_PATH"].split(os.pathsep)
        ]
        calls.append((command, cwd, json.loads(settings[0].read_text())))
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    notebooks.build(tutorials)
    assert command_line.main(["lab", "--no-browser", "--port", "9999"]) == 0
    command, folder, page = calls[0]
    assert command[:3] == [sys.executable, "-m", "jupyterlab"] and folder == Path("regkit-course")
    assert "--LabApp.default_url=/lab/tree/00_first_light.ipynb" in command
    assert "--port=9999" in command and "--no-browser" in command
    assert page == {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


def test_lab_survives_ctrl_c(tutorials, monkeypatch):
    def interrupt(command, cwd, env):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "call", interrupt)
    notebooks.build(tutorials)
    assert notebooks.lab() == 0


def test_a_working_copy_keeps_what_was_worked_in_and_gets_what_is_newer_beside_it(tutorials, tmp_path):
    notebooks.build(tutorials)
    copy, name = tmp_path / "copy", "00_first_light.ipynb"
    (tutorials / "README.md").write_text("glossary")
    (tutorials / "glossary").mkdir()
    (tutorials / "glossary" / "warp.png").write_bytes(b"\x89PNG")
    (tutorials / "glossary" / "draw.py").write_text("")
    came = [path.relative_to(copy).as_posix() for path in notebooks.working_copy(copy)]
    assert came == [name, "README.md", "glossary/warp.png"]  # no script, no solution
    book = json.loads((copy / name).read_text())
    book["cells"][-1]["execution_count"] = 1
    (copy / name).write_text(json.dumps(book))
    assert notebooks.working_copy(copy) == []  # worked in, and nothing is newer
    (tutorials / "00_first_light.py").write_text(SCRIPT.replace("shared = 1", "shared = 2"))
    (tutorials / "README.md").write_text("a longer glossary")
    notebooks.build(tutorials)
    assert notebooks.working_copy(copy) == [copy / "00_first_light.new.ipynb", copy / "README.md"]
    assert json.loads((copy / name).read_text()) == book and notebooks.working_copy(copy) == []
    (copy / "README.md").write_text("my notes")
    (copy / name).unlink()
    (tutorials / "README.md").write_text("the longest glossary")
    assert notebooks.working_copy(copy) == [copy / name, copy / "README.new.md"]
    assert (copy / "README.md").read_text() == "my notes"


@pytest.mark.parametrize(("found", "pip", "words"), [("theirs", 0, "another library"), (None, 1, "upload its wheel")])
def test_the_first_cell_knows_another_regkit_and_says_what_to_do_where_it_cannot_install(
    found, pip, words, tutorials, tmp_path, monkeypatch
):
    def call(command):
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, pip)

    asked = []
    notebooks.build(tutorials)
    cell = compile(texts(tutorials / "00_first_light.ipynb")[2], "cell", "exec")
    exec(cell)  # ours is here
    (tmp_path / "regkit").mkdir()
    place = ModuleSpec("regkit", None, is_package=True)
    place.submodule_search_locations = [str(tmp_path / "regkit")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: place if found else None)
    monkeypatch.setattr(subprocess, "run", call)
    with pytest.raises(ImportError, match=words):
        exec(cell)
    assert [DISTRIBUTION in each for each in asked] == ([] if found else [True])


def test_the_tutorials_are_found_beside_the_package_and_missed_with_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert notebooks.folder() == ROOT / "tutorials"
    monkeypatch.setattr(notebooks, "PACKAGE", tmp_path / "elsewhere" / "regkit")
    with pytest.raises(FileNotFoundError, match="clone of the repository"):
        notebooks.folder()


def test_begin_says_versions_mode_and_time_and_sets_the_mode(capsys, monkeypatch):
    monkeypatch.setenv("REGKIT_MODE", "fast")
    notebooks.begin(seconds={"fast": 12, "full": 120}, minutes=45)
    said = capsys.readouterr().out
    assert "regkit" in said and "REGKIT_MODE=fast" in said and "about 12 s" in said and "about 45 min" in said
    assert 'mode="full"' in said and "(120 s)" in said
    notebooks.begin(seconds={"fast": 12, "full": 120}, mode="full")
    assert "REGKIT_MODE=full" in capsys.readouterr().out and training.mode() == "full"
    with pytest.raises(ValueError, match="slow"):
        notebooks.begin(seconds={"fast": 12, "full": 120}, mode="slow")
    assert training.mode() == "full"
    assert torch.get_num_threads() == 1


def test_the_readmes_python_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    library, scans = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(library, names)
    assert len(names["history"]) == 10 and names["warped"].shape == names["pair"].fixed.shape
    for name, shape in {"moving": (17, 12, 9), "fixed": (11, 14, 10)}.items():
        grid = Grid(shape, np.diag([2.0, 1.5, 3.0, 1.0]))
        write_image(tmp_path / f"{name}.nii.gz", Scan(torch.rand(1, 1, *shape), grid, grid))
    exec(scans, names)
    assert names["there"].tensor.shape == names["fixed"].tensor.shape == (1, 1, 11, 14, 10)


def test_readme_has_two_lines_that_the_ci_and_conda_agree_with():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    lines = re.findall(r"^python3 -m venv .* -m .*$", readme, re.MULTILINE)
    assert len(lines) == 2 and lines[0].endswith("-m regkit lab") and lines[1].endswith("-m pytest -n 2")
    pattern = re.search(r"grep -m 1 -E '(.*)' README.md", ci).group(1)
    assert [line for line in lines if re.search(pattern, line)] == [lines[1]]
    for line in lines:
        assert "-c .ci/constraints.txt" in line
    assert "--constraint .ci/constraints.txt" in (ROOT / "environment.yml").read_text()


def test_the_workflows_are_yaml_run_scripts_that_exist_and_test_every_python_that_is_promised():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the dev extra")
    flows = {path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob(".github/workflows/*.yml")}
    assert set(flows) == {"tests", "notebooks", "pages", "release"}
    jobs = {name: flow["jobs"][name] for name, flow in flows.items()}
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    scripts = {run.split()[0] for steps in runs.values() for run in steps if run.startswith(".ci/")}
    assert scripts == {".ci/run", ".ci/versions", ".ci/release"}
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)
    assert all(".ci/run" in runs[name] for name in ("tests", "notebooks", "release"))
    matrix, classifiers = jobs["tests"]["strategy"]["matrix"], (ROOT / "pyproject.toml").read_text()
    assert {*re.findall(r"Python :: (3\.\d+)", classifiers)} <= {*matrix["python"]}
    assert {"newest", "oldest"} <= {*matrix["versions"], *(one["versions"] for one in matrix["include"])}


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_the_ci_tests_other_versions_too(which, tmp_path):
    for name in (".ci/versions", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, tmp_path / ".ci/versions", which], check=True)
    lines = (tmp_path / ".ci/constraints.txt").read_text().splitlines()
    assert ("torch==2.10.*" in lines and "ipywidgets==7.7.*" in lines) is (which == "oldest")
    assert which == "oldest" or not lines


def test_names_and_versions_agree_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, code = project["optional-dependencies"], "".join(path.read_text() for path in ROOT.glob("regkit/**/*.py"))
    assert project["name"] == DISTRIBUTION and project["urls"]["Repository"].endswith(notebooks.repository())
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    asked = set(re.findall(r'needing\("(\w+)"', code))
    assert asked >= {"notebooks", "lab", "itk", "ants", "dev"} and asked <= set(extras)


def test_a_notebook_that_was_worked_in_stays(tmp_path):
    source = tmp_path / "00_one.py"
    source.write_text("# %%\nx = 1\n\n# %%\nx = 1\n")
    (learner, instructor), beside = notebooks.build(tmp_path), tmp_path / "00_one.new.ipynb"
    assert notebooks.is_untouched(learner) and notebooks.build(tmp_path) == []
    source.write_text("# %%\nx = 2\n")
    assert notebooks.build(tmp_path) == [learner, instructor]  # an older one, as it was made, is replaced
    for change in ({"source": ["x = 3"]}, {"execution_count": 1}, {"outputs": [{"output_type": "stream"}]}):
        beside.unlink(missing_ok=True)
        learner.write_text(notebooks.edition(source, "learner"), encoding="utf-8")
        book = json.loads(learner.read_text(encoding="utf-8"))
        book["cells"][-1] |= change
        learner.write_text(json.dumps(book), encoding="utf-8")
        assert notebooks.build(tmp_path) == [beside] and json.loads(learner.read_text(encoding="utf-8")) == book
        assert notebooks.build(tmp_path) == []
    beside.write_text("{}", encoding="utf-8")
    assert notebooks.build(tmp_path) == [tmp_path / "00_one.new1.ipynb"] and beside.read_text() == "{}"
