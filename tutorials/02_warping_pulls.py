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
# # 02 · Warping pulls
#
# *Every arrow points to the right, and the image moves to the left. Once this no longer surprises you, a common sign
# error of registration is easy to see.*
#
# **Goals.** After this notebook you can say which way an image goes under a displacement, and why. You can warp images,
# labels and points, each the right way. And you can join two deformations into one without blurring the image.
#
# **Before you start.** Tutorial 01, or this one sentence: a place is (row, column) in voxels, voxel centres are at
# whole numbers, and between them an image is read as a mean of the four nearest voxels. The nearest counts most.
#
# **Time.** You: about 60 minutes. A CPU (measured on two cores): about 9 s in either mode. Nothing is trained here.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import regkit
from regkit import check, course, fields, figures
from regkit.course import league
from regkit.course.lessons import t02_warping_pulls as lesson

course.begin(seconds={"fast": 9, "full": 9}, minutes=60)

# %% [markdown]
# ### Three questions on what was before
#
# 1. `grid_sample` of torch takes (x, y). Along which axis does x run?
#    * a: Along the last one, the columns.
#    * b: Along the first one, the rows.
#    * c: Along the last one, counted in voxels.
# 2. Where is the half-pixel error largest?
#    * a: In the middle.
#    * b: At the border.
#    * c: It is the same everywhere.
# 3. From RAS to LPS,
#    * a: the mm stay as they are.
#    * b: the third number changes its sign.
#    * c: the first two numbers change their sign.
#
# Answer by three letters.

# %% tags=["exercise"]
my_recap = ...  # such as "abc"

# %% tags=["solution"]
my_recap = "abc"

# %%
check.recap_02(my_recap)

# %% [markdown] tags=["instructor"]
# Talk 10 minutes, work 50. Answers to expect. Predict: *right* from most, *left* is right. The landmark: $q + u(q)$
# first, then $q - u(q)$; the inverse is right.

# %% [markdown]
# ## All arrows to the right
#
# Here is a letter F, and a displacement $u$ that is the same everywhere: 10 voxels along axis 1, to the right. The rule
# of warping is one line (in regkit it is written at the top of `fields.py`):
#
# $$\text{warped}(x) = \text{moving}\big(x + u(x)\big)$$

# %%
letter = torch.zeros(1, 1, 64, 64)
letter[..., 12:52, 20:27] = 1  # the stem of the F
letter[..., 12:19, 20:46] = 1  # its upper stroke
letter[..., 28:35, 20:40] = 1  # its lower stroke

to_the_right = torch.zeros(1, 2, 64, 64)
to_the_right[:, 1] = 10

figure, axes = plt.subplots(figsize=(4.4, 4.2), layout="compressed")
axes.imshow(letter[0, 0], cmap="gray", vmin=0, vmax=1.6)
for row in range(6, 64, 10):
    for column in range(4, 52, 12):
        axes.annotate(
            "",
            (column + 10, row),
            (column, row),
            arrowprops={"arrowstyle": "->", "color": "#56b4e9", "lw": 1.6},
        )
axes.set(title="moving, and u", xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
ends = to_the_right.amin((0, 2, 3)).tolist(), to_the_right.amax((0, 2, 3)).tolist()
assert ends == ([0, 10], [0, 10]), (
    f"every arrow is 0 down and 10 to the right, here from {ends[0]} to {ends[1]}: run this cell again"
)

# %% [markdown]
# ### Predict
#
# We warp the letter with this displacement. Which way does the F go: `"left"` or `"right"`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "left"


# %%
def middle(image):
    """The brightness-weighted mean position (row, column), voxels."""
    grid = fields.identity(image.shape[2:])  # (1, 2, H, W): row and column of each voxel
    return (grid * image).sum((2, 3))[0] / image.sum()


warped = regkit.warp(letter, to_the_right)
down, right = (middle(warped) - middle(letter)).tolist()
print(f"the F went {right:+.0f} voxels along axis 1")
print("you said:", "nothing yet" if my_prediction is ... else my_prediction)
assert abs(right + 10) < 1e-3 and abs(down) < 1e-3, (
    f"the F goes 10 voxels to the left and not down, here {right:+.3f} and {down:+.3f}: "
    "run all cells from the top"
)

# %% [markdown]
# To the **left**. The arrow belongs to a voxel of the *result*, and it says where that voxel **fetches** its value: ten
# voxels further to the right. Everything that is fetched from the right arrives further left. Warping **pulls**.
#
# Think of a displacement as a *shopping list*, not a delivery note: each voxel of the result writes down where to fetch
# its value.

# %% [markdown] tags=["instructor"]
# Nearly everyone says right, and those who say left often know it by heart. Let two students act it out: one is the
# image, one the grid of the result. The one who walks is the grid. Then ask which sign a *camera* has that pans to the
# right: the scene moves left. That picture stays.

# %% [markdown]
# ## Why not simply push?
#
# One could carry each voxel of the moving image *along* its arrow. Write both ways yourself: replace each `...`. The line
# above a function, `@check...`, judges it at once. Until it is right, the notebook goes on with the solution.


# %%
@check.push_by_hand
def push_by_hand(image, u):
    """Carry each voxel along its arrow, to the nearest voxel. image: (H, W); u: (2, H, W), voxels."""
    height, width = image.shape
    pushed = torch.full_like(image, torch.nan)  # NaN: nothing has arrived here
    for row in range(height):
        for column in range(width):
            # where the voxel (row, column) goes along axis 0 and axis 1, rounded to whole numbers
            # u[0, row, column].item() is its arrow along axis 0
            down = ...
            right = ...
            if 0 <= down < height and 0 <= right < width:
                pushed[down, right] = image[row, column]
    return pushed


# %% [markdown]
# To pull, a voxel reads *between* four voxels. `a` and `b` say how far the place is below and to the right of the first
# of them, from 0 to 1. In the mean of the four, a nearer voxel counts more. This mean is a product: weights of the two
# rows, times `four`, times weights of the two columns.


# %%
@check.pull_by_hand
def pull_by_hand(image, u):
    """Each voxel fetches what lies where its arrow ends. image: (H, W); u: (2, H, W), voxels."""
    height, width = image.shape
    warped = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            down, right = ..., ...  # where this voxel reads: two numbers, not rounded
            # outside, the border goes on
            down, right = min(max(down, 0), height - 1), min(max(right, 0), width - 1)
            top, left = min(int(down), height - 2), min(int(right), width - 2)
            four = image[top : top + 2, left : left + 2]  # the voxels around it
            a, b = ..., ...  # how far (down, right) is from (top, left)
            # weights of the two rows, as a tensor, @ four @ weights of the two columns
            warped[row, column] = ...
    return warped


# %% [markdown]
# Now make the F 1.6 times as large, and turn it by 20°. To *push* it there, arrows lead from the old place to the new one.
# To *pull*, they lead from the new place back to the old one (the inverse map).


# %%
def turn_and_scale(degrees, scale):
    """φ(x) = A (x - c) + c about the middle c of the image, as a displacement."""
    angle = torch.deg2rad(torch.tensor(degrees))
    a, b = scale * angle.cos(), scale * angle.sin()
    zero = 0 * a  # no shift
    matrix = torch.stack([torch.stack([a, -b, zero]), torch.stack([b, a, zero])])
    return fields.affine_displacement(matrix[None], (64, 64))


# %%
out, back = turn_and_scale(20.0, 1.6), turn_and_scale(-20.0, 1 / 1.6)
pushed = push_by_hand(letter[0, 0], out[0])
pulled = pull_by_hand(letter[0, 0], back[0])
holes = int(pushed.isnan().sum())

figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), layout="compressed")
greys = plt.get_cmap("gray").with_extremes(bad="#ff5a00")
for panel, image, title in (
    (axes[0], letter[0, 0], "moving"),
    (axes[1], pushed, f"pushed: {holes} holes (orange)"),
    (axes[2], pulled, "pulled: no holes"),
):
    panel.imshow(np.ma.masked_invalid(image.numpy()), cmap=greys, vmin=0, vmax=1)
    panel.set(title=title, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
missing = int(pulled.isnan().sum())
assert holes > 1000 and missing == 0, (
    f"pushing leaves more than 1000 holes, pulling none, here {holes} and {missing}: run this cell again"
)

# %% [markdown]
# Pushing leaves **holes** where the map spreads voxels out. Where it brings them together, one **overwrites** another.
# Below we push the F along the arrows `back`, which shrink it, and count. Pulling computes each voxel of the result exactly
# once, so each gets exactly one value. That is why nearly every program pulls.

# %%
shrunk = push_by_hand(letter[0, 0], back[0])  # none of the 64 × 64 voxels leaves the image
overwritten = 64 * 64 - int((~shrunk.isnan()).sum())
print(f"pushed to a smaller F: {overwritten} of {64 * 64} values were overwritten")
assert overwritten > 1000, (
    f"more than 1000 values are overwritten, here {overwritten}: run this cell again"
)
arrives = fields.identity((64, 64)) + back
assert arrives.min() >= 0 and arrives.max() <= 63, (
    f"no voxel leaves the image, here they arrive from {arrives.min():.1f} to {arrives.max():.1f}: "
    "run all cells from the top"
)

# %% [markdown]
# The same from regkit:

# %%
apart = (pulled - regkit.warp(letter, back)[0, 0]).abs().max()
assert apart < 1e-4, (
    f"pulling by hand is regkit.warp, here {apart:.1e} apart: was pull_by_hand changed?"
)
regkits = lesson.push(letter, out)
differ = int(((pushed.numpy() != regkits) & ~(pushed.isnan().numpy() & np.isnan(regkits))).sum())
assert differ == 0, (
    f"pushing by hand is regkit's, here {differ} voxels differ: was push_by_hand changed?"
)

# %% [markdown]
# ## Which way does the image go?
#
# Move the arrow. At the left is the result, on the fixed grid: here the arrows start. One voxel is marked. At the right is
# the moving image, and the mark shows what that voxel fetches. (The blue outline is where the letter was.) Two things to
# try:
#
# * Before each move, say aloud where the F will go.
# * Choose *around the middle*, so that the arrows fade outwards, and *push instead*. On which side do the holes appear?

# %%
viewer = lesson.arrow_viewer(letter)
viewer

# %% [markdown]
# Your answer? Mostly *behind* the push: for an arrow to the right, at the left. There each voxel goes further
# than its left neighbour, so gaps open between them. In front the voxels crowd, and overwrite each other.

# %%
squared = ((fields.identity((64, 64)) - 31.5) ** 2).sum(1)
fading = torch.zeros(1, 2, 64, 64)
fading[:, 1] = 12 * torch.exp(-squared / (2 * 16**2))  # 12 voxels in the middle, fading over 16
behind, in_front = np.hsplit(np.isnan(lesson.push(letter, fading)), 2)
print(f"holes: {behind.sum()} behind, {in_front.sum()} in front")
assert behind.sum() > 100 and in_front.sum() < 0.2 * behind.sum(), (
    "more than 100 holes behind, less than a fifth of them in front, here "
    f"{behind.sum()} and {in_front.sum()}: run this cell again"
)

# %% [markdown]
# > **A good place to pause** (about 30 minutes so far). After the break: *Run* → *Run All Above Selected Cell*.
#
# ## Between the voxels
#
# $x + u(x)$ rarely hits a voxel's centre, so the value in between has to be made up: **nearest** takes the closest
# voxel, **linear** a weighted mean of the closest 4 (3D: 8), **cubic** of the closest 16 (3D: 64). Here is a slice of a
# real scan, turned by 5° and back again. What is lost? Our measure of fine **detail**: take the differences of
# neighbours along axis 1, and their variance.

# %%
brain = check.brain_slice()  # (1, 1, 96, 96), the slice of tutorial 01, forehead up
radius = (fields.identity((96, 96)) - 47.5).norm(dim=1, keepdim=True)
inside = radius < 44  # stays in view when turned


def detail(image):
    """The variance of the differences between neighbours along axis 1."""
    return image.diff(dim=-1)[inside[..., 1:]].var().item()


# %%
figure, axes = plt.subplots(1, 4, figsize=(12.5, 3.5), layout="compressed")
axes[0].imshow(brain[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set(title="before", xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
kept, home = {}, {}
for panel, mode in zip(axes[1:], ("nearest", "linear", "cubic"), strict=True):
    there = regkit.warp(brain, check.turn(5), mode=mode)
    again = regkit.warp(there, check.turn(-5), mode=mode)
    kept[mode] = detail(again) / detail(brain)
    home[mode] = (again == brain)[inside].float().mean().item()
    shown = panel.imshow((again - brain)[0, 0], cmap="PuOr", vmin=-0.2, vmax=0.2)
    panel.set(title=f"{mode}\ndetail kept: {kept[mode]:.0%}", xlabel="axis 1 (voxels)", yticks=())
figure.colorbar(shown, ax=axes[-1], label="there and back, minus before")

# %%
assert kept["linear"] < 0.6 < kept["cubic"] < 0.9 < kept["nearest"], (
    "linear keeps less than 60 % of the detail, cubic less than 90 %, nearest more, here "
    f"{kept}: run this cell again"
)
assert home["nearest"] > 0.9, (
    f"with nearest more than 90 % of the values come home, here {100 * home['nearest']:.0f} %: "
    "run this cell again"
)

# %% [markdown]
# Surprised? *Linear*, the usual choice, loses about **half of this variance** in two turns of 5°: each value is a mean
# of its neighbours, and what averaging removes is lost in practice. But the test flatters *nearest*: it only moves
# values, so most of them come home. Turn the F **once**:

# %%
figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.9), layout="compressed")
once_turned = {}
for panel, mode in zip(axes, ("nearest", "linear", "cubic"), strict=True):
    image = once_turned[mode] = regkit.warp(letter, turn_and_scale(10.0, 1.0), mode=mode)
    shown = panel.imshow(image[0, 0], cmap="gray", vmin=-0.15, vmax=1.15)
    panel.set(title=f"{mode}: values {image.min():.2f} to {image.max():.2f}")
    panel.set(xlim=(15.5, 51.5), ylim=(33.5, 5.5), xlabel="axis 1 (voxels)")
axes[0].set(ylabel="axis 0 (voxels)")
figure.colorbar(shown, ax=axes[-1], label="intensity")

values = once_turned["nearest"].unique().tolist()
assert values == [0, 1], (
    f"nearest is jagged, with nothing between 0 and 1, here {values}: run this cell again"
)
lowest, highest = once_turned["linear"].min(), once_turned["linear"].max()
assert lowest >= 0 and highest < 1 + 1e-5, (
    f"linear stays within 0 and 1, here {lowest:.3f} to {highest:.3f}: run this cell again"
)
lowest, highest = once_turned["cubic"].min(), once_turned["cubic"].max()
assert lowest < -0.05 and highest > 1.05, (
    f"cubic overshoots by more than 0.05 on both sides, here {lowest:.3f} to {highest:.3f}: "
    "run this cell again"
)

# %% [markdown]
# *Nearest* makes jagged edges. *Cubic* keeps more than linear, but costs 16 reads a voxel (3D: 64), not 4 (3D: 8), and
# it **overshoots** at edges: darker than black, brighter than white. And with *nearest* a small motion does nothing at
# all, and what does nothing has no slope to learn from:

# %%
shift = torch.zeros(1, 2, 96, 96)
shift[:, 1] = 0.4
with_nearest = (regkit.warp(brain, shift, mode="nearest") - brain).abs().max()
assert with_nearest == 0, (
    f"0.4 voxels change nothing with nearest, here {with_nearest:.1e}: run all cells from the top"
)
changed = (regkit.warp(brain, shift) - brain).abs().mean().item()
print(f"0.4 voxels to the side change nothing with nearest, {changed:.3f} on average with linear")
assert changed > 0.01, (
    f"with linear they change 0.01 on average, here {changed:.3f}: run this cell again"
)

# %% [markdown]
# So images are usually read linearly. The blur is kept small in another way: **interpolate an image once.**
#
# ## Compose, do not resample twice
#
# Warp an image by $u$, then the result by $v$. At $x$, the last image fetches from $y = x + v(x)$ in the one between.
# That one, at $y$, has fetched from $y + u(y)$ in the first. So the value comes from $x + v(x) + u(y)$, and one
# displacement does both:
#
# $$\text{compose}(u, v)(x) = v(x) + u(y), \qquad y = x + v(x)$$
#
# The second term is the field $u$, warped by $v$: by hand it is one line, yours. As maps, with $\varphi_u(x) = x + u(x)$, this
# is the displacement of $\varphi_u \circ \varphi_v$. (The Diffeomorphic Demons of Vercauteren et al., 2009, join their
# updates in this way.)


# %%
@check.compose_by_hand
def compose_by_hand(u, v):
    """One displacement for two warps, first by u and then by v; all (1, 2, H, W), voxels."""
    return ...  # one line


# %%
u = check.turn(40)
stretch = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.7, 12.5]]])  # along axis 1, and a shift
v = fields.affine_displacement(stretch, (96, 96))
apart = (compose_by_hand(u, v) - regkit.compose(u, v)).abs().max()
assert apart < 1e-4, (
    f"compose by hand is regkit's, here {apart:.1e} voxels apart: run this cell again"
)

# %%
twice = regkit.warp(regkit.warp(brain, u), v)
once = regkit.warp(brain, regkit.compose(u, v))
added = regkit.warp(brain, u + v)
other_order = regkit.warp(brain, regkit.compose(v, u))

# %%
figure, axes = plt.subplots(1, 4, figsize=(12.5, 3.5), layout="compressed")
for panel, image, title in (
    (axes[0], twice, "two warps (the reference)"),
    (axes[1], once, "compose(u, v), one warp"),
    (axes[2], added, "u + v: wrong place"),
    (axes[3], other_order, "compose(v, u): wrong place"),
):
    off = (image - twice)[inside].abs().mean()
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    below = "" if image is twice else f"mean difference from it {off:.3f}"
    panel.set(title=f"{title}\n{below}", xticks=(), yticks=())
right = (once - twice)[inside].abs().mean()
wrong = min((image - twice)[inside].abs().mean() for image in (added, other_order))
assert right < 0.03 and wrong > 0.1, (
    "composed it is the picture of two warps within 0.03, the other two are 0.1 off, here "
    f"{right:.3f} and {wrong:.3f} at least: run this cell again"
)

# %% [markdown]
# The first two put everything in the same place, but the second is sharper:

# %%
print(f"detail after two warps {detail(twice):.4f}, after one composed warp {detail(once):.4f}")
assert detail(once) > 1.2 * detail(twice), (
    f"one warp keeps 20 % more detail, here {100 * detail(once) / detail(twice) - 100:.0f} %: "
    "run the cell above again"
)

# %% [markdown]
# ## Labels: fetch, never mix
#
# A label is a name, not a number. The mean of *ventricle* (1) and *skull* (3) is not *cortex* (2).
#
# ### Break it
#
# Warp labels like an image, with linear interpolation, and round.

# %%
labels = torch.zeros(1, 1, 64, 64, dtype=torch.long)
labels[..., 10:54, 10:54] = 3
labels[..., 22:42, 22:42] = 1  # 1 lies inside 3; there is no 2

motion = turn_and_scale(25.0, 0.9)
invented = regkit.warp(labels.float(), motion).round().long()
fetched = fields.warp_labels(labels, motion)

figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="compressed")
colours = plt.get_cmap("viridis", 4)
for panel, image, title in (
    (axes[0], labels, "labels"),
    (axes[1], invented, "warped linearly: a 2 between 3 and 1"),
    (axes[2], fetched, "fields.warp_labels"),
):
    shown = panel.imshow(image[0, 0], cmap=colours, vmin=-0.5, vmax=3.5, interpolation="nearest")
    panel.set(title=title, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
figure.colorbar(shown, ax=axes[2], ticks=range(4), label="label")

there = [image.unique().tolist() for image in (labels, invented, fetched)]
assert there == [[0, 1, 3], [0, 1, 2, 3], [0, 1, 3]], (
    f"linear interpolation invents a label 2, warp_labels none, here {there}: run this cell again"
)

# %% [markdown]
# **Symptom:** thin rims of a structure that does not exist.
# **Fix:** `fields.warp_labels` fetches the nearest label. A second way: make one mask for each
# label, 1 inside and 0 outside (**one-hot**), warp the masks linearly, and give each voxel the label whose mask is
# largest there. Write the last step:


# %%
@check.largest_by_hand
def largest_by_hand(labels, u, names):
    """Warp labels by the largest share. labels: (1, 1, H, W), of `names`; u: (1, 2, H, W), voxels."""
    masks = (labels == names.view(1, -1, 1, 1)).float()  # (1, names, H, W)
    # warp the masks; .argmax(dim=1, keepdim=True) says which is largest; names[...] is its label
    return ...


# %%
largest = largest_by_hand(labels, motion, torch.tensor([0, 1, 3]))
same = (largest == fetched).float().mean()
assert largest.unique().tolist() == [0, 1, 3] and same > 0.98, (
    f"the largest share invents nothing and agrees at 98 %, here {largest.unique().tolist()} and "
    f"{100 * same:.1f} %: run the cell above again"
)

# %% [markdown]
# ## Points go the other way
#
# An image is pulled: the arrow at $x$ *in the fixed grid* points to the place *in the moving image*. So a **point of
# the fixed image** is carried by the same arrow, forwards, into the **moving** image:
#
# $$p_\text{moving} = p_\text{fixed} + u(p_\text{fixed})$$
#
# `fields.sample(u, places)` reads $u$ between the voxels: `places` is (1, 2, N, 1), rows and columns in axis 1, and so is
# what it gives.


# %%
@check.carry_by_hand
def carry_by_hand(points, u):
    """Points of the fixed image in the moving image. points: (N, 2), row and column; u: (1, 2, H, W), voxels."""
    arrows = ...  # u at the points, as (2, N): `points.T[None, ..., None]` are the places
    return ...  # one arrow for each point: arrows.T


# %%
pair = check.carrying_pair()  # a pair whose true displacement is known
points = torch.tensor([[[20.0, 24.0], [30.0, 46.0], [45.0, 30.0]]])  # in the fixed image
carried = fields.warp_points(points, pair.displacement)  # in the moving image
missed = (carry_by_hand(points[0], pair.displacement) - carried[0]).abs().max()
assert missed < 1e-4, (
    f"points by hand are regkit's, here {missed:.1e} voxels apart: was the function changed?"
)

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="compressed")
for panel, image, places, title in (
    (axes[0], pair.fixed, points, "fixed: p"),
    (axes[1], pair.moving, carried, "moving: p + u(p)"),
):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set(title=title, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
    for number, (row, column) in enumerate(places[0].tolist(), start=1):
        panel.plot(column, row, "o", color="#ffb000", fillstyle="none", markersize=9, mew=2)
        note = {"facecolor": "#222222", "edgecolor": "none", "alpha": 0.7, "pad": 1.5}
        panel.text(column + 2.5, row, str(number), color="#ffb000", va="center", bbox=note)

# %%
places = carried.movedim(-1, 1)[..., None]  # (1, 2, 3, 1), as `sample` wants them
there = fields.sample(pair.moving, places).flatten()
here = pair.fixed[0, 0][points[0, :, 0].long(), points[0, :, 1].long()]
print("intensity at p in fixed:         ", here.numpy().round(3))
print("intensity at p + u(p) in moving: ", there.numpy().round(3))
apart = (here - there).abs().max()
assert apart < 1e-5, (
    f"both places have one intensity, here {apart:.1e} apart: run all cells from the top"
)

# %% [markdown]
# The intensities agree by the definition of the warp, read at three places. Is this luck, since a flat part has one value
# at many places? Test it at places where the fixed image has an edge: there a wrong arrow would read another value.

# %%
steep = sum(torch.gradient(pair.fixed[0, 0])[axis].square() for axis in (0, 1))
edges = steep.flatten().topk(60).indices  # the 60 steepest voxels
edges = torch.stack([edges // 64, edges % 64], 1).float()
value = pair.fixed[0, 0][edges[:, 0].long(), edges[:, 1].long()]
arrows = carry_by_hand(edges, pair.displacement) - edges
off = {}
for sign in (1, -1):
    read = fields.sample(pair.moving, (edges + sign * arrows).T[None, ..., None]).flatten()
    off[sign] = (read - value).abs().mean().item()
print(f"at edges p + u(p) is {off[1]:.4f} off in intensity, p - u(p) is {off[-1]:.4f} off")
assert off[1] < 1e-4 and off[-1] > 0.03, (
    "at edges the right arrow reads the same value, the wrong one is more than 0.03 off, here "
    f"{off[1]:.1e} and {off[-1]:.3f}: was carry_by_hand changed?"
)

# %% [markdown]
# It is no luck.
#
# ## Exercise 1: a full circle
#
# Turn the brain by 5°, 72 times: a full circle, so it should come back as it was. `check.turn(5)` is the displacement
# of one turn. Fill in both answers; each is an image, (1, 1, 96, 96).
#
# * `resampled`: start from `brain`, and warp the *image* 72 times, always the last result.
# * `composed`: start from no displacement, `torch.zeros(1, 2, 96, 96)`, compose it 72 times with one turn, and warp
#   `brain` once.

# %% tags=["exercise"]
resampled = ...
composed = ...

# %% tags=["solution"]
resampled = brain
displacement = torch.zeros(1, 2, 96, 96)
for _ in range(72):
    resampled = regkit.warp(resampled, check.turn(5))
    displacement = regkit.compose(displacement, check.turn(5))
composed = regkit.warp(brain, displacement)

# %%
check.turned((resampled, composed))

# %%
answers = (resampled, composed)
if all(torch.is_tensor(image) and image.shape == brain.shape for image in answers):
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.9), layout="compressed")
    for panel, image, title in (
        (axes[0], brain, "before"),
        (axes[1], resampled, "72 warps"),
        (axes[2], composed, "72 compositions, 1 warp"),
    ):
        panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
        panel.set(title=f"{title}\ndetail {detail(image):.4f}", xticks=(), yticks=())

# %% [markdown] tags=["instructor"]
# Those who add displacements (72 times `check.turn(5)`) get a tiny brain, six times smaller (the
# arrows are so long that the map reads six times as far out), and turned: good to show. Ask why the
# composed field is exact here: an affine displacement is linear in $x$, and linear interpolation is exact for that. For
# a curved field composition does lose a little each time; the field is smooth, so it loses far less than an image.
# Corners differ: there the turned image reads outside. The check looks within a circle.

# %% [markdown]
# ## Exercise 2: a landmark, the right way
#
# A radiologist has marked a point `q` in the **moving** image of the same `pair`. Where is it in the **fixed** image?
# Give `my_place`, two numbers, to 0.3 voxels. You have `pair.displacement`, (1, 2, 64, 64), which leads from fixed to
# moving; you need the way back. Two functions may help: `regkit.invert(displacement)` and
# `fields.warp_points(points, displacement)`, whose points are (1, N, 2).

# %%
q = check.MARKED_POINT  # (row, column) in the moving image
print("in the moving image:", q.tolist())
shape = tuple(pair.displacement.shape)
assert shape == (1, 2, 64, 64), (
    f"the displacement is (1, 2, 64, 64), here {shape}: is `pair` another?"
)

# %% tags=["exercise"]
my_place = ...  # (row, column) in the fixed image

# %% tags=["solution"]
inverse = regkit.invert(pair.displacement)
my_place = fields.warp_points(q[None, None], inverse)[0, 0]

# %%
check.landmark_in_fixed(my_place)

# %% [markdown]
# You can test any answer yourself: sent forwards again, it has to arrive at `q`.

# %%
if np.asarray(my_place).size == 2:
    sent = torch.as_tensor(my_place, dtype=torch.float32).view(1, 1, 2)
    arrived = fields.warp_points(sent, pair.displacement)[0, 0]
    print("your place, sent forwards, arrives at", arrived.numpy().round(2), "wanted:", q.numpy())

# %% tags=["instructor"]
way_back = fields.warp_points(q[None, None], regkit.invert(pair.displacement))[0, 0]
minus_u = 2 * q - fields.warp_points(q[None, None], pair.displacement)[0, 0]
print(f"q - u(q) misses by {(way_back - minus_u).norm():.1f} voxels")
off, missed = (arrived - q).norm(), (way_back - minus_u).norm()
assert off < 0.02 and missed > 1, (
    f"the solution arrives within 0.02 voxels, q - u(q) misses by more than 1, here {off:.3f} and {missed:.2f}"
)

# %% [markdown] tags=["instructor"]
# The usual answers, in this order: $q + u(q)$ (wrong way), $q - u(q)$ (right way, $u$ read at the wrong place). The
# second is a good first step of an iteration, $p \leftarrow q - u(p)$, and is exactly what an inverse does. That $-u$
# is no inverse is the subject of tutorial 05.

# %% [markdown]
# ## One pair through the course
#
# Landmarks register, too. Suppose that an expert has marked the middle of each structure in both images of the course's two
# pairs. Which affine map carries the points of the fixed image to those of the moving image? `torch.linalg.lstsq` finds the
# one with the least squared error.

# %%
PAIRS = league.pairs()


def through_landmarks(pair):
    """The displacement of the affine map that fits the landmarks best, (1, 2, 64, 64), voxels."""
    in_moving, in_fixed = league.landmarks(pair)  # (N, 2) each
    known = torch.cat([in_fixed, torch.ones(len(in_fixed), 1)], 1)  # (N, 3)
    matrix = torch.linalg.lstsq(known, in_moving).solution.T  # (2, 3)
    grid = fields.identity((64, 64))
    # the matrix times each place, and the shift
    moved = torch.einsum("ij,bjhw->bihw", matrix[:, :2], grid) + matrix[:, 2].view(1, 2, 1, 1)
    return moved - grid


found = {name: through_landmarks(each) for name, each in PAIRS.items()}
figures.show_registration(PAIRS["brains"], regkit.Registration(found["brains"]))

# %%
table = league.enter("02", "landmarks, an affine map", found)
nothing, fitted = (table.rows[key] for key in (("", "doing nothing", ""), table.latest))
assert fitted[0] > nothing[0] + 0.15 and fitted[3] > nothing[3] + 0.15, (
    "landmarks gain 0.15 of Dice for both pairs, here from "
    f"{nothing[0]:.2f} to {fitted[0]:.2f} and from {nothing[3]:.2f} to {fitted[3]:.2f}: run this section's cells again"
)
table

# %% [markdown]
# Points of the fixed image go forwards, into the moving image, so the fitted map *is* $x + u(x)$. The map is good where an
# affine map can be. But somebody has to mark the points. Can the images do without?
#
# ## Take away
#
# > * **Warping pulls:** `warped[x] = moving[x + u(x)]`. Arrows to the right, image to the left.
# > * **Arrows live on the fixed grid and point into the moving image.** Images come back along them, points of the
# >   fixed image go forward along them: `p + u(p)`. Points of the *moving* image need the **inverse**.
# > * **Compose displacements, warp once:** `compose(u, v) = v + warp(u, v)`. They do not add, and order matters.
# > * Images: linear. **Labels: nearest.** Points: no image is read, but $u$ is, linearly, at $p$.
#
# **Next.** We can move an image anywhere. But what is a *good* place? A computer needs one number, and that number
# can lie.
