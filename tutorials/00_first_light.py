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
# *A network learns, while you watch, to move one shape onto another. Then you look at what it found.*
#
# **Goals.** After this notebook you can say what goes into a registration network and what comes out. You can write its
# loss, compare two images honestly, and find the places where a deformation goes wrong.
#
# **Before you start.** A little Python; what an image and a gradient are. Nothing about registration or PyTorch.
#
# **Time.** You: about 45 minutes. A CPU (measured on two cores): about 17 s in fast mode, 125 s in full mode. The next
# cell says which mode is on, and how to choose the other one.
#
# A line that begins with `assert` checks a claim of the text while you run it.

# %%
import copy

import matplotlib.pyplot as plt
import torch

import regkit
from regkit import check, course, data, fields, figures, metrics, models, training, widgets
from regkit.course import league
from regkit.course.lessons import sweeps, timelapse
from regkit.course.lessons import t00_first_light as lesson

course.begin(seconds={"fast": 17, "full": 125}, minutes=45)

# %% [markdown]
# ## Why register images?
#
# Two images of one thing never lie exactly on each other. **Registration** finds, for each place in one image, the same
# place in the other. Five reasons to do so:
#
# 1. **Growth.** A tumour is scanned twice: how much has it grown, and where?
# 2. **An atlas.** One brain has been labelled by experts. Bring their names to a new brain.
# 3. **Radiotherapy.** The patient lies a little differently every day. Where does the beam have to go now?
# 4. **A group.** The mean of eight brains is a blur. Once they are registered, it is a brain.
# 5. **Histology.** A stained slice shows the cells, and a scan shows the place. Bring the two together.

# %%
lesson.show_reasons()

# %% [markdown]
# (These are synthetic brains. The tumour, the beam and the stain are drawn.) *Where does all this lead?* The
# **map of the field**, linked at the top, shows the methods on one page, and which tutorial explains which.

# %% [markdown] tags=["instructor"]
# Talk 5 minutes, work 40. Start with the five pictures: ask for a sixth reason from the room. Answers to expect:
# *inward* (most say outward), the landmarks within a voxel, `overlap` with `|A ∪ B|` below (that is Jaccard). The last
# table has no winner yet: a network that knows only triangles does worse on a brain than doing nothing.

# %% [markdown]
# ## Two images, one question
#
# On the left you see the **moving** image, in the middle the **fixed** image. Registration asks: *where in the moving image
# does each voxel of the fixed image come from?* (A voxel is a pixel that may have a third axis. We always say voxel.) The
# right panel shows where the two images differ.

# %%
pairs = data.ShapePairs(1024, size=64)  # triangles and circles: what the network learns from
held_out = data.ShapePairs(64, size=64, split="test")  # shapes that it never sees while it learns
pair = held_out[6]  # a triangle that is to become a circle
figures.show_pair(pair)

# %% [markdown]
# ### Predict
#
# A registration is one arrow for each voxel of the **fixed** image. Think of a voxel just inside the circle's edge, at a
# place that the triangle does not reach. Does its arrow point **inward**, towards the triangle? Or does it point
# **outward**, because the triangle has to grow?
#
# Decide now: replace the dots by `"inward"` or `"outward"`. The field will show who is right.

# %% tags=["exercise"]
my_prediction = ...  # "inward" or "outward"

# %% tags=["solution"]
my_prediction = "inward"

# %% [markdown] tags=["instructor"]
# Most say *outward*: they imagine that the triangle is pushed onto the circle. Let them. The contradiction with the
# arrows below is the subject of tutorial 02: warping **pulls**.

# %% [markdown]
# ## The whole idea in a dozen lines
#
# A network looks at both images and answers with a *velocity* $v$. regkit computes the **displacement** $u$ from it:
# $u(x)$ is the arrow at voxel $x$, in voxels. (Take this step as given for now; tutorial 05 explains it.) Then we judge
# the answer, not the network. First we fetch the moving image along the arrows:
#
# $$\text{warped}(x) = \text{moving}(x + u(x))$$
#
# Write this yourself: replace the `...`. The line above a function, `@check...`, judges it at once. Until it is right, the
# notebook goes on with the solution. Is PyTorch new to you? `+`, `-`, `*`, `/` and `**` (power) work on all voxels at
# once.


# %%
@check.pull
def pull(image, u):
    """Each voxel fetches what lies where its arrow ends. image: (1, 1, H, W); u: (1, 2, H, W), voxels."""
    height, width = image.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    # (1, 2, H, W): the place that each voxel reads. torch.stack([a, b]) makes one tensor of two
    places = ...
    return fields.sample(image, places)  # between voxels: a mean of the voxels around the place


# %% [markdown]
# Then we compare the result with the fixed image, and add a small price for roughness:
#
# $$\mathcal{L} = \tfrac1N \sum_x \big(\text{warped}(x) - \text{fixed}(x)\big)^2 \; + \; \lambda \, \operatorname{mean} |\nabla v|^2$$
#
# $N$ is the number of voxels. The first term is the **misfit**: the mean of the squared differences. The second is the
# **roughness**: $\nabla v$ is how much $v$ differs between neighbouring voxels, and we take the mean of its square over
# voxels, components of $v$ and directions. $\lambda$ is the price of roughness. The network is never shown the right
# displacement. (Balakrishnan et al., VoxelMorph, 2019, eq. 2; the velocity: Dalca et al., 2019.)


# %%
@check.pair_loss
def pair_loss(warped, fixed, v, weight):
    """How bad an answer is, one number. warped, fixed: (1, 1, H, W); v: (1, 2, H, W), its velocity."""
    misfit = ...  # one number; (...).mean() is the mean of all numbers in it
    down, right = (
        v.diff(dim=2),
        v.diff(dim=3),
    )  # from each voxel to the next one, along axis 0 and 1
    roughness = ...  # the mean square of down, and that of right: the mean of these two
    return ...  # both terms together; weight is λ


# %% [markdown]
# The same from regkit: a model gives a `Registration`, and `model.objective` gives its weighted terms by name. `mse`, the
# mean squared error, is the first term of the formula; `diffusion` is the second, the roughness. Their sum is the loss. We
# check that both ways agree, on a random smooth field that really moves something.

# %%
WEIGHT = 0.002  # λ
torch.manual_seed(0)
network = models.VoxelMorph(  # you need not know its sizes here
    dim=2, output="velocity", weight=WEIGHT, decoder_channels=(32, 32, 32, 32, 16)
)
wind = data.smooth_displacement((64, 64), amplitude=6, smoothness=8, diffeomorphic=False)
displacement = regkit.exponential(wind)  # from velocity to displacement (tutorial 05)
blown = regkit.Registration(displacement=displacement, velocity=wind)

# %%
first_weights = copy.deepcopy(network.state_dict())  # each training begins here
terms = network.objective(blown, pair.moving, pair.fixed)
warped = pull(pair.moving, displacement)
by_hand = pair_loss(warped, pair.fixed, wind, WEIGHT)
rough = pair_loss(warped, warped, wind, WEIGHT)  # without a misfit
furthest = displacement.abs().max()
apart = (warped - regkit.warp(pair.moving, displacement)).abs().max()
total = sum(terms.values())
assert furthest > 3, (
    f"the field moves something by more than 3 voxels, here {furthest:.1f}: run this cell again"
)
assert apart < 1e-5, f"pull is regkit.warp, here {apart:.1e} apart in intensity: was pull changed?"
assert torch.isclose(total, by_hand, rtol=1e-4), (
    f"the loss by hand is regkit's, here {by_hand:.6f} and {total:.6f}: was pair_loss changed?"
)
assert torch.isclose(terms["diffusion"], rough, rtol=1e-3), (
    f"so is the roughness, here {rough:.3e} and {terms['diffusion']:.3e}: was pair_loss changed?"
)
print({name: f"{value:.5f}" for name, value in terms.items()}, f"by hand: {by_hand:.5f}")

# %% [markdown]
# > **A good place to pause** (about 20 minutes so far). After the break: *Run* → *Run All Above Selected Cell*.
#
# ## Watch it learn
#
# First a training of 1200 steps that we have **stored**. Move the slider: what has the network made of the held-out
# triangle after 10 steps, after 100, at the end? (The last panel, $|J|$, is explained below, under *folds*. White means
# that a voxel keeps its size.)

# %%
stored = lesson.stored_training()  # displacements by the number of steps
sweeps.sweep(pair.moving, pair.fixed, stored, words="steps", start="1200", mark=False, error=True)

# %% [markdown]
# Now your own, **live**. You see three panels: the warped triangle, the fixed circle, and the places $x + u(x)$ drawn on
# the triangle. They change while the network learns from *other* pairs. Start the next **two** cells, then look at this
# picture. (Fast mode takes 100 steps. Compare with the stored picture after 100 steps, not with the last one.)

# %%
watch = timelapse.TimeLapse(network, pair)
watch

# %%
AGAIN = True  # False: go on from what was kept, for example after a restart of the kernel
steps = training.steps(fast=100, full=1200)
recipe = training.Recipe(steps=steps, batch=8, learning_rate=3e-3, schedule="cosine")
network.load_state_dict(first_weights)
kept = course.kept("00_network", again=AGAIN)
history = training.train(network, pairs, recipe, callback=watch, checkpoint=kept)
figures.show_history(history)

# %% [markdown]
# You may interrupt the kernel: the network keeps what it has learned so far. It is also kept in a file beside this
# notebook. Tomorrow set `AGAIN = False` in the cell above, and run all cells: there is no second training.

# %% [markdown]
# The first term falls because the pictures agree better. The second is far smaller, so it has a scale of its own. It
# *rises* from zero, since a field that is zero everywhere is perfectly smooth. Movement alone costs nothing: if all voxels
# moved alike, $\nabla v$ would be 0. **Differences** between neighbours cost, and a triangle does not become a circle
# without them. Later the term falls again, as the network learns to do the same with a smoother field. The curves are
# ragged because each step uses other pairs. Do not trust them alone: a loss that falls on the pairs of the training says
# nothing about new pairs.
#
# ## Did it learn, or did it memorise?
#
# Judge a network on shapes that it has never seen. **Dice** measures the overlap of two shapes $A$ and $B$. It is 1 for the
# same shape, and 0 for shapes that share no voxel:
#
# $$\text{Dice} = \frac{2\,|A \cap B|}{|A| + |B|}$$
#
# $|A|$ is the number of voxels in $A$, and $A \cap B$ holds the voxels that are in both. With masks, which are True inside a
# shape, `A & B` is True in both, and `A.sum()` counts.


# %%
@check.overlap
def overlap(first, second):
    """Dice of two shapes, from 0 to 1. first, second: (1, 1, H, W), True inside the shape."""
    shared = ...  # how many voxels are in both shapes
    return ...  # Dice


# %% [markdown]
# A second number looks at the field. $J$ is the matrix of the derivatives of $x + u(x)$, and $|J|$ is its **determinant**:
# the factor by which the map changes area at this place, with a sign. A **fold** is a voxel where $|J|$ is zero or negative.
# There the map is flattened or turned over. Tissue cannot do that.

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
# Do not ask *does it look warped?* Ask *where is it still wrong?* Drag the **curtain**. Let the images **flicker**: your eye
# finds differences at once. Then open the **field** and the **folds**.

# %%
with torch.no_grad():
    registration = network(pair.moving, pair.fixed)
explorer = widgets.explore(pair, registration)
explorer

# %% [markdown]
# In the tab *field*, choose *arrows*. Each arrow starts at a voxel of the fixed image, and ends at the place in the moving
# image where its value is fetched. Back to your prediction: take the voxels of the circle that the triangle does not
# cover. Do their arrows lead towards the triangle's middle?

# %%
grid = fields.identity((64, 64))[0]  # (2, H, W): row and column of each voxel
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
# A very common mistake is to use the displacement backwards. What do you expect to see?

# %%
figures.show_registration(pair, regkit.Registration(-registration.displacement))

# %% [markdown]
# **Symptom:** the shape moves the wrong way. Dice is lower here than without any registration. **Fix:** `displacement` warps
# moving onto fixed. For the other direction use `registration.inverse`, which is not `-displacement` (tutorial 05 shows
# why). Your `overlap` measures it:


# %%
def dice_with(displacement):
    warped_labels = fields.warp_labels(pair.moving_labels, displacement)
    by_hand = overlap(warped_labels > 0, pair.fixed_labels > 0).item()
    by_regkit = metrics.dice(warped_labels, pair.fixed_labels)[1]  # of label 1, the shape
    assert abs(by_hand - by_regkit) < 1e-5, (
        f"Dice by hand is regkit's, here {by_hand:.5f} and {by_regkit:.5f}: was overlap changed?"
    )
    return by_hand


as_found = dice_with(registration.displacement)
backwards = dice_with(-registration.displacement)
nothing = dice_with(torch.zeros_like(registration.displacement))
print(f"Dice: backwards {backwards:.3f}, nothing {nothing:.3f}, as found {as_found:.3f}")
assert backwards < nothing < as_found or not complete, (
    f"backwards is worse than nothing, and as found is better, here {backwards:.3f}, {nothing:.3f} and "
    f"{as_found:.3f}: run the training's cell again, to its end"
)

# %% [markdown]
# ## Exercise: be the network
#
# Here is another pair, whose true deformation is known. The fixed image has numbers at the three corners of the bright
# triangle. Find the same corners in the moving image, and read their places off the axes, to about one voxel. Your answer
# is a list of three `(row, column)` pairs, in the order 1, 2, 3.

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
# Beat your own error. The **target registration error** (TRE) is the mean distance between the place where a landmark is
# carried to and its true place. Which error do you expect to be the smallest: doing nothing, the network, or you?

# %%
with torch.no_grad():
    guess = network(known.moving, known.fixed).displacement
truth = fields.warp_points(check.LANDMARKS[None], known.displacement)
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
# The network learned from single shapes. Three shapes on top of each other are new to it: tutorial 06 shows what to do
# then. Are you better than the network? Then try to find the places of *all* 4096 voxels, in a hundredth of a second.

# %% [markdown] tags=["instructor"]
# People reach one voxel, since no landmark lies on a faint edge. In full mode the network lies between doing nothing and
# people (3.1 voxels against 4.9). In fast mode it is worse than doing nothing: a good moment to speak of a *shifted
# distribution*.

# %% [markdown]
# ## One pair through the course
#
# From here to tutorial 06, the same two pairs come back: two synthetic brains, and the three shapes, bent, turned and with
# noise. Each tutorial ends with how well *its* lines register them. The table is kept in the file `my_league.json` beside
# this notebook. Your network is the first entry. It has never seen a brain: what do you expect?

# %%
PAIRS = league.pairs()
figures.show_pair(PAIRS["brains"])

# %%
with torch.no_grad():
    found = {name: network(each.moving, each.fixed).displacement for name, each in PAIRS.items()}
table = league.enter("00", "network, trained on single shapes", found)
table

# %% [markdown]
# Dice is the mean over all structures. *Error* is how far the field is from the true one, in voxels, within the
# structures. *Folds* are in percent of the voxels. The network does not help here, and it may do harm. Doing nothing is
# the row to beat.
#
# ## Take away
#
# > * Registration finds **the same place in two images**. This is what one needs to measure growth, to use an atlas, to
# >   aim a beam, to average a group.
# > * A registration network maps **two images to one displacement field**. The loss compares *images*, so it needs no
# >   true field.
# > * Warping **pulls**: `warped[x] = moving[x + u(x)]`. Arrows live on the fixed grid and point into the moving
# >   image.
# > * Look at the **remaining differences** (curtain, flicker) and at **the field** (grid, |J|, folds), never only at the
# >   warped image.
# > * Judge on pairs that were **held out**.
#
# **Next.** We used *voxels* as if everyone meant the same by a place in an image. They do not: a place may be an index, or
# in voxels, in millimetres, or between -1 and 1. *Where is a pixel?*
