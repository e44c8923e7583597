from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.encoders.pca import PCAQuantizer, scale_quantized
from avslib.encoders.vggish import VGGish
from avslib.media.mel import log_mel_examples
from tests import _golden


def make(size: int = 6, *, seed: int = 0) -> PCAQuantizer:
    rng = torch.Generator().manual_seed(seed)
    quantizer = PCAQuantizer(embedding_dim=size)
    constants = {
        "eigen_vectors": torch.randn(size, size, generator=rng),
        "means": torch.randn(size, generator=rng),
    }
    quantizer.load_state_dict(constants)
    return quantizer.double()


def published(name: str) -> PCAQuantizer:
    weights = {key.removeprefix("pproc."): value for key, value in _golden.reference_weights(name).items()}
    quantizer = PCAQuantizer()
    constants = {"eigen_vectors": weights["pca_eigen_vectors"], "means": weights["pca_means"].flatten()}
    quantizer.load_state_dict(constants)
    return quantizer


@given(seed=st.integers(0, 99))
def test_it_projects_clips_and_rounds(seed: int) -> None:
    quantizer = make(seed=seed)
    embedding = torch.randn(6, dtype=torch.float64)
    expected = []
    for row in quantizer.eigen_vectors.tolist():
        terms = zip(row, embedding.tolist(), quantizer.means.tolist(), strict=True)
        projected = sum(weight * (x - mean) for weight, x, mean in terms)
        expected.append(round((min(max(projected, -2), 2) + 2) / 4 * 255))
    assert quantizer(embedding).tolist() == expected


def test_leading_axes_stay() -> None:
    quantizer = make()
    embedding = torch.randn(2, 5, 6, dtype=torch.float64)
    expected = torch.stack([quantizer(row) for row in embedding.flatten(0, 1)])
    assert torch.equal(quantizer(embedding), expected.view(2, 5, 6))
    assert quantizer(embedding[:1, :1]).shape == (1, 1, 6)


def test_it_has_no_gradient() -> None:
    assert not make()(torch.randn(3, 6, dtype=torch.float64, requires_grad=True)).requires_grad
    assert not list(make().parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_numbers_are_the_same(dtype: torch.dtype) -> None:
    quantizer, embedding = make().float(), torch.randn(50, 6).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(embedding)
    assert torch.equal(found, quantizer(embedding.float()))


@pytest.mark.parametrize("name", ["B_pca_postprocess_n1", "B_pca_postprocess_n5"])
def test_it_is_the_published_one(name: str) -> None:
    quantizer = published(name)
    embedding = torch.from_numpy(_golden.inputs(name)["embedding"])
    found = quantizer(embedding)
    assert found.shape == embedding.shape
    _golden.assert_matches(name, "quantised", found.squeeze())  # a batch of one has no axis there
    whitened = (embedding - quantizer.means) @ quantizer.eigen_vectors.T
    _golden.assert_matches(name, "pca_unquantised", whitened)


@torch.no_grad()
def test_from_waveform_to_numbers() -> None:
    name = "B_vggish_wave_to_quantised"
    with torch.device("meta"):  # 72 million random numbers that nobody needs
        vggish = VGGish()
    weights = _golden.reference_weights(name)
    vggish.load_state_dict({key: weights[key] for key in vggish.state_dict()}, assign=True)
    wave = torch.from_numpy(_golden.inputs(name)["wave"])
    embedding = vggish.eval()(log_mel_examples(wave))
    _golden.assert_matches(name, "embedding", embedding)
    _golden.assert_matches(name, "quantised", published(name)(embedding))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_numbers_are_scaled_exactly(dtype: torch.dtype) -> None:
    quantized: Tensor = torch.arange(256).to(dtype)
    expected = (np.arange(256, dtype=np.float32) - 128) / 128
    assert torch.equal(scale_quantized(quantized), torch.from_numpy(expected))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"embedding: expected shape \(\.\.\., a\) with a=128, got \(2, 64\)"
    ):
        PCAQuantizer()(torch.zeros(2, 64))
    with pytest.raises(ValueError, match="embedding_dim: expected a number above 0, got 0"):
        PCAQuantizer(embedding_dim=0)
