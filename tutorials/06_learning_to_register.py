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
# # 06 · Learning to register
#
# *The same kind of images, the same loss. One change: the gradient no longer moves a field. It moves the weights of a
# network that makes fields.*
#
# **Goals.** After this notebook you can train a registration network without a single true field, say when training one
# pays off, predict which change of the images breaks it, and mend its answer for one pair.
#
# **Before you start.** Optimising a field (tutorial 04) and a velocity (tutorial 05).
#
# **CPU.** Measured on two cores: about 40 s in fast mode, two minutes in full mode.

# %%
import copy
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, figures, losses, metrics, optimise, training
from regkit.views import races, timelapse

course.begin(seconds={"fast": 40, "full": 120})

# %% [markdown]
# ## A thousand pairs instead of one
#
# Triangles and circles of many sizes, at many places, at every angle: 1024 pairs to learn from, and 64 pairs of other
# shapes, **held out**, that no training sees.

# %%
pairs = regkit.data.ShapePairs(1024, size=64)
held_out = regkit.data.ShapePairs(64, size=64, split="test")
test = held_out[list(range(64))]

figure, axes = plt.subplots(2, 6, figsize=(12, 4.2), layout="compressed")
figure.supxlabel("axis 1 (voxels)")
figure.supylabel("axis 0 (voxels)")
for column in range(6):
    images = {"moving": pairs[column].moving, "fixed": pairs[column].fixed}
    for panel, (name, image) in zip(axes[:, column], images.items(), strict=True):
        panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
        panel.set(title=f"{name} {column}", xticks=(0, 63), yticks=(0, 63))
# %% [markdown]
# ### Predict
#
# We shall train on these. Then we change the held-out images, moving and fixed alike, in four ways.
# One of them makes the network's Dice clearly worse. Which? Look at the pictures, then commit.

# %%
generator = torch.Generator().manual_seed(0)
changes = {
    "as trained": lambda image: image,
    "quarter turn": lambda image: torch.rot90(image, 1, (2, 3)),
    "noise": lambda image: image + 0.1 * torch.randn(image.shape, generator=generator),
    "blur": lambda image: losses.gaussian_blur(image, 1.5),
    "inverted": lambda image: 1 - image,
}

figure, axes = plt.subplots(1, 5, figsize=(12, 2.7), layout="compressed")
axes[0].set(ylabel="axis 0 (voxels)")
for panel, (name, change) in zip(axes, changes.items(), strict=True):
    panel.imshow(change(test.moving[:1])[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set(title=name, xticks=(0, 63), yticks=(0, 63), xlabel="axis 1 (voxels)")
# %% tags=["exercise"]
my_shift = ...  # "quarter turn", "noise", "blur" or "inverted"

# %% tags=["solution"]
my_shift = "inverted"

# %% [markdown] tags=["instructor"]
# Most say *noise*: it looks worst. Some say *quarter turn*, having heard that convolutions are not rotation invariant.
# Both reason about the picture or the network; the answer lies in the training data, which hold every angle, but not a
# single dark shape on white. Collect the votes on the board: the cell with the bars decides.

# %% [markdown]
# ## The loop
#
# In tutorial 05 the velocity $v$ of one pair was the unknown. Now a network $f_\theta$ computes $v$ from two images,
# and the unknown is $\theta$, the network's weights. The loss is the same, summed over pairs:
#
# $$\min_\theta \sum_\text{pairs} \text{mean}\big(\text{moving} \circ \exp(v) - \text{fixed}\big)^2 + \lambda
# \,\text{mean}|\nabla v|^2, \qquad v = f_\theta(\text{moving}, \text{fixed}) .$$
#
# (VoxelMorph: Balakrishnan et al. 2019; with a velocity: Dalca et al. 2019.) No true field occurs in it. In the
# code below the weight of the roughness, $\lambda$, is 0.002.


# %%
def new_network(seed=0):
    torch.manual_seed(seed)
    channels = (32, 32, 32, 32, 16)  # a network of modest size
    return regkit.models.VoxelMorph(2, output="velocity", weight=0.002, decoder_channels=channels)


def train_by_hand(network, moving, fixed, steps, learning_rate):
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    history = []
    for _ in range(steps):
        found = network(moving, fixed)
        misfit = ((regkit.warp(moving, found.displacement) - fixed) ** 2).mean()
        v = found.velocity
        loss = misfit + 0.002 * ((v.diff(dim=2) ** 2).mean() + (v.diff(dim=3) ** 2).mean()) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    return history


# %% [markdown]
# The same from regkit: `training.train` does this for any model. Two copies of one network, one batch of eight pairs,
# three steps: both ways report the same losses.

# %%
network = new_network()
few = pairs[list(range(8))]  # one Pair that holds a batch of eight
eight = [pairs[index] for index in range(8)]  # the same eight, one by one, as `train` wants them
by_hand = train_by_hand(copy.deepcopy(network), few.moving, few.fixed, steps=3, learning_rate=1e-3)

recipe = training.Recipe(steps=3, batch=8, learning_rate=1e-3)
by_regkit = training.train(copy.deepcopy(network), eight, recipe, progress=False)
assert torch.allclose(torch.tensor(by_hand), torch.tensor(by_regkit.loss), rtol=1e-3)
print("by hand:", [f"{loss:.5f}" for loss in by_hand])
print("regkit: ", [f"{loss:.5f}" for loss in by_regkit.loss])

# %% [markdown]
# ## Watch it learn
#
# The pair in the picture is held out: what the network learns is how to register, not this pair. Start the next **two**
# cells, look at this picture, and let the training run to its end. Afterwards, drag the slider back to the start.

# %%
pointed = held_out.shapes.pointed  # which shapes are triangles
shown = int((pointed[held_out.moving] & ~pointed[held_out.fixed]).nonzero()[0])
pair = held_out[shown]  # a triangle that is to become a circle
STEPS = training.steps(fast=150, full=1000)
watch = timelapse.TimeLapse(network, pair, every=STEPS // 15)
watch

# %%
recipe = training.Recipe(
    steps=STEPS, batch=8, learning_rate=3e-3, schedule="cosine"
)  # a rate that falls
history = training.train(network, pairs, recipe, callback=watch)
figures.show_history(history)


# %%
def answer(moving, fixed):
    """What the trained network says."""
    network.eval()
    with torch.no_grad():
        return network(moving, fixed)


def dice(displacement, of=test):
    """Mean Dice of the pairs `of`, once warped by `displacement`."""
    return metrics.evaluate(displacement, of)["dice"]


nothing = dice(torch.zeros(64, 2, 64, 64))
learnt = dice(answer(test.moving, test.fixed))
print(f"held-out pairs: Dice {nothing:.3f} before, {learnt:.3f} after one look at each")
assert learnt > {"fast": 0.85, "full": 0.95}[training.mode()] and nothing < 0.6

# %% [markdown]
# ## A race
#
# On one held-out pair: the **network**, which looks once; the **optimiser** of tutorial 05, which starts from nothing;
# and the optimiser that starts **from the network's answer**. Same loss for all.


# %%
def run(start=None, since=None, steps=100):
    """Optimise; give (seconds since the start, displacement) before each step and at the end."""
    since = time.perf_counter() if since is None else since
    states = []

    def note(step, found):
        states.append((time.perf_counter() - since, found.displacement))

    options = {"output": "velocity", "weight": 0.002, "learning_rate": 0.3, "steps": steps}
    final = optimise.optimise_field(pair.moving, pair.fixed, start=start, callback=note, **options)
    return [*states, (time.perf_counter() - since, final.displacement)]


# The first call of a network is slower, so we make one that does not count.
answer(pair.moving, pair.fixed)
began = time.perf_counter()
looked_once = answer(pair.moving, pair.fixed)
network_seconds = time.perf_counter() - began
runs = {
    "network": [(network_seconds, looked_once.displacement)],
    "optimiser": run()[1:],  # without the zero field before its first step
    "network, then optimiser": run(
        start=looked_once.velocity, since=time.perf_counter() - network_seconds
    ),
}
track = races.race(pair, runs)
track

# %% [markdown]
# Drag the time. The network is there before the optimiser has taken many steps. But it looks only once. The optimiser
# works on this pair alone, and in the end fits it better. With the network's answer as a start it gets there in fewer
# steps:


# %%
def misfit(displacement):
    return losses.mse(regkit.warp(pair.moving, displacement), pair.fixed).item()


ends = {name: misfit(states[-1][1]) for name, states in runs.items()}
after_five = {  # the list of the first begins after step 1, that of the second before it
    "optimiser": misfit(runs["optimiser"][4][1]),
    "network, then optimiser": misfit(runs["network, then optimiser"][5][1]),
}
print("at the end:", {name: f"{value:.5f}" for name, value in ends.items()})
print("after five steps:", {name: f"{value:.5f}" for name, value in after_five.items()})
assert ends["optimiser"] < ends["network"] and ends["network, then optimiser"] < ends["network"]
assert after_five["network, then optimiser"] < 0.5 * after_five["optimiser"]

optimiser_seconds = next(
    (
        seconds
        for seconds, displacement in runs["optimiser"]
        if misfit(displacement) < ends["network"]
    ),
    runs["optimiser"][-1][0],
)
saved = optimiser_seconds - network_seconds
print(
    f"network {1000 * network_seconds:.0f} ms; the optimiser needs {1000 * optimiser_seconds:.0f} ms to be as good."
)
print(
    f"{sum(history.seconds):.0f} s of training pay off after {sum(history.seconds) / saved:.0f} pairs."
)

# %% [markdown]
# That last line is the honest account. A network is *amortised*: pay once for the training, and each pair is cheap. On
# 64 × 64 voxels an optimiser is fast, and the training pays off late. On 3D scans an optimiser is far slower, and a
# study may hold thousands of scans.
#
# ## Break it
#
# *"My training does nothing."* Look at the learning rate first. Three of them, 40 steps each:

# %%
speeds = {}
for rate in (3e-5, 3e-3, 0.3):
    fresh = new_network()
    recipe = training.Recipe(steps=40, batch=8, learning_rate=rate)
    try:
        training.train(fresh, pairs, recipe, progress=False)
    except FloatingPointError as error:
        print(f"learning rate {rate:g}: stopped: {str(error)[:90]}...")
        continue
    with torch.no_grad():
        speeds[rate] = fresh.eval()(test.moving, test.fixed).displacement
    reach = speeds[rate].norm(dim=1).max()
    print(
        f"learning rate {rate:g}: Dice {dice(speeds[rate]):.3f}, longest vector {reach:.2f} voxels"
    )

assert speeds[3e-5].norm(dim=1).max() < 0.5 and abs(dice(speeds[3e-5]) - nothing) < 0.01
assert dice(speeds[3e-3]) > nothing + 0.1
assert 0.3 not in speeds or dice(speeds[0.3]) < dice(speeds[3e-3])

# %% [markdown]
# **Symptom** of a tiny rate: the warped image *is* the moving image; no vector of the field is longer than half a
# voxel. The last layer of this network begins near zero on purpose, so that the first field does next to nothing; with
# a tiny rate it stays so. A huge rate is no better: the field jumps to nonsense, or the training stops with an error.
# **Mend:** look at the longest vector after 40 steps. Raise the rate until the field moves; halve it where it jumps.
#
# ## Change the data
#
# Now the four changes of the prediction. Test data that differ from the training's are called a **distribution shift**.
# (Here a *shift* is a change of the kind of image, not a motion.) The network and the shapes are the same; are the
# answers as good?

# %%
shifted = {}
for name, change in changes.items():
    labels = [test.moving_labels, test.fixed_labels]
    labels = (
        [torch.rot90(label, 1, (2, 3)) for label in labels] if name == "quarter turn" else labels
    )
    shifted[name] = regkit.Pair(change(test.moving), change(test.fixed), *labels)
reached = {name: dice(answer(now.moving, now.fixed), now) for name, now in shifted.items()}

figure, axes = plt.subplots(figsize=(7, 3), layout="compressed")
axes.barh(list(reached), list(reached.values()), color="#0072b2")
axes.axvline(nothing, color="#d55e00", label="doing nothing")
axes.set(xlim=(0, 1), xlabel="mean Dice of 64 held-out pairs")
axes.legend(loc="lower right")
axes.invert_yaxis()

# %%
worst = min(reached, key=reached.get)
print({name: f"{value:.3f}" for name, value in reached.items()})
assert worst == "inverted" and reached["inverted"] < reached["as trained"] - 0.04
assert (
    min(reached[name] for name in ("quarter turn", "noise", "blur")) > reached["as trained"] - 0.04
)
check.breaking_shift(my_shift)

# %% [markdown]
# The question is not *how different does it look?* but *how far is it from what the training contained?* Shapes at
# every angle: contained. A dark shape on white: never.
#
# The MSE, by the way, does not even notice the inversion: $(1-a) - (1-b) = b - a$ has the same square. Only the network
# does. So there is a mend that costs one line, **if you know what has changed**: make the data look like the
# training's.

# %%
put_right = answer(1 - shifted["inverted"].moving, 1 - shifted["inverted"].fixed)
assert abs(dice(put_right) - learnt) < 0.01
print(f"inverted back before the network sees it: Dice {dice(put_right):.3f}")

# %% [markdown]
# ## Exercise: mend it
#
# And if you do not know? Then there is **instance optimisation**: start from the network's answer (or from nothing),
# and optimise the field of this pair alone, as in tutorial 05. Register `check.inverted_pairs()`, one batch of eight
# pairs, with `optimise.optimise_field(moving, fixed, output="velocity", ...)`. Wanted: mean Dice of at least 0.95, at
# most 0.5 % folds. The answer is the `Registration` that it returns (or a displacement of shape (8, 2, 64, 64)).
#
# You may choose `weight` ($\lambda$), `learning_rate` (in voxels, such as 0.1 to 0.5), `steps` (some 200), and `start`:
# nothing, or the network's `before_mending.velocity` from the next cell. Do not invert the images back.

# %%
broken = check.inverted_pairs()
before_mending = answer(broken.moving, broken.fixed)
print({name: round(value, 3) for name, value in metrics.evaluate(before_mending, broken).items()})

# %% tags=["exercise"]
my_registration = ...  # optimise.optimise_field(broken.moving, broken.fixed, ...)

# %% tags=["solution"]
options = {"output": "velocity", "weight": 0.002, "learning_rate": 0.3, "steps": 200}
my_registration = optimise.optimise_field(broken.moving, broken.fixed, **options)

# %%
check.mended(my_registration)

# %% [markdown] tags=["instructor"]
# Most start from the network's velocity, as one does, with the network's own weight (0.002). After fast training Dice is
# right (0.985), and the map folds (0.9 %): this start is *wrong*, not only rough, and the optimiser has to unfold it
# first. From nothing it is easier; a larger weight (the default, 0.03) also passes. After full training the start is
# good enough (folds 0.02 %). Let both camps compare their grids.

# %% [markdown]
# ## When the start is worth gold
#
# Pull the shapes of sixteen pairs apart, by 16 voxels more along each axis. Where shapes do not overlap, no slope leads
# from one to the other (tutorial 03): the optimiser that starts from nothing is lost for some of the pairs.
# The network's answer alone may not be good either (the less it has trained, the worse). Together they do best.


# %%
def move(image, by):
    """Down and to the right by `by` voxels (back where negative); zeros come in."""
    return F.pad(image, (by, -by, by, -by))


def uncut(image, by):
    """True for each image whose shape stays in view when it is moved."""
    return move(image, by).sum((1, 2, 3)) > 0.99 * image.sum((1, 2, 3))


chosen = (uncut(test.moving, 8) & uncut(test.fixed, -8)).nonzero().flatten()[:16]
far = regkit.Pair(
    move(test.moving, 8)[chosen],
    move(test.fixed, -8)[chosen],
    move(test.moving_labels, 8)[chosen],
    move(test.fixed_labels, -8)[chosen],
)
assert len(chosen) == 16
guess = answer(far.moving, far.fixed)
options = {"output": "velocity", "weight": 0.002, "learning_rate": 0.3, "steps": 50}
results = {
    "nothing": torch.zeros(16, 2, 64, 64),
    "network": guess.displacement,
    "optimiser": optimise.optimise_field(far.moving, far.fixed, **options).displacement,
    "network, then optimiser": optimise.optimise_field(
        far.moving, far.fixed, start=guess.velocity, **options
    ).displacement,
}
overlaps = {name: dice(displacement, far) for name, displacement in results.items()}
print({name: f"{value:.3f}" for name, value in overlaps.items()})
assert overlaps["network"] > overlaps["nothing"] + 0.1
assert overlaps["network, then optimiser"] > max(overlaps["optimiser"], overlaps["network"]) + 0.03
assert watch.errors == track.errors == []  # the two widgets drew every frame

# %% [markdown]
# ## Take away
#
# > * The network is trained on **the same loss** as a single field; nobody shows it a true field.
# > * It buys **speed for many pairs**, and a good start. An optimiser still fits a single pair better.
# > * It fails where the **training data** end, not where pictures look strange.
# > * The training does nothing? Look at the longest vector of the field, and at the learning rate.
# > * **Instance optimisation** mends a pair. A good start is worth gold; a wrong one can do harm.
#
# **Next.** Our network is told to be smooth, $\lambda |\nabla v|^2$. Could it be told something better, something that
# does not make large motions dear? Register A to B, then B to A: you ought to be back. *GradICON.*
