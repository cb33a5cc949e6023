"""Names of modules from before they had rooms: programs that were written with them go on."""

import importlib
import subprocess
import sys

import pytest

import regkit
from regkit._core.moved import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_found_under_its_other_name(name):
    module = importlib.import_module(f"regkit.{name}")
    assert module is importlib.import_module(f"regkit.{NAMES[name]}")
    assert module.__name__ == module.__spec__.name == f"regkit.{NAMES[name]}"  # the module itself, not a copy


def test_all_ways_of_importing_work_in_a_fresh_process():
    program = (
        "from regkit import check, scans; from regkit.check.exercise import Verdict; from regkit.views import drawing; "
        "from regkit.views.drawing import png; import regkit.intake; assert regkit.intake.examine and drawing.png"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_not_there_is_told_as_python_tells_it():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = regkit.nothing
    with pytest.raises(ModuleNotFoundError, match=r"regkit\.nothing"):
        importlib.import_module("regkit.nothing")
