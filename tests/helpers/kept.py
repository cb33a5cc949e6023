"""What is kept between the forward and the backward pass: counted for the tests and the benchmark."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from regkit import fields


def kept_fields(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """How many fields, other than the inputs, are alive between forward and backward: saved ones and the result."""
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(*inputs)
    of_inputs = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    storages = {
        tensor.untyped_storage().data_ptr()
        for tensor in [*saved, result.detach()]
        if tensor.numel() >= inputs[0].numel()
    }
    return len(storages - of_inputs)


def textbook_squaring(velocity: Tensor) -> Tensor:
    """Scaling and squaring on ready sampling grids, seven times."""
    displacement = velocity / 2**7
    for _ in range(7):
        places = fields.voxels_to_normalized(fields.identity(velocity.shape[2:]) + displacement) - 1
        grid = places.flip(1).movedim(1, -1).contiguous()
        displacement = displacement + F.grid_sample(displacement, grid, padding_mode="border", align_corners=True)
    return displacement
