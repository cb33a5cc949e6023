"""A method's figure, alive: the boxes of its forward pass, and what is lost when one of its parts is switched off.

`architecture("spnet")` runs a trained model on a held-out pair and watches it by hooks: what each part makes at each
level, and on which line of the model. The rows of `studies.VARIANTS` switch parts off; their trainings are the dots.
`ANATOMIES` says which call is which box, and where the paper has it.
"""

from __future__ import annotations

import functools
import html
import inspect
import itertools
import linecache
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ipywidgets
import numpy as np
import torch
from matplotlib.ticker import NullFormatter
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from torch import Tensor, nn

from regkit.course import papers, studies
from regkit.fields import warp
from regkit.figures import paint, pixels
from regkit.figures.pixels import Colour, Picture
from regkit.types import Pair, Registration, choose
from regkit.widgets import Choice, Control, Scene, State, Stops, View, static
from regkit.widgets.chart import Chart
from regkit.widgets.chart import paint as of_chart

ORIGINS: dict[str, Colour] = {"paper": (0, 90, 160), "authors' program": (165, 65, 0), "regkit's choice": (0, 110, 80)}
MEASURES = {
    "dice": "Dice",
    "mse": "MSE of the warped image",
    "exchange_error": "exchange error (voxels)",
    "folds": "folded voxels (%)",
}


class Part(NamedTuple):
    """A row of boxes, one for each level: what one call of the forward pass takes or gives there.

    path: of a module ("updates.*"), or the name of a method, or of a function in the model's file. take: "output" or
    "inputs", and the way into it. source: one of `ORIGINS`, and the place. side: 1 for the second half of the batch,
    which is the other direction. function: whose calls count; calls: which of them. nth: which call, where one gives
    all levels. fine_first: in this order. coarse: the levels that lack are the fine ones. switches: those that alter
    the part, with the values that take it away although it is called.
    """

    words: str
    path: str
    take: str
    kind: Literal["image", "features", "field", "labels"]
    source: str
    side: int = 0
    function: str = ""
    calls: Literal["all", "every other", "first half"] = "all"
    nth: int = 0
    fine_first: bool = False
    coarse: bool = False
    switches: Mapping[str, tuple[Any, ...]] = {}


class Anatomy(NamedTuple):
    """levels: the paper's numbers, coarse to fine. terms: of the loss, by source. measures: the paper's columns."""

    levels: tuple[int, ...]
    parts: tuple[Part, ...]
    terms: Mapping[str, str]
    measures: Mapping[str, str | None]


class Box(NamedTuple):
    """What flows at one level, (channels, *space) of one item; the method that calls for it, and its line."""

    value: Tensor
    function: str
    line: int

    @property
    def words(self) -> str:
        """Its shape: channels · space."""
        channels, *space = self.value.shape
        return f"{channels}·{'×'.join(map(str, space))}"


class Pass(NamedTuple):
    """A forward pass that was watched. boxes: of each part, for each level or None. terms: of the loss."""

    model: nn.Module
    registration: Registration
    boxes: list[list[Box | None]]
    terms: Mapping[str, float]


# ---------------------------------------------------------------------------------------------- the five
_ONE_ANSWER = {"average": (False,), "bidirectional": (False,), "symmetric": (False,)}

ANATOMIES: dict[str, Anatomy] = {
    "gradicon": Anatomy(
        (2, 1, 0),
        (
            Part("A, by coarser maps", "networks.*", "inputs.0", "image", "paper, eq. 6", calls="first half"),
            Part("B, halved", "networks.*", "inputs.1", "image", "paper, section 5.1", calls="first half"),
            Part("U-Net", "networks.*.encoder.0", "output", "features", "authors' program", calls="first half"),
            Part("field of one U-Net", "_register", "output.0", "field", "paper, section 5.1"),
            Part("map, composed so far", "_register", "output.1", "field", "paper, eq. 6"),
            Part("the same, B onto A", "_register", "output.1", "field", "paper, after eq. 6", nth=1),
        ),
        {"mse": "paper, after eq. 6", "gradicon": "paper, eq. 2", "icon": "paper, section 4"},
        {"mse": None, "folds": "folds (%)"},
    ),
    "spnet": Anatomy(
        (4, 3, 2, 1),
        (
            Part("images, as means", "pyramid", "output", "image", "regkit's choice", fine_first=True),
            Part("encoded (MIE)", "encoder.images.*", "output", "features", "paper, eq. 5", fine_first=True),
            Part("features F", "encoder", "output", "features", "paper, eq. 5", fine_first=True),
            Part("A's, warped (FW)", "pull", "output", "features", "paper, eq. 6", function="forward"),
            Part("answer to (A, B)", "estimators.*", "output.0", "field", "paper, eq. 7"),
            Part("answer to (B, A) (BE)", "estimators.*", "output.0", "field", "paper, eq. 7", side=1),
            Part("average v (BA)", "both_ways", "output", "field", "paper, eq. 8", switches=_ONE_ANSWER),
            Part("map exp(v) (SVF)", "exponential", "output", "field", "paper, eq. 3"),
        ),
        {"lncc": "paper, eq. 10", "diffusion": "paper, eq. 10", "inverse_consistency": "paper, section 4.5.1"},
        {"dice": "Dice", "exchange_error": "exchange error (voxels)"},
    ),
    "sitreg": Anatomy(
        (4, 3, 2, 1, 0),
        (
            Part("features h", "features", "output", "features", "paper, section 3.2", fine_first=True),
            Part("A's, half-way: z₁", "look_up", "output", "features", "paper, eq. 4"),
            Part("network's answer", "updates.*.head", "output", "field", "paper, appendix I"),
            Part("bounded", "updates.*", "output", "field", "regkit's choice: bound", switches={"limit": ("none",)}),
            Part("step v₁₂, by splines", "upsample_controls", "output", "field", "paper, appendix I"),
            Part("inverse v₂₁⁻¹", "two_sided", "output.1", "field", "paper, eq. 5"),
            Part("L: A's half way", "composed", "output", "field", "paper, eq. 6", 0, "stages", "every other"),
            Part(
                *("R: B's half way", "composed", "output", "field", "paper, eq. 7", 1, "stages", "every other"),
                switches={"meeting": ("fixed",)},
            ),
        ),
        {"lncc": "paper, eq. 9", "diffusion": "paper, eq. 9"},
        {"dice": "Dice", "exchange_error": None},
    ),
    "sacbnet": Anatomy(
        (5, 4, 3, 2, 1),
        (
            Part("features F", "encode", "output", "features", "paper, section 3.1", fine_first=True),
            Part("A's, warped", "pull", "output", "features", "paper, eq. 11"),
            Part(
                *("clusters S", "blocks.*", "output.clusters.index", "labels", "paper, eqs. 2-4"),
                coarse=True,
                switches={"clusters": (1,), "mean": ()},
            ),
            Part("A's, refined (SACB)", "blocks.*", "output.features", "features", "paper, eqs. 5-7", coarse=True),
            Part("match Δφ", "match", "output.increment", "field", "paper, eqs. 8-10", coarse=True),
            Part("rest, regressed", "regress", "output", "field", "paper, section 3.3"),
            Part("map φ, composed", "compose", "output", "field", "paper, eq. 11"),
        ),
        {"lncc": "paper, eq. 1", "diffusion": "paper, eq. 1"},
        {"dice": "IXI", "exchange_error": None},
    ),
    "smgicnet": Anatomy(
        (1, 2, 3, 4),
        (
            Part("A, by what is known", "networks.*", "inputs.0", "image", "paper, Figure 1a"),
            Part("wavelet energies", "networks.*", "inputs.1", "features", "paper, section 3.1"),
            Part("weight of the images", "refine", "output.weight", "image", "authors' program"),
            Part("gate (AGM), finest", "networks.*.gates.2", "output", "image", "paper, appendix A"),
            Part("velocity that is added", "refine", "output.residual", "field", "paper, section 3.2"),
            Part("sum of velocities v", "refine", "output.velocity", "field", "regkit's choice"),
            Part("map exp(v)", "refine", "output.displacement", "field", "paper, section 3.2"),
            Part("the same, B onto A", "refine", "output.displacement", "field", "paper, section 3.1", side=1),
        ),
        {
            "similarity": "paper, section 3.4",
            "smoothness": "paper, section 3.4",
            "gradient_inverse": "regkit's choice of a formula for section 3.3",
            "symmetric": "paper, eq. 2",
            "inverse": "paper, eq. 3",
            "multilevel": "paper, eq. 4",
        },
        {"dice": "Dice", "exchange_error": None},
    ),
}


# ---------------------------------------------------------------------------------------------- the pass
class Call(NamedTuple):
    """What a call took and gave, the method that made it and its line, and whether it only stands for what is off."""

    inputs: tuple[Any, ...]
    output: Any
    function: str
    line: int
    stand_in: bool


def run(model: nn.Module, pair: Pair, anatomy: Anatomy) -> Pass:
    """A forward pass and the objective, with hooks on the modules, methods and functions of an anatomy; batch 1."""
    calls: dict[str, list[Call]] = {part.path: [] for part in anatomy.parts}
    file = inspect.getsourcefile(type(model))

    def note(path: str, module: nn.Module | None, inputs: tuple[Any, ...], output: Any) -> None:
        frame: Any = sys._getframe(1)
        while frame.f_locals.get("self") is not model or frame.f_code.co_filename != file or frame.f_code.co_name < "A":
            frame = frame.f_back  # up to a method of the model, past lambdas
        stand_in = type(module).__name__ in {"NoChannels", "NoBlock", "OpenGate"}
        calls[path].append(Call(inputs, output, frame.f_code.co_name, frame.f_lineno, stand_in))

    with ExitStack() as hooks, torch.no_grad():
        for path in calls:
            pattern = path.replace(".", r"\.").replace("*", r"\d+")
            modules = [module for name, module in model.named_modules() if re.fullmatch(pattern, name)]
            for module in modules:
                hooks.callback(module.register_forward_hook(functools.partial(note, path)).remove)
            if "." not in path and not modules:
                hooks.callback(_hook_function(model, path, functools.partial(note, path, None)))
        registration = model(pair.moving, pair.fixed)
        terms = model.objective(registration, pair.moving, pair.fixed)  # type: ignore[operator]
    boxes = [_boxes(part, calls[part.path], len(anatomy.levels)) for part in anatomy.parts]
    return Pass(model, registration, boxes, {name: term.item() for name, term in terms.items()})


def _hook_function(model: nn.Module, name: str, note: Callable[..., None]) -> Callable[[], None]:
    """Note the calls of a method, or of a function in the model's file; returns what undoes that."""
    owner = model if hasattr(model, name) else sys.modules[type(model).__module__]
    function = getattr(owner, name)

    def noted(*inputs: Any, **options: Any) -> Any:
        output = function(*inputs, **options)
        note(inputs, output)
        return output

    setattr(owner, name, noted)
    return lambda: delattr(owner, name) if owner is model else setattr(owner, name, function)


def _boxes(part: Part, calls: list[Call], levels: int) -> list[Box | None]:
    """What a part's calls make at each level, coarse to fine."""
    counted = [call for call in calls if part.function in ("", call.function)]
    counted = counted[:: 2 if part.calls == "every other" else 1]
    counted = counted[: len(counted) // (2 if part.calls == "first half" else 1)]
    taken = [(_take(call, part.take), call) for call in counted]
    if taken and isinstance(taken[0][0], list | tuple):
        values, call = taken[part.nth]
        taken = [(value, call) for value in values]
    boxes: list[Box | None] = []
    for value, call in reversed(taken) if part.fine_first else taken:
        gone = value is None or call.stand_in or value.numel() == 0 or len(value) <= part.side
        one = None if gone else value[part.side].float()
        boxes.append(
            None if one is None else Box(one[None] if part.kind == "labels" else one, call.function, call.line)
        )
    missing: list[Box | None] = [None] * (levels - len(boxes))
    return boxes + missing if part.coarse else missing + boxes


def _take(call: Call, take: str) -> Any:
    """A part of what a call took or gave."""
    value: Any = call
    for step in take.split("."):
        if value is not None:
            value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value


# ---------------------------------------------------------------------------------------------- the figure
_LABEL, _COLUMN, _HEAD, _ROW, _SIDE, _RIGHT, _LARGE = 140, 84, 22, 53, 36, 430, 76  # pixels
_FAINT, _EDGE = (105, 105, 105), (190, 196, 204)
_OFF, _ALTERED = "off", "altered"


def square(values: Any, kind: str, side: int) -> Picture:
    """What flows, (channels, H, W), `side` pixels high: an image, a field's directions, labels, or feature maps."""
    values = np.asarray(values)
    if kind == "field":
        picture = paint.render_displacement(values, limit=pixels.displacement_limit(values))
    elif kind == "labels":
        picture = pixels.LABELS[values[0].astype(int) % len(pixels.LABELS)]
    elif kind == "image":
        picture = paint.render_image(values[0], limits=pixels.intensity_limits(values[0]))
    else:  # each in its own range
        maps = [paint.render_image(each, limits=(each.min(), each.max() + 1e-9)) for each in values[:4]]
        picture = np.concatenate([np.concatenate(maps[i : i + 2], 1) for i in range(0, len(maps), 2)])
    height, width = picture.shape[:2]
    how = PillowImage.Resampling.NEAREST if height < side else PillowImage.Resampling.BOX
    return np.array(PillowImage.fromarray(picture).resize((round(side * width / height), side), how))


class Sheet:
    """White paper for small pictures in frames, and for words in a typeface that has the signs of formulas."""

    def __init__(self, height: int, width: int) -> None:
        self.paper = PillowImage.new("RGB", (width, height), pixels.PAPER)
        self.pen = ImageDraw.Draw(self.paper)

    def write(self, row: float, column: float, text: str, ink: Colour = pixels.INK, anchor: str = "lm") -> None:
        self.pen.text((column, row), text, ink, _font(), anchor)

    def paste(self, picture: Picture, row: int, middle: int, frame: Colour, width: int = 1) -> None:
        """A picture, its middle at this column."""
        left = middle - picture.shape[1] // 2
        corners = (left - width, row - width, left + picture.shape[1] + width - 1, row + picture.shape[0] + width - 1)
        self.pen.rectangle(corners, frame)
        self.paper.paste(PillowImage.fromarray(picture), (left, row))


@functools.cache
def _font() -> Any:
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 11)


@dataclass(frozen=True, eq=False)
class Figure:
    """The forward pass of a study's method on a held-out pair, and those of its variants."""

    study: str
    pair: int

    @functools.cached_property
    def anatomy(self) -> Anatomy:
        return choose("study", self.study, ANATOMIES)

    @functools.cached_property
    def passes(self) -> dict[str, Pass]:
        """Of each variant whose weights are stored, those of the first seed; the reference first."""
        one, found = studies.STUDIES[self.study], {}
        for name, choice in studies.VARIANTS[self.study].items():
            if one.path(choice).exists():
                found[name] = run(studies.load(self.study, name).model, one.held_out[self.pair], self.anatomy)
        return found

    @property
    def reference(self) -> Pass:
        return self.passes["reference"]

    @functools.cached_property
    def reached(self) -> dict[tuple[str, str], Any]:
        """Of each variant and measure: (seeds, pairs), or (seeds, 1), the mean, where records have no more."""
        found = {}
        for name, measure in itertools.product(self.passes, self.anatomy.measures):
            found[name, measure] = studies.values(self.study, name, measure)
            if not found[name, measure].size:
                records = studies.records(self.study, name)
                found[name, measure] = np.array([[record["metrics"][measure]] for record in records])
        return found

    def status(self, variant: str) -> list[list[str]]:
        """Of each part at each level: "", "off" or "altered"."""
        choice, found = studies.choice(self.study, variant), []
        for part, *boxes in zip(self.anatomy.parts, self.reference.boxes, self.passes[variant].boxes, strict=True):
            removed = [choice[name] in values for name, values in part.switches.items() if name in choice]
            stands = _OFF if any(removed) else _ALTERED if removed else ""
            levels = zip(*boxes, strict=True)
            found.append(["" if method is None else _OFF if other is None else stands for method, other in levels])
        return found

    def lost(self, variant: str) -> list[str]:
        """The parts and terms that a variant lacks, at least at one level."""
        parts = zip(self.anatomy.parts, self.status(variant), strict=True)
        terms = [
            name for name, value in self.reference.terms.items() if value and not self.passes[variant].terms.get(name)
        ]
        return [part.words for part, status in parts if _OFF in status] + terms

    def place(self, part: int) -> str:
        """Where the forward pass makes a part: file, line, and what stands there."""
        box = next(box for box in self.reference.boxes[part] if box is not None)
        file = Path(inspect.getsourcefile(type(self.reference.model)) or "")
        text = linecache.getline(str(file), box.line).split("  #")[0].strip()
        return f"{file.parent.name}/{file.name}, line {box.line}, in {box.function}: {text}"

    def drawn(self, variant: str) -> Picture:
        """Rows of boxes, one for each part; columns are levels. What is off is faint; what is altered has a frame."""
        levels, parts = self.anatomy.levels, self.anatomy.parts
        sheet = Sheet(_HEAD + _ROW * len(parts) + 38, _LABEL + _COLUMN * len(levels))
        sheet.write(10, 6, "↓ in order, level → level")
        middles = [_LABEL + _COLUMN * i + _COLUMN // 2 for i in range(len(levels))]
        for i, (level, middle) in enumerate(zip(reversed(levels), reversed(middles), strict=True)):
            sheet.write(10, middle, f"level {level}: {f'1/{2**i}' if i else 'full'}", anchor="mm")
        rows = zip(parts, self.reference.boxes, self.status(variant), strict=True)
        for i, (part, boxes, status) in enumerate(rows):
            top = _HEAD + _ROW * i
            gone = all(each == _OFF for box, each in zip(boxes, status, strict=True) if box)
            sheet.write(top + 14, 6, part.words, _FAINT if gone else pixels.INK)
            sheet.write(top + 30, 6, part.source, origin(part.source))
            for middle, box, each in zip(middles, boxes, status, strict=True):
                if box is not None:
                    picture = square(box.value, part.kind, _SIDE)
                    frame = (ORIGINS["authors' program"], 3) if each == _ALTERED else (_EDGE, 1)
                    sheet.paste(picture // 5 + 204 if each == _OFF else picture, top + 3, middle, *frame)
                    words = _OFF if each == _OFF else box.words
                    sheet.write(top + 44, middle, words, _FAINT if each == _OFF else pixels.INK, "mm")
        self._terms(sheet, variant, _HEAD + _ROW * len(parts) + 12)
        return np.array(sheet.paper)

    def _terms(self, sheet: Sheet, variant: str, top: int) -> None:
        """The terms of the loss on this pair, one after the other."""
        column = 4.0
        for name, source in {"loss:": "", **self.anatomy.terms}.items():
            value = self.passes[variant].terms.get(name, 0)
            words = f"{name} {value:.2g}" if value else f"{name} off" if source else name
            width = sheet.pen.textlength(words, _font())
            if column + width > sheet.paper.width:
                column, top = 40.0, top + 16
            sheet.write(top, column, words, origin(source) if value else _FAINT)
            column += width + 14

    def large(self, variant: str, chosen: int) -> Picture:
        """A, B, and A as the method warps it; then as the variant does, or the finest of the chosen boxes."""
        part, sheet = self.anatomy.parts[chosen], Sheet(_LARGE + 24, _RIGHT)
        pair = studies.STUDIES[self.study].held_out[self.pair]
        warped = [warp(pair.moving, self.passes[name].registration.displacement) for name in ("reference", variant)]
        images = {"A": pair.moving, "B": pair.fixed, "A ∘ φ": warped[0], f"A ∘ φ, {variant}": warped[1]}
        squares = {words: square(image[0], "image", _LARGE) for words, image in images.items()}
        if variant == "reference":
            box = next(box for box in reversed(self.reference.boxes[chosen]) if box is not None)
            squares = {**dict(list(squares.items())[:3]), part.words: square(box.value, part.kind, _LARGE)}
        for i, (words, picture) in enumerate(squares.items()):
            sheet.paste(picture, 2, 46 + 90 * i, _EDGE)
            sheet.write(_LARGE + 14, 46 + 90 * i if i < 3 else 270, words, anchor="mm" if i < 3 else "lm")
        return np.array(sheet.paper)

    def words(self, variant: str, chosen: int) -> str:
        """The chosen part, or what the variant changes, in one sentence."""
        if variant == "reference":
            part = self.anatomy.parts[chosen]
            return f"{part.words} ({part.source}): {self.place(chosen)}."
        told = []
        for measure in self.anatomy.measures:
            less, more = (studies.spread(self.reached[name, measure].mean(1)) for name in (variant, "reference"))
            told.append(f"{MEASURES[measure]} {less}, the method {more}")
        return f"{variant} (off: {', '.join(self.lost(variant)) or 'no box'}): {'; '.join(told)}."

    def tables(self) -> str:
        """All of it as HTML: parts and terms with their places, and what each variant reached."""
        printed, variants = papers.PRINTED[self.study], list(self.passes)[1:]
        rows = []
        for i, part in enumerate(self.anatomy.parts):
            shapes = ", ".join(box.words if box else "none" for box in self.reference.boxes[i])
            rows.append([part.words, shapes, part.source, self.place(i)])
        objective = type(self.reference.model).objective  # type: ignore[attr-defined]
        place = f"{Path(inspect.getsourcefile(objective) or '').name}, line {inspect.getsourcelines(objective)[1]}"
        for name, source in self.anatomy.terms.items():
            rows.append([name, f"{self.reference.terms.get(name, 0):.3g}", source, place])
        for row in rows:
            row.append(", ".join(name for name in variants if row[0] in self.lost(name)))
        reached = []
        for name in self.passes:
            reached.append([title(self.study, name)])
            for measure, column in self.anatomy.measures.items():
                values = self.reached[name, measure]
                theirs = f"{printed.value(name, column):g}" if column and name in printed.rows else ""
                own = "".join(f"{each:.3g}" for each in values[:, self.pair : self.pair + 1].mean(0))
                reached[-1] += [str(studies.spread(values.mean(1))), own, theirs]
        heads = [
            f"{MEASURES[each]}{more}"
            for each in self.anatomy.measures
            for more in (", mean ± over seeds", ", this pair", ", paper")
        ]
        parts = _html(["part or term", "channels·space, coarse to fine", "source", "in the code", "off in"], rows)
        tables = parts + _html(["switched off", *heads], reached)
        return f"<details><summary>The figure as tables ({html.escape(str(printed))})</summary>{tables}</details>"


def origin(source: str) -> Colour:
    """The colour of whose idea it is."""
    return next(colour for name, colour in ORIGINS.items() if source.startswith(name))


def title(study: str, variant: str) -> str:
    """A variant's name, and its switches."""
    changes = ", ".join(f"{name}={value}" for name, value in studies.choice(study, variant).items())
    return f"{variant}: {changes}" if changes else "nothing (the method)"


def _html(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table style="text-align: left"><tr>{cells}</tr>{body}</table>'


# ---------------------------------------------------------------------------------------------- the view
class Dots:
    """A measure of all variants: small dots are pairs under each seed, bars the seeds' means, large dots the pair."""

    def __init__(self, figure: Figure, measure: str, width: int, *, named: bool) -> None:
        self.names, column = list(figure.passes), figure.anatomy.measures[measure]
        self.chart = Chart(width=width, height=56 + 21 * len(self.names), legend=None)
        axes, printed = self.chart.axes, papers.PRINTED[figure.study]
        labels = [textwrap.fill(name, 20) if named else "" for name in self.names]
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
        axes.set_title(MEASURES[measure], loc="left", fontsize=8)
        axes.set_ylim(len(self.names) - 0.5, -0.5)
        if measure == "exchange_error":
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.locator_params(axis="x", nbins=4)
        axes.grid(visible=False, axis="y")
        text: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 8, "va": "center"}
        if column:
            axes.text(1.03, -1, "paper", color=of_chart(ORIGINS["paper"]), **text)
        for row, name in enumerate(self.names):
            values = figure.reached[name, measure]
            places = row + 0.6 * ((np.arange(len(values)) + 0.5) / len(values) - 0.5)[:, None]
            own = values[:, figure.pair : figure.pair + 1]
            axes.plot(values, places + 0 * values, ".", color="#9db4c8", markersize=3)
            axes.plot(values.mean(1), places, "|", color=of_chart(pixels.INK), markersize=7, markeredgewidth=1.8)
            axes.plot(own, places + 0 * own, "o", color=of_chart(ORIGINS["authors' program"]), markersize=3.5)
            if column and name in printed.rows:
                axes.text(1.03, row, f"{printed.value(name, column):g}", **text)
        band: dict[str, Any] = {"width": 15, "alpha": 0.18, "transform": axes.get_yaxis_transform()}
        self.bands = [self.chart.line("#0072b2", **band) for _ in range(2)]

    def at(self, variant: str) -> Picture:
        """With the rows of the method and of a variant marked."""
        for band, name in zip(self.bands, ("reference", variant), strict=True):
            band.set_data([0, 1], [self.names.index(name)] * 2)
        return self.chart.frame()


class Architecture(View):
    """The view of a `Figure`; `table` shows the same as tables."""

    def __init__(self, figure: Figure) -> None:
        variants = {title(figure.study, name): name for name in figure.passes}
        parts = [part.words for part in figure.anatomy.parts]
        widths = (_RIGHT - 165, 165)
        charts = [
            Dots(figure, *each, named=not i) for i, each in enumerate(zip(figure.anatomy.measures, widths, strict=True))
        ]

        @functools.cache
        def drawn(variant: str) -> tuple[Picture, Picture]:
            dots = pixels.stack(*(chart.at(variant) for chart in charts), axis=1, gap=0)
            if variant == "reference":  # nothing is told before a part is switched off
                sheet = Sheet(*dots.shape[:2])
                sheet.write(len(dots) / 2, 40, "What is a part worth? Predict, then switch it off.")
                dots = np.array(sheet.paper)
            return figure.drawn(variant), dots

        def render(state: State) -> Picture:
            variant, chosen = variants[state["off"]], parts.index(state["part"])
            left, dots = drawn(variant)
            if variant == "reference":  # bars beside the row that is looked at
                left, row = left.copy(), _HEAD + _ROW * chosen
                left[row - 1 : row + _ROW - 1, :3] = left[row - 1 : row + _ROW - 1, -3:] = ORIGINS["paper"]
            return pixels.stack(left, pixels.stack(dots, figure.large(variant, chosen)), axis=1)

        def describe(state: State) -> str:
            return figure.words(variants[state["off"]], parts.index(state["part"]))

        controls: dict[str, Control] = {
            "off": Choice("switched off", list(variants)),
            "part": Stops("look at", parts, parts[0]),
        }

        def hidden(state: State) -> set[str]:
            return set() if variants[state["off"]] == "reference" else {"part"}

        super().__init__(Scene(controls, render, describe, hidden))
        self.figure, self.table = figure, ipywidgets.HTML(figure.tables())
        self.widget.children += (self.table,)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**options)
        if static.wanted():
            bundle["text/html"] += self.table.value
        return bundle


def architecture(study: str, pair: int = 3) -> Architecture:
    """A method's figure from a real forward pass: look at its parts, and switch one off to see what it does.

    study: of `ANATOMIES`. pair: which of the study's held-out pairs is shown.

    Raises:
        ValueError: there is no such study; lists those that there are.
    """
    return Architecture(Figure(study, pair))
