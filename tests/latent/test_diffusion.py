import math
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avslib.latent import LatentCondDiffusion, NoiseEstimator, cosine_ddim

SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
)
NO_GENERATOR = ("UniPCMultistepScheduler", "HeunDiscreteScheduler")


class ExactDenoiser(nn.Module):
    """Knows that every code is mu: the noise is then (z_k - sqrt(alpha-bar) mu) / sqrt(1 - alpha-bar)."""

    def __init__(self, mu: Tensor, prediction_type: str = "epsilon") -> None:
        super().__init__()
        self.mu = mu
        self.prediction_type = prediction_type
        self.alphas = cosine_ddim().alphas_cumprod

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        alpha = torch.as_tensor(self._alpha(timestep), dtype=latent.dtype)[..., None]
        noise = (latent - alpha.sqrt() * self.mu) / (1 - alpha).sqrt()
        match self.prediction_type:
            case "epsilon":
                return noise
            case "sample":
                return self.mu.expand_as(latent)
            case _:
                return alpha.sqrt() * noise - (1 - alpha).sqrt() * self.mu

    def _alpha(self, timestep: Tensor) -> Tensor:
        """Euler and Heun visit levels between the trained ones, where log sigma is what they interpolate."""
        below, above = timestep.floor().long(), timestep.ceil().long()
        sigma = ((1 - self.alphas) / self.alphas).sqrt()
        between = sigma[below] + (timestep - below) * (sigma[above] - sigma[below])
        return 1 / (1 + between**2)


def make_scheduler(name: str, **changes: Any) -> Any:
    return getattr(diffusers, name).from_config({**cosine_ddim().config, **changes})


@given(k=st.integers(0, 19), seed=st.integers(0, 1000))
def test_a_noisy_latent_is_equation_5(k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    latent, noise = torch.randn(2, 3, 24, generator=generator)
    beta = [min(1 - _cosine((i + 1) / 20) / _cosine(i / 20), 0.999) for i in range(20)]
    alpha_bar = math.prod(1 - b for b in beta[: k + 1])
    expected = math.sqrt(alpha_bar) * latent + math.sqrt(1 - alpha_bar) * noise
    actual = LatentCondDiffusion(NoiseEstimator()).add_noise(latent, noise, torch.tensor(k))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def _cosine(x: float) -> float:
    return math.cos((x + 0.008) / 1.008 * math.pi / 2) ** 2


def test_noising_agrees_with_diffusers() -> None:
    diffusion = LatentCondDiffusion(NoiseEstimator())
    latent, noise = torch.randn(2, 20, 24)
    k = torch.arange(20)
    torch.testing.assert_close(
        diffusion.add_noise(latent, noise, k), diffusion.scheduler.add_noise(latent, noise, k)
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("DDIMScheduler", "leading"),  # not "linspace": there diffusers' steps do not meet, see linear_steps
        ("DDIMScheduler", "trailing"),
        ("DDPMScheduler", "leading"),
        ("DDPMScheduler", "trailing"),
        ("DDPMScheduler", "linspace"),
        *((name, "leading") for name in SCHEDULERS[2:]),
    ],
)
def test_sampling_is_diffusers_own_loop(name: str, spacing: str, prediction_type: str) -> None:
    if name == "EulerAncestralDiscreteScheduler" and prediction_type == "sample":
        pytest.skip("diffusers does not implement it")
    torch.manual_seed(0)
    kind = {"timestep_spacing": spacing, "prediction_type": prediction_type}
    denoiser = NoiseEstimator()
    condition = torch.randn(2, 5, 24)
    diffusion = LatentCondDiffusion(denoiser, scheduler=make_scheduler(name, **kind))
    actual = diffusion.sample(condition, generator=torch.Generator().manual_seed(1))

    generator = torch.Generator().manual_seed(1)
    scheduler = make_scheduler(name, **kind)
    scheduler.set_timesteps(10)
    latent = torch.randn(2, 5, 24, generator=generator) * scheduler.init_noise_sigma
    extra = {"generator": generator} if name not in NO_GENERATOR else {}
    with torch.no_grad():
        for k in scheduler.timesteps:
            output = denoiser(scheduler.scale_model_input(latent, k), k.expand(2, 5), condition)
            latent = scheduler.step(output, k, latent, **extra).prev_sample
    torch.testing.assert_close(actual, latent, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_with_an_exact_denoiser_every_scheduler_returns_the_code(name: str) -> None:
    mu = torch.linspace(-3, 3, 24)  # beyond [-1, 1], where diffusers' default would clip
    diffusion = LatentCondDiffusion(
        ExactDenoiser(mu, "v_prediction"), scheduler=make_scheduler(name, timestep_spacing="leading")
    )
    latent = diffusion.sample(torch.zeros(4, 5, 24), generator=torch.Generator().manual_seed(0))
    # UniPC and DPM-Solver end at the lowest trained level, where 0.8 % of the variance is still noise
    tolerance = 1e-3 if name in ("DDIMScheduler", "DDPMScheduler") else 0.3
    torch.testing.assert_close(latent, mu.expand(4, 5, 24), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 11, 13, 19, 20])
def test_ddim_leaves_no_noise_in_any_number_of_steps(steps: int, spacing: str) -> None:
    mu = torch.linspace(-3, 3, 24)
    diffusion = LatentCondDiffusion(
        ExactDenoiser(mu, "v_prediction"),
        scheduler=cosine_ddim(timestep_spacing=spacing),
        num_inference_steps=steps,
    )
    latent = diffusion.sample(torch.zeros(4, 5, 24), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(latent, mu.expand(4, 5, 24), rtol=1e-3, atol=1e-3)


def test_a_scheduler_that_is_replaced_is_the_one_of_training_and_sampling() -> None:
    diffusion = LatentCondDiffusion(NoiseEstimator())
    diffusion.scheduler = other = cosine_ddim(100, prediction_type="epsilon")
    torch.testing.assert_close(diffusion.alphas_cumprod, other.alphas_cumprod)
    step = diffusion(torch.zeros(500, 24), torch.zeros(500, 24))
    assert step.timestep.max() > 19
    with pytest.raises(ValueError, match=r"scheduler: expected one with noise levels \(alphas_cumprod\)"):
        diffusion.scheduler = object()
    assert diffusion.scheduler is other


def test_every_code_of_every_axis_gets_a_level_of_its_own() -> None:
    diffusion = LatentCondDiffusion(NoiseEstimator())
    latent = torch.randn(6, 5, 24)
    step = diffusion(latent, torch.zeros(6, 5, 24), generator=torch.Generator().manual_seed(0))
    assert step.timestep.shape == (6, 5)
    assert len(step.timestep.unique(dim=0)) == 6
    assert len(step.timestep.unique(dim=1).T) == 5
    for b in range(6):
        for t in range(5):
            expected = diffusion.add_noise(latent[b, t], step.noise[b, t], step.timestep[b, t])
            torch.testing.assert_close(step.noisy[b, t], expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_the_one_step_estimate_is_exact_for_an_exact_denoiser(prediction_type: str) -> None:
    mu = torch.linspace(-1, 1, 24)
    diffusion = LatentCondDiffusion(
        ExactDenoiser(mu, prediction_type),
        scheduler=make_scheduler("DDIMScheduler", prediction_type=prediction_type),
    )
    step = diffusion(mu.expand(64, 24), torch.zeros(64, 24), generator=torch.Generator().manual_seed(0))
    visible = (
        step.timestep < 19
    )  # at the last level the signal is 0.0025 of the noise: float32 has nothing left
    torch.testing.assert_close(step.estimate[visible], mu.expand(64, 24)[visible], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(step.predicted_noise, step.noise, rtol=1e-3, atol=2e-3)


def test_the_same_seed_gives_the_same_latent_and_another_seed_another() -> None:
    diffusion = LatentCondDiffusion(NoiseEstimator(), scheduler=make_scheduler("DDPMScheduler"))
    condition = torch.randn(2, 5, 24)
    first, again, other = (
        diffusion.sample(condition, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_sampling_leaves_the_callers_scheduler_as_it_was() -> None:
    scheduler = cosine_ddim()
    before = scheduler.timesteps.clone()
    LatentCondDiffusion(NoiseEstimator(), scheduler=scheduler, num_inference_steps=5).sample(
        torch.zeros(1, 24)
    )
    assert torch.equal(scheduler.timesteps, before)


def test_the_loss_teaches_the_distribution_of_the_latent() -> None:
    """Trained on two codes told apart by the condition, the sampler returns the right one."""
    torch.manual_seed(0)
    codes = torch.tensor([[1.5, -1.0, 0.5, 2.0], [-1.0, 1.0, -2.0, 0.0]])
    denoiser = NoiseEstimator(4, condition_dim=4, widths=(64, 64, 64, 64), timestep_features=16)
    diffusion = LatentCondDiffusion(denoiser, latent_dim=4)
    optimizer = torch.optim.Adam(denoiser.parameters(), 2e-3)
    which = torch.arange(128) % 2
    condition = nn.functional.one_hot(which, 4).float()
    for _ in range(250):
        step = diffusion(codes[which], condition)
        loss = nn.functional.mse_loss(step.predicted_noise, step.noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (diffusion.sample(condition) - codes[which]).abs().mean()
    swapped = (diffusion.sample(condition) - codes[1 - which]).abs().mean()
    assert error < 0.3 < 1.5 < swapped


def test_noise_as_output_makes_a_small_error_a_large_one_where_there_is_no_signal() -> None:
    """Outputs that are off by 0.01, and what they make of z0 at the last level: why v is the default."""
    mu = torch.linspace(-1, 1, 24)
    error = {}
    for kind in ("epsilon", "v_prediction"):
        exact = ExactDenoiser(mu, kind)
        exact.register_forward_hook(lambda *called: called[2] + 0.01)
        diffusion = LatentCondDiffusion(exact, scheduler=cosine_ddim(prediction_type=kind))
        step = diffusion(mu.expand(400, 24), mu.expand(400, 24), generator=torch.Generator().manual_seed(0))
        error[kind] = (step.estimate - mu)[step.timestep == 19].abs().max().item()
    assert error["v_prediction"] < 0.02 < 2 < error["epsilon"]


def test_no_gradient_flows_through_a_sample() -> None:
    condition = torch.zeros(3, 24, requires_grad=True)
    assert not LatentCondDiffusion(NoiseEstimator()).sample(condition).requires_grad


def test_a_scheduler_without_noise_levels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scheduler: expected one with noise levels.*FlowMatchEuler"):
        LatentCondDiffusion(NoiseEstimator(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler())


@pytest.mark.parametrize("shape", [(2, 5, 8), (5, 2, 24), (3, 2, 5, 24)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """Of other frames too, whose noise would be that of others without a word."""
    with pytest.raises(ValueError, match=rf"noise: expected shape \(2, 5, 24\), got \({shape[0]}, "):
        LatentCondDiffusion(NoiseEstimator()).sample(torch.zeros(2, 5, 24), noise=torch.zeros(shape))


def test_a_condition_of_other_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=r"condition: expected one for each latent, \(2, 5\), got \(5, 2\)"):
        NoiseEstimator()(torch.zeros(2, 5, 24), torch.tensor(3), torch.zeros(5, 2, 24))


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="prediction_type: expected one of 'epsilon', 'sample', 'v_pred"):
        cosine_ddim(prediction_type="noise")


def test_an_unknown_spacing_is_refused() -> None:
    with pytest.raises(
        ValueError, match="timestep_spacing: expected one of 'leading', 'linspace', 'trailing'"
    ):
        cosine_ddim(timestep_spacing="even")
