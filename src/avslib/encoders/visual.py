"""Encode a frame as a pyramid of four feature maps, with any timm backbone."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from avslib.encoders.backbone import check_backbone, check_frames, find_levels, load_backbone


class VisualEncoder(nn.Module):
    """A timm backbone that returns feature maps at strides 4, 8, 16 and 32, finest first.

    Args:
        backbone: name of a timm model that supports ``features_only``; the papers use ``"resnet50"`` and
            ``"pvt_v2_b5"``.
        pretrained: whether timm downloads its pretrained weights for the backbone.
        weights: a local file with the backbone's weights; see :meth:`load_weights`.

    Raises:
        ValueError: if timm does not know the backbone, or if it lacks one of the four strides.

    Zhou et al., AVSBench (ECCV 2022), section 4; Mao et al., DiffusionAVS, section III-C.

    Example:
        >>> import torch
        >>> encoder = VisualEncoder("resnet18")
        >>> [tuple(level.shape) for level in encoder(torch.rand(1, 3, 64, 96))]
        [(1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]
    """

    def __init__(
        self, backbone: str = "pvt_v2_b5", *, pretrained: bool = False, weights: str | Path | None = None
    ) -> None:
        super().__init__()
        import timm

        check_backbone(backbone)
        self.backbone = timm.create_model(backbone, features_only=True, pretrained=pretrained)
        info = self.backbone.feature_info
        self._levels = find_levels(backbone, info.reduction())
        self.channels: tuple[int, ...] = tuple(info.channels()[level] for level in self._levels)
        self._channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        if weights is not None:
            self.load_weights(weights)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Return four feature maps ``(N, C_l, h_l, w_l)``.

        Args:
            frames: ``(N, 3, H, W)``, ImageNet-normalised, ``H, W >= 32``.

        Raises:
            ValueError: if ``frames`` has another shape or is smaller than 32 px.
        """
        check_frames(frames)
        features = self.backbone(frames)
        pyramid = [features[level] for level in self._levels]
        return [level.permute(0, 3, 1, 2) for level in pyramid] if self._channels_last else pyramid

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass instead of storing them.

        This trades a second forward pass for memory: most of what a training step stores is in the backbone.
        The gradients are the same, but the running statistics of batch norms are updated twice per step.

        Raises:
            ValueError: if timm has no checkpointing for the backbone.
        """
        try:
            self.backbone.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError) as error:
            raise ValueError("backbone: expected one whose gradients timm can checkpoint") from error

    def load_weights(self, path: str | Path) -> None:
        """Load a backbone's weights from a ``.safetensors`` or ``.pth`` file in timm's naming.

        A classifier's head in the file is ignored; all of the backbone's weights must be in the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a weight is missing or has another shape; the message names the first ones.
        """
        load_backbone(self.backbone, path)
