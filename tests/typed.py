"""What a type checker knows of a model's call and of a loaded one: read by mypy (pyproject.toml), never run."""

from typing import assert_type

import regkit
from regkit.models import GradICON, VoxelMorph
from regkit.models.gradicon import GradICONRegistration
from regkit.types import Pair, Registration


def check(pair: Pair) -> None:
    assert_type(VoxelMorph()(pair.moving, pair.fixed), Registration)
    assert_type(GradICON()(pair.moving, pair.fixed), GradICONRegistration)
    assert_type(regkit.load("file")(pair.moving, pair.fixed), Registration)
    assert_type(regkit.load("file", make=VoxelMorph), VoxelMorph)
