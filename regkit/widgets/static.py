"""Interactive pictures for a page without a kernel: a scene as HTML, its frames drawn beforehand.

While a notebook runs with REGKIT_STATIC=1 (course.publish), its views show themselves so. Every choice is offered, and
so many values of each slider that all combinations fit into one page; the page says what it leaves out.
"""

import base64
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from math import prod
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from PIL import Image

from regkit.figures.pixels import Picture
from regkit.widgets.scene import Button, Choice, Control, Player, Scene, Slider, State, Stops, Toggle, first_values

FRAMES = 400  # of a scene, at most
BYTES, TABS = 600_000, 900_000  # of all pictures of a scene, of tabs together, in base64: most pages stay below 3 MB
MOST, LEAST = 21, 5  # values of a slider
PAGE = (Path(__file__).parent / "page.html").read_text("utf-8").rstrip()  # ID and SCENE stand for what differs


def wanted() -> bool:
    """Whether views show themselves for a page without a kernel: the environment variable REGKIT_STATIC is 1."""
    return os.environ.get("REGKIT_STATIC") == "1"


def moving_html(scene: Scene, state: State | None = None, room: int = BYTES) -> str:
    """A scene as HTML and a few lines of script, all frames inside. state: where its controls start. room: in bytes."""
    start = {**first_values(scene.controls), **(state or {})}
    content = json.dumps(_content(scene, start, room), ensure_ascii=False).replace("</", "<\\/")
    return PAGE.replace("ID", f"regkit-{uuid4().hex[:12]}").replace("SCENE", content)


def tabs_html(scenes: Mapping[str, tuple[Scene, State]]) -> str:
    """Several scenes in their states, one below the other, under their titles."""
    room = min(BYTES, TABS // len(scenes))
    return "".join(f"<h4>{escape(title)}</h4>{moving_html(*scene, room)}" for title, scene in scenes.items())


@dataclass(frozen=True)
class Plan:
    """What a page offers: the values of each choice and each slider by its name. alone: one slider moves at a time."""

    choices: Mapping[str, Sequence[Any]]
    sliders: Mapping[str, Sequence[Any]]
    alone: bool

    def combinations(self, scene: Scene, start: State) -> Iterator[tuple[State, list[str]]]:
        """All states of the choices, and the sliders that have an effect there."""
        for values in product(*self.choices.values()):
            state = {**start, **dict(zip(self.choices, values, strict=True))}
            hidden = scene.hidden(state)
            yield state, [name for name in self.sliders if name not in hidden]

    def count(self, scene: Scene, start: State) -> int:
        """How many frames that takes."""
        lengths = [[len(self.sliders[name]) for name in free] for _, free in self.combinations(scene, start)]
        return sum(1 + sum(length - 1 for length in each) if self.alone else prod(each) for each in lengths)

    def states(self, scene: Scene, start: State) -> Iterator[State]:
        """The state of each frame."""
        for state, free in self.combinations(scene, start):
            if self.alone:
                yield state
                yield from ({**state, name: value} for name in free for value in self.sliders[name])
            else:
                for values in product(*(self.sliders[name] for name in free)):
                    yield {**state, **dict(zip(free, values, strict=True))}


def plan(scene: Scene, start: State, frames: int) -> Plan:
    """The richest plan of at most so many frames: first sliders get fewer values, then they move alone, then a choice
    falls away."""
    controls = {name: control for name, control in scene.controls.items() if not isinstance(control, Button)}
    sliders = {name: control for name, control in controls.items() if isinstance(control, Slider | Stops)}
    choices = {name: _values(control) for name, control in controls.items() if name not in sliders}
    alive = [name for name in choices if not _dead(scene, start, name, choices[name])]
    for kept in range(len(alive), -1, -1):
        for alone in (False, True):
            for most in range(MOST, LEAST - 1, -2):
                grids = {name: _thinned(control, start[name], most) for name, control in sliders.items()}
                found = Plan({name: choices[name] for name in alive[:kept]}, grids, alone)
                if found.count(scene, start) <= frames:
                    return found
    return Plan({}, {name: _thinned(control, start[name], 3) for name, control in sliders.items()}, True)


def _values(control: Control) -> list[Any]:
    if isinstance(control, Choice):
        return list(control.options)
    return [False, True] if isinstance(control, Toggle) else [0, 1]


def _dead(scene: Scene, start: State, name: str, values: Sequence[Any]) -> bool:
    """Whether a choice alters nothing that is seen (it may say what a button will do)."""
    if name in scene.hidden(start):
        return False
    first, *others = ({**start, name: value} for value in values)
    return not any(
        scene.hidden(other) != scene.hidden(first)
        or scene.describe(other) != scene.describe(first)
        or not np.array_equal(scene.render(other), scene.render(first))
        for other in others
    )


def _thinned(control: Slider | Stops, start: Any, most: int) -> list[Any]:
    """So many of a slider's values, both ends and the one where it starts among them."""
    if isinstance(control, Stops):
        places = np.linspace(0, len(control.options) - 1, min(most, len(control.options))).round().astype(int)
        return [control.options[place] for place in sorted({*places.tolist(), control.options.index(start)})]
    count = _length(control)
    steps = np.linspace(0, count - 1, min(most, count)).round().tolist()
    whole = isinstance(control.low, int) and isinstance(control.step, int)
    values = [(int if whole else float)(control.low + step * control.step) for step in steps]
    nearest = min(range(len(values)), key=lambda position: abs(values[position] - start))
    if 0 < nearest < len(values) - 1:
        values[nearest] = start
    return sorted({*values, start})


def _content(scene: Scene, start: State, room: int) -> dict[str, Any]:
    """What the script needs: controls, what is hidden where, frames by the controls' positions, pictures, the note."""
    offered, pictures, drawn = _drawn(scene, start, room)
    values = {name: grid for name, grid in {**offered.choices, **offered.sliders}.items() if len(grid) > 1}
    names = [name for name in scene.controls if name in values]
    hidden = {
        ",".join(str(values[name].index(state[name])) for name in names if name in offered.choices): [
            names.index(name) for name in names if name in scene.hidden(state)
        ]
        for state, _ in offered.combinations(scene, start)
    }
    told = {
        ",".join("-" if name in scene.hidden(state) else str(values[name].index(state[name])) for name in names): frame
        for state, *frame in drawn
    }
    controls = [_control(scene.controls[name], values[name], start[name], name in offered.choices) for name in names]
    return {
        "controls": controls,
        "hidden": hidden,
        "frames": told,
        "pictures": pictures,
        "alone": offered.alone,
        "note": _note(scene, names, offered),
    }


def _drawn(scene: Scene, start: State, room: int) -> tuple[Plan, list[str], list[tuple[State, int, str]]]:
    """The richest plan whose pictures fit into a page; the pictures; each state with its picture's place and words."""
    first = scene.render(start)
    frames = max(min(FRAMES, 8 * room // len(webp(first))), 1)
    while True:
        offered = plan(scene, start, frames)
        pictures: dict[str, int] = {}
        drawn = []
        for state in offered.states(scene, start):
            picture = scene.render(state)
            first = first if pictures else picture
            text = _smallest(first, picture) if pictures else webp(picture)
            drawn.append((state, pictures.setdefault(text, len(pictures)), scene.describe(state)))
        size = sum(len(picture) for picture in pictures)
        if size <= room or frames < 2:
            return offered, list(pictures), drawn
        frames = min(frames, len(drawn)) * room // size


def _smallest(first: Picture, picture: Picture) -> str:
    """A picture as WebP; or what, laid over the first one, makes it: transparent where both are the same."""
    if first.shape != picture.shape:
        return webp(picture)
    changed = (first != picture).any(axis=2, keepdims=True)
    laid_over = np.concatenate([picture * changed, changed.astype(np.uint8) * 255], axis=2)
    share = float(changed.mean())  # to write a picture takes long: both ways only where neither is clearly better
    candidates = [laid_over] * (share < 1 / 3) + [picture] * (share > 1 / 20)
    return min(map(webp, candidates), key=len)


def _control(control: Control, values: Sequence[Any], start: Any, chosen: bool) -> dict[str, Any]:
    """One control for the script; chosen: it is no slider."""
    common = {"start": values.index(start), "chosen": chosen}
    if isinstance(control, Player):
        return {**common, "kind": "player", "words": "play", "interval": control.interval}
    if isinstance(control, Toggle):
        return {**common, "kind": "toggle", "words": control.words}
    texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
    kind = "choice" if chosen else "slider"
    return {**common, "kind": kind, "words": getattr(control, "words", ""), "values": texts}


def _note(scene: Scene, names: Sequence[str], offered: Plan) -> str:
    """What the live view has that the page lacks; nothing where it lacks nothing."""
    controls = scene.controls
    grids = {name: values for name, values in offered.sliders.items() if name in names}
    fewer = any(len(values) < _length(controls[name]) for name, values in grids.items())
    missing = [escape(getattr(control, "words", name)) for name, control in controls.items() if name not in names]
    told = [
        "in fewer steps" if fewer else "",
        "one slider at a time" if offered.alone and len(grids) > 1 else "",
        f"without {', '.join(missing)}" if missing else "",
    ]
    lacks = ", ".join(part for part in told if part)
    return f"Coarse here ({lacks}); in JupyterLab every control moves." if lacks else ""


def _length(control: Control) -> int:
    """How many values a slider has."""
    if isinstance(control, Slider):
        return round((control.high - control.low) / control.step) + 1
    return len(_values(control))


def webp(picture: Picture) -> str:
    """The picture as a WebP file without loss, a third of its PNG, in base64."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, method=2)
    return base64.b64encode(file.getvalue()).decode()
