import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avslib.decoders import FPNHead, LatentInjection


def literal_fpn(head: FPNHead, pyramid: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Kirillov et al., figure 3, written out for four levels whose sizes double exactly."""

    def up(x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    p4, p8, p16, p32 = pyramid
    s4, s8, s16, s32 = head.levels
    total = s4[0](p4) + up(s8[0](p8)) + up(s16[1](up(s16[0](p16)))) + up(s32[2](up(s32[1](up(s32[0](p32))))))
    return nn.functional.interpolate(
        head.classify(total), scale_factor=4, mode="bilinear", align_corners=False
    )


def make_pyramid(n: int = 3, channels: int = 32, sides: tuple[int, ...] = (16, 8, 4, 2)) -> list[Tensor]:
    return [torch.randn(n, channels, side, side + side // 2) for side in sides]


def test_the_head_is_the_figure_of_panoptic_fpn() -> None:
    head = FPNHead(32, channels=64)
    pyramid = make_pyramid()
    torch.testing.assert_close(head(pyramid, size=(64, 96)), literal_fpn(head, pyramid, (64, 96)))


@given(h=st.integers(32, 75), w=st.integers(32, 75), k=st.integers(1, 3))
def test_any_size_and_any_number_of_classes(h: int, w: int, k: int) -> None:
    head = FPNHead(32, channels=32, num_classes=k)
    pyramid = [torch.randn(2, 1, 32, -(-h // stride), -(-w // stride)) for stride in (4, 8, 16, 32)]
    assert head(pyramid, size=(h, w)).shape == (2, 1, k, h, w)


def test_a_sample_axis_on_the_deepest_level_decodes_each_sample_by_itself() -> None:
    head = FPNHead(32, channels=32)
    pyramid = make_pyramid()
    deepest = torch.randn(5, *pyramid[-1].shape)
    together = head([*pyramid[:-1], deepest], size=(64, 96))
    apart = torch.stack([head([*pyramid[:-1], sample], size=(64, 96)) for sample in deepest])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_a_pyramid_of_a_single_frame_needs_no_leading_axis() -> None:
    head = FPNHead(64, channels=64)
    pyramid = [torch.randn(64, side, side) for side in (16, 8, 4, 2)]
    expected = head([level[None] for level in pyramid], size=(64, 64))[0]
    torch.testing.assert_close(head(pyramid, size=(64, 64)), expected)


def test_every_level_matters_and_gets_gradient() -> None:
    head = FPNHead(32, channels=32)
    pyramid = [level.requires_grad_() for level in make_pyramid()]
    head(pyramid, size=(64, 96)).square().sum().backward()
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for level in pyramid)


def test_the_wrong_number_of_levels_or_channels_is_named() -> None:
    head = FPNHead(32, channels=32)
    with pytest.raises(ValueError, match="pyramid: expected 4 levels, got 3"):
        head(make_pyramid()[:3], size=(64, 96))
    with pytest.raises(
        ValueError, match=r"pyramid\[0\]: expected shape \(\.\.\., c, h, w\) with c=32, got \(3, 16,"
    ):
        head(make_pyramid(channels=16), size=(64, 96))


def literal_injection(inject: LatentInjection, features: Tensor, latent: Tensor) -> Tensor:
    n, _, h, w = features.shape
    tiled = torch.empty(n, latent.shape[-1], h, w)
    for y in range(h):
        for x in range(w):
            tiled[:, :, y, x] = latent
    return inject.conv(torch.cat([features, tiled], dim=1))


def test_a_latent_is_tiled_over_the_grid_and_convolved() -> None:
    inject = LatentInjection(16, latent_dim=4)
    features, latent = torch.randn(3, 16, 5, 7), torch.randn(3, 4)
    torch.testing.assert_close(inject(features, latent), literal_injection(inject, features, latent))


def test_samples_of_a_latent_share_the_features() -> None:
    inject = LatentInjection(16, latent_dim=4)
    features, latents = torch.randn(2, 5, 16, 3, 3), torch.randn(6, 2, 5, 4)
    together = inject(features, latents)
    assert together.shape == (6, 2, 5, 16, 3, 3)
    torch.testing.assert_close(together[2], inject(features, latents[2]), rtol=1e-4, atol=1e-5)


def test_injection_names_a_wrong_latent() -> None:
    with pytest.raises(ValueError, match=r"latent: expected shape \(\.\.\., d\) with d=24, got \(2, 8\)"):
        LatentInjection()(torch.zeros(2, 128, 7, 7), torch.zeros(2, 8))
