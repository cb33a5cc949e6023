"""How far is each claim of a tutorial from failing? Measured over processors, threads and seeds. Run by hand:

    python tests/margins.py run 06 09 --modes fast full      # only combinations that are not in the store yet
    python tests/margins.py table 06 09                      # each claim, its values, and its margin
    python tests/margins.py run 06 --interrupt 3             # every training stops by Ctrl-C after three steps
    python tests/margins.py run 06 --twice                   # every cell that trains is run twice
    python tests/margins.py run tests/test_optimise.py       # the same of a test file

A combination is a tutorial in one edition and mode, on one kind of processor (`ATEN_CPU_CAPABILITY`, and oneDNN's and
MKL's instructions with it), on one or two threads, from one seed, with or without rounding noise. Each one is a process
of its own: it executes the cells of tutorials/NN_*.py as the edition shows them. In them every `assert` becomes a
record of both sides of its comparisons: nothing stops, so that one run measures all claims. One line of JSON a
combination is kept in the store, margins/ in the system's temporary folder by default; `--store` names another.

Seeds shift `torch.manual_seed`, `course.begin` and `Recipe`: other weights, another order of the pairs. A
`torch.Generator` of a cell makes data, which are the same on every machine: it stays. Rounding noise (`--noise n`)
changes every gradient that Adam sees by a relative 1e-6, from the random seed n: what another processor's order of
summation does, at the cost of no second machine.

Of a test file all asserts are recorded in the same way, test after test, and nothing stops there either: look at those
of tests that train or optimise.

The margin of `a < b` is b - a in the worst combination, that of `allclose` is 1 - error / tolerance. Its unit is the
standard deviation of that difference over the combinations in the table. Where both sides are positive the same is
asked of log b - log a, and the larger of the two counts: numbers that differ by factors are skewed. Below 3 a claim is
flagged: it holds by a hair.

A claim about a network that nobody trains holds for its own random weights, which are the same on every machine: that
it fails under another seed is no fault. The table says under which combinations a claim failed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTIONS = {  # the environment that makes this processor compute like a lesser one
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
SUGGESTED = {  # cpu, threads, seed, noise
    "fast": [
        *((cpu, 1, seed, 0) for seed in (0, 1, 2) for cpu in INSTRUCTIONS),
        ("avx512", 2, 0, 0),
        *(("avx512", 1, 0, noise) for noise in (1, 2)),
    ],
    "full": [*((cpu, 1, 0, 0) for cpu in INSTRUCTIONS), ("avx512", 1, 1, 0), ("avx512", 1, 2, 0)],
}
OPERATORS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
HOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "in": lambda a, b: a in b,
    "not in": lambda a, b: a not in b,
    "is": lambda a, b: a is b,
    "is not": lambda a, b: a is not b,
}
Node = dict[str, Any]  # a claim or a part of one: {"holds": ..., "text": ..., and either sides or parts}


# -- recording: what the cells call instead of `assert` -------------------------------------------------------------


class Recorder:
    """What the claims of one run compared."""

    def __init__(self) -> None:
        self.claims: list[Node] = []

    def claim(self, line: int, text: str, test: Callable[[], Node], message: Callable[[], Any]) -> None:
        """Evaluate and keep; an error in a claim is one more thing to tell."""
        try:
            node = test()
            with contextlib.suppress(Exception if node["holds"] else ()):  # Python asks for it only where a claim fails
                node = {**node, "message": str(message())}
        except Exception as error:
            node = {"holds": False, "text": text, "error": f"{type(error).__name__}: {error}"[:300]}
        self.claims.append({"line": line, "claim": text, **node})

    def both(self, *parts: Callable[[], Node]) -> Node:
        nodes = [node for node in self._evaluated(parts, stop=False) if node]
        return {"op": "and", "holds": all(node["holds"] for node in nodes), "parts": nodes}

    def either(self, *parts: Callable[[], Node]) -> Node:
        nodes = [node for node in self._evaluated(parts, stop=True) if node]
        return {"op": "or", "holds": any(node["holds"] for node in nodes), "parts": nodes}

    def _evaluated(self, parts: tuple[Callable[[], Node], ...], stop: bool) -> Iterator[Node | None]:
        """Every part, also those that Python would not come to: they may raise then."""
        decided = False
        for part in parts:
            try:
                node = part()
            except Exception:
                if not decided:
                    raise
                continue
            decided = decided or node["holds"] is stop
            yield node

    def every(self, nodes: Any) -> Node:
        nodes = list(nodes)
        return {"op": "and", "holds": all(node["holds"] for node in nodes), "parts": nodes}

    def some(self, nodes: Any) -> Node:
        nodes = list(nodes)
        return {"op": "or", "holds": any(node["holds"] for node in nodes), "parts": nodes}

    def truth(self, text: str, value: Any) -> Node:
        return {"op": "truth", "holds": bool(value), "text": text}

    def negated(self, text: str, node: Node) -> Node:
        return {"op": "truth", "holds": not node["holds"], "text": text}

    def compare(self, texts: list[str], operators: list[str], *values: Any) -> Node:
        sides = zip(values, texts, operators, values[1:], texts[1:], strict=False)
        nodes = [self._pair(f"{a_text} {op} {b_text}", op, a, b) for a, a_text, op, b, b_text in sides]
        return nodes[0] if len(nodes) == 1 else {"op": "and", "holds": all(n["holds"] for n in nodes), "parts": nodes}

    def _pair(self, text: str, op: str, left: Any, right: Any) -> Node:
        node: Node = {"op": op, "holds": bool(HOLDS[op](left, right)), "text": text}
        numbers = _number(left), _number(right)
        return node if None in numbers else {**node, "sides": list(numbers)}

    def close(self, text: str, kind: str, *args: Any, **options: Any) -> Node:
        """error / tolerance, at the worst place, against 1."""
        import numpy as np

        first, second = (np.asarray(value, dtype=float) for value in args[:2])
        names = ("rel_tol", "abs_tol") if kind == "math" else ("rtol", "atol")
        defaults = {"math": (1e-9, 0.0)}.get(kind, (1e-5, 1e-8))
        more = dict(zip(names, args[2:], strict=False)) | options
        rtol, atol = (more.get(name, default) for name, default in zip(names, defaults, strict=True))
        ratio = float(np.max(np.abs(first - second) / (atol + rtol * np.abs(second) + 1e-300), initial=0.0))
        return {"op": "<=", "holds": ratio <= 1, "text": text, "sides": [ratio, 1.0]}


def _number(value: Any) -> float | None:
    """A real number as float; None for anything else (bool, text, lists, many elements)."""
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        return None
    if getattr(getattr(value, "dtype", None), "kind", "") == "b" or str(getattr(value, "dtype", "")) == "torch.bool":
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


# -- rewriting the cells --------------------------------------------------------------------------------------------


class Rewriter(ast.NodeTransformer):
    """Asserts become records; seeds are shifted."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        test = ast.Lambda(_no_arguments(), self.rewritten(node.test))
        message = ast.Lambda(_no_arguments(), node.msg or ast.Constant(None))
        call = _call("claim", ast.Constant(node.lineno), ast.Constant(ast.unparse(node.test)), test, message)
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = ast.unparse(node.func)
        if name == "torch.manual_seed":
            node.args = [ast.BinOp(node.args[0], ast.Add(), ast.Constant(self.seed))]
        elif name == "course.begin" or name.endswith("Recipe"):
            given = [word.value for word in node.keywords if word.arg == "seed"]
            others = [word for word in node.keywords if word.arg != "seed"]
            shifted = ast.BinOp(given[0] if given else ast.Constant(0), ast.Add(), ast.Constant(self.seed))
            node.keywords = [*others, ast.keyword("seed", shifted)]
        return node

    def rewritten(self, test: ast.expr) -> ast.expr:
        """An expression that gives a Node instead of a truth value."""
        text = ast.Constant(ast.unparse(test))
        if isinstance(test, ast.BoolOp):
            parts = [ast.Lambda(_no_arguments(), self.rewritten(value)) for value in test.values]
            return _call("both" if isinstance(test.op, ast.And) else "either", *parts)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return _call("negated", text, self.rewritten(test.operand))
        if isinstance(test, ast.Compare):
            sides = [test.left, *test.comparators]
            texts = ast.List([ast.Constant(ast.unparse(side)) for side in sides], ast.Load())
            operators = ast.List([ast.Constant(OPERATORS[type(op)]) for op in test.ops], ast.Load())
            return _call("compare", texts, operators, *sides)
        if isinstance(test, ast.Call):
            name = ast.unparse(test.func)
            if name in ("all", "any") and isinstance(test.args[0], ast.GeneratorExp):
                each = ast.GeneratorExp(self.rewritten(test.args[0].elt), test.args[0].generators)
                return _call("every" if name == "all" else "some", each)
            if name.split(".")[-1] in ("allclose", "isclose"):
                kind = ast.Constant(name.split(".")[0])
                return ast.Call(_attribute("close"), [text, kind, *test.args], test.keywords)
        return _call("truth", text, test)


def _no_arguments() -> ast.arguments:
    return ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])


def _attribute(name: str) -> ast.expr:
    return ast.Attribute(ast.Name("__margins__", ast.Load()), name, ast.Load())


def _call(name: str, *args: ast.expr) -> ast.expr:
    return ast.Call(_attribute(name), list(args), [])


# -- one combination, in this process -------------------------------------------------------------------------------


def code_cells(number: str, edition: Any) -> tuple[list[tuple[int, str]], str]:
    """(first line in the script, text) of the code cells of an edition, and a digest of their text."""
    from regkit import course

    (source,) = [path for path in course.sources(ROOT / "tutorials") if path.name.startswith(number)]
    script = source.read_text(encoding="utf-8")
    cells, place = [], 0
    for cell in json.loads(course.edition(source, edition))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and (found := script.find(text, place)) >= 0:
            place = found
            cells.append((script.count("\n", 0, found), text))
    return cells, hashlib.sha256("\0".join(text for _, text in cells).encode()).hexdigest()[:12]


def _digest(path: str) -> str:
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:12]


def execute_tests(path: str, seed: int) -> Node:
    """Run a test file here by pytest; returns what is to be stored."""
    import builtins

    import pytest
    from _pytest.assertion import rewrite

    usual = rewrite.rewrite_asserts

    def rewritten(tree: ast.Module, source: bytes, module: str | None = None, config: Any = None) -> None:
        if module is not None and Path(module).name == Path(path).name:
            ast.fix_missing_locations(Rewriter(seed).visit(tree))
        else:
            usual(tree, source, module, config)

    recorder = builtins.__margins__ = Recorder()
    rewrite.rewrite_asserts, rewrite._read_pyc = rewritten, lambda *_: None
    sys.dont_write_bytecode = True
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main(["-q", "-p", "no:cacheprovider", str(ROOT / path)])
    errors = [{"line": 0, "error": line[:300]} for line in said.getvalue().splitlines() if line.startswith("FAILED")]
    errors += [{"line": 0, "error": f"pytest ended with {status}"}] if status and not errors else []
    return {
        "digest": _digest(path),
        "seconds": time.perf_counter() - began,
        "claims": recorder.claims,
        "errors": errors,
    }


def execute(number: str, edition: str, seed: int, threads: int, noise: int, interrupt: int, twice: bool) -> Node:
    """Run the cells of one edition here; returns what is to be stored."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import torch

    torch.set_num_threads(threads)
    torch.set_num_threads = lambda number: None  # course.begin asks for one
    trainings = _watched_trainings(interrupt)
    if noise:
        _make_gradients_noisy(noise)
    recorder = Recorder()
    names: dict[str, Any] = {"__name__": "__main__", "__margins__": recorder}
    cells, digest = code_cells(number, edition)
    os.chdir(ROOT / "tutorials")
    errors, began = [], time.perf_counter()
    for index, (line, text) in enumerate(cells):
        tree = ast.increment_lineno(ast.parse(text), line)
        code = compile(ast.fix_missing_locations(Rewriter(seed).visit(tree)), f"cell {index}", "exec")
        for repetition in range(2):
            before = len(trainings)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    exec(code, names)
            except BaseException as error:  # also KeyboardInterrupt and SystemExit: told, and on to the next cell
                where = [
                    frame.lineno for frame in traceback.extract_tb(error.__traceback__) if "cell" in frame.filename
                ]
                words = f"{type(error).__name__}: {error}"[:300]
                errors.append({"cell": index, "line": where[-1] if where else line, "error": words})
            plt.close("all")
            if repetition or not twice or len(trainings) == before:
                break
    return {"digest": digest, "seconds": time.perf_counter() - began, "claims": recorder.claims, "errors": errors}


def _watched_trainings(interrupt: int) -> list[None]:
    """A list that grows with each training; unless `interrupt` is 0, each one is interrupted after that many steps."""
    from regkit import training

    usual, started = training.train, []

    def train(*args: Any, callback: Any = None, **options: Any) -> Any:
        started.append(None)

        def look(step: int, history: Any) -> None:
            if callback is not None:
                callback(step, history)
            if step + 1 == interrupt:
                raise KeyboardInterrupt

        return usual(*args, callback=look, **options)

    training.train = train
    return started


def _make_gradients_noisy(seed: int, relative: float = 1e-6) -> None:
    """What another order of summation does to a training: every gradient changes in its last digits."""
    import torch

    usual, generator = torch.optim.Adam.step, torch.Generator().manual_seed(seed)

    def step(self: Any, *args: Any, **options: Any) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    random = torch.randn(parameter.shape, generator=generator)
                    parameter.grad.mul_(1 + relative * random.to(parameter.grad))
        return usual(self, *args, **options)

    torch.optim.Adam.step = step


# -- many combinations, each in a process ---------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Measure what the store lacks."""
    for mode in options.modes:
        for cpu, threads, seed, noise in _chosen(options, mode):
            for number in options.tutorials:
                key = {"tutorial": number, "edition": options.edition, "mode": mode, "cpu": cpu, "threads": threads}
                key |= {"seed": seed, "noise": noise, "interrupt": options.interrupt, "twice": options.twice}
                digest = _digest(number) if number.endswith(".py") else code_cells(number, options.edition)[1]
                if any(line["key"] == key and line["digest"] == digest for line in stored(options.store, number)):
                    continue
                environment = {**os.environ, **INSTRUCTIONS[cpu], "REGKIT_MODE": mode, "OMP_NUM_THREADS": str(threads)}
                command = [sys.executable, __file__, "one", json.dumps(key), "--store", str(options.store)]
                status = subprocess.run(command, env=environment, check=False).returncode
                print("." if status == 0 else f"status {status}: {key}", end=" ", flush=True)
    print()


def _chosen(options: argparse.Namespace, mode: str) -> list[tuple[str, int, int, int]]:
    if options.combinations:
        words = [text.split(",") for text in options.combinations]
        return [(cpu, int(threads), int(seed), int(noise)) for cpu, threads, seed, noise in words]
    return [("avx512", 1, 0, 0)] if options.interrupt or options.twice else SUGGESTED[mode]


def one(key: Node, store: Path) -> None:
    """Run one combination in this process and store it."""
    words = {name: key[name] for name in ("edition", "seed", "threads", "noise", "interrupt", "twice")}
    of_tests = key["tutorial"].endswith(".py")
    found = execute_tests(key["tutorial"], key["seed"]) if of_tests else execute(key["tutorial"], **words)
    store.mkdir(parents=True, exist_ok=True)
    with (store / f"{Path(key['tutorial']).stem}.jsonl").open("a") as file:
        file.write(json.dumps({"key": key, **found}) + "\n")


def stored(store: Path, number: str) -> list[Node]:
    path = store / f"{Path(number).stem}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# -- the table ------------------------------------------------------------------------------------------------------


def leaves(node: Node) -> list[Node]:
    """The comparisons of a claim, in one order."""
    return [leaf for part in node["parts"] for leaf in leaves(part)] if "parts" in node else [node]


def margin(nodes: list[Node]) -> float:
    """Smallest margin of one claim over its combinations, in standard deviations; of an `or`, its better part."""
    if not all(node["holds"] for node in nodes):
        return -math.inf
    if "parts" in nodes[0]:
        shapes = {len(node["parts"]) for node in nodes}
        if len(shapes) > 1:
            return math.inf  # other parts in other combinations: nothing to compare
        columns = [margin([node["parts"][i] for node in nodes]) for i in range(shapes.pop())]
        return (min if nodes[0]["op"] == "and" else max)(columns, default=math.inf)
    if any("sides" not in node for node in nodes) or nodes[0]["op"] not in ("<", "<=", ">", ">="):
        return math.inf
    return max(units(distances(nodes)), units(distances(nodes, math.log)))


def units(found: list[float]) -> float:
    """The smallest of some distances in standard deviations of all."""
    if not found:
        return -math.inf
    deviation = spread(found)
    return min(found) / deviation if deviation > 0 else math.inf


def distances(nodes: list[Node], scale: Callable[[float], float] = float) -> list[float]:
    """How far each comparison is from failing, in its own unit; by a logarithm only where all sides are positive."""
    if scale is math.log and any(side <= 0 for node in nodes for side in node["sides"]):
        return []
    sign = 1 if nodes[0]["op"].startswith("<") else -1
    return [sign * (scale(node["sides"][1]) - scale(node["sides"][0])) for node in nodes]


def spread(values: list[float]) -> float:
    """The standard deviation; 0 for a single value or where rounding alone differs."""
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    deviation = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0
    return deviation if deviation > 1e-9 * max(map(abs, values)) else 0.0


def claims_of(lines: list[Node]) -> dict[tuple[int, str, int], list[Node]]:
    """(line, text, how many times before) -> this claim in each combination."""
    found: dict[tuple[int, str, int], list[Node]] = {}
    for stored_line in lines:
        count: dict[tuple[int, str], int] = {}
        for claim in stored_line["claims"]:
            place = (claim["line"], claim["claim"])
            count[place] = count.get(place, 0) + 1
            found.setdefault((*place, count[place]), []).append(claim)
    return found


def table(options: argparse.Namespace) -> None:
    """Print every claim with its values; those below three spreads are marked."""
    for number in options.tutorials:
        newest = {line["key"]["edition"]: line["digest"] for line in stored(options.store, number)}
        for mode in options.modes:
            lines = [
                line
                for line in stored(options.store, number)
                if line["key"]["mode"] == mode
                and line["key"]["edition"] == options.edition
                and line["digest"] == newest[options.edition]
                and (line["key"]["interrupt"], line["key"]["twice"]) == (options.interrupt, options.twice)
            ]
            if lines:
                _print(number, mode, lines, options)


def _print(number: str, mode: str, lines: list[Node], options: argparse.Namespace) -> None:
    flagged, claims = 0, claims_of(lines)
    rows = []
    for (line, text, _), nodes in claims.items():
        units = margin(nodes)
        failing = sum(not node["holds"] for node in nodes)
        mark = f"FAILS {failing}/{len(nodes)}" if failing else "below 3" if units < 3 else ""
        if failing and len(nodes) == len(lines):
            keys = [line["key"] for line, node in zip(lines, nodes, strict=True) if not node["holds"]]
            mark += " at " + "; ".join(f"{key['cpu']} seed {key['seed']} noise {key['noise']}" for key in keys)
        flagged += bool(mark)
        if mark or options.all:
            rows.append((line, text, units, mark, nodes))
    seconds = sum(line["seconds"] for line in lines) / len(lines)
    title = f"{number}, {options.edition}, {mode}: {len(lines)} combinations of {seconds:.0f} s"
    print(f"\n## {title}, {len(claims)} claims, {flagged} flagged")
    for line, text, units, mark, nodes in rows:
        print(f"- line {line} {mark or 'holds'} ({units:.3g} spreads): `{' '.join(text.split())[:150]}`")
        for leaf in _columns(nodes):
            print(f"    {leaf}")
    for stored_line in lines:
        for error in stored_line["errors"]:
            key = stored_line["key"]
            print(
                f"- ERROR line {error['line']} ({key['cpu']}, {key['threads']}, seed {key['seed']}): {error['error']}"
            )


def _columns(nodes: list[Node]) -> Iterator[str]:
    """The sides of each comparison over the combinations."""
    for node in nodes:
        if "error" in node:
            yield node["error"]
    together = [leaves(node) for node in nodes]
    for parts in zip(*together, strict=False):
        if all("sides" in part for part in parts):
            left, right = ([part["sides"][side] for part in parts] for side in (0, 1))
            yield f"{_numbers(left)} {parts[0]['op']} {_numbers(right)}   spread {spread(distances(parts)):.3g}"


def _numbers(values: list[float]) -> str:
    return f"{values[0]:.4g}" if len(set(values)) == 1 else f"[{' '.join(f'{value:.4g}' for value in values)}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "one"))
    parser.add_argument("tutorials", nargs="*", help="two digits each, all by default; or test files")
    parser.add_argument("--modes", nargs="+", default=["fast"], choices=("fast", "full"))
    parser.add_argument("--edition", default="instructor", choices=("learner", "instructor"))
    parser.add_argument("--combinations", nargs="+", help="cpu,threads,seed,noise such as avx2,1,0,0")
    parser.add_argument("--interrupt", type=int, default=0, help="stop each training after so many steps")
    parser.add_argument("--twice", action="store_true", help="run each cell that trains twice")
    parser.add_argument("--all", action="store_true", help="print the claims that hold, too")
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "margins")
    options = parser.parse_args()
    if options.command == "one":
        one(json.loads(options.tutorials[0]), options.store)
        return
    options.tutorials = options.tutorials or [f"{number:02}" for number in range(15)]
    {"run": run, "table": table}[options.command](options)


if __name__ == "__main__":
    main()
