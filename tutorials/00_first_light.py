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
# *A network learns, while you watch, to move one shape onto another. Then you look inside what it found.*
#
# **Goals.** After this notebook you can say what goes into a registration network and what comes out, read its loss,
# compare two images honestly, and find the places where a deformation goes wrong.
#
# **Before you start.** A little Python; what an image and a gradient are. Nothing about registration.
#
# **CPU.** Measured on two cores: about 15 s in fast mode, two minutes in full mode (the next cell says which is on). Set
# the environment variable `REGKIT_MODE` to `fast` or `full` before you start Jupyter to choose.
#
# A line that begins with `assert` is a claim of the text, checked while you run it.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, data, figures, metrics, models, training, widgets
from regkit.course.lessons import timelapse

course.begin(seconds={"fast": 15, "full": 120})

# %% [markdown]
# ## Two images, one question
#
# On the left the **moving** image, in the middle the **fixed** image. Registration asks: *where in the moving image does each
# voxel of the fixed image come from?* (A voxel is a pixel that may have a third axis; we always say voxel.) The right
# panel shows what is left to do.

# %%
pairs = data.ShapePairs(1024, size=64)  # triangles and circles: what the network learns from
held_out = data.ShapePairs(64, size=64, split="test")  # shapes that it never sees while it learns
pair = held_out[6]  # a triangle that is to become a circle
figures.show_pair(pair)

# %% [markdown]
# ### Predict
#
# A registration is written as one arrow for each voxel of the **fixed** image. Think of a voxel just inside the circle's edge,
# at a place where the triangle does not reach. Will its arrow point **inward**, towards the triangle, or **outward**, as
# the triangle has to grow?
#
# Commit to an answer: replace the dots by `"inward"` or `"outward"`. The field will tell.

# %% tags=["exercise"]
my_prediction = ...  # "inward" or "outward"

# %% tags=["solution"]
my_prediction = "inward"

# %% [markdown] tags=["instructor"]
# Most will say *outward*: they picture the triangle being pushed onto the circle. Let them. The contradiction with the arrows
# below is the whole of tutorial 02: warping **pulls**.

# %% [markdown]
# ## The whole idea in 25 lines
#
# A network looks at both images and answers with a *velocity* $v$. Take it for now as a recipe from which regkit computes the
# **displacement** $u$, the arrows (tutorial 05 explains it): $u(x)$ is the arrow at voxel $x$, in voxels. We judge the
# answer, not the network: fetch the moving image along the arrows, $\text{warped}(x) = \text{moving}(x + u(x))$, compare it
# with the fixed one, and charge a little for roughness:
#
# $$\mathcal{L} = \tfrac1N \sum_x \big(\text{moving}(x + u(x)) - \text{fixed}(x)\big)^2 \; + \; \lambda \, \operatorname{mean} |\nabla v|^2$$
#
# $N$ is the number of voxels; $\nabla v$ is how much $v$ differs between neighbouring voxels, and the mean of its square is
# taken over voxels, components of $v$ and directions; $\lambda$ says how dear that is. The right displacement is never
# given to the network. (Balakrishnan et al., VoxelMorph, 2019, eq. 2; the velocity: Dalca et al., 2019.)

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
# The same from regkit: a model gives a `Registration`, and `model.objective` its weighted terms by name: `mse`, the mean
# squared error, is the first term of the formula, and `diffusion` the second, the roughness. Their sum is the loss. We
# check that both agree, on a random smooth field that really moves something.

# %%
torch.manual_seed(0)
network = models.VoxelMorph(  # the sizes of the network are of no concern here
    dim=2, output="velocity", weight=WEIGHT, decoder_channels=(32, 32, 32, 32, 16)
)
wind = data.smooth_displacement((64, 64), amplitude=6, smoothness=8, diffeomorphic=False)
displacement = regkit.exponential(wind)  # the recipe: from velocity to displacement (tutorial 05)
blown = regkit.Registration(displacement=displacement, velocity=wind)

terms = network.objective(blown, pair.moving, pair.fixed)
by_hand = loss_by_hand(blown, pair.moving, pair.fixed)
warped = regkit.warp(pair.moving, blown.displacement)
furthest = blown.displacement.abs().max()
apart = (warped - pull(pair.moving, blown.displacement)).abs().max()
total = sum(terms.values())
assert furthest > 3, (
    f"the field moves something by more than 3 voxels, here {furthest:.1f}: run this cell again"
)
assert apart < 1e-5, f"pull is regkit.warp, here {apart:.1e} apart in intensity: was pull changed?"
assert torch.isclose(total, by_hand, rtol=1e-4), (
    f"the loss by hand is regkit's, here {by_hand:.6f} and {total:.6f}: was loss_by_hand changed?"
)
print({name: f"{value:.5f}" for name, value in terms.items()}, f"by hand: {by_hand:.5f}")

# %% [markdown]
# ## Watch it learn
#
# Three panels: the warped triangle of the held-out pair, the fixed circle, and the places $x + u(x)$ drawn on the triangle.
# They change while the network learns from *other* pairs. Start the next **two** cells, then look at this picture. You may
# interrupt the kernel when you have seen enough: what was learned is kept.

# %%
watch = timelapse.TimeLapse(network, pair)
watch

# %%
steps = training.steps(fast=100, full=1200)
recipe = training.Recipe(steps=steps, batch=8, learning_rate=3e-3, schedule="cosine")
history = training.train(network, pairs, recipe, callback=watch)
figures.show_history(history)

# %% [markdown]
# The first term falls because the pictures agree better. The second is far smaller, so it has a scale of its own. It
# *rises* from nothing, since a field that is zero everywhere is even. Movement alone costs nothing: if all voxels moved
# alike, $\nabla v$ would be 0. **Unevenness** costs, and a triangle does not become a circle without it. Later it falls
# again, as the network learns to do the same with a smoother field. The curves are ragged because each step sees other
# pairs. And a falling loss on the pairs it learns from says nothing about new ones.
#
# ## Did it learn, or did it memorise?
#
# Judge on shapes that it has never seen. **Dice** is the overlap of the two shapes, 1 for the same outline. $J$ is the
# matrix of the derivatives of $x + u(x)$, and $|J|$ its **determinant**: the factor by which the map locally changes
# area, with a sign. A **fold** is a voxel where it is zero or negative: the map is flattened or turned over there, which
# no tissue can be.

# %%
test = held_out[list(range(64))]
network.eval()
with torch.no_grad():
    found = network(test.moving, test.fixed)
score = metrics.evaluate(found, test)
print(f"Dice {score['dice_before']:.3f} before, {score['dice']:.3f} after;", end=" ")
print(f"folds {score['folds_percent']:.3f} % of the voxels")

complete = len(history) == steps  # False if you interrupt the training: less is promised then
needed = {"fast": 0.65, "full": 0.94}[training.mode()]
assert score["dice"] > needed > score["dice_before"] or not complete, (
    f"after {steps} steps Dice is above {needed}, and below it before, here {score['dice']:.3f} and "
    f"{score['dice_before']:.3f}: run the training's cell again, to its end"
)
assert score["folds_percent"] < 0.5 or not complete, (
    f"less than 0.5 % of the voxels fold, here {score['folds_percent']:.3f} %: "
    "run the training's cell again, to its end"
)

# %% [markdown]
# ## Look
#
# The question for any registration is not *does it look warped?* but *where is it still wrong?* Drag the **curtain**; let it
# **flicker** (the eye is a difference detector); then open the **field** and the **folds**.

# %%
with torch.no_grad():
    registration = network(pair.moving, pair.fixed)
explorer = widgets.explore(pair, registration)
explorer

# %% [markdown]
# In the tab *field*, choose *arrows*: each starts at a voxel of the fixed image and ends where its value is fetched in the moving
# one. Back to your prediction: take the voxels of the circle that the triangle does not cover, and ask whether their
# arrows lead towards the triangle's middle.

# %%
grid = regkit.fields.identity((64, 64))[0]  # (2, H, W): row and column of each voxel
covered = pair.moving_labels[0, 0] > 0
uncovered = (pair.fixed_labels[0, 0] > 0) & ~covered
to_middle = grid[:, covered].mean(1)[:, None] - grid[:, uncovered]  # (2, n)
arrows = registration.displacement[0][:, uncovered]  # (2, n)
inward = ((arrows * to_middle).sum(0) > 0).float().mean().item()  # dot product: same half-plane
said = "nothing yet" if my_prediction is ... else my_prediction
print(f"{100 * inward:.0f} % of these arrows point inward; you said: {said}")
assert inward > 0.5 or not complete, (
    f"most of these arrows point inward, here {100 * inward:.0f} %: "
    "run the training's cell again, to its end"
)

# %% [markdown]
# Warping **pulls**: to paint a voxel of the circle, it reaches *into* the triangle. The triangle grows because the arrows
# point inward.
#
# ## Break it
#
# A very common mistake: using the displacement backwards. What would you see?

# %%
figures.show_registration(pair, regkit.Registration(-registration.displacement))

# %% [markdown]
# **Symptom:** the shape moves the wrong way, and Dice here gets worse than doing nothing. **Mend:** `displacement` warps moving
# onto fixed; for the other direction use `registration.inverse`, which is not `-displacement` (tutorial 05 shows why).


# %%
def overlap(displacement):
    warped_labels = regkit.fields.warp_labels(pair.moving_labels, displacement)
    return metrics.dice(warped_labels, pair.fixed_labels)[1]


as_found = overlap(registration.displacement)
backwards = overlap(-registration.displacement)
nothing = overlap(torch.zeros_like(registration.displacement))
print(f"Dice: backwards {backwards:.3f}, nothing {nothing:.3f}, as found {as_found:.3f}")
assert backwards < nothing < as_found or not complete, (
    f"backwards is worse than nothing, and as found is better, here {backwards:.3f}, {nothing:.3f} and "
    f"{as_found:.3f}: run the training's cell again, to its end"
)

# %% [markdown]
# ## Exercise: be the network
#
# Here is another pair; its true deformation is known. The three corners of the bright triangle are numbered in the fixed image. Find the
# same corners in the moving image, and read their places off the axes, to about one voxel. The answer is a list of three
# `(row, column)` pairs, in the order 1, 2, 3.

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
# Beat your own error: the **target registration error** (TRE) is the mean distance between where a landmark is carried and where
# it belongs. In which order do you expect doing nothing, the network, and you?

# %%
with torch.no_grad():
    guess = network(known.moving, known.fixed).displacement
truth = regkit.fields.warp_points(check.LANDMARKS[None], known.displacement)
still = torch.zeros_like(guess)
error = {  # one voxel of this image is 1 mm wide
    "doing nothing": metrics.tre(still, check.LANDMARKS[None], truth, spacing=1.0).mean,
    "the network": metrics.tre(guess, check.LANDMARKS[None], truth, spacing=1.0).mean,
}
if check.landmarks(my_landmarks).colour == "green":
    yours = torch.as_tensor(my_landmarks) - truth[0]
    error["you"] = yours.norm(dim=1).mean().item()
print({name: f"{value:.1f} voxels" for name, value in error.items()})

# %% [markdown]
# The network learned on single shapes; three on top of each other are new to it. What to do about that is the subject of
# tutorial 06. If you stay ahead of it: can you also say where *all* 4096 voxels go, in a hundredth of a second?

# %% [markdown] tags=["instructor"]
# Without landmarks on faint edges people reach one voxel. In full mode the network lands between nothing and them (3.1 voxels
# against 4.9), in fast mode it is worse than nothing: a good moment to speak of a *shifted distribution*.

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
