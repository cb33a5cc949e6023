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

_BEFORE = {  # version 0.2, by room: what a module was called, and its name now where that is another
    "": """
        grids=fields penalties=losses refine=optimise regularity=metrics resuming=training runs=training scans=images
    """,
    "_core": "algebra=grid files inversion sampler volume_change=jacobian windows",
    "course": "claims laws=claims ledger=claims pages patients studies variants=studies",
    "course.check": "check.refereeing=t13_trust_but_verify",
    "course.lessons": """
        views.ablations=architecture views.cells=t10_sacbnet views.claims_board=t13_trust_but_verify
        views.clustering=t10_sacbnet views.columns=t13_trust_but_verify views.compositions=t05_diffeomorphisms
        views.dots=t13_trust_but_verify views.growing=t11_smgicnet views.intake_doctor=t14_your_own_brain
        views.iterations=t09_sitreg views.landscape_view=t03_similarity_landscapes
        views.landscapes=t03_similarity_landscapes views.matching=t10_sacbnet views.meetings=t09_sitreg
        views.places=t01_where_is_a_pixel views.pulling=t02_warping_pulls views.races=t06_learning_to_register
        views.returns=t08_spnet views.ripples=t07_gradicon views.roundtrips=t07_gradicon
        views.scales=t07_gradicon views.scoreboard=t13_trust_but_verify views.sweeps views.timelapse
        views.wavelets=t11_smgicnet views.witnesses=t08_spnet
    """,
    "data": "anatomy appearance=brains benchmarks vessels",
    "figures": "views.drawing=pixels views.pictures=paint views.volumes=planes",
    "images": "folders itk",
    "models": "clusters=sacbnet layers official splines=sitreg symmetry=sitreg",
    "models.smgicnet": "models.smgicnet_networks=networks models.smgicnet_released=released",
    "tools": """
        alignment=register comparisons=compare intake=examine leaderboard measuring=methods methods protocols=tables
        reports=report scan_comparisons=compare scan_pairs=register symptoms=examine syn=methods tables
        tissues=compare
    """,
    "widgets": """
        views.controls=scene views.panels views.quantities=panels views.scenes=volumes views.sliced=volumes
        views.slices views.stages=slices views.static
    """,
}

NAMES = {"brains": "data.brains", "check": "course.check"}
for _room, _words in _BEFORE.items():
    for _old, _, _new in (word.partition("=") for word in _words.split()):
        NAMES[_old] = f"{_room}.{_new or _old.rpartition('.')[2]}".lstrip(".")


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
