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
# *Do not store where every voxel goes. Store a wind, and let it blow.*
#
# **Goals.** After this notebook you can integrate a velocity into a displacement by scaling and squaring. You can say why
# the result hardly folds, you can undo it, and you can explain why $-u$ is not the inverse of $u$.
#
# **Before you start.** Composition (tutorial 02); optimising a field, folds (tutorial 04).
#
# **Time.** You: about 60 minutes. A CPU (measured on two cores): about 22 s in fast mode, 40 s in full mode.

# %%
import matplotlib.pyplot as plt
import torch

import regkit
from regkit import check, course, fields, figures, metrics, optimise
from regkit.course import league
from regkit.course.lessons import sweeps
from regkit.course.lessons import t05_diffeomorphisms as lesson

course.begin(seconds={"fast": 22, "full": 40}, minutes=60)

# %% [markdown]
# ### Three questions on what was before
#
# 1. The weight λ goes from large to zero. What does the error of the *field* do?
#    * a: It falls, then rises.
#    * b: It falls.
#    * c: It does what Dice does.
# 2. With λ = 0,
#    * a: the field cannot bend.
#    * b: the pictures agree least.
#    * c: the field folds, and noise is matched with noise.
# 3. Why does one optimise an affine map first?
#    * a: It removes the folds.
#    * b: The whole image contributes to its six numbers.
#    * c: A vector per voxel needs the whole image, too.
#
# Answer by three letters.

# %% tags=["exercise"]
my_recap = ...  # such as "abc"

# %% tags=["solution"]
my_recap = "acb"

# %%
check.recap_05(my_recap)

# %% [markdown] tags=["instructor"]
# Talk 10 minutes, work 50. Answers to expect. Predict: *nowhere* from most, *many voxels* is right. Squarings: (4,
# 256) or (2, 2) first; (2, 8) is right.

# %% [markdown]
# ## A wind that blows in circles
#
# A **velocity** $v(x)$ says how fast the wind carries a particle at $x$, in voxels per unit of time. Our wind is a swirl:
# it turns its centre by 2 radians (115°) in a unit of time, and it does not turn the outside.
# `regkit.exponential(velocity)` is the displacement of each particle after one unit of time.
# `regkit.exponential(t * velocity)` is its displacement after the time $t$.

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
# Move the time. Forwards, the swirl winds the picture up. At $t = 0$ nothing has happened. Backwards, it winds the
# picture up the other way. For these times the right panel stays near white: $|J| \approx 1$, no fold. (*fixed*, in the
# line below the picture, is what we have at $t = 1$. You can switch on cross hairs at the voxel with the least $|J|$.
# They jump about, because here all $|J|$ are near 1.)
#
# ### Which way does the wind blow?
#
# We put a dot to the right of the middle. There the wind blows upwards. Where does the dot go?

# %%
dot = torch.zeros(1, 1, 64, 64)
dot[..., 30:34, 40:44] = 1
after = regkit.warp(dot, regkit.exponential(0.3 * velocity))
figure, axes = plt.subplots(1, 2, figsize=(8.5, 4.2), layout="compressed", sharey=True)
axes[0].imshow(dot[0, 0], cmap="gray", vmin=0, vmax=1)
places = fields.identity((64, 64))[0, :, 3::6, 3::6]  # every sixth voxel
down, right = velocity[0, :, 3::6, 3::6]
axes[0].quiver(places[1], places[0], right, down, angles="xy", color="#56b4e9")
axes[0].set(title="a dot, and the wind v", xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
axes[1].imshow(after[0, 0], cmap="gray", vmin=0, vmax=1)
axes[1].set(title="warped by exp(0.3 v)", xlabel="axis 1 (voxels)")

blows = velocity[0, 0, 30:34, 40:44].mean()
rows = torch.arange(64.0)[:, None]
goes = ((rows * after).sum() / after.sum() - (rows * dot).sum() / dot.sum()).item()
assert blows < -1 and goes > 1, (
    "the wind blows up by more than a voxel a unit of time, the dot goes down by more than one, here "
    f"{blows:+.1f} and {goes:+.1f} along axis 0: run all cells from the top"
)

# %% [markdown]
# The dot goes **down**, against the arrows. The wind does not carry the picture. It carries the places where we *read*
# the picture, and **warping pulls** (tutorial 02): what was read further up arrives further down.

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
# In continuous space $|J|$ of this swirl is always 1: each circle only turns. On a grid it is not. After a long time,
# neighbours are so far apart that the grid cannot follow. Try `6 * velocity`:

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
# You go along $-u$, and from there along $u$. Take the worst voxel: how far from home do you end? Say `"exactly home"`,
# `"within one voxel"` or `"many voxels"`.

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = "many voxels"

# %% [markdown] tags=["instructor"]
# Most say *exactly home*: minus undoes plus. Let two of them act it out: one walks three steps as the arrow under his feet
# says, then reads the arrow where he *now* stands and walks against it. It is another arrow.

# %% [markdown]
# ## Follow a particle
#
# The map $\varphi$ says where the wind has carried each particle after one unit of time (Zhang et al., SPnet, 2023,
# eq. 3):
#
# $$\frac{\partial \varphi_t}{\partial t}(x) = v(\varphi_t(x)), \qquad \varphi_0(x) = x .$$
#
# We write $\exp(v) = \varphi_1$, and $\exp(tv) = \varphi_t$. (`regkit.exponential` returns the displacement,
# $\varphi_1(x) - x$.)
#
# The simplest way is Euler's: take $n$ small steps, and read the wind anew at each place. `fields.sample(image, places)`
# reads between the voxels. `places` is (1, 2, H, W): the row and the column of each particle.


# %%
@check.follow_by_hand
def follow_by_hand(velocity, place, steps):
    """Where the wind carries particles in one unit of time. velocity, place: (1, 2, H, W), voxels."""
    for _ in range(steps):
        wind = ...  # the velocity at the particles, where they are now
        place = ...  # where they are after a step; all steps together take one unit of time
    return place


# %% [markdown]
# For the swirl we know the exact answer: every particle runs on a circle.


# %%
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
    steps: (follow_by_hand(velocity, grid, steps) - grid - exact).norm(dim=1).max().item()
    for steps in (1, 8, 128)
}
print({steps: f"{error:.2f} voxels off" for steps, error in euler.items()})
assert euler[1] > 5 and euler[128] < 0.25, (
    f"one step is more than 5 voxels off, 128 steps less than 0.25, here {euler[1]:.2f} and "
    f"{euler[128]:.2f}: run this cell again"
)

# %% [markdown]
# One big step leaves the circle along its tangent. With 128 small ones we stay on it, but we read the wind 128 times.
#
# ## Scaling and squaring
#
# A *stationary* wind is the same at all times. It has a law: first blow for a time $s$, then for a time $t$. This is the
# same as to blow for $s + t$:
#
# $$\exp(sv) \circ \exp(tv) = \exp((s+t)\,v), \quad \text{so}$$
#
# $$\exp(v) = \exp(v/2) \circ \exp(v/2) = \dots = \exp(v/2^K)^{2^K} .$$
#
# (The power: $2^K$ times the same map, one after the other.) Take a step so small that the velocity *is* the
# displacement: $v / 128$. Compose it with itself, and you have two steps. Compose the result with itself: four.
# **Seven compositions make 128 steps** (Arsigny et al. 2006). Each of them is called a **squaring**. A squaring is not a
# step: `follow_by_hand(..., steps=128)` counts the small steps. But `regkit.exponential(velocity, steps=7)` counts the
# squarings, as papers do.
#
# You wrote `compose` in tutorial 02. From here on take regkit's, `fields.compose(u, v)`.


# %%
@check.exponential_by_hand
def exponential_by_hand(velocity, squarings=7):
    """The displacement after one unit of time, (1, 2, H, W), voxels."""
    u = ...  # scaling: the displacement of one of the 2**squarings small steps
    for _ in range(squarings):
        u = ...  # squaring: twice as many steps
    return u


# %%
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
# Why does it hardly fold? The first step, $x + v(x)/2^K$, is small. Suppose that the velocities of any two points differ
# by less than $2^K$ times their distance. Then no two points can meet or swap places. (This is sufficient, not
# necessary.) Here $2^7 = 128$, and the slope of $v$ is far below:

# %%
slope = torch.stack(torch.gradient(velocity[0], dim=(1, 2))).square().sum((0, 1)).sqrt().max()
print(f"neighbours' velocities differ by at most {slope:.1f} per voxel")
assert slope < 2**7, f"far below 128, here {slope:.1f}: is velocity another one?"

# %% [markdown]
# Compositions of *exact* maps keep this. Ours are interpolated at each composition, and keep it nearly. A map that is
# smooth and one to one, and has a smooth inverse, is a **diffeomorphism**.
#
# > **A good place to pause** (about 30 minutes so far). After the break: *Run* → *Run All Above Selected Cell*.
#
# ## There and back
#
# Let $\varphi(x) = x + u(x)$, and let $\psi(x) = x + z(x)$ claim to be its inverse. Go along $\psi$ first, then along
# $\varphi$. The round trip ends at $\varphi(\psi(x))$, and $E(x) = \varphi(\psi(x)) - x$ says how far that is from home:


# %%
@check.round_trip_by_hand
def round_trip_by_hand(u, z):
    """|φ(ψ(x)) - x|, voxels, (1, H, W): ψ(x) = x + z(x) goes first, then φ(x) = x + u(x). u, z: (1, 2, H, W)."""
    error = ...  # the displacement of both, one after the other
    return ...  # its length at each voxel: .norm(dim=...) is taken over one dimension


# %% [markdown]
# Three candidates for $z$:
#
# * $-u$: walk against the arrow *under your feet*;
# * the displacement of $\exp(-v)$: turn the wind around. The law says so: $\exp(v) \circ \exp(-v) = \exp(0)$;
# * the solution of $z(x) = -u(x + z(x))$, where there is no velocity. It says: walk against the arrow *where you will
#   stand*. Begin with a guess for $z$. Put it into the right side, and you get a better guess. Repeat this.


# %%
@check.invert_by_hand
def invert_by_hand(u, iterations=50):
    """z with z(x) = -u(x + z(x)): the displacement of the inverse. u, z: (1, 2, H, W), voxels."""
    z = ...  # a first guess: no displacement, or -u
    for _ in range(iterations):
        z = ...  # the right side of the equation; fields.warp(u, ...) reads u elsewhere
    return z


# %%
for time in (0.25, 0.5, 1.0):
    blown_there = regkit.exponential(time * velocity)
    solved = {"by hand": invert_by_hand(blown_there), "regkit": regkit.invert(blown_there)}
    errors = {name: round_trip_by_hand(blown_there, z).max().item() for name, z in solved.items()}
    print(f"t = {time}:", {name: f"{error:.2f} voxels off" for name, error in errors.items()})
    apart = (solved["by hand"] - solved["regkit"]).abs().max()
    assert apart < 0.05 or time > 0.25, (
        f"at t = 0.25 by hand is regkit's, here {apart:.3f} voxels apart: was invert_by_hand changed?"
    )
assert errors["by hand"] > 1 > 0.3 > errors["regkit"], (
    "at t = 1 by hand is off by more than 1 voxel, regkit by less than 0.3, here "
    f"{errors}: were the functions changed?"
)

# %% [markdown]
# The plain iteration is sure to converge only where neighbours' displacements differ by less than their distance. At
# $t = 1$ they differ by more, and the guesses do not converge. `regkit.invert` solves the same equation with Newton's
# method there. Now all three candidates, at $t = 1$:

# %%
inverses = {
    "-u": -u,
    "exp(-v)": regkit.exponential(-velocity),
    "invert(u)": regkit.invert(u, method="newton"),  # the fastest of its solvers
}
inspector = lesson.composition_inspector(u, inverses)
inspector

# %% [markdown]
# $\psi$ is the candidate. The first panel is the grid of $\varphi \circ \psi$: it is straight if $\psi$ is the inverse.
# The next two show $E(x)$: first its direction and length, then its length alone. The last panel is $|J|$ of the round
# trip. Now choose the other two candidates. (The colours keep their scale. GradICON, in the line below, is the subject
# of tutorial 07. *More controls* has the order of the two maps, the cross hairs, and the voxel that they mark.)

# %%
left_over = {name: round_trip_by_hand(u, inverse) for name, inverse in inverses.items()}
for name, error in left_over.items():
    print(f"{name:10s} mean {error.mean():.3f}, at most {error.max():.2f} voxels off")
print("you said:", "nothing yet" if my_prediction is ... else my_prediction)
worst = {name: round(error.max().item(), 3) for name, error in left_over.items()}
assert worst["-u"] > 5 > 0.3 > max(worst["exp(-v)"], worst["invert(u)"]), (
    f"-u misses by more than 5 voxels, the other two by less than 0.3, here {worst}: "
    "run all cells from the top"
)

# %% [markdown]
# Does $|J|$ of the round trip say which voxels come home? If a whole region comes home, it is 1 there. At a single voxel
# it says nothing. Take $-u$. Some voxels end far from home, and $|J|$ is near 1. The middle of the swirl comes home, but
# its neighbours do not: there the round trip magnifies, and $|J|$ is far above 1.

# %%
there_and_back = fields.compose(u, -u)
magnified = regkit.jacobian_determinant(there_and_back)[0, 0]
astray = left_over["-u"][0, (magnified - 1).abs() < 0.1].max()
print(f"|J| within 0.1 of 1, and up to {astray:.1f} voxels from home")
middle = there_and_back[..., 31:33, 31:33].mean((2, 3)).norm()  # its four voxels lie around it
grown = magnified[31:33, 31:33].min()
print(f"the middle ends {middle:.2f} voxels from home, and |J| = {grown:.1f}")
assert astray > 2 and middle < 0.1 and grown > 3, (
    "with |J| near 1 some are 2 voxels astray; the middle comes home within 0.1, with |J| above 3, here "
    f"{astray:.1f}, {middle:.2f} and {grown:.1f}: run all cells from the top"
)

# %% [markdown]
# ### Why $-u$ looks right in small examples
#
# $\varphi(x - u(x)) = x - u(x) + u(x - u(x)) \approx x - (\nabla u \cdot u)(x)$, where
# $(\nabla u \cdot u)_i = \sum_j \partial_j u_i \, u_j$. What remains is a *product* of $u$ with its own gradient. With
# half the displacement there is a quarter of the error. On tiny deformations you will not notice the mistake.

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
# In tutorial 04 the unknown was a displacement, and with a small weight it folded. Now the unknown is $v$, and we warp
# the image by $\exp(v)$. The gradients flow through the seven compositions. We try both, with the same images, weight
# and steps. (These are the shapes of tutorial 04. They are bent, by up to three voxels, but not turned. So no affine step is
# needed.)

# %%
drawn = regkit.data.synthetic_pair(dim=2, seed=29, motion=0.3)
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
# There is no fold, and Dice is the same. So is it a good registration? We drew these shapes, so we know the **truth**, as
# in tutorial 04. How far is the field off, within the shapes? We compare it with a larger weight, and with doing nothing.

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
assert crumpled > 0.75 and good < crumpled - 0.1, (
    "with λ = 0.001 the field is at least 75 % as wrong as doing nothing, with 0.1 it is 10 % less, here "
    f"{100 * crumpled:.0f} and {100 * good:.0f} %: run this cell and the one above again"
)
folded = metrics.folds(smooth.displacement).count
assert folded == 0, (
    f"the smooth one does not fold, here at {folded:.0f} voxels: run this cell again"
)

# %% [markdown]
# *No fold, and yet almost as wrong as doing nothing.* We chose such a small weight only to make the displacement fold.
# A velocity prevents folds. It does not separate signal from noise. The smoothness does, here too. First you see
# $\lambda = 0.001$, a crumpled map without a fold, then $\lambda = 0.1$, a good one:

# %%
figures.show_registration(pair, by_output["velocity"])

# %%
figures.show_registration(pair, smooth)

# %% [markdown]
# The way back costs only a second integration: `smooth.inverse` is the displacement of $\exp(-v)$.
#
# ## Break it
#
# *"It is an exponential, so it cannot fold."* One often reads this. It is true for a smooth velocity only. So let us not
# penalise roughness at all.

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
# Is the wind the cause? Follow each *particle* there and back, without storing a map:

# %%
there = follow_by_hand(rough.velocity, grid, steps=256)
home = follow_by_hand(-rough.velocity, there, steps=256)
lost = (home - grid).norm(dim=1).mean().item()
print(f"particles come home within {lost:.2f} voxels on average")
assert lost < score["inverse_consistency"] / 4, (
    "particles are lost less than a quarter as far as the map, here "
    f"{lost:.3f} of {score['inverse_consistency']:.2f} voxels: run this section's cells again"
)

# %% [markdown]
# **Symptom:** folds, and a round trip that does not come home, although the map is an exponential. **Why:** the
# particles do come home. But we store a map at voxels only, and interpolate it between them. What changes from voxel to
# voxel is lost there. **Fix:** keep the velocity smooth. And count the folds of a "diffeomorphic" method: do not assume
# that there are none.
#
# ## Exercise: how many squarings?
#
# `wild` is a stronger wind: 6 radians, almost a full turn. For a number of squarings $K$, take
# `there = exponential_by_hand(wild, K)` and `back = exponential_by_hand(-wild, K)`. Find two whole numbers from 0 to 10,
# `my_squarings = (K_folds, K_round_trip)`:
#
# 1. the fewest squarings without a fold: `regkit.jacobian_determinant(there)` is above 0 everywhere;
# 2. the fewest squarings with which `round_trip_by_hand(there, back)` is below 1 voxel *everywhere*.
#
# Before you count: will they be the same?

# %%
wild = check.wild_swirl()

# %% tags=["exercise"]
my_squarings = ...  # (K_folds, K_round_trip)

# %% tags=["solution"]
unfolded, undone = [], []
for squarings in range(11):
    there, back = (exponential_by_hand(sign * wild, squarings) for sign in (1, -1))
    unfolded.append((regkit.jacobian_determinant(there) > 0).all().item())
    undone.append((round_trip_by_hand(there, back) < 1).all().item())
my_squarings = (unfolded.index(True), undone.index(True))

# %%
check.squarings(my_squarings)

# %% [markdown] tags=["instructor"]
# (2, 8). The first can be found with a pencil: one Euler step of a swirl with turn ω has |J| = 1 + a²(1 - r²/σ²) with
# a = ω exp(-r²/2σ²); its least value, at r² = 2σ², is 1 - ω²/e². It folds where ω > e = 2.72: 6 / 2² = 1.5 is below,
# 6 / 2 = 3 is above. They answer (4, 256): the number of small steps. Or (2, 2): no folds, so it must be right.

# %% [markdown]
# A map without folds may be wrong by many voxels. *No folds* is a property of a map. It is no proof that it is the map
# that you want. Take five squarings, that is 32 small steps:

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
# ## One pair through the course
#
# The affine map of tutorial 04 first, then a velocity in place of the displacement. The pairs, the weight and the number of
# steps are the same. What do you expect for Dice, and for the folds?

# %%
PAIRS, found = league.pairs(), {}
for name, each in PAIRS.items():
    first = optimise.optimise_affine(each.moving, each.fixed)
    found[name] = optimise.optimise_field(
        each.moving, each.fixed, affine=first, output="velocity", weight=0.03, steps=STEPS
    )
figures.show_registration(PAIRS["brains"], found["brains"])

# %%
table = league.enter(
    "05",
    "affine, then a velocity, λ = 0.03",
    {name: one.displacement for name, one in found.items()},
)
nothing, fitted = (table.rows[key] for key in (("", "doing nothing", ""), table.latest))
assert fitted[0] > nothing[0] + 0.3 and fitted[2] < 0.05 and fitted[5] < 0.05, (
    "the brains gain 0.3 of Dice, and next to nothing folds, here "
    f"{nothing[0]:.2f} to {fitted[0]:.2f}, folds (percent) {fitted[2]:.3f} and {fitted[5]:.3f}: run this section again"
)
table

# %% [markdown]
# With enough smoothness, both descriptions register alike. The velocity also gives the way back, `found["brains"].inverse`.
#
# ## Take away
#
# > * A **velocity** is a wind. Its **exponential** is where it carries each particle in a unit of time. The picture goes
# >   the other way: warping pulls.
# > * **Scaling and squaring**: $v / 2^K$, then $K$ compositions with itself. $K = 7$ is usual.
# > * The inverse of $\exp(v)$ is $\exp(-v)$. It is **not** $-u$, which is wrong by about $\nabla u \cdot u$.
# > * "Diffeomorphic" holds as far as the grid resolves the wind. **Count the folds, measure the round trip.**
#
# **Next.** For every pair we have to optimise anew: hundreds of steps, each time from nothing. Could a *network* answer at
# once? *Learning to register.*
