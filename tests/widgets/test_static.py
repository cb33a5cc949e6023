"""Pictures for a page without a kernel: every frame is what the live view would show."""

import base64
import io
import json
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from regkit import widgets
from regkit.course.lessons import sweeps, t02_warping_pulls
from regkit.data import synthetic_pair
from regkit.types import Registration
from regkit.widgets import static

PAIR = synthetic_pair(2, size=(21, 34))
FIELD = PAIR.displacement


def content(page):
    return json.loads(re.search(r"scene = (\{.*\});\n", page).group(1).replace("<\\/", "</"))


def decoded(found, frame):
    first, own = (
        Image.open(io.BytesIO(base64.b64decode(found["pictures"][at]))).convert("RGBA") for at in (0, frame[0])
    )
    return np.array((Image.alpha_composite(first, own) if first.size == own.size else own).convert("RGB"))


def keys(found):
    """All that the script may ask for: every position of every control, hidden ones as they are."""
    states = [[]]
    for control in found["controls"]:
        count = len(control.get("values", "01"))
        states = [[*state, position] for state in states for position in range(count)]
    for state in states:
        chosen = [position for position, control in zip(state, found["controls"], strict=True) if control["chosen"]]
        hidden = found["hidden"][",".join(map(str, chosen))]
        yield ",".join("-" if index in hidden else str(position) for index, position in enumerate(state))


@pytest.fixture
def view():
    return widgets.compare(PAIR.moving, PAIR.fixed)


def test_nothing_changes_unless_it_is_asked_for(view, monkeypatch):
    monkeypatch.delenv("REGKIT_STATIC", raising=False)
    assert "text/html" not in view._repr_mimebundle_()
    monkeypatch.setenv("REGKIT_STATIC", "1")
    assert set(view._repr_mimebundle_()) == {"text/plain", "text/html"}


@pytest.mark.parametrize("colab", [False, True])
def test_colab_gets_the_widget_alone_and_other_front_ends_its_picture_too(view, colab, monkeypatch):
    shown = []
    monkeypatch.delenv("REGKIT_STATIC", raising=False)
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    view._ipython_display_()
    (own,) = [bundle for bundle in shown if "application/vnd.jupyter.widget-view+json" in bundle]
    assert ("image/png" in own) is not colab and len(shown) == (1 if colab else 2)
    assert any("regkit-last" in bundle.get("text/html", "") for bundle in shown) is not colab


def test_every_mode_is_there_and_its_slider_runs_from_end_to_end(view):
    found = content(static.moving_html(view.scene))
    mode, curtain, _, player = found["controls"]
    assert mode["values"] == list(view.controls["mode"].options) and player["kind"] == "player"
    assert len(curtain["values"]) == static.MOST and curtain["values"][curtain["start"]] == "0.5"
    for place, position in ((0, 0.0), (curtain["start"], 0.5), (static.MOST - 1, 1.0)):
        expected = view.render({"mode": "curtain", "position": position})
        assert np.array_equal(decoded(found, found["frames"][f"0,{place},-,-"]), expected)
    difference = mode["values"].index("difference")
    assert found["frames"][f"{difference},-,-,-"][1] == view.scene.describe({**view.state, "mode": "difference"})


def test_sliders_and_choices_combine_and_every_combination_has_its_frame():
    image = torch.zeros(1, 1, 21, 34)
    image[..., 5:15, 7:20] = 1
    view = t02_warping_pulls.arrow_viewer(image)
    found = content(static.moving_html(view.scene, view.state, room=3 * 10**6))
    assert [control["kind"] for control in found["controls"]] == ["slider", "slider", "choice", "slider", "toggle"]
    assert not found["alone"] and set(keys(found)) == found["frames"].keys()
    assert static.FRAMES / 3 < len(found["frames"]) <= static.FRAMES
    right, down, mode, reach, push = (control.get("values") for control in found["controls"])
    state = {"right": float(right[0]), "down": float(down[-1]), "mode": mode[1], "reach": int(reach[0]), "push": True}
    picture, words = found["frames"][f"0,{len(down) - 1},1,0,1"]
    assert np.array_equal(decoded(found, [picture]), view.render(state)) and words == view.scene.describe(state)
    assert push is None and "in fewer steps" in found["note"]


def test_a_frame_that_hardly_changes_is_what_changes_and_takes_little_room():
    view = widgets.jacobian_inspector(FIELD)
    found = content(static.moving_html(view.scene, view.state))
    row = next(index for index, control in enumerate(found["controls"]) if control["words"].startswith("row"))
    key = [str(control["start"]) for control in found["controls"]]
    key[row] = "0"
    picture, _ = found["frames"][",".join(key)]
    expected = view.render({"row": int(found["controls"][row]["values"][0])})
    assert np.array_equal(decoded(found, [picture]), expected)
    assert len(found["pictures"][picture]) < len(static.webp(expected)) / 2


def test_a_page_starts_where_the_view_stands():
    stops = {str(weight): FIELD * weight for weight in (0.0, 0.5, 1.0)}
    view = sweeps.sweep(PAIR.moving, PAIR.fixed, stops, words="weight", start="0.5")
    first = content(static.moving_html(view.scene))
    assert first["controls"][0]["start"] == 1 and first["note"] == ""  # nothing is left out
    view.set(stop="1.0", mark=False)
    found = content(static.moving_html(view.scene, view.state))
    assert [control["start"] for control in found["controls"]] == [2, 0]
    assert np.array_equal(decoded(found, found["frames"]["2,0"]), view.render({}))


def test_a_scene_has_so_many_frames_as_fit_into_its_page():
    scene = widgets.jacobian_inspector(FIELD).scene
    whole = content(static.moving_html(scene))
    most = sum(map(len, whole["pictures"])) // 3
    found = content(static.moving_html(scene, room=most))
    assert sum(map(len, found["pictures"])) <= most and 3 <= len(found["frames"]) < len(whole["frames"])
    assert set(keys(found)) <= found["frames"].keys() or found["alone"]


def test_what_a_page_leaves_out_it_says(monkeypatch):
    monkeypatch.setattr(static, "FRAMES", 60)
    found = content(static.moving_html(widgets.jacobian_inspector(FIELD).scene))
    assert "in fewer steps" in found["note"] and "without next fold" in found["note"]


def test_tabs_stand_below_one_another(monkeypatch):
    monkeypatch.setenv("REGKIT_STATIC", "1")
    monkeypatch.setattr(static, "FRAMES", 60)
    explorer = widgets.explore(PAIR, Registration(FIELD))
    page = explorer._repr_mimebundle_()["text/html"]
    assert [title for title in explorer.views if f"<h4>{title}</h4>" in page] == list(explorer.views)
    assert page.count('class="regkit-static"') == len(explorer.views)
    assert len(set(re.findall(r'id="(regkit-\w+)"', page))) == len(explorer.views)


def test_three_sliders_of_a_volume_move_one_at_a_time_and_a_choice_without_effect_is_not_offered(monkeypatch):
    monkeypatch.setattr(static, "FRAMES", 110)
    pair = synthetic_pair(3, size=(9, 12, 11))
    view = widgets.slice_viewer(pair, Registration(torch.zeros(1, 3, 9, 12, 11)), panels=("fixed", "difference"))
    found = content(static.moving_html(view.scene))
    assert [len(control["values"]) for control in found["controls"] if control["kind"] == "slider"] == [
        static.LEAST
    ] * 3
    assert found["alone"] and "one slider at a time" in found["note"]
    assert "extreme of" not in [control["words"] for control in found["controls"]]
    assert len(found["frames"]) <= static.FRAMES
