"""Time and memory of one operation, several ways, side by side in one process.

Ratios are what count: the ways take turns, on one thread, and the time is the processor's, so that a busy machine
slows all of them alike. Memory is counted in a pass of its own, because counting takes time.
"""

import gc
import importlib
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch

VOLUME = 160 * 192 * 160  # voxels of one image of full size


class Cost(NamedTuple):
    """What one way costs: median CPU seconds, and peak memory above the inputs in float32 images."""

    seconds: float
    volumes: float


def peer(name: str) -> ModuleType | None:
    """An optional package, or None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def compare(
    title: str,
    ways: Mapping[str, Callable[[], Any] | None],
    *,
    goal: str,
    repeats: int = 5,
    volume: int = VOLUME,
    apart: bool = False,
) -> dict[str, Cost]:
    """Run every way `repeats` times in turn, print a table, and return the costs by name.

    apart: each way by itself instead, timed after as many runs more, when it has been given all its memory; in turn,
    a way that asks for much memory may get it anew in each run, and pays for that.

    ways: callables without arguments; the first is regkit's, and all times are compared with it. None stands for a
    package that is not installed. goal: what is asked of the first, in words. volume: voxels of one image.
    """
    present = {name: way for name, way in ways.items() if way is not None}
    times: dict[str, list[float]] = {name: [] for name in present}
    turns = [name for name in present for _ in range(2 * repeats)] if apart else [*present] * (repeats + 1)
    for name in turns:
        gc.collect()
        start = time.process_time()
        present[name]()
        times[name].append(time.process_time() - start)
    costs = {
        name: Cost(statistics.median(times[name][-repeats:]), peak_bytes(way) / (4 * volume))  # those before warm up
        for name, way in present.items()
    }
    _print_table(title, ways, costs, goal)
    return costs


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory that `call` holds at one time above what was there before: torch's tensors, numpy's arrays."""
    gc.collect()
    tracemalloc.start()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = call()
        array_peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    del result
    return peak + array_peak


def _print_table(
    title: str, ways: Mapping[str, Callable[[], Any] | None], costs: Mapping[str, Cost], goal: str
) -> None:
    first = next(iter(ways))
    print(f"\n{title}\n{'':34}{'seconds':>9}{'ratio':>8}{'volumes':>9}{'ratio':>8}   asked of {first}")
    for name in ways:
        beside = goal if name == first else ""
        if name in costs:
            seconds, volumes = costs[name]
            slower, larger = (own / of_first for own, of_first in zip(costs[name], costs[first], strict=True))
            line = f"  {name:32}{seconds:9.4f}{slower:8.2f}{volumes:9.1f}{larger:8.2f}   {beside}"
            print(line.rstrip(), flush=True)
        else:
            print(f"  {name:32}{'not installed':>21}   {beside}".rstrip(), flush=True)
