"""The rules that keep the library small and readable, held as laws."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "regkit").rglob("*.py"))
LONGEST = {"widgets.py": 400}
LAYERS = [  # imports point from later to earlier layers only
    {"types", "algebra"},
    {"grids", "sampler", "inversion", "volume_change"},
    {"fields"},
    {"windows", "penalties", "losses", "regularity", "metrics", "layers", "splines", "clusters", "symmetry"},
    {"models"},
    {"files", "official", "checkpoints", "runs", "resuming", "training", "data", "anatomy", "appearance", "brains"},
    {"vessels"},
    {"scans", "images", "itk", "folders", "optimise", "alignment", "refine", "syn", "measuring", "methods"},
    {"benchmarks", "studies", "scan_pairs", "comparisons", "protocols", "tables", "tissues", "scan_comparisons"},
    {"leaderboard"},
    {"symptoms", "intake", "patients"},
    {"variants"},
    {"ledger", "laws"},
    {"claims"},
]


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_the_code_is_clean(command):
    run(*command)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= LONGEST.get(path.name, 300)


def functions():
    for path in FILES:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
                lines = text.splitlines()[docstring : node.end_lineno]
                code = [line for line in lines if line.strip() and not line.strip().startswith("#")]
                yield f"{path.relative_to(ROOT)}:{node.name}", len(code)


def test_functions_do_one_thing():
    lengths = dict(functions())
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert sum(length <= 25 for length in lengths.values()) >= 0.9 * len(lengths)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_public_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    undocumented = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert undocumented == []


@pytest.mark.parametrize("layer", range(len(LAYERS)), ids=lambda index: ", ".join(sorted(LAYERS[index])))
def test_imports_point_one_way(layer):
    allowed = set().union(*LAYERS[: layer + 1])
    for name in LAYERS[layer]:
        paths = [ROOT / "regkit" / f"{name}.py", *(ROOT / "regkit" / name).glob("*.py")]
        for path in filter(Path.exists, paths):
            imported = set(re.findall(r"^from regkit\.(\w+)", path.read_text(), re.MULTILINE))
            imported |= set(re.findall(r"^from regkit import (\w+)", path.read_text(), re.MULTILINE))
            assert imported <= allowed, f"{path.name} imports {sorted(imported - allowed)}"


def test_only_the_sampler_knows_the_sampling_grid():
    knowing = {path.name for path in FILES if "grid_sample" in path.read_text()}
    assert len(knowing) == 1, knowing


def test_checkpoints_are_never_unpickled():
    for path in FILES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if ast.unparse(call.func) in ("torch.load", "pickle.load", "pickle.loads"):
                assert "weights_only=True" in [ast.unparse(keyword) for keyword in call.keywords], path.name


def test_the_library_imports_without_the_course_and_in_any_folder(tmp_path):
    block = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'ipywidgets', 'jupytext', 'IPython']))"
    subprocess.run([sys.executable, "-c", f"{block}; import regkit; regkit.models.SITReg"], cwd=tmp_path, check=True)
