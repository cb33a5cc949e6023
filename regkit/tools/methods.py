"""Methods by name: the networks with their weights, optimisation alone, ANTs' SyN, an affine map, and nothing at all.

A network needs weights: those that are shipped, regkit/weights/NAME_2d.safetensors or NAME_3d.safetensors, or a file of
`regkit.save`. Where the file's metrics name a "spacing" (mm), the network was trained on voxels of that size,
and scans are brought to it first.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from regkit import checkpoints, models, types
from regkit._core.files import PACKAGE
from regkit._core.windows import gaussian_blur
from regkit.fields import affine_displacement, compose, resize, warp
from regkit.losses import ncc
from regkit.optimise import inverse_of, invert_affine, optimise_affine, refine_field, refine_weights
from regkit.types import Displacement, Image, InputError, Registration

NETWORKS = {name.lower(): name for name in models.__all__}  # "sitreg": "SITReg"
METHODS = (*NETWORKS, "optimise", "syn", "affine", "none")
_LONGEST = 80  # voxels along the longest axis that an affine map is found on
WEIGHTS = PACKAGE / "weights"
_MEGABYTE = 2**20


@dataclass(frozen=True)
class Method:
    """How to register: call it with moving and fixed, (1, 1, *space) in [0, 1].

    name: as on the command line. run: the registration. model: the network, or None. spacing: of the voxels that the
    network was trained on, mm, where that is known. optimises: whether it is `refine_field`, with its options.
    """

    name: str
    run: Callable[..., Registration]
    model: Any = None
    spacing: float | None = None
    optimises: bool = False

    def __call__(self, moving: Image, fixed: Image, **options: Any) -> Registration:
        return self.run(moving, fixed, **options)

    def to(self, device: str) -> Method:
        """The method with its network on a device (its images: yours to move)."""
        if self.model is not None:
            self.model.to(device)
        return self


def make_method(
    name: str, dim: int, *, weights: Path | str | None = None, steps: int = 20, progress: bool = True
) -> Method:
    """The method of a name for images of two or three axes.

    weights: a file of `regkit.save`, for a network; the shipped ones by default, and needed where none are shipped.
    "optimise" moves a field for the pair, from nothing, at three scales (`optimise.refine_field`); steps, progress: of
    it. "syn" is ANTs' (needs antspyx), "affine" finds an affine map for the pair, "none" moves nothing.

    Raises:
        ValueError: no such method; weights of another network or dimension, or given to a method without.
        FileNotFoundError: no such file, or none is shipped.
    """
    types.check_option("the method", name, METHODS)
    if name in NETWORKS:
        return _network(name, dim, weights)
    if weights is not None:
        raise InputError("only networks have weights", f"{weights} for {name!r}", "name a network, or no file")

    def optimise(moving: Image, fixed: Image, **options: Any) -> Registration:
        return refine_field(moving, fixed, steps=steps, progress=progress, **options)

    runs = {"optimise": optimise, "syn": register_with_syn, "affine": _affine, "none": _nothing}
    return Method(name, runs[name], optimises=name == "optimise")


def shipped(dim: int) -> list[str]:
    """The networks whose weights for images of two or three axes come with regkit."""
    return [name for name in NETWORKS if shipped_file(name, dim).is_file()]


def shipped_file(name: str, dim: int) -> Path:
    """Where the weights of a network lie that come with regkit, whether they are there or not."""
    return WEIGHTS / f"{name}_{dim}d.safetensors"


def load_method(weights: Path | str, dim: int) -> Method:
    """The network in a file of `regkit.save`, whichever it is; errors as `make_method`."""
    description = checkpoints.describe(weights)
    return make_method(str(description["model"]).lower(), dim, weights=weights)


def with_refinement(method: Method, steps: int, *, weights: bool = False, progress: bool = True) -> Method:
    """The method, and after it `steps` of instance optimisation of its field, or of its weights.

    Raises:
        ValueError: weights of a method that has none.
    """
    if weights and method.model is None:
        raise InputError("only a network's weights can be refined", f"{method.name!r}", "refine its field")

    def refined(moving: Image, fixed: Image) -> Registration:
        if weights:
            return refine_weights(method.model, moving, fixed, steps=steps, progress=progress)
        return refine_field(moving, fixed, method(moving, fixed), steps=steps, progress=progress)

    return Method(f"{method.name} + {steps} steps", refined, method.model, method.spacing)


def with_affine(method: Method) -> Method:
    """An affine map for each pair, and the method after it: φ_affine ∘ φ."""

    def both(moving: Image, fixed: Image) -> Registration:
        first = _affine(moving, fixed)
        then = method(warp(moving, first.displacement), fixed)
        back = None if then.inverse is None else compose(then.inverse, inverse_of(first))
        return Registration(compose(first.displacement, then.displacement), back)

    return Method(f"affine + {method.name}", both, method.model, method.spacing)


def _network(name: str, dim: int, weights: Path | str | None) -> Method:
    path = shipped_file(name, dim) if weights is None else Path(weights)
    if weights is None and not path.is_file():
        raise types.MissingFileError(
            "a network needs weights",
            f"a regkit that ships none for {name} in {dim}D (no weights/{path.name})",
            "train it and give its file with --weights, or take --method optimise, which needs none",
        )
    description = checkpoints.describe(path)
    if description["model"] != NETWORKS[name]:
        raise InputError(
            "weights belong to their network",
            f"{path} of {description['model']} for {name}",
            f"name --method {str(description['model']).lower()}",
        )
    model = checkpoints.load(path)
    if model.dim != dim:
        raise InputError(
            "weights belong to images of their dimension",
            f"{path} made for {model.dim}D and images of {dim}D",
            f"give weights made with dim={dim}",
        )
    spacing = description["metrics"].get("spacing")
    types.check_kind(spacing, types.Positive | None, f"the spacing that {path} names")
    return Method(name, torch.no_grad()(model.__call__), model, spacing)


def _affine(moving: Image, fixed: Image) -> Registration:
    """The affine map of one pair, and its inverse: a matrix about the centre, see `affine_displacement`.

    Found on images of at most 80 voxels along the longest axis, which its few numbers do not need finer.
    """
    full = types.spatial(fixed)
    factor = max(1.0, max(full) / _LONGEST)
    shape = [min(size, max(2, round(size / factor))) for size in full]
    small = [image if factor == 1 else resize(gaussian_blur(image, factor / 2), shape) for image in (moving, fixed)]
    matrix = optimise_affine(*small, similarity=ncc)
    sizes = zip(full, shape, strict=True)
    scale = matrix.new_tensor([(size - 1) / (coarse - 1) if size > 1 else 1.0 for size, coarse in sizes])
    matrix = matrix * scale[:, None] / torch.cat([scale, scale.new_ones(1)])
    return Registration(affine_displacement(matrix, full), affine_displacement(invert_affine(matrix), full))


def _nothing(moving: Image, fixed: Image) -> Registration:
    zero = fixed.new_zeros(len(fixed), fixed.dim() - 2, *types.spatial(fixed))
    return Registration(zero, zero)


# ---------------------------------------------------------------------------------------------- ANTs' SyN
def register_with_syn(moving: Image, fixed: Image, *, affine: bool = True, **options: Any) -> Registration:
    """ANTs' SyN with its defaults (mutual information), both ways.

    moving, fixed: (1, 1, *space). affine: ANTs' affine stages first. options: of `ants.registration`.

    Raises:
        ImportError: antspyx is not installed.
        TypeError, ValueError: images that cannot be registered; more than one pair.
    Source: Avants et al. 2008.
    """
    types.check_pair(moving, fixed)
    if moving.shape[:2] != (1, 1):
        raise InputError("SyN registers one pair of one channel", f"shape {tuple(moving.shape)}", "take one item")
    with types.needing("ants", "SyN"):
        ants = importlib.import_module("ants")
    images = [ants.from_numpy(image[0, 0].cpu().numpy()) for image in (fixed, moving)]
    with tempfile.TemporaryDirectory() as folder:
        kind = "SyN" if affine else "SyNOnly"
        found = ants.registration(*images, kind, outprefix=f"{folder}/found", random_seed=1, **options)
        there = _whole(ants, images, found["fwdtransforms"], Path(folder) / "there")
        back = _whole(ants, images[::-1], found["invtransforms"], Path(folder) / "back")
    return Registration(there.to(fixed), back.to(fixed))


def _whole(ants: Any, images: list[Any], transforms: list[str], prefix: Path) -> Displacement:
    """A list of ANTs' transforms as one displacement (1, dim, *space), voxels: an image from numpy has voxels of 1."""
    inverted = [each.endswith(".mat") and index == 0 for index, each in enumerate(transforms)]  # of an inverse: first
    path = ants.apply_transforms(*images, transforms, whichtoinvert=inverted, compose=f"{prefix}")
    dim = images[0].dimension
    field: Any = nibabel.load(path)
    vectors = np.asarray(field.dataobj, dtype=np.float32).reshape(*images[0].shape, dim)
    return torch.from_numpy(np.moveaxis(vectors, -1, 0).copy())[None]


# ---------------------------------------------------------------------------------------------- time and memory
@dataclass
class Usage:
    """What a block took.

    seconds: by the clock. processor_seconds: of all the process's threads, whatever else the machine does meanwhile.
    memory: the process's peak in MB while the block ran (on a GPU the tensors'), NaN where unknown.
    """

    seconds: float = float("nan")
    processor_seconds: float = float("nan")
    memory: float = float("nan")


@contextlib.contextmanager
def measured(device: str = "cpu") -> Iterator[Usage]:
    """Measure a block: `with measured() as usage: ...`; usage holds numbers once the block has ended.

    device: where the block computes.

    On Linux the process's peak is started anew; elsewhere it is that since the process began.
    """
    usage, on_gpu = Usage(), torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # start the peak anew (proc(5))
    start, worked = time.perf_counter(), time.process_time()
    yield usage
    if on_gpu:
        torch.cuda.synchronize(device)
    usage.seconds, usage.processor_seconds = time.perf_counter() - start, time.process_time() - worked
    usage.memory = torch.cuda.max_memory_allocated(device) / _MEGABYTE if on_gpu else _peak()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A block in which torch computes on one thread, and ANTs too where it is first imported in it."""
    before = torch.get_num_threads()
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak() -> float:
    """The process's peak of memory, MB."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (_MEGABYTE if sys.platform == "darwin" else 1024)
