"""Fused pyramid (and latent) -> logits."""

from avslib.decoders.fpn import FPNHead
from avslib.decoders.inject import LatentInjection

__all__ = ["FPNHead", "LatentInjection"]
