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
# # 11 · SM-GICNet
#
# *Find the head, then the lobes, then the ventricles, then the folds.*
#
# **Goals.** After this notebook you can build a wavelet pyramid and say what it keeps that averaging throws away, add
# velocities over levels and turn them all around with one minus, compute the gradient inverse consistency of a round
# trip, and tell from measurements which part of a network buys reach, and which one costs it.
#
# **Before you start.** Capture range (03), velocities (05), GradICON (07). The method: *SM-GICNet*, Bai, Zhang, Che and
# Li, submitted to MIDL 2025.
#
# **Time.** You: about 75 minutes. A CPU (measured on two cores): about 35 s in fast mode, 75 s in full mode.

# %%
import math
from statistics import fmean

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, fields, losses, metrics, training, types
from regkit.course import papers, studies
from regkit.course.lessons import architecture
from regkit.course.lessons import t11_smgicnet as lesson
from regkit.data import benchmarks, brains
from regkit.models import SMGICNet
from regkit.models.smgicnet import networks as smgicnet_networks

course.begin(seconds={"fast": 35, "full": 75}, minutes=75)

# %% [markdown]
# ## The whole of it
#
# What this notebook takes apart: the trained network at work, on one held-out pair. Four levels, from left to right;
# each has a network of its own. Rows are its parts in the order of `forward`; under a box stands what flows there,
# channels·space. Colours say whose a part is: the paper's, the authors' program's where the paper is silent, or
# regkit's choice.
#
# *Look at* a part, and read below which line of regkit makes it. *Switched off* names what was trained without a part: its
# boxes fade, and the dots tell what it was worth, on all held-out pairs and with all seeds; large dots are the pair that
# is shown, bars the means, and the paper's numbers stand beside. You need not understand it yet: come back to it.

# %%
method_figure = architecture.architecture("smgicnet")
method_figure

# %% [markdown]
# ## No affine first
#
# Nearly every brain network expects its images to be aligned by an affine program first. This one is to do without:
# it gets the brains as they lie, turned and shifted against each other.
#
# Two networks, both trained on such pairs, with the same recipe. One has only its last level, which sees the images
# at full size. The other has four, from coarse to fine.

# %%
unaligned = benchmarks.BENCHMARKS["brains_unaligned"].held_out
test = types.stack(unaligned)  # 32 pairs
shown = 11
stored = {name: studies.load("smgicnet", name).model for name in studies.VARIANTS["smgicnet"]}


def register(network, moving, fixed):
    with torch.no_grad():
        return network(moving, fixed)


def dice(displacement, of=test):
    overlaps = metrics.dice(fields.warp_labels(of.moving_labels, displacement), of.fixed_labels)
    return fmean(overlaps.values())


pair = unaligned[shown]
warped = {"A": pair.moving}
for words, name in (("one level", "one level"), ("four levels", "reference")):
    found = register(stored[name], pair.moving, pair.fixed)
    warped[f"A, by {words}"] = regkit.warp(pair.moving, found.displacement)
figure, axes = plt.subplots(1, 4, figsize=(12, 3.8), layout="compressed")
for panel, (title, image) in zip(axes, [*warped.items(), ("B", pair.fixed)], strict=True):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.contour(pair.fixed_labels[0, 0] > 0, levels=[0.5], colors="#e69f00", linewidths=1)
    panel.set(title=title, xlabel="axis 1 (voxels)")
axes[0].set(ylabel="axis 0 (voxels)")
print("A, what becomes of it, and B")
# %% [markdown]
# (Orange: B's outline.)
#
# ### Predict
#
# On 32 held-out pairs the mean Dice is 0.25 before registration. With all four levels it reaches 0.67. What does the
# network with one level reach: `"below 0.4"`, `"about 0.5"`, or `"above 0.6"`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "below 0.4"

# %% [markdown] tags=["instructor"]
# Most say *about 0.5*: the last network is the largest, and its receptive field spans the image. Both true. But its
# *loss* looks through a window of nine voxels: what lies further off gives little slope. Send them back to tutorial 03.

# %%
before = dice(torch.zeros(32, 2, 64, 56))
reached = {
    name: dice(register(network, test.moving, test.fixed).displacement)
    for name, network in stored.items()
}
print(f"before {before:.3f}, one level {reached['one level']:.3f}, four {reached['reference']:.3f}")
print(f"you said: {my_prediction}")
assert before < 0.3 and reached["one level"] < 0.4 and reached["reference"] > 0.64, (
    "below 0.3 before, below 0.4 with one level, above 0.64 with four, here "
    f"{before:.3f}, {reached['one level']:.3f} and {reached['reference']:.3f}: run all cells from the top"
)

# %% [markdown]
# One level fits the *outline*. Look inside: the large dark ventricles stay where A has them, and B's lie elsewhere.
# Is the reason in the network, or in its *loss*? We come to that.
#
# ## Small, and nothing thrown away
#
# To find the head one does not need the folds: a small image will do. The **Haar wavelet** halves an image. Of each
# block of 2 × 2 voxels it takes the mean (the *low band*), and the differences along each axis and along both: three
# *detail bands*. Four numbers for four voxels: nothing is lost. The sum of the squared details is the block's
# **energy**: large where the image changed inside the block. (Section 3.1 names the wavelet and refers to AMNet, of the
# same group, for what is read of it. The energy is the program's.)
#
# Write it. Each band is a quarter of a sum of $\pm a \pm b \pm c \pm d$. (The line above a function says at once what is
# right; as long as it is not, the notebook goes on with the solution.)


# %%
@check.haar_by_hand
def haar_by_hand(image):
    """The low band, and the energy of the details; (B, 1, H/2, W/2) each. image: (B, 1, H, W)."""
    a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]  # of each block of 2 x 2: the upper two
    c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]  # and the lower two
    low = ...  # the mean
    down = ...  # the upper two minus the lower two
    right = ...  # the left two minus the right two
    both = ...  # of the upper two and of the lower two the difference; and the difference of these
    return ..., ...


# %%
low, energy = haar_by_hand(pair.fixed)
theirs = smgicnet_networks.haar(pair.fixed)
apart = max((low - theirs[0]).abs().max(), (energy - theirs[1]).abs().max())
pooled = (low - F.avg_pool2d(pair.fixed, 2)).abs().max()
assert apart < 1e-6 and pooled < 1e-6, (
    f"both bands by hand are regkit's, and the low one is average pooling, here {apart:.1e} and "
    f"{pooled:.1e} off: was haar_by_hand changed?"
)
parts, whole = 4 * (low**2 + energy).sum(), (pair.fixed**2).sum()  # (Parseval) nothing is lost
assert torch.isclose(parts, whole, rtol=1e-4), (
    f"the bands' squares add up to the image's, here {parts:.3f} and {whole:.3f}: was haar_by_hand changed?"
)

# %%
levels = [(pair.fixed, None)]
for _ in range(3):
    levels.append(haar_by_hand(levels[-1][0]))
figure, axes = plt.subplots(2, 4, figsize=(11, 6), layout="compressed")
for column, (low, energy) in enumerate(reversed(levels)):
    size = f"{low.shape[2]} × {low.shape[3]} voxels"
    axes[0, column].imshow(low[0, 0], cmap="gray", vmin=0, vmax=1)
    axes[0, column].set(title=f"level {column + 1}: {size}", xticks=[], yticks=[])
    axes[1, column].set(xticks=[], yticks=[])
    if energy is None:
        axes[1, column].axis("off")
        continue
    drawn = axes[1, column].imshow(energy[0, 0].sqrt(), cmap="gray", vmin=0, vmax=0.35)
    axes[1, column].set(title="root of the energy")
bar = axes[1, 3].inset_axes([0, 0, 0.07, 1])
legend = figure.colorbar(drawn, cax=bar, label="intensity that was discarded")

# %% [markdown]
# The low band is nothing but average pooling. What the wavelet adds is the second row: *where* the discarded details
# were. Levels 2 and 3 of the network read both (level 1 the low band alone, level 4 the image).
#
# ## Velocities add
#
# Four small networks, one for each level. Each sees A's band, warped by what is known so far, and B's; and says what is
# still missing: a residual *velocity* $r_i$. The paper has no formula for how levels are joined; it says that each
# level's map is the exponential of a velocity (section 3.2). **regkit's choice**, as in LapIRN, is that velocities add,
#
# $$v_1 = r_1, \qquad v_i = r_i + 2\,\mathrm{up}(v_{i-1}), \qquad \varphi_i = \exp(v_i), \quad \varphi_i^{-1} = \exp(-v_i).$$
#
# (Twice: one voxel of a level is two of the next.) The inverse costs one more integration, and no loss has to ask for
# it. The other reading is the authors' program's: it moves the previous level's *displacement* by the residual, adds it,
# and integrates the sum again. Then $\exp(-v)$ undoes nothing any more.


# %%
@check.add_by_hand
def add_by_hand(residuals):
    """The velocity of the finest level. residuals: (B, 2, H, W), coarse to fine, each in voxels of its own grid."""
    velocity = residuals[0]
    for residual in residuals[1:]:
        wider = F.interpolate(..., scale_factor=2, mode="bilinear", align_corners=False)  # of what?
        velocity = ...
    return velocity


# %%
network = stored["reference"]
found = register(network, pair.moving, pair.fixed)  # of both directions: A onto B, B onto A
velocity = add_by_hand(found.residuals)
u_ab, u_ba = regkit.exponential(velocity)
way_back = regkit.exponential(-velocity)[:1]
ours_and_regkits = (
    (velocity, found.velocities[-1]),
    (u_ab, found.displacement[0]),
    (way_back, found.inverse),
)
apart = max((ours - regkits).abs().max() for ours, regkits in ours_and_regkits)
assert apart < 1e-4, (
    f"velocity and both ways by hand are regkit's, here {apart:.1e} voxels apart: was add_by_hand changed?"
)
home = fields.compose(u_ab[None], way_back).norm(dim=1)
print(f"A to B and back by exp(v), exp(-v): {home.mean():.3f} voxels off, {home.max():.2f} at most")
assert home.mean() < 0.1, (
    f"there and back ends within 0.1 voxels, here {home.mean():.3f}: run all cells from the top"
)

# %%
stack = lesson.level_stack(network, pair)
stack

# %% [markdown]
# Drag the **level**. Above: what the network of this level sees; below: what it adds, and where all levels together have
# come. At level 1 a brain is 8 × 7 voxels, and yet three quarters of the *motion* are found there (the line below the
# picture tells). The finer levels add short ways, and most of the *Dice*. At level 4 choose a **gate**.
#
# * The **weight** (levels 3 and 4; in the authors' program, not in the paper): both images are multiplied by a number
#   from ½ to 1, largest where they still disagree.
# * The **gates** (section 3.1 and appendix A): the last network is a U-Net, whose skip connections carry fine detail
#   past the coarse. A gate multiplies each voxel of a skip by a coefficient from 0 (closed) to 1 (open). The
#   dark line is the head's outline in the warped image; the text below the picture has the gate's true range.
#
# A gate by hand (appendix A): $\alpha = \text{sigmoid}(P\,\text{relu}(W_g g + W_x x))$, where $g$ is the skip connection and
# $x$ are the decoder's features. The three layers are given as functions.


# %%
@check.gate_by_hand
def gate_by_hand(of_skip, of_features, reduce, skip, features):
    """The skip's features times the gate's coefficients. skip, features: (B, C, H, W), of one size here."""
    both = ...  # W_g g + W_x x
    gate = ...  # F.relu, then `reduce`, then torch.sigmoid
    return ...


# %%
gate = smgicnet_networks.Gate(2, 8)  # random weights
skip, decoded = torch.rand(2, 1, 8, 16, 14)
with torch.no_grad():
    ours = gate_by_hand(gate.of_skip, gate.of_features, gate.reduce, skip, decoded)
    apart = (ours - gate(skip, decoded) * skip).abs().max()
assert apart < 1e-5, (
    f"the gate by hand is regkit's, here {apart:.1e} apart: was gate_by_hand changed?"
)

# %%
steps_up = []
for level, displacement in enumerate(register(network, test.moving, test.fixed).levels):
    steps_up.append(dice(lesson.full_size(displacement, (64, 56), 3 - level)))
print("Dice after each level:", [f"{value:.3f}" for value in steps_up])
assert all(a < b for a, b in zip([before, *steps_up], steps_up, strict=False)), (
    f"Dice rises with each level, here {before:.3f}, then {steps_up}: run all cells from the top"
)

# %% [markdown]
# ## Consistency
#
# The same network is run on (A, B) and on (B, A); $\varphi_{AB}$ and $\varphi_{BA}$ come from two answers. $\exp(-v)$ of
# the first answer is the inverse of $\varphi_{AB}$, but nothing makes the second answer agree with it. So a loss asks
# (section 3.3, in words): the Jacobian of the round trip shall be the identity matrix. The paper has no formula for it,
# and the authors' program no such term. **regkit's choice** is GradICON's,
#
# $$L_{GI} = \tfrac1d\,\mathrm{mean}\,\big|\nabla[\varphi_{AB} \circ \varphi_{BA}] - I\big|^2 .$$
#
# You know it from tutorial 07: blind to a constant offset, strict with ripples. Here a tiny step $\delta$ along each axis
# gives the slope; lengths count in units of the image's extent.


# %%
@check.gradient_inverse_by_hand
def gradient_inverse_by_hand(u_ab, u_ba, delta=1e-3):
    """Mean |∇[φ_AB ∘ φ_BA] - I|² over voxels, components and axes, times the axes; (1, 2, H, W), voxels."""
    extent = torch.tensor(u_ab.shape[2:]) - 1
    grid = fields.identity(u_ab.shape[2:])

    def left(place):  # of the way from A to B and back, in units of the extent
        middle = ...  # where φ_BA leads; fields.sample(u, p) is u at p
        home = ...  # and φ_AB from there
        return (home - place) / extent.view(1, 2, 1, 1)

    steps = delta * torch.diag(extent)
    slopes = [... for step in steps]  # step.view(1, 2, 1, 1) is a step for all places
    return sum(slope.square().mean() for slope in slopes)


# %%
by_hand = gradient_inverse_by_hand(u_ab[None], u_ba[None])
regkits = losses.gradicon(u_ab[None], u_ba[None])
assert torch.isclose(by_hand, regkits, rtol=0.02), (
    f"by hand as by regkit within 2 %, here {by_hand:.4f} and {regkits:.4f}: was the function changed?"
)
exact = gradient_inverse_by_hand(u_ab[None], way_back)
moved = gradient_inverse_by_hand(u_ab[None] + 5, way_back)  # 5 voxels aside, everywhere
print(f"L_GI of φ_AB∘φ_BA {by_hand:.4f}; of exp(v)∘exp(-v) {exact:.4f}, 5 voxels aside {moved:.4f}")
assert exact < by_hand / 3 and torch.isclose(moved, exact, rtol=0.01), (
    "exp(-v) leaves less than a third, and a constant offset changes nothing, here "
    f"{by_hand:.4f}, {exact:.4f} and {moved:.4f}: run all cells from the top"
)

# %% [markdown]
# ## The loss, term by term
#
# **The paper** (Bai et al., section 3.4) adds three parts. Levels $i$ run from coarse to fine, and the last is $k$:
#
# | term | formula, as printed | λ |
# |---|---|---|
# | symmetric (equation 2) | $L_{Sy} = \text{MSE}(A \circ \varphi_{AB}, B \circ \varphi_{BA})$ | 0.001 |
# | inverse (equation 3) | $L_{In} = \text{MSE}(\varphi_{AB} \circ \varphi_{AB}^{-1}, \text{identity})$ | 0.01 |
# | multi-level (equation 4) | $L_{Mu} = \text{MSE}(w_i, (w_i + w_{i-1})/2)$, $w_i$ the image warped at level $i$ | 0.0005 |
# | similarity | $\sum_i \alpha_i\, \text{NCC}_i$ | $\alpha_i$ not printed |
# | smoothness | $\sum_i \beta_i\, \|\nabla \varphi_i\|^2$ | $\beta_i$ not printed |
# | gradient inverse (section 3.3) | in words; it "replaces conventional regularisers" | not printed |
#
# Levels are trained one after the other: 4, 4, 6 and 6 epochs, Adam, learning rate 0.0001. "At each level" the maps are
# to be consistent (section 3.2).
#
# **The authors' program**: local NCC, squared, in windows of 3, 5, 7 and 9 voxels of the level, also of the energies;
# $\alpha_i = 2^{i-k}$; smoothness with weight 1, and a penalty on folds. $L_{Sy}$ compares $B \circ \varphi_{AB}^{-1}$
# with $B \circ \varphi_{BA}$, two pictures that should be one. What stands for equation 3 compares one corner's numbers
# with 1. And in the last stage the optimiser is not given the last network: it keeps its random weights.
#
# **regkit**: the similarity of the program, in both directions; $L_{Sy}$ of the program, $L_{In}$ and $L_{Mu}$ as
# printed, with the printed λ; $L_{GI}$ with weight 1; smoothness with 0.1. All levels are trained *together*, and the
# consistency is asked of the last level only. So what you see here is a **reconstruction**: the paper's ideas, not its
# numbers.
#
# At the test one pass of (A, B) gives $\varphi_{AB}$ and its inverse.
#
# Two terms by hand, of one direction and without their λ: $L_{Sy}$ as in the program, of
# $B \circ \varphi_{AB}^{-1}$ and $B \circ \varphi_{BA}$, and $L_{In}$.


# %%
@check.loss_terms_by_hand
def loss_terms_by_hand(a, b, u_ab, inverse_ab, u_ba):
    """L_Sy (as in the program) and L_In of one direction, without their λ. a, b: images; the rest: displacements."""
    symmetric = losses.mse(..., ...)  # of which two pictures?
    inverse = ...  # the mean square of the displacement of φ_AB ∘ φ_AB⁻¹
    return symmetric, inverse


# %%
with torch.no_grad():
    terms = network.objective(found, pair.moving, pair.fixed)
there, back = found.displacements[-1].split(1)  # of A onto B, and of B onto A
undone, undone_back = found.inverses[-1].split(1)
one_way = loss_terms_by_hand(pair.moving, pair.fixed, there, undone, back)
other_way = loss_terms_by_hand(pair.fixed, pair.moving, back, undone_back, there)
by_hand = {
    "symmetric": 0.001 * (one_way[0] + other_way[0]),
    "inverse": 0.01 * (one_way[1] + other_way[1]),
    "gradient_inverse": losses.gradicon(*found.displacements[-1].split(1), orders="both"),
}
for name, value in terms.items():
    note = f", by hand {by_hand[name]:.6f}" if name in by_hand else ""
    print(f"{name:18s} {value:+.6f}{note}")
for name, value in by_hand.items():
    assert torch.isclose(value, terms[name], rtol=1e-3, atol=1e-7), (
        f"{name} by hand is regkit's, here {value:.6f} and {terms[name]:.6f}: run all cells from the top"
    )

# %% [markdown]
# (Both directions are added. $L_{In}$ is next to nothing: $\exp(-v)$ undoes $\exp(v)$ without being asked.)
#
# ## Train it
#
# A small one (8 channels), for a moment. The stored ones took 900 steps. We measure the Dice after each of its levels.

# %%
torch.manual_seed(0)
small = SMGICNet(2, channels=8)
pairs = brains.BrainPairs(96, size=(64, 56), motion="large", aligned=False, seed=1)
STEPS = training.steps(fast=120, full=600)
curves = []


def judge(steps):
    """One more point of the curves."""
    few = types.stack(unaligned[:16])
    for_now = register(small.eval(), few.moving, few.fixed).levels
    small.train()
    curve = [dice(lesson.full_size(u, (64, 56), 3 - level), few) for level, u in enumerate(for_now)]
    curves.append((steps, *curve))


def look(step, history):
    if (step + 1) % (STEPS // 6) == 0:
        judge(step + 1)


recipe = training.Recipe(steps=STEPS, batch=2, learning_rate=2e-3)
history = training.train(small, pairs, recipe, callback=look)
complete = len(history) == STEPS  # False if you interrupt the training: less is promised then
if not complete:
    judge(len(history))

# %%
seen, *by_level = zip(*curves, strict=True)
figure, axes = plt.subplots(figsize=(7, 3.5), layout="compressed")
for level, curve in enumerate(by_level, start=1):
    axes.plot(
        seen, curve, "o-", color=plt.cm.viridis((4 - level) / 4), label=f"after level {level}"
    )
axes.set(xlabel="training steps", ylabel="mean Dice of 16 held-out pairs", ylim=(0.2, None))
axes.legend()
axes.grid(alpha=0.3)
gained = by_level[-1][-1] - before
needed = {"fast": 0.04, "full": 0.15}[training.mode()]
print(f"Dice after {len(history)} steps: {by_level[-1][-1]:.3f}")
assert gained > needed or not complete, (
    f"after {STEPS} steps Dice has risen by {needed}, here by {gained:+.3f}: run this cell again, to its end"
)

# %% [markdown]
# ## Take one part away
#
# The paper removes one component at a time (Figure 3b, bars without numbers) and reports that every one is needed.
# Here are such bars for our small benchmark: each variant trained for itself, with the same recipe. The line
# is the spread over the trainings; in brackets, from how many seeds. *Field*: how far the map is from the true one,
# within the brain; these brains are made by a program, so the truth is known.
#
# * **one level**, **two levels**: full size only; half size and full size.
# * **not symmetric**: only (A, B) is asked in training. In the loss $\exp(-v)$ takes the place of $\varphi_{BA}$, so that
#   $L_{GI}$ has next to nothing left to ask. And it sees *half* as much: one direction of each pair. So three things are
#   gone with this one, and the bar does not say which was missed.
# * **no attention**: all gates open. **No gradient inverse consistency**, **no smoothness**: without this term of the
#   loss; **neither**: without both.

# %%
names = list(stored)
measures = {"dice": "mean Dice", "exchange_error": "round trip φ_AB∘φ_BA (voxels)", "mse": "MSE"}
table = {name: studies.results("smgicnet", name) for name in names}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), sharey=True, layout="compressed")
for panel, (measure, label) in zip(axes, measures.items(), strict=True):
    values = [table[name][measure] for name in names]
    colours = ["#0072b2" if name == "reference" else "#d55e00" for name in names]
    bars = {"xerr": [value.deviation for value in values], "color": colours}
    panel.barh(names, [value.mean for value in values], **bars)
    panel.set(xlabel=label)
axes[0].invert_yaxis()
for name, row in table.items():
    print(f"{name:32s} Dice {row['dice']!s:20s} folds {row['folds'].mean:.3f} %", end="  ")
    print(f"field {row['field_error'].mean:.2f} voxels off")

# %%
score = {name: row["dice"].mean for name, row in table.items()}
second = max(score["two levels"], score["not symmetric"])
assert score["one level"] < 0.45 and second < score["reference"] - 0.05, (
    "one level stays below 0.45; two levels, and not symmetric, 0.05 below the reference, here "
    f"{score['one level']:.3f}, and {second:.3f} of {score['reference']:.3f}: run the cell above again"
)
most = max(row["folds"].mean for row in table.values())
assert most < 0.2, f"none folds at 0.2 % of the voxels, here {most:.2f} %: run the cell above again"
others = {
    name: studies.results(study, variant)["dice"]
    for name, study, variant in (
        ("VoxelMorph", "voxelmorph_unaligned", "reference"),
        ("SITReg without its affine step", "sitreg_unaligned", "no affine"),
    )
}
print({name: str(value) for name, value in others.items()})

# %% [markdown]
# Levels matter most, symmetry next (with all that goes with it). The gates, the consistency and the smoothness change
# Dice by about as much as another seed does: here these bars have no order.
# <!-- claim: SM-GICNet: levels fail = yes -->
# <!-- claim: SM-GICNet: levels = yes -->
# <!-- claim: SM-GICNet: symmetry = yes -->
# <!-- claim: SM-GICNet: attention = not told apart -->
# <!-- claim: SM-GICNet: gradient = not told apart -->
# And to be fair: on these pairs SITReg
# (tutorial 09), also without an affine step, does clearly better. VoxelMorph, which has no levels, ends where *one
# level* does. The paper's Table 1, on unaligned brains in 3D, has no such bars, but two things to learn from:

# %%
printed = papers.PRINTED["smgicnet"]
print(printed.text())
gained = [
    printed.value(f"{name}, affine first", "Dice") - printed.value(name, "Dice")
    for name in ("ICNet", "LapIRN")
]
assert min(gained) > 0.3, (
    f"an affine step is worth 0.3 of Dice to the others, here {gained}: run this cell again"
)

# %% [markdown]
# The other networks need an affine step first; this one loses little to LapIRN with one. The second column we come to.
#
# Now look at **no gradient inverse consistency**: its images fit *better* (MSE), its field is *more wrong*, and its round
# trip ends more than three times as far from home. (Near home alone is no merit: *one level* comes home best, because it
# finds least.) **No smoothness**, on the other hand, costs next to nothing: the consistency has replaced the regulariser,
# as section 3.3 says. With *neither*, nothing holds the map.
# <!-- claim: SM-GICNet: round trip = yes -->
# <!-- claim: SM-GICNet: replaces = not told apart -->
# <!-- claim: SM-GICNet: neither = yes -->

# %%
without, neither = table["no gradient inverse consistency"], table["neither"]
whole, plain = table["reference"], table["no smoothness"]
better, worse = without["mse"].mean - whole["mse"].mean, without["field_error"].mean
worse = worse - whole["field_error"].mean
assert better < 0 and worse > 0.2, (
    "without the consistency the images fit better and the field is more than 0.2 voxels worse, here "
    f"MSE {better:+.5f} and field {worse:+.2f}: run the table's cell again"
)
times = without["exchange_error"].mean / whole["exchange_error"].mean
assert times > 3, (
    f"its round trip ends more than three times as far from home, here {times:.1f} times: "
    "run the table's cell again"
)
costs = whole["dice"].mean - plain["dice"].mean
lost = plain["dice"].mean - neither["dice"].mean
assert abs(costs) < 0.05 and lost > 0.03, (
    "no smoothness costs less than 0.05 of Dice, and neither of the two 0.03 more, here "
    f"{costs:+.3f} and {lost:+.3f}: run the table's cell again"
)

# %%
method_figure

# %% [markdown]
# The figure from the top, with all of these trainings: which boxes fade, and which terms of the loss?
#
# ## Break it
#
# *"How many folds? I take the determinant of the displacement's gradient."* A common slip: $\det(\nabla u)$ in place of
# $\det(I + \nabla u)$.

# %%
fields_of = {name: register(stored[name], test.moving, test.fixed).displacement for name in names}
generator = torch.Generator().manual_seed(0)
noise = torch.randn(32, 2, 8, 7, generator=generator)
fields_of["random, smooth"] = F.interpolate(noise, (64, 56), mode="bicubic")
slipped = {}
for name, u in fields_of.items():
    down, right = (u.diff(dim=axis)[:, :, :63, :55] for axis in (2, 3))
    slipped[name] = (
        ((down[:, 0] * right[:, 1] - down[:, 1] * right[:, 0]) <= 0).float().mean().item()
    )
    true = metrics.folds(u).percent
    print(f"{name:32s} folds {true:.3f} %; with the slip {100 * slipped[name]:.0f} %")
assert all(0.35 < share < 0.65 for share in slipped.values()), (
    f"with the slip 35 to 65 % of the voxels fold in every field, here {slipped}: run this cell again"
)
true = metrics.folds(fields_of["reference"]).percent
assert true < 0.05, f"the reference folds below 0.05 %, here {true:.3f} %: run this cell again"

# %% [markdown]
# **Symptom:** about half of all voxels "fold", in every method alike, good or bad. **Why:** without the identity the
# determinant of any smooth field is positive or negative like a coin. **Fix:** $\det(I + \nabla u)$, and a test: the
# identity has no folds, $u = -2x$ along one axis nothing but folds. When a table of folds says 0.5 for everybody, do not
# compare its entries: ask how they were computed.
#
# Look again at the paper's Table 1 above: .483 to .503 for all networks, whatever their Dice. The program that made the
# table is not published, so this stays a guess; but these are the slip's numbers, and they say nothing about folds.

# %%
column = [printed.value(name, '"|JD| <= 0"') for name in printed.rows]
assert all(0.35 < share < 0.65 for share in column), (
    f"the printed shares lie where the slip's do, here {column}: run this cell again"
)

# %% [markdown]
# ## Growing displacement
#
# Brains that *were* aligned (their shapes still differ), misaligned by our own hand: turned, or shifted. In training,
# each brain was turned by up to 20° and shifted by up to 2.4 voxels along each axis; two differ by up to twice that.

# %%
aligned = types.stack(benchmarks.BENCHMARKS["brains"].held_out[:16])
compared = ("one level", "two levels", "not symmetric", "no attention")
networks = {
    name: stored[name] for name in ("reference", *compared, "no gradient inverse consistency")
}


def turn(degrees):
    a = math.radians(degrees)
    matrix = [[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0]]
    return fields.affine_displacement(torch.tensor([matrix]), (64, 56))


def shift(voxels):
    direction = torch.tensor([0.6, 0.8]).view(1, 2, 1, 1)
    return voxels * direction.expand(1, 2, 64, 56)


turns = {f"{degrees}": turn(degrees) for degrees in (0, 10, 20, 30, 40, 50)}
turning = lesson.growing_displacement(networks, aligned, turns, words="turned by (degrees)", item=3)
turning

# %%
shifts = {f"{voxels}": shift(voxels) for voxels in (0, 2, 4, 6, 8, 10)}
shifting = lesson.growing_displacement(
    networks, aligned, shifts, words="shifted by (voxels)", item=3
)
shifting

# %% [markdown]
# ## Exercise: which switch matters as the displacement grows?
#
# In the second picture set the chart to *lost against the reference*, and choose one network after the other *beside the
# reference*. For three switches: is more lost without it at **6 voxels** than at **0**? Answer `"more"`,
# `"about as much"` (the two differ by less than 0.05) or `"less"`. (For the levels take *two levels*. Below 0, something is
# gained.)

# %% tags=["exercise"]
my_switches = {"levels": ..., "symmetric": ..., "gradient inverse": ...}

# %% tags=["solution"]
my_switches = {"levels": "more", "symmetric": "about as much", "gradient inverse": "about as much"}

# %%
check.growing_gap(my_switches)

# %%
grows = {}
for view, last in ((turning, "30"), (shifting, "6")):
    scene = view.scene
    at = list(scene.moving).index(last)
    for name in ("two levels", "not symmetric", "no attention", "no gradient inverse consistency"):
        lost = [a - b for a, b in zip(scene.dice("reference"), scene.dice(name), strict=True)]
        grows[last, name] = lost[at] - lost[0]
        print(
            f"{scene.words} {last}, {name:32s} lost {lost[0]:+.3f} at 0, {lost[at]:+.3f} at {last}"
        )
for last in ("30", "6"):
    two, one_way, no_loss = (
        grows[last, name]
        for name in ("two levels", "not symmetric", "no gradient inverse consistency")
    )
    assert two > 0.07 and two > max(one_way, no_loss) + 0.05, (
        "more is lost with two levels, by 0.07 and by 0.05 more than with another switch, here "
        f"{two:+.3f}, {one_way:+.3f} and {no_loss:+.3f} at {last}: run both growing pictures' cells again"
    )
assert max(abs(one_way), abs(no_loss)) < 0.05, (
    "at 6 voxels not symmetric and without the consistency lose about as much, here "
    f"{one_way:+.3f} and {no_loss:+.3f}: run both growing pictures' cells again"
)

# %% [markdown]
# **Levels buy reach.** *How*, these trainings do not say. With a level come two things: a network that sees the images
# small, and a term of the loss that compares them small. The control, one network under a loss of all sizes, was not
# trained. What can be measured is the loss alone. Shift a brain against itself:

# %%
from_home = torch.arange(0, 25, 2)
slopes = {}
for level, window in ((3, 3), (0, 9)):  # an eighth of the size; full size
    still = F.avg_pool2d(aligned.fixed, 2**level) if level else aligned.fixed
    prices = []
    for voxels in from_home.tolist():
        away = regkit.warp(aligned.fixed, shift(float(voxels)).expand(16, -1, -1, -1))
        away = F.avg_pool2d(away, 2**level) if level else away
        prices.append(losses.lncc(away, still, window=window).item())
    steepest = prices[-1] - prices[0]
    slopes[level] = [(price - prices[0]) / steepest for price in prices]
    told = ", ".join(
        f"{voxels}: {100 * share:.0f}"
        for voxels, share in zip(from_home.tolist(), slopes[level], strict=True)
    )
    print(
        f"{'window 3 at an eighth' if level else 'window 9 at full size'}: % of the way up at a shift of {told}"
    )
at_six = {level: rise[from_home.tolist().index(6)] for level, rise in slopes.items()}
assert at_six[0] > at_six[3] + 0.2, (
    f"at 6 voxels the fine loss has risen further than the coarse one, here {at_six[0]:.2f} and {at_six[3]:.2f}: "
    "run this cell again"
)

# %% [markdown]
# The fine loss has nearly all of its rise behind it after a few voxels: further out it hardly says where to go (tutorial
# 03's capture range). The coarse one still rises. That *fits* the loss as the reason, and VoxelMorph, one U-Net under
# the same window of 9, fails in the same way. It is no proof.
#
# The consistency is a *price* on motion that the other direction does not undo; far out, beyond what training has shown,
# the network without it reaches further (and its maps are worse: see above). These are the trained weights of one seed
# each: a gap of a hundredth is no finding.
#
# ### The way back
#
# Write `my_way_back(residuals)`: from what the levels add, coarse to fine (`check.three_levels()` gives some, in
# voxels of each level), the displacement of the *inverse* at full size. `fields.upsample(v)` doubles grid and numbers.

# %% tags=["exercise"]
my_way_back = ...  # a function


# %% tags=["solution"]
def against_the_wind(residuals):
    return regkit.exponential(-add_by_hand(residuals))


my_way_back = against_the_wind


# %%
check.way_back(my_way_back)

# %% tags=["instructor"]
errors = [error for view in (stack, method_figure, turning, shifting) for error in view.errors]
assert errors == [], f"no view had an error, here {errors}: run the view's cell again"

# %% [markdown]
# ## Make it yours
#
# SM-GICNet in three dimensions, on tensors of your own, (1, 1, *space) of one size, intensities in [0, 1], and with a
# similarity of your own: any function or module of two images that is smaller, the better they agree. The networks'
# width is `channels`. (`regkit.save` keeps no function: it refuses, and says what to do.)


# %%
def my_similarity(warped, fixed):
    return (warped - fixed).abs().mean()


my_pair = regkit.data.synthetic_pair(3, seed=1, size=(48, 48, 48))  # or regkit.types.Pair(…)
my_network = SMGICNet(3, similarity=my_similarity, channels=8)
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
# > * A **Haar** step: the low band is average pooling; the **energy** remembers where the discarded detail was.
# > * **Velocities add** over levels; the inverse of all of them is $\exp(-v)$, one minus.
# > * **Gradient inverse consistency** asks for $\nabla[\varphi_{AB}\circ\varphi_{BA}] = I$. It can stand in for a
# >   smoothness term: it regularises, and a better-fitting image without it is a worse map.
# > * **Levels buy reach**; the loss at coarse sizes is the likely reason. What the gates buy is lost in the spread.
# > * An ablation without its **spread** is an anecdote, and $\det(\nabla u)$ is no count of folds.
#
# **Next.** All of this in a plane. A brain has three axes, a spacing, an orientation, and 64 times the voxels.
# *Into 3D: brains.*
