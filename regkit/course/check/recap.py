"""Three questions at the start of tutorials 01 to 06, on what was before: the right letters, and why others are wrong.

The questions stand in the tutorials; an answer is three letters, such as "abc".
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from regkit.course.check.exercise import Exercise, Hint

__all__ = ["recap_01", "recap_02", "recap_03", "recap_04", "recap_05", "recap_06"]


def _letters(answer: Any) -> str:
    letters = "".join(str(answer).split()).replace(",", "").lower() if isinstance(answer, (str, tuple, list)) else ""
    if len(letters) != 3 or set(letters) - set("abc"):
        raise ValueError(f'three letters are wanted, each a, b or c, such as "abc"; received {answer!r}')
    return letters


def _says(number: int, letter: str, letters: str) -> bool:
    return letters[number] == letter


def _recap(right: str, hints: Mapping[str, str]) -> Exercise:
    """The right letters, and a hint for each wrong one, such as "1a"."""
    mistakes = {}
    for name, hint in hints.items():
        number, letter = int(name[0]) - 1, name[1]
        wrong = right[:number] + letter + right[number + 1 :]
        mistakes[name] = Hint(f"question {name[0]}: {hint}").to(partial(str, wrong), partial(_says, number, letter))
    return Exercise(
        task='Answer the three questions by three letters, such as my_recap = "abc".',
        praise="all three: go on.",
        prepare=_letters,
        reference=partial(str, right),
        mistakes={**mistakes, "two letters": partial(str, "ab"), "another letter": partial(str, "abd")},
    )


recap_01 = _recap(
    "bca",
    {
        "1a": "warping pulls. A voxel of the result looks up its value; nothing is carried away.",
        "1c": "u is added to the place where we read, not to the value.",
        "2a": "a loss falls on the pairs of the training even where the network only memorises them.",
        "2b": "a picture can agree while the field folds. It also says nothing of other pairs.",
        "3b": "Dice is 1 where two shapes are the same, so a fold has nothing to do with it.",
        "3c": "|J| = 1 is a place whose size is kept. A fold is turned over: zero or less.",
    },
)
recap_02 = _recap(
    "abc",
    {
        "1b": "torch's sampler counts the axes from the last one: x runs along the columns.",
        "1c": "normalised places run from -1 to 1 in every image; voxels run from 0 to N - 1.",
        "2a": "the middle is where the two conventions agree, so the error is zero there.",
        "2c": "the error grows with the distance from the middle. It is no constant shift.",
        "3a": "the signs of R and A change: right becomes left, anterior becomes posterior.",
        "3b": "the third axis, superior, is the same in both systems.",
    },
)
recap_03 = _recap(
    "cab",
    {
        "1a": "the letter went against the arrows in tutorial 02: each voxel fetches from the right.",
        "1b": "all voxels fetch from the right, so the whole image moves.",
        "2b": "a point of fixed is carried forwards, by + u, into the moving image.",
        "2c": "u(p) is the arrow alone. A place is wanted: p, and its arrow added.",
        "3a": "each reading between voxels is a mean, and each mean blurs. Two are worse than one.",
        "3c": "the second arrow starts where the first one ends, so displacements do not add.",
    },
)
recap_04 = _recap(
    "bca",
    {
        "1a": "MSE wants equal numbers, and a T2 image has other numbers for the same tissue.",
        "1c": "NCC allows one gain and one offset. From T1 to T2 bright and dark change in no straight line.",
        "2a": "the value at the truth is the height of the minimum, not from how far it is reached.",
        "2b": "the window is one reason. But the range belongs to the curve: from where it falls towards the truth.",
        "3b": "a shift of the whole disc meets slopes at opposite sides that cancel.",
        "3c": "blurred and smaller copies overlap earlier, so the slope comes back.",
    },
)
recap_05 = _recap(
    "acb",
    {
        "1b": "the picture gets better without end as λ falls, and the field worse.",
        "1c": "labels have edges only: inside a shape Dice sees nothing.",
        "2a": "a large λ makes the field stiff. It cannot bend where it has to.",
        "2b": "the picture agrees best without any smoothness: noise is matched with noise.",
        "3a": "an affine map has no folds itself, but it removes none from the field that follows.",
        "3c": "a vector knows its neighbourhood only. The whole image moves the affine numbers.",
    },
)
recap_06 = _recap(
    "bac",
    {
        "1a": "-u is read where you stand, but the way back starts where the first arrow ended.",
        "1c": "squaring is how exp(v) is computed. It does not turn the wind around.",
        "2b": "a displacement can fold wherever its slope is steep: nothing in it forbids that.",
        "2c": "a rough velocity does fold, since maps are stored at voxels only.",
        "3a": "seven squarings are 2^7 = 128 small steps, composed.",
        "3b": "each squaring doubles the steps, so seven make 2^7, not 7².",
    },
)
