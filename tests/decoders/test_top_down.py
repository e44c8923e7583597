from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from avslib.decoders.top_down import UNITS, BatchNormUnit, PreActivationUnit, TopDownDecoder
from tests import _golden

every_unit = pytest.mark.parametrize("unit", UNITS)
PUBLISHED = {"pre_activation": "bilinear", "batch_norm": "nearest"}


def make(unit: str, *, double: bool = True, **arguments: Any) -> TopDownDecoder:
    """A small decoder in evaluation in which nothing is left at zero or one."""
    torch.manual_seed(0)
    arguments = {"upsample": PUBLISHED[unit], "head_channels": (6, 4), **arguments}
    decoder = TopDownDecoder(8, unit=unit, **arguments).eval()
    for key, tensor in decoder.state_dict().items():
        if "batch_norm" in key and tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5 if key.endswith(("weight", "var")) else -0.5, 1.5)
    return decoder.double() if double else decoder


def make_pyramid(h: int = 64, w: int = 96, *leading: int, double: bool = True) -> list[Tensor]:
    dtype = torch.float64 if double else torch.float32
    return [torch.randn(*leading, 8, -(-h // s), -(-w // s), dtype=dtype) for s in (4, 8, 16, 32)]


def bilinear(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def bilinear_in_the_head(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def nearest(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def literal_pre_activation(unit: nn.Module, x: Tensor) -> Tensor:
    """The residual unit with its published side effect: x is rectified for everyone who holds it."""
    x.relu_()
    return unit.conv2(torch.relu(unit.conv1(x))) + x


def literal_batch_norm(unit: nn.Module, x: Tensor) -> Tensor:
    y = torch.relu(unit.batch_norm1(unit.conv1(x)))
    y = torch.relu(unit.batch_norm2(unit.conv2(y)))
    return x + y


def literal(decoder: TopDownDecoder, unit: str, pyramid: list[Tensor]) -> Tensor:
    """The path 4, 3, 2, 1 written out, for sizes that double; it rectifies the pyramid it is given."""
    residual = literal_pre_activation if unit == "pre_activation" else literal_batch_norm
    up = bilinear if unit == "pre_activation" else nearest
    up_head = bilinear_in_the_head if unit == "pre_activation" else nearest
    p1, p2, p3, p4 = pyramid
    lateral1, lateral2, lateral3 = decoder.lateral
    refine1, refine2, refine3, refine4 = decoder.refine
    path4 = up(residual(refine4, p4))
    path3 = up(residual(refine3, path4 + residual(lateral3, p3)))
    path2 = up(residual(refine2, path3 + residual(lateral2, p2)))
    path1 = up(residual(refine1, path2 + residual(lateral1, p1)))
    conv, _, classify = decoder.classify
    return classify(torch.relu(conv(up_head(decoder.reduce(path1)))))


@every_unit
@given(h=st.integers(1, 3), w=st.integers(1, 3), k=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_is_the_published_path_for_multiples_of_32(unit: str, h: int, w: int, k: int, seed: int) -> None:
    decoder = make(unit, num_classes=k)
    torch.manual_seed(seed)
    pyramid = make_pyramid(32 * h, 32 * w, 2)
    before = [level.clone() for level in pyramid]
    logits = decoder(pyramid, size=(32 * h, 32 * w))
    for level, same in zip(pyramid, before, strict=True):
        assert torch.equal(level, same)
    torch.testing.assert_close(logits, literal(decoder, unit, before))
    for level, seen_by_the_losses in zip(pyramid, before, strict=True):
        assert torch.equal(level.relu() if unit == "pre_activation" else level, seen_by_the_losses)


@every_unit
@given(h=st.integers(32, 75), w=st.integers(32, 75))
@settings(max_examples=15)
def test_any_size(unit: str, h: int, w: int) -> None:
    decoder = make(unit, num_classes=2, double=False)
    halves: list[torch.Size] = []
    decoder.reduce.register_forward_hook(lambda module, inputs, output: halves.append(output.shape[-2:]))
    assert decoder(make_pyramid(h, w, 2, 1, double=False), size=(h, w)).shape == (2, 1, 2, h, w)
    assert halves == [(-(-h // 2), -(-w // 2))]


@every_unit
def test_leading_axes_are_frames_by_themselves(unit: str) -> None:
    decoder, pyramid = make(unit), make_pyramid(64, 96, 2, 3)
    together = decoder(pyramid, size=(64, 96))
    apart = [decoder([level[i, j] for level in pyramid], size=(64, 96)) for i in range(2) for j in range(3)]
    torch.testing.assert_close(together.flatten(0, 1), torch.stack(apart))


@every_unit
def test_a_sample_axis_on_the_deepest_level_decodes_each_sample_by_itself(unit: str) -> None:
    decoder, pyramid = make(unit), make_pyramid(64, 96, 2, 3)
    deepest = torch.randn(4, *pyramid[-1].shape, dtype=torch.float64)
    together = decoder([*pyramid[:-1], deepest], size=(64, 96))
    apart = [decoder([*pyramid[:-1], sample], size=(64, 96)) for sample in deepest]
    torch.testing.assert_close(together, torch.stack(apart))


def test_a_zero_unit_passes_the_rectified_features_or_the_features() -> None:
    x = torch.randn(2, 8, 5, 7)
    for rectify_skip, expected in ((True, x.relu()), (False, x)):
        unit = PreActivationUnit(8, rectify_skip=rectify_skip)
        nn.init.zeros_(unit.conv2.weight)
        assert unit.conv2.bias is not None
        nn.init.zeros_(unit.conv2.bias)
        assert torch.equal(unit(x), expected)


def test_a_skip_that_is_not_rectified_is_the_unit_of_the_paper() -> None:
    torch.manual_seed(0)
    unit, x = PreActivationUnit(8, rectify_skip=False), torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(unit(x), unit.conv2(unit.conv1(x.relu()).relu()) + x)
    published, correct = make("pre_activation"), make("pre_activation", rectify_skip=False)
    correct.load_state_dict(published.state_dict())
    pyramid = make_pyramid()
    assert not torch.allclose(published(pyramid, size=(64, 96)), correct(pyramid, size=(64, 96)))


@every_unit
def test_every_weight_and_level_gets_gradient(unit: str) -> None:
    decoder, pyramid = make(unit).train(), [level.requires_grad_() for level in make_pyramid(64, 96, 2)]
    decoder(pyramid, size=(64, 96)).square().sum().backward()
    for tensor in [*decoder.parameters(), *pyramid]:
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


@every_unit
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_under_autocast(unit: str, dtype: torch.dtype) -> None:
    decoder, pyramid = make(unit, double=False), make_pyramid(64, 96, 2, double=False)
    expected = decoder(pyramid, size=(64, 96))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = decoder([level.to(dtype) for level in pyramid], size=(64, 96))
    assert (actual.float() - expected).abs().max() < 0.03 * expected.abs().max()


@every_unit
def test_state_dict_round_trip(unit: str) -> None:
    decoder, other, pyramid = make(unit), make(unit), make_pyramid()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    assert not torch.equal(decoder(pyramid, size=(64, 96)), other(pyramid, size=(64, 96)))
    other.load_state_dict(decoder.state_dict())
    assert torch.equal(decoder(pyramid, size=(64, 96)), other(pyramid, size=(64, 96)))


def test_gives_the_numbers_and_gradients_of_avsbench() -> None:
    """Its fusion block is one level: ``lateral`` for x1, added to x0, ``refine``, doubling."""
    name = "E_avsbench_blocks_fusion"
    block = nn.ModuleDict({"lateral": PreActivationUnit(16), "refine": PreActivationUnit(16)})

    def rename(key: str) -> str:
        return key.replace("lateral", "resConfUnit1").replace("refine", "resConfUnit2")

    assert {rename(key) for key in block.state_dict()} == set(_golden.table(name))
    _golden.load_filled(block, name, rename)
    inputs = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    x0, x1 = (inputs[key].requires_grad_() for key in ("x0", "x1"))
    total = x0 + block["lateral"](x1)
    y = bilinear(block["refine"](total))
    (y * inputs["gy"]).sum().backward()
    found = {"y": y, "x0_after": total.relu(), "x1_after": x1.relu(), "grad_x0": x0.grad, "grad_x1": x1.grad}
    found |= {f"grad_param.{rename(key)}": p.grad for key, p in block.named_parameters()}
    for output in _golden.case(name)["outputs"]:
        _golden.assert_matches(name, output["name"], found[output["name"]])


HEAD = {"reduce": "0", "classify.0": "2", "classify.2": "4"}


def avsbench_key(key: str) -> str:
    module, parameter = key.rsplit(".", 1)
    if module in HEAD:
        return f"output_conv.{HEAD[module]}.{parameter}"
    kind, level, conv = module.split(".")
    return f"path{int(level) + 1}.resConfUnit{1 if kind == 'lateral' else 2}.{conv}.{parameter}"


def ecmvae_key(key: str) -> str:
    module, parameter = key.rsplit(".", 1)
    if module in HEAD:
        return f"decoder_prior.head_up_2.output_conv.{HEAD[module]}.{parameter}"
    kind, level, layer = module.split(".")
    block = f"decoder_prior.fusion_block_{4 - int(level)}.resConfUnit{1 if kind == 'lateral' else 2}"
    return f"{block}.ConvBNReLU{layer[-1]}.{'conv' if layer.startswith('conv') else 'norm'}.{parameter}"


@pytest.mark.parametrize(
    ("file", "unit", "channels", "head_channels"),
    [
        ("avsbench_r50_tpavi0123.json", "pre_activation", 256, (128, 32)),
        ("c3n_pvt.json", "pre_activation", 256, (128, 32)),
        ("ecmvae_pvt_224.json", "batch_norm", 128, (64, 32)),
    ],
)
def test_weights_have_their_published_shapes_and_only_an_unused_unit_is_left_out(
    file: str, unit: str, channels: int, head_channels: tuple[int, int]
) -> None:
    rename = avsbench_key if unit == "pre_activation" else ecmvae_key
    prefixes = ("path", "output_conv") if unit == "pre_activation" else ("decoder_prior.",)
    unused = (
        "path4.resConfUnit1." if unit == "pre_activation" else "decoder_prior.fusion_block_1.resConfUnit1."
    )
    with torch.device("meta"):
        decoder = TopDownDecoder(channels, unit=unit, head_channels=head_channels)
    assert {rename(key): tuple(value.shape) for key, value in decoder.state_dict().items()} == {
        key: shape
        for key, shape in _golden.table(file).items()
        if key.startswith(prefixes) and not key.startswith(unused)
    }


def test_the_units_of_ecmvae_have_no_bias_that_the_norm_would_undo() -> None:
    unit = BatchNormUnit(4)
    assert unit.conv1.bias is None
    assert unit.conv2.bias is None


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="unit: expected one of 'pre_activation', 'batch_norm', got 'relu'"):
        TopDownDecoder(8, unit="relu")
    with pytest.raises(ValueError, match="upsample: expected one of 'bilinear', 'nearest', got 'bicubic'"):
        TopDownDecoder(8, upsample="bicubic")
    with pytest.raises(ValueError, match="num_levels: expected a number above 0, got 0"):
        TopDownDecoder(8, num_levels=0)
    with pytest.raises(ValueError, match="num_classes: expected a number above 0, got 0"):
        TopDownDecoder(8, num_classes=0)
    decoder, pyramid = make("pre_activation"), make_pyramid()
    with pytest.raises(ValueError, match="pyramid: expected 4 levels, got 3"):
        decoder(pyramid[:3], size=(64, 96))
    pyramid[2] = pyramid[2][:5]
    with pytest.raises(
        ValueError, match=r"pyramid\[2\]: expected shape \(\.\.\., c, h, w\) with c=8, got \(5, 4, 6\)"
    ):
        decoder(pyramid, size=(64, 96))
