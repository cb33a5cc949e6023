"""Every dataset script from its files to a training step: fetch, interrupt, resume, verify, convert, load, evaluate."""

import json

import pytest
import torch
from helpers.local_server import serving
from helpers.raw_datasets import MAKERS, served

import regkit
from data_scripts.common import fetching
from data_scripts.common.command import main
from data_scripts.common.preparing import fetched
from regkit.__main__ import main as regkit_main
from regkit.images.folders import FolderPairs

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)


def run(dataset, *arguments):
    return main(dataset, [*map(str, arguments), "--quiet"])


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", MAKERS)
def test_from_the_files_to_a_training_step(name, tmp_path, capsys):
    raw, site, folder = tmp_path / "raw", tmp_path / "site", tmp_path / "out/prepared"
    site.mkdir()
    dataset = MAKERS[name](raw, site)
    (variant,) = dataset.variants.values()
    with serving(site) as server:
        dataset = served(dataset, site, server.address, checksums=name == "oasis")
        unattended = fetched(variant)
        given = [] if unattended else ["--from", site if any(site.iterdir()) else raw]
        if unattended:
            server.breaking = 2**15
            assert run(dataset, folder) == 1
            assert "goes on where it stopped" in capsys.readouterr().err
            assert not folder.exists()
            server.breaking = None
        assert run(dataset, folder, *given) == 0, capsys.readouterr().err
        if unattended:
            assert any(asked == "bytes=32768-" for _, asked in server.requests)
        asked = len(server.requests)
        assert run(dataset, folder, *given) == 0 and len(server.requests) == asked
        assert "nothing to do" in capsys.readouterr().out
    assert run(dataset, folder, "--check") == 0, capsys.readouterr().err
    assert everything_below(tmp_path / "out") == sorted(
        f"prepared/{path}" if not path.startswith("prepared") else path
        for path in [*everything_below(folder), *_downloads(tmp_path / "out")]
    )
    _check_tables(folder, variant)
    _use(folder)


def _downloads(place):
    return [f"prepared.downloads/{path}" for path in everything_below(place / "prepared.downloads")]


def _check_tables(folder, variant):
    splits = json.loads((folder / "splits.json").read_text())
    facts = json.loads((folder / "dataset.json").read_text())
    assert tuple(splits) == SPLITS and set(facts["checksums"]) == set(everything_below(folder)) - {"dataset.json"}
    assert facts["preprocessing"] == "; ".join(variant.preprocessing) and facts["licence"] and facts["source"]
    names = {path.name.removesuffix(".nii.gz") for path in (folder / "images").iterdir()}
    assert names == {each for entries in splits.values() for entry in entries for each in _names(entry)}
    assert names == {path.name.removesuffix(".nii.gz") for path in (folder / "labels").iterdir()}


def _names(entry):
    return [entry] if isinstance(entry, str) else entry


def _use(folder):
    """One training step, and an evaluation."""
    train, test = FolderPairs(folder, "train"), FolderPairs(folder, "test")
    pair = test[0]
    validation = json.loads((folder / "splits.json").read_text())["validation"]
    assert len(validation) == 1 or len(FolderPairs(folder, "validation")) >= 1
    assert pair.moving.min() >= 0 and pair.moving.max() <= 1 and pair.moving.std() > 0.01
    model = regkit.models.VoxelMorph(dim=pair.moving.dim() - 2, encoder_channels=(4, 4), decoder_channels=(4, 4, 4))
    before = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    history = regkit.train(model, train, regkit.training.Recipe(steps=1), progress=False)
    assert len(history) == 1 and not torch.equal(before, torch.cat([weight.flatten() for weight in model.parameters()]))
    with torch.no_grad():
        scores = regkit.metrics.evaluate(model(pair.moving, pair.fixed), pair)
    assert 0 <= scores["dice"] <= 1


def test_prepare_train_and_evaluate_by_commands(tmp_path, capsys):
    dataset = MAKERS["drive"](tmp_path / "raw", tmp_path / "site")
    folder, weights = tmp_path / "drive", tmp_path / "network.safetensors"
    assert run(dataset, folder, "--from", tmp_path / "raw") == 0
    network = ["--set", "encoder_channels=[4, 4]", "decoder_channels=[4, 4, 4]"]
    assert regkit_main(["train", "voxelmorph", str(folder), "--out", str(weights), "--steps", "1", *network]) == 0
    assert regkit_main(["evaluate", str(folder), "--weights", str(weights), "--protocol", "paper"]) == 0
    assert "| network, 3 pairs |" in capsys.readouterr().out
