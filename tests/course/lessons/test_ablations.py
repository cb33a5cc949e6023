"""The ablation panel: switches from a model's signature, results kept and found again, trainings driven and stopped."""

import json
import threading
from typing import Literal

import numpy as np
import pytest
import torch
from helpers.views import drive, pixels
from torch import nn

from regkit import metrics, models
from regkit.course import studies
from regkit.course.lessons.ablations import AblationPanel
from regkit.course.studies import Study, switches
from regkit.data import synthetic_pair
from regkit.fields import warp, warp_labels
from regkit.models.layers import configured, conv
from regkit.tools import compare
from regkit.training import Recipe
from regkit.types import Pair, Registration

STEPS = 3


@configured
class Tiny(nn.Module):
    """One convolution; `gate`, if given, holds a training back until it is opened."""

    gate: threading.Event | None = None

    def __init__(
        self, dim: Literal[2, 3] = 2, *, bias: bool = True, kernel: Literal[1, 3] | int = 3, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = weight
        self.conv = conv(dim, 2, dim, kernel, bias=bias)

    def forward(self, moving, fixed):
        return Registration(self.conv(torch.cat([moving, fixed], 1)))

    def objective(self, registration, moving, fixed):
        if Tiny.gate is not None:
            Tiny.gate.wait(600)
        return {"mse": ((warp(moving, registration.displacement) - fixed) ** 2).mean()}


@pytest.fixture
def gate():
    Tiny.gate = threading.Event()
    yield Tiny.gate
    Tiny.gate.set()
    Tiny.gate = None


def study(folder, dim=2, **options):
    pair = example(dim)
    return Study(Tiny, [pair], "one pair", Recipe(**{"steps": STEPS, **options}), folder, {"dim": dim})


def example(dim):
    return synthetic_pair(dim, seed=1, size=(17, 12, 9)[:dim])


def panel(folder, dim=2, **options):
    return AblationPanel(study(folder, dim), example(dim), **options)


def train(view):
    view.controls["train"].click()
    view.wait(600)


# ---------------------------------------------------------------------------------------------- switches
def test_switches_come_from_the_signature_with_the_default_first():
    assert switches(Tiny) == {"bias": (True, False), "kernel": (3, 1)}


@pytest.mark.parametrize("name", models.__all__)
def test_the_defaults_of_a_model_come_first(name):
    model = getattr(models, name)
    found = switches(model)
    defaults = model().configuration
    assert found and all(values[0] == defaults[switch] for switch, values in found.items())
    assert all(len(set(values)) == len(values) > 1 for values in found.values())


def test_spnet_offers_the_rows_of_its_table():
    paper = {"integrate", "image_encoding", "feature_warping", "symmetric", "bidirectional", "average"}
    assert {name for name, values in switches(models.SPNet).items() if values == (True, False)} == paper


# ---------------------------------------------------------------------------------------------- results on the disk
def test_a_result_is_found_again_to_the_bit(tmp_path):
    kept = study(tmp_path).train({"bias": False})
    found = study(tmp_path).find({"bias": False})
    assert kept.complete and found.complete and len(found.history) == STEPS
    assert found.history.loss == pytest.approx(kept.history.loss, rel=1e-5)  # six digits are kept
    for name, value in kept.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    assert torch.equal(study(tmp_path / "again").train({"bias": False}).model.conv.weight, found.model.conv.weight)


def test_a_result_is_found_by_all_that_it_follows_from(tmp_path):
    one = study(tmp_path)
    assert one.path({}) == one.path({"bias": True, "kernel": 3})  # the defaults
    others = [
        one.path({"bias": False}),
        study(tmp_path, steps=4).path({}),
        study(tmp_path, seed=1).path({}),
        Study(Tiny, one.source, "another pair", one.recipe, tmp_path, one.arguments).path({}),
        Study(Tiny, one.source, one.data, one.recipe, tmp_path, {"dim": 2, "weight": 2.0}).path({}),
    ]
    assert len({one.path({}), *others}) == 6
    one.train({})
    assert [other for other in others if other.exists()] == [] and study(tmp_path).find({}) is not None
    content = json.loads(one.path({}).with_suffix(".json").read_text())
    assert content["arguments"] == {"bias": True, "dim": 2, "kernel": 3, "weight": 1.0} and content["model"] == "Tiny"
    with pytest.raises(TypeError, match="warp_speed"):
        one.path({"warp_speed": True})


def test_a_damaged_result_is_refused_and_mended_by_training_again(tmp_path):
    one = study(tmp_path)
    one.train({})
    one.path({}).with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="train it again"):
        one.find({})
    one.train({})
    one.path({}).write_bytes(one.path({}).read_bytes()[:-7])
    with pytest.raises(ValueError, match="safetensors"):
        one.find({})


def test_training_leaves_the_random_state_as_it_was(tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    study(tmp_path).train({})
    assert torch.equal(torch.get_rng_state(), state)


def test_the_numbers_are_those_of_metrics():
    pair = example(2)
    u = pair.displacement
    numbers = compare.measure_variant(pair, Registration(u, -u))
    overlap = metrics.dice(warp_labels(pair.moving_labels, u), pair.fixed_labels)
    assert numbers["Dice"] == pytest.approx(np.mean(list(overlap.values()))) and numbers["Dice"] == 1
    assert numbers["mean |warped - fixed|"] < 1e-6
    assert numbers["folds (%)"] == metrics.folds(u).percent
    assert numbers["inverse error (voxels)"] == metrics.inverse_consistency(u, -u)
    assert set(compare.measure_variant(Pair(pair.moving, pair.fixed), Registration(u))) == {
        "mean |warped - fixed|",
        "folds (%)",
    }


# ---------------------------------------------------------------------------------------------- the panel
@pytest.mark.parametrize("dim", [2, 3])
def test_training_shows_keeps_and_finds(tmp_path, dim):
    view = panel(tmp_path, dim)
    assert "Reference: not trained yet" in view.caption.value and view.image.value
    assert view.controls["bias"].value is True and view.controls["kernel"].options == ("3", "1")
    untrained = view.image.value
    train(view)
    assert view.errors == [] and view.image.value != untrained and "Dice" in view.caption.value
    assert view.progress.value == STEPS and "kept" in view.status.value
    view.set(bias=False, kernel="1")
    assert "Chosen (bias = False, kernel = 1): not trained yet" in view.caption.value
    train(view)
    assert "Chosen (bias = False, kernel = 1): Dice" in view.caption.value and view.errors == []
    again = panel(tmp_path, dim)
    again.set(bias=False, kernel="1")
    assert np.array_equal(pixels(again), pixels(view)) and again.caption.value == view.caption.value
    assert len(list(tmp_path.iterdir())) == 4


def test_reference_and_chosen_are_drawn_with_the_same_panels(tmp_path):
    view = panel(tmp_path, names=["bias"], panels=["warped", "directions"])
    train(view)
    view.set(bias=False)
    train(view)
    titles = [shown.title for shown in view.scene.panels(view.state)]
    assert titles == ["reference: warped", "reference: displacement u", "chosen: warped", "chosen: displacement u"]
    limits = {shown.limit for shown in view.scene.panels(view.state)[1::2]}
    assert len(limits) == 1


def test_each_control_changes_what_it_should(tmp_path):
    view = panel(tmp_path, 3)
    train(view)
    places = dict.fromkeys(("axis_0", "axis_1", "axis_2"), "both") | {"planes": "picture", "crosshair": "picture"}
    drive(view, places | {"bias": "both", "kernel": "both"})  # what is not trained has no panels
    bundle = view._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Reference: Dice") and "image/png" in bundle


def test_a_training_can_be_stopped_and_nothing_is_kept(tmp_path, gate):
    view = panel(tmp_path)
    train_button, stop_button = view.controls["train"], view.controls["stop"]
    assert stop_button.disabled and not train_button.disabled
    train_button.click()
    assert train_button.disabled and not stop_button.disabled
    view.set(crosshair=False)  # the panel answers meanwhile
    train_button.click()  # a second one does not begin
    stop_button.click()
    gate.set()
    view.wait(600)
    assert stop_button.disabled and not train_button.disabled and view.errors == []
    assert "1 steps" in view.caption.value and "stopped, not kept" in view.caption.value
    assert list(tmp_path.iterdir()) == [] and view.progress.value == 1
    train(view)
    assert "stopped" not in view.caption.value and len(list(tmp_path.iterdir())) == 2


def test_an_error_while_training_is_shown_and_kept(tmp_path, monkeypatch):
    view = panel(tmp_path)
    monkeypatch.setattr(Tiny, "objective", lambda self, r, m, f: {"mse": r.displacement.sum() * torch.nan})
    train(view)
    assert len(view.errors) == 1 and "FloatingPointError" in view.errors[0] and 'role="alert"' in view.alert.value
    assert not view.controls["train"].disabled and list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_shown_as_an_error_and_training_mends_it(tmp_path):
    one = study(tmp_path)
    one.train({})
    one.train({"bias": False})
    one.path({"bias": False}).write_bytes(b"damaged")
    view = panel(tmp_path)
    view.set(bias=False)
    assert len(view.errors) == 1 and "safetensors" in view.alert.value
    train(view)
    assert view.alert.value == "" and "Chosen (bias = False): Dice" in view.caption.value


@pytest.mark.parametrize("names", [["dim"], ["weight"], []])
def test_only_switches_are_offered(tmp_path, names):
    with pytest.raises(ValueError, match="switches bias, kernel"):
        panel(tmp_path, names=names)


def test_a_switch_that_is_held_still_is_not_offered(tmp_path):
    held = Study(Tiny, [example(2)], "one", Recipe(steps=1), tmp_path, {"bias": False})
    view = AblationPanel(held, example(2))
    assert "bias" not in view.controls and "kernel" in view.controls


# ---------------------------------------------------------------------------------------------- the shipped studies
SHIPPED = {  # the switches that are offered, and a combination that nobody has trained
    "spnet": (
        ["integrate", "image_encoding", "feature_warping", "symmetric", "bidirectional", "average"],
        {"feature_warping": False, "average": False},
    ),
    "sacbnet": (["blocks", "clusters", "mean"], {"blocks": "none", "clusters": "9", "mean": "both"}),
    "smgicnet": (["levels", "symmetric", "attention", "gradient_inverse"], {"levels": "1", "attention": False}),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_panel_of_a_shipped_study_shows_what_was_trained_and_offers_the_rest(name, monkeypatch):
    monkeypatch.setattr(Study, "train", lambda *_, **__: pytest.fail("a stored result needs no training"))
    one, (names, untrained) = studies.STUDIES[name], SHIPPED[name]
    pair = one.held_out[3]
    assert one.path({}).stat().st_size < 2**22  # loaded at once on any machine
    view = AblationPanel(one, pair, names)
    reference = {switch: values[0] for switch, values in view.options.items()}

    def choose(choice):
        choice = reference | choice
        view.set(**{key: value if isinstance(value, bool) else str(value) for key, value in choice.items()})
        return view.caption.value

    stored = {variant: choice for variant, choice in studies.VARIANTS[name].items() if choice.keys() <= set(names)}
    assert set().union(*stored.values()) == set(names)
    for variant, choice in stored.items():
        told, model = choose(choice), studies.load(name, variant).model
        with torch.no_grad():
            there, back = model(pair.moving, pair.fixed), model(pair.fixed, pair.moving)
        gap = metrics.inverse_consistency(there.displacement, back.displacement)
        assert f"Dice {compare.measure_variant(pair, there)['Dice']:.3g}," in told
        assert f"exchange error (voxels) {gap:.3g}" in told
        assert ("Chosen (" in told) == bool(choice) and "not trained yet" not in told
    assert "not trained yet; &quot;train this one&quot; trains it" in choose(untrained)
    assert not view.controls["train"].disabled and view.errors == []
