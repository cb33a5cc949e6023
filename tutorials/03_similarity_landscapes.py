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
# **Goals.** After this notebook you can write MSE, NCC, LNCC and the adaptive NCC from scratch; say for each which
# change of the images it forgives and from how far away it finds home (its *capture range*); and test a gradient.
#
# **Before you start.** Tutorial 02: warping pulls. Mean, variance and correlation.
#
# **CPU.** Measured on two cores: about 9 s of computing in either mode. Nothing is trained here.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

import regkit
from regkit import check, course, fields, layers, losses
from regkit.landscape_view import landscape_viewer
from regkit.landscapes import SIMILARITIES, capture_range, sweep

course.begin(seconds={"fast": 9, "full": 9})

# %% [markdown]
# ## Two discs that do not touch
#
# The moving image shows a white disc at the right, the fixed image one at the left. They are 24 voxels apart, and each
# is 12 wide. Clearly the moving disc should go left.


# %%
def disc(column, radius=6.0):
    middle = torch.tensor([32.0, column]).view(1, 2, 1, 1)
    return ((fields.identity((64, 64)) - middle).norm(dim=1, keepdim=True) < radius).float()


fixed, moving = disc(20.0), disc(44.0)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="compressed")
for panel, image, title in ((axes[0], moving, "moving"), (axes[1], fixed, "fixed")):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set(title=title, xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
assert (moving * fixed).sum() == 0  # they share no voxel

# %% [markdown]
# ### Predict
#
# We nudge the moving disc by **one voxel** in the right direction. What does the mean squared error (MSE) do: does it
# `"fall"`, `"stay"` or `"rise"`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "stay"

# %%
nudged = disc(43.0)
for name, loss in SIMILARITIES.items():
    print(f"{name:13} {loss(moving, fixed):+.4f} before, {loss(nudged, fixed):+.4f} after")
print("you said:", my_prediction)

assert losses.mse(nudged, fixed) == losses.mse(moving, fixed)
assert torch.isclose(losses.ncc(nudged, fixed), losses.ncc(moving, fixed), atol=1e-6)
assert losses.lncc(nudged, fixed) == losses.lncc(moving, fixed)
assert losses.adaptive_ncc(nudged, fixed) < losses.adaptive_ncc(moving, fixed) - 0.03

# %% [markdown]
# It **stays**, to the last digit. As long as nothing overlaps, a voxel of difference here is a voxel of difference
# there: the land is a **plain**, its gradient is zero, and no optimiser in the world will move. Three of the four
# losses are blind here. The fourth looks at blurred, small copies too; there the discs *do* overlap.

# %% [markdown] tags=["instructor"]
# Most say *fall*: they see where the disc should go, and lend the loss their eyes. Worth two minutes: which pixels
# contribute to MSE before, and which after? Then ask who would say the same of *Dice* (it stays at 0 as well).

# %% [markdown]
# ## Four losses by hand
#
# With $a$ the warped and $b$ the fixed image:
#
# $$\text{MSE} = \operatorname{mean}\,(a-b)^2 \qquad
# \text{NCC} = 1 - \frac{\operatorname{cov}(a, b)}{\sigma_a\,\sigma_b} \qquad
# \text{LNCC} = -\operatorname{mean}_x \frac{c(x)^2}{v_a(x)\,v_b(x) + \varepsilon}$$
#
# LNCC takes covariance $c$ and variances $v$ in a small window around each voxel $x$, and squares. (VoxelMorph:
# Balakrishnan et al. 2019; sums over 9 × 9 voxels.)
#
# The **adaptive NCC** (GradICON: Tian et al. 2023, section 5.2) takes NCC at 5 scales, $s_0$ (finest) to $s_4$
# (coarsest), and lets the coarse ones speak until they are satisfied:
#
# $$g_0 = s_0, \qquad g_i = \gamma_i\, s_i + (1 - \gamma_i)\, g_{i-1}, \qquad
# \gamma_i = \operatorname{clamp}\big(s_i \,\beta^{4-i} / \alpha,\ 0,\ 1\big) \text{, held constant in the gradient}$$


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
        s = ncc_by_hand(*(losses.gaussian_blur(image, 2.0, radius=2) for image in (a, b)))
        gamma = (s.detach() * beta ** (scales - i) / alpha).clamp(0, 1)
        g = gamma * s + (1 - gamma) * g
    return g


# %% [markdown]
# Against regkit, on two real images: the slice of a scan that you know, and a shifted, noisy copy.

# %%
brain = check.brain_slice()  # (1, 1, 96, 96)
shift = torch.tensor(3.3)
noise = 0.1 * torch.randn(brain.shape, generator=torch.Generator().manual_seed(0))
other = check.shifted(brain, shift) + noise
hand = (mse_by_hand, ncc_by_hand, lncc_by_hand, adaptive_by_hand)
for (name, loss), by_hand in zip(SIMILARITIES.items(), hand, strict=True):
    print(f"{name:13} regkit {loss(other, brain):+.5f}, by hand {by_hand(other, brain):+.5f}")
    assert torch.isclose(loss(other, brain), by_hand(other, brain), rtol=1e-3, atol=1e-5)

# %% [markdown]
# ## The landscape
#
# Slide the brain over itself from 40 voxels left to 40 right, and write down each loss. The **capture range** (green)
# is the stretch from which walking downhill leads to the truth.

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
assert captured["MSE"] == captured["NCC"] == captured["adaptive NCC"] == (-40, 40)
assert all(5 < abs(end) < 12 for end in captured["LNCC"])

# %% [markdown]
# MSE and NCC: wide funnels. LNCC: a needle in a plain: it feels the truth only from within its window, but then it is
# **sharp**. Adaptive NCC: a wide bowl with a small dimple.

# %% [markdown]
# The small print: we went in steps of whole voxels. In between, linear interpolation blurs *one* of the two images, and
# the slope of LNCC gets **ripples**. Downhill, strictly, then leads home from even less far. A little blur of both
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
assert ranges["as it is"][1] < 4 < ranges["blurred by 1 voxel"][1]

# %% [markdown]
# ## Shift and turn it yourself
#
# Moving in orange, fixed in blue, grey where they agree. Three experiments:
#
# * Let the curves run over the *angle*, and see which loss finds a turn of 40°.
# * Take *lamp at the right* as fixed image: the same head, lit from the side. Which loss still has its minimum at 0?
# * Take *noise*, and look closely at the bottom of the adaptive NCC.

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

# %% [markdown]
# ## What each loss forgives
#
# All four images below lie exactly on the brain. A faithful loss has its minimum at shift 0.

# %%
best = {}
for title, scan in scans.items():
    curves = sweep(brain, scan, right=shifts)
    best[title] = {name: shifts[int(np.argmin(values))] for name, values in curves.items()}
    row = ", ".join(f"{name} {place:+g}" for name, place in best[title].items())
    print(f"{title:18} best shift: {row}")
show(sweep(brain, scans["lamp at the right"], right=shifts), shifts, "lamp at the right")

assert set(best["weaker scanner"].values()) == {0.0} and best["noise"]["adaptive NCC"] != 0
assert best["lamp at the right"]["LNCC"] == 0
assert all(best["lamp at the right"][name] < -5 for name in ("MSE", "NCC", "adaptive NCC"))

# %% [markdown]
# The weaker scanner fooled nobody: the outline of the head alone holds MSE in place. But at the truth MSE is not 0,
# while NCC is, and an optimiser that may *deform* will pay itself back for that (exercise 1). The lamp fools all but
# LNCC.

# %%
at_truth = {name: values[0] for name, values in sweep(brain, scans["weaker scanner"]).items()}
print("weaker scanner, at the truth:", {name: round(value, 3) for name, value in at_truth.items()})
assert at_truth["MSE"] > 0.01 > at_truth["NCC"]

# %% [markdown]
# | loss | forgives | is fooled by | capture range |
# |---|---|---|---|
# | MSE | nothing: equal tissue must have equal numbers | a strong gain, an offset, light | wide |
# | NCC | one gain and one offset for the whole image | light that varies | wide |
# | LNCC | a gain and an offset *for each window*, even a negative gain | little structure, noise | narrow |
# | adaptive NCC | as NCC, at each scale | light that varies | widest |
#
# There is no best one: what forgives more sees less. That is why networks use **LNCC on several scales** (SPnet,
# SM-GICNet), or a loss that changes its scale on the way (GradICON).
#
# ## A value is not a slope
#
# The bump at the bottom of the adaptive NCC under noise is real. The weights $\gamma$ change along the curve, but the
# gradient holds them constant. So the curve and the gradient may disagree. One voxel right of the truth:

# %%
right = torch.tensor(1.3, requires_grad=True)
losses.adaptive_ncc(check.shifted(brain, right), scans["noise"]).backward()

nearer, further = (
    losses.adaptive_ncc(check.shifted(brain, torch.tensor(place)), scans["noise"])
    for place in (1.2, 1.4)
)
along = ((further - nearer) / 0.2).item()
print(f"slope of the curve {along:+.3f}, automatic gradient {right.grad:+.3f}")
assert along < 0 < right.grad  # the curve falls away from the truth; the gradient still leads to it

# %% [markdown]
# The curve says "go right", the gradient says "go left, home", and the gradient is what an optimiser follows. It is
# meant so. Remember it when you compare values of this loss: *lower* need not be *better*.
#
# ## Pyramids: how a needle becomes a funnel
#
# Look at small, averaged copies. One voxel of a copy at level 3 is 8 voxels wide, and so the window of LNCC sees 8
# times as far.

# %%
reach, a, b = {}, brain, brain
for level in range(4):
    places = [place / 2**level for place in shifts]
    values = sweep(a, b, right=places, similarities={"LNCC": losses.lncc})["LNCC"]
    low, high = capture_range(places, values)
    reach[level] = min(-low, high) * 2**level  # in voxels of the full image
    a, b = layers.average_pool(a), layers.average_pool(b)

figure, axes = plt.subplots(figsize=(5.5, 3), layout="compressed")
axes.bar(
    [f"level {level}\n{96 // 2**level} voxels" for level in reach], reach.values(), color="#009e73"
)
axes.set(ylabel="capture range (full voxels)", title="LNCC, window 9, on a pyramid", ylim=(0, 45))
assert reach[0] < 12 and reach[2] > 2 * reach[0] and reach[3] >= reach[2]

# %% [markdown]
# So start coarse, where the land is a funnel, and go finer, where it is sharp: the **pyramid** that nearly every
# method has somewhere inside.
#
# ## Break it
#
# "Voxels whose partner lies outside the image should not count." It sounds right: average MSE over the **overlap**
# only.

# %%
darker = 0.7 * brain
whole, overlap = [], []
far = list(range(-90, 91, 2))
for place in far:
    arrow = torch.zeros(1, 2, 96, 96)
    arrow[:, 1] = place
    moved = regkit.warp(brain, arrow)
    # 1 where moved has a partner:
    mask = regkit.warp(torch.ones_like(brain), arrow, padding="zeros")
    whole.append(losses.mse(moved, darker).item())
    overlap.append(losses.mse(moved, darker, mask=mask).item())

figure, axes = plt.subplots(figsize=(7, 3.2), layout="compressed")
axes.plot(far, whole, color="gray", label="all voxels")
axes.plot(far, overlap, color="#d55e00", label="overlap only")
axes.plot(0, overlap[45], "o", color="black", label="the truth")
axes.set(xlabel="shift (voxels)", ylabel="MSE", title="no overlap, no error", ylim=(0, 0.3))
axes.legend(frameon=False)
assert far[45] == 0 and min(overlap) < 1e-6 < overlap[45] and abs(far[int(np.argmin(overlap))]) > 70
assert far[int(np.argmin(whole))] == 0

# %% [markdown]
# **Symptom:** the optimiser pushes the image out of view, until only black lies on black, and reports a perfect score.
# **Mend:** count every voxel of the fixed image (pad what is outside), or demand a minimum of overlap. Whoever chooses
# *where to look* can choose not to look.
#
# ## Exercise 1: make MSE lie
#
# The disc below lies at the right place when the shift is 0. Write a function that changes only its **intensities**
# (brighter, darker, more contrast, …; nothing may move) so that **MSE** prefers a wrong shift, while **NCC** still
# prefers 0.

# %%
figure, axes = plt.subplots(figsize=(4.2, 3.8), layout="compressed")
shown = axes.imshow(check.disc()[0, 0], cmap="gray", vmin=0, vmax=1)
axes.set(title="check.disc()", xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
figure.colorbar(shown, label="intensity")
assert check.disc().min() >= 0

# %% tags=["exercise"]
my_change = ...  # for example: lambda image: 0.9 * image


# %% tags=["solution"]
def gain(image):
    return 3 * image


my_change = gain

# %%
check.mse_lies(my_change)

# %%
if my_change is not ...:
    places = list(range(-30, 31))
    show(sweep(my_change(check.disc()), check.disc(), right=places), places, "after your change")

# %% [markdown] tags=["instructor"]
# Many try `1 - image` first and fool NCC as well; some add noise (not a function of the value; red). The point of the
# reference: with a gain above 2, an *absent* disc costs less than a well aligned one that is too bright. An optimiser
# with a deformable field then *shrinks* the disc. Ask where this happens in practice: a tumour with contrast agent.

# %% [markdown]
# ## Exercise 2: does your gradient tell the truth?
#
# Nothing finds a bug in a loss as fast as this test. At a shift of **3.3** voxels, compute the slope of
# `losses.ncc(check.shifted(brain, right), brain)` over `right`, twice:
#
# * automatic: let `right` be a tensor that requires a gradient, and call `backward()`;
# * finite: a central difference with a step of your choice. (Which steps are bad, and why? Two ways to fail are
#   waiting.)

# %% tags=["exercise"]
automatic, finite = ..., ...

# %% tags=["solution"]
right = torch.tensor(3.3, requires_grad=True)
losses.ncc(check.shifted(brain, right), brain).backward()
automatic = right.grad.item()


def ncc_at(place):
    return losses.ncc(check.shifted(brain, torch.tensor(place)), brain).item()


finite = (ncc_at(3.3 + 0.1) - ncc_at(3.3 - 0.1)) / 0.2
print(f"automatic {automatic:.4f}, finite {finite:.4f}")

# %%
check.slopes(... if automatic is ... else (automatic, finite))

# %% [markdown] tags=["instructor"]
# A step of 0.5 reaches across 3.0, a voxel's centre, where linear interpolation has a kink: the mean of two different
# slopes comes out. A step of 1e-7 is below the resolution of float32 at 3.3: the difference is 0. In between lies a
# wide plateau. Good classes ask for `torch.autograd.gradcheck`: it does this in float64, and it fails for the adaptive
# NCC, on purpose (see above).

# %% [markdown]
# ## Take away
#
# > * A loss is a **landscape**. Its minimum says what it *believes*, its capture range from where it can be *reached*.
# > * No overlap, no gradient: **start coarse** (pyramid, blur, affine first).
# > * MSE wants equal numbers, NCC one straight line, **LNCC** a line for each window: robust and sharp, but
# >   short-sighted.
# > * Adaptive NCC: wide first, sharp later. Its value is no ruler, its **gradient** is what counts.
# > * Count **all** voxels of the fixed image. Test gradients against **finite differences**.
#
# **Next.** So far two numbers moved the image: a shift and an angle. Give *every voxel* its own arrow, and walk
# downhill. What could go wrong?
