# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · SACB-Net
#
# *One kernel for bone, air and brain? Give each kind of place its own. And do not guess where a voxel went: look.*
#
# **Goals.** After this notebook you can build a convolution whose kernel depends on the place, match features by a soft
# argmax and say how far it reaches, and judge from a fair control whether an idea, or only its extra layers, made a
# network better.
#
# **Before you start.** Warps and compositions (02), pyramids (03), training a network (06). The method: *SACB-Net*,
# Cheng et al., CVPR 2025.
#
# **Time.** You: about 75 minutes. A CPU (measured on two cores): about 30 s in fast mode, 70 s in full mode.

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, fields, figures, losses, metrics, training, types, widgets
from regkit.course import papers, studies
from regkit.course.lessons import architecture
from regkit.course.lessons import t10_sacbnet as lesson
from regkit.data import benchmarks
from regkit.models import SACBNet, layers, sacbnet

course.begin(seconds={"fast": 30, "full": 70}, minutes=75)

# %% [markdown]
# ## The whole of it
#
# What this notebook takes apart: the trained network at work, on one held-out pair. Five levels, from left to right;
# nothing is regressed but at the last. Rows are its parts in the order of `forward`; under a box stands what flows
# there, channels·space. Colours say whose a part is: the paper's, the authors' program's where the paper is silent,
# or regkit's choice.
#
# *Look at* a part, and read below which line of regkit makes it. *Switched off* names what was trained without a part: its
# boxes fade, and the dots tell what it was worth, on all held-out pairs and with all seeds; large dots are the pair that
# is shown, bars the means, and the paper's numbers stand beside. You need not understand it yet: come back to it.

# %%
method_figure = architecture.architecture("sacbnet")
method_figure

# %% [markdown]
# ## What a network sorts
#
# Slices of synthetic brains, and a SACB-Net that was trained on others of them; its weights come with regkit. At four
# scales it sorts the places of both images into seven groups. Nobody told it what a brain is made of: there were no
# labels in its training.

# %%
brains = types.stack(benchmarks.BENCHMARKS["brains"].held_out)  # 32 pairs
network = studies.load("sacbnet").model
SHOWN = 1  # the pair in the pictures
one = slice(SHOWN, SHOWN + 1)
moving, fixed = brains.moving[one], brains.fixed[one]


def register(model, of=brains, **given):
    with torch.no_grad():
        return model(of.moving, of.fixed, **given)


found = register(network)
sorted_places = found.matches[-1].clusters.index  # level 2: 32 moving images, then 32 fixed

figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="compressed")
pictures = {
    "moving": moving,
    "fixed": fixed,
    "warped": regkit.warp(brains.moving, found.displacement)[one],
}
groups = sorted_places[32 + SHOWN, :, :28]  # the network pads 56 voxels to 64
axes[3].imshow(groups, cmap="Set2", vmin=0, vmax=7, interpolation="nearest")
axes[3].set(
    title="fixed, sorted into seven groups", xlabel="axis 1 (voxels of level 2)", ylabel="axis 0"
)
for panel, (name, image) in zip(axes, pictures.items(), strict=False):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set(title=name, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")


# %%
def dice(registration, of=brains):
    return metrics.evaluate(registration, of)["dice"]


before = metrics.evaluate(torch.zeros_like(found.displacement), brains)["dice"]
seven = dice(found)
print(f"Dice of 32 held-out pairs: {before:.3f} before, {seven:.3f} after")
assert before < 0.45 and seven > 0.72, (
    f"Dice rises from below 0.45 to above 0.72, here {before:.3f} and {seven:.3f}: run all cells from the top"
)

# %% [markdown]
# ### Predict
#
# Each group has a kernel of its own: seven at each scale. Now take six of them away from this *trained* network, so
# that one kernel must serve all places, as in any other network. Nothing is trained anew. What becomes of the Dice of
# 0.79: does it fall below 0.6 (`"collapses"`), to between 0.6 and 0.76 (`"drops"`), or does it stay above
# (`"hardly changes"`)?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "hardly changes"

# %% [markdown] tags=["instructor"]
# Almost all say *drops* or *collapses*: the kernels are in the method's name. Write the votes on the board and do not
# comment. The answer comes after both halves of the method are understood, and it is the reason for the study at the
# end.

# %% [markdown]
# ## Cluster
#
# Where in the image are places of one kind? Describe each place by the **mean of its neighbourhood** (equation 3), and
# let **k-means** find groups of similar descriptions: assign each place to the nearest of $N$ centroids, move each
# centroid to the mean of its members, and again, until nothing changes. Write both. (The line above a function says at
# once what is right; as long as it is not, the notebook goes on with the solution.)


# %%
@check.local_means
def local_means(features):
    """The mean of each place's 3 x 3 neighbourhood, zeros outside. features: (B, C, H, W); returns the same size."""
    padded = ...  # F.pad(features, [left, right, above, below]) adds zeros
    return ...  # F.avg_pool2d(image, size, stride=...) takes the means of windows


# %%
@check.cluster_by_hand
def cluster_by_hand(points, centroids, iterations=50):
    """The cluster of each place, (places,), and the centroids, (N, features). points: (features, places)."""
    for _ in range(iterations):
        index = (
            ...
        )  # the number of the nearest centroid; torch.cdist(points.T, centroids) has all distances
        centroids = torch.stack([... for n in range(len(centroids))])  # the mean of cluster n
    return index, centroids


# %%
def some_of(points, count):
    """Where k-means starts: `count` of the places, (count, features)."""
    chosen = np.random.default_rng(0).choice(points.shape[1], count, replace=False)
    return points[:, chosen].T


# %% [markdown]
# First on the image itself: one feature for each place, its grey value.

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="compressed")
axes[0].imshow(fixed[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set(title="fixed", ylabel="axis 0 (voxels)")
for panel, count in zip(axes[1:], (2, 4, 7), strict=True):
    greys = local_means(fixed).flatten(2)[0]
    index, centroids = cluster_by_hand(greys, some_of(greys, count))
    rank = centroids[:, 0].argsort().argsort()  # dark to bright
    panel.imshow(rank[index].view(64, 56), cmap="viridis", vmin=0, vmax=count - 1)
    panel.set(title=f"{count} clusters of grey values")
for panel in axes:
    panel.set(xlabel="axis 1 (voxels)")

# %% [markdown]
# Two things to see. Clusters have **no place**: the left and the right ventricle are one cluster, however far apart.
# And k-means never saw a boundary; similar is all it knows. In the network it sorts *learnt* features, here those of
# level 2 (half the image's size). The same from regkit:

# %%
block = network.blocks["2"]
with torch.no_grad():
    level_1 = network.encoder[0](fixed)
    level_2 = network.encoder[1](F.avg_pool2d(level_1, 2))  # (1, 8, 32, 28)
    p = block.project(level_2)  # a convolution, normalised
    points = local_means(p).flatten(2)[0]

index, centroids = cluster_by_hand(points, some_of(points, 7))
by_regkit = sacbnet.k_means(points, 7, tolerance=0)
differ = int((index != by_regkit.index).sum())
apart = (centroids - by_regkit.centroids).abs().max()
assert differ == 0 and apart < 1e-5, (
    f"regkit's clusters are those by hand, here {differ} places differ and the centroids by {apart:.1e}: "
    "was cluster_by_hand changed?"
)
print("voxels in each cluster:", index.bincount().tolist())

# %% [markdown]
# ## Adapt the kernel
#
# One kernel $W$ is shared by all. Two small networks look at a cluster's centroid $c_n$ and say how the cluster wants
# it (equations 5 to 7): an **attention** $a_n$, one number between 0 and 1 for each of the nine **taps**
# (the places $k$ of a 3 × 3 kernel), and a bias $b_n$ for each output channel.
#
# $$y(x) = \sum_k a_{n(x),\,k}\, W_k\, p(x + k) + b_{n(x)},$$
#
# where $p$ are the features and $n(x)$ is the cluster of $x$. In words: each place adds up its nine neighbours, and its
# cluster says how much each of them counts.

# %%
OFFSETS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]  # of the nine taps, rows first


# %%
@check.adapt_by_hand
def adapt_by_hand(p, W, a, b, index):
    """p: (1, in, H, W), W: (out, in, 9), a: (N, 9), b: (N, out), index: (H, W)."""
    height, width = index.shape
    padded = F.pad(p, [1, 1, 1, 1])
    y = b[index].permute(2, 0, 1)[None]
    for k, (i, j) in enumerate(OFFSETS):
        neighbour = padded[:, :, 1 + i : 1 + i + height, 1 + j : 1 + j + width]  # p(x + k)
        term = ...  # W_k times the neighbour: torch.einsum("oc,bchw->bohw", matrix, features)
        y = ...  # a[index, k] is a_{n(x), k} at each place, (H, W)
    return y


# %% [markdown]
# With a shortcut around it, that is the whole **spatial-awareness convolution block**: out = in + LeakyReLU($y$). Ours
# against regkit's, which does the work of one convolution for any number of clusters:

# %%
with torch.no_grad():
    a, b = block.attention(centroids), block.bias(centroids)
    y = adapt_by_hand(p, block.weight, a, b, index.view(32, 28))
    block_by_hand = level_2 + F.leaky_relu(y, 0.1)
    given = sacbnet.Clusters(index.view(1, 32, 28), centroids[None])
    block_by_regkit = block(level_2, given).features
apart = (block_by_hand - block_by_regkit).abs().max()
print(f"the block, by hand and by regkit: {apart:.1e} apart")
assert apart < 1e-4, (
    f"the block by hand is regkit's, here {apart:.1e} apart: was adapt_by_hand changed?"
)

# %% [markdown]
# No gradient goes through the clustering: to belong to a cluster is not differentiable. The block learns $W$ and the
# two small networks; that its features cluster well, it is never asked.
#
# **Paper and program.** The block above is the authors' *program*. Equations 2 to 7 say a little less, or something else:
#
# | equation | the paper | the program, and regkit |
# |---|---|---|
# | 2, 3 | means over patches of the features $F$ | of $p$: a convolution, normalised, with LeakyReLU, goes before |
# | 4 | $c_n$ is the mean of a cluster's voxels $F$ | it is the mean of their *local means*, and no gradient passes |
# | 5 | $\mathcal{F}_w(c_n) \odot W$, as large as $W$ | one number for each tap, for all channels; a sigmoid |
# | 6 | the patches of $F$ times $W_n$ | the patches of $p$ |
# | 7 | $F + \sigma(\ldots)$ | the same, σ is LeakyReLU with slope 0.1; $p$ is not added |
#
# The paper does not say what happens to an empty cluster. In the program its centroid goes to the origin.
#
# Now look at all of it. Move the cross hairs from ventricle to white matter to the rim; go to coarser levels; change
# the number of clusters.

# %%
map_of_brains = lesson.cluster_map(network, brains, item=SHOWN)
map_of_brains

# %% [markdown]
# **Read it.** Above: both images, each sorted by itself, so "cluster 3" is not the same in both. Here they are numbered
# from dark to bright, which makes the two maps look alike on the fine levels; on the coarse ones it hardly helps.
# Middle: the attention of the cluster under the cross hairs, and one channel of the shared kernel before and after.
# Below: all clusters, in the colours of the maps: number, voxels and attention. (The images are widened to 64 × 64, a
# multiple of 16, as the network sees them; so there are more voxels than in our sum above.)
#
# * At level 2 one tissue is *several* clusters, and so is the black around the head. Places are sorted by what the
#   features say, such as on which side an edge lies. Clusters are not tissues.
# * Compare the small squares below: how much do seven attentions differ? Keep that in mind.
# * Another **seed** of k-means, another map. The caption says how far the field moves. (The authors' program draws a
#   new seed at every call, so it never gives the same answer twice. regkit's is fixed.)

# %%
moved = {}
for seed in (1, 2, 3):
    reseeded = register(lesson.regrouped(network, 7, seed))
    moved[seed] = (reseeded.displacement - found.displacement).norm(dim=1).mean().item()
print({f"seed {seed}": f"{change:.3f} voxels" for seed, change in moved.items()})
assert all(0.005 < change < 0.2 for change in moved.values()), (
    f"another seed moves the field by 0.005 to 0.2 voxels, here {moved}: run all cells from the top"
)

# %% [markdown]
# ## Match
#
# The second half. VoxelMorph looks at two feature maps and *regresses* an arrow. SACB-Net **looks it up**: compare the
# fixed voxel's features with those of the nine moving voxels around it, by scalar products (equation 9). Softmax makes
# nine weights of nine scores. The arrow is the weighted mean of the nine offsets (equation 10): a **soft argmax**.


# %%
@check.match_by_hand
def match_by_hand(moving, fixed):
    """(B, C, H, W) each: the displacement (B, 2, H, W), less than one voxel along each axis."""
    height, width = fixed.shape[2:]
    padded = F.pad(moving, [1, 1, 1, 1])  # zeros outside
    views = [padded[:, :, 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in OFFSETS]
    scores = torch.stack([... for view in views], 1)  # of `fixed` with each view; (B, 9, H, W)
    weights = ...
    return torch.einsum("bkhw,kd->bdhw", weights, ...)  # the offsets as a tensor of floats, (9, 2)


# %%
match = found.matches[2]  # level 3
by_hand = match_by_hand(match.moving, match.fixed)
by_regkit = sacbnet.soft_argmax(sacbnet.scores(match.moving, match.fixed))
apart = max((by_hand - other).abs().max() for other in (by_regkit, match.increment))
assert apart < 1e-5, (
    f"by hand as by regkit and as in the network, here {apart:.1e} voxels apart: was match_by_hand changed?"
)
assert by_hand.abs().max() < 1, (
    f"a matching moves by less than 1 voxel of its level, here {by_hand.abs().max():.4f}: "
    "was match_by_hand changed?"
)

# %% [markdown]
# No weight is learnt here; what is learnt are features that can be compared. Does it find a shift that we know? Random
# features, the moving ones shifted by (+1, -1). And again with features that are weaker, so with smaller scores:

# %%
generator = torch.Generator().manual_seed(0)
fixed_features = torch.randn(1, 16, 24, 24, generator=generator)
moving_features = fixed_features.roll((1, -1), (2, 3))
inside = (0, slice(None), slice(2, -2), slice(2, -2))
recovered = {}
for strength in (2, 0.5, 0.1):
    arrows = match_by_hand(strength * moving_features, strength * fixed_features)
    recovered[strength] = arrows[inside].mean((1, 2))
    print(
        f"features times {strength}: ({recovered[strength][0]:+.3f}, {recovered[strength][1]:+.3f}) voxels"
    )
off = (recovered[2] - torch.tensor([1.0, -1.0])).abs().max()
weak = recovered[0.1].abs().max()
assert off < 0.02 and weak < 0.2, (
    "strong features recover the shift within 0.02 voxels, weak ones less than 0.2 of it, here "
    f"{off:.3f} off and {weak:.3f}: run all cells from the top"
)

# %% [markdown]
# The strength of the features *is* the sharpness of the softmax. There is no other temperature in the method: the
# network has to learn it. Play with it under the microscope:

# %%
microscope = lesson.matching_microscope(network, brains, item=SHOWN)
microscope

# %% [markdown]
# **Try.** The yellow box is the voxel of this level under the two sliders. *Sharpness* 0: nine equal weights, no arrow.
# 1: as trained. 100: the best of the nine alone, arrows of whole voxels. At which is the difference, below on the
# right, the smallest? Then go to a corner: places outside have the score 0, *and take part*.


# %%
def comparing_by(scores):
    """The same network with the same weights, but with other scores."""
    changed = copy.copy(network)
    changed.scores = scores
    return changed


sharpened = {}
for factor in (0, 0.25, 0.5, 1, 2, 4, 100):
    sharper = comparing_by(lambda m, f, factor=factor: factor * network.scores(m, f))
    sharpened[factor] = register(sharper)

# %%
overlaps = {factor: dice(each) for factor, each in sharpened.items()}
folded = {factor: metrics.folds(each.displacement).percent for factor, each in sharpened.items()}
names = [f"{factor:g}" for factor in overlaps]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="compressed")
left.plot(names, list(overlaps.values()), "o-", color="#0072b2")
left.set(
    xlabel="sharpness on all levels (scores times)",
    ylabel="mean Dice of 32 pairs",
    ylim=(0.4, 0.85),
)
right.plot(names, list(folded.values()), "o-", color="#d55e00")
right.set(
    xlabel="sharpness on all levels (scores times)", ylabel="folded voxels (%)", ylim=(-0.1, None)
)
for panel in (left, right):
    panel.grid(alpha=0.3)

assert overlaps[1] > overlaps[0.25] > overlaps[0] and overlaps[1] > overlaps[100] + 0.01, (
    f"Dice is best as trained, sharpness 1, here {overlaps}: run this cell again"
)
assert folded[100] > 1 > folded[1], (
    "a hard decision folds at more than 1 % of the voxels, the trained one at fewer, here "
    f"{folded[100]:.2f} % and {folded[1]:.2f} %: run this cell again"
)

# %% [markdown]
# A hard decision is worse twice: arrows jump by whole voxels, and neighbours that jump differently fold. The *soft*
# argmax is sub-voxel and smooth because it hesitates.
#
# ## From coarse to fine
#
# One matching moves by less than **one voxel of its level**. So reach comes from the pyramid. Each level warps the
# moving features by what was found so far, matches the rest, and composes (equation 11):
# $\varphi_i = \text{up}(\varphi_{i+1}) \circ \Delta\varphi_i$. Doubled from level to level, that is less than 2, 6,
# 14, 30 voxels. Level 1 does not match; there a few convolutions regress what is left.
#
# Write what a level does after it has matched. `fields.compose(f, g, padding="zeros")` is $f \circ g$, and
# `fields.upsample(u, alignment="corners")` the same displacement on the next finer grid.


# %%
@check.compose_level
def compose_level(reached, increment):
    """φ of this level, and the same on the next finer grid. Both: (B, 2, H, W), voxels of this level."""
    composed = fields.compose(
        ..., ..., padding="zeros"
    )  # reached: up(φ) of the coarser level; increment: Δφ
    return ..., ...


# %%
reached = torch.zeros(32, 2, 4, 4)
for match, by_network in zip(found.matches, found.levels, strict=False):
    increment = match_by_hand(match.moving, match.fixed)
    composed, reached = compose_level(reached, increment)
    apart = (composed - by_network).abs().max()
    assert apart < 1e-3, (
        f"each level by hand is the network's, here {apart:.1e} voxels apart: was match_by_hand changed?"
    )

# %%
largest = [2 * level.abs().max().item() for level in found.levels[:4]]
bounds = [lesson.reach(level) for level in sacbnet.LEVELS]
figure, axes = plt.subplots(figsize=(7, 2.6), layout="compressed")
axes.barh(["level 5", "to 4", "to 3", "to 2"], bounds, color="#cccccc", label="reach")
axes.barh(
    ["level 5", "to 4", "to 3", "to 2"],
    largest,
    height=0.4,
    color="#0072b2",
    label="largest component, 32 pairs",
)
axes.invert_yaxis()
axes.set(xlabel="voxels of the next finer level (the last: of the image)")
axes.legend()
assert bounds == [2, 6, 14, 30], (
    f"the levels reach 2, 6, 14 and 30 voxels, here {bounds}: run all cells from the top"
)
assert all(size <= bound for size, bound in zip(largest, bounds, strict=True)), (
    f"no level moves further than its reach, here {largest} voxels: run all cells from the top"
)

# %%
wide = [layers.pad_to_multiple(image, 16) for image in (moving, fixed)]  # what the network sees
padded = regkit.Pair(*wide, spacing=brains.spacing)
stepper = widgets.level_scrubber(
    padded, register(network, padded), panels=("warped", "difference", "directions", "grid")
)
stepper

# %% [markdown]
# Step through the levels: nothing yet, then levels 5, 4, 3, 2, and at last the regression of level 1. Where is most of
# the way made, and which levels only polish?
#
# ## Your prediction
#
# Back to the kernels. The weights do not depend on the number of clusters, so a trained network can be run with any.


# %%
counts = (1, 2, 3, 5, 7, 9, 11)
regrouped = {count: register(lesson.regrouped(network, count)) for count in counts}
by_count = {count: dice(each) for count, each in regrouped.items()}
without = dice(register(studies.load("sacbnet", "no block").model))
print(f"you said: {my_prediction}")
print({f"N = {count}": f"{value:.3f}" for count, value in by_count.items()})

# %%
figure, axes = plt.subplots(figsize=(6.5, 3.2), layout="compressed")
axes.plot(
    counts,
    list(by_count.values()),
    "o-",
    color="#0072b2",
    label="trained with 7, run with N clusters",
)
axes.axhline(without, color="#d55e00", linestyle="--", label="trained without any block")
axes.set(
    xlabel="number of clusters N at the test",
    ylabel="mean Dice of 32 pairs",
    ylim=(0.7, 0.82),
    xticks=counts,
)
axes.legend(loc="lower right")
axes.grid(alpha=0.3)
assert by_count[1] > 0.76 and abs(by_count[7] - by_count[1]) < 0.02, (
    "one cluster still has a Dice above 0.76, within 0.02 of seven, here "
    f"{by_count[1]:.3f} and {by_count[7]:.3f}: run all cells from the top"
)
assert abs(by_count[1] - without) < 0.05, (
    f"no block is within 0.05 of one cluster, here {without:.3f} and {by_count[1]:.3f}: run all cells from the top"
)

# %% [markdown]
# **It hardly changes.** Half a point of Dice, for six of seven kernels. Why? Look at how much the seven attentions
# differ from each other:

# %%
for level, match in zip(sacbnet.LEVELS, found.matches, strict=True):
    with torch.no_grad():
        attention = network.blocks[str(level)].attention(match.clusters.centroids)  # (64, 7, 9)
    between = attention.std(1).mean().item()
    print(
        f"level {level}: attention {attention.mean():.2f}, between the clusters of an image ± {between:.3f}"
    )
    assert between < 0.15, (
        f"the clusters of an image differ by less than 0.15 in their attention, here {between:.3f}: "
        "run all cells from the top"
    )

# %% [markdown]
# The taps differ widely (from 0.02 to 1 in the picture above); the clusters agree on most of them. The seven kernels are
# variations of one.
#
# And a network that was trained *without blocks*? The dashed line. Whatever it loses need not be the clusters' doing:
# leaving the block out takes away two convolutions and a shortcut at each level as well. Hold on to that thought.
#
# ## Break it
#
# *"A scalar product depends on how strong the features are. Every textbook compares directions: normalise first."* The
# scores become cosines, and a *temperature* $T$ is left, by which they are divided:


# %%
@check.cosine_scores
def cosine_scores(moving, fixed, scores, temperature=1.0):
    """Cosines over a temperature. moving, fixed: features, (B, C, H, W); scores: makes scalar products of two such."""
    directions = ...  # both, each vector over its length: F.normalize
    return ...


# %%
tried = {}
for temperature in (1.0, 0.2, 0.05):
    by_cosine = comparing_by(lambda m, f, t=temperature: cosine_scores(m, f, sacbnet.scores, t))
    cosine = register(by_cosine)
    tried[temperature] = dice(cosine)
    mean = cosine.matches[2].increment.norm(dim=1).mean()
    print(
        f"temperature {temperature:4g}: Dice {tried[temperature]:.3f}, level 3 moves by {mean:.2f} voxels"
    )
print(
    f"as trained:       Dice {seven:.3f}, level 3 moves by {found.matches[2].increment.norm(dim=1).mean():.2f} voxels"
)
assert tried[1.0] < 0.65 and tried[0.05] > 0.75, (
    "plain cosines fall below a Dice of 0.65, a low temperature brings it to 0.75, here "
    f"{tried[1.0]:.3f} and {tried[0.05]:.3f}: run all cells from the top"
)

# %% [markdown]
# **Symptom:** no error, a smooth field, arrows a third as long as they should be. **Why:** cosines lie between -1 and
# 1, so the largest of nine weights is at most $e^2$ times the smallest: never sharp, whatever the images. **Fix:**
# divide by a temperature well below 1 (or let the network learn it), or leave the features their strength.
#
# A second trap of the same kind, at the edge. Two *constant* feature maps: nothing to match, so no arrow?

# %%
flat = torch.full((1, 4, 8, 8), 0.5)  # |features|² = 1
pulled = match_by_hand(flat, flat)[0, 0]
print("axis 0, rows 0 to 7:", [f"{value:+.3f}" for value in pulled[:, 4]])
expected = (torch.e - 1) / (
    2 * torch.e + 1
)  # three places outside have score 0, six inside score 1
inner = pulled[1:-1].abs().max()
off = max(abs(pulled[0, 4] - expected), abs(pulled[-1, 4] + expected))
assert inner < 1e-6 and off < 1e-5, (
    f"nothing moves inside, and the edges by {expected:.4f} inwards, here {inner:.1e} and {off:.1e} off: "
    "was match_by_hand changed?"
)

still = sacbnet.soft_argmax(sacbnet.scores(flat, flat, padding="replicate"))
assert still.abs().max() < 1e-6, (
    f"with the border repeated nothing moves, here by {still.abs().max():.1e}: run all cells from the top"
)
print("with the border repeated instead of zeros:", f"{still.abs().max():.3f}")

# %% [markdown]
# A pull **inward** by a quarter of a voxel, up to half a voxel where features are strong, on every level. Repeating the
# border (`matching_padding="replicate"`) takes it away.
#
# ## The loss, term by term
#
# **The paper** (Cheng et al. 2025, equation 1), for the last field only, in one direction:
#
# $$\mathcal{L} = \mathcal{L}_{sim}(A \circ \varphi, B) + \lambda\, \mathcal{L}_{reg} .$$
#
# $\mathcal{L}_{sim}$ is the normalised cross-correlation, and $\mathcal{L}_{reg}$ is of the field's first gradient.
# Neither the window nor λ is printed. Adam, learning rate 0.0001, one pair a step. No term asks for clusters, a way
# back, or the absence of folds.
#
# **The authors' program**: the *local* NCC, squared, in windows of 9 voxels; the mean of $|\nabla u|^2$, u in voxels.
# λ = 0.3 stands beside the abdomen; a remark names 3 (IXI, it seems) and 1 (LPBA). 300 epochs.
#
# **regkit**: the program's two terms, λ = 0.3. In the clustering it stops earlier (after 50 rounds, or when the
# centroids move by less than 0.0001) and draws the same start each time; `as_released=True` is the program's way.
#
# At the test: one pass. It clusters anew for each image.

# %%
with torch.no_grad():
    terms = network.objective(register(network), brains.moving, brains.fixed)
    warped = regkit.warp(brains.moving, found.displacement, padding="zeros")
    by_hand = {
        "lncc": losses.lncc(warped, brains.fixed, window=9),
        "diffusion": 0.3
        * sum(found.displacement.diff(dim=axis).square().mean() for axis in (2, 3))
        / 2,
    }
for name, value in by_hand.items():
    print(f"{name:9s} by hand {value:+.4f}, regkit's {terms[name]:+.4f}")
    assert torch.isclose(value, terms[name], atol=1e-4), (
        f"the loss by hand is regkit's, here {value:.5f} and {terms[name]:.5f}: run all cells from the top"
    )

# %% [markdown]
# ## Train one
#
# Triangles and circles again, three clusters, a small network, from its first random weights.

# %%
pairs = regkit.data.ShapePairs(1024, size=64)
held_out = regkit.data.ShapePairs(64, size=64, split="test")
shapes = held_out[list(range(64))]

torch.manual_seed(0)
small = SACBNet(2, width=2, clusters=3)
STEPS = training.steps(fast=100, full=500)
recipe = training.Recipe(steps=STEPS, batch=4, learning_rate=4e-3, schedule="cosine")
history = training.train(small, pairs, recipe)
complete = len(history) == STEPS  # False if you interrupt the training: less is promised then
small.eval()
figures.show_history(history)

# %%
unregistered = metrics.evaluate(torch.zeros(64, 2, 64, 64), shapes)["dice"]
learnt = dice(register(small, shapes), shapes)
print(f"held-out shapes: Dice {unregistered:.3f} before, {learnt:.3f} after")
needed = {"fast": 0.85, "full": 0.92}[training.mode()]
assert learnt > needed > unregistered or not complete, (
    f"after {STEPS} steps Dice is above {needed}, and below it before, here {learnt:.3f} and "
    f"{unregistered:.3f}: run the training's cell again, to its end"
)

# %%
map_of_shapes = lesson.cluster_map(small, shapes, item=0)
map_of_shapes

# %% [markdown]
# Level 2, three clusters: what are they, here where there is nothing but inside, outside and edge? Try two, and five.
#
# ## Exercise: one cluster is a plain convolution. Prove it
#
# With $N = 1$ every voxel has the same $n(x)$. Write the kernel and the bias with which PyTorch's own
# `F.conv2d(p, kernel, bias, padding=1)` gives what the block's adaptive convolution gives, for *any* map $p$.
# `weight` is (out, in, 9), `attention` (9,), `bias` (out,); the kernel is to be (out, in, 3, 3).
# `check.one_cluster()` gives numbers to try it on.

# %% tags=["exercise"]
my_plain = ...  # a function: def my_plain(weight, attention, bias): return kernel, bias


# %% tags=["solution"]
def one_kernel(weight, attention, bias):
    return (attention * weight).view(*weight.shape[:2], 3, 3), bias


my_plain = one_kernel


# %%
check.plain_convolution(my_plain)

# %% [markdown] tags=["instructor"]
# The proof on paper is one line: put n(x) = 0 into the formula, and a_0 ⊙ W and b_0 leave the sum. Ask then: for
# which *other* attentions is the block plain, with any clusters? (All a_n equal and all b_n equal.) And: is a network
# with N = 1 an ordinary network? The next cell answers; let them guess first.

# %% [markdown]
# One doubt is left. The attention is computed from the centroid, and with one cluster that is the mean over the whole
# map. Another image, another mean: has each image its own kernel? We take the network that was *trained* with one
# cluster, and give all 64 images one and the same centroid.

# %%
single = studies.load("sacbnet", "1 cluster").model
own = register(single)
frozen = {}
for level, match in zip(sacbnet.LEVELS, own.matches, strict=True):
    centroids = match.clusters.centroids  # (64, 1, features)
    attention = single.blocks[str(level)].attention(centroids)[:, 0]
    print(
        f"level {level}: attention {attention.mean():.2f}, between images ± {attention.std(0).mean():.4f}"
    )
    assert attention.std(0).mean() < 0.01, (
        "the attention differs by less than 0.01 between images, here "
        f"{attention.std(0).mean():.4f}: run all cells from the top"
    )
    alike = centroids.mean(0, keepdim=True).expand_as(centroids)
    frozen[level] = sacbnet.Clusters(match.clusters.index, alike)

plain = register(single, clusters=frozen)
apart = (plain.displacement - own.displacement).norm(dim=1).mean().item()
print(
    f"Dice {dice(own):.3f} with own kernels, {dice(plain):.3f} with one for all; fields {apart:.3f} voxels apart"
)
assert apart < 0.02 and abs(dice(plain) - dice(own)) < 0.003, (
    "one kernel for all moves the fields by less than 0.02 voxels and Dice by less than 0.003, here "
    f"{apart:.4f} and {dice(plain) - dice(own):+.4f}: run all cells from the top"
)

# %% [markdown]
# No: each map was normalised before, so its mean is nearly the same for every image. With $N = 1$ SACB-Net **is** an
# ordinary network, layer for layer as large. It is the fair control for the paper's idea.
#
# ## Is it the idea, or the layers?
#
# The paper switches the blocks on, level by level, and the Dice rises. But its first row has no block at all: fewer
# layers *and* no clusters. There is no row with one cluster:

# %%
printed = papers.PRINTED["sacbnet"]
print(printed.text())

# %% [markdown]
# So here is the control: variants, each trained for itself on the same brains, from several
# seeds. (*Means over channels*: a place is described by nine numbers, the mean over the channels at each of its
# neighbours, and not by the neighbourhood's mean in each channel; *both means*: by both.) Dice on 32 held-out pairs:

# %%
names = [name for name in studies.VARIANTS["sacbnet"] if studies.results("sacbnet", name)]
results = {name: studies.results("sacbnet", name) for name in names}
weights = {
    name: sum(each.numel() for each in studies.load("sacbnet", name).model.parameters())
    for name in names
}
reference = results["reference"]["dice"]
print(
    f"{'variant':24s} {'Dice ± over seeds':>22s} {'minus reference':>16s} {'folds, %':>9s} {'weights':>9s}"
)
for name, reached in results.items():
    overlap, folds = reached["dice"], reached["folds"].mean
    spread = f"{overlap.mean:.4f} ± {overlap.deviation:.4f} ({overlap.seeds})"
    print(
        f"{name:24s} {spread:>22s} {overlap.mean - reference.mean:+16.4f} {folds:9.3f} {weights[name]:9,}"
    )

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="compressed")
for row, name in enumerate(names):
    for record in studies.records("sacbnet", name):
        axes.plot(record["metrics"]["dice"], row, "o", color="#0072b2", alpha=0.6)
    axes.plot(
        [results[name]["dice"].mean] * 2, [row - 0.3, row + 0.3], color="#d55e00", linewidth=2
    )
axes.axvline(reference.mean, color="#999999", linewidth=1)
axes.set(
    yticks=range(len(names)),
    yticklabels=names,
    xlabel="mean Dice of 32 held-out pairs (a dot: one seed)",
)
axes.invert_yaxis()
axes.grid(alpha=0.3)


# %%
def lead_over(name):
    """Reference minus this variant, seed by seed."""
    both = (studies.records("sacbnet", each) for each in ("reference", name))
    return [a["metrics"]["dice"] - b["metrics"]["dice"] for a, b in zip(*both, strict=True)]


block_brings, clusters_bring = lead_over("no block"), lead_over("1 cluster")
print("seed by seed, the blocks bring:     ", [f"{lead:+.3f}" for lead in block_brings])
print("of that, more than one cluster:     ", [f"{lead:+.3f}" for lead in clusters_bring])
blocks, kernels = np.mean(block_brings), np.mean(clusters_bring)

# %%
places = {
    level: match.clusters.index[0].numel()
    for level, match in zip(sacbnet.LEVELS, found.matches, strict=True)
}
print("places that are sorted into seven groups, by level:", places)
assert places == {5: 16, 4: 64, 3: 256, 2: 1024}, (
    f"the padded slices have 16 to 1024 places, here {places}: run all cells from the top"
)
for data in printed.columns[:2]:  # what level 5 brings, of what all four bring
    first, coarse, whole = (
        printed.value(name, data) for name in ("no block", "5 clusters, level 5", "5 clusters")
    )
    assert (coarse - first) / (whole - first) > 0.45, (
        f"in the paper level 5 brings about half on {data}, here {coarse - first:.4f} of {whole - first:.4f}: "
        "run the table's cell again"
    )
assert abs(blocks) < 0.06 and -0.03 < kernels < 0.02, (
    "the blocks bring less than 0.06, and more than one cluster less than 0.02, here "
    f"{blocks:+.3f} and {kernels:+.3f}: run this cell again"
)

# %% [markdown]
# Read it as you would read a paper's table. Look at the dots of *one* variant first: that is what the seed alone does.
#
# * **No block** is worse in the mean, by about as much as another seed changes; it also has a fifth of the weights.
# * **1 cluster**, the control, is no worse than seven. Neither are 5 and 11.
#   <!-- claim: SACB-Net: block = not told apart --> <!-- claim: SACB-Net: kernels = not told apart -->
#   <!-- claim: SACB-Net: levels = not told apart --> <!-- claim: SACB-Net: seven = not told apart -->
# * Blocks on the coarse levels alone bring little *here*. That says nothing about coarse blocks: on our slices level 5
#   has 16 places, and seven clusters of them hold two or three places each. In the paper level 5 has 10 × 12 × 14 = 1680
#   places (IXI), and there its block alone brings more than half of what all four bring; on LPBA it is half, on the
#   abdomen a seventh.
#
# On these brains nothing of what the block may bring comes from its clusters. **What this does not show:** these are small 2D
# networks, trained for 500 steps on synthetic slices. On real 3D scans, with longer training, adaptive kernels may
# earn their keep; the paper's numbers neither show it nor refute it, as the control is missing. (In the paper N from 5
# to 11 moves the Dice by .0008 on IXI.)
#
# The figure from the top shows all of it: switch off *no block*, then *1 cluster*, and compare the dots and the boxes that
# fade.

# %%
method_figure

# %% [markdown] tags=["instructor"]
# For the discussion: what would convince us of the clusters? (The control on the paper's own data; more seeds; a task
# where tissues really need different kernels.) And what is left of the paper if they do nothing? A small matching
# network with a reach that can be proven, which is not little.

# %% tags=["instructor"]
views = (map_of_brains, microscope, stepper, map_of_shapes, method_figure)
errors = [error for view in views for error in view.errors]
assert errors == [], f"no view had an error, here {errors}: run the view's cell again"

# %% [markdown]
# ## Make it yours
#
# SACB-Net in three dimensions, on tensors of your own, (1, 1, *space) of one size, intensities in [0, 1], and with a
# similarity of your own: any function or module of two images that is smaller, the better they agree. The encoder's
# widths are multiples of `width`. (`regkit.save` keeps no function: it refuses, and says what to do.)


# %%
def my_similarity(warped, fixed):
    return (warped - fixed).abs().mean()


my_pair = regkit.data.synthetic_pair(3, seed=1, size=(48, 48, 48))  # or regkit.types.Pair(…)
my_network = SACBNet(3, similarity=my_similarity, width=2, clusters=5)
my_recipe = training.Recipe(steps=training.steps(fast=1, full=5), batch=1, learning_rate=1e-3)
my_history = training.train(my_network, [my_pair], my_recipe)
with torch.no_grad():
    my_answer = my_network.eval()(my_pair.moving, my_pair.fixed)
print({name: f"{values[-1]:.3g}" for name, values in my_history.terms.items() if values})
assert my_answer.displacement.shape == (1, 3, 48, 48, 48), (
    f"one vector for each voxel, here {tuple(my_answer.displacement.shape)}: run this cell again"
)

# %% [markdown]
# ## Take away
#
# > * **Clusters** of local means sort places by similarity, not by position; no gradient passes.
# > * **Attention** times one shared kernel: a kernel for each cluster at the price of one convolution. One cluster is a
# >   plain convolution.
# > * **Soft argmax** matching looks arrows up instead of regressing them: sub-voxel, below one voxel of its level. Its
# >   sharpness is the strength of the features; normalise them and it goes blind.
# > * **Reach** comes from the pyramid: 2, 6, 14, 30 voxels.
# > * A fair **control** removes the idea and keeps the layers. Compare differences with the spread over seeds.
#
# **Next.** A pyramid by pooling throws fine detail away, level by level. A wavelet keeps it, and a gate can decide what
# of it to let through. *SM-GICNet.*
