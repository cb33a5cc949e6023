"""The engine room, read last: grids, the sampler, inversion, Jacobians, windows, files; moved: names of old modules."""

__version__ = "0.1.0"
