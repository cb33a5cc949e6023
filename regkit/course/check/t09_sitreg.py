"""The exercises of tutorial 09: which law a broken half-way step breaks, and a step that breaks one law only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from regkit.course.check.exercise import Exercise, Unanswered
from regkit.fields import compose, invert, jacobian_determinant
from regkit.models.sitreg import control_bound, upsample_controls
from regkit.types import Displacement

LAWS = ("symmetry", "inverse consistency", "no folds")

_BROKEN = {"one-sided": LAWS[0], "B stays": LAWS[0], "minus": LAWS[1]}  # the tutorial measures that it is so

_SHAPE, _SPACING = (40, 48), 8  # of the steps that a learner's update is tried on

_SMALL = 0.05  # voxels, on average: what interpolation and the inversions leave

# ---------------------------------------------------------------------------------------------- which law fails


def _three_words(answer: Any) -> dict[str, str]:
    if not isinstance(answer, Mapping) or set(answer) != set(_BROKEN):
        raise ValueError(f"a dictionary with {', '.join(_BROKEN)} is wanted, received {answer!r}")
    blank = [name for name, law in answer.items() if law is None or law is ...]
    if blank:
        raise Unanswered(f"{', '.join(blank)} still blank." if len(blank) < len(_BROKEN) else "")
    words = {name: law.strip().lower() if isinstance(law, str) else law for name, law in answer.items()}
    unknown = [law for law in words.values() if law not in LAWS]
    if unknown:
        raise ValueError(f"each must be one of {', '.join(LAWS)}, received {unknown[0]!r}")
    return words


failing_laws = Exercise(
    task=f"Give each broken step the law that it breaks: one of {', '.join(LAWS)}.",
    praise="symmetry asks that both images are treated alike; inverse consistency, that the way back undoes the way.",
    prepare=_three_words,
    rules=(
        (
            lambda laws: LAWS[2] in laws.values(),
            "none of them folds: v is limited, and so are -v and the inverse of v; and doing less cannot fold more.",
        ),
        (
            lambda laws: laws["minus"] == LAWS[0],
            "minus: exchange a and b in both formulas. They change places, as before. But does -v undo v?",
        ),
        (
            lambda laws: laws["one-sided"] == LAWS[1],
            "one-sided: v and its inverse do undo each other. But who looks at v(b, a) any more?",
        ),
        (
            lambda laws: laws["B stays"] == LAWS[1],
            "B stays: each step still has its true inverse, so the way back is right. Are both images treated alike?",
        ),
    ),
    reference=lambda: dict(_BROKEN),
    mistakes={
        "a fold": lambda: {**_BROKEN, "one-sided": LAWS[2]},
        "minus is not symmetric": lambda: {**_BROKEN, "minus": LAWS[0]},
        "one-sided has no inverse": lambda: {**_BROKEN, "one-sided": LAWS[1]},
        "standing still has no inverse": lambda: {**_BROKEN, "B stays": LAWS[1]},
        "another word": lambda: {**_BROKEN, "minus": "size"},
        "one word only": lambda: {"minus": LAWS[1]},
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
        given = answer(first.clone(), second.clone())
        if given is None or given is ...:
            raise Unanswered("my_update returns nothing yet.")
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise ValueError(f"two displacements, U_ab and U_ba, are wanted, received {type(given).__name__}")
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
    rules=(
        (
            lambda tried: not all(update.isfinite().all() for update in (tried.ab, tried.ba)),
            "the updates are not finite.",
        ),
        (
            lambda tried: max(float(update.abs().max()) for update in (tried.ab, tried.ba)) < 0.1,
            "nothing moves: the identity keeps every law, this one as well.",
        ),
        (
            lambda tried: torch.allclose(tried.ba, -tried.ab, atol=1e-4),
            "-u is no inverse of u (tutorial 05): regkit.invert(u) is.",
        ),
        (
            lambda tried: min(float(jacobian_determinant(each).min()) for each in (tried.ab, tried.ba)) <= 0,
            "it folds: take fewer steps, or smaller ones.",
        ),
        (
            lambda tried: tried.left() > _SMALL and tried.change() < _SMALL,
            "symmetry holds, and U_ba does not undo U_ab: the other way round is wanted.",
        ),
        (lambda tried: tried.left() > _SMALL, "U_ba does not undo U_ab: return an update and regkit.invert of it."),
        (
            lambda tried: tried.change() < _SMALL,
            "all laws hold: exchanging v_ab and v_ba exchanges the updates. Treat the two steps differently.",
        ),
        (
            lambda tried: tried.use() < 1e-3,
            "right laws, but that is the one-sided step of the table: one of v_ab and v_ba does not count. Use both.",
        ),
    ),
    reference=lambda: lambda ab, ba: (compose(ab, ba), invert(compose(ab, ba))),
    mistakes={
        "nothing broken": lambda: lambda ab, ba: (compose(ab, invert(ba)), compose(ba, invert(ab))),
        "nothing moves": lambda: lambda ab, ba: (0 * ab, 0 * ba),
        "one-sided": lambda: lambda ab, ba: (ab, invert(ab)),
        "minus": lambda: lambda ab, ba: (ab, -ab),
        "both as they are": lambda: lambda ab, ba: (ab, ba),
        "no inverse, no symmetry": lambda: lambda ab, ba: (ab, 0.5 * ab),
        "folds": lambda: lambda ab, ba: (4 * ab, ba),
        "not finite": lambda: lambda ab, ba: (ab / 0, ba),
        "one update": lambda: lambda ab, ba: ab,
        "another grid": lambda: lambda ab, ba: (ab[..., 1:], ba),
    },
)
