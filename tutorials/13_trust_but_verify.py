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
# # 13 · Trust but verify
#
# *A number answers a question. It does not say which.*
#
# **Goals.** After this notebook you can compute every number of a results table by hand, name the nonsense that each of
# them overlooks, say whether a difference between two methods is chance, look behind any dot of a comparison of all six
# networks, and write a protocol that is hard to fool; yourself included.
#
# **Before you start.** Warping labels (02), folds (04, 05), held-out pairs (06), inverse consistency (07, 08), volumes in
# three planes (12).
#
# **Time.** You: about 90 minutes. A CPU (measured on two cores): about 25 s in fast mode, 50 s in full mode.

# %%
from statistics import fmean

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from scipy import stats

import regkit
from regkit import check, course, fields, metrics, training, types
from regkit.course import judgement, studies
from regkit.course.lessons import t13_trust_but_verify as lesson
from regkit.data import benchmarks
from regkit.data.anatomy import STRUCTURES
from regkit.tools import compare, leaderboard, methods
from regkit.tools.compare import Row
from regkit.widgets import slice_viewer

course.begin(seconds={"fast": 25, "full": 50}, minutes=90)

# %% [markdown]
# ## Two networks, one table
#
# Two networks, A and B, register the same 32 pairs of brain slices, which neither has seen. This is what a paper would
# print, and plot:

# %%
held_out = benchmarks.BENCHMARKS["brains_unaligned"].held_out
pairs = [held_out[number] for number in range(32)]
batch = types.stack(pairs)
A = studies.load("smgicnet").model
B = studies.load("smgicnet", "no gradient inverse consistency").model  # you will know why


def register(network):
    """u of every pair, (32, 2, 64, 56) voxels."""
    with torch.no_grad():
        return network(batch.moving, batch.fixed).displacement


def mean_dice(displacement, score=metrics.dice, moving_labels=batch.moving_labels):
    """One number for each pair: the mean over its structures."""
    warped = fields.warp_labels(moving_labels, displacement)
    both = zip(warped.split(1), batch.fixed_labels.split(1), strict=True)
    return np.array([fmean(score(*labels).values()) for labels in both])


u_A, u_B = register(A), register(B)
dice_A, dice_B = mean_dice(u_A), mean_dice(u_B)
for name, values in (("A", dice_A), ("B", dice_B)):
    print(f"{name}: Dice {values.mean():.3f} ± {values.std(ddof=1):.3f}")

# %%
figure, axes = plt.subplots(figsize=(4.6, 3.8), layout="compressed")
for place, values in enumerate((dice_A, dice_B)):
    axes.plot(place + np.linspace(-0.15, 0.15, 32), values, "o", color="#0072b2", alpha=0.5)
    axes.errorbar(place, values.mean(), values.std(ddof=1), color="black", capsize=8, fmt="_")
axes.set(xticks=[0, 1], xticklabels=["A", "B"], ylabel="mean Dice of a pair", ylim=(0.4, 0.9))
axes.set(xlim=(-0.6, 1.6), title="32 pairs; mean ± standard deviation")
axes.grid(alpha=0.3)
gain = dice_A.mean() - dice_B.mean()
assert 0.01 < gain < 0.5 * dice_A.std(), (
    "A gains more than 0.01 of Dice and less than half a standard deviation, here "
    f"{gain:.3f} of {dice_A.std():.3f}: run all cells from the top"
)

# %% [markdown]
# ### Predict
#
# The bars overlap almost entirely. Suppose A and B were equally good, and only luck decided who does better on a pair.
# How often would luck make a difference as large as this one: about once in `"8"` comparisons, once in `"40"`, or more
# seldom than once in `"200"`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "200"

# %% [markdown] tags=["instructor"]
# Those who know a t test will say 8, and for *two groups of patients* they would be right (it gives p = .13). Let them
# find out what the plot leaves out before you show it: which dot belongs to which.

# %% [markdown]
# We come back to it. First: what *is* each of these numbers?
#
# ## Overlap
#
# **Dice** of a structure: twice the voxels that both have, divided by the voxels of both together. Write it. (The line
# above a function says at once what is right; as long as it is not, the notebook goes on with the solution.)


# %%
@check.structure_dice
def structure_dice(first, second, label):
    """2 |A ∩ B| / (|A| + |B|) of one structure. first, second: labels of one shape; label: the structure's."""
    a, b = ...  # True where each of them has this label
    both = ...  # how many voxels have it in both, a number
    return ...


# %%
def dice_by_hand(first, second):
    """2 |A ∩ B| / (|A| + |B|) of each structure; 0 is the outside."""
    scores = {}
    for label in set(first.unique().tolist()) | set(second.unique().tolist()):
        scores[label] = structure_dice(first, second, label)
    del scores[0]
    return scores


# %%
pair, u = pairs[3], u_A[[3]]
warped_labels = fields.warp_labels(pair.moving_labels, u)
by_hand = dice_by_hand(warped_labels, pair.fixed_labels)
apart = np.abs(mean_dice(u_A, dice_by_hand) - dice_A).max()
assert by_hand.keys() == metrics.dice(warped_labels, pair.fixed_labels).keys() and apart < 1e-6, (
    f"Dice by hand is regkit's, here {apart:.1e} apart: was dice_by_hand changed?"
)
scores = list(by_hand.values())
print(f"pair 3: mean {fmean(scores):.4f} of {len(scores)} structures,", end=" ")
print(f"from {min(scores):.2f} to {max(scores):.2f}")

# %% [markdown]
# That looks unambiguous. But $u$ points *between* the voxels of the moving labels. How is a label read there? Four ways,
# all in use:
#
# 1. **nearest**: take the label of the nearest voxel (regkit, and most programs);
# 2. **argmax**: make an image of 0 and 1 for each structure, interpolate each, and take the largest;
# 3. **soft**: the same, but no decision: shares of structures enter the formula;
# 4. interpolate the *numbers* of the labels, and round.

# %%
moving_shares = torch.stack([(pair.moving_labels[0] == k).float() for k in range(19)], 1)
fixed_shares = torch.stack([(pair.fixed_labels[0] == k).float() for k in range(19)], 1)
shares = regkit.warp(moving_shares, u)  # (1, 19, 64, 56)
rounded = regkit.warp(pair.moving_labels.float(), u).round().long()

ways = {
    "nearest": fmean(by_hand.values()),
    "argmax": fmean(dice_by_hand(shares.argmax(1, keepdim=True), pair.fixed_labels).values()),
    "numbers, rounded": fmean(dice_by_hand(rounded, pair.fixed_labels).values()),
}
both, either = (shares * fixed_shares).sum((0, 2, 3)), (shares + fixed_shares).sum((0, 2, 3))
present = [k for k in range(1, 19) if either[k] > 0]
ways["soft"] = fmean((2 * both[k] / either[k]).item() for k in present)
for name, value in ways.items():
    print(f"{name:17s} Dice {value:.4f}")
apart = {name: value - ways["nearest"] for name, value in ways.items()}
assert 0.0005 < abs(apart["argmax"]) < 0.05, (
    f"argmax differs from nearest by 0.0005 to 0.05, here {apart['argmax']:+.4f}: run all cells from the top"
)
assert apart["soft"] < -0.02 and apart["numbers, rounded"] < -0.03, (
    "soft is more than 0.02 lower, rounded numbers 0.03, here "
    f"{apart['soft']:+.3f} and {apart['numbers, rounded']:+.3f}: run all cells from the top"
)

# %% [markdown]
# One field, one pair: the second digit depends on who reads, and *soft* is another measure altogether. A table must say
# which. The fourth way is a mistake: between structure 2 and structure 10 it finds structure 6.
#
# ## Surfaces
#
# Dice counts voxels; it does not say how far the wrong ones lie. Distances between surfaces do. Two answers with
# the same Dice:

# %%
down, right = fields.identity((48, 64))[0]
disc = (down - 24) ** 2 + (right - 24) ** 2 < 13**2
moved = (down - 24) ** 2 + (right - 26) ** 2 < 13**2
island = (disc & (down < 33)) | ((down - 24) ** 2 + (right - 56) ** 2 < 3.9**2)
answers = {"moved": moved, "an island": island}
SPACING = (1.5, 1.5)  # mm


# %% [markdown]
# First the surface of a mask: the voxels inside that have a neighbour outside. `mask.roll(1, axis)` is the mask moved by
# one voxel along an axis.


# %%
@check.surface_by_hand
def surface(mask, spacing):
    """The places (N, 2), mm, of voxels with a neighbour outside; none touches the border. mask: (H, W); spacing: mm."""
    inside = mask.clone()
    for axis in (0, 1):
        inside = ...  # still True only where both neighbours along this axis are in the mask
    rim = ...  # in the mask, and not inside
    return ...  # rim.nonzero() has its rows and columns


# %% [markdown]
# Then the distances. **HD95**: 95 % of each surface lie within this distance of the other; the larger of both ways.
# **ASSD**: the average over all places of both surfaces.


# %%
@check.distances_by_hand
def distances_by_hand(first, second):
    """HD95 and ASSD, mm. first, second: the places of two surfaces, (N, 2) and (M, 2), mm."""
    between = torch.cdist(first, second)  # (N, M)
    there, back = ...  # of each place to the nearest one of the other surface: (N,) and (M,)
    hd95 = ...  # np.percentile(distances, 95)
    assd = ...
    return hd95, assd


# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.9), layout="compressed")
figure.suptitle("orange: the truth; blue: an answer")
for panel, (name, mask) in zip(panels, answers.items(), strict=True):
    labels = [each[None, None].long() for each in (mask, disc)]
    (found,) = metrics.surface_distances(*labels, spacing=SPACING).values()
    hd95, assd = distances_by_hand(surface(mask, SPACING), surface(disc, SPACING))
    apart = max(abs(hd95 - found.hd95), abs(assd - found.assd))
    assert apart < 1e-5, (
        f"HD95 and ASSD by hand are regkit's, here {apart:.1e} mm apart: was the function changed?"
    )
    score = metrics.dice(*labels)[1]
    print(f"{name:10s} Dice {score:.3f}, HD95 {hd95:5.2f} mm, ASSD {assd:.2f} mm")
    assert abs(score - 0.9) < 0.01 and (hd95 > 20) == (name == "an island"), (
        "both have a Dice of 0.90, and the island alone an HD95 above 20 mm, here "
        f"{score:.3f} and {hd95:.1f} for {name}: run this section's cells again"
    )
    panel.contour(disc, [0.5], colors="#d55e00")
    panel.contourf(mask, [0.5, 1.5], colors="#0072b2", alpha=0.4)
    panel.set(title=f"{name}: Dice {score:.2f}, HD95 {hd95:.1f} mm", aspect="equal")
    panel.set(xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)", ylim=(47, 0))

# %% [markdown]
# Both are in millimetres; regkit insists on `spacing` for that, and programs that do not give voxels, which look just as
# plausible. And a structure that is missing altogether is infinitely far away: what a table does with it (leave out? a
# penalty?) changes its mean.
#
# ## Folds
#
# A map folds where $|J| \le 0$. But $J$ holds derivatives, and a field on voxels has only differences. The papers'
# programs take them in different ways, and each prints "folds, %". Two of them by hand, in 2D. SM-GICNet takes the
# differences in each cell between four voxels, from its first corner. Write that:


# %%
@check.folds_percent
def folds_percent(phi):
    """Percent of the cells where |J| <= 0. phi: where each voxel is carried, x + u(x), (2, H, W)."""
    d0 = phi.diff(dim=1)[:, :, :-1]  # ∂φ/∂x0 by the step to the next row: (2, H-1, W-1)
    d1 = ...  # ∂φ/∂x1, by the step to the next column: (2, H-1, W-1)
    determinant = ...  # d0[0] is ∂φ0/∂x0, d0[1] is ∂φ1/∂x0
    return ...


# %% [markdown]
# VoxelMorph and SACB-Net take them at each voxel, from both of its neighbours:


# %%
def folds_by_hand(displacement, way):
    """Percent of the places where |J| <= 0, of one displacement (1, 2, H, W)."""
    phi = (displacement + fields.identity(displacement.shape[2:]))[0].double()  # x + u(x)
    if way == "forward":
        return folds_percent(phi)
    d0, d1 = (torch.gradient(phi, dim=axis)[0] for axis in (1, 2))  # central differences
    determinant = d0[0] * d1[1] - d0[1] * d1[0]
    return 100 * (determinant <= 0).double().mean().item()


# %%
zigzag = torch.zeros(1, 2, 64, 56)
zigzag[:, 1, :, ::2] = 1.2  # every other column jumps to the right, over its neighbour
cases = {"network A": u, "zigzag": zigzag, "network A + zigzag": u + zigzag}
ways = ("central", "forward", "averaged", "flips")  # the other two: SITReg, GradICON
print(f"{'folds, %':20s}", *(f"{way:>9s}" for way in ways))
for name, field in cases.items():
    counted = {way: metrics.folds(field, definition=way).percent for way in ways}
    for way in ("central", "forward"):
        ours = folds_by_hand(field, way)
        assert abs(ours - counted[way]) < 1e-6, (
            f"folds by hand are regkit's, here {ours:.4f} and {counted[way]:.4f} %: was the function changed?"
        )
    print(f"{name:20s}", *(f"{counted[way]:9.2f}" for way in ways))
    if name == "zigzag":
        assert counted["central"] < 4 and min(counted[way] for way in ways[1:]) > 45, (
            "of the zigzag central differences see less than 4 %, all others more than 45 %, here "
            f"{counted}: run this section's cells again"
        )
inside = regkit.jacobian_determinant(zigzag)[..., 1:-1]
change = (inside - 1).abs().max()
assert change < 1e-6, (
    f"by central differences there is no change of size at all, here {change:.1e}: run this cell again"
)

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="compressed")
columns = np.arange(12)
panels[0].plot(columns, columns + zigzag[0, 1, 20, :12].numpy(), "o-", color="#d55e00")
panels[0].set(title="zigzag: it goes back at every other step", ylabel="x + u(x), axis 1 (voxels)")
panels[0].set(xlabel="x, axis 1 (voxels)")
before, after = (regkit.warp(pair.moving, field)[0, 0] for field in (u, u + zigzag))
panels[1].imshow(torch.cat([before, after], 1), cmap="gray", vmin=0, vmax=1)
panels[1].set(title="moving warped by A · by A + zigzag", xlabel="axis 1 (voxels)")
panels[1].set(ylabel="axis 0 (voxels)")
panels[0].grid(alpha=0.3)

# %% [markdown]
# Half of all cells are turned inside out, and the central difference sees *nothing* (but for the two outermost columns,
# where it is one-sided): it compares the neighbours left and right, and they jump together. A percentage of folds
# without its definition is half a number.
#
# Two more columns of such tables. **std log |J|**: how unevenly the map changes volume (0: everywhere alike). It may be
# small although the map folds at a few places; and where $|J| \le 0$ there is no logarithm, so that each program puts
# something there (regkit takes $10^{-9}$ for all that is less: then many folds make it large). **Consistency**: how far
# going there and back ends from home (07 and 08: say by *whose* way back).

# %%
determinant = regkit.jacobian_determinant(u)
std_log = metrics.jacobian_statistics(u).std_log
assert abs(determinant.log().std(correction=0) - std_log) < 1e-6, (
    f"std log |J| is regkit's, here {determinant.log().std(correction=0):.5f} and {std_log:.5f}: "
    "run all cells from the top"
)
home = fields.compose(fields.invert(u), u).abs().mean().item()
regkits = metrics.inverse_consistency(u, fields.invert(u))
assert abs(home - regkits) < 1e-6, (
    f"so is the consistency, here {home:.5f} and {regkits:.5f} voxels: run all cells from the top"
)
print(f"std log |J| {determinant.log().std(correction=0):.3f};", end=" ")
print(f"{home:.4f} voxels from home on average, by the numerical inverse")

# %% [markdown]
# ## Is it chance?
#
# Back to A and B. The plot above threw away the one thing that matters: *both registered the same pairs*. Some pairs are
# hard for everybody, and that is what makes the columns so long. So link each pair's two dots:

# %%
gains = dice_A - dice_B
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="compressed")
for one, other in zip(dice_A, dice_B, strict=True):
    left.plot([0, 1], [other, one], "o-", color="#0072b2" if one > other else "#d55e00", alpha=0.6)
left.set(xticks=[0, 1], xticklabels=["B", "A"], ylabel="mean Dice of a pair", xlim=(-0.4, 1.4))
left.set(title=f"blue: A is better, {(gains > 0).sum()} of 32 pairs", ylim=(0.4, 0.9))
right.bar(range(32), np.sort(gains), color=np.where(np.sort(gains) > 0, "#0072b2", "#d55e00"))
right.set(xlabel="pairs, sorted by gain", ylabel="Dice of A - Dice of B", ylim=(-0.28, 0.28))
right.axhline(0, color="black", linewidth=0.8)
for panel in (left, right):
    panel.grid(alpha=0.3)
won = (gains > 0).sum()
assert won >= 18, f"A wins on at least 18 of 32 pairs, here on {won}: run all cells from the top"

# %% [markdown]
# **Wilcoxon's signed-rank test.** If A and B were equally good, each difference could as well have had the other sign.
# Rank the differences by size, add the ranks of those that fell: a small sum is surprising. *How* surprising can be
# counted: there are $2^{32}$ ways to give 32 differences signs. How many of them have a sum as small? (And twice that
# many, since we would have been as surprised by B.)
#
# Write the ranks, the sum of those that fell, and the *effect size* (rank-biserial): the ranks that rose minus those that
# fell, as a share of all.


# %%
@check.ranks_by_hand
def ranks_by_hand(gains):
    """The ranks by size, 1 for the smallest; the sum of those that fell; and the effect size, from -1 to 1."""
    ranks = ...  # x.argsort().argsort() has the rank of each number of x, from 0 on
    fallen = ...
    effect = ...
    return ranks, fallen, effect


# %%
def signed_rank_by_hand(gains):
    """p of the two-sided test, exactly; and the effect size from -1 to 1 (rank-biserial)."""
    ranks, fallen, effect = ranks_by_hand(gains)
    total = ranks.sum()
    ways = np.zeros(total + 1)  # ways[s]: how many choices of signs have the sum s
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()  # this one may fall as well
    as_small = ways[: min(fallen, total - fallen) + 1].sum()
    return min(1, 2 * as_small / 2 ** len(ranks)), effect


# %%
rows = [Row("A", number, {"dice": value}) for number, value in enumerate(dice_A)]
rows += [Row("B", number, {"dice": value}) for number, value in enumerate(dice_B)]
p, effect = signed_rank_by_hand(gains)
regkits = compare.chance(rows, "A", "B", "dice")
assert np.isclose(p, regkits), (
    f"p by hand is regkit's, here {p:.3g} and {regkits:.3g}: was signed_rank_by_hand changed?"
)
said = "nothing yet" if my_prediction is ... else my_prediction
print(f"p = {p:.5f}: luck does that once in {1 / p:.0f} comparisons. You said: {said}")
print(f"effect size {effect:.2f}; Dice gains {np.median(gains):.3f} in the median", end=" ")
print(f"and {gains.mean():.3f} in the mean")
assert 1 / p > 40 and 0.35 < effect < 1, (
    "luck does it less than once in 40, and the effect size is above 0.35, here "
    f"{1 / p:.0f} and {effect:.2f}: run all cells from the top"
)

# %% [markdown]
# There are other tests. The sign test looks at who wins only, the t test at the sizes of the gains (a few very large ones
# make it doubt). And one of them is wrong here: it takes the columns for two groups of *different* pairs.

# %%
tests = {
    "signs": stats.binomtest(int((gains > 0).sum()), 32).pvalue,
    "paired t": stats.ttest_rel(dice_A, dice_B).pvalue,
    "t of two groups": stats.ttest_ind(dice_A, dice_B).pvalue,
}
for name, other in tests.items():
    print(f"{name:16s} p = {other:.4f}: once in {1 / other:.0f}")
paired, coarse = max(p, tests["paired t"]), min(tests["signs"], tests["t of two groups"])
assert paired < 1 / 30 and coarse > 0.1, (
    "ranks and sizes have p below 0.033, signs and the one of two groups above 0.1, here "
    f"{paired:.4f} at most and {coarse:.2f} at least: run all cells from the top"
)

# %% [markdown]
# Ranks and sizes say *that was not luck*; the signs alone do not: most of what A gains it gains on a few pairs. How seldom
# luck would do it, each counts in its own way. So **choose the test before you see the numbers.** Who tries three and reports the least p has had three tries at being lucky.
#
# The p answers *is there a difference?*, never *is it worth anything?* For that there are the effect size (1: A wins
# everywhere; 0: even) and, above all, the gain itself, with its unit. (Median and mean of it differ here: half of the
# pairs gain little, and a few, on which B loses its way, a lot.)
#
# Two laws about p that save a study, or sink it.
#
# **Few pairs can prove nothing.** If A wins on all $n$ pairs, $p = 2 / 2^n$: the smallest there is.

# %%
for count in (4, 5, 6, 10):
    p_least, _ = signed_rank_by_hand(np.linspace(0.01, 0.02, count))
    print(f"{count:2d} pairs, all won: p = {p_least:.4f}")
    assert np.isclose(p_least, 2 / 2**count), (
        f"with {count} pairs the least p is {2 / 2**count:.4f}, here {p_least:.4f}: "
        "was signed_rank_by_hand changed?"
    )

# %% [markdown]
# **Many comparisons find something.** Six methods make 15 comparisons. If all six were equal, how often would at least
# one of the 15 have p below 0.05? And with **Holm's** correction: the smallest p times 15, the next times 14, and so on?


# %%
@check.holm_by_hand
def holm(p_values):
    """Corrected p, in the order given: each times the number of those not smaller, never below a smaller one's."""
    order = ...  # which p comes first, second ...: np.argsort
    scaled = ...  # the sorted p times n, n - 1, ... 1
    rising = ...  # np.maximum.accumulate keeps each from ending below a smaller one's; at most 1
    corrected = np.empty(len(p_values))
    corrected[...] = rising  # at which places?
    return corrected


# %%
luck = np.random.default_rng(0)
found = {"as they are": 0, "Holm": 0}
STUDIES = training.steps(fast=100, full=1000)
for _ in range(STUDIES):
    scores = luck.normal(size=(6, 10))  # six methods, ten pairs, nothing but luck
    against = [(i, j) for i in range(6) for j in range(i)]
    p_values = [signed_rank_by_hand(scores[i] - scores[j])[0] for i, j in against]
    found["as they are"] += min(p_values) < 0.05
    found["Holm"] += holm(p_values).min() < 0.05
for name, count in found.items():
    print(f"{name:12s} {100 * count / STUDIES:3.0f} % of the studies 'find' a difference")
share = {name: count / STUDIES for name, count in found.items()}
assert share["as they are"] > 0.2 and share["Holm"] < 0.1, (
    "uncorrected more than 20 % of the studies find a difference, with Holm less than 10 %, here "
    f"{100 * share['as they are']:.0f} and {100 * share['Holm']:.0f} %: run this cell again"
)
example = holm([0.01, 0.04, 0.03]).tolist()
assert np.allclose(example, [0.03, 0.06, 0.06]), (
    f"0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06, here {example}: was holm changed?"
)
apart = np.abs(holm(p_values) - compare.holm(p_values)).max()
assert apart < 1e-9, f"holm by hand is regkit's, here {apart:.1e} apart: was holm changed?"

# %% [markdown]
# ## The scoreboard
#
# Now in earnest: whole synthetic brains, ten held-out pairs after affine alignment, 64 × 80 × 64 voxels of 2.9 mm. The six
# networks of this course were trained on other brains *made by the same program*, each with the loss of its paper, for
# some hundreds of steps, or a thousand. Beside them are methods without a network, and *none*, which moves nothing.
# What they reached is stored in regkit (`python -m regkit leaderboard --again` measures it anew); the cases are computed
# here, now.

# %%
volumes = benchmarks.BENCHMARKS["brains_3d"].held_out
measured = leaderboard.stored("brains_3d")
values = {(row.method, row.pair): row.values for row in measured}
numbers = sorted({row.pair for row in measured})


def dice_of(method):
    """Of each of the ten pairs."""
    return np.array([values[method, number]["dice"] for number in numbers])


measured.sort(key=lambda row: -dice_of(row.method).mean())  # the best first
plain = [row for row in measured if "refinement" not in row.method]
COLUMNS = ("dice", "hd95", "assd", "folds_percent", "jacobian_std_log", "inverse_consistency")
shown = [Row(r.method, r.pair, {k: r.values[k] for k in COLUMNS if k in r.values}) for r in plain]
Markdown(compare.as_markdown(shown))

# %% [markdown]
# (*Inverse consistency* here: the way back is the one that the method itself gives. A dash: it gives none.)

# %%
REFINED = False  # True: what each network reaches with refinement (below)
chosen = [row for row in measured if ("refinement" in row.method) == REFINED]
here = [name for name in leaderboard.rivals()[::-1] if any(row.method == name for row in chosen)]
can_be_asked = [leaderboard.make(name) for name in here]
board = lesson.scoreboard(chosen, volumes, can_be_asked, upright=True)
board

# %% [markdown]
# Choose a method: below is the case itself (it is computed now: one second, or five). Choose a pair: its orange line
# tells whether it is hard for all of them. Choose another measure: do the columns, which are in the order of their Dice,
# change places? *Go to the least |J|* leads to where the map shrinks most. Find out:
#
# * Is the best method by mean Dice the best on every pair?
# * Are there methods that change places between Dice and HD95? Whose outlines look worse?
# * Who folds, and where?
# * By which measures is *none* the best method? So what must stand beside each of them?
# * What do the methods without a network cost (*seconds*)? And what is missing in the seconds of a network?
#
# A column is a *training*, not an idea: the papers' networks are larger, and were trained far longer than ours. And the
# networks play at home: they know this program's brains, the others have never seen any.
#
# Can stored numbers be trusted? Compute some again:

# %%
by_dice = list(dict.fromkeys(row.method for row in plain))
networks = [name for name in by_dice if name in methods.NETWORKS]
for name in sorted(networks)[-training.steps(fast=1, full=6) :]:
    again = compare.measure(leaderboard.make(name), volumes[1])
    for number, places in (("dice", 0.002), ("hd95", 0.05), ("jacobian_std_log", 0.005)):
        before = values[name, 1][number]
        assert abs(again[number] - before) < places, (
            f"{name}: {number} is what is stored, here {again[number]:.4f} against {before:.4f}: "
            "are the weights others? python -m regkit leaderboard --again measures anew"
        )
    print(f"{name}, pair 1: Dice {again['dice']:.4f}, stored {values[name, 1]['dice']:.4f}")

# %% [markdown]
# Which networks can ten pairs tell apart? It is tempting to take the best one and to test it against the five others:
# five comparisons. But it was picked by looking at all of them. So we compare each with each, and correct for 15.

# %%
against = [(one, other) for i, one in enumerate(networks) for other in networks[i + 1 :]]
p_values = [compare.chance(plain, *both, "dice") for both in against]
for (one, other), p_two, corrected in zip(against, p_values, holm(p_values), strict=True):
    gain = np.median(dice_of(one) - dice_of(other))
    told = "" if corrected < 0.05 else "not told apart"
    print(f"{one:10s} and {other:10s} median gain {gain:+.3f},", end=" ")
    print(f"p {p_two:.4f}, after Holm {corrected:.4f} {told}")
worst, nothing = min(dice_of(name).mean() for name in networks), dice_of("none").mean()
assert worst > nothing, (
    f"each network is better than nothing, here {worst:.3f} at least against {nothing:.3f}: "
    "run the scoreboard's cells again"
)
least = min(p_values)
assert least > 0.999 * 2 / 2 ** len(numbers), (
    f"ten pairs cannot say more than p = {2 / 2 ** len(numbers):.4f}, here {least:.4f}: "
    "run the scoreboard's cells again"
)

# %% [markdown]
# ### Another table, another order
#
# **Refinement**: from what the network found, 20 steps of optimisation at each scale on the pair itself (06: instance
# optimisation; it needs no labels). *optimise*: the same steps from nothing. Here are all methods on two sets of ten pairs
# each: aligned, as above, and as they lie (folds and seconds: means over both).

# %%
as_they_lie = leaderboard.stored("brains_3d_unaligned")
Markdown(leaderboard.short_table(measured, as_they_lie))

# %%
lying = {(row.method, row.pair): row.values for row in as_they_lie}
other_order = sorted(by_dice, key=lambda name: -np.mean([lying[name, k]["dice"] for k in numbers]))
for place, (one, other) in enumerate(zip(by_dice, other_order, strict=True), start=1):
    print(f"{place:2d}. aligned: {one:12s} as they lie: {other}")
assert by_dice != other_order, (
    f"the two sets of pairs have other orders, here both {by_dice}: run the scoreboard's cells again"
)
helped = [dice_of(f"{name} + refinement").mean() > dice_of(name).mean() for name in networks]
assert sum(helped) >= 5, (
    f"refinement raises the Dice of at least five networks, here of {sum(helped)}: "
    "run the scoreboard's cells again"
)

# %% [markdown]
# Refinement raises Dice. But the fair question is another one: is a network with refinement better than *optimise*,
# which takes as many steps and needs no training at all? Look for it in both columns. And each of the two columns alone
# makes a paper whose numbers are all true.
#
# What does refinement cost, besides seconds? It is in no column of this table:

# %%
for name in networks:
    roughness = [
        np.mean([values[method, number]["jacobian_std_log"] for number in numbers])
        for method in (name, f"{name} + refinement")
    ]
    print(f"{name:10s} std log |J| {roughness[0]:.2f}, with refinement {roughness[1]:.2f}")
    assert name not in ("spnet", "sitreg") or roughness[1] > 1.5 * roughness[0], (
        f"refinement makes the map of {name} 1.5 times as uneven, here {roughness[1] / roughness[0]:.2f} "
        "times: run the scoreboard's cells again"
    )

# %% [markdown]
# Set `REFINED = True` above, and look at $|J|$ outside the brain, where there is nothing to register but noise. Dice does
# not ask what a map does there. (VoxelMorph's is large for another reason: it folds.)

# %% [markdown]
# ## Break it
#
# Three ways to be right on paper. Nobody in them tells a lie.
#
# ### The average that hides the small
#
# *"Some structures have only a few voxels, and their Dice is noisy. So I count all voxels together."* Let us do it, and
# then **delete** the deep nuclei from the answers: six structures, whose voxels we give to the outside.


# %%
def pooled_dice(first, second):
    """All structures as one sum: large ones count more."""
    same = ((first == second) & (first > 0)).sum().item()
    return {1: 2 * same / ((first > 0).sum() + (second > 0).sum()).item()}


NUCLEI = ("thalamus", "caudate", "lentiform nucleus")
deep = [k for k, name in enumerate(STRUCTURES) if name.endswith(NUCLEI)]
without = batch.moving_labels.masked_fill(torch.isin(batch.moving_labels, torch.tensor(deep)), 0)
kept = {}
for name, labels in (("all", batch.moving_labels), ("no deep nuclei", without)):
    kept[name] = [mean_dice(u_A, score, labels).mean() for score in (metrics.dice, pooled_dice)]
    by_structure, together = kept[name]
    print(f"{name:15s} mean of structures {by_structure:.3f}, all voxels together {together:.3f}")
lost = np.subtract(kept["all"], kept["no deep nuclei"])
assert lost[0] > 0.25 and lost[1] < 0.05, (
    "the mean over structures loses more than 0.25, the pooled number less than 0.05, here "
    f"{lost[0]:.3f} and {lost[1]:.3f}: run this cell again"
)

# %% [markdown]
# **Symptom:** six of the thirteen structures in these slices are gone, and the pooled number hardly notices. **Fix:**
# the mean over structures, and a look at each structure.
#
# ### The winner of twenty
#
# *"I tried twenty settings and report the best."* Here are twenty settings that are all worthless: A's field, plus a
# smooth random wobble, about a tenth of a voxel long, that knows nothing of any image. We choose the best on eight
# pairs, then look at the other 24.

# %%
SETTINGS = 20
chosen_on, others_are = slice(0, 8), slice(8, 32)
tried = []
for seed in range(SETTINGS):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 2, 3, 3, generator=generator)
    wobble = torch.nn.functional.interpolate(coarse, (64, 56), mode="bicubic", align_corners=True)
    tried.append(mean_dice(u_A + 0.1 * wobble) - dice_A)
tried = np.array(tried)  # (settings, pairs): gain over A
winner = tried[:, chosen_on].mean(1).argmax()
on_these, elsewhere = tried[winner, chosen_on], tried[winner, others_are]

# %%
figure, axes = plt.subplots(figsize=(6, 3.6), layout="compressed")
axes.plot(
    tried[:, chosen_on].mean(1), tried[:, others_are].mean(1), "o", color="#0072b2", alpha=0.5
)
axes.plot(on_these.mean(), elsewhere.mean(), "o", color="#d55e00", label="the winner")
axes.axhline(0, color="black", linewidth=0.8)
axes.axvline(0, color="black", linewidth=0.8)
axes.set(xlabel="gain on the 8 pairs it is chosen on (Dice)", ylabel="gain on the 24 others (Dice)")
axes.locator_params(nbins=5)
axes.legend()
axes.grid(alpha=0.3)
print(f"the winner of {SETTINGS} gains {on_these.mean():+.4f} on its 8 pairs,", end=" ")
print(f"{elsewhere.mean():+.4f} on the others")
assert on_these.mean() > 0.003 > 0.0015 > max(elsewhere.mean(), tried.mean()), (
    "the winner gains 0.003 where it was chosen and not half of it elsewhere, nor do the twenty on average, "
    f"here {on_these.mean():+.4f}, {elsewhere.mean():+.4f} and {tried.mean():+.4f}: run this cell again"
)

# %% [markdown]
# **Symptom:** what was chosen on the test pairs is better *on the test pairs*. **Fix:** tune on pairs of their own,
# and open the held-out ones once. If there were $k$ tries, divide 0.05 by $k$.
#
# ### The seed that was lucky
#
# Now the one that hurts. What are A and B? **A is SM-GICNet, B the same without its gradient inverse consistency term.**
# We found: the term raises Dice by .026, p below 0.02, no tuning, one comparison. The paper says so, too. Would you
# publish? Train both again, from other seeds:

# %%
seeds = {
    name: [record["metrics"]["dice"] for record in studies.records("smgicnet", variant)]
    for name, variant in (("A", "reference"), ("B", "no gradient inverse consistency"))
}
for number, (one, other) in enumerate(zip(seeds["A"], seeds["B"], strict=False)):
    print(f"seed {number}: A {one:.3f}, B {other:.3f}, gain {one - other:+.3f}")
again = np.array([one - other for one, other in zip(*seeds.values(), strict=False)])
assert abs(seeds["A"][0] - dice_A.mean()) < 2e-3 and again[0] > 0.02 and again.min() <= again[0], (
    f"the first seed is A ({dice_A.mean():.3f}) and gains 0.02, no other as surely, here {seeds['A'][0]:.3f} and "
    f"{again}: run all cells from the top"
)

# %% [markdown]
# From another seed, another gain. The p was right, and answered another question:
# *would these weights win on other pairs?* Most likely. *Would this idea win in another training?* Of that it knows nothing:
# it has seen one training of each. **The unit that is repeated is the unit that the p is about.** Pairs were; trainings
# were not. (And who sets the best of three seeds of their own method against one seed of another can have any result.)
#
# ## How a gain dissolves
#
# A true story of this course. *Multi-scale image encoding raises Dice* (SPnet, Table 4: .577 to .587). We trained with it
# and without it, from three seeds each. The gains in Dice were .0050, .0005 and .00004: each seed above zero, so
# our ledger said *yes*, by .0018 in the mean. **A rule that counts signs is passed by chance one time in eight.** What do
# three numbers say of their mean?

# %%
three = np.array([0.0050, 0.0005, 0.00004])
error = three.std(ddof=1) / np.sqrt(3)
reach = stats.t.ppf(0.975, df=2) * error  # Student's t: 4.3 errors with three seeds, 2.4 with eight
print(
    f"gain {three.mean():.4f}, 95 % interval from {three.mean() - reach:+.4f} to {three.mean() + reach:+.4f}"
)
assert three.mean() - reach < 0 < three.mean() < 0.002 < reach, (
    f"the interval holds zero, and is wider than the gain, here {three.mean():.4f} ± {reach:.4f}: "
    "run this cell again"
)

# %% [markdown]
# Nothing at all, or four times as much: both fit. So the ledger now has one rule for all rows (`course.judgement`). The
# difference $D_{sp}$ of two variants, trained from the same seed $s$, on the same held-out pair $p$, varies with the
# seed, with the pair, and by what is left:
#
# $$D_{sp} = \mu + a_s + b_p + e_{sp}, \qquad \operatorname{var}(\bar D) = \frac{\sigma_a^2}{S} + \frac{\sigma_b^2}{P}
# + \frac{\sigma_e^2}{S P}.$$
#
# More pairs cannot make the first term smaller: only more trainings can. The 95 % interval of $\mu$ then says *yes* if it is above
# zero (and the gain as large as matters: .005 of Dice), *no* if it is below what matters, and else **not told apart**,
# after Holm's correction for all rows. How many seeds would have told .0018 from zero?

# %%
D = studies.values("spnet", "reference", "dice"), studies.values("spnet", "w/o MIE", "dice")
kept = min(map(len, D))
D = D[0][:kept] - D[1][:kept]  # (seeds, pairs)
found = judgement.estimate(D)
of_seeds, of_pairs, rest = found.deviations
print(f"now, {found.seeds} seeds x {found.pairs} pairs: {found.mean:+.4f}", end=" ")
print(f"[{found.interval[0]:+.4f}, {found.interval[1]:+.4f}]")
print(f"σ over seeds {of_seeds:.4f}, over pairs {of_pairs:.4f}, what is left {rest:.4f}")

# %%
trainings = np.array([3, 5, 8, 16, 32, 64, 128, 256])
figure, axes = plt.subplots(figsize=(6, 3.4), layout="compressed")
for gain, colour in ((0.0018, "#d55e00"), (0.005, "#cc79a7"), (0.02, "#0072b2")):
    # no scatter over pairs: what would be found with all the pairs that one could wish
    chance = [judgement.power(gain, count, 10**6, (0.0028, 0.0, rest)) for count in trainings]
    axes.plot(trainings, chance, "o-", color=colour, label=f"a true gain of {gain}")
    if gain == 0.0018:
        needed = trainings[np.searchsorted(chance, 0.8)]
axes.set(xscale="log", xlabel="seeds", ylabel="how often it is seen", ylim=(0, 1.02))
axes.set_xticks(trainings, trainings)
axes.minorticks_off()
axes.legend()
axes.grid(alpha=0.3)
print(
    f"a gain of .0018 is seen four times in five with {needed} seeds, if three have shown the true scatter"
)
assert 16 <= needed <= 64, (
    f"it takes some dozens of seeds, here {needed}: was judgement.power changed?"
)

# %% [markdown]
# Dozens of trainings of each, for a gain that nobody would notice in a patient. <!-- claim: SPnet: MIE = not told apart -->
# (And the scatter that later seeds showed is larger: look at σ over seeds above, and think what that does to the orange
# curve.) *Not told apart* is no verdict against the idea. It is what honest numbers say when there are few.
#
# ## The claims ledger
#
# regkit holds the five papers to this: 113 claims. Before you look, say of these four what the ledger says: `"yes"`,
# `"no"` or `"not told apart"`:
#
# * *SITReg: limit*: the paper's limit, γ = 0.15, keeps each step from folding, whatever the weights;
# * *SPnet: SyN 3D*: on whole brains, its Dice is above SyN's;
# * *SPnet: MIE*: multi-scale image encoding raises Dice;
# * *SM-GICNet: no affine*: it needs no alignment, Dice is no less without.

# %% tags=["exercise"]
my_claims = {
    "SITReg: limit": ...,
    "SPnet: SyN 3D": ...,
    "SPnet: MIE": ...,
    "SM-GICNet: no affine": ...,
}

# %% tags=["solution"]
my_claims = {
    "SITReg: limit": "no",
    "SPnet: SyN 3D": "yes",
    "SPnet: MIE": "not told apart",
    "SM-GICNet: no affine": "no",
}

# %%
ledger = lesson.claims_board()
count = len(ledger.scene.claims)
assert count == 113, f"the ledger has 113 claims, here {count}: change the number in the text"
ledger

# %% [markdown]
# Move to a claim, then *show results*: each grey dot is a training (of 3D rows, which are of one training each, a
# pair), the bar the interval. Grey ground is what does not matter. List those *not told apart*: how many are so because
# the effect is small, how many because the seeds are few? "No" is not "is false": the networks are small, the
# brains synthetic, the trainings short.
# <!-- claim: SITReg: limit = no --> <!-- claim: SPnet: SyN 3D = yes --> <!-- claim: SM-GICNet: no affine = no -->

# %%
told = {f"{each.claim.method}: {each.claim.name}": each for each in ledger.scene.findings}
for name, said in my_claims.items():
    print(
        f"{name}: {told[name].verdict}. You said: {'nothing' if said is ... else said}. {told[name].words}"
    )
verdicts = [told[name].verdict for name in my_claims]
assert verdicts == ["no", "yes", "not told apart", "no"], (
    f"the ledger says no, yes, not told apart and no, here {verdicts}: are there new trainings? then change the text"
)

# %% [markdown]
# ## Exercise: rig the Dice
#
# Write `my_field(moving_labels, fixed_labels)`, both (1, 1, H, W), which returns a displacement (1, 2, H, W) in voxels.
# It shall bring mean Dice to 1, and be nonsense. (Remember: at each voxel $x$ of the fixed grid, moving is read at
# $x + u(x)$. `fields.identity((H, W))` holds all $x$.)

# %% tags=["exercise"]
my_field = ...  # a function of moving_labels and fixed_labels


# %% tags=["solution"]
def shred(moving_labels, fixed_labels):
    """Each voxel reads moving at the first voxel that has the right label."""
    x = fields.identity(fixed_labels.shape[2:])[0]
    places = x.clone()
    for label in fixed_labels.unique():
        first = (moving_labels[0, 0] == label).nonzero()[:1]
        if len(first):
            places[:, fixed_labels[0, 0] == label] = first[0].float()[:, None]
    return (places - x)[None]


my_field = shred

# %%
check.rigged_field(my_field)

# %% [markdown] tags=["instructor"]
# Most take the first voxel of each label; some the nearest one, which is a fine discussion: it moves little, looks
# smooth, and still folds (whole regions are read from one line of voxels). Ask for a rig of HD95, and of
# the image difference. Then ask what a network does whose loss contains Dice, and nothing against it.

# %% [markdown]
# One way to do it, which regkit keeps for the check:

# %%
u_rigged = torch.cat([check.rigged(p.moving_labels, p.fixed_labels) for p in pairs])
dice_rigged = mean_dice(u_rigged)
print(f"Dice {dice_rigged.mean():.3f} (A: {dice_A.mean():.3f}); folds", end=" ")
print(f"{metrics.folds(u_rigged).percent:.0f} % (A: {metrics.folds(u_A).percent:.2f} %)")
folded = metrics.folds(u_rigged).percent
assert dice_rigged.mean() > 0.99 and folded > 50, (
    f"a Dice above 0.99, and folds at more than half of the voxels, here {dice_rigged.mean():.3f} and "
    f"{folded:.0f} %: run this cell again"
)
shades = len((1000 * regkit.warp(pair.moving, u_rigged[[3]])).round().unique())
assert shades == 14, (
    f"fourteen shades are left, one of each label, here {shades}: run this cell again"
)
rig = slice_viewer(
    pair,
    regkit.Registration(u_rigged[[3]]),
    panels=("fixed", "warped", "fixed labels", "warped labels", "grid", "jacobian"),
)
rig

# %% [markdown]
# The labels agree to the last voxel. The brain has fourteen shades left: one voxel of each label is read, all others are
# thrown away.
#
# ## Exercise: a fair protocol
#
# You referee a comparison. You get
#
# * `rows`: a list of `Row(method, pair, values)`, in any order. The methods are `"candidate"` and `"reference"`; `values`
#   has `"dice"`, `"hd95"` (mm), `"folds_percent"` and `"jacobian_std_log"`;
# * `tuned_on`: the numbers of the pairs on which the candidate was tuned;
# * `tries`: how many candidates were tried before this one was shown to you.
#
# Write `my_protocol(rows, tuned_on, tries)`: True if the candidate is the better method, else False.
# `comparisons.chance(rows, "candidate", "reference", "dice")` is the paired p, two-sided. More than 1 % of folds is too
# many. Ten cases await you; in each of them one usual mistake says the wrong word.

# %% tags=["exercise"]
my_protocol = ...  # a function of rows, tuned_on and tries


# %% tags=["solution"]
def referee(rows, tuned_on, tries):
    fair = [row for row in rows if row.pair not in tuned_on]
    ours = {row.pair: row.values for row in fair if row.method == "candidate"}
    theirs = {row.pair: row.values for row in fair if row.method == "reference"}
    gain = np.median([ours[pair]["dice"] - theirs[pair]["dice"] for pair in theirs])
    if max(values["folds_percent"] for values in ours.values()) > 1:
        return False
    return gain > 0 and compare.chance(fair, "candidate", "reference", "dice") < 0.05 / tries


my_protocol = referee

# %%
check.fair_protocol(my_protocol)

# %% [markdown] tags=["instructor"]
# What the protocol still cannot see: one training of each (the seed), one data set, structures that were left out, and
# whether the reference was trained with the same care. Let the room add rows to the table of `tuned_on` and `tries` until
# nobody finds another hole; then ask which published comparison would pass.

# %% tags=["instructor"]
board.set(method=networks[-1], pair=1, metric="folds (%)")
board.controls["go"].click()
ledger.set(claim=60, revealed=True)
errors = [error for view in (board, ledger, rig) for error in view.errors]
assert errors == [], f"no view had an error, here {errors}: run the view's cell again"
cases = check.protocol_cases()
right = sum(my_protocol(list(c.rows), set(range(8)), c.tries) == c.better for c in cases.values())
assert right == len(cases), f"the solution judges every case rightly, here {right} of {len(cases)}"

# %% [markdown]
# ## Take away
#
# > * **Every measure overlooks some nonsense.** Dice: where voxels come from. Folds, by central differences: a zigzag.
# >   A pooled mean: whatever is small. Report several, each with its definition and its unit.
# > * **Compare on the same pairs**, pair by pair: the signed-rank test sees what overlapping bars hide. Then say how
# >   large the gain is.
# > * With $n$ pairs, p is never below $2/2^n$; with $k$ comparisons, 0.05 becomes $0.05/k$ (or Holm). Choose the test
# >   before you look.
# > * **Held out** means: looked at once. The best of twenty is the best *there*.
# > * **A p is about what was repeated.** One training of each method says nothing about the methods' next training.
# > * Behind each dot is a case. **Look at it.**
#
# **Next.** All these brains were made by a program, and lay still on a known grid. Yours comes as a file, from a scanner,
# with a header that may be wrong. *Your own brain.*
