from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from avslib.encoders.neck import ASPPNeck, DilatedNeck, Neck, ReductionNeck
from avslib.encoders.visual import VisualEncoder
from tests import _golden

NECKS = (Neck, DilatedNeck, ASPPNeck, ReductionNeck)
every_neck = pytest.mark.parametrize("neck", NECKS)
IN_CHANNELS = (3, 5)


def make_pyramid(sides: tuple[int, ...] = (9, 4), dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [
        torch.randn(2, c, side, side + 2, dtype=dtype) for c, side in zip(IN_CHANNELS, sides, strict=True)
    ]


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A convolution that keeps the size: each tap sees the map shifted, with zeros from outside."""
    _, _, h, w = x.shape
    side, dilation = conv.kernel_size[0], conv.dilation[0]
    margin = (side // 2) * dilation
    padded = F.pad(x, (margin, margin, margin, margin))
    y = torch.zeros_like(x[:, :1]) if conv.bias is None else conv.bias[:, None, None]
    for i in range(side):
        for j in range(side):
            shifted = padded[..., i * dilation : i * dilation + h, j * dilation : j * dilation + w]
            y = y + torch.einsum("oc,nchw->nohw", conv.weight[:, :, i, j], shifted)
    return y


def normalise(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var, weight, bias = (
        v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + norm.eps).sqrt() * weight + bias


def literal_dilated(level: nn.Module, x: Tensor) -> Tensor:
    convs = list(level.children())
    assert [conv.dilation[0] for conv in convs] == [3, 6, 12, 18]
    return convolve(x, convs[0]) + convolve(x, convs[1]) + convolve(x, convs[2]) + convolve(x, convs[3])


def literal_aspp(level: nn.Module, x: Tensor) -> Tensor:
    _, _, h, w = x.shape
    total = torch.zeros_like(x[..., :1, :1])
    for i in range(h):
        for j in range(w):
            total = total + x[..., i : i + 1, j : j + 1]
    mean = convolve(total / (h * w), level.mean).repeat(1, 1, h, w)
    assert [conv.dilation[0] for conv in level.dilated] == [6, 12, 18]
    branches = [mean, convolve(x, level.pixel), *(convolve(x, conv) for conv in level.dilated)]
    return convolve(torch.cat(branches, dim=1), level.project)


def literal_reduction(level: nn.Module, x: Tensor) -> Tensor:
    for i, (conv, norm) in enumerate(zip(list(level)[::2], list(level)[1::2], strict=True)):
        assert conv.kernel_size[0] == (1 if i == 0 else 3)
        x = normalise(convolve(x, conv), norm)
    return x


def make(neck: type[nn.ModuleList], **arguments: bool) -> nn.ModuleList:
    """A neck in which nothing is left at zero or one."""
    torch.manual_seed(0)
    made = neck(IN_CHANNELS, 6, **arguments).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    for key, buffer in made.named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5 if key.endswith("var") else -1, 1.5)
    return made


@pytest.mark.parametrize(
    ("neck", "literal"),
    [
        (make(DilatedNeck), literal_dilated),
        (make(DilatedNeck, bias=False), literal_dilated),
        (make(ASPPNeck), literal_aspp),
        (make(ReductionNeck), literal_reduction),
    ],
    ids=["dilated", "dilated without bias", "aspp", "reduction"],
)
@given(h=st.integers(1, 25), w=st.integers(1, 25))
def test_a_level_is_its_equation(
    neck: nn.ModuleList, literal: Callable[[nn.Module, Tensor], Tensor], h: int, w: int
) -> None:
    pyramid = [torch.randn(2, c, h, w, dtype=torch.float64) for c in IN_CHANNELS]
    for level, x, y in zip(neck, pyramid, neck(pyramid), strict=True):
        torch.testing.assert_close(y, literal(level, x))


def test_only_the_centres_of_a_dilated_kernel_meet_a_small_level() -> None:
    """As the docstring says: of 7 px, the two widest convolutions see a pixel at a time."""
    (level,) = DilatedNeck((3,), 6)
    narrow, middle, *wide = level
    for conv, sees_one in ((narrow, False), (middle, False), (wide[0], True), (wide[1], True)):
        x = torch.randn(1, 3, 7, 7)
        centre = F.conv2d(x, conv.weight[:, :, 1:2, 1:2], conv.bias)
        assert torch.allclose(conv(x), centre, atol=1e-5) is sees_one


@every_neck
def test_every_level_keeps_its_size_and_gets_the_width(neck: type[nn.ModuleList]) -> None:
    levels = neck(IN_CHANNELS, 6)(make_pyramid())
    assert [tuple(level.shape) for level in levels] == [(2, 6, 9, 11), (2, 6, 4, 6)]


@every_neck
def test_every_weight_gets_gradient_and_the_pyramid_stays(neck: type[nn.ModuleList]) -> None:
    torch.manual_seed(0)
    made, pyramid = neck(IN_CHANNELS, 6), make_pyramid()
    before = [level.clone() for level in pyramid]
    sum(level.square().sum() for level in made([x.requires_grad_() for x in pyramid])).backward()
    for tensor in [*made.parameters(), *pyramid]:
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0
    for level, same in zip(pyramid, before, strict=True):
        assert torch.equal(level, same)


@every_neck
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_under_autocast(neck: type[nn.ModuleList], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    made, pyramid = neck(IN_CHANNELS, 6).eval(), make_pyramid()
    expected = made(pyramid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = made([level.to(dtype) for level in pyramid])
    for a, b in zip(actual, expected, strict=True):
        assert (a.float() - b).abs().max() < 0.02 * b.abs().max()


@every_neck
def test_state_dict_round_trip(neck: type[nn.ModuleList]) -> None:
    torch.manual_seed(0)
    one, other, pyramid = neck(IN_CHANNELS, 6).eval(), neck(IN_CHANNELS, 6).eval(), make_pyramid()
    assert not torch.equal(one(pyramid)[0], other(pyramid)[0])
    other.load_state_dict(one.state_dict())
    for a, b in zip(one(pyramid), other(pyramid), strict=True):
        assert torch.equal(a, b)


@every_neck
def test_the_wrong_number_of_levels_is_named(neck: type[nn.ModuleList]) -> None:
    with pytest.raises(ValueError, match="pyramid: expected 2 levels, got 1"):
        neck(IN_CHANNELS, 6)(make_pyramid()[:1])


def test_dilated_weights_start_small_as_published() -> None:
    torch.manual_seed(0)
    weight = DilatedNeck((64,))[0][3].weight
    assert abs(weight.mean()) < 1e-4
    assert abs(weight.std() - 0.01) < 1e-4


def test_gives_the_numbers_of_avsbench() -> None:
    name = "E_avsbench_blocks_classifier"
    neck = DilatedNeck((10,), 16)
    _golden.load_filled(neck, name, lambda key: f"conv2d_list.{key.removeprefix('0.')}")
    _golden.assert_matches(name, "y", neck([torch.from_numpy(_golden.inputs(name)["x_classifier"])])[0])


C3N = {
    "mean": "conv",
    "pixel": "atrous_block1",
    "dilated.0": "atrous_block6",
    "dilated.1": "atrous_block12",
    "dilated.2": "atrous_block18",
    "project": "conv_1x1_output",
}


def test_gives_the_numbers_of_c3n() -> None:
    def rename(key: str) -> str:
        module, parameter = key.removeprefix("0.").rsplit(".", 1)
        return f"{C3N[module]}.{parameter}"

    name = "E_c3n_aspp"
    neck = ASPPNeck((12,), 10)
    assert {rename(key) for key in neck.state_dict()} == set(_golden.table(name))
    _golden.load_filled(neck, name, rename)
    _golden.assert_matches(name, "y", neck([torch.from_numpy(_golden.inputs(name)["x"])])[0])


def reduction_key(key: str) -> str:
    level, layer, parameter = key.split(".")
    kind = "norm" if int(layer) % 2 else "conv"
    return f"neck_prior.conv_list.{level}.reduce.{int(layer) // 2}.{kind}.{parameter}"


def dilated_key(key: str) -> str:
    level, branch, parameter = key.split(".")
    return f"neck_prior.conv_list.{level}.conv2d_list.{branch}.conv.{parameter}"


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "rename"),
    [("E_ecmvae_r50_64_eps0", reduction_key), ("E_ecmvae_r50_64_aspp_latent8", dilated_key)],
)
def test_gives_the_numbers_of_ecmvae(name: str, rename: Callable[[str], str]) -> None:
    """Its necks have no case of their own; whole models have stored 64 numbers of every level."""
    encoder = VisualEncoder("resnet50").eval()
    basic = rename is reduction_key
    neck = (
        ReductionNeck(encoder.channels) if basic else DilatedNeck(encoder.channels, 128, bias=False)
    ).eval()
    assert {rename(key) for key in neck.state_dict()} == {
        key for key in _golden.table(name) if key.startswith("neck_prior.")
    }
    table, seed = _golden.table(name), _golden.case(name)["weight_seed"]
    for module, key_of in ((encoder.backbone, "encoder.{}".format), (neck, rename)):
        state = {
            key: torch.from_numpy(_golden.fill(key_of(key), table[key_of(key)], seed))
            for key in module.state_dict()
        }
        module.load_state_dict(state)

    levels = neck(encoder(torch.from_numpy(_golden.inputs(name)["frames"])))
    stages, stored = (
        _golden.case(name)["stage_names"],
        torch.from_numpy(_golden.arrays(name)["out.stage_probe"]),
    )
    for i, level in enumerate(levels):
        where = torch.linspace(0, level.numel() - 1, 64, dtype=torch.float64).long()
        expected = stored[stages.index(f"neck_prior{i}")]
        torch.testing.assert_close(level.flatten()[where], expected, rtol=1e-4, atol=5e-5)
