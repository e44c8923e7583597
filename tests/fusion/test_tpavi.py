from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange, repeat
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from avslib.fusion.tpavi import MODES, TPAVI
from tests import _golden

every_mode = pytest.mark.parametrize("mode", MODES)
with_and_without_sound = pytest.mark.parametrize("sound", [True, False], ids=["sound", "no sound"])
sizes = {"b": st.integers(1, 3), "t": st.integers(1, 4), "h": st.integers(1, 4), "w": st.integers(1, 4)}


def make(channels: int, *, seed: int = 0, double: bool = True, **arguments: Any) -> TPAVI:
    """A block in which nothing is left at zero or one."""
    torch.manual_seed(seed)
    block = TPAVI(channels, **{"audio_channels": 6, **arguments})
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    if isinstance(block.batch_norm, nn.BatchNorm1d):
        block.batch_norm.running_mean = torch.randn(channels)
        block.batch_norm.running_var = torch.rand(channels) + 0.5
    return block.double() if double else block


def make_clip(
    b: int, t: int, c: int, h: int, w: int, *, sound: bool, double: bool = True, a: int = 6
) -> list[Tensor]:
    dtype = torch.float64 if double else torch.float32
    x, audio = torch.randn(b, t, c, h, w, dtype=dtype), torch.randn(b, t, a, dtype=dtype)
    return [x, audio] if sound else [x]


def unit_length(x: Tensor) -> Tensor:
    """The vectors along axis 2, one after the other, divided by their length."""
    vectors = [v / torch.sqrt((v * v).sum() + 1e-6) for v in x.movedim(2, -1).reshape(-1, x.shape[2])]
    return torch.stack(vectors).view(x.movedim(2, -1).shape).movedim(-1, 2)


def dense_audio(block: TPAVI, audio: Tensor) -> Tensor:
    aligned = block.align(audio)
    return unit_length(aligned) if block.normalize else aligned


def dense(block: TPAVI, norm: nn.BatchNorm3d | nn.Identity, x: Tensor, audio: Tensor | None = None) -> Tensor:
    """The equations of the paper, one after the other, with the matrix of all pairs."""
    _, t, _, h, w = x.shape
    n = t * h * w
    x = unit_length(x) if block.normalize else x
    pixels = rearrange(x, "b t c h w -> b (t h w) c")
    others = pixels if audio is None else repeat(dense_audio(block, audio), "b t c -> b (t h w) c", h=h, w=w)
    query, key = (pixels, others) if block.mode == "gaussian" else (block.query(pixels), block.key(others))
    if block.mode == "concatenate":
        query, key = repeat(query, "b i d -> b i j d", j=n), repeat(key, "b j d -> b i j d", i=n)
        f = torch.relu(block.pair(torch.cat([query, key], dim=-1))).squeeze(-1) / n
    elif block.mode == "dot":
        f = query @ key.mT / n
    else:
        f = (query @ key.mT).softmax(dim=-1)
    y = block.out(f @ block.value(pixels))
    y = norm(rearrange(y, "b (t h w) c -> b c t h w", t=t, h=h))
    z = block.layer_norm(rearrange(y, "b c t h w -> b t h w c") + rearrange(x, "b t c h w -> b t h w c"))
    return rearrange(z, "b t h w c -> b t c h w")


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the size of the largest tensor that any operation returned, backward pass included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = result if isinstance(result, tuple | list) else (result,)
        self.numel = max([self.numel, *(y.numel() for y in outputs if isinstance(y, Tensor))])
        return result


@every_mode
@with_and_without_sound
@given(
    **sizes,
    c=st.integers(1, 7),
    train=st.booleans(),
    batch_norm=st.booleans(),
    normalize=st.booleans(),
    align=st.booleans(),
    seed=st.integers(0, 99),
)
def test_is_the_dense_equation_with_its_gradients_and_statistics(
    mode: str,
    sound: bool,
    b: int,
    t: int,
    h: int,
    w: int,
    c: int,
    train: bool,
    batch_norm: bool,
    normalize: bool,
    align: bool,
    seed: int,
) -> None:
    assume(b * t * h * w > 1 or not (train and batch_norm))  # one value has no variance
    a = 6 if align else c
    arguments = {"mode": mode, "batch_norm": batch_norm, "normalize": normalize}
    block = make(c, seed=seed, audio_channels=a if align else None, **arguments).train(train)
    norm: nn.BatchNorm3d | nn.Identity = nn.Identity()
    if batch_norm:
        norm = nn.BatchNorm3d(c).double().train(train)
        norm.load_state_dict(block.batch_norm.state_dict())
    clip = [tensor.requires_grad_() for tensor in make_clip(b, t, c, h, w, sound=sound, a=a)]
    weight = torch.randn_like(clip[0])

    expected = dense(block, norm, *clip)
    torch.autograd.backward((expected * weight).sum())
    wanted = [parameter.grad for parameter in norm.parameters()]
    wanted += [p.grad for name, p in block.named_parameters() if not name.startswith("batch_norm")]
    wanted += [tensor.grad for tensor in clip]
    for tensor in [*block.parameters(), *clip]:
        tensor.grad = None
    actual, aligned = block(*clip)
    torch.autograd.backward((actual * weight).sum())
    found = [parameter.grad for parameter in block.batch_norm.parameters()]
    found += [p.grad for name, p in block.named_parameters() if not name.startswith("batch_norm")]
    found += [tensor.grad for tensor in clip]

    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(aligned, dense_audio(block, clip[1]) if sound else None)
    for ours, theirs in zip(found, wanted, strict=True):
        # of a bias before a batch norm the dense form gives the rounding errors, where the gradient is 0
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(block.batch_norm.state_dict(), norm.state_dict(), rtol=1e-10, atol=1e-10)


@every_mode
@with_and_without_sound
@given(**sizes, seed=st.integers(0, 99))
def test_a_batch_is_its_clips_one_by_one(
    mode: str, sound: bool, b: int, t: int, h: int, w: int, seed: int
) -> None:
    block = make(4, seed=seed, mode=mode).eval()
    clip = make_clip(b, t, 4, h, w, sound=sound)
    one_by_one = [block(*(tensor[i : i + 1] for tensor in clip))[0] for i in range(b)]
    torch.testing.assert_close(block(*clip)[0], torch.cat(one_by_one))


@every_mode
@with_and_without_sound
@given(**sizes, seed=st.integers(0, 99))
def test_moved_pixels_and_seconds_stay_moved(
    mode: str, sound: bool, b: int, t: int, h: int, w: int, seed: int
) -> None:
    block = make(4, seed=seed, mode=mode).eval()
    clip = make_clip(b, t, 4, h, w, sound=sound)
    pixels, seconds = torch.randperm(h * w), torch.randperm(t)

    def move(x: Tensor) -> Tensor:
        return x.flatten(3)[..., pixels].view_as(x)[:, seconds]

    moved = [move(clip[0]), *(audio[:, seconds] for audio in clip[1:])]
    torch.testing.assert_close(block(*moved)[0], move(block(*clip)[0]))


@every_mode
@with_and_without_sound
@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_new_block_only_normalises(mode: str, sound: bool, batch_norm: bool) -> None:
    torch.manual_seed(0)
    clip = make_clip(2, 3, 8, 4, 5, sound=sound, double=False)
    block = TPAVI(8, audio_channels=6, mode=mode, batch_norm=batch_norm)
    expected = nn.functional.layer_norm(clip[0].movedim(2, -1), (8,)).movedim(-1, 2)
    torch.testing.assert_close(block(*clip)[0], expected)


@every_mode
@with_and_without_sound
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_nothing_has_the_size_of_all_pairs(mode: str, sound: bool, double: bool, normalize: bool) -> None:
    t, c, h, w = 4, 8, 16, 16
    n = t * h * w
    block = make(c, mode=mode, double=double, normalize=normalize)
    clip = [tensor.requires_grad_() for tensor in make_clip(1, t, c, h, w, sound=sound, double=double)]
    with LargestTensor() as largest:
        block(*clip)[0].square().sum().backward()
    assert n * c <= largest.numel <= (n + 1) * c < n * n / 100
    with LargestTensor() as largest:
        dense(block, nn.Identity(), *clip)
    assert largest.numel >= n * n


@with_and_without_sound
def test_normalised_features_have_no_scale(sound: bool) -> None:
    block = make(8, audio_channels=None, normalize=True).eval()
    clip = make_clip(2, 3, 8, 4, 5, sound=sound, a=8)
    fused, audio = block(*clip)
    louder = block(*(1000 * tensor for tensor in clip))[0]  # 1e-6 under the root is nothing to either
    torch.testing.assert_close(louder, fused, rtol=1e-4, atol=1e-4)
    silent, silence = block(*(0 * tensor for tensor in clip))
    assert silent.isfinite().all()
    if sound:
        torch.testing.assert_close(audio.norm(dim=-1), torch.ones(2, 3).double(), rtol=1e-4, atol=0)
        assert (silence == 0).all()


@with_and_without_sound
def test_a_synchronised_batch_norm_normalises_too(sound: bool) -> None:
    block = make(4).eval()
    clip = make_clip(2, 3, 4, 2, 5, sound=sound)
    expected = block(*clip)[0]
    other = nn.SyncBatchNorm.convert_sync_batchnorm(block)
    assert isinstance(other.batch_norm, nn.SyncBatchNorm)
    torch.testing.assert_close(other(*clip)[0], expected)


def test_leaves_channels_last_and_takes_them_so() -> None:
    block = make(8)
    x, audio = make_clip(2, 3, 8, 4, 5, sound=True)
    fused = block(x, audio)[0]
    assert fused.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    frames = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(block(frames.view_as(x), audio)[0], fused)


@every_mode
@with_and_without_sound
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_under_autocast(mode: str, sound: bool, dtype: torch.dtype) -> None:
    block = make(16, mode=mode, double=False)
    clip = make_clip(2, 3, 16, 4, 5, sound=sound, double=False)
    expected = block(*clip)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = block(*(tensor.to(dtype) for tensor in clip))[0]
    actual.float().square().sum().backward()
    error = (actual.float() - expected).abs().mean() / expected.abs().mean()
    assert error < 0.02  # bfloat16 keeps 8 bits, and the batch norm enlarges what they lose
    assert all(p.grad.isfinite().all() for p in block.parameters() if p.grad is not None)


@pytest.mark.slow
@with_and_without_sound
def test_compiles_as_one_graph(sound: bool) -> None:
    block = make(16, double=False)
    clip = make_clip(2, 3, 16, 4, 5, sound=sound, double=False)
    expected = block(*clip)[0]
    torch.testing.assert_close(torch.compile(block, fullgraph=True)(*clip)[0], expected, rtol=1e-5, atol=1e-5)


NAMES = {
    "align": "align_channel",
    "query": "theta",
    "key": "phi",
    "value": "g",
    "pair": "W_f.0",
    "out": "W_z.0",
    "batch_norm": "W_z.1",
    "layer_norm": "norm_layer",
}


@pytest.mark.parametrize("name", _golden.names("A_tpavi_"))
def test_gives_the_numbers_of_avsbench_and_ecmvae(name: str) -> None:
    ecmvae = "ecmvae" in name
    case = _golden.case(name)
    constructor, table = case["constructor"], {key for key, _ in case["state_dict"]}
    block = TPAVI(
        constructor["in_channels"],
        hidden_channels=constructor.get("inter_channels"),
        mode=constructor.get("mode", "dot"),
        batch_norm=constructor.get("bn_layer", True),
        audio_channels=None if ecmvae else 128,
        audio_bias="align_channel.bias" in table,
        normalize=ecmvae,
    )

    def rename(key: str) -> str:
        module, parameter = key.split(".")
        theirs = NAMES[module] if constructor.get("bn_layer", True) else NAMES[module].removesuffix(".0")
        return f"{theirs}.{parameter}"

    assert {rename(key) for key in block.state_dict()} == table
    _golden.load_filled(block, name, rename)
    block.train(case["mode"] == "train")

    inputs = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    clip = [inputs[key].requires_grad_() for key in ("x", "audio") if key in inputs]
    if ecmvae:  # frames first, the five of a clip one after the other
        z, aligned = block(*(tensor.unflatten(0, (-1, 5)) for tensor in clip))
        found = {"z": z.flatten(0, 1), "audio_temp": aligned.mT}
    else:
        z, aligned = block(rearrange(clip[0], "b c t h w -> b t c h w"), *clip[1:])
        found = {"z": rearrange(z, "b t c h w -> b c t h w"), "audio_temp": aligned}
    if case["mode"] == "train":
        found |= {
            f"running_{key}_after": getattr(block.batch_norm, f"running_{key}") for key in ("mean", "var")
        }
    if "grad_z" in inputs:
        loss = (found["z"] * inputs["grad_z"]).sum()
        if aligned is not None:
            loss = loss + (found["audio_temp"] * inputs["grad_audio_temp"]).sum()
        loss.backward()
        found |= {f"grad_{key}": tensor.grad for key, tensor in zip(("x", "audio"), clip, strict=False)}
        found |= {f"grad_param.{rename(key)}": p.grad for key, p in block.named_parameters()}
    for output in case["outputs"]:
        _golden.assert_matches(name, output["name"], found[output["name"]].reshape(output["shape"]))


def test_wrong_arguments_are_named() -> None:
    block = make(8)
    x, audio = make_clip(2, 5, 8, 4, 4, sound=True)
    with pytest.raises(
        ValueError, match=r"x: expected shape \(b, t, c, h, w\) with c=8, got \(2, 5, 7, 4, 4\)"
    ):
        block(x[:, :, :7], audio)
    with pytest.raises(
        ValueError, match=r"audio: expected shape \(b, t, a\) with b=2, t=5, a=6, got \(2, 4, 6\)"
    ):
        block(x, audio[:, :4])
    with pytest.raises(ValueError, match=r"mode: expected one of 'dot', .*, got 'dott'"):
        TPAVI(8, mode="dott")
    with pytest.raises(ValueError, match="hidden_channels: expected a number above 0, got 0"):
        TPAVI(8, hidden_channels=0)
    with pytest.raises(ValueError, match="channels: expected a number above 0, got -8"):
        TPAVI(-8)
    with pytest.raises(ValueError, match="audio_channels: expected a number above 0, got 0"):
        TPAVI(8, audio_channels=0)
    with pytest.raises(ValueError, match=r"audio: expected .* with b=2, t=5, a=8, got \(2, 5, 6\)"):
        TPAVI(8, audio_channels=None)(x, audio)
    with pytest.raises(ValueError, match="x: expected more than one position in training"):
        block(x[:1, :1, :, :1, :1], audio[:1, :1])


@every_mode
def test_state_dict_round_trip(mode: str) -> None:
    block, other = make(8, mode=mode).eval(), make(8, mode=mode, seed=1).eval()
    clip = make_clip(2, 3, 8, 4, 5, sound=True)
    assert not torch.equal(other(*clip)[0], block(*clip)[0])
    other.load_state_dict(block.state_dict())
    assert torch.equal(other(*clip)[0], block(*clip)[0])
