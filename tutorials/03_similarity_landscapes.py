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
# *A registration walks downhill on a loss, in the dark. Whether it arrives depends less on how it walks than on the
# shape of the land.*
#
# **Goals.** After this notebook you can write four losses from scratch: the mean squared error (MSE), the normalised
# cross-correlation (NCC), the local NCC (LNCC) and the adaptive NCC. You can say for each which change of the images it
# forgives and from how far away it finds the right place (its *capture range*); and you can test a gradient.
#
# **Before you start.** Tutorial 02: warping pulls. Mean, variance and correlation; PyTorch's `backward()`.
#
# **CPU.** Measured on two cores: about 9 s of computing in either mode. Nothing is trained here.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, fields, losses
from regkit.course.lessons.t03_similarity_landscapes import (
    SIMILARITIES,
    capture_range,
    landscape_viewer,
    sweep,
)

course.begin(seconds={"fast": 9, "full": 9})

# %% [markdown]
# ## Two discs that do not touch
#
# The moving image shows a white disc at the right, the fixed image one at the left. Their centres are 24
# voxels apart, and each disc is 11 wide. Clearly the moving disc should go left.


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

for blind in (losses.mse, losses.ncc, losses.lncc):
    change = max(abs(blind(image, fixed) - blind(moving, fixed)) for image in (nudged, away))
    assert change < 1e-6, (
        f"{blind.__name__} sees no step of one voxel, here {change:.1e}: run all cells from the top"
    )
seen = [losses.adaptive_ncc(image, fixed).item() for image in (nudged, moving, away)]
assert seen[0] + 0.03 < seen[1] < seen[2] - 0.03, (
    "adaptive NCC falls by more than 0.03 on the way to the goal and rises on the way off, here "
    f"{seen[0]:.3f}, {seen[1]:.3f} and {seen[2]:.3f}: run all cells from the top"
)

# %% [markdown]
# (`SIMILARITIES` holds regkit's four losses by name. All are **losses**: lower is better.)
#
# It **stays**. As long as the discs do not overlap, every voxel of both counts as wrong, wherever the moving one lies.
# One voxel in the wrong direction costs the same as well: the land is a **plain**, and nothing says which way to
# go. Three of the four losses are blind here. The fourth also compares blurred and smaller copies, in which the discs
# *do* overlap.

# %% [markdown] tags=["instructor"]
# Most say *fall*: they see where the disc should go, and lend the loss their eyes. Worth two minutes: which pixels
# contribute to MSE before, and which after? Then ask what *Dice* does (it stays too, at 0).

# %% [markdown]
# ## Four losses by hand
#
# Let $a$ be the warped and $b$ the fixed image, $\operatorname{cov}$ their covariance, $\sigma$ a standard deviation,
# and $\varepsilon$ a tiny number against division by zero:
#
# $$\text{MSE} = \operatorname{mean}\,(a-b)^2 \qquad
# \text{NCC} = 1 - \frac{\operatorname{cov}(a, b)}{\sigma_a\,\sigma_b} \qquad
# \text{LNCC} = -\operatorname{mean}_x \frac{c(x)^2}{v_a(x)\,v_b(x) + \varepsilon}$$
#
# NCC is 0 for a perfect match, 1 for none and 2 for an inverted image. LNCC takes the covariance $c$ and the variances
# $v$ in a small window around each voxel $x$, here of 9 × 9 voxels, and squares the ratio. -1 is a perfect match in every
# window; flat windows count 0, so an image with flat parts does not reach -1 even with itself.
# (VoxelMorph: Balakrishnan et al. 2019. There and below, $c$ and $v$ are sums over the window, not means; apart from
# $\varepsilon$ this cancels.)
#
# The **adaptive NCC** (GradICON: Tian et al. 2023, section 5.2) computes the NCC $s_i$ of the images at 5 scales: as
# they are ($s_0$), blurred ($s_1$), and halved once, twice, three times and blurred ($s_2$ to $s_4$). It mixes them
# from fine to coarse with weights $\gamma_i$; $\alpha = 0.1$, $\beta = 1.3$:
#
# $$g_0 = s_0, \qquad g_i = \gamma_i\, s_i + (1 - \gamma_i)\, g_{i-1}, \qquad
# \gamma_i = \operatorname{clamp}\big(s_i \,\beta^{4-i} / \alpha,\ 0,\ 1\big), \qquad \text{the loss is } g_4$$
#
# (clamp: cut to the range from 0 to 1.) As long as a coarse scale fits badly, its $\gamma$ is 1 and the finer ones do
# not count; the better it fits, the more they do. The $\gamma_i$ are treated as constants when the gradient is taken
# (`detach` below).


# %%
def mse_by_hand(a, b):
    return (a - b).square().mean()


def ncc_by_hand(a, b):
    a, b = a - a.mean(), b - b.mean()
    return 1 - (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()


def lncc_by_hand(a, b, window=9, epsilon=1e-5):
    def total(image):  # over the window around each voxel; zeros outside
        return window**2 * F.avg_pool2d(image, window, stride=1, padding=window // 2)

    cross = total(a * b) - total(a) * total(b) / window**2
    variance_a = total(a * a) - total(a) ** 2 / window**2
    variance_b = total(b * b) - total(b) ** 2 / window**2
    return -(cross**2 / (variance_a * variance_b + epsilon)).mean()


def adaptive_by_hand(a, b, scales=4, alpha=0.1, beta=1.3):
    g = ncc_by_hand(a, b)
    for i in range(1, scales + 1):
        if i > 1:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        # blur both: a Gaussian with a standard deviation of 2 voxels, cut off at 2 voxels
        s = ncc_by_hand(*(losses.gaussian_blur(image, 2.0, radius=2) for image in (a, b)))
        gamma = (s.detach() * beta ** (scales - i) / alpha).clamp(0, 1)
        g = gamma * s + (1 - gamma) * g
    return g


# %% [markdown]
# Against regkit, on two real images: the slice of a scan that you know, and a shifted, noisy copy.
# `check.shifted(image, right)` warps an image with the arrow (0, `right`) at every voxel; `right` is a tensor with one
# number, in voxels, so that we can take a gradient later.

# %%
brain = check.brain_slice()  # (1, 1, 96, 96)
shift = torch.tensor(3.3)
noise = 0.1 * torch.randn(brain.shape, generator=torch.Generator().manual_seed(0))
other = check.shifted(brain, shift) + noise
hand = (mse_by_hand, ncc_by_hand, lncc_by_hand, adaptive_by_hand)
for (name, loss), by_hand in zip(SIMILARITIES.items(), hand, strict=True):
    print(f"{name:13} regkit {loss(other, brain):+.5f}, by hand {by_hand(other, brain):+.5f}")
    ours, regkits = by_hand(other, brain), loss(other, brain)
    assert torch.isclose(regkits, ours, rtol=1e-3, atol=1e-5), (
        f"{name} by hand is regkit's, here {ours:.5f} and {regkits:.5f}: was the function changed?"
    )

# %% [markdown]
# ## The landscape
#
# Slide the brain over itself, by -40 to 40 voxels, and write down each loss: `sweep(moving, fixed, right=shifts)` gives
# a list of values for each loss. (The shift is that of the arrows, so the image goes the other way: warping pulls.) The
# **capture range** (green) is the stretch around the truth from which every step downhill leads to the truth.

# %%
shifts = [float(place) for place in range(-40, 41)]


def show(curves, places, title):
    figure, axes = plt.subplots(1, 4, figsize=(12.5, 3.0), layout="compressed")
    for panel, (name, values) in zip(axes, curves.items(), strict=True):
        low, high = capture_range(places, values)
        panel.axvspan(low, high, color="#d6f0e0")
        panel.plot(places, values, color="black")
        panel.axvline(0, color="gray", linewidth=0.8)
        words = f"{low:g} to {high:g}" if low < high else "no minimum at 0"
        panel.set(title=f"{name}\n{words}", xlabel="shift (voxels)")
    axes[0].set(ylabel="loss")
    figure.suptitle(title)


itself = sweep(brain, brain, right=shifts)
show(itself, shifts, "the same scan")

captured = {name: capture_range(shifts, values) for name, values in itself.items()}
assert captured["MSE"] == captured["NCC"] == captured["adaptive NCC"] == (-40, 40), (
    f"three of the four capture all shifts, here {captured}: run all cells from the top"
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
# MSE and NCC: wide funnels (they reach as far as we looked, since these images always overlap). LNCC: a narrow hole in
# a plain. It notices the truth only from about the width of its window, but then it is **sharp**. Adaptive NCC: a wide
# bowl with a narrow dip at the very bottom.

# %% [markdown]
# The small print: we went in steps of whole voxels. In between, linear interpolation blurs *one* of the two images, and
# the curve of LNCC gets **ripples**. In fine steps its capture range is therefore smaller still. A little blur of both
# images mends it.

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
# ## Shift and turn it yourself
#
# Moving in orange, fixed in blue, grey where they agree. Three experiments:
#
# * Let the curves run over the *angle*, at shift 0: which losses have an angle of 40° in their capture range?
# * Take *lamp at the right* as fixed image: the same head, lit from the side. Which loss still has its minimum at 0?
# * Take *noise*, and look closely at the bottom of the adaptive NCC.
#
# The next cells give the answers.

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
    assert (high < 10) if name == "adaptive NCC" else (low < -40 and high > 40), (
        "adaptive NCC captures less than 10°, the others more than 40°, here "
        f"{name} {low:+g}° to {high:+g}°: run this cell again"
    )

# %% [markdown]
# All but the adaptive NCC. Its curve has bumps where the weights $\gamma$ change, and so it is no funnel beyond ±6°.
# Yet its *gradient* still leads home from 40°: *A value is not a slope*, below, says how that can be.
#
# ## What each loss forgives
#
# All four images in `scans` lie exactly on the brain. A faithful loss has its minimum at shift 0.

# %%
best = {}
for title, scan in scans.items():
    curves = sweep(brain, scan, right=shifts)
    best[title] = {name: shifts[int(np.argmin(values))] for name, values in curves.items()}
    row = ", ".join(f"{name} {place:+g}" for name, place in best[title].items())
    print(f"{title:18} best shift: {row}")
show(sweep(brain, scans["lamp at the right"], right=shifts), shifts, "lamp at the right")

weaker, noisy, lamp = (best[name] for name in ("weaker scanner", "noise", "lamp at the right"))
assert set(weaker.values()) == {0.0}, (
    f"the weaker scanner misleads none, here best shifts {weaker}: run this section's cells again"
)
assert noisy["adaptive NCC"] != 0, (
    f"noise misleads adaptive NCC, here best shift {noisy['adaptive NCC']}: run this section's cells again"
)
assert lamp["LNCC"] == 0 and max(lamp[name] for name in ("MSE", "NCC", "adaptive NCC")) < -5, (
    f"the lamp misleads all but LNCC by more than 5 voxels, here best shifts {lamp}: "
    "run this section's cells again"
)

# %% [markdown]
# The lamp fools all but LNCC, and noise makes the lowest *value* of the adaptive NCC lie off the truth (more on this
# below). The weaker scanner (half the contrast, and 0.2 brighter everywhere) fools none of them here. But at the truth
# MSE is not 0, while NCC is. A stronger change of brightness does make MSE prefer a wrong place: you will find one in
# exercise 1. In words: a **gain** multiplies all intensities by a number (here 0.5), an **offset** adds one (here 0.2).

# %%
at_truth = {name: values[0] for name, values in sweep(brain, scans["weaker scanner"]).items()}
print("weaker scanner, at the truth:", {name: round(value, 3) for name, value in at_truth.items()})
assert at_truth["MSE"] > 0.01 > at_truth["NCC"], (
    "at the truth MSE charges the weaker scanner more than 0.01, NCC less, here "
    f"{at_truth['MSE']:.4f} and {at_truth['NCC']:.4f}: run this section's cells again"
)
itself, negative = losses.lncc(brain, brain), losses.lncc(-brain, brain)
assert torch.isclose(negative, itself, rtol=1e-4), (
    f"LNCC forgives a negative gain, here {negative:.4f} and {itself:.4f}: run this cell again"
)
flatter = losses.lncc(brain, scans["noise"]) / itself
assert flatter < 0.5, (
    f"noise takes more than half of LNCC's depth, here {100 * flatter:.0f} % are left: run this cell again"
)

# %% [markdown]
# | loss | forgives | is fooled or weakened by | capture range |
# |---|---|---|---|
# | MSE | nothing: equal tissue must have equal numbers | gain, offset, uneven light | wide where shapes overlap |
# | NCC | one positive gain and one offset for the whole image | uneven light | wide where shapes overlap |
# | LNCC | a gain and an offset *for each window*, even a negative gain | little structure, noise | narrow for shifts, wide for angles |
# | adaptive NCC | as NCC, at each scale | uneven light, noise (its value) | wide for shifts, even without overlap |
#
# (Why is LNCC so short-sighted for shifts and not for angles? A turn moves the voxels near the middle by little, so that
# at any angle *some* windows still overlap what belongs to them, and they lead home.)
#
# There is no best one. That is why some networks use **LNCC on several scales** (SPnet, tutorial 08; SM-GICNet,
# tutorial 11), and another a loss that changes its scale on the way (GradICON, tutorial 07).
#
# ## A value is not a slope
#
# Under noise, the curve of the adaptive NCC has a bump at the truth. Along the curve the weights $\gamma$ change; the
# gradient holds them constant. So the curve and the gradient may disagree. At a shift of 1.3 voxels:

# %%
here = torch.tensor(1.3, requires_grad=True)
losses.adaptive_ncc(check.shifted(brain, here), scans["noise"]).backward()

nearer, further = (
    losses.adaptive_ncc(check.shifted(brain, torch.tensor(place)), scans["noise"])
    for place in (1.2, 1.4)
)
along = ((further - nearer) / 0.2).item()
print(f"slope of the curve {along:+.3f}, automatic gradient {here.grad.item():+.3f}")
# The curve falls away from the truth; against the gradient it goes back to the truth:
assert along < 0 < here.grad, (
    "the curve falls where the automatic gradient says that it rises, here "
    f"{along:+.3f} and {here.grad:+.3f}: run this cell again"
)


def slope_over_angle(degrees):
    angle = torch.deg2rad(torch.tensor(degrees)).requires_grad_()
    c, s, zero = angle.cos(), angle.sin(), 0 * angle
    turn = torch.stack([torch.stack([c, -s, zero]), torch.stack([s, c, zero])])
    arrows = fields.affine_displacement(turn[None], (96, 96))
    losses.adaptive_ncc(regkit.warp(brain, arrows), brain).backward()
    return torch.deg2rad(angle.grad).item()  # per degree


slopes = {degrees: slope_over_angle(degrees) for degrees in (-40.0, 40.0)}
for degrees, slope in slopes.items():
    print(f"at {degrees:+.0f}°, without noise: gradient {slope:+.4f} per degree")
assert slopes[-40.0] < 0 < slopes[40.0], (
    f"at 40° on either side the gradient leads home, here {slopes}: run this cell again"
)

# %% [markdown]
# The curve falls towards larger shifts, away from the truth. An optimiser steps *against* the gradient, which is
# positive: towards smaller shifts, home. The same at ±40°, far beyond the funnel of the curve: the gradient has the
# sign of the angle, and so leads back to 0. The bumps do no harm at these places. But remember them when you compare
# values of this loss: *lower* need not be *better*.
#
# ## Pyramids: how a narrow hole becomes a funnel
#
# A **pyramid** is a stack of ever smaller copies: level 0 is the image, and each voxel of the next level is the mean of
# 2 × 2 voxels (`layers.average_pool`). One voxel of level 3 is 8 voxels wide, and so the window of LNCC covers 8 times
# as much. At each level we go in steps of one of *its* voxels, between which no image is blurred, up to 40 full voxels.

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
axes.bar(
    [f"level {level}\n{96 // 2**level} voxels" for level in reach], reach.values(), color="#009e73"
)
axes.axhline(40, color="gray", linestyle="--", linewidth=1)
axes.text(-0.4, 41, "40: as far as we looked", color="gray")
axes.set(ylabel="capture range (full voxels)", title="LNCC, window 9, on a pyramid", ylim=(0, 46))
assert reach[0] < 12 and reach[1] >= 2 * reach[0] and reach[2] == reach[3] == 40, (
    "LNCC captures fewer than 12 voxels, at least twice as many on level 1, and all 40 on levels 2 and 3, "
    f"here {reach}: run this cell again"
)

# %% [markdown]
# So start coarse, where the land is a funnel, and go on to the fine levels, where it is sharp. Most networks of this
# course do that somewhere inside.
#
# ## Break it
#
# "Where the arrow leads out of the moving image, there is nothing to compare. Do not count these voxels." It sounds
# right: average MSE over the **overlap** only. The fixed image is from a darker scanner, at the same place. (A `mask`
# of ones and zeros says which voxels count. Outside the image `warp` repeats the border, unless `padding="zeros"`.)

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
    overlap.append(losses.mse(moved, darker, mask=mask).item())

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
# **Symptom:** the best score belongs to an image that is pushed out of view, until only black lies on black.
# **Mend:** count every voxel of the fixed image (grey curve), or demand a minimum of overlap.
#
# ## Exercise 1: make MSE lie
#
# The disc below is the fixed image; the moving image is the same disc after your change, so the right shift is 0. Write
# a function that takes an image, a tensor of shape (1, 1, 64, 64), and returns one of the same shape. It may change
# only the **intensities** (brighter, darker, more contrast, …): the new value of a voxel depends on its old value
# alone. Make **MSE** lowest at a wrong shift, while **NCC** is still lowest at 0. (The check tries shifts from -30 to
# 30.)

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
    show(sweep(changed, check.disc(), right=places), places, "after your change")

# %% [markdown] tags=["instructor"]
# Many try `1 - image` first and fool NCC as well; some add noise (not a function of the value; red). The point of the
# reference: with a gain above 2, an *absent* disc costs less than a well aligned one that is too bright. Ask what an
# optimiser does that may deform (it gains by *shrinking* the disc), and where this happens: a tumour with contrast
# agent.

# %% [markdown]
# ## Exercise 2: does your gradient tell the truth?
#
# A good test of any loss that you write. At `right` = **3.3** voxels, compute the slope (change of the loss per voxel)
# of `losses.ncc(check.shifted(brain, right), brain)` over `right`, twice; each answer is one number:
#
# * `automatic`: let `right` be a tensor that requires a gradient, and call `backward()`;
# * `finite`: the central difference $\big(f(3.3 + h) - f(3.3 - h)\big) / 2h$ with a step $h$ of your choice. (Too large
#   a step is wrong, too small a one as well. Why?)

# %% tags=["exercise"]
automatic, finite = ..., ...  # two numbers

# %% tags=["solution"]
right = torch.tensor(3.3, requires_grad=True)
losses.ncc(check.shifted(brain, right), brain).backward()
automatic = right.grad.item()


def ncc_at(place):
    return losses.ncc(check.shifted(brain, torch.tensor(place)), brain).item()


finite = (ncc_at(3.3 + 0.1) - ncc_at(3.3 - 0.1)) / 0.2
print(f"automatic {automatic:.4f}, finite {finite:.4f}")

# %%
check.slopes((automatic, finite))

# %% [markdown] tags=["instructor"]
# A step of 0.5 reaches across 3.0, a voxel's centre, where linear interpolation has a kink: the mean of two different
# slopes comes out. A step of 1e-7 is below the resolution of float32 at 3.3: the difference is 0. In between, from
# about 0.3 to 0.001, all steps agree. Good classes ask for `torch.autograd.gradcheck`: it does this in float64, and it
# must fail for the adaptive NCC wherever a $\gamma$ changes (see above).

# %% [markdown]
# ## Take away
#
# > * A loss is a **landscape**. Its minimum says what it *believes*, its capture range from where it can be *reached*.
# > * No overlap, no slope: **start coarse** (pyramid, blur).
# > * MSE wants equal numbers, NCC allows one gain and offset, **LNCC** others in each window: robust and sharp,
# >   but short-sighted.
# > * Adaptive NCC: wide first, sharp later. Do not compare its values; its **gradient** is what counts.
# > * Count **all** voxels of the fixed image. Test gradients against **finite differences**.
#
# **Next.** So far two numbers moved the image: a shift and an angle. Give *every voxel* its own arrow, and walk
# downhill. What could go wrong?
