"""Curves over axes as pixels: matplotlib draws once what stands still, and in each frame only what moves."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regkit.figures.pixels import LABELS, Colour, Picture

_DPI = 100


def paint(colour: Colour | Sequence[int] | str) -> Any:
    """A colour of pixels (0 to 255), or one of matplotlib's by name, as matplotlib takes it."""
    return colour if isinstance(colour, str) else tuple(part / 255 for part in colour)


class Chart:
    """Axes that are drawn once and kept; a frame costs what moves in it, some 1 to 3 ms.

        chart = Chart(seconds, {"network": misfits}, width=512, xlabel="seconds", xscale="log")
        picture = chart.at(0.3)          # with the cursor, a vertical line, at 0.3 seconds
        dot = chart.dot(POINT)           # what moves beside it, of which there may be several
        dot.set_data([0.3], [0.02])
        picture = chart.frame()          # without moving the cursor

    x, curves: lines by name; they are kept as `lines`, and named in a legend where there are several. colours: by name;
    by default those of labels in order. width, height: pixels. legend: where it is, as of
    matplotlib, "above" the axes in one line, or None.
    axes: what matplotlib's `Axes.set` takes: xlabel, ylabel (with units), xscale, ylim, title.

    All else that stands still is put on `chart.axes` (`axes.bar`, `axvspan`, `scatter`) before the
    first frame. What changes is given to `moves`, by which it is drawn anew in each frame: change it (`set_data`,
    `set_linewidth`) and ask for a frame. Words that change are `paint.titled`'s: matplotlib takes 5 ms a text. Where
    the ticks change as well, keep one chart for each choice.
    """

    def __init__(
        self,
        x: Any = (),
        curves: Mapping[str, Any] | None = None,
        *,
        width: int,
        height: int = 200,
        colours: Mapping[str, Colour] | None = None,
        legend: Any = "best",
        **axes: Any,
    ) -> None:
        size = ((width + 0.5) / _DPI, (height + 0.5) / _DPI)  # cut to whole pixels by the canvas
        self.canvas = FigureCanvasAgg(Figure(size, dpi=_DPI, layout="constrained"))
        self.axes = self.canvas.figure.subplots()
        self.axes.tick_params(which="both", labelsize=8)
        self.axes.grid(alpha=0.3)
        self.lines = {
            name: self.axes.plot(x, values, color=paint((colours or {}).get(name, LABELS[i])), label=name, lw=2)[0]
            for i, (name, values) in enumerate((curves or {}).items())
        }
        self.axes.set(**axes)
        for text in (self.axes.xaxis.label, self.axes.yaxis.label, self.axes.title):
            text.set_fontsize(8.5)
        self._moving: list[Artist] = []
        self._cursor: Line2D | None = None
        self._legend = legend

    def moves(self, *artists: Any) -> Any:
        """Draw these anew in each frame, in this order, over all that stands still. Returns them (or the only one)."""
        for artist in artists:
            artist.set_animated(True)
        self._moving += artists
        return artists[0] if len(artists) == 1 else artists

    def line(self, colour: Colour | str, *, width: float = 2, **style: Any) -> Line2D:
        """A line that changes in each frame: give it points with `set_data(x, y)`."""
        return self.moves(self.axes.plot([], [], color=paint(colour), lw=width, **style)[0])

    def dot(self, colour: Colour | str, *, size: float = 9, edge: Colour | str = "white") -> Line2D:
        """A dot that moves: put it somewhere with `set_data([x], [y])`."""
        return self.line(colour, width=0, marker="o", markersize=size, markeredgecolor=paint(edge), clip_on=False)

    @functools.cached_property
    def _paper(self) -> Any:
        """All that does not move, drawn once."""
        if self._legend and len(self.axes.get_legend_handles_labels()[0]) > 1:
            above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 9, "frameon": False}
            self.axes.legend(fontsize=8, **(above if self._legend == "above" else {"loc": self._legend}))
        self.canvas.draw()
        return self.canvas.copy_from_bbox(self.canvas.figure.bbox)

    def at(self, x: float) -> Picture:
        """The picture with the cursor at a place."""
        if self._cursor is None:
            self._cursor = self.moves(self.axes.axvline(x, color="#333333", lw=1.5))
        self._cursor.set_xdata([x, x])
        return self.frame()

    def frame(self) -> Picture:
        """The picture with all that moves where it is now: (height, width, 3)."""
        self.canvas.restore_region(self._paper)
        for artist in self._moving:
            self.axes.draw_artist(artist)
        return np.array(np.asarray(self.canvas.buffer_rgba())[..., :3])
