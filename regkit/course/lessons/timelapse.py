"""A training to watch while it goes on, and to wind back when it is over."""

from __future__ import annotations

from typing import Any

import torch

from regkit.course.lessons.sweeps import Stop
from regkit.figures.paint import render_grid, render_image, titled_rows
from regkit.figures.pixels import Picture, integer_scale, intensity_limits, plane
from regkit.training import History
from regkit.types import InputError, Pair
from regkit.widgets import Scene, Slider, State, View, static


class TimeLapse(View):
    """A view of one pair that follows a training: give it to `train` as its callback, wind it back afterwards.

    model: the one that is trained. pair: 2D, of batch 1; `item` chooses from a larger one. every: steps between frames.
    frames: what it made of the pair, after so many steps: the loss terms are the note.
    """

    def __init__(self, model: torch.nn.Module, pair: Pair, *, every: int = 10, item: int = 0) -> None:
        if every < 1:
            raise InputError("every must be at least 1 step", every, "10 is usual")
        self.model, self.pair, self.every, self.item = model, pair, every, item
        self.frames: dict[int, Stop] = {0: self._look("")}
        super().__init__(self._scene())

    def __call__(self, step: int, history: History) -> None:
        """Take a frame after every `every`-th step, and show it."""
        done = step + 1
        if done % self.every == 0:
            terms = ", ".join(f"{name} {values[-1]:.4g}" for name, values in history.terms.items())
            self.frames[done] = self._look(terms)
            self.scene = self._scene()
            slider = self.controls["frame"]
            slider.max = len(self.frames) - 1
            slider.value = slider.max

    def _scene(self) -> Scene:
        """Warped, fixed, and the map's grid on the moving image, after as many steps as a frame knows."""
        moving, fixed = plane(self.pair.moving, "moving", self.item), plane(self.pair.fixed, "fixed", self.item)
        steps = list(self.frames)
        options: dict[str, Any] = {
            "limits": intensity_limits(moving, fixed),
            "scale": integer_scale(moving.shape, 256),
        }

        def step(state: State) -> int:
            return steps[min(state["frame"], len(steps) - 1)]

        def render(state: State) -> Picture:
            frame = self.frames[step(state)]
            panels = {"warped": render_image(frame.warped, **options), "fixed": render_image(fixed, **options)}
            panels["x + u(x), on moving"] = render_grid(render_image(moving, **options), frame.displacement)
            return titled_rows(panels)

        def describe(state: State) -> str:
            done = step(state)
            return f"warped · fixed · grid on moving, after {done} steps. {self.frames[done].note}"

        return Scene({"frame": Slider("frame", 0, 0, max(len(steps) - 1, 1))}, render, describe)

    def _ipython_display_(self) -> None:
        """On a page without a kernel: what there is now, and again after each later cell that took frames."""
        if not static.wanted():
            return super()._ipython_display_()
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import display

        output = display(self._repr_mimebundle_(), raw=True, display_id=True)
        shown = len(self.frames)

        def renew(*_: Any) -> None:
            nonlocal shown
            if len(self.frames) > shown:
                shown = len(self.frames)
                output.update(self._repr_mimebundle_(), raw=True)

        InteractiveShell.instance().events.register("post_run_cell", renew)

    def _look(self, note: str) -> Stop:
        training = self.model.training
        pair = self.pair.to(next(self.model.parameters()).device)
        with torch.no_grad():
            displacement = self.model.eval()(pair.moving, pair.fixed).displacement
        self.model.train(training)
        return Stop.of(pair.moving, displacement, note, self.item)
