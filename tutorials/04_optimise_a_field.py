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
# # 04 · Optimise a field
#
# *No network yet: one pair of images, one field, an optimiser. And a wrong field can give a perfect picture, in more
# than one way.*
#
# **Goals.** After this notebook you can register a pair by gradient descent, with an affine map first and then one
# vector for each voxel. You can say what the weight of the smoothness buys and what it costs. You can find the folds
# that no picture shows.
#
# **Before you start.** Warping (tutorial 02); gradient descent.
#
# **Time.** You: about 60 minutes. A CPU (measured on two cores): about 17 s in fast mode, 50 s in full mode.

# %%
import matplotlib.pyplot as plt
import torch

import regkit
from regkit import check, course, fields, figures, metrics, optimise, widgets
from regkit.course import league
from regkit.course.lessons import sweeps

course.begin(seconds={"fast": 17, "full": 50}, minutes=60)

# %% [markdown]
# ### Three questions on what was before
#
# 1. One scan is T1, the other T2. Which loss has its minimum at the truth over shifts and angles?
#    * a: MSE.
#    * b: Mutual information.
#    * c: NCC.
# 2. The capture range of a loss is
#    * a: its value at the truth.
#    * b: the width of its window.
#    * c: the range from which every step downhill leads to the truth.
# 3. Two discs do not overlap. What is the slope of the MSE over a shift?
#    * a: Zero.
#    * b: It points to the goal.
#    * c: It is zero at every scale, however much one blurs.
#
# Answer by three letters.

# %% tags=["exercise"]
my_recap = ...  # such as "abc"

# %% tags=["solution"]
my_recap = "bca"

# %%
check.recap_04(my_recap)

# %% [markdown] tags=["instructor"]
# Talk 10 minutes, work 50. Answers to expect. Predict: *fall* from most, *fall, then rise* is right. Folds: det(∂u)
# without the identity first; `jacobian_by_hand(u) <= 0` is right.

# %% [markdown]
# ## Two scans of one thing
#
# Here are three shapes, scanned twice. In the second scan they are turned by 20 degrees, shifted and *bent*. They are
# also about 13 % smaller: the map reads 1.15 times as far out, and warping pulls. Each scan has its own noise. We made
# the pair (it is the course's second pair, `league.pairs()["shapes"]`), so for once we know the **true displacement**. The
# optimiser never sees it. We keep it to judge the result.
#
# No shape is cut off: what the fixed image shows of a shape was read from inside the moving image. Some of the
# background was read from outside. There the border's value goes on: it is background again.


# %%
pair = league.pairs()["shapes"]
places = fields.identity((64, 64)) + pair.displacement
outside = ((places < 0) | (places > 63)).any(1)
lost = int((outside & (pair.fixed_labels[:, 0] > 0)).sum())
assert lost == 0, (
    f"every shape is read from inside, here {lost} voxels are not: run this cell again"
)
figures.show_pair(pair)

# %% [markdown]
# ### Predict
#
# Our map has two parts, $\varphi = \varphi_\text{affine} \circ \varphi_w$: a vector $w(x)$ for each voxel, then one
# affine map for all. With $u(x) = \varphi(x) - x$ we minimise the **misfit** of the pictures, and $\lambda$ times the
# **roughness** of the field:
#
# $$\text{mean}\,\big(\text{moving}(x + u(x)) - \text{fixed}(x)\big)^2 + \lambda\,\text{mean}\,|\nabla w|^2 .$$
#
# (The first mean is over the voxels. The second one is over voxels, components and axes. It penalises $w$ alone, so the
# rotation is free.) With a smaller $\lambda$ the pictures agree better: this is no surprise.
# But how does the error of the **field** change, the distance between $u$ and the truth? Let $\lambda$ go from large to
# zero. Does this error `"fall"`, `"rise"` or `"fall, then rise"`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "fall, then rise"

# %% [markdown] tags=["instructor"]
# Most will say *fall*: a better picture must be a better registration. A few say *rise* ("regularisation helps"). Ask
# the first group what the field does in the middle of a shape that has one grey value.

# %% [markdown]
# ## Affine first
#
# We start with six numbers: a matrix $A$ and a translation $t$. The map is
# $\varphi_\text{affine}(x) = A(x - c) + c + t$, and $c$ is the image's centre. Adam changes each number by about the
# learning rate in a step. So we measure all six in the same unit: *voxels by which the image's border moves*.
#
# One step of gradient descent has five lines: warp, compare, and three lines that move the numbers. Write them, in place
# of each `...`. As in tutorial 02, the line above the function says at once what is right. As long as it is not, the
# notebook goes on with the solution.


# %%
@check.affine_by_hand
def affine_by_hand(moving, fixed, steps=150):
    """The affine map (1, 2, 3) that `steps` steps of Adam find, and the loss in each. Images: (1, 1, H, W)."""
    size = tuple(moving.shape[2:])
    change = torch.zeros(1, 2, 3, requires_grad=True)  # voxels
    # a change of A by 2/(N-1) moves the border, (N-1)/2 from the centre, by one voxel
    unit = torch.tensor([2 / (length - 1) for length in size] + [1.0])
    optimiser = torch.optim.Adam([change], lr=0.3)
    history = []
    for _ in range(steps):
        matrix = torch.eye(2, 3) + change * unit
        warped = ...  # moving, warped; fields.affine_displacement(matrix, size) is the displacement
        loss = ...  # the mean squared difference between warped and fixed
        ...  # set the gradients of the last step to zero
        ...  # compute the gradients of this loss
        ...  # let the optimiser take its step
        history.append(loss.item())
    return (torch.eye(2, 3) + change * unit).detach(), history


# %%
affine, history = affine_by_hand(pair.moving, pair.fixed)
print(f"the loss falls from {history[0]:.4f} to {history[-1]:.4f}")
apart = (affine - optimise.optimise_affine(pair.moving, pair.fixed)).abs().max()
assert apart < 1e-3, f"by hand as by regkit, here {apart:.1e} apart: was affine_by_hand changed?"
reach = affine[0, :, :2].det().sqrt().item()
print(f"it reads {reach:.2f} times as far out; we made the pair with 1.15, before the bend")
assert abs(reach - 1.15) < 0.05, (
    f"it finds the size within 0.05, here {reach:.3f} against 1.15: run this cell again"
)
after_affine = fields.affine_displacement(affine, (64, 64))
figures.show_registration(pair, regkit.Registration(after_affine))

# %% [markdown]
# ## A judge
#
# In the last picture, the panel of $|J|$ is green all over. This green is the *affine part*: the map reads further out
# everywhere, so each voxel fetches from a larger area. $|J|$ is the **Jacobian determinant** of the map
# $\varphi(x) = x + u(x)$, the local change of area:
#
# $$|J|(x) = \det \frac{\partial \varphi}{\partial x} = \det \begin{pmatrix} 1 + \partial_0 u_0 & \partial_1 u_0 \\
# \partial_0 u_1 & 1 + \partial_1 u_1 \end{pmatrix} .$$
#
# Write this formula once in your life. `u` has the shape (1, 2, H, W): $u_0$ is `u[0, 0]`, and $u_1$ is `u[0, 1]`.
# `torch.gradient(u[0, 0])` returns two images, $\partial_0 u_0$ and $\partial_1 u_0$, change per voxel.


# %%
@check.jacobian_by_hand
def jacobian_by_hand(u):
    """|J| of the map x + u(x) at each voxel, (H, W). u: (1, 2, H, W), voxels."""
    d0u0, d1u0 = ...  # the slopes of u_0 along axis 0 and axis 1
    d0u1, d1u1 = ...  # those of u_1
    return ...  # the determinant of the matrix above


# %%
by_hand, by_regkit = jacobian_by_hand(after_affine), regkit.jacobian_determinant(after_affine)
apart = (by_hand - by_regkit[0, 0]).abs().max()
assert apart < 1e-4, (
    f"|J| by hand is regkit's, here {apart:.1e} apart: was jacobian_by_hand changed?"
)
print(f"|J| of the affine map: from {by_hand.min():.3f} to {by_hand.max():.3f}")
off = (by_hand - reach**2).abs().max()
assert off < 1e-3, (
    f"it is the same everywhere, {reach**2:.3f}, here {off:.1e} off: run this cell again"
)

# %% [markdown]
# An affine map changes all areas by one factor, the determinant of its matrix: about $1.15^2 = 1.32$. So in this
# tutorial a light green means *only the affine part*. What we look for is where $|J|$ is zero or negative. Such a voxel
# is a **fold**: there the map turns space inside out.
#
# Our judge counts the folds. It also measures **Dice**, the overlap of the labelled shapes (1: the same outlines), and
# two errors.


# %%
def judge(displacement):
    """Folds, Dice, and two errors: of the picture (intensity), and of the field within the shapes (voxels)."""
    score = metrics.evaluate(displacement, pair)
    inside = pair.fixed_labels[:, 0] > 0
    score["picture"] = (fields.warp(pair.moving, displacement) - pair.fixed).abs().mean().item()
    score["field"] = (displacement - pair.displacement).norm(dim=1)[inside].mean().item()
    return score


affine_score = judge(after_affine)
for name in ("dice_before", "dice", "folds_percent", "picture", "field"):
    print(f"{name:13s} {affine_score[name]:.3f}")
assert affine_score["dice"] > 0.9 > 0.7 > affine_score["dice_before"], (
    "the affine map raises Dice from below 0.7 to above 0.9, here "
    f"{affine_score['dice_before']:.3f} to {affine_score['dice']:.3f}: run all cells from the top"
)

# %% [markdown]
# The shapes are turned, scaled and shifted back. What remains is *bent*, and no matrix bends.
#
# ## Then a vector for each voxel
#
# Now the unknown is a whole field $w$: 64 · 64 · 2 = 8192 numbers. The optimiser stays the same. We keep the affine map:
# $\varphi = \varphi_\text{affine} \circ \varphi_w$. A point $x$ is moved by $w$ first, then by the affine map. For the
# image it is the other way round. (*Affine first* means: we optimise it first.) What is the displacement $u$ of both?


# %%
@check.total_by_hand
def total_displacement(w, affine):
    """u(x) = φ_affine(x + w(x)) - x. w and u: (1, 2, H, W), voxels; affine: (1, 2, 3)."""
    size = tuple(w.shape[2:])
    grid = fields.identity(size)  # x, the place of each voxel: (1, 2, H, W)
    places = ...  # where w leads
    return ...  # fields.move_affinely(places, affine, size) is where the affine map moves places


# %% [markdown]
# The roughness (called *diffusion*; VoxelMorph, Balakrishnan et al. 2019) penalises differences between neighbours. For
# an image `w` of vectors, `w.diff(dim=2)` has the differences of neighbours along axis 0.


# %%
@check.roughness_by_hand
def roughness(w):
    """mean |∇w|², over voxels, components and axes: one number. w: (1, 2, H, W), voxels."""
    down = ...  # the mean of the squared differences along axis 0
    right = ...  # along axis 1
    return ...  # the mean of both


# %% [markdown]
# And now the optimiser. The three lines of a step are there. What does it minimise?


# %%
@check.field_by_hand
def field_by_hand(moving, fixed, affine, weight, steps):
    """u after `steps` steps of Adam, (1, 2, H, W), voxels. Images: (1, 1, H, W); affine: (1, 2, 3)."""
    w = torch.zeros(1, 2, *moving.shape[2:], requires_grad=True)
    optimiser = torch.optim.Adam([w], lr=0.1)
    for _ in range(steps):
        u = total_displacement(w, affine)
        misfit = ...  # the mean squared difference, once moving is warped
        loss = ...  # the formula above; weight is λ
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return total_displacement(w, affine).detach()


# %% [markdown]
# This is the core of classical deformable registration. Real programs add levels from coarse to fine, other
# similarities, and other ways to describe the map. The same from regkit:

# %%
by_hand = field_by_hand(pair.moving, pair.fixed, affine, weight=0.1, steps=40)
by_regkit = optimise.optimise_field(pair.moving, pair.fixed, affine=affine, weight=0.1, steps=40)
apart = (by_hand - by_regkit.displacement).abs().max()
print(f"largest difference: {apart:.1e} voxels")
assert apart < 0.01, (
    f"by hand as by regkit, here {apart:.1e} voxels apart: was field_by_hand changed?"
)
charged = regkit.losses.diffusion(by_hand)
assert torch.isclose(roughness(by_hand), charged, rtol=1e-4), (
    f"the roughness is regkit's diffusion, here {roughness(by_hand):.6f} and {charged:.6f}: "
    "was roughness changed?"
)

# %% [markdown]
# > **A good place to pause** (about 35 minutes so far). After the break: *Run* → *Run All Above Selected Cell*.
#
# ## The price of smoothness
#
# We take one weight after the other, with the same pair and the same number of steps. We store the fields. Then you
# drag the slider.

# %%
STEPS = regkit.training.steps(fast=300, full=1000)
weights = [10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0]
options = {"affine": affine, "steps": STEPS}
found = {
    f"{weight:g}": optimise.optimise_field(
        pair.moving, pair.fixed, weight=weight, **options
    ).displacement
    for weight in weights
}
scores = {name: judge(displacement) for name, displacement in found.items()}

# %%
notes = {
    name: f"Dice {score['dice']:.3f}; the field is {score['field']:.2f} voxels off within the shapes."
    for name, score in scores.items()
}
options = {"words": "λ", "start": "0.1", "notes": notes, "error": True}
slider = sweeps.sweep(pair.moving, pair.fixed, found, **options)
slider

# %% [markdown]
# Take $\lambda$ step by step from 10 down to zero. Watch the **second** picture, $|\text{warped} - \text{fixed}|$: it only
# gets darker, so the match only gets better. Now do it again, and watch the **right** picture, $|J|$. (The light green of
# stiff fields is the affine part. Cross hairs mark the voxel with the least $|J|$, in all pictures.)
#
# The same as curves:

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 3.4), layout="compressed")
for panel, key, label in zip(
    axes,
    ("picture", "field", "folds_percent"),
    (
        "picture: mean |warped - fixed|",
        "field: |u - truth| in the shapes (voxels)",
        "folded voxels (%)",
    ),
    strict=True,
):
    panel.plot(range(len(weights)), [scores[name][key] for name in found], "o-", color="#0072b2")
    panel.set(xticks=range(len(weights)), xticklabels=list(found), xlabel="weight λ", title=label)
    panel.set_ylim(bottom=0)
    panel.tick_params(axis="x", rotation=45)
    panel.grid(alpha=0.3)

# %%
picture_errors, field_errors = (
    [score[key] for score in scores.values()] for key in ("picture", "field")
)
best = min(range(len(weights)), key=lambda index: field_errors[index])
print(f"the field is best at λ = {weights[best]:g}, the picture at λ = {weights[-1]:g};", end=" ")
print("you said:", "nothing yet" if my_prediction is ... else my_prediction)
better = -torch.tensor(picture_errors).diff().max()
assert better > 0, (
    f"with each smaller weight the picture gets better, here by {better:+.1e} at least: "
    "run this section's cells again"
)
stiff, loose = field_errors[0] / field_errors[best], field_errors[-1] / field_errors[best]
assert stiff > 1.05 and loose > 1.1, (
    "the field does not: at both ends it is worse than at its best, by 5 and by 10 %, here "
    f"{100 * stiff - 100:.0f} and {100 * loose - 100:.0f} %: run this section's cells again"
)
folds = {name: scores[name]["folds_percent"] for name in ("0.1", "0")}
assert folds["0.1"] == 0 and folds["0"] > 1, (
    f"no fold at λ = 0.1, more than 1 % at 0, here (percent) {folds}: run this section's cells again"
)

# %% [markdown]
# **It falls, then rises.** With a large $\lambda$ the field is too stiff to bend. With $\lambda = 0$ nothing guides the
# voxels of a flat part, inside a shape or in the background. There all neighbours have the same grey value, and the
# optimiser is free to match *noise with noise*. The picture guides the field only at edges. The smoothness carries the
# motion of the edges into the flat parts.
#
# So you cannot choose $\lambda$ by the picture. Choose it by landmarks *inside* the shapes, and by folds. Labels help
# little, because Dice depends on edges, too:

# %% [markdown] tags=["instructor"]
# "Then why not choose λ by Dice?" Let them read it off the slider: between λ = 1 and λ = 0.001 Dice moves by about a
# hundredth, while the folds go from none to many.

# %%
overlaps = [scores[name]["dice"] for name in ("1", "0.3", "0.1", "0.03", "0.01", "0.003", "0.001")]
print(f"Dice from {min(overlaps):.3f} to {max(overlaps):.3f} for λ from 1 to 0.001")
folded = scores["0.001"]["folds_percent"]
assert max(overlaps) - min(overlaps) < 0.02 and folded > 0.3, (
    "Dice moves by less than 0.02 while the folds go to more than 0.3 %, here "
    f"{max(overlaps) - min(overlaps):.3f} and {folded:.2f} %: run this section's cells again"
)

# %% [markdown]
# ## Break it
#
# This is the most common short cut: *the field is flexible, so it will find the rotation by itself*. We leave out the
# affine step.

# %%
without_affine = optimise.optimise_field(pair.moving, pair.fixed, weight=0.1, steps=STEPS)
figures.show_registration(pair, without_affine)

# %%
short_cut = judge(without_affine.displacement)
proper = scores["0.1"]
print(f"Dice {short_cut['dice']:.3f} without, {proper['dice']:.3f} with the affine step;")
print(f"the field is {short_cut['field']:.1f} against {proper['field']:.1f} voxels off")
assert short_cut["dice"] < proper["dice"] - 0.03 and short_cut["field"] > 2 * proper["field"], (
    "the short cut costs 0.03 of Dice and doubles the field's error, here "
    f"{proper['dice'] - short_cut['dice']:.3f} and {short_cut['field'] / proper['field']:.1f} times: "
    "run this section's cells again"
)

# %% [markdown]
# **Symptom:** edges lie on the nearest wrong edge, and there are corners that neither image has. **Why:** a voxel's
# gradient depends only on what lies next to it. (Every similarity has a *capture range*: the distance up to which its
# gradient still points the right way.) Also, the rotation now has to be in $w$, and it is penalised: $\nabla w$ of a
# rotation is not zero. **Fix:** affine first. It has six numbers, and the whole image contributes to each of them.
#
# ## Exercise: a beautiful picture
#
# Here is a registration that anyone would accept: the warped image is the fixed image.

# %%
beauty, u = check.beautiful_picture()
off = (fields.warp(beauty.moving, u) - beauty.fixed).abs().max()
assert off < 0.001, f"the images agree at every voxel, here within {off:.1e}: run this cell again"
widgets.compare(
    beauty.moving,
    beauty.fixed,
    warped=fields.warp(beauty.moving, u),
    fixed_labels=beauty.fixed_labels,
)

# %% [markdown]
# And yet the map **folds**. Find where. Compute `my_folds`, a `torch.bool` tensor (64, 64), `True` at the voxels of `u`
# that fold. You have written all that you need.

# %% tags=["exercise"]
my_folds = ...

# %% tags=["solution"]
my_folds = jacobian_by_hand(u) <= 0

# %%
check.hidden_folds(my_folds)

# %% [markdown]
# Look at the places. Each lies in a part of one grey value, within a shape or in the background. There a patch may be
# turned inside out, and the picture stays the same. The inspector stands at the deepest fold. In the notebook, its
# button *next fold* leads to the other two:

# %%
inspector = widgets.jacobian_inspector(u, beauty.fixed)
inspector.press("next_fold")
inspector

# %% tags=["instructor"]
folded = regkit.jacobian_determinant(u) <= 0
print("labels at the folds:", beauty.fixed_labels[folded].unique().tolist(), "(0: background)")
differ, count = int((my_folds != folded[0, 0]).sum()), int(folded.sum())
assert differ == 0 and metrics.folds(u).count == count > 10, (
    f"the solution finds regkit's folds, here {differ} voxels differ of {count}: is my_folds the solution's?"
)
under = set(beauty.fixed_labels[folded].tolist())
assert under == {0, 3}, (
    f"they lie in the background and in shape 3, here in {under}: is u another field?"
)
errors = [error for view in (inspector, slider) for error in view.errors]
assert errors == [], f"no view had an error, here {errors}: run the view's cell again"

# %% [markdown] tags=["instructor"]
# What they write: det(∂u) without the identity (two thirds of the plane "folds"); the product of the diagonal; |J| < 1
# (shrinking is no fold). Each has its own hint. Ask those who are done: which of the three folds would Dice notice?
# None: the labels there are as flat as the image.

# %% [markdown]
# ## One pair through the course
#
# Affine first, then a field, with *your* two functions. The same lines take the brains and the shapes.

# %%
PAIRS = league.pairs()
found = {}
for name, each in PAIRS.items():
    first, _ = affine_by_hand(each.moving, each.fixed)
    found[name] = field_by_hand(each.moving, each.fixed, first, weight=0.03, steps=STEPS)
figures.show_registration(PAIRS["brains"], regkit.Registration(found["brains"]))

# %%
table = league.enter("04", "affine, then a field, λ = 0.03", found)
nothing, fitted = (table.rows[key] for key in (("", "doing nothing", ""), table.latest))
assert fitted[0] > nothing[0] + 0.3 and fitted[1] < nothing[1] / 3, (
    "the brains gain 0.3 of Dice, and a third of the field's error remains at most, here from "
    f"{nothing[0]:.2f} to {fitted[0]:.2f} and from {nothing[1]:.2f} to {fitted[1]:.2f}: were the functions changed?"
)
table

# %% [markdown]
# This is the first row that registers the brains well. Look at the folds, too.
#
# ## Take away
#
# > * Registration is optimisation: **misfit + λ · roughness**, by gradient descent, first on six numbers, then on one
# >   vector per voxel.
# > * A better picture is **not** a better field. Between too stiff and too loose lies a λ that the picture cannot show.
# > * **Affine first**: a voxel's gradient depends on its neighbours only; the whole image contributes to the six numbers.
# > * A **fold** ($|J| \le 0$) can hide wherever the image is flat. Always look at $|J|$.
#
# **Next.** A larger λ makes folds rarer and the fit worse. Could one *describe* the field in a way that it cannot fold,
# however far it moves? *Diffeomorphisms.*
