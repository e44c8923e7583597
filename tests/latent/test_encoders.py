import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from avslib.decoders import LatentInjection
from avslib.latent import ConditionEncoder, FusedConditionEncoder, GTEncoder, NoiseEstimator
from avslib.latent.denoiser import timestep_embedding
from avslib.latent.ground_truth import LatentNorm


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_the_latent_parts_have_the_papers_four_million_parameters() -> None:
    parts = (GTEncoder(), ConditionEncoder(), LatentInjection(), NoiseEstimator())
    assert 3.6e6 <= parameters(*parts) <= 4.4e6


def test_the_noise_estimator_has_eight_fully_connected_layers() -> None:
    estimator = NoiseEstimator()
    assert len(estimator.encoder) + len(estimator.decoder) == 8


def test_the_noise_estimator_is_layers_that_read_latent_skip_condition_and_timestep() -> None:
    estimator = NoiseEstimator(6, condition_dim=5, widths=(7, 8, 9, 4), timestep_features=4).double()
    latent, condition = torch.randn(2, 3, 6).double(), torch.randn(2, 3, 5).double()
    timestep = torch.randint(20, (2, 3))
    layers = [*estimator.encoder, *estimator.decoder]
    parts = (estimator.condition.weight, estimator.timestep.weight, estimator.condition.bias)
    split = zip(*(part.split([len(layer.weight) for layer in layers]) for part in parts), strict=True)
    context = torch.cat([condition, timestep_embedding(timestep, 4).double()], dim=-1)
    x, outputs = latent, []
    for i, (layer, (of_condition, of_timestep, bias)) in enumerate(zip(layers, split, strict=True)):
        read = [x] if i < 5 else [x, outputs[7 - i]]  # the fifth to seventh outputs, from the deepest up
        weight = torch.cat([layer.weight, of_condition, of_timestep], dim=1)
        x = nn.functional.linear(torch.cat([*read, context], dim=-1), weight, bias)
        x = x if i == 7 else nn.functional.leaky_relu(x, 0.2)
        outputs.append(x)
    torch.testing.assert_close(estimator(latent, timestep, condition), x)


def test_the_noise_estimator_begins_as_layers_that_read_all_inputs_would() -> None:
    torch.manual_seed(0)
    estimator = NoiseEstimator(60, condition_dim=50, widths=(70, 80, 90, 40), timestep_features=40)
    layers = [*estimator.encoder, *estimator.decoder]
    widths = [len(layer.weight) for layer in layers]
    parts = (estimator.condition.weight, estimator.condition.bias, estimator.timestep.weight)
    for layer, *others in zip(layers, *(part.split(widths) for part in parts), strict=True):
        read = nn.Linear(layer.in_features + 50 + 40, layer.out_features)
        for part in (layer.weight, *others):
            assert part.abs().max() <= read.in_features**-0.5
            assert part.std().item() == pytest.approx(read.weight.std().item(), rel=0.25)


def test_the_ground_truth_encoder_has_the_papers_channels() -> None:
    convolutions = [module for module in GTEncoder().modules() if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == [16, 32, 64, 64, 64]
    assert {(*module.kernel_size, *module.stride, *module.padding) for module in convolutions} == {
        (4, 4, 2, 2, 1, 1)
    }


@given(b=st.integers(1, 3), t=st.integers(1, 6), h=st.integers(32, 70), w=st.integers(32, 70))
def test_masks_of_any_size_have_a_code(b: int, t: int, h: int, w: int) -> None:
    encoder = GTEncoder(8, hidden_features=16).eval()
    assert encoder(torch.zeros(b, t, h, w, dtype=torch.int64)).shape == (b, t, 8)


def test_at_224_px_the_trunk_ends_at_seven_by_seven_before_it_is_pooled() -> None:
    encoder = GTEncoder().eval().encoder
    assert encoder.convolutions(torch.zeros(1, 1, 224, 224)).shape == (1, 64, 7, 7)


def test_every_class_that_is_not_background_counts_alike() -> None:
    encoder = GTEncoder(8).eval()
    masks = torch.randint(0, 2, (2, 5, 48, 48))
    torch.testing.assert_close(encoder(masks), encoder(masks * 70))


def test_normalised_latents_have_unit_variance_in_training() -> None:
    encoder = GTEncoder()
    masks = torch.rand(64, 48, 48).gt(torch.rand(64, 1, 1)).long()
    for _ in range(100):
        latents = encoder(masks)
    torch.testing.assert_close(latents.std(0, correction=0), torch.ones(24), rtol=0.02, atol=0.02)
    torch.testing.assert_close(latents.mean(0), torch.zeros(24), rtol=0, atol=0.01)


@pytest.mark.parametrize("n", [1, 2, 4, 20])
def test_a_latent_is_the_same_in_training_and_evaluation(n: int) -> None:
    """However few frames are labelled, so that the diffusion learns the codes that it will be asked for."""
    norm = LatentNorm(4)
    for _ in range(50):
        norm(3 + 2 * torch.randn(64, 4))
    latent = 3 + 2 * torch.randn(n, 4)
    expected = F.batch_norm(latent, norm.running_mean, norm.running_var, eps=norm.eps)
    torch.testing.assert_close(copy.deepcopy(norm).eval()(latent), expected)
    torch.testing.assert_close(norm(latent), expected)


@given(n=st.integers(3, 20), seed=st.integers(0, 100))
def test_the_gradient_of_a_latent_is_that_of_batch_norm(n: int, seed: int) -> None:
    """Scaled by how wide the batch is: moving all codes, or scaling them, changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    norm = LatentNorm(4).double()
    norm(torch.randn(64, 4, generator=generator, dtype=torch.float64))
    std = (norm.running_var + norm.eps).sqrt()
    latent = torch.randn(n, 4, generator=generator, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    (found,) = torch.autograd.grad(norm(latent), latent, upstream)
    (of_batch_norm,) = torch.autograd.grad(
        F.batch_norm(latent, None, None, training=True, eps=norm.eps), latent, upstream
    )
    spread = (latent.var(0, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(found, of_batch_norm * spread / std)
    torch.testing.assert_close(found.sum(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_single_latent_is_normalised_by_what_was_seen_before() -> None:
    norm = LatentNorm(4)
    for _ in range(200):
        norm(3 + 2 * torch.randn(256, 4))
    torch.testing.assert_close(
        norm(torch.tensor([[3.0, 5.0, 1.0, 3.0]])), torch.tensor([[0.0, 1, -1, 0]]), rtol=0, atol=0.1
    )


def test_the_first_batches_count_alike() -> None:
    norm = LatentNorm(4)
    batches = 3 + 2 * torch.randn(9, 16, 4)
    for n, batch in enumerate(batches, start=1):
        norm(batch)
        torch.testing.assert_close(norm.running_mean, batches[:n].mean(dim=(0, 1)))


def test_frames_that_come_one_by_one_are_normalised_too() -> None:
    """As with S4, where a training clip has one labelled frame, in batches of one clip."""
    norm = LatentNorm(4)
    seen = torch.cat([norm(3 + 2 * torch.randn(1, 4)) for _ in range(3000)])[300:]
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(4), rtol=0, atol=0.1)
    torch.testing.assert_close(seen.std(dim=0), torch.ones(4), rtol=0, atol=0.25)
    latent = torch.randn(1, 4, requires_grad=True)
    norm(latent).sum().backward()
    assert latent.grad is not None


def test_an_encoder_in_double_stays_in_double() -> None:
    assert GTEncoder(8).double()(torch.ones(2, 32, 32)).dtype == torch.float64


def test_codes_do_not_depend_on_the_batch_in_evaluation() -> None:
    encoder = GTEncoder(8).eval()
    masks = torch.randint(0, 2, (3, 2, 40, 56))
    together = encoder(masks)
    apart = torch.stack([encoder(clip) for clip in masks])
    torch.testing.assert_close(together, apart)


def test_a_picture_too_small_for_the_batch_norms_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"picture: expected 64 px at least, or several pictures, .* got \(1,"
    ):
        GTEncoder()(torch.ones(1, 32, 63))
    assert GTEncoder()(torch.ones(1, 32, 64)).isfinite().all()
    assert GTEncoder()(torch.ones(2, 32, 32)).isfinite().all()


def test_a_mask_of_one_axis_is_refused() -> None:
    with pytest.raises(ValueError, match=r"masks: expected shape \(\.\.\., h, w\), got \(5,\)"):
        GTEncoder()(torch.zeros(5))


FRAMES, AUDIO = torch.randn(2, 3, 3, 40, 40), torch.randn(2, 3, 128)


@pytest.mark.parametrize(
    ("source", "sees_frames", "sees_sound"),
    [("none", False, False), ("audio", False, True), ("visual", True, False), ("audio_visual", True, True)],
)
def test_the_condition_sees_what_table_iii_says(source: str, sees_frames: bool, sees_sound: bool) -> None:
    encoder = ConditionEncoder(source=source).eval()
    condition = encoder(FRAMES, AUDIO)
    assert condition.shape == (2, 3, 24)
    assert torch.equal(condition, encoder(FRAMES + 1, AUDIO)) is not sees_frames
    assert torch.equal(condition, encoder(FRAMES, AUDIO + 1)) is not sees_sound


def test_the_branches_of_the_condition_are_joined_by_two_layers() -> None:
    encoder = ConditionEncoder().eval()
    assert encoder.visual is not None
    assert encoder.audio is not None
    assert encoder.join is not None

    def two_layers(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        first, last = layers[0], layers[-1]
        x = nn.functional.linear(x, first.weight, first.bias)
        return nn.functional.linear(torch.where(x > 0, x, 0.2 * x), last.weight, last.bias)

    for b, t in ((0, 0), (1, 2)):
        codes = [encoder.visual(FRAMES[b, t : t + 1])[0], two_layers(encoder.audio, AUDIO[b, t])]
        expected = two_layers(encoder.join, torch.cat(codes))
        torch.testing.assert_close(encoder(FRAMES, AUDIO)[b, t], expected, rtol=1e-4, atol=1e-5)


def test_the_condition_of_a_second_depends_on_that_second_alone() -> None:
    encoder = ConditionEncoder().eval()
    changed = AUDIO.clone()
    changed[:, 1] += 1
    differs = (encoder(FRAMES, AUDIO) != encoder(FRAMES, changed)).any(-1)
    assert differs.tolist() == [[False, True, False]] * 2


def test_the_fused_condition_is_two_layers_on_the_means_of_cells_and_the_sound() -> None:
    encoder = FusedConditionEncoder(5, channels=2, num_levels=2, audio_channels=3, grid=2)
    fine, coarse, audio = torch.randn(2, 3, 2, 4, 8), torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 3)
    condition = encoder([fine, coarse], audio)
    for b, t in ((0, 0), (1, 2)):
        read = [
            fine[b, t, c, 2 * y : 2 * y + 2, 4 * x : 4 * x + 4].mean()
            for c in (0, 1)
            for y in (0, 1)
            for x in (0, 1)
        ]
        read += [coarse[b, t, c, y, x] for c in (0, 1) for y in (0, 1) for x in (0, 1)]
        hidden = nn.functional.leaky_relu(encoder.read(torch.stack([*read, *audio[b, t]])), 0.2)
        torch.testing.assert_close(condition[b, t], encoder.write(hidden))
    with pytest.raises(ValueError, match=r"audio: expected shape .* b=2, t=3, a=3, got \(2, 4, 3\)"):
        encoder([fine, coarse], torch.zeros(2, 4, 3))


def test_seconds_attend_to_those_that_are_no_padding() -> None:
    encoder = FusedConditionEncoder(5, channels=2, num_levels=1, audio_channels=3, across_seconds=True).eval()
    level, audio = torch.randn(3, 4, 2, 4, 4), torch.randn(3, 4, 3)
    valid = torch.tensor([[True, True, True, True], [True, True, False, False], [False] * 4])
    condition = encoder([level], audio, valid)
    assert condition.isfinite().all()  # a clip that could not be read is all padding
    torch.testing.assert_close(condition[1:2, :2], encoder([level[1:2, :2]], audio[1:2, :2]))
    torch.testing.assert_close(condition[:1], encoder([level[:1]], audio[:1]))
    audio[0, 3] += 1
    assert not torch.allclose(encoder([level], audio, valid)[0, 0], condition[0, 0])


def test_wrong_shapes_and_words_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"audio: expected shape \(b, t, a\) with b=2, t=3, a=128, got \(2, 4, 128\)"
    ):
        ConditionEncoder()(FRAMES, torch.zeros(2, 4, 128))
    with pytest.raises(
        ValueError, match="source: expected one of 'none', 'audio', 'visual', 'audio_visual', got 'av'"
    ):
        ConditionEncoder(source="av")
    with pytest.raises(ValueError, match=r"condition: expected shape .* c=24, got"):
        NoiseEstimator()(torch.zeros(2, 24), torch.zeros(2), torch.zeros(2, 23))


def test_timestep_embedding_is_the_sines_of_the_transformer() -> None:
    k, features = 7, 6
    frequencies = torch.tensor([1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)])
    expected = torch.cat([(k * frequencies).sin(), (k * frequencies).cos()])
    torch.testing.assert_close(timestep_embedding(torch.tensor(k), features), expected)


def test_the_noise_estimator_uses_latent_timestep_and_condition() -> None:
    estimator = NoiseEstimator()
    latent, condition, k = torch.randn(4, 24), torch.randn(4, 24), torch.tensor([1, 5, 9, 13])
    base = estimator(latent, k, condition)
    for changed in (
        estimator(latent + 1, k, condition),
        estimator(latent, k + 1, condition),
        estimator(latent, k, condition + 1),
    ):
        assert not torch.allclose(base, changed)
    base.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in estimator.parameters())


@pytest.mark.parametrize("features", [0, 1, 127])
def test_an_odd_timestep_embedding_is_refused(features: int) -> None:
    with pytest.raises(ValueError, match="timestep_features: expected an even number of at least 2"):
        NoiseEstimator(timestep_features=features)


def test_the_norm_of_a_latent_is_no_batch_norm_to_be_synchronised() -> None:
    encoder = nn.SyncBatchNorm.convert_sync_batchnorm(GTEncoder())
    assert type(encoder.norm) is LatentNorm
    seen = encoder.train()(torch.randint(0, 2, (4, 32, 32)))
    assert seen.shape == (4, 24)
    assert encoder.norm.num_batches_tracked == 1
    encoder.norm.reset_running_stats()
    assert set(encoder.norm.state_dict()) == {"running_mean", "running_var", "num_batches_tracked"}
    assert all(
        torch.equal(a, b)
        for a, b in zip(encoder.norm.state_dict().values(), LatentNorm(24).state_dict().values(), strict=True)
    )
