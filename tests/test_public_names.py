import importlib
import subprocess
import sys

import pytest

import avslib

HEAVY = (
    "accelerate",
    "av",
    "diffusers",
    "matplotlib",
    "scipy",
    "timm",
    "torchaudio",
    "torchmetrics",
    "torchvision",
)
PUBLIC = {
    "avslib": [
        "ASPPNeck",
        "AVSBenchBaseline",
        "AVSBenchMS3",
        "AVSBenchS4",
        "AVSBenchSemantic",
        "AVSModel",
        "AudioBlind",
        "AudioEncoder",
        "AudioSetHead",
        "AudioVisualMatching",
        "C3N",
        "CVAESegmenter",
        "ConditionEncoder",
        "ConsensusAttention",
        "DiagonalGaussian",
        "DiffusionAVS",
        "DilatedNeck",
        "ECMVAE",
        "EncoderDecoder",
        "FPNHead",
        "FScore",
        "GTEncoder",
        "GaussianEncoder",
        "InfoNCE",
        "LatentCondDiffusion",
        "LatentInjection",
        "LogMel",
        "MaskIoU",
        "MelCNN",
        "MixedClips",
        "Neck",
        "NoiseEstimator",
        "PCAQuantizer",
        "PyramidFusion",
        "ReductionNeck",
        "Segmentation",
        "ShardedClips",
        "SyntheticAVS",
        "TPAVI",
        "TopDownDecoder",
        "VGGish",
        "VideoSegmenter",
        "VisualClassifier",
        "VisualEncoder",
        "create_model",
        "list_models",
        "load_model",
        "Clip",
    ],
    "avslib.encoders": [
        "ASPPNeck",
        "AudioEncoder",
        "AudioSetHead",
        "DilatedNeck",
        "MelCNN",
        "Neck",
        "PCAQuantizer",
        "ReductionNeck",
        "VGGish",
        "VisualClassifier",
        "VisualEncoder",
        "scale_quantized",
    ],
    "avslib.fusion": [
        "ConsensusAttention",
        "Fused",
        "PyramidFusion",
        "TPAVI",
        "channel_spatial_attention",
        "class_gradient_weights",
        "consensus",
        "label_similarity",
    ],
    "avslib.latent": [
        "ConditionEncoder",
        "DiagonalGaussian",
        "GTEncoder",
        "GaussianEncoder",
        "LatentCondDiffusion",
        "NoiseEstimator",
        "cosine_ddim",
        "jensen_shannon_divergence",
        "jensen_shannon_surrogate",
        "kl_divergence",
        "product_of_experts",
    ],
    "avslib.decoders": ["FPNHead", "LatentInjection", "TopDownDecoder"],
    "avslib.losses": [
        "AudioVisualMatching",
        "CrossEntropy",
        "DiceLoss",
        "InfoNCE",
        "MutualInformation",
        "StructureLoss",
        "VisualVisualMatching",
        "audio_visual_matching",
        "binary_cross_entropy",
        "cross_entropy",
        "dice_loss",
        "difference_loss",
        "structure_loss",
        "visual_visual_matching",
    ],
    "avslib.metrics": [
        "BoundaryF",
        "CalibrationError",
        "EnergyDistance",
        "FScore",
        "FalsePositiveRate",
        "JAndF",
        "MaskIoU",
        "NullScore",
        "OnsetAccuracy",
        "PROTOCOLS",
        "SampleIoU",
        "SemanticFScore",
        "SemanticIoU",
        "report",
    ],
    "avslib.data": [
        "AVSBenchMS3",
        "AVSBenchS4",
        "AVSBenchSemantic",
        "AddNoise",
        "ClipFolder",
        "ClipReader",
        "ClipTransform",
        "MixedClips",
        "NoiseSound",
        "OffScreenSound",
        "RandomGain",
        "ShiftedSound",
        "SilentSound",
        "SwappedSound",
        "SyntheticAVS",
        "VPO",
        "audio_blind_ceiling",
        "train_transform",
        "write_avsbench",
    ],
    "avslib.curation": ["convert_pickles", "examine", "fix", "prepare", "prepare_folder"],
    "avslib.storage": ["CachedClips", "ShardedClips", "pack"],
    "avslib.models": [
        "AVSBenchBaseline",
        "AVSModel",
        "AudioBlind",
        "C3N",
        "CVAESegmenter",
        "DiffusionAVS",
        "ECMVAE",
        "EncoderDecoder",
        "Segmentation",
        "create_model",
        "list_models",
    ],
    "avslib.pipeline": ["SegmentedFrame", "VideoSegmenter", "draw_mask", "segment_video", "write_overlay"],
    "avslib.models.weights": ["build_from_reference", "from_reference", "left_out"],
    "avslib.training": [
        "AVSBenchObjective",
        "C3NObjective",
        "CVAEObjective",
        "DiffusionAVSObjective",
        "ECMVAEObjective",
        "SegmentationObjective",
        "FolderPredictions",
        "ModelPredictions",
        "evaluate",
        "fit",
        "listen",
    ],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_promised_names_are_there(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in PUBLIC[module]:
        assert name in loaded.__all__
        assert getattr(loaded, name).__doc__


def test_the_package_exports_what_it_can_load() -> None:
    assert all(hasattr(avslib, name) for name in avslib.__all__)
    assert sorted(avslib.__all__) == dir(avslib)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'avslib' has no attribute 'TPAVY'"):
        avslib.TPAVY  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, avslib; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
