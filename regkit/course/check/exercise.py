"""What an exercise is, and how an answer is judged."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Colour = Literal["amber", "green", "red"]

_SHADES: dict[Colour, tuple[str, str]] = {
    "amber": ("#8a5a00", "○ not answered yet"),
    "green": ("#0b6b3a", "✓ right"),
    "red": ("#a3123a", "✗ not yet"),
}


@dataclass(frozen=True)
class Verdict:
    """What a check says: a colour and one sentence. Shown in colour in a notebook, as text elsewhere."""

    colour: Colour
    message: str

    def __str__(self) -> str:
        return f"{_SHADES[self.colour][1]}: {self.message}"

    def _repr_html_(self) -> str:
        shade, word = _SHADES[self.colour]
        return (
            f'<div role="status" style="border-left: 6px solid {shade}; padding: .4em .8em">'
            f'<b style="color: {shade}">{word}</b> {html.escape(self.message)}</div>'
        )


class Unanswered(Exception):
    """Raised by `prepare` where part of an answer is still blank; its text says which part."""


def filled_in(names: tuple[str, str], answer: Any) -> tuple[Any, Any]:
    """An answer of two parts, if neither is blank.

    Raises:
        Unanswered: one of them is, or both are.
        ValueError, TypeError: it has not two parts.
    """
    parts = tuple(answer)
    if len(parts) != 2:
        raise ValueError(f"two parts are wanted, {names[0]} and {names[1]}, received {len(parts)}")
    blank = [name for name, part in zip(names, parts, strict=True) if part is None or part is ...]
    if blank:
        raise Unanswered("" if len(blank) == 2 else f"Half done: {blank[0]} is still blank.")
    return parts


@dataclass(frozen=True)
class Exercise:
    """One exercise: the rules that judge an answer, its reference, and the catalogue of mistakes.

    prepare: turns what the learner typed into what the rules take; its errors become the hint (Unanswered: amber).
    rules: (is this mistake made?, hint) in the order they are tried; the first that applies is told.
    reference: makes a right answer. mistakes: name to a maker of a wrong answer.
    """

    task: str
    praise: str
    prepare: Callable[[Any], Any]
    rules: tuple[tuple[Callable[[Any], bool], str], ...]
    reference: Callable[[], Any]
    mistakes: Mapping[str, Callable[[], Any]]

    def __call__(self, answer: Any) -> Verdict:
        if answer is None or answer is ...:
            return Verdict("amber", self.task)
        try:
            prepared = self.prepare(answer)
            hint = next((hint for made, hint in self.rules if made(prepared)), None)
        except Unanswered as missing:
            return Verdict("amber", f"{missing} {self.task}".strip())
        except Exception as error:
            return Verdict("red", f"the answer could not be read ({error}). {self.task}")
        return Verdict("red", hint) if hint else Verdict("green", self.praise)
