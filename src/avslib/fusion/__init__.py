"""Pyramid + audio -> fused pyramid."""

from avslib.fusion.tpavi import TPAVI

__all__ = ["TPAVI"]
