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
# # 09 · SITReg
#
# *What a loss asks for, a network keeps more or less. What its formula says, it keeps before it has learnt anything.*
#
# **Goals.** After this notebook you can build a step that cannot fold, invert it by iteration and differentiate through
# the inverse without storing the iterations, make any network symmetric with one formula, and say which of its laws
# fails when one half of that formula is broken.
#
# **Before you start.** Composition (02), inverses (05), training a network (06). The method: *SITReg*, Honkamaa and
# Marttinen 2023.
#
# **CPU.** Measured on two cores: about 40 s in fast mode, 100 s in full mode.

# %%
import copy
import warnings

import matplotlib.pyplot as plt
import torch
from torch import nn

import regkit
from regkit import check, course, fields, figures, metrics, training, types
from regkit.course import studies
from regkit.course.lessons import sweeps
from regkit.course.lessons import t09_sitreg as lesson
from regkit.data import benchmarks
from regkit.models import SITReg, layers, sitreg

course.begin(seconds={"fast": 40, "full": 105})

# %% [markdown]
# ## Ask twice
#
# Two images, A and B. We ask a network for the map $f_{AB}$, which warps A onto B: $A \circ f_{AB} \approx B$. Then we
# exchange the images, ask for $f_{BA}$, and invert that. Both are answers to *one* question. Here is an ordinary
# network, from coarse to fine, not trained yet: its weights are random.

# %%
pairs = regkit.data.ShapePairs(1024, size=64)
held_out = regkit.data.ShapePairs(64, size=64, split="test")
test = held_out[list(range(64))]
pointed = held_out.shapes.pointed  # which shapes are triangles
pair = held_out[int((pointed[held_out.moving] & ~pointed[held_out.fixed]).nonzero()[0])]
A, B = pair.moving, pair.fixed


def random_network(**options):
    """Small, untrained, and with its last layers thirty times as strong: it moves a lot."""
    torch.manual_seed(0)
    widths = {"channels": (8, 16, 16, 16, 16), "update_channels": (8, 32, 32, 32, 32)}
    network = SITReg(2, **widths, **options).eval()
    for update in network.updates:
        update.head.weight.data *= 30
    return network


ordinary = random_network(update="one_sided", meeting="fixed")  # you will know what this means


# %%
def register(network, moving, fixed):
    with torch.no_grad():
        return network(moving, fixed)


def draw_grid(axes, displacement, **style):
    """Every fourth row and column of x + u(x); axis 0 runs down."""
    down, right = (fields.identity((64, 64)) + displacement)[0, :, 1::4, 1::4]
    axes.plot(right, down, **style)
    axes.plot(right.T, down.T, **style)


there, back = register(ordinary, A, B), register(ordinary, B, A)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.9), layout="compressed")
for panel, image, title in ((left, A, "A"), (middle, B, "B")):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set(title=title, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
right.set(title="$f_{AB}$ by (A, B), blue; by (B, A), orange", aspect="equal")
right.set(xlim=(-6, 69), ylim=(69, -6), xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
draw_grid(right, there.displacement, color="#0072b2", linewidth=2.5)
draw_grid(right, back.inverse, color="#d55e00", linewidth=1)

# %%
apart = (there.displacement - back.inverse).norm(dim=1)
print(f"the two answers differ by {apart.mean():.1f} voxels on average")
assert apart.mean() > 1

# %% [markdown]
# Which would you publish? Training makes the two *similar*; a loss that charges for their difference (tutorial 07)
# makes them more similar. SITReg wants them equal.
#
# ### Predict
#
# Three laws one would like a registration to keep:
#
# * **symmetry**: exchanging the images exchanges the maps;
# * **inverse consistency**: $f_{AB} \circ f_{BA}$ is the identity;
# * **no folds**: $|J| > 0$ everywhere.
#
# Take a SITReg with *random weights*, as wild as the ordinary network above. No loss has ever asked for anything. How
# many of the three laws does it keep: `"none"`, `"one or two"` or `"all"`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "all"

# %% [markdown] tags=["instructor"]
# Most say *none*: "it has not learnt it yet". That is the point of the lecture: a property of the formula need not be
# learnt, and cannot be unlearnt. Ask back: who taught a convolution to be equivariant to shifts?

# %% [markdown]
# ## A step that cannot fold
#
# We build it from the bottom. A network gives few numbers, **control values** $c$, one arrow for each 16 × 16 voxels,
# say. Cubic B-splines make a smooth displacement of them: around each control value lies a smooth bump, four spacings
# wide, and the bumps, each times its value, are added. And each number is limited, by $\gamma \tanh$.
#
# How large may $\gamma$ be? Each control value tilts the map by at most its spline's slope. Add the slopes of all
# splines that overlap at a place, with the worst signs: while $\gamma$ times this sum stays below 1, neighbours cannot
# change places. That is the **bound** (Choi and Lee 2000), and it is tight: one worst pattern folds just above it.
#
# Below, that worst pattern, times $k$ times the bound. Where does it fold?

# %%
SPACING = 16  # voxels between control values
bound = sitreg.control_bound(SPACING, 2)
worst = sitreg.worst_pattern(SPACING, 2).float()  # 6 x 6 arrows of +1 and -1
image = regkit.data.shapes(4, size=96).images[3:4]
shares = [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.01, 1.1, 1.25, 1.5]
steps = {
    f"{share:g}": sitreg.upsample_controls(share * bound * worst, (96, 96), SPACING)
    for share in shares
}
fold_o_meter = sweeps.sweep(image, image, steps, words="k, share of the bound", start="0.99")
fold_o_meter

# %% [markdown]
# Drag $k$ (here *fixed* is the image itself). At 0.99 the worst voxel is squeezed to almost nothing, and stays whole;
# at 1.01 it folds. That was the worst of all patterns. So at 0.99 *no* pattern folds, whatever a network comes up
# with. Let us try to:

# %%
least = {name: regkit.jacobian_determinant(step).min().item() for name, step in steps.items()}
print(
    f"worst pattern: least |J| {least['0.99']:+.3f} at k = 0.99, {least['1.01']:+.3f} at k = 1.01"
)
assert least["0.99"] > 0 > least["1.01"]

signs = torch.randint(0, 2, (200, 2, 6, 6)) * 2.0 - 1  # two hundred other patterns of ±1
others = sitreg.upsample_controls(0.99 * bound * signs, (96, 96), SPACING)
tried = regkit.jacobian_determinant(others).min().item()
print(f"200 random patterns at k = 0.99: least |J| {tried:+.3f}")
assert tried > 0
print(f"bound: {bound:.4f} of the distance between control values")

# %% [markdown]
# regkit limits to 0.99 of the bound, as the authors' later program does. (The paper's first program used
# $\gamma = 0.15$ with splines *through* the control values: safe in 2D; in 3D a worst pattern folds.)
#
# One step moves less than half a control spacing along each axis. That is little; but maps that do not fold may be
# composed as often as we like, and the composition does not fold either. Large motions come from many small safe steps,
# coarse to fine.
#
# ## Its inverse, by iteration
#
# The inverse of $x + u(x)$ is $x + z(x)$ with $z(x) = -u(x + z(x))$: the unknown is on both sides. So guess, put the
# guess in on the right, and take what comes out as the next guess:


# %%
def invert_by_hand(u, iterations=12):
    z = -u  # the usual mistake is our first guess
    for _ in range(iterations):
        z = -regkit.warp(u, z)  # u read at x + z(x)
    return z


generator = torch.Generator().manual_seed(1)
arrows = torch.rand(1, 2, 8, 8, generator=generator) * 2 - 1


def random_step(share):
    """64 x 64 voxels from 8 x 8 random arrows, at most `share` of the bound long."""
    return sitreg.upsample_controls(share * sitreg.control_bound(8, 2) * arrows, (64, 64), 8)


u = random_step(0.99)
z = invert_by_hand(u)
assert fields.compose(u, z).abs().max() < 1e-3  # there and back
assert torch.allclose(z, regkit.invert(u, tolerance=1e-4), atol=1e-3)
print(f"left after 12 iterations: {fields.compose(u, z).abs().max():.1e} voxels")

# %% [markdown]
# Why does it end well? If two guesses differ by $d$, then $u$ at the two places differs by at most $k\,d$, where $k$ is
# the same share of the bound: below 1, each iteration shrinks the error. **One limit, two gifts**: no fold, and an
# inverse that is found.

# %%
strengths = {f"{share:g}": random_step(share) for share in (0.25, 0.5, 0.75, 0.99, 1.5, 2, 3)}
inverter = lesson.inversion_viewer(strengths, words="k, share of the bound", start="0.99")
inverter

# %% [markdown]
# Step through the iterations $n$. Third panel: the grid of both maps in a row, straight when $z$ is the inverse.
# Fourth: what is left, as a power of ten. The curve is a straight line on this logarithmic axis: each iteration gains
# the same *factor*. Then raise $k$: the line gets flatter, and far above 1, where the map folds, it does not come
# down.
#
# *Anderson's acceleration* (the other solver) combines the last four guesses into a better one. Below the bound it
# saves an iteration or so. Above it, where a map need not fold yet, it takes half as many, or arrives where the plain
# one does not ($k = 2$). How many it takes until no more than 0.01 voxels are left, which is what SITReg asks for:

# %%
needed = {}
for share in (0.5, 0.99, 1.5):
    for solver in lesson.SOLVERS:
        taken = lesson.invert_step_by_step(random_step(share), solver=solver)
        needed[share, solver] = next(n for n, now in enumerate(taken) if now.worst < 0.01)
print({f"k = {share}, {solver}": count for (share, solver), count in needed.items()})
assert needed[0.5, "plain"] < needed[0.99, "plain"] <= 7
assert needed[0.99, "Anderson"] <= needed[0.99, "plain"]
assert needed[1.5, "Anderson"] < 0.6 * needed[1.5, "plain"]
largest = max(step.worst for step in lesson.invert_step_by_step(strengths["3"])[-5:])
assert largest > 0.5, "a map that folds has no inverse to be found"

# %% [markdown]
# ## The inverse as a layer
#
# A network that contains this loop has to be trained through it. Autograd would keep every iteration until the backward
# pass. But the answer does not depend on how it was found: differentiate the *equation* $z(x) = -u(x + z(x))$ instead
# (the implicit function theorem, section 3.3),
#
# $$\mathrm{d}z = -\big(I + \nabla u\,(x + z)\big)^{-1}\, \mathrm{d}u\,(x + z) .$$
#
# For that, $u$ and $z$ are all one needs. We count the fields that are kept between the forward and the backward pass:


# %%
def kept_fields(function, u):
    """Fields of u's size that are alive between the two passes, u and the result included."""
    kept = [u]

    def note(tensor):
        kept.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept.append(function(u).detach())
    return len({each.untyped_storage().data_ptr() for each in kept if each.numel() >= u.numel()})


u = random_step(0.75).requires_grad_()
counts = [1, 2, 4, 8, 16]
unrolled = [kept_fields(lambda u, n=n: invert_by_hand(u, n), u) for n in counts]
layer = [kept_fields(lambda u, n=n: regkit.invert(u, tolerance=0.1**n), u) for n in (1, 2, 3, 4)]

figure, axes = plt.subplots(figsize=(6.5, 3.5), layout="compressed")
axes.plot(counts, unrolled, "o-", color="#d55e00", label="autograd through the iterations")
axes.axhline(layer[0], color="#0072b2", label="deformation inversion layer")
axes.set(xlabel="iterations", ylabel="fields kept for the backward pass", ylim=(0, None))
axes.legend()
axes.grid(alpha=0.3)
print("unrolled:", dict(zip(counts, unrolled, strict=True)), "· layer, tighter and tighter:", layer)
assert layer == [2, 2, 2, 2], "u and z, however many iterations there were"
assert unrolled[-1] - unrolled[-2] >= 8, "one more field for each iteration"

# %% [markdown]
# The gradient is the same:

# %%
direction = torch.randn(1, 2, 64, 64, generator=generator)
(by_iterations,) = torch.autograd.grad((invert_by_hand(u, 30) * direction).sum(), u)
(by_layer,) = torch.autograd.grad((regkit.invert(u, tolerance=1e-4) * direction).sum(), u)
difference = ((by_iterations - by_layer).norm() / by_iterations.norm()).item()
print(f"the two gradients differ by {100 * difference:.2f} %")
assert difference < 0.01

# %% [markdown]
# ## Symmetric by algebra
#
# Now the idea of the paper. Let $u(a, b)$ be a safe step that *any* network makes of two images; it may prefer one of
# them, as every network does. Define
#
# $$U(a, b) = u(a, b) \circ u(b, a)^{-1} .$$
#
# Exchange $a$ and $b$: $U(b, a) = u(b, a) \circ u(a, b)^{-1} = U(a, b)^{-1}$. That is all. Nothing was assumed of $u$,
# only that it has an inverse. And two equal images give $U(a, a) = u(a, a) \circ u(a, a)^{-1}$, the identity.

# %%
torch.manual_seed(3)
any_network = nn.Sequential(
    nn.Conv2d(2, 16, 9, stride=8, padding=4), nn.ReLU(), nn.Conv2d(16, 2, 3, padding=1)
)


def step(a, b):
    """u(a, b): 8 x 8 control values, limited, as a displacement."""
    control = torch.tanh(20 * any_network(torch.cat([a, b], 1)))
    limit = 0.99 * sitreg.control_bound(8, 2)
    return sitreg.upsample_controls(limit * control, (64, 64), 8)


def update(a, b):
    """U(a, b) = u(a, b) ∘ u(b, a)⁻¹"""
    return fields.compose(step(a, b), invert_by_hand(step(b, a)))


with torch.no_grad():
    u_ab, u_ba, u_aa = update(A, B), update(B, A), update(A, A)
    home = fields.compose(u_ab, u_ba).norm(dim=1)
    first_try = fields.compose(step(A, B), step(B, A)).norm(dim=1)
print(f"u(a, b) ∘ u(b, a): {first_try.mean():.2f} voxels from the identity, on average")
print(f"U(a, b) ∘ U(b, a): {home.mean():.3f} voxels")
print(f"U(a, a): at most {u_aa.abs().max():.1e} voxels")
assert first_try.mean() > 1 and home.mean() < 0.1 and u_aa.abs().max() < 0.01
assert u_ab.norm(dim=1).mean() > 1  # there was something to undo

# %% [markdown]
# What is left comes from storing maps at voxels only. The same from regkit, which keeps both directions stacked along
# the batch, and each update as its two factors:

# %%
with torch.no_grad():
    both = torch.cat([step(A, B), step(B, A)])
    factors = sitreg.two_sided(both, regkit.invert)
    regkit_ab, regkit_ba = sitreg.composed(*factors).chunk(2)
assert torch.allclose(u_ab, regkit_ab, atol=0.03) and torch.allclose(u_ba, regkit_ba, atol=0.03)
print(f"by hand and by regkit: {(u_ab - regkit_ab).abs().max():.4f} voxels apart, at most")

# %% [markdown]
# ## Meet in the middle
#
# Neither image stands still. Each gets a half-way map, $L$ for A and $R$ for B, so that $A \circ L$ and $B \circ R$
# meet. At each level, coarse to fine, the network looks at both images *where they now are*, and one update moves them
# in opposite directions:
#
# $$L \leftarrow L \circ U, \qquad R \leftarrow R \circ U^{-1}, \qquad\text{at the end}\quad
# f_{AB} = L \circ R^{-1}, \quad f_{BA} = R \circ L^{-1} .$$
#
# (Equations 4 to 8.) $R^{-1}$ needs no new inversion: it is collected on the way, $R^{-1} \leftarrow U \circ R^{-1}$.

# %%
network = random_network()
L = R = R_inverse = torch.zeros(1, 2, 64, 64)
with torch.no_grad():
    for level in network.stages(A, B):
        v_ab, v_ba = level.step.chunk(2)  # what the network says at this level
        i_ab, i_ba = regkit.invert(v_ab), regkit.invert(v_ba)
        L = sitreg.composed(L, v_ab, i_ba)  # L ∘ U(a, b)
        R = sitreg.composed(R, v_ba, i_ab)  # R ∘ U(b, a)
        R_inverse = sitreg.composed(v_ab, i_ba, R_inverse)
f_ab = fields.compose(L, R_inverse)

found = register(network, A, B)
assert torch.allclose(L, found.halfway_moving[-1], atol=1e-4)
assert torch.allclose(R, found.halfway_fixed[-1], atol=1e-4)
assert torch.allclose(f_ab, found.displacement, atol=1e-4)
print(f"f_AB moves voxels by up to {f_ab.norm(dim=1).max():.1f}, by hand as by regkit")

# %% [markdown]
# ## Your prediction
#
# Random weights, 64 pairs. We measure the three laws:


# %%
def laws(network, of=test):
    """Three numbers: the two answers to one question, the round trip (both voxels), and the least |J|."""
    there, back = register(network, of.moving, of.fixed), register(network, of.fixed, of.moving)
    apart = there.displacement - back.inverse
    home = fields.compose(there.displacement, there.inverse)
    least = regkit.jacobian_determinant(there.displacement).min()
    numbers = (apart.norm(dim=1).mean(), home.norm(dim=1).mean(), least)
    names = ("symmetry", "inverse consistency", "no folds")
    return {name: number.item() for name, number in zip(names, numbers, strict=True)}


def tell(name, kept):
    apart, home, least = kept.values()
    print(f"{name:20s} two answers {apart:6.3f} voxels apart;", end=" ")
    print(f"round trip {home:.3f} voxels off; least |J| {least:+.2f}")


untrained = laws(network)
tell("ordinary, untrained", laws(ordinary))
tell("SITReg, untrained", untrained)
print("you said:", "nothing yet" if my_prediction is ... else my_prediction)
assert untrained["symmetry"] == 0, "to the last bit"
assert untrained["inverse consistency"] < 0.2 and untrained["no folds"] > 0
assert laws(ordinary)["symmetry"] > 1 and laws(ordinary)["no folds"] > 0
assert laws(ordinary)["inverse consistency"] < 0.2

# %% [markdown]
# All three. The first to the last bit: exchanging the images makes the computer do the same sums. The second up to
# interpolation. The third is proven for each step; the stored composition comes close (the paper counts 11 folds among
# 4.4 million voxels), so we measure it. (The *ordinary* network keeps the last two as well: its steps are limited in
# the same way, and each call inverts its own map. But the two calls disagree.)
#
# ## Train it
#
# What is left to learn is to *register*. The loss asks for similarity and smoothness in both directions, and for
# nothing else: $\tfrac12\,[\text{LNCC}(A \circ f_{AB}, B) + \text{LNCC}(B \circ f_{BA}, A)] + \tfrac\lambda2\,
# [\text{mean}|\nabla f_{AB}|^2 + \text{mean}|\nabla f_{BA}|^2]$. The weights start at random, not thirty times as
# strong.

# %%
torch.manual_seed(0)
network = SITReg(2, channels=(8, 16, 16, 16, 16), update_channels=(8, 32, 32, 32, 32))
STEPS = training.steps(fast=150, full=600)
recipe = training.Recipe(steps=STEPS, batch=4, learning_rate=2e-3, schedule="cosine")
history = training.train(network, pairs, recipe)
network.eval()
figures.show_history(history)


# %%
def dice(network, of=test):
    return metrics.evaluate(register(network, of.moving, of.fixed), of)["dice"]


before = metrics.evaluate(torch.zeros(64, 2, 64, 64), test)["dice"]
reached = {"SITReg": dice(network)}
trained = laws(network)
tell("SITReg, trained", trained)
print(f"Dice {before:.3f} before, {reached['SITReg']:.3f} after")
assert trained["symmetry"] == 0 and trained["no folds"] > 0
assert trained["inverse consistency"] < 0.25
assert reached["SITReg"] > {"fast": 0.92, "full": 0.94}[training.mode()] and before < 0.6

# %%
meeting = lesson.meet({"SITReg": network}, pair)
meeting

# %% [markdown]
# Drag the level from 0 (nothing has moved) to the last. Above, A and B walk towards each other, and their difference
# fades. Below, how each is bent, and in the middle $f_{AB}$ *twice*: blue, asked as (A, B); yellow on top, asked as
# (B, A). Now press **swap A and B**. Left and right change places, and nothing else: no image is the special one.
#
# ## Break it
#
# *"The limit was for the training. Now that the network has learnt, it only holds it back."* So let us take it off: the
# same trained weights, without the tanh.

# %%
unlimited = SITReg(**{**network.configuration, "limit": "none"}).eval()
unlimited.load_state_dict(network.state_dict())
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    without_limit = laws(unlimited)
tell("no limit", without_limit)
print(f"{len(said)} warnings; the first:\n{said[0].message}")
assert without_limit["no folds"] < 0 and len(said) > 0
assert without_limit["inverse consistency"] > 2 * trained["inverse consistency"]
assert without_limit["symmetry"] == 0

# %% [markdown]
# **Symptom:** folds, and a solver that warns that it did not reach the inverse. **Why:** both gifts came from the one
# limit. A map that folds has no inverse, so no iteration can find one, and inverse consistency goes as well. Symmetry
# alone survives: it never needed the inverse to be *right*, only to be computed in the same way on both sides.
# **Mend:** limit the control values. And never silence the warning of an inversion: it is the first to see a fold.
# (A network that was *trained* without the limit may get away with it: see the last section. Nothing promises it.)
#
# ## Exercise: break one half-way step, predict which law fails
#
# Three ways to save some work at each level, all with the limit on. $v_{ab}$ is short for $u(a, b)$:
#
# | name | $U_{ab}$ (moves A) | $U_{ba}$ (moves B) | the thought |
# |---|---|---|---|
# | SITReg | $v_{ab} \circ v_{ba}^{-1}$ | $v_{ba} \circ v_{ab}^{-1}$ | |
# | `"one-sided"` | $v_{ab}$ | $v_{ab}^{-1}$ | "one inverse is enough" |
# | `"B stays"` | $v_{ab} \circ v_{ba}^{-1}$ | identity | "only A has to move" |
# | `"minus"` | $v_{ab} \circ (-v_{ba})$ | $v_{ba} \circ (-v_{ab})$ | "the steps are small: minus will do" |
#
# ($-v$ means the map $x - v(x)$. Where B stays, $R$ is the identity, and $L^{-1}$ is still collected properly.) Each
# of the three breaks exactly one law: `"symmetry"`, `"inverse consistency"` or `"no folds"`. Which?

# %% tags=["exercise"]
my_laws = {"one-sided": ..., "B stays": ..., "minus": ...}

# %% tags=["solution"]
my_laws = {"one-sided": "symmetry", "B stays": "symmetry", "minus": "inverse consistency"}

# %%
check.failing_laws(my_laws)

# %% [markdown] tags=["instructor"]
# *minus* divides the room: many write "symmetry", because the formula is wrong on both sides. Exactly: wrong on both
# sides *alike*. Let them exchange a and b with a pencil. *B stays* is the most taught picture of registration (moving
# and fixed); it is the fixed image that breaks the symmetry.

# %% [markdown]
# Now measured. We give the trained weights to each broken network; nothing is trained anew.

# %%
broken = {"SITReg": network}
for name, options in {
    "one-sided": {"update": "one_sided"},
    "B stays": {"meeting": "fixed"},
}.items():
    broken[name] = SITReg(**{**network.configuration, **options}).eval()
    broken[name].load_state_dict(network.state_dict())
broken["minus"] = copy.deepcopy(network)
broken["minus"].factors = lambda step: (step, -layers.swap(step))  # v, and minus the other v

measured = {name: laws(each) for name, each in broken.items()}
for name, kept in measured.items():
    tell(name, kept)
    reached[name] = dice(broken[name])
assert measured["one-sided"]["symmetry"] > 1 and measured["B stays"]["symmetry"] > 0.01
assert measured["minus"]["symmetry"] == 0
assert measured["minus"]["inverse consistency"] > 4 * trained["inverse consistency"]
for name in ("one-sided", "B stays"):
    assert measured[name]["inverse consistency"] < 2 * trained["inverse consistency"]
assert all(kept["no folds"] > 0 for kept in measured.values())

# %%
comparison = lesson.meet(broken, pair)
comparison

# %% [markdown]
# Choose a network and swap: where symmetry is broken, the yellow grid leaves the blue one. For *minus* the two grids
# coincide, and the caption tells what they do not show: the way home is lost.

# %%
print({name: f"Dice {value:.3f}" for name, value in reached.items()})
assert reached["minus"] > reached["SITReg"] - 0.05

# %% [markdown]
# And its Dice is nearly as good. A score of overlap would never have told you.
#
# ### One law less
#
# Symmetry can be given up alone. *One-sided* does it by never looking at $v_{ba}$. Is that the reason? Write
# `my_update(v_ab, v_ba)`, in which **both** steps count, and which returns $U_{ab}$ and $U_{ba}$ such that they undo
# each other and do not fold, **but** symmetry is broken. `check.safe_steps()` gives two steps to try it on;
# `fields.compose` and `regkit.invert` are all that you need.

# %% tags=["exercise"]
my_update = ...  # for example: lambda v_ab, v_ba: (v_ab, v_ba)


# %% tags=["solution"]
def unfair(v_ab, v_ba):
    update = fields.compose(v_ab, v_ba)  # any update that treats the two differently
    return update, regkit.invert(update)


my_update = unfair

# %%
check.one_law_less(my_update)

# %% [markdown]
# ## Can a law be learnt? Five variants, trained on brains
#
# So far the broken networks had borrowed weights. Now each variant was trained for itself, on slices of synthetic
# brains; the weights come with regkit.
#
# * **reference**: SITReg as above, wider;
# * **velocity**: what the network says is read as a velocity $w$ (tutorial 05), and $U = \exp(w_{ab} - w_{ba})$, seven
#   squarings in place of the inversion: exchange $a$ and $b$, and the sign turns (the paper, Table A5, counts five
#   times the memory for it in each update);
# * **one-sided** and **towards fixed** ("B stays"): not symmetric by construction, but trained in both directions;
# * **no limit**: no tanh.
#
# Before you run it: which of the last three has *learnt* the law that it was not given?

# %%
brains = types.stack(benchmarks.BENCHMARKS["brains"].held_out)  # 32 pairs
trained_on_brains = {
    name: studies.load("sitreg", name).model for name in studies.VARIANTS["sitreg"]
}
kept = {name: laws(each, brains) for name, each in trained_on_brains.items()}
overlap = {name: dice(each, brains) for name, each in trained_on_brains.items()}
for name, numbers in kept.items():
    tell(name, numbers)

figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), sharey=True, layout="compressed")
labels = {"symmetry": "two answers apart (voxels)", "inverse consistency": "round trip (voxels)"}
for panel, (law, label) in zip(axes, labels.items(), strict=False):
    panel.barh(list(kept), [numbers[law] for numbers in kept.values()], color="#d55e00")
    panel.set(title=law, xlabel=label, xlim=(0, 0.6))  # one scale for both
axes[2].barh(list(overlap), list(overlap.values()), color="#0072b2")
axes[2].set(title="overlap", xlabel="mean Dice of 32 held-out pairs", xlim=(0, 1))
axes[0].invert_yaxis()

# %%
assert all(kept[name]["symmetry"] == 0 for name in ("reference", "velocity", "no limit"))
assert all(0.02 < kept[name]["symmetry"] < 3 for name in ("one-sided", "towards fixed"))
assert all(numbers["inverse consistency"] < 0.2 for numbers in kept.values())
assert kept["reference"]["no folds"] > 0
assert max(overlap.values()) - min(overlap.values()) < 0.1 and overlap["reference"] > 0.75
print({name: str(studies.results("sitreg", name)["dice"]) for name in overlap})

# %% [markdown]
# (Dice again, mean ± standard deviation; in brackets: trainings from how many seeds.) What is left of the round trips
# is interpolation, some hundredths of a voxel. Training brought the two answers within a voxel of each other: nearly
# symmetric. *Nearly* is what losses give, on the data they have seen. The law by construction is exact, on every pair,
# and here it costs no overlap.
#
# And **no limit**? It keeps every law here. Did it learn to stay below the bound? (Level 4 is the coarsest, one arrow
# for 16 × 16 voxels, and comes first; level 0 has an arrow for each voxel.)

# %%
beyond = []
with torch.no_grad():
    stages = list(trained_on_brains["no limit"].stages(brains.moving, brains.fixed))
for level, stage in zip(reversed(range(len(stages))), stages, strict=True):
    beyond.append((stage.control.abs().max() / sitreg.control_bound(2**level, 2)).item())
    least = regkit.jacobian_determinant(stage.step).min().item()
    print(
        f"level {level}: up to {beyond[-1]:.1f} times the bound; least |J| of the step {least:.2f}"
    )
assert max(beyond) > 1.2

# %% [markdown]
# It did not. But neighbouring arrows point the same way, and the bound is made for the worst pattern, in which they
# oppose each other. On these brains the worst pattern never comes. A law that happens to hold is not a law: you would
# have to look at every pair.

# %%
in_brains = lesson.meet(trained_on_brains, brains, item=3)
in_brains

# %% [markdown] tags=["instructor"]
# For the discussion: when is *nearly* enough? For a segmentation, often. For a mean shape, or growth measured from two
# scans, the asymmetry is a bias: the result depends on which scan was called fixed, and it does so in every subject in
# the same direction.

# %% tags=["instructor"]
widgets = (fold_o_meter, inverter, meeting, comparison, in_brains)
assert [error for view in widgets for error in view.errors] == []

# %% [markdown]
# ## Take away
#
# > * **By construction** beats **by loss**: $U(a, b) = u(a, b) \circ u(b, a)^{-1}$ is symmetric for any network $u$,
# >   trained or not, bit for bit.
# > * **One limit, two gifts**: control values below the bound give steps that cannot fold *and* an inverse that an
# >   iteration finds.
# > * An **implicit layer** differentiates the equation, not the iterations: it keeps $u$ and $z$, nothing else.
# > * **One law does not bring the others.** Test each: two answers compared, the round trip, the least $|J|$.
# > * Composed maps are stored at voxels. "By construction" holds up to interpolation: **still measure**.
#
# **Next.** SITReg treats both images alike. But one convolution treats all *places* alike: bone, air and brain, one
# kernel for all. What if each kind of tissue had its own? *SACB-Net.*
