from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avslib.fusion import FiLM, PyramidFiLM
from avslib.models import DiffusionAVS, create_model

sizes = st.integers(1, 3)


@given(b=sizes, t=sizes, h=sizes, w=sizes, seed=st.integers(0, 100))
def test_film_is_the_slow_literal_one(b: int, t: int, h: int, w: int, seed: int) -> None:
    torch.manual_seed(seed)
    film = FiLM(4, audio_channels=3).double()
    x, audio = torch.randn(b, t, 4, h, w).double(), torch.randn(b, t, 3).double()
    y = film(x, audio)
    weight, bias = film.modulate.weight, film.modulate.bias
    for clip in range(b):
        for second in range(t):
            for channel in range(4):
                scale = sum(weight[channel, a] * audio[clip, second, a] for a in range(3)) + bias[channel]
                place = channel + 4
                shift = sum(weight[place, a] * audio[clip, second, a] for a in range(3)) + bias[place]
                expected = x[clip, second, channel] * (1 + scale) + shift
                torch.testing.assert_close(y[clip, second, channel], expected)


def test_without_weights_nothing_changes() -> None:
    film = FiLM(4, audio_channels=3)
    for parameter in film.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 4, 3, 3)
    assert film(x, torch.randn(1, 2, 3)).equal(x)


@pytest.mark.parametrize(
    ("x", "audio", "message"),
    [
        ((1, 2, 5, 3, 3), (1, 2, 3), r"x: expected shape \(b, t, c, h, w\) with c=4, got \(1, 2, 5"),
        ((1, 2, 4, 3, 3), (1, 1, 3), r"audio: expected shape .* with b=1, t=2, a=3, got \(1, 1, 3\)"),
        ((1, 2, 4, 3, 3), (1, 2, 4), r"audio: expected shape .* with b=1, t=2, a=3, got \(1, 2, 4\)"),
    ],
)
def test_other_shapes_are_refused_by_name(x: tuple[int, ...], audio: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FiLM(4, audio_channels=3)(torch.zeros(x), torch.zeros(audio))


def test_widths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="audio_channels: expected a number above 0, got 0"):
        FiLM(4, audio_channels=0)
    with pytest.raises(ValueError, match="num_levels: expected a number above 0, got 0"):
        PyramidFiLM(4, num_levels=0)


def test_a_pyramid_is_modulated_level_by_level_and_padding_is_zero() -> None:
    fuse = PyramidFiLM(4, num_levels=2, audio_channels=3)
    pyramid = [torch.randn(1, 3, 4, side, side) for side in (4, 2)]
    audio, valid = torch.randn(1, 3, 3), torch.tensor([[True, False, True]])
    fused = fuse(pyramid, audio, valid)
    assert fused.audio == [None, None]
    for film, x, y in zip(fuse, pyramid, fused.pyramid, strict=True):
        assert y[:, [0, 2]].equal(film(x, audio)[:, [0, 2]])
        assert not y[:, 1].any()
    with pytest.raises(ValueError, match="pyramid: expected 2 levels, got 1"):
        fuse(pyramid[:1], audio)
    with pytest.raises(ValueError, match=r"valid: expected shape \(b, t\) with b=1, t=3, got \(1, 2\)"):
        fuse(pyramid, audio, valid[:, :2])


def test_the_papers_model_may_have_it() -> None:
    torch.manual_seed(0)
    model = create_model("diffusion_avs.small", fusion="film").eval()
    assert isinstance(model, DiffusionAVS)
    assert isinstance(model.fusion, PyramidFiLM)
    frames, log_mel = torch.rand(1, 2, 3, 64, 64), torch.randn(1, 2, 1, 96, 64)
    other = log_mel.clone()
    other[:, 1] += 1
    with torch.no_grad():
        first, second = (
            model(frames, heard, generator=torch.Generator().manual_seed(0)).logits
            for heard in (log_mel, other)
        )
    assert first[:, 0].equal(second[:, 0])
    assert not first[:, 1].equal(second[:, 1])
    for family in ("diffusion_avs", "encoder_decoder"):
        with pytest.raises(ValueError, match="window: expected None or 1 with fusion='film', got 5"):
            create_model(f"{family}.small", fusion="film", window=5)
        with pytest.raises(ValueError, match="fusion: expected one of 'tpavi', 'film', got 'concat'"):
            create_model(f"{family}.small", fusion="concat")
