"""What a training is told, and what it tells: recipes, histories, seeds, and the course's two speeds."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch

Schedule = Literal["constant", "cosine", "polynomial"]
Precision = Literal["float32", "bfloat16"]
Mode = Literal["fast", "full"]


@dataclass(frozen=True)
class Recipe:
    """How to train with Adam.

    steps: how often the weights change. learning_rate: the highest. batch: pairs in a step, for each process. seed: of
    the pairs' order and of every random number drawn in a step (the first weights are the model's own business).
    schedule: of the learning rate over t = step / steps: 1 (GradICON, SITReg, SPnet), (1 + cos π t) / 2, or (1 - t)^0.9
    (SACB-Net). clip: longest norm that the gradient may have, or None. precision: "bfloat16" lets the network compute
    its convolutions in bfloat16; weights, displacements and objective stay float32.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    batch: int = 1
    seed: int = 0
    schedule: Schedule = "constant"
    clip: float | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps >= 0, "0 or more"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a positive number"),
            "batch": (self.batch >= 1, "at least 1"),
            "seed": (self.seed >= 0, "0 or more"),
            "schedule": (self.schedule in get_args(Schedule), f"one of {get_args(Schedule)}"),
            "clip": (self.clip is None or self.clip > 0, "a positive number or None"),
            "precision": (self.precision in get_args(Precision), f"one of {get_args(Precision)}"),
        }
        for name, (kept, rule) in rules.items():
            if not kept:
                raise ValueError(f"{name} must be {rule}, received {getattr(self, name)!r}; change the recipe.")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        t = step / self.steps
        factors = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * t)) / 2, "polynomial": (1 - t) ** 0.9}
        return self.learning_rate * factors[self.schedule]


@dataclass
class History:
    """What each step of a training saw.

    terms: the objective's weighted terms by name, one number for each step (the mean over all processes).
    seconds: how long each step took. `len(history)` is the number of steps done.
    """

    terms: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def loss(self) -> list[float]:
        """The sum of the terms at each step."""
        return [math.fsum(values) for values in zip(*self.terms.values(), strict=True)]

    def append(self, terms: Mapping[str, float], seconds: float) -> None:
        """Add a step.

        Raises:
            ValueError: its terms are not those of the steps before.
        """
        if self.seconds and terms.keys() != self.terms.keys():
            raise ValueError(
                f"every step must have the same terms, received {sorted(terms)} after {sorted(self.terms)}; "
                f"let the objective return a zero where a term does not count."
            )
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value)
        self.seconds.append(seconds)

    def to_json(self) -> str:
        """The history as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history that `to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        content: Any = json.loads(text)
        try:
            terms = {str(name): [float(value) for value in values] for name, values in content["terms"].items()}
            history = cls(terms, [float(value) for value in content["seconds"]])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"a history is an object of terms and seconds, received {text[:80]!r}.") from error
        if {len(values) for values in terms.values()} - {len(history)}:
            raise ValueError(f"a history has one number for each of its {len(history)} steps, received {text[:80]!r}.")
        return history


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices): for a notebook's first cell."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mode() -> Mode:
    """What the environment variable REGKIT_MODE says: "fast" or "full"; "full" where it is not set.

    Raises:
        ValueError: REGKIT_MODE says something else.
    """
    value = os.environ.get("REGKIT_MODE", "full")
    if value not in get_args(Mode):
        raise ValueError(f"REGKIT_MODE must be one of {get_args(Mode)}, received {value!r}; set or unset it.")
    return "fast" if value == "fast" else "full"


def steps(*, fast: int, full: int) -> int:
    """The number of steps for the mode that is set: `steps(fast=40, full=400)`."""
    return {"fast": fast, "full": full}[mode()]
