from __future__ import annotations

import pytest
import torch

from avslib.models import DiffusionAVS, EncoderDecoder, create_model


@pytest.mark.parametrize("fusion", ["tpavi", "film"])
@pytest.mark.parametrize("window", [None, 1])
def test_it_is_diffusion_avs_without_a_latent(fusion: str, window: int | None) -> None:
    torch.manual_seed(0)
    twin = create_model("diffusion_avs.small", fusion=fusion, window=window).eval()
    model = create_model("encoder_decoder.small", fusion=fusion, window=window).eval()
    assert isinstance(twin, DiffusionAVS)
    weights = twin.state_dict()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    frames, log_mel = torch.randn(2, 3, 3, 45, 61), torch.randn(2, 3, 1, 96, 64)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    with torch.no_grad():
        pixels, audio = twin.embed(frames, log_mel)
        assert audio is not None
        expected = twin.head(twin.encode(pixels, audio, valid).pyramid, size=(45, 61))
        found = model(frames, log_mel, valid=valid).logits
    assert torch.equal(found[valid], expected[valid])
    assert not found[~valid].any()


def test_the_preset_with_film_is_the_model_with_film() -> None:
    torch.manual_seed(0)
    preset = create_model("encoder_decoder_film.small")
    torch.manual_seed(0)
    model = create_model("encoder_decoder.small", fusion="film")
    assert isinstance(preset, EncoderDecoder)
    weights = model.state_dict()
    assert preset.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in preset.state_dict().items())
