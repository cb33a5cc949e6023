"""The benchmarks of the course: pairs to train on and held-out pairs to judge on, made from a seed.

hollow             outlines of triangles and circles (GradICON's toy study, smaller); hollow_64: twice as fine
vessels            trees of vessels and their deformations, whose truth is known (in place of DRIVE)
brains             slices of synthetic brains after affine alignment; large deformations remain
brains_unaligned   the same, rotated, scaled and shifted against each other as well
brains_3d, brains_3d_unaligned   whole synthetic brains, likewise; networks are trained on new ones at every step
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, overload

from regkit.data import ShapePairs, Split
from regkit.data.brains import BrainPairs
from regkit.data.vessels import VesselPairs
from regkit.types import Pair


class Deferred(Sequence[Pair]):
    """Pairs that are made when one is asked for, or when they are counted."""

    def __init__(self, make: Callable[[], Sequence[Pair]]) -> None:
        self.make = make

    @cached_property
    def pairs(self) -> Sequence[Pair]:
        """What `make` makes, once."""
        made = self.make()
        return [made[i] for i in range(len(made))]

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        return self.pairs[index]


@dataclass(frozen=True)
class Benchmark:
    """Pairs for training and for judging; `words` name the class and its arguments, and so tell one from another."""

    words: str
    train: Sequence[Pair]
    held_out: Sequence[Pair]


def _benchmark(make: Callable[..., Sequence[Pair]], train: int, held_out: int, **arguments: Any) -> Benchmark:
    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    counts: dict[Split, int] = {"train": train, "test": held_out}
    splits = {name: Deferred(partial(make, count, split=name, **arguments)) for name, count in counts.items()}
    return Benchmark(f"{make.__name__}({train}, {listed})", splits["train"], splits["test"])


_VOLUMES: dict[str, Any] = {"dim": 3, "size": (64, 80, 64), "motion": "large", "seed": 0}

BENCHMARKS = {
    "hollow": _benchmark(ShapePairs, 1024, 64, size=(32, 32), hollow=True, seed=0),
    "hollow_64": _benchmark(ShapePairs, 1024, 64, size=(64, 64), hollow=True, seed=0),
    "vessels": _benchmark(VesselPairs, 512, 32, size=(64, 64), seed=0),
    "brains": _benchmark(BrainPairs, 512, 32, size=(64, 56), motion="large", aligned=True, seed=0),
    "brains_unaligned": _benchmark(BrainPairs, 512, 32, size=(64, 56), motion="large", aligned=False, seed=0),
    "brains_3d": _benchmark(BrainPairs, 64, 10, aligned=True, **_VOLUMES),
    "brains_3d_unaligned": _benchmark(BrainPairs, 64, 10, aligned=False, **_VOLUMES),
}
