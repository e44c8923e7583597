import pytest
import torch

from avslib.models import C3N, AudioBlind, create_model, list_models


def test_names_are_families_and_backbones() -> None:
    names = list_models()
    assert names == sorted(names)
    families = {name.split(".")[0] for name in names}
    assert families == {
        "audio_blind",
        "audio_blind_temporal",
        "avsbench",
        "avsbench_semantic",
        "c3n",
        "cvae",
        "diffusion_avs",
        "ecmvae",
        "encoder_decoder",
        "encoder_decoder_film",
    }
    assert all(
        f"{family}.{size}" in names for family in families for size in ("pvt_v2_b5", "resnet50", "small")
    )
    assert list_models("c3n.*") == ["c3n.pvt_v2_b5", "c3n.resnet50", "c3n.small"]
    assert list_models("nothing*") == []


def test_a_wrong_name_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"got 'ecmvae.pvt_v2_b2'; the nearest are ecmvae\.pvt_v2_b5, "):
        create_model("ecmvae.pvt_v2_b2")
    with pytest.raises(ValueError, match=r"got 'difusion_avs\.small'; the nearest are diffusion_avs\.small"):
        create_model("difusion_avs.small")
    with pytest.raises(ValueError, match=r"got '\?'; expected one of \['audio_blind\.pvt_v2_b5'"):
        create_model("?")


def test_overrides_win_and_wrong_ones_are_named() -> None:
    with torch.device("meta"):
        narrow = C3N("resnet18", audio_channels=64)
    assert narrow.quantizer is not None
    assert narrow.quantizer.means.shape == (64,)
    model = create_model("c3n.small", num_classes=4, channels=32, num_audio_classes=5)
    assert isinstance(model, C3N)
    assert model.num_classes == 4
    assert model.consensus.similarity.shape == (1000, 5)
    blind = create_model("audio_blind_temporal.small", temporal=False, decoder="fpn")
    assert isinstance(blind, AudioBlind)
    assert blind.audio_encoder is None
    assert not list(blind.fusion.parameters())
    with pytest.raises(
        TypeError, match="breadth: ECMVAE has no such argument; it has backbone, audio_encoder"
    ):
        create_model("ecmvae.small", breadth=3)
