"""The exercises of tutorial 09: which law a broken half-way step breaks, and a step that breaks one law only."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from regkit.course.check.exercise import Exercise, Hint, Words, two_returned
from regkit.fields import compose, invert, jacobian_determinant
from regkit.models.sitreg import control_bound, upsample_controls
from regkit.types import Displacement

__all__ = ["failing_laws", "one_law_less", "safe_steps"]

LAWS = ("symmetry", "inverse consistency", "no folds")

_BROKEN = {
    "one-sided": "symmetry",
    "B stays": "symmetry",
    "minus": "inverse consistency",
}  # the tutorial measures that it is so

_SHAPE, _SPACING = (40, 48), 8  # of the steps that a learner's update is tried on
_SMALL = 0.05  # voxels, on average: what interpolation and the inversions leave

# ---------------------------------------------------------------------------------------------- which law fails
_words = Words(_BROKEN, LAWS)

failing_laws = Exercise(
    task=f"Give each broken step the law that it breaks: one of {', '.join(LAWS)}.",
    praise="symmetry asks that both images are treated alike; inverse consistency, that the way back undoes the way.",
    prepare=_words.prepare,
    reference=_words.reference,
    mistakes={
        "a fold": Hint(
            "none of them folds: v is limited, and so are -v and the inverse of v; and doing less cannot fold more."
        ).to(lambda: {**_BROKEN, "one-sided": "no folds"}, lambda laws: "no folds" in laws.values()),
        "minus is not symmetric": Hint(
            "minus: exchange a and b in both formulas. They change places, as before. But does -v undo v?"
        ).to(*_words.said("minus", "symmetry")),
        "one-sided has no inverse": Hint(
            "one-sided: v and its inverse do undo each other. But who looks at v(b, a) any more?"
        ).to(*_words.said("one-sided", "inverse consistency")),
        "standing still has no inverse": Hint(
            "B stays: each step still has its true inverse, so the way back is right. Are both images treated alike?"
        ).to(*_words.said("B stays", "inverse consistency")),
        "another word": lambda: {**_BROKEN, "minus": "size"},
        "one word only": lambda: {"minus": "inverse consistency"},
    },
)

# ---------------------------------------------------------------------------------------------- one law less
Update = Callable[[Displacement, Displacement], tuple[Displacement, Displacement]]


@functools.cache
def safe_steps() -> tuple[Displacement, Displacement]:
    """Two steps v_ab and v_ba that do not fold, as a network might give them; (1, 2, 40, 48), voxels."""
    generator = torch.Generator().manual_seed(0)
    size = [-(-length // _SPACING) for length in _SHAPE]
    control = torch.rand(2, 2, *size, generator=generator) * 2 - 1
    there, back = upsample_controls(0.8 * control_bound(_SPACING, 2) * control, _SHAPE, _SPACING).chunk(2)
    return there, back


class _Tried(NamedTuple):
    """What an update did: U_ab and U_ba, the same from exchanged steps, and from halved ones (v_ab, v_ba)."""

    ab: Displacement
    ba: Displacement
    swapped: tuple[Displacement, Displacement]
    halved: tuple[Displacement, Displacement]

    def left(self) -> float:
        """|U_ab ∘ U_ba - identity|, voxels, mean."""
        return float(compose(self.ab, self.ba).norm(dim=1).mean())

    def change(self) -> float:
        """How far exchanging the steps is from exchanging the updates, voxels, mean."""
        ba, ab = self.swapped
        return float(((self.ab - ab).norm(dim=1).mean() + (self.ba - ba).norm(dim=1).mean()) / 2)

    def use(self) -> float:
        """How much each step counts: what halving it changes of U_ab, voxels, mean; of the step that counts less."""
        return min(float((self.ab - ab).norm(dim=1).mean()) for ab in self.halved)


def _try(answer: Any) -> _Tried:
    there, back = safe_steps()
    pairs = []
    for first, second in ((there, back), (back, there), (0.5 * there, back), (there, 0.5 * back)):
        given = two_returned("my_update", answer(first.clone(), second.clone()), "displacements, U_ab and U_ba")
        for update in given:
            if update is ... or not isinstance(update, torch.Tensor) or update.shape != there.shape:
                shape = tuple(getattr(update, "shape", ())) or update
                raise ValueError(f"displacements {tuple(there.shape)} are wanted, received {shape}")
        pairs.append((given[0].detach(), given[1].detach()))
    return _Tried(*pairs[0], pairs[1], (pairs[2][0], pairs[3][0]))


one_law_less = Exercise(
    task="Write my_update(v_ab, v_ba): from both steps, U_ab and U_ba that undo each other and do not fold, without "
    "symmetry.",
    praise="inverse consistent, free of folds, and the answer depends on who is called A: symmetry is gone, alone.",
    prepare=_try,
    reference=lambda: lambda ab, ba: (compose(ab, ba), invert(compose(ab, ba))),
    mistakes={
        "not finite": Hint("the updates are not finite.").to(
            lambda: lambda ab, ba: (ab / 0, ba),
            lambda tried: not all(update.isfinite().all() for update in (tried.ab, tried.ba)),
        ),
        "nothing moves": Hint("nothing moves: the identity keeps every law, this one as well.").to(
            lambda: lambda ab, ba: (0 * ab, 0 * ba),
            lambda tried: max(float(update.abs().max()) for update in (tried.ab, tried.ba)) < 0.1,
        ),
        "minus": Hint("-u is no inverse of u (tutorial 05): regkit.invert(u) is.").to(
            lambda: lambda ab, ba: (ab, -ab), lambda tried: torch.allclose(tried.ba, -tried.ab, atol=1e-4)
        ),
        "folds": Hint("it folds: take fewer steps, or smaller ones.").to(
            lambda: lambda ab, ba: (4 * ab, ba),
            lambda tried: min(float(jacobian_determinant(each).min()) for each in (tried.ab, tried.ba)) <= 0,
        ),
        "both as they are": Hint("symmetry holds, and U_ba does not undo U_ab: the other way round is wanted.").to(
            lambda: lambda ab, ba: (ab, ba), lambda tried: tried.left() > _SMALL and tried.change() < _SMALL
        ),
        "no inverse, no symmetry": Hint("U_ba does not undo U_ab: return an update and regkit.invert of it.").to(
            lambda: lambda ab, ba: (ab, 0.5 * ab), lambda tried: tried.left() > _SMALL
        ),
        "nothing broken": Hint(
            "all laws hold: exchanging v_ab and v_ba exchanges the updates. Treat the two steps differently."
        ).to(
            lambda: lambda ab, ba: (compose(ab, invert(ba)), compose(ba, invert(ab))),
            lambda tried: tried.change() < _SMALL,
        ),
        "one-sided": Hint(
            "right laws, but that is the one-sided step of the table: one of v_ab and v_ba does not count. Use both."
        ).to(lambda: lambda ab, ba: (ab, invert(ab)), lambda tried: tried.use() < 1e-3),
        "one update": lambda: lambda ab, ba: ab,
        "another grid": lambda: lambda ab, ba: (ab[..., 1:], ba),
    },
)
