"""A training to watch while it goes on, and to wind back when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from regkit.fields import warp
from regkit.figures.paint import render_grid, render_image
from regkit.figures.pixels import FieldPlane, Picture, Plane, field_plane, integer_scale, intensity_limits, plane, stack
from regkit.training import History
from regkit.types import InputError, Pair
from regkit.widgets import static
from regkit.widgets.live import View
from regkit.widgets.scene import ClassScene, Control, Slider, State


@dataclass(frozen=True)
class Frame:
    """What a model made of a pair after some steps: the warped image, the field in voxels, the loss terms in words."""

    step: int
    warped: Plane
    displacement: FieldPlane
    terms: str


@dataclass(frozen=True, eq=False)
class Learning(ClassScene):
    """Warped, fixed, and the map's grid on the moving image, after as many steps as a frame knows."""

    moving: Plane
    fixed: Plane
    frames: list[Frame] = field(default_factory=list)

    def controls(self) -> dict[str, Control]:
        """Which of the frames."""
        return {"frame": Slider("frame", 0, 0, max(len(self.frames) - 1, 1))}

    def render(self, state: State) -> Picture:
        """Three panels side by side."""
        frame = self._frame(state)
        options: dict[str, Any] = {
            "limits": intensity_limits(self.moving, self.fixed),
            "scale": integer_scale(self.moving.shape, 256),
        }
        grid = render_grid(render_image(self.moving, **options), frame.displacement)
        return stack(render_image(frame.warped, **options), render_image(self.fixed, **options), grid, axis=1)

    def describe(self, state: State) -> str:
        """The step and its loss terms."""
        frame = self._frame(state)
        return f"warped · fixed · grid on moving, after {frame.step} steps. {frame.terms}"

    def _frame(self, state: State) -> Frame:
        return self.frames[min(state["frame"], len(self.frames) - 1)]


class TimeLapse(View):
    """A view of one pair that follows a training: give it to `train` as its callback, wind it back afterwards.

    model: the one that is trained. pair: 2D, of batch 1; `item` chooses from a larger one. every: steps between frames.
    """

    def __init__(self, model: torch.nn.Module, pair: Pair, *, every: int = 10, item: int = 0) -> None:
        if every < 1:
            raise InputError("every must be at least 1 step", every, "10 is usual")
        self.model, self.pair, self.every, self.item = model, pair, every, item
        scene = Learning(plane(pair.moving, "moving", item), plane(pair.fixed, "fixed", item))
        scene.frames.append(self._look(0, ""))
        self.learning = scene
        super().__init__(scene)

    def __call__(self, step: int, history: History) -> None:
        """Take a frame after every `every`-th step, and show it."""
        done = step + 1
        if done % self.every == 0:
            terms = ", ".join(f"{name} {values[-1]:.4g}" for name, values in history.terms.items())
            self.learning.frames.append(self._look(done, terms))
            slider = self.controls["frame"]
            slider.max = len(self.learning.frames) - 1
            slider.value = slider.max

    def _ipython_display_(self) -> None:
        """On a page without a kernel: what there is now, and again after each later cell that took frames."""
        if not static.wanted():
            raise NotImplementedError  # then IPython asks for _repr_mimebundle_
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import display

        output = display(self._repr_mimebundle_(), raw=True, display_id=True)
        shown = len(self.learning.frames)

        def renew(*_: Any) -> None:
            nonlocal shown
            if len(self.learning.frames) > shown:
                shown = len(self.learning.frames)
                output.update(self._repr_mimebundle_(), raw=True)

        InteractiveShell.instance().events.register("post_run_cell", renew)

    def _look(self, step: int, terms: str) -> Frame:
        training = self.model.training
        device = next(self.model.parameters()).device
        pair = self.pair.to(device)
        with torch.no_grad():
            displacement = self.model.eval()(pair.moving, pair.fixed).displacement
        self.model.train(training)
        warped = plane(warp(pair.moving, displacement), "warped", self.item)
        return Frame(step, warped, field_plane(displacement, "displacement", self.item), terms)
