from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from avslib.encoders.vggish import VGGish
from tests._golden import assert_matches, case, fill, inputs

NAME = "B_vggish_net"


@pytest.fixture(scope="module")
def vggish() -> VGGish:
    with torch.device("meta"):  # 72 million random numbers that nobody needs
        network = VGGish()
    seed = case(NAME)["weight_seed"]
    weights = {
        key: torch.from_numpy(fill(key, tuple(w.shape), seed)) for key, w in network.state_dict().items()
    }
    network.load_state_dict(weights, assign=True)
    return network.eval()


def test_names_and_shapes_are_the_published_ones(vggish: VGGish) -> None:
    table = [[key, list(value.shape)] for key, value in vggish.state_dict().items()]
    assert table == [
        ["features.0.weight", [64, 1, 3, 3]],
        ["features.0.bias", [64]],
        ["features.3.weight", [128, 64, 3, 3]],
        ["features.3.bias", [128]],
        ["features.6.weight", [256, 128, 3, 3]],
        ["features.6.bias", [256]],
        ["features.8.weight", [256, 256, 3, 3]],
        ["features.8.bias", [256]],
        ["features.11.weight", [512, 256, 3, 3]],
        ["features.11.bias", [512]],
        ["features.13.weight", [512, 512, 3, 3]],
        ["features.13.bias", [512]],
        ["embeddings.0.weight", [4096, 12288]],
        ["embeddings.0.bias", [4096]],
        ["embeddings.2.weight", [4096, 4096]],
        ["embeddings.2.bias", [4096]],
        ["embeddings.4.weight", [128, 4096]],
        ["embeddings.4.bias", [128]],
    ]


@torch.no_grad()
def test_the_embedding_is_the_published_one(vggish: VGGish) -> None:
    log_mel = torch.from_numpy(inputs(NAME)["log_mel"])
    embedding = vggish(log_mel)
    assert_matches(NAME, "embedding", embedding)
    assert embedding.min() == 0
    in_clips = vggish(log_mel[:4].view(2, 2, 1, 96, 64))
    torch.testing.assert_close(in_clips.flatten(0, 1), embedding[:4], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_pooled_features_are_the_published_ones(vggish: VGGish) -> None:
    x: Tensor = torch.from_numpy(inputs(NAME)["log_mel"])
    rows = []
    for layer in vggish.features:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            rows.append([x.mean(), x.std(correction=0), x.max()])
    assert_matches(NAME, "pool_stats", torch.tensor(rows))


def test_another_shape_is_named(vggish: VGGish) -> None:
    with pytest.raises(ValueError, match=r"log_mel: expected shape \(\.\.\., 1, 96, 64\), got \(5, 96, 64\)"):
        vggish(torch.zeros(5, 96, 64))


class _Small(VGGish):
    """The loading of weights without 72 million of them."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3))
        self.embeddings = nn.Sequential(nn.Linear(2, 3))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_loaded_from_a_file(tmp_path: Path, suffix: str) -> None:
    source, target = _Small(), _Small()
    path = tmp_path / f"vggish{suffix}"
    stored = source.state_dict() | {"pproc.pca_means": torch.zeros(128, 1)}
    if suffix == ".pth":
        torch.save(stored, path)
    else:
        save_file(stored, path)
    target.load_weights(path)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_a_file_of_other_weights_is_named(tmp_path: Path) -> None:
    network = _Small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    whole = network.state_dict()
    for change, message in (
        ({"classifier.weight": torch.zeros(1)}, r"1 are missing, unknown .* such as classifier\.weight"),
        ({"embeddings.0.bias": torch.zeros(7)}, r"such as embeddings\.0\.bias"),
    ):
        torch.save(whole | change, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=rf"bad\.pth: expected the weights of VGGish .*{message}"):
            network.load_weights(tmp_path / "bad.pth")
    torch.save({key: whole[key] for key in list(whole)[1:]}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"such as features\.0\.weight"):
        network.load_weights(tmp_path / "bad.pth")
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"none\.pth"), torch.device("meta"):
        VGGish(weights=tmp_path / "none.pth")


def test_the_length_of_the_embedding_is_an_argument() -> None:
    with torch.device("meta"):
        assert VGGish(embedding_dim=16)(torch.zeros(2, 5, 1, 96, 64)).shape == (2, 5, 16)
    with pytest.raises(ValueError, match="embedding_dim: expected a number above 0, got 0"):
        VGGish(embedding_dim=0)
