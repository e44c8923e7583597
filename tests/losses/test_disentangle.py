from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal

from avslib.latent.gaussian import jensen_shannon_surrogate, kl_divergence
from avslib.latent.gaussian_encoder import GaussianEncoder
from avslib.losses.disentangle import MutualInformation, conditional_log_likelihood, difference_loss
from tests import _golden

wide_and_narrow = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def codes(n: int = 5, d: int = 4, *, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Literal versions


@given(n=st.integers(1, 5), d=st.integers(1, 4), e=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_difference_is_its_formula_number_by_number(n: int, d: int, e: int, seed: int) -> None:
    rows: list[list[list[float]]] = []
    specific, shared = codes(n, d, seed=seed), codes(n, e, seed=seed + 100)
    for x in (specific, shared):
        means = [sum(column) / n for column in x.T.tolist()]
        centred = [[value - mean for value, mean in zip(row, means, strict=True)] for row in x.tolist()]
        rows.append([[value / (math.hypot(*row) + 1e-6) for value in row] for row in centred])
    products = [sum(rows[0][k][i] * rows[1][k][j] for k in range(n)) for i in range(d) for j in range(e)]
    expected = sum(product**2 for product in products) / (d * e)
    assert difference_loss(specific, shared).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(b=st.integers(1, 3), t=st.integers(1, 3), d=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_normalised_likelihood_is_a_log_density(b: int, t: int, d: int, seed: int) -> None:
    mean, log_variance, value = (codes(b * t, d, seed=seed + i).view(b, t, d) for i in range(3))
    expected = Normal(mean, log_variance.exp().sqrt()).log_prob(value).sum(-1).mean()
    found = conditional_log_likelihood(mean, log_variance, value, normalized=True)
    torch.testing.assert_close(found, expected)
    left_out = (log_variance + math.log(2 * math.pi)).sum(-1).mean() / 2
    torch.testing.assert_close(conditional_log_likelihood(mean, log_variance, value), expected + left_out)


# Numbers of the published code


@wide_and_narrow
@pytest.mark.parametrize("name", ["D_ecmvae_diff", "D_ecmvae_diff_rect"])
def test_golden_difference(name: str, dtype: torch.dtype) -> None:
    x = {
        key: torch.from_numpy(value).to(dtype).requires_grad_() for key, value in _golden.inputs(name).items()
    }
    loss = difference_loss(x["z1"], x["z2"])
    loss.backward()
    _golden.assert_matches(name, "loss", loss)
    for key, value in x.items():
        _golden.assert_matches(name, f"grad_{key}", value.grad)


def load(module: nn.Module, name: str, rename: Callable[[str], str], dtype: torch.dtype) -> nn.Module:
    """Give a module the weights of a part of the reference: only that part of them is made."""
    shapes, seed = _golden.table(name), _golden.case(name)["weight_seed"]
    theirs = {key: f"mm_vae_model.{rename(key)}" for key in module.state_dict()}
    module.load_state_dict(
        {key: torch.from_numpy(_golden.fill(their, shapes[their], seed)) for key, their in theirs.items()}
    )
    return module.to(dtype)


def encoder_key(key: str) -> str:
    module, _, rest = key.partition(".")
    if module == "convolutions":
        stage, part, name = rest.split(".")
        return f"{('layer', 'bn')[int(part)]}{int(stage) + 1}.{name}"
    return f"{ {'mean': 'fc1', 'log_variance': 'fc2', 'summary': 'fc_gt_vector'}[module] }.{rest}"


def information_key(key: str, side: str) -> str:
    module, _, rest = key.partition(".")
    part = {"mean": "mu", "log_variance": "logvar", "other": "sc_a"}[module]
    return f"ba_lower_bound_{part}_{side}.{rest}"


@wide_and_narrow
@pytest.mark.parametrize("name", [name for name in _golden.names("E_ecmvae_") if "train" in name])
def test_golden_terms_of_the_published_model_in_training(name: str, dtype: torch.dtype) -> None:
    """From frames, sound and masks to the three regularisers, without noise and without the backbone."""
    x = {key: torch.from_numpy(value).to(dtype) for key, value in _golden.inputs(name).items()}
    narrow = {"widths": (16, 32, 64, 64, 64), "summary_dim": 32, "vector_dim": 128, "grid": 2}
    pictures = {"": x["frames"], "_y": torch.cat([x["frames"], x["mask"]], dim=1)}
    kinds: dict[str, tuple[GaussianEncoder, Tensor | None, Tensor | None]] = {
        "as": (GaussianEncoder(vector_dim=128), None, x["audio"]),
        "as_y": (GaussianEncoder(image_channels=1, **narrow), x["mask"], x["audio"]),
    }
    for suffix, picture in pictures.items():
        channels = picture.shape[1]
        kinds[f"vs{suffix}"] = (GaussianEncoder(image_channels=channels, grid=2), picture, None)
        kinds[f"vac{suffix}"] = (GaussianEncoder(image_channels=channels, **narrow), picture, x["audio"])
    gaussians = {
        kind: load(encoder, name, lambda key, kind=kind: f"enc_{kind}.{encoder_key(key)}", dtype)(*inputs)
        for kind, (encoder, *inputs) in kinds.items()
    }

    kl = sum(
        kl_divergence(gaussians[f"{k}_y"], gaussians[k], published_scale=True).mean() for k in ("vs", "as")
    )
    noise = x["eps_js_prior"], x["eps_js_post"]
    kl = kl + jensen_shannon_surrogate(gaussians["vac"], gaussians["vac_y"], noise=noise).mean()
    _golden.assert_matches(name, "kl_loss", kl)

    difference, information = torch.zeros((), dtype=dtype), torch.zeros((), dtype=dtype)
    for suffix, side, long in (("", "prior", "prior"), ("_y", "post", "posterior")):
        code = {kind: gaussians[f"{kind}{suffix}"].mean for kind in ("vs", "as", "vac")}
        difference = difference + sum(difference_loss(code[kind], code["vac"]) for kind in ("vs", "as"))
        joined = [
            load(nn.Linear(32, 16), name, lambda key, i=i, long=long: f"sc{i}_{long}.{key}", dtype)(
                torch.cat([code[kind], code["vac"]], dim=1)
            )
            for i, kind in ((1, "vs"), (2, "as"))
        ]
        term = load(MutualInformation(), name, lambda key, side=side: information_key(key, side), dtype)
        information = information + term(*joined)
    _golden.assert_matches(name, "diff_loss", difference)
    _golden.assert_matches(name, "mi_loss", information)


# Properties


@given(seed=st.integers(0, 99))
def test_codes_that_tell_nothing_of_each_other_cost_nothing(seed: int) -> None:
    one, other = codes(4, 1, seed=seed).sign(), codes(4, 1, seed=seed + 100).sign()
    pairs = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0])).double()
    assert difference_loss(pairs[:, :1], pairs[:, 1:]) == 0
    assert difference_loss(one, other) >= 0
    assert difference_loss(pairs[:, :1], pairs[:, :1]).item() == pytest.approx(16, rel=1e-5)  # n squared


@given(seed=st.integers(0, 99))
def test_neither_shift_nor_order_of_rows_changes_the_difference(seed: int) -> None:
    one, other = codes(seed=seed), codes(seed=seed + 100)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    expected = difference_loss(one, other)
    torch.testing.assert_close(difference_loss(one + 3, other - 7), expected)
    torch.testing.assert_close(difference_loss(one[order], other[order]), expected)
    torch.testing.assert_close(difference_loss(other, one), expected)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_cost_nothing_and_training_goes_on(n: int) -> None:
    one, other = torch.randn(n, 4, requires_grad=True), torch.randn(n, 3, requires_grad=True)
    loss = difference_loss(one, other)
    assert loss == 0
    loss.backward()
    assert torch.equal(one.grad, torch.zeros(n, 4))
    term = MutualInformation(4)(one, one)
    assert term.isfinite()
    term.backward()


def test_the_published_likelihood_is_not_positive_and_largest_at_the_mean() -> None:
    mean, log_variance, value = codes(seed=0), codes(seed=1), codes(seed=2)
    assert conditional_log_likelihood(mean, log_variance, value) < 0
    assert conditional_log_likelihood(mean, log_variance, mean) == 0
    wider = log_variance + 9  # why it is no bound: variance costs nothing
    assert conditional_log_likelihood(mean, wider, value) > conditional_log_likelihood(
        mean, log_variance, value
    )


@pytest.mark.parametrize("normalized", [False, True])
def test_gradients_are_those_of_finite_differences(normalized: bool) -> None:
    numbers = [codes(3, 2, seed=seed).requires_grad_() for seed in range(3)]
    torch.autograd.gradcheck(lambda *x: conditional_log_likelihood(*x, normalized=normalized), numbers)


def test_the_lengths_are_constants_to_the_gradient() -> None:
    one, other = codes().requires_grad_(), codes(seed=1)
    centred, against = one - one.mean(0), other - other.mean(0)
    against = against / (against.norm(dim=1, keepdim=True) + 1e-6)
    lengths = (centred.norm(dim=1, keepdim=True) + 1e-6).detach()
    expected = torch.autograd.grad(((centred / lengths).T @ against).square().mean(), one)
    torch.testing.assert_close(torch.autograd.grad(difference_loss(one, other), one), expected)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_term_is_the_likelihood_of_three_heads(normalized: bool) -> None:
    term = MutualInformation(4, hidden_dim=3, normalized=normalized).double()
    first, second = codes(6), codes(6, seed=1)
    expected = conditional_log_likelihood(
        term.mean(first).tanh(),
        term.log_variance(first).tanh(),
        term.other(second).tanh(),
        normalized=normalized,
    )
    found = term(first.view(2, 3, 4), second.view(2, 3, 4))
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in term.parameters())


def test_weights_travel() -> None:
    source, target = MutualInformation(4), MutualInformation(4)
    target.load_state_dict(source.state_dict())
    x = torch.randn(5, 4), torch.randn(5, 4)
    assert source(*x) == target(*x)
    assert set(source.state_dict()) == {
        f"{head}.{kind}" for head in ("mean", "log_variance", "other") for kind in ("weight", "bias")
    }


def test_under_autocast_losses_are_float32() -> None:
    one, other = torch.randn(2, 5, 4).bfloat16()
    expected = difference_loss(one.float(), other.float())
    likelihood = conditional_log_likelihood(one.float(), other.float(), one.float() + 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert difference_loss(one, other) == expected
        assert conditional_log_likelihood(one, other, one.float() + 1) == likelihood
        assert MutualInformation(4)(one, other).dtype == torch.float32


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"specific: expected shape \(n, d\), got \(2, 3, 4\)"):
        difference_loss(torch.zeros(2, 3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"shared: expected shape \(n, e\) with n=5, got \(4, 4\)"):
        difference_loss(torch.zeros(5, 4), torch.zeros(4, 4))
    term = MutualInformation(4)
    with pytest.raises(ValueError, match=r"first: expected shape \(\.\.\., d\) with d=4, got \(5, 3\)"):
        term(torch.zeros(5, 3), torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"second: expected the shape \(5, 4\), got \(6, 4\)"):
        term(torch.zeros(5, 4), torch.zeros(6, 4))
    with pytest.raises(ValueError, match=r"value: expected shape .* d=4, got \(5, 3\)"):
        conditional_log_likelihood(torch.zeros(5, 4), torch.zeros(5, 4), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="hidden_dim: expected a number above 0, got 0"):
        MutualInformation(4, hidden_dim=0)
