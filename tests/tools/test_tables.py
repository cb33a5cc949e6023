"""The papers' tables: their structures, their sums, and what a registration that changes nothing must give."""

import json
from statistics import fmean

import numpy as np
import pytest
import torch
from helpers.local_server import serving
from helpers.raw_datasets import MAKERS, served, slabs

from data_scripts.common.command import main
from regkit import metrics
from regkit.__main__ import main as regkit_main
from regkit.fields import warp_labels
from regkit.tools import tables
from regkit.types import Pair, Registration

SHAPE = (9, 10, 11)


def still(shape=SHAPE):
    field = torch.zeros(1, len(shape), *shape)
    return Registration(field, field)


def pair_of(numbers, *, shift=0):
    labels = torch.from_numpy(slabs(SHAPE, numbers)).long()[None, None]
    image = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Pair(image, image.roll(shift, 4), labels, labels.roll(shift, 4), spacing=(1.0, 2.0, 1.5))


def test_structures_are_those_of_the_papers():
    assert [len(labels) for labels in tables.REGIONS.values()] == [14, 10, 8, 14, 4]
    average = tables.PROTOCOLS["spnet/mindboggle"].columns[5]
    assert average.name == "average" and len(set(average.labels)) == 50
    assert (len(tables.IXI), len(tables.LPBA40), len(tables.CANDI)) == (30, 54, 28)
    assert len(tables.PROTOCOLS["sitreg/lpba40"].columns[0].labels) == 56


def test_the_average_of_the_papers_row_is_that_of_its_structures():
    """Not of its five groups: only so do the printed numbers fit."""
    rules = tables.PROTOCOLS["spnet/mindboggle"]
    printed = {name: float(text.split("(")[0]) for name, text in rules.published.items()}
    weights = {column.name: len(column.labels) for column in rules.columns[:5]}
    weighted = sum(printed[name] * weight for name, weight in weights.items()) / sum(weights.values())
    assert round(weighted, 3) == printed["average"] != round(fmean(printed[name] for name in weights), 3)
    knee = {name: float(text.split("(")[0]) for name, text in tables.PROTOCOLS["spnet/oai"].published.items()}
    assert fmean([knee["bone"], knee["cartilage"]]) == pytest.approx(knee["average"], abs=1e-3)


@pytest.mark.parametrize("name", tables.PROTOCOLS)
def test_nothing_to_do_is_done_perfectly(name):
    rules = tables.protocol(name)
    used = sorted({label for column in rules.columns for label in column.labels} or {1, 2, 3})
    points = torch.rand(1, 5, 3) * 8
    found = tables.measure(rules, still(), pair_of(used), back=still(), landmarks=(points, points))
    perfect = {"dice": 1.0}
    for column in rules.columns:
        assert len(found[column.name]) > 0, column
        assert np.allclose(found[column.name], perfect.get(column.measure, 0.0) * column.scale, atol=1e-4), column
    assert set(tables.summarise(rules, [found, found])) == {column.name for column in rules.columns}


def test_numbers_are_those_of_the_metrics():
    pair = pair_of(range(1, 36), shift=1)
    field = 0.6 * torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = tables.measure(
        tables.PROTOCOLS["sitreg/oasis"], Registration(field, -field), pair, back=Registration(-0.5 * field)
    )
    warped = warp_labels(pair.moving_labels, field)
    assert found["Dice"] == tuple(metrics.dice(warped, pair.fixed_labels, labels=range(1, 36)).values())
    distances = metrics.hd95(warped, pair.fixed_labels, spacing=pair.spacing, labels=range(1, 36))
    assert sorted(found["HD95"]) == sorted(distances.values())
    assert found["folds"] == (metrics.folds(field, definition="averaged").count,)
    assert found["inverse"] == (metrics.inverse_consistency(field, -field, norm="squared"),)
    assert found["cycle"] == (metrics.inverse_consistency(field, -0.5 * field, norm="squared"),)
    assert found["std |J|"] == (metrics.jacobian_statistics(field, definition="averaged").std,)


def test_cartilage_is_one_structure_warped_linearly():
    pair = pair_of([1, 2, 5])
    field = torch.zeros(1, 3, *SHAPE)
    field[:, 2] = 0.4
    found = tables.measure(tables.PROTOCOLS["gradicon/oai"], Registration(field), pair)["DICE"]
    mask = (pair.moving_labels == 1) | (pair.moving_labels == 2)
    mixed = 0.6 * mask.double() + 0.4 * torch.cat([mask[..., 1:], mask[..., -1:]], 4).double() > 0.5
    expected = 2 * (mixed & mask).sum() / (mixed.sum() + mask.sum())
    assert found == pytest.approx((100 * float(expected),))


def test_what_cannot_be_measured_is_left_out():
    image = torch.rand(1, 1, *SHAPE)
    found = tables.measure(
        tables.PROTOCOLS["sitreg/oasis"], Registration(torch.zeros(1, 3, *SHAPE)), Pair(image, image)
    )
    assert found["Dice"] == found["HD95"] == found["cycle"] == found["inverse"] == () and found["folds"] == (0.0,)
    assert tables.measure(tables.PROTOCOLS["gradicon/copdgene"], still(), Pair(image, image))["mTRE"] == ()
    row = tables.summarise(tables.PROTOCOLS["sitreg/oasis"], [found])
    assert str(row["Dice"]) == "-" and row["Dice"].pairs == 0 and str(row["folds"]) == "0(0)"


def test_the_spread_is_that_of_pairs_or_of_structures():
    random = np.random.RandomState(0).rand(6, 4)
    measurements = [{"Dice": tuple(values)} for values in random.tolist()]
    rules = tables.Protocol("", (tables.Column("Dice", "dice"),))
    assert tables.summarise(rules, measurements)["Dice"].std == pytest.approx(random.mean(1).std())
    rules = tables.Protocol("", (tables.Column("Dice", "dice"),), spread="structures")
    cell = tables.summarise(rules, measurements)["Dice"]
    assert (cell.mean, cell.std, cell.pairs) == (pytest.approx(random.mean()), pytest.approx(random.std()), 6)
    with pytest.raises(ValueError, match="made of pairs, received none"):
        tables.summarise(rules, [])
    infinite = tables.summarise(rules, [{"Dice": (np.inf,)}, {"Dice": (1.0,)}])["Dice"]
    assert infinite.mean == np.inf and np.isnan(infinite.std)


def test_a_table_stands_above_the_papers():
    rules = tables.PROTOCOLS["sacbnet/abdomen"]
    found = tables.measure(rules, still(), pair_of(range(1, 14)))
    lines = tables.table(rules, {"still": [found, found]}).splitlines()
    assert lines[0] == r"| | Dice | HD95 | ASSD | \|J\|<0 % |" and "| still, 2 pairs | 1(0) | 0(0) |" in lines[2]
    assert "SACB-Net, Table 2 | .588(.049)" in lines[3] and "mm" in lines[-1]
    assert str(tables.Cell(0.81725, 0.0253, 5)) == "0.8173(0.025)"
    with pytest.raises(ValueError, match="protocol must be one of sitreg/oasis"):
        tables.protocol("sitreg/unknown")


def shifted(moving, fixed):
    field = torch.zeros(1, moving.dim() - 2, *moving.shape[2:])
    field[:, 0] = 1.0
    return Registration(field, -field)


def test_a_folder_is_measured_from_end_to_end(tmp_path):
    site = tmp_path / "site"
    made = MAKERS["oasis"](tmp_path / "raw", site)
    with serving(site) as server:
        assert main(served(made, site, server.address), [str(tmp_path / "oasis"), "--quiet"]) == 0
    assert tables.named_protocols(tmp_path / "oasis") == ["sitreg/oasis"]
    rules = tables.protocol("sitreg/oasis")
    (found,) = tables.follow(rules, shifted, tmp_path / "oasis", progress=False)
    assert len(found["Dice"]) == 35 and found["inverse"] == (0.0,) and found["cycle"][0] > 0.5
    assert len(tables.follow(rules, shifted, tmp_path / "oasis", split="train", limit=1, progress=False)) == 1
    facts = json.loads((tmp_path / "oasis/dataset.json").read_text())
    del facts["protocols"]
    (tmp_path / "oasis/dataset.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="that data_scripts prepared"):
        tables.named_protocols(tmp_path / "oasis")


def test_both_directions_of_the_lungs(tmp_path):
    made = MAKERS["copdgene"](tmp_path / "raw", tmp_path / "site")
    folder = tmp_path / "lungs"
    assert main(made, [str(folder), "--quiet", "--limit", "4", "--from", str(tmp_path / "raw")]) == 0
    rows = {
        name: tables.follow(tables.PROTOCOLS[name], shifted, folder, progress=False)
        for name in tables.named_protocols(folder)
    }
    there, back = rows["gradicon/copdgene"], rows["gradicon/copdgene-reverse"]
    assert len(there) == len(back) == 2 and all(len(found["mTRE"]) == 1 for found in there)
    moving, fixed = (tables.read_landmarks(folder, f"copd1_{phase}") for phase in ("exp", "insp"))
    step = torch.tensor([1.0, 0, 0])
    expected = ((fixed + step - moving) * 0.8).norm(dim=-1).mean().item()
    assert there[0]["mTRE"] == pytest.approx((expected,), abs=1e-3) and there[0]["mTRE"] != back[0]["mTRE"]
    (folder / "landmarks/copd1_exp.csv").write_text("x,y,z\nno,number,here\n")
    with pytest.raises(ValueError, match="rows of x, y, z in mm"):
        tables.read_landmarks(folder, "copd1_exp")


def test_evaluate_takes_the_papers_tables(tmp_path, capsys):
    made = MAKERS["copdgene"](tmp_path / "raw", tmp_path / "site")
    folder, out = tmp_path / "lungs", tmp_path / "tables"
    assert main(made, [str(folder), "--quiet", "--limit", "2", "--from", str(tmp_path / "raw")]) == 0
    assert regkit_main(["evaluate", str(folder), "--method", "none", "--protocol", "paper", "--out", str(out)]) == 0
    text = (out / "tables.md").read_text()
    assert text in capsys.readouterr().out
    assert text.count("| none, 1 pairs |") == 2 and "| GradICON, Tables 2 and 5 | 3.621 |" in text
    assert regkit_main(["evaluate", str(folder), "--method", "none", "--protocol", "gradicon/drive"]) == 0
    assert "| magnitude |" in capsys.readouterr().out
    assert regkit_main(["evaluate", str(folder), "--method", "none", "--protocol", "unknown"]) == 1
    assert "protocol must be one of sitreg/oasis" in capsys.readouterr().err
    (folder / "dataset.json").unlink()
    assert regkit_main(["evaluate", str(folder), "--method", "none", "--protocol", "paper"]) == 1
    assert "a paper's table is taken on a dataset that data_scripts prepared" in capsys.readouterr().err
