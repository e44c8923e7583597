from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as torch_kl_divergence

from avslib.latent.gaussian import (
    DiagonalGaussian,
    jensen_shannon_divergence,
    jensen_shannon_surrogate,
    kl_divergence,
    product_of_experts,
)
from tests import _golden

GRID = torch.linspace(-60, 60, 120_001, dtype=torch.float64)


def make(*shape: int, seed: int = 0, spread: float = 1.0) -> DiagonalGaussian:
    rng = torch.Generator().manual_seed(seed)
    mean, log_variance = spread * torch.randn(2, *shape, generator=rng, dtype=torch.float64)
    return DiagonalGaussian(mean, log_variance)


def reference(gaussian: DiagonalGaussian) -> Independent:
    return Independent(Normal(gaussian.mean, gaussian.log_variance.exp().sqrt()), 1)


def on_grid(gaussian: DiagonalGaussian) -> Tensor:
    """The log-density of a Gaussian over one number, at every point of the grid."""
    return Normal(gaussian.mean.squeeze(), gaussian.log_variance.exp().sqrt().squeeze()).log_prob(GRID)


def integrated_jensen_shannon(first: DiagonalGaussian, second: DiagonalGaussian) -> Tensor:
    p, q = on_grid(first), on_grid(second)
    mixture = torch.logaddexp(p, q) - math.log(2)
    return torch.trapezoid(p.exp() * (p - mixture) + q.exp() * (q - mixture), GRID) / 2


def case(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(value).to(dtype).requires_grad_() for key, value in _golden.inputs(name).items()
    }


wide_and_narrow = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


# One literal version of each


@given(b=st.integers(1, 3), t=st.integers(1, 3), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_density_and_divergence_are_those_of_torch(b: int, t: int, d: int, seed: int) -> None:
    posterior, prior = make(b, t, d, seed=seed), make(b, t, d, seed=seed + 100)
    x = make(b, t, d, seed=seed + 200).mean
    torch.testing.assert_close(posterior.log_prob(x), reference(posterior).log_prob(x))
    expected = torch_kl_divergence(reference(posterior), reference(prior))
    torch.testing.assert_close(kl_divergence(posterior, prior), expected)


@given(st.integers(0, 99))
def test_the_published_scale_squares_the_variances(seed: int) -> None:
    posterior, prior = make(3, 4, seed=seed), make(3, 4, seed=seed + 100)
    squared = [DiagonalGaussian(g.mean, 2 * g.log_variance) for g in (posterior, prior)]
    found = kl_divergence(posterior, prior, published_scale=True)
    torch.testing.assert_close(found, kl_divergence(*squared))


@given(st.integers(0, 99), st.booleans(), st.integers(1, 4))
def test_a_product_of_experts_is_the_product_of_their_densities(
    seed: int, standard_prior: bool, experts: int
) -> None:
    gaussians = [make(1, seed=seed + 100 * i) for i in range(experts)]
    standard = DiagonalGaussian(torch.zeros(1).double(), torch.zeros(1).double())
    density = torch.stack([on_grid(g).exp() for g in [*gaussians, *[standard] * standard_prior]]).prod(0)
    density = density / torch.trapezoid(density, GRID)
    product = product_of_experts(gaussians, standard_prior=standard_prior)
    torch.testing.assert_close(on_grid(product).exp(), density, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_jensen_shannon_divergence_is_that_of_numerical_integration(seed: int) -> None:
    first, second = make(1, seed=seed), make(1, seed=seed + 50, spread=2)
    expected = integrated_jensen_shannon(first, second)
    estimates = jensen_shannon_divergence(
        first.expand(4000),
        second.expand(4000),
        num_samples=4,
        generator=torch.Generator().manual_seed(seed),
    )
    error = estimates.std() / math.sqrt(len(estimates))
    assert abs(estimates.mean() - expected) < 4 * error < 0.02


def test_the_gradient_of_the_jensen_shannon_estimate_is_unbiased() -> None:
    mean = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    log_variance = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    standard = DiagonalGaussian(torch.zeros(1).double(), torch.zeros(1).double())
    moved = DiagonalGaussian(mean, log_variance)
    expected = torch.autograd.grad(integrated_jensen_shannon(moved, standard), [mean, log_variance])
    rng = torch.Generator().manual_seed(0)
    estimate = jensen_shannon_divergence(moved, standard, num_samples=100_000, generator=rng)
    found = torch.autograd.grad(estimate, [mean, log_variance])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@given(b=st.integers(1, 3), d=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_surrogate_is_its_formula_number_by_number(b: int, d: int, seed: int) -> None:
    first, second = make(b, d, seed=seed), make(b, d, seed=seed + 100)
    noise = make(b, d, seed=seed + 200)
    expected = torch.zeros(b, dtype=torch.float64)
    for row in range(b):
        for k in range(d):
            densities = []
            for gaussian, eps in ((first, noise[0]), (second, noise[1])):
                std = math.exp(gaussian.log_variance[row, k] / 2)
                densities.append(math.exp(-(eps[row, k] ** 2) / 2) / (std * math.sqrt(2 * math.pi)))
            mean = sum(densities) / 2
            expected[row] += sum(p * math.log(p / mean) for p in densities) / 2
    found = jensen_shannon_surrogate(first, second, noise=(noise.mean, noise.log_variance))
    torch.testing.assert_close(found, expected)


# Properties


def test_samples_have_the_mean_and_the_variance_they_say() -> None:
    gaussian = make(3)
    samples = gaussian.expand(100_000).sample(generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples.mean(0), gaussian.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(samples.var(0), gaussian.log_variance.exp(), rtol=0.02, atol=0)


def test_the_noise_is_ours_the_generators_or_torchs_own() -> None:
    gaussian = make(2, 5, 4)
    noise = make(2, 5, 4, seed=1).mean
    expected = gaussian.mean + gaussian.log_variance.exp().sqrt() * noise
    torch.testing.assert_close(gaussian.sample(noise=noise), expected)
    assert torch.equal(gaussian.sample(noise=torch.zeros(4)), gaussian.mean)
    assert gaussian.sample(noise=noise.expand(3, 2, 5, 4)).shape == (3, 2, 5, 4)
    again = [gaussian.sample(generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*again)
    torch.manual_seed(0)
    first, second = gaussian.sample(), gaussian.sample()
    assert not torch.equal(first, second)


def test_selected_and_expanded_gaussians_keep_their_numbers() -> None:
    gaussian = make(2, 3, 4)
    labelled = torch.tensor([[True, False, True], [False, False, True]])
    for ours, theirs in zip(gaussian.select(labelled), gaussian, strict=True):
        assert torch.equal(ours, theirs[labelled])
    for ours, theirs in zip(gaussian.expand(5), gaussian, strict=True):
        assert torch.equal(ours, torch.stack([theirs] * 5))


@given(st.integers(0, 99))
def test_divergences_are_not_negative_and_zero_between_equals(seed: int) -> None:
    first, second = make(2, 3, seed=seed), make(2, 3, seed=seed + 100)
    rng = torch.Generator().manual_seed(seed)
    assert (kl_divergence(first, second) > 0).all()
    assert (kl_divergence(first, first) == 0).all()
    assert (jensen_shannon_divergence(first, first, generator=rng) == 0).all()
    assert (jensen_shannon_divergence(first, second, generator=rng) <= math.log(2)).all()
    assert (jensen_shannon_surrogate(first, second, generator=rng) >= 0).all()


def test_the_surrogate_tells_equals_apart_and_exceeds_log_two() -> None:
    narrow = DiagonalGaussian(torch.zeros(1), torch.full((1,), -10.0))
    noise = (torch.zeros(1), torch.ones(1))
    assert jensen_shannon_surrogate(narrow, narrow, noise=noise) > math.log(2)


@given(st.integers(0, 99))
def test_a_product_is_surer_than_each_expert_and_has_no_order(seed: int) -> None:
    gaussians = [make(2, 3, seed=seed + 100 * i) for i in range(3)]
    product = product_of_experts(gaussians)
    for gaussian in gaussians:
        assert (product.log_variance < gaussian.log_variance).all()
    torch.testing.assert_close(tuple(product_of_experts(gaussians[::-1])), tuple(product))
    alone = product_of_experts(gaussians[:1], standard_prior=False)
    torch.testing.assert_close(tuple(alone), tuple(gaussians[0]))


@pytest.mark.parametrize("far", [-80.0, 80.0])
def test_extreme_variances_stay_finite(far: float) -> None:
    extreme = DiagonalGaussian(torch.ones(2), torch.full((2,), far))
    standard = DiagonalGaussian(torch.zeros(2), torch.zeros(2))
    assert torch.isfinite(torch.stack(product_of_experts([extreme, standard]))).all()
    assert torch.isfinite(jensen_shannon_divergence(extreme, standard))
    assert torch.isfinite(kl_divergence(extreme, DiagonalGaussian(torch.ones(2), torch.full((2,), far))))


# Numbers of the published code


@wide_and_narrow
def test_golden_sample(dtype: torch.dtype) -> None:
    name = "D_ecmvae_reparam"
    x = case(name, dtype)
    sample = DiagonalGaussian(x["mu"], x["logvar"]).sample(noise=x["eps"].detach())
    (sample * x["w"]).sum().backward()
    _golden.assert_matches(name, "z", sample)
    _golden.assert_matches(name, "loss", (sample * x["w"]).sum())
    for key in ("mu", "logvar"):
        _golden.assert_matches(name, f"grad_{key}", x[key].grad)


@wide_and_narrow
def test_golden_kl(dtype: torch.dtype) -> None:
    name = "D_ecmvae_kl"
    x = case(name, dtype)
    posterior = DiagonalGaussian(x["mu_q"], x["logvar_q"])
    prior = DiagonalGaussian(x["mu_p"], x["logvar_p"])
    loss = kl_divergence(posterior, prior, published_scale=True).mean()
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    for key, value in x.items():
        _golden.assert_matches(name, f"grad_{key}", value.grad)
    sound = kl_divergence(posterior, prior).mean().item()
    assert sound == pytest.approx(_golden.case(name)["sensitivity"]["kl_if_scale=exp(0.5*logvar)"], rel=1e-5)


@wide_and_narrow
def test_golden_jensen_shannon_surrogate(dtype: torch.dtype) -> None:
    name = "D_ecmvae_js"
    x = case(name, dtype)
    first, second = (DiagonalGaussian(x[f"{s}_mu"], x[f"{s}_logvar"]) for s in ("source", "target"))
    noise = (x["eps_source"].detach(), x["eps_target"].detach())
    loss = jensen_shannon_surrogate(first, second, noise=noise).mean()
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    for side, gaussian, eps in (("source", first, noise[0]), ("target", second, noise[1])):
        _golden.assert_matches(name, f"val_{side}", gaussian.sample(noise=eps))
        for key in ("mu", "logvar"):
            _golden.assert_matches(name, f"grad_{side}_{key}", x[f"{side}_{key}"].grad)


# Precision, errors, gradients


@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_parameters_are_taken_to_float32(autocast: bool) -> None:
    narrow = DiagonalGaussian(*(x.bfloat16() for x in make(3, 4)))
    wide = DiagonalGaussian(*(x.float() for x in narrow))
    noise = torch.randn(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        results = [
            (
                gaussian.sample(noise=noise),
                gaussian.log_prob(noise),
                kl_divergence(gaussian, gaussian.expand(2)),
                *product_of_experts([gaussian]),
            )
            for gaussian in (narrow, wide)
        ]
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "function",
    [
        lambda p, q: p.sample(noise=torch.ones(4)),
        lambda p, q: p.log_prob(q.mean),
        kl_divergence,
        lambda p, q: kl_divergence(p, q, published_scale=True),
        lambda p, q: jensen_shannon_divergence(p, q, generator=torch.Generator().manual_seed(0)),
        lambda p, q: product_of_experts([p, q]).mean,
        lambda p, q: product_of_experts([p, q]).log_variance,
    ],
)
def test_gradients_are_those_of_finite_differences(
    function: Callable[[DiagonalGaussian, DiagonalGaussian], Tensor],
) -> None:
    numbers = [x.requires_grad_() for seed in (0, 1) for x in make(2, 4, seed=seed)]
    torch.autograd.gradcheck(lambda *x: function(DiagonalGaussian(*x[:2]), DiagonalGaussian(*x[2:])), numbers)


def test_different_widths_are_named() -> None:
    narrow, wide = make(2, 4), make(2, 5)
    with pytest.raises(ValueError, match=r"prior\.mean: expected shape \(\.\.\., d\) with d=5, got \(2, 4\)"):
        kl_divergence(wide, narrow)
    with pytest.raises(ValueError, match=r"second\.mean: expected shape .* d=4, got \(2, 5\)"):
        jensen_shannon_divergence(narrow, wide)
    with pytest.raises(ValueError, match=r"second\.mean: expected shape .* d=4, got \(2, 5\)"):
        jensen_shannon_surrogate(narrow, wide)
    with pytest.raises(ValueError, match=r"gaussians\[1\]\.mean: expected shape .* d=4, got \(2, 5\)"):
        product_of_experts([narrow, wide])
    with pytest.raises(ValueError, match=r"noise: expected shape .* d=4, got \(2, 5\)"):
        narrow.sample(noise=wide.mean)
    with pytest.raises(ValueError, match=r"x: expected shape .* d=4, got \(2, 5\)"):
        narrow.log_prob(wide.mean)


def test_no_expert_and_no_sample_are_refused() -> None:
    with pytest.raises(ValueError, match="gaussians: expected one or more, got none"):
        product_of_experts([])
    with pytest.raises(ValueError, match="num_samples: expected a number above 0, got 0"):
        jensen_shannon_divergence(make(2), make(2), num_samples=0)
