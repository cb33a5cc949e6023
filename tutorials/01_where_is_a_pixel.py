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
# # 01 · Where is a pixel?
#
# *Four programs describe one point in four ways, and all four are right. If you mix two of them, your registration is
# wrong by half a voxel, or shows the wrong side of a patient.*
#
# **Goals.** After this notebook you can say where a point is: as an index, in voxels, in normalised units and in
# millimetres. You can convert each into the others. And you can recognise a half-pixel bug by its symptom.
#
# **Before you start.** Arrays and their indices; how to multiply a matrix with a vector. Tutorial 00 helps, but is not
# needed. In 2D a voxel is a pixel. Names in code are spelled the American way (`to_normalized`).
#
# **Time.** You: about 60 minutes. A CPU (measured on two cores): about 7 s in either mode. Nothing is trained here.

# %%
from importlib import resources

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from nibabel.affines import apply_affine

from regkit import check, course, fields, figures, types
from regkit.course import league
from regkit.course.lessons import t01_where_is_a_pixel as lesson

course.begin(seconds={"fast": 7, "full": 7}, minutes=60)

# %% [markdown]
# ### Three questions on what was before
#
# (Do you begin with this tutorial? Then skip them.)
#
# 1. In `warped[x] = moving[x + u(x)]`, what does a voxel do?
#    * a: It sends its value to x + u(x).
#    * b: It reads the moving image at x + u(x).
#    * c: It adds u(x) to its value.
# 2. What says whether a network has learned to register?
#    * a: The loss of its training.
#    * b: A good warped picture.
#    * c: Its result on pairs that were held out.
# 3. A fold is a voxel where
#    * a: |J| is zero or negative.
#    * b: Dice is 1.
#    * c: |J| is 1.
#
# Answer by three letters.

# %% tags=["exercise"]
my_recap = ...  # such as "abc"

# %% tags=["solution"]
my_recap = "bca"

# %%
check.recap_01(my_recap)

# %% [markdown] tags=["instructor"]
# Talk 10 minutes, work 50. Answers to expect. Predict: `(3, 0)` from many, `(0, 3)` is right. The exercise: `4 *
# place + 2` first, `4 * place + 1.5` is right.

# %% [markdown]
# ## A real scan, and one point in it
#
# This is a real MRI scan of a head. It comes with nibabel, the library that reads it. Below is one plane of the array,
# exactly as it lies in memory: `volume[:, :, 12]`, axis 0 down, axis 1 to the right. The person lies on the side,
# because the plot does not know what the axes *mean*.

# %%
scan = nibabel.load(resources.files("nibabel") / "tests/data/example4d.nii.gz")
recordings = scan.get_fdata()  # (128, 96, 24, 2): the head was recorded twice
volume = recordings[..., 0] / 800  # the first; 800 brings brain tissue between 0.4 and 1
point = np.array([70.0, 62.0, 12.0])  # in a bright, fluid-filled chamber of the brain

figure, axes = plt.subplots(figsize=(4.6, 5.6))
shown = axes.imshow(volume[:, :, 12], cmap="gray", vmin=0, vmax=1)
axes.plot(point[1], point[0], "+", color="#ffb000", markersize=18, markeredgewidth=2)
axes.set(xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)", title="as it lies in memory")
figure.colorbar(shown, label="intensity")
bright, usual = volume[70, 62, 12], volume[:, :, 12].mean()
assert bright > usual, (
    f"the cross is in a bright place, here {bright:.2f} against {usual:.2f} on average: run this cell again"
)
# %% [markdown]
# Where is the cross? Four programs give four answers:
#
# | who | answer | unit and origin |
# |---|---|---|
# | your array | `[70, 62, 12]` | **index**: whole numbers, which box of memory |
# | regkit | (70.0, 62.0, 12.0) | **voxel**: real numbers; voxel *centres* are whole, a voxel reaches ±0.5 around them |
# | torch's sampler | numbers from -1 to 1, axes reversed | **normalised**: in one of *two* conventions |
# | the scanner | numbers in mm | **mm**: from an origin in the scanner, along the patient's body |
#
# ### Predict
#
# Start with the sampler, `torch.nn.functional.grid_sample`. Take an image of 5 × 5 voxels whose corner voxels sit at
# ±1, and ask for its value at `(0.5, -1)`. Which `(row, column)` does the sampler read? Decide now.

# %% tags=["exercise"]
my_prediction = ...  # (row, column)

# %% tags=["solution"]
my_prediction = (0, 3)

# %%
numbered = torch.arange(25.0).view(1, 1, 5, 5)  # the value 10 sits in row 2, column 0
# (batch, rows, columns, 2): one result, and where to read it
grid = torch.tensor([[[[0.5, -1.0]]]])
value = F.grid_sample(numbered, grid, align_corners=True).item()
place_read = divmod(round(value), 5)
print(f"the value {value:g} was read, from (row, column) = {place_read}")
print("you said:", "nothing yet" if my_prediction is ... else my_prediction)
assert place_read == (0, 3), f"(0.5, -1) is row 0, column 3, here {place_read}: was `grid` changed?"

# %% [markdown]
# The **last** axis comes first: `grid_sample` wants (x, y), and x runs along the columns. And between -1 and 1 there are
# 4 steps, not 5. The place 0.5 lies after three of these four steps.

# %% [markdown] tags=["instructor"]
# Expect (3, 0) from those who think (row, column), and (0, 4) or "between 3 and 4" from those who divide by 5. Both
# mistakes are in published code. Ask the second group for the edges of the image: with `align_corners=False` the
# edges are at ±1, and 0.5 would be column 3.25.

# %% [markdown]
# ## All four systems, by hand
#
# Along an axis of $N$ voxels, at voxel position $p$:
#
# $$\text{corners: } c = \frac{2p}{N-1} - 1 \qquad\quad \text{edges: } e = \frac{2p+1}{N} - 1$$
#
# *Corners* (`align_corners=True`, regkit's convention) puts ±1 at the **centres** of the first and last voxel. *Edges*
# (`align_corners=False`, torch's default) puts ±1 where the image **ends**, half a voxel further out. (The formulas are
# those of torch's documentation of `grid_sample`.)
#
# Write both, and the way back: solve each formula for $p$. The line above a function, `@check...`, says at once what is
# right. Until it is, the notebook goes on with the solution.


# %%
@check.normalised
def normalised(voxel, size, align_corners):
    """A position along one axis, from voxels to normalised units. size: how many voxels it has."""
    if align_corners:
        return ...  # corners
    return ...  # edges


# %%
@check.voxels_from_normalised
def voxels_from_normalised(value, size, align_corners):
    """The way back: a position along one axis, from normalised units to voxels."""
    if align_corners:
        return ...  # corners
    return ...  # edges


# %% [markdown]
# Millimetres need the scan's **affine**, a 4 × 4 matrix from its header: $\text{mm} = A\,p + b$. Its upper-left 3 × 3
# block is $A$. The first three numbers of its last column are $b$. In numpy, `@` multiplies a matrix with a vector, and
# `np.linalg.solve(A, x)` gives the $p$ for which $A\,p = x$.


# %%
@check.millimetres
def millimetres(voxel, affine):
    """A position in mm. voxel: (3,), in voxels; affine: (4, 4), from the scan's header."""
    return ...


# %%
@check.voxels_from_mm
def voxels_from_mm(mm, affine):
    """The way back: a position in voxels. mm: (3,); affine: (4, 4)."""
    return ...


# %% [markdown]
# Between voxel centres, `read` takes a mean of the nearest four voxels: the nearer a voxel, the more it counts. This is
# **bilinear** interpolation (in any dimension: **linear**). Take two means along the rows first, then one between them.


# %%
@check.read
def read(image, row, column):
    """Bilinear interpolation at one place. image: (H, W); row, column: numbers, in voxels."""
    top = min(int(row), image.shape[0] - 2)  # the last row has no row below: use the pair above
    left = min(int(column), image.shape[1] - 2)
    down, right = row - top, column - left  # from 0 to 1
    above = ...  # the value in row `top`, between the columns `left` and `left + 1`
    below = ...  # the same in the next row
    return ...  # the value between these two


# %% [markdown]
# Are they right? Ask torch's sampler in both conventions, then regkit and nibabel.

# %%
plane = torch.from_numpy(volume[:, :, 12])[None, None]  # (1, 1, 128, 96)
row, column = 70.25, 62.6  # a point between voxel centres
by_hand = read(plane[0, 0], row, column)

for align_corners in (True, False):
    # The last axis comes first.
    x, y = normalised(column, 96, align_corners), normalised(row, 128, align_corners)
    regkits = lesson.to_normalized(column, 96, align_corners=align_corners)
    assert abs(x - regkits) < 1e-9, (
        f"normalised by hand as by regkit, here {x:.6f} and {regkits:.6f}: was `normalised` changed?"
    )
    grid = torch.tensor([[[[x, y]]]], dtype=plane.dtype)
    sampled = F.grid_sample(plane, grid, align_corners=align_corners).squeeze()
    assert torch.isclose(sampled, by_hand, atol=1e-6), (
        f"grid_sample reads what we read by hand, here {sampled:.6f} and {by_hand:.6f}: "
        "was `read` or `normalised` changed?"
    )
    print(f"align_corners={align_corners!s:5}: ({x:+.4f}, {y:+.4f})")

# %%
# regkit: voxels, axes in order, nothing to flip.
coordinates = torch.tensor([row, column], dtype=plane.dtype).view(1, 2, 1, 1)
regkits = fields.sample(plane, coordinates).squeeze()
assert torch.isclose(regkits, by_hand, atol=1e-6), (
    f"regkit's sample takes voxels, here {regkits:.6f} and {by_hand:.6f} by hand: was `read` changed?"
)
corner = abs(read(plane[0, 0], 127, 95) - plane[0, 0, 127, 95])
assert corner < 1e-6, f"the last corner is read, too, here {corner:.1e} off: was `read` changed?"

mm = millimetres(point, scan.affine)
off = np.abs(mm - apply_affine(scan.affine, point)).max()
assert off < 1e-6, f"mm by hand are nibabel's, here {off:.1e} apart: was `millimetres` changed?"
off = np.abs(voxels_from_mm(mm, scan.affine) - point).max()
assert off < 1e-6, f"mm lead back to the voxel, here {off:.1e} off: was `voxels_from_mm` changed?"
print(f"mm: {mm.round(1)} towards right, anterior, superior")

# %% [markdown]
# Two conventions give one value. Both are right as long as the one who **writes** the numbers and the one who **reads**
# them agree. regkit keeps everything in voxels, with the axes in order. Only one of its files (`sampler.py`) calls
# `grid_sample`, and each conversion has a name: `places.to_normalized` for positions, `fields.voxels_to_normalized` for
# differences of positions, which come below.
#
# > **A good place to pause** (about 30 minutes so far). After the break: *Run* → *Run All Above Selected Cell*.
#
# ## One point in four systems
#
# Move the point. At the right is a close-up of the voxels around it. Below are rulers along axis 1. Three things to try:
#
# * Move by 0.25: the *voxel* number follows at once. When does the *index* change?
# * Go to axis 1 = 0, then to 95. Which of the two normalised rulers reaches ±1 at a voxel's centre?
# * In the last line R, A and S are the mm towards the patient's **r**ight, **a**nterior (forwards) and **s**uperior
#   (upwards). Move along axis 0 only, and watch them. Then along axis 1: why do *two* of them change?

# %%
viewer = lesson.place_viewer(volume, scan.affine, number=12)
viewer

# %% [markdown]
# Your answers? The index changes half a voxel away from a centre: voxel 70 reaches from 69.5 to 70.5. *Corners* reaches
# ±1 at the centres 0 and 95. *Edges* does not: there, ±1 are at -0.5 and 95.5.

# %%
corners = normalised(0, 96, True), normalised(95, 96, True)
edges = normalised(-0.5, 96, False), normalised(95.5, 96, False)
inner = normalised(0, 96, False), normalised(95, 96, False)
assert np.allclose([corners, edges], (-1, 1), atol=1e-9), (
    f"-1 and 1 are the outer centres or the outer edges, here {corners} and {edges}: "
    "was `normalised` changed?"
)
assert inner[0] > -1 and inner[1] < 1, (
    f"with align_corners=False the outer centres lie inside, here {inner}: was `normalised` changed?"
)

# %% [markdown]
# The affine answers the last question. This head was scanned in **tilted** planes, so one step along axis 1 leads towards
# the forehead *and* upwards.

# %%
origin = apply_affine(scan.affine, [0, 0, 0])
steps = apply_affine(scan.affine, np.eye(3)) - origin  # one row for each axis, in mm
lengths = np.linalg.norm(steps, axis=1)
for axis in range(3):
    right, anterior, superior = steps[axis]
    print(f"one voxel along axis {axis}: R {right:+.2f}, A {anterior:+.2f}, S {superior:+.2f} mm")
print("lengths:", lengths.round(2), "mm")

assert steps[1, 1] > 1.9 and steps[1, 2] > 0.3, (
    f"axis 1 leads forwards and a little upwards, here {steps[1].round(2)} mm: run all cells from the top"
)
off = np.abs(lengths - scan.header.get_zooms()[:3]).max()
assert off < 1e-3, (
    f"the lengths are the header's spacing, here {off:.1e} mm off: run this cell again"
)

# %% [markdown]
# The *lengths* of these steps are the **spacing**: 2 × 2 × 2.2 mm. One voxel is not the same distance along every axis.
# That is why distances are measured in mm.
#
# ## Left is a sign
#
# Along axis 0 the first number *falls* at each step: this array runs towards the patient's **left**. You cannot see this
# in the picture, because a brain looks nearly the same in a mirror. Only the affine shows it.
#
# There are two ways to show such a plane, and both are in use. In the **radiological convention** the patient's left is
# at the right of the picture, as if you looked at the patient from the feet. In the **neurological convention** the
# patient's right is at the right. Each is the mirror image of the other, and neither is wrong. So a picture of a head must
# say which one it follows.

# %%
right = apply_affine(scan.affine, [[i, 0, 12] for i in range(128)])[:, 0]
anterior = apply_affine(scan.affine, [[0, j, 12] for j in range(96)])[:, 1]

figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="compressed")
axes[0].imshow(volume[:, :, 12].T, cmap="gray", vmin=0, vmax=1, origin="lower")
axes[0].plot(*point[:2], "+", color="#ffb000", markersize=18, markeredgewidth=2)
axes[0].set(
    title="by index: the patient's right is at the left",
    xlabel="axis 0 (voxels)",
    ylabel="axis 1 (voxels)",
)
axes[1].pcolormesh(right, anterior, volume[:, :, 12].T, cmap="gray", vmin=0, vmax=1)
axes[1].plot(*millimetres(point, scan.affine)[:2], "+", color="#ffb000", markersize=18, mew=2)
axes[1].set(title="in mm: the patient's right is at the right", xlabel="R (mm)", ylabel="A (mm)")
axes[1].set_aspect("equal")

letters = "".join(nibabel.aff2axcodes(scan.affine))
determinant = np.linalg.det(scan.affine[:3, :3])
print(f"the axes of this array lead towards {letters}; determinant {determinant:.1f}")
assert letters == "LAS" and determinant < 0, (
    f"LAS, so array and body are mirrored, here {letters} with determinant {determinant:.1f}: "
    "run all cells from the top"
)

# %% [markdown]
# Here axis 0 leads towards the left, so the plane by index follows the radiological convention. In another file it may
# follow the neurological one: the order in memory does not decide.
#
# There is a second trap. nibabel, SPM and FreeSurfer count mm towards **R**ight, **A**nterior, **S**uperior (RAS);
# DICOM, ITK and ANTs count towards **L**eft, **P**osterior (backwards), **S**uperior (LPS). To go from one to the
# other, flip the first two signs. If you forget it, the point lies far outside the head:

# %%
ras = apply_affine(scan.affine, point)
lps = ras * [-1, -1, 1]
off = np.linalg.norm(ras - lps)
print(f"RAS {ras.round(1)} and LPS {lps.round(1)} are one point.")
print(f"Read in the wrong system it is {off:.0f} mm away.")
assert np.isclose(off, 2 * np.hypot(*ras[:2])) and lps[1] < anterior.min(), (
    "read in the wrong system the point is twice as far off as it is from the axis, outside the picture, "
    f"here {off:.1f} mm off: run this section's cells again"
)

# %% [markdown] tags=["instructor"]
# Ask: "how would you notice a flip of left and right in a registration result?" Dice of tissues hardly changes, since
# brains are nearly symmetric. Only labels with a side in their name show it. One sure way is a capsule taped to one side of
# the head. Another is to trust the header, and to test the code that reads it. Tutorial 12 has a flipped affine to diagnose.
# Clinicians expect the radiological convention, many neuroscientists the neurological one: ask who sits in the room.

# %% [markdown]
# ## A difference has no origin
#
# A **displacement** $u$ is the difference of two positions, so constant terms cancel. What remains of the formulas for
# corners and edges? (In mm it is $A\,u$, without $b$.)


# %%
@check.normalised_arrow
def normalised_arrow(u, size, align_corners):
    """A displacement along one axis, from voxels to normalised units."""
    if align_corners:
        return ...  # corners
    return ...  # edges


# %%
start, end = torch.tensor([40.0, 30.0]), torch.tensor([43.0, 28.5])
everywhere = (end - start).view(1, 2, 1, 1).expand(1, 2, 128, 96)  # one arrow at each voxel
converted = fields.voxels_to_normalized(everywhere)[0, :, 0, 0]  # axes in order
size = torch.tensor([128, 96])
by_hand = normalised_arrow(end - start, size, True)
print("u =", (end - start).tolist(), "voxels =", [f"{part:.4f}" for part in by_hand], "normalised")
apart = (converted - by_hand).abs().max()
assert apart < 1e-5, f"by hand as by regkit, here {apart:.1e} apart: was a function changed?"
for align_corners in (True, False):
    ends = [normalised(place, size, align_corners) for place in (start, end)]
    apart = (ends[1] - ends[0] - normalised_arrow(end - start, size, align_corners)).abs().max()
    assert apart < 1e-5, (
        f"an arrow is the difference of its ends, here {apart:.1e} apart: was a function changed?"
    )

# %% [markdown]
# ## Break it
#
# The half-pixel bug: one convention makes the grid, and the other reads it. One forgotten keyword is enough. Newer versions
# of torch warn about it. Most other code does not.

# %%
height, width = 128, 96
rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
grid = torch.stack([normalised(columns, width, True), normalised(rows, height, True)], -1)
grid = grid[None].to(plane.dtype)
right_way = F.grid_sample(plane, grid, align_corners=True)
wrong_way = F.grid_sample(plane, grid, align_corners=False)
right, wrong = ((image - plane).abs().max() for image in (right_way, wrong_way))
assert right < 1e-5 and wrong > 0.1, (
    f"the right way changes nothing, the wrong one more than 0.1 somewhere, here {right:.1e} and "
    f"{wrong:.2f}: run this cell again"
)

# %% [markdown]
# And where does it read? What *corners* has written is read by *edges*:

# %%
read_at = voxels_from_normalised(normalised(torch.arange(width), width, True), width, False)
error = read_at - torch.arange(width)

figure, axes = plt.subplots(1, 3, figsize=(12.5, 4), layout="compressed")
axes[0].imshow(wrong_way[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set(title="read the wrong way", xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
shown = axes[1].imshow((wrong_way - right_way)[0, 0], cmap="PuOr", vmin=-0.3, vmax=0.3)
axes[1].set(title="minus the image", xlabel="axis 1 (voxels)")
figure.colorbar(shown, ax=axes[1], label="difference of intensity")
axes[2].plot(error, color="#0072b2")
axes[2].axhline(0, color="gray", linewidth=0.8)
axes[2].set(title="how far off it reads", xlabel="axis 1 (voxels)", ylim=(-0.6, 0.6))
axes[2].set(ylabel="error (voxels)")
ends, centre = (error[0], error[-1]), error[width // 2]
assert np.allclose(ends, (-0.5, 0.5), atol=1e-4) and abs(centre) < 0.01, (
    f"half a voxel off at the ends, nothing in the middle, here {ends[0]:.3f}, {ends[1]:.3f} and "
    f"{centre:.3f}: run this cell again"
)

# %% [markdown]
# **Symptom:** the picture looks perfect. The error is zero in the middle, where you look and where most tests put their
# dot. It is half a voxel at the border. The sampler reads at places that are too far out, by $N/(N-1)$, so the picture
# **shrinks** by $(N-1)/N$. **The error adds up:** after ten such warps, the outer five voxels show what lies outside the
# image.
#
# **Fix:** name the convention in every call. Test with a dot in a *corner* of an image with unequal sides, so that a
# swapped axis or a wrong $N$ shows. Take odd sides, too: some code is wrong only where half of a side is no whole number.

# %%
read_at = torch.arange(width)
for _ in range(10):
    read_at = voxels_from_normalised(normalised(read_at, width, True), width, False)
outside = int((read_at < -0.5).sum())  # the image ends at -0.5
print(
    f"after ten passes, voxel 0 is read at {read_at[0]:.2f}; {outside} voxels on this side read outside"
)
assert outside == 5, f"five voxels are read outside, here {outside}: run this section's cells again"

# %% [markdown]
# ## Exercise: find the half-pixel bug
#
# A colleague is in a hurry. His program finds landmarks in a small copy of the image, where each voxel is the **mean of
# 4 × 4** full voxels. Then `to_full` takes them back to the full image. The tests pass: "the point is about right". But
# each landmark is wrong, always by the same amount. Run it, and see at the right how the cross misses the middle:


# %%
def to_full(place):
    """The colleague's line: from voxels of the small image to voxels of the full image."""
    return 4 * place


def middle(image):
    """The brightness-weighted mean position, in voxels of the image."""
    # (1, 2, H, W): row and column of each voxel
    grid = fields.identity(image.shape[2:], like=image)
    return (grid * image).sum((2, 3))[0] / image.sum()


truth = torch.tensor([37.0, 21.0])
squared = ((fields.identity((64, 64)) - truth.view(1, 2, 1, 1)) ** 2).sum(1, keepdim=True)
blob = torch.exp(-squared / 30)
small = F.avg_pool2d(blob, 4)  # (1, 1, 16, 16)
found = middle(small)
bug = to_full(found) - truth
print("true:", truth.tolist())
print("found in the small image:", [f"{part:.3f}" for part in found])
assert abs(bug[0] - bug[1]) < 0.01 and bug.abs().min() > 1, (
    f"it is off by the same on both axes, by more than 1 voxel, here {bug.tolist()}: was to_full changed?"
)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="compressed")
for panel, image, place, title in (
    (axes[0], small, found, "small"),
    (axes[1], blob, to_full(found), "full"),
):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.plot(place[1], place[0], "+", color="#ffb000", markersize=16, markeredgewidth=2)
    panel.set(title=f"{title}, with the landmark found")
    panel.set(xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")

# %% [markdown]
# Leave `to_full` as it is, and write the right line as a new function, `my_to_full`. It takes a number or an array of
# numbers. The check calls it with two numbers at once (a tensor like `found`). Do not guess: draw a row of 8 squares on
# paper.

# %% tags=["exercise"]
my_to_full = ...  # for example: lambda place: 4 * place


# %% tags=["solution"]
def repaired(place):
    return 4 * place + 1.5


my_to_full = repaired

# %%
check.small_to_full(my_to_full)

# %%
if callable(my_to_full):
    landmark = np.asarray(my_to_full(found), dtype=float)
    print("your landmark:", landmark.round(2), "true:", truth.tolist())

# %% [markdown] tags=["instructor"]
# Nearly all write 2 first ("half of four"). The check says why this is wrong: they count from the edge of voxel 0, which is
# at -0.5. Those who answer $63/15$ have understood corners, but not that pooling keeps edges. A good question for the room:
# for which factor is the colleague's line right? (Only for 1. With striding, `image[::4]`, it is different: there
# `4 * place` is exact.)

# %% [markdown]
# ## One pair through the course
#
# A place is all that a first registration needs. Take the middle of each image, as `middle` finds it, and move one onto the
# other. Then every voxel has the same displacement. Here it is for the two pairs of the course, the brains and the shapes.
# (`types.Registration` is a box that holds a displacement. `show_registration` draws what is in it.)

# %%
PAIRS = league.pairs()


def centred(pair):
    """The displacement that brings both middles to one place, (1, 2, 64, 64), voxels."""
    shift = middle(pair.moving) - middle(pair.fixed)
    return shift.view(1, 2, 1, 1).expand(1, 2, 64, 64)


found = {name: centred(pair) for name, pair in PAIRS.items()}
figures.show_registration(PAIRS["brains"], types.Registration(found["brains"]))

# %%
table = league.enter("01", "a shift: middle onto middle", found)
table

# %% [markdown]
# `u` leads from the fixed to the moving image, so it is *moving minus fixed*. A shift is far from enough: the brains are
# also turned, of other size, and of other shape. (The table keeps a row for each tutorial that you have run.)

# %%
nothing, shifted = (table.rows[key] for key in (("", "doing nothing", ""), table.latest))
assert shifted[1] < nothing[1] - 0.3 and shifted[4] < nothing[4] - 0.3, (
    "the shift brings both fields nearer to the truth by more than 0.3 voxels, here from "
    f"{nothing[1]:.2f} to {shifted[1]:.2f} and from {nothing[4]:.2f} to {shifted[4]:.2f}: was `middle` changed?"
)

# %% [markdown]
# ## Take away
#
# > * **Index** = which box. **Voxel** = real numbers, centres at whole numbers, the image reaches from -0.5 to
# >   $N - 0.5$. **Normalised** = -1 to 1, *corners or edges*, axes reversed. **mm** = affine, RAS or LPS.
# > * A convention is never wrong; **two conventions in one program** are. Convert where data come in and go out, by
# >   functions with a name.
# > * The half-pixel bug is invisible in the middle. **Test at the corners, on images with unequal, odd sides.**
# > * Averaging moves the centres: small voxel 0 lies in the *middle* of the full voxels that it averages, not on voxel 0.
# >   Going back takes a factor **and** a shift.
# > * Left and right are one sign in the affine, and a picture does not show it. Say whether it is **radiological** or
# >   **neurological**.
#
# **Next.** Now a place has an address. If every voxel gets an arrow to the right, which way does the *image* go?
