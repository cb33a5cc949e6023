"""Two scans in, all that a registration gives out: from places in space to voxels, and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from regkit import losses
from regkit.fields import jacobian_determinant, resize, warp
from regkit.images import Affine, Grid, Scan, TooLargeError, foreground, normalise, resample, voxel_map
from regkit.images.content import bounding_box, grown
from regkit.images.itk import Deformation, regrid
from regkit.optimise import (
    Similarity,
    inverse_of,
    local,
    local_and_global,
    local_and_mutual,
    masked,
    optimise_affine,
    refine_field,
)
from regkit.tools.methods import Method, Usage, measured
from regkit.types import (
    Displacement,
    InputError,
    Registration,
    check_finite,
    check_memory,
    check_option,
    guard,
    is_memory,
)

_SIZES = (20, 40, 80)  # voxels along the longest axis, level by level
_AROUND, _MARGIN = 0.2, 0.05  # of the longest side of a box: what is looked at beyond it, affine stage and field
BUDGET = 10**6  # voxels that a field is made on: seconds to a minute on a processor
_FEW, _BINS, _WEAK = 150, 16, 0.3  # voxels, bins of a joint histogram, correlation: less says nothing of contrasts
_LARGEST_CHANGE = 4.0  # of volume: a map that grows or shrinks more has lost its way
_NEAR = 0.05  # of the size: foregrounds that close count as overlapping
_COARSER = (1.25, 1.6, 2.0, 2.5, 3.2, 4.0)  # what is tried where the memory does not suffice
_NOISY, _SMOOTH = 0.5, 0.12  # of neighbours that differ; of the count of values by which they differ: an image's
_IMAGES, _FIELDS = 2, 3  # of float32 that are there at once, whatever the method
_LABEL_COUNT = 64  # an image of whole numbers with more different ones is none of labels

# ---------------------------------------------------------------------------------------------- the affine stage


def align(
    moving: Scan, fixed: Scan, *, similarity: Similarity = losses.ncc, steps: int = 60, learning_rate: float = 0.2
) -> Affine:
    """The affine map that lays moving on fixed: `through` (4, 4), mm to mm (RAS).

    It starts from the headers or from the centres of mass, whichever is more similar, and goes on at three sizes, from
    20 to 80 voxels along the longest axis of a box around fixed's foreground. moving, fixed: intensities in [0, 1], as
    of `normalise`; only where both have a field of view they are compared. steps: at each size. learning_rate: of Adam,
    in voxels of that size.

    Raises:
        ValueError: a volume and a slice; the best map has no overlap, or changes volume more than four times.
    """
    through = _aligned(moving, fixed, similarity, _SIZES, steps, learning_rate)
    change = abs(np.linalg.det(through[:3, :3]))
    if not 1 / _LARGEST_CHANGE < change < _LARGEST_CHANGE:
        raise InputError(
            f"an affine registration must keep a volume's size within a factor of {_LARGEST_CHANGE:g}",
            f"one of {change:.3g}",
            "check that the two scans are of one part of the body, and that their headers' spacings are right",
        )
    check_overlap(moving, fixed, through)
    return through


def _aligned(
    moving: Scan, fixed: Scan, similarity: Similarity, sizes: Sequence[int], steps: int = 60, learning_rate: float = 0.2
) -> Affine:
    """The affine stage at some sizes; see `align`."""
    around = _boxed(fixed.grid, *_foreground_box(fixed), margin=_AROUND)
    grids = [_coarse(around, size) for size in sizes]
    similarity = masked(similarity) if _has_edges(moving, fixed) else similarity
    through = _start(moving, fixed, grids[0], similarity)
    for grid in grids:
        images = _images(resample(moving, grid, through=through), resample(fixed, grid))
        matrix = optimise_affine(*images, similarity=similarity, steps=steps, learning_rate=learning_rate)
        through = through @ _in_millimetres(matrix[0], grid)
    return through


def _has_edges(*scans: Scan) -> bool:
    """Whether the field of view of one ends where something is."""
    return any(scan.inside is not None for scan in scans)


def _images(moving: Scan, fixed: Scan) -> list[Tensor]:
    """What is compared: two images; where a field of view ends, less their background, and with it as a channel."""
    if not _has_edges(moving, fixed):
        return [moving.tensor, fixed.tensor]
    both = ((scan.tensor - (scan.background or 0.0), _inside(scan).to(scan.tensor)) for scan in (moving, fixed))
    return [torch.cat(each, 1) for each in both]


def _inside(scan: Scan) -> Tensor:
    """The field of view, bool."""
    return torch.ones_like(scan.tensor, dtype=torch.bool) if scan.inside is None else scan.inside


def check_overlap(moving: Scan, fixed: Scan, through: Affine | None = None) -> None:
    """Raise unless the boxes around what is not background meet, a twentieth aside; scans in [0, 1].

    Boxes, because thin structures need not meet where they lie side by side.
    """
    still, moved = _foreground_box(fixed), _moved_box(moving, fixed.grid, through)
    near = _NEAR * np.array(fixed.grid.space)
    if (np.maximum(moved[0], still[0]) - np.minimum(moved[1], still[1]) > near).any():
        apart = float(np.linalg.norm(centre_of_mass(moving, through) - centre_of_mass(fixed)))
        raise InputError(
            "two scans must overlap to be registered",
            f"scans whose centres are {apart:.0f} mm apart by their headers",
            "align them first (--affine, regkit.tools.register.align), or repair the headers",
        )


def _foreground_box(scan: Scan) -> np.ndarray:
    """The first voxel of the foreground, and that after the last, (2, dim); the whole scan without any."""
    box = bounding_box(foreground(scan))
    return np.array([[0] * len(scan.grid.space), scan.grid.space]) if box is None else box


def _moved_box(moving: Scan, grid: Grid, through: Affine | None) -> np.ndarray:
    """The box around moving's foreground where `through` puts it, voxels of a grid, (2, dim)."""
    box = _foreground_box(moving)
    part = _part(foreground(moving), *box)[0, 0]
    places = part.nonzero().numpy()[:: max(1, int(part.sum()) // 10**5)] + box[0]
    matrix = voxel_map(moving.grid, grid, None if through is None else np.linalg.inv(through))
    moved = places @ matrix[:, :-1].T + matrix[:, -1]
    return np.array([moved.min(0), moved.max(0) + 1])


def _boxed(grid: Grid, first: np.ndarray, last: np.ndarray, *, margin: float) -> Grid:
    """The voxels of a grid, and beyond, from first to last, and a share of each side more."""
    more = margin * (last - first)
    start, stop = np.floor(first - more).astype(int), np.ceil(last + more).astype(int)
    return grid.cropped(start, np.maximum(stop - start, 2))


def _coarse(grid: Grid, size: int) -> Grid:
    """Voxels of one size, so that the longest axis has `size` of them; no smaller than they are."""
    longest = max(count * step for count, step in zip(grid.space, grid.spacing, strict=True))
    return _at(grid, longest / size)


def _at(grid: Grid, spacing: float) -> Grid:
    """Voxels of one size over a grid; no smaller than they are."""
    steps = [max(spacing, step) for step in grid.spacing]
    return grid.with_space(
        [max(2, round(n * old / new)) for n, old, new in zip(grid.space, grid.spacing, steps, strict=True)]
    )


def _start(moving: Scan, fixed: Scan, grid: Grid, similarity: Similarity) -> Affine:
    """The better of the headers' own alignment and that of the centres of mass."""
    shift = np.eye(4)
    shift[:3, 3] = centre_of_mass(moving) - centre_of_mass(fixed)
    here = resample(fixed, grid)

    def loss(through: Affine) -> float:
        return float(similarity(*_images(resample(moving, grid, through=through), here)))

    return min((np.eye(4), shift), key=loss)


def centre_of_mass(scan: Scan, through: Affine | None = None) -> np.ndarray:
    """The centre of mass of what is not background, mm (RAS), (3,); of a moving scan where `through` puts it."""
    check_finite(scan.tensor, "scan")
    weights = (scan.tensor.double() - (scan.background or 0.0)).abs()
    place, axes = np.zeros(3), range(2, weights.dim())
    for axis, own in zip(axes, scan.grid.axes, strict=True):
        along = weights.sum([0, 1, *(other for other in axes if other != axis)])
        place[own] = float((torch.arange(len(along)) * along).sum() / along.sum().clamp(min=1e-12))
    there = scan.affine @ np.append(place, 1)
    return (there if through is None else np.linalg.solve(through, there))[:3]


def _in_millimetres(matrix: Tensor, grid: Grid) -> Affine:
    """A matrix (dim, dim + 1) about the centre of a grid, voxels, as a map of space (4, 4)."""
    dim, axes = len(grid.axes), list(grid.axes)
    linear, shift = matrix[:, :dim].double().numpy(), matrix[:, dim].double().numpy()
    centre = (np.array(grid.space) - 1) / 2
    whole = np.eye(4)
    whole[np.ix_(axes, axes)] = linear
    whole[axes, 3] = centre + shift - linear @ centre
    return grid.affine @ whole @ np.linalg.inv(grid.affine)


# ---------------------------------------------------------------------------------------------- what is compared

Choice = Literal["auto", "lncc", "ncc", "mse", "mi", "mind"]

CHOICES: tuple[Choice, ...] = get_args(Choice)
_SIMILARITIES: dict[str, Similarity] = {
    "lncc": local,
    "ncc": losses.ncc,
    "mse": losses.mse,
    "mi": losses.mutual_information,
    "mind": losses.mindssc,
}


@dataclass(frozen=True)
class Likeness:
    """What two scans are compared by: in the affine stage, and in optimising and refining. words: which, and why."""

    affine: Similarity
    field: Similarity
    words: str
    alike: bool = True


def choose_likeness(moving: Scan, fixed: Scan, choice: Choice = "auto") -> Likeness:
    """The similarity of a name; "auto" looks at both histograms and at the joint one, scans in [0, 1].

    With one contrast (bright tissue is bright in both) auto is ncc, and lncc with it for fields; with two it is mutual
    information, and lncc with it, which is squared. The scans are laid on each other by mutual information first, at 20
    and 40 voxels along the longest axis. Inside both foregrounds, their edges aside, two are alike if the correlation
    is at least half of what the joint histogram would allow, (1 - exp(-2 I))^(1/2); too few voxels count as alike.

    Raises:
        ValueError: no such similarity.
    """
    check_option("similarity", choice, CHOICES)
    if choice != "auto":
        return Likeness(_SIMILARITIES[choice], _SIMILARITIES[choice], f"{choice}, as asked for")
    correlation, most = _joint(moving, fixed)
    found = f"correlation {correlation:.2f} inside both, of {most:.2f} that the joint histogram allows"
    if correlation >= most / 2 or (most < _WEAK and correlation > -_WEAK / 2):
        return Likeness(losses.ncc, local_and_global, f"lncc + ncc: one contrast ({found})")
    return Likeness(losses.mutual_information, local_and_mutual, f"lncc + 2 mi: two contrasts ({found})", alike=False)


def _joint(moving: Scan, fixed: Scan) -> tuple[float, float]:
    """The correlation inside both foregrounds, and the highest that mutual information allows; 0, 0 if unknown."""
    moving, fixed = (resample(scan, _coarse(scan.grid, _SIZES[2])) for scan in (moving, fixed))
    through = _aligned(moving, fixed, losses.mutual_information, _SIZES[:2])
    grid = _coarse(_boxed(fixed.grid, *_foreground_box(fixed), margin=0), _SIZES[1])
    near, here = resample(moving, grid, through=through), resample(fixed, grid)
    both = foreground(near) & foreground(here)
    both = ~grown(~both)
    if int(both.sum()) < _FEW:
        return 0.0, 0.0
    pair = torch.stack([near.tensor[both], here.tensor[both]])
    if float(pair.std(1).min()) < 1e-3:
        return 0.0, 0.0
    information = -float(losses.mutual_information(near.tensor, here.tensor, bins=_BINS, mask=both))
    information -= (_BINS - 5) ** 2 / (2 * int(both.sum()))  # what as many voxels show by chance
    return float(torch.corrcoef(pair)[0, 1]), math.sqrt(1 - math.exp(-2 * max(information, 0.0)))


# ---------------------------------------------------------------------------------------------- two scans


@dataclass(frozen=True, eq=False)
class ScanRegistration:
    """What was found for two scans.

    moving, fixed: as they came. through: of the affine stage, (4, 4), mm to mm (RAS); the identity without.
    units: both in [0, 1], cut to their content. near: moving after the affine stage; here: fixed, both in [0, 1] on the
    grid of the registration. found: on that grid, with the inverse. there: the whole map on fixed's own grid (warps
    moving onto fixed); back: on moving's. likeness: what they were compared by. usage: of method and refinement.
    """

    moving: Scan
    fixed: Scan
    through: Affine
    near: Scan
    here: Scan
    found: Registration
    there: Deformation
    back: Deformation
    units: tuple[Scan, Scan]
    likeness: Likeness
    usage: Usage

    def warp(self, scan: Scan, *, affine_only: bool = False) -> Scan:
        """An image or labels in the space of the moving scan, on the fixed scan's own grid; interpolated once.

        Raises:
            ValueError: a volume and a slice.
        """
        if affine_only:
            return resample(scan, self.fixed.original, through=self.through)
        return resample(scan, self.there.grid, displacement=self.there.displacement)

    def jacobian(self) -> Scan:
        """|J| of the whole map on the fixed scan's own grid; at or below 0 it folds."""
        return Scan(jacobian_determinant(self.there.displacement), self.there.grid, self.there.grid)


def register_scans(
    moving: Scan,
    fixed: Scan,
    method: Method,
    *,
    affine: bool = False,
    refine: int = 0,
    spacing: float | None = None,
    budget: int = BUDGET,
    similarity: Choice = "auto",
    window: tuple[float, float] | None = None,
    device: str = "cpu",
    progress: bool = True,
    kind: Literal["image", "labels"] | None = None,
) -> ScanRegistration:
    """Register two scans: affine stage, the method, refinement of its field; the whole map both ways.

    What is compared is what both fields of view hold (`with_mask`, `normalise`), in a box around both foregrounds; the
    maps go on beyond it. affine: find an affine map first, also across large distances. refine: steps of
    `refine_field`, 0 for none. spacing: of the voxels that all works on, mm; by default the fixed scan's own, those
    that a network was trained on for the network, and the finest of which the box has at most `budget` for
    optimisation and refinement. similarity: see `choose_likeness`. window: of both scans, see `normalise`. device:
    where the method computes.
    kind: of both scans, which are then taken as such; by default it is looked at whether one holds labels.

    Raises:
        ValueError: a volume and a slice; labels and an image; constant images; no overlap.
        MemoryError: the images are too large; says which spacing fits.
    """
    if kind is None:
        check_kinds(moving, fixed)
    if budget < 1:
        raise InputError("budget must be 1 voxel or more", budget, f"{BUDGET} is usual")
    units = unit_moving, unit_fixed = _unit("moving", moving, window), _unit("fixed", fixed, window)
    compared = affine or refine > 0 or method.optimises or method.model is not None
    likeness = choose_likeness(*units, similarity) if compared else Likeness(losses.ncc, local_and_global, "none")
    if not likeness.alike:
        learnt = f"; {method.name} has learnt from scans of one contrast: refine it (--refine 20) or take optimise"
        more = learnt if method.model is not None else ""
        warnings.warn(f"the two scans' contrasts differ: {likeness.words}{more}.", stacklevel=2)
    through = align(unit_moving, unit_fixed, similarity=likeness.affine) if affine else np.eye(4)
    check_overlap(unit_moving, unit_fixed, through)
    own = _around_both(unit_moving, unit_fixed, through, spacing)
    step = spacing or method.spacing
    seen = own if step is None else _around_both(unit_moving, unit_fixed, through, step)
    grid = seen
    if spacing is None and (method.optimises or refine or method.spacing):
        grid = _within(own, budget)
    wanted = math.prod(grid.space) * 4 * (_IMAGES + _FIELDS * len(grid.space))
    check_memory(wanted, "a registration must fit into memory", _size(grid), "give a coarser --spacing")
    near, here = resample(unit_moving, grid, through=through), resample(unit_fixed, grid)
    compare = masked(likeness.field) if _has_edges(near, here) else likeness.field
    options: dict[str, Any] = {"similarity": compare, "most": budget}
    with measured(device) as usage:
        if method.optimises:
            found = _run(method, _images(near, here), grid, device, **options)
        else:
            shown = [resample(unit_moving, seen, through=through).tensor, resample(unit_fixed, seen).tensor]
            found = _run(method, shown, seen, device)
            found = found if grid is seen else _carried(found, seen, grid)
        if refine:
            one, other = _images(near, here)
            found = refine_field(one, other, found, steps=refine, progress=progress, **options)
        found = replace(found, inverse=inverse_of(found))
    there = regrid(Deformation(found.displacement, grid), fixed.original, after=through)
    back = regrid(Deformation(inverse_of(found), grid), moving.original, before=np.linalg.inv(through))
    return ScanRegistration(moving, fixed, through, near, here, found, there, back, units, likeness, usage)


def with_mask(scan: Scan, mask: Scan, name: str = "the mask") -> Scan:
    """A scan whose field of view is where a mask, labels of any numbers, is not 0.

    Raises:
        ValueError: a mask that lies elsewhere; nothing in it.
    """
    check_labels(mask, scan, name)
    inside = resample(mask, scan.grid).tensor > 0
    if not inside.any():
        raise InputError("a mask must hold something of its scan", f"{name} with nothing", "check how it was made")
    return replace(scan, inside=inside & _inside(scan))


def correlation(moving: Scan, fixed: Scan, displacement: Displacement | None = None) -> float:
    """The correlation of two scans on one grid, moving warped first, inside both fields of view."""
    one, other = _images(moving, fixed)
    one = one if displacement is None else warp(one, displacement)
    compare = masked(losses.ncc) if _has_edges(moving, fixed) else losses.ncc
    return 1 - float(compare(one, other))


def _unit(name: str, scan: Scan, window: tuple[float, float] | None = None) -> Scan:
    """A scan cut to a box around its content, intensities in [0, 1] there; an error says which of the two it was."""
    try:
        unit = normalise(scan, window=window)
        start, stop = _foreground_box(unit)
        more = np.ceil(_MARGIN * (stop - start)).astype(int) + 1
        start, stop = np.maximum(start - more, 0), np.minimum(stop + more, unit.grid.space)
        inside = None if unit.inside is None else _part(unit.inside, start, stop)
        grid = unit.grid.cropped(start.tolist(), (stop - start).tolist())
        cut = replace(scan, tensor=_part(scan.tensor, start, stop), grid=grid, inside=inside)
        return normalise(cut, window=window)
    except InputError as error:
        raise InputError(f"the {name} scan: {error.rule}", error.received, error.remedy) from error


def _part(tensor: Tensor, start: np.ndarray, stop: np.ndarray) -> Tensor:
    """The voxels of a tensor (1, 1, *space) from start to before stop."""
    for axis, (first, last) in enumerate(zip(start.tolist(), stop.tolist(), strict=True), 2):
        tensor = tensor.narrow(axis, first, last - first)
    return tensor.contiguous()


def _around_both(moving: Scan, fixed: Scan, through: Affine, spacing: float | None) -> Grid:
    """The box around fixed's foreground and what of moving's is near it, on fixed's axes; its own voxels, or others."""
    still, moved = _foreground_box(fixed), _moved_box(moving, fixed.grid, through)
    more = np.ceil(_AROUND * (still[1] - still[0]))
    moved = np.clip(moved, still[0] - more, still[1] + more)
    box = _boxed(fixed.grid, np.minimum(still[0], moved[0]), np.maximum(still[1], moved[1]), margin=_MARGIN)
    return box if spacing is None else box.with_spacing(spacing)


def _within(grid: Grid, budget: int) -> Grid:
    """The finest voxels of one size, no smaller than a grid's, of which it has at most `budget`."""
    finer, spacing = grid, min(grid.spacing)
    while math.prod(finer.space) > budget:
        spacing *= 1.01
        finer = _at(grid, spacing)
    return finer


def _carried(found: Registration, start: Grid, end: Grid) -> Registration:
    """A registration, displacement and inverse, on another grid."""
    there, back = (regrid(Deformation(each, start), end) for each in (found.displacement, inverse_of(found)))
    return Registration(there.displacement, back.displacement)


def _run(method: Method, images: Sequence[Tensor], grid: Grid, device: str, **options: Any) -> Registration:
    """The method's registration, on the CPU."""
    method.to(device)
    try:
        found = method(*(image.to(device) for image in images), **options)
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        raise TooLargeError(
            "a registration must fit into memory",
            f"{method.name} on {_size(grid)}",
            _advice(method, images, grid, device, **options),
        ) from error
    return Registration(found.displacement.cpu(), None if found.inverse is None else found.inverse.cpu())


def _advice(method: Method, images: Sequence[Tensor], grid: Grid, device: str, **options: Any) -> str:
    """The first coarser spacing that fits, by trying."""
    for factor in _COARSER:
        coarse = grid.with_space([max(2, round(size / factor)) for size in grid.space])
        try:
            method(*(resize(image, coarse.space).to(device) for image in images), **options)
        except (MemoryError, RuntimeError):
            continue
        return f"{coarse.space} fits (tried): give --spacing {max(coarse.spacing):.2g}"
    return "a quarter of the size does not fit either: free memory, or take another method"


def _size(grid: Grid) -> str:
    return f"{grid.space} voxels of {' x '.join(f'{size:.3g}' for size in grid.spacing)} mm"


# ---------------------------------------------------------------------------------------------- what is refused


def check_kinds(moving: Scan, fixed: Scan) -> None:
    """Raise where one of two scans looks like labels, whole numbers of which there are few, and the other does not."""
    if looks_like_labels(moving) != looks_like_labels(fixed):
        name = "moving" if looks_like_labels(moving) else "fixed"
        raise InputError(
            "two images of one kind are registered",
            f"{name} that holds labels (whole numbers, at most {_LABEL_COUNT} different ones) and an image",
            "give the scan that the labels were drawn on, and the labels with --labels; or --as image, if it is one",
        )


def looks_like_labels(scan: Scan) -> bool:
    """Whether all values are whole numbers, few different ones, and neighbours equal or of any two numbers.

    An image of few grey levels is noisy, so that neighbours differ, or smooth, so that they differ little.
    """
    few = scan.tensor.flatten()[:: max(1, scan.tensor.numel() // 10**5)]
    if (few != few.round()).any() or len(few.unique()) > _LABEL_COUNT:  # most images
        return False
    values, ranks = torch.unique(scan.tensor, return_inverse=True)
    if not 1 < len(values) <= _LABEL_COUNT or not bool((values == values.round()).all()):
        return False
    pairs = [(ranks.narrow(axis, 1, size - 1), ranks.narrow(axis, 0, size - 1)) for axis, size in _axes(ranks)]
    steps = torch.cat([(one - other).abs()[(one > 0) & (other > 0)] for one, other in pairs]).double()
    different = steps[steps > 0]
    if not len(different):
        return True
    return len(different) < _NOISY * len(steps) and float(different.mean()) > _SMOOTH * len(values)


def _axes(values: Tensor) -> list[tuple[int, int]]:
    """The spatial axes and their sizes."""
    return list(enumerate(values.shape))[2:]


def check_label_grids(labels: Sequence[Scan], scans: Sequence[Scan]) -> None:
    """Raise unless the labels of moving and fixed belong to their scans by their headers; note where these differ.

    Labels of another size may lie on other voxels, and are read at their own places. Of the same size, those that lie
    elsewhere by more than a voxel have lost their header, or belong to another scan.
    """
    crossed = [label.grid.lies_on(scan.grid) for label, scan in zip(labels, reversed(scans), strict=False)]
    if len(crossed) == 2 and all(crossed) and not scans[0].grid.lies_on(scans[1].grid):
        rule, remedy = "labels must be on the grid of their scan", "give the two files in the order moving, fixed"
        raise InputError(rule, "each on the other's", remedy)
    for label, scan, name in zip(labels, scans, ("moving", "fixed"), strict=False):
        check_labels(label, scan, f"the {name} labels")


def check_labels(label: Scan, scan: Scan, name: str) -> None:
    """As `check_label_grids`, of one scan; name: of the labels, for the message."""
    if label.original.shape == scan.original.shape:
        millimetres, degrees = label.original.apart(scan.original)
    else:
        millimetres, degrees = label.grid.apart(scan.grid)
    apart = f"up to {millimetres:.3g} mm and {degrees:.3g} degrees apart by their headers"
    voxel, share = max(scan.spacing), _share_inside(label, scan.grid)
    elsewhere = label.grid.space == scan.grid.space and label.grid.apart(scan.grid)[0] > voxel
    if elsewhere or share < 0.5:
        found = f"{name} of {label.grid.space} and their scan of {scan.grid.space}, {apart}"
        remedy = (
            "if they were drawn on this scan, give them its header; else resample them onto its grid (regkit apply); "
            "give the two files in the order moving, fixed"
        )
        raise InputError("labels must be on the grid of their scan", f"{found}; {100 * share:.0f} % within it", remedy)
    if not label.grid.lies_on(scan.grid) or (
        label.original.shape == scan.original.shape and not label.original.lies_on(scan.original)
    ):
        warnings.warn(
            f"{name} and their scan are {apart} ({label.original.codes} and {scan.original.codes}); the labels are "
            f"read at their own places, by the nearest voxel.",
            stacklevel=3,
        )


def _share_inside(label: Scan, grid: Grid) -> float:
    """How much of the labels, background aside, lies within a grid."""
    places = label.tensor[0, 0].nonzero().double().numpy()
    if not len(places):
        return 1.0
    matrix = voxel_map(label.grid, grid)
    there = places @ matrix[:, :-1].T + matrix[:, -1]
    return float(((there >= -0.5) & (there <= np.array(grid.space) - 0.5)).all(1).mean())


guard(globals())
