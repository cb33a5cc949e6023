"""SyN of ANTs on tensors, where antspyx is installed: what classical registration reaches on the same pairs."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from regkit.types import Displacement, Image, Registration, check_pair


def register_with_syn(moving: Image, fixed: Image, *, affine: bool = True, **options: Any) -> Registration:
    """ANTs' SyN with its defaults (mutual information), both ways.

    moving, fixed: (1, 1, *space). affine: ANTs' affine stages first. options: of `ants.registration`.

    Raises:
        ImportError: antspyx is not installed.
        TypeError, ValueError: images that cannot be registered; more than one pair.
    Source: Avants et al. 2008.
    """
    check_pair(moving, fixed)
    if moving.shape[:2] != (1, 1):
        raise ValueError(f"SyN registers one pair of one channel, received shape {tuple(moving.shape)}; take one item.")
    try:
        ants = importlib.import_module("ants")
    except ImportError as error:
        raise ImportError("SyN is that of ANTs, and antspyx is not installed; pip install antspyx.") from error
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
