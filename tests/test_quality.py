"""The rules that keep the library small and readable, held as laws."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "regkit").rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))

FLOORS = [  # imports point to earlier floors; rooms of one floor may know each other, but not in a circle
    {"types"},
    {"_core"},
    {"fields"},
    {"losses", "metrics", "training"},
    {"models"},
    {"checkpoints", "optimise"},
    {"data", "images"},
    {"figures"},
    {"tools"},
    {"widgets"},
    {"course"},
    {"commands"},
    {"__init__", "__main__"},
]
COMPUTE = {room for floor in FLOORS[:6] for room in floor}
MOST_LINES, MOST_COMPUTE_LINES, MOST_IMPORT_PERCENT = 27500, 7500, 6.4  # goals: 18000, 6000 and 5
MOST_TEST_LINES = 19400  # goal: 15000

FOREIGN_MESSAGES = {  # errors of other packages that only their words tell apart
    "images/formats.py": "nibabel: a quaternion that is too long is a ValueError; SimpleITK's words are shown",
    "_core/files.py": "torch: what else a checkpoint holds is told in words only",
    "types.py": "torch: memory that a processor does not have is a RuntimeError like others",
    "course/check/t14_your_own_brain.py": "SimpleITK: its errors are RuntimeErrors like torch's",
    "images/transforms.py": "SimpleITK: its last line says what is wrong with a file",
}
DISPATCHING: set[str] = set()


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_the_code_is_clean(command):
    run(*command)


# ---------------------------------------------------------------------------------------------- size


def lines(paths):
    return sum(len(path.read_text().splitlines()) for path in paths)


@each_file
def test_a_file_can_be_read_in_one_sitting(path):
    assert lines([path]) <= 600


def test_the_house_stays_small():
    assert lines(FILES) <= MOST_LINES
    assert lines(path for path in FILES if room(path) in COMPUTE) <= MOST_COMPUTE_LINES
    assert lines((ROOT / "tests").rglob("*.py")) <= MOST_TEST_LINES


def test_few_lines_are_imports():
    imports = [node for path in FILES for node in nodes(path) if isinstance(node, (ast.Import, ast.ImportFrom))]
    count = sum(node.end_lineno - node.lineno + 1 for node in imports)
    assert 100 * count / lines(FILES) < MOST_IMPORT_PERCENT


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


@each_file
def test_what_is_public_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    undocumented = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and "overload" not in map(ast.unparse, node.decorator_list)  # what it is an overload of has one
    ]
    assert undocumented == []


# ---------------------------------------------------------------------------------------------- imports


@functools.cache
def nodes(path):
    """All nodes of a file's syntax, but those of imports that only annotations need."""
    found = [ast.parse(path.read_text())]
    for node in found:  # which grows
        annotations_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        found += [] if annotations_only else ast.iter_child_nodes(node)
    return found


def module(path):
    """`regkit.models.layers` for regkit/models/layers.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(path):
    return path.relative_to(ROOT / "regkit").parts[0].removesuffix(".py")


ROOMS = {module(path): room(path) for path in FILES}


def imported(path):
    """The modules of regkit that a file imports, also those within functions."""
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "regkit":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in ROOMS else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "regkit")


ARROWS = {module(path): set(imported(path)) - {module(path)} for path in FILES}
ROOM_ARROWS = {
    start: {ROOMS[end] for name, ends in ARROWS.items() if ROOMS[name] == start for end in ends} - {start}
    for start in set(ROOMS.values())
}


def floors(arrows):
    """On which floor each node lies, 1 where it imports nothing; a circle fails."""
    found = {}

    def visit(node, way=()):
        assert node not in way, f"a circle: {' -> '.join([*way, node])}"
        if node not in found:
            found[node] = 1 + max((visit(end, (*way, node)) for end in arrows[node]), default=0)
        return found[node]

    return {node: visit(node) for node in arrows}


def test_a_newcomer_meets_few_rooms():
    assert set(ROOMS.values()) == set().union(*FLOORS)
    assert len(set(ROOMS.values()) - {"__init__", "__main__"}) <= 16
    assert sum(map(len, ROOM_ARROWS.values())) <= 130
    assert max(floors(ROOM_ARROWS).values()) <= 12


@pytest.mark.parametrize("start", sorted(ROOM_ARROWS))
def test_imports_point_one_way(start):
    own = next(number for number, rooms in enumerate(FLOORS) if start in rooms)
    above = set().union(*FLOORS[own + 1 :])
    for name, ends in ARROWS.items():
        if ROOMS[name] == start:
            back = sorted(end for end in ends if ROOMS[end] in above)
            assert back == [], f"{name} imports from rooms that are built on it: {back}"


def test_no_modules_import_in_a_circle():
    floors(ARROWS)


# ---------------------------------------------------------------------------------------------- what code may do


def test_only_the_sampler_knows_the_sampling_grid():
    knowing = {path.name for path in FILES if "grid_sample" in path.read_text()}
    assert len(knowing) == 1, knowing


def test_checkpoints_are_never_unpickled():
    for path in FILES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if ast.unparse(call.func) in ("torch.load", "pickle.load", "pickle.loads"):
                assert "weights_only=True" in [ast.unparse(keyword) for keyword in call.keywords], path.name


def caught(path):
    """The names that errors have in a file: where they are caught, and as arguments."""
    for node in nodes(path):
        if isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        elif isinstance(node, ast.arg) and node.annotation and ast.unparse(node.annotation).endswith("Exception"):
            yield node.arg


def test_no_error_is_understood_by_its_words():
    """Its class and its parts (`InputError`) say what it is; its text is only shown, or its first line."""
    reading = set()
    for path in FILES:
        texts = {f"str({name})" for name in caught(path)}
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and node.attr not in ("splitlines", "join"):
                read = [node.value]  # str(error).lower()
            elif isinstance(node, ast.Compare):
                read = [node.left, *node.comparators]  # "memory" in str(error)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                read = node.args if re.search(r"match|search|findall|split$", node.func.attr) else []
            else:
                continue
            if texts & {ast.unparse(part) for part in read}:
                reading.add(str(path.relative_to(ROOT / "regkit")))
    assert reading <= set(FOREIGN_MESSAGES)


def test_models_are_read_without_looking_up_computed_names():
    """`getattr(model, "name", None)` asks whether something is there; `getattr(model, name)` hides what is run."""
    computed = set()
    for path in (ROOT / "regkit" / "models").rglob("*.py"):
        calls = [node for node in nodes(path) if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr"]
        if any(not isinstance(call.args[1], ast.Constant) for call in calls):
            computed.add(str(path.relative_to(ROOT / "regkit" / "models")))
    assert computed <= DISPATCHING


def test_the_library_imports_without_the_course_and_in_any_folder(tmp_path):
    block = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'ipywidgets', 'jupytext', 'IPython']))"
    subprocess.run([sys.executable, "-c", f"{block}; import regkit; regkit.models.SITReg"], cwd=tmp_path, check=True)
