"""The ablation panel: a model's own switches as controls; what each combination learned, beside the reference."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets
import torch

from regkit.course.studies import Study, Trained, switches
from regkit.metrics import inverse_consistency
from regkit.tools.compare import measure_variant, register
from regkit.training import History
from regkit.types import InputError, Pair, Registration, spatial
from regkit.widgets import MOVING, Button, Choice, Control, State, Toggle, View
from regkit.widgets.panels import Panel, Quantities, make_panels
from regkit.widgets.slices import linked

BEFORE = ("moving", "fixed", "before")
_REMEMBERED = 6  # pairs of results


@dataclass(frozen=True, eq=False)
class Result:
    """What one combination of switches learned, seen on the study's pair."""

    trained: Trained
    registration: Registration
    numbers: Mapping[str, float]

    @property
    def words(self) -> str:
        """The numbers, and how long it took."""
        history = self.trained.history
        measured = ", ".join(f"{name} {value:.3g}" for name, value in self.numbers.items())
        weights = sum(parameter.numel() for parameter in self.trained.model.parameters())
        length = f"{len(history)} steps in {sum(history.seconds):.0f} s"
        return f"{measured}; {weights:,} weights, {length}{'' if self.trained.complete else ', stopped, not kept'}."


class AblationPanel(View):
    """Choose a combination of a model's switches, see what it learned beside the reference, or train it now.

    study: how combinations are trained, and where results are kept. pair: what the results are shown on, at best one
    that none was trained on. names: of the switches to offer; by default all that the model's constructor types as bool
    or Literal (`studies.switches`). panels, item, upright: as of `widgets.slice_viewer`.

    A training runs in a thread of its own, so that "stop" and the other controls answer, and takes its steps in turn
    with other trainings. It draws from torch's global generator: let it end before a cell that draws by itself, such as
    one that makes a model. What was stopped is shown, and not kept.

    Raises:
        ValueError: a name that is no switch of the model; otherwise as `widgets.slice_viewer`.
    """

    def __init__(
        self,
        study: Study,
        pair: Pair,
        names: Sequence[str] | None = None,
        *,
        panels: Sequence[str] = MOVING,
        item: int = 0,
        upright: bool = False,
    ) -> None:
        known = switches(study.model)
        names = [name for name in known if name not in study.arguments] if names is None else names
        if not names or set(names) - set(known):
            raise InputError(
                f"a panel offers some of the switches {', '.join(known)}", list(names), "choose some of them"
            )
        self.study, self.pair = study, pair
        self.options = {name: known[name] for name in names}  # the values of each switch, the reference's first
        self.results: dict[str, Result | None] = {}  # what was looked up so far, by the file's name
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        reference = {name: values[0] for name, values in self.options.items()}

        @functools.lru_cache(_REMEMBERED)
        def made(*results: Result | None) -> list[Panel]:
            """Panels of all results that there are, in the reference's range; the untouched pair if there is none."""
            shown: list[Panel] = []
            reach: float | None = None
            for name, result in zip(("reference", "chosen"), results, strict=True):
                if result is not None:
                    case = Quantities(pair, result.registration.displacement, None, item, reach)
                    shown += [replace(panel, title=f"{name}: {panel.title}") for panel in make_panels(case, panels)]
                    reach = case.limit
            space = spatial(pair.fixed)
            return shown or make_panels(Quantities(pair, torch.zeros(1, len(space), *space), item=item), BEFORE)

        def shown(state: State) -> list[Panel]:
            return made(self.result(reference), self.result(self.choice(state)))

        def words(state: State) -> str:
            """The numbers of the reference and of what is chosen, and which switches differ."""
            choice = self.choice(state)
            different = ", ".join(f"{name} = {value}" for name, value in choice.items() if value != reference[name])
            told = {"Reference": reference} | ({f"Chosen ({different})": choice} if different else {})
            results = {name: self.result(each) for name, each in told.items()}
            missing = 'not trained yet; "train this one" trains it.'
            return " ".join(f"{name}: {result.words if result else missing}" for name, result in results.items())

        own = {name: _control(name, values) for name, values in self.options.items()}
        scene = linked(shown, own, words, spacing=pair.spacing, upright=upright)
        planes = {name: each for name, each in scene.controls.items() if name not in {*own, "extreme", "go"}}
        buttons = {"train": Button("train this one"), "stop": Button("stop", False)}
        super().__init__(replace(scene, controls={**own, **buttons, **planes}))
        self.progress = ipywidgets.IntProgress(max=max(study.recipe.steps, 1), layout={"width": "300px"})
        self.status = ipywidgets.HTML()
        bar = ipywidgets.HBox([self.progress, self.status])
        self.widget.children = (self.widget.children[0], bar, *self.widget.children[1:])

    def choice(self, state: State) -> dict[str, Any]:
        """The switches' values."""
        return {
            name: next(value for value in values if str(value) == str(state[name]))
            for name, values in self.options.items()
        }

    def result(self, choice: Mapping[str, Any]) -> Result | None:
        """What a combination learned, from the disk at first; None where it is not trained yet."""
        key = self.study.path(choice).name
        if key not in self.results:
            trained = self.study.find(choice)
            self.results[key] = None if trained is None else self._look(trained)
        return self.results[key]

    def _look(self, trained: Trained) -> Result:
        """Let a trained model register the pair, and the pair with its images exchanged."""
        registration = register(trained.model, self.pair)
        back = register(trained.model, Pair(self.pair.fixed, self.pair.moving)).displacement
        exchanged = inverse_consistency(registration.displacement, back)
        numbers = measure_variant(self.pair, registration) | {"exchange error (voxels)": exchanged}
        return Result(trained, registration, numbers)

    def press(self, button: str) -> None:
        """Train what is chosen, in a thread; or stop that."""
        if button == "stop":
            self._stop.set()
        elif self._thread is None or not self._thread.is_alive():
            self._stop.clear()
            self._enable(training=True)
            choice = self.choice(self.state)
            self._thread = threading.Thread(target=self._train, args=(choice,), daemon=True)
            self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Return when the training under way has ended, or after this time."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _train(self, choice: Mapping[str, Any]) -> None:
        """In the thread: train, look at the result, draw."""

        def train() -> None:
            trained = self.study.train(choice, callback=self._report)
            self.results[self.study.path(choice).name] = self._look(trained)
            self.status.value = "trained and kept" if trained.complete else "stopped"

        failed = len(self.errors)
        self.attempt(train)
        self._enable(training=False)
        if len(self.errors) == failed:
            self.update()

    def _report(self, step: int, history: History) -> None:
        """After each step: the bar, and the loss."""
        self.progress.value = step + 1
        self.status.value = f"step {step + 1} of {self.progress.max}, loss {history.loss[-1]:.4g}"
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _enable(self, *, training: bool) -> None:
        self.controls["train"].disabled, self.controls["stop"].disabled = training, not training


def _control(name: str, values: tuple[Any, ...]) -> Control:
    """A switch's control: on or off, or one of several."""
    words = name.replace("_", " ")
    if set(values) == {True, False}:
        return Toggle(words, values[0])
    return Choice(words, [str(value) for value in values])
