from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avslib.latent.gaussian_encoder import GaussianEncoder
from tests import _golden

NARROW = (16, 32, 64, 64, 64)
KINDS: dict[str, dict[str, Any]] = {
    "vs": {"image_channels": 3},
    "as": {"vector_dim": 128},
    "vac": {"image_channels": 3, "vector_dim": 128, "widths": NARROW, "summary_dim": 32},
}
SMALL: dict[str, dict[str, Any]] = {
    "image": {"image_channels": 2, "widths": (2, 4)},
    "vector": {"vector_dim": 5},
    "both": {"image_channels": 2, "vector_dim": 5, "widths": (2, 4)},
    "summary": {"image_channels": 2, "vector_dim": 5, "widths": (2, 4), "summary_dim": 3},
}
each_kind = pytest.mark.parametrize("kind", SMALL)


def make(kind: str, **arguments: Any) -> GaussianEncoder:
    torch.manual_seed(0)
    return GaussianEncoder(4, **{"grid": 2, **SMALL[kind], **arguments})


def inputs(kind: str, *leading: int, h: int = 8, w: int = 8) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    given: dict[str, Tensor] = {}
    if "image_channels" in SMALL[kind]:
        given["image"] = torch.randn(*leading, 2, h, w, generator=rng)
    if "vector_dim" in SMALL[kind]:
        given["vector"] = torch.randn(*leading, 5, generator=rng)
    return given


def published_name(key: str) -> str:
    if key.startswith("convolutions."):
        _, stage, part, name = key.split(".")
        return f"{('layer', 'bn')[int(part)]}{int(stage) + 1}.{name}"
    module, name = key.split(".")
    return f"{ {'mean': 'fc1', 'log_variance': 'fc2', 'summary': 'fc_gt_vector'}[module] }.{name}"


def load(encoder: GaussianEncoder, name: str, prefix: str) -> None:
    """Give an encoder the weights of a part of the reference: only that part of them is made."""
    shapes, seed = _golden.table(name), _golden.case(name)["weight_seed"]
    theirs = {key: f"mm_vae_model.{prefix}.{published_name(key)}" for key in encoder.state_dict()}
    encoder.load_state_dict(
        {key: torch.from_numpy(_golden.fill(their, shapes[their], seed)) for key, their in theirs.items()}
    )


@pytest.mark.parametrize("name", [name for name in _golden.names("E_ecmvae_") if "train" not in name])
@pytest.mark.parametrize("factor", KINDS)
def test_the_priors_are_those_of_the_published_model(name: str, factor: str) -> None:
    size, latent = (_golden.case(name)["constructor"][key] for key in ("IMG_SIZE", "VAE_LATENT_SIZE"))
    encoder = GaussianEncoder(latent, grid=size // 32, **KINDS[factor]).eval()
    load(encoder, name, f"enc_{factor}")
    stored = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    gaussian = encoder(
        stored["frames"] if "image_channels" in KINDS[factor] else None,
        stored["audio"] if "vector_dim" in KINDS[factor] else None,
    )
    noise = stored.get(f"eps_z_prior_{factor}", torch.zeros(latent))
    _golden.assert_matches(name, f"z_prior_{factor}", gaussian.sample(noise=noise))


@each_kind
def test_it_is_convolutions_a_summary_and_two_heads(kind: str) -> None:
    encoder = make(kind).eval()
    given = inputs(kind, 3)
    features = torch.zeros(3, 0)
    if "vector" in given:
        features = given["vector"]
    if "image" in given:
        x = given["image"]
        for convolution, norm, _ in encoder.convolutions:
            x = nn.functional.leaky_relu(norm(convolution(x)), 0.01)
        flat = x.reshape(3, -1)  # 8 x 8 ends at 2 x 2, channels first
        features = torch.cat([features, encoder.summary(flat)], dim=1)
    gaussian = encoder(**given)
    torch.testing.assert_close(gaussian.mean, encoder.mean(features))
    torch.testing.assert_close(gaussian.log_variance, encoder.log_variance(features))


@each_kind
@given(b=st.integers(0, 2), t=st.integers(1, 3), h=st.integers(4, 13), w=st.integers(4, 13))
def test_any_size_and_any_axes_in_front(kind: str, b: int, t: int, h: int, w: int) -> None:
    encoder = make(kind).eval()
    given_ = inputs(kind, b, t, h=h, w=w)
    together = encoder(**given_)
    assert together.mean.shape == together.log_variance.shape == (b, t, 4)
    for clip in range(b):
        for frame in range(t):
            alone = encoder(**{key: value[clip, frame] for key, value in given_.items()})
            torch.testing.assert_close(alone.mean, together.mean[clip, frame])


def test_names_of_the_weights() -> None:
    encoder = GaussianEncoder(**KINDS["vac"])
    assert {key.split(".")[0] for key in encoder.state_dict()} == {
        "convolutions",
        "summary",
        "mean",
        "log_variance",
    }
    assert encoder.state_dict()["convolutions.4.0.weight"].shape == (64, 64, 4, 4)
    assert encoder.state_dict()["summary.weight"].shape == (32, 64 * 7 * 7)
    assert encoder.state_dict()["mean.weight"].shape == (16, 128 + 32)
    assert GaussianEncoder(image_channels=3).state_dict()["mean.weight"].shape == (16, 128 * 7 * 7)


@each_kind
def test_weights_travel(kind: str) -> None:
    source, target = make(kind).eval(), make(kind).eval()
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(tuple(target(**inputs(kind, 2))), tuple(source(**inputs(kind, 2))))


@each_kind
def test_every_weight_learns(kind: str) -> None:
    encoder = make(kind)
    gaussian = encoder(**inputs(kind, 6))
    (gaussian.mean + gaussian.log_variance).square().sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        if not key.endswith(".0.bias"):  # of a convolution: batch norm takes it out again
            assert parameter.grad.abs().sum() > 0, key


def test_under_autocast_samples_are_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gaussian = make("summary")(**inputs("summary", 6))
        assert gaussian.sample().dtype == torch.float32


def test_what_the_encoder_does_not_expect_is_named() -> None:
    both, vector = make("both"), make("vector")
    given = inputs("both", 3)
    with pytest.raises(ValueError, match="image: expected a tensor, as the encoder was built, got None"):
        both(vector=given["vector"])
    with pytest.raises(ValueError, match="vector: expected a tensor, as the encoder was built, got None"):
        both(given["image"])
    with pytest.raises(ValueError, match="image: expected None, as the encoder was built, got a tensor"):
        vector(**given)
    with pytest.raises(
        ValueError, match=r"image: expected shape \(\.\.\., c, h, w\) with c=2, got \(3, 1, 8, 8\)"
    ):
        both(given["image"][:, :1], given["vector"])
    with pytest.raises(ValueError, match=r"vector: expected shape \(\.\.\., v\) with v=5, got \(3, 4\)"):
        both(given["image"], given["vector"][:, :4])
    with pytest.raises(ValueError, match=r"vector: expected \(3,\) in front .* got \(2,\)"):
        both(given["image"], given["vector"][:2])
    with pytest.raises(ValueError, match="image_channels, vector_dim: expected one or both, got neither"):
        GaussianEncoder()
    with pytest.raises(ValueError, match="latent_dim: expected a number above 0, got 0"):
        GaussianEncoder(0, vector_dim=5)


@pytest.mark.parametrize("name", ["latent_dim", "image_channels", "vector_dim", "summary_dim", "grid"])
def test_a_size_of_0_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a number above 0, got 0"):
        GaussianEncoder(**{"image_channels": 3, name: 0})
