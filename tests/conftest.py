"""What all tests share: the fast mode of the tutorials, and no display."""

import os

os.environ.setdefault("REGKIT_MODE", "fast")  # the notebooks' kernels inherit it
os.environ.setdefault("MPLBACKEND", "agg")
