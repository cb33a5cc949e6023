"""Where words are shown: consoles without UTF-8, dark themes, devices that are not there."""

import importlib
import inspect
import os
import re
import subprocess
import sys

import pytest
from helpers.tutorials import ROOT

from regkit.__main__ import main
from regkit.course.check.exercise import Verdict
from regkit.tools.examine import examine

SHOWN = {
    "verdict": "from regkit.course.check.exercise import Verdict; print(Verdict('green', 'well → ±'))",
    "examination": "from regkit.tools.examine import examine; print(examine('no.nii'))",
    "first line": "from regkit import course; course.begin(seconds={'fast': 1, 'full': 2})",
    "table": "from regkit.__main__ import main; main(['evaluate', 'hollow', '--limit', '1', '--method', 'none'])",
}


PUBLIC = "types fields losses metrics training models checkpoints optimise data data.brains images figures widgets"


@pytest.mark.parametrize("name", PUBLIC.split())
def test_a_public_room_lists_its_names_and_those_that_the_texts_use(name):
    room = importlib.import_module(f"regkit.{name}")
    listed, last = set(room.__all__), name.rpartition(".")[2]
    assert all(hasattr(room, each) for each in listed) and len(listed) == len(room.__all__)
    text = "\n".join(path.read_text("utf-8") for path in (*ROOT.glob("*.md"), *ROOT.glob("tutorials/*.py")))
    used = {*re.findall(rf"(?<![\w./])(?:regkit\.)?{last}\.([a-zA-Z]\w*)", text)}
    for several, one in re.findall(rf"from regkit\.{re.escape(name)} import (?:\(([^)]*)\)|(.*))", text):
        used |= {*re.findall(r"\w+", several or one)}
    unlisted = {each for each in used - listed if hasattr(room, each)}
    assert {each for each in unlisted if not inspect.ismodule(getattr(room, each))} == set()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("name", SHOWN)
def test_a_console_without_the_signs_shows_the_words(name, encoding):
    surroundings = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", SHOWN[name]], env=surroundings, capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr.decode(errors="replace")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_in_colour_have_a_background_of_their_own(tmp_path):
    (tmp_path / "no.nii").write_text("no scan")
    pages = [Verdict(colour, "words")._repr_html_() for colour in ("green", "amber", "red")]
    for page in (*pages, examine(tmp_path / "no.nii")._repr_html_()):
        ((front, back),) = re.findall(r"(?<!-)color: (#\w{6}); background: (#\w{6})", page)
        assert (luminance(front) + 0.05) / (luminance(back) + 0.05) >= 4.5  # WCAG AA, in any theme


@pytest.mark.parametrize("device", ["xpu", "meta", "hpu"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device, capsys):
    with pytest.raises(SystemExit):
        main(["register", "a.nii", "b.nii", "--out", "out", "--device", device])
    assert "a device is auto, cpu, cuda or cuda:N" in capsys.readouterr().err
