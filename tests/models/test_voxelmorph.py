"""VoxelMorph: sizes, counts, and what holds by construction."""

import pytest
import torch
from helpers.networks import small_pair

from regkit import checkpoints, fields, losses
from regkit.models.voxelmorph import VoxelMorph

TINY = {"encoder_channels": (4, 6), "decoder_channels": (6, 6, 4)}
SHAPES = [(19, 26), (7, 1), (13, 18, 17), (9, 1, 12)]
OUTPUTS = ["displacement", "velocity"]


def awake(dim, **options) -> VoxelMorph:
    """A model whose last layer is not small."""
    torch.manual_seed(0)
    model = VoxelMorph(dim, **options).eval()
    torch.nn.init.normal_(model.head.weight, std=0.3)
    return model


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_starts_near_the_identity_at_any_size(shape: tuple[int, ...], output: str) -> None:
    found = VoxelMorph(len(shape), output=output)(torch.rand(2, 1, *shape), torch.rand(1, 1, *shape))
    assert found.displacement.shape == (2, len(shape), *shape)
    assert 0 < found.displacement.abs().max() < 1e-2


@pytest.mark.parametrize("shape", [(32, 48), (16, 32, 16)])
def test_features_have_the_sizes_of_their_levels(shape: tuple[int, ...]) -> None:
    """And the images themselves are the outermost skip."""
    model, sizes = awake(len(shape)), []
    for layer in (*model.unet.encoder, *model.unet.decoder, *model.unet.tail):
        layer.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1] / shape[-1]))
    model(*small_pair(shape))
    assert sizes == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 1, 1]
    assert model.unet.tail[0].in_channels == 32 + 2


def test_activations_are_leaky_with_slope_a_fifth() -> None:
    model, seen = awake(2), []
    chain = [model.unet.encoder[0], model.unet.encoder[1]], [model.unet.tail[-1], model.head]
    for before, after in chain:
        before.register_forward_hook(lambda _, __, output: seen.append(torch.maximum(output, output / 5)))
        after.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(*small_pair((32, 48)))
    for expected, received in zip(seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(received, expected)


@pytest.mark.parametrize("shape", [(19, 26), (13, 18, 17)])
def test_padding_leaves_what_fits_alone(shape: tuple[int, ...]) -> None:
    """An image and the same image with its border repeated up to the next multiple have one result."""
    model, pair = awake(len(shape), **TINY), small_pair(shape)
    widths = [width for size in reversed(shape) for width in (0, -size % 4)]
    padded = model(*(torch.nn.functional.pad(image, widths, mode="replicate") for image in pair))
    inside = (..., *(slice(0, size) for size in shape))
    torch.testing.assert_close(model(*pair).displacement, padded.displacement[inside])


@pytest.mark.parametrize("shape", [(29, 36), (17, 22, 19)])
def test_velocity_gives_an_inverse_and_no_folds(shape: tuple[int, ...]) -> None:
    pair, dim = small_pair(shape), len(shape)
    plain = awake(dim)(*pair)
    assert plain.inverse is None and plain.velocity is None
    found = awake(dim, output="velocity")(*pair)
    torch.testing.assert_close(found.velocity, plain.displacement)
    torch.testing.assert_close(found.displacement, fields.exponential(found.velocity))
    assert found.displacement.abs().max() > 0.1
    inner = (..., *(slice(3, -3),) * dim)
    gap = fields.compose(found.displacement, found.inverse)[inner].abs().max()
    assert gap < 0.05 * found.displacement.abs().max()
    assert fields.jacobian_determinant(found.displacement).min() > 0


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("similarity", ["mse", "lncc"])
@pytest.mark.parametrize("shape", [(19, 26), (13, 18, 17)])
def test_objective_is_similarity_and_diffusion(shape: tuple[int, ...], similarity: str, output: str) -> None:
    model, (moving, fixed) = awake(len(shape), output=output, similarity=similarity, **TINY), small_pair(shape, 0, 1)
    found = model(moving, fixed)
    terms = model.objective(found, moving, fixed)
    measure = {"mse": losses.mse, "lncc": losses.lncc}[similarity]
    field = found.velocity if output == "velocity" else found.displacement
    torch.testing.assert_close(terms[similarity], measure(fields.warp(moving, found.displacement), fixed))
    torch.testing.assert_close(terms["diffusion"], losses.diffusion(field) * {"mse": 0.02, "lncc": 1.0}[similarity])
    assert len(terms) == 2


def test_published_weights_load() -> None:
    source = VoxelMorph(3, **TINY)
    parts = {"encoder": "downarm", "decoder": "uparm", "tail": "extras"}
    state = {"transformer.grid": torch.zeros(1, 3, 4, 4, 4)}
    for name, value in source.state_dict().items():
        *_, part, number, kind = f"..{name}".split(".")
        theirs = f"unet_model.{parts[part]}.{number}.main.{kind}" if part in parts else f"flow.{kind}"
        state[theirs] = torch.rand(value.shape)
    loaded = checkpoints.load_official("voxelmorph", state, dim=3, **TINY)
    assert torch.equal(loaded.head.weight, state["flow.weight"])
    assert torch.equal(loaded.unet.decoder[1].bias, state["unet_model.uparm.1.main.bias"])
    assert torch.equal(loaded.unet.encoder[0].weight, state["unet_model.downarm.0.main.weight"])
    assert torch.equal(loaded.unet.tail[0].weight, state["unet_model.extras.0.main.weight"])
