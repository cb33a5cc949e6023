"""The exercise of tutorial 08: what each switch of SPnet buys, consistency, accuracy, both or neither."""

from regkit.course.check.answers import Words
from regkit.course.check.exercise import Exercise

__all__ = ["bought"]

WORDS = ("consistency", "accuracy", "both", "neither")
_BOUGHT = {"MIE": "neither", "FW": "accuracy", "BE": "accuracy", "BA": "both"}  # the tutorial measures that it is so
_words = Words(_BOUGHT, WORDS)

bought = Exercise(
    task=f"Say for each switch, {', '.join(_BOUGHT)}, what it buys: one of {', '.join(WORDS)}.",
    praise="one minus sign buys consistency outright, and accuracy too, because the network learns to live with it.",
    prepare=_words.prepare,
    reference=_words.reference,
    mistakes={
        "all the same": _words.all_alike(
            "both", "the same for all four: then a panel of switches would teach nothing. Compare them one by one."
        ),
        "asking twice is enough": _words.wrong(
            ("BE", "consistency", "both"),
            "BE asks both ways, but each keeps its own answer: compare the exchange errors of SS and of SS+BE.",
        ),
        "asking twice is useless": _words.wrong(
            ("BE", "neither"), "BE: from SS to SS+BE the exchange error stays. Does Dice?"
        ),
        "the average only makes consistent": _words.wrong(
            ("BA", "consistency"),
            "BA buys consistency, yes. Look at Dice as well, from SS+BE to the whole method.",
        ),
        "the average only makes accurate": _words.wrong(
            ("BA", "accuracy", "neither"),
            "BA: look at the exchange error, with and without. (Its switch is called average.)",
        ),
        "warping makes consistent": _words.wrong(
            ("FW", "both", "consistency"),
            "FW: without it the two answers still agree, because they are still averaged.",
        ),
        "warping is useless": _words.wrong(("FW", "neither"), "FW: look at Dice, with and without feature warping."),
        "as in the paper": _words.wrong(
            ("MIE", "accuracy"),
            "MIE bought accuracy on the paper's brains, and hardly any on ours: is it 0.02 of Dice in the panel?",
        ),
        "features make consistent": _words.wrong(
            ("MIE", "consistency", "both"),
            "MIE adds features, to both directions alike: what should that do for consistency? Look at the error.",
        ),
        "another word": lambda: {**_BOUGHT, "MIE": "speed"},
        "one word only": lambda: {"BA": "both"},
    },
)
