import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avslib.models import Segmentation


@given(s=st.integers(2, 5), k=st.integers(1, 5), seed=st.integers(0, 99), scale=st.sampled_from([1.0, 30.0]))
def test_samples_are_averaged_as_the_probabilities_that_they_stand_for(
    s: int, k: int, seed: int, scale: float
) -> None:
    samples = scale * torch.randn(s, 2, 3, k, 4, 4, generator=torch.Generator().manual_seed(seed))
    of_each = samples.double().sigmoid() if k == 1 else samples.double().softmax(dim=3)
    output = Segmentation.of_samples(samples)
    torch.testing.assert_close(output.probabilities().double(), of_each.mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        output.uncertainty().double(), of_each.std(dim=0, correction=0), rtol=1e-4, atol=1e-4
    )
    mean = of_each.mean(dim=0)
    both = torch.cat([1 - mean, mean], dim=2) if k == 1 else mean
    chosen = both.take_along_dim(output.masks()[:, :, None], dim=2)
    torch.testing.assert_close(chosen, both.amax(dim=2, keepdim=True), rtol=0, atol=1e-6)


def test_what_a_softmax_does_not_see_changes_nothing() -> None:
    samples = torch.randn(3, 1, 2, 5, 4, 4)
    moved = samples + torch.randn(3, 1, 2, 1, 4, 4)
    first, second = map(Segmentation.of_samples, (samples, moved))
    torch.testing.assert_close(first.logits, second.logits)
    torch.testing.assert_close(first.uncertainty(), second.uncertainty())


def test_the_mean_is_exact_where_every_probability_rounds_to_one() -> None:
    output = Segmentation.of_samples(torch.tensor([200.0, 100.0]).view(2, 1, 1, 1, 1, 1))
    assert output.logits.item() == pytest.approx(100 + math.log(2))


def test_a_single_sample_is_the_prediction() -> None:
    logits = torch.randn(1, 1, 1, 5, 4, 4)
    assert torch.equal(Segmentation.of_samples(logits).logits, logits[0])


def test_the_mean_of_samples_is_as_precise_as_they_are() -> None:
    assert Segmentation.of_samples(torch.zeros(2, 1, 1, 1, 4, 4, dtype=torch.float64)).logits.dtype == (
        torch.float64
    )


def test_probabilities_are_not_of_half_precision() -> None:
    assert (
        Segmentation(torch.zeros(1, 1, 1, 4, 4, dtype=torch.bfloat16)).probabilities().dtype == torch.float32
    )
