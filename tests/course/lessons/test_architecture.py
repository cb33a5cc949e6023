"""The figures of the five methods: what flows is what the forward pass makes, and each switch takes its boxes away."""

import functools
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.views import changed, pixels

from regkit.course import papers, studies
from regkit.course.lessons.architecture import ANATOMIES, ORIGINS, Architecture, Figure, architecture, title
from regkit.figures.pixels import PAPER
from regkit.widgets.static import moving_html

figure = functools.cache(lambda study: Figure(study, 3))
view = functools.cache(lambda study: Architecture(figure(study)))
pytestmark = pytest.mark.parametrize("study", ANATOMIES)


def words(part):
    return part.words.split(" (")[0].split(",")[0]


def shapes(study):
    """Of the reference, by part."""
    return {
        part.words: [None if box is None else tuple(box.value.shape) for box in boxes]
        for part, boxes in zip(ANATOMIES[study].parts, figure(study).reference.boxes, strict=True)
    }


def test_the_boxes_are_those_of_the_forward_pass(study):
    model, pair = figure(study).reference.model, studies.STUDIES[study].held_out[3]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = set(vars(model))
    with torch.no_grad():
        plain = model(pair.moving, pair.fixed)
    again = Figure(study, 3).reference.registration
    assert torch.equal(plain.displacement, again.displacement)  # watching changes no number
    assert torch.equal(figure(study).reference.registration.displacement, plain.displacement)
    assert set(vars(model)) == attributes and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    found = shapes(study)
    assert all(len(row) == len(ANATOMIES[study].levels) and any(row) for row in found.values())
    maps = {
        "gradicon": ("map, composed so far", plain.levels),
        "spnet": ("map exp(v) (SVF)", plain.levels if study == "spnet" else ()),
        "sitreg": ("L: A's half way", getattr(plain, "halfway_moving", ())),
        "sacbnet": ("match Δφ", [match.increment for match in getattr(plain, "matches", ())]),
        "smgicnet": ("velocity that is added", getattr(plain, "residuals", ())),
    }
    name, tensors = maps[study]
    boxes = figure(study).reference.boxes[list(found).index(name)]
    for box, tensor in zip([box for box in boxes if box], tensors, strict=True):
        assert torch.equal(box.value, tensor[0])


def test_each_box_names_the_line_that_makes_it(study):
    one = figure(study)
    model = type(one.reference.model)
    source = Path(inspect.getsourcefile(model)).read_text("utf-8").splitlines()
    for i, part in enumerate(ANATOMIES[study].parts):
        for box in (box for box in one.reference.boxes[i] if box):
            lines, first = inspect.getsourcelines(getattr(model, box.function))
            assert first <= box.line < first + len(lines), part.words
        place, _, text = one.place(i).partition(": ")
        assert text and text in source[int(place.split("line ")[1].split(",")[0]) - 1]
        named = part.path.split(".")[0]
        asked = {"networks": "network", "updates": "updates", "blocks": "blocks", "encoder": "encoder"}.get(
            named, named
        )
        assert asked in text, (part.words, text)


def test_sources_have_a_place_and_a_colour_that_can_be_read(study):
    sources = [part.source for part in ANATOMIES[study].parts] + list(ANATOMIES[study].terms.values())
    for source in sources:
        assert source.split(",")[0].split(" of ")[0].split(":")[0] in ORIGINS
        assert (
            not source.startswith("paper")
            or any(char.isdigit() or char == "I" for char in source.split(", ")[1])
            or source.endswith("A")
        )
    for colour in ORIGINS.values():
        light = [(c / 255 / 12.92 if c < 11 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in colour]
        assert 1.05 / (np.dot(light, (0.2126, 0.7152, 0.0722)) + 0.05) > 4.5  # contrast on white
    printed = papers.PRINTED[study]
    assert all(column is None or column in printed.columns for column in ANATOMIES[study].measures.values())
    assert set(figure(study).reference.terms) <= set(ANATOMIES[study].terms)


LOST = {
    "gradicon": {
        "ICON": {"gradicon"},
        "no regularizer": {"gradicon"},
        "one step": {"A, by coarser maps", "B, halved", "U-Net", "field of one U-Net", "map, composed so far"},
    },
    "spnet": {
        "w/o SVF": {"map exp(v) (SVF)"},
        "w/o MIE": {"encoded (MIE)"},
        "w/o FW": {"A's, warped (FW)"},
        "w/o SR": {"answer to (B, A) (BE)", "average v (BA)"},
        "SS": {"answer to (B, A) (BE)", "average v (BA)"},
        "SS+BE": {"average v (BA)"},
    },
    "sitreg": {
        "velocity": {"inverse v₂₁⁻¹"},
        "one-sided": {"inverse v₂₁⁻¹"},
        "towards fixed": {"R: B's half way"},
        "no limit": {"bounded"},
    },
    "sacbnet": {
        "no block": {"clusters S", "A's, refined (SACB)"},
        "block on level 5": {"clusters S", "A's, refined (SACB)"},
        "1 cluster": {"clusters S"},
        "5 clusters": set(),
        "means over channels": set(),
    },
    "smgicnet": {
        "not symmetric": {"the same, B onto A", "symmetric"},
        "no attention": {"gate (AGM), finest"},
        "no gradient inverse consistency": {"gradient_inverse"},
        "no smoothness": {"smoothness"},
        "neither": {"gradient_inverse", "smoothness"},
    },
}


def test_each_switch_takes_its_own_boxes_away(study):
    one = figure(study)
    assert one.lost("reference") == []
    for variant, parts in LOST[study].items():
        lost = set(one.lost(variant))
        assert lost >= parts and (variant == "one step" or lost == parts), variant
    levels = {"spnet": "2 levels", "smgicnet": "two levels", "gradicon": "one step"}
    if study in levels:  # columns of coarse levels, nothing of the finest
        kept = [row[-1] for row, boxes in zip(one.status(levels[study]), one.reference.boxes, strict=True) if boxes[-1]]
        assert set(kept) == {""} and one.status(levels[study])[0][0] == "off"
    if study == "sacbnet":
        assert one.status("block on level 5")[2] == ["", "off", "off", "off", ""]
        assert one.status("5 clusters")[2] == ["altered"] * 4 + [""]


def test_what_is_off_is_faint_and_the_rest_stays_as_it_is(study):
    one = figure(study)
    whole = one.drawn("reference")
    for variant in LOST[study]:
        drawn, status = one.drawn(variant), one.status(variant)
        for row, levels in enumerate(status):
            top = 22 + 53 * row
            for column, each in enumerate(levels):
                where = np.s_[top + 4 : top + 38, 140 + 84 * column + 25 : 140 + 84 * column + 59]
                if each == "off":
                    assert drawn[where].min() >= 180 > whole[where].min() or whole[where].min() > 180, (variant, row)
                elif not each:
                    assert np.array_equal(drawn[where], whole[where]), (variant, row)


def test_every_state_draws_and_tells_in_one_size(study):
    one = view(study)
    size = pixels(one).shape
    assert size[0] <= 500 and size[1] <= 1000  # what a laptop of 1280 x 720 shows below its controls
    assert changed(one, "part") == "both"
    said = set()
    for variant in one.figure.passes:
        one.set(off=title(study, variant), part=one.controls["part"].options[0])
        assert pixels(one).shape == size
        assert (one.controls["part"].layout.display == "none") == (variant != "reference")
        said.add(one.caption.value)
    assert len(said) == len(one.figure.passes) and one.errors == []
    one.set(off=one.controls["off"].options[0])
    blank = pixels(one)[: 40 + 20 * len(one.figure.passes), -100:]
    assert (blank == PAPER).mean() > 0.9  # no dots before a part is switched off


def test_the_dots_are_all_seeds_and_pairs(study):
    one = figure(study)
    for (variant, measure), values in one.reached.items():
        stored = studies.values(study, variant, measure)
        means = [record["metrics"][measure] for record in studies.records(study, variant)]
        assert np.array_equal(values, stored) if stored.size else np.allclose(values[:, 0], means)
    said = one.words(list(one.passes)[1], 0)
    assert all(
        str(studies.spread(one.reached["reference", each].mean(1))) in said for each in ANATOMIES[study].measures
    )


def test_the_tables_say_all_that_the_picture_shows(study):
    text = figure(study).tables()
    for part in ANATOMIES[study].parts:
        assert part.source in text.replace("&#x27;", "'") and part.words.replace("'", "&#x27;") in text
    assert all(
        f"<td>{box.words}" in text or f", {box.words}" in text
        for row in figure(study).reference.boxes
        for box in row
        if box
    )
    assert all(title(study, variant) in text for variant in figure(study).passes)


def test_without_a_kernel_every_switch_works(study, monkeypatch):
    if study not in ("spnet", "smgicnet"):
        pytest.skip("the others are smaller")
    page = moving_html(view(study).scene)
    assert '"note": ""' in page and len(page) < 800_000
    monkeypatch.setenv("REGKIT_STATIC", "1")
    assert view(study).table.value in view(study)._repr_mimebundle_()["text/html"]


def test_an_unknown_study_is_refused(study):
    with pytest.raises(ValueError, match=study):
        architecture("voxelmorph")
