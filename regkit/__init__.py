"""regkit: learn deep-learning image registration by touching it.

The map, from the ground up (each line imports only from lines above it):

    types        Image, Labels, Displacement; Pair (what to register) and Registration (what was found)
    fields       the one convention; sample, warp, compose, exponential, invert, Jacobians, sizes, units
                 (on algebra, grids, sampler, inversion, volume_change)
    layers       what two or more networks share
    losses       similarities, smoothness, ICON and GradICON (on windows, penalties)
    metrics      Dice, surface distances, landmark error; folds, statistics of |J|, consistency (on regularity)
    models       VoxelMorph, GradICON, SITReg, SACBNet, SPNet, SMGICNet: one paper, one file
                 (on splines, symmetry, clusters: SITReg's and SACB-Net's mathematics)
    checkpoints  save, load, and the authors' published weights (on files, official)
    training     one loop for all; recipes and histories (on runs, resuming)
    data         shapes and deformations with known answers (vessels: trees of thin lines)
    brains       synthetic brains with known answers (on anatomy, appearance; needs the course extra)
    variants     what the course compares, trained: benchmarks, ablation studies, results (on benchmarks, studies)
    claims       what the papers claim, judged on them (on ledger, laws)
    optimise     one pair without a network: affine map, displacement, velocity; refine: what a network found
    images       scans, from files and to files (on scans); folders: datasets; itk: displacement fields in files
    scan_pairs   two scans in, maps between them out (on alignment, methods, measuring; syn: that of ANTs)
    intake       what is well with a scan's file and what is not (on symptoms; patients: files to try it on)
    comparisons  methods side by side on the same pairs; scan_comparisons: on scans in files (on tissues)
    leaderboard  the shipped networks and their rivals on whole brains, measured and stored
    tables       a paper's table on its dataset, as data_scripts prepare it (on protocols: the tables as data)
    figures      static plots; widgets: interactive ones (both on views, and both need the course extra)
    course       the notebooks; check: their exercises
    commands     the command line: register, train, evaluate, leaderboard (on reports: a registration's page)

The flow: pair in, registration out, functions after.

    pair = regkit.data.synthetic_pair(dim=2, seed=0)
    model = regkit.models.VoxelMorph(dim=2)
    registration = model(pair.moving, pair.fixed)
    warped = regkit.warp(pair.moving, registration.displacement)
    terms = model.objective(registration, pair.moving, pair.fixed)
"""

__version__ = "0.1.0"

from regkit import brains, checkpoints, data, fields, images, losses, metrics, models, training
from regkit.checkpoints import load, save
from regkit.fields import compose, exponential, invert, jacobian_determinant, warp
from regkit.training import train
from regkit.types import Pair, Registration

__all__ = [
    "Pair",
    "Registration",
    "brains",
    "checkpoints",
    "compose",
    "data",
    "exponential",
    "fields",
    "images",
    "invert",
    "jacobian_determinant",
    "load",
    "losses",
    "metrics",
    "models",
    "save",
    "train",
    "training",
    "warp",
]
