"""Stand-in."""

__all__ = []
