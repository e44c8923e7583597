from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avslib.fusion.pyramid import PyramidFusion
from avslib.fusion.tpavi import MODES

SIDES = (4, 3, 2)
every_attention = pytest.mark.parametrize(
    "attention", [("audio",), ("visual",), ("audio", "visual")], ids=["audio", "visual", "both"]
)


def make(*, seed: int = 0, **arguments: Any) -> PyramidFusion:
    """A fusion in evaluation in which nothing is left at zero or one."""
    torch.manual_seed(seed)
    fuse = PyramidFusion(8, **{"num_levels": len(SIDES), "audio_channels": 6, **arguments})
    for parameter in fuse.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fuse.double().eval()


def make_clip(b: int = 2, t: int = 4, a: int = 6) -> tuple[list[Tensor], Tensor]:
    pyramid = [torch.randn(b, t, 8, side, side + 1, dtype=torch.float64) for side in SIDES]
    return pyramid, torch.randn(b, t, a, dtype=torch.float64)


def literal(
    fuse: PyramidFusion,
    pyramid: list[Tensor],
    audio: Tensor,
    valid: Tensor,
    *,
    levels: set[int],
    attention: tuple[str, ...],
    window: int,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Clip by clip, window by window, with the factor 0 or 1 that the published code multiplies by."""
    flag = valid.double()[..., None, None, None]
    fused: list[Tensor] = []
    aligned: list[Tensor | None] = []
    for i, features in enumerate(pyramid):
        x, sounds = features * flag, []
        y = torch.zeros_like(x) if i in levels else x
        for clip in range(x.shape[0] if i in levels else 0):
            for start in range(0, x.shape[1], window):
                part = (slice(clip, clip + 1), slice(start, start + window))
                results = [fuse[i](x[part], audio[part] if word == "audio" else None) for word in attention]
                y[part] = sum(result for result, _ in results) / len(results)
                sounds += [sound for _, sound in results if sound is not None]
        fused.append(y * flag)
        aligned.append(torch.cat(sounds, dim=1).view(*x.shape[:2], -1) if sounds else None)
    return fused, aligned


@every_attention
@given(
    b=st.integers(1, 3),
    t=st.integers(1, 6),
    window=st.integers(1, 3),
    levels=st.sets(st.integers(0, 2)),
    mode=st.sampled_from(MODES),
    normalize=st.booleans(),
    seed=st.integers(0, 99),
)
def test_is_tpavi_level_by_level_and_window_by_window(
    attention: tuple[str, ...],
    b: int,
    t: int,
    window: int,
    levels: set[int],
    mode: str,
    normalize: bool,
    seed: int,
) -> None:
    fuse = make(seed=seed, levels=levels, attention=attention, window=window, mode=mode, normalize=normalize)
    pyramid, audio = make_clip(b, t)
    valid = torch.rand(audio.shape[:2]) > 0.3
    expected, sounds = literal(fuse, pyramid, audio, valid, levels=levels, attention=attention, window=window)
    fused, aligned = fuse(pyramid, audio, valid)
    for ours, theirs in zip(fused, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    for sound, other in zip(aligned, sounds, strict=True):
        torch.testing.assert_close(sound, other)


def test_without_a_window_or_padding_the_whole_clip_is_fused() -> None:
    fuse = make()
    pyramid, audio = make_clip()
    fused, aligned = fuse(pyramid, audio)
    for block, features, ours, sound in zip(fuse, pyramid, fused, aligned, strict=True):
        z, a = block(features, audio)
        assert torch.equal(ours, z)
        assert torch.equal(sound, a)


def test_a_level_that_is_not_fused_passes_and_has_no_weights() -> None:
    fuse = make(levels=[2])
    assert {key.split(".")[0] for key in fuse.state_dict()} == {"2"}
    assert "2.query.weight" in fuse.state_dict()
    pyramid, audio = make_clip()
    fused, aligned = fuse(pyramid, audio)
    assert fused[0] is pyramid[0]
    assert fused[1] is pyramid[1]
    assert aligned[:2] == [None, None]
    assert not torch.equal(fused[2], pyramid[2])

    nothing = make(levels=())
    assert not nothing.state_dict()
    fused, aligned = nothing(pyramid)
    assert all(ours is theirs for ours, theirs in zip(fused, pyramid, strict=True))
    assert aligned == [None] * 3


def test_windows_do_not_see_each_other() -> None:
    fuse = make(window=2)
    pyramid, audio = make_clip(t=4)
    before = fuse(pyramid, audio).pyramid
    for tensor in [*pyramid, audio]:
        tensor[:, 2:] = torch.randn_like(tensor[:, 2:])
    for ours, theirs in zip(fuse(pyramid, audio).pyramid, before, strict=True):
        torch.testing.assert_close(ours[:, :2], theirs[:, :2])
        assert not torch.allclose(ours[:, 2:], theirs[:, 2:])


@every_attention
def test_what_a_padded_frame_shows_is_nowhere_seen(attention: tuple[str, ...]) -> None:
    fuse = make(attention=attention, levels=[0, 1])
    pyramid, audio = make_clip()
    valid = torch.tensor([[True, True, True, True], [True, True, False, False]])
    before = fuse(pyramid, audio, valid).pyramid
    for features in pyramid:
        features[~valid] = torch.nan
    for ours, theirs in zip(fuse(pyramid, audio, valid).pyramid, before, strict=True):
        assert torch.equal(ours, theirs)
        assert (ours[~valid] == 0).all()


def test_both_attentions_share_their_weights_and_update_the_norm_one_by_one() -> None:
    fuse, literally = make(attention=("audio", "visual")).train(), make(attention=("audio", "visual")).train()
    assert fuse.state_dict().keys() == make(attention=("audio",)).state_dict().keys()
    pyramid, audio = make_clip()
    fuse(pyramid, audio)
    for block, features in zip(literally, pyramid, strict=True):
        block(features)  # AVSBench attends to the pixels first
        block(features, audio)
    torch.testing.assert_close(fuse.state_dict(), literally.state_dict())


def test_without_attention_to_sound_there_is_none_to_give_and_no_weight_for_it() -> None:
    fuse = make(attention=["visual"])
    assert not any("align" in key for key in fuse.state_dict())
    pyramid, audio = make_clip()
    fused, aligned = fuse(pyramid)
    assert aligned == [None] * 3
    for ours, theirs in zip(fuse(pyramid, audio).pyramid, fused, strict=True):
        assert torch.equal(ours, theirs)


@every_attention
def test_every_weight_gets_gradient_and_the_pyramid_stays(attention: tuple[str, ...]) -> None:
    fuse = make(attention=attention).train()
    pyramid, audio = make_clip()
    before = [level.clone() for level in pyramid]
    valid = torch.rand(audio.shape[:2]) > 0.3
    fused, _ = fuse([level.requires_grad_() for level in pyramid], audio, valid)
    sum((level * torch.randn_like(level)).sum() for level in fused).backward()
    for tensor in [*fuse.parameters(), *pyramid]:
        assert tensor.grad is not None
    for level, same in zip(pyramid, before, strict=True):
        assert torch.equal(level, same)
        assert level.grad is not None
        assert (level.grad[~valid] == 0).all()


def test_ecmvae_needs_no_alignment() -> None:
    fuse = make(audio_channels=None, normalize=True)
    pyramid, audio = make_clip(a=8)
    aligned = fuse(pyramid, audio).audio
    unit = audio / (audio.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    for sound in aligned:
        torch.testing.assert_close(sound, unit)


def test_in_the_semantic_setting_the_alignment_has_no_bias() -> None:
    assert make().state_dict().keys() - make(audio_bias=False).state_dict().keys() == {
        f"{level}.align.bias" for level in range(3)
    }


def test_state_dict_round_trip() -> None:
    fuse, other = make(), make(seed=1)
    pyramid, audio = make_clip()
    assert not torch.equal(fuse(pyramid, audio).pyramid[0], other(pyramid, audio).pyramid[0])
    other.load_state_dict(fuse.state_dict())
    for ours, theirs in zip(fuse(pyramid, audio).pyramid, other(pyramid, audio).pyramid, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_under_autocast(dtype: torch.dtype) -> None:
    fuse = make(attention=("audio", "visual"), window=2).float()
    pyramid, audio = make_clip()
    pyramid, audio = [level.float() for level in pyramid], audio.float()
    valid = torch.ones(2, 4, dtype=torch.bool)
    expected = fuse(pyramid, audio, valid).pyramid
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = fuse([level.to(dtype) for level in pyramid], audio.to(dtype), valid).pyramid
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.float() - theirs).abs().mean() < 0.03 * theirs.abs().mean()


def test_wrong_arguments_are_named() -> None:
    for attention in ((), "audio"):
        with pytest.raises(ValueError, match="attention: expected a sequence of at least one word, got"):
            make(attention=attention)
    with pytest.raises(ValueError, match="attention: expected one of 'visual', 'audio', got 'sound'"):
        make(attention=("sound",))
    with pytest.raises(ValueError, match=r"levels: expected numbers from 0 to 2, got \(3,\)"):
        make(levels=(3,))
    with pytest.raises(ValueError, match=r"levels: expected numbers from 0 to 2, got \[-1\]"):
        make(levels=[-1])
    with pytest.raises(ValueError, match="window: expected a number above 0, got 0"):
        make(window=0)
    with pytest.raises(ValueError, match="num_levels: expected a number above 0, got 0"):
        make(num_levels=0)
    with pytest.raises(ValueError, match="mode: expected one of 'dot'"):
        make(mode="dott")
    fuse = make(window=3)
    pyramid, audio = make_clip()
    with pytest.raises(ValueError, match="pyramid: expected 3 levels, got 2"):
        fuse(pyramid[:2], audio)
    with pytest.raises(ValueError, match=r"pyramid\[1\]: expected shape .* with b=2, t=4, c=8, got \(2, 3,"):
        fuse([pyramid[0], pyramid[1][:, :3], pyramid[2]], audio)
    with pytest.raises(ValueError, match=r"audio: expected .* with b=2, t=4, a=6, got \(2, 4, 5\)"):
        fuse(pyramid, audio[..., :5])
    with pytest.raises(ValueError, match="audio: expected one embedding per second, got None"):
        fuse(pyramid)
    with pytest.raises(ValueError, match=r"valid: expected shape \(b, t\) with b=2, t=4, got \(2, 3\)"):
        fuse(pyramid, audio, torch.ones(2, 3, dtype=torch.bool))
