"""The rows of the claims ledger: what the five papers claim, in our words, and how it is judged here."""

from __future__ import annotations

from functools import partial

from regkit import laws
from regkit.ledger import Claim, every, not_less, rises, within

_GRADICON = (
    Claim(
        "GradICON",
        "converges faster than ICON at equally few folds",
        "Figure 3",
        "curves",
        ("gradicon",),
        every(
            rises("gradicon", "mse", "reference", "ICON"), within("gradicon", "folds", "reference", "ICON", most=0.05)
        ),
    ),
    Claim(
        "GradICON",
        "several steps converge faster than one",
        "Figure 3",
        "curves",
        ("gradicon",),
        rises("gradicon", "mse", "reference", "one step"),
    ),
    Claim(
        "GradICON",
        "both together are best",
        "Figure 3",
        "curves",
        ("gradicon",),
        every(*(rises("gradicon", "mse", "reference", other) for other in ("ICON", "one step", "ICON, one step"))),
    ),
    Claim(
        "GradICON",
        "a weight of ICON small enough to move folds, and one that prevents folds stands still",
        "Table 2",
        "ICON 8.9 mm, 0.46 % folds; GradICON 3.6 mm, 0.004 %",
        ("gradicon",),
        every(rises("gradicon", "folds", "reference", "weak ICON"), rises("gradicon", "mse", "reference", "weak ICON")),
    ),
    Claim(
        "GradICON",
        "more sub-networks lower the error on vessels",
        "Figure 4",
        "bars",
        ("gradicon_vessels",),
        rises("gradicon_vessels", "field_error", "reference", "two networks", "one network"),
    ),
    Claim(
        "GradICON",
        "the self-adaptive similarity lowers folds",
        "Figure 4",
        "bars",
        ("gradicon_vessels",),
        rises("gradicon_vessels", "folds", "reference", "NCC"),
    ),
    Claim(
        "GradICON",
        "a translation between the maps costs no GradICON loss",
        "section 4",
        "a formula",
        (),
        laws.translation,
    ),
    Claim(
        "GradICON",
        "the same weight works at two resolutions",
        "sections 5.2 to 5.4",
        "one weight for knees, lungs and brains",
        ("gradicon", "gradicon_finer"),
        every(
            *(within(study, "folds", "reference", most=0.05) for study in ("gradicon", "gradicon_finer")),
            *(within(study, "dice", "reference", least=0.85) for study in ("gradicon", "gradicon_finer")),
        ),
        "Nothing folds at either size; at the smaller one a seed of three is still slow after its 400 steps.",
    ),
)

_SITREG = (
    Claim(
        "SITReg",
        "exchanging the images exchanges the maps exactly",
        "section 3.2",
        "by construction",
        ("sitreg",),
        partial(laws.symmetry, "sitreg"),
    ),
    Claim(
        "SITReg",
        "forward and inverse map undo each other by construction",
        "Table 1",
        "cycle error 5.6e-3 voxel², VoxelMorph 0.45",
        ("sitreg", "voxelmorph"),
        every(
            within("sitreg", "inverse_error", "reference", most=0.05),
            within("voxelmorph", "exchange_error", "reference", least=0.1),
        ),
    ),
    Claim(
        "SITReg",
        "an inversion takes at most 7 fixed-point iterations",
        "appendix",
        "96 % need 3 to 5, none more than 7",
        ("sitreg",),
        partial(laws.evaluations, "sitreg"),
    ),
    Claim(
        "SITReg",
        "the deformation inversion layer keeps a fifth of the memory of a velocity field",
        "Table A5",
        "0.56 GB against 2.81 GB",
        (),
        laws.memory,
        "regkit's own squaring recomputes what it needs and keeps 8 fields.",
    ),
    Claim(
        "SITReg",
        "works without pre-alignment when the affine stage is on",
        "Table 1",
        "Dice 0.810, against 0.817 with pre-alignment",
        ("sitreg", "sitreg_unaligned"),
        every(
            within("sitreg_unaligned", "dice", "reference", least=0.7),
            within("sitreg", "dice", "reference", least=0.7),
        ),
    ),
    Claim(
        "SITReg",
        "its steps cannot fold, whatever the weights",
        "section 3.4",
        "by construction",
        (),
        laws.control_limit,
    ),
)

_SPNET = (
    Claim(
        "SPnet",
        "the average of bidirectional velocities cuts the inverse consistency error by an order of magnitude",
        "Table 4",
        "0.425 to 0.046 voxels",
        ("spnet",),
        rises("spnet", "exchange_error", "reference", "SS+BE", factor=10),
    ),
    *(
        Claim("SPnet", words, "Table 4", paper, ("spnet",), rises("spnet", "dice", without, "reference"))
        for words, paper, without in (
            ("feature warping raises Dice", "0.562 to 0.587", "w/o FW"),
            ("multi-scale image encoding raises Dice", "0.577 to 0.587", "w/o MIE"),
            ("symmetric registration raises Dice", "0.571 to 0.587", "w/o SR"),
            ("bidirectional estimation raises Dice, averaged", "0.570 to 0.587", "SS"),
        )
    ),
    Claim(
        "SPnet",
        "a velocity field cuts folds",
        "Table 4",
        "0.223 % to 0.002 %",
        ("spnet",),
        rises("spnet", "folds", "reference", "w/o SVF, weight 0.01"),
        "The paper does not say how much its inverse consistency term weighs without the velocity; with weight 1 "
        "nothing folds, but little moves either (w/o SVF).",
    ),
    Claim(
        "SPnet",
        "more levels raise Dice",
        "Table 4",
        "0.549, 0.573, 0.587 with 2, 3, 4",
        ("spnet",),
        rises("spnet", "dice", "2 levels", "3 levels", "reference"),
    ),
    Claim(
        "SPnet",
        "exchanging the images exchanges the maps exactly",
        "section 2",
        "by construction",
        ("spnet",),
        partial(laws.symmetry, "spnet"),
    ),
)

_SACBNET = (
    Claim(
        "SACB-Net",
        "the block raises Dice over the same pyramid without it",
        "Table 3",
        "LPBA 0.714 to 0.731",
        ("sacbnet",),
        rises("sacbnet", "dice", "no block", "reference"),
    ),
    Claim(
        "SACB-Net",
        "the block on more levels is better",
        "Table 3",
        "0.7141, 0.7217, 0.7241, 0.7294",
        ("sacbnet",),
        rises("sacbnet", "dice", "no block", "block on level 5", "blocks on levels 5, 4", "reference"),
        "A second block is no better than one, within the deviation; all four are best in every seed.",
    ),
    Claim(
        "SACB-Net",
        "about 7 clusters suffice",
        "Table 3",
        "0.7294, 0.7309, 0.7300 with 5, 7, 11",
        ("sacbnet",),
        not_less("sacbnet", "dice", "reference", "5 clusters", "11 clusters"),
    ),
    Claim(
        "SACB-Net",
        "clustering means over space is at least as good as over channels, or both",
        "Table 4",
        "0.7294, 0.7281, 0.7285",
        ("sacbnet",),
        not_less("sacbnet", "dice", "reference", "means over channels", "both means"),
    ),
    Claim(
        "SACB-Net",
        "a kernel for each cluster is better than one for all",
        "the idea; no row in the paper",
        "none",
        ("sacbnet",),
        rises("sacbnet", "dice", "1 cluster", "reference"),
        "The means agree, one seed does not: the difference is within the deviation over the seeds.",
    ),
)

_CLOSE = "A small effect: it is within the deviation over the seeds."

_SMGICNET = (
    Claim(
        "SM-GICNet",
        "registers without affine alignment where a single level fails",
        "Table 1, Figure 3b",
        "0.797 against 0.289 (ICNet)",
        ("smgicnet",),
        rises("smgicnet", "dice", "one level", "reference", factor=1.5),
    ),
    *(
        Claim(
            "SM-GICNet",
            words,
            "Figure 3b",
            "bars",
            ("smgicnet",),
            rises("smgicnet", "dice", without, "reference"),
            remark,
        )
        for words, without, remark in (
            ("attention gates raise Dice", "no attention", _CLOSE),
            ("symmetry raises Dice", "not symmetric", ""),
            ("gradient inverse consistency raises Dice", "no gradient inverse consistency", _CLOSE),
            ("more levels raise Dice", "two levels", ""),
        )
    ),
    Claim(
        "SM-GICNet",
        "gradient inverse consistency replaces the smoothness term without more folds",
        "section 3.3",
        "in words",
        ("smgicnet",),
        every(
            within("smgicnet", "folds", "reference", "no smoothness", most=0.01),
            not_less("smgicnet", "dice", "no smoothness", "no gradient inverse consistency"),
        ),
    ),
)

CLAIMS = (*_GRADICON, *_SITREG, *_SPNET, *_SACBNET, *_SMGICNET)
