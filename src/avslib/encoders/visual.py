"""A frame as a pyramid of four feature maps, from any timm backbone."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from avslib._checks import check_shape
from avslib.encoders.state_dict import read_state_dict

STRIDES = (4, 8, 16, 32)


class VisualEncoder(nn.Module):
    """Feature maps of a frame at strides 4, 8, 16 and 32, finest first.

    Args:
        backbone: name of a timm model that supports ``features_only``; the papers use ``"resnet50"`` and
            ``"pvt_v2_b5"``.
        pretrained: whether timm downloads the weights it knows for the backbone.
        weights: a local file with the backbone's weights, see :meth:`load_weights`.

    Raises:
        ValueError: if timm does not know the backbone, or it lacks one of the four strides.

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

        if not timm.is_model(backbone):
            nearest = timm.list_models(f"*{backbone.split('_')[0]}*")[:5]
            hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
            raise ValueError(f"backbone: expected a model that timm knows, got {backbone!r}{hint}")
        self.backbone = timm.create_model(backbone, features_only=True, pretrained=pretrained)
        info = self.backbone.feature_info
        if not set(STRIDES) <= set(info.reduction()):
            raise ValueError(
                f"backbone: expected strides {STRIDES}, {backbone!r} has {tuple(info.reduction())}"
            )
        self._levels = [info.reduction().index(stride) for stride in STRIDES]
        self.channels: tuple[int, ...] = tuple(info.channels()[level] for level in self._levels)
        if weights is not None:
            self.load_weights(weights)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Return four feature maps ``(N, C_l, h_l, w_l)``.

        Args:
            frames: ``(N, 3, H, W)``, ImageNet-normalised, ``H, W >= 32``.

        Raises:
            ValueError: if ``frames`` has another shape or is smaller than 32 px.
        """
        size = check_shape("frames", frames, "n 3 h w")
        if min(size["h"], size["w"]) < STRIDES[-1]:
            raise ValueError(f"frames: expected H and W of at least 32 px, got {size['h']} x {size['w']}")
        features = self.backbone(frames)
        pyramid = [features[level] for level in self._levels]
        return [
            level if level.shape[1] == channels else level.permute(0, 3, 1, 2)  # some put channels last
            for level, channels in zip(pyramid, self.channels, strict=True)
        ]

    def load_weights(self, path: str | Path) -> None:
        """Load a backbone's weights from a ``.safetensors`` or ``.pth`` file in timm's naming.

        A classifier's head in the file is left out; everything that the backbone has must be there.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a weight is missing or has another shape; the message names the first ones.
        """
        stored = read_state_dict(path)
        wanted = self.backbone.state_dict()
        # features_only flattens timm's stages: `stages.0.` is called `stages_0.` there
        found = {
            key: stored.get(key, stored.get(re.sub(r"^(\w+?)_(\d+)\.", r"\1.\2.", key))) for key in wanted
        }
        bad = [key for key, value in found.items() if value is None or value.shape != wanted[key].shape]
        if bad:
            raise ValueError(
                f"{path}: expected the weights of {type(self.backbone).__name__} as timm names them; "
                f"{len(bad)} of {len(wanted)} are missing or have another shape, such as {', '.join(bad[:3])}"
            )
        self.backbone.load_state_dict(found)
