"""The exercise of tutorial 08: what each switch of SPnet buys, consistency, accuracy, both or neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regkit.course.check.exercise import Exercise, Unanswered

WORDS = ("consistency", "accuracy", "both", "neither")

_BOUGHT = {"MIE": WORDS[3], "FW": WORDS[1], "BE": WORDS[1], "BA": WORDS[2]}  # the tutorial measures that it is so


def _four_words(answer: Any) -> dict[str, str]:
    if not isinstance(answer, Mapping) or set(answer) != set(_BOUGHT):
        raise ValueError(f"a dictionary with {', '.join(_BOUGHT)} is wanted, received {answer!r}")
    blank = [name for name, word in answer.items() if word is None or word is ...]
    if blank:
        raise Unanswered(f"{', '.join(blank)} still blank." if len(blank) < len(_BOUGHT) else "")
    words = {name: word.strip().lower() if isinstance(word, str) else word for name, word in answer.items()}
    unknown = [word for word in words.values() if word not in WORDS]
    if unknown:
        raise ValueError(f"each must be one of {', '.join(WORDS)}, received {unknown[0]!r}")
    return words


bought = Exercise(
    task=f"Say for each switch, {', '.join(_BOUGHT)}, what it buys: one of {', '.join(WORDS)}.",
    praise="one minus sign buys consistency outright, and accuracy too, because the network learns to live with it.",
    prepare=_four_words,
    rules=(
        (
            lambda words: len(set(words.values())) == 1,
            "the same for all four: then a panel of switches would teach nothing. Compare them one by one.",
        ),
        (
            lambda words: words["BE"] in (WORDS[0], WORDS[2]),
            "BE asks both ways, but each keeps its own answer: compare the exchange errors of SS and of SS+BE.",
        ),
        (lambda words: words["BE"] == WORDS[3], "BE: from SS to SS+BE the exchange error stays. Does Dice?"),
        (
            lambda words: words["BA"] == WORDS[0],
            "BA buys consistency, yes. Look at Dice as well, from SS+BE to the whole method.",
        ),
        (
            lambda words: words["BA"] in (WORDS[1], WORDS[3]),
            "BA: look at the exchange error, with and without. (Its switch is called average.)",
        ),
        (
            lambda words: words["FW"] in (WORDS[0], WORDS[2]),
            "FW: without it the two answers still agree, because they are still averaged.",
        ),
        (lambda words: words["FW"] == WORDS[3], "FW: look at Dice, with and without feature warping."),
        (
            lambda words: words["MIE"] == WORDS[1],
            "MIE bought accuracy on the paper's brains, and hardly any on ours: is it 0.02 of Dice in the panel?",
        ),
        (
            lambda words: words["MIE"] in (WORDS[0], WORDS[2]),
            "MIE adds features, to both directions alike: what should that do for consistency? Look at the error.",
        ),
    ),
    reference=lambda: dict(_BOUGHT),
    mistakes={
        "all the same": lambda: dict.fromkeys(_BOUGHT, WORDS[2]),
        "asking twice is enough": lambda: {**_BOUGHT, "BE": WORDS[0]},
        "asking twice is useless": lambda: {**_BOUGHT, "BE": WORDS[3]},
        "the average only makes consistent": lambda: {**_BOUGHT, "BA": WORDS[0]},
        "the average only makes accurate": lambda: {**_BOUGHT, "BA": WORDS[1]},
        "warping makes consistent": lambda: {**_BOUGHT, "FW": WORDS[2]},
        "warping is useless": lambda: {**_BOUGHT, "FW": WORDS[3]},
        "as in the paper": lambda: {**_BOUGHT, "MIE": WORDS[1]},
        "features make consistent": lambda: {**_BOUGHT, "MIE": WORDS[0]},
        "another word": lambda: {**_BOUGHT, "MIE": "speed"},
        "one word only": lambda: {"BA": WORDS[2]},
    },
)
