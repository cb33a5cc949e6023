"""The course as HTML pages: run without the notebook's browser, read without a kernel and without the network."""

import json
import re
import subprocess
import sys

import pytest

from regkit.course import notebooks

TUTORIAL = """# %% [markdown]
# # A title
#
# **Goals.** To move an image.
#
# ## A section
#
# The map $\\\\varphi(x) = x + u(x)$ costs five dollars ($5), and
#
# $$\\\\frac{1}{N} \\\\sum_x |J| < 1$$
#
# ![a badge](https://example.org/badge.svg)
# %%
import torch
from tqdm.auto import tqdm
from regkit.data import ShapePairs
from regkit.models import VoxelMorph
from regkit.training import Recipe, train
from regkit.course.lessons.timelapse import TimeLapse
torch.set_num_threads(1)
pairs = ShapePairs(8, size=(21, 34))
model = VoxelMorph(2, encoder_channels=(4, 4), decoder_channels=(4, 4, 4))
watch = TimeLapse(model, pairs[0], every=2)
watch
# %%
history = train(model, pairs, Recipe(steps=6), callback=watch)
print("a < b & $c$")
# %%
from PIL import Image
Image.new("RGB", (9, 7))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    tutorials = tmp_path_factory.mktemp("course") / "tutorials"
    (tutorials / "glossary").mkdir(parents=True)
    (tutorials / "glossary" / "warp.png").write_bytes(b"\x89PNG")
    (tutorials / "README.md").write_text("# The course\n\n## Glossary\n\nwarp ![it pulls](glossary/warp.png)\n")
    (tutorials / "claims.md").write_text("# What the papers claim\n\n[back](00_first_light.ipynb)\n")
    (tutorials / "00_first_light.py").write_text(TUTORIAL.replace("\\\\", "\\"))
    (tutorials / "01_more.py").write_text("# %% [markdown]\n# # More\n")
    notebooks.build(tutorials)
    written = notebooks.publish(tutorials, tutorials.parent / "pages")
    names = ["00_first_light.html", "01_more.html", "claims.html", "glossary.html", "index.html"]
    assert [path.name for path in written] == names and (written[0].parent / "glossary" / "warp.png").is_file()
    api = written[0].parent / "api" / "regkit"
    return {path.stem: path.read_text(encoding="utf-8") for path in (*written, api / "fields.html", api / "types.html")}


@pytest.fixture(scope="module")
def page(site):
    return site["00_first_light"]


def test_pages_have_titles_contents_and_lead_to_one_another(site, page):
    titles = {name: re.search("<title>(.*?)</title>", text)[1] for name, text in site.items()}
    assert titles["00_first_light"] == "A title" and titles["claims"] == "What the papers claim"
    assert titles["glossary"] == "Glossary" and page.count('<a href="01_more.html">More</a> →') == 2
    assert '<a href="glossary.html">glossary</a>' in page and "find_spec" not in page
    assert '<a href="#A-section">A section</a>' in page and 'id="A-section"' in page
    assert "To move an image." in site["index"] and 'href="00_first_light.html">A title' in site["index"]
    assert 'href="00_first_light.html"' in site["claims"] and 'src="glossary/warp.png"' in site["glossary"]


def test_a_page_is_small_and_its_figures_are_webp(site, page):
    assert page.count('src="data:image/webp;base64,') == 1 and "data:image/png" not in page
    assert max(len(text.encode()) for text in site.values()) < 1_000_000


def test_formulas_are_mathml_and_dollars_elsewhere_stay(page):
    inline, block = re.findall(r"<math.*?</math>", page, re.DOTALL)
    assert "display" not in inline.replace('display="inline"', "") and 'display="block"' in block
    assert "<mfrac>" in block and "φ" in inline.replace("&#x003C6;", "φ") + inline.replace("&#x003D5;", "φ")
    assert "dollars ($5)" in page and "a &lt; b &amp; $c$" in page


def test_the_reference_has_what_the_docstrings_say_and_plain_annotations(site):
    words = re.sub(r"<[^>]*>|\s", "", site["fields"])
    assert "warp(image:Image,displacement:Displacement,*,mode:Literal" in words
    assert "Pullanimagethroughamap:result[x]=image[x+u(x)]." in words
    words = re.sub(r"<[^>]*>|\s", "", site["types"])
    assert "displacement:Optional[Displacement]=None" in words and "Optional[Annotated" not in words
    assert 'href="api/regkit.html"' in site["index"] and "_core.html" not in site["fields"]


@pytest.mark.parametrize("name", ["00_first_light", "fields"])
def test_nothing_is_fetched_from_the_network(site, name):
    assert not re.search(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?https?:""", site[name])
    assert not re.search(r"import\s[^;]*https?:", site[name]) and ("a badge" in site[name]) == name.startswith("0")


def test_a_picture_that_follows_a_training_has_the_frames_of_the_whole_training(page):
    (scene,) = re.findall(r"scene = (\{.*\});\n", page)
    found = json.loads(scene.replace("<\\/", "</"))
    (slider,) = found["controls"]
    assert slider["values"] == ["0", "1", "2", "3"] and slider["start"] == 3
    assert [words for _, words in found["frames"].values()][-1].startswith("warped")
    assert "after 6 steps" in found["frames"]["3"][1] and "after 0 steps" in found["frames"]["0"][1]


def test_the_course_opens_without_what_only_pages_need():
    block = "import sys; sys.modules.update(dict.fromkeys(['latex2mathml', 'mistune', 'nbconvert', 'nbclient']))"
    subprocess.run([sys.executable, "-c", f"{block}; from regkit.course import begin, check"], check=True)
