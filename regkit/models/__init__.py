"""The methods: one paper, one file, the model with its paper's objective beside it."""

from regkit.models.gradicon import GradICON
from regkit.models.sacbnet import SACBNet
from regkit.models.sitreg import SITReg
from regkit.models.smgicnet import SMGICNet
from regkit.models.spnet import SPNet
from regkit.models.voxelmorph import VoxelMorph

__all__ = ["GradICON", "SACBNet", "SITReg", "SMGICNet", "SPNet", "VoxelMorph"]
