"""The ground-truth encoder, which maps a mask to a latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avslib._checks import check_positive, check_shape
from avslib.latent.conv_encoder import ConvEncoder


class LatentNorm(nn.Module):
    """Normalise each number of a latent to mean 0 and variance 1 over the frames seen, ``(n, D)``.

    The diffusion ends in unit noise, and codes that shrink to a point would lower its loss; codes of fixed
    variance cannot shrink. A batch norm without scale and shift would fix the variance. But with few frames,
    such as the one labelled frame in each clip of S4, its codes say more about the batch than about the mask:
    with two frames they are always 1 and -1. So the value is normalised by the running statistics, in
    training as in evaluation, and the gradient is that of the batch norm, which keeps the codes from
    shrinking. With one or two frames that gradient is zero, so it is that of the running statistics too.

    It is no ``nn.BatchNorm1d``, which ``nn.SyncBatchNorm.convert_sync_batchnorm`` would replace.

    Ioffe, Batch Renormalization, NeurIPS 2017.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, latent_dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(latent_dim))
        self.register_buffer("running_var", torch.ones(latent_dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def reset_running_stats(self) -> None:
        """Forget all frames."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, latent: Tensor) -> Tensor:
        """Return the normalised latent."""
        mean, std = self.running_mean.clone(), (self.running_var + self.eps).sqrt()
        if self.training and len(latent):
            self._follow(latent.detach())
        if not self.training or len(latent) < 3:
            return (latent - mean) / std
        middle, spread = latent.mean(dim=0), (latent.var(dim=0, correction=0) + self.eps).sqrt()
        return (latent - middle) / spread * (spread / std).detach() + ((middle - mean) / std).detach()

    @torch.no_grad()
    def _follow(self, latent: Tensor) -> None:
        """Update the running statistics with a batch: a plain mean at first, then a moving average."""
        self.num_batches_tracked += 1
        share = (1 / self.num_batches_tracked).clamp(min=self.momentum).to(latent.dtype)
        deviation = latent - self.running_mean  # a single frame has none from the batch's own mean
        self.running_var.lerp_(deviation.square().mean(dim=0), share)
        self.running_mean.lerp_(latent.mean(dim=0), share)


class GTEncoder(nn.Module):
    """Ground-truth latent encoder E_phi: encode the mask of a frame as ``latent_dim`` numbers, z0.

    It is used in training, where it gives the diffusion its target, and in diagnosis, where it shows what the
    decoder would do if the sampler were perfect.

    Args:
        latent_dim: D, length of the latent (Table VI of the paper: 24 works best).
        normalize: whether to normalise the latent, see :class:`LatentNorm`. Without it nothing keeps the
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
            masks: class of each pixel, ``(..., H, W)``; every class except background counts as 1.

        Raises:
            ValueError: if ``masks`` has fewer than two axes.
        """
        check_shape("masks", masks, "... h w")
        leading = masks.shape[:-2]
        dtype = next(self.encoder.parameters()).dtype  # also the norm's, even if autocast changes the code's
        picture = (masks > 0).to(dtype).reshape(-1, 1, *masks.shape[-2:])
        latent = self.norm(self.encoder(picture).to(dtype))
        return latent.reshape(*leading, self.latent_dim)
