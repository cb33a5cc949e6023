"""Weights that the authors published, under the names of regkit: one table of names for each method.

To add a method, write a function `_method(state, model) -> state` that ends in `rename`, and enter it in `_OFFICIAL`.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regkit import models
from regkit._core.files import State, check_used_once, fill, read_tensors
from regkit.types import InputError, choose

Importer = Callable[[State, Any], State]


def rename(state: State, table: Mapping[str, str], *, skip: Sequence[str] = ()) -> dict[str, Tensor]:
    """The same tensors under other names, every name used exactly once.

    table: the authors' name for each of them, and regkit's. skip: patterns (`*.grid`) of entries that are no weights.

    Raises:
        ValueError: lists the table's names that the state lacks and the state's names that the table lacks, or the
            names that two entries would share.
    """
    kept = {name: value for name, value in state.items() if not any(fnmatchcase(name, pattern) for pattern in skip)}
    check_used_once(table.keys(), kept.keys(), ("the table's", "the weights'"))
    twice = sorted({name for name in table.values() if list(table.values()).count(name) > 1})
    if twice:
        raise InputError("a table must give each tensor a name of its own", f"{twice} more than once", "mend it")
    return {ours: kept[theirs] for theirs, ours in table.items()}


def load_official(method: str, weights: Path | str | State, **arguments: Any) -> Any:
    """A model with the weights that the authors published, on the CPU and in evaluation mode.

    method: its module in regkit.models ("gradicon"). weights: the authors' file, or its state dict.
    arguments: of the model's constructor, as the weights were trained with. Left out, "spnet" and "sacbnet" do what the
    authors' program does (geometry="released", as_released=True); the others refuse what does not fit.

    Raises:
        FileNotFoundError, ValueError: an unknown method, no such file, weights of another network (names them), or
            arguments with which the model computes something else than the program that the weights come from.
    """
    network, importer, needs = choose("method", method, _OFFICIAL)
    state: Mapping[str, Any] = read_tensors(weights) if isinstance(weights, (str, Path)) else weights
    state = state.get("state_dict", state)
    if all(name.startswith("module.") for name in state):  # of torch's DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    model = network(**{**needs, **arguments})
    fill(model, importer(state, model), str(weights) if isinstance(weights, (str, Path)) else "the weights")
    return model.eval()


def _spnet(state: State, model: Any) -> State:
    table: dict[str, str] = {}
    for level in range(model.configuration["levels"]):
        modules = {
            f"conv{level}a.0": f"encoder.stages.{level}.0.0",
            f"conv{level}b.0": f"encoder.stages.{level}.1.0",
            f"conv_img{level}.0": f"encoder.images.{level}.0",
            f"conv{level}_0.0": f"estimators.{level}.first.0",
            f"conv{level}_1.0": f"estimators.{level}.second.0",
            f"predict_flow{level}": f"estimators.{level}.head",
            f"upfeat{level}": f"estimators.{level}.hand",
        }
        table |= {f"{a}.{part}": f"{b}.{part}" for a, b in modules.items() for part in ("weight", "bias")}
    ours = model.state_dict()
    return rename(state, {theirs: name for theirs, name in table.items() if name in ours})


_SITREG = (  # pattern and replacement, one after another, from either generation of the authors' names
    (r"\.conv\.(weight|bias)$", r".\1"),
    ("_not_none_dense_extration_networks", "updates"),
    (r"_feature_extractor\.initial_projection", "features.project"),
    (r"_feature_extractor\.initial_convs?", "features.block"),
    (r"_feature_extractor\.downsampling_blocks", "features.down"),
    (r"\.downsampling\.", ".reduce."),
    (r"\.projection\.", ".project."),
    (r"(updates\.\d)\.convolutions\.(?=convolutions|normalizers)", r"\1.block."),
    (r"\.(double_conv|conv|_convolution_block)\.", ".block."),
    (r"\.convolutions\.(\d)", r".conv\1"),
    (r"\.(normalizer_modules|normalizers)\.(\d)", r".norm\2"),
    (r"_final_conv|final_convolution", "head"),
    ("_affine_extraction_network", "affine.layers"),
    (r"_linear_1|linears\.0", "linear0"),
    (r"_linear_2|linears\.1", "linear1"),
    (r"_?final_linear", "head"),
)


def _sitreg(state: State, model: Any) -> State:
    _check_sitreg_generation(" ".join(state), model)
    skip = ["*upsampling_kernels*", "*._indicator"]  # constants
    skip += ["*.linears.0.*"] * model.configuration["as_released"]  # a layer whose result their program discards
    table: dict[str, str] = {}
    for theirs in state:
        ours = theirs
        for pattern, replacement in _SITREG:
            ours = re.sub(pattern, replacement, ours)
        table |= {theirs: ours} if not any(fnmatchcase(theirs, part) for part in skip) else {}
    return rename(state, table, skip=skip)


def _check_sitreg_generation(names: str, model: Any) -> None:
    release = "normalizer_modules" not in names
    wanted: dict[str, Any] = {"normalization": "before" if release else "after"}
    if release or "upsampling_kernels" in names:
        paper = "_upsampler._upsampling_kernels" in names
        wanted |= {"spline": "prefiltered", "limit": "gamma"} if paper else {"spline": "plain", "limit": "bound"}
    if "_affine_extraction_network" in names:
        wanted |= {"affine": "halfway", "as_released": "linears.0" in names}
    _demand(wanted, model)


def _demand(wanted: Mapping[str, Any], model: Any) -> None:
    """Raise where the model would compute something else with these weights than the program they come from."""
    received = {name: model.configuration[name] for name in wanted}
    if received != wanted:
        raise InputError(f"these weights were trained with {wanted}", received, "pass what they need")


def _gradicon(state: State, model: Any) -> State:
    """Their networks are nested, each finer one around the coarser: P = 2 is `netPhi.net.net.` and `netPsi.net.`."""
    modules = {"encoder": "downConvs", "decoder": "upConvs", "norms": "batchNorms", "head": "lastConv"}
    levels = model.configuration["levels"]
    prefixes = ["net."]
    for coarse, fine in pairwise(levels):
        prefixes = ["netPhi." + "net." * (coarse - fine) + prefix for prefix in prefixes] + ["netPsi.net."]
    table = {}
    for ours in model.state_dict():
        _, level, module, rest = ours.split(".", 3)
        table[f"{prefixes[int(level)]}{modules[module]}.{rest}"] = ours
    inner = {name.removeprefix("regis_net."): value for name, value in state.items()}
    return rename(inner, table, skip=["*identity_map"])


def _voxelmorph(state: State, model: Any) -> State:
    """The PyTorch program of 2020 with its strided convolutions; later ones pool, and are other networks."""
    if any(name.endswith(".grid") for name in state):  # its samplers' grids, that of the integration among them
        integrated = any(name.startswith("integrate.") for name in state)
        _demand({"output": "velocity" if integrated else "displacement"}, model)
    modules = {
        "unet.encoder": "unet_model.downarm",
        "unet.decoder": "unet_model.uparm",
        "unet.tail": "unet_model.extras",
    }
    table = {}
    for ours in model.state_dict():
        *module, number, part = ours.split(".")
        known = ".".join(module) in modules
        table[f"{modules['.'.join(module)]}.{number}.main.{part}" if known else f"flow.{part}"] = ours
    return rename(state, table, skip=["*.grid"])


def _sacbnet(state: State, model: Any) -> State:
    if any(name.endswith("proj_in.conv.weight") and value[0, 0].numel() == 1 for name, value in state.items()):
        raise InputError(
            "the weights must be of SACB-Net as published",
            "those of its program's first release (proj_in.conv has one tap), whose kernels depend on the order of "
            "the clusters",
            "use the later weights",
        )
    modules = {f"encoder.conv0.{i}.conv": f"encoder.0.{i}.conv" for i in range(3)} | {"conv1_out.3.conv": "regress.2"}
    for i, level in itertools.product(range(2), range(1, 5)):
        modules[f"encoder.conv{level}.{i + 1}.conv"] = f"encoder.{level}.{i}.conv"
    for i, (theirs, ours) in itertools.product(range(2), (("conv1", "refine"), ("conv1_out", "regress"))):
        modules[f"{theirs}.{i + 1}.conv"] = f"{ours}.{i}.conv"
    blocks = {f"sacb_proj{level}": f"blocks.{level}" for level in model.configuration["blocks"] if level.isdigit()}
    for theirs, ours in blocks.items():
        modules[f"{theirs}.proj_in.conv"] = f"{ours}.project.conv"
        for i, (head, name) in itertools.product((0, 2, 4), (("get_kernel", "attention"), ("get_bias", "bias"))):
            modules[f"{theirs}.{head}.{i}"] = f"{ours}.{name}.{i}"
    table = {f"{a}.{part}": f"{b}.{part}" for a, b in modules.items() for part in ("weight", "bias")}
    return rename(state, table | {f"{a}.w": f"{b}.weight" for a, b in blocks.items()}, skip=["*.grid"])


_SMGICNET = {  # by level: regkit's name, and theirs; what is called resblock holds its layers in a list
    "model3.model2.model1.": {
        "entry.images": "imgInput1",
        "first": "resblock3.0",
        "trunk": "down_conv3 resblock5.0 up1",
    },
    "model3.model2.": {
        "entry.images": "imgInput2",
        "entry.energies": "imgInput1",
        "first": "resblock2.0",
        "trunk": "down_conv2 resblock3.0 down_conv3 resblock4.0 resblock5.0 up1 resblock6.0 up2",
    },
    "model3.": {
        "entry.images": "imgInput3_6",
        "entry.energies": "imgInput3_2",
        "entry.mix": "imgInput3_cat",
        "first": "resblock1.0",
        "trunk": "down_conv1 resblock2.0 down_conv2 resblock3.0 down_conv3 resblock4.0 resblock5.0 "
        "up1 resblock6.0 up2 resblock7.0 up3",
    },
    "": {
        "entry": "input_encoder_lvl1",
        "encoder.0": "resblock_group_lvl1",
        **{f"encoder.{i}": f"down_conv{i} resblock_group_lvl{i + 1}" for i in (1, 2, 3)},
        "decoder": "resblock_group_lvl5 resblock_group_lvl6",
        "up": "up",
        **{f"gates.{i}.of_skip": f"attention{i + 1}.W_g.0" for i in range(3)},
        **{f"gates.{i}.of_features": f"attention{i + 1}.W_x.0" for i in range(3)},
        **{f"gates.{i}.reduce": f"attention{i + 1}.psi.1" for i in range(3)},
    },
}

_SMGICNET_DEAD = (  # by level: the program makes these, and its forward pass never comes by
    *("model3.model2.model1.resblock4.*", "model3.model2.down_conv4.*", "model3.model2.resblock7.*"),
    *("model3.model2.up3.*", "model3.imgInput[12].*", "model3.down_conv4.*", "model3.resblock8.*", "model3.up4.*"),
    *("imgInput*", "resblock[0-9].*", "down_conv[04].*", "up[1-5].*", "skip.*", "input_encoder.*"),
)


def _smgicnet(state: State, model: Any) -> State:
    _demand({"variant": "released"}, model)  # the paper's has other networks
    modules: dict[str, str] = {}
    for level, (prefix, names) in enumerate(_SMGICNET.items()):
        for ours, theirs in (names | {"head": "output_lvl1", "skip": "skip"}).items():
            several = enumerate(theirs.split()) if " " in theirs else [("", theirs)]
            modules |= {f"networks.{level}.{ours}.{i}".rstrip("."): prefix + name for i, name in several}
    table = {}
    for ours in model.state_dict():
        module = next(name for name in modules if ours.startswith(f"{name}."))
        table[modules[module] + ours.removeprefix(module)] = ours
    skip = [*_SMGICNET_DEAD, *["attention*"] * (not model.configuration["attention"])]
    renamed, dim = rename(state, table, skip=skip), model.dim
    for name, weight in renamed.items():  # their components are in the reverse order of the axes
        if name.endswith("head.2.weight"):
            renamed[name] = weight.flip(0)
        elif weight.shape[1:2] == (2 * model.in_channels + dim,):  # images, then a field
            renamed[name] = torch.cat([weight[:, :-dim], weight[:, -dim:].flip(1)], 1)
    return renamed


_OFFICIAL: dict[str, tuple[Callable[..., Any], Importer, Mapping[str, Any]]] = {
    "sacbnet": (models.SACBNet, _sacbnet, {"as_released": True}),
    "smgicnet": (models.SMGICNet, _smgicnet, {}),
    "sitreg": (models.SITReg, _sitreg, {}),
    "gradicon": (models.GradICON, _gradicon, {}),
    "spnet": (models.SPNet, _spnet, {"geometry": "released"}),
    "voxelmorph": (models.VoxelMorph, _voxelmorph, {}),
}
