"""The tutorials as a learner sees them: JupyterLab in headless Chromium, all cells run, a control moved."""

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the test extra is not installed")

import nbformat  # noqa: E402
from helpers import browser  # noqa: E402
from helpers.tutorials import ROOT, SOURCES  # noqa: E402
from nbformat.v4 import new_code_cell, new_notebook  # noqa: E402

from regkit import widgets  # noqa: E402
from regkit.data import synthetic_pair  # noqa: E402
from regkit.widgets.static import moving_html  # noqa: E402

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with browser.jupyterlab(ROOT / "tutorials", tmp_path_factory.mktemp("lab"), REGKIT_MODE="fast") as address:
        yield address


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_tutorial_runs_in_the_browser_and_its_widgets_answer(lab, source):
    errors = []
    with browser.page(errors) as page, browser.notebook(page, lab.format(f"{source.stem}.ipynb")):
        assert browser.cell_errors(page) == []
        pictures = page.locator(".jp-OutputArea img.widget-image")
        assert pictures.count() > 0
        for area in browser.widget_areas(page):
            browser.move_a_control(page, area)
        assert browser.cell_errors(page) == [] and errors == []


def test_a_notebook_opened_again_shows_its_last_pictures(tmp_path):
    source = "from regkit import data, widgets\npair = data.synthetic_pair()\nwidgets.compare(pair.moving, pair.fixed)"
    (tmp_path / "lab").mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    own = new_notebook(cells=[new_code_cell(source)], metadata=kernel)
    nbformat.write(own, tmp_path / "lab" / "mine.ipynb")
    last, live = ".regkit-last >> visible=true", "img.widget-image >> visible=true"
    with browser.jupyterlab(tmp_path / "lab", tmp_path) as address, browser.page([]) as page:
        with browser.notebook(page, address.format("mine.ipynb")):
            page.wait_for_selector(live)
            assert page.locator(last).count() == 0
            page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        page.goto(address.format("mine.ipynb"))
        page.wait_for_selector(last)
        assert page.locator(live).count() == 0 and "not found" not in page.inner_text(".jp-OutputArea")


def test_a_page_without_a_kernel_still_moves(tmp_path):
    pair = synthetic_pair(2, size=(21, 34))
    path = tmp_path / "page.html"
    path.write_text(
        f"<!doctype html><meta charset='utf-8'>{moving_html(widgets.compare(pair.moving, pair.fixed).scene)}"
    )
    errors = []
    with browser.page(errors) as page:
        page.goto(path.as_uri())
        picture, slider = page.locator(".regkit-static img"), page.locator("input[type=range] >> visible=true")
        before = picture.get_attribute("src")
        slider.focus()
        page.keyboard.press("ArrowRight")
        moved, value = picture.get_attribute("src"), slider.input_value()
        assert moved != before
        page.locator(".regkit-static select").select_option("difference")
        assert slider.count() == 0 and "minus fixed" in page.locator(".regkit-static .words").text_content()
        page.locator(".regkit-static select").select_option("curtain")
        assert slider.input_value() == value and picture.get_attribute("src") == moved  # nothing was reset
        page.locator(".regkit-static select").select_option("flicker")
        still = picture.get_attribute("src")
        page.locator("input[type=checkbox] >> visible=true").check()
        page.wait_for_function("still => document.querySelector('.regkit-static img').src != still", arg=still)
    assert errors == []
