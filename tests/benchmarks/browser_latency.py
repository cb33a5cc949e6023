"""From a key press to changed pixels: the slice viewer of a volume in JupyterLab in headless Chromium."""

import statistics
import sys
import tempfile
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).parent.parent))
from helpers import browser

NOTEBOOK = """import torch
from regkit import widgets
from regkit.data import smooth_displacement
from regkit.fields import warp
from regkit.types import Pair, Registration
torch.manual_seed(0)
shape = {shape}
u = smooth_displacement(shape, amplitude=6, smoothness=12, seed=0)
moving = torch.nn.functional.interpolate(torch.rand(1, 1, 20, 24, 20), shape, mode="trilinear")
widgets.slice_viewer(Pair(moving, warp(moving, u)), Registration(u), panels={panels})"""
LATENCY = """async () => {
  const area = document.querySelector(".jp-OutputArea-child:has(img.widget-image)");
  const image = area.querySelector("img.widget-image"), handle = area.querySelector(".noUi-handle");
  const times = [];
  for (let turn = 0; turn < 40; turn++) {
    const before = image.src, start = performance.now();
    const key = turn % 2 ? "ArrowLeft" : "ArrowRight";
    handle.dispatchEvent(new KeyboardEvent("keydown", {key, code: key, bubbles: true}));
    while (image.src === before) {
      await new Promise(requestAnimationFrame);
      if (performance.now() - start > 5000) throw new Error("the picture did not change");
    }
    await image.decode();
    times.push(performance.now() - start);
    await new Promise(done => setTimeout(done, 100));
  }
  return times.slice(5);
}"""


def run(quick: bool) -> None:
    """Print the median and the 95th percentile of 35 key presses."""
    shape = (80, 96, 80) if quick else (160, 192, 160)
    for panels in (("jacobian", "folds"), ("fixed", "warped", "difference", "grid", "jacobian", "folds")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cell = nbformat.v4.new_code_cell(NOTEBOOK.format(shape=shape, panels=panels))
            kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
            nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / "viewer.ipynb")
            errors: list[str] = []
            with (
                browser.jupyterlab(folder, folder) as address,
                browser.page(errors) as page,
                browser.notebook(page, address.format("viewer.ipynb")),
            ):
                page.wait_for_selector(".jp-OutputArea-child img.widget-image")
                times = sorted(page.evaluate(LATENCY))
        high = times[int(0.95 * len(times))]
        print(f"\nKey press to changed pixels, {shape}, {len(panels)} panels x 3 planes (goal: median at most 150 ms)")
        print(f"  median {statistics.median(times):.0f} ms, 95 % {high:.0f} ms, {len(times)} presses")


if __name__ == "__main__":
    run("--quick" in sys.argv)
