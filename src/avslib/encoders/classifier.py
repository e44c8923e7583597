"""Encode a frame as a pyramid and as class scores that can be traced back to the pyramid."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avslib.encoders.backbone import check_backbone, check_frames, find_levels, load_backbone

_tapping = Lock()
"""Held while a backbone has hooks, because forward passes in other threads would run them too."""


class Classified(NamedTuple):
    """The output of :class:`VisualClassifier`; levels and taps are ordered finest first."""

    levels: list[Tensor]  # (N, C_l, h_l, w_l) at strides 4, 8, 16 and 32
    taps: list[Tensor]  # (N, C_l, ...), tensors to differentiate the scores by; space is one axis or two
    scores: Tensor  # (N, num_classes), logits; always with a graph back to the first tap


class VisualClassifier(nn.Module):
    """A timm classifier that also returns its feature maps, with scores that can be differentiated by them.

    One forward pass serves both the loss and the class gradient. Scores always come with a graph, even under
    ``torch.no_grad()``. In that case, or with a frozen backbone, the graph begins at the first tap, nothing
    before it is kept, and the levels are detached. The graph is freed with the scores.

    The tap of a level is the level itself. The exception is PVT v2, whose stages end in a norm: it is tapped
    before that norm, as in the published code of C3N (Shi et al., 2023).

    The classifier's head gets no gradient from a segmentation loss. It is therefore frozen, because
    DistributedDataParallel waits for the gradients of all trainable parameters.

    Args:
        backbone: name of a timm classifier with channels-first feature maps at strides 4, 8, 16 and 32, such
            as ``"pvt_v2_b5"`` and ``"resnet50"``.
        num_classes: number of scores; ImageNet has 1000 classes.
        pretrained: whether timm downloads its pretrained weights for the backbone.
        weights: a local file with the weights, including the head's; see :meth:`load_weights`.

    Raises:
        ValueError: if timm does not know the backbone, if it lacks one of the four strides, or if it has no
            module whose output is the channels-first map of a level.

    Example:
        >>> classifier = VisualClassifier("resnet18", num_classes=10)
        >>> with torch.no_grad():
        ...     levels, taps, scores = classifier(torch.rand(1, 3, 64, 96))
        >>> [tuple(level.shape) for level in levels], scores.shape
        ([(1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)], torch.Size([1, 10]))
        >>> [gradient.shape[1] for gradient in torch.autograd.grad(scores[0, 7], taps)]
        [64, 128, 256, 512]
    """

    def __init__(
        self,
        backbone: str = "pvt_v2_b5",
        *,
        num_classes: int = 1000,
        pretrained: bool = False,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        import timm

        check_backbone(backbone)
        self.backbone = timm.create_model(backbone, pretrained=pretrained, num_classes=num_classes)
        info = getattr(self.backbone, "feature_info", None) or []
        levels = find_levels(backbone, [level["reduction"] for level in info])
        self.channels: tuple[int, ...] = tuple(info[level]["num_chs"] for level in levels)
        self._stages = [info[level]["module"] for level in levels]
        self._name = backbone
        modules = dict(self.backbone.named_modules())
        head = self.backbone.get_classifier()
        channels_first = getattr(self.backbone, "output_fmt", "NCHW") == "NCHW"
        if not (set(self._stages) <= set(modules) and channels_first and isinstance(head, nn.Module)):
            raise ValueError(self._cannot_be_tapped())
        parameters = list(self.backbone.named_parameters())
        last = max(i for i, (name, _) in enumerate(parameters) if name.startswith(f"{self._stages[-1]}."))
        for _, parameter in parameters[last + 1 :]:  # the head, and what lies between it and the last level
            parameter.requires_grad_(False)
        if weights is not None:
            self.load_weights(weights)

    def forward(self, frames: Tensor) -> Classified:
        """Return feature maps, taps and scores from one pass.

        Args:
            frames: ``(N, 3, H, W)``, ImageNet-normalised, ``H, W >= 32``.

        Raises:
            ValueError: if ``frames`` has another shape or is smaller than 32 px.
        """
        check_frames(frames)
        trained = torch.is_grad_enabled() and (
            frames.requires_grad or any(p.requires_grad for p in self.backbone.parameters())
        )
        levels: list[Tensor] = []
        taps: list[Tensor] = []

        def tap(features: Tensor) -> Tensor:
            torch.set_grad_enabled(True)  # from the first tap to the end of the pass
            taps.append(features if features.requires_grad else features.detach().requires_grad_())
            return taps[-1]

        def tap_tokens(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
            return tap(inputs[0].transpose(1, 2)).transpose(1, 2)

        def keep_level(_: nn.Module, __: Any, level: Any) -> None:
            if (
                not isinstance(level, Tensor)
                or level.ndim != 4
                or level.shape[1] != self.channels[len(levels)]
            ):
                raise ValueError(self._cannot_be_tapped())
            levels.append(level if trained else level.detach())

        def tap_level(stage: nn.Module, inputs: Any, level: Any) -> Tensor:
            keep_level(stage, inputs, level)
            return tap(level)

        with (
            _tapping,
            torch.inference_mode(False),
            torch.set_grad_enabled(trained),
            ExitStack() as hooks,
        ):
            for stage in map(self.backbone.get_submodule, self._stages):
                if _ends_in_norm(stage):
                    hooks.callback(stage.get_submodule("norm").register_forward_pre_hook(tap_tokens).remove)
                    hooks.callback(stage.register_forward_hook(keep_level).remove)
                else:
                    hooks.callback(stage.register_forward_hook(tap_level).remove)
            scores = self.backbone(frames.clone() if frames.is_inference() else frames)
        if len(levels) < len(self.channels):
            raise ValueError(self._cannot_be_tapped())
        return Classified(levels, taps, scores)

    def load_weights(self, path: str | Path) -> None:
        """Load weights, including the head's, from a ``.safetensors`` or ``.pth`` file in timm's naming.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a weight is missing or has another shape; the message names the first ones.
        """
        load_backbone(self.backbone, path)

    def _cannot_be_tapped(self) -> str:
        return (
            "backbone: expected a classifier with one head, and with modules whose outputs are the levels, "
            f"channels first, as ResNet and PVT v2 have; {self._name!r} differs"
        )


def _ends_in_norm(stage: nn.Module) -> bool:
    from timm.models.pvt_v2 import PyramidVisionTransformerStage

    return isinstance(stage, PyramidVisionTransformerStage)
