"""Functions that a learner writes: judged where they are defined, and replaced where the notebook has to go on.

The notebook has the function with blanks, under its check:

    @check.compose_by_hand
    def compose_by_hand(u, v):
        return ...  # v, and u read where v leads

The check shows the verdict and gives the function back. While it is not right, it gives the solution instead, so that
every later cell runs, and *show me* unfolds it. The solution is written once, in the module of its tutorial here; the
instructor's notebook has it in place of the blanks. Its texts stand beside that module, in tNN.toml, under its name. A
mistake is what one gets by writing one text in place of another:

    [compose_by_hand]
    task = "..."  # told where it is blank
    praise = "..."
    otherwise = "..."  # the hint for all others that are not right
    [compose_by_hand.mistakes]  # name = [a text of the solution, what is written in its place, the hint]
    "added" = ["fields.warp(u, v)", "u", "displacements do not add: u is wanted where v leads."]

    @by_hand(_two_fields)  # in tNN.py
    def compose_by_hand(u, v):
        return v + fields.warp(u, v)
"""

from __future__ import annotations

import ast
import copy
import html
import inspect
import sys
import textwrap
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regkit.course.check.exercise import Exercise, Mistake, Unanswered, Verdict, function_of, is_blank

Function = Callable[..., Any]
Calls = Callable[[], Sequence[tuple[Any, ...]]]  # makes the arguments of some calls


@dataclass(frozen=True)
class Helped(Verdict):
    """A verdict under which a solution can be unfolded."""

    solution: str = ""

    def _repr_html_(self) -> str:
        unfolded = f"<details><summary>show me</summary><pre>{html.escape(self.solution)}</pre></details>"
        return super()._repr_html_() + unfolded


@dataclass(frozen=True)
class ByHand(Exercise):
    """An exercise that a function answers; as a decorator it shows the verdict, and gives what to go on with."""

    solution: str = field(default="", kw_only=True)  # its text

    def __call__(self, answer: Any) -> Any:
        verdict = self.judge(answer)
        if verdict.colour == "green":
            _show(verdict)
            return answer
        message = f"{verdict.message} Until then the notebook goes on with the solution."
        _show(Helped(verdict.colour, message, self.solution))
        return self.reference()


def by_hand(calls: Calls, *, loop: bool = False) -> Callable[[Function], ByHand]:
    """A decorator that makes the solution an exercise, judged by what it gives: tensors or numbers, or a tuple.

    calls: makes the arguments of some calls; over those that require a gradient the slope is judged, too. loop: it has
    a loop with `loss` and `optimiser`, so that the mistakes of loop.toml may be made in it, too.
    """

    def make(solution: Function) -> ByHand:
        said = _texts(solution.__module__.rpartition(".")[2])[solution.__name__]
        mistakes = said["mistakes"] | (_texts("loop")["step"]["mistakes"] if loop else {})
        known = {name: Mistake(partial(_rewritten, solution, *edit), hint) for name, (*edit, hint) in mistakes.items()}
        nothing = lambda *arguments: torch.zeros(())  # noqa: E731 (what no solution gives)
        known["otherwise"] = Mistake(lambda: nothing, said["otherwise"], "otherwise")
        prepare = partial(_outputs, calls)
        return ByHand(said["task"], said["praise"], prepare, lambda: solution, known, _same, solution=_text(solution))

    return make


@cache
def _texts(tutorial: str) -> dict[str, Any]:
    """What is said of the functions of one tutorial, by name."""
    return tomllib.loads((Path(__file__).parent / f"{tutorial}.toml").read_text(encoding="utf-8"))


def _text(solution: Function) -> str:
    """What defines a function, without its decorators."""
    whole = textwrap.dedent(inspect.getsource(solution))
    node = ast.parse(whole).body[0]
    assert isinstance(node, ast.FunctionDef)
    return "\n".join(whole.splitlines()[node.lineno - 1 :])


def _rewritten(solution: Function, old: str, new: str) -> Function:
    """The function in whose text `new` stands for `old`."""
    text = _text(solution)
    assert old in text, f"{old!r} is not in {solution.__name__}"
    places = dict(solution.__globals__)
    exec(text.replace(old, new), places)
    function: Function = places[solution.__name__]
    return function


def _show(verdict: Verdict) -> None:
    """In colour in a notebook, as text elsewhere."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()) is not None:
        shell.display_pub.publish({"text/plain": str(verdict), "text/html": verdict._repr_html_()})
    else:
        print(verdict)


def _outputs(calls: Calls, answer: Any) -> list[Tensor]:
    """What the function gives for each of the calls, whose arguments it may change."""
    function = function_of("these arguments", answer)
    try:
        given = [value for arguments in calls() for value in _called(function, copy.deepcopy(arguments))]
    except Exception:
        if _has_dots(function):
            raise Unanswered("There is still a ... in it.") from None
        raise
    parts = [part for value in given for part in (value if isinstance(value, tuple) else (value,))]
    if any(is_blank(part) for part in parts):
        raise Unanswered("It returns nothing yet." if len(parts) == 1 else "A part of what it returns is still blank.")
    arrays = [part.copy() if isinstance(part, np.ndarray) else part for part in parts]  # torch takes no flipped one
    return [torch.as_tensor(array, dtype=torch.float64).detach() for array in arrays]


def _called(function: Function, arguments: tuple[Any, ...]) -> list[Any]:
    """What a function gives, and its gradient over each of the arguments that require one."""
    value, over = function(*arguments), [one for one in arguments if torch.is_tensor(one) and one.requires_grad]
    if torch.is_tensor(value) and value.requires_grad:
        return [value, *torch.autograd.grad(value.sum(), over, materialize_grads=True)]
    return [value, *map(torch.zeros_like, over)]


def _has_dots(function: Function) -> bool:
    """Whether three dots stand for a value somewhere in a function, or in one that it defines."""

    def stand_in(constants: tuple[Any, ...]) -> bool:
        inner = [value.co_consts for value in constants if inspect.iscode(value)]
        dots = [value for value in constants if value is ... or (isinstance(value, tuple) and set(value) == {...})]
        return bool(dots) or any(map(stand_in, inner))

    return inspect.isfunction(function) and stand_in(function.__code__.co_consts)


def _same(given: list[Tensor], others: list[Tensor]) -> bool:
    return len(given) == len(others) and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
        for one, other in zip(given, others, strict=True)
    )
