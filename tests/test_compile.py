"""What a training step or an evaluation spends its time in compiles as one graph.

Without code generation, but for one test: what is shown is that nothing stops the tracing. TPAVI is in
``tests/fusion``, whole models in inference are in ``tests/models/test_contract.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn

from avslib.decoders import FPNHead, LatentInjection, TopDownDecoder
from avslib.encoders import (
    ASPPNeck,
    AudioEncoder,
    AudioSetHead,
    DilatedNeck,
    Neck,
    PCAQuantizer,
    ReductionNeck,
    VisualEncoder,
)
from avslib.latent import (
    ConditionEncoder,
    DiagonalGaussian,
    GaussianEncoder,
    GTEncoder,
    LatentCondDiffusion,
    NoiseEstimator,
    jensen_shannon_divergence,
    jensen_shannon_surrogate,
    kl_divergence,
    product_of_experts,
)
from avslib.losses import (
    InfoNCE,
    MutualInformation,
    audio_visual_matching,
    binary_cross_entropy,
    cross_entropy,
    dice_loss,
    difference_loss,
    structure_loss,
    visual_visual_matching,
)
from avslib.metrics import f_curves, f_score, frame_iou, frame_statistics, mask_iou

B, T, H, W, C = 2, 3, 45, 61, 32
WIDTHS = (8, 16, 24, 32)

torch.manual_seed(0)
CLIP, AUDIO = torch.rand(B, T, 3, H, W), torch.rand(B, T, 128)
FRAMES, LOG_MEL = CLIP.flatten(0, 1), torch.rand(B, T, 1, 96, 64)
LATENT, CONDITION = torch.randn(2, B, T, 24)
ROWS, POSITIVE = torch.randn(2, 6, 24)
CLIP_OF_ROW = torch.tensor([0, 0, 1, 1, 2, 2])
GAUSSIAN, OTHER = (DiagonalGaussian(*torch.randn(2, B, T, 16)) for _ in range(2))
LOGITS, MASKS = torch.randn(B, T, 1, H, W), torch.randint(0, 2, (B, T, H, W))
LABELLED = torch.tensor([[True, False, False], [True, True, True]])
SIZES = [(-(-H // stride), -(-W // stride)) for stride in (4, 8, 16, 32)]
FEATURES = [torch.rand(B * T, width, *size) for width, size in zip(WIDTHS, SIZES, strict=True)]
PYRAMID = [torch.rand(B, T, C, *size) for size in SIZES]
SOUNDS = [torch.rand(B, T, C) for _ in SIZES]

Case: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]

BLOCKS: dict[str, Callable[[], Case]] = {  # made when they are tested
    "residual backbone": lambda: (VisualEncoder("test_resnet"), (FRAMES,)),
    "attention backbone": lambda: (VisualEncoder("pvt_v2_b0"), (FRAMES,)),
    "VGGish": lambda: (AudioEncoder("vggish"), (LOG_MEL[:1, :1],)),
    "MelCNN": lambda: (AudioEncoder("mel_cnn"), (LOG_MEL,)),
    "AudioSetHead": lambda: (AudioSetHead(hidden_channels=64), (AUDIO[:, :, None],)),
    "PCAQuantizer": lambda: (PCAQuantizer(), (AUDIO,)),
    "Neck": lambda: (Neck(WIDTHS, C), (FEATURES,)),
    "DilatedNeck": lambda: (DilatedNeck(WIDTHS, C), (FEATURES,)),
    "ASPPNeck": lambda: (ASPPNeck(WIDTHS, C), (FEATURES,)),
    "ReductionNeck": lambda: (ReductionNeck(WIDTHS, C), (FEATURES,)),
    "GTEncoder": lambda: (GTEncoder(), (MASKS,)),
    "ConditionEncoder": lambda: (ConditionEncoder(), (CLIP, AUDIO)),
    "GaussianEncoder": lambda: (GaussianEncoder(image_channels=3, vector_dim=128), (CLIP, AUDIO)),
    "NoiseEstimator": lambda: (NoiseEstimator(), (LATENT, torch.randint(20, (B, T)), CONDITION)),
    "LatentCondDiffusion": lambda: (LatentCondDiffusion(NoiseEstimator()), (LATENT, CONDITION)),
    "LatentInjection": lambda: (LatentInjection(C), (PYRAMID[-1], torch.randn(4, B, T, 24))),
    "FPNHead": lambda: (Sized(FPNHead(C, channels=C)), (PYRAMID,)),
    "TopDownDecoder": lambda: (Sized(TopDownDecoder(C)), (PYRAMID,)),
    "TopDownDecoder of ECMVAE": lambda: (
        Sized(TopDownDecoder(C, unit="batch_norm", upsample="nearest")),
        (PYRAMID,),
    ),
    "InfoNCE": lambda: (InfoNCE(), (ROWS, POSITIVE)),
    "InfoNCE between clips": lambda: (InfoNCE(same_clip_negatives=False), (ROWS, POSITIVE, CLIP_OF_ROW)),
    "MutualInformation": lambda: (MutualInformation(24), (ROWS, POSITIVE)),
}

FUNCTIONS: dict[str, Case] = {
    "sample": (
        lambda diffusion, condition, noise: diffusion.sample(condition, noise=noise),
        (LatentCondDiffusion(NoiseEstimator()), CONDITION, LATENT),
    ),
    "kl_divergence": (kl_divergence, (GAUSSIAN, OTHER)),
    "jensen_shannon_divergence": (jensen_shannon_divergence, (GAUSSIAN, OTHER)),
    "jensen_shannon_surrogate": (jensen_shannon_surrogate, (GAUSSIAN, OTHER)),
    "product_of_experts": (product_of_experts, ([GAUSSIAN, OTHER],)),
    "binary_cross_entropy": (binary_cross_entropy, (LOGITS, MASKS)),
    "binary_cross_entropy, labelled": (binary_cross_entropy, (LOGITS, MASKS, LABELLED)),
    "cross_entropy": (cross_entropy, (torch.randn(B, T, 5, H, W), MASKS)),
    "dice_loss": (dice_loss, (LOGITS, MASKS)),
    "structure_loss": (structure_loss, (LOGITS, MASKS)),
    "difference_loss": (difference_loss, (ROWS, POSITIVE)),
    "matching of S4": (
        lambda *tensors: audio_visual_matching(
            *tensors, foreground="probabilities", threshold=True, distance="cosine", reduction="mean"
        ),
        (LOGITS, PYRAMID, SOUNDS),
    ),
    "matching of MS3": (audio_visual_matching, (LOGITS, PYRAMID, SOUNDS)),
    "matching, labelled": (audio_visual_matching, (LOGITS, PYRAMID, SOUNDS, LABELLED)),
    "matching of pixels": (visual_visual_matching, (LOGITS, PYRAMID, SOUNDS)),
    "frame_statistics": (frame_statistics, (LOGITS, MASKS)),
    "frame_iou": (frame_iou, (LOGITS, MASKS)),
    "mask_iou": (mask_iou, (LOGITS, MASKS)),
    "f_curves": (f_curves, (LOGITS, MASKS)),
    "f_score": (f_score, (LOGITS, MASKS)),
}
SLOW = (
    "residual backbone",
    "attention backbone",
    "VGGish",
    "AudioSetHead",
    "GaussianEncoder",
    "TopDownDecoder of ECMVAE",
)


class Sized(nn.Module):
    """A decoder of frames of one size."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        return self.decoder(pyramid, size=(H, W))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in (*BLOCKS, *FUNCTIONS)],
)
def test_compiles_as_one_graph(name: str) -> None:
    function, arguments = FUNCTIONS[name] if name in FUNCTIONS else BLOCKS[name]()
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(function), backend="eager", fullgraph=True)
    results = []
    for call in (function, compiled):
        torch.manual_seed(1)
        results.append(call(*arguments))
    torch.testing.assert_close(*results)


def test_a_compiled_loss_refuses_masks_of_other_values() -> None:
    for loss, logits in ((binary_cross_entropy, LOGITS), (cross_entropy, torch.randn(B, T, 2, H, W))):
        torch._dynamo.reset()
        compiled = torch.compile(loss, backend="eager", fullgraph=True)
        with pytest.raises(RuntimeError, match=r"masks: expected .* where labelled, got others"):
            compiled(logits, MASKS * 255)


def test_a_compiled_metric_refuses_grey_levels() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(mask_iou, backend="eager", fullgraph=True)
    with pytest.raises(RuntimeError, match="masks: expected the values 0 and 1, got others"):
        compiled(LOGITS, MASKS * 255)


@pytest.mark.slow
def test_compiled_code_computes_the_same_and_so_does_its_gradient() -> None:
    torch.manual_seed(0)
    diffusion, inject = LatentCondDiffusion(NoiseEstimator()).eval(), LatentInjection(C)

    def decode(condition: Tensor, features: Tensor) -> Tensor:
        return inject(features, diffusion.sample(condition, noise=LATENT))

    torch._dynamo.reset()
    torch.testing.assert_close(
        torch.compile(decode, fullgraph=True)(CONDITION, PYRAMID[-1]),
        decode(CONDITION, PYRAMID[-1]),
        rtol=1e-4,
        atol=1e-5,
    )
    gradients = []
    for denoiser in (diffusion.denoiser, torch.compile(diffusion.denoiser, fullgraph=True)):
        diffusion.zero_grad()
        denoiser(LATENT, torch.full((B, T), 7), CONDITION).square().mean().backward()
        gradients.append([parameter.grad for parameter in diffusion.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
