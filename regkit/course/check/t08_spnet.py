"""The exercise of tutorial 08: what each switch of SPnet buys, consistency, accuracy, both or neither."""

from typing import Any

from regkit.course.check.exercise import Exercise, Hint, Words

__all__ = ["bought"]

WORDS = ("consistency", "accuracy", "both", "neither")
_BOUGHT = {"MIE": "neither", "FW": "accuracy", "BE": "accuracy", "BA": "both"}  # the tutorial measures that it is so
_words = Words(_BOUGHT, WORDS)


def _prepare(answer: Any) -> dict[str, str]:
    """BE may also buy "neither": the paper's Table 4 says so, and with our seeds the means' deviations overlap."""
    words = _words.prepare(answer)
    return words | {"BE": "accuracy"} if words["BE"] == "neither" else words


bought = Exercise(
    task=f"Say for each switch, {', '.join(_BOUGHT)}, what it buys: one of {', '.join(WORDS)}.",
    praise="one minus sign buys consistency outright, and accuracy too, because the network learns to live with it. "
    "(BE: accuracy here, by few seeds that scatter; neither by the paper's Table 4. Both count as right.)",
    prepare=_prepare,
    reference=_words.reference,
    mistakes={
        "all the same": Hint(
            "the same for all four: then a panel of switches would teach nothing. Compare them one by one."
        ).to(*_words.all_alike("both")),
        "asking twice is enough": Hint(
            "BE asks both ways, but each keeps its own answer: compare the exchange errors of SS and of SS+BE. (In the "
            "paper's Table 4 it is halved, from .787 to .425 voxels. More than three times is asked.)"
        ).to(*_words.said("BE", "consistency", "both")),
        "the average only makes consistent": Hint(
            "BA buys consistency, yes. Look at Dice as well, from SS+BE to the whole method."
        ).to(*_words.said("BA", "consistency")),
        "the average only makes accurate": Hint(
            "BA: look at the exchange error, with and without. (Its switch is called average.)"
        ).to(*_words.said("BA", "accuracy", "neither")),
        "warping makes consistent": Hint(
            "FW: without it the two answers still agree, because they are still averaged."
        ).to(*_words.said("FW", "both", "consistency")),
        "warping is useless": Hint("FW: look at Dice, with and without feature warping.").to(
            *_words.said("FW", "neither")
        ),
        "as in the paper": Hint(
            "MIE bought accuracy on the paper's brains, and hardly any on ours: is it 0.02 of Dice in the panel?"
        ).to(*_words.said("MIE", "accuracy")),
        "features make consistent": Hint(
            "MIE adds features, to both directions alike: what should that do for consistency? Look at the error."
        ).to(*_words.said("MIE", "consistency", "both")),
        "another word": lambda: {**_BOUGHT, "MIE": "speed"},
        "one word only": lambda: {"BA": "both"},
    },
)
