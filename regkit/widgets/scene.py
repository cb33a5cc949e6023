"""What an interactive picture is made of: controls, and the scene that draws and describes any state of them.

A `Scene` names its controls (`Slider`, `Choice`, `Stops`, `Toggle`, `Player`, `Button`) and holds pure functions of
their values, without widgets; live.py makes it live. Ranges are those of the whole scene, so that its pictures compare.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regkit.figures.pixels import Picture

State = Mapping[str, Any]  # the value of each control by its name


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high`; whole where all numbers given are whole. live: follow it while it is dragged."""

    words: str
    value: float
    low: float
    high: float
    step: float = 1
    live: bool = True


@dataclass(frozen=True)
class Choice:
    """One of several words; the first at the start."""

    words: str
    options: Sequence[str]


@dataclass(frozen=True)
class Stops(Choice):
    """One of several words along a slider, `start` at the start."""

    start: str = ""


@dataclass(frozen=True)
class Toggle:
    """On or off."""

    words: str
    value: bool


@dataclass(frozen=True)
class Player:
    """A frame number that counts on by itself when started, every `interval` milliseconds."""

    interval: int


@dataclass(frozen=True)
class Button:
    """Something to press."""

    words: str
    enabled: bool = True


Control = Slider | Choice | Toggle | Player | Button


def first_values(controls: Mapping[str, Control]) -> dict[str, Any]:
    """The state that controls start in."""
    values: dict[str, Any] = {}
    for name, control in controls.items():
        if isinstance(control, Slider | Toggle):
            values[name] = control.value
        elif isinstance(control, Stops):
            values[name] = control.start
        elif isinstance(control, Choice):
            values[name] = control.options[0]
        elif isinstance(control, Player):
            values[name] = 0
    return values


@dataclass(frozen=True, eq=False)
class Scene:
    """What a view shows: its controls at their first values, and pure functions of the controls' values.

    render: the picture. describe: the picture in words: what is seen, ranges and units. hidden: the controls that have
    no effect at these values. press: the controls' new values after a button (by its name) was pressed.
    """

    controls: Mapping[str, Control]
    render: Callable[[State], Picture]
    describe: Callable[[State], str]
    hidden: Callable[[State], set[str]] = lambda state: set()
    press: Callable[[str, State], dict[str, Any]] = lambda button, state: {}
