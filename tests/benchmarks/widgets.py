"""The kernel's time from a control's change to the new picture: the slice viewer on a volume, and views with charts."""

import gc
import statistics
import time
from collections.abc import Sequence

import torch

from regkit import data, widgets
from regkit.course.lessons import t03_similarity_landscapes, t06_learning_to_register, t07_gradicon
from regkit.fields import identity, resize, resize_displacement
from regkit.types import Pair, Registration
from regkit.widgets import live

CHANGES = 60
SETTINGS = {
    "|J| with its colours and folds": ("jacobian",),
    "|J|, and folds on the image": ("jacobian", "folds"),
    "six panels: the viewer as it opens": widgets.FIRST,
}


def folding_volume(shape: tuple[int, ...]) -> tuple[Pair, Registration]:
    """Two noisy images inside an ellipsoid, as brains are, and a displacement that folds in places."""
    generator = torch.Generator().manual_seed(0)
    inside = ((identity(shape)[0].movedim(0, -1) / torch.tensor(shape) - 0.5) ** 2).sum(-1) < 0.18
    moving, fixed = (
        inside * (resize(torch.rand(1, 1, 12, 12, 12, generator=generator), shape) + 0.02 * torch.randn(1, 1, *shape))
        for _ in range(2)
    )
    coarse = torch.randn(1, 3, *(max(n // 12, 2) for n in shape), generator=generator)
    return Pair(moving, fixed), Registration(0.5 * resize_displacement(coarse, shape))


def change_times(view: live.View, shape: Sequence[int]) -> list[float]:
    """Seconds of each change, slider after slider; the sum of what the kernel does until the picture is sent."""
    times = []
    for change in range(CHANGES + 3):
        axis = change % 3
        slider = view.controls[f"axis_{axis}"]
        start = time.perf_counter()
        slider.value = (slider.value + 7) % shape[axis]
        times.append(time.perf_counter() - start)
    assert not view.errors, view.errors[0]
    return sorted(times[3:])


def charts() -> dict[str, tuple[live.View, str, list[object]]]:
    """Views with charts by name, with the slider that is moved and its values."""
    pair = data.synthetic_pair(2, size=(64, 80))
    assert pair.displacement is not None
    runs = {name: [(k / speed, pair.displacement * k / 8) for k in range(1, 9)] for name, speed in (("a", 9), ("b", 2))}
    race = t06_learning_to_register.race(pair, runs)
    numbers = [float(number) for number in range(1, 16)]
    return {
        "ripple dial": (t07_gradicon.ripple_dial(), "amplitude", [*numbers]),
        "scales of the NCC": (t07_gradicon.scale_viewer({"fixed": pair.fixed}), "shift", [*numbers]),
        "losses over a shift": (
            t03_similarity_landscapes.landscape_viewer(pair.moving, {"a": pair.fixed}),
            "shift",
            [*numbers],
        ),
        "race": (race, "time", [*race.controls["time"].options[::4]]),
    }


def chart_times(view: live.View, name: str, values: Sequence[object]) -> list[float]:
    """CPU seconds of each change of one slider, the second time, when its curves are there."""
    times = []
    for value in [*values, *values]:
        start = time.process_time()
        view.set(**{name: value})
        times.append(time.process_time() - start)
    assert not view.errors, view.errors[0]
    return sorted(times[len(values) :])


def run(quick: bool) -> None:
    """Each setting by itself: the median and the 95th percentile, wall-clock; of charts CPU time."""
    print("\nA slider of a view with a chart, CPU milliseconds (asked: median 16 of the dial)")
    for words, (view, name, values) in charts().items():
        times = [1000 * each for each in chart_times(view, name, values)]
        print(f"  {words:36} median {statistics.median(times):6.1f}   95% {times[int(0.95 * len(times))]:6.1f}")
    shape = (64, 72, 56) if quick else (160, 192, 160)
    pair, registration = folding_volume(shape)
    print(f"\nA slider of the slice viewer, three planes, {shape}, milliseconds (asked: median 15, 95% below 30)")
    for words, panels in SETTINGS.items():
        gc.collect()
        start = time.perf_counter()
        view = widgets.slice_viewer(pair, registration, panels=panels)
        opened = time.perf_counter() - start
        times = change_times(view, shape)
        middle, high = 1000 * statistics.median(times), 1000 * times[int(0.95 * len(times))]
        size = len(view.image.value) / 1024
        print(f"  {words:36} median {middle:6.1f}   95% {high:6.1f}   opened in {opened:5.2f} s, PNG {size:.0f} kB")
