"""Interactive pictures for a page without a kernel: a scene as HTML, its frames drawn beforehand.

While a notebook runs with REGKIT_STATIC=1 (course.publish), its views show themselves so: for each mode and each slider
some twenty pictures, one slider at a time, the others where they start.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from html import escape
from typing import Any
from uuid import uuid4

import numpy as np

from regkit.views.controls import Choice, Scene, Slider, State
from regkit.views.drawing import png
from regkit.views.sliced import first_values

FRAMES = 21  # at most, for each slider
PAGE = """<div id="{id}" class="regkit-static" style="font-family: sans-serif; line-height: 1.5">
<p class="controls"></p><img alt=""><p class="words" aria-live="polite"></p></div>
<script>(() => {{
  const root = document.getElementById("{id}"), modes = {modes};
  const [controls, image, words] = [".controls", "img", ".words"].map(name => root.querySelector(name));
  const show = frame => {{
    image.src = "data:image/png;base64," + frame.png; image.alt = frame.words; words.textContent = frame.words;
  }};
  const slider = (name, frames, start) => {{
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, {{type: "range", min: 0, max: frames.length - 1, value: start}});
    input.oninput = () => {{
      for (const other of controls.querySelectorAll("input")) if (other !== input) other.value = other.dataset.start;
      show(frames[input.value]);
    }};
    input.dataset.start = start;
    label.append(" " + name + " ", input);
    return label;
  }};
  const choose = mode => {{
    controls.querySelectorAll("label.slider").forEach(label => label.remove());
    for (const each of mode.sliders) {{
      const label = slider(each.name, each.frames, each.start);
      label.className = "slider";
      controls.append(label);
    }}
    show(mode.first);
  }};
  if (modes.length > 1) {{
    const select = document.createElement("select");
    select.setAttribute("aria-label", "view");
    select.append(...modes.map(mode => new Option(mode.name)));
    select.onchange = () => choose(modes[select.selectedIndex]);
    controls.append(select);
  }}
  choose(modes[0]);
}})();</script>"""


def wanted() -> bool:
    """Whether views show themselves for a page without a kernel: the environment variable REGKIT_STATIC is 1."""
    return os.environ.get("REGKIT_STATIC") == "1"


def moving_html(scene: Scene) -> str:
    """A scene as HTML and a few lines of script, all frames inside."""
    modes = json.dumps(list(_modes(scene))).replace("</", "<\\/")
    return PAGE.format(id=f"regkit-{uuid4().hex[:12]}", modes=modes)


def tabs_html(scenes: dict[str, Scene]) -> str:
    """Several scenes, one below the other, under their titles."""
    return "".join(f"<h4>{escape(title)}</h4>{moving_html(scene)}" for title, scene in scenes.items())


def _modes(scene: Scene) -> Iterator[dict[str, Any]]:
    controls = scene.controls()
    start = first_values(controls)
    choices = [name for name, control in controls.items() if isinstance(control, Choice)]
    chosen = "mode" if "mode" in choices else (choices or [""])[0]
    for mode in getattr(controls.get(chosen), "options", [""]):
        state = {**start, chosen: mode} if chosen else start
        moved = {name: control for name, control in controls.items() if name not in scene.hidden(state)}
        sliders = [
            _slider(scene, state, name, control) for name, control in moved.items() if isinstance(control, Slider)
        ]
        yield {"name": mode, "first": _frame(scene, state), "sliders": sliders}


def _slider(scene: Scene, state: State, name: str, control: Slider) -> dict[str, Any]:
    count = min(FRAMES, round((control.high - control.low) / control.step) + 1)
    steps = np.round(np.linspace(0, (control.high - control.low) / control.step, count))
    whole = isinstance(control.low, int) and isinstance(control.step, int)
    values = [(int if whole else float)(control.low + step * control.step) for step in steps]
    start = int(np.argmin(np.abs(np.array(values) - state[name])))
    frames = [_frame(scene, {**state, name: value}) for value in values]
    return {"name": control.words, "start": start, "frames": frames}


def _frame(scene: Scene, state: State) -> dict[str, str]:
    picture = base64.b64encode(png(scene.render(state))).decode()
    return {"png": picture, "words": scene.describe(state)}
