from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avslib.fusion.folded_norm import fold_batch_norm
from avslib.fusion.tpavi import TPAVI


@given(
    clips=st.integers(1, 3),
    positions=st.integers(2, 5),
    seconds=st.integers(1, 3),
    train=st.booleans(),
    momentum=st.sampled_from([None, 0.1, 0.7]),
    tracked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_is_the_batch_norm_of_the_product(
    clips: int, positions: int, seconds: int, train: bool, momentum: float | None, tracked: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(4, momentum=momentum, track_running_stats=tracked).double().train(train)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    if norm.running_mean is not None:
        norm.running_mean.normal_()
    other = copy.deepcopy(norm)
    weights = torch.randn(clips, positions, seconds, dtype=torch.float64)
    values, bias = torch.randn(clips, seconds, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    for _ in range(2):  # statistics move from the first call to the second
        expected = norm((weights @ values + bias).flatten(0, 1)).view(clips, positions, 4)
        folded, shift = fold_batch_norm(other, weights, values, bias)
        torch.testing.assert_close(weights @ folded + shift, expected, rtol=1e-10, atol=1e-10)
        weights = weights + 1
    torch.testing.assert_close(other.state_dict(), norm.state_dict(), rtol=1e-10, atol=1e-10)


def test_a_product_that_is_constant_has_no_negative_variance() -> None:
    norm = nn.BatchNorm1d(3)
    weights = torch.full((2, 4, 2), 1e4) + torch.tensor([1e-3, -1e-3])
    values = torch.tensor([1e4, -1e4])[:, None].expand(2, 2, 3)
    folded, shift = fold_batch_norm(norm, weights, values, torch.zeros(3))
    assert folded.isfinite().all()
    assert shift.isfinite().all()


def test_statistics_are_taken_in_float32_under_autocast() -> None:
    norm, other = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
    weights, values = 1 + 0.1 * torch.randn(2, 64, 3), torch.randn(2, 3, 8)
    fold_batch_norm(norm, weights, values, torch.zeros(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fold_batch_norm(other, weights, values, torch.zeros(8))
    torch.testing.assert_close(other.state_dict(), norm.state_dict())


def test_a_norm_of_another_kind_is_called() -> None:
    class Doubled(nn.BatchNorm1d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    torch.manual_seed(0)
    block, other = TPAVI(8, audio_channels=6).double().eval(), TPAVI(8, audio_channels=6).double().eval()
    nn.init.ones_(block.batch_norm.weight)
    other.load_state_dict(block.state_dict())
    other.batch_norm = Doubled(8).double().eval()
    other.batch_norm.load_state_dict(block.batch_norm.state_dict())
    clip = torch.randn(2, 3, 8, 4, 4).double(), torch.randn(2, 3, 6).double()
    called = other(*clip)[0]
    nn.init.constant_(block.batch_norm.weight, 2)
    torch.testing.assert_close(called, block(*clip)[0])


def test_compiles_as_one_graph_in_training() -> None:
    torch.manual_seed(0)
    block = TPAVI(8, audio_channels=6)
    nn.init.ones_(block.batch_norm.weight)
    other = copy.deepcopy(block)
    clip = torch.randn(2, 3, 8, 4, 4), torch.randn(2, 3, 6)
    expected = block(*clip)[0]
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*clip)[0], expected)
    torch.testing.assert_close(other.state_dict(), block.state_dict())


def test_a_single_position_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="x: expected more than one position in training"):
        fold_batch_norm(nn.BatchNorm1d(4), torch.ones(1, 1, 2), torch.ones(1, 2, 4), torch.zeros(4))
