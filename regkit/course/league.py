"""One pair of brains and one of shapes, which go through tutorials 00 to 06, and a table of who registers them best.

    pairs = league.pairs()
    league.enter("04", "affine, then a field", {name: register(pair) for name, pair in pairs.items()})

The table grows in a file of the learner's, beside the notebook, in whatever order the tutorials are run.
"""

import functools
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regkit import metrics, training
from regkit._core.files import printable, write_atomically
from regkit.data import synthetic_pair
from regkit.data.brains import BrainPairs
from regkit.fields import identity, move_affinely, warp, warp_labels
from regkit.types import Displacement, Pair, spatial

FILE = "my_league.json"
_NOTHING = "doing nothing"
_NUMBERS = ("Dice", "error", "folds")  # 1 is best; voxels; percent
_COLUMNS = ("", "", "registered by", "mode", *(f"{name}: {one}" for name in ("brains", "shapes") for one in _NUMBERS))


@functools.cache
def pairs() -> dict[str, Pair]:
    """The two pairs, 2D of 64 x 64 voxels, whose true displacement is known: moving, fixed, labels, displacement.

    brains: two synthetic subjects that differ in place, angle, size and shape. shapes: the same three shapes twice,
    bent and then turned by 20 degrees, shifted and made smaller by an affine map (it reads 1.15 times as far out); each
    image has noise of its own.
    """
    return {"brains": BrainPairs(2, size=(64, 64), aligned=False, split="test", seed=11)[0], "shapes": _two_scans()}


def _two_scans(noise: float = 0.04) -> Pair:
    drawn = synthetic_pair(dim=2, seed=29, motion=0.15)
    assert drawn.displacement is not None and drawn.moving_labels is not None
    turn, size = math.radians(20), spatial(drawn.fixed)
    rows = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    matrix = torch.cat([1.15 * torch.tensor(rows), torch.tensor([[4.0], [-3.0]])], 1)[None]
    truth = move_affinely(identity(size) + drawn.displacement, matrix, size) - identity(size)  # bent, then turned
    generator = torch.Generator().manual_seed(0)
    clean = (drawn.moving, warp(drawn.moving, truth))
    moving, fixed = (image + noise * torch.randn(image.shape, generator=generator) for image in clean)
    return Pair(moving, fixed, drawn.moving_labels, warp_labels(drawn.moving_labels, truth), truth)


def landmarks(pair: Pair) -> tuple[Tensor, Tensor]:
    """The middle of each structure that both images show, in moving and in fixed: two (N, 2), voxels."""
    assert pair.moving_labels is not None and pair.fixed_labels is not None
    sides = pair.moving_labels[0, 0], pair.fixed_labels[0, 0]
    names = sorted(set(sides[0].unique().tolist()) & set(sides[1].unique().tolist()) - {0})
    middles = [torch.stack([(side == name).nonzero().float().mean(0) for name in names]) for side in sides]
    return middles[0], middles[1]


def judge(pair: Pair, displacement: Displacement) -> list[float]:
    """Mean Dice of the structures; the mean |u - truth| within them, voxels; folded voxels, percent."""
    assert pair.displacement is not None and pair.fixed_labels is not None
    score = metrics.evaluate(displacement, pair)
    inside: Tensor = pair.fixed_labels[:, 0] > 0
    off = (displacement - pair.displacement).norm(dim=1)[inside].mean()
    return [score["dice"], off.item(), score["folds_percent"]]


@dataclass(frozen=True, repr=False)
class League:
    """Rows of six numbers by (tutorial, what registered, mode); which one is the latest; a note where there is one."""

    rows: Mapping[tuple[str, str, str], list[float]]
    latest: tuple[str, str, str]
    note: str = ""

    def _cells(self) -> list[list[str]]:
        marks = {self.latest: "▶"}
        rows = sorted(self.rows.items())
        return [[marks.get(key, ""), *key, *(f"{number:.2f}" for number in numbers)] for key, numbers in rows]

    def __repr__(self) -> str:
        rows = [_COLUMNS, *self._cells()]
        lines = ["{:2s}{:3s}{:36s}{:6s}".format(*row) + "".join(f"{cell:>15s}" for cell in row[4:]) for row in rows]
        return printable("\n".join([*lines, self.note]).strip())

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            style = "font-weight: bold; border-left: 6px solid #0b6b3a" if cells[0] == "▶" else ""
            return f'<tr style="{style}">' + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self._cells())
        return f"<table>{row(_COLUMNS, 'th')}{body}</table><p>{html.escape(self.note)}</p>"


def enter(tutorial: str, how: str, displacements: Mapping[str, Displacement], *, folder: Path | str = Path()) -> League:
    """Judge what a tutorial made of both pairs, and put it into the table, which is stored in `folder`.

    displacements: by the names of `pairs`, (1, 2, 64, 64), voxels. A row of the same tutorial, words and mode is
    replaced. A damaged file is set aside and told; where the folder cannot be written to, the table is only shown.
    """
    path, key, note = Path(folder) / FILE, (tutorial, how, training.mode()), ""
    numbers = [number for name, pair in pairs().items() for number in judge(pair, displacements[name])]
    still = torch.zeros_like(next(iter(displacements.values())))
    nothing = [number for pair in pairs().values() for number in judge(pair, still)]
    rows: dict[tuple[str, str, str], list[float]] = {}

    def renewed() -> bytes:
        nonlocal note, rows
        try:
            rows = _stored(path)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            note = f"{FILE} could not be read ({error}): it is kept as {FILE}.damaged, and the table begins anew."
            path.replace(path.with_name(f"{FILE}.damaged"))
        rows |= {("", _NOTHING, ""): nothing, key: numbers}
        return json.dumps([[*name, row] for name, row in rows.items()], indent=1).encode()

    try:
        write_atomically(path, renewed)
    except OSError as error:
        rows |= {("", _NOTHING, ""): nothing, key: numbers}
        note = f"The table could not be stored ({error}): after a restart this row is gone."
    return League(rows, key, note)


def _stored(path: Path) -> dict[tuple[str, str, str], list[float]]:
    """The rows in the file, none where there is no file; ValueError, TypeError where it holds anything else."""
    if not path.exists():
        return {}
    rows = {(str(a), str(b), str(c)): [float(each) for each in row] for a, b, c, row in json.loads(path.read_text())}
    if any(len(row) != len(_COLUMNS) - 4 for row in rows.values()):
        raise ValueError("rows of another length")
    return rows
