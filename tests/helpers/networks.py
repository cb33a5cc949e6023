"""Images and weights for tests of networks, all by the recipe."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from helpers.recipe import fill, image_pair


def small_pair(shape: Sequence[int], *seeds: int, channels: int = 1, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    """Moving and fixed, (1 or a batch of as many as seeds, channels, *shape); channel k is of seed + k."""
    items = [[image_pair(shape, seed + channel) for channel in range(channels)] for seed in seeds or (0,)]
    moving, fixed = np.moveaxis(np.array(items), 2, 0)
    return torch.from_numpy(moving).to(dtype), torch.from_numpy(fixed).to(dtype)


def recipe_weights(parameters: Sequence[tuple[str, Sequence[int]]], gain: float = 1.0) -> dict[str, Tensor]:
    """A state dict for an ordered list of names and shapes."""
    return {name: torch.from_numpy(value) for name, value in fill(parameters, gain).items()}


def strong(model: nn.Module, gain: float = 2.0) -> nn.Module:
    """The model with random weights that move voxels, in evaluation mode; batch statistics stay as they are."""
    shapes = [(name, tuple(value.shape)) for name, value in model.named_parameters()]
    model.load_state_dict(recipe_weights(shapes, gain), strict=False)
    return model.eval()


def to_type(registration, dtype: torch.dtype):
    """The registration with all its tensors in another precision."""

    def moved(value):
        return tuple(map(moved, value)) if isinstance(value, tuple) else value.to(dtype)

    return dataclasses.replace(registration, **{name: moved(value) for name, value in vars(registration).items()})
