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
# # 03 · Similarity landscapes
#
# *A registration goes downhill on a loss. Does it arrive? This depends on the shape of the landscape, more than on the
# optimiser.*
#
# **Goals.** After this notebook you can write five losses from scratch: the mean squared error (MSE), the normalised
# cross-correlation (NCC), the local NCC (LNCC), the adaptive NCC and the mutual information (MI). For each you can say which
# changes of the images it ignores, and from how far away it finds the right place (its *capture range*). And you can test a
# gradient.
#
# **Before you start.** Tutorial 02: warping pulls. Mean, variance and correlation; PyTorch's `backward()`.
#
# **Time.** You: about 75 minutes. A CPU (measured on two cores): about 14 s in either mode. Nothing is trained here.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, fields, figures, losses
from regkit.course import league
from regkit.course.lessons.t03_similarity_landscapes import (
    SIMILARITIES,
    capture_range,
    landscape_viewer,
    show_curves,
    sweep,
    t1_and_t2,
)

course.begin(seconds={"fast": 14, "full": 14}, minutes=75)

# %% [markdown]
# ### Three questions on what was before
#
# 1. All arrows point 10 voxels to the right. Which way does the image go?
#    * a: To the right.
#    * b: Only its edges move.
#    * c: To the left.
# 2. Where does a point p of the fixed image lie in the moving image?
#    * a: At p + u(p).
#    * b: At p - u(p).
#    * c: At u(p).
# 3. Two displacements, one after the other: how is the image warped?
#    * a: Twice: once by each.
#    * b: Once, by the composed displacement.
#    * c: Once, by their sum.
#
# Answer by three letters.

# %% tags=["exercise"]
my_recap = ...  # such as "abc"

# %% tags=["solution"]
my_recap = "cab"

# %%
check.recap_03(my_recap)

# %% [markdown] tags=["instructor"]
# Talk 15 minutes, work 60. Answers to expect. Predict: *fall* from most, *stay* is right. Exercise 1: `1 - image`
# first; a gain above 2 is right. T1 with T2: "NCC, since it ignores contrast" first.

# %% [markdown]
# ## Two discs that do not touch
#
# The moving image shows a white disc at the right, the fixed image one at the left. Their centres are 24 voxels apart, and
# each disc is 11 voxels wide. Clearly the moving disc should go left.


# %%
def disc(column, radius=6.0):
    middle = torch.tensor([32.0, column]).view(1, 2, 1, 1)
    grid = fields.identity((64, 64))  # (1, 2, H, W): row and column of each voxel
    return ((grid - middle).norm(dim=1, keepdim=True) < radius).float()


fixed, moving = disc(20.0), disc(44.0)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="compressed")
for panel, image, title in ((axes[0], moving, "moving"), (axes[1], fixed, "fixed")):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set(title=title, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
shared, width = int((moving * fixed).sum()), int((fixed[0, 0, 32] > 0).sum())
assert shared == 0 and width == 11, (
    f"the discs share no voxel and are 11 wide, here {shared} and {width}: was `disc` changed?"
)

# %% [markdown]
# ### Predict
#
# We move the disc by **one voxel** towards its goal, from column 44 to column 43. What does the MSE, the mean of
# $(\text{moving} - \text{fixed})^2$ over all voxels, do: does it `"fall"`, `"stay"` or `"rise"`?

# %% tags=["exercise"]
my_prediction = ...  # "fall", "stay" or "rise"

# %% tags=["solution"]
my_prediction = "stay"

# %%
nudged, away = disc(43.0), disc(45.0)  # one voxel towards the goal, one voxel away from it
for name, loss in SIMILARITIES.items():
    print(f"{name:13} {loss(moving, fixed):+.4f} before, {loss(nudged, fixed):+.4f} after")
print("you said:", "nothing yet" if my_prediction is ... else my_prediction)

for blind in (losses.mse, losses.ncc, losses.lncc, losses.mutual_information):
    change = max(abs(blind(image, fixed) - blind(moving, fixed)) for image in (nudged, away))
    assert change < 1e-6, (
        f"{blind.__name__} does not change with one voxel, here {change:.1e}: run all cells from the top"
    )
seen = [losses.adaptive_ncc(image, fixed).item() for image in (nudged, moving, away)]
assert seen[0] + 0.03 < seen[1] < seen[2] - 0.03, (
    "adaptive NCC falls by more than 0.03 on the way to the goal and rises on the way off, here "
    f"{seen[0]:.3f}, {seen[1]:.3f} and {seen[2]:.3f}: run all cells from the top"
)

# %% [markdown]
# (`SIMILARITIES` holds regkit's five losses by name. All are **losses**: lower is better.)
#
# It **stays**. As long as the discs do not overlap, every voxel of both counts as wrong, wherever the moving disc lies. One
# voxel in the wrong direction costs the same. The landscape is a **plain**: nothing shows which way to go. Only the
# adaptive NCC changes here. It also compares blurred and smaller copies, in which the discs *do* overlap.
#
# This holds for a **shift**, which moves the disc as a whole. What if each voxel has an arrow of its own?

# %%
right = torch.tensor(0.5, requires_grad=True)  # one shift for all voxels
losses.mse(check.shifted(moving, right), fixed).backward()
arrows = torch.zeros(1, 2, 64, 64)
arrows[:, 1] = 0.5  # the same shift, as one arrow for each voxel
losses.mse(regkit.warp(moving, arrows.requires_grad_()), fixed).backward()

sloped = arrows.grad[0].norm(dim=0) > 0  # (H, W)
middle = torch.tensor([32.0, 43.5]).view(2, 1, 1)  # of the warped disc
off_rim = ((fields.identity((64, 64))[0] - middle).norm(dim=0) - 6).abs()
print(f"slope of the MSE over the shift: {right.grad:.6f}")
print(
    f"{sloped.sum()} of 4096 arrows have a slope, at most {off_rim[sloped].max():.1f} off the rim"
)
assert right.grad.abs() < 1e-6, (
    f"the shift has no slope, here {right.grad:.1e}: run this cell again"
)
assert sloped.sum() > 20 and off_rim[sloped].max() < 2, (
    "more than 20 arrows have a slope, all within 2 voxels of the rim, here "
    f"{sloped.sum()} within {off_rim[sloped].max():.1f}: run this cell again"
)

# %% [markdown]
# At the rim of the moving disc there is a slope: the MSE falls when the disc **shrinks**, because it lies where the fixed
# image is black. On opposite sides the slopes are opposite, so they cancel, and **a shift** has none. A **field** has: its
# arrows are free. They do not point to the goal, but they move the rim, and the smoothness passes this on. (Tutorial 06
# optimises a field from there. It arrives, but on a long detour.)

# %% [markdown] tags=["instructor"]
# Most say *fall*: they see where the disc should go, but the loss does not. Worth two minutes: which voxels contribute to
# the MSE before, and which after? Then ask what *Dice* does (it stays too, at 0).

# %% [markdown]
# ## Five losses by hand
#
# Let $a$ be the warped and $b$ the fixed image, $\operatorname{cov}$ their covariance, $\sigma$ a standard deviation,
# and $\varepsilon$ a tiny number that prevents a division by zero:
#
# $$\text{MSE} = \operatorname{mean}\,(a-b)^2 \qquad
# \text{NCC} = 1 - \frac{\operatorname{cov}(a, b)}{\sigma_a\,\sigma_b} \qquad
# \text{LNCC} = -\operatorname{mean}_x \frac{c(x)^2}{v_a(x)\,v_b(x) + \varepsilon}$$
#
# NCC is 0 for a perfect match, 1 for none and 2 for an inverted image. Write the first two: replace each `...`. The line
# above a function says at once what is right. Until it is, the notebook goes on with the solution.


# %%
@check.mse_by_hand
def mse_by_hand(a, b):
    """The mean squared difference, one number. a, b: (1, 1, H, W)."""
    return ...


# %%
@check.ncc_by_hand
def ncc_by_hand(a, b):
    """1 minus the correlation, one number from 0 to 2. a, b: (1, 1, H, W)."""
    a, b = ..., ...  # each image, less its own mean
    # cov: the mean of the product. σ: the root of the mean square. Use .mean(), .square(), .sqrt()
    return ...


# %% [markdown]
# LNCC takes the covariance $c$ and the variances $v$ in a small window around each voxel $x$, here of 9 × 9 voxels, and
# squares the correlation. -1 is a perfect match in every window. Flat windows count 0, so an image with flat parts does not
# reach -1 with itself. There is no need to subtract a mean in each window. With sums $S$ over a window of $n$ voxels:
#
# $$c = S(ab) - S(a)\,S(b)/n, \qquad v_a = S(a^2) - S(a)^2/n, \qquad v_b = S(b^2) - S(b)^2/n$$
#
# (VoxelMorph: Balakrishnan et al. 2019. These are $n$ times the means; apart from $\varepsilon$ this cancels.)


# %%
@check.lncc_by_hand
def lncc_by_hand(a, b, window=9, epsilon=1e-5):
    """Minus the squared correlation in windows, their mean. a, b: (1, 1, H, W); window: odd."""

    def total(image):  # S: the sum over the window around each voxel; outside the image lie zeros
        return window**2 * F.avg_pool2d(image, window, stride=1, padding=window // 2)

    cross = ...  # c, at each voxel: (1, 1, H, W)
    variance_a = ...
    variance_b = ...
    return ...  # one number


# %% [markdown]
# The **adaptive NCC** (GradICON: Tian et al. 2023, section 5.2) computes the NCC $s_i$ at 5 scales: of the images as they
# are ($s_0$), blurred ($s_1$), and halved once, twice, three times and blurred ($s_2$ to $s_4$). It mixes them from fine to
# coarse with weights $\gamma_i$; $\alpha = 0.1$, $\beta = 1.3$:
#
# $$g_0 = s_0, \qquad g_i = \gamma_i\, s_i + (1 - \gamma_i)\, g_{i-1}, \qquad
# \gamma_i = \operatorname{clamp}\big(s_i \,\beta^{4-i} / \alpha,\ 0,\ 1\big), \qquad \text{the loss is } g_4$$
#
# (clamp: cut to the range from 0 to 1.) As long as a coarse scale fits badly, its $\gamma$ is 1, and the finer scales do not
# count. For the gradient, each $\gamma_i$ is a **constant**: `x.detach()` has the value of `x`, and no gradient.


# %%
def ncc_of_scales(a, b):
    """s: the NCC at five scales, from fine to coarse, (5,)."""
    s = [ncc_by_hand(a, b)]
    for halvings in range(4):
        if halvings > 0:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        # blur both: a Gaussian with a standard deviation of 2 voxels, cut off at 2 voxels
        blurred = [losses.gaussian_blur(image, 2.0, radius=2) for image in (a, b)]
        s.append(ncc_by_hand(*blurred))
    return torch.stack(s)


# %%
@check.mix_by_hand
def mix_by_hand(s, alpha=0.1, beta=1.3):
    """Mix the NCC of several scales into one loss. s: (scales,), from fine to coarse."""
    g, coarsest = s[0], len(s) - 1
    for i in range(1, len(s)):
        gamma = ...  # a constant from 0 to 1
        g = ...  # s[i], mixed with the g so far
    return g


# %% [markdown]
# **Mutual information** asks for less than the others: not equal values, only that one value *predicts* the other. Count how
# often the value $a$ meets the value $b$ at a voxel, in bins. This table, divided by the number of voxels, is the **joint
# histogram** $p(a, b)$. Its sums over rows and columns are the histograms $p(a)$, $p(b)$ of the two images. Then
#
# $$I = \sum_{a, b} p(a, b) \log \frac{p(a, b)}{p(a)\,p(b)}, \qquad \text{and the loss is } -I .$$
#
# (With the natural logarithm, its unit is the *nat*.) If the values have nothing to do with each other, $p(a, b) = p(a)\,p(b)$, and $I = 0$. (Viola and Wells 1997; Maes et al.
# 1997. regkit spreads each voxel over several bins, so that there is a gradient: Mattes et al. 2003.)


# %%
def joint_histogram(a, b, bins=32):
    """How often a value of a meets a value of b, (bins, bins); it sums to 1. a, b: (1, 1, H, W)."""
    rows, columns = (  # the bin of each voxel: 0 for the least value, bins - 1 for the largest
        ((image - image.min()) / (image.max() - image.min()) * (bins - 1)).round().long().flatten()
        for image in (a, b)
    )
    counts = torch.bincount(bins * rows + columns, minlength=bins**2)
    return counts.view(bins, bins) / len(rows)


# %%
@check.information_by_hand
def information_by_hand(p):
    """I of a joint histogram p, (bins, bins), one number in nats. A bin that nothing meets counts 0."""
    p_a, p_b = ..., ...  # the sums over columns, (bins, 1), and over rows, (1, bins)
    return ...  # the formula; table[p > 0] is a table where p is above 0


# %% [markdown]
# Compare them with regkit, on two real images: the slice of a scan that you know, and a shifted copy with noise.
# `check.shifted(image, right)` warps an image with the arrow (0, `right`) at every voxel. `right` is a tensor with one
# number, in voxels, so that we can take a gradient later.

# %%
brain = check.brain_slice()  # (1, 1, 96, 96)
shift = torch.tensor(3.3)
noise = 0.1 * torch.randn(brain.shape, generator=torch.Generator().manual_seed(0))
other = check.shifted(brain, shift) + noise


def adaptive_by_hand(a, b):
    return mix_by_hand(ncc_of_scales(a, b))


def mi_by_hand(a, b):
    return -information_by_hand(joint_histogram(a, b))


hand = (mse_by_hand, ncc_by_hand, lncc_by_hand, adaptive_by_hand, mi_by_hand)
for (name, loss), by_hand in zip(SIMILARITIES.items(), hand, strict=True):
    print(f"{name:13} regkit {loss(other, brain):+.5f}, by hand {by_hand(other, brain):+.5f}")
    ours, regkits = by_hand(other, brain), loss(other, brain)
    near = 0.15 if name == "MI" else 1e-5  # the bins of regkit are soft, ours are not
    assert torch.isclose(regkits, ours, rtol=1e-3, atol=near), (
        f"{name} by hand is regkit's, here {ours:.5f} and {regkits:.5f}: was the function changed?"
    )

# %% [markdown]
# ## The landscape
#
# Slide the brain over itself, by -40 to 40 voxels, and record each loss. `sweep(moving, fixed, right=shifts)` gives a list
# of values for each loss, and `show_curves` plots them. (The shift is that of the arrows, so the image goes the other way:
# warping pulls.) The **capture range** (green) is the range around the truth from which every step downhill leads to the
# truth.

# %%
shifts = [float(place) for place in range(-40, 41)]
itself = sweep(brain, brain, right=shifts)
show_curves(itself, shifts, "the same scan")

captured = {name: capture_range(shifts, values) for name, values in itself.items()}
assert captured["MSE"] == captured["NCC"] == captured["adaptive NCC"] == (-40, 40), (
    f"three of the five capture all shifts, here {captured}: run all cells from the top"
)
assert all(5 < abs(end) < 12 for end in captured["LNCC"]), (
    f"LNCC captures between 5 and 12 voxels, here {captured['LNCC']}: run all cells from the top"
)
centre = shifts.index(0.0)
dip = itself["adaptive NCC"][centre : centre + 3]  # at 0, 1 and 2 voxels
first, second = dip[1] - dip[0], dip[2] - dip[1]
assert first > 3 * second, (
    "the first voxel costs more than three times as much as the second, here "
    f"{first:.3f} and {second:.3f}: run this cell again"
)

# %% [markdown]
# MSE and NCC are wide funnels. (They reach as far as we looked, since these images always overlap.) LNCC is a narrow hole
# in a plain: it falls only within about the width of its window, but there it is **sharp**. Adaptive NCC is a wide bowl
# with a narrow dip at the bottom. MI is wide and sharp.
#
# One detail: we took steps of whole voxels. Between them, linear interpolation blurs *one* of the two images, and the
# curve of LNCC gets **ripples**. So in fine steps its capture range is smaller again. A little blur of both images fixes
# this.

# %%
fine = np.arange(-12, 12.1, 0.25).tolist()
only_lncc = {"LNCC": losses.lncc}
figure, axes = plt.subplots(figsize=(7, 3.2), layout="compressed")
ranges = {}
for title, image, colour in (
    ("as it is", brain, "#d55e00"),
    ("blurred by 1 voxel", losses.gaussian_blur(brain, 1.0), "#0072b2"),
):
    values = sweep(image, image, right=fine, similarities=only_lncc)["LNCC"]
    ranges[title] = capture_range(fine, values)
    low, high = ranges[title]
    axes.plot(fine, values, color=colour, label=f"{title}: {low:g} to {high:g}")
axes.set(
    xlabel="shift (voxels)", ylabel="LNCC", title="in steps of a quarter of a voxel", ylim=(-0.8, 0)
)
axes.legend(frameon=False)
sharp, blurred = ranges["as it is"][1], ranges["blurred by 1 voxel"][1]
assert sharp < 4 < blurred, (
    f"4 voxels off is captured with a blur and not without, here up to {blurred:g} and {sharp:g}: "
    "run this cell again"
)

# %% [markdown]
# > **A good place to pause** (about 35 minutes so far). After the break: *Run* → *Run All Above Selected Cell*.
#
# ## Shift and turn it yourself
#
# The moving image is orange, the fixed one blue, and both are grey where they agree. Three experiments:
#
# * Show the curves over the *angle*, at shift 0. Which losses have an angle of 40° in their capture range?
# * Take *lamp at the right* as fixed image: the same head, with light from the side. Which losses still have their minimum
#   at 0?
# * Take *the same scan*, and move the shift to 0. What happens to the joint histogram, the last panel?
#
# The next cells give the answers. (At the truth every value meets only itself: the histogram becomes a line.)

# %%
ramp = torch.linspace(0, 1, 96).view(1, 1, 1, 96)
scans = {
    "the same scan": brain,
    "weaker scanner": 0.5 * brain + 0.2,
    "lamp at the right": 0.5 * brain + ramp,
    "noise": brain + 3 * noise,
}
viewer = landscape_viewer(brain, scans)
viewer

# %%
angles = [float(angle) for angle in range(-60, 61, 2)]
turned = sweep(brain, brain, degrees=angles)
for name, values in turned.items():
    low, high = capture_range(angles, values)
    print(f"{name:13} captures angles from {low:+g}° to {high:+g}°")
    assert (high < 10) if name == "adaptive NCC" else (low <= -40 and high >= 40), (
        "adaptive NCC captures less than 10°, the others more than 40°, here "
        f"{name} {low:+g}° to {high:+g}°: run this cell again"
    )

# %% [markdown]
# All but the adaptive NCC. Its curve has bumps where the weights $\gamma$ change, so it is no funnel beyond ±6°. Look at
# them closely, in steps of one degree:

# %%
degrees = [float(angle) for angle in range(-60, 61)]
only = {"adaptive NCC": losses.adaptive_ncc}
values = sweep(brain, brain, degrees=degrees, similarities=only)["adaptive NCC"]
rising = [  # where the loss falls although we go away from the truth
    degrees[k] for k in range(60, 120) if values[k + 1] < values[k]
]
figure, axes = plt.subplots(figsize=(7, 3.2), layout="compressed")
axes.plot(degrees, values, color="black")
for angle in rising:
    axes.axvspan(angle, angle + 1, color="#f0b8a8")
axes.set(
    xlabel="angle (degrees)", ylabel="adaptive NCC", title="red: away from the truth, downhill"
)
axes.set(ylim=(0, max(values)))
assert len(rising) >= 3, (
    f"on one side it falls outwards in three steps at least, here in {len(rising)}: run this cell again"
)

# %% [markdown]
# But its *gradient* still leads home from 40°, because it holds the weights $\gamma$ constant. The section *A value is not
# a slope* has more on this.
#
# ## What each loss ignores
#
# All four images in `scans` lie exactly on the brain. A good loss has its minimum at shift 0.

# %%
best = {}
for title, scan in scans.items():
    curves = sweep(brain, scan, right=shifts)
    best[title] = {name: shifts[int(np.argmin(values))] for name, values in curves.items()}
    row = ", ".join(f"{name} {place:+g}" for name, place in best[title].items())
    print(f"{title:18} best shift: {row}")
show_curves(sweep(brain, scans["lamp at the right"], right=shifts), shifts, "lamp at the right")

weaker, noisy, lamp = (best[name] for name in ("weaker scanner", "noise", "lamp at the right"))
assert set(weaker.values()) == {0.0}, (
    f"the weaker scanner misleads none, here best shifts {weaker}: run this section's cells again"
)
assert noisy["adaptive NCC"] != 0, (
    f"noise misleads adaptive NCC, here best shift {noisy['adaptive NCC']}: run this section's cells again"
)
astray = min(abs(lamp[name]) for name in lamp if name != "LNCC")
assert lamp["LNCC"] == 0 and astray > 5, (
    f"the lamp misleads all but LNCC by more than 5 voxels, here best shifts {lamp}: "
    "run this section's cells again"
)

# %% [markdown]
# The lamp misleads all but LNCC. Noise moves the lowest *value* of the adaptive NCC away from the truth (more on this
# below). The weaker scanner has half the contrast, and is 0.2 brighter everywhere. It misleads none of them here. But at the
# truth MSE is not 0, while NCC is. A stronger change of brightness makes MSE prefer a wrong place: you will find one in
# exercise 1. Two words for such changes: a **gain** multiplies all intensities by a number (here 0.5), an **offset** adds
# one (here 0.2).

# %%
at_truth = {name: values[0] for name, values in sweep(brain, scans["weaker scanner"]).items()}
print("weaker scanner, at the truth:", {name: round(value, 3) for name, value in at_truth.items()})
assert at_truth["MSE"] > 0.01 > at_truth["NCC"], (
    "at the truth MSE is above 0.01 for the weaker scanner, NCC below, here "
    f"{at_truth['MSE']:.4f} and {at_truth['NCC']:.4f}: run this section's cells again"
)
itself, negative = losses.lncc(brain, brain), losses.lncc(-brain, brain)
assert torch.isclose(negative, itself, rtol=1e-4), (
    f"LNCC ignores a negative gain, here {negative:.4f} and {itself:.4f}: run this cell again"
)
flatter = losses.lncc(brain, scans["noise"]) / itself
assert flatter < 0.5, (
    f"noise takes more than half of LNCC's depth, here {100 * flatter:.0f} % remain: run this cell again"
)

# %% [markdown]
# | loss | ignores | is misled or weakened by | capture range |
# |---|---|---|---|
# | MSE | nothing: equal tissue must have equal numbers | gain, offset, uneven light | wide where shapes overlap |
# | NCC | one positive gain and one offset for the whole image | uneven light | wide where shapes overlap |
# | LNCC | a gain and an offset *for each window*, even a negative one | little structure, noise | narrow for shifts, wide for angles |
# | adaptive NCC | as NCC, at each scale | uneven light, noise (its value) | wide for shifts, even without overlap |
# | MI | any change of values that keeps different values different | uneven light, few voxels | wide where shapes overlap |
#
# (Why is the range of LNCC narrow for shifts and wide for angles? A turn moves the voxels near the middle only a little. So
# at any angle *some* windows still overlap what belongs to them, and they lead home.)
#
# ## T1 with T2
#
# The same brain can be scanned in two ways: in a T1 image fluid is dark and white matter bright, in a T2 image it is the
# other way round. No gain and offset turns one into the other. Here are both, synthetic and **aligned**. Show the curves
# over the *angle*, at shift 0. Which losses have their minimum at 0?

# %%
t1, t2 = t1_and_t2((64, 64))
landscape_viewer(t1, {"T2": t2, "T1": t1})

# %%
turned = sweep(t1, t2, degrees=angles)
best = {name: abs(angles[int(np.argmin(values))]) for name, values in turned.items()}
print({name: f"{angle:g}° off" for name, angle in best.items()})
assert (
    best["MI"] == best["LNCC"] == 0 and min(best["MSE"], best["NCC"], best["adaptive NCC"]) > 4
), (
    "MI and LNCC find the angle, the other three are more than 4° off, here (degrees) "
    f"{best}: run this section's cells again"
)

# %% [markdown]
# **NCC fails**: at the truth, bright lies on dark in one place and on bright in another, so the correlation is weak. Its
# minimum is 10° away, where the outlines nearly fit and less contradicts. MI only asks whether one value *predicts* the
# other: a single line or three spots in the joint histogram are equally good. LNCC also works, since its windows are small
# and it squares the correlation. If you register different contrasts, choose MI, LNCC, or descriptors such as MIND-SSC
# (`losses.mindssc`).
#
# There is no best loss. That is why some networks use **LNCC on several scales** (SPnet, tutorial 08; SM-GICNet,
# tutorial 11). Another uses a loss that changes its scale on the way (GradICON, tutorial 07).
#
# ## A value is not a slope
#
# Under noise, the curve of the adaptive NCC has a bump at the truth. Along the curve the weights $\gamma$ change, but the
# gradient holds them constant. So the curve and the gradient may disagree. To see it, measure the slope of the curve
# without any gradient, by a **central difference**: take the values one step $h$ to either side of $x$. By how much does
# $f$ change for each unit of $x$?


# %%
@check.slope_by_hand
def slope_by_hand(f, x, h):
    """The slope of f at x, by a central difference. f: from number to number; h: the step."""
    return ...


# %% [markdown]
# At a shift of 1.3 voxels:


# %%
def noisy(right):
    return losses.adaptive_ncc(check.shifted(brain, right), scans["noise"])


here = torch.tensor(1.3, requires_grad=True)
noisy(here).backward()
along = slope_by_hand(lambda place: noisy(torch.tensor(place)).item(), 1.3, 0.1)
print(f"slope of the curve {along:+.3f}, automatic gradient {here.grad.item():+.3f}")
# The curve falls away from the truth; against the gradient it goes back to the truth:
assert along < 0 < here.grad, (
    "the curve falls where the automatic gradient is positive, here "
    f"{along:+.3f} and {here.grad:+.3f}: run this cell again"
)

# %% [markdown]
# The curve falls towards larger shifts, away from the truth. An optimiser steps *against* the gradient, which is
# positive: towards smaller shifts, home. So the bumps do no harm here. But remember them when you compare values of this
# loss: *lower* need not be *better*.
#
# ## Pyramids: how a narrow hole becomes a funnel
#
# A **pyramid** is a stack of smaller and smaller copies. Level 0 is the image; each voxel of the next level is the mean of
# 2 × 2 voxels (`fields.average_pool`). One voxel of level 3 is 8 voxels wide, so the window of LNCC covers 8 times as much.
# At each level we take steps of one voxel *of that level*, so that no image is blurred. We go up to 40 full voxels.

# %%
reach, a, b = {}, brain, brain
for level in range(4):
    furthest = 40 // 2**level  # voxels of this level
    places = [float(place) for place in range(-furthest, furthest + 1)]
    values = sweep(a, b, right=places, similarities={"LNCC": losses.lncc})["LNCC"]
    low, high = capture_range(places, values)
    reach[level] = min(-low, high) * 2**level  # the nearer end, in voxels of the full image
    a, b = fields.average_pool(a), fields.average_pool(b)

figure, axes = plt.subplots(figsize=(5.5, 3), layout="compressed")
names = [f"level {level}\n{96 // 2**level} voxels" for level in reach]
axes.bar(names, reach.values(), color="#009e73")
axes.axhline(40, color="gray", linestyle="--", linewidth=1)
axes.text(-0.4, 41, "40: as far as we looked", color="gray")
axes.set(ylabel="capture range (full voxels)", title="LNCC, window 9, on a pyramid", ylim=(0, 46))
assert reach[0] < 12 and reach[1] >= 2 * reach[0] and reach[2] == reach[3] == 40, (
    "LNCC captures fewer than 12 voxels, at least twice as many on level 1, and all 40 on levels 2 and 3, "
    f"here {reach}: run this cell again"
)

# %% [markdown]
# So start at a coarse level, where the landscape is a funnel. Then go on to the fine levels, where it is sharp. Most
# networks of this course do that somewhere inside.
#
# ## Break it
#
# "Where the arrow leads out of the moving image, there is nothing to compare. Do not count these voxels." It sounds
# right: take the MSE over the **overlap** only. A `mask` of ones and zeros marks the voxels that count.


# %%
@check.overlap_by_hand
def overlap_by_hand(a, b, mask):
    """The MSE over a part of the image. a, b: (1, 1, H, W); mask: the same, 1 where a voxel counts, else 0."""
    return ...  # the mean of the squared differences, over the voxels that count


# %% [markdown]
# The fixed image is from a darker scanner, at the same place. (Outside the image `warp` repeats the border, unless
# `padding="zeros"`.)

# %%
darker = 0.7 * brain
whole, overlap = [], []
far = list(range(-90, 91, 2))
for place in far:
    arrow = torch.zeros(1, 2, 96, 96)
    arrow[:, 1] = place
    moved = regkit.warp(brain, arrow)
    # 1 where the arrow ends inside the moving image:
    mask = regkit.warp(torch.ones_like(brain), arrow, padding="zeros")
    whole.append(losses.mse(moved, darker).item())
    overlap.append(overlap_by_hand(moved, darker, mask).item())
    apart = abs(losses.mse(moved, darker, mask=mask).item() - overlap[-1])
    assert apart < 1e-5, (
        f"MSE with a mask by hand is regkit's, here {apart:.1e} apart: was overlap_by_hand changed?"
    )

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="compressed")
axes.plot(far, whole, color="gray", label="all voxels")
axes.plot(far, overlap, color="#d55e00", label="overlap only")
truth = far.index(0)
axes.plot(0, overlap[truth], "o", color="black", label="the truth")
axes.set(xlabel="shift (voxels)", ylabel="MSE", title="no overlap, no error", ylim=(0, 0.3))
axes.legend(frameon=False)
away, home = far[int(np.argmin(overlap))], far[int(np.argmin(whole))]
assert min(overlap) < 1e-6 < overlap[truth] and abs(away) > 70, (
    "over the overlap alone the best place is more than 70 voxels off, without any error, here "
    f"{away} with {min(overlap):.1e} (the truth: {overlap[truth]:.1e}): run this cell again"
)
assert home == 0, f"over all voxels it is the truth, 0, here {home}: run this cell again"

# %% [markdown]
# **Symptom:** the best score belongs to an image that has left the view: only black lies on black.
# **Fix:** count every voxel of the fixed image (grey curve), or require a minimum of overlap.
#
# ## Exercise 1: mislead the MSE
#
# The disc below is the fixed image. The moving image is the same disc after your change, so the right shift is 0. Write a
# function that takes an image, a tensor of shape (1, 1, 64, 64), and returns one of the same shape. It may change only the
# **intensities** (brighter, darker, more contrast, …): the new value of a voxel depends on its old value alone. Make
# **MSE** lowest at a wrong shift, while **NCC** is still lowest at 0. (The check tries shifts from -30 to 30.)

# %%
figure, axes = plt.subplots(figsize=(4.2, 3.8), layout="compressed")
shown = axes.imshow(check.disc()[0, 0], cmap="gray", vmin=0, vmax=1)
axes.set(title="check.disc()", xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
figure.colorbar(shown, label="intensity")
darkest = check.disc().min()
assert darkest >= 0, (
    f"the disc has no negative value, here {darkest:.2f}: run all cells from the top"
)

# %% tags=["exercise"]
my_change = ...  # for example: lambda image: 0.9 * image


# %% tags=["solution"]
def gain(image):
    return 3 * image


my_change = gain

# %%
check.mse_lies(my_change)

# %%
changed = check.changed_disc(my_change)  # None if this is no function from image to image
if changed is not None:
    places = list(range(-30, 31))
    show_curves(sweep(changed, check.disc(), right=places), places, "after your change")

# %% [markdown] tags=["instructor"]
# Many try `1 - image` first, and mislead NCC as well. Some add noise, which is no function of the value (red). The point of
# the reference: with a gain above 2, an *absent* disc costs less than a well aligned one that is too bright. Ask what an
# optimiser does that may deform (it gains by *shrinking* the disc). And where does this happen? A tumour with contrast agent.

# %% [markdown]
# ## Exercise 2: is your gradient right?
#
# This is a good test of any loss that you write. Compute the slope (change of the loss per voxel) of
# `losses.ncc(check.shifted(brain, right), brain)` over `right`, at **3.3** voxels, in two ways. Each answer is one number:
#
# * `automatic`: let `right` be a tensor that requires a gradient, and call `backward()`;
# * `finite`: call your `slope_by_hand` with a step $h$ of your choice. (A step that is too large gives a wrong slope, and so
#   does one that is too small. Why?)

# %% tags=["exercise"]
automatic, finite = ..., ...  # two numbers

# %% tags=["solution"]
right = torch.tensor(3.3, requires_grad=True)
losses.ncc(check.shifted(brain, right), brain).backward()
automatic = right.grad.item()


def ncc_at(place):
    return losses.ncc(check.shifted(brain, torch.tensor(place)), brain).item()


finite = slope_by_hand(ncc_at, 3.3, 0.1)
print(f"automatic {automatic:.4f}, finite {finite:.4f}")

# %%
check.slopes((automatic, finite))

# %% [markdown] tags=["instructor"]
# A step of 0.5 reaches across 3.0, a voxel's centre, where linear interpolation has a kink. The result is the mean of two
# different slopes. A step of 1e-7 is below the resolution of float32 at 3.3, so the difference is 0. Between them, from about
# 0.3 to 0.001, all steps agree. Good classes ask for `torch.autograd.gradcheck`. It does this in float64, and it must fail
# for the adaptive NCC wherever a $\gamma$ changes (see above).

# %% [markdown]
# ## One pair through the course
#
# No landmarks this time. Move the middles onto each other, as in tutorial 01, and try every second angle. The loss says
# which one is best.

# %%
PAIRS = league.pairs()


def middle(image):
    """The brightness-weighted mean position, voxels."""
    return (fields.identity((64, 64)) * image).sum((2, 3))[0] / image.sum()


def shifted_and_turned(pair):
    """The shift of tutorial 01, and the turn with the lowest NCC: (1, 2, 64, 64), voxels."""
    shift = middle(pair.moving) - middle(pair.fixed)
    shift = shift.view(1, 2, 1, 1).expand(1, 2, 64, 64)
    warped, turns = regkit.warp(pair.moving, shift), [float(angle) for angle in range(-40, 41, 2)]
    values = sweep(warped, pair.fixed, degrees=turns, similarities={"NCC": losses.ncc})["NCC"]
    turn = turns[int(np.argmin(values))]
    return regkit.compose(shift, fields.rigid_displacement((64, 64), degrees=turn))


found = {name: shifted_and_turned(pair) for name, pair in PAIRS.items()}
figures.show_registration(PAIRS["brains"], regkit.Registration(found["brains"]))

# %%
table = league.enter("03", "middles, and the turn of least NCC", found)
nothing, turned = (table.rows[key] for key in (("", "doing nothing", ""), table.latest))
assert turned[1] < nothing[1] - 1 and turned[4] < nothing[4] - 1, (
    "shift and turn bring both fields nearer to the truth by more than 1 voxel, here from "
    f"{nothing[1]:.2f} to {turned[1]:.2f} and from {nothing[4]:.2f} to {turned[4]:.2f}: run this section's cells again"
)
table

# %% [markdown]
# Nobody marked a point, and it is nearly as good as the landmarks. What no turn can do: the two brains are also of other
# size and other shape.
#
# ## Take away
#
# > * A loss is a **landscape**. Its minimum is the place that it prefers; its capture range is from where you *reach* it.
# > * **A shift has no slope without overlap**: start coarse (pyramid, blur). Free arrows have one, but it only shrinks the
# >   shape.
# > * MSE wants equal numbers, NCC allows one gain and offset, **LNCC** others in each window: it is robust and sharp, but
# >   its range is short. **MI** wants one value to predict the other: T1 with T2.
# > * Adaptive NCC is wide first and sharp later. Do not compare its values: its **gradient** counts.
# > * Count **all** voxels of the fixed image. Test gradients against **finite differences**.
#
# **Next.** So far two numbers moved the image: a shift and an angle. Give *every voxel* its own arrow, and go downhill.
# What can go wrong?
