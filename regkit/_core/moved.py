"""Other names of modules: `import regkit.check` is `import regkit.course.check`, and programs of version 0.1.0 go on.

Two names are for good, `regkit.brains` and `regkit.check`; the others are the places where modules lay before.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

NAMES = {
    "brains": "data.brains",
    "check": "course.check",
    # before version 0.2
    "algebra": "_core.grid",
    "alignment": "tools.register",
    "anatomy": "data.anatomy",
    "appearance": "data.brains",
    "benchmarks": "data.benchmarks",
    "check.refereeing": "course.check.t13_trust_but_verify",
    "claims": "course.claims",
    "clusters": "models.sacbnet",
    "comparisons": "tools.compare",
    "files": "_core.files",
    "folders": "images.folders",
    "grids": "fields",
    "intake": "tools.examine",
    "inversion": "_core.inversion",
    "itk": "images.itk",
    "laws": "course.claims",
    "layers": "models.layers",
    "leaderboard": "tools.leaderboard",
    "ledger": "course.claims",
    "measuring": "tools.methods",
    "methods": "tools.methods",
    "models.smgicnet_networks": "models.smgicnet.networks",
    "models.smgicnet_released": "models.smgicnet.released",
    "official": "models.official",
    "pages": "course.pages",
    "patients": "course.patients",
    "penalties": "losses",
    "protocols": "tools.tables",
    "refine": "optimise",
    "regularity": "metrics",
    "reports": "tools.report",
    "resuming": "training",
    "runs": "training",
    "sampler": "_core.sampler",
    "scan_comparisons": "tools.compare",
    "scan_pairs": "tools.register",
    "scans": "images",
    "splines": "models.sitreg",
    "studies": "course.studies",
    "symmetry": "models.sitreg",
    "symptoms": "tools.examine",
    "syn": "tools.methods",
    "tables": "tools.tables",
    "tissues": "tools.compare",
    "variants": "course.studies",
    "vessels": "data.vessels",
    "views.ablations": "course.lessons.architecture",
    "views.cells": "course.lessons.t10_sacbnet",
    "views.claims_board": "course.lessons.t13_trust_but_verify",
    "views.clustering": "course.lessons.t10_sacbnet",
    "views.columns": "course.lessons.t13_trust_but_verify",
    "views.compositions": "course.lessons.t05_diffeomorphisms",
    "views.controls": "widgets.scene",
    "views.dots": "course.lessons.t13_trust_but_verify",
    "views.drawing": "figures.pixels",
    "views.growing": "course.lessons.t11_smgicnet",
    "views.intake_doctor": "course.lessons.t14_your_own_brain",
    "views.iterations": "course.lessons.t09_sitreg",
    "views.landscape_view": "course.lessons.t03_similarity_landscapes",
    "views.landscapes": "course.lessons.t03_similarity_landscapes",
    "views.matching": "course.lessons.t10_sacbnet",
    "views.meetings": "course.lessons.t09_sitreg",
    "views.panels": "widgets.panels",
    "views.pictures": "figures.paint",
    "views.places": "course.lessons.t01_where_is_a_pixel",
    "views.pulling": "course.lessons.t02_warping_pulls",
    "views.quantities": "widgets.panels",
    "views.races": "course.lessons.t06_learning_to_register",
    "views.returns": "course.lessons.t08_spnet",
    "views.ripples": "course.lessons.t07_gradicon",
    "views.roundtrips": "course.lessons.t07_gradicon",
    "views.scales": "course.lessons.t07_gradicon",
    "views.scenes": "widgets.volumes",
    "views.scoreboard": "course.lessons.t13_trust_but_verify",
    "views.sliced": "widgets.volumes",
    "views.slices": "widgets.slices",
    "views.stages": "widgets.slices",
    "views.static": "widgets.static",
    "views.sweeps": "course.lessons.sweeps",
    "views.timelapse": "course.lessons.timelapse",
    "views.volumes": "figures.planes",
    "views.wavelets": "course.lessons.t11_smgicnet",
    "views.witnesses": "course.lessons.t08_spnet",
    "volume_change": "_core.jacobian",
    "windows": "_core.windows",
}


class _Alias(MetaPathFinder, Loader):
    """Finds a module under its other name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A specification for other names of regkit's modules, None for all else."""
        package, _, name = fullname.partition(".")
        if package != "regkit" or not (name == "views" or _place(name)):
            return None
        return ModuleSpec(fullname, self, is_package=name == "views")  # a folder that is gone: its modules went apart

    def create_module(self, spec: ModuleSpec) -> None:
        """Nothing new is made."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module itself where Python looks for the name."""
        _, _, name = module.__name__.partition(".")
        if name != "views":
            sys.modules[module.__name__] = importlib.import_module(f"regkit.{_place(name)}")


def _place(name: str) -> str | None:
    """Where a module with another name lies, such as `check` or `check.exercise`."""
    first, _, rest = name.partition(".")
    if name in NAMES:
        return NAMES[name]
    return f"{NAMES[first]}.{rest}" if rest and first in NAMES else None


def install() -> None:
    """Let Python find the other names, before it takes the empty folder of an older clone for one of them."""
    if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Alias())
