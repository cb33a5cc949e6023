"""The numbers of the papers: each has its place, and every tutorial that shows some takes them from the one table."""

import re

import pytest
from helpers.tutorials import SOURCES

from regkit.course import studies
from regkit.course.papers import PRINTED


@pytest.mark.parametrize("name", PRINTED)
def test_every_number_has_its_place(name):
    table = PRINTED[name]
    assert re.fullmatch(r"Table A?\d", table.place) and table.paper and table.data
    assert all(len(values) == len(table.columns) for values in table.rows.values())
    text = table.text()
    assert table.place in text and all(row in text for row in table.rows)
    with pytest.raises(ValueError, match="row must be one of"):
        table.value("another", table.columns[0])


def test_rows_that_regkit_trained_have_its_names():
    assert set(PRINTED["spnet"].rows) < set(studies.VARIANTS["spnet"])
    for name in ("gradicon", "sitreg_memory", "smgicnet"):
        assert "reference" in PRINTED[name].rows


@pytest.mark.parametrize("name", ["07_gradicon", "08_spnet", "09_sitreg", "10_sacbnet", "11_smgicnet"])
def test_every_method_shows_the_numbers_of_its_paper_and_its_whole_loss(name):
    """One cell with the loss: what the paper prints, with its place, what the program does, what regkit chose."""
    source = next(path for path in SOURCES if path.stem == name).read_text()
    assert f'papers.PRINTED["{name[3:]}"]' in source
    cell = next(cell for cell in source.split("# %%") if "## The loss, term by term" in cell)
    for words in ("**The paper**", "**The authors' program**", "**regkit**", "λ"):
        assert words in cell
    assert re.search(r"[Ee]quation|[Ss]ection", cell)
