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
# # 00 · First light
#
# *A network learns, while you watch, to lay one shape onto another. Then you look inside what it found.*
#
# **Goals.** After this notebook you can say what goes into a registration network and what comes out, watch its loss
# for the right reason, compare two images honestly, and find the places where a deformation goes wrong.
#
# **Before you start.** A little Python; what an image and a gradient are. Nothing about registration.
#
# **CPU.** Measured on two cores: about 15 s in fast mode, two minutes in full mode (the next cell says which is on).
# Set the environment variable `REGKIT_MODE` to `fast` or `full` before you start Jupyter to choose.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, data, figures, metrics, models, timelapse, training, widgets

course.begin(seconds={"fast": 15, "full": 120})

# %% [markdown]
# ## Two images, one question
#
# On the left the **moving** image, in the middle the **fixed** image. Registration asks: *where in the moving
# image does
# each voxel of the fixed image come from?* The right panel shows what is left to do.

# %%
pairs = data.ShapePairs(1024, size=64)  # triangles and circles: what the network learns from
held_out = data.ShapePairs(64, size=64, split="test")  # shapes that it never sees while it learns
pointed = held_out.shapes.pointed
onto_circle = pointed[held_out.moving] & ~pointed[held_out.fixed]
pair = held_out[int(onto_circle.nonzero()[0])]  # the first triangle that is to become a circle
figures.show_pair(pair)

# %% [markdown]
# ### Predict
#
# A registration is written as one arrow for each voxel of the **fixed** image. Think of a voxel just inside the
# circle's
# edge, at a place where the triangle does not reach. Will its arrow point **inward**, towards the triangle, or
# **outward**,
# as the triangle has to grow?
#
# Commit to an answer: replace the dots by `"inward"` or `"outward"`. The field will tell.

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "inward"

# %% [markdown] tags=["instructor"]
# Most will say *outward*: they picture the triangle being pushed onto the circle. Let them. The contradiction
# with the
# arrows below is the whole of tutorial 02: warping **pulls**.

# %% [markdown]
# ## The whole idea in 25 lines
#
# A network looks at both images and answers with a **velocity** $v$; integrating it gives the **displacement**
# $u$, in voxels. We
# judge the answer, not the network: warp the moving image, $\text{warped}(x) = \text{moving}(x + u(x))$,
# compare it with the fixed
# one, and charge a little for roughness:
#
# $$\mathcal{L} = \tfrac1N \sum_x \big(\text{moving}(x + u(x)) - \text{fixed}(x)\big)^2 \; + \; \lambda \,
# \operatorname{mean} |\nabla v|^2$$
#
# No one tells the network the right displacement. (Balakrishnan et al., VoxelMorph, 2019, eq. 2; the velocity:
# Dalca et al., 2019.)

# %%
WEIGHT = 0.002  # λ


def pull(image, displacement):
    """warped[x] = image[x + u(x)]; PyTorch's sampler wants (x, y) order and units of [-1, 1]."""
    size = image.shape[-1]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    places = torch.stack([rows, columns]) + displacement  # (B, 2, H, W), voxels
    grid = (2 * places / (size - 1) - 1).flip(1).movedim(1, -1)  # (B, H, W, 2)
    return F.grid_sample(image, grid, align_corners=True, padding_mode="border")


def loss_by_hand(registration, moving, fixed):
    misfit = ((pull(moving, registration.displacement) - fixed) ** 2).mean()
    velocity = registration.velocity
    roughness = ((velocity.diff(dim=2) ** 2).mean() + (velocity.diff(dim=3) ** 2).mean()) / 2
    return misfit + WEIGHT * roughness


# %% [markdown]
# The same from regkit: a model gives a `Registration`, and `model.objective` its named, weighted terms. Their
# sum is the
# loss. We check that both agree, on a network that has just been made.

# %%
torch.manual_seed(0)
network = models.VoxelMorph(
    dim=2, output="velocity", weight=WEIGHT, decoder_channels=(32, 32, 32, 32, 16)
)
registration = network(pair.moving, pair.fixed)
terms = network.objective(registration, pair.moving, pair.fixed)

by_hand = loss_by_hand(registration, pair.moving, pair.fixed)
assert torch.allclose(sum(terms.values()), by_hand, rtol=1e-4)
warped = regkit.warp(pair.moving, registration.displacement)
assert torch.allclose(warped, pull(pair.moving, registration.displacement), atol=1e-5)
print(
    {name: round(value.item(), 5) for name, value in terms.items()},
    "by hand:",
    round(by_hand.item(), 5),
)

# %% [markdown]
# ## Watch it learn
#
# Below, the warped triangle of the held-out pair is drawn while the network learns from *other* pairs.
# Interrupt the kernel whenever
# you have seen enough: what was learned is kept.

# %%
watch = timelapse.TimeLapse(network, pair)
watch

# %%
steps = training.steps(fast=100, full=1200)
recipe = training.Recipe(steps=steps, batch=8, learning_rate=3e-3, schedule="cosine")
history = training.train(network, pairs, recipe, callback=watch)
figures.show_history(history)

# %% [markdown]
# ## Did it learn, or did it memorise?
#
# Judge on shapes that it has never seen. **Dice** is the overlap of the two shapes, 1 for the same outline; a
# **fold** is a voxel where the
# map turns space inside out ($|J| \le 0$), which no tissue can do.

# %%
test = held_out[list(range(64))]
network.eval()
with torch.no_grad():
    found = network(test.moving, test.fixed)
score = metrics.evaluate(found, test)
print(f"Dice {score['dice_before']:.3f} before, {score['dice']:.3f} after;", end=" ")
print(f"folds {score['folds_percent']:.3f} %")

needed = {"fast": 0.65, "full": 0.97}[training.mode()]
assert score["dice"] > needed > score["dice_before"]
assert score["folds_percent"] < 0.1

# %% [markdown]
# ## Look
#
# The question for any registration is not *does it look warped?* but *where is it still wrong?* Drag the
# **curtain**; let it **flicker**
# (the eye is a difference detector); then open the **field** and the **folds**.

# %%
with torch.no_grad():
    registration = network(pair.moving, pair.fixed)
explorer = widgets.explore(pair, registration)
explorer

# %% [markdown]
# In the tab *field*, choose *arrows*: each starts at a voxel of the fixed image and ends where its value is
# fetched in
# the moving one. Back to your prediction: take the voxels of the circle that the triangle does not cover, and
# ask whether their arrows lead towards the triangle's middle.

# %%
grid = regkit.fields.identity((64, 64))[0]
covered = pair.moving_labels[0, 0] > 0
uncovered = (pair.fixed_labels[0, 0] > 0) & ~covered
to_middle = grid[:, covered].mean(1)[:, None] - grid[:, uncovered]
arrows = registration.displacement[0][:, uncovered]
inward = ((arrows * to_middle).sum(0) > 0).float().mean().item()
said = "nothing yet" if my_prediction is ... else my_prediction
print(f"{100 * inward:.0f} % of these arrows point inward; you said: {said}")
assert inward > 0.5

# %% [markdown]
# Warping **pulls**: to paint a voxel of the circle, it reaches *into* the triangle. The triangle grows because
# the arrows
# point inward.
#
# ## Break it
#
# The commonest mistake of all: using the displacement backwards. What would you see?

# %%
figures.show_registration(pair, regkit.Registration(-registration.displacement))

# %% [markdown]
# **Symptom:** the shape moves the wrong way, and Dice gets worse than doing nothing. **Mend:** `displacement`
# warps moving
# onto fixed; for the other direction use `registration.inverse`, which is not `-displacement` (tutorial 05
# shows why).


# %%
def overlap(displacement):
    warped_labels = regkit.fields.warp_labels(pair.moving_labels, displacement)
    return metrics.dice(warped_labels, pair.fixed_labels)[1]


as_found = overlap(registration.displacement)
backwards = overlap(-registration.displacement)
nothing = overlap(torch.zeros_like(registration.displacement))
print(f"Dice: backwards {backwards:.3f}, nothing {nothing:.3f}, as found {as_found:.3f}")
assert backwards < nothing < as_found

# %% [markdown]
# ## Exercise: be the network
#
# Here is another pair; its true deformation is known. The three corners of the bright triangle are numbered in
# the fixed image.
# Find the same corners in the moving image, and write down their places as `(row, column)`, read off the axes
# to about one voxel.

# %%
known = check.landmark_pair()
figure, axes = plt.subplots(1, 2, figsize=(11, 5.5), layout="compressed")
for panel, image, title in zip(axes, (known.fixed, known.moving), ("fixed", "moving"), strict=True):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set(title=title, xlabel="axis 1, column (voxels)", ylabel="axis 0, row (voxels)")
    panel.set(xticks=range(0, 64, 5), yticks=range(0, 64, 5))
    panel.grid(alpha=0.25)
for number, (row, column) in enumerate(check.LANDMARKS.tolist(), start=1):
    axes[0].plot(column, row, "o", color="#d55e00", fillstyle="none")
    note = {"facecolor": "#222222", "edgecolor": "none", "alpha": 0.7, "pad": 1.5}
    place = f"{number}: ({row:.0f}, {column:.0f})"
    axes[0].text(column - 2, row, place, color="#ffb000", ha="right", va="center", bbox=note)

# %% tags=["exercise"]
my_landmarks = ...  # [(row, column), (row, column), (row, column)]

# %% tags=["solution"]
my_landmarks = [(13, 49), (44, 56), (35, 26)]

# %%
check.landmarks(my_landmarks)

# %% [markdown]
# Beat your own error: the **target registration error** (TRE) is the mean distance between where a landmark is
# carried and where it
# belongs. Is the network, trained on other pictures, better than your eye?

# %%
with torch.no_grad():
    guess = network(known.moving, known.fixed).displacement
truth = regkit.fields.warp_points(check.LANDMARKS[None], known.displacement)
error = {
    "doing nothing": metrics.tre(
        torch.zeros_like(guess), check.LANDMARKS[None], truth, spacing=1
    ).mean,
    "the network": metrics.tre(guess, check.LANDMARKS[None], truth, spacing=1).mean,
}
if my_landmarks is not ...:
    yours = torch.tensor(my_landmarks, dtype=torch.float32) - truth[0]
    error["you"] = yours.norm(dim=1).mean().item()
print({name: f"{value:.1f} mm" for name, value in error.items()})

# %% [markdown] tags=["instructor"]
# Without landmarks on faint edges people reach one voxel. In full mode the network lands between nothing and
# them: it has seen
# single shapes, never three on top of each other. That is a *shifted distribution*, the subject of tutorial 06.

# %% [markdown]
# ## Take away
#
# > * A registration network maps **two images to one displacement field**; the loss compares *images*, so no
# >   true field is needed.
# > * Warping **pulls**: `warped[x] = moving[x + u(x)]`. Arrows live on the fixed grid and point into the moving
# >   image.
# > * Look at **what is left** (curtain, flicker, difference) and at **the field** (grid, |J|, folds), never
# >   only at the warped image.
# > * Judge on pairs that were **held out**.
#
# **Next.** We spoke of *voxels* as if everyone meant the same by a place in an image. They do not: index,
# voxel, millimetre,
# $[-1, 1]$. *Where is a pixel?*
