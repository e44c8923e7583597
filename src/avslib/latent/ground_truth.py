"""The ground-truth encoder: mask to latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape
from avslib.latent.conv_encoder import ConvEncoder


class LatentNorm(nn.BatchNorm1d):
    """Give every number of a latent mean 0 and variance 1 over the frames seen, ``(n, D)`` to ``(n, D)``.

    The diffusion ends in unit noise and its loss can be lowered by a code that shrinks to a point: a code of
    fixed variance cannot. A batch norm without scale and shift does this, except that a batch of a single
    frame, which has no variance, is normalised by the running statistics of those before it.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim, affine=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the normalised latent."""
        if not self.training or len(latent) > 1:
            return super().forward(latent)
        before = self.running_mean.clone(), self.running_var.clone()
        with torch.no_grad():
            for frame in latent:
                self.running_var.lerp_((frame - self.running_mean).square(), self.momentum)
                self.running_mean.lerp_(frame, self.momentum)
        return nn.functional.batch_norm(latent, *before, eps=self.eps)


class GTEncoder(nn.Module):
    """Ground-truth latent encoder E_phi: the mask of a frame as ``latent_dim`` numbers, z0.

    Used in training only, where it gives the diffusion its target; and in diagnosis, where it tells what the
    decoder would do if the sampler were perfect.

    Args:
        latent_dim: D, length of the latent (Table VI of the paper: 24 works best).
        normalize: whether the latent is normalised, see :class:`LatentNorm`. Without it nothing keeps the
            latent from collapsing to a constant.
        hidden_features: width between the two fully connected layers.

    Mao et al., DiffusionAVS, section III-A. The normalisation is ours.

    Example:
        >>> encoder = GTEncoder().eval()
        >>> encoder(torch.ones(2, 5, 224, 224, dtype=torch.int64)).shape
        torch.Size([2, 5, 24])
    """

    def __init__(self, latent_dim: int = 24, *, normalize: bool = True, hidden_features: int = 256) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        self.latent_dim = latent_dim
        self.encoder = ConvEncoder(1, latent_dim, hidden_features=hidden_features)
        self.norm = LatentNorm(latent_dim) if normalize else nn.Identity()

    def forward(self, masks: Tensor) -> Tensor:
        """Return the latent of each mask, ``(..., D)``.

        Args:
            masks: class of each pixel, ``(..., H, W)``; what is not background counts as 1.

        Raises:
            ValueError: if ``masks`` has fewer than two axes.
        """
        check_shape("masks", masks, "... h w")
        leading = masks.shape[:-2]
        dtype = next(self.encoder.parameters()).dtype  # also the norm's, whatever autocast makes of the code
        picture = (masks > 0).to(dtype).reshape(-1, 1, *masks.shape[-2:])
        latent = self.norm(self.encoder(picture).to(dtype))
        return latent.reshape(*leading, self.latent_dim)
