"""What answers have in common: words, parts that may be blank, functions that are called."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regkit.course.check.exercise import Unanswered, is_blank


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
