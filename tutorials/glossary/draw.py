"""Draws the pictures of the glossary: python tutorials/glossary/draw.py"""

from pathlib import Path

import torch
from PIL import Image

from regkit.data import ShapePairs, smooth_displacement
from regkit.fields import compose, exponential, invert, jacobian_determinant, resize, warp
from regkit.figures import JACOBIAN_LIMITS
from regkit.figures.paint import (
    render_arrows,
    render_bar,
    render_checkerboard,
    render_contours,
    render_difference,
    render_displacement,
    render_grid,
    render_image,
    render_jacobian,
    render_overlay,
)
from regkit.figures.pixels import JACOBIANS, Picture, displacement_limit, png, stack
from regkit.models.smgicnet.networks import haar
from regkit.optimise import optimise_field

SCALE = 3
SIZE = (56, 56)


def image(tensor: torch.Tensor, scale: int = SCALE) -> Picture:
    return render_image(tensor[0, 0].numpy(), scale=scale)


def draw() -> dict[str, Picture]:
    """One picture for each term, by file name."""
    pairs = ShapePairs(16, size=SIZE, seed=3)
    onto_circle = pairs.shapes.pointed[pairs.moving] & ~pairs.shapes.pointed[pairs.fixed]
    pair = pairs[int(onto_circle.nonzero()[0])]
    velocity = smooth_displacement(SIZE, amplitude=9, smoothness=7, seed=5, diffeomorphic=False)
    u = exponential(velocity)
    folded = 3.5 * u
    warped, plain = warp(pair.moving, u), image(torch.zeros_like(pair.moving))
    options = {"output": "velocity", "weight": 0.002, "learning_rate": 0.3, "steps": 200}
    registered = warp(pair.moving, optimise_field(pair.moving, pair.fixed, **options).displacement)
    inverse = invert(u, tolerance=1e-3, method="newton")
    halves = [exponential(t * velocity) for t in (0.25, 0.5, 1.0)]
    limit = displacement_limit(u[0].numpy())
    levels = [resize(pair.moving, (SIZE[0] // k, SIZE[1] // k)) for k in (8, 4, 2, 1)]

    low, energy = haar(pair.moving)

    def side_by_side(*pictures: Picture) -> Picture:
        return stack(*pictures, axis=1)

    def grid(field: torch.Tensor, below: Picture = plain) -> Picture:
        return render_grid(below, field)

    determinant = jacobian_determinant(folded)[0, 0].numpy()
    return {
        "moving_fixed_warped": side_by_side(
            image(pair.moving), image(pair.fixed), image(registered)
        ),
        "displacement": side_by_side(
            render_arrows(image(pair.moving), u),
            render_displacement(u[0].numpy(), limit=limit, scale=SCALE),
        ),
        "velocity": side_by_side(*(grid(half) for half in halves)),
        "warp": side_by_side(image(pair.moving), grid(u, image(pair.moving)), image(warped)),
        "composition": side_by_side(grid(u), grid(u), grid(compose(u, u))),
        "inverse": side_by_side(grid(u), grid(inverse), grid(compose(u, inverse))),
        "jacobian": stack(
            render_jacobian(jacobian_determinant(u)[0, 0].numpy(), scale=SCALE),
            render_bar(JACOBIANS, JACOBIAN_LIMITS, width=SCALE * SIZE[1]),
        ),
        "fold": side_by_side(grid(folded), render_jacobian(determinant, scale=SCALE)),
        "similarity": side_by_side(
            *(
                render_difference(a[0, 0].numpy(), pair.fixed[0, 0].numpy(), scale=SCALE)
                for a in (pair.moving, registered)
            )
        ),
        "smoothness": side_by_side(
            grid(smooth_displacement(SIZE, amplitude=5, smoothness=2, seed=1, diffeomorphic=False)),
            grid(smooth_displacement(SIZE, amplitude=5, smoothness=9, seed=1, diffeomorphic=False)),
        ),
        "dice": render_contours(image(pair.moving), pair.fixed_labels[0, 0].numpy()),
        "level": side_by_side(
            *(render_image(a[0, 0].numpy(), scale=SCALE * SIZE[0] // a.shape[2]) for a in levels)
        ),
        "wavelet": side_by_side(
            image(pair.moving),
            image(low, scale=2 * SCALE),
            image(energy.sqrt() / 0.4, scale=2 * SCALE),  # white: 0.4 of the image's range
        ),
        "comparison": side_by_side(
            render_checkerboard(warped[0, 0].numpy(), pair.fixed[0, 0].numpy(), scale=SCALE),
            render_overlay(warped[0, 0].numpy(), pair.fixed[0, 0].numpy(), scale=SCALE),
        ),
    }


if __name__ == "__main__":
    for name, picture in draw().items():
        path = Path(__file__).parent / f"{name}.png"
        path.write_bytes(png(picture))
        print(f"{path.name}: {Image.open(path).size}")
