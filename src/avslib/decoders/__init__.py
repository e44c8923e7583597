"""Decoders: fused pyramid (and latent) to logits."""

from avslib.decoders.fpn import FPNHead
from avslib.decoders.inject import LatentInjection
from avslib.decoders.top_down import TopDownDecoder

__all__ = ["FPNHead", "LatentInjection", "TopDownDecoder"]
