"""SACB-Net's cluster map and matching microscope: every control driven in process, numbers against their law."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.views import drive, pixels

from regkit.course import check
from regkit.course.lessons import t10_sacbnet
from regkit.course.lessons.t10_sacbnet import SHARES, render_arrow, render_cells
from regkit.data import synthetic_pair
from regkit.figures.pixels import NIGHT, POINT, blank
from regkit.models import SACBNet
from regkit.models.sacbnet import LEVELS
from regkit.types import Pair

SHAPE = (37, 29)  # padded to 48 x 32


def network(**options):
    torch.manual_seed(0)
    return SACBNet(2, width=2, **{"clusters": 3, **options}).eval()


def pair():
    return synthetic_pair(2, seed=1, size=SHAPE)


def cluster_map(**options):
    return t10_sacbnet.cluster_map(network(**options), pair())


def microscope(**options):
    return t10_sacbnet.matching_microscope(network(**options), pair())


@pytest.mark.parametrize(
    ("make", "names", "axes"),
    [
        (cluster_map, ("level", "clusters", "seed", "side"), "picture"),  # cross hairs; the voxel's cluster is the same
        (microscope, ("level", "sharpness"), "words"),  # the next voxel lies in the same one of level 3
    ],
)
def test_what_the_controls_change(make, names, axes):
    view = make()
    view.set(level="3")
    drive(view, {**dict.fromkeys(names, "both"), "axis_0": axes, "axis_1": axes})


def test_every_level_has_a_stand_as_the_network_found_it():
    model, both = network(), pair()
    found = model(both.moving, both.fixed)
    stood = t10_sacbnet.stands(model, both.moving, both.fixed)
    assert tuple(stood.levels) == LEVELS and torch.equal(stood.displacement[..., :37, :29], found.displacement)
    for stand, match in zip(stood.levels.values(), found.matches, strict=True):
        assert torch.equal(stand.match.increment, match.increment) and stand.voxel == 48 // match.increment.shape[2]
    assert not stood.levels[5].before.any() and torch.allclose(
        stood.levels[5].moving[..., :37, :29], both.moving, atol=1e-4
    )


# ---------------------------------------------------------------------------------------------- the cluster map
def test_clusters_are_numbered_from_dark_to_bright_and_keep_their_attention():
    model = network(clusters=5)
    stood = t10_sacbnet.stands(model, pair().moving, pair().fixed)
    stand, block, image = stood.levels[2], model.blocks["2"], stood.fixed[0, 0].numpy()
    shown = t10_sacbnet.grouped(stand, block, "fixed", image)
    small = F.avg_pool2d(stood.fixed, 2)[0, 0].numpy()
    means = [small[shown.index == number].mean() for number in range(5) if shown.sizes[number]]
    assert means == sorted(means) and sum(shown.sizes) == small.size
    clusters = stand.match.clusters
    attention = block.attention(clusters.centroids[1]).detach()
    for number, own in zip(clusters.index[1].flatten().tolist(), shown.index.ravel().tolist(), strict=True):
        assert np.allclose(attention[number].view(3, 3), shown.attention[own])


def test_an_empty_cluster_is_shown_and_told():
    model, both = network(clusters=1), pair()
    stand = t10_sacbnet.stands(model, both.moving, both.fixed).levels[3]
    clusters = stand.match.clusters
    object.__setattr__(clusters, "centroids", clusters.centroids.repeat(1, 2, 1))  # a second one, without voxels
    shown = t10_sacbnet.grouped(stand, model.blocks["3"], "moving", stand.moving[0, 0].numpy())
    assert shown.sizes == [12 * 8, 0] and not shown.index.any()
    sheet = t10_sacbnet._legend(shown, 0, 300)
    assert sheet.shape[1] == 300


def test_one_cluster_is_called_a_plain_convolution_and_the_change_is_that_of_the_fields():
    view = cluster_map()
    assert "3 clusters" in view.caption.value and "by 0.000 voxels" in view.caption.value
    view.set(clusters=1, level="3")
    model, both = network(), pair()
    one = network(clusters=1)
    one.load_state_dict(model.state_dict())
    with_one = t10_sacbnet.stands(t10_sacbnet.regrouped(model, 1), both.moving, both.fixed).displacement
    apart = with_one - t10_sacbnet.stands(model, both.moving, both.fixed).displacement
    assert torch.equal(with_one[..., :37, :29], one(both.moving, both.fixed).displacement)
    assert f"by {apart.square().sum(1).mean().sqrt():.3f} voxels" in view.caption.value
    assert "1 cluster, seed 0" in view.caption.value and "a plain convolution" in view.caption.value
    assert "96 of 96 voxels" in view.caption.value and view.errors == []


def test_the_maps_have_the_colours_of_the_list():
    view, scale = cluster_map(clusters=7), 256 // 48
    view.set(level="2", side="moving")  # no cross hairs over the fixed image
    model, both = network(clusters=7), pair()
    stood = t10_sacbnet.stands(model, both.moving, both.fixed)
    shown = t10_sacbnet.grouped(stood.levels[2], model.blocks["2"], "fixed", stood.fixed[0, 0].numpy())
    painted = pixels(view)[24 : 24 + 48 * scale, 32 * scale + 6 : 2 * 32 * scale + 6]
    sheet = t10_sacbnet._legend(shown, 0, 300)
    for number, size in enumerate(shown.sizes):
        members = shown.index == number
        listed = sheet[25, 69 * number + 5]  # a corner of its head
        assert size and (painted[:: 2 * scale, :: 2 * scale][members] == listed).all()  # a pixel a voxel of level 2
        alone = t10_sacbnet._alone(blank((48, 32), scale), members, number)[:: 2 * scale, :: 2 * scale]
        assert (alone[members] == listed).all() and not (alone[~members] == listed).all(-1).any()


def test_only_levels_with_a_block_are_offered():
    view = cluster_map(blocks="54")
    assert view.controls["level"].options == ("5", "4")
    with pytest.raises(ValueError, match="without any"):
        cluster_map(blocks="none")


def test_the_networks_own_number_may_be_too_many_for_the_coarsest_level():
    view = cluster_map(clusters=9)
    view.set(level="5")  # 3 x 2 voxels
    assert "6 clusters" in view.caption.value and view.errors == []


# ---------------------------------------------------------------------------------------------- the microscope
def stood():
    both = pair()
    return t10_sacbnet.stands(network(), both.moving, both.fixed)


@pytest.mark.parametrize("level", [5, 3, 2])
def test_the_weights_are_the_softmax_and_their_mean_is_the_increment(level):
    view, now = microscope(), t10_sacbnet.focus(stood(), level, (21, 17), 1.0)
    view.set(level=str(level), axis_0=21, axis_1=17)
    assert now.weights.sum() == pytest.approx(1, abs=1e-5)
    mean = [(now.weights * offset).sum() for offset in np.indices((3, 3)) - 1]
    row, column = now.place
    assert mean == pytest.approx(now.stand.match.increment[0, :, row, column].tolist(), abs=1e-5)
    assert f"({mean[0]:+.2f}, {mean[1]:+.2f}) voxels of this level" in view.caption.value


def test_sharpness_goes_from_the_mean_of_all_to_the_best_alone():
    view, levels = microscope(), stood()
    view.set(sharpness="0")
    assert "largest weight is 0.11" in view.caption.value
    seen = [t10_sacbnet.focus(levels, 3, (24, 16), float(name)) for name in t10_sacbnet.SHARPNESS]
    assert seen[0].increment.abs().max() < 1e-6
    most = [now.weights.max() for now in seen]
    assert most == sorted(most) and most[-1] > most[0]


def test_places_outside_are_marked_and_told():
    view = microscope()
    assert "outside" not in view.caption.value
    view.set(axis_0=0)
    assert "3 of the 9 places lie outside" in view.caption.value
    view.set(axis_1=0)
    assert "5 of the 9 places lie outside" in view.caption.value


def test_after_the_last_of_the_levels_it_is_what_the_network_goes_on_with():
    levels = stood()
    after = t10_sacbnet.focus(levels, 5, (0, 0), 1.0).after
    assert np.allclose(after, levels.levels[4].moving[0, 0], atol=1e-5)


def test_reach_doubles_and_adds_one_more():
    assert [t10_sacbnet.reach(level) for level in LEVELS] == [2, 6, 14, 30]


def test_an_item_of_a_batch_and_no_volumes():
    one = pair()
    batch = Pair(torch.cat([one.fixed, one.moving]), torch.cat([one.moving, one.fixed]))
    chosen, alone = t10_sacbnet.matching_microscope(network(), batch, item=1), microscope()
    assert np.array_equal(pixels(chosen), pixels(alone)) and chosen.caption.value == alone.caption.value
    volumes = synthetic_pair(3, size=(16, 17, 16))
    for make in (t10_sacbnet.cluster_map, t10_sacbnet.matching_microscope):
        with pytest.raises(ValueError, match="H, W"):
            make(network(), volumes)
        with pytest.raises(IndexError, match="received 2"):
            make(network(), batch, item=2)


# ---------------------------------------------------------------------------------------------- cells
def test_cells_have_the_tables_colours_and_numbers_on_them():
    values = np.array([[0.0, 1.0], [0.5, 0.25]])
    plain = render_cells(values, table=SHARES, limits=(0, 1), side=40, words=None)
    assert (plain[20, 20] == SHARES[0]).all() and (plain[20, 60] == SHARES[-1]).all()
    written = render_cells(values, table=SHARES, limits=(0, 1), side=40)
    assert (plain != written).any((1, 2)).any() and written.shape == (80, 80, 3)


@pytest.mark.parametrize("tip", [(10.0, 10.5), (30.0, 25.0)])
def test_an_arrow_is_drawn_however_short(tip):
    drawn = render_arrow(blank((40, 40), 1, NIGHT), np.array([10.0, 10.0]), np.array(tip), width=3)
    assert (drawn == POINT).all(-1).sum() > 4


# ---------------------------------------------------------------------------------------------- the exercise
def test_the_exercise_is_right_by_the_law_that_it_teaches():
    numbers = check.one_cluster()
    kernel, bias = check.plain_convolution.reference()(*numbers[1:])
    by_sum = numbers.bias[2] + sum(
        numbers.attention[3 * (i + 1) + j + 1]
        * numbers.weight[2, :, 3 * (i + 1) + j + 1]
        @ numbers.features[0, :, 4 + i, 5 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    )
    made = F.conv2d(numbers.features, kernel, bias, padding=1)[0, 2, 4, 5]
    assert math.isclose(float(made), float(by_sum), abs_tol=1e-4)


def test_a_loop_is_right():
    def loop(weight, attention, bias):
        kernel = torch.empty(*weight.shape[:2], 3, 3)
        for tap in range(9):
            kernel[:, :, tap // 3, tap % 3] = attention[tap] * weight[:, :, tap]
        return kernel, bias

    assert check.plain_convolution(loop).colour == "green"
