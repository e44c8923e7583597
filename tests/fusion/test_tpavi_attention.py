from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.fusion.attention import dot_attention, relu_attention, softmax_attention


def assert_same_with_gradients(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(expected)
    found, wanted = (torch.autograd.grad((y * weight).sum(), inputs) for y in (actual, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def dense_relu(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.relu(query[:, :, None] + key[:, None, :]) @ value / key.shape[1]


@given(
    b=st.integers(1, 3),
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    d=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_dot_and_softmax_attention_are_their_equations(b: int, m: int, n: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    query = torch.randn(b, m, d, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(b, n, d, dtype=torch.float64, requires_grad=True) for _ in range(2))
    inputs = [query, key, value]
    dense_dot = query @ key.mT / n @ value
    assert_same_with_gradients(dot_attention(query, key, value), dense_dot, inputs)
    dense_softmax = (query @ key.mT).softmax(dim=-1) @ value
    assert_same_with_gradients(softmax_attention(query, key, value), dense_softmax, inputs)


def test_dot_attention_stays_in_the_range_of_float16() -> None:
    query, key, value = (1 + 3 * torch.rand(1, 15_680, 8) for _ in range(3))
    actual = dot_attention(query.half(), key.half(), value.half())
    torch.testing.assert_close(actual.float(), dot_attention(query, key, value), rtol=5e-3, atol=0)


@pytest.mark.parametrize("ties", [False, True])
@given(
    b=st.integers(1, 3),
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    d=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_relu_attention_is_its_equation(ties: bool, b: int, m: int, n: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    query, key = (torch.randn(b, size, dtype=torch.float64) for size in (m, n))
    if ties:  # many sums are exactly 0, where relu has the gradient 0
        query, key = query.round(), key.round()
    inputs = [
        query.requires_grad_(),
        key.requires_grad_(),
        torch.randn(b, n, d, dtype=torch.float64).requires_grad_(),
    ]
    assert_same_with_gradients(relu_attention(*inputs), dense_relu(*inputs), inputs)


@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (100.0, 1.0), (100.0, 0.01)])
def test_running_sums_lose_no_more_than_the_dense_form_does(offset: float, spread: float) -> None:
    torch.manual_seed(0)
    query, key = (spread * torch.randn(1, 2000) + sign * offset for sign in (1, -1))
    value = torch.randn(1, 2000, 4) + 0.5
    exact = dense_relu(query.double(), key.double(), value.double())
    ours, dense = ((f(query, key, value) - exact).abs().max() for f in (relu_attention, dense_relu))
    assert ours < 2 * dense
    assert ours < 1e-6 * exact.abs().max()


def test_running_sums_are_float32_for_narrower_inputs() -> None:
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 500).bfloat16(),
        torch.randn(2, 500).bfloat16(),
        torch.randn(2, 500, 3).bfloat16(),
    ]
    averaged = relu_attention(*inputs)
    assert averaged.dtype == torch.float32
    torch.testing.assert_close(averaged, dense_relu(*(x.float() for x in inputs)))
