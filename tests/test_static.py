"""Pictures for a page without a kernel: every frame is what the live view would show."""

import base64
import json
import re

import pytest
import torch

from regkit import widgets
from regkit.data import synthetic_pair
from regkit.types import Registration
from regkit.views import static
from regkit.views.drawing import png

PAIR = synthetic_pair(2, size=(21, 34))
FIELD = PAIR.displacement


def modes(page):
    return json.loads(re.search(r"modes = (\[.*\]);\n", page).group(1).replace("<\\/", "</"))


@pytest.fixture
def view():
    return widgets.compare(PAIR.moving, PAIR.fixed)


def test_nothing_changes_unless_it_is_asked_for(view, monkeypatch):
    monkeypatch.delenv("REGKIT_STATIC", raising=False)
    assert "text/html" not in view._repr_mimebundle_()
    monkeypatch.setenv("REGKIT_STATIC", "1")
    assert set(view._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_every_mode_is_there_and_its_slider_runs_from_end_to_end(view):
    found = {mode["name"]: mode for mode in modes(static.moving_html(view.scene))}
    assert list(found) == list(view.controls["mode"].options)
    (curtain,) = found["curtain"]["sliders"]
    assert len(curtain["frames"]) == static.FRAMES and curtain["start"] == static.FRAMES // 2
    for frame, position in ((curtain["frames"][0], 0.0), (curtain["frames"][-1], 1.0)):
        expected = view.render({"mode": "curtain", "position": position})
        assert base64.b64decode(frame["png"]) == png(expected)
    assert found["difference"]["sliders"] == []


def test_tabs_stand_below_one_another(monkeypatch):
    monkeypatch.setenv("REGKIT_STATIC", "1")
    explorer = widgets.explore(PAIR, Registration(FIELD))
    page = explorer._repr_mimebundle_()["text/html"]
    assert [title for title in explorer.views if f"<h4>{title}</h4>" in page] == list(explorer.views)
    assert page.count('class="regkit-static"') == len(explorer.views)
    assert len(set(re.findall(r'id="(regkit-\w+)"', page))) == len(explorer.views)


def test_volumes_move_along_their_sliders():
    pair = synthetic_pair(3, size=(9, 12, 11))
    view = widgets.slice_viewer(pair, Registration(torch.zeros(1, 3, 9, 12, 11)), panels=("fixed",))
    (mode, *_) = modes(static.moving_html(view.scene))
    assert [len(slider["frames"]) for slider in mode["sliders"]][:3] == [9, 12, 11]
