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
# # 14 · Your own brain
#
# *Fourteen tutorials on maps. Now two files from a scanner, and a colleague who uses another program.*
#
# **Goals.** After this notebook you can tell what is wrong with a scan before you register it, register two NIfTI files
# of any orientation and voxel size, judge the result from its report, and hand the map to ITK, ANTs or 3D Slicer, in
# their units and with their signs, and prove that it arrived.
#
# **Before you start.** Voxels and mm (01), pull and push (02), affine first (04), orientation (12), what to measure (13).
#
# **Time.** You: about 75 minutes. A CPU (measured on two cores): about 30 s in fast mode, 40 s in full mode.

# %%
import json
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import SimpleITK
import torch
from IPython.display import HTML
from nibabel.affines import apply_affine

from regkit import check, course, fields, images, losses, metrics, optimise, training
from regkit.__main__ import main
from regkit.course import patients
from regkit.course.lessons.t14_your_own_brain import doctor
from regkit.images import itk
from regkit.tools import examine
from regkit.tools.methods import make_method
from regkit.tools.register import register_scans
from regkit.tools.report import framed
from regkit.types import Pair
from regkit.widgets import slice_viewer, with_volumes

course.begin(seconds={"fast": 30, "full": 40}, minutes=75)

# %% [markdown]
# ## Two files
#
# Here you may put your own: the paths of two scans, NIfTI (`.nii`, `.nii.gz`), brains without their skulls, as seen
# from the folder of this notebook (in Colab, upload them first). Without them, the notebook writes two synthetic brains
# into a temporary folder, as two hospitals might have stored them. Of these two the text speaks: begin with them.
# Nothing leaves your computer. Two scans of 1 mm take about two minutes and 4 GB of memory (fast mode).

# %%
MOVING, FIXED = None, None  # your own: "moving.nii.gz", "fixed.nii.gz"

folder = Path(tempfile.mkdtemp())
synthetic = patients.write_pair(folder)
assert (MOVING is None) == (FIXED is None), (
    f"give both files, or neither, here {MOVING} and {FIXED}: correct the line above"
)
OWN = MOVING is not None
if not OWN:
    MOVING, FIXED = synthetic.moving, synthetic.fixed

# %% [markdown]
# What is in them? Many begin like this: load the arrays, look at the middle.

# %%
files = {"moving": nibabel.load(MOVING), "fixed": nibabel.load(FIXED)}
arrays = {name: np.asarray(file.dataobj, dtype=np.float32) for name, file in files.items()}
arrays = {  # of several volumes the first
    name: array.reshape(*array.shape[:3], -1)[..., 0] for name, array in arrays.items()
}

figure, panels = plt.subplots(1, 2, figsize=(8.5, 4), layout="compressed")
for panel, (name, array) in zip(panels, arrays.items(), strict=True):
    shown = panel.imshow(array[:, :, array.shape[2] // 2], cmap="gray")
    panel.set(title=f"{name}: [:, :, {array.shape[2] // 2}] of {array.shape}")
    panel.set(xlabel="axis 1 (voxels)", ylabel="axis 0 (voxels)")
    figure.colorbar(shown, ax=panel, label="intensity", shrink=0.8)

# %% [markdown]
# One plane is seen from behind, the other from above, and both lie on their sides. The voxels are of different sizes,
# and one file counts to 2800 where the other counts to 670. A network that is given these two arrays will answer, and
# its answer will mean nothing.
#
# The intensities first. A *window* leads from the least to the 99.5th percentile; what is brighter than that counts as 1.
# (The line above a function says at once what is right; as long as it is not, the notebook goes on with the solution.)


# %%
@check.windowed
def windowed(values):
    """Intensities from 0 to 1: 0 at the least one, 1 at the 99.5th percentile and above. values: an array."""
    (
        low,
        high,
    ) = ...  # np.percentile(values, (first, second)) gives two; percentiles count from 0 to 100
    scaled = ...  # 0 at low, 1 at high
    return ...  # np.clip(x, least, largest)


# %%
for name, array in arrays.items():
    ours = windowed(array[np.isfinite(array)])
    print(
        f"{name}: from {array.min():.0f} ... {array.max():.0f} to {ours.min():.0f} ... {ours.max():.0f}"
    )
if not OWN:
    scan = images.read_image(FIXED)
    window = tuple(np.percentile(scan.tensor.numpy(), (0, 99.5)))
    off = np.abs(
        windowed(scan.tensor.numpy()) - images.normalise(scan, window=window).tensor.numpy()
    ).max()
    assert off < 1e-3, (
        f"the window by hand is regkit's, here {off:.1e} apart: was windowed changed?"
    )

# %% [markdown]
# All that is needed to correct it is in the headers. `images.read_image` uses them; but are the headers right?
#
# ### Predict
#
# Before that, one question whose answer we shall need at the end. A displacement moves every voxel of a fixed scan by
# **two voxels along axis 0**, $u = (2, 0, 0)$. The scan's voxels are 2.5 mm wide, and its axis 0 leads to the patient's
# right. ITK, ANTs and 3D Slicer store displacements in mm, along axes that lead to the left, to the back and up (LPS).
# Which number is the first component in their file: `2`, `5`, `-2` or `-5`?

# %% tags=["exercise"]
my_prediction = ...

# %% tags=["solution"]
my_prediction = -5

# %% [markdown] tags=["instructor"]
# *5* is the usual answer: the unit was thought of, the sign was not. Some say *-2*. Do not tell yet. Ask who has ever
# opened a transform of one program in another, and how they knew that it was right: "it looked right" is the answer to
# work on today.

# %% [markdown]
# ## The intake
#
# A hospital examines a patient before the operation. `intake.examine` does that with a file: is it whole? One volume?
# How large are its voxels, where do its axes lead, does the header say so? Is it an image at all, has it still a
# skull, do the two scans lie in the same place, the same way up? It never raises: a bad file is what it is for.

# %%
seen = examine.examine(MOVING, FIXED)
seen

# %%
seen_fixed = examine.examine(FIXED, MOVING)
seen_fixed

# %%
if not OWN:
    assert seen["overlap"].severity == "amber", (
        "the tables stood elsewhere, so the overlap is amber and an affine stage is needed, here it is "
        f"{seen['overlap'].severity}: run all cells from the top"
    )
    bad = [finding.rule for finding in seen.findings if finding.severity != "green"]
    assert bad == ["overlap"], f"nothing else is found, here {bad}: run all cells from the top"
elif "red" in (seen.severity, seen_fixed.severity):
    print("Correct what is red before you go on, all but overlap: the cells below will refuse it.")

# %% [markdown]
# One light is amber: by their headers, the brains lie far apart. That is usual, each scanner has its own zero, and an
# affine stage corrects it.
#
# Not every patient is so well. Here is the fixed scan again, number 0, and eight copies of it with one thing wrong each.
# **For each patient: look at the three planes first, and say what is wrong; then show the findings.** Of four of them
# the picture shows nothing at all. (`doctor({"mine": MOVING}, FIXED)` shows files of your own.)

# %%
prepared = patients.write_patients(folder / "patients", synthetic.fixed, synthetic.fixed_labels)
waiting_room = doctor(
    {f"patient {i}": path for i, path in enumerate(prepared.values())}, synthetic.fixed
)
waiting_room.set(revealed=False)
waiting_room

# %% [markdown]
# When you have seen them all:

# %%
lights = {name: examine.examine(path, synthetic.fixed) for name, path in prepared.items()}
for number, (name, seen) in enumerate(lights.items()):
    bad = [f"{f.severity}: {f.rule}" for f in seen.findings if f.severity != "green"]
    print(f"{number} {name:15s} {', '.join(bad) or 'all is well'}")
diagnoses = {
    ("four volumes", "one volume"): "red",
    ("flipped", "same way up"): "red",
    ("spacing lost", "field of view"): "amber",
    ("NaN", "finite values"): "amber",
    ("labels", "an image"): "red",
    ("far away", "overlap"): "red",
    ("with its skull", "skull-stripped"): "amber",
}
for (name, rule), colour in diagnoses.items():
    told = lights[name][rule].severity
    assert told == colour, (
        f"{name}: the rule {rule!r} is {colour}, here {told}: run the two cells above again"
    )
told = lights["good"].severity
assert told == "green", f"of the good one all is well, here {told}: run the two cells above again"
unread = lights["cut short"].scan is None
assert unread, (
    f"the file that was cut short cannot be read, here {unread}: run the two cells above again"
)

# %% [markdown]
# **Red** is what regkit refuses, or what would give a wrong result without a word. **Amber** is for you to decide.
#
# * *Flipped*: someone turned the array and kept the header. It is found because the other scan looks different. Had left
#   and right been exchanged, **nothing** would have been found: brains are nearly symmetric. That is why one never corrects
#   a header by eye.
# * *Far away* is corrected by the affine stage. *Spacing lost* is not: it says that 74 mm are enough for this head, which
#   would do for a cat, and no registration grows a brain by a factor of fifteen.
# * *With its skull*: networks have learnt what they were shown, and these were shown brains without a skull. Strip it
#   from *both* scans (SynthStrip, HD-BET), or let an optimiser do the work: it has learnt nothing, so it is not
#   surprised (`--method optimise`).
#
# ## Register
#
# Read, affine stage, network, in the order of the tutorials: centres and an affine map (04), then SPnet (08), with
# weights that come with regkit and were trained on synthetic brains (12). `register_scans` does these two.

# %%
moving, fixed = images.read_image(MOVING), images.read_image(FIXED)
for name, scan in {"moving": moving, "fixed": fixed}.items():
    sizes = " x ".join(f"{size:.2g}" for size in scan.spacing)
    print(f"{name}: {scan.original.codes} as stored, {scan.grid.codes} as read; {sizes} mm")

network = make_method("spnet", 3)
print(f"network: SPnet, trained on voxels of {network.spacing:.2f} mm")
alone = register_scans(moving, fixed, network, affine=True)

# %% [markdown]
# Then some steps of optimisation for this one pair (06), at two sizes, coarse and fine, which start from the network's
# answer. (`register_scans(..., refine=20)` would have done it; here you see what it does.) The network works on images that
# the affine map has brought together; `regrid` joins the two maps on the fixed scan's own grid, so that the image is
# interpolated **once** (02).

# %%
REFINE = training.steps(fast=10, full=20)
found = optimise.refine_field(
    alone.near.tensor, alone.here.tensor, alone.found, steps=REFINE, progress=False
)
refined = itk.Deformation(found.displacement, alone.here.grid)  # a displacement, and where it is
there = itk.regrid(refined, fixed.original, after=alone.through)  # the whole map, moving to fixed
result = replace(alone, found=found, there=there)  # its way back is still the network's alone

# %% [markdown]
# The four stages, in one plane, with the outline of the fixed brain:

# %%
stages = {  # all on the fixed scan's grid
    "as the headers place it": images.resample(moving, fixed.original),
    "affine": result.warp(moving, affine_only=True),
    "affine, network": alone.warp(moving),
    "affine, network, refined": result.warp(moving),
}
target = images.resample(fixed, fixed.original)


def upright(scan, like=moving):
    """Values from 0 to 1, as `like` has them, with axes to the right, to the front and up."""
    window = tuple(np.percentile(like.tensor.numpy(), (0, 99.5)))
    return images.normalise(images.resample(scan, fixed.grid), window=window).tensor[0, 0].numpy()


# %%
here = upright(target, like=fixed)
middle = round(float(np.argwhere(here > 0.2)[:, 2].mean()))  # a plane through the brain
width, height = (count * size for count, size in zip(here.shape[:2], fixed.spacing, strict=False))
extent = (0, width, 0, height)
outline = {"levels": [0.15], "colors": "#ff5a00", "linewidths": 1.2, "extent": extent}


def draw_on_fixed(panel, scan, title):
    """An axial plane of a scan, the front on top, with the outline of the fixed brain."""
    panel.imshow(
        upright(scan)[:, :, middle].T, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent
    )
    panel.contour(here[:, :, middle].T, **outline)
    panel.set(title=title, xlabel="L    (mm)    R")


# %%
figure, panels = plt.subplots(1, 4, figsize=(12, 4), sharey=True, layout="compressed")
panels[0].set_ylabel("P    (mm)    A")
for panel, (name, scan) in zip(panels, stages.items(), strict=True):
    draw_on_fixed(panel, scan, name)


# %%
def correlation(scan):
    """With the fixed scan; 1 is best."""
    both = (torch.from_numpy(values)[None, None] for values in (upright(scan), here))
    return 1 - float(losses.ncc(*both))


# %%
alike = {name: correlation(scan) for name, scan in stages.items()}
overlap = [float("nan")] * 4
if not OWN:
    labels = [images.read_labels(p) for p in (synthetic.moving_labels, synthetic.fixed_labels)]
    truth = images.resample(labels[1], fixed.original).tensor
    warped = [
        images.resample(labels[0], fixed.original),
        result.warp(labels[0], affine_only=True),
        alone.warp(labels[0]),
        result.warp(labels[0]),
    ]
    overlap = [fmean(metrics.dice(scan.tensor, truth).values()) for scan in warped]
    assert overlap[0] < 0.2 < 0.45 < overlap[1] < overlap[2] < overlap[3] and overlap[3] > 0.72, (
        "Dice rises at each stage, from below 0.2 over 0.45 to above 0.72, here "
        f"{overlap}: run this section's cells again"
    )
    rises = np.diff(list(alike.values())).min()
    assert rises > 0, (
        f"the correlation rises at each stage, here by {rises:+.3f} at least: run this section's cells again"
    )

# %%
for (name, value), dice in zip(alike.items(), overlap, strict=True):
    print(f"{name:25s} correlation {value:.3f}", "" if OWN else f"· mean Dice {dice:.2f}")

# %% [markdown]
# Each stage begins where the one before it ended. And look at the last two numbers: a correlation of 0.999, and a Dice of
# 0.80. It was the correlation that was optimised, so it proves little; the structures still differ in every fifth voxel
# or so. (Dice uses labels, which only synthetic brains have for nothing. For a patient you have the correlation, and your
# eyes.)
#
# Look through it, plane by plane, and ask for the extreme of |J| (of network and refinement; the affine stage is not in
# it):

# %%
pair = Pair(result.near.tensor, result.here.tensor, spacing=result.here.spacing)
looked_at = slice_viewer(
    pair, result.found, panels=("fixed", "warped", "difference", "jacobian"), upright=True
)
looked_at.set(planes="across axis 2", axis_2=middle)
with_volumes(looked_at, (result.near, result.here), result.found)

# %% [markdown]
# ## The same without Python
#
# One line does all of the above, the refinement included, and writes what a colleague needs (with
# `--labels moving_labels.nii.gz fixed_labels.nii.gz` also Dice):

# %%
out = folder / "out"
arguments = ["register", MOVING, FIXED, "--affine", "--method", "spnet"]
arguments += ["--refine", REFINE, "--out", out]
arguments = [str(each) for each in arguments]
print("python -m regkit", shlex.join(arguments).replace(str(folder), "…"), "\n")  # …: the folder
status = main(arguments)  # what the shell would run; a terminal needs no notebook

assert status == 0, f"the command ends with 0, here with {status}: read what it says above"
print(sorted(path.name for path in out.iterdir()))
written = itk.regrid(itk.read_displacement(out / "displacement.nii.gz"), result.there.grid)
apart = (written.displacement - result.there.displacement).norm(dim=1)
print(f"the command's map and ours: {apart.mean():.4f} voxels apart on average")
assert apart.mean() < 0.01, (
    f"the command finds our map within 0.01 voxels, here {apart.mean():.4f}: was `found` changed? "
    "run all cells from *Register* on"
)

# %% [markdown]
# ## The report: how to read it
#
# `report.html` is one file that you can send. Scroll in it; then read it in this order:
#
# 1. **Numbers.** Correlation before, after affine, after: does it rise at each stage? Folded voxels: zero, or you must
#    say where and why. Inverse consistency: below half a voxel. (*Time* is that of network and refinement alone.)
# 2. **Checkerboards.** Follow an edge from tile to tile. It must not break. Look at the ventricles and at the rim.
# 3. **Differences.** After, what is left should look like anatomy that differs (thin lines), not like a shift (a bright
#    rim on one side, a dark one on the other).
# 4. **The grid.** Lines of fixed, drawn where they read moving. Smooth, without knots. The warp pulls (02): a wide mesh
#    is tissue of which much goes into few voxels, it shrinks; lines that run together read one place often, it grows.
# 5. **|J|** of the whole map. White is no change; what is green, above 1, shrinks, and what is purple grows. A head of
#    another size tints all of it: that is the affine stage. But for that, mostly between a half and two, where the
#    colours end; a third deserves a look (often at the rim, where there is nothing to be matched). Orange is a fold: no
#    tissue does that.

# %%
numbers = json.loads((out / "metrics.json").read_text())
report = HTML(framed((out / "report.html").read_text()))
report

# %%
folded, least = numbers["folds_percent"], numbers["jacobian_minimum"]
print(f"folded: {folded:.4f} %; least |J| {least:.2f}")
print(f"there and back: {numbers['inverse_consistency_voxels']:.3f} voxels from home on average")
if not OWN:
    home = numbers["inverse_consistency_voxels"]
    assert folded == 0 and least > 0 and home < 0.5, (
        "no voxel folds, and the round trip ends within half a voxel, here "
        f"{folded:.4f} %, least |J| {least:+.2f} and {home:.2f}: run all cells from *Register* on"
    )

# %% [markdown]
# ## Hand it over
#
# regkit holds a displacement in voxels, channel $i$ along the file's axis $i$. Others hold it otherwise:
#
# | | regkit | ITK, ANTs, 3D Slicer |
# |---|---|---|
# | unit | voxels of the fixed grid | mm |
# | direction | along the array's axes | along the body's: **L**eft, **P**osterior, **S**uperior |
# | array | (3, i, j, k) | NIfTI (i, j, k, 1, 3), intent *vector* |
# | meaning | fixed → where to read in moving | the same |
#
# The affine $A$ of the header leads from voxels to mm in **RAS**. For a difference of places the origin cancels, so
#
# $$d_\text{RAS} = A_{3\times3}\, u, \qquad d_\text{LPS} = \mathrm{diag}(-1, -1, 1)\, d_\text{RAS} .$$
#
# That is all. By hand:


# %%
@check.to_lps_by_hand
def to_lps(u, affine):
    """u (3, i, j, k), voxels, as vectors (i, j, k, 3): mm along the body, LPS."""
    ras = ...  # np.einsum("xa,aijk->ijkx", matrix, u) multiplies a matrix with u at each voxel
    return ...  # the three components stand last


# %%
def write_vectors(path, vectors, affine):
    """Vectors (i, j, k, 3) as the NIfTI file that ITK takes for a displacement field."""
    file = nibabel.Nifti1Image(vectors[:, :, :, None].astype(np.float32), affine)
    file.set_sform(affine, "scanner")
    file.set_qform(affine, "scanner")
    file.header.set_xyzt_units("mm")
    file.header.set_intent("vector")
    nibabel.save(file, path)


u, affine = there.displacement[0].numpy(), there.grid.affine
write_vectors(folder / "by_hand.nii.gz", to_lps(u, affine), affine)

# %% [markdown]
# The same from regkit (which rounds to a 4096th of a voxel, so that the file packs better), and read back:

# %%
itk.write_displacement(folder / "regkit.nii.gz", there)
mine, theirs = (nibabel.load(folder / name) for name in ("by_hand.nii.gz", "regkit.nii.gz"))
heads = [(file.shape, file.header.get_intent()) for file in (mine, theirs)]
assert heads[0] == heads[1] and mine.shape[3:] == (1, 3), (
    f"the header by hand is regkit's, here {heads}: was write_vectors changed?"
)
off = np.abs(mine.affine - theirs.affine).max()
assert off < 1e-4, f"so is the affine, here {off:.1e} apart: was write_vectors changed?"
off = np.abs(mine.get_fdata() - theirs.get_fdata()).max()
assert off < min(there.grid.spacing) / 2000, (
    f"so are the vectors, within a two thousandth of a voxel, here {off:.1e} mm apart: was to_lps changed?"
)

again = itk.regrid(itk.read_displacement(folder / "by_hand.nii.gz"), there.grid)
apart = (again.displacement - there.displacement).abs().max()
print(f"written, and read back: {apart:.1e} voxels")
assert apart < 1e-3, (
    f"what is read back is what was written, here {apart:.1e} voxels apart: run this cell again"
)

# %% [markdown]
# And how does one read a field that *another* program has written? Turn the two lines around:


# %%
@check.from_lps_by_hand
def from_lps(vectors, affine):
    """The way back: vectors (i, j, k, 3), mm along the body, LPS, as u (3, i, j, k), voxels."""
    ras = ...
    return ...  # np.einsum("ax,ijkx->aijk", matrix, vectors)


# %%
vectors = theirs.get_fdata()[:, :, :, 0]  # regkit's file
off = np.abs(from_lps(vectors, affine) - u).max()
assert off < 1e-2, (
    f"regkit's file read by hand is our field, here {off:.1e} voxels apart: was from_lps changed?"
)
print(f"regkit's file, read by hand: {off:.1e} voxels apart")

# %% [markdown]
# ## Your prediction

# %%
two_voxels = np.zeros((3, 1, 1, 1))
two_voxels[0] = 2
first = to_lps(two_voxels, np.diag([2.5, 2.5, 2.5, 1]))[0, 0, 0, 0]
print(
    "you said:", "nothing yet" if my_prediction is ... else my_prediction, "· the file says:", first
)
assert first == -5, (
    f"2 voxels of 2.5 mm to the right are -5 mm in LPS, here {first}: was to_lps changed?"
)

# %% [markdown]
# Two voxels are 5 mm, and to the right is minus to the left.
#
# ## Does it arrive?
#
# A file that *looks* right is no proof. Another program has to read it and say where it would go. SimpleITK shares no line
# with regkit. We ask both for the same thousand places in the fixed scan, *between* voxels, and compare.
#
# To ask another program is to use its language: mm, LPS. `apply_affine(matrix, points)` carries points (N, 3), or one.


# %%
LPS = np.diag([-1, -1, 1, 1])  # from RAS to LPS, and back


# %%
@check.ask_in_lps
def ask_in_lps(program, affine, places):
    """Where a program reads for places (N, 3) in voxels, in voxels again. program: carries points (N, 3), mm, LPS."""
    points = ...
    moved = ...
    return ...


# %%
field = SimpleITK.ReadImage(str(folder / "by_hand.nii.gz"), SimpleITK.sitkVectorFloat64)
transform = SimpleITK.DisplacementFieldTransform(field)  # takes the field over: it is empty now

generator = np.random.default_rng(14)
places = generator.uniform(1, np.array(u.shape[1:]) - 2, size=(1000, 3))  # voxels


def by_simpleitk(places, transform):
    """Where SimpleITK reads in the moving scan for places (N, 3) of the fixed one, in fixed voxels."""

    def carried(points):
        return np.array([transform.TransformPoint(point.tolist()) for point in points])

    return ask_in_lps(carried, affine, places)


def by_regkit(places):
    """The same by regkit: x + u(x)."""
    x = torch.from_numpy(places.T.reshape(1, 3, -1, 1, 1)).float()
    return (x + fields.sample(there.displacement, x))[0, :, :, 0, 0].T.numpy()


apart = np.linalg.norm(by_simpleitk(places, transform) - by_regkit(places), axis=1)
print(
    f"SimpleITK and regkit: {apart.mean():.5f} voxels apart on average, {apart.max():.5f} at most"
)
assert apart.mean() < 0.01, (
    f"SimpleITK reads where regkit does within 0.01 voxels, here {apart.mean():.4f}: was to_lps changed?"
)

# %% [markdown]
# The same for a point in mm: a colleague marks a *landmark* in the fixed scan, and wants to know where it lies in the
# moving one. The affine knows the way from voxels to mm, and its inverse the way back.


# %%
@check.landmark_by_hand
def landmark_by_hand(arrow_at, affine, point):
    """Where a landmark of the fixed scan lies in the moving one, mm, RAS. arrow_at(voxel): u there, (3,)."""
    voxel = ...
    end = ...  # where its arrow leads, in voxels
    return ...


# %%
mark = apply_affine(affine, places[0])  # mm, RAS
found_at = landmark_by_hand(lambda voxel: by_regkit(voxel[None])[0] - voxel, affine, mark)
asked = np.array(transform.TransformPoint((LPS[:3, :3] @ mark).tolist())) @ LPS[:3, :3]
off = np.linalg.norm(found_at - asked)
print(f"landmark at {mark.round(1)} mm, in the moving scan at {found_at.round(1)} mm")
assert off < 0.05, (
    f"SimpleITK carries the landmark to the same place, here {off:.3f} mm apart: was landmark_by_hand changed?"
)

# %% [markdown]
# And the image itself. (One thing is not ITK's: where moving has finer voxels than fixed, `result.warp` blurs it to their
# size before it reads between them, so that no voxel is missed. Then the images differ at edges, and the maps do not.)

# %%
moving_itk = SimpleITK.ReadImage(str(MOVING), SimpleITK.sitkFloat32)
fixed_itk = SimpleITK.ReadImage(str(FIXED), SimpleITK.sitkFloat32)
lowest = float(moving.tensor.min())


def resample_by_simpleitk(transform):
    """Moving on the fixed grid, (i, j, k)."""
    warped = SimpleITK.Resample(moving_itk, fixed_itk, transform, SimpleITK.sitkLinear, lowest)
    return SimpleITK.GetArrayFromImage(warped).T  # SimpleITK's arrays are (k, j, i)


itks, ours = resample_by_simpleitk(transform), result.warp(moving).tensor[0, 0].numpy()
off = np.abs(itks - ours).mean() / np.ptp(ours)
print(f"intensities: {100 * off:.4f} % of the range apart on average")
if not OWN:
    assert off < 0.01, (
        f"the images differ by less than 1 % of the range, here {100 * off:.2f} %: run this section's cells again"
    )

# %% [markdown]
# ## Break it
#
# Three lines that every laboratory has written once: the sign of LPS forgotten; voxels written as if they were mm; the
# components in the order of a numpy array of SimpleITK (k, j, i). Each writes a perfectly valid file.

# %%
vectors = to_lps(u, affine)
wrong = {
    "right": vectors,
    "no change of sign": vectors * [-1, -1, 1],
    "voxels, not mm": to_lps(u, affine[:3, :3] / there.grid.spacing),
    "components reversed": vectors[..., ::-1],
}
broken, errors = {}, {}
for name, values in wrong.items():
    write_vectors(folder / "wrong.nii.gz", values, affine)
    read = SimpleITK.ReadImage(str(folder / "wrong.nii.gz"), SimpleITK.sitkVectorFloat64)
    moved = SimpleITK.DisplacementFieldTransform(read)
    errors[name] = np.linalg.norm(by_simpleitk(places, moved) - by_regkit(places), axis=1).mean()
    tensor = torch.from_numpy(np.ascontiguousarray(resample_by_simpleitk(moved)))[None, None]
    broken[name] = images.Scan(tensor, fixed.original, fixed.original)

# %%
figure, panels = plt.subplots(1, 4, figsize=(12, 4), sharey=True, layout="compressed")
for panel, (name, scan) in zip(panels, broken.items(), strict=True):
    draw_on_fixed(panel, scan, f"{name}\n{errors[name]:.1f} voxels off")
panels[0].set_ylabel("P    (mm)    A")
for name, scan in broken.items():
    print(f"{name:20s} correlation {correlation(scan):.2f}")
assert errors["right"] < 0.01, (
    f"the right one is within 0.01 voxels, here {errors['right']:.4f}: was to_lps changed?"
)
if not OWN:
    nearest = min(errors[name] for name in list(wrong)[1:])
    assert nearest > 2, (
        f"each mistake is more than 2 voxels off, here {nearest:.1f} at least: run this section's cells again"
    )

# %% [markdown]
# None of the programs complained. **Symptoms:**
#
# | mistake | what you see | why |
# |---|---|---|
# | sign | nearly right up and down; left-right and front-back, the error is *twice* the displacement | two of three components point backwards |
# | unit | everything moves too little (voxels above 1 mm), by one factor | 2.5 mm voxels: 40 % of the way |
# | order | moves sideways what should move up | x and z are exchanged |
#
# With small displacements all three look *almost* right, and that is the danger; with voxels of 1 mm the wrong unit is
# even without effect, until somebody scans with 2 mm. **Fix:** do not look, ask. One place, by hand, through both
# programs, as above, with a displacement such as $u = (1, 2, 3)$ and voxels that are not of 1 mm: along one axis alone
# something can hide (the sign in one that leads up, the order in one that leads to the front). And a picture of the
# registered pair *from the other program*.
#
# ## Exercise
#
# No file this time: build the transform in memory. Write `my_transform(u, fixed)`, where `u` is (3, i, j, k) in voxels and
# `fixed` the scan as **SimpleITK** reads it. Return what `SimpleITK.Resample` takes. You will need
# `fixed.GetDirection()` (nine numbers, row by row), `fixed.GetSpacing()`, `SimpleITK.GetImageFromArray(...,
# isVector=True)` and `CopyInformation`. Its axes are oblique, and its voxels have three different sizes: nothing is right
# by chance. (`check.oblique_case()` gives you a `u` and a `fixed` to try.)
#
# Think first: SimpleITK's direction is LPS. Is there still a sign to change?

# %% tags=["exercise"]
my_transform = ...


# %% tags=["solution"]
def in_memory(u, fixed):
    matrix = np.reshape(fixed.GetDirection(), (3, 3)) * fixed.GetSpacing()  # voxels to mm, LPS
    vectors = np.einsum("xa,aijk->kjix", matrix, u)  # an array for SimpleITK is (k, j, i, 3)
    field = SimpleITK.GetImageFromArray(vectors.astype(np.float64), isVector=True)
    field.CopyInformation(fixed)
    return SimpleITK.DisplacementFieldTransform(field)


my_transform = in_memory

# %%
check.exported(my_transform)

# %% [markdown]
# Green? Then it holds for the brains as well:

# %%
if check.exported(my_transform).colour == "green":
    yours = my_transform(u.astype(np.float64), fixed_itk)
    apart = np.linalg.norm(by_simpleitk(places, yours) - by_regkit(places), axis=1).mean()
    print(f"your transform: {apart:.5f} voxels from regkit's map on average")
    assert apart < 0.01, (
        f"your transform is regkit's map within 0.01 voxels, here {apart:.4f}: run all cells from the top"
    )
else:
    print("not yet")

# %% [markdown] tags=["instructor"]
# The sign divides the room again, the other way round: those who have just learnt to change it change it once too often.
# Let them say aloud which frame each matrix means: nibabel's affine RAS, SimpleITK's direction LPS. *float32*, and an
# array that was not transposed, are the harmless reds: SimpleITK itself refuses them. The dangerous ones it takes: sign,
# unit, a direction transposed, no `CopyInformation`.

# %% [markdown]
# ## In other programs
#
# What `register` wrote can be used as it is. **ANTs**, an image, and labels:
#
# ```sh
# antsApplyTransforms -d 3 -i moving.nii.gz -r fixed.nii.gz -t displacement.nii.gz -o warped.nii.gz
# antsApplyTransforms -d 3 -i moving_labels.nii.gz -r fixed.nii.gz -t displacement.nii.gz \
#     -n GenericLabel -o warped_labels.nii.gz
# ```
#
# The way back takes `inverse_displacement.nii.gz`, with `-i fixed.nii.gz -r moving.nii.gz`. Points go the other way round
# (02): a landmark of the *fixed* scan is carried into moving by `displacement`, for $p + d(p)$ is where it lies there.
#
# **3D Slicer**: *Add Data*, choose `displacement.nii.gz`, and as its description *Transform*, not *Volume*. Then in the
# module *Transforms* apply it to the moving scan. To keep the result, *harden* it, or resample with the fixed scan as
# reference.
#
# **FSL** and **FreeSurfer** use conventions of their own; convert with a tool that knows them, and ask it where it goes.

# %% tags=["instructor"]
errors = [error for view in (waiting_room, looked_at) for error in view.errors]
assert errors == [], f"no view had an error, here {errors}: run the view's cell again"

# %% [markdown]
# ## Take away
#
# > * **Examine before you register.** Whole, one volume, voxel size, orientation, finite, an image, no skull, same
# >   place, same way up. Left and right cannot be seen: trust the header or the person who scanned, never the eye.
# > * **Each stage for what it can do**: headers, affine, network, refinement; interpolate once.
# > * **Read a report in order**: numbers, checkerboards, differences, grid, |J|.
# > * $d_\text{LPS} = \mathrm{diag}(-1, -1, 1)\, A_{3\times3}\, u$. Unit, direction, sign, order: **four ways to write a valid file
# >   that is wrong**.
# > * **A hand-over is proven by the receiver**: ask the other program where it goes.
#
# **Next.** Nothing is numbered 15. What will *your* data break: an operated brain, a lesion that has no counterpart, a
# moving abdomen? You can now say which law would fail, measure whether it does, and make a pair for which you know the
# answer. Begin there.
