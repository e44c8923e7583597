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
        "AVSBenchMS3",
        "AVSBenchS4",
        "Clip",
        "ConditionEncoder",
        "DiffusionAVS",
        "FPNHead",
        "FScore",
        "GTEncoder",
        "InfoNCE",
        "LatentCondDiffusion",
        "LatentInjection",
        "LogMel",
        "MaskIoU",
        "MelCNN",
        "Neck",
        "NoiseEstimator",
        "Segmentation",
        "SyntheticAVS",
        "TPAVI",
        "VGGish",
        "VisualEncoder",
    ],
    "avslib.encoders": ["MelCNN", "Neck", "VGGish", "VisualEncoder"],
    "avslib.fusion": ["TPAVI"],
    "avslib.latent": [
        "ConditionEncoder",
        "GTEncoder",
        "LatentCondDiffusion",
        "NoiseEstimator",
        "cosine_ddim",
    ],
    "avslib.decoders": ["FPNHead", "LatentInjection"],
    "avslib.losses": ["InfoNCE", "binary_cross_entropy"],
    "avslib.metrics": ["FScore", "MaskIoU"],
    "avslib.data": ["AVSBenchMS3", "AVSBenchS4", "SyntheticAVS", "audio_blind_ceiling", "write_avsbench"],
    "avslib.models": ["DiffusionAVS", "Segmentation"],
    "avslib.training": ["DiffusionAVSObjective", "evaluate", "fit"],
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
