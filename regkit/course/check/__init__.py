"""Checks of the course's exercises: `check.<exercise>(answer)` says amber (blank), green, or red with a hint.

A check never raises. It holds its reference and a catalogue of known mistakes, each of which must draw a hint of its
own; the tests hold it to that. One module for each tutorial.
"""

from __future__ import annotations

from regkit.course.check.exercise import Exercise, Verdict
from regkit.course.check.refereeing import protocol_cases
from regkit.course.check.t00_first_light import LANDMARKS, landmark_pair, landmarks
from regkit.course.check.t01_where_is_a_pixel import small_to_full
from regkit.course.check.t02_warping_pulls import (
    MARKED_POINT,
    brain_slice,
    carrying_pair,
    landmark_in_fixed,
    turn,
    turned,
)
from regkit.course.check.t03_similarity_landscapes import changed_disc, disc, mse_lies, shifted, slopes
from regkit.course.check.t04_optimise_a_field import beautiful_picture, hidden_folds
from regkit.course.check.t05_diffeomorphisms import squarings, swirl, wild_swirl
from regkit.course.check.t06_learning_to_register import breaking_shift, inverted_pairs, mended
from regkit.course.check.t07_gradicon import dearer_trip, gradicon_by_hand, icon_by_hand, there_and_back
from regkit.course.check.t08_spnet import bought
from regkit.course.check.t09_sitreg import failing_laws, one_law_less, safe_steps
from regkit.course.check.t10_sacbnet import one_cluster, plain_convolution
from regkit.course.check.t11_smgicnet import growing_gap, three_levels, way_back
from regkit.course.check.t12_into_3d_brains import faults, faulty_files, repaired, trusted_scan
from regkit.course.check.t13_trust_but_verify import fair_protocol, rigged, rigged_field
from regkit.course.check.t14_your_own_brain import exported, oblique_case

__all__ = [
    "LANDMARKS",
    "MARKED_POINT",
    "Exercise",
    "Verdict",
    "beautiful_picture",
    "bought",
    "brain_slice",
    "breaking_shift",
    "carrying_pair",
    "changed_disc",
    "dearer_trip",
    "disc",
    "exported",
    "failing_laws",
    "fair_protocol",
    "faults",
    "faulty_files",
    "gradicon_by_hand",
    "growing_gap",
    "hidden_folds",
    "icon_by_hand",
    "inverted_pairs",
    "landmark_in_fixed",
    "landmark_pair",
    "landmarks",
    "mended",
    "mse_lies",
    "oblique_case",
    "one_cluster",
    "one_law_less",
    "plain_convolution",
    "protocol_cases",
    "repaired",
    "rigged",
    "rigged_field",
    "safe_steps",
    "shifted",
    "slopes",
    "small_to_full",
    "squarings",
    "swirl",
    "there_and_back",
    "three_levels",
    "trusted_scan",
    "turn",
    "turned",
    "way_back",
    "wild_swirl",
]
