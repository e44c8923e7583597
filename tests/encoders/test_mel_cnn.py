from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avslib.encoders.mel_cnn import MelCNN


def test_it_is_small() -> None:
    assert 300_000 < sum(weight.numel() for weight in MelCNN().parameters()) < 700_000


@settings(max_examples=8)
@given(leading=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 99))
@torch.no_grad()
def test_every_example_is_embedded_by_itself(leading: list[int], seed: int) -> None:
    network = MelCNN(embedding_dim=7, width=4).eval()
    log_mel = torch.randn(*leading, 1, 96, 64, generator=torch.Generator().manual_seed(seed))
    together = network(log_mel)
    assert together.shape == (*leading, 7)
    alone = torch.stack([network(example) for example in log_mel.view(-1, 1, 96, 64)])
    torch.testing.assert_close(together.view(-1, 7), alone)


@torch.no_grad()
def test_frequency_is_kept_and_the_order_in_time_is_not() -> None:
    torch.manual_seed(0)
    network = MelCNN(width=8).eval()

    def band(low: int, start: int) -> torch.Tensor:
        example = torch.full((1, 96, 64), math.log(0.01))
        example[:, start : start + 16, low : low + 8] = 2.0
        return network(example)

    early, late, higher = band(16, 16), band(16, 64), band(48, 16)
    torch.testing.assert_close(early, late)
    assert (early - higher).norm() > 1000 * (early - late).norm()


def test_silence_and_loud_sound_enter_the_network_near_unit_range() -> None:
    seen: list[torch.Tensor] = []
    network = MelCNN(width=4)
    network.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.tensor([math.log(0.01), 3.0]).view(2, 1, 1, 1).expand(-1, -1, 96, 64))
    assert seen[0].abs().max() <= 2


def test_every_weight_gets_gradient_and_it_learns_which_band_sounds() -> None:
    torch.manual_seed(0)
    network = MelCNN(embedding_dim=2, width=4)
    log_mel = 0.5 * torch.randn(16, 1, 96, 64) + math.log(0.01)
    target = torch.arange(16) % 2
    log_mel[target == 0, :, :, 10:14] += 3
    log_mel[target == 1, :, :, 50:54] += 3
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(15):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(log_mel), target)
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters())


def test_a_state_dict_round_trip_keeps_the_embedding() -> None:
    log_mel = torch.randn(4, 1, 96, 64)
    source, target = MelCNN(width=4), MelCNN(width=4)
    source(log_mel)  # moves the running statistics
    target.load_state_dict(source.state_dict())
    assert torch.equal(source.eval()(log_mel), target.eval()(log_mel))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"log_mel: expected shape \(\.\.\., 1, 96, 64\), got \(2, 64, 96\)"):
        MelCNN(width=4)(torch.zeros(2, 64, 96))
    with pytest.raises(ValueError, match="width: expected a number above 0, got 0"):
        MelCNN(width=0)
