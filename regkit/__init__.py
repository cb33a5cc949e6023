"""regkit"""

__version__ = "0.1.0"
from regkit import fields as fields
from regkit.fields import compose, exponential, invert, jacobian_determinant, warp
from regkit.types import Pair, Registration
