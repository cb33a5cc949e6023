"""Draws the README's gallery: python tutorials/gallery/draw.py"""

import io
from pathlib import Path

import torch
from PIL import Image

from regkit import data, widgets
from regkit.course.lessons.t03_similarity_landscapes import landscape_viewer
from regkit.course.lessons.t13_trust_but_verify import claims_board
from regkit.data.brains import BrainPairs
from regkit.figures.pixels import Picture
from regkit.optimise import optimise_field
from regkit.tools.methods import make_method

WIDTH = 480  # pixels, at most


def views() -> dict[str, Picture]:
    """The first picture of five views, by file name."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    slices = BrainPairs(2, dim=2, seed=3)[0]
    rough = optimise_field(slices.moving, slices.fixed, weight=0.001, steps=150)
    smooth = optimise_field(slices.moving, slices.fixed, weight=0.1, steps=150)
    volumes = BrainPairs(2, dim=3, size=(64, 80, 64), seed=5)[0]
    found = make_method("sitreg", 3)(volumes.moving, volumes.fixed)
    shapes = data.synthetic_pair(dim=2, seed=0)
    drawn = {
        "volume": widgets.slice_viewer(
            volumes, found, panels=("moving", "fixed", "warped", "jacobian"), upright=True
        ),
        "field": widgets.field_viewer(smooth.displacement, slices.fixed, moving=slices.moving),
        "folds": widgets.jacobian_inspector(rough.displacement, slices.fixed),
        "landscape": landscape_viewer(
            shapes.moving, {"its copy": shapes.moving, "the other shape": shapes.fixed}
        ),
        "claims": claims_board(),
    }
    states = {"claims": {"method": "SPnet", "claim": 2, "revealed": True}}
    return {name: view.render(states.get(name, {})) for name, view in drawn.items()}


def moving() -> list[Picture]:
    """A brain on its way onto another, and back."""
    pair = BrainPairs(2, dim=2, size=(128, 112), seed=3)[0]
    found = optimise_field(pair.moving, pair.fixed, output="velocity", weight=0.05, steps=150)
    assert found.velocity is not None
    view = widgets.time_scrubber(pair, found.velocity, panels=("warped", "grid", "difference"))
    frames = [view.render({"step": step / 8}) for step in range(9)]
    return [*frames[:1], *frames, *frames[:0:-1]]


def encoded(pictures: list[Picture], kind: str) -> bytes:
    """A picture, or several as a film."""
    frames = [Image.fromarray(picture).convert("RGB") for picture in pictures]
    width = min(WIDTH, frames[0].width)
    size = (width, round(width * frames[0].height / frames[0].width))
    frames = [frame.resize(size).quantize(32 if kind == "gif" else 256) for frame in frames]
    stream, film = (
        io.BytesIO(),
        {"save_all": True, "append_images": frames[1:], "duration": 120, "loop": 0},
    )
    frames[0].save(stream, kind, optimize=True, **(film if kind == "gif" else {}))
    return stream.getvalue()


if __name__ == "__main__":
    files = {"time.gif": encoded(moving(), "gif")}
    files |= {f"{name}.png": encoded([picture], "png") for name, picture in views().items()}
    for name, content in files.items():
        (Path(__file__).parent / name).write_bytes(content)
        print(f"{name}: {len(content) // 1000} kB")
