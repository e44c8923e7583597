import math
from pathlib import Path

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avslib import DiffusionAVS, Segmentation
from avslib.latent import cosine_ddim
from avslib.models.diffusion_avs import LATENT_SOURCES


def make_model(**changes: object) -> DiffusionAVS:
    torch.manual_seed(0)
    arguments = {"audio_encoder": "mel_cnn", "channels": 64} | changes
    return DiffusionAVS("test_resnet.r160_in1k", **arguments)  # type: ignore[arg-type]


def make_clip(b: int = 2, t: int = 3, h: int = 48, w: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(b, t, 3, h, w, generator=generator)
    log_mel = torch.randn(b, t, 1, 96, 64, generator=generator)
    masks = (torch.rand(b, t, h, w, generator=generator) > 0.7).long()
    return frames, log_mel, masks


@pytest.fixture(scope="module")
def model() -> DiffusionAVS:
    return make_model().eval()


@settings(max_examples=8)
@given(b=st.integers(1, 2), t=st.integers(1, 6), h=st.integers(32, 70), w=st.integers(32, 70))
def test_any_batch_any_seconds_any_size(model: DiffusionAVS, b: int, t: int, h: int, w: int) -> None:
    frames, log_mel, _ = make_clip(b, t, h, w)
    output = model(frames, log_mel)
    assert output.logits.shape == (b, t, 1, h, w)
    assert output.samples is None
    assert output.terms is None


def test_several_samples_share_the_encoders_and_differ(model: DiffusionAVS) -> None:
    frames, log_mel, _ = make_clip()
    output = model(frames, log_mel, num_samples=5)
    assert output.samples is not None
    assert output.samples.shape == (5, *output.logits.shape)
    assert output.uncertainty().shape == output.logits.shape
    assert output.uncertainty().max() > 0
    torch.testing.assert_close(output.probabilities(), output.samples.sigmoid().mean(0))


def test_the_same_seed_gives_the_same_masks(model: DiffusionAVS) -> None:
    frames, log_mel, _ = make_clip()
    first, again, other = (
        model(frames, log_mel, generator=torch.Generator().manual_seed(seed)).logits for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_batch_is_its_clips_one_by_one(model: DiffusionAVS) -> None:
    frames, log_mel, _ = make_clip()
    latent = torch.randn(2, 3, 24)
    together = model.encode(frames, model.audio_encoder(log_mel))
    logits = model.decode(together.pyramid, latent, size=(48, 64))
    for i in range(2):
        alone = model.encode(frames[i : i + 1], model.audio_encoder(log_mel[i : i + 1]))
        torch.testing.assert_close(
            model.decode(alone.pyramid, latent[i : i + 1], size=(48, 64)),
            logits[i : i + 1],
            rtol=1e-4,
            atol=1e-4,
        )


def test_training_gives_logits_and_what_the_objective_needs() -> None:
    frames, log_mel, masks = make_clip()
    output = make_model().train()(frames, log_mel, masks)
    assert output.logits.shape == (2, 3, 1, 48, 64)
    assert output.terms is not None
    assert all(tensor.shape == (6, 24) for tensor in output.terms[:4])
    assert output.terms.clip.tolist() == [0, 0, 0, 1, 1, 1]


def test_masks_of_unlabelled_frames_are_not_read() -> None:
    frames, log_mel, masks = make_clip()
    labelled = torch.tensor([[True, False, False], [True, True, False]])
    outputs = []
    for other in (0, 1):
        model = make_model().train()
        changed = torch.where(labelled[..., None, None], masks, other)
        outputs.append(model(frames, log_mel, changed, labelled, generator=torch.Generator().manual_seed(0)))
    first, second = outputs
    assert first.terms is not None
    assert second.terms is not None
    assert first.terms.clip.tolist() == [0, 1, 1]
    assert torch.equal(first.logits, second.logits)
    for a, b in zip(first.terms, second.terms, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("source", [*LATENT_SOURCES, {"ground_truth": 0.5, "sampled": 0.5}])
def test_every_source_of_the_latent_trains(source: str | dict[str, float]) -> None:
    model = make_model(decode_from=source).train()
    output = model(*make_clip(), generator=torch.Generator().manual_seed(0))
    assert output.terms is not None
    output.logits.square().mean().backward()
    encoder = model.ground_truth_encoder.encoder.convolutions[0][0].weight.grad
    reaches_the_code = source not in ("sampled", "one_step")
    assert bool(encoder.abs().sum() > 0) is reaches_the_code
    # also where it is zero there is one: else DistributedDataParallel would wait for it
    assert all(parameter.grad is not None for parameter in model.ground_truth_encoder.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_trains_in_other_types_than_float32(dtype: torch.dtype) -> None:
    frames, log_mel, masks = make_clip()
    output = make_model().to(dtype).train()(frames, log_mel, masks)
    output.logits.square().mean().backward()
    assert output.logits.dtype == dtype
    assert output.logits.isfinite().all()


def test_the_source_of_the_latent_can_be_changed() -> None:
    model = make_model()
    model.decode_from = "noised"
    assert model.decode_from == {"noised": 1.0}
    with pytest.raises(ValueError, match="decode_from: expected one of 'ground_truth', 'noised'"):
        model.decode_from = {"truth": 1.0}


def test_padding_is_zero_whatever_is_in_it(model: DiffusionAVS) -> None:
    frames, log_mel, _ = make_clip()
    valid = torch.tensor([[True, True, True], [True, False, False]])
    output = model(frames.masked_fill(~valid[..., None, None, None], math.nan), log_mel, valid=valid)
    assert output.logits.isfinite().all()
    assert output.logits[~valid].eq(0).all()
    assert output.logits[valid].ne(0).any()


def test_the_sources_decode_what_they_say() -> None:
    frames, log_mel, masks = make_clip()
    model = make_model(decode_from="ground_truth").train()
    encoded_masks: list[Tensor] = []
    model.ground_truth_encoder.register_forward_hook(lambda *arguments: encoded_masks.append(arguments[-1]))
    decoded: list[Tensor] = []
    model.inject.register_forward_pre_hook(lambda _, arguments: decoded.append(arguments[1]))
    model(frames, log_mel, masks)
    assert torch.equal(decoded[0].flatten(0, 1), encoded_masks[0])


def test_the_diffusion_loss_leaves_the_ground_truth_encoder_alone_unless_told() -> None:
    for detach in (True, False):
        model = make_model(detach_diffusion=detach).train()
        terms = model(*make_clip()).terms
        assert terms is not None
        torch.nn.functional.mse_loss(terms.predicted_noise, terms.noise).backward()
        gradient = model.ground_truth_encoder.encoder.convolutions[0][0].weight.grad
        assert (gradient is None) is detach


def test_a_fused_condition_hears_the_other_seconds_and_lets_the_diffusion_reach_the_backbone() -> None:
    model = make_model(condition="fused")
    for fusion in model.fusion:
        nn.init.ones_(fusion.batch_norm.weight)  # it starts at 0, and nothing is fused yet
    model.eval()
    frames, log_mel, masks = make_clip()
    other = log_mel.clone()
    other[:, 0] += 1
    told = []
    for sound in (log_mel, other):
        embedded_frames, audio = model.embed(frames, sound)
        assert audio is not None
        told.append(model.encode(embedded_frames, audio).condition)
    assert not torch.allclose(told[0][:, 1], told[1][:, 1])
    terms = model.train()(frames, log_mel, masks).terms
    assert terms is not None
    torch.nn.functional.mse_loss(terms.predicted_noise, terms.noise).backward()
    first = next(model.visual_encoder.parameters()).grad
    assert first is not None
    assert first.any()


def test_every_parameter_is_trained_by_the_sum_of_the_terms() -> None:
    model = make_model().train()
    model.fusion.requires_grad_(True)
    output = model(*make_clip())
    assert output.terms is not None
    loss = output.logits.square().mean() + output.terms.predicted_noise.square().mean()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # test_resnet's features end before its last, strided, stage has a head: nothing of it is left unused
    assert without == []


def test_a_frozen_audio_encoder_gets_no_gradient_and_keeps_its_statistics() -> None:
    model = make_model(freeze_audio=True).train()
    before = {name: value.clone() for name, value in model.audio_encoder.state_dict().items()}
    model(*make_clip()).logits.mean().backward()
    assert all(p.grad is None for p in model.audio_encoder.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.audio_encoder.state_dict().items())


def test_bf16_autocast_agrees_with_float32(model: DiffusionAVS) -> None:
    frames, log_mel, _ = make_clip()
    full = model(frames, log_mel, generator=torch.Generator().manual_seed(0)).probabilities()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(frames, log_mel, generator=torch.Generator().manual_seed(0)).probabilities()
    assert half.isfinite().all()
    # eight bits of mantissa through some fifty layers and ten sampling steps
    assert (full - half.float()).abs().mean() < 0.05


def test_a_training_step_runs_under_bf16_autocast() -> None:
    model = make_model(decode_from={"ground_truth": 0.5, "one_step": 0.5}).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*make_clip())
        assert output.terms is not None
        loss = output.logits.float().mean() + output.terms.predicted_noise.float().mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    model = make_model().eval()
    frames, log_mel, _ = make_clip()
    latent = torch.randn(2, 3, 24)
    encoded = model.encode(frames, model.audio_encoder(log_mel))
    expected = model.decode(encoded.pyramid, latent, size=(48, 64))
    model.cuda()
    encoded = model.encode(frames.cuda(), model.audio_encoder(log_mel.cuda()))
    actual = model.decode(encoded.pyramid, latent.cuda(), size=(48, 64)).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    scheduler = diffusers.DDPMScheduler.from_config({**cosine_ddim().config, "num_train_timesteps": 30})
    model = make_model(
        scheduler=scheduler, decode_from={"noised": 1.0, "sampled": 2.0}, condition="audio", latent_dim=16
    ).eval()
    model.save_pretrained(tmp_path)
    loaded = DiffusionAVS.from_pretrained(tmp_path).eval()
    assert isinstance(loaded.diffusion.scheduler, diffusers.DDPMScheduler)
    assert len(loaded.diffusion.alphas_cumprod) == 30
    assert loaded.decode_from == {"noised": 1.0, "sampled": 2.0}
    frames, log_mel, _ = make_clip()
    first, second = (
        m(frames, log_mel, generator=torch.Generator().manual_seed(0)).logits for m in (model, loaded)
    )
    assert torch.equal(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_a_saved_model_is_as_it_was_when_it_was_saved(tmp_path: Path) -> None:
    model = make_model()
    model.diffusion.scheduler = cosine_ddim(timestep_spacing="leading")
    model.diffusion.num_inference_steps = 5
    model.decode_from = {"sampled": 1.0}
    model.save_pretrained(tmp_path)
    loaded = DiffusionAVS.from_pretrained(tmp_path)
    assert loaded.diffusion.scheduler.config.timestep_spacing == "leading"
    assert loaded.diffusion.num_inference_steps == 5
    assert loaded.decode_from == {"sampled": 1.0}

    class Own(diffusers.DDIMScheduler):
        pass

    model.diffusion.scheduler = Own.from_config(cosine_ddim().config)
    with pytest.raises(ValueError, match="scheduler: expected one of diffusers' own, got Own"):
        model.save_pretrained(tmp_path)


def test_wrong_arguments_are_named(model: DiffusionAVS) -> None:
    frames, log_mel, masks = make_clip()
    with pytest.raises(ValueError, match=r"log_mel: expected shape \(b, t, 1, 96, 64\) with b=2, t=3, got"):
        model(frames, log_mel[:, :2])
    with pytest.raises(ValueError, match=r"masks: expected shape .* h=48, w=64, got \(2, 3, 24, 32\)"):
        model(frames, log_mel, masks[:, :, ::2, ::2])
    with pytest.raises(ValueError, match="num_samples: expected a number above 0"):
        model(frames, log_mel, num_samples=0)
    with pytest.raises(ValueError, match="at least 32 px, got 16 x 64"):
        model(frames[..., :16, :], log_mel)
    with pytest.raises(ValueError, match="decode_from: expected one of 'ground_truth', 'noised'"):
        make_model(decode_from="truth")
    with pytest.raises(ValueError, match="decode_from: expected at least one latent, got none"):
        make_model(decode_from={})
    with pytest.raises(ValueError, match=r"num_inference_steps: expected at most the 20 levels .*, got 50"):
        make_model(num_inference_steps=50)
    with pytest.raises(ValueError, match="channels: expected a multiple of num_groups=32, got 48"):
        make_model(channels=48)
    with pytest.raises(ValueError, match=r"condition: expected one of 'none', .*'fused', 'clip', got 'av'"):
        make_model(condition="av")
    with pytest.raises(ValueError, match="audio_encoder: expected one of 'vggish', 'mel_cnn'"):
        make_model(audio_encoder="panns")
    with pytest.raises(ValueError, match=r"backbone: .*got 'resnet5'.*nearest are .*resnet50"):
        DiffusionAVS("resnet5")


def test_one_sample_has_no_uncertainty() -> None:
    with pytest.raises(ValueError, match="num_samples above 1"):
        Segmentation(torch.zeros(1, 1, 1, 4, 4)).uncertainty()
