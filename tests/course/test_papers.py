"""The numbers of the papers: each has its place, and every tutorial that shows some takes them from the one table."""

import re

import pytest
from helpers.tutorials import SOURCES

from regkit.course import studies
from regkit.course.papers import PRINTED, READINGS, further_reading


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


@pytest.mark.parametrize("name", ["08_spnet", "10_sacbnet", "11_smgicnet"])
def test_what_a_tutorial_says_of_its_paper_stands_in_the_table(name):
    """Each number such as .570 beside the paper's name is printed, or the difference of two of one column."""
    columns = list(zip(*PRINTED[name[3:]].rows.values(), strict=True))
    known = {round(abs(a - b), 4) for column in columns for a in (0, *column) for b in column}
    source = next(path for path in SOURCES if path.stem == name).read_text()
    paragraphs = [part for cell in source.split("# %%") for part in re.split(r"\n#\n|\n# \* ", cell) if "paper" in part]
    said = [float(number) for part in paragraphs for number in re.findall(r"(?<![\d\w])\.\d{3,4}\b", part)]
    assert said and set(said) <= known


def test_every_tutorial_ends_with_three_readings_of_its_own():
    assert list(READINGS) == [source.name[:2] for source in SOURCES]
    for number, readings in READINGS.items():
        assert len(readings) == len(set(readings.values())) == 3
        assert all(re.fullmatch(r"10\.\d{4,5}/\S+|arXiv:\d{4}\.\d{5}", place) for place in readings.values())
        text = further_reading(number)
        links = re.findall(r"^\* \[.+\]\((https://doi\.org/[^()\s]+)\)$", text, re.MULTILINE)
        assert text.startswith("## Further reading") and len(links) == 3
    assert further_reading("99") == ""
