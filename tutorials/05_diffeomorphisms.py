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
# # 05 · Diffeomorphisms
#
# *Do not write down where every voxel goes. Write down the wind, and let it blow.*
#
# **Goals.** After this notebook you can integrate a velocity into a displacement by scaling and squaring, say why the
# result hardly folds, undo it, and explain to anyone why $-u$ is not the inverse of $u$.
#
# **Before you start.** Composition (tutorial 02); optimising a field, folds (tutorial 04).
#
# **CPU.** Measured on two cores: about 16 s in fast mode, 21 s in full mode.

# %%
import matplotlib.pyplot as plt
import torch

import regkit
from regkit import check, course, fields, figures, metrics, optimise
from regkit.course.lessons import sweeps
from regkit.course.lessons import t05_diffeomorphisms as lesson

course.begin(seconds={"fast": 16, "full": 21})

# %% [markdown]
# ## A wind that blows in circles
#
# A **velocity** $v(x)$ says how fast a particle at $x$ is carried, in voxels per unit of time. Ours is a swirl: it
# turns its centre by 2 radians (115°) in a unit of time, and the outside not at all. `regkit.exponential(velocity)` is
# the displacement that each particle has after one unit of time; of `t * velocity`, after the time $t$.

# %%
moving = regkit.data.synthetic_pair(dim=2, seed=0).moving
velocity = check.swirl(turn=2.0)
times = [step / 10 for step in range(-10, 21)]
blown = {f"{time:+.1f}": regkit.exponential(time * velocity) for time in times}

# %%
fixed = regkit.warp(moving, blown["+1.0"])
scrubber = sweeps.sweep(moving, fixed, blown, words="time t", start="+1.0", mark=False)
scrubber

# %% [markdown]
# Move the time. Forwards the picture is wound up; at $t = 0$ nothing has happened; backwards it is wound up the other
# way. For these times the right panel stays near white: $|J| \approx 1$, no fold. (*fixed*, in the line below the
# picture, is what we have at $t = 1$. Cross hairs can be switched on for the voxel with the least $|J|$; they jump about,
# because here all are near 1.)

# %%
determinants = torch.cat(
    [regkit.jacobian_determinant(displacement) for displacement in blown.values()]
)
assert determinants.min() > 0.85 and determinants.max() < 1.2, (
    f"no fold at these times, |J| within 0.85 and 1.2, here {determinants.min():.2f} to "
    f"{determinants.max():.2f}: run all cells from the top"
)
moved = blown["+0.0"].abs().max()
assert moved == 0, f"at time 0 nothing has moved, here by {moved:.1e}: run all cells from the top"
print(f"|J| from {determinants.min():.2f} to {determinants.max():.2f} over these times")

# %% [markdown]
# In continuous space $|J|$ of this swirl is 1 for ever: each circle only turns. On a grid it is not: wound up far
# enough, neighbours drift so far apart that the grid cannot follow. Try `6 * velocity`:

# %%
wound_up = regkit.jacobian_determinant(regkit.exponential(6 * velocity))
print(f"t = 6: |J| from {wound_up.min():.2f} to {wound_up.max():.2f}")
assert wound_up.min() <= 0, (
    f"wound up far enough it folds on the grid, here least |J| {wound_up.min():+.3f}: run this cell again"
)

# %% [markdown]
# ### Predict
#
# The displacement $u$ at $t = 1$ carries $x$ to $x + u(x)$, up to ten voxels far. To come back, many people use $-u$.
# You go along $-u$, and from there along $u$. How far from home do you end, at the worst voxel: `"nowhere"` (exactly
# home), `"within one voxel"` or `"many voxels"`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "many voxels"

# %% [markdown] tags=["instructor"]
# Most say *nowhere*: minus undoes plus. Let two of them act it out: one walks three steps as the arrow under his feet
# says, then reads the arrow where he *now* stands and walks against it. It is another arrow.

# %% [markdown]
# ## Follow a particle
#
# The map $\varphi$ is where the wind has carried everything after one unit of time (Zhang et al.,
# SPnet, 2023, eq. 3):
#
# $$\frac{\partial \varphi_t}{\partial t}(x) = v(\varphi_t(x)), \qquad \varphi_0(x) = x .$$
#
# We write $\exp(v) = \varphi_1$, and $\exp(tv) = \varphi_t$. (`regkit.exponential` returns the displacement,
# $\varphi_1(x) - x$.)
#
# The plainest way is Euler's: $n$ small steps, the wind read anew at each place. For the swirl the exact answer is
# known: every particle runs on a circle.


# %%
def follow(velocity, place, steps):
    for _ in range(steps):
        place = place + fields.sample(velocity, place) / steps
    return place  # where the particles are after one unit of time, voxels


def turned(velocity):
    """The exact displacement of a swirl: each place p (from the middle) is turned by its own angle."""
    row, column = (fields.identity((64, 64)) - 31.5).split(1, 1)
    radius = (row**2 + column**2).sqrt()
    angle = velocity.norm(dim=1, keepdim=True) / radius
    down = row * angle.cos() - column * angle.sin() - row
    right = row * angle.sin() + column * angle.cos() - column
    return torch.cat([down, right], 1)


grid = fields.identity((64, 64))
exact = turned(velocity)
euler = {
    steps: (follow(velocity, grid, steps) - grid - exact).norm(dim=1).max().item()
    for steps in (1, 8, 128)
}
print({steps: f"{error:.2f} voxels off" for steps, error in euler.items()})
assert euler[1] > 5 and euler[128] < 0.25, (
    f"one step is more than 5 voxels off, 128 steps less than 0.25, here {euler[1]:.2f} and "
    f"{euler[128]:.2f}: run this cell again"
)

# %% [markdown]
# One big step leaves the circle along its tangent. With 128 small ones we stay on it: 128 times reading the wind.
#
# ## Scaling and squaring
#
# But a *stationary* wind, one that is the same at all times, has a law: blowing for a time $s$ and then for a time $t$
# is blowing for $s + t$,
#
# $$\exp(sv) \circ \exp(tv) = \exp((s+t)\,v), \quad \text{so}$$
#
# $$\exp(v) = \exp(v/2) \circ \exp(v/2) = \dots = \exp(v/2^K)^{2^K} .$$
#
# (The power: $2^K$ times the same map, one after the other.) Take a step so small that the velocity *is* the
# displacement: $v / 128$. Compose it with itself: that is two steps. The result with itself: four. **Seven compositions
# make 128 steps** (Arsigny et al. 2006). Mind the word: `follow(..., steps=128)` counts the small steps, but
# `regkit.exponential(velocity, steps=7)` the squarings, as papers do.


# %%
def compose_by_hand(first, then):
    """compose(u, v)(x) = v(x) + u(x + v(x))"""
    return then + regkit.warp(first, then)


def exponential_by_hand(velocity, squarings=7):
    displacement = velocity / 2**squarings  # scaling
    for _ in range(squarings):
        displacement = compose_by_hand(displacement, displacement)  # squaring
    return displacement


u = exponential_by_hand(velocity)
apart = (u - regkit.exponential(velocity, steps=7)).abs().max()
off = (u - exact).norm(dim=1).max()
print(f"seven squarings are {off:.2f} voxels off the exact map, at most")
assert apart < 1e-3, (
    f"by hand as by regkit, here {apart:.1e} voxels apart: were the functions changed?"
)
assert off < 0.25, (
    f"seven squarings are within 0.25 voxels, here {off:.2f}: were the functions changed?"
)

# %% [markdown]
# Why does it hardly fold? The first step, $x + v(x)/2^K$, is small: if the velocities of any two points differ by less
# than $2^K$ times their distance, no two points can meet or swap places. (That is enough, not necessary.) Here
# $2^7 = 128$, and the slope of $v$ is far below:

# %%
slope = torch.stack(torch.gradient(velocity[0], dim=(1, 2))).square().sum((0, 1)).sqrt().max()
print(f"neighbours' velocities differ by at most {slope:.1f} per voxel")
assert slope < 2**7, f"far below 128, here {slope:.1f}: is velocity another one?"

# %% [markdown]
# Composing *exact* maps keeps that; ours are interpolated at each composition, and keep it nearly. Smooth, one to one,
# with a smooth inverse: such a map is a **diffeomorphism**.
#
# ## There and back
#
# The law also says how to return: $\exp(v) \circ \exp(-v) = \exp(0)$, blow the other way. Three candidates for the
# displacement of the inverse of $\varphi(x) = x + u(x)$:
#
# * $-u$: walk against the arrow *under your feet*;
# * that of $\exp(-v)$: the wind turned around;
# * $z$ from `regkit.invert(u)`, which solves $z(x) = -u(x + z(x))$, for when there is no velocity.

# %%
inverses = {
    "-u": -u,
    "exp(-v)": regkit.exponential(-velocity),
    "invert(u)": regkit.invert(u, method="newton"),  # the fastest of its solvers
}
inspector = lesson.composition_inspector(u, inverses)
inspector

# %% [markdown]
# $\psi$ is the candidate. First the grid of $\varphi \circ \psi$: straight, if $\psi$ is the inverse. Then
# $E(x) = \varphi(\psi(x)) - x$, how far from home each voxel ends: once as direction and length, once as length alone.
# Last the $|J|$ of the round trip, which is 1 where one comes home. Now choose the other two candidates. (The colours
# keep their scale. GradICON, in the line below, is the subject of tutorial 07.)

# %%
left_over = {name: fields.compose(u, inverse).norm(dim=1) for name, inverse in inverses.items()}
for name, error in left_over.items():
    print(f"{name:10s} mean {error.mean():.3f}, at most {error.max():.2f} voxels off")
print("you said:", "nothing yet" if my_prediction is ... else my_prediction)
worst = {name: round(error.max().item(), 3) for name, error in left_over.items()}
assert worst["-u"] > 5 > 0.3 > max(worst["exp(-v)"], worst["invert(u)"]), (
    f"-u misses by more than 5 voxels, the other two by less than 0.3, here {worst}: "
    "run all cells from the top"
)

# %% [markdown]
# ### Why $-u$ looks right in small examples
#
# $\varphi(x - u(x)) = x - u(x) + u(x - u(x)) \approx x - (\nabla u \cdot u)(x)$, where
# $(\nabla u \cdot u)_i = \sum_j \partial_j u_i \, u_j$: what is left is a *product* of $u$ with its own gradient. Half
# the displacement, a quarter of the error. On tiny deformations you will not notice the mistake.

# %%
scales = [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
small = [regkit.exponential(scale * velocity) for scale in scales]
backward = [regkit.exponential(-scale * velocity) for scale in scales]
minus = [fields.compose(there, -there).norm(dim=1).mean().item() for there in small]
proper = [
    fields.compose(there, back).norm(dim=1).mean().item()
    for there, back in zip(small, backward, strict=True)
]
lengths = [there.norm(dim=1).max().item() for there in small]

figure, axes = plt.subplots(figsize=(6.5, 4), layout="compressed")
axes.loglog(lengths, minus, "o-", color="#d55e00", label="-u")
axes.loglog(lengths, proper, "o-", color="#0072b2", label="exp(-v)")
axes.set(xlabel="largest displacement (voxels)", ylabel="mean error of the round trip (voxels)")
axes.legend()
axes.grid(alpha=0.3, which="both")
grows = minus[1] / minus[0], minus[2] / minus[1]
assert 3.5 < min(grows) <= max(grows) < 4.5, (
    f"twice u, four times the error, here {grows[0]:.2f} and {grows[1]:.2f} times: run this cell again"
)
times = min(a / b for a, b in zip(minus, proper, strict=True))
assert times > 5, (
    f"the error of -u is always more than five times that of exp(-v), here {times:.1f}: run this cell again"
)

# %% [markdown]
# ## Register with a velocity
#
# In tutorial 04 the unknown was a displacement, and with a small weight it folded. Now the unknown is $v$, and the
# image is warped by $\exp(v)$: gradients flow through the seven compositions. We try both, with the same images, weight
# and steps. (The shapes of tutorial 04, bent but not turned: no affine step is needed.)

# %%
drawn = regkit.data.synthetic_pair(dim=2, seed=29, motion=0.15)
generator = torch.Generator().manual_seed(0)
noisy = [
    image + 0.04 * torch.randn(image.shape, generator=generator)
    for image in (drawn.moving, drawn.fixed)
]
pair = regkit.Pair(*noisy, drawn.moving_labels, drawn.fixed_labels)

STEPS = regkit.training.steps(fast=150, full=600)
by_output = {
    output: optimise.optimise_field(*noisy, output=output, weight=0.001, steps=STEPS)
    for output in ("displacement", "velocity")
}
scores = {output: metrics.evaluate(found, pair) for output, found in by_output.items()}
for output, score in scores.items():
    print(f"{output:12s} Dice {score['dice']:.3f}, folds {score['folds_percent']:.2f} %")
folds = {output: score["folds_percent"] for output, score in scores.items()}
assert folds["displacement"] > 0.5 and folds["velocity"] == 0, (
    f"the displacement folds at more than 0.5 %, the velocity nowhere, here (percent) {folds}: "
    "run this cell again"
)
costs = scores["displacement"]["dice"] - scores["velocity"]["dice"]
assert costs < 0.01, (
    f"the velocity costs less than 0.01 of Dice, here {costs:+.3f}: run this cell again"
)

# %% [markdown]
# Not a fold, and the same Dice. So is it a good registration? We drew these shapes, so we can ask the **truth**, as in
# tutorial 04: how far is the field off, within the shapes? Beside it the same with a larger weight, and doing nothing.

# %%
smooth = optimise.optimise_field(*noisy, output="velocity", weight=0.1, steps=STEPS)
candidates = {
    "doing nothing": torch.zeros_like(drawn.displacement),
    "displacement, λ = 0.001": by_output["displacement"].displacement,
    "velocity, λ = 0.001": by_output["velocity"].displacement,
    "velocity, λ = 0.1": smooth.displacement,
}
inside = drawn.fixed_labels[:, 0] > 0
wrong = {}
for name, displacement in candidates.items():
    wrong[name] = (displacement - drawn.displacement).norm(dim=1)[inside].mean().item()
    print(f"{name:24s} the field is {wrong[name]:.2f} voxels off")
crumpled, good = (
    wrong[f"velocity, λ = {weight}"] / wrong["doing nothing"] for weight in (0.001, 0.1)
)
assert crumpled > 0.9 and good < 0.7, (
    "with λ = 0.001 the field is at least 90 % as wrong as doing nothing, with 0.1 less than 70 %, here "
    f"{100 * crumpled:.0f} and {100 * good:.0f} %: run this cell and the one above again"
)
folded = metrics.folds(smooth.displacement).count
assert folded == 0, (
    f"the smooth one does not fold, here at {folded:.0f} voxels: run this cell again"
)

# %% [markdown]
# *No fold, and yet nearly as wrong as doing nothing.* The weight was so small only to make the displacement fold. A
# velocity prevents folds; it does not tell signal from noise. The smoothness does, here too. First
# $\lambda = 0.001$, a crumpled map without a fold; then $\lambda = 0.1$, a good one:

# %%
figures.show_registration(pair, by_output["velocity"])

# %%
figures.show_registration(pair, smooth)

# %% [markdown]
# The way back costs only a second integration: `smooth.inverse` is the displacement of $\exp(-v)$.
#
# ## Break it
#
# *"It is an exponential, so it cannot fold."* One often reads that. It needs a smooth velocity: so let us charge
# nothing for roughness.

# %%
rough = optimise.optimise_field(*noisy, output="velocity", weight=0.0, steps=STEPS)
figures.show_registration(pair, rough)

# %%
score = metrics.evaluate(rough, pair)
print(f"λ = 0: folds {score['folds_percent']:.2f} %,", end=" ")
print(f"round trip {score['inverse_consistency']:.2f} voxels off on average")
print(f"λ = 0.001: round trip {scores['velocity']['inverse_consistency']:.2f} voxels")
assert score["folds_percent"] > 0.5, (
    f"without smoothness more than 0.5 % fold, here {score['folds_percent']:.2f} %: run the cell above again"
)
times = score["inverse_consistency"] / scores["velocity"]["inverse_consistency"]
assert times > 2, (
    f"its round trip is more than twice as far off, here {times:.1f} times: run the cell above again"
)

# %% [markdown]
# Is the wind to blame? Follow each *particle* there and back, without ever storing a map:

# %%
there = follow(rough.velocity, grid, steps=256)
home = follow(-rough.velocity, there, steps=256)
lost = (home - grid).norm(dim=1).mean().item()
print(f"particles come home within {lost:.2f} voxels on average")
assert lost < score["inverse_consistency"] / 4, (
    "particles are lost less than a quarter as far as the map, here "
    f"{lost:.3f} of {score['inverse_consistency']:.2f} voxels: run this section's cells again"
)

# %% [markdown]
# **Symptom:** folds, and a round trip that does not come home, although everything was exponentiated. **Why:** the
# particles do come home. But a map is kept at voxels only, and between them it is interpolated: what changes from
# voxel to voxel is lost there. **Mend:** keep the velocity smooth. Report the folds of a "diffeomorphic" method; do not
# assume them away.
#
# ## Exercise: how many squarings?
#
# `wild` is a stronger wind: 6 radians, almost a full turn. For a number of squarings $K$, take
# `there = regkit.exponential(wild, steps=K)` and `back = regkit.exponential(-wild, steps=K)`. Find two whole numbers
# from 0 to 10, `my_squarings = (K_folds, K_round_trip)`:
#
# 1. the fewest squarings without a fold: `regkit.jacobian_determinant(there)` is above 0 everywhere, and
# 2. the fewest with which the round trip `fields.compose(there, back)` is less than 1 voxel long *everywhere*
#    (its length: `.norm(dim=1)`).
#
# Before you count: will they be the same?

# %%
wild = check.wild_swirl()

# %% tags=["exercise"]
my_squarings = ...  # (K_folds, K_round_trip)

# %% tags=["solution"]
unfolded, undone = [], []
for squarings in range(11):
    there, back = (regkit.exponential(sign * wild, steps=squarings) for sign in (1, -1))
    unfolded.append((regkit.jacobian_determinant(there) > 0).all().item())
    undone.append((fields.compose(there, back).norm(dim=1) < 1).all().item())
my_squarings = (unfolded.index(True), undone.index(True))

# %%
check.squarings(my_squarings)

# %% [markdown] tags=["instructor"]
# (2, 8). The first can be found with a pencil: one Euler step of a swirl with turn ω has |J| = 1 + a²(1 - r²/σ²) with
# a = ω exp(-r²/2σ²); its least value, at r² = 2σ², is 1 - ω²/e². It folds where ω > e = 2.72: 6 / 2² = 1.5 is below,
# 6 / 2 = 3 is above. They answer (4, 256): the number of small steps. Or (2, 2): no folds, so it must be right.

# %% [markdown]
# A map without folds may be wrong by many voxels. *No folds* is a property of a map, not a proof that it is the map you
# meant. With five squarings, 32 small steps:

# %%
coarse = [regkit.exponential(sign * wild, steps=5) for sign in (1, -1)]
astray = fields.compose(*coarse).norm(dim=1).max().item()
print(
    f"{metrics.folds(coarse[0]).count:.0f} folds, round trip {astray:.1f} voxels off at the worst"
)
folded = metrics.folds(coarse[0]).count
assert folded == 0 and astray > 2, (
    f"no fold, and more than 2 voxels astray, here {folded:.0f} and {astray:.1f}: run this cell again"
)

# %% tags=["instructor"]
errors = [error for view in (scrubber, inspector) for error in view.errors]
assert errors == [], f"no view had an error, here {errors}: run the view's cell again"

# %% [markdown]
# ## Take away
#
# > * A **velocity** is a wind; its **exponential** is where it carries everything in a unit of time.
# > * **Scaling and squaring**: $v / 2^K$, then $K$ compositions with itself. $K = 7$ is usual.
# > * The inverse of $\exp(v)$ is $\exp(-v)$. It is **not** $-u$, which is wrong by about $\nabla u \cdot u$.
# > * "Diffeomorphic" holds as far as the grid resolves the wind. **Count the folds, measure the round trip.**
#
# **Next.** For every pair we have to optimise anew: hundreds of steps, each time from nothing. What if the *network*
# answered at once? *Learning to register.*
