"""Model files: what is saved comes back, and nothing else is taken for it."""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import pickle
import resource
import signal
import subprocess
import sys
import typing
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import regkit
from regkit import checkpoints, models
from regkit._core.files import read_tensors, write_atomically
from regkit.models import official
from regkit.models.layers import configured, conv
from regkit.types import Dim, InputError


@configured
class Tiny(nn.Module):
    """A model with all that a state dict can hold: weights, statistics, counters, a scalar."""

    def __init__(self, dim: Dim, *, widths: tuple[int, ...] = (4, 3), kind: Literal["mean", "last"] = "mean") -> None:
        super().__init__()
        self.first, self.last = conv(dim, 2, widths[0]), conv(dim, widths[0], widths[1])
        self.norm = (nn.BatchNorm2d if dim == 2 else nn.BatchNorm3d)(widths[0])
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, moving, fixed):
        return self.scale * self.last(self.norm(self.first(torch.cat([moving, fixed], 1))))


class Plain(nn.Module):
    pass


def trained(dim: Dim = 2, **options) -> tuple[Tiny, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(dim)
    model, images = Tiny(dim, **options), tuple(torch.rand(2, 3, 1, *(7, 5, 6)[:dim]))
    model(*images)  # moves the running statistics
    return model.eval(), images


# ---------------------------------------------------------------------------------------------- configured
def test_configured_models_remember_all_arguments_and_can_be_made_again():
    model = Tiny(3, kind="last")
    assert model.configuration == {"dim": 3, "widths": (4, 3), "kind": "last"}
    assert Tiny(**model.configuration).configuration == model.configuration


def test_configured_keeps_signature_and_type_hints():
    assert list(inspect.signature(Tiny).parameters) == ["dim", "widths", "kind"]
    assert typing.get_type_hints(Tiny.__init__)["kind"] == Literal["mean", "last"]
    with pytest.raises(TypeError, match="required argument: 'dim'"):
        Tiny()


def test_configured_refuses_nameless_arguments():
    with pytest.raises(TypeError, match="names each of its arguments"):

        @configured
        class Loose(nn.Module):
            def __init__(self, *widths: int) -> None:
                super().__init__()


# ---------------------------------------------------------------------------------------------- save and load
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_loaded_model_is_the_saved_one(tmp_path, dim, dtype):
    model, images = trained(dim, widths=(5, dim))
    model, images = model.to(dtype), [image.to(dtype) for image in images]
    checkpoints.save(model, tmp_path / "tiny.safetensors", metrics={"dice": 0.75})
    loaded = checkpoints.load(tmp_path / "tiny.safetensors", make=Tiny)
    assert not loaded.training and loaded.configuration == model.configuration
    assert torch.equal(loaded(*images), model(*images))
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype and torch.equal(loaded.state_dict()[name], value)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_model_of_the_library_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "Tiny", Tiny, raising=False)
    model, images = trained()
    checkpoints.save(model, tmp_path / "tiny.safetensors")
    assert torch.equal(checkpoints.load(str(tmp_path / "tiny.safetensors"))(*images), model(*images))


def test_a_file_describes_itself(tmp_path):
    model, _ = trained()
    checkpoints.save(model, tmp_path / "tiny.safetensors", metrics={"dice": 0.75})
    described = checkpoints.describe(tmp_path / "tiny.safetensors")
    assert described["model"] == "Tiny" and described["regkit"] == regkit.__version__
    assert described["arguments"] == model.configuration and described["metrics"] == {"dice": 0.75}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("similarity", lambda model: setattr(model, "similarity", "ncc")),
        ("weight", lambda model: setattr(model, "weight", 0.5)),
        ("objective", lambda model: setattr(model, "objective", lambda *_: {"mine": torch.zeros(())})),
        ("module", lambda model: model.networks[0].add_module("head", nn.Conv2d(6, 2, 3, padding=1))),
    ],
)
def test_a_change_that_loading_would_lose_is_refused(tmp_path, name, change):
    made = {"encoder_channels": (4, 4), "decoder_channels": (4, 4), "levels": (0,)}
    model = copy.deepcopy(models.GradICON(2, **made)).train().requires_grad_(False)
    model.note = "no part of what it computes"
    checkpoints.save(model, tmp_path / "whole.safetensors")
    change(model)
    with pytest.raises(ValueError, match=f"GradICON with another {name}"):
        checkpoints.save(model, tmp_path / "changed.safetensors")
    assert not (tmp_path / "changed.safetensors").exists()


def test_saving_needs_a_configured_model_itself(tmp_path):
    for model in (Plain(), nn.Sequential(Tiny(2))):
        with pytest.raises(TypeError, match="put @configured"):
            checkpoints.save(model, tmp_path / "plain.safetensors")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- damaged and foreign
@pytest.fixture
def good(tmp_path) -> Path:
    checkpoints.save(trained()[0], tmp_path / "good.safetensors")
    return tmp_path / "good.safetensors"


def rewritten(path: Path, **changes: str) -> Path:
    """The same weights with other metadata, as version 0.1.0 wrote them: without a checksum."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **changes}
    metadata.pop("metadata_sha256", None)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata)
    return path


@pytest.mark.parametrize("part", [0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(good, part):
    content = good.read_bytes()
    good.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match="must be whole safetensors"):
        checkpoints.load(good, make=Tiny)


def test_one_changed_bit_in_the_weights_is_noticed(good):
    content = bytearray(good.read_bytes())
    content[-5] ^= 1
    good.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="checksum"):
        checkpoints.load(good, make=Tiny)


def test_the_same_weights_are_the_same_bytes_and_keep_what_was_reached(good):
    content = good.read_bytes()
    for _ in range(5):  # safetensors orders five texts otherwise each time
        checkpoints.save(trained()[0], good)
        assert good.read_bytes() == content
    checkpoints.restate(good, {"dice": 0.5})
    assert checkpoints.describe(good)["metrics"] == {"dice": 0.5}
    checkpoints.load(good, make=Tiny)
    checkpoints.restate(good, {})
    assert good.read_bytes() == content


def test_one_changed_letter_in_the_metadata_is_noticed(good):
    good.write_bytes(good.read_bytes().replace(b'\\"dim\\": 2', b'\\"dim\\": 3'))
    with pytest.raises(InputError, match="metadata must have the checksum"):
        checkpoints.describe(good)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("arguments", "[1]"),
        ("arguments", "null"),
        ("arguments", '{"dim": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        ("arguments", '{"dim": ' + "[" * 990 + "]" * 990 + "}"),
        ("arguments", '{"dim": 2, "widths": [100000, 100000]}'),
        ("arguments", '{"dim": "x"}'),
        ("metrics", "[1]"),
        ("metrics", '{"spacing": "a"}'),
        ("metrics", '{"spacing": -1}'),
        ("format", "²"),
        ("model", "__builtins__"),
    ],
)
def test_metadata_of_another_form_are_told(good, name, text):
    make = None if name == "model" else Tiny
    with pytest.raises(InputError, match=r"received .*good\.safetensors"):
        checkpoints.load(rewritten(good, **{name: text}), make=make)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "1", "model": "Tiny"}])
def test_foreign_safetensors_are_refused(tmp_path, metadata):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "foreign", metadata)
    with pytest.raises(ValueError, match="must name its model"):
        checkpoints.load(tmp_path / "foreign")


def test_torch_files_text_and_nothing_are_refused(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "torch")
    (tmp_path / "text").write_text("weights")
    for name in ("torch", "text"):
        with pytest.raises(ValueError, match="load_official"):
            checkpoints.load(tmp_path / name)
    for absent in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="check the path"):
            checkpoints.load(absent)


def test_files_of_a_newer_regkit_ask_for_an_update(good):
    with pytest.raises(ValueError, match=r"up to format 1, received .* of format 2, written by regkit 9\.1; update"):
        checkpoints.load(rewritten(good, format="2", regkit="9.1"), make=Tiny)


def test_files_of_another_model_are_refused(good):
    with pytest.raises(ValueError, match=r"give its class as `make`"):
        checkpoints.load(good)
    with pytest.raises(ValueError, match=r"received .* of a Tiny for Plain"):
        checkpoints.load(good, make=Plain)
    with pytest.raises(ValueError, match="unexpected keyword"):
        checkpoints.load(rewritten(good, arguments=json.dumps({"dim": 2, "depth": 3})), make=Tiny)


def test_weights_of_another_architecture_are_refused_by_name(good):
    with pytest.raises(ValueError, match=r"first.weight: \(6, 2, 3, 3\) and \(4, 2, 3, 3\)"):
        checkpoints.load(rewritten(good, arguments=json.dumps({"dim": 2, "widths": (6, 3)})), make=Tiny)


# ---------------------------------------------------------------------------------------------- atomic writes
def test_a_full_disk_leaves_the_old_file(good):
    before = good.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
        with pytest.raises(OSError):
            checkpoints.save(trained(3)[0], good)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert good.read_bytes() == before and list(good.parent.iterdir()) == [good]


def test_a_process_killed_while_it_writes_leaves_the_old_file(good):
    before = good.read_bytes()
    program = """
import os, signal, sys
from regkit.files import write_atomically
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(sys.argv[1], bytes(100))
"""
    ended = subprocess.run([sys.executable, "-c", program, str(good)], timeout=600)
    assert ended.returncode == -signal.SIGKILL and good.read_bytes() == before
    write_atomically(good, b"new")
    assert good.read_bytes() == b"new"


def test_who_reads_the_old_file_reads_all_of_it(good):
    before = good.read_bytes()
    with good.open("rb") as reader:
        write_atomically(good, b"new")
        assert reader.read() == before and good.read_bytes() == b"new"


def test_files_are_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_bytes(b"1")
    write_atomically(tmp_path / "ours", b"1")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ---------------------------------------------------------------------------------------------- the authors' weights
NAMES = {"a.weight": "first.weight", "a.bias": "first.bias", "b.weight": "last.weight", "b.bias": "last.bias"}
NAMES |= {
    f"n.{part}": f"norm.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}
NAMES |= {"s": "scale"}


def published(model: Tiny) -> dict[str, torch.Tensor]:
    theirs = {ours: name for name, ours in NAMES.items()}
    return {theirs[name]: value for name, value in model.state_dict().items()} | {"warp.0.grid": torch.ones(3)}


@pytest.fixture
def method(monkeypatch) -> str:
    monkeypatch.setattr(models, "Tiny", Tiny, raising=False)
    importer = (Tiny, lambda state, model: official.rename(state, NAMES, skip=["*.grid"]), {})
    monkeypatch.setitem(official._OFFICIAL, "tiny", importer)
    return "tiny"


def test_rename_uses_every_name_once():
    state = {"a": torch.ones(1), "b": torch.zeros(1), "c.grid": torch.zeros(1)}
    assert list(checkpoints.rename(state, {"a": "x", "b": "y"}, skip=["*.grid"])) == ["x", "y"]
    with pytest.raises(ValueError, match=r"the table's \[d\] and the weights' \[b, c.grid\]"):
        checkpoints.rename(state, {"a": "x", "d": "y"})
    with pytest.raises(ValueError, match=r"received \['x'\] more than once"):
        checkpoints.rename(state, {"a": "x", "b": "x"}, skip=["c.*"])


@pytest.mark.parametrize("nested", [False, True])
def test_official_weights_come_from_a_file_or_a_dict(tmp_path, method, nested):
    model, images = trained(3)
    state = {"state_dict": published(model), "epoch": 3} if nested else published(model)
    torch.save(state, tmp_path / "theirs.pth")
    for weights in (state, tmp_path / "theirs.pth", str(tmp_path / "theirs.pth")):
        loaded = checkpoints.load_official(method, weights, dim=3)
        assert not loaded.training and torch.equal(loaded(*images), model(*images))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_weights_beside_numbers_of_numpy_are_read(tmp_path, method, prefix):
    model, images = trained(3)
    state = {f"{prefix}{name}": value for name, value in published(model).items()}  # as DataParallel names them
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": state, "best": np.float64(0.7), "lr": [np.float32(1)], "curve": np.arange(3)}, path)
    content = read_tensors(path)
    assert content["best"] == 0.7 and content["curve"].tolist() == [0, 1, 2]
    assert torch.equal(checkpoints.load_official(method, path, dim=3)(*images), model(*images))
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(ValueError, match=r"also holds argparse\.Namespace; save its state_dict alone"):
        read_tensors(path)


def test_official_weights_of_another_network_are_refused(method):
    state = published(trained(3)[0])
    with pytest.raises(ValueError, match=r"first.weight: \(4, 2, 3, 3\) and \(4, 2, 3, 3, 3\)"):
        checkpoints.load_official(method, state, dim=2)
    del state["s"]
    with pytest.raises(ValueError, match=r"the table's \[s\] and the weights' \[\]"):
        checkpoints.load_official(method, state, dim=3)
    with pytest.raises(ValueError, match="method must be one of"):
        checkpoints.load_official("unknown", state)


class Trap:
    """What a file would run if it were unpickled."""

    def __reduce__(self):
        return Path.touch, (self.path,)

    def __init__(self, path: Path) -> None:
        self.path = path


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_nothing_is_ever_unpickled(tmp_path, method, write):
    write({"a": Trap(tmp_path / "sprung")}, tmp_path / "trap")
    for read in (read_tensors, checkpoints.load, lambda path: checkpoints.load_official(method, path, dim=2)):
        with pytest.raises(ValueError, match=r"must be|must hold tensors and plain values alone"):
            read(tmp_path / "trap")
    assert not (tmp_path / "sprung").exists()
