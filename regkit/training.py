"""One training loop for every model: deterministic, resumable to the bit, on one process or under torchrun.

A step is a function of the weights and of (seed, step, rank) alone: its pairs and its random numbers follow from these
three, not from what was drawn before. So a training can stop anywhere and go on as if it had not, and callbacks may
draw random numbers without changing it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from regkit._core.files import locked
from regkit._core.interrupts import Bar, as_ctrl_c, until_the_end
from regkit._core.processes import answering, join, one_statistic
from regkit._core.resuming import History, generators, restore, write
from regkit.types import Count, Image, InputError, InputTypeError, Pair, Positive, Seed, Whole, check_kind

__all__ = ["History", "Mode", "Precision", "Recipe", "Schedule", "mode", "seed_everything", "steps", "train"]
Schedule = Literal["constant", "cosine", "polynomial"]
Precision = Literal["float32", "bfloat16"]
Mode = Literal["fast", "full"]


# ---------------------------------------------------------------------------------------------- recipes
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

    steps: Whole = 1000
    learning_rate: Positive = 1e-3
    batch: Count = 1
    seed: Seed = 0
    schedule: Schedule = "constant"
    clip: Positive | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Recipe, include_extras=True).items():
            check_kind(getattr(self, name), hint, name)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        t = step / self.steps
        factors = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * t)) / 2, "polynomial": (1 - t) ** 0.9}
        return self.learning_rate * factors[self.schedule]


# ---------------------------------------------------------------------------------------------- the loop


Item = Pair | tuple[Image, Image]
Source = Sequence[Item] | Callable[[int, torch.Generator], Item]
Callback = Callable[[int, History], None]


def train(
    model: Any,
    source: Source,
    recipe: Recipe,
    *,
    checkpoint: Path | str | None = None,
    every: int = 100,
    progress: bool = True,
    callback: Callback | None = None,
) -> History:
    """Minimise Σ model.objective(model(moving, fixed), moving, fixed) over a source of pairs; changes model in place.

    source: a sequence of pairs of batch 1 (each a Pair or (moving, fixed)), which every epoch takes in a new order; or
    a function source(step, generator) that makes a batch from the generator it is given, and from nothing else.
    checkpoint: a file that is written each `every` steps and at the end (its folder is made); where it exists, the
    training goes on from it, to the same bits, with the same model, recipe and data. callback(step, history) is called
    after each step, and may use the model as it likes.

    Ctrl-C ends the training after the step in hand: the checkpoint is written and the history so far returned (a second
    Ctrl-C interrupts at once); so do SIGTERM and a terminal that is closed. The same bits need the same number of
    threads: a warning tells where the checkpoint was written with another. Trainings in several threads of one program
    take their steps in turn. Under `torchrun` each process takes its share: W processes with batch B take the step of
    one with batch W B, up to rounding: batch normalisation has one statistic over all, and what a model draws in a step
    is drawn once for all. A process that does not answer for five minutes (REGKIT_TIMEOUT, seconds) ends it with an
    error. Put the model on the process's own device first. The model is trained
    in training mode; each module's mode and torch's global random state are left as they were found.

    Raises:
        FloatingPointError: a term or the gradient is not finite; the model is as it was before that step.
        TypeError, ValueError: the source is none; pairs of several sizes in a batch; the checkpoint belongs to another
            training or cannot be written; an argument is out of range; nothing can be trained.
    """
    path = None if checkpoint is None else Path(checkpoint)
    for name, value, hint in (("recipe", recipe, Recipe), ("every", every, Count), ("progress", progress, bool)):
        check_kind(value, hint, name)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            "a model must have weights to train",
            f"{type(model).__name__} with none that require a gradient",
            "call model.requires_grad_(True)",
        )
    _check_source(source, recipe)
    device = next(model.parameters()).device
    found = [(module, module.training) for module in model.modules()]
    run: _Run | None = None
    rank, world = join(device)
    if path is not None and rank == 0:
        _check_place(path)
    try:
        with as_ctrl_c():
            with until_the_end():  # torch imports its compiler with the first optimiser
                run = _Run(model, source, recipe, rank, world)
                run.begin(path)
            with Bar(total=recipe.steps, initial=len(run.history), disable=not progress or rank > 0) as bar:
                run.go_on(bar, callback, path, every)
    except KeyboardInterrupt:
        if run is None:
            raise
    finally:
        for module, training in found:
            module.training = training
    return run.history


_TURN = threading.RLock()


@contextmanager
def random_state(seed: int, devices: Sequence[torch.device] | None = None) -> Iterator[None]:
    """Torch's global generators seeded for a block, and then as they were; blocks of other threads wait their turn.

    devices: GPUs whose generators are put back; all by default.
    """
    with _TURN, torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


class _Run:
    """A training under way."""

    def __init__(self, model: Any, source: Source, recipe: Recipe, rank: int, world: int) -> None:
        self.model, self.source, self.recipe, self.rank, self.world = model, source, recipe, rank, world
        self.network: nn.Module = model
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.trained[0].device
        self.devices = [self.device] if self.device.type == "cuda" else []
        self.optimiser = torch.optim.Adam(self.trained, lr=recipe.learning_rate)
        self.history = History()
        self.data: list[float] = []  # of the first step, see _fingerprint

    def begin(self, path: Path | None) -> None:
        """Go back to where the checkpoint is, if there is one, and join the other processes."""
        if path is not None:
            with suppress(FileNotFoundError):  # another training has ended with it, or there is none yet
                self.history = restore(path, self.model, self.optimiser, self.recipe, self.world, data=self.first_data)
        if self.world > 1:
            self.network = DistributedDataParallel(self.model)

    def go_on(self, bar: Bar, callback: Callback | None, path: Path | None, every: int) -> None:
        """Take the steps that are left."""
        try:
            for step in range(len(self.history), self.recipe.steps):
                with until_the_end(impatient=True), answering(f"step {step} is taken"):
                    terms = self.take(step)
                bar.update()
                bar.set_postfix({name: f"{value:.4g}" for name, value in terms.items()}, refresh=False)
                if callback is not None:
                    callback(step, self.history)
                if (step + 1) % every == 0 or step + 1 == self.recipe.steps:
                    self.write(path)
        except KeyboardInterrupt:
            self.write(path)
            with suppress(OSError):  # a terminal that was closed
                bar.set_description(f"interrupted after {len(self.history)} steps")
            raise

    def take(self, step: int) -> dict[str, float]:
        """One step: pairs, gradient, new weights; returns the terms. An error leaves the model as it was."""
        start = time.perf_counter()
        with random_state(_mixed(self.recipe.seed, step, self.rank), self.devices):
            batch = _batch(self.source, self.recipe, step, self.rank, self.world)
            moving, fixed = (image.to(self.device) for image in batch)
            if self.world > 1:  # what a model draws, such as points to look at, all processes draw alike
                torch.manual_seed(_mixed(self.recipe.seed, step, 0))
            buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
            states = [(generator, generator.get_state()) for generator in generators(self.model)]
            try:
                terms = self.differentiate(moving, fixed, step)
                with until_the_end():  # all of the step or nothing of it
                    for group in self.optimiser.param_groups:
                        group["lr"] = self.recipe.rate(step)
                    self.optimiser.step()
                    self.data = self.data if step else _fingerprint(moving, fixed)
                    self.history.append(terms, time.perf_counter() - start)
            except BaseException:
                if len(self.history) == step:
                    for buffer, value in buffers:
                        buffer.data.copy_(value)
                    for generator, state in states:
                        generator.set_state(state)
                raise
        return terms

    @torch.enable_grad()  # whoever trains may do without
    def differentiate(self, moving: Image, fixed: Image, step: int) -> dict[str, float]:
        """Put the gradient of the loss into the parameters; returns the terms' values."""
        self.model.train()
        self.optimiser.zero_grad()
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")
        with half, one_statistic(self.model):
            registration = self.network(moving, fixed)
        terms = self.model.objective(_widened(registration), moving, fixed)
        values = _values(terms, self.world)
        for name, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"every term must be finite, received {name} = {value} at step {step} ({values}); the weights are "
                    f"unharmed: lower the learning rate, or look for the pair or the formula that gives it."
                )
        sum(terms.values()).backward()
        norm = float(nn.utils.clip_grad_norm_(self.trained, self.recipe.clip or math.inf))
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"the gradient must be finite, received the norm {norm} at step {step} ({values}); the weights are "
                f"unharmed: look for a square root or a division at zero with torch.autograd.set_detect_anomaly."
            )
        return values

    def first_data(self) -> list[float]:
        """What the first process saw in the first step, made again."""
        with random_state(_mixed(self.recipe.seed, 0, 0), self.devices):
            self.data = _fingerprint(*_batch(self.source, self.recipe, 0, 0, self.world))
        return self.data

    def write(self, path: Path | None) -> None:
        """Write the checkpoint, if there is to be one and this is the first process."""
        if path is not None and self.rank == 0:
            with until_the_end():
                write(path, self.model, self.optimiser, self.recipe, self.world, self.history, self.data)


def _values(terms: dict[str, Tensor], world: int) -> dict[str, float]:
    """The terms as numbers, averaged over the processes; one reading for all of them."""
    if not terms or any(not isinstance(term, Tensor) or term.dim() for term in terms.values()):
        raise InputTypeError(
            "an objective must return a dict of scalar tensors by name",
            f"{terms!r}",
            "give each term a name and reduce it with .mean() or .sum()",
        )
    values = torch.stack([term.detach() for term in terms.values()])
    if world > 1:
        distributed.all_reduce(values)
        values /= world
    return dict(zip(terms, values.tolist(), strict=True))


def _widened(value: Any) -> Any:
    """A registration with its bfloat16 tensors as float32."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, tuple):
        return tuple(_widened(part) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: _widened(getattr(value, part.name)) for part in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


def _mixed(*numbers: int) -> int:
    """One seed from several numbers; no two lists give the same for all practical purposes."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _batch(source: Source, recipe: Recipe, step: int, rank: int, world: int) -> tuple[Image, Image]:
    """The pairs of one step and process: (B, C, *space) each."""
    if callable(source):
        return _images(source(step, torch.Generator().manual_seed(_mixed(recipe.seed, step, rank))))
    count, first = len(source), (step * world + rank) * recipe.batch
    epochs = range(first // count, (first + recipe.batch - 1) // count + 1)
    orders = {epoch: np.random.RandomState(_mixed(recipe.seed, epoch) % 2**32).permutation(count) for epoch in epochs}
    places = range(first, first + recipe.batch)
    items = [_images(source[int(orders[place // count][place % count])]) for place in places]
    _check_sizes(items, f"the batch of {recipe.batch} pairs at step {step}")
    moving, fixed = (torch.cat(images) for images in zip(*items, strict=True))
    return moving, fixed


def _images(item: Item) -> tuple[Image, Image]:
    images = (item.moving, item.fixed) if isinstance(item, Pair) else item
    if not isinstance(images, tuple | list) or len(images) != 2 or not all(isinstance(x, Tensor) for x in images):
        raise InputTypeError(
            "a source gives a Pair or (moving, fixed), two tensors", f"{type(item).__name__}", "return one of these"
        )
    return images[0], images[1]


def _check_sizes(items: Sequence[tuple[Image, Image]], where: str) -> None:
    """Raise unless the pairs can be put into one batch."""
    sizes = list(dict.fromkeys(tuple(tuple(image.shape[1:]) for image in images) for images in items))
    if len(sizes) > 1:
        listed = " and ".join(f"{moving}" if moving == fixed else f"{moving}, {fixed}" for moving, fixed in sizes[:3])
        raise InputError(
            "the pairs of a batch must have one size (channels, *space)",
            f"{where} with {listed}" + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""),
            "train with a batch of 1, or crop or resample all images to one grid",
        )


def _check_source(source: Source, recipe: Recipe) -> None:
    """Raise what can be known of a source before the first step."""
    if callable(source):
        return
    sequence = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if not sequence or isinstance(source, Mapping | str | torch.utils.data.IterableDataset):
        raise InputTypeError(
            "a source is a sequence of pairs, with len(source) and source[i], or a function source(step, generator)",
            f"{type(source).__name__}",
            "give a list of pairs, the dataset instead of its loader, or a function that makes a batch",
        )
    if not len(source):
        raise InputError("a source must hold at least one pair", "none", "check how it was made")
    items = [_images(item) for item in source] if isinstance(source, list | tuple) else []
    if recipe.batch > 1:
        _check_sizes(items, f"batches of {recipe.batch} from {len(source)} pairs")


def _fingerprint(moving: Image, fixed: Image) -> list[float]:
    """By what two batches are told apart: shapes, the images' means and standard deviations, how much they differ."""
    numbers = [float(size) for image in (moving, fixed) for size in image.shape]
    for image in (moving, fixed):
        numbers += [image.float().mean().item(), image.float().std(correction=0).item()]
    return [*numbers, (moving - fixed).abs().float().mean().item()] if moving.shape == fixed.shape else numbers


def _check_place(path: Path) -> None:
    """Raise unless a checkpoint can be written here; makes its folder."""
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            pass
    except OSError as error:
        raise InputError(
            "a checkpoint is a file in a folder that can be written to",
            f"{path} ({error})",
            "name another file, such as runs/training.pt",
        ) from error


# ---------------------------------------------------------------------------------------------- notebooks
def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (all devices): for a notebook's first cell."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mode(chosen: Mode | None = None) -> Mode:
    """The mode chosen, else that of the environment variable REGKIT_MODE ("fast", "full"); "full" where it is not set.

    Raises:
        ValueError: it is something else.
    """
    value = chosen or os.environ.get("REGKIT_MODE", "full")
    if value not in get_args(Mode):
        raise InputError(f"REGKIT_MODE must be one of {get_args(Mode)}", f"{value!r}", "set or unset it")
    return "fast" if value == "fast" else "full"


def steps(*, fast: int, full: int) -> int:
    """The number of steps for the mode that is set: `steps(fast=40, full=400)`."""
    return {"fast": fast, "full": full}[mode()]
