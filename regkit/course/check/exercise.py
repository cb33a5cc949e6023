"""What an exercise is, how an answer is read and judged, and what a known mistake is."""

import contextlib
import ctypes
import html
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from regkit._core.files import printable

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
        return printable(f"{_SHADES[self.colour][1]}: {self.message}")

    def _repr_html_(self) -> str:
        shade, word = _SHADES[self.colour]
        return (
            f'<div role="status" style="border-left: 6px solid {shade}; padding: .4em .8em">'
            f'<b style="color: #ffffff; background: {shade}; padding: 0 .3em">{word}:</b> '
            f"{html.escape(self.message)}</div>"
        )


class Unanswered(Exception):
    """Raised by `prepare` where part of an answer is still blank; its text says which part."""


LIMIT = 5.0  # seconds of computing that an answer may take


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block where it computes longer: between two of its steps in Python, on every system.

    Seconds of the processor count, not those of the clock: a busy machine does not make an answer wrong.
    """
    start, thread, ended, lock = time.process_time(), threading.get_ident(), threading.Event(), threading.Lock()

    def watch() -> None:
        while not ended.wait(0.1):
            with lock:
                if not ended.is_set() and time.process_time() - start > seconds:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeoutError))
                    return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            ended.set()


def is_blank(answer: Any) -> bool:
    """None, or the three dots that a blank exercise has."""
    return answer is None or answer is ...


def filled_in(names: tuple[str, str], answer: Any) -> tuple[Any, Any]:
    """An answer of two parts, if neither is blank.

    Raises:
        Unanswered: one of them is, or both are.
        ValueError, TypeError: it has not two parts.
    """
    parts = tuple(answer)
    if len(parts) != 2:
        raise ValueError(f"two parts are wanted, {names[0]} and {names[1]}, received {len(parts)}")
    blank = [name for name, part in zip(names, parts, strict=True) if is_blank(part)]
    if blank:
        raise Unanswered("" if len(blank) == 2 else f"Half done: {blank[0]} is still blank.")
    return parts


def entries(names: Iterable[str], answer: Any, what: str = "") -> dict[str, Any]:
    """An answer that is a dictionary with one entry for each name, if none is blank.

    Raises:
        Unanswered: an entry is blank.
        ValueError: it is no such dictionary; what: of the entries, in words, such as "an affine for ".
    """
    names = list(names)
    if not isinstance(answer, Mapping) or set(answer) != set(names):
        raise ValueError(f"a dictionary with {what}{', '.join(names)} is wanted, received {answer!r}")
    blank = [name for name, part in answer.items() if is_blank(part)]
    if blank:
        raise Unanswered(f"{', '.join(blank)} still blank." if len(blank) < len(names) else "")
    return dict(answer)


def tidy(word: Any) -> Any:
    """A word in small letters; what is no word stays as it is."""
    return word.strip().lower() if isinstance(word, str) else word


def one_of(vocabulary: Sequence[str]) -> Callable[[Any], str]:
    """`prepare` of an answer that is one word of a vocabulary, in small or capital letters."""

    def read(answer: Any) -> str:
        if tidy(answer) not in vocabulary:
            raise ValueError(f"one of {', '.join(vocabulary)} is wanted, received {tidy(answer)!r}")
        return str(tidy(answer))

    return read


@dataclass(frozen=True)
class Words:
    """An answer by words: a dictionary that has for each name one word of a vocabulary.

    right: the right words. what: of the words, for an error, such as "a word for ".
    """

    right: Mapping[str, str]
    vocabulary: Sequence[str]
    what: str = ""

    def prepare(self, answer: Any) -> dict[str, str]:
        """The words in small letters.

        Raises:
            Unanswered: a word is missing.
            ValueError: not a dictionary of these words.
        """
        words = {name: tidy(word) for name, word in entries(self.right, answer, self.what).items()}
        unknown = [word for word in words.values() if word not in self.vocabulary]
        if unknown:
            raise ValueError(f"each must be one of {', '.join(self.vocabulary)}, received {unknown[0]!r}")
        return words

    def reference(self) -> dict[str, str]:
        """The right answer."""
        return dict(self.right)

    def said(self, name: str, *words: str) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
        """An answer that says the first of these words of a name, and whether one says one of them: for `Hint.to`."""
        return lambda: {**self.right, name: words[0]}, lambda answer: answer[name] in words

    def all_alike(self, word: str) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
        """An answer that says the same of all names, such as this word, and whether one does: for `Hint.to`."""
        return lambda: dict.fromkeys(self.right, word), lambda answer: len(set(answer.values())) == 1


def function_of(what: str, answer: Any) -> Callable[..., Any]:
    """An answer that is a function.

    Raises:
        ValueError: it is none; what: its arguments, in words.
    """
    if not callable(answer):
        raise ValueError(f"a function of {what} is wanted, received {type(answer).__name__}")
    return answer


def returned(name: str, given: Any) -> Any:
    """What a learner's function gave.

    Raises:
        Unanswered: nothing yet; name: of the function.
    """
    if is_blank(given):
        raise Unanswered(f"{name} returns nothing yet.")
    return given


def two_returned(name: str, given: Any, what: str) -> tuple[Any, Any]:
    """The two things, what, that a learner's function gave.

    Raises:
        Unanswered: nothing yet.
        ValueError: not two.
    """
    given = returned(name, given)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ValueError(f"two {what}, are wanted, received {type(given).__name__}")
    return given[0], given[1]


@dataclass(frozen=True)
class Mistake:
    """A known mistake: a wrong answer that makes it, and the hint for all answers that make it.

    made: recognises it in what `Exercise.prepare` gives. "alike": the answer is alike to that of `make`, or of one of
    `others`, and is not right. "otherwise": the answer is not right, whatever it is.
    """

    make: Callable[[], Any]
    hint: str
    made: Callable[[Any], bool] | Literal["alike", "otherwise"] = "alike"
    others: tuple[Callable[[], Any], ...] = ()

    def __call__(self) -> Any:
        """A wrong answer that makes the mistake."""
        return self.make()


def _same(answer: Any) -> Any:
    return answer


@dataclass(frozen=True)
class Hint:
    """What those are told who make a mistake; each method makes the `Mistake` from a wrong answer, or all of them."""

    text: str

    def to(
        self, make: Callable[[], Any], made: Callable[[Any], bool] | Literal["alike", "otherwise"] = "alike"
    ) -> Mistake:
        """To those whose answer is as this one, or has this property: see `Mistake`."""
        return Mistake(make, self.text, made)

    def written(self, function: Callable[..., Any], *others: Callable[..., Any]) -> Mistake:
        """To those who write this function, or one that gives what one of the others gives."""
        return Mistake(lambda: function, self.text, others=tuple(partial(_same, other) for other in others))

    def otherwise(self, function: Callable[..., Any]) -> Mistake:
        """To those whose function is not right and makes no known mistake, such as this one."""
        return Mistake(lambda: function, self.text, "otherwise")


@dataclass(frozen=True)
class Exercise:
    """One exercise: how an answer is read, when it is right, and the catalogue of mistakes.

    prepare: turns what the learner typed into what is judged; its errors become the hint (Unanswered: amber).
    reference: makes a right answer. mistakes: by name, in the order in which they are tried; the first that is made is
    told. In place of a `Mistake` stands only what makes the wrong answer, where `prepare` refuses it in its own words.
    alike: whether two prepared answers are the same. right: of a prepared answer; alike to the reference if left out.
    """

    task: str
    praise: str
    prepare: Callable[[Any], Any]
    reference: Callable[[], Any]
    mistakes: Mapping[str, Callable[[], Any]]
    alike: Callable[[Any, Any], bool] = operator.eq
    right: Callable[[Any], bool] | None = None
    _prepared: dict[Callable[[], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, answer: Any) -> Any:
        return self.judge(answer)

    def judge(self, answer: Any) -> Verdict:
        """The verdict on an answer, whatever it is; after at most a few seconds."""
        if is_blank(answer):
            return Verdict("amber", self.task)
        if isinstance(answer, Iterator):
            return Verdict("red", f"this is a {type(answer).__name__}, which ends who knows when. {self.task}")
        try:
            with limited(LIMIT):
                prepared = self.prepare(answer)
            known = (mistake for mistake in self.mistakes.values() if isinstance(mistake, Mistake))
            hint = next((mistake.hint for mistake in known if self._made(mistake, prepared)), None)
        except Unanswered as missing:
            return Verdict("amber", f"{missing} {self.task}".strip())
        except TimeoutError:
            return Verdict("red", f"the answer took more than {LIMIT:g} s: does each of its loops end? {self.task}")
        except Exception as error:
            return Verdict("red", f"the answer could not be read ({error}). {self.task}")
        return Verdict("red", hint) if hint else Verdict("green", self.praise)

    def _made(self, mistake: Mistake, prepared: Any) -> bool:
        if mistake.made == "alike":
            makers = (mistake.make, *mistake.others)
            return any(self._is(make, prepared) for make in makers) and not self._right(prepared)
        return not self._right(prepared) if mistake.made == "otherwise" else mistake.made(prepared)

    def _right(self, prepared: Any) -> bool:
        return self.right(prepared) if self.right else self._is(self.reference, prepared)

    def _is(self, make: Callable[[], Any], prepared: Any) -> bool:
        if make not in self._prepared:
            self._prepared[make] = self.prepare(make())
        return self.alike(prepared, self._prepared[make])
